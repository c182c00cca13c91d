//! Tests of the whole journal: what goes in comes out, from inside and beside it. Damage and failing disks have
//! files of their own.

mod cursor;
mod damage;
mod faults;
mod power;

use std::cell::RefCell;
use std::fs::{self, OpenOptions};
use std::ops::Range;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use proptest::prelude::*;
use tempfile::TempDir;

use super::disk::{list_segments, segment_path};
use super::*;

thread_local! {
    /// Where reads of this thread fail, as offsets in any segment.
    static BAD: RefCell<Option<Range<u64>>> = const { RefCell::new(None) };
}

pub(super) fn is_bad(at: u64, len: usize) -> bool {
    BAD.with_borrow(|bad| bad.as_ref().is_some_and(|bad| at < bad.end && at + len as u64 > bad.start))
}

fn small() -> Options {
    Options { segment_bytes: 64 << 10, ..Options::default() }
}

fn dir() -> TempDir {
    tempfile::tempdir().unwrap()
}

fn open(dir: &Path) -> (Journal, Recovery) {
    Journal::open(dir, small()).unwrap()
}

/// Bytes that do not compress, so that sizes and places on disk are known. Equal numbers give equal bytes.
fn noise(n: u64, len: usize) -> Vec<u8> {
    let mut out = vec![0; len];
    blake3::Hasher::new().update(&n.to_le_bytes()).finalize_xof().fill(&mut out);
    out
}

/// The payload used for an LSN all over these tests.
fn payload(lsn: u64) -> Vec<u8> {
    noise(lsn, 300 + (lsn as usize * 97) % 900)
}

/// Appends `n` records, one commit each.
fn fill(journal: &Journal, n: u64) {
    for _ in 0..n {
        let next = journal.durable().0 + 1;
        assert_eq!(journal.append_blocking((next % 7) as u8, payload(next)).unwrap(), Lsn(next));
    }
}

/// Everything a reader answers until it is caught up: LSNs read, ranges lost. Checks payloads and order.
fn drain(reader: &mut Reader) -> (Vec<u64>, Vec<(u64, u64)>) {
    let (mut good, mut lost) = (Vec::new(), Vec::new());
    loop {
        match reader.next() {
            Ok(Some(record)) => {
                assert_eq!(record.payload, payload(record.lsn.0), "payload of {}", record.lsn);
                assert_eq!(u64::from(record.kind), record.lsn.0 % 7);
                good.push(record.lsn.0);
            }
            Ok(None) => return (good, lost),
            Err(ReadError::Lost { from, to, .. }) => lost.push((from.0, to.0)),
            Err(e) => panic!("{e}"),
        }
    }
}

fn everything(dir: &Path) -> (Vec<u64>, Vec<(u64, u64)>) {
    drain(&mut open_read_only(dir).unwrap().reader(Lsn(0)))
}

fn last_segment(dir: &Path) -> PathBuf {
    segment_path(dir, list_segments(dir).unwrap().last().unwrap().0)
}

/// Every segment names the one before it, with a hash that holds.
fn assert_chained(dir: &Path) {
    assert!(verify(dir).unwrap().is_clean());
    let mut before = 0;
    for (first, _) in list_segments(dir).unwrap() {
        let header = segment::Header::decode(&fs::read(segment_path(dir, first)).unwrap()).unwrap();
        assert_eq!((header.first_lsn, header.previous.first), (first, before));
        before = first;
    }
}

fn flip(path: &Path, at: u64) {
    let file = OpenOptions::new().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 0x10], at).unwrap();
}

#[test]
fn what_was_appended_is_read_back_in_order_across_segments_and_restarts() {
    let dir = dir();
    for round in 0..3u64 {
        let (journal, recovery) = open(dir.path());
        assert_eq!(recovery, Recovery { last: Lsn(round * 150), ..Recovery::default() });
        fill(&journal, 150);
        assert_eq!(drain(&mut journal.reader(Lsn(0))), ((1..=(round + 1) * 150).collect(), vec![]));
        assert_eq!(drain(&mut journal.reader(Lsn(37))).0[0], 38);
        journal.close();
    }
    assert!(list_segments(dir.path()).unwrap().len() > 5);
    assert_eq!(everything(dir.path()), ((1..=450).collect(), vec![]));
    let report = verify(dir.path()).unwrap();
    assert!(report.is_clean() && report.torn.is_none(), "{report:?}");
    assert_chained(dir.path());
    assert_eq!(report.segments.iter().map(|s| s.records).sum::<u64>(), 450);
}

