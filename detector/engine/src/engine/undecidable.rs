//! What the engine says about what it cannot know.

use super::{Engine, Output, Telling, advice, rule_ref};
use crate::alert::{Level, RuleRef, Verdict};
use crate::field::Field;
use crate::group;
use crate::rule::view::Unknown;

/// Marks a rule in [`super::fired::Fired`] as having said that it cannot decide.
pub(super) const UNDECIDABLE: u32 = 1 << 31;
/// How often it is told that the audit policy hides the bodies of a resource: once a day and cluster.
const BLIND_AGAIN: i64 = 24 * 3_600_000_000;

/// A rule that could not decide, why, and on which field it hangs.
pub(super) type Undecided = (u32, Unknown, Field);

impl Engine {
    /// Reports what could not be decided about a write that went through: one finding for the gravest rule
    /// where the body is hidden; where the audit policy never shows it, one a day for each cluster and resource.
    pub(super) fn undecidable(
        &mut self,
        undecided: &[Undecided],
        telling: &Telling<'_, '_, '_>,
        now: i64,
        out: &mut Output,
    ) {
        let facts = telling.sight.facts;
        if undecided.is_empty() || facts.action_type != "write" || facts.outcome != "allowed" {
            return;
        }
        let hidden = |(_, why, _): &&Undecided| matches!(why, Unknown::Truncated | Unknown::Unreadable);
        if let Some(gravest) = self.gravest(undecided.iter().filter(hidden)) {
            self.tell_undecidable(gravest, undecided.len(), telling, now, out);
            return;
        }
        let blind = |(_, why, _): &&Undecided| *why == Unknown::LevelTooLow;
        let Some(gravest) = self.gravest(undecided.iter().filter(blind)) else { return };
        let key = (facts.resource.to_owned(), facts.cluster.to_owned());
        let again = self.blind.entry(key).or_insert(i64::MIN);
        if *again <= now {
            *again = now.saturating_add(BLIND_AGAIN);
            self.tell_undecidable(gravest, undecided.len(), telling, now, out);
        }
    }

    fn gravest<'u>(&self, among: impl Iterator<Item = &'u Undecided>) -> Option<&'u Undecided> {
        let level = |i: u32| self.rules.rules()[i as usize].meta.level;
        among.filter(|(i, ..)| self.wiring.speaks[*i as usize]).max_by_key(|(i, ..)| (level(*i), std::cmp::Reverse(*i)))
    }

    fn tell_undecidable(
        &mut self,
        (index, why, field): &Undecided,
        all: usize,
        telling: &Telling<'_, '_, '_>,
        now: i64,
        out: &mut Output,
    ) {
        let request = telling.request();
        if !self.fired.first((index | UNDECIDABLE, request)) {
            return;
        }
        let rules = std::sync::Arc::clone(&self.rules);
        let rule = &rules.rules()[*index as usize];
        let level = match why {
            Unknown::LevelTooLow => Level::Informational,
            _ => rule.meta.level.min(group::UNDECIDABLE_LEVEL),
        };
        let named = RuleRef { level, ..rule_ref(&rule.meta) };
        let mut finding = self.finding(named, &[request], telling.sight.facts, telling.told(), None);
        let others = if all > 1 { format!("; {} more rules cannot decide either", all - 1) } else { String::new() };
        finding.verdict = Verdict::Undecidable;
        finding.reason = format!("`{}` is not known: {}{others}", field.name(), why.as_str());
        finding.id = group::id(&["undecidable", &finding.id]);
        self.report(*index, finding, &advice(&rule.meta), now, out);
    }
}
