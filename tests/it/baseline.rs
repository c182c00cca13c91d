//! Baselines as a user meets them: learned from files, shown, compared, told, corrected, and there after a restart.

use serde_json::{Value, json};

use crate::daemon::{Daemon, lapwing, ndjson, stderr, stdout, until};

const USER: &str = "system:serviceaccount:web:front";

/// An hour of the last two weeks, as audit events write it: what is older, retention would remove.
fn at(day: i64, hour: i64) -> String {
    let midnight = chrono::Utc::now().date_naive().and_time(chrono::NaiveTime::MIN).and_utc();
    let time = midnight - chrono::Duration::days(15 - day) + chrono::Duration::hours(hour);
    time.to_rfc3339_opts(chrono::SecondsFormat::Micros, true)
}

fn event(user: &str, verb: &str, resource: &str, agent: &str, address: &str, time: &str) -> Value {
    json!({
        "kind": "Event", "apiVersion": "audit.k8s.io/v1", "level": "Metadata", "stage": "ResponseComplete",
        "auditID": format!("{user}-{verb}-{time}"), "verb": verb, "requestURI": format!("/api/v1/namespaces/web/{resource}"),
        "user": { "username": user, "groups": ["system:serviceaccounts"] }, "sourceIPs": [address], "userAgent": agent,
        "objectRef": { "resource": resource, "namespace": "web", "name": "settings" }, "responseStatus": { "code": 200 },
        "requestReceivedTimestamp": time, "stageTimestamp": time,
    })
}

/// Two weeks in which three service accounts read their settings every hour of the day.
fn history() -> Vec<Value> {
    let mut events = Vec::new();
    for day in 0..14 {
        for hour in 8..18 {
            for user in [USER, "system:serviceaccount:web:back", "system:serviceaccount:pay:ledger"] {
                events.push(event(user, "get", "configmaps", "front/v1.4.2", "10.244.3.9", &at(day, hour)));
            }
        }
    }
    events
}

fn theft() -> Value {
    event(USER, "list", "secrets", "curl/8.1", "185.3.4.5", &at(14, 11))
}

fn lines(events: &[Value]) -> String {
    events.iter().map(|e| format!("{e}\n")).collect()
}

#[test]
fn what_was_learned_can_be_shown_compared_and_asked() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).display().to_string();
    std::fs::write(path("history"), lines(&history())).unwrap();
    std::fs::write(path("theft"), lines(&[theft()])).unwrap();
    let learned = lapwing(&["baseline", "learn", &path("history"), "--to", &path("a.zst")]);
    assert_eq!(learned.status.code(), Some(0), "{}", stderr(&learned));

    let shown = lapwing(&["baseline", "show", USER, "--file", &path("a.zst")]);
    let text = stdout(&shown);
    assert!(text.contains("100 %  get configmaps  (2 peers)") && text.contains("100 %  10.244.0.0/16"), "{text}");
    let nobody = lapwing(&["baseline", "show", "nobody", "--file", &path("a.zst")]);
    assert_eq!(nobody.status.code(), Some(1));

    let on = lapwing(&["baseline", "learn", &path("theft"), "--from", &path("a.zst"), "--to", &path("b.zst")]);
    assert_eq!(on.status.code(), Some(0), "{}", stderr(&on));
    let same = lapwing(&["baseline", "diff", &path("a.zst"), &path("a.zst")]);
    assert_eq!((same.status.code(), stdout(&same)), (Some(0), String::new()));

    let scored = lapwing(&["baseline", "score", "--no-rules", &path("history"), &path("theft")]);
    let scores = ndjson(&stdout(&scored));
    let last = scores.last().unwrap();
    assert!(last["surprise"].as_f64().unwrap() > 8.0, "{last}");
    assert!(scores[100..420].iter().all(|s| s["surprise"].as_f64().unwrap() < 2.0));
}

