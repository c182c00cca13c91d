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
use super::view::{Scalar, Values, View};
use super::{Detector, Rule};
use crate::event::Stage;
use crate::field::Field;

/// Fields with too many values for a bit set each; a rule that needs one of a few of them is pinned to those.
pub const PINS: [Field; 7] = [
    Field::UserName,
    Field::ActorName,
    Field::ActorServiceAccount,
    Field::RefNamespace,
    Field::TargetNamespace,
    Field::RefName,
    Field::TargetName,
];

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
    pub scope: &'e str,
    /// `client.family`
    pub client: &'e str,
    pub network: &'e str,
    /// What most events lack, as bits of [`carried`]. A bit that is not set is a promise.
    pub carried: u16,
}

/// What few events carry and whole families of rules need.
pub mod carried {
    /// Another identity is acted as.
    pub const IMPERSONATION: u16 = 1;
    pub const DRY_RUN: u16 = 1 << 1;
    pub const TRUNCATED: u16 = 1 << 2;
    pub const FAILED_OPEN: u16 = 1 << 3;
    /// The credential tells its pod.
    pub const POD_TOKEN: u16 = 1 << 4;
    /// An annotation besides the authorizer's decision and reason.
    pub const ANNOTATION: u16 = 1 << 5;
    /// A pod spec is written, or what is written cannot be known.
    pub const WORKLOAD: u16 = 1 << 6;
    /// A role or binding is written, or what is written cannot be known.
    pub const RBAC: u16 = 1 << 7;
    /// A status other than 200 and 201, or none.
    pub const CODE: u16 = 1 << 8;
    /// A group that not every cluster gives to everybody of a kind.
    pub const GROUP: u16 = 1 << 9;
    /// Neither the control plane nor a node nor a built-in controller acts, or it is not known who does.
    pub const OUTSIDER: u16 = 1 << 10;
    /// Something is remembered of the credential that is not its everyday use.
    pub const CREDENTIAL: u16 = 1 << 11;
    /// The binding that allowed the request was seen when it was written.
    pub const GRANT: u16 = 1 << 12;
    pub const COUNT: usize = 13;
}

/// Annotations every event has.
pub const COMMON_ANNOTATIONS: [&str; 2] = ["authorization.k8s.io/decision", "authorization.k8s.io/reason"];

/// Groups that every user, service account or control plane component is in.
pub fn is_common_group(group: &str) -> bool {
    matches!(
        group,
        "system:authenticated"
            | "system:masters"
            | "system:nodes"
            | "system:serviceaccounts"
            | "system:unauthenticated"
    ) || group.starts_with("system:serviceaccounts:")
}

/// The value of a key that cannot be read from the event: every rule stays a candidate.
pub const UNKNOWN: &str = "\u{0}?";

const DIMENSIONS: usize = 10;
const CHUNKS: usize = carried::COUNT.div_ceil(4);
const STAGE: usize = 6;

/// The dimension of a field; those of [`PINS`] come behind the ones with bit sets.
fn dimension(field: &Field) -> Option<usize> {
    Some(match field {
        Field::Action => 0,
        Field::Verb => 1,
        Field::TargetResource | Field::RefResource => 2,
        Field::TargetSubresource | Field::RefSubresource => 3,
        Field::Outcome => 4,
        Field::ActorKind => 5,
        Field::Stage => STAGE,
        Field::TargetScope => 7,
        Field::ClientFamily => 8,
        Field::ClientNetwork => 9,
        pinned => DIMENSIONS + PINS.iter().position(|p| p == pinned)?,
    })
}

/// What an event has to carry for this field to be there, or for this truth to be told.
fn carried_with(field: &Field) -> u16 {
    match field {
        Field::ActorAs | Field::ActorAsGroups => carried::IMPERSONATION,
        Field::ImpersonatedName | Field::ImpersonatedUid | Field::ImpersonatedGroups => carried::IMPERSONATION,
        Field::CredentialPod => carried::POD_TOKEN,
        Field::PsaViolations | Field::AnnotationKeys => carried::ANNOTATION,
        Field::Annotation(key) if !COMMON_ANNOTATIONS.contains(&key.as_str()) => carried::ANNOTATION,
        Field::RbacKind => 0,
        other if other.is_of_removed_binding() => 0,
        Field::RightGrantedBy | Field::RightGrantedAgo | Field::RightGrantedAfterDenial => carried::GRANT,
        other if other.is_of_credential() => carried::CREDENTIAL,
        Field::AdmissionRefusedAgo | Field::AdmissionRefusedIn => carried::WORKLOAD,
        other if other.name().starts_with("workload.") => carried::WORKLOAD,
        other if other.name().starts_with("rbac.") => carried::RBAC,
        _ => 0,
    }
}

