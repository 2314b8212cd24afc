//! Any text as a configuration: the loader, and with what it accepts the compiler.
#![no_main]

use std::sync::{Arc, LazyLock};

use libfuzzer_sys::fuzz_target;
use weir_config::{Config, HugePages, from_json, load_json, load_str, to_json};
use weir_dataplane::frame::{FrameMemory, FramePool};
use weir_dataplane::packet::builder::Packet;
use weir_dataplane::worker::Engine;

static POOL: LazyLock<Arc<FramePool>> = LazyLock::new(|| {
    FramePool::new(FrameMemory::map(1024, 2048, HugePages::Never).expect("memory for frames"))
});

fuzz_target!(|text: &str| {
    let loaded =
        if text.starts_with('{') { load_json("fuzz.json", text) } else { load_str("fuzz.toml", text) };
    match loaded {
        Ok(loaded) => accepted(loaded.config),
        Err(diagnostics) => {
            assert!(diagnostics.errors() > 0);
            assert!(!diagnostics.to_string().is_empty());
        }
    }
});

/// What was accepted is written and read again as the same, and runs.
fn accepted(mut config: Config) {
    let json = to_json(&config).to_string();
    match from_json(&json) {
        Ok(again) => assert_eq!(again, config),
        Err(diagnostics) => panic!("its own JSON is refused: {diagnostics}\n{json}"),
    }
    // Tables as large as the text says would only test the machine's memory.
    let limits = &mut config.limits;
    for limit in [&mut limits.flows, &mut limits.sessions, &mut limits.neighbours, &mut limits.held_packets] {
        *limit = (*limit).min(64);
    }
    for limit in [&mut limits.macs, &mut limits.meters] {
        *limit = (*limit).min(64);
    }
    let Ok(mut engine) = Engine::with_pool(&config, &POOL) else { return };
    let frame =
        Packet::ethernet("02:00:00:00:00:01", "ff:ff:ff:ff:ff:ff").ipv4("10.1.0.2", "10.2.0.2").udp(1, 2);
    for port in config.ports.keys() {
        engine.inject(port, &frame.build());
    }
    engine.wait(1_000_000_000);
    let (entered, left) = engine.counters().balance();
    assert_eq!(entered, left);
}
