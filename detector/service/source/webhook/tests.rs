//! The webhook at its socket: real connections, real TLS, recorded requests.

use std::sync::Mutex;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;

use super::*;

const TOKEN: &str = "a-token-for-tests-0123";
const PLENTY: Duration = Duration::from_secs(20);

trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

/// Splits like the real thing where it matters here: one item per event, one reject for what is no list.
fn split(body: &[u8]) -> Vec<Item> {
    #[derive(serde::Deserialize)]
    struct List<'a> {
        #[serde(borrow)]
        items: Vec<&'a serde_json::value::RawValue>,
    }
    assert_ne!(body, b"panic", "a splitter that panics");
    match serde_json::from_slice::<List<'_>>(body) {
        Ok(list) => list.items.iter().map(|item| Item::Event(item.get().to_owned())).collect(),
        Err(error) => vec![Item::Reject {
            reason: RejectReason::NotJson,
            detail: error.to_string(),
            excerpt: String::from_utf8_lossy(&body[..body.len().min(100)]).into_owned(),
        }],
    }
}

/// What the sink answers, one after the other; then yes.
#[derive(Default)]
struct Refusals(Mutex<Vec<&'static str>>);

struct Running {
    address: SocketAddr,
    batches: mpsc::UnboundedReceiver<Batch>,
    metrics: Arc<Metrics>,
    reload: Reload,
    refusals: Arc<Refusals>,
    drain: CancellationToken,
    task: tokio::task::JoinHandle<()>,
    dir: tempfile::TempDir,
}

fn plain() -> Config {
    Config { listen: "127.0.0.1:0".parse().unwrap(), insecure_loopback: true, ..Config::default() }
}

async fn start(config: Config, timing: Timing) -> Running {
    start_in(tempfile::tempdir().unwrap(), config, timing).await
}

async fn start_in(dir: tempfile::TempDir, config: Config, timing: Timing) -> Running {
    let (send, batches) = mpsc::unbounded_channel();
    let metrics = Arc::new(Metrics::new(["prod"]));
    let refusals = Arc::new(Refusals::default());
    let sink = {
        let refusals = Arc::clone(&refusals);
        move |batch: Batch| {
            let refusal = refusals.0.lock().unwrap().pop();
            let send = send.clone();
            async move {
                match refusal {
                    Some("never") => std::future::pending().await,
                    Some(why) => Err(why),
                    None => send.send(batch).map_err(|_| "the test is over"),
                }
            }
        }
    };
    let webhook = Webhook::bind(config, dir.path(), timing, split, sink, Arc::clone(&metrics)).await.unwrap();
    let (address, reload) = (webhook.local_addr().unwrap(), webhook.reloader());
    let drain = CancellationToken::new();
    let task = tokio::spawn(webhook.run(drain.clone()));
    Running { address, batches, metrics, reload, refusals, drain, task, dir }
}

impl Running {
    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    async fn ask(&self, request: &[u8]) -> String {
        exchange(&mut self.connect().await, request).await
    }

    fn metric(&self, line: &str) -> bool {
        String::from_utf8(self.metrics.render()).unwrap().lines().any(|l| l == line)
    }

    /// Waits until a metric says something, because the server counts after it has closed.
    async fn until(&self, line: &str) {
        let seen = timeout(PLENTY, async {
            while !self.metric(line) {
                tokio::task::yield_now().await;
            }
        });
        assert!(seen.await.is_ok(), "`{line}` never came:\n{}", String::from_utf8(self.metrics.render()).unwrap());
    }
}

fn post(path: &str, headers: &str, body: &[u8]) -> Vec<u8> {
    let head =
        format!("POST {path}?timeout=30s HTTP/1.1\r\nHost: x\r\n{headers}Content-Length: {}\r\n\r\n", body.len());
    [head.as_bytes(), body].concat()
}

/// Sends a request and reads one answer: header and body. Empty when the connection closed instead.
async fn exchange(stream: &mut (impl Stream + ?Sized), request: &[u8]) -> String {
    // The server may answer and close before it has read everything; what matters is the answer.
    let _ = stream.write_all(request).await;
    let mut answer = Vec::new();
    let mut byte = [0; 1];
    while !answer.ends_with(b"\r\n\r\n") {
        match timeout(PLENTY, stream.read(&mut byte)).await.expect("an answer or the end in time") {
            Ok(1) => answer.push(byte[0]),
            _ => return String::from_utf8(answer).unwrap(),
        }
    }
    let head = String::from_utf8(answer).unwrap();
    let length =
        head.to_lowercase().split("content-length: ").nth(1).and_then(|l| l.split("\r\n").next()?.parse().ok());
    let mut body = vec![0; length.unwrap_or(0)];
    stream.read_exact(&mut body).await.unwrap();
    head + &String::from_utf8(body).unwrap()
}

#[track_caller]
fn assert_code(answer: &str, code: u16) {
    assert!(answer.starts_with(&format!("HTTP/1.1 {code} ")), "expected {code}: {answer}");
}

fn recorded(name: &str) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/webhook").join(name);
    zstd::decode_all(std::fs::File::open(path).unwrap()).unwrap()
}

