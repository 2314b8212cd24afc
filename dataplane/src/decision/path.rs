//! The decisions of a walk, collected.

use std::net::IpAddr;

use super::{MeterId, Tuple};

/// One edit that replay knows. The set is closed: whatever a function wants done to later packets of the flow, it
/// says in these words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Edit {
    /// Rewrite source address and port (or ICMP echo identifier).
    SetSource(IpAddr, u16),
    /// Rewrite destination address and port (or ICMP echo identifier).
    SetDestination(IpAddr, u16),
    /// Spend tokens of this bucket; out of tokens, the packet is dropped as policed.
    Meter(MeterId),
}

/// Collects what the stages of one walk decide. Made once a worker and reused.
#[derive(Debug, Default)]
pub struct PathBuilder {
    edits: Vec<Edit>,
    tuple: Option<Tuple>,
}

impl PathBuilder {
    /// Empties the builder for a packet with this tuple.
    pub fn reset(&mut self, tuple: Option<Tuple>) {
        self.edits.clear();
        self.tuple = tuple;
    }

    /// The tuple after the edits so far.
    pub fn tuple(&self) -> Option<Tuple> {
        self.tuple
    }

    /// Rewrites the source.
    pub fn set_source(&mut self, ip: IpAddr, port: u16) {
        if let Some(tuple) = &mut self.tuple {
            tuple.source = ip;
            tuple.source_port = port;
            self.edits.push(Edit::SetSource(ip, port));
        }
    }

    /// Rewrites the destination.
    pub fn set_destination(&mut self, ip: IpAddr, port: u16) {
        if let Some(tuple) = &mut self.tuple {
            tuple.destination = ip;
            tuple.destination_port = port;
            self.edits.push(Edit::SetDestination(ip, port));
        }
    }

    /// Spends tokens of `meter` on every packet.
    pub fn meter(&mut self, meter: MeterId) {
        self.edits.push(Edit::Meter(meter));
    }

    /// The edits, in the order they were made.
    pub fn edits(&self) -> &[Edit] {
        &self.edits
    }
}
