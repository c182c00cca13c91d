//! Kill chains, and rules that ask for the past.

use super::*;

const CHAIN: &str = r#"
title: Denied
id: denied
tags: [attack.t1069, attack.discovery]
logsource: { product: kubernetes, service: audit }
detection: { selection: { outcome: denied }, condition: selection }
level: low
---
title: Denied in shop
id: denied-in-shop
tags: [attack.credential-access]
logsource: { product: kubernetes, service: audit }
detection: { selection: { outcome: denied, target.namespace: shop }, condition: selection }
level: low
---
title: Shell in a pod
id: shell
tags: [attack.execution, attack.lateral-movement]
logsource: { product: kubernetes, service: audit }
detection: { selection: { action: exec }, condition: selection }
level: medium
---
title: Anything read
id: read
tags: [attack.collection]
logsource: { product: kubernetes, service: audit }
detection: { selection: { action: get }, condition: selection }
level: informational
---
title: Deleted
id: deleted
tags: [attack.impact]
logsource: { product: kubernetes, service: audit }
detection: { selection: { action: delete, outcome: allowed }, condition: selection }
level: high
---
title: Kill chain
id: chain
correlation: { type: kill_chain, group-by: [cluster, actor.name], timespan: 10m, condition: { gte: 3 } }
level: high
---
title: Grave kill chain
id: grave-chain
correlation: { type: kill_chain, group-by: [cluster, actor.name], timespan: 10m, condition: { gte: 2 }, level: medium }
level: critical
"#;

fn chains(events: &[String]) -> Vec<Finding> {
    let set = RuleSet::load(vec![(PathBuf::from("rules.yml"), CHAIN.to_owned())], &LoadOptions::default());
    let mut engine = Engine::new(Arc::new(set.expect("good rules")), Options::default());
    let found = feed(&mut engine, events).findings;
    found.into_iter().filter(|f| f.rule.id.ends_with("chain")).collect()
}

#[test]
fn a_kill_chain_is_told_with_its_stages() {
    let removed = |actor, second| event(actor, second, json!({"verb": "delete"}));
    let found = chains(&[denied("eve", 1, "a"), exec("eve", 20, "ResponseStarted"), removed("eve", 40)]);
    let ids: Vec<&str> = found.iter().map(|f| f.rule.id.as_str()).collect();
    assert_eq!(ids, ["chain", "grave-chain"]);
    assert!(
        found[0].summary.starts_with("3 stages of an attack (discovery, execution, impact) within 10 min, the last: "),
        "{}",
        found[0].summary
    );
    assert_eq!(found[0].evidence[1].details[0], "stage: execution, Shell in a pod");
    assert_eq!(found[0].audit_ids, ["eve-1", "eve-20", "eve-40"]);
    assert_eq!(found[1].audit_ids, ["eve-20", "eve-40"], "a low finding is no stage of it");
}

#[test]
fn one_request_or_informational_findings_or_several_actors_make_no_kill_chain() {
    let removed = |actor, second| event(actor, second, json!({"verb": "delete"}));
    // Two rules speak of every denial, one of every read; the same request comes in two stages.
    let alone = [denied("eve", 1, "a"), exec("eve", 20, "ResponseStarted"), exec("eve", 20, "ResponseComplete")];
    assert_eq!(chains(&alone), []);
    assert_eq!(chains(&[denied("eve", 1, "a"), exec("bob", 2, "ResponseComplete"), removed("carol", 3)]), []);
    let slow = [denied("eve", 1, "a"), exec("eve", 2, "ResponseComplete"), removed("eve", 900)];
    assert_eq!(chains(&slow), [], "longer than its time");
    assert_eq!(chains(&[event("eve", 1, json!({})), removed("eve", 2), denied("eve", 3, "a")]), []);
}

#[test]
fn a_kill_chain_names_no_rules_and_a_level_that_exists() {
    let faults = |correlation: &str| {
        let text = format!("title: t\nid: c\ncorrelation: {{ timespan: 1h, {correlation} }}\nlevel: high\n");
        let told = RuleSet::load(vec![(PathBuf::from("r.yml"), text)], &LoadOptions::default()).expect_err(correlation);
        told.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
    };
    assert!(faults("type: kill_chain, condition: { gte: 2 }, level: hihg").contains("did you mean `high`"));
    assert!(faults("type: kill_chain, condition: { gte: 2 }, level: informational").contains("level"));
    assert!(faults("type: kill_chain").contains("gte"));
    assert!(faults("type: event_count, condition: { gte: 2 }").contains("`rules` is missing"));
}

#[test]
fn memory_survives_a_snapshot_and_is_kept_only_for_rules_that_ask() {
    let rule = |field: &str| {
        format!(
            "title: t\nid: r\nlogsource: {{ product: kubernetes, service: audit }}\ndetection: {{ selection: {{ action: exec, {field} }}, condition: selection }}\nlevel: high\n"
        )
    };
    let engine = |text: String| {
        let set = RuleSet::load(vec![(PathBuf::from("r.yml"), text)], &LoadOptions::default());
        Engine::new(Arc::new(set.expect("good rules")), Options::default())
    };
    let spec = json!({"containers": [{"name": "c", "image": "i", "securityContext": {"privileged": true}}]});
    let object = json!({"resource": "pods", "namespace": "shop", "name": "p"});
    let made = event(
        "alice",
        1,
        json!({"verb": "create", "level": "Request", "objectRef": object, "requestObject": {"spec": spec}}),
    );
    let mut before = engine(rule("pod.powers: privileged"));
    assert!(feed(&mut before, std::slice::from_ref(&made)).findings.is_empty());
    let stored = serde_json::to_string(&before).expect("JSON");
    let mut after = engine(rule("pod.powers: privileged"));
    after.restore(&stored).expect("own snapshot");
    let entered = exec("bob", 9, "ResponseComplete");
    let found = feed(&mut after, std::slice::from_ref(&entered)).findings;
    assert_eq!(found.len(), 1);
    assert!(found[0].evidence[0].details.iter().any(|d| d == "the pod can: privileged"), "{:?}", found[0].evidence);
    let mut forgetful = engine(rule("actor.kind: human"));
    feed(&mut forgetful, &[made]);
    assert!(forgetful.memory().sizes().all(|(_, entries, _)| entries == 0));
    // A snapshot from before there was memory.
    let mut old: Value = serde_json::from_str(&stored).expect("JSON");
    old.as_object_mut().expect("an object").remove("memory");
    engine(rule("pod.powers: privileged")).restore(&old.to_string()).expect("restored");
}
