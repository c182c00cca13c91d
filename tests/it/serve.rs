//! The daemon as a whole: answered means stored, stored means judged, judged means delivered, across
//! restarts and kills.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::daemon::{Daemon, fixture, http, lapwing, ndjson, read, stdout, until};

/// Fixtures that make alerts of several rules.
const ATTACKS: [&str; 4] = ["exec-ws", "crb-user", "secret-list-all", "authz-bruteforce"];

fn attack(name: &str) -> Vec<String> {
    let bytes = read(&fixture(&format!("attacks/{name}/events.jsonl.zst")));
    String::from_utf8(bytes).expect("UTF-8").lines().map(str::to_owned).collect()
}

fn event_list(events: &[String]) -> Vec<u8> {
    let items = events.join(",");
    format!(r#"{{"kind":"EventList","apiVersion":"audit.k8s.io/v1","metadata":{{}},"items":[{items}]}}"#).into_bytes()
}

/// Batches as an API server sends them: up to `size` events each.
fn batches(size: usize) -> Vec<Vec<u8>> {
    let events: Vec<String> = ATTACKS.iter().flat_map(|a| attack(a)).collect();
    events.chunks(size).map(event_list).collect()
}

/// Alerts by id, as the last notice told them; without what depends on the arrival of batches.
fn told(daemon: &Daemon) -> BTreeMap<String, Value> {
    let key = |a: &Value| a["id"].as_str().expect("an id").to_owned();
    daemon.alerts().iter().map(|a| (key(a), json!([a["rule"]["id"], a["actor"], a["cluster"]]))).collect()
}

fn accepted(daemon: &Daemon, body: &[u8]) {
    let (code, text) = daemon.post(body).expect("an answer");
    assert_eq!(code, 200, "{text}");
}

fn all_judged(daemon: &Daemon) {
    until("the engine to catch up", || (daemon.metric("lapwing_engine_lag_records") == 0.0).then_some(()));
    until("the file output to catch up", || {
        (daemon.metric("lapwing_output_pending{output=\"out\"}") == 0.0).then_some(())
    });
}

/// What `lapwing search` prints for `query`, as JSON.
fn search(daemon: &Daemon, query: &str) -> Vec<Value> {
    ndjson(&stdout(&lapwing(&[
        "search",
        "--data-dir",
        &daemon.data_dir(),
        "--output",
        "ndjson",
        "--limit",
        "1000",
        query,
    ])))
}

#[test]
fn recorded_requests_are_answered_journaled_alerted_and_searchable() {
    let mut daemon = Daemon::start("");
    for name in ["one-event-of-12-mb", "batch-of-400", "batch-of-20", "blocking-one-event"] {
        let raw = read(&fixture(&format!("webhook/{name}.raw.zst")));
        let (code, body) = http(daemon.webhook, &raw).expect("an answer");
        assert_eq!(code, 200, "{name}: {body}");
    }
    for batch in batches(400) {
        accepted(&daemon, &batch);
    }
    until("alerts", || (daemon.alerts().len() > 8).then_some(()));
    let rules: Vec<String> =
        daemon.alerts().iter().map(|a| a["rule"]["id"].as_str().expect("a rule").to_owned()).collect();
    for wanted in ["exec-downloads-and-runs", "interactive-shell-in-pod"] {
        assert!(rules.iter().any(|r| r == wanted), "{wanted} is not in {rules:?}");
    }
    until("the index", || (daemon.metric("lapwing_index_lag_records") == 0.0).then_some(()));
    let found = search(&daemon, "kind:event action:exec actor:dave@corp.example");
    assert!(!found.is_empty());
    assert!(found.iter().all(|hit| hit["actor"] == "dave@corp.example"), "{found:?}");

    // Every alert can be shown with the events it rests on, beside the running daemon and after it.
    let of_dave = |a: &&Value| a["actor"] == "dave@corp.example";
    let id = daemon.alerts().iter().find(of_dave).expect("an alert")["id"].as_str().expect("an id").to_owned();
    let check = |daemon: &Daemon| {
        let shown = lapwing(&["show", "--data-dir", &daemon.data_dir(), &id]);
        let text = stdout(&shown);
        assert!(shown.status.success(), "{text}");
        assert!(text.contains(&id) && text.contains("dave@corp.example"), "{text}");
    };
    until("the alert in the index", || {
        search(&daemon, "kind:alert").iter().any(|a| a.to_string().contains(&id)).then_some(())
    });
    check(&daemon);
    assert!(daemon.stop().success(), "{}", daemon.log());
    check(&daemon);
    assert_eq!(search(&daemon, "kind:event action:exec actor:dave@corp.example").len(), found.len());
}

#[test]
fn kill_9_in_the_middle_loses_and_repeats_nothing() {
    let batches = batches(40);
    let mut straight = Daemon::start("");
    batches.iter().for_each(|b| accepted(&straight, b));
    all_judged(&straight);
    assert!(straight.stop().success());
    let expected = told(&straight);
    assert!(expected.len() > 8, "{expected:?}");

    let mut daemon = Daemon::start("");
    let mut kills = 0;
    for (i, batch) in batches.iter().enumerate() {
        accepted(&daemon, batch);
        if i % 5 == 2 {
            // What was answered is stored; what comes next meets a process that knows it.
            daemon.kill();
            daemon.run();
            kills += 1;
            // The sender did not see the answer and sends the batch again.
            accepted(&daemon, batch);
        }
    }
    assert!(kills >= 3);
    all_judged(&daemon);
    until("the index", || (daemon.metric("lapwing_index_lag_records") == 0.0).then_some(()));
    assert!(daemon.stop().success());
    assert_eq!(told(&daemon), expected);
    let new: Vec<String> = daemon
        .alerts()
        .iter()
        .filter(|a| a["status"] == "new")
        .map(|a| a["id"].as_str().expect("an id").to_owned())
        .collect();
    let distinct: std::collections::BTreeSet<&String> = new.iter().collect();
    // A kill between delivery and cursor repeats at most what was in hand: one alert a kill.
    assert!(new.len() - distinct.len() <= kills, "{} repeated after {kills} kills", new.len() - distinct.len());

    // Nothing is indexed twice although batches came twice.
    let events: std::collections::BTreeSet<String> = batches
        .iter()
        .flat_map(|b| serde_json::from_slice::<Value>(b).expect("a list")["items"].as_array().expect("items").clone())
        .filter(|e| e["user"]["username"] == "dave@corp.example")
        .map(|e| e.to_string())
        .collect();
    assert_eq!(search(&daemon, "kind:event actor:dave@corp.example").len(), events.len());
}

#[test]
fn a_clean_restart_goes_on_where_it_was() {
    let batches = batches(60);
    let (first, rest) = batches.split_at(batches.len() / 2);
    let mut daemon = Daemon::start("");
    first.iter().for_each(|b| accepted(&daemon, b));
    all_judged(&daemon);
    assert!(daemon.stop().success(), "{}", daemon.log());
    let before = daemon.alerts().len();
    assert!(before > 0);
    daemon.run();
    all_judged(&daemon);
    assert!(daemon.stop().success());
    assert_eq!(daemon.alerts().len(), before, "a restart alone tells nothing again");
    daemon.run();
    rest.iter().for_each(|b| accepted(&daemon, b));
    all_judged(&daemon);
    assert!(daemon.stop().success());
    let mut ids: Vec<String> =
        daemon.alerts().iter().filter(|a| a["status"] == "new").map(|a| a["id"].to_string()).collect();
    let all = ids.len();
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), all, "no alert is new twice");
}

