//! Requests that began and of which no end came: a sender, or somebody between it and us, loses a stage. Pure: time is that
//! of the journal, so a backlog that is read fast, or a restart, is no gap.
//!
//! What a policy leaves out is not missed. A kind of request (who, verb, resource) is expected to end only where almost all
//! of its kind did so before; a policy that omits `ResponseComplete` for it, or a consumer group that gives us every other
//! event, teaches that it does not. Whose end may take days (`exec`, `port-forward`) is not waited for.

use std::collections::hash_map::{Entry, RandomState};
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::hash::BuildHasher;

use lapwing_engine::event::{Event, Stage};

const MINUTE: i64 = 60_000_000;
/// The end of a request is here within this of its beginning, microseconds: a minute to answer, the API server's batching and
/// all of its tries.
const SOON: i64 = 10 * MINUTE;
/// The end of a watch: API servers end them within an hour, unless a client asks for more.
const WATCH: i64 = 150 * MINUTE;
/// Counts are of the last so many minutes.
const WINDOW: i64 = 15;
/// Requests waited for; of more, the oldest are not.
const WAITING: usize = if cfg!(test) { 2_000 } else { 200_000 };
/// Kinds of requests known; more, and all are learned again.
const KINDS: usize = if cfg!(test) { 500 } else { 50_000 };
/// So many of a kind must have ended, or not, before its share says anything.
const SEEN: u32 = 64;
/// The share of a kind that ends, from which on each is expected to.
const RELIABLE: f32 = 0.9;
/// Clusters counted. Their names may come from senders.
const CLUSTERS: usize = 1000;

/// What the requests of one cluster came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ended {
    /// How many should have ended in the last quarter of an hour.
    pub expected: u64,
    /// How many of these did not.
    pub missing: u64,
}

/// How often requests of one kind ended.
#[derive(Clone, Copy, Debug, Default)]
struct Kind {
    /// When the first one began.
    since: i64,
    seen: u32,
    share: f32,
}

impl Kind {
    /// Whether the next is expected to end `within` so long. An end is learned of at once and that there is none only later: a
    /// share is worth something after both could be.
    fn is_reliable(self, now: i64, within: i64) -> bool {
        self.seen >= SEEN && self.share >= RELIABLE && now.saturating_sub(self.since) >= 2 * within
    }

    fn learn(&mut self, ended: bool) {
        self.seen = self.seen.saturating_add(1);
        let ended = if ended { 1.0 } else { 0.0 };
        self.share += (ended - self.share) / self.seen.min(SEEN) as f32;
    }
}

/// A request whose end has not come.
#[derive(Clone, Debug)]
struct Open {
    kind: u64,
    cluster: String,
    within: i64,
    due: i64,
}

/// What is waited for, in order of when it is due.
#[derive(Debug, Default)]
struct Line(VecDeque<(i64, u64)>);

/// All requests that are waited for, of all clusters.
#[derive(Debug, Default)]
pub struct Stages {
    hasher: RandomState,
    now: i64,
    open: HashMap<u64, Open>,
    soon: Line,
    watches: Line,
    kinds: HashMap<u64, Kind>,
    /// By minute, oldest first.
    counts: BTreeMap<String, VecDeque<(i64, Ended)>>,
}

impl Stages {
    /// A new event of `cluster` that was received at `received`, microseconds since the epoch.
    pub fn saw(&mut self, cluster: &str, event: &Event<'_>, received: i64) {
        self.pass(received);
        // Of a request nobody is behind only the first stage is told; without an id there is no telling what belongs together.
        if event.audit_id.is_empty() || event.user.username.is_empty() {
            return;
        }
        let id = self.hasher.hash_one((cluster, event.audit_id.as_str(), event.request_received_timestamp.as_str()));
        match event.stage {
            Stage::RequestReceived => self.begin(id, cluster, event, SOON),
            Stage::ResponseStarted => {
                self.open.remove(&id);
                if event.verb.as_str() == "watch" && event.code().is_none_or(|code| code < 400) {
                    self.begin(id, cluster, event, WATCH);
                }
            }
            Stage::ResponseComplete | Stage::Panic => {
                if let Some(open) = self.open.remove(&id) {
                    self.end(&open, true);
                }
            }
            Stage::Unknown => {}
        }
    }

