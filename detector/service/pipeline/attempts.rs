//! A record that ends the process must not end it for ever. Which record a thread is at is noted in a file before it is
//! looked at; where that is the same one after two panics, it is set aside: at the second try each item of it is noted
//! too, so that only the guilty one has to be. Whoever is killed says no last word, and a supervisor may kill at the same
//! moment of each start: it takes more of those, and many where the record was judged to its end before.
//!
//! The note is not synced: it has to survive the process, not the machine. What was set aside stays so, or a replay from
//! before it would crash again; the event itself is still in the journal.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;

use lapwing_engine::alert::Level;

use super::selfalert::{Notice, SelfAlerts};
use crate::journal::Lsn;
use crate::metrics::Metrics;

/// How much a record is guilty of until it is set aside: of two panics, of six ends without a word, or of thirty where it
/// had been got through before and is only replayed.
const PATIENCE: u64 = 30;
const OF_A_PANIC: u64 = 15;
const OF_SILENCE: u64 = 5;
const OF_SILENCE_IN_A_REPLAY: u64 = 1;
/// For a record as a whole.
const WHOLE: u64 = u64::MAX;

/// A record and an item of it, or [`WHOLE`].
type Place = (u64, u64);

/// Numbers in the file: the place being looked at (LSN 0: none), the place of the last crash, how guilty it is, and whether
/// the thread panicked.
type Note = [u64; 6];

/// What a thread is at, and what it leaves out.
#[derive(Debug)]
pub struct Attempts {
    /// `None` where no note can be kept: then nothing is ever set aside.
    file: Option<File>,
    note: Note,
    aside: BTreeSet<Place>,
    /// Each item is to be noted.
    careful: bool,
}

impl Attempts {
    /// Reads the notes of the last start in `dir`; `name` is the thread's, which got through everything up to `before` at
    /// least once. What is newly set aside is answered, to be told.
    pub fn open(dir: &Path, name: &'static str, before: Lsn) -> (Self, Option<Notice>) {
        let opened = Self::read(dir, name, before);
        opened.unwrap_or_else(|error| {
            tracing::warn!(%error, thread = name, "no note can be kept of records that end the process");
            (Self { file: None, note: [0; 6], aside: BTreeSet::new(), careful: false }, None)
        })
    }

    fn read(dir: &Path, name: &'static str, before: Lsn) -> io::Result<(Self, Option<Notice>)> {
        let path = dir.join(format!("{name}.at"));
        let [lsn, item, last, _, so_far, panicked] = numbers(&fs::read(&path).unwrap_or_default());
        let list = dir.join(format!("{name}.aside"));
        let mut aside: BTreeSet<Place> =
            fs::read_to_string(&list).unwrap_or_default().lines().filter_map(place).collect();
        let file = File::options().create(true).truncate(false).write(true).open(&path)?;
        let now = match (lsn, panicked) {
            (0, _) => 0,
            (lsn, 0) if lsn <= before.0 => OF_SILENCE_IN_A_REPLAY,
            (_, 0) => OF_SILENCE,
            _ => OF_A_PANIC,
        };
        let guilt = now + if lsn == last { so_far } else { 0 };
        let mut attempts =
            Self { file: Some(file), note: [0, WHOLE, lsn, item, guilt, 0], aside: BTreeSet::new(), careful: false };
        let mut notice = None;
        if guilt >= PATIENCE && aside.insert((lsn, item)) {
            let mut out = File::options().create(true).append(true).open(&list)?;
            writeln!(out, "{lsn} {item}")?;
            out.sync_data()?;
            attempts.note = [0; 6];
            notice = Some(set_aside(name, (lsn, item)));
        }
        attempts.aside = aside;
        attempts.write();
        Ok((attempts, notice))
    }

    /// The thread now looks at this record; whether it is to leave it out.
    pub fn begin(&mut self, lsn: Lsn) -> bool {
        self.forget_up_to(lsn.0.saturating_sub(1));
        self.careful = self.note[2] == lsn.0 || self.aside.range((lsn.0, 0)..=(lsn.0, WHOLE)).next().is_some();
        self.note[..2].copy_from_slice(&[lsn.0, WHOLE]);
        self.write();
        self.aside.contains(&(lsn.0, WHOLE))
    }

    /// It now looks at this item of the record; whether it is to leave it out.
    pub fn item(&mut self, item: usize) -> bool {
        if !self.careful {
            return false;
        }
        self.note[1] = item as u64;
        self.write();
        self.aside.contains(&(self.note[0], self.note[1]))
    }

    /// It looks at nothing: it is through with the last record, or has not begun.
    pub fn rest(&mut self) {
        if self.note[0] != 0 {
            self.forget_up_to(self.note[0]);
            self.note[0] = 0;
            self.write();
        }
    }

    /// A crash at or before this record is over.
    fn forget_up_to(&mut self, lsn: u64) {
        if lsn >= self.note[2] {
            self.note[2..].fill(0);
        }
    }

    fn write(&self) {
        let bytes: Vec<u8> = self.note.iter().flat_map(|n| n.to_le_bytes()).collect();
        if let Some(file) = &self.file
            && let Err(error) = file.write_all_at(&bytes, 0)
        {
            tracing::debug!(%error, "no note could be made of the record at hand");
        }
    }
}

impl Drop for Attempts {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.note[5] = 1;
            self.write();
        }
    }
}

