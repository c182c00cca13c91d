//! What came of each cluster, counted for whoever asks whether it is all.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use lapwing_engine::event::Event;

use super::canaries::Canaries;
use crate::completeness::stages::{Ended, Stages};

/// Clusters counted at most. Their names may come from senders.
const CLUSTERS: usize = 1000;

/// Of one cluster, since the start of this process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Arrival {
    /// Events that were not there before.
    pub events: u64,
    /// When the last batch with an event was stored, microseconds since the epoch; 0 for none yet.
    pub last: i64,
}

#[derive(Debug, Default)]
pub struct Arrivals {
    clusters: Mutex<BTreeMap<String, Arrival>>,
    /// Requests of our own whose events should come.
    pub canaries: Canaries,
    stages: Mutex<Stages>,
}

impl Arrivals {
    /// A batch with events was stored at `now`.
    pub fn came(&self, cluster: &str, now: i64) {
        self.with(cluster, |arrival| arrival.last = arrival.last.max(now));
    }

    /// So many events were new.
    pub fn new_events(&self, cluster: &str, events: u64) {
        self.with(cluster, |arrival| arrival.events += events);
    }

    /// A new event, received at `received`.
    pub fn stage(&self, cluster: &str, event: &Event<'_>, received: i64) {
        self.stages.lock().unwrap_or_else(PoisonError::into_inner).saw(cluster, event, received);
    }

    /// Which requests of a cluster should have ended lately, and did not.
    pub fn ended(&self, cluster: &str) -> Ended {
        self.stages.lock().unwrap_or_else(PoisonError::into_inner).of(cluster)
    }

    pub fn of(&self, cluster: &str) -> Arrival {
        self.lock().get(cluster).copied().unwrap_or_default()
    }

    fn with(&self, cluster: &str, change: impl FnOnce(&mut Arrival)) {
        let mut all = self.lock();
        if let Some(arrival) = all.get_mut(cluster) {
            change(arrival);
        } else if all.len() < CLUSTERS {
            change(all.entry(cluster.to_owned()).or_default());
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Arrival>> {
        self.clusters.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_by_cluster_and_no_more_of_them_than_it_can_hold() {
        let arrivals = Arrivals::default();
        arrivals.new_events("a", 2);
        arrivals.new_events("a", 3);
        arrivals.came("a", 9);
        arrivals.came("a", 7);
        assert_eq!((arrivals.of("a"), arrivals.of("b")), (Arrival { events: 5, last: 9 }, Arrival::default()));
        (0..CLUSTERS + 9).for_each(|n| arrivals.came(&n.to_string(), 1));
        assert_eq!(arrivals.lock().len(), CLUSTERS);
        arrivals.came("a", 20);
        assert_eq!(arrivals.of("a").last, 20);
    }
}
