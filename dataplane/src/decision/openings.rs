//! Where sessions were opened lately: what was dropped a moment ago may have one that vouches for it now.
//!
//! A worker keeps for a while that a flow is dropped. Whoever opens a session, on whichever worker, may change that: for what comes back
//! to the end that opened it. Each end has a place among a thousand, which is written when a session is opened from there, and
//! whoever drops by memory looks whether one was. Ends that share a place cost a walk, and nothing else.

use std::net::IpAddr;
use std::sync::atomic::{AtomicU32, Ordering};

use super::{SessionId, Tuple};

/// Four KiB of them: they stay in the cache of who drops.
const PLACES: usize = 1024;

/// The place of an end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct End(usize);

impl End {
    /// Of what no session vouches for: it has no place.
    pub const NONE: Self = Self(usize::MAX);

    /// Of an address, as it stands in the header, low bytes first, and a port.
    #[inline]
    pub fn new(address: [u64; 2], ip_protocol: u8, port: u16) -> Self {
        let mixed =
            address[0] ^ address[1].rotate_left(32) ^ u64::from(port) << 40 ^ u64::from(ip_protocol) << 56;
        // The highest bits of the product depend on all.
        Self((mixed.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (64 - PLACES.ilog2())) as usize)
    }

    /// Where packets with this tuple go.
    pub fn of(tuple: &Tuple) -> Self {
        let address = match tuple.destination {
            IpAddr::V4(ip) => [u64::from(u32::from_le_bytes(ip.octets())), 0],
            IpAddr::V6(ip) => {
                let both = u128::from_le_bytes(ip.octets());
                [both as u64, (both >> 64) as u64]
            }
        };
        Self::new(address, tuple.protocol, tuple.destination_port)
    }
}

/// By place, which session was opened last from an end that has it.
#[derive(Debug)]
pub struct Openings(Box<[AtomicU32; PLACES]>);

impl Default for Openings {
    fn default() -> Self {
        Self(Box::new([const { AtomicU32::new(0) }; PLACES]))
    }
}

impl Openings {
    /// Memory of all places, in bytes.
    pub const BYTES: usize = PLACES * size_of::<AtomicU32>();

    /// A session was opened, and packets to this end belong to it. To be called once it can be found.
    #[inline]
    pub fn opened(&self, end: End, session: SessionId) {
        // No number is given again while anybody remembers a drop: another number is another session.
        if let Some(place) = self.0.get(end.0) {
            place.store(session.0.wrapping_add(1), Ordering::Release);
        }
    }

    /// A number that is another one once a session was opened whose packets go to this end. To be read before a session is looked for.
    #[inline(always)]
    pub fn last(&self, end: End) -> u32 {
        self.0.get(end.0).map_or(0, |place| place.load(Ordering::Acquire))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::protocol;

    fn tuple(source: &str, destination: &str, ip_protocol: u8, to: u16) -> Tuple {
        let [source, destination] = [source, destination].map(|ip| ip.parse().unwrap());
        Tuple { source, destination, protocol: ip_protocol, source_port: 9, destination_port: to }
    }

    #[test]
    fn an_opening_moves_the_number_of_its_end_whoever_sends_there() {
        let openings = Openings::default();
        let of = |from: &str| End::of(&tuple(from, "10.1.0.2", protocol::UDP, 53));
        let before = openings.last(of("10.2.0.2"));
        openings.opened(of("10.3.0.3"), SessionId(0));
        let after = openings.last(of("10.2.0.2"));
        assert_ne!(before, after);
        openings.opened(of("10.3.0.3"), SessionId(7));
        assert_ne!(openings.last(of("10.2.0.2")), after);
    }

    #[test]
    fn ends_are_spread_over_the_places() {
        let ports = (0..1024u16).map(|port| tuple("10.0.0.1", "192.0.2.1", protocol::UDP, port));
        let hosts = (0..1024u16).map(|host| {
            let ip = format!("2001:db8::{host:x}");
            tuple("2001:db8::1", &ip, protocol::TCP, 443)
        });
        let spread = |tuples: &mut dyn Iterator<Item = Tuple>| {
            let mut places: Vec<usize> = tuples.map(|tuple| End::of(&tuple).0).collect();
            places.sort_unstable();
            places.dedup();
            places.len()
        };
        // Of as many at random, 63 % of the places have one.
        assert!(spread(&mut ports.into_iter()) > PLACES / 2);
        assert!(spread(&mut hosts.into_iter()) > PLACES / 2);
    }
}
