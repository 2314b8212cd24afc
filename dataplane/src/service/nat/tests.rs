//! The table of bindings: what is shared, what is given back, what is refused; also from several threads.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Barrier;

use proptest::prelude::*;
use weir_config::{Config, DEFAULT_NAT_PORTS, PortRange, Service};

use super::pool::Pool;
use super::*;
use crate::decision::{Nanos, Transport};

const UDP: u8 = protocol::UDP;

fn address(text: &str) -> Ipv4Addr {
    text.parse().unwrap()
}

fn pool(first: &str, last: &str, ports: PortRange) -> Pool {
    Pool::new(&[AddressRange { first: address(first), last: address(last) }], ports)
}

/// Asks for bindings of a pool.
struct Asker<'a> {
    table: &'a NatTable,
    pool: Pool,
    service: ServiceNumber,
    limit: u32,
    reserved: Reserved,
}

impl<'a> Asker<'a> {
    fn new(table: &'a NatTable, pool: Pool) -> Self {
        Self { table, pool, service: table.number("out"), limit: u32::MAX, reserved: Reserved::default() }
    }

    fn ask(&self, inside: (&str, u16), now: Nanos) -> Result<Arc<Binding>, DropReason> {
        self.table.outbound(&Request {
            vrf: VrfId(0),
            pool: &self.pool,
            via: None,
            rule: 1,
            service: self.service,
            remote: None,
            protocol: UDP,
            inside: (address(inside.0), inside.1),
            limit: self.limit,
            reserved: &self.reserved,
            now,
        })
    }
}

#[test]
fn one_binding_serves_all_and_is_gone_with_the_last_who_holds_it() {
    let table = NatTable::new(10, 1);
    let asker = Asker::new(&table, pool("203.0.113.7", "203.0.113.7", DEFAULT_NAT_PORTS));
    let first = asker.ask(("10.1.0.2", 5000), 1).unwrap();
    let second = asker.ask(("10.1.0.2", 5000), 1).unwrap();
    assert!(Arc::ptr_eq(&first, &second));
    let outside = first.outside();
    assert!(Arc::ptr_eq(&table.inbound(VrfId(0), UDP, outside).unwrap(), &first));
    assert!(table.inbound(VrfId(1), UDP, outside).is_none(), "another VRF");
    assert!(table.inbound(VrfId(0), protocol::TCP, outside).is_none(), "another protocol");
    drop(first);
    assert_eq!(table.counters().in_use, 1);
    drop(second);
    assert_eq!(table.counters(), NatCounters { in_use: 0, capacity: 10, created: 1, refused: 0 });
    assert!(table.inbound(VrfId(0), UDP, outside).is_none());
    assert_eq!(table.entries(10), []);
    assert_eq!(table.addresses(), []);
}

#[test]
fn a_host_keeps_one_address_of_a_pool_and_hosts_are_spread() {
    // RFC 4787 REQ-2: paired.
    let table = NatTable::new(10_000, 1);
    let asker = Asker::new(&table, pool("203.0.113.0", "203.0.113.15", DEFAULT_NAT_PORTS));
    let mut used = BTreeSet::new();
    let mut held = Vec::new();
    for host in 1..=100 {
        let host = format!("10.1.0.{host}");
        let bindings: Vec<_> = (0..5).map(|port| asker.ask((&host, 4000 + port), 1).unwrap()).collect();
        let addresses: BTreeSet<_> = bindings.iter().map(|binding| binding.outside().0).collect();
        assert_eq!(addresses.len(), 1);
        used.extend(addresses);
        held.extend(bindings);
    }
    assert!(used.len() > 10, "{used:?}");
    let outside: BTreeSet<_> = held.iter().map(|binding| binding.outside()).collect();
    assert_eq!(outside.len(), held.len(), "no port is overloaded");
}

#[test]
fn what_does_not_fit_is_refused_with_its_reason() {
    let table = NatTable::new(3, 1);
    let ports = PortRange { first: 4000, last: 4001 };
    let mut asker = Asker::new(&table, pool("203.0.113.7", "203.0.113.7", ports));
    let reason = |asker: &Asker<'_>, inside| asker.ask(inside, 1).map(drop).unwrap_err();
    let a = asker.ask(("10.1.0.2", 1), 1).unwrap();
    asker.limit = 1;
    assert_eq!(reason(&asker, ("10.1.0.2", 2)), DropReason::NatHostLimit);
    let b = asker.ask(("10.1.0.3", 1), 1).unwrap();
    assert_eq!(reason(&asker, ("10.1.0.4", 1)), DropReason::NatPortsExhausted);
    let wider = Asker::new(&table, pool("203.0.113.8", "203.0.113.8", ports));
    let c = wider.ask(("10.1.0.4", 1), 1).unwrap();
    assert_eq!(reason(&wider, ("10.1.0.5", 1)), DropReason::NatTableFull);
    assert_eq!(table.counters().refused, 3);
    drop((a, b, c));
    assert_eq!(table.counters().in_use, 0);
    // Nobody heard of these ports: they need not rest.
    assert!(asker.ask(("10.1.0.9", 1), 1).is_ok());
}

