//! Streams of numbered UDP datagrams: which of them arrived, twice, or out of order.

use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::Node;
use crate::node::choose;

/// Receive buffer of a stream's socket, in bytes.
const RECEIVE_BUFFER: usize = 8 << 20;

/// A stream to be sent. Nothing happens before [`Udp::start`] or [`Udp::run`].
#[derive(Clone, Debug)]
pub struct Udp {
    from: Node,
    to: Node,
    v6: bool,
    port: u16,
    source_port: u16,
    size: usize,
    count: u32,
    rate: u32,
}

/// A stream that runs.
#[derive(Debug)]
pub struct UdpStream {
    sender: JoinHandle<io::Result<u32>>,
    receiver: JoinHandle<io::Result<Arrivals>>,
    done: Arc<AtomicBool>,
    stop: Arc<AtomicBool>,
    headers: usize,
    started: Instant,
}

/// What became of a stream.
#[derive(Clone, Debug)]
pub struct UdpReport {
    /// Datagrams sent.
    pub sent: u32,
    /// Different datagrams that arrived.
    pub received: u32,
    /// Bytes of IP packets that arrived, headers included.
    pub bytes: u64,
    /// Numbers that never arrived.
    pub missing: Vec<u32>,
    /// Numbers that arrived more than once.
    pub duplicated: Vec<u32>,
    /// Numbers that arrived after a higher one.
    pub reordered: Vec<u32>,
    /// How long the sender took.
    pub took: Duration,
}

#[derive(Debug, Default)]
struct Arrivals {
    numbers: Vec<u32>,
    bytes: u64,
}

impl Udp {
    pub(crate) fn new(from: Node, to: Node) -> Self {
        Self { from, to, v6: false, port: 5002, source_port: 0, size: 200, count: 1_000, rate: 1_000 }
    }

    /// To the destination's IPv6 address.
    #[must_use]
    pub fn v6(mut self) -> Self {
        self.v6 = true;
        self
    }

    /// Destination port; 5002 unless told.
    #[must_use]
    pub fn port(mut self, port: u16) -> Self {
        self.port = port;
        self
    }

    /// Source port; the kernel's choice unless told.
    #[must_use]
    pub fn from_port(mut self, port: u16) -> Self {
        self.source_port = port;
        self
    }

    /// Size of the IP packets, in bytes with all headers. At least 64.
    #[must_use]
    pub fn size(mut self, bytes: usize) -> Self {
        self.size = bytes;
        self
    }

    /// How many datagrams.
    #[must_use]
    pub fn count(mut self, count: u32) -> Self {
        self.count = count;
        self
    }

    /// How many a second.
    #[must_use]
    pub fn rate(mut self, datagrams_per_second: u32) -> Self {
        self.rate = datagrams_per_second;
        self
    }

    /// Starts a receiver there and a sender here.
    #[track_caller]
    pub fn start(&self) -> UdpStream {
        self.from.lab().start();
        let to = SocketAddr::new(choose(&self.to.addresses(), self.v6), self.port);
        let any: IpAddr = if to.is_ipv6() { [0; 16].into() } else { [0; 4].into() };
        let headers = if to.is_ipv6() { 48 } else { 28 };
        let (done, stop) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));

        let port = self.port;
        let socket = self.to.state().namespace().inside(move || UdpSocket::bind((any, port)));
        let socket = socket.unwrap_or_else(|e| panic!("cannot bind {to}: {e}"));
        // What the receiver's own kernel drops because the receiver was not scheduled is no loss of weir's.
        nix::sys::socket::setsockopt(&socket, nix::sys::socket::sockopt::RcvBufForce, &RECEIVE_BUFFER)
            .unwrap_or_else(|e| panic!("cannot enlarge the receive buffer: {e}"));
        let finished = Arc::clone(&done);
        let receiver = std::thread::spawn(move || receive(&socket, &finished));

        let (source_port, count, rate) = (self.source_port, self.count, self.rate);
        let length = self.size.saturating_sub(headers).max(4);
        let halt = Arc::clone(&stop);
        let sender = self.from.state().namespace().spawn(move || {
            let socket = UdpSocket::bind((any, source_port))?;
            send(&socket, to, length, count, rate, &halt)
        });
        UdpStream { sender, receiver, done, stop, headers, started: Instant::now() }
    }

    /// Sends the whole stream and reports.
    #[track_caller]
    pub fn run(&self) -> UdpReport {
        self.start().finish()
    }
}

impl UdpStream {
    /// Whether the sender still sends.
    pub fn is_running(&self) -> bool {
        !self.sender.is_finished()
    }

