//! Every event as it was stored (secrets are out already) in compressed objects of an S3 bucket, for those who must keep
//! them.
//!
//! Reads the event journal and nothing else. Which positions make an object is decided and durable before it is put; an
//! object that is put again, after a crash, is the same object. Nothing is trimmed from the journal that is not archived.

pub mod part;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context;
use lapwing_engine::alert::Level;
use lapwing_engine::batch::Batch;
use object_store::aws::{AmazonS3, AmazonS3Builder, Checksum};
use object_store::client::{HttpClient, HttpConnector};
use object_store::{ClientOptions, ObjectStoreExt, RetryConfig};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use self::part::{Finished, Part};
use crate::config::{ByteSize, HumanDuration};
use crate::journal::{CursorFile, Journal, Lsn, ReadError, Reader};
use crate::metrics::Metrics;
use crate::output::{http, secret, tls};
use crate::pipeline::event_record;
use crate::pipeline::selfalert::{Notice, SelfAlerts};

/// Longest pause between two tries.
const MAX_PAUSE: Duration = Duration::from_secs(60);
/// Failing for so long is an alert.
const TELL_AFTER: Duration = Duration::from_secs(600);

/// Where every event is kept, in compressed objects.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
#[schemars(extend("required" = ["endpoint", "bucket", "accessKeyFile", "secretKeyFile"]))]
pub struct Config {
    /// Where S3 is spoken: `https://s3.eu-central-1.amazonaws.com`.
    pub endpoint: String,
    /// Its region.
    pub region: String,
    /// The bucket.
    pub bucket: String,
    /// What the name of every object begins with.
    pub prefix: String,
    /// File with the access key.
    pub access_key_file: PathBuf,
    /// File with the secret key.
    pub secret_key_file: PathBuf,
    /// An object is put when so much has gathered, before compression.
    pub max_bytes: ByteSize,
    /// Or when its first event waits so long.
    pub max_wait: HumanDuration,
    /// How to trust the receiver.
    pub tls: tls::Config,
    /// Longest time for one object, in seconds (1 to 300).
    pub timeout_seconds: http::Timeout,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            endpoint: String::new(),
            region: "us-east-1".to_owned(),
            bucket: String::new(),
            prefix: "lapwing/".to_owned(),
            access_key_file: PathBuf::new(),
            secret_key_file: PathBuf::new(),
            max_bytes: ByteSize::mib(64),
            max_wait: HumanDuration::from_secs(300),
            tls: tls::Config::default(),
            timeout_seconds: http::Timeout::seconds(300),
        }
    }
}

impl Config {
    /// Everything wrong with these settings, without touching disk or network.
    pub fn problems(&self) -> Vec<String> {
        let mut found = http::receiver_problems(&self.endpoint, &self.tls, self.timeout_seconds);
        if self.bucket.is_empty() {
            found.push("bucket is missing".to_owned());
        }
        if !(1 << 16..=1 << 30).contains(&self.max_bytes.get()) {
            found.push("maxBytes: expected 64KiB to 1GiB".to_owned());
        }
        found
    }

    /// The store; reads the keys, so that rotated ones are taken over.
    fn store(&self) -> anyhow::Result<AmazonS3> {
        let client = http::Client::new(self.tls.clone(), self.timeout_seconds.get()).guarded()?;
        let key = |path: &Path| secret::read(path).map(|s| s.expose().to_owned());
        let store = AmazonS3Builder::new()
            .with_endpoint(self.endpoint.trim_end_matches('/'))
            // What may be spoken in plain was checked: loopback alone.
            .with_allow_http(true)
            .with_region(&self.region)
            .with_bucket_name(&self.bucket)
            .with_access_key_id(key(&self.access_key_file)?)
            .with_secret_access_key(key(&self.secret_key_file)?)
            .with_checksum_algorithm(Checksum::SHA256)
            .with_retry(RetryConfig { max_retries: 0, ..RetryConfig::default() })
            .with_http_connector(Guarded(client))
            .build()?;
        Ok(store)
    }
}

/// Our own client, with its guard, trust and no proxy.
#[derive(Debug)]
struct Guarded(reqwest::Client);

impl HttpConnector for Guarded {
    fn connect(&self, _: &ClientOptions) -> object_store::Result<HttpClient> {
        Ok(HttpClient::new(self.0.clone()))
    }
}

/// The archive at work.
pub struct Archive {
    config: Config,
    events: Journal,
    /// Everything up to here is in the bucket.
    cursor: CursorFile,
    /// The objects up to here are decided.
    plan: CursorFile,
    done: Arc<AtomicU64>,
    metrics: Arc<Metrics>,
    own: SelfAlerts,
}

impl Archive {
    /// Opens what is remembered under `data_dir/state`. A new archive begins with the next event.
    pub fn open(
        config: Config,
        data_dir: &Path,
        events: Journal,
        metrics: Arc<Metrics>,
        own: SelfAlerts,
    ) -> anyhow::Result<Self> {
        config.store().context("archive")?;
        let path = |name| data_dir.join("state").join(name);
        let new = !path("archive.cursor").exists();
        let mut cursor = CursorFile::open(&path("archive.cursor"))?;
        let plan = CursorFile::open(&path("archive.plan"))?;
        if new {
            cursor.set(events.durable().0)?;
        }
        let done = Arc::new(AtomicU64::new(cursor.get()));
        Ok(Self { config, events, cursor, plan, done, metrics, own })
    }

