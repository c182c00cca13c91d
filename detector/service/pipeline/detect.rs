//! The engine thread: reads the journal in order, judges, and makes alerts durable.
//!
//! An alert is in the alert journal before any output sees it, together with a progress mark. After a
//! restart the engine resumes from a snapshot; what lies before the last progress mark is judged again,
//! to rebuild its memory, and appended not again: no alert is lost and none repeated.

mod rules;
mod start;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context;
use lapwing_engine::alert::Alert;
use lapwing_engine::baseline::Order;
use lapwing_engine::batch::{Batch, Item};
use lapwing_engine::engine::{Engine, Output};

use super::attempts::{self, Attempts};
use super::orders;
use super::positions::Positions;
use super::replay::{self, Check};
use super::rulebook::{self, Rulebook};
use super::selfalert::SelfAlerts;
use super::shelf::ColdFiles;
use super::snapshot::{self, Stored};
use super::{alert_record, damage, event_record, now_micros, number};
use crate::journal::{Journal, Loss, Lsn, ReadError, Record};
use crate::metrics::Metrics;
use crate::space::Space;

/// Alerts that may wait to be written together.
const MAX_PENDING: usize = 256;
/// Longest wait before progress is marked although there is no alert.
const MARK_EVERY: Duration = Duration::from_secs(1);
const SNAPSHOT_EVERY: Duration = Duration::from_secs(30);
/// Snapshots take at most one part in so many of the time.
const SAVE_SHARE: u32 = 20;
/// Ticks are journaled no more often than this.
const TICK_EVERY: Duration = Duration::from_secs(1);
/// How long to sleep on the journal when there is nothing to read.
const WAIT: Duration = Duration::from_millis(200);

/// Where the engine thread is, for readiness, metrics and the drain.
#[derive(Debug, Default)]
pub struct Progress {
    /// Everything up to this event LSN has been judged and its alerts are durable.
    pub judged: AtomicU64,
    /// Set to stop the thread once it has caught up.
    pub stop: AtomicBool,
}

/// A rulebook to change to.
pub type NewRules = Arc<std::sync::Mutex<Option<Arc<Rulebook>>>>;

/// Everything the engine thread owns.
pub struct Detect {
    pub events: Journal,
    pub alerts: Journal,
    pub state: PathBuf,
    /// Where rulebooks are kept.
    pub rules: PathBuf,
    /// The one that is wanted, and judges where the journal names none.
    pub rulebook: Arc<Rulebook>,
    pub engine: Engine,
    pub options: lapwing_engine::engine::Options,
    pub progress: Arc<Progress>,
    pub metrics: Arc<Metrics>,
    pub own: SelfAlerts,
    pub space: Arc<Space>,
    pub new_rules: NewRules,
}

struct Run {
    at: Detect,
    /// Alerts up to here were durable before this start.
    durable_before: u64,
    last: u64,
    positions: Positions,
    now: i64,
    /// The rulebook the engine has.
    judging: rulebook::Id,
    /// The last one the journal names, as far as it is read.
    named: Option<rulebook::Id>,
    /// The last one that was written into the journal.
    announced: Option<rulebook::Id>,
    attempts: Attempts,
    /// While what is judged was judged before.
    check: Option<Check>,
    pending: Vec<Alert>,
    marked: Instant,
    saved: Instant,
    saved_lsn: u64,
    ticked: Option<Instant>,
    /// When orders were last looked for.
    looked: Instant,
    /// How long the last snapshot took: a large one is taken less often.
    save_took: Duration,
    told: Told,
    /// Identities that memory has no room for.
    cold: Option<ColdFiles>,
}

/// What of the engine's counts has been given to the metrics, or was before it came here.
#[derive(Default)]
struct Told {
    truncated: u64,
    evicted: u64,
    forgotten: std::collections::HashMap<&'static str, u64>,
    baselines_evicted: u64,
    baselines_lost: u64,
    undecidable: std::collections::HashMap<u32, u64>,
}

