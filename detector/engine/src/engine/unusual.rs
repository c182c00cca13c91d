//! What baselines say, as findings: rules with ids of their own, grouped and delivered like any.

use super::wiring::{counted, span};
use super::{Engine, Output, Telling};
use crate::alert::{AnomalyKind, Finding, RuleRef, Verdict};
use crate::baseline::habit::{Habits, Unusual};
use crate::baseline::{Spoken, Told, USUAL};
use crate::event::to_datetime;
use crate::group::Advice;
use crate::memory::Sight;
use crate::rule::correlation::Correlation;
use crate::words::cut;

/// A kind of anomaly as the rule it is reported under.
struct Built {
    id: &'static str,
    title: &'static str,
    why: &'static str,
    next_step: &'static str,
}

const SURPRISE: Built = Built {
    id: "anomaly-surprise",
    title: "Request unlike this identity",
    why: "The request is far likelier from somebody who holds this identity's credential than from the identity as it \
          has behaved so far. The reasons say what differs.",
    next_step: "ask the owner of {actor} whether the request from {address} was theirs; if not, revoke the credential",
};

const RISK: Built = Built {
    id: "anomaly-risk",
    title: "Evidence against one identity adds up",
    why: "No single request is proof, but unusual requests and findings of rules about this identity add up within a day.",
    next_step: "read the reasons in order, then list everything {actor} did within the last day",
};

const FLEET: Built = Built {
    id: "anomaly-fleet-change",
    title: "The same change at several identities",
    why: "A client version, a private network or a namespace is new at several identities within hours. An upgrade or \
          a rollout looks like this; it is told once, and weighs half in other alerts for a day.",
    next_step: "check that the change was planned",
};

/// Ids of the built-in rules that baselines speak under.
pub const ANOMALY_RULES: [&str; 3] = [SURPRISE.id, RISK.id, FLEET.id];

fn built(kind: AnomalyKind) -> &'static Built {
    match kind {
        AnomalyKind::Surprise => &SURPRISE,
        AnomalyKind::Risk => &RISK,
        AnomalyKind::Fleet => &FLEET,
    }
}

impl Engine {
    /// Lets the baselines learn from the event and reports what they find; `out.findings[found..]` is what rules said.
    pub(super) fn unusual(
        &mut self,
        sight: &Sight<'_, '_>,
        now: i64,
        position: &dyn Fn() -> String,
        found: usize,
        out: &mut Output,
    ) {
        let Some(baselines) = &mut self.baselines else { return };
        let matches = out.findings[found..].iter().filter(|f| f.verdict == Verdict::Match);
        let spoken: Vec<Spoken<'_>> = matches
            .map(|f| Spoken { rule: &f.rule.id, title: &f.rule.title, level: f.rule.level, tags: &f.rule.tags })
            .collect();
        let unusual = baselines.observe(sight.facts, now, &spoken);
        if unusual.is_empty() {
            return;
        }
        let telling = Telling::new(sight, position);
        for told in unusual {
            self.tell_unusual(told, &telling, now, out);
        }
    }

    fn tell_unusual(&mut self, told: Told, telling: &Telling<'_, '_, '_>, now: i64, out: &mut Output) {
        let Built { id, title, why, next_step } = *built(told.anomaly.kind);
        let rule = RuleRef { id: id.to_owned(), title: title.to_owned(), level: told.level, tags: tags(&told) };
        let mut finding = self.finding(rule, &[telling.request()], telling.sight.facts, telling.told(), None);
        let others = told.audit_ids.into_iter().filter(|id| *id != finding.audit_ids[0]);
        let mut audit_ids: Vec<String> = others.collect();
        audit_ids.append(&mut finding.audit_ids);
        let finding = Finding {
            summary: summary(&finding.summary, &told.anomaly),
            audit_ids,
            anomaly: Some(Box::new(told.anomaly)),
            ..finding
        };
        let steps = [next_step.to_owned()];
        let index = self.anomaly_index(id);
        self.report(index, finding, &Advice { why, next_steps: &steps, ..Advice::default() }, now, out);
    }

    /// Number under which [`super::Counts`] has a built-in rule: behind rules and correlations.
    fn anomaly_index(&self, id: &str) -> u32 {
        let at = ANOMALY_RULES.iter().position(|rule| *rule == id).unwrap_or_default();
        (self.rules.rules().len() + self.rules.correlations().len() + at) as u32
    }
}

fn tags(told: &Told) -> Vec<String> {
    let tactics = told.anomaly.tactics.iter().map(|t| format!("attack.{t}"));
    tactics.collect()
}

/// What happened, and the heaviest reasons; what is usual instead is left to the reasons themselves.
fn summary(deed: &str, anomaly: &crate::alert::Anomaly) -> String {
    let reasons: Vec<&str> = anomaly.reasons.iter().take(3).filter_map(|r| r.text.split(USUAL).next()).collect();
    let reasons = reasons.join(". ");
    match anomaly.kind {
        AnomalyKind::Surprise => format!("{deed}. Unusual by {} bits: {reasons}", anomaly.surprise_bits),
        AnomalyKind::Risk => format!("{} bits of risk within a day: {reasons}. The last: {deed}", anomaly.risk_bits),
        AnomalyKind::Fleet => format!("{reasons}. The last: {deed}"),
    }
}

/// Whether a hit is unlike its group, in words.
pub(super) fn of_group(
    habits: &mut Habits,
    correlation: &Correlation,
    slot: u32,
    sight: &Sight<'_, '_>,
    group_key: &str,
    now: i64,
) -> Option<String> {
    let mut value = String::new();
    if !counted(correlation, slot, sight, ", ", &mut value) {
        return None;
    }
    let value = (!correlation.counted.is_empty()).then_some(value.as_str());
    let unusual = habits.add(group_key, value, now)?;
    let fields: Vec<&str> = correlation.counted.iter().map(|key| key.name.as_str()).collect();
    let (fields, within) = (fields.join(", "), span(correlation.timespan_micros));
    Some(match unusual {
        Unusual::New { value, since } => {
            let since = to_datetime(since).format("%Y-%m-%d");
            format!("{fields} `{}` was not seen here within {within}, known since {since}", cut(&value))
        }
        Unusual::Rare { value, holders, groups } => {
            format!("{fields} `{}` was seen at {holders} of {groups} within {within}", cut(&value))
        }
        Unusual::Rate { count, usual } if fields.is_empty() => {
            format!("{count} requests within {within}, usual are {usual:.1}")
        }
        Unusual::Rate { count, usual } => format!("{count} different {fields} within {within}, usual are {usual:.1}"),
    })
}
