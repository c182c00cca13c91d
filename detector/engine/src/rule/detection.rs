//! Selections as written to compiled expressions.
//!
//! A list of maps or texts is OR, a map is AND, a list of values is OR (AND with `all`).

use std::collections::HashMap;

use super::expr::{Expr, Item, Ordered, Path, Test};
use super::matcher::{Matcher, RegexFlags, Texts};
use super::modifier::{self, Base64, Kind, Modifiers, Position};
use super::pattern::{self, Pattern};
use super::problem::{Fault, Hint, Place, Problems};
use super::yaml::{Entry, Node, Value};
use crate::field::Field;

/// Lists, maps and `any` nest no deeper.
const MAX_DEPTH: usize = 8;
/// Values or items in one place.
const MAX_PARTS: usize = 10_000;

/// Values for `%name%` under the modifier `expand`.
pub type Placeholders = HashMap<String, Vec<String>>;

/// What a selection can ask about.
pub trait Key: Sized {
    fn read(name: &str) -> Result<Self, Fault>;
    /// What reading it costs, roughly: metadata is at hand, a body has to be parsed.
    fn cost(&self) -> u16;
}

impl Key for Field {
    fn read(name: &str) -> Result<Self, Fault> {
        read_field(name)
    }

    fn cost(&self) -> u16 {
        let name = self.name();
        match name.split('.').next().unwrap_or_default() {
            "requestObject" | "responseObject" => 100,
            "workload" | "rbac" | "csr" | "psa" | "exec" => 30,
            "annotations" => 4,
            _ => 1,
        }
    }
}

/// The field of this name.
pub fn read_field(name: &str) -> Result<Field, Fault> {
    Field::parse(name).map_err(|e| Fault::UnknownField { name: e.name, hint: Hint(e.suggestion) })
}

impl Key for Path {
    fn read(name: &str) -> Result<Self, Fault> {
        let parts: Box<[Box<str>]> = name.split('.').map(|p| p.trim_end_matches("[]").into()).collect();
        if parts.iter().any(|p| p.is_empty()) { Err(Fault::BadPath(name.to_owned())) } else { Ok(Self(parts)) }
    }

    fn cost(&self) -> u16 {
        1
    }
}

/// Compiles selections and collects what is wrong with them.
#[derive(Debug)]
pub struct Compiler<'c> {
    pub placeholders: &'c Placeholders,
    pub problems: &'c mut Problems,
}

