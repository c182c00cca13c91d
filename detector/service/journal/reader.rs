//! Reading in LSN order: beside the writer up to what is durable, or from the directory alone up to the last
//! finished commit. Never writes, never stops at damage: the loss is answered once, the next call goes on behind it.

use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::disk::{list_segments, segment_path};
use super::queue::lock;
use super::recover::{Loss, scan};
use super::segment::{HEADER_LEN, Slot};
use super::view::{Bound, Region, View, is_unreadable, unpack};
use super::{Error, Lsn, Record, Shared, Stat};

/// How often a place the disk cannot read is tried before the records in it count as lost, and the pause between.
const READ_TRIES: usize = 5;
const READ_PAUSE: Duration = Duration::from_millis(50);

#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// Acknowledged records that cannot be read. The next call goes on behind them.
    #[error("journal records {from} to {to} are lost: {cause}")]
    Lost { from: Lsn, to: Lsn, cause: Loss },
    /// Nothing was skipped; the next call tries again.
    #[error("journal could not be read")]
    Io { source: io::Error },
    /// A segment of a newer format, or a similar reason not to touch it; the next call tries again.
    #[error(transparent)]
    Segment(#[from] Error),
}

impl ReadError {
    fn is_unreadable(&self) -> bool {
        match self {
            Self::Io { source } | Self::Segment(Error::Io { source, .. }) => is_unreadable(source),
            _ => false,
        }
    }
}

impl From<io::Error> for ReadError {
    fn from(source: io::Error) -> Self {
        Self::Io { source }
    }
}

/// Opens a journal for reading without its lock, also while a writer runs. Errors: `Io` when there is none.
pub fn open_read_only(dir: &Path) -> Result<ReadOnly, Error> {
    list_segments(dir).map_err(|source| Error::Io { path: dir.to_owned(), source })?;
    Ok(ReadOnly { dir: dir.to_owned() })
}

/// A journal seen from outside its writer.
#[derive(Clone, Debug)]
pub struct ReadOnly {
    dir: PathBuf,
}

impl ReadOnly {
    /// Reads the records after `after`. A commit in writing is seen when it is complete in the file.
    pub fn reader(&self, after: Lsn) -> Reader {
        Reader::new(Source::Dir(self.dir.clone()), after)
    }

    /// Sizes and positions. Reads the last segment.
    pub fn stat(&self) -> Result<Stat, Error> {
        let segments = list_segments(&self.dir).map_err(|source| Error::Io { path: self.dir.clone(), source })?;
        let last = match segments.last() {
            None => 0,
            Some((first, _)) => {
                let path = segment_path(&self.dir, *first);
                let scan = scan(&View::open(&path, true)?, Bound::Open);
                scan.map_err(|source| Error::Io { path, source })?.next_lsn - 1
            }
        };
        let first = segments.first().map_or(0, |(first, _)| *first);
        let bytes = segments.iter().map(|(_, bytes)| bytes).sum();
        Ok(Stat { segments: segments.len(), bytes, first: Lsn(first), last: Lsn(last), ..Stat::default() })
    }

    /// One record, found by segment name and block headers. `None`: not there yet, or no longer kept.
    pub fn get(&self, lsn: Lsn) -> Result<Option<Record>, ReadError> {
        self.reader(Lsn(lsn.0.saturating_sub(1))).get(lsn)
    }
}

enum Source {
    Live(Arc<Shared>),
    Dir(PathBuf),
}

impl Source {
    fn dir(&self) -> &Path {
        match self {
            Self::Live(shared) => &shared.dir,
            Self::Dir(dir) => dir,
        }
    }

    fn durable(&self) -> Option<u64> {
        if let Self::Live(shared) = self { Some(*lock(&shared.durable)) } else { None }
    }

    fn segments(&self) -> io::Result<Vec<u64>> {
        match self {
            Self::Live(shared) => Ok(lock(&shared.segments).keys().copied().collect()),
            Self::Dir(dir) => Ok(list_segments(dir)?.into_iter().map(|(first, _)| first).collect()),
        }
    }
}

/// A position in a journal.
pub struct Reader {
    source: Source,
    want: u64,
    open: Option<Open>,
    ready: VecDeque<Slot>,
    bytes: Vec<u8>,
    /// Read around what the disk cannot read, to the end of this segment.
    salvage: bool,
}

struct Open {
    first: u64,
    view: View,
    at: u64,
    lsn: u64,
}

/// What [`Reader::find`] came to.
enum Found {
    /// The region that holds the wanted LSN is next in the open segment.
    Region(Region, Bound),
    Lost {
        to: u64,
        cause: Loss,
    },
    CaughtUp,
}

impl Reader {
    fn new(source: Source, after: Lsn) -> Self {
        Self {
            source,
            want: after.0.saturating_add(1),
            open: None,
            ready: VecDeque::new(),
            bytes: Vec::new(),
            salvage: false,
        }
    }

    pub(super) fn live(shared: Arc<Shared>, after: Lsn) -> Self {
        Self::new(Source::Live(shared), after)
    }

    /// The LSN before the next record: what a cursor would store.
    pub fn position(&self) -> Lsn {
        Lsn(self.want - 1)
    }

    /// The next record; `None` when caught up. Errors: `Lost` once per range, then it goes on. A place the disk cannot
    /// read is tried a few times (this blocks for a quarter of a second), then what is in it is `Lost` too.
    #[expect(clippy::should_implement_trait, reason = "None is not the end, it may be followed by more")]
    pub fn next(&mut self) -> Result<Option<Record>, ReadError> {
        for _ in 0..READ_TRIES {
            match self.step() {
                Err(e) if e.is_unreadable() => std::thread::park_timeout(READ_PAUSE),
                step => return step,
            }
        }
        // Until the next segment: it is opened anew, and read around what cannot be read.
        (self.salvage, self.open) = (true, None);
        self.step()
    }

