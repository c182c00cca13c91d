//! The configuration file: YAML in, a typed `Config` out, or every problem at once.
//!
//! The way: text → tree with places → `${ENV}` → check against the schema of `Config` → paths made
//! absolute → typed `Config` → checks that need meaning. Each part of Lapwing owns its section; this
//! module composes them and reads nothing but the files the configuration names.

pub mod check;
mod env;
mod files;
mod parts;
pub mod problem;
pub mod show;
mod tree;
pub mod units;
mod validate;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use lapwing_engine::alert::Level;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use crate::http::guard::Config as Admin;
use crate::ruleset::DEFAULT_FILTERS;
pub use parts::{archive, completeness, file, flow, forward, kafka, output, space, webhook};
pub use problem::{ConfigError, Place, Problem, Problems};
use tree::Node;
pub use units::{ByteSize, HumanDuration};

/// A Lapwing configuration file. Relative paths start at the directory of this file; `${NAME}` in a
/// value is replaced by the environment variable.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct Config {
    /// Where the journal, the index and all state live.
    pub data_dir: PathBuf,
    /// Health and metrics.
    pub admin: Admin,
    /// Where events come from. At least one.
    pub sources: Sources,
    /// Where `lapwing receive` brings events to. `lapwing serve` does not use it.
    pub forward: Option<forward::Config>,
    /// Which rules judge.
    pub rules: Rules,
    /// How findings become alerts.
    pub alerts: Alerts,
    /// What is normal, learned.
    pub baseline: Baseline,
    /// How long events are kept.
    pub retention: Retention,
    /// Whether everything comes that should.
    pub completeness: completeness::Config,
    /// What happens when the disk fills up.
    pub disk: space::Config,
    /// Where every event is kept, in an S3 bucket.
    pub archive: Option<archive::Config>,
    /// Where alerts go.
    pub outputs: Vec<output::Config>,
    /// Addresses that no output may talk to unless they stand here.
    pub outbound: output::allow::Config,
    /// Which alerts go to which of them, and with which others. Without it each output gets every alert of its level.
    pub route: Option<flow::Route>,
    /// Alerts that are not told while others are fresh.
    pub inhibit_rules: Vec<flow::inhibit::InhibitRule>,
    /// Times that routes can name.
    pub time_intervals: Vec<flow::window::TimeInterval>,
    /// Whether the process gives up, at its start, what it does not need: files that this configuration does not name,
    /// running programs. As far as the kernel has Landlock and seccomp.
    pub sandbox: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            data_dir: "/var/lib/lapwing".into(),
            admin: Admin::default(),
            sources: Sources::default(),
            forward: None,
            rules: Rules::default(),
            alerts: Alerts::default(),
            baseline: Baseline::default(),
            retention: Retention::default(),
            completeness: completeness::Config::default(),
            disk: space::Config::default(),
            archive: None,
            outputs: Vec::new(),
            outbound: output::allow::Config::default(),
            route: None,
            inhibit_rules: Vec::new(),
            time_intervals: Vec::new(),
            sandbox: true,
        }
    }
}

/// Where events come from.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct Sources {
    /// The audit webhook kube-apiserver posts to.
    pub webhook: Option<webhook::Config>,
    /// Kafka consumer groups.
    pub kafka: Vec<kafka::Config>,
    /// Audit log files, followed through rotation.
    pub files: Vec<file::Config>,
}

/// Which rules judge. The built-in rules are part of the program.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct Rules {
    /// Files or directories with further Sigma rules.
    pub paths: Vec<PathBuf>,
    /// Ids of rules that must not judge.
    pub disable: Vec<String>,
    /// Packs of filters for the distribution and the controllers you run: `lapwing rules list` names them. A pack of a
    /// product you do not run would be an open door: leave it off.
    pub filters: Vec<String>,
    /// Lists of your own that rules ask for with `%name%`: addresses, accounts, namespaces. A rule whose list is empty
    /// sleeps; `lapwing rules list` tells which.
    pub lists: BTreeMap<String, Vec<String>>,
    /// Rules below this level are not loaded.
    pub min_level: Level,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            paths: Vec::new(),
            disable: Vec::new(),
            filters: DEFAULT_FILTERS.map(str::to_owned).to_vec(),
            lists: BTreeMap::new(),
            min_level: Level::Informational,
        }
    }
}