    /// What should have ended in `cluster`, and what did not.
    pub fn of(&self, cluster: &str) -> Ended {
        let mut sum = Ended::default();
        for (minute, ended) in self.counts.get(cluster).into_iter().flatten() {
            if *minute > self.now / MINUTE - WINDOW {
                sum.expected += ended.expected;
                sum.missing += ended.missing;
            }
        }
        sum
    }

    fn begin(&mut self, id: u64, cluster: &str, event: &Event<'_>, within: i64) {
        let object =
            event.object_ref.as_ref().map(|o| (o.api_group.as_str(), o.resource.as_str(), o.subresource.as_str()));
        if matches!(object, Some((_, _, "exec" | "attach" | "portforward" | "proxy" | "log"))) {
            return;
        }
        let kind = self.hasher.hash_one((cluster, event.user.username.as_str(), event.verb.as_str(), object, within));
        let due = self.now + within;
        let Entry::Vacant(place) = self.open.entry(id) else { return };
        place.insert(Open { kind, cluster: cluster.to_owned(), within, due });
        let line = if within == WATCH { &mut self.watches } else { &mut self.soon };
        line.0.push_back((due, id));
        if line.0.len() > WAITING {
            // Most have ended long ago and only stand in line behind one that has not.
            line.0.retain(|(due, id)| self.open.get(id).is_some_and(|open| open.due == *due));
            while line.0.len() > WAITING / 2
                && let Some((_, oldest)) = line.0.pop_front()
            {
                self.open.remove(&oldest);
            }
        }
    }

    /// Time goes on to `received`: whose end is overdue has none.
    fn pass(&mut self, received: i64) {
        self.now = self.now.max(received);
        for watches in [false, true] {
            loop {
                let line = if watches { &mut self.watches } else { &mut self.soon };
                let Some((due, id)) = line.0.front().copied() else { break };
                let open = self.open.get(&id).is_some_and(|open| open.due == due);
                if open && due > self.now {
                    break;
                }
                line.0.pop_front();
                if open && let Some(open) = self.open.remove(&id) {
                    self.end(&open, false);
                }
            }
        }
    }

    fn end(&mut self, open: &Open, ended: bool) {
        if self.kinds.len() >= KINDS && !self.kinds.contains_key(&open.kind) {
            self.kinds.clear();
        }
        let began = open.due - open.within;
        let kind = self.kinds.entry(open.kind).or_insert(Kind { since: began, ..Kind::default() });
        let expected = kind.is_reliable(self.now, open.within);
        kind.learn(ended);
        if !expected || (self.counts.len() >= CLUSTERS && !self.counts.contains_key(&open.cluster)) {
            return;
        }
        let minute = self.now / MINUTE;
        let counts = self.counts.entry(open.cluster.clone()).or_default();
        if counts.back().is_none_or(|(last, _)| *last != minute) {
            counts.push_back((minute, Ended::default()));
            while counts.front().is_some_and(|(first, _)| *first <= minute - WINDOW) {
                counts.pop_front();
            }
        }
        if let Some((_, count)) = counts.back_mut() {
            count.expected += 1;
            count.missing += u64::from(!ended);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Api {
        stages: Stages,
        now: i64,
        n: u64,
    }

    impl Api {
        fn new() -> Self {
            Self { stages: Stages::default(), now: 1_000_000 * MINUTE, n: 0 }
        }

        fn event(&mut self, n: u64, user: &str, verb: &str, resource: &str, stage: &str) {
            let (resource, sub) = resource.split_once('/').unwrap_or((resource, ""));
            let text = format!(
                r#"{{"auditID":"{n}","stage":"{stage}","verb":"{verb}","requestURI":"/x","user":{{"username":"{user}"}},
                "objectRef":{{"resource":"{resource}","subresource":"{sub}"}},"requestReceivedTimestamp":"t{n}"}}"#
            );
            self.stages.saw("prod", &Event::parse(&text).unwrap(), self.now);
        }

        /// So many requests, a second apart, through `stages`.
        fn requests(&mut self, many: u64, verb: &str, resource: &str, stages: &[&str]) {
            for _ in 0..many {
                self.n += 1;
                stages.iter().for_each(|stage| self.event(self.n, "u", verb, resource, stage));
                self.now += 1_000_000;
            }
        }

        /// Waits so long that every end is overdue, and looks.
        fn later(&mut self, minutes: i64) -> Ended {
            self.now += minutes * MINUTE;
            self.n += 1;
            self.event(self.n, "other", "get", "x", "ResponseComplete");
            self.stages.of("prod")
        }
    }