#[test]
fn compressible_empty_and_huge_payloads_survive() {
    let dir = dir();
    let (journal, _) = open(dir.path());
    let payloads = [vec![], b"{}".to_vec(), vec![b'a'; 1 << 20], noise(1, 300_000)];
    journal.append_all_blocking(payloads.iter().map(|p| (9, p.clone())).collect()).unwrap();
    let mut reader = journal.reader(Lsn(0));
    for (i, payload) in payloads.iter().enumerate() {
        let record = reader.next().unwrap().unwrap();
        assert_eq!((record.lsn, record.kind), (Lsn(i as u64 + 1), 9));
        assert!(record.payload == *payload);
    }
    assert!(reader.next().unwrap().is_none());
    assert!(journal.stat().bytes < 350_000, "the megabyte of `a` is compressed");
}

#[test]
fn files_are_private() {
    let parent = dir();
    let dir = parent.path().join("a/b");
    let (journal, _) = open(&dir);
    fill(&journal, 1);
    assert_eq!(fs::metadata(&dir).unwrap().permissions().mode() & 0o777, 0o700);
    for entry in fs::read_dir(&dir).unwrap() {
        let entry = entry.unwrap();
        assert_eq!(entry.metadata().unwrap().permissions().mode() & 0o777, 0o600, "{:?}", entry.file_name());
    }
}

#[test]
fn one_writer_at_a_time() {
    let dir = dir();
    let (journal, _) = open(dir.path());
    let reader = journal.reader(Lsn(0));
    assert!(matches!(Journal::open(dir.path(), small()), Err(Error::Locked { .. })));
    journal.close();
    assert!(Journal::open(dir.path(), small()).is_ok(), "a reader that is still around holds no lock");
    drop(reader);
}

#[test]
fn closing_drains_and_then_refuses() {
    let dir = dir();
    let (journal, _) = open(dir.path());
    let other = journal.clone();
    fill(&journal, 3);
    journal.close();
    assert!(matches!(other.append_blocking(0, vec![]), Err(AppendError::Closed)));
    assert_eq!(other.durable(), Lsn(3));
}

#[test]
fn concurrent_appends_get_distinct_numbers_and_share_commits() {
    let dir = dir();
    let (journal, _) = open(dir.path());
    let all: Vec<(Lsn, Vec<u8>)> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8u64)
            .map(|t| {
                let journal = journal.clone();
                scope.spawn(move || {
                    let append = |i| {
                        let p = noise(t * 1000 + i, 200);
                        (journal.append_blocking(1, p.clone()).unwrap(), p)
                    };
                    (0..40).map(append).collect::<Vec<_>>()
                })
            })
            .collect();
        threads.into_iter().flat_map(|t| t.join().unwrap()).collect()
    });
    assert_eq!(journal.durable(), Lsn(320));
    for (lsn, payload) in all {
        assert_eq!(journal.get(lsn).unwrap().unwrap().payload, payload);
    }
    assert!(journal.stat().syncs < 320, "{:?}", journal.stat());
}

#[tokio::test(flavor = "multi_thread")]
async fn async_appends_resolve_when_durable() {
    let dir = dir();
    let (journal, _) = open(dir.path());
    for n in 1..=20 {
        let lsn = journal.append((n % 7) as u8, payload(n)).await.unwrap();
        assert!(journal.durable() >= lsn);
    }
    assert_eq!(everything(dir.path()).0.len(), 20);
    let big = journal.append(0, vec![0; MAX_APPEND + 1]).await;
    assert!(matches!(big, Err(AppendError::TooLarge { .. })));
}

#[test]
fn a_reader_follows_the_writer() {
    let dir = dir();
    let (journal, _) = open(dir.path());
    let mut inside = journal.reader(Lsn(0));
    let (done, beside) = (AtomicBool::new(false), open_read_only(dir.path()).unwrap());
    std::thread::scope(|scope| {
        scope.spawn(|| {
            fill(&journal, 300);
            done.store(true, Ordering::Release);
        });
        scope.spawn(|| {
            let (mut seen, mut reader) = (Vec::new(), beside.reader(Lsn(0)));
            while seen.len() < 300 {
                let over = done.load(Ordering::Acquire);
                let (good, lost) = drain(&mut reader);
                assert_eq!(lost, []);
                seen.extend(good);
                assert!(!over || seen.len() == 300, "ends at {}", seen.len());
            }
            assert_eq!(seen, (1..=300).collect::<Vec<_>>());
        });
        let mut at = 0;
        while at < 300 {
            assert!(journal.wait_past(Lsn(at), Duration::from_secs(30)) > Lsn(at));
            let (good, lost) = drain(&mut inside);
            assert_eq!((good[0], lost), (at + 1, vec![]));
            at += good.len() as u64;
            assert_eq!(inside.position(), Lsn(at));
        }
    });
    assert_eq!(journal.wait_past(Lsn(300), Duration::ZERO), Lsn(300));
}

