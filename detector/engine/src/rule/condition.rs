//! The condition of a rule: text to a tree over its selections.
//!
//! `not` binds before `and`, `and` before `or`. `them` leaves out selections whose name starts with
//! an underscore.

use super::expr::{Expr, Ordered, Tri};
use super::problem::Hint;

/// Conditions nest no deeper.
pub const MAX_DEPTH: usize = 32;
/// Conditions have no more words and parentheses.
const MAX_TOKENS: usize = 1_000;

/// A condition over selections, by their index.
#[derive(Debug)]
pub enum Cond {
    And(Ordered<Cond>),
    Or(Ordered<Cond>),
    Not(Box<Cond>),
    Selection(usize),
    /// At least `n` of the parts.
    AtLeast(usize, Vec<Cond>),
}

#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum ConditionFault {
    #[error("it is empty")]
    Empty,
    #[error("there is no selection `{name}`{hint}")]
    UnknownSelection { name: String, hint: Hint },
    #[error("no selection is named like `{pattern}`{hint}")]
    NothingLike { pattern: String, hint: Hint },
    #[error("`{n} of {pattern}` can never hold: there are only {count}")]
    TooFew { n: usize, pattern: String, count: usize },
    #[error("expected {expected} {found}")]
    Unexpected { expected: &'static str, found: Found },
    #[error("a `(` is never closed")]
    Unclosed,
    #[error("it nests deeper than {MAX_DEPTH} levels")]
    TooDeep,
    #[error("it has more than {MAX_TOKENS} words")]
    TooLong,
    #[error("aggregations after `|` were removed from Sigma; write a correlation")]
    Aggregation,
}

/// What stood where something else was expected.
#[derive(Clone, Debug, PartialEq)]
pub enum Found {
    Token(String),
    End,
}

impl std::fmt::Display for Found {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Token(t) => write!(f, "before `{t}`"),
            Self::End => f.write_str("at the end"),
        }
    }
}

impl Cond {
    /// Reads `text` over selections of these names and costs. Marks in `used` what is referred to.
    pub fn parse(text: &str, names: &[(String, u16)], used: &mut [bool]) -> Result<Self, ConditionFault> {
        let tokens = tokens(text)?;
        if tokens.is_empty() {
            return Err(ConditionFault::Empty);
        }
        let mut parser = Parser { tokens: &tokens, at: 0, depth: 0, names, used };
        let cond = parser.or()?;
        match parser.peek() {
            None => Ok(cond),
            Some(_) => Err(parser.unexpected("`and` or `or`")),
        }
    }

    /// Any of several conditions.
    pub fn any(parts: Vec<Self>, names: &[(String, u16)]) -> Self {
        one_or(parts, |parts| Self::Or(Ordered::new(parts, |c| c.cost(names))))
    }

    pub fn judge<'r, K>(&'r self, judge: &mut dyn FnMut(usize) -> Tri<'r, K>) -> Tri<'r, K> {
        match self {
            Self::And(parts) => Tri::all(parts.cheap_first().map(|p| p.judge(judge))),
            Self::Or(parts) => Tri::any(parts.cheap_first().map(|p| p.judge(judge))),
            Self::Not(part) => part.judge(judge).not(),
            Self::Selection(i) => judge(*i),
            Self::AtLeast(n, parts) => Tri::at_least(*n, parts.iter().map(|p| p.judge(judge))),
        }
    }

    fn cost(&self, names: &[(String, u16)]) -> u16 {
        match self {
            Self::And(parts) | Self::Or(parts) => sum(&parts.written, names),
            Self::AtLeast(_, parts) => sum(parts, names),
            Self::Not(part) => part.cost(names),
            Self::Selection(i) => names[*i].1,
        }
    }
}

fn sum(parts: &[Cond], names: &[(String, u16)]) -> u16 {
    parts.iter().map(|p| p.cost(names)).fold(0, u16::saturating_add)
}

fn one_or(mut parts: Vec<Cond>, many: impl FnOnce(Vec<Cond>) -> Cond) -> Cond {
    if parts.len() == 1 { parts.remove(0) } else { many(parts) }
}

fn tokens(text: &str) -> Result<Vec<&str>, ConditionFault> {
    let mut out = Vec::new();
    let mut rest = text.trim_start();
    while let Some(c) = rest.chars().next() {
        let len = match c {
            '(' | ')' => 1,
            '|' => return Err(ConditionFault::Aggregation),
            _ => rest.find(|c: char| c.is_whitespace() || matches!(c, '(' | ')' | '|')).unwrap_or(rest.len()),
        };
        out.push(&rest[..len]);
        rest = rest[len..].trim_start();
        if out.len() > MAX_TOKENS {
            return Err(ConditionFault::TooLong);
        }
    }
    Ok(out)
}

