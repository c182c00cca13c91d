//! Values compiled into something that compares fast with a scalar of an event.
//!
//! Nothing here allocates while matching, except for the text of a float. Text that is all ASCII in
//! the rule is compared ASCII-case-insensitively: Kubernetes names are ASCII, and a look-alike
//! letter is another name. Rule text beyond ASCII is compared with Unicode case folding.

use std::cmp::Ordering;
use std::fmt::Write as _;
use std::net::IpAddr;

use aho_corasick::AhoCorasick;
use chrono::{DateTime, Datelike, Timelike};
use ipnet::IpNet;
use memchr::memmem;
use regex::{Regex, RegexBuilder};

use super::modifier::{Relation, TimePart};
use super::pattern::{Pattern, Shape};
use super::problem::Fault;
use super::view::Scalar;

/// A longer regular expression is refused.
pub const MAX_REGEX: usize = 4 << 10;
/// A compiled regular expression larger than this is refused, bytes.
const MAX_REGEX_SIZE: usize = 1 << 20;

/// Values of one item, joined by OR.
#[derive(Debug, Default)]
pub struct Matcher {
    /// `null` is one of the values: an absent field matches.
    pub null: bool,
    pub texts: Option<Texts>,
    pub networks: Vec<IpNet>,
    pub relation: Option<(Relation, f64)>,
    /// Numbers a part of the time is compared with; with a relation, its left side.
    pub part: Option<(TimePart, Vec<i64>)>,
}

impl Matcher {
    pub fn matches(&self, scalar: Scalar<'_>) -> bool {
        if scalar == Scalar::Null {
            return self.null;
        }
        if let Some((part, wanted)) = &self.part {
            let Some(actual) = part.of(scalar) else { return false };
            return match self.relation {
                #[expect(clippy::cast_precision_loss, reason = "parts of a time are small")]
                Some((relation, wanted)) => relation.holds(actual as f64, wanted),
                None => wanted.contains(&actual),
            };
        }
        if let Some((relation, wanted)) = self.relation {
            return number(scalar).is_some_and(|actual| relation.holds(actual, wanted));
        }
        if !self.networks.is_empty() {
            let Scalar::Str(text) = scalar else { return false };
            return address(text).is_some_and(|ip| self.networks.iter().any(|n| n.contains(&ip)));
        }
        self.texts.as_ref().is_some_and(|texts| with_text(scalar, |text| texts.matches(text)))
    }

    /// The texts this can match at all, lower case, when only whole texts are named.
    pub fn exact_texts(&self) -> Option<&[Box<str>]> {
        let plain = !self.null && self.networks.is_empty() && self.relation.is_none() && self.part.is_none();
        self.texts.as_ref().filter(|t| plain && t.only_exact()).map(|t| t.exact.as_slice())
    }
}

/// Texts and patterns joined by OR.
#[derive(Debug)]
pub struct Texts {
    cased: bool,
    everything: bool,
    /// Sorted by `compare`.
    exact: Vec<Box<str>>,
    prefixes: Vec<Box<str>>,
    suffixes: Vec<Box<str>>,
    contains: Option<Finder>,
    regexes: Vec<Regex>,
}

#[derive(Debug)]
enum Finder {
    One(Box<memmem::Finder<'static>>),
    Many(Box<AhoCorasick>),
}

impl Texts {
    pub fn compile(patterns: &[Pattern], cased: bool) -> Result<Self, Fault> {
        let mut texts = Self::none(cased);
        let mut contains: Vec<&str> = Vec::new();
        for pattern in patterns {
            let shape = pattern.shape();
            match shape {
                Shape::Everything => texts.everything = true,
                Shape::Exact(t) if texts.simple(t) => texts.exact.push(t.into()),
                Shape::Prefix(t) if texts.simple(t) => texts.prefixes.push(t.into()),
                Shape::Suffix(t) if texts.simple(t) => texts.suffixes.push(t.into()),
                Shape::Contains(t) if texts.simple(t) => contains.push(t),
                _ => {
                    let flags = RegexFlags { ignore_case: !cased, multi_line: false, dot_all: true };
                    texts.regexes.push(build_regex(&pattern.to_regex(), flags)?);
                }
            }
        }
        if !cased {
            texts.exact.iter_mut().for_each(|t| t.make_ascii_lowercase());
        }
        texts.exact.sort_by(|a, b| compare(a, b, cased));
        texts.exact.dedup();
        texts.contains = Finder::new(&contains, cased)?;
        Ok(texts)
    }

