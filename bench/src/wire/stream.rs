//! What is sent: streams, as a TOML file describes them.
//!
//! ```toml
//! [stream.web]
//! share = 3                                                     # of the rate, beside the other streams
//! flows = 1000
//! size = "imix"                                                 # or 64, or [64, 590, 1514]: without frame check sequence
//! source-mac = "02:00:00:00:0a:01"
//! destination-mac = "02:00:00:00:0d:01"
//! vlan = 100
//! source = "198.18.0.2"
//! destination = { from = "198.19.64.0", count = 1000, order = "random" }
//! protocol = "udp"
//! source-port = { from = 1024, count = 1000, step = 2 }
//! destination-port = 9
//! [stream.web.vxlan]                                            # puts the packet into a tunnel (RFC 7348)
//! source = "192.0.2.2"
//! destination = "192.0.2.1"
//! vni = 100
//! ```

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::Path;

use serde::Deserialize;
use weir_config::MacAddress;

/// Shortest and longest frames that are sent, without frame check sequence and before a tunnel's headers.
pub(crate) const SHORTEST: u16 = 60;
pub(crate) const LONGEST: u16 = 1600;
/// The usual mix of lengths: seven of 64 bytes, four of 590, one of 1514 (RFC 6985 calls it IMIX), one after the other.
const IMIX: [u16; 12] = [64, 590, 64, 64, 590, 64, 1514, 64, 590, 64, 590, 64];

/// A file of streams.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    stream: BTreeMap<String, Stream>,
}

/// Packets of one kind.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct Stream {
    #[serde(skip)]
    pub(crate) name: String,
    #[serde(default = "one")]
    pub(crate) share: u32,
    /// Flow n takes value n of each field that has a range; further flows start over.
    #[serde(default = "one")]
    pub(crate) flows: u32,
    #[serde(default)]
    pub(crate) size: Size,
    pub(crate) source_mac: MacAddress,
    pub(crate) destination_mac: MacAddress,
    pub(crate) vlan: Option<u16>,
    pub(crate) source: Field<IpAddr>,
    pub(crate) destination: Field<IpAddr>,
    #[serde(default)]
    pub(crate) protocol: Protocol,
    #[serde(default = "source_port")]
    pub(crate) source_port: Field<u16>,
    #[serde(default = "destination_port")]
    pub(crate) destination_port: Field<u16>,
    #[serde(default = "ttl")]
    pub(crate) ttl: u8,
    pub(crate) vxlan: Option<Vxlan>,
}

/// The tunnel around a stream's packets: UDP from a port that depends on the flow, to 4789.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct Vxlan {
    pub(crate) source: IpAddr,
    pub(crate) destination: IpAddr,
    pub(crate) vni: u32,
    /// MAC addresses of the inner frame; without them those of the stream.
    pub(crate) source_mac: Option<MacAddress>,
    pub(crate) destination_mac: Option<MacAddress>,
}

#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Protocol {
    #[default]
    Udp,
    Tcp,
}

/// One value, or a range of them.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
pub(crate) enum Field<T> {
    One(T),
    Range(Range<T>),
}

/// `count` values from `from` on, `step` apart: in order, or each flow one of them at random (always the same).
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Range<T> {
    pub(crate) from: T,
    pub(crate) count: u32,
    #[serde(default = "one")]
    pub(crate) step: u32,
    #[serde(default)]
    pub(crate) order: Order,
}

#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Order {
    #[default]
    Step,
    Random,
}

/// Frame lengths.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
pub(crate) enum Size {
    One(u16),
    List(Vec<u16>),
    Named(Named),
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Named {
    Imix,
}

impl Default for Size {
    fn default() -> Self {
        Self::One(64)
    }
}

impl Size {
    pub(crate) fn list(&self) -> &[u16] {
        match self {
            Self::One(size) => std::slice::from_ref(size),
            Self::List(list) => list,
            Self::Named(Named::Imix) => &IMIX,
        }
    }
}

impl std::str::FromStr for Size {
    type Err = String;

    /// As on the command line: `64`, `64,590,1514`, `imix`.
    fn from_str(text: &str) -> Result<Self, String> {
        if text == "imix" {
            return Ok(Self::Named(Named::Imix));
        }
        let sizes: Result<Vec<u16>, _> = text.split(',').map(|size| size.trim().parse()).collect();
        sizes.map(Self::List).map_err(|_| format!("{text:?} is not a length, a list of lengths, or imix"))
    }
}

fn one() -> u32 {
    1
}

fn ttl() -> u8 {
    64
}

fn source_port() -> Field<u16> {
    Field::One(1024)
}

/// RFC 863, discard: what RFC 2544's appendix C.2.6.4 sends to.
fn destination_port() -> Field<u16> {
    Field::One(9)
}

impl<T: Copy> Field<T> {
    /// The value of a flow; `advance` adds to a value.
    fn at(&self, flow: u32, salt: u64, advance: impl Fn(T, u64) -> T) -> T {
        match self {
            Self::One(value) => *value,
            Self::Range(range) => {
                let count = u64::from(range.count.max(1));
                let n = match range.order {
                    Order::Step => u64::from(flow) % count,
                    Order::Random => mix(u64::from(flow) ^ salt) % count,
                };
                advance(range.from, n * u64::from(range.step))
            }
        }
    }

