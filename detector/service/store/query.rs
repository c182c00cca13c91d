//! The query language: `actor:alice outcome:denied ns:prod since:2h -verb:get "free text"`.
//!
//! Our own small parser with fixed limits. tantivy's is not used: nested parentheses of a few
//! kilobytes overflow its stack and end the process.
//!
//! ```text
//! or     = and ("OR" and)*
//! and    = unary ("AND"? unary)*
//! unary  = ("NOT" | "-") unary | "(" or ")" | clause
//! clause = [field ":"] (word | '"' text '"')       a word may end in `*`
//! ```

use std::fmt;
use std::net::Ipv6Addr;
use std::ops::RangeInclusive;

use lapwing_engine::alert::Level;

use super::field::{self, FieldInfo, Id, Target};
pub use super::value::Clock;
use super::{Position, value};

/// Bytes of a query.
pub const MAX_QUERY: usize = 4 * 1024;
/// Parentheses and negations inside each other.
pub const MAX_DEPTH: usize = 32;
/// Clauses of a query.
pub const MAX_CLAUSES: usize = 256;

/// A query that parsed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Query {
    All,
    And(Vec<Query>),
    Or(Vec<Query>),
    Not(Box<Query>),
    Is(Id, String),
    StartsWith(Id, String),
    Levels(Vec<Level>),
    Code(RangeInclusive<u64>),
    Address(RangeInclusive<Ipv6Addr>),
    /// Microseconds since the epoch, inclusive.
    Since(i64),
    Until(i64),
    /// The event or reject there; not part of the language.
    At(Position),
    /// Every word of it, in any order; the last may be the beginning of a word.
    Text {
        words: String,
        prefix: bool,
    },
}

/// Why a text is no query, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueryError {
    pub message: String,
    /// Byte range of the culprit in the query.
    pub at: std::ops::Range<usize>,
    query: String,
}

impl std::error::Error for QueryError {}

impl fmt::Display for QueryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const AROUND: usize = 40;
        let q = &self.query;
        let from = q.floor_char_boundary(self.at.start.saturating_sub(AROUND));
        let to = q.ceil_char_boundary((self.at.end + AROUND).min(q.len()));
        let start = self.at.start.clamp(from, to);
        let end = self.at.end.clamp(start, to);
        let before = q[from..start].chars().count();
        let width = q[start..end].chars().count().clamp(1, 2 * AROUND);
        // One character each, so that the caret stays below its place.
        let line: String = q[from..to].chars().map(|c| if c.is_ascii_graphic() { c } else { plain(c) }).collect();
        write!(f, "{}\n  {line}\n  {}{}", self.message, " ".repeat(before), "^".repeat(width))
    }
}

fn plain(c: char) -> char {
    if c.is_alphanumeric() || c == ' ' { c } else { '.' }
}

impl Query {
    /// Reads a query. Nothing at all finds everything.
    pub fn parse(text: &str, clock: Clock) -> Result<Self, QueryError> {
        let mut p = Parser { text, at: 0, depth: 0, clauses: 0, clock };
        if text.len() > MAX_QUERY {
            let message = format!("query is {} bytes long; at most {MAX_QUERY} are read", text.len());
            return Err(QueryError { message, at: 0..1, query: text[..text.floor_char_boundary(80)].to_owned() });
        }
        if p.peek().is_none() {
            return Ok(Self::All);
        }
        let query = p.or()?;
        match p.peek() {
            None => Ok(query),
            Some(_) => Err(p.error("`)` without its `(`", p.at..p.at + 1)),
        }
    }

    /// Both hold.
    pub fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::All, q) | (q, Self::All) => q,
            (a, b) => Self::And(vec![a, b]),
        }
    }
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
    depth: usize,
    clauses: usize,
    clock: Clock,
}

/// One word as written: `field:value*`, with its place.
struct Word<'a> {
    field: Option<(&'a str, usize)>,
    value: &'a str,
    /// Where the value starts.
    at: usize,
    quoted: bool,
}

impl<'a> Parser<'a> {
    fn error(&self, message: impl Into<String>, at: std::ops::Range<usize>) -> QueryError {
        QueryError { message: message.into(), at, query: self.text.to_owned() }
    }

    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    /// Skips blanks; the next character.
    fn peek(&mut self) -> Option<char> {
        self.at = self.text.len() - self.rest().trim_start().len();
        self.rest().chars().next()
    }

