//! Alerts in a file, one JSON object a line, on disk before the worker moves on.
//!
//! The file is opened for each alert, so that whoever rotates it needs to tell nobody.

use std::fs::OpenOptions;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use lapwing_engine::alert::Alert;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Common, Failure, Receipt, record};

/// Settings of an output of type `file`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
#[schemars(extend("required" = ["name", "path"]))]
pub struct Config {
    #[serde(flatten)]
    pub common: Common,
    /// File to append to; created when missing, readable by its owner only.
    pub path: PathBuf,
    /// How an alert is written: `json`, or `ocsf`.
    pub format: record::Format,
}

impl Config {
    pub(super) fn target(&self) -> String {
        self.path.display().to_string()
    }

    pub(super) fn resolve(&mut self, base: &Path) {
        self.path = base.join(&self.path);
    }

    pub(super) fn problems(&self) -> Vec<String> {
        let missing = self.path.as_os_str().is_empty();
        missing.then(|| "path is missing; expected a file to append to".to_owned()).into_iter().collect()
    }
}

#[derive(Debug)]
pub struct File {
    path: PathBuf,
    format: record::Format,
}

impl File {
    pub fn new(config: &Config) -> Self {
        Self { path: config.path.clone(), format: config.format }
    }

    pub async fn deliver(&mut self, alert: &Alert) -> Result<Receipt, Failure> {
        let line = record::line(alert, self.format, usize::MAX);
        let path = self.path.clone();
        let written = tokio::task::spawn_blocking(move || append_line(&path, &line)).await;
        let written = written.unwrap_or_else(|e| Err(io::Error::other(e)));
        let shown = self.path.display();
        written.map_err(|e| Failure::retry(format_args!("cannot append to `{shown}`: {e}")))?;
        Ok(Receipt(format!("appended to {shown}")))
    }
}

/// Appends `line` and a new line to the file `path` and waits until they are on disk. Nothing is left
/// behind when that fails, and a half line somebody else left is ended first.
pub fn append_line(path: &Path, line: &str) -> io::Result<()> {
    let mut file = OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(path)?;
    let regular = file.metadata()?.is_file();
    if regular {
        // Shards of one process, or of several, may append to the same file.
        file.lock()?;
    }
    let length = file.metadata()?.len();
    let mut record = Vec::with_capacity(line.len() + 2);
    if !ends_a_line(&mut file, length)? {
        record.push(b'\n');
    }
    record.extend_from_slice(line.as_bytes());
    record.push(b'\n');
    // A pipe or a device has nothing to wait for.
    let written = file.write_all(&record).and_then(|()| if regular { file.sync_data() } else { Ok(()) });
    if length == 0 && regular {
        // A new file is only there after a crash when its directory was written too.
        sync_parent(path)?;
    }
    if written.is_err() {
        // A full disk may have taken half of it: that half is no record.
        let _ = file.set_len(length);
    }
    written
}

/// Puts `content` in the place of `path` in one step, private and durable.
pub fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    let draft = path.with_extension("new");
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&draft)?;
    file.write_all(content)?;
    file.sync_all()?;
    std::fs::rename(&draft, path)?;
    sync_parent(path)
}

fn sync_parent(path: &Path) -> io::Result<()> {
    let parent = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    std::fs::File::open(parent)?.sync_all()
}

fn ends_a_line(file: &mut std::fs::File, length: u64) -> io::Result<bool> {
    if length == 0 {
        return Ok(true);
    }
    let mut last = [0];
    file.seek(SeekFrom::Start(length - 1))?;
    file.read_exact(&mut last)?;
    Ok(last == *b"\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::sample;

    #[tokio::test]
    async fn appends_a_line_per_alert_through_rotation() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("alerts.ndjson");
        let mut file = File { path: path.clone(), format: record::Format::Json };
        file.deliver(&sample::alert()).await.unwrap();
        file.deliver(&sample::hostile("x\ny")).await.unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap().lines().count(), 2);
        std::fs::rename(&path, dir.path().join("alerts.1")).unwrap();
        file.deliver(&sample::alert()).await.unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(serde_json::from_str::<Alert>(&text).unwrap(), sample::alert());
    }

    #[test]
    fn a_half_line_does_not_swallow_the_next() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        std::fs::write(&path, "{\"half").unwrap();
        append_line(&path, "{}").unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "{\"half\n{}\n");
    }

    #[test]
    fn one_writer_waits_for_another() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        let mut other = std::fs::File::create(&path).unwrap();
        other.lock().unwrap();
        other.write_all(b"{\"half\":").unwrap();
        let line = path.clone();
        let waiting = std::thread::spawn(move || append_line(&line, "{}"));
        // Time enough to do it wrong; more would only be slower.
        std::thread::park_timeout(std::time::Duration::from_millis(200));
        other.write_all(b"1}\n").unwrap();
        other.unlock().unwrap();
        waiting.join().unwrap().unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "{\"half\":1}\n{}\n");
    }

    #[tokio::test]
    async fn a_full_disk_is_tried_again() {
        let mut file = File { path: PathBuf::from("/dev/full"), format: record::Format::Json };
        assert!(matches!(file.deliver(&sample::alert()).await, Err(Failure::Retry { .. })));
    }
}
