//! One bridge domain: where a frame goes (IEEE 802.1Q clause 8.6, RFC 7348 section 4).

use weir_config::MacAddress;

use super::{LearnPolicy, Learned, MacTable, Member};
use crate::decision::{BridgeId, DropReason, Nanos};

/// Where a frame goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Forward {
    /// To this member.
    To(Member),
    /// To every member of [`Bridge::flood_targets`].
    Flood,
    /// Nowhere.
    Drop(DropReason),
}

/// A compiled bridge domain.
#[derive(Clone, Debug)]
pub struct Bridge {
    id: BridgeId,
    members: Box<[Member]>,
    learning: bool,
    policy: LearnPolicy,
    /// Reserved group addresses, by their last byte, that are flooded all the same.
    reserved: [Option<u8>; 2],
}

impl Bridge {
    /// A bridge domain with these members: each port or VLAN once, each tunnel once for each of its remote VTEPs.
    pub fn new(id: BridgeId, config: &weir_config::Bridge, members: Vec<Member>) -> Self {
        let ageing = Nanos::try_from(config.ageing.as_nanos()).unwrap_or(Nanos::MAX);
        Self {
            id,
            members: members.into(),
            learning: config.learning,
            policy: LearnPolicy { ageing, per_member: config.macs_per_member },
            reserved: [config.forward_stp.then_some(STP), config.forward_lldp.then_some(LLDP)],
        }
    }

    /// Its number.
    pub fn id(&self) -> BridgeId {
        self.id
    }

    /// Its members.
    pub fn members(&self) -> &[Member] {
        &self.members
    }

    /// Learns a frame's source address, if the bridge domain learns.
    pub fn learn(&self, table: &MacTable, source: MacAddress, ingress: Member, now: Nanos) -> Learned {
        if self.learning { table.learn(self.id, source, ingress, self.policy, now) } else { Learned::Off }
    }

    /// Where a frame goes that came in by `ingress`.
    pub fn forward(&self, table: &MacTable, ingress: Member, destination: MacAddress, now: Nanos) -> Forward {
        if reserved(destination).is_some_and(|last| !self.reserved.contains(&Some(last))) {
            return Forward::Drop(DropReason::BridgeReserved);
        }
        let known = if destination.is_group() { None } else { table.lookup(self.id, destination, now) };
        match known {
            Some(member) if member == ingress => Forward::Drop(DropReason::BridgeSameMember),
            // RFC 7348 leaves replication to the ingress VTEP, so each VTEP has its own copy already.
            Some(member) if member.is_tunnel() && ingress.is_tunnel() => {
                Forward::Drop(DropReason::BridgeSplitHorizon)
            }
            // What an earlier configuration learned behind somebody who is no member any more counts as unknown.
            Some(member) if self.members.contains(&member) => Forward::To(member),
            _ if self.flood_targets(ingress).next().is_none() => Forward::Drop(DropReason::BridgeNoMember),
            _ => Forward::Flood,
        }
    }

    /// Who gets a copy of a flooded frame: every other member, each remote VTEP of a tunnel (head-end replication); none
    /// behind a tunnel if the frame came out of one (split horizon).
    pub fn flood_targets(&self, ingress: Member) -> impl Iterator<Item = Member> + '_ {
        let other = move |member: &Member| {
            member.scope != ingress.scope && !(member.is_tunnel() && ingress.is_tunnel())
        };
        self.members.iter().copied().filter(other)
    }
}

/// Last byte of the spanning tree's group address (IEEE 802.1Q clause 13).
const STP: u8 = 0x00;
/// Last byte of LLDP's group address, that of the nearest bridge (IEEE 802.1AB clause 7.1).
const LLDP: u8 = 0x0e;

