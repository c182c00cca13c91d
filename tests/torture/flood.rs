//! More than can be taken, whatever is answered: what comes is offered by the clock and not by the answers.

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::daemon::Daemon;
use crate::judge::{judge, takes};
use crate::luck::Luck;
use crate::sender::{Ledger, event, list};
use crate::slow::connect_from;
use crate::{Row, Scale};

/// Senders that wait for their answers: what these get through can be sustained.
const PATIENT: usize = 8;
/// Senders that do not; each has one connection at a time.
const HASTY: usize = 600;
/// Of one address so many: the listener takes 64 connections of each.
const OF_ONE_ADDRESS: usize = 32;
const TIMES: f64 = 10.0;
const LIMIT: u64 = 1 << 30;
/// As long as an API server waits for an answer.
const ANSWER: Duration = Duration::from_secs(30);
/// Padding of the two events of a body together, KiB: the smaller the more often.
const SIZES: [usize; 8] = [64, 64, 64, 256, 256, 1024, 4096, 32_768];

/// A memory limit for a process; its control groups are removed when dropped.
enum Limit {
    /// A control group: its directory, and the file that tells its peak.
    Group { dir: PathBuf, peak: &'static str, slow: Option<Slow> },
    /// Data a process may have, where there is no control group.
    Process,
}

impl Limit {
    fn new() -> Self {
        let name = format!("lapwing-torture-{}", std::process::id());
        let groups = [
            ("/sys/fs/cgroup", "memory.max", "memory.peak"),
            ("/sys/fs/cgroup/unified", "memory.max", "memory.peak"),
            ("/sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.max_usage_in_bytes"),
        ];
        for (root, max, peak) in groups {
            let dir = Path::new(root).join(&name);
            let _ = std::fs::create_dir(&dir);
            // On a plain directory this would make a file: only a control group has it already.
            if dir.join(max).exists() && std::fs::write(dir.join(max), LIMIT.to_string()).is_ok() {
                return Self::Group { slow: Slow::new(&name, &dir), dir, peak };
            }
            let _ = std::fs::remove_dir(&dir);
        }
        Self::Process
    }

    /// The program that starts another one within the limit.
    fn words(&self, scripts: &Path) -> Vec<String> {
        match self {
            Self::Group { dir, slow, .. } => {
                let script = scripts.join("limited");
                let enter = |dir: &Path| format!("echo $$ > {}/cgroup.procs && ", dir.display());
                let enter_slow = slow.as_ref().map(|slow| enter(&slow.dir)).unwrap_or_default();
                let text = format!("#!/bin/sh\n{}{enter_slow}exec \"$@\"\n", enter(dir));
                std::fs::write(&script, text).unwrap();
                std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).unwrap();
                vec![script.display().to_string()]
            }
            Self::Process => vec!["prlimit".to_owned(), format!("--data={LIMIT}")],
        }
    }

    const fn told(&self) -> &'static str {
        match self {
            Self::Group { .. } => "a control group of 1 GiB",
            Self::Process => "a process limit of 1 GiB",
        }
    }

    /// MiB, with what the kernel keeps of files where it counts that.
    fn peak(&self) -> Option<u64> {
        let Self::Group { dir, peak, .. } = self else { return None };
        std::fs::read_to_string(dir.join(peak)).ok()?.trim().parse::<u64>().ok().map(|bytes| bytes >> 20)
    }

    /// A part of a core from now on, or all there are; whether that can be had.
    fn slow(&self, yes: bool) -> bool {
        let Self::Group { slow: Some(slow), .. } = self else { return false };
        std::fs::write(&slow.file, if yes { slow.part } else { slow.all }).is_ok()
    }
}

/// A control group that can give a process only a part of a core: that of the memory, or one beside it.
struct Slow {
    dir: PathBuf,
    file: PathBuf,
    part: &'static str,
    all: &'static str,
}

/// Of the control groups' periods of 100,000 microseconds. The long flood gives Lapwing so little that ten times what can be
/// sustained can be made on the same machine.
const PART: &str = "a quarter of a core";

impl Slow {
    fn new(name: &str, memory: &Path) -> Option<Self> {
        let of = |dir: &Path, file, part, all| Self { dir: dir.to_owned(), file: dir.join(file), part, all };
        let here = of(memory, "cpu.max", "25000 100000", "max");
        if here.file.exists() {
            return Some(here);
        }
        let beside = of(&Path::new("/sys/fs/cgroup/cpu").join(name), "cpu.cfs_quota_us", "25000", "-1");
        let _ = std::fs::create_dir(&beside.dir);
        beside.file.exists().then_some(beside)
    }
}

impl Drop for Limit {
    fn drop(&mut self) {
        if let Self::Group { dir, slow, .. } = self {
            let _ = std::fs::remove_dir(&*dir);
            slow.iter().for_each(|slow| drop(std::fs::remove_dir(&slow.dir)));
        }
    }
}

/// Largest resident memory so far, MiB.
fn resident(daemon: &Daemon) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", daemon.pid())).unwrap_or_default();
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:"));
    line.and_then(|l| l.trim().trim_end_matches(" kB").parse::<u64>().ok()).map_or(0, |kib| kib / 1024)
}

