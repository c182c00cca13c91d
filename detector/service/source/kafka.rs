//! A Kafka consumer that forgets nothing.
//!
//! A thread of its own never stops polling. What it read waits in memory, bounded by pausing the
//! partitions, until the sink says it is durable; only then is its offset committed, at most once a
//! second. The journal's own position wins over the group's: a lost commit re-reads nothing twice, a
//! wrong one skips nothing; unless the commit bears the mark of another Lapwing, which went on from there.
//! A message that holds no event becomes a reject and its offset advances.

mod config;
mod quiet;
mod state;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::base_consumer::BaseConsumer;
use rdkafka::consumer::{CommitMode, Consumer, ConsumerContext, RebalanceProtocol};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Headers, Message};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use rdkafka::types::RDKafkaRespErr;
use rdkafka::{ClientConfig, Statistics};
use tokio_util::sync::CancellationToken;

use super::Sink;
use crate::brokers::Files;
use crate::forward;
use crate::input::Splitter;
use crate::metrics::Metrics;
pub use config::{Config, ConfigError, connection};
pub use quiet::Quiet;
use state::{Read, Shared};

/// A topic and a partition of it.
pub type Partition = (String, i32);

const POLL: Duration = Duration::from_millis(100);
const COMMIT_EVERY: Duration = Duration::from_secs(1);
/// How long a revoked partition or the end may wait for what is under way.
const SETTLE: Duration = Duration::from_secs(5);
const ASK: Duration = Duration::from_secs(5);
/// How often a source that is refused looks whether its password or certificates were replaced.
const LOOK: Duration = Duration::from_secs(1);
/// Bytes read and not durable before the partitions are paused; resumed at half.
const HELD_BYTES: usize = 16 << 20;

/// Why a consumer ended.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error("kafka consumer `{name}` cannot go on")]
    Kafka {
        name: String,
        #[source]
        source: KafkaError,
    },
    #[error("kafka consumer `{name}` could not start its thread")]
    Thread {
        name: String,
        #[source]
        source: std::io::Error,
    },
    #[error("kafka consumer `{name}` stopped unexpectedly")]
    Died { name: String },
}

/// What is known of this consumer's past.
#[derive(Clone, Debug, Default)]
pub struct Known {
    /// The next offsets by the journal.
    pub positions: HashMap<Partition, i64>,
    /// Name of this data directory, different from every other's.
    pub instance: String,
}

/// Consumes until `stop` or until the sink is closed.
pub async fn run<S: Sink>(
    config: Config,
    known: Known,
    splitter: Splitter,
    sink: Arc<S>,
    stop: CancellationToken,
) -> Result<(), Error> {
    let name = config.name.clone();
    let (mut files, client) = client(&config, &known)?;
    let (done, finished) = tokio::sync::oneshot::channel();
    let runtime = tokio::runtime::Handle::current();
    let worker = move || {
        let shared = Arc::new(Shared::new(sink, runtime, known.positions.clone()));
        let metrics = splitter.metrics();
        metrics.kafka_connected(&config.name, false);
        let consumer = |client: &ClientConfig| -> KafkaResult<BaseConsumer<Context<S>>> {
            let consumer: BaseConsumer<_> = client.create_with_context(Context {
                shared: Arc::clone(&shared),
                from_end: config.start == super::file::Start::End,
                mark: mark(&known.instance),
                name: config.name.clone(),
                metrics: Arc::clone(&metrics),
                quiet: Quiet::new(&config.name, client),
            })?;
            let topics: Vec<&str> = config.topics.iter().map(String::as_str).collect();
            consumer.subscribe(&topics)?;
            Ok(consumer)
        };
        // `None` when it is to stop.
        let anew = || loop {
            let made = self::client(&config, &known).map_err(|error| error.to_string()).and_then(|(files, client)| {
                consumer(&client).map(|made| (files, made)).map_err(|error| error.to_string())
            });
            match made {
                Ok(made) => break Some(made),
                // Half of them is written: the rest will come.
                Err(error) => tracing::warn!(source = config.name, error, "kafka: not connected; trying again"),
            }
            if stop.is_cancelled() {
                break None;
            }
            std::thread::park_timeout(LOOK);
        };
        let mut made = consumer(&client);
        let result = loop {
            let shared = Arc::clone(&shared);
            let (splitter, mark) = (splitter.clone(), mark(&known.instance));
            let ended = made.and_then(|consumer| {
                Worker { consumer, shared, config: &config, splitter, mark, paused: false }.run(&files, &stop)
            });
            if !matches!(ended, Ok(End::Outdated)) {
                break ended.map(drop);
            }
            tracing::info!(source = config.name, "kafka: password or certificates were replaced; connecting anew");
            let Some((now, again)) = anew() else { break Ok(()) };
            (files, made) = (now, Ok(again));
        };
        metrics.kafka_connected(&config.name, false);
        // The receiver is gone only when nobody waits for the consumer any more.
        let _ = done.send(result);
    };
    std::thread::Builder::new()
        .name(format!("kafka-{name}"))
        .spawn(worker)
        .map_err(|source| Error::Thread { name: name.clone(), source })?;
    match finished.await {
        Ok(result) => result.map_err(|source| Error::Kafka { name, source }),
        Err(_) => Err(Error::Died { name }),
    }
}

