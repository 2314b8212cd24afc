//! TCP states as a box in the middle sees them (RFC 9293 section 3.3.2), from the flags of the packets alone.
//!
//! Timeouts follow RFC 5382 section 5; a reset moves to a closing state and removes nothing at once (RFC 7857 section 2.2),
//! and the connection counts as established again if the side that is said to have reset goes on talking.

use crate::decision::{Direction, Nanos, Timeouts};
use crate::packet::{protocol, tcp_flags};

const SECOND: Nanos = 1_000_000_000;

/// Timeouts of sessions that no service function has an opinion of.
pub(super) const TIMEOUTS: Timeouts = Timeouts {
    // RFC 5382 REQ-5: an established connection lives at least 2 hours 4 minutes without traffic.
    tcp_established: 2 * 3600 + 4 * 60,
    // RFC 5382 REQ-5: a connection that opens or closes lives at least 4 minutes without traffic.
    tcp_transitory: 4 * 60,
    // RFC 4787 REQ-5: 5 minutes recommended, never under 2.
    udp: 5 * 60,
    // RFC 5508 REQ-2: an ICMP query lives at least 60 seconds.
    icmp: 60,
};

/// State of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum SessionState {
    /// Not TCP: there is no state but being there.
    Open = 1,
    /// SYN seen.
    SynSent,
    /// SYN seen from both sides.
    SynReceived,
    /// The handshake is complete, or the connection was picked up in mid-stream.
    Established,
    /// FIN seen from one side.
    FinWait,
    /// That FIN was acknowledged; the other side may still send.
    CloseWait,
    /// FIN seen from both sides.
    LastAck,
    /// Both FINs were acknowledged.
    TimeWait,
    /// RST seen.
    Closed,
}

impl SessionState {
    const ALL: [Self; 9] = [
        Self::Open,
        Self::SynSent,
        Self::SynReceived,
        Self::Established,
        Self::FinWait,
        Self::CloseWait,
        Self::LastAck,
        Self::TimeWait,
        Self::Closed,
    ];

    /// From its number; 0 and unknown numbers are no state.
    pub(super) fn from_u8(number: u8) -> Option<Self> {
        Self::ALL.get(usize::from(number).checked_sub(1)?).copied()
    }

    /// Its name for people: RFC 9293's for TCP.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Open => "OPEN",
            Self::SynSent => "SYN_SENT",
            Self::SynReceived => "SYN_RECEIVED",
            Self::Established => "ESTABLISHED",
            Self::FinWait => "FIN_WAIT",
            Self::CloseWait => "CLOSE_WAIT",
            Self::LastAck => "LAST_ACK",
            Self::TimeWait => "TIME_WAIT",
            Self::Closed => "CLOSED",
        }
    }

    /// Whether programs of the session may be cached: its packets no longer move its state, but for SYN, FIN and RST.
    pub const fn is_established(self) -> bool {
        matches!(self, Self::Open | Self::Established | Self::FinWait | Self::CloseWait)
    }

    /// Whether the connection is on its way out, so that a new SYN of the same tuple opens a new one
    /// (RFC 9293 section 3.6.1).
    pub const fn is_closing(self) -> bool {
        matches!(self, Self::FinWait | Self::CloseWait | Self::LastAck | Self::TimeWait | Self::Closed)
    }

    /// How long a session in this state lives without traffic, in nanoseconds.
    pub fn timeout(self, ip_protocol: u8, timeouts: &Timeouts) -> Nanos {
        let seconds = match (self, ip_protocol) {
            (Self::Established, _) => timeouts.tcp_established,
            (Self::Open, protocol::ICMP | protocol::ICMPV6) => timeouts.icmp,
            (Self::Open, _) => timeouts.udp,
            _ => timeouts.tcp_transitory,
        };
        Nanos::from(seconds) * SECOND
    }
}

