//! Trying until the receiver has it: waits, refusals, dead letters. What is not ended when the worker must stop is
//! left to the next start.

use std::io;
use std::time::Duration;

use lapwing_engine::alert::Alert;
use rand::Rng;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::rate::Rate;
use super::{Deliver, Receipt};
use crate::flow::gather::Held;
use crate::output::dead::{DeadLetter, DeadLetters};
use crate::output::metrics::{Meter, Outcome};
use crate::output::{Failure, Retry};

/// First wait between tries; doubles up to the configured longest.
pub const MIN_WAIT: Duration = Duration::from_millis(500);
/// A receiver cannot ask for more patience than this.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(300);
/// How long a delivery under way may go on after the worker was told to stop.
pub const GRACE: Duration = Duration::from_secs(5);

/// How one alert of a notice ended.
#[derive(Debug)]
pub enum End {
    Delivered(Box<Held>),
    Buried(u64, DeadLetter),
}

/// One output, and how stubborn it is.
pub struct Tries<D> {
    pub name: String,
    pub retry: Retry,
    pub output: D,
    pub dead_letters: DeadLetters,
    pub meter: Meter,
    pub stop: CancellationToken,
    /// How many may go out, and whether that counts alerts or notices.
    pub rate: Option<Rate>,
    pub counts_alerts: bool,
    /// Since when the alerts at the head wait.
    pub waiting: Option<Instant>,
}

impl<D: Deliver> Tries<D> {
    /// Tries until each alert of `notice` is with the receiver or buried. Fewer ends than alerts: told to stop.
    /// `records`: the receiver takes them one by one as well as together.
    pub async fn tell(&mut self, notice: Vec<Held>, records: bool) -> Vec<End> {
        self.waiting = Some(Instant::now());
        let (mut rest, mut ends) = (notice, Vec::new());
        let (mut size, mut tries, mut refusals) = (rest.len(), 0_u32, 0_u32);
        // While one of several is looked for that is to blame for all being refused.
        let mut singly = false;
        while !rest.is_empty() {
            size = if singly { 1 } else { size.clamp(1, rest.len()) };
            let part: Vec<&Alert> = rest[..size].iter().map(|h| &h.alert).collect();
            let Some(result) = self.attempt(&part).await else { break };
            tries = tries.saturating_add(1);
            let (reason, after) = match result {
                Ok(_) => {
                    self.delivered(size, tries);
                    ends.extend(rest.drain(..size).map(|h| End::Delivered(Box::new(h))));
                    (size, tries) = (rest.len(), 0);
                    refusals = if singly { refusals } else { 0 };
                    continue;
                }
                Err(Failure::TooLarge { .. }) if size > 1 && records => {
                    size /= 2;
                    continue;
                }
                Err(Failure::Reject { reason } | Failure::TooLarge { reason }) => {
                    refusals += 1;
                    if refusals >= self.retry.refused_tries {
                        if size > 1 && records {
                            // One of them is to blame; the others must not pay for it.
                            (singly, refusals) = (true, self.retry.refused_tries - 1);
                            continue;
                        }
                        let part: Vec<Held> = rest.drain(..size).collect();
                        if !self.bury_all(part, &reason, tries, &mut ends).await {
                            break;
                        }
                        (singly, size, tries, refusals) = (false, rest.len(), 0, 0);
                        continue;
                    }
                    (reason, None)
                }
                Err(Failure::Partial { refused, again, reason, after }) => {
                    let (left, gone) = sort_out(rest, size, &again);
                    rest = left;
                    let mut kept = true;
                    for (at, held) in gone {
                        match refused.iter().find(|(refused, _)| *refused == at) {
                            Some((_, why)) => kept &= self.bury_all(vec![held], why, tries, &mut ends).await,
                            None => {
                                self.delivered(1, tries);
                                ends.push(End::Delivered(Box::new(held)));
                            }
                        }
                    }
                    if !kept {
                        break;
                    }
                    if again.is_empty() {
                        continue;
                    }
                    (reason, after)
                }
                Err(Failure::Retry { reason, after }) => (reason, after),
            };
            self.meter.delivery(Outcome::Retry, 1);
            if tries.is_power_of_two() {
                let alert = &rest[0].alert.id;
                tracing::warn!(
                    output = self.name,
                    alert,
                    alerts = size,
                    tries,
                    reason,
                    "cannot deliver, will try again"
                );
            }
            if self.pause(self.wait(tries, after)).await.is_none() {
                break;
            }
        }
        ends
    }

