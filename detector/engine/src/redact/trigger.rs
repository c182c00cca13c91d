//! The cheap question asked of every event: could there be anything to redact at all?
//!
//! A trigger is necessary, not sufficient: every pattern of the other files contains one of these
//! literals. Two cases are listed because the vectorised search knows no case folding.

use std::sync::LazyLock;

use aho_corasick::{AhoCorasick, Span, packed};

/// At most 64: more and the vectorised search gives up.
const TRIGGERS: [&str; 64] = [
    // names of credentials
    "oken",
    "OKEN",
    "assw",
    "PASS",
    "assphrase",
    "pass=",
    "pass:",
    "pass\"",
    "pwd",
    "PWD",
    "ecret",
    "ECRET",
    "pikey",
    "piKey",
    "pi_key",
    "pi-key",
    "PI_KEY",
    "ccessKey",
    "ccess_key",
    "ccess-key",
    "CCESS_KEY",
    "ccountKey",
    "rivate",
    "PRIVATE",
    "redentials",
    "CREDENTIAL",
    "ncryption_key",
    "\"auth\"",
    "\\\"auth\\",
    "_AUTH",
    // shapes of credentials
    "eyJ",
    "earer ",
    "EARER ",
    "asic ",
    "uthorization:",
    "uthorization\"",
    "uthorization=",
    "uthorization\\",
    "AKIA",
    "ASIA",
    "ghp_",
    "gho_",
    "ghs_",
    "ghu_",
    "ghr_",
    "glpat-",
    "xox",
    "AIza",
    "k_live_",
    "hvs.",
    "LS0tLS1CRUdJTi",
    "://",
    // places where they live
    "command=",
    "\"command\"",
    "\"args\"",
    "\"data",
    "ignature=",
    "sig=",
    "\"/data",
    "\"env\"",
    "ithub_pat_",
    // the same in escapes no API server writes, but some shippers do
    "\\u003d",
    "\\u006",
    "\\u007",
];

enum Search {
    Vectorised(packed::Searcher),
    Plain(AhoCorasick),
}

static SEARCH: LazyLock<Search> = LazyLock::new(|| match packed::Searcher::new(TRIGGERS) {
    Some(searcher) => Search::Vectorised(searcher),
    None => Search::Plain(AhoCorasick::new(TRIGGERS).expect("the triggers are a fixed, small set")),
});

fn find(text: &str, from: usize) -> Option<usize> {
    let span = Span { start: from, end: text.len() };
    match &*SEARCH {
        Search::Vectorised(s) => s.find_in(text, span).map(|m| m.start()),
        Search::Plain(s) => s.find(aho_corasick::Input::new(text).span(span)).map(|m| m.start()),
    }
}

/// Whether `text` holds a trigger.
pub(super) fn any(text: &str) -> bool {
    find(text, 0).is_some()
}

/// The next trigger at or behind a position that only grows; a cursor for one pass over a document.
pub(super) struct Hits<'a> {
    text: &'a str,
    next: Option<usize>,
}

impl<'a> Hits<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        Self { text, next: find(text, 0) }
    }

    /// Whether a trigger starts within `start..end`; ranges must come in ascending order.
    pub(super) fn within(&mut self, start: usize, end: usize) -> bool {
        while self.next.is_some_and(|at| at < start) {
            self.next = find(self.text, start);
        }
        self.next.is_some_and(|at| at < end)
    }
}
