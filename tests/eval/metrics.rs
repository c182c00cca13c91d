//! What a lane of scores is worth to who must read its alerts.
//!
//! An incident is the first event of an identity at or above the threshold within a day; it is true when an attack
//! event of the same identity within that day is at or above the threshold itself. Found means so much for every run.

use std::collections::{BTreeMap, HashMap};

use crate::methods::{Lane, Measured};
use crate::stream::{DAY, HOUR, Mark, START, Stream};

const WINDOW: i64 = DAY;

/// A threshold and what it does in the judged time.
#[derive(Clone, Debug)]
pub struct Worth {
    pub threshold: f32,
    /// Part of the attack runs that are found.
    pub recall: f64,
    /// Part of the incidents that are true.
    pub precision: f64,
    pub false_a_day: f64,
    /// Mean number of an attack's events up to the first at or above the threshold, of those found.
    pub events_to_detect: f64,
    /// Found and all, by the kind of run.
    pub kinds: BTreeMap<String, (usize, usize)>,
}

/// Events, incidents and runs of a stream, ready to be asked about any lane.
pub struct Judge<'s> {
    stream: &'s Stream,
    who: &'s [Option<u64>],
    runs: Vec<Vec<usize>>,
}

impl<'s> Judge<'s> {
    pub fn new(stream: &'s Stream, measured: &'s Measured) -> Self {
        let mut runs = vec![Vec::new(); stream.runs.len()];
        for (i, event) in stream.events.iter().enumerate() {
            if let (Mark::Attack(run), true) = (event.mark, measured.who[i].is_some()) {
                runs[run].push(i);
            }
        }
        Self { stream, who: &measured.who, runs }
    }

    fn within(&self, i: usize, (from, to): (i64, i64)) -> bool {
        (from..to).contains(&(self.stream.events[i].time - START))
    }

    fn days((from, to): (i64, i64)) -> f64 {
        (to - from) as f64 / DAY as f64
    }

    /// Places of the events that open incidents.
    fn incidents(&self, lane: &Lane, threshold: f32, span: (i64, i64)) -> Vec<usize> {
        let mut open: HashMap<u64, i64> = HashMap::new();
        let mut incidents = Vec::new();
        for (i, event) in self.stream.events.iter().enumerate() {
            let Some(who) = self.who[i].filter(|_| lane.scores[i] >= threshold && self.within(i, span)) else {
                continue;
            };
            if event.mark == Mark::Setup {
                continue;
            }
            if open.get(&who).is_none_or(|at| event.time - at >= WINDOW) {
                open.insert(who, event.time);
                incidents.push(i);
            }
        }
        incidents
    }

    /// The lowest threshold with at most `a_day` incidents a day in calibration.
    pub fn calibrated(&self, lane: &Lane, a_day: f64) -> f32 {
        let span = self.stream.calibration;
        let judged = |i: &usize| self.who[*i].is_some() && self.within(*i, span);
        let mut scores: Vec<f32> = (0..lane.scores.len()).filter(judged).map(|i| lane.scores[i]).collect();
        scores.sort_by(f32::total_cmp);
        scores.dedup();
        let at = scores.partition_point(|t| self.incidents(lane, *t, span).len() as f64 > a_day * Self::days(span));
        // Nothing in calibration is quiet enough: only what is above all of it.
        scores.get(at).copied().unwrap_or_else(|| scores.last().map_or(0.0, |t| t + 1e-3))
    }

    pub fn worth(&self, lane: &Lane, threshold: f32) -> Worth {
        let span = self.stream.test;
        let over = |i: usize| lane.scores[i] >= threshold;
        let mut attacks: HashMap<u64, Vec<i64>> = HashMap::new();
        for i in self.runs.iter().flatten().copied().filter(|i| over(*i)) {
            attacks.entry(self.who[i].unwrap_or_default()).or_default().push(self.stream.events[i].time);
        }
        let incidents = self.incidents(lane, threshold, span);
        let is_true = |i: &&usize| {
            let (who, at) = (self.who[**i].unwrap_or_default(), self.stream.events[**i].time);
            attacks.get(&who).is_some_and(|times| times.iter().any(|t| (at..at + WINDOW).contains(t)))
        };
        let good = incidents.iter().filter(is_true).count();
        let mut kinds: BTreeMap<String, (usize, usize)> = BTreeMap::new();
        let (mut found, mut events) = (0, 0);
        for (run, kind) in self.runs.iter().zip(&self.stream.runs) {
            let first = run.iter().position(|i| over(*i));
            let of = kinds.entry(kind.clone()).or_default();
            *of = (of.0 + usize::from(first.is_some()), of.1 + 1);
            found += usize::from(first.is_some());
            events += first.map_or(0, |at| at + 1);
        }
        let part = |a: usize, b: usize| if b == 0 { 0.0 } else { a as f64 / b as f64 };
        Worth {
            threshold,
            recall: part(found, self.runs.len()),
            precision: part(good, incidents.len()),
            false_a_day: (incidents.len() - good) as f64 / Self::days(span),
            events_to_detect: part(events, found),
            kinds,
        }
    }

