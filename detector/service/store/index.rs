//! Opening the index: for writing, for reading, and after damage.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use tantivy::directory::MmapDirectory;
use tantivy::directory::error::OpenReadError;
use tantivy::directory::footer::Footer;
use tantivy::index::SegmentId;
use tantivy::{Directory, IndexSettings, ReloadPolicy, TantivyError};

use super::readonly::ReadOnly;
use super::schema::{Fields, schema, tokenizers};
use super::sealed::Sealed;
use super::{Progress, Searcher, StoreError, Writer};

/// Checksums of all files are verified on opening up to this size; beyond it a start would take too long.
const VERIFY_UP_TO: u64 = 4 << 30;
/// A reader that loses the race with a merge tries again this often.
const READ_TRIES: usize = 20;

/// The index of one data directory.
pub struct Index {
    pub(super) inner: tantivy::Index,
    pub(super) fields: Fields,
    pub(super) dir: PathBuf,
    progress: Progress,
}

/// What was found when the index was opened for writing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Opened {
    /// There was none; it is empty.
    Fresh,
    /// It holds everything up to [`Index::progress`].
    Resumed,
    /// It was unusable for the reason given, was moved to `moved_to`, and is empty now: read the
    /// journals from their start.
    Rebuilt { why: String, moved_to: PathBuf },
}

impl Index {
    /// Opens the index in `dir` for writing; makes the directory (0700) and an empty index where
    /// there is none.
    pub fn open(dir: &Path) -> Result<Self, StoreError> {
        let failed = |source| StoreError::Io { path: dir.to_owned(), source };
        fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(failed)?;
        match guarded(dir, || Self::load(dir, Box::new(mmap(dir)?))) {
            Err(StoreError::NoIndex { .. }) if is_unused(dir).map_err(failed)? => guarded(dir, || Self::create(dir)),
            Err(StoreError::NoIndex { .. }) => Err(damaged(dir, "`meta.json` is missing")),
            Err(e) => Err(e),
            Ok(index) => {
                guarded(dir, || index.verify())?;
                Ok(index)
            }
        }
    }

    /// [`Index::open`], but an index that is damaged or of another format is moved aside to
    /// `<dir>.damaged` (replacing an older one there) and replaced by an empty one.
    pub fn open_or_rebuild(dir: &Path) -> Result<(Self, Opened), StoreError> {
        let fresh = is_unused(dir).unwrap_or(true);
        let why = match Self::open(dir) {
            Ok(index) => return Ok((index, if fresh { Opened::Fresh } else { Opened::Resumed })),
            Err(e @ (StoreError::Damaged { .. } | StoreError::OtherFormat { .. })) => e.to_string(),
            Err(e) => return Err(e),
        };
        let moved_to = dir.with_extension("damaged");
        let failed = |source| StoreError::Io { path: dir.to_owned(), source };
        match fs::remove_dir_all(&moved_to) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(failed(e)),
            _ => fs::rename(dir, &moved_to).map_err(failed)?,
        }
        Ok((Self::open(dir)?, Opened::Rebuilt { why, moved_to }))
    }

    /// Opens the index for searching only. Takes no lock and writes nothing, so it works beside a
    /// running daemon, on a read-only disk and without a daemon.
    pub fn open_read_only(dir: &Path) -> Result<Self, StoreError> {
        if !dir.is_dir() {
            return Err(StoreError::NoIndex { dir: dir.to_owned() });
        }
        guarded(dir, || Self::load(dir, Box::new(ReadOnly(mmap(dir)?))))
    }

    /// Up to where the journals are in this index; zero for an empty one. As of opening.
    pub fn progress(&self) -> Progress {
        self.progress
    }

    /// The one writer. Fails with [`StoreError::Busy`] while another exists.
    pub fn writer(&self) -> Result<Writer, StoreError> {
        Writer::new(self)
    }

    /// A view of the newest commit.
    pub fn searcher(&self) -> Result<Searcher, StoreError> {
        guarded(&self.dir, || {
            for _ in 1..READ_TRIES {
                match self.try_searcher() {
                    Err(TantivyError::OpenReadError(OpenReadError::FileDoesNotExist(_))) => {}
                    other => return Ok(other?),
                }
            }
            Ok(self.try_searcher()?)
        })
    }

    fn try_searcher(&self) -> Result<Searcher, TantivyError> {
        let reader = self.inner.reader_builder().reload_policy(ReloadPolicy::Manual).try_into()?;
        Ok(Searcher::new(reader.searcher(), self.fields, self.dir.clone()))
    }

    fn create(dir: &Path) -> Result<Self, StoreError> {
        let (schema, fields) = schema();
        let settings = IndexSettings { docstore_compress_dedicated_thread: false, ..IndexSettings::default() };
        let mut inner = tantivy::Index::create(mmap(dir)?, schema, settings)?;
        inner.set_tokenizers(tokenizers());
        Ok(Self { inner, fields, dir: dir.to_owned(), progress: Progress::default() })
    }

    fn load(dir: &Path, directory: Box<dyn tantivy::Directory>) -> Result<Self, StoreError> {
        if !tantivy::Index::exists(&*directory).map_err(TantivyError::from)? {
            return Err(StoreError::NoIndex { dir: dir.to_owned() });
        }
        let mut inner = tantivy::Index::open(directory)?;
        inner.set_tokenizers(tokenizers());
        let (schema, fields) = schema();
        if inner.schema() != schema {
            return Err(StoreError::OtherFormat { dir: dir.to_owned() });
        }
        let progress = match inner.load_metas()?.payload {
            None => Progress::default(),
            Some(text) => serde_json::from_str(&text).map_err(|e| damaged(dir, format!("commit payload: {e}")))?,
        };
        Ok(Self { inner, fields, dir: dir.to_owned(), progress })
    }

    /// tantivy reads flipped bits as other numbers; only the checksums tell.
    fn verify(&self) -> Result<(), StoreError> {
        if size_of_dir(&self.dir) > VERIFY_UP_TO {
            return Ok(());
        }
        let bad = self.inner.validate_checksum()?;
        match bad.iter().next() {
            None => self.verify_versions(),
            Some(file) => Err(damaged(&self.dir, format!("`{}` has another checksum", file.display()))),
        }
    }

    /// Behind each file tantivy says which version wrote it, and no checksum covers that. A segment is written by one.
    fn verify_versions(&self) -> Result<(), StoreError> {
        let failed = |source| StoreError::Io { path: self.dir.clone(), source };
        let in_use: HashSet<String> = self.inner.searchable_segment_ids()?.iter().map(SegmentId::uuid_string).collect();
        let (directory, mut versions) = (mmap(&self.dir)?, HashMap::new());
        for entry in fs::read_dir(&self.dir).map_err(failed)? {
            let name = entry.map_err(failed)?.file_name().into_string().unwrap_or_default();
            // `<segment>.<opstamp>.del` may be of a later version.
            let Some((segment, _)) = name.split_once('.').filter(|(_, kind)| !kind.contains('.')) else { continue };
            if !in_use.contains(segment) {
                continue;
            }
            let file = directory.open_read(Path::new(&name)).map_err(TantivyError::from)?;
            let (footer, _) = Footer::extract_footer(file).map_err(failed)?;
            if *versions.entry(segment.to_owned()).or_insert_with(|| footer.version.clone()) != footer.version {
                return Err(damaged(&self.dir, format!("`{name}` is of another version than its segment")));
            }
        }
        Ok(())
    }
}

