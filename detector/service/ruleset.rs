//! The rules of this program: those compiled in, and those a user adds.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use chrono::NaiveDate;
use include_dir::{Dir, DirEntry, include_dir};
use lapwing_engine::alert::Level;
use lapwing_engine::rule::problem::{Hint, Problem};
use lapwing_engine::rule::set::{LoadOptions, RuleSet};
use serde::{Deserialize, Serialize};

static BUILT_IN: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/rules");

/// Which rules to load.
#[derive(Clone, Debug)]
pub struct Selection {
    /// Files or directories beside the built-in rules.
    pub paths: Vec<PathBuf>,
    /// Leave out the built-in rules.
    pub only_paths: bool,
    /// Ids to leave out.
    pub disabled: Vec<String>,
    pub min_level: Option<Level>,
    /// Packs of filters that are on, by the name of their file in `rules/filters`.
    pub filters: Vec<String>,
    /// Values for `%name%` in rules.
    pub lists: BTreeMap<String, Vec<String>>,
}

/// Packs that are on unless the operator says otherwise: they ask for credentials that only the installation itself has.
pub const DEFAULT_FILTERS: [&str; 1] = ["kubeadm"];

impl Default for Selection {
    fn default() -> Self {
        Self {
            paths: Vec::new(),
            only_paths: false,
            disabled: Vec::new(),
            min_level: None,
            filters: DEFAULT_FILTERS.map(str::to_owned).to_vec(),
            lists: BTreeMap::new(),
        }
    }
}

/// Why rules could not be loaded.
#[derive(Debug, thiserror::Error)]
pub enum RulesError {
    #[error("rules: cannot read `{}`", path.display())]
    Unreadable { path: PathBuf, source: std::io::Error },
    #[error("there is no filter pack `{name}`{hint}; there are: {}", packs().join(", "))]
    UnknownPack { name: String, hint: Hint },
    #[error("{} problem{} in the rules; `lapwing rules check` tells them all\n{}", .0.len(), if .0.len() == 1 { "" } else { "s" }, list(.0))]
    Bad(Vec<Problem>),
}

fn list(problems: &[Problem]) -> String {
    problems.iter().take(20).map(|p| format!("  {p}")).collect::<Vec<_>>().join("\n")
}

/// A file that holds rules and no tests.
pub fn is_rule_file(path: &Path) -> bool {
    let name = path.file_name().and_then(|n| n.to_str()).unwrap_or_default();
    (name.ends_with(".yml") || name.ends_with(".yaml")) && !is_test_file(path)
}

/// A file of tests beside a rule.
pub fn is_test_file(path: &Path) -> bool {
    let name = path.file_name().and_then(|n| n.to_str()).unwrap_or_default();
    name.ends_with(".test.yml") || name.ends_with(".test.yaml")
}

fn built_in(keep: fn(&Path) -> bool) -> Vec<(PathBuf, String)> {
    fn walk(dir: &Dir<'_>, keep: fn(&Path) -> bool, found: &mut Vec<(PathBuf, String)>) {
        for entry in dir.entries() {
            match entry {
                DirEntry::Dir(inner) => walk(inner, keep, found),
                DirEntry::File(file) if keep(file.path()) => {
                    let text = file.contents_utf8().unwrap_or_default().to_owned();
                    found.push((Path::new("rules").join(file.path()), text));
                }
                DirEntry::File(_) => {}
            }
        }
    }
    let mut found = Vec::new();
    walk(&BUILT_IN, keep, &mut found);
    found.sort();
    found
}

/// The name of the filter pack a built-in file is.
fn pack(path: &Path) -> Option<&str> {
    let in_filters = path.parent().and_then(Path::file_name).is_some_and(|dir| dir == "filters");
    path.file_stem().and_then(|stem| stem.to_str()).filter(|_| in_filters)
}

/// The names of all filter packs.
pub fn packs() -> Vec<String> {
    built_in(is_rule_file).iter().filter_map(|(path, _)| pack(path).map(str::to_owned)).collect()
}

