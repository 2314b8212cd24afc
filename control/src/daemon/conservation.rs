//! The conservation of packets: what came in equals what became of it.

use serde::Serialize;
use weir_dataplane::worker::status::Counters;

/// Both sides of the equation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Conservation {
    /// received + originated + handed in.
    pub entered: u64,
    /// transmitted + dropped + punted + consumed + handed out + held.
    pub left: u64,
    /// Whether they are equal.
    pub holds: bool,
}

impl Conservation {
    /// Adds both sides up.
    pub fn of(counters: &Counters) -> Self {
        let entered = counters.received + counters.originated + counters.handed_in;
        let dropped: u64 = counters.dropped.values().sum();
        let left = counters.transmitted
            + dropped
            + counters.punted
            + counters.consumed
            + counters.handed_out
            + counters.held;
        Self { entered, left, holds: entered == left }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_packet_that_is_missing_breaks_it() {
        let mut counters = Counters { received: 10, transmitted: 6, held: 1, ..Counters::default() };
        counters.dropped.insert("no_route", 3);
        assert!(Conservation::of(&counters).holds);
        counters.received += 1;
        assert_eq!(Conservation::of(&counters), Conservation { entered: 11, left: 10, holds: false });
    }
}
