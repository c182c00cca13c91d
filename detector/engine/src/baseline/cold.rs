//! Identities that memory has no room for: records on a shelf, and in memory where each of them lies.
//!
//! Whoever comes back is taken from the shelf and goes on as if it had never left: what is scored depends neither on who
//! was there nor on where a record lies. A record that cannot be read any more is counted, and its identity starts anew.

use std::collections::{BTreeMap, HashMap, VecDeque};

use serde::{Deserialize, Serialize, Serializer};

use super::principal;
use super::vocabulary::{Digest, digest};
use crate::listed::Listed;

/// Bytes of the maps around one identity on the shelf.
const PLACE_COST: usize = 120;
/// First byte of a record.
const VERSION: u8 = 1;

/// Where a record lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    pub segment: u32,
    pub offset: u32,
    pub len: u32,
}

/// Keeps records outside of memory. Segments are written one after the other and never changed.
pub trait Shelf: std::fmt::Debug + Send {
    /// Keeps a record; nothing where it cannot.
    fn put(&mut self, record: &[u8]) -> Option<Place>;
    /// A record as it was put; nothing where it is damaged or gone.
    fn get(&self, place: Place) -> Option<Vec<u8>>;
    /// Segments that are not written to any more, and their bytes.
    fn full(&self) -> Vec<(u32, u64)>;
}

/// A principal on the shelf.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) struct Away {
    number: u32,
    place: Place,
    /// Tells the places of one identity in the queue apart.
    turn: u32,
}

/// A principal as a record, with the values nobody else holds.
#[derive(Serialize, Deserialize)]
pub(super) struct Record {
    pub principal: principal::Stored,
    /// Which of the entries, and the text of its value.
    pub texts: Vec<(u32, Box<str>)>,
}

#[derive(Debug, Default)]
pub(super) struct Cold {
    pub shelf: Option<Box<dyn Shelf>>,
    away: HashMap<Digest, Away, foldhash::fast::FixedState>,
    /// In the order they came; some have left since.
    queue: VecDeque<(Digest, u32)>,
    turn: u32,
    /// Bytes of records in use, by segment.
    live: BTreeMap<u32, u64>,
    /// Identities whose record could not be read.
    pub lost: u64,
}

impl Cold {
    /// Takes up a principal; false where there is no room for it.
    pub fn put(&mut self, number: u32, record: &Record) -> bool {
        let Some(shelf) = &mut self.shelf else { return false };
        let key = digest(&record.principal.who.owner);
        let Ok(bytes) = postcard::to_extend(record, vec![VERSION]) else { return false };
        if self.away.contains_key(&key) {
            return false;
        }
        let Some(place) = shelf.put(&bytes) else { return false };
        self.turn = self.turn.wrapping_add(1);
        self.away.insert(key, Away { number, place, turn: self.turn });
        self.queue.push_back((key, self.turn));
        *self.live.entry(place.segment).or_default() += u64::from(place.len);
        if self.queue.len() > 2 * self.away.len() + 64 {
            let away = &self.away;
            self.queue.retain(|(key, turn)| away.get(key).is_some_and(|a| a.turn == *turn));
        }
        true
    }

    /// Takes back the principal `owner`.
    pub fn take(&mut self, owner: &str) -> Option<(u32, Record)> {
        if self.away.is_empty() {
            return None;
        }
        self.take_key(digest(owner)).filter(|(_, record)| *record.principal.who.owner == *owner)
    }

    /// Takes back whoever is there for longest. `None`: nobody is left. What cannot be read is passed over.
    pub fn take_oldest(&mut self) -> Option<(u32, Record)> {
        while let Some((key, turn)) = self.queue.pop_front() {
            if self.away.get(&key).is_some_and(|a| a.turn == turn)
                && let Some(taken) = self.take_key(key)
            {
                return Some(taken);
            }
        }
        None
    }

    fn take_key(&mut self, key: Digest) -> Option<(u32, Record)> {
        let Away { number, place, .. } = self.away.remove(&key)?;
        self.unuse(place);
        let record = self.shelf.as_ref().and_then(|s| s.get(place)).and_then(|bytes| decode(&bytes));
        self.lost += u64::from(record.is_none());
        record.map(|record| (number, record))
    }

    fn unuse(&mut self, place: Place) {
        if let Some(live) = self.live.get_mut(&place.segment) {
            *live -= u64::from(place.len);
            if *live == 0 {
                self.live.remove(&place.segment);
            }
        }
    }

    /// Writes what is in use of full segments that hold little else than what is not, at most `segments` of them.
    pub fn tidy(&mut self, segments: usize) {
        let Some(shelf) = &mut self.shelf else { return };
        let used = |segment: &u32| self.live.get(segment).copied().unwrap_or_default();
        let sparse = shelf.full().into_iter().filter(|(segment, bytes)| (1..bytes / 2).contains(&used(segment)));
        let sparse: Vec<u32> = sparse.map(|(segment, _)| segment).take(segments).collect();
        if sparse.is_empty() {
            return;
        }
        for away in self.away.values_mut().filter(|a| sparse.contains(&a.place.segment)) {
            let Some(place) = shelf.get(away.place).and_then(|bytes| shelf.put(&bytes)) else { continue };
            *self.live.entry(place.segment).or_default() += u64::from(place.len);
            if let Some(live) = self.live.get_mut(&away.place.segment) {
                *live -= u64::from(away.place.len);
            }
            away.place = place;
        }
        self.live.retain(|_, bytes| *bytes > 0);
    }

    /// Segments with records in use.
    pub fn segments(&self) -> impl Iterator<Item = u32> {
        self.live.keys().copied()
    }

    pub fn len(&self) -> usize {
        self.away.len()
    }

    /// Memory it takes.
    pub fn bytes(&self) -> usize {
        self.away.len() * PLACE_COST
    }

    /// Bytes of the records in use.
    pub fn shelved(&self) -> u64 {
        self.live.values().sum()
    }

    pub fn restore(stored: Stored) -> Self {
        let mut cold = Self { turn: stored.turn, lost: stored.lost, ..Self::default() };
        for (key, away) in stored.away {
            *cold.live.entry(away.place.segment).or_default() += u64::from(away.place.len);
            cold.queue.push_back((key, away.turn));
            cold.away.insert(key, away);
        }
        cold
    }
}

/// Who is where as data, in the order they came; the records lie on the shelf.
impl Serialize for Cold {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let here = |(key, turn): &(Digest, u32)| Some((*key, *self.away.get(key).filter(|a| a.turn == *turn)?));
        let away = Listed(|| self.queue.iter().filter_map(here));
        Stored { away, turn: self.turn, lost: self.lost }.serialize(serializer)
    }
}

fn decode(bytes: &[u8]) -> Option<Record> {
    let (version, rest) = bytes.split_first()?;
    (*version == VERSION).then(|| postcard::from_bytes(rest).ok()).flatten()
}

#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Stored<A = Vec<(Digest, Away)>> {
    away: A,
    turn: u32,
    lost: u64,
}
