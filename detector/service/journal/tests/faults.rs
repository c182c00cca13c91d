//! Disks that fail, fill up, hang or lose power. Every fault is injected at the writer's own disk operations.

use std::collections::{HashSet, VecDeque};
use std::fs::File;
use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::sync::mpsc;
use std::sync::{Arc, Mutex};

use super::super::disk::Disk;
use super::*;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    /// Half of it is written.
    Write(ErrorKind),
    Sync(ErrorKind),
    /// No fault: the one to come is for a later sync.
    SyncWell,
    Reserve(ErrorKind),
    /// Cannot be undone after a failed write.
    Truncate,
}

/// A real disk with faults to come, in order of their kind of operation.
#[derive(Clone, Default)]
struct Faulty {
    faults: Arc<Mutex<VecDeque<Fault>>>,
    /// Files whose sync failed once: touching them again is the mistake to catch.
    poisoned: Arc<Mutex<HashSet<u64>>>,
}

impl Faulty {
    fn expect(&self, faults: &[Fault]) {
        self.faults.lock().unwrap().extend(faults);
    }

    fn hits(&self, matches: impl Fn(&Fault) -> bool) -> Option<Fault> {
        let mut faults = self.faults.lock().unwrap();
        if faults.front().is_some_and(matches) { faults.pop_front() } else { None }
    }

    fn assert_healthy(&self, file: &File) {
        let ino = file.metadata().unwrap().ino();
        assert!(!self.poisoned.lock().unwrap().contains(&ino), "a segment was used after its sync failed");
    }
}

impl Disk for Faulty {
    fn create(&self, path: &Path) -> io::Result<File> {
        let file = RealDisk.create(path)?;
        // The number of a deleted file may be given to a new one.
        self.poisoned.lock().unwrap().remove(&file.metadata()?.ino());
        Ok(file)
    }

    fn reserve(&self, _: &File, _: u64) -> io::Result<()> {
        match self.hits(|f| matches!(f, Fault::Reserve(_))) {
            Some(Fault::Reserve(kind)) => Err(kind.into()),
            _ => Ok(()),
        }
    }

    fn write_at(&self, file: &File, bytes: &[u8], at: u64) -> io::Result<()> {
        self.assert_healthy(file);
        match self.hits(|f| matches!(f, Fault::Write(_))) {
            Some(Fault::Write(kind)) => file.write_all_at(&bytes[..bytes.len() / 2], at).and(Err(kind.into())),
            _ => file.write_all_at(bytes, at),
        }
    }

    fn truncate(&self, file: &File, len: u64) -> io::Result<()> {
        match self.hits(|f| *f == Fault::Truncate) {
            Some(_) => Err(ErrorKind::Other.into()),
            None => file.set_len(len),
        }
    }

    fn sync(&self, file: &File) -> io::Result<()> {
        self.assert_healthy(file);
        match self.hits(|f| matches!(f, Fault::Sync(_) | Fault::SyncWell)) {
            Some(Fault::Sync(kind)) => {
                self.poisoned.lock().unwrap().insert(file.metadata().unwrap().ino());
                Err(kind.into())
            }
            _ => Ok(()),
        }
    }
}

fn open_faulty(dir: &Path) -> (Journal, Faulty) {
    let disk = Faulty::default();
    (Journal::open_on(dir, small(), Box::new(disk.clone())).unwrap().0, disk)
}

const FULL: ErrorKind = ErrorKind::StorageFull;
const BROKEN: ErrorKind = ErrorKind::Other;

fn assert_whole(dir: &Path, journal: Journal, n: u64) {
    assert_eq!(drain(&mut journal.reader(Lsn(0))), ((1..=n).collect(), vec![]));
    assert!(!journal.stat().failing);
    journal.close();
    assert_eq!(everything(dir), ((1..=n).collect(), vec![]));
    assert_chained(dir);
    assert_eq!(open(dir).1, Recovery { last: Lsn(n), ..Recovery::default() });
}

#[test]
fn a_full_disk_refuses_and_later_appends_work_again() {
    let dir = dir();
    let (journal, disk) = open_faulty(dir.path());
    fill(&journal, 3);
    disk.expect(&[Fault::Write(FULL), Fault::Write(FULL)]);
    for _ in 0..2 {
        let refused = journal.append_blocking(0, payload(4));
        assert!(matches!(refused, Err(AppendError::NoSpace { .. })), "{refused:?}");
        assert!(journal.stat().failing);
        assert_eq!((journal.durable(), journal.stat().queued_bytes), (Lsn(3), 0));
    }
    fill(&journal, 3);
    assert_eq!(list_segments(dir.path()).unwrap().len(), 1, "the same segment goes on");
    assert_whole(dir.path(), journal, 6);
}

#[test]
fn a_journal_nobody_writes_to_finds_out_that_the_disk_is_well_again() {
    let dir = dir();
    let (journal, disk) = open_faulty(dir.path());
    fill(&journal, 3);
    disk.expect(&[Fault::Write(FULL)]);
    assert!(journal.append_blocking(0, payload(4)).is_err() && journal.stat().failing);
    let started = std::time::Instant::now();
    while journal.stat().failing {
        assert!(started.elapsed().as_secs() < 30, "it never noticed");
        std::thread::park_timeout(std::time::Duration::from_millis(20));
    }
    assert_whole(dir.path(), journal, 3);
}

