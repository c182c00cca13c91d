//! The bodies of a request as one object, whatever form they came in.
//!
//! A create or update carries a whole object, a merge, strategic or apply patch a part of one, a
//! JSON patch a list of operations. Rules want to know what the request *writes*: for JSON patches
//! the operations are laid out as the object part they write.

use serde::de::{Deserialize, DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::event::{AuditLevel, Event, List, Text};
use crate::rule::view::Unknown;
use crate::tree::Tree;

/// A body: there, not there, or not to be known.
pub type Body<'e> = Result<Option<Tree<'e>>, Unknown>;

/// What the request wrote, as (part of) an object.
pub fn written<'e>(event: &Event<'e>) -> Body<'e> {
    let request = match event.request_object {
        Some(raw) => parse(raw).and_then(|v| if let Tree::List(patch) = v { lay_out(patch) } else { Ok(v) }).map(Some),
        None => missing(event, AuditLevel::Request).map_or(Ok(None), Err),
    };
    match (request, event.response_object) {
        // An unreadable patch still shows its effect in the answer.
        (Err(Unknown::Unreadable), Some(answer)) => parse(answer).map(|v| (!is_status(&v)).then_some(v)),
        (request, _) => request,
    }
}

/// Of an answer's metadata what is asked for often. The API server writes it first, so that the rest is not read.
#[derive(Debug, Default)]
pub struct Head<'e> {
    pub name: Text<'e>,
    pub uid: Text<'e>,
    pub deletion_grace_period_seconds: Option<i64>,
}

/// The head of the answer; empty where there is no answer or it is no object of this form.
pub fn head<'e>(event: &Event<'e>) -> Head<'e> {
    let mut head = Head::default();
    if let Some(raw) = event.response_object {
        let deletes = event.verb.starts_with("delete");
        let mut answer = serde_json::Deserializer::from_str(raw.get());
        // An error also says that all was found.
        let _ = answer.deserialize_any(MetadataReader(HeadReader { head: &mut head, deletes }));
    }
    head
}

/// Reads metadata until the head is complete.
struct HeadReader<'h, 'e> {
    head: &'h mut Head<'e>,
    deletes: bool,
}

impl HeadReader<'_, '_> {
    fn is_complete(&self) -> bool {
        let Head { name, uid, deletion_grace_period_seconds } = &self.head;
        !name.is_empty() && !uid.is_empty() && (deletion_grace_period_seconds.is_some() || !self.deletes)
    }
}

impl<'e> DeserializeSeed<'e> for HeadReader<'_, 'e> {
    type Value = ();

    fn deserialize<D: Deserializer<'e>>(self, d: D) -> Result<(), D::Error> {
        d.deserialize_any(self)
    }
}

impl<'e> Visitor<'e> for HeadReader<'_, 'e> {
    type Value = ();

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'e>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(key) = map.next_key::<Text<'e>>()? {
            match key.as_str() {
                "name" => self.head.name = map.next_value()?,
                "uid" => self.head.uid = map.next_value()?,
                "deletionGracePeriodSeconds" => self.head.deletion_grace_period_seconds = map.next_value()?,
                _ => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
            if self.is_complete() {
                return Err(A::Error::custom("complete"));
            }
        }
        Ok(())
    }
}

/// Service account of the pod an answer shows; empty where it shows none.
pub fn answered_service_account<'e>(event: &Event<'e>) -> Text<'e> {
    #[derive(Default, serde::Deserialize)]
    #[serde(default, bound(deserialize = "'de: 'e"))]
    struct Pod<'e> {
        spec: Spec<'e>,
    }
    #[derive(Default, serde::Deserialize)]
    #[serde(default, rename_all = "camelCase", bound(deserialize = "'de: 'e"))]
    struct Spec<'e> {
        service_account_name: Text<'e>,
    }
    let pod: Option<Pod<'e>> = event.response_object.and_then(|raw| serde_json::from_str(raw.get()).ok());
    pod.unwrap_or_default().spec.service_account_name
}

/// Who wrote fields of the object an answer shows, as its metadata tells; `None` where the answer cannot be read so far.
/// The API server writes metadata first, so that the rest is not read.
pub fn managers<'e>(event: &Event<'e>) -> Option<Vec<Text<'e>>> {
    #[derive(Default, serde::Deserialize)]
    #[serde(default, rename_all = "camelCase", bound(deserialize = "'de: 'e"))]
    struct Metadata<'e> {
        managed_fields: List<Managed<'e>>,
    }
    #[derive(Default, serde::Deserialize)]
    #[serde(default, bound(deserialize = "'de: 'e"))]
    struct Managed<'e> {
        manager: Text<'e>,
    }
    let mut metadata: Option<Metadata<'e>> = None;
    let mut answer = serde_json::Deserializer::from_str(event.response_object?.get());
    let read = answer.deserialize_any(MetadataReader(Keep(&mut metadata)));
    let metadata = if read.is_ok() { metadata.unwrap_or_default() } else { metadata? };
    let managers = metadata.managed_fields.0.into_iter().map(|m| m.manager);
    Some(managers.filter(|manager| !manager.is_empty()).collect())
}

