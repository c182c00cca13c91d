//! Tests beside rules: `exec.test.yml` says which events `exec.yml` speaks about.
//!
//! Only the format: whoever runs the engine runs the tests. Events are given inline, as JSON lines,
//! or in a file; `base` is merged under every inline event, so that a test says only what matters.
//!
//! ```yaml
//! rule: exec
//! base: { stage: ResponseComplete, verb: get }
//! tests:
//!   - name: exec over a web socket
//!     expect: match
//!     events:
//!       - { objectRef: { resource: pods, subresource: exec } }
//! ```

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::Value as Json;

use super::problem::{Fault, Hint, Place, Problem, Problems};
use super::yaml::{self, Node, Value};

/// A file of tests.
#[derive(Clone, Debug, PartialEq)]
pub struct TestFile {
    pub path: PathBuf,
    pub tests: Vec<RuleTest>,
    /// What lists of the operator hold while tests run.
    pub lists: BTreeMap<String, Vec<String>>,
}

/// One test: some events in order, and what the rule says.
#[derive(Clone, Debug, PartialEq)]
pub struct RuleTest {
    pub name: String,
    pub at: Place,
    /// Id or name of the rule, or the stem of its file.
    pub rule: String,
    pub expect: Expect,
    /// How many findings exactly; `None`: at least one for a match.
    pub count: Option<u64>,
    /// Packs of filters that are on.
    pub filters: Vec<String>,
    pub events: Events,
}

/// What a test expects of its events together: `match` at least one finding, `no-match` none and
/// nothing open, `undecidable` at least one open verdict and no finding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expect {
    Match,
    NoMatch,
    Undecidable,
}

impl Expect {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Match => "match",
            Self::NoMatch => "no-match",
            Self::Undecidable => "undecidable",
        }
    }
}

#[derive(Clone, Debug, PartialEq)]
pub enum Events {
    /// One JSON text each.
    Inline(Vec<String>),
    /// Audit events in a file, its path relative to the test file.
    File(PathBuf),
}

/// The tests of `rules/x/exec.yml` stand in `rules/x/exec.test.yml`.
pub fn is_test_file(path: &Path) -> bool {
    let name = path.file_name().map(|n| n.to_string_lossy()).unwrap_or_default();
    name.ends_with(".test.yml") || name.ends_with(".test.yaml")
}

const TOP_KEYS: [&str; 4] = ["rule", "base", "lists", "tests"];
const KEYS: [&str; 7] = ["name", "expect", "rule", "filters", "events", "file", "count"];
const EXPECTS: [Expect; 3] = [Expect::Match, Expect::NoMatch, Expect::Undecidable];

impl TestFile {
    /// Reads a file of tests, or tells everything that is wrong with it.
    pub fn parse(path: &Path, text: &str) -> Result<Self, Vec<Problem>> {
        let mut problems = Problems::new(path);
        let (mut tests, mut lists) = (Vec::new(), BTreeMap::new());
        match yaml::documents(text) {
            Err((at, fault)) => problems.error(at, fault),
            Ok(nodes) if nodes.is_empty() => problems.error(Place::default(), Fault::TestNeeds("`tests`")),
            Ok(nodes) => {
                for node in &nodes {
                    let mut reader = Reader { path, problems: &mut problems };
                    reader.document(node, &mut tests);
                    reader.lists(node, &mut lists);
                }
            }
        }
        if problems.errors() > 0 {
            return Err(problems.into_list());
        }
        Ok(Self { path: path.to_owned(), tests, lists })
    }
}

struct Reader<'p> {
    path: &'p Path,
    problems: &'p mut Problems,
}