/// The last byte of a reserved address. IEEE 802.1Q table 8-1: 01:80:c2:00:00:00 to :0f are link-local; no bridge forwards
/// them unless it is told to be transparent.
fn reserved(destination: MacAddress) -> Option<u8> {
    let [a, b, c, d, e, last] = destination.0;
    ([a, b, c, d, e] == [0x01, 0x80, 0xc2, 0, 0] && last <= 0x0f).then_some(last)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::decision::{EndpointId, ScopeId};

    const HOST: MacAddress = MacAddress([2, 0, 0, 0, 0, 1]);

    fn port(scope: u16) -> Member {
        Member { scope: ScopeId(scope), endpoint: None }
    }

    fn remote(endpoint: u16) -> Member {
        Member { scope: ScopeId(9), endpoint: Some(EndpointId(endpoint)) }
    }

    fn bridge(members: &[Member]) -> Bridge {
        Bridge::new(BridgeId(1), &config(), members.to_vec())
    }

    fn config() -> weir_config::Bridge {
        weir_config::Bridge {
            ageing: Duration::from_secs(300),
            learning: true,
            macs_per_member: None,
            forward_stp: false,
            forward_lldp: false,
        }
    }

    #[test]
    fn bpdus_and_lldp_are_forwarded_where_it_is_configured_and_nothing_else_of_their_kind() {
        let group = |last| MacAddress([0x01, 0x80, 0xc2, 0, 0, last]);
        for (stp, lldp) in [(false, false), (true, false), (false, true), (true, true)] {
            let config = weir_config::Bridge { forward_stp: stp, forward_lldp: lldp, ..config() };
            let bridge = Bridge::new(BridgeId(1), &config, vec![port(1), port(2)]);
            for last in 0..=0x0f {
                let passes = stp && last == 0 || lldp && last == 0x0e;
                let expected =
                    if passes { Forward::Flood } else { Forward::Drop(DropReason::BridgeReserved) };
                assert_eq!(bridge.forward(&MacTable::new(4), port(1), group(last), 0), expected);
            }
        }
    }

    fn lan() -> Bridge {
        bridge(&[port(1), port(2), remote(1), remote(2)])
    }

    fn forward(bridge: &Bridge, learned: Option<Member>, ingress: Member) -> Forward {
        let table = MacTable::new(8);
        if let Some(member) = learned {
            bridge.learn(&table, HOST, member, 0);
        }
        bridge.forward(&table, ingress, HOST, 1)
    }

    #[test]
    fn a_known_address_is_sent_to_its_member_alone() {
        // IEEE 802.1Q clause 8.6.3.
        assert_eq!(forward(&lan(), Some(port(2)), port(1)), Forward::To(port(2)));
        assert_eq!(forward(&lan(), Some(remote(2)), port(1)), Forward::To(remote(2)));
        assert_eq!(forward(&lan(), Some(port(1)), remote(1)), Forward::To(port(1)));
    }

    #[test]
    fn a_frame_never_goes_back_to_the_member_that_it_came_from() {
        // IEEE 802.1Q clause 8.6.1.
        assert_eq!(forward(&lan(), Some(port(1)), port(1)), Forward::Drop(DropReason::BridgeSameMember));
        assert_eq!(forward(&lan(), Some(remote(1)), remote(1)), Forward::Drop(DropReason::BridgeSameMember));
    }

    #[test]
    fn a_frame_never_goes_from_one_vtep_to_another() {
        assert_eq!(
            forward(&lan(), Some(remote(2)), remote(1)),
            Forward::Drop(DropReason::BridgeSplitHorizon)
        );
        let other = Member { scope: ScopeId(10), endpoint: Some(EndpointId(3)) };
        let bridge = bridge(&[remote(1), other]);
        assert_eq!(forward(&bridge, Some(other), remote(1)), Forward::Drop(DropReason::BridgeSplitHorizon));
    }

    #[test]
    fn link_local_group_addresses_are_not_forwarded() {
        // IEEE 802.1Q table 8-1.
        let (bridge, table) = (lan(), MacTable::new(8));
        let reserved = |last| MacAddress([0x01, 0x80, 0xc2, 0, 0, last]);
        for last in 0..=0x0f {
            let result = bridge.forward(&table, port(1), reserved(last), 0);
            assert_eq!(result, Forward::Drop(DropReason::BridgeReserved), "{last:#x}");
        }
        assert_eq!(bridge.forward(&table, port(1), reserved(0x10), 0), Forward::Flood);
    }

    #[test]
    fn unknown_and_group_addresses_are_flooded() {
        // IEEE 802.1Q clause 8.6.3.
        assert_eq!(forward(&lan(), None, port(1)), Forward::Flood);
        let (bridge, table) = (lan(), MacTable::new(8));
        assert_eq!(bridge.forward(&table, port(1), MacAddress::BROADCAST, 0), Forward::Flood);
    }

    #[test]
    fn flooding_replicates_to_each_vtep_but_not_from_one_to_another() {
        // RFC 7348 section 4.2, with head-end replication in place of a multicast group.
        let targets = |ingress| lan().flood_targets(ingress).collect::<Vec<_>>();
        assert_eq!(targets(port(1)), [port(2), remote(1), remote(2)]);
        assert_eq!(targets(remote(1)), [port(1), port(2)]);
    }

    #[test]
    fn with_no_other_member_there_is_nothing_to_flood_to() {
        let none = Forward::Drop(DropReason::BridgeNoMember);
        assert_eq!(forward(&bridge(&[port(1)]), None, port(1)), none);
        assert_eq!(forward(&bridge(&[remote(1), remote(2)]), None, remote(1)), none);
    }

    #[test]
    fn an_address_behind_a_former_member_counts_as_unknown() {
        assert_eq!(forward(&lan(), Some(port(7)), port(1)), Forward::Flood);
    }

    #[test]
    fn a_bridge_domain_that_does_not_learn_learns_nothing() {
        let mut bridge = lan();
        bridge.learning = false;
        let table = MacTable::new(8);
        assert_eq!(bridge.learn(&table, HOST, port(2), 0), Learned::Off);
        assert_eq!(bridge.forward(&table, port(1), HOST, 0), Forward::Flood);
    }
}
