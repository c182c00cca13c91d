//! The translated condition: Sigma items joined by and, or, not; made small.

use std::collections::BTreeSet;

/// What an item of a selection wants.
#[derive(Clone, Debug, PartialEq)]
pub enum Want {
    /// One of these values.
    Values(Vec<String>),
    Bool(bool),
    /// `|any`: one element with all of this.
    Element(Vec<(String, Want)>),
    /// One of these texts anywhere in the event; the key is empty.
    Keywords(Vec<String>),
}

/// `key: want`; the key holds the modifiers.
#[derive(Clone, Debug, PartialEq)]
pub struct Item {
    pub key: String,
    pub want: Want,
}

impl Item {
    pub fn field(&self) -> &str {
        self.key.split('|').next().unwrap_or_default()
    }

    /// Whether it names whole values only.
    pub fn exact(&self) -> Option<&[String]> {
        let plain = self.key.split('|').skip(1).all(|m| m == "cased");
        match &self.want {
            Want::Values(values) if plain => Some(values),
            _ => None,
        }
    }

    /// Values of two such items are alternatives.
    fn alternatives(&self) -> bool {
        let comparing = ["neq", "all", "lt", "lte", "gt", "gte"];
        matches!(self.want, Want::Values(_) | Want::Keywords(_))
            && !self.key.split('|').skip(1).any(|m| comparing.contains(&m))
    }
}

#[derive(Clone, Debug, PartialEq)]
pub enum Tree {
    And(Vec<Tree>),
    Or(Vec<Tree>),
    Not(Box<Tree>),
    Item(Item),
    Always(bool),
}

impl Tree {
    pub fn values(key: &str, values: impl IntoIterator<Item = String>) -> Self {
        Self::Item(Item { key: key.to_owned(), want: Want::Values(values.into_iter().collect()) })
    }

    pub fn exists(field: &str) -> Self {
        Self::Item(Item { key: format!("{field}|exists"), want: Want::Bool(true) })
    }

    pub fn element(field: &str, inner: Vec<(String, Want)>) -> Self {
        Self::Item(Item { key: format!("{field}|any"), want: Want::Element(inner) })
    }

    pub fn negate(self) -> Self {
        Self::Not(Box::new(self))
    }

    /// The same meaning with fewer parts.
    pub fn simple(self) -> Self {
        match self {
            Self::Not(part) => match part.simple() {
                Self::Always(b) => Self::Always(!b),
                Self::Not(inner) => *inner,
                part => part.negate(),
            },
            Self::And(parts) => joined(parts, true),
            Self::Or(parts) => joined(parts, false),
            other => other,
        }
    }

    /// Calls `f` with every item and whether it stands under an odd number of `not`.
    pub fn visit<'t>(&'t self, negated: bool, f: &mut dyn FnMut(&'t Item, bool)) {
        match self {
            Self::And(parts) | Self::Or(parts) => parts.iter().for_each(|p| p.visit(negated, f)),
            Self::Not(part) => part.visit(!negated, f),
            Self::Item(item) => f(item, negated),
            Self::Always(_) => {}
        }
    }

    /// The values of `field` one of which is needed; `None`: any will do.
    pub fn needs(&self, field: &str) -> Option<BTreeSet<&str>> {
        match self {
            Self::Item(item) if item.field() == field => Some(item.exact()?.iter().map(String::as_str).collect()),
            Self::And(parts) => {
                let needs = parts.iter().filter_map(|p| p.needs(field));
                needs.reduce(|a, b| a.intersection(&b).copied().collect())
            }
            Self::Or(parts) => {
                let needs: Option<Vec<_>> = parts.iter().map(|p| p.needs(field)).collect();
                needs.map(|n| n.into_iter().flatten().collect())
            }
            Self::Not(_) | Self::Item(_) | Self::Always(_) => None,
        }
    }
}

/// AND or OR of parts: flat, without constants, doubles and alternatives written apart.
fn joined(parts: Vec<Tree>, and: bool) -> Tree {
    let mut out: Vec<Tree> = Vec::new();
    let mut waiting: Vec<Tree> = parts.into_iter().rev().collect();
    while let Some(part) = waiting.pop() {
        match part.simple() {
            Tree::Always(b) if b == and => {}
            Tree::Always(b) => return Tree::Always(b),
            Tree::And(inner) if and => waiting.extend(inner.into_iter().rev()),
            Tree::Or(inner) if !and => waiting.extend(inner.into_iter().rev()),
            part if out.contains(&part) => {}
            Tree::Item(item) if !and && item.alternatives() => add_alternative(&mut out, item),
            part => out.push(part),
        }
    }
    if !and && let Some((shared, rest)) = factored(&out) {
        return Tree::And(shared.into_iter().chain([Tree::Or(rest)]).collect()).simple();
    }
    match (out.len(), and) {
        (0, _) => Tree::Always(and),
        (1, _) => out.remove(0),
        (_, true) => Tree::And(out),
        (_, false) => Tree::Or(out),
    }
}

