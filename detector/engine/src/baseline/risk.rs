//! Risk of one principal: evidence adds up, fades with a half-life of a day, and counts once a day.
//!
//! A one-sided sum (CUSUM) of the bits of the event scores, less what this principal's novelty is worth on an
//! ordinary day; steps of an attack that follow each other weigh more. Findings of rules add fixed bits.

use serde::{Deserialize, Serialize};

use super::Dimension;
use super::principal::allocated;
use super::prior::Tactic;
use crate::alert::Level;

const HALF_LIFE_SECONDS: f32 = 24.0 * 3600.0;
const DAY: i64 = 24 * 3_600_000_000;
/// How long a step of an attack is remembered.
const TACTICS_SPAN: i64 = 3 * DAY;
/// Evidence remembered per principal, to count it once and to tell it.
const MAX_CREDITS: usize = 48;
/// Bits every observation pays before it can add risk.
const KAPPA: f32 = 1.0;

/// Evidence that was counted within the last day.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Credit {
    pub dimension: Dimension,
    pub context: Box<str>,
    pub value: Box<str>,
    /// Engine time, microseconds.
    pub at: i64,
    pub bits: f32,
    pub audit_id: Box<str>,
    /// What the reader is told of it.
    pub text: Box<str>,
}

/// What is left of the risk, at most, when an incident closes after a day: it has been told. Three bits below the
/// lowest threshold, so that a new incident needs evidence of its own.
const LEFT_OVER: f32 = 4.0;

/// What was told of a principal and may be told again only when it grows.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
struct Incident {
    opened: i64,
    bits: f32,
    tactics: u32,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(from = "Stored", into = "Stored")]
pub struct Risk {
    pub bits: f32,
    /// Usual novelty of this principal, bits per observation.
    level: f32,
    at: i64,
    samples: u32,
    /// Most principals have none.
    case: Option<Box<Case>>,
}

/// What speaks against a principal.
#[derive(Clone, Debug, Default, PartialEq)]
struct Case {
    credits: Vec<Credit>,
    /// When each tactic was last seen, microseconds; 0: never.
    tactics: [i64; Tactic::ALL.len()],
    incident: Option<Incident>,
}

/// [`Risk`] as data.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Stored {
    bits: f32,
    at: i64,
    level: f32,
    samples: u32,
    #[serde(default)]
    credits: Vec<Credit>,
    tactics: [i64; Tactic::ALL.len()],
    incident: Option<Incident>,
}

impl From<Risk> for Stored {
    fn from(risk: Risk) -> Self {
        let Case { credits, tactics, incident } = risk.case.map(|c| *c).unwrap_or_default();
        Self { bits: risk.bits, at: risk.at, level: risk.level, samples: risk.samples, credits, tactics, incident }
    }
}

impl From<Stored> for Risk {
    fn from(s: Stored) -> Self {
        let case = Case { credits: s.credits, tactics: s.tactics, incident: s.incident };
        let case = (case != Case::default()).then(|| Box::new(case));
        Self { bits: s.bits, level: s.level, at: s.at, samples: s.samples, case }
    }
}

impl Risk {
    /// `level`: usual novelty of the class.
    pub fn new(now: i64, level: f32) -> Self {
        Self { bits: 0.0, level, at: now, samples: 0, case: None }
    }

    fn case(&mut self) -> &mut Case {
        self.case.get_or_insert_default()
    }

    fn credits(&self) -> &[Credit] {
        self.case.as_ref().map_or(&[], |case| &case.credits)
    }

    fn incident(&self) -> Option<Incident> {
        self.case.as_ref().and_then(|case| case.incident)
    }

    /// Lets time pass.
    pub fn pass(&mut self, now: i64) {
        if now > self.at {
            self.bits = self.bits_at(now);
            self.at = now;
            if let Some(case) = &mut self.case {
                case.credits.retain(|c| now - c.at <= DAY);
                case.incident = case.incident.filter(|i| now - i.opened < DAY);
            }
        }
    }

    /// Gives back the memory of evidence that no longer counts.
    pub fn rest(&mut self, now: i64) {
        if let Some(case) = &mut self.case {
            case.credits.retain(|c| now - c.at <= DAY);
            case.credits.shrink_to_fit();
            case.tactics.iter_mut().filter(|at| now - **at >= TACTICS_SPAN).for_each(|at| *at = 0);
            if **case == Case::default() {
                self.case = None;
            }
        }
    }

