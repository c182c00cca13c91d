//! Why a rule said what it said about one event: every part with what it wanted, what was there,
//! and whether it held.

use std::fmt;

use serde::Serialize;

use super::condition::Cond;
use super::expr::{Element, Expr, Item, Source, Test, Tri};
use super::view::{Elements, Scalar, Unknown, Values, View};
use super::{Detector, Rule};
use crate::field::Field;

/// How a part came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Mark {
    Held,
    Failed,
    Unknown,
}

impl<K> From<Tri<'_, K>> for Mark {
    fn from(tri: Tri<'_, K>) -> Self {
        match tri {
            Tri::True => Self::Held,
            Tri::False => Self::Failed,
            Tri::Unknown(..) => Self::Unknown,
        }
    }
}

impl fmt::Display for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Held => "✓",
            Self::Failed => "✗",
            Self::Unknown => "?",
        })
    }
}

/// A part of a rule and how it came out; prints as an indented tree.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Explanation {
    pub mark: Mark,
    /// What the part wants.
    pub wanted: String,
    /// What the event has. Control characters are escaped, long values cut.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub actual: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub parts: Vec<Explanation>,
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.print(f, 0)
    }
}

impl Explanation {
    fn print(&self, f: &mut fmt::Formatter<'_>, depth: usize) -> fmt::Result {
        write!(f, "{:indent$}{} {}", "", self.mark, self.wanted, indent = depth * 2)?;
        if let Some(actual) = &self.actual {
            write!(f, "  ({actual})")?;
        }
        writeln!(f)?;
        self.parts.iter().try_for_each(|p| p.print(f, depth + 1))
    }

    fn new(mark: impl Into<Mark>, wanted: impl Into<String>, parts: Vec<Self>) -> Self {
        Self { mark: mark.into(), wanted: wanted.into(), actual: None, parts }
    }
}

impl Rule {
    /// Explains the verdict on one event. Slow; for people.
    pub fn explain(&self, view: &impl View) -> Explanation {
        let detection = explain_detector(&self.detector, view);
        let mut verdict = vec![self.detector.judge(view)];
        let mut parts =
            vec![Explanation { wanted: format!("detection: {}", self.detector.condition_text), ..detection }];
        for filter in &self.filters {
            let judged = filter.detector.judge(view).not();
            verdict.push(judged);
            let inner = explain_detector(&filter.detector, view);
            let wanted = format!("not filtered by `{}`", filter.meta.label());
            parts.push(Explanation::new(judged, wanted, vec![inner]));
        }
        let wanted = format!("rule `{}`: {}", self.meta.label(), self.meta.title);
        Explanation::new(Tri::all(verdict), wanted, parts)
    }
}

fn explain_detector(detector: &Detector, view: &impl View) -> Explanation {
    explain_cond(&detector.condition, detector, view)
}

fn explain_cond(cond: &Cond, detector: &Detector, view: &impl View) -> Explanation {
    let mark: Mark = cond.judge(&mut |i| detector.selections[i].expr.judge(view)).into();
    let all = |parts: &[Cond]| parts.iter().map(|p| explain_cond(p, detector, view)).collect();
    match cond {
        Cond::And(parts) => Explanation::new(mark, "all of", all(&parts.written)),
        Cond::Or(parts) => Explanation::new(mark, "one of", all(&parts.written)),
        Cond::AtLeast(n, parts) => Explanation::new(mark, format!("at least {n} of"), all(parts)),
        Cond::Not(part) => Explanation::new(mark, "not", vec![explain_cond(part, detector, view)]),
        Cond::Selection(i) => {
            let selection = &detector.selections[*i];
            let parts = match &selection.expr {
                Expr::All(parts) => parts.written.iter().map(|p| explain_expr::<Field, _>(p, view)).collect(),
                other => vec![explain_expr(other, view)],
            };
            Explanation::new(mark, format!("selection `{}`", selection.name), parts)
        }
    }
}

fn explain_expr<K, S: Source<K>>(expr: &Expr<K>, source: &S) -> Explanation {
    let mark: Mark = expr.judge(source).into();
    let all = |parts: &[Expr<K>]| parts.iter().map(|p| explain_expr(p, source)).collect();
    match expr {
        Expr::All(parts) => Explanation::new(mark, "all of", all(&parts.written)),
        Expr::Any(parts) => Explanation::new(mark, "one of", all(&parts.written)),
        Expr::Keywords { wanted, .. } => Explanation::new(mark, wanted.clone(), Vec::new()),
        Expr::Item(item) => explain_item(item, source),
    }
}

