//! Data directories of released versions: this version opens them, reads everything, and goes on where they ended.
//!
//! `fixtures/formats/<n>` was written by the first version with that format and is never written again.
//! `LAPWING_RECORD=1 cargo test --test it formats` makes the newest where it is missing.

use std::path::Path;

use serde_json::Value;

use crate::daemon::{Daemon, fixture, lapwing, ndjson, read, stderr, stdout, until};

const NEWEST: u32 = 1;

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("a directory");
    for entry in std::fs::read_dir(from).unwrap_or_else(|e| panic!("{}: {e}", from.display())) {
        let entry = entry.expect("an entry");
        let target = to.join(entry.file_name());
        if entry.path().is_dir() { copy(&entry.path(), &target) } else { drop(std::fs::copy(entry.path(), target)) }
    }
}

/// Two commands in pods, in two batches.
fn bodies() -> [Vec<u8>; 2] {
    let text = String::from_utf8(read(&fixture("malformed/two-lists.body"))).expect("text");
    let start = text.find(r#"{"kind":"Event","#).expect("an event");
    let event = &text[start..text.find(r#"]}{"kind":"EventList""#).expect("an end")];
    ["ada", "bob"].map(|actor| event.replace("two-lists", actor).into_bytes())
}

fn caught_up(daemon: &Daemon) {
    until("the engine", || (daemon.metric("lapwing_engine_lag_records") == 0.0).then_some(()));
    until("the output", || (daemon.metric("lapwing_output_pending{output=\"out\"}") == 0.0).then_some(()));
    until("the index", || (daemon.metric("lapwing_index_lag_records") == 0.0).then_some(()));
}

fn record() {
    let mut daemon = Daemon::start("");
    for body in bodies() {
        assert_eq!(daemon.post(&body).expect("an answer").0, 200);
        caught_up(&daemon);
    }
    assert!(daemon.stop().success());
    // The index is derived and has its own format: it is made again.
    for part in ["journal", "alerts", "state", "outputs"] {
        copy(&daemon.dir.join("data").join(part), &fixture(&format!("formats/{NEWEST}/{part}")));
    }
}

#[test]
fn every_released_format_is_opened_read_and_continued() {
    if std::env::var_os("LAPWING_RECORD").is_some() && !fixture(&format!("formats/{NEWEST}")).exists() {
        record();
    }
    for format in 1..=NEWEST {
        let dir = tempfile::tempdir().expect("a directory");
        copy(&fixture(&format!("formats/{format}")), &dir.path().join("data"));
        let mut daemon = Daemon::prepare(dir.path(), "");
        let verified = lapwing(&["journal", "verify", "--data-dir", &daemon.data_dir()]);
        assert!(verified.status.success(), "{}{}", stdout(&verified), stderr(&verified));
        let stat = ndjson(&stdout(&lapwing(&["journal", "stat", "--data-dir", &daemon.data_dir()])));
        let (events, alerts, output) = (&stat[0], &stat[1], &stat[2]);
        assert_eq!((&events["last"], &alerts["last"]), (&Value::from(2), &output["at"]), "{stat:?}");

        daemon.run();
        caught_up(&daemon);
        assert!(daemon.alerts().is_empty(), "told before: {:?}", daemon.alerts());
        let found = lapwing(&[
            "search",
            "--data-dir",
            &daemon.data_dir(),
            "--output",
            "ndjson",
            "kind:alert rule:exec-into-pod",
        ]);
        assert_eq!(ndjson(&stdout(&found)).len(), 2, "{}", stdout(&found));
        // The same request again is known from the old memory; another is not.
        let [known, _] = bodies();
        assert_eq!(daemon.post(&known).expect("an answer").0, 200);
        let fresh = String::from_utf8(known).expect("text").replace("ada", "eve").into_bytes();
        assert_eq!(daemon.post(&fresh).expect("an answer").0, 200);
        until("the new alert", || (!daemon.alerts().is_empty()).then_some(()));
        caught_up(&daemon);
        let told: Vec<String> = daemon.alerts().iter().map(|a| a["actor"].to_string()).collect();
        assert!(told.iter().all(|actor| actor.contains("eve")), "{told:?}");
        assert!(daemon.stop().success());
    }
}