    /// Regular expressions as a person wrote them.
    pub fn regexes(patterns: &[String], flags: RegexFlags) -> Result<Self, Fault> {
        let mut texts = Self::none(true);
        for pattern in patterns {
            texts.regexes.push(written_regex(pattern, flags)?);
        }
        Ok(texts)
    }

    const fn none(cased: bool) -> Self {
        Self {
            cased,
            everything: false,
            exact: Vec::new(),
            prefixes: Vec::new(),
            suffixes: Vec::new(),
            contains: None,
            regexes: Vec::new(),
        }
    }

    fn simple(&self, text: &str) -> bool {
        self.cased || text.is_ascii()
    }

    fn only_exact(&self) -> bool {
        let others = self.everything || self.contains.is_some();
        !others && self.prefixes.is_empty() && self.suffixes.is_empty() && self.regexes.is_empty()
    }

    pub fn matches(&self, text: &str) -> bool {
        self.everything
            || self.exact.binary_search_by(|t| compare(t, text, self.cased)).is_ok()
            || self.prefixes.iter().any(|p| starts_with(text, p, self.cased))
            || self.suffixes.iter().any(|s| ends_with(text, s, self.cased))
            || self.contains.as_ref().is_some_and(|f| f.find(text))
            || self.regexes.iter().any(|r| r.is_match(text))
    }

    /// What a look at one text costs, roughly.
    pub fn cost(&self) -> u16 {
        let heavy = if self.regexes.is_empty() { 0 } else { 8 };
        let medium = if self.contains.is_some() { 2 } else { 0 };
        1 + heavy + medium
    }
}

impl Finder {
    fn new(needles: &[&str], cased: bool) -> Result<Option<Self>, Fault> {
        Ok(match needles {
            [] => None,
            [one] if cased => Some(Self::One(Box::new(memmem::Finder::new(one.as_bytes()).into_owned()))),
            many => {
                let built = AhoCorasick::builder().ascii_case_insensitive(!cased).build(many);
                Some(Self::Many(Box::new(built.map_err(|e| Fault::SearchBroken(e.to_string()))?)))
            }
        })
    }

    fn find(&self, text: &str) -> bool {
        match self {
            Self::One(finder) => finder.find(text.as_bytes()).is_some(),
            Self::Many(finder) => finder.is_match(text),
        }
    }
}

/// Flags of a regular expression.
#[derive(Clone, Copy, Debug, Default)]
pub struct RegexFlags {
    pub ignore_case: bool,
    pub multi_line: bool,
    pub dot_all: bool,
}

fn written_regex(pattern: &str, flags: RegexFlags) -> Result<Regex, Fault> {
    if pattern.len() > MAX_REGEX {
        let shown = pattern.chars().take(40).collect::<String>() + "…";
        return Err(Fault::RegexTooLong { pattern: shown, limit: MAX_REGEX });
    }
    build_regex(pattern, flags).map_err(|fault| match unsupported(pattern) {
        Some(what) => Fault::RegexUnsupported { pattern: pattern.to_owned(), what },
        None => fault,
    })
}

fn build_regex(pattern: &str, flags: RegexFlags) -> Result<Regex, Fault> {
    RegexBuilder::new(pattern)
        .case_insensitive(flags.ignore_case)
        .multi_line(flags.multi_line)
        .dot_matches_new_line(flags.dot_all)
        .size_limit(MAX_REGEX_SIZE)
        .dfa_size_limit(MAX_REGEX_SIZE)
        .nest_limit(100)
        .build()
        .map_err(|e| Fault::RegexBroken { pattern: pattern.to_owned(), reason: last_line(&e) })
}

/// The crate's syntax errors draw the pattern over several lines; the reason is on the last.
fn last_line(e: &regex::Error) -> String {
    let text = e.to_string();
    text.lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned()
}

/// What a pattern that did not compile asks for that linear-time matching cannot give.
fn unsupported(pattern: &str) -> Option<&'static str> {
    let any = |marks: &[&str]| marks.iter().any(|m| pattern.contains(m));
    if any(&["(?=", "(?!"]) {
        Some("look-ahead")
    } else if any(&["(?<=", "(?<!"]) {
        Some("look-behind")
    } else if any(&["(?>", "*+", "++", "?+"]) {
        Some("atomic groups or possessive quantifiers")
    } else if (1..=9).any(|n| pattern.contains(&format!("\\{n}"))) {
        Some("back-references")
    } else {
        None
    }
}

