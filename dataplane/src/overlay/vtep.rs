//! What arrives at a VTEP (RFC 7348 sections 4 and 5): from the outer headers to a tunnel and a remote VTEP.
//!
//! Built once a snapshot, read by all workers. Over IPv4, one probe of a small open-addressed table by (both addresses, UDP
//! port, VNI) says all about a packet that is in order. Otherwise there are two: (local address, UDP port, VNI) gives the
//! tunnel, (tunnel, remote address) the endpoint; so it is known what is missing. Keys are configured, never learned from
//! the wire, so a fixed hash is enough.

use std::net::IpAddr;

use super::vxlan::read_vni;
use crate::decision::{DropReason, EndpointId, ScopeId};
use crate::packet::plain::PlainV4;
use crate::packet::view::{udp, vxlan};
use crate::packet::{FragmentKind, L3, Meta, PacketFlags, checksum, protocol};

/// One VNI of one VTEP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VtepEntry {
    /// Local VTEP address.
    pub local: IpAddr,
    /// UDP port it listens on.
    pub udp_port: u16,
    /// VXLAN network identifier.
    pub vni: u32,
    /// The tunnel's scope.
    pub scope: ScopeId,
    /// Who may send, and as which endpoint.
    pub remotes: Vec<(IpAddr, EndpointId)>,
    /// Whether a non-zero outer UDP checksum is verified.
    pub check_udp: bool,
}

/// An encapsulated packet for one of our tunnels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decap {
    /// The tunnel's scope.
    pub scope: ScopeId,
    /// The remote VTEP that sent it.
    pub endpoint: EndpointId,
    /// Bytes from the start of the outer frame to the inner Ethernet header.
    pub strip: usize,
    /// Length of the inner Ethernet frame in bytes, by the outer UDP length.
    pub inner_len: usize,
    /// ECN of the outer IP header, for RFC 6040.
    pub outer_ecn: u8,
}

/// An IP address as one number; IPv4 as IPv4-mapped IPv6, which never is on a wire (RFC 4291 section 2.5.5.2).
#[inline]
fn number(ip: IpAddr) -> u128 {
    match ip {
        IpAddr::V4(ip) => mapped(ip.octets()),
        IpAddr::V6(ip) => u128::from_be_bytes(ip.octets()),
    }
}

#[inline]
fn mapped(octets: [u8; 4]) -> u128 {
    0xffff_0000_0000 | u128::from(u32::from_be_bytes(octets))
}

/// An address, and two small numbers beside it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    ip: u128,
    a: u32,
    b: u16,
}

/// What a [`Probe`] is keyed with.
trait Keyed: Copy + PartialEq {
    fn hash(self) -> u64;
}

/// All that names a packet's tunnel and sender over IPv4.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct FlatKey {
    /// Source and destination as they stand in the header, read as one little-endian number.
    addresses: u64,
    /// The VNI, and above it the UDP port.
    vni_port: u64,
}

impl FlatKey {
    #[inline]
    fn new(addresses: [u8; 8], vni: u32, udp_port: u16) -> Self {
        let vni_port = u64::from(udp_port) << 32 | u64::from(vni);
        Self { addresses: u64::from_le_bytes(addresses), vni_port }
    }
}

impl Keyed for FlatKey {
    #[inline]
    fn hash(self) -> u64 {
        let product = u128::from(self.addresses ^ 0x9e37_79b9_7f4a_7c15)
            * u128::from(self.vni_port ^ 0xd6e8_feb8_6659_fd93);
        product as u64 ^ (product >> 64) as u64
    }
}

impl Keyed for Key {
    #[inline]
    fn hash(self) -> u64 {
        let low = self.ip as u64 ^ u64::from(self.a) << 16 ^ u64::from(self.b) << 48;
        let product = u128::from(low ^ 0x9e37_79b9_7f4a_7c15)
            * u128::from((self.ip >> 64) as u64 ^ 0xd6e8_feb8_6659_fd93);
        product as u64 ^ (product >> 64) as u64
    }
}

/// A table that is built once: open addressing, linear probing, at most half full.
#[derive(Debug)]
struct Probe<V, K = Key> {
    slots: Box<[Option<(K, V)>]>,
}

