//! Room on the disk: how much there is, who is told, and what goes when it is more than was allowed.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use lapwing_engine::alert::Level as Severity;

use super::App;
use crate::journal::{Journal, Lsn, Retention};
use crate::pipeline::selfalert::Notice;
use crate::space::Level;

const DISK: &str = "lapwing-disk-full";

impl App {
    /// Looks at the disk, says so where it is asked, and raises an alert when it is getting full.
    pub(super) async fn look_at_the_room(&self) {
        let space = Arc::clone(&self.space);
        let looked = tokio::task::spawn_blocking(move || space.look()).await;
        let (before, now) = match looked.unwrap_or_else(|e| Err(std::io::Error::other(e))) {
            Ok(levels) => levels,
            Err(error) => return tracing::warn!(%error, "the room on the disk could not be looked at"),
        };
        let free = self.space.free();
        self.metrics.disk_free_bytes.set(i64::try_from(free).unwrap_or(i64::MAX));
        self.metrics.disk_level.set(now as i64);
        match now {
            Level::NoIntake => {
                self.readiness.not_ready("disk", format!("{} MiB free; nothing is taken in", free >> 20))
            }
            _ => self.readiness.ready("disk"),
        }
        if now == Level::Plenty {
            self.own.over(DISK, "", "");
        }
        if now > before {
            // Worse than what was told within the hour is told again.
            self.own.over(DISK, "", "");
            tracing::warn!(free, level = ?now, "the disk is getting full");
        }
        if now > Level::Plenty {
            self.tell(full(now, free)).await;
        }
    }

    /// Raises an alert about Lapwing itself where blocking hurts nobody.
    pub(super) async fn tell(&self, notice: Notice) {
        let own = self.own.clone();
        let raised = tokio::task::spawn_blocking(move || own.raise(&notice)).await;
        if let Ok(Err(error)) = raised {
            tracing::error!(%error, "an alert about Lapwing itself could not be stored");
        }
    }

    /// Trims the journals to the configured age and size: events never beyond what is judged, indexed and archived,
    /// alerts never beyond what is indexed and every output has passed.
    pub(super) async fn retain(&self) {
        let retention = &self.config.retention;
        let max_age = Some(retention.max_age.get());
        let judged = self.detect.judged.load(Ordering::Acquire);
        let archived = self.archived.lock().ok().and_then(|a| a.as_ref().map(|at| at.load(Ordering::Acquire)));
        let events = judged.min(self.index.indexed.load(Ordering::Acquire)).min(archived.unwrap_or(u64::MAX));
        let passed = self
            .passed
            .lock()
            .map_or(0, |all| all.iter().map(|(_, p)| p.done.load(Ordering::Acquire)).min().unwrap_or(u64::MAX));
        let alerts = passed.min(self.index.alerts_indexed.load(Ordering::Acquire));
        let index = self.index_bytes().await;
        let max_bytes = Some(share(retention.max_size.get(), index));
        trim("event", self.events.clone(), events, Retention { max_age, max_bytes }).await;
        let max_bytes = Some(retention.alerts_max_size.get());
        trim("alert", self.alerts.clone(), alerts, Retention { max_age, max_bytes }).await;
    }

    async fn index_bytes(&self) -> u64 {
        let dir = self.config.data_dir.join("index");
        let bytes = tokio::task::spawn_blocking(move || size_of(&dir)).await.unwrap_or_default();
        self.metrics.index_bytes.set(i64::try_from(bytes).unwrap_or(i64::MAX));
        bytes
    }
}

/// What the journal may take beside an index of `index` bytes. The index shrinks behind the journal and slowly: it
/// never takes more than half.
fn share(max_size: u64, index: u64) -> u64 {
    max_size - index.min(max_size / 2)
}

/// Bytes of the files in `dir`; what disappears meanwhile does not count.
fn size_of(dir: &Path) -> u64 {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    entries.filter_map(|entry| Some(entry.metadata().ok()?.len())).sum()
}

async fn trim(what: &'static str, journal: Journal, keep_after: u64, retention: Retention) {
    let trimmed = tokio::task::spawn_blocking(move || journal.trim(Lsn(keep_after), retention)).await;
    match trimmed {
        Ok(Ok(t)) if t.segments > 0 => {
            tracing::info!(journal = what, segments = t.segments, bytes = t.bytes, "journal trimmed");
        }
        Ok(Err(error)) => tracing::warn!(journal = what, %error, "journal could not be trimmed"),
        _ => {}
    }
}

fn full(level: Level, free: u64) -> Notice {
    let (severity, what) = match level {
        Level::NoIntake => {
            (Severity::Critical, "events are refused until there is room; senders drop them after a while")
        }
        Level::NoIndex => (Severity::High, "the index waits: search does not know the newest events"),
        _ => (Severity::Medium, "soon the index will wait, then events will be refused"),
    };
    Notice {
        id: DISK,
        title: "The disk of Lapwing is filling up",
        level: severity,
        summary: format!("{} MiB are free on the disk of dataDir: {what}", free >> 20),
        why: "What Lapwing cannot store it does not accept, and what an API server cannot deliver it drops. An attacker \
              may fill the disk to act unseen.",
        next_steps: &[
            "free space, or enlarge the disk; everything goes on by itself",
            "lower retention.maxSize to what the disk can hold",
            "look who sends so much: lapwing search --since 1h",
        ],
        ..Notice::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn journal_and_index_share_the_size() {
        assert_eq!([0, 30, 50, 90].map(|index| share(100, index)), [100, 70, 50, 50]);
    }
}