#[tokio::test]
async fn recorded_requests_are_stored_and_answered() {
    let mut running = start(plain(), Timing::default()).await;
    let mut kept = running.connect().await;
    let files = ["blocking-one-event", "batch-of-20", "batch-of-400", "batch-of-12-mb", "blocking-one-event"];
    for (file, items) in files.into_iter().zip([1, 20, 400, 400, 1]) {
        let answer = exchange(&mut kept, &recorded(&format!("{file}.raw.zst"))).await;
        assert_code(&answer, 200);
        assert!(answer.ends_with("\r\n\r\n{}"), "{answer}");
        let batch = running.batches.recv().await.unwrap();
        assert_eq!((batch.cluster.as_str(), batch.items.len()), ("default", items), "{file}");
        assert_eq!(batch.origin, Origin::Webhook);
        assert!(batch.received > 1_700_000_000_000_000 && batch.items.iter().all(|i| reject(i).is_none()));
    }
    assert!(running.metric("lapwing_events_received_total{cluster=\"default\",source=\"webhook\"} 822"));
    assert!(running.metric("lapwing_webhook_requests_total{cluster=\"default\",code=\"200\"} 5"));
    assert!(running.metric("lapwing_webhook_inflight_bytes 0"));
}

#[tokio::test]
async fn content_is_never_the_senders_problem() {
    let mut running = start(plain(), Timing::default()).await;
    for body in [&b"not json"[..], b"{\"kind\":\"EventList\",\"items\":[{\"a", b"\x00\xff", b"panic"] {
        assert_code(&running.ask(&post("/audit/v1/prod", "", body)).await, 200);
        let batch = running.batches.recv().await.unwrap();
        assert_eq!((batch.cluster.as_str(), batch.items.len()), ("prod", 1));
        assert!(reject(&batch.items[0]).is_some());
    }
    for nothing in [&b"{\"items\":[]}"[..], b""] {
        assert_code(&running.ask(&post("/", "", nothing)).await, 200);
    }
    assert!(running.batches.try_recv().is_err(), "an empty list is nothing to store");
    assert!(running.metric("lapwing_events_rejected_total{cluster=\"prod\",reason=\"not_json\"} 3"));
    assert!(running.metric("lapwing_events_rejected_total{cluster=\"prod\",reason=\"bad_body\"} 1"));
}

