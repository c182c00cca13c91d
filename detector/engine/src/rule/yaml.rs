//! YAML text to a tree that remembers where everything stood.
//!
//! Duplicate keys are refused, aliases are expanded under a budget, everything is bounded. No
//! meaning is given to anything here.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::{DuplicateKeyPolicy, Location, MessageFormatter, Spanned, UserMessageFormatter};

use super::problem::{Fault, Place};

/// A rule file larger than this is not a rule file.
pub const MAX_FILE: usize = 4 << 20;

#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    pub at: Place,
    pub value: Value,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    Null,
    Bool(bool),
    Int(i64),
    Float(f64),
    Str(String),
    List(Vec<Node>),
    Map(Vec<Entry>),
}

#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    pub key: String,
    pub at: Place,
    pub value: Node,
}

impl Value {
    /// What it is, for messages.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Bool(_) => "a boolean",
            Self::Int(_) | Self::Float(_) => "a number",
            Self::Str(_) => "a text",
            Self::List(_) => "a list",
            Self::Map(_) => "a map",
        }
    }
}

impl Node {
    /// A scalar as text; `None` for null, lists and maps.
    pub fn scalar_text(&self) -> Option<String> {
        match &self.value {
            Value::Str(s) => Some(s.clone()),
            Value::Int(n) => Some(n.to_string()),
            Value::Float(n) => Some(n.to_string()),
            Value::Bool(b) => Some(b.to_string()),
            _ => None,
        }
    }

    /// The elements of a list, or the node itself: Sigma lets a list of one be written bare.
    pub fn as_slice(&self) -> &[Node] {
        match &self.value {
            Value::List(items) => items,
            _ => std::slice::from_ref(self),
        }
    }

    /// The entry `key` of a map.
    pub fn get(&self, key: &str) -> Option<&Node> {
        match &self.value {
            Value::Map(entries) => entries.iter().find(|e| e.key == key).map(|e| &e.value),
            _ => None,
        }
    }

    /// One text for one meaning: no comments, no layout, map keys sorted. JSON by shape.
    pub fn canonical(&self, out: &mut String) {
        use fmt::Write;
        let quoted = |s: &str| serde_json::Value::from(s).to_string();
        // Writing into a String cannot fail.
        let _ = match &self.value {
            Value::Null => out.write_str("null"),
            Value::Bool(b) => write!(out, "{b}"),
            Value::Int(n) => write!(out, "{n}"),
            Value::Float(n) => write!(out, "{n:?}"),
            Value::Str(s) => out.write_str(&quoted(s)),
            Value::List(items) => {
                out.push('[');
                for item in items {
                    item.canonical(out);
                    out.push(',');
                }
                out.write_char(']')
            }
            Value::Map(entries) => {
                let mut sorted: Vec<_> = entries.iter().collect();
                sorted.sort_by(|a, b| a.key.cmp(&b.key));
                out.push('{');
                for entry in sorted {
                    out.push_str(&quoted(&entry.key));
                    out.push(':');
                    entry.value.canonical(out);
                    out.push(',');
                }
                out.write_char('}')
            }
        };
    }

    /// The same as JSON.
    pub fn to_json(&self) -> serde_json::Value {
        use serde_json::Value as Json;
        match &self.value {
            Value::Null => Json::Null,
            Value::Bool(b) => Json::from(*b),
            Value::Int(n) => Json::from(*n),
            Value::Float(n) => Json::from(*n),
            Value::Str(s) => Json::from(s.as_str()),
            Value::List(items) => items.iter().map(Self::to_json).collect(),
            Value::Map(entries) => Json::Object(entries.iter().map(|e| (e.key.clone(), e.value.to_json())).collect()),
        }
    }
}

/// Every document of `text` that is not empty.
pub fn documents(text: &str) -> Result<Vec<Node>, (Place, Fault)> {
    if text.len() > MAX_FILE {
        return Err((Place::default(), Fault::FileTooLarge { limit: MAX_FILE }));
    }
    let options = serde_saphyr::options! {
        duplicate_keys: DuplicateKeyPolicy::Error,
        strict_booleans: true,
        with_snippet: false,
        emit_comments: false,
        alias_limits: serde_saphyr::alias_limits! {
            max_total_replayed_events: 20_000,
            max_replay_stack_depth: 8,
        },
        budget: serde_saphyr::budget! {
            max_depth: 64,
            max_documents: 1_000,
            max_nodes: 200_000,
            max_events: 400_000,
            max_aliases: 1_000,
            max_anchors: 200,
        },
    };
    serde_saphyr::from_multiple_with_options::<Node>(text, options).map_err(|error| {
        let place = error.location().map(Place::from).unwrap_or_default();
        let reason = UserMessageFormatter.format_message(error.without_snippet()).into_owned();
        (place, Fault::NotYaml(reason))
    })
}

