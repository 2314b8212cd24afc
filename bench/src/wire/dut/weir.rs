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
}
