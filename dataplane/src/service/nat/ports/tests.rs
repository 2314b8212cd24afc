//! The allocator against a slow one that knows every port by name.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;

const SECOND: Nanos = 1_000_000_000;

struct Lab {
    clock: Arc<AtomicU64>,
    address: Arc<ExternalAddress>,
}

impl Lab {
    fn new() -> Self {
        let clock = Arc::new(AtomicU64::new(1));
        let address =
            ExternalAddress::new(VrfId(0), Ipv4Addr::new(203, 0, 113, 7), Arc::clone(&clock), Weak::new());
        Self { clock, address: Arc::new(address) }
    }

    fn lease(&self, port: u16, range: (u16, u16), random: u16) -> Option<Lease> {
        self.lease_but(port, range, random, &|_| None)
    }

    fn lease_but(
        &self,
        port: u16,
        (first, last): (u16, u16),
        random: u16,
        reserved: &dyn Fn(u16) -> Option<u16>,
    ) -> Option<Lease> {
        let (range, owner) = (PortRange { first, last }, Self::owner(port));
        let lease = self.address.lease(0, &Wanted { port, range, random, reserved, owner })?;
        assert_eq!(self.address.owner(0, lease.port), Some(owner));
        Some(lease)
    }

    /// Whoever wants this port.
    fn owner(port: u16) -> Owner {
        Owner::MIN.saturating_add(u32::from(port))
    }
}

#[test]
fn a_port_is_kept_where_it_is_free_and_its_parity_where_not() {
    // RFC 4787 REQ-3 and REQ-4.
    let lab = Lab::new();
    let first = lab.lease(5000, (1024, 65535), 9).unwrap();
    assert_eq!(first.port, 5000);
    let second = lab.lease(5000, (1024, 65535), 9).unwrap();
    assert_ne!(second.port, 5000);
    assert_eq!(second.port % 2, 0);
    let odd = lab.lease(1023, (1024, 65535), 3).unwrap();
    assert_eq!((odd.port % 2, odd.port >= 1024), (1, true));
    let low = lab.lease(22, (22, 65535), 7).unwrap();
    assert_eq!(low.port, 22);
    assert_eq!(lab.lease(22, (22, 65535), 7).unwrap().port, 30, "well-known ports stay among themselves");
}

#[test]
fn every_port_of_a_range_is_given_once_and_then_none() {
    let lab = Lab::new();
    let range = (4000, 4130);
    let leases: Vec<Lease> = (0..131).map(|n| lab.lease(4001, range, n * 77).unwrap()).collect();
    let given: BTreeSet<u16> = leases.iter().map(|lease| lease.port).collect();
    assert_eq!(given, (4000..=4130).collect());
    assert!(lab.lease(4001, range, 0).is_none());
    assert_eq!(lab.address.usage(0), (131, 0));
}

#[test]
fn a_port_that_somebody_knew_rests_and_one_that_nobody_knew_does_not() {
    // RFC 6888 REQ-8.
    let lab = Lab::new();
    drop(lab.lease(5000, (5000, 5000), 0).unwrap());
    let lease = lab.lease(5000, (5000, 5000), 0).unwrap();
    lease.known.store(true, Ordering::Relaxed);
    drop(lease);
    assert_eq!(lab.address.usage(0), (0, 1));
    assert!(!lab.address.is_idle(1));
    lab.clock.store(119 * SECOND, Ordering::Relaxed);
    assert!(lab.lease(5000, (5000, 5000), 0).is_none());
    lab.clock.store(121 * SECOND, Ordering::Relaxed);
    assert!(lab.lease(5000, (5000, 5000), 0).is_some());
}

