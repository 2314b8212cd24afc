//! One file for many nodes: how `[node]` sections are laid over the rest, and how their errors are told.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::BTreeMap;

use weir_config::{Identity, Loaded, load_json_for, load_str, load_str_everywhere, load_str_for};

const FILE: &str = r#"[port.uplink]
device = "eth1"
addresses = ["192.0.2.1/24"]
mode = "dedicated"

[[vrf.default.route]]
prefix = "10.0.0.0/8"
via = { ip = "192.0.2.254" }

[node."rack=west".memory]
frames = 2048

[node."rack=west".port.uplink]
mtu = 1400

[node.worker-1.port.uplink]
device = "env:PCIDEVICE_INTEL_COM_SRIOV[0]"
addresses = ["192.0.2.11/24"]
mtu = 1450

[[node.worker-1.vrf.default.route]]
prefix = "172.16.0.0/12"
via = { ip = "192.0.2.253" }

[node."worker-2.example.com".port.extra]
device = "eth2"
mode = "dedicated"
addresses = ["198.51.100.1/24"]
"#;

fn identity(name: &str, labels: &[(&str, &str)]) -> Identity {
    let labels: BTreeMap<String, String> =
        labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    Identity { name: Some(name.to_owned()).filter(|name| !name.is_empty()), labels }
}

fn load(text: &str, identity: &Identity) -> Loaded {
    load_str_for("weir.toml", text, identity).unwrap_or_else(|error| panic!("{error}"))
}

#[test]
fn a_section_is_laid_over_the_rest_of_the_file_on_its_node_only() {
    let there = load(FILE, &identity("worker-1", &[])).config;
    let port = &there.ports["uplink"];
    assert_eq!(port.device.as_deref(), Some("env:PCIDEVICE_INTEL_COM_SRIOV[0]"));
    assert_eq!(port.attachment.addresses, ["192.0.2.11/24".parse().unwrap()], "a list is replaced");
    assert_eq!(port.mode, weir_config::PortMode::Dedicated, "what a section does not name stays");
    let prefixes: Vec<String> =
        there.vrfs["default"].routes.iter().map(|route| route.prefix.to_string()).collect();
    assert_eq!(prefixes, ["10.0.0.0/8", "172.16.0.0/12"], "arrays of tables are appended");

    let elsewhere = load(FILE, &identity("worker-9", &[])).config;
    assert_eq!(elsewhere.ports["uplink"].device.as_deref(), Some("eth1"));
    assert_eq!((elsewhere.ports.len(), elsewhere.vrfs["default"].routes.len()), (1, 1));
    assert_eq!(load(FILE, &identity("worker-2.example.com", &[])).config.ports.len(), 2);
}

#[test]
fn the_section_of_a_name_goes_over_those_of_labels_wherever_they_stand() {
    let both = load(FILE, &identity("worker-1", &[("rack", "west")])).config;
    assert_eq!((both.ports["uplink"].mtu, both.memory.frames), (Some(1450), 2048));
    let label = load(FILE, &identity("worker-9", &[("rack", "west"), ("role", "router")])).config;
    assert_eq!(label.ports["uplink"].mtu, Some(1400));
    let other = load(FILE, &identity("worker-9", &[("rack", "east")])).config;
    assert_eq!(other.ports["uplink"].mtu, None);
}

#[test]
fn a_file_without_sections_is_the_same_everywhere() {
    let text = FILE.split("[node").next().unwrap();
    assert_eq!(load(text, &identity("worker-1", &[])), load_str("weir.toml", text).unwrap());
    assert_eq!(load_str_everywhere("weir.toml", text), load_str("weir.toml", text));
}

#[test]
fn who_does_not_say_which_node_it_is_is_told_so() {
    let loaded = load_str("weir.toml", FILE).unwrap();
    assert_eq!(loaded.config.ports["uplink"].device.as_deref(), Some("eth1"));
    let text = loaded.warnings[0].to_string();
    assert!(text.starts_with("weir.toml:10:2: warning[node-unknown]: weir was not told"), "{text}");
    assert!(load(FILE, &identity("worker-9", &[])).warnings.is_empty());
}