    /// The bare word that comes next, not consumed.
    fn next_word(&mut self) -> &'a str {
        self.peek();
        let rest = self.rest();
        &rest[..rest.find(ends_word).unwrap_or(rest.len())]
    }

    fn or(&mut self) -> Result<Query, QueryError> {
        let mut any = vec![self.and()?];
        while self.next_word() == "OR" {
            self.at += 2;
            any.push(self.and()?);
        }
        Ok(one_or(any, Query::Or))
    }

    fn and(&mut self) -> Result<Query, QueryError> {
        let mut all = vec![self.unary()?];
        loop {
            match (self.peek(), self.next_word()) {
                (None | Some(')'), _) | (_, "OR") => return Ok(one_or(all, Query::And)),
                (_, "AND") => self.at += 3,
                _ => {}
            }
            all.push(self.unary()?);
        }
    }

    fn unary(&mut self) -> Result<Query, QueryError> {
        let start = self.at;
        let next = self.peek();
        let negation = match self.next_word() {
            "NOT" => 3,
            word if word.len() > 1 && word.starts_with('-') => 1,
            "-" if self.rest()[1..].starts_with(['(', '"']) => 1,
            _ => 0,
        };
        if negation > 0 || next == Some('(') {
            self.depth += 1;
            if self.depth > MAX_DEPTH {
                return Err(self.error(format!("nested more than {MAX_DEPTH} deep"), self.at..self.at + 1));
            }
            let inner = if negation > 0 {
                self.at += negation;
                Query::Not(Box::new(self.unary()?))
            } else {
                self.group()?
            };
            self.depth -= 1;
            return Ok(inner);
        }
        match next {
            None => Err(self.error("something to search for is missing here", start..start + 1)),
            Some(')') => Err(self.error("something to search for is missing before `)`", self.at..self.at + 1)),
            Some(_) => self.clause(),
        }
    }

    fn group(&mut self) -> Result<Query, QueryError> {
        let open = self.at;
        self.at += 1;
        let inner = self.or()?;
        if self.peek() != Some(')') {
            return Err(self.error("`(` without its `)`", open..open + 1));
        }
        self.at += 1;
        Ok(inner)
    }

    fn clause(&mut self) -> Result<Query, QueryError> {
        self.clauses += 1;
        if self.clauses > MAX_CLAUSES {
            return Err(self.error(format!("more than {MAX_CLAUSES} clauses"), self.at..self.at + 1));
        }
        let word = self.word()?;
        match word.field {
            Some((name, at)) => {
                let info = field::find(name).ok_or_else(|| self.unknown_field(name, at))?;
                self.test(info, &word)
            }
            None => self.text(&word),
        }
    }

    fn word(&mut self) -> Result<Word<'a>, QueryError> {
        let field = self.field();
        let at = self.at;
        if self.rest().starts_with('"') {
            let rest = &self.rest()[1..];
            let Some(end) = rest.find('"') else {
                return Err(self.error("`\"` without its end", at..at + 1));
            };
            self.at += end + 2;
            return Ok(Word { field, value: &rest[..end], at: at + 1, quoted: true });
        }
        let rest = self.rest();
        let value = &rest[..rest.find(ends_word).unwrap_or(rest.len())];
        self.at += value.len();
        Ok(Word { field, value, at, quoted: false })
    }

    /// `name:` in front of a value, consumed, with its place.
    fn field(&mut self) -> Option<(&'a str, usize)> {
        let rest = self.rest();
        let name = &rest[..rest.find(|c: char| !(c.is_ascii_alphanumeric() || "_.".contains(c)))?];
        if name.is_empty() || name.starts_with(|c: char| c.is_ascii_digit()) || !rest[name.len()..].starts_with(':') {
            return None;
        }
        let at = self.at;
        self.at += name.len() + 1;
        Some((name, at))
    }

    fn unknown_field(&self, name: &str, at: usize) -> QueryError {
        let hint = match field::nearest_field(name) {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("write \"{name}:…\" in quotes to search for it as text, or see `lapwing search --help`"),
        };
        self.error(format!("unknown field `{name}`; {hint}"), at..at + name.len())
    }

    fn test(&self, info: &FieldInfo, word: &Word<'a>) -> Result<Query, QueryError> {
        let (text, place) = (word.value, word.at..word.at + word.value.len().max(1));
        if text.is_empty() {
            return Err(self.error(format!("`{}:` has no value", info.name), place));
        }
        let expected = |what: &str| self.error(format!("`{}` takes {what}", info.name), place.clone());
        match info.target {
            Target::Id(id) => self.id(info, id, word),
            Target::Level => value::levels(text).map(Query::Levels).ok_or_else(|| {
                let (_, name) = value::comparison(text);
                self.not_one_of(info, name, place.clone())
            }),
            Target::Code => {
                value::code(text).map(Query::Code).ok_or_else(|| expected("an HTTP status: `403`, `4xx` or `>=400`"))
            }
            Target::Address => value::addresses(text)
                .map(Query::Address)
                .ok_or_else(|| expected("an address or a range: `10.0.0.7`, `10.0.0.0/8` or `fd00::/8`")),
            Target::Since | Target::Until => {
                let time = value::time(text, self.clock)
                    .ok_or_else(|| expected("a time: `2h`, `3d`, `2026-11-20` or `2026-11-20T16:00Z`"))?;
                Ok(if info.target == Target::Since { Query::Since(time) } else { Query::Until(time) })
            }
            Target::Text => self.text(word),
        }
    }

    fn id(&self, info: &FieldInfo, id: Id, word: &Word<'a>) -> Result<Query, QueryError> {
        let (text, prefix) = self.stars(word)?;
        // These are lower case in the index whatever they were in the event.
        let lower =
            matches!(id, Id::ActorKind | Id::Verb | Id::Action | Id::Subresource | Id::Outcome | Id::Client | Id::Kind);
        let text = if lower { text.to_ascii_lowercase() } else { text.to_owned() };
        if prefix {
            return Ok(Query::StartsWith(id, text));
        }
        if !info.values.is_empty() && !info.values.contains(&text.as_str()) {
            return Err(self.not_one_of(info, &text, word.at..word.at + word.value.len()));
        }
        Ok(Query::Is(id, text))
    }

    fn not_one_of(&self, info: &FieldInfo, text: &str, place: std::ops::Range<usize>) -> QueryError {
        let hint = match field::nearest(text, info.values.iter().copied()) {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("it is one of {}", info.values.join(", ")),
        };
        self.error(format!("`{}` has no value `{}`; {hint}", info.name, text.escape_debug()), place)
    }

    fn text(&self, word: &Word<'a>) -> Result<Query, QueryError> {
        let place = word.at..word.at + word.value.len().max(1);
        if !word.quoted && matches!(word.value, "and" | "or" | "not") {
            let upper = word.value.to_ascii_uppercase();
            return Err(self.error(format!("write `{upper}` in capitals, or quote the word to search for it"), place));
        }
        if !word.quoted && matches!(word.value, "AND" | "OR") {
            return Err(self.error(format!("something to search for is missing before `{}`", word.value), place));
        }
        let (text, prefix) = self.stars(word)?;
        if !text.contains(char::is_alphanumeric) {
            return Err(self.error("there is no word in this; text is searched by its words", place));
        }
        Ok(Query::Text { words: text.to_owned(), prefix })
    }

    /// The value without its trailing star, and whether it had one. A quoted star is a star.
    fn stars(&self, word: &Word<'a>) -> Result<(&'a str, bool), QueryError> {
        if word.quoted {
            return Ok((word.value, false));
        }
        let (text, prefix) = word.value.strip_suffix('*').map_or((word.value, false), |t| (t, true));
        match text.find('*') {
            None => Ok((text, prefix)),
            Some(i) => Err(self.error(
                "`*` may only stand at the end; quote the value to search for a star",
                word.at + i..word.at + i + 1,
            )),
        }
    }
}