/// Filters of the built-in packs, on or off.
pub fn pack_files() -> Vec<(PathBuf, String)> {
    built_in(is_rule_file).into_iter().filter(|(path, _)| pack(path).is_some()).collect()
}

/// The coverage table, as comma-separated values.
pub fn coverage() -> Option<&'static str> {
    BUILT_IN.get_file("coverage.csv")?.contents_utf8()
}

/// The files below `path` (or `path` itself) that `keep` wants, in a fixed order.
pub fn files(path: &Path, keep: fn(&Path) -> bool) -> Result<Vec<(PathBuf, String)>, RulesError> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| RulesError::Unreadable { path, source }
    };
    let mut found = Vec::new();
    if path.is_dir() {
        for entry in fs::read_dir(path).map_err(failed(path))? {
            let inner = entry.map_err(failed(path))?.path();
            if inner.is_dir() || keep(&inner) {
                found.extend(files(&inner, keep)?);
            }
        }
        found.sort();
    } else {
        found.push((path.to_owned(), fs::read_to_string(path).map_err(failed(path))?));
    }
    Ok(found)
}

impl Selection {
    /// Rule files of this selection as path and text; of filter packs only those that are on.
    pub fn rule_files(&self) -> Result<Vec<(PathBuf, String)>, RulesError> {
        let packs = packs();
        if let Some(name) = self.filters.iter().find(|f| !packs.contains(f)) {
            let hint = Hint::nearest(name, packs.iter().map(String::as_str));
            return Err(RulesError::UnknownPack { name: name.clone(), hint });
        }
        let mut own = built_in(is_rule_file);
        own.retain(|(path, _)| pack(path).is_none_or(|name| self.filters.iter().any(|f| f == name)));
        self.gather(own, is_rule_file)
    }

    /// Test files of this selection as path and text.
    pub fn test_files(&self) -> Result<Vec<(PathBuf, String)>, RulesError> {
        self.gather(built_in(is_test_file), is_test_file)
    }

    fn gather(
        &self,
        built_in: Vec<(PathBuf, String)>,
        keep: fn(&Path) -> bool,
    ) -> Result<Vec<(PathBuf, String)>, RulesError> {
        let mut sources = if self.only_paths { Vec::new() } else { built_in };
        for path in &self.paths {
            sources.extend(files(path, keep)?);
        }
        Ok(sources)
    }

    pub fn options(&self) -> LoadOptions {
        LoadOptions {
            disabled: self.disabled.clone(),
            min_level: self.min_level,
            placeholders: self.lists.clone().into_iter().collect(),
            today: Some(chrono::Utc::now().date_naive()),
        }
    }

    /// What is on disk now.
    pub fn sources(&self) -> Result<Sources, RulesError> {
        Ok(Sources {
            files: self.rule_files()?,
            disabled: self.disabled.clone(),
            min_level: self.min_level,
            lists: self.lists.clone(),
            today: chrono::Utc::now().date_naive(),
        })
    }

    /// Loads the selection; all or nothing.
    pub fn load(&self) -> Result<Arc<RuleSet>, RulesError> {
        self.sources()?.load()
    }
}

/// The text of rules and everything else that decides which of them are loaded.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Sources {
    /// Path and text.
    files: Vec<(PathBuf, String)>,
    disabled: Vec<String>,
    min_level: Option<Level>,
    lists: BTreeMap<String, Vec<String>>,
    /// Filters that expired before are left out.
    today: NaiveDate,
}

impl Sources {
    /// All or nothing.
    pub fn load(&self) -> Result<Arc<RuleSet>, RulesError> {
        let options = LoadOptions {
            disabled: self.disabled.clone(),
            min_level: self.min_level,
            placeholders: self.lists.clone().into_iter().collect(),
            today: Some(self.today),
        };
        RuleSet::load(self.files.clone(), &options).map(Arc::new).map_err(RulesError::Bad)
    }
}
