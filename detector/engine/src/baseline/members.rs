//! Who is there: all principals of all clusters, within a budget of bytes.
//!
//! The one not seen for longest leaves first: for the shelf where there is one, or it is forgotten and counted.

use std::collections::BTreeSet;
use std::hash::BuildHasher;
use std::sync::Arc;

use hashbrown::HashTable;
use serde::ser::SerializeStruct;
use serde::{Deserialize, Serialize, Serializer};

use super::budget::Budget;
use super::burst::ClassMean;
use super::cold::{self, Cold, Record};
use super::observation::{Class, Observation};
use super::principal::{self, Principal, Who, decay};
use super::risk::Risk;
use super::vocabulary::Vocabulary;
use crate::listed::Listed;

/// Hours until a newcomer's habits count for its peers: an attacker who makes identities teaches nobody.
pub(super) const MATURE: u32 = 72;
/// Hours unseen until memory is given back: evidence counts for a day.
const RESTED: u32 = 25;
/// Bytes of the maps around one principal.
const PLACE_COST: usize = 48;

/// What is known of a class of identities in a cluster.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct ClassState {
    /// Hour of the first principal.
    pub since: Option<u32>,
    /// Newcomers and principal-days, both decayed, at `hour`.
    new: f32,
    days: f32,
    hour: u32,
    pub bursts: [ClassMean; 5],
    /// Usual novelty, bits per observation.
    pub level: f32,
}

