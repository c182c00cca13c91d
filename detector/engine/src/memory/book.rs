//! One kind of memory: what is known under a key. Bounded: what was touched longest ago is forgotten
//! first and counted, so that an attacker who fills it is visible.

use hashlink::LinkedHashMap;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize, Serializer};

use crate::listed::Listed;

/// Where something is remembered: a hash over cluster and names, so that names of any length cost the
/// same and no choice of names meets another's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Key(u128);

impl Key {
    /// The place of `parts`, each behind its length.
    pub fn of(cluster: &str, parts: &[&str]) -> Self {
        let mut hasher = blake3::Hasher::new();
        for part in std::iter::once(&cluster).chain(parts) {
            hasher.update(&(part.len() as u64).to_le_bytes());
            hasher.update(part.as_bytes());
        }
        let mut first = [0; 16];
        first.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
        Self(u128::from_le_bytes(first))
    }

    /// The place of something whose id is random or a hash already and names no choice of anybody's:
    /// `JTI=` and a UUID, or `X509SHA256=` and hexadecimal digits. Every event asks for one.
    pub fn of_id(cluster: &str, id: &str) -> Self {
        let Some(number) = number_of(id) else { return Self::of(cluster, &[id]) };
        Self(number ^ u128::from(fnv(cluster)))
    }

    /// Half of it, for long lists of small things.
    pub fn half(self) -> u64 {
        self.0 as u64
    }
}

/// FNV-1a, 64 bits: cheap, and the same in every version, as snapshots need.
pub(super) fn fnv(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

/// The first 128 bits of an id.
fn number_of(id: &str) -> Option<u128> {
    let (_, digits) = id.split_once('=')?;
    let (mut number, mut read) = (0u128, 0);
    for byte in digits.bytes().filter(|b| *b != b'-') {
        let digit = DIGITS[usize::from(byte)];
        if digit == NO_DIGIT {
            return None;
        }
        number = number << 4 | u128::from(digit);
        read += 1;
        if read == 32 {
            return Some(number);
        }
    }
    None
}

const NO_DIGIT: u8 = 16;

/// Values of hexadecimal digits.
const DIGITS: [u8; 256] = {
    let mut digits = [NO_DIGIT; 256];
    let mut value = 0;
    while value < 16 {
        digits[b"0123456789abcdef"[value as usize] as usize] = value;
        digits[b"0123456789ABCDEF"[value as usize] as usize] = value;
        value += 1;
    }
    digits
};

impl From<Key> for String {
    fn from(key: Key) -> Self {
        format!("{:032x}", key.0)
    }
}

impl TryFrom<String> for Key {
    type Error = std::num::ParseIntError;
    fn try_from(text: String) -> Result<Self, Self::Error> {
        u128::from_str_radix(&text, 16).map(Self)
    }
}

/// What is remembered, each under its key.
#[derive(Clone, Debug)]
pub struct Book<V> {
    /// In the order they were last touched.
    entries: LinkedHashMap<Key, V>,
    cap: usize,
    evicted: u64,
}

#[derive(Serialize, Deserialize)]
struct Stored<E> {
    evicted: u64,
    entries: E,
}

impl<V> Book<V> {
    pub fn new(cap: usize) -> Self {
        Self { entries: LinkedHashMap::new(), cap: cap.max(1), evicted: 0 }
    }

    pub fn get(&self, key: Key) -> Option<&V> {
        self.entries.get(&key)
    }

    pub fn put(&mut self, key: Key, value: V) {
        if self.entries.insert(key, value).is_none() && self.entries.len() > self.cap {
            self.entries.pop_front();
            self.evicted += 1;
        }
    }

    pub fn remove(&mut self, key: Key) -> Option<V> {
        self.entries.remove(&key)
    }

    /// Takes what is remembered (or nothing), and puts back what `f` makes of it.
    pub fn change(&mut self, key: Key, f: impl FnOnce(Option<V>) -> V) {
        let former = self.remove(key);
        self.put(key, f(former));
    }

    pub fn values(&self) -> impl Iterator<Item = &V> {
        self.entries.values()
    }

    pub fn len(&self) -> usize {
        self.entries.len()
    }

    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Entries forgotten because the cap was reached, since the start.
    pub fn evicted(&self) -> u64 {
        self.evicted
    }
}

/// The entries as data, in the order they were touched.
impl<V: Serialize> Serialize for Book<V> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Stored { evicted: self.evicted, entries: Listed(|| self.entries.iter()) }.serialize(serializer)
    }
}

impl<V: DeserializeOwned> Book<V> {
    /// Takes over the entries of a snapshot of the same kind.
    pub fn restore(&mut self, snapshot: &str) -> Result<(), serde_json::Error> {
        let stored: Stored<Vec<(Key, V)>> = serde_json::from_str(snapshot)?;
        *self = Self::new(self.cap);
        for (key, value) in stored.entries {
            self.put(key, value);
        }
        self.evicted = stored.evicted;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str) -> Key {
        Key::of("prod", &[name])
    }

    #[test]
    fn what_was_touched_longest_ago_goes_first_and_is_counted() {
        let mut book = Book::new(2);
        book.put(key("a"), 1);
        book.put(key("b"), 2);
        book.change(key("a"), |former| former.unwrap_or_default() + 10);
        book.put(key("c"), 3);
        assert_eq!((book.get(key("a")), book.get(key("b")), book.get(key("c"))), (Some(&11), None, Some(&3)));
        assert_eq!((book.len(), book.evicted()), (2, 1));
        book.put(key("c"), 4);
        assert_eq!((book.len(), book.evicted()), (2, 1), "what is there already costs nobody a place");
        assert_eq!(book.remove(key("c")), Some(4));
        assert_eq!(book.len(), 1);
    }

    #[test]
    fn a_snapshot_goes_on_where_it_was() {
        let mut a = Book::new(2);
        a.put(key("a"), 1);
        a.put(key("b"), 2);
        a.put(key("a"), 3);
        let mut b = Book::new(2);
        let data = |book: &Book<i32>| serde_json::to_string(book).expect("data");
        b.restore(&data(&a)).expect("own snapshot");
        assert_eq!(data(&a), data(&b));
        a.put(key("c"), 4);
        b.put(key("c"), 4);
        assert_eq!(data(&a), data(&b), "the same goes first");
        assert!(b.restore(r#"{"entries": [["zz", 1]], "evicted": 0}"#).is_err());
    }

    #[test]
    fn names_cannot_be_shifted_into_each_other() {
        assert_ne!(Key::of("prod", &["ab", "c"]), Key::of("prod", &["a", "bc"]));
        assert_ne!(Key::of("prod", &["a"]), Key::of("test", &["a"]));
        assert_eq!(Key::try_from(String::from(key("a"))), Ok(key("a")));
        let uuid = "JTI=5aca4a08-206f-44f0-860e-2036525db860";
        assert_eq!(Key::of_id("prod", uuid), Key::of_id("prod", uuid));
        for other in
            ["JTI=5aca4a08-206f-44f0-860e-2036525db861", "JTI=5aca4a08", "JTI=5aca4a08-206f-44f0-860e-2036525db86é", ""]
        {
            assert_ne!(Key::of_id("prod", uuid), Key::of_id("prod", other), "{other}");
        }
        assert_ne!(Key::of_id("prod", uuid), Key::of_id("test", uuid));
    }
}
