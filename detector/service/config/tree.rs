//! The configuration file as a tree in which every node knows its line and column.
//!
//! The tree lets the checker report every problem with its place. The typed `Config` is made from
//! it afterwards. It knows nothing of what keys mean.

use std::collections::HashMap;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number};
use serde_saphyr::Spanned;

use super::problem::{Place, Problem};

/// A value and where it stands.
#[derive(Clone, Debug)]
pub struct Node {
    pub value: Value,
    pub place: Place,
    /// The text before `${ENV}` was replaced, when it was: never show the replaced text.
    pub template: Option<String>,
}

#[derive(Clone, Debug)]
pub enum Value {
    Null,
    Bool(bool),
    Number(Number),
    Text(String),
    List(Vec<Node>),
    Map(Vec<Entry>),
}

#[derive(Clone, Debug)]
pub struct Entry {
    pub key: String,
    pub key_place: Place,
    pub node: Node,
}

/// Reads YAML. Broken YAML is one problem: nothing after it can be trusted. Keys given twice stay in it, for
/// [`Node::take_repeated`].
pub fn parse(text: &str) -> Result<Node, Problem> {
    let options = serde_saphyr::options! {
        strict_booleans: true,
        duplicate_keys: serde_saphyr::DuplicateKeyPolicy::LastWins,
    };
    serde_saphyr::from_str_with_options::<Node>(text, options).map_err(|error| {
        let error = error.without_snippet();
        let place = error.location().map_or(Place::START, |l| Place::new(l.line(), l.column()));
        let message = error.to_string();
        // The library appends its own place; ours stands in front.
        let message = message.split(" at line ").next().unwrap_or(&message);
        Problem::new(place, "", format!("not valid YAML: {message}"))
    })
}

impl Node {
    pub fn entry(&self, key: &str) -> Option<&Entry> {
        match &self.value {
            Value::Map(entries) => entries.iter().find(|e| e.key == key),
            _ => None,
        }
    }

    /// Takes out every entry whose key was there before, and tells of it: which of two would be meant nobody can know.
    pub fn take_repeated(&mut self, path: &str, problems: &mut Vec<Problem>) {
        match &mut self.value {
            Value::List(items) => {
                for (i, item) in items.iter_mut().enumerate() {
                    item.take_repeated(&format!("{path}[{i}]"), problems);
                }
            }
            Value::Map(entries) => {
                let mut first: HashMap<String, Place> = HashMap::new();
                entries.retain_mut(|entry| {
                    let path = join(path, &entry.key);
                    if let Some(Place { line, .. }) = first.get(&entry.key) {
                        let what = format!("given twice, before in line {line}; keep one");
                        problems.push(Problem::new(entry.key_place, path, what));
                        return false;
                    }
                    first.insert(entry.key.clone(), entry.key_place);
                    entry.node.take_repeated(&path, problems);
                    true
                });
            }
            _ => {}
        }
    }

    /// The place of `path` (`outputs[0].name`), or of the nearest node above it that exists.
    pub fn place_of(&self, path: &str) -> Place {
        let mut node = self;
        let mut place = self.place;
        for step in path.split(['.', '[']).map(|s| s.trim_end_matches(']')).filter(|s| !s.is_empty()) {
            let next = match &node.value {
                Value::List(items) => step.parse::<usize>().ok().and_then(|i| items.get(i)).map(|n| (n, n.place)),
                _ => node.entry(step).map(|e| (&e.node, e.key_place)),
            };
            let Some((child, at)) = next else { break };
            (node, place) = (child, at);
        }
        // A scalar's own place is more useful than its key's.
        if matches!(node.value, Value::List(_) | Value::Map(_) | Value::Null) { place } else { node.place }
    }

    pub fn to_json(&self) -> serde_json::Value {
        match &self.value {
            Value::Null => serde_json::Value::Null,
            Value::Bool(b) => (*b).into(),
            Value::Number(n) => n.clone().into(),
            Value::Text(t) => t.as_str().into(),
            Value::List(items) => items.iter().map(Self::to_json).collect(),
            Value::Map(entries) => {
                entries.iter().map(|e| (e.key.clone(), e.node.to_json())).collect::<Map<_, _>>().into()
            }
        }
    }

