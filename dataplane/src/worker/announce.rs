//! Announcements of weir's own addresses: gratuitous ARP (RFC 5227 section 2.3) and unsolicited neighbour advertisements
//! (RFC 4861 section 7.2.6).
//!
//! Whoever had one of these addresses before, and under another MAC address, still stands in the neighbours' tables and in
//! the switches'. So an address is announced when it appears on a port of weir's own, or its MAC address changes: twice, two
//! seconds apart. On shared ports the kernel does this; in a tunnel nobody has to be told.

use std::collections::{BTreeSet, VecDeque};
use std::net::{IpAddr, Ipv4Addr};

use weir_config::MacAddress;

use crate::chain::{Scope, ScopeKind};
use crate::decision::{Nanos, ScopeId};
use crate::l3::{Interface, arp, nd};
use crate::snapshot::Snapshot;

use super::core::Core;

/// How often an address is announced (RFC 5227 section 1.1, `ANNOUNCE_NUM`).
const TIMES: u8 = 2;
/// The time between two announcements of an address (RFC 5227 section 1.1, `ANNOUNCE_INTERVAL`), in nanoseconds.
const INTERVAL: Nanos = 2_000_000_000;
/// Most announcements of one tick: thousands of addresses are no burst.
const AT_ONCE: usize = 32;

/// An address where it is announced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Own {
    scope: ScopeId,
    mac: MacAddress,
    ip: IpAddr,
}

/// An announcement to come.
#[derive(Clone, Copy, Debug)]
struct Due {
    at: Nanos,
    /// How often after this one.
    again: u8,
    own: Own,
}

/// Announces addresses as generations come.
#[derive(Debug, Default)]
pub(super) struct Announcer {
    generation: u64,
    /// Addresses of that generation.
    known: BTreeSet<Own>,
    /// In the order of their times.
    due: VecDeque<Due>,
}

impl Announcer {
    /// Sends what is due. Cheap unless the generation is new or something is.
    pub(super) fn tick(&mut self, core: &mut Core, snapshot: &Snapshot) {
        if snapshot.generation != self.generation {
            self.generation = snapshot.generation;
            self.look(snapshot, core.now);
        }
        for _ in 0..AT_ONCE {
            if self.due.front().is_none_or(|due| due.at > core.now) {
                return;
            }
            let Some(Due { again, own, .. }) = self.due.pop_front() else { return };
            // It may be gone again.
            if !self.known.contains(&own) {
                continue;
            }
            announce(core, snapshot, own);
            if again > 0 {
                self.due.push_back(Due { at: core.now + INTERVAL, again: again - 1, own });
            }
        }
    }

    /// Finds the addresses that the last generation did not have.
    fn look(&mut self, snapshot: &Snapshot, now: Nanos) {
        let scopes = snapshot.pipeline.scopes.iter().flatten();
        let owned: BTreeSet<Own> = scopes.filter_map(announced_by).flat_map(addresses).collect();
        for own in owned.difference(&self.known) {
            self.due.push_front(Due { at: now, again: TIMES - 1, own: *own });
        }
        self.known = owned;
    }
}

/// The interface of a scope, if weir speaks for itself there.
fn announced_by(scope: &Scope) -> Option<&Interface> {
    let interface = scope.interface.as_ref()?;
    (matches!(scope.kind, ScopeKind::Port) && !interface.kernel_neighbours).then_some(interface)
}

/// Most addresses of one interface that packets come to which are translated, and that are announced. Who asks for another
/// is answered all the same.
const PROXIED: usize = 1024;

/// Its addresses; the link-local one only beside others of IPv6. And those that it answers for.
fn addresses(interface: &Interface) -> impl Iterator<Item = Own> + '_ {
    let own = |ip| Own { scope: interface.scope, mac: interface.mac, ip };
    let v6 = interface.addresses.iter().any(|address| address.addr().is_ipv6());
    let link_local = v6.then_some(IpAddr::V6(interface.link_local));
    let each =
        |(first, last): &(Ipv4Addr, Ipv4Addr)| (u32::from(*first)..=u32::from(*last)).map(Ipv4Addr::from);
    let proxied = interface.proxied.iter().flat_map(each).filter(|ip| interface.answers_for(*ip));
    let proxied = proxied.take(PROXIED).map(IpAddr::V4);
    interface.addresses.iter().map(|address| address.addr()).chain(link_local).chain(proxied).map(own)
}

