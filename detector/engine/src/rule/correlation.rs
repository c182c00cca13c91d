//! Correlations as defined: which rules, grouped by what, over which time, with which count.
//!
//! Only the definition, with every reference resolved. The windows that run it are elsewhere.

use std::path::PathBuf;

use super::correlation_text::KILL_CHAIN;
use super::detection::read_field;
use super::file::{AliasField, CorrelationText, Meta};
use super::problem::{Fault, Hint, Place, Problems};
use crate::alert::Level;
use crate::field::Field;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CorrelationKind {
    EventCount,
    ValueCount,
    Temporal,
    TemporalOrdered,
    /// Findings of an identity, whatever rules made them, over distinct ATT&CK tactics.
    KillChain,
    /// Lapwing's own: a value the group has not shown within the timespan.
    NewValue,
    /// Lapwing's own: a value few groups have shown.
    RareValue,
    /// Lapwing's own: far more within the timespan than usual.
    RateAnomaly,
}

impl CorrelationKind {
    pub const ALL: [Self; 8] = [
        Self::EventCount,
        Self::ValueCount,
        Self::Temporal,
        Self::TemporalOrdered,
        Self::KillChain,
        Self::NewValue,
        Self::RareValue,
        Self::RateAnomaly,
    ];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::EventCount => "event_count",
            Self::ValueCount => "value_count",
            Self::Temporal => "temporal",
            Self::TemporalOrdered => "temporal_ordered",
            Self::KillChain => KILL_CHAIN,
            Self::NewValue => "new_value",
            Self::RareValue => "rare_value",
            Self::RateAnomaly => "rate_anomaly",
        }
    }
}

/// What a correlation is about: a rule or another correlation, by its index in the set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Part {
    Rule(usize),
    Correlation(usize),
}

/// A thing events are grouped by, and the field that carries it for each of `parts`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupKey {
    /// The alias, or the field's own name.
    pub name: String,
    /// In the order of `parts`.
    pub fields: Vec<Field>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bound {
    Greater,
    GreaterOrEqual,
    Less,
    LessOrEqual,
    Equal,
    NotEqual,
}

impl Bound {
    pub const fn holds(self, count: u64, wanted: u64) -> bool {
        match self {
            Self::Greater => count > wanted,
            Self::GreaterOrEqual => count >= wanted,
            Self::Less => count < wanted,
            Self::LessOrEqual => count <= wanted,
            Self::Equal => count == wanted,
            Self::NotEqual => count != wanted,
        }
    }

    fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "gt" => Self::Greater,
            "gte" => Self::GreaterOrEqual,
            "lt" => Self::Less,
            "lte" => Self::LessOrEqual,
            "eq" => Self::Equal,
            "neq" => Self::NotEqual,
            _ => return None,
        })
    }
}

/// A correlation that can run.
#[derive(Clone, Debug)]
pub struct Correlation {
    pub meta: Meta,
    pub path: PathBuf,
    pub hash: String,
    pub kind: CorrelationKind,
    /// In the order written; it matters for `temporal_ordered`.
    pub parts: Vec<Part>,
    pub group_by: Vec<GroupKey>,
    pub timespan_micros: i64,
    /// All of them have to hold. Empty for a temporal correlation: all parts have to occur.
    pub bounds: Vec<(Bound, u64)>,
    /// What `value_count` counts: distinct tuples of these, resolved like group keys.
    pub counted: Vec<GroupKey>,
    /// Whether the rules it refers to speak for themselves as well.
    pub generate: bool,
    /// The least level of the findings that a kill chain counts.
    pub least: Level,
}

impl Correlation {
    pub fn count_holds(&self, count: u64) -> bool {
        self.bounds.iter().all(|(bound, wanted)| bound.holds(count, *wanted))
    }
}

/// What a reference in `rules` can mean.
pub struct Named<'s> {
    pub part: Part,
    pub meta: &'s Meta,
}

