//! The memory of `new_value`, `rare_value` and `rate_anomaly`: what each group of a correlation usually shows.
//!
//! Bounded like [`crate::window`]: so many groups, so many values of each; the group touched longest ago is forgotten
//! first and counted. Nothing is told before half the timespan, at most seven days, has been learned.

use std::collections::HashMap;

use hashlink::LinkedHashMap;
use serde::{Deserialize, Serialize, Serializer};

use super::burst::tail;
use crate::listed::Listed;

const HOUR: i64 = 3_600_000_000;
const DAY: i64 = 24 * HOUR;
/// Longest time to learn before something is told.
const LEARN: i64 = 7 * DAY;
/// Values of one group that are kept; beyond that the one not seen for longest goes.
const MAX_VALUES: usize = 256;
/// Time in which what was counted in a span weighs half, of `rate_anomaly`.
const HALF_LIFE: f32 = 14.0 * 24.0 * 3.6e9;
/// Spans of the mean of all groups that weigh as much as the group's own.
const PRIOR_SPANS: f32 = 24.0;

/// What has to be true of a group's hits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A value the group has not shown within the timespan.
    NewValue,
    /// A value that at most so many groups have shown within the timespan.
    RareValue { at_most: u64 },
    /// At least so many hits (distinct values, where values are given) within the timespan, and far more than usual.
    Rate { at_least: u64 },
}

/// Why a hit is told.
#[derive(Clone, Debug, PartialEq)]
pub enum Unusual {
    New { value: String, since: i64 },
    Rare { value: String, holders: u64, groups: u64 },
    Rate { count: u64, usual: f32 },
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Value {
    text: Box<str>,
    last: i64,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Group {
    touched: i64,
    first: i64,
    /// Values within the timespan; of a rate, the distinct ones of this span.
    values: Vec<Value>,
    /// When values beyond the timespan were last thrown out.
    swept: i64,
    /// Start of the span being counted, hits in it, and whether it was told.
    span: i64,
    count: f32,
    told: bool,
    /// Decayed sums of counts, of their squares, and of spans.
    sum: f32,
    squares: f32,
    spans: f32,
}

/// How many groups hold a value.
type Holders = HashMap<Box<str>, u64>;

/// What the groups of one correlation usually show.
#[derive(Clone, Debug)]
pub struct Habits {
    kind: Kind,
    timespan: i64,
    cap: usize,
    /// In the order they were last touched.
    groups: LinkedHashMap<String, Group>,
    /// How many groups hold a value, of `rare_value`.
    holders: Holders,
    now: i64,
    since: Option<i64>,
    evicted: u64,
    /// Decayed mean of all groups: counts and spans.
    all: (f32, f32),
}

#[derive(Serialize, Deserialize)]
struct Stored<G> {
    groups: G,
    now: i64,
    since: Option<i64>,
    evicted: u64,
    all: (f32, f32),
}

impl Habits {
    /// `timespan` in microseconds; `cap`: groups remembered.
    pub fn new(kind: Kind, timespan: i64, cap: usize) -> Self {
        Self {
            kind,
            timespan,
            cap,
            groups: LinkedHashMap::new(),
            holders: HashMap::new(),
            now: i64::MIN,
            since: None,
            evicted: 0,
            all: (1.0, 1.0),
        }
    }

    /// Takes up a hit at `time`, microseconds, and says whether it is unusual. But for rates, hours are told apart, not
    /// less: what comes again within the hour changes nothing.
    pub fn add(&mut self, group_key: &str, value: Option<&str>, time: i64) -> Option<Unusual> {
        let rate = matches!(self.kind, Kind::Rate { .. });
        self.now = self.now.max(if rate { time } else { time.div_euclid(HOUR) * HOUR });
        let since = *self.since.get_or_insert(self.now);
        let known = self.groups.get(group_key).map(|group| group.touched);
        if known.is_some_and(|touched| touched < self.now) {
            self.groups.to_back(group_key);
        } else if known.is_none() {
            if self.groups.len() >= self.cap {
                self.evict();
            }
            self.groups.insert(
                group_key.to_owned(),
                Group { first: self.now, span: self.now, swept: self.now, ..Group::default() },
            );
        }
        let groups = self.groups.len() as u64;
        let group = self.groups.get_mut(group_key)?;
        group.touched = self.now;
        let of = Span { kind: self.kind, timespan: self.timespan, now: self.now, since };
        match self.kind {
            Kind::NewValue => of.new_value(group, &mut self.holders, value?),
            Kind::RareValue { at_most } => of.rare_value(group, &mut self.holders, value?, at_most, groups),
            Kind::Rate { at_least } => of.rate(group, &mut self.all, value, at_least),
        }
    }

    fn evict(&mut self) {
        let Some((_, group)) = self.groups.pop_front() else { return };
        group.values.iter().for_each(|v| drop_holder(&mut self.holders, &v.text));
        self.evicted += 1;
    }

    /// Groups forgotten because the cap was reached, since the start.
    pub fn evicted(&self) -> u64 {
        self.evicted
    }

    /// Goes on where another was, if it asks for the same; with another timespan or bound all the same.
    pub fn go_on(&mut self, old: Self) {
        if std::mem::discriminant(&self.kind) == std::mem::discriminant(&old.kind) {
            *self = Self { kind: self.kind, timespan: self.timespan, cap: self.cap, ..old };
        }
    }

    /// Takes over the groups of a snapshot of the same correlation.
    pub fn restore(&mut self, snapshot: &str) -> Result<(), serde_json::Error> {
        let stored: Stored<Vec<(String, Group)>> = serde_json::from_str(snapshot)?;
        (self.now, self.since) = (stored.now, stored.since);
        (self.evicted, self.all) = (stored.evicted, stored.all);
        for (key, group) in stored.groups {
            group.values.iter().for_each(|v| *self.holders.entry(v.text.clone()).or_default() += 1);
            self.groups.insert(key, group);
        }
        Ok(())
    }
}

/// The groups as data, in the order they were touched.
impl Serialize for Habits {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let groups = Listed(|| self.groups.iter());
        let (now, since, evicted, all) = (self.now, self.since, self.evicted, self.all);
        Stored { groups, now, since, evicted, all }.serialize(serializer)
    }
}

/// What a hit is judged against, beside its group.
#[derive(Clone, Copy)]
struct Span {
    kind: Kind,
    timespan: i64,
    now: i64,
    /// When the correlation met its first hit.
    since: i64,
}

impl Span {
    fn learning(&self) -> i64 {
        if matches!(self.kind, Kind::Rate { .. }) {
            LEARN.min(24 * self.timespan)
        } else {
            LEARN.min(self.timespan / 2)
        }
    }

