//! What the engine promises: once per request, the same from the same, bounded, honest about what it
//! cannot know.

mod chain;

use std::path::PathBuf;
use std::sync::Arc;

use serde_json::{Value, json};

use super::*;
use crate::alert::Status;
use crate::rule::set::LoadOptions;

const RULES: &str = r#"
title: Shell in a pod
id: shell
logsource: { product: kubernetes, service: audit }
detection: { selection: { action: exec }, condition: selection }
level: medium
lapwing: { next_steps: ["kubectl describe pod {name} -n {namespace}"] }
---
title: Denied
id: denied
logsource: { product: kubernetes, service: audit }
detection: { selection: { outcome: denied }, condition: selection }
level: low
---
title: Privileged
id: privileged
logsource: { product: kubernetes, service: audit }
detection: { selection: { action: create, workload.privileged: true }, condition: selection }
level: high
---
title: Many denials
id: many-denied
correlation: { type: event_count, rules: [denied], group-by: [actor.name], timespan: 1m, condition: { gte: 3 } }
level: high
---
title: Many secrets asked for
id: many-names
correlation:
  type: value_count
  rules: [denied]
  group-by: [actor.name]
  timespan: 1m
  condition: { gte: 2, field: target.name }
level: medium
---
title: Denied, then in
id: denied-then-shell
correlation: { type: temporal_ordered, rules: [denied, shell], group-by: [actor.name], timespan: 5m, generate: true }
level: critical
"#;

fn engine() -> Engine {
    let set = RuleSet::load(vec![(PathBuf::from("rules.yml"), RULES.to_owned())], &LoadOptions::default());
    Engine::new(Arc::new(set.expect("good rules")), Options::default())
}

/// One event of `actor`, `second` seconds into the day; `more` is laid over it.
fn event(actor: &str, second: u32, more: Value) -> String {
    let time = format!("2026-11-20T10:{:02}:{:02}.000000Z", second / 60, second % 60);
    let mut event = json!({
        "level": "Metadata", "auditID": format!("{actor}-{second}"), "stage": "ResponseComplete", "verb": "get",
        "requestURI": "/api/v1/namespaces/shop/secrets/a", "user": {"username": actor}, "sourceIPs": ["192.0.2.1"],
        "objectRef": {"resource": "secrets", "namespace": "shop", "name": "a"}, "responseStatus": {"code": 200},
        "requestReceivedTimestamp": time, "stageTimestamp": time,
    });
    for (key, value) in more.as_object().expect("an object") {
        event[key] = value.clone();
    }
    event.to_string()
}

fn denied(actor: &str, second: u32, name: &str) -> String {
    let object = json!({"resource": "secrets", "namespace": "shop", "name": name});
    event(actor, second, json!({"responseStatus": {"code": 403}, "objectRef": object}))
}

fn exec(actor: &str, second: u32, stage: &str) -> String {
    let object = json!({"resource": "pods", "namespace": "shop", "name": "p", "subresource": "exec"});
    let uri = "/api/v1/namespaces/shop/pods/p/exec?command=mysql&command=--password%3Dhunter22hunter22";
    event(
        actor,
        second,
        json!({"stage": stage, "objectRef": object, "requestURI": uri, "responseStatus": {"code": 101}}),
    )
}

fn feed(engine: &mut Engine, events: &[String]) -> Output {
    let mut out = Output::default();
    for text in events {
        let now = Event::parse(text).expect("an event").time().expect("a time");
        engine.event("prod", text, now, &|| "1:0".to_owned(), &mut out).expect("an event");
    }
    out
}

fn ids(out: &Output) -> Vec<(&str, Verdict)> {
    out.findings.iter().map(|f| (f.rule.id.as_str(), f.verdict)).collect()
}

