//! The cheap question asked of every event: could there be anything to redact at all?
//!
//! A trigger is necessary, not sufficient: every pattern of the other files contains one of these
//! literals. Two cases are listed because the vectorised search knows no case folding.

use std::sync::LazyLock;

use aho_corasick::{AhoCorasick, Span, packed};
use memchr::{memchr, memmem};

/// None shorter than four bytes, or the vectorised search stumbles over every other word: three letters cost six times
/// as much. At most 64 in a list, or it gives up; two lists of about forty cost no more than one of sixty.
const LOWER: [&str; 34] = [
    // names of credentials
    "oken",
    "pass",
    "ecret",
    "pwd=",
    "pwd\"",
    "pwd:",
    "pwd\\",
    "pikey",
    "iKey",
    "sKey",
    "tKey",
    "eKey",
    "nKey",
    "gKey",
    "key\"",
    "key=",
    "key\\",
    "dentials",
    "dential=",
    "uth\"",
    "uth\\",
    "uth=",
    // shapes of credentials
    "eyJh",
    "earer ",
    "asic ",
    "ghp_",
    "gho_",
    "ghs_",
    "ghu_",
    "ghr_",
    "ithub_pat_",
    "glpat-",
    "k_live_",
    "hvs.",
];
const OTHER: [&str; 44] = [
    "uthorization:",
    "uthorization\"",
    "uthorization=",
    "uthorization\\",
    "xoxa",
    "xoxb",
    "xoxp",
    "xoxr",
    "xoxs",
    "slack.com",
    "OKEN",
    "Pass",
    "PASS",
    "ECRET",
    "_PWD",
    "PWD\"",
    "_key",
    "-key",
    "-Key",
    "_KEY",
    "IKEY",
    "PRIVATE",
    "CREDENTIAL",
    "AUTH",
    // of JSON web tokens the second part; headers begin with `alg`
    ".eyJ",
    "EARER ",
    "AKIA",
    "ASIA",
    "AIza",
    "LS0tLS1CRUdJTi",
    // places where they live
    "curl",
    "ngData",
    "Object\":\"",
    "mand=",
    "\"data\":",
    "\"data\" ",
    "\\\"data\\",
    "\"/data",
    // passwords behind a flag of one letter
    ",\"-p",
    "\\\"-p",
    ",\"-a",
    "\\\"-a",
    // the same in escapes no API server writes, but some shippers do
    "\\u006",
    "\\u007",
];

enum Search {
    Vectorised(packed::Searcher),
    Plain(AhoCorasick),
}

impl Search {
    fn new(triggers: &[&str]) -> Self {
        match packed::Searcher::new(triggers) {
            Some(searcher) => Self::Vectorised(searcher),
            None => Self::Plain(AhoCorasick::new(triggers).expect("the triggers are a fixed, small set")),
        }
    }

    fn find_word(&self, text: &str, from: usize) -> Option<usize> {
        let span = Span { start: from, end: text.len() };
        match self {
            Self::Vectorised(s) => s.find_in(text, span).map(|m| m.start()),
            Self::Plain(s) => s.find(aho_corasick::Input::new(text).span(span)).map(|m| m.start()),
        }
    }

    fn find(&self, text: &str, from: usize) -> Option<usize> {
        let mut from = from;
        loop {
            let at = self.find_word(text, from)?;
            if !is_harmless(text.as_bytes(), at) {
                return Some(at);
            }
            from = at + 4;
        }
    }
}

static SEARCHES: LazyLock<[Search; 2]> = LazyLock::new(|| [Search::new(&LOWER), Search::new(&OTHER)]);

/// What stands around a trigger in the names Kubernetes itself uses in most events: resources, keys and paths that hold
/// no credential, whatever their value.
const HARMLESS: [(&str, &str, &str); 14] = [
    ("ource\":\"s", "ecret", "s\""),
    ("/s", "ecret", "s\""),
    ("/s", "ecret", "s/"),
    ("/s", "ecret", "s?"),
    ("[\"s", "ecret", "s\""),
    ("PullS", "ecret", "s\":["),
    ("\"s", "ecret", "\":{"),
    ("\"s", "ecret", "Name\":"),
    ("ource\":\"t", "oken", "\""),
    ("/t", "oken", "\""),
    ("/t", "oken", "?"),
    ("path\":\"t", "oken", "\""),
    ("AccountT", "oken", "\":"),
    ("\"", "key\"", ":"),
];

fn is_harmless(text: &[u8], at: usize) -> bool {
    HARMLESS.iter().any(|(before, word, after)| {
        text[at..].starts_with(word.as_bytes())
            && text[at + word.len()..].starts_with(after.as_bytes())
            && text[..at].ends_with(before.as_bytes())
    })
}

/// A password in a URL needs an `@`, which few events have.
fn find_url(text: &str, from: usize) -> Option<usize> {
    memmem::find(&text.as_bytes()[from..], b"://").map(|at| from + at)
}

fn has_at_sign(text: &str) -> bool {
    memchr(b'@', text.as_bytes()).is_some()
}

/// Whether a URI carries the signature of a pre-signed request. Asked of the request URI alone, where it stands.
pub(super) fn has_signature(uri: &str) -> bool {
    memmem::find(uri.as_bytes(), b"sig=").is_some() || memmem::find(uri.as_bytes(), b"ignature=").is_some()
}

/// The request URI of an event, as it is written.
fn request_uri(text: &str) -> Option<&str> {
    const KEY: &str = "\"requestURI\":\"";
    let start = memmem::find(text.as_bytes(), KEY.as_bytes())? + KEY.len();
    let end = memchr(b'"', &text.as_bytes()[start..])?;
    Some(&text[start..start + end])
}

/// Whether `text` holds a trigger.
pub(super) fn any(text: &str) -> bool {
    SEARCHES.iter().any(|search| search.find(text, 0).is_some())
        || request_uri(text).is_some_and(has_signature)
        || (has_at_sign(text) && find_url(text, 0).is_some())
}

/// The next trigger at or behind a position that only grows; a cursor for one pass over a document.
pub(super) struct Hits<'a> {
    text: &'a str,
    words: [Option<usize>; 2],
    url: Option<usize>,
}

impl<'a> Hits<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        let words = SEARCHES.each_ref().map(|search| search.find(text, 0));
        Self { text, words, url: if has_at_sign(text) { find_url(text, 0) } else { None } }
    }

    /// Whether a trigger starts within `start..end`; ranges must come in ascending order.
    pub(super) fn within(&mut self, start: usize, end: usize) -> bool {
        for (search, word) in SEARCHES.iter().zip(&mut self.words) {
            while word.is_some_and(|at| at < start) {
                *word = search.find(self.text, start);
            }
        }
        while self.url.is_some_and(|at| at < start) {
            self.url = find_url(self.text, start);
        }
        self.words.iter().chain([&self.url]).flatten().any(|at| *at < end)
    }
}
