//! The admin port: is the process alive, is it ready, its metrics, and the silences. Without secrets: beyond metric labels and
//! what people wrote into silences nothing of events, users or clusters is served here. Who may ask for more than whether it is alive and
//! ready, the guard decides.

pub mod certificate;
pub mod guard;
pub mod keys;
pub mod listen;
pub mod silences;
mod slots;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue, WWW_AUTHENTICATE};
use hyper::{Method, Request, Response, StatusCode};
use serde::Serialize;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use self::guard::{Config, Denied, Guard, Role};
use self::keys::LoadError;
use self::listen::{Handler, Limits, Peer, Terms};
use self::silences::Asked;
use crate::flow::silence::Silences;
use crate::metrics::Metrics;

const PATHS: &str = "/livez    200 while the process answers\n\
                     /readyz   200 when every part is ready, 503 with the reasons otherwise\n\
                     /healthz  the same as /livez\n\
                     /metrics  Prometheus text format\n\
                     /api/v2/silences, /api/v2/silence/{id}  silences, as in Alertmanager\n";

/// How often files of certificates and tokens are looked at for changes.
const POLL: Duration = Duration::from_secs(10);

/// What must be true before Lapwing is ready. Each part reports its own check.
pub struct Readiness(Mutex<State>);

struct State {
    draining: bool,
    /// Name to the reason why not.
    checks: BTreeMap<&'static str, Option<String>>,
}

/// The body of `/readyz`.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct Report {
    pub ready: bool,
    pub draining: bool,
    pub checks: Vec<Check>,
}

/// One check of a [`Report`]; `reason` says why it is not ready.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct Check {
    pub name: &'static str,
    pub ready: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

impl Readiness {
    /// Every check named here must report before Lapwing is ready.
    pub fn new(checks: impl IntoIterator<Item = &'static str>) -> Self {
        let checks = checks.into_iter().map(|name| (name, Some("not started yet".to_owned()))).collect();
        Self(Mutex::new(State { draining: false, checks }))
    }

    /// `name` is ready.
    pub fn ready(&self, name: &'static str) {
        self.lock().checks.insert(name, None);
    }

    /// `name` is not ready, and why: what a person should look at.
    pub fn not_ready(&self, name: &'static str, reason: impl Into<String>) {
        self.lock().checks.insert(name, Some(reason.into()));
    }

    /// Shutdown began: not ready from now on, whatever the checks say.
    pub fn drain(&self) {
        self.lock().draining = true;
    }

