//! Sigma text → [`file::RuleFile`] (what a person wrote) → [`Rule`] (what runs).
//!
//! A rule says match, no match, or undecidable about one event. It knows no clock and keeps no
//! state; correlations only refer to rules here, their windows are elsewhere.

pub mod condition;
pub mod correlation;
mod correlation_text;
pub mod detection;
pub mod explain;
pub mod expr;
#[cfg(test)]
mod fake;
pub mod file;
pub mod index;
pub mod matcher;
pub mod modifier;
pub mod pattern;
pub mod problem;
pub mod schema;
pub mod set;
pub mod tests;
#[cfg(test)]
mod values_tests;
pub mod view;
pub mod yaml;

use std::path::PathBuf;
use std::sync::Arc;

use condition::Cond;
use detection::{Compiler, Placeholders};
use expr::{Expr, Tri};
use file::{Detection, Document, Meta};
use problem::{Fault, Problems};
pub use view::{Elements, Scalar, Unknown, Values, View};

use crate::event::Stage;
use crate::field::Field;

/// What a rule says about an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Judgement {
    Match,
    NoMatch,
    /// The event lacks what the rule needs: why, and which field.
    Undecidable(Unknown, Field),
}

/// Selections and the condition over them, compiled.
#[derive(Debug)]
pub struct Detector {
    pub selections: Vec<Selection>,
    pub condition: Cond,
    /// The condition as written, several joined by `or`.
    pub condition_text: String,
}

#[derive(Debug)]
pub struct Selection {
    pub name: String,
    pub expr: Expr<Field>,
}

/// A filter document compiled into a rule: what it matches is no match of the rule.
#[derive(Debug)]
pub struct Filter {
    pub meta: Meta,
    pub detector: Arc<Detector>,
}

/// A detection that runs.
#[derive(Debug)]
pub struct Rule {
    pub meta: Meta,
    pub path: PathBuf,
    /// Hash of what the rule means, filters included; metadata and layout do not change it.
    pub hash: String,
    pub detector: Detector,
    pub filters: Vec<Filter>,
    by_need: index::Pinned,
    pub(crate) names_stage: bool,
}

impl Detector {
    /// Compiles a detection; `None` when it has errors, which are then told.
    pub fn compile(text: &Detection, placeholders: &Placeholders, problems: &mut Problems) -> Option<Self> {
        let mut compiler = Compiler { placeholders, problems };
        let compiled: Vec<_> = text.selections.iter().map(|(n, _, node)| (n, compiler.selection(n, node))).collect();
        // The condition is read even when selections failed, so that its faults are told too.
        let names: Vec<_> = compiled.iter().map(|(n, e)| ((*n).clone(), e.as_ref().map_or(0, Expr::cost))).collect();
        let mut used = vec![false; names.len()];
        let mut conditions = Vec::new();
        for (condition, at) in &text.conditions {
            match Cond::parse(condition, &names, &mut used) {
                Ok(cond) => conditions.push(cond),
                Err(fault) => problems.error(*at, Fault::Condition { condition: condition.clone(), fault }),
            }
        }
        if conditions.len() < text.conditions.len() || conditions.is_empty() {
            return None;
        }
        for ((name, at, _), used) in text.selections.iter().zip(&used) {
            if !used {
                problems.warn(*at, Fault::UnusedSelection(name.clone()));
            }
        }
        let selections = compiled.into_iter().map(|(n, e)| e.map(|expr| Selection { name: n.clone(), expr }));
        let selections = selections.collect::<Option<Vec<_>>>()?;
        let texts: Vec<_> = text.conditions.iter().map(|(t, _)| t.as_str()).collect();
        let condition_text = texts.join(" or ");
        Some(Self { selections, condition: Cond::any(conditions, &names), condition_text })
    }

    pub(crate) fn judge<'r>(&'r self, view: &impl View) -> Tri<'r, Field> {
        self.condition.judge(&mut |i| self.selections[i].expr.judge(view))
    }

    /// Calls `f` with every field the detection reads.
    pub fn visit_fields<'r>(&'r self, f: &mut dyn FnMut(&'r Field)) {
        for selection in &self.selections {
            selection.expr.visit(&mut |item| {
                f(&item.key);
                if let expr::Test::Same { others, .. } = &item.test {
                    others.iter().for_each(&mut *f);
                }
            });
        }
    }
}

impl Rule {
    /// A rule from its document; `None` when it has errors, which are then told.
    pub fn compile(
        document: &Document,
        detection: &Detection,
        path: PathBuf,
        placeholders: &Placeholders,
        problems: &mut Problems,
    ) -> Option<Self> {
        problems.rule = Some(document.meta.label().to_owned());
        let detector = Detector::compile(detection, placeholders, problems);
        problems.rule = None;
        let detector = detector?;
        let mut names_stage = false;
        detector.visit_fields(&mut |field| names_stage |= field.name() == "stage");
        let hash = blake3::hash(detection.canonical.as_bytes()).to_hex().to_string();
        Some(Self {
            meta: document.meta.clone(),
            path,
            hash,
            detector,
            filters: Vec::new(),
            by_need: index::Pinned::default(),
            names_stage,
        })
    }

    /// Adds a filter. The rule's hash changes with it.
    pub fn filter(&mut self, filter: Filter, canonical: &str) {
        self.hash = blake3::hash(format!("{} filter {canonical}", self.hash).as_bytes()).to_hex().to_string();
        self.by_need.push(&filter.detector);
        self.filters.push(filter);
    }

    /// Judges one event: its detection, and not one of its filters.
    pub fn judge(&self, view: &impl View) -> Judgement {
        let verdict = match self.detector.judge(view) {
            Tri::False => Tri::False,
            found => {
                let kept = self.by_need.possible(view).map(|i| self.filters[i].detector.judge(view).not());
                Tri::all(std::iter::once(found).chain(kept))
            }
        };
        match verdict {
            Tri::True => Judgement::Match,
            Tri::False => Judgement::NoMatch,
            Tri::Unknown(why, field) => Judgement::Undecidable(why, field.clone()),
        }
    }

    /// Whether the rule looks at events of this stage: one that does not name `stage` sees the
    /// stages that end a request, so that a request counts once.
    pub fn sees(&self, stage: Stage) -> bool {
        self.names_stage || matches!(stage, Stage::ResponseStarted | Stage::ResponseComplete | Stage::Panic)
    }

    /// Whether the rule or one of its filters searches the whole event for texts.
    pub(crate) fn searches_text(&self) -> bool {
        let detectors = std::iter::once(&self.detector).chain(self.filters.iter().map(|f| &*f.detector));
        detectors.flat_map(|d| &d.selections).any(|s| s.expr.searches_text())
    }

    /// Calls `f` with every field the rule or its filters read.
    pub fn visit_fields<'r>(&'r self, f: &mut dyn FnMut(&'r Field)) {
        self.detector.visit_fields(f);
        self.filters.iter().for_each(|filter| filter.detector.visit_fields(f));
    }
}