impl Compiler<'_> {
    /// Compiles the selection `name`; `None` when it has errors, which are then told.
    pub fn selection(&mut self, name: &str, node: &Node) -> Option<Expr<Field>> {
        let before = self.problems.errors();
        let expr = self.part(name, node, 0);
        expr.filter(|_| self.problems.errors() == before)
    }

    fn fault<T>(&mut self, at: Place, fault: Fault) -> Option<T> {
        self.problems.error(at, fault);
        None
    }

    fn part<K: Key>(&mut self, name: &str, node: &Node, depth: usize) -> Option<Expr<K>> {
        if depth > MAX_DEPTH {
            return self.fault(node.at, Fault::TooDeep { limit: MAX_DEPTH });
        }
        match &node.value {
            Value::Map(entries) if !entries.is_empty() => {
                let items: Vec<_> = entries.iter().map(|e| self.entry(e, depth)).collect();
                self.group(node.at, items, Expr::All)
            }
            Value::List(items) if items.iter().any(|n| matches!(n.value, Value::Map(_) | Value::List(_))) => {
                let items: Vec<_> = items.iter().map(|n| self.part(name, n, depth + 1)).collect();
                self.group(node.at, items, Expr::Any)
            }
            Value::List(items) if !items.is_empty() => self.keywords(node, Modifiers::PLAIN),
            Value::Str(_) | Value::Int(_) | Value::Float(_) => self.keywords(node, Modifiers::PLAIN),
            Value::Bool(_) => {
                let expected = "a map of fields, a list of maps or texts to search";
                self.fault(node.at, Fault::Expected { expected, found: node.value.kind() })
            }
            _ => self.fault(node.at, Fault::EmptySelection(name.to_owned())),
        }
    }

    fn group<K: Key>(
        &mut self,
        at: Place,
        parts: Vec<Option<Expr<K>>>,
        make: impl FnOnce(Ordered<Expr<K>>) -> Expr<K>,
    ) -> Option<Expr<K>> {
        if parts.len() > MAX_PARTS {
            return self.fault(at, Fault::TooMany { what: "parts in one place", limit: MAX_PARTS });
        }
        let mut parts = parts.into_iter().collect::<Option<Vec<_>>>()?;
        Some(if parts.len() == 1 { parts.remove(0) } else { make(Ordered::new(parts, Expr::cost)) })
    }

    fn entry<K: Key>(&mut self, entry: &Entry, depth: usize) -> Option<Expr<K>> {
        let mut faults = Vec::new();
        let (name, modifiers) = modifier::parse_key(&entry.key, &mut faults);
        let key = if name.is_empty() { None } else { K::read(&name).map_err(|fault| faults.push(fault)).ok() };
        let good = faults.is_empty();
        faults.into_iter().for_each(|fault| self.problems.error(entry.at, fault));
        if !good {
            return None;
        }
        let Some(key) = key else { return self.keywords(&entry.value, modifiers) };
        let test = self.test(&name, entry, &modifiers, depth)?;
        let cost = key.cost().saturating_add(test_cost(&test));
        let wanted = wanted(entry);
        Some(Expr::Item(Item { key, wanted, negated: modifiers.negated, test, cost }))
    }

    fn test<K: Key>(&mut self, name: &str, entry: &Entry, m: &Modifiers, depth: usize) -> Option<Test<K>> {
        let node = &entry.value;
        match m.kind {
            Kind::Exists => match &node.value {
                Value::Bool(b) => Some(Test::Exists(*b)),
                _ => self.wrong(node, "exists", "true or false"),
            },
            Kind::Element => match &node.value {
                Value::Map(_) | Value::List(_) => {
                    if node.as_slice().iter().any(|n| !matches!(n.value, Value::Map(_))) {
                        return self.wrong(node, "any", "a map of conditions, or a list of such maps");
                    }
                    self.part::<Path>(name, node, depth + 1).map(|e| Test::Element(Box::new(e)))
                }
                _ => self.wrong(node, "any", "a map of conditions, or a list of such maps"),
            },
            Kind::FieldRef => {
                let others: Vec<_> = node.as_slice().iter().map(|n| self.reference(n)).collect();
                let others = others.into_iter().collect::<Option<Vec<_>>>()?;
                Some(Test::Same { others, position: m.position, cased: m.cased })
            }
            _ => self.values(name, node, m),
        }
    }

    fn wrong<T>(&mut self, node: &Node, modifier: &'static str, expected: &'static str) -> Option<T> {
        let found = node.scalar_text().map_or_else(|| node.value.kind().to_owned(), |t| format!("`{t}`"));
        self.fault(node.at, Fault::WrongValue { modifier, expected, found })
    }

    fn reference<K: Key>(&mut self, node: &Node) -> Option<K> {
        let Value::Str(name) = &node.value else { return self.wrong(node, "fieldref", "the name of a field") };
        K::read(name).map_err(|fault| self.problems.error(node.at, fault)).ok()
    }

    fn values<K: Key>(&mut self, name: &str, node: &Node, m: &Modifiers) -> Option<Test<K>> {
        let values = node.as_slice();
        if values.is_empty() {
            return self.fault(node.at, Fault::EmptyValues(name.to_owned()));
        }
        if values.len() > MAX_PARTS {
            return self.fault(node.at, Fault::TooMany { what: "values", limit: MAX_PARTS });
        }
        if !m.all {
            return self.matcher(values, m).map(Test::One);
        }
        if values.len() == 1 {
            self.problems.warn(node.at, Fault::PointlessAll);
        }
        let matchers: Vec<_> = values.iter().map(|v| self.matcher(std::slice::from_ref(v), m)).collect();
        matchers.into_iter().collect::<Option<Vec<_>>>().map(Test::Every)
    }

    fn matcher(&mut self, values: &[Node], m: &Modifiers) -> Option<Matcher> {
        match m.kind {
            Kind::Network => self.networks(values, m),
            Kind::Compare(relation) => {
                let [value] = values else { return self.wrong(&values[0], m.name(), "one single number") };
                let wanted = match value.value {
                    #[expect(clippy::cast_precision_loss, reason = "a comparison beyond 2^53 may be off by one")]
                    Value::Int(n) => n as f64,
                    Value::Float(n) if n.is_finite() => n,
                    _ => return self.wrong(value, m.name(), "a number"),
                };
                let part = m.part.map(|p| (p, Vec::new()));
                Some(Matcher { relation: Some((relation, wanted)), part, ..Matcher::default() })
            }
            _ if m.part.is_some() => {
                let numbers: Vec<_> = values.iter().map(|v| self.whole_number(v, m)).collect();
                let numbers = numbers.into_iter().collect::<Option<Vec<_>>>()?;
                Some(Matcher { part: m.part.map(|p| (p, numbers)), ..Matcher::default() })
            }
            Kind::Regex { ignore_case, multi_line, dot_all } => {
                let flags = RegexFlags { ignore_case, multi_line, dot_all };
                self.regexes(values, flags)
            }
            _ => self.texts(values, m),
        }
    }

    fn whole_number(&mut self, node: &Node, m: &Modifiers) -> Option<i64> {
        match node.value {
            Value::Int(n) => Some(n),
            _ => self.wrong(node, m.name(), "a whole number"),
        }
    }

    fn networks(&mut self, values: &[Node], m: &Modifiers) -> Option<Matcher> {
        let mut networks = Vec::new();
        for node in values {
            for text in self.spellings(node, m)? {
                match text.parse() {
                    Ok(network) => networks.push(network),
                    Err(_) => return self.fault(node.at, Fault::NotANetwork(text)),
                }
            }
        }
        Some(Matcher { networks, ..Matcher::default() })
    }

    fn regexes(&mut self, values: &[Node], flags: RegexFlags) -> Option<Matcher> {
        let mut patterns = Vec::new();
        for node in values {
            let Some(text) = node.scalar_text() else { return self.wrong(node, "re", "a regular expression") };
            if let Err(fault) = Texts::regexes(std::slice::from_ref(&text), flags) {
                return self.fault(node.at, fault);
            }
            patterns.push(text);
        }
        let texts = Texts::regexes(&patterns, flags).map_err(|f| self.problems.error(values[0].at, f)).ok()?;
        Some(Matcher { texts: Some(texts), ..Matcher::default() })
    }

    fn texts(&mut self, values: &[Node], m: &Modifiers) -> Option<Matcher> {
        let mut matcher = Matcher::default();
        let mut patterns = Vec::new();
        for node in values {
            if node.value == Value::Null {
                if m.position != Position::Whole || m.base64.is_some() || m.any_dash {
                    return self.wrong(node, m.name(), "a text");
                }
                matcher.null = true;
                continue;
            }
            for text in self.spellings(node, m)? {
                patterns.extend(self.patterns(node, &text, m)?);
            }
        }
        if !patterns.is_empty() {
            let texts = Texts::compile(&patterns, m.cased);
            matcher.texts = Some(texts.map_err(|f| self.problems.error(values[0].at, f)).ok()?);
        }
        Some(matcher)
    }

    fn patterns(&mut self, node: &Node, text: &str, m: &Modifiers) -> Option<Vec<Pattern>> {
        let is_text = matches!(node.value, Value::Str(_));
        let pattern = if is_text { Pattern::parse(text) } else { Pattern::literal(text) };
        let pattern = if m.any_dash { pattern.any_dash() } else { pattern };
        let patterns = match m.base64 {
            None => vec![pattern],
            Some(form) => {
                let Some(plain) = pattern.as_literal().filter(|t| !t.is_empty()) else {
                    return self.wrong(node, m.name(), "a text without wildcards");
                };
                let bytes = m.utf16.map_or_else(|| plain.as_bytes().to_vec(), |u| u.encode(plain));
                match form {
                    Base64::Whole => vec![Pattern::literal(&pattern::base64(&bytes))],
                    Base64::Offset => pattern::base64_offsets(&bytes).iter().map(|t| Pattern::literal(t)).collect(),
                }
            }
        };
        let open = |p: Pattern| match m.position {
            Position::Whole => p,
            Position::Contains => p.open_start().open_end(),
            Position::StartsWith => p.open_end(),
            Position::EndsWith => p.open_start(),
        };
        Some(patterns.into_iter().map(open).collect())
    }

    /// The text of a value, or with `expand` every text its placeholders stand for.
    fn spellings(&mut self, node: &Node, m: &Modifiers) -> Option<Vec<String>> {
        let Some(text) = node.scalar_text() else {
            let expected = "a text, number or boolean";
            return self.fault(node.at, Fault::Expected { expected, found: node.value.kind() });
        };
        if !m.expand {
            return Some(vec![text]);
        }
        let mut done = vec![String::new()];
        let mut rest = text.as_str();
        while let Some((before, name, after)) = placeholder(rest) {
            let Some(values) = self.placeholders.get(name) else {
                let hint = Hint::nearest(name, self.placeholders.keys().map(String::as_str));
                return self.fault(node.at, Fault::UnknownPlaceholder { name: name.to_owned(), hint });
            };
            if done.len() * values.len() > MAX_PARTS {
                return self.fault(node.at, Fault::TooMany { what: "values of placeholders", limit: MAX_PARTS });
            }
            let longer = done.iter().flat_map(|d| values.iter().map(move |v| format!("{d}{before}{v}")));
            done = longer.collect();
            rest = after;
        }
        done.iter_mut().for_each(|d| d.push_str(rest));
        Some(done)
    }

    /// Texts without a field: searched in the whole event.
    fn keywords<K: Key>(&mut self, node: &Node, m: Modifiers) -> Option<Expr<K>> {
        let values = node.as_slice();
        let searches = matches!(m.kind, Kind::Text | Kind::Regex { .. });
        if !searches || m.negated || m.part.is_some() || matches!(m.position, Position::StartsWith | Position::EndsWith)
        {
            return self.fault(node.at, Fault::ModifierNeedsField(m.name()));
        }
        if values.len() > MAX_PARTS {
            return self.fault(node.at, Fault::TooMany { what: "values", limit: MAX_PARTS });
        }
        let m = Modifiers { position: Position::Contains, ..m };
        let mut parts = Vec::new();
        for value in values {
            parts.push(self.keyword(value, &m)?);
        }
        let groups = if m.all { parts } else { vec![parts.concat()] };
        let compile = |texts: &Vec<Keyword>| compile_keywords(texts, &m);
        match groups.iter().map(compile).collect::<Result<Vec<_>, _>>() {
            Ok(groups) => Some(Expr::Keywords { wanted: format!("the event holds {}", list(values)), groups }),
            Err(fault) => self.fault(node.at, fault),
        }
    }

    fn keyword(&mut self, node: &Node, m: &Modifiers) -> Option<Vec<Keyword>> {
        if node.scalar_text().is_none_or(|t| t.trim().is_empty()) {
            return self.fault(node.at, Fault::EmptyKeyword);
        }
        let texts = self.spellings(node, m)?;
        if matches!(m.kind, Kind::Regex { .. }) {
            return Some(texts.into_iter().map(Keyword::Regex).collect());
        }
        let mut out = Vec::new();
        for text in texts {
            for pattern in self.patterns(node, &text, m)? {
                out.extend(pattern.in_json().into_iter().map(Keyword::Pattern));
            }
        }
        Some(out)
    }
}