    /// How things stand.
    pub fn report(&self) -> Report {
        let state = self.lock();
        let checks: Vec<_> = state
            .checks
            .iter()
            .map(|(name, reason)| Check { name, ready: reason.is_none(), reason: reason.clone() })
            .collect();
        let ready = !state.draining && checks.iter().all(|check| check.ready);
        Report { ready, draining: state.draining, checks }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The admin port cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("{}", .0.iter().map(|(path, what)| format!("{path}: {what}")).collect::<Vec<_>>().join("; "))]
    Config(Vec<(String, String)>),
    #[error("admin.listen: expected an address and port such as `127.0.0.1:9466`")]
    Address(#[from] std::net::AddrParseError),
    #[error("admin: {0}")]
    Load(#[from] LoadError),
    #[error("admin: cannot listen on {address}; is the port in use, or below 1024?")]
    Bind { address: SocketAddr, source: std::io::Error },
}

/// The bound admin port.
pub struct Admin {
    tcp: TcpListener,
    desk: Arc<Desk>,
    /// A port for metrics alone.
    beside: Option<(TcpListener, Arc<Desk>)>,
}

impl Admin {
    /// Reads certificates and tokens and binds the port.
    ///
    /// # Errors
    /// When `config` is wrong, a file of it cannot be used, or the port is taken.
    pub async fn bind(config: &Config, readiness: Arc<Readiness>, metrics: Arc<Metrics>) -> Result<Self, StartError> {
        let problems = config.problems();
        if !problems.is_empty() {
            return Err(StartError::Config(problems));
        }
        let guard = Arc::new(Guard::load(config.clone())?);
        let desk = |serves| {
            let (readiness, metrics, guard) = (Arc::clone(&readiness), Arc::clone(&metrics), Arc::clone(&guard));
            Arc::new(Desk { readiness, metrics, guard, serves, silences: None })
        };
        let tcp = listener(&config.listen).await?;
        let Some(address) = &config.metrics_listen else {
            return Ok(Self { tcp, desk: desk(Serves::All), beside: None });
        };
        let beside = (listener(address).await?, desk(Serves::Metrics));
        Ok(Self { tcp, desk: desk(Serves::AllButMetrics), beside: Some(beside) })
    }

    /// Serves these silences too.
    #[must_use]
    pub fn with_silences(mut self, silences: Silences) -> Self {
        let Desk { readiness, metrics, guard, serves, .. } = &*self.desk;
        let (readiness, metrics, guard) = (Arc::clone(readiness), Arc::clone(metrics), Arc::clone(guard));
        self.desk = Arc::new(Desk { readiness, metrics, guard, serves: *serves, silences: Some(silences) });
        self
    }

    /// Where metrics are served, if that is a port of its own.
    pub fn metrics_addr(&self) -> Option<std::io::Result<SocketAddr>> {
        self.beside.as_ref().map(|(tcp, _)| tcp.local_addr())
    }

    /// Where it listens; of use when the configured port was 0.
    pub fn local_addr(&self) -> std::io::Result<SocketAddr> {
        self.tcp.local_addr()
    }

    /// Serves until `drain` is cancelled. Cancel it last: `/readyz` should tell of the drain while it lasts.
    pub async fn run(self, drain: CancellationToken) {
        let limits = Limits { connections: 128, per_address: 64, drain: Duration::from_secs(2), ..Limits::default() };
        let guard = Arc::clone(&self.desk.guard);
        let watch = async {
            loop {
                tokio::time::sleep(POLL).await;
                let guard = Arc::clone(&guard);
                // Files may lie on a slow disk; the accept loop must not wait for it.
                let _ = tokio::task::spawn_blocking(move || guard.reload()).await;
            }
        };
        let beside = async {
            if let Some((tcp, desk)) = self.beside {
                listen::serve(tcp, desk, limits.clone(), drain.clone()).await;
            }
        };
        let both = async { tokio::join!(listen::serve(self.tcp, self.desk, limits.clone(), drain.clone()), beside) };
        tokio::select! {
            _ = both => {}
            () = watch => {}
        }
    }
}

async fn listener(address: &str) -> Result<TcpListener, StartError> {
    let address = address.parse()?;
    TcpListener::bind(address).await.map_err(|source| StartError::Bind { address, source })
}

/// What a port is for, besides whether the process lives.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Serves {
    All,
    Metrics,
    AllButMetrics,
}

struct Desk {
    readiness: Arc<Readiness>,
    metrics: Arc<Metrics>,
    guard: Arc<Guard>,
    serves: Serves,
    /// `None` where there are no outputs, and on the port of the metrics.
    silences: Option<Silences>,
}

impl Handler for Desk {
    fn terms(&self) -> Terms {
        self.guard.terms()
    }

    async fn handle(&self, peer: &Peer, request: Request<Incoming>) -> Response<Full<Bytes>> {
        if let (Some(silences), Some(asked)) = (&self.silences, Asked::of(request.uri().path())) {
            return match self.guard.allow(peer, request.headers(), Asked::needs(request.method())) {
                Ok(who) => silences::answer(silences, asked, &who, request).await,
                Err(denied) => refused(&denied),
            };
        }
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            let mut response = text(StatusCode::METHOD_NOT_ALLOWED, format!("only GET here\n{PATHS}"));
            response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            return response;
        }
        let allow = |needs| self.guard.allow(peer, request.headers(), needs);
        match request.uri().path() {
            "/livez" | "/healthz" => text(StatusCode::OK, "ok\n"),
            // Probes have no credentials; why it is not ready may name files and hosts.
            "/readyz" => self.readyz(allow(Role::Metrics).is_ok()),
            "/metrics" if self.serves == Serves::AllButMetrics => {
                text(StatusCode::NOT_FOUND, "metrics have a port of their own: admin.metricsListen\n")
            }
            "/metrics" => match allow(Role::Metrics) {
                Ok(_) => self.metrics(),
                Err(denied) => refused(&denied),
            },
            _ => text(StatusCode::NOT_FOUND, format!("nothing here; there is\n{PATHS}")),
        }
    }
}

