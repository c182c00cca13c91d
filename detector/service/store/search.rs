//! Asking the index: hits sorted by time, read from the columns.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use lapwing_engine::alert::Level;
use lapwing_engine::event::to_datetime;
use serde::Serialize;
use tantivy::collector::{Collector, Count, SegmentCollector, TopDocs};
use tantivy::query::Weight;
use tantivy::schema::Value;
use tantivy::{DocAddress, SegmentReader, TantivyDocument};

use super::compile::compile;
use super::doc::Extra;
use super::index::{damaged, guarded};
use super::schema::Fields;
use super::{Position, Query, StoreError};

/// The most hits one question returns.
pub const MAX_LIMIT: usize = 10_000;

/// How long a question may take unless it says otherwise.
pub const TIME_LIMIT: Duration = Duration::from_secs(10);

/// What a document is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    Event,
    Alert,
    Reject,
}

/// Which end of time comes first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Order {
    #[default]
    Newest,
    Oldest,
}

/// A question: what, how many, in which order.
#[derive(Clone, Debug)]
pub struct Ask {
    pub query: Query,
    /// At most [`MAX_LIMIT`]; more is cut.
    pub limit: usize,
    pub order: Order,
    /// What takes longer is given up.
    pub within: Duration,
}

/// The hits asked for, and how many there are in all.
#[derive(Clone, Debug)]
pub struct Answer {
    pub hits: Vec<Hit>,
    pub total: usize,
}

/// One document found, as much of it as the index keeps. Empty text means absent. Its JSON is what
/// `lapwing search --output ndjson` prints.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Hit {
    pub time: DateTime<Utc>,
    pub kind: Kind,
    #[serde(serialize_with = "as_text")]
    pub position: Position,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub cluster: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub level: Option<Level>,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub actor: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub acting_as: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub action: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub verb: String,
    /// `resource`, `resource/subresource`, or a path.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub resource: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub namespace: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub outcome: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<u16>,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub address: String,
    /// All of an alert's events, in no particular order.
    #[serde(rename = "auditIDs", skip_serializing_if = "Vec::is_empty")]
    pub audit_ids: Vec<String>,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub rule: String,
    /// Alert id.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub id: String,
    /// Title of the rule.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub title: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub summary: String,
    /// Findings grouped in the alert.
    #[serde(skip_serializing_if = "is_zero")]
    pub count: u64,
}