impl Reader<'_> {
    fn document(&mut self, node: &Node, out: &mut Vec<RuleTest>) {
        self.keys(node, &TOP_KEYS);
        // Beside `exec.yml` the rule needs no saying.
        let stem = self.path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        let stem = stem.split(".test.").next().unwrap_or_default().to_owned();
        let rule = node.get("rule").and_then(Node::scalar_text).unwrap_or(stem);
        let base = match node.get("base") {
            None => Json::Object(serde_json::Map::new()),
            Some(base) if matches!(base.value, Value::Map(_)) => base.to_json(),
            Some(base) => return self.expected(base, "an event as a map"),
        };
        match node.get("tests").map(|n| (n, &n.value)) {
            Some((_, Value::List(tests))) if !tests.is_empty() => {
                for test in tests {
                    out.extend(self.test(test, &rule, &base));
                }
            }
            Some((n, _)) => self.expected(n, "a list of tests"),
            None => self.problems.error(node.at, Fault::TestNeeds("`tests`, a list")),
        }
    }

    fn lists(&mut self, node: &Node, out: &mut BTreeMap<String, Vec<String>>) {
        match node.get("lists").map(|n| (n, &n.value)) {
            None => {}
            Some((_, Value::Map(entries))) => {
                let texts = |n: &Node| n.as_slice().iter().filter_map(Node::scalar_text).collect();
                out.extend(entries.iter().map(|e| (e.key.clone(), texts(&e.value))));
            }
            Some((n, _)) => self.expected(n, "a map of lists"),
        }
    }

    fn keys(&mut self, node: &Node, allowed: &[&str]) {
        let Value::Map(entries) = &node.value else { return self.expected(node, "a map") };
        for entry in entries.iter().filter(|e| !allowed.contains(&e.key.as_str())) {
            let hint = Hint::nearest(&entry.key, allowed.iter().copied());
            self.problems.error(entry.at, Fault::UnknownKey { key: entry.key.clone(), hint });
        }
    }

    fn expected(&mut self, node: &Node, expected: &'static str) {
        self.problems.error(node.at, Fault::Expected { expected, found: node.value.kind() });
    }

    fn test(&mut self, node: &Node, rule: &str, base: &Json) -> Option<RuleTest> {
        self.keys(node, &KEYS);
        let text = |key| node.get(key).and_then(Node::scalar_text);
        let (name, expect) = (text("name"), self.expect(node));
        if name.is_none() {
            self.problems.error(node.at, Fault::TestNeeds("a `name`"));
        }
        let count = match node.get("count").map(|n| (n, &n.value)) {
            None => None,
            Some((_, Value::Int(n))) if *n >= 0 => u64::try_from(*n).ok(),
            Some((n, _)) => {
                self.expected(n, "a whole number from 0");
                None
            }
        };
        let events = self.events(node, base);
        let rule = text("rule").unwrap_or_else(|| rule.to_owned());
        let filters =
            node.get("filters").map_or(&[][..], Node::as_slice).iter().filter_map(Node::scalar_text).collect();
        Some(RuleTest { name: name?, at: node.at, rule, expect: expect?, count, filters, events: events? })
    }

    fn expect(&mut self, node: &Node) -> Option<Expect> {
        let Some(value) = node.get("expect") else {
            self.problems.error(node.at, Fault::TestNeeds("`expect`: match, no-match or undecidable"));
            return None;
        };
        let text = value.scalar_text().unwrap_or_default();
        let found = EXPECTS.into_iter().find(|e| e.as_str() == text);
        if found.is_none() {
            let hint = Hint::nearest(&text, EXPECTS.map(Expect::as_str));
            let (key, allowed) = ("expect", "match, no-match, undecidable");
            self.problems.error(value.at, Fault::NotOneOf { key, value: text, allowed, hint });
        }
        found
    }

    fn events(&mut self, node: &Node, base: &Json) -> Option<Events> {
        match (node.get("events"), node.get("file")) {
            (None, Some(file)) => match file.scalar_text() {
                Some(file) => Some(Events::File(self.path.parent().unwrap_or(Path::new("")).join(file))),
                None => {
                    self.expected(file, "a path");
                    None
                }
            },
            (Some(events), None) => self.inline(events, base).map(Events::Inline),
            _ => {
                self.problems.error(node.at, Fault::TestNeeds("either `events` or `file`"));
                None
            }
        }
    }

    fn inline(&mut self, events: &Node, base: &Json) -> Option<Vec<String>> {
        let mut out = Vec::new();
        for event in events.as_slice() {
            match &event.value {
                Value::Map(_) => out.push(merged(base, event.to_json()).to_string()),
                Value::Str(lines) => {
                    for (i, line) in lines.lines().enumerate().filter(|(_, l)| !l.trim().is_empty()) {
                        match serde_json::from_str(line) {
                            Ok(event) => out.push(merged(base, event).to_string()),
                            Err(e) => {
                                let fault = Fault::EventNotJson { line: i + 1, reason: e.to_string() };
                                self.problems.error(event.at, fault);
                                return None;
                            }
                        }
                    }
                }
                _ => {
                    self.expected(event, "an event as a map, or JSON lines");
                    return None;
                }
            }
        }
        if out.is_empty() {
            self.problems.error(events.at, Fault::TestNeeds("at least one event"));
            return None;
        }
        Some(out)
    }
}

