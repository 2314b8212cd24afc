//! The lists of `weir show`, as tables.

use serde_json::Value;

use crate::cli::table::Align::{Left, Right};
use crate::cli::table::{Table, cell, items};

pub(super) fn ports(answer: &Value) -> String {
    let ports = &answer["ports"];
    let mut described = ports.clone();
    for port in described.as_array_mut().into_iter().flatten().filter(|port| port["numa"] == -1) {
        port["numa"] = Value::Null;
    }
    for port in described.as_array_mut().into_iter().flatten().filter(|port| port["ifindex"] == 0) {
        port["ifindex"] = Value::Null;
    }
    let mut text = Table::of(
        &described,
        &[
            ("PORT", Left, "name"),
            ("DEVICE", Left, "device"),
            ("MODE", Left, "mode"),
            ("STATE", Left, "state"),
            ("DRIVER", Left, "driver"),
            ("BACKEND", Left, "backend"),
            ("XDP", Left, "xdp"),
            ("IFINDEX", Right, "ifindex"),
            ("MAC", Left, "mac"),
            ("MTU", Right, "mtu"),
            ("NUMA", Right, "numa"),
            ("REBINDS", Right, "rebinds"),
        ],
    )
    .render("no ports");
    let traffic = traffic(ports);
    if !traffic.is_empty() {
        text += &format!("\n{}", traffic.render(""));
    }
    let queues = queues(ports);
    if !queues.is_empty() {
        text += &format!("\n{}", queues.render(""));
    }
    let places = places(ports);
    if !places.is_empty() {
        text += &format!("\n{}", places.render(""));
    }
    const SAID: [(&str, &str); 4] =
        [("Chosen", "why"), ("Not obtained", "refused"), ("Faster", "faster"), ("Warnings", "warnings")];
    for (title, key) in SAID {
        let said = said(ports, key);
        if !said.is_empty() {
            text += &format!("\n{title}:\n{said}");
        }
    }
    text
}

/// What is said of each port under a key, a line or several.
fn said(ports: &Value, key: &str) -> String {
    let lines = |port: &Value| -> Vec<String> {
        let all = port[key].as_array().cloned().unwrap_or_else(|| vec![port[key].clone()]);
        let texts = all.iter().filter_map(Value::as_str).filter(|text| !text.is_empty());
        texts.map(|text| format!("{}: {text}\n", cell(&port["name"]))).collect()
    };
    items(ports).iter().flat_map(lines).collect()
}

/// Where the devices that are PCI functions sit, and what their PF lets them do.
fn places(ports: &Value) -> Table {
    let mut table = Table::new(&[
        ("PORT", Left),
        ("PCI", Left),
        ("IOMMU-GROUP", Right),
        ("PF", Left),
        ("VF", Right),
        ("TRUST", Left),
        ("SPOOF-CHECK", Left),
        ("VLAN", Right),
    ]);
    let switch = |value: &Value| match value.as_bool() {
        Some(true) => "on".to_owned(),
        Some(false) => "off".to_owned(),
        None => cell(value),
    };
    for port in items(ports).iter().filter(|port| port["pci"].is_object()) {
        let (pci, vf) = (&port["pci"], &port["pci"]["vf"]);
        let pf = if vf["pf_device"].is_string() { &vf["pf_device"] } else { &vf["pf"] };
        table.row(vec![
            cell(&port["name"]),
            cell(&pci["address"]),
            cell(&pci["iommu_group"]),
            cell(pf),
            cell(&vf["number"]),
            switch(&vf["trust"]),
            switch(&vf["spoof_check"]),
            cell(&vf["vlan"]),
        ]);
    }
    table
}

/// What each port carried, over its queues, and what its XDP program left to the kernel.
fn traffic(ports: &Value) -> Table {
    const SUMMED: [(&str, &str); 5] = [
        ("RX-FRAMES", "rx_frames"),
        ("RX-BYTES", "rx_bytes"),
        ("TX-FRAMES", "tx_frames"),
        ("TX-BYTES", "tx_bytes"),
        ("MISSED", "rx_missed"),
    ];
    let mut columns = vec![("PORT", Left)];
    columns.extend(SUMMED.iter().map(|(title, _)| (*title, Right)));
    columns.extend([("TO-KERNEL", Right), ("NO-SOCKET", Right)]);
    let mut table = Table::new(&columns);
    for port in items(ports) {
        let sum =
            |key: &str| items(&port["queues"]).iter().filter_map(|queue| queue[key].as_u64()).sum::<u64>();
        let mut cells = vec![cell(&port["name"])];
        cells.extend(SUMMED.iter().map(|(_, key)| sum(key).to_string()));
        cells.extend([cell(&port["passed"]), cell(&port["no_socket"])]);
        table.row(cells);
    }
    table
}

