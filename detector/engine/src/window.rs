//! The memory of correlations: which requests lie inside a rule's timespan, per group.
//!
//! Bounded: a group keeps as many hits as the condition can need, a correlation as many groups as
//! its cap. The group touched longest ago is forgotten first and counted, so that an attacker who
//! rotates keys is visible. Events may come out of order within the timespan.

use std::collections::VecDeque;

use hashlink::LinkedHashMap;
use serde::{Deserialize, Serialize, Serializer};

use crate::alert::Evidence;
use crate::listed::Listed;

/// One request that a base rule matched.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Hit {
    /// Stage time, microseconds; of a counted value, when it was seen last.
    pub time: i64,
    /// Which of the correlation's rules it matched.
    pub rule: u32,
    /// Identity of the request; two stages of one request are one hit.
    pub request: u64,
    /// The counted value of a `value_count`.
    pub value: Option<String>,
    pub audit_id: String,
    /// Spelled out for the newest five hits of each rule in a group.
    pub evidence: Option<Box<Evidence>>,
}

/// What has to be true of the hits inside the timespan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// At least this many requests.
    EventCount { at_least: usize },
    /// At least this many distinct values.
    ValueCount { at_least: usize },
    /// Every one of this many rules, in any order.
    Temporal { rules: u32 },
    /// Every one of this many rules, in this order.
    TemporalOrdered { rules: u32 },
}

/// The hits of one correlation.
#[derive(Clone, Debug)]
pub struct Windows {
    kind: Kind,
    timespan: i64,
    cap: usize,
    /// In the order they were last touched.
    groups: LinkedHashMap<String, Group>,
    evicted: u64,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Group {
    /// Ordered by time.
    hits: VecDeque<Hit>,
}

#[derive(Serialize, Deserialize)]
struct Stored<G> {
    evicted: u64,
    groups: G,
}

/// Hits of each rule a temporal correlation keeps; the newest matter.
const PER_RULE: usize = 16;
/// Hits of each rule in a group that are kept spelled out.
const EVIDENCE: usize = 5;
/// Part of the timespan within which a value that comes again is told by the request that showed it before: a person who
/// changes fifty objects within a minute is not spelled out fifty times.
const LATELY: i64 = 60;
/// Groups a correlation remembers.
pub const DEFAULT_CAP: usize = 20_000;

impl Windows {
    /// `timespan` in microseconds.
    pub fn new(kind: Kind, timespan: i64, cap: usize) -> Self {
        Self { kind, timespan, cap, groups: LinkedHashMap::new(), evicted: 0 }
    }

    /// Adds a hit; the hits that together fulfil the condition, oldest first, if they now do. A group
    /// that fired starts anew, so that the next finding rests on new requests.
    pub fn add(&mut self, group_key: &str, hit: Hit) -> Option<Vec<Hit>> {
        if self.groups.to_back(group_key).is_none() {
            if self.groups.len() >= self.cap {
                self.groups.pop_front();
                self.evicted += 1;
            }
            self.groups.insert(group_key.to_owned(), Group::default());
        }
        let group = self.groups.get_mut(group_key)?;
        let mut hit = hit;
        if matches!(self.kind, Kind::ValueCount { .. }) && !group.holds(&hit) {
            if hit.evidence.is_none()
                && let Some(told) = group.told_lately(&hit, self.timespan)
            {
                hit = Hit { time: hit.time, ..told.clone() };
            }
            // Of a value that comes again the newest hit is enough.
            group.hits.retain(|h| h.value != hit.value || h.time > hit.time);
        }
        let newest = group.insert(hit)?;
        group.forget(newest - self.timespan, self.kind.room());
        let fired = self.kind.check(group, self.timespan)?;
        self.groups.remove(group_key);
        Some(fired)
    }

    /// Whether a hit should be spelled out: it may soon be shown. Most hits of a busy base rule never are.
    pub fn wants_evidence(&self, group_key: &str, hit: &Hit) -> bool {
        let group = self.groups.get(group_key);
        let hits = group.map(|g| &g.hits);
        match &self.kind {
            Kind::EventCount { at_least } => hits.map_or(0, VecDeque::len) + EVIDENCE >= *at_least,
            // The newest hit of a value replaces the one before: a group can stay one value short for ever.
            Kind::ValueCount { at_least } => {
                hits.map_or(0, VecDeque::len) + 2 >= *at_least
                    && group.is_none_or(|g| g.told_lately(hit, self.timespan).is_none())
            }
            Kind::Temporal { .. } => true,
            // A step without the one before it leads nowhere, but for the rare one that arrived too early.
            Kind::TemporalOrdered { .. } => {
                hit.rule == 0 || hits.is_some_and(|h| h.iter().any(|h| h.rule + 1 == hit.rule))
            }
        }
    }

