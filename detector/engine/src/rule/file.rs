//! A rule file as a person wrote it: documents with metadata and places, checked for shape.
//!
//! Says everything that is wrong with the shape of a file at once. Fields, modifiers, conditions
//! and references are checked later, when the documents become rules.

use std::path::{Path, PathBuf};

use chrono::NaiveDate;

pub use super::correlation_text::{Alias, AliasField, CorrelationText};
use super::problem::{Fault, Hint, Place, Problem, Problems};
use super::yaml::{self, Node, Value};
use crate::alert::Level;

/// A file of one or more Sigma documents.
#[derive(Clone, Debug)]
pub struct RuleFile {
    pub path: PathBuf,
    pub documents: Vec<Document>,
}

#[derive(Clone, Debug)]
pub struct Document {
    pub meta: Meta,
    pub at: Place,
    pub body: Body,
}

#[derive(Clone, Debug)]
pub enum Body {
    Detection(Detection),
    Correlation(CorrelationText),
    Filter(FilterText),
}

/// `detection:` selections and conditions, not yet understood.
#[derive(Clone, Debug)]
pub struct Detection {
    pub at: Place,
    pub selections: Vec<(String, Place, Node)>,
    /// Joined by OR.
    pub conditions: Vec<(String, Place)>,
    /// One text for one meaning.
    pub canonical: String,
}

/// `filter:` as written.
#[derive(Clone, Debug)]
pub struct FilterText {
    /// `None`: every rule (`rules: any`).
    pub rules: Option<Vec<(String, Place)>>,
    pub detection: Detection,
}

/// What a person should know about a rule. No effect on matching, but for `level`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Meta {
    /// `id`, else `name`, else the file's name (with `#n` for its n-th document).
    pub id: String,
    pub name: Option<String>,
    pub title: String,
    pub status: Option<String>,
    pub description: String,
    pub references: Vec<String>,
    pub author: String,
    pub date: Option<NaiveDate>,
    pub modified: Option<NaiveDate>,
    pub tags: Vec<String>,
    pub level: Level,
    pub fields: Vec<String>,
    pub false_positives: Vec<String>,
    /// `(id, type)`
    pub related: Vec<(String, String)>,
    pub license: String,
    pub taxonomy: String,
    /// `lapwing.next_steps`: what to do, in order.
    pub next_steps: Vec<String>,
    /// `lapwing.owner`: who answers for this rule or filter.
    pub owner: Option<String>,
    /// `lapwing.reason`: why a filter exists.
    pub reason: Option<String>,
    /// `lapwing.expires`: a filter is ignored from this day on.
    pub expires: Option<NaiveDate>,
    /// `lapwing.lists`: lists of the operator it needs; it sleeps while one is empty.
    pub lists: Vec<String>,
    /// `lapwing.suppress`: microseconds of silence after a finding about the same thing.
    pub suppress_micros: Option<i64>,
}

impl Meta {
    /// The short name used in messages.
    pub fn label(&self) -> &str {
        self.name.as_deref().unwrap_or(&self.id)
    }

    /// Whether `reference` means this rule.
    pub fn is(&self, reference: &str) -> bool {
        self.id.eq_ignore_ascii_case(reference) || self.name.as_deref() == Some(reference)
    }
}

pub(super) const TOP_KEYS: [&str; 24] = [
    "title",
    "id",
    "name",
    "status",
    "description",
    "references",
    "author",
    "date",
    "modified",
    "tags",
    "logsource",
    "detection",
    "correlation",
    "filter",
    "fields",
    "falsepositives",
    "level",
    "related",
    "license",
    "taxonomy",
    "scope",
    "lapwing",
    "generate",
    "sigma-version",
];
/// Keys of the big public rule collection's own tooling; they mean nothing here.
pub(super) const FOREIGN_KEYS: [&str; 2] = ["simulation", "regression_tests_path"];
pub(super) const STATUSES: [&str; 5] = ["stable", "test", "experimental", "deprecated", "unsupported"];
/// What `logsource` may say.
pub(super) const LOG_SOURCE: [(&str, &[&str]); 3] =
    [("product", &["kubernetes"]), ("service", &["audit"]), ("category", &["application", "audit"])];
