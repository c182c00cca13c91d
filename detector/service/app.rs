//! Wires the parts, watches them, and takes them down in order. Decides nothing about events.

use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, bail};
use lapwing_engine::engine::{Engine, Options};
use lapwing_engine::rule::set::RuleSet;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::config::{Config, Loaded};
use crate::http::{Admin, Readiness};
use crate::input::{Limits, split};
use crate::journal::{self, Journal, Lsn, Recovery};
use crate::metrics::Metrics;
use crate::output::Output;
use crate::output::metrics::Meter;
use crate::output::worker::Worker;
use crate::pipeline::deliver::Queue;
use crate::pipeline::detect::{self, Detect, NewRules};
use crate::pipeline::index::{self, Indexer};
use crate::pipeline::intake::Intake;
use crate::pipeline::positions::Positions;
use crate::pipeline::snapshot;
use crate::ruleset::Selection;
use crate::source::webhook::{Reload, Timing, Webhook};
use crate::source::{file, kafka};

/// Deadlines of the drain. Together below the 30 seconds a supervisor usually grants.
const SOURCES_DRAIN: Duration = Duration::from_secs(8);
const THREADS_DRAIN: Duration = Duration::from_secs(12);
const OUTPUTS_DRAIN: Duration = Duration::from_secs(5);
const WATCH_EVERY: Duration = Duration::from_secs(1);
const RETAIN_EVERY: Duration = Duration::from_secs(60);
/// Alerts kept at most, delivered ones first to go.
const ALERT_BYTES: u64 = 1 << 30;

/// Runs the service until it is told to stop.
///
/// # Errors
/// When it cannot start, or a part that owns state failed: restart it, it resumes where it was.
pub async fn serve(loaded: Loaded) -> anyhow::Result<()> {
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
    let app = App::start(loaded).await?;
    let result = app.watch().await;
    let drained = app.drain().await;
    result.and(drained)
}

/// A thread that owns state.
type Named = (&'static str, JoinHandle<anyhow::Result<()>>);

/// An output and how far it has come in the alert journal.
type Passed = (String, Arc<AtomicU64>);

struct App {
    config: Config,
    base: PathBuf,
    events: Journal,
    alerts: Journal,
    metrics: Arc<Metrics>,
    readiness: Arc<Readiness>,
    detect: Arc<detect::Progress>,
    index: Arc<index::Progress>,
    new_rules: NewRules,
    threads: Mutex<Vec<Named>>,
    /// Sources, with the token that ends them.
    sources: tokio::sync::Mutex<JoinSet<anyhow::Result<()>>>,
    sources_stop: CancellationToken,
    outputs: tokio::sync::Mutex<JoinSet<anyhow::Result<()>>>,
    outputs_stop: CancellationToken,
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
    }
}

impl App {
    async fn start(loaded: Loaded) -> anyhow::Result<Self> {
        let Loaded { config, file, .. } = loaded;
        let base = file.parent().map(Path::to_path_buf).unwrap_or_default();
        let data = config.data_dir.clone();
        for dir in ["", "state", "outputs"] {
            private_dir(&data.join(dir))?;
        }
        let rules = selection(&config).load()?;
        let metrics = Arc::new(Metrics::new(clusters(&config)));
        announce(&metrics, &rules);
        let readiness = Arc::new(Readiness::new(["journal", "engine", "listeners"]));
        let events = open_journal(&data.join("journal"), "event")?;
        let alerts = open_journal(&data.join("alerts"), "alert")?;
        let positions = positions(&data, &events)?;
        let mut app = Self {
            base,
            events,
            alerts,
            metrics,
            readiness,
            detect: Arc::default(),
            index: Arc::default(),
            new_rules: NewRules::default(),
            threads: Mutex::default(),
            sources: tokio::sync::Mutex::default(),
            sources_stop: CancellationToken::new(),
            outputs: tokio::sync::Mutex::default(),
            outputs_stop: CancellationToken::new(),
            passed: Arc::default(),
            admin: tokio::sync::Mutex::default(),
            admin_stop: CancellationToken::new(),
            certificates: None,
            config,
        };
        app.refresh_metrics();
        app.start_admin().await?;
        app.readiness.ready("journal");
        app.start_threads(rules)?;
        app.start_outputs().await?;
        app.start_sources(&positions).await?;
        app.readiness.ready("listeners");
        tracing::info!(data = %app.config.data_dir.display(), "lapwing {} is running", env!("CARGO_PKG_VERSION"));
        Ok(app)
    }

