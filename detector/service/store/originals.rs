//! What the index points at: raw events and whole alerts, wherever they are kept.

use std::collections::HashMap;

use lapwing_engine::alert::Alert;

use super::Position;

/// Gives back originals by position. The journals are the real one, a map the fake.
pub trait Originals {
    /// The JSON text of the event or the excerpt of the reject there; `None` once retention removed it.
    fn event(&self, at: Position) -> anyhow::Result<Option<String>>;
    /// The alert of record `lsn` of the alert journal; `None` once retention removed it.
    fn alert(&self, lsn: u64) -> anyhow::Result<Option<Alert>>;
}

/// Originals in memory, for tests.
#[derive(Debug, Default)]
pub struct InMemory {
    pub events: HashMap<Position, String>,
    pub alerts: HashMap<u64, Alert>,
}

impl Originals for InMemory {
    fn event(&self, at: Position) -> anyhow::Result<Option<String>> {
        Ok(self.events.get(&at).cloned())
    }

    fn alert(&self, lsn: u64) -> anyhow::Result<Option<Alert>> {
        Ok(self.alerts.get(&lsn).cloned())
    }
}