#[test]
fn a_scan_with_baselines_tells_why() {
    let mut events = history();
    events.push(theft());
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("audit.log");
    std::fs::write(&file, lines(&events)).unwrap();
    let file = file.display().to_string();
    let told = |args: &[&str]| {
        let out = lapwing(&[&["scan", "--output", "ndjson", &file], args].concat());
        let alerts = ndjson(&stdout(&out));
        alerts.into_iter().filter(|a| a["rule"]["id"] == "anomaly-surprise").collect::<Vec<Value>>()
    };
    assert!(told(&[]).is_empty(), "not unless asked");
    let alerts = told(&["--baseline"]);
    let [alert] = alerts.as_slice() else { panic!("one: {alerts:#?}") };
    let anomaly = &alert["anomaly"];
    assert_eq!(anomaly["confidence"], "high");
    let since = anomaly["principal"]["since"].as_str().unwrap().trim_end_matches('Z');
    assert!(at(0, 8).starts_with(since), "{since}");
    let dimensions: Vec<&str> =
        anomaly["reasons"].as_array().unwrap().iter().map(|r| r["dimension"].as_str().unwrap()).collect();
    assert_eq!(dimensions.len(), 3, "{anomaly:#}");
    assert!(dimensions.contains(&"action"));
    assert!(alert["summary"].as_str().unwrap().contains("never before did `list secrets`"), "{alert:#}");
}

fn post(daemon: &Daemon, events: &[Value]) {
    for chunk in events.chunks(200) {
        let list = json!({"kind": "EventList", "apiVersion": "audit.k8s.io/v1", "items": chunk});
        assert_eq!(daemon.post(list.to_string().as_bytes()).unwrap().0, 200);
    }
}

fn show(daemon: &Daemon) -> String {
    stdout(&lapwing(&["baseline", "show", USER, "--data-dir", &daemon.data_dir()]))
}

#[test]
fn imported_baselines_survive_a_restart_alerts_are_corrected_and_rules_stay_loud() {
    let owned = tempfile::tempdir().unwrap();
    let mut daemon = Daemon::prepare(owned.path(), "baseline: { surprise: 8, risk: 10 }\n");
    let history_file = owned.path().join("history");
    std::fs::write(&history_file, lines(&history())).unwrap();
    let data = daemon.data_dir();
    let history_file = history_file.display().to_string();
    let learned = lapwing(&["baseline", "learn", "--cluster", "prod", &history_file, "--data-dir", &data]);
    assert_eq!(learned.status.code(), Some(0), "{}", stderr(&learned));
    daemon.run();
    post(&daemon, &[theft()]);
    let alert = until("an alert of the baselines", || {
        daemon.alerts().into_iter().find(|a| a["rule"]["id"] == "anomaly-surprise")
    });
    assert!(daemon.metric("lapwing_baseline_principals") >= 3.0);
    let id = alert["id"].as_str().unwrap().to_owned();
    daemon.stop();
    assert!(show(&daemon).contains("get configmaps"), "{}", show(&daemon));

    daemon.run();
    let order = until("the alert in the index", || {
        let out = lapwing(&["alert", "benign", &id, "--owner", "platform", "--data-dir", &data]);
        (out.status.code() == Some(0)).then_some(out)
    });
    assert!(stderr(&order).is_empty(), "{}", stderr(&order));
    until("the order to be taken", || daemon.log().contains("baselines follow an order").then_some(()));
    daemon.stop();
    assert!(show(&daemon).contains("list secrets"), "what was called right is learned: {}", show(&daemon));

    let rule = daemon.alerts().into_iter().find(|a| a["anomaly"].is_null()).expect("an alert of a rule");
    let refused = lapwing(&["alert", "benign", rule["id"].as_str().unwrap(), "--owner", "eve", "--data-dir", &data]);
    assert_eq!(refused.status.code(), Some(2), "{} {rule}", stderr(&refused));
    assert!(stderr(&refused).contains("rules are not quieted here"), "{}", stderr(&refused));

    daemon.run();
    let reset = lapwing(&["baseline", "reset", USER, "--data-dir", &data]);
    assert_eq!(reset.status.code(), Some(0), "{}", stderr(&reset));
    until("the reset", || (daemon.log().matches("baselines follow an order").count() == 2).then_some(()));
    daemon.stop();
    assert!(show(&daemon).is_empty(), "{}", show(&daemon));
}