    async fn start_admin(&self) -> anyhow::Result<()> {
        let address = self.config.admin.listen.parse().context("admin.listen")?;
        let admin = Admin::bind(address, Arc::clone(&self.readiness), Arc::clone(&self.metrics)).await?;
        self.admin.lock().await.spawn(admin.run(self.admin_stop.clone()));
        Ok(())
    }

    fn start_threads(&self, rules: Arc<RuleSet>) -> anyhow::Result<()> {
        let window = self.config.alerts.group_window.get();
        let group_window = i64::try_from(window.as_micros()).unwrap_or(i64::MAX);
        let options = Options { group_window, min_level: self.config.rules.min_level, ..Options::default() };
        let detect = Detect {
            events: self.events.clone(),
            alerts: self.alerts.clone(),
            state: self.config.data_dir.join("state"),
            engine: Engine::new(rules, options.clone()),
            options,
            progress: Arc::clone(&self.detect),
            metrics: Arc::clone(&self.metrics),
            new_rules: Arc::clone(&self.new_rules),
        };
        let indexer = Indexer {
            events: self.events.clone(),
            alerts: self.alerts.clone(),
            dir: self.config.data_dir.join("index"),
            max_age: Some(self.config.retention.max_age.get()),
            progress: Arc::clone(&self.index),
            metrics: Arc::clone(&self.metrics),
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

    async fn start_outputs(&self) -> anyhow::Result<()> {
        let mut workers = self.outputs.lock().await;
        for config in &self.config.outputs {
            let output = Output::new(config)?;
            let queue = Queue::open(&self.config.data_dir, config.name(), &self.alerts)?;
            if let Ok(mut passed) = self.passed.lock() {
                passed.push((config.name().to_owned(), queue.passed()));
            }
            let meter = Meter::new(Arc::clone(&self.metrics), config.name());
            let worker = Worker::new(config, output, &self.config.data_dir, meter, self.outputs_stop.clone());
            workers.spawn(async move { Ok(worker.run(queue).await?) });
        }
        Ok(())
    }

    async fn start_sources(&mut self, positions: &Positions) -> anyhow::Result<()> {
        let intake = Intake::new(self.events.clone(), Arc::clone(&self.metrics));
        let stop = &self.sources_stop;
        let mut sources = self.sources.lock().await;
        if let Some(config) = self.config.sources.webhook.clone() {
            let sink = {
                let intake = intake.clone();
                move |batch| {
                    let intake = intake.clone();
                    async move { intake.store(batch).await }
                }
            };
            let cut = |body: &[u8]| split(body, &Limits::default());
            let metrics = Arc::clone(&self.metrics);
            let webhook = Webhook::bind(config, &self.base, Timing::default(), cut, sink, metrics).await?;
            tracing::info!(address = %webhook.local_addr()?, "webhook is listening");
            self.certificates = Some(webhook.reloader());
            let stop = stop.clone();
            sources.spawn(async move {
                webhook.run(stop).await;
                Ok(())
            });
        }
        let sink = Arc::new(intake);
        for config in self.config.sources.files.clone() {
            let position = positions.file(&config.path.display().to_string());
            let (sink, stop) = (Arc::clone(&sink), stop.clone());
            sources.spawn(async move {
                file::run(config, position, Limits::default(), sink, stop).await;
                Ok(())
            });
        }
        for config in self.config.sources.kafka.clone() {
            let (sink, stop, positions) = (Arc::clone(&sink), stop.clone(), positions.kafka());
            sources.spawn(async move { Ok(kafka::run(config, positions, Limits::default(), sink, stop).await?) });
        }
        Ok(())
    }

    /// Until a signal or a failure.
    async fn watch(&self) -> anyhow::Result<()> {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut hangup = signal(SignalKind::hangup())?;
        let mut tick = tokio::time::interval(WATCH_EVERY);
        let mut retain = tokio::time::interval(RETAIN_EVERY);
        let mut syncs = (0, Duration::ZERO);
        loop {
            tokio::select! {
                _ = terminate.recv() => { tracing::info!("stopping"); return Ok(()) }
                _ = interrupt.recv() => { tracing::info!("stopping"); return Ok(()) }
                _ = hangup.recv() => self.reload().await,
                _ = tick.tick() => self.look(&mut syncs).await?,
                _ = retain.tick() => self.retain().await,
            }
        }
    }

    /// Reads the rules and certificates again; what is bad is told, and the old goes on.
    async fn reload(&self) {
        if let Some(certificates) = &self.certificates {
            certificates.reload();
        }
        let selection = selection(&self.config);
        let loaded = tokio::task::spawn_blocking(move || selection.load()).await;
        match loaded {
            Ok(Ok(rules)) => {
                announce(&self.metrics, &rules);
                tracing::info!(rules = rules.rules().len() + rules.correlations().len(), "rules loaded again");
                if let Ok(mut slot) = self.new_rules.lock() {
                    *slot = Some(rules);
                }
            }
            Ok(Err(error)) => self.keep_old_rules(&error),
            Err(error) => self.keep_old_rules(&error),
        }
    }

    fn keep_old_rules(&self, error: &dyn std::fmt::Display) {
        self.metrics.rules_reload_success.set(0);
        tracing::error!(%error, "the rules on disk cannot be used; the old ones go on");
    }

    /// Readiness, the time syncs take, and whether every part still lives.
    async fn look(&self, syncs: &mut (u64, Duration)) -> anyhow::Result<()> {
        let stat = self.events.stat();
        let (count, time) = (stat.syncs - syncs.0, stat.sync_time.saturating_sub(syncs.1));
        for _ in 0..count.min(10_000) {
            self.metrics.journal_fsync.observe(time.as_secs_f64() / count as f64);
        }
        *syncs = (stat.syncs, stat.sync_time);
        if stat.failing {
            self.readiness.not_ready("journal", "the last write to the journal failed; is the disk full?");
        } else {
            self.readiness.ready("journal");
        }
        self.readiness.ready("engine");
        self.are_alive().await
    }

    /// Keeps the gauges true whenever somebody looks.
    fn refresh_metrics(&self) {
        let (events, readiness) = (self.events.clone(), Arc::clone(&self.readiness));
        let (detect, index) = (Arc::clone(&self.detect), Arc::clone(&self.index));
        let (alerts, passed) = (self.alerts.clone(), Arc::clone(&self.passed));
        self.metrics.refresh_with(move |m| {
            let stat = events.stat();
            let behind = |at: &AtomicU64| stat.last.0.saturating_sub(at.load(Ordering::Acquire)) as i64;
            m.journal_durable_lsn.set(stat.last.0 as i64);
            m.journal_bytes.set(stat.bytes as i64);
            m.engine_lag.set(behind(&detect.judged));
            m.index_lag.set(behind(&index.indexed));
            m.ready.set(i64::from(readiness.report().ready));
            for (output, at) in passed.lock().iter().flat_map(|all| all.iter()) {
                m.pending(output, alerts.durable().0.saturating_sub(at.load(Ordering::Acquire)));
            }
        });
    }

    async fn are_alive(&self) -> anyhow::Result<()> {
        if let Ok(mut threads) = self.threads.lock()
            && let Some(at) = threads.iter().position(|(_, t)| t.is_finished())
        {
            let (name, thread) = threads.swap_remove(at);
            return match thread.join() {
                Ok(Ok(())) => bail!("the {name} thread ended by itself"),
                Ok(Err(error)) => Err(error.context(format!("the {name} thread failed"))),
                Err(_) => bail!("the {name} thread panicked; the journal keeps what it had to do"),
            };
        }
        for parts in [&self.sources, &self.outputs] {
            if let Some(ended) = parts.lock().await.try_join_next() {
                ended.context("a source or output panicked")??;
            }
        }
        Ok(())
    }

    /// Trims the journals to the configured age and size: events never beyond what is judged and indexed,
    /// alerts never beyond what is indexed and every output has passed.
    async fn retain(&self) {
        let max_age = Some(self.config.retention.max_age.get());
        let judged = self.detect.judged.load(Ordering::Acquire);
        let events = judged.min(self.index.indexed.load(Ordering::Acquire));
        let passed = self
            .passed
            .lock()
            .map_or(0, |all| all.iter().map(|(_, p)| p.load(Ordering::Acquire)).min().unwrap_or(u64::MAX));
        let alerts = passed.min(self.index.alerts_indexed.load(Ordering::Acquire));
        let max_bytes = Some(self.config.retention.max_size.get());
        trim("event", self.events.clone(), events, journal::Retention { max_age, max_bytes }).await;
        trim("alert", self.alerts.clone(), alerts, journal::Retention { max_age, max_bytes: Some(ALERT_BYTES) }).await;
    }

    /// From the sources down: nothing new comes in, what came in is judged, what was found is delivered as
    /// far as the deadline allows; the rest is in the journals.
    async fn drain(&self) -> anyhow::Result<()> {
        self.readiness.drain();
        self.sources_stop.cancel();
        finish(&self.sources, SOURCES_DRAIN).await;
        self.detect.stop.store(true, Ordering::Release);
        let result = self.join("engine").await;
        self.index.stop.store(true, Ordering::Release);
        let indexed = self.join("indexer").await;
        let deadline = tokio::time::Instant::now() + OUTPUTS_DRAIN;
        while self.undelivered() && tokio::time::Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        self.outputs_stop.cancel();
        finish(&self.outputs, OUTPUTS_DRAIN + Duration::from_secs(1)).await;
        self.admin_stop.cancel();
        let (events, alerts) = (self.events.clone(), self.alerts.clone());
        tokio::task::spawn_blocking(move || {
            events.close();
            alerts.close();
        })
        .await?;
        tracing::info!("stopped");
        result.and(indexed)
    }

    /// Whether an output has not come to the end of the alert journal.
    fn undelivered(&self) -> bool {
        let end = self.alerts.durable().0;
        self.passed.lock().is_ok_and(|all| all.iter().any(|(_, p)| p.load(Ordering::Acquire) < end))
    }

    async fn join(&self, name: &'static str) -> anyhow::Result<()> {
        let thread = self.threads.lock().ok().and_then(|mut threads| {
            let at = threads.iter().position(|(n, _)| *n == name)?;
            Some(threads.swap_remove(at).1)
        });
        let Some(thread) = thread else { return Ok(()) };
        let joined = tokio::task::spawn_blocking(move || thread.join());
        match tokio::time::timeout(THREADS_DRAIN, joined).await {
            Ok(Ok(Ok(result))) => result,
            Ok(_) => bail!("the {name} thread panicked"),
            Err(_) => {
                tracing::warn!("the {name} thread was not done in time; it goes on after the restart");
                Ok(())
            }
        }
    }
}

async fn trim(what: &'static str, journal: Journal, keep_after: u64, retention: journal::Retention) {
    let trimmed = tokio::task::spawn_blocking(move || journal.trim(Lsn(keep_after), retention)).await;
    match trimmed {
        Ok(Ok(t)) if t.segments > 0 => {
            tracing::info!(journal = what, segments = t.segments, bytes = t.bytes, "journal trimmed");
        }
        Ok(Err(error)) => tracing::warn!(journal = what, %error, "journal could not be trimmed"),
        _ => {}
    }
}

async fn finish(parts: &tokio::sync::Mutex<JoinSet<anyhow::Result<()>>>, deadline: Duration) {
    let mut parts = parts.lock().await;
    let all = async {
        while let Some(ended) = parts.join_next().await {
            if let Ok(Err(error)) = ended {
                tracing::error!(error = format!("{error:#}"), "a source or output ended badly");
            }
        }
    };
    if tokio::time::timeout(deadline, all).await.is_err() {
        tracing::warn!("not everything ended in time; what is left is in the journals");
    }
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
    let stored = snapshot::newest(&data.join("state"), events.durable().0).context("reading snapshots")?;
    let (mut positions, after) = stored.map_or((Positions::default(), 0), |s| (s.positions, s.lsn));
    positions.read_on(events, Lsn(after));
    Ok(positions)
}
