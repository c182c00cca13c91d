//! A view over one JSON value, for tests: field names are looked up as paths, `{"?": reason}`
//! anywhere on the way makes the field unknown.

use serde_json::Value;

use super::expr::Path;
use super::file::{Body, RuleFile};
use super::problem::{Problem, Problems};
use super::view::{Elements, Scalar, Unknown, Values, View};
use super::{Judgement, Rule};
use crate::field::Field;
use crate::tree::Tree;

pub struct Fake {
    event: Value,
    tree: Tree<'static>,
    text: String,
}

impl Fake {
    pub fn new(event: Value) -> Self {
        Self { text: event.to_string(), tree: Tree::from(&event), event }
    }

    fn unknown(&self, path: &Path) -> Option<Unknown> {
        let mut value = &self.event;
        for name in path.0.iter().map(Some).chain([None]) {
            match value.get("?").and_then(Value::as_str) {
                Some("level") => return Some(Unknown::LevelTooLow),
                Some(_) => return Some(Unknown::Truncated),
                None => {}
            }
            value = value.get(&**name?)?;
        }
        None
    }
}

fn path(field: &Field) -> Path {
    Path(field.name().split('.').map(Into::into).collect())
}

impl View for Fake {
    fn values(&self, field: &Field) -> Values<'_> {
        let path = path(field);
        if let Some(why) = self.unknown(&path) {
            return Values::Unknown(why);
        }
        read(&self.event, &path)
    }

    fn elements(&self, field: &Field) -> Elements<'_> {
        let path = path(field);
        if let Some(why) = self.unknown(&path) {
            return Elements::Unknown(why);
        }
        let found = path.0.iter().try_fold(&self.tree, |tree, name| tree.get(name));
        found.and_then(Tree::as_list).map_or(Elements::Absent, |items| Elements::Items(items.iter().collect()))
    }

    fn all_text(&self) -> &str {
        &self.text
    }
}

fn read<'a>(event: &'a Value, path: &Path) -> Values<'a> {
    let mut value = event;
    for name in &path.0 {
        match value.get(&**name) {
            Some(v) => value = v,
            None => return Values::Absent,
        }
    }
    let scalar = |v: &'a Value| match v {
        Value::Null => Scalar::Null,
        Value::Bool(b) => Scalar::Bool(*b),
        Value::String(s) => Scalar::Str(s),
        Value::Number(n) => n.as_i64().map_or_else(|| Scalar::Float(n.as_f64().unwrap()), Scalar::Int),
        Value::Array(_) | Value::Object(_) => Scalar::Str("{…}"),
    };
    match value {
        Value::Array(items) => Values::Many(items.iter().map(scalar).collect()),
        one => Values::One(scalar(one)),
    }
}

/// Parses and compiles one rule of these `detection:` lines.
pub fn compile(detection: &str) -> Result<Rule, Vec<Problem>> {
    let indented: String = detection.lines().map(|l| format!("  {l}\n")).collect();
    let text = format!("title: t\nname: r\nlogsource: {{product: kubernetes}}\ndetection:\n{indented}");
    let (file, problems) = RuleFile::parse("x.yml".as_ref(), &text);
    let Some(document) = file.documents.first() else { return Err(problems) };
    let Body::Detection(detection) = &document.body else { panic!("a detection") };
    let placeholders = [("admins".to_owned(), vec!["alice".to_owned(), "bob".to_owned()])].into();
    let mut problems = Problems::new("x.yml");
    let rule = Rule::compile(document, detection, "x.yml".into(), &placeholders, &mut problems);
    rule.ok_or_else(|| problems.into_list())
}

/// What a rule of one selection `s` with these lines says about `event`.
pub fn judge(selection: &str, event: Value) -> Judgement {
    let indented: String = selection.lines().map(|l| format!("  {l}\n")).collect();
    let rule = compile(&format!("s:\n{indented}condition: s"));
    let rule = rule.unwrap_or_else(|p| panic!("{selection}: {}", p[0]));
    rule.judge(&Fake::new(event))
}
