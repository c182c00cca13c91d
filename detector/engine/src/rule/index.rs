//! Which rules could match an event at all, in time that hardly grows with the number of rules.
//!
//! For a few exact fields each rule has a set of values without one of which it cannot hold. For
//! every value of such a field there is a bit set of the rules that allow it; an event's candidates
//! are the AND of one bit set per field. A rule is only left out when a condition it needs is
//! definitely false, so an undecidable rule stays in.

use std::collections::BTreeSet;

use foldhash::HashMap;

use super::condition::Cond;
use super::expr::{Expr, Item, Test};
use super::{Detector, Rule};
use crate::event::Stage;
use crate::field::Field;

/// The fields the index looks at. Empty text: the event does not have it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Keys<'e> {
    pub action: &'e str,
    pub verb: &'e str,
    /// `target.resource`, which is also `objectRef.resource`.
    pub resource: &'e str,
    pub subresource: &'e str,
    pub outcome: &'e str,
    pub actor_kind: &'e str,
    pub stage: Stage,
}

/// The value of a key that cannot be read from the event: every rule stays a candidate.
pub const UNKNOWN: &str = "\u{0}?";

const DIMENSIONS: usize = 7;
const STAGE: usize = 6;

/// The dimension of a field.
fn dimension(field: &Field) -> Option<usize> {
    Some(match &*field.name() {
        "action" => 0,
        "verb" => 1,
        "target.resource" | "objectRef.resource" => 2,
        "target.subresource" | "objectRef.subresource" => 3,
        "outcome" => 4,
        "actor.kind" => 5,
        "stage" => STAGE,
        _ => return None,
    })
}

/// For each dimension the values one of which is needed, lower case; `None`: any.
type Needs = [Option<BTreeSet<String>>; DIMENSIONS];

/// The index over the rules of a set, by their position.
#[derive(Debug, Default)]
pub struct Index {
    rules: usize,
    dimensions: [Dimension; DIMENSIONS],
}

#[derive(Debug, Default)]
struct Dimension {
    by_value: HashMap<Box<str>, Box<[u64]>>,
    /// For values no rule names.
    others: Box<[u64]>,
}

impl Index {
    pub fn new(rules: &[Rule]) -> Self {
        let needs: Vec<Needs> = rules.iter().map(needs_of_rule).collect();
        let dimensions = std::array::from_fn(|d| Dimension::new(needs.iter().map(|n| n[d].as_ref())));
        Self { rules: rules.len(), dimensions }
    }

    /// Puts the positions of all rules that could match into `out`, in order, after clearing it.
    pub fn candidates(&self, keys: &Keys<'_>, out: &mut Vec<u32>) {
        out.clear();
        let texts = [
            keys.action,
            keys.verb,
            keys.resource,
            keys.subresource,
            keys.outcome,
            keys.actor_kind,
            keys.stage.as_str(),
        ];
        let sets: [Option<&[u64]>; DIMENSIONS] = std::array::from_fn(|d| self.dimensions[d].of(texts[d]));
        for word in 0..self.rules.div_ceil(64) {
            let mut bits = sets.iter().flatten().fold(u64::MAX, |bits, set| bits & set[word]);
            if word == self.rules / 64 {
                bits &= (1 << (self.rules % 64)) - 1;
            }
            while bits != 0 {
                let at = word * 64 + bits.trailing_zeros() as usize;
                out.extend(u32::try_from(at));
                bits &= bits - 1;
            }
        }
    }
}

impl Dimension {
    fn new<'n>(needs: impl Iterator<Item = Option<&'n BTreeSet<String>>> + Clone) -> Self {
        let words = needs.clone().count().div_ceil(64);
        let mut others = vec![0u64; words];
        for (i, need) in needs.clone().enumerate() {
            if need.is_none() {
                others[i / 64] |= 1 << (i % 64);
            }
        }
        let mut by_value: HashMap<Box<str>, Box<[u64]>> = HashMap::default();
        for (i, need) in needs.enumerate() {
            for value in need.into_iter().flatten() {
                let set = by_value.entry(value.as_str().into()).or_insert_with(|| others.clone().into());
                set[i / 64] |= 1 << (i % 64);
            }
        }
        Self { by_value, others: others.into() }
    }

    fn of(&self, value: &str) -> Option<&[u64]> {
        if value == UNKNOWN {
            return None;
        }
        let found = if value.bytes().any(|b| b.is_ascii_uppercase()) {
            self.by_value.get(value.to_ascii_lowercase().as_str())
        } else {
            self.by_value.get(value)
        };
        Some(found.unwrap_or(&self.others))
    }
}

fn needs_of_rule(rule: &Rule) -> Needs {
    let mut needs = needs_of_cond(&rule.detector.condition, &rule.detector);
    if !rule.names_stage {
        let ends = [Stage::ResponseStarted, Stage::ResponseComplete, Stage::Panic];
        needs[STAGE] = Some(ends.iter().map(|s| s.as_str().to_ascii_lowercase()).collect());
    }
    needs
}