/// Orders a pattern (lower case unless `cased`) against a text.
fn compare(pattern: &str, text: &str, cased: bool) -> Ordering {
    if cased {
        return pattern.cmp(text);
    }
    pattern.bytes().cmp(text.bytes().map(|b| b.to_ascii_lowercase()))
}

pub fn equal(a: &str, b: &str, cased: bool) -> bool {
    if cased { a == b } else { a.eq_ignore_ascii_case(b) || (!a.is_ascii() && a.to_lowercase() == b.to_lowercase()) }
}

pub fn starts_with(text: &str, prefix: &str, cased: bool) -> bool {
    text.as_bytes().get(..prefix.len()).is_some_and(|head| same(head, prefix.as_bytes(), cased))
}

pub fn ends_with(text: &str, suffix: &str, cased: bool) -> bool {
    let start = text.len().checked_sub(suffix.len());
    start.is_some_and(|s| same(&text.as_bytes()[s..], suffix.as_bytes(), cased))
}

/// For field references, where neither side is known at load.
pub fn contains(text: &str, part: &str, cased: bool) -> bool {
    if cased {
        return memmem::find(text.as_bytes(), part.as_bytes()).is_some();
    }
    memmem::find(text.to_ascii_lowercase().as_bytes(), part.to_ascii_lowercase().as_bytes()).is_some()
}

fn same(a: &[u8], b: &[u8], cased: bool) -> bool {
    if cased { a == b } else { a.eq_ignore_ascii_case(b) }
}

fn address(text: &str) -> Option<IpAddr> {
    text.parse::<IpAddr>().ok().map(|ip| ip.to_canonical())
}

/// A number, also one written as text.
pub fn number(scalar: Scalar<'_>) -> Option<f64> {
    match scalar {
        #[expect(clippy::cast_precision_loss, reason = "a comparison beyond 2^53 may be off by one")]
        Scalar::Int(n) => Some(n as f64),
        Scalar::Float(n) => Some(n),
        Scalar::Str(s) => s.parse().ok().filter(|n: &f64| n.is_finite()),
        Scalar::Bool(_) | Scalar::Null => None,
    }
}

/// Runs `f` on the scalar as text.
pub fn with_text<T>(scalar: Scalar<'_>, f: impl FnOnce(&str) -> T) -> T {
    match scalar {
        Scalar::Str(s) => f(s),
        Scalar::Bool(b) => f(if b { "true" } else { "false" }),
        Scalar::Null => f(""),
        Scalar::Float(n) => f(&n.to_string()),
        Scalar::Int(n) => {
            let mut small = SmallText { bytes: [0; 24], len: 0 };
            // An i64 has at most 20 characters.
            let _ = write!(small, "{n}");
            f(std::str::from_utf8(&small.bytes[..small.len]).unwrap_or_default())
        }
    }
}

struct SmallText {
    bytes: [u8; 24],
    len: usize,
}

impl std::fmt::Write for SmallText {
    fn write_str(&mut self, s: &str) -> std::fmt::Result {
        let end = self.len + s.len();
        self.bytes.get_mut(self.len..end).ok_or(std::fmt::Error)?.copy_from_slice(s.as_bytes());
        self.len = end;
        Ok(())
    }
}

