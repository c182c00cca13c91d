//! One worker per output: takes alerts in order, tells those that are to be told until the receiver has them, and moves
//! the output's durable cursor.
//!
//! What may pass by itself is retried for ever, with full jitter. What the receiver refuses for good is
//! tried a few times and then becomes a dead letter, on disk before the cursor moves. Nothing is dropped: what waits
//! (for its group, a digest, the end of a time interval) lies in the alert journal behind the cursor. A crash between
//! delivery and cursor repeats that notice, with the same ids.

mod rate;
mod state;
mod tries;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;
use std::time::Duration;

use lapwing_engine::alert::{Alert, Level};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use self::rate::Rate;
use self::state::{Saved, StateFile};
use self::tries::{End, Tries};
use super::dead::{DeadLetter, DeadLetters};
use super::metrics::{Meter, Withheld};
use super::{Carries, Config, Failure, Output, Receipt};
use crate::flow::gather::{Held, MAX_HELD, Take};
use crate::flow::incident::Incidents;
use crate::flow::inhibit::Inhibitor;
use crate::flow::silence::Watch;
use crate::flow::{Flow, Gather};
use crate::pipeline::now_micros;

/// How long one look for the next alert may wait.
const POLL: Duration = Duration::from_secs(1);

/// What comes next from the alert journal. A `position` is the journal's own (an LSN).
#[derive(Debug)]
pub enum Next {
    Alert {
        position: u64,
        alert: Box<Alert>,
    },
    /// A record that is none of an output's business.
    Skip {
        position: u64,
    },
    /// A record that should be an alert and is not.
    Unreadable {
        position: u64,
        text: String,
        reason: String,
    },
    /// Nothing yet.
    Idle,
}

impl Next {
    /// The alert in the JSON `payload` of a record.
    pub fn from_json(position: u64, payload: &[u8]) -> Self {
        match serde_json::from_slice(payload) {
            Ok(alert) => Self::Alert { position, alert: Box::new(alert) },
            Err(e) => Self::Unreadable {
                position,
                text: String::from_utf8_lossy(payload).into_owned(),
                reason: format!("not an alert: {e}"),
            },
        }
    }
}

/// Where a worker takes its alerts from and remembers how far it came. Called on a thread that may block.
pub trait AlertSource: Send + 'static {
    /// The record after the last one returned (at first: after the cursor). Waits at most `wait` for it.
    fn next(&mut self, wait: Duration) -> io::Result<Next>;
    /// Everything up to `position` is done; remember that durably. What is forgotten is delivered again.
    fn done(&mut self, position: u64) -> io::Result<()>;
    /// Everything up to `position` is done or waits because the configuration wants it to.
    fn settled(&mut self, _position: u64) {}
    /// How many records lie after the last `done`.
    fn pending(&self) -> u64;
    /// A dead letter was written; called before its alert is `done`.
    fn buried(&mut self, _letter: &DeadLetter) -> io::Result<()> {
        Ok(())
    }
}

/// What a worker delivers to; an [`Output`], or a fake in tests.
pub trait Deliver: Send {
    /// At least one alert, and no more than the output carries.
    fn deliver(&mut self, alerts: &[&Alert]) -> impl Future<Output = Result<Receipt, Failure>> + Send;
    fn tend(&mut self) -> impl Future<Output = Result<(), Failure>> + Send;
}

impl Deliver for Output {
    async fn deliver(&mut self, alerts: &[&Alert]) -> Result<Receipt, Failure> {
        Output::deliver(self, alerts).await
    }
    async fn tend(&mut self) -> Result<(), Failure> {
        Output::tend(self).await
    }
}

/// Why a worker ended by itself: the alert journal or the cursor cannot be used. Restart from the cursor.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    #[error("output `{output}`: cannot read the alert journal or move the cursor: {source}")]
    Source { output: String, source: io::Error },
}

