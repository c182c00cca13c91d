//! Alerts of one output that wait to be told: for others of their group, for the end of an interval, for a digest.
//!
//! Pure: the time is an argument, in microseconds. What waits is known by its position in the alert journal, which
//! keeps it; only times are remembered beside it. More than [`MAX_HELD`] never wait: then everything is told at once.

use std::collections::BTreeMap;
use std::sync::Arc;

use chrono::DateTime;
use lapwing_engine::alert::{Alert, Verdict};
use lapwing_engine::group;
use serde::{Deserialize, Serialize};

use super::Hop;

/// Alerts of one output that wait at once.
pub const MAX_HELD: usize = 500;
/// Groups whose last telling is remembered; the one told longest ago is forgotten.
const MAX_TOLD: usize = 2000;
/// Alerts of one group remembered as told.
const MAX_KNOWN: usize = 500;

/// An alert that waits.
#[derive(Clone, Debug)]
pub struct Held {
    /// In the alert journal.
    pub position: u64,
    /// Microseconds.
    pub arrived: i64,
    pub alert: Alert,
    pub hop: Arc<Hop>,
    group: String,
}

impl Held {
    /// One that belongs to no group and comes from no journal.
    pub fn by_itself(alert: Alert, now: i64) -> Self {
        Self { position: 0, arrived: now, alert, hop: Arc::default(), group: String::new() }
    }
}

/// When a group was told, and which alerts of it when.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Told {
    at: i64,
    alerts: BTreeMap<String, i64>,
}

/// How much to take at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Take {
    /// The group that is due longest.
    Group,
    /// Every group that is due, together.
    Together,
    /// Alerts of groups that are due, at most so many.
    AtMost(usize),
}

/// What one output has still to tell.
#[derive(Debug, Default)]
pub struct Gather {
    groups: BTreeMap<String, Vec<Held>>,
    told: BTreeMap<String, Told>,
    held: usize,
}

/// What goes on is the same rule, actor and cluster: the text that stands for it.
pub fn identity(alert: &Alert) -> String {
    let verdict = if alert.verdict == Verdict::Match { "match" } else { "undecidable" };
    group::id(&[&alert.rule.id, &alert.cluster, &alert.actor, verdict])
}

/// The group an alert is told with. Each by itself where nothing else is asked for; what waits for the end of a time
/// interval is told together.
fn key(hop: &Hop, alert: &Alert, position: u64, muted: bool) -> String {
    match &hop.pace.by {
        Some(fields) => {
            let values: Vec<String> = fields.iter().map(|f| f.values(alert).join("\u{1}")).collect();
            let mut parts = vec![hop.path.as_str()];
            parts.extend(values.iter().map(String::as_str));
            group::id(&parts)
        }
        None if muted || hop.pace.digest > 0 => group::id(&[&hop.path]),
        None if hop.pace.is_plain() => format!("{position:020}"),
        None => group::id(&[&hop.path, &identity(alert)]),
    }
}

impl Gather {
    pub fn new(told: BTreeMap<String, Told>) -> Self {
        Self { told, ..Self::default() }
    }

    /// How many wait.
    pub fn held(&self) -> usize {
        self.held
    }

    /// When which group was told, as far as it matters for what comes.
    pub fn told(&self) -> &BTreeMap<String, Told> {
        &self.told
    }

    pub fn add(&mut self, alert: Alert, hop: &Arc<Hop>, position: u64, arrived: i64) {
        let muted = hop.muted_by(time(arrived)).is_some();
        let group = key(hop, &alert, position, muted);
        let held = Held { position, arrived, alert, hop: Arc::clone(hop), group: group.clone() };
        self.groups.entry(group).or_default().push(held);
        self.held += 1;
    }

    /// Whether more wait than may.
    fn is_full(&self) -> bool {
        self.held >= MAX_HELD
    }