impl<V: Copy, K: Keyed> Probe<V, K> {
    /// The first value of a key given twice stays.
    fn new(entries: &[(K, V)]) -> Self {
        let mut table = Self { slots: vec![None; (entries.len() * 2 + 1).next_power_of_two()].into() };
        for (key, value) in entries {
            let free = table.path(*key).find(|slot| match table.slots.get(*slot) {
                Some(Some((held, _))) => held == key,
                _ => true,
            });
            if let Some(slot @ None) = free.and_then(|slot| table.slots.get_mut(slot)) {
                *slot = Some((*key, *value));
            }
        }
        table
    }

    /// The slots where `key` may be, in order.
    #[inline]
    fn path(&self, key: K) -> impl Iterator<Item = usize> + use<V, K> {
        let mask = self.slots.len() - 1;
        let start = key.hash() as usize;
        (0..=mask).map(move |step| start.wrapping_add(step) & mask)
    }

    #[inline(always)]
    fn get(&self, key: K) -> Option<V> {
        let mask = self.slots.len() - 1;
        let mut slot = key.hash() as usize;
        // At most half full, so that there is an end.
        loop {
            let (held, value) = self.slots.get(slot & mask)?.as_ref()?;
            if *held == key {
                return Some(*value);
            }
            slot = slot.wrapping_add(1);
        }
    }
}

/// One tunnel as found by (local address, UDP port, VNI).
#[derive(Clone, Copy, Debug)]
struct Tunnel {
    number: u32,
    scope: ScopeId,
    check_udp: bool,
}

/// Endpoints that share a path: the same local and remote VTEP and UDP port, whatever the VNI.
#[derive(Debug)]
struct Path {
    key: (u128, u128, u16),
    endpoints: Vec<EndpointId>,
}

/// Whose packet it was, by what stands in its outer headers.
#[derive(Clone, Copy, Debug)]
pub struct Known {
    key: FlatKey,
    tunnel: Tunnel,
    endpoint: EndpointId,
}

/// What packets that are in order have in common that come by one path to one tunnel: their outer headers.
#[derive(Clone, Copy, Debug)]
pub struct PathHeaders {
    /// Source and destination as they stand in the header.
    addresses: u64,
    /// UDP destination port, and the bits of the VXLAN header that are looked at; both as they stand there.
    port: u16,
    vxlan: u64,
    check_udp: bool,
}

impl PathHeaders {
    /// Bytes from the start of the outer frame to the inner Ethernet header.
    pub const LEN: usize = 14 + 20 + udp::LEN + vxlan::LEN;
    /// Of the VXLAN header: the I flag and the VNI (RFC 7348 section 5).
    const LOOKED_AT: u64 = u64::from_le_bytes([0x08, 0, 0, 0, 0xff, 0xff, 0xff, 0]);

    /// Those of a plain packet for which [`VtepTable::lookup_plain`] has an answer.
    pub fn of(outer: &[u8], plain: &PlainV4, known: &Known) -> Option<Self> {
        let headers = outer.first_chunk::<{ Self::LEN }>()?;
        let [.., a, b, c, d, e, f, g, h] = *headers;
        let vxlan = u64::from_le_bytes([a, b, c, d, e, f, g, h]) & Self::LOOKED_AT;
        let port = (plain.ports >> 16) as u16;
        Some(Self { addresses: plain.addresses, port, vxlan, check_udp: known.tunnel.check_udp })
    }

    /// Length of the inner Ethernet frame in bytes, if a plain packet came by this path and is in order: what
    /// [`VtepTable::lookup_plain`] says of such a one.
    #[inline(always)]
    pub fn inner_len(&self, outer: &[u8], plain: &PlainV4) -> Option<usize> {
        const HEADERS: usize = udp::LEN + vxlan::LEN;
        let headers = outer.first_chunk::<{ Self::LEN }>()?;
        let vxlan = headers.get(42..)?.first_chunk().map(|bytes| u64::from_le_bytes(*bytes))?;
        let port = (plain.ports >> 16) as u16;
        let same = (plain.addresses == self.addresses)
            & (port == self.port)
            & (plain.protocol == protocol::UDP)
            & (vxlan & Self::LOOKED_AT == self.vxlan);
        let unchecked = !self.check_udp || (headers[40] | headers[41]) == 0;
        let len = usize::from(u16::from_be_bytes([headers[38], headers[39]]));
        (same && unchecked).then(|| len.checked_sub(HEADERS))?
    }
}

