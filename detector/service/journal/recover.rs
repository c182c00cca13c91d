//! Opening a journal that was closed, killed or damaged: where it ends, what is missing, what the writer starts
//! from. Reads every header and the whole last segment; blocks of earlier segments are checked when they are read.

use std::fmt;
use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use super::disk::{create_private_dir, list_segments, private_file, segment_path};
use super::segment::{Chain, HEADER_LEN, RECORD_HEAD, Slot};
use super::view::{Bound, View, copy_range, hash_prefix};
use super::writer::Resume;
use super::{Error, Lsn};

/// Bytes kept in `quarantine/` at most; beyond that, damage is reported but not copied.
const QUARANTINE_BYTES: u64 = 256 << 20;

/// What was found when the journal was opened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recovery {
    /// Last durable LSN; the next append gets the one after it.
    pub last: Lsn,
    /// A commit that nobody was promised, cut short by a crash.
    pub torn: Option<Torn>,
    /// Acknowledged records that are lost.
    pub gaps: Vec<Gap>,
    /// Copies of damaged or torn bytes.
    pub quarantined: Vec<PathBuf>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Torn {
    pub segment: Lsn,
    pub offset: u64,
    pub bytes: u64,
}

/// A run of acknowledged LSNs that cannot be read, and where they were.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gap {
    pub from: Lsn,
    pub to: Lsn,
    pub cause: Loss,
    pub segment: Lsn,
    pub offset: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Loss {
    /// The bytes are there, but are not what was written, or the disk cannot read them.
    Damaged,
    /// The bytes (often the whole segment) are not there.
    Missing,
    /// Older than what is kept.
    Trimmed,
}

impl Loss {
    /// Bounded label for metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Damaged => "damaged",
            Self::Missing => "missing",
            Self::Trimmed => "trimmed",
        }
    }
}

impl fmt::Display for Loss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Creates the directory and takes its `LOCK`, held until the file is dropped.
pub(super) fn lock_dir(dir: &Path) -> Result<File, Error> {
    create_private_dir(dir).map_err(|source| Error::Io { path: dir.to_owned(), source })?;
    let path = dir.join("LOCK");
    let file = private_file().truncate(false).open(&path).map_err(|source| Error::Io { path: path.clone(), source })?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(Error::Locked { path: dir.to_owned() }),
        Err(TryLockError::Error(source)) => Err(Error::Io { path, source }),
    }
}

/// A segment read from front to end.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Scan {
    pub next_lsn: u64,
    /// Behind the last block.
    pub end_at: u64,
    pub blocks: u64,
    pub records: u64,
    pub gaps: Vec<Gap>,
    /// Stretches of the file with something damaged in them: offset, length.
    pub damaged: Vec<(u64, u64)>,
    pub torn: Option<Torn>,
}

pub(super) fn scan(view: &View, bound: Bound) -> io::Result<Scan> {
    let first = view.header.first_lsn;
    let mut scan = Scan { next_lsn: first, end_at: HEADER_LEN, ..Scan::default() };
    while let Some(region) = view.region(scan.end_at, scan.next_lsn, bound)? {
        let Some((bytes, slots)) = view.read(&region, bound)? else { break };
        let cause = if bytes.is_empty() { Loss::Missing } else { Loss::Damaged };
        let before = scan.gaps.len();
        for slot in slots {
            match slot {
                Slot::Good { .. } => scan.records += 1,
                Slot::Lost { from, to } => {
                    let (from, to) = (Lsn(from), Lsn(to));
                    scan.gaps.push(Gap { from, to, cause, segment: Lsn(first), offset: region.at });
                }
            }
        }
        if !bytes.is_empty() && (!region.intact || scan.gaps.len() > before) {
            scan.damaged.push((region.at, region.end_at - region.at));
        }
        scan.blocks += u64::from(region.intact);
        (scan.end_at, scan.next_lsn) = (region.next_at, region.end);
    }
    let len = view.len()?;
    if bound == Bound::Open && len > scan.end_at {
        scan.torn = Some(Torn { segment: Lsn(first), offset: scan.end_at, bytes: len - scan.end_at });
    }
    Ok(scan)
}

