//! Falco rules for Kubernetes audit events (`source: k8s_audit`), translated into Sigma rules that give
//! the same verdicts.
//!
//! Text → `source::Source` → `parse::Node` → `tree::Tree` → Sigma text. What cannot be translated
//! is named and left out; nothing is guessed.

mod blind;
mod fields;
mod parse;
mod source;
#[cfg(test)]
mod tests;
mod translate;
mod tree;
mod write;

use std::collections::HashSet;
use std::fmt;
use std::path::{Path, PathBuf};

use lapwing_engine::rule::problem::Place;
use lapwing_engine::rule::set::{LoadOptions, RuleSet};

use source::Source;
use tree::Tree;

/// Where something stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Where {
    pub path: PathBuf,
    pub place: Place,
}

impl Where {
    fn new(path: &Path, place: Place) -> Self {
        Self { path: path.to_owned(), place }
    }
}

impl fmt::Display for Where {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.path.display())?;
        if self.place.line > 0 { write!(f, ":{}:{}", self.place.line, self.place.column) } else { Ok(()) }
    }
}

/// Why a file could not be read at all.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    #[error("{at}: {what}")]
    File { at: Where, what: String },
}

/// What became of the rules of some files.
#[derive(Debug, Default)]
pub struct Import {
    pub rules: Vec<Imported>,
    pub left_out: Vec<LeftOut>,
}

impl Import {
    /// Whether a rule that should have been translated was not.
    pub fn is_partial(&self) -> bool {
        self.left_out.iter().any(|l| l.why.is_failure())
    }
}

/// A rule as ours.
#[derive(Debug)]
pub struct Imported {
    pub id: String,
    /// Its name in Falco.
    pub name: String,
    pub at: Where,
    /// A whole rule file.
    pub text: String,
    /// What the original does not see, and so neither does this.
    pub blind: Vec<String>,
}

/// A rule that was not translated.
#[derive(Debug)]
pub struct LeftOut {
    pub name: String,
    pub at: Where,
    pub why: Why,
}

/// Why a rule was left out.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Why {
    #[error("it is switched off (`enabled: false`)")]
    Disabled,
    #[error("it is about `{0}`, not about audit events")]
    OtherSource(String),
    #[error("it is switched off by a macro: its condition can never hold")]
    Never,
    #[error("it matches every event; that is no detection")]
    Always,
    #[error("{0}")]
    Unresolved(#[from] source::Unresolved),
    #[error("{0}")]
    Inexpressible(#[from] translate::Inexpressible),
    #[error("our own check refuses the translation: {0}")]
    Refused(String),
}

impl Why {
    /// Whether the user loses a detection by it.
    pub const fn is_failure(&self) -> bool {
        matches!(self, Self::Unresolved(_) | Self::Inexpressible(_) | Self::Refused(_))
    }
}

/// Translates the rules of files given as path and text; later files change earlier ones.
///
/// # Errors
/// When a file is no Falco rule file.
pub fn import(files: &[(PathBuf, String)]) -> Result<Import, ImportError> {
    let mut source = Source::default();
    for (path, text) in files {
        source.add(path, text)?;
    }
    let mut out = Import::default();
    let mut ids = HashSet::new();
    for rule in &source.rules {
        let (name, at) = (rule.name.clone(), rule.at.clone());
        match translated(&source, rule) {
            Ok(tree) => match written(rule, &tree, &mut ids) {
                Ok(imported) => out.rules.push(imported),
                Err(why) => out.left_out.push(LeftOut { name, at, why }),
            },
            Err(why) => out.left_out.push(LeftOut { name, at, why }),
        }
    }
    Ok(out)
}

fn translated(source: &Source, rule: &source::Rule) -> Result<Tree, Why> {
    if rule.source != "k8s_audit" {
        return Err(Why::OtherSource(rule.source.clone()));
    }
    if !rule.enabled {
        return Err(Why::Disabled);
    }
    let tree = translate::tree(&source.resolve(rule)?)?.simple();
    match tree {
        Tree::Always(true) => Err(Why::Always),
        Tree::Always(false) => Err(Why::Never),
        tree => Ok(tree),
    }
}

fn written(rule: &source::Rule, tree: &Tree, ids: &mut HashSet<String>) -> Result<Imported, Why> {
    let blind = blind::remarks(tree);
    let id = free_id(&rule.name, ids);
    let tags: Vec<String> = rule.tags.iter().filter_map(|t| attack_tag(t)).collect();
    let head = write::Head {
        id: &id,
        title: &rule.name,
        description: &rule.desc,
        tags: &tags,
        level: level(&rule.priority),
        blind: &blind,
    };
    let text = write::rule(&head, tree);
    let (_, problems) =
        RuleSet::load_lenient(vec![(format!("{id}.yml").into(), text.clone())], &LoadOptions::default());
    if let Some(problem) = problems.first() {
        return Err(Why::Refused(problem.to_string()));
    }
    Ok(Imported { id, name: rule.name.clone(), at: rule.at.clone(), text, blind })
}

/// `falco-` and the name in small letters and dashes.
fn free_id(name: &str, ids: &mut HashSet<String>) -> String {
    let letters: String =
        name.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' }).collect();
    let words: Vec<&str> = letters.split('-').filter(|w| !w.is_empty()).collect();
    let stem = format!("falco-{}", words.join("-"));
    let mut id = stem.clone();
    let mut n = 1;
    while !ids.insert(id.clone()) {
        n += 1;
        id = format!("{stem}-{n}");
    }
    id
}

fn level(priority: &str) -> &'static str {
    match priority.to_ascii_lowercase().as_str() {
        "emergency" | "alert" | "critical" => "critical",
        "error" => "high",
        "warning" => "medium",
        "notice" => "low",
        _ => "informational",
    }
}

/// `T1552.007` and `mitre_credential_access` as Sigma spells them.
fn attack_tag(tag: &str) -> Option<String> {
    if let Some(tactic) = tag.strip_prefix("mitre_") {
        return Some(format!("attack.{}", tactic.replace('_', "-")));
    }
    let digits = tag.strip_prefix('T')?;
    digits.starts_with(|c: char| c.is_ascii_digit()).then(|| format!("attack.t{digits}"))
}
