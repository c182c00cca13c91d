//! From batch to journal: the sink of every source.

use std::sync::Arc;

use lapwing_engine::batch::{Batch, Item, Origin};

use super::arrivals::Arrivals;
use super::event_record;
use crate::journal::{AppendError, Journal};
use crate::metrics::Metrics;
use crate::source::{Refused, Sink};
use crate::space::{Level, Space};

/// Stores batches in the journal.
#[derive(Clone)]
pub struct Intake {
    journal: Journal,
    metrics: Arc<Metrics>,
    space: Arc<Space>,
    arrivals: Arc<Arrivals>,
}

/// Why a batch was not stored, in words for its sender.
#[derive(Debug, thiserror::Error)]
pub enum NotStored {
    #[error("the disk of `dataDir` is almost full ({} MiB free); nothing is taken in until there is room", .free >> 20)]
    NoRoom { free: u64 },
    #[error(transparent)]
    Append(#[from] AppendError),
}

impl Intake {
    pub fn new(journal: Journal, metrics: Arc<Metrics>, space: Arc<Space>, arrivals: Arc<Arrivals>) -> Self {
        Self { journal, metrics, space, arrivals }
    }

    /// `Ok` once the batch is on disk, and only then. The error tells the sender why not.
    pub async fn store(&self, batch: Batch) -> Result<(), NotStored> {
        if self.space.level() == Level::NoIntake {
            return Err(NotStored::NoRoom { free: self.space.free() });
        }
        let has_events = batch.items.iter().any(|item| matches!(item, Item::Event(_)));
        self.journal.append(event_record::BATCH, batch.encode()).await?;
        if has_events {
            self.arrivals.canaries.look_in(&batch);
            self.arrivals.came(&batch.cluster, batch.received);
        }
        Ok(())
    }

    fn count(&self, batch: &Counted) {
        self.metrics.stored(&batch.cluster, batch.source, batch.events, batch.received as f64 / 1e6);
        for reason in &batch.rejects {
            self.metrics.rejected(&batch.cluster, *reason);
        }
    }
}

/// What is counted of a batch once it is stored.
struct Counted {
    cluster: String,
    source: &'static str,
    received: i64,
    events: u64,
    rejects: Vec<lapwing_engine::batch::RejectReason>,
}

impl Counted {
    fn of(batch: &Batch) -> Self {
        let reject = |item: &Item| match item {
            Item::Event(_) => None,
            Item::Reject { reason, .. } => Some(*reason),
        };
        let rejects: Vec<_> = batch.items.iter().filter_map(reject).collect();
        Self {
            cluster: batch.cluster.clone(),
            source: batch.origin.name(),
            received: batch.received,
            events: (batch.items.len() - rejects.len()) as u64,
            rejects,
        }
    }
}

impl Sink for Intake {
    async fn accept(&self, batch: Batch) -> Result<(), Refused> {
        // The webhook counts what it answers itself.
        let counted = (batch.origin != Origin::Webhook).then(|| Counted::of(&batch));
        match self.store(batch).await {
            Ok(()) => {
                counted.iter().for_each(|c| self.count(c));
                Ok(())
            }
            Err(NotStored::Append(AppendError::Closed)) => Err(Refused::Closed),
            Err(error) => {
                tracing::debug!(%error, "a batch has to wait");
                Err(Refused::Busy)
            }
        }
    }
}
