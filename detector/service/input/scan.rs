//! Where a JSON value ends, by counting brackets and skipping strings; a resumable pass.
//!
//! It checks nothing else: a value that ends is not yet valid. It needs no stack, so depth costs
//! nothing, and it can be fed a value in pieces of any size.

use memchr::memchr3;

/// What was found so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// The bytes ended before the value did.
    More,
    /// The value ends before this byte.
    End(usize),
    /// A top-level `items` or `records` list opens before this byte.
    List(usize),
    /// This newline cannot be part of the value: a cut line, and the next one begins behind it.
    Damage(usize),
    /// Quotes are missing: at this comma the next item of the list begins.
    Next(usize),
}

/// Scans one value that starts at byte 0 of what it is given.
#[derive(Clone, Debug, Default)]
pub(super) struct Scanner {
    /// Everything before is scanned.
    pub at: usize,
    depth: u64,
    in_string: bool,
    /// A value of a line-oriented stream: a newline within a string, or a new object where none can be, is damage.
    lines: bool,
    /// An item of a list: another item that begins where a string would have to end shows that a quote is missing.
    pub item: bool,
    /// Report top-level `items` and `records` lists.
    pub lists: bool,
    /// No more bytes will come.
    pub ended: bool,
    last: u8,
    string_start: usize,
    key: (usize, usize),
    /// A colon at depth 1 was the last byte.
    value_next: bool,
    open_body: Option<usize>,
    /// Ranges of `requestObject` and `responseObject`.
    pub bodies: Vec<(usize, usize)>,
    /// Behind the `{` of the top-level `annotations`.
    pub annotations: Option<usize>,
    /// `"items": null`, as Go writes an empty list.
    pub empty_list: bool,
}

impl Scanner {
    pub(super) fn new(lines: bool, lists: bool) -> Self {
        Self { lines, lists, ..Self::default() }
    }

    /// Goes on where it stopped; `bytes` starts at the value's first byte.
    pub(super) fn scan(&mut self, bytes: &[u8]) -> Step {
        while self.at < bytes.len() {
            if self.in_string {
                match self.string(bytes) {
                    Some(step) => return step,
                    None => continue,
                }
            }
            let at = self.at;
            let byte = bytes[at];
            if self.value_next && !byte.is_ascii_whitespace() && self.value_starts(bytes) {
                return Step::List(self.at);
            }
            self.at += 1;
            match byte {
                b'"' => {
                    self.in_string = true;
                    self.string_start = at;
                }
                b'{' | b'[' => self.depth += 1,
                b'}' | b']' => {
                    if self.depth == 1 {
                        self.close_body(at);
                    }
                    self.depth = self.depth.saturating_sub(1);
                    if self.depth == 0 {
                        return Step::End(self.at);
                    }
                }
                b',' if self.depth == 1 => self.close_body(at),
                b':' if self.depth == 1 => self.value_next = true,
                b'\n' => {
                    // What follows decides, and may not be here yet.
                    if self.lines && !self.ended && bytes.len() - self.at < LONGEST_START {
                        self.at = at;
                        return Step::More;
                    }
                    if self.lines && !self.line_continues(bytes) {
                        return Step::Damage(at);
                    }
                    continue;
                }
                b' ' | b'\t' | b'\r' => continue,
                _ => {}
            }
            self.last = byte;
        }
        Step::More
    }

    /// The list that [`Step::List`] reported is over; `bytes` now starts behind its `]`.
    pub(super) fn list_ended(&mut self) {
        self.at = 0;
        self.forget();
    }

    /// Positions remembered so far are no longer valid.
    pub(super) fn forget(&mut self) {
        self.bodies.clear();
        self.open_body = None;
        self.annotations = None;
        self.key = (0, 0);
        self.string_start = 0;
    }

    /// The caller removed these bytes, all of them scanned already.
    pub(super) fn cut(&mut self, from: usize, to: usize) {
        let shift = |p: &mut usize| *p = if *p >= to { *p - (to - from) } else { (*p).min(from) };
        let Self { at, string_start, key, open_body, bodies, annotations, .. } = self;
        for p in [at, string_start, &mut key.0, &mut key.1].into_iter().chain(open_body).chain(annotations) {
            shift(p);
        }
        for (start, end) in bodies {
            shift(start);
            shift(end);
        }
    }

    /// The body being read, from its first byte to where the scan is.
    pub(super) fn open_body(&self) -> Option<(usize, usize)> {
        self.open_body.map(|start| (start, self.at))
    }