    /// How far it came, kept up to date.
    pub fn done(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.done)
    }

    /// Archives until told to stop. What has gathered by then is still in the journal.
    ///
    /// # Errors
    /// When its position cannot be stored.
    pub async fn run(mut self, stop: CancellationToken) -> anyhow::Result<()> {
        loop {
            let (gathering, stopping) = (self.gathering(), stop.clone());
            let gathered = tokio::task::spawn_blocking(move || gathering.run(&stopping)).await?;
            let Some((to, objects)) = gathered? else { return Ok(()) };
            if !objects.is_empty() {
                // Decided before the first is put: after a crash the same objects are made again.
                self.plan.set(to)?;
            }
            for object in objects {
                if !self.put(object, &stop).await {
                    return Ok(());
                }
            }
            self.cursor.set(to)?;
            self.done.store(to, Ordering::Release);
        }
    }

    fn gathering(&self) -> Gathering {
        let from = self.cursor.get();
        Gathering {
            reader: self.events.reader(Lsn(from)),
            events: self.events.clone(),
            from,
            planned: Some(self.plan.get()).filter(|plan| *plan > from),
            max_bytes: self.config.max_bytes.get(),
            max_wait: self.config.max_wait.get(),
        }
    }

    /// Tries until the bucket has it; false when told to stop before.
    async fn put(&mut self, object: Finished, stop: &CancellationToken) -> bool {
        let path = object_store::path::Path::from(format!("{}{}", self.config.prefix, object.name));
        let (start, mut pause) = (Instant::now(), Duration::from_secs(1));
        loop {
            let put = async {
                let store = self.config.store()?;
                store.put(&path, object.content.clone().into()).await?;
                anyhow::Ok(())
            };
            let put = tokio::select! {
                put = put => put,
                () = stop.cancelled() => return false,
            };
            let Err(error) = put else {
                self.metrics.archived(object.events, object.content.len() as u64);
                self.own.over(BEHIND, "", "");
                return true;
            };
            self.metrics.archive_failures.inc();
            let reason = format!("{error:#}");
            tracing::warn!(object = %path, reason, "cannot archive, will try again");
            if start.elapsed() >= TELL_AFTER {
                self.tell(reason).await;
            }
            tokio::select! {
                () = tokio::time::sleep(pause) => pause = (pause * 2).min(MAX_PAUSE),
                () = stop.cancelled() => return false,
            }
        }
    }

    async fn tell(&mut self, reason: String) {
        let notice = Notice {
            id: BEHIND,
            title: "Events cannot be archived",
            level: Level::High,
            summary: format!("Nothing could be put into bucket {} for 10 minutes: {reason}", self.config.bucket),
            why: "What must be kept is only on the disk of Lapwing, which is not trimmed until the archive has it.",
            next_steps: &["repair the bucket or its keys; everything goes on by itself"],
            ..Notice::default()
        };
        let own = self.own.clone();
        if let Ok(Err(error)) = tokio::task::spawn_blocking(move || own.raise(&notice)).await {
            tracing::error!(%error, "an alert about Lapwing itself could not be stored");
        }
    }
}

const BEHIND: &str = "lapwing-archive-behind";

/// One look at the journal, on a thread that may block.
struct Gathering {
    reader: Reader,
    events: Journal,
    from: u64,
    /// Where a gathering before a crash ended.
    planned: Option<u64>,
    max_bytes: u64,
    max_wait: Duration,
}

impl Gathering {
    /// Reads until there is enough, it is old enough, or the plan is fulfilled. `None` when told to stop.
    fn run(mut self, stop: &CancellationToken) -> anyhow::Result<Option<(u64, Vec<Finished>)>> {
        let (mut part, mut first) = (Part::after(self.from), None);
        loop {
            if self.planned.is_some_and(|plan| part.to >= plan) || part.bytes >= self.max_bytes {
                break;
            }
            match self.reader.next() {
                Ok(Some(record)) => {
                    part.to = record.lsn.0;
                    first.get_or_insert_with(Instant::now);
                    if record.kind == event_record::BATCH {
                        match Batch::decode(&record.payload) {
                            Ok(batch) => part.add(&batch)?,
                            Err(error) => tracing::error!(lsn = record.lsn.0, %error, "this batch cannot be archived"),
                        }
                    }
                }
                Ok(None)
                    if self.planned.is_none() && first.is_some_and(|at: Instant| at.elapsed() >= self.max_wait) =>
                {
                    break;
                }
                Ok(None) => {
                    self.events.wait_past(self.reader.position(), Duration::from_millis(200));
                }
                Err(ReadError::Lost { to, cause, .. }) => {
                    tracing::error!(to = to.0, cause = cause.as_str(), "lost records cannot be archived");
                    part.to = to.0;
                }
                Err(error) => {
                    tracing::error!(%error, "the event journal cannot be read now; trying again");
                    std::thread::park_timeout(Duration::from_secs(1));
                }
            }
            if stop.is_cancelled() {
                return Ok(None);
            }
        }
        let to = part.to;
        Ok(Some((to, part.finish(self.from)?)))
    }
}
