//! A transparent hop makes no difference.

use super::*;

/// What Alice and the server say to each other.
#[derive(Clone, Debug)]
struct Said {
    v6: bool,
    reply: bool,
    kind: u8,
    port: u16,
    ttl: u8,
    len: usize,
    class: u8,
}

fn said() -> impl Strategy<Value = Said> {
    let parts = (any::<bool>(), any::<bool>(), 0..4u8, 0..4u16, 2..=255u8, 0..600usize, any::<u8>());
    parts.prop_map(|(v6, reply, kind, port, ttl, len, class)| Said { v6, reply, kind, port, ttl, len, class })
}

impl Said {
    fn frame(&self, source_of: impl Fn(u16) -> Option<(String, u16)>) -> (&'static str, Vec<u8>) {
        let (port, inside) = (if self.reply { "wan" } else { "lan" }, 4000 + self.port);
        let (address, inside) = match source_of(inside).filter(|_| self.reply && !self.v6) {
            Some(translated) => translated,
            None => ("10.1.0.2".to_owned(), inside),
        };
        let packet = match (self.v6, self.reply) {
            (false, false) => out(),
            (false, true) => back_to(&address),
            (true, false) => Packet::ethernet(ALICE, LAN).ipv6("2001:db8:1::2", "2001:db8:9::9"),
            (true, true) => Packet::ethernet(GATEWAY, WAN).ipv6("2001:db8:9::9", "2001:db8:1::2"),
        };
        let packet = packet.ttl(self.ttl).traffic_class(self.class);
        let (source, destination) = if self.reply { (53, inside) } else { (inside, 53) };
        let packet = match self.kind {
            0 => packet.tcp(source, destination).flags(if self.reply { SYN | ACK } else { SYN }),
            1 => packet.tcp(source, destination).flags(ACK),
            _ => packet.udp(source, destination),
        };
        (port, packet.payload(&vec![self.class; self.len]).build())
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    /// However the chain is cut, a transparent hop in it changes no byte, and drops nothing that would not be dropped without it.
    #[test]
    fn with_a_transparent_hop_packets_leave_as_without_one(
        conversation in prop::collection::vec(said(), 1..40),
        cut in 0..4usize,
    ) {
        let with = ["\"edge\", \"ids\", \"out\"", "\"ids\", \"edge\", \"out\"", "\"edge\", \"out\", \"ids\"", "\"ids\", \"edge\""];
        let without = ["\"edge\", \"out\"", "\"edge\", \"out\"", "\"edge\", \"out\"", "\"edge\""];
        let mut hopped = Lab::new(with[cut], TWO_ARMS, THROUGH);
        let mut plain = Lab::new(without[cut], "", &[]);
        let mut seen: BTreeMap<u16, (String, u16)> = BTreeMap::new();
        let mut known = std::collections::BTreeSet::new();
        for said in &conversation {
            // A reply to what nobody said is another matter: it is classified as it comes.
            if said.reply && !known.contains(&(said.v6, said.kind < 2, said.port)) {
                continue;
            }
            let (port, frame) = said.frame(|port| seen.get(&port).cloned());
            let expected = plain.pass(port, &frame);
            let actual = hopped.pass(port, &frame);
            prop_assert_eq!(&actual, &expected, "{:?}", said);
            for (_, frame) in &expected {
                assert_sound(frame);
            }
            if let ([(_, frame)], false) = (expected.as_slice(), said.reply) {
                known.insert((said.v6, said.kind < 2, said.port));
                if !said.v6 {
                    let source = parse(frame).unwrap().source_port;
                    seen.insert(4000 + said.port, (dotted(&frame[26..30]), source));
                }
            }
        }
        prop_assert_eq!(hopped.drops(), plain.drops());
    }
}
