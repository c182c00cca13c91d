//! Follows an audit log file through rotation.
//!
//! Understood are rename-and-create (kube-apiserver's own rotation, logrotate) and copytruncate. The
//! position is the file's identity (device and inode) and the offset behind the last line that is in
//! the journal; it travels in the journal's batches. After a restart the file is found again by its
//! identity, also under its rotated name, and every file that followed it is read before the current
//! one. The file is polled every 250 ms. A compressed rotated file is not read.

use std::collections::HashMap;
use std::fs::{self, File, Metadata};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use lapwing_engine::batch::{Batch, Origin};
use memchr::{memchr_iter, memrchr};
use tokio_util::sync::CancellationToken;

use super::{Refused, Sink, now};
use crate::input::Splitter;

/// How often a quiet file is looked at.
pub const POLL: Duration = Duration::from_millis(250);
/// A batch ends at so many lines or bytes, whichever comes first.
const BATCH_LINES: usize = 500;
const BATCH_BYTES: usize = 1 << 20;
/// A longer line is passed on in pieces, which become rejects.
const LINE_BYTES: usize = 64 << 20;
/// Bytes before the position that must still be there, or the file was truncated and grew again.
const TAIL: usize = 64;

/// An audit log file to follow.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Deserialize, serde::Serialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
#[schemars(extend("required" = ["path", "cluster"]))]
pub struct Config {
    /// Path of the file the API server writes; rotated files are found beside it.
    pub path: PathBuf,
    /// Name of the cluster the events belong to.
    pub cluster: String,
    /// Where to begin when no position is known yet.
    pub start: Start,
}

/// Where a file without a known position is begun.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize, serde::Serialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum Start {
    /// Everything that is in the file.
    #[default]
    Beginning,
    /// Only what is written from now on.
    End,
}

/// Everything before `offset` of the file with this identity is in the journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize, serde::Serialize)]
pub struct Position {
    pub identity: u64,
    pub offset: u64,
}

/// Positions by configured path, as [`Origin::File`] names it.
pub type Positions = HashMap<String, Position>;

/// Follows the file until `stop`, or until the sink is closed. Trouble with the file is logged and
/// tried again for ever.
pub async fn run<S: Sink>(
    config: Config,
    position: Option<Position>,
    splitter: Splitter,
    sink: Arc<S>,
    stop: CancellationToken,
) {
    let path = config.path.display().to_string();
    let mut tail = Tail::new(config.path, config.start, position);
    let mut tick = tokio::time::interval(POLL);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut trouble = None;
    loop {
        let splitter = splitter.clone();
        let reading = tokio::task::spawn_blocking(move || {
            let read = tail.poll().map(|chunk| chunk.map(|c| (splitter.split(&c.bytes), c.end)));
            (tail, read)
        });
        let Ok((back, read)) = reading.await else { return };
        tail = back;
        let accepted = match read {
            Ok(Some((items, end))) => {
                trouble = None;
                let origin = Origin::File { path: path.clone(), identity: end.identity, offset: end.offset };
                let batch = Batch { cluster: config.cluster.clone(), origin, received: now(), items };
                let answer = tokio::select! {
                    biased;
                    answer = sink.accept(batch) => answer,
                    () = stop.cancelled() => return,
                };
                match answer {
                    Ok(()) => tail.accepted(end),
                    Err(Refused::Busy | Refused::Moved) => {}
                    Err(Refused::Closed) => return,
                }
                answer.is_ok()
            }
            Ok(None) => false,
            Err(e) => {
                if trouble != Some(e.kind()) {
                    tracing::warn!(path, error = %e, "cannot read the audit log file; trying again");
                }
                trouble = Some(e.kind());
                false
            }
        };
        if stop.is_cancelled() {
            return;
        }
        if !accepted {
            tokio::select! {
                _ = tick.tick() => {}
                () = stop.cancelled() => return,
            }
        }
    }
}

/// Complete lines, and the position behind them.
#[derive(Debug, PartialEq, Eq)]
pub struct Chunk {
    pub bytes: Vec<u8>,
    pub end: Position,
}

