//! The decisions of a walk, collected.

use std::net::IpAddr;
use std::sync::Arc;

use super::{Mapping, MeterId, Side, Timeouts, Translation, Translations, Transport, Tuple};

/// One edit that replay knows. The set is closed: whatever a function wants done to later packets of the flow, it
/// says in these words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Edit {
    /// Rewrite source address and port (or ICMP echo identifier).
    SetSource(IpAddr, u16),
    /// Rewrite destination address and port (or ICMP echo identifier).
    SetDestination(IpAddr, u16),
    /// Rewrite both ends of the IPv4 packet that an ICMP error quotes: its source, its destination.
    SetQuoted(Transport, Transport),
    /// Spend tokens of this bucket; out of tokens, the packet is dropped as policed.
    Meter(MeterId),
}

/// Collects what the stages of one walk decide. Made once a worker and reused.
#[derive(Debug, Default)]
pub struct PathBuilder {
    edits: Vec<Edit>,
    tuple: Option<Tuple>,
    quoted: Option<Tuple>,
    translations: Translations,
    timeouts: Option<Timeouts>,
}

impl PathBuilder {
    /// Empties the builder for a packet with this tuple.
    pub fn reset(&mut self, tuple: Option<&Tuple>) {
        self.edits.clear();
        self.tuple = tuple.copied();
        self.quoted = None;
        self.translations = Translations::default();
        self.timeouts = None;
    }

    /// Says which packet an ICMP error quotes.
    pub fn quote(&mut self, quoted: Option<Tuple>) {
        self.quoted = quoted;
    }

    /// The tuple after the edits so far.
    pub fn tuple(&self) -> Option<&Tuple> {
        self.tuple.as_ref()
    }

    /// Of an ICMP error, the tuple of the packet that it quotes, after the edits so far.
    pub fn quoted(&self) -> Option<Tuple> {
        self.quoted
    }

    /// Rewrites the source.
    pub fn set_source(&mut self, ip: IpAddr, port: u16) {
        if let Some(tuple) = &mut self.tuple {
            tuple.set(Side::Source, ip, port);
            self.edits.push(Edit::SetSource(ip, port));
        }
    }

    /// Rewrites the destination.
    pub fn set_destination(&mut self, ip: IpAddr, port: u16) {
        if let Some(tuple) = &mut self.tuple {
            tuple.set(Side::Destination, ip, port);
            self.edits.push(Edit::SetDestination(ip, port));
        }
    }

    /// Rewrites the packet that an ICMP error quotes.
    pub fn set_quoted(&mut self, new: Tuple) {
        if let (Some(_), IpAddr::V4(source), IpAddr::V4(destination)) =
            (self.quoted, new.source, new.destination)
        {
            let (source, destination) = ((source, new.source_port), (destination, new.destination_port));
            self.edits.push(Edit::SetQuoted(source, destination));
            self.quoted = Some(new);
        }
    }

    /// Has the session that this packet opens keep a translation. False if it has as many as it can keep.
    #[inline]
    pub fn translate(&mut self, mapping: Arc<dyn Mapping>, side: Side, rule: u64) -> bool {
        self.translations.push(Translation { mapping, side, rule })
    }

    /// What the session that this packet opens is to keep.
    pub fn take_translations(&mut self) -> Translations {
        std::mem::take(&mut self.translations)
    }

    /// Lets go what no session took.
    pub fn let_go(&mut self) {
        if !self.translations.is_empty() {
            self.translations = Translations::default();
        }
    }

    /// Has the session that this packet opens live so long without traffic.
    pub fn set_timeouts(&mut self, timeouts: Timeouts) {
        self.timeouts = Some(timeouts);
    }

    /// How long the session that this packet opens lives without traffic, if a function has said so.
    pub fn timeouts(&self) -> Option<Timeouts> {
        self.timeouts
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