impl Desk {
    fn readyz(&self, reasons: bool) -> Response<Full<Bytes>> {
        let mut report = self.readiness.report();
        if !reasons {
            report.checks.iter_mut().for_each(|check| check.reason = None);
        }
        let code = if report.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
        let body = serde_json::to_string_pretty(&report).unwrap_or_default() + "\n";
        reply(code, "application/json", body)
    }

    fn metrics(&self) -> Response<Full<Bytes>> {
        self.metrics.ready.set(i64::from(self.readiness.report().ready));
        reply(StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", self.metrics.render())
    }
}

fn refused(denied: &Denied) -> Response<Full<Bytes>> {
    let mut response = text(denied.code(), format!("{denied}\n"));
    if denied.code() == StatusCode::UNAUTHORIZED {
        response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    response
}

fn text(code: StatusCode, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    reply(code, "text/plain; charset=utf-8", body)
}

fn reply(code: StatusCode, kind: &'static str, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = code;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    fn loopback() -> Config {
        Config { listen: "127.0.0.1:0".into(), ..Config::default() }
    }

    async fn start() -> (SocketAddr, Arc<Readiness>, CancellationToken, tokio::task::JoinHandle<()>) {
        start_with(&loopback()).await
    }

    async fn start_with(
        config: &Config,
    ) -> (SocketAddr, Arc<Readiness>, CancellationToken, tokio::task::JoinHandle<()>) {
        let readiness = Arc::new(Readiness::new(["journal", "rules"]));
        let metrics = Arc::new(Metrics::new(["prod"]));
        let admin = Admin::bind(config, Arc::clone(&readiness), metrics).await.unwrap();
        let (address, drain) = (admin.local_addr().unwrap(), CancellationToken::new());
        (address, readiness, drain.clone(), tokio::spawn(admin.run(drain)))
    }

    async fn ask(address: SocketAddr, method: &str, path: &str) -> String {
        ask_with(address, method, path, "").await
    }

    async fn ask_with(address: SocketAddr, method: &str, path: &str, headers: &str) -> String {
        let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
        let request = format!("{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{headers}\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[tokio::test]
    async fn ready_when_every_check_is_and_until_the_drain() {
        let (address, readiness, drain, task) = start().await;
        let readyz = async || ask(address, "GET", "/readyz?verbose").await;
        let starting = readyz().await;
        assert!(starting.starts_with("HTTP/1.1 503") && starting.contains("not started yet"), "{starting}");
        readiness.ready("journal");
        readiness.not_ready("rules", "rules/a.yml line 3: unknown field");
        let one = readyz().await;
        assert!(one.starts_with("HTTP/1.1 503") && one.contains("\"reason\": \"rules/a.yml line 3"), "{one}");
        assert!(ask(address, "GET", "/metrics").await.contains("\nlapwing_ready 0\n"));
        readiness.ready("rules");
        let all = readyz().await;
        assert!(all.starts_with("HTTP/1.1 200") && !all.contains("reason"), "{all}");
        assert!(ask(address, "GET", "/metrics").await.contains("\nlapwing_ready 1\n"));
        readiness.drain();
        let draining = readyz().await;
        assert!(draining.starts_with("HTTP/1.1 503") && draining.contains("\"draining\": true"), "{draining}");
        assert!(ask(address, "GET", "/livez").await.starts_with("HTTP/1.1 200"));
        drain.cancel();
        task.await.unwrap();
    }

    #[tokio::test]
    async fn paths_and_methods() {
        let (address, ..) = start().await;
        let metrics = ask(address, "GET", "/metrics").await;
        assert!(metrics.contains("content-type: text/plain; version=0.0.4") && metrics.contains("lapwing_build_info"));
        assert!(ask(address, "GET", "/healthz").await.ends_with("ok\n"));
        let head = ask(address, "HEAD", "/livez").await;
        assert!(head.starts_with("HTTP/1.1 200") && head.ends_with("\r\n\r\n"), "{head}");
        let lost = ask(address, "GET", "/").await;
        assert!(lost.starts_with("HTTP/1.1 404") && lost.contains("/readyz") && lost.contains("/metrics"), "{lost}");
        assert!(ask(address, "POST", "/metrics").await.starts_with("HTTP/1.1 405"));
    }

    #[tokio::test]
    async fn strangers_learn_that_it_lives_and_no_more() {
        let dir = tempfile::tempdir().unwrap();
        let token_file = dir.path().join("token");
        std::fs::write(&token_file, "prometheus-0123456789").unwrap();
        let user = guard::User {
            name: "prometheus".into(),
            role: Role::Metrics,
            token_file: Some(token_file),
            client_names: Vec::new(),
        };
        let (address, readiness, ..) = start_with(&Config { users: vec![user], ..loopback() }).await;
        readiness.not_ready("rules", "rules/a.yml line 3: unknown field");
        for token in ["", "Authorization: Bearer prometheus-0123456780\r\n", "Authorization: Basic cDpw\r\n"] {
            let metrics = ask_with(address, "GET", "/metrics", token).await;
            assert!(metrics.starts_with("HTTP/1.1 401") && metrics.contains("www-authenticate: Bearer"), "{metrics}");
            assert!(!metrics.contains("lapwing_"), "{metrics}");
            let ready = ask_with(address, "GET", "/readyz", token).await;
            assert!(ready.starts_with("HTTP/1.1 503") && !ready.contains("line 3"), "{ready}");
            assert!(ask_with(address, "GET", "/livez", token).await.starts_with("HTTP/1.1 200"));
        }
        let token = "Authorization: Bearer prometheus-0123456789\r\n";
        assert!(ask_with(address, "GET", "/metrics", token).await.starts_with("HTTP/1.1 200"));
        assert!(ask_with(address, "GET", "/readyz", token).await.contains("line 3"));
        let page = format!("{token}Origin: https://evil.example\r\n");
        assert!(ask_with(address, "GET", "/metrics", &page).await.starts_with("HTTP/1.1 403"));
    }

    #[tokio::test]
    async fn an_open_port_without_users_is_not_opened() {
        let open = Config { listen: "0.0.0.0:0".into(), ..Config::default() };
        let bind = |config: Config| async move {
            let readiness = Arc::new(Readiness::new([]));
            Admin::bind(&config, readiness, Arc::new(Metrics::new(["prod"]))).await.err().map(|e| e.to_string())
        };
        let said = bind(open.clone()).await.expect("refused");
        assert!(said.starts_with("admin.listen: ") && said.contains("admin.users"), "{said}");
        assert_eq!(bind(Config { insecure: true, ..open }).await, None);
    }

    #[tokio::test]
    async fn metrics_may_have_a_port_of_their_own() {
        let config = Config { metrics_listen: Some("127.0.0.1:0".into()), ..loopback() };
        let metrics = Arc::new(Metrics::new(["prod"]));
        let admin = Admin::bind(&config, Arc::new(Readiness::new([])), metrics).await.unwrap();
        let (api, beside) = (admin.local_addr().unwrap(), admin.metrics_addr().unwrap().unwrap());
        let drain = CancellationToken::new();
        let task = tokio::spawn(admin.run(drain.clone()));
        assert!(ask(beside, "GET", "/metrics").await.contains("lapwing_build_info"));
        let moved = ask(api, "GET", "/metrics").await;
        assert!(moved.starts_with("HTTP/1.1 404") && moved.contains("metricsListen"), "{moved}");
        for port in [api, beside] {
            assert!(ask(port, "GET", "/livez").await.starts_with("HTTP/1.1 200"));
        }
        drain.cancel();
        task.await.unwrap();
    }
}
