//! What a box takes of the machine's memory.

use weir_hw_tests::Lab;

/// Two ports, and everything else as it is by default.
const DEFAULT: &str = r#"
[port.a]
device = "a"
mode = "dedicated"
addresses = ["10.1.0.1/24"]

[port.b]
device = "b"
mode = "dedicated"
addresses = ["10.2.0.1/24"]
"#;

const MIB: u64 = 1 << 20;

#[test]
fn a_box_of_default_size_takes_less_than_300_mib_and_says_what_for() {
    let lab = Lab::new();
    let (alice, bob) = (lab.host("10.1.0.2/24"), lab.host("10.2.0.2/24"));
    let weir = lab.weir(DEFAULT);
    lab.wire(&alice, &weir, "a");
    lab.wire(&weir, &bob, "b");
    alice.ping(&bob).expect_all(3);
    let answer = weir.show("memory");
    let process = &answer["process"];
    let [resident, huge] = ["resident", "huge"].map(|key| process[key].as_u64().unwrap());
    assert!(resident + huge < 300 * MIB, "{answer:#}");
    // The kernel's own figure, read from outside, is the one that weir told.
    let seen = weir.status_bytes("VmRSS:");
    assert!(seen.abs_diff(resident) < 16 * MIB, "{seen} seen, {resident} told");
    let tables = answer["tables"].as_array().unwrap();
    let bytes = |name: &str| {
        let table = tables.iter().find(|table| table["table"] == name).unwrap();
        (table["bytes"].as_u64().unwrap(), table["bytes_used"].as_u64().unwrap())
    };
    for name in ["flows", "sessions", "frames", "neighbours"] {
        let (reserved, used) = bytes(name);
        assert!(reserved > 0 && used <= reserved, "{name}: {answer:#}");
    }
    let flows = tables.iter().find(|table| table["table"] == "flows").unwrap();
    let of_workers: u64 =
        flows["workers"].as_array().unwrap().iter().map(|worker| worker["bytes"].as_u64().unwrap()).sum();
    assert_eq!(of_workers, bytes("flows").0);
}