impl Told {
    /// Nothing of what `engine` meets from here on: what it forgot before was counted then.
    fn of(engine: &Engine) -> Self {
        let baselines = engine.baselines().map(|b| b.counts());
        Self {
            evicted: engine.evicted(),
            forgotten: engine.memory().sizes().map(|(kind, _, n)| (kind, n)).collect(),
            baselines_evicted: baselines.map_or(0, |b| b.evicted),
            baselines_lost: baselines.map_or(0, |b| b.lost),
            ..Self::default()
        }
    }
}

impl Detect {
    /// Runs until told to stop; an error means the journals cannot be trusted and the process must end.
    pub fn run(mut self) -> anyhow::Result<()> {
        let start = self.resume()?;
        let cold = self.shelve()?;
        self.import();
        let before = replay::before(&self.alerts, start.alert_lsn);
        let durable_before = before.mark.max(start.lsn);
        if durable_before > 0 {
            tracing::info!(snapshot = start.lsn, judged = durable_before, "resuming");
        }
        self.progress.judged.store(durable_before, Ordering::Release);
        let (attempts, notice) = Attempts::open(&self.state, "engine", Lsn(durable_before));
        attempts::tell(notice, &self.metrics, &self.own);
        let time = Instant::now();
        let run = Run {
            attempts,
            durable_before,
            last: start.lsn,
            positions: start.positions,
            now: start.now,
            judging: start.judging,
            named: start.named,
            announced: None,
            check: before.check.filter(|_| start.ours),
            pending: Vec::new(),
            marked: time,
            saved: time,
            saved_lsn: start.lsn,
            ticked: None,
            looked: time,
            save_took: Duration::ZERO,
            told: Told::of(&self.engine),
            cold,
            at: self,
        };
        run.run(start.lsn)
    }
}

impl Run {
    fn run(mut self, start: u64) -> anyhow::Result<()> {
        let mut reader = self.at.events.reader(Lsn(start));
        loop {
            match reader.next() {
                Ok(Some(record)) => {
                    self.announce_rules();
                    self.step(&record);
                    if self.pending.len() >= MAX_PENDING {
                        self.commit()?;
                    }
                }
                Ok(None) => {
                    self.commit()?;
                    self.announce_rules();
                    if self.at.progress.stop.load(Ordering::Acquire) {
                        self.save()?;
                        return Ok(());
                    }
                    self.tick_if_due();
                    self.take_orders();
                    self.at.events.wait_past(Lsn(self.last), WAIT);
                }
                Err(ReadError::Lost { to, cause: Loss::Trimmed, .. }) => {
                    self.check = None;
                    tracing::info!(to = to.0, "retention has removed the journal up to here");
                }
                Err(error @ ReadError::Lost { .. }) => {
                    self.check = None;
                    self.at.metrics.journal_damage.inc();
                    tracing::error!(%error, "journal is damaged here; the events in it could not be judged");
                    if let Err(error) = self.at.own.raise(&damage::notice("event", &error.to_string())) {
                        tracing::error!(%error, "nobody could be told of the damage");
                    }
                }
                Err(error) => {
                    tracing::error!(%error, "journal cannot be read now; trying again");
                    if self.at.progress.stop.load(Ordering::Acquire) {
                        return Ok(());
                    }
                    std::thread::park_timeout(WAIT);
                }
            }
            if self.saved.elapsed() >= SNAPSHOT_EVERY.max(self.save_took * SAVE_SHARE) && self.last > self.saved_lsn {
                self.commit()?;
                self.save()?;
            }
        }
    }

    fn step(&mut self, record: &Record) {
        let mut out = Output::default();
        if self.named.is_none() && record.kind != event_record::RULES {
            // Of before rulebooks were kept: nobody knows what judged it.
            self.check = None;
        }
        match record.kind {
            _ if self.attempts.begin(record.lsn) => {}
            event_record::BATCH => match Batch::decode(&record.payload) {
                Ok(batch) => self.batch(&batch, record.lsn, &mut out),
                Err(error) => tracing::error!(lsn = record.lsn.0, %error, "batch cannot be read"),
            },
            event_record::TICK => {
                self.now = self.now.max(number(&record.payload) as i64);
                self.at.engine.tick(self.now, &mut out);
            }
            event_record::ORDER => self.follow(&record.payload),
            event_record::RULES => self.change_rules(&record.payload),
            kind => tracing::warn!(kind, lsn = record.lsn.0, "record of a newer version is passed over"),
        }
        self.last = record.lsn.0;
        if record.lsn.0 > self.durable_before {
            self.count(&out);
            self.pending.append(&mut out.alerts);
        } else if let Some(check) = &mut self.check {
            check.came(&out.alerts);
        }
        if record.lsn.0 >= self.durable_before {
            self.end_check();
        }
    }

