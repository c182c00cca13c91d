//! What an output gave up: one file per output, one JSON object a line, kept until somebody sends or drops it.
//!
//! The service appends, the command line takes away; a lock file keeps them apart, and what is taken away goes in one
//! step (a new file under the old name).

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use lapwing_engine::alert::Alert;
use serde::{Deserialize, Serialize};

use super::{encode, file};

/// One line of a dead letter file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DeadLetter {
    pub time: chrono::DateTime<chrono::Utc>,
    pub output: String,
    pub reason: String,
    pub tries: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alert: Option<Box<Alert>>,
    /// The record as it was found, when it was no alert.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub unreadable: String,
}

/// The dead letters of one output.
#[derive(Clone, Debug)]
pub struct DeadLetters(PathBuf);

impl DeadLetters {
    /// `outputs/<name>.dead.ndjson` under the data directory.
    pub fn of(data_dir: &Path, name: &str) -> Self {
        Self(data_dir.join("outputs").join(format!("{name}.dead.ndjson")))
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Durable when it returns.
    pub fn append(&self, letter: &DeadLetter) -> io::Result<()> {
        let line = encode::json_line(letter).map_err(io::Error::other)?;
        let _lock = self.lock()?;
        file::append_line(&self.0, &line)
    }

    /// All of them, oldest first. A line that cannot be read (a crash may have cut the last one) is skipped with a
    /// warning.
    pub fn list(&self) -> io::Result<Vec<DeadLetter>> {
        let lines = self.lines()?.into_iter().enumerate();
        Ok(lines.filter_map(|(at, line)| self.read(at, &line)).collect())
    }

    /// Takes away those that `goes` picks, for good, and answers how many. What cannot be read stays.
    pub fn remove(&self, goes: impl Fn(&DeadLetter) -> bool) -> io::Result<usize> {
        let _lock = self.lock()?;
        let lines = self.lines()?;
        let before = lines.len();
        let stays = |(at, line): &(usize, String)| !self.read(*at, line).is_some_and(|letter| goes(&letter));
        let kept: Vec<_> = lines.into_iter().enumerate().filter(stays).map(|(_, line)| line).collect();
        if kept.len() < before {
            file::replace(&self.0, kept.iter().map(|line| format!("{line}\n")).collect::<String>().as_bytes())?;
        }
        Ok(before - kept.len())
    }

    fn lines(&self) -> io::Result<Vec<String>> {
        match File::open(&self.0) {
            Ok(file) => BufReader::new(file).lines().collect(),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(e) => Err(e),
        }
    }

    fn read(&self, at: usize, line: &str) -> Option<DeadLetter> {
        serde_json::from_str(line)
            .map_err(|reason| tracing::warn!(line = at + 1, %reason, "unreadable line in `{}`", self.0.display()))
            .ok()
    }

    fn lock(&self) -> io::Result<File> {
        lock(&self.0.with_extension("lock"))
    }
}

/// The lock on `path`, made when it is not there; held until it is dropped.
pub fn lock(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path)?;
    file.lock()?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::sample;

    fn letter(reason: &str) -> DeadLetter {
        let alert = Some(Box::new(sample::alert()));
        let time = chrono::Utc::now();
        DeadLetter { time, output: "a".into(), reason: reason.into(), tries: 5, alert, unreadable: String::new() }
    }

    fn letters(dir: &tempfile::TempDir) -> DeadLetters {
        std::fs::create_dir(dir.path().join("outputs")).unwrap();
        DeadLetters::of(dir.path(), "a")
    }

    #[test]
    fn what_is_taken_away_is_gone_and_the_rest_stays() {
        let dir = tempfile::tempdir().unwrap();
        let dead = letters(&dir);
        assert_eq!(dead.list().unwrap(), []);
        assert_eq!(dead.remove(|_| true).unwrap(), 0);
        let all = ["x", "y", "x"].map(letter);
        all.iter().for_each(|l| dead.append(l).unwrap());
        std::fs::write(dead.path(), std::fs::read_to_string(dead.path()).unwrap() + "{\"half\n").unwrap();
        assert_eq!(dead.list().unwrap(), all);
        assert_eq!(dead.remove(|l| l.reason == "x").unwrap(), 2);
        assert_eq!(dead.list().unwrap(), [all[1].clone()]);
        let text = std::fs::read_to_string(dead.path()).unwrap();
        assert!(text.ends_with("{\"half\n"), "what nobody understands is not thrown away: {text}");
    }

    #[test]
    fn nothing_that_is_appended_meanwhile_is_lost() {
        let dir = tempfile::tempdir().unwrap();
        let dead = letters(&dir);
        std::thread::scope(|scope| {
            scope.spawn(|| (0..60).for_each(|_| dead.append(&letter("keep")).unwrap()));
            for _ in 0..60 {
                dead.append(&letter("go")).unwrap();
                dead.remove(|l| l.reason == "go").unwrap();
            }
        });
        let left = dead.list().unwrap();
        assert_eq!((left.len(), left.iter().all(|l| l.reason == "keep")), (60, true));
    }
}
