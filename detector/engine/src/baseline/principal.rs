//! What is remembered of one principal: decayed, saturating counts of values, table by table.
//!
//! A value counts at most once an hour and four times a day, so ten thousand repeats teach as much as one. Counts
//! halve in fourteen days; a value below [`FORGOTTEN`] is gone. Eight bytes per value.

use std::sync::LazyLock;

use serde::{Deserialize, Serialize};

use super::burst::Bursts;
use super::observation::Class;
use super::risk::Risk;
use super::vocabulary::Id;

/// Hours in which a count halves.
const HALF_LIFE: f32 = 14.0 * 24.0;
const FORGOTTEN: f32 = 0.03;
/// Values of one table kept; beyond that the one with the smallest count goes.
const MAX_VALUES: usize = 256;
const PER_DAY: u16 = 4;
/// Counts are stored in steps of this.
const STEP: f32 = 1.0 / 512.0;
/// Hours are stored modulo this, 170 days: longer than any count lasts.
const HOURS: u32 = 4096;
const TODAY: u16 = 12;
const TOLD: u16 = 1 << 15;

/// What is left of a count after `hours`.
pub(super) fn decay(hours: u32) -> f32 {
    static USUAL: LazyLock<[f32; HOURS as usize]> = LazyLock::new(|| std::array::from_fn(|h| exact_decay(h as u32)));
    USUAL.get(hours as usize).copied().unwrap_or_else(|| exact_decay(hours))
}

fn exact_decay(hours: u32) -> f32 {
    (-(hours as f32) / HALF_LIFE).exp2()
}

/// One value: its count at the hour of `stamp`, and how often it counted that day.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Entry {
    value: Id,
    count: u16,
    /// Hour modulo [`HOURS`] (12 bits), increments that day (3), whether peers count it (1).
    stamp: u16,
}

impl Entry {
    fn new(value: Id, hour: u32, told: bool) -> Self {
        let stamp = (hour % HOURS) as u16 | 1 << TODAY | if told { TOLD } else { 0 };
        Self { value, count: (1.0 / STEP) as u16, stamp }
    }

    fn age(self, hour: u32) -> u32 {
        (hour % HOURS + HOURS - u32::from(self.stamp) % HOURS) % HOURS
    }

    fn at(self, hour: u32) -> f32 {
        f32::from(self.count) * STEP * decay(self.age(hour))
    }

    fn told(self) -> bool {
        self.stamp & TOLD != 0
    }

    /// Counts once more, unless it has this hour or often enough today.
    fn again(&mut self, hour: u32) -> bool {
        let age = self.age(hour);
        if age == 0 {
            return false;
        }
        let same_day = age <= hour % 24;
        let today = if same_day { self.stamp >> TODAY & 7 } else { 0 };
        let counts = today < PER_DAY;
        let now = self.at(hour) + if counts { 1.0 } else { 0.0 };
        self.count = (now / STEP).round().min(f32::from(u16::MAX)) as u16;
        self.stamp = (hour % HOURS) as u16 | (today + u16::from(counts)) << TODAY | self.stamp & TOLD;
        counts
    }
}

/// The values of one dimension in one context; its entries follow those of the tables before it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
struct Table {
    id: Id,
    /// Sum of the counts at `hour`.
    total: f32,
    hour: u32,
    len: u16,
}

/// A value that was too surprising to learn at once.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Pending {
    /// Table and value, as in the vocabulary.
    text: Box<str>,
    day: u32,
    days: u8,
}

/// Values waiting to be learnt, per principal.
const MAX_PENDING: usize = 64;
/// Distinct days a surprising value must be seen on before it is normal.
const QUARANTINE_DAYS: u8 = 3;

/// What a principal's own history says about a value.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Own {
    /// Decayed count of the value.
    pub count: f32,
    /// Decayed count of all values of its table.
    pub total: f32,
    pub values: u32,
}

/// Identity and place of a principal.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Who {
    /// Cluster and name.
    pub owner: Box<str>,
    /// Place of its cluster in the list.
    pub cluster: u32,
    pub class: Class,
    /// Peers: the class and, for people, the group.
    pub peers: [Id; 2],
    pub first_hour: u32,
    pub last_hour: u32,
    /// Decayed number of hours with something to learn, at `last_hour`.
    pub active: f32,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct Principal {
    pub who: Who,
    tables: Vec<Table>,
    entries: Vec<Entry>,
    pending: Vec<Pending>,
    pub bursts: Bursts,
    pub risk: Risk,
}

