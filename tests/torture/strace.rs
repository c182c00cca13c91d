//! The process is killed at the n-th system call by `strace`, which also meets calls that do not pass through libc. It counts
//! by thread: the n-th sync is that of whichever thread comes to its n-th first.

use std::process::Command;

use crate::crash::{each_call, one_fault};
use crate::daemon::Daemon;
use crate::{Row, Scale};

/// What changes files, and what answers.
const CALLS: [&str; 9] =
    ["fdatasync", "fsync", "pwrite64", "write", "rename", "unlink", "ftruncate", "fallocate", "openat"];
/// Of each call so many are tried; some are made for every batch, and again and again.
const MOST: usize = 30;

/// Whether `strace` is here and may trace.
fn works() -> bool {
    let trace = Command::new("strace").args(["-f", "-o", "/dev/null", "-e", "trace=fsync", "true"]).output();
    trace.is_ok_and(|out| out.status.success())
}

fn killed_at(call: &str, at: usize, row: &mut Row) -> bool {
    let set = |daemon: &mut Daemon| {
        // As a grandchild, so that the traced program is the child that can be asked how it ended.
        let words = ["strace", "-D", "-f", "-qq", "-o", "/dev/null", "-e"].map(str::to_owned);
        let inject = [format!("trace={call}"), "-e".to_owned(), format!("inject={call}:signal=SIGKILL:when={at}")];
        daemon.under = words.into_iter().chain(inject).collect();
    };
    one_fault(set, row)
}

pub fn every_call(scale: &Scale) -> Row {
    if !works() {
        return Row::skipped("strace is not here, or may not trace; row C2 kills by a preloaded library");
    }
    let (mut row, mut counts) = (Row::default(), Vec::new());
    for call in CALLS {
        let (beyond, found) = if scale.long {
            each_call(scale.at_once(), 1, |at, row| at <= MOST && killed_at(call, at, row))
        } else {
            let mut row = Row::default();
            let met = killed_at(call, 1, &mut row);
            (if met { 2 } else { 1 }, row)
        };
        row.add(found);
        counts.push(format!("{call} {}", (beyond - 1).min(MOST)));
    }
    if row.recovery.is_empty() || counts.iter().any(|c| c == "fdatasync 0") {
        row.wrong.push(format!("no kill came: {counts:?}"));
    }
    row.note = format!("killed at {}", counts.join(", "));
    row
}
