//! One worker per output: takes alerts in order, delivers each until the receiver has it, then moves the
//! output's durable cursor.
//!
//! What may pass by itself is retried for ever, with full jitter. What the receiver refuses for good is
//! tried a few times and then becomes a dead letter, on disk before the cursor moves. Nothing is dropped and
//! nothing overtakes: a worker holds one alert at a time, its queue is the alert journal. A crash between
//! delivery and cursor repeats that alert, with the same id.

use std::io;
use std::time::Duration;

use lapwing_engine::alert::{Alert, Level};
use rand::Rng;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::dead::{DeadLetter, DeadLetters};
use super::metrics::{Meter, Outcome};
use super::{Config, Failure, Output, Receipt, Retry};

/// First wait between tries; doubles up to the configured longest.
const MIN_WAIT: Duration = Duration::from_millis(500);
/// A receiver cannot ask for more patience than this.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(300);
/// How long one look for the next alert may wait.
const POLL: Duration = Duration::from_secs(1);
/// How long a delivery under way may go on after the worker was told to stop.
const GRACE: Duration = Duration::from_secs(5);

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
    /// How many records lie after the last `done`.
    fn pending(&self) -> u64;
    /// A dead letter was written; called before its alert is `done`.
    fn buried(&mut self, _letter: &DeadLetter) -> io::Result<()> {
        Ok(())
    }
}

/// What a worker delivers to; an [`Output`], or a fake in tests.
pub trait Deliver: Send {
    fn deliver(&mut self, alert: &Alert) -> impl Future<Output = Result<Receipt, Failure>> + Send;
    fn tend(&mut self) -> impl Future<Output = Result<(), Failure>> + Send;
}

impl Deliver for Output {
    async fn deliver(&mut self, alert: &Alert) -> Result<Receipt, Failure> {
        Output::deliver(self, alert).await
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

/// How one alert ended.
enum End {
    Done,
    Buried(Box<DeadLetter>),
    Stopped,
}

/// One output and its duties.
pub struct Worker<D> {
    name: String,
    min_level: Level,
    retry: Retry,
    output: D,
    dead_letters: DeadLetters,
    meter: Meter,
    stop: CancellationToken,
    /// Since when the alert at the head waits.
    waiting: Option<Instant>,
}

impl<D> std::fmt::Debug for Worker<D> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Worker").field("name", &self.name).finish_non_exhaustive()
    }
}

impl<D: Deliver> Worker<D> {
    /// `data_dir/outputs` must exist.
    pub fn new(config: &Config, output: D, data_dir: &std::path::Path, meter: Meter, stop: CancellationToken) -> Self {
        Self {
            name: config.name().to_owned(),
            min_level: config.min_level(),
            retry: config.retry().clone(),
            output,
            dead_letters: DeadLetters::of(data_dir, config.name()),
            meter,
            stop,
            waiting: None,
        }
    }

    /// Delivers until told to stop. A delivery under way then has five seconds to end; what is not
    /// delivered is still in the journal.
    pub async fn run(mut self, source: impl AlertSource) -> Result<(), WorkerError> {
        let (mut source, mut passed, mut moved) = (source, None, Instant::now());
        while !self.stop.is_cancelled() {
            let next;
            (source, next) = self.blocking(source, |s| s.next(POLL)).await?;
            self.meter.pending(source.pending());
            let idle = matches!(next, Next::Idle);
            let (position, handled) = match next {
                Next::Idle => (passed, false),
                Next::Skip { position } => (Some(position), false),
                Next::Alert { position, alert } if alert.level < self.min_level => (Some(position), false),
                Next::Alert { position, alert } => match self.alert(alert, source.pending()).await {
                    End::Done => (Some(position), true),
                    End::Buried(letter) => {
                        (source, ()) = self.blocking(source, move |s| s.buried(&letter)).await?;
                        (Some(position), true)
                    }
                    End::Stopped => break,
                },
                Next::Unreadable { position, text, reason } => {
                    match self.bury(DeadLetter { unreadable: text, ..self.letter(reason, 0) }).await {
                        End::Stopped => break,
                        _ => (Some(position), true),
                    }
                }
            };
            passed = position;
            // What was only passed over may be passed over again: that is not worth a write each time.
            if handled || idle || moved.elapsed() > POLL {
                source = self.advance(source, passed.take()).await?;
                moved = Instant::now();
            }
            if idle {
                self.idle().await;
            }
        }
        self.advance(source, passed).await?;
        Ok(())
    }

    /// Moves the cursor to `position`, when there is one.
    async fn advance<S: AlertSource>(&self, source: S, position: Option<u64>) -> Result<S, WorkerError> {
        let Some(position) = position else { return Ok(source) };
        let (source, ()) = self.blocking(source, move |s| s.done(position)).await?;
        self.meter.pending(source.pending());
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
        result.map_err(|source| WorkerError::Source { output: self.name.clone(), source })
    }