#[test]
fn stages_and_repeated_deliveries_of_a_request_are_one_finding() {
    let stages = ["RequestReceived", "ResponseStarted", "ResponseComplete", "ResponseComplete"];
    let events: Vec<String> = stages.iter().map(|s| exec("eve", 1, s)).collect();
    let mut engine = engine();
    let out = feed(&mut engine, &events);
    assert_eq!(ids(&out), [("shell", Verdict::Match)]);
    assert_eq!(engine.counts().repeated, 2);
    // Another request under the same audit id, which clients may choose, is another request.
    let time = "2026-11-20T10:00:05.000000Z";
    let mut reused: Value = serde_json::from_str(&exec("eve", 1, "ResponseComplete")).expect("JSON");
    reused["requestReceivedTimestamp"] = json!(time);
    assert_eq!(feed(&mut engine, &[reused.to_string()]).findings.len(), 1);
}

#[test]
fn what_is_found_names_no_secret_and_can_be_acted_on() {
    let out = feed(&mut engine(), &[exec("eve", 1, "ResponseComplete")]);
    let text = serde_json::to_string(&(&out.findings, &out.alerts)).expect("JSON");
    assert!(!text.contains("hunter22"), "{text}");
    assert!(text.contains("mysql"), "the rest of the command stays readable: {text}");
    assert_eq!(out.alerts[0].next_steps, ["kubectl describe pod p -n shop"]);
    assert_eq!(out.alerts[0].evidence[0].position, "1:0");
}

#[test]
fn a_burst_fires_per_actor_and_its_base_rule_stays_silent_unless_told_otherwise() {
    let mut events = Vec::new();
    for second in [1, 20, 40] {
        events.push(denied("eve", second, "a"));
        events.push(denied(&format!("other-{second}"), second, "a"));
    }
    let out = feed(&mut engine(), &events);
    // `denied-then-shell` says `generate`, so the base rule speaks as well.
    assert_eq!(out.findings.iter().filter(|f| f.rule.id == "denied").count(), 6);
    let bursts: Vec<&Finding> = out.findings.iter().filter(|f| f.rule.id == "many-denied").collect();
    assert_eq!(bursts.len(), 1);
    assert_eq!(bursts[0].actor, "eve");
    assert_eq!(bursts[0].audit_ids, ["eve-1", "eve-20", "eve-40"]);
    assert!(bursts[0].summary.starts_with("3 requests within 1 min"), "{}", bursts[0].summary);
}

#[test]
fn distinct_values_and_sequences() {
    let same = [denied("eve", 1, "a"), denied("eve", 2, "a")];
    assert!(!ids(&feed(&mut engine(), &same)).iter().any(|(id, _)| *id == "many-names"));
    let two = [denied("eve", 1, "a"), denied("eve", 2, "b")];
    assert!(ids(&feed(&mut engine(), &two)).iter().any(|(id, _)| *id == "many-names"));

    let in_order = [denied("eve", 1, "a"), exec("eve", 9, "ResponseStarted"), exec("eve", 9, "ResponseComplete")];
    let out = feed(&mut engine(), &in_order);
    let chains: Vec<&Finding> = out.findings.iter().filter(|f| f.rule.id == "denied-then-shell").collect();
    assert_eq!(chains.len(), 1);
    assert_eq!(chains[0].audit_ids, ["eve-1", "eve-9"]);
    let wrong_order = [exec("eve", 1, "ResponseComplete"), denied("eve", 9, "a")];
    assert!(!ids(&feed(&mut engine(), &wrong_order)).iter().any(|(id, _)| *id == "denied-then-shell"));
    let two_actors = [denied("eve", 1, "a"), exec("bob", 9, "ResponseComplete")];
    assert!(!ids(&feed(&mut engine(), &two_actors)).iter().any(|(id, _)| *id == "denied-then-shell"));
}

fn pod(second: u32, more: Value) -> String {
    let mut base = json!({"verb": "create", "objectRef": {"resource": "pods", "namespace": "shop"}, "responseStatus": {"code": 201}});
    for (key, value) in more.as_object().expect("an object") {
        base[key] = value.clone();
    }
    event("eve", second, base)
}

