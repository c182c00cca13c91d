//! Which thread of a channel goes on about what: a small file beside the output's cursor, so that a restart begins none
//! anew. What cannot be read is as if it were not there.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use chrono::Utc;
use serde::{Deserialize, Serialize};

use crate::output::file;

/// Of this form is the file; another form is not read.
const VERSION: u32 = 1;
/// Threads remembered; the one used longest ago is forgotten, and what goes on begins a new one.
const MOST: usize = 1000;
/// Longest silence of a thread, in seconds: nobody looks into an older one.
const OLDEST: i64 = 30 * 24 * 3600;
/// Largest file read, in bytes.
const MAX_BYTES: u64 = 4 << 20;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Thread {
    /// The first message of it, by Slack's time stamp.
    ts: String,
    /// When it was last written to, in seconds since 1970.
    used: i64,
}

/// The file.
#[derive(Debug, Serialize, Deserialize)]
struct Kept {
    version: u32,
    /// The channel they are in: of another one they are no use.
    channel: String,
    threads: BTreeMap<String, Thread>,
}

/// The threads of one output, by what goes on.
#[derive(Debug, Default)]
pub struct Threads {
    threads: BTreeMap<String, Thread>,
    /// `None`: forgotten with the process.
    file: Option<(PathBuf, String)>,
}

impl Threads {
    /// Those of `channel` that the output `name` remembers below `data_dir`.
    pub fn of(data_dir: &Path, name: &str, channel: &str) -> Self {
        let path = data_dir.join("outputs").join(format!("{name}.threads.json"));
        let threads = read(&path).filter(|kept| kept.channel == channel).map(|kept| kept.threads).unwrap_or_default();
        Self { threads, file: Some((path, channel.to_owned())) }
    }

    pub fn get(&self, what: &str) -> Option<&str> {
        let thread = self.threads.get(what)?;
        (thread.used + OLDEST > Utc::now().timestamp()).then_some(thread.ts.as_str())
    }

    /// `posted` is the newest message about it, the first where there is no thread yet.
    pub fn used(&mut self, what: &str, posted: &str) {
        let now = Utc::now().timestamp();
        let ts = self.get(what).unwrap_or(posted).to_owned();
        self.threads.insert(what.to_owned(), Thread { ts, used: now });
        self.threads.retain(|_, thread| thread.used + OLDEST > now);
        while self.threads.len() > MOST
            && let Some(oldest) = self.threads.iter().min_by_key(|(_, t)| t.used).map(|(key, _)| key.clone())
        {
            self.threads.remove(&oldest);
        }
    }

    /// It is over, or its thread is gone.
    pub fn end(&mut self, what: &str) {
        self.threads.remove(what);
    }

    /// Writes them down. A message that was posted is not posted again because that fails.
    pub async fn keep(&self) {
        let Some((path, channel)) = self.file.clone() else { return };
        let kept = Kept { version: VERSION, channel, threads: self.threads.clone() };
        let written = tokio::task::spawn_blocking(move || {
            file::replace(&path, &serde_json::to_vec(&kept)?)
                .map_err(|e| std::io::Error::other(format!("`{}`: {e}", path.display())))
        });
        if let Ok(Err(error)) = written.await {
            tracing::warn!(%error, "threads cannot be written down; after a restart what goes on begins new ones");
        }
    }
}

fn read(path: &Path) -> Option<Kept> {
    let size = std::fs::metadata(path).ok()?.len();
    let kept: Option<Kept> = (size <= MAX_BYTES)
        .then(|| std::fs::read(path).ok())
        .flatten()
        .and_then(|text| serde_json::from_slice(&text).ok());
    let kept = kept.filter(|kept| kept.version == VERSION);
    if kept.is_none() {
        tracing::warn!("cannot read `{}`; what goes on begins new threads", path.display());
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_restart_goes_on_in_the_same_thread() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("outputs")).unwrap();
        let mut threads = Threads::of(dir.path(), "chat", "C1");
        threads.used("exec by alice", "17.1");
        threads.used("exec by alice", "18.2");
        threads.used("exec by bob", "19.3");
        threads.end("exec by bob");
        threads.keep().await;
        let again = Threads::of(dir.path(), "chat", "C1");
        assert_eq!((again.get("exec by alice"), again.get("exec by bob")), (Some("17.1"), None));
        assert_eq!(Threads::of(dir.path(), "chat", "C2").get("exec by alice"), None, "another channel");
        let path = dir.path().join("outputs/chat.threads.json");
        let text = std::fs::read_to_string(&path).unwrap();
        for other in [text.replace("\"version\":1", "\"version\":2"), "{".into()] {
            std::fs::write(&path, other).unwrap();
            assert_eq!(Threads::of(dir.path(), "chat", "C1").get("exec by alice"), None);
        }
    }

    #[test]
    fn every_released_format_is_read() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("outputs")).unwrap();
        let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/formats/threads-1.json");
        std::fs::copy(golden, dir.path().join("outputs/chat.threads.json")).unwrap();
        assert_eq!(Threads::of(dir.path(), "chat", "C1").get("exec by alice"), Some("17.1"));
    }

    #[test]
    fn they_are_few_and_young() {
        let mut threads = Threads::default();
        let now = Utc::now().timestamp();
        threads.threads.insert("old".into(), Thread { ts: "1.1".into(), used: now - OLDEST });
        assert_eq!(threads.get("old"), None);
        threads.threads.insert("first".into(), Thread { ts: "1.1".into(), used: now - 1 });
        for n in 0..MOST {
            threads.used(&n.to_string(), "2.2");
        }
        assert_eq!((threads.threads.len(), threads.get("first"), threads.get("0")), (MOST, None, Some("2.2")));
    }
}
