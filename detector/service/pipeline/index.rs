//! The indexer thread: reads both journals and keeps the store up to date.
//!
//! The store is derived. It may lag, it may be thrown away; an error here drops the writer, opens the
//! index again and reads on from its last commit. Detection never waits for it.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use lapwing_engine::alert::{Alert, Level as Severity};
use lapwing_engine::batch::{Batch, Item, Origin};
use lapwing_engine::event::Event;
use lapwing_engine::facts::Facts;

use super::arrivals::Arrivals;
use super::attempts::{self, Attempts};
use super::identity::Identity;
use super::selfalert::{Notice, SelfAlerts};
use super::{alert_record, event_record, now_micros};
use crate::completeness::clocks::{Clocks, Skew};
use crate::journal::{Journal, Lsn, ReadError, Reader, Record};
use crate::metrics::Metrics;
use crate::space::{Level, Space};
use crate::store::{EventDoc, Index, Opened, Progress as Stored, RejectDoc, Writer};

/// Documents that may wait for a commit.
const MAX_PENDING: usize = 50_000;
const COMMIT_EVERY: Duration = Duration::from_secs(2);
const WAIT: Duration = Duration::from_millis(200);
/// After an error of the index: how long to let it rest.
const REST: Duration = Duration::from_secs(5);
/// Journal records read again after a start, so that what is delivered again is known: minutes of one API server.
const WARM_UP: u64 = 3000;
/// Longest piece of a sender's text in an alert, in characters.
const SHOWN: usize = 200;
const RETENTION_EVERY: Duration = Duration::from_secs(600);

/// Where the indexer is.
#[derive(Debug, Default)]
pub struct Progress {
    /// Everything up to this event LSN is durable in the index.
    pub indexed: AtomicU64,
    /// Everything up to this alert LSN is durable in the index.
    pub alerts_indexed: AtomicU64,
    /// Set to stop the thread after one last commit.
    pub stop: AtomicBool,
}

/// Everything the indexer thread owns.
pub struct Indexer {
    pub events: Journal,
    pub alerts: Journal,
    pub dir: PathBuf,
    /// Where is noted what ended the process.
    pub state: PathBuf,
    pub max_age: Option<Duration>,
    pub progress: Arc<Progress>,
    pub metrics: Arc<Metrics>,
    pub space: Arc<Space>,
    pub own: SelfAlerts,
    pub arrivals: Arc<Arrivals>,
}

struct Run<'a> {
    at: &'a Indexer,
    index: Index,
    writer: Writer,
    progress: Stored,
    identity: Identity,
    clocks: Clocks,
    attempts: &'a mut Attempts,
    committed: Instant,
    cleaned: Option<Instant>,
    /// First record of the event journal when the index was cleaned.
    first: u64,
}

impl Indexer {
    /// Runs until told to stop.
    pub fn run(self) {
        let (mut attempts, notice) = Attempts::open(&self.state, "indexer", Lsn(0));
        attempts::tell(notice, &self.metrics, &self.own);
        while !self.stopping() {
            match self.serve(&mut attempts) {
                Ok(()) => return,
                Err(error) => {
                    attempts.rest();
                    tracing::error!(%error, "index: starting again from its last commit; alerts are not affected");
                    let until = Instant::now() + REST;
                    while Instant::now() < until && !self.stopping() {
                        std::thread::park_timeout(WAIT);
                    }
                }
            }
        }
    }

    /// What the newest records up to `last` tell of events that may come again.
    fn identity(&self, last: u64) -> Identity {
        let mut identity = Identity::default();
        let mut reader = self.events.reader(Lsn(last.saturating_sub(WARM_UP)));
        while reader.position().0 < last && !self.stopping() {
            let Some(record) = next(&mut reader) else { break };
            let batch = (record.kind == event_record::BATCH).then(|| Batch::decode(&record.payload));
            let Some(Ok(batch)) = batch else { continue };
            for text in
                batch.items.iter().filter_map(|item| if let Item::Event(text) = item { Some(text) } else { None })
            {
                identity.is_first(&batch.cluster, text);
                if let Ok(event) = Event::parse(text) {
                    identity.is_reused(&batch.cluster, &event);
                    self.arrivals.stage(&batch.cluster, &event, batch.received);
                }
            }
        }
        identity
    }

    fn stopping(&self) -> bool {
        self.progress.stop.load(Ordering::Acquire)
    }