    fn new_value(self, group: &mut Group, holders: &mut Holders, value: &str) -> Option<Unusual> {
        let new = self.keep(group, holders, value);
        let learned = self.now - group.first >= self.learning();
        (new && learned).then(|| Unusual::New { value: value.to_owned(), since: group.first })
    }

    fn rare_value(
        self,
        group: &mut Group,
        holders: &mut Holders,
        value: &str,
        at_most: u64,
        groups: u64,
    ) -> Option<Unusual> {
        if !self.keep(group, holders, value) {
            return None;
        }
        let held = holders.get(value).copied().unwrap_or_default();
        let crowd = groups >= 10 * at_most.max(1);
        (crowd && held <= at_most && self.now - self.since >= self.learning()).then(|| Unusual::Rare {
            value: value.to_owned(),
            holders: held,
            groups,
        })
    }

    /// `all`: decayed mean of all groups, counts and spans.
    fn rate(self, group: &mut Group, all: &mut (f32, f32), value: Option<&str>, at_least: u64) -> Option<Unusual> {
        if self.now - group.span >= self.timespan {
            self.close(group, all);
        }
        if let Some(value) = value {
            if group.values.iter().any(|v| *v.text == *value) {
                return None;
            }
            if group.values.len() < MAX_VALUES {
                group.values.push(Value { text: value.into(), last: self.now });
            }
        }
        group.count += 1.0;
        if group.told || group.count < at_least as f32 || self.now - self.since < self.learning() {
            return None;
        }
        let of_all = all.0 / all.1;
        let spans = group.spans + PRIOR_SPANS;
        let usual = (group.sum + PRIOR_SPANS * of_all) / spans + 0.02;
        let square = (group.squares + PRIOR_SPANS * (of_all * of_all + 2.0 * of_all)) / spans;
        if group.count <= 2.0 * usual + 2.0 || tail(group.count, usual, square - usual * usual) <= 0.0 {
            return None;
        }
        group.told = true;
        Some(Unusual::Rate { count: group.count as u64, usual })
    }

    /// Learns the span that is over; one that was told only up to three times the usual.
    fn close(self, group: &mut Group, all: &mut (f32, f32)) {
        let passed = (self.now - group.span) / self.timespan;
        let left = (-(passed as f32 * self.timespan as f32) / HALF_LIFE).exp2();
        let usual = (group.sum + 1.0) / (group.spans + 1.0);
        let count = if group.told { group.count.min(3.0 * usual + 2.0) } else { group.count };
        group.sum = group.sum * left + count;
        group.squares = group.squares * left + count * count;
        group.spans = group.spans * left + passed as f32;
        *all = (all.0 * 0.9995 + count.min(50.0), all.1 * 0.9995 + passed as f32);
        group.span += passed * self.timespan;
        (group.count, group.told) = (0.0, false);
        group.values.clear();
    }

