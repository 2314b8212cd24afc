//! Which cards the tests may have. The environment names them by PCI address: WEIR_NIC_A is weir's, WEIR_NIC_B the card at
//! the other end of its cable; WEIR_NIC_C and WEIR_NIC_D are a second such pair. WEIR_XDP_A and WEIR_XDP_C may say which XDP mode weir
//! has to get from its cards.

use std::io::Write as _;
use std::sync::{Mutex, MutexGuard, PoisonError};

static CARDS: Mutex<()> = Mutex::new(());

/// A card for weir, and the one at the other end of its cable.
#[derive(Clone, Debug)]
pub(crate) struct Cable {
    pub(crate) card: String,
    pub(crate) far: String,
    /// The XDP mode that weir must get.
    pub(crate) xdp: Option<String>,
}

/// The cables, for one test at a time.
#[derive(Debug)]
pub(crate) struct Cables {
    pub(crate) list: Vec<Cable>,
    _turn: MutexGuard<'static, ()>,
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

fn cable(card: &str, far: &str, xdp: &str) -> Option<Cable> {
    Some(Cable { card: variable(card)?, far: variable(far)?, xdp: variable(xdp) })
}

/// Says that a test proved nothing, where `cargo test` shows it.
pub(crate) fn skipped(reason: &str) {
    let thread = std::thread::current();
    let test = thread.name().unwrap_or("test");
    let _ = writeln!(std::io::stdout(), "skipped: {test}: {reason}");
}

/// At least `least` cables; otherwise the test is skipped.
pub(crate) fn cables(least: usize) -> Option<Cables> {
    let first = cable("WEIR_NIC_A", "WEIR_NIC_B", "WEIR_XDP_A");
    let second = cable("WEIR_NIC_C", "WEIR_NIC_D", "WEIR_XDP_C");
    let list: Vec<Cable> = first.into_iter().chain(second).collect();
    if list.len() < least {
        skipped(match least {
            1 => "set WEIR_NIC_A and WEIR_NIC_B to PCI addresses of two cards that a cable joins",
            _ => {
                "set WEIR_NIC_A to WEIR_NIC_D to PCI addresses of two pairs of cards, each joined by a cable"
            }
        });
        return None;
    }
    // A test that failed let go of its cards all the same.
    Some(Cables { list, _turn: CARDS.lock().unwrap_or_else(PoisonError::into_inner) })
}
