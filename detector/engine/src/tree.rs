//! A JSON value that borrows its text from the event: what bodies are read into.
//!
//! `serde_json::Value` copies every name and text and sorts every object; that was the largest part of judging a
//! write. Of names that occur twice the last counts, as for the API server.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};

/// Names and values in the order of the text.
pub type Fields<'a> = [(Cow<'a, str>, Tree<'a>)];

#[derive(Clone, Debug, PartialEq)]
pub enum Tree<'a> {
    Null,
    Bool(bool),
    Int(i64),
    /// What is no `i64`.
    Float(f64),
    Text(Cow<'a, str>),
    List(Vec<Tree<'a>>),
    Object(Vec<(Cow<'a, str>, Tree<'a>)>),
}

impl<'a> Tree<'a> {
    /// The field of this name, the last one where there are several.
    pub fn get(&self, name: &str) -> Option<&Self> {
        self.as_object()?.iter().rev().find(|(n, _)| n == name).map(|(_, v)| v)
    }

    /// What the names lead to, one object inside the other.
    pub fn at(&self, names: &[&str]) -> Option<&Self> {
        names.iter().try_fold(self, |tree, name| tree.get(name))
    }

    pub fn as_str(&self) -> Option<&str> {
        if let Self::Text(text) = self { Some(text) } else { None }
    }

    pub const fn as_bool(&self) -> Option<bool> {
        if let Self::Bool(b) = self { Some(*b) } else { None }
    }

    pub const fn as_i64(&self) -> Option<i64> {
        if let Self::Int(n) = self { Some(*n) } else { None }
    }

    pub fn as_list(&self) -> Option<&[Self]> {
        if let Self::List(items) = self { Some(items) } else { None }
    }

    pub fn as_object(&self) -> Option<&Fields<'a>> {
        if let Self::Object(fields) = self { Some(fields) } else { None }
    }

    pub const fn is_object(&self) -> bool {
        matches!(self, Self::Object(_))
    }

    /// The elements of the list in this field; nothing where there is none.
    pub fn each(&self, name: &str) -> impl Iterator<Item = &Self> {
        self.get(name).and_then(Self::as_list).into_iter().flatten()
    }

    /// The field of this name, made when it is not there.
    pub(crate) fn entry(&mut self, name: String) -> Option<&mut Self> {
        let Self::Object(fields) = self else { return None };
        let at = fields.iter().rposition(|(n, _)| *n == name).unwrap_or_else(|| {
            fields.push((Cow::Owned(name), Tree::Null));
            fields.len() - 1
        });
        Some(&mut fields[at].1)
    }

    /// The same, borrowing nothing.
    pub fn to_static(&self) -> Tree<'static> {
        match self {
            Self::Null => Tree::Null,
            Self::Bool(b) => Tree::Bool(*b),
            Self::Int(n) => Tree::Int(*n),
            Self::Float(n) => Tree::Float(*n),
            Self::Text(text) => Tree::Text(Cow::Owned(text.clone().into_owned())),
            Self::List(items) => Tree::List(items.iter().map(Self::to_static).collect()),
            Self::Object(fields) => {
                Tree::Object(fields.iter().map(|(n, v)| (Cow::Owned(n.clone().into_owned()), v.to_static())).collect())
            }
        }
    }
}

impl From<&serde_json::Value> for Tree<'static> {
    fn from(value: &serde_json::Value) -> Self {
        use serde_json::Value;
        match value {
            Value::Null => Self::Null,
            Value::Bool(b) => Self::Bool(*b),
            Value::Number(n) => n.as_i64().map_or_else(|| n.as_f64().map_or(Self::Null, Self::Float), Self::Int),
            Value::String(text) => Self::Text(Cow::Owned(text.clone())),
            Value::Array(items) => Self::List(items.iter().map(Self::from).collect()),
            Value::Object(fields) => {
                Self::Object(fields.iter().map(|(n, v)| (Cow::Owned(n.clone()), v.into())).collect())
            }
        }
    }
}

impl From<serde_json::Value> for Tree<'static> {
    fn from(value: serde_json::Value) -> Self {
        Self::from(&value)
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Tree<'a> {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        d.deserialize_any(Reader)
    }
}

struct Reader;

impl<'de> Visitor<'de> for Reader {
    type Value = Tree<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }
    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(Tree::Null)
    }
    fn visit_bool<E>(self, b: bool) -> Result<Self::Value, E> {
        Ok(Tree::Bool(b))
    }
    fn visit_i64<E>(self, n: i64) -> Result<Self::Value, E> {
        Ok(Tree::Int(n))
    }
    #[expect(clippy::cast_precision_loss, reason = "a number beyond i64 is compared as a float")]
    fn visit_u64<E>(self, n: u64) -> Result<Self::Value, E> {
        Ok(i64::try_from(n).map_or(Tree::Float(n as f64), Tree::Int))
    }
    fn visit_f64<E>(self, n: f64) -> Result<Self::Value, E> {
        Ok(Tree::Float(n))
    }
    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
        Ok(Tree::Text(Cow::Borrowed(text)))
    }
    fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
        Ok(Tree::Text(Cow::Owned(text.to_owned())))
    }
    fn visit_string<E>(self, text: String) -> Result<Self::Value, E> {
        Ok(Tree::Text(Cow::Owned(text)))
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = seq.next_element()? {
            items.push(item);
        }
        Ok(Tree::List(items))
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut fields = Vec::new();
        while let Some(name) = map.next_key::<crate::event::Text<'de>>()? {
            fields.push((name.0, map.next_value()?));
        }
        Ok(Tree::Object(fields))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_borrowed_where_it_can_be() {
        let tree: Tree<'_> =
            serde_json::from_str(r#"{"a":"x","b\n":"y\n","c":[1,-2,1.5,18446744073709551615,true,null]}"#)
                .expect("JSON");
        let fields = tree.as_object().expect("an object");
        assert!(matches!(&fields[0], (Cow::Borrowed("a"), Tree::Text(Cow::Borrowed("x")))));
        assert_eq!(tree.get("b\n").and_then(Tree::as_str), Some("y\n"));
        let items = tree.get("c").and_then(Tree::as_list).expect("a list");
        assert_eq!(items[..2], [Tree::Int(1), Tree::Int(-2)]);
        assert!(matches!(items[2..], [Tree::Float(_), Tree::Float(_), Tree::Bool(true), Tree::Null]));
    }

    #[test]
    fn the_last_of_equal_names_counts() {
        let tree: Tree<'_> = serde_json::from_str(r#"{"a":1,"a":{"b":2}}"#).expect("JSON");
        assert_eq!(tree.at(&["a", "b"]), Some(&Tree::Int(2)));
        assert_eq!(tree.at(&["a", "c"]), None);
        assert_eq!(tree.at(&["a", "b", "c"]), None);
    }

    #[test]
    fn what_serde_json_refuses_is_refused() {
        let deep = "[".repeat(10_000) + &"]".repeat(10_000);
        for text in ["1e999", r#""\ud800""#, "{", &deep] {
            assert!(serde_json::from_str::<Tree<'_>>(text).is_err(), "{}", &text[..text.len().min(20)]);
        }
    }

    #[test]
    fn a_tree_of_a_value_and_of_its_text_are_the_same() {
        let value = serde_json::json!({"a": [1, 2.5, "x", null, true, {"b": {}}]});
        let text = value.to_string();
        let tree: Tree<'_> = serde_json::from_str(&text).expect("JSON");
        assert_eq!(tree, Tree::from(&value));
        assert_eq!(tree.to_static(), tree);
    }
}
