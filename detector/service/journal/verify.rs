//! Reads a whole journal, or one segment at a time, and says what is damaged. Changes nothing; may run beside the writer.

use std::io;
use std::path::Path;

use super::disk::{list_segments, segment_path};
use super::queue::lock;
use super::recover::{Gap, Loss, Torn, scan};
use super::view::{Bound, View, hash_prefix};
use super::{Error, Journal, Lsn};

/// One segment, as read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SegmentReport {
    pub first: Lsn,
    /// Last LSN that belongs here; `first - 1` when it has none.
    pub last: Lsn,
    pub bytes: u64,
    pub blocks: u64,
    /// Records that are whole.
    pub records: u64,
    /// One of the two header copies is damaged. Nothing is lost yet.
    pub header_copy_lost: bool,
    /// Its bytes are not those that were written: a block does not hold, or the next segment swears to others.
    pub changed: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    pub segments: Vec<SegmentReport>,
    pub gaps: Vec<Gap>,
    /// Unfinished commit at the end: normal after a crash, and while a writer runs.
    pub torn: Option<Torn>,
}

impl Report {
    /// Nothing lost, nothing changed, no copy damaged.
    pub fn is_clean(&self) -> bool {
        self.gaps.is_empty() && self.segments.iter().all(|s| !s.header_copy_lost && !s.changed)
    }
}

/// Checks every block and record and the hash chain. What the disk cannot read counts as damaged. Errors: `Io`,
/// `Newer`; damage is in the report.
pub fn verify(dir: &Path) -> Result<Report, Error> {
    let segments = list_segments(dir).map_err(|source| Error::Io { path: dir.to_owned(), source })?;
    let mut report = Report::default();
    for (i, (first, bytes)) in segments.iter().copied().enumerate() {
        let one = inspect(dir, first, bytes, segments.get(i + 1).map(|(first, _)| *first))?;
        report.segments.extend(one.segments);
        report.gaps.extend(one.gaps);
        report.torn = one.torn;
    }
    Ok(report)
}

impl Journal {
    /// Checks the first closed segment behind `after`, and names its last LSN: pass that the next time. `None` behind
    /// the last closed one. Reads up to a segment; blocks.
    pub fn scrub(&self, after: Lsn) -> Result<Option<(Lsn, Report)>, Error> {
        let segments: Vec<(u64, u64)> = lock(&self.shared.segments).iter().map(|(f, b)| (*f, *b)).collect();
        let Some(pair) = segments.windows(2).find(|pair| pair[0].0 > after.0) else { return Ok(None) };
        let ((first, bytes), (next, _)) = (pair[0], pair[1]);
        match inspect(&self.shared.dir, first, bytes, Some(next)) {
            Ok(report) => Ok(Some((Lsn(next - 1), report))),
            // Retention may take a segment away before it is opened.
            Err(Error::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                let trimmed = !lock(&self.shared.segments).contains_key(&first);
                let (from, to, segment) = (Lsn(first), Lsn(next - 1), Lsn(first));
                let gap = Gap { from, to, cause: Loss::Missing, segment, offset: 0 };
                let gaps = if trimmed { Vec::new() } else { vec![gap] };
                Ok(Some((to, Report { gaps, ..Report::default() })))
            }
            Err(e) => Err(e),
        }
    }
}

/// One segment; `next` is the first LSN of the one behind it.
fn inspect(dir: &Path, first: u64, bytes: u64, next: Option<u64>) -> Result<Report, Error> {
    let path = segment_path(dir, first);
    let view = match View::open(&path, true) {
        Ok(view) => view,
        Err(Error::Header { .. }) => {
            let (from, to, segment) = (Lsn(first), Lsn(next.unwrap_or(first + 1) - 1), Lsn(first));
            let gaps = vec![Gap { from, to, cause: Loss::Damaged, segment, offset: 0 }];
            return Ok(Report { gaps, ..Report::default() });
        }
        Err(e) => return Err(e),
    };
    let io = |source| Error::Io { path: path.clone(), source };
    let scan = scan(&view, next.map_or(Bound::Open, Bound::Sealed)).map_err(io)?;
    let swears_to_others = match next.and_then(|next| View::open(&segment_path(dir, next), true).ok()) {
        Some(after) if after.header.previous.first == first => {
            hash_prefix(&view.file, after.header.previous.len).map_err(io)? != after.header.previous.hash
        }
        _ => false,
    };
    let segment = SegmentReport {
        first: Lsn(first),
        last: Lsn(scan.next_lsn - 1),
        bytes,
        blocks: scan.blocks,
        records: scan.records,
        header_copy_lost: view.header_copy_lost,
        changed: swears_to_others || !scan.damaged.is_empty(),
    };
    Ok(Report { segments: vec![segment], gaps: scan.gaps, torn: scan.torn })
}
