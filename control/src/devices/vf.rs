//! What a PF lets its VFs do, asked of the kernel (rtnetlink(7), IFLA_VFINFO_LIST).

use std::io;

use netlink_packet_core::{NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{LinkAttribute, LinkExtentMask, LinkMessage, VfInfo};
use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{Socket, SocketAddr};
use serde::Serialize;

/// What a VF may do, as `ip link show` prints it for its PF.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Leave {
    /// Whether it may change its MAC address and become promiscuous.
    pub(crate) trust: Option<bool>,
    /// Whether frames with another source MAC address than its own are dropped on sending.
    pub(crate) spoof_check: Option<bool>,
    /// The VLAN that its frames are put into and taken out of, unseen by it; 0: none.
    pub(crate) vlan: Option<u32>,
}

/// What the PF with this network device lets VF `number` do; `None` if it says nothing of that VF.
///
/// # Errors
/// What the kernel said.
pub(crate) fn leave(pf_device: &str, number: u32) -> io::Result<Option<Leave>> {
    let mut socket = Socket::new(NETLINK_ROUTE)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    let mut question = LinkMessage::default();
    question.attributes.push(LinkAttribute::IfName(pf_device.to_owned()));
    question.attributes.push(LinkAttribute::ExtMask(vec![LinkExtentMask::Vf, LinkExtentMask::SkipStats]));
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST;
    let mut message = NetlinkMessage::new(header, RouteNetlinkMessage::GetLink(question).into());
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    socket.send(&bytes, 0)?;
    let (answer, _) = socket.recv_from_full()?;
    let answer = NetlinkMessage::<RouteNetlinkMessage>::deserialize(&answer).map_err(io::Error::other)?;
    match answer.payload {
        NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewLink(link)) => Ok(read(&link, number)),
        NetlinkPayload::Error(error) => Err(error.to_io()),
        _ => Ok(None),
    }
}

fn read(link: &LinkMessage, number: u32) -> Option<Leave> {
    let lists = link.attributes.iter().filter_map(|attribute| match attribute {
        LinkAttribute::VfInfoList(list) => Some(list),
        _ => None,
    });
    let mut leave = None;
    for information in lists.flatten().flat_map(|vf| &vf.0) {
        let mut note = |vf: u32, set: &dyn Fn(&mut Leave)| {
            if vf == number {
                set(leave.get_or_insert_default());
            }
        };
        match information {
            VfInfo::Trust(trust) => note(trust.vf_id, &|leave| leave.trust = Some(trust.enabled)),
            VfInfo::SpoofCheck(check) => note(check.vf_id, &|leave| leave.spoof_check = Some(check.enabled)),
            VfInfo::Vlan(vlan) => note(vlan.vf_id, &|leave| leave.vlan = Some(vlan.vlan_id)),
            _ => {}
        }
    }
    leave
}

#[cfg(test)]
mod tests {
    use netlink_packet_route::link::{LinkVfInfo, VfInfoSpoofCheck, VfInfoTrust, VfInfoVlan};

    use super::*;

    #[test]
    fn each_vf_is_told_by_its_number() {
        let vf = |number, trust, vlan| {
            LinkVfInfo(vec![
                VfInfo::Trust(VfInfoTrust::new(number, trust)),
                VfInfo::SpoofCheck(VfInfoSpoofCheck::new(number, !trust)),
                VfInfo::Vlan(VfInfoVlan::new(number, vlan, 0)),
            ])
        };
        let mut link = LinkMessage::default();
        link.attributes.push(LinkAttribute::VfInfoList(vec![vf(0, false, 0), vf(1, true, 30)]));
        let leave = |trust, vlan| Leave { trust: Some(trust), spoof_check: Some(!trust), vlan: Some(vlan) };
        assert_eq!(read(&link, 0), Some(leave(false, 0)));
        assert_eq!(read(&link, 1), Some(leave(true, 30)));
        assert_eq!(read(&link, 2), None);
    }

    #[test]
    fn the_kernel_answers_about_a_device_without_vfs() {
        assert_eq!(leave("lo", 0).unwrap(), None);
        assert!(leave("no-such-device", 0).is_err());
    }
}
