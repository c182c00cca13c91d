//! The audit webhook: takes batches from API servers over HTTPS and answers 200 when they are stored.
//!
//! A sender learns only whether its batch is on disk. What is in the batch is never its problem: an
//! unreadable item, or a whole unreadable body, is stored as a reject and answered 200, because any
//! other answer makes the API server send the same bytes four times more and then drop the batch.

mod access;
mod answer;
mod body;
mod config;
pub mod oidc;

use std::fmt::Display;
use std::future::Future;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::{Body, Incoming};
use hyper::header::CONTENT_ENCODING;
use hyper::{Method, Request, Response, StatusCode};
use lapwing_engine::batch::{Batch, Item, Origin, RejectReason};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::time::{Instant, MissedTickBehavior, interval_at, timeout};
use tokio_util::sync::CancellationToken;

pub use self::access::Access;
use self::answer::Trouble;
use self::body::{BodyError, Budget, Pace, Room};
pub use self::config::{Config, Problem, Sender, Tls};
use crate::http::keys::LoadError;
use crate::http::listen::{self, End, Handler, Limits, Peer, Terms};
use crate::metrics::Metrics;

/// Bytes of bodies, and of the items made of them that are not stored yet, in memory at once.
const BUDGET: u64 = 128 * 1024 * 1024;
/// Bodies split at once, at most; as many as there are cores, where those are fewer. While it is split a body is in memory
/// three times or more: as it came, as it is read, as items.
const SPLITTING: usize = 8;
/// How long the sink may take to say that a batch is durable. It may still become so after our 503; the
/// second delivery is then a duplicate, which is harmless.
const DURABLE: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_secs(60);

/// The webhook cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("sources.webhook: {}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Config(Vec<Problem>),
    #[error("sources.webhook")]
    Load(#[from] LoadError),
    #[error("sources.webhook: cannot listen on {address}; is the port in use, or below 1024?")]
    Bind { address: SocketAddr, source: std::io::Error },
}

/// Times a test may shorten. What users may change is in [`Config`].
#[derive(Clone, Debug)]
pub struct Timing {
    pub limits: Limits,
    /// From the end of the header to the end of the body.
    pub body: Duration,
    /// When a body has to come at `min_rate`, counted from the end of the header.
    pub grace: Duration,
    /// Bytes a second.
    pub min_rate: u64,
    /// How long a request waits for memory.
    pub patience: Duration,
    /// How long a batch may take to be durable.
    pub durable: Duration,
    /// How often files are looked at for changes.
    pub poll: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            limits: Limits::default(),
            body: Duration::from_secs(25),
            grace: Duration::from_secs(2),
            min_rate: 16_000,
            patience: Duration::from_secs(2),
            durable: DURABLE,
            poll: POLL,
        }
    }
}

/// A bound webhook. `split` turns a body into redacted items; `sink` stores a batch and returns when it is
/// durable, or why it is not (answered 503).
pub struct Webhook<Split, Sink> {
    tcp: TcpListener,
    limits: Limits,
    poll: Duration,
    door: Arc<Door<Split, Sink>>,
}

impl<Split, Sink, Stored, Refused> Webhook<Split, Sink>
where
    Split: Fn(&[u8]) -> Vec<Item> + Send + Sync + 'static,
    Sink: Fn(Batch) -> Stored + Send + Sync + 'static,
    Stored: Future<Output = Result<(), Refused>> + Send,
    Refused: Display + Send,
{
    /// Reads certificates and tokens (relative to `base`) and binds the port.
    pub async fn bind(
        config: Config,
        base: &Path,
        timing: Timing,
        split: Split,
        sink: Sink,
        metrics: Arc<Metrics>,
    ) -> Result<Self, StartError> {
        let problems = config.check();
        if !problems.is_empty() {
            return Err(StartError::Config(problems));
        }
        let address = config.listen;
        let limits = Limits {
            connections: config.max_connections,
            per_address: config.max_connections_per_address,
            ..timing.limits
        };
        let pace = Pace {
            max_body: config.max_body,
            total: timing.body,
            min_rate: timing.min_rate,
            grace: timing.grace,
            patience: timing.patience,
        };
        let budget = Budget::new(BUDGET, config.max_body);
        let cores = std::thread::available_parallelism().map_or(2, usize::from);
        let gzip = config.gzip;
        let access = Arc::new(Access::load(config, base)?);
        let tcp = TcpListener::bind(address).await.map_err(|source| StartError::Bind { address, source })?;
        let reload = Reload { access: Arc::clone(&access), metrics: Arc::clone(&metrics) };
        reload.tell(true);
        let door = Door {
            reload,
            access,
            budget,
            splitting: Arc::new(Semaphore::new(cores.min(SPLITTING))),
            pace,
            gzip,
            durable: timing.durable,
            trouble: Trouble::default(),
            denied: Seldom::default(),
            started: Instant::now(),
            split: Arc::new(split),
            sink,
            metrics,
        };
        Ok(Self { tcp, limits, poll: timing.poll, door: Arc::new(door) })
    }

    /// Where it listens; of use when the configured port was 0.
    pub fn local_addr(&self) -> std::io::Result<SocketAddr> {
        self.tcp.local_addr()
    }

    /// The hook for SIGHUP.
    pub fn reloader(&self) -> Reload {
        self.door.reload.clone()
    }

    /// Serves until `drain` is cancelled, then stops accepting, finishes what is in hand and returns.
    pub async fn run(self, drain: CancellationToken) {
        let (reload, access) = (self.reloader(), Arc::clone(&self.door.access));
        let mut poll = interval_at(Instant::now() + self.poll, self.poll);
        poll.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let watch = async {
            loop {
                poll.tick().await;
                let reload = reload.clone();
                // Files may lie on a slow disk; the accept loop must not wait for it.
                let _ = tokio::task::spawn_blocking(move || reload.reload()).await;
            }
        };
        tokio::select! {
            () = listen::serve(self.tcp, self.door, self.limits, drain) => {}
            () = watch => {}
            () = access.keep_keys() => {}
        }
    }
}

