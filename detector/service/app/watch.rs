//! While it runs: signals, gauges, retention, and whether every part still lives.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, bail};

use super::{App, Signals, announce, engine_options, selection};
use crate::pipeline::rulebook::Rulebook;

const WATCH_EVERY: Duration = Duration::from_secs(1);
const RETAIN_EVERY: Duration = Duration::from_secs(60);

impl App {
    /// Until it shall end, or a failure.
    pub(super) async fn watch(&self, mut signals: Signals) -> anyhow::Result<()> {
        let mut tick = tokio::time::interval(WATCH_EVERY);
        let mut retain = tokio::time::interval(RETAIN_EVERY);
        let mut syncs = (0, Duration::ZERO);
        loop {
            tokio::select! {
                () = signals.stop.cancelled() => return Ok(()),
                Ok(()) = signals.reload.changed() => self.reload().await,
                _ = tick.tick() => self.look(&mut syncs).await?,
                _ = retain.tick() => self.retain().await,
            }
        }
    }

    /// Reads the rules and certificates again; what is bad is told, and the old goes on.
    async fn reload(&self) {
        if let Some(certificates) = &self.certificates {
            certificates.reload();
        }
        let (selection, options) = (selection(&self.config), engine_options(&self.config));
        let dir = self.config.data_dir.join("rules");
        let loaded = tokio::task::spawn_blocking(move || Rulebook::write(&dir, selection.sources()?, &options)).await;
        match loaded {
            Ok(Ok(book)) => {
                let rules = &book.rules;
                announce(&self.metrics, rules);
                tracing::info!(rules = rules.rules().len() + rules.correlations().len(), "rules loaded again");
                if let Ok(mut slot) = self.new_rules.lock() {
                    *slot = Some(Arc::new(book));
                }
            }
            Ok(Err(error)) => self.keep_old_rules(&format!("{:#}", anyhow::Error::from(error))),
            Err(error) => self.keep_old_rules(&error),
        }
    }

    fn keep_old_rules(&self, error: &dyn std::fmt::Display) {
        self.metrics.rules_reload_success.set(0);
        tracing::error!(%error, "the rules on disk cannot be used; the old ones go on");
    }

    /// Readiness, the time syncs take, and whether every part still lives.
    async fn look(&self, syncs: &mut (u64, Duration)) -> anyhow::Result<()> {
        let stat = self.events.stat();
        let (count, time) = (stat.syncs - syncs.0, stat.sync_time.saturating_sub(syncs.1));
        for _ in 0..count.min(10_000) {
            self.metrics.journal_fsync.observe(time.as_secs_f64() / count as f64);
        }
        *syncs = (stat.syncs, stat.sync_time);
        if stat.failing {
            self.readiness.not_ready("journal", "the last write to the journal failed; is the disk full?");
        } else {
            self.readiness.ready("journal");
        }
        self.look_at_the_room().await;
        self.readiness.ready("engine");
        self.are_alive().await
    }

    async fn are_alive(&self) -> anyhow::Result<()> {
        if let Ok(mut threads) = self.threads.lock()
            && let Some(at) = threads.iter().position(|(_, t)| t.is_finished())
        {
            let (name, thread) = threads.swap_remove(at);
            return match thread.join() {
                Ok(Ok(())) => bail!("the {name} thread ended by itself"),
                Ok(Err(error)) => Err(error.context(format!("the {name} thread failed"))),
                Err(_) => bail!("the {name} thread panicked; the journal keeps what it had to do"),
            };
        }
        for parts in [&self.sources, &self.outputs] {
            if let Some(ended) = parts.lock().await.try_join_next() {
                ended.context("a source or output panicked")??;
            }
        }
        Ok(())
    }

    /// Keeps the gauges true whenever somebody looks.
    pub(super) fn refresh_metrics(&self) {
        let (events, readiness) = (self.events.clone(), Arc::clone(&self.readiness));
        let (detect, index) = (Arc::clone(&self.detect), Arc::clone(&self.index));
        let (alerts, passed) = (self.alerts.clone(), Arc::clone(&self.passed));
        self.metrics.refresh_with(move |m| {
            let stat = events.stat();
            let behind = |at: &AtomicU64| stat.last.0.saturating_sub(at.load(Ordering::Acquire)) as i64;
            m.journal_durable_lsn.set(stat.last.0 as i64);
            m.journal_bytes.set(stat.bytes as i64);
            m.alert_journal_bytes.set(alerts.stat().bytes as i64);
            m.engine_lag.set(behind(&detect.judged));
            m.index_lag.set(behind(&index.indexed));
            m.ready.set(i64::from(readiness.report().ready));
            for (output, at) in passed.lock().iter().flat_map(|all| all.iter()) {
                m.pending(output, alerts.durable().0.saturating_sub(at.done.load(Ordering::Acquire)));
            }
        });
    }
}