/// Resolves a correlation; `None` when it has errors, which are then told.
pub fn resolve(
    text: &CorrelationText,
    meta: &Meta,
    path: PathBuf,
    known: &[Named<'_>],
    filters: &[&Meta],
    problems: &mut Problems,
) -> Option<Correlation> {
    problems.rule = Some(meta.label().to_owned());
    let before = problems.errors();
    let kind = kind(text, problems);
    let parts = parts(text, known, filters, problems);
    let metas: Vec<&Meta> = parts.iter().filter_map(|p| known.iter().find(|k| k.part == *p)).map(|k| k.meta).collect();
    check_aliases(text, &metas, problems);
    let group_by = keys(&text.group_by, text, &metas, problems);
    let counted = keys(&text.fields, text, &metas, problems);
    let bounds = bounds(text, problems);
    if let Some(kind) = kind {
        check_needs(kind, text, problems);
    }
    let least = least(text, kind, problems);
    let good = problems.errors() == before;
    problems.rule = None;
    let kind = kind.filter(|_| good)?;
    let hash = blake3::hash(text.canonical.as_bytes()).to_hex().to_string();
    let (meta, timespan_micros, generate) = (meta.clone(), text.timespan_micros, text.generate);
    Some(Correlation { meta, path, hash, kind, parts, group_by, timespan_micros, bounds, counted, generate, least })
}

fn kind(text: &CorrelationText, problems: &mut Problems) -> Option<CorrelationKind> {
    let (name, at) = &text.kind;
    let kind = CorrelationKind::ALL.into_iter().find(|k| k.as_str() == name);
    if kind.is_none() {
        problems.error(*at, Fault::UnsupportedCorrelation(name.clone()));
    }
    kind
}

fn parts(text: &CorrelationText, known: &[Named<'_>], filters: &[&Meta], problems: &mut Problems) -> Vec<Part> {
    let mut parts = Vec::new();
    for (reference, at) in &text.rules {
        match known.iter().find(|k| k.meta.is(reference)) {
            Some(k) if parts.contains(&k.part) && text.kind.0 != CorrelationKind::TemporalOrdered.as_str() => {
                let first = "another line of `rules`".to_owned();
                problems.error(*at, Fault::Duplicate { what: "reference", name: reference.clone(), first });
            }
            Some(k) => parts.push(k.part),
            None if filters.iter().any(|m| m.is(reference)) => {
                problems.error(*at, Fault::RefersToFilter(reference.clone()));
            }
            None => problems.error(*at, unknown_rule(reference, known.iter().map(|k| k.meta))),
        }
    }
    parts
}

/// A reference to nothing, with the nearest name.
pub fn unknown_rule<'s>(reference: &str, known: impl Iterator<Item = &'s Meta>) -> Fault {
    let names = known.flat_map(|m| m.name.as_deref().into_iter().chain([m.id.as_str()]));
    Fault::UnknownRule { name: reference.to_owned(), hint: Hint::nearest(reference, names) }
}

fn check_aliases(text: &CorrelationText, metas: &[&Meta], problems: &mut Problems) {
    for alias in &text.aliases {
        for AliasField { rule, at, .. } in &alias.fields {
            if !metas.iter().any(|m| m.is(rule)) {
                let hint = Hint::nearest(rule, metas.iter().map(|m| m.label()));
                problems.error(*at, Fault::AliasOfOther { alias: alias.name.clone(), rule: rule.clone(), hint });
            }
        }
    }
}

fn keys(names: &[(String, Place)], text: &CorrelationText, metas: &[&Meta], problems: &mut Problems) -> Vec<GroupKey> {
    let mut out = Vec::new();
    for (name, at) in names {
        let fields: Option<Vec<Field>> = match text.aliases.iter().find(|a| a.name == *name) {
            None => read(name, *at, text, problems).map(|field| vec![field; metas.len().max(1)]),
            Some(alias) => metas
                .iter()
                .map(|meta| match alias.fields.iter().find(|f| meta.is(&f.rule)) {
                    Some(f) => read(&f.field, f.field_at, text, problems),
                    None => {
                        let (name, rule) = (alias.name.clone(), meta.label().to_owned());
                        problems.error(alias.at, Fault::AliasIncomplete { alias: name, rule });
                        None
                    }
                })
                .collect(),
        };
        out.extend(fields.map(|fields| GroupKey { name: name.clone(), fields }));
    }
    out
}

fn read(name: &str, at: Place, text: &CorrelationText, problems: &mut Problems) -> Option<Field> {
    match read_field(name) {
        Ok(field) => Some(field),
        Err(Fault::UnknownField { name, hint: Hint(None) }) => {
            let hint = Hint::nearest(&name, text.aliases.iter().map(|a| a.name.as_str()));
            problems.error(at, Fault::UnknownField { name, hint });
            None
        }
        Err(fault) => {
            problems.error(at, fault);
            None
        }
    }
}

fn bounds(text: &CorrelationText, problems: &mut Problems) -> Vec<(Bound, u64)> {
    let read = |(op, n, _): &(String, i64, Place)| Some((Bound::parse(op)?, u64::try_from(*n).ok()?));
    let bounds: Vec<_> = text.bounds.iter().filter_map(read).collect();
    // A group exists only once something was counted; every bound changes its answer next to its
    // own number at the latest, so those numbers are the ones to try.
    let tries = bounds.iter().flat_map(|(_, n)| [n.saturating_sub(1), *n, n.saturating_add(1)]).chain([1]);
    let possible = tries.filter(|n| *n > 0).any(|n| bounds.iter().all(|(b, w)| b.holds(n, *w)));
    if !possible && let Some((op, n, at)) = text.bounds.last() {
        problems.error(*at, Fault::ImpossibleCount(format!("{op}: {n}")));
    }
    bounds
}

/// Findings of no level below low are stages: an informational one is made to be counted, not to be told.
fn least(text: &CorrelationText, kind: Option<CorrelationKind>, problems: &mut Problems) -> Level {
    let Some((name, at)) = text.level.as_ref().filter(|_| kind == Some(CorrelationKind::KillChain)) else {
        return Level::Low;
    };
    let allowed = [Level::Low, Level::Medium, Level::High, Level::Critical];
    allowed.into_iter().find(|l| l.as_str() == name).unwrap_or_else(|| {
        let hint = Hint::nearest(name, allowed.map(Level::as_str));
        let allowed = "low, medium, high, critical";
        problems.error(*at, Fault::NotOneOf { key: "level", value: name.clone(), allowed, hint });
        Level::Low
    })
}

fn check_needs(kind: CorrelationKind, text: &CorrelationText, problems: &mut Problems) {
    use CorrelationKind as K;
    let chain = kind == K::KillChain;
    let counts = chain || matches!(kind, K::EventCount | K::ValueCount);
    let values = matches!(kind, K::ValueCount | K::NewValue | K::RareValue);
    let temporal = matches!(kind, K::Temporal | K::TemporalOrdered);
    let bounds: Vec<&str> = text.bounds.iter().map(|(op, ..)| op.as_str()).collect();
    let needs = [
        (counts && text.bounds.is_empty(), "a `condition` with a count, as in `gte: 10`"),
        (
            counts
                && !text.bounds.is_empty()
                && !text.bounds.iter().any(|(op, ..)| matches!(op.as_str(), "gt" | "gte" | "eq")),
            "a lower bound (`gt`, `gte` or `eq`): in a stream an upper bound alone holds from the first event on",
        ),
        (values && text.fields.is_empty(), "`condition.field`: the field whose values are counted"),
        (
            !values && kind != K::RateAnomaly && !text.fields.is_empty(),
            "no `condition.field`; only value_count, new_value, rare_value and rate_anomaly look at values",
        ),
        (temporal && text.rules.len() < 2, "at least two `rules`"),
        (chain && !text.rules.is_empty(), "no `rules`: the findings of all rules count"),
        (!chain && text.level.is_some(), "no `level`; only kill_chain looks at the level of findings"),
        (kind == K::NewValue && !bounds.is_empty(), "no count: a value is new or it is not"),
        (kind == K::RareValue && bounds != ["lte"], "`lte`: how many groups may show a value that is still rare"),
        (kind == K::RateAnomaly && bounds != ["gte"], "`gte`: how much is worth telling at least, as in `gte: 10`"),
    ];
    for (_, needs) in needs.into_iter().filter(|(missing, _)| *missing) {
        problems.error(text.at, Fault::CorrelationNeeds { kind: kind.as_str(), needs });
    }
}

/// A circle of correlations that refer to each other, by their labels; `None` when there is none.
pub fn circle(correlations: &[Correlation]) -> Option<Vec<usize>> {
    // 0: not seen, 1: on the way, 2: done.
    fn visit(i: usize, all: &[Correlation], state: &mut [u8], way: &mut Vec<usize>) -> bool {
        match state[i] {
            2 => return false,
            1 => {
                way.push(i);
                return true;
            }
            _ => {}
        }
        state[i] = 1;
        way.push(i);
        for part in &all[i].parts {
            if let Part::Correlation(next) = part
                && visit(*next, all, state, way)
            {
                return true;
            }
        }
        way.pop();
        state[i] = 2;
        false
    }
    let mut state = vec![0; correlations.len()];
    let mut way = Vec::new();
    let found = (0..correlations.len()).any(|i| visit(i, correlations, &mut state, &mut way));
    let last = way.last().copied().filter(|_| found)?;
    let start = way.iter().position(|i| *i == last)?;
    Some(way.split_off(start))
}