    /// Groups forgotten because the cap was reached, since the start.
    pub fn evicted(&self) -> u64 {
        self.evicted
    }

    /// Groups remembered now.
    pub fn len(&self) -> usize {
        self.groups.len()
    }

    pub fn is_empty(&self) -> bool {
        self.groups.is_empty()
    }

    /// Goes on where another was, if it asks for the same; with another timespan or bound all the same.
    pub fn go_on(&mut self, old: Self) {
        if std::mem::discriminant(&self.kind) == std::mem::discriminant(&old.kind) {
            (self.groups, self.evicted) = (old.groups, old.evicted);
        }
    }

    /// Takes over the groups of a snapshot of the same correlation.
    pub fn restore(&mut self, snapshot: &str) -> Result<(), serde_json::Error> {
        let stored: Stored<Vec<(String, Group)>> = serde_json::from_str(snapshot)?;
        self.evicted = stored.evicted;
        self.groups = stored.groups.into_iter().collect();
        Ok(())
    }
}

/// The groups as data, in the order they were touched.
impl Serialize for Windows {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Stored { evicted: self.evicted, groups: Listed(|| self.groups.iter()) }.serialize(serializer)
    }
}

impl Group {
    fn holds(&self, hit: &Hit) -> bool {
        self.hits.iter().any(|h| h.request == hit.request && h.rule == hit.rule)
    }

    /// The hit of the same value that was spelled out so short a time before that it can stand for this one.
    fn told_lately(&self, hit: &Hit, timespan: i64) -> Option<&Hit> {
        let lately = |told: &Evidence| (0..timespan / LATELY).contains(&(hit.time - told.time.timestamp_micros()));
        self.hits.iter().find(|h| h.value == hit.value && h.evidence.as_deref().is_some_and(lately))
    }

    /// Inserts in time order; the newest time, or `None` where the request is here already.
    fn insert(&mut self, hit: Hit) -> Option<i64> {
        if self.holds(&hit) {
            return None;
        }
        let at = self.hits.partition_point(|h| h.time <= hit.time);
        let rule = hit.rule;
        self.hits.insert(at, hit);
        self.hits.iter_mut().rev().filter(|h| h.rule == rule).skip(EVIDENCE).for_each(|old| old.evidence = None);
        self.hits.back().map(|h| h.time)
    }

    fn forget(&mut self, before: i64, room: usize) {
        while self.hits.front().is_some_and(|h| h.time < before) || self.hits.len() > room {
            self.hits.pop_front();
        }
    }
}

impl Kind {
    /// How many hits a group keeps.
    fn room(&self) -> usize {
        match self {
            Self::EventCount { at_least } => (*at_least).max(1),
            // A value that came late can stand twice.
            Self::ValueCount { at_least } => at_least.saturating_mul(2).max(1),
            Self::Temporal { rules } | Self::TemporalOrdered { rules } => *rules as usize * PER_RULE,
        }
    }

    fn check(&self, group: &mut Group, timespan: i64) -> Option<Vec<Hit>> {
        match self {
            Self::EventCount { at_least } => (group.hits.len() >= *at_least).then(|| group.hits.drain(..).collect()),
            Self::ValueCount { at_least } => {
                let mut values: Vec<&str> = group.hits.iter().filter_map(|h| h.value.as_deref()).collect();
                values.sort_unstable();
                values.dedup();
                (values.len() >= *at_least).then(|| group.hits.drain(..).collect())
            }
            Self::Temporal { rules } => {
                let newest = |rule: u32| group.hits.iter().rev().find(|h| h.rule == rule).cloned();
                let mut found: Vec<Hit> = (0..*rules).map(newest).collect::<Option<_>>()?;
                found.sort_by_key(|h| h.time);
                Some(found)
            }
            Self::TemporalOrdered { rules } => group.chain(*rules, timespan),
        }
    }
}

