//! The socket API over a real unix socket, the data plane a fake: answers, changes, and every kind of wrong request.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use crate::common::{Daemon, ports};
use serde_json::json;
use weir_dataplane::decision::DropReason;

const TOML: &str = "content-type: application/toml\r\n";

#[test]
fn every_list_is_an_object_with_the_list_in_it() {
    let daemon = Daemon::start(&ports(&["a"]));
    for (path, length) in [
        ("ports", 1),
        ("workers", 1),
        ("routes", 1),
        ("neighbours", 1),
        ("tunnels", 1),
        ("macs", 0),
        ("flows", 2),
        ("sessions", 1),
        ("pipeline", 1),
        ("chains", 1),
        ("tables", 1),
    ] {
        let answer = daemon.get(&format!("/v1/{path}"));
        assert_eq!(answer[path].as_array().map(Vec::len), Some(length), "{path}: {answer}");
    }
    let nat = daemon.get("/v1/nat?limit=5");
    assert_eq!(
        (&nat["bindings"][0]["outside"], &nat["addresses"][0]["in_use"]),
        (&json!("203.0.113.7:5000"), &json!(1))
    );
    assert_eq!(daemon.get("/v1/flows?limit=1")["flows"].as_array().unwrap().len(), 1);
    assert_eq!(daemon.get("/v1/ports")["ports"][0]["xdp"], "native copy");
    assert_eq!(daemon.get("/v1/pipeline")["rules"][0]["families"][0]["algorithm"], "linear");
}

#[test]
fn counters_come_with_their_conservation() {
    let daemon = Daemon::start(&ports(&["a"]));
    let answer = daemon.get("/v1/counters");
    assert_eq!(answer["counters"]["dropped"], json!({ "no_route": 3 }));
    assert_eq!(answer["conservation"], json!({ "entered": 10, "left": 10, "holds": true }));
}

#[test]
fn health_and_version_are_told() {
    let daemon = Daemon::start(&ports(&["a"]));
    assert_eq!(daemon.get("/v1/health"), json!({ "status": "ok", "generation": 1, "problems": [] }));
    let version = daemon.get("/v1/version");
    assert_eq!((&version["name"], &version["api"]), (&json!("weir"), &json!("v1")));
}

#[test]
fn a_configuration_in_toml_and_one_in_json_go_the_same_way() {
    let daemon = Daemon::start(&ports(&["a"]));
    let (status, answer) = daemon.ask("PUT", "/v1/config", TOML, ports(&["a", "b"]).as_bytes());
    assert_eq!(status, 200, "{answer}");
    assert_eq!(answer["generation"], 2);
    assert_eq!(answer["changes"].as_array().unwrap().len(), 1, "{answer}");
    let view = daemon.get("/v1/config");
    assert_eq!(view["document"]["port"]["b"]["device"], "wx1");
    assert!(view["effective"]["port"]["b"].is_object());

    // What GET gives as document, PUT takes.
    let (status, answer) = daemon.ask(
        "POST",
        "/v1/config",
        "content-type: application/json\r\n",
        view["document"].to_string().as_bytes(),
    );
    assert_eq!((status, &answer["changes"]), (200, &json!([])), "{answer}");
    assert_eq!(answer["generation"], 3);
}

#[test]
fn a_dry_run_shows_the_differences_and_changes_nothing() {
    let daemon = Daemon::start(&ports(&["a"]));
    let body = ports(&["a", "b"]);
    let (status, answer) = daemon.ask("PUT", "/v1/config?dry-run=true", TOML, body.as_bytes());
    assert_eq!(
        (status, &answer["dry_run"], &answer["generation"]),
        (200, &json!(true), &json!(1)),
        "{answer}"
    );
    assert_eq!(answer["changes"].as_array().unwrap().len(), 1);
    assert_eq!(daemon.engine.applied.lock().unwrap().len(), 1);
}

