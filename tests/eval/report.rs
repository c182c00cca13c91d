//! The measurements as tables and plots.

use std::path::Path;

use crate::methods::{self, Lane, Measured};
use crate::metrics::{Judge, Worth};
use crate::recorded::{Corpus, stretched};
use crate::simulator::{POISONED, simulate};
use crate::stream::Stream;

/// Everything that is written.
pub struct Report {
    pub tables: String,
}

/// One lane of one stream.
pub struct Row {
    pub name: &'static str,
    pub steered: Option<Worth>,
    pub fixed: Option<Worth>,
    pub average_precision: f64,
}

pub fn rows(stream: &Stream, measured: &Measured, a_day: f64) -> Vec<Row> {
    let judge = Judge::new(stream, measured);
    let row = |lane: &Lane| Row {
        name: lane.name,
        steered: lane.steered.then(|| judge.worth(lane, judge.calibrated(lane, a_day))),
        fixed: lane.fixed.map(|t| judge.worth(lane, t)),
        average_precision: judge.average_precision(lane),
    };
    measured.lanes.iter().map(row).collect()
}

fn cells(w: &Option<Worth>) -> String {
    w.as_ref().map_or_else(
        || " | | | | ".into(),
        |w| {
            format!(
                "{:.2} | {:.2} | {:.1} | {:.1} | {:.1}",
                w.recall, w.precision, w.false_a_day, w.events_to_detect, w.threshold
            )
        },
    )
}

pub fn run(seeds: &[u64], placements: &[u64], corpus: &Path, root: &Path) -> anyhow::Result<Report> {
    let rules = methods::rules(&root.join("rules"))?;
    let mut tables = String::new();
    let mut show = |title: &str, stream: &Stream, a_day: f64| -> anyhow::Result<()> {
        let measured = methods::measure(stream, &rules)?;
        tables += &format!("\n{title}: {} events, {} runs\n", stream.events.len(), stream.runs.len());
        for row in rows(stream, &measured, a_day) {
            tables += &format!(
                "{:<32} | {} || {} || {:.3}\n",
                row.name,
                cells(&row.steered),
                cells(&row.fixed),
                row.average_precision
            );
            if row.name == "S or W" || row.name == "rules, S or W, as shipped" {
                let missed = |w: &Worth| {
                    w.kinds
                        .iter()
                        .filter(|(_, (a, b))| a < b)
                        .map(|(k, (a, b))| format!("{k} {a}/{b}"))
                        .collect::<Vec<_>>()
                        .join(", ")
                };
                tables += &format!(
                    "   missed: {} ## {}\n",
                    row.steered.as_ref().map_or(String::new(), missed),
                    row.fixed.as_ref().map_or(String::new(), missed)
                );
                if let Some(p) = row.fixed.as_ref().and_then(|w| w.kinds.get(POISONED)) {
                    tables += &format!("   poisoned {p:?}\n");
                }
            }
        }
        tables += &format!("told {:?}\n", Judge::new(stream, &measured).told_in_vain(&measured.told));
        Ok(())
    };
    for seed in seeds {
        show(&format!("simulator {seed}"), &simulate(*seed), 5.0)?;
    }
    if !placements.is_empty() {
        let corpus = Corpus::read(corpus)?;
        for seed in placements {
            show(&format!("recorded {seed}"), &stretched(&corpus, *seed, false), 2.0)?;
            show(&format!("recorded+drift {seed}"), &stretched(&corpus, *seed, true), 2.0)?;
        }
    }
    Ok(Report { tables })
}

impl Report {
    pub fn write(&self, _root: &Path) -> anyhow::Result<()> {
        print!("{}", self.tables);
        Ok(())
    }
}
