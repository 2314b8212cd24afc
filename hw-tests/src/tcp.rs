//! TCP transfers with real sockets: the kernel's TCP at both ends, every byte checked.

use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::Node;
use crate::node::choose;

/// Length of the pattern that is sent over and over: odd, so that it falls differently in every segment.
const PATTERN: usize = 65_521;

/// A transfer to be made. Nothing happens before an `expect_…` or [`Tcp::start`].
#[derive(Clone, Debug)]
pub struct Tcp {
    from: Node,
    to: Node,
    v6: bool,
    port: u16,
    by: Option<SocketAddr>,
    rate: Option<u64>,
    patience: Duration,
}

/// A transfer that runs.
#[derive(Debug)]
pub struct TcpTransfer {
    sender: JoinHandle<io::Result<()>>,
    receiver: JoinHandle<io::Result<u64>>,
    started: Instant,
}

/// What became of a transfer.
#[derive(Debug)]
pub struct TcpReport {
    /// How the sender fared.
    pub sent: io::Result<()>,
    /// Bytes received, all as sent; or why not.
    pub received: io::Result<u64>,
    /// From the first SYN to the end of the last side.
    pub took: Duration,
}

impl Tcp {
    pub(crate) fn new(from: Node, to: Node) -> Self {
        Self { from, to, v6: false, port: 5001, by: None, rate: None, patience: Duration::from_secs(30) }
    }

    /// To the destination's IPv6 address.
    #[must_use]
    pub fn v6(mut self) -> Self {
        self.v6 = true;
        self
    }

    /// The server's port; 5001 unless told.
    #[must_use]
    pub fn port(mut self, port: u16) -> Self {
        self.port = port;
        self
    }

    /// Connects to this address and port (`"203.0.113.7:8443"`), which somebody on the way forwards to the server.
    #[must_use]
    pub fn by(mut self, address: &str) -> Self {
        self.by = Some(address.parse().unwrap_or_else(|e| panic!("{address}: {e}")));
        self
    }

    /// Sends no faster than this, in bytes a second: for transfers in the middle of which something happens.
    #[must_use]
    pub fn rate(mut self, bytes_per_second: u64) -> Self {
        self.rate = Some(bytes_per_second);
        self
    }

    /// How long to wait for the connection and for progress on it; 30 s unless told.
    #[must_use]
    pub fn wait(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// Starts a server there and a client here that sends `bytes`.
    #[track_caller]
    pub fn start(&self, bytes: u64) -> TcpTransfer {
        self.from.lab().start();
        let address = SocketAddr::new(choose(&self.to.addresses(), self.v6), self.port);
        let (patience, rate) = (self.patience, self.rate);
        let by = self.by.unwrap_or(address);
        let (stop, stopped) = mpsc::channel();
        let listening = self.to.state().namespace().inside(move || {
            let any: IpAddr = if address.is_ipv6() { [0; 16].into() } else { [0; 4].into() };
            TcpListener::bind((any, address.port()))
        });
        let listener = listening.unwrap_or_else(|e| panic!("cannot listen on {address}: {e}"));
        let receiver = std::thread::spawn(move || receive(&listener, &stopped, patience));
        let sender = self.from.state().namespace().spawn(move || {
            let outcome = send(by, bytes, rate, patience);
            if outcome.is_err() {
                let _ = stop.send(());
            }
            // Dropping `stop` unsent lets the receiver go on to the end of the stream.
            outcome
        });
        TcpTransfer { sender, receiver, started: Instant::now() }
    }

    /// Expects that `bytes` arrive, unchanged.
    #[track_caller]
    pub fn expect_bytes(&self, bytes: u64) -> TcpReport {
        let report = self.start(bytes).finish();
        report.expect_bytes(bytes);
        report
    }

    /// Expects that the connection is refused by a reset or by an ICMP error.
    #[track_caller]
    pub fn expect_refused(&self) {
        let report = self.start(1).finish();
        let kinds = [
            io::ErrorKind::ConnectionRefused,
            io::ErrorKind::HostUnreachable,
            io::ErrorKind::NetworkUnreachable,
            io::ErrorKind::PermissionDenied,
        ];
        let refused = report.sent.as_ref().is_err_and(|e| kinds.contains(&e.kind()));
        assert!(refused, "expected a refusal on port {}: {report:?}", self.port);
    }

    /// Expects that nothing answers for two seconds.
    #[track_caller]
    pub fn expect_silence(&self) {
        let report = self.clone().wait(Duration::from_secs(2)).start(1).finish();
        let silent = report.sent.as_ref().is_err_and(|e| e.kind() == io::ErrorKind::TimedOut);
        assert!(silent, "expected silence on port {}: {report:?}", self.port);
    }
}

impl TcpTransfer {
    /// Whether it still runs.
    pub fn is_running(&self) -> bool {
        !self.receiver.is_finished()
    }

