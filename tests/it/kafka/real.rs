//! Against Apache Kafka itself: TLS and SCRAM, a group of two that is rebalanced, killed and left without its broker,
//! commits that lie, records that are gone.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::client::{ClientContext, DefaultClientContext};
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::producer::{BaseProducer, BaseRecord, DeliveryResult, Producer, ProducerContext};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use serde_json::Value;

use super::broker::{Broker, PASSWORD};
use crate::daemon::{Daemon, fixture, lapwing, ndjson, read, stdout, until};

const TOPIC: &str = "audit";
/// The group waits this long for a member that is gone. A detector, or a broker, that is back before changes nothing; one that
/// is away for longer is judged for by another, once more. A busy machine takes more than 20 seconds to start one again.
const SESSION: Duration = Duration::from_secs(40);

/// A command in a pod by somebody of this name: one alert each.
pub fn event(name: &str) -> String {
    let text = String::from_utf8(read(&fixture("malformed/two-lists.body"))).expect("text");
    let start = text.find(r#"{"kind":"Event","#).expect("an event");
    let event = &text[start..text.find(r#"]}{"kind":"EventList""#).expect("an end")];
    event.replace("two-lists", name)
}

/// What a broker did not take.
#[derive(Default)]
struct Undelivered(Mutex<Vec<String>>);

impl ClientContext for Undelivered {}

impl ProducerContext for Undelivered {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        if let Err((error, _)) = result {
            self.0.lock().expect("whole").push(error.to_string());
        }
    }
}

pub struct Sender {
    producer: BaseProducer<Undelivered>,
    sent: usize,
}

impl Sender {
    pub fn new(address: &str) -> Self {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", address).set("enable.idempotence", "true").set("linger.ms", "5");
        Self { producer: config.create_with_context(Undelivered::default()).expect("a producer"), sent: 0 }
    }

    pub fn sent(&self) -> usize {
        self.sent
    }

    /// Sends so many events, one every `pause`, over partitions in turn, or all to one.
    pub fn send(&mut self, count: usize, pause: Duration, partitions: std::ops::Range<i32>) {
        for _ in 0..count {
            let spread = (partitions.end - partitions.start) as usize;
            let partition = partitions.start + (self.sent % spread) as i32;
            let event = event(&format!("person-{:05}", self.sent));
            let record = BaseRecord::<(), str>::to(TOPIC).payload(&event).partition(partition);
            self.producer.send(record).map_err(|(e, _)| e).expect("queued");
            self.sent += 1;
            self.producer.poll(pause);
        }
        self.producer.flush(Duration::from_secs(60)).expect("delivered");
        let undelivered = std::mem::take(&mut *self.producer.context().0.lock().expect("whole"));
        assert!(undelivered.is_empty(), "not in the topic: {undelivered:?}");
    }
}

/// A detector that consumes from `source`, the flow-style rest of a Kafka source.
pub fn detector(dir: &std::path::Path, sources: &[String]) -> Daemon {
    let daemon = Daemon::prepare(dir, "");
    let list: String = sources.iter().map(|s| format!("    - {{ topics: [{TOPIC}], cluster: prod, {s} }}\n")).collect();
    let config = std::fs::read_to_string(daemon.config()).expect("read");
    std::fs::write(daemon.config(), config.replace("outputs:", &format!("  kafka:\n{list}outputs:"))).expect("written");
    daemon
}

pub fn member(broker: &Broker) -> String {
    let session = SESSION.as_millis();
    format!(
        "name: events, brokers: [\"{}\"], group: lapwing, properties: {{ session.timeout.ms: \"{session}\" }}",
        broker.address()
    )
}

/// How often each name was told of in new alerts. An output may repeat an alert after a kill, under the same id: that
/// counts once for each detector.
pub fn told<'d>(daemons: impl IntoIterator<Item = &'d Daemon>) -> BTreeMap<String, usize> {
    let mut told = BTreeMap::new();
    for daemon in daemons {
        let text = |alert: &Value, key: &str| alert[key].as_str().unwrap_or_default().to_owned();
        let new = daemon.alerts().into_iter().filter(|a| a["rule"]["id"] == "exec-into-pod" && a["status"] == "new");
        let alerts: BTreeSet<_> = new.map(|a| (text(&a, "actor"), text(&a, "id"))).collect();
        for (actor, _) in alerts {
            *told.entry(actor).or_default() += 1;
        }
    }
    told
}

/// Waits until every event sent has its alert, and asserts that none has two.
#[track_caller]
pub fn each_told_once(daemons: &[&Daemon], sent: usize) {
    let deadline = Instant::now() + Duration::from_secs(240);
    loop {
        let told = told(daemons.iter().copied());
        let twice: Vec<_> = told.iter().filter(|(_, n)| **n > 1).collect();
        assert!(twice.is_empty(), "told twice: {twice:?}");
        if told.len() == sent {
            return;
        }
        assert!(
            Instant::now() < deadline,
            "{} of {sent} alerts; {:?}",
            told.len(),
            daemons.iter().map(|d| d.log()).collect::<Vec<_>>()
        );
        std::thread::park_timeout(Duration::from_millis(200));
    }
}

#[test]
fn tls_and_scram_are_spoken_and_a_wrong_password_is_named() {
    let broker = Broker::start(1);
    Sender::new(&broker.address()).send(5, Duration::ZERO, 0..1);
    let dir = tempfile::tempdir().expect("a directory");
    std::fs::write(dir.path().join("password"), PASSWORD).expect("written");
    std::fs::write(dir.path().join("wrong"), "wrong").expect("written");
    let ca = broker.certificates.ca.display();
    let secured = |name: &str, port: u16, ca: &str, rest: &str| {
        format!(
            "name: {name}, group: {name}, brokers: [\"127.0.0.1:{port}\"], {}properties: {{ ssl.ca.location: \"{ca}\", {} }}",
            rest.split('|').next().unwrap_or_default(),
            rest.split('|').nth(1).unwrap_or_default()
        )
    };
    let scram = "security.protocol: SASL_SSL, sasl.mechanisms: SCRAM-SHA-512, sasl.username: lapwing";
    let file = |name: &str| format!("passwordFile: {}, |{scram}", dir.path().join(name).display());
    let other = broker.certificates.other_ca.display().to_string();
    let sources = [
        secured("tls", broker.tls, &ca.to_string(), "|security.protocol: SSL"),
        secured("scram", broker.scram, &ca.to_string(), &file("password")),
        secured("wrong-password", broker.scram, &ca.to_string(), &file("wrong")),
        secured("wrong-authority", broker.tls, &other, "|security.protocol: SSL"),
    ];
    let mut daemon = detector(dir.path(), &sources);
    daemon.run();
    let received = |d: &Daemon| d.metric("lapwing_events_received_total{cluster=\"prod\",source=\"kafka\"}");
    // The same five events by both good sources.
    until("both sources", || (received(&daemon) >= 10.0).then_some(()));
    until("the refusals", || {
        let log = daemon.log();
        let refused = |source: &str, why: &str| log.lines().any(|l| l.contains(source) && l.contains(why));
        (refused("wrong-password", "Authentication") && refused("wrong-authority", "certificate")).then_some(())
    });
    assert_eq!(received(&daemon), 10.0);
    assert!(!daemon.log().contains(PASSWORD));
    assert!(daemon.stop().success());
}

#[test]
fn a_group_of_two_loses_nothing_and_tells_nothing_twice() {
    let mut broker = Broker::start(4);
    let mut sender = Sender::new(&broker.address());
    let pause = Duration::from_millis(10);
    let dirs = [(), ()].map(|()| tempfile::tempdir().expect("a directory"));
    let [mut a, mut b] = dirs.each_ref().map(|dir| detector(dir.path(), &[member(&broker)]));
    a.run();
    sender.send(40, pause, 0..4);
    // A second one joins while events come: partitions move.
    b.spawn();
    sender.send(150, pause, 0..4);
    b.wait_ready();
    until("the second to have its share", || {
        sender.send(4, pause, 0..4);
        (!told([&b]).is_empty()).then_some(())
    });
    each_told_once(&[&a, &b], sender.sent());
    // Killed and started again, each in turn, while events come.
    for at in [0, 1] {
        sender.send(40, pause, 0..4);
        let daemon = if at == 0 { &mut a } else { &mut b };
        daemon.kill();
        daemon.spawn();
        sender.send(60, pause, 0..4);
        daemon.wait_ready();
    }
    each_told_once(&[&a, &b], sender.sent());
    // The broker is killed and comes back.
    broker.kill();
    broker.run();
    sender.send(60, pause, 0..4);
    each_told_once(&[&a, &b], sender.sent());
    // One leaves for good; after its session the other has everything.
    assert!(b.stop().success(), "{}", b.log());
    sender.send(40, pause, 0..4);
    each_told_once(&[&a, &b], sender.sent());
    until("no lag", || (a.metric("lapwing_kafka_lag_records{source=\"events\"}") == 0.0).then_some(()));
    assert!(a.metrics().contains("lapwing_kafka_lag_records{source=\"events\"} 0"));
    assert!(a.stop().success());

    // A commit that lies: somebody moved the group behind what nobody has read.
    sender.send(10, Duration::ZERO, 1..2);
    let mut group = ClientConfig::new();
    let group: BaseConsumer =
        group.set("bootstrap.servers", broker.address()).set("group.id", "lapwing").create().expect("a consumer");
    let high = group.fetch_watermarks(TOPIC, 1, SESSION).expect("offsets").1;
    let mut lie = TopicPartitionList::new();
    lie.add_partition_offset(TOPIC, 1, Offset::Offset(high)).expect("an offset");
    until("the group to be empty", || group.commit(&lie, CommitMode::Sync).ok());
    a.run();
    each_told_once(&[&a, &b], sender.sent());
    assert!(a.stop().success());

    // Records that are gone before they are read.
    let (_, first) = group.fetch_watermarks(TOPIC, 2, SESSION).expect("offsets");
    let before = sender.sent();
    sender.send(10, Duration::ZERO, 2..3);
    let admin: AdminClient<DefaultClientContext> =
        ClientConfig::new().set("bootstrap.servers", broker.address()).create().expect("an admin");
    let mut gone = TopicPartitionList::new();
    gone.add_partition_offset(TOPIC, 2, Offset::Offset(first + 7)).expect("an offset");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(admin.delete_records(&gone, &AdminOptions::new())).expect("deleted");
    a.run();
    until("the loss", || (a.metric("lapwing_kafka_lost_records_total{source=\"events\"}") == 7.0).then_some(()));
    until("the three that were left", || (told([&a, &b]).len() == before + 3).then_some(()));
    until("the index", || (a.metric("lapwing_index_lag_records") == 0.0).then_some(()));
    let args = ["search", "--data-dir", &a.data_dir(), "--output", "ndjson", "kind:reject"];
    let range = format!("kafka records {first}..{} of {TOPIC}/2", first + 7);
    let rejects = ndjson(&stdout(&lapwing(&args)));
    assert!(rejects.iter().any(|r| r.to_string().contains(&range)), "{range}: {rejects:?}");
    assert!(a.stop().success());
}
