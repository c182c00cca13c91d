//! Ten attacks through every wrapper: a rule is written once and holds for all. What a source does not carry makes the
//! rules that need it undecidable, not silent; `docs/sources.md` lists them, and this test keeps that list true.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::sync::{Arc, OnceLock};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use lapwing::input::{Events, Limits};
use lapwing::ruleset::Selection;
use lapwing_engine::engine::{Engine, Options, Output};
use lapwing_engine::rule::correlation::Part;
use lapwing_engine::rule::set::RuleSet;
use serde_json::{Value, json};

use crate::daemon::{fixture, read};

const ATTACKS: [&str; 10] = [
    "anon-granted",
    "authn-401",
    "crb-user",
    "csr-clusteradmin",
    "exec-ws",
    "impersonation",
    "mutating-webhook",
    "nodes-proxy",
    "priv-pod",
    "secret-list-all",
];

fn events(attack: &str) -> Vec<Value> {
    let bytes = read(&fixture(&format!("attacks/{attack}/events.jsonl.zst")));
    let text = String::from_utf8(bytes).expect("UTF-8");
    text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

/// What the rules said of a stream.
#[derive(Debug, Default, PartialEq)]
struct Said {
    /// Ids of findings, which are made of rule, cluster and requests.
    ids: BTreeSet<String>,
    matched: BTreeSet<String>,
    undecided: BTreeSet<String>,
}

fn rules() -> Arc<RuleSet> {
    static RULES: OnceLock<Arc<RuleSet>> = OnceLock::new();
    Arc::clone(RULES.get_or_init(|| Selection::default().load().expect("rules")))
}

fn judge(body: &[u8]) -> Said {
    let mut engine = Engine::new(rules(), Options::default());
    let (mut out, mut said) = (Output::default(), Said::default());
    let mut events = Events::new(body, Limits::default());
    while let Some(item) = events.next() {
        let text = item.unwrap_or_else(|e| panic!("{e}")).to_owned();
        engine
            .event("prod", &text, 1_795_190_557_000_000, &String::new, &mut out)
            .unwrap_or_else(|e| panic!("{e}: {text}"));
    }
    for finding in out.findings.iter().filter(|f| f.verdict == lapwing_engine::alert::Verdict::Match) {
        said.ids.insert(finding.id.clone());
        said.matched.insert(finding.rule.id.clone());
    }
    let undecided = engine.counts().undecidable.keys().filter_map(|index| engine.meta(*index));
    said.undecided = undecided.map(|meta| meta.id.clone()).collect();
    said
}

fn gzip(text: &str) -> Vec<u8> {
    let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    out.write_all(text.as_bytes()).expect("gzip");
    out.finish().expect("gzip")
}

fn subscription(events: &[Value]) -> String {
    let lines: Vec<Value> = events
        .iter()
        .map(|e| json!({"id": "1", "timestamp": 1_795_190_557_089_i64, "message": e.to_string()}))
        .collect();
    json!({"messageType": "DATA_MESSAGE", "logGroup": "/aws/eks/prod/cluster", "logStream": "kube-apiserver-audit-0a",
        "logEvents": lines})
    .to_string()
}

fn each(events: &[Value], wrap: impl Fn(String) -> Value) -> String {
    events.iter().map(|event| wrap(event.to_string()).to_string() + "\n").collect()
}

/// Every wrapper that carries the whole event.
fn wrappers(events: &[Value]) -> BTreeMap<&'static str, String> {
    let records = |data: Vec<u8>| json!({"data": STANDARD.encode(data)});
    let halves = || events.chunks(events.len().div_ceil(2));
    BTreeMap::from([
        (
            "EventList",
            json!({"kind": "EventList", "apiVersion": "audit.k8s.io/v1", "metadata": {}, "items": events}).to_string(),
        ),
        ("array", json!(events).to_string()),
        (
            "Vector",
            each(events, |e| json!({"file": "/a", "host": "h", "message": e, "source_type": "file", "timestamp": "t"})),
        ),
        (
            "Fluent Bit",
            json!(events.iter().map(|e| json!({"date": 1.5, "log": e.to_string() + "\n"})).collect::<Vec<_>>())
                .to_string(),
        ),
        (
            "Filebeat",
            each(
                events,
                |e| json!({"@timestamp": "t", "log": {"offset": 1}, "message": e, "input": {"type": "filestream"}}),
            ),
        ),
        (
            "container log",
            each(events, |e| json!({"log": format!("2026-11-20T16:02:37Z stdout F {e}"), "stream": "stdout"})),
        ),
        (
            "AKS",
            json!({"records": events.iter().map(|e| json!({"category": "kube-audit", "operationName": "x",
            "properties": {"log": e.to_string(), "stream": "stdout", "pod": "p"}})).collect::<Vec<_>>()})
            .to_string(),
        ),
        ("CloudWatch", halves().map(subscription).collect()),
        (
            "Firehose",
            json!({"requestId": "r", "timestamp": 1,
            "records": halves().map(|half| records(gzip(&subscription(half)))).collect::<Vec<_>>()})
            .to_string(),
        ),
        (
            "Pub/Sub",
            each(events, |e| json!({"message": {"data": STANDARD.encode(e), "messageId": "1"}, "subscription": "s"})),
        ),
        (
            "OpenShift",
            events
                .iter()
                .map(|event| {
                    let mut event = event.clone();
                    let level = event["level"].take();
                    event["level"] = "default".into();
                    event["k8s_audit_level"] = level;
                    event["@timestamp"] = "t".into();
                    event["log_type"] = "audit".into();
                    event.to_string() + "\n"
                })
                .collect(),
        ),
    ])
}