#[test]
fn a_hidden_body_is_a_finding_and_a_blind_policy_is_told_once_a_day() {
    let cut = json!({"level": "RequestResponse", "annotations": {"audit.k8s.io/truncated": "true"}});
    let out = feed(&mut engine(), &[pod(1, cut.clone()), pod(2, cut)]);
    assert_eq!(ids(&out), [("privileged", Verdict::Undecidable); 2]);
    assert_eq!(out.findings[0].rule.level, Level::Medium);
    assert!(out.findings[0].reason.contains("truncated"), "{}", out.findings[0].reason);

    let mut engine = engine();
    let out = feed(&mut engine, &[pod(1, json!({})), pod(2, json!({}))]);
    assert_eq!(ids(&out), [("privileged", Verdict::Undecidable)]);
    assert_eq!(out.findings[0].rule.level, Level::Informational);
    assert_eq!(engine.counts().undecidable.values().sum::<u64>(), 2, "all of them are counted");

    let refused = pod(1, json!({"responseStatus": {"code": 403}}));
    assert!(!ids(&feed(&mut super::tests::engine(), &[refused])).iter().any(|(id, _)| *id == "privileged"));
}

#[test]
fn a_user_that_cannot_be_read_is_not_nobody() {
    let rules = RULES.replace("selection: { action: exec }", "selection: { action: exec, actor.kind: anonymous }");
    let set = RuleSet::load(vec![(PathBuf::from("rules.yml"), rules)], &LoadOptions::default());
    let mut engine = Engine::new(Arc::new(set.expect("good rules")), Options::default());
    let mut nobody: Value = serde_json::from_str(&exec("x", 1, "ResponseComplete")).expect("JSON");
    nobody["user"] = json!({});
    assert_eq!(ids(&feed(&mut engine, &[nobody.to_string()])), [("shell", Verdict::Match)]);
    let mut odd = nobody.clone();
    odd["user"] = json!("admin");
    odd["requestReceivedTimestamp"] = json!("2026-11-20T11:00:00.000000Z");
    assert_eq!(ids(&feed(&mut engine, &[odd.to_string()])), []);
    assert_eq!(engine.counts().undecidable.values().sum::<u64>(), 1);
}

#[test]
fn a_body_that_is_there_decides() {
    let with = |privileged: bool| {
        let spec = json!({"spec": {"containers": [{"name": "c", "image": "i", "securityContext": {"privileged": privileged}}]}});
        pod(1, json!({"level": "Request", "requestObject": spec}))
    };
    assert_eq!(ids(&feed(&mut engine(), &[with(true)])), [("privileged", Verdict::Match)]);
    assert_eq!(ids(&feed(&mut engine(), &[with(false)])), []);
}

/// A mixed stream that touches every kind of memory.
fn stream() -> Vec<String> {
    let mut events = Vec::new();
    for second in 0..120 {
        let actor = format!("actor-{}", second % 7);
        events.push(match second % 4 {
            0 => exec(&actor, second, "ResponseStarted"),
            1 => pod(second, json!({})),
            _ => denied(&actor, second, if second % 3 == 0 { "a" } else { "b" }),
        });
    }
    events
}

#[test]
fn the_same_stream_gives_the_same_ids() {
    let (a, b) = (feed(&mut engine(), &stream()), feed(&mut engine(), &stream()));
    assert_eq!(a.findings, b.findings);
    assert_eq!(a.alerts, b.alerts);
    assert!(a.findings.len() > 50);
}

#[test]
fn a_snapshot_at_any_place_has_the_same_future() {
    let events = stream();
    for at in [0, 1, 17, 60, 119] {
        let (before, after) = events.split_at(at);
        let mut straight = engine();
        feed(&mut straight, before);
        let stored = serde_json::to_string(&straight).expect("data");
        let mut restored = engine();
        restored.restore(&stored).expect("own snapshot");
        let (mut a, mut b) = (feed(&mut straight, after), feed(&mut restored, after));
        straight.finish(&mut a);
        restored.finish(&mut b);
        assert_eq!(a.findings, b.findings, "snapshot at {at}");
        assert_eq!(a.alerts, b.alerts, "snapshot at {at}");
    }
}

