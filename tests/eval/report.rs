//! The measurements as tables and a plot: `docs/evaluation.md` and `docs/evaluation.svg`.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;

use crate::methods::{self, Lane};
use crate::metrics::{Judge, Worth};
use crate::plot;
use crate::recorded::{Corpus, stretched};
use crate::simulator::{POISONED, simulate};
use crate::stream::Stream;

const TEMPLATE: &str = include_str!("evaluation.md");
/// Alerts a day thresholds are calibrated to.
const SIMULATOR_BUDGET: f64 = 5.0;
const RECORDED_BUDGET: f64 = 2.0;
/// The lanes whose kinds of runs are listed.
const ALONE: &str = "S or W, thresholds as shipped";
const SHIPPED: &str = "rules, S or W, as shipped";

/// One lane over all streams of one sort.
#[derive(Default)]
struct Row {
    steered: Vec<Worth>,
    fixed: Vec<Worth>,
    average_precision: Vec<f64>,
    /// (false alerts a day, recall) at many thresholds, stream by stream.
    curves: Vec<Vec<(f64, f64)>>,
}

/// All lanes over all streams of one sort, in the order of measuring.
#[derive(Default)]
struct Table {
    rows: Vec<(&'static str, Row)>,
}

impl Table {
    fn add(&mut self, judge: &Judge<'_>, lane: &Lane, budget: f64) {
        let at = self.rows.iter().position(|(name, _)| *name == lane.name).unwrap_or_else(|| {
            self.rows.push((lane.name, Row::default()));
            self.rows.len() - 1
        });
        let row = &mut self.rows[at].1;
        row.average_precision.push(judge.average_precision(lane));
        row.fixed.extend(lane.fixed.map(|t| judge.worth(lane, t)));
        if lane.steered {
            row.steered.push(judge.worth(lane, judge.calibrated(lane, budget)));
        }
        row.curves.push(judge.curve(lane));
    }

    fn row(&self, name: &str) -> &Row {
        &self.rows.iter().find(|(n, _)| *n == name).expect("a lane of this name is measured").1
    }

    fn markdown(&self, with_fixed: bool) -> String {
        let mut text = String::from(
            "| | recall | precision | false alerts a day | events to detect | threshold | AP per identity and hour |\n\
             |---|---|---|---|---|---|---|\n",
        );
        for (name, row) in &self.rows {
            let worths = if with_fixed { &row.fixed } else { &row.steered };
            if worths.is_empty() {
                continue;
            }
            let mean = |f: fn(&Worth) -> f64| mean(worths.iter().map(f));
            let threshold = mean(|w| f64::from(w.threshold));
            let threshold = if threshold > 100.0 || name.ends_with("as shipped") {
                "–".into()
            } else {
                format!("{threshold:.1}")
            };
            let _ = writeln!(
                text,
                "| {name} | {:.2} | {:.2} | {:.1} | {:.1} | {threshold} | {:.3} |",
                mean(|w| w.recall),
                mean(|w| w.precision),
                mean(|w| w.false_a_day),
                mean(|w| w.events_to_detect),
                crate::report::mean(row.average_precision.iter().copied()),
            );
        }
        text
    }

    /// Found and all runs by kind, summed, for the two lanes that ship.
    fn kinds(&self) -> String {
        let sums = |name: &str| {
            let mut sums: BTreeMap<String, (usize, usize)> = BTreeMap::new();
            for (kind, (found, all)) in self.row(name).fixed.iter().flat_map(|w| &w.kinds) {
                let sum = sums.entry(kind.clone()).or_default();
                *sum = (sum.0 + found, sum.1 + all);
            }
            sums
        };
        let (alone, shipped) = (sums(ALONE), sums(SHIPPED));
        let mut text = String::from("| | S or W | with rules |\n|---|---|---|\n");
        for (kind, (found, all)) in &alone {
            let _ = writeln!(text, "| {kind} | {found} of {all} | {} of {all} |", shipped.get(kind).map_or(0, |s| s.0));
        }
        text
    }