/// Reads the metadata of an object, and nothing behind it.
struct MetadataReader<S>(S);

impl<'de, S: DeserializeSeed<'de>> Visitor<'de> for MetadataReader<S> {
    type Value = ();

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(key) = map.next_key::<Text<'de>>()? {
            if key.as_str() == "metadata" {
                map.next_value_seed(self.0)?;
                return Err(A::Error::custom("complete"));
            }
            map.next_value::<IgnoredAny>()?;
        }
        Ok(())
    }
}

/// Reads a value and keeps it, whatever error comes behind it.
struct Keep<'o, T>(&'o mut Option<T>);

impl<'de, T: Deserialize<'de>> DeserializeSeed<'de> for Keep<'_, T> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, d: D) -> Result<(), D::Error> {
        *self.0 = Some(T::deserialize(d)?);
        Ok(())
    }
}

/// What the API server answered.
pub fn answered<'e>(event: &Event<'e>) -> Body<'e> {
    match event.response_object {
        Some(raw) => parse(raw).map(Some),
        None => missing(event, AuditLevel::RequestResponse).map_or(Ok(None), Err),
    }
}

fn missing(event: &Event<'_>, needs: AuditLevel) -> Option<Unknown> {
    if event.truncated() {
        Some(Unknown::Truncated)
    } else if event.level < needs {
        Some(Unknown::LevelTooLow)
    } else {
        None
    }
}

fn parse(raw: &RawValue) -> Result<Tree<'_>, Unknown> {
    serde_json::from_str(raw.get()).map_err(|_| Unknown::Unreadable)
}

fn is_status(v: &Tree<'_>) -> bool {
    v.get("kind").and_then(Tree::as_str) == Some("Status")
}

/// How far a list may be padded for an operation on one index.
const MAX_INDEX: usize = 256;

/// A JSON patch (RFC 6902) as the object part it writes. `copy` and `move` take values that the event
/// does not hold: such a patch cannot be read.
fn lay_out(patch: Vec<Tree<'_>>) -> Result<Tree<'_>, Unknown> {
    let mut object = Tree::Object(Vec::new());
    for operation in patch {
        let text = |name| operation.get(name).and_then(Tree::as_str);
        let (Some(kind), Some(path)) = (text("op"), text("path")) else {
            return Err(Unknown::Unreadable);
        };
        match kind {
            "add" | "replace" => {
                let steps: Vec<String> =
                    path.split('/').skip(1).map(|s| s.replace("~1", "/").replace("~0", "~")).collect();
                put(&mut object, &steps, last(operation, "value"))?;
            }
            "copy" | "move" => return Err(Unknown::Unreadable),
            _ => {}
        }
    }
    Ok(object)
}

/// The last field of this name, taken out.
fn last<'e>(object: Tree<'e>, name: &str) -> Tree<'e> {
    let Tree::Object(fields) = object else { return Tree::Null };
    fields.into_iter().rev().find(|(n, _)| n == name).map_or(Tree::Null, |(_, value)| value)
}

fn put<'e>(at: &mut Tree<'e>, steps: &[String], value: Tree<'e>) -> Result<(), Unknown> {
    let Some((step, rest)) = steps.split_first() else {
        *at = value;
        return Ok(());
    };
    let index = if step == "-" { Some(usize::MAX) } else { step.parse::<usize>().ok() };
    // An index into nothing known means a list; a number may also be an object's key (`data/1`).
    if let (Some(index), Tree::Null | Tree::List(_)) = (index, &*at) {
        if *at == Tree::Null {
            *at = Tree::List(Vec::new());
        }
        let Tree::List(list) = at else { return Err(Unknown::Unreadable) };
        let index = if index >= MAX_INDEX { list.len() } else { index };
        while list.len() <= index {
            list.push(Tree::Null);
        }
        return put(&mut list[index], rest, value);
    }
    if *at == Tree::Null {
        *at = Tree::Object(Vec::new());
    }
    let field = at.entry(step.clone()).ok_or(Unknown::Unreadable)?;
    put(field, rest, value)
}

