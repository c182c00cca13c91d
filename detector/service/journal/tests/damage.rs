//! Torn commits, flipped bits, missing files, forged bytes: what is lost is named, the rest is read.

use std::fs;
use std::path::Path;

use super::super::recover::{recover, scan};
use super::super::segment::{
    BLOCK_HEAD, Block, HEADER_LEN, Header, Keys, PAGE, RECORD_HEAD, Slot, Stored, frame, slots,
};
use super::super::view::{Bound, View};
use super::*;

/// The blocks of a segment with their offsets, read independently of the code under test.
fn blocks(bytes: &[u8]) -> Vec<(u64, Block)> {
    let keys = Keys::new(&Header::decode(bytes).unwrap().salt);
    (HEADER_LEN..bytes.len() as u64)
        .step_by(PAGE as usize)
        .filter_map(|at| {
            let head = bytes.get(at as usize..at as usize + BLOCK_HEAD)?.try_into().ok()?;
            Some((at, Block::decode(head, &keys, at)?))
        })
        .collect()
}

/// Three single records and a group of four, closed: the last block is the mark.
fn sample(dir: &Path) -> Vec<u8> {
    let (journal, _) = open(dir);
    fill(&journal, 3);
    let group: Vec<_> = (4..=7).map(|lsn| ((lsn % 7) as u8, payload(lsn))).collect();
    assert_eq!(journal.append_all_blocking(group).unwrap(), Lsn(7));
    journal.close();
    let bytes = fs::read(last_segment(dir)).unwrap();
    assert_eq!(blocks(&bytes).iter().map(|(_, b)| b.n_records).filter(|n| *n > 0).collect::<Vec<_>>(), [1, 1, 1, 4]);
    bytes
}

#[test]
fn a_commit_torn_at_any_byte_is_gone_as_a_whole_and_nothing_else_is() {
    let dir = dir();
    let bytes = sample(dir.path());
    let path = last_segment(dir.path());
    let (at, group) = blocks(&bytes).into_iter().rfind(|(_, b)| b.n_records == 4).unwrap();
    let end = at + u64::from(group.len);
    let torn_here = |what: &str| {
        let found = scan(&View::open(&path, false).unwrap(), Bound::Open).unwrap();
        assert_eq!((found.next_lsn, found.end_at, &found.gaps[..]), (4, at, &[][..]), "{what}");
        let len = fs::metadata(&path).unwrap().len();
        assert_eq!(found.torn.map_or(0, |t| t.bytes), len - at, "{what}");
    };
    let file = OpenOptions::new().write(true).open(&path).unwrap();
    file.set_len(end.next_multiple_of(PAGE)).unwrap();
    for byte in at..end {
        let before = bytes[byte as usize];
        file.write_all_at(&[before ^ 1], byte).unwrap();
        torn_here(&format!("flip at {byte}"));
        file.write_all_at(&[before], byte).unwrap();
    }
    assert_eq!(scan(&View::open(&path, false).unwrap(), Bound::Open).unwrap().next_lsn, 8, "unharmed, it counts");
    for page in (at..end).step_by(PAGE as usize) {
        file.write_all_at(&[0; PAGE as usize], page).unwrap();
        torn_here(&format!("hole at {page}"));
        file.write_all_at(&bytes[page as usize..][..PAGE as usize], page).unwrap();
    }
    for cut in (at..end).rev() {
        file.set_len(cut).unwrap();
        torn_here(&format!("cut at {cut}"));
    }
}

#[test]
fn after_a_torn_commit_the_log_goes_on_in_a_new_segment() {
    let dir = dir();
    let bytes = sample(dir.path());
    let path = last_segment(dir.path());
    let (at, _) = blocks(&bytes).into_iter().rfind(|(_, b)| b.n_records == 4).unwrap();
    fs::write(&path, &bytes[..at as usize + 1000]).unwrap();
    let beside = everything(dir.path());
    assert_eq!(beside, (vec![1, 2, 3], vec![]), "a reader from outside ends at the last whole commit");

    let (journal, recovery) = open(dir.path());
    assert_eq!((recovery.last, &recovery.gaps[..]), (Lsn(3), &[][..]));
    assert_eq!(recovery.torn, Some(Torn { segment: Lsn(1), offset: at, bytes: 1000 }));
    let kept = fs::read(&recovery.quarantined[0]).unwrap();
    assert_eq!(kept, &bytes[at as usize..at as usize + 1000]);
    fill(&journal, 2);
    assert_eq!(drain(&mut journal.reader(Lsn(0))), ((1..=5).collect(), vec![]));
    journal.close();
    assert_eq!(fs::metadata(&path).unwrap().len(), at + 1000, "the recovered segment was not written to");
    assert_eq!(list_segments(dir.path()).unwrap().len(), 2);
    assert!(verify(dir.path()).unwrap().is_clean());
}

