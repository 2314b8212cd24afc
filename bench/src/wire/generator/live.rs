//! The generator of bpf/generate.bpf.c: packets are made and sent in the kernel, in the calling thread's context.

use std::io::ErrorKind;
use std::os::fd::AsFd;
use std::sync::atomic::AtomicBool;
use std::sync::mpsc::channel;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use libbpf_rs::{MapCore, MapFlags, MapHandle, MapMut, Object, ObjectBuilder, OpenObject};
use nix::sys::pthread::{pthread_kill, pthread_self};
use nix::sys::signal::Signal;
use signal_hook::consts::SIGUSR2;

use super::{Generator, LOW, Offer, Sent, run, stop};
use crate::wire::clock::now;
use crate::wire::deck::Deck;
use crate::wire::lab;

/// The compiled program, aligned as an ELF reader wants it.
#[repr(C, align(8))]
struct Aligned<T: ?Sized>(T);
static OBJECT: &Aligned<[u8]> = &Aligned(*include_bytes!(concat!(env!("OUT_DIR"), "/generate.bpf.o")));

/// Runs between two flushes to the device; at low rates each packet leaves at once.
const BATCH: u32 = 64;
const ALONE: u32 = 1;
/// How often it is asked whether everything is sent.
const WATCH: Duration = Duration::from_millis(1);
/// Longest that the kernel may take to start.
const START: Duration = Duration::from_secs(5);

/// Sends live frames.
pub(crate) struct Live {
    object: Object,
    device: String,
    ifindex: u32,
    cards: u32,
    streams: u32,
}

/// `struct control` of the program, in its order.
#[derive(Clone, Copy, Debug, Default)]
struct Control {
    start: u64,
    interval: u64,
    stop: u64,
    count: u64,
    next: u64,
    late: u64,
    cards: u32,
    card: u32,
    ifindex: u32,
    run: u32,
}

impl Control {
    fn encode(&self) -> Vec<u8> {
        let long = [self.start, self.interval, self.stop, self.count, self.next, self.late];
        let short = [self.cards, self.card, self.ifindex, self.run];
        let long = long.iter().flat_map(|value| value.to_ne_bytes());
        long.chain(short.iter().flat_map(|value| value.to_ne_bytes())).collect()
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let long = |n: usize| bytes.get(n * 8..n * 8 + 8)?.try_into().ok().map(u64::from_ne_bytes);
        Some(Self {
            start: long(0)?,
            stop: long(2)?,
            count: long(3)?,
            next: long(4)?,
            late: long(5)?,
            ..Self::default()
        })
    }
}

impl Live {
    /// Loads the program with the packets of `deck`.
    pub(crate) fn open(device: &str, deck: &Deck) -> Result<Self, String> {
        let fail = |error: libbpf_rs::Error| format!("the generator's BPF program: {error:#}");
        let ifindex = lab::ifindex(device)?;
        let slot = deck.longest().next_multiple_of(4);
        let cards = u32::try_from(deck.cards.len()).map_err(|_| "too many packets".to_owned())?;
        let streams = deck.streams.len() as u32;
        let mut open = ObjectBuilder::default().open_memory(&OBJECT.0).map_err(fail)?;
        size_maps(&mut open, slot, cards, streams).map_err(fail)?;
        let mut object = open.load().map_err(fail)?;
        let deck_map = map(&mut object, "deck")?;
        for (number, card) in (0u32..).zip(&deck.cards) {
            let mut value = vec![0; 4 + slot];
            value[..2].copy_from_slice(&(card.bytes.len() as u16).to_ne_bytes());
            value[2..4].copy_from_slice(&card.stream.to_ne_bytes());
            value[4..4 + card.bytes.len()].copy_from_slice(&card.bytes);
            deck_map.update(&number.to_ne_bytes(), &value, MapFlags::ANY).map_err(fail)?;
        }
        Ok(Self { object, device: device.to_owned(), ifindex, cards, streams })
    }

    fn control(&mut self) -> Result<Control, String> {
        let value = map(&mut self.object, "control")?.lookup(&0u32.to_ne_bytes(), MapFlags::ANY);
        let value = value.map_err(|error| error.to_string())?;
        value.as_deref().and_then(Control::decode).ok_or_else(|| "the generator's state is gone".to_owned())
    }

    fn prepare(&mut self, control: &Control) -> Result<(), String> {
        for stream in 0..self.streams {
            let sequences = map(&mut self.object, "sequences")?;
            let zero = sequences.update(&stream.to_ne_bytes(), &0u32.to_ne_bytes(), MapFlags::ANY);
            zero.map_err(|error| error.to_string())?;
        }
        let control = control.encode();
        let written = map(&mut self.object, "control")?.update(&0u32.to_ne_bytes(), &control, MapFlags::ANY);
        written.map_err(|error| error.to_string())
    }