#[test]
fn other_rules_go_on_with_what_is_remembered() {
    let events = stream();
    let (mut straight, mut changed) = (engine(), engine());
    feed(&mut straight, &events[..60]);
    feed(&mut changed, &events[..60]);
    // The same under other numbers, behind a rule that was not there.
    let first = "title: First\nid: first\nlevel: low\nlogsource: { product: kubernetes, service: audit }\n\
                 detection: { selection: { verb: nothing }, condition: selection }\n";
    let files = vec![(PathBuf::from("a.yml"), first.to_owned()), (PathBuf::from("rules.yml"), RULES.to_owned())];
    changed.change_rules(Arc::new(RuleSet::load(files, &LoadOptions::default()).expect("good rules")));
    // A request that fired already is told again by neither.
    let (mut a, mut b) = (feed(&mut straight, &events[50..]), feed(&mut changed, &events[50..]));
    straight.finish(&mut a);
    changed.finish(&mut b);
    assert!(a.findings.len() > 1);
    assert_eq!((a.findings, a.alerts), (b.findings, b.alerts));
}

#[test]
fn an_alert_is_told_at_once_and_once_more_when_it_grew() {
    let mut engine = engine();
    let mut out = feed(&mut engine, &[exec("eve", 1, "ResponseComplete"), exec("eve", 2, "ResponseComplete")]);
    assert_eq!(out.alerts.iter().map(|a| a.status).collect::<Vec<_>>(), [Status::New]);
    let due = engine.next_tick().expect("an open group");
    engine.tick(due - 1, &mut out);
    assert_eq!(out.alerts.len(), 1);
    engine.tick(due, &mut out);
    let last = out.alerts.last().expect("an update");
    assert_eq!((last.status, last.count, &last.id), (Status::Update, 2, &out.alerts[0].id));
}

#[test]
fn findings_below_the_least_level_are_counted_and_not_told() {
    let set = RuleSet::load(vec![(PathBuf::from("rules.yml"), RULES.to_owned())], &LoadOptions::default());
    let options = Options { min_level: Level::High, ..Options::default() };
    let mut engine = Engine::new(Arc::new(set.expect("good rules")), options);
    let out = feed(&mut engine, &[exec("eve", 1, "ResponseComplete")]);
    assert!(out.findings.is_empty() && out.alerts.is_empty());
    assert_eq!(engine.counts().findings.values().sum::<u64>(), 1);
}

#[test]
fn an_upper_bound_alone_cannot_be_judged_in_a_stream() {
    let rules = RULES.replace("condition: { gte: 3 }", "condition: { lt: 3 }");
    let problems = RuleSet::load(vec![(PathBuf::from("rules.yml"), rules)], &LoadOptions::default());
    let problems: Vec<String> = problems.expect_err("a problem").iter().map(ToString::to_string).collect();
    assert!(problems[0].contains("needs a lower bound"), "{problems:?}");
}

/// Alerts are the same whether findings that none of them shows are put into words or not.
#[test]
fn brief_findings_make_the_same_alerts() {
    // A name that is redacted must be the same name in a finding without words.
    let events: Vec<String> = (0..40).map(|i| exec("bob --password=hunter22hunter22", i, "ResponseComplete")).collect();
    let run = |brief| {
        let rules = engine().rules;
        let mut engine = Engine::new(rules, Options { brief, ..Options::default() });
        let mut out = feed(&mut engine, &events);
        engine.finish(&mut out);
        out
    };
    let (full, brief) = (run(false), run(true));
    assert_eq!(full.alerts, brief.alerts);
    for (full, brief) in full.findings.iter().zip(&brief.findings) {
        assert_eq!((&full.id, &full.actor, &full.audit_ids), (&brief.id, &brief.actor, &brief.audit_ids));
        assert!(!full.actor.contains("hunter22"));
    }
    let worded = |out: &Output| out.findings.iter().filter(|f| !f.summary.is_empty()).count();
    assert_eq!((worded(&full), worded(&brief)), (40, MAX_EVIDENCE));
}
