//! The webhook at its socket. Here is what the tests share: a running webhook and a client that is
//! not too polite.

mod delivery;
mod tls;

use std::sync::Mutex;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;

use super::*;

const TOKEN: &str = "a-token-for-tests-0123";
const PLENTY: Duration = Duration::from_secs(20);

/// Bodies `crowd` in the splitter, and the most there were.
static SPLITTING_NOW: AtomicU64 = AtomicU64::new(0);
static MOST_AT_ONCE: AtomicU64 = AtomicU64::new(0);

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
    if body == b"crowd" {
        let at_once = SPLITTING_NOW.fetch_add(1, Ordering::SeqCst) + 1;
        MOST_AT_ONCE.fetch_max(at_once, Ordering::SeqCst);
        std::thread::park_timeout(Duration::from_millis(20));
        SPLITTING_NOW.fetch_sub(1, Ordering::SeqCst);
    }
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

/// No deadline that could do the work of what is tested.
fn unhurried() -> Timing {
    let long = Duration::from_secs(900);
    let limits = Limits { first_byte: long, idle: long, drain: long, ..Limits::default() };
    Timing { limits, durable: long, ..Timing::default() }
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
