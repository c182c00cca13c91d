//! Every value somebody holds, once, and how many principals of each class and group hold it.
//!
//! A value is forgotten with the last principal that holds it, so memory follows the principals. What only one holds who
//! is on the shelf lies there with it; of such a value a digest stays, so that its peers still count one holder.

use std::collections::HashMap;
use std::hash::BuildHasher;

use hashbrown::HashTable;
use serde::ser::SerializeStruct;
use serde::{Deserialize, Serialize, Serializer};

use crate::listed::Listed;

/// Number of a text.
pub(super) type Id = u32;

/// Bytes one text takes beside its letters: its place in the list, in the table of numbers, and its allocation.
const TEXT_COST: usize = 64;
/// Bytes one count takes.
const COUNT_COST: usize = 24;
/// Bytes a value takes that is on the shelf.
const FROZEN_COST: usize = 48;

/// How widely a table of values is held among peers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Held {
    /// (Principal, value) pairs.
    pub pairs: u32,
    /// Distinct values.
    pub values: u32,
}

/// Tells texts apart that are not in memory: the beginning of their BLAKE3, which nobody can aim at.
pub(super) type Digest = (u32, u32);

pub(super) fn digest(text: &str) -> Digest {
    let hash = blake3::hash(text.as_bytes());
    let [a, b, c, d, e, f, g, h, ..] = *hash.as_bytes();
    (u32::from_le_bytes([a, b, c, d]), u32::from_le_bytes([e, f, g, h]))
}

/// Class and group of the only holder of a value on the shelf; `None` where peers do not count it.
type Frozen = Option<[Id; 2]>;

#[derive(Debug, Default)]
pub(super) struct Vocabulary {
    ids: HashTable<Id>,
    hasher: foldhash::fast::RandomState,
    /// By number; without references: free.
    texts: Vec<Text>,
    free: Vec<Id>,
    holders: HashMap<(Id, Id), u32, foldhash::fast::FixedState>,
    held: HashMap<(Id, Id), Held, foldhash::fast::FixedState>,
    frozen: HashMap<Digest, Frozen, foldhash::fast::FixedState>,
    bytes: usize,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Text {
    text: Box<str>,
    references: u32,
}

impl Vocabulary {
    pub fn find(&self, text: &str) -> Option<Id> {
        let hash = self.hasher.hash_one(text);
        self.ids.find(hash, |id| *self.texts[*id as usize].text == *text).copied()
    }

    pub fn text(&self, id: Id) -> &str {
        self.texts.get(id as usize).map_or("", |t| &t.text)
    }

    /// The number of `text`, with one more reference on it.
    pub fn hold(&mut self, text: &str) -> Id {
        if let Some(id) = self.find(text) {
            self.texts[id as usize].references += 1;
            return id;
        }
        match self.thawed(text) {
            Some(holder) => self.admit(text, 2, holder),
            None => self.admit(text, 1, None),
        }
    }

    /// Takes up a text that has no number; `holder` counts it.
    fn admit(&mut self, text: &str, references: u32, holder: Frozen) -> Id {
        self.bytes += text.len() + TEXT_COST;
        let entry = Text { text: text.into(), references };
        let id = match self.free.pop() {
            Some(id) => {
                self.texts[id as usize] = entry;
                id
            }
            None => {
                self.texts.push(entry);
                (self.texts.len() - 1) as Id
            }
        };
        let (hasher, texts) = (&self.hasher, &self.texts);
        let hash = |id: &Id| hasher.hash_one(&*texts[*id as usize].text);
        self.ids.insert_unique(hasher.hash_one(text), id, hash);
        for peers in holder.iter().flat_map(distinct) {
            self.bytes += COUNT_COST;
            self.holders.insert((peers, id), 1);
        }
        id
    }

    /// Takes one reference away; the text goes with the last.
    pub fn release(&mut self, id: Id) {
        let Some(text) = self.texts.get_mut(id as usize).filter(|t| t.references > 0) else { return };
        text.references -= 1;
        if text.references == 0 {
            self.drop_text(id);
        }
    }

    fn drop_text(&mut self, id: Id) -> Box<str> {
        let Text { text, .. } = std::mem::take(&mut self.texts[id as usize]);
        if let Ok(place) = self.ids.find_entry(self.hasher.hash_one(&*text), |other| *other == id) {
            place.remove();
        }
        self.bytes -= text.len() + TEXT_COST;
        self.free.push(id);
        text
    }

