//! Room on the data directory's file system, and what stops when it runs out: first the index, which is derived, then
//! taking in events. Alerts go on, at last out of a reserve that is given up for them. All of it heals by itself.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use rustix::fs::{FallocateFlags, fallocate, statvfs};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::config::ByteSize;

/// Below this many free inodes a file system is as full as without free bytes.
const MIN_INODES: u64 = 64;

/// What happens when the disk fills up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct Config {
    /// With less free space than this on the file system of `dataDir`, senders get 503 and Kafka and files wait. Below
    /// twice this the index waits, below four times this an alert warns.
    pub min_free: ByteSize,
    /// Space held back in `dataDir/RESERVE`, so that alerts can still be stored when a disk is full all the same.
    pub reserve: ByteSize,
}

impl Default for Config {
    fn default() -> Self {
        Self { min_free: ByteSize::mib(512), reserve: ByteSize::mib(256) }
    }
}

/// How much room there is, worst last.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Level {
    #[default]
    Plenty,
    /// Somebody should look.
    Low,
    /// The index waits.
    NoIndex,
    /// Nothing is taken in.
    NoIntake,
}

impl Level {
    const ALL: [Self; 4] = [Self::Plenty, Self::Low, Self::NoIndex, Self::NoIntake];

    /// The level at `free` bytes. Taking in begins again a quarter above where it stopped, so that it does not flap.
    fn at(free: u64, min_free: u64, before: Self) -> Self {
        let stop = if before == Self::NoIntake { min_free.saturating_add(min_free / 4) } else { min_free };
        match free {
            _ if free < stop => Self::NoIntake,
            _ if free < min_free.saturating_mul(2) => Self::NoIndex,
            _ if free < min_free.saturating_mul(4) => Self::Low,
            _ => Self::Plenty,
        }
    }
}

/// The room of one data directory. Shared; looked at by the app, asked by whoever is about to write.
#[derive(Debug)]
pub struct Space {
    dir: PathBuf,
    config: Config,
    level: AtomicU8,
    free: AtomicU64,
    /// Held while `RESERVE` is made or given up.
    reserve: Mutex<()>,
}

impl Space {
    pub fn new(dir: &Path, config: Config) -> Self {
        let (level, free) = (AtomicU8::default(), AtomicU64::default());
        Self { dir: dir.to_owned(), config, level, free, reserve: Mutex::default() }
    }

    pub fn level(&self) -> Level {
        Level::ALL[usize::from(self.level.load(Ordering::Relaxed))]
    }

    /// Free bytes, as of the last look.
    pub fn free(&self) -> u64 {
        self.free.load(Ordering::Relaxed)
    }

    /// Looks at the file system and answers the level before and now. Makes the reserve anew when there is room.
    pub fn look(&self) -> io::Result<(Level, Level)> {
        let stat = statvfs(&self.dir)?;
        let few_inodes = stat.f_files > 0 && stat.f_favail < MIN_INODES;
        let free = if few_inodes { 0 } else { stat.f_bavail.saturating_mul(stat.f_frsize) };
        let before = self.level();
        let now = Level::at(free, self.config.min_free.get(), before);
        self.free.store(free, Ordering::Relaxed);
        self.level.store(now as u8, Ordering::Relaxed);
        if now <= Level::Low && free > self.config.reserve.get().saturating_add(self.config.min_free.get() * 2) {
            self.fill_reserve()?;
        }
        Ok((before, now))
    }

    /// Gives the reserve up, for alerts that could not be stored. Whether there was any.
    pub fn release(&self) -> bool {
        let _held = self.reserve.lock().unwrap_or_else(PoisonError::into_inner);
        let released = std::fs::remove_file(self.path()).is_ok();
        if released {
            tracing::error!("the disk is full; the reserve was given up so that alerts can be stored");
        }
        released
    }

    fn fill_reserve(&self) -> io::Result<()> {
        let bytes = self.config.reserve.get();
        let _held = self.reserve.lock().unwrap_or_else(PoisonError::into_inner);
        if std::fs::metadata(self.path()).is_ok_and(|m| m.len() == bytes) {
            return Ok(());
        }
        let file = File::create(self.path())?;
        let filled = match fallocate(&file, FallocateFlags::empty(), 0, bytes) {
            // Without real blocks it would be a promise nobody keeps.
            Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS) => std::fs::remove_file(self.path()),
            other => other.map_err(Into::into),
        };
        if filled.is_err() {
            let _ = std::fs::remove_file(self.path());
        }
        filled
    }

    fn path(&self) -> PathBuf {
        self.dir.join("RESERVE")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_follow_the_free_space_and_intake_comes_back_later_than_it_went() {
        let levels = |before| [0, 99, 100, 124, 125, 199, 200, 399, 400].map(|free| Level::at(free, 100, before));
        use Level::{Low, NoIndex, NoIntake, Plenty};
        assert_eq!(levels(Plenty), [NoIntake, NoIntake, NoIndex, NoIndex, NoIndex, NoIndex, Low, Low, Plenty]);
        assert_eq!(levels(NoIntake), [NoIntake, NoIntake, NoIntake, NoIntake, NoIndex, NoIndex, Low, Low, Plenty]);
        assert_eq!(Level::at(u64::MAX - 1, u64::MAX, NoIntake), NoIntake, "no overflow");
    }

    #[test]
    fn the_reserve_is_real_given_up_once_and_made_again() {
        let dir = tempfile::tempdir().unwrap();
        let config = Config { min_free: ByteSize(1), reserve: ByteSize::mib(1) };
        let space = Space::new(dir.path(), config);
        assert_eq!(space.look().unwrap(), (Level::Plenty, Level::Plenty));
        let blocks = |dir: &Path| {
            use std::os::unix::fs::MetadataExt;
            std::fs::metadata(dir.join("RESERVE")).map_or(0, |m| m.blocks() * 512)
        };
        assert!(blocks(dir.path()) >= 1 << 20, "not a hole");
        assert!(space.release() && !space.release());
        assert_eq!(blocks(dir.path()), 0);
        space.look().unwrap();
        assert!(blocks(dir.path()) >= 1 << 20);
        assert!(space.free() > 1 << 20);
    }

    #[test]
    fn a_full_disk_stops_the_intake_and_makes_no_reserve() {
        let dir = tempfile::tempdir().unwrap();
        let space = Space::new(dir.path(), Config { min_free: ByteSize(u64::MAX / 8), reserve: ByteSize(1) });
        assert_eq!(space.look().unwrap(), (Level::Plenty, Level::NoIntake));
        assert!(!space.path().exists());
    }
}