#[test]
fn ten_attacks_say_the_same_through_every_wrapper() {
    for attack in ATTACKS {
        let events = events(attack);
        let plain = judge(each(&events, |e| serde_json::from_str(&e).expect("JSON")).as_bytes());
        assert!(!plain.ids.is_empty(), "{attack}");
        for (name, body) in wrappers(&events) {
            assert_eq!(judge(body.as_bytes()), plain, "{attack} in {name}");
        }
    }
}

/// The entry Cloud Logging makes of an event; GKE writes none for a request that was only received.
fn gke(event: &Value) -> Option<Value> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let object = &event["objectRef"];
    let (group, version) = (text(&object["apiGroup"]), text(&object["apiVersion"]));
    let (resource, sub) = (text(&object["resource"]), text(&object["subresource"]));
    let (method, place) = if object.is_object() {
        let family = match &*group {
            "" => "core".to_owned(),
            "rbac.authorization.k8s.io" => "authorization.rbac".to_owned(),
            group => group.trim_end_matches(".k8s.io").to_owned(),
        };
        let own = resource == "namespaces";
        let namespace = text(&object["namespace"]);
        let parts = [
            if group.is_empty() { "core".to_owned() } else { group },
            version.clone(),
            if namespace.is_empty() || own { String::new() } else { format!("namespaces/{namespace}") },
            resource.clone(),
            text(&object["name"]),
            sub.clone(),
        ];
        let place: Vec<String> = parts.into_iter().filter(|part| !part.is_empty()).collect();
        let method: Vec<String> =
            [family, version, resource, sub].into_iter().filter(|part| !part.is_empty()).collect();
        (method.join(".") + ".", place.join("/"))
    } else {
        let uri = text(&event["requestURI"]);
        (String::new(), uri.split('?').next().unwrap_or_default().trim_start_matches('/').to_owned())
    };
    let code = match event["responseStatus"]["code"].as_i64().unwrap_or(0) {
        ..=399 => 0,
        401 => 16,
        403 => 7,
        404 => 5,
        409 => 10,
        400 | 422 => 3,
        429 => 8,
        503 => 14,
        504 => 4,
        _ => 13,
    };
    let mut payload = json!({
        "@type": "type.googleapis.com/google.cloud.audit.AuditLog", "serviceName": "k8s.io",
        "methodName": format!("io.k8s.{method}{}", text(&event["verb"])), "resourceName": place,
        "authenticationInfo": {}, "status": {"code": code, "message": event["responseStatus"]["message"]},
        "authorizationInfo": [{"granted": event["annotations"]["authorization.k8s.io/decision"] == "allow", "resource": place}],
        "requestMetadata": {"callerIp": event["sourceIPs"].as_array()?.last()?, "callerSuppliedUserAgent": text(&event["userAgent"])},
    });
    for (member, part) in [("principalEmail", &event["user"]), ("authoritySelector", &event["impersonatedUser"])] {
        if let Some(name) = part["username"].as_str() {
            payload["authenticationInfo"][member] = name.into();
        }
    }
    for (member, part) in [("request", "requestObject"), ("response", "responseObject")] {
        if !event[part].is_null() {
            payload[member] = event[part].clone();
        }
    }
    payload["status"].as_object_mut()?.retain(|_, value| !value.is_null());
    let started = event["stage"] == "ResponseStarted";
    (event["stage"] != "RequestReceived").then(|| {
        json!({"insertId": "i", "logName": "projects/p/logs/cloudaudit.googleapis.com%2Factivity", "protoPayload": payload,
            "labels": event["annotations"], "timestamp": event["stageTimestamp"],
            "operation": {"id": event["auditID"], "producer": "k8s.io", "first": true, "last": !started}})
    })
}

