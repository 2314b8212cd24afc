//! The hostile mix: packets that are cut short, carry options, are fragments, or have wrong sums, among good ones.

use std::net::Ipv4Addr;

use weir_dataplane::packet::builder::Packet;

use super::{HOST, ROUTER};
use crate::pipeline::input::{Shape, udp4};

/// Shapes of the mix, one packet each, over and over. All go where W2 and W4 forward to.
pub(in crate::pipeline) fn hostile() -> Vec<Shape> {
    let to = |last| Ipv4Addr::new(10, 128, 0, last);
    let good = |last| udp4(ROUTER, HOST, to(last), 64);
    let ip = |last| Packet::ethernet([2, 0, 0, 0, 1, 2], ROUTER).ipv4(HOST, to(last));
    let cut = |len| {
        let mut bytes = good(9);
        bytes.truncate(len);
        bytes
    };
    let broken = |offset: usize, value: u8| {
        let mut bytes = good(10);
        if let Some(byte) = bytes.get_mut(offset) {
            *byte ^= value;
        }
        bytes
    };
    // No-operations: a legal header of 40 bytes.
    let options = ip(4).options(&[1; 20]).udp(4000, 443).payload(&[0; 2]).build();
    [
        good(1),
        cut(60),
        good(2),
        options,
        ip(5).fragment(0, true).udp(4000, 443).payload(&[0; 24]).build(),
        broken(24, 0x55),
        good(3),
        ip(5).fragment(32, false).protocol(17).payload(&[0; 30]).build(),
        cut(33),
        // A header length below five words; a total length beyond the frame; another version.
        broken(14, 0x01),
        broken(16, 0x7f),
        broken(14, 0x30),
        cut(13),
        good(6),
        // The UDP length beyond the packet.
        broken(38, 0x7f),
        good(7),
    ]
    .into_iter()
    .map(Shape::fixed)
    .collect()
}