/// Whether these flags open a connection: SYN alone, without ACK, FIN or RST (RFC 9293 section 3.5).
pub const fn opens(flags: u8) -> bool {
    flags & (tcp_flags::SYN | tcp_flags::ACK | tcp_flags::FIN | tcp_flags::RST) == tcp_flags::SYN
}

/// Follows one connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Tracker {
    state: SessionState,
    /// Who sent the SYN, FIN or RST that the state speaks of.
    by: Direction,
    /// Whether it ever was established.
    was_established: bool,
}

impl Tracker {
    /// The state that a session's first packet, in direction `by`, leads to. Without SYN it is a pick-up in mid-stream.
    pub(super) fn new(ip_protocol: u8, flags: u8, by: Direction) -> Self {
        use SessionState::{Closed, Established, FinWait, Open, SynReceived, SynSent};
        if ip_protocol != protocol::TCP {
            return Self { state: Open, by, was_established: true };
        }
        let syn_ack = tcp_flags::SYN | tcp_flags::ACK;
        let (state, by) = if flags & tcp_flags::RST != 0 {
            (Closed, by)
        } else if flags & syn_ack == syn_ack {
            let other = match by {
                Direction::Forward => Direction::Reverse,
                Direction::Reverse => Direction::Forward,
            };
            (SynReceived, other)
        } else if flags & tcp_flags::SYN != 0 {
            (SynSent, by)
        } else if flags & tcp_flags::FIN != 0 {
            (FinWait, by)
        } else {
            (Established, by)
        };
        Self { state, by, was_established: state == Established }
    }

    pub(super) fn state(self) -> SessionState {
        self.state
    }

    /// The state after a packet with `flags` in `direction`.
    pub(super) fn observe(&mut self, direction: Direction, flags: u8) -> SessionState {
        if self.state != SessionState::Open {
            if let Some((state, by)) = self.next(direction, flags) {
                self.state = state;
                self.by = by;
                self.was_established |= state == SessionState::Established;
            }
        }
        self.state
    }