/// Ids of the rules a correlation rests on, as far down as they go.
fn bases(rules: &RuleSet, id: &str) -> BTreeSet<String> {
    let Some(correlation) = rules.correlations().iter().find(|c| c.meta.id == id) else {
        return BTreeSet::from([id.to_owned()]);
    };
    let of = |part: &Part| match *part {
        Part::Rule(at) => BTreeSet::from([rules.rules()[at].meta.id.clone()]),
        Part::Correlation(at) => bases(rules, &rules.correlations()[at].meta.id),
    };
    correlation.parts.iter().flat_map(of).collect()
}

const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/sources.md");
const HEAD: &str = "| attack | found as with a plain log | undecidable on GKE |\n|---|---|---|\n";

#[test]
fn what_gke_does_not_carry_is_undecidable_and_listed() {
    let rules = rules();
    let mut rows = String::new();
    for attack in ATTACKS {
        let events = events(attack);
        let plain = judge(each(&events, |e| serde_json::from_str(&e).expect("JSON")).as_bytes());
        let entries: Vec<Value> = events.iter().filter_map(gke).collect();
        let said = judge(each(&entries, |e| serde_json::from_str(&e).expect("JSON")).as_bytes());
        let lost: Vec<&String> = plain.matched.difference(&said.matched).collect();
        for rule in &lost {
            let undecided = !bases(&rules, rule).is_disjoint(&said.undecided);
            assert!(undecided, "{attack}: `{rule}` is silent on GKE, expected undecidable");
        }
        let more: Vec<&String> = said.matched.difference(&plain.matched).collect();
        assert!(more.is_empty(), "{attack}: only on GKE: {more:?}");
        let list = |rules: Vec<&String>| match rules.as_slice() {
            [] => "—".to_owned(),
            rules => rules.iter().map(|rule| format!("`{rule}`")).collect::<Vec<_>>().join(", "),
        };
        let kept = plain.matched.intersection(&said.matched).collect();
        rows.push_str(&format!("| {attack} | {} | {} |\n", list(kept), list(lost)));
    }
    let page = std::fs::read_to_string(PAGE).expect("the page");
    let (before, table) = page.split_once(HEAD).expect("the table");
    let after = table.find("\n\n").map_or("", |at| &table[at + 1..]);
    let fresh = format!("{before}{HEAD}{rows}{after}");
    if std::env::var_os("LAPWING_RECORD").is_some() {
        std::fs::write(PAGE, &fresh).expect("the page is written");
    }
    assert!(page == fresh || std::env::var_os("LAPWING_RECORD").is_some(), "docs/sources.md is out of date:\n{rows}");
}
