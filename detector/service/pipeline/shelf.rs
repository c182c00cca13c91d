//! Identities that memory has no room for, on disk: `state/baselines/<segment>.cold`.
//!
//! A segment is a magic number and records one after the other: length, XXH3, bytes. It is only ever appended to, and a
//! start begins a new one. Snapshots name places in segments: what they name is synced before them, and a segment goes
//! when neither of the two kept snapshots names it. After a crash the replay writes again what lay behind the snapshot.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use lapwing_engine::baseline::{Shelf, ShelfPlace};
use xxhash_rust::xxh3::xxh3_64;

const MAGIC: &[u8; 8] = b"LWCOLD01";
/// Length and checksum in front of a record.
const HEADER: usize = 12;
/// A segment that has grown to this is followed by the next.
const SEGMENT: u64 = 32 << 20;
/// Records are written when there are so many bytes of them, or a snapshot needs them.
const TAIL: usize = 256 << 10;

/// A handle on the segments of a directory.
#[derive(Clone, Debug)]
pub struct ColdFiles(Arc<Mutex<Files>>);

#[derive(Debug)]
struct Files {
    dir: PathBuf,
    /// Every segment with its bytes, those in the tail included.
    segments: BTreeMap<u32, (File, u64)>,
    /// The segment that is written to, once there is one.
    open: Option<u32>,
    /// What of it is not written yet.
    tail: Vec<u8>,
    /// Segments written to since they were synced last.
    unsynced: BTreeSet<u32>,
    /// What snapshots before the last one may name.
    named: BTreeSet<u32>,
    /// The first number that no file has had.
    next: u32,
}

impl ColdFiles {
    /// Opens what is there; no record is read before it is asked for. Files of another format are left alone: who is in
    /// them is learned anew.
    ///
    /// # Errors
    /// Where the directory or a file in it cannot be opened.
    pub fn open(dir: &Path) -> io::Result<Self> {
        fs::create_dir_all(dir)?;
        let (mut segments, mut next) = (BTreeMap::new(), 0);
        for entry in fs::read_dir(dir)? {
            let path = entry?.path();
            let name = path.file_name().and_then(|n| n.to_str()).unwrap_or_default();
            if let Some(number) = name.strip_suffix(".cold").and_then(|n| n.parse::<u32>().ok()) {
                next = next.max(number.saturating_add(1));
                let file = File::open(&path)?;
                let bytes = file.metadata()?.len();
                let mut magic = *MAGIC;
                let ours = bytes < MAGIC.len() as u64 || file.read_exact_at(&mut magic, 0).is_ok() && magic == *MAGIC;
                if ours {
                    segments.insert(number, (file, bytes));
                } else {
                    tracing::error!(
                        "`{}` is damaged or of another version; whose baselines are in it is learned anew",
                        path.display()
                    );
                }
            }
        }
        let named = segments.keys().copied().collect();
        let (open, tail, unsynced) = (None, Vec::new(), BTreeSet::new());
        Ok(Self(Arc::new(Mutex::new(Files { dir: dir.to_owned(), segments, open, tail, unsynced, named, next }))))
    }

    fn files(&self) -> MutexGuard<'_, Files> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes everything that was put durable.
    ///
    /// # Errors
    /// When the disk does not take it; a snapshot must not be written then.
    pub fn sync(&self) -> io::Result<()> {
        let mut files = self.files();
        files.flush()?;
        for segment in files.unsynced.clone() {
            if let Some((file, _)) = files.segments.get(&segment) {
                file.sync_data()?;
            }
        }
        if !files.unsynced.is_empty() {
            File::open(&files.dir)?.sync_all()?;
            files.unsynced.clear();
        }
        Ok(())
    }

    /// A snapshot that names these segments is durable: removes what neither it nor the one before it names.
    ///
    /// # Errors
    /// When a file cannot be removed; the next call tries again.
    pub fn keep(&self, used: &[u32]) -> io::Result<()> {
        let mut files = self.files();
        let used: BTreeSet<u32> = used.iter().copied().collect();
        let kept = |s: &u32| used.contains(s) || files.named.contains(s) || files.open == Some(*s);
        let gone: Vec<u32> = files.segments.keys().copied().filter(|s| !kept(s)).collect();
        files.named = used;
        for segment in gone {
            fs::remove_file(files.path(segment))?;
            files.segments.remove(&segment);
        }
        Ok(())
    }
}

