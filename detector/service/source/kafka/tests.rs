use super::*;
use std::sync::Mutex;

use lapwing_engine::batch::{Batch, Item, Origin};
use lapwing_engine::event::Event;
use rdkafka::ClientConfig;
use rdkafka::mocking::MockCluster;
use rdkafka::producer::{BaseProducer, BaseRecord, DefaultProducerContext, Producer};
use tokio::sync::Notify;

use crate::metrics::Metrics;
use crate::source::Refused;

type Cluster = MockCluster<'static, DefaultProducerContext>;

fn cluster(partitions: i32) -> Cluster {
    let cluster = MockCluster::new(1).expect("a mock cluster");
    cluster.create_topic("audit", partitions, 1).expect("a topic");
    cluster
}

fn produce(cluster: &Cluster, payloads: impl Iterator<Item = String>, partitions: i32) {
    let producer: BaseProducer =
        ClientConfig::new().set("bootstrap.servers", cluster.bootstrap_servers()).create().expect("a producer");
    for (n, payload) in payloads.enumerate() {
        let record = BaseRecord::<str, str>::to("audit").partition(n as i32 % partitions).payload(&payload);
        producer.send(record).expect("room");
    }
    producer.flush(Duration::from_secs(20)).expect("delivered");
}

fn events(range: std::ops::Range<usize>) -> impl Iterator<Item = String> {
    range.map(|n| format!(r#"{{"auditID":"{n}","verb":"get"}}"#))
}

fn config(cluster: &Cluster, group: &str) -> Config {
    Config {
        name: "test".into(),
        brokers: vec![cluster.bootstrap_servers()],
        topics: vec!["audit".into()],
        group: group.into(),
        cluster: "prod".into(),
        // The mock broker keeps a member that left until its session ends.
        properties: [("session.timeout.ms".to_owned(), "6000".to_owned())].into(),
        ..Config::default()
    }
}

/// A journal in memory. From `closes_at` items on it is gone, as after a kill.
struct Journal {
    batches: Mutex<Vec<Batch>>,
    grown: Notify,
    closes_at: usize,
    /// What it tells of a partition that it stores apart, and which of them it was told it lost.
    apart: Option<i64>,
    given_up: Mutex<Vec<i32>>,
}

impl Journal {
    fn plain(closes_at: usize) -> Self {
        let (batches, given_up) = (Mutex::default(), Mutex::default());
        Self { batches, grown: Notify::new(), closes_at, apart: None, given_up }
    }

    fn new(closes_at: usize) -> Arc<Self> {
        Arc::new(Self::plain(closes_at))
    }

    fn items(&self) -> Vec<Item> {
        self.batches.lock().expect("lock").iter().flat_map(|b| b.items.clone()).collect()
    }

    fn ids(&self) -> Vec<usize> {
        let id = |item: &Item| match item {
            Item::Event(text) => Event::parse(text).ok().and_then(|e| e.audit_id.parse().ok()),
            Item::Reject { .. } => None,
        };
        self.items().iter().filter_map(id).collect()
    }

    fn positions(&self) -> HashMap<Partition, i64> {
        let batches = self.batches.lock().expect("lock");
        let position = |b: &Batch| match &b.origin {
            Origin::Kafka { topic, partition, next_offset } => ((topic.clone(), *partition), *next_offset),
            other => panic!("{other:?}"),
        };
        batches.iter().map(position).collect()
    }
}

impl Sink for Journal {
    async fn accept(&self, batch: Batch) -> Result<(), Refused> {
        if self.items().len() >= self.closes_at {
            return Err(Refused::Closed);
        }
        self.batches.lock().expect("lock").push(batch);
        self.grown.notify_one();
        Ok(())
    }

    fn taken(&self, _: &str, _: i32) -> anyhow::Result<Option<i64>> {
        Ok(self.apart)
    }

    fn given_up(&self, _: &str, partition: i32) {
        self.given_up.lock().expect("lock").push(partition);
    }
}

/// Consumes until the journal holds so many items, or the journal ends it.
async fn consume(config: Config, positions: HashMap<Partition, i64>, journal: &Arc<Journal>, items: usize) {
    consume_as("one", config, positions, journal, items).await;
}

async fn consume_as(
    instance: &str,
    config: Config,
    positions: HashMap<Partition, i64>,
    journal: &Arc<Journal>,
    items: usize,
) {
    let known = Known { positions, instance: instance.to_owned() };
    let stop = CancellationToken::new();
    let enough = async {
        while journal.items().len() < items {
            journal.grown.notified().await;
        }
        stop.cancel();
        std::future::pending::<()>().await;
    };
    let running = run(config, known, Splitter::new(Arc::new(Metrics::new([""; 0]))), Arc::clone(journal), stop.clone());
    let both = async {
        tokio::select! {
            result = running => result.expect("a clean end"),
            () = enough => {}
        }
    };
    tokio::time::timeout(Duration::from_secs(60), both).await.expect("in time");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_once_and_poison_passes() {
    let cluster = cluster(3);
    produce(&cluster, events(0..300).chain(["not json".into(), "[1]".into()]).chain(events(300..310)), 3);
    let journal = Journal::new(usize::MAX);
    consume(config(&cluster, "a"), HashMap::new(), &journal, 312).await;
    let mut ids = journal.ids();
    ids.sort_unstable();
    assert_eq!(ids, (0..310).collect::<Vec<_>>());
    assert_eq!(journal.items().len() - ids.len(), 2, "two rejects");
    assert_eq!(journal.positions().values().sum::<i64>(), 312);
    assert!(journal.batches.lock().expect("lock").iter().all(|b| b.cluster == "prod"));
    // The commit reached the group: it alone is enough to go on.
    produce(&cluster, events(400..403), 3);
    let later = Journal::new(usize::MAX);
    consume(config(&cluster, "a"), HashMap::new(), &later, 3).await;
    let mut ids = later.ids();
    ids.sort_unstable();
    assert_eq!(ids, [400, 401, 402]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_journal_wins_over_the_group() {
    let cluster = cluster(1);
    produce(&cluster, events(0..50), 1);
    let journal = Journal::new(usize::MAX);
    // A group that never committed, as after a lost commit: nothing is read twice.
    consume(config(&cluster, "new"), HashMap::from([(("audit".into(), 0), 40)]), &journal, 10).await;
    assert_eq!(journal.ids(), (40..50).collect::<Vec<_>>());
    // The same group, now committed at 50, but the journal knows only 45: nothing is skipped.
    let journal = Journal::new(usize::MAX);
    consume(config(&cluster, "new"), HashMap::from([(("audit".into(), 0), 45)]), &journal, 5).await;
    assert_eq!(journal.ids(), (45..50).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_stores_partitions_apart_knows_where_to_go_on() {
    let cluster = cluster(1);
    produce(&cluster, events(0..50), 1);
    consume_as("one", config(&cluster, "apart"), HashMap::new(), &Journal::new(usize::MAX), 50).await;
    // Committed at 50, and by another; what is stored of the partition ends at 45.
    let journal = Arc::new(Journal { apart: Some(45), ..Journal::plain(usize::MAX) });
    consume_as("two", config(&cluster, "apart"), HashMap::new(), &journal, 5).await;
    assert_eq!(journal.ids(), (45..50).collect::<Vec<_>>());
    assert_eq!(*journal.given_up.lock().expect("lock"), [0]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_another_lapwing_went_on_with_is_not_read_again() {
    let cluster = cluster(1);
    produce(&cluster, events(0..50), 1);
    let first = Journal::new(usize::MAX);
    consume_as("one", config(&cluster, "moves"), HashMap::new(), &first, 50).await;
    produce(&cluster, events(50..80), 1);
    let second = Journal::new(usize::MAX);
    consume_as("two", config(&cluster, "moves"), HashMap::new(), &second, 30).await;
    assert_eq!(second.ids(), (50..80).collect::<Vec<_>>());
    produce(&cluster, events(80..90), 1);
    // The partition comes back to the first, whose journal ends at 50.
    let back = Journal::new(usize::MAX);
    consume_as("one", config(&cluster, "moves"), first.positions(), &back, 10).await;
    assert_eq!(back.ids(), (80..90).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_in_the_middle_only_the_rest_comes_again() {
    let cluster = cluster(2);
    produce(&cluster, events(0..2000), 2);
    let first = Journal::new(700);
    consume(config(&cluster, "k"), HashMap::new(), &first, usize::MAX).await;
    let kept = first.ids();
    assert!(kept.len() >= 700);
    let second = Journal::new(usize::MAX);
    let rest = 2000 - kept.len();
    if rest > 0 {
        consume(config(&cluster, "k"), first.positions(), &second, rest).await;
    }
    let mut all = [kept, second.ids()].concat();
    all.sort_unstable();
    assert_eq!(all, (0..2000).collect::<Vec<_>>(), "none lost, none twice");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_that_are_gone_are_named() {
    let cluster = cluster(1);
    produce(&cluster, events(0..5), 1);
    let journal = Journal::new(usize::MAX);
    // A position beyond the log: the topic was made anew.
    consume(config(&cluster, "g"), HashMap::from([(("audit".into(), 0), 1000)]), &journal, 6).await;
    assert_eq!(journal.ids(), (0..5).collect::<Vec<_>>());
    assert!(matches!(&journal.items()[0], Item::Reject { detail, .. } if detail.contains("1000")));
}

#[test]
fn properties_cannot_lose_events() {
    let good = Config {
        brokers: vec!["b:9092".into()],
        topics: vec!["t".into()],
        group: "g".into(),
        properties: [("security.protocol".to_owned(), "SASL_SSL".to_owned())].into(),
        ..Config::default()
    };
    let client = good.client().expect("good");
    assert_eq!(client.get("security.protocol"), Some("SASL_SSL"));
    assert_eq!(client.get("enable.auto.commit"), Some("false"));
    for key in ["enable.auto.commit", "group.id", "auto.offset.reset"] {
        let bad = Config { properties: [(key.to_owned(), "x".to_owned())].into(), ..good.clone() };
        assert!(matches!(bad.client(), Err(ConfigError::Reserved { .. })), "{key}");
    }
    assert!(matches!(Config::default().client(), Err(ConfigError::Empty { what: "brokers", .. })));
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("password");
    let with = Config { password_file: Some(path.clone()), ..good };
    assert!(matches!(with.client(), Err(ConfigError::Password { .. })));
    std::fs::write(path, "s3cret\n").expect("write");
    assert_eq!(with.client().expect("good").get("sasl.password"), Some("s3cret"));
}
