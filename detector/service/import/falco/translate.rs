//! From Falco's checks to items of ours that answer the same.
//!
//! Falco compares case-sensitively, a check on a value that is not there is false, `in` on a list
//! asks for all its values, `intersects` for one.

use super::fields::{self, NoPlace, Place};
use super::parse::{FieldRef, Node, Op, Word};
use super::tree::{Item, Tree, Want};

/// Why a check cannot be written as ours.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Inexpressible {
    #[error("{0}")]
    NoPlace(#[from] NoPlace),
    #[error("`{field} {op}`: {why}")]
    Check { field: String, op: &'static str, why: &'static str },
}

/// Fields whose values the API server spells; their case needs no saying.
const FIXED: [&str; 6] = [
    "verb",
    "stage",
    "objectRef.resource",
    "objectRef.subresource",
    "responseStatus.code",
    "annotations.authorization.k8s.io/decision",
];

/// Translates a condition whose macros and lists are put in.
pub fn tree(node: &Node) -> Result<Tree, Inexpressible> {
    let all = |parts: &[Node]| parts.iter().map(tree).collect::<Result<Vec<_>, _>>();
    Ok(match node {
        Node::And(parts) => Tree::And(all(parts)?),
        Node::Or(parts) => Tree::Or(all(parts)?),
        Node::Not(part) => tree(part)?.negate(),
        // Resolved before.
        Node::Macro(_) => Tree::Always(false),
        Node::Check { field, op, values } => Check { field, op: *op, values }.tree()?,
    })
}

struct Check<'n> {
    field: &'n FieldRef,
    op: Op,
    values: &'n [Word],
}

