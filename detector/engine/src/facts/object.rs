//! What a write says of its object, whatever the kind: labels, annotations, managers; and the entries of a configmap.

use super::body::{self, Body};
use super::values::{many, strings};
use super::{Facts, is_reserved};
use crate::event::Text;
use crate::field::Field;
use crate::rule::view::{Unknown, Values};
use crate::tree::Tree;

/// The entries of a map as texts.
pub type Entries = Result<Vec<String>, Unknown>;

/// `key=value` for each entry of the map below `names`, `key-` where a patch takes the key away.
fn entries(body: &Body<'_>, names: &[&str]) -> Entries {
    let object = body.as_ref().map_err(|why| *why)?.as_ref();
    let map = object.and_then(|o| o.at(names)).and_then(Tree::as_object);
    Ok(map.into_iter().flatten().map(|(key, value)| entry(key, value)).collect())
}

fn entry(key: &str, value: &Tree<'_>) -> String {
    match value {
        Tree::Null => format!("{key}-"),
        Tree::Text(text) => format!("{key}={text}"),
        Tree::Bool(b) => format!("{key}={b}"),
        Tree::Int(n) => format!("{key}={n}"),
        Tree::Float(n) => format!("{key}={n}"),
        // No API server takes a list or an object here.
        Tree::List(_) | Tree::Object(_) => format!("{key}="),
    }
}

fn told(entries: &Entries) -> Values<'_> {
    match entries {
        Ok(list) => strings(list),
        Err(why) => Values::Unknown(*why),
    }
}

