//! The file operations of the writer, one by one, so that tests can make each of them fail or lose power between
//! them; and the names in a journal's directory.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::Errno;

/// What the writer asks of a disk. Nothing is durable before its `sync`, no name before its `sync_dir`.
pub(super) trait Disk: Send {
    /// A new empty file, 0600. A leftover of the same name is removed, not reused: its sync may have failed.
    fn create(&self, path: &Path) -> io::Result<File> {
        match fs::remove_file(path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
            _ => private_file().create_new(true).open(path),
        }
    }

    /// Takes the space now, so that a full disk shows here and not in the middle of a commit.
    fn reserve(&self, file: &File, bytes: u64) -> io::Result<()> {
        match fallocate(file, FallocateFlags::KEEP_SIZE, 0, bytes) {
            Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) | Ok(()) => Ok(()),
            Err(e) => Err(e.into()),
        }
    }

    fn write_at(&self, file: &File, bytes: &[u8], at: u64) -> io::Result<()> {
        file.write_all_at(bytes, at)
    }

    fn truncate(&self, file: &File, len: u64) -> io::Result<()> {
        file.set_len(len)
    }

    fn sync(&self, file: &File) -> io::Result<()> {
        file.sync_data()
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        sync_dir(dir)
    }
}

/// The disk there is.
pub(super) struct RealDisk;

impl Disk for RealDisk {}

/// Says yes to every sync without doing it: for measuring what durability costs.
pub(super) struct UnsafeDisk;

impl Disk for UnsafeDisk {
    fn sync(&self, _: &File) -> io::Result<()> {
        Ok(())
    }
}

pub(super) fn private_file() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).mode(0o600);
    options
}

pub(super) fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

/// Creates a directory (and its parents), 0700, and makes its name durable.
pub(super) fn create_private_dir(dir: &Path) -> io::Result<()> {
    if dir.is_dir() {
        return Ok(());
    }
    DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    dir.parent().filter(|p| !p.as_os_str().is_empty()).map_or(Ok(()), sync_dir)
}

pub(super) fn segment_path(dir: &Path, first_lsn: u64) -> PathBuf {
    dir.join(format!("{first_lsn:020}.wal"))
}

/// First LSNs of the segments in `dir`, ascending, with their sizes in bytes.
pub(super) fn list_segments(dir: &Path) -> io::Result<Vec<(u64, u64)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let name = entry.file_name();
        let Some(digits) = name.to_str().and_then(|n| n.strip_suffix(".wal")).filter(|d| d.len() == 20) else {
            continue;
        };
        let Ok(first) = digits.parse() else { continue };
        match entry.metadata() {
            Ok(meta) => found.push((first, meta.len())),
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(e),
        }
    }
    found.sort_unstable();
    Ok(found)
}