    /// How many groups are due.
    pub fn due(&self, now: i64) -> usize {
        if self.is_full() { 1 } else { self.groups.keys().filter(|key| self.is_due(key, now)).count() }
    }

    fn is_due(&self, key: &str, now: i64) -> bool {
        self.due_at(key, now).is_some_and(|due| due <= now)
    }

    /// When the group is to be told; `None` while a time interval keeps it.
    fn due_at(&self, key: &str, now: i64) -> Option<i64> {
        let held = self.groups.get(key)?;
        let (hop, oldest) = (&held.first()?.hop, held.iter().map(|h| h.arrived).min()?);
        if hop.muted_by(time(now)).is_some() {
            return None;
        }
        let pace = &hop.pace;
        if pace.digest > 0 {
            return Some((oldest.div_euclid(pace.digest) + 1).saturating_mul(pace.digest));
        }
        let gathered = oldest.saturating_add(pace.wait);
        let Some(told) = self.told.get(key) else { return Some(gathered) };
        // Something new only waits for the interval; what goes on waits until it may be repeated.
        let again =
            |h: &Held| told.alerts.get(&identity(&h.alert)).map_or(i64::MIN, |at| at.saturating_add(pace.repeat));
        let repeat = held.iter().map(again).min()?;
        Some(gathered.max(told.at.saturating_add(pace.interval)).max(repeat))
    }

    /// What is to be told now, oldest first; empty when nothing is.
    pub fn take(&mut self, now: i64, how: Take) -> Vec<Held> {
        let how = if self.is_full() && how == Take::Group { Take::Together } else { how };
        let mut due: Vec<(i64, String)> = if self.is_full() {
            self.groups.keys().map(|key| (0, key.clone())).collect()
        } else {
            let due = self.groups.keys().filter_map(|key| Some((self.due_at(key, now)?, key.clone())));
            due.filter(|(at, _)| *at <= now).collect()
        };
        due.sort();
        if how == Take::Group {
            due.truncate(1);
        }
        let mut taken: Vec<Held> = due.iter().filter_map(|(_, key)| self.groups.remove(key)).flatten().collect();
        taken.sort_by_key(|h| h.position);
        if let Take::AtMost(most) = how {
            for held in taken.split_off(taken.len().min(most)) {
                self.groups.entry(held.group.clone()).or_default().push(held);
            }
        }
        self.held -= taken.len();
        taken
    }

    /// These were told. True when that is worth remembering.
    pub fn note(&mut self, told: &[Held], now: i64) -> bool {
        let mut changed = false;
        for held in told.iter().filter(|h| h.hop.pace.interval > 0 || h.hop.pace.repeat > 0) {
            let group = self.told.entry(held.group.clone()).or_default();
            group.at = now;
            group.alerts.insert(identity(&held.alert), now);
            while group.alerts.len() > MAX_KNOWN {
                forget_oldest(&mut group.alerts, |at| *at);
            }
            let longest = held.hop.pace.interval.max(held.hop.pace.repeat);
            group.alerts.retain(|_, at| at.saturating_add(longest) >= now);
            changed = true;
        }
        while self.told.len() > MAX_TOLD {
            forget_oldest(&mut self.told, |told| told.at);
        }
        changed
    }

    /// Positions that wait, with their time of arrival.
    pub fn waiting(&self) -> impl Iterator<Item = (u64, i64)> {
        self.groups.values().flatten().map(|h| (h.position, h.arrived))
    }
}

fn forget_oldest<V>(map: &mut BTreeMap<String, V>, at: impl Fn(&V) -> i64) {
    if let Some(key) = map.iter().min_by_key(|(_, v)| at(v)).map(|(key, _)| key.clone()) {
        map.remove(&key);
    }
}

/// Microseconds since the epoch as a time.
fn time(micros: i64) -> DateTime<chrono::Utc> {
    DateTime::from_timestamp_micros(micros).unwrap_or_default()
}
