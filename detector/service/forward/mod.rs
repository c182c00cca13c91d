//! The other half of a webhook that keeps nothing: batches go to a Kafka topic, and their sender is answered when the
//! brokers have them. While the brokers are away they go to a journal on this disk, and from there to the topic as soon as
//! it is back. It judges nothing.
//!
//! What was sent and not confirmed in time is sent again later: the topic may hold an event twice, never not at all.

mod config;
pub mod message;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use lapwing_engine::batch::Batch;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{FutureProducer, Producer, PurgeConfig};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

pub use config::Config;

use crate::journal::{self, CursorFile, Journal, Lsn, ReadError, Retention};
use crate::metrics::Metrics;
use crate::pipeline::event_record;
use crate::source::kafka::{ConfigError, Quiet};

/// How long brokers may take to confirm: less than the webhook waits for it, and an API server for the webhook.
const CONFIRMED: Duration = Duration::from_secs(6);
const LOOK_AGAIN: Duration = Duration::from_millis(200);
const TRY_AGAIN: Duration = Duration::from_secs(1);

/// It cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error("the producer cannot be made")]
    Producer(#[from] KafkaError),
    #[error("the spool cannot be opened")]
    Spool(#[from] journal::Error),
}

/// Why a batch is neither with the brokers nor on this disk.
#[derive(Debug, thiserror::Error)]
pub enum NotStored {
    #[error("the brokers are away and the spool is full ({} MiB)", .0 >> 20)]
    Full(u64),
    #[error("the brokers are away and the spool cannot be written")]
    Spool(#[from] journal::AppendError),
}

/// Cheap to clone.
#[derive(Clone)]
pub struct Forward {
    producer: FutureProducer<Quiet>,
    spool: Journal,
    config: Arc<Config>,
    /// Something is spooled, or the brokers did not confirm the last time: what comes goes to the spool.
    away: Arc<AtomicBool>,
    metrics: Arc<Metrics>,
}

/// Sends what was spooled.
pub struct Drainer {
    forward: Forward,
    cursor: CursorFile,
}

impl Forward {
    /// Opens the spool in `dir`. Whether the brokers are there is seen with the first batch.
    pub fn open(config: Config, dir: &Path, metrics: Arc<Metrics>) -> Result<(Self, Drainer), StartError> {
        let client = config.client()?;
        let producer = client.create_with_context(Quiet::new("forward", &client))?;
        let (spool, recovery) = Journal::open(&dir.join("spool"), journal::Options::default())?;
        let cursor = CursorFile::open(&dir.join("spool.cursor"))?;
        let away = Arc::new(AtomicBool::new(recovery.last.0 > cursor.get()));
        let forward = Self { producer, spool, config: Arc::new(config), away, metrics };
        Ok((forward.clone(), Drainer { forward, cursor }))
    }

    /// `Ok` once every item is with the brokers, or the batch on this disk.
    pub async fn store(&self, batch: Batch) -> Result<(), NotStored> {
        let items = batch.items.len() as u64;
        if !self.away.load(Ordering::Acquire) {
            match self.send(&batch).await {
                Ok(()) => {
                    self.metrics.forwarded("sent", items);
                    return Ok(());
                }
                Err(error) => {
                    tracing::warn!(%error, "the brokers did not confirm; batches go to the spool until they do");
                    self.away.store(true, Ordering::Release);
                }
            }
        }
        let bytes = self.spool.stat().bytes;
        if bytes >= self.config.max_spool.get() {
            return Err(NotStored::Full(bytes));
        }
        self.spool.append(event_record::BATCH, batch.encode()).await?;
        self.metrics.forwarded("spooled", items);
        Ok(())
    }

    /// Resolves when the brokers have all of it, or have not told so in time. librdkafka keeps a record that is on its
    /// way for longer than it was told: nobody waits for that here.
    async fn send(&self, batch: &Batch) -> Result<(), KafkaError> {
        match timeout(CONFIRMED, self.produce(batch)).await {
            Ok(result) => result,
            Err(_) => {
                self.producer.purge(PurgeConfig::default().queue());
                Err(KafkaError::MessageProduction(RDKafkaErrorCode::MessageTimedOut))
            }
        }
    }

    async fn produce(&self, batch: &Batch) -> Result<(), KafkaError> {
        let limit = usize::try_from(self.config.max_record.get()).unwrap_or(usize::MAX);
        let messages: Vec<_> = batch.items.iter().map(|item| message::write(&batch.cluster, item, limit)).collect();
        let mut under_way = Vec::with_capacity(messages.len());
        for message in &messages {
            let record = message.record(&self.config.topic, &batch.cluster);
            under_way.push(self.producer.send_result(record).map_err(|(error, _)| error)?);
        }
        for confirmed in under_way {
            let gone = |_| KafkaError::Canceled;
            confirmed.await.map_err(gone)?.map_err(|(error, _)| error)?;
        }
        Ok(())
    }

    fn tell(&self, done: u64) {
        let stat = self.spool.stat();
        self.metrics.spool_bytes.set(i64::try_from(stat.bytes).unwrap_or(i64::MAX));
        self.metrics.spool_records.set(stat.last.0.saturating_sub(done) as i64);
    }
}

impl Drainer {
    /// Sends what is spooled in its order, until `stop`; the rest is sent after the next start.
    pub async fn run(mut self, stop: CancellationToken) -> anyhow::Result<()> {
        let mut reader = self.forward.spool.reader(Lsn(self.cursor.get()));
        while !stop.is_cancelled() {
            self.forward.tell(self.cursor.get());
            match reader.next() {
                Ok(Some(record)) => {
                    if !bring(&self.forward, &record.payload, &stop).await {
                        return Ok(());
                    }
                    self.cursor.set(record.lsn.0)?;
                    self.forward.metrics.forwarded("unspooled", 1);
                }
                Ok(None) => {
                    self.caught_up(reader.position())?;
                    tokio::select! {
                        () = tokio::time::sleep(LOOK_AGAIN) => {}
                        () = stop.cancelled() => {}
                    }
                }
                Err(error @ ReadError::Lost { .. }) => tracing::error!(%error, "the spool is damaged here"),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Nothing is left behind `done`. A batch that came meanwhile is looked for again before the spool is passed by.
    fn caught_up(&self, done: Lsn) -> anyhow::Result<()> {
        let forward = &self.forward;
        if forward.away.swap(false, Ordering::AcqRel) {
            tracing::info!("the brokers have everything that was spooled");
            forward.spool.trim(done, Retention { max_age: None, max_bytes: Some(0) })?;
        }
        Ok(())
    }
}

/// False when told to stop before the brokers had it.
async fn bring(forward: &Forward, payload: &[u8], stop: &CancellationToken) -> bool {
    let batch = match Batch::decode(payload) {
        Ok(batch) => batch,
        Err(error) => {
            tracing::error!(%error, "a spooled batch cannot be read");
            return true;
        }
    };
    loop {
        tokio::select! {
            sent = forward.send(&batch) => match sent {
                Ok(()) => return true,
                Err(error) => tracing::debug!(%error, "the brokers are still away"),
            },
            () = stop.cancelled() => return false,
        }
        tokio::select! {
            () = tokio::time::sleep(TRY_AGAIN) => {}
            () = stop.cancelled() => return false,
        }
    }
}

/// What is under way is confirmed, or given up after `most`.
pub fn flush(forward: &Forward, most: Duration) {
    if let Err(error) = forward.producer.flush(most) {
        tracing::warn!(%error, "not everything was confirmed; its senders have not been answered");
    }
}
