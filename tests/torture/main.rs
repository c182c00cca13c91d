//! The torture harness: the real program is killed, starved, lied to and flooded, and afterwards it is counted what is
//! missing. `cargo test --test torture` is the short form; `tests/torture/long` the long one.
//!
//! Each row of the table it prints is one kind of fault. After every trial the same judge looks (see `judge`): every
//! event that was acknowledged is stored, alerted and found once; no alert is invented; the journals are whole.
#![allow(clippy::unwrap_used, reason = "a harness that cannot go on stops")]

mod apiserver;
mod backlog;
mod cost;
mod crash;
#[path = "../it/daemon.rs"]
#[allow(dead_code, reason = "shared with the integration tests, which need more of it")]
mod daemon;
mod disk;
mod flips;
mod flood;
mod hostile;
mod judge;
mod luck;
mod receivers;
mod sender;
mod sinks;
mod slow;
mod strace;
mod who;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use luck::Luck;

/// What one kind of fault came to.
#[derive(Default)]
struct Row {
    trials: usize,
    /// Events that were acknowledged, or other things that must hold, as `unit` says.
    checked: usize,
    lost: usize,
    /// What an output got more than once.
    duplicates: usize,
    /// From the fault's end to the first event that was taken again.
    recovery: Vec<Duration>,
    /// What was wrong; nothing if all is well.
    wrong: Vec<String>,
    note: String,
}

impl Row {
    /// Adds what another found.
    fn add(&mut self, other: Self) {
        self.trials += other.trials;
        self.checked += other.checked;
        self.lost += other.lost;
        self.duplicates += other.duplicates;
        self.recovery.extend(other.recovery);
        self.wrong.extend(other.wrong);
    }

    fn skipped(why: &str) -> Self {
        Self { note: format!("SKIPPED: {why}"), ..Self::default() }
    }

    /// The recovery time that so many of a hundred stay below, in seconds.
    fn recovery_at(&self, percent: usize) -> String {
        let mut all = self.recovery.clone();
        all.sort_unstable();
        let at = all.len().checked_sub(1).map(|last| all[(last * percent).div_ceil(100)]);
        at.map_or("-".to_owned(), |time| format!("{:.2} s", time.as_secs_f64()))
    }
}

/// How much of everything.
pub struct Scale {
    pub long: bool,
    pub seed: u64,
}

impl Scale {
    fn of(&self, short: usize, long: usize) -> usize {
        if self.long { long } else { short }
    }

    /// Trials that mostly wait run beside each other in the long form.
    fn at_once(&self) -> usize {
        self.of(1, 4)
    }

    fn luck(&self) -> Luck {
        Luck::new(self.seed)
    }
}

type Run = fn(&Scale) -> Row;

const ROWS: [(&str, &str, Run); 17] = [
    ("C1", "SIGKILL at random moments", crash::random_kills),
    ("C1b", "restarts, 503 and slow answers under the client of kube-apiserver", apiserver::real_client),
    ("C2", "SIGKILL at every call that changes a file", crash::every_call),
    ("C2b", "SIGKILL at the n-th system call of a thread, by strace", strace::every_call),
    ("C7", "kill -9 with a backlog of which nothing was judged", backlog::outage),
    ("D1", "disk full, and room again", disk::full),
    ("D2", "EIO from every call that changes a file", disk::every_eio),
    ("D2b", "ENOSPC from every call that changes a file", disk::every_enospc),
    ("D3", "slow disk", disk::slow),
    ("D4", "flipped bits in every kind of file", flips::flips),
    ("S1", "receivers of five kinds that are dead, slow or wrong", sinks::in_many_ways),
    ("S2", "receivers of five kinds down, and SIGKILL", sinks::down_and_killed),
    ("A1", "malformed bodies beside a clean client", hostile::malformed),
    ("A2", "slow connections of five kinds beside a clean client", slow::five_kinds),
    ("A3", "flood of ten times the sustainable rate under a memory limit", flood::flood),
    ("P1", "what durability costs: with fdatasync and without", cost::durability),
    ("A5", "certificates, tokens and paths", who::matrix),
];

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if args.iter().any(|a| a == "--list") {
        return ExitCode::SUCCESS;
    }
    let seed = std::env::var("LAPWING_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or(1);
    let scale = Scale { long: std::env::var_os("LAPWING_LONG").is_some(), seed };
    // As with other tests, a word picks; nothing picked means that another test was meant.
    let words: Vec<&String> = args.iter().filter(|a| !a.starts_with('-')).collect();
    let picked = |id: &str| words.is_empty() || words.iter().any(|w| w.as_str() == id || w.as_str() == "torture");
    println!("torture, seed {seed}, {}\n", if scale.long { "long" } else { "short" });
    println!("| | fault | trials | checked | lost | repeated | recovery p50 / p99 / max | |");
    println!("| --- | --- | --- | --- | --- | --- | --- | --- |");
    let mut good = true;
    for (id, what, run) in ROWS.into_iter().filter(|(id, ..)| picked(id)) {
        let started = Instant::now();
        let row = std::panic::catch_unwind(|| run(&scale));
        let row =
            row.unwrap_or_else(|_| Row { wrong: vec!["the harness stopped, see above".into()], ..Row::default() });
        let fine = row.wrong.is_empty() && row.lost == 0;
        good &= fine;
        let recovery = [50, 99, 100].map(|p| row.recovery_at(p)).join(" / ");
        let verdict = if fine { "" } else { "**FAILED** " };
        println!(
            "| {id} | {what} | {} | {} | {} | {} | {recovery} | {verdict}{} ({:.0} s) |",
            row.trials,
            row.checked,
            row.lost,
            row.duplicates,
            row.note,
            started.elapsed().as_secs_f64()
        );
        row.wrong.iter().take(20).for_each(|wrong| eprintln!("{id}: {wrong}"));
    }
    if good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