#[test]
fn a_followed_file_is_read_through_a_restart() {
    let dir = tempfile::tempdir().expect("a directory");
    let log = dir.path().join("audit.log");
    let events = attack("exec-ws");
    let (first, rest) = events.split_at(events.len() / 2);
    std::fs::write(&log, first.join("\n") + "\n").expect("written");
    let extra = format!("  files:\n    - {{ path: {}, cluster: prod }}\n", log.display());
    let mut daemon = Daemon::prepare(dir.path(), "");
    let config =
        std::fs::read_to_string(daemon.config()).expect("read").replace("outputs:", &format!("{extra}outputs:"));
    std::fs::write(daemon.config(), config).expect("written");
    daemon.run();
    let received = |daemon: &Daemon| daemon.metric("lapwing_events_received_total{cluster=\"prod\",source=\"file\"}");
    until("the first half", || (received(&daemon) == first.len() as f64).then_some(()));
    daemon.kill();
    let mut text = std::fs::read_to_string(&log).expect("read");
    text.push_str(&(rest.join("\n") + "\n"));
    std::fs::write(&log, text).expect("written");
    daemon.run();
    until("the second half", || (received(&daemon) == rest.len() as f64).then_some(()));
    all_judged(&daemon);
    assert!(daemon.stop().success());
    let log = log.display().to_string();
    let scanned = lapwing(&["scan", "--baseline", "--cluster", "prod", "--output", "ndjson", &log]);
    let expected: std::collections::BTreeSet<String> =
        ndjson(&stdout(&scanned)).iter().map(|a| a["id"].to_string()).collect();
    let got: std::collections::BTreeSet<String> = daemon.alerts().iter().map(|a| a["id"].to_string()).collect();
    assert_eq!(got, expected, "the daemon finds what a scan finds");
}