/// How findings become alerts.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct Alerts {
    /// Findings of one rule, actor and cluster within this time are one alert.
    pub group_window: HumanDuration,
}

impl Default for Alerts {
    fn default() -> Self {
        Self { group_window: HumanDuration::from_secs(3600) }
    }
}

/// What is normal for each identity, learned from the events; alerts about what is not.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct Baseline {
    /// Whether to learn and to tell. Rules do not depend on it.
    pub enabled: bool,
    /// Alerts a day and cluster that the thresholds are steered to, after a first week with careful fixed ones.
    #[schemars(range(min = 0.1, max = 1000.0))]
    pub alerts_per_day: f32,
    /// Instead of steering: bits of surprise from which on a request is told. Needs `risk`.
    pub surprise: Option<f32>,
    /// Instead of steering: bits of risk from which on an actor is told. Needs `surprise`.
    pub risk: Option<f32>,
    /// Memory of all baselines; whoever was not seen for longest is kept on disk beyond it.
    pub max_memory: ByteSize,
    /// Disk for baselines that memory has no room for; beyond it whoever was not seen for longest is forgotten. `0`: none.
    pub max_disk: ByteSize,
}

impl Default for Baseline {
    fn default() -> Self {
        let (max_memory, max_disk) = (ByteSize::mib(512), ByteSize::gib(2));
        Self { enabled: true, alerts_per_day: 5.0, surprise: None, risk: None, max_memory, max_disk }
    }
}

impl Baseline {
    /// As the engine wants it; `None` where it is switched off.
    pub fn options(&self) -> Option<lapwing_engine::baseline::Options> {
        self.enabled.then(|| lapwing_engine::baseline::Options {
            per_day: self.alerts_per_day,
            fixed: self.surprise.zip(self.risk),
            max_bytes: usize::try_from(self.max_memory.get()).unwrap_or(usize::MAX),
            // What is in use may lie scattered over twice as much.
            max_shelved: self.max_disk.get() / 2,
        })
    }
}

/// How long events are kept. Whichever limit is reached first removes the oldest.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct Retention {
    /// Events older than this are removed.
    pub max_age: HumanDuration,
    /// Event journal and index together stay below this; what is not judged yet is kept all the same.
    pub max_size: ByteSize,
    /// The alert journal stays below this. What an output has still to deliver is kept all the same.
    pub alerts_max_size: ByteSize,
}

impl Default for Retention {
    fn default() -> Self {
        Self {
            max_age: HumanDuration::from_secs(30 * 86_400),
            max_size: ByteSize::gib(20),
            alerts_max_size: ByteSize::gib(1),
        }
    }
}

/// A configuration that passed every check.
#[derive(Debug)]
pub struct Loaded {
    pub config: Config,
    pub file: PathBuf,
    /// Not wrong, but worth a look: shown by `config check` and logged at start.
    pub notes: Vec<Problem>,
    tree: Node,
}

impl Config {
    /// Reads and checks `file`. `data_dir` overrides the file's.
    ///
    /// # Errors
    /// When the file cannot be read, or with every problem in it.
    pub fn load(file: &Path, data_dir: Option<&Path>) -> Result<Loaded, ConfigError> {
        let text = std::fs::read_to_string(file)
            .map_err(|source| ConfigError::Unreadable { path: file.to_owned(), source })?;
        let mut loaded = Self::read(&text, file, &|name| std::env::var(name).ok()).map_err(ConfigError::Wrong)?;
        if let Some(dir) = data_dir {
            loaded.config.data_dir = std::path::absolute(dir).unwrap_or_else(|_| dir.to_owned());
        }
        Ok(loaded)
    }

