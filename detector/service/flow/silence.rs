//! Silences: alerts that match are told to nobody until the silence ends. They are stored and searchable all the same.
//!
//! One small JSON file in the data directory, written by the command line and the admin port and read by the running service when it
//! changes. Every silence has an owner, a reason and an end.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use chrono::{DateTime, TimeDelta, Utc};
use lapwing_engine::alert::Alert;
use serde::{Deserialize, Serialize};

use super::matcher::{self, Matcher, MatcherError};
use crate::output::{dead, file};

/// Silences kept at most, ended ones included.
const MAX: usize = 1000;
/// Ended ones are kept this long, so that it can be seen who silenced what.
const KEPT: TimeDelta = TimeDelta::days(30);
/// Matchers of one silence, and the longest text of a matcher, an owner or a reason, in characters.
const MAX_MATCHERS: usize = 50;
const MAX_TEXT: usize = 1000;
/// Largest file read, in bytes.
const MAX_BYTES: u64 = 8 << 20;

/// One silence.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Silence {
    pub id: String,
    /// All must match.
    pub matchers: Vec<String>,
    pub owner: String,
    pub reason: String,
    pub created: DateTime<Utc>,
    pub starts: DateTime<Utc>,
    pub ends: DateTime<Utc>,
}

/// Where a silence is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    Pending,
    Active,
    Expired,
}

impl State {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Active => "active",
            Self::Expired => "expired",
        }
    }
}