    fn worst(&self, name: &str, of: fn(&Worth) -> f64, highest: bool) -> f64 {
        let all = self.row(name).fixed.iter().map(of);
        if highest { all.fold(f64::MIN, f64::max) } else { all.fold(f64::MAX, f64::min) }
    }
}

fn mean(all: impl Iterator<Item = f64>) -> f64 {
    let (sum, n) = all.fold((0.0, 0.0), |(sum, n), x| (sum + x, n + 1.0));
    if n > 0.0 { sum / n } else { 0.0 }
}

/// Everything that is written.
pub struct Report {
    pub text: String,
    plot: String,
}

pub fn run(seeds: &[u64], placements: &[u64], corpus: &Path, root: &Path) -> anyhow::Result<Report> {
    let rules = methods::rules(&root.join("rules"))?;
    let measure = |table: &mut Table, stream: &Stream, budget: f64| -> anyhow::Result<()> {
        let measured = methods::measure(stream, &rules)?;
        let judge = Judge::new(stream, &measured);
        measured.lanes.iter().for_each(|lane| table.add(&judge, lane, budget));
        Ok(())
    };
    let (mut simulated, mut plain, mut drifting) = (Table::default(), Table::default(), Table::default());
    for seed in seeds {
        measure(&mut simulated, &simulate(*seed), SIMULATOR_BUDGET)?;
    }
    let corpus = Corpus::read(corpus)?;
    for placement in placements {
        measure(&mut plain, &stretched(&corpus, *placement, false), RECORDED_BUDGET)?;
        measure(&mut drifting, &stretched(&corpus, *placement, true), RECORDED_BUDGET)?;
    }
    let list = |numbers: &[u64]| numbers.iter().map(u64::to_string).collect::<Vec<_>>().join(", ");
    let text = TEMPLATE
        .replace("{seeds}", &list(seeds))
        .replace("{placements}", &list(placements))
        .replace("{targets}", &targets(&simulated, &drifting))
        .replace("{simulator}", &simulated.markdown(false))
        .replace("{simulator fixed}", &simulated.markdown(true))
        .replace("{simulator kinds}", &simulated.kinds())
        .replace("{recorded}", &plain.markdown(true))
        .replace("{drift}", &drifting.markdown(true))
        .replace("{drift calibrated}", &drifting.markdown(false))
        .replace("{drift kinds}", &drifting.kinds());
    let panels = [("Simulator", &simulated), ("Recordings with drift", &drifting)];
    let panels = panels.map(|(title, table)| (title, lines(table)));
    Ok(Report { text, plot: plot::svg(&panels) })
}

/// What was wanted, and the mean and the worst of what was measured.
fn targets(simulated: &Table, drifting: &Table) -> String {
    let mut text = String::from("| | wanted | mean | worst |\n|---|---|---|---|\n");
    let mut tell = |what: &str, wanted: &str, table: &Table, lane: &str, of: fn(&Worth) -> f64, highest: bool| {
        let mean = mean(table.row(lane).fixed.iter().map(of));
        let _ = writeln!(text, "| {what} | {wanted} | {mean:.2} | {:.2} |", table.worst(lane, of, highest));
    };
    tell("recordings with drift, rules, S or W: recall", "at least 0.93", drifting, SHIPPED, |w| w.recall, false);
    tell("… precision of incidents", "at least 0.80", drifting, SHIPPED, |w| w.precision, false);
    tell("… false alerts a day", "at most 2", drifting, SHIPPED, |w| w.false_a_day, true);
    tell("simulator, S or W without rules: recall", "at least 0.97", simulated, ALONE, |w| w.recall, false);
    tell("… false alerts a day", "at most 5", simulated, ALONE, |w| w.false_a_day, true);
    let precision = &drifting.row(SHIPPED).average_precision;
    let worst = precision.iter().copied().fold(f64::MAX, f64::min);
    let average = mean(precision.iter().copied());
    let _ = writeln!(
        text,
        "| recordings with drift, rules, S or W: AP per identity and hour | at least 0.85 | {average:.2} | {worst:.2} |"
    );
    let poisoned = || simulated.row(ALONE).fixed.iter().filter_map(|w| w.kinds.get(POISONED));
    let (found, all) = poisoned().fold((0, 0), |sum, k| (sum.0 + k.0, sum.1 + k.1));
    let _ = writeln!(text, "| slow training of the baseline, S or W | all | {found} of {all} | |");
    text
}

/// The lines of a panel: the best recall at so many false alerts a day, mean over the streams.
fn lines(table: &Table) -> Vec<plot::Line> {
    let shown = |name: &str| !matches!(name, "risk (W)" | "S or W" | "rules, S or W");
    let rows = table.rows.iter().filter(|(name, _)| shown(name));
    rows.map(|(name, row)| {
        let best = |curve: &Vec<(f64, f64)>, at: f64| {
            curve.iter().filter(|(cost, _)| *cost <= at).map(|(_, recall)| *recall).fold(0.0, f64::max)
        };
        let points = plot::COSTS.map(|at| (at, mean(row.curves.iter().map(|c| best(c, at)))));
        plot::Line { name: (*name).to_owned(), points: points.to_vec() }
    })
    .collect()
}

impl Report {
    pub fn write(&self, root: &Path) -> anyhow::Result<()> {
        std::fs::write(root.join("docs/evaluation.md"), &self.text)?;
        std::fs::write(root.join("docs/evaluation.svg"), &self.plot)?;
        Ok(())
    }
}