    /// Risk as it would be at `now`.
    pub fn bits_at(&self, now: i64) -> f32 {
        let left = self.bits * (-((now - self.at).max(0) as f32 / 1e6) / HALF_LIFE_SECONDS).exp2();
        let closed = self.incident().is_some_and(|i| now - i.opened >= DAY);
        if closed { left.min(LEFT_OVER) } else { left }
    }

    /// Whether this evidence was counted within the last day.
    pub fn credited(&self, dimension: Dimension, value: &str) -> bool {
        self.credits().iter().any(|c| c.dimension == dimension && *c.value == *value)
    }

    pub fn credit(&mut self, credit: Credit) {
        let credits = &mut self.case().credits;
        if credits.len() >= MAX_CREDITS {
            let least = (0..credits.len()).min_by(|a, b| credits[*a].bits.total_cmp(&credits[*b].bits));
            least.map(|at| credits.swap_remove(at));
        }
        credits.reserve_exact(1);
        credits.push(credit);
    }

    /// Adds what an observation's evidence, not counted before, sums up to.
    pub fn add(&mut self, evidence: f32, tactic: Option<Tactic>, now: i64, class_level: &mut f32) {
        let evidence = evidence.clamp(-4.0, 20.0);
        let excess = evidence - (KAPPA + 2.0 * self.level);
        let novelty = evidence.clamp(0.0, 6.0);
        self.level += (novelty - self.level) * (1.0 / (self.samples as f32 + 50.0)).max(0.01);
        self.samples = self.samples.saturating_add(1);
        *class_level = *class_level * 0.999 + 0.001 * novelty;
        let mut more = excess.max(-0.5);
        if excess > 0.0 {
            if let Some(tactic) = tactic.filter(|_| evidence > 2.0) {
                self.case().tactics[tactic as usize] = now;
            }
            more *= self.progression(now);
        }
        self.bits = (self.bits + more).max(0.0);
    }

    /// Adds what a burst has gained. It pays nothing: bursts have paid for their looks, and a long one comes in
    /// small steps.
    pub fn add_burst(&mut self, bits: f32, now: i64) {
        self.bits += bits * self.progression(now);
    }

    /// Adds the bits of a rule's finding.
    pub fn add_rule(&mut self, bits: f32, tactics: impl Iterator<Item = Tactic>, now: i64) {
        self.pass(now);
        tactics.for_each(|t| self.case().tactics[t as usize] = now);
        self.bits += bits * self.progression(now);
    }

    fn progression(&self, now: i64) -> f32 {
        1.0 + 0.25 * (self.tactics(now).count() as f32 - 1.0).max(0.0)
    }

    /// Steps of an attack seen within three days.
    pub fn tactics(&self, now: i64) -> impl Iterator<Item = Tactic> {
        let seen = self.case.as_ref().map_or([0; Tactic::ALL.len()], |case| case.tactics);
        Tactic::ALL.into_iter().filter(move |t| {
            let at = seen[*t as usize];
            at > 0 && now - at < TACTICS_SPAN
        })
    }

    /// Whether to tell of `bits` now: no incident is open, or it has grown by six bits or a tactic.
    pub fn opens(&mut self, bits: f32, now: i64) -> bool {
        self.pass(now);
        let tactics = self.tactics(now).fold(0, |set, t| set | 1 << t as u32);
        let before = self.incident();
        let grown = before.is_none_or(|i| bits >= i.bits + 6.0 || tactics & !i.tactics != 0);
        if grown {
            let opened = before.map_or(now, |i| i.opened);
            self.case().incident = Some(Incident { opened, bits, tactics });
        }
        grown
    }

    /// The evidence of the last day, the heaviest first.
    pub fn story(&self) -> Vec<&Credit> {
        let mut credits: Vec<&Credit> = self.credits().iter().collect();
        credits.sort_by(|a, b| b.bits.total_cmp(&a.bits).then(a.at.cmp(&b.at)).then(a.value.cmp(&b.value)));
        credits
    }

