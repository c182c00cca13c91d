//! The bytes of a segment: header pages, commit blocks, records. Pure: no file is opened here.
//!
//! ```text
//! segment = header page, the same page again, then blocks, each on a 4 KiB boundary
//! header  = magic 8 | format 4 | min_reader 4 | id 8 | first_lsn 8 | salt 16
//!           | previous: first_lsn 8, len 8, blake3 32 | flags 4 | crc32 4
//! block   = marker 8 | first_lsn 8 | durable_before 8 | n_records 4 | block_len 4 | flags 4 | crc32 4, records, zeros
//! record  = stored_len 4 | raw_len 4 | kind 2 | flags 2 | lsn 8 | xxh3(payload) 8 | check 4, payload
//! ```
//! Integers are little-endian. Payloads are written by attackers, so nothing is ever found by its shape alone:
//! marker and check are keyed with the segment's secret salt *and* the position in the file. Bytes copied from a
//! real block or record are therefore worthless anywhere else.

use xxhash_rust::xxh3::xxh3_64_with_seed;

pub(super) const PAGE: u64 = 4096;
/// Two copies of the header page: the salt in it is the key to everything else in the segment.
pub(super) const HEADER_LEN: u64 = 2 * PAGE;
pub(super) const BLOCK_HEAD: usize = 40;
pub(super) const RECORD_HEAD: usize = 32;
/// The format written here, and the newest one read here.
pub(super) const FORMAT: u32 = 1;
/// Payload is one zstd frame; otherwise it is stored as it came.
pub(super) const ZSTD: u16 = 1;

const MAGIC: &[u8; 8] = b"LAPWJRNL";
const HEAD_BYTES: usize = 104;

/// What a segment says about the one before it: a hash chain over the whole log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Chain {
    /// First LSN of the previous segment, 0 when there was none.
    pub first: u64,
    /// Bytes of it that hold acknowledged blocks.
    pub len: u64,
    /// BLAKE3 of those bytes.
    pub hash: [u8; 32],
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub id: u64,
    pub first_lsn: u64,
    pub salt: [u8; 16],
    pub previous: Chain,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BadHeader {
    Damaged,
    /// Written by a version whose files this one must not touch.
    Newer(u32),
}

impl Header {
    /// One header page; the segment starts with it twice.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(PAGE as usize);
        out.extend(MAGIC);
        out.extend(FORMAT.to_le_bytes());
        out.extend(FORMAT.to_le_bytes());
        out.extend(self.id.to_le_bytes());
        out.extend(self.first_lsn.to_le_bytes());
        out.extend(self.salt);
        out.extend(self.previous.first.to_le_bytes());
        out.extend(self.previous.len.to_le_bytes());
        out.extend(self.previous.hash);
        out.extend(0u32.to_le_bytes());
        out.extend(crc32fast::hash(&out).to_le_bytes());
        out.resize(PAGE as usize, 0);
        out
    }

    pub fn decode(page: &[u8]) -> Result<Self, BadHeader> {
        let whole = page.len() >= HEAD_BYTES && page.starts_with(MAGIC);
        if !whole || crc32fast::hash(&page[..HEAD_BYTES - 4]) != u32_at(page, HEAD_BYTES - 4) {
            return Err(BadHeader::Damaged);
        }
        if u32_at(page, 12) > FORMAT {
            return Err(BadHeader::Newer(u32_at(page, 12)));
        }
        Ok(Self {
            id: u64_at(page, 16),
            first_lsn: u64_at(page, 24),
            salt: array_at(page, 32),
            previous: Chain { first: u64_at(page, 48), len: u64_at(page, 56), hash: array_at(page, 64) },
        })
    }
}

/// What the salt is turned into, once per segment.
#[derive(Clone)]
pub(super) struct Keys {
    marker: [u8; 32],
    seed: u64,
}

impl Keys {
    pub fn new(salt: &[u8; 16]) -> Self {
        let marker = *blake3::hash(salt).as_bytes();
        let seed = u64_at(blake3::keyed_hash(&marker, b"records").as_bytes(), 0);
        Self { marker, seed }
    }

