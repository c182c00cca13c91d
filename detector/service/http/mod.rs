//! The admin port: is the process alive, is it ready, and its metrics. Read-only and without secrets:
//! no event, user or cluster content beyond metric labels is served here.

pub mod listen;
mod slots;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use serde::Serialize;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use self::listen::{Handler, Limits, Peer, Terms};
use crate::metrics::Metrics;

const PATHS: &str = "/livez    200 while the process answers\n\
                     /readyz   200 when every part is ready, 503 with the reasons otherwise\n\
                     /healthz  the same as /livez\n\
                     /metrics  Prometheus text format\n";

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
#[error("admin: cannot listen on {address}; is the port in use, or below 1024?")]
pub struct BindError {
    pub address: SocketAddr,
    pub source: std::io::Error,
}

/// The bound admin port.
pub struct Admin {
    tcp: TcpListener,
    desk: Arc<Desk>,
}

impl Admin {
    pub async fn bind(
        address: SocketAddr,
        readiness: Arc<Readiness>,
        metrics: Arc<Metrics>,
    ) -> Result<Self, BindError> {
        let tcp = TcpListener::bind(address).await.map_err(|source| BindError { address, source })?;
        let retired = CancellationToken::new();
        Ok(Self { tcp, desk: Arc::new(Desk { readiness, metrics, retired }) })
    }

    /// Where it listens; of use when the configured port was 0.
    pub fn local_addr(&self) -> std::io::Result<SocketAddr> {
        self.tcp.local_addr()
    }

    /// Serves until `drain` is cancelled. Cancel it last: `/readyz` should tell of the drain while it lasts.
    pub async fn run(self, drain: CancellationToken) {
        let limits =
            Limits { connections: 128, per_address: 64, drain: std::time::Duration::from_secs(2), ..Limits::default() };
        listen::serve(self.tcp, self.desk, limits, drain).await;
    }
}

struct Desk {
    readiness: Arc<Readiness>,
    metrics: Arc<Metrics>,
    /// Never cancelled: these terms do not change.
    retired: CancellationToken,
}

impl Handler for Desk {
    fn terms(&self) -> Terms {
        Terms { tls: None, retired: self.retired.clone() }
    }

    async fn handle(&self, peer: &Peer, request: Request<Incoming>) -> Response<Full<Bytes>> {
        peer.known();
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            let mut response = text(StatusCode::METHOD_NOT_ALLOWED, format!("only GET here\n{PATHS}"));
            response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            return response;
        }
        match request.uri().path() {
            "/livez" | "/healthz" => text(StatusCode::OK, "ok\n"),
            "/readyz" => self.readyz(),
            "/metrics" => self.metrics(),
            _ => text(StatusCode::NOT_FOUND, format!("nothing here; there is\n{PATHS}")),
        }
    }
}

impl Desk {
    fn readyz(&self) -> Response<Full<Bytes>> {
        let report = self.readiness.report();
        let code = if report.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
        let body = serde_json::to_string_pretty(&report).unwrap_or_default() + "\n";
        reply(code, "application/json", body)
    }

    fn metrics(&self) -> Response<Full<Bytes>> {
        self.metrics.ready.set(i64::from(self.readiness.report().ready));
        reply(StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", self.metrics.render())
    }
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

    async fn start() -> (SocketAddr, Arc<Readiness>, CancellationToken, tokio::task::JoinHandle<()>) {
        let readiness = Arc::new(Readiness::new(["journal", "rules"]));
        let metrics = Arc::new(Metrics::new(["prod"]));
        let admin = Admin::bind("127.0.0.1:0".parse().unwrap(), Arc::clone(&readiness), metrics).await.unwrap();
        let (address, drain) = (admin.local_addr().unwrap(), CancellationToken::new());
        (address, readiness, drain.clone(), tokio::spawn(admin.run(drain)))
    }

    async fn ask(address: SocketAddr, method: &str, path: &str) -> String {
        let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
        let request = format!("{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
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
}