/// The file as it is followed: reading without waiting.
#[derive(Debug)]
pub struct Tail {
    path: PathBuf,
    start: Start,
    resume: Option<Position>,
    open: Option<Open>,
}

#[derive(Debug)]
struct Open {
    file: File,
    identity: u64,
    offset: u64,
    /// What stands right before `offset`.
    tail: Vec<u8>,
    /// The file has a successor: nothing will be appended any more.
    final_: bool,
}

impl Tail {
    pub fn new(path: PathBuf, start: Start, resume: Option<Position>) -> Self {
        Self { path, start, resume, open: None }
    }

    /// The next complete lines, the same again until [`Tail::accepted`]; `None` if there are none now.
    pub fn poll(&mut self) -> io::Result<Option<Chunk>> {
        loop {
            let open = match self.open.take() {
                Some(open) => open,
                None => match self.first()? {
                    Some(open) => open,
                    None => return Ok(None),
                },
            };
            let open = self.open.insert(open);
            open.notice_truncation()?;
            if let Some(chunk) = open.chunk()? {
                return Ok(Some(chunk));
            }
            let Some(next) = self.successor()? else { return Ok(None) };
            match &mut self.open {
                // Looked at once more: lines may have been written between the last read and the rotation.
                Some(open) if !open.final_ => open.final_ = true,
                open => *open = Some(next),
            }
        }
    }

    /// Everything up to `end` is durable.
    pub fn accepted(&mut self, end: Position) {
        if let Some(open) = self.open.as_mut().filter(|o| o.identity == end.identity) {
            open.offset = end.offset;
            open.tail = open.before(end.offset).unwrap_or_default();
        }
    }

    fn first(&mut self) -> io::Result<Option<Open>> {
        if let Some(position) = self.resume {
            let found = self.family()?.into_iter().find(|f| f.identity == position.identity);
            if let Some(open) = found.map(|f| Open::at(&f.path, position.offset)).transpose()? {
                self.resume = None;
                return Ok(Some(open));
            }
        }
        let mut open = match Open::at(&self.path, 0) {
            Ok(open) => open,
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                // What appears later was written from then on.
                self.start = Start::Beginning;
                return Ok(None);
            }
            Err(e) => return Err(e),
        };
        if self.resume.take().is_some() {
            tracing::warn!(
                path = %self.path.display(),
                "the file read last is gone; events between it and the current file may be missing"
            );
        } else if self.start == Start::End {
            open.go_to_end()?;
        }
        self.start = Start::Beginning;
        Ok(Some(open))
    }

    /// The file written after the open one.
    fn successor(&self) -> io::Result<Option<Open>> {
        let Some(open) = &self.open else { return Ok(None) };
        let family = self.family()?;
        let next = match family.iter().position(|f| f.identity == open.identity) {
            Some(here) => family.get(here + 1),
            // Deleted or compressed meanwhile: whatever was written after it, at least the current file.
            None => {
                let last_write = open.file.metadata()?.modified()?;
                family.iter().find(|f| f.modified > last_write).or(family.last())
            }
        };
        match next.map(|f| Open::at(&f.path, 0)).transpose() {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            other => other,
        }
    }

    /// The current file and its rotated predecessors, the oldest first and the current one last.
    fn family(&self) -> io::Result<Vec<Member>> {
        let dir = self.path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let mut members = Vec::new();
        let entries = match fs::read_dir(dir) {
            Ok(entries) => entries,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(members),
            Err(e) => return Err(e),
        };
        for entry in entries {
            let entry = entry?;
            if is_rotated(&self.path, &entry.path()) {
                // It may be gone again; then it is not a member.
                members.extend(fs::metadata(entry.path()).ok().and_then(|m| Member::new(entry.path(), &m)));
            }
        }
        members.sort_by(|a, b| (a.modified, &a.path).cmp(&(b.modified, &b.path)));
        members.extend(fs::metadata(&self.path).ok().and_then(|m| Member::new(self.path.clone(), &m)));
        Ok(members)
    }
}

#[derive(Debug)]
struct Member {
    path: PathBuf,
    identity: u64,
    modified: SystemTime,
}