/// The client's configuration as the files are now.
fn client(config: &Config, known: &Known) -> Result<(Files, ClientConfig), ConfigError> {
    let password = config.password_file.as_deref();
    // Looked at before they are read: what changes in between is read again.
    let files = Files::of(&config.client()?, password);
    let mut client = config.client()?;
    if !config.shards && client.get("group.instance.id").is_none() {
        // Back within its session, a detector keeps its partitions: what it remembers of them lies beside its journal.
        client.set("group.instance.id", format!("lapwing-{}-{}", known.instance, config.name));
    }
    Ok((files, client))
}

/// Why a worker ended.
enum End {
    Stopped,
    /// It was refused, and the files it was made from were replaced.
    Outdated,
}

struct Worker<'a, S: Sink> {
    consumer: BaseConsumer<Context<S>>,
    shared: Arc<Shared<S>>,
    config: &'a Config,
    splitter: Splitter,
    mark: String,
    paused: bool,
}

impl<S: Sink> Worker<'_, S> {
    fn run(mut self, files: &Files, stop: &CancellationToken) -> KafkaResult<End> {
        let (mut committed, mut looked) = (Instant::now(), Instant::now());
        let (mut refused, mut end) = (false, End::Stopped);
        while !stop.is_cancelled() && !self.shared.closed() {
            refused |= self.consumer.context().quiet.refused();
            if refused && looked.elapsed() >= LOOK {
                if files.changed() {
                    end = End::Outdated;
                    break;
                }
                looked = Instant::now();
            }
            match self.consumer.poll(POLL) {
                Some(Ok(message)) => self.take(&message),
                Some(Err(KafkaError::MessageConsumption(RDKafkaErrorCode::AutoOffsetReset))) => self.leave_gaps(),
                Some(Err(e @ KafkaError::MessageConsumptionFatal(_))) => return Err(e),
                // Told by the context, with its reason.
                Some(Err(e)) => tracing::debug!(source = self.config.name, error = %e, "kafka; trying again"),
                None => {}
            }
            self.hold_back()?;
            if committed.elapsed() >= COMMIT_EVERY {
                commit(&self.consumer, &self.shared.uncommitted(None), &self.mark, CommitMode::Async);
                committed = Instant::now();
            }
        }
        self.shared.settle(None, SETTLE);
        commit(&self.consumer, &self.shared.uncommitted(None), &self.mark, CommitMode::Sync);
        Ok(end)
    }

    fn take(&self, message: &BorrowedMessage<'_>) {
        let payload = message.payload().unwrap_or_default();
        let forwarded = message.headers().and_then(|headers| forward::message::read(headers, payload));
        let (cluster, items) = match forwarded {
            Some((cluster, item)) => (cluster, vec![item]),
            None => (self.cluster(message), self.splitter.split(payload)),
        };
        let read = Read { cluster, items, next_offset: message.offset() + 1, bytes: payload.len() };
        Shared::push(&self.shared, (message.topic().to_owned(), message.partition()), read);
    }

    fn cluster(&self, message: &BorrowedMessage<'_>) -> String {
        let wanted = self.config.cluster_header.as_deref();
        let named = message.headers().zip(wanted).and_then(|(headers, wanted)| {
            let value = headers.iter().find(|h| h.key == wanted)?.value?;
            std::str::from_utf8(value).ok().filter(|v| !v.is_empty()).map(str::to_owned)
        });
        named.unwrap_or_else(|| self.config.cluster.clone())
    }

    /// Pauses or resumes, so that what is held stays bounded; polling goes on either way.
    fn hold_back(&mut self) -> KafkaResult<()> {
        let held = self.shared.held_bytes();
        if held > HELD_BYTES {
            // Each time: partitions assigned since are not paused yet.
            self.consumer.pause(&self.consumer.assignment()?)?;
            self.paused = true;
        } else if self.paused && held <= HELD_BYTES / 2 {
            self.consumer.resume(&self.consumer.assignment()?)?;
            self.paused = false;
        }
        Ok(())
    }

    /// Offsets we wanted are no longer on the broker: says exactly which, and goes on behind them.
    fn leave_gaps(&self) {
        for ((topic, partition), next) in self.shared.expected() {
            let (low, high) = match self.consumer.fetch_watermarks(&topic, partition, ASK) {
                Ok(range) => range,
                Err(e) => {
                    tracing::warn!(topic, partition, error = %e, "kafka did not tell its offsets");
                    continue;
                }
            };
            if (low..=high).contains(&next) {
                continue;
            }
            tracing::error!(topic, partition, from = next, to = low, "kafka records are gone before they were read");
            self.splitter.metrics().kafka_lost(&self.config.name, low - next);
            if let Err(e) = self.restart(&topic, partition, low) {
                tracing::error!(topic, partition, error = %e, "kafka partition not restarted");
                continue;
            }
            let read = Read::gap(self.config.cluster.clone(), &topic, partition, next, low);
            // What we expected no longer counts: the log may have been made anew and be shorter.
            self.shared.begin((topic.clone(), partition), None);
            Shared::push(&self.shared, (topic, partition), read);
        }
    }

    /// A partition that stopped at a missing offset cannot be sought, only assigned again.
    fn restart(&self, topic: &str, partition: i32, offset: i64) -> KafkaResult<()> {
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(topic, partition, Offset::Offset(offset))?;
        self.consumer.incremental_unassign(&list)?;
        self.consumer.incremental_assign(&list)
    }
}

