//! Taking everything down in order, within a deadline.

use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::bail;
use tokio::task::JoinSet;

use super::App;

/// Deadlines of the drain. Together below the 30 seconds a supervisor usually grants.
const SOURCES_DRAIN: Duration = Duration::from_secs(8);
const THREADS_DRAIN: Duration = Duration::from_secs(12);
const OUTPUTS_DRAIN: Duration = Duration::from_secs(5);

impl App {
    /// From the sources down: nothing new comes in, what came in is judged, what was found is delivered as
    /// far as the deadline allows; the rest is in the journals.
    pub(super) async fn drain(&self) -> anyhow::Result<()> {
        self.readiness.drain();
        self.sources_stop.cancel();
        finish(&self.sources, SOURCES_DRAIN).await;
        self.detect.stop.store(true, Ordering::Release);
        let result = self.join("engine").await;
        self.index.stop.store(true, Ordering::Release);
        let indexed = self.join("indexer").await;
        let deadline = tokio::time::Instant::now() + OUTPUTS_DRAIN;
        while self.undelivered() && tokio::time::Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        self.outputs_stop.cancel();
        finish(&self.outputs, OUTPUTS_DRAIN + Duration::from_secs(1)).await;
        self.admin_stop.cancel();
        let (events, alerts) = (self.events.clone(), self.alerts.clone());
        tokio::task::spawn_blocking(move || {
            events.close();
            alerts.close();
        })
        .await?;
        tracing::info!("stopped");
        result.and(indexed)
    }

    /// Whether an output has not come to the end of the alert journal; what waits on purpose does not count.
    fn undelivered(&self) -> bool {
        let end = self.alerts.durable().0;
        self.passed.lock().is_ok_and(|all| all.iter().any(|(_, p)| p.settled.load(Ordering::Acquire) < end))
    }

    async fn join(&self, name: &'static str) -> anyhow::Result<()> {
        let thread = self.threads.lock().ok().and_then(|mut threads| {
            let at = threads.iter().position(|(n, _)| *n == name)?;
            Some(threads.swap_remove(at).1)
        });
        let Some(thread) = thread else { return Ok(()) };
        let joined = tokio::task::spawn_blocking(move || thread.join());
        match tokio::time::timeout(THREADS_DRAIN, joined).await {
            Ok(Ok(Ok(result))) => result,
            Ok(_) => bail!("the {name} thread panicked"),
            Err(_) => {
                tracing::warn!("the {name} thread was not done in time; it goes on after the restart");
                Ok(())
            }
        }
    }
}

async fn finish(parts: &tokio::sync::Mutex<JoinSet<anyhow::Result<()>>>, deadline: Duration) {
    let mut parts = parts.lock().await;
    let all = async {
        while let Some(ended) = parts.join_next().await {
            if let Ok(Err(error)) = ended {
                tracing::error!(error = format!("{error:#}"), "a source or output ended badly");
            }
        }
    };
    if tokio::time::timeout(deadline, all).await.is_err() {
        tracing::warn!("not everything ended in time; what is left is in the journals");
    }
}