fn ends_word(c: char) -> bool {
    c.is_whitespace() || matches!(c, '(' | ')' | '"')
}

fn one_or(mut queries: Vec<Query>, many: impl Fn(Vec<Query>) -> Query) -> Query {
    if queries.len() == 1 { queries.remove(0) } else { many(queries) }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may stop")]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Query, QueryError> {
        Query::parse(text, Clock { now: 1_795_190_557_000_000, utc: true })
    }

    #[test]
    fn good_queries() {
        use Query::*;
        let is = |id, v: &str| Is(id, v.to_owned());
        let cases = [
            ("", All),
            ("  \t", All),
            ("actor:alice", is(Id::Actor, "alice")),
            ("USER:Alice", is(Id::Actor, "Alice")),
            ("actor:system:serviceaccount:ns:sa", is(Id::Actor, "system:serviceaccount:ns:sa")),
            ("actor:\"a (b) OR c\"", is(Id::Actor, "a (b) OR c")),
            ("actor:\"a*\"", is(Id::Actor, "a*")),
            ("verb:Get", is(Id::Verb, "get")),
            ("rule:exec*", StartsWith(Id::Rule, "exec".into())),
            ("name:-x", is(Id::Name, "-x")),
            ("-verb:get", Not(Box::new(is(Id::Verb, "get")))),
            ("a b", And(vec![word("a"), word("b")])),
            ("a AND b OR c", Or(vec![And(vec![word("a"), word("b")]), word("c")])),
            ("a (b OR c)", And(vec![word("a"), Or(vec![word("b"), word("c")])])),
            ("((a))", word("a")),
            ("NOT a", Not(Box::new(word("a")))),
            ("-\"a b\"", Not(Box::new(word("a b")))),
            ("NOTE", word("NOTE")),
            ("ORDER ANDROID", And(vec![word("ORDER"), word("ANDROID")])),
            ("\"or\"", word("or")),
            ("web*", Text { words: "web".into(), prefix: true }),
            ("/api/v1", word("/api/v1")),
            ("code:403", Code(403..=403)),
            ("level:>=high", Levels(vec![Level::High, Level::Critical])),
            ("since:1h", Since(1_795_190_557_000_000 - 3_600_000_000)),
        ];
        for (text, want) in cases {
            assert_eq!(parse(text), Ok(want), "{text}");
        }
    }

    fn word(w: &str) -> Query {
        Query::Text { words: w.to_owned(), prefix: false }
    }

    #[test]
    fn bad_queries_say_what_and_where() {
        let cases = [
            ("actr:alice", "unknown field `actr`; did you mean `actor`?", 0..4),
            ("x system:masters", "unknown field `system`; write \"system:…\" in quotes", 2..8),
            ("actor:", "`actor:` has no value", 6..7),
            ("actor:\"\"", "`actor:` has no value", 7..8),
            ("outcome:deneid", "`outcome` has no value `deneid`; did you mean `denied`?", 8..14),
            ("kind:pods", "it is one of event, alert, reject", 5..9),
            ("level:>=hihg", "did you mean `high`?", 6..12),
            ("code:forbidden", "`code` takes an HTTP status", 5..14),
            ("address:10.0.0.*", "`address` takes an address or a range", 8..16),
            ("address:10.0.0.0/33", "`address` takes", 8..19),
            ("since:soon", "`since` takes a time", 6..10),
            ("actor:a*b", "`*` may only stand at the end", 7..8),
            ("(a", "`(` without its `)`", 0..1),
            ("a)", "`)` without its `(`", 1..2),
            ("()", "missing before `)`", 1..2),
            ("\"a", "`\"` without its end", 0..1),
            ("a OR", "something to search for is missing here", 4..5),
            ("OR a", "missing before `OR`", 0..2),
            ("a AND AND b", "missing before `AND`", 6..9),
            ("NOT", "something to search for is missing here", 3..4),
            ("a or b", "write `OR` in capitals", 2..4),
            ("***", "`*` may only stand at the end", 0..1),
            ("- verb:get", "there is no word in this", 0..1),
            ("---", "there is no word in this", 2..3),
            ("actor:(a OR b)", "`actor:` has no value", 6..7),
        ];
        for (text, message, at) in cases {
            let e = parse(text).expect_err(text);
            assert!(e.message.contains(message), "{text}: {}", e.message);
            assert_eq!(e.at, at, "{text}");
        }
    }

    #[test]
    fn the_caret_stands_below_the_culprit() {
        let e = parse("ääää \u{1b}[31m actr:alice verb:get").unwrap_err();
        // The escape character is one place wide and harmless.
        let want = "unknown field `actr`; did you mean `actor`?\n  ääää .[31m actr:alice verb:get\n             ^^^^";
        assert_eq!(e.to_string(), want);
        let long = format!("{} nope:x {}", "a ".repeat(100), "b ".repeat(100));
        let shown = parse(&long).unwrap_err().to_string();
        assert!(shown.lines().all(|l| l.chars().count() < 120), "{shown}");
    }

    #[test]
    fn hostile_queries_are_refused_at_once() {
        let n = 100_000;
        let start = std::time::Instant::now();
        for text in [
            "(".repeat(n),
            "NOT ".repeat(n),
            "-".repeat(n),
            "a ".repeat(n),
            "\"".repeat(n),
            "(".repeat(2000),
            "NOT ".repeat(1000),
            "-(".repeat(1000),
            "- ".repeat(1000),
            format!("{}a{}", "(".repeat(MAX_DEPTH + 1), ")".repeat(MAX_DEPTH + 1)),
            "a ".repeat(MAX_CLAUSES + 1),
            "a OR ".repeat(800),
            "(a OR ".repeat(500),
        ] {
            let e = parse(&text).expect_err(&text[..10]);
            assert!(e.to_string().len() < 1000);
        }
        assert!(start.elapsed() < std::time::Duration::from_secs(1));
        assert!(parse(&format!("{}a{}", "(".repeat(MAX_DEPTH), ")".repeat(MAX_DEPTH))).is_ok());
        assert!(parse(&"a ".repeat(MAX_CLAUSES)).is_ok());
        assert!(parse(&"NOT a ".repeat(100)).is_ok(), "depth is of nesting, not of number");
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_an_answer(text: String) {
            if let Err(e) = parse(&text) {
                let _ = e.to_string();
            }
        }

        #[test]
        fn any_words_are_an_answer(words in proptest::collection::vec("NOT|OR|AND|\\(|\\)|-|\"|a|actor:|actor:a|since:1h|code:>4|\\*|ä", 0..40)) {
            for text in [words.join(" "), words.concat()] {
                if let Err(e) = parse(&text) {
                    let _ = e.to_string();
                }
            }
        }
    }
}
