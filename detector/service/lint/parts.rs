//! A rule as and, or, not over its items, and what can be said about it without an event.

use std::collections::BTreeSet;

use lapwing_engine::field::Field;
use lapwing_engine::rule::Detector;
use lapwing_engine::rule::condition::Cond;
use lapwing_engine::rule::expr::{Expr, Item, Test};

use super::known;

/// Selections and condition as one tree.
#[derive(Clone, Debug)]
pub enum Part<'r> {
    All(Vec<Part<'r>>),
    Any(Vec<Part<'r>>),
    Not(Box<Part<'r>>),
    Item(&'r Item<Field>),
    Keywords,
}

impl<'r> Part<'r> {
    pub fn of(detector: &'r Detector) -> Self {
        Self::of_cond(&detector.condition, detector)
    }

    fn of_cond(cond: &'r Cond, detector: &'r Detector) -> Self {
        let all = |parts: &'r [Cond]| parts.iter().map(|p| Self::of_cond(p, detector)).collect::<Vec<_>>();
        match cond {
            Cond::And(parts) => Self::All(all(&parts.written)),
            Cond::Or(parts) => Self::Any(all(&parts.written)),
            Cond::Not(part) => Self::Not(Box::new(Self::of_cond(part, detector))),
            Cond::Selection(i) => Self::of_expr(&detector.selections[*i].expr),
            Cond::AtLeast(n, parts) if *n >= parts.len() => Self::All(all(parts)),
            Cond::AtLeast(_, parts) => Self::Any(all(parts)),
        }
    }

    fn of_expr(expr: &'r Expr<Field>) -> Self {
        match expr {
            Expr::All(parts) => Self::All(parts.written.iter().map(Self::of_expr).collect()),
            Expr::Any(parts) => Self::Any(parts.written.iter().map(Self::of_expr).collect()),
            Expr::Item(item) => Self::Item(item),
            Expr::Keywords { .. } => Self::Keywords,
        }
    }

    /// Calls `f` with every part that a `not` stands before.
    pub fn visit_excused(&self, f: &mut dyn FnMut(&Part<'r>)) {
        match self {
            Self::All(parts) | Self::Any(parts) => parts.iter().for_each(|p| p.visit_excused(f)),
            Self::Not(part) => f(part),
            Self::Item(_) | Self::Keywords => {}
        }
    }

    /// The alternatives of a part: each its items, as far as they are plainly joined.
    pub fn alternatives(&self) -> Vec<Vec<&'r Item<Field>>> {
        match self {
            Self::Any(parts) => parts.iter().flat_map(Part::alternatives).collect(),
            Self::All(parts) if parts.iter().any(|p| !matches!(p, Self::Item(_) | Self::All(_))) => {
                // What else it asks makes it narrower; nothing can be said.
                Vec::new()
            }
            Self::All(parts) => {
                let inner: Vec<_> = parts.iter().flat_map(Part::alternatives).flatten().collect();
                vec![inner]
            }
            Self::Item(item) => vec![vec![item]],
            Self::Not(_) | Self::Keywords => Vec::new(),
        }
    }
}

/// What all of a rule's matches have in common.
#[derive(Clone, Debug, Default)]
pub struct Common<'r> {
    pub items: Vec<&'r Item<Field>>,
    choices: Vec<Vec<Part<'r>>>,
}

impl<'r> Common<'r> {
    pub fn of(part: &Part<'r>) -> Self {
        let mut common = Self::default();
        common.add(part);
        common
    }

    fn add(&mut self, part: &Part<'r>) {
        match part {
            Part::All(parts) => parts.iter().for_each(|p| self.add(p)),
            Part::Item(item) => self.items.push(item),
            Part::Any(parts) => self.choices.push(parts.clone()),
            Part::Not(_) | Part::Keywords => {}
        }
    }

    /// The values one of which the field has; `None`: any. Lower case.
    pub fn exact(&self, field: &str) -> Option<BTreeSet<String>> {
        let sets = self.items.iter().filter(|i| one_name(&i.key) == field).filter_map(|i| exact(i));
        sets.reduce(|a, b| a.intersection(&b).cloned().collect())
    }

    /// Why nothing matches; alternatives that never match go to `notes`.
    pub fn impossible(&self, notes: &mut Vec<String>) -> Option<String> {
        for item in &self.items {
            if let Some(why) = item_impossible(item, notes) {
                return Some(why);
            }
        }
        if let Some(why) = self.contradiction().or_else(|| self.wrong_group()).or_else(|| self.no_body()) {
            return Some(why);
        }
        for choice in &self.choices {
            let mut dead = Vec::new();
            for part in choice {
                let mut inner = self.clone();
                inner.choices.clear();
                inner.add(part);
                dead.extend(inner.impossible(notes));
            }
            if dead.len() == choice.len() {
                return dead.into_iter().next();
            }
            notes.extend(dead.into_iter().map(|why| format!("an alternative never matches: {why}")));
        }
        None
    }

    fn contradiction(&self) -> Option<String> {
        let names: BTreeSet<String> =
            self.items.iter().filter(|i| is_single(&i.key)).map(|i| one_name(&i.key)).collect();
        let empty = names.into_iter().find(|n| self.exact(n).is_some_and(|values| values.is_empty()))?;
        let wanted: Vec<&str> =
            self.items.iter().filter(|i| one_name(&i.key) == empty).map(|i| i.wanted.as_str()).collect();
        Some(format!(
            "no value meets both {}",
            wanted.iter().map(|w| format!("`{w}`")).collect::<Vec<_>>().join(" and ")
        ))
    }

    fn wrong_group(&self) -> Option<String> {
        let resources = self.exact("target.resource")?;
        let groups = self.exact("target.group")?;
        let real: Option<Vec<_>> = resources.iter().map(|r| known::groups(r)).collect();
        let real = real.filter(|r| !r.is_empty())?;
        if real.iter().any(|g| g.iter().any(|g| groups.contains(*g))) {
            return None;
        }
        let list = |set: &BTreeSet<String>| set.iter().cloned().collect::<Vec<_>>().join(", ");
        let right = real.first().and_then(|g| g.first()).map_or("", |g| *g);
        let right =
            if right.is_empty() { "the core group, whose name is empty".to_owned() } else { format!("`{right}`") };
        Some(format!("`{}` are not in API group `{}`; they are in {right}", list(&resources), list(&groups)))
    }

    fn no_body(&self) -> Option<String> {
        let among = |field: &str, wanted: &[&str]| {
            self.exact(field).is_some_and(|v| !v.is_empty() && v.iter().all(|v| wanted.contains(&v.as_str())))
        };
        let reads = among("verb", &["get", "list", "watch"]) || among("action", &["get", "list", "watch"]);
        let deletes =
            among("verb", &["delete", "deletecollection"]) || among("action", &["delete", "deletecollection"]);
        let item = self.items.iter().find(|i| {
            let name = i.key.name();
            let told = name == "rbac.kind" || i.key.is_of_removed_binding();
            let bodies = ["workload.", "rbac.", "csr.", "config.", "target.labels", "target.annotations"];
            let derived = !told && bodies.iter().any(|p| name.starts_with(p));
            let body = name.starts_with("requestObject") || derived;
            present(i) && ((reads && body) || (deletes && derived))
        })?;
        let what = if reads { "get, list and watch" } else { "deletions" };
        Some(format!("{what} carry no object that `{}` could be read from", item.key.name()))
    }
}

/// One name for a field that has two.
fn one_name(field: &Field) -> String {
    let name = field.name();
    match &*name {
        "objectRef.resource" => "target.resource".to_owned(),
        "objectRef.subresource" => "target.subresource".to_owned(),
        "objectRef.namespace" => "target.namespace".to_owned(),
        "objectRef.apiGroup" => "target.group".to_owned(),
        _ => name.into_owned(),
    }
}

/// Fields with one value at most.
fn is_single(field: &Field) -> bool {
    let name = field.name();
    let lists = [
        "user.groups",
        "impersonatedUser.groups",
        "sourceIPs",
        "user.extra.",
        "actor.groups",
        "actor.as_groups",
        "client.claims",
        "exec.args",
        "target.labels",
        "target.annotations",
        "target.managers",
        "config.entries",
        "annotation.keys",
        "workload.",
        "rbac.",
        "csr.",
        "requestObject",
        "responseObject",
    ];
    !lists.iter().any(|l| name.starts_with(l))
}

fn exact(item: &Item<Field>) -> Option<BTreeSet<String>> {
    match &item.test {
        Test::One(matcher) if !item.negated => {
            Some(matcher.exact_texts()?.iter().map(|t| t.to_ascii_lowercase()).collect())
        }
        _ => None,
    }
}

/// Whether the item needs a value to be there.
fn present(item: &Item<Field>) -> bool {
    !item.negated
        && match &item.test {
            Test::Exists(wanted) => *wanted,
            Test::One(matcher) => !matcher.null,
            Test::Every(_) | Test::Same { .. } | Test::Element(_) => true,
        }
}

fn item_impossible(item: &Item<Field>, notes: &mut Vec<String>) -> Option<String> {
    let name = item.key.name();
    if let (Field::Never(never), true) = (&item.key, present(item)) {
        let meant = item.key.instead().unwrap_or_default();
        return Some(format!("no audit event has a field `{never}`; `{meant}` is what is meant"));
    }
    let values = exact(item)?;
    let unreal = |v: &&String| match &item.key {
        Field::StatusCode => v.parse::<u16>().is_err(),
        field => known::values(field).is_some_and(|known| !known.contains(&v.as_str())),
    };
    let bad: Vec<&String> = values.iter().filter(unreal).collect();
    if bad.is_empty() {
        return None;
    }
    let listed = bad.iter().map(|v| format!("`{v}`")).collect::<Vec<_>>().join(", ");
    let meant = bad.iter().find_map(|v| known::meant(v)).map(|m| format!("; `{m}` is what is meant"));
    let why = if item.key == Field::StatusCode {
        format!("`{name}` is a number, never {listed}")
    } else {
        format!("`{name}` is never {listed}{}", meant.unwrap_or_default())
    };
    if bad.len() == values.len() {
        return Some(why);
    }
    notes.push(why);
    None
}