impl Group {
    /// One hit of each rule in order: the latest chain that fits.
    fn chain(&self, rules: u32, timespan: i64) -> Option<Vec<Hit>> {
        let mut chain: Vec<Hit> = Vec::with_capacity(rules as usize);
        let mut before = usize::MAX;
        for rule in (0..rules).rev() {
            let (at, hit) = self.hits.iter().enumerate().rev().find(|(at, h)| *at < before && h.rule == rule)?;
            before = at;
            chain.push(hit.clone());
        }
        chain.reverse();
        let spans = chain.last()?.time - chain.first()?.time <= timespan;
        spans.then_some(chain)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hit(time: i64, rule: u32, request: u64, value: &str) -> Hit {
        Hit { time, rule, request, value: Some(value.to_owned()), audit_id: String::new(), evidence: None }
    }

    fn count(n: usize) -> Windows {
        Windows::new(Kind::EventCount { at_least: n }, 60, 10)
    }

    #[test]
    fn the_third_within_the_span_fires_and_the_count_starts_anew() {
        let mut w = count(3);
        assert_eq!(w.add("k", hit(0, 0, 1, "")), None);
        assert_eq!(w.add("k", hit(50, 0, 2, "")), None);
        assert_eq!(w.add("k", hit(70, 0, 3, "")), None, "the first is out of the span");
        assert_eq!(w.add("other", hit(71, 0, 4, "")), None);
        assert_eq!(w.add("k", hit(72, 0, 5, "")).map(|h| h.len()), Some(3));
        assert_eq!(w.add("k", hit(73, 0, 6, "")), None);
    }

    #[test]
    fn the_border_of_the_span_belongs_to_it() {
        let mut w = count(2);
        w.add("k", hit(0, 0, 1, ""));
        assert!(w.add("k", hit(60, 0, 2, "")).is_some());
        w.add("k", hit(100, 0, 3, ""));
        assert!(w.add("k", hit(161, 0, 4, "")).is_none());
    }

    #[test]
    fn two_stages_of_one_request_are_one_hit_and_order_does_not_matter() {
        let mut w = count(2);
        w.add("k", hit(30, 0, 1, ""));
        assert!(w.add("k", hit(31, 0, 1, "")).is_none());
        let fired = w.add("k", hit(10, 0, 2, "")).expect("a late event counts");
        assert_eq!(fired.iter().map(|h| h.time).collect::<Vec<_>>(), [10, 30]);
    }

    #[test]
    fn distinct_values_are_counted_once() {
        let mut w = Windows::new(Kind::ValueCount { at_least: 3 }, 60, 10);
        for (i, v) in ["a", "a", "b", "a", "b"].iter().enumerate() {
            assert!(w.add("k", hit(i as i64, 0, i as u64, v)).is_none());
        }
        assert!(w.add("k", hit(6, 0, 9, "c")).is_some());
    }

    #[test]
    fn a_value_that_comes_again_soon_is_told_by_the_request_before_it() {
        let spelled = |time: i64, request: u64, value: &str| {
            let time_told = crate::event::to_datetime(time);
            let evidence = Some(Box::new(Evidence { time: time_told, ..Evidence::default() }));
            Hit { evidence, ..hit(time, 0, request, value) }
        };
        let mut w = Windows::new(Kind::ValueCount { at_least: 3 }, 6_000, 10);
        w.add("k", spelled(0, 0, "a"));
        assert!(w.wants_evidence("k", &hit(50, 0, 1, "b")));
        w.add("k", spelled(50, 1, "b"));
        assert!(!w.wants_evidence("k", &hit(99, 0, 2, "a")));
        w.add("k", hit(99, 0, 2, "a"));
        assert!(w.wants_evidence("k", &hit(100, 0, 3, "a")), "it was told too long ago");
        let fired = w.add("k", spelled(6_099, 4, "c")).map(|hits| hits.iter().map(|h| h.request).collect::<Vec<_>>());
        assert_eq!(fired, None, "of `a` it is known that it was seen at 99, `b` is gone");
        w.add("k", spelled(6_099, 5, "b"));
        let mut w = Windows::new(Kind::ValueCount { at_least: 3 }, 6_000, 10);
        for hit in [spelled(0, 0, "a"), spelled(50, 1, "b"), hit(99, 0, 2, "a"), hit(100, 0, 3, "b")] {
            w.add("k", hit);
        }
        let fired = w.add("k", spelled(6_099, 4, "c")).expect("three values");
        assert_eq!(fired.iter().map(|h| (h.time, h.request)).collect::<Vec<_>>(), [(99, 0), (100, 1), (6_099, 4)]);
        let mut w = Windows::new(Kind::ValueCount { at_least: 2 }, 6_000, 10);
        w.add("k", spelled(0, 0, "a"));
        w.add("k", spelled(50, 1, "a"));
        let fired = w.add("k", spelled(60, 2, "b")).expect("two values");
        assert_eq!(fired[0].request, 1, "what is spelled out stands for itself");
    }

    #[test]
    fn a_request_counted_under_one_value_takes_none_from_others() {
        let mut w = Windows::new(Kind::ValueCount { at_least: 3 }, 60, 10);
        w.add("k", hit(0, 0, 1, "a"));
        w.add("k", hit(1, 0, 2, "b"));
        // A later stage of the second request, under the value of the first.
        w.add("k", hit(2, 0, 2, "a"));
        assert!(w.add("k", hit(3, 0, 3, "c")).is_some());
    }

    #[test]
    fn temporal_wants_all_ordered_wants_them_in_order() {
        let feed = |kind: Kind, rules: &[u32]| {
            let mut w = Windows::new(kind, 60, 10);
            rules.iter().enumerate().filter_map(|(i, r)| w.add("k", hit(i as i64, *r, i as u64, ""))).count()
        };
        assert_eq!(feed(Kind::Temporal { rules: 3 }, &[2, 0, 1]), 1);
        assert_eq!(feed(Kind::Temporal { rules: 3 }, &[2, 0, 0]), 0);
        assert_eq!(feed(Kind::TemporalOrdered { rules: 3 }, &[2, 0, 1]), 0);
        assert_eq!(feed(Kind::TemporalOrdered { rules: 3 }, &[2, 0, 1, 2]), 1);
        assert_eq!(feed(Kind::TemporalOrdered { rules: 2 }, &[0, 1, 0, 1]), 2);
    }

    #[test]
    fn ordered_takes_a_late_event_where_it_belongs() {
        let mut w = Windows::new(Kind::TemporalOrdered { rules: 2 }, 60, 10);
        assert!(w.add("k", hit(20, 1, 1, "")).is_none());
        assert!(w.add("k", hit(10, 0, 2, "")).is_some(), "the first step arrived after the second");
    }

    #[test]
    fn the_newest_hits_of_each_rule_stay_spelled_out() {
        let mut w = Windows::new(Kind::TemporalOrdered { rules: 2 }, 60, 10);
        for i in 0..20 {
            w.add("k", Hit { evidence: Some(Box::default()), ..hit(i, 0, i as u64, "") });
        }
        let last = Hit { evidence: Some(Box::default()), ..hit(30, 1, 99, "") };
        let fired = w.add("k", last).expect("a chain");
        assert!(fired.iter().all(|h| h.evidence.is_some()), "both steps can be shown");

        let mut w = count(10);
        let mut fired = None;
        for i in 0..10 {
            fired = w.add("k", Hit { evidence: Some(Box::default()), ..hit(i, 0, i as u64, "") });
        }
        let spelled: Vec<i64> = fired.expect("ten").iter().filter(|h| h.evidence.is_some()).map(|h| h.time).collect();
        assert_eq!(spelled, [5, 6, 7, 8, 9]);
    }

    #[test]
    fn the_least_recently_touched_group_is_forgotten_and_counted() {
        let mut w = count(2);
        for i in 0..11 {
            w.add(&format!("k{i}"), hit(i, 0, i as u64, ""));
        }
        assert_eq!((w.len(), w.evicted()), (10, 1));
        assert!(w.add("k0", hit(20, 0, 100, "")).is_none(), "k0 was forgotten");
        assert!(w.add("k5", hit(20, 0, 101, "")).is_some());
    }

    #[test]
    fn only_one_that_asks_for_the_same_goes_on() {
        let mut old = count(3);
        old.add("k", hit(0, 0, 1, ""));
        let mut other = Windows::new(Kind::ValueCount { at_least: 1 }, 10, 10);
        other.go_on(old.clone());
        assert!(other.is_empty());
        let mut stricter = count(2);
        stricter.go_on(old);
        assert!(stricter.add("k", hit(1, 0, 2, "")).is_some(), "what was counted under the old bound counts");
    }

    #[test]
    fn a_snapshot_goes_on_where_it_was() {
        let mut a = count(3);
        a.add("k", hit(0, 0, 1, ""));
        a.add("k", hit(1, 0, 2, ""));
        let mut b = count(3);
        b.restore(&serde_json::to_string(&a).expect("data")).expect("own snapshot");
        assert_eq!(a.add("k", hit(2, 0, 3, "")), b.add("k", hit(2, 0, 3, "")));
        assert!(b.is_empty());
    }
}
