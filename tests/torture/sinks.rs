//! A receiver that is dead, slow or wrong: nothing is lost at it, and the output beside it does not notice.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::daemon::{Daemon, free_port, until};
use crate::judge::{judge, told};
use crate::sender::Ledger;
use crate::{Row, Scale};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// Nobody listens.
    Refuse,
    /// Reads and never answers.
    Silent,
    /// Closes without reading.
    Reset,
    /// Answers something that is no HTTP.
    Garbage,
    Status(u16),
    /// Takes the request and closes before it answers.
    Cut,
    /// Answers a byte a second.
    Drip,
}

const NINE: [Way; 9] = [
    Way::Refuse,
    Way::Silent,
    Way::Reset,
    Way::Garbage,
    Way::Status(401),
    Way::Status(429),
    Way::Status(500),
    Way::Cut,
    Way::Drip,
];

const REFUSED_TRIES: u32 = 2;

/// A receiver of webhooks that misbehaves until it is told not to.
struct Sink {
    port: u16,
    well: Arc<AtomicBool>,
    got: Arc<Mutex<Vec<Value>>>,
}

impl Sink {
    fn new(way: Way) -> Self {
        let sink = Self { port: free_port(), well: Arc::default(), got: Arc::default() };
        let (port, well, got) = (sink.port, Arc::clone(&sink.well), Arc::clone(&sink.got));
        std::thread::spawn(move || {
            while way == Way::Refuse && !well.load(Ordering::Acquire) {
                std::thread::park_timeout(Duration::from_millis(20));
            }
            for stream in TcpListener::bind(("127.0.0.1", port)).unwrap().incoming().flatten() {
                let (well, got) = (Arc::clone(&well), Arc::clone(&got));
                std::thread::spawn(move || serve(stream, way, &well, &got));
            }
        });
        sink
    }
}

/// One connection, one request; an error is the other side's business.
fn serve(mut stream: TcpStream, way: Way, well: &AtomicBool, got: &Mutex<Vec<Value>>) -> Option<()> {
    let bad = |w: Way| way == w && !well.load(Ordering::Acquire);
    if bad(Way::Reset) {
        return None;
    }
    let body = request(&mut stream)?;
    match way {
        Way::Silent if bad(way) => std::thread::park_timeout(Duration::from_secs(30)),
        Way::Garbage if bad(way) => stream.write_all(b"220 this is a mail server\r\n\r\n").ok()?,
        Way::Cut if bad(way) => {}
        Way::Drip if bad(way) => {
            for byte in b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n" {
                stream.write_all(&[*byte]).ok()?;
                std::thread::park_timeout(Duration::from_secs(1));
            }
        }
        Way::Status(code) if bad(way) => {
            let wait = if code == 429 { "Retry-After: 1\r\n" } else { "" };
            write!(stream, "HTTP/1.1 {code} No\r\n{wait}Content-Length: 0\r\nConnection: close\r\n\r\n").ok()?;
        }
        _ => {
            got.lock().unwrap().push(serde_json::from_slice(&body).ok()?);
            write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").ok()?;
        }
    }
    Some(())
}

/// The body of one request.
fn request(stream: &mut TcpStream) -> Option<Vec<u8>> {
    let (mut bytes, mut part) = (Vec::new(), [0; 8192]);
    loop {
        let n = stream.read(&mut part).ok().filter(|n| *n > 0)?;
        bytes.extend(&part[..n]);
        let Some(head) = bytes.windows(4).position(|w| w == b"\r\n\r\n") else { continue };
        let text = String::from_utf8_lossy(&bytes[..head]).to_lowercase();
        let length: usize = text.split("content-length: ").nth(1)?.lines().next()?.trim().parse().ok()?;
        if bytes.len() >= head + 4 + length {
            return Some(bytes.split_off(head + 4));
        }
    }
}

/// A daemon with the file output and this receiver, and some alerts.
fn trial(way: Way, kills: usize, row: &mut Row) -> Duration {
    let (sink, ledger) = (Sink::new(way), Ledger::default());
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("hook.key"), "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
    let hook = format!(
        "  - {{ name: hook, type: webhook, url: \"http://127.0.0.1:{}/\", secretFile: hook.key, minLevel: low, \
         timeoutSeconds: 2, retry: {{ maxWaitSeconds: 1, refusedTries: {REFUSED_TRIES} }} }}\n",
        sink.port
    );
    let mut daemon = Daemon::prepare(dir.path(), &hook);
    daemon.run();
    let asked = Instant::now();
    for _ in 0..10 {
        ledger.deliver(daemon.webhook, 5, crate::daemon::PATIENCE);
    }
    until("the file output", || (told(&daemon.alerts()).len() == 10).then_some(()));
    let beside = asked.elapsed();
    // More often than a refusal for good is tried: what passes by itself must not count as one.
    until("failed deliveries", || {
        let failed = daemon.metric("lapwing_output_deliveries_total{outcome=\"retry\",output=\"hook\"}");
        (failed > f64::from(REFUSED_TRIES)).then_some(())
    });
    for _ in 0..kills {
        daemon.kill();
        daemon.run();
    }
    let healed = Instant::now();
    sink.well.store(true, Ordering::Release);
    let got = || told(&sink.got.lock().unwrap());
    until("every alert at the receiver", || (got().len() == 10).then_some(()));
    row.recovery.push(healed.elapsed());
    row.duplicates += got().values().map(|times| times - 1).sum::<usize>();
    judge(&mut daemon, &ledger, row);
    if std::fs::exists(dir.path().join("data/outputs/hook.dead.ndjson")).unwrap() {
        row.wrong.push(format!("{way:?} made dead letters"));
    }
    row.trials += 1;
    beside
}

pub fn nine_ways(scale: &Scale) -> Row {
    let mut row = Row::default();
    let mut beside = Vec::new();
    for _ in 0..scale.of(1, 5) {
        for way in NINE {
            beside.push(trial(way, 0, &mut row));
        }
    }
    beside.sort_unstable();
    row.note = format!("the output beside it had all within {:.2} s at worst", beside.last().unwrap().as_secs_f64());
    row
}

pub fn down_and_killed(scale: &Scale) -> Row {
    let mut row = Row::default();
    for way in [Way::Refuse, Way::Cut] {
        trial(way, scale.of(3, 10), &mut row);
    }
    row.trials *= scale.of(3, 10);
    row
}
