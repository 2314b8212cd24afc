//! The command line: output and exit codes of every command.

use crate::common::{Daemon, ports, stderr, stdout, weir, write};
use serde_json::Value;

#[test]
fn wrong_usage_exits_with_2() {
    for arguments in [
        &[][..],
        &["fly"],
        &["show"],
        &["show", "weather"],
        &["check"],
        &["run", "--log", "=loud="],
        &["run"],
        &["check", "--format", "xml", "x.toml"],
        &["replay", "--config", "x.toml", "--in", "no-equals-sign", "--out", "y"],
        &["show", "flows", "--limit", "many"],
    ] {
        let output = weir(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {}", stderr(&output));
        assert!(!stderr(&output).is_empty(), "{arguments:?}");
    }
}

#[test]
fn help_of_every_command_has_an_example_and_exits_with_0() {
    for command in ["run", "check", "apply", "reload", "show", "replay", "schema"] {
        let output = weir(&[command, "--help"]);
        assert_eq!(output.status.code(), Some(0));
        assert!(stdout(&output).contains(&format!("weir {command}")), "{command}");
        assert!(stdout(&output).contains("Example"), "{command}");
    }
    assert!(stdout(&weir(&["--help"])).contains("Exit codes"));
    assert!(stdout(&weir(&["--version"])).starts_with("weir "));
}

#[test]
fn check_exits_with_0_or_1_and_gives_text_or_json() {
    let directory = tempfile::tempdir().unwrap();
    let good = write(directory.path(), "good.toml", &ports(&["a"]));
    let bad = write(directory.path(), "bad.toml", "[port.a]\ndevise = \"wx0\"\n[prot.b]\n");

    let output = weir(&["check", &good]);
    assert_eq!((output.status.code(), stdout(&output)), (Some(0), format!("{good}: valid\n")));

    let output = weir(&["check", &bad]);
    assert_eq!(output.status.code(), Some(1));
    let text = stderr(&output);
    assert!(text.contains(&format!("{bad}:2:1: error[")), "{text}");
    assert!(text.contains(&format!("{bad}:3:2: error[")), "all errors at once: {text}");

    let output = weir(&["check", "--format", "json", &bad]);
    assert_eq!(output.status.code(), Some(1));
    let value: Value = serde_json::from_str(&stdout(&output)).unwrap();
    assert_eq!(value["valid"], false);
    assert!(
        value["diagnostics"].as_array().unwrap().iter().any(|d| d["line"] == 2 && d["severity"] == "error")
    );

    let output = weir(&["check", "--format", "json", &good]);
    let value: Value = serde_json::from_str(&stdout(&output)).unwrap();
    assert_eq!((output.status.code(), &value["valid"]), (Some(0), &Value::Bool(true)));
}

#[test]
fn a_file_that_cannot_be_read_is_refused_input() {
    for command in ["check", "apply"] {
        let output = weir(&[command, "/nonexistent/weir.toml"]);
        assert_eq!(output.status.code(), Some(1), "{command}");
        assert!(stderr(&output).contains("/nonexistent/weir.toml"), "{}", stderr(&output));
    }
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("utf16.toml");
    std::fs::write(&path, [0xff, 0xfe, b'[', 0]).unwrap();
    let output = weir(&["check", path.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).ends_with("utf16.toml: not UTF-8 text\n"), "{}", stderr(&output));
}

#[test]
fn without_a_daemon_its_clients_exit_with_3_and_say_where_they_looked() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("none.sock");
    let socket = socket.to_str().unwrap();
    let file = write(directory.path(), "good.toml", &ports(&["a"]));
    for arguments in [&["show", "ports"][..], &["reload"], &["apply", &file]] {
        let output = weir(&[arguments, &["--socket", socket]].concat());
        assert_eq!(output.status.code(), Some(3), "{arguments:?}");
        assert!(stderr(&output).contains(socket), "{}", stderr(&output));
    }
}

