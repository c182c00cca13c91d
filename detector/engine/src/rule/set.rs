//! All rules together: names resolved, filters compiled into the rules they tame.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use chrono::NaiveDate;

use super::condition::Cond;
use super::correlation::{self, Correlation, Named, Part};
use super::detection::Placeholders;
use super::file::{Body, Document, FilterText, Meta, RuleFile};
use super::index::Index;
use super::problem::{Fault, Hint, Place, Problem, Problems, Severity};
use super::{Detector, Filter, Rule};
use crate::alert::Level;

/// How to load.
#[derive(Clone, Debug, Default)]
pub struct LoadOptions {
    /// Ids or names of rules, correlations and filters to leave out.
    pub disabled: Vec<String>,
    /// Values for the modifier `expand`.
    pub placeholders: Placeholders,
    /// Rules and correlations below it are left out, unless something refers to them.
    pub min_level: Option<Level>,
    /// Filters that expired before this day are ignored. `None`: none is.
    pub today: Option<NaiveDate>,
}

/// A document that waits for a list of the operator's.
#[derive(Clone, Debug)]
pub struct Asleep {
    pub meta: Meta,
    pub path: PathBuf,
    /// Names of the lists that are empty.
    pub lists: Vec<String>,
}

/// Every rule and correlation that runs.
#[derive(Debug, Default)]
pub struct RuleSet {
    rules: Vec<Rule>,
    correlations: Vec<Correlation>,
    index: Index,
    /// For each rule, whether it makes findings of its own.
    speaks: Vec<bool>,
    asleep: Vec<Asleep>,
    warnings: Vec<Problem>,
}

impl RuleSet {
    /// Loads files given as path and text. All or nothing: with one error, all problems.
    pub fn load(sources: Vec<(PathBuf, String)>, options: &LoadOptions) -> Result<Self, Vec<Problem>> {
        let (set, problems) = Self::load_lenient(sources, options);
        if problems.is_empty() { Ok(set) } else { Err(problems.into_iter().chain(set.warnings).collect()) }
    }

    /// Loads what is good and returns the errors of the rest beside it.
    pub fn load_lenient(sources: Vec<(PathBuf, String)>, options: &LoadOptions) -> (Self, Vec<Problem>) {
        let mut loader = Loader {
            options,
            problems: Vec::new(),
            ids: HashMap::new(),
            disabled_seen: Vec::new(),
            disabled: Vec::new(),
            asleep: Vec::new(),
        };
        let documents = loader.read(sources);
        let (rules, correlations) = loader.build(documents);
        loader.check_disabled();
        let asleep = std::mem::take(&mut loader.asleep);
        let speaks = speaks(rules.len(), &correlations);
        let mut problems = loader.problems;
        problems.sort_by(|a, b| (&a.path, a.place).cmp(&(&b.path, b.place)));
        let (errors, warnings) = problems.into_iter().partition(|p: &Problem| p.severity == Severity::Error);
        let index = Index::new(&rules);
        (Self { rules, correlations, index, speaks, asleep, warnings }, errors)
    }

    pub fn rules(&self) -> &[Rule] {
        &self.rules
    }

    pub fn correlations(&self) -> &[Correlation] {
        &self.correlations
    }

    pub fn index(&self) -> &Index {
        &self.index
    }

    /// What does not run because a list it needs is empty, in the order of the files.
    pub fn asleep(&self) -> &[Asleep] {
        &self.asleep
    }

    pub fn warnings(&self) -> &[Problem] {
        &self.warnings
    }

    /// Whether this rule makes findings of its own. A rule a correlation refers to is silent,
    /// unless one of them says `generate: true`.
    pub fn speaks(&self, rule: usize) -> bool {
        self.speaks.get(rule).copied().unwrap_or(false)
    }

    /// The rule or correlation of this id or name.
    pub fn find(&self, reference: &str) -> Option<Part> {
        let rule = self.rules.iter().position(|r| r.meta.is(reference)).map(Part::Rule);
        rule.or_else(|| self.correlations.iter().position(|c| c.meta.is(reference)).map(Part::Correlation))
    }

    pub fn meta(&self, part: Part) -> &Meta {
        match part {
            Part::Rule(i) => &self.rules[i].meta,
            Part::Correlation(i) => &self.correlations[i].meta,
        }
    }
}