    fn string(&mut self, bytes: &[u8]) -> Option<Step> {
        let Some(skip) = memchr3(b'"', b'\\', b'\n', &bytes[self.at..]) else {
            self.at = bytes.len();
            return Some(Step::More);
        };
        let at = self.at + skip;
        self.at = at;
        match bytes[at] {
            b'"' => {
                if self.item && bytes[..at].ends_with(b"},{") {
                    if !self.ended && bytes.len() - at < LONGEST_START {
                        return Some(Step::More);
                    }
                    // In JSON no letter stands behind the end of a string.
                    if starts_like_event(&bytes[at - 1..]) {
                        return Some(Step::Next(at - 2));
                    }
                }
                self.at += 1;
                self.in_string = false;
                self.last = b'"';
                if self.depth == 0 {
                    return Some(Step::End(self.at));
                }
                if self.depth == 1 {
                    self.key = (self.string_start + 1, at);
                }
            }
            b'\\' if at + 1 == bytes.len() => return Some(Step::More),
            b'\\' if self.lines && bytes[at + 1] == b'\n' => return Some(Step::Damage(at + 1)),
            b'\\' => self.at += 2,
            _ if self.lines => return Some(Step::Damage(at)),
            _ => self.at += 1,
        }
        None
    }

    /// Called at the first byte of a top-level member's value; true if the caller takes over a list.
    fn value_starts(&mut self, bytes: &[u8]) -> bool {
        self.value_next = false;
        let (start, end) = self.key;
        let first = bytes[self.at];
        match bytes.get(start..end).unwrap_or_default() {
            b"items" | b"records" if first == b'[' && self.lists => {
                self.at += 1;
                self.last = b']';
                return true;
            }
            b"items" => self.empty_list = first == b'n',
            b"requestObject" | b"responseObject" => self.open_body = Some(self.at),
            b"annotations" if first == b'{' => self.annotations = Some(self.at + 1),
            _ => {}
        }
        false
    }

    fn close_body(&mut self, at: usize) {
        if let Some(start) = self.open_body.take() {
            self.bodies.push((start, at));
        }
    }

    /// Whether the value can go on behind the newline just read.
    fn line_continues(&self, bytes: &[u8]) -> bool {
        bytes.get(self.at) != Some(&b'{')
            || (matches!(self.last, b',' | b':' | b'[')
                && !starts_like_event(&bytes[self.at..])
                && !bytes[self.at..].starts_with(b"{\"kind\":\"EventL"))
    }
}

/// Longest of the beginnings below.
const LONGEST_START: usize = 16;

/// How a line of an audit log begins.
pub(super) const EVENT_STARTS: [&[u8]; 3] = [b"{\"kind\":\"Event\"", b"{\"level\":\"", b"{\"auditID\":\""];

pub(super) fn starts_like_event(line: &[u8]) -> bool {
    EVENT_STARTS.iter().any(|p| line.starts_with(p))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn scan(text: &str) -> Step {
        Scanner::new(true, true).scan(text.as_bytes())
    }

    #[test]
    fn ends() {
        assert_eq!(scan(r#"{"a":"}\"]","b":[{}]} {"#), Step::End(21));
        assert_eq!(scan(r#""a\\"x"#), Step::End(5));
        assert_eq!(scan("[[[]]"), Step::More);
        assert_eq!(scan(r#"{"kind":"x","items" : [{}]}"#), Step::List(23));
        assert_eq!(scan(r#"{"x":{"items":[1]}}"#), Step::End(19), "only a top-level list");
        assert_eq!(scan("{\"a\":\n{\"b\":1}                 }"), Step::End(31));
        assert_eq!(scan("{\"a\":1\n{\"b\":1}               "), Step::Damage(6));
        assert_eq!(scan("{\"a\":\n{\"level\":\"Metadata\"}"), Step::Damage(5));
        assert_eq!(scan("{\"a\":\"x\n"), Step::Damage(7));
    }

    #[test]
    fn members() {
        let text = r#"{"requestObject": [1,2] ,"annotations":{"a":"b"},"responseObject":{},"items":null}"#;
        let mut s = Scanner::new(false, true);
        assert_eq!(s.scan(text.as_bytes()), Step::End(text.len()));
        let bodies: Vec<&str> = s.bodies.iter().map(|(a, b)| text[*a..*b].trim()).collect();
        assert_eq!(bodies, ["[1,2]", "{}"]);
        assert_eq!(s.annotations.map(|a| &text[a..a + 3]), Some("\"a\""));
        assert!(s.empty_list);
    }

    proptest! {
        #[test]
        fn pieces_make_no_difference(cuts in prop::collection::vec(0usize..90, 0..6)) {
            let text = "{\"k\\\"y\":\"v\\\\\",\n\"a\":[1,{\"x\":\"]\"}],\"requestObject\":{\"b\":\"}\"},\n \"z\":1e5}        tail";
            let mut cuts: Vec<usize> = cuts.into_iter().map(|c| c.min(text.len())).chain([text.len()]).collect();
            cuts.sort_unstable();
            let mut whole = Scanner::new(true, true);
            let expected = whole.scan(text.as_bytes());
            let mut s = Scanner::new(true, true);
            let step = cuts.iter().map(|c| s.scan(&text.as_bytes()[..*c])).find(|s| *s != Step::More);
            prop_assert_eq!(step, Some(expected));
            prop_assert_eq!(s.bodies, whole.bodies);
        }
    }
}
