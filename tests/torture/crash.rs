//! The process is killed: at random moments under load, and at every call that changes a file.

use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock};
use std::time::{Duration, Instant};

use crate::daemon::{Daemon, get, until};
use crate::judge::judge;
use crate::sender::Ledger;
use crate::{Row, Scale};

pub fn random_kills(scale: &Scale) -> Row {
    let (mut row, mut luck, ledger) = (Row::default(), scale.luck(), Ledger::default());
    let mut daemon = Daemon::start("");
    let (port, stop) = (daemon.webhook, AtomicBool::new(false));
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| ledger.keep_sending(port, 5, Duration::from_millis(30), &stop));
        }
        for _ in 0..scale.of(8, 200) {
            std::thread::park_timeout(Duration::from_millis(20 + luck.below(400) as u64));
            daemon.kill();
            let (killed, before) = (Instant::now(), ledger.acked());
            daemon.spawn();
            while ledger.acked() == before && killed.elapsed() < crate::daemon::PATIENCE {
                std::thread::park_timeout(Duration::from_millis(2));
            }
            row.recovery.push(killed.elapsed());
            row.trials += 1;
        }
        stop.store(true, Ordering::Release);
    });
    daemon.wait_ready();
    judge(&mut daemon, &ledger, &mut row);
    row.note = "recovery: from the kill to the next answer".into();
    row
}

/// The library that is preloaded, compiled once.
pub fn shim() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/torture/fault.c");
        let built = Path::new(env!("CARGO_TARGET_TMPDIR")).join("fault.so");
        let mut gcc = Command::new("gcc");
        gcc.args(["-O2", "-Wall", "-shared", "-fPIC", "-o"]).arg(&built).arg(source).arg("-ldl");
        assert!(gcc.status().expect("gcc runs").success());
        built
    })
}

/// Waits until the process is ready or dead; whether it is ready.
fn came_up(daemon: &mut Daemon) -> bool {
    until("an end or readiness", || {
        if !is_alive(daemon) {
            return Some(false);
        }
        matches!(get(daemon.admin, "/readyz"), Ok((200, _))).then_some(true)
    })
}

fn is_alive(daemon: &mut Daemon) -> bool {
    daemon.child.as_mut().is_some_and(|child| child.try_wait().unwrap().is_none())
}

/// Asks the process to end and waits a while; then it is killed.
fn end(daemon: &mut Daemon) {
    if is_alive(daemon) {
        Command::new("kill").args(["-TERM", &daemon.pid().to_string()]).status().unwrap();
    }
    let asked = Instant::now();
    while is_alive(daemon) && asked.elapsed() < Duration::from_secs(35) {
        std::thread::park_timeout(Duration::from_millis(20));
    }
    daemon.kill();
}

/// Starts a daemon with a fault that `prepare` sets up, sends it some batches, ends it, then starts it without and judges.
/// Whether the fault came, or lay beyond the last call.
pub fn one_fault(prepare: impl FnOnce(&mut Daemon), row: &mut Row) -> bool {
    let dir = tempfile::tempdir().unwrap();
    let (mut daemon, ledger) = (Daemon::prepare(dir.path(), ""), Ledger::default());
    prepare(&mut daemon);
    daemon.spawn();
    came_up(&mut daemon);
    for _ in 0..4 {
        if is_alive(&mut daemon) {
            ledger.deliver(daemon.webhook, 5, Duration::from_millis(1500));
        }
    }
    // Long enough for a progress mark, an index commit and the deliveries.
    let sent = Instant::now();
    while is_alive(&mut daemon) && sent.elapsed() < Duration::from_millis(2200) {
        std::thread::park_timeout(Duration::from_millis(20));
    }
    let killed = daemon.child.as_mut().and_then(|c| c.try_wait().unwrap()).and_then(|s| s.signal()) == Some(9);
    end(&mut daemon);
    daemon.env.clear();
    daemon.under.clear();
    let began = Instant::now();
    daemon.spawn();
    if ledger.deliver(daemon.webhook, 5, crate::daemon::PATIENCE).is_some() {
        row.recovery.push(began.elapsed());
    }
    daemon.wait_ready();
    judge(&mut daemon, &ledger, row);
    row.trials += 1;
    killed || daemon.log().contains("fault met")
}

/// As [`one_fault`], by the library that is preloaded.
fn preloaded(fault: &str, row: &mut Row) -> bool {
    let set = |daemon: &mut Daemon| {
        daemon.env = vec![
            ("LD_PRELOAD".into(), shim().display().to_string()),
            ("LAPWING_FAULT".into(), fault.into()),
            ("LAPWING_FAULT_DIR".into(), daemon.data_dir()),
        ];
    };
    one_fault(set, row)
}

/// Tries `fault` at the calls 1, 1 + `step`, …, so many at once, until one is beyond the last call. Answers which that was,
/// and what was found; `fault` says whether it came.
pub fn each_call(at_once: usize, step: usize, fault: impl Fn(usize, &mut Row) -> bool + Sync) -> (usize, Row) {
    let (next, beyond) = (AtomicUsize::new(1), AtomicUsize::new(usize::MAX));
    let all = Mutex::new(Row::default());
    std::thread::scope(|scope| {
        for _ in 0..at_once {
            scope.spawn(|| {
                loop {
                    let at = next.fetch_add(step, Ordering::Relaxed);
                    if at >= beyond.load(Ordering::Acquire) {
                        return;
                    }
                    let mut row = Row::default();
                    let met = fault(at, &mut row);
                    row.wrong.iter_mut().for_each(|w| *w = format!("call {at}: {w}"));
                    all.lock().unwrap().add(row);
                    if !met {
                        beyond.fetch_min(at, Ordering::AcqRel);
                    }
                }
            });
        }
    });
    (beyond.into_inner(), all.into_inner().unwrap())
}

/// Faults at the calls 1, 1 + `step`, …, until one is beyond the last call.
pub fn sweep(scale: &Scale, kind: &str, step: usize) -> Row {
    let step = if scale.long { 1 } else { step };
    let (beyond, mut row) = each_call(scale.at_once(), step, |at, row| preloaded(&format!("{kind}:{at}"), row));
    let calls = beyond - 1;
    row.note = if step == 1 { format!("each of {calls} calls") } else { format!("one in {step} of {calls} calls") };
    row
}

pub fn every_call(scale: &Scale) -> Row {
    sweep(scale, "kill", 41)
}