    /// As `load`, from a text; `file` gives the name for messages and the directory for relative paths.
    ///
    /// # Errors
    /// Every problem in the text.
    pub fn read(text: &str, file: &Path, env: &dyn Fn(&str) -> Option<String>) -> Result<Loaded, Problems> {
        let wrong = |list| Problems::new(file, list);
        let mut tree = tree::parse(text).map_err(|problem| wrong(vec![problem]))?;
        if matches!(tree.value, tree::Value::Null) {
            tree.value = tree::Value::Map(Vec::new());
        }
        let mut problems = Vec::new();
        tree.take_repeated("", &mut problems);
        env::substitute(&mut tree, env, &mut problems);
        problems.extend(check::check(&mut tree, &Self::schema()));
        let base = file.parent().unwrap_or(Path::new("")).to_owned();
        files::resolve(&mut tree, &base, &mut problems);

        let config = match serde_path_to_error::deserialize::<_, Self>(tree.to_json()) {
            Ok(config) => config,
            Err(error) => {
                // Meaning can still be checked on what the file says, so that nothing is held back.
                let (more, _) = validate::validate(&tree.to_json(), &tree);
                add_unexplained(&mut problems, more);
                let path = error.path().to_string();
                let near = |p: &Problem| path == "." || p.path.starts_with(&path) || path.starts_with(&p.path);
                if !problems.iter().any(near) {
                    problems.push(Problem::new(tree.place_of(&path), path.clone(), error.inner().to_string()));
                }
                return Err(wrong(problems));
            }
        };
        // Before the addresses of the parts are looked at.
        config.outbound.apply();
        let effective = serde_json::to_value(&config).unwrap_or_default();
        let (more, mut notes) = validate::validate(&effective, &tree);
        add_unexplained(&mut problems, more);
        for (path, what) in parts::problems(&config) {
            if !problems.iter().any(|p| p.path.starts_with(&path)) {
                problems.push(Problem::new(tree.place_of(&path), path, what));
            }
        }
        match config.flow() {
            Ok(flow) => {
                for output in flow.unreached(&config.output_names()) {
                    let what = format!("no route leads to output `{output}`; it is told nothing");
                    notes.push(Problem::new(tree.place_of("route"), "route", what));
                }
            }
            Err(wrong) => {
                problems.extend(wrong.into_iter().map(|(path, what)| Problem::new(tree.place_of(&path), path, what)))
            }
        }
        if problems.is_empty() {
            Ok(Loaded { config, file: file.to_owned(), notes, tree })
        } else {
            Err(wrong(problems))
        }
    }

    /// Who is told what, checked.
    ///
    /// # Errors
    /// Every problem with its path.
    pub fn flow(&self) -> Result<flow::Flow, flow::Problems> {
        let outputs = self.output_names();
        flow::Flow::new(flow::Sections {
            route: self.route.as_ref(),
            inhibit_rules: &self.inhibit_rules,
            time_intervals: &self.time_intervals,
            outputs: &outputs,
        })
    }

    fn output_names(&self) -> Vec<String> {
        self.outputs.iter().map(|o| o.name().to_owned()).collect()
    }

    /// The JSON Schema of the file.
    pub fn schema() -> serde_json::Value {
        schemars::schema_for!(Self).to_value()
    }
}

fn add_unexplained(problems: &mut Vec<Problem>, more: Vec<Problem>) {
    let known = problems.len();
    for problem in more {
        if !problems[..known].iter().any(|p| explains(p, &problem)) {
            problems.push(problem);
        }
    }
}

/// Whether `known` already tells why `other` is wrong: it is about the same key, or about an unknown key
/// in the same section or in the section `other` finds empty.
fn explains(known: &Problem, other: &Problem) -> bool {
    let section = |path: &'_ str| path.rsplit_once('.').map_or("", |(section, _)| section).to_owned();
    let unknown = known.what.starts_with("unknown key");
    let leaf = other.path.rsplit('.').next().unwrap_or_default();
    known.path == other.path
        || unknown && section(&known.path) == other.path
        || known.what.contains(&format!("did you mean `{leaf}`?"))
}

#[cfg(test)]
mod reference;
#[cfg(test)]
mod tests;
