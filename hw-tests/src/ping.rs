//! ICMP echo by the system's `ping`.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use crate::Node;
use crate::node::choose;

/// Echo requests to be sent. Nothing happens before an `expect_…` or [`Ping::run`].
#[derive(Clone, Debug)]
pub struct Ping {
    from: Node,
    to: Vec<IpAddr>,
    v6: bool,
    size: u32,
    count: u32,
    interval: Duration,
    dont_fragment: bool,
    ttl: Option<u8>,
    patience: Duration,
}

/// What became of echo requests.
#[derive(Clone, Debug)]
pub struct PingReport {
    /// Requests sent.
    pub sent: u32,
    /// Replies received, duplicates not counted.
    pub received: u32,
    /// Duplicate replies.
    pub duplicates: u32,
    /// What `ping` printed.
    pub output: String,
}

impl Ping {
    pub(crate) fn new(from: Node, to: Vec<IpAddr>) -> Self {
        Self {
            from,
            to,
            v6: false,
            size: 84,
            count: 3,
            // `ping` waits no longer than this for the last reply, once it had others.
            // ping waits for the last reply as long as between two requests: not too short for a busy machine.
            interval: Duration::from_millis(200),
            dont_fragment: false,
            ttl: None,
            patience: Duration::from_secs(1),
        }
    }

    /// To the destination's IPv6 address.
    #[must_use]
    pub fn v6(mut self) -> Self {
        self.v6 = true;
        self
    }

    /// Size of the IP packets, in bytes with all headers. At least 64.
    #[must_use]
    pub fn size(mut self, bytes: u32) -> Self {
        self.size = bytes;
        self
    }

    /// How many.
    #[must_use]
    pub fn count(mut self, count: u32) -> Self {
        self.count = count;
        self
    }

    /// Time between two requests; 100 ms unless told.
    #[must_use]
    pub fn interval(mut self, interval: Duration) -> Self {
        self.interval = interval;
        self
    }

    /// Whether the sender may not fragment: DF in IPv4, no fragment header in IPv6.
    #[must_use]
    pub fn df(mut self, set: bool) -> Self {
        self.dont_fragment = set;
        self
    }

    /// TTL or hop limit.
    #[must_use]
    pub fn ttl(mut self, ttl: u8) -> Self {
        self.ttl = Some(ttl);
        self
    }

    /// How long to wait where no reply comes at all; one second unless told.
    #[must_use]
    pub fn wait(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// Sends them and reports.
    pub fn run(&self) -> PingReport {
        self.from.lab().start();
        let to = choose(&self.to, self.v6);
        let headers = if to.is_ipv6() { 48 } else { 28 };
        let mut command = self.from.command("ping");
        command.args([
            "-n",
            "-c",
            &self.count.to_string(),
            "-s",
            &(self.size.saturating_sub(headers)).to_string(),
        ]);
        command.args(["-i", &self.interval.as_secs_f32().to_string()]);
        command.args(["-W", &self.patience.as_secs_f32().to_string()]);
        command.args(["-M", if self.dont_fragment { "do" } else { "dont" }]);
        if let Some(ttl) = self.ttl {
            command.args(["-t", &ttl.to_string()]);
        }
        let output = command.arg(to.to_string()).output().expect("run ping");
        let mut text = String::from_utf8_lossy(&output.stdout).into_owned();
        text.push_str(&String::from_utf8_lossy(&output.stderr));
        PingReport::parse(text)
    }

    /// Expects a reply to every request, and no duplicate.
    #[track_caller]
    pub fn expect_all(&self) {
        self.run().expect_all();
    }

    /// Expects no reply at all.
    #[track_caller]
    pub fn expect_none(&self) -> PingReport {
        let report = self.run();
        assert_eq!(report.received, 0, "expected no reply:\n{}", report.output);
        report
    }

    /// Expects no reply, and an error from the path that says which MTU the next hop has: ICMP type 3 code 4 with the MTU
    /// (RFC 1191), ICMPv6 Packet Too Big (RFC 8201).
    #[track_caller]
    pub fn expect_too_big(&self, mtu: u32) {
        let report = self.expect_none();
        // `ping` says "From ROUTER icmp_seq=1 …" of an error that came, and "local error" of what its own kernel knew.
        let said = [format!("DF set (mtu = {mtu})"), format!("too big: mtu={mtu}")];
        let came = report
            .output
            .lines()
            .any(|line| line.starts_with("From") && said.iter().any(|s| line.contains(s)));
        assert!(came, "expected to be told of the MTU {mtu}:\n{}", report.output);
    }

    /// Expects no reply, and this text in the errors that came back, such as `Time to live exceeded`.
    #[track_caller]
    pub fn expect_error(&self, text: &str) {
        let report = self.expect_none();
        assert!(report.output.contains(text), "expected the error {text:?}:\n{}", report.output);
    }

    /// Expects that at some time within `patience` every request is answered.
    #[track_caller]
    pub fn expect_all_within(&self, patience: Duration) {
        let deadline = Instant::now() + patience;
        loop {
            let report = self.run();
            if report.received == report.sent || Instant::now() >= deadline {
                return report.expect_all();
            }
        }
    }
}

impl PingReport {
    fn parse(output: String) -> Self {
        let summary = output.lines().find(|line| line.contains("packets transmitted")).unwrap_or_default();
        let before = |word: &str| {
            let part = summary.split(", ").find(|part| part.contains(word));
            part.and_then(|part| part.trim_start_matches('+').split(' ').next()?.parse().ok()).unwrap_or(0)
        };
        let (sent, received) = (before("transmitted"), before("received"));
        let duplicates = before("duplicates");
        assert!(sent > 0, "ping did not run:\n{output}");
        Self { sent, received, duplicates, output }
    }

    /// Expects a reply to every request, and no duplicate.
    #[track_caller]
    pub fn expect_all(&self) {
        let all = self.received == self.sent && self.duplicates == 0;
        assert!(all, "expected {} replies, each once:\n{}", self.sent, self.output);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_summary_line_of_ping_is_understood() {
        let text = "5 packets transmitted, 4 received, +2 duplicates, +1 errors, 20% packet loss, time 4ms";
        let report = PingReport::parse(text.to_owned());
        assert_eq!((report.sent, report.received, report.duplicates), (5, 4, 2));
    }
}
