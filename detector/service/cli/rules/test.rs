//! Runs the tests beside rules.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context;
use lapwing_engine::alert::Verdict;
use lapwing_engine::engine::{Engine, Options, Output};
use lapwing_engine::event::Event;
use lapwing_engine::facts::Facts;
use lapwing_engine::memory::Sight;
use lapwing_engine::rule::Judgement;
use lapwing_engine::rule::correlation::Part;
use lapwing_engine::rule::problem::Problem;
use lapwing_engine::rule::set::RuleSet;
use lapwing_engine::rule::tests::{Events, Expect, RuleTest, TestFile};

use crate::cli::terminal::clean;
use crate::cli::{Exit, Globals};
use crate::input;
use crate::ruleset::Selection;

/// What the events of a test gave.
#[derive(Debug, Default)]
pub struct Outcome {
    pub matched: bool,
    pub undecidable: bool,
    pub findings: u64,
}

/// Runs the tests of the built-in rules and of `paths`.
pub fn run(paths: Vec<PathBuf>, only: Option<&str>, globals: &Globals) -> anyhow::Result<Exit> {
    let selection = Selection { paths, filters: Vec::new(), ..Selection::default() };
    let mut out = std::io::stdout().lock();
    let (files, mut problems) = parsed(&selection)?;
    let mut sets = Sets::new(selection, &files);
    sets.with(&[], &mut problems)?;
    for problem in &problems {
        writeln!(out, "{}", clean(&problem.to_string()))?;
    }
    let (mut passed, mut failed) = (0u64, problems.len() as u64);
    for file in &files {
        for test in file.tests.iter().filter(|t| only.is_none_or(|o| t.rule == o)) {
            let set = sets.with(&test.filters, &mut Vec::new())?;
            match run_one(&set, &file.path, test)? {
                None => passed += 1,
                Some(why) => {
                    failed += 1;
                    let at = format!("{}:{}", file.path.display(), test.at.line);
                    writeln!(out, "FAILED {at}: rule `{}`, test `{}`: {}", test.rule, clean(&test.name), clean(&why))?;
                }
            }
        }
    }
    if let Some(only) = only.filter(|_| passed + failed == 0) {
        anyhow::bail!("no test is about a rule `{only}`; `lapwing rules list` shows the rules");
    }
    if !globals.quiet {
        writeln!(out, "{passed} passed, {failed} failed")?;
    }
    Ok(if failed == 0 { Exit::Good } else { Exit::Found })
}

/// The test files of a selection, and what is wrong with those that cannot be read.
fn parsed(selection: &Selection) -> anyhow::Result<(Vec<TestFile>, Vec<Problem>)> {
    let (mut files, mut problems) = (Vec::new(), Vec::new());
    for (path, text) in selection.test_files()? {
        match TestFile::parse(&path, &text) {
            Ok(file) => files.push(file),
            Err(found) => problems.extend(found),
        }
    }
    Ok((files, problems))
}

/// The rules, once for each choice of filter packs.
struct Sets {
    selection: Selection,
    loaded: BTreeMap<Vec<String>, Arc<RuleSet>>,
}

impl Sets {
    /// Lists hold what the test files say, all of them together.
    fn new(mut selection: Selection, files: &[TestFile]) -> Self {
        for (name, values) in files.iter().flat_map(|f| &f.lists) {
            selection.lists.entry(name.clone()).or_default().extend(values.iter().cloned());
        }
        Self { selection, loaded: BTreeMap::new() }
    }

    /// The rules with these packs on; what is wrong with them goes to `problems` when they are loaded first.
    fn with(&mut self, filters: &[String], problems: &mut Vec<Problem>) -> anyhow::Result<Arc<RuleSet>> {
        if let Some(set) = self.loaded.get(filters) {
            return Ok(Arc::clone(set));
        }
        self.selection.filters = filters.to_vec();
        let (set, errors) = RuleSet::load_lenient(self.selection.rule_files()?, &self.selection.options());
        problems.extend(errors);
        let set = Arc::new(set);
        self.loaded.insert(filters.to_vec(), Arc::clone(&set));
        Ok(set)
    }
}

fn run_one(set: &Arc<RuleSet>, path: &Path, test: &RuleTest) -> anyhow::Result<Option<String>> {
    let Some(part) = set.find(&test.rule) else { return Ok(Some("there is no such rule".to_owned())) };
    let texts = texts(path, test)?;
    let got = outcome(set, part, &texts)?;
    let as_expected = match test.expect {
        Expect::Match => got.matched,
        Expect::NoMatch => !got.matched && !got.undecidable,
        Expect::Undecidable => got.undecidable && !got.matched,
    };
    let counted = test.count.is_none_or(|n| n == got.findings);
    Ok((!as_expected || !counted).then(|| {
        let was = match (got.matched, got.undecidable) {
            (true, _) => "match",
            (_, true) => "undecidable",
            _ => "no-match",
        };
        let count = test.count.map(|n| format!(" ({n} findings)")).unwrap_or_default();
        format!("expected {}{count}, was {was} ({} findings)", test.expect.as_str(), got.findings)
    }))
}

fn texts(path: &Path, test: &RuleTest) -> anyhow::Result<Vec<String>> {
    let file = match &test.events {
        Events::Inline(texts) => return Ok(texts.clone()),
        Events::File(file) => path.parent().unwrap_or(Path::new(".")).join(file),
    };
    let mut events = input::Events::open(&file, input::Limits::default())
        .with_context(|| format!("{}: cannot open `{}`", path.display(), file.display()))?;
    let mut texts = Vec::new();
    while let Some(item) = events.next() {
        match item {
            Ok(text) => texts.push(text.to_owned()),
            Err(e) => anyhow::bail!("{}:{}: {}", file.display(), e.line, e.detail),
        }
    }
    Ok(texts)
}

/// An event of a test may name its cluster.
fn cluster(text: &str) -> String {
    #[derive(serde::Deserialize)]
    struct Named {
        cluster: Option<String>,
    }
    serde_json::from_str::<Named>(text).ok().and_then(|n| n.cluster).unwrap_or_else(|| "test".to_owned())
}

/// What `part` says about the events in order.
///
/// # Errors
/// When an event of the test is none.
pub fn outcome(set: &Arc<RuleSet>, part: Part, texts: &[String]) -> anyhow::Result<Outcome> {
    let id = set.meta(part).id.clone();
    let mut got = Outcome::default();
    let mut engine = Engine::new(Arc::clone(set), Options::default());
    let mut output = Output::default();
    let mut now = i64::MIN;
    for (i, text) in texts.iter().enumerate() {
        let event = Event::parse(text).with_context(|| format!("event {} of the test", i + 1))?;
        now = now.max(event.time().unwrap_or_default());
        let cluster = cluster(text);
        // A rule that only feeds correlations makes no findings; ask it directly, before the event is learned from.
        if let Part::Rule(index) = part
            && set.rules()[index].sees(event.stage)
        {
            let facts = Facts::new(&event, text, &cluster);
            match set.rules()[index].judge(&Sight::new(&facts, engine.memory())) {
                Judgement::Match => got.matched = true,
                Judgement::Undecidable(..) => got.undecidable = true,
                Judgement::NoMatch => {}
            }
        }
        engine.event(&cluster, text, now, &String::new, &mut output)?;
    }
    let own = output.findings.iter().filter(|f| f.rule.id == id && f.verdict == Verdict::Match);
    got.findings = own.count() as u64;
    if matches!(part, Part::Correlation(_)) {
        got.matched = got.findings > 0;
    }
    Ok(got)
}