/// A set of UDP ports, with a few more in it than were put in.
#[derive(Clone, Copy, Debug, Default)]
pub struct Ports(u64);

impl Ports {
    /// Whether `port` may be in it.
    #[inline(always)]
    pub fn may_have(self, port: u16) -> bool {
        self.0 & port_bit(port) != 0
    }
}

/// All VTEPs of a snapshot.
#[derive(Debug)]
pub struct VtepTable {
    /// Tunnel and endpoint at once, over IPv4.
    flat: Probe<(Tunnel, EndpointId), FlatKey>,
    /// By local address, VNI and UDP port.
    tunnels: Probe<Tunnel>,
    /// By remote address and the tunnel's number.
    remotes: Probe<EndpointId>,
    /// By local address and UDP port.
    vteps: Probe<()>,
    /// By local address: whom UDP fragments may be for.
    locals: Probe<()>,
    /// Sorted by key.
    paths: Vec<Path>,
    /// A bit for each UDP port that some VTEP listens on: most packets need no look-up.
    ports: u64,
}

impl VtepTable {
    /// Builds the table. Of two entries with one (local, UDP port, VNI), the first stays.
    pub fn new(entries: &[VtepEntry]) -> Self {
        let mut flat = Vec::new();
        let mut tunnels: Vec<(Key, Tunnel)> = Vec::new();
        let mut remotes = Vec::new();
        let mut vteps = Vec::new();
        let mut locals = Vec::new();
        let mut paths: Vec<Path> = Vec::new();
        for (entry, index) in entries.iter().zip(0u32..) {
            let local = number(entry.local);
            let tunnel = Tunnel { number: index, scope: entry.scope, check_udp: entry.check_udp };
            tunnels.push((Key { ip: local, a: entry.vni, b: entry.udp_port }, tunnel));
            vteps.push((Key { ip: local, a: 0, b: entry.udp_port }, ()));
            locals.push((Key { ip: local, a: 0, b: 0 }, ()));
            for (remote, endpoint) in &entry.remotes {
                if let (IpAddr::V4(from), IpAddr::V4(to)) = (*remote, entry.local) {
                    let ([a, b, c, d], [e, f, g, h]) = (from.octets(), to.octets());
                    let key = FlatKey::new([a, b, c, d, e, f, g, h], entry.vni, entry.udp_port);
                    flat.push((key, (tunnel, *endpoint)));
                }
                let remote = number(*remote);
                remotes.push((Key { ip: remote, a: index, b: 0 }, *endpoint));
                let key = (local, remote, entry.udp_port);
                let at = paths.partition_point(|path| path.key < key);
                match paths.get_mut(at) {
                    Some(path) if path.key == key => path.endpoints.push(*endpoint),
                    _ => paths.insert(at, Path { key, endpoints: vec![*endpoint] }),
                }
            }
        }
        let found = Probe::new(&tunnels);
        // Of two entries with one key the first counts: the remotes of the second are nobody's.
        flat.retain(|(_, (tunnel, _))| {
            let key = tunnels.get(tunnel.number as usize).map(|(key, _)| *key);
            key.and_then(|key| found.get(key)).is_some_and(|first| first.number == tunnel.number)
        });
        Self {
            flat: Probe::new(&flat),
            tunnels: found,
            remotes: Probe::new(&remotes),
            vteps: Probe::new(&vteps),
            locals: Probe::new(&locals),
            paths,
            ports: entries.iter().fold(0, |ports, entry| ports | port_bit(entry.udp_port)),
        }
    }

    /// Whether a packet is for a VTEP, and for which tunnel. `None`: it is not addressed to a VTEP's UDP port.
    ///
    /// A VTEP does not reassemble (RFC 7348 section 4.3): fragments are refused, later ones too, which do not say their
    /// port, if they are UDP for a VTEP's address. A UDP checksum of 0 is accepted, over IPv6 as well (RFC 6935
    /// section 5: the receiver is configured for it); a non-zero one is verified if the tunnel says so.
    ///
    /// # Errors
    /// The inner result is the reason to drop it: [`DropReason::VxlanFragment`], [`DropReason::VxlanMalformed`],
    /// [`DropReason::VxlanUnknownVni`], [`DropReason::VxlanUnknownRemote`], [`DropReason::VxlanChecksum`].
    #[inline(always)]
    pub fn lookup(&self, outer: &[u8], meta: &Meta) -> Option<Result<Decap, DropReason>> {
        if meta.protocol != protocol::UDP {
            return None;
        }
        if meta.fragment == FragmentKind::Whole && self.ports & port_bit(meta.destination_port) == 0 {
            return None;
        }
        match self.lookup_flat(outer, meta) {
            Some(decap) => Some(Ok(decap)),
            None => self.lookup_any(outer, meta),
        }
    }

