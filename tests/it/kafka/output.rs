//! Alerts into Apache Kafka itself: over every listener, through a killed broker, with a wrong password and a foreign
//! certificate, into a topic that takes less than we would send.

use std::collections::BTreeMap;
use std::time::Duration;

use lapwing::output::dead::DeadLetters;
use lapwing::output::{Config, Failure, Output};
use lapwing_engine::alert::Alert;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::Headers;
use rdkafka::{ClientConfig, Message, Offset, TopicPartitionList};
use serde_json::{Value, json};

use super::broker::{Broker, PASSWORD};
use crate::daemon::until;
use crate::outputs::working::{Memory, Working};
use crate::outputs::{alert, config, evil, lines};

/// What one record of a topic is.
pub struct Got {
    partition: i32,
    key: String,
    pub id: String,
    schema: String,
    value: Value,
}

/// Every record of `topic`, partition by partition in order, once there are `count`.
pub fn all(broker: &Broker, topic: &str, count: usize) -> Vec<Got> {
    let mut client = ClientConfig::new();
    client.set("bootstrap.servers", broker.address()).set("group.id", "reader").set("enable.partition.eof", "false");
    let consumer: BaseConsumer = client.create().unwrap();
    let partitions = until("the topic", || {
        let metadata = consumer.fetch_metadata(Some(topic), Duration::from_secs(10)).ok()?;
        Some(metadata.topics()[0].partitions().len()).filter(|n| *n > 0)
    });
    let mut list = TopicPartitionList::new();
    for partition in 0..partitions as i32 {
        list.add_partition_offset(topic, partition, Offset::Beginning).unwrap();
    }
    consumer.assign(&list).unwrap();
    let there = || {
        let high = |p| consumer.fetch_watermarks(topic, p, Duration::from_secs(10)).unwrap().1 as usize;
        (0..partitions as i32).map(high).sum::<usize>()
    };
    until("every record", || (there() >= count).then_some(()));
    let (mut got, there) = (Vec::new(), there());
    until("every record to be read", || {
        let message = consumer.poll(Duration::from_millis(500))?.unwrap();
        let header = |name: &str| {
            let found = message.headers().unwrap().iter().find(|h| h.key == name).unwrap();
            String::from_utf8(found.value.unwrap().to_vec()).unwrap()
        };
        got.push(Got {
            partition: message.partition(),
            key: String::from_utf8(message.key().unwrap().to_vec()).unwrap(),
            id: header("id"),
            schema: header("schema"),
            value: serde_json::from_slice(message.payload().unwrap()).unwrap(),
        });
        (got.len() == there).then_some(())
    });
    got
}

/// Alerts of five people; every seventh is hostile.
fn some(range: std::ops::Range<usize>) -> impl Iterator<Item = Alert> {
    range.map(|n| {
        let id = format!("{n:04}");
        let mut alert = if n % 7 == 0 { evil(&id) } else { alert(&id) };
        alert.actor = format!("person-{}", n % 5);
        alert
    })
}

fn to(name: &str, port: u16, more: Value) -> Config {
    let mut settings =
        json!({ "type": "kafka", "name": name, "brokers": [format!("127.0.0.1:{port}")], "topic": name });
    settings.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    config(settings)
}