#[test]
fn show_prints_tables_for_people() {
    let daemon = Daemon::start(&ports(&["a"]));
    for (what, expected) in [
        ("ports", "native copy"),
        ("ports", "a: zero-copy: operation not supported"),
        ("workers", "131072"),
        ("counters", "received         10"),
        ("counters", "conservation: 10 in, 10 out: holds\n"),
        ("drops", "no_route        3  no route to the destination"),
        ("routes", "default  10.0.0.0/8  static  via 192.0.2.9 dev a"),
        ("neighbours", "a          192.0.2.9  -    incomplete"),
        ("tunnels", "to-b"),
        ("bridge", "no bridge entries"),
        ("flows", "dst 10.0.0.1"),
        ("sessions", "established"),
        ("nat", "default  out      udp       10.1.0.2:5000  203.0.113.7:5000         1"),
        ("nat", "default  203.0.113.7  udp                  1        3"),
        ("chains", "forward"),
        ("chains", "ids-a, ids-b"),
        ("pipeline", "destination: routing in vrf default"),
        ("pipeline", "firewall edge: 2 rules, 1 KiB\n  ipv4: linear: comparing 2 one after the other"),
        ("memory", "flows"),
        ("tables", "131072"),
        ("memory", "flows          2  131072  0 %  40 MiB       1 KiB  heap"),
        (
            "memory",
            "process: 80 MiB resident, 2048 KiB of it in transparent huge pages; 32 MiB in reserved huge pages",
        ),
        ("config", "[port.a]"),
        ("version", "daemon:  weir"),
        ("health", "ok (generation 1)"),
    ] {
        let output = daemon.weir(&["show", what]);
        assert_eq!(output.status.code(), Some(0), "{what}: {}", stderr(&output));
        assert!(stdout(&output).contains(expected), "{what}: {expected:?} is not in\n{}", stdout(&output));
    }
    let output = daemon.weir(&["show", "flows", "--limit", "1"]);
    assert!(stdout(&output).contains("only the first 1 are shown"), "{}", stdout(&output));
}

