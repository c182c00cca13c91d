//! What a worker remembers beside its cursor: alerts that wait behind it, and the times grouping needs. Written only
//! where the configuration makes alerts wait.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::flow::gather::Told;
use crate::flow::incident::Opened;
use crate::output::file;

/// Largest file read, in bytes.
const MAX_BYTES: u64 = 64 << 20;

/// The remembered.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Saved {
    /// Up to this position of the alert journal everything is done but for `held`. 0 when nothing is held.
    pub upto: u64,
    /// Positions that wait, with the microsecond they came.
    pub held: BTreeMap<u64, i64>,
    pub told: BTreeMap<String, Told>,
    /// Fresh sources of inhibition: rule, values, last event.
    pub seen: Vec<(usize, String, chrono::DateTime<chrono::Utc>)>,
    pub open: Opened,
}

/// `outputs/NAME.flow.json` under the data directory.
#[derive(Clone, Debug)]
pub struct StateFile(PathBuf);

impl StateFile {
    pub fn of(data_dir: &Path, name: &str) -> Self {
        Self(data_dir.join("outputs").join(format!("{name}.flow.json")))
    }

    /// What cannot be read is as if it were not there: alerts that waited are told again, none is lost.
    pub fn read(&self) -> Saved {
        match std::fs::metadata(&self.0) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Saved::default(),
            Ok(m) if m.len() <= MAX_BYTES => {}
            _ => return self.unreadable("it is no file, or larger than 64 MiB"),
        }
        let read = std::fs::read(&self.0).and_then(|text| Ok(serde_json::from_slice(&text)?));
        read.unwrap_or_else(|e| self.unreadable(&e.to_string()))
    }

    fn unreadable(&self, reason: &str) -> Saved {
        tracing::error!(reason, "cannot read `{}`; what waited may be told twice", self.0.display());
        Saved::default()
    }

    /// Durable when it returns.
    pub fn write(&self, saved: &Saved) -> io::Result<()> {
        file::replace(&self.0, &serde_json::to_vec(saved)?)
    }
}