#[test]
fn a_segment_without_a_record_is_replaced_in_the_chain() {
    let dir = dir();
    for _ in 0..2 {
        let (journal, _) = open(dir.path());
        fill(&journal, 2);
    }
    OpenOptions::new().write(true).open(last_segment(dir.path())).unwrap().set_len(HEADER_LEN).unwrap();
    fs::write(dir.path().join("00000000000000000009.new"), b"half a header").unwrap();
    let (journal, recovery) = open(dir.path());
    assert_eq!(recovery, Recovery { last: Lsn(2), ..Recovery::default() });
    fill(&journal, 2);
    journal.close();
    assert_eq!(everything(dir.path()), ((1..=4).collect(), vec![]));
    assert_chained(dir.path());
    assert!(!dir.path().join("00000000000000000009.new").exists());
}

#[test]
fn neighbours_lost_together_are_one_gap() {
    let dir = dir();
    let bytes = sample(dir.path());
    let (at, _) = blocks(&bytes).into_iter().rfind(|(_, b)| b.n_records == 4).unwrap();
    let fourth = at + (BLOCK_HEAD + RECORD_HEAD) as u64;
    flip(&last_segment(dir.path()), fourth);
    flip(&last_segment(dir.path()), fourth + (payload(4).len() + RECORD_HEAD) as u64);
    assert_eq!(everything(dir.path()), (vec![1, 2, 3, 6, 7], vec![(4, 5)]));
}

#[test]
fn a_lost_mark_hides_no_commit_behind_it() {
    let dir = dir();
    let bytes = sample(dir.path());
    let path = last_segment(dir.path());
    let keys = Keys::new(&Header::decode(&bytes).unwrap().salt);
    let (mark, block) = blocks(&bytes).pop().unwrap();
    assert_eq!(block.n_records, 0);
    let mut last = Vec::new();
    frame(&mut last, &keys, mark + PAGE, 8, &[Stored::new(1, payload(8))]);
    let image = [&bytes[..mark as usize], &[0; PAGE as usize], &last].concat();
    fs::write(&path, image).unwrap();
    assert_eq!(everything(dir.path()), ((1..=8).collect(), vec![]));
    let (_, recovery) = open(dir.path());
    assert_eq!((recovery.last, recovery.gaps.len(), recovery.torn), (Lsn(8), 0, None));
}

#[test]
fn a_flipped_bit_anywhere_costs_at_most_the_record_it_is_in() {
    let dir = dir();
    let bytes = sample(dir.path());
    let path = last_segment(dir.path());
    let last_mark = blocks(&bytes).last().unwrap().0;
    let mut costly = 0;
    // With a mark behind the data it is damage also in the last segment; a following segment says the same.
    for sealed in [false, true] {
        if sealed {
            let (journal, _) = open(dir.path());
            fill(&journal, 1);
        }
        let n = if sealed { 8 } else { 7 };
        for at in (0..last_mark).step_by(5) {
            let mut image = bytes.clone();
            image[at as usize] ^= 1 << (at % 8);
            fs::write(&path, image).unwrap();
            let (good, lost) = everything(dir.path());
            match lost[..] {
                [] => assert_eq!(good, (1..=n).collect::<Vec<_>>(), "flip at {at}"),
                [(from, to)] => {
                    assert_eq!(from, to, "flip at {at}");
                    assert_eq!(good, (1..=n).filter(|lsn| *lsn != from).collect::<Vec<_>>(), "flip at {at}");
                    costly += 1;
                }
                _ => panic!("flip at {at} lost {lost:?}"),
            }
        }
    }
    assert!(costly > 1000, "{costly}");
}

#[test]
fn damage_to_acknowledged_records_is_reported_kept_and_survived() {
    let dir = dir();
    let bytes = sample(dir.path());
    let (at, _) = blocks(&bytes)[1];
    flip(&last_segment(dir.path()), at + 200);
    let (journal, recovery) = open(dir.path());
    assert_eq!(recovery.last, Lsn(7));
    let (from, to, cause) = (Lsn(2), Lsn(2), Loss::Damaged);
    assert_eq!(recovery.gaps, [Gap { from, to, cause, segment: Lsn(1), offset: at }]);
    assert_eq!((recovery.torn, recovery.quarantined.len()), (None, 1));
    assert_eq!(drain(&mut journal.reader(Lsn(0))), (vec![1, 3, 4, 5, 6, 7], vec![(2, 2)]));
    assert!(matches!(journal.get(Lsn(2)), Err(ReadError::Lost { from: Lsn(2), to: Lsn(2), cause: Loss::Damaged })));
    assert_eq!(journal.get(Lsn(3)).unwrap().unwrap().payload, payload(3));
    assert_eq!(journal.append_blocking(1, payload(8)).unwrap(), Lsn(8));
    assert_eq!(verify(dir.path()).unwrap().gaps, recovery.gaps);
}

