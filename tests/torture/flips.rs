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
        // Much of a file is padding, where nothing is to be noticed: one flip in five goes there and counts apart.
        for padding in (0..scale.of(75, 500)).map(|n| n % 5 == 4) {
            let became = flip(&data.join(kind), end, look, padding, &mut luck);
            *sum.entry((padding, became)).or_insert(0) += 1;
            row.trials += 1;
        }
        let of = |padding, b| sum.get(&(padding, b)).copied().unwrap_or_default();
        row.lost += of(false, Became::Wrong) + of(true, Became::Wrong);
        let (noticed, harmless) = (of(false, Became::Noticed), of(false, Became::Harmless));
        sums.push(format!("{kind} {noticed} of {} noticed", noticed + harmless));
        let padding = of(true, Became::Noticed);
        if padding > 0 {
            sums.push(format!("{padding} in zeros"));
        }
    }
    row.checked = row.trials;
    row.note = format!("lost: wrong answers; {}", sums.join("; "));
    row
}

/// Flips one bit of one file in a copy of `dir`, in a byte that is zero or in one that is not, and looks at it.
fn flip(dir: &Path, end: &str, look: Look, in_zeros: bool, luck: &mut Luck) -> Became {
    let before = look(dir).expect("undamaged");
    let copy = tempfile::tempdir().unwrap();
    let mut files = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            continue;
        }
        let to = copy.path().join(path.file_name().unwrap());
        std::fs::copy(&path, &to).unwrap();
        let large = std::fs::metadata(&to).unwrap().len() > 0;
        files.extend((large && to.display().to_string().ends_with(end)).then_some(to));
    }
    files.sort();
    let file = &files[luck.below(files.len())];
    let mut bytes = std::fs::read(file).unwrap();
    let bit = luck.below(8);
    let choice: Vec<usize> = (0..bytes.len()).filter(|at| (bytes[*at] == 0) == in_zeros).collect();
    let at = if choice.is_empty() { luck.below(bytes.len()) } else { choice[luck.below(choice.len())] };
    bytes[at] ^= 1 << bit;
    std::fs::write(file, bytes).unwrap();
    match look(copy.path()) {
        None => Became::Noticed,
        Some(after) if after == before => {
            if !in_zeros {
                eprintln!("{} byte {at} bit {bit}: without effect", file.file_name().unwrap_or_default().display());
            }
            Became::Harmless
        }
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
    snapshot::newest(dir, u64::MAX, |stored| {
        format!("{} {} {:?} {}", stored.lsn, stored.alert_lsn, stored.positions, stored.engine.get())
    })
    .ok()?
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
