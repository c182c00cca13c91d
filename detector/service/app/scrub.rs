//! Reads what was stored long ago once a day, so that a disk that forgets is noticed while there is still a backup.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::App;
use crate::journal::{Journal, Lsn};
use crate::metrics::Metrics;
use crate::pipeline::damage;
use crate::pipeline::selfalert::SelfAlerts;

/// Within this all files of a journal are read once.
const ROUND: Duration = Duration::from_secs(86_400);
/// Pause between two files at most.
const LONGEST_PAUSE: Duration = Duration::from_secs(3600);

/// One journal and how far its scrub has come.
struct Scrub {
    name: &'static str,
    journal: Journal,
    at: Lsn,
    own: SelfAlerts,
    metrics: Arc<Metrics>,
}

impl App {
    pub(super) async fn start_scrub(&self) {
        let mut tasks = self.admin.lock().await;
        for (name, journal) in [("event", &self.events), ("alert", &self.alerts)] {
            let (own, metrics) = (self.own.clone(), Arc::clone(&self.metrics));
            let scrub = Scrub { name, journal: journal.clone(), at: Lsn(0), own, metrics };
            tasks.spawn(scrub.run(self.admin_stop.clone()));
        }
    }
}

impl Scrub {
    async fn run(mut self, stop: CancellationToken) {
        loop {
            let files = self.journal.stat().segments as u32;
            let pause = (ROUND / files.max(1)).min(LONGEST_PAUSE);
            if stop.run_until_cancelled(tokio::time::sleep(pause)).await.is_none() {
                return;
            }
            let stepped = tokio::task::spawn_blocking(move || {
                self.step();
                self
            });
            match stepped.await {
                Ok(scrub) => self = scrub,
                Err(error) => return tracing::error!(%error, "the scrub ended"),
            }
        }
    }

    /// Reads the next closed file; behind the last it begins anew.
    fn step(&mut self) {
        let (last, report) = match self.journal.scrub(self.at) {
            Ok(Some(found)) => found,
            Ok(None) => return self.at = Lsn(0),
            Err(error) => return tracing::warn!(journal = self.name, %error, "a file could not be checked"),
        };
        self.at = last;
        self.metrics.journal_scrubbed.inc();
        if report.is_clean() {
            return;
        }
        self.metrics.journal_damage.inc();
        tracing::error!(journal = self.name, ?report, "a scrub found damage");
        let what = match report.gaps.first() {
            Some(gap) => format!("records {} to {} are {}", gap.from, gap.to, gap.cause),
            None => format!("up to record {last} the file is not what was written, though every record can be read"),
        };
        if let Err(error) = self.own.raise(&damage::notice(self.name, &what)) {
            tracing::error!(%error, "nobody could be told of the damage");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::Options;

    #[test]
    fn damage_in_a_closed_file_is_counted_and_told() {
        let dir = tempfile::tempdir().unwrap();
        let open = |name: &str| {
            Journal::open(&dir.path().join(name), Options { segment_bytes: 1, ..Options::default() }).unwrap().0
        };
        let (journal, alerts, metrics) = (open("journal"), open("alerts"), Arc::new(Metrics::new(["a"])));
        for n in 0..4 {
            journal.append_blocking(1, vec![n; 100]).unwrap();
        }
        let own = SelfAlerts::new(alerts.clone(), Arc::clone(&metrics));
        let mut scrub = Scrub { name: "event", journal, at: Lsn(0), own, metrics: Arc::clone(&metrics) };
        (0..3).for_each(|_| scrub.step());
        assert_eq!((metrics.journal_scrubbed.get(), metrics.journal_damage.get(), scrub.at), (3, 0, Lsn(3)));
        let file = dir.path().join("journal/00000000000000000002.wal");
        let mut bytes = std::fs::read(&file).unwrap();
        bytes[2 * 4096 + 80] ^= 4;
        std::fs::write(&file, bytes).unwrap();
        (0..4).for_each(|_| scrub.step());
        assert_eq!((metrics.journal_scrubbed.get(), metrics.journal_damage.get()), (6, 1));
        let alert = String::from_utf8(alerts.get(Lsn(1)).unwrap().unwrap().payload).unwrap();
        assert!(alert.contains("records 2 to 2 are damaged"), "{alert}");
    }
}