impl Principal {
    pub fn new(who: Who, risk: Risk) -> Self {
        let (tables, entries, pending) = (Vec::new(), Vec::new(), Vec::new());
        Self { who, tables, entries, pending, bursts: Bursts::default(), risk }
    }

    /// Gives back what nobody needs who was not seen for a day.
    pub fn rest(&mut self, now: i64) {
        self.risk.rest(now);
        self.bursts.rest();
        self.tables.shrink_to_fit();
        self.entries.shrink_to_fit();
    }

    /// First entry and position of a table.
    fn find(&self, table: Id) -> Option<(usize, usize)> {
        let mut start = 0;
        for (i, t) in self.tables.iter().enumerate() {
            if t.id == table {
                return Some((i, start));
            }
            start += t.len as usize;
        }
        None
    }

    pub fn own(&self, table: Option<Id>, value: Option<Id>, hour: u32) -> Own {
        let Some((i, start)) = table.and_then(|t| self.find(t)) else { return Own::default() };
        let t = self.tables[i];
        let total = t.total * decay(hour.saturating_sub(t.hour));
        let entries = &self.entries[start..start + t.len as usize];
        let count = value.and_then(|v| entries.iter().find(|e| e.value == v)).map_or(0.0, |e| e.at(hour));
        Own { count, total, values: u32::from(t.len) }
    }

    /// The values of a table, the most usual first, with their share of it.
    pub fn usual(&self, table: Option<Id>, hour: u32) -> Vec<(Id, f32)> {
        let Some((i, start)) = table.and_then(|t| self.find(t)) else { return Vec::new() };
        let entries = &self.entries[start..start + self.tables[i].len as usize];
        let all: f32 = entries.iter().map(|e| e.at(hour)).sum::<f32>().max(f32::MIN_POSITIVE);
        let mut values: Vec<(Id, f32)> = entries.iter().map(|e| (e.value, e.at(hour) / all)).collect();
        values.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
        values
    }

    /// Counts a value the principal holds already; false where it does not.
    pub fn count(&mut self, table: Id, value: Id, hour: u32) -> bool {
        let Some((i, start)) = self.find(table) else { return false };
        let t = &mut self.tables[i];
        let Some(entry) = self.entries[start..start + t.len as usize].iter_mut().find(|e| e.value == value) else {
            return false;
        };
        if entry.again(hour) {
            t.total = t.total * decay(hour.saturating_sub(t.hour)) + 1.0;
            t.hour = hour;
        }
        true
    }

    /// Takes up a new value; returns the one that had to go for it, and whether peers counted that.
    pub fn insert(&mut self, table: Id, value: Id, hour: u32, told: bool) -> Option<(Id, bool)> {
        let (i, start) = self.find(table).unwrap_or_else(|| {
            self.tables.reserve_exact(1);
            self.tables.push(Table { id: table, total: 0.0, hour, len: 0 });
            (self.tables.len() - 1, self.entries.len())
        });
        let t = &mut self.tables[i];
        t.total = t.total * decay(hour.saturating_sub(t.hour)) + 1.0;
        t.hour = hour;
        let end = start + t.len as usize;
        if (t.len as usize) < MAX_VALUES {
            t.len += 1;
            if self.entries.len() == self.entries.capacity() {
                self.entries.reserve_exact(1 + self.entries.len() / 16);
            }
            self.entries.insert(end, Entry::new(value, hour, told));
            return None;
        }
        let smallest = (start..end).min_by(|a, b| self.entries[*a].at(hour).total_cmp(&self.entries[*b].at(hour)))?;
        let old = std::mem::replace(&mut self.entries[smallest], Entry::new(value, hour, told));
        t.total -= old.at(hour);
        Some((old.value, old.told()))
    }

    /// Notes a surprising value; true once it has been seen on enough days to be learnt.
    pub fn quarantine(&mut self, text: &str, day: u32) -> bool {
        let Some(at) = self.pending.iter().position(|p| *p.text == *text) else {
            if self.pending.len() >= MAX_PENDING {
                self.pending.remove(0);
            }
            self.pending.reserve_exact(1);
            self.pending.push(Pending { text: text.into(), day, days: 1 });
            return false;
        };
        let pending = &mut self.pending[at];
        if pending.day != day {
            (pending.day, pending.days) = (day, pending.days + 1);
        }
        let enough = pending.days >= QUARANTINE_DAYS;
        if enough {
            self.pending.remove(at);
        }
        enough
    }

