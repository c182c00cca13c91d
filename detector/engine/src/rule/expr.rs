//! A compiled selection: groups of items, judged in Kleene's three-valued logic.
//!
//! The same tree serves fields of the event and, under `|any`, paths into one element of a list.

use super::matcher::{self, Matcher, Texts, with_text};
use super::modifier::Position;
use super::view::{Elements, Scalar, Unknown, Values, View};
use crate::field::Field;
use crate::tree::Tree;

/// A verdict on a part of a rule. Unknown tells which field left it open.
#[derive(Debug, PartialEq, Eq)]
pub enum Tri<'r, K> {
    True,
    False,
    Unknown(Unknown, &'r K),
}

impl<K> Clone for Tri<'_, K> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<K> Copy for Tri<'_, K> {}

impl<'r, K> Tri<'r, K> {
    pub const fn known(b: bool) -> Self {
        if b { Self::True } else { Self::False }
    }

    pub const fn not(self) -> Self {
        match self {
            Self::True => Self::False,
            Self::False => Self::True,
            unknown @ Self::Unknown(..) => unknown,
        }
    }

    /// AND. Stops at the first false.
    pub fn all(parts: impl IntoIterator<Item = Self>) -> Self {
        let mut result = Self::True;
        for part in parts {
            match part {
                Self::False => return Self::False,
                Self::Unknown(..) if matches!(result, Self::True) => result = part,
                _ => {}
            }
        }
        result
    }

    /// OR. Stops at the first true.
    pub fn any(parts: impl IntoIterator<Item = Self>) -> Self {
        Self::all(parts.into_iter().map(Self::not)).not()
    }

    /// At least `n` of the parts.
    pub fn at_least(n: usize, parts: impl IntoIterator<Item = Self>) -> Self {
        let (mut yes, mut maybe, mut open) = (0, 0, None);
        for part in parts {
            match part {
                Self::True => yes += 1,
                Self::False => {}
                Self::Unknown(why, key) => {
                    maybe += 1;
                    open.get_or_insert((why, key));
                }
            }
            if yes >= n {
                return Self::True;
            }
        }
        match open {
            Some((why, key)) if yes + maybe >= n => Self::Unknown(why, key),
            _ => Self::False,
        }
    }

    /// The same verdict about another key.
    pub fn at<'s, J>(self, key: &'s J) -> Tri<'s, J> {
        match self {
            Self::True => Tri::True,
            Self::False => Tri::False,
            Self::Unknown(why, _) => Tri::Unknown(why, key),
        }
    }
}

/// Parts in the order they were written, and the order in which to look at them: cheap first.
#[derive(Debug)]
pub struct Ordered<T> {
    pub written: Vec<T>,
    order: Box<[u16]>,
}

impl<T> Ordered<T> {
    pub fn new(written: Vec<T>, cost: impl Fn(&T) -> u16) -> Self {
        let mut order: Vec<u16> = (0..written.len()).filter_map(|i| u16::try_from(i).ok()).collect();
        order.sort_by_key(|i| cost(&written[usize::from(*i)]));
        Self { written, order: order.into() }
    }

    pub fn cheap_first(&self) -> impl Iterator<Item = &T> {
        self.order.iter().map(|i| &self.written[usize::from(*i)])
    }
}

/// A selection or a part of one.
#[derive(Debug)]
pub enum Expr<K> {
    All(Ordered<Expr<K>>),
    Any(Ordered<Expr<K>>),
    Item(Item<K>),
    /// Texts searched in the whole event; all of the groups have to be found.
    Keywords {
        wanted: String,
        groups: Vec<Texts>,
    },
}

/// One field with what is wanted of it.
#[derive(Debug)]
pub struct Item<K> {
    pub key: K,
    /// What a person reads: `verb = create | patch`.
    pub wanted: String,
    pub negated: bool,
    pub test: Test<K>,
    pub cost: u16,
}

#[derive(Debug)]
pub enum Test<K> {
    /// A value of the field matches one of the wanted values.
    One(Matcher),
    /// Each wanted value is matched by a value of the field (`all`).
    Every(Vec<Matcher>),
    Exists(bool),
    /// A value of the field compared with a value of another one.
    Same {
        others: Vec<K>,
        position: Position,
        cased: bool,
    },
    /// One element of the list meets all of it (`any`).
    Element(Box<Expr<Path>>),
}

/// A path into an element: names; lists on the way fan out.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Path(pub Box<[Box<str>]>);

impl std::fmt::Display for Path {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0.join("."))
    }
}

/// Where values come from: an event, or one element of a list.
pub trait Source<K> {
    fn get(&self, key: &K) -> Values<'_>;
    fn list(&self, key: &K) -> Elements<'_>;
    fn text(&self) -> &str;
}