    /// The text of a value that only one principal holds, who goes to the shelf with it; nothing of one that is shared.
    pub fn freeze(&mut self, id: Id, peers: [Id; 2], told: bool) -> Option<Box<str>> {
        let text = self.texts.get(id as usize).filter(|t| t.references == 1)?;
        let digest = digest(&text.text);
        if self.frozen.contains_key(&digest) {
            return None;
        }
        for peers in distinct(&peers) {
            if self.holders.remove(&(peers, id)).is_some() {
                self.bytes -= COUNT_COST;
            }
        }
        self.frozen.insert(digest, told.then_some(peers));
        self.bytes += FROZEN_COST;
        Some(self.drop_text(id))
    }

    /// The number of a value that [`Self::freeze`] gave out, back with its holder.
    pub fn reclaim(&mut self, text: &str, peers: [Id; 2], told: bool) -> Id {
        if let Some(id) = self.find(text) {
            // Somebody else has brought it back, and counted the reference.
            return id;
        }
        let holder = self.thawed(text).unwrap_or_else(|| told.then_some(peers));
        self.admit(text, 1, holder)
    }

    fn thawed(&mut self, text: &str) -> Option<Frozen> {
        if self.frozen.is_empty() {
            return None;
        }
        let holder = self.frozen.remove(&digest(text))?;
        self.bytes -= FROZEN_COST;
        Some(holder)
    }

    /// How many of a value that has no number: one, or nobody.
    fn frozen_holders(&self, peers: Id, text: &str) -> u32 {
        if self.frozen.is_empty() {
            return 0;
        }
        let holder = self.frozen.get(&digest(text)).copied().flatten();
        u32::from(holder.is_some_and(|holder| holder.contains(&peers)))
    }

    /// Bytes of what is remembered of values on the shelf.
    pub fn frozen_bytes(&self) -> usize {
        self.frozen.len() * FROZEN_COST
    }

    /// One more principal among `peers` holds `value` of `table`.
    pub fn gain(&mut self, peers: Id, table: Id, value: Id) {
        let holders = self.holders.entry((peers, value)).or_default();
        let held = self.held.entry((peers, table)).or_default();
        if *holders == 0 {
            held.values += 1;
            self.bytes += COUNT_COST;
        }
        *holders += 1;
        held.pairs += 1;
    }

    /// One principal less.
    pub fn lose(&mut self, peers: Id, table: Id, value: Id) {
        let Some(holders) = self.holders.get_mut(&(peers, value)) else { return };
        *holders -= 1;
        let gone = *holders == 0;
        if gone {
            self.holders.remove(&(peers, value));
            self.bytes -= COUNT_COST;
        }
        if let Some(held) = self.held.get_mut(&(peers, table)) {
            held.pairs -= 1;
            held.values -= u32::from(gone);
            if held.pairs == 0 {
                self.held.remove(&(peers, table));
            }
        }
    }

    /// How many principals among `peers` hold the value `text`, whose number is `value` if it has one.
    pub fn holders(&self, peers: Id, value: Option<Id>, text: &str) -> u32 {
        match value {
            Some(value) => self.holders.get(&(peers, value)).copied().unwrap_or(0),
            None => self.frozen_holders(peers, text),
        }
    }

    /// What `peers` hold of `table`, if anything.
    pub fn held(&self, peers: Id, table: Option<Id>) -> Option<Held> {
        table.and_then(|t| self.held.get(&(peers, t))).copied()
    }

    pub fn bytes(&self) -> usize {
        self.bytes
    }

    pub fn restore(stored: Stored) -> Self {
        let texts: Vec<Text> = stored.texts.into_iter().map(Option::unwrap_or_default).collect();
        let mut words = Self { texts, free: stored.free, ..Self::default() };
        let hash = |id: &Id| words.hasher.hash_one(&*words.texts[*id as usize].text);
        for (id, text) in (0..).zip(&words.texts).filter(|(_, t)| t.references > 0) {
            words.ids.insert_unique(hash(&id), id, hash);
            words.bytes += text.text.len() + TEXT_COST;
        }
        words.bytes += stored.holders.len() * COUNT_COST + stored.frozen.len() * FROZEN_COST;
        words.holders = stored.holders.into_iter().collect();
        words.held = stored.held.into_iter().collect();
        words.frozen = stored.frozen.into_iter().collect();
        words
    }
}

/// The vocabulary as data, in a fixed order.
impl Serialize for Vocabulary {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut words = serializer.serialize_struct("Vocabulary", 5)?;
        words.serialize_field("texts", &Listed(|| self.texts.iter().map(|t| (t.references > 0).then_some(t))))?;
        words.serialize_field("free", &self.free)?;
        words.serialize_field("holders", &sorted(&self.holders))?;
        words.serialize_field("held", &sorted(&self.held))?;
        words.serialize_field("frozen", &sorted(&self.frozen))?;
        words.end()
    }
}

