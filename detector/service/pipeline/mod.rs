//! From journal to alerts and index: what lies in the two journals, and the threads that read them.
//!
//! Both the engine and the indexer read the journal and nothing else, so that live, restart and replay
//! run the same code. Neither touches a socket.

pub mod arrivals;
mod attempts;
pub mod canaries;
pub mod damage;
pub mod deliver;
pub mod detect;
mod identity;
pub mod index;
pub mod intake;
pub mod orders;
pub mod positions;
mod replay;
pub mod rulebook;
pub mod selfalert;
pub mod shelf;
pub mod snapshot;

/// Record kinds of the event journal.
pub mod event_record {
    /// A [`lapwing_engine::batch::Batch`].
    pub const BATCH: u8 = 1;
    /// Time passed: `i64` microseconds, little-endian.
    pub const TICK: u8 = 2;
    /// JSON of a [`lapwing_engine::baseline::Order`].
    pub const ORDER: u8 = 3;
    /// From here on other rules judge: the [`super::rulebook::Id`] of them.
    pub const RULES: u8 = 4;
}

/// Record kinds of the alert journal.
pub mod alert_record {
    /// JSON of one [`lapwing_engine::alert::Alert`].
    pub const ALERT: u8 = 1;
    /// Everything up to this event LSN (`u64`, little-endian) has been judged and its alerts are before this record.
    pub const PROGRESS: u8 = 2;
}

/// The number a record of eight bytes is.
fn number(payload: &[u8]) -> u64 {
    payload.first_chunk::<8>().map_or(0, |b| u64::from_le_bytes(*b))
}

/// Microseconds since the epoch, by the wall clock.
pub fn now_micros() -> i64 {
    chrono::Utc::now().timestamp_micros()
}