fn needs_of_cond(cond: &Cond, detector: &Detector) -> Needs {
    match cond {
        Cond::And(parts) => all(parts.written.iter().map(|p| needs_of_cond(p, detector))),
        Cond::Or(parts) => any(parts.written.iter().map(|p| needs_of_cond(p, detector))),
        // At least one of the parts has to hold.
        Cond::AtLeast(_, parts) => any(parts.iter().map(|p| needs_of_cond(p, detector))),
        Cond::Not(_) => Needs::default(),
        Cond::Selection(i) => needs_of_expr(&detector.selections[*i].expr),
    }
}

fn needs_of_expr(expr: &Expr<Field>) -> Needs {
    match expr {
        Expr::All(parts) => all(parts.written.iter().map(needs_of_expr)),
        Expr::Any(parts) => any(parts.written.iter().map(needs_of_expr)),
        Expr::Item(item) => needs_of_item(item),
        Expr::Keywords { .. } => Needs::default(),
    }
}

fn needs_of_item(item: &Item<Field>) -> Needs {
    let mut needs = Needs::default();
    if let (Some(d), Test::One(matcher), false) = (dimension(&item.key), &item.test, item.negated)
        && let Some(texts) = matcher.exact_texts()
    {
        needs[d] = Some(texts.iter().map(|t| t.to_ascii_lowercase()).collect());
    }
    needs
}

/// AND: where two parts bind the same dimension, what both allow.
fn all(parts: impl Iterator<Item = Needs>) -> Needs {
    parts.fold(Needs::default(), |a, b| {
        combine(a, b, |a, b| match (a, b) {
            (Some(a), Some(b)) => Some(a.intersection(&b).cloned().collect()),
            (a, b) => a.or(b),
        })
    })
}

/// OR: bound only where every part binds.
fn any(parts: impl Iterator<Item = Needs>) -> Needs {
    let both = |a: Option<BTreeSet<String>>, b: Option<BTreeSet<String>>| Some(a?.union(&b?).cloned().collect());
    parts.reduce(|a, b| combine(a, b, both)).unwrap_or_default()
}

