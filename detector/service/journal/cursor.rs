//! A durable number: how far somebody has come. Two slots on pages of their own, written in turn, so that a torn
//! write costs the newest value and never both. A value that is too old means doing something again, never skipping.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::Error;
use super::disk::{Disk, RealDisk, private_file};
use super::segment::{PAGE, u32_at, u64_at};

const MAGIC: &[u8; 8] = b"LAPWCURS";
const FORMAT: u32 = 1;
const SLOT: usize = 32;

/// magic 8 | format 4 | seq 8 | value 8 | crc32 4, at offset 0 and at 4096.
pub struct CursorFile {
    disk: Box<dyn Disk>,
    path: PathBuf,
    file: File,
    seq: u64,
    value: u64,
    repaired: bool,
}

impl CursorFile {
    /// Opens or creates (with value 0). Errors: `Io`, `Newer`, `Cursor` when neither slot is readable.
    pub fn open(path: &Path) -> Result<Self, Error> {
        Self::open_on(path, Box::new(RealDisk))
    }

    pub(super) fn open_on(path: &Path, disk: Box<dyn Disk>) -> Result<Self, Error> {
        let io = |source| Error::Io { path: path.to_owned(), source };
        if !path.exists() {
            create(path, &*disk).map_err(io)?;
        }
        let file = private_file().truncate(false).open(path).map_err(io)?;
        let [first, second] = slots(&file, path)?;
        let (seq, value) = newer(first, second, path)?;
        let repaired = first.is_none() || second.is_none();
        Ok(Self { disk, path: path.to_owned(), file, seq, value, repaired })
    }

    /// The value in the file at `path`, without opening it for writing. Errors as [`CursorFile::open`], and `Io` when
    /// there is none.
    pub fn peek(path: &Path) -> Result<u64, Error> {
        let file = File::open(path).map_err(|source| Error::Io { path: path.to_owned(), source })?;
        let [first, second] = slots(&file, path)?;
        newer(first, second, path).map(|(_, value)| value)
    }

    pub fn get(&self) -> u64 {
        self.value
    }

    /// One slot was unreadable when the file was opened: the value may be one step old.
    pub fn repaired(&self) -> bool {
        self.repaired
    }

    /// Durable when it returns. After an error the old value counts.
    pub fn set(&mut self, value: u64) -> Result<(), Error> {
        if value == self.value {
            return Ok(());
        }
        let seq = self.seq + 1;
        let written = self
            .disk
            .write_at(&self.file, &encode(seq, value), (seq % 2) * PAGE)
            .and_then(|()| self.disk.sync(&self.file))
            .map_err(|source| Error::Io { path: self.path.clone(), source });
        written.map(|()| (self.seq, self.value) = (seq, value))
    }
}

/// Under a temporary name first, so that a file under the real name always has both slots.
fn create(path: &Path, disk: &dyn Disk) -> io::Result<()> {
    let draft = path.with_extension("cursor-new");
    let file = disk.create(&draft)?;
    disk.write_at(&file, &encode(0, 0), 0)?;
    disk.write_at(&file, &encode(1, 0), PAGE)?;
    disk.sync(&file)?;
    disk.rename(&draft, path)?;
    path.parent().filter(|p| !p.as_os_str().is_empty()).map_or(Ok(()), |dir| disk.sync_dir(dir))
}

/// seq and value of both slots, `None` for one that is damaged.
fn slots(file: &File, path: &Path) -> Result<[Option<(u64, u64)>; 2], Error> {
    let read = |at| {
        let mut bytes = [0; SLOT];
        match file.read_exact_at(&mut bytes, at) {
            Err(e) if e.kind() != io::ErrorKind::UnexpectedEof => Err(Error::Io { path: path.to_owned(), source: e }),
            _ => decode(&bytes, path),
        }
    };
    Ok([read(0)?, read(PAGE)?])
}

fn newer(first: Option<(u64, u64)>, second: Option<(u64, u64)>, path: &Path) -> Result<(u64, u64), Error> {
    first.max(second).ok_or_else(|| Error::Cursor { path: path.to_owned() })
}

fn encode(seq: u64, value: u64) -> [u8; SLOT] {
    let mut out = [0; SLOT];
    out[..8].copy_from_slice(MAGIC);
    out[8..12].copy_from_slice(&FORMAT.to_le_bytes());
    out[12..20].copy_from_slice(&seq.to_le_bytes());
    out[20..28].copy_from_slice(&value.to_le_bytes());
    let crc = crc32fast::hash(&out[..28]);
    out[28..].copy_from_slice(&crc.to_le_bytes());
    out
}

/// seq and value; `None` when damaged.
fn decode(bytes: &[u8; SLOT], path: &Path) -> Result<Option<(u64, u64)>, Error> {
    if !bytes.starts_with(MAGIC) || u32_at(bytes, 28) != crc32fast::hash(&bytes[..28]) {
        return Ok(None);
    }
    match u32_at(bytes, 8) {
        format if format > FORMAT => Err(Error::Newer { path: path.to_owned(), format }),
        _ => Ok(Some((u64_at(bytes, 12), u64_at(bytes, 20)))),
    }
}
