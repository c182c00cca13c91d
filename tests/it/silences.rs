//! Silences over the admin port, made and ended with Debian's amtool as Alertmanager's users do.

use std::process::{Command, Output};

use crate::daemon::{Daemon, fixture, get, lapwing, ndjson, read, stderr, stdout, until};

/// A daemon whose admin port knows an operator and a viewer.
fn guarded(dir: &std::path::Path) -> Daemon {
    let mut daemon = Daemon::prepare(dir, "");
    for (name, token) in [("soc", "soc-0123456789abcdef"), ("eye", "eye-0123456789abcdef")] {
        std::fs::write(dir.join(name), token).expect("written");
        let http = format!("authorization: {{ credentials: {token} }}\n");
        std::fs::write(dir.join(format!("{name}.http")), http).expect("written");
    }
    let user =
        |name: &str, role: &str| format!("{{ name: {name}, role: {role}, tokenFile: {} }}", dir.join(name).display());
    // The tests' own reading of readiness and metrics needs no name.
    let users = format!(", users: [{}, {}] }}\nsources:", user("soc", "operator"), user("eye", "viewer"));
    let config = std::fs::read_to_string(daemon.config()).expect("read").replacen(" }\nsources:", &users, 1);
    std::fs::write(daemon.config(), config).expect("written");
    daemon.run();
    daemon
}

/// Debian's amtool, asking `daemon` as `user`.
fn amtool(daemon: &Daemon, user: Option<&str>, args: &[&str]) -> Output {
    let mut command = Command::new("amtool");
    command.env("HOME", &daemon.dir).arg(format!("--alertmanager.url=http://127.0.0.1:{}", daemon.admin));
    if let Some(user) = user {
        command.arg(format!("--http.config.file={}", daemon.dir.join(format!("{user}.http")).display()));
    }
    command.args(args).output().expect("amtool runs; install it: prometheus-alertmanager")
}

#[test]
fn amtool_makes_lists_changes_and_ends_silences() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut daemon = guarded(dir.path());
    let soc = |args: &[&str]| {
        let output = amtool(&daemon, Some("soc"), args);
        assert!(output.status.success(), "{args:?}: {} {}", stdout(&output), stderr(&output));
        stdout(&output)
    };
    let add =
        ["silence", "add", "exec-into-pod", "cluster=~pr.*", "actor!=bob", "--author=ann", "--comment=a \"drill\""];
    let id = soc(&[&add[..], &["--duration=2h"]].concat()).trim().to_owned();
    let listed = soc(&["silence", "query", "-o", "json"]);
    let listed: serde_json::Value = serde_json::from_str(&listed).expect("JSON");
    assert_eq!((&listed[0]["id"], &listed[0]["createdBy"]), (&id.clone().into(), &"ann (soc)".into()));
    assert_eq!(listed[0]["comment"], "a \"drill\"");
    for (filter, found) in [("alertname=exec-into-pod", true), ("alertname=other", false), ("actor!=bob", false)] {
        assert_eq!(soc(&["silence", "query", filter]).contains(&id), found, "{filter}");
    }

    // It is the command line's too, and keeps alerts from being told.
    let args = ["silence", "list", "--data-dir", &daemon.data_dir()];
    let ours = ndjson(&stdout(&lapwing(&args)));
    assert_eq!(
        (&ours[0]["id"], &ours[0]["owner"], &ours[0]["state"]),
        (&id.clone().into(), &"ann (soc)".into(), &"active".into())
    );
    assert_eq!(
        ours[0]["matchers"],
        serde_json::json!(["rule=\"exec-into-pod\"", "cluster=~\"pr.*\"", "actor!=\"bob\""])
    );
    let events = String::from_utf8(read(&fixture("attacks/exec-ws/events.jsonl.zst"))).expect("UTF-8");
    assert_eq!(daemon.post(events.as_bytes()).expect("an answer").0, 200);
    until("other alerts", || (!daemon.alerts().is_empty()).then_some(()));
    let as_soc = |path: &str| {
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer soc-0123456789abcdef\r\nConnection: close\r\n\r\n"
        );
        crate::daemon::http(daemon.admin, request.as_bytes()).expect("an answer").1
    };
    until("the silenced one", || {
        let metrics = as_soc("/metrics");
        let withheld =
            metrics.lines().find(|l| l.starts_with("lapwing_output_withheld_total") && l.contains("silence"));
        withheld.is_some_and(|l| !l.ends_with(" 0")).then_some(())
    });
    assert!(daemon.alerts().iter().all(|a| a["rule"]["id"] != "exec-into-pod"));

    let same = soc(&["silence", "update", "--duration=4h", &id]);
    assert!(same.contains(&id), "longer, and the same: {same}");
    soc(&["silence", "expire", &id]);
    assert!(!soc(&["silence", "query"]).contains(&id));
    assert!(soc(&["silence", "query", "--expired", "--within=1h"]).contains(&id));
    assert!(!amtool(&daemon, Some("soc"), &["silence", "expire", "00000000"]).status.success());

    // Who may only look, and who is nobody.
    for (user, status) in [(Some("eye"), "403"), (None, "401")] {
        let refused = amtool(&daemon, user, &[&add[..], &["--duration=2h"]].concat());
        assert!(!refused.status.success() && stderr(&refused).contains(status), "{}", stderr(&refused));
    }
    assert!(amtool(&daemon, Some("eye"), &["silence", "query"]).status.success());
    assert!(!amtool(&daemon, None, &["silence", "query"]).status.success());
    let count = ndjson(&stdout(&lapwing(&["silence", "list", "--all", "--data-dir", &daemon.data_dir()]))).len();
    assert_eq!(count, 1, "what was refused was not made");
    assert!(daemon.stop().success());
}

#[test]
fn where_nobody_has_a_name_nobody_silences() {
    let mut daemon = Daemon::start("");
    assert_eq!(get(daemon.admin, "/api/v2/silences").expect("an answer"), (200, "[]".into()));
    let body = r#"{"matchers":[{"name":"actor","value":"eve"}],"startsAt":"2026-01-01T00:00:00Z","endsAt":"2126-01-01T00:00:00Z","createdBy":"eve","comment":"x"}"#;
    let send = |method: &str, path: &str, headers: &str| {
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: application/json\r\n{headers}Content-Length: {}\r\n\r\n{body}",
            body.len()
        );
        crate::daemon::http(daemon.admin, request.as_bytes()).expect("an answer").0
    };
    assert_eq!(send("POST", "/api/v2/silences", ""), 403);
    assert_eq!(send("DELETE", "/api/v2/silence/3f2c9a7e", ""), 403);
    assert_eq!(send("GET", "/api/v2/silences", "Origin: https://evil.example\r\n"), 403);
    assert!(daemon.stop().success());
}
