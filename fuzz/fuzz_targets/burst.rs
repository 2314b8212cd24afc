//! Any bytes as bursts of frames on the ports of a site that has everything: nothing panics, every frame is accounted
//! for, none is lost, and what leaves is a packet.
//!
//! The first byte chooses the site. Then come frames, each as: one byte (port in the low three bits, flags in the
//! others), one byte for the time that passes before, two bytes of length, and the frame itself.
#![no_main]

use std::sync::{Arc, LazyLock};

use libfuzzer_sys::fuzz_target;
use weir_config::{Config, HugePages, load_str};
use weir_dataplane::frame::{Frame, FrameMemory, FramePool};
use weir_dataplane::packet::{Malformed, parse};
use weir_dataplane::worker::Engine;

#[path = "../../dataplane/tests/common/bed.rs"]
#[allow(dead_code)]
mod bed;
#[path = "../../dataplane/tests/common/site.rs"]
#[allow(dead_code)]
mod site;

const FRAMES: u32 = 1024;
/// Checksums are made right: few random headers have a right one.
const REPAIR: u8 = 1 << 3;
/// The frame comes twice more, to find its flow.
const THRICE: u8 = 1 << 4;
/// Seconds pass instead of milliseconds.
const SECONDS: u8 = 1 << 5;
/// The configuration is put in force again.
const RELOAD: u8 = 1 << 6;
/// The frame belongs to the burst of the one before.
const TOGETHER: u8 = 1 << 7;

static POOL: LazyLock<Arc<FramePool>> = LazyLock::new(|| {
    FramePool::new(FrameMemory::map(FRAMES, 2048, HugePages::Never).expect("memory for frames"))
});

static SITES: LazyLock<Vec<Config>> = LazyLock::new(|| {
    (0..32)
        .map(|bits| {
            let site = site::Site {
                v6: bits & 1 != 0,
                chain: bits & 2 != 0,
                ecmp: bits & 4 != 0,
                nat: bits & 8 != 0,
                guarded: bits & 16 != 0,
            };
            let text = site.text().replace("= 256\n", "= 64\n").replace("= 512\n", "= 64\n");
            load_str("site.toml", &text).expect("a valid site").config
        })
        .collect()
});

fuzz_target!(|bytes: &[u8]| {
    let Some((first, mut rest)) = bytes.split_first() else { return };
    let config = &SITES[usize::from(first & 31)];
    let mut engine = Engine::with_pool(config, &POOL).expect("an engine");
    let mut burst: (usize, Vec<Vec<u8>>) = (0, Vec::new());
    while let Some(([what, wait, low, high], more)) = rest.split_first_chunk::<4>() {
        let len = usize::from(u16::from_le_bytes([*low, *high])).min(more.len());
        let (frame, more) = more.split_at(len);
        rest = more;
        let mut frame = frame.to_vec();
        if what & REPAIR != 0 {
            repair(&mut frame);
        }
        if what & TOGETHER == 0 {
            receive(&mut engine, &burst);
            burst = (usize::from(what & 7), Vec::new());
            if *wait > 0 {
                engine.wait(u64::from(*wait) * if what & SECONDS != 0 { 1_000_000_000 } else { 1_000_000 });
            }
            if what & RELOAD != 0 {
                engine.apply(config).expect("the same configuration");
            }
            check(&mut engine);
        }
        for _ in 0..if what & THRICE != 0 { 3 } else { 1 } {
            burst.1.push(frame.clone());
        }
    }
    receive(&mut engine, &burst);
    // Whatever waits for a neighbour comes to its end.
    engine.wait(10_000_000_000);
    check(&mut engine);
    assert_eq!(engine.counters().held, 0);
    drop(engine);
    assert_eq!(Frame::leaked(), 0);
    assert_eq!(POOL.available(), FRAMES as usize);
});

fn receive(engine: &mut Engine, (port, frames): &(usize, Vec<Vec<u8>>)) {
    let frames: Vec<&[u8]> = frames.iter().map(Vec::as_slice).collect();
    for burst in frames.chunks(weir_dataplane::frame::BURST) {
        engine.receive(site::PORTS[*port], burst, |_, frame| sound(frame));
        check(engine);
    }
}

fn check(engine: &mut Engine) {
    let counters = engine.counters();
    let (entered, left) = counters.balance();
    assert_eq!(entered, left, "{counters:?}");
    assert!(!counters.dropped.contains_key("internal_error"), "{counters:?}");
    for (_, frame) in engine.take_sent() {
        sound(&frame);
    }
}

/// A port may put one tag more on two that were there.
fn sound(frame: &[u8]) {
    match parse(frame) {
        Ok(_) | Err(Malformed::VlanTags) => {}
        Err(malformed) => panic!("{malformed:?} left: {frame:02x?}"),
    }
}

/// Outer headers, and those in a tunnel over IPv4 and over IPv6.
fn repair(frame: &mut [u8]) {
    for inner in [70, 50, 0] {
        if let Some(frame) = frame.get_mut(inner..) {
            site::repair(frame);
        }
    }
}
