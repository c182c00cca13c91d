//! Retention: whole old segments are deleted, oldest first, never a record alone and never the newest segment.

use std::fs;
use std::io;
use std::time::{Duration, SystemTime};

use super::disk::{segment_path, sync_dir};
use super::queue::lock;
use super::{Journal, Lsn};

/// What to keep; `None` is no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Retention {
    /// Counted from the last write into a segment.
    pub max_age: Option<Duration>,
    /// Of the whole journal.
    pub max_bytes: Option<u64>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Trimmed {
    pub segments: usize,
    pub bytes: u64,
}

impl Journal {
    /// Deletes segments that are too old or too many. A segment with any record after `keep_after` stays: pass the
    /// lowest position a reader still needs to continue from.
    pub fn trim(&self, keep_after: Lsn, retention: Retention) -> io::Result<Trimmed> {
        let segments: Vec<(u64, u64)> = lock(&self.shared.segments).iter().map(|(f, b)| (*f, *b)).collect();
        let mut total: u64 = segments.iter().map(|(_, bytes)| bytes).sum();
        let mut done = Trimmed::default();
        for pair in segments.windows(2) {
            let ((first, bytes), (next, _)) = (pair[0], pair[1]);
            let path = segment_path(&self.shared.dir, first);
            let old = match retention.max_age {
                Some(age) => age_of(&path)?.is_some_and(|a| a > age),
                None => false,
            };
            if next - 1 > keep_after.0 || !(old || retention.max_bytes.is_some_and(|max| total > max)) {
                break;
            }
            match fs::remove_file(&path) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
                _ => {}
            }
            lock(&self.shared.segments).remove(&first);
            total -= bytes;
            done = Trimmed { segments: done.segments + 1, bytes: done.bytes + bytes };
        }
        if done.segments > 0 {
            sync_dir(&self.shared.dir)?;
        }
        Ok(done)
    }
}

/// `None` when the file is gone or was written in the future.
fn age_of(path: &std::path::Path) -> io::Result<Option<Duration>> {
    match fs::metadata(path).and_then(|m| m.modified()) {
        Ok(written) => Ok(SystemTime::now().duration_since(written).ok()),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(Some(Duration::MAX)),
        Err(e) => Err(e),
    }
}