    fn marker(&self, at: u64) -> u64 {
        u64_at(blake3::keyed_hash(&self.marker, &at.to_le_bytes()).as_bytes(), 0)
    }

    fn block_crc(&self, head: &[u8]) -> u32 {
        let mut crc = crc32fast::Hasher::new();
        crc.update(head);
        crc.update(&self.marker);
        crc.finalize()
    }

    fn record_check(&self, head: &[u8], at: u64) -> u32 {
        let mut bytes = [0; RECORD_HEAD - 4 + 8];
        bytes[..RECORD_HEAD - 4].copy_from_slice(head);
        bytes[RECORD_HEAD - 4..].copy_from_slice(&at.to_le_bytes());
        xxh3_64_with_seed(&bytes, self.seed) as u32
    }
}

/// The header of a commit block. With no records it only says what was durable when it was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Block {
    pub first_lsn: u64,
    pub durable_before: u64,
    pub n_records: u32,
    /// Bytes of header and records, without the zeros up to the next page.
    pub len: u32,
}

impl Block {
    /// The first LSN behind this block.
    pub fn end(&self) -> u64 {
        self.first_lsn + u64::from(self.n_records)
    }

    fn encode(&self, keys: &Keys, at: u64) -> [u8; BLOCK_HEAD] {
        let mut out = [0; BLOCK_HEAD];
        out[..8].copy_from_slice(&keys.marker(at).to_le_bytes());
        out[8..16].copy_from_slice(&self.first_lsn.to_le_bytes());
        out[16..24].copy_from_slice(&self.durable_before.to_le_bytes());
        out[24..28].copy_from_slice(&self.n_records.to_le_bytes());
        out[28..32].copy_from_slice(&self.len.to_le_bytes());
        let crc = keys.block_crc(&out[..36]);
        out[36..].copy_from_slice(&crc.to_le_bytes());
        out
    }

    /// The block that starts at file offset `at`, if `head` is the header of one written exactly there.
    pub fn decode(head: &[u8; BLOCK_HEAD], keys: &Keys, at: u64) -> Option<Self> {
        let genuine = u64_at(head, 0) == keys.marker(at) && u32_at(head, 36) == keys.block_crc(&head[..36]);
        genuine.then(|| Self {
            first_lsn: u64_at(head, 8),
            durable_before: u64_at(head, 16),
            n_records: u32_at(head, 24),
            len: u32_at(head, 28),
        })
    }
}

/// A payload in the form it goes to disk.
pub(super) struct Stored {
    pub kind: u8,
    flags: u16,
    raw_len: u32,
    bytes: Vec<u8>,
}

impl Stored {
    /// Compresses at zstd level 1; keeps the original when that does not make it smaller.
    pub fn new(kind: u8, payload: Vec<u8>) -> Self {
        let raw_len = payload.len() as u32;
        match zstd::bulk::compress(&payload, 1) {
            Ok(small) if small.len() < payload.len() => Self { kind, flags: ZSTD, raw_len, bytes: small },
            _ => Self { kind, flags: 0, raw_len, bytes: payload },
        }
    }

    pub fn framed_len(&self) -> u64 {
        (RECORD_HEAD + self.bytes.len()) as u64
    }
}

