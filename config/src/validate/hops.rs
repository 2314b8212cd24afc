//! Attached hops: interfaces of their own, one place in one chain, and packets of one VRF.

use std::collections::BTreeMap;

use super::at;
use super::view::View;
use crate::codes;
use crate::model::{ClassifyScope, Config, Domain};
use crate::sink::{At, Sink, error, warning};

/// Interfaces of one hop: one arm or two.
const MAX_ARMS: usize = 2;

pub(super) fn validate(config: &Config, view: &View<'_>, sink: &mut Sink<'_>) {
    names(config, sink);
    interfaces(config, view, sink);
    places(config, sink);
    vrfs(config, view, sink);
    if !sink.has_errors() {
        for name in config.hops.keys().filter(|name| chains_with(config, name).next().is_none()) {
            let finding = warning(codes::UNUSED, format!("hop `{name}` is in no chain"));
            sink.report(&at!["hop", name], At::Key, finding);
        }
    }
}

/// Chains name services and hops alike.
fn names(config: &Config, sink: &mut Sink<'_>) {
    for name in config.hops.keys().filter(|name| config.services.contains_key(*name)) {
        let finding = error(codes::DUPLICATE_HOP, format!("`{name}` is both a service and a hop"))
            .also(&at!["service", name], At::Key, "the service")
            .hint("chains refer to both by name: give one of them another");
        sink.report(&at!["hop", name], At::Key, finding);
    }
}

/// The path of an interface of a hop: one may stand for itself, several stand in a list.
fn arm(hop: &str, index: usize, sink: &Sink<'_>) -> Vec<String> {
    let path = at!["hop", hop, "attach"];
    if sink.text_at(&path).is_some() { path } else { at!["hop", hop, "attach", index] }
}

/// Each interface serves one hop, and nothing else.
fn interfaces(config: &Config, view: &View<'_>, sink: &mut Sink<'_>) {
    let mut used: BTreeMap<&str, (&str, Vec<String>)> = BTreeMap::new();
    let in_order = sink.names("hop").into_iter();
    for (name, hop) in in_order.filter_map(|name| config.hops.get_key_value(name)) {
        let whole = at!["hop", name, "attach"];
        if sink.is_refused(&whole) {
            continue;
        }
        if hop.attach.len() > MAX_ARMS {
            let message = format!("a hop has one interface or two, and this one has {}", hop.attach.len());
            sink.report(&whole, At::Value, error(codes::OUT_OF_RANGE, message));
            continue;
        }
        for (index, end) in hop.attach.iter().enumerate() {
            let path = arm(name, index, sink);
            let Some(interface) = view.interface(end) else { continue };
            if let Some((other, first)) = used.get(end.as_str()) {
                let (message, hint) = if *other == name {
                    let hint =
                        format!("if all packets go out and come back by it, write `attach = \"{end}\"`");
                    (format!("hop `{name}` is attached to `{end}` twice"), hint)
                } else {
                    let hint = "a hop needs interfaces of its own: use VLANs of the port, or other ports";
                    (format!("`{end}` serves hop `{other}` already"), hint.to_owned())
                };
                let finding = error(codes::HOP_PORT, message)
                    .also(first, At::Value, "it is used here first")
                    .hint(hint);
                sink.report(&path, At::Value, finding);
                continue;
            }
            used.insert(end, (name, path.clone()));
            let (place, key) = match &interface.attachment.domain {
                Domain::Hop(_) => continue,
                Domain::Vrf(_) => (interface.at("vrf"), "`vrf`"),
                Domain::Bridge(_) => (interface.at("bridge"), "`bridge`"),
                Domain::CrossConnect(name) => (at!["cross-connect", name, "ends"], "the cross-connect"),
            };
            let message = format!("`{end}` is already in {}", interface.belongs());
            let finding = error(codes::HOP_PORT, message)
                .also(&place, At::Key, "it is put there here")
                .hint(format!("remove {key}: an interface of a hop belongs to nothing else"));
            sink.report(&path, At::Value, finding);
        }
    }
}