fn queues(ports: &Value) -> Table {
    const COLUMNS: [(&str, &str); 9] = [
        ("QUEUE", "queue"),
        ("WORKER", "worker"),
        ("RX-FRAMES", "rx_frames"),
        ("RX-BYTES", "rx_bytes"),
        ("TX-FRAMES", "tx_frames"),
        ("TX-BYTES", "tx_bytes"),
        ("MISSED", "rx_missed"),
        ("INVALID", "invalid"),
        ("COPIES", "copies"),
    ];
    let mut columns = vec![("PORT", Left)];
    columns.extend(COLUMNS.iter().map(|(title, _)| (*title, Right)));
    let mut table = Table::new(&columns);
    for port in items(ports) {
        for queue in items(&port["queues"]) {
            let numbers = COLUMNS.iter().map(|(_, key)| cell(&queue[*key]));
            table.row(std::iter::once(cell(&port["name"])).chain(numbers));
        }
    }
    table
}

pub(super) fn workers(answer: &Value) -> String {
    let mut table = Table::new(&[
        ("WORKER", Right),
        ("CORE", Right),
        ("GENERATION", Right),
        ("LOOPS", Right),
        ("SLEEPS", Right),
        ("FLOWS", Right),
        ("CAPACITY", Right),
        ("HELD", Right),
        ("RECEIVED", Right),
        ("TRANSMITTED", Right),
        ("DROPPED", Right),
    ]);
    for worker in items(&answer["workers"]) {
        let counters = &worker["counters"];
        let dropped: u64 = counters["dropped"]
            .as_object()
            .map_or(0, |reasons| reasons.values().filter_map(Value::as_u64).sum());
        let own = ["worker", "core", "generation", "loops", "sleeps", "flows", "flow_capacity", "held"];
        let mut cells: Vec<String> = own.iter().map(|key| cell(&worker[*key])).collect();
        cells.extend([cell(&counters["received"]), cell(&counters["transmitted"]), dropped.to_string()]);
        table.row(cells);
    }
    table.render("no workers")
}

pub(super) fn routes(answer: &Value) -> String {
    let columns =
        [("VRF", Left, "vrf"), ("PREFIX", Left, "prefix"), ("ORIGIN", Left, "origin"), ("VIA", Left, "via")];
    Table::of(&answer["routes"], &columns).render("no routes")
}

pub(super) fn neighbours(answer: &Value) -> String {
    let columns = [
        ("INTERFACE", Left, "interface"),
        ("ADDRESS", Left, "ip"),
        ("MAC", Left, "mac"),
        ("STATE", Left, "state"),
        ("AGE/S", Right, "age"),
    ];
    Table::of(&answer["neighbours"], &columns).render("no neighbours")
}

pub(super) fn tunnels(answer: &Value) -> String {
    let columns = [
        ("TUNNEL", Left, "name"),
        ("LOCAL", Left, "local"),
        ("REMOTE", Left, "remote"),
        ("VNI", Right, "vni"),
        ("UDP-PORT", Right, "udp_port"),
        ("DOMAIN", Left, "domain"),
        ("MTU", Right, "mtu"),
        ("LEARNED-MTU", Right, "learned_mtu"),
        ("UNDERLAY", Left, "underlay"),
    ];
    Table::of(&answer["tunnels"], &columns).render("no tunnels")
}

pub(super) fn bridge(answer: &Value) -> String {
    let columns = [
        ("BRIDGE", Left, "bridge"),
        ("MAC", Left, "mac"),
        ("INTERFACE", Left, "interface"),
        ("REMOTE", Left, "remote"),
        ("AGE/S", Right, "age"),
    ];
    Table::of(&answer["macs"], &columns).render("no bridge entries")
}

pub(super) fn flows(answer: &Value, limit: usize) -> String {
    let columns = [
        ("WORKER", Right, "worker"),
        ("INTERFACE", Left, "interface"),
        ("PACKETS", Right, "packets"),
        ("BYTES", Right, "bytes"),
        ("IDLE/S", Right, "idle"),
        ("PROGRAM", Left, "program"),
        ("KEY", Left, "key"),
    ];
    let text = Table::of(&answer["flows"], &columns).render("no flows");
    text + &truncation(&answer["flows"], limit)
}

pub(super) fn sessions(answer: &Value, limit: usize) -> String {
    let columns = [
        ("DOMAIN", Left, "domain"),
        ("PROTOCOL", Left, "protocol"),
        ("SOURCE", Left, "source"),
        ("DESTINATION", Left, "destination"),
        ("STATE", Left, "state"),
        ("CHAIN", Left, "chain"),
        ("EXPIRES/S", Right, "expires"),
    ];
    let text = Table::of(&answer["sessions"], &columns).render("no sessions");
    text + &truncation(&answer["sessions"], limit)
}

