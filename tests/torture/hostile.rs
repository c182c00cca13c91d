//! Bodies no API server would send.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use lapwing::journal::Lsn;

use crate::daemon::{Daemon, post};
use crate::judge::{settle, stored};
use crate::luck::Luck;
use crate::sender::{Ledger, audit_id, event};
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
    row.note = format!("clean client p99 {:.0} ms, {:.0} ms without", busy.p99(), quiet.p99());
    row
}
