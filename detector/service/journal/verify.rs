//! Reads a whole journal and says what is damaged. Changes nothing; may run beside the writer.

use std::path::Path;

use super::disk::{list_segments, segment_path};
use super::recover::{Gap, Loss, Torn, scan};
use super::view::{Bound, View, hash_prefix};
use super::{Error, Lsn};

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
    /// Its bytes are not those the next segment swears to.
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

/// Checks every block and record and the hash chain. Errors: `Io`, `Newer`; damage is in the report.
pub fn verify(dir: &Path) -> Result<Report, Error> {
    let io = |source| Error::Io { path: dir.to_owned(), source };
    let mut report = Report::default();
    let segments = list_segments(dir).map_err(io)?;
    let mut before: Option<View> = None;
    for (i, (first, bytes)) in segments.iter().copied().enumerate() {
        let next = segments.get(i + 1).map(|(first, _)| *first);
        let view = match View::open(&segment_path(dir, first)) {
            Ok(view) => view,
            Err(Error::Header { .. }) => {
                let to = Lsn(next.unwrap_or(first + 1) - 1);
                let (from, segment) = (Lsn(first), Lsn(first));
                report.gaps.push(Gap { from, to, cause: Loss::Damaged, segment, offset: 0 });
                before = None;
                continue;
            }
            Err(e) => return Err(e),
        };
        let chain = view.header.previous;
        if let (Some(previous), Some(last)) = (&before, report.segments.last_mut())
            && last.first.0 == chain.first
        {
            last.changed = hash_prefix(&previous.file, chain.len).map_err(io)? != chain.hash;
        }
        let scan = scan(&view, next.map_or(Bound::Open, Bound::Sealed)).map_err(io)?;
        let (last, header_copy_lost) = (Lsn(scan.next_lsn - 1), view.header_copy_lost);
        let (blocks, records) = (scan.blocks, scan.records);
        let first = Lsn(first);
        report.segments.push(SegmentReport { first, last, bytes, blocks, records, header_copy_lost, changed: false });
        report.gaps.extend(scan.gaps);
        report.torn = scan.torn;
        before = Some(view);
    }
    Ok(report)
}