fn carried_when_true(field: &Field) -> u16 {
    match field {
        Field::ActorImpersonating => carried::IMPERSONATION,
        Field::DryRun => carried::DRY_RUN,
        Field::EventTruncated => carried::TRUNCATED,
        Field::AdmissionFailedOpen => carried::FAILED_OPEN,
        _ => 0,
    }
}

/// What an event has to carry for this field to have one of these values.
fn carried_with_one_of(field: &Field, texts: &[Box<str>]) -> u16 {
    let all = |rare: fn(&str) -> bool| texts.iter().all(|t| rare(t));
    match field {
        Field::StatusCode if all(|t| t.parse().is_ok_and(|code: i64| !matches!(code, 200 | 201))) => carried::CODE,
        Field::ActorGroups | Field::UserGroups if all(|t| !is_common_group(t)) => carried::GROUP,
        Field::ActorClusterComponent if all(|t| t == "false") => carried::OUTSIDER,
        _ => 0,
    }
}

/// What an event needs for a rule to be able to hold.
#[derive(Default)]
struct Needs {
    /// For each dimension the values one of which is needed, lower case; `None`: any.
    texts: Texts,
    carried: u16,
}

type Texts = [Option<BTreeSet<String>>; DIMENSIONS + PINS.len()];

/// The index over the rules of a set, by their position.
#[derive(Debug, Default)]
pub struct Index {
    rules: usize,
    dimensions: [Dimension; DIMENSIONS],
    /// For every four bits of [`carried`] and every mask of them, the rules that can do without those.
    without: [[Box<[u64]>; 16]; CHUNKS],
    pinned: Pinned,
}

/// Detections by a value that they need in a field of [`PINS`]: of those each is pinned to the one that leaves the fewest.
#[derive(Debug, Default)]
pub struct Pinned {
    /// For each detection its position in [`PINS`], if it is pinned.
    fields: Vec<Option<usize>>,
    /// For each of [`PINS`] the detections by value, lower case.
    by_value: [HashMap<Box<str>, Vec<u32>>; PINS.len()],
}

impl Pinned {
    /// Adds the next detection.
    pub fn push(&mut self, detector: &Detector) {
        self.add(&needs_of_cond(&detector.condition, detector));
    }

    fn add(&mut self, needs: &Needs) {
        let (at, pin) = (self.fields.len() as u32, needs.pin());
        for value in pin.into_iter().flat_map(|(field, values)| values.iter().map(move |v| (field, v))) {
            self.by_value[value.0].entry(value.1.as_str().into()).or_default().push(at);
        }
        self.fields.push(pin.map(|(field, _)| field));
    }

    /// The field a detection is pinned by, as position in [`PINS`].
    pub fn field(&self, detection: u32) -> Option<usize> {
        self.fields.get(detection as usize).copied().flatten()
    }

    /// The detections pinned to the value that an event has in a field of [`PINS`], in order; `None`: it may have any.
    pub fn at(&self, field: usize, values: &Values<'_>) -> Option<&[u32]> {
        match values {
            Values::Absent => Some(&[]),
            Values::One(Scalar::Str(text)) => Some(of_text(&self.by_value[field], text).map_or(&[], Vec::as_slice)),
            _ => None,
        }
    }

