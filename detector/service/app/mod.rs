//! Wires the parts, watches them, and takes them down in order. Decides nothing about events.

mod drain;
mod receive;
mod room;
mod sandbox;
mod scrub;
mod shards;
mod signals;
mod watch;

use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use anyhow::Context;
use lapwing_engine::engine::{Engine, Options};
use lapwing_engine::rule::set::RuleSet;
use rustix::process::DumpableBehavior;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

pub use self::receive::receive;
use self::signals::Signals;
use crate::archive::Archive;
use crate::completeness::Completeness;
use crate::config::{Config, Loaded};
use crate::flow::silence::{Silences, Watch};
use crate::http::{Admin, Readiness};
use crate::input::Splitter;
use crate::journal::{self, Journal, Lsn, Recovery};
use crate::metrics::Metrics;
use crate::output::Output;
use crate::output::metrics::Meter;
use crate::output::worker::Worker;
use crate::pipeline::arrivals::Arrivals;
use crate::pipeline::deliver::{self, Queue};
use crate::pipeline::detect::{self, Detect, NewRules};
use crate::pipeline::event_record;
use crate::pipeline::index::{self, Indexer};
use crate::pipeline::intake::Intake;
use crate::pipeline::positions::Positions;
use crate::pipeline::rulebook::Rulebook;
use crate::pipeline::selfalert::SelfAlerts;
use crate::pipeline::snapshot;
use crate::ruleset::Selection;
use crate::source::webhook::{Reload, Timing, Webhook};
use crate::source::{file, kafka};
use crate::space::Space;
use sandbox::Places;

/// Gives up what the service does not need. To be called while there is one thread.
///
/// # Errors
/// When `dataDir` cannot be made.
pub fn confine(loaded: &Loaded) -> anyhow::Result<()> {
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
    if !loaded.config.sandbox {
        return Ok(());
    }
    private_dir(&loaded.config.data_dir)?;
    match Places::of(&loaded.config, &loaded.file).enter() {
        Ok(true) => tracing::info!("in a sandbox"),
        Ok(false) => {
            tracing::info!("in a sandbox as far as this kernel has one")
        }
        Err(error) => tracing::warn!(%error, "no sandbox"),
    }
    if let Err(error) = rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable) {
        tracing::warn!(%error, "memory may be dumped");
    }
    Ok(())
}

/// Runs the service until it is told to stop.
///
/// # Errors
/// When it cannot start, or a part that owns state failed: restart it, it resumes where it was.
pub async fn serve(loaded: Loaded) -> anyhow::Result<()> {
    let Loaded { config, file, .. } = loaded;
    let base = file.parent().map(Path::to_path_buf).unwrap_or_default();
    let signals = Signals::listen()?;
    if config.sources.kafka.iter().any(|kafka| kafka.shards) {
        return shards::serve(config, base, signals).await;
    }
    let app = App::start(config, base, None).await?;
    let result = app.watch(signals).await;
    let drained = app.drain().await;
    result.and(drained)
}