#[test]
fn a_damaged_block_header_or_whole_page_hides_no_other_record() {
    let dir = dir();
    let bytes = sample(dir.path());
    let path = last_segment(dir.path());
    let (at, _) = blocks(&bytes)[1];
    flip(&path, at);
    assert_eq!(everything(dir.path()), ((1..=7).collect(), vec![]), "only the block header is damaged");
    let report = verify(dir.path()).unwrap();
    assert!(report.gaps.is_empty() && !report.is_clean(), "nothing is lost, and it is told: {report:?}");
    let mut image = bytes.clone();
    image[at as usize..(at + PAGE) as usize].fill(0);
    fs::write(&path, image).unwrap();
    assert_eq!(everything(dir.path()), (vec![1, 3, 4, 5, 6, 7], vec![(2, 2)]));
    let (journal, recovery) = open(dir.path());
    assert_eq!((recovery.last, recovery.gaps.len()), (Lsn(7), 1));
    assert_eq!(drain(&mut journal.reader(Lsn(1))), (vec![3, 4, 5, 6, 7], vec![(2, 2)]));
}

#[test]
fn a_missing_middle_segment_is_a_loud_gap() {
    let dir = dir();
    let (journal, _) = open(dir.path());
    fill(&journal, 200);
    journal.close();
    let segments = list_segments(dir.path()).unwrap();
    let (gone, next) = (segments[1].0, segments[2].0);
    fs::remove_file(segment_path(dir.path(), gone)).unwrap();
    let (journal, recovery) = open(dir.path());
    assert_eq!(recovery.last, Lsn(200));
    let [gap] = recovery.gaps[..] else { panic!("{recovery:?}") };
    assert_eq!((gap.from, gap.to, gap.cause), (Lsn(gone), Lsn(next - 1), Loss::Missing));
    let (good, lost) = drain(&mut journal.reader(Lsn(0)));
    assert_eq!((good.len() as u64, lost), (200 - (next - gone), vec![(gone, next - 1)]));
    assert!(matches!(journal.get(Lsn(gone)), Err(ReadError::Lost { cause: Loss::Missing, .. })));
    assert_eq!(verify(dir.path()).unwrap().gaps, [gap]);
}

#[test]
fn a_segment_that_disappears_under_a_running_journal_is_a_gap_too() {
    let dir = dir();
    let (journal, _) = open(dir.path());
    fill(&journal, 200);
    let segments = list_segments(dir.path()).unwrap();
    fs::remove_file(segment_path(dir.path(), segments[1].0)).unwrap();
    assert_eq!(drain(&mut journal.reader(Lsn(0))).1, [(segments[1].0, segments[2].0 - 1)]);
}

#[test]
fn a_segment_cut_short_after_it_was_sealed_is_a_gap() {
    let dir = dir();
    let (journal, _) = open(dir.path());
    fill(&journal, 200);
    let segments = list_segments(dir.path()).unwrap();
    let path = segment_path(dir.path(), segments[1].0);
    let bytes = fs::read(&path).unwrap();
    let (cut, block) = blocks(&bytes)[4];
    fs::write(&path, &bytes[..cut as usize + 50]).unwrap();
    let lost = vec![(block.first_lsn, segments[2].0 - 1)];
    assert_eq!(drain(&mut journal.reader(Lsn(0))).1, lost);
    assert_eq!(everything(dir.path()).1, lost);
}

