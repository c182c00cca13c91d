//! Correlations: which rule feeds which, and what a match becomes in their windows.

use std::collections::HashSet;

use serde::Serialize;

use super::taught;
use crate::alert::MAX_AUDIT_IDS;
use crate::baseline::habit::{self, Habits};
use crate::field::Field;
use crate::memory::Sight;
use crate::rule::correlation::{Bound, Correlation, CorrelationKind, Part};
use crate::rule::set::RuleSet;
use crate::rule::view::{Scalar, Values, View};
use crate::window::{Hit, Kind, Windows};
use crate::words;

/// A correlation that is fed, and as which of its parts.
#[derive(Clone, Copy, Debug)]
pub(super) struct Feed {
    pub(super) which: u32,
    pub(super) slot: u32,
    /// It groups as the one fed before it.
    pub(super) same_group: bool,
}

/// Which correlations rest on which rules, and who speaks. Correlations are numbered behind the rules.
#[derive(Debug)]
pub(super) struct Wiring {
    /// Per rule or correlation: the correlations it feeds.
    pub(super) feeds: Vec<Vec<Feed>>,
    pub(super) speaks: Vec<bool>,
    /// Rules that only teach what is new or rare, where a request told twice teaches the same.
    pub(super) only_teaches: Vec<bool>,
    /// Of those, the ones that need not teach the same twice in an hour.
    pub(super) known_by_hour: Vec<bool>,
    /// Correlations that findings feed, whatever rule made them.
    pub(super) chains: Vec<u32>,
    /// Whether anything reads what is remembered of objects and credentials.
    pub(super) remembers: bool,
}

impl Wiring {
    pub(super) fn of(set: &RuleSet) -> Self {
        let base = set.rules().len();
        let mut feeds = vec![Vec::new(); base + set.correlations().len()];
        let mut speaks: Vec<bool> = (0..base).map(|i| set.speaks(i)).collect();
        speaks.resize(feeds.len(), true);
        for (which, correlation) in set.correlations().iter().enumerate() {
            for (slot, part) in correlation.parts.iter().enumerate() {
                let index = match part {
                    Part::Rule(i) => *i,
                    Part::Correlation(i) => {
                        speaks[base + i] &= correlation.generate;
                        base + i
                    }
                };
                let groups = |feed: &Feed| grouping(&set.correlations()[feed.which as usize], feed.slot);
                let mut feed = Feed { which: which as u32, slot: slot as u32, same_group: false };
                feed.same_group = feeds[index].last().is_some_and(|before| groups(before) == groups(&feed));
                feeds[index].push(feed);
            }
        }
        let teaches = |feed: &Feed| {
            matches!(
                set.correlations()[feed.which as usize].kind,
                CorrelationKind::NewValue | CorrelationKind::RareValue
            )
        };
        let by_hour = |feed: &Feed| taught::can_be_left_out(&set.correlations()[feed.which as usize], feed.slot);
        let known_by_hour = feeds.iter().map(|fed| fed.iter().all(by_hour)).collect();
        let only_teaches = (0..base).map(|i| !speaks[i] && feeds[i].iter().all(teaches)).collect();
        let chains = set.correlations().iter().zip(0..).filter(|(c, _)| c.kind == CorrelationKind::KillChain);
        Self {
            feeds,
            speaks,
            only_teaches,
            known_by_hour,
            chains: chains.map(|(_, i)| i).collect(),
            remembers: remembers(set),
        }
    }
}

/// Whether it spans clusters, and the fields it groups by.
fn grouping(c: &Correlation, slot: u32) -> (bool, Vec<&Field>) {
    (spans_clusters(c, slot), c.group_by.iter().map(|key| &key.fields[slot as usize]).collect())
}

fn spans_clusters(c: &Correlation, slot: u32) -> bool {
    c.counted.iter().any(|key| key.fields[slot as usize] == Field::Cluster)
}

fn remembers(set: &RuleSet) -> bool {
    let mut found = false;
    set.rules().iter().for_each(|r| r.visit_fields(&mut |f| found |= f.is_remembered()));
    let keys = set.correlations().iter().flat_map(|c| c.group_by.iter().chain(&c.counted));
    found || keys.flat_map(|k| &k.fields).any(Field::is_remembered)
}

/// What a correlation remembers.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub(super) enum History {
    Windows(Windows),
    Habits(Habits),
}

impl History {
    pub(super) fn of(c: &Correlation, cap: usize) -> Self {
        let number = |bound: Bound| c.bounds.iter().find(|(b, _)| *b == bound).map_or(0, |(_, n)| *n);
        let habits = |kind| Self::Habits(Habits::new(kind, c.timespan_micros, cap));
        match c.kind {
            CorrelationKind::NewValue => habits(habit::Kind::NewValue),
            CorrelationKind::RareValue => habits(habit::Kind::RareValue { at_most: number(Bound::LessOrEqual) }),
            CorrelationKind::RateAnomaly => habits(habit::Kind::Rate { at_least: number(Bound::GreaterOrEqual) }),
            _ => Self::Windows(windows_of(c, cap)),
        }
    }