/// Every value at `path` in `root`, lists fanning out at every step.
pub fn walk<'t, 'e>(root: &'t Tree<'e>, path: &[String], found: &mut Vec<&'t Tree<'e>>) {
    if let Tree::List(list) = root {
        for element in list {
            walk(element, path, found);
        }
        return;
    }
    match path.split_first() {
        None => found.push(root),
        Some((step, rest)) => {
            if let Some(next) = root.get(step) {
                walk(next, rest, found);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn tree(text: &str) -> Tree<'_> {
        serde_json::from_str(text).expect("JSON")
    }

    fn laid_out(patch: Value) -> Result<Tree<'static>, Unknown> {
        match patch.into() {
            Tree::List(operations) => lay_out(operations),
            other => panic!("no patch: {other:?}"),
        }
    }

    #[test]
    fn a_json_patch_becomes_the_part_it_writes() {
        let patch = json!([
            {"op": "test", "path": "/spec", "value": 1},
            {"op": "add", "path": "/spec/template/spec/containers/0/securityContext", "value": {"privileged": true}},
            {"op": "replace", "path": "/spec/template/spec/containers/0/image", "value": "evil"},
            {"op": "add", "path": "/spec/template/spec/volumes/-", "value": {"hostPath": {"path": "/"}}},
            {"op": "add", "path": "/metadata/annotations/a~1b", "value": "c"},
            {"op": "remove", "path": "/metadata/labels"}
        ]);
        let object = laid_out(patch).expect("readable");
        assert_eq!(
            object,
            tree(
                r#"{"spec":{"template":{"spec":{"containers":[{"securityContext":{"privileged":true},"image":"evil"}],
                "volumes":[{"hostPath":{"path":"/"}}]}}},"metadata":{"annotations":{"a/b":"c"}}}"#
            )
        );
    }

    #[test]
    fn what_a_patch_hides_is_unreadable() {
        assert_eq!(laid_out(json!([{"op": "copy", "from": "/a", "path": "/b"}])), Err(Unknown::Unreadable));
        assert_eq!(laid_out(json!([1])), Err(Unknown::Unreadable));
        assert_eq!(
            laid_out(json!([{"op": "add", "path": "/a", "value": "x"}, {"op": "add", "path": "/a/b", "value": 1}])),
            Err(Unknown::Unreadable)
        );
    }

    #[test]
    fn a_far_index_costs_no_memory() {
        let object = laid_out(json!([{"op": "add", "path": "/l/999999999", "value": 1}])).expect("readable");
        assert_eq!(object, tree(r#"{"l":[1]}"#));
    }

    #[test]
    fn the_head_of_an_answer_is_read_or_empty() {
        let of = |answer: &str| {
            let text = format!(r#"{{"auditID":"a","verb":"delete","responseObject":{answer}}}"#);
            let event = Event::parse(&text).expect("an event");
            let Head { name, uid, deletion_grace_period_seconds } = head(&event);
            let account = answered_service_account(&event);
            (name.to_string(), uid.to_string(), deletion_grace_period_seconds, account.to_string())
        };
        let whole = r#"{"spec":{"serviceAccountName":"s"},"metadata":{"x":[{}],"name":"n","uid":"u","deletionGracePeriodSeconds":5}}"#;
        assert_eq!(of(whole), ("n".into(), "u".into(), Some(5), "s".into()));
        let first =
            r#"{"metadata":{"deletionGracePeriodSeconds":5,"name":"n","uid":"u","uid":"v"},"metadata":{"name":"m"}}"#;
        assert_eq!(of(first), ("n".into(), "u".into(), Some(5), String::new()), "the rest is not read");
        let without = r#"{"metadata":{"name":"n","labels":{"uid":"l"}},"uid":"x","spec":{"name":"y"}}"#;
        assert_eq!(of(without), ("n".into(), String::new(), None, String::new()));
        for odd in ["null", "[]", r#"{"metadata":7}"#, r#"{"metadata":{"name":{}}}"#] {
            assert_eq!(of(odd), Default::default(), "{odd}");
        }
    }

    #[test]
    fn what_is_missing_says_why() {
        let at = |level: &str, more: &str| {
            let text = format!(r#"{{"auditID":"a","verb":"create","level":"{level}"{more}}}"#);
            written(&Event::parse(&text).expect("an event")).map(|body| body.map(|tree| tree.to_static()))
        };
        assert_eq!(at("Metadata", ""), Err(Unknown::LevelTooLow));
        assert_eq!(at("Request", ""), Ok(None));
        assert_eq!(
            at("RequestResponse", r#","annotations":{"audit.k8s.io/truncated":"true"}"#),
            Err(Unknown::Truncated)
        );
        assert_eq!(at("Request", r#","requestObject":{"a":1e999}"#), Err(Unknown::Unreadable));
        assert_eq!(
            at("Request", r#","requestObject":{"a":1e999},"responseObject":{"a":1}"#),
            Ok(Some(tree(r#"{"a":1}"#)))
        );
    }
}