    /// Drops what has faded; `gone` is told table, value and whether peers counted it.
    pub fn forget(&mut self, hour: u32, gone: impl FnMut(Id, Id, bool)) {
        let all = hour.saturating_sub(self.who.last_hour) >= HOURS - 24;
        self.drop_where(|entry| all || entry.at(hour) < FORGOTTEN, gone);
        let day = hour / 24;
        self.pending.retain(|p| day.saturating_sub(p.day) <= 30);
    }

    /// Drops what can have been learnt since the hour `since` for the first time: seen since, and no more often than
    /// the time since allows. An old and rare value may go with it.
    pub fn forget_since(&mut self, since: u32, hour: u32, gone: impl FnMut(Id, Id, bool)) {
        let passed = hour.saturating_sub(since);
        let most = f32::from(PER_DAY) * (passed / 24 + 1) as f32;
        self.drop_where(|entry| entry.age(hour) <= passed && entry.at(hour) <= most, gone);
        self.pending.retain(|p| p.day < since / 24);
    }

    fn drop_where(&mut self, drop: impl Fn(&Entry) -> bool, mut gone: impl FnMut(Id, Id, bool)) {
        if !self.entries.iter().any(&drop) {
            return;
        }
        let mut kept = Vec::with_capacity(self.entries.len());
        let mut start = 0;
        for t in &mut self.tables {
            let end = start + t.len as usize;
            let before = kept.len();
            for entry in &self.entries[start..end] {
                if drop(entry) {
                    gone(t.id, entry.value, entry.told());
                } else {
                    kept.push(*entry);
                }
            }
            start = end;
            t.len = (kept.len() - before) as u16;
        }
        kept.shrink_to_fit();
        self.entries = kept;
        self.tables.retain(|t| t.len > 0);
    }

    /// Every value peers do not count yet is counted from now on.
    pub fn tell_all(&mut self, mut told: impl FnMut(Id, Id)) {
        let mut start = 0;
        for t in &self.tables {
            for entry in &mut self.entries[start..start + t.len as usize] {
                if !entry.told() {
                    entry.stamp |= TOLD;
                    told(t.id, entry.value);
                }
            }
            start += t.len as usize;
        }
    }

    /// Table, value and whether peers count it.
    pub fn each(&self, mut f: impl FnMut(Id, Id, bool)) {
        let mut start = 0;
        for t in &self.tables {
            self.entries[start..start + t.len as usize].iter().for_each(|e| f(t.id, e.value, e.told()));
            start += t.len as usize;
        }
    }

    pub fn tables(&self) -> impl Iterator<Item = Id> {
        self.tables.iter().map(|t| t.id)
    }

    /// Memory it takes, about. By what there is and not by what is reserved: a restart must not change who has to leave.
    pub fn bytes(&self) -> usize {
        let pending: usize = self.pending.iter().map(|p| allocated::<u8>(p.text.len())).sum();
        allocated::<Self>(1)
            + allocated::<u8>(self.who.owner.len())
            + allocated::<Table>(self.tables.len())
            + allocated::<Entry>(self.entries.len())
            + allocated::<Pending>(self.pending.len())
            + pending
            + self.bursts.bytes()
            + self.risk.bytes()
    }
}

/// Bytes that `n` of these take, with what an allocator adds to them.
pub(super) const fn allocated<T>(n: usize) -> usize {
    if n == 0 { 0 } else { n * size_of::<T>() + 16 }
}

/// A principal as data: entries as `[value, count, stamp]`. All fields are always written: records on the shelf have
/// no names.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Stored {
    pub who: Who,
    tables: Vec<Table>,
    entries: Vec<(Id, u16, u16)>,
    #[serde(default)]
    pending: Vec<Pending>,
    bursts: Bursts,
    risk: Risk,
}

impl Stored {
    /// Leaves out the number of a value, that means nothing outside of memory.
    pub fn clear_value(&mut self, at: u32) {
        if let Some(entry) = self.entries.get_mut(at as usize) {
            entry.0 = 0;
        }
    }

