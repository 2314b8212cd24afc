//! Times, rates and bursts as text.

use std::time::Duration;

use super::{Bad, Parsed};
use crate::model::Rate;

/// The depth of a token bucket as written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Burst {
    /// `"64KB"`.
    Bytes(u64),
    /// `"100 packets"`.
    Packets(u64),
}

/// Splits `10Mbit/s` into a decimal number (as value × 10⁻ᵈⁱᵍⁱᵗˢ) and the rest.
fn split(text: &str) -> Option<(u128, u32, &str)> {
    let text = text.trim();
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, rest) = text.split_at_checked(end)?;
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() || whole.len() > 18 || fraction.len() > 9 || fraction.contains('.') {
        return None;
    }
    if number.ends_with('.') {
        return None;
    }
    let value = format!("{whole}{fraction}").parse().ok()?;
    Some((value, u32::try_from(fraction.len()).ok()?, rest.trim()))
}

/// `value × 10⁻ᵈⁱᵍⁱᵗˢ × factor`, if that is a whole number.
fn scale(value: u128, digits: u32, factor: u64) -> Option<u64> {
    let product = value.checked_mul(u128::from(factor))?;
    let divisor = 10u128.checked_pow(digits)?;
    if product % divisor != 0 {
        return None;
    }
    u64::try_from(product / divisor).ok()
}

/// Takes a decimal multiplier off the front of a unit.
fn multiplier(unit: &str) -> (u64, &str) {
    for (letters, factor) in [("kK", 1_000), ("M", 1_000_000), ("G", 1_000_000_000)] {
        if let Some(rest) = unit.strip_prefix(|c| letters.contains(c)) {
            return (factor, rest);
        }
    }
    (1, unit)
}

/// `300s`, `500ms`, `5m`, `1h`.
pub(crate) fn duration(text: &str) -> Parsed<Duration> {
    let bad =
        || Bad::new(format!("`{text}` is not a time")).hint("such as \"300s\", \"500ms\", \"5m\" or \"1h\"");
    let (value, digits, unit) = split(text).ok_or_else(bad)?;
    let milliseconds = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" | "min" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return Err(bad()),
    };
    scale(value, digits, milliseconds).map(Duration::from_millis).ok_or_else(bad)
}

/// `10Mbit/s`, `10Mbps`, `64kbit`, `1000pps`, `5kpps`. Multipliers are decimal.
pub(crate) fn rate(text: &str) -> Parsed<Rate> {
    let bad = || {
        Bad::new(format!("`{text}` is not a rate")).hint(
            "bits as \"10Mbit/s\" (or \"10Mbps\"), packets as \"1000pps\"; k, M and G are powers of 1000",
        )
    };
    let (value, digits, unit) = split(text).ok_or_else(bad)?;
    let (factor, unit) = multiplier(unit);
    let number = scale(value, digits, factor).ok_or_else(bad)?;
    if number == 0 {
        return Err(Bad::new("a rate of zero lets nothing through").hint("a firewall rule drops traffic"));
    }
    match unit {
        "bit/s" | "bps" | "bit" => Ok(Rate::BitsPerSecond(number)),
        "pps" | "p/s" => Ok(Rate::PacketsPerSecond(number)),
        "B/s" | "Bps" => Err(Bad::new(format!("`{text}` is in bytes"))
            .hint(format!("rates are in bits: \"{}bit/s\"", number.saturating_mul(8)))),
        _ => Err(bad()),
    }
}

/// `64KB`, `64KiB`, `1500B`, `100 packets`.
pub(crate) fn burst(text: &str) -> Parsed<Burst> {
    let bad = || {
        Bad::new(format!("`{text}` is not a burst")).hint("such as \"64KB\" or \"64KiB\", or \"100 packets\"")
    };
    let (value, digits, unit) = split(text).ok_or_else(bad)?;
    let (factor, packets) = match unit {
        "packets" | "packet" => (1, true),
        "B" => (1, false),
        "kB" | "KB" => (1_000, false),
        "MB" => (1_000_000, false),
        "GB" => (1_000_000_000, false),
        "KiB" => (1 << 10, false),
        "MiB" => (1 << 20, false),
        "GiB" => (1 << 30, false),
        _ => return Err(bad()),
    };
    let number = scale(value, digits, factor).ok_or_else(bad)?;
    if number == 0 {
        return Err(Bad::new("a burst of zero lets nothing through"));
    }
    Ok(if packets { Burst::Packets(number) } else { Burst::Bytes(number) })
}

/// A rate as [`rate`] reads it.
pub(crate) fn render_rate(rate: Rate) -> String {
    let (number, unit) = match rate {
        Rate::BitsPerSecond(number) => (number, "bit/s"),
        Rate::PacketsPerSecond(number) => (number, "pps"),
    };
    for (factor, letter) in [(1_000_000_000, "G"), (1_000_000, "M"), (1_000, "k")] {
        if number != 0 && number % factor == 0 {
            return format!("{}{letter}{unit}", number / factor);
        }
    }
    format!("{number}{unit}")
}

/// A time as [`duration`] reads it.
pub(crate) fn render_duration(duration: Duration) -> String {
    match duration.as_millis() {
        ms if ms % 1_000 == 0 => format!("{}s", ms / 1_000),
        ms => format!("{ms}ms"),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn rates_are_read_in_every_accepted_spelling() {
        for text in ["10Mbit/s", "10Mbps", "10 Mbit/s", "10000kbit", "10000000bps", "0.01Gbit/s"] {
            assert_eq!(rate(text), Ok(Rate::BitsPerSecond(10_000_000)), "{text}");
        }
        for text in ["1000pps", "1kpps", "1.0kpps"] {
            assert_eq!(rate(text), Ok(Rate::PacketsPerSecond(1000)), "{text}");
        }
        for text in ["", "10", "10M", "fast", "-1pps", "0pps", "1.5pps", "1..5kpps", "99999999999Gbit/s"] {
            assert!(rate(text).is_err(), "{text}");
        }
    }

    #[test]
    fn bytes_a_second_are_refused_with_the_rate_in_bits() {
        assert_eq!(rate("1kB/s").unwrap_err().hint.as_deref(), Some("rates are in bits: \"8000bit/s\""));
    }

    #[test]
    fn bursts_know_decimal_and_binary_bytes_and_packets() {
        assert_eq!(burst("64KB"), Ok(Burst::Bytes(64_000)));
        assert_eq!(burst("64KiB"), Ok(Burst::Bytes(65_536)));
        assert_eq!(burst("100 packets"), Ok(Burst::Packets(100)));
        assert!(burst("100").is_err());
    }

    #[test]
    fn times_are_read_in_every_unit() {
        assert_eq!(duration("300s"), Ok(Duration::from_secs(300)));
        assert_eq!(duration("1.5s"), Ok(Duration::from_millis(1500)));
        assert_eq!(duration("5m"), Ok(Duration::from_secs(300)));
        assert!(duration("300").is_err());
        assert!(duration("0.5ms").is_err());
    }

    proptest! {
        #[test]
        fn a_rendered_rate_is_read_back(number in 1u64..10u64.pow(18), packets: bool) {
            let original = if packets { Rate::PacketsPerSecond(number) } else { Rate::BitsPerSecond(number) };
            prop_assert_eq!(rate(&render_rate(original)), Ok(original));
        }
    }
}
