//! What is wrong with a configuration file: all of it, each with its place.

use std::fmt;
use std::path::PathBuf;

/// Line and column in the file, both from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    pub line: u64,
    pub column: u64,
}

impl Place {
    pub const START: Self = Self { line: 1, column: 1 };

    pub const fn new(line: u64, column: u64) -> Self {
        Self { line, column }
    }
}

/// One thing that is wrong, what was expected and the way out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    pub place: Place,
    /// The key path, `outputs[0].name`; empty for the whole file.
    pub path: String,
    pub what: String,
}

impl Problem {
    pub fn new(place: Place, path: impl Into<String>, what: impl Into<String>) -> Self {
        Self { place, path: path.into(), what: what.into() }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.path.is_empty() {
            write!(f, "`{}`: ", self.path)?;
        }
        f.write_str(&self.what)
    }
}

/// Why a configuration could not be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("cannot read the configuration `{}`; {}", path.display(), way_out(source))]
    Unreadable { path: PathBuf, source: std::io::Error },
    #[error("the configuration has problems; `lapwing config check` checks it again\n{0}")]
    Wrong(Problems),
}

fn way_out(error: &std::io::Error) -> &'static str {
    match error.kind() {
        std::io::ErrorKind::NotFound => "name another with `--config`, or write one with `lapwing config init`",
        std::io::ErrorKind::PermissionDenied => "run as the user of the service, or let this user read it",
        _ => "name another with `--config`",
    }
}

/// Every problem of one file, in the order of the file. Displayed one a line as `file:line:column: …`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problems {
    pub file: PathBuf,
    pub list: Vec<Problem>,
}

impl Problems {
    pub fn new(file: impl Into<PathBuf>, mut list: Vec<Problem>) -> Self {
        list.sort_by_key(|problem| problem.place);
        list.dedup();
        Self { file: file.into(), list }
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, problem) in self.list.iter().enumerate() {
            let newline = if i == 0 { "" } else { "\n" };
            let Place { line, column } = problem.place;
            write!(f, "{newline}{}:{line}:{column}: {problem}", self.file.display())?;
        }
        Ok(())
    }
}
