//! Alerts as OCSF 1.5.0 Detection Findings (class 2004): <https://schema.ocsf.io/1.5.0/classes/detection_finding>.
//!
//! An actor's baseline becomes `anomaly_analyses`, there since 1.5.0. Checked in tests against the schema of that version.

use std::net::IpAddr;

use lapwing_engine::alert::{Alert, Anomaly, Confidence, Evidence, Level, Reason, Status};
use serde_json::{Value, json};

use super::attack::{Tactic, attacks};

const CLASS: u64 = 2004;

const fn severity(level: Level) -> (u8, &'static str) {
    match level {
        Level::Informational => (1, "Informational"),
        Level::Low => (2, "Low"),
        Level::Medium => (3, "Medium"),
        Level::High => (4, "High"),
        Level::Critical => (5, "Critical"),
    }
}

/// Activity (what happened to the finding) and its status.
const fn activity(status: Status) -> (u64, &'static str, u64, &'static str) {
    match status {
        Status::New | Status::Test => (1, "Create", 1, "New"),
        Status::Update => (2, "Update", 1, "New"),
        Status::Resolved => (3, "Close", 4, "Resolved"),
    }
}

/// Without what is empty: OCSF knows no empty values.
fn object(pairs: Vec<(&str, Value)>) -> Value {
    let is_there = |v: &Value| match v {
        Value::Null => false,
        Value::String(text) => !text.is_empty(),
        Value::Array(list) => !list.is_empty(),
        Value::Object(map) => !map.is_empty(),
        _ => true,
    };
    Value::Object(pairs.into_iter().filter(|(_, v)| is_there(v)).map(|(k, v)| (k.to_owned(), v)).collect())
}

/// The finding of `alert`.
pub fn finding(alert: &Alert) -> Value {
    let (severity_id, severity) = severity(alert.level);
    let (activity_id, activity_name, status_id, status) = activity(alert.status);
    let millis = alert.last.timestamp_millis();
    let techniques: Vec<Value> = attacks(&alert.rule.tags).iter().map(attack).collect();
    let info = object(vec![
        ("uid", alert.id.clone().into()),
        ("title", alert.rule.title.clone().into()),
        ("desc", alert.why.trim().into()),
        ("analytic", analytic(alert)),
        ("attacks", techniques.into()),
        ("first_seen_time", alert.first.timestamp_millis().into()),
        ("last_seen_time", millis.into()),
        ("related_events_count", alert.count.into()),
        ("types", json!(["Kubernetes audit"])),
    ]);
    let confidence = alert.anomaly.as_ref().map(|a| if a.confidence == Confidence::High { 3 } else { 1 });
    object(vec![
        ("category_uid", 2.into()),
        ("category_name", "Findings".into()),
        ("class_uid", CLASS.into()),
        ("class_name", "Detection Finding".into()),
        ("activity_id", activity_id.into()),
        ("activity_name", activity_name.into()),
        ("type_uid", (CLASS * 100 + activity_id).into()),
        ("type_name", format!("Detection Finding: {activity_name}").into()),
        ("severity_id", severity_id.into()),
        ("severity", severity.into()),
        ("status_id", status_id.into()),
        ("status", status.into()),
        ("is_alert", (alert.status != Status::Resolved).into()),
        ("confidence_id", confidence.map_or(Value::Null, Value::from)),
        ("time", millis.into()),
        ("start_time", alert.first.timestamp_millis().into()),
        ("end_time", millis.into()),
        ("count", alert.count.into()),
        ("message", alert.summary.clone().into()),
        ("metadata", metadata(alert)),
        ("finding_info", info),
        ("evidences", alert.evidence.iter().map(|e| evidence(alert, e)).collect()),
        ("resources", resources(alert)),
        ("observables", observables(alert)),
        ("remediation", remediation(alert)),
        ("anomaly_analyses", alert.anomaly.iter().map(|a| analysis(alert, a)).collect()),
        (
            "unmapped",
            json!({ "lapwing": { "actorKind": alert.actor_kind, "status": alert.status, "verdict": alert.verdict,
            "auditIDs": alert.audit_ids, "falsePositives": alert.false_positives } }),
        ),
    ])
}

fn metadata(alert: &Alert) -> Value {
    json!({
        "version": "1.5.0",
        "uid": format!("{}.{}", alert.id, alert.status.as_str()),
        "product": { "name": "Lapwing", "vendor_name": "Lapwing", "version": env!("CARGO_PKG_VERSION") },
        "labels": [format!("cluster:{}", alert.cluster)],
    })
}

/// Rule, or behaviour where a baseline spoke.
fn analytic(alert: &Alert) -> Value {
    let (type_id, kind) = if alert.anomaly.is_some() { (2, "Behavioral") } else { (1, "Rule") };
    object(vec![
        ("uid", alert.rule.id.clone().into()),
        ("name", alert.rule.title.clone().into()),
        ("type_id", type_id.into()),
        ("type", kind.into()),
    ])
}

