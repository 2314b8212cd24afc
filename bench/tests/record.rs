//! What `weir-bench` prints for other programs.

use std::process::Command;

use serde_json::Value;

#[test]
fn json_without_a_file_is_one_object_and_nothing_else_on_standard_output() {
    let arguments = "pipeline --json --workload W2,W5 --burst 64 --packets 1024 --repeats 11";
    let mut command = Command::new(env!("CARGO_BIN_EXE_weir-bench"));
    let output = command.args(arguments.split(' ')).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{said}");
    let record: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(record["machine"]["commit"].is_string() && record["t0_cycles"].is_null(), "{record:#}");
    let results = record["results"].as_array().unwrap();
    let names: Vec<_> = results.iter().map(|result| result["workload"].as_str().unwrap()).collect();
    assert_eq!(names, ["W2", "W5"]);
    for result in results {
        for number in ["burst", "pipeline_cycles", "total_cycles", "ns"] {
            assert!(result[number].is_number(), "{number}: {result:#}");
        }
        // Nothing stands beside it without --peers.
        for absent in [&result["ratio_t0"], &result["peers"]["testpmd"], &result["peers"]["ovs"]] {
            assert!(absent.is_null(), "{result:#}");
        }
        assert_eq!(result["repeats"].as_array().unwrap().len(), 11);
    }
}