impl Facts<'_> {
    pub(super) fn object_value(&self, field: &Field) -> Option<Values<'_>> {
        let object = match field {
            Field::TargetAnnotations => (&self.lazy.annotations, &["metadata", "annotations"][..]),
            Field::TargetLabels => (&self.lazy.labels, &["metadata", "labels"][..]),
            Field::ConfigEntries => (&self.lazy.config, &["data"][..]),
            Field::TargetManagers => return Some(self.managers()),
            _ => return None,
        };
        let (cell, names) = object;
        let held = *field != Field::ConfigEntries || self.resource == "configmaps";
        if !held || !self.writes_object() || is_reserved(self.outcome) {
            return Some(Values::Absent);
        }
        Some(told(cell.get_or_init(|| entries(self.written(), names))))
    }

    /// Who wrote fields of the object, as the answer to a write tells.
    fn managers(&self) -> Values<'_> {
        if self.action_type != "write" || is_reserved(self.outcome) {
            return Values::Absent;
        }
        if self.event.response_object.is_none() {
            return self.answered().as_ref().map_or_else(|why| Values::Unknown(*why), |_| Values::Absent);
        }
        match self.lazy.managers.get_or_init(|| body::managers(self.event)) {
            Some(managers) => many(managers.iter().map(Text::as_str)),
            None => Values::Unknown(Unknown::Unreadable),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Event;
    use crate::rule::view::{Scalar, View};

    fn texts(event: &str, field: &str) -> Result<Vec<String>, Unknown> {
        let event = Event::parse(event).expect("an event");
        let facts = Facts::new(&event, "", "c");
        match facts.values(&Field::parse(field).expect("a field")) {
            Values::Many(list) => Ok(list
                .iter()
                .map(|s| match s {
                    Scalar::Str(s) => (*s).to_owned(),
                    other => panic!("{other:?}"),
                })
                .collect()),
            Values::Unknown(why) => Err(why),
            Values::Absent => Ok(Vec::new()),
            Values::One(other) => panic!("{other:?}"),
        }
    }

    fn write(verb: &str, resource: &str, body: &str) -> String {
        format!(
            r#"{{"auditID":"a","level":"RequestResponse","verb":"{verb}","objectRef":{{"resource":"{resource}","namespace":"n"}},
            "responseStatus":{{"code":200}}{body}}}"#
        )
    }

    #[test]
    fn a_write_shows_labels_and_annotations_of_every_kind() {
        let merge = write(
            "patch",
            "serviceaccounts",
            r#","requestObject":{"metadata":{"annotations":{"eks.amazonaws.com/role-arn":"arn:aws:iam::1:role/x"},"labels":{"a.b/c":"1","gone":null}}}"#,
        );
        assert_eq!(
            texts(&merge, "target.annotations"),
            Ok(vec!["eks.amazonaws.com/role-arn=arn:aws:iam::1:role/x".into()])
        );
        assert_eq!(texts(&merge, "target.labels"), Ok(vec!["a.b/c=1".into(), "gone-".into()]));
        let json = write(
            "patch",
            "serviceaccounts",
            r#","requestObject":[{"op":"add","path":"/metadata/annotations/iam.gke.io~1gcp-service-account","value":"x@y"}]"#,
        );
        assert_eq!(texts(&json, "target.annotations"), Ok(vec!["iam.gke.io/gcp-service-account=x@y".into()]));
        let read = write("get", "serviceaccounts", r#","requestObject":{"metadata":{"labels":{"a":"b"}}}"#);
        assert_eq!(texts(&read, "target.labels"), Ok(vec![]));
        let hidden = write("create", "pods", "").replace("RequestResponse", "Metadata");
        assert_eq!(texts(&hidden, "target.labels"), Err(Unknown::LevelTooLow));
        let refused = hidden
            .replace("200", "403")
            .replace("\"auditID\"", r#""annotations":{"authorization.k8s.io/decision":"forbid"},"auditID""#);
        assert_eq!(texts(&refused, "target.labels"), Ok(vec![]));
    }

    #[test]
    fn entries_are_those_of_configmaps() {
        let body = r#","requestObject":{"data":{"app.ini":"db_password = x","n":1}}"#;
        let expected = Ok(vec!["app.ini=db_password = x".into(), "n=1".into()]);
        assert_eq!(texts(&write("update", "configmaps", body), "config.entries"), expected);
        assert_eq!(texts(&write("update", "secrets", body), "config.entries"), Ok(vec![]));
        assert_eq!(texts(&write("delete", "configmaps", body), "config.entries"), Ok(vec![]));
    }

    #[test]
    fn managers_come_from_the_answer() {
        let body = r#","responseObject":{"metadata":{"managedFields":[{"manager":"argocd-controller"},{"manager":"kubectl-edit"},{}]}}"#;
        let expected = Ok(vec!["argocd-controller".into(), "kubectl-edit".into()]);
        assert_eq!(texts(&write("patch", "deployments", body), "target.managers"), expected);
        let far = r#","responseObject":{"kind":"D","spec":{"metadata":{"managedFields":[{"manager":"x"}]}},"metadata":{"labels":{"a":"b"},
            "managedFields":[{"manager":"helm","fieldsV1":{"f:metadata":{}}}]},"status":{"a":1e999}}"#;
        assert_eq!(texts(&write("patch", "deployments", far), "target.managers"), Ok(vec!["helm".into()]));
        for (answer, expected) in [
            (r#"{"kind":"D","spec":{}}"#, Ok(vec![])),
            ("[]", Err(Unknown::Unreadable)),
            ("\"\\ud800\"", Err(Unknown::Unreadable)),
            (r#"{"metadata":7}"#, Err(Unknown::Unreadable)),
        ] {
            let body = format!(r#","responseObject":{answer}"#);
            assert_eq!(texts(&write("patch", "deployments", &body), "target.managers"), expected, "{answer}");
        }
        let hidden = write("patch", "deployments", "").replace("RequestResponse", "Request");
        assert_eq!(texts(&hidden, "target.managers"), Err(Unknown::LevelTooLow));
        assert_eq!(texts(&write("get", "deployments", body), "target.managers"), Ok(vec![]));
    }
}