#[test]
fn get_finds_any_record_and_nothing_else() {
    let dir = dir();
    let (journal, _) = open(dir.path());
    fill(&journal, 120);
    let group: Vec<_> = (121..=140).map(|lsn| ((lsn % 7) as u8, payload(lsn))).collect();
    assert_eq!(journal.append_all_blocking(group).unwrap(), Lsn(140));
    assert_eq!(journal.append_all_blocking(vec![]).unwrap(), Lsn(140));
    let beside = open_read_only(dir.path()).unwrap();
    for lsn in 1..=140 {
        let inside = journal.get(Lsn(lsn)).unwrap().unwrap();
        assert_eq!((inside.lsn, &inside.payload), (Lsn(lsn), &payload(lsn)));
        assert_eq!(beside.get(Lsn(lsn)).unwrap().unwrap(), inside);
    }
    assert_eq!(drain(&mut beside.reader(Lsn(130))), ((131..=140).collect(), vec![]), "from inside a group");
    for lsn in [0, 141, u64::MAX] {
        assert_eq!(beside.get(Lsn(lsn)).unwrap(), None);
        assert_eq!(journal.get(Lsn(lsn)).unwrap(), None);
    }
}

#[test]
fn trim_deletes_whole_old_segments_only() {
    let dir = dir();
    let (journal, _) = open(dir.path());
    fill(&journal, 200);
    let segments = list_segments(dir.path()).unwrap();
    let by_size = Retention { max_bytes: Some(1), ..Retention::default() };
    assert_eq!(journal.trim(Lsn(0), by_size).unwrap(), Trimmed::default(), "a reader still needs all of it");
    assert_eq!(journal.trim(Lsn(200), Retention::default()).unwrap(), Trimmed::default(), "no limit");

    let by_age = Retention { max_age: Some(Duration::from_secs(3600)), ..Retention::default() };
    assert_eq!(journal.trim(Lsn(200), by_age).unwrap().segments, 0);
    let old = OpenOptions::new().write(true).open(segment_path(dir.path(), 1)).unwrap();
    old.set_modified(SystemTime::now() - Duration::from_secs(7200)).unwrap();
    assert_eq!(journal.trim(Lsn(200), by_age).unwrap().segments, 1);

    let (second, third) = (segments[1].0, segments[2].0);
    assert_eq!(journal.trim(Lsn(third - 2), by_size).unwrap().segments, 0);
    assert_eq!(journal.trim(Lsn(third - 1), by_size).unwrap().segments, 1);
    assert_eq!(journal.stat().first, Lsn(third));
    let (good, lost) = drain(&mut journal.reader(Lsn(0)));
    assert_eq!((good, lost), ((third..=200).collect(), vec![(1, third - 1)]));
    assert_eq!(journal.get(Lsn(second)).unwrap(), None);

    journal.trim(Lsn(200), by_size).unwrap();
    assert_eq!(journal.stat().segments, 1, "the newest stays: it knows the numbers");
    journal.close();
    assert_eq!(open(dir.path()).1, Recovery { last: Lsn(200), ..Recovery::default() });
}

#[test]
fn a_newer_format_is_left_alone() {
    let dir = dir();
    let (journal, _) = open(dir.path());
    fill(&journal, 2);
    journal.close();
    let path = last_segment(dir.path());
    let mut bytes = fs::read(&path).unwrap();
    for page in bytes.chunks_mut(4096).take(2) {
        page[12] = 9;
        let crc = crc32fast::hash(&page[..100]);
        page[100..104].copy_from_slice(&crc.to_le_bytes());
    }
    fs::write(&path, bytes).unwrap();
    assert!(matches!(Journal::open(dir.path(), small()), Err(Error::Newer { format: 9, .. })));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn any_appends_in_any_groups_come_back(
        runs in prop::collection::vec(
            prop::collection::vec(prop::collection::vec((any::<u8>(), 0usize..6000, any::<bool>()), 1..6), 0..8), 1..4),
    ) {
        let dir = dir();
        let mut expected = Vec::new();
        for groups in runs {
            let (journal, recovery) = Journal::open(dir.path(), Options { sync: false, ..small() }).unwrap();
            prop_assert_eq!(recovery, Recovery { last: Lsn(expected.len() as u64), ..Recovery::default() });
            for group in groups {
                let group: Vec<_> = group.into_iter().map(|(kind, len, plain)| {
                    (kind, if plain { vec![kind; len] } else { noise(len as u64, len) })
                }).collect();
                expected.extend(group.iter().cloned());
                prop_assert_eq!(journal.append_all_blocking(group).unwrap(), Lsn(expected.len() as u64));
            }
        }
        let mut reader = open_read_only(dir.path()).unwrap().reader(Lsn(0));
        for (kind, payload) in expected {
            let record = reader.next().unwrap().unwrap();
            prop_assert_eq!((record.kind, record.payload), (kind, payload));
        }
        prop_assert!(reader.next().unwrap().is_none());
    }
}