#[test]
fn ports_that_are_somebody_elses_are_passed_over() {
    let lab = Lab::new();
    let reserved = |port: u16| (port % 3 != 0).then_some(port);
    let leases: Vec<Lease> =
        std::iter::from_fn(|| lab.lease_but(1500, (1400, 1600), 50, &reserved)).collect();
    assert_eq!(leases.len(), (1400..=1600).filter(|port| port % 3 == 0).count());
    assert!(leases.iter().all(|lease| lease.port % 3 == 0));
}

#[test]
fn many_ports_that_are_somebody_elses_are_passed_over_at_once() {
    let lab = Lab::new();
    let asked = std::cell::Cell::new(0);
    let reserved = |from: u16, to: u16| {
        let asked = &asked;
        move |port: u16| {
            asked.set(asked.get() + 1);
            (from..=to).contains(&port).then_some(to)
        }
    };
    // An address whose ports are all forwarded, and one with a single free port at the very end.
    assert!(lab.lease_but(5000, (1024, 65535), 9, &reserved(0, 65535)).is_none());
    let lease = lab.lease_but(5001, (1024, 65535), 9, &reserved(1024, 65534)).unwrap();
    assert_eq!(lease.port, 65535);
    assert!(asked.get() < 30, "{} ports were looked at", asked.get());
}

/// What may happen.
#[derive(Clone, Debug)]
enum Step {
    Lease {
        port: u16,
        first: u16,
        len: u16,
        random: u16,
    },
    /// Gives back one of the leases, known or not.
    Drop {
        which: usize,
        known: bool,
    },
    Wait(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (60u16..200, 60u16..200, 0u16..70, any::<u16>())
            .prop_map(|(port, first, len, random)| Step::Lease { port, first, len, random }),
        3 => (any::<usize>(), any::<bool>()).prop_map(|(which, known)| Step::Drop { which, known }),
        1 => (0u64..200).prop_map(Step::Wait),
    ]
}

proptest! {
    #[test]
    fn no_port_is_given_twice_or_lost(steps in proptest::collection::vec(step(), 1..300)) {
        let lab = Lab::new();
        let mut leases: Vec<Lease> = Vec::new();
        // The slow twin: each port that may not be given, and until when.
        let mut taken: BTreeMap<u16, Nanos> = BTreeMap::new();
        for step in steps {
            let now = lab.clock.load(Ordering::Relaxed);
            taken.retain(|_, until| *until > now);
            match step {
                Step::Lease { port, first, len, random } => {
                    let range = (first, first + len);
                    let free: Vec<u16> = (range.0..=range.1).filter(|port| !taken.contains_key(port)).collect();
                    let alike: Vec<u16> = free.iter().copied().filter(|other| other % 2 == port % 2).collect();
                    match lab.lease(port, range, random) {
                        None => prop_assert!(free.is_empty(), "{free:?} are free"),
                        Some(lease) => {
                            prop_assert!(free.contains(&lease.port));
                            prop_assert!(!free.contains(&port) || lease.port == port);
                            prop_assert!(alike.is_empty() || alike.contains(&lease.port));
                            taken.insert(lease.port, Nanos::MAX);
                            leases.push(lease);
                        }
                    }
                }
                Step::Drop { which, known } if !leases.is_empty() => {
                    let lease = leases.swap_remove(which % leases.len());
                    lease.known.store(known, Ordering::Relaxed);
                    taken.insert(lease.port, if known { now + REST } else { 0 });
                }
                Step::Drop { .. } => {}
                Step::Wait(seconds) => lab.clock.store(now + seconds * SECOND, Ordering::Relaxed),
            }
            prop_assert_eq!(lab.address.usage(0).0 as usize, leases.len());
            let mut owned: Vec<u16> = leases.iter().map(|lease| lease.port).collect();
            owned.sort_unstable();
            let owners = lab.address.owners(0);
            prop_assert_eq!(owners.iter().map(|(port, _)| *port).collect::<Vec<_>>(), owned);
        }
        leases.clear();
        prop_assert!(lab.address.is_idle(lab.clock.load(Ordering::Relaxed) + REST));
    }
}
