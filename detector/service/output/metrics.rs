//! What is counted about the outputs.

use prometheus::{GaugeVec, IntCounterVec, IntGaugeVec, Opts, Registry};

/// The metrics of all outputs; clones share the same counters.
#[derive(Clone, Debug)]
pub struct OutputMetrics {
    deliveries: IntCounterVec,
    pending: IntGaugeVec,
    oldest: GaugeVec,
    dead: IntCounterVec,
}

/// How a delivery ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Ok,
    Retry,
    Dead,
}

impl Outcome {
    const ALL: [Self; 3] = [Self::Ok, Self::Retry, Self::Dead];

    const fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Retry => "retry",
            Self::Dead => "dead",
        }
    }
}

impl OutputMetrics {
    /// Creates the metrics and registers them.
    pub fn register(registry: &Registry) -> prometheus::Result<Self> {
        let opts = |name: &str, help: &str| Opts::new(name, help);
        let metrics = Self {
            deliveries: IntCounterVec::new(
                opts("lapwing_output_deliveries_total", "Tries to deliver an alert, by how they ended."),
                &["output", "outcome"],
            )?,
            pending: IntGaugeVec::new(
                opts("lapwing_output_pending", "Records of the alert journal this output has not passed yet."),
                &["output"],
            )?,
            oldest: GaugeVec::new(
                opts("lapwing_output_oldest_seconds", "How long the alert at the head of the queue has been waiting."),
                &["output"],
            )?,
            dead: IntCounterVec::new(
                opts("lapwing_output_dead_letters_total", "Alerts given up and written to the dead letters."),
                &["output"],
            )?,
        };
        registry.register(Box::new(metrics.deliveries.clone()))?;
        registry.register(Box::new(metrics.pending.clone()))?;
        registry.register(Box::new(metrics.oldest.clone()))?;
        registry.register(Box::new(metrics.dead.clone()))?;
        Ok(metrics)
    }

    /// The metrics of one output. Every series exists from the start, at zero.
    pub fn of(&self, output: &str) -> Meter {
        for outcome in Outcome::ALL {
            self.deliveries.with_label_values(&[output, outcome.as_str()]);
        }
        let meter = Meter { metrics: self.clone(), output: output.to_owned() };
        meter.pending(0);
        meter.oldest(0.0);
        self.dead.with_label_values(&[output]);
        meter
    }
}

/// The metrics of one output.
#[derive(Clone, Debug)]
pub struct Meter {
    metrics: OutputMetrics,
    output: String,
}

impl Meter {
    pub fn delivery(&self, outcome: Outcome) {
        self.metrics.deliveries.with_label_values(&[&*self.output, outcome.as_str()]).inc();
        if outcome == Outcome::Dead {
            self.metrics.dead.with_label_values(&[&self.output]).inc();
        }
    }

    /// How many records lie between the cursor and the end of the alert journal.
    pub fn pending(&self, count: u64) {
        self.metrics.pending.with_label_values(&[&self.output]).set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    /// Seconds.
    pub fn oldest(&self, seconds: f64) {
        self.metrics.oldest.with_label_values(&[&self.output]).set(seconds);
    }
}

#[cfg(test)]
mod tests {
    use prometheus::{Encoder, TextEncoder};

    use super::*;

    #[test]
    fn every_series_is_there_from_the_start() {
        let registry = Registry::new();
        let metrics = OutputMetrics::register(&registry).unwrap();
        metrics.of("siem").delivery(Outcome::Dead);
        let mut text = Vec::new();
        TextEncoder::new().encode(&registry.gather(), &mut text).unwrap();
        let text = String::from_utf8(text).unwrap();
        for line in [
            "lapwing_output_deliveries_total{outcome=\"ok\",output=\"siem\"} 0",
            "lapwing_output_deliveries_total{outcome=\"retry\",output=\"siem\"} 0",
            "lapwing_output_deliveries_total{outcome=\"dead\",output=\"siem\"} 1",
            "lapwing_output_dead_letters_total{output=\"siem\"} 1",
            "lapwing_output_pending{output=\"siem\"} 0",
            "lapwing_output_oldest_seconds{output=\"siem\"} 0",
        ] {
            assert!(text.contains(line), "{line}\n{text}");
        }
    }
}
