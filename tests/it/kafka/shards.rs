//! Two detectors that share their storage, killed in turn under load: a partition takes its journal, its memory and its
//! alerts along, so that nothing is lost and nothing is told twice.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use rdkafka::producer::{BaseProducer, BaseRecord, Producer};

use super::broker::Broker;
use super::real::{Sender, detector};
use crate::daemon::{Daemon, fixture, lapwing, ndjson, read, stdout, until};

const PARTITIONS: i32 = 3;

/// A detector with a configuration of its own and storage it shares.
fn sharded(dir: &std::path::Path, shared: &std::path::Path, broker: &Broker) -> Daemon {
    let source = format!(
        "name: events, brokers: [\"{}\"], group: detectors, shards: true, properties: {{ session.timeout.ms: \"10000\" }}",
        broker.address()
    );
    let daemon = detector(dir, &[source]);
    let config = std::fs::read_to_string(daemon.config()).expect("read");
    let webhook = config.find("  webhook:").expect("a webhook")..config.find("  kafka:").expect("a source");
    let mut config = config.replace(&format!("{}/data", dir.display()), &shared.display().to_string());
    let moved = shared.display().to_string().len() as isize - format!("{}/data", dir.display()).len() as isize;
    config.replace_range(
        webhook.start.checked_add_signed(moved).expect("a place")
            ..webhook.end.checked_add_signed(moved).expect("a place"),
        "",
    );
    std::fs::write(daemon.config(), config).expect("written");
    daemon
}

/// Ids of the alerts about each person's command, by all outputs. An output repeats an alert after a kill at worst under
/// the same id.
fn told(daemons: &[&Daemon]) -> BTreeMap<String, BTreeSet<String>> {
    let mut told: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for alert in daemons.iter().flat_map(|d| d.alerts()).filter(|a| a["rule"]["id"] == "exec-into-pod") {
        let text = |key: &str| alert[key].as_str().unwrap_or_default().to_owned();
        told.entry(text("actor")).or_default().insert(text("id"));
    }
    told
}

#[track_caller]
fn each_once(daemons: &[&Daemon], sent: usize) {
    let deadline = Instant::now() + Duration::from_secs(240);
    loop {
        let told = told(daemons);
        assert!(told.values().all(|ids| ids.len() == 1), "told twice: {told:?}");
        if told.len() == sent {
            return;
        }
        assert!(Instant::now() < deadline, "{} of {sent} alerts", told.len());
        std::thread::park_timeout(Duration::from_millis(200));
    }
}

#[test]
fn detectors_killed_in_turn_lose_nothing_and_tell_nothing_twice() {
    let broker = Broker::start(PARTITIONS as u32);
    let mut sender = Sender::new(&broker.address());
    let slow = String::from_utf8(read(&fixture("attacks/secret-slow/events.jsonl.zst"))).expect("UTF-8");
    let slow: Vec<&str> = slow.lines().collect();
    let (first, second) = slow.split_at(slow.len() / 2);
    let producer: BaseProducer =
        rdkafka::ClientConfig::new().set("bootstrap.servers", broker.address()).create().expect("a producer");
    let send = |events: &[&str]| {
        for event in events {
            let record = BaseRecord::<(), str>::to("audit").payload(event).partition(0);
            producer.send(record).map_err(|(e, _)| e).expect("queued");
        }
        producer.flush(Duration::from_secs(30)).expect("delivered");
    };

    let dir = tempfile::tempdir().expect("a directory");
    let place = |name: &str| {
        let path = dir.path().join(name);
        std::fs::create_dir_all(&path).expect("a directory");
        path
    };
    let shared = place("shared");
    let mut a = sharded(&place("a"), &shared, &broker);
    let mut b = sharded(&place("b"), &shared, &broker);
    let pause = Duration::from_millis(10);
    a.run();
    send(first);
    sender.send(60, pause, 0..PARTITIONS);
    until("the first to have judged", || (told(&[&a]).len() == sender.sent()).then_some(()));
    b.run();
    for kill in 0..4 {
        sender.send(40, pause, 0..PARTITIONS);
        let (dead, alive) = if kill % 2 == 0 { (&mut a, &b) } else { (&mut b, &a) };
        dead.kill();
        sender.send(40, pause, 0..PARTITIONS);
        // The other one takes over what the dead one had.
        let all = |d: &Daemon| (0..PARTITIONS).all(|p| d.metrics().contains(&format!("shard=\"audit-{p}\"")));
        until("the other one to have every partition", || all(alive).then_some(()));
        if kill == 0 {
            send(second);
        }
        dead.run();
    }
    each_once(&[&a, &b], sender.sent());
    let kinds: BTreeSet<String> = [&a, &b]
        .into_iter()
        .flat_map(Daemon::alerts)
        .map(|a| a["rule"]["id"].as_str().unwrap_or_default().to_owned())
        .collect();
    assert!(
        kinds.contains("secret-names-by-person"),
        "half of it was seen by the first, half by the second: {kinds:?}"
    );
    assert!(a.stop().success() && b.stop().success(), "{}{}", a.log(), b.log());

    // What lies in the shards: each event once, each alert once.
    let (mut events, mut alerts) = (Vec::new(), Vec::new());
    for partition in 0..PARTITIONS {
        let data = shared.join(format!("shards/audit-{partition}")).display().to_string();
        for (kind, found) in [("kind:event", &mut events), ("kind:alert rule:exec-into-pod", &mut alerts)] {
            let output = lapwing(&["search", "--data-dir", &data, "--output", "ndjson", "--limit", "10000", kind]);
            found.extend(ndjson(&stdout(&output)));
        }
    }
    assert_eq!((events.len(), alerts.len()), (sender.sent() + slow.len(), sender.sent()));
}