/// A thread that owns state.
type Named = (&'static str, JoinHandle<anyhow::Result<()>>);

/// An output and how far it has come in the alert journal.
type Passed = (String, Arc<deliver::Passed>);

struct App {
    config: Config,
    base: PathBuf,
    events: Journal,
    alerts: Journal,
    metrics: Arc<Metrics>,
    readiness: Arc<Readiness>,
    own: SelfAlerts,
    space: Arc<Space>,
    arrivals: Arc<Arrivals>,
    detect: Arc<detect::Progress>,
    index: Arc<index::Progress>,
    new_rules: NewRules,
    threads: Mutex<Vec<Named>>,
    /// Sources, with the token that ends them.
    sources: tokio::sync::Mutex<JoinSet<anyhow::Result<()>>>,
    sources_stop: CancellationToken,
    outputs: tokio::sync::Mutex<JoinSet<anyhow::Result<()>>>,
    outputs_stop: CancellationToken,
    /// How far the archive has come in the event journal.
    archived: Mutex<Option<Arc<AtomicU64>>>,
    /// How far each output has come in the alert journal.
    passed: Arc<Mutex<Vec<Passed>>>,
    admin: tokio::sync::Mutex<JoinSet<()>>,
    admin_stop: CancellationToken,
    certificates: Option<Reload>,
}

fn private_dir(path: &Path) -> anyhow::Result<()> {
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .with_context(|| format!("cannot create `{}`; does the user of this process own its parent?", path.display()))
}

fn open_journal(dir: &Path, what: &str) -> anyhow::Result<Journal> {
    let (journal, recovery) =
        Journal::open(dir, journal::Options::default()).with_context(|| format!("{what} journal"))?;
    tell(what, &recovery);
    Ok(journal)
}

fn tell(what: &str, recovery: &Recovery) {
    if let Some(torn) = &recovery.torn {
        tracing::warn!(
            journal = what,
            ?torn,
            "the last write was not finished when the process ended; it was never acknowledged"
        );
    }
    for gap in &recovery.gaps {
        tracing::error!(journal = what, ?gap, "acknowledged records are damaged or missing");
    }
    tracing::info!(journal = what, last = recovery.last.0, "journal open");
}

/// The rules the configuration asks for.
pub fn selection(config: &Config) -> Selection {
    Selection {
        paths: config.rules.paths.clone(),
        only_paths: false,
        disabled: config.rules.disable.clone(),
        min_level: Some(config.rules.min_level),
        filters: config.rules.filters.clone(),
        lists: config.rules.lists.clone(),
    }
}

impl App {
    /// `shard` names it where it is one of several of this process; the process then has the admin port.
    async fn start(config: Config, base: PathBuf, shard: Option<&str>) -> anyhow::Result<Self> {
        let data = config.data_dir.clone();
        for dir in ["", "state", "rules", "outputs"] {
            private_dir(&data.join(dir))?;
        }
        let options = engine_options(&config);
        let rulebook = Rulebook::write(&data.join("rules"), selection(&config).sources()?, &options)?;
        let metrics = Arc::new(Metrics::of_shard(shard, clusters(&config)));
        announce(&metrics, &rulebook.rules);
        let readiness = Arc::new(Readiness::new(["journal", "disk", "engine", "listeners"]));
        let events = open_journal(&data.join("journal"), "event")?;
        let alerts = open_journal(&data.join("alerts"), "alert")?;
        let own = SelfAlerts::new(alerts.clone(), Arc::clone(&metrics));
        let space = Arc::new(Space::new(&data, config.disk.clone()));
        let mut app = Self {
            base,
            events,
            alerts,
            metrics,
            readiness,
            own,
            space,
            arrivals: Arc::default(),
            detect: Arc::default(),
            index: Arc::default(),
            new_rules: NewRules::default(),
            threads: Mutex::default(),
            sources: tokio::sync::Mutex::default(),
            sources_stop: CancellationToken::new(),
            outputs: tokio::sync::Mutex::default(),
            outputs_stop: CancellationToken::new(),
            archived: Mutex::default(),
            passed: Arc::default(),
            admin: tokio::sync::Mutex::default(),
            admin_stop: CancellationToken::new(),
            certificates: None,
            config,
        };
        app.refresh_metrics();
        if shard.is_none() {
            app.start_admin().await?;
        }
        app.readiness.ready("journal");
        if app.events.durable() == Lsn(0) {
            // Before anything else, so that each event has rules that judge it.
            let named = app.events.append(event_record::RULES, rulebook.id.to_vec()).await;
            let _ = named.inspect_err(|error| tracing::warn!(%error, "the rules in use could not be journaled yet"));
        }
        app.start_threads(rulebook, options)?;
        app.start_outputs().await?;
        // After the outputs, which begin with the next alert, and before anything is taken in.
        app.look_at_the_room().await;
        app.start_archive().await?;
        app.start_webhook().await?;
        app.readiness.ready("listeners");
        // Reads the journal behind the snapshot: senders need not wait for that.
        app.start_readers().await?;
        app.start_scrub().await;
        app.start_completeness().await;
        tracing::info!(data = %app.config.data_dir.display(), "lapwing {} is running", env!("CARGO_PKG_VERSION"));
        Ok(app)
    }

    async fn start_admin(&self) -> anyhow::Result<()> {
        let admin = Admin::bind(&self.config.admin, Arc::clone(&self.readiness), Arc::clone(&self.metrics)).await?;
        let admin = admin.with_silences(Silences::of(&self.config.data_dir));
        self.admin.lock().await.spawn(admin.run(self.admin_stop.clone()));
        Ok(())
    }

    fn start_threads(&self, rulebook: Rulebook, options: Options) -> anyhow::Result<()> {
        let detect = Detect {
            events: self.events.clone(),
            alerts: self.alerts.clone(),
            state: self.config.data_dir.join("state"),
            rules: self.config.data_dir.join("rules"),
            engine: Engine::new(Arc::clone(&rulebook.rules), options.clone()),
            rulebook: Arc::new(rulebook),
            options,
            progress: Arc::clone(&self.detect),
            metrics: Arc::clone(&self.metrics),
            own: self.own.clone(),
            space: Arc::clone(&self.space),
            new_rules: Arc::clone(&self.new_rules),
        };
        let indexer = Indexer {
            events: self.events.clone(),
            alerts: self.alerts.clone(),
            dir: self.config.data_dir.join("index"),
            state: self.config.data_dir.join("state"),
            max_age: Some(self.config.retention.max_age.get()),
            progress: Arc::clone(&self.index),
            metrics: Arc::clone(&self.metrics),
            space: Arc::clone(&self.space),
            own: self.own.clone(),
            arrivals: Arc::clone(&self.arrivals),
        };
        self.thread("engine", move || detect.run())?;
        self.thread("indexer", move || {
            indexer.run();
            Ok(())
        })
    }

    /// Starts a thread with a stack that deep input cannot exhaust.
    fn thread(
        &self,
        name: &'static str,
        run: impl FnOnce() -> anyhow::Result<()> + Send + 'static,
    ) -> anyhow::Result<()> {
        let thread = std::thread::Builder::new().name(name.to_owned()).stack_size(8 << 20).spawn(run)?;
        if let Ok(mut threads) = self.threads.lock() {
            threads.push((name, thread));
        }
        Ok(())
    }

    async fn start_completeness(&self) {
        let (config, clusters) = (self.config.completeness.clone(), clusters(&self.config));
        let (arrivals, metrics) = (Arc::clone(&self.arrivals), Arc::clone(&self.metrics));
        let watch = Completeness::new(config, clusters, arrivals, self.own.clone(), metrics);
        self.admin.lock().await.spawn(watch.run(self.admin_stop.clone()));
    }

    async fn start_outputs(&self) -> anyhow::Result<()> {
        let mut workers = self.outputs.lock().await;
        let flow = Arc::new(self.config.flow().map_err(|p| anyhow::anyhow!("{p:?}"))?);
        let silences = Watch::new(Silences::of(&self.config.data_dir));
        for config in &self.config.outputs {
            let output = Output::new(config)?.remembering(&self.config.data_dir);
            let queue = Queue::open(&self.config.data_dir, config.name(), &self.alerts, self.own.clone())?;
            if let Ok(mut passed) = self.passed.lock() {
                passed.push((config.name().to_owned(), queue.passed()));
            }
            let meter = Meter::new(Arc::clone(&self.metrics), config.name());
            let worker = Worker::new(config, output, &self.config.data_dir, meter, self.outputs_stop.clone());
            let worker = worker.with_flow(Arc::clone(&flow)).with_silences(silences.clone());
            workers.spawn(async move { Ok(worker.run(queue).await?) });
        }
        Ok(())
    }

    async fn start_archive(&self) -> anyhow::Result<()> {
        let Some(config) = self.config.archive.clone() else { return Ok(()) };
        let (metrics, own) = (Arc::clone(&self.metrics), self.own.clone());
        let archive = Archive::open(config, &self.config.data_dir, self.events.clone(), metrics, own)?;
        if let Ok(mut archived) = self.archived.lock() {
            *archived = Some(archive.done());
        }
        self.outputs.lock().await.spawn(archive.run(self.outputs_stop.clone()));
        Ok(())
    }

    /// The way into the journal.
    fn intake(&self) -> Intake {
        let (metrics, space) = (Arc::clone(&self.metrics), Arc::clone(&self.space));
        Intake::new(self.events.clone(), metrics, space, Arc::clone(&self.arrivals))
    }

    async fn start_webhook(&mut self) -> anyhow::Result<()> {
        let Some(config) = self.config.sources.webhook.clone() else { return Ok(()) };
        let intake = self.intake();
        let sink = move |batch| {
            let intake = intake.clone();
            async move { intake.store(batch).await }
        };
        let splitter = Splitter::new(Arc::clone(&self.metrics));
        let cut = move |body: &[u8]| splitter.split(body);
        let metrics = Arc::clone(&self.metrics);
        let webhook = Webhook::bind(config, &self.base, Timing::default(), cut, sink, metrics).await?;
        tracing::info!(address = %webhook.local_addr()?, "webhook is listening");
        self.certificates = Some(webhook.reloader());
        let stop = self.sources_stop.clone();
        self.sources.lock().await.spawn(async move {
            webhook.run(stop).await;
            Ok(())
        });
        Ok(())
    }

    /// Files and Kafka, which go on where they were.
    async fn start_readers(&self) -> anyhow::Result<()> {
        if self.config.sources.files.is_empty() && self.config.sources.kafka.is_empty() {
            return Ok(());
        }
        let (data, events) = (self.config.data_dir.clone(), self.events.clone());
        let positions = tokio::task::spawn_blocking(move || positions(&data, &events)).await??;
        let instance = instance(&self.config.data_dir.join("state"))?;
        let splitter = Splitter::new(Arc::clone(&self.metrics));
        let (sink, stop) = (Arc::new(self.intake()), &self.sources_stop);
        let mut sources = self.sources.lock().await;
        for config in self.config.sources.files.clone() {
            let position = positions.file(&config.path.display().to_string());
            let (sink, stop, splitter) = (Arc::clone(&sink), stop.clone(), splitter.clone());
            sources.spawn(async move {
                file::run(config, position, splitter, sink, stop).await;
                Ok(())
            });
        }
        for config in self.config.sources.kafka.clone() {
            let (sink, stop, splitter) = (Arc::clone(&sink), stop.clone(), splitter.clone());
            let known = kafka::Known { positions: positions.kafka(), instance: instance.clone() };
            sources.spawn(async move { Ok(kafka::run(config, known, splitter, sink, stop).await?) });
        }
        Ok(())
    }
}

/// How the engine behaves, by the configuration.
fn engine_options(config: &Config) -> Options {
    let window = config.alerts.group_window.get();
    Options {
        group_window: i64::try_from(window.as_micros()).unwrap_or(i64::MAX),
        min_level: config.rules.min_level,
        brief: true,
        baseline: config.baseline.options(),
        ..Options::default()
    }
}

/// The name of this data directory, made when it is first asked for.
fn instance(state: &Path) -> anyhow::Result<String> {
    let path = state.join("instance");
    match std::fs::read_to_string(&path) {
        Ok(name) if !name.is_empty() => return Ok(name),
        Ok(_) => {}
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
        Err(e) => return Err(e).with_context(|| format!("cannot read `{}`", path.display())),
    }
    let name = format!("{:016x}", rand::random::<u64>());
    let fresh = path.with_extension("new");
    let mut file = std::fs::File::create(&fresh)?;
    std::io::Write::write_all(&mut file, name.as_bytes())?;
    file.sync_all()?;
    std::fs::rename(&fresh, &path)?;
    std::fs::File::open(state)?.sync_all()?;
    Ok(name)
}

fn clusters(config: &Config) -> Vec<String> {
    let webhook = config.sources.webhook.iter();
    let mut names: Vec<String> = webhook
        .flat_map(|w| w.clusters.iter().map(|c| c.name.clone()))
        .chain(config.sources.files.iter().map(|f| f.cluster.clone()))
        .chain(config.sources.kafka.iter().map(|k| k.cluster.clone()))
        .collect();
    names.sort();
    names.dedup();
    names
}

fn announce(metrics: &Metrics, rules: &RuleSet) {
    let all = rules.rules().iter().map(|r| &r.meta).chain(rules.correlations().iter().map(|c| &c.meta));
    let mut count = 0;
    for meta in all {
        metrics.announce_rule(&meta.id, meta.level);
        count += 1;
    }
    metrics.rules_loaded.set(count);
    metrics.rules_reload_success.set(1);
    metrics.rules_reload_timestamp.set(chrono::Utc::now().timestamp() as f64);
}

fn positions(data: &Path, events: &Journal) -> anyhow::Result<Positions> {
    let newest = snapshot::newest(&data.join("state"), events.durable().0, |stored| (stored.positions, stored.lsn));
    let (mut positions, after) = newest.context("reading snapshots")?.unwrap_or_default();
    positions.read_on(events, Lsn(after));
    Ok(positions)
}