#[test]
fn an_error_in_a_section_points_into_the_section() {
    let text = FILE.replace("mtu = 1450", "mtu = 50");
    let error = load_str_for("weir.toml", &text, &identity("worker-1", &[])).unwrap_err();
    let places: Vec<_> = error.iter().map(|d| (d.line, d.column, d.code, d.pointer.as_str())).collect();
    assert!(places.contains(&(19, 7, "out-of-range", "/port/uplink/mtu")), "{places:?}");
    assert!(places.iter().all(|place| place.0 == 19), "{places:?}");
}

#[test]
fn keys_and_types_of_other_nodes_sections_are_checked_and_their_references_are_not() {
    let text = FILE.replace("mtu = 1450", "mtuu = 1450");
    let error = load_str_for("weir.toml", &text, &identity("worker-9", &[])).unwrap_err().to_string();
    assert!(error.starts_with("weir.toml:19:1: error[unknown-key]: there is no key `mtuu`"), "{error}");
    assert!(error.contains("did you mean `mtu`?"), "{error}");

    // A VRF that only another node has, and a neighbour's port that is only there.
    let more =
        "[node.worker-3.port.uplink]\nvrf = \"red\"\n[[node.worker-3.neighbour]]\nport = \"nowhere\"\n";
    let text = format!("{FILE}{more}");
    load(&text, &identity("worker-9", &[]));
    let error = load_str_for("weir.toml", &text, &identity("worker-3", &[])).unwrap_err().to_string();
    assert!(error.contains("there is no VRF `red`") && error.contains("needs the key `ip`"), "{error}");
}

#[test]
fn a_check_for_all_nodes_names_those_that_an_error_is_on() {
    let text = format!("{FILE}[node.worker-3.port.uplink]\nvrf = \"red\"\n");
    let error = load_str_everywhere("weir.toml", &text).unwrap_err().to_string();
    assert!(
        error.contains("weir.toml:30:7: error[unknown-reference]: there is no VRF `red` (on `worker-3`)"),
        "{error}"
    );

    // What is wrong for all is said once and without names.
    let text = FILE.replace("mode = \"dedicated\"\n\n", "mode = \"dedicatd\"\n\n");
    let error = load_str_everywhere("weir.toml", &text).unwrap_err().to_string();
    assert_eq!(error.matches("did you mean \"dedicated\"?").count(), 1, "{error}");
    assert!(!error.contains("(on "), "{error}");
}

#[test]
fn a_part_that_only_nodes_complete_is_valid_and_said() {
    let text = "[tunnel.t.vxlan]\nremote = \"192.0.2.2\"\nvni = 5\n\n[node.a.tunnel.t.vxlan]\nlocal = \"192.0.2.1\"\n";
    load(text, &identity("a", &[]));
    let warnings = load_str_everywhere("weir.toml", text).unwrap().warnings;
    let text: Vec<String> = warnings.iter().map(ToString::to_string).collect();
    assert!(
        text.iter().any(|line| line
            .contains("warning[other-nodes]: a node that no section is for would refuse this file: 1 error")),
        "{text:?}"
    );
}

#[test]
fn a_section_needs_a_name_or_a_label() {
    let error = load_str("weir.toml", "[node.\"a b\"]\n").unwrap_err().to_string();
    assert!(
        error.contains("weir.toml:1:7: error[bad-name]: `a b` is neither the name nor a label"),
        "{error}"
    );
    let error = load_str("weir.toml", "[node]\na = 5\n").unwrap_err().to_string();
    assert!(error.contains("weir.toml:2:5: error[wrong-type]"), "{error}");
    let error = load_str("weir.toml", "[node.a.node.b]\n").unwrap_err().to_string();
    assert!(error.contains("there is no key `node`"), "{error}");
}