    fn serve(&self, attempts: &mut Attempts) -> anyhow::Result<()> {
        let (index, opened) = Index::open_or_rebuild(&self.dir)?;
        if let Opened::Rebuilt { why, moved_to } = opened {
            tracing::warn!(why, moved_to = %moved_to.display(), "index was damaged and is rebuilt from the journal");
        }
        let progress = index.progress();
        self.progress.indexed.store(progress.journal_lsn, Ordering::Release);
        self.progress.alerts_indexed.store(progress.alert_lsn, Ordering::Release);
        let mut run = Run {
            at: self,
            attempts,
            writer: index.writer()?,
            index,
            progress,
            identity: self.identity(progress.journal_lsn),
            clocks: Clocks::default(),
            committed: Instant::now(),
            cleaned: None,
            first: 1,
        };
        let mut events = self.events.reader(Lsn(progress.journal_lsn));
        let mut alerts = self.alerts.reader(Lsn(progress.alert_lsn));
        loop {
            if self.space.level() >= Level::NoIndex && !self.stopping() {
                run.attempts.rest();
                std::thread::park_timeout(WAIT);
                continue;
            }
            let busy = run.read(&mut events, &mut alerts)?;
            run.clean()?;
            if self.stopping() && !busy {
                run.commit()?;
                return Ok(());
            }
            if !busy {
                run.attempts.rest();
                run.commit_if_due()?;
                self.events.wait_past(Lsn(run.progress.journal_lsn), WAIT);
            }
        }
    }
}

impl Run<'_> {
    /// Reads one record of each journal; whether there was any.
    fn read(&mut self, events: &mut Reader, alerts: &mut Reader) -> anyhow::Result<bool> {
        let mut busy = false;
        if let Some(record) = next(events) {
            self.event_record(&record)?;
            self.progress.journal_lsn = record.lsn.0;
            busy = true;
        }
        if let Some(record) = next(alerts) {
            if record.kind == alert_record::ALERT {
                match serde_json::from_slice::<Alert>(&record.payload) {
                    Ok(alert) => self.writer.add_alert(&alert, record.lsn.0)?,
                    Err(error) => tracing::error!(lsn = record.lsn.0, %error, "alert cannot be read"),
                }
            }
            self.progress.alert_lsn = record.lsn.0;
            busy = true;
        }
        if self.writer.pending() >= MAX_PENDING {
            self.commit()?;
        }
        Ok(busy)
    }

    fn event_record(&mut self, record: &Record) -> anyhow::Result<()> {
        if record.kind != event_record::BATCH || self.attempts.begin(record.lsn) {
            return Ok(());
        }
        let batch = match Batch::decode(&record.payload) {
            Ok(batch) => batch,
            Err(error) => {
                tracing::error!(lsn = record.lsn.0, %error, "batch cannot be read");
                return Ok(());
            }
        };
        let (mut new, mut newest) = (0, None);
        for (index, item) in batch.items.iter().enumerate() {
            if self.attempts.item(index) {
                continue;
            }
            let index = index as u32;
            match item {
                Item::Event(text) if self.identity.is_first(&batch.cluster, text) => {
                    newest = newest.max(self.event(&batch, text, record.lsn.0, index)?);
                    new += 1;
                }
                Item::Event(_) => self.at.metrics.duplicates.inc(),
                Item::Reject { reason, detail, excerpt } => {
                    let reject = RejectDoc {
                        time: batch.received,
                        cluster: &batch.cluster,
                        reason: reason.as_str(),
                        detail,
                        excerpt,
                    };
                    self.writer.add_reject(&reject, record.lsn.0, index)?;
                }
            }
        }
        self.at.arrivals.new_events(&batch.cluster, new);
        newest.map_or(Ok(()), |newest| self.compare_clocks(&batch, newest))
    }

    /// `newest` is the latest time at which one of its events happened.
    fn compare_clocks(&mut self, batch: &Batch, newest: i64) -> anyhow::Result<()> {
        let held = batch.origin != Origin::Webhook;
        let Some(skew) = self.clocks.judge(&batch.cluster, batch.received, newest, held) else { return Ok(()) };
        self.at.metrics.clock_skew(&batch.cluster, skew.direction());
        match skew {
            Skew::Behind { certain: false, .. } => Ok(()),
            skew => Ok(self.at.own.raise(&wrong_clock(&batch.cluster, skew))?),
        }
    }

    /// Stores one event; answers when it happened.
    fn event(&mut self, batch: &Batch, text: &str, lsn: u64, index: u32) -> anyhow::Result<Option<i64>> {
        let Ok(event) = Event::parse(text) else { return Ok(None) };
        self.at.arrivals.stage(&batch.cluster, &event, batch.received);
        if self.identity.is_reused(&batch.cluster, &event) {
            self.at.metrics.audit_ids_reused.inc();
            self.at.own.raise(&reused(&batch.cluster, &event))?;
        }
        let facts = Facts::new(&event, text, &batch.cluster);
        let resource = if facts.resource.is_empty() { path(&event.request_uri) } else { facts.resource };
        let command = facts.exec().map_or("", |e| &e.command);
        let doc = EventDoc {
            time: event.time().unwrap_or(batch.received),
            cluster: &batch.cluster,
            actor: facts.actor(),
            actor_kind: facts.actor_kind,
            acting_as: facts.acting_as().unwrap_or_default(),
            verb: &event.verb,
            action: facts.action,
            resource,
            subresource: facts.subresource,
            namespace: facts.namespace,
            name: facts.name(),
            outcome: facts.outcome,
            code: event.code(),
            address: facts.address(),
            client: facts.client().0,
            audit_id: &event.audit_id,
            text: &[path(&event.request_uri), &event.user_agent, command],
        };
        self.writer.add_event(&doc, lsn, index)?;
        Ok(event.time())
    }

    fn commit_if_due(&mut self) -> anyhow::Result<()> {
        let (indexed, alerts) = (&self.at.progress.indexed, &self.at.progress.alerts_indexed);
        // Records without a document, such as the rules of a start, are read once too, and leave no lag.
        let moved = self.progress.journal_lsn > indexed.load(Ordering::Acquire)
            || self.progress.alert_lsn > alerts.load(Ordering::Acquire);
        if (self.writer.pending() > 0 || moved) && self.committed.elapsed() >= COMMIT_EVERY {
            return self.commit();
        }
        Ok(())
    }

    fn commit(&mut self) -> anyhow::Result<()> {
        self.attempts.rest();
        self.writer.commit(self.progress)?;
        self.committed = Instant::now();
        self.at.metrics.index_docs.set(i64::try_from(self.index.searcher()?.len()).unwrap_or(i64::MAX));
        self.at.progress.indexed.store(self.progress.journal_lsn, Ordering::Release);
        self.at.progress.alerts_indexed.store(self.progress.alert_lsn, Ordering::Release);
        Ok(())
    }

    /// Forgets what is older than retention allows, now and then, and what points to records that are gone.
    fn clean(&mut self) -> anyhow::Result<()> {
        let first = self.at.events.stat().first.0;
        if first > self.first {
            self.writer.delete_records_before(first)?;
            self.first = first;
        }
        let Some(max_age) = self.at.max_age else { return Ok(()) };
        if self.cleaned.is_some_and(|at| at.elapsed() < RETENTION_EVERY) {
            return Ok(());
        }
        self.cleaned = Some(Instant::now());
        let age = i64::try_from(max_age.as_micros()).unwrap_or(i64::MAX);
        Ok(self.writer.delete_before(now_micros().saturating_sub(age))?)
    }
}