impl Check<'_> {
    fn no<T>(&self, why: &'static str) -> Result<T, Inexpressible> {
        Err(Inexpressible::Check { field: self.field.to_string(), op: self.op.name(), why })
    }

    fn texts(&self) -> impl Iterator<Item = &str> + Clone {
        self.values.iter().map(|w| w.text.as_str())
    }

    fn first(&self) -> &str {
        self.values.first().map_or("", |w| w.text.as_str())
    }

    fn tree(&self) -> Result<Tree, Inexpressible> {
        if self.op.takes_list() && self.values.is_empty() {
            return Ok(Tree::Always(false));
        }
        match fields::place(self.field)? {
            Place::One(field) => self.one(&field),
            Place::Many(field) => match self.op {
                Op::Exists => Ok(Tree::exists(&field)),
                Op::Intersects => Ok(exact(&field, self.texts())),
                Op::In => {
                    self.no("asks whether all values of a list are among these, which ours cannot; use `intersects`")
                }
                _ => self.no("a list takes only `in`, `intersects` and `exists`"),
            },
            Place::Each { list, path, image } => self.each(&list, &path, image),
            Place::Ports(list) => self.ports(&list),
            Place::VolumeTypes => match self.op {
                Op::Intersects => Ok(Tree::Or(
                    self.texts().map(|t| Tree::exists(&format!("requestObject.spec.volumes.{t}"))).collect(),
                )),
                _ => self.no("kinds of volumes take only `intersects`"),
            },
            Place::HostPath(path) => self.host_path(&path),
            Place::Parameter(name) => self.parameter(&name),
            Place::Text(field) => self.text(&field),
            Place::Constant => self.constant(),
        }
    }

    fn one(&self, field: &str) -> Result<Tree, Inexpressible> {
        let positioned = |modifier: &str| {
            if self.first().is_empty() {
                return Tree::exists(field);
            }
            Tree::values(&format!("{field}|{modifier}{}", cased(field, self.texts())), [escaped(self.first())])
        };
        Ok(match self.op {
            Op::Exists => Tree::exists(field),
            Op::Eq | Op::In | Op::Intersects => exact(field, self.texts()),
            Op::Ne => Tree::And(vec![Tree::exists(field), exact(field, self.texts()).negate()]),
            Op::Contains => positioned("contains"),
            Op::StartsWith => positioned("startswith"),
            Op::EndsWith => positioned("endswith"),
            Op::IContains if self.first().is_empty() => Tree::exists(field),
            Op::IContains => Tree::values(&format!("{field}|contains"), [escaped(self.first())]),
            Op::Pmatch => {
                let below = self.texts().flat_map(|t| {
                    let path = t.trim_end_matches('/');
                    let itself = (!path.is_empty()).then(|| escaped(path));
                    itself.into_iter().chain([format!("{}/*", escaped(path))])
                });
                Tree::values(&format!("{field}|cased"), below)
            }
            Op::Glob | Op::IGlob if self.first().contains('[') => return self.no("sets of letters are not supported"),
            Op::Glob => Tree::values(&format!("{field}|cased"), [self.first().to_owned()]),
            Op::IGlob => Tree::values(field, [self.first().to_owned()]),
            Op::Regex => Tree::values(&format!("{field}|re"), [format!("^(?:{})$", self.first())]),
            Op::Lt | Op::Le | Op::Gt | Op::Ge => {
                if self.first().parse::<i64>().is_err() {
                    return self.no("only whole numbers can be compared");
                }
                let modifier = match self.op {
                    Op::Lt => "lt",
                    Op::Le => "lte",
                    Op::Gt => "gt",
                    _ => "gte",
                };
                Tree::values(&format!("{field}|{modifier}"), [self.first().to_owned()])
            }
        })
    }

    fn each(&self, list: &str, path: &str, image: bool) -> Result<Tree, Inexpressible> {
        let field = format!("{list}.{path}");
        // The part before the first `:`, then before the first `@`.
        let repository = |t: &str| {
            let e = escaped(t);
            if t.contains([':', '@']) { vec![] } else { vec![e.clone(), format!("{e}:*"), format!("{e}@*")] }
        };
        let values: Vec<String> =
            if image { self.texts().flat_map(repository).collect() } else { self.texts().map(escaped).collect() };
        let modifier = if image { "|cased" } else { cased(&field, self.texts()) };
        match self.op {
            Op::Exists => Ok(Tree::exists(&field)),
            Op::In | Op::Intersects if values.is_empty() => Ok(Tree::Always(false)),
            Op::Intersects => Ok(Tree::values(&format!("{field}{modifier}"), values)),
            Op::In if path.ends_with("capabilities.add") => {
                self.no("asks whether all values of a list are among these, which ours cannot; use `intersects`")
            }
            Op::In => {
                let other = vec![
                    (format!("{path}|exists"), Want::Bool(true)),
                    (format!("{path}|neq{modifier}"), Want::Values(values)),
                ];
                Ok(Tree::And(vec![Tree::exists(&field), Tree::element(list, other).negate()]))
            }
            _ => self.no("a list takes only `in`, `intersects` and `exists`"),
        }
    }

    fn ports(&self, list: &str) -> Result<Tree, Inexpressible> {
        let ports = format!("{list}.ports");
        match self.op {
            Op::Exists => Ok(Tree::exists(&ports)),
            Op::Intersects => {
                let of_container = vec![
                    ("hostPort|exists".to_owned(), Want::Bool(false)),
                    ("containerPort".to_owned(), Want::Values(self.texts().map(escaped).collect())),
                ];
                let of_host = exact(&format!("{ports}.hostPort"), self.texts());
                Ok(Tree::Or(vec![of_host, Tree::element(&ports, of_container)]))
            }
            _ => self.no("ports take only `intersects` and `exists`"),
        }
    }

    fn host_path(&self, path: &str) -> Result<Tree, Inexpressible> {
        let field = "requestObject.spec.volumes.hostPath.path";
        let hit = match path.strip_suffix('*') {
            Some(prefix) => Tree::values(&format!("{field}|startswith|cased"), [escaped(prefix)]),
            None => exact(field, std::iter::once(path)),
        };
        match (self.op, self.first()) {
            (Op::Eq, "true") => Ok(hit),
            (Op::Eq, "false") => Ok(Tree::And(vec![Tree::exists("requestObject.spec.volumes"), hit.negate()])),
            _ => self.no("takes only `= true` and `= false`"),
        }
    }

    fn parameter(&self, name: &str) -> Result<Tree, Inexpressible> {
        let safe = |t: &str| t.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_~".contains(&b));
        if !safe(name) {
            return self.no("the parameter's name has letters that a URI spells in several ways");
        }
        match self.op {
            _ if name == "container" => self.one("exec.container"),
            Op::Exists => Ok(Tree::values("requestURI|re", [format!("[?&]{name}=")])),
            _ if name == "command" => {
                self.no("it sees only the first argument of a command; write a rule on `exec.command` or `exec.args`")
            }
            Op::Eq | Op::In if self.texts().all(safe) => {
                let values: Vec<&str> = self.texts().collect();
                let alternatives = values.join("|");
                Ok(Tree::values("requestURI|re", [format!("[?&]{name}=(?:{alternatives})(?:&|$)")]))
            }
            _ => self.no("only plain values of a parameter can be compared, by `=` and `in`"),
        }
    }

    fn text(&self, field: &str) -> Result<Tree, Inexpressible> {
        let there = if field.is_empty() { Tree::Always(true) } else { Tree::exists(field) };
        let key = match self.op {
            Op::Exists => return Ok(there),
            Op::Contains | Op::IContains if self.first().trim().is_empty() => return Ok(there),
            Op::Contains => "|cased",
            Op::IContains => "",
            _ => return self.no("a whole object takes only `contains` and `exists`"),
        };
        // A key of nothing but modifiers searches the event.
        let key = if key.is_empty() { "|contains" } else { key };
        let words = Item { key: key.to_owned(), want: Want::Keywords(vec![escaped(self.first())]) };
        if field.is_empty() {
            return Ok(Tree::Item(words));
        }
        // An object equals no text, but whether it does is open while the object is not recorded:
        // so the rule says undecidable, where a search finds nothing.
        let open = Tree::values(field, ["unrecorded".to_owned()]);
        Ok(Tree::And(vec![there, Tree::Or(vec![Tree::Item(words), open])]))
    }

    fn constant(&self) -> Result<Tree, Inexpressible> {
        let zero = self.first() == "0";
        match self.op {
            Op::Exists => Ok(Tree::Always(true)),
            Op::Ne | Op::Gt | Op::Ge if zero => Ok(Tree::Always(true)),
            Op::Eq | Op::Lt | Op::Le if zero => Ok(Tree::Always(false)),
            _ => self.no("the time or number of an event can only be compared with 0"),
        }
    }
}

/// `field: values`, whole values.
fn exact<'t>(field: &str, texts: impl Iterator<Item = &'t str> + Clone) -> Tree {
    let key = format!("{field}{}", cased(field, texts.clone()));
    Tree::values(&key, texts.map(escaped))
}

/// The modifier for case, where case can differ.
fn cased<'t>(field: &str, mut texts: impl Iterator<Item = &'t str>) -> &'static str {
    let same = |t: &str| matches!(t, "true" | "false") || t.bytes().all(|b| !b.is_ascii_alphabetic()) && t.is_ascii();
    if FIXED.contains(&field) || texts.all(same) { "" } else { "|cased" }
}

/// A text of Falco's as a text of ours without wildcards.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if matches!(c, '*' | '?' | '\\') {
            out.push('\\');
        }
        out.push(c);
    }
    out
}
