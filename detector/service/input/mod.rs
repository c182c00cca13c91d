//! From bytes to events: whatever shape a sender or a file uses, one item at a time.
//!
//! [`Events`] reads a stream in constant memory; [`split`] is the same for a body in memory and
//! returns what is journaled. Neither decides what an event means.

pub mod envelope;
mod reader;
mod scan;
mod split;

pub use reader::{Events, Progress, Unreadable};
pub use split::{Splitter, item, reason, split};

/// What one event may cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of one event. A larger one loses `requestObject` and `responseObject` and is marked with
    /// [`lapwing_engine::event::BODIES_DROPPED`]; one that is larger even then is rejected.
    pub item: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { item: 16 << 20 }
    }
}

/// Longest excerpt kept of something unreadable, in bytes.
pub const EXCERPT: usize = 4096;