impl Files {
    fn path(&self, segment: u32) -> PathBuf {
        self.dir.join(format!("{segment:010}.cold"))
    }

    fn flush(&mut self) -> io::Result<()> {
        let Some((file, bytes)) = self.open.and_then(|s| self.segments.get(&s)) else { return Ok(()) };
        // At its place: what a failed attempt left behind is written over.
        file.write_all_at(&self.tail, bytes - self.tail.len() as u64)?;
        self.tail.clear();
        Ok(())
    }

    /// The segment to write to and its bytes so far.
    fn writable(&mut self) -> io::Result<(u32, u64)> {
        if self.tail.len() >= TAIL {
            self.flush()?;
        }
        let open = self.open.and_then(|s| Some((s, self.segments.get(&s)?.1)));
        if let Some(open) = open.filter(|(_, bytes)| *bytes < SEGMENT) {
            return Ok(open);
        }
        self.flush()?;
        let segment = self.next;
        let path = self.path(segment);
        let mut file = File::options().read(true).write(true).create_new(true).open(path)?;
        file.write_all(MAGIC)?;
        self.segments.insert(segment, (file, MAGIC.len() as u64));
        self.next = segment.saturating_add(1);
        self.open = Some(segment);
        Ok((segment, MAGIC.len() as u64))
    }

    fn put(&mut self, record: &[u8]) -> io::Result<ShelfPlace> {
        let (segment, offset) = self.writable()?;
        let too_long = |_| io::Error::from(io::ErrorKind::FileTooLarge);
        let place = ShelfPlace {
            segment,
            offset: u32::try_from(offset).map_err(too_long)?,
            len: u32::try_from(record.len()).map_err(too_long)?,
        };
        self.tail.extend_from_slice(&place.len.to_le_bytes());
        self.tail.extend_from_slice(&xxh3_64(record).to_le_bytes());
        self.tail.extend_from_slice(record);
        if let Some((_, bytes)) = self.segments.get_mut(&segment) {
            *bytes += (HEADER + record.len()) as u64;
        }
        self.unsynced.insert(segment);
        Ok(place)
    }

    fn get(&self, place: ShelfPlace) -> io::Result<Vec<u8>> {
        let damaged = || io::Error::from(io::ErrorKind::InvalidData);
        let (file, bytes) = self.segments.get(&place.segment).ok_or(io::ErrorKind::NotFound)?;
        let (start, len) = (u64::from(place.offset), HEADER + place.len as usize);
        if start + len as u64 > *bytes {
            return Err(damaged());
        }
        let tail = if self.open == Some(place.segment) { self.tail.as_slice() } else { &[] };
        let whole = match start.checked_sub(bytes - tail.len() as u64) {
            Some(at) => tail[at as usize..at as usize + len].to_vec(),
            None => {
                let mut whole = vec![0; len];
                file.read_exact_at(&mut whole, start)?;
                whole
            }
        };
        let (header, record) = whole.split_first_chunk::<HEADER>().ok_or_else(damaged)?;
        let [a, b, c, d, sum @ ..] = *header;
        let whole = u32::from_le_bytes([a, b, c, d]) == place.len && u64::from_le_bytes(sum) == xxh3_64(record);
        whole.then(|| record.to_vec()).ok_or_else(damaged)
    }
}

impl Shelf for ColdFiles {
    fn put(&mut self, record: &[u8]) -> Option<ShelfPlace> {
        let put = self.files().put(record);
        put.inspect_err(|error| tracing::error!(%error, "a baseline could not be put on disk; it is forgotten")).ok()
    }

    fn get(&self, place: ShelfPlace) -> Option<Vec<u8>> {
        let got = self.files().get(place);
        got.inspect_err(|error| tracing::error!(%error, ?place, "a baseline on disk is damaged; it is learned anew"))
            .ok()
    }

