//! CRC32c, the checksum of SCTP (RFC 9260 section 6.8 and appendix A), whole and incremental.

/// The Castagnoli polynomial, bits reflected.
const POLYNOMIAL: u32 = 0x82f6_3b78;

/// `TABLES[k][b]`: byte `b` followed by `k` zero bytes.
const TABLES: [[u32; 256]; 8] = tables();

/// `POWERS[k]`: x to the power 2^k, modulo the polynomial.
const POWERS: [u32; 32] = powers();

const fn tables() -> [[u32; 256]; 8] {
    let mut tables = [[0u32; 256]; 8];
    let mut byte = 0;
    while byte < 256 {
        let mut crc = byte as u32;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 1 == 1 { crc >> 1 ^ POLYNOMIAL } else { crc >> 1 };
            bit += 1;
        }
        tables[0][byte] = crc;
        byte += 1;
    }
    let mut k = 1;
    while k < 8 {
        let mut byte = 0;
        while byte < 256 {
            let before = tables[k - 1][byte];
            tables[k][byte] = before >> 8 ^ tables[0][(before & 0xff) as usize];
            byte += 1;
        }
        k += 1;
    }
    tables
}

const fn powers() -> [u32; 32] {
    let mut powers = [1 << 30; 32];
    let mut k = 1;
    while k < 32 {
        powers[k] = multiply(powers[k - 1], powers[k - 1]);
        k += 1;
    }
    powers
}

/// Product of two reflected polynomials modulo the polynomial.
const fn multiply(a: u32, mut b: u32) -> u32 {
    let mut product = 0;
    let mut bit = 1 << 31;
    while bit != 0 {
        if a & bit != 0 {
            product ^= b;
        }
        b = if b & 1 == 1 { b >> 1 ^ POLYNOMIAL } else { b >> 1 };
        bit >>= 1;
    }
    product
}

/// The register after `bytes`, from `register`: neither preset nor inverted, and so linear.
fn run(mut register: u32, bytes: &[u8]) -> u32 {
    let chunks = bytes.chunks_exact(8);
    let rest = chunks.remainder();
    for chunk in chunks {
        let Some(&[a, b, c, d, e, f, g, h]) = chunk.first_chunk() else { continue };
        let [p, q, r, s] = (register ^ u32::from_le_bytes([a, b, c, d])).to_le_bytes();
        let [t7, t6, t5, t4] = [p, q, r, s].map(usize::from);
        let [t3, t2, t1, t0] = [e, f, g, h].map(usize::from);
        register = TABLES[7][t7] ^ TABLES[6][t6] ^ TABLES[5][t5] ^ TABLES[4][t4];
        register ^= TABLES[3][t3] ^ TABLES[2][t2] ^ TABLES[1][t1] ^ TABLES[0][t0];
    }
    for byte in rest {
        register = register >> 8 ^ TABLES[0][usize::from(register as u8 ^ byte)];
    }
    register
}

/// CRC32c of `bytes`. SCTP stores it least significant byte first, over the packet with the field zero.
pub fn crc32c(bytes: &[u8]) -> u32 {
    !run(!0, bytes)
}

/// The CRC after the 4 bytes `old` became `new`, with `after` bytes behind them. A CRC that was wrong stays wrong, so that
/// the receiver still notices what was damaged on the way here.
pub fn update(crc: u32, old: [u8; 4], new: [u8; 4], after: usize) -> u32 {
    let difference = u32::from_ne_bytes(old) ^ u32::from_ne_bytes(new);
    let mut register = run(0, &difference.to_ne_bytes());
    // Each byte behind shifts the register by x^8.
    let bits = (after as u32).wrapping_mul(8);
    for (k, power) in POWERS.into_iter().enumerate() {
        if bits >> k & 1 == 1 {
            register = multiply(power, register);
        }
    }
    crc ^ register
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_check_values_of_rfc_3720_appendix_b_4_hold() {
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
        assert_eq!(crc32c(&[0; 32]).to_le_bytes(), [0xaa, 0x36, 0x91, 0x8a]);
        assert_eq!(crc32c(&[0xff; 32]).to_le_bytes(), [0x43, 0xab, 0xa8, 0x62]);
    }

    proptest! {
        #[test]
        fn an_incremental_crc_equals_a_full_one(
            mut bytes in proptest::collection::vec(any::<u8>(), 4..300),
            at in any::<prop::sample::Index>(),
            new in any::<[u8; 4]>(),
        ) {
            let before = crc32c(&bytes);
            let at = at.index(bytes.len() - 3);
            let old: [u8; 4] = bytes[at..at + 4].try_into().unwrap();
            bytes[at..at + 4].copy_from_slice(&new);
            prop_assert_eq!(update(before, old, new, bytes.len() - at - 4), crc32c(&bytes));
        }
    }
}