impl From<Location> for Place {
    fn from(l: Location) -> Self {
        let small = |n: u64| u32::try_from(n).unwrap_or(u32::MAX);
        Self { line: small(l.line()), column: small(l.column()) }
    }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let spanned = Spanned::<Value>::deserialize(d)?;
        Ok(Self { at: spanned.referenced.into(), value: spanned.value })
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct V;
        impl<'de> Visitor<'de> for V {
            type Value = Value;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a YAML value")
            }
            fn visit_bool<E>(self, v: bool) -> Result<Value, E> {
                Ok(Value::Bool(v))
            }
            fn visit_i64<E>(self, v: i64) -> Result<Value, E> {
                Ok(Value::Int(v))
            }
            fn visit_u64<E>(self, v: u64) -> Result<Value, E> {
                Ok(i64::try_from(v).map_or_else(|_| Value::Str(v.to_string()), Value::Int))
            }
            fn visit_f64<E>(self, v: f64) -> Result<Value, E> {
                Ok(Value::Float(v))
            }
            fn visit_str<E>(self, v: &str) -> Result<Value, E> {
                Ok(Value::Str(v.to_owned()))
            }
            fn visit_string<E>(self, v: String) -> Result<Value, E> {
                Ok(Value::Str(v))
            }
            fn visit_unit<E>(self) -> Result<Value, E> {
                Ok(Value::Null)
            }
            fn visit_none<E>(self) -> Result<Value, E> {
                Ok(Value::Null)
            }
            fn visit_some<D: Deserializer<'de>>(self, d: D) -> Result<Value, D::Error> {
                Value::deserialize(d)
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
                while let Some(key) = map.next_key::<Spanned<String>>()? {
                    let value = map.next_value()?;
                    entries.push(Entry { key: key.value, at: key.referenced.into(), value });
                }
                Ok(Value::Map(entries))
            }
        }
        d.deserialize_any(V)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(text: &str) -> Node {
        documents(text).unwrap().remove(0)
    }

    #[test]
    fn scalars_keep_their_type_and_place() {
        let doc = one("a: 1\nb: '1'\nc: yes\nd: true\ne:\nf: 1.5\ng: 2024-03-26\nh: [x, 0]\n");
        let value = |k: &str| doc.get(k).unwrap().value.clone();
        assert_eq!(value("a"), Value::Int(1));
        assert_eq!(value("b"), Value::Str("1".into()));
        assert_eq!(value("c"), Value::Str("yes".into()), "no YAML 1.1 booleans");
        assert_eq!(value("d"), Value::Bool(true));
        assert_eq!(value("e"), Value::Null);
        assert_eq!(value("f"), Value::Float(1.5));
        assert_eq!(value("g"), Value::Str("2024-03-26".into()));
        let Value::List(items) = value("h") else { panic!("a list") };
        assert_eq!(items[1], Node { at: Place { line: 8, column: 8 }, value: Value::Int(0) });
    }

    #[test]
    fn several_documents() {
        assert_eq!(documents("---\na: 1\n---\nb: 2\n---\n").unwrap().len(), 2);
    }

    #[test]
    fn duplicate_keys_are_refused_with_their_place() {
        let (place, fault) = documents("a: 1\nb:\n  c: 1\n  c: 2\n").unwrap_err();
        assert_eq!(place, Place { line: 4, column: 3 });
        assert!(fault.to_string().contains('c'), "{fault}");
    }

    #[test]
    fn an_alias_bomb_is_refused() {
        let mut bomb = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
        for i in 1..10 {
            let p = i - 1;
            bomb += &format!("a{i}: &a{i} [*a{p}, *a{p}, *a{p}, *a{p}, *a{p}, *a{p}, *a{p}, *a{p}, *a{p}]\n");
        }
        assert!(documents(&bomb).is_err());
        let deep = "[".repeat(5_000);
        assert!(documents(&deep).is_err());
    }

    #[test]
    fn layout_and_order_of_keys_do_not_change_the_canonical_text() {
        let text = |t: &str| {
            let mut out = String::new();
            one(t).canonical(&mut out);
            out
        };
        assert_eq!(text("b: [1, 'x']\na: true # note\n"), text("a: true\nb:\n  - 1\n  - x\n"));
        assert_ne!(text("a: 1"), text("a: '1'"));
    }
}