impl Default for ClassState {
    fn default() -> Self {
        Self { since: None, new: 0.5, days: 1.0, hour: 0, bursts: [(1.0, 1.0); 5], level: 1.0 }
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Cluster {
    pub name: Arc<str>,
    pub classes: [ClassState; 5],
    pub budget: Budget,
}

#[derive(Debug, Default)]
pub(super) struct Members {
    list: Vec<Option<Box<Principal>>>,
    free: Vec<u32>,
    /// Numbers of those in memory, by their owner.
    by_owner: HashTable<u32>,
    hasher: foldhash::fast::RandomState,
    /// By the hour last seen.
    order: BTreeSet<(u32, u32)>,
    pub clusters: Vec<Cluster>,
    bytes: usize,
    /// Whoever was last seen before this hour has given back what it can.
    rested: u32,
    pub evicted: u64,
    pub cold: Cold,
}

impl Members {
    pub fn cluster(&mut self, name: &str, day: u32) -> u32 {
        let at = self.clusters.iter().position(|c| *c.name == *name).unwrap_or_else(|| {
            let classes = [ClassState::default(); 5];
            self.clusters.push(Cluster { name: name.into(), classes, budget: Budget::new(day) });
            self.clusters.len() - 1
        });
        at as u32
    }

    pub fn class(&mut self, cluster: u32, class: Class) -> &mut ClassState {
        &mut self.clusters[cluster as usize].classes[class as usize]
    }

    /// Whoever is called so and is in memory.
    pub fn find(&self, owner: &str) -> Option<u32> {
        let hash = self.hasher.hash_one(owner);
        self.by_owner.find(hash, |id| self.owner(*id) == owner).copied()
    }

    fn owner(&self, id: u32) -> &str {
        self.list[id as usize].as_ref().map_or("", |p| &p.who.owner)
    }

    /// Makes a principal that is in its place findable. Nobody is taken out meanwhile.
    fn enter(&mut self, id: u32) {
        let (hasher, list) = (&self.hasher, &self.list);
        let hash = |id: &u32| hasher.hash_one(list[*id as usize].as_ref().map_or("", |p| &*p.who.owner));
        self.by_owner.insert_unique(hash(&id), id, hash);
    }

    fn leave(&mut self, id: u32, owner: &str) {
        if let Ok(place) = self.by_owner.find_entry(self.hasher.hash_one(owner), |other| *other == id) {
            place.remove();
        }
    }

    /// Whoever is called so, brought back to memory.
    pub fn find_anywhere(&mut self, owner: &str, words: &mut Vocabulary) -> Option<u32> {
        self.find(owner).or_else(|| {
            let (id, record) = self.cold.take(owner)?;
            Some(self.come_back(id, record, words))
        })
    }

    /// The principal of this observation, made where it is new.
    pub fn find_or_make(&mut self, o: &Observation, cluster: u32, hour: u32, now: i64, words: &mut Vocabulary) -> u32 {
        if let Some(id) = self.find_anywhere(o.owner(), words) {
            return id;
        }
        let owner: Box<str> = o.owner().into();
        let class_peers = words.hold(&format!("p{}\u{1f}{}", o.cluster(), o.class.as_str()));
        let group_peers = match o.group() {
            "" => words.hold(&format!("p{}\u{1f}{}", o.cluster(), o.class.as_str())),
            group => words.hold(&format!("g{}\u{1f}{group}", o.cluster())),
        };
        let state = self.class(cluster, o.class);
        state.since.get_or_insert(hour);
        let risk = Risk::new(now, state.level);
        let peers = [class_peers, group_peers];
        let (class, active) = (o.class, 0.0);
        // Not seen before: the hour before this one, so that this one counts.
        let last_hour = hour.saturating_sub(1);
        let who = Who { owner, cluster, class, peers, first_hour: hour, last_hour, active };
        let principal = Box::new(Principal::new(who, risk));
        self.bytes += principal.bytes() + PLACE_COST;
        let id = match self.free.pop() {
            Some(id) => {
                self.list[id as usize] = Some(principal);
                id
            }
            None => {
                self.list.push(Some(principal));
                (self.list.len() - 1) as u32
            }
        };
        self.order.insert((last_hour, id));
        self.enter(id);
        id
    }

    /// Takes a principal out to work on it; [`Members::put`] brings it back.
    pub fn take(&mut self, id: u32) -> Option<Box<Principal>> {
        let principal = self.list.get_mut(id as usize).and_then(Option::take)?;
        self.bytes -= principal.bytes();
        Some(principal)
    }

    pub fn put(&mut self, id: u32, principal: Box<Principal>) {
        self.bytes += principal.bytes();
        self.list[id as usize] = Some(principal);
    }

    /// The principal is there in this hour: counts it, forgets what faded, lets peers know what matured.
    /// Whether this is its first day.
    pub fn touch(&mut self, id: u32, p: &mut Principal, hour: u32, words: &mut Vocabulary) -> bool {
        let new = p.who.first_hour / 24 == hour / 24;
        if p.who.last_hour >= hour {
            return new;
        }
        let first_of_day = p.who.last_hour / 24 != hour / 24 || p.who.active == 0.0;
        if first_of_day {
            let peers = p.who.peers;
            p.forget(hour, |table, value, told| forget_value(words, peers, table, value, told));
            if !new && self.told(&p.who, hour) {
                p.tell_all(|table, value| gain(words, peers, table, value));
            }
        }
        p.who.active = p.who.active * decay(hour - p.who.last_hour) + 1.0;
        self.order.remove(&(p.who.last_hour, id));
        self.order.insert((hour, id));
        p.who.last_hour = hour;
        new
    }

    /// Hours since the first principal of its class.
    pub fn class_age(&self, who: &Who, hour: u32) -> u32 {
        let since = self.clusters[who.cluster as usize].classes[who.class as usize].since;
        hour.saturating_sub(since.unwrap_or(hour))
    }

    /// Whether peers count what this principal learns.
    pub fn told(&self, who: &Who, hour: u32) -> bool {
        hour.saturating_sub(who.first_hour) >= MATURE || self.class_age(who, hour) < MATURE
    }

    /// Counts a day of a principal for the rate of newcomers.
    pub fn count_day(&mut self, cluster: u32, class: Class, new: bool, hour: u32) {
        let state = self.class(cluster, class);
        let age = hour.saturating_sub(state.hour);
        if state.hour == 0 {
            state.hour = hour;
        } else if age > 24 {
            let left = decay(age);
            (state.new, state.days, state.hour) = (state.new * left, state.days * left, hour);
        }
        state.new += f32::from(u8::from(new));
        state.days += 1.0;
    }

    /// Probability that a principal of this class is new, once there is enough to tell.
    pub fn newcomer(&self, cluster: u32, class: Class) -> Option<f32> {
        let state = &self.clusters[cluster as usize].classes[class as usize];
        (state.days > 20.0).then(|| (state.new.max(0.5) / state.days.max(1.0)).min(1.0))
    }

    /// Takes back memory from those who were not seen for a day.
    pub fn rest(&mut self, hour: u32, now: i64) {
        let until = hour.saturating_sub(RESTED);
        let idle = self.order.range((self.rested, 0)..(until, 0));
        for (_, id) in idle {
            if let Some(p) = self.list[*id as usize].as_deref_mut() {
                self.bytes -= p.bytes();
                p.rest(now);
                self.bytes += p.bytes();
            }
        }
        self.rested = self.rested.max(until);
    }

    pub fn bytes(&self) -> usize {
        self.bytes + self.cold.bytes()
    }

    /// Everybody, in memory or not.
    pub fn len(&self) -> usize {
        self.by_owner.len() + self.cold.len()
    }

    /// Everybody in memory, by number.
    pub fn ids(&self) -> impl Iterator<Item = (u32, &Principal)> {
        (0..).zip(&self.list).filter_map(|(id, p)| Some((id, p.as_deref()?)))
    }

    /// Brings everybody back to memory, whatever it takes.
    pub fn gather(&mut self, words: &mut Vocabulary) {
        while let Some((id, record)) = self.cold.take_oldest() {
            self.come_back(id, record, words);
        }
    }

    /// Makes room: whoever was not seen for longest goes to the shelf, or is forgotten where there is none. False where
    /// nobody is left.
    pub fn evict(&mut self, words: &mut Vocabulary) -> bool {
        let Some((_, id)) = self.order.first().copied() else { return self.forget_oldest(words) };
        if self.shelve(id, words) {
            return true;
        }
        self.evicted += 1;
        self.remove(id, words)
    }

    /// Forgets whoever is on the shelf for longest.
    pub fn forget_oldest(&mut self, words: &mut Vocabulary) -> bool {
        let Some((id, record)) = self.cold.take_oldest() else { return false };
        self.evicted += 1;
        let id = self.come_back(id, record, words);
        self.remove(id, words)
    }

    fn shelve(&mut self, id: u32, words: &mut Vocabulary) -> bool {
        let Some(p) = self.list.get(id as usize).and_then(Option::as_deref).filter(|_| self.cold.shelf.is_some())
        else {
            return false;
        };
        let mut principal = principal::Stored::from(p);
        let mut texts = Vec::new();
        let mut at = 0;
        p.each(|_, value, told| {
            texts.extend(words.freeze(value, p.who.peers, told).map(|text| (at, text)));
            at += 1;
        });
        texts.iter().for_each(|(at, _)| principal.clear_value(*at));
        let record = Record { principal, texts };
        let last_hour = p.who.last_hour;
        let put = self.cold.put(id, &record);
        self.bytes -= p.bytes() + PLACE_COST;
        self.order.remove(&(last_hour, id));
        self.leave(id, &record.principal.who.owner);
        self.list[id as usize] = None;
        if !put {
            self.come_back(id, record, words);
        }
        put
    }

    fn come_back(&mut self, id: u32, record: Record, words: &mut Vocabulary) -> u32 {
        let Record { mut principal, texts } = record;
        for (at, text) in texts {
            principal.set_value(at, |peers, told| words.reclaim(&text, peers, told));
        }
        let p = Box::new(Principal::from(principal));
        self.bytes += p.bytes() + PLACE_COST;
        self.order.insert((p.who.last_hour, id));
        self.list[id as usize] = Some(p);
        self.enter(id);
        id
    }

    /// Forgets a principal; false where there is none.
    pub fn remove(&mut self, id: u32, words: &mut Vocabulary) -> bool {
        let Some(p) = self.take(id) else { return false };
        self.bytes -= PLACE_COST;
        self.order.remove(&(p.who.last_hour, id));
        self.leave(id, &p.who.owner);
        p.each(|table, value, told| forget_value(words, p.who.peers, table, value, told));
        p.who.peers.iter().for_each(|peers| words.release(*peers));
        self.free.push(id);
        true
    }

    pub fn restore(stored: Stored) -> Self {
        let list: Vec<_> = stored.list.into_iter().map(|p| p.map(|p| Box::new(Principal::from(p)))).collect();
        let (free, clusters, cold) = (stored.free, stored.clusters, Cold::restore(stored.cold));
        let mut members = Self { free, clusters, cold, evicted: stored.evicted, ..Self::default() };
        for (id, p) in (0..).zip(&list) {
            let Some(p) = p.as_deref() else { continue };
            members.bytes += p.bytes() + PLACE_COST;
            members.order.insert((p.who.last_hour, id));
        }
        members.list = list;
        for id in 0..members.list.len() as u32 {
            if members.list[id as usize].is_some() {
                members.enter(id);
            }
        }
        members
    }
}

/// All of them as data, by their numbers.
impl Serialize for Members {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let list = || self.list.iter().map(|p| p.as_deref().map(principal::Stored::from));
        let mut members = serializer.serialize_struct("Members", 5)?;
        members.serialize_field("list", &Listed(list))?;
        members.serialize_field("free", &self.free)?;
        members.serialize_field("clusters", &self.clusters)?;
        members.serialize_field("evicted", &self.evicted)?;
        members.serialize_field("cold", &self.cold)?;
        members.end()
    }
}

/// Both peer groups count a value.
pub(super) fn gain(words: &mut Vocabulary, [class, group]: [u32; 2], table: u32, value: u32) {
    words.gain(class, table, value);
    if group != class {
        words.gain(group, table, value);
    }
}

/// A principal no longer holds a value.
pub(super) fn forget_value(words: &mut Vocabulary, [class, group]: [u32; 2], table: u32, value: u32, told: bool) {
    if told {
        words.lose(class, table, value);
        if group != class {
            words.lose(group, table, value);
        }
    }
    words.release(value);
    words.release(table);
}

#[derive(Debug, Deserialize)]
pub(super) struct Stored {
    list: Vec<Option<principal::Stored>>,
    free: Vec<u32>,
    clusters: Vec<Cluster>,
    evicted: u64,
    /// Absent in snapshots of older versions.
    #[serde(default)]
    cold: cold::Stored,
}