const MARK: &str = "lapwing ";

/// What our commits bear, so that the next one to have the partition knows whose journal goes as far.
fn mark(instance: &str) -> String {
    format!("{MARK}{instance}")
}

/// Failure is only logged: a later commit covers it, and the journal knows better anyway.
fn commit<C: ConsumerContext>(consumer: &BaseConsumer<C>, offsets: &[(Partition, i64)], mark: &str, mode: CommitMode) {
    if offsets.is_empty() {
        return;
    }
    let mut list = TopicPartitionList::new();
    for ((topic, partition), next) in offsets {
        let mut element = list.add_partition(topic, *partition);
        element.set_metadata(mark);
        if let Err(e) = element.set_offset(Offset::Offset(*next)) {
            tracing::warn!(topic, partition, error = %e, "kafka offset not committed");
        }
    }
    if let Err(e) = consumer.commit(&list, mode) {
        tracing::warn!(error = %e, "kafka commit failed; a later one covers it");
    }
}

struct Context<S: Sink> {
    shared: Arc<Shared<S>>,
    from_end: bool,
    mark: String,
    name: String,
    metrics: Arc<Metrics>,
    quiet: Quiet,
}

impl<S: Sink> ClientContext for Context<S> {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        self.quiet.log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.quiet.error(error, reason);
    }

    fn stats(&self, statistics: Statistics) {
        let partitions = statistics.topics.values().flat_map(|topic| topic.partitions.values());
        // -1 for partitions that are not ours.
        self.metrics.kafka_lag(&self.name, partitions.map(|p| p.consumer_lag.max(0)).sum());
        let real = |source: &str| source == "configured" || source == "learned";
        let up = statistics.brokers.values().any(|broker| real(&broker.source) && broker.state == "UP");
        self.metrics.kafka_connected(&self.name, up);
    }
}

