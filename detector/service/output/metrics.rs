//! What one output reports about itself.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::metrics::Metrics;
pub use crate::metrics::{Outcome, Withheld};

/// The metrics of one output; they begin at zero when it is made.
#[derive(Clone)]
pub struct Meter {
    metrics: Arc<Metrics>,
    output: String,
    pending: Arc<AtomicU64>,
    /// Bits of the seconds.
    oldest: Arc<AtomicU64>,
}

impl Meter {
    pub fn new(metrics: Arc<Metrics>, output: &str) -> Self {
        metrics.announce_output(output);
        Self { metrics, output: output.to_owned(), pending: Arc::default(), oldest: Arc::default() }
    }

    pub fn delivery(&self, outcome: Outcome, alerts: u64) {
        self.metrics.delivery(&self.output, outcome, alerts);
    }

    /// One alert was not told.
    pub fn withheld(&self, why: Withheld) {
        self.metrics.withheld(&self.output, why, 1);
    }

    /// How many alerts wait for others, a digest or the end of a time interval.
    pub fn held(&self, count: usize) {
        self.metrics.held(&self.output, count);
    }

    /// So long something was due and waited for `maxPerMinute`.
    pub fn limited(&self, time: Duration) {
        self.metrics.limited(&self.output, time);
    }

    /// How many records lie between the cursor and the end of the alert journal.
    pub fn pending(&self, count: u64) {
        self.pending.store(count, Ordering::Relaxed);
        self.tell();
    }

    /// How long the alert at the head of the queue has been waiting, in seconds.
    pub fn oldest(&self, seconds: f64) {
        self.oldest.store(seconds.to_bits(), Ordering::Relaxed);
        self.tell();
    }

    fn tell(&self) {
        let oldest = f64::from_bits(self.oldest.load(Ordering::Relaxed));
        self.metrics.backlog(&self.output, self.pending.load(Ordering::Relaxed), oldest);
    }
}
