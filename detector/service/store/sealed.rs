//! A directory that gives a checksum to the two files tantivy writes without one: the list of segments, which says where in
//! the journals the index is, and the list of files.

use std::io;
use std::path::Path;
use std::sync::Arc;

use tantivy::Directory;
use tantivy::directory::error::{DeleteError, LockError, OpenReadError, OpenWriteError};
use tantivy::directory::{DirectoryLock, FileHandle, Lock, MmapDirectory, WatchCallback, WatchHandle, WritePtr};

/// Behind the JSON: line feed, CRC-32 of what stands before in eight hexadecimal digits, line feed.
const SEAL: usize = 10;

#[derive(Clone, Debug)]
pub(super) struct Sealed(pub MmapDirectory);

fn seal(data: &[u8]) -> Vec<u8> {
    let mut sealed = data.to_vec();
    sealed.extend(format!("\n{:08x}\n", crc32fast::hash(data)).into_bytes());
    sealed
}

/// The data before the seal; a file of an earlier version has none. `None`: damaged.
fn unseal(mut bytes: Vec<u8>) -> Option<Vec<u8>> {
    let Some(data) = bytes.len().checked_sub(SEAL) else { return Some(bytes) };
    let [b'\n', digits @ .., b'\n'] = &bytes[data..] else { return Some(bytes) };
    if digits != format!("{:08x}", crc32fast::hash(&bytes[..data])).as_bytes() {
        return None;
    }
    bytes.truncate(data);
    Some(bytes)
}

impl Directory for Sealed {
    fn get_file_handle(&self, path: &Path) -> Result<Arc<dyn FileHandle>, OpenReadError> {
        self.0.get_file_handle(path)
    }

    fn delete(&self, path: &Path) -> Result<(), DeleteError> {
        self.0.delete(path)
    }

    fn exists(&self, path: &Path) -> Result<bool, OpenReadError> {
        self.0.exists(path)
    }

    fn open_write(&self, path: &Path) -> Result<WritePtr, OpenWriteError> {
        self.0.open_write(path)
    }

    fn atomic_read(&self, path: &Path) -> Result<Vec<u8>, OpenReadError> {
        unseal(self.0.atomic_read(path)?).ok_or_else(|| {
            let error = io::Error::new(io::ErrorKind::InvalidData, "has another checksum");
            OpenReadError::wrap_io_error(error, path.to_owned())
        })
    }

    fn atomic_write(&self, path: &Path, data: &[u8]) -> io::Result<()> {
        self.0.atomic_write(path, &seal(data))
    }

    fn sync_directory(&self) -> io::Result<()> {
        self.0.sync_directory()
    }

    fn acquire_lock(&self, lock: &Lock) -> Result<DirectoryLock, LockError> {
        self.0.acquire_lock(lock)
    }

    fn watch(&self, callback: WatchCallback) -> tantivy::Result<WatchHandle> {
        self.0.watch(callback)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_flipped_bit_is_noticed() {
        let whole = br#"{"segments":[]}"#;
        let sealed = seal(whole);
        assert_eq!(unseal(sealed.clone()).as_deref(), Some(&whole[..]));
        for bit in 0..sealed.len() * 8 {
            let mut flipped = sealed.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            // A seal that is none any more stays behind the JSON, which then is none.
            let read = unseal(flipped).is_some_and(|data| serde_json::from_slice::<serde_json::Value>(&data).is_ok());
            assert!(!read, "bit {bit}");
        }
    }

    #[test]
    fn what_an_earlier_version_wrote_is_read() {
        for old in [&b"{}"[..], b"{\"segments\":[1, 2, 3]}\n", b""] {
            assert_eq!(unseal(old.to_vec()).as_deref(), Some(old));
        }
    }
}