fn mmap(dir: &Path) -> Result<Sealed, StoreError> {
    MmapDirectory::open(dir).map(Sealed).map_err(|e| StoreError::Index(e.into()))
}

/// Runs `work`; what tantivy says, or panics, about damaged files becomes [`StoreError::Damaged`].
pub(super) fn guarded<T>(dir: &Path, work: impl FnOnce() -> Result<T, StoreError>) -> Result<T, StoreError> {
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(Err(StoreError::Index(e))) => Err(classify(dir, e)),
        Ok(result) => result,
        Err(_) => Err(damaged(dir, "its files contradict each other")),
    }
}

/// Damage is whatever another try will not cure; a full disk or a missing right is not damage.
pub(super) fn classify(dir: &Path, e: TantivyError) -> StoreError {
    match e {
        TantivyError::IncompatibleIndex(_) => StoreError::OtherFormat { dir: dir.to_owned() },
        TantivyError::LockFailure(..) => StoreError::Busy { dir: dir.to_owned() },
        TantivyError::DataCorruption(_)
        | TantivyError::InternalError(_)
        | TantivyError::SchemaError(_)
        | TantivyError::OpenReadError(OpenReadError::FileDoesNotExist(_)) => damaged(dir, e.to_string()),
        TantivyError::OpenReadError(OpenReadError::IncompatibleIndex(_)) => {
            StoreError::OtherFormat { dir: dir.to_owned() }
        }
        TantivyError::IoError(ref io)
        | TantivyError::OpenReadError(OpenReadError::IoError { io_error: ref io, .. })
            if is_content(io) =>
        {
            damaged(dir, e.to_string())
        }
        e => StoreError::Index(e),
    }
}

fn is_content(e: &io::Error) -> bool {
    use io::ErrorKind::{InvalidData, InvalidInput, Other, UnexpectedEof};
    e.raw_os_error().is_none() && matches!(e.kind(), InvalidData | InvalidInput | UnexpectedEof | Other)
}

pub(super) fn damaged(dir: &Path, what: impl Into<String>) -> StoreError {
    StoreError::Damaged { dir: dir.to_owned(), what: what.into() }
}

/// Nothing but lock files (their names start with a dot) in it, or not there.
fn is_unused(dir: &Path) -> io::Result<bool> {
    match fs::read_dir(dir) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(true),
        Err(e) => Err(e),
        Ok(mut entries) => Ok(!entries.any(|e| e.is_ok_and(|e| !e.file_name().as_encoded_bytes().starts_with(b".")))),
    }
}

fn size_of_dir(dir: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(dir) else { return 0 };
    entries.flatten().filter_map(|e| e.metadata().ok()).map(|m| m.len()).sum()
}