#[test]
fn a_wrong_configuration_gives_its_diagnostics_and_changes_nothing() {
    let daemon = Daemon::start(&ports(&["a"]));
    let before = daemon.get("/v1/config");
    for (headers, body) in [
        (TOML, "[prot.a]\n"),
        (TOML, "this is not TOML"),
        ("", "{\"prot\": {}}"),
        ("", "{\"port\":"),
        ("", "[1, 2]"),
        ("", ""),
    ] {
        let (status, answer) = daemon.ask("PUT", "/v1/config", headers, body.as_bytes());
        // An empty table of TOML is a configuration; an empty JSON text is not JSON.
        assert_eq!(status, 422, "{body}: {answer}");
        let error = &answer["error"];
        assert_eq!(error["code"], "invalid_configuration", "{answer}");
        assert!(!error["diagnostics"].as_array().unwrap().is_empty(), "{answer}");
        assert!(error["diagnostics"][0]["text"].as_str().unwrap().contains("error["), "{answer}");
    }
    assert_eq!(daemon.get("/v1/config"), before);
    assert_eq!(daemon.engine.applied.lock().unwrap().len(), 1);
}

#[test]
fn what_the_data_plane_refuses_is_a_conflict_and_changes_nothing() {
    let daemon = Daemon::start(&ports(&["a"]));
    let before = daemon.get("/v1/config");
    *daemon.engine.refuse.lock().unwrap() = Some("port b: no device wx1".to_owned());
    let (status, answer) = daemon.ask("PUT", "/v1/config", TOML, ports(&["a", "b"]).as_bytes());
    assert_eq!(status, 409, "{answer}");
    assert_eq!(answer["error"]["code"], "apply_failed");
    assert_eq!(answer["error"]["message"], "port b: no device wx1");
    assert_eq!(daemon.get("/v1/config"), before);
}

#[test]
fn every_wrong_request_has_its_own_error() {
    let daemon = Daemon::start(&ports(&["a"]));
    for (method, path, headers, expected) in [
        ("GET", "/v1/nothing", "", (404, "not_found")),
        ("GET", "/", "", (404, "not_found")),
        ("DELETE", "/v1/config", "", (405, "method_not_allowed")),
        ("POST", "/v1/ports", "", (405, "method_not_allowed")),
        ("GET", "/v1/reload", "", (405, "method_not_allowed")),
        ("GET", "/v1/flows?limit=many", "", (400, "bad_query")),
        ("GET", "/v1/flows?limit=-1", "", (400, "bad_query")),
        ("GET", "/v1/sessions?offset=1", "", (400, "bad_query")),
        ("PUT", "/v1/config?dry-run=perhaps", "", (400, "bad_query")),
        ("PUT", "/v1/config", "content-type: text/html\r\n", (415, "unsupported_media_type")),
    ] {
        let (status, answer) = daemon.ask(method, path, headers, b"");
        let code = answer["error"]["code"].as_str().unwrap_or_default();
        assert_eq!((status, code), expected, "{method} {path}: {answer}");
        assert!(!answer["error"]["message"].as_str().unwrap().is_empty());
    }
    let (status, answer) = daemon.ask("PUT", "/v1/config", TOML, b"name = \"\xff\xfe\"");
    assert_eq!((status, &answer["error"]["code"]), (400, &json!("bad_body")));
    assert_eq!(daemon.engine.generation.load(std::sync::atomic::Ordering::Relaxed), 1);
}

#[test]
fn a_body_over_the_limit_is_refused_by_its_size() {
    let daemon = Daemon::start(&ports(&["a"]));
    let limit = weir_control::api::BODY_LIMIT;
    let (status, answer) = daemon.ask("PUT", "/v1/config", TOML, &vec![b'#'; limit + 1]);
    assert_eq!((status, &answer["error"]["code"]), (413, &json!("body_too_large")));
    let (status, answer) = daemon.ask("PUT", "/v1/config", TOML, &vec![b'#'; limit]);
    assert_eq!(status, 200, "a comment of exactly the limit: {answer}");
}