/// `over` laid on `base`: objects are merged, everything else replaces; `null` takes away.
fn merged(base: &Json, over: Json) -> Json {
    match (base, over) {
        (Json::Object(base), Json::Object(over)) => {
            let mut out = base.clone();
            for (key, value) in over {
                if value.is_null() && out.contains_key(&key) {
                    out.remove(&key);
                    continue;
                }
                let value = match out.get(&key) {
                    Some(below) => merged(below, value),
                    None => value,
                };
                out.insert(key, value);
            }
            Json::Object(out)
        }
        (_, over) => over,
    }
}

#[cfg(test)]
mod checks {
    use super::*;

    fn parse(text: &str) -> Result<TestFile, Vec<String>> {
        let parsed = TestFile::parse("rules/x/exec.test.yml".as_ref(), text);
        parsed.map_err(|p| p.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn events_lie_over_the_base() {
        let text = r#"
base: {verb: get, objectRef: {resource: pods, name: web}, user: {groups: [a, b]}}
tests:
  - name: one
    expect: match
    count: 2
    events:
      - {objectRef: {subresource: exec, name: null}, user: {groups: [c]}}
      - '{"verb":"create"}'
  - name: two
    rule: other
    expect: undecidable
    events: |
      {"verb": "list"}

      {"verb": "watch", "objectRef": null}
  - {name: three, expect: no-match, file: more/events.ndjson}
"#;
        let file = parse(text).unwrap();
        let json = |e: &Events| match e {
            Events::Inline(texts) => texts.iter().map(|t| serde_json::from_str::<Json>(t).unwrap()).collect::<Vec<_>>(),
            Events::File(_) => panic!("inline"),
        };
        let (one, two, three) = (&file.tests[0], &file.tests[1], &file.tests[2]);
        assert_eq!((one.rule.as_str(), one.expect, one.count), ("exec", Expect::Match, Some(2)));
        assert_eq!(
            json(&one.events),
            [
                serde_json::json!({"verb": "get", "objectRef": {"resource": "pods", "subresource": "exec"}, "user": {"groups": ["c"]}}),
                serde_json::json!({"verb": "create", "objectRef": {"resource": "pods", "name": "web"}, "user": {"groups": ["a", "b"]}}),
            ]
        );
        assert_eq!((two.rule.as_str(), two.expect), ("other", Expect::Undecidable));
        assert_eq!(json(&two.events)[1], serde_json::json!({"verb": "watch", "user": {"groups": ["a", "b"]}}));
        assert_eq!(three.events, Events::File("rules/x/more/events.ndjson".into()));
    }

    #[test]
    fn bad_tests_are_told_at_once() {
        let text = "rle: x\ntests:\n  - {expect: mach, events: []}\n  - {name: b, expect: match, events: ['{'], count: -1}\n  - {name: c, expect: match, file: f, events: []}\n  - {name: d, events: [1]}\n";
        assert_eq!(
            parse(text).unwrap_err(),
            [
                "rules/x/exec.test.yml:1:1: unknown key `rle`; did you mean `rule`?",
                "rules/x/exec.test.yml:3:5: a test needs a `name`",
                "rules/x/exec.test.yml:3:14: `expect` is `mach`; expected one of match, no-match, undecidable; did you mean `match`?",
                "rules/x/exec.test.yml:3:28: a test needs at least one event",
                "rules/x/exec.test.yml:4:39: events text line 1 is not JSON: EOF while parsing an object at line 1 column 1",
                "rules/x/exec.test.yml:4:52: expected a whole number from 0, found a number",
                "rules/x/exec.test.yml:5:5: a test needs either `events` or `file`",
                "rules/x/exec.test.yml:6:5: a test needs `expect`: match, no-match or undecidable",
                "rules/x/exec.test.yml:6:24: expected an event as a map, or JSON lines, found a number",
            ]
        );
        assert_eq!(parse("").unwrap_err(), ["rules/x/exec.test.yml: a test needs `tests`"]);
    }

    #[test]
    fn test_files_are_known_by_name() {
        for (path, want) in [("a/x.test.yml", true), ("x.test.yaml", true), ("x.yml", false), ("test.yml", false)] {
            assert_eq!(is_test_file(path.as_ref()), want, "{path}");
        }
    }
}