    /// A packet over IPv4 that is in order, from a remote VTEP that is known. `None` if it is not, or if more is to be
    /// looked at: [`lookup_any`](Self::lookup_any) does that.
    #[inline(always)]
    fn lookup_flat(&self, outer: &[u8], meta: &Meta) -> Option<Decap> {
        const HEADERS: usize = udp::LEN + vxlan::LEN;
        let transport = meta.flags.contains(PacketFlags::TRANSPORT);
        if meta.l3 != L3::V4 || meta.fragment != FragmentKind::Whole || !transport {
            return None;
        }
        let [.., a, b, c, d, e, f, g, h] = *outer.get(usize::from(meta.l3_offset)..)?.first_chunk::<20>()?;
        let l4 = usize::from(meta.l4_offset);
        let datagram = outer.get(l4..)?;
        let headers = datagram.first_chunk::<HEADERS>()?;
        let vni = read_vni(&headers[udp::LEN..]).ok()?;
        let key = FlatKey::new([a, b, c, d, e, f, g, h], vni, meta.destination_port);
        let (tunnel, endpoint) = self.flat.get(key)?;
        let len = usize::from(u16::from_be_bytes([headers[4], headers[5]]));
        let unchecked = !tunnel.check_udp || (headers[6] | headers[7]) == 0;
        if !unchecked || len < HEADERS || len > datagram.len() {
            return None;
        }
        Some(Decap {
            scope: tunnel.scope,
            endpoint,
            strip: l4 + HEADERS,
            inner_len: len - HEADERS,
            outer_ecn: meta.ecn(),
        })
    }

    /// UDP ports that some VTEP may listen on.
    #[inline(always)]
    pub fn ports(&self) -> Ports {
        Ports(self.ports)
    }

    /// [`lookup`](Self::lookup) for a plain packet that is in order, from a remote VTEP that is known. `last` is what was
    /// found for the packet before: mostly the same.
    #[inline(always)]
    pub fn lookup_plain(&self, outer: &[u8], plain: &PlainV4, last: &mut Option<Known>) -> Option<Decap> {
        const L4: usize = 34;
        const HEADERS: usize = udp::LEN + vxlan::LEN;
        let headers = outer.get(L4..)?.first_chunk::<HEADERS>()?;
        let vni = read_vni(&headers[udp::LEN..]).ok()?;
        let key = FlatKey::new(plain.addresses.to_le_bytes(), vni, plain.destination_port());
        let (tunnel, endpoint) = match last {
            Some(known) if known.key == key => (known.tunnel, known.endpoint),
            _ => {
                let (tunnel, endpoint) = self.flat.get(key)?;
                *last = Some(Known { key, tunnel, endpoint });
                (tunnel, endpoint)
            }
        };
        let len = usize::from(u16::from_be_bytes([headers[4], headers[5]]));
        let unchecked = !tunnel.check_udp || (headers[6] | headers[7]) == 0;
        // That the datagram is not longer than the packet was seen before.
        if !unchecked || len < HEADERS {
            return None;
        }
        let (scope, outer_ecn) = (tunnel.scope, plain.class & 3);
        Some(Decap { scope, endpoint, strip: L4 + HEADERS, inner_len: len - HEADERS, outer_ecn })
    }

