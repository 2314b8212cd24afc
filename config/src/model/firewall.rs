//! `[service.<name>.firewall]`: which new connections pass.

use serde::{Deserialize, Serialize};

use super::Match;

/// A stateful firewall.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Firewall {
    /// What becomes of a new connection that no rule matches.
    pub default: Action,
    /// Ordered rules, first match wins.
    pub rules: Vec<FirewallRule>,
    /// Whether a TCP connection may be picked up in mid-stream (a first packet without SYN).
    pub tcp_pickup: bool,
}

/// What a firewall does with a new connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Action {
    /// Let it pass and follow its session.
    Allow,
    /// Drop it silently.
    Deny,
    /// Answer with a TCP reset or an ICMP administratively-prohibited error.
    Reject,
}

/// One rule of a firewall.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FirewallRule {
    /// What to do.
    pub action: Action,
    /// What to match.
    pub matches: Match,
}
