//! One consumer of a group whose every partition has an app of its own: journal, engine, outputs, all below
//! `dataDir/shards/<topic>-<partition>`. That directory lies on storage the whole group shares and is locked by who
//! has it open, so a partition takes everything it remembers along when it moves, and two can never judge it at once.
//! Nothing here knows what is in a partition.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context;
use lapwing_engine::batch::{Batch, Origin};
use tokio::runtime::Handle;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::{App, Config, Signals, private_dir};
use crate::archive;
use crate::config::Sources;
use crate::flow::silence::Silences;
use crate::http::{Admin, Readiness};
use crate::input::Splitter;
use crate::journal;
use crate::metrics::Metrics;
use crate::pipeline::intake::Intake;
use crate::source::kafka::{self, Known, Partition};
use crate::source::{Refused, Sink};

/// How long a partition's directory may be held by somebody who has lost the partition and does not know yet.
const HELD: Duration = Duration::from_secs(120);
const LOOK_AGAIN: Duration = Duration::from_millis(200);

/// Runs until told to stop, or until a shard fails: then all of them move.
pub(super) async fn serve(config: Config, base: PathBuf, signals: Signals) -> anyhow::Result<()> {
    let kafka = config.sources.kafka.first().cloned().context("no Kafka source")?;
    private_dir(&config.data_dir.join("shards"))?;
    let metrics = Arc::new(Metrics::new([""; 0]));
    let readiness = Arc::new(Readiness::new(["kafka"]));
    let admin = Admin::bind(&config.admin, Arc::clone(&readiness), Arc::clone(&metrics)).await?;
    let admin = admin.with_silences(Silences::of(&config.data_dir));
    let admin_stop = CancellationToken::new();
    let admin = tokio::spawn(admin.run(admin_stop.clone()));
    let shards = Arc::new(Shards {
        config,
        base,
        signals: signals.clone(),
        metrics: Arc::clone(&metrics),
        runtime: Handle::current(),
        open: Mutex::default(),
        failed: Arc::default(),
    });
    readiness.ready("kafka");
    tracing::info!("lapwing {} waits for its partitions", env!("CARGO_PKG_VERSION"));
    // Leaving the group closes the shards, one after another.
    let ended = kafka::run(kafka, Known::default(), Splitter::new(metrics), Arc::clone(&shards), signals.stop).await;
    readiness.drain();
    let failed = shards.failed.lock().unwrap_or_else(PoisonError::into_inner).take();
    let rest: Vec<Partition> = shards.lock().keys().cloned().collect();
    let closing = Arc::clone(&shards);
    tokio::task::spawn_blocking(move || rest.iter().for_each(|(topic, p)| closing.given_up(topic, *p))).await?;
    admin_stop.cancel();
    admin.await?;
    failed.map_or(Ok(()), Err).and(ended.map_err(Into::into))
}

struct Shards {
    config: Config,
    base: PathBuf,
    signals: Signals,
    metrics: Arc<Metrics>,
    runtime: Handle,
    open: Mutex<HashMap<Partition, Shard>>,
    /// Why a shard ended by itself.
    failed: Arc<Mutex<Option<anyhow::Error>>>,
}

struct Shard {
    app: Arc<App>,
    intake: Intake,
    stop: CancellationToken,
    watch: JoinHandle<()>,
}

impl Shards {
    fn lock(&self) -> MutexGuard<'_, HashMap<Partition, Shard>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Opens the shard as soon as whoever had the partition before has closed it.
    async fn start(&self, name: &str) -> anyhow::Result<App> {
        let data_dir = self.config.data_dir.join("shards").join(name);
        // Positions are those of a shard's own journal: another shard must not give its objects the same names.
        let own =
            |archive: archive::Config| archive::Config { prefix: format!("{}{name}/", archive.prefix), ..archive };
        let archive = self.config.archive.clone().map(own);
        let config = Config { data_dir, sources: Sources::default(), archive, ..self.config.clone() };
        let deadline = Instant::now() + HELD;
        loop {
            match App::start(config.clone(), self.base.clone(), Some(name)).await {
                Err(error) if is_locked(&error) && Instant::now() < deadline => tokio::time::sleep(LOOK_AGAIN).await,
                result => return result.with_context(|| format!("shard `{name}`")),
            }
        }
    }

    /// Looks after a shard until it is told to stop; ends the process's work when it fails.
    fn watch(&self, app: &Arc<App>, stop: &CancellationToken) -> JoinHandle<()> {
        let (app, all, failed) = (Arc::clone(app), self.signals.stop.clone(), Arc::clone(&self.failed));
        let signals = Signals { stop: stop.clone(), reload: self.signals.reload.clone() };
        self.runtime.spawn(async move {
            if let Err(error) = app.watch(signals).await {
                failed.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
                all.cancel();
            }
        })
    }
}

fn is_locked(error: &anyhow::Error) -> bool {
    error.chain().any(|e| matches!(e.downcast_ref(), Some(journal::Error::Locked { .. })))
}

impl Sink for Shards {
    async fn accept(&self, batch: Batch) -> Result<(), Refused> {
        let Origin::Kafka { topic, partition, .. } = &batch.origin else { return Err(Refused::Closed) };
        let intake = self.lock().get(&(topic.clone(), *partition)).map(|shard| shard.intake.clone());
        match intake {
            // A closed journal is that of a shard that is being given up.
            Some(intake) => intake.accept(batch).await.map_err(|refused| match refused {
                Refused::Closed => Refused::Moved,
                other => other,
            }),
            None => Err(Refused::Moved),
        }
    }

    fn taken(&self, topic: &str, partition: i32) -> anyhow::Result<Option<i64>> {
        let name = format!("{topic}-{partition}");
        let app = Arc::new(self.runtime.block_on(self.start(&name))?);
        let place = (topic.to_owned(), partition);
        let next = super::positions(&app.config.data_dir, &app.events)?.kafka().get(&place).copied();
        self.metrics.join(&app.metrics);
        let stop = CancellationToken::new();
        let shard = Shard { intake: app.intake(), watch: self.watch(&app, &stop), stop, app };
        self.lock().insert(place, shard);
        tracing::info!(shard = name, next, "partition taken");
        Ok(next)
    }

    fn given_up(&self, topic: &str, partition: i32) {
        let Some(shard) = self.lock().remove(&(topic.to_owned(), partition)) else { return };
        let Shard { app, intake, stop, watch } = shard;
        stop.cancel();
        drop(intake);
        let drained = self.runtime.block_on(async {
            // It ends at once, and is not needed where it does not.
            let _ = watch.await;
            app.drain().await
        });
        if let Err(error) = drained {
            tracing::error!(
                topic,
                partition,
                error = format!("{error:#}"),
                "shard did not close cleanly; its journal has everything"
            );
        }
        tracing::info!(topic, partition, "partition given up");
    }
}
