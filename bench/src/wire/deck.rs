//! The deck: every packet that a generator sends, in order; when it is through, it starts over. Streams and captures become one before
//! a run, so that generators only copy bytes and sign them.

use std::path::Path;

use weir_dataplane::io::pcap::CaptureReader;

use super::packet::{self, Template};
use super::stream::Stream;

/// Most packets and bytes of a deck.
const MOST_CARDS: usize = 1 << 21;
const MOST_BYTES: usize = 1 << 30;

/// One packet of the deck.
#[derive(Clone, Debug)]
pub(crate) struct Card {
    pub(crate) stream: u16,
    pub(crate) bytes: Vec<u8>,
}

/// What a sink must know of a stream.
#[derive(Clone, Debug, Default)]
pub(crate) struct StreamInfo {
    pub(crate) name: String,
    /// Payload bytes before the signature, by sequence number; then they start over.
    pub(crate) filled: Vec<u16>,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Deck {
    pub(crate) cards: Vec<Card>,
    pub(crate) streams: Vec<StreamInfo>,
    /// Captured packets that cannot carry a signature.
    pub(crate) skipped: usize,
}

impl Deck {
    /// Deals the packets of streams, each by its share.
    ///
    /// # Errors
    /// When a packet does not fit its length, or all of them do not fit memory.
    pub(crate) fn of_streams(streams: &[Stream]) -> Result<Self, String> {
        let hands: Vec<_> = streams.iter().map(Hand::new).collect();
        let rounds = hands.iter().map(Hand::rounds).max().unwrap_or(0);
        let round: usize = streams.iter().map(|stream| stream.share as usize).sum();
        let bytes = rounds.saturating_mul(hands.iter().map(Hand::bytes).sum());
        if rounds.saturating_mul(round) > MOST_CARDS || bytes > MOST_BYTES {
            return Err(format!(
                "the streams need {} different packets with {} MiB; at most {MOST_CARDS} with {} MiB can be sent. \
                 Use fewer flows, or shares that are closer to each other",
                rounds.saturating_mul(round),
                bytes >> 20,
                MOST_BYTES >> 20
            ));
        }
        let mut deck = Self::default();
        deck.streams.extend(streams.iter().map(|s| StreamInfo { name: s.name.clone(), filled: Vec::new() }));
        let turns = interleave(&streams.iter().map(|stream| stream.share).collect::<Vec<_>>());
        let mut next = vec![0; streams.len()];
        for _ in 0..rounds {
            for &turn in &turns {
                if let (Some(hand), Some(next)) = (hands.get(turn), next.get_mut(turn)) {
                    deck.add(turn as u16, hand.template(*next)?);
                    *next += 1;
                }
            }
        }
        Ok(deck)
    }

    /// Takes the UDP and TCP packets of a capture, as one stream.
    ///
    /// # Errors
    /// When the capture cannot be read, or no packet of it can carry a signature.
    pub(crate) fn of_capture(path: &Path) -> Result<Self, String> {
        let mut deck = Self::default();
        deck.streams.push(StreamInfo { name: "capture".into(), filled: Vec::new() });
        let mut bytes = 0;
        for record in CaptureReader::open(path).map_err(|error| error.to_string())? {
            let record = record.map_err(|error| error.to_string())?;
            match packet::adopt(&record.bytes).filter(|t| !record.truncated() && t.bytes.len() <= 2000) {
                Some(template) => {
                    bytes += template.bytes.len();
                    deck.add(0, template);
                }
                None => deck.skipped += 1,
            }
            if deck.cards.len() > MOST_CARDS || bytes > MOST_BYTES {
                return Err(format!("{}: more than {MOST_CARDS} packets", path.display()));
            }
        }
        match deck.cards.is_empty() {
            false => Ok(deck),
            true => Err(format!(
                "{}: none of its {} packets is UDP or TCP with at least 18 bytes of payload, which a signature needs",
                path.display(),
                deck.skipped
            )),
        }
    }

    fn add(&mut self, stream: u16, template: Template) {
        if let Some(info) = self.streams.get_mut(usize::from(stream)) {
            info.filled.push(template.filled as u16);
        }
        let mut bytes = template.bytes;
        // Ethernet's shortest frame, without frame check sequence, is always kept: such a one holds a signature.
        bytes.shrink_to_fit();
        self.cards.push(Card { stream, bytes });
    }

    /// Length of the longest packet in bytes.
    pub(crate) fn longest(&self) -> usize {
        self.cards.iter().map(|card| card.bytes.len()).max().unwrap_or(0)
    }

