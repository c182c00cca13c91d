//! Inhibition: while a source alert is fresh, target alerts with the same values of some fields are not told.
//!
//! Deterministic: the times of the alerts decide, not the clock.

use std::collections::BTreeMap;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use lapwing_engine::alert::Alert;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Problems;
use super::matcher::{self, Field, Matcher};
use crate::config::HumanDuration;

/// Sources remembered for each rule; the one seen longest ago is forgotten.
const MAX_SOURCES: usize = 1000;

/// While an alert that fits `sourceMatchers` is fresh, alerts that fit `targetMatchers` are not told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
#[schemars(extend("required" = ["sourceMatchers", "targetMatchers"]))]
pub struct InhibitRule {
    /// Which alerts inhibit.
    pub source_matchers: Vec<String>,
    /// Which alerts are inhibited.
    pub target_matchers: Vec<String>,
    /// Fields whose values must be the same in both.
    pub equal: Vec<String>,
    /// How long after its last event a source inhibits.
    pub source_active_for: HumanDuration,
}

impl Default for InhibitRule {
    fn default() -> Self {
        Self {
            source_matchers: Vec::new(),
            target_matchers: Vec::new(),
            equal: Vec::new(),
            source_active_for: HumanDuration::from_secs(3600),
        }
    }
}

/// A checked [`InhibitRule`].
#[derive(Debug)]
pub struct Rule {
    source: Vec<Matcher>,
    target: Vec<Matcher>,
    equal: Vec<Field>,
    active: chrono::TimeDelta,
}

impl Rule {
    /// As in Alertmanager, what is source and target at once does not inhibit itself.
    pub fn is_target(&self, alert: &Alert) -> bool {
        matcher::all(&self.target, alert) && !matcher::all(&self.source, alert)
    }
}

/// What the rule at this place is called.
pub fn name(at: usize) -> String {
    format!("inhibitRules[{at}]")
}

/// Reads the rules; what is wrong goes to `problems`.
pub fn read(rules: &[InhibitRule], problems: &mut Problems) -> Vec<Rule> {
    let mut found = Vec::new();
    for (i, rule) in rules.iter().enumerate() {
        let path = name(i);
        let mut all = |key: &str, texts: &[String]| -> Vec<Matcher> {
            if texts.is_empty() {
                problems.push((format!("{path}.{key}"), "is empty; it would fit every alert".to_owned()));
            }
            let read = |(n, text): (usize, &String)| {
                Matcher::parse(text).map_err(|e| problems.push((format!("{path}.{key}[{n}]"), e.to_string()))).ok()
            };
            texts.iter().enumerate().filter_map(read).collect()
        };
        let (source, target) =
            (all("sourceMatchers", &rule.source_matchers), all("targetMatchers", &rule.target_matchers));
        let mut equal = Vec::new();
        for (n, name) in rule.equal.iter().enumerate() {
            match Field::parse(name) {
                Ok(field) => equal.push(field),
                Err(e) => problems.push((format!("{path}.equal[{n}]"), e.to_string())),
            }
        }
        let active = chrono::TimeDelta::from_std(rule.source_active_for.get()).unwrap_or(chrono::TimeDelta::MAX);
        found.push(Rule { source, target, equal, active });
    }
    found
}

/// Sources seen, by rule and the values of its `equal`; the time of their last event.
pub type Seen = BTreeMap<(usize, String), DateTime<Utc>>;

/// Which sources are fresh.
#[derive(Debug)]
pub struct Inhibitor {
    rules: Arc<Vec<Rule>>,
    seen: Seen,
}

impl Inhibitor {
    pub fn new(rules: Arc<Vec<Rule>>, mut seen: Seen) -> Self {
        seen.retain(|(rule, _), _| *rule < rules.len());
        Self { rules, seen }
    }

    pub fn seen(&self) -> &Seen {
        &self.seen
    }