    pub(super) fn evicted(&self) -> u64 {
        match self {
            Self::Windows(w) => w.evicted(),
            Self::Habits(h) => h.evicted(),
        }
    }

    /// Goes on where another of the same kind was.
    pub(super) fn go_on(&mut self, old: Self) {
        match (self, old) {
            (Self::Windows(new), Self::Windows(old)) => new.go_on(old),
            (Self::Habits(new), Self::Habits(old)) => new.go_on(old),
            _ => {}
        }
    }

    pub(super) fn restore(&mut self, stored: &str) -> Result<(), serde_json::Error> {
        match self {
            Self::Windows(w) => w.restore(stored),
            Self::Habits(h) => h.restore(stored),
        }
    }
}

fn windows_of(c: &Correlation, cap: usize) -> Windows {
    let parts = c.parts.len() as u32;
    let least = |(bound, n): &(Bound, u64)| match bound {
        Bound::Greater => n.saturating_add(1),
        Bound::GreaterOrEqual | Bound::Equal => *n,
        Bound::Less | Bound::LessOrEqual | Bound::NotEqual => 1,
    };
    let at_least = c.bounds.iter().map(least).max().unwrap_or(1).clamp(1, 10_000) as usize;
    let kind = match c.kind {
        CorrelationKind::EventCount => Kind::EventCount { at_least },
        CorrelationKind::ValueCount | CorrelationKind::KillChain => Kind::ValueCount { at_least },
        CorrelationKind::Temporal => Kind::Temporal { rules: parts },
        _ => Kind::TemporalOrdered { rules: parts },
    };
    Windows::new(kind, c.timespan_micros, cap)
}

/// A hit that is not spelled out.
pub(super) fn hit_of(c: &Correlation, slot: u32, sight: &Sight<'_, '_>, request: u64) -> Option<Hit> {
    let mut value = String::new();
    if !counted(c, slot, sight, "\u{1f}", &mut value) {
        return None;
    }
    let value = (!c.counted.is_empty()).then_some(value);
    let facts = sight.facts;
    Some(Hit {
        time: facts.time().unwrap_or_default(),
        rule: if matches!(c.kind, CorrelationKind::Temporal | CorrelationKind::TemporalOrdered) { slot } else { 0 },
        request,
        value,
        audit_id: words::safe(&facts.event.audit_id),
        evidence: None,
    })
}

/// Puts the values a correlation looks at into `text`, in one line; false where one is not there, as that cannot be a
/// distinct one.
pub(super) fn counted(c: &Correlation, slot: u32, sight: &Sight<'_, '_>, between: &str, text: &mut String) -> bool {
    c.counted.iter().enumerate().all(|(i, key)| {
        text.push_str(if i == 0 { "" } else { between });
        push(sight.values(&key.fields[slot as usize]), text)
    })
}

/// Puts the group a hit belongs to into `key`: cluster and the values of `group-by`, each before its length. One that
/// counts clusters spans them.
pub(super) fn group_key(c: &Correlation, slot: u32, sight: &Sight<'_, '_>, key: &mut String) {
    let cluster = if spans_clusters(c, slot) { "" } else { sight.facts.cluster };
    key.clear();
    key.push_str(cluster);
    push_len(cluster.len(), key);
    for by in &c.group_by {
        let before = key.len();
        push(sight.values(&by.fields[slot as usize]), key);
        push_len(key.len() - before, key);
    }
}

fn push_len(len: usize, key: &mut String) {
    let mut digits = [0; 20];
    let mut at = digits.len();
    let mut rest = len;
    loop {
        at -= 1;
        digits[at] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    key.push(':');
    key.extend(digits[at..].iter().map(|d| char::from(*d)));
    key.push('|');
}

/// Puts values into `text`, several with commas between; false where there is none.
fn push(values: Values<'_>, text: &mut String) -> bool {
    match values {
        Values::One(one) => push_one(&one, text),
        Values::Many(list) if !list.is_empty() => {
            for (i, one) in list.iter().enumerate() {
                text.push_str(if i == 0 { "" } else { "," });
                push_one(one, text);
            }
        }
        _ => return false,
    }
    true
}

fn push_one(one: &Scalar<'_>, text: &mut String) {
    match one {
        Scalar::Str(s) => text.push_str(s.char_indices().nth(256).map_or(s, |(end, _)| &s[..end])),
        Scalar::Int(i) => text.push_str(&i.to_string()),
        Scalar::Float(f) => text.push_str(&f.to_string()),
        Scalar::Bool(b) => text.push_str(if *b { "true" } else { "false" }),
        Scalar::Null => text.push_str("null"),
    }
}

pub(super) fn unique(ids: impl Iterator<Item = String>) -> Vec<String> {
    let mut seen = HashSet::new();
    ids.filter(|id| seen.insert(id.clone())).take(MAX_AUDIT_IDS).collect()
}

pub(super) fn span(micros: i64) -> String {
    let seconds = micros / 1_000_000;
    match seconds {
        s if s % 86_400 == 0 => format!("{} d", s / 86_400),
        s if s % 3600 == 0 => format!("{} h", s / 3600),
        s if s % 60 == 0 => format!("{} min", s / 60),
        s => format!("{s} s"),
    }
}