/// At most this many values or elements are shown.
const MAX_SHOWN: usize = 10;

fn explain_item<K, S: Source<K>>(item: &Item<K>, source: &S) -> Explanation {
    let mut out = Explanation::new(item.judge(source), item.wanted.clone(), Vec::new());
    match &item.test {
        Test::Element(expr) => match source.list(&item.key) {
            Elements::Absent => out.actual = Some("absent".into()),
            Elements::Unknown(why) => out.actual = Some(unknown(why)),
            Elements::Items(items) => {
                out.actual = Some(format!("{} elements", items.len()));
                let each = items.iter().enumerate().take(MAX_SHOWN).map(|(i, value)| {
                    let inner = explain_expr(expr, &Element(value));
                    Explanation::new(inner.mark, format!("element {}", i + 1), vec![inner])
                });
                out.parts = each.collect();
            }
        },
        Test::Same { others, .. } => {
            let values = std::iter::once(&item.key).chain(others).map(|k| show(&source.get(k)));
            out.actual = Some(values.collect::<Vec<_>>().join(" against "));
        }
        _ => out.actual = Some(show(&source.get(&item.key))),
    }
    out
}

fn unknown(why: Unknown) -> String {
    format!("unknown: {why}")
}

fn show(values: &Values<'_>) -> String {
    match values {
        Values::Absent => "absent".into(),
        Values::Unknown(why) => unknown(*why),
        Values::One(one) => format!("is {}", show_scalar(*one)),
        Values::Many(many) => {
            let mut shown: Vec<_> = many.iter().take(MAX_SHOWN).map(|s| show_scalar(*s)).collect();
            if many.len() > MAX_SHOWN {
                shown.push(format!("… {} more", many.len() - MAX_SHOWN));
            }
            format!("is [{}]", shown.join(", "))
        }
    }
}

fn show_scalar(scalar: Scalar<'_>) -> String {
    const MAX_TEXT: usize = 200;
    match scalar {
        Scalar::Null => "null".into(),
        Scalar::Str(s) => {
            let cut: String = s.chars().take(MAX_TEXT).flat_map(char::escape_debug).collect();
            let more = if s.chars().nth(MAX_TEXT).is_some() { "…" } else { "" };
            format!("\"{cut}{more}\"")
        }
        other => super::matcher::with_text(other, str::to_owned),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::fake::{Fake, compile};

    #[test]
    fn a_tree_with_what_was_wanted_and_what_was_there() {
        let text = "sel:\n  verb: [create, patch]\n  user.groups|contains: admin\n  workload.containers|any:\n    privileged: true\n    image|startswith: x/\nbody:\n  requestObject.a|exists: true\nother:\n  - verb: get\n  - secret\ncondition: sel and (body or other) and not other";
        let event = json!({
            "verb": "create",
            "user": {"groups": ["a", "system:\u{1b}admin"]},
            "workload": {"containers": [{"privileged": true, "image": "y/z"}, {"image": "x/y"}]},
            "requestObject": {"?": "level"},
        });
        let explanation = compile(text).unwrap().explain(&Fake::new(event)).to_string();
        let want = "\
✗ rule `r`: t
  ✗ detection: sel and (body or other) and not other
    ✗ selection `sel`
      ✓ verb = create | patch  (is \"create\")
      ✓ user.groups contains admin  (is [\"a\", \"system:\\u{1b}admin\"])
      ✗ workload.containers any …  (2 elements)
        ✗ element 1
          ✗ all of
            ✓ privileged = true  (is true)
            ✗ image startswith x/  (is \"y/z\")
        ✗ element 2
          ✗ all of
            ✗ privileged = true  (absent)
            ✓ image startswith x/  (is \"x/y\")
    ? one of
      ? selection `body`
        ? requestObject.a exists true  (unknown: the audit level is too low)
      ✗ selection `other`
        ✗ one of
          ✗ verb = get  (is \"create\")
          ✗ the event holds secret
    ✓ not
      ✗ selection `other`
        ✗ one of
          ✗ verb = get  (is \"create\")
          ✗ the event holds secret
";
        assert_eq!(explanation, want, "\n{explanation}");
    }
}