/// Writes one whole block into `out`, for file offset `at`, padded to the page.
pub(super) fn frame(out: &mut Vec<u8>, keys: &Keys, at: u64, first_lsn: u64, records: &[Stored]) {
    out.clear();
    out.resize(BLOCK_HEAD, 0);
    for (lsn, record) in (first_lsn..).zip(records) {
        let position = at + out.len() as u64;
        let head = RecordHead {
            stored_len: record.bytes.len() as u32,
            raw_len: record.raw_len,
            kind: record.kind,
            flags: record.flags,
            lsn,
            hash: xxh3_64_with_seed(&record.bytes, keys.seed),
        };
        out.extend(head.encode(keys, position));
        out.extend(&record.bytes);
    }
    let n_records = records.len() as u32;
    let block = Block { first_lsn, durable_before: first_lsn - 1, n_records, len: out.len() as u32 };
    out[..BLOCK_HEAD].copy_from_slice(&block.encode(keys, at));
    out.resize(out.len().next_multiple_of(PAGE as usize), 0);
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RecordHead {
    pub stored_len: u32,
    pub raw_len: u32,
    pub kind: u8,
    pub flags: u16,
    pub lsn: u64,
    hash: u64,
}

impl RecordHead {
    fn encode(&self, keys: &Keys, at: u64) -> [u8; RECORD_HEAD] {
        let mut out = [0; RECORD_HEAD];
        out[..4].copy_from_slice(&self.stored_len.to_le_bytes());
        out[4..8].copy_from_slice(&self.raw_len.to_le_bytes());
        out[8..10].copy_from_slice(&u16::from(self.kind).to_le_bytes());
        out[10..12].copy_from_slice(&self.flags.to_le_bytes());
        out[12..20].copy_from_slice(&self.lsn.to_le_bytes());
        out[20..28].copy_from_slice(&self.hash.to_le_bytes());
        let check = keys.record_check(&out[..28], at);
        out[28..].copy_from_slice(&check.to_le_bytes());
        out
    }

    pub fn decode(head: &[u8], keys: &Keys, at: u64) -> Option<Self> {
        (u32_at(head, 28) == keys.record_check(&head[..28], at)).then(|| Self {
            stored_len: u32_at(head, 0),
            raw_len: u32_at(head, 4),
            kind: head[8],
            flags: u16_at(head, 10),
            lsn: u64_at(head, 12),
            hash: u64_at(head, 20),
        })
    }

    pub fn holds(&self, keys: &Keys, stored: &[u8]) -> bool {
        xxh3_64_with_seed(stored, keys.seed) == self.hash
    }
}

/// One LSN, or a run of LSNs that cannot be read, in a stretch of segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Slot {
    /// `at` is where the stored payload starts in the stretch.
    Good {
        head: RecordHead,
        at: usize,
    },
    Lost {
        from: u64,
        to: u64,
    },
}

/// Finds the records `lsn..end` in `bytes`, which start with a block header at file offset `at`.
///
/// A damaged record costs itself only: a bad payload is stepped over by its length, behind a bad record header (or
/// block header, in a stretch of several) the next genuine record header is searched byte by byte.
pub(super) fn slots(keys: &Keys, bytes: &[u8], at: u64, lsn: u64, end: u64) -> Vec<Slot> {
    let mut found = Vec::new();
    let (mut pos, mut want) = (BLOCK_HEAD, lsn);
    let genuine = |pos: usize, want: u64| {
        let head = bytes.get(pos..pos + RECORD_HEAD)?;
        // The cheap test first: this runs for every byte of a damaged stretch.
        if !(want..end).contains(&u64_at(head, 12)) {
            return None;
        }
        let head = RecordHead::decode(head, keys, at + pos as u64)?;
        let stored = bytes.get(pos + RECORD_HEAD..pos + RECORD_HEAD + head.stored_len as usize)?;
        Some((pos + RECORD_HEAD, head, head.holds(keys, stored)))
    };
    while want < end {
        let Some((at, head, intact)) = (pos..bytes.len()).find_map(|p| genuine(p, want)) else {
            lose(&mut found, want, end - 1);
            break;
        };
        if head.lsn > want {
            lose(&mut found, want, head.lsn - 1);
        }
        if intact {
            found.push(Slot::Good { head, at })
        } else {
            lose(&mut found, head.lsn, head.lsn)
        }
        (pos, want) = (at + head.stored_len as usize, head.lsn + 1);
    }
    found
}

fn lose(slots: &mut Vec<Slot>, from: u64, to: u64) {
    match slots.last_mut() {
        Some(Slot::Lost { to: last, .. }) => *last = to,
        _ => slots.push(Slot::Lost { from, to }),
    }
}

fn array_at<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut out = [0; N];
    out.copy_from_slice(&bytes[at..at + N]);
    out
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(array_at(bytes, at))
}

pub(super) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(array_at(bytes, at))
}

pub(super) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(array_at(bytes, at))
}
