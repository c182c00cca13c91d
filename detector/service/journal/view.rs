//! One segment, read only: which stretch of the file holds the next LSNs, and is it intact. Decides nothing about
//! the log as a whole; [`super::recover`] and [`super::reader`] do.

use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use super::segment::{BLOCK_HEAD, BadHeader, Block, Header, Keys, PAGE, RECORD_HEAD, RecordHead, Slot, ZSTD, slots};
use super::{Error, Lsn, Record};

pub(super) struct View {
    pub file: File,
    pub header: Header,
    /// One of the two header pages is damaged; the other was good.
    pub header_copy_lost: bool,
    /// Pages the disk cannot read count as damaged instead of being an error.
    pub salvage: bool,
    keys: Keys,
}

/// Where a segment ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Bound {
    /// Every LSN below this one was acknowledged and belongs here: what is absent is lost.
    Sealed(u64),
    /// The last segment, without its writer: behind the last block there may be half a commit, which nobody was
    /// promised.
    Open,
}

/// A stretch of segment and the LSNs `lsn..end` it should hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Region {
    pub at: u64,
    pub end_at: u64,
    /// Where the next region starts.
    pub next_at: u64,
    pub lsn: u64,
    pub end: u64,
    /// It starts with a genuine block header. Its records may still be damaged.
    pub intact: bool,
}

impl View {
    /// Errors: `Io`, `Header` when both header pages are damaged, `Newer`.
    pub fn open(path: &Path, salvage: bool) -> Result<Self, Error> {
        let io = |source| Error::Io { path: path.to_owned(), source };
        let file = File::open(path).map_err(io)?;
        let mut pages = Vec::with_capacity(2);
        for at in [0, PAGE] {
            let mut page = vec![0; PAGE as usize];
            read_up_to(&file, &mut page, at, salvage).map_err(io)?;
            pages.push(Header::decode(&page));
        }
        let header_copy_lost = pages.contains(&Err(BadHeader::Damaged));
        let newer = pages.iter().find_map(|p| if let Err(BadHeader::Newer(n)) = p { Some(*n) } else { None });
        match pages.into_iter().find_map(Result::ok) {
            Some(header) => {
                let keys = Keys::new(&header.salt);
                Ok(Self { file, header, header_copy_lost, salvage, keys })
            }
            None => Err(newer.map_or_else(
                || Error::Header { path: path.to_owned() },
                |format| Error::Newer { path: path.to_owned(), format },
            )),
        }
    }

    pub fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    /// The path no longer names the file that is open here.
    pub fn replaced(&self, path: &Path) -> io::Result<bool> {
        Ok(std::fs::metadata(path)?.ino() != self.file.metadata()?.ino())
    }

    /// The stretch at `at`, which should start with `lsn`; `None` at the end of the segment.
    pub fn region(&self, at: u64, lsn: u64, bound: Bound) -> io::Result<Option<Region>> {
        let limit = match bound {
            Bound::Sealed(end) if lsn >= end => return Ok(None),
            Bound::Sealed(end) => end,
            Bound::Open => u64::MAX,
        };
        let len = self.len()?;
        if let Some(block) = self.block_at(at, len)?.filter(|b| b.first_lsn == lsn) {
            let end_at = at + u64::from(block.len);
            let (next_at, end) = (end_at.next_multiple_of(PAGE), block.end().min(limit));
            return Ok(Some(Region { at, end_at, next_at, lsn, end, intact: true }));
        }
        // A block behind this place proves that this place was acknowledged, and says how far it reached.
        let proof = |b: &Block| b.first_lsn == lsn || (b.first_lsn > lsn && b.durable_before >= lsn);
        let damaged = |end_at, next_at, end| Region { at, end_at, next_at, lsn, end, intact: false };
        Ok(match (self.probe(at + PAGE, len, proof)?, bound) {
            (Some((next, block)), _) => Some(damaged(next, next, block.first_lsn.min(limit))),
            // `next_at` stays: the writer may be at work behind this place, what it adds is found by probing again.
            (None, Bound::Sealed(end)) => Some(damaged(len.max(at), at, end)),
            (None, Bound::Open) => None,
        })
    }

    /// Reads a region. `None`: this is a commit that was not finished, the log ends before it.
    pub fn read(&self, region: &Region, bound: Bound) -> io::Result<Option<(Vec<u8>, Vec<Slot>)>> {
        let mut bytes = vec![0; (region.end_at - region.at) as usize];
        let got = read_up_to(&self.file, &mut bytes, region.at, self.salvage)?;
        bytes.truncate(got);
        let found = slots(&self.keys, &bytes, region.at, region.lsn, region.end);
        let torn = bound == Bound::Open
            && found.iter().any(|s| matches!(s, Slot::Lost { .. }))
            && self.probe(region.next_at, self.len()?, |b| b.durable_before + 1 >= region.end)?.is_none();
        Ok((!torn).then_some((bytes, found)))
    }

