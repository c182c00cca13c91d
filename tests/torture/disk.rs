//! Disks that are full, broken or slow.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use crate::crash::{shim, sweep};
use crate::daemon::{Daemon, post};
use crate::judge::{judge, takes};
use crate::sender::{Ledger, event, list};
use crate::{Row, Scale};

/// A file system of its own; gone when dropped.
struct Disk {
    at: PathBuf,
    kind: &'static str,
}

impl Disk {
    /// ext4 in a file where there are loop devices, in memory otherwise.
    fn mount(at: &Path, mib: u32) -> Option<Self> {
        std::fs::create_dir_all(at).ok()?;
        let done = |command: &mut Command| command.output().is_ok_and(|out| out.status.success());
        let image = at.with_extension("ext4");
        let made = std::fs::File::create(&image).and_then(|file| file.set_len(u64::from(mib) << 20)).is_ok()
            && done(Command::new("mkfs.ext4").args(["-q", "-F", "-m", "0"]).arg(&image))
            && done(Command::new("mount").args(["-t", "ext4", "-o", "loop"]).arg(&image).arg(at));
        if made {
            return Some(Self { at: at.to_owned(), kind: "ext4 on a loop device" });
        }
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &format!("size={mib}m"), "tmpfs"]).arg(at);
        done(&mut mount).then(|| Self { at: at.to_owned(), kind: "tmpfs" })
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.at).status();
    }
}

/// Within this a full disk is noticed.
const SEEN: Duration = Duration::from_secs(4);

/// Fills the file system up to `leave` bytes.
fn fill(dir: &Path, leave: u64) {
    let stat = rustix::fs::statvfs(dir).unwrap();
    let free = stat.f_bavail * stat.f_frsize;
    let file = std::fs::File::create(dir.join("filler")).unwrap();
    let _ = rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, free.saturating_sub(leave).max(1));
}

pub fn full(scale: &Scale) -> Row {
    let (mut row, mut luck, ledger) = (Row::default(), scale.luck(), Ledger::default());
    let dir = tempfile::tempdir().unwrap();
    let Some(disk) = Disk::mount(&dir.path().join("data"), 320) else {
        return Row::skipped("mounting a file system needs root");
    };
    let mut daemon = Daemon::prepare(dir.path(), "");
    let config = std::fs::read_to_string(daemon.config()).unwrap();
    let config = config.replace("minFree: 1MiB, reserve: 1MiB", "minFree: 8MiB, reserve: 4MiB");
    std::fs::write(daemon.config(), config).unwrap();
    daemon.run();
    let mut slowest = Duration::ZERO;
    for _ in 0..scale.of(4, 100) {
        // Some trials leave room that the levels see, some leave none at all.
        let left = [0, 4 << 10, 1 << 20, 12 << 20][luck.below(4)];
        fill(&disk.at, left);
        let (filled, mut more) = (Instant::now(), 10 + luck.below(20));
        while more > 0 && filled.elapsed() < SEEN {
            let asked = Instant::now();
            let taken = ledger.offer(daemon.webhook, ledger.take(5));
            slowest = slowest.max(asked.elapsed());
            // Where the levels must see it, until they do: the journal has room of its own for a while.
            more -= usize::from(!taken || left > 8 << 20);
            std::thread::park_timeout(Duration::from_millis(10));
        }
        std::fs::remove_file(disk.at.join("filler")).unwrap();
        takes(&daemon, &ledger, &mut row);
        row.trials += 1;
    }
    let refused = ledger.refused.lock().unwrap().clone();
    judge(&mut daemon, &ledger, &mut row);
    if !refused.contains_key(&503) {
        row.wrong.push("nothing was refused: the disk was never full".into());
    }
    if refused.keys().any(|code| *code != 503) {
        row.wrong.push(format!("answers besides 503: {refused:?}"));
    }
    let kind = disk.kind;
    row.note =
        format!("{kind}; {} × 503; slowest answer {:.1} s", refused.values().sum::<usize>(), slowest.as_secs_f64());
    row
}

pub fn every_eio(scale: &Scale) -> Row {
    sweep(scale, "eio", 53)
}

pub fn every_enospc(scale: &Scale) -> Row {
    sweep(scale, "enospc", 59)
}

/// Each sync takes so long; an answer still comes, and within twelve seconds.
pub fn slow(scale: &Scale) -> Row {
    let mut row = Row::default();
    let delays = if scale.long { vec![200, 1000, 2000, 5000, 9000, 11_000, 20_000] } else { vec![200, 11_000] };
    for delay in delays {
        let dir = tempfile::tempdir().unwrap();
        let (mut daemon, ledger) = (Daemon::prepare(dir.path(), ""), Ledger::default());
        daemon.env = vec![
            ("LD_PRELOAD".into(), shim().display().to_string()),
            ("LAPWING_FAULT".into(), format!("slow:{delay}")),
            ("LAPWING_FAULT_DIR".into(), format!("{}/journal", daemon.data_dir())),
        ];
        daemon.run();
        let asked = Instant::now();
        let code = post(daemon.webhook, "/audit/v1/prod", &list(&[event(0)])).map_or(0, |(code, _)| code);
        let expected = if delay < 5000 { 200 } else { 503 };
        // Creating the first file costs a sync of its own.
        if code != expected && !(delay == 5000 && code == 200) {
            row.wrong.push(format!("{delay} ms: answered {code}"));
        }
        if asked.elapsed() > Duration::from_secs(12) {
            row.wrong.push(format!("{delay} ms: answered after {:?}", asked.elapsed()));
        }
        daemon.kill();
        daemon.env.clear();
        daemon.run();
        takes(&daemon, &ledger, &mut row);
        // The event that was offered to the slow disk may be there or not: it was not promised, or it was.
        judge(&mut daemon, &ledger, &mut row);
        row.trials += 1;
    }
    row
}