/// One output and its duties.
pub struct Worker<D> {
    min_level: Level,
    carries: Carries,
    tries: Tries<D>,
    flow: Arc<Flow>,
    silences: Option<Watch>,
    gather: Gather,
    inhibitor: Inhibitor,
    incidents: Option<Incidents>,
    clock: Arc<dyn Fn() -> i64 + Send + Sync>,
    file: StateFile,
    /// As it is on disk.
    saved: Saved,
    /// Positions read and not done.
    open: BTreeSet<u64>,
    /// The last position read, and the one the cursor is at.
    read: u64,
    cursor: u64,
}

impl<D> std::fmt::Debug for Worker<D> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Worker").field("name", &self.tries.name).finish_non_exhaustive()
    }
}

impl<D: Deliver> Worker<D> {
    /// `data_dir/outputs` must exist. Reads what the last run left there.
    pub fn new(config: &Config, output: D, data_dir: &std::path::Path, meter: Meter, stop: CancellationToken) -> Self {
        let common = config.common();
        let name = common.name.clone();
        let file = StateFile::of(data_dir, &name);
        let saved = file.read();
        let after = config.resolve_after().map(|d| i64::try_from(d.get().as_micros()).unwrap_or(i64::MAX));
        let tries = Tries {
            retry: common.retry.clone(),
            output,
            dead_letters: DeadLetters::of(data_dir, &name),
            meter,
            stop,
            rate: common.max_per_minute.map(Rate::new),
            counts_alerts: config.counts_alerts(),
            waiting: None,
            name,
        };
        let worker = Self {
            min_level: common.min_level,
            carries: config.carries(),
            tries,
            flow: Arc::default(),
            silences: None,
            gather: Gather::new(saved.told.clone()),
            inhibitor: Inhibitor::new(Arc::default(), BTreeMap::new()),
            incidents: after.map(|after| Incidents::new(after, saved.open.clone())),
            clock: Arc::new(now_micros),
            file,
            open: BTreeSet::new(),
            saved,
            read: 0,
            cursor: 0,
        };
        worker.with_flow(Arc::default())
    }

    /// With routes, inhibition and the rest.
    #[must_use]
    pub fn with_flow(mut self, flow: Arc<Flow>) -> Self {
        let seen = self.saved.seen.iter().map(|(rule, values, last)| ((*rule, values.clone()), *last)).collect();
        self.inhibitor = Inhibitor::new(Arc::clone(&flow.rules), seen);
        self.flow = flow;
        self
    }

    /// With silences.
    #[must_use]
    pub fn with_silences(mut self, silences: Watch) -> Self {
        self.silences = Some(silences);
        self
    }

    /// Delivers until told to stop. A delivery under way then has five seconds to end; what is not
    /// delivered is still in the journal.
    pub async fn run(mut self, source: impl AlertSource) -> Result<(), WorkerError> {
        let (mut source, mut moved) = (source, Instant::now());
        while !self.tries.stop.is_cancelled() {
            let next;
            let (began, limited) = (Instant::now(), self.is_limited());
            let wait = if self.is_ready() { Duration::ZERO } else { POLL.min(self.wait()) };
            if limited && self.gather.held() >= self.room() {
                // What cannot be told yet waits in the journal.
                next = Next::Idle;
                self.tries.rest(wait).await;
            } else {
                (source, next) = self.blocking(source, move |s| s.next(wait)).await?;
            }
            let waited = began.elapsed();
            self.tries.meter.pending(source.pending());
            let idle = matches!(next, Next::Idle);
            let mut letters = Vec::new();
            self.begin(&next);
            match next {
                Next::Idle => {}
                Next::Skip { position } => self.read = position,
                Next::Alert { position, alert } => self.look(position, *alert),
                Next::Unreadable { position, text, reason } => {
                    let letter = DeadLetter { unreadable: text, ..self.tries.letter(reason, 0) };
                    if self.tries.bury(letter).await.is_none() {
                        break;
                    }
                    self.read = position;
                }
            }
            let mut told = false;
            if idle || self.gather.held() >= self.carries.most() {
                told = self.tell_due(&mut letters).await;
            }
            for letter in letters {
                (source, ()) = self.blocking(source, move |s| s.buried(&letter)).await?;
            }
            // What was only passed over may be passed over again: that is not worth a write each time.
            if told || idle || moved.elapsed() > POLL {
                source = self.advance(source).await?;
                moved = Instant::now();
            }
            if idle && !told {
                self.idle().await;
            }
            if limited {
                self.tries.meter.limited(if told { waited } else { began.elapsed() });
            }
        }
        self.advance(source).await?;
        Ok(())
    }

