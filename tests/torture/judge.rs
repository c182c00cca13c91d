//! Looks at a data directory after the faults: what was acknowledged must be there, once, and nothing invented.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use lapwing::journal::{Lsn, open_read_only, verify};
use lapwing::store::search::MAX_LIMIT;
use lapwing::store::{Ask, Clock, Index, Order, Query};
use lapwing_engine::batch::{Batch, Item};
use lapwing_engine::event::Event;
use serde_json::Value;

use crate::Row;
use crate::daemon::{Daemon, PATIENCE, until};
use crate::sender::{Ledger, actor, audit_id, is_loud};

/// Waits until everything stored is judged, delivered to the file output and indexed.
pub fn settle(daemon: &Daemon) {
    run_dry(daemon, "the engine", "lapwing_engine_lag_records");
    run_dry(daemon, "the file output", "lapwing_output_pending{output=\"out\"}");
    run_dry(daemon, "the index", "lapwing_index_lag_records");
}

/// Waits until nothing is left. A long queue is no fault as long as it gets shorter.
fn run_dry(daemon: &Daemon, who: &str, series: &str) {
    let mut left = daemon.metric(series);
    while left > 0.0 {
        left = until(&format!("{who} to go on"), || Some(daemon.metric(series)).filter(|now| *now < left));
    }
}

/// Settles and stops the daemon, then counts. Adds what it finds to `row`.
pub fn judge(daemon: &mut Daemon, ledger: &Ledger, row: &mut Row) {
    settle(daemon);
    if !daemon.stop().success() {
        row.wrong.push("the daemon did not end well".into());
    }
    let data = Path::new(&daemon.data_dir()).to_owned();
    let acked = ledger.acked.lock().unwrap().clone();
    row.checked += acked.len();
    for journal in ["journal", "alerts"] {
        let report = verify(&data.join(journal)).unwrap();
        if !report.is_clean() {
            row.wrong.push(format!("{journal}: {report:?}"));
        }
    }
    let stored = stored(&data, Lsn(0));
    let missing = |n: &&u32| !stored.contains(&audit_id(**n));
    row.lost += acked.iter().filter(missing).count();

    // Nothing in these trials ends the process by itself: who is killed is not guilty.
    for alert in daemon.alerts() {
        if ["lapwing-replay-diverged", "lapwing-record-set-aside"].map(Value::from).contains(&alert["rule"]["id"]) {
            row.wrong.push(alert["summary"].to_string());
        }
    }
    for journal in ["journal", "alerts"] {
        if let Some(reserved) = reserved(&data.join(journal)) {
            row.wrong.push(format!("{journal}: {reserved} MiB are reserved that nobody will use"));
        }
    }
    let loud: BTreeSet<String> = acked.iter().filter(|n| is_loud(**n)).map(|n| actor(*n)).collect();
    let sent: BTreeSet<String> = (0..ledger.sent()).filter(|n| is_loud(*n)).map(actor).collect();
    let alerted = alerted(&data);
    row.lost += loud.iter().filter(|a| !alerted.contains_key(*a)).count();
    for (who, times) in &alerted {
        if *times > 1 || !sent.contains(who) {
            row.wrong.push(format!(
                "{times} alerts about {who}, who {}",
                if sent.contains(who) { "acted once" } else { "never acted" }
            ));
        }
    }
    let told = told(&daemon.alerts());
    row.lost += loud.iter().filter(|a| !told.contains_key(*a)).count();
    row.duplicates += told.values().map(|times| times - 1).sum::<usize>();

    let found = found(&data);
    row.lost += acked.iter().filter(|n| !found.contains_key(&audit_id(**n))).count();
    let twice = found.values().filter(|times| **times > 1).count();
    if twice > 0 {
        row.wrong.push(format!("{twice} events are found twice"));
    }
}

/// MiB that segments hold beyond their length, apart from the newest, if it is worth a word.
fn reserved(journal: &Path) -> Option<u64> {
    let mut segments: Vec<_> = std::fs::read_dir(journal).unwrap().map(|e| e.unwrap().path()).collect();
    segments.retain(|path| path.extension().is_some_and(|end| end == "wal"));
    segments.sort();
    segments.pop();
    let beyond = segments
        .iter()
        .map(|path| std::fs::metadata(path).unwrap())
        .map(|m| (m.blocks() * 512).saturating_sub(m.len()));
    Some(beyond.sum::<u64>() >> 20).filter(|mib| *mib > 0)
}

/// Audit ids of all events in the event journal behind a record.
pub fn stored(data: &Path, after: Lsn) -> BTreeSet<String> {
    let mut reader = open_read_only(&data.join("journal")).unwrap().reader(after);
    let mut ids = BTreeSet::new();
    while let Some(record) = reader.next().unwrap_or(None) {
        let Ok(batch) = Batch::decode(&record.payload) else { continue };
        for item in &batch.items {
            if let Item::Event(text) = item
                && let Ok(event) = Event::parse(text)
            {
                ids.insert(event.audit_id.to_string());
            }
        }
    }
    ids
}

/// Commands in pods that opened an alert in the alert journal, by actor.
fn alerted(data: &Path) -> BTreeMap<String, usize> {
    let mut reader = open_read_only(&data.join("alerts")).unwrap().reader(Lsn(0));
    let mut alerts = Vec::new();
    while let Some(record) = reader.next().unwrap_or(None) {
        alerts.extend(serde_json::from_slice(&record.payload).ok());
    }
    told(&alerts)
}

/// New alerts about commands in pods, by actor.
pub fn told(alerts: &[Value]) -> BTreeMap<String, usize> {
    let mut told = BTreeMap::new();
    for alert in alerts.iter().filter(|a| a["rule"]["id"] == "exec-into-pod" && a["status"] == "new") {
        *told.entry(alert["actor"].as_str().unwrap().to_owned()).or_default() += 1;
    }
    told
}

/// How often each event is in the index.
fn found(data: &Path) -> BTreeMap<String, usize> {
    let searcher = Index::open_read_only(&data.join("index")).unwrap().searcher().unwrap();
    let mut found = BTreeMap::new();
    // One answer is bounded: what is more is asked for by the digits of the actor.
    let mut questions = vec!["u*".to_owned()];
    while let Some(actor) = questions.pop() {
        let query = Query::parse(&format!("kind:event actor:{actor}"), Clock { now: 0, utc: true }).unwrap();
        let answer =
            searcher.search(&Ask { query, limit: MAX_LIMIT, order: Order::Oldest, within: 5 * PATIENCE }).unwrap();
        if answer.total > MAX_LIMIT {
            let start = actor.trim_end_matches('*');
            questions.extend((0..10).map(|digit| format!("{start}{digit}*")));
            questions.push(format!("{start}@torture.example"));
            continue;
        }
        for hit in answer.hits {
            *found.entry(hit.audit_ids[0].clone()).or_default() += 1;
        }
    }
    found
}

/// Whether the daemon answers a fresh event within the patience of the tests.
pub fn takes(daemon: &Daemon, ledger: &Ledger, row: &mut Row) {
    match ledger.deliver(daemon.webhook, 5, PATIENCE) {
        Some(time) => row.recovery.push(time),
        None => row.wrong.push("no fresh event was taken".into()),
    }
}