    /// Average precision over hours of identities: each is as suspicious as its most suspicious event.
    pub fn average_precision(&self, lane: &Lane) -> f64 {
        let mut units: HashMap<(u64, i64), (f32, bool)> = HashMap::new();
        for (i, event) in self.stream.events.iter().enumerate() {
            let Some(who) = self.who[i].filter(|_| event.mark != Mark::Setup && self.within(i, self.stream.test))
            else {
                continue;
            };
            let unit = units.entry((who, event.time / HOUR)).or_insert((f32::MIN, false));
            *unit = (unit.0.max(lane.scores[i]), unit.1 || matches!(event.mark, Mark::Attack(_)));
        }
        average_precision(units.into_values().collect())
    }

    /// False alerts a day and recall at thresholds over the whole range of the judged time.
    pub fn curve(&self, lane: &Lane) -> Vec<(f64, f64)> {
        let judged = |i: &usize| self.who[*i].is_some() && self.within(*i, self.stream.test);
        let mut scores: Vec<f32> = (0..lane.scores.len()).filter(judged).map(|i| lane.scores[i]).collect();
        scores.sort_by(|a, b| b.total_cmp(a));
        // Ever further apart: what matters is at the top.
        let mut at: Vec<usize> =
            (0..).map(|i| 1.25f64.powi(i) as usize - 1).take_while(|i| *i < scores.len()).collect();
        at.dedup();
        let mut thresholds: Vec<f32> = at.into_iter().map(|i| scores[i]).filter(|t| *t > f32::MIN).collect();
        thresholds.dedup();
        let worth = |t: f32| self.worth(lane, t);
        thresholds.into_iter().map(worth).map(|w| (w.false_a_day, w.recall)).collect()
    }
}

/// Mean precision at each true unit, units of one score taken together.
fn average_precision(mut units: Vec<(f32, bool)>) -> f64 {
    units.sort_by(|a, b| b.0.total_cmp(&a.0));
    let all = units.iter().filter(|u| u.1).count();
    let (mut seen, mut hits, mut sum) = (0usize, 0usize, 0.0);
    for same in units.chunk_by(|a, b| a.0 == b.0) {
        let new = same.iter().filter(|u| u.1).count();
        seen += same.len();
        hits += new;
        sum += new as f64 * hits as f64 / seen as f64;
    }
    if all == 0 { 0.0 } else { sum / all as f64 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stream::Event;

    #[test]
    fn average_precision_is_what_the_textbook_says() {
        assert_eq!(average_precision(vec![(3.0, true), (2.0, false), (1.0, true)]), (1.0 + 2.0 / 3.0) / 2.0);
        assert_eq!(average_precision(vec![(1.0, true), (1.0, false)]), 0.5, "a tie is no merit");
        assert_eq!(average_precision(vec![(1.0, false)]), 0.0);
    }

    fn event(time: i64, mark: Mark) -> Event {
        Event { time: START + time, text: String::new(), mark }
    }

    #[test]
    fn an_incident_is_true_only_through_an_attack_event_that_is_over_the_threshold_itself() {
        let events = vec![
            event(0, Mark::Benign),
            event(HOUR, Mark::Benign),
            event(DAY + HOUR, Mark::Attack(0)),
            event(DAY + 2 * HOUR, Mark::Attack(0)),
            event(DAY + 3 * HOUR, Mark::Attack(1)),
            event(DAY + 4 * HOUR, Mark::Setup),
        ];
        let runs = vec!["a".to_owned(), "b".to_owned()];
        let stream = Stream { events, runs, calibration: (0, DAY), test: (DAY, 2 * DAY) };
        let who = vec![Some(1), Some(2), Some(1), Some(1), Some(2), Some(3)];
        let measured = Measured { lanes: Vec::new(), who };
        let judge = Judge::new(&stream, &measured);
        let lane = |scores: [f32; 6]| Lane { name: "x", scores: scores.to_vec(), fixed: None, steered: true };
        let w = judge.worth(&lane([0.0, 0.0, 1.0, 9.0, 1.0, 9.0]), 5.0);
        assert_eq!((w.recall, w.precision, w.false_a_day, w.events_to_detect), (0.5, 1.0, 0.0, 2.0));
        let w = judge.worth(&lane([9.0; 6]), 5.0);
        assert_eq!((w.recall, w.precision, w.false_a_day), (1.0, 1.0, 0.0), "training is neither for nor against");
        assert_eq!(judge.calibrated(&lane([3.0, 4.0, 0.0, 0.0, 0.0, 0.0]), 1.0), 4.0);
    }
}