impl Member {
    fn new(path: PathBuf, meta: &Metadata) -> Option<Self> {
        meta.is_file().then_some(())?;
        Some(Self { path, identity: identity(meta), modified: meta.modified().ok()? })
    }
}

/// `audit-2026-11-20T16-02-37.089.log`, `audit.log.1`, `audit.log-20261120` beside `audit.log`; not
/// `audit-webhook.log`, not a compressed one.
fn is_rotated(path: &Path, candidate: &Path) -> bool {
    let name = |p: &Path| p.file_name().and_then(|n| n.to_str()).map(str::to_owned).unwrap_or_default();
    let (whole, candidate) = (name(path), name(candidate));
    let dated = |rest: &str| rest.strip_prefix(['-', '.']).is_some_and(|r| r.starts_with(|c: char| c.is_ascii_digit()));
    let compressed = [".gz", ".zst", ".bz2", ".xz"].iter().any(|e| candidate.ends_with(e));
    if compressed || candidate == whole {
        return false;
    }
    if candidate.strip_prefix(&whole).is_some_and(dated) {
        return true;
    }
    let (stem, extension) = whole.rsplit_once('.').unwrap_or((&whole, ""));
    candidate.strip_prefix(stem).is_some_and(dated) && candidate.ends_with(extension)
}

fn identity(meta: &Metadata) -> u64 {
    meta.dev().rotate_left(40) ^ meta.ino()
}

impl Open {
    fn at(path: &Path, offset: u64) -> io::Result<Self> {
        let file = File::open(path)?;
        let identity = identity(&file.metadata()?);
        let mut open = Self { file, identity, offset: 0, tail: Vec::new(), final_: false };
        // A position within a line is none: the inode was used again for another file.
        let before = open.before(offset)?;
        if offset > 0 && before.last() == Some(&b'\n') {
            open.offset = offset;
            open.tail = before;
        }
        Ok(open)
    }

    /// Behind the last complete line.
    fn go_to_end(&mut self) -> io::Result<()> {
        let length = self.file.metadata()?.len();
        let window = length.min(BATCH_BYTES as u64);
        let mut bytes = vec![0; window as usize];
        self.file.read_exact_at(&mut bytes, length - window)?;
        self.offset = match memrchr(b'\n', &bytes) {
            Some(at) => length - window + at as u64 + 1,
            None => length - window,
        };
        self.tail = self.before(self.offset)?;
        Ok(())
    }

    /// Up to [`TAIL`] bytes before `offset`; fewer if the file is shorter.
    fn before(&self, offset: u64) -> io::Result<Vec<u8>> {
        let n = offset.min(TAIL as u64);
        self.read(offset - n, n as usize)
    }

    fn read(&self, from: u64, most: usize) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; most];
        let mut filled = 0;
        while filled < most {
            match self.file.read_at(&mut bytes[filled..], from + filled as u64) {
                Ok(0) => break,
                Ok(n) => filled += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        bytes.truncate(filled);
        Ok(bytes)
    }

    fn notice_truncation(&mut self) -> io::Result<()> {
        if self.offset > 0 && self.before(self.offset)? != self.tail {
            tracing::info!("the audit log file was truncated; reading it from its beginning");
            self.offset = 0;
            self.tail.clear();
        }
        Ok(())
    }

    fn chunk(&self) -> io::Result<Option<Chunk>> {
        let available = self.file.metadata()?.len().saturating_sub(self.offset);
        let mut most = BATCH_BYTES;
        loop {
            let mut bytes = self.read(self.offset, most.min(available as usize))?;
            let at_end = bytes.len() < most;
            let cut = memchr_iter(b'\n', &bytes).take(BATCH_LINES).last().map(|at| at + 1);
            let length = match cut {
                Some(cut) => cut,
                None if at_end && !self.final_ => return Ok(None),
                None if at_end || most >= LINE_BYTES => bytes.len(),
                None => {
                    most *= 4;
                    continue;
                }
            };
            if length == 0 {
                return Ok(None);
            }
            bytes.truncate(length);
            let end = Position { identity: self.identity, offset: self.offset + length as u64 };
            return Ok(Some(Chunk { bytes, end }));
        }
    }
}

#[cfg(test)]
mod tests;