impl<S: Sink> ConsumerContext for Context<S> {
    fn rebalance(&self, consumer: &BaseConsumer<Self>, code: RDKafkaRespErr, list: &mut TopicPartitionList) {
        let cooperative = matches!(consumer.rebalance_protocol(), RebalanceProtocol::Cooperative);
        let result = if code == RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS {
            self.place(consumer, list);
            if cooperative { consumer.incremental_assign(list) } else { consumer.assign(list) }
        } else {
            self.give_up(consumer, list);
            if cooperative { consumer.incremental_unassign(list) } else { consumer.unassign() }
        };
        if let Err(e) = result {
            tracing::error!(error = %e, "kafka rebalance failed");
        }
    }

    fn commit_callback(&self, result: KafkaResult<()>, _: &TopicPartitionList) {
        if let Err(e) = result {
            tracing::warn!(error = %e, "kafka commit failed; a later one covers it");
        }
    }
}

impl<S: Sink> Context<S> {
    /// Where to begin: the journal's position, else the group's, else as configured.
    fn place(&self, consumer: &BaseConsumer<Self>, list: &mut TopicPartitionList) {
        let committed = consumer.committed_offsets(list.clone(), ASK).unwrap_or_else(|e| {
            tracing::warn!(error = %e, "kafka did not tell the group's offsets");
            TopicPartitionList::new()
        });
        let partitions: Vec<Partition> =
            list.elements().iter().map(|e| (e.topic().to_owned(), e.partition())).collect();
        for (topic, partition) in partitions {
            let group = committed.find_partition(&topic, partition);
            let others = group.as_ref().is_some_and(|e| e.metadata().starts_with(MARK) && e.metadata() != self.mark);
            let apart = self.shared.taken(&topic, partition);
            let journaled = self.shared.journaled(&topic, partition).filter(|_| !others);
            let offset = match (apart.or(journaled), group.map(|e| e.offset())) {
                (Some(next), _) => Offset::Offset(next),
                (_, Some(Offset::Offset(next))) => Offset::Offset(next),
                _ if self.from_end => Offset::End,
                _ => Offset::Beginning,
            };
            if let Err(e) = list.set_partition_offset(&topic, partition, offset) {
                tracing::error!(topic, partition, error = %e, "kafka start offset not set");
            }
            self.shared.begin((topic, partition), offset.to_raw().filter(|raw| *raw >= 0));
        }
    }

    /// The partitions go to somebody else: what is durable is committed, the rest is theirs.
    fn give_up(&self, consumer: &BaseConsumer<Self>, list: &TopicPartitionList) {
        let partitions: Vec<Partition> =
            list.elements().iter().map(|e| (e.topic().to_owned(), e.partition())).collect();
        self.shared.drop_held(&partitions);
        self.shared.settle(Some(&partitions), SETTLE);
        let offsets = self.shared.uncommitted(Some(&partitions));
        if !consumer.assignment_lost() {
            commit(consumer, &offsets, &self.mark, CommitMode::Sync);
        }
        self.shared.forget(&partitions);
        self.shared.given_up(&partitions);
    }
}

#[cfg(test)]
mod tests;