#[tokio::test]
async fn what_is_no_delivery_is_told_so() {
    let running = start(Config { max_body: 1000, ..plain() }, Timing::default()).await;
    let get = running.ask(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await;
    assert_code(&get, 405);
    assert!(get.contains("allow: POST") && get.contains("--audit-webhook-config-file"), "{get}");
    assert_code(&running.ask(&post("/", "Content-Encoding: gzip\r\n", b"{}")).await, 415);
    assert_code(&running.ask(&post("/", "Content-Encoding: identity\r\n", b"{\"items\":[]}")).await, 200);
    let large = running.ask(&post("/", "", &[b' '; 1001])).await;
    assert_code(&large, 413);
    assert!(large.contains("maxBody"), "{large}");
    let chunked = b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n";
    let body = [&chunked[..], format!("3ea\r\n{}\r\n0\r\n\r\n", " ".repeat(1002)).as_bytes()].concat();
    assert_code(&running.ask(&body).await, 413);
    assert_code(&running.ask(format!("POST / HTTP/1.1\r\nA: {}\r\n\r\n", "x".repeat(17_000)).as_bytes()).await, 431);
    assert!(running.metric("lapwing_webhook_requests_total{cluster=\"default\",code=\"413\"} 2"));
}

#[tokio::test]
async fn gzip_when_asked_for() {
    let mut running = start(Config { gzip: true, ..plain() }, Timing::default()).await;
    let mut packed = Vec::new();
    let mut encoder = flate2::read::GzEncoder::new(&b"{\"items\":[{},{}]}"[..], flate2::Compression::fast());
    std::io::Read::read_to_end(&mut encoder, &mut packed).unwrap();
    assert_code(&running.ask(&post("/", "Content-Encoding: gzip\r\n", &packed)).await, 200);
    assert_eq!(running.batches.recv().await.unwrap().items.len(), 2);
    packed.truncate(packed.len() - 4);
    assert_code(&running.ask(&post("/", "Content-Encoding: gzip\r\n", &packed)).await, 200);
    let items = running.batches.recv().await.unwrap().items;
    assert_eq!(items.len(), 3, "what could be read, and a note that the end is missing");
    assert_eq!(reject(&items[2]), Some(RejectReason::BadBody));
    assert_code(&running.ask(&post("/", "Content-Encoding: br\r\n", b"x")).await, 415);
}

#[tokio::test]
async fn a_sink_in_trouble_is_503_and_the_retry_is_taken() {
    let timing = Timing { durable: Duration::from_millis(50), ..Timing::default() };
    let mut running = start(plain(), timing).await;
    running.refusals.0.lock().unwrap().extend(["never", "the journal is full"]);
    let request = post("/", "", b"{\"items\":[{}]}");
    let mut kept = running.connect().await;
    for why in ["the journal is full", "did not confirm in time"] {
        let answer = exchange(&mut kept, &request).await;
        assert_code(&answer, 503);
        assert!(answer.contains("retry-after: 3") && answer.contains(why), "{answer}");
    }
    assert!(running.batches.try_recv().is_err());
    assert_code(&exchange(&mut kept, &request).await, 200);
    assert_eq!(running.batches.recv().await.unwrap().items.len(), 1);
    assert!(running.metric("lapwing_events_received_total{cluster=\"default\",source=\"webhook\"} 1"));
}

#[tokio::test]
async fn slow_clients_of_every_kind_are_closed() {
    let short = Duration::from_millis(60);
    let limits = Limits { first_byte: short, header: short, idle: short, ..Limits::default() };
    let running = start(plain(), Timing { limits, body: short, ..Timing::default() }).await;
    let half = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n{".to_vec();
    let silent = exchange(&mut running.connect().await, b"").await;
    assert_eq!(silent, "");
    running.until("lapwing_webhook_connections_closed_total{reason=\"no_request\"} 1").await;
    assert_eq!(exchange(&mut running.connect().await, b"POST / HTTP/1.1\r\nHo").await, "");
    running.until("lapwing_webhook_connections_closed_total{reason=\"header_slow\"} 1").await;
    assert_code(&exchange(&mut running.connect().await, &half).await, 408);
    let mut idle = running.connect().await;
    assert_code(&exchange(&mut idle, &post("/", "", b"{\"items\":[]}")).await, 200);
    assert_eq!(exchange(&mut idle, b"").await, "");
    running.until("lapwing_webhook_connections_closed_total{reason=\"idle\"} 1").await;
    running.until("lapwing_webhook_connections 0").await;
}

#[tokio::test]
async fn a_dripping_header_earns_no_time() {
    let limits = Limits { header: Duration::from_millis(100), ..Limits::default() };
    let running = start(plain(), Timing { limits, ..Timing::default() }).await;
    let mut stream = running.connect().await;
    let dripped = timeout(PLENTY, async {
        let mut tick = tokio::time::interval(Duration::from_millis(10));
        while stream.write_all(b"P").await.is_ok() {
            tick.tick().await;
        }
    });
    assert!(dripped.await.is_ok(), "the connection was never closed");
    running.until("lapwing_webhook_connections_closed_total{reason=\"header_slow\"} 1").await;
}

#[tokio::test]
async fn too_many_connections_are_closed_at_once() {
    let config = Config { max_connections_per_address: 2, ..plain() };
    let running = start(config, Timing::default()).await;
    let mut kept = [running.connect().await, running.connect().await];
    for stream in &mut kept {
        assert_code(&exchange(stream, &post("/", "", b"{\"items\":[]}")).await, 200);
    }
    assert_eq!(exchange(&mut running.connect().await, b"").await, "");
    running.until("lapwing_webhook_connections_closed_total{reason=\"too_many_from_address\"} 1").await;
    drop(kept);
    running.until("lapwing_webhook_connections 0").await;
    assert_code(&running.ask(&post("/", "", b"{\"items\":[]}")).await, 200);
}

#[tokio::test]
async fn a_drain_finishes_what_is_in_hand() {
    let mut running = start(plain(), Timing::default()).await;
    let mut silent = running.connect().await;
    let mut idle = running.connect().await;
    assert_code(&exchange(&mut idle, &post("/", "", b"{\"items\":[]}")).await, 200);
    let mut busy = running.connect().await;
    busy.write_all(b"POST / HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 14\r\n\r\n").await.unwrap();
    let mut go_on = [0; 25];
    busy.read_exact(&mut go_on).await.unwrap();
    assert!(go_on.starts_with(b"HTTP/1.1 100"), "the request is in hand");
    running.drain.cancel();
    assert_eq!(exchange(&mut silent, b"").await, "");
    assert_eq!(exchange(&mut idle, b"").await, "");
    assert!(TcpStream::connect(running.address).await.is_err(), "new connections are not accepted");
    assert_code(&exchange(&mut busy, b"{\"items\":[{}]}").await, 200);
    timeout(PLENTY, running.task).await.expect("the drain ends").unwrap();
    assert_eq!(running.batches.recv().await.unwrap().items.len(), 1);
}

#[tokio::test]
async fn a_drain_is_bounded() {
    let limits = Limits { drain: Duration::from_millis(50), ..Limits::default() };
    let running = start(plain(), Timing { limits, ..Timing::default() }).await;
    running.refusals.0.lock().unwrap().push("never");
    let mut stuck = running.connect().await;
    stuck.write_all(&post("/", "", b"{\"items\":[{}]}")).await.unwrap();
    let refusals = Arc::clone(&running.refusals);
    let taken = timeout(PLENTY, async {
        while !refusals.0.lock().unwrap().is_empty() {
            tokio::task::yield_now().await;
        }
    });
    assert!(taken.await.is_ok(), "the sink never got the batch");
    running.drain.cancel();
    timeout(PLENTY, running.task).await.expect("the drain ends").unwrap();
}

struct Pki {
    ca: CertifiedIssuer<'static, KeyPair>,
    stranger: CertifiedIssuer<'static, KeyPair>,
}

fn authority(name: &str) -> CertifiedIssuer<'static, KeyPair> {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(DnType::CommonName, name);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

type Identity = (CertificateDer<'static>, PrivateKeyDer<'static>);

impl Pki {
    fn new() -> Self {
        Self { ca: authority("ours"), stranger: authority("theirs") }
    }

    fn leaf(
        issuer: &CertifiedIssuer<'static, KeyPair>,
        common: &str,
        alternative: &[&str],
        ends: i32,
    ) -> (String, KeyPair, Identity) {
        let mut params =
            CertificateParams::new(alternative.iter().map(|a| (*a).to_owned()).collect::<Vec<_>>()).unwrap();
        params.distinguished_name.push(DnType::CommonName, common);
        params.not_before = rcgen::date_time_ymd(2020, 1, 1);
        params.not_after = rcgen::date_time_ymd(ends, 1, 1);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, issuer).unwrap();
        let identity = (certificate.der().clone(), PrivateKeyDer::try_from(key.serialize_der()).unwrap());
        (certificate.pem(), key, identity)
    }

    fn write_server(&self, dir: &Path, ends: i32) {
        let (pem, key, _) = Self::leaf(&self.ca, "lapwing", &["localhost"], ends);
        std::fs::write(dir.join("server.crt"), pem).unwrap();
        std::fs::write(dir.join("server.key"), key.serialize_pem()).unwrap();
        std::fs::write(dir.join("clients.crt"), self.ca.pem()).unwrap();
        std::fs::write(dir.join("dev.token"), TOKEN).unwrap();
    }

    /// Sends one delivery as the bearer of `identity`; empty when the handshake or connection failed.
    async fn ask(&self, running: &Running, identity: Option<Identity>, request: &[u8]) -> String {
        match self.connect(running, identity, &[]).await {
            Ok(mut stream) => exchange(&mut stream, request).await,
            Err(_) => String::new(),
        }
    }

    async fn connect(
        &self,
        running: &Running,
        identity: Option<Identity>,
        alpn: &[&[u8]],
    ) -> std::io::Result<tokio_rustls::client::TlsStream<TcpStream>> {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(self.ca.der().clone()).unwrap();
        let builder = rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots);
        let mut config = match identity {
            Some((certificate, key)) => builder.with_client_auth_cert(vec![certificate], key).unwrap(),
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols = alpn.iter().map(|p| p.to_vec()).collect();
        let name = ServerName::try_from("localhost").unwrap();
        tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, running.connect().await).await
    }
}

