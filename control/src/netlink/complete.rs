//! What a configuration leaves to the kernel: the addresses of shared ports.
//!
//! A shared port without `addresses` has those that the kernel gave its device, so that routes to the underlay and the
//! local VTEP address are known. Default routes and gateways of the kernel are not taken over: weir routes only as
//! configured.

use ipnet::IpNet;
use weir_config::{Attachment, Config, Domain, Port, PortMode};

use super::View;

/// Fills in the addresses of shared ports (and of their VLANs, from the kernel's VLAN devices) that have none.
pub fn complete(config: &mut Config, kernel: &View) {
    for port in config.ports.values_mut() {
        let Some(device) = shared_device(port).map(str::to_owned) else { continue };
        fill(&mut port.attachment, || kernel.addresses(&device));
        for (vid, attachment) in &mut port.vlans {
            fill(attachment, || {
                kernel.vlan_device(&device, *vid).map(|d| kernel.addresses(d)).unwrap_or_default()
            });
        }
    }
}

fn fill(attachment: &mut Attachment, addresses: impl FnOnce() -> Vec<IpNet>) {
    if matches!(attachment.domain, Domain::Vrf(_)) && attachment.addresses.is_empty() {
        attachment.addresses = addresses();
    }
}

/// The device of a shared port.
fn shared_device(port: &Port) -> Option<&str> {
    port.device.as_deref().filter(|_| port.mode == PortMode::Shared)
}

/// The interfaces (`<port>` or `<port>.<vid>`) of shared ports that a kernel device stands behind.
pub fn interfaces_of(config: &Config, kernel: &View, device: &str) -> Vec<String> {
    let mut interfaces = Vec::new();
    for (name, port) in &config.ports {
        let Some(below) = shared_device(port) else { continue };
        if below == device {
            interfaces.push(name.clone());
        }
        let vlans = port.vlans.keys().filter(|vid| kernel.vlan_device(below, **vid) == Some(device));
        interfaces.extend(vlans.map(|vid| format!("{name}.{vid}")));
    }
    interfaces
}

/// The kernel devices behind the interfaces of shared ports, each with its interface.
pub fn interface_device(config: &Config, kernel: &View) -> Vec<(String, String)> {
    let mut pairs = Vec::new();
    for (name, port) in &config.ports {
        let Some(device) = shared_device(port) else { continue };
        pairs.push((name.clone(), device.to_owned()));
        for vid in port.vlans.keys() {
            if let Some(above) = kernel.vlan_device(device, *vid) {
                pairs.push((format!("{name}.{vid}"), above.to_owned()));
            }
        }
    }
    pairs
}
