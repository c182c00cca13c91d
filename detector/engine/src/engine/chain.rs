//! Kill chains: findings of one identity over distinct ATT&CK tactics, whatever rules made them.

use std::sync::Arc;

use super::wiring::{History, group_key, hit_of};
use super::{Engine, Output, Telling};
use crate::alert::{Finding, Level, Verdict};
use crate::words;

/// The tactics of ATT&CK for enterprises, in the order of an attack.
const TACTICS: [&str; 14] = [
    "reconnaissance",
    "resource-development",
    "initial-access",
    "execution",
    "persistence",
    "privilege-escalation",
    "defense-evasion",
    "credential-access",
    "discovery",
    "lateral-movement",
    "collection",
    "command-and-control",
    "exfiltration",
    "impact",
];

/// The first tactic among the tags: what the rule is filed under.
fn tactic(finding: &Finding) -> Option<&'static str> {
    let tags = finding.rule.tags.iter().filter_map(|t| t.strip_prefix("attack."));
    tags.filter_map(|tag| TACTICS.into_iter().find(|t| *t == tag)).next()
}

impl Engine {
    /// Feeds the findings of one event, those of `out` from `before` on. One request is one stage,
    /// however many rules spoke: the tactic of the gravest finding.
    pub(super) fn chains(&mut self, before: usize, telling: &Telling<'_, '_, '_>, now: i64, out: &mut Output) {
        if out.findings.len() == before {
            return;
        }
        let rules = Arc::clone(&self.rules);
        for at in 0..self.wiring.chains.len() {
            let which = self.wiring.chains[at];
            let chain = &rules.correlations()[which as usize];
            let Some(stage) = stage(&out.findings[before..], chain.least) else { continue };
            let mut key = String::new();
            group_key(chain, 0, telling.sight, &mut key);
            let request = telling.request();
            let Some(mut hit) = hit_of(chain, 0, telling.sight, request) else { continue };
            let Some(tactic) = tactic(stage) else { continue };
            hit.value = Some(tactic.to_owned());
            let mut evidence = telling.told().evidence.clone();
            evidence.details.insert(0, format!("stage: {tactic}, {}", words::cut(&stage.rule.title)));
            hit.evidence = Some(Box::new(evidence));
            let History::Windows(windows) = &mut self.histories[which as usize] else { continue };
            let Some(hits) = windows.add(&key, hit) else { continue };
            let stages: Vec<&str> = hits.iter().filter_map(|h| h.value.as_deref()).collect();
            let what = format!("{} stages of an attack ({})", stages.len(), stages.join(", "));
            self.correlated(which, hits, &what, telling, now, out);
            self.correlate(rules.rules().len() as u32 + which, telling, now, out);
        }
    }
}

fn stage(findings: &[Finding], least: Level) -> Option<&Finding> {
    let counts = |f: &&Finding| f.verdict == Verdict::Match && f.rule.level >= least && tactic(f).is_some();
    // Of equals the first.
    findings.iter().rev().filter(counts).max_by_key(|f| f.rule.level)
}