    fn next(self, direction: Direction, flags: u8) -> Option<(SessionState, Direction)> {
        use SessionState::{
            CloseWait, Closed, Established, FinWait, LastAck, SynReceived, SynSent, TimeWait,
        };
        let same = direction == self.by;
        if flags & tcp_flags::RST != 0 {
            return (self.state != Closed).then_some((Closed, direction));
        }
        if flags & tcp_flags::SYN != 0 {
            let acknowledges = flags & tcp_flags::ACK != 0;
            return match self.state {
                // The answer, or a simultaneous open (RFC 9293 section 3.5, figure 7).
                SynSent if !same => Some((SynReceived, self.by)),
                SynReceived if same && acknowledges => Some((Established, self.by)),
                // A SYN within an established connection changes nothing (RFC 9293 section 3.10.7.4).
                _ => None,
            };
        }
        if flags & tcp_flags::FIN != 0 {
            return match self.state {
                SynReceived | Established => Some((FinWait, direction)),
                FinWait | CloseWait if !same => Some((LastAck, direction)),
                _ => None,
            };
        }
        if flags & tcp_flags::ACK == 0 {
            return None;
        }
        match self.state {
            SynReceived if same => Some((Established, self.by)),
            FinWait if !same => Some((CloseWait, self.by)),
            LastAck if !same => Some((TimeWait, self.by)),
            Closed if same && self.was_established => Some((Established, self.by)),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::SessionState::{
        CloseWait, Closed, Established, FinWait, LastAck, SynReceived, SynSent, TimeWait,
    };
    use super::*;
    use Direction::{Forward, Reverse};

    const SYN: u8 = tcp_flags::SYN;
    const ACK: u8 = tcp_flags::ACK;
    const FIN: u8 = tcp_flags::FIN;
    const RST: u8 = tcp_flags::RST;

    fn follow(packets: &[(Direction, u8, SessionState)]) {
        let mut tracker = Tracker::new(protocol::TCP, SYN, Forward);
        assert_eq!(tracker.state(), SynSent);
        for (index, (direction, flags, state)) in packets.iter().enumerate() {
            assert_eq!(tracker.observe(*direction, *flags), *state, "packet {index}");
        }
    }

    const HANDSHAKE: [(Direction, u8, SessionState); 2] =
        [(Reverse, SYN | ACK, SynReceived), (Forward, ACK, Established)];

    #[test]
    fn a_handshake_and_a_close_pass_all_states() {
        // RFC 9293 sections 3.5 and 3.6.
        follow(&[
            (Forward, SYN, SynSent),
            (Reverse, SYN | ACK, SynReceived),
            (Reverse, SYN | ACK, SynReceived),
            (Forward, ACK, Established),
            (Reverse, ACK, Established),
            (Forward, FIN | ACK, FinWait),
            (Forward, FIN | ACK, FinWait),
            (Reverse, ACK, CloseWait),
            (Reverse, ACK, CloseWait),
            (Reverse, FIN | ACK, LastAck),
            (Forward, ACK, TimeWait),
        ]);
    }

    #[test]
    fn two_syns_that_cross_open_one_connection() {
        // RFC 9293 section 3.5, figure 7.
        follow(&[
            (Reverse, SYN, SynReceived),
            (Reverse, SYN | ACK, SynReceived),
            (Forward, SYN | ACK, Established),
        ]);
    }

    #[test]
    fn a_syn_within_an_established_connection_changes_nothing() {
        // RFC 9293 section 3.10.7.4: the peer answers with a challenge ACK.
        let [a, b] = HANDSHAKE;
        follow(&[a, b, (Forward, SYN, Established), (Reverse, SYN, Established)]);
    }

    #[test]
    fn a_reset_that_its_sender_contradicts_is_forgotten() {
        let [a, b] = HANDSHAKE;
        follow(&[a, b, (Reverse, RST, Closed), (Forward, ACK, Closed), (Reverse, ACK, Established)]);
    }

    #[test]
    fn a_refused_connection_does_not_become_established() {
        follow(&[(Reverse, RST | ACK, Closed), (Reverse, ACK, Closed), (Forward, ACK, Closed)]);
    }

    #[test]
    fn an_ack_of_the_answering_side_does_not_establish() {
        follow(&[(Reverse, SYN | ACK, SynReceived), (Reverse, ACK, SynReceived)]);
        follow(&[(Forward, ACK, SynSent)]);
    }

    #[test]
    fn a_packet_in_mid_stream_is_picked_up_as_established() {
        assert_eq!(Tracker::new(protocol::TCP, ACK, Forward).state(), Established);
        assert_eq!(Tracker::new(protocol::UDP, 0, Forward).state(), SessionState::Open);
    }

    #[test]
    fn timeouts_are_those_of_the_standards() {
        // RFC 5382 REQ-5, RFC 4787 REQ-5, RFC 5508 REQ-2.
        assert_eq!(Established.timeout(protocol::TCP, &TIMEOUTS), 7_440_000_000_000);
        assert_eq!(SynSent.timeout(protocol::TCP, &TIMEOUTS), 240_000_000_000);
        assert_eq!(Closed.timeout(protocol::TCP, &TIMEOUTS), 240_000_000_000);
        assert_eq!(SessionState::Open.timeout(protocol::UDP, &TIMEOUTS), 300_000_000_000);
        assert_eq!(SessionState::Open.timeout(protocol::ICMPV6, &TIMEOUTS), 60_000_000_000);
    }

    #[test]
    fn every_state_has_its_number() {
        assert!(SessionState::ALL.iter().all(|state| SessionState::from_u8(*state as u8) == Some(*state)));
        assert_eq!(SessionState::from_u8(0), None);
        assert_eq!(SessionState::from_u8(10), None);
    }
}
