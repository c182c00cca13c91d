//! Receivers before a topic: answered when the brokers have it, spooled while they are away, brought when they are back.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::{Headers, Message};

use super::broker::Broker;
use super::real::{detector, event};
use crate::daemon::{Daemon, until};

fn receiver(dir: &std::path::Path, broker: &Broker) -> Daemon {
    let forward = format!("forward: {{ brokers: [\"{}\"], topic: audit }}\n", broker.address());
    let mut daemon = Daemon::prepare(dir, &forward);
    daemon.command = "receive";
    daemon
}

/// How often each person's event is in the topic, and the keys and clusters of the records.
fn in_topic(broker: &Broker, people: usize) -> BTreeMap<String, usize> {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", broker.address())
        .set("group.id", format!("look-{people}"))
        .set("auto.offset.reset", "earliest");
    let consumer: BaseConsumer = config.create().expect("a consumer");
    consumer.subscribe(&["audit"]).expect("subscribed");
    let mut seen = BTreeMap::new();
    let deadline = Instant::now() + Duration::from_secs(60);
    while seen.len() < people {
        assert!(Instant::now() < deadline, "{} of {people} are in the topic", seen.len());
        let Some(Ok(message)) = consumer.poll(Duration::from_millis(100)) else { continue };
        let text = String::from_utf8_lossy(message.payload().unwrap_or_default()).into_owned();
        let named = message.headers().and_then(|h| h.iter().find(|h| h.key == "lapwing-cluster")?.value);
        assert_eq!((message.key(), named), (Some(&b"prod"[..]), Some(&b"prod"[..])));
        let at = text.find("person-").unwrap_or_else(|| panic!("{text}"));
        *seen.entry(text[at..at + 12].to_owned()).or_default() += 1;
    }
    seen
}

#[test]
fn nothing_answered_is_lost_whether_the_brokers_are_there_or_not() {
    let mut broker = Broker::start(2);
    let dirs = [(), ()].map(|()| tempfile::tempdir().expect("a directory"));
    let [mut a, mut b] = dirs.each_ref().map(|dir| receiver(dir.path(), &broker));
    a.run();
    b.run();
    let mut sent = 0;
    let mut post = |daemon: &Daemon, count: usize| {
        for _ in 0..count {
            let events = [(), ()].map(|()| {
                sent += 1;
                event(&format!("person-{sent:05}"))
            });
            let list =
                format!(r#"{{"kind":"EventList","apiVersion":"audit.k8s.io/v1","items":[{}]}}"#, events.join(","));
            assert_eq!(daemon.post(list.as_bytes()).expect("an answer").0, 200, "{}", daemon.log());
        }
        sent
    };
    post(&a, 10);
    post(&b, 10);
    assert_eq!((a.metric("lapwing_forwarded_total{outcome=\"sent\"}"), a.metric("lapwing_spool_records")), (20.0, 0.0));
    broker.kill();
    // Answered all the same: it is on the receivers' disks.
    post(&a, 10);
    post(&b, 10);
    assert_eq!(a.metric("lapwing_forwarded_total{outcome=\"spooled\"}"), 20.0);
    // One of them is killed meanwhile; its spool is there when it comes back.
    a.kill();
    a.run();
    post(&a, 5);
    broker.run();
    for daemon in [&a, &b] {
        until("the spool to be brought", || (daemon.metric("lapwing_spool_records") == 0.0).then_some(()));
    }
    let people = post(&a, 5);
    assert!(a.metric("lapwing_forwarded_total{outcome=\"sent\"}") >= 10.0, "straight to the brokers again");
    let seen = in_topic(&broker, people);
    let twice = seen.values().filter(|n| **n > 1).count();
    // At most the batch that was under way when the brokers went.
    assert!(twice <= 4, "{twice} events are in the topic twice");

    // What is larger than a record may be loses its bodies, and comes.
    let mut large: serde_json::Value = serde_json::from_str(&event("person-99999")).expect("JSON");
    large["requestObject"] = serde_json::json!({ "a": "x".repeat(3 << 20) });
    let large = large.to_string();
    assert_eq!(a.post(large.as_bytes()).expect("an answer").0, 200);
    in_topic(&broker, people + 1);

    // A detector takes the cluster from the record, whatever its source is called.
    let dir = tempfile::tempdir().expect("a directory");
    let source = format!("name: topic, brokers: [\"{}\"], group: judges", broker.address());
    let mut judge = detector(dir.path(), &[source]);
    let config = std::fs::read_to_string(judge.config()).expect("read").replace("cluster: prod", "cluster: unnamed");
    std::fs::write(judge.config(), config).expect("written");
    judge.run();
    let received = |d: &Daemon| d.metric("lapwing_events_received_total{cluster=\"prod\",source=\"kafka\"}");
    until("the topic to be read", || (received(&judge) >= (people + 1) as f64).then_some(()));
    until("the alerts", || (judge.alerts().iter().filter(|a| a["cluster"] == "prod").count() >= people).then_some(()));
    assert!(judge.stop().success() && a.stop().success() && b.stop().success());
}
