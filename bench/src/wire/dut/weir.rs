//! weir: its binary, with a configuration made for the purpose.

use std::process::Command;

use super::{SINK, Setting, Started, await_ready};
use crate::wire::lab::{self, Namespace};

pub(super) fn start(
    setting: &Setting,
    namespace: &Namespace,
    input: &str,
    output: &str,
    idle: &str,
) -> Result<Started, String> {
    let file = |suffix: &str| setting.directory.join(format!("weir-{idle}.{suffix}"));
    let (path, socket, log) = (file("toml"), file("sock"), file("log"));
    std::fs::write(&path, configuration(setting, input, output, idle))
        .map_err(|error| format!("{}: {error}", path.display()))?;
    let mut command = Command::new(&setting.weir);
    command.arg("run").arg("--config").arg(&path).arg("--socket").arg(&socket);
    let mut child = namespace.spawn(&command, log.clone())?;
    let ports = || {
        let mut show = Command::new(&setting.weir);
        lab::run(show.args(["show", "ports", "--json", "--socket"]).arg(&socket))
    };
    await_ready(&mut child, &log, || ports().is_ok_and(|text| !text.contains("\"opening\"")))?;
    let version = lab::run(Command::new(&setting.weir).arg("--version"))?;
    let notes = vec![format!("one worker on core {}, idle = \"{idle}\"", setting.core)];
    Ok(Started { version: version.trim().to_owned(), notes, child: Some(child) })
}

fn configuration(setting: &Setting, input: &str, output: &str, idle: &str) -> String {
    let core = setting.core;
    let far = if setting.vxlan { "192.0.2" } else { "198.19.0" };
    let mut text = format!(
        r#"
[workers]
cores = [{core}]
idle = "{idle}"

[port.near]
device = "{input}"
mode = "dedicated"
vrf = "bench"
addresses = ["198.18.0.1/24"]

[port.far]
device = "{output}"
mode = "dedicated"
vrf = "bench"
addresses = ["{far}.1/24"]

[[neighbour]]
port = "far"
ip = "{far}.2"
mac = "{SINK}"
"#
    );
    text += match setting.vxlan {
        false => {
            r#"
[[vrf.bench.route]]
prefix = "198.19.64.0/18"
via = { ip = "198.19.0.2" }
"#
        }
        true => {
            r#"
[tunnel.away.vxlan]
local = "192.0.2.1"
remote = "192.0.2.2"
vni = 100
vrf = "bench"
underlay-vrf = "bench"
remote-mac = "02:00:00:00:00:02"

[[vrf.bench.route]]
prefix = "198.19.64.0/18"
via = { tunnel = "away" }
"#
        }
    };
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weir_accepts_the_configurations_made_for_it() {
        for vxlan in [false, true] {
            let directory = std::env::temp_dir();
            let setting = Setting { vxlan, core: 0, other_core: 0, weir: "weir".into(), directory };
            let text = configuration(&setting, "in1", "out1", "adaptive");
            let loaded = weir_config::load_str("bench.toml", &text);
            assert!(loaded.is_ok(), "{loaded:?}");
        }
    }

    /// The TOML blocks of docs/benchmarking.md.
    fn documented() -> Vec<String> {
        let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/benchmarking.md");
        let page = std::fs::read_to_string(page).unwrap();
        let blocks = page.split("```toml\n").skip(1).filter_map(|rest| rest.split_once("```"));
        blocks.map(|(block, _)| block.to_owned()).collect()
    }

    #[test]
    fn what_the_page_has_other_generators_send_has_a_route_in_its_configuration() {
        let text = documented().into_iter().find(|block| block.contains("[port.near]")).unwrap();
        let config = weir_config::load_str("page.toml", &text).unwrap().config;
        let routes: Vec<_> = config.vrfs.values().flat_map(|vrf| &vrf.routes).collect();
        // pktgen's first and last, and those of T-Rex's stl/bench.py.
        for to in ["198.19.64.1", "198.19.64.250", "48.0.0.0", "48.0.255.255"] {
            let to: std::net::IpAddr = to.parse().unwrap();
            assert!(routes.iter().any(|route| route.prefix.contains(&to)), "no route to {to}: {routes:?}");
        }
    }

    #[test]
    fn the_streams_on_the_page_can_be_sent() {
        let text = documented().into_iter().find(|block| block.contains("[stream.web]")).unwrap();
        let streams = crate::wire::stream::parse(&text).unwrap();
        assert_eq!(crate::wire::deck::Deck::of_streams(&streams).unwrap().streams.len(), 2);
    }
}
