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
}

/// Why a batch was not stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Not now; the source offers it again after a while.
    #[error("the journal cannot take the batch now; it will be offered again")]
    Busy,
    /// Never again; the source ends.
    #[error("the journal is closed")]
    Closed,
}

/// The sources that fetch by themselves.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Deserialize, serde::Serialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct Config {
    /// Audit log files to follow through rotation.
    pub files: Vec<file::Config>,
    /// Kafka consumers.
    pub kafka: Vec<kafka::Config>,
}

/// Microseconds since the epoch.
fn now() -> i64 {
    chrono::Utc::now().timestamp_micros()
}