fn as_text<S: serde::Serializer>(at: &Position, s: S) -> Result<S::Ok, S::Error> {
    s.collect_str(at)
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it with a reference")]
fn is_zero(n: &u64) -> bool {
    *n == 0
}

/// A view of one commit; what is committed later is not in it.
#[derive(Clone)]
pub struct Searcher {
    inner: tantivy::Searcher,
    fields: Fields,
    dir: PathBuf,
}

impl Searcher {
    pub(super) fn new(inner: tantivy::Searcher, fields: Fields, dir: PathBuf) -> Self {
        Self { inner, fields, dir }
    }

    /// Documents in this view.
    pub fn len(&self) -> u64 {
        self.inner.num_docs()
    }

    /// Nothing in it.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Answers `ask`.
    ///
    /// # Errors
    /// When it takes longer than `ask.within`, or the index is damaged.
    pub fn search(&self, ask: &Ask) -> Result<Answer, StoreError> {
        let (tell, told) = mpsc::sync_channel(1);
        let stop = Arc::new(AtomicBool::new(false));
        let (this, asked, watch) = (self.clone(), ask.clone(), Arc::clone(&stop));
        let deadline = Instant::now() + ask.within;
        // Some queries keep tantivy busy before it asks for the first document: a thread of its own can be left to itself,
        // and ends by its flag as soon as it collects.
        let work = move || {
            let _ = tell.send(guarded(&this.dir, || Ok(this.try_search(&asked, &watch)?)));
        };
        let thread = std::thread::Builder::new().name("search".to_owned()).stack_size(8 << 20).spawn(work);
        thread.map_err(|source| StoreError::Io { path: self.dir.clone(), source })?;
        let left = deadline.saturating_duration_since(Instant::now());
        match told.recv_timeout(left) {
            Ok(answer) => answer,
            Err(mpsc::RecvTimeoutError::Timeout) => {
                stop.store(true, Ordering::Release);
                Err(StoreError::TooSlow { limit: ask.within })
            }
            Err(mpsc::RecvTimeoutError::Disconnected) => Err(damaged(&self.dir, "a search ended without an answer")),
        }
    }

    fn try_search(&self, ask: &Ask, stop: &Arc<AtomicBool>) -> tantivy::Result<Answer> {
        let query = compile(&ask.query, &self.fields);
        let order = match ask.order {
            Order::Newest => tantivy::Order::Desc,
            Order::Oldest => tantivy::Order::Asc,
        };
        let limit = ask.limit.min(MAX_LIMIT);
        if limit == 0 {
            return Ok(Answer {
                hits: Vec::new(),
                total: self.inner.search(&*query, &Stoppable { inner: Count, stop: Arc::clone(stop) })?,
            });
        }
        let top = TopDocs::with_limit(limit).order_by_fast_field::<i64>("time", order);
        let (found, total) = self.inner.search(&*query, &Stoppable { inner: (top, Count), stop: Arc::clone(stop) })?;
        let hits = found.into_iter().map(|(time, at)| match stop.load(Ordering::Acquire) {
            true => Err(given_up()),
            false => self.hit(time.unwrap_or_default(), at),
        });
        Ok(Answer { hits: hits.collect::<tantivy::Result<_>>()?, total })
    }

    fn hit(&self, time: i64, at: DocAddress) -> tantivy::Result<Hit> {
        let row = Row { segment: self.inner.segment_reader(at.segment_ord), doc: at.doc_id };
        let kind = match row.text("kind")?.as_str() {
            "alert" => Kind::Alert,
            "reject" => Kind::Reject,
            _ => Kind::Event,
        };
        let extra = if kind == Kind::Event { Extra::default() } else { self.extra(at)? };
        let index = u32::try_from(row.number("item")?.unwrap_or_default()).unwrap_or(u32::MAX);
        Ok(Hit {
            time: to_datetime(time),
            kind,
            position: Position { lsn: row.number("lsn")?.unwrap_or_default(), index },
            cluster: row.text("cluster")?,
            level: Level::parse(&row.text("level")?),
            actor: row.text("actor")?,
            acting_as: row.text("acting_as")?,
            action: row.text("action")?,
            verb: row.text("verb")?,
            resource: row.text("resource")?,
            namespace: row.text("namespace")?,
            name: row.text("name")?,
            outcome: row.text("outcome")?,
            code: row.number("code")?.and_then(|c| u16::try_from(c).ok()),
            address: row.text("address")?,
            audit_ids: row.texts("audit_id", usize::MAX)?,
            rule: row.text("rule")?,
            id: extra.id,
            title: extra.title,
            summary: extra.summary,
            count: extra.count,
        })
    }

    fn extra(&self, at: DocAddress) -> tantivy::Result<Extra> {
        let doc: TantivyDocument = self.inner.doc(at)?;
        let bytes = doc.get_first(self.fields.extra).and_then(|v| v.as_bytes());
        Ok(bytes.and_then(|b| serde_json::from_slice(b).ok()).unwrap_or_default())
    }
}

/// Nobody waits for this answer any more.
fn given_up() -> tantivy::TantivyError {
    tantivy::TantivyError::InternalError("given up".to_owned())
}

/// Collects until told to stop.
struct Stoppable<C> {
    inner: C,
    stop: Arc<AtomicBool>,
}

impl<C: Collector> Collector for Stoppable<C> {
    type Fruit = C::Fruit;
    type Child = C::Child;

    fn for_segment(&self, segment: u32, reader: &SegmentReader) -> tantivy::Result<Self::Child> {
        self.inner.for_segment(segment, reader)
    }

    fn requires_scoring(&self) -> bool {
        self.inner.requires_scoring()
    }

    fn merge_fruits(&self, all: Vec<<Self::Child as SegmentCollector>::Fruit>) -> tantivy::Result<Self::Fruit> {
        self.inner.merge_fruits(all)
    }

    fn collect_segment(
        &self,
        weight: &dyn Weight,
        segment: u32,
        reader: &SegmentReader,
    ) -> tantivy::Result<<Self::Child as SegmentCollector>::Fruit> {
        let (mut child, alive) = (self.for_segment(segment, reader)?, reader.alive_bitset());
        let mut documents = weight.scorer(reader, 1.0)?;
        let mut document = documents.doc();
        while document != tantivy::TERMINATED {
            if self.stop.load(Ordering::Acquire) {
                return Err(given_up());
            }
            if alive.is_none_or(|alive| alive.is_alive(document)) {
                child.collect(document, 0.0);
            }
            document = documents.advance();
        }
        Ok(child.harvest())
    }
}

/// The columns of one document.
struct Row<'a> {
    segment: &'a SegmentReader,
    doc: u32,
}

impl Row<'_> {
    /// The first value, or nothing.
    fn text(&self, column: &str) -> tantivy::Result<String> {
        Ok(self.texts(column, 1)?.pop().unwrap_or_default())
    }

    fn texts(&self, column: &str, most: usize) -> tantivy::Result<Vec<String>> {
        let Some(column) = self.segment.fast_fields().str(column)? else { return Ok(Vec::new()) };
        let mut out = Vec::new();
        for ord in column.term_ords(self.doc).take(most) {
            let mut text = String::new();
            column.ord_to_str(ord, &mut text)?;
            out.push(text);
        }
        Ok(out)
    }

    fn number(&self, column: &str) -> tantivy::Result<Option<u64>> {
        Ok(self.segment.fast_fields().column_opt::<u64>(column)?.and_then(|c| c.first(self.doc)))
    }
}