    /// The first record read lies behind the cursor.
    fn begin(&mut self, next: &Next) {
        let (Next::Alert { position, .. } | Next::Skip { position } | Next::Unreadable { position, .. }) = next else {
            return;
        };
        if self.read == 0 {
            self.cursor = position.saturating_sub(1);
        }
    }

    /// Whether something is due.
    fn is_due(&self) -> bool {
        let now = (self.clock)();
        self.gather.due(now) > 0 || self.incidents.as_ref().is_some_and(|i| i.due(now).is_some())
    }

    /// Whether something is to be told now.
    fn is_ready(&mut self) -> bool {
        self.tries.free() > 0 && self.is_due()
    }

    /// Whether something is due and may not go yet.
    fn is_limited(&mut self) -> bool {
        self.tries.free() == 0 && self.is_due()
    }

    /// How long until one more may go.
    fn wait(&mut self) -> Duration {
        let wait = self.tries.rate.as_mut().map_or(Duration::ZERO, |rate| rate.wait(1));
        if wait.is_zero() { POLL } else { wait }
    }

    /// How many alerts are read while none may go: as many as the next notice takes, and fewer than would be told before
    /// their time.
    const fn room(&self) -> usize {
        match self.carries {
            Carries::Records(most) => most,
            Carries::Message => MAX_HELD - 1,
        }
    }

    /// Decides what becomes of an alert just read.
    fn look(&mut self, position: u64, alert: Alert) {
        self.read = position;
        let waited = self.saved.held.get(&position).copied();
        if position <= self.saved.upto && waited.is_none() {
            return;
        }
        if waited.is_none() {
            self.inhibitor.see(&alert);
        }
        self.open.remove(&position);
        if alert.level < self.min_level {
            return self.tries.meter.withheld(Withheld::Level);
        }
        let Some(hop) = self.flow.hop(&self.tries.name, &alert) else {
            return self.tries.meter.withheld(Withheld::Route);
        };
        self.open.insert(position);
        let now = (self.clock)();
        self.gather.add(alert, hop, position, waited.unwrap_or(now));
    }

    /// Tells what is due; true when something ended.
    async fn tell_due(&mut self, letters: &mut Vec<DeadLetter>) -> bool {
        let mut ended = false;
        while !self.tries.stop.is_cancelled() {
            let now = (self.clock)();
            let free = self.tries.free();
            if free == 0 {
                break;
            }
            let how = match self.carries {
                Carries::Records(most) if self.tries.counts_alerts => Take::AtMost(most.min(free)),
                Carries::Records(most) => Take::AtMost(most),
                Carries::Message if self.gather.due(now) > free => Take::Together,
                Carries::Message => Take::Group,
            };
            let taken = self.gather.take(now, how);
            if taken.is_empty() {
                break;
            }
            let notice = self.withhold(taken, now);
            ended = true;
            if !notice.is_empty() && !self.tell(notice, letters).await {
                break;
            }
        }
        while !self.tries.stop.is_cancelled() {
            let now = (self.clock)();
            let Some(closing) = self.incidents.as_ref().and_then(|i| i.due(now)) else { break };
            if self.tries.free() == 0 {
                break;
            }
            ended = true;
            if !self.tell(vec![Held::by_itself(closing, now)], letters).await {
                break;
            }
        }
        ended
    }

    /// Without what is silenced or inhibited; that is done.
    fn withhold(&mut self, taken: Vec<Held>, now: i64) -> Vec<Held> {
        let time = chrono::DateTime::from_timestamp_micros(now).unwrap_or_default();
        let (mut notice, mut kept_back) = (Vec::new(), Vec::new());
        for held in taken {
            let silence = self.silences.as_ref().and_then(|s| s.silenced_by(&held.alert, time));
            let why = match silence {
                Some(id) => Some((Withheld::Silence, id)),
                None => self.inhibitor.inhibited_by(&held.alert).map(|rule| (Withheld::Inhibition, rule)),
            };
            match why {
                Some((why, by)) => kept_back.push((held, why, by)),
                None => notice.push(held),
            }
        }
        for (held, why, by) in kept_back {
            self.tries.meter.withheld(why);
            tracing::info!(output = self.tries.name, alert = held.alert.id, why = why.as_str(), by, "not told");
            self.open.remove(&held.position);
        }
        notice
    }