/// `(a and b) or (a and c)` as `a` and what is left, `b or c`.
fn factored(parts: &[Tree]) -> Option<(Vec<Tree>, Vec<Tree>)> {
    let ands: Option<Vec<&Vec<Tree>>> =
        parts.iter().map(|p| if let Tree::And(a) = p { Some(a) } else { None }).collect();
    let ands = ands.filter(|a| a.len() > 1)?;
    let shared: Vec<Tree> = ands[0].iter().filter(|p| ands.iter().all(|a| a.contains(p))).cloned().collect();
    if shared.is_empty() {
        return None;
    }
    let own = |a: &&Vec<Tree>| Tree::And(a.iter().filter(|p| !shared.contains(p)).cloned().collect());
    let rest = ands.iter().map(own).collect();
    Some((shared, rest))
}

fn add_alternative(out: &mut Vec<Tree>, item: Item) {
    let same = out.iter_mut().find_map(|part| match part {
        Tree::Item(old) if old.key == item.key => match &mut old.want {
            Want::Values(values) | Want::Keywords(values) => Some(values),
            _ => None,
        },
        _ => None,
    });
    match (same, item.want) {
        (Some(values), Want::Values(new) | Want::Keywords(new)) => {
            for value in new {
                if !values.contains(&value) {
                    values.push(value);
                }
            }
        }
        (_, want) => out.push(Tree::Item(Item { key: item.key, want })),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verb(values: &[&str]) -> Tree {
        Tree::values("verb", values.iter().map(|v| (*v).to_owned()))
    }

    #[test]
    fn constants_and_doubles_go() {
        let tree = Tree::And(vec![
            verb(&["get"]),
            Tree::Always(false).negate(),
            Tree::And(vec![verb(&["get"]), Tree::Or(vec![])]).negate(),
        ]);
        assert_eq!(tree.simple(), verb(&["get"]));
        assert_eq!(Tree::And(vec![verb(&["get"]), Tree::Always(false)]).simple(), Tree::Always(false));
        assert_eq!(Tree::Or(vec![verb(&["get"]), Tree::Always(true)]).simple(), Tree::Always(true));
        assert_eq!(verb(&["get"]).negate().negate().simple(), verb(&["get"]));
    }

    #[test]
    fn alternatives_of_a_field_are_one_item() {
        assert_eq!(Tree::Or(vec![verb(&["get"]), verb(&["list", "get"])]).simple(), verb(&["get", "list"]));
        let neq = |v: &str| Tree::values("verb|neq", [v.to_owned()]);
        assert_eq!(Tree::Or(vec![neq("a"), neq("b")]).simple(), Tree::Or(vec![neq("a"), neq("b")]));
    }

    #[test]
    fn what_all_alternatives_ask_is_asked_once() {
        let both = |v: &str| Tree::And(vec![Tree::exists("stage"), verb(&[v])]);
        let want = Tree::And(vec![Tree::exists("stage"), verb(&["get", "list"])]);
        assert_eq!(Tree::Or(vec![both("get"), both("list")]).simple(), want);
        let wider = Tree::Or(vec![Tree::And(vec![Tree::exists("stage"), Tree::exists("verb")]), both("list")]);
        let want = Tree::And(vec![Tree::exists("stage"), Tree::Or(vec![Tree::exists("verb"), verb(&["list"])])]);
        assert_eq!(wider.simple(), want);
    }

    #[test]
    fn needed_values() {
        let tree = Tree::And(vec![
            Tree::Or(vec![verb(&["get"]), verb(&["create"])]),
            verb(&["create", "list"]),
            verb(&["x"]).negate(),
        ]);
        assert_eq!(tree.needs("verb"), Some(BTreeSet::from(["create"])));
        assert_eq!(tree.needs("stage"), None);
        assert_eq!(Tree::Or(vec![verb(&["get"]), Tree::exists("stage")]).needs("verb"), None);
    }
}