    /// Waits for its end.
    pub fn finish(self) -> TcpReport {
        let sent = self.sender.join().expect("sender");
        let received = self.receiver.join().expect("receiver");
        TcpReport { sent, received, took: self.started.elapsed() }
    }
}

impl TcpReport {
    /// Expects that `bytes` arrived, unchanged.
    #[track_caller]
    pub fn expect_bytes(&self, bytes: u64) {
        assert!(
            self.sent.is_ok() && self.received.as_ref().is_ok_and(|n| *n == bytes),
            "of {bytes} bytes: {self:?}"
        );
    }
}

fn pattern() -> Vec<u8> {
    (0..PATTERN as u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect()
}

fn send(to: SocketAddr, bytes: u64, rate: Option<u64>, patience: Duration) -> io::Result<()> {
    let mut stream = TcpStream::connect_timeout(&to, patience)?;
    stream.set_write_timeout(Some(patience))?;
    stream.set_read_timeout(Some(patience))?;
    let pattern = pattern();
    let (mut left, started) = (bytes, Instant::now());
    while left > 0 {
        let offset = ((bytes - left) % PATTERN as u64) as usize;
        // Paced streams go in small pieces.
        let most = if rate.is_some() { 8_192 } else { PATTERN };
        let end = PATTERN.min(offset + most).min(offset + usize::try_from(left).unwrap_or(PATTERN));
        stream.write_all(&pattern[offset..end])?;
        left -= (end - offset) as u64;
        if let Some(rate) = rate {
            let due = Duration::from_secs_f64((bytes - left) as f64 / rate as f64);
            std::thread::sleep(due.saturating_sub(started.elapsed()));
        }
    }
    stream.shutdown(std::net::Shutdown::Write)?;
    // The far end closes when it has everything: only then was the transfer whole.
    stream.read(&mut [0]).map(|_| ())
}

fn receive(listener: &TcpListener, stopped: &mpsc::Receiver<()>, patience: Duration) -> io::Result<u64> {
    listener.set_nonblocking(true)?;
    let deadline = Instant::now() + patience;
    let mut stream = loop {
        match listener.accept() {
            Ok((stream, _)) => break stream,
            Err(e) if e.kind() != io::ErrorKind::WouldBlock => return Err(e),
            Err(_) if stopped.try_recv().is_ok() || Instant::now() > deadline => {
                return Err(io::Error::new(io::ErrorKind::TimedOut, "no connection"));
            }
            Err(_) => std::thread::sleep(Duration::from_millis(2)),
        }
    };
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(patience))?;
    let pattern = pattern();
    let mut buffer = vec![0; 65_536];
    let mut total = 0_u64;
    loop {
        let n = stream.read(&mut buffer)?;
        if n == 0 {
            return Ok(total);
        }
        for (i, byte) in buffer[..n].iter().enumerate() {
            let at = total + i as u64;
            if *byte != pattern[(at % PATTERN as u64) as usize] {
                return Err(io::Error::new(io::ErrorKind::InvalidData, format!("byte {at} is wrong")));
            }
        }
        total += n as u64;
    }
}
