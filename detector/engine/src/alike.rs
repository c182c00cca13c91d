//! What was found out about events that are alike, kept under everything that makes them so. Only saves time: what is
//! forgotten is found out again.

use foldhash::HashMap;

/// Kinds of events remembered; when there are more, all are forgotten.
pub(crate) const MAX: usize = 16_384;
/// Longer keys are not remembered, bytes: somebody plays with user agents.
pub(crate) const MAX_KEY: usize = 1_024;

#[derive(Debug)]
pub(crate) struct Alike<V> {
    known: HashMap<Box<[u8]>, V>,
    key: Vec<u8>,
}

impl<V> Default for Alike<V> {
    fn default() -> Self {
        Self { known: HashMap::default(), key: Vec::new() }
    }
}

impl<V> Alike<V> {
    /// The next event is about to be described, by `bytes` of a fixed length first.
    pub(crate) fn start(&mut self, bytes: &[u8]) {
        self.key.clear();
        self.key.extend_from_slice(bytes);
    }

    /// Texts that make it what it is, each behind its length.
    pub(crate) fn texts<'t>(&mut self, texts: impl IntoIterator<Item = &'t str>) {
        for text in texts {
            self.key.extend_from_slice(&(text.len() as u64).to_le_bytes());
            self.key.extend_from_slice(text.as_bytes());
        }
    }

    pub(crate) fn bytes(&mut self, bytes: &[u8]) {
        self.key.extend_from_slice(bytes);
    }

    /// What is known of events described like this one.
    pub(crate) fn get(&self) -> Option<&V> {
        self.known.get(self.key.as_slice())
    }

    pub(crate) fn get_mut(&mut self) -> Option<&mut V> {
        self.known.get_mut(self.key.as_slice())
    }

    pub(crate) fn keep(&mut self, value: V) {
        if self.key.len() > MAX_KEY {
            return;
        }
        if self.known.len() >= MAX {
            self.known.clear();
        }
        self.known.insert(self.key.as_slice().into(), value);
    }

    pub(crate) fn clear(&mut self) {
        self.known.clear();
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.known.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_one_text_ends_and_the_next_begins_matters() {
        let mut alike = Alike::default();
        alike.start(&[1]);
        alike.texts(["ab", "c"]);
        alike.keep(7);
        assert_eq!(alike.get(), Some(&7));
        for (bytes, texts) in [([1], ["a", "bc"]), ([1], ["abc", ""]), ([2], ["ab", "c"])] {
            alike.start(&bytes);
            alike.texts(texts);
            assert_eq!(alike.get(), None);
        }
    }

    #[test]
    fn it_is_bounded() {
        let mut alike = Alike::default();
        for n in 0..MAX + 10 {
            alike.start(&n.to_le_bytes());
            alike.keep(());
        }
        assert_eq!(alike.len(), 10);
        alike.start(&[0; MAX_KEY + 1]);
        alike.keep(());
        assert_eq!(alike.len(), 10);
    }
}