#[test]
fn a_disk_too_full_for_a_new_segment_refuses_and_recovers() {
    let dir = dir();
    let (journal, disk) = open_faulty(dir.path());
    disk.expect(&[Fault::Reserve(FULL)]);
    assert!(matches!(journal.append_blocking(0, vec![]), Err(AppendError::NoSpace { .. })));
    assert_eq!(list_segments(dir.path()).unwrap(), []);
    fill(&journal, 2);
    assert_whole(dir.path(), journal, 2);
}

#[test]
fn after_a_failed_sync_the_commit_is_rewritten_in_a_new_segment() {
    let dir = dir();
    let (journal, disk) = open_faulty(dir.path());
    let mut reader = journal.reader(Lsn(0));
    fill(&journal, 3);
    assert_eq!(drain(&mut reader).0.len(), 3);
    disk.expect(&[Fault::Sync(BROKEN)]);
    fill(&journal, 1);
    assert_eq!(drain(&mut reader), (vec![4], vec![]));
    assert_eq!(list_segments(dir.path()).unwrap().iter().map(|s| s.0).collect::<Vec<_>>(), [1, 4]);
    fill(&journal, 2);
    assert_eq!(drain(&mut reader), (vec![5, 6], vec![]));
    assert_whole(dir.path(), journal, 6);
}

#[test]
fn the_rewrite_may_fail_at_the_header_or_at_its_first_commit() {
    for faults in
        [&[Fault::Sync(BROKEN), Fault::Sync(FULL)][..], &[Fault::Sync(BROKEN), Fault::SyncWell, Fault::Sync(FULL)]]
    {
        let dir = dir();
        let (journal, disk) = open_faulty(dir.path());
        fill(&journal, 2);
        disk.expect(faults);
        let mut beside = open_read_only(dir.path()).unwrap().reader(Lsn(0));
        assert!(matches!(journal.append_blocking(0, payload(9)), Err(AppendError::NoSpace { .. })));
        assert_eq!(drain(&mut beside), (vec![1, 2], vec![]));
        fill(&journal, 1);
        assert_eq!(drain(&mut beside), (vec![3], vec![]), "also when the file was replaced under it");
        assert_whole(dir.path(), journal, 3);
    }
}

#[test]
fn a_write_that_cannot_be_undone_ends_the_segment() {
    let dir = dir();
    let (journal, disk) = open_faulty(dir.path());
    fill(&journal, 2);
    // The second truncate is the attempt when the segment is given up: the half commit stays in the file.
    disk.expect(&[Fault::Write(FULL), Fault::Truncate, Fault::Truncate]);
    assert!(matches!(journal.append_blocking(0, payload(9)), Err(AppendError::NoSpace { .. })));
    fill(&journal, 2);
    disk.expect(&[Fault::Write(BROKEN), Fault::Truncate, Fault::Truncate]);
    fill(&journal, 2);
    assert_eq!(list_segments(dir.path()).unwrap().iter().map(|s| s.0).collect::<Vec<_>>(), [1, 3, 5]);
    assert_whole(dir.path(), journal, 6);
}

#[test]
fn a_commit_refused_twice_is_refused_to_all_who_wait_and_not_in_the_log() {
    let dir = dir();
    let (journal, disk) = open_faulty(dir.path());
    fill(&journal, 2);
    disk.expect(&[Fault::Sync(BROKEN), Fault::SyncWell, Fault::Sync(BROKEN)]);
    let refused = journal.append_all_blocking(vec![(0, payload(9)), (0, payload(10))]);
    assert!(matches!(refused, Err(AppendError::Io { .. })), "{refused:?}");
    fill(&journal, 4);
    assert_whole(dir.path(), journal, 6);
}

/// Writes wait for a word.
struct Gated(Mutex<mpsc::Receiver<()>>);

impl Disk for Gated {
    fn sync(&self, _: &File) -> io::Result<()> {
        self.0.lock().unwrap().recv().map_err(io::Error::other)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_queue_answers_busy_or_waits() {
    let dir = dir();
    let (go, gate) = mpsc::channel();
    let options = Options { queue_bytes: 10_000, ..small() };
    let (journal, _) = Journal::open_on(dir.path(), options, Box::new(Gated(Mutex::new(gate)))).unwrap();
    let big = tokio::spawn({
        let journal = journal.clone();
        async move { journal.append(0, vec![0; 50_000]).await }
    });
    while journal.stat().queued_bytes == 0 {
        tokio::task::yield_now().await;
    }
    let busy = journal.append(0, vec![1]).await;
    assert!(matches!(busy, Err(AppendError::Busy { queued: 50_064 })), "{busy:?}");
    let waiting = tokio::task::spawn_blocking({
        let journal = journal.clone();
        move || journal.append_blocking(0, vec![2])
    });
    assert_eq!(journal.durable(), Lsn(0), "nothing is acknowledged before its sync");
    assert!(!big.is_finished() && !waiting.is_finished());
    (0..10).for_each(|_| go.send(()).unwrap());
    assert_eq!(big.await.unwrap().unwrap(), Lsn(1));
    assert_eq!(waiting.await.unwrap().unwrap(), Lsn(2));
    tokio::task::spawn_blocking(move || journal.close()).await.unwrap();
}
