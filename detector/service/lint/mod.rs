//! What is wrong with rules that load: those that can never match, say what others say, or leave out
//! what an attacker chooses.

mod exemption;
mod known;
pub mod level;
mod parts;
#[cfg(test)]
mod tests;

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::path::{Path, PathBuf};

use chrono::NaiveDate;
use lapwing_engine::alert::Level;
use lapwing_engine::field::Field;
use lapwing_engine::rule::Detector;
use lapwing_engine::rule::detection::Placeholders;
use lapwing_engine::rule::file::{Body, Detection, Document, RuleFile};
use lapwing_engine::rule::problem::{Place, Problem, Problems, Severity};
use lapwing_engine::rule::tests::TestFile;
use lapwing_engine::rule::yaml;

use parts::{Common, Part};

/// A remark on one rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remark {
    pub path: PathBuf,
    pub at: Place,
    pub rule: String,
    pub kind: Kind,
    pub text: String,
}

impl fmt::Display for Remark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (path, at) = (self.path.display(), self.at);
        write!(f, "{path}:{}:{}: rule `{}`: {}: {}", at.line, at.column, self.rule, self.kind.as_str(), self.text)
    }
}

/// What kind of remark.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// No real event can match.
    NeverMatches,
    /// A value or an alternative no real event has.
    Pointless,
    /// Another rule says the same.
    Duplicate,
    /// Another rule says the same at another level.
    Shadowed,
    /// Exempts what an attacker may choose freely.
    Evadable,
    /// A filter past its day.
    Expired,
    /// Sees only one of several ways.
    Partial,
    NoTest,
    Incomplete,
}

impl Kind {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NeverMatches => "never-matches",
            Self::Pointless => "pointless",
            Self::Duplicate => "duplicate",
            Self::Shadowed => "shadowed",
            Self::Evadable => "evadable",
            Self::Expired => "expired",
            Self::Partial => "partial",
            Self::NoTest => "no-test",
            Self::Incomplete => "incomplete",
        }
    }
}

/// Files to look at.
#[derive(Debug, Default)]
pub struct Files {
    pub rules: Vec<(PathBuf, String)>,
    pub tests: Vec<(PathBuf, String)>,
    /// Rules that are only compared with, not remarked on.
    pub others: Vec<(PathBuf, String)>,
    /// Filters that expired before this day are told. `None`: none is.
    pub today: Option<NaiveDate>,
}

/// All remarks, and the errors of rules that do not load; those are not looked at.
pub fn lint(files: &Files) -> (Vec<Remark>, Vec<Problem>) {
    let mut errors = Vec::new();
    let mut known = Known::default();
    for (path, text) in &files.others {
        for document in RuleFile::parse(path, text).0.documents {
            known.first(path, &document);
        }
    }
    let tested = tested(&files.tests);
    let mut remarks = Vec::new();
    for (path, text) in &files.rules {
        let (file, problems) = RuleFile::parse(path, text);
        errors.extend(problems.into_iter().filter(|p| p.severity == Severity::Error));
        let nodes = yaml::documents(text).unwrap_or_default();
        for document in &file.documents {
            let mut linter = Linter { path, document, remarks: &mut remarks };
            let node = nodes.iter().find(|n| n.at == document.at);
            linter.metadata(node, &tested);
            linter.expiry(files.today);
            if let Some(earlier) = known.first(path, document) {
                linter.doubled(&earlier);
            }
            errors.extend(linter.detection());
        }
    }
    (remarks, errors)
}

/// Rules by what they say.
#[derive(Debug, Default)]
struct Known(HashMap<String, Earlier>);

#[derive(Clone, Debug)]
struct Earlier {
    id: String,
    level: Level,
    path: PathBuf,
}

impl Known {
    /// The rule that said the same before; remembers this one otherwise.
    fn first(&mut self, path: &Path, document: &Document) -> Option<Earlier> {
        let Body::Detection(detection) = &document.body else { return None };
        let meta = &document.meta;
        let this = Earlier { id: meta.id.clone(), level: meta.level, path: path.to_owned() };
        let earlier = self.0.entry(said(detection)).or_insert(this);
        // A copy of the same rule is told when rules are loaded.
        (earlier.id != meta.id).then(|| earlier.clone())
    }
}

/// The condition with its selections in place of their names.
fn said(detection: &Detection) -> String {
    let mut by_name = HashMap::new();
    for (name, _, node) in &detection.selections {
        let mut text = String::new();
        node.canonical(&mut text);
        by_name.insert(name.as_str(), text);
    }
    let pattern = |w: &str| w.contains('*') || w == "them";
    let mut out = String::new();
    for (condition, _) in &detection.conditions {
        let spaced = condition.replace('(', " ( ").replace(')', " ) ");
        if spaced.split_whitespace().any(pattern) {
            // The names matter then.
            return detection.canonical.clone();
        }
        for word in spaced.split_whitespace() {
            out.push_str(by_name.get(word).map_or(word, String::as_str));
            out.push(' ');
        }
        out.push_str("or ");
    }
    out
}

fn tested(files: &[(PathBuf, String)]) -> HashSet<String> {
    let files = files.iter().filter_map(|(path, text)| TestFile::parse(path, text).ok());
    files.flat_map(|f| f.tests).map(|t| t.rule).collect()
}

struct Linter<'l> {
    path: &'l Path,
    document: &'l Document,
    remarks: &'l mut Vec<Remark>,
}

