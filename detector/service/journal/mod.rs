//! The journal: a segmented, checksummed log with group commit. Accepted events and alerts are stored in one each.
//!
//! An append is answered after `fdatasync`, never before. Damage is confined to the damaged record and reported as
//! the range of LSNs that was lost; half a commit at the end is not damage. The bytes are described in `segment`.
//! It does not interpret payloads, does not decide what to keep ([`Journal::trim`] is told), and does not lock
//! readers out: [`open_read_only`] works beside a running writer.

mod cursor;
mod disk;
mod queue;
mod reader;
mod recover;
mod segment;
mod trim;
mod verify;
mod view;
mod writer;

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests;

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

pub use cursor::CursorFile;
pub use reader::{ReadError, ReadOnly, Reader, open_read_only};
pub use recover::{Gap, Loss, Recovery, Torn};
pub use trim::{Retention, Trimmed};
pub use verify::{Report, SegmentReport, verify};

use disk::{Disk, RealDisk, UnsafeDisk};
use queue::{Queue, lock};
use writer::Writer;

/// Log sequence number: one record, one number. The first record is 1; 0 is "before everything".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lsn(pub u64);

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Largest payload of one record, and of one group of records: 256 MiB.
pub const MAX_APPEND: usize = 256 << 20;

#[derive(Clone, Debug)]
pub struct Options {
    /// A segment is closed before it grows beyond this; one larger commit gets a segment of its own.
    pub segment_bytes: u64,
    /// Payload bytes that may wait or be in writing.
    pub queue_bytes: usize,
    /// `false` acknowledges without syncing. For measurements only.
    pub sync: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self { segment_bytes: 64 << 20, queue_bytes: 64 << 20, sync: true }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    pub lsn: Lsn,
    /// The caller's: not interpreted here.
    pub kind: u8,
    pub payload: Vec<u8>,
}

/// Why a journal (or cursor) cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("`{}`: {source}", path.display())]
    Io { path: PathBuf, source: io::Error },
    #[error("`{}` is in use by another process; stop it first, or open the journal read-only", path.display())]
    Locked { path: PathBuf },
    #[error("`{}` has format {format}, this version reads up to {}; use the newer version", path.display(), segment::FORMAT)]
    Newer { path: PathBuf, format: u32 },
    #[error("`{}`: both copies of the segment header are damaged", path.display())]
    Header { path: PathBuf },
    #[error("`{}`: both slots of the cursor are damaged; remove it to start over from the beginning", path.display())]
    Cursor { path: PathBuf },
}

/// Why an append was not acknowledged. After `NoSpace` and `Io` the record is almost certainly not in the log, but
/// a crash at that very moment may bring it back: retry, and let the reader drop duplicates.
#[derive(Clone, Debug, thiserror::Error)]
pub enum AppendError {
    #[error("journal queue is full ({queued} bytes wait for the disk); retry in a few seconds")]
    Busy { queued: usize },
    #[error("append of {bytes} bytes is larger than {MAX_APPEND}; split it")]
    TooLarge { bytes: usize },
    #[error("no space left for the journal; free some, appends work again by themselves")]
    NoSpace { source: Arc<io::Error> },
    #[error("journal could not be written; check the disk")]
    Io { source: Arc<io::Error> },
    #[error("journal is closed")]
    Closed,
}

/// A snapshot for metrics and readiness.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stat {
    pub segments: usize,
    pub bytes: u64,
    /// First LSN still kept; 0 when nothing was ever written.
    pub first: Lsn,
    /// Last durable LSN.
    pub last: Lsn,
    pub queued_bytes: usize,
    pub syncs: u64,
    /// Total time spent in those syncs.
    pub sync_time: Duration,
    /// The last commit failed: not ready to accept.
    pub failing: bool,
}

struct Shared {
    dir: PathBuf,
    queue: Queue,
    durable: Mutex<u64>,
    advanced: Condvar,
    /// First LSN → bytes.
    segments: Mutex<BTreeMap<u64, u64>>,
    failing: AtomicBool,
    syncs: AtomicU64,
    sync_nanos: AtomicU64,
}

/// A journal open for writing. Clones share it; the last one dropped drains and joins the writer thread.
#[derive(Clone)]
pub struct Journal {
    shared: Arc<Shared>,
    writer: Arc<Joiner>,
}

struct Joiner {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Joiner {
    fn join(&self) {
        self.shared.queue.close();
        if let Some(thread) = lock(&self.thread).take()
            && thread.join().is_err()
        {
            tracing::error!("journal writer panicked");
        }
    }
}

impl Drop for Joiner {
    fn drop(&mut self) {
        self.join();
    }
}

impl Journal {
    /// Opens or creates the journal in `dir` (0700) and takes its lock. Reads the last segment, the headers of the
    /// others; what is found missing or damaged there is in [`Recovery`] and does not keep it from opening.
    pub fn open(dir: &Path, options: Options) -> Result<(Self, Recovery), Error> {
        let disk: Box<dyn Disk> = if options.sync { Box::new(RealDisk) } else { Box::new(UnsafeDisk) };
        Self::open_on(dir, options, disk)
    }

