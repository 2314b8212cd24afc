//! Arguments and environment.

use std::path::PathBuf;

use crate::workload::Workload;

pub(crate) const HELP: &str = "\
Usage: cargo bench -p weir-bench -- [OPTIONS] [FILTER]...

FILTER         run only workloads of this name (route/1000) or kind (route)
--json FILE    write the record (machine, commit, every repeat); also WEIR_BENCH_JSON=FILE
--repeats N    repeats of each workload, at least 11 (default 31)
--packets N    packets in each repeat, at least one pass over the flows (default 131072)
--core N       pin to this core (default: the last of the affinity mask)
--test         run each workload once, briefly, and check it (also without --bench, as under cargo test)";

/// Fewest repeats that a median and quartiles are reported of.
const FEWEST_REPEATS: usize = 11;

/// What to do.
pub(crate) enum Mode {
    Help,
    Smoke(Options),
    Measure(Options),
}

/// How to measure.
pub(crate) struct Options {
    pub(crate) json: Option<PathBuf>,
    pub(crate) repeats: usize,
    pub(crate) packets: usize,
    pub(crate) core: Option<usize>,
    pub(crate) filters: Vec<String>,
}

impl Options {
    pub(crate) fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Mode, String> {
        let mut options = Self {
            json: std::env::var_os("WEIR_BENCH_JSON").map(PathBuf::from),
            repeats: 31,
            packets: 131_072,
            core: None,
            filters: Vec::new(),
        };
        // Cargo passes --bench to `cargo bench`, and nothing to `cargo test --benches`.
        let (mut bench, mut test) = (false, false);
        while let Some(argument) = arguments.next() {
            let mut value = || arguments.next().ok_or(format!("{argument} wants a value"));
            match argument.as_str() {
                "--bench" => bench = true,
                "--test" => test = true,
                "--json" => options.json = Some(value()?.into()),
                "--repeats" => options.repeats = number(&value()?)?.max(FEWEST_REPEATS),
                "--packets" => options.packets = number(&value()?)?.max(1),
                "--core" => options.core = Some(number(&value()?)?),
                "-h" | "--help" => return Ok(Mode::Help),
                unknown if unknown.starts_with('-') => {
                    return Err(format!("unknown option {unknown}\n\n{HELP}"));
                }
                filter => options.filters.push(filter.to_owned()),
            }
        }
        Ok(if test || !bench { Mode::Smoke(options) } else { Mode::Measure(options) })
    }

    pub(crate) fn wants(&self, workload: &Workload) -> bool {
        let name = workload.name();
        let kind = name.split('/').next();
        self.filters.is_empty()
            || self.filters.iter().any(|filter| *filter == name || Some(&**filter) == kind)
    }

    /// Pins this thread and says to which core. `None` if that is not possible: the scheduler may move it.
    pub(crate) fn pin(&self) -> Option<usize> {
        let cores = core_affinity::get_core_ids().unwrap_or_default();
        let core = match self.core {
            Some(wanted) => cores.iter().find(|core| core.id == wanted),
            None => cores.last(),
        }?;
        core_affinity::set_for_current(*core).then_some(core.id)
    }
}

fn number(text: &str) -> Result<usize, String> {
    text.parse().map_err(|_| format!("{text:?} is not a number"))
}
