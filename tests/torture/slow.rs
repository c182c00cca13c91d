//! Connections that are held open by doing nothing, or next to nothing.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::daemon::{Daemon, post};
use crate::sender::{event, list};
use crate::{Row, Scale};

/// A client that behaves, and how long its answers took.
#[derive(Default)]
pub struct Clean {
    took: Vec<Duration>,
    failed: usize,
}

impl Clean {
    pub fn measure(port: u16, time: Duration) -> Self {
        let (mut clean, started) = (Self::default(), Instant::now());
        while started.elapsed() < time {
            clean.ask(port);
        }
        clean
    }

    pub fn until(port: u16, stop: &AtomicBool) -> Self {
        let mut clean = Self::default();
        while !stop.load(Ordering::Acquire) {
            clean.ask(port);
        }
        clean
    }

    fn ask(&mut self, port: u16) {
        // Always the same event: what it costs is asked here, not what becomes of it.
        let (asked, body) = (Instant::now(), list(&[event(1)]));
        match post(port, "/audit/v1/clean", &body) {
            Ok((200, _)) => self.took.push(asked.elapsed()),
            _ => self.failed += 1,
        }
        std::thread::park_timeout(Duration::from_millis(5));
    }

    /// In whole milliseconds.
    pub fn p99(&self) -> u128 {
        let mut took = self.took.clone();
        took.sort_unstable();
        took.get(took.len() * 99 / 100).map_or(0, Duration::as_millis)
    }
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Silent,
    HalfHeader,
    DrippingHeader,
    StalledBody,
    DrippingBody,
}

const KINDS: [Kind; 5] = [Kind::Silent, Kind::HalfHeader, Kind::DrippingHeader, Kind::StalledBody, Kind::DrippingBody];

impl Kind {
    fn opening(self) -> Vec<u8> {
        match self {
            Self::Silent => Vec::new(),
            Self::HalfHeader => b"POST / HTTP/1.1\r\nHo".to_vec(),
            Self::DrippingHeader => b"P".to_vec(),
            Self::StalledBody => b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 900\r\n\r\n{".to_vec(),
            Self::DrippingBody => b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 90000\r\n\r\n{".to_vec(),
        }
    }

    const fn drip(self) -> &'static [u8] {
        match self {
            Self::DrippingHeader | Self::DrippingBody => b"a",
            _ => b"",
        }
    }
}

/// A connection from another loopback address for each few of them: one address may only have some.
fn connect(port: u16, n: usize) -> std::io::Result<TcpStream> {
    let from = SocketAddr::from(([127, 1, (n / 40 / 250) as u8, (n / 40 % 250 + 1) as u8], 0));
    let socket = rustix::net::socket(rustix::net::AddressFamily::INET, rustix::net::SocketType::STREAM, None)?;
    rustix::net::bind(&socket, &from)?;
    rustix::net::connect(&socket, &SocketAddr::from(([127, 0, 0, 1], port)))?;
    let stream = TcpStream::from(socket);
    stream.set_nonblocking(true)?;
    Ok(stream)
}

/// Whether the other side has closed.
fn is_closed(stream: &mut TcpStream, kind: Kind) -> bool {
    let _ = stream.write(kind.drip());
    match stream.read(&mut [0; 1024]) {
        Ok(n) => n == 0,
        Err(e) => e.kind() != std::io::ErrorKind::WouldBlock,
    }
}

pub fn five_kinds(scale: &Scale) -> Row {
    let mut row = Row::default();
    let mut notes = Vec::new();
    for kind in KINDS {
        let mut daemon = Daemon::start("");
        let (port, stop) = (daemon.webhook, AtomicBool::new(false));
        let quiet = Clean::measure(port, Duration::from_secs(3));
        let (busy, slowest, open) = std::thread::scope(|scope| {
            let clean = scope.spawn(|| Clean::until(port, &stop));
            let count = scale.of(200, 1000);
            let mut held: Vec<_> = (0..count).filter_map(|n| connect(port, n).ok()).collect();
            row.trials += held.len();
            held.iter_mut().for_each(|s| drop(s.write(&kind.opening())));
            let (started, mut last) = (Instant::now(), Duration::ZERO);
            while !held.is_empty() && started.elapsed() < Duration::from_secs(45) {
                held.retain_mut(|stream| !is_closed(stream, kind));
                last = started.elapsed();
                std::thread::park_timeout(Duration::from_millis(100));
            }
            stop.store(true, Ordering::Release);
            (clean.join().unwrap(), last, held.len())
        });
        row.checked += busy.took.len();
        row.lost += busy.failed;
        if open > 0 {
            row.wrong.push(format!("{kind:?}: {open} are open after {slowest:?}"));
        }
        notes.push(format!(
            "{kind:?}: closed in {:.0} s, p99 {} ms, {} ms without",
            slowest.as_secs_f64(),
            busy.p99(),
            quiet.p99()
        ));
        assert!(daemon.stop().success());
    }
    row.note = format!("checked and lost: answers to the clean client; {}", notes.join("; "));
    row
}
