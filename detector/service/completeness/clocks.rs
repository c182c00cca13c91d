//! Clocks of API servers against ours: the newest stage timestamp of a batch, and when the batch was received. Pure.
//!
//! A batch is of one API server, and its newest event is seconds old. What lies ahead is a wrong clock for certain; what lies
//! behind may also have been held back on the way, so one batch says nothing, and sources that keep a backlog (Kafka, files)
//! are not asked.

use std::collections::BTreeMap;

/// An event may lie so far in the future before its clock is called wrong, microseconds.
const AHEAD: i64 = 120_000_000;
/// The newest event of a batch may be so old: the API server's batching and all of its tries, twice.
const BEHIND: i64 = 300_000_000;
/// So many batches that lie behind are no accident, if they come over at least [`LASTING`] and at most [`SPAN`]: what an API
/// server kept while Lapwing was away comes within seconds.
const BATCHES: u32 = 3;
/// Microseconds.
const LASTING: i64 = 120_000_000;
const SPAN: i64 = 600_000_000;
/// Clusters remembered. Their names may come from senders.
const CLUSTERS: usize = 1000;

/// How a clock differs, microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Skew {
    Ahead(i64),
    /// `certain` when it lasts.
    Behind {
        by: i64,
        certain: bool,
    },
}

impl Skew {
    pub const fn direction(self) -> &'static str {
        match self {
            Self::Ahead(_) => "ahead",
            Self::Behind { .. } => "behind",
        }
    }
}

/// What was behind lately, by cluster: since when, and how many batches.
#[derive(Debug, Default)]
pub struct Clocks(BTreeMap<String, (i64, u32)>);

impl Clocks {
    /// A batch of `cluster` received at `received` whose newest stage timestamp is `newest`, microseconds since the epoch.
    /// `held`: its source keeps a backlog.
    pub fn judge(&mut self, cluster: &str, received: i64, newest: i64, held: bool) -> Option<Skew> {
        let ahead = newest.saturating_sub(received);
        if ahead > AHEAD {
            return Some(Skew::Ahead(ahead));
        }
        let by = ahead.saturating_neg();
        if held || by <= BEHIND {
            return None;
        }
        if self.0.len() >= CLUSTERS && !self.0.contains_key(cluster) {
            return Some(Skew::Behind { by, certain: false });
        }
        let (since, batches) = self.0.entry(cluster.to_owned()).or_insert((received, 0));
        if received.saturating_sub(*since) > SPAN {
            (*since, *batches) = (received, 0);
        }
        *batches += 1;
        Some(Skew::Behind { by, certain: *batches >= BATCHES && received.saturating_sub(*since) >= LASTING })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: i64 = 1_000_000;

    #[test]
    fn ahead_is_told_at_once_and_behind_when_it_stays_so() {
        let mut clocks = Clocks::default();
        let mut judge = |received: i64, newest: i64| clocks.judge("prod", received * SECOND, newest * SECOND, false);
        assert_eq!(judge(1000, 1120), None);
        assert_eq!(judge(1000, 1121), Some(Skew::Ahead(121 * SECOND)));
        assert_eq!(judge(1000, 700), None);
        let behind = |certain| Some(Skew::Behind { by: 301 * SECOND, certain });
        assert_eq!(judge(1001, 700), behind(false));
        assert_eq!(judge(1002, 701), behind(false));
        assert_eq!(judge(1900, 1599), behind(false), "long after: it begins anew");
        assert_eq!(judge(1901, 1600), behind(false));
        assert_eq!(judge(1902, 1601), behind(false), "what was kept while nobody listened");
        assert_eq!(judge(2019, 2019), None, "of another API server");
        assert_eq!(judge(2020, 1719), behind(true));
    }

    #[test]
    fn a_backlog_is_no_clock() {
        let mut clocks = Clocks::default();
        for n in 0..9 {
            assert_eq!(clocks.judge("prod", 90_000 * SECOND + n, 0, true), None);
        }
        assert!(matches!(clocks.judge("prod", 0, 200 * SECOND, true), Some(Skew::Ahead(_))));
    }

    #[test]
    fn clusters_are_bounded() {
        let mut clocks = Clocks::default();
        (0..CLUSTERS + 9).for_each(|n| {
            clocks.judge(&n.to_string(), 900 * SECOND, 0, false);
        });
        assert_eq!(clocks.0.len(), CLUSTERS);
    }
}
