//! Alerts as documents of the Elastic Common Schema (8.11), and the index template that keeps them small.
//!
//! Only what is searched is a field; the whole alert is one flattened field, so that no name an attacker chose ever becomes
//! a field of the index.

use std::net::IpAddr;

use lapwing_engine::alert::{Alert, Level};
use serde_json::{Value, json};

use super::attack::attacks;
use super::record;

/// As Elastic's own rules have it.
const fn risk(level: Level) -> u8 {
    match level {
        Level::Informational => 1,
        Level::Low => 21,
        Level::Medium => 47,
        Level::High => 73,
        Level::Critical => 99,
    }
}

fn outcome(outcome: &str) -> &'static str {
    match outcome {
        "allowed" | "dry-run" => "success",
        "pending" | "" => "unknown",
        _ => "failure",
    }
}

fn distinct(values: impl Iterator<Item = String>) -> Vec<String> {
    let mut all: Vec<String> = values.filter(|v| !v.is_empty()).collect();
    all.sort();
    all.dedup();
    all
}

/// The document of `alert`; `cut` when something was left out of it.
pub fn document(alert: &Alert, cut: bool) -> Value {
    let lead = alert.evidence.last().cloned().unwrap_or_default();
    let addresses =
        distinct(alert.evidence.iter().filter(|e| e.address.parse::<IpAddr>().is_ok()).map(|e| e.address.clone()));
    let users = alert.evidence.iter().flat_map(|e| [Some(e.actor.clone()), e.acting_as.clone()]).flatten();
    let users = distinct(users.chain([alert.actor.clone()]));
    let attacks = attacks(&alert.rule.tags);
    let mut document = json!({
        "@timestamp": alert.last,
        "ecs": { "version": "8.11.0" },
        "message": alert.summary,
        "event": {
            "kind": "alert", "category": ["intrusion_detection"], "type": ["info"], "provider": "lapwing",
            "module": "lapwing", "dataset": "lapwing.alert", "id": alert.id, "action": lead.action,
            "outcome": outcome(&lead.outcome), "severity": risk(alert.level), "risk_score": risk(alert.level),
            "start": alert.first, "end": alert.last, "reason": alert.why,
        },
        "rule": { "id": alert.rule.id, "name": alert.rule.title, "ruleset": "lapwing" },
        "user": { "name": alert.actor },
        "related": { "user": users, "ip": addresses },
        "orchestrator": {
            "type": "kubernetes", "cluster": { "name": alert.cluster }, "namespace": lead.namespace,
            "resource": { "type": lead.resource, "name": lead.name },
        },
        "observer": { "vendor": "Lapwing", "product": "Lapwing", "type": "ids", "version": env!("CARGO_PKG_VERSION") },
        "tags": alert.rule.tags,
        "labels": { "level": alert.level, "status": alert.status, "verdict": alert.verdict },
        "lapwing": record::own(alert, cut),
    });
    if let Some(ip) = addresses.last() {
        document["source"] = json!({ "ip": ip });
    }
    if !lead.user_agent.is_empty() {
        document["user_agent"] = json!({ "original": lead.user_agent });
    }
    if !attacks.is_empty() {
        let tactics: Vec<_> = attacks.iter().filter_map(|a| a.tactic).collect();
        document["threat"] = json!({
            "framework": "MITRE ATT&CK",
            "tactic": { "id": tactics.iter().map(|t| t.0).collect::<Vec<_>>(), "name": tactics.iter().map(|t| t.1).collect::<Vec<_>>() },
            "technique": { "id": attacks.iter().filter_map(|a| a.technique.as_deref()).collect::<Vec<_>>() },
        });
    }
    document
}

/// The template of the data stream `index`. `flattened` is the name of that type: OpenSearch has another than
/// Elasticsearch.
pub fn template(index: &str, flattened: &str) -> Value {
    let keyword = json!({ "type": "keyword", "ignore_above": 1024 });
    let date = json!({ "type": "date" });
    json!({
        "index_patterns": [index],
        "data_stream": {},
        "priority": 500,
        "_meta": { "description": "Alerts of Lapwing" },
        "template": { "mappings": {
            "dynamic": false,
            "properties": {
                "@timestamp": date,
                "message": { "type": "text" },
                "ecs": { "properties": { "version": keyword } },
                "event": { "properties": {
                    "kind": keyword, "category": keyword, "type": keyword, "provider": keyword, "module": keyword,
                    "dataset": keyword, "id": keyword, "action": keyword, "outcome": keyword,
                    "severity": { "type": "long" }, "risk_score": { "type": "float" }, "start": date, "end": date,
                    "reason": { "type": "text" },
                } },
                "rule": { "properties": { "id": keyword, "name": keyword, "ruleset": keyword } },
                "user": { "properties": { "name": keyword } },
                "related": { "properties": { "user": keyword, "ip": { "type": "ip" } } },
                "source": { "properties": { "ip": { "type": "ip" } } },
                "user_agent": { "properties": { "original": keyword } },
                "orchestrator": { "properties": {
                    "type": keyword, "namespace": keyword, "cluster": { "properties": { "name": keyword } },
                    "resource": { "properties": { "type": keyword, "name": keyword } },
                } },
                "threat": { "properties": {
                    "framework": keyword, "tactic": { "properties": { "id": keyword, "name": keyword } },
                    "technique": { "properties": { "id": keyword } },
                } },
                "tags": keyword,
                "labels": { "properties": { "level": keyword, "status": keyword, "verdict": keyword } },
                "lapwing": { "type": flattened },
            },
        } },
    })
}
