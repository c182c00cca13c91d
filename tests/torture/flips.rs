//! One flipped bit in each kind of file: it is noticed, or it changes nothing. What is read is never wrong.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use lapwing::journal::{CursorFile, Lsn, ReadError, open_read_only, verify};
use lapwing::pipeline::snapshot;
use lapwing::store::{Ask, Clock, Index, Order, Query};

use crate::daemon::{Daemon, PATIENCE};
use crate::judge::settle;
use crate::luck::Luck;
use crate::sender::Ledger;
use crate::{Row, Scale};

/// What became of a flip.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Became {
    /// Told, and what could be read was right.
    Noticed,
    /// Nothing told, and everything read as before.
    Harmless,
    /// Something else was read, and nothing told.
    Wrong,
}

type Look = fn(&Path) -> Option<String>;

pub fn flips(scale: &Scale) -> Row {
    let (mut row, mut luck) = (Row::default(), scale.luck());
    let ledger = Ledger::default();
    let mut daemon = Daemon::start("");
    for _ in 0..30 {
        ledger.deliver(daemon.webhook, 5, PATIENCE);
    }
    settle(&daemon);
    assert!(daemon.stop().success());
    let data = PathBuf::from(daemon.data_dir());
    let kinds: [(&str, &str, Look); 5] = [
        ("journal", ".wal", records),
        ("alerts", ".wal", records),
        ("state", ".snap", memory),
        ("outputs", ".cursor", position),
        ("index", "", hits),
    ];
    let mut sums = Vec::new();
    for (kind, end, look) in kinds {
        let mut sum = BTreeMap::new();
        for _ in 0..scale.of(60, 400) {
            let became = flip(&data.join(kind), end, look, &mut luck);
            *sum.entry(became).or_insert(0) += 1;
            row.trials += 1;
        }
        let of = |b| sum.get(&b).copied().unwrap_or_default();
        row.lost += of(Became::Wrong);
        sums.push(format!("{kind} {} noticed, {} without effect", of(Became::Noticed), of(Became::Harmless)));
    }
    row.checked = row.trials;
    row.note = format!("lost: wrong answers; {}", sums.join("; "));
    row
}

/// Flips one bit of one file in a copy of `dir` and looks at it.
fn flip(dir: &Path, end: &str, look: Look, luck: &mut Luck) -> Became {
    let before = look(dir).expect("undamaged");
    let copy = tempfile::tempdir().unwrap();
    let mut files = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let to = copy.path().join(path.file_name().unwrap());
        std::fs::copy(&path, &to).unwrap();
        let large = std::fs::metadata(&to).unwrap().len() > 0;
        files.extend((large && to.display().to_string().ends_with(end)).then_some(to));
    }
    files.sort();
    let file = &files[luck.below(files.len())];
    let mut bytes = std::fs::read(file).unwrap();
    let (mut at, bit) = (luck.below(bytes.len()), luck.below(8));
    if luck.below(2) == 0 {
        // Much of a file is padding: every second flip is somewhere else.
        let data: Vec<usize> = (0..bytes.len()).filter(|at| bytes[*at] != 0).collect();
        at = data[luck.below(data.len())];
    }
    bytes[at] ^= 1 << bit;
    std::fs::write(file, bytes).unwrap();
    match look(copy.path()) {
        None => Became::Noticed,
        Some(after) if after == before => Became::Harmless,
        Some(after) => {
            eprintln!("{} byte {at} bit {bit}:\nbefore {before}\nafter  {after}", file.display());
            Became::Wrong
        }
    }
}

/// All records by number. `None` when damage is told and what is left is right.
fn records(dir: &Path) -> Option<String> {
    let clean = verify(dir).is_ok_and(|report| report.is_clean() && report.torn.is_none());
    let mut reader = open_read_only(dir).ok()?.reader(Lsn(0));
    let (mut text, mut lost) = (String::new(), false);
    loop {
        match reader.next() {
            Ok(Some(record)) => {
                text += &format!("{} {} {}\n", record.lsn, record.kind, crc32fast::hash(&record.payload))
            }
            Ok(None) => break,
            Err(ReadError::Lost { .. }) => lost = true,
            Err(_) => return None,
        }
    }
    (clean && !lost).then_some(text)
}

fn memory(dir: &Path) -> Option<String> {
    let stored = snapshot::newest(dir, u64::MAX).ok()??;
    Some(format!("{} {} {:?} {}", stored.lsn, stored.alert_lsn, stored.positions, stored.engine.get()))
}

/// A cursor that lost a slot says so; it may then be a step old, which only repeats something.
fn position(dir: &Path) -> Option<String> {
    let cursor = CursorFile::open(&dir.join("out.cursor")).ok()?;
    (!cursor.repaired()).then(|| cursor.get().to_string())
}

fn hits(dir: &Path) -> Option<String> {
    let searcher = Index::open(dir).ok()?.searcher().ok()?;
    let clock = Clock { now: 0, utc: true };
    let query = Query::parse("actor:u*", clock).ok()?;
    let answer = searcher.search(&Ask { query, limit: 10_000, order: Order::Oldest, within: 5 * PATIENCE }).ok()?;
    Some(format!("{:?}", answer.hits))
}