impl<V: View> Source<Field> for V {
    fn get(&self, key: &Field) -> Values<'_> {
        self.values(key)
    }
    fn list(&self, key: &Field) -> Elements<'_> {
        self.elements(key)
    }
    fn text(&self) -> &str {
        self.all_text()
    }
}

/// One element of a list of objects.
pub struct Element<'a>(pub &'a Tree<'a>);

impl Source<Path> for Element<'_> {
    fn get(&self, path: &Path) -> Values<'_> {
        let mut found = Vec::new();
        walk(self.0, &path.0, &mut |v| push_scalars(v, &mut found));
        match found.as_slice() {
            [] => Values::Absent,
            [one] => Values::One(*one),
            _ => Values::Many(found),
        }
    }
    fn list(&self, path: &Path) -> Elements<'_> {
        let mut found = Vec::new();
        walk(self.0, &path.0, &mut |v| match v {
            Tree::List(items) => found.extend(items),
            other => found.push(other),
        });
        if found.is_empty() { Elements::Absent } else { Elements::Items(found) }
    }
    fn text(&self) -> &str {
        ""
    }
}

/// Calls `f` with everything `path` leads to; arrays on the way fan out.
fn walk<'a>(value: &'a Tree<'a>, path: &[Box<str>], f: &mut dyn FnMut(&'a Tree<'a>)) {
    match (value, path.split_first()) {
        (_, None) => f(value),
        (Tree::List(items), _) => items.iter().for_each(|v| walk(v, path, f)),
        (Tree::Object(_), Some((name, rest))) => {
            if let Some(v) = value.get(name) {
                walk(v, rest, f);
            }
        }
        _ => {}
    }
}

/// Scalars of a value: a list gives its elements, an object counts as present without a text.
fn push_scalars<'a>(value: &'a Tree<'a>, out: &mut Vec<Scalar<'a>>) {
    match value {
        Tree::Null => out.push(Scalar::Null),
        Tree::Bool(b) => out.push(Scalar::Bool(*b)),
        Tree::Text(text) => out.push(Scalar::Str(text)),
        Tree::Int(n) => out.push(Scalar::Int(*n)),
        Tree::Float(n) => out.push(Scalar::Float(*n)),
        Tree::List(items) => items.iter().for_each(|v| push_scalars(v, out)),
        Tree::Object(_) => out.push(Scalar::Str("{…}")),
    }
}

impl<K> Expr<K> {
    pub fn judge<'r, S: Source<K>>(&'r self, source: &S) -> Tri<'r, K> {
        match self {
            Self::All(parts) => Tri::all(parts.cheap_first().map(|p| p.judge(source))),
            Self::Any(parts) => Tri::any(parts.cheap_first().map(|p| p.judge(source))),
            Self::Item(item) => item.judge(source),
            Self::Keywords { groups, .. } => {
                let text = source.text();
                Tri::known(groups.iter().all(|g| g.matches(text)))
            }
        }
    }

    /// What judging costs, roughly.
    pub fn cost(&self) -> u16 {
        match self {
            Self::All(parts) | Self::Any(parts) => parts.written.iter().map(Self::cost).fold(0, u16::saturating_add),
            Self::Item(item) => item.cost,
            Self::Keywords { .. } => 400,
        }
    }

    /// Whether it searches the whole event for texts.
    pub fn searches_text(&self) -> bool {
        match self {
            Self::All(parts) | Self::Any(parts) => parts.written.iter().any(Self::searches_text),
            Self::Item(_) => false,
            Self::Keywords { .. } => true,
        }
    }

    /// Calls `f` for every item.
    pub fn visit<'r>(&'r self, f: &mut dyn FnMut(&'r Item<K>)) {
        match self {
            Self::All(parts) | Self::Any(parts) => parts.written.iter().for_each(|p| p.visit(f)),
            Self::Item(item) => f(item),
            Self::Keywords { .. } => {}
        }
    }
}