    /// All that was judged before is judged again.
    fn end_check(&mut self) {
        let Some(notice) = self.check.take().and_then(Check::over) else { return };
        self.at.metrics.replay_divergence.inc();
        tracing::error!("{}", notice.summary);
        if let Err(error) = self.at.own.raise(&notice) {
            tracing::error!(%error, "nobody could be told that the replay diverged");
        }
    }

    fn batch(&mut self, batch: &Batch, lsn: Lsn, out: &mut Output) {
        self.now = self.now.max(batch.received);
        self.positions.take(&batch.origin);
        let live = (lsn.0 > self.durable_before).then(now_micros);
        for (index, item) in batch.items.iter().enumerate() {
            let Item::Event(text) = item else { continue };
            if self.attempts.item(index) {
                continue;
            }
            #[cfg(test)]
            tests::crash_at(text);
            let position = || format!("{}:{index}", lsn.0);
            match self.at.engine.event(&batch.cluster, text, self.now, &position, out) {
                Ok(time) => {
                    if let (Some(wall), Some(time)) = (live, time) {
                        self.at.metrics.event_lag.observe((wall - time).max(0) as f64 / 1e6);
                    }
                }
                Err(error) => tracing::debug!(%error, lsn = lsn.0, index, "item is no event"),
            }
        }
        self.at.engine.tick(self.now, out);
    }

    fn count(&mut self, out: &Output) {
        let metrics = &self.at.metrics;
        for finding in &out.findings {
            metrics.finding(&finding.rule.id, finding.rule.level);
        }
        for alert in &out.alerts {
            metrics.alert(alert.level);
        }
        let counts = self.at.engine.counts();
        metrics.truncated.inc_by(counts.truncated - std::mem::replace(&mut self.told.truncated, counts.truncated));
        let evicted = self.at.engine.evicted();
        metrics.window_evictions.inc_by(evicted.saturating_sub(std::mem::replace(&mut self.told.evicted, evicted)));
        for (kind, _, n) in self.at.engine.memory().sizes() {
            let told = self.told.forgotten.insert(kind, n).unwrap_or_default();
            metrics.memory_evictions(kind, n.saturating_sub(told));
        }
        if let Some(b) = self.at.engine.baselines().map(|b| b.counts()) {
            metrics.baseline_principals.set(b.principals as i64);
            metrics.baseline_bytes.set(b.bytes as i64);
            metrics.baseline_shelved.set(b.shelved as i64);
            metrics.baseline_shelved_bytes.set(b.shelved_bytes as i64);
            let told = std::mem::replace(&mut self.told.baselines_lost, b.lost);
            metrics.baseline_lost.inc_by(b.lost.saturating_sub(told));
            let told = std::mem::replace(&mut self.told.baselines_evicted, b.evicted);
            metrics.baseline_evictions.inc_by(b.evicted.saturating_sub(told));
        }
        for (index, n) in &counts.undecidable {
            let told = self.told.undecidable.entry(*index).or_default();
            if *n > *told {
                let id = self.at.engine.meta(*index).map_or("unknown", |m| m.id.as_str());
                metrics.undecidable(id, *n - *told);
                *told = *n;
            }
        }
    }

    /// Makes the pending alerts durable, and with them how far we are.
    fn commit(&mut self) -> anyhow::Result<()> {
        // Who is ended while the disk is full was not ended by a record.
        self.attempts.rest();
        let judged = self.at.progress.judged.load(Ordering::Acquire);
        let due = !self.pending.is_empty() || (self.last > judged && self.marked.elapsed() >= MARK_EVERY);
        if !due || self.last <= self.durable_before {
            if self.pending.is_empty() && self.last > judged {
                // Judged, without alerts: readiness may know at once, the mark can wait.
                self.at.progress.judged.store(self.last, Ordering::Release);
            }
            return Ok(());
        }
        let mut records = Vec::with_capacity(self.pending.len() + 1);
        for alert in &self.pending {
            records.push((alert_record::ALERT, serde_json::to_vec(alert)?));
        }
        records.push((alert_record::PROGRESS, self.last.to_le_bytes().to_vec()));
        self.append(records)?;
        self.pending.clear();
        self.marked = Instant::now();
        self.at.progress.judged.store(self.last, Ordering::Release);
        Ok(())
    }

