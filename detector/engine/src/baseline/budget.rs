//! From which score on somebody is told: fixed in the first week, then steered to so many alerts a day.
//!
//! A week of each principal's daily maxima gives the rate of alerts for every threshold; beyond the twentieth
//! largest an exponential tail does. Thresholds move by at most half a bit a day, and one principal counts on at
//! most two of the seven days, so nobody moves them alone.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::Options;

/// (Surprise, risk) in bits.
pub type Thresholds = (f32, f32);

/// Before a week is over.
const FIRST: Thresholds = (10.0, 14.0);
const DAYS: u32 = 7;
const SURPRISE_RANGE: (f32, f32) = (5.0, 14.0);
const RISK_RANGE: (f32, f32) = (7.0, 25.0);
/// Part of the budget that surprise may spend; risk has the rest.
const SURPRISE_SHARE: f32 = 0.6;
const STEP: f32 = 0.5;
/// Maxima remembered of one day; the largest matter.
const PER_DAY: usize = 512;
/// Days on which one principal counts.
const PER_PRINCIPAL: usize = 2;
/// Rank from which on the tail is fitted.
const TAIL_RANK: usize = 20;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Budget {
    started: u32,
    day: u32,
    /// Of the last days: per principal the largest surprise and risk.
    maxima: BTreeMap<u32, Vec<(u32, f32, f32)>>,
    steered: Thresholds,
}

impl Budget {
    pub fn new(day: u32) -> Self {
        Self { started: day, day, maxima: BTreeMap::new(), steered: FIRST }
    }

    pub fn thresholds(&self, options: &Options) -> Thresholds {
        options.fixed.unwrap_or(self.steered)
    }

    /// Takes note of a score, at the first of which in a day the thresholds move.
    pub fn note(&mut self, day: u32, principal: u32, surprise: f32, risk: f32, options: &Options) {
        if day > self.day {
            self.day = day;
            self.steer(options.per_day);
        }
        if surprise < SURPRISE_RANGE.0 && risk < RISK_RANGE.0 {
            return;
        }
        let today = self.maxima.entry(day).or_default();
        if let Some((_, s, w)) = today.iter_mut().find(|(p, ..)| *p == principal) {
            (*s, *w) = (s.max(surprise), w.max(risk));
        } else if today.len() < PER_DAY {
            today.push((principal, surprise, risk));
        } else {
            let least = today.iter_mut().min_by(|a, b| (a.1 + a.2).total_cmp(&(b.1 + b.2)));
            if let Some(least) = least.filter(|l| l.1 + l.2 < surprise + risk) {
                *least = (principal, surprise, risk);
            }
        }
    }

    fn steer(&mut self, per_day: f32) {
        self.maxima = self.maxima.split_off(&(self.day.saturating_sub(DAYS)));
        if self.day - self.started < DAYS {
            return;
        }
        let wanted = per_day * DAYS as f32;
        let surprise = threshold(self.largest(|m| m.1), wanted * SURPRISE_SHARE, SURPRISE_RANGE);
        let risk = threshold(self.largest(|m| m.2), wanted * (1.0 - SURPRISE_SHARE), RISK_RANGE);
        let towards = |from: f32, to: f32| from + (to - from).clamp(-STEP, STEP);
        self.steered = (towards(self.steered.0, surprise), towards(self.steered.1, risk));
    }

    /// Maxima of the last days, largest first, at most two of each principal.
    fn largest(&self, of: impl Fn(&(u32, f32, f32)) -> f32) -> Vec<f32> {
        let mut all: Vec<(f32, u32)> = self.maxima.values().flatten().map(|m| (of(m), m.0)).collect();
        all.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
        let mut seen: BTreeMap<u32, usize> = BTreeMap::new();
        all.retain(|(_, principal)| {
            let n = seen.entry(*principal).or_default();
            *n += 1;
            *n <= PER_PRINCIPAL
        });
        all.into_iter().map(|(x, _)| x).collect()
    }
}

/// The score that `wanted` of these, largest first, reach.
fn threshold(largest: Vec<f32>, wanted: f32, (low, high): (f32, f32)) -> f32 {
    let rank = wanted.floor() as usize;
    let exact = if rank >= TAIL_RANK || largest.len() <= TAIL_RANK {
        // So few that the budget is not spent: as low as allowed.
        largest.get(rank).copied().unwrap_or(low)
    } else {
        let anchor = largest[TAIL_RANK - 1];
        let mean = largest[..TAIL_RANK].iter().map(|x| x - anchor).sum::<f32>() / TAIL_RANK as f32;
        anchor + mean * (TAIL_RANK as f32 / wanted.max(0.1)).ln()
    };
    exact.clamp(low, high)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noted(days: std::ops::Range<u32>, principals: u32, surprise: impl Fn(u32) -> f32, budget: &mut Budget) {
        let options = Options::default();
        for day in days {
            for p in 0..principals {
                budget.note(day, p, surprise(p), 0.0, &options);
            }
        }
    }

    #[test]
    fn fixed_for_a_week_then_half_a_bit_a_day_towards_the_budget() {
        let mut budget = Budget::new(100);
        noted(100..107, 40, |p| 6.0 + p as f32 / 10.0, &mut budget);
        assert_eq!(budget.steered, FIRST);
        noted(107..108, 40, |p| 6.0 + p as f32 / 10.0, &mut budget);
        assert_eq!(budget.steered.0, 9.5);
        noted(108..130, 40, |p| 6.0 + p as f32 / 10.0, &mut budget);
        let alerts = (0..40).filter(|p| 6.0 + *p as f32 / 10.0 >= budget.steered.0).count();
        assert!(alerts <= 40 && budget.steered.0 > 8.0, "{:?}", budget.steered);
        assert_eq!(budget.steered.1, RISK_RANGE.0, "a quiet cluster stops at the floor");
    }

    #[test]
    fn one_principal_alone_moves_nothing() {
        let (mut quiet, mut loud) = (Budget::new(0), Budget::new(0));
        noted(0..30, 30, |_| 6.0, &mut quiet);
        noted(0..30, 30, |p| if p == 7 { 40.0 } else { 6.0 }, &mut loud);
        assert!(loud.steered.0 <= quiet.steered.0 + 0.5, "{:?} {:?}", loud.steered, quiet.steered);
    }

    #[test]
    fn a_user_can_fix_them() {
        let budget = Budget::new(0);
        let options = Options { fixed: Some((8.0, 10.0)), ..Options::default() };
        assert_eq!(budget.thresholds(&options), (8.0, 10.0));
    }
}