#[test]
fn a_reload_takes_new_rules_and_keeps_the_old_when_they_are_bad() {
    let dir = tempfile::tempdir().expect("a directory");
    let rules = dir.path().join("rules");
    std::fs::create_dir(&rules).expect("created");
    let rule = |id: &str| {
        format!(
            "title: {id}\nid: {id}\nlogsource: {{ product: kubernetes, service: audit }}\ndetection:\n  selection: {{ action: get }}\n  \
             condition: selection\nlevel: high\n"
        )
    };
    std::fs::write(rules.join("one.yml"), rule("first-own-rule")).expect("written");
    let mut daemon = Daemon::prepare(dir.path(), &format!("rules: {{ paths: [{}] }}\n", rules.display()));
    daemon.run();
    let loaded = daemon.metric("lapwing_rules_loaded");
    let hang_up = |daemon: &Daemon| {
        let sent = std::process::Command::new("kill").args(["-HUP", &daemon.pid().to_string()]).status();
        assert!(sent.expect("kill runs").success());
    };
    std::fs::write(rules.join("two.yml"), rule("second-own-rule")).expect("written");
    hang_up(&daemon);
    until("the new rule", || (daemon.metric("lapwing_rules_loaded") == loaded + 1.0).then_some(()));

    std::fs::write(rules.join("three.yml"), "title: broken\ndetection: {").expect("written");
    hang_up(&daemon);
    until("the refusal", || (daemon.metric("lapwing_rules_last_reload_success") == 0.0).then_some(()));
    assert_eq!(daemon.metric("lapwing_rules_loaded"), loaded + 1.0);
    let event = r#"{"auditID":"a","level":"Metadata","stage":"ResponseComplete","verb":"get","requestURI":"/api/v1/pods/p",
        "user":{"username":"u"},"objectRef":{"resource":"pods","name":"p"},"responseStatus":{"code":200},
        "stageTimestamp":"2026-11-20T10:00:00.000000Z","requestReceivedTimestamp":"2026-11-20T10:00:00.000000Z"}"#;
    accepted(&daemon, &event_list(&[event.to_owned()]));
    all_judged(&daemon);
    assert!(daemon.stop().success());
    let spoke: Vec<Value> = daemon.alerts().iter().map(|a| a["rule"]["id"].clone()).collect();
    assert!(spoke.contains(&json!("first-own-rule")) && spoke.contains(&json!("second-own-rule")), "{spoke:?}");
}

#[test]
fn one_dead_output_does_not_hold_up_another() {
    let dead = crate::daemon::free_port();
    let extra = format!("  - {{ name: dead, type: syslog, address: \"127.0.0.1:{dead}\", format: json }}\n");
    let mut daemon = Daemon::start(&extra);
    batches(400).iter().for_each(|b| accepted(&daemon, b));
    until("the file output", || (daemon.alerts().len() > 5).then_some(()));
    until("the queue of the dead one", || {
        (daemon.metric("lapwing_output_pending{output=\"dead\"}") > 0.0).then_some(())
    });
    until("a retry", || {
        (daemon.metric("lapwing_output_deliveries_total{outcome=\"retry\",output=\"dead\"}") > 0.0).then_some(())
    });
    assert!(daemon.stop().success(), "{}", daemon.log());
}
