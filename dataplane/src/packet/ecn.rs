//! ECN and DSCP across a tunnel: RFC 6040 (ECN), RFC 2983 (DSCP).

use weir_config::DscpModel;

use super::{L3, Meta, checksum};

/// The outer ECN field for an inner one: copied ("normal mode", RFC 6040 section 4.1).
#[inline]
pub const fn encapsulate(inner: u8) -> u8 {
    inner & 3
}

/// What decapsulation does to the inner ECN field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decapsulated {
    /// Leaves it.
    Keep,
    /// Sets it.
    Set(u8),
    /// Drops the packet: congestion was marked, and the inner packet cannot say so.
    Drop,
}

/// The outgoing ECN field for an inner and an outer one (RFC 6040 section 4.2, figure 4).
#[inline]
pub const fn decapsulate(inner: u8, outer: u8) -> Decapsulated {
    const NOT_ECT: u8 = 0b00;
    const ECT_1: u8 = 0b01;
    const ECT_0: u8 = 0b10;
    const CE: u8 = 0b11;
    match (inner & 3, outer & 3) {
        (NOT_ECT, CE) => Decapsulated::Drop,
        (ECT_0 | ECT_1, CE) => Decapsulated::Set(CE),
        (ECT_0, ECT_1) => Decapsulated::Set(ECT_1),
        _ => Decapsulated::Keep,
    }
}

/// The outer traffic class (TOS) for an inner one: DSCP by the model (RFC 2983 section 3), ECN by [`encapsulate`].
/// `inner` is `None` for what is not IP: best effort, not ECN capable.
#[inline]
pub const fn outer_traffic_class(model: DscpModel, inner: Option<u8>) -> u8 {
    let inner = match inner {
        Some(inner) => inner,
        None => 0,
    };
    let dscp = match model {
        DscpModel::Uniform => inner & 0xfc,
        DscpModel::Pipe(dscp) => dscp << 2,
    };
    dscp | encapsulate(inner)
}

/// Sets the traffic class (TOS) of an IPv4 or IPv6 packet. False, and nothing done, if it is neither.
#[inline]
pub fn set_traffic_class(frame: &mut [u8], meta: &Meta, traffic_class: u8) -> bool {
    let Some(packet) = frame.get_mut(usize::from(meta.l3_offset)..) else { return false };
    match meta.l3 {
        L3::V4 => {
            let Some(header) = packet.first_chunk_mut::<12>() else { return false };
            let old = u16::from_be_bytes([header[0], header[1]]);
            let sum = u16::from_be_bytes([header[10], header[11]]);
            header[1] = traffic_class;
            let sum = checksum::update16(sum, old, old & 0xff00 | u16::from(traffic_class));
            [header[10], header[11]] = sum.to_be_bytes();
            true
        }
        L3::V6 => {
            let Some(header) = packet.first_chunk_mut::<2>() else { return false };
            *header = [0x60 | traffic_class >> 4, traffic_class << 4 | header[1] & 0x0f];
            true
        }
        L3::Other | L3::Arp => false,
    }
}

/// Sets the ECN field of an IPv4 or IPv6 packet and leaves DSCP. False, and nothing done, if it is neither.
#[inline]
pub fn set_ecn(frame: &mut [u8], meta: &Meta, ecn: u8) -> bool {
    set_traffic_class(frame, meta, meta.traffic_class & 0xfc | ecn & 3)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 6040 figure 4, rows Not-ECT, ECT(0), ECT(1), CE; columns the same; 9 for drop.
    #[test]
    fn decapsulation_follows_figure_4_of_rfc_6040() {
        let codes = [0b00, 0b10, 0b01, 0b11];
        let table = [[0, 0, 0, 9], [2, 2, 1, 3], [1, 1, 1, 3], [3, 3, 3, 3]];
        for (row, inner) in codes.into_iter().enumerate() {
            for (column, outer) in codes.into_iter().enumerate() {
                let got = match decapsulate(inner, outer) {
                    Decapsulated::Keep => inner,
                    Decapsulated::Set(ecn) => ecn,
                    Decapsulated::Drop => 9,
                };
                assert_eq!(got, table[row][column], "inner {inner:02b}, outer {outer:02b}");
            }
        }
    }

    #[test]
    fn encapsulation_copies_ecn_and_chooses_dscp_by_the_model() {
        let inner = Some(46 << 2 | 0b10);
        assert_eq!(outer_traffic_class(DscpModel::Uniform, inner), 46 << 2 | 0b10);
        assert_eq!(outer_traffic_class(DscpModel::Pipe(8), inner), 8 << 2 | 0b10);
        assert_eq!(outer_traffic_class(DscpModel::Uniform, None), 0);
        assert_eq!(outer_traffic_class(DscpModel::Pipe(8), None), 8 << 2);
    }
}