    /// Memory beside the struct itself.
    pub fn bytes(&self) -> usize {
        let Some(case) = &self.case else { return 0 };
        let texts = case.credits.iter().flat_map(|c| [&c.context, &c.value, &c.audit_id, &c.text]);
        let texts: usize = texts.map(|text| allocated::<u8>(text.len())).sum();
        allocated::<Case>(1) + allocated::<Credit>(case.credits.len()) + texts
    }
}

/// Bits a finding of a rule is worth.
pub(super) fn rule_bits(level: Level) -> f32 {
    match level {
        Level::Informational => 0.0,
        Level::Low => 2.0,
        Level::Medium => 4.0,
        Level::High => 8.0,
        Level::Critical => 14.0,
    }
}

/// Level of an alert about `bits` of risk.
pub(super) fn risk_level(bits: f32) -> Level {
    match bits {
        b if b < 16.0 => Level::Low,
        b if b < 24.0 => Level::Medium,
        b if b <= 35.0 => Level::High,
        _ => Level::Critical,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: i64 = DAY / 24;

    #[test]
    fn risk_fades_by_half_a_day_and_progression_weighs() {
        let mut risk = Risk::new(1, 1.0);
        risk.add_rule(4.0, [Tactic::Discovery].into_iter(), 1);
        assert_eq!(risk.bits, 4.0);
        assert!((risk.bits_at(1 + DAY) - 2.0).abs() < 1e-3);
        risk.add_rule(4.0, [Tactic::Execution].into_iter(), 1 + DAY);
        assert!((risk.bits - (2.0 + 5.0)).abs() < 1e-3, "a second step weighs a quarter more: {}", risk.bits);
        risk.add_rule(0.0, [].into_iter(), 5 * DAY);
        assert_eq!(risk.tactics(5 * DAY).count(), 0);
    }

    #[test]
    fn ordinary_novelty_adds_nothing_and_innocence_takes_little_away() {
        let mut risk = Risk::new(0, 1.0);
        let mut class = 1.0;
        risk.add(3.0, None, 0, &mut class);
        assert_eq!(risk.bits, 0.0, "one bit and twice the usual are free");
        risk.add(10.0, None, 0, &mut class);
        let before = risk.bits;
        assert!(before > 6.0);
        risk.add(-40.0, None, 0, &mut class);
        assert!((before - risk.bits - 0.5).abs() < 1e-6, "normal traffic cannot wash it away");
    }

    #[test]
    fn an_incident_is_told_again_only_when_it_grows() {
        let mut risk = Risk::new(1, 1.0);
        risk.add_rule(30.0, [].into_iter(), 1);
        assert!(risk.opens(10.0, 1) && !risk.opens(12.0, HOUR) && risk.opens(17.0, 2 * HOUR));
        assert!(!risk.opens(17.0, 3 * HOUR));
        risk.add_rule(1.0, [Tactic::Impact].into_iter(), 4 * HOUR);
        assert!(risk.opens(17.0, 4 * HOUR), "a new step");
        assert!(risk.bits_at(DAY) > 15.0, "the incident is open");
        assert_eq!(risk.bits_at(1 + DAY), LEFT_OVER, "told is told");
        risk.pass(1 + DAY);
        risk.add_rule(8.0, [].into_iter(), 1 + DAY);
        assert!(risk.bits >= LEFT_OVER + 8.0 && risk.opens(risk.bits, 1 + DAY), "another day, something new");
    }

    #[test]
    fn evidence_counts_once_a_day() {
        let mut risk = Risk::new(0, 1.0);
        let credit = |at: i64| Credit {
            dimension: Dimension::Network,
            context: "".into(),
            value: "10.0.0.0/16".into(),
            at,
            bits: 3.0,
            audit_id: "a".into(),
            text: "t".into(),
        };
        risk.credit(credit(0));
        risk.pass(DAY);
        assert!(risk.credited(Dimension::Network, "10.0.0.0/16") && !risk.credited(Dimension::Client, "10.0.0.0/16"));
        risk.pass(DAY + 1);
        assert!(!risk.credited(Dimension::Network, "10.0.0.0/16"));
        for i in 0..100 {
            risk.credit(credit(DAY + i));
        }
        assert_eq!(risk.story().len(), MAX_CREDITS);
    }
}
