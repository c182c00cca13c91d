//! Connections that are held open by doing nothing, or next to nothing.

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
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

    /// In milliseconds.
    pub fn p99(&self) -> f64 {
        let mut took = self.took.clone();
        took.sort_unstable();
        took.get(took.len() * 99 / 100).map_or(0.0, |took| took.as_secs_f64() * 1000.0)
    }

    fn add(&mut self, other: Self) {
        self.took.extend(other.took);
        self.failed += other.failed;
    }
}

/// What a clean client may notice of an attack on Lapwing more than of one on somebody else: half as much again.
const ALLOWED: f64 = 1.5;
/// Below this many milliseconds more the clock of a shared machine tells nothing.
const NOISE: f64 = 2.0;
/// A connection that drips sends a byte once in so many looks at it: each has its own turn, as they do not know each other.
const DRIP: usize = 5;
/// From one look to the next.
const LOOK: Duration = Duration::from_millis(100);

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

pub fn connect_from(from: SocketAddr, port: u16) -> std::io::Result<TcpStream> {
    let socket = rustix::net::socket(rustix::net::AddressFamily::INET, rustix::net::SocketType::STREAM, None)?;
    rustix::net::bind(&socket, &from)?;
    rustix::net::connect(&socket, &SocketAddr::from(([127, 0, 0, 1], port)))?;
    Ok(TcpStream::from(socket))
}

/// A connection from another loopback address for each few of them: one address may only have some.
fn connect(port: u16, n: usize) -> std::io::Result<TcpStream> {
    let stream = connect_from(SocketAddr::from(([127, 1, (n / 40 / 250) as u8, (n / 40 % 250 + 1) as u8], 0)), port)?;
    stream.set_nonblocking(true)?;
    Ok(stream)
}

/// Whether the other side has closed. `drip`: it is time for another byte.
fn is_closed(stream: &mut TcpStream, kind: Kind, drip: bool) -> bool {
    if drip {
        let _ = stream.write(kind.drip());
    }
    match stream.read(&mut [0; 1024]) {
        Ok(n) => n == 0,
        Err(e) => e.kind() != std::io::ErrorKind::WouldBlock,
    }
}

/// Opens so many connections and holds them until all are closed: how many there were, how long it took, how many were left.
fn attack(kind: Kind, port: u16, count: usize) -> (usize, Duration, usize) {
    let mut held: Vec<_> = (0..count).filter_map(|n| Some((n, connect(port, n).ok()?))).collect();
    let opened = held.len();
    held.iter_mut().for_each(|(_, s)| drop(s.write(&kind.opening())));
    let (started, mut look) = (Instant::now(), 0);
    while !held.is_empty() && started.elapsed() < Duration::from_secs(45) {
        look += 1;
        held.retain_mut(|(n, stream)| !is_closed(stream, kind, (*n + look) % DRIP == 0));
        std::thread::park_timeout(LOOK);
    }
    (opened, started.elapsed(), held.len())
}

/// Connections that [`nobody`] holds: as many as Lapwing holds of strangers.
const HELD: usize = 128;

/// Takes connections for so long and does nothing with them.
fn nobody(listener: &TcpListener, time: Duration) {
    let (mut held, started) = (VecDeque::new(), Instant::now());
    while started.elapsed() < time {
        match listener.accept() {
            Ok((stream, _)) => held.push_back(stream),
            Err(_) => std::thread::park_timeout(Duration::from_millis(1)),
        }
        if held.len() > HELD {
            held.pop_front();
        }
    }
}

/// A client that behaves, while the same attack goes to somebody else on the machine.
fn beside(kind: Kind, port: u16, count: usize, time: Duration) -> Clean {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let (stop, elsewhere) = (AtomicBool::new(false), listener.local_addr().unwrap().port());
    std::thread::scope(|scope| {
        let clean = scope.spawn(|| Clean::until(port, &stop));
        // Closes what it was too slow to take, too.
        scope.spawn(move || nobody(&listener, time));
        attack(kind, elsewhere, count);
        stop.store(true, Ordering::Release);
        clean.join().unwrap()
    })
}

/// A kind against a daemon of its own, again and again, and in between nothing and the same against somebody else: a client
/// that behaves is asked all the time. What the attackers take of the machine, and opening connections, is not Lapwing's.
fn one_kind(kind: Kind, scale: &Scale, row: &mut Row) -> String {
    let mut daemon = Daemon::start("");
    let port = daemon.webhook;
    // What is opened and learned with the first answers is no part of it.
    Clean::measure(port, Duration::from_secs(1));
    let (mut quiet, mut other, mut busy) = (Clean::default(), Clean::default(), Clean::default());
    let mut slowest = Duration::ZERO;
    let count = scale.of(200, 1000);
    let (mut rounds, started) = (0, Instant::now());
    while rounds == 0 || started.elapsed() < Duration::from_secs(scale.of(1, 30) as u64) {
        let stop = AtomicBool::new(false);
        let (found, (opened, took, open)) = std::thread::scope(|scope| {
            let clean = scope.spawn(|| Clean::until(port, &stop));
            let attacked = attack(kind, port, count);
            stop.store(true, Ordering::Release);
            (clean.join().unwrap(), attacked)
        });
        busy.add(found);
        // As long as the attack, so that all see the same machine.
        let time = if scale.long { took } else { took.min(Duration::from_secs(3)) };
        quiet.add(Clean::measure(port, time));
        other.add(beside(kind, port, count, time));
        slowest = slowest.max(took);
        rounds += 1;
        row.trials += opened;
        if open > 0 {
            row.wrong.push(format!("{kind:?}: {open} are open after {took:?}"));
        }
    }
    row.checked += busy.took.len();
    row.lost += busy.failed;
    let p99 = format!("{:.1} ms, {:.1} ms beside, {:.1} ms without", busy.p99(), other.p99(), quiet.p99());
    if scale.long && busy.p99() > ALLOWED * other.p99() && busy.p99() > other.p99() + NOISE {
        row.wrong.push(format!("{kind:?}: p99 {p99}"));
    }
    assert!(daemon.stop().success());
    let seconds = slowest.as_secs_f64();
    format!("{kind:?}: {rounds} × {count}, closed in {seconds:.0} s, p99 {p99}")
}

pub fn five_kinds(scale: &Scale) -> Row {
    let mut row = Row::default();
    let notes: Vec<_> = KINDS.into_iter().map(|kind| one_kind(kind, scale, &mut row)).collect();
    row.note = format!(
        "checked and lost: answers to the clean client; beside: the same connections to somebody else on the machine; {}",
        notes.join("; ")
    );
    row
}
