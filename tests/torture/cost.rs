//! What durability costs: the same load with every fdatasync and with none.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::crash::shim;
use crate::daemon::{Daemon, post};
use crate::sender::{Ledger, event, list};
use crate::{Row, Scale};

const SENDERS: usize = 4;
/// Between two batches of one sender: an API server at its busiest sends ten a second.
const EVERY: Duration = Duration::from_millis(100);
const EVENTS_IN_BATCH: u32 = 10;
/// Of a tick of /proc/PID/stat.
const TICKS_A_SECOND: f64 = 100.0;

struct Cost {
    latency: Vec<Duration>,
    cpu: f64,
    events: usize,
}

impl Cost {
    fn at(&self, percent: usize) -> f64 {
        self.latency.get(self.latency.len() * percent / 100).map_or(0.0, |time| time.as_secs_f64() * 1000.0)
    }

    fn told(&self) -> String {
        let a_thousand = self.cpu * 1e6 / self.events as f64;
        format!("p50 {:.1} ms, p99 {:.1} ms, {a_thousand:.0} ms CPU a thousand events", self.at(50), self.at(99))
    }
}

/// Seconds of CPU so far.
fn cpu(daemon: &Daemon) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", daemon.pid())).unwrap();
    let fields: Vec<f64> = stat.rsplit(") ").next().unwrap().split(' ').filter_map(|f| f.parse().ok()).collect();
    // Behind the state: ppid, pgrp, session, tty, tpgid, flags, four counts of faults, then utime and stime.
    (fields[10] + fields[11]) / TICKS_A_SECOND
}

fn measure(sync: bool, time: Duration) -> Cost {
    let dir = tempfile::tempdir().unwrap();
    let mut daemon = Daemon::prepare(dir.path(), "");
    daemon.env = vec![
        ("LD_PRELOAD".into(), shim().display().to_string()),
        ("LAPWING_FAULT".into(), if sync { "none:0" } else { "nosync:0" }.into()),
        ("LAPWING_FAULT_DIR".into(), daemon.data_dir()),
    ];
    daemon.run();
    let (ledger, latency, stop) = (Ledger::default(), Mutex::new(Vec::new()), AtomicBool::new(false));
    let before = cpu(&daemon);
    std::thread::scope(|scope| {
        for _ in 0..SENDERS {
            scope.spawn(|| {
                while !stop.load(Ordering::Acquire) {
                    let body = list(&ledger.take(EVENTS_IN_BATCH).map(event).collect::<Vec<_>>());
                    let started = Instant::now();
                    assert_eq!(post(daemon.webhook, "/audit/v1/prod", &body).unwrap().0, 200);
                    latency.lock().unwrap().push(started.elapsed());
                    std::thread::park_timeout(EVERY.saturating_sub(started.elapsed()));
                }
            });
        }
        std::thread::park_timeout(time);
        stop.store(true, Ordering::Release);
    });
    crate::judge::settle(&daemon);
    let mut latency = latency.into_inner().unwrap();
    latency.sort_unstable();
    Cost { cpu: cpu(&daemon) - before, events: ledger.sent() as usize, latency }
}

pub fn durability(scale: &Scale) -> Row {
    let time = Duration::from_secs(scale.of(5, 60) as u64);
    let [with, without] = [true, false].map(|sync| measure(sync, time));
    Row {
        trials: 2,
        checked: with.events + without.events,
        note: format!("with: {}; without: {}", with.told(), without.told()),
        ..Row::default()
    }
}
