//! Power loss at every moment: a disk that remembers each operation, so that the power can be cut after any of them.
//!
//! What was synced is there afterwards. Of the rest each page may be there or not, a file may have its old or its new
//! length, and of the names given since the last sync of the directory the first few may hold: any of that is what
//! journaling file systems leave behind. `LAPWING_SEEDS=10000` makes it the long test.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::sync::{Arc, Mutex};

use super::super::disk::Disk;
use super::*;

#[derive(Clone, Debug)]
enum Op {
    Create {
        id: u64,
        name: String,
    },
    Write {
        id: u64,
        at: u64,
        bytes: Vec<u8>,
    },
    Truncate {
        id: u64,
        len: u64,
    },
    Sync {
        id: u64,
    },
    Rename {
        from: String,
        to: String,
    },
    SyncDir,
    /// The caller was told that everything up to this LSN is durable.
    Acked(u64),
}

#[derive(Default)]
struct Log {
    ops: Vec<Op>,
    /// Inode to the number this file has here: inodes are used again.
    ids: HashMap<u64, u64>,
}

/// The operations of a disk, in order.
#[derive(Clone, Default)]
pub(super) struct Recorder {
    log: Arc<Mutex<Log>>,
    /// Deliberate mistakes, to prove that this test would see them.
    forgets_syncs: bool,
    forgets_dirs: bool,
}

fn name(path: &Path) -> String {
    path.file_name().unwrap().to_str().unwrap().to_owned()
}

impl Recorder {
    fn push(&self, op: Op) {
        self.log.lock().unwrap().ops.push(op);
    }

    fn id(&self, file: &File) -> u64 {
        self.log.lock().unwrap().ids[&file.metadata().unwrap().ino()]
    }

    pub(super) fn len(&self) -> usize {
        self.log.lock().unwrap().ops.len()
    }

    /// Writes to `to` what is left when the power goes after `cut` operations. `luck(n)` is a number up to and with `n`.
    /// Answers the last LSN that was acknowledged by then.
    pub(super) fn power_loss(&self, cut: usize, luck: &mut impl FnMut(usize) -> usize, to: &Path) -> u64 {
        let log = self.log.lock().unwrap();
        let (mut files, mut names): (HashMap<u64, Content>, Vec<&Op>) = Default::default();
        let (mut synced, mut acked) = (BTreeMap::new(), 0);
        for op in &log.ops[..cut] {
            match op {
                Op::Create { id, .. } => {
                    files.insert(*id, Content::default());
                    names.push(op);
                }
                Op::Write { id, .. } | Op::Truncate { id, .. } => files.get_mut(id).unwrap().loose.push(op),
                Op::Sync { id } => files.get_mut(id).unwrap().settle(|_| true),
                Op::Rename { .. } => names.push(op),
                Op::SyncDir => names.drain(..).for_each(|op| rename(&mut synced, op)),
                Op::Acked(lsn) => acked = *lsn,
            }
        }
        let held = luck(names.len());
        names[..held].iter().for_each(|op| rename(&mut synced, op));
        for (name, id) in synced {
            let mut content = std::mem::take(files.get_mut(&id).unwrap());
            content.settle(|_| luck(1) == 1);
            fs::write(to.join(name), content.bytes).unwrap();
        }
        acked
    }
}

fn rename(names: &mut BTreeMap<String, u64>, op: &Op) {
    match op {
        Op::Create { id, name } => drop(names.insert(name.clone(), *id)),
        Op::Rename { from, to } => {
            let id = names.remove(from).unwrap();
            names.insert(to.clone(), id);
        }
        _ => unreachable!("not about names"),
    }
}

#[derive(Default)]
struct Content<'a> {
    bytes: Vec<u8>,
    loose: Vec<&'a Op>,
}

impl Content<'_> {
    /// Makes the loose operations part of the content, page by page, where `holds` says so.
    fn settle(&mut self, mut holds: impl FnMut(u64) -> bool) {
        for op in std::mem::take(&mut self.loose) {
            match op {
                Op::Truncate { len, .. } if holds(*len) => self.bytes.resize(*len as usize, 0),
                Op::Write { at, bytes, .. } => {
                    for (i, page) in bytes.chunks(4096).enumerate() {
                        let from = *at as usize + i * 4096;
                        if holds(from as u64) {
                            self.bytes.resize(self.bytes.len().max(from + page.len()), 0);
                            self.bytes[from..from + page.len()].copy_from_slice(page);
                        }
                    }
                }
                _ => {}
            }
        }
    }
}