pub(super) fn nat(answer: &Value, limit: usize) -> String {
    let columns = [
        ("VRF", Left, "vrf"),
        ("SERVICE", Left, "service"),
        ("PROTOCOL", Left, "protocol"),
        ("INSIDE", Left, "inside"),
        ("OUTSIDE", Left, "outside"),
        ("SESSIONS", Right, "sessions"),
    ];
    let bindings = Table::of(&answer["bindings"], &columns).render("no bindings");
    let columns = [
        ("VRF", Left, "vrf"),
        ("ADDRESS", Left, "address"),
        ("PROTOCOL", Left, "protocol"),
        ("PORTS-IN-USE", Right, "in_use"),
        ("RESTING", Right, "resting"),
    ];
    let addresses = Table::of(&answer["addresses"], &columns).render("no external address is in use");
    format!("{bindings}{}\n{addresses}", truncation(&answer["bindings"], limit))
}

/// Says that there may be more than what is shown.
fn truncation(list: &Value, limit: usize) -> String {
    if items(list).len() >= limit && limit > 0 {
        format!("only the first {limit} are shown; --limit gives more\n")
    } else {
        String::new()
    }
}

pub(super) fn chains(answer: &Value) -> String {
    let mut table = Table::new(&[
        ("CHAIN", Left),
        ("HOP", Left),
        ("KIND", Left),
        ("STATE", Left),
        ("INTERFACES", Left),
        ("DIRECTION", Left),
        ("OUT", Right),
        ("OUT-BYTES", Right),
        ("BACK", Right),
        ("BACK-BYTES", Right),
    ]);
    for chain in items(&answer["chains"]) {
        for hop in items(&chain["hops"]) {
            let own = [&chain["name"], &hop["name"], &hop["kind"], &hop["state"], &hop["attach"]].map(cell);
            let mut traffic = items(&hop["traffic"]).iter();
            let first = traffic.next().unwrap_or(&Value::Null);
            let keys = ["direction", "out_packets", "out_bytes", "back_packets", "back_bytes"];
            table.row(own.into_iter().chain(keys.map(|key| cell(&first[key]))));
            for more in traffic {
                let blank = std::iter::repeat_n(String::new(), 5);
                table.row(blank.chain(keys.map(|key| cell(&more[key]))));
            }
        }
    }
    table.render("no chains")
}

pub(super) fn pipeline(answer: &Value) -> String {
    let scopes = items(&answer["pipeline"]);
    if scopes.is_empty() {
        return "no scopes\n".to_owned();
    }
    let mut text = String::new();
    for scope in scopes {
        text += &format!(
            "{} ({})\n  flow key: {}\n",
            cell(&scope["interface"]),
            cell(&scope["domain"]),
            cell(&scope["key"])
        );
        for why in items(&scope["why"]) {
            text += &format!("    {}\n", cell(why));
        }
    }
    for rules in items(&answer["rules"]) {
        let kib = rules["bytes"].as_u64().unwrap_or(0).div_ceil(1024);
        text += &format!("{}: {} rules, {kib} KiB\n", cell(&rules["of"]), cell(&rules["rules"]));
        for family in items(&rules["families"]) {
            let (name, algorithm) = (cell(&family["family"]), cell(&family["algorithm"]));
            text += &format!("  {name}: {algorithm}: {}\n", cell(&family["why"]));
        }
    }
    text
}

pub(super) fn memory(answer: &Value) -> String {
    let mut table = Table::new(&[
        ("TABLE", Left),
        ("USED", Right),
        ("LIMIT", Right),
        ("USE", Right),
        ("MEMORY", Right),
        ("OF IT USED", Right),
        ("PAGES", Left),
    ]);
    for entry in items(&answer["tables"]) {
        let share = match (entry["used"].as_u64(), entry["limit"].as_u64()) {
            (Some(used), Some(limit)) if limit > 0 => format!("{} %", used.saturating_mul(100) / limit),
            _ => "-".to_owned(),
        };
        let limit = if entry["limit"] == 0 { "-".to_owned() } else { cell(&entry["limit"]) };
        let (memory, used) = (size(&entry["bytes"]), size(&entry["bytes_used"]));
        table.row([
            cell(&entry["table"]),
            cell(&entry["used"]),
            limit,
            share,
            memory,
            used,
            cell(&entry["pages"]),
        ]);
        for part in items(&entry["workers"]) {
            let (name, empty) = (format!("  worker {}", cell(&part["worker"])), String::new);
            table.row([name, cell(&part["used"]), empty(), empty(), size(&part["bytes"]), empty(), empty()]);
        }
    }
    let process = &answer["process"];
    let [resident, huge, transparent, available] =
        ["resident", "huge", "transparent", "available"].map(|key| size(&process[key]));
    table.render("no tables")
        + &format!(
            "process: {resident} resident, {transparent} of it in transparent huge pages; {huge} in reserved huge pages; \
             {available} more can be had\n"
        )
}

/// Bytes for people.
fn size(bytes: &Value) -> String {
    match bytes.as_u64() {
        None => "-".to_owned(),
        Some(bytes) if bytes >= 10 << 20 => format!("{} MiB", bytes >> 20),
        Some(bytes) => format!("{} KiB", bytes.div_ceil(1024)),
    }
}