/// Why there is no such silence.
#[derive(Debug, thiserror::Error)]
pub enum SilenceError {
    #[error(transparent)]
    Matcher(#[from] MatcherError),
    #[error("the matchers fit every alert; name at least one value, or switch the output off")]
    Everything,
    #[error("it ends at {ends}, before it starts")]
    Order { ends: DateTime<Utc> },
    #[error("`{0}` is missing: who reads the list must know")]
    Missing(&'static str),
    #[error("`{0}` is too long; expected at most {MAX_TEXT} characters")]
    Long(&'static str),
    #[error("there are more than {MAX_MATCHERS} matchers; make several silences")]
    Many,
    #[error("there are {MAX} silences already; expire some")]
    Full,
    #[error("cannot use `{}`: {source}", path.display())]
    File { path: PathBuf, source: io::Error },
}

impl Silence {
    /// A checked one; its id is chance.
    pub fn new(
        matchers: Vec<String>,
        (owner, reason): (String, String),
        (starts, ends): (DateTime<Utc>, DateTime<Utc>),
        created: DateTime<Utc>,
    ) -> Result<Self, SilenceError> {
        for (what, text) in [("owner", &owner), ("reason", &reason)] {
            if text.trim().is_empty() {
                return Err(SilenceError::Missing(what));
            }
            if text.chars().count() > MAX_TEXT {
                return Err(SilenceError::Long(what));
            }
        }
        if matchers.len() > MAX_MATCHERS {
            return Err(SilenceError::Many);
        }
        if matchers.iter().any(|m| m.chars().count() > MAX_TEXT) {
            return Err(SilenceError::Long("matcher"));
        }
        let read = matchers.iter().map(|m| Matcher::parse(m)).collect::<Result<Vec<_>, _>>()?;
        if read.iter().all(Matcher::matches_nothing) {
            return Err(SilenceError::Everything);
        }
        if ends <= starts {
            return Err(SilenceError::Order { ends });
        }
        let id = format!("{:08x}", rand::random::<u32>());
        Ok(Self { id, matchers, owner, reason, created, starts, ends })
    }

    pub fn state(&self, now: DateTime<Utc>) -> State {
        match () {
            () if now >= self.ends => State::Expired,
            () if now < self.starts => State::Pending,
            () => State::Active,
        }
    }
}

/// The file of silences in a data directory.
#[derive(Clone, Debug)]
pub struct Silences(PathBuf);

impl Silences {
    /// Of a whole data directory; its shards, which lie in `shards` below it, share them.
    pub fn of(data_dir: &Path) -> Self {
        let shards = data_dir.parent().filter(|parent| parent.ends_with("shards"));
        let home = shards.and_then(Path::parent).unwrap_or(data_dir);
        Self(home.join("silences.json"))
    }

    /// All of them, in the order they were made.
    pub fn list(&self) -> Result<Vec<Silence>, SilenceError> {
        match std::fs::metadata(&self.0) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(e) => return Err(self.failed(e)),
            Ok(m) if m.len() > MAX_BYTES => return Err(self.failed(io::Error::other("larger than 8 MiB"))),
            Ok(_) => {}
        }
        let text = std::fs::read(&self.0).map_err(|e| self.failed(e))?;
        serde_json::from_slice(&text).map_err(|e| self.failed(e.into()))
    }

    /// Durable when it returns.
    pub fn add(&self, silence: Silence) -> Result<(), SilenceError> {
        let now = silence.created;
        self.change(now, |all| {
            if all.len() >= MAX {
                return Err(SilenceError::Full);
            }
            all.push(silence);
            Ok(())
        })
    }

    /// `silence` takes the place of the one called `id`, which must be there. It keeps its name where the matchers are the
    /// same and it has not ended; else it is ended, and the new one is another. Answers the id.
    pub fn replace(&self, id: &str, silence: Silence) -> Result<String, SilenceError> {
        let now = silence.created;
        let mut is = silence.id.clone();
        self.change(now, |all| {
            let full = all.len() >= MAX;
            if let Some(old) = all.iter_mut().find(|s| s.id == id && s.state(now) != State::Expired) {
                if old.matchers == silence.matchers {
                    let starts = if old.state(now) == State::Active { old.starts } else { silence.starts };
                    is.clone_from(&old.id);
                    *old = Silence { id: old.id.clone(), starts, ..silence };
                    return Ok(());
                }
                if !full {
                    (old.ends, old.starts) = (now, old.starts.min(now));
                }
            }
            if full {
                return Err(SilenceError::Full);
            }
            all.push(silence);
            Ok(())
        })?;
        Ok(is)
    }

    /// Ends those whose id begins with one of `ids`; answers the ids.
    pub fn expire(&self, ids: &[String], now: DateTime<Utc>) -> Result<Vec<String>, SilenceError> {
        let mut ended = Vec::new();
        self.change(now, |all| {
            for silence in all.iter_mut().filter(|s| s.state(now) != State::Expired) {
                if ids.iter().any(|start| !start.is_empty() && silence.id.starts_with(start.as_str())) {
                    silence.ends = now;
                    silence.starts = silence.starts.min(now);
                    ended.push(silence.id.clone());
                }
            }
            Ok(())
        })?;
        Ok(ended)
    }

    fn change(
        &self,
        now: DateTime<Utc>,
        with: impl FnOnce(&mut Vec<Silence>) -> Result<(), SilenceError>,
    ) -> Result<(), SilenceError> {
        let failed = |e| self.failed(e);
        let _lock = dead::lock(&self.0.with_extension("lock")).map_err(failed)?;
        let mut all = self.list()?;
        all.retain(|s| s.ends + KEPT > now);
        with(&mut all)?;
        let text = serde_json::to_vec_pretty(&all).map_err(|e| failed(e.into()))?;
        file::replace(&self.0, &text).map_err(failed)
    }

    fn failed(&self, source: io::Error) -> SilenceError {
        SilenceError::File { path: self.0.clone(), source }
    }
}

type Read = Vec<(Silence, Vec<Matcher>)>;
/// Inode, size and time of change: a new file differs in one of them.
type Stamp = (u64, u64, i64, i64);

/// The silences as the running service knows them. Clones share them.
#[derive(Clone, Debug)]
pub struct Watch {
    file: Silences,
    known: Arc<Mutex<(Option<Stamp>, Arc<Read>)>>,
}

impl Watch {
    pub fn new(file: Silences) -> Self {
        Self { file, known: Arc::default() }
    }

    /// The silence that keeps `alert` from being told at `now`. Looks whether the file changed.
    pub fn silenced_by(&self, alert: &Alert, now: DateTime<Utc>) -> Option<String> {
        let silences = self.read();
        let hit = silences.iter().find(|(s, m)| s.state(now) == State::Active && matcher::all(m, alert));
        hit.map(|(silence, _)| silence.id.clone())
    }

    fn read(&self) -> Arc<Read> {
        let stamp = std::fs::metadata(&self.file.0).ok().map(|m| (m.ino(), m.size(), m.mtime(), m.mtime_nsec()));
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.0 != stamp {
            // What cannot be read silences nothing: better told twice than not at all.
            let all = self.file.list().unwrap_or_else(|error| {
                tracing::error!(%error, "silences cannot be read; nothing is silenced");
                Vec::new()
            });
            let read = |s: Silence| {
                let matchers = s.matchers.iter().map(|m| Matcher::parse(m)).collect::<Result<Vec<_>, _>>();
                matchers.map(|m| (s.clone(), m)).map_err(|error| {
                    tracing::error!(silence = s.id, %error, "this silence cannot be read; it silences nothing");
                })
            };
            *known = (stamp, Arc::new(all.into_iter().filter_map(|s| read(s).ok()).collect()));
        }
        Arc::clone(&known.1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::sample;

    fn at(minute: i64) -> DateTime<Utc> {
        DateTime::UNIX_EPOCH + TimeDelta::days(20_000) + TimeDelta::minutes(minute)
    }

    fn silence(matcher: &str, from: i64, to: i64) -> Result<Silence, SilenceError> {
        Silence::new(vec![matcher.to_owned()], ("ann".into(), "planned".into()), (at(from), at(to)), at(0))
    }

    #[test]
    fn only_while_it_lasts_and_only_what_matches() {
        let dir = tempfile::tempdir().unwrap();
        let (file, alert) = (Silences::of(dir.path()), sample::alert());
        let watch = Watch::new(file.clone());
        assert_eq!(watch.silenced_by(&alert, at(5)), None);
        let (other, ours) = (silence("actor=bob", 0, 100).unwrap(), silence("actor=alice", 10, 20).unwrap());
        file.add(other).unwrap();
        file.add(ours.clone()).unwrap();
        let by = |minute| watch.silenced_by(&alert, at(minute));
        assert_eq!([by(9), by(20)], [None, None]);
        assert_eq!(by(10), Some(ours.id.clone()));
        assert_eq!(file.expire(&[ours.id[..5].to_owned()], at(12)).unwrap(), std::slice::from_ref(&ours.id));
        assert_eq!(by(13), None, "the change is seen");
        assert_eq!(file.list().unwrap().len(), 2, "who silenced what can be seen afterwards");
        assert!(file.expire(&[String::new(), "zz".into()], at(12)).unwrap().is_empty());
        file.add(Silence { created: at(60 * 24 * 40), ..silence("actor=bob", 0, 60 * 24 * 50).unwrap() }).unwrap();
        assert_eq!(file.list().unwrap().len(), 1, "but not for ever");
    }

    #[test]
    fn shards_share_the_silences_of_the_whole() {
        let whole = Silences::of(Path::new("/var/lib/lapwing"));
        assert_eq!(Silences::of(Path::new("/var/lib/lapwing/shards/audit-3")).0, whole.0);
    }

    #[test]
    fn a_silence_of_everything_or_without_owner_is_refused() {
        assert!(matches!(silence("namespace!=x", 0, 1), Err(SilenceError::Everything)));
        assert!(matches!(silence("actor=~\".*\"", 0, 1), Err(SilenceError::Everything)));
        assert!(matches!(silence("actor=a", 1, 1), Err(SilenceError::Order { .. })));
        assert!(matches!(silence("nobody=a", 0, 1), Err(SilenceError::Matcher(_))));
        let nobody = Silence::new(vec!["actor=a".into()], (" ".into(), "x".into()), (at(0), at(1)), at(0));
        assert!(matches!(nobody, Err(SilenceError::Missing("owner"))));
    }

    #[test]
    fn a_file_that_cannot_be_read_silences_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let file = Silences::of(dir.path());
        file.add(silence("actor=alice", 0, 10).unwrap()).unwrap();
        let watch = Watch::new(file.clone());
        assert!(watch.silenced_by(&sample::alert(), at(5)).is_some());
        std::fs::write(&file.0, "[{").unwrap();
        assert_eq!(watch.silenced_by(&sample::alert(), at(5)), None);
        assert!(file.add(silence("actor=alice", 0, 10).unwrap()).is_err(), "and is not overwritten");
    }
}