#[test]
fn forwarded_ports_and_those_of_vteps_are_handed_out_to_nobody_else() {
    let text = r#"
[port.wan]
addresses = ["203.0.113.7/24"]
[tunnel.t.vxlan]
local = "203.0.113.7"
remote = "203.0.113.9"
vni = 5
addresses = ["10.9.0.1/24"]
[service.out.nat]
dnat = [{ protocol = "udp", to = "203.0.113.7", to-port = 4790, forward = "10.1.0.2" }]
"#;
    let config: Config = weir_config::load_str("test.toml", text).unwrap().config;
    assert!(matches!(config.services.get("out"), Some(Service::Nat(_))));
    let table = NatTable::new(10, 1);
    let ports = PortRange { first: 4789, last: 4791 };
    let mut asker = Asker::new(&table, pool("203.0.113.7", "203.0.113.7", ports));
    asker.reserved = Reserved::new(&config);
    let other = asker.ask(("10.1.0.3", 4790), 1).unwrap();
    assert_eq!(other.outside().1, 4791);
    assert_eq!(asker.ask(("10.1.0.3", 4789), 1).map(drop), Err(DropReason::NatPortsExhausted));
    let own = asker.ask(("10.1.0.2", 4790), 1).unwrap();
    assert_eq!(own.outside().1, 4790, "it is this host's");
}

#[test]
fn what_is_foreseen_is_what_is_given_unless_somebody_else_was_given_it() {
    let table = NatTable::new(10_000, 1);
    let asker = Asker::new(&table, pool("203.0.113.0", "203.0.113.3", DEFAULT_NAT_PORTS));
    let foresee = |ip: &str, port| {
        let shown = RefCell::new(BTreeSet::new());
        let show = |line| {
            shown.borrow_mut().insert(line);
        };
        let (vrf, pool, reserved) = (VrfId(0), &asker.pool, &asker.reserved);
        let probable = Probable { vrf, pool, protocol: UDP, inside: (address(ip), port), reserved };
        table.look_ahead(&probable, &show);
        let outside = table.foresee(&probable, &show);
        (outside, shown.into_inner().len())
    };
    assert_eq!(foresee("10.1.0.2", 5000).0, None, "nobody knows the address's ports yet");
    let mut held = Vec::new();
    let mut foreseen = 0;
    for host in 0..200 {
        let ip = format!("10.1.{}.2", host);
        // All want the same two ports, of which each address has but one.
        for port in [5000, 5001] {
            let (outside, shown) = foresee(&ip, port);
            let given = asker.ask((&ip, port), 1).unwrap();
            if let Some(outside) = outside {
                assert_eq!(outside, given.outside());
                assert!(shown >= 3, "{shown} lines");
                foreseen += 1;
            }
            held.push(given);
        }
    }
    assert!(foreseen >= 392, "{foreseen}");
}

#[test]
fn workers_that_meet_one_host_at_once_agree_on_its_binding() {
    let table = NatTable::new(100_000, 1);
    let start = Barrier::new(4);
    let found: Vec<BTreeMap<u16, Transport>> = std::thread::scope(|scope| {
        let worker = || {
            let asker = Asker::new(&table, pool("203.0.113.0", "203.0.113.3", DEFAULT_NAT_PORTS));
            start.wait();
            let bindings: Vec<_> =
                (0..2000).map(|port| (port, asker.ask(("10.1.0.2", port), 1).unwrap())).collect();
            start.wait();
            bindings.iter().map(|(port, binding)| (*port, binding.outside())).collect()
        };
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(worker)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert!(found.windows(2).all(|pair| pair[0] == pair[1]));
    assert_eq!(table.counters(), NatCounters { in_use: 0, capacity: 100_000, created: 2000, refused: 0 });
    assert_eq!(table.addresses(), []);
}

proptest! {
    #[test]
    fn bindings_are_as_a_plain_map_has_them(
        steps in proptest::collection::vec((0u8..4, 0u16..6, any::<bool>()), 1..200),
    ) {
        let table = NatTable::new(8, 1);
        let ports = PortRange { first: 4000, last: 4004 };
        let asker = Asker::new(&table, pool("203.0.113.7", "203.0.113.8", ports));
        let mut held: BTreeMap<(u8, u16), Arc<Binding>> = BTreeMap::new();
        for (host, port, make) in steps {
            let name = format!("10.1.0.{host}");
            if !make {
                held.remove(&(host, port));
            } else {
                match (asker.ask((&name, port), 1), held.get(&(host, port))) {
                    (Ok(binding), Some(known)) => prop_assert!(Arc::ptr_eq(&binding, known)),
                    (Ok(binding), None) => {
                        let paired = held.iter().find(|((other, _), _)| *other == host);
                        prop_assert!(paired.is_none_or(|(_, known)| known.outside().0 == binding.outside().0));
                        prop_assert!(held.values().all(|known| known.outside() != binding.outside()));
                        held.insert((host, port), binding);
                    }
                    (Err(DropReason::NatTableFull), None) => prop_assert_eq!(held.len(), 8),
                    (Err(DropReason::NatPortsExhausted), None) => {
                        let of = |ip: Ipv4Addr| held.values().filter(|known| known.outside().0 == ip).count();
                        let full = [address("203.0.113.7"), address("203.0.113.8")].map(|ip| of(ip) == 5);
                        prop_assert!(full.contains(&true));
                    }
                    (other, known) => prop_assert!(false, "{:?} {:?}", other.map(drop), known.is_some()),
                }
            }
            prop_assert_eq!(table.counters().in_use as usize, held.len());
            prop_assert_eq!(table.entries(100).len(), held.len());
        }
    }
}