fn secured(dir: &Path, pki: &Pki, tokens: bool) -> Config {
    pki.write_server(dir, 2099);
    let prod = Sender {
        name: "prod".into(),
        client_names: vec!["kube-apiserver-prod".into(), "api.prod.example".into()],
        token_file: None,
    };
    let dev = Sender { name: "dev".into(), client_names: vec![], token_file: Some("dev.token".into()) };
    let tls = Tls { cert: "server.crt".into(), key: "server.key".into(), client_ca: Some("clients.crt".into()) };
    Config {
        listen: "127.0.0.1:0".parse().unwrap(),
        tls: Some(tls),
        clusters: if tokens { vec![prod, dev] } else { vec![prod] },
        ..Config::default()
    }
}

#[tokio::test]
async fn a_certificate_decides_the_cluster() {
    let (pki, dir) = (Pki::new(), tempfile::tempdir().unwrap());
    let config = secured(dir.path(), &pki, false);
    let mut running = start_in(dir, config, Timing::default()).await;
    let one = |path| post(path, "", b"{\"items\":[{\"cluster\":\"evil\"}]}");
    let good = |common, alternative| Some(Pki::leaf(&pki.ca, common, alternative, 2099).2);
    for (common, alternative) in [("kube-apiserver-prod", &[][..]), ("x", &["api.prod.example"])] {
        assert_code(&pki.ask(&running, good(common, alternative), &one("/audit/v1/prod")).await, 200);
        assert_eq!(running.batches.recv().await.unwrap().cluster, "prod");
    }
    let wrong_name = pki.ask(&running, good("kube-apiserver-prod2", &["prod.example"]), &one("/")).await;
    assert_code(&wrong_name, 403);
    assert!(wrong_name.contains("kube-apiserver-prod2") && wrong_name.contains("clientNames"), "{wrong_name}");
    assert_code(&pki.ask(&running, good("kube-apiserver-prod", &[]), &one("/audit/v1/dev")).await, 403);
    let stranger = Pki::leaf(&pki.stranger, "kube-apiserver-prod", &[], 2099).2;
    assert_eq!(pki.ask(&running, Some(stranger), &one("/")).await, "", "wrong authority");
    let expired = Pki::leaf(&pki.ca, "kube-apiserver-prod", &[], 2021).2;
    assert_eq!(pki.ask(&running, Some(expired), &one("/")).await, "", "expired");
    assert_eq!(pki.ask(&running, None, &one("/")).await, "", "no certificate");
    assert_eq!(running.ask(&one("/")).await.matches("200 OK").count(), 0, "plain HTTP on the TLS port");
    assert!(running.batches.try_recv().is_err());
    running.until("lapwing_webhook_connections_closed_total{reason=\"handshake_failed\"} 4").await;
}

