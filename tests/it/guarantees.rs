//! What docs/guarantees.md promises and no other module shows: a full disk, dead letters, damage.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};

use crate::daemon::{Daemon, fixture, get, http, lapwing, ndjson, read, stdout, until};

/// A receiver of webhooks that answers with a status of the test's choice.
fn receiver() -> (u16, Arc<AtomicU16>) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
    let (port, status) = (listener.local_addr().expect("an address").port(), Arc::new(AtomicU16::new(404)));
    let answers = Arc::clone(&status);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.expect("a connection");
            let mut request = [0; 65536];
            // Outputs send one small request a connection here, because the answer closes it.
            let _ = stream.read(&mut request);
            let code = answers.load(Ordering::Acquire);
            let _ = write!(stream, "HTTP/1.1 {code} Said\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        }
    });
    (port, status)
}

fn exec_batch() -> Vec<u8> {
    read(&fixture("malformed/two-lists.body"))
}

#[test]
fn a_dead_letter_is_told_through_the_other_outputs_and_can_be_sent_again() {
    let (port, status) = receiver();
    let dir = tempfile::tempdir().expect("a directory");
    std::fs::write(dir.path().join("hook.key"), "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").expect("written");
    let hook = format!(
        "  - {{ name: hook, type: webhook, url: \"http://127.0.0.1:{port}/\", secretFile: hook.key, minLevel: low, retry: {{ refusedTries: 1 }} }}\n"
    );
    let mut daemon = Daemon::prepare(dir.path(), &hook);
    daemon.run();
    assert_eq!(daemon.post(&exec_batch()).expect("an answer").0, 200);
    let told = until("the alert about the dead letter", || {
        daemon.alerts().into_iter().find(|a| a["rule"]["id"] == "lapwing-dead-letter")
    });
    assert!(told["summary"].as_str().is_some_and(|s| s.contains("Output hook") && s.contains("404")), "{told}");
    until("every alert to be dead", || (daemon.metric("lapwing_output_pending{output=\"hook\"}") == 0.0).then_some(()));
    let config = daemon.config();
    let dead = || ndjson(&stdout(&lapwing(&["output", "dead", "list", "hook", "--config", &config])));
    let letters = dead();
    assert!(letters.len() >= 2, "{letters:?}");
    let own = daemon.alerts().iter().filter(|a| a["rule"]["id"] == "lapwing-dead-letter").count();
    assert_eq!(own, 1, "a dead letter about a dead letter tells nobody");
    let retry = || lapwing(&["output", "dead", "retry", "hook", "--config", &config]).status.code();
    assert_eq!(retry(), Some(1));
    assert_eq!(dead().len(), letters.len());
    status.store(200, Ordering::Release);
    assert_eq!(retry(), Some(0));
    assert_eq!(dead().len(), 0);
    assert!(daemon.stop().success());
}

#[test]
fn without_room_on_the_disk_senders_are_asked_to_come_back_and_somebody_is_told() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut daemon = Daemon::prepare(dir.path(), "");
    let config = std::fs::read_to_string(daemon.config()).expect("read");
    std::fs::write(daemon.config(), config.replace("minFree: 1MiB", "minFree: 4096TiB")).expect("written");
    daemon.spawn();
    let body = exec_batch();
    let request = [
        format!("POST /audit/v1/prod HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n", body.len()).as_bytes(),
        &body,
    ]
    .concat();
    let (code, why) = until("an answer", || http(daemon.webhook, &request).ok());
    assert!(code == 503 && why.contains("almost full"), "{code} {why}");
    let (ready, report) = get(daemon.admin, "/readyz").expect("an answer");
    assert!(ready == 503 && report.contains("nothing is taken in"), "{report}");
    let told = until("an alert", || daemon.alerts().into_iter().find(|a| a["rule"]["id"] == "lapwing-disk-full"));
    assert_eq!((&told["level"], daemon.metric("lapwing_disk_level")), (&"critical".into(), 3.0));
    assert!(daemon.stop().success());
    // With room again everything is as before.
    std::fs::write(daemon.config(), config).expect("written");
    daemon.run();
    assert_eq!(daemon.post(&body).expect("an answer").0, 200);
}