fn path(uri: &str) -> &str {
    uri.split('?').next().unwrap_or_default()
}

/// The next record; damage is told and passed over, and what cannot be read now is read later.
fn next(reader: &mut Reader) -> Option<Record> {
    loop {
        match reader.next() {
            Ok(record) => return record,
            Err(error @ ReadError::Lost { .. }) => {
                tracing::error!(%error, "journal is damaged here; what is in it cannot be indexed");
            }
            Err(error) => {
                tracing::error!(%error, "journal cannot be read now; the index waits");
                std::thread::park_timeout(WAIT);
                return None;
            }
        }
    }
}

/// `user` gave a second request the audit id of another.
fn reused(cluster: &str, event: &Event<'_>) -> Notice {
    let cut = |text: &str| text.chars().take(SHOWN).collect::<String>();
    let (user, id) = (cut(&event.user.username), cut(&event.audit_id));
    Notice {
        id: "lapwing-audit-id-reused",
        title: "An audit id stands for two requests",
        level: Severity::Medium,
        cluster: cluster.to_owned(),
        summary: format!(
            "{user} sent {} {} under the audit id {id}, which stood for another request",
            cut(&event.verb),
            cut(&event.request_uri)
        ),
        subject: user,
        audit_ids: vec![id],
        why: "API servers make a new id for each request, unless the client sends one in the header Audit-ID. Whoever uses an id \
              again may want to be taken for a repetition and dropped by what reads audit logs. Lapwing judges both.",
        next_steps: &[
            "lapwing show AUDIT-ID shows what was done under it",
            "ask what the client is: ordinary ones do not send this header",
        ],
    }
}

/// The clock of an API server and ours differ.
fn wrong_clock(cluster: &str, skew: Skew) -> Notice {
    let summary = match skew {
        Skew::Ahead(by) => format!("An event of cluster {cluster} is {} seconds in the future", by / 1_000_000),
        Skew::Behind { by, .. } => format!(
            "Batches of cluster {cluster} hold nothing newer than {} seconds: a clock of it is behind, or events are held back \
             on their way",
            by / 1_000_000
        ),
    };
    Notice {
        id: "lapwing-clock-skew",
        title: "A clock is wrong",
        level: Severity::Medium,
        cluster: cluster.to_owned(),
        subject: skew.direction().to_owned(),
        summary,
        why: "Counts and sequences over time rest on the times API servers write. One that is wrong, or made so, moves events out \
              of the window a rule looks at.",
        next_steps: &[
            "compare the clocks of the API servers and of this machine",
            "behind: is there a forwarder with a backlog, or an API server whose audit buffer is full?",
        ],
        ..Notice::default()
    }
}