    fn open_on(dir: &Path, options: Options, disk: Box<dyn Disk>) -> Result<(Self, Recovery), Error> {
        let io = |source| Error::Io { path: dir.to_owned(), source };
        let lock_file = recover::lock_dir(dir)?;
        let (recovery, resume) = recover::recover(dir)?;
        let shared = Arc::new(Shared {
            dir: dir.to_owned(),
            queue: Queue::new(options.queue_bytes),
            durable: Mutex::new(recovery.last.0),
            advanced: Condvar::new(),
            segments: Mutex::new(disk::list_segments(dir).map_err(io)?.into_iter().collect()),
            failing: AtomicBool::new(false),
            syncs: AtomicU64::new(0),
            sync_nanos: AtomicU64::new(0),
        });
        let writer = Writer {
            shared: Arc::clone(&shared),
            disk,
            segment_bytes: options.segment_bytes,
            resume,
            active: None,
            buffer: Vec::new(),
            _lock: lock_file,
        };
        let thread = std::thread::Builder::new().name("journal".into()).spawn(move || writer.run()).map_err(io)?;
        let writer = Joiner { shared: Arc::clone(&shared), thread: Mutex::new(Some(thread)) };
        Ok((Self { shared, writer: Arc::new(writer) }, recovery))
    }

    /// Resolves once the record is durable. A full queue is answered with `Busy` at once: the sender still holds
    /// the data and retries. Dropping the future does not take the record back.
    pub async fn append(&self, kind: u8, payload: Vec<u8>) -> Result<Lsn, AppendError> {
        let answer = self.shared.queue.push(checked(vec![(kind, payload)])?, false)?;
        answer.await.unwrap_or(Err(AppendError::Closed))
    }

    /// Like [`Journal::append`] for a plain thread (panics inside an async runtime); waits while the queue is full.
    pub fn append_blocking(&self, kind: u8, payload: Vec<u8>) -> Result<Lsn, AppendError> {
        self.append_all_blocking(vec![(kind, payload)])
    }

    /// All records or none, with one sync; answers the last LSN. No records: the durable LSN, nothing is written.
    pub fn append_all_blocking(&self, records: Vec<(u8, Vec<u8>)>) -> Result<Lsn, AppendError> {
        if records.is_empty() {
            return Ok(self.durable());
        }
        let answer = self.shared.queue.push(checked(records)?, true)?;
        answer.blocking_recv().unwrap_or(Err(AppendError::Closed))
    }

    /// The last LSN on stable storage.
    pub fn durable(&self) -> Lsn {
        Lsn(*lock(&self.shared.durable))
    }

    /// Blocks this (plain) thread until something after `lsn` is durable, at most `timeout`.
    pub fn wait_past(&self, lsn: Lsn, timeout: Duration) -> Lsn {
        let deadline = Instant::now() + timeout;
        let mut durable = lock(&self.shared.durable);
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if *durable > lsn.0 || left.is_zero() {
                return Lsn(*durable);
            }
            durable = self.shared.advanced.wait_timeout(durable, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Reads the records after `after`, as far as they are durable; may be polled for ever.
    pub fn reader(&self, after: Lsn) -> Reader {
        Reader::live(Arc::clone(&self.shared), after)
    }

    /// One record. `None`: not written yet, or no longer kept.
    pub fn get(&self, lsn: Lsn) -> Result<Option<Record>, ReadError> {
        self.reader(Lsn(lsn.0.saturating_sub(1))).get(lsn)
    }

    pub fn stat(&self) -> Stat {
        let segments = lock(&self.shared.segments);
        Stat {
            segments: segments.len(),
            bytes: segments.values().sum(),
            first: Lsn(segments.keys().next().copied().unwrap_or(0)),
            last: self.durable(),
            queued_bytes: self.shared.queue.bytes(),
            syncs: self.shared.syncs.load(Ordering::Relaxed),
            sync_time: Duration::from_nanos(self.shared.sync_nanos.load(Ordering::Relaxed)),
            failing: self.shared.failing.load(Ordering::Relaxed),
        }
    }

    /// Refuses further appends (of all clones), writes what waits, ends the writer thread. Blocks.
    pub fn close(self) {
        self.writer.join();
    }
}

fn checked(records: Vec<(u8, Vec<u8>)>) -> Result<Vec<(u8, Vec<u8>)>, AppendError> {
    let bytes = records.iter().map(|(_, p)| p.len()).sum();
    if bytes > MAX_APPEND { Err(AppendError::TooLarge { bytes }) } else { Ok(records) }
}
