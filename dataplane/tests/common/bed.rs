//! What many scenarios stand on: pieces of configuration in words, a router and a bridge between Alice and Bob, and their packets.

use weir_dataplane::packet::builder::Packet;

/// weir's own MAC addresses: of its ports `lan` and `wan`.
pub(crate) const LAN: &str = "02:00:00:00:01:00";
pub(crate) const WAN: &str = "02:00:00:00:02:00";
/// Alice is behind `lan`, Bob behind `wan`.
pub(crate) const ALICE: &str = "02:00:00:00:00:0a";
pub(crate) const BOB: &str = "02:00:00:00:00:0b";

/// A port of weir's own that is routed; lines that follow belong to it.
pub(crate) fn routed(name: &str, mac: &str, addresses: &[&str]) -> String {
    format!("[port.{name}]\nmode = \"dedicated\"\nmac = \"{mac}\"\naddresses = {addresses:?}\n")
}

/// A port of weir's own that is in a bridge domain.
pub(crate) fn bridged(name: &str, bridge: &str) -> String {
    format!("[port.{name}]\nmode = \"dedicated\"\nbridge = \"{bridge}\"\n")
}

/// Somebody whose MAC address is known.
pub(crate) fn neighbour(port: &str, ip: &str, mac: &str) -> String {
    format!("[[neighbour]]\nport = \"{port}\"\nip = \"{ip}\"\nmac = \"{mac}\"\n")
}

/// A route of the default VRF.
pub(crate) fn route(prefix: &str, gateway: &str) -> String {
    format!("[[vrf.default.route]]\nprefix = \"{prefix}\"\nvia = {{ ip = \"{gateway}\" }}\n")
}

/// Sends everything through one service.
pub(crate) fn through(service: &str) -> String {
    format!("[chain.all]\nhops = [\"{service}\"]\n[[classify]]\nchain = \"all\"\n")
}

/// Alice behind `lan`, Bob behind `wan`, a router between them.
pub(crate) fn router() -> String {
    [
        routed("lan", LAN, &["10.1.0.1/24"]),
        routed("wan", WAN, &["10.2.0.1/24"]),
        neighbour("lan", "10.1.0.2", ALICE),
        neighbour("wan", "10.2.0.2", BOB),
    ]
    .concat()
}

/// Alice on `one`, Bob on `two`, bridged; nobody on `three`.
pub(crate) fn bridge() -> String {
    ["[bridge.lan]\n".to_owned(), bridged("one", "lan"), bridged("two", "lan"), bridged("three", "lan")]
        .concat()
}

/// From Alice to Bob, routed.
pub(crate) fn out() -> Packet {
    Packet::ethernet(ALICE, LAN).ipv4("10.1.0.2", "10.2.0.2")
}

/// From Bob to Alice, routed.
pub(crate) fn back() -> Packet {
    Packet::ethernet(BOB, WAN).ipv4("10.2.0.2", "10.1.0.2")
}
