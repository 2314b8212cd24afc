//! A rtnetlink socket under tokio: requests out, parsed messages in (rtnetlink(7)).

use std::io;
use std::net::IpAddr;

use netlink_packet_core::{
    NLM_F_CREATE, NLM_F_DUMP, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::address::AddressMessage;
use netlink_packet_route::link::LinkMessage;
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{AsyncSocket, AsyncSocketExt, SocketAddr, TokioSocket};
use tracing::debug;

/// Multicast groups of rtnetlink (linux/rtnetlink.h).
const GROUPS: [u32; 4] = [RTNLGRP_LINK, RTNLGRP_NEIGH, RTNLGRP_IPV4_IFADDR, RTNLGRP_IPV6_IFADDR];
const RTNLGRP_LINK: u32 = 1;
const RTNLGRP_NEIGH: u32 = 3;
const RTNLGRP_IPV4_IFADDR: u32 = 5;
const RTNLGRP_IPV6_IFADDR: u32 = 9;

/// Receive buffer asked of the kernel, bytes: room for a burst of events.
const RECEIVE_BUFFER: u32 = 1 << 20;

/// What a dump is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dump {
    Links,
    Addresses,
    Neighbours,
}

/// One message from the kernel.
#[derive(Debug)]
pub(crate) enum Incoming {
    /// News, or an element of a dump.
    Message(RouteNetlinkMessage),
    /// The dump with this sequence number is complete.
    Done(u32),
    /// The request with this sequence number failed.
    Failed(u32, io::Error),
    /// The kernel says that a dump was overtaken by a change and is not consistent.
    Interrupted,
}

/// NLM_F_DUMP_INTR of linux/netlink.h.
const DUMP_INTERRUPTED: u16 = 0x10;

pub(crate) struct RouteSocket {
    inner: TokioSocket,
    sequence: u32,
}

impl RouteSocket {
    /// Opens the socket and joins the groups of links, addresses and neighbours.
    ///
    /// # Errors
    /// What socket(2), bind(2) or setsockopt(2) said.
    pub(crate) fn open() -> io::Result<Self> {
        let mut inner = TokioSocket::new(NETLINK_ROUTE)?;
        let socket = inner.socket_mut();
        socket.bind_auto()?;
        // A larger buffer is a convenience: an overrun is repaired by a new dump.
        if let Err(error) = socket.set_rx_buf_sz(RECEIVE_BUFFER) {
            debug!("netlink receive buffer stays as it is: {error}");
        }
        for group in GROUPS {
            socket.add_membership(group)?;
        }
        Ok(Self { inner, sequence: 0 })
    }

    /// Asks for a dump; returns the sequence number that its end will carry.
    pub(crate) async fn request_dump(&mut self, dump: Dump) -> io::Result<u32> {
        let message = match dump {
            Dump::Links => RouteNetlinkMessage::GetLink(LinkMessage::default()),
            Dump::Addresses => RouteNetlinkMessage::GetAddress(AddressMessage::default()),
            Dump::Neighbours => RouteNetlinkMessage::GetNeighbour(NeighbourMessage::default()),
        };
        self.send(message, NLM_F_REQUEST | NLM_F_DUMP).await
    }

    /// Has the kernel resolve a neighbour, as if it had a packet for it.
    pub(crate) async fn resolve(&mut self, ifindex: u32, ip: IpAddr) -> io::Result<u32> {
        let mut message = NeighbourMessage::default();
        message.header.family = if ip.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
        message.header.ifindex = ifindex;
        message.header.state = NeighbourState::None;
        message.header.flags = NeighbourFlags::Use;
        message.attributes.push(NeighbourAttribute::Destination(NeighbourAddress::from(ip)));
        self.send(RouteNetlinkMessage::NewNeighbour(message), NLM_F_REQUEST | NLM_F_CREATE).await
    }

    async fn send(&mut self, message: RouteNetlinkMessage, flags: u16) -> io::Result<u32> {
        self.sequence = self.sequence.wrapping_add(1).max(1);
        let mut header = NetlinkHeader::default();
        header.flags = flags;
        header.sequence_number = self.sequence;
        let mut message = NetlinkMessage::new(header, NetlinkPayload::from(message));
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        self.inner.send_to(&bytes, &SocketAddr::new(0, 0)).await?;
        Ok(self.sequence)
    }

    /// Waits for one datagram and parses what stands in it.
    ///
    /// # Errors
    /// What recv(2) said; `ENOBUFS` means that messages were lost.
    pub(crate) async fn receive(&self) -> io::Result<Vec<Incoming>> {
        let (bytes, sender) = self.inner.recv_from_full().await?;
        // Anybody may send to a netlink socket; only port 0 is the kernel.
        Ok(if sender.port_number() == 0 { parse(&bytes) } else { Vec::new() })
    }
}

/// Parses the messages of one datagram. What this crate's parser does not know is skipped: newer kernels may say more.
fn parse(mut bytes: &[u8]) -> Vec<Incoming> {
    let mut incoming = Vec::new();
    while let Some(length) = bytes.first_chunk::<4>().map(|b| u32::from_ne_bytes(*b) as usize) {
        if length < NETLINK_HEADER || length > bytes.len() {
            break;
        }
        let (message, rest) = bytes.split_at(length);
        match NetlinkMessage::<RouteNetlinkMessage>::deserialize(message) {
            Ok(message) => classify(message, &mut incoming),
            Err(error) => debug!("a netlink message was not understood: {error}"),
        }
        let padding = length.next_multiple_of(NETLINK_ALIGNMENT) - length;
        bytes = rest.get(padding..).unwrap_or_default();
    }
    incoming
}

const NETLINK_HEADER: usize = 16;
const NETLINK_ALIGNMENT: usize = 4;

fn classify(message: NetlinkMessage<RouteNetlinkMessage>, incoming: &mut Vec<Incoming>) {
    let sequence = message.header.sequence_number;
    if message.header.flags & DUMP_INTERRUPTED != 0 && sequence != 0 {
        incoming.push(Incoming::Interrupted);
    }
    match message.payload {
        NetlinkPayload::InnerMessage(inner) => incoming.push(Incoming::Message(inner)),
        NetlinkPayload::Done(_) => incoming.push(Incoming::Done(sequence)),
        NetlinkPayload::Error(error) if error.code.is_some() => {
            incoming.push(Incoming::Failed(sequence, error.to_io()));
        }
        NetlinkPayload::Overrun(_) => incoming.push(Incoming::Interrupted),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_datagram_cut_short_gives_what_is_whole_and_no_panic() {
        let mut message = NetlinkMessage::new(
            NetlinkHeader::default(),
            NetlinkPayload::from(RouteNetlinkMessage::NewLink(LinkMessage::default())),
        );
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        let one = bytes.len();
        bytes.extend_from_within(..);
        for cut in 0..=bytes.len() {
            assert_eq!(parse(&bytes[..cut]).len(), cut / one, "cut at {cut}");
        }
    }

    #[test]
    fn a_length_of_zero_does_not_loop() {
        assert!(parse(&[0; 64]).is_empty());
    }
}