#[derive(Clone)]
enum Keyword {
    Pattern(Pattern),
    Regex(String),
}

fn compile_keywords(keywords: &[Keyword], m: &Modifiers) -> Result<Texts, Fault> {
    if let Kind::Regex { ignore_case, multi_line, dot_all } = m.kind {
        let texts = keywords.iter().filter_map(|k| match k {
            Keyword::Regex(text) => Some(text.clone()),
            Keyword::Pattern(_) => None,
        });
        return Texts::regexes(&texts.collect::<Vec<_>>(), RegexFlags { ignore_case, multi_line, dot_all });
    }
    let patterns = keywords.iter().filter_map(|k| match k {
        Keyword::Pattern(pattern) => Some(pattern.clone()),
        Keyword::Regex(_) => None,
    });
    Texts::compile(&patterns.collect::<Vec<_>>(), m.cased)
}

/// `before%name%after`.
fn placeholder(text: &str) -> Option<(&str, &str, &str)> {
    let (before, rest) = text.split_once('%')?;
    let (name, after) = rest.split_once('%')?;
    (!name.is_empty()).then_some((before, name, after))
}

fn test_cost<K>(test: &Test<K>) -> u16 {
    let matcher = |m: &Matcher| m.texts.as_ref().map_or(1, Texts::cost);
    match test {
        Test::One(m) => matcher(m),
        Test::Every(all) => all.iter().map(matcher).fold(0, u16::saturating_add),
        Test::Exists(_) => 1,
        Test::Same { .. } => 5,
        Test::Element(expr) => expr.cost().saturating_add(10),
    }
}

/// `verb = create | patch`, as a person reads it in an explanation.
fn wanted(entry: &Entry) -> String {
    match entry.key.split_once('|') {
        None => format!("{} = {}", entry.key, list(entry.value.as_slice())),
        Some((field, modifiers)) => {
            format!("{field} {} {}", modifiers.replace('|', " "), list(entry.value.as_slice()))
        }
    }
}

/// At most this many values are spelled out in an explanation.
const MAX_SHOWN: usize = 8;

fn list(values: &[Node]) -> String {
    let mut shown: Vec<String> = values.iter().take(MAX_SHOWN).map(show).collect();
    if values.len() > MAX_SHOWN {
        shown.push(format!("… {} more", values.len() - MAX_SHOWN));
    }
    shown.join(" | ")
}

fn show(node: &Node) -> String {
    match &node.value {
        Value::Map(_) | Value::List(_) => "…".into(),
        Value::Str(s) if s.is_empty() => "''".into(),
        _ => node.scalar_text().unwrap_or_else(|| "null".into()),
    }
}
