//! The one thread that writes: takes what waits, writes it as one commit block, syncs, and only then says so.
//! Knows nothing about reading; what it starts from comes from [`super::recover`].

use std::fs::File;
use std::io::{self, ErrorKind};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::disk::{Disk, segment_path};
use super::queue::{Next, Pending, lock};
use super::segment::{BLOCK_HEAD, Chain, HEADER_LEN, Header, Keys, PAGE, Stored, frame};
use super::{AppendError, Lsn, Shared};

const GROUP_BYTES: usize = 8 << 20;
const GROUP_RECORDS: usize = 256;
/// After this much silence a block without records is written, so that the last real one is proven acknowledged
/// and damage to it can be told from a commit that power loss cut short.
const IDLE: Duration = Duration::from_millis(200);
/// After a failed commit and this much silence it is tried whether the disk takes something again.
const TRY_AGAIN: Duration = Duration::from_secs(2);

/// Where the log ends when the writer starts; it never appends to a segment it did not create.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Resume {
    pub next_lsn: u64,
    pub next_id: u64,
    pub chain: Chain,
}

pub(super) struct Writer {
    pub shared: Arc<Shared>,
    pub disk: Box<dyn Disk>,
    pub segment_bytes: u64,
    pub resume: Resume,
    pub active: Option<Active>,
    pub buffer: Vec<u8>,
    /// Held as long as this thread may write.
    pub _lock: File,
}

pub(super) struct Active {
    file: File,
    header: Header,
    keys: Keys,
    /// Bytes acknowledged; the next block starts here.
    len: u64,
    hasher: blake3::Hasher,
    records: u64,
    /// The last block proves everything before it.
    marked: bool,
}

/// Tells the waiters when the thread ends, however it ends.
struct Gone(Arc<Shared>);

impl Drop for Gone {
    fn drop(&mut self) {
        self.0.queue.abandon();
    }
}

impl Writer {
    /// Runs until the queue is closed and empty.
    pub fn run(mut self) {
        let _gone = Gone(Arc::clone(&self.shared));
        let mut failed = Instant::now();
        loop {
            match self.shared.queue.take(GROUP_BYTES, GROUP_RECORDS, IDLE) {
                Next::Commit(group) => {
                    self.commit(group);
                    failed = Instant::now();
                }
                Next::Idle if self.shared.failing.load(Ordering::Relaxed) => {
                    if failed.elapsed() >= TRY_AGAIN {
                        self.try_again();
                        failed = Instant::now();
                    }
                }
                Next::Idle => self.mark(false),
                Next::Closed => break,
            }
        }
        self.mark(true);
    }

    fn commit(&mut self, group: Vec<Pending>) {
        let mut waiters = Vec::with_capacity(group.len());
        let mut records = Vec::new();
        let mut bytes = 0;
        for pending in group {
            bytes += pending.bytes;
            records.extend(pending.records.into_iter().map(|(kind, payload)| Stored::new(kind, payload)));
            waiters.push((self.resume.next_lsn + records.len() as u64 - 1, pending.reply));
        }
        let outcome = self.store(&records).map_err(AppendError::from_io);
        self.shared.failing.store(outcome.is_err(), Ordering::Relaxed);
        if outcome.is_ok() {
            self.resume.next_lsn += records.len() as u64;
            *lock(&self.shared.durable) = self.resume.next_lsn - 1;
            self.shared.advanced.notify_all();
        }
        self.shared.queue.release(bytes);
        for (lsn, reply) in waiters {
            // A waiter that gave up is no reason to stop: its records are in the log.
            let _ = reply.send(outcome.clone().map(|()| Lsn(lsn)));
        }
    }

    /// Makes the records durable in the current segment, or else in a new one.
    fn store(&mut self, records: &[Stored]) -> io::Result<()> {
        let size = BLOCK_HEAD as u64 + records.iter().map(Stored::framed_len).sum::<u64>();
        let full = |a: &Active| a.records > 0 && a.len + size.next_multiple_of(PAGE) > self.segment_bytes;
        if self.active.as_ref().is_some_and(full) {
            self.seal();
        }
        match self.write_block(records, true) {
            // The old segment was given up with an unknown page cache state: all of this goes into a new one.
            Err(e) if self.active.is_none() && !is_full(&e) => {
                tracing::warn!(error = %e, "journal segment given up, rewriting the commit in a new one");
                self.write_block(records, true)
            }
            outcome => outcome,
        }
    }