/// Tells what is newly set aside; that it cannot be told keeps nobody from going on.
pub fn tell(notice: Option<Notice>, metrics: &Metrics, own: &SelfAlerts) {
    let Some(notice) = notice else { return };
    metrics.set_aside.inc();
    tracing::error!("{}", notice.summary);
    if let Err(error) = own.raise(&notice) {
        tracing::error!(%error, "nobody could be told of it");
    }
}

fn numbers(bytes: &[u8]) -> Note {
    let mut note = [0; 6];
    if bytes.len() == size_of::<Note>() {
        let chunks = bytes.as_chunks::<8>().0;
        note.iter_mut().zip(chunks).for_each(|(n, chunk)| *n = u64::from_le_bytes(*chunk));
    }
    note
}

fn place(line: &str) -> Option<Place> {
    let (lsn, item) = line.split_once(' ')?;
    Some((lsn.parse().ok()?, item.parse().ok()?))
}

fn set_aside(thread: &'static str, (lsn, item): Place) -> Notice {
    let what = if item == WHOLE { format!("Record {lsn}") } else { format!("Event {lsn}:{item}") };
    let lost = if thread == "engine" { "judged" } else { "found by a search" };
    Notice {
        id: "lapwing-record-set-aside",
        title: "An event that ended the process is set aside",
        level: Level::High,
        subject: format!("{thread} {lsn} {item}"),
        summary: format!("{what} of the event journal ended the process again and again and is not {lost} any more"),
        why: "Somebody may have found a request that Lapwing cannot bear, and may hide behind it. The event is kept.",
        next_steps: &[
            "look at what happened in the cluster around this event",
            "please report it: the log of the crash tells where it was",
            "remove the file `*.aside` in `dataDir/state` once a version that can read it is installed",
        ],
        ..Notice::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The thread that holds it panics.
    fn panic(attempts: Attempts) {
        let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(move || {
            let _held = attempts;
            std::panic::resume_unwind(Box::new(()));
        }));
        assert!(ended.is_err());
    }

    /// A start that gets through items `0..crash_at` of record 7 and crashes there, or gets through all of it.
    fn start(dir: &Path, crash_at: Option<usize>) -> (Vec<usize>, Option<String>) {
        let (mut attempts, notice) = Attempts::open(dir, "engine", Lsn(0));
        let mut seen = Vec::new();
        for lsn in [6, 7, 8] {
            if attempts.begin(Lsn(lsn)) {
                continue;
            }
            if lsn == 6 {
                attempts.rest();
            }
            for item in 0..4 {
                if attempts.item(item) {
                    continue;
                }
                if lsn == 7 {
                    if crash_at == Some(item) {
                        panic(attempts);
                        return (seen, notice.map(|n| n.summary));
                    }
                    seen.push(item);
                }
            }
        }
        attempts.rest();
        (seen, notice.map(|n| n.summary))
    }

    #[test]
    fn the_guilty_item_is_left_out_after_two_crashes_and_ever_after() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(start(dir.path(), Some(2)), (vec![0, 1], None));
        assert_eq!(start(dir.path(), Some(2)), (vec![0, 1], None));
        let (seen, notice) = start(dir.path(), Some(2));
        assert_eq!(seen, [0, 1, 3]);
        assert!(notice.unwrap().starts_with("Event 7:2 of the event journal"));
        assert_eq!(start(dir.path(), Some(2)), (vec![0, 1, 3], None), "told once, left out for ever");
        // A second one in the same record.
        for _ in 0..2 {
            assert_eq!(start(dir.path(), Some(0)), (vec![], None));
        }
        assert_eq!(start(dir.path(), Some(0)).0, [1, 3]);
    }

    #[test]
    fn crashes_elsewhere_or_with_an_end_between_them_do_not_add_up() {
        let dir = tempfile::tempdir().unwrap();
        let crash = |lsn| {
            let (mut attempts, _) = Attempts::open(dir.path(), "engine", Lsn(0));
            let left_out = attempts.begin(Lsn(lsn));
            panic(attempts);
            left_out
        };
        for lsn in [3, 4, 3, 4] {
            assert!(!crash(lsn));
        }
        let (mut attempts, _) = Attempts::open(dir.path(), "engine", Lsn(0));
        attempts.begin(Lsn(4));
        attempts.rest();
        for _ in 0..2 {
            assert!(!crash(4), "it was got through once");
        }
        assert!(crash(4), "a record that never came to its items is left out as a whole");
        assert!(!crash(5));
    }

    #[test]
    fn who_is_killed_at_the_same_record_is_not_set_aside_at_once() {
        for (before, ends) in [(3, 6), (4, 30)] {
            let dir = tempfile::tempdir().unwrap();
            for end in 0..ends {
                let (mut attempts, notice) = Attempts::open(dir.path(), "engine", Lsn(before));
                assert!(!attempts.begin(Lsn(4)) && notice.is_none(), "{end} of {ends}");
            }
            assert!(Attempts::open(dir.path(), "engine", Lsn(before)).0.begin(Lsn(4)));
        }
    }

    #[test]
    fn rubbish_is_no_note() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("engine.at"), [1; 39]).unwrap();
        fs::write(dir.path().join("engine.aside"), "x\n7\n7 y\n").unwrap();
        let (mut attempts, notice) = Attempts::open(dir.path(), "engine", Lsn(0));
        assert!(notice.is_none() && !attempts.begin(Lsn(7)) && attempts.aside.is_empty());
    }
}
