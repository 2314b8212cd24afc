//! What the engine's tables cost, each alone: FIB, flow table, rules; beside DPDK's own, measured by DPDK's own tests.

mod fib;
mod flow;
pub(crate) mod peers;
pub(crate) mod report;
mod routes;
mod rules;

use std::hint::black_box;
use std::path::PathBuf;

use crate::common::clock::ticks;
use crate::common::machine::Machine;
use crate::common::{pin, record};
use report::Record;
use weir_dataplane::l3::Choice;

/// Routes like the Internet's, for other benchmarks.
pub(crate) mod internet {
    use super::routes::{self, Family};
    use ipnet::{IpNet, Ipv4Net};

    /// First octets of what is not global unicast, or is the benchmarks' own.
    const RESERVED: [u8; 8] = [10, 100, 127, 169, 172, 192, 198, 203];

    /// `count` different prefixes of global unicast IPv4 addresses, in random order.
    pub(crate) fn v4(count: usize, random: &mut fastrand::Rng) -> Vec<Ipv4Net> {
        let global = |net| match net {
            IpNet::V4(net) if !RESERVED.contains(&net.network().octets()[0]) => Some(net),
            _ => None,
        };
        let drawn = routes::prefixes(Family::V4, count + count / 8 + 16, random);
        drawn.into_iter().filter_map(global).take(count).collect()
    }

    /// `count` addresses, each within a route, both picked at random.
    pub(crate) fn v4_destinations(nets: &[Ipv4Net], count: usize, random: &mut fastrand::Rng) -> Vec<u32> {
        let nets: Vec<IpNet> = nets.iter().copied().map(IpNet::V4).collect();
        routes::destinations(&nets, count, random).into_iter().map(|address| address as u32).collect()
    }
}

/// The seed of everything random.
const SEED: u64 = 0x7765_6972;

/// Measure the engine's tables: look-ups and changes by size
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Args {
    /// Which tables
    #[arg(long, value_enum, value_delimiter = ',', default_value = "all")]
    what: Vec<What>,
    /// Run DPDK's own tests before and after (dpdk-test and dpdk-test-acl of Debian's package dpdk)
    #[arg(long)]
    peers: bool,
    /// Small tables and few repeats: seconds instead of minutes
    #[arg(long)]
    quick: bool,
    /// Repeats of each figure [default: 11, and 3 with --quick]
    #[arg(long, value_name = "N")]
    repeats: Option<usize>,
    /// Sizes instead of the usual ones, separated by commas
    #[arg(long, value_name = "N", value_delimiter = ',')]
    sizes: Vec<usize>,
    /// What routes are compiled into
    #[arg(long, value_enum, default_value = "suited")]
    routes_as: RoutesAs,
    /// The core to run on [default: the last one of the affinity mask]
    #[arg(long, value_name = "N")]
    core: Option<usize>,
    /// Write the record: machine, commit, every repeat; to standard output without FILE
    #[arg(long, value_name = "FILE", num_args = 0..=1)]
    json: Option<Option<PathBuf>>,
    /// Draw a plot for each kind of table into this folder
    #[arg(long, value_name = "FOLDER")]
    plot: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum What {
    /// Routes
    Fib,
    /// The flow table
    Flow,
    /// Classifier and firewall rules
    Rules,
    /// All of them
    All,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum RoutesAs {
    /// What weir chooses
    Suited,
    /// Tables of 24 bits
    Direct,
    /// Search trees
    Trees,
}

/// How much is measured.
struct Effort {
    repeats: usize,
    /// Look-ups in each repeat.
    lookups: usize,
    routes: Vec<usize>,
    flows: Vec<usize>,
    rules: Vec<usize>,
}

impl Args {
    fn effort(&self) -> Effort {
        let sizes = |usual: &[usize]| {
            let usual = if self.quick { usual.get(..3).unwrap_or(usual) } else { usual };
            if self.sizes.is_empty() { usual.to_vec() } else { self.sizes.clone() }
        };
        Effort {
            repeats: self.repeats.unwrap_or(if self.quick { 3 } else { 11 }).max(1),
            lookups: if self.quick { 1 << 17 } else { 1 << 20 },
            routes: sizes(&[1_000, 10_000, 100_000, 1_000_000]),
            flows: sizes(match self.peers {
                // One table has as many entries as the peer's, so that they can be compared.
                true => &[1_000, 10_000, 100_000, peers::HASHED, 1_000_000, 10_000_000],
                false => &[1_000, 10_000, 100_000, 1_000_000, 10_000_000],
            }),
            rules: sizes(&[10, 100, 1_000, 10_000, 100_000]),
        }
    }

    fn choice(&self) -> Choice {
        match self.routes_as {
            RoutesAs::Suited => Choice::Suited,
            RoutesAs::Direct => Choice::Direct,
            RoutesAs::Trees => Choice::Trees,
        }
    }

    fn wants(&self, what: What) -> bool {
        self.what.iter().any(|wanted| *wanted == what || *wanted == What::All)
    }
}

/// Ticks an operation of `run`, which does `count` of them and says something that depends on all.
fn timed<T>(count: usize, run: impl FnOnce() -> T) -> f64 {
    let start = ticks();
    black_box(run());
    ticks().wrapping_sub(start) as f64 / count.max(1) as f64
}

/// Measures and prints.
pub(crate) fn run(args: &Args) -> Result<(), String> {
    let machine = Machine::probe(Some(pin::pin(args.core)?));
    let effort = args.effort();
    let mut peers = Vec::new();
    if args.peers {
        peers::run(args, &effort, machine.core, &mut peers)?;
    }
    let mut tables = Vec::new();
    if args.wants(What::Fib) {
        tables.extend(fib::measure(&effort, args.choice())?);
    }
    if args.wants(What::Flow) {
        tables.extend(flow::measure(&effort)?);
    }
    if args.wants(What::Rules) {
        tables.extend(rules::measure(&effort));
    }
    if args.peers {
        peers::run(args, &effort, machine.core, &mut peers)?;
    }
    let result = Record { machine, tables, peers };
    if let Some(folder) = &args.plot {
        result.plot(folder)?;
    }
    if record::save(args.json.as_ref(), &result)? { Ok(()) } else { record::say(&result.text()) }
}