/// Reads certificates and tokens again. Cheap to clone.
#[derive(Clone)]
pub struct Reload {
    access: Arc<Access>,
    metrics: Arc<Metrics>,
}

impl Reload {
    /// Takes changed files; keeps the old ones when the new cannot be used. Returns whether the files
    /// now on disk are in use.
    pub fn reload(&self) -> bool {
        let result = self.access.reload();
        match &result {
            Ok(true) => tracing::info!("webhook: new certificates or tokens in use"),
            Ok(false) => {}
            Err(error) => tracing::error!(
                error = error as &dyn std::error::Error,
                "webhook: changed certificates or tokens cannot be used, keeping the old ones"
            ),
        }
        self.tell(result.is_ok());
        result.is_ok()
    }

    fn tell(&self, good: bool) {
        self.metrics.webhook_reload_success.set(i64::from(good));
        if let Some(expiry) = self.access.expiry() {
            self.metrics.certificate_expiry.set(expiry as f64);
        }
    }
}

/// What every request needs.
struct Door<Split, Sink> {
    access: Arc<Access>,
    reload: Reload,
    budget: Budget,
    splitting: Arc<Semaphore>,
    pace: Pace,
    gzip: bool,
    durable: Duration,
    trouble: Trouble,
    denied: Seldom,
    started: Instant,
    split: Arc<Split>,
    sink: Sink,
    metrics: Arc<Metrics>,
}

impl<Split, Sink, Stored, Refused> Handler for Door<Split, Sink>
where
    Split: Fn(&[u8]) -> Vec<Item> + Send + Sync + 'static,
    Sink: Fn(Batch) -> Stored + Send + Sync + 'static,
    Stored: Future<Output = Result<(), Refused>> + Send,
    Refused: Display + Send,
{
    fn terms(&self) -> Terms {
        self.access.terms()
    }

    async fn handle(&self, peer: &Peer, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let started = Instant::now();
        let mut cluster = None;
        let firehose = request.headers().get(answer::FIREHOSE_REQUEST).cloned();
        let mut response = self.answer(peer, request, &mut cluster).await;
        if let Some(id) = firehose {
            response = answer::to_firehose(&id, response, chrono::Utc::now().timestamp_millis()).await;
        }
        self.metrics.answered(cluster.as_deref(), response.status().as_u16(), started.elapsed());
        response
    }

    fn opened(&self) {
        self.metrics.connections.inc();
    }

    fn ended(&self, end: End) {
        self.metrics.connections.dec();
        self.metrics.closed(end.as_str());
    }
}