    /// Runs the program until it has nothing more to send: in one call, because the kernel waits for an RCU grace period at the start
    /// and the end of each.
    fn run(&mut self, batch: u32) -> Result<Control, String> {
        let handle = map(&mut self.object, "control")?;
        let handle = MapHandle::try_from(&handle).map_err(|error| error.to_string())?;
        let program = self.object.progs_mut().next().ok_or("the generator's object has no program")?;
        let program = program.as_fd().try_clone_to_owned().map_err(|error| error.to_string())?;
        interruptible()?;
        std::thread::scope(|scope| {
            let (tell, told) = channel();
            let runner = scope.spawn(move || {
                let _ = tell.send(pthread_self());
                run::live_frames(program.as_fd(), 60, i32::MAX as u32, batch)
            });
            let thread = told.recv().map_err(|error| error.to_string())?;
            let state = watch(&handle, || runner.is_finished());
            while !runner.is_finished() {
                let _ = pthread_kill(thread, Signal::SIGUSR2);
                std::thread::sleep(WATCH);
            }
            match runner.join() {
                Ok(Err(error)) if error.kind() != ErrorKind::Interrupted => Err(format!(
                    "running the generator on {}: {error} (live frames need Linux 5.18)",
                    self.device
                )),
                Err(_) => Err("the generator's thread panicked".to_owned()),
                _ => state,
            }
        })
    }
}

/// Has a signal end system calls and do nothing else.
fn interruptible() -> Result<(), String> {
    static ONCE: OnceLock<bool> = OnceLock::new();
    let flag = || signal_hook::flag::register(SIGUSR2, Arc::new(AtomicBool::new(false))).is_ok();
    if *ONCE.get_or_init(flag) { Ok(()) } else { Err("cannot register a signal".to_owned()) }
}

/// Waits until everything is sent, the time is up, or the user wants to stop.
fn watch(control: &MapHandle, finished: impl Fn() -> bool) -> Result<Control, String> {
    let begun = Instant::now();
    loop {
        let over = finished();
        let value = control.lookup(&0u32.to_ne_bytes(), MapFlags::ANY).map_err(|error| error.to_string())?;
        let state = value.as_deref().and_then(Control::decode).ok_or("the generator's state is gone")?;
        let sent = state.next >= state.count || (state.start > 0 && now() > state.stop);
        if over || sent || stop::requested() {
            return Ok(state);
        }
        if state.start == 0 && begun.elapsed() > START {
            return Err("the kernel did not run the generator".to_owned());
        }
        std::thread::sleep(WATCH);
    }
}

fn size_maps(open: &mut OpenObject, slot: usize, cards: u32, streams: u32) -> libbpf_rs::Result<()> {
    for mut map in open.maps_mut() {
        match map.name().to_str() {
            Some("deck") => {
                map.set_value_size(4 + slot as u32)?;
                map.set_max_entries(cards.max(1))?;
            }
            Some("sequences") => map.set_max_entries(streams.max(1))?,
            Some(name) if name.ends_with(".rodata") => {
                map.set_initial_value(&(slot as u32).to_ne_bytes())?;
            }
            _ => {}
        }
    }
    Ok(())
}

fn map<'a>(object: &'a mut Object, name: &str) -> Result<MapMut<'a>, String> {
    object.maps_mut().find(|map| map.name() == name).ok_or_else(|| format!("the generator has no map {name}"))
}

impl Generator for Live {
    fn describe(&self) -> String {
        format!("live frames on {}", self.device)
    }

    fn send(&mut self, offer: &Offer) -> Result<Sent, String> {
        let interval =
            offer.rate.map_or(0, |rate| ((1e9 / rate) * f64::from(1 << 20)).round().max(1.0) as u64);
        let control = Control {
            interval,
            stop: u64::try_from(offer.limit.as_nanos()).unwrap_or(u64::MAX / 2),
            count: offer.count,
            cards: self.cards,
            ifindex: self.ifindex,
            run: offer.run.into(),
            ..Control::default()
        };
        self.prepare(&control)?;
        let state = self.run(if offer.rate.is_some_and(|rate| rate < LOW) { ALONE } else { BATCH })?;
        // Between the last look and the end a few more may have left.
        let state = self.control().unwrap_or(state);
        let elapsed = Duration::from_nanos(now().min(state.stop).saturating_sub(state.start));
        Ok(Sent { packets: state.next, elapsed, late: Duration::from_nanos(state.late) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_state_is_laid_out_as_the_program_has_it() {
        let control = Control { stop: 3, count: 4, next: 5, late: 6, ..Control::default() };
        let bytes = control.encode();
        assert_eq!(bytes.len(), 64);
        let read = Control::decode(&bytes).unwrap();
        assert_eq!((read.stop, read.count, read.next, read.late), (3, 4, 5, 6));
    }
}