fn announce(core: &mut Core, snapshot: &Snapshot, own: Own) {
    let Some(scope) = snapshot.pipeline.scope(own.scope) else { return };
    let Some(interface) = &scope.interface else { return };
    let mut out = std::mem::take(&mut core.scratch);
    let made = match own.ip {
        IpAddr::V4(ip) => arp::announcement(interface, ip, &mut out),
        IpAddr::V6(ip) => nd::announcement(interface, ip, &mut out),
    };
    if made {
        core.emit(snapshot, scope, None, &out);
    }
    core.scratch = out;
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;
    use crate::frame::{FrameCache, FrameMemory, FramePool};
    use crate::l3::icmp::RateLimiter;
    use crate::packet::view::{arp, ethernet};
    use crate::snapshot::{PortFacts, Registry, Shared};
    use crate::worker::CoreParts;
    use crate::worker::tick::Ticker;

    const SECOND: Nanos = 1_000_000_000;

    struct Site {
        core: Core,
        announcer: Announcer,
        registry: Registry,
        shared: Shared,
        generation: u64,
    }

    impl Site {
        fn new() -> Self {
            let config = weir_config::Config::default();
            let shared = Shared::new(&config, 1, 1);
            let memory = FrameMemory::map(64, 2048, weir_config::HugePages::Never).unwrap();
            let core = Core::new(CoreParts {
                meters: Arc::clone(&shared.tables.meters),
                icmp: Arc::new(RateLimiter::new(1)),
                cache: FrameCache::new(FramePool::new(memory)),
                flows: 16,
                held: 16,
                seed: [1; 8],
            });
            let (announcer, registry) = (Announcer::default(), Registry::default());
            Self { core, announcer, registry, shared, generation: 0 }
        }

        fn compile(&mut self, text: &str, kernel: bool) -> Snapshot {
            self.generation += 1;
            let config = Arc::new(weir_config::load_str("test.toml", text).unwrap().config);
            let facts =
                PortFacts { mac: MacAddress([2; 6]), mtu: 1500, kernel_neighbours: kernel, carrier: true };
            let facts = BTreeMap::from([("a".to_owned(), facts)]);
            let (registry, generation) = (&mut self.registry, self.generation);
            Snapshot::compile(&config, &facts, registry, &self.shared, generation, 0).unwrap()
        }

        /// What is sent at this second.
        fn at(&mut self, snapshot: &Snapshot, second: u64) -> Vec<Vec<u8>> {
            self.core.set_clock(second * SECOND);
            self.announcer.tick(&mut self.core, snapshot);
            let mut sent = Vec::new();
            self.core.flush(|_, frames, cache, _| {
                for frame in frames.drain(..) {
                    sent.push(frame.bytes().to_vec());
                    cache.free(frame);
                }
            });
            sent
        }
    }

    const ONE: &str = "[port.a]\nmode = \"dedicated\"\naddresses = [\"10.0.0.1/24\"]\n";

    /// RFC 5227 sections 2.3 and 1.1: a broadcast request with the address as sender and as target, twice, 2 s apart.
    #[test]
    fn an_address_is_announced_twice_two_seconds_apart() {
        let mut site = Site::new();
        let snapshot = site.compile(ONE, false);
        let sent = site.at(&snapshot, 1);
        assert_eq!(sent.len(), 1);
        assert_eq!(ethernet::Header::read(&sent[0]).unwrap().destination, MacAddress::BROADCAST);
        let own = Ipv4Addr::new(10, 0, 0, 1);
        let packet = arp::Packet::read(&sent[0][ethernet::LEN..]).unwrap();
        assert_eq!((packet.operation, packet.sender_ip, packet.target_ip), (1, own, own));
        assert_eq!(packet.sender_mac, MacAddress([2; 6]));
        assert!(site.at(&snapshot, 2).is_empty());
        assert_eq!(site.at(&snapshot, 3), sent);
        assert!(site.at(&snapshot, 5).is_empty());
        assert!(site.at(&snapshot, 100).is_empty());
    }

    /// RFC 4861 section 7.2.6: to all nodes, hop limit 255, with the override flag.
    #[test]
    fn an_ipv6_address_and_the_link_local_one_are_advertised_to_all_nodes() {
        let mut site = Site::new();
        let snapshot = site.compile(&ONE.replace("10.0.0.1/24", "2001:db8::1/64"), false);
        let sent = site.at(&snapshot, 1);
        let mut targets: Vec<_> = sent.iter().map(|frame| frame[62..78].to_vec()).collect();
        targets.sort();
        let global: std::net::Ipv6Addr = "2001:db8::1".parse().unwrap();
        let local = crate::l3::link_local(MacAddress([2; 6]));
        assert_eq!(targets, [global.octets().to_vec(), local.octets().to_vec()]);
        for frame in sent {
            assert_eq!(frame[..6], [0x33, 0x33, 0, 0, 0, 1]);
            assert_eq!((frame[21], frame[54], frame[58] & 0x60), (255, 136, 0x20));
        }
    }

    #[test]
    fn a_reload_announces_what_is_new_and_forgets_what_is_gone() {
        let mut site = Site::new();
        let first = site.compile(ONE, false);
        assert_eq!(site.at(&first, 1).len(), 1);
        let more = site.compile(&ONE.replace("\"10.0.0.1/24\"", "\"10.0.0.1/24\", \"10.0.1.1/24\""), false);
        let sent = site.at(&more, 2);
        assert_eq!(sent.len(), 1, "the one that was known is not announced anew");
        assert_eq!(
            arp::Packet::read(&sent[0][ethernet::LEN..]).unwrap().sender_ip,
            Ipv4Addr::new(10, 0, 1, 1)
        );
        let moved = site.compile(&format!("{ONE}mac = \"02:00:00:00:00:09\"\n"), false);
        // The second announcement of the first is not due any more: that MAC address is gone.
        let sent = site.at(&moved, 4);
        assert_eq!(sent.len(), 1);
        let packet = arp::Packet::read(&sent[0][ethernet::LEN..]).unwrap();
        assert_eq!(packet.sender_mac, MacAddress([2, 0, 0, 0, 0, 9]));
    }

    #[test]
    fn who_is_taken_out_of_service_announces_nothing_until_it_is_back() {
        let mut site = Site::new();
        let snapshot = site.compile(ONE, false);
        let (mut ticker, quiet) = (Ticker::default(), AtomicBool::new(true));
        let mut at = |second: u64, quiet: &AtomicBool| {
            site.core.set_clock(second * SECOND);
            ticker.tick(&mut site.core, &snapshot, quiet);
            let mut sent = 0;
            site.core.flush(|_, frames, cache, _| {
                sent += frames.len();
                frames.drain(..).for_each(|frame| cache.free(frame));
            });
            sent
        };
        assert_eq!([at(1, &quiet), at(2, &quiet), at(10, &quiet)], [0, 0, 0]);
        quiet.store(false, Ordering::Relaxed);
        assert_eq!([at(11, &quiet), at(12, &quiet), at(13, &quiet)], [1, 0, 1]);
    }

    #[test]
    fn on_a_shared_port_the_kernel_announces() {
        let mut site = Site::new();
        let snapshot = site.compile(&ONE.replace("dedicated", "shared"), true);
        assert!(site.at(&snapshot, 1).is_empty());
    }

    #[test]
    fn many_addresses_are_announced_a_few_at_a_time() {
        let mut site = Site::new();
        let all: Vec<_> = (0..50).map(|n| format!("\"10.0.{n}.1/24\"")).collect();
        let snapshot = site.compile(&ONE.replace("\"10.0.0.1/24\"", &all.join(", ")), false);
        assert_eq!(site.at(&snapshot, 1).len(), AT_ONCE);
        assert_eq!(site.at(&snapshot, 1).len(), 50 - AT_ONCE);
    }
}
