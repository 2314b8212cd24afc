//! The FIB: look-ups and changes in tables of different sizes.

use std::hint::black_box;
use std::time::Instant;

use weir_dataplane::frame::BURST;
use weir_dataplane::l3::{Choice, Fib, Target};

use super::report::{Figure, Table};
use super::routes::{self, Family};
use super::{Effort, SEED, timed};
use ipnet::IpNet;

/// The most routes that are added and removed to time that.
const CHANGES: usize = 10_000;

/// What is looked up, as the family's addresses are.
struct Addresses {
    v4: Vec<u32>,
    v6: Vec<u128>,
}

impl Addresses {
    fn new(family: Family, addresses: &[u128]) -> Self {
        match family {
            Family::V4 => {
                Self { v4: addresses.iter().map(|address| *address as u32).collect(), v6: Vec::new() }
            }
            Family::V6 => Self { v4: Vec::new(), v6: addresses.to_vec() },
        }
    }

    fn len(&self) -> usize {
        self.v4.len() + self.v6.len()
    }

    /// One after the other, each independent of the one before.
    #[inline(never)]
    fn single(&self, fib: &Fib) -> u32 {
        let v4 = self.v4.iter().fold(0, |sum, address| sum ^ fib.lookup_v4(*address));
        self.v6.iter().fold(v4, |sum, address| sum ^ fib.lookup_v6(*address))
    }

    /// Each begins when the one before is known: latency.
    #[inline(never)]
    fn dependent(&self, fib: &Fib) -> u32 {
        let none = black_box(0);
        let v4 = self.v4.iter().fold(0, |last, address| fib.lookup_v4(address ^ (last & none)));
        self.v6.iter().fold(v4, |last, address| fib.lookup_v6(address ^ u128::from(last & none)))
    }

    /// A burst at a time.
    #[inline(never)]
    fn burst(&self, fib: &Fib) -> u32 {
        let mut numbers = [0; BURST];
        let mut sum = 0;
        for addresses in self.v4.chunks(BURST) {
            fib.lookup_burst_v4(addresses, &mut numbers);
            sum ^= black_box(&numbers)[0];
        }
        for addresses in self.v6.chunks(BURST) {
            fib.lookup_burst_v6(addresses, &mut numbers);
            sum ^= black_box(&numbers)[0];
        }
        sum
    }
}

/// Tables of all sizes.
pub(super) fn measure(effort: &Effort, choice: Choice) -> Result<Vec<Table>, String> {
    let mut tables = Vec::new();
    for family in [Family::V4, Family::V6] {
        for &size in &effort.routes {
            tables.push(one(family, size, effort, choice)?);
        }
    }
    Ok(tables)
}

fn one(family: Family, size: usize, effort: &Effort, choice: Choice) -> Result<Table, String> {
    let random = &mut fastrand::Rng::with_seed(SEED);
    let prefixes = routes::prefixes(family, size + (size / 10).clamp(1, CHANGES), random);
    let with_targets = routes::targets(&prefixes, random);
    let (kept, extra) = with_targets.split_at(size);
    let begun = Instant::now();
    let mut fib = Fib::build_as(kept.iter().map(|(net, target)| (*net, target)), choice)
        .map_err(|error| error.to_string())?;
    let built = begun.elapsed();
    let addresses = routes::destinations(prefixes.get(..size).unwrap_or_default(), effort.lookups, random);
    let random_order = Addresses::new(family, &addresses);
    let mut sorted = addresses;
    sorted.sort_unstable();
    let in_order = Addresses::new(family, &sorted);
    let [mut single, mut burst, mut sequential, mut dependent, mut add, mut delete] =
        [const { Vec::new() }; 6];
    for _ in 0..=effort.repeats {
        let looked_up = random_order.len();
        single.push(timed(looked_up, || random_order.single(&fib)));
        burst.push(timed(looked_up, || random_order.burst(&fib)));
        sequential.push(timed(looked_up, || in_order.burst(&fib)));
        dependent.push(timed(looked_up, || random_order.dependent(&fib)));
        add.push(timed(extra.len(), || change(&mut fib, extra, true)));
        delete.push(timed(extra.len(), || change(&mut fib, extra, false)));
        if fib.len() != size {
            return Err(format!("{} of {size} routes are left after changes", fib.len()));
        }
    }
    let [v4, v6] = fib.families();
    let made = if family == Family::V4 { v4 } else { v6 };
    Ok(Table {
        table: "fib".into(),
        variant: family.name().into(),
        size,
        structure: made.structure.into(),
        pages: made.pages.name().into(),
        bytes: fib.memory(),
        build_ms: built.as_secs_f64() * 1e3,
        figures: vec![
            Figure::new("burst", burst),
            Figure::new("burst, in order", sequential),
            Figure::new("single", single),
            Figure::new("dependent", dependent),
            Figure::new("add", add),
            Figure::new("delete", delete),
        ],
    })
}

fn change(fib: &mut Fib, routes: &[(IpNet, Target)], add: bool) -> u32 {
    let mut done = 0;
    for (prefix, target) in routes {
        let ok = if add { fib.insert(*prefix, target).is_ok() } else { fib.remove(*prefix).unwrap_or(false) };
        done += u32::from(ok);
    }
    done
}