    fn step(&mut self) -> Result<Option<Record>, ReadError> {
        loop {
            match self.ready.pop_front() {
                Some(Slot::Good { head, .. }) if head.lsn < self.want => {}
                Some(Slot::Lost { to, .. }) if to < self.want => {}
                Some(Slot::Good { head, at }) => {
                    self.want = head.lsn + 1;
                    return match unpack(&head, &self.bytes[at..at + head.stored_len as usize]) {
                        Some(record) => Ok(Some(record)),
                        None => Err(lost(head.lsn, head.lsn, Loss::Damaged)),
                    };
                }
                Some(Slot::Lost { to, .. }) => {
                    let cause = if self.bytes.is_empty() { Loss::Missing } else { Loss::Damaged };
                    return self.lose(to, cause);
                }
                None => match self.find()? {
                    Found::Lost { to, cause } => return self.lose(to, cause),
                    Found::CaughtUp => return Ok(None),
                    Found::Region(region, bound) => {
                        if !self.load(region, bound)? {
                            return Ok(None);
                        }
                    }
                },
            }
        }
    }

    /// See [`ReadOnly::get`].
    pub(super) fn get(&mut self, lsn: Lsn) -> Result<Option<Record>, ReadError> {
        let picked = match (self.find()?, &self.open) {
            (Found::CaughtUp | Found::Lost { cause: Loss::Trimmed, .. }, _) => return Ok(None),
            (Found::Region(region, _), Some(open)) => open.view.pick(&region, lsn.0)?,
            _ => None,
        };
        // What cannot be picked is read the long way, which knows why.
        if picked.is_some() { Ok(picked) } else { Ok(self.next()?.filter(|r| r.lsn == lsn)) }
    }

    fn lose(&mut self, to: u64, cause: Loss) -> Result<Option<Record>, ReadError> {
        let from = std::mem::replace(&mut self.want, to + 1);
        Err(lost(from, to, cause))
    }

    /// Goes to the region that holds `self.want`, from block header to block header.
    fn find(&mut self) -> Result<Found, ReadError> {
        // In this order: a segment is listed before anything in it is durable.
        let durable = self.source.durable();
        let segments = self.source.segments()?;
        if durable.is_some_and(|d| self.want > d) {
            return Ok(Found::CaughtUp);
        }
        let after = segments.partition_point(|first| *first <= self.want);
        let Some(first) = after.checked_sub(1).map(|i| segments[i]) else {
            return Ok(match segments.first() {
                Some(first) => Found::Lost { to: first - 1, cause: Loss::Trimmed },
                None => Found::CaughtUp,
            });
        };
        let bound = match (segments.get(after), durable) {
            (Some(next), _) => Bound::Sealed(*next),
            (None, Some(durable)) => Bound::Sealed(durable + 1),
            (None, None) => Bound::Open,
        };
        match self.enter(first, bound) {
            Ok(()) => {}
            Err(e) => return unopened(e, bound),
        }
        let Some(open) = self.open.as_mut() else { return Ok(Found::CaughtUp) };
        while let Some(region) = open.view.region(open.at, open.lsn, bound)? {
            if region.end > self.want {
                return Ok(Found::Region(region, bound));
            }
            (open.at, open.lsn) = (region.next_at, region.end);
        }
        Ok(Found::CaughtUp)
    }

    /// Opens the segment, unless it is open. A last segment may have been replaced by its writer.
    fn enter(&mut self, first: u64, bound: Bound) -> Result<(), Error> {
        let path = segment_path(self.source.dir(), first);
        let stays = match &self.open {
            Some(open) if open.first == first => {
                bound != Bound::Open
                    || !open.view.replaced(&path).map_err(|source| Error::Io { path: path.clone(), source })?
            }
            _ => false,
        };
        if !stays {
            self.salvage &= self.open.take().is_none_or(|open| open.first == first);
            self.open = Some(Open { first, view: View::open(&path, self.salvage)?, at: HEADER_LEN, lsn: first });
        }
        Ok(())
    }

    fn load(&mut self, region: Region, bound: Bound) -> Result<bool, ReadError> {
        let Some(open) = self.open.as_mut() else { return Ok(false) };
        let Some((bytes, slots)) = open.view.read(&region, bound)? else { return Ok(false) };
        (open.at, open.lsn) = (region.next_at, region.end);
        (self.bytes, self.ready) = (bytes, slots.into());
        Ok(true)
    }
}

fn unopened(error: Error, bound: Bound) -> Result<Found, ReadError> {
    let missing = matches!(&error, Error::Io { source, .. } if source.kind() == io::ErrorKind::NotFound);
    match (&error, bound) {
        (Error::Header { .. }, Bound::Sealed(end)) => Ok(Found::Lost { to: end - 1, cause: Loss::Damaged }),
        (_, Bound::Sealed(end)) if missing => Ok(Found::Lost { to: end - 1, cause: Loss::Missing }),
        (_, Bound::Open) if missing => Ok(Found::CaughtUp),
        _ => Err(error.into()),
    }
}

fn lost(from: u64, to: u64, cause: Loss) -> ReadError {
    ReadError::Lost { from: Lsn(from), to: Lsn(to), cause }
}
