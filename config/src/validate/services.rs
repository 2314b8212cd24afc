//! Service functions, chains and the classifier.

use std::collections::BTreeSet;

use super::at;
use super::rules::{self, Keys};
use crate::codes;
use crate::model::{Action, ClassifyRule, Config, Firewall, Match, Policer, Rate, Service};
use crate::sink::{At, Sink, error, warning};
use crate::text::{self, Burst};

/// Meters that a program has room for.
const MAX_POLICERS: usize = 4;

/// Bytes of a full-sized packet.
const FULL_PACKET: u64 = 1500;

pub(super) fn validate(config: &Config, sink: &mut Sink<'_>) {
    for (name, service) in &config.services {
        match service {
            Service::Firewall(rules) => firewall(name, rules, sink),
            Service::Policer(rules) => policer(name, rules, sink),
            // Its addresses are compared with those of interfaces: see `super::nat`.
            Service::Nat(_) => {}
        }
    }
    chains(config, sink);
    classifier(&config.classify, sink);
    // With errors elsewhere, the use may be what is misspelt.
    if !sink.has_errors() {
        unused(config, sink);
    }
}

fn firewall(name: &str, firewall: &Firewall, sink: &mut Sink<'_>) {
    let mut all: Option<Vec<String>> = None;
    for (index, rule) in firewall.rules.iter().enumerate() {
        let path = at!["service", name, "firewall", "rules", index];
        let protocol = match rule.action {
            Action::Allow => "allow",
            Action::Deny => "deny",
            Action::Reject => "reject",
        };
        rules::validate(&rule.matches, &Keys { protocol, from: "from", to: "to" }, &path, sink);
        reachable(&mut all, &rule.matches, true, &path, sink);
    }
}

/// Warns about a rule behind one that matches everything.
pub(super) fn reachable(
    all: &mut Option<Vec<String>>,
    matches: &Match,
    any_scope: bool,
    path: &[String],
    sink: &mut Sink<'_>,
) {
    if sink.is_refused(path) {
        return;
    }
    if let Some(first) = all {
        let finding =
            warning(codes::UNREACHABLE_RULE, "this rule is never asked: one before it matches everything")
                .also(first, At::Value, "this rule matches everything")
                .hint("move it up, or remove it");
        sink.report(path, At::Value, finding);
    } else if any_scope && *matches == Match::default() {
        *all = Some(path.to_vec());
    }
}

fn policer(name: &str, policer: &Policer, sink: &mut Sink<'_>) {
    let mut all: Option<Vec<String>> = None;
    for (index, rule) in policer.rules.iter().enumerate() {
        let path = at!["service", name, "policer", "rules", index];
        rules::validate(&rule.matches, &Keys { protocol: "protocol", from: "from", to: "to" }, &path, sink);
        reachable(&mut all, &rule.matches, true, &path, sink);
        let at = [path.as_slice(), &at!["burst"]].concat();
        if sink.is_refused(&path) || !sink.exists(&at) {
            continue;
        }
        let written = sink.text_at(&at).and_then(|text| text::burst(text).ok());
        let mismatch = match (rule.rate, written) {
            (Rate::BitsPerSecond(_), Some(Burst::Packets(_))) => Some(("bits", "bytes, such as \"64KB\"")),
            (Rate::PacketsPerSecond(_), Some(Burst::Bytes(_))) => {
                Some(("packets", "packets, such as \"100 packets\""))
            }
            _ => None,
        };
        if let Some((unit, wanted)) = mismatch {
            let finding = error(codes::BURST_UNIT, format!("the rate is in {unit}, and the burst is not"))
                .also(&[path.as_slice(), &at!["rate"]].concat(), At::Value, "the rate")
                .hint(format!("give the burst in {wanted}"));
            sink.report(&at, At::Value, finding);
        } else if matches!(rule.rate, Rate::BitsPerSecond(_)) && rule.burst < FULL_PACKET {
            let message = format!("a packet of more than {} bytes never passes this policer", rule.burst);
            let finding = warning(codes::BURST_TOO_SMALL, message)
                .hint("give at least the MTU, better several times it");
            sink.report(&at, At::Value, finding);
        }
    }
}

fn chains(config: &Config, sink: &mut Sink<'_>) {
    for (name, chain) in &config.chains {
        let hops = at!["chain", name, "hops"];
        if sink.is_refused(&hops) {
            continue;
        }
        for (index, hop) in chain.hops.iter().enumerate() {
            if let Some(first) =
                chain.hops.iter().position(|other| other == hop).filter(|first| *first < index)
            {
                let finding = error(codes::REPEATED_HOP, format!("`{hop}` is in this chain twice"))
                    .also(&at!["chain", name, "hops", first], At::Value, "it is here first")
                    .hint(if config.hops.contains_key(hop) {
                        "define a second hop with another name, on VLANs of its ports or on other ports"
                    } else {
                        "define a second service with another name"
                    });
                sink.report(&at!["chain", name, "hops", index], At::Value, finding);
            }
        }
        let policers = chain
            .hops
            .iter()
            .filter(|hop| matches!(config.services.get(*hop), Some(Service::Policer(_))))
            .count();
        if policers > MAX_POLICERS {
            let message = format!("this chain has {policers} policers, at most {MAX_POLICERS} are possible");
            let finding = error(codes::TOO_MANY_POLICERS, message)
                .hint("one policer can have many rules: join them, or split the chain");
            sink.report(&hops, At::Value, finding);
        }
    }
}

fn classifier(classify: &[ClassifyRule], sink: &mut Sink<'_>) {
    let mut all: Option<Vec<String>> = None;
    for (index, rule) in classify.iter().enumerate() {
        let path = at!["classify", index];
        let keys = Keys { protocol: "protocol", from: "from-prefix", to: "to-prefix" };
        rules::validate(&rule.matches, &keys, &path, sink);
        reachable(&mut all, &rule.matches, rule.from.is_empty(), &path, sink);
    }
}

fn unused(config: &Config, sink: &mut Sink<'_>) {
    let hops: BTreeSet<&String> = config.chains.values().flat_map(|chain| &chain.hops).collect();
    for name in config.services.keys().filter(|name| !hops.contains(name)) {
        let finding = warning(codes::UNUSED, format!("service `{name}` is in no chain"));
        sink.report(&at!["service", name], At::Key, finding);
    }
    let chosen: BTreeSet<&String> = config.classify.iter().filter_map(|rule| rule.chain.as_ref()).collect();
    for name in config.chains.keys().filter(|name| !chosen.contains(name)) {
        let finding =
            warning(codes::UNUSED, format!("no classifier rule sends anything into chain `{name}`"));
        sink.report(&at!["chain", name], At::Key, finding);
    }
}