    /// Detections that could hold for an event, by their position, in order.
    pub fn possible(&self, view: &impl View) -> impl Iterator<Item = usize> {
        let at = |pin: usize| {
            if self.by_value[pin].is_empty() { Some(&[][..]) } else { self.at(pin, &view.values(&PINS[pin])) }
        };
        let few: [Option<&[u32]>; PINS.len()] = std::array::from_fn(at);
        let possible = move |(detection, pin): &(u32, &Option<usize>)| {
            pin.and_then(|pin| few[pin]).is_none_or(|few| few.binary_search(detection).is_ok())
        };
        (0..).zip(&self.fields).filter(possible).map(|(detection, _)| detection as usize)
    }
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
        let dimensions = std::array::from_fn(|d| Dimension::new(needs.iter().map(|n| n.texts[d].as_ref())));
        let can_do_without = |chunk: usize, mask: usize| {
            let mask = (mask << (4 * chunk)) as u16;
            let mut set = vec![0u64; rules.len().div_ceil(64)];
            for (i, _) in needs.iter().enumerate().filter(|(_, n)| n.carried & mask == 0) {
                set[i / 64] |= 1 << (i % 64);
            }
            set.into()
        };
        let without = std::array::from_fn(|chunk| std::array::from_fn(|mask| can_do_without(chunk, mask)));
        let mut pinned = Pinned::default();
        needs.iter().for_each(|needs| pinned.add(needs));
        Self { rules: rules.len(), dimensions, without, pinned }
    }

    /// The rules by what they are pinned to. [`Index::candidates`] does not look at it.
    pub fn pinned(&self) -> &Pinned {
        &self.pinned
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
            keys.scope,
            keys.client,
            keys.network,
        ];
        let mut sets: [&[u64]; DIMENSIONS + CHUNKS] = [&[]; DIMENSIONS + CHUNKS];
        let mut count = 0;
        let by_text = texts.iter().zip(&self.dimensions).filter_map(|(text, d)| d.of(text));
        let missing = |chunk: usize| usize::from(!keys.carried >> (4 * chunk) & 15);
        for set in by_text.chain((0..CHUNKS).map(|chunk| &*self.without[chunk][missing(chunk)])) {
            sets[count] = set;
            count += 1;
        }
        for word in 0..self.rules.div_ceil(64) {
            let mut bits = sets[..count].iter().fold(u64::MAX, |bits, set| bits & set[word]);
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
        if value == UNKNOWN || self.by_value.is_empty() {
            return None;
        }
        Some(of_text(&self.by_value, value).unwrap_or(&self.others))
    }
}

fn of_text<'m, V>(map: &'m HashMap<Box<str>, V>, text: &str) -> Option<&'m V> {
    if text.bytes().any(|b| b.is_ascii_uppercase()) {
        map.get(text.to_ascii_lowercase().as_str())
    } else {
        map.get(text)
    }
}

impl Needs {
    /// The field of [`PINS`] that leaves the fewest values, and those.
    fn pin(&self) -> Option<(usize, &BTreeSet<String>)> {
        let pins = self.texts[DIMENSIONS..].iter().enumerate();
        pins.filter_map(|(field, texts)| Some((field, texts.as_ref()?))).min_by_key(|(_, texts)| texts.len())
    }
}

fn needs_of_rule(rule: &Rule) -> Needs {
    let mut needs = needs_of_cond(&rule.detector.condition, &rule.detector);
    if !rule.names_stage {
        let ends = [Stage::ResponseStarted, Stage::ResponseComplete, Stage::Panic];
        needs.texts[STAGE] = Some(ends.iter().map(|s| s.as_str().to_ascii_lowercase()).collect());
    }
    needs
}

fn needs_of_cond(cond: &Cond, detector: &Detector) -> Needs {
    match cond {
        Cond::And(parts) => all(parts.written.iter().map(|p| needs_of_cond(p, detector))),
        Cond::Or(parts) => any(parts.written.iter().map(|p| needs_of_cond(p, detector))),
        // At least one of the parts has to hold.
        Cond::AtLeast(_, parts) => any(parts.iter().map(|p| needs_of_cond(p, detector))),
        Cond::Not(part) => needs_without_cond(part, detector),
        Cond::Selection(i) => needs_of_expr(&detector.selections[*i].expr),
    }
}

/// What an event needs for a condition not to hold.
fn needs_without_cond(cond: &Cond, detector: &Detector) -> Needs {
    match cond {
        Cond::Or(parts) => all(parts.written.iter().map(|p| needs_without_cond(p, detector))),
        Cond::Selection(i) => match &detector.selections[*i].expr {
            Expr::Item(item) => needs_without_item(item),
            _ => Needs::default(),
        },
        Cond::Not(part) => needs_of_cond(part, detector),
        Cond::And(_) | Cond::AtLeast(..) => Needs::default(),
    }
}