fn chains_with<'c>(config: &'c Config, hop: &'c str) -> impl Iterator<Item = (&'c String, usize)> {
    config.chains.iter().filter_map(move |(name, chain)| {
        chain.hops.iter().position(|other| other == hop).map(|index| (name, index))
    })
}

/// What comes back from a hop has only its interface to say where it goes on: one chain, one place.
fn places(config: &Config, sink: &mut Sink<'_>) {
    for hop in config.hops.keys() {
        let mut places = chains_with(config, hop);
        let Some((first, index)) = places.next() else { continue };
        for (chain, other) in places {
            let message = format!("hop `{hop}` is in two chains, `{first}` and `{chain}`");
            let finding = error(codes::HOP_IN_TWO_CHAINS, message)
                .also(&at!["chain", first, "hops", index], At::Value, "it is here too")
                .hint("what comes back must be told apart: define a second hop, on VLANs of its ports or on other ports");
            sink.report(&at!["chain", chain, "hops", other], At::Value, finding);
        }
    }
}

/// What comes back from a hop is routed in the VRF that it came from: there can be only one.
fn vrfs(config: &Config, view: &View<'_>, sink: &mut Sink<'_>) {
    let mut known: BTreeMap<&str, (Domain, Vec<String>)> = BTreeMap::new();
    for (index, rule) in config.classify.iter().enumerate() {
        let path = match sink.exists(&at!["classify", index, "from"]) {
            true => at!["classify", index, "from"],
            false => at!["classify", index],
        };
        if sink.is_refused(&at!["classify", index]) || view.doubtful {
            continue;
        }
        let hop_of = |name: &&ClassifyScope| match name {
            ClassifyScope::Interface(name) => {
                let domain = view.interface(name).map(|interface| &interface.attachment.domain);
                domain.is_some_and(|domain| matches!(domain, Domain::Hop(_)))
            }
            _ => false,
        };
        if let Some(ClassifyScope::Interface(name)) = rule.from.iter().find(hop_of) {
            let message = format!("`{name}` serves a hop: what comes in by it is never classified");
            let finding = error(codes::HOP_OUTSIDE_VRF, message)
                .hint("it goes on in the chain that it was sent out of: name the interface that the chain begins at");
            sink.report(&path, At::Value, finding);
            continue;
        }
        let Some((chain, hops)) = rule.chain.as_ref().and_then(|name| config.chains.get_key_value(name))
        else {
            continue;
        };
        let Some(hop) = hops.hops.iter().find(|hop| config.hops.contains_key(*hop)) else { continue };
        for domain in config.domains_of(rule) {
            let told = match &domain {
                Domain::Vrf(name) => format!("VRF `{name}`"),
                Domain::Bridge(name) => format!("bridge `{name}`"),
                Domain::CrossConnect(name) => format!("cross-connect `{name}`"),
                Domain::Hop(_) => continue,
            };
            let routed = matches!(domain, Domain::Vrf(_));
            let (other, first) = known.entry(chain).or_insert_with(|| (domain.clone(), path.clone()));
            let finding = if !routed {
                let message =
                    format!("packets of {told} cannot take chain `{chain}`: `{hop}` is an attached hop");
                error(codes::HOP_OUTSIDE_VRF, message)
                    .hint("only routed packets do: name interfaces of one VRF in `from`")
            } else if *other != domain {
                let message = format!(
                    "packets of {told} too are sent into chain `{chain}`, in which `{hop}` is an attached hop"
                );
                let finding = error(codes::HOP_OUTSIDE_VRF, message)
                    .hint("what comes back from the hop goes on in one VRF: name interfaces of one in `from`, or make a chain with a hop of its own for the other");
                if *first == path {
                    finding
                } else {
                    finding.also(first, At::Value, "those of another are sent there here")
                }
            } else {
                continue;
            };
            sink.report(&path, At::Value, finding);
            break;
        }
    }
}