impl Linter<'_> {
    fn say(&mut self, kind: Kind, text: impl Into<String>) {
        self.remarks.push(Remark {
            path: self.path.to_owned(),
            at: self.document.at,
            rule: self.document.meta.id.clone(),
            kind,
            text: text.into(),
        });
    }

    fn metadata(&mut self, node: Option<&yaml::Node>, tested: &HashSet<String>) {
        let meta = &self.document.meta;
        let filter = matches!(self.document.body, Body::Filter(_));
        let mut missing = Vec::new();
        if meta.description.trim().is_empty() && !(filter && meta.reason.is_some()) {
            missing.push("description");
        }
        if filter {
            missing.extend(meta.owner.is_none().then_some("lapwing.owner"));
            missing.extend(meta.reason.is_none().then_some("lapwing.reason"));
            missing.extend(meta.expires.is_none().then_some("lapwing.expires"));
        } else {
            missing.extend(meta.false_positives.is_empty().then_some("falsepositives"));
            missing.extend(node.is_some_and(|n| n.get("level").is_none()).then_some("level"));
            missing.extend((!meta.tags.iter().any(|t| t.starts_with("attack."))).then_some("an attack tag"));
        }
        if !missing.is_empty() {
            self.say(Kind::Incomplete, format!("it lacks {}", missing.join(", ")));
        }
        if !filter && !tested.contains(&meta.id) && meta.name.as_ref().is_none_or(|n| !tested.contains(n)) {
            self.say(Kind::NoTest, "no test says when it speaks and when it does not");
        }
    }

    fn expiry(&mut self, today: Option<NaiveDate>) {
        let expires = self.document.meta.expires;
        if let (Some(expires), Some(today)) = (expires, today)
            && expires <= today
        {
            self.say(
                Kind::Expired,
                format!("it expired on {expires} and leaves nothing out any more; renew or remove it"),
            );
        }
    }

    fn doubled(&mut self, earlier: &Earlier) {
        let same = earlier.level == self.document.meta.level;
        let (id, path, level) = (&earlier.id, earlier.path.display(), earlier.level.as_str());
        if same {
            self.say(Kind::Duplicate, format!("it says the same as `{id}` in {path}"));
        } else {
            self.say(Kind::Shadowed, format!("it says the same as `{id}` in {path}, which is {level}; keep one"));
        }
    }

    /// Looks at what the rule asks; the errors when it does not compile.
    fn detection(&mut self) -> Vec<Problem> {
        let (text, filter) = match &self.document.body {
            Body::Detection(detection) => (detection, false),
            Body::Filter(filter) => (&filter.detection, true),
            Body::Correlation(_) => return Vec::new(),
        };
        let mut problems = Problems::new(self.path);
        problems.rule = Some(self.document.meta.label().to_owned());
        // Whatever the lists of the operator hold; this fits names and networks.
        let lists = self.document.meta.lists.iter().map(|l| (l.clone(), vec!["192.0.2.1/32".to_owned()]));
        let detector = Detector::compile(text, &lists.collect::<Placeholders>(), &mut problems);
        let Some(detector) = detector else {
            return problems.into_list().into_iter().filter(|p| p.severity == Severity::Error).collect();
        };
        let part = Part::of(&detector);
        // A filter's `not x` leaves out x, as x does.
        let part = match part {
            Part::Not(inner) if filter => *inner,
            other => other,
        };
        let common = Common::of(&part);
        let mut notes = Vec::new();
        match common.impossible(&mut notes) {
            Some(why) => self.say(Kind::NeverMatches, why),
            None => {
                notes.sort();
                notes.dedup();
                notes.into_iter().for_each(|note| self.say(Kind::Pointless, note));
            }
        }
        if filter {
            exemption::check(&part).into_iter().for_each(|why| self.say(Kind::Evadable, why));
        } else {
            part.visit_excused(&mut |excused| self.excused(excused));
            self.one_way(&common);
        }
        Vec::new()
    }

    /// An exemption by what the sender of a request chooses.
    fn excused(&mut self, part: &Part<'_>) {
        for items in part.alternatives() {
            let fields: Vec<&Field> = items.iter().map(|i| &i.key).collect();
            let any = |wanted: &[&str]| {
                fields.iter().map(|f| f.name()).find(|f| wanted.iter().any(|w| *f == *w)).map(|f| f.to_string())
            };
            // What a list of the operator names is the operator's word.
            if fields.iter().any(|f| is_identity(f)) || !self.document.meta.lists.is_empty() {
                continue;
            }
            if let Some(field) = any(&["userAgent", "client.family", "client.version"]) {
                self.say(
                    Kind::Evadable,
                    format!("it leaves out clients by `{field}` alone, which any client may set; add who it is"),
                );
            } else if fields.len() == 1
                && let Some(field) = any(&["objectRef.name", "target.name"])
            {
                self.say(
                    Kind::Evadable,
                    format!("it leaves out objects by `{field}` alone, which an attacker may choose; add who it is"),
                );
            }
        }
    }

    fn one_way(&mut self, common: &Common<'_>) {
        let is = |field: &str, wanted: &[&str]| {
            common.exact(field).is_some_and(|v| !v.is_empty() && v.iter().all(|v| wanted.contains(&v.as_str())))
        };
        if is("target.subresource", &["exec", "attach", "portforward"]) && is("verb", &["create"]) {
            self.say(
                Kind::Partial,
                "it sees verb create only; clients that use WebSockets send get: `action: exec` sees both",
            );
        }
    }
}

/// Fields that say who it is, which nobody can lend or choose.
fn is_identity(field: &Field) -> bool {
    let name = field.name();
    [
        "user.",
        "actor.",
        "impersonatedUser.",
        "credential.",
        "right.",
        "client.address",
        "client.network",
        "sourceIPs",
        "annotations.authorization",
    ]
    .iter()
    .any(|p| name.starts_with(p))
}