    /// Gives the value of an entry the number that `of` its peers, and whether they count it, has now.
    pub fn set_value(&mut self, at: u32, of: impl FnOnce([Id; 2], bool) -> Id) {
        if let Some(entry) = self.entries.get_mut(at as usize) {
            entry.0 = of(self.who.peers, entry.2 & TOLD != 0);
        }
    }
}

impl From<&Principal> for Stored {
    fn from(p: &Principal) -> Self {
        Self {
            who: p.who.clone(),
            tables: p.tables.clone(),
            entries: p.entries.iter().map(|e| (e.value, e.count, e.stamp)).collect(),
            pending: p.pending.clone(),
            bursts: p.bursts.clone(),
            risk: p.risk.clone(),
        }
    }
}

impl From<Stored> for Principal {
    fn from(mut s: Stored) -> Self {
        let mut entries: Vec<Entry> =
            s.entries.into_iter().map(|(value, count, stamp)| Entry { value, count, stamp }).collect();
        entries.shrink_to_fit();
        s.tables.shrink_to_fit();
        s.bursts.shrink();
        Self { who: s.who, tables: s.tables, entries, pending: s.pending, bursts: s.bursts, risk: s.risk }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn principal() -> Principal {
        let owner = "prod\u{1f}eve".into();
        let who =
            Who { owner, cluster: 0, class: Class::Human, peers: [0, 0], first_hour: 0, last_hour: 0, active: 0.0 };
        Principal::new(who, Risk::new(0, 1.0))
    }

    #[test]
    fn an_entry_takes_eight_bytes() {
        assert_eq!(size_of::<Entry>(), 8);
    }

    #[test]
    fn a_value_counts_once_an_hour_and_four_times_a_day() {
        let mut p = principal();
        p.insert(1, 7, 24, true);
        for hour in [24, 25, 25, 26, 27, 28, 29, 47] {
            assert!(p.count(1, 7, hour));
        }
        let own = p.own(Some(1), Some(7), 47);
        assert!((own.count - 3.9).abs() < 0.1 && (own.total - own.count).abs() < 0.05, "{own:?}");
        p.count(1, 7, 48);
        assert!(p.own(Some(1), Some(7), 48).count > 4.7, "the next day counts again");
        assert!(!p.count(1, 8, 48) && !p.count(2, 7, 48));
    }

    #[test]
    fn a_value_seen_once_is_forgotten_after_ten_weeks() {
        let mut p = principal();
        p.insert(1, 7, 0, false);
        let mut gone = Vec::new();
        p.forget(70 * 24, |t, v, told| gone.push((t, v, told)));
        assert!(gone.is_empty());
        p.forget(72 * 24, |t, v, told| gone.push((t, v, told)));
        assert_eq!(gone, [(1, 7, false)]);
        assert_eq!(p.own(Some(1), Some(7), 72 * 24), Own::default());
    }

    #[test]
    fn a_full_table_gives_up_its_rarest_value() {
        let mut p = principal();
        p.insert(9, 1, 0, true);
        for value in 0..256 {
            assert_eq!(p.insert(1, value, 0, true), None);
        }
        p.insert(3, 2, 0, true);
        for value in 0..256 {
            if value != 77 {
                p.count(1, value, 30);
            }
        }
        assert_eq!(p.insert(1, 999, 30, false), Some((77, true)));
        assert_eq!((p.own(Some(1), Some(77), 30).count, p.own(Some(1), Some(999), 30).count), (0.0, 1.0));
        assert_eq!((p.own(Some(9), Some(1), 0).count, p.own(Some(3), Some(2), 0).count), (1.0, 1.0), "others stay");
    }

    #[test]
    fn quarantine_ends_on_the_third_day() {
        let mut p = principal();
        assert!(!p.quarantine("x", 1) && !p.quarantine("x", 1) && !p.quarantine("x", 2));
        assert!(p.quarantine("x", 9));
        assert!(!p.quarantine("x", 10), "it starts anew");
    }

    #[test]
    fn what_is_stored_comes_back() {
        let mut p = principal();
        p.insert(1, 7, 24, true);
        p.count(1, 7, 31);
        p.quarantine("x", 1);
        let json = serde_json::to_string(&Stored::from(&p)).expect("data");
        assert_eq!(Principal::from(serde_json::from_str::<Stored>(&json).expect("own data")), p);
    }
}
