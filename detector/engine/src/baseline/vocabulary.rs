//! Every value somebody holds, once, and how many principals of each class and group hold it.
//!
//! A value is forgotten with the last principal that holds it, so memory follows the principals.

use std::collections::HashMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// Number of a text.
pub(super) type Id = u32;

/// Bytes one text takes beside its letters: two map slots, the counts, the list entry.
const TEXT_COST: usize = 112;
/// Bytes one count takes.
const COUNT_COST: usize = 20;

/// How widely a table of values is held among peers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Held {
    /// (Principal, value) pairs.
    pub pairs: u32,
    /// Distinct values.
    pub values: u32,
}

#[derive(Debug, Default)]
pub(super) struct Vocabulary {
    ids: foldhash::HashMap<Arc<str>, Id>,
    texts: Vec<Option<Text>>,
    free: Vec<Id>,
    holders: HashMap<(Id, Id), u32, foldhash::fast::FixedState>,
    held: HashMap<(Id, Id), Held, foldhash::fast::FixedState>,
    bytes: usize,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Text {
    text: Arc<str>,
    references: u32,
}

impl Vocabulary {
    pub fn find(&self, text: &str) -> Option<Id> {
        self.ids.get(text).copied()
    }

    pub fn text(&self, id: Id) -> &str {
        self.texts.get(id as usize).and_then(Option::as_ref).map_or("", |t| &t.text)
    }

    /// The number of `text`, with one more reference on it.
    pub fn hold(&mut self, text: &str) -> Id {
        if let Some(id) = self.find(text) {
            if let Some(Some(t)) = self.texts.get_mut(id as usize) {
                t.references += 1;
            }
            return id;
        }
        let text: Arc<str> = text.into();
        self.bytes += text.len() + TEXT_COST;
        let entry = Some(Text { text: Arc::clone(&text), references: 1 });
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
        self.ids.insert(text, id);
        id
    }

    /// Takes one reference away; the text goes with the last.
    pub fn release(&mut self, id: Id) {
        let Some(slot) = self.texts.get_mut(id as usize) else { return };
        let Some(text) = slot else { return };
        text.references -= 1;
        if text.references == 0 {
            self.bytes -= text.text.len() + TEXT_COST;
            self.ids.remove(&text.text);
            *slot = None;
            self.free.push(id);
        }
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

    /// How many principals among `peers` hold `value`.
    pub fn holders(&self, peers: Id, value: Option<Id>) -> u32 {
        value.and_then(|v| self.holders.get(&(peers, v))).copied().unwrap_or(0)
    }

    /// What `peers` hold of `table`, if anything.
    pub fn held(&self, peers: Id, table: Option<Id>) -> Option<Held> {
        table.and_then(|t| self.held.get(&(peers, t))).copied()
    }

    pub fn bytes(&self) -> usize {
        self.bytes
    }

    pub fn snapshot(&self) -> Stored {
        let mut holders: Vec<_> = self.holders.iter().map(|(k, v)| (*k, *v)).collect();
        let mut held: Vec<_> = self.held.iter().map(|(k, v)| (*k, *v)).collect();
        holders.sort_unstable_by_key(|(k, _)| *k);
        held.sort_unstable_by_key(|(k, _)| *k);
        Stored { texts: self.texts.clone(), free: self.free.clone(), holders, held }
    }

    pub fn restore(stored: Stored) -> Self {
        let ids: foldhash::HashMap<Arc<str>, Id> = (0..)
            .zip(&stored.texts)
            .filter_map(|(id, text)| text.as_ref().map(|t| (Arc::clone(&t.text), id)))
            .collect();
        let bytes = ids.keys().map(|t| t.len() + TEXT_COST).sum::<usize>() + stored.holders.len() * COUNT_COST;
        Self {
            ids,
            texts: stored.texts,
            free: stored.free,
            holders: stored.holders.into_iter().collect(),
            held: stored.held.into_iter().collect(),
            bytes,
        }
    }
}

/// The vocabulary as data.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Stored {
    texts: Vec<Option<Text>>,
    free: Vec<Id>,
    holders: Vec<((Id, Id), u32)>,
    held: Vec<((Id, Id), Held)>,
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
        assert_eq!((v.holders(peers, Some(curl)), v.held(peers, Some(table))), (2, Some(Held { pairs: 2, values: 1 })));
        for _ in 0..2 {
            v.lose(peers, table, curl);
            v.release(curl);
        }
        assert_eq!((v.find("curl"), v.held(peers, Some(table)), v.bytes()), (None, None, empty));
        assert_eq!(v.hold("wget"), curl, "the number is used again");
    }

    #[test]
    fn a_restored_vocabulary_is_the_same() {
        let mut v = Vocabulary::default();
        let ids: Vec<Id> = ["p", "t", "a", "b"].iter().map(|t| v.hold(t)).collect();
        v.gain(ids[0], ids[1], ids[2]);
        v.release(ids[3]);
        let json = serde_json::to_string(&v.snapshot()).expect("data");
        let again = Vocabulary::restore(serde_json::from_str(&json).expect("own data"));
        assert_eq!((again.find("a"), again.find("b"), again.bytes()), (v.find("a"), None, v.bytes()));
        assert_eq!(serde_json::to_string(&again.snapshot()).expect("data"), json);
    }
}