#[test]
fn one_header_page_is_enough_and_without_both_no_number_is_used_twice() {
    let dir = dir();
    let (journal, _) = open(dir.path());
    fill(&journal, 200);
    journal.close();
    let path = last_segment(dir.path());
    let first = list_segments(dir.path()).unwrap().last().unwrap().0;
    for at in [20, PAGE + 20] {
        flip(&path, at);
        assert_eq!(everything(dir.path()), ((1..=200).collect(), vec![]));
        assert!(!verify(dir.path()).unwrap().is_clean());
        flip(&path, at);
    }
    assert!(verify(dir.path()).unwrap().is_clean());
    flip(&path, 20);
    flip(&path, PAGE + 20);
    let (recovery, _) = recover(dir.path()).unwrap();
    assert_eq!(recovery.gaps.len(), 1);
    assert_eq!(recovery.gaps[0].from, Lsn(first));
    assert!(recovery.last >= Lsn(200));
    let (journal, again) = open(dir.path());
    assert_eq!(again, recovery, "recovering twice finds the same");
    let next = journal.append_blocking(0, vec![1]).unwrap();
    assert_eq!(next, Lsn(recovery.last.0 + 1));
    assert_eq!(journal.get(next).unwrap().unwrap().payload, [1]);
    let mut reader = journal.reader(Lsn(first - 1));
    let Err(ReadError::Lost { from, to, cause: Loss::Damaged }) = reader.next() else { panic!() };
    assert_eq!((from, to), (Lsn(first), recovery.last));
}

#[test]
fn what_the_disk_cannot_read_is_lost_once_and_stalls_nobody() {
    let dir = dir();
    let bytes = sample(dir.path());
    let (journal, _) = open(dir.path());
    // In the next segment, where it ends before the bad places: those are offsets in any segment.
    fill(&journal, 1);
    // The second record's payload; then the whole page its block starts on; then both header pages.
    let (at, _) = blocks(&bytes)[1];
    for (bad, lost) in [(at + 100..at + 101, (2, 2)), (at..at + PAGE, (2, 2)), (0..HEADER_LEN, (1, 7))] {
        let mut reader = journal.reader(Lsn(0));
        BAD.set(Some(bad.clone()));
        let report = verify(dir.path());
        let good: Vec<u64> = (1..=8).filter(|lsn| !(lost.0..=lost.1).contains(lsn)).collect();
        if bad.start > 0 {
            assert_eq!(drain(&mut reader), (good, vec![lost]), "{bad:?}");
            assert!(!report.unwrap().is_clean());
        } else {
            assert_eq!(drain(&mut reader).1[0], lost);
        }
        BAD.set(None);
    }
    assert_eq!(drain(&mut journal.reader(Lsn(0))), ((1..=8).collect(), vec![]), "a disk that reads again");
}

#[test]
fn a_scrub_goes_through_the_closed_segments_and_sees_what_verify_sees() {
    let dir = dir();
    let (journal, _) = open(dir.path());
    fill(&journal, 200);
    let segments = list_segments(dir.path()).unwrap();
    let bad = segments[2].0;
    flip(&segment_path(dir.path(), bad), HEADER_LEN + 200);
    fs::remove_file(segment_path(dir.path(), segments[4].0)).unwrap();
    let (mut at, mut seen, mut found) = (Lsn(0), 0, Vec::new());
    while let Some((last, report)) = journal.scrub(at).unwrap() {
        (at, seen) = (last, seen + 1);
        found.extend(report.gaps.iter().map(|g| (g.from.0, g.to.0, g.cause)));
    }
    assert_eq!((seen, at.0), (segments.len() - 1, segments.last().unwrap().0 - 1));
    assert_eq!(found, [(bad, bad, Loss::Damaged), (segments[4].0, segments[5].0 - 1, Loss::Missing)]);
    let by_size = Retention { max_bytes: Some(1), ..Retention::default() };
    journal.trim(Lsn(200), by_size).unwrap();
    assert_eq!(journal.scrub(Lsn(0)).unwrap(), None, "retention is no damage");
}

#[test]
fn verify_sees_bytes_that_were_changed_where_no_checksum_looks() {
    let dir = dir();
    sample(dir.path());
    let path = last_segment(dir.path());
    let (journal, _) = open(dir.path());
    fill(&journal, 1);
    journal.close();
    let padding = blocks(&fs::read(&path).unwrap())[0];
    flip(&path, padding.0 + PAGE - 1);
    let report = verify(dir.path()).unwrap();
    assert_eq!(report.gaps, []);
    assert_eq!(report.segments.iter().map(|s| s.changed).collect::<Vec<_>>(), [true, false]);
}