struct Parser<'t, 'n> {
    tokens: &'t [&'t str],
    at: usize,
    depth: usize,
    names: &'n [(String, u16)],
    used: &'n mut [bool],
}

impl<'t> Parser<'t, '_> {
    fn peek(&self) -> Option<&'t str> {
        self.tokens.get(self.at).copied()
    }

    fn eat(&mut self, word: &str) -> bool {
        let hit = self.peek().is_some_and(|t| t.eq_ignore_ascii_case(word));
        self.at += usize::from(hit);
        hit
    }

    fn unexpected(&self, expected: &'static str) -> ConditionFault {
        let found = self.peek().map_or(Found::End, |t| Found::Token(t.to_owned()));
        ConditionFault::Unexpected { expected, found }
    }

    fn or(&mut self) -> Result<Cond, ConditionFault> {
        let mut parts = vec![self.and()?];
        while self.eat("or") {
            parts.push(self.and()?);
        }
        Ok(Cond::any(parts, self.names))
    }

    fn and(&mut self) -> Result<Cond, ConditionFault> {
        let mut parts = vec![self.not()?];
        while self.eat("and") {
            parts.push(self.not()?);
        }
        let names = self.names;
        Ok(one_or(parts, |parts| Cond::And(Ordered::new(parts, |c| c.cost(names)))))
    }

    fn not(&mut self) -> Result<Cond, ConditionFault> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(ConditionFault::TooDeep);
        }
        let cond = if self.eat("not") { Cond::Not(Box::new(self.not()?)) } else { self.atom()? };
        self.depth -= 1;
        Ok(cond)
    }

    fn atom(&mut self) -> Result<Cond, ConditionFault> {
        if self.eat("(") {
            let inner = self.or()?;
            return if self.eat(")") {
                Ok(inner)
            } else if self.peek().is_none() {
                Err(ConditionFault::Unclosed)
            } else {
                Err(self.unexpected("`and`, `or` or `)`"))
            };
        }
        let is_word = |t: &str| !matches!(t.to_ascii_lowercase().as_str(), "and" | "or" | "not" | ")" | "of");
        let Some(word) = self.peek().filter(|t| is_word(t)) else {
            return Err(self.unexpected("a selection"));
        };
        self.at += 1;
        if self.eat("of") {
            return self.quantified(word);
        }
        let Some(i) = self.names.iter().position(|(n, _)| n == word) else {
            let hint = Hint::nearest(word, self.names.iter().map(|(n, _)| n.as_str()));
            return Err(ConditionFault::UnknownSelection { name: word.to_owned(), hint });
        };
        self.used[i] = true;
        Ok(Cond::Selection(i))
    }

    /// `1 of x*`, `all of them`, …: the part after `of`.
    fn quantified(&mut self, quantity: &str) -> Result<Cond, ConditionFault> {
        let all = quantity.eq_ignore_ascii_case("all");
        let n = if quantity.eq_ignore_ascii_case("any") { Some(1) } else { quantity.parse().ok() };
        if !all && n.is_none_or(|n: usize| n == 0) {
            self.at -= 2;
            return Err(self.unexpected("a number from 1, `all` or `any`"));
        }
        let Some(pattern) = self.peek().filter(|t| !matches!(*t, "(" | ")")) else {
            return Err(self.unexpected("`them` or the names of selections, as in `selection_*`"));
        };
        self.at += 1;
        let hits: Vec<usize> = (0..self.names.len()).filter(|i| hit(pattern, &self.names[*i].0)).collect();
        if hits.is_empty() {
            let bare = pattern.trim_end_matches('*');
            let hint = Hint::nearest(bare, self.names.iter().map(|(n, _)| n.as_str()));
            return Err(ConditionFault::NothingLike { pattern: pattern.to_owned(), hint });
        }
        hits.iter().for_each(|i| self.used[*i] = true);
        let count = hits.len();
        let names = self.names;
        let parts: Vec<_> = hits.into_iter().map(Cond::Selection).collect();
        match n {
            None => Ok(one_or(parts, |parts| Cond::And(Ordered::new(parts, |c| c.cost(names))))),
            Some(1) => Ok(Cond::any(parts, names)),
            Some(n) if n > count => Err(ConditionFault::TooFew { n, pattern: pattern.to_owned(), count }),
            Some(n) => Ok(Cond::AtLeast(n, parts)),
        }
    }
}

