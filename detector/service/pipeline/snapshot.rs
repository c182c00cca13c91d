//! The engine's memory on disk, so that a restart replays seconds and not days.
//!
//! `state/engine-<lsn>.snap`: magic, XXH3 of what follows, zstd of JSON. Written to a temporary name,
//! synced, renamed, directory synced; the newest two are kept. A damaged snapshot is passed over for the
//! older one, and without any the journal is replayed from its start.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use xxhash_rust::xxh3::{Xxh3, xxh3_64};

use super::positions::Positions;
use super::rulebook;

const MAGIC: &[u8; 8] = b"LWSNAP01";
const KEPT: usize = 2;
/// JSON in front of the compression, bytes.
const BUFFER: usize = 64 << 10;

/// A snapshot and where in the two journals it belongs. The engine's memory is what makes its JSON; as it is read, it is that
/// JSON: another version may not understand it, the rest holds all the same.
#[derive(Debug, Serialize, Deserialize)]
pub struct Stored<E> {
    /// Everything up to this event LSN is in the engine's memory.
    pub lsn: u64,
    /// The alert journal held this much when it was taken.
    pub alert_lsn: u64,
    pub positions: Positions,
    /// Time of the engine, microseconds.
    #[serde(default)]
    pub now: i64,
    /// Which rules judged.
    #[serde(default)]
    pub rules: Option<rulebook::Id>,
    pub engine: E,
}

fn list(dir: &Path) -> io::Result<Vec<(u64, PathBuf)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        let name = path.file_name().and_then(|n| n.to_str()).unwrap_or_default();
        let lsn = name.strip_prefix("engine-").and_then(|n| n.strip_suffix(".snap")).and_then(|n| n.parse().ok());
        found.extend(lsn.map(|lsn: u64| (lsn, path)));
    }
    found.sort_unstable_by(|a, b| b.cmp(a));
    Ok(found)
}

/// What passes through on its way to a file.
struct Summed<W> {
    out: W,
    sum: Xxh3,
}

impl<W: Write> Write for Summed<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n = self.out.write(bytes)?;
        self.sum.update(&bytes[..n]);
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// Writes `stored` durably and removes all but the newest two. Nothing of its JSON is kept in memory: with many identities
/// it is hundreds of megabytes.
pub fn write<E: Serialize>(dir: &Path, stored: &Stored<E>) -> io::Result<()> {
    let temporary = dir.join("engine.tmp");
    let mut file = File::create(&temporary)?;
    file.write_all(MAGIC)?;
    file.write_all(&[0; 8])?;
    let body = Summed { out: BufWriter::new(&file), sum: Xxh3::new() };
    let mut json = BufWriter::with_capacity(BUFFER, zstd::Encoder::new(body, 1)?);
    serde_json::to_writer(&mut json, stored)?;
    let mut body = json.into_inner().map_err(io::IntoInnerError::into_error)?.finish()?;
    body.flush()?;
    file.write_all_at(&body.sum.digest().to_le_bytes(), MAGIC.len() as u64)?;
    drop(body);
    file.sync_data()?;
    fs::rename(&temporary, dir.join(format!("engine-{:020}.snap", stored.lsn)))?;
    File::open(dir)?.sync_all()?;
    for (_, old) in list(dir)?.into_iter().skip(KEPT) {
        fs::remove_file(old)?;
    }
    Ok(())
}

/// What `take` makes of the newest snapshot that is whole and lies not beyond `durable`.
pub fn newest<T>(dir: &Path, durable: u64, mut take: impl FnMut(Stored<&RawValue>) -> T) -> io::Result<Option<T>> {
    for (lsn, path) in list(dir)? {
        let taken = read(&path).and_then(|json| {
            let stored: Stored<&RawValue> = serde_json::from_slice(&json)?;
            Ok((stored.lsn <= durable).then(|| take(stored)))
        });
        match taken {
            Ok(Some(taken)) => return Ok(Some(taken)),
            Ok(None) => tracing::warn!(lsn, "snapshot lies beyond the journal and is passed over"),
            Err(error) => tracing::warn!(path = %path.display(), %error, "snapshot is damaged and is passed over"),
        }
    }
    Ok(None)
}

/// The JSON of a snapshot.
fn read(path: &Path) -> io::Result<Vec<u8>> {
    let damaged = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what.to_owned());
    let bytes = fs::read(path)?;
    let rest = bytes.strip_prefix(MAGIC).ok_or_else(|| damaged("not a snapshot of this version"))?;
    let (sum, body) = rest.split_first_chunk::<8>().ok_or_else(|| damaged("cut short"))?;
    if xxh3_64(body).to_le_bytes() != *sum {
        return Err(damaged("checksum does not fit"));
    }
    zstd::decode_all(body)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn stored(lsn: u64) -> Stored<BTreeMap<&'static str, &'static str>> {
        let engine = BTreeMap::from([("of", "a version to come")]);
        Stored { lsn, alert_lsn: 7, positions: Positions::default(), now: 0, rules: None, engine }
    }

    fn newest_lsn(dir: &Path, durable: u64) -> Option<u64> {
        newest(dir, durable, |stored| stored.lsn).expect("read")
    }

    #[test]
    fn every_released_format_can_be_read() {
        let formats = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/formats");
        for format in 1..=1 {
            let dir = formats.join(format!("{format}/state"));
            let place = newest(&dir, u64::MAX, |stored| (stored.lsn, stored.alert_lsn > 0)).expect("read");
            assert_eq!(place, Some((2, true)), "{}", dir.display());
        }
    }

    #[test]
    fn the_newest_whole_one_wins_and_two_are_kept() {
        let dir = tempfile::tempdir().expect("a directory");
        for lsn in [5, 9, 12] {
            write(dir.path(), &stored(lsn)).expect("written");
        }
        assert_eq!(list(dir.path()).expect("listed").len(), 2);
        assert_eq!(newest_lsn(dir.path(), 100), Some(12));
        assert_eq!(newest_lsn(dir.path(), 10), Some(9), "one beyond the journal is no use");

        let (_, path) = list(dir.path()).expect("listed").remove(0);
        let mut bytes = fs::read(&path).expect("read");
        let last = bytes.len() - 1;
        bytes[last] ^= 1;
        fs::write(&path, bytes).expect("written");
        assert_eq!(newest_lsn(dir.path(), 100), Some(9), "the damaged one is passed over");
    }

    #[test]
    fn none_is_an_answer() {
        let dir = tempfile::tempdir().expect("a directory");
        fs::write(dir.path().join("engine-1.snap"), "rubbish").expect("written");
        assert_eq!(newest_lsn(dir.path(), 100), None);
    }
}