#[test]
fn bytes_of_a_real_block_inside_a_payload_fool_nobody() {
    let dir = dir();
    let (journal, _) = open(dir.path());
    fill(&journal, 2);
    let path = last_segment(dir.path());
    let (journal_bytes, page) = (fs::read(&path).unwrap(), PAGE as usize);
    // Noise does not compress, so the copies lie on page boundaries, where recovery looks for blocks.
    let mut forged = noise(3, page - BLOCK_HEAD - RECORD_HEAD);
    for (at, block) in blocks(&journal_bytes).into_iter().filter(|(_, b)| b.n_records > 0) {
        forged.extend(&journal_bytes[at as usize..][..block.len as usize]);
        forged.extend(noise(at, page - block.len as usize));
    }
    journal.append_blocking(3, forged.clone()).unwrap();
    journal.close();
    let bytes = fs::read(&path).unwrap();
    let (at, block) = blocks(&bytes).into_iter().rfind(|(_, b)| b.n_records == 1).unwrap();
    assert!(bytes[at as usize + page..].starts_with(&forged[page - BLOCK_HEAD - RECORD_HEAD..]), "not compressed");

    // The commit is torn: nothing in it may count as a later block.
    let mut image = bytes[..(at + u64::from(block.len)) as usize].to_vec();
    image[at as usize..at as usize + 8].fill(0);
    fs::write(&path, &image).unwrap();
    let (found, _) = recover(dir.path()).unwrap();
    assert_eq!((found.last, found.gaps.len(), found.torn.map(|t| t.offset)), (Lsn(2), 0, Some(at)));
    // It was acknowledged, and its block header is damaged: the record itself is found, and only it.
    let mut image = bytes.clone();
    image[at as usize] ^= 1;
    fs::write(&path, &image).unwrap();
    let mut reader = open_read_only(dir.path()).unwrap().reader(Lsn(2));
    assert_eq!(reader.next().unwrap().unwrap().payload, forged);
    assert!(reader.next().unwrap().is_none());
}

#[test]
fn records_and_blocks_are_bound_to_their_place_and_segment() {
    let (keys, other) = (Keys::new(&[1; 16]), Keys::new(&[2; 16]));
    let records: Vec<_> = (0..3).map(|n| Stored::new(1, noise(n, 100))).collect();
    let mut bytes = Vec::new();
    frame(&mut bytes, &keys, HEADER_LEN, 10, &records);
    let all_lost = [Slot::Lost { from: 10, to: 12 }];
    assert_eq!(slots(&keys, &bytes, HEADER_LEN, 10, 13).len(), 3);
    assert_eq!(slots(&keys, &bytes, HEADER_LEN + PAGE, 10, 13), all_lost);
    assert_eq!(slots(&other, &bytes, HEADER_LEN, 10, 13), all_lost);
    let head = bytes[..BLOCK_HEAD].try_into().unwrap();
    assert!(Block::decode(head, &keys, HEADER_LEN).is_some());
    assert!(Block::decode(head, &keys, HEADER_LEN + PAGE).is_none());
    assert!(Block::decode(head, &other, HEADER_LEN).is_none());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn whatever_happens_to_the_files_reading_never_invents_or_panics(
        damage in prop::collection::vec((0usize..60_000, prop::collection::vec(any::<u8>(), 1..200)), 1..6),
        cut in prop::option::of(0usize..60_000),
    ) {
        let dir = dir();
        let (journal, _) = Journal::open(dir.path(), Options { sync: false, ..small() }).unwrap();
        fill(&journal, 12);
        journal.close();
        let path = last_segment(dir.path());
        let mut bytes = fs::read(&path).unwrap();
        for (at, with) in damage {
            for (i, b) in with.into_iter().enumerate() {
                if let Some(byte) = bytes.get_mut(at + i) { *byte = b; }
            }
        }
        bytes.truncate(cut.unwrap_or(usize::MAX));
        fs::write(&path, bytes).unwrap();
        let _ = everything_or_error(dir.path());
        let (journal, recovery) = open(dir.path());
        let (good, lost) = drain(&mut journal.reader(Lsn(0)));
        let mut covered = good.clone();
        lost.iter().for_each(|(from, to)| covered.extend(*from..=*to));
        covered.sort_unstable();
        prop_assert_eq!(&covered, &(1..=recovery.last.0).collect::<Vec<_>>(), "each number is read or lost, once");
        let next = journal.append_blocking(0, vec![7]).unwrap();
        prop_assert_eq!(next, Lsn(recovery.last.0 + 1));
        prop_assert_eq!(journal.get(next).unwrap().unwrap().payload, vec![7]);
        verify(dir.path()).unwrap();
    }
}

/// Reads beside no writer; a last segment without any header is an error that stays one.
fn everything_or_error(dir: &Path) -> Result<usize, ReadError> {
    let mut reader = open_read_only(dir).unwrap().reader(Lsn(0));
    let mut n = 0;
    loop {
        match reader.next() {
            Ok(Some(_)) | Err(ReadError::Lost { .. }) => n += 1,
            Ok(None) => return Ok(n),
            Err(e) => return Err(e),
        }
    }
}