    /// Writes one block at the end of the current segment (opening one if there is none). After an error the
    /// segment is either exactly as before or given up.
    fn write_block(&mut self, records: &[Stored], sync: bool) -> io::Result<()> {
        let mut active = match self.active.take() {
            Some(active) => active,
            None => self.open_segment()?,
        };
        frame(&mut self.buffer, &active.keys, active.len, self.resume.next_lsn, records);
        if let Err(e) = self.disk.write_at(&active.file, &self.buffer, active.len) {
            let undone = self.disk.truncate(&active.file, active.len).is_ok();
            if undone && is_full(&e) {
                self.active = Some(active);
            } else {
                self.give_up(active);
            }
            return Err(e);
        }
        if sync {
            let started = Instant::now();
            let synced = self.disk.sync(&active.file);
            self.shared.sync_nanos.fetch_add(started.elapsed().as_nanos() as u64, Ordering::Relaxed);
            self.shared.syncs.fetch_add(1, Ordering::Relaxed);
            if let Err(e) = synced {
                self.give_up(active);
                return Err(e);
            }
        }
        active.hasher.update(&self.buffer);
        active.len += self.buffer.len() as u64;
        active.records += records.len() as u64;
        active.marked = records.is_empty();
        lock(&self.shared.segments).insert(active.header.first_lsn, active.len);
        self.active = Some(active);
        Ok(())
    }

    /// The last commit failed and nobody comes: who is not ready is sent nothing. A block without records shows whether
    /// the disk takes something again.
    fn try_again(&mut self) {
        if self.write_block(&[], true).is_ok() {
            self.shared.failing.store(false, Ordering::Relaxed);
        }
    }

    fn mark(&mut self, sync: bool) {
        if self.active.as_ref().is_some_and(|a| !a.marked)
            && let Err(error) = self.write_block(&[], sync)
        {
            tracing::warn!(%error, "journal idle mark not written");
        }
    }

    /// Header, sync, name, directory sync: only then is it used.
    fn open_segment(&mut self) -> io::Result<Active> {
        let first_lsn = self.resume.next_lsn;
        let header = Header { id: self.resume.next_id, first_lsn, salt: rand::random(), previous: self.resume.chain };
        let path = segment_path(&self.shared.dir, first_lsn);
        let draft = path.with_extension("new");
        let file = self.disk.create(&draft)?;
        let made = self.fill_segment(&file, &header, &draft, &path);
        if let Err(e) = made {
            // Not under its name yet, or under it without a record: the next attempt replaces it.
            let _ = std::fs::remove_file(&draft);
            return Err(e);
        }
        self.resume.next_id += 1;
        let mut hasher = blake3::Hasher::new();
        hasher.update(&header.encode());
        hasher.update(&header.encode());
        lock(&self.shared.segments).insert(first_lsn, HEADER_LEN);
        let keys = Keys::new(&header.salt);
        Ok(Active { file, header, keys, len: HEADER_LEN, hasher, records: 0, marked: true })
    }

    fn fill_segment(&self, file: &File, header: &Header, draft: &Path, path: &Path) -> io::Result<()> {
        self.disk.reserve(file, self.segment_bytes)?;
        self.disk.write_at(file, &header.encode(), 0)?;
        self.disk.write_at(file, &header.encode(), PAGE)?;
        self.disk.sync(file)?;
        self.disk.rename(draft, path)?;
        self.disk.sync_dir(&self.shared.dir)
    }

    /// A full segment: its blocks are durable already, the reserved space behind them goes back.
    fn seal(&mut self) {
        if let Some(active) = self.active.take() {
            // Failing costs space only: nothing behind the last block is ever read.
            let _ = self.disk.truncate(&active.file, active.len);
            self.chain_to(active);
        }
    }

    /// A segment that must not be touched again. The cut is not for safety (readers stop where the next segment
    /// begins) but so that a crash before the rewrite does not bring back what the waiters were refused.
    fn give_up(&mut self, active: Active) {
        let _ = self.disk.truncate(&active.file, active.len);
        self.chain_to(active);
    }

    fn chain_to(&mut self, active: Active) {
        // Without records it is replaced by the next segment, which takes its name and its place in the chain.
        if active.records > 0 {
            let hash = *active.hasher.finalize().as_bytes();
            self.resume.chain = Chain { first: active.header.first_lsn, len: active.len, hash };
        }
    }
}

fn is_full(e: &io::Error) -> bool {
    matches!(e.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge)
}

impl AppendError {
    fn from_io(source: io::Error) -> Self {
        let full = is_full(&source);
        let source = Arc::new(source);
        if full { Self::NoSpace { source } } else { Self::Io { source } }
    }
}
