//! Which rules judge what: a record in the journal says from where on a rulebook is in use, its text is kept by hash in
//! `dataDir/rules`. A replay judges each record by the rules that were in use at its place.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use lapwing_engine::engine::Options;
use lapwing_engine::rule::set::RuleSet;
use serde::{Deserialize, Serialize};

use crate::ruleset::{RulesError, Sources};

/// Rulebooks kept on disk: those before are of a journal that retention has removed, most likely.
const KEPT: usize = 8;

/// BLAKE3 of a rulebook's text.
pub type Id = [u8; 32];

/// Rules, ready to judge.
#[derive(Debug)]
pub struct Rulebook {
    pub id: Id,
    pub rules: Arc<RuleSet>,
    /// Same version and options as this process: what it says now it has said then.
    pub ours: bool,
}

/// Everything that decides what the rules say.
#[derive(Serialize, Deserialize)]
struct Text {
    version: String,
    options: String,
    sources: Sources,
}

/// Why a rulebook cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum BookError {
    #[error("rulebook `{}`: {source}", path.display())]
    File { path: PathBuf, source: io::Error },
    #[error("rulebook `{}` is not what was written", path.display())]
    Damaged { path: PathBuf },
    #[error(transparent)]
    Rules(#[from] RulesError),
}

impl Rulebook {
    /// Loads `sources` and keeps their text in `dir`. Where that is not possible, as on a full disk, they judge all the same.
    pub fn write(dir: &Path, sources: Sources, options: &Options) -> Result<Self, RulesError> {
        let rules = sources.load()?;
        let text = Text { version: version(), options: format!("{options:?}"), sources };
        let json = serde_json::to_vec(&text).expect("text is always JSON");
        let id = blake3::hash(&json).into();
        if let Err(error) = keep(dir, &file(dir, &id), &json) {
            tracing::warn!(%error, "the rules in use could not be kept; a replay will judge by later ones");
        }
        Ok(Self { id, rules, ours: true })
    }

    /// One that was written before.
    pub fn read(dir: &Path, id: &Id, options: &Options) -> Result<Self, BookError> {
        let path = file(dir, id);
        let json = unpack(&path).map_err(|source| BookError::File { path: path.clone(), source })?;
        if *blake3::hash(&json).as_bytes() != *id {
            return Err(BookError::Damaged { path });
        }
        let text: Text = serde_json::from_slice(&json).map_err(|_| BookError::Damaged { path })?;
        let ours = text.version == version() && text.options == format!("{options:?}");
        Ok(Self { id: *id, rules: text.sources.load()?, ours })
    }
}

fn version() -> String {
    env!("CARGO_PKG_VERSION").to_owned()
}

fn file(dir: &Path, id: &Id) -> PathBuf {
    dir.join(format!("{}.json.zst", blake3::Hash::from(*id).to_hex()))
}

fn unpack(path: &Path) -> io::Result<Vec<u8>> {
    zstd::decode_all(fs::read(path)?.as_slice())
}

/// Durable before a record names it; those used longest ago make room.
fn keep(dir: &Path, path: &Path, json: &[u8]) -> io::Result<()> {
    if unpack(path).is_ok_and(|kept| kept == json) {
        return File::options().append(true).open(path)?.set_modified(SystemTime::now());
    }
    let temporary = dir.join("rulebook.tmp");
    let mut out = File::create(&temporary)?;
    out.write_all(&zstd::encode_all(json, 3)?)?;
    out.sync_data()?;
    fs::rename(&temporary, path)?;
    File::open(dir)?.sync_all()?;
    let mut all = Vec::new();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        all.push((entry.metadata()?.modified()?, entry.path()));
    }
    all.sort_unstable_by(|a, b| b.cmp(a));
    all.iter().filter(|(_, old)| old != path).skip(KEPT - 1).try_for_each(|(_, old)| fs::remove_file(old))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ruleset::Selection;

    fn sources(disabled: &str) -> Sources {
        let selection = Selection { disabled: vec![disabled.to_owned()], ..Selection::default() };
        selection.sources().unwrap()
    }

    #[test]
    fn what_was_written_is_read_again_under_its_hash() {
        let dir = tempfile::tempdir().unwrap();
        let options = Options::default();
        let book = Rulebook::write(dir.path(), sources("exec-into-pod"), &options).unwrap();
        let again = Rulebook::write(dir.path(), sources("exec-into-pod"), &options).unwrap();
        let other = Rulebook::write(dir.path(), sources("node-proxy"), &options).unwrap();
        assert!(book.id == again.id && book.id != other.id);
        let read = Rulebook::read(dir.path(), &book.id, &options).unwrap();
        let names = |book: &Rulebook| book.rules.rules().iter().map(|r| r.meta.id.clone()).collect::<Vec<_>>();
        assert!(read.ours && names(&read) == names(&book) && names(&read) != names(&other));
        let elsewhere = Options { group_window: 7, ..Options::default() };
        assert!(!Rulebook::read(dir.path(), &book.id, &elsewhere).unwrap().ours);

        fs::copy(file(dir.path(), &other.id), file(dir.path(), &book.id)).unwrap();
        assert!(matches!(Rulebook::read(dir.path(), &book.id, &options), Err(BookError::Damaged { .. })));
    }

    #[test]
    fn so_many_are_kept() {
        let dir = tempfile::tempdir().unwrap();
        for n in 0..KEPT + 3 {
            keep(dir.path(), &dir.path().join(n.to_string()), b"{}").unwrap();
        }
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), KEPT);
        assert!(dir.path().join((KEPT + 2).to_string()).exists());
    }
}