#[tokio::test]
async fn a_token_decides_the_cluster_too() {
    let (pki, dir) = (Pki::new(), tempfile::tempdir().unwrap());
    let config = secured(dir.path(), &pki, true);
    let mut running = start_in(dir, config, Timing::default()).await;
    let with = |token: &str| post("/", &format!("Authorization: Bearer {token}\r\n"), b"{\"items\":[{}]}");
    assert_code(&pki.ask(&running, None, &with(TOKEN)).await, 200);
    assert_eq!(running.batches.recv().await.unwrap().cluster, "dev");
    assert_code(&pki.ask(&running, None, &with("a-token-for-tests-0124")).await, 401);
    assert_code(&pki.ask(&running, None, &post("/", "", b"{\"items\":[{}]}")).await, 401);
    let prod = Pki::leaf(&pki.ca, "kube-apiserver-prod", &[], 2099).2;
    let both = pki.ask(&running, Some(prod), &with(TOKEN)).await;
    assert_code(&both, 403);
    assert!(both.contains("two clusters"), "{both}");
    assert!(running.batches.try_recv().is_err());
    assert!(running.metric("lapwing_webhook_requests_total{cluster=\"unknown\",code=\"401\"} 2"));
}

#[tokio::test]
async fn a_silent_handshake_is_closed() {
    let (pki, dir) = (Pki::new(), tempfile::tempdir().unwrap());
    let config = secured(dir.path(), &pki, true);
    let limits = Limits { handshake: Duration::from_millis(50), ..Limits::default() };
    let running = start_in(dir, config, Timing { limits, ..Timing::default() }).await;
    assert_eq!(exchange(&mut running.connect().await, b"\x16\x03\x01").await, "");
    running.until("lapwing_webhook_connections_closed_total{reason=\"handshake_slow\"} 1").await;
}