fn needs_without_item(item: &Item<Field>) -> Needs {
    let mut needs = Needs::default();
    if !item.negated
        && item.key == Field::ActorClusterComponent
        && let Test::One(matcher) = &item.test
        && matches!(matcher.exact_texts(), Some([only]) if &**only == "true")
    {
        needs.carried = carried::OUTSIDER;
    }
    needs
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
    if item.negated {
        return needs;
    }
    // Whether the test is false on a field that is not there.
    let wants_it = match &item.test {
        Test::One(matcher) => !matcher.null,
        Test::Every(matchers) => matchers.iter().any(|m| !m.null),
        Test::Exists(wanted) => *wanted,
        Test::Element(_) => true,
        // The other field may be unknown.
        Test::Same { .. } => false,
    };
    if wants_it {
        needs.carried = carried_with(&item.key);
    }
    if let Test::One(matcher) = &item.test
        && let Some(texts) = matcher.exact_texts()
    {
        if let Some(d) = dimension(&item.key) {
            needs.texts[d] = Some(texts.iter().map(|t| t.to_ascii_lowercase()).collect());
        }
        if matches!(texts, [only] if &**only == "true") {
            needs.carried |= carried_when_true(&item.key);
        }
        needs.carried |= carried_with_one_of(&item.key, texts);
    }
    needs
}

/// AND: where two parts bind the same dimension, what both allow.
fn all(parts: impl Iterator<Item = Needs>) -> Needs {
    parts.fold(Needs::default(), |a, b| {
        let carried = a.carried | b.carried;
        let texts = combine(a, b, |a, b| match (a, b) {
            (Some(a), Some(b)) => Some(a.intersection(&b).cloned().collect()),
            (a, b) => a.or(b),
        });
        Needs { texts, carried }
    })
}

/// OR: bound only where every part binds.
fn any(parts: impl Iterator<Item = Needs>) -> Needs {
    let both = |a: Option<BTreeSet<String>>, b: Option<BTreeSet<String>>| Some(a?.union(&b?).cloned().collect());
    parts
        .reduce(|a, b| {
            let carried = a.carried & b.carried;
            Needs { texts: combine(a, b, both), carried }
        })
        .unwrap_or_default()
}

