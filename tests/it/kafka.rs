//! The daemon as a Kafka consumer, killed in the middle. The broker is librdkafka's mock cluster in this
//! process: the real client protocol, groups and commits over loopback. In [`real`] it is Apache Kafka.

mod broker;
mod long;
mod output;
mod real;
mod receive;
mod refused;
mod shards;
mod speed;

use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::mocking::MockCluster;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};

use crate::daemon::{Daemon, fixture, ndjson, read, until};

const TOPIC: &str = "audit";

fn produce(brokers: &str, events: &[String]) {
    let producer: BaseProducer = ClientConfig::new().set("bootstrap.servers", brokers).create().expect("a producer");
    for (i, event) in events.iter().enumerate() {
        let partition = (i % 2) as i32;
        producer
            .send(BaseRecord::<(), str>::to(TOPIC).payload(event).partition(partition))
            .map_err(|(e, _)| e)
            .expect("queued");
    }
    producer.flush(Duration::from_secs(30)).expect("delivered");
}

/// Audit ids of everything the journal's index holds.
fn indexed(daemon: &Daemon) -> Vec<String> {
    let args = ["search", "--data-dir", &daemon.data_dir(), "--output", "ndjson", "--limit", "10000", "kind:event"];
    let found = crate::daemon::lapwing(&args);
    let id = |hit: serde_json::Value| format!("{} {}", hit["auditID"], hit["time"]);
    ndjson(&crate::daemon::stdout(&found)).into_iter().map(id).collect()
}

#[test]
fn every_message_is_judged_once_though_the_consumer_is_killed() {
    let cluster = MockCluster::new(1).expect("a mock cluster");
    cluster.create_topic(TOPIC, 2, 1).expect("a topic");
    let brokers = cluster.bootstrap_servers();
    let bytes = read(&fixture("attacks/exec-ws/events.jsonl.zst"));
    let events: Vec<String> = String::from_utf8(bytes).expect("UTF-8").lines().map(str::to_owned).collect();
    let (first, rest) = events.split_at(events.len() / 2);
    produce(&brokers, first);

    let dir = tempfile::tempdir().expect("a directory");
    let mut daemon = Daemon::prepare(dir.path(), "");
    // The group waits this long for the killed member before it gives its partitions to the next one.
    let source = format!(
        "  kafka:\n    - {{ name: events, brokers: [\"{brokers}\"], topics: [{TOPIC}], group: lapwing, cluster: prod,\n        \
         properties: {{ session.timeout.ms: \"6000\" }} }}\n"
    );
    let config =
        std::fs::read_to_string(daemon.config()).expect("read").replace("outputs:", &format!("{source}outputs:"));
    std::fs::write(daemon.config(), config).expect("written");
    daemon.run();
    let received = |d: &Daemon| d.metric("lapwing_events_received_total{cluster=\"prod\",source=\"kafka\"}");
    until("the first half", || (received(&daemon) >= first.len() as f64).then_some(()));
    daemon.kill();

    produce(&brokers, rest);
    daemon.run();
    until("the second half", || (received(&daemon) >= rest.len() as f64).then_some(()));
    until("the index", || (daemon.metric("lapwing_index_lag_records") == 0.0).then_some(()));
    assert_eq!(received(&daemon), rest.len() as f64, "the journal's position wins: nothing is read twice");
    assert!(daemon.stop().success(), "{}", daemon.log());

    let mut all = indexed(&daemon);
    assert_eq!(all.len(), events.len());
    all.sort();
    all.dedup();
    assert_eq!(all.len(), events.len(), "each event once");
    assert!(daemon.alerts().iter().any(|a| a["rule"]["id"] == "exec-downloads-and-runs"));
}