impl Disk for Recorder {
    fn create(&self, path: &Path) -> io::Result<File> {
        let file = RealDisk.create(path)?;
        let mut log = self.log.lock().unwrap();
        let id = log.ops.len() as u64;
        log.ids.insert(file.metadata()?.ino(), id);
        log.ops.push(Op::Create { id, name: name(path) });
        Ok(file)
    }

    fn reserve(&self, _: &File, _: u64) -> io::Result<()> {
        Ok(())
    }

    fn write_at(&self, file: &File, bytes: &[u8], at: u64) -> io::Result<()> {
        self.push(Op::Write { id: self.id(file), at, bytes: bytes.to_vec() });
        file.write_all_at(bytes, at)
    }

    fn truncate(&self, file: &File, len: u64) -> io::Result<()> {
        self.push(Op::Truncate { id: self.id(file), len });
        file.set_len(len)
    }

    fn sync(&self, file: &File) -> io::Result<()> {
        if !self.forgets_syncs {
            self.push(Op::Sync { id: self.id(file) });
        }
        Ok(())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.push(Op::Rename { from: name(from), to: name(to) });
        fs::rename(from, to)
    }

    fn sync_dir(&self, _: &Path) -> io::Result<()> {
        if !self.forgets_dirs {
            self.push(Op::SyncDir);
        }
        Ok(())
    }
}

/// Numbers from a seed: the same seed, the same test.
struct Luck(u64);

impl Luck {
    fn up_to(&mut self, most: usize) -> usize {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.0 >> 33) as usize % (most + 1)
    }
}

/// Crashes of one journal, at random operations.
const CRASHES: usize = 12;

/// Writes a journal, cuts the power `CRASHES` times, and says what was acknowledged and is not there.
fn crashes(seed: u64, disk: &Recorder) -> Result<(), String> {
    let mut luck = Luck(seed);
    let written = dir();
    let options = Options { segment_bytes: 16 << 10, ..Options::default() };
    let (journal, _) = Journal::open_on(written.path(), options.clone(), Box::new(disk.clone())).unwrap();
    for _ in 0..3 + luck.up_to(6) {
        let (next, n) = (journal.durable().0 + 1, 1 + luck.up_to(8) as u64);
        let group = (next..next + n).map(|lsn| ((lsn % 7) as u8, payload(lsn))).collect();
        disk.push(Op::Acked(journal.append_all_blocking(group).unwrap().0));
    }
    if luck.up_to(1) == 0 {
        journal.close();
    }
    for _ in 0..CRASHES {
        let (after, cut) = (dir(), luck.up_to(disk.len()));
        let acked = disk.power_loss(cut, &mut |n| luck.up_to(n), after.path());
        survived(after.path(), &options, acked).map_err(|e| format!("seed {seed}, cut at {cut}: {e}"))?;
    }
    Ok(())
}

fn survived(dir: &Path, options: &Options, acked: u64) -> Result<(), String> {
    let (journal, recovery) = Journal::open(dir, options.clone()).map_err(|e| e.to_string())?;
    if recovery.last.0 < acked || !recovery.gaps.is_empty() {
        return Err(format!("{acked} were acknowledged: {recovery:?}"));
    }
    let (good, lost) = drain(&mut journal.reader(Lsn(0)));
    if good != (1..=recovery.last.0).collect::<Vec<_>>() || !lost.is_empty() {
        return Err(format!("read {good:?}, lost {lost:?}"));
    }
    fill(&journal, 1);
    Ok(())
}

#[test]
fn power_loss_takes_nothing_that_was_acknowledged() {
    let seeds = std::env::var("LAPWING_SEEDS").ok().and_then(|n| n.parse().ok()).unwrap_or(40);
    let started = std::time::Instant::now();
    for seed in 0..seeds {
        crashes(seed, &Recorder::default()).unwrap();
    }
    println!("{} power losses over {seeds} seeds, nothing lost, {:?}", seeds * CRASHES as u64, started.elapsed());
}

#[test]
fn this_test_sees_a_sync_that_was_forgotten() {
    let caught = |disk: &dyn Fn() -> Recorder| (0..10).filter(|seed| crashes(*seed, &disk()).is_err()).count();
    assert!(caught(&|| Recorder { forgets_syncs: true, ..Recorder::default() }) >= 9);
    assert!(caught(&|| Recorder { forgets_dirs: true, ..Recorder::default() }) >= 9);
}
