//! Sigma text values: wildcards and their escapes, encodings, dash variants.
//!
//! `*` is any text, `?` any one character. A backslash before `*`, `?` or a backslash takes away
//! its meaning, anywhere else it is a backslash.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// A part of a pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    Text(String),
    /// `*`
    Any,
    /// `?`
    One,
    /// A dash or slash before a flag, in any of its spellings (`windash`).
    Dash,
}

/// A parsed text value.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pattern {
    pieces: Vec<Piece>,
}

/// A pattern by its cheapest way to match.
#[derive(Debug, PartialEq, Eq)]
pub enum Shape<'p> {
    Everything,
    Exact(&'p str),
    Prefix(&'p str),
    Suffix(&'p str),
    Contains(&'p str),
    /// Needs a regular expression.
    Mixed,
}

impl Pattern {
    pub fn parse(text: &str) -> Self {
        let mut pattern = Self::default();
        let mut chars = text.chars().peekable();
        while let Some(c) = chars.next() {
            match (c, chars.peek()) {
                ('\\', Some(&next @ ('*' | '?' | '\\'))) => {
                    chars.next();
                    pattern.push_char(next);
                }
                ('*', _) => pattern.push(Piece::Any),
                ('?', _) => pattern.push(Piece::One),
                _ => pattern.push_char(c),
            }
        }
        pattern
    }

    /// A pattern that means exactly `text`.
    pub fn literal(text: &str) -> Self {
        let pieces = if text.is_empty() { vec![] } else { vec![Piece::Text(text.to_owned())] };
        Self { pieces }
    }

    fn push(&mut self, piece: Piece) {
        if !(piece == Piece::Any && self.pieces.last() == Some(&Piece::Any)) {
            self.pieces.push(piece);
        }
    }

    fn push_char(&mut self, c: char) {
        match self.pieces.last_mut() {
            Some(Piece::Text(text)) => text.push(c),
            _ => self.pieces.push(Piece::Text(c.into())),
        }
    }

    /// The text, when there is no wildcard in it.
    pub fn as_literal(&self) -> Option<&str> {
        match self.pieces.as_slice() {
            [] => Some(""),
            [Piece::Text(text)] => Some(text),
            _ => None,
        }
    }

    /// Anything may come before.
    pub fn open_start(mut self) -> Self {
        if self.pieces.first() != Some(&Piece::Any) {
            self.pieces.insert(0, Piece::Any);
        }
        self
    }

    /// Anything may follow.
    pub fn open_end(mut self) -> Self {
        self.push(Piece::Any);
        self
    }

    /// Every dash or slash that starts a flag becomes any of its spellings: one that has no word
    /// character before and one after it.
    pub fn any_dash(self) -> Self {
        let mut out = Self::default();
        for piece in self.pieces {
            let Piece::Text(text) = piece else {
                out.push(piece);
                continue;
            };
            let mut before: Option<char> = None;
            let mut chars = text.chars().peekable();
            while let Some(c) = chars.next() {
                let starts = !before.is_some_and(is_word) && chars.peek().is_some_and(|n| is_word(*n));
                match c {
                    '-' | '/' | '\u{2013}' | '\u{2014}' | '\u{2015}' if starts => out.push(Piece::Dash),
                    _ => out.push_char(c),
                }
                before = Some(c);
            }
        }
        out
    }

    /// The pattern as it can stand in raw JSON: as it is, with JSON's escapes, and with `<`, `>` and
    /// `&` escaped too, as Go writes them.
    pub fn in_json(self) -> Vec<Self> {
        let plain = self.map_text(|t| {
            let json = serde_json::Value::from(t).to_string();
            json[1..json.len() - 1].to_owned()
        });
        let go = plain.map_text(|t| t.replace('<', "\\u003c").replace('>', "\\u003e").replace('&', "\\u0026"));
        let mut all = vec![self, plain, go];
        all.dedup();
        all
    }

    fn map_text(&self, f: impl Fn(&str) -> String) -> Self {
        let map = |piece: &Piece| match piece {
            Piece::Text(t) => Piece::Text(f(t)),
            other => other.clone(),
        };
        Self { pieces: self.pieces.iter().map(map).collect() }
    }

    pub fn shape(&self) -> Shape<'_> {
        use Piece::{Any, Text};
        match self.pieces.as_slice() {
            [] => Shape::Exact(""),
            [Any] => Shape::Everything,
            [Text(t)] => Shape::Exact(t),
            [Text(t), Any] => Shape::Prefix(t),
            [Any, Text(t)] => Shape::Suffix(t),
            [Any, Text(t), Any] => Shape::Contains(t),
            _ => Shape::Mixed,
        }
    }

    /// The pattern as a regular expression without flags. Open ends are left unanchored.
    pub fn to_regex(&self) -> String {
        let mut out = String::new();
        let (first, last) = (self.pieces.first(), self.pieces.last());
        if first != Some(&Piece::Any) {
            out.push_str("\\A");
        }
        for (i, piece) in self.pieces.iter().enumerate() {
            match piece {
                Piece::Text(t) => out.push_str(&regex::escape(t)),
                Piece::Any if i == 0 || i + 1 == self.pieces.len() => {}
                Piece::Any => out.push_str(".*"),
                Piece::One => out.push('.'),
                Piece::Dash => out.push_str("[-/\u{2013}\u{2014}\u{2015}]"),
            }
        }
        if last != Some(&Piece::Any) {
            out.push_str("\\z");
        }
        out
    }
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// UTF-16 in one of Sigma's forms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Utf16 {
    Little,
    Big,
    /// Little endian with a byte order mark.
    Marked,
}

impl Utf16 {
    pub fn encode(self, text: &str) -> Vec<u8> {
        let units = text.encode_utf16();
        match self {
            Self::Little => units.flat_map(u16::to_le_bytes).collect(),
            Self::Big => units.flat_map(u16::to_be_bytes).collect(),
            Self::Marked => [0xFF, 0xFE].into_iter().chain(units.flat_map(u16::to_le_bytes)).collect(),
        }
    }
}

pub fn base64(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

/// The parts of a Base64 text that do not depend on what stands around `bytes`: one for each of
/// the three positions the first byte can have.
pub fn base64_offsets(bytes: &[u8]) -> [String; 3] {
    std::array::from_fn(|shift| {
        let mut padded = vec![b' '; shift];
        padded.extend_from_slice(bytes);
        let encoded = STANDARD.encode(&padded);
        // A character holds six bits: skip those that mix in the padding, drop those that mix in
        // what follows.
        let start = (shift * 8).div_ceil(6);
        let end = padded.len() * 8 / 6;
        encoded[start..end.max(start)].to_owned()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backslashes_escape_wildcards_and_themselves() {
        for (text, regex) in [
            (r"a*b?c", r"\Aa.*b.c\z"),
            (r"a\*b", r"\Aa\*b\z"),
            (r"a\\*b", r"\Aa\\.*b\z"),
            (r"a\\\*b", r"\Aa\\\*b\z"),
            (r"C:\x", r"\AC:\\x\z"),
            (r"C:\\x", r"\AC:\\x\z"),
            (r"\\\x", r"\A\\\\x\z"),
            (r"end\", r"\Aend\\\z"),
        ] {
            assert_eq!(Pattern::parse(text).to_regex(), regex, "{text}");
        }
    }

    #[test]
    fn the_cheapest_shape_is_found() {
        for (text, shape) in [
            ("", Shape::Exact("")),
            ("a", Shape::Exact("a")),
            ("a*", Shape::Prefix("a")),
            ("*a", Shape::Suffix("a")),
            ("**a**", Shape::Contains("a")),
            ("***", Shape::Everything),
            ("a*b", Shape::Mixed),
            ("?", Shape::Mixed),
        ] {
            assert_eq!(Pattern::parse(text).shape(), shape, "{text}");
        }
        assert_eq!(Pattern::parse("*a").open_start().open_end().shape(), Shape::Contains("a"));
        assert_eq!(Pattern::parse("").open_start().open_end().shape(), Shape::Everything);
    }

    #[test]
    fn offsets_are_found_wherever_the_text_stands() {
        for text in ["foobar", "/bin/sh", "x", "ab"] {
            let offsets = base64_offsets(text.as_bytes());
            for before in 0..6 {
                for after in 0..4 {
                    let whole = format!("{}{text}{}", "z".repeat(before), "y".repeat(after));
                    let encoded = base64(whole.as_bytes());
                    assert!(offsets.iter().any(|o| encoded.contains(o)), "{whole}");
                    assert!(encoded.contains(&offsets[before % 3]), "{whole} {before}");
                }
            }
        }
        assert_eq!(base64_offsets(b"foobar"), ["Zm9vYmFy", "Zvb2Jhc", "mb29iYX"]);
    }

    #[test]
    fn wide_text() {
        assert_eq!(Utf16::Little.encode("cm"), [0x63, 0, 0x6d, 0]);
        assert_eq!(Utf16::Big.encode("cm"), [0, 0x63, 0, 0x6d]);
        assert_eq!(Utf16::Marked.encode("c"), [0xff, 0xfe, 0x63, 0]);
    }

    #[test]
    fn a_keyword_is_found_in_raw_json_too() {
        let spellings = |t: &str| Pattern::parse(t).in_json().iter().map(Pattern::to_regex).collect::<Vec<_>>();
        assert_eq!(spellings("plain"), [r"\Aplain\z"]);
        assert_eq!(spellings("a\"b"), ["\\Aa\"b\\z", "\\Aa\\\\\"b\\z"]);
        assert_eq!(spellings("a>&1"), [r"\Aa>\&1\z", r"\Aa\\u003e\\u00261\z"]);
    }

    #[test]
    fn only_dashes_that_start_a_flag_vary() {
        let regex = Pattern::parse("cmd -c a-b /x").any_dash().to_regex();
        let dash = "[-/\u{2013}\u{2014}\u{2015}]";
        assert_eq!(regex, format!(r"\Acmd {dash}c a\-b {dash}x\z"));
    }
}
