//! Falco rule files as written: lists, macros and rules, with what later files append or replace.

use std::collections::HashMap;
use std::path::Path;

use lapwing_engine::rule::problem::Place;
use lapwing_engine::rule::yaml::{self, Node as Yaml, Value};

use super::parse::{self, FieldRef, Node, Op, ParseFault, Word};
use super::{ImportError, Where};

/// Conditions grow no larger when macros and lists are put in.
const MAX_PARTS: usize = 20_000;

/// Everything the files say.
#[derive(Debug, Default)]
pub struct Source {
    lists: HashMap<String, Vec<Word>>,
    macros: HashMap<String, String>,
    pub rules: Vec<Rule>,
}

#[derive(Clone, Debug, Default)]
pub struct Rule {
    pub name: String,
    pub at: Where,
    pub desc: String,
    pub condition: String,
    pub priority: String,
    pub source: String,
    pub tags: Vec<String>,
    pub enabled: bool,
    exceptions: Vec<Exception>,
}

#[derive(Clone, Debug)]
struct Exception {
    name: String,
    fields: Vec<String>,
    comps: Vec<String>,
    /// One field written without a list: the values are its values.
    single: bool,
    values: Vec<Vec<Vec<Word>>>,
}

/// Why a condition could not be put together.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unresolved {
    #[error("condition: {0}")]
    Parse(#[from] ParseFault),
    #[error("macro `{name}`: {fault}")]
    InMacro { name: String, fault: ParseFault },
    #[error("there is no macro `{0}` in the files given; give the file that defines it too")]
    NoMacro(String),
    #[error("macro `{0}` refers to itself")]
    Circle(String),
    #[error("with its macros and lists it has more than {MAX_PARTS} parts")]
    TooLarge,
    #[error("exception `{name}`: {what}")]
    Exception { name: String, what: &'static str },
}

impl Source {
    /// Adds the text of one file after the others.
    pub fn add(&mut self, path: &Path, text: &str) -> Result<(), ImportError> {
        let fail = |at: Place, what: String| ImportError::File { at: Where::new(path, at), what };
        for document in yaml::documents(text).map_err(|(at, fault)| fail(at, fault.to_string()))? {
            let Value::List(items) = &document.value else {
                return Err(fail(document.at, "expected a list of rules, macros and lists".to_owned()));
            };
            for item in items {
                self.item(path, item).map_err(|(at, what)| fail(at, what))?;
            }
        }
        Ok(())
    }

    fn item(&mut self, path: &Path, item: &Yaml) -> Result<(), (Place, String)> {
        let text = |key: &str| item.get(key).and_then(Yaml::scalar_text);
        if let Some(name) = text("list") {
            let items = words(item.get("items"));
            let list = self.lists.entry(name).or_default();
            if !appends(item, "items") {
                list.clear();
            }
            list.extend(items);
        } else if let Some(name) = text("macro") {
            let condition = text("condition").ok_or_else(|| (item.at, format!("macro `{name}` has no `condition`")))?;
            let old = self.macros.entry(name).or_default();
            join(old, &condition, appends(item, "condition"));
        } else if let Some(name) = text("rule") {
            self.rule(path, item, name)?;
        } else if ["required_engine_version", "required_plugin_versions"].iter().all(|k| item.get(k).is_none()) {
            return Err((item.at, "expected `rule`, `macro` or `list`".to_owned()));
        }
        Ok(())
    }

    fn rule(&mut self, path: &Path, item: &Yaml, name: String) -> Result<(), (Place, String)> {
        let text = |key: &str| item.get(key).and_then(Yaml::scalar_text);
        let changes = item.get("append").is_some_and(is_true) || item.get("override").is_some();
        let only_switch = item.get("enabled").is_some() && item.get("condition").is_none();
        let known = self.rules.iter().position(|r| r.name == name);
        if (changes || only_switch) && known.is_none() {
            return Err((item.at, format!("rule `{name}` is changed before it is written; give its file first")));
        }
        let enabled = item.get("enabled").is_none_or(is_true);
        let i = match known {
            Some(i) if changes || only_switch => i,
            Some(i) => {
                self.rules[i] = Rule::default();
                i
            }
            None => {
                self.rules.push(Rule::default());
                self.rules.len() - 1
            }
        };
        let rule = &mut self.rules[i];
        if !(changes || only_switch) {
            *rule = Rule { name, at: Where::new(path, item.at), enabled: true, ..Rule::default() };
            "syscall".clone_into(&mut rule.source);
        }
        if item.get("enabled").is_some() || !changes {
            rule.enabled = enabled;
        }
        for (key, slot) in [("condition", &mut rule.condition), ("desc", &mut rule.desc)] {
            if let Some(new) = text(key) {
                join(slot, &new, appends(item, key));
            }
        }
        for (key, slot) in [("priority", &mut rule.priority), ("source", &mut rule.source)] {
            if let Some(new) = text(key) {
                *slot = new;
            }
        }
        if let Some(tags) = item.get("tags") {
            if !appends(item, "tags") {
                rule.tags.clear();
            }
            rule.tags.extend(words(Some(tags)).into_iter().map(|w| w.text));
        }
        if let Some(exceptions) = item.get("exceptions") {
            if !appends(item, "exceptions") {
                rule.exceptions.clear();
            }
            for exception in exceptions.as_slice() {
                rule.except(exception)?;
            }
        }
        Ok(())
    }

    /// The condition of a rule with its macros, lists and exceptions put in.
    pub fn resolve(&self, rule: &Rule) -> Result<Node, Unresolved> {
        let mut budget = MAX_PARTS;
        let mut node = self.expand(parse::condition(&rule.condition)?, &mut Vec::new(), &mut budget)?;
        let mut excepted = Vec::new();
        for exception in &rule.exceptions {
            excepted.extend(self.expand_exception(exception, &mut budget)?);
        }
        if !excepted.is_empty() {
            node = Node::And(vec![node, Node::Not(Box::new(Node::Or(excepted)))]);
        }
        Ok(node)
    }

    fn expand(&self, node: Node, stack: &mut Vec<String>, budget: &mut usize) -> Result<Node, Unresolved> {
        *budget = budget.checked_sub(1).ok_or(Unresolved::TooLarge)?;
        let mut all =
            |parts: Vec<Node>| parts.into_iter().map(|p| self.expand(p, stack, budget)).collect::<Result<Vec<_>, _>>();
        Ok(match node {
            Node::And(parts) => Node::And(all(parts)?),
            Node::Or(parts) => Node::Or(all(parts)?),
            Node::Not(part) => Node::Not(Box::new(self.expand(*part, stack, budget)?)),
            Node::Macro(name) => {
                let Some(text) = self.macros.get(&name) else { return Err(Unresolved::NoMacro(name)) };
                if stack.contains(&name) {
                    return Err(Unresolved::Circle(name));
                }
                let inner =
                    parse::condition(text).map_err(|fault| Unresolved::InMacro { name: name.clone(), fault })?;
                stack.push(name);
                let inner = self.expand(inner, stack, budget);
                stack.pop();
                inner?
            }
            Node::Check { field, op, values } if op.takes_list() => {
                let mut out = Vec::new();
                self.items(values, &mut out, 0, budget)?;
                Node::Check { field, op, values: out }
            }
            check @ Node::Check { .. } => check,
        })
    }

    /// Bare words that name a list stand for its items.
    fn items(&self, words: Vec<Word>, out: &mut Vec<Word>, depth: usize, budget: &mut usize) -> Result<(), Unresolved> {
        for word in words {
            match self.lists.get(&word.text).filter(|_| !word.quoted && depth < 16) {
                Some(list) => self.items(list.clone(), out, depth + 1, budget)?,
                None => {
                    *budget = budget.checked_sub(1).ok_or(Unresolved::TooLarge)?;
                    if !out.iter().any(|w| w.text == word.text) {
                        out.push(word);
                    }
                }
            }
        }
        Ok(())
    }

    fn expand_exception(&self, e: &Exception, budget: &mut usize) -> Result<Vec<Node>, Unresolved> {
        let fail = |what| Unresolved::Exception { name: e.name.clone(), what };
        let fields: Vec<FieldRef> = e.fields.iter().map(|f| field(f)).collect();
        let comps: Result<Vec<Op>, _> = (0..fields.len())
            .map(|i| match e.comps.get(i) {
                Some(c) => Op::read(c).ok_or_else(|| fail("an operator of `comps` is not supported")),
                None if e.single => Ok(Op::In),
                None => Ok(Op::Eq),
            })
            .collect();
        let comps = comps?;
        let mut rows = Vec::new();
        for row in &e.values {
            if row.len() != fields.len() {
                return Err(fail("a row of `values` has another length than `fields`"));
            }
            let mut checks = Vec::new();
            for ((field, op), words) in fields.iter().zip(&comps).zip(row) {
                let check = Node::Check { field: field.clone(), op: *op, values: words.clone() };
                checks.push(self.expand(check, &mut Vec::new(), budget)?);
            }
            rows.push(Node::And(checks));
        }
        Ok(rows)
    }
}

impl Rule {
    /// Adds an exception, or values to the one of its name.
    fn except(&mut self, yaml: &Yaml) -> Result<(), (Place, String)> {
        let name = yaml.get("name").and_then(Yaml::scalar_text).unwrap_or_default();
        let i = match self.exceptions.iter().position(|e| e.name == name && yaml.get("fields").is_none()) {
            Some(i) => i,
            None => {
                let fields = yaml.get("fields").ok_or_else(|| {
                    (yaml.at, format!("exception `{name}` has no `fields`; give its rule's file first"))
                })?;
                self.exceptions.retain(|e| e.name != name);
                self.exceptions.push(Exception {
                    name,
                    single: !matches!(fields.value, Value::List(_)),
                    fields: words(Some(fields)).into_iter().map(|w| w.text).collect(),
                    comps: words(yaml.get("comps")).into_iter().map(|w| w.text).collect(),
                    values: Vec::new(),
                });
                self.exceptions.len() - 1
            }
        };
        let exception = &mut self.exceptions[i];
        let Some(values) = yaml.get("values") else { return Ok(()) };
        if exception.single {
            let all = words(Some(values));
            let list = exception.comps.first().is_none_or(|c| Op::read(c).is_some_and(Op::takes_list));
            if list {
                exception.values.push(vec![all]);
            } else {
                exception.values.extend(all.into_iter().map(|w| vec![vec![w]]));
            }
            return Ok(());
        }
        for row in values.as_slice() {
            exception.values.push(row.as_slice().iter().map(|cell| words(Some(cell))).collect());
        }
        Ok(())
    }
}

/// `a.b[arg]`
fn field(text: &str) -> FieldRef {
    match text.trim().strip_suffix(']').and_then(|t| t.split_once('[')) {
        Some((name, arg)) => FieldRef { name: name.to_owned(), arg: Some(arg.to_owned()) },
        None => FieldRef { name: text.trim().to_owned(), arg: None },
    }
}

fn is_true(node: &Yaml) -> bool {
    node.value == Value::Bool(true)
}

/// Whether `key` is added to what is there instead of put in its place.
fn appends(item: &Yaml, key: &str) -> bool {
    match item.get("override").and_then(|o| o.get(key)).and_then(Yaml::scalar_text) {
        Some(how) => how == "append",
        None => item.get("append").is_some_and(is_true),
    }
}

fn join(old: &mut String, new: &str, append: bool) {
    if !append {
        old.clear();
    } else if !old.is_empty() {
        old.push(' ');
    }
    old.push_str(new);
}

/// A scalar or a list of scalars. A value may carry quotes of its own, as in `'"a b"'`.
fn words(node: Option<&Yaml>) -> Vec<Word> {
    let Some(node) = node else { return Vec::new() };
    let scalars = node.as_slice().iter().filter_map(Yaml::scalar_text);
    let word = |text: String| {
        let inner = ['"', '\''].iter().find_map(|q| text.strip_prefix(*q)?.strip_suffix(*q).map(str::to_owned));
        let quoted = inner.is_some();
        Word { text: inner.unwrap_or(text), quoted }
    };
    scalars.map(word).collect()
}
