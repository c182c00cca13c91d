//! The store: a tantivy index over events, alerts and rejects, and the language to ask it.
//!
//! The store is derived data. Raw events and whole alerts live once, in the journals; the index keeps
//! small fields, the columns a table prints and the position `lsn:index` of the original. It may lag,
//! be thrown away and be rebuilt. Nothing here decides what an event means: [`EventDoc`] arrives filled.

mod compile;
pub mod doc;
pub mod field;
mod index;
pub mod originals;
pub mod query;
mod readonly;
mod schema;
mod sealed;
pub mod search;
mod value;
mod writer;

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may stop")]
pub(crate) mod tests;

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

pub use doc::{EventDoc, RejectDoc};
pub use index::{Index, Opened};
pub use originals::Originals;
pub use query::{Clock, Query, QueryError};
pub use search::{Answer, Ask, Hit, Kind, Order, Searcher};
pub use writer::{Progress, Writer};

/// Where an original lies: record `lsn` of its journal, item `index` of that record's batch.
/// Events and rejects point into the event journal; alerts into the alert journal, with index 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    pub lsn: u64,
    pub index: u32,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.lsn, self.index)
    }
}

/// A text that is no `lsn:index`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a position; expected `lsn:index`, for example `1042:7`")]
pub struct NotAPosition;

impl FromStr for Position {
    type Err = NotAPosition;

    fn from_str(text: &str) -> Result<Self, NotAPosition> {
        let (lsn, index) = text.split_once(':').ok_or(NotAPosition)?;
        Ok(Self { lsn: lsn.parse().map_err(|_| NotAPosition)?, index: index.parse().map_err(|_| NotAPosition)? })
    }
}

/// Why the store cannot answer or take more.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("no index in `{}`; it is made by `lapwing serve`, or name another data directory", dir.display())]
    NoIndex { dir: PathBuf },
    #[error("index is damaged ({what}); delete `{}`, it is rebuilt from the journal", dir.display())]
    Damaged { dir: PathBuf, what: String },
    #[error("index in `{}` was written by another version of lapwing; start `lapwing serve`, it rebuilds it", dir.display())]
    OtherFormat { dir: PathBuf },
    #[error("index in `{}` is being written by another process; stop it first", dir.display())]
    Busy { dir: PathBuf },
    #[error(
        "the search took longer than {} s and was given up; ask for a shorter time or fewer values that end in `*`, or allow \
         more with --timeout",
        limit.as_secs_f32()
    )]
    TooSlow { limit: std::time::Duration },
    #[error("`{}`: {source}", path.display())]
    Io { path: PathBuf, source: std::io::Error },
    #[error("index: {0}")]
    Index(#[from] tantivy::TantivyError),
}