#[test]
fn show_config_can_be_checked_and_applied_again() {
    let daemon = Daemon::start(&ports(&["a", "b"]));
    let shown = stdout(&daemon.weir(&["show", "config"]));
    let file = write(daemon.directory.path(), "again.toml", &shown);
    let output = daemon.weir(&["apply", "--dry-run", &file]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert!(stdout(&output).contains("no changes"), "{}", stdout(&output));
}

#[test]
fn show_with_json_prints_the_answer_of_the_api() {
    let daemon = Daemon::start(&ports(&["a"]));
    for (what, key) in
        [("ports", "ports"), ("counters", "conservation"), ("bridge", "macs"), ("config", "effective")]
    {
        let output = daemon.weir(&["show", what, "--json"]);
        let value: Value = serde_json::from_str(&stdout(&output)).unwrap();
        assert!(!value[key].is_null(), "{what}: {value}");
    }
}

#[test]
fn apply_shows_the_differences_and_puts_them_in_force() {
    let daemon = Daemon::start(&ports(&["a"]));
    let file = write(daemon.directory.path(), "two.toml", &ports(&["a", "b"]));
    let output = daemon.weir(&["apply", "--dry-run", &file]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert!(stdout(&output).contains("+ port.b"), "{}", stdout(&output));
    assert!(stdout(&output).ends_with("dry run: 1 change; generation 1 goes on\n"), "{}", stdout(&output));

    let output = daemon.weir(&["apply", &file]);
    assert!(stdout(&output).ends_with("applied: 1 change; generation 2 runs\n"), "{}", stdout(&output));
    assert!(stdout(&daemon.weir(&["show", "config"])).contains(&file), "the origin is shown");

    // Going back to the file that the daemon was started with.
    let output = daemon.weir(&["reload"]);
    assert!(stdout(&output).contains("- port.b"), "{}", stdout(&output));
    assert!(stdout(&output).ends_with("generation 3 runs\n"));
}

#[test]
fn what_the_daemon_refuses_exits_with_1_and_its_reasons() {
    let daemon = Daemon::start(&ports(&["a"]));
    std::fs::write(daemon.file(), "[prot.a]\n").unwrap();
    let output = daemon.weir(&["reload"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("weir.toml:1:2: error["), "{}", stderr(&output));

    *daemon.engine.refuse.lock().unwrap() = Some("port b: no device wx1".to_owned());
    let file = write(daemon.directory.path(), "two.toml", &ports(&["a", "b"]));
    let output = daemon.weir(&["apply", &file]);
    assert_eq!((output.status.code(), stderr(&output).as_str()), (Some(1), "weir: port b: no device wx1\n"));
    assert_eq!(daemon.get("/v1/version")["generation"], 1);
}

#[test]
fn apply_refuses_a_wrong_file_before_it_asks_the_daemon() {
    let directory = tempfile::tempdir().unwrap();
    let file = write(directory.path(), "bad.toml", "[prot.a]\n");
    let output = weir(&["apply", &file, "--socket", "/nonexistent.sock"]);
    assert_eq!(output.status.code(), Some(1), "and not 3");
    assert!(stderr(&output).contains("bad.toml:1:2: error["));
}

#[test]
fn replay_names_the_ports_that_there_are() {
    let directory = tempfile::tempdir().unwrap();
    let file = write(directory.path(), "weir.toml", &ports(&["a", "b"]));
    let out = directory.path().join("out");
    let out = out.to_str().unwrap();
    let output = weir(&["replay", "--config", &file, "--in", "c=x.pcap", "--out", out]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("\"c\"") && stderr(&output).contains("a, b"), "{}", stderr(&output));
    let output = weir(&["replay", "--config", &file, "--in", "a=x.pcap", "--in", "a=y.pcap", "--out", out]);
    assert!(stderr(&output).contains("given twice"), "{}", stderr(&output));
}

/// A classic pcap file (draft-ietf-opsawg-pcap) with one Ethernet frame.
fn capture(frame: &[u8]) -> Vec<u8> {
    let length = u32::try_from(frame.len()).unwrap();
    let mut bytes = Vec::new();
    for word in [0xa1b2_c3d4_u32, 0x0004_0002, 0, 0, 262_144, 1, 1_700_000_000, 0, length, length] {
        bytes.extend(word.to_le_bytes());
    }
    bytes.extend(frame);
    bytes
}

#[test]
fn replay_writes_what_each_port_sends_and_sums_up() {
    let directory = tempfile::tempdir().unwrap();
    let text = ports(&["a", "b"]).replace("[port.a]", "[port.a]\nmac = \"02:00:00:00:00:01\"");
    let file = write(directory.path(), "weir.toml", &text);
    // Who has 10.0.0.1? Tell 10.0.0.2 (RFC 826).
    let mut question = vec![0xff; 6];
    question.extend([2, 0, 0, 0, 0, 2, 8, 6, 0, 1, 8, 0, 6, 4, 0, 1, 2, 0, 0, 0, 0, 2, 10, 0, 0, 2]);
    question.extend([0, 0, 0, 0, 0, 0, 10, 0, 0, 1]);
    let pcap = directory.path().join("in.pcap");
    std::fs::write(&pcap, capture(&question)).unwrap();
    let input = format!("a={}", pcap.display());
    let out = directory.path().join("out");
    let arguments = ["replay", "--config", &file, "--in", &input, "--out", out.to_str().unwrap()];
    let output = weir(&arguments);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert!(stdout(&output).contains(" out: holds\n"), "{}", stdout(&output));
    let written = std::fs::read(out.join("a.pcap")).unwrap();
    let answer = &written[written.len() - question.len()..];
    assert_eq!(&answer[..14], [2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 8, 6], "an ARP answer from a's MAC");
    assert!(out.join("b.pcap").exists());

    // What was written may be read, but not be written over while it is.
    let again = format!("a={}", out.join("a.pcap").display());
    let output = weir(&["replay", "--config", &file, "--in", &again, "--out", out.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(1), "{}", stdout(&output));
    assert!(stderr(&output).contains("would replace the input"), "{}", stderr(&output));
    assert_eq!(std::fs::read(out.join("a.pcap")).unwrap(), written);

    let output = weir(&[&arguments[..], &["--json"]].concat());
    let value: Value = serde_json::from_str(&stdout(&output)).unwrap();
    assert_eq!(
        (&value["summary"]["written"]["a"], &value["conservation"]["holds"]),
        (&1.into(), &true.into())
    );
}

#[test]
fn the_schema_is_json_and_knows_ports() {
    let output = weir(&["schema"]);
    let schema: Value = serde_json::from_str(&stdout(&output)).unwrap();
    assert!(!schema["properties"]["port"].is_null(), "{schema}");
}
