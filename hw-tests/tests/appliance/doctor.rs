//! `weir doctor` in a namespace with real devices: what it finds, and that the commands it prints do away with it.

use serde_json::Value;
use weir_hw_tests::{Lab, Node, weir_binary};

use crate::ROUTER;

/// What the doctor says of a configuration, and its exit code.
fn doctor(node: &Node, lab: &Lab, configuration: &str) -> (Vec<Value>, Option<i32>) {
    let file = lab.directory().join("doctor.toml");
    std::fs::write(&file, configuration).expect("write a configuration");
    let mut command = node.command(&weir_binary().display().to_string());
    let output = command.args(["doctor", "--json", "--config"]).arg(&file).output().expect("run weir");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let answer: Value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
    (answer["findings"].as_array().expect("findings").clone(), output.status.code())
}

#[track_caller]
fn find<'a>(findings: &'a [Value], about: &str, part: &str) -> &'a Value {
    let says =
        |finding: &&Value| finding["about"] == about && finding["text"].as_str().unwrap().contains(part);
    findings
        .iter()
        .find(says)
        .unwrap_or_else(|| panic!("nothing about {about} with `{part}` in {findings:#?}"))
}

#[test]
fn what_the_doctor_finds_on_a_port_goes_away_with_the_command_that_it_prints() {
    let lab = Lab::new();
    let router = lab.linux("");
    let (left, right) = (lab.host("10.1.0.2/24"), lab.host("10.2.0.2/24"));
    lab.wire(&left, &router, "left");
    lab.wire(&router, &right, "right");
    lab.start();
    router.ip("link set left mtu 9000");
    let switched = router.command("ethtool").args(["-K", "left", "rxvlan", "on"]).status();
    assert!(switched.expect("run ethtool").success());

    let (findings, code) = doctor(&router, &lab, ROUTER);
    assert_eq!(code, Some(1), "a problem");
    assert_eq!(find(&findings, "port right", "the driver offers native XDP")["level"], "note");
    assert_eq!(find(&findings, "port right", "carrier")["level"], "good");
    let mtu = find(&findings, "port left", "MTU 9000, but a frame of 2048 bytes holds 1770 at most");
    assert_eq!(mtu["level"], "problem");
    let vlan = find(&findings, "port left", "`rxvlan` is on");
    assert_eq!(vlan["level"], "warning");

    for fix in [mtu, vlan] {
        let command = fix["fix"][0].as_str().expect("a command");
        let status = router.command("sh").args(["-c", command]).status().expect("run a shell");
        assert!(status.success(), "{command}");
    }
    let (findings, code) = doctor(&router, &lab, ROUTER);
    assert_eq!(code, Some(0), "{findings:#?}");
    find(&findings, "port left", "MTU 1770; a frame of 2048 bytes holds up to 1770");
    assert!(!findings.iter().any(|finding| finding["text"].as_str().unwrap().contains("rxvlan")));
}

#[test]
fn a_device_that_is_missing_and_a_core_that_was_not_given_are_problems() {
    let lab = Lab::new();
    let node = lab.linux("");
    let (findings, code) = doctor(&node, &lab, &format!("{ROUTER}[workers]\ncores = [4000]\n"));
    assert_eq!(code, Some(1));
    assert_eq!(find(&findings, "port left", "no network device `left`")["level"], "problem");
    assert_eq!(find(&findings, "cores", "names 4000")["level"], "problem");
    assert_eq!(find(&findings, "kernel", "AF_XDP sockets can be made")["level"], "good");
}
