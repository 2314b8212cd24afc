//! What the translator of an engine gave out, so that engines can be compared that gave the same hosts different ports.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use weir_dataplane::decision::Transport;
use weir_dataplane::packet::{L3, checksum, parse, protocol};

use super::common::Lab;

/// Who has a port: protocol, external address, and what is behind it.
pub(super) type Owner = (u8, Ipv4Addr, Transport);

/// A frame that left, by which port, without the ports that a translator chose: whose they are instead.
#[derive(Debug, PartialEq)]
pub(super) struct Left {
    port: String,
    frame: Vec<u8>,
    owners: Vec<Owner>,
    /// Whether the transport checksum, which depends on the ports, is right; `None` if that cannot be said.
    sound: Option<bool>,
}

/// All bindings of an engine.
#[derive(Default)]
pub(super) struct Bindings {
    /// Those that there are, with their sessions.
    now: BTreeMap<Owner, (u16, u64)>,
    /// Of a protocol, external address and port, also if it has been given back. None is given to another before it has rested.
    ever: BTreeMap<(u8, Ipv4Addr, u16), Owner>,
    /// Whom somebody sent to last.
    remotes: BTreeMap<Owner, Transport>,
}

impl Bindings {
    /// Looks at the table.
    pub(super) fn update(&mut self, lab: &Lab) {
        self.now.clear();
        for entry in lab.engine.snapshot().tables.nat.entries(1000) {
            let (outside, port) = entry.outside;
            let owner = (entry.protocol, outside, entry.inside);
            assert_eq!(self.now.insert(owner, (port, entry.sessions)), None, "two bindings for one");
            self.ever.insert((entry.protocol, outside, port), owner);
        }
    }

    /// Who has a port in both engines.
    pub(super) fn shared(&self, other: &Self) -> Vec<Owner> {
        self.now.keys().filter(|owner| other.now.contains_key(owner)).copied().collect()
    }

    /// How many more sessions hold ports here than there.
    pub(super) fn beyond(&self, other: &Self) -> u64 {
        let held = |bindings: &Self, owner| bindings.now.get(owner).map_or(0, |(_, sessions)| *sessions);
        self.now.keys().map(|owner| held(self, owner).saturating_sub(held(other, owner))).sum()
    }

    /// The port of somebody who has one.
    pub(super) fn port(&self, owner: &Owner) -> u16 {
        self.now.get(owner).map_or(owner.2.1, |(port, _)| *port)
    }

    /// Whom somebody sent to last.
    pub(super) fn remote(&self, owner: &Owner) -> Transport {
        self.remotes.get(owner).copied().unwrap_or((Ipv4Addr::new(10, 2, 0, 2), 53))
    }

    /// A frame with each port that was given out under the name of who has it.
    pub(super) fn name(&mut self, port: String, mut frame: Vec<u8>) -> Left {
        let mut owners = Vec::new();
        let meta = parse(&frame).ok().filter(|meta| meta.l3 == L3::V4);
        let sound = meta.as_ref().and_then(|meta| checksum::verify_transport(&frame, meta));
        if let Some(ip) = meta.and_then(|meta| frame.get_mut(usize::from(meta.l3_offset)..)) {
            if let Some(remote) = self.hide(ip, &mut owners) {
                self.remotes.extend(owners.first().map(|owner| (*owner, remote)));
            }
        }
        Left { port, frame, owners, sound }
    }

    /// Takes ports that were given out from an IPv4 packet, and from what it quotes, as if they had always been 0. Says whom the packet
    /// is for, unless it is an error.
    fn hide(&self, ip: &mut [u8], owners: &mut Vec<Owner>) -> Option<Transport> {
        let (header, transport) = ip.split_at_mut_checked(usize::from(ip.first()? & 15) * 4)?;
        let head = header.first_chunk::<20>()?;
        let address = |at: usize| Some(Ipv4Addr::from(<[u8; 4]>::try_from(head.get(at..at + 4)?).ok()?));
        let (source, destination) = (address(12)?, address(16)?);
        let number = head[9];
        if u16::from_be_bytes([head[6], head[7]]) & 0x1fff != 0 {
            return None;
        }
        // Where the ports are, and the checksum. An echo has one identifier for both.
        let (ports, sum) = match (number, *transport.first()?) {
            (protocol::TCP, _) => ([0, 2], 16),
            (protocol::UDP, _) => ([0, 2], 6),
            (protocol::ICMP, 0 | 8) => ([4, 4], 2),
            (protocol::ICMP, 3 | 4 | 5 | 11 | 12) => {
                let quote = transport.get_mut(8..)?;
                let before = quote.to_vec();
                self.hide(quote, owners);
                let after = quote.to_vec();
                adjust(transport, 2, &before, &after);
                return None;
            }
            _ => return None,
        };
        for (ip, at) in [source, destination].into_iter().zip(ports) {
            let old = *transport.get(at..)?.first_chunk::<2>()?;
            if let Some(owner) = self.ever.get(&(number, ip, u16::from_be_bytes(old))) {
                owners.push(*owner);
                transport.get_mut(at..at + 2)?.fill(0);
                if (number, transport.get(sum..sum + 2)) != (protocol::UDP, Some(&[0, 0])) {
                    adjust(transport, sum, &old, &[0, 0]);
                }
            }
        }
        let [high, low] = *transport.get(ports[1]..)?.first_chunk::<2>()?;
        Some((destination, u16::from_be_bytes([high, low])))
    }
}

/// Has the checksum at `at` follow a change of what it covers. Of the two ways to write 0 it takes the same each time.
fn adjust(bytes: &mut [u8], at: usize, old: &[u8], new: &[u8]) {
    let Some(field) = bytes.get_mut(at..).and_then(|rest| rest.first_chunk_mut::<2>()) else { return };
    let sum = checksum::update_bytes(u16::from_be_bytes(*field), old, new, false);
    *field = if sum == 0xffff { 0 } else { sum }.to_be_bytes();
}
