//! How far the sources have come, by what the journal holds: each batch carries the position behind it.

use std::collections::HashMap;

use lapwing_engine::batch::{Batch, Origin};
use serde::{Deserialize, Serialize};

use super::event_record;
use crate::journal::{Journal, Lsn};
use crate::source::file::Position;

/// The last position of every Kafka partition and every file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Positions {
    /// Topic, partition, next offset.
    kafka: Vec<(String, i32, i64)>,
    files: HashMap<String, Position>,
}

impl Positions {
    /// Takes the position a batch carries; positions only come later in the journal.
    pub fn take(&mut self, origin: &Origin) {
        match origin {
            Origin::Kafka { topic, partition, next_offset } => {
                match self.kafka.iter_mut().find(|(t, p, _)| t == topic && p == partition) {
                    Some((_, _, next)) => *next = *next_offset,
                    None => self.kafka.push((topic.clone(), *partition, *next_offset)),
                }
            }
            Origin::File { path, identity, offset } => {
                self.files.insert(path.clone(), Position { identity: *identity, offset: *offset });
            }
            Origin::Webhook | Origin::Scan => {}
        }
    }

    /// Reads on behind `after`, to the end of the journal.
    pub fn read_on(&mut self, journal: &Journal, after: Lsn) {
        let mut reader = journal.reader(after);
        loop {
            match reader.next() {
                Ok(Some(record)) if record.kind == event_record::BATCH => {
                    if let Ok(batch) = Batch::decode(&record.payload) {
                        self.take(&batch.origin);
                    }
                }
                Ok(Some(_)) => {}
                Ok(None) => return,
                Err(error) => tracing::error!(%error, "journal is damaged here; a position in it is lost"),
            }
        }
    }

    pub fn kafka(&self) -> HashMap<(String, i32), i64> {
        self.kafka.iter().map(|(t, p, next)| ((t.clone(), *p), *next)).collect()
    }

    pub fn file(&self, path: &str) -> Option<Position> {
        self.files.get(path).copied()
    }
}
