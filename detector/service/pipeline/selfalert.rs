//! Alerts about Lapwing itself: a full disk, a dead letter, a cluster that went silent. They take the way of every
//! other alert, through the alert journal to each output, and never come from the engine.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use lapwing_engine::alert::{Alert, Level, RuleRef, Status, Verdict};

use super::alert_record;
use crate::journal::{AppendError, Journal};
use crate::metrics::Metrics;

/// The same is told again after this long, if it is still so.
const AGAIN: Duration = Duration::from_secs(3600);
/// Things told and remembered at most; the one told longest ago is forgotten.
const REMEMBERED: usize = 1000;

/// What is to be told.
#[derive(Clone, Debug, Default)]
pub struct Notice {
    /// Stable, begins with `lapwing-`.
    pub id: &'static str,
    pub title: &'static str,
    pub level: Level,
    /// Empty when it is about no cluster.
    pub cluster: String,
    /// What it is about, so that two of a kind are two alerts: an output, a journal.
    pub subject: String,
    pub summary: String,
    /// Requests it rests on.
    pub audit_ids: Vec<String>,
    pub why: &'static str,
    pub next_steps: &'static [&'static str],
}

/// Writes notices into the alert journal, each at most once an hour. Clones share their memory.
#[derive(Clone)]
pub struct SelfAlerts {
    alerts: Journal,
    metrics: Arc<Metrics>,
    told: Arc<Mutex<BTreeMap<(&'static str, String), Instant>>>,
}

impl SelfAlerts {
    pub fn new(alerts: Journal, metrics: Arc<Metrics>) -> Self {
        Self { alerts, metrics, told: Arc::default() }
    }

    /// Tells it, unless it was told within the hour. `Ok` once it is durable; what failed is told the next time. Blocks.
    pub fn raise(&self, notice: &Notice) -> Result<(), AppendError> {
        let key = (notice.id, format!("{}/{}", notice.cluster, notice.subject));
        if !self.is_due(&key) {
            return Ok(());
        }
        let alert = alert(notice, chrono::Utc::now());
        let payload = serde_json::to_vec(&alert).unwrap_or_default();
        self.alerts.append_blocking(alert_record::ALERT, payload)?;
        self.metrics.alert(alert.level);
        tracing::warn!(alert = alert.id, rule = notice.id, "{}", notice.summary);
        self.remember(key);
        Ok(())
    }

    /// What was told about is over: should it come back, that is told at once.
    pub fn over(&self, id: &'static str, cluster: &str, subject: &str) {
        self.lock().remove(&(id, format!("{cluster}/{subject}")));
    }

    fn is_due(&self, key: &(&'static str, String)) -> bool {
        self.lock().get(key).is_none_or(|told| told.elapsed() >= AGAIN)
    }

    fn remember(&self, key: (&'static str, String)) {
        let mut told = self.lock();
        if told.len() >= REMEMBERED
            && let Some(oldest) = told.iter().min_by_key(|(_, at)| **at).map(|(key, _)| key.clone())
        {
            told.remove(&oldest);
        }
        told.insert(key, Instant::now());
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<(&'static str, String), Instant>> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether an alert is about Lapwing itself.
pub fn is_own(alert: &Alert) -> bool {
    alert.actor_kind == KIND
}

const KIND: &str = "lapwing";

fn alert(notice: &Notice, now: chrono::DateTime<chrono::Utc>) -> Alert {
    let mut id = blake3::Hasher::new();
    for part in [notice.id, &notice.cluster, &notice.subject] {
        id.update(&(part.len() as u64).to_le_bytes()).update(part.as_bytes());
    }
    id.update(&now.timestamp_micros().to_le_bytes());
    Alert {
        id: id.finalize().to_hex()[..32].to_owned(),
        status: Status::New,
        rule: RuleRef {
            id: notice.id.to_owned(),
            title: notice.title.to_owned(),
            level: notice.level,
            tags: Vec::new(),
        },
        level: notice.level,
        verdict: Verdict::Match,
        cluster: notice.cluster.clone(),
        actor: "lapwing".to_owned(),
        actor_kind: KIND.to_owned(),
        first: now,
        last: now,
        count: 1,
        summary: notice.summary.clone(),
        why: notice.why.to_owned(),
        false_positives: Vec::new(),
        next_steps: notice.next_steps.iter().map(|step| (*step).to_owned()).collect(),
        audit_ids: notice.audit_ids.clone(),
        evidence: Vec::new(),
        anomaly: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::{Lsn, Options};

    fn notice(subject: &str) -> Notice {
        Notice {
            id: "lapwing-test",
            title: "A test",
            level: Level::High,
            cluster: String::new(),
            subject: subject.to_owned(),
            summary: format!("about {subject}"),
            ..Notice::default()
        }
    }

    #[test]
    fn each_is_told_once_an_hour_and_anew_when_it_comes_back() {
        let dir = tempfile::tempdir().unwrap();
        let (journal, _) = Journal::open(dir.path(), Options::default()).unwrap();
        let own = SelfAlerts::new(journal.clone(), Arc::new(Metrics::new(["a"])));
        for subject in ["a", "b", "a", "a"] {
            own.raise(&notice(subject)).unwrap();
        }
        assert_eq!(journal.durable(), Lsn(2));
        own.over("lapwing-test", "", "a");
        own.raise(&notice("a")).unwrap();
        let read = |lsn| serde_json::from_slice::<Alert>(&journal.get(Lsn(lsn)).unwrap().unwrap().payload).unwrap();
        let (first, again) = (read(1), read(3));
        assert_eq!((first.summary.as_str(), is_own(&first)), ("about a", true));
        assert_ne!(first.id, again.id, "another occasion, another alert");
        for n in 0..REMEMBERED + 10 {
            own.remember(("lapwing-test", n.to_string()));
        }
        assert_eq!(own.lock().len(), REMEMBERED);
    }
}