    /// Tells one notice to its end; false when told to stop before.
    async fn tell(&mut self, notice: Vec<Held>, letters: &mut Vec<DeadLetter>) -> bool {
        let count = notice.len();
        let records = matches!(self.carries, Carries::Records(_));
        let ends = self.tries.tell(notice, records).await;
        let (now, whole) = ((self.clock)(), ends.len() == count);
        let mut delivered = Vec::new();
        for end in ends {
            match end {
                End::Delivered(held) => {
                    self.open.remove(&held.position);
                    if let Some(incidents) = &mut self.incidents {
                        incidents.told(&held.alert, now);
                    }
                    delivered.push(*held);
                }
                End::Buried(position, letter) => {
                    self.open.remove(&position);
                    letters.push(letter);
                }
            }
        }
        self.gather.note(&delivered, now);
        whole
    }

    /// Saves what waits, then moves the cursor up to it.
    async fn advance<S: AlertSource>(&mut self, source: S) -> Result<S, WorkerError> {
        let now = (self.clock)();
        let arrived: BTreeMap<u64, i64> = self.gather.waiting().collect();
        let held = self.open.iter().map(|p| (*p, arrived.get(p).copied().unwrap_or(now)));
        // Held by an earlier run and not read again yet.
        let earlier = self.saved.held.iter().filter(|(p, _)| **p > self.read).map(|(p, at)| (*p, *at));
        let held: BTreeMap<u64, i64> = held.chain(earlier).collect();
        let caught_up = self.read >= self.saved.upto;
        let done = held.keys().next().map_or(self.read, |first| first - 1);
        let saved = Saved {
            upto: if held.is_empty() && caught_up { 0 } else { self.read.max(self.saved.upto) },
            held,
            told: self.gather.told().clone(),
            seen: self.inhibitor.seen().iter().map(|((rule, v), last)| (*rule, v.clone(), *last)).collect(),
            open: self.incidents.as_ref().map(|i| i.open().clone()).unwrap_or_default(),
        };
        let mut source = source;
        if saved != self.saved {
            let (file, writing) = (self.file.clone(), saved.clone());
            (source, ()) = self.blocking(source, move |_| file.write(&writing)).await?;
            self.saved = saved;
        }
        if done > self.cursor {
            (source, ()) = self.blocking(source, move |s| s.done(done)).await?;
            self.cursor = done;
        }
        // Taken and not delivered, or due: that is no waiting the configuration wants.
        if self.open.len() == self.gather.held() && self.gather.due(now) == 0 {
            source.settled(self.read);
        }
        self.tries.meter.pending(source.pending());
        self.tries.meter.held(self.gather.held());
        Ok(source)
    }

    /// Runs `call` on the source where blocking hurts nobody.
    async fn blocking<S: AlertSource, T: Send + 'static>(
        &self,
        mut source: S,
        call: impl FnOnce(&mut S) -> io::Result<T> + Send + 'static,
    ) -> Result<(S, T), WorkerError> {
        let joined = tokio::task::spawn_blocking(move || call(&mut source).map(|t| (source, t))).await;
        let result = joined.unwrap_or_else(|e| Err(io::Error::other(e)));
        result.map_err(|source| WorkerError::Source { output: self.tries.name.clone(), source })
    }

    async fn idle(&mut self) {
        self.tries.waiting = None;
        self.tries.meter.oldest(0.0);
        let stop = self.tries.stop.clone();
        tokio::select! {
            tended = self.tries.output.tend() => if let Err(e) = tended {
                tracing::warn!(output = self.tries.name, reason = %e, "a broken connection may have lost alerts; sending them again failed, will try again");
            },
            () = stop.cancelled() => {}
        }
    }
}

#[cfg(test)]
mod tests;
