//! A labelled stream of audit events: what every way of looking at it is measured on.

use chrono::{DateTime, SecondsFormat};
use serde_json::{Value, json};

pub const SECOND: i64 = 1_000_000;
pub const HOUR: i64 = 3600 * SECOND;
pub const DAY: i64 = 24 * HOUR;
/// A Monday, 00:00 UTC, microseconds.
pub const START: i64 = 1_780_272_000 * SECOND;

/// What an event is to the evaluation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mark {
    Benign,
    /// Part of an attack run, by its place in [`Stream::runs`].
    Attack(usize),
    /// Neither counted for nor against: an attacker who only trains the baseline.
    Setup,
}

#[derive(Clone, Debug)]
pub struct Event {
    /// Microseconds.
    pub time: i64,
    pub text: String,
    pub mark: Mark,
}

/// Events in the order of time, and the attack runs among them.
#[derive(Clone, Debug, Default)]
pub struct Stream {
    pub events: Vec<Event>,
    /// Kind of each run.
    pub runs: Vec<String>,
    /// Clean time to choose a threshold in, and the time that is judged; microseconds from [`START`].
    pub calibration: (i64, i64),
    pub test: (i64, i64),
}

impl Stream {
    /// A new attack run of this kind.
    pub fn run(&mut self, kind: &str) -> Mark {
        self.runs.push(kind.to_owned());
        Mark::Attack(self.runs.len() - 1)
    }

    pub fn sort(&mut self) {
        self.events.sort_by_key(|e| e.time);
    }
}

/// One request as a simulated API server logs it.
#[derive(Clone, Debug)]
pub struct Request<'r> {
    pub user: &'r str,
    pub group: &'r str,
    pub verb: &'r str,
    /// With the subresource: `pods/exec`; a path where it begins with `/`.
    pub resource: &'r str,
    pub namespace: &'r str,
    pub name: &'r str,
    pub agent: &'r str,
    pub address: &'r str,
    pub code: u16,
}

pub fn stamp(time: i64) -> String {
    DateTime::from_timestamp_micros(time).unwrap_or_default().to_rfc3339_opts(SecondsFormat::Micros, true)
}

impl Request<'_> {
    /// The audit event at `time`.
    pub fn text(&self, time: i64, id: usize) -> String {
        let at = stamp(time);
        let decision = if matches!(self.code, 401 | 403) { "forbid" } else { "allow" };
        let mut event = json!({
            "kind": "Event", "apiVersion": "audit.k8s.io/v1", "level": "Metadata", "auditID": format!("sim-{id}"),
            "stage": "ResponseComplete", "verb": self.verb, "requestURI": self.uri(),
            "user": { "username": self.user, "groups": [self.group, "system:authenticated"] },
            "sourceIPs": [self.address], "userAgent": self.agent, "responseStatus": { "code": self.code },
            "requestReceivedTimestamp": at, "stageTimestamp": at,
            "annotations": { "authorization.k8s.io/decision": decision, "authorization.k8s.io/reason": "" },
        });
        if self.user == "system:anonymous" {
            event["user"]["groups"] = json!(["system:unauthenticated"]);
        }
        if !self.resource.starts_with('/') {
            let (resource, sub) = self.resource.split_once('/').unwrap_or((self.resource, ""));
            let parts =
                [("resource", resource), ("subresource", sub), ("namespace", self.namespace), ("name", self.name)];
            let object = parts.iter().filter(|(_, v)| !v.is_empty()).map(|(k, v)| ((*k).to_owned(), json!(v)));
            event["objectRef"] = Value::Object(object.collect());
        }
        event.to_string()
    }

    fn uri(&self) -> String {
        if self.resource.starts_with('/') {
            return self.resource.to_owned();
        }
        let (resource, sub) = self.resource.split_once('/').unwrap_or((self.resource, ""));
        let namespace =
            if self.namespace.is_empty() { String::new() } else { format!("/namespaces/{}", self.namespace) };
        let rest = [self.name, sub].iter().filter(|p| !p.is_empty()).map(|p| format!("/{p}")).collect::<String>();
        format!("/api/v1{namespace}/{resource}{rest}")
    }
}