#[test]
fn bytes_that_are_not_http_get_a_400_and_the_next_client_is_served() {
    let daemon = Daemon::start(&ports(&["a"]));
    for bytes in [
        &b"hello\r\n\r\n"[..],
        b"GET /v1/ports HTTP/9.9\r\n\r\n",
        b"GET /v1/ports HTTP/1.1\r\nbad header\r\n\r\n",
        b"PUT /v1/config HTTP/1.1\r\nhost: x\r\ncontent-length: -5\r\n\r\n",
        &[0xff; 300],
        &[0; 300],
    ] {
        let (status, _) = daemon.raw(bytes);
        assert_eq!(status, 400, "{:?}", String::from_utf8_lossy(bytes));
    }
    for cut in
        [&b""[..], b"GET /v1/po", b"PUT /v1/config HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n{"]
    {
        daemon.raw(cut);
    }
    let head = format!("GET /v1/ports HTTP/1.1\r\nx: {}\r\n\r\n", "y".repeat(1 << 20));
    assert_eq!(daemon.raw(head.as_bytes()).0, 431);
    assert_eq!(daemon.get("/v1/health")["status"], "ok");
    assert_eq!(daemon.engine.applied.lock().unwrap().len(), 1);
}

#[test]
fn slow_clients_and_a_slow_engine_do_not_make_others_wait() {
    let daemon = Daemon::start(&ports(&["a"]));
    *daemon.engine.routes_take.lock().unwrap() = Duration::from_secs(3);
    let slow: Vec<_> = (0..100)
        .map(|number| {
            let mut stream = UnixStream::connect(daemon.socket()).unwrap();
            match number % 3 {
                0 => {}
                1 => stream
                    .write_all(b"PUT /v1/config HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\n{")
                    .unwrap(),
                _ => stream.write_all(b"GET /v1/ro").unwrap(),
            }
            stream
        })
        .collect();
    let mut waiting = UnixStream::connect(daemon.socket()).unwrap();
    waiting.write_all(b"GET /v1/routes HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
    let start = Instant::now();
    assert_eq!(daemon.get("/v1/health")["status"], "ok");
    let (status, _) = daemon.ask("PUT", "/v1/config", TOML, ports(&["a", "b"]).as_bytes());
    assert_eq!(status, 200);
    assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
    drop(slow);
    let mut answer = String::new();
    waiting.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

#[test]
fn a_client_that_never_finishes_its_head_is_let_go() {
    let daemon = Daemon::start(&ports(&["a"]));
    let mut stream = UnixStream::connect(daemon.socket()).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(15))).unwrap();
    stream.write_all(b"GET /v1/po").unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).expect("the server closes the connection");
}

#[test]
fn metrics_are_prometheus_text_with_every_drop_reason() {
    let daemon = Daemon::start(&ports(&["a"]));
    daemon.ask("PUT", "/v1/config", TOML, b"[prot.a]\n");
    let (status, text) = daemon.raw(b"GET /metrics HTTP/1.1\r\nhost: x\r\n\r\n");
    assert_eq!(status, 200);
    for line in [
        "weir_generation 1",
        "weir_config_changes_total{result=\"applied\"} 1",
        "weir_config_changes_total{result=\"refused\"} 1",
        "weir_packets_total{verdict=\"transmitted\"} 6",
        "weir_packets_total{verdict=\"dropped\"} 3",
        "weir_port_up{port=\"a\",device=\"wx0\"} 1",
        "weir_port_rx_frames_total{port=\"a\",queue=\"0\"} 10",
        "weir_table_limit{table=\"flows\"} 131072",
    ] {
        assert!(text.lines().any(|l| l == line), "{line} is missing in\n{text}");
    }
    let reasons = text.lines().filter(|line| line.starts_with("weir_dropped_packets_total{")).count();
    assert_eq!(reasons, DropReason::COUNT);
    // The exposition format: every sample belongs to the family whose TYPE stands before it.
    let mut family = "";
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            family = rest.split(' ').next().unwrap();
        } else if !line.starts_with('#') {
            let name = line.split(['{', ' ']).next().unwrap();
            assert_eq!(name, family, "{line}");
            assert!(line.rsplit(' ').next().unwrap().parse::<f64>().is_ok(), "{line}");
        }
    }
}
