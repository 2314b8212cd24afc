//! Chains (RFC 7665): the hops that packets go through, services and what is attached outside, and the classifier that sends
//! flows into them.

use serde::{Deserialize, Serialize};

use super::{Firewall, Match, Nat, Policer};

/// `[chain.<name>]`: an ordered list of hops.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Chain {
    /// Names of services and attached hops in forward order; replies take them in reverse.
    pub hops: Vec<String>,
}

/// `[service.<name>.<kind>]`: one service function.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Service {
    /// `[service.<name>.firewall]`.
    Firewall(Firewall),
    /// `[service.<name>.policer]`.
    Policer(Policer),
    /// `[service.<name>.nat]`.
    Nat(Nat),
}

/// `[hop.<name>]`: something outside that the packets of a chain go through, such as a container or a virtual machine.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Hop {
    /// Interfaces that it is attached to: two, of which forward packets go out by the first and come back by the second, or one.
    pub attach: Vec<String>,
    /// What becomes of packets while it cannot be reached.
    pub fail: Fail,
}

/// `hop.fail`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Fail {
    /// They are dropped.
    Closed,
    /// They pass it by.
    Open,
}

/// `[[classify]]`: sends new flows into a chain.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ClassifyRule {
    /// Where the packet came in; empty matches any.
    pub from: Vec<ClassifyScope>,
    /// What else to match. `from`/`to` prefixes are `from-prefix`/`to-prefix` in the file.
    pub matches: Match,
    /// The chain's name; `None` (`chain = "none"`) sends matching flows past all chains.
    pub chain: Option<String>,
}

/// A scope that a classifier rule names: `port.<name>`, `port.<name>.<vid>`, `tunnel.<name>`, `vrf.<name>`, `bridge.<name>`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, PartialOrd, Ord)]
pub enum ClassifyScope {
    /// An interface: a port, `<port>.<vid>` or a tunnel.
    Interface(String),
    /// All interfaces of a VRF.
    Vrf(String),
    /// All members of a bridge domain.
    Bridge(String),
}