fn combine(
    mut a: Needs,
    mut b: Needs,
    f: impl Fn(Option<BTreeSet<String>>, Option<BTreeSet<String>>) -> Option<BTreeSet<String>>,
) -> Texts {
    std::array::from_fn(|d| f(a.texts[d].take(), b.texts[d].take()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::super::fake::{Fake, compile};
    use super::super::{Judgement, View};
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
            "actor.serviceaccount",
            "objectRef.name",
            "target.name",
            "objectRef.namespace",
            "requestObject.a",
            "verb|neq",
            "verb|startswith",
            "action|cased",
            "outcome|contains",
            "target.scope",
            "client.family",
            "client.network",
            "actor.impersonating",
            "actor.as",
            "actor.as|exists",
            "dryrun",
            "event.truncated",
            "admission.failed_open",
            "credential.pod",
            "annotations.x",
            "annotations.x|neq",
            "workload.kind",
            "workload.kind|exists",
            "workload.containers|contains",
            "rbac.powers",
            "rbac.powers|all",
            "rbac.kind",
            "responseStatus.code",
            "actor.groups",
            "actor.cluster_component",
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
            "true",
            "[true, a]",
            "false",
            "[200, 429]",
            "[403, 429]",
            "system:masters",
        ]);
        (field, value)
            .prop_filter("null has no parts, and existence is yes or no", |(f, v)| {
                !(v.contains("null") && (f.contains("with") || f.contains("tains") || f.contains("|all")))
                    && (!f.contains("exists") || matches!(*v, "true" | "false"))
                    && (!f.contains("|all") || v.starts_with('['))
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
            "s0 and not 1 of s*",
            "s0 and not (s1 or not s2)",
            "not not s0 and not s1",
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
        let truth = || prop::option::of(proptest::bool::ANY);
        let rare = prop::sample::select(vec![
            json!({}),
            json!({"workload": {"?": "level"}, "rbac": {"?": "level", "kind": "a"}}),
            json!({"workload": {"kind": "a", "containers": "ab"}, "annotations": {"x": "a"}}),
            json!({"rbac": {"powers": ["a", "b"], "kind": "b"}, "credential": {"pod": "a"}}),
            json!({"client": {"family": "A", "network": "b"}, "target": {"scope": "a"}}),
            json!({"responseStatus": {"code": 200}, "actor": {"groups": ["system:masters"], "cluster_component": true}}),
            json!({"objectRef": {"name": "a", "namespace": {"?": "level"}}, "target": {"name": "b"}}),
            json!({"objectRef": {"name": "B", "namespace": "c"}, "target": {"name": {"?": "level"}}, "user": {"username": ""}}),
            json!({"responseStatus": {"code": 403}, "actor": {"groups": ["a"], "cluster_component": false}}),
            json!({"actor": {"serviceaccount": "A"}}),
            json!({"actor": {"serviceaccount": {"?": "level"}}, "credential": {"pod": "b"}}),
            json!({"responseStatus": {"code": 429}, "actor": {"cluster_component": {"?": "level"}}}),
        ]);
        let truths = (truth(), truth(), truth(), truth(), value());
        (value(), value(), value(), value(), value(), value(), stage, object, rare, truths).prop_map(
            |(verb, action, resource, sub, outcome, kind, stage, object, rare, truths)| {
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
                let (as_other, dry_run, truncated, failed_open, other) = truths;
                for (at, name, value) in [
                    ("actor", "impersonating", json!(as_other)),
                    ("", "dryrun", json!(dry_run)),
                    ("event", "truncated", json!(truncated)),
                    ("admission", "failed_open", json!(failed_open)),
                    ("actor", "as", json!(other)),
                ] {
                    if !value.is_null() {
                        let node = if at.is_empty() { &mut e } else { &mut e[at] };
                        node[name] = value;
                    }
                }
                for (name, value) in rare.as_object().into_iter().flatten() {
                    for (inner, value) in value.as_object().into_iter().flatten() {
                        e[name][inner] = value.clone();
                    }
                }
                e
            },
        )
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(600))]
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
                let (scope, client, network) = (text("/target/scope"), text("/client/family"), text("/client/network"));
                let is = |p: &str| event.pointer(p) == Some(&Value::Bool(true));
                let there = |p: &str| event.pointer(p).is_some();
                let carried = [
                    (is("/actor/impersonating") || there("/actor/as"), carried::IMPERSONATION),
                    (is("/dryrun"), carried::DRY_RUN),
                    (is("/event/truncated"), carried::TRUNCATED),
                    (is("/admission/failed_open"), carried::FAILED_OPEN),
                    (there("/credential/pod"), carried::POD_TOKEN),
                    (there("/annotations/x"), carried::ANNOTATION),
                    (there("/workload"), carried::WORKLOAD),
                    (there("/rbac/powers") || there("/rbac/?"), carried::RBAC),
                    (!matches!(event.pointer("/responseStatus/code").and_then(Value::as_i64), Some(200 | 201)), carried::CODE),
                    (event["actor"]["groups"][0] == "a", carried::GROUP),
                    (!is("/actor/cluster_component"), carried::OUTSIDER),
                ];
                let carried = carried.iter().filter(|(held, _)| *held).fold(0, |bits, (_, bit)| bits | bit);
                let keys = Keys { action: &action, verb: &verb, resource: &resource, subresource: &subresource, outcome: &outcome, actor_kind: &actor_kind, stage, scope: &scope, client: &client, network: &network, carried };
                index.candidates(&keys, &mut out);
                let view = Fake::new(event.clone());
                for (i, rule) in rules.iter().enumerate() {
                    let speaks = rule.sees(stage) && rule.judge(&view) != Judgement::NoMatch;
                    prop_assert!(!speaks || out.contains(&(i as u32)), "{} on {event}", texts[i]);
                    let Some(pin) = index.pinned().field(i as u32) else { continue };
                    let kept = index.pinned().at(pin, &view.values(&PINS[pin])).is_none_or(|few| few.contains(&(i as u32)));
                    prop_assert!(!speaks || kept, "{} at {} on {event}", texts[i], PINS[pin].name());
                }
                let mut pinned = Pinned::default();
                rules.iter().for_each(|rule| pinned.push(&rule.detector));
                let possible: Vec<usize> = pinned.possible(&view).collect();
                for (i, rule) in rules.iter().enumerate().filter(|(i, _)| !possible.contains(i)) {
                    prop_assert!(rule.detector.judge(&view) == super::super::Tri::False, "{} on {event}", texts[i]);
                }
            }
        }
    }
}