#[test]
fn json_has_sections_too() {
    let text = r#"{"memory": {"frames": 4096}, "node": {"a": {"memory": {"frames": 8192}}}}"#;
    let loaded = load_json_for("json", text, &identity("a", &[])).unwrap();
    assert_eq!(loaded.config.memory.frames, 8192);
}

#[test]
fn a_device_plugins_program_is_for_dedicated_ports() {
    let text = "[port.a]\ndevice = \"env:AFXDP_DEVICES_POOL[0]\"\nxsk-map = \"plugin\"\n";
    let error = load_str("weir.toml", text).unwrap_err().to_string();
    assert!(error.contains("weir.toml:3:11: error[conflicting-keys]"), "{error}");
    let loaded = load_str("weir.toml", &format!("{text}mode = \"dedicated\"\nxdp = \"generic\"\n")).unwrap();
    assert_eq!(loaded.config.ports["a"].xsk_map, weir_config::XskMap::Plugin);
    assert!(loaded.warnings.iter().any(|d| d.code == "ignored-key" && d.line == 5), "{:?}", loaded.warnings);
}

#[test]
fn a_virtual_device_is_for_dedicated_ports() {
    let text = "[port.a]\ndevice = \"vdev:net_memif0,role=server,id=1\"\n";
    let error = load_str("weir.toml", text).unwrap_err().to_string();
    assert!(error.contains("weir.toml:2:10: error[conflicting-keys]"), "{error}");
    let text = format!("{text}mode = \"dedicated\"\nqueues = 2\nxdp = \"native\"\n");
    let loaded = load_str("weir.toml", &text).unwrap();
    assert_eq!(loaded.config.ports["a"].queues, Some(2));
    assert!(loaded.warnings.iter().any(|d| d.code == "ignored-key" && d.line == 5), "{:?}", loaded.warnings);
}

#[test]
fn the_two_ends_of_a_memif_are_not_both_ours() {
    let ports = |first: &str, second: &str| {
        let port = |name: &str, arguments: &str| {
            format!("[port.{name}]\ndevice = \"vdev:net_memif{arguments}\"\nmode = \"dedicated\"\n")
        };
        load_str("weir.toml", &(port("b", first) + &port("a", second)))
    };
    let error = ports("0,role=server,socket=/a", "1,id=0,socket=/a").unwrap_err().to_string();
    let place = "weir.toml:5:10: error[conflicting-keys]: ports `b` and `a` are the two ends of memif `/a`";
    assert!(error.contains(place), "{error}");
    assert!(error.contains("weir.toml:2:10: the other end"), "{error}");
    let error = ports("0", "1,role=master").unwrap_err().to_string();
    assert!(error.contains("the two ends of memif `/run/memif.sock`"), "{error}");
    for (first, second) in [
        ("0,role=server,id=0,socket=/a", "1,role=server,id=1,socket=/a"),
        ("0,role=client,id=0,socket=/a", "1,role=client,id=1,socket=/a"),
        ("0,role=server,socket=/a", "1,role=client,socket=/b"),
        ("0,role=server,socket=/a", "1,role=client,socket=/a,socket-abstract=no"),
    ] {
        assert!(ports(first, second).is_ok(), "{first} {second}");
    }
}

#[test]
fn the_queues_of_a_network_device_are_not_chosen_here() {
    let loaded = load_str("weir.toml", "[port.a]\ndevice = \"eth1\"\nqueues = 4\n").unwrap();
    let warning = loaded.warnings.iter().find(|d| d.line == 3).unwrap();
    assert!(warning.code == "ignored-key" && warning.message.contains("`ethtool -L`"), "{warning:?}");
    let error = load_str("weir.toml", "[port.a]\ndevice = \"pci:0000:01:10.0\"\nvfio-token = \"x\"\n");
    let error = error.unwrap_err().to_string();
    assert!(error.contains("weir.toml:3:14: error[bad-value]: `x` is not a UUID"), "{error}");
}