fn speaks(rules: usize, correlations: &[Correlation]) -> Vec<bool> {
    let mut referred = vec![false; rules];
    let mut generate = vec![false; rules];
    for c in correlations {
        for part in &c.parts {
            if let Part::Rule(i) = part {
                referred[*i] = true;
                generate[*i] |= c.generate;
            }
        }
    }
    referred.into_iter().zip(generate).map(|(referred, generate)| !referred || generate).collect()
}

struct Loader<'o> {
    options: &'o LoadOptions,
    problems: Vec<Problem>,
    /// Lower-case id or name → where it was first taken.
    ids: HashMap<String, String>,
    /// Entries of `options.disabled` that named something.
    disabled_seen: Vec<String>,
    disabled: Vec<Meta>,
    asleep: Vec<Asleep>,
}

type Placed = (PathBuf, Document);

impl Loader<'_> {
    fn read(&mut self, sources: Vec<(PathBuf, String)>) -> Vec<Placed> {
        let mut out = Vec::new();
        for (path, text) in sources {
            let (file, problems) = RuleFile::parse(&path, &text);
            self.problems.extend(problems);
            for document in file.documents {
                if self.is_disabled(&document.meta) || !self.claim(&path, &document) {
                    continue;
                }
                out.push((path.clone(), document));
            }
        }
        out
    }

    fn is_disabled(&mut self, meta: &Meta) -> bool {
        let hits: Vec<_> = self.options.disabled.iter().filter(|d| meta.is(d)).cloned().collect();
        let hit = !hits.is_empty();
        self.disabled_seen.extend(hits);
        if hit {
            self.disabled.push(meta.clone());
        }
        hit
    }

    /// Takes the ids of a document; false when one of them is taken already.
    fn claim(&mut self, path: &Path, document: &Document) -> bool {
        let here = format!("{}:{}", path.display(), document.at.line);
        let meta = &document.meta;
        let names = [("id", Some(&meta.id)), ("name", meta.name.as_ref().filter(|n| **n != meta.id))];
        let mut free = true;
        for (what, name) in names {
            let Some(name) = name else { continue };
            if let Some(first) = self.ids.get(&name.to_lowercase()) {
                let fault = Fault::Duplicate { what, name: name.clone(), first: first.clone() };
                self.in_file(path, meta, |p| p.error(document.at, fault));
                free = false;
            } else {
                self.ids.insert(name.to_lowercase(), here.clone());
            }
        }
        free
    }

    /// Runs `f` with a collector for this file and rule.
    fn in_file<T>(&mut self, path: &Path, meta: &Meta, f: impl FnOnce(&mut Problems) -> T) -> T {
        let mut problems = Problems::new(path);
        problems.rule = Some(meta.label().to_owned());
        let out = f(&mut problems);
        self.problems.extend(problems.into_list());
        out
    }

    fn build(&mut self, documents: Vec<Placed>) -> (Vec<Rule>, Vec<Correlation>) {
        let mut rules = Vec::new();
        let (mut correlations, mut filters) = (Vec::new(), Vec::new());
        // Documents with errors are known by name, so that a reference to one is not told as well.
        let metas: Vec<Meta> = documents.iter().map(|(_, d)| d.meta.clone()).collect();
        self.check_lists(&documents);
        let documents = self.put_to_sleep(documents);
        let documents = self.drop_low(documents);
        for (path, document) in documents {
            match &document.body {
                Body::Detection(detection) => {
                    let placeholders = &self.options.placeholders;
                    let compile = |p: &mut Problems| Rule::compile(&document, detection, path.clone(), placeholders, p);
                    rules.extend(self.in_file(&path, &document.meta, compile));
                }
                Body::Correlation(_) => correlations.push((path, document)),
                Body::Filter(_) => filters.push((path, document)),
            }
        }
        let filter_metas: Vec<&Meta> = filters.iter().map(|(_, d)| &d.meta).collect();
        let correlations = self.correlate(&rules, correlations, &filter_metas, &metas);
        for (path, document) in &filters {
            self.tame(&mut rules, &correlations, path, document, &metas);
        }
        (rules, correlations)
    }

    /// Sets aside what needs a list that is empty or not there.
    fn put_to_sleep(&mut self, documents: Vec<Placed>) -> Vec<Placed> {
        let placeholders = &self.options.placeholders;
        let mut awake = Vec::new();
        for (path, document) in documents {
            let meta = &document.meta;
            let missing = |l: &&String| placeholders.get(*l).is_none_or(Vec::is_empty);
            let lists: Vec<String> = meta.lists.iter().filter(missing).cloned().collect();
            if lists.is_empty() {
                awake.push((path, document));
            } else {
                self.asleep.push(Asleep { meta: document.meta, path, lists });
            }
        }
        awake
    }

    /// A list that nothing reads was meant for something else.
    fn check_lists(&mut self, documents: &[Placed]) {
        let known: Vec<&str> = documents.iter().flat_map(|(_, d)| &d.meta.lists).map(String::as_str).collect();
        let mut unread: Vec<&String> =
            self.options.placeholders.keys().filter(|l| !known.contains(&l.as_str())).collect();
        unread.sort();
        for name in unread {
            let written = format!("%{name}%");
            let reads = |d: &Document| match &d.body {
                Body::Detection(text) => text.canonical.contains(&written),
                Body::Filter(text) => text.detection.canonical.contains(&written),
                Body::Correlation(_) => false,
            };
            if !documents.iter().any(|(_, d)| reads(d)) {
                let fault = Fault::UnreadList { name: name.clone(), hint: Hint::nearest(name, known.iter().copied()) };
                let (path, severity) = (PathBuf::from("rules.lists"), Severity::Warning);
                self.problems.push(Problem { path, place: Place::default(), rule: None, severity, fault });
            }
        }
    }

    /// Leaves out what is below the least level wanted and not referred to.
    fn drop_low(&mut self, documents: Vec<Placed>) -> Vec<Placed> {
        let Some(least) = self.options.min_level else { return documents };
        let high = |d: &Document| d.meta.level >= least || matches!(d.body, Body::Filter(_));
        let mut keep: Vec<bool> = documents.iter().map(|(_, d)| high(d)).collect();
        // References keep what they refer to; chains are as long as the list at most.
        for _ in 0..documents.len() {
            let referred: Vec<&str> = documents
                .iter()
                .zip(&keep)
                .filter(|(_, keep)| **keep)
                .filter_map(|((_, d), _)| if let Body::Correlation(c) = &d.body { Some(c) } else { None })
                .flat_map(|c| c.rules.iter().map(|(r, _)| r.as_str()))
                .collect();
            let more: Vec<usize> = (0..documents.len())
                .filter(|i| !keep[*i] && referred.iter().any(|r| documents[*i].1.meta.is(r)))
                .collect();
            if more.is_empty() {
                break;
            }
            more.into_iter().for_each(|i| keep[i] = true);
        }
        documents.into_iter().zip(keep).filter(|(_, keep)| *keep).map(|(d, _)| d).collect()
    }

    /// Resolves correlations again and again until none refers to one that failed.
    fn correlate(
        &mut self,
        rules: &[Rule],
        mut texts: Vec<Placed>,
        filters: &[&Meta],
        all: &[Meta],
    ) -> Vec<Correlation> {
        loop {
            let named = |i: usize, meta| Named { part: Part::Correlation(i), meta };
            let known: Vec<Named<'_>> = rules
                .iter()
                .enumerate()
                .map(|(i, r)| Named { part: Part::Rule(i), meta: &r.meta })
                .chain(texts.iter().enumerate().map(|(i, (_, d))| named(i, &d.meta)))
                .collect();
            let mut good = Vec::new();
            let mut bad = Vec::new();
            let mut found = Vec::new();
            for (i, (path, document)) in texts.iter().enumerate() {
                let Body::Correlation(text) = &document.body else { continue };
                let mut problems = Problems::new(path.clone());
                let resolved = correlation::resolve(text, &document.meta, path.clone(), &known, filters, &mut problems);
                match resolved {
                    Some(c) => good.push(c),
                    None => bad.push(i),
                }
                found.extend(problems.into_list().into_iter().filter_map(|p| self.news(p, all)));
            }
            if bad.is_empty() {
                if let Some(circle) = correlation::circle(&good) {
                    self.tell_circle(&good, &circle, &texts);
                    bad = circle;
                } else {
                    return good;
                }
            } else {
                self.problems.extend(found);
            }
            let mut i = 0;
            texts.retain(|_| {
                i += 1;
                !bad.contains(&(i - 1))
            });
        }
    }

    /// A rule that failed has told why: that it is missing is no news. That one is disabled is a
    /// warning.
    fn news(&self, mut problem: Problem, all: &[Meta]) -> Option<Problem> {
        let Fault::UnknownRule { name, .. } = &problem.fault else { return Some(problem) };
        if self.disabled.iter().any(|m| m.is(name)) {
            problem.severity = Severity::Warning;
            problem.fault = Fault::RefersToDisabled(name.clone());
            return Some(problem);
        }
        (!all.iter().any(|m| m.is(name))).then_some(problem)
    }

    fn tell_circle(&mut self, all: &[Correlation], circle: &[usize], texts: &[Placed]) {
        let names: Vec<&str> = circle.iter().map(|i| all[*i].meta.label()).collect();
        let Some(first) = circle.first() else { return };
        let (path, document) = &texts[*first];
        let fault = Fault::Circle(names.join(" → "));
        self.in_file(path, &document.meta, |p| p.error(document.at, fault));
    }

    /// Compiles a filter into the rules it names.
    fn tame(
        &mut self,
        rules: &mut [Rule],
        correlations: &[Correlation],
        path: &Path,
        document: &Document,
        all: &[Meta],
    ) {
        let Body::Filter(text) = &document.body else { return };
        let meta = &document.meta;
        if let (Some(expires), Some(today)) = (meta.expires, self.options.today)
            && expires <= today
        {
            return self.in_file(path, meta, |p| p.warn(document.at, Fault::Expired(expires.to_string())));
        }
        let targets = self.targets(rules, correlations, path, document, text, all);
        let placeholders = &self.options.placeholders;
        let compile = |p: &mut Problems| {
            Detector::compile(&text.detection, placeholders, p).map(|d| leave_out(d, document.at, p))
        };
        let Some(detector) = self.in_file(path, meta, compile) else { return };
        let detector = Arc::new(detector);
        for i in targets {
            let filter = Filter { meta: meta.clone(), detector: Arc::clone(&detector) };
            rules[i].filter(filter, &text.detection.canonical);
        }
    }

    fn targets(
        &mut self,
        rules: &[Rule],
        correlations: &[Correlation],
        path: &Path,
        document: &Document,
        text: &FilterText,
        all: &[Meta],
    ) -> Vec<usize> {
        let Some(names) = &text.rules else { return (0..rules.len()).collect() };
        let mut targets = Vec::new();
        for (name, at) in names {
            if let Some(i) = rules.iter().position(|r| r.meta.is(name)) {
                targets.push(i);
                continue;
            }
            let fault = if correlations.iter().any(|c| c.meta.is(name)) {
                Fault::FiltersCorrelation(name.clone())
            } else if all.iter().chain(&self.disabled).any(|m| m.is(name)) {
                continue;
            } else {
                correlation::unknown_rule(name, rules.iter().map(|r| &r.meta))
            };
            self.in_file(path, &document.meta, |p| p.error(*at, fault));
        }
        targets.sort_unstable();
        targets.dedup();
        targets
    }

    fn check_disabled(&mut self) {
        for name in &self.options.disabled {
            if !self.disabled_seen.contains(name) {
                let hint = Hint::nearest(name, self.ids.keys().map(String::as_str));
                let fault = Fault::UnknownDisabled { name: name.clone(), hint };
                let (path, severity) = (PathBuf::from("rules.disable"), Severity::Warning);
                self.problems.push(Problem { path, place: Place::default(), rule: None, severity, fault });
            }
        }
    }
}

/// Reads a filter's `not x` as "leave out x".
fn leave_out(detector: Detector, at: Place, problems: &mut Problems) -> Detector {
    match detector.condition {
        Cond::Not(inner) => {
            problems.warn(at, Fault::NegatedFilter);
            Detector { condition: *inner, ..detector }
        }
        _ => detector,
    }
}

#[cfg(test)]
#[path = "set_tests.rs"]
mod tests;