    /// Mean length in bytes.
    pub(crate) fn mean(&self) -> f64 {
        self.cards.iter().map(|card| card.bytes.len()).sum::<usize>() as f64 / self.cards.len().max(1) as f64
    }

    /// How many of the first `count` packets sent are of each stream.
    pub(crate) fn by_stream(&self, count: u64) -> Vec<u64> {
        let cards = self.cards.len().max(1) as u64;
        let (rounds, rest) = (count / cards, (count % cards) as usize);
        let mut counts: Vec<_> = self.streams.iter().map(|info| info.filled.len() as u64 * rounds).collect();
        for card in self.cards.iter().take(rest) {
            if let Some(count) = counts.get_mut(usize::from(card.stream)) {
                *count += 1;
            }
        }
        counts
    }
}

/// A stream's packets: flow and length both go round.
struct Hand<'a> {
    stream: &'a Stream,
    sizes: &'a [u16],
}

impl<'a> Hand<'a> {
    fn new(stream: &'a Stream) -> Self {
        Self { stream, sizes: stream.size.list() }
    }

    /// Packets until every flow had every length as often as the others, or nearly so: lengths change fastest.
    fn different(&self) -> usize {
        self.stream.flows as usize * self.sizes.len()
    }

    fn rounds(&self) -> usize {
        self.different().div_ceil(self.stream.share as usize)
    }

    /// Bytes of one round.
    fn bytes(&self) -> usize {
        usize::from(self.sizes.iter().copied().max().unwrap_or(0)) * self.stream.share as usize
    }

    fn template(&self, n: usize) -> Result<Template, String> {
        // Each pass over the flows starts one length further, so that a flow does not always get the same one.
        let flow = n % self.stream.flows as usize;
        let pass = n / self.stream.flows as usize;
        let size = self.sizes.get((n + pass) % self.sizes.len().max(1)).copied().unwrap_or_default();
        packet::build(self.stream, flow as u32, usize::from(size))
    }
}

/// One round of turns in which each stream has its share, as evenly spread as can be.
fn interleave(shares: &[u32]) -> Vec<usize> {
    let total: i64 = shares.iter().map(|share| i64::from(*share)).sum();
    let mut credit = vec![0i64; shares.len()];
    let mut turns = Vec::new();
    for _ in 0..total {
        for (credit, share) in credit.iter_mut().zip(shares) {
            *credit += i64::from(*share);
        }
        let richest = credit.iter().enumerate().max_by_key(|(n, credit)| (**credit, std::cmp::Reverse(*n)));
        let Some(chosen) = richest.map(|(n, _)| n) else { break };
        if let Some(credit) = credit.get_mut(chosen) {
            *credit -= total;
        }
        turns.push(chosen);
    }
    turns
}

#[cfg(test)]
mod tests {
    use super::super::stream::parse;
    use super::*;

    const MACS: &str = "source-mac = \"02:00:00:00:0a:01\"\ndestination-mac = \"02:00:00:00:0d:01\"\n\
        source = \"198.18.0.2\"\ndestination = { from = \"198.19.64.0\", count = 100 }\n";

    #[test]
    fn shares_are_kept_and_spread() {
        assert_eq!(interleave(&[3, 1]), [0, 0, 1, 0]);
        let text = format!("[stream.a]\nshare = 3\nflows = 5\n{MACS}[stream.b]\n{MACS}");
        let deck = Deck::of_streams(&parse(&text).unwrap()).unwrap();
        assert_eq!(deck.cards.len(), 8);
        assert_eq!((deck.streams[0].filled.len(), deck.streams[1].filled.len()), (6, 2));
        assert_eq!(deck.by_stream(8), [6, 2]);
        assert_eq!(deck.by_stream(1_000_003), [750_002, 250_001]);
    }

    #[test]
    fn a_mix_of_lengths_keeps_its_proportions_and_reaches_every_flow() {
        let text = format!("[stream.a]\nflows = 12\nsize = \"imix\"\n{MACS}");
        let deck = Deck::of_streams(&parse(&text).unwrap()).unwrap();
        let short = deck.cards.iter().filter(|card| card.bytes.len() == 64).count();
        assert_eq!((deck.cards.len(), short), (144, 84));
        let first: std::collections::HashSet<_> =
            deck.cards.iter().filter(|card| card.bytes[33] == 0).map(|card| card.bytes.len()).collect();
        assert_eq!(first.len(), 3);
    }

    #[test]
    fn too_many_packets_are_refused_with_a_remedy() {
        let text = format!("[stream.a]\nflows = 4000000\n{MACS}");
        let error = Deck::of_streams(&parse(&text).unwrap()).unwrap_err();
        assert!(error.contains("4000000 different packets"), "{error}");
    }
}