    fn first(&self) -> T {
        match self {
            Self::One(value) => *value,
            Self::Range(range) => range.from,
        }
    }
}

/// Scatters numbers (the finaliser of SplitMix64: Steele, Lea and Flood, OOPSLA 2014).
fn mix(n: u64) -> u64 {
    let n = n.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let n = (n ^ n >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let n = (n ^ n >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    n ^ n >> 31
}

/// Addresses and ports of one flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Tuple {
    pub(crate) source: IpAddr,
    pub(crate) destination: IpAddr,
    pub(crate) source_port: u16,
    pub(crate) destination_port: u16,
}

impl Stream {
    /// Addresses and ports of flow `flow`.
    pub(crate) fn tuple(&self, flow: u32) -> Tuple {
        let port = |port: u16, n: u64| port.wrapping_add(n as u16);
        Tuple {
            source: self.source.at(flow, 1 << 32, advance),
            destination: self.destination.at(flow, 2 << 32, advance),
            source_port: self.source_port.at(flow, 3 << 32, port),
            destination_port: self.destination_port.at(flow, 4 << 32, port),
        }
    }

    fn check(&self) -> Result<(), String> {
        let fault = |text: String| Err(format!("stream.{}: {text}", self.name));
        if self.share == 0 || self.flows == 0 {
            return fault("share and flows are at least 1".into());
        }
        let (source, destination) = (self.source.first(), self.destination.first());
        if source.is_ipv4() != destination.is_ipv4() {
            return fault(format!("{source} and {destination} are not of one family"));
        }
        if self.vlan.is_some_and(|vlan| vlan == 0 || vlan > 4094) {
            return fault("a VLAN is a number from 1 to 4094".into());
        }
        if let Some(vxlan) = &self.vxlan {
            if vxlan.vni > 0xff_ffff {
                return fault("a VNI has 24 bits".into());
            }
            if vxlan.source.is_ipv4() != vxlan.destination.is_ipv4() {
                return fault("the tunnel's addresses are not of one family".into());
            }
        }
        if self.size.list().is_empty() {
            return fault("size names no length".into());
        }
        match self.size.list().iter().find(|size| !(SHORTEST..=LONGEST).contains(size)) {
            Some(size) => fault(format!("a frame of {size} bytes: {SHORTEST} to {LONGEST} can be sent")),
            None => Ok(()),
        }
    }
}

fn advance(address: IpAddr, n: u64) -> IpAddr {
    match address {
        IpAddr::V4(address) => IpAddr::V4((u32::from(address).wrapping_add(n as u32)).into()),
        IpAddr::V6(address) => IpAddr::V6((u128::from(address).wrapping_add(n.into())).into()),
    }
}

/// Reads the streams of a file.
///
/// # Errors
/// The file, and what is wrong with it.
pub(crate) fn load(path: &Path) -> Result<Vec<Stream>, String> {
    let text = std::fs::read_to_string(path).map_err(|e| format!("cannot read {}: {e}", path.display()))?;
    parse(&text).map_err(|error| format!("{}: {error}", path.display()))
}

/// Reads streams.
///
/// # Errors
/// What is wrong with the text.
pub(crate) fn parse(text: &str) -> Result<Vec<Stream>, String> {
    let file: File = toml::from_str(text).map_err(|error| error.to_string())?;
    let streams: Vec<_> = file.stream.into_iter().map(|(name, stream)| Stream { name, ..stream }).collect();
    if streams.is_empty() {
        return Err("no stream: write at least one table [stream.NAME]".into());
    }
    if streams.len() > usize::from(u16::MAX) {
        return Err("more than 65535 streams".into());
    }
    streams.iter().try_for_each(Stream::check)?;
    Ok(streams)
}

#[cfg(test)]
mod tests {
    use super::*;

    const BASE: &str = r#"
        [stream.a]
        source-mac = "02:00:00:00:0a:01"
        destination-mac = "02:00:00:00:0d:01"
        source = "198.18.0.2"
        destination = { from = "198.19.64.250", count = 10, step = 2 }
    "#;

    #[test]
    fn flows_step_through_a_range_and_start_over() {
        let streams = parse(BASE).unwrap();
        let last = |flow| streams[0].tuple(flow).destination.to_string();
        assert_eq!(last(0), "198.19.64.250");
        assert_eq!(last(3), "198.19.65.0");
        assert_eq!(last(10), last(0));
        assert_eq!(streams[0].size.list(), [64]);
    }

    #[test]
    fn random_values_are_spread_and_the_same_each_time() {
        let text = format!("{BASE}\nsource-port = {{ from = 1000, count = 100, order = \"random\" }}");
        let streams = parse(&text).unwrap();
        let ports: Vec<_> = (0..1000).map(|flow| streams[0].tuple(flow).source_port).collect();
        let again: Vec<_> = (0..1000).map(|flow| streams[0].tuple(flow).source_port).collect();
        assert_eq!(ports, again);
        let different: std::collections::HashSet<_> = ports.iter().collect();
        assert!(different.len() > 90 && ports.iter().all(|port| (1000..1100).contains(port)));
    }

    #[test]
    fn mistakes_are_told_with_the_stream_and_the_remedy() {
        let says = |more: &str| parse(&format!("{BASE}\n{more}")).unwrap_err();
        assert!(says("size = [64, 9000]").contains("stream.a: a frame of 9000 bytes: 60 to 1600"));
        assert!(says("vlan = 4095").contains("from 1 to 4094"));
        assert!(says("sise = 64").contains("unknown field `sise`"));
        assert!(parse("[stream]").unwrap_err().contains("[stream.NAME]"));
    }

    #[test]
    fn imix_has_seven_short_four_middle_and_one_long() {
        let size: Size = "imix".parse().unwrap();
        let count = |wanted: u16| size.list().iter().filter(|size| **size == wanted).count();
        assert_eq!((count(64), count(590), count(1514)), (7, 4, 1));
    }
}