impl TimePart {
    /// The part as the timestamp has it written; no time zone is applied.
    fn of(self, scalar: Scalar<'_>) -> Option<i64> {
        let Scalar::Str(text) = scalar else { return None };
        let time = DateTime::parse_from_rfc3339(text).ok()?.naive_local();
        Some(match self {
            Self::Minute => time.minute().into(),
            Self::Hour => time.hour().into(),
            Self::Day => time.day().into(),
            Self::Week => time.iso_week().week().into(),
            Self::Month => time.month().into(),
            Self::Year => time.year().into(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(patterns: &[&str], cased: bool) -> Texts {
        let patterns: Vec<_> = patterns.iter().map(|p| Pattern::parse(p)).collect();
        Texts::compile(&patterns, cased).unwrap()
    }

    #[test]
    fn shapes_match_with_and_without_case() {
        // pattern, text, matches without case, matches with case
        for (pattern, text, insensitive, sensitive) in [
            ("exec", "exec", true, true),
            ("exec", "EXEC", true, false),
            ("exec", "execs", false, false),
            ("sys*", "System:admin", true, false),
            ("sys*", "sy", false, false),
            ("*:admin", "system:ADMIN", true, false),
            ("*tem:*", "sysTEM:x", true, false),
            ("*tem:*", "system:x", true, true),
            ("s*m:?dmin", "system:admin", true, true),
            ("s*m:?dmin", "system:dmin", false, false),
            ("a*b", "a\nb", true, true),
            ("*", "", true, true),
            ("", "", true, true),
            ("", "x", false, false),
            ("straße", "STRAßE", true, false),
            ("*straße*", "in der STRAßE", true, false),
            ("k", "\u{212a}", false, false),
        ] {
            assert_eq!(texts(&[pattern], false).matches(text), insensitive, "{pattern} {text}");
            assert_eq!(texts(&[pattern], true).matches(text), sensitive, "cased {pattern} {text}");
        }
    }

    #[test]
    fn many_values_are_searched_together() {
        let t = texts(&["zeta", "Alpha", "beta", "*mid*", "*dle*", "pre*", "*post"], false);
        for yes in ["ZETA", "alpha", "beta", "amidst", "handles", "prefix", "compost"] {
            assert!(t.matches(yes), "{yes}");
        }
        for no in ["zet", "zetas", "", "alphabet", "postx"] {
            assert!(!t.matches(no), "{no}");
        }
    }

    #[test]
    fn scalars_compare_by_their_text() {
        let m = Matcher { texts: Some(texts(&["401", "true", "1.5"], false)), ..Matcher::default() };
        for yes in [Scalar::Int(401), Scalar::Str("401"), Scalar::Float(401.0), Scalar::Bool(true), Scalar::Float(1.5)]
        {
            assert!(m.matches(yes), "{yes:?}");
        }
        for no in [Scalar::Int(40), Scalar::Bool(false), Scalar::Null, Scalar::Str("")] {
            assert!(!m.matches(no), "{no:?}");
        }
        assert!(!Matcher { texts: Some(texts(&["*"], false)), ..Matcher::default() }.matches(Scalar::Null));
        assert_eq!(with_text(Scalar::Int(i64::MIN), str::len), 20);
    }

    #[test]
    fn networks_and_numbers() {
        let nets = ["10.0.0.0/8", "fd00::/8"].map(|n| n.parse().unwrap()).to_vec();
        let m = Matcher { networks: nets, ..Matcher::default() };
        for (text, want) in
            [("10.1.2.3", true), ("::ffff:10.1.2.3", true), ("fd00::1", true), ("11.0.0.1", false), ("x", false)]
        {
            assert_eq!(m.matches(Scalar::Str(text)), want, "{text}");
        }
        let m = Matcher { relation: Some((Relation::GreaterOrEqual, 400.0)), ..Matcher::default() };
        for (s, want) in [
            (Scalar::Int(400), true),
            (Scalar::Str("401.5"), true),
            (Scalar::Int(399), false),
            (Scalar::Str("x"), false),
            (Scalar::Str("inf"), false),
        ] {
            assert_eq!(m.matches(s), want, "{s:?}");
        }
    }

    #[test]
    fn parts_of_a_time() {
        let at = Scalar::Str("2024-12-30T23:05:07.123456+02:00");
        for (part, want) in [
            (TimePart::Minute, 5),
            (TimePart::Hour, 23),
            (TimePart::Day, 30),
            (TimePart::Week, 1),
            (TimePart::Month, 12),
            (TimePart::Year, 2024),
        ] {
            assert!(Matcher { part: Some((part, vec![want])), ..Matcher::default() }.matches(at), "{part:?}");
        }
        let evening = Matcher {
            part: Some((TimePart::Hour, vec![])),
            relation: Some((Relation::Greater, 22.0)),
            ..Matcher::default()
        };
        assert!(evening.matches(at));
        assert!(!evening.matches(Scalar::Str("2024-12-30T22:05:07Z")));
        assert!(!evening.matches(Scalar::Str("late")));
    }

    #[test]
    fn regexes_are_bounded_and_explained() {
        let build = |p: &str| Texts::regexes(&[p.to_owned()], RegexFlags::default());
        assert!(build("^/bin/(ba)?sh$").unwrap().matches("/bin/bash"));
        assert!(!build("^a").unwrap().matches("Ab"), "case matters in a regex");
        for (pattern, want) in [
            ("a(?=b)", "look-ahead"),
            ("(?<!a)b", "look-behind"),
            (r"(a)\1", "back-references"),
            ("(", "unclosed group"),
            ("(a{1000}){1000}", "exceeds size limit"),
            (&"x".repeat(5_000), "longer than 4096 bytes"),
        ] {
            let message = build(pattern).unwrap_err().to_string();
            assert!(message.contains(want), "{message}");
        }
    }
}
