//! Static neighbours.

use std::collections::HashMap;

use super::at;
use super::view::View;
use crate::codes;
use crate::model::Config;
use crate::sink::{At, Sink, error};

pub(super) fn validate(config: &Config, view: &View<'_>, sink: &mut Sink<'_>) {
    let mut first = HashMap::new();
    for (index, neighbour) in config.neighbours.iter().enumerate() {
        let at = |key: &str| at!["neighbour", index, key];
        if !sink.is_sound(&at("port")) || !sink.is_sound(&at("ip")) {
            continue;
        }
        if let Some(other) = first.insert((&neighbour.interface, neighbour.ip), index) {
            let message = format!("neighbour `{}` on `{}` is given twice", neighbour.ip, neighbour.interface);
            let finding = error(codes::DUPLICATE_NEIGHBOUR, message).also(
                &at!["neighbour", other, "ip"],
                At::Value,
                "it is given here first",
            );
            sink.report(&at("ip"), At::Value, finding);
            continue;
        }
        if neighbour.ip.is_multicast() || neighbour.ip.is_unspecified() || neighbour.ip.is_loopback() {
            let message = format!("`{}` cannot be a neighbour's address", neighbour.ip);
            sink.report(&at("ip"), At::Value, error(codes::BAD_ADDRESS, message));
            continue;
        }
        let Some(interface) = view.interface(&neighbour.interface).filter(|i| !i.doubtful) else { continue };
        if interface.vrf().is_none() {
            let message =
                format!("`{}` is in {}, where there are no neighbours", interface.name, interface.belongs());
            sink.report(
                &at("port"),
                At::Value,
                error(codes::WRONG_VRF, message).hint("only interfaces in a VRF have neighbours"),
            );
        } else if interface.attachment.addresses.iter().any(|address| address.addr() == neighbour.ip) {
            let message = format!("`{}` is the own address of `{}`", neighbour.ip, interface.name);
            sink.report(&at("ip"), At::Value, error(codes::NEIGHBOUR_NOT_CONNECTED, message));
        } else if !interface.kernel_addresses && !interface.covers(neighbour.ip) {
            let message = format!("`{}` is on no subnet of `{}`", neighbour.ip, interface.name);
            let list: Vec<_> =
                interface.attachment.addresses.iter().map(|a| format!("`{}`", a.trunc())).collect();
            let hint = if list.is_empty() {
                format!("`{}` has no addresses", interface.name)
            } else {
                format!("its subnets are {}", list.join(", "))
            };
            sink.report(&at("ip"), At::Value, error(codes::NEIGHBOUR_NOT_CONNECTED, message).hint(hint));
        }
    }
}