impl<K> Item<K> {
    pub fn judge<'r, S: Source<K>>(&'r self, source: &S) -> Tri<'r, K> {
        let verdict = self.test(source);
        if self.negated { verdict.not() } else { verdict }
    }

    fn test<'r, S: Source<K>>(&'r self, source: &S) -> Tri<'r, K> {
        match &self.test {
            Test::One(matcher) => self.with(source.get(&self.key), |v| one(matcher, v)),
            Test::Every(matchers) => self.with(source.get(&self.key), |v| matchers.iter().all(|m| one(m, v))),
            Test::Exists(wanted) => self.with(source.get(&self.key), |v| !matches!(v, Values::Absent) == *wanted),
            Test::Same { others, position, cased } => {
                let here = source.get(&self.key);
                let parts = others.iter().map(|other| match (&here, source.get(other)) {
                    (Values::Unknown(why), _) => Tri::Unknown(*why, &self.key),
                    (_, Values::Unknown(why)) => Tri::Unknown(why, other),
                    (here, there) => Tri::known(same(here, &there, *position, *cased)),
                });
                Tri::any(parts)
            }
            Test::Element(expr) => match source.list(&self.key) {
                Elements::Absent => Tri::False,
                Elements::Unknown(why) => Tri::Unknown(why, &self.key),
                Elements::Items(items) => Tri::any(items.into_iter().map(|v| expr.judge(&Element(v)).at(&self.key))),
            },
        }
    }

    fn with<'r>(&'r self, values: Values<'_>, f: impl FnOnce(&Values<'_>) -> bool) -> Tri<'r, K> {
        match values {
            Values::Unknown(why) => Tri::Unknown(why, &self.key),
            known => Tri::known(f(&known)),
        }
    }
}

/// Whether a value of the field matches.
pub fn one(matcher: &Matcher, values: &Values<'_>) -> bool {
    match values {
        Values::Absent => matcher.null,
        Values::Unknown(_) => false,
        Values::One(scalar) => matcher.matches(*scalar),
        Values::Many(scalars) => scalars.iter().any(|s| matcher.matches(*s)),
    }
}

fn scalars<'v, 'a>(values: &'v Values<'a>) -> &'v [Scalar<'a>] {
    match values {
        Values::One(one) => std::slice::from_ref(one),
        Values::Many(many) => many,
        Values::Absent | Values::Unknown(_) => &[],
    }
}

fn same(here: &Values<'_>, there: &Values<'_>, position: Position, cased: bool) -> bool {
    let compare = match position {
        Position::Whole => matcher::equal,
        Position::Contains => matcher::contains,
        Position::StartsWith => matcher::starts_with,
        Position::EndsWith => matcher::ends_with,
    };
    let text = |s: &&Scalar<'_>| **s != Scalar::Null;
    scalars(here)
        .iter()
        .filter(text)
        .any(|a| scalars(there).iter().filter(text).any(|b| with_text(*a, |a| with_text(*b, |b| compare(a, b, cased)))))
}

#[cfg(test)]
mod tests {
    use super::*;

    type T = Tri<'static, u8>;
    const T: T = Tri::True;
    const F: T = Tri::False;
    const U: T = Tri::Unknown(Unknown::Truncated, &0);

    #[test]
    fn kleene_truth_tables() {
        for (a, b, and, or) in [
            (T, T, T, T),
            (T, F, F, T),
            (F, T, F, T),
            (F, F, F, F),
            (T, U, U, T),
            (U, T, U, T),
            (F, U, F, U),
            (U, F, F, U),
            (U, U, U, U),
        ] {
            assert_eq!(Tri::all([a, b]), and, "{a:?} and {b:?}");
            assert_eq!(Tri::any([a, b]), or, "{a:?} or {b:?}");
        }
        assert_eq!([T.not(), F.not(), U.not()], [F, T, U]);
        assert_eq!(T::all([]), T);
        assert_eq!(T::any([]), F);
    }

    #[test]
    fn n_of_in_three_values() {
        for (n, parts, want) in [
            (2, [T, T, F], T),
            (2, [T, F, F], F),
            (2, [T, U, F], U),
            (2, [U, U, F], U),
            (2, [U, F, F], F),
            (2, [T, U, T], T),
            (3, [T, T, U], U),
        ] {
            assert_eq!(Tri::at_least(n, parts), want, "{n} of {parts:?}");
        }
    }

    #[test]
    fn the_first_open_field_is_told() {
        let open = Tri::Unknown(Unknown::Unreadable, &1);
        assert_eq!(Tri::all([T, open, U]), open);
        assert_eq!(Tri::any([F, open, U]), open);
    }

    #[test]
    fn paths_fan_out_over_lists() {
        let value = Tree::from(serde_json::json!({"a": [{"b": 1}, {"b": [2, "x"]}, {"c": null}], "o": {"p": {}}}));
        let get = |p: &str| match Element(&value).get(&Path(p.split('.').map(Into::into).collect())) {
            Values::Absent => vec![],
            Values::One(s) => vec![format!("{s:?}")],
            Values::Many(s) => s.iter().map(|s| format!("{s:?}")).collect(),
            Values::Unknown(_) => unreachable!(),
        };
        assert_eq!(get("a.b"), ["Int(1)", "Int(2)", "Str(\"x\")"]);
        assert_eq!(get("a.c"), ["Null"]);
        assert_eq!(get("a.d"), Vec::<String>::new());
        assert_eq!(get("o.p"), ["Str(\"{…}\")"], "an object is there");
    }
}
