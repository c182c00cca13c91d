//! Bodies no API server would send, and more of them than can be taken.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use lapwing::journal::Lsn;

use crate::daemon::{Daemon, post};
use crate::judge::{judge, settle, stored};
use crate::luck::Luck;
use crate::sender::{Ledger, audit_id, event, list};
use crate::slow::Clean;
use crate::{Row, Scale};

/// What hostile text is put together from.
const PIECES: [&str; 18] = [
    "\"",
    "{",
    "}",
    "[",
    "]",
    ",",
    ":",
    "\\",
    "\u{0}",
    "1e999",
    "\"\\ud800\"",
    "null",
    "{\"items\":[",
    "]}",
    "\u{202e}",
    "-",
    "\"auditID\":",
    "[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[",
];

/// Damages `text` in one to four places.
fn mutate(text: &mut Vec<u8>, luck: &mut Luck) {
    for _ in 0..=luck.below(4) {
        let at = luck.below(text.len().max(1));
        let end = (at + luck.below(200)).min(text.len());
        match luck.below(5) {
            0 => text[at..].first_mut().into_iter().for_each(|b| *b = luck.below(256) as u8),
            1 => drop(text.drain(at..end)),
            2 => drop(text.splice(at..at, PIECES[luck.below(PIECES.len())].bytes())),
            3 => {
                let part = text[at..end].to_vec();
                drop(text.splice(at..at, part));
            }
            _ => {
                let deep = "[".repeat(luck.below(20_000));
                drop(text.splice(at..at, deep.bytes()));
            }
        }
    }
}

pub fn malformed(scale: &Scale) -> Row {
    let (mut row, mut luck, ledger) = (Row::default(), scale.luck(), Ledger::default());
    let mut daemon = Daemon::start("");
    let (port, stop) = (daemon.webhook, AtomicBool::new(false));
    let quiet = Clean::measure(port, Duration::from_secs(2));
    let (mut firsts, mut codes) = (Vec::new(), std::collections::BTreeMap::new());
    let busy = std::thread::scope(|scope| {
        let clean = scope.spawn(|| Clean::until(port, &stop));
        for _ in 0..scale.of(500, 10_000) {
            // A good event, a hostile one, a good one. What is in front of the damage is kept whatever it is.
            let numbers = ledger.take(3);
            let mut hostile = event(numbers.start + 1).into_bytes();
            mutate(&mut hostile, &mut luck);
            let good = [event(numbers.start), event(numbers.start + 2)];
            let body = [
                br#"{"kind":"EventList","apiVersion":"audit.k8s.io/v1","items":["#.to_vec(),
                good[0].clone().into_bytes(),
                b",".to_vec(),
                hostile,
                b",".to_vec(),
                good[1].clone().into_bytes(),
                b"]}".to_vec(),
            ]
            .concat();
            let code = post(port, "/audit/v1/prod", &body).map_or(0, |(code, _)| code);
            *codes.entry(code).or_insert(0_usize) += 1;
            firsts.push(numbers.start);
            row.trials += 1;
        }
        stop.store(true, Ordering::Release);
        clean.join().unwrap()
    });
    if codes.keys().any(|code| *code != 200) {
        row.wrong.push(format!("answers besides 200: {codes:?}"));
    }
    settle(&daemon);
    if !daemon.stop().success() {
        row.wrong.push("the daemon did not end well".into());
    }
    let stored = stored(std::path::Path::new(&daemon.data_dir()), Lsn(0));
    row.checked = firsts.len();
    row.lost = firsts.iter().filter(|n| !stored.contains(&audit_id(**n))).count();
    row.note = format!("clean client p99 {} ms, {} ms without", busy.p99(), quiet.p99());
    row
}

/// Largest resident memory so far, in MiB.
fn peak(daemon: &Daemon) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", daemon.pid())).unwrap();
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() / 1024
}

pub fn flood(scale: &Scale) -> Row {
    let (mut row, ledger) = (Row::default(), Ledger::default());
    let mut daemon = Daemon::start("retention: { maxSize: 2GiB }\n");
    let (port, stop) = (daemon.webhook, AtomicBool::new(false));
    let taken = std::sync::atomic::AtomicU64::new(0);
    std::thread::scope(|scope| {
        for sender in 0..8_usize {
            let (ledger, stop, taken) = (&ledger, &stop, &taken);
            scope.spawn(move || {
                let mut luck = Luck::new(sender as u64 + 1);
                while !stop.load(Ordering::Acquire) {
                    // From 64 KiB to 64 MiB, the smaller the more often.
                    let kib = 64 << [0, 0, 0, 2, 2, 4, 6, 9][luck.below(8)];
                    let numbers = ledger.take(2);
                    let padding = "x".repeat(kib * 1024 / 2);
                    let padded = |n| {
                        event(n).replacen(
                            "\"stage\":",
                            &format!("\"requestObject\":{{\"p\":\"{padding}\"}},\"stage\":"),
                            1,
                        )
                    };
                    let body = list(&numbers.clone().map(padded).collect::<Vec<_>>());
                    match post(port, "/audit/v1/prod", &body) {
                        Ok((200, _)) => {
                            taken.fetch_add(body.len() as u64, Ordering::Relaxed);
                            ledger.acked.lock().unwrap().extend(numbers);
                        }
                        other => *ledger.refused.lock().unwrap().entry(other.map_or(0, |(c, _)| c)).or_default() += 1,
                    }
                }
            });
        }
        let started = Instant::now();
        while started.elapsed() < Duration::from_secs(scale.of(5, 600) as u64) {
            std::thread::park_timeout(Duration::from_millis(100));
        }
        stop.store(true, Ordering::Release);
    });
    let peak = peak(&daemon);
    if peak > 1024 {
        row.wrong.push(format!("{peak} MiB of memory"));
    }
    let refused = ledger.refused.lock().unwrap().clone();
    // No answer at all is a body that was refused while it was still being sent.
    if refused.keys().any(|code| ![0, 408, 413, 429, 503].contains(code)) {
        row.wrong.push(format!("answers: {refused:?}"));
    }
    crate::judge::takes(&daemon, &ledger, &mut row);
    judge(&mut daemon, &ledger, &mut row);
    row.trials = 1;
    let gib = taken.into_inner() as f64 / f64::from(1 << 30);
    row.note = format!("{gib:.1} GiB taken, refused {refused:?}, at most {peak} MiB resident");
    row
}