/// Blocks this thread; the workers go on with the others.
pub fn patiently<T>(wait: impl FnOnce() -> T) -> T {
    tokio::task::block_in_place(wait)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn alerts_reach_the_topic_over_every_listener_and_through_a_killed_broker() {
    let mut broker = patiently(|| Broker::start(4));
    let dir = tempfile::tempdir().unwrap();
    let (password, ca) = (dir.path().join("password"), broker.certificates.ca.clone());
    std::fs::write(&password, PASSWORD).unwrap();
    let scram = json!({ "security.protocol": "SASL_SSL", "sasl.mechanisms": "SCRAM-SHA-512",
        "sasl.username": "lapwing", "ssl.ca.location": ca });
    let configs = [
        to("plain", broker.plain, json!({})),
        to(
            "tls",
            broker.tls,
            json!({ "format": "ocsf", "properties": { "security.protocol": "SSL", "ssl.ca.location": ca } }),
        ),
        to("scram", broker.scram, json!({ "passwordFile": password, "properties": scram })),
    ];
    let begun: Vec<_> = configs
        .iter()
        .map(|config| {
            let memory = Memory::with(some(0..40).collect());
            (Working::start(config, &memory, dir.path()), memory)
        })
        .collect();
    let memories: Vec<Memory> = begun.iter().map(|(_, memory)| memory.clone()).collect();
    let done = |count| patiently(|| until("alerts", || memories.iter().all(|m| m.done_with() == count).then_some(())));
    done(40);
    broker.kill();
    memories.iter().for_each(|m| m.add(some(40..100)));
    patiently(|| broker.run());
    memories.iter().for_each(|m| m.add(some(100..120)));
    done(120);
    for (working, _) in begun {
        working.end().await;
    }
    let wanted: Vec<Alert> = some(0..120).collect();
    for (topic, schema) in [("plain", "lapwing"), ("tls", "ocsf"), ("scram", "lapwing")] {
        assert_eq!(lines(DeadLetters::of(dir.path(), topic).path()).len(), 0, "{topic}");
        let got = patiently(|| all(&broker, topic, 120));
        let mut by_key: BTreeMap<&str, Vec<&Got>> = BTreeMap::new();
        got.iter().for_each(|g| by_key.entry(&g.key).or_default().push(g));
        let mut ids: Vec<&str> = got.iter().map(|g| g.id.as_str()).collect();
        ids.sort_unstable();
        let expected: Vec<String> = wanted.iter().map(|a| format!("{}.new", a.id)).collect();
        assert_eq!(ids, expected, "{topic}: each once, though its broker was killed");
        for (key, records) in by_key {
            assert!(records.iter().all(|g| g.partition == records[0].partition), "{topic}: {key} in one partition");
            assert!(records.is_sorted_by_key(|g| &g.id), "{topic}: {key} in order");
        }
        for got in &got {
            let alert = wanted.iter().find(|a| got.id == format!("{}.new", a.id)).unwrap();
            assert_eq!(got.schema, schema);
            assert!(got.key.ends_with(&format!("/{}", alert.actor)), "{}", got.key);
            if schema == "ocsf" {
                assert_eq!(
                    (&got.value["class_uid"], &got.value["finding_info"]["uid"]),
                    (&json!(2004), &json!(alert.id))
                );
            } else {
                assert_eq!(serde_json::from_value::<Alert>(got.value.clone()).unwrap(), *alert);
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_password_or_certificate_is_named_and_mended_and_one_too_large_costs_no_other() {
    let broker = patiently(|| Broker::start(1));
    let dir = tempfile::tempdir().unwrap();
    let (password, ca) = (dir.path().join("password"), dir.path().join("ca.pem"));
    std::fs::write(&password, "wrong").unwrap();
    std::fs::copy(&broker.certificates.other_ca, &ca).unwrap();
    let scram = json!({ "security.protocol": "SASL_SSL", "sasl.mechanisms": "SCRAM-SHA-512",
        "sasl.username": "lapwing", "ssl.ca.location": broker.certificates.ca });
    let mut refused =
        Output::new(&to("password", broker.scram, json!({ "passwordFile": password, "properties": scram }))).unwrap();
    let foreign = json!({ "properties": { "security.protocol": "SSL", "ssl.ca.location": ca } });
    let mut foreign = Output::new(&to("authority", broker.tls, foreign)).unwrap();
    let (one, two) = (alert("1"), alert("2"));
    let (first, second) = ([&one, &two], [&one, &two]);
    let (wrong_password, wrong_authority) = tokio::join!(refused.deliver(&first), foreign.deliver(&second));
    for (end, why) in [(wrong_password, "uthentication failed"), (wrong_authority, "certificate verify failed")] {
        match end {
            Err(Failure::Partial { refused, again, reason, .. }) => {
                assert!(refused.is_empty() && again == [0, 1] && reason.contains(why), "{reason}");
                assert!(!reason.contains("wrong"), "{reason}");
            }
            other => panic!("{other:?}"),
        }
    }
    std::fs::write(&password, PASSWORD).unwrap();
    std::fs::copy(&broker.certificates.ca, &ca).unwrap();
    // The next try has the files as they are now.
    let mended = tokio::join!(refused.deliver(&first), foreign.deliver(&second));
    assert!(mended.0.is_ok() && mended.1.is_ok(), "{mended:?}");

    let admin: AdminClient<DefaultClientContext> =
        ClientConfig::new().set("bootstrap.servers", broker.address()).create().unwrap();
    let small = NewTopic::new("small", 1, TopicReplication::Fixed(1)).set("max.message.bytes", "20000");
    admin.create_topics([&small], &AdminOptions::new()).await.unwrap();
    let mut output = Output::new(&to("small", broker.plain, json!({}))).unwrap();
    let mut alerts: Vec<Alert> = some(0..50).collect();
    alerts[20].why = "x".repeat(100_000);
    match output.deliver(&alerts.iter().collect::<Vec<_>>()).await {
        Err(Failure::Partial { refused, again, .. }) => {
            assert_eq!((refused.iter().map(|(at, _)| *at).collect::<Vec<_>>(), again), (vec![20], vec![]));
        }
        other => panic!("{other:?}"),
    }
    let got = patiently(|| all(&broker, "small", 49));
    let mut ids: Vec<&str> = got.iter().map(|g| g.id.as_str()).collect();
    ids.sort_unstable();
    let wanted: Vec<String> = alerts.iter().filter(|a| a.id != "0020").map(|a| format!("{}.new", a.id)).collect();
    assert_eq!(ids, wanted);
}