/// Walks the log. Errors: `Io`, `Newer`; everything else is a finding, not an error.
pub(super) fn recover(dir: &Path) -> Result<(Recovery, Resume), Error> {
    let io = |source| Error::Io { path: dir.to_owned(), source };
    remove_drafts(dir).map_err(io)?;
    let segments = list_segments(dir).map_err(io)?;
    let mut found = Recovery::default();
    let mut resume = Resume { next_lsn: 1, next_id: 1, chain: Chain::default() };
    let mut before: Option<View> = None;
    for (i, (first, bytes)) in segments.iter().copied().enumerate() {
        let next = segments.get(i + 1).map(|(first, _)| *first);
        let path = segment_path(dir, first);
        let view = match View::open(&path, false) {
            Ok(view) => view,
            Err(Error::Header { .. }) => {
                let end = next.unwrap_or_else(|| beyond(first, bytes));
                let gap =
                    Gap { from: Lsn(first), to: Lsn(end - 1), cause: Loss::Damaged, segment: Lsn(first), offset: 0 };
                found.gaps.push(gap);
                resume = Resume { next_lsn: end, next_id: resume.next_id + 1, chain: whole(&path, first, bytes)? };
                before = None;
                continue;
            }
            Err(e) => return Err(e),
        };
        if let Some(previous) = before.as_ref().filter(|p| p.header.first_lsn != view.header.previous.first) {
            found.gaps.extend(scan(previous, Bound::Sealed(first)).map_err(io)?.gaps);
        }
        resume.next_id = resume.next_id.max(view.header.id + 1);
        if next.is_none() {
            finish(dir, &view, &mut found, &mut resume).map_err(io)?;
            give_back(&path);
        }
        before = Some(view);
    }
    found.last = Lsn(resume.next_lsn - 1);
    Ok((found, resume))
}

/// The last segment: find its end, make sure that it is on the disk, keep what is not part of it.
fn finish(dir: &Path, view: &View, found: &mut Recovery, resume: &mut Resume) -> io::Result<()> {
    let scan = scan(view, Bound::Open)?;
    // After a kill (not a power loss) the last commit may be in the page cache only.
    view.file.sync_all()?;
    let first = view.header.first_lsn;
    for (at, len) in scan.damaged.iter().copied().chain(scan.torn.iter().map(|t| (t.offset, t.bytes))) {
        match quarantine(dir, view, at, len) {
            Ok(kept) => found.quarantined.extend(kept),
            Err(error) => tracing::warn!(%error, segment = first, offset = at, "damaged bytes not copied"),
        }
    }
    found.gaps.extend(scan.gaps);
    found.torn = scan.torn;
    resume.next_lsn = scan.next_lsn;
    // A segment without records is replaced by the next one.
    resume.chain = if scan.next_lsn == first {
        view.header.previous
    } else {
        Chain { first, len: scan.end_at, hash: hash_prefix(&view.file, scan.end_at)? }
    };
    Ok(())
}

/// The space reserved behind the end: nothing is ever appended, and a process that is killed again and again would fill
/// the disk with it.
fn give_back(path: &Path) {
    let cut = File::options().write(true).open(path).and_then(|file| file.set_len(file.metadata()?.len()));
    if let Err(error) = cut {
        tracing::debug!(%error, path = %path.display(), "reserved space is not given back");
    }
}

fn quarantine(dir: &Path, view: &View, at: u64, len: u64) -> io::Result<Option<PathBuf>> {
    let dir = dir.join("quarantine");
    create_private_dir(&dir)?;
    let target = dir.join(format!("{:020}-{at}.bin", view.header.first_lsn));
    if target.is_file() {
        return Ok(Some(target));
    }
    let mut kept = len;
    for entry in fs::read_dir(&dir)? {
        kept += entry?.metadata()?.len();
    }
    if kept > QUARANTINE_BYTES {
        return Ok(None);
    }
    copy_range(&view.file, at, len, target).map(Some)
}

/// No LSN of a last segment that cannot be read at all may be used again: more records than this never fit.
fn beyond(first: u64, bytes: u64) -> u64 {
    first + bytes / RECORD_HEAD as u64 + 1
}

fn whole(path: &Path, first: u64, len: u64) -> Result<Chain, Error> {
    let hash = File::open(path).and_then(|file| hash_prefix(&file, len));
    Ok(Chain { first, len, hash: hash.map_err(|source| Error::Io { path: path.to_owned(), source })? })
}

fn remove_drafts(dir: &Path) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.extension().is_some_and(|e| e == "new") {
            fs::remove_file(path)?;
        }
    }
    Ok(())
}