#[test]
fn damage_to_stored_events_is_told_and_costs_only_itself() {
    let mut daemon = Daemon::start("");
    let (one, body) = (|name: &str| String::from_utf8(exec_batch()).expect("text").replace("two-lists", name), 3);
    for n in 0..body {
        assert_eq!(daemon.post(one(&format!("actor{n}")).as_bytes()).expect("an answer").0, 200);
    }
    daemon.kill();
    for lost in ["state", "index"] {
        std::fs::remove_dir_all(daemon.dir.join("data").join(lost)).expect("removed");
    }
    let file = daemon.dir.join("data/journal/00000000000000000001.wal");
    let mut bytes = std::fs::read(&file).expect("read");
    // The payload of the second batch, which has a block of its own on the second page behind the header.
    bytes[3 * 4096 + 100] ^= 1;
    std::fs::write(&file, bytes).expect("written");
    daemon.run();
    let told = until("an alert", || daemon.alerts().into_iter().find(|a| a["rule"]["id"] == "lapwing-journal-damaged"));
    assert!(told["summary"].as_str().is_some_and(|s| s.contains("records 2 to 2")), "{told}");
    assert_eq!(daemon.metric("lapwing_journal_damage_total"), 1.0);
    let verified = lapwing(&["journal", "verify", "events", "--data-dir", &daemon.data_dir()]);
    assert_eq!(verified.status.code(), Some(1), "{}", stdout(&verified));
    assert_eq!(daemon.post(one("after").as_bytes()).expect("an answer").0, 200);
    for actor in ["actor0", "actor2", "after"] {
        until(actor, || daemon.alerts().iter().any(|a| a["actor"].to_string().contains(actor)).then_some(()));
    }
    assert!(daemon.stop().success());
}

#[test]
fn what_is_delivered_again_after_a_restart_is_found_once_and_reused_audit_ids_are_told() {
    let mut daemon = Daemon::start("");
    let body = exec_batch();
    assert_eq!(daemon.post(&body).expect("an answer").0, 200);
    let found = |daemon: &Daemon| {
        let query = ["search", "--data-dir", &daemon.data_dir(), "--output", "ndjson", "kind:event"];
        ndjson(&stdout(&lapwing(&query))).len()
    };
    let events = until("the index", || Some(found(&daemon)).filter(|n| *n > 0));
    assert!(daemon.stop().success());
    // The sender saw no answer: it sends the same to the process that comes after.
    daemon.run();
    assert_eq!(daemon.post(&body).expect("an answer").0, 200);
    until("the duplicates", || (daemon.metric("lapwing_duplicates_total") == events as f64).then_some(()));
    assert_eq!(daemon.metric("lapwing_audit_ids_reused_total"), 0.0);

    let other = String::from_utf8(body).expect("text").replace("two-lists@", "mallory@");
    assert_eq!(daemon.post(other.as_bytes()).expect("an answer").0, 200);
    let told = until("an alert", || daemon.alerts().into_iter().find(|a| a["rule"]["id"] == "lapwing-audit-id-reused"));
    assert!(told["summary"].as_str().is_some_and(|s| s.starts_with("mallory@")), "{told}");
    let judged = |daemon: &Daemon| daemon.alerts().iter().any(|a| a["actor"].to_string().contains("mallory"));
    until("an alert about mallory", || judged(&daemon).then_some(()));
    assert!(daemon.stop().success());
    assert_eq!(found(&daemon), 2 * events, "both are kept");
}

#[test]
fn an_event_of_a_clock_that_is_ahead_is_told() {
    let mut daemon = Daemon::start("");
    let tomorrow = (chrono::Utc::now() + chrono::Duration::days(1)).format("%Y-%m-%dT%H:%M:%S%.6fZ");
    let body = format!(
        r#"{{"kind":"EventList","apiVersion":"audit.k8s.io/v1","items":[{{"level":"Metadata","auditID":"a","stage":"ResponseComplete",
        "requestURI":"/api","verb":"get","user":{{"username":"u"}},"requestReceivedTimestamp":"{tomorrow}","stageTimestamp":"{tomorrow}"}}]}}"#
    );
    assert_eq!(daemon.post(body.as_bytes()).expect("an answer").0, 200);
    let told = until("an alert", || daemon.alerts().into_iter().find(|a| a["rule"]["id"] == "lapwing-clock-skew"));
    assert!(told["summary"].as_str().is_some_and(|s| s.contains("seconds in the future")), "{told}");
    assert_eq!(daemon.metric("lapwing_clock_skew_total{cluster=\"prod\",direction=\"ahead\"}"), 1.0);
    assert!(daemon.stop().success());
}

#[test]
fn an_address_outputs_may_not_talk_to_is_opened_by_the_configuration_alone() {
    let dir = tempfile::tempdir().expect("a directory");
    let check = |extra: &str| {
        let daemon = Daemon::prepare(
            dir.path(),
            &format!("  - {{ name: hook, type: webhook, url: 'https://169.254.77.1/x' }}\n{extra}"),
        );
        lapwing(&["config", "check", "--config", &daemon.config()])
    };
    let refused = check("");
    assert!(!refused.status.success() && format!("{refused:?}").contains("outbound.allow"), "{refused:?}");
    let opened = check("outbound: { allow: [169.254.77.0/24] }\n");
    assert!(opened.status.success(), "{opened:?}");
}