    /// What it is, for "found …". A value that came from the environment is not repeated.
    pub fn found(&self) -> String {
        if let Some(template) = &self.template {
            return format!("the value of `{template}`");
        }
        match &self.value {
            Value::Null => "nothing".into(),
            Value::Bool(b) => format!("`{b}`"),
            Value::Number(n) => format!("the number `{n}`"),
            Value::Text(t) => format!("the text `{}`", shorten(t)),
            Value::List(_) => "a list".into(),
            Value::Map(_) => "a map".into(),
        }
    }

    /// Calls `visit` for every scalar text with its path.
    pub fn texts_mut(&mut self, path: &str, visit: &mut dyn FnMut(&str, &mut Node)) {
        match &mut self.value {
            Value::Text(_) => visit(path, self),
            Value::List(items) => {
                for (i, item) in items.iter_mut().enumerate() {
                    item.texts_mut(&format!("{path}[{i}]"), visit);
                }
            }
            Value::Map(entries) => {
                for entry in entries {
                    entry.node.texts_mut(&join(path, &entry.key), visit);
                }
            }
            _ => {}
        }
    }
}

/// `path` extended by a key.
pub fn join(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

/// At most 60 characters of a text, control characters escaped.
pub fn shorten(text: &str) -> String {
    let mut short: String = text.chars().take(60).flat_map(char::escape_debug).collect();
    if text.chars().nth(60).is_some() {
        short.push('…');
    }
    short
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let spanned = Spanned::<Value>::deserialize(d)?;
        let at = spanned.referenced;
        Ok(Self { value: spanned.value, place: Place::new(at.line(), at.column()), template: None })
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        d.deserialize_any(ValueVisitor)
    }
}

struct ValueVisitor;

impl<'de> Visitor<'de> for ValueVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a YAML value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
        Number::from_f64(value).map(Value::Number).ok_or_else(|| E::custom("not a finite number"))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::Text(value.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = seq.next_element()? {
            items.push(item);
        }
        Ok(Value::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut entries = Vec::new();
        while let Some((key, node)) = map.next_entry::<Spanned<String>, Node>()? {
            let at = key.referenced;
            entries.push(Entry { key: key.value, key_place: Place::new(at.line(), at.column()), node });
        }
        Ok(Value::Map(entries))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "a: 1\nb:\n  - { x: yes, y: \"12\" }\n  - ~\nc: &k [no]\nd: *k\n";

    #[test]
    fn every_node_knows_its_place() {
        let tree = parse(TEXT).unwrap();
        for (path, line, column) in
            [("a", 1, 4), ("b", 2, 1), ("b[0]", 3, 5), ("b[0].y", 3, 18), ("b[0].absent", 3, 5), ("d[0]", 6, 4)]
        {
            assert_eq!(tree.place_of(path), Place::new(line, column), "{path}");
        }
    }

    #[test]
    fn words_of_yaml_1_1_stay_words() {
        let json = parse(TEXT).unwrap().to_json();
        assert_eq!(json.to_string(), r#"{"a":1,"b":[{"x":"yes","y":"12"},null],"c":["no"],"d":["no"]}"#);
    }

    #[test]
    fn keys_given_twice_are_told_all_and_the_first_counts() {
        let mut node = parse("a: 1\nb:\n  - { c: 1, c: 2 }\na: [3]\nd: { a: 1 }\na: 4\n").unwrap();
        let mut problems = Vec::new();
        node.take_repeated("", &mut problems);
        let told: Vec<String> =
            problems.iter().map(|p| format!("{}:{} {}: {}", p.place.line, p.place.column, p.path, p.what)).collect();
        let twice = |line| format!("given twice, before in line {line}; keep one");
        assert_eq!(
            told,
            [format!("3:13 b[0].c: {}", twice(3)), format!("4:1 a: {}", twice(1)), format!("6:1 a: {}", twice(1))]
        );
        assert_eq!(node.to_json().to_string(), r#"{"a":1,"b":[{"c":1}],"d":{"a":1}}"#);
    }

    #[test]
    fn broken_yaml_is_a_problem_with_a_place() {
        let said = |text| {
            let problem = parse(text).unwrap_err();
            format!("{}:{} {}", problem.place.line, problem.place.column, problem.what)
        };
        assert_eq!(said("a: [1\n"), "1:4 not valid YAML: unclosed bracket '['");
    }
}