fn attack(tactic: &Tactic) -> Value {
    let mut pairs = vec![("version", "ATT&CK".into())];
    if let Some((uid, name)) = tactic.tactic {
        pairs.push(("tactic", json!({ "uid": uid, "name": name })));
    }
    if let Some(technique) = &tactic.technique {
        let parent = technique.split('.').next().unwrap_or(technique);
        pairs.push(("technique", json!({ "uid": parent })));
        if parent != technique {
            pairs.push(("sub_technique", json!({ "uid": technique })));
        }
    }
    object(pairs)
}

fn evidence(alert: &Alert, e: &Evidence) -> Value {
    let actor = object(vec![("user", user(&e.actor, &alert.actor_kind))]);
    let api = object(vec![
        ("operation", if e.action.is_empty() { "unknown".into() } else { e.action.clone().into() }),
        ("request", object(vec![("uid", e.audit_id.clone().into())])),
        ("response", e.code.map_or(Value::Null, |code| json!({ "code": code }))),
        ("service", json!({ "name": "kubernetes" })),
    ]);
    let source = e.address.parse::<IpAddr>().map_or(Value::Null, |ip| json!({ "ip": ip }));
    object(vec![
        ("actor", actor),
        ("api", api),
        ("src_endpoint", source),
        ("http_request", object(vec![("user_agent", e.user_agent.clone().into())])),
        ("user", e.acting_as.as_deref().map_or(Value::Null, |name| user(name, "impersonated"))),
        (
            "data",
            json!({ "verb": e.verb, "outcome": e.outcome, "right": e.right, "details": e.details, "time": e.time }),
        ),
    ])
}

fn user(name: &str, kind: &str) -> Value {
    object(vec![("name", name.into()), ("type_id", 99.into()), ("type", kind.into())])
}

/// The objects acted on, each once.
fn resources(alert: &Alert) -> Value {
    let mut found: Vec<Value> = Vec::new();
    for e in &alert.evidence {
        let resource = object(vec![
            ("type", e.resource.clone().into()),
            ("name", e.name.clone().into()),
            ("namespace", e.namespace.clone().into()),
            ("labels", json!([format!("cluster:{}", alert.cluster)])),
            ("uid", format!("{}/{}/{}/{}", alert.cluster, e.namespace, e.resource, e.name).into()),
        ]);
        if !found.contains(&resource) {
            found.push(resource);
        }
    }
    found.into()
}

fn observables(alert: &Alert) -> Value {
    let mut found: Vec<Value> = Vec::new();
    let mut add = |name: &str, type_id: u8, kind: &str, value: &str| {
        let value = json!({ "name": name, "type_id": type_id, "type": kind, "value": value });
        if !found.contains(&value) {
            found.push(value);
        }
    };
    for e in &alert.evidence {
        add("evidences[].actor.user.name", 4, "User Name", &e.actor);
        if e.address.parse::<IpAddr>().is_ok() {
            add("evidences[].src_endpoint.ip", 2, "IP Address", &e.address);
        }
        if !e.user_agent.is_empty() {
            add("evidences[].http_request.user_agent", 16, "HTTP User-Agent", &e.user_agent);
        }
    }
    found.into()
}

fn remediation(alert: &Alert) -> Value {
    if alert.next_steps.is_empty() { Value::Null } else { json!({ "desc": alert.next_steps.join("\n") }) }
}

fn analysis(alert: &Alert, anomaly: &Anomaly) -> Value {
    let target =
        object(vec![("name", anomaly.principal.name.clone().into()), ("type", alert.actor_kind.clone().into())]);
    let anomalies: Vec<Value> = anomaly.reasons.iter().map(deviation).collect();
    let usual = anomaly.reasons.iter().filter(|r| !r.usual.is_empty());
    let baselines: Vec<Value> = usual.map(habit).collect();
    object(vec![
        ("analysis_targets", json!([target])),
        ("anomalies", anomalies.into()),
        ("baselines", baselines.into()),
    ])
}

fn deviation(reason: &Reason) -> Value {
    let pattern = if reason.seen > 0.0 { "RARE" } else { "UNSEEN" };
    json!({ "observation_parameter": reason.dimension, "observation_type": "Frequency Analysis", "observed_pattern": pattern,
        "observations": [{ "value": text(&reason.value), "count": reason.seen.round() as i64 }] })
}

/// What is usual instead.
fn habit(reason: &Reason) -> Value {
    let usual: Vec<Value> = reason.usual.iter().map(|value| json!({ "value": text(value) })).collect();
    json!({ "observation_parameter": reason.dimension, "observation_type": "Frequency Analysis",
        "observed_pattern": "FREQUENT", "observations": usual })
}

fn text(value: &str) -> &str {
    if value.is_empty() { "-" } else { value }
}
