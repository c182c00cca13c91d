//! `correlation:` as a person wrote it, checked for shape.

use super::file::Reader;
use super::problem::{Fault, Place};
use super::yaml::{Node, Value};

/// Keys below `correlation`.
pub(super) const CORRELATION_KEYS: [&str; 8] =
    ["type", "rules", "group-by", "timespan", "condition", "aliases", "generate", "level"];
/// The type that counts the tactics of findings and names no rules.
pub(super) const KILL_CHAIN: &str = "kill_chain";
/// How a count may be compared.
pub(super) const BOUNDS: [&str; 6] = ["gt", "gte", "lt", "lte", "eq", "neq"];

/// `correlation:` as written.
#[derive(Clone, Debug)]
pub struct CorrelationText {
    pub at: Place,
    pub kind: (String, Place),
    pub rules: Vec<(String, Place)>,
    pub group_by: Vec<(String, Place)>,
    pub timespan_micros: i64,
    /// `(operator, number)`, joined by AND.
    pub bounds: Vec<(String, i64, Place)>,
    /// `condition.field`
    pub fields: Vec<(String, Place)>,
    pub aliases: Vec<Alias>,
    pub generate: bool,
    /// The least level of the findings that a kill chain counts.
    pub level: Option<(String, Place)>,
    pub canonical: String,
}

/// One name for a field that is called differently in each rule.
#[derive(Clone, Debug)]
pub struct Alias {
    pub name: String,
    pub at: Place,
    pub fields: Vec<AliasField>,
}

/// What an alias means in one rule.
#[derive(Clone, Debug)]
pub struct AliasField {
    pub rule: String,
    pub at: Place,
    pub field: String,
    pub field_at: Place,
}

impl Reader<'_> {
    pub(super) fn correlation(&mut self, node: &Node, generate: Option<&Node>) -> Option<CorrelationText> {
        if !matches!(node.value, Value::Map(_)) {
            self.expected(node, "a map with `type`, `rules` and `timespan`");
            return None;
        }
        self.keys(node, &CORRELATION_KEYS, &[]);
        let kind = self.text(node, "type", 64);
        let rules = self.placed_texts(node, "rules");
        for (key, missing, needed) in [
            (
                "type",
                kind.is_none(),
                "one of event_count, value_count, temporal, temporal_ordered, kill_chain, new_value, rare_value, rate_anomaly",
            ),
            (
                "rules",
                rules.is_empty() && kind.as_deref() != Some(KILL_CHAIN),
                "the ids or names of the rules to correlate",
            ),
            ("timespan", node.get("timespan").is_none(), "a time such as `5m`"),
        ] {
            if missing {
                self.problems.error(node.at, Fault::Missing { key, needed });
            }
        }
        let kind_at = node.get("type").map_or(node.at, |n| n.at);
        let generate = node.get("generate").or(generate);
        let generate = match generate.map(|n| (n, &n.value)) {
            None => false,
            Some((_, Value::Bool(b))) => *b,
            Some((n, _)) => {
                self.expected(n, "true or false");
                false
            }
        };
        let (bounds, fields) = self.count_condition(node);
        let mut canonical = String::new();
        node.canonical(&mut canonical);
        Some(CorrelationText {
            at: node.at,
            kind: (kind.unwrap_or_default(), kind_at),
            rules,
            group_by: self.placed_texts(node, "group-by"),
            timespan_micros: node.get("timespan").and_then(|n| self.span(n, "timespan")).unwrap_or_default(),
            bounds,
            fields,
            aliases: self.aliases(node),
            generate,
            level: node.get("level").and_then(|n| Some((n.scalar_text()?, n.at))),
            canonical,
        })
    }

    #[expect(clippy::type_complexity, reason = "two lists of named things with places")]
    fn count_condition(&mut self, node: &Node) -> (Vec<(String, i64, Place)>, Vec<(String, Place)>) {
        let Some(condition) = node.get("condition") else { return Default::default() };
        let Value::Map(entries) = &condition.value else {
            self.expected(condition, "a map such as `gte: 10`");
            return Default::default();
        };
        let allowed: Vec<&str> = BOUNDS.into_iter().chain(["field"]).collect();
        self.keys(condition, &allowed, &[]);
        let mut bounds = Vec::new();
        for entry in entries.iter().filter(|e| e.key != "field") {
            match entry.value.value {
                Value::Int(n) if n >= 0 => bounds.push((entry.key.clone(), n, entry.value.at)),
                _ => self.expected(&entry.value, "a whole number from 0"),
            }
        }
        (bounds, self.placed_texts(condition, "field"))
    }

    fn aliases(&mut self, node: &Node) -> Vec<Alias> {
        let Some(aliases) = node.get("aliases") else { return Vec::new() };
        let Value::Map(entries) = &aliases.value else {
            self.expected(aliases, "a map of aliases");
            return Vec::new();
        };
        let mut out = Vec::new();
        for entry in entries {
            let Value::Map(per_rule) = &entry.value.value else {
                self.expected(&entry.value, "a map from rule to field");
                continue;
            };
            let mut fields = Vec::new();
            for e in per_rule {
                match e.value.scalar_text() {
                    Some(field) => {
                        let (rule, at, field_at) = (e.key.clone(), e.at, e.value.at);
                        fields.push(AliasField { rule, at, field, field_at });
                    }
                    None => self.expected(&e.value, "the name of a field"),
                }
            }
            out.push(Alias { name: entry.key.clone(), at: entry.at, fields });
        }
        out
    }
}