    const BOTH: [&str; 2] = ["RequestReceived", "ResponseComplete"];

    #[test]
    fn what_always_ended_and_does_not_is_missing() {
        let mut api = Api::new();
        api.requests(1300, "get", "pods", &BOTH);
        assert_eq!(api.stages.of("prod"), Ended { expected: 100, missing: 0 }, "since twenty minutes have passed");
        api.requests(5, "get", "pods", &BOTH[..1]);
        assert_eq!(api.stages.of("prod").missing, 0, "on their way");
        assert_eq!(api.later(10), Ended { expected: 105, missing: 5 });
        assert_eq!(api.stages.of("dev"), Ended::default());
        assert_eq!(api.later(30), Ended::default(), "of the last quarter of an hour");
        api.requests(100, "get", "pods", &["RequestReceived", "Panic"]);
        assert_eq!(api.later(11), Ended { expected: 100, missing: 0 }, "a panic is an end");
    }

    #[test]
    fn what_a_policy_leaves_out_is_not_missed() {
        let mut api = Api::new();
        api.requests(2000, "list", "pods", &BOTH[..1]);
        api.requests(2000, "get", "pods", &BOTH[1..]);
        assert_eq!(api.later(11), Ended::default());
        // Every other event goes to a neighbour: of its kind half never ends.
        for _ in 0..2000 {
            api.requests(1, "get", "secrets", &BOTH);
            api.requests(1, "get", "secrets", &BOTH[..1]);
        }
        assert_eq!(api.later(11), Ended::default());
    }

    #[test]
    fn what_runs_long_is_waited_for_longer_or_not_at_all() {
        let mut api = Api::new();
        let watch = ["RequestReceived", "ResponseStarted", "ResponseComplete"];
        api.requests(1, "watch", "pods", &watch);
        api.later(300);
        api.requests(100, "watch", "pods", &watch);
        api.requests(9, "watch", "pods", &watch[..2]);
        assert_eq!(api.later(60).missing, 0);
        api.requests(100, "create", "pods/exec", &watch);
        api.requests(9, "create", "pods/exec", &watch[..2]);
        let ended = api.later(95);
        assert_eq!(ended.missing, 7, "of nine; by then watches of this user are no longer expected to end");
    }

    #[test]
    fn nobody_who_is_turned_away_is_waited_for() {
        let mut api = Api::new();
        api.requests(100, "watch", "pods", &["ResponseStarted", "ResponseComplete"]);
        for _ in 0..50 {
            api.n += 1;
            api.event(api.n, "", "watch", "pods", "ResponseStarted");
        }
        assert_eq!(api.later(200).missing, 0);
    }

    #[test]
    fn memory_is_bounded_whatever_comes() {
        let mut api = Api::new();
        for n in 0..(WAITING as u64 + 700) {
            api.event(n, &format!("u{}", n % 600), "get", "pods", "RequestReceived");
        }
        assert!(api.stages.open.len() <= WAITING && api.stages.soon.0.len() <= WAITING);
        // One that never ends stands in front of a crowd that has.
        let mut api = Api::new();
        api.event(0, "u", "get", "pods", "RequestReceived");
        for n in 1..(2 * WAITING as u64) {
            api.event(n, "u", "get", "pods", "RequestReceived");
            api.event(n, "u", "get", "pods", "ResponseComplete");
        }
        assert!(api.stages.soon.0.len() <= WAITING && api.stages.open.len() == 1);
        let mut stages = Stages::default();
        for n in 0..(KINDS as u64 + 9) {
            stages.end(&Open { kind: n, cluster: n.to_string(), within: SOON, due: 0 }, true);
        }
        assert!(stages.kinds.len() <= KINDS && stages.counts.len() <= CLUSTERS);
    }
}