    async fn idle(&mut self) {
        self.waiting = None;
        self.meter.oldest(0.0);
        let stop = self.stop.clone();
        tokio::select! {
            tended = self.output.tend() => if let Err(e) = tended {
                tracing::warn!(output = self.name, reason = %e, "a broken connection may have lost alerts; sending them again failed, will try again");
            },
            () = stop.cancelled() => {}
        }
    }

    /// Tries until the receiver has the alert, it is buried, or the worker is stopped.
    async fn alert(&mut self, alert: Box<Alert>, pending: u64) -> End {
        self.waiting = Some(Instant::now());
        let (mut tries, mut refusals) = (0_u32, 0_u32);
        loop {
            let Some(result) = self.attempt(&alert).await else { return End::Stopped };
            tries = tries.saturating_add(1);
            let (reason, after) = match result {
                Ok(_) => {
                    self.delivered(&alert, tries);
                    return End::Done;
                }
                Err(Failure::Reject { reason }) => {
                    refusals += 1;
                    if refusals >= self.retry.refused_tries {
                        return self.bury(DeadLetter { alert: Some(alert), ..self.letter(reason, tries) }).await;
                    }
                    (reason, None)
                }
                Err(Failure::Retry { reason, after }) => (reason, after),
            };
            self.meter.delivery(Outcome::Retry);
            if tries.is_power_of_two() {
                tracing::warn!(
                    output = self.name,
                    alert = alert.id,
                    tries,
                    pending,
                    reason,
                    "cannot deliver, will try again"
                );
            }
            if self.pause(self.wait(tries, after)).await.is_none() {
                return End::Stopped;
            }
        }
    }

    fn delivered(&mut self, alert: &Alert, tries: u32) {
        self.meter.delivery(Outcome::Delivered);
        self.meter.oldest(0.0);
        self.waiting = None;
        if tries > 1 {
            tracing::info!(output = self.name, alert = alert.id, tries, "delivered after all");
        }
    }

    /// One delivery, or `None` when the worker must stop before it ended.
    async fn attempt(&mut self, alert: &Alert) -> Option<Result<Receipt, Failure>> {
        let stop = self.stop.clone();
        let deadline = async {
            stop.cancelled().await;
            tokio::time::sleep(GRACE).await;
        };
        tokio::select! {
            biased;
            result = self.output.deliver(alert) => Some(result),
            () = deadline => None,
        }
    }

    /// Full jitter: anything between nothing and the doubled wait, but never sooner than the receiver asked.
    fn wait(&self, tries: u32, after: Option<Duration>) -> Duration {
        let longest = Duration::from_secs(self.retry.max_wait_seconds.into());
        let ceiling = MIN_WAIT.saturating_mul(1 << (tries - 1).min(16)).min(longest);
        let jittered = ceiling.mul_f64(rand::rng().random::<f64>()).max(MIN_WAIT / 10);
        after.map_or(jittered, |after| after.min(MAX_RETRY_AFTER).max(jittered))
    }

    /// Waits `time`, keeping the gauge of the oldest alert honest. `None` when told to stop.
    async fn pause(&self, time: Duration) -> Option<()> {
        let end = Instant::now() + time;
        while Instant::now() < end {
            if let Some(since) = self.waiting {
                self.meter.oldest(since.elapsed().as_secs_f64());
            }
            let step = (Instant::now() + Duration::from_secs(5)).min(end);
            tokio::select! {
                () = tokio::time::sleep_until(step) => {}
                () = self.stop.cancelled() => return None,
            }
        }
        Some(())
    }

    fn letter(&self, reason: String, tries: u32) -> DeadLetter {
        let time = chrono::Utc::now();
        DeadLetter { time, output: self.name.clone(), reason, tries, alert: None, unreadable: String::new() }
    }

    /// Writes a dead letter, as often as it takes: the cursor must not pass an alert that is nowhere.
    async fn bury(&mut self, letter: DeadLetter) -> End {
        let mut tries = 0_u32;
        loop {
            let (file, letter) = (self.dead_letters.clone(), letter.clone());
            let written = tokio::task::spawn_blocking(move || file.append(&letter));
            match written.await.unwrap_or_else(|e| Err(io::Error::other(e))) {
                Ok(()) => break,
                Err(e) => {
                    tries = tries.saturating_add(1);
                    let file = self.dead_letters.path().display();
                    tracing::error!(output = self.name, reason = %e, "cannot write dead letter to `{file}`, will try again");
                }
            }
            if self.pause(self.wait(tries, None)).await.is_none() {
                return End::Stopped;
            }
        }
        self.meter.delivery(Outcome::Dead);
        self.meter.oldest(0.0);
        self.waiting = None;
        let file = self.dead_letters.path().display();
        tracing::error!(
            output = self.name,
            reason = letter.reason,
            tries = letter.tries,
            "gave up; the alert is in `{file}`"
        );
        End::Buried(Box::new(letter))
    }
}

#[cfg(test)]
#[path = "worker_tests.rs"]
mod tests;
