//! The process is killed: at random moments under load, and at every call that changes a file.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
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

/// Starts a daemon with `fault`, sends it some batches, ends it, then starts it without and judges. Whether the fault
/// came, or lay beyond the last call.
pub fn one_fault(fault: &str, row: &mut Row) -> bool {
    let dir = tempfile::tempdir().unwrap();
    let (mut daemon, ledger) = (Daemon::prepare(dir.path(), ""), Ledger::default());
    daemon.env = vec![
        ("LD_PRELOAD".into(), shim().display().to_string()),
        ("LAPWING_FAULT".into(), fault.into()),
        ("LAPWING_FAULT_DIR".into(), daemon.data_dir()),
    ];
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
    end(&mut daemon);
    daemon.env.clear();
    let began = Instant::now();
    daemon.spawn();
    if ledger.deliver(daemon.webhook, 5, crate::daemon::PATIENCE).is_some() {
        row.recovery.push(began.elapsed());
    }
    daemon.wait_ready();
    judge(&mut daemon, &ledger, row);
    row.trials += 1;
    daemon.log().contains("fault met")
}

/// Faults at the calls 1, 1 + `step`, …, until one is beyond the last call.
pub fn sweep(scale: &Scale, kind: &str, step: usize) -> Row {
    let (mut row, step) = (Row::default(), if scale.long { 1 } else { step });
    let mut at = 1;
    loop {
        let before = row.wrong.len();
        let met = one_fault(&format!("{kind}:{at}"), &mut row);
        row.wrong[before..].iter_mut().for_each(|w| *w = format!("{kind}:{at}: {w}"));
        if !met {
            break;
        }
        at += step;
    }
    row.note = if step == 1 { format!("each of {} calls", at - 1) } else { format!("one in {step} of {at} calls") };
    row
}

pub fn every_call(scale: &Scale) -> Row {
    sweep(scale, "kill", 41)
}