/// Keys below `lapwing`.
pub(super) const OUR_KEYS: [&str; 6] = ["next_steps", "owner", "reason", "expires", "lists", "suppress"];
pub(super) const RELATIONS: [&str; 6] = ["derived", "obsolete", "merged", "renamed", "similar", "correlation"];

impl RuleFile {
    /// Reads a file. What could be read is returned beside the problems with the rest; a document
    /// with an error is left out.
    pub fn parse(path: &Path, text: &str) -> (Self, Vec<Problem>) {
        let mut problems = Problems::new(path);
        let mut documents = Vec::new();
        match yaml::documents(text) {
            Err((at, fault)) => problems.error(at, fault),
            Ok(nodes) if nodes.is_empty() => problems.error(Place::default(), Fault::Empty),
            Ok(nodes) => {
                for (i, node) in nodes.iter().enumerate() {
                    documents.extend(Reader { problems: &mut problems }.document(path, i, node));
                }
            }
        }
        (Self { path: path.to_owned(), documents }, problems.into_list())
    }
}

pub(super) struct Reader<'p> {
    pub problems: &'p mut Problems,
}

impl Reader<'_> {
    fn document(&mut self, path: &Path, index: usize, node: &Node) -> Option<Document> {
        self.problems.rule = None;
        let before = self.problems.errors();
        let Value::Map(_) = &node.value else {
            self.expected(node, "a map with `title` and `detection`");
            return None;
        };
        let meta = self.meta(path, index, node);
        self.keys(node, &TOP_KEYS, &FOREIGN_KEYS);
        let body = self.body(node);
        self.problems.rule = None;
        let good = self.problems.errors() == before;
        body.filter(|_| good).map(|body| Document { meta, at: node.at, body })
    }

    fn body(&mut self, node: &Node) -> Option<Body> {
        let kinds = ["detection", "correlation", "filter"].map(|k| node.get(k));
        match kinds {
            [Some(d), None, None] => {
                self.log_source(node);
                self.detection(d, &[]).map(Body::Detection)
            }
            [None, Some(c), None] => self.correlation(c, node.get("generate")).map(Body::Correlation),
            [None, None, Some(f)] => {
                self.log_source(node);
                self.filter(f).map(Body::Filter)
            }
            [None, None, None] => {
                let needed = "what to look for (or `correlation` or `filter`)";
                self.problems.error(node.at, Fault::Missing { key: "detection", needed });
                None
            }
            _ => {
                self.problems.error(node.at, Fault::SeveralKinds);
                None
            }
        }
    }

    pub(super) fn expected(&mut self, node: &Node, expected: &'static str) {
        self.problems.error(node.at, Fault::Expected { expected, found: node.value.kind() });
    }

    /// Reports every key that is not allowed. `x-…` and `custom…` are free at the top.
    pub(super) fn keys(&mut self, node: &Node, allowed: &[&str], ignored: &[&str]) {
        let Value::Map(entries) = &node.value else { return };
        for entry in entries {
            let key = entry.key.as_str();
            let free = key.starts_with("x-") || key.starts_with("custom");
            if !allowed.contains(&key) && !ignored.contains(&key) && !free {
                let hint = Hint::nearest(key, allowed.iter().copied());
                self.problems.error(entry.at, Fault::UnknownKey { key: key.to_owned(), hint });
            }
        }
    }

    fn meta(&mut self, path: &Path, index: usize, node: &Node) -> Meta {
        let stem = path.file_stem().map(|s| s.to_string_lossy().into_owned()).unwrap_or_default();
        let fallback = if index == 0 { stem } else { format!("{stem}#{}", index + 1) };
        let name = node.get("name").and_then(Node::scalar_text);
        let id = node.get("id").and_then(Node::scalar_text).or_else(|| name.clone()).unwrap_or(fallback);
        self.problems.rule = Some(name.clone().unwrap_or_else(|| id.clone()));
        let title = self.text(node, "title", 256);
        if title.is_none() && node.get("title").is_none() {
            self.problems.error(node.at, Fault::Missing { key: "title", needed: "a short name for people" });
        }
        for key in ["id", "name"] {
            if let Some(n) = node.get(key).filter(|n| n.scalar_text().is_none_or(|t| t.trim().is_empty())) {
                self.expected(n, "a text that is not empty");
            }
        }
        let mut meta = Meta {
            id,
            name,
            title: title.unwrap_or_default(),
            status: self.one_of(node, "status", &STATUSES, "stable, test, experimental, deprecated, unsupported"),
            description: self.text(node, "description", 65_535).unwrap_or_default(),
            references: self.texts(node, "references"),
            author: self.text(node, "author", 4_096).unwrap_or_default(),
            date: self.date(node, "date"),
            modified: self.date(node, "modified"),
            tags: self.texts(node, "tags"),
            level: self.level(node),
            fields: self.texts(node, "fields"),
            false_positives: self.texts(node, "falsepositives"),
            related: self.related(node),
            license: self.text(node, "license", 256).unwrap_or_default(),
            taxonomy: self.text(node, "taxonomy", 256).unwrap_or_default(),
            ..Meta::default()
        };
        if let Some(ours) = node.get("lapwing") {
            self.ours(ours, &mut meta);
        }
        meta
    }

    /// Our own namespace.
    fn ours(&mut self, node: &Node, meta: &mut Meta) {
        if !matches!(node.value, Value::Map(_)) {
            return self.expected(node, "a map");
        }
        self.keys(node, &OUR_KEYS, &[]);
        meta.next_steps = self.texts(node, "next_steps");
        meta.owner = self.text(node, "owner", 256);
        meta.reason = self.text(node, "reason", 4_096);
        meta.expires = self.date(node, "expires");
        meta.lists = self.texts(node, "lists");
        meta.suppress_micros = node.get("suppress").and_then(|n| self.span(n, "suppress"));
    }

    pub(super) fn text(&mut self, node: &Node, key: &'static str, limit: usize) -> Option<String> {
        let value = node.get(key).filter(|n| n.value != Value::Null)?;
        let Some(text) = value.scalar_text() else {
            self.expected(value, "a text");
            return None;
        };
        if text.chars().count() > limit {
            self.problems.error(value.at, Fault::TooLong { key, limit });
        }
        Some(text)
    }

    fn texts(&mut self, node: &Node, key: &'static str) -> Vec<String> {
        self.placed_texts(node, key).into_iter().map(|(text, _)| text).collect()
    }

    pub(super) fn placed_texts(&mut self, node: &Node, key: &'static str) -> Vec<(String, Place)> {
        let Some(value) = node.get(key).filter(|n| n.value != Value::Null) else { return Vec::new() };
        let mut out = Vec::new();
        for item in value.as_slice() {
            match item.scalar_text() {
                Some(text) => out.push((text, item.at)),
                None => self.expected(item, "a text"),
            }
        }
        out
    }

    fn one_of(&mut self, node: &Node, key: &'static str, all: &[&str], allowed: &'static str) -> Option<String> {
        let text = self.text(node, key, 256)?;
        if !all.contains(&text.as_str()) {
            let hint = Hint::nearest(&text, all.iter().copied());
            let at = node.get(key).map_or(node.at, |n| n.at);
            self.problems.error(at, Fault::NotOneOf { key, value: text.clone(), allowed, hint });
        }
        Some(text)
    }

    fn level(&mut self, node: &Node) -> Level {
        let names = Level::ALL.map(Level::as_str);
        let text = self.one_of(node, "level", &names, "informational, low, medium, high, critical");
        text.and_then(|t| Level::parse(&t)).unwrap_or_default()
    }

    fn date(&mut self, node: &Node, key: &'static str) -> Option<NaiveDate> {
        let text = self.text(node, key, 64)?;
        // Older rules have slashes.
        let date = NaiveDate::parse_from_str(&text.replace('/', "-"), "%Y-%m-%d").ok();
        if date.is_none() {
            let at = node.get(key).map_or(node.at, |n| n.at);
            self.problems.error(at, Fault::NotADate { key, value: text });
        }
        date
    }

    fn related(&mut self, node: &Node) -> Vec<(String, String)> {
        let Some(list) = node.get("related") else { return Vec::new() };
        let mut out = Vec::new();
        for item in list.as_slice() {
            if !matches!(item.value, Value::Map(_)) {
                self.expected(item, "a map of `id` and `type`");
                continue;
            }
            self.keys(item, &["id", "type"], &[]);
            let allowed = "derived, obsolete, merged, renamed, similar, correlation";
            let kind = self.one_of(item, "type", &RELATIONS, allowed).unwrap_or_default();
            out.push((self.text(item, "id", 256).unwrap_or_default(), kind));
        }
        out
    }

    fn log_source(&mut self, node: &Node) {
        let Some(source) = node.get("logsource") else {
            let needed = "`product: kubernetes` and `service: audit`";
            return self.problems.error(node.at, Fault::Missing { key: "logsource", needed });
        };
        if !matches!(source.value, Value::Map(_)) {
            return self.expected(source, "a map");
        }
        self.keys(source, &["product", "category", "service", "definition"], &[]);
        for (key, good) in LOG_SOURCE {
            let value = self.text(source, key, 256);
            let at = source.get(key).map_or(source.at, |n| n.at);
            match value {
                Some(value) if !good.contains(&value.as_str()) => {
                    self.problems.error(at, Fault::OtherLogSource { key, value });
                }
                None if key == "product" => {
                    self.problems.error(at, Fault::Missing { key, needed: "`product: kubernetes`" });
                }
                _ => {}
            }
        }
    }

    /// Selections and condition; `others` are keys that stand beside them.
    fn detection(&mut self, node: &Node, others: &[&str]) -> Option<Detection> {
        let Value::Map(entries) = &node.value else {
            self.expected(node, "a map of selections and a `condition`");
            return None;
        };
        let mut selections = Vec::new();
        for entry in entries {
            match entry.key.as_str() {
                "condition" => {}
                "timeframe" => self.problems.error(entry.at, Fault::Timeframe),
                key if others.contains(&key) => {}
                key => selections.push((key.to_owned(), entry.at, entry.value.clone())),
            }
        }
        const MAX_SELECTIONS: usize = 1_000;
        if selections.len() > MAX_SELECTIONS {
            self.problems.error(node.at, Fault::TooMany { what: "selections", limit: MAX_SELECTIONS });
            return None;
        }
        let conditions = self.placed_texts(node, "condition");
        if conditions.is_empty() {
            self.problems
                .error(node.at, Fault::Missing { key: "condition", needed: "one, as in `condition: selection`" });
        }
        let mut canonical = String::new();
        node.canonical(&mut canonical);
        Some(Detection { at: node.at, selections, conditions, canonical })
    }

    fn filter(&mut self, node: &Node) -> Option<FilterText> {
        let detection = self.detection(node, &["rules"])?;
        let rules = self.placed_texts(node, "rules");
        if rules.is_empty() {
            let needed = "the ids or names of the rules to filter, or `any`";
            self.problems.error(node.at, Fault::Missing { key: "rules", needed });
        }
        let every = rules.iter().any(|(name, _)| name.eq_ignore_ascii_case("any"));
        Some(FilterText { rules: (!every).then_some(rules), detection })
    }

    /// `90m` to microseconds.
    pub(super) fn span(&mut self, node: &Node, key: &'static str) -> Option<i64> {
        let text = node.scalar_text().unwrap_or_default();
        let micros = parse_span(&text);
        if micros.is_none() {
            self.problems.error(node.at, Fault::NotASpan { key, value: text });
        }
        micros
    }
}

fn parse_span(text: &str) -> Option<i64> {
    let unit = text.chars().last()?;
    let seconds: i64 = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3_600,
        'd' => 86_400,
        _ => return None,
    };
    let number: i64 = text.strip_suffix(unit)?.parse().ok().filter(|n| *n > 0)?;
    // More than a year is a slip of the finger.
    number.checked_mul(seconds).filter(|s| *s <= 366 * 86_400).map(|s| s * 1_000_000)
}

#[cfg(test)]
#[path = "file_tests.rs"]
mod tests;