fn sorted<K: Copy + Ord, V: Copy, H>(counts: &HashMap<K, V, H>) -> Vec<(K, V)> {
    let mut list: Vec<(K, V)> = counts.iter().map(|(key, value)| (*key, *value)).collect();
    list.sort_unstable_by_key(|(key, _)| *key);
    list
}

/// A class that is its own group is one.
fn distinct([class, group]: &[Id; 2]) -> impl Iterator<Item = Id> {
    std::iter::once(*class).chain((group != class).then_some(*group))
}

/// The vocabulary as data.
#[derive(Debug, Deserialize)]
pub(super) struct Stored {
    texts: Vec<Option<Text>>,
    free: Vec<Id>,
    holders: Vec<((Id, Id), u32)>,
    held: Vec<((Id, Id), Held)>,
    /// Absent in snapshots of older versions.
    #[serde(default)]
    frozen: Vec<(Digest, Frozen)>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_lives_as_long_as_somebody_holds_it() {
        let mut v = Vocabulary::default();
        let (peers, table) = (v.hold("peers"), v.hold("table"));
        let empty = v.bytes();
        let curl = v.hold("curl");
        assert_eq!(v.hold("curl"), curl);
        v.gain(peers, table, curl);
        v.gain(peers, table, curl);
        assert_eq!(
            (v.holders(peers, Some(curl), "curl"), v.held(peers, Some(table))),
            (2, Some(Held { pairs: 2, values: 1 }))
        );
        for _ in 0..2 {
            v.lose(peers, table, curl);
            v.release(curl);
        }
        assert_eq!((v.find("curl"), v.held(peers, Some(table)), v.bytes()), (None, None, empty));
        assert_eq!(v.hold("wget"), curl, "the number is used again");
    }

    #[test]
    fn a_frozen_value_still_counts_and_comes_back_once() {
        let mut v = Vocabulary::default();
        let (class, group, table) = (v.hold("class"), v.hold("group"), v.hold("table"));
        let peers = [class, group];
        let empty = v.bytes();
        let mut own = v.hold("own");
        v.gain(class, table, own);
        v.gain(group, table, own);
        let before = (v.bytes(), v.held(class, Some(table)));
        for other in [false, true] {
            let text = v.freeze(own, peers, true).expect("held by one");
            assert!(v.find("own").is_none() && v.bytes() < before.0);
            assert_eq!((v.holders(class, None, "own"), v.holders(table, None, "own")), (1, 0));
            assert_eq!(v.holders(class, None, "other"), 0);
            let second = other.then(|| v.hold("own"));
            own = v.reclaim(&text, peers, true);
            assert_eq!((v.holders(class, Some(own), "own"), v.holders(group, Some(own), "own")), (1, 1));
            assert!(second.is_none_or(|id| id == own));
            if other {
                assert!(v.freeze(own, peers, true).is_none(), "shared by two");
                v.release(own);
            }
            assert_eq!((v.bytes(), v.held(class, Some(table))), before);
        }
        v.lose(class, table, own);
        v.lose(group, table, own);
        v.release(own);
        assert_eq!(v.bytes(), empty);
    }

    #[test]
    fn a_restored_vocabulary_is_the_same() {
        let mut v = Vocabulary::default();
        let ids: Vec<Id> = ["p", "t", "a", "b"].iter().map(|t| v.hold(t)).collect();
        v.gain(ids[0], ids[1], ids[2]);
        v.release(ids[3]);
        let cold = v.hold("c");
        v.freeze(cold, [ids[0]; 2], true).expect("held by one");
        let json = serde_json::to_string(&v).expect("data");
        let again = Vocabulary::restore(serde_json::from_str(&json).expect("own data"));
        assert_eq!((again.find("a"), again.find("b"), again.bytes()), (v.find("a"), None, v.bytes()));
        assert_eq!(serde_json::to_string(&again).expect("data"), json);
    }
}