    /// Stops the sender before its count is reached, and reports on what it sent.
    #[track_caller]
    pub fn stop(self) -> UdpReport {
        self.stop.store(true, Ordering::SeqCst);
        self.finish()
    }

    /// Waits for the sender's end, then for stragglers.
    #[track_caller]
    pub fn finish(self) -> UdpReport {
        let sent = self.sender.join().expect("sender").unwrap_or_else(|e| panic!("cannot send: {e}"));
        let took = self.started.elapsed();
        self.done.store(true, Ordering::SeqCst);
        let arrivals =
            self.receiver.join().expect("receiver").unwrap_or_else(|e| panic!("cannot receive: {e}"));
        UdpReport::new(sent, took, &arrivals, self.headers)
    }
}

impl UdpReport {
    fn new(sent: u32, took: Duration, arrivals: &Arrivals, headers: usize) -> Self {
        let mut seen = vec![0_u32; sent as usize];
        let (mut reordered, mut highest) = (Vec::new(), None);
        for number in &arrivals.numbers {
            if let Some(times) = seen.get_mut(*number as usize) {
                *times += 1;
            }
            if highest.is_some_and(|highest| *number < highest) {
                reordered.push(*number);
            }
            highest = highest.max(Some(*number));
        }
        let which =
            |test: fn(u32) -> bool| (0..sent).zip(&seen).filter(|(_, n)| test(**n)).map(|(i, _)| i).collect();
        let (missing, duplicated): (Vec<u32>, Vec<u32>) = (which(|n| n == 0), which(|n| n > 1));
        let bytes = arrivals.bytes + (arrivals.numbers.len() * headers) as u64;
        Self { sent, received: sent - missing.len() as u32, bytes, missing, duplicated, reordered, took }
    }

    /// Expects that every datagram arrived exactly once.
    #[track_caller]
    pub fn expect_every_one(&self) -> &Self {
        assert!(
            self.missing.is_empty() && self.duplicated.is_empty(),
            "of {} datagrams {} are missing {:?} and {} came twice {:?}",
            self.sent,
            self.missing.len(),
            &self.missing[..self.missing.len().min(20)],
            self.duplicated.len(),
            &self.duplicated[..self.duplicated.len().min(20)],
        );
        self
    }

    /// Expects that none overtook another.
    #[track_caller]
    pub fn expect_in_order(&self) -> &Self {
        assert!(self.reordered.is_empty(), "{} came late: {:?}", self.reordered.len(), self.reordered);
        self
    }
}

fn send(
    socket: &UdpSocket,
    to: SocketAddr,
    length: usize,
    count: u32,
    rate: u32,
    stop: &AtomicBool,
) -> io::Result<u32> {
    let mut payload = vec![0x5a; length];
    let started = Instant::now();
    for number in 0..count {
        if stop.load(Ordering::Relaxed) {
            return Ok(number);
        }
        let due = Duration::from_secs_f64(f64::from(number) / f64::from(rate));
        if let Some(early) = due.checked_sub(started.elapsed()) {
            std::thread::sleep(early);
        }
        payload[..4].copy_from_slice(&number.to_be_bytes());
        match socket.send_to(&payload, to) {
            // An ICMP error about an earlier datagram: this one was not sent.
            Err(e) if e.kind() == io::ErrorKind::ConnectionRefused => drop(socket.send_to(&payload, to)?),
            other => drop(other?),
        }
    }
    Ok(count)
}

/// Takes datagrams until none came for half a second after the sender was done.
fn receive(socket: &UdpSocket, done: &AtomicBool) -> io::Result<Arrivals> {
    socket.set_read_timeout(Some(Duration::from_millis(500)))?;
    let mut arrivals = Arrivals::default();
    let mut buffer = vec![0; 65_536];
    loop {
        let finished = done.load(Ordering::SeqCst);
        match socket.recv(&mut buffer) {
            Ok(n) => {
                let number = buffer[..n].first_chunk().copied().map(u32::from_be_bytes);
                arrivals.numbers.extend(number);
                arrivals.bytes += n as u64;
            }
            Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                if finished {
                    return Ok(arrivals);
                }
            }
            Err(e) => return Err(e),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lost_doubled_and_late_datagrams_are_told_apart() {
        let arrivals = Arrivals { numbers: vec![0, 2, 1, 4, 4], bytes: 20 };
        let report = UdpReport::new(5, Duration::ZERO, &arrivals, 28);
        assert_eq!(report.missing, [3]);
        assert_eq!(report.duplicated, [4]);
        assert_eq!(report.reordered, [1]);
        assert_eq!((report.received, report.bytes), (4, 20 + 5 * 28));
    }
}
