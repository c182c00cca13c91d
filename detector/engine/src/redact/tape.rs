//! A flat list of a JSON document's values, without recursion and without copying.
//!
//! It checks no more than it needs to find strings and their place: on valid JSON the places are
//! right, on damaged JSON they are right up to the damage and a guess behind it.

use memchr::memchr2;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Object,
    Array,
    String,
    /// A number.
    Number,
    /// `true`, `false`, `null`.
    Word,
}

pub(super) const NONE: u32 = u32::MAX;

/// One value. `start..end` is its text, for a string with its quotes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Node {
    pub kind: Kind,
    pub start: u32,
    pub end: u32,
    pub parent: u32,
    /// What stands between the quotes of its key; empty in arrays.
    pub key: (u32, u32),
    /// For containers, the index into [`Tape::containers`]; for strings in arrays, the string before.
    pub link: u32,
}

/// The children of an object that decide about their siblings, the last of each, as Go reads it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Container {
    pub kind: u32,
    pub name: u32,
    pub path: u32,
    pub last_string: u32,
}

pub(super) struct Tape {
    pub nodes: Vec<Node>,
    pub containers: Vec<Container>,
    /// Nothing was missing and no byte was out of place.
    pub whole: bool,
}

impl Tape {
    /// Texts of 4 GiB and more are not read.
    pub(super) fn read(text: &str) -> Self {
        let mut reader = Reader { bytes: text.as_bytes(), at: 0, tape: Self::empty(), open: NONE };
        if u32::try_from(text.len()).is_ok() {
            reader.tape.whole = reader.document();
        }
        reader.tape
    }

    fn empty() -> Self {
        Self { nodes: Vec::new(), containers: Vec::new(), whole: false }
    }

    pub(super) fn container(&self, node: u32) -> Option<&Container> {
        let node = self.nodes.get(node as usize)?;
        matches!(node.kind, Kind::Object | Kind::Array).then(|| self.containers.get(node.link as usize)).flatten()
    }
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
    tape: Tape,
    open: u32,
}

impl Reader<'_> {
    /// Reads to the end, over whatever is wrong; false if something was wrong or missing.
    fn document(&mut self) -> bool {
        let mut key = (0, 0);
        let mut sound = true;
        loop {
            self.blanks();
            let Some(&byte) = self.bytes.get(self.at) else { return sound && self.open == NONE };
            match byte {
                b'{' | b'[' => {
                    self.push_container(if byte == b'{' { Kind::Object } else { Kind::Array }, key);
                    self.at += 1;
                    key = (0, 0);
                }
                b'}' | b']' => {
                    self.at += 1;
                    key = (0, 0);
                    match self.tape.nodes.get_mut(self.open as usize) {
                        Some(node) => {
                            node.end = self.at as u32;
                            self.open = node.parent;
                        }
                        None => sound = false,
                    }
                }
                b',' | b':' => self.at += 1,
                b'"' => {
                    let start = self.at;
                    let closed = self.string();
                    if !closed {
                        // A value cut off in the middle is still a value to redact.
                        self.push(Kind::String, start, key);
                        return false;
                    }
                    let inner = (start as u32 + 1, self.at as u32 - 1);
                    if self.in_object() && key == (0, 0) && self.colon_follows() {
                        key = inner;
                    } else {
                        self.push(Kind::String, start, key);
                        key = (0, 0);
                    }
                }
                b'-' | b'0'..=b'9' => {
                    let start = self.at;
                    self.run(|b| matches!(b, b'-' | b'+' | b'.' | b'e' | b'E' | b'0'..=b'9'));
                    self.push(Kind::Number, start, key);
                    key = (0, 0);
                }
                b't' | b'f' | b'n' => {
                    let start = self.at;
                    self.run(|b| b.is_ascii_lowercase());
                    self.push(Kind::Word, start, key);
                    key = (0, 0);
                }
                _ => {
                    self.at += 1;
                    sound = false;
                }
            }
        }
    }

    fn in_object(&self) -> bool {
        self.tape.nodes.get(self.open as usize).is_some_and(|n| n.kind == Kind::Object)
    }

    fn colon_follows(&self) -> bool {
        self.bytes[self.at..].iter().find(|b| !b.is_ascii_whitespace()) == Some(&b':')
    }

    fn blanks(&mut self) {
        self.run(|b| b.is_ascii_whitespace());
    }

    fn run(&mut self, belongs: impl Fn(u8) -> bool) {
        while self.bytes.get(self.at).copied().is_some_and(&belongs) {
            self.at += 1;
        }
    }

    /// From the opening quote to behind the closing one; false if there is none.
    fn string(&mut self) -> bool {
        self.at += 1;
        while let Some(skip) = self.bytes.get(self.at..).and_then(|rest| memchr2(b'"', b'\\', rest)) {
            self.at += skip;
            if self.bytes[self.at] == b'"' {
                self.at += 1;
                return true;
            }
            self.at += 2;
        }
        self.at = self.bytes.len();
        false
    }

    fn push_container(&mut self, kind: Kind, key: (u32, u32)) {
        let link = self.tape.containers.len() as u32;
        self.tape.containers.push(Container { kind: NONE, name: NONE, path: NONE, last_string: NONE });
        let index = self.tape.nodes.len() as u32;
        let end = self.bytes.len() as u32;
        self.tape.nodes.push(Node { kind, start: self.at as u32, end, parent: self.open, key, link });
        self.open = index;
    }

    fn push(&mut self, kind: Kind, start: usize, key: (u32, u32)) {
        let index = self.tape.nodes.len() as u32;
        let mut link = NONE;
        if let Some(container) = self.tape.nodes.get(self.open as usize).map(|n| n.link as usize)
            && kind == Kind::String
        {
            let container = &mut self.tape.containers[container];
            match &self.bytes[key.0 as usize..key.1 as usize] {
                b"kind" => container.kind = index,
                b"name" => container.name = index,
                b"path" => container.path = index,
                _ => {}
            }
            link = container.last_string;
            container.last_string = index;
        }
        self.tape.nodes.push(Node { kind, start: start as u32, end: self.at as u32, parent: self.open, key, link });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places() {
        let text = r#" {"a" : "x\"y", "":"e", "b":[1, {"kind":"K"},"p","q"],"c":null} "#;
        let tape = Tape::read(text);
        assert!(tape.whole);
        let seen: Vec<(&str, &str)> = tape
            .nodes
            .iter()
            .map(|n| (&text[n.key.0 as usize..n.key.1 as usize], &text[n.start as usize..n.end as usize]))
            .collect();
        assert_eq!(seen[1], ("a", r#""x\"y""#));
        assert_eq!(seen[2], ("", r#""e""#));
        assert_eq!(seen[3], ("b", r#"[1, {"kind":"K"},"p","q"]"#));
        assert_eq!(seen[6], ("kind", r#""K""#));
        assert_eq!(seen.last(), Some(&("c", "null")));
        let q = tape.nodes[8];
        assert_eq!((q.kind, q.link), (Kind::String, 7));
    }

    #[test]
    fn damage_keeps_what_was_before() {
        for (text, values) in [(r#"{"a":"b","c":"dd"#, 3), (r#"{"a":"b",%"#, 2), (r#"[[[["#, 4), ("}", 0)] {
            let tape = Tape::read(text);
            assert!(!tape.whole, "{text}");
            assert_eq!(tape.nodes.len(), values, "{text}");
        }
        assert!(Tape::read(&format!("{}1{}", "[".repeat(100_000), "]".repeat(100_000))).whole);
    }
}
