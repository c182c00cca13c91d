//! The ways in. A source turns what it reads into [`Batch`]es and hands them to a [`Sink`]; it knows
//! neither the journal behind it nor the other sources.

pub mod file;
pub mod kafka;
pub mod webhook;

use std::future::Future;

use lapwing_engine::batch::Batch;

/// Where batches go: the journal, or a fake of it.
pub trait Sink: Send + Sync + 'static {
    /// `Ok` once the batch is durable, and only then. Back-pressure is waiting. Safe to cancel: a
    /// cancelled batch may or may not be stored, and is offered again.
    fn accept(&self, batch: Batch) -> impl Future<Output = Result<(), Refused>> + Send;

    /// A Kafka partition is ours from now on. A sink that stores each partition apart tells the next offset by what it
    /// has of it. Blocks.
    ///
    /// # Errors
    /// When it cannot be opened; the source ends.
    fn taken(&self, _topic: &str, _partition: i32) -> anyhow::Result<Option<i64>> {
        Ok(None)
    }

    /// A Kafka partition is ours no longer. Blocks until everything of it is closed.
    fn given_up(&self, _topic: &str, _partition: i32) {}
}

/// Why a batch was not stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Not now; the source offers it again after a while.
    #[error("the journal cannot take the batch now; it will be offered again")]
    Busy,
    /// Not here: the partition it came from is not ours any more, and somebody else reads it again.
    #[error("the partition has moved")]
    Moved,
    /// Never again; the source ends.
    #[error("the journal is closed")]
    Closed,
}

/// Microseconds since the epoch.
fn now() -> i64 {
    chrono::Utc::now().timestamp_micros()
}
