//! The one description of the file: every section and key with its type, default and meaning.
//!
//! It drives the check of shapes ([`crate::check`]), the JSON Schema and the tables of
//! `docs/configuration.md`, so that the three cannot say different things.

mod json;
mod keys;
mod manual;
mod markdown;
mod nat;
mod sections;
mod services;
#[cfg(test)]
mod tests;

pub use json::schema;
pub use manual::manual;
pub use markdown::reference;
pub(crate) use sections::ROOT;

/// A table of the file.
pub(crate) struct Table {
    /// As it is written: `[port.<name>]`.
    pub(crate) title: &'static str,
    /// What it is for.
    pub(crate) doc: &'static str,
    /// Its keys, in the order of the documentation.
    pub(crate) keys: &'static [Key],
    /// What must hold between its keys.
    pub(crate) rules: &'static [Rule],
}

/// One key.
pub(crate) struct Key {
    pub(crate) name: &'static str,
    pub(crate) kind: Kind,
    pub(crate) need: Need,
    /// What it says; Markdown, in sentences.
    pub(crate) doc: &'static str,
}

/// What holds if a key is absent.
pub(crate) enum Need {
    /// It must be given (or, where a [`Rule`] names it, one of its group).
    Required,
    /// It stands for this value, written as in TOML.
    Default(&'static str),
    /// What its absence means.
    Optional(&'static str),
}

/// What must hold between keys of one table.
pub(crate) enum Rule {
    /// At least one of these must be given.
    AtLeastOne(&'static [&'static str]),
    /// At most one of these may be given.
    AtMostOne(&'static [&'static str]),
}

