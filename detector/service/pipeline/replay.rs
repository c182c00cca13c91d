//! A replay must say what was said before. Compares the alerts of the journal with those that come out again.

use std::collections::HashMap;

use lapwing_engine::alert::{Alert, Level};
use xxhash_rust::xxh3::xxh3_64;

use super::alert_record;
use super::selfalert::{Notice, is_own};
use crate::journal::{Journal, Lsn};

/// Alerts compared at most: a replay of days has no room for that.
const COMPARED: usize = 100_000;
/// Ids named of those that differ.
const NAMED: usize = 5;

/// What the alert journal holds behind a snapshot.
#[derive(Debug, Default)]
pub struct Before {
    /// The last event LSN that a progress mark covers.
    pub mark: u64,
    /// `None` when there is nothing to compare with.
    pub check: Option<Check>,
}

/// Alerts that must come again, by the hash of their JSON.
#[derive(Debug, Default)]
pub struct Check {
    expected: HashMap<u64, Vec<String>>,
    others: Vec<String>,
}

/// Reads the alert journal behind `after`.
pub fn before(alerts: &Journal, after: u64) -> Before {
    let mut reader = alerts.reader(Lsn(after));
    let (mut mark, mut open, mut check) = (0, Vec::new(), Some(Check::default()));
    let mut count = 0;
    if alerts.stat().first > Lsn(after + 1) {
        check = None;
    }
    loop {
        match reader.next() {
            Ok(Some(record)) if record.kind == alert_record::PROGRESS => {
                mark = mark.max(super::number(&record.payload));
                let covered = open.drain(..);
                if let Some(check) = &mut check {
                    covered.for_each(|(hash, id)| check.expected.entry(hash).or_default().push(id));
                }
            }
            Ok(Some(record)) if check.is_some() => {
                count += 1;
                match serde_json::from_slice::<Alert>(&record.payload) {
                    Ok(alert) if is_own(&alert) => {}
                    Ok(alert) if count < COMPARED => open.push((xxh3_64(&record.payload), alert.id)),
                    _ => check = None,
                }
            }
            Ok(Some(_)) => {}
            Ok(None) => return Before { mark, check },
            Err(error) => {
                tracing::error!(%error, "alert journal is damaged here");
                check = None;
            }
        }
    }
}

impl Check {
    /// Takes alerts that came out of the replay.
    pub fn came(&mut self, alerts: &[Alert]) {
        for alert in alerts {
            let hash = xxh3_64(&serde_json::to_vec(alert).unwrap_or_default());
            match self.expected.get_mut(&hash).and_then(Vec::pop) {
                Some(_) => {}
                None => self.others.push(alert.id.clone()),
            }
        }
    }

    /// What is to be told when the replay is over; `None` if it said the same.
    pub fn over(self) -> Option<Notice> {
        let missing: Vec<String> = self.expected.into_values().flatten().collect();
        if missing.is_empty() && self.others.is_empty() {
            return None;
        }
        let named = |ids: &[String]| ids.iter().take(NAMED).cloned().collect::<Vec<_>>().join(", ");
        Some(Notice {
            id: "lapwing-replay-diverged",
            title: "A replay of the journal said something else",
            level: Level::Medium,
            summary: format!(
                "After a restart the same events gave {} other alerts ({}) and not {} that were told ({})",
                self.others.len(),
                named(&self.others),
                missing.len(),
                named(&missing)
            ),
            why: "The same events, rules and options must give the same alerts. This is an error in Lapwing; alerts that were \
                  told stand, but what was learned from these events may be wrong.",
            next_steps: &[
                "please report it, with the log of this start",
                "`lapwing journal verify`: is the journal whole?",
            ],
            ..Notice::default()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::Options;
    use crate::output::sample;

    fn alert(id: &str) -> Alert {
        Alert { id: id.to_owned(), ..sample::alert() }
    }

    fn journal(records: &[(u8, &str)]) -> (tempfile::TempDir, Journal) {
        let dir = tempfile::tempdir().unwrap();
        let journal = Journal::open(dir.path(), Options::default()).unwrap().0;
        for (kind, id) in records {
            let payload = match *kind {
                alert_record::PROGRESS => id.parse::<u64>().unwrap().to_le_bytes().to_vec(),
                _ => serde_json::to_vec(&alert(id)).unwrap(),
            };
            journal.append_blocking(*kind, payload).unwrap();
        }
        (dir, journal)
    }

    const RECORDS: [(u8, &str); 5] = [(1, "a"), (1, "b"), (2, "7"), (1, "b"), (2, "9")];

    #[test]
    fn the_same_alerts_are_no_news_and_others_are() {
        let (_dir, journal) = journal(&RECORDS);
        let check = |came: &[&str]| {
            let Before { mark, check } = before(&journal, 0);
            assert_eq!(mark, 9);
            let mut check = check.unwrap();
            came.iter().for_each(|id| check.came(&[alert(id)]));
            check.over().map(|notice| notice.summary)
        };
        assert_eq!(check(&["b", "a", "b"]), None);
        assert!(check(&["a", "b"]).unwrap().ends_with("0 other alerts () and not 1 that were told (b)"));
        assert!(check(&["a", "b", "b", "c"]).unwrap().contains("1 other alerts (c) and not 0"));
    }

    #[test]
    fn what_is_behind_a_snapshot_counts_and_what_no_mark_covers_does_not() {
        let (_dir, journal) = journal(&[&RECORDS[..], &[(1, "open")]].concat());
        let mut check = before(&journal, 3).check.unwrap();
        check.came(&[alert("b")]);
        assert!(check.over().is_none());
    }
}