    /// Any packet that may be for a VTEP.
    #[inline(never)]
    fn lookup_any(&self, outer: &[u8], meta: &Meta) -> Option<Result<Decap, DropReason>> {
        let (source, local) = addresses(outer, meta)?;
        if meta.fragment != FragmentKind::Whole {
            return self.fragment(local, meta);
        }
        if !meta.flags.contains(PacketFlags::TRANSPORT) {
            return None;
        }
        let datagram = outer.get(usize::from(meta.l4_offset)..)?;
        let payload = datagram.get(udp::LEN..)?;
        let vni = read_vni(payload);
        let key = Key { ip: local, a: *vni.as_ref().unwrap_or(&u32::MAX), b: meta.destination_port };
        let Some(tunnel) = self.tunnels.get(key) else {
            self.vteps.get(Key { a: 0, ..key })?;
            return Some(Err(vni.err().unwrap_or(DropReason::VxlanUnknownVni)));
        };
        Some(self.accept(outer, meta, source, tunnel))
    }

    /// A fragment: is it for a VTEP?
    #[cold]
    fn fragment(&self, local: u128, meta: &Meta) -> Option<Result<Decap, DropReason>> {
        if meta.fragment == FragmentKind::Later {
            self.locals.get(Key { ip: local, a: 0, b: 0 })?;
        } else {
            self.vteps.get(Key { ip: local, a: 0, b: meta.destination_port })?;
        }
        Some(Err(DropReason::VxlanFragment))
    }

    #[inline]
    fn accept(&self, outer: &[u8], meta: &Meta, source: u128, tunnel: Tunnel) -> Result<Decap, DropReason> {
        let headers = udp::LEN + vxlan::LEN;
        let l4 = usize::from(meta.l4_offset);
        let len = outer
            .get(l4 + 4..)
            .and_then(|rest| rest.first_chunk::<2>())
            .map(|len| usize::from(u16::from_be_bytes(*len)))
            .filter(|len| *len >= headers && l4 + len <= outer.len())
            .ok_or(DropReason::VxlanMalformed)?;
        let endpoint = self
            .remotes
            .get(Key { ip: source, a: tunnel.number, b: 0 })
            .ok_or(DropReason::VxlanUnknownRemote)?;
        if tunnel.check_udp && checksum::verify_transport(outer, meta) == Some(false) {
            return Err(DropReason::VxlanChecksum);
        }
        Ok(Decap {
            scope: tunnel.scope,
            endpoint,
            strip: l4 + headers,
            inner_len: len - headers,
            outer_ecn: meta.ecn(),
        })
    }

    /// Whether there is any VTEP.
    pub fn is_empty(&self) -> bool {
        self.ports == 0
    }

    /// The endpoints whose packets take the path from `local` to `remote` at this UDP port; all its VNIs, or none if
    /// `vni` is given and no tunnel of `local` has it.
    pub(super) fn path(
        &self,
        local: IpAddr,
        remote: IpAddr,
        udp_port: u16,
        vni: Option<u32>,
    ) -> &[EndpointId] {
        let local = number(local);
        if vni.is_some_and(|vni| self.tunnels.get(Key { ip: local, a: vni, b: udp_port }).is_none()) {
            return &[];
        }
        let key = (local, number(remote), udp_port);
        self.paths
            .binary_search_by_key(&key, |path| path.key)
            .ok()
            .and_then(|at| self.paths.get(at))
            .map_or(&[], |path| &path.endpoints)
    }
}

/// By the six bits above the low eight: those that share VXLAN's bit lie side by side then, and none of them is DNS or another port
/// that many packets go to.
#[inline]
const fn port_bit(port: u16) -> u64 {
    1 << (port >> 8 & 63)
}

const _: () = assert!(
    port_bit(super::vxlan::UDP_PORT) & (port_bit(53) | port_bit(443) | port_bit(500) | port_bit(4500)) == 0
);

/// Source and destination of an IP packet.
#[inline]
fn addresses(frame: &[u8], meta: &Meta) -> Option<(u128, u128)> {
    let packet = frame.get(usize::from(meta.l3_offset)..)?;
    match meta.l3 {
        L3::V4 => {
            let [.., a, b, c, d, e, f, g, h] = *packet.first_chunk::<20>()?;
            Some((mapped([a, b, c, d]), mapped([e, f, g, h])))
        }
        L3::V6 => {
            let (source, rest) = packet.get(8..)?.split_first_chunk::<16>()?;
            Some((u128::from_be_bytes(*source), u128::from_be_bytes(*rest.first_chunk::<16>()?)))
        }
        L3::Other | L3::Arp => None,
    }
}

#[cfg(test)]
mod tests;