/// What a key takes.
pub(crate) enum Kind {
    Boolean,
    /// Only `true`.
    True,
    Integer {
        min: i64,
        max: i64,
    },
    /// One of these integers.
    Choice(&'static [i64]),
    /// One of these words.
    Word(&'static [&'static str]),
    /// A text of this form.
    Text(Form),
    /// The name of something else in the file.
    Ref(Ref),
    /// Any of these; they differ in type.
    Either(&'static [Self]),
    List {
        of: &'static Self,
        min: usize,
        max: usize,
    },
    /// One, or a list of at least one.
    OneOrMany(&'static Self),
    Table(&'static Table),
    /// A table of tables, by names.
    Named(Names, &'static Table),
    /// An array of tables.
    Records(&'static Table),
}

/// What the names of a table of tables are.
#[derive(Clone, Copy)]
pub(crate) enum Names {
    /// Names, but none of these.
    Except(&'static [&'static str]),
    /// VLAN identifiers: 1 to 4094.
    VlanId,
    /// Names or labels of nodes. Their tables are parts of a configuration, to be laid over the rest.
    Node,
}

/// The form of a text.
#[derive(Clone, Copy)]
pub(crate) enum Form {
    Ip,
    Ipv4,
    Pool,
    Address,
    Prefix,
    Mac,
    Device,
    Uuid,
    Duration,
    Rate,
    Burst,
    PortRange,
    Protocol,
    Dscp,
    TcpFlags,
}

/// What a reference may name.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ref {
    Vrf,
    Bridge,
    Tunnel,
    /// A service or an attached hop.
    Hop,
    /// A port or `<port>.<vid>`.
    Attachment,
    /// A chain, or `none`.
    Chain,
    /// A port, `<port>.<vid>` or a tunnel.
    Interface,
    /// `port.<name>`, `port.<name>.<vid>`, `tunnel.<name>`, `vrf.<name>` or `bridge.<name>`.
    Scope,
}

/// A table under which keys of the file stand, with its place in the documentation: all tables, outermost first.
pub(crate) fn tables() -> Vec<&'static Table> {
    let mut found = Vec::new();
    collect(&ROOT, &mut found);
    found
}

fn collect(table: &'static Table, found: &mut Vec<&'static Table>) {
    if found.iter().any(|known| std::ptr::eq(*known, table)) {
        return;
    }
    found.push(table);
    for key in table.keys {
        if let Some(inner) = key.kind.table() {
            collect(inner, found);
        }
    }
}

impl Kind {
    /// The table inside this kind, if there is one.
    pub(crate) fn table(&self) -> Option<&'static Table> {
        match self {
            Self::Table(table) | Self::Named(_, table) | Self::Records(table) => Some(table),
            Self::List { of, .. } | Self::OneOrMany(of) => of.table(),
            _ => None,
        }
    }

    /// The type in words, with its article.
    pub(crate) fn describe(&self) -> String {
        match self {
            Self::Boolean => "true or false".to_owned(),
            Self::True => "true".to_owned(),
            Self::Integer { min, max } => format!("an integer from {min} to {max}"),
            Self::Choice(numbers) => numbers.iter().map(i64::to_string).collect::<Vec<_>>().join(" or "),
            Self::Word(words) => {
                words.iter().map(|word| format!("\"{word}\"")).collect::<Vec<_>>().join(" or ")
            }
            Self::Text(form) => form.describe().to_owned(),
            Self::Ref(to) => to.describe().to_owned(),
            Self::Either(kinds) => kinds.iter().map(Self::describe).collect::<Vec<_>>().join(", or "),
            Self::List { of, min, max } if min == max => format!("a list of {min}: {}", of.describe()),
            Self::List { of, .. } => format!("a list, each {}", of.describe()),
            Self::OneOrMany(of) => format!("{}, or a list of those", of.describe()),
            Self::Table(table) => format!("a table ({})", table.title),
            Self::Named(_, table) => format!("tables by name ({})", table.title),
            Self::Records(table) => format!("an array of tables ({})", table.title),
        }
    }
}

impl Form {
    pub(crate) fn describe(self) -> &'static str {
        match self {
            Self::Ip => "an IP address such as \"10.1.0.9\"",
            Self::Ipv4 => "an IPv4 address such as \"10.1.0.9\"",
            Self::Pool => {
                "an IPv4 address, prefix or range such as \"203.0.113.7\", \"203.0.113.0/28\" or \"203.0.113.7-203.0.113.9\", or \"masquerade\" or \"none\""
            }
            Self::Address => "an address with its prefix length such as \"10.1.0.1/24\"",
            Self::Prefix => "a prefix such as \"10.2.0.0/16\"",
            Self::Mac => "a MAC address such as \"02:00:00:00:01:09\"",
            Self::Device => {
                "a device such as \"eth1\", \"pci:0000:3b:02.1\", \"env:PCIDEVICE_INTEL_COM_SRIOV[0]\" or \"vdev:net_memif0,id=1\""
            }
            Self::Uuid => "a UUID such as \"3b6ff2a5-77c0-4b16-8b1e-2f6c4f2a9d10\"",
            Self::Duration => "a time such as \"300s\"",
            Self::Rate => "a rate such as \"10Mbit/s\" or \"1000pps\"",
            Self::Burst => "a burst such as \"64KB\" or \"100 packets\"",
            Self::PortRange => "a range of ports such as \"1000-2000\"",
            Self::Protocol => "\"tcp\", \"udp\", \"icmp\", \"icmp6\", \"sctp\", \"gre\", \"esp\" or \"any\"",
            Self::Dscp => "a DSCP name such as \"ef\" or \"af11\"",
            Self::TcpFlags => "TCP flags such as \"syn,!ack\"",
        }
    }
}

impl Ref {
    pub(crate) fn describe(self) -> &'static str {
        match self {
            Self::Vrf => "the name of a VRF",
            Self::Bridge => "the name of a bridge",
            Self::Tunnel => "the name of a tunnel",
            Self::Hop => "the name of a service or a hop",
            Self::Attachment => "a port or \"<port>.<vid>\"",
            Self::Chain => "the name of a chain, or \"none\"",
            Self::Interface => "an interface: a port, \"<port>.<vid>\" or a tunnel",
            Self::Scope => {
                "a scope: \"port.<name>\", \"port.<name>.<vid>\", \"tunnel.<name>\", \"vrf.<name>\" or \"bridge.<name>\""
            }
        }
    }
}