    fn delivered(&mut self, count: usize, tries: u32) {
        self.meter.delivery(Outcome::Delivered, count as u64);
        self.meter.oldest(0.0);
        self.waiting = None;
        if tries > 1 {
            tracing::info!(output = self.name, alerts = count, tries, "delivered after all");
        }
    }

    /// How many notices, or alerts, may go now.
    pub fn free(&mut self) -> usize {
        self.rate.as_mut().map_or(usize::MAX, Rate::free)
    }

    /// One delivery, as soon as it may; or `None` when the worker must stop before it ended.
    async fn attempt(&mut self, alerts: &[&Alert]) -> Option<Result<Receipt, Failure>> {
        let count = if self.counts_alerts { alerts.len() } else { 1 };
        let wait = self.rate.as_mut().map_or(Duration::ZERO, |rate| rate.wait(count));
        if !wait.is_zero() {
            self.pause(wait).await?;
            self.meter.limited(wait);
        }
        if let Some(rate) = &mut self.rate {
            rate.go(count);
        }
        let stop = self.stop.clone();
        let deadline = async {
            stop.cancelled().await;
            tokio::time::sleep(GRACE).await;
        };
        tokio::select! {
            biased;
            result = self.output.deliver(alerts) => Some(result),
            () = deadline => None,
        }
    }

    /// Full jitter: anything between nothing and the doubled wait, but never sooner than the receiver asked.
    fn wait(&self, tries: u32, after: Option<Duration>) -> Duration {
        let longest = Duration::from_secs(self.retry.max_wait_seconds.into());
        let ceiling = MIN_WAIT.saturating_mul(1 << (tries.max(1) - 1).min(16)).min(longest);
        let jittered = ceiling.mul_f64(rand::rng().random::<f64>()).max(MIN_WAIT / 10);
        after.map_or(jittered, |after| after.min(MAX_RETRY_AFTER).max(jittered))
    }

    /// Waits `time`, or until told to stop.
    pub async fn rest(&self, time: Duration) {
        tokio::select! {
            () = tokio::time::sleep(time) => {}
            () = self.stop.cancelled() => {}
        }
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

    pub fn letter(&self, reason: String, tries: u32) -> DeadLetter {
        let time = chrono::Utc::now();
        DeadLetter { time, output: self.name.clone(), reason, tries, alert: None, unreadable: String::new() }
    }

    /// Buries each; false when told to stop before all of them were.
    async fn bury_all(&mut self, part: Vec<Held>, reason: &str, tries: u32, ends: &mut Vec<End>) -> bool {
        for held in part {
            let letter = DeadLetter { alert: Some(Box::new(held.alert)), ..self.letter(reason.to_owned(), tries) };
            let Some(letter) = self.bury(letter).await else { return false };
            ends.push(End::Buried(held.position, letter));
        }
        true
    }

    /// Writes a dead letter, as often as it takes: the cursor must not pass an alert that is nowhere. `None` when told
    /// to stop.
    pub async fn bury(&mut self, letter: DeadLetter) -> Option<DeadLetter> {
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
            self.pause(self.wait(tries, None)).await?;
        }
        self.meter.delivery(Outcome::Dead, 1);
        self.meter.oldest(0.0);
        self.waiting = None;
        let file = self.dead_letters.path().display();
        tracing::error!(
            output = self.name,
            reason = letter.reason,
            tries = letter.tries,
            "gave up; the alert is in `{file}`"
        );
        Some(letter)
    }
}

/// Of the first `size`, those to be sent `again` stay with the rest, in order; the others come out with their index.
fn sort_out(all: Vec<Held>, size: usize, again: &[usize]) -> (Vec<Held>, Vec<(usize, Held)>) {
    let (mut rest, mut gone) = (Vec::new(), Vec::new());
    for (at, held) in all.into_iter().enumerate() {
        if at >= size || again.contains(&at) {
            rest.push(held);
        } else {
            gone.push((at, held));
        }
    }
    (rest, gone)
}