    /// One record out of an intact region without reading the others. `None`: read the region to learn why.
    pub fn pick(&self, region: &Region, lsn: u64) -> io::Result<Option<Record>> {
        let mut at = region.at + BLOCK_HEAD as u64;
        while region.intact && at + RECORD_HEAD as u64 <= region.end_at {
            let mut head = [0; RECORD_HEAD];
            self.file.read_exact_at(&mut head, at)?;
            let Some(head) = RecordHead::decode(&head, &self.keys, at) else { break };
            at += RECORD_HEAD as u64;
            if head.lsn == lsn && at + u64::from(head.stored_len) <= region.end_at {
                let mut stored = vec![0; head.stored_len as usize];
                self.file.read_exact_at(&mut stored, at)?;
                return Ok(if head.holds(&self.keys, &stored) { unpack(&head, &stored) } else { None });
            }
            at += u64::from(head.stored_len);
        }
        Ok(None)
    }

    /// The block that starts at `at` and lies inside the file.
    fn block_at(&self, at: u64, len: u64) -> io::Result<Option<Block>> {
        if at + BLOCK_HEAD as u64 > len {
            return Ok(None);
        }
        let mut head = [0; BLOCK_HEAD];
        if read_up_to(&self.file, &mut head, at, self.salvage)? < head.len() {
            return Ok(None);
        }
        Ok(Block::decode(&head, &self.keys, at).filter(|b| at + u64::from(b.len) <= len))
    }

    /// The first genuine block at or behind `from` that `wanted` accepts. A block cut off by the end of the file
    /// counts too: its header alone is the proof that is looked for.
    fn probe(&self, from: u64, len: u64, wanted: impl Fn(&Block) -> bool) -> io::Result<Option<(u64, Block)>> {
        let mut at = from;
        while at + BLOCK_HEAD as u64 <= len {
            let mut head = [0; BLOCK_HEAD];
            if read_up_to(&self.file, &mut head, at, self.salvage)? < head.len() {
                break;
            }
            if let Some(block) = Block::decode(&head, &self.keys, at).filter(&wanted) {
                return Ok(Some((at, block)));
            }
            at += PAGE;
        }
        Ok(None)
    }
}

/// The record of a good slot; `None` when its compressed form does not open, which its checksum rules out.
pub(super) fn unpack(head: &RecordHead, stored: &[u8]) -> Option<Record> {
    let payload = if head.flags & ZSTD == 0 {
        stored.to_vec()
    } else {
        zstd::bulk::decompress(stored, head.raw_len as usize).ok()?
    };
    Some(Record { lsn: Lsn(head.lsn), kind: head.kind, payload })
}

/// BLAKE3 of the first `len` bytes.
pub(super) fn hash_prefix(file: &File, len: u64) -> io::Result<[u8; 32]> {
    let mut hasher = blake3::Hasher::new();
    let mut buffer = vec![0; 1 << 20];
    let mut at = 0;
    while at < len {
        let part = buffer.len().min((len - at) as usize);
        let got = read_up_to(file, &mut buffer[..part], at, true)?;
        if got == 0 {
            break;
        }
        hasher.update(&buffer[..got]);
        at += got as u64;
    }
    Ok(*hasher.finalize().as_bytes())
}

/// Copies `at..` of a file (`len` bytes) to a new private file.
pub(super) fn copy_range(file: &File, at: u64, len: u64, to: PathBuf) -> io::Result<PathBuf> {
    let target = super::disk::private_file().truncate(true).open(&to)?;
    let mut buffer = vec![0; 1 << 20];
    let mut done = 0;
    while done < len {
        let part = buffer.len().min((len - done) as usize);
        let got = read_up_to(file, &mut buffer[..part], at + done, true)?;
        if got == 0 {
            break;
        }
        target.write_all_at(&buffer[..got], done)?;
        done += got as u64;
    }
    target.sync_all()?;
    Ok(to)
}

/// Fills as much of `buffer` as the file has; returns how much that was. With `salvage`, pages that the disk cannot
/// read are zeros, which no checksum takes for data.
fn read_up_to(file: &File, buffer: &mut [u8], at: u64, salvage: bool) -> io::Result<usize> {
    let mut got = 0;
    while got < buffer.len() {
        let here = at + got as u64;
        match read_at(file, &mut buffer[got..], here) {
            Ok(0) => break,
            Ok(n) => got += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) if salvage && is_unreadable(&e) => {
                let page = (PAGE - here % PAGE) as usize;
                let page = page.min(buffer.len() - got);
                // One page at a time: its neighbours may be readable.
                match read_at(file, &mut buffer[got..got + page], here) {
                    Ok(0) => break,
                    Ok(n) => got += n,
                    Err(_) => {
                        buffer[got..got + page].fill(0);
                        got += page;
                    }
                }
            }
            Err(e) => return Err(e),
        }
    }
    Ok(got)
}

/// The medium is at fault, not the way we asked.
pub(super) fn is_unreadable(e: &io::Error) -> bool {
    e.raw_os_error() == Some(rustix::io::Errno::IO.raw_os_error())
}

fn read_at(file: &File, buffer: &mut [u8], at: u64) -> io::Result<usize> {
    #[cfg(test)]
    if super::tests::is_bad(at, buffer.len()) {
        return Err(rustix::io::Errno::IO.into());
    }
    file.read_at(buffer, at)
}