    /// Appends to the alert journal; a full disk or queue is waited out, detection is late and not lost.
    fn append(&mut self, records: Vec<(u8, Vec<u8>)>) -> anyhow::Result<()> {
        use crate::journal::AppendError;
        loop {
            match self.at.alerts.append_all_blocking(records.clone()) {
                Ok(_) => return Ok(()),
                Err(error @ (AppendError::Busy { .. } | AppendError::NoSpace { .. })) => {
                    tracing::error!(%error, "alerts cannot be stored yet");
                    if matches!(error, AppendError::NoSpace { .. }) && self.at.space.release() {
                        continue;
                    }
                    if self.at.progress.stop.load(Ordering::Acquire) {
                        anyhow::bail!("stopped while the alert journal could not be written: {error}");
                    }
                    std::thread::park_timeout(Duration::from_secs(1));
                }
                Err(error) => return Err(error).context("alert journal"),
            }
        }
    }

    /// With no traffic, time passes through the journal all the same: a replay must see the same ticks.
    fn tick_if_due(&mut self) {
        let wall = now_micros();
        let due = self.at.engine.next_tick().is_some_and(|due| due <= wall);
        if !due || self.ticked.is_some_and(|at| at.elapsed() < TICK_EVERY) {
            return;
        }
        self.ticked = Some(Instant::now());
        if let Err(error) = self.at.events.append_blocking(event_record::TICK, wall.to_le_bytes().to_vec()) {
            tracing::warn!(%error, "a tick could not be journaled; open alerts close later");
        }
    }

    /// Orders of people go through the journal as well, then their files.
    fn take_orders(&mut self) {
        if self.looked.elapsed() < TICK_EVERY {
            return;
        }
        self.looked = Instant::now();
        for (path, order) in orders::waiting(&self.at.state) {
            if let Err(error) = self.at.events.append_blocking(event_record::ORDER, order) {
                tracing::warn!(%error, "an order to the baselines could not be journaled; it waits");
                return;
            }
            if let Err(error) = std::fs::remove_file(&path) {
                tracing::error!(%error, path = %path.display(), "an order could not be removed; it is given again");
            }
        }
    }

    fn follow(&mut self, payload: &[u8]) {
        match serde_json::from_slice::<Order>(payload) {
            Ok(order) if self.at.engine.follow(&order) => tracing::info!(?order, "baselines follow an order"),
            Ok(order) => tracing::warn!(?order, "an order about nobody the baselines know"),
            Err(error) => tracing::warn!(%error, "an order of a newer version is passed over"),
        }
    }

    fn save(&mut self) -> anyhow::Result<()> {
        let started = Instant::now();
        self.saved = started;
        if self.last <= self.saved_lsn || self.last < self.durable_before {
            return Ok(());
        }
        let used = self.at.engine.baselines_mut().map(|b| b.tidy()).unwrap_or_default();
        let stored = Stored {
            lsn: self.last,
            alert_lsn: self.at.alerts.durable().0,
            positions: self.positions.clone(),
            now: self.now,
            rules: self.named,
            engine: &self.at.engine,
        };
        let synced = self.cold.as_ref().map_or(Ok(()), ColdFiles::sync);
        match synced.and_then(|()| snapshot::write(&self.at.state, &stored)) {
            Ok(()) => {
                self.saved_lsn = self.last;
                if let Some(Err(error)) = self.cold.as_ref().map(|cold| cold.keep(&used)) {
                    tracing::warn!(%error, "baselines on disk that nobody needs could not be removed");
                }
            }
            Err(error) => tracing::error!(%error, "snapshot could not be written; a restart takes longer"),
        }
        self.save_took = started.elapsed();
        Ok(())
    }
}

#[cfg(test)]
mod tests;