#[tokio::test]
async fn http2_only_when_asked_for() {
    let pki = Pki::new();
    for (http2, expected) in [(false, &b"http/1.1"[..]), (true, b"h2")] {
        let dir = tempfile::tempdir().unwrap();
        let config = Config { http2, ..secured(dir.path(), &pki, true) };
        let running = start_in(dir, config, Timing::default()).await;
        let stream = pki.connect(&running, None, &[b"h2", b"http/1.1"]).await.unwrap();
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(expected));
        running.drain.cancel();
        timeout(PLENTY, running.task).await.expect("the drain ends").unwrap();
    }
}

#[tokio::test]
async fn changed_files_are_taken_and_bad_ones_are_not() {
    let (pki, dir) = (Pki::new(), tempfile::tempdir().unwrap());
    let config = secured(dir.path(), &pki, true);
    let running = start_in(dir, config, Timing { poll: Duration::from_millis(20), ..Timing::default() }).await;
    running.until("lapwing_webhook_reload_success 1").await;
    let shown = |stream: &tokio_rustls::client::TlsStream<TcpStream>| {
        stream.get_ref().1.peer_certificates().unwrap()[0].clone().into_owned()
    };
    let old = pki.connect(&running, None, &[]).await.unwrap();

    std::fs::write(running.dir.path().join("server.crt"), "no certificate").unwrap();
    running.until("lapwing_webhook_reload_success 0").await;
    assert!(!running.reload.reload());
    assert_eq!(shown(&pki.connect(&running, None, &[]).await.unwrap()), shown(&old), "the old one stays in use");

    pki.write_server(running.dir.path(), 2050);
    running.until("lapwing_webhook_reload_success 1").await;
    running.until("lapwing_webhook_certificate_expiry_timestamp_seconds 2524608000").await;
    let mut old = old;
    assert_eq!(exchange(&mut old, b"").await, "", "connections of before are closed");
    let fresh = pki.connect(&running, None, &[]).await.unwrap();
    assert_eq!(certificate::not_after(&shown(&fresh)), Some(2_524_608_000));
}

#[tokio::test]
async fn a_webhook_that_must_not_start_says_why() {
    let refuse = async |config: Config, dir: &Path| {
        let sink = |_| std::future::ready(Err::<(), _>("no"));
        let bound = Webhook::bind(config, dir, Timing::default(), split, sink, Arc::new(Metrics::new(["a"]))).await;
        bound.err().expect("must not start").to_string()
    };
    let dir = tempfile::tempdir().unwrap();
    let open = Config { listen: "0.0.0.0:0".parse().unwrap(), ..plain() };
    assert!(refuse(open, dir.path()).await.contains("`insecureLoopback` needs a loopback address"));
    let pki = Pki::new();
    let config = secured(dir.path(), &pki, true);
    let (_, other, _) = Pki::leaf(&pki.ca, "x", &[], 2099);
    std::fs::write(dir.path().join("server.key"), other.serialize_pem()).unwrap();
    assert!(refuse(config.clone(), dir.path()).await.contains("does the key belong to the certificate?"));
    std::fs::remove_file(dir.path().join("server.key")).unwrap();
    assert!(refuse(config, dir.path()).await.contains("server.key"));
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let config = Config { listen: taken.local_addr().unwrap(), ..plain() };
    assert!(refuse(config, dir.path()).await.contains("is the port in use"));
}