impl<Split, Sink, Stored, Refused> Door<Split, Sink>
where
    Split: Fn(&[u8]) -> Vec<Item> + Send + Sync + 'static,
    Sink: Fn(Batch) -> Stored + Send + Sync + 'static,
    Stored: Future<Output = Result<(), Refused>> + Send,
    Refused: Display + Send,
{
    async fn answer(&self, peer: &Peer, request: Request<Incoming>, who: &mut Option<String>) -> Response<Full<Bytes>> {
        if request.method() != Method::POST {
            return answer::not_post();
        }
        let uri = request.uri().path_and_query().map_or("/", |both| both.as_str());
        let cluster = match self.access.identify(peer, request.headers(), uri) {
            Ok(cluster) => {
                peer.known();
                who.insert(cluster).clone()
            }
            Err(denied) => {
                if self.denied.now(self.started) {
                    tracing::warn!(address = %peer.address, %denied, "webhook: sender turned away, its events are lost");
                }
                let code = StatusCode::from_u16(denied.code()).unwrap_or(StatusCode::FORBIDDEN);
                return answer::refused(code, &denied.to_string());
            }
        };
        let gzip = match encoding(&request) {
            Encoding::Identity => false,
            Encoding::Gzip if self.gzip => true,
            _ => {
                let why = "send the body without Content-Encoding, or set `gzip: true` for the webhook";
                return answer::refused(StatusCode::UNSUPPORTED_MEDIA_TYPE, why);
            }
        };
        let answer = match self.items(request.into_body(), gzip).await {
            Ok((items, room)) => {
                let answer = self.store(cluster, items).await;
                drop(room);
                answer
            }
            Err(error) => self.no_body(&cluster, &error),
        };
        self.metrics.inflight_bytes.set(self.budget.taken() as i64);
        answer
    }

    /// Reads and splits a body. Splitting is CPU work of up to a second, so it has a thread of its own.
    async fn items(&self, body: Incoming, gzip: bool) -> Result<(Vec<Item>, Room), BodyError> {
        let length = body.size_hint().exact();
        let taken = body::read(body, length, &self.pace, &self.budget).await?;
        self.metrics.inflight_bytes.set(self.budget.taken() as i64);
        let (split, pace, budget) = (Arc::clone(&self.split), self.pace.clone(), self.budget.clone());
        let turn = Arc::clone(&self.splitting).acquire_owned().await;
        let work = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            let (taken, damage) = if gzip { body::gunzip(taken, &pace, &budget)? } else { (taken, None) };
            let mut items = split(&taken.bytes);
            items.extend(damage.map(bad_body));
            Ok((items, taken.into_room()))
        });
        let result = work.await;
        self.metrics.inflight_bytes.set(self.budget.taken() as i64);
        // A body that makes us panic must not come back five times: it becomes a reject like any other.
        result.unwrap_or_else(|error| {
            tracing::error!(%error, "webhook: splitting a body failed, please report this");
            Ok((vec![bad_body("splitting the body failed inside Lapwing".to_owned())], Room::default()))
        })
    }

    async fn store(&self, cluster: String, items: Vec<Item>) -> Response<Full<Bytes>> {
        if items.is_empty() {
            return answer::stored();
        }
        let rejects: Vec<_> = items.iter().filter_map(reject).collect();
        let events = (items.len() - rejects.len()) as u64;
        let now = chrono::Utc::now().timestamp_micros();
        let batch = Batch { cluster: cluster.clone(), origin: Origin::Webhook, received: now, items };
        let why = match timeout(self.durable, (self.sink)(batch)).await {
            Ok(Ok(())) => {
                self.trouble.over();
                self.metrics.stored(&cluster, Origin::Webhook.name(), events, now as f64 / 1e6);
                rejects.into_iter().for_each(|reason| self.metrics.rejected(&cluster, reason));
                return answer::stored();
            }
            Ok(Err(refused)) => refused.to_string(),
            Err(_) => "the journal did not confirm in time".to_owned(),
        };
        self.trouble.refuse(&why)
    }

    fn no_body(&self, cluster: &str, error: &BodyError) -> Response<Full<Bytes>> {
        let why = error.to_string();
        match error {
            BodyError::NoRoom => self.trouble.refuse(&why),
            BodyError::TooLarge(_) => {
                tracing::error!(cluster, "webhook: {why}; the API server will drop this batch");
                answer::refused(StatusCode::PAYLOAD_TOO_LARGE, &why)
            }
            BodyError::Slow | BodyError::Broken => answer::refused(StatusCode::REQUEST_TIMEOUT, &why),
        }
    }
}

fn reject(item: &Item) -> Option<RejectReason> {
    match item {
        Item::Event(_) => None,
        Item::Reject { reason, .. } => Some(*reason),
    }
}

/// Without an excerpt: these bytes could not be redacted.
fn bad_body(detail: String) -> Item {
    Item::Reject { reason: RejectReason::BadBody, detail, excerpt: String::new() }
}

enum Encoding {
    Identity,
    Gzip,
    Other,
}

fn encoding<B>(request: &Request<B>) -> Encoding {
    match request.headers().get(CONTENT_ENCODING).map(|value| value.as_bytes().to_ascii_lowercase()) {
        None => Encoding::Identity,
        Some(value) => match value.trim_ascii() {
            b"" | b"identity" => Encoding::Identity,
            b"gzip" | b"x-gzip" => Encoding::Gzip,
            _ => Encoding::Other,
        },
    }
}

/// Says yes at most every ten seconds, so that a stranger cannot fill our log.
#[derive(Default)]
struct Seldom(AtomicU64);

impl Seldom {
    fn now(&self, start: Instant) -> bool {
        let now = start.elapsed().as_secs() + 10;
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |last| (now >= last + 10).then_some(now)).is_ok()
    }
}

#[cfg(test)]
mod tests;