/// Whether a selection is meant by a pattern after `of`.
fn hit(pattern: &str, name: &str) -> bool {
    if pattern.eq_ignore_ascii_case("them") {
        return !name.starts_with('_');
    }
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = name.strip_prefix(first) else { return false };
    let mut parts: Vec<_> = parts.collect();
    let Some(last) = parts.pop() else { return rest.is_empty() };
    for part in parts {
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
    }
    rest.ends_with(last)
}

/// Names and costs of selections, as [`Cond::parse`] wants them.
pub fn names<'s, K: 's>(selections: impl IntoIterator<Item = (&'s str, &'s Expr<K>)>) -> Vec<(String, u16)> {
    selections.into_iter().map(|(name, expr)| (name.to_owned(), expr.cost())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAMES: [&str; 5] = ["selection_a", "selection_b", "filter_main", "_hidden", "x"];

    fn parse(text: &str) -> Result<(Cond, Vec<bool>), ConditionFault> {
        let names: Vec<_> = NAMES.iter().map(|n| ((*n).to_owned(), 1)).collect();
        let mut used = vec![false; names.len()];
        Cond::parse(text, &names, &mut used).map(|c| (c, used))
    }

    /// Judges with the named selections true and all others false.
    fn holds(text: &str, truths: &[&str]) -> bool {
        let (cond, _) = parse(text).unwrap_or_else(|e| panic!("{text}: {e}"));
        cond.judge::<()>(&mut |i| Tri::known(truths.contains(&NAMES[i]))) == Tri::True
    }

    #[test]
    fn operators_bind_as_sigma_says() {
        for (text, truths, want) in [
            ("x", &["x"][..], true),
            ("x", &[], false),
            ("not x", &[], true),
            ("not not x", &["x"], true),
            ("x or selection_a and selection_b", &["x"], true),
            ("(x or selection_a) and selection_b", &["x"], false),
            ("not x and selection_a", &["selection_a"], true),
            ("not (x and selection_a)", &["selection_a"], true),
            ("x AND NOT filter_main", &["x"], true),
            ("1 of selection_*", &["selection_b"], true),
            ("1 of selection_*", &["x"], false),
            ("any of selection_*", &["selection_b"], true),
            ("all of selection_*", &["selection_b"], false),
            ("all of selection_*", &["selection_a", "selection_b"], true),
            ("2 of them", &["x", "filter_main"], true),
            ("2 of them", &["x", "_hidden"], false),
            ("1 of them", &["_hidden"], false),
            ("1 of *a*n", &["filter_main"], true),
            ("1 of x", &["x"], true),
            ("x and not 1 of filter_*", &["x", "filter_main"], false),
        ] {
            assert_eq!(holds(text, truths), want, "{text} with {truths:?}");
        }
    }

    #[test]
    fn faults_say_where_and_what() {
        for (text, want) in [
            ("", "it is empty"),
            ("selektion_a", "there is no selection `selektion_a`; did you mean `selection_a`?"),
            ("x and", "expected a selection at the end"),
            ("and x", "expected a selection before `and`"),
            ("x x", "expected `and` or `or` before `x`"),
            ("(x", "a `(` is never closed"),
            ("(x x)", "expected `and`, `or` or `)` before `x`"),
            ("x)", "expected `and` or `or` before `)`"),
            ("()", "expected a selection before `)`"),
            ("0 of them", "expected a number from 1, `all` or `any` before `0`"),
            ("some of them", "expected a number from 1, `all` or `any` before `some`"),
            ("1 of", "expected `them` or the names of selections, as in `selection_*` at the end"),
            ("1 of filtre_*", "no selection is named like `filtre_*`"),
            ("3 of selection_*", "`3 of selection_*` can never hold: there are only 2"),
            ("x | count() > 5", "aggregations after `|` were removed from Sigma; write a correlation"),
        ] {
            assert_eq!(parse(text).map(|_| ()).unwrap_err().to_string(), want, "{text}");
        }
    }

    #[test]
    fn nesting_is_bounded() {
        let deep = |n: usize| format!("{}x{}", "(".repeat(n), ")".repeat(n));
        assert!(parse(&deep(MAX_DEPTH - 1)).is_ok());
        assert_eq!(parse(&deep(MAX_DEPTH)).unwrap_err(), ConditionFault::TooDeep);
        assert_eq!(parse(&"not ".repeat(500)).unwrap_err(), ConditionFault::TooDeep);
        assert_eq!(parse(&vec!["x"; 900].join(" or ")).unwrap_err(), ConditionFault::TooLong);
    }

    #[test]
    fn what_is_used_is_marked() {
        assert_eq!(parse("1 of selection_* and not x").unwrap().1, [true, true, false, false, true]);
    }
}