    fn full(&self) -> Vec<(u32, u64)> {
        let files = self.files();
        let full = files.segments.iter().filter(|(segment, _)| files.open != Some(**segment));
        full.map(|(segment, (_, bytes))| (*segment, *bytes)).collect()
    }
}

#[cfg(test)]
mod tests {
    use lapwing_engine::baseline::{Baselines, Options, Snapshot};
    use lapwing_engine::event::Event;
    use lapwing_engine::facts::Facts;

    use super::*;

    /// Room in memory for some fifty identities.
    const TIGHT: Options = Options { per_day: 5.0, fixed: None, max_bytes: 66_000, max_shelved: 1 << 20 };

    /// A hundred identities, a good part of them on the shelf.
    fn learned(shelf: ColdFiles) -> Baselines {
        let mut baselines = Baselines::new(TIGHT);
        baselines.shelve(Box::new(shelf));
        for i in 0..100_i64 {
            let text = format!(
                r#"{{"kind":"Event","apiVersion":"audit.k8s.io/v1","level":"Metadata","auditID":"{i}","stage":"ResponseComplete",
                "requestURI":"/api/v1/namespaces/web/secrets/own{i}","verb":"get","user":{{"username":"person{i}"}},
                "sourceIPs":["10.0.0.1"],"objectRef":{{"resource":"secrets","namespace":"web","name":"own{i}","apiVersion":"v1"}},
                "responseStatus":{{"code":200}},"requestReceivedTimestamp":"2026-11-20T10:00:00.000000Z",
                "stageTimestamp":"2026-11-20T10:00:00.000000Z"}}"#
            );
            let event = Event::parse(&text).expect("an event");
            baselines.observe(&Facts::new(&event, &text, "prod"), 1_700_000_000_000_000 + i, &[]);
        }
        baselines
    }

    /// `fixtures/formats/cold-1` was written by the first version with a shelf and is never written again; with
    /// `LAPWING_RECORD=1` it is made where it is missing.
    #[test]
    fn every_released_format_is_read() {
        let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/formats/cold-1");
        if std::env::var_os("LAPWING_RECORD").is_some() && !golden.exists() {
            let shelf = ColdFiles::open(&golden).expect("opened");
            let snapshot = serde_json::to_vec(&learned(shelf.clone())).expect("data");
            shelf.sync().expect("synced");
            fs::write(golden.join("snapshot.json"), snapshot).expect("written");
        }
        let dir = tempfile::tempdir().expect("a directory");
        for name in names(&golden) {
            fs::copy(golden.join(&name), dir.path().join(&name)).expect("copied");
        }
        let json = fs::read(dir.path().join("snapshot.json")).expect("read");
        let snapshot: Snapshot = serde_json::from_slice(&json).expect("a snapshot");
        let mut baselines = Baselines::restore(TIGHT, snapshot);
        baselines.shelve(Box::new(ColdFiles::open(dir.path()).expect("opened")));
        let before = baselines.counts();
        assert!(before.principals == 100 && before.shelved > 40, "{before:?}");
        baselines.gather();
        let exported = serde_json::to_string(&baselines).expect("data");
        let mut all = Baselines::restore(Options::default(), serde_json::from_str(&exported).expect("own data"));
        assert_eq!((all.counts().principals, all.counts().shelved, all.counts().lost), (100, 0, 0));
        let told = serde_json::to_string(&all.describe(Some("person0"))).expect("data");
        assert!(told.contains("person0"), "{told}");
    }

    #[test]
    fn a_file_of_another_format_is_left_alone() {
        let dir = tempfile::tempdir().expect("a directory");
        let mut cold = ColdFiles::open(dir.path()).expect("opened");
        let place = cold.put(b"x").expect("put");
        cold.sync().expect("synced");
        let path = cold.files().path(0);
        let newer = [b"LWCOLD02", &fs::read(&path).expect("read")[8..]].concat();
        fs::write(&path, &newer).expect("written");
        let mut again = ColdFiles::open(dir.path()).expect("opened");
        assert_eq!(again.get(place), None);
        assert_eq!(again.put(b"y").map(|place| place.segment), Some(1));
        again.keep(&[]).expect("kept");
        again.keep(&[]).expect("kept");
        assert_eq!(fs::read(&path).expect("still there"), newer);
    }

    fn names(dir: &Path) -> Vec<String> {
        let files = fs::read_dir(dir).expect("listed").map(|e| e.expect("an entry").file_name());
        let mut names: Vec<String> = files.map(|n| n.to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }

    #[test]
    fn records_come_back_before_and_after_they_are_written_and_after_a_start() {
        let dir = tempfile::tempdir().expect("a directory");
        let mut cold = ColdFiles::open(dir.path()).expect("opened");
        let record = |i: u32| vec![i as u8; 1000 + i as usize];
        let places: Vec<ShelfPlace> = (0..600).map(|i| cold.put(&record(i)).expect("put")).collect();
        let check = |cold: &ColdFiles, n: u32| {
            (0..n).zip(&places).for_each(|(i, place)| assert_eq!(cold.get(*place), Some(record(i)), "{i}"));
        };
        check(&cold, 600);
        cold.sync().expect("synced");
        check(&cold, 600);
        let mut again = ColdFiles::open(dir.path()).expect("opened");
        check(&again, 600);
        let place = again.put(b"new").expect("put");
        assert_eq!((place.segment, again.get(place).as_deref()), (1, Some(&b"new"[..])), "a start begins a segment");
    }

    #[test]
    fn what_is_damaged_or_cut_off_is_nobody() {
        let dir = tempfile::tempdir().expect("a directory");
        let mut cold = ColdFiles::open(dir.path()).expect("opened");
        let places = [b"one", b"two", b"six"].map(|r| cold.put(r).expect("put"));
        cold.sync().expect("synced");
        let path = cold.files().path(0);
        let mut bytes = fs::read(&path).expect("read");
        bytes[places[1].offset as usize + HEADER] ^= 1;
        bytes.truncate(bytes.len() - 1);
        fs::write(&path, bytes).expect("written");
        let again = ColdFiles::open(dir.path()).expect("opened");
        assert_eq!(places.map(|p| again.get(p)), [Some(b"one".to_vec()), None, None]);
        assert_eq!(again.get(ShelfPlace { segment: 7, ..places[0] }), None);
        assert_eq!(again.get(ShelfPlace { len: u32::MAX, ..places[0] }), None);
    }

    #[test]
    fn a_segment_goes_when_neither_of_two_snapshots_names_it() {
        let dir = tempfile::tempdir().expect("a directory");
        for _ in 0..3 {
            let mut cold = ColdFiles::open(dir.path()).expect("opened");
            cold.put(b"x").expect("put");
            cold.sync().expect("synced");
        }
        let cold = ColdFiles::open(dir.path()).expect("opened");
        cold.keep(&[2]).expect("kept");
        assert_eq!(names(dir.path()).len(), 3, "the snapshot before may name all of them");
        cold.keep(&[2]).expect("kept");
        assert_eq!(names(dir.path()), ["0000000002.cold"]);
        cold.keep(&[]).expect("kept");
        assert_eq!(names(dir.path()).len(), 1);
        cold.keep(&[]).expect("kept");
        assert!(names(dir.path()).is_empty());
    }

    #[test]
    fn a_full_segment_is_followed_by_the_next() {
        let dir = tempfile::tempdir().expect("a directory");
        let mut cold = ColdFiles::open(dir.path()).expect("opened");
        let large = vec![7; SEGMENT as usize / 2];
        let places: Vec<ShelfPlace> = (0..3).map(|_| cold.put(&large).expect("put")).collect();
        assert_eq!(places.iter().map(|p| p.segment).collect::<Vec<_>>(), [0, 0, 1]);
        assert_eq!(cold.full().iter().map(|(s, _)| *s).collect::<Vec<_>>(), [0]);
        assert!(places.iter().all(|p| cold.get(*p).as_deref() == Some(&large[..])));
    }
}