/// Two events that need so much padding between them, sent without a copy of it; the status, 0 for none.
fn send(from: u8, port: u16, numbers: std::ops::Range<u32>, padding: &[u8], timeout: Duration) -> u16 {
    let body = list(&numbers.map(event).collect::<Vec<_>>());
    let text = String::from_utf8(body).unwrap();
    let at = text.find("\"stage\":").unwrap();
    let (open, close) = ("\"requestObject\":{\"p\":\"", "\"},");
    let length = text.len() + open.len() + padding.len() + close.len();
    let head =
        format!("POST /audit/v1/prod HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n");
    let exchange = || -> std::io::Result<u16> {
        let mut stream = connect_from(SocketAddr::from(([127, 2, 0, from], 0)), port)?;
        stream.set_write_timeout(Some(timeout))?;
        stream.set_read_timeout(Some(timeout))?;
        let parts = [
            head.as_bytes(),
            &text.as_bytes()[..at],
            open.as_bytes(),
            padding,
            close.as_bytes(),
            &text.as_bytes()[at..],
        ];
        // Who is refused early is told so and then cut off: the answer counts.
        let sent = parts.iter().try_for_each(|part| stream.write_all(part));
        let mut answer = [0; 12];
        stream.read_exact(&mut answer).and(sent.or(Ok(())))?;
        Ok(std::str::from_utf8(&answer[9..]).ok().and_then(|code| code.parse().ok()).unwrap_or_default())
    };
    exchange().unwrap_or_default()
}

/// What is offered and what becomes of it.
struct Flood<'a> {
    ledger: &'a Ledger,
    port: u16,
    padding: Vec<u8>,
    offered: AtomicU64,
    bytes: AtomicU64,
}

impl Flood<'_> {
    fn offer(&self, sender: usize, luck: &mut Luck) {
        let size = SIZES[luck.below(SIZES.len())] << 10;
        let numbers = self.ledger.take(2);
        self.offered.fetch_add(1, Ordering::Relaxed);
        let from = (sender / OF_ONE_ADDRESS + 1) as u8;
        match send(from, self.port, numbers.clone(), &self.padding[..size], ANSWER) {
            200 => {
                self.bytes.fetch_add(size as u64, Ordering::Relaxed);
                self.ledger.acked.lock().unwrap().extend(numbers);
            }
            code => *self.ledger.refused.lock().unwrap().entry(code).or_default() += 1,
        }
    }

    /// `senders` for `time`: each offers `every` so often, or as soon as it was answered.
    fn run(&self, senders: usize, every: Option<Duration>, time: Duration) {
        let started = Instant::now();
        std::thread::scope(|scope| {
            for sender in 0..senders {
                scope.spawn(move || {
                    let mut luck = Luck::new(sender as u64 + 1);
                    let mut due = started + every.unwrap_or_default().mul_f64(sender as f64 / senders as f64);
                    while started.elapsed() < time && due < started + time {
                        std::thread::park_timeout(due.saturating_duration_since(Instant::now()));
                        self.offer(sender, &mut luck);
                        // What could not be offered in time is made up for, as a sender with a backlog does.
                        due += every.unwrap_or_default();
                    }
                });
            }
        });
    }
}

pub fn flood(scale: &Scale) -> Row {
    let (mut row, ledger, limit) = (Row::default(), Ledger::default(), Limit::new());
    let dir = tempfile::tempdir().unwrap();
    let mut daemon = Daemon::prepare(dir.path(), "retention: { maxSize: 2GiB }\n");
    daemon.under = limit.words(dir.path());
    daemon.run();
    let padding = vec![b'x'; SIZES[SIZES.len() - 1] << 10];
    let flood = Flood { ledger: &ledger, port: daemon.webhook, padding, offered: 0.into(), bytes: 0.into() };
    let slowed = scale.long && limit.slow(true);
    let quiet = Duration::from_secs(scale.of(3, 30) as u64);
    flood.run(PATIENT, None, quiet);
    let taken = ledger.acked() as f64 / 2.0;
    let sustained = taken / quiet.as_secs_f64();
    flood.offered.store(0, Ordering::Relaxed);
    ledger.refused.lock().unwrap().clear();
    let time = Duration::from_secs(scale.of(5, 600) as u64);
    flood.run(HASTY, Some(Duration::from_secs_f64(HASTY as f64 / (TIMES * sustained))), time);
    let offered = flood.offered.load(Ordering::Relaxed) as f64 / time.as_secs_f64();
    limit.slow(false);
    let resident = resident(&daemon);
    if resident == 0 || resident > LIMIT >> 20 {
        row.wrong.push(format!("{resident} MiB of memory"));
    }
    let refused = ledger.refused.lock().unwrap().clone();
    // No answer at all is a body that was refused while it was still being sent.
    if refused.keys().any(|code| ![0, 408, 413, 429, 503].contains(code)) {
        row.wrong.push(format!("answers: {refused:?}"));
    }
    if refused.is_empty() {
        row.wrong.push("all was taken: that was no flood".into());
    }
    takes(&daemon, &ledger, &mut row);
    judge(&mut daemon, &ledger, &mut row);
    row.trials = 1;
    let gib = flood.bytes.into_inner() as f64 / f64::from(1 << 30);
    let group = limit.peak().map(|mib| format!(", {mib} MiB with the kernel's copies of files")).unwrap_or_default();
    row.note = format!(
        "{sustained:.0} bodies a second can be sustained{}, {offered:.0} were offered ({:.1} times); {gib:.1} GiB taken, refused \
         {refused:?}; {}: at most {resident} MiB resident{group}",
        if slowed { format!(" on {PART}") } else { String::new() },
        offered / sustained,
        limit.told()
    );
    row
}
