//! Adding to the index: one thread, one commit at a time.

use std::fs::File;
use std::ops::Bound;
use std::path::PathBuf;

use lapwing_engine::alert::Alert;
use serde::{Deserialize, Serialize};
use tantivy::indexer::IndexWriterOptions;
use tantivy::query::{BooleanQuery, Occur, Query, RangeQuery, TermQuery};
use tantivy::schema::IndexRecordOption;
use tantivy::{IndexWriter, TantivyDocument, Term};

use super::doc::{self, EventDoc, RejectDoc};
use super::index::classify;
use super::schema::Fields;
use super::{Index, Position, StoreError};

/// Memory of the indexing thread before it writes a segment, in bytes.
const HEAP: usize = 48 << 20;

/// Up to where the index holds the journals, inclusive. Stored with every commit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Progress {
    pub journal_lsn: u64,
    pub alert_lsn: u64,
}

/// The one writer of an index. What is added is found after the next [`Writer::commit`]. After an
/// error drop it, open the index again and read on from its progress.
pub struct Writer {
    inner: IndexWriter<TantivyDocument>,
    fields: Fields,
    dir: PathBuf,
    pending: usize,
}

impl Writer {
    pub(super) fn new(index: &Index) -> Result<Self, StoreError> {
        let options = IndexWriterOptions::builder()
            .num_worker_threads(1)
            .num_merge_threads(1)
            .memory_budget_per_thread(HEAP)
            .build();
        let inner = index.inner.writer_with_options(options).map_err(|e| classify(&index.dir, e))?;
        Ok(Self { inner, fields: index.fields, dir: index.dir.clone(), pending: 0 })
    }

    /// Adds the event at item `index` of journal record `lsn`. Adding it twice gives two documents:
    /// start from the index's progress.
    pub fn add_event(&mut self, event: &EventDoc<'_>, lsn: u64, index: u32) -> Result<(), StoreError> {
        self.add(doc::event(&self.fields, event, Position { lsn, index }))
    }

    /// Adds something unreadable at item `index` of journal record `lsn`.
    pub fn add_reject(&mut self, reject: &RejectDoc<'_>, lsn: u64, index: u32) -> Result<(), StoreError> {
        self.add(doc::reject(&self.fields, reject, Position { lsn, index }))
    }

    /// Adds the alert of record `lsn` of the alert journal in place of any earlier notice about it.
    pub fn add_alert(&mut self, alert: &Alert, lsn: u64) -> Result<(), StoreError> {
        self.inner.delete_term(Term::from_field_text(self.fields.alert_id, doc::cut(&alert.id)));
        self.add(doc::alert(&self.fields, alert, lsn))
    }

    /// Forgets everything older than `time` (microseconds since the epoch) with the next commit.
    pub fn delete_before(&mut self, time: i64) -> Result<(), StoreError> {
        let older = RangeQuery::new(Bound::Unbounded, Bound::Excluded(Term::from_field_i64(self.fields.time, time)));
        self.inner.delete_query(Box::new(older))?;
        Ok(())
    }

    /// Forgets events and rejects whose record in the event journal is below `lsn`, with the next commit.
    pub fn delete_records_before(&mut self, lsn: u64) -> Result<(), StoreError> {
        let gone = RangeQuery::new(Bound::Unbounded, Bound::Excluded(Term::from_field_u64(self.fields.lsn, lsn)));
        let alert = Term::from_field_text(self.fields.kind, "alert");
        let alert = TermQuery::new(alert, IndexRecordOption::Basic);
        let clauses: [(Occur, Box<dyn Query>); 2] = [(Occur::Must, Box::new(gone)), (Occur::MustNot, Box::new(alert))];
        self.inner.delete_query(Box::new(BooleanQuery::new(clauses.into())))?;
        Ok(())
    }

    /// How many documents wait for a commit.
    pub fn pending(&self) -> usize {
        self.pending
    }

    /// Makes everything added durable and findable, together with `progress`. When this returns, the
    /// journals may be trimmed up to there as far as the index is concerned.
    pub fn commit(&mut self, progress: Progress) -> Result<(), StoreError> {
        let mut prepared = self.inner.prepare_commit()?;
        prepared.set_payload(&payload(progress));
        prepared.commit()?;
        self.pending = 0;
        // tantivy renames `meta.json` without syncing the directory: a power cut could take it back.
        File::open(&self.dir)
            .and_then(|d| d.sync_all())
            .map_err(|source| StoreError::Io { path: self.dir.clone(), source })
    }

    /// Waits for merges to end, then closes. Dropping the writer abandons them, which is safe too.
    pub fn close(self) -> Result<(), StoreError> {
        Ok(self.inner.wait_merging_threads()?)
    }

    fn add(&mut self, doc: TantivyDocument) -> Result<(), StoreError> {
        self.inner.add_document(doc)?;
        self.pending += 1;
        Ok(())
    }
}

fn payload(progress: Progress) -> String {
    // Two numbers always serialise.
    serde_json::to_string(&progress).unwrap_or_default()
}