fn combine(
    mut a: Needs,
    mut b: Needs,
    f: impl Fn(Option<BTreeSet<String>>, Option<BTreeSet<String>>) -> Option<BTreeSet<String>>,
) -> Needs {
    std::array::from_fn(|d| f(a[d].take(), b[d].take()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::super::Judgement;
    use super::super::fake::{Fake, compile};
    use super::*;

    fn candidates(rules: &[Rule], keys: &Keys<'_>) -> Vec<u32> {
        let mut out = vec![99];
        Index::new(rules).candidates(keys, &mut out);
        out
    }

    fn rules(texts: &[&str]) -> Vec<Rule> {
        texts.iter().map(|t| compile(t).unwrap()).collect()
    }

    #[test]
    fn only_rules_that_could_match_are_candidates() {
        let rules = rules(&[
            "s:\n  verb: create\n  objectRef.resource: pods\ncondition: s",
            "s:\n  verb: [get, list]\ncondition: s",
            "s:\n  target.resource: Pods\ncondition: s",
            "s:\n  verb|startswith: cr\ncondition: s",
            "a:\n  verb: create\nb:\n  outcome: denied\ncondition: a or b",
            "a:\n  verb: create\ncondition: not a",
            "a:\n  verb: create\nb:\n  verb: [get, create]\ncondition: a and b",
            "a:\n  verb|neq: create\ncondition: a",
            "a:\n  verb: [create, null]\ncondition: a",
            "a:\n  - verb: get\n  - verb: list\n    outcome: denied\ncondition: a",
        ]);
        let keys = Keys { verb: "create", resource: "pods", ..Keys::default() };
        assert_eq!(candidates(&rules, &keys), [0, 2, 3, 4, 5, 6, 7, 8]);
        let keys = Keys { verb: "GET", resource: "nodes", ..Keys::default() };
        assert_eq!(candidates(&rules, &keys), [1, 3, 4, 5, 7, 8, 9]);
        let keys = Keys { verb: UNKNOWN, resource: "pods", ..Keys::default() };
        assert_eq!(candidates(&rules, &keys), [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
    }

    #[test]
    fn a_rule_without_stage_sees_what_ends_a_request() {
        let rules = rules(&[
            "s:\n  verb: get\ncondition: s",
            "s:\n  stage: RequestReceived\ncondition: s",
            "s:\n  stage|exists: true\ncondition: s",
        ]);
        let at = |stage| candidates(&rules, &Keys { verb: "get", stage, ..Keys::default() });
        assert_eq!(at(Stage::RequestReceived), [1, 2]);
        assert_eq!(at(Stage::ResponseStarted), [0, 2]);
        assert_eq!(at(Stage::ResponseComplete), [0, 2]);
        assert_eq!(at(Stage::Panic), [0, 2]);
    }

    #[test]
    fn words_of_the_bit_set_are_all_looked_at() {
        for n in [0, 1, 63, 64, 65, 128, 130] {
            let many: Vec<_> = (0..n).map(|_| compile("s:\n  verb: get\ncondition: s").unwrap()).collect();
            let found = candidates(&many, &Keys { verb: "get", ..Keys::default() });
            assert_eq!(found.len(), n);
            assert!(candidates(&many, &Keys { verb: "put", ..Keys::default() }).is_empty());
        }
    }

    fn item() -> impl Strategy<Value = String> {
        let field = prop::sample::select(vec![
            "verb",
            "action",
            "objectRef.resource",
            "target.resource",
            "objectRef.subresource",
            "outcome",
            "actor.kind",
            "stage",
            "user.username",
            "requestObject.a",
            "verb|neq",
            "verb|startswith",
            "action|cased",
            "outcome|contains",
        ]);
        let value = prop::sample::select(vec![
            "a",
            "B",
            "'*'",
            "[a, b]",
            "[B, c]",
            "''",
            "null",
            "a*",
            "[a, null]",
            "[a, 'b*']",
        ]);
        (field, value)
            .prop_filter("null has no parts", |(f, v)| {
                !(v.contains("null") && (f.contains("with") || f.contains("tains")))
            })
            .prop_map(|(f, v)| format!("{f}: {v}"))
    }

    fn selection() -> impl Strategy<Value = String> {
        let map = prop::collection::vec(item(), 1..4).prop_map(|mut items| {
            items.sort();
            items.dedup_by(|a, b| a.split(':').next() == b.split(':').next());
            format!("{{{}}}", items.join(", "))
        });
        prop::collection::vec(map, 1..3).prop_map(|maps| format!("[{}]", maps.join(", ")))
    }

    fn rule() -> impl Strategy<Value = String> {
        let condition = prop::sample::select(vec![
            "s0",
            "not s0",
            "s0 and s1",
            "s0 or s1",
            "s0 and not s1",
            "(s0 or s1) and s2",
            "1 of s*",
            "all of s*",
            "2 of s*",
            "not (s0 or s1)",
            "s0 and (s1 or not s2)",
            "s0 or (s1 and s2)",
        ]);
        (prop::collection::vec(selection(), 3), condition).prop_map(|(selections, condition)| {
            let lines: String = selections.iter().enumerate().map(|(i, s)| format!("s{i}: {s}\n")).collect();
            format!("{lines}condition: {condition}")
        })
    }

    fn event() -> impl Strategy<Value = Value> {
        let value = || prop::option::of(prop::sample::select(vec!["a", "b", "c", "A", "ab"]));
        let stage = prop::sample::select(vec!["RequestReceived", "ResponseStarted", "ResponseComplete", "Panic"]);
        let object = prop::sample::select(vec![json!({"?": "level"}), json!({"a": "a"}), json!({})]);
        (value(), value(), value(), value(), value(), value(), stage, object).prop_map(
            |(verb, action, resource, sub, outcome, kind, stage, object)| {
                let mut e = json!({"stage": stage, "requestObject": object, "user": {"username": "a"}});
                for (at, value) in [
                    ("/verb", verb),
                    ("/action", action),
                    ("/objectRef/resource", resource),
                    ("/target/resource", resource),
                    ("/objectRef/subresource", sub),
                    ("/outcome", outcome),
                    ("/actor/kind", kind),
                ] {
                    let Some(value) = value else { continue };
                    let mut node = &mut e;
                    for name in at[1..].split('/') {
                        node = &mut node[name];
                    }
                    *node = json!(value);
                }
                e
            },
        )
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(300))]
        #[test]
        fn the_index_hides_no_rule_that_would_speak(texts in prop::collection::vec(rule(), 1..8), events in prop::collection::vec(event(), 1..12)) {
            let rules: Vec<Rule> = texts.iter().map(|t| compile(t).unwrap_or_else(|p| panic!("{t}: {}", p[0]))).collect();
            let index = Index::new(&rules);
            let mut out = Vec::new();
            for event in events {
                let text = |p: &str| event.pointer(p).and_then(Value::as_str).unwrap_or_default().to_owned();
                let (action, verb, resource) = (text("/action"), text("/verb"), text("/objectRef/resource"));
                let (subresource, outcome, actor_kind) = (text("/objectRef/subresource"), text("/outcome"), text("/actor/kind"));
                let stage = Stage::parse(&text("/stage"));
                let keys = Keys { action: &action, verb: &verb, resource: &resource, subresource: &subresource, outcome: &outcome, actor_kind: &actor_kind, stage };
                index.candidates(&keys, &mut out);
                let view = Fake::new(event.clone());
                for (i, rule) in rules.iter().enumerate() {
                    let speaks = rule.sees(stage) && rule.judge(&view) != Judgement::NoMatch;
                    prop_assert!(!speaks || out.contains(&(i as u32)), "{} on {event}", texts[i]);
                }
            }
        }
    }
}