    /// Notes a value; true where the group has not shown it within the timespan.
    fn keep(self, group: &mut Group, holders: &mut Holders, value: &str) -> bool {
        let before = self.now - self.timespan;
        if self.now - group.swept > self.timespan / 16 {
            group.swept = self.now;
            group.values.retain(|v| {
                let kept = v.last >= before;
                if !kept {
                    drop_holder(holders, &v.text);
                }
                kept
            });
        }
        if let Some(at) = group.values.iter().position(|v| *v.text == *value) {
            let seen = std::mem::replace(&mut group.values[at].last, self.now);
            // What comes often is found early.
            group.values.swap(at, at / 2);
            return seen < before;
        }
        if group.values.len() >= MAX_VALUES {
            let oldest = (0..group.values.len()).min_by_key(|i| group.values[*i].last).unwrap_or_default();
            drop_holder(holders, &group.values.swap_remove(oldest).text);
        }
        *holders.entry(value.into()).or_default() += 1;
        group.values.push(Value { text: value.into(), last: self.now });
        true
    }
}

fn drop_holder(holders: &mut Holders, value: &str) {
    if let Some(n) = holders.get_mut(value) {
        *n -= 1;
        if *n == 0 {
            holders.remove(value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn new_value() -> Habits {
        Habits::new(Kind::NewValue, 14 * DAY, 10)
    }

    #[test]
    fn new_is_what_a_known_group_has_not_shown() {
        let mut h = new_value();
        assert_eq!(h.add("a", Some("x"), 0), None);
        assert_eq!(h.add("a", Some("y"), 6 * DAY), None, "still learning");
        assert_eq!(h.add("a", Some("x"), 8 * DAY), None);
        assert_eq!(h.add("a", Some("z"), 8 * DAY), Some(Unusual::New { value: "z".into(), since: 0 }));
        assert_eq!(h.add("a", Some("z"), 9 * DAY), None, "told once");
        assert_eq!(h.add("b", Some("z"), 9 * DAY), None, "another group learns first");
        assert!(h.add("a", Some("y"), 21 * DAY).is_some(), "forgotten after the timespan");
        assert_eq!(h.add("a", None, 21 * DAY), None);
    }

    #[test]
    fn rare_is_what_few_of_many_show() {
        let mut h = Habits::new(Kind::RareValue { at_most: 1 }, 2 * DAY, 100);
        for (i, group) in ["a", "b", "c", "d", "e", "f", "g", "h", "i"].iter().enumerate() {
            assert_eq!(h.add(group, Some("kubectl"), i as i64), None);
        }
        assert_eq!(h.add("a", Some("curl"), DAY + 1), None, "nine groups are no crowd");
        assert_eq!(h.add("j", Some("kubectl"), DAY + 2), None, "everybody has it");
        let rare = h.add("j", Some("nmap"), DAY + 3);
        assert_eq!(rare, Some(Unusual::Rare { value: "nmap".into(), holders: 1, groups: 10 }));
        assert_eq!(h.add("k", Some("nmap"), DAY + 4), None, "two have it now");
    }

    #[test]
    fn a_rate_is_told_when_far_above_the_usual_and_once_a_span() {
        let mut h = Habits::new(Kind::Rate { at_least: 10 }, HOUR, 10);
        for hour in 0..200 {
            for i in 0..3 {
                assert_eq!(h.add("a", None, hour * HOUR + i), None);
            }
        }
        let told: Vec<Unusual> = (0..60).filter_map(|i| h.add("a", None, 200 * HOUR + i)).collect();
        assert!(
            matches!(told.as_slice(), [Unusual::Rate { count: 10..60, usual }] if *usual > 2.0 && *usual < 4.0),
            "{told:?}"
        );
        assert!((0..60).all(|i| h.add("a", Some("same"), 201 * HOUR + i).is_none()), "one value is one");
    }

    #[test]
    fn groups_are_bounded_and_losses_show() {
        let mut h = new_value();
        for i in 0..15 {
            h.add(&format!("g{i}"), Some("x"), i);
        }
        assert_eq!((h.groups.len(), h.evicted(), h.holders.get("x").copied()), (10, 5, Some(10)));
        for i in 0..500 {
            h.add("g14", Some(&format!("v{i}")), 100 + i);
        }
        assert_eq!(h.groups["g14"].values.len(), MAX_VALUES);
    }

    #[test]
    fn a_snapshot_goes_on_where_it_was() {
        let mut a = new_value();
        a.add("a", Some("x"), 0);
        a.add("b", Some("x"), 1);
        let mut b = new_value();
        let data = |habits: &Habits| serde_json::to_string(habits).expect("data");
        b.restore(&data(&a)).expect("own snapshot");
        for (group, value, at) in [("a", "x", 8), ("a", "q", 8), ("b", "x", 9), ("c", "r", 9)] {
            assert_eq!(a.add(group, Some(value), at * DAY), b.add(group, Some(value), at * DAY));
        }
        assert_eq!(data(&a), data(&b));
    }
}
