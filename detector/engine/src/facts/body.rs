//! The bodies of a request as one object, whatever form they came in.
//!
//! A create or update carries a whole object, a merge, strategic or apply patch a part of one, a
//! JSON patch a list of operations. Rules want to know what the request *writes*: for JSON patches
//! the operations are laid out as the object part they write.

use serde_json::value::RawValue;
use serde_json::{Map, Value};

use crate::event::{AuditLevel, Event};
use crate::rule::view::Unknown;

/// A body: there, not there, or not to be known.
pub type Body = Result<Option<Value>, Unknown>;

/// What the request wrote, as (part of) an object.
pub fn written(event: &Event<'_>) -> Body {
    let request = match event.request_object {
        Some(raw) => parse(raw).and_then(|v| if v.is_array() { lay_out(v) } else { Ok(v) }).map(Some),
        None => missing(event, AuditLevel::Request).map_or(Ok(None), Err),
    };
    match (request, event.response_object) {
        // An unreadable patch still shows its effect in the answer.
        (Err(Unknown::Unreadable), Some(answer)) => parse(answer).map(|v| (!is_status(&v)).then_some(v)),
        (request, _) => request,
    }
}

/// What the API server answered.
pub fn answered(event: &Event<'_>) -> Body {
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

fn parse(raw: &RawValue) -> Result<Value, Unknown> {
    serde_json::from_str(raw.get()).map_err(|_| Unknown::Unreadable)
}

fn is_status(v: &Value) -> bool {
    v.get("kind").and_then(Value::as_str) == Some("Status")
}

/// How far a list may be padded for an operation on one index.
const MAX_INDEX: usize = 256;

/// A JSON patch (RFC 6902) as the object part it writes. `copy` and `move` take values that the event
/// does not hold: such a patch cannot be read.
fn lay_out(patch: Value) -> Result<Value, Unknown> {
    let Value::Array(operations) = patch else { return Err(Unknown::Unreadable) };
    let mut object = Value::Object(Map::new());
    for operation in operations {
        let Value::Object(mut op) = operation else { return Err(Unknown::Unreadable) };
        let (Some(kind), Some(path)) = (op.get("op").and_then(Value::as_str), op.get("path").and_then(Value::as_str))
        else {
            return Err(Unknown::Unreadable);
        };
        match kind {
            "add" | "replace" => {
                let steps: Vec<String> =
                    path.split('/').skip(1).map(|s| s.replace("~1", "/").replace("~0", "~")).collect();
                let value = op.remove("value").unwrap_or(Value::Null);
                put(&mut object, &steps, value)?;
            }
            "copy" | "move" => return Err(Unknown::Unreadable),
            _ => {}
        }
    }
    Ok(object)
}

fn put(at: &mut Value, steps: &[String], value: Value) -> Result<(), Unknown> {
    let Some((step, rest)) = steps.split_first() else {
        *at = value;
        return Ok(());
    };
    let index = if step == "-" { Some(usize::MAX) } else { step.parse::<usize>().ok() };
    // An index into nothing known means a list; a number may also be an object's key (`data/1`).
    if let (Some(index), Value::Null | Value::Array(_)) = (index, &*at) {
        if at.is_null() {
            *at = Value::Array(Vec::new());
        }
        let Value::Array(list) = at else { return Err(Unknown::Unreadable) };
        let index = if index >= MAX_INDEX { list.len() } else { index };
        while list.len() <= index {
            list.push(Value::Null);
        }
        return put(&mut list[index], rest, value);
    }
    if at.is_null() {
        *at = Value::Object(Map::new());
    }
    let Value::Object(map) = at else { return Err(Unknown::Unreadable) };
    put(map.entry(step.clone()).or_insert(Value::Null), rest, value)
}

/// Every value at `path` in `root`, lists fanning out at every step.
pub fn walk<'v>(root: &'v Value, path: &[String], found: &mut Vec<&'v Value>) {
    if let Value::Array(list) = root {
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
    use serde_json::json;

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
        let object = lay_out(patch).expect("readable");
        assert_eq!(
            object,
            json!({"spec": {"template": {"spec": {
                "containers": [{"securityContext": {"privileged": true}, "image": "evil"}],
                "volumes": [{"hostPath": {"path": "/"}}]}}},
                "metadata": {"annotations": {"a/b": "c"}}})
        );
    }

    #[test]
    fn what_a_patch_hides_is_unreadable() {
        assert_eq!(lay_out(json!([{"op": "copy", "from": "/a", "path": "/b"}])), Err(Unknown::Unreadable));
        assert_eq!(lay_out(json!([1])), Err(Unknown::Unreadable));
        assert_eq!(
            lay_out(json!([{"op": "add", "path": "/a", "value": "x"}, {"op": "add", "path": "/a/b", "value": 1}])),
            Err(Unknown::Unreadable)
        );
    }

    #[test]
    fn a_far_index_costs_no_memory() {
        let object = lay_out(json!([{"op": "add", "path": "/l/999999999", "value": 1}])).expect("readable");
        assert_eq!(object, json!({"l": [1]}));
    }

    #[test]
    fn what_is_missing_says_why() {
        let at = |level: &str, more: &str| {
            let text = format!(r#"{{"auditID":"a","verb":"create","level":"{level}"{more}}}"#);
            written(&Event::parse(&text).expect("an event"))
        };
        assert_eq!(at("Metadata", ""), Err(Unknown::LevelTooLow));
        assert_eq!(at("Request", ""), Ok(None));
        assert_eq!(
            at("RequestResponse", r#","annotations":{"audit.k8s.io/truncated":"true"}"#),
            Err(Unknown::Truncated)
        );
        assert_eq!(at("Request", r#","requestObject":{"a":1e999}"#), Err(Unknown::Unreadable));
        assert_eq!(at("Request", r#","requestObject":{"a":1e999},"responseObject":{"a":1}"#), Ok(Some(json!({"a":1}))));
    }
}
