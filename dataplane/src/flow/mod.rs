//! Flows: the masked key, the compiled program, a worker's flow table, and replay.
//!
//! This room knows decisions, not who made them. [`replay`] is the only place that edits packets which weir forwards.

pub mod compact;
pub mod flows;
pub mod key;
pub mod program;
pub mod programs;
pub mod quick;
pub mod replay;
mod strays;
pub mod table;

pub use compact::{CompactEntry, CompactKey, CompactRewrite, CompactTable};
pub use flows::{Cached, Flows, Place, Stamp};
pub use key::{FlowKey, FlowMask};
pub use program::{Ops, Program, Rewrite};
pub use programs::{ProgramId, ProgramTable, Shared};
pub use quick::{Forward, Known, Quick, Ready};
pub use replay::{Egress, Exception, InnerLink, Outcome, Replay};
pub use table::{FlowTable, Slot};