    /// Remembers `alert` where it is a source; true when that changed anything.
    pub fn see(&mut self, alert: &Alert) -> bool {
        let mut changed = false;
        for (at, rule) in self.rules.iter().enumerate() {
            if !matcher::all(&rule.source, alert) {
                continue;
            }
            let last = self.seen.entry((at, values(rule, alert))).or_insert(alert.last);
            *last = alert.last.max(*last);
            changed = true;
            if self.seen.keys().filter(|(rule, _)| *rule == at).count() > MAX_SOURCES
                && let Some(oldest) = self.seen.iter().filter(|((r, _), _)| *r == at).min_by_key(|(_, t)| **t)
            {
                let key = oldest.0.clone();
                self.seen.remove(&key);
            }
        }
        changed
    }

    /// The rule (`inhibitRules[0]`) by which `alert` is not told.
    pub fn inhibited_by(&self, alert: &Alert) -> Option<String> {
        let hit = self.rules.iter().enumerate().find(|(at, rule)| {
            rule.is_target(alert)
                && self
                    .seen
                    .get(&(*at, values(rule, alert)))
                    .is_some_and(|last| last.checked_add_signed(rule.active).is_none_or(|until| alert.first <= until))
        });
        hit.map(|(at, _)| name(at))
    }
}

/// The values of a rule's `equal`, as one text.
fn values(rule: &Rule, alert: &Alert) -> String {
    let of = |field: &Field| field.values(alert).join("\u{1}");
    rule.equal.iter().map(of).collect::<Vec<_>>().join("\u{2}")
}

#[cfg(test)]
mod tests {
    use lapwing_engine::alert::Level;

    use super::*;
    use crate::output::sample;

    fn rules() -> Arc<Vec<Rule>> {
        let rule = InhibitRule {
            source_matchers: vec!["level=critical".into()],
            target_matchers: vec!["level=~\"high|critical\"".into()],
            equal: vec!["cluster".into(), "actor".into()],
            ..InhibitRule::default()
        };
        let mut problems = Problems::new();
        let rules = read(&[rule], &mut problems);
        assert_eq!(problems, []);
        Arc::new(rules)
    }

    #[test]
    fn a_fresh_source_with_equal_fields_inhibits() {
        let mut inhibitor = Inhibitor::new(rules(), Seen::new());
        let target = sample::alert();
        let mut source = Alert { level: Level::Critical, ..sample::alert() };
        assert_eq!(inhibitor.inhibited_by(&target), None);
        assert!(!inhibitor.see(&target) && inhibitor.see(&source));
        assert_eq!(inhibitor.inhibited_by(&target).as_deref(), Some("inhibitRules[0]"));
        assert_eq!(inhibitor.inhibited_by(&source), None, "not itself");
        let other = Alert { actor: "bob".into(), ..target.clone() };
        assert_eq!(inhibitor.inhibited_by(&other), None);
        let later = Alert { first: source.last + chrono::TimeDelta::seconds(3601), ..target };
        assert_eq!(inhibitor.inhibited_by(&later), None, "no longer fresh");
        let again = Inhibitor::new(rules(), inhibitor.seen().clone());
        assert!(again.inhibited_by(&sample::alert()).is_some(), "known after a restart");
        for n in 0..MAX_SOURCES + 10 {
            source.actor = n.to_string();
            source.last += chrono::TimeDelta::seconds(1);
            inhibitor.see(&source);
        }
        assert_eq!(inhibitor.seen.len(), MAX_SOURCES);
        assert_eq!(inhibitor.inhibited_by(&sample::alert()), None, "the oldest is forgotten");
    }

    #[test]
    fn empty_matchers_and_unknown_fields_are_problems() {
        let mut problems = Problems::new();
        read(&[InhibitRule { equal: vec!["nope".into()], ..InhibitRule::default() }], &mut problems);
        let paths: Vec<_> = problems.iter().map(|(path, _)| path.as_str()).collect();
        assert_eq!(
            paths,
            ["inhibitRules[0].sourceMatchers", "inhibitRules[0].targetMatchers", "inhibitRules[0].equal[0]"]
        );
    }
}
