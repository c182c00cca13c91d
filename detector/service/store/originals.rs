//! What the index points at: raw events and whole alerts, wherever they are kept.

use std::cell::RefCell;
use std::collections::HashMap;
use std::path::Path;

use anyhow::Context as _;
use lapwing_engine::alert::Alert;
use lapwing_engine::batch::{Batch, Item};

use super::Position;
use crate::journal::{self, Lsn};

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

/// Something that gives back journal records: `(kind, payload)` by LSN, `None` once trimmed.
pub trait Records {
    fn record(&self, lsn: u64) -> anyhow::Result<Option<(u8, Vec<u8>)>>;
}

/// The two journals of a data directory. Remembers the batch it read last: hits come in runs.
pub struct Journals<R> {
    events: R,
    alerts: R,
    last: RefCell<Option<(u64, Batch)>>,
}

impl<R> Journals<R> {
    pub fn new(events: R, alerts: R) -> Self {
        Self { events, alerts, last: RefCell::new(None) }
    }
}

/// Record kind of a batch in the event journal and of an alert in the alert journal.
const KIND: u8 = 1;

impl<R: Records> Originals for Journals<R> {
    fn event(&self, at: Position) -> anyhow::Result<Option<String>> {
        let mut last = self.last.borrow_mut();
        if last.as_ref().is_none_or(|(lsn, _)| *lsn != at.lsn) {
            let Some((KIND, payload)) = self.events.record(at.lsn)? else { return Ok(None) };
            let batch = Batch::decode(&payload).with_context(|| format!("journal record {}", at.lsn))?;
            *last = Some((at.lsn, batch));
        }
        let item = last.as_ref().and_then(|(_, batch)| batch.items.get(at.index as usize));
        Ok(item.map(|item| match item {
            Item::Event(text) => text.clone(),
            Item::Reject { excerpt, .. } => excerpt.clone(),
        }))
    }

    fn alert(&self, lsn: u64) -> anyhow::Result<Option<Alert>> {
        let Some((KIND, payload)) = self.alerts.record(lsn)? else { return Ok(None) };
        Ok(Some(serde_json::from_slice(&payload).with_context(|| format!("alert journal record {lsn}"))?))
    }
}

impl Records for Option<journal::ReadOnly> {
    fn record(&self, lsn: u64) -> anyhow::Result<Option<(u8, Vec<u8>)>> {
        let Some(journal) = self else { return Ok(None) };
        Ok(journal.get(Lsn(lsn))?.map(|r| (r.kind, r.payload)))
    }
}

/// The originals of `data_dir`, for reading beside a running daemon. A journal that is not there
/// holds nothing.
pub fn open(data_dir: &Path) -> anyhow::Result<Box<dyn Originals>> {
    let open = |name: &str| {
        let dir = data_dir.join(name);
        dir.is_dir().then(|| journal::open_read_only(&dir)).transpose()
    };
    Ok(Box::new(Journals::new(open("journal")?, open("alerts")?)))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may stop")]
mod tests {
    use super::*;
    use lapwing_engine::batch::{Origin, RejectReason};

    struct Map(HashMap<u64, (u8, Vec<u8>)>);

    impl Records for Map {
        fn record(&self, lsn: u64) -> anyhow::Result<Option<(u8, Vec<u8>)>> {
            Ok(self.0.get(&lsn).cloned())
        }
    }

    #[test]
    fn records_give_back_their_items() {
        let reject = Item::Reject { reason: RejectReason::NotJson, detail: "d".into(), excerpt: "{".into() };
        let items = vec![Item::Event("{\"a\":1}".into()), reject];
        let batch = Batch { cluster: "c".into(), origin: Origin::Webhook, received: 1, items };
        let other = Batch { items: vec![Item::Event("7".into())], ..batch.clone() };
        let alert = crate::store::tests::alert("x", 1, 1);
        let journals = Journals::new(
            Map(HashMap::from([
                (4, (1, batch.encode())),
                (5, (9, vec![])),
                (6, (1, vec![7])),
                (7, (1, other.encode())),
            ])),
            Map(HashMap::from([(2, (1, serde_json::to_vec(&alert).unwrap())), (3, (2, vec![]))])),
        );
        let event = |lsn, index| journals.event(Position { lsn, index });
        assert_eq!(event(4, 0).unwrap().as_deref(), Some("{\"a\":1}"));
        assert_eq!(event(4, 1).unwrap().as_deref(), Some("{"));
        assert_eq!(event(4, 2).unwrap(), None);
        assert_eq!(event(7, 0).unwrap().as_deref(), Some("7"), "not the batch read before");
        assert_eq!(event(4, 0).unwrap().as_deref(), Some("{\"a\":1}"));
        assert_eq!(event(5, 0).unwrap(), None, "another kind of record");
        assert_eq!(event(1, 0).unwrap(), None, "trimmed");
        assert!(event(6, 0).is_err());
        assert_eq!(journals.alert(2).unwrap(), Some(alert));
        assert_eq!(journals.alert(3).unwrap(), None, "progress is no alert");
    }

    #[test]
    fn the_journals_of_a_data_directory_are_read() {
        let dir = tempfile::tempdir().unwrap();
        let alert = crate::store::tests::alert("x", 1, 1);
        let items = vec![Item::Event("{}".into()), Item::Event("{\"a\":1}".into())];
        let batch = Batch { cluster: "c".into(), origin: Origin::Webhook, received: 1, items };
        assert!(open(dir.path()).unwrap().alert(1).unwrap().is_none(), "no journal yet");
        let append = |name: &str, payload: Vec<u8>| {
            let (journal, _) = journal::Journal::open(&dir.path().join(name), journal::Options::default()).unwrap();
            journal.append_blocking(KIND, payload).unwrap().0
        };
        let lsn = append("journal", batch.encode());
        let alert_lsn = append("alerts", serde_json::to_vec(&alert).unwrap());
        let originals = open(dir.path()).unwrap();
        assert_eq!(originals.event(Position { lsn, index: 1 }).unwrap().as_deref(), Some("{\"a\":1}"));
        assert_eq!(originals.event(Position { lsn: lsn + 9, index: 0 }).unwrap(), None);
        assert_eq!(originals.alert(alert_lsn).unwrap(), Some(alert));
    }
}
