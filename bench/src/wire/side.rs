//! Whole runs: devices under test side by side in namespaces, or whatever is between two devices.

use std::path::Path as FilePath;
use std::sync::Arc;

use super::deck::Deck;
use super::dut::{Dut, Kind, Setting};
use super::generator;
use super::lab::Namespace;
use super::measure::{self, Subject};
use super::options::{Args, Cores};
use super::report::Report;
use super::selftest::{self, SelfTest};
use super::sink::Sink;
use super::trial::Path;

/// In namespaces of its own.
pub(crate) fn by_side(args: &Args, cores: &Cores, deck: &Arc<Deck>) -> Result<Report, String> {
    let directory = tempfile::tempdir().map_err(|error| format!("cannot make a directory: {error}"))?;
    let tester = Namespace::here()?;
    let own = self_test(args, cores, deck, &tester)?;
    if args.self_test {
        return Ok(Report::new(args, cores, deck, own, &[], Vec::new()));
    }
    let (mut subjects, refused) = start(args, cores, deck, &tester, directory.path())?;
    measure_all(args, cores, &mut subjects, own.ceiling)?;
    Ok(Report::new(args, cores, deck, own, &subjects, refused))
}

/// A wire from the generator to the sink. It is gone afterwards.
fn self_test(args: &Args, cores: &Cores, deck: &Arc<Deck>, tester: &Namespace) -> Result<SelfTest, String> {
    tester.wire("g", tester, "s")?;
    let result = path(args, cores, deck, "g", "s").and_then(|mut path| selftest::run(args, cores, &mut path));
    tester.ip("link del g")?;
    result
}

/// Starts them all, each paused. Those that cannot run here are told, with the reason.
fn start(
    args: &Args,
    cores: &Cores,
    deck: &Arc<Deck>,
    tester: &Namespace,
    directory: &FilePath,
) -> Result<(Vec<Subject>, Vec<String>), String> {
    let mut kinds = args.devices_under_test.clone();
    let mut seen = std::collections::HashSet::new();
    kinds.retain(|kind| seen.insert(*kind));
    let needs_weir = kinds.iter().any(|kind| matches!(kind, Kind::Weir | Kind::WeirAdaptive));
    let setting = Setting {
        vxlan: args.vxlan,
        core: cores.device,
        other_core: cores.generator,
        weir: if needs_weir { args.weir_binary()? } else { "weir".into() },
        directory: directory.to_owned(),
    };
    let (mut subjects, mut refused) = (Vec::new(), Vec::new());
    let beside = kinds.contains(&Kind::Weir);
    for (number, kind) in kinds.into_iter().enumerate() {
        super::stop::check()?;
        let (near, far) = (format!("g{number}"), format!("s{number}"));
        let started = Dut::start(kind, &setting, tester, &near, &far)
            .and_then(|dut| Ok((dut, path(args, cores, deck, &near, &far)?)));
        match started {
            Ok((dut, path)) => {
                dut.pause();
                let mut subject = Subject::new(kind.name(), Some(dut), path);
                subject.idle_only = kind == Kind::WeirAdaptive && beside;
                subjects.push(subject);
            }
            Err(error) => refused.push(format!("{} is left out: {error}", kind.name())),
        }
    }
    if subjects.is_empty() {
        return Err(refused.join("\n"));
    }
    Ok((subjects, refused))
}

/// Out of one device, in by another.
pub(crate) fn external(
    args: &Args,
    cores: &Cores,
    deck: &Arc<Deck>,
    tx: &str,
    rx: &str,
) -> Result<Report, String> {
    let mut path = path(args, cores, deck, tx, rx)?;
    let own = match args.self_test {
        true => Some(selftest::run(args, cores, &mut path)?),
        false => None,
    };
    if let Some(own) = own {
        return Ok(Report::new(args, cores, deck, own, &[], Vec::new()));
    }
    let most = args.max_rate.or(args.rate).ok_or(
        "--max-rate is needed with --tx and --rx: what the self-test (--self-test, with both devices cabled to each other) found, \
         or the line's rate",
    )?;
    let mut subjects = [Subject::new(&format!("{tx} to {rx}"), None, path)];
    measure_all(args, cores, &mut subjects, most)?;
    Ok(Report::without_self_test(args, cores, deck, most, &subjects))
}

fn measure_all(args: &Args, cores: &Cores, subjects: &mut [Subject], ceiling: f64) -> Result<(), String> {
    measure::warm_up(subjects)?;
    if let Some(rate) = args.rate {
        measure::fixed(args, subjects, rate)?;
    } else if !args.idle {
        measure::throughput(args, subjects, ceiling)?;
    }
    match args.no_latency || args.rate.is_some() {
        true => Ok(()),
        false => measure::latencies(args, cores, subjects),
    }
}

fn path(args: &Args, cores: &Cores, deck: &Arc<Deck>, tx: &str, rx: &str) -> Result<Path, String> {
    let sink = Sink::open(rx, Arc::clone(deck))?;
    let generator = generator::open(args.generator, tx, deck)?;
    Ok(Path::new(generator, sink, Arc::clone(deck), (cores.generator, cores.sink)))
}
