//! The report of a scan for a person: alerts by level, then what could not be judged or read.

use std::collections::{BTreeMap, HashMap};
use std::io::{self, Write};

use lapwing_engine::alert::{Alert, Finding, Level, Status};

use super::Scan;
use crate::output::encode::terminal;
use crate::output::text;

/// Alerts kept for the report; more are counted.
const KEPT: usize = 10_000;

#[derive(Debug, Default)]
pub struct Report {
    alerts: Vec<Alert>,
    by_id: HashMap<String, usize>,
    not_kept: u64,
    levels: BTreeMap<Level, u64>,
}

impl Report {
    pub fn finding(&mut self, finding: &Finding) {
        *self.levels.entry(finding.rule.level).or_default() += 1;
    }

    /// Keeps an alert; a later notice replaces an earlier one.
    pub fn alert(&mut self, alert: Alert) {
        // A reader of the report was not told before.
        let alert = Alert { status: Status::New, ..alert };
        if let Some(at) = self.by_id.get(&alert.id) {
            self.alerts[*at] = alert;
        } else if self.alerts.len() < KEPT {
            self.by_id.insert(alert.id.clone(), self.alerts.len());
            self.alerts.push(alert);
        } else {
            self.not_kept += 1;
        }
    }

    pub fn highest(&self) -> Option<Level> {
        self.levels.keys().next_back().copied()
    }

    pub fn print(&mut self, out: &mut impl Write, colours: bool, verbose: bool) -> io::Result<()> {
        self.alerts.sort_by(|a, b| (b.level, a.first, &a.id).cmp(&(a.level, b.first, &b.id)));
        for alert in &self.alerts {
            let words = if verbose { text::plain(alert, colours) } else { text::brief(alert, colours) };
            out.write_all(words.as_bytes())?;
        }
        if self.not_kept > 0 {
            writeln!(out, "… and {} more alerts; --output ndjson prints them all", self.not_kept)?;
        }
        if !verbose && !self.alerts.is_empty() {
            writeln!(
                out,
                "Explain these in full: --verbose. Every finding: --findings. Only the grave: --min-level high."
            )?;
        }
        Ok(())
    }

    /// Counts, what could not be judged, and what could not be read.
    pub fn summary(&self, out: &mut impl Write, scan: &Scan) -> io::Result<()> {
        let counts = scan.engine.counts();
        let found: u64 = self.levels.values().sum();
        let levels: Vec<String> = self.levels.iter().rev().map(|(l, n)| format!("{n} {l}")).collect();
        let levels = if levels.is_empty() { String::new() } else { format!(": {}", levels.join(", ")) };
        writeln!(out, "{} events, {found} findings{levels}", counts.events)?;
        if !counts.undecidable.is_empty() {
            let verdicts: u64 = counts.undecidable.values().sum();
            writeln!(
                out,
                "{verdicts} verdicts of {} rules were undecidable, mostly because the audit policy does not log bodies",
                counts.undecidable.len()
            )?;
        }
        for bad in &scan.unreadable {
            let (path, detail) = (bad.path.display(), terminal(&bad.detail));
            writeln!(out, "unreadable: {path}:{}: {detail} ({})", bad.line, bad.reason)?;
        }
        let more = scan.unreadable_count.saturating_sub(scan.unreadable.len() as u64);
        if more > 0 {
            writeln!(out, "unreadable: … and {more} more places")?;
        }
        Ok(())
    }
}

/// One finding on one line.
pub fn finding(out: &mut impl Write, finding: &Finding, colours: bool) -> io::Result<()> {
    let level = text::level(finding.rule.level, colours);
    let time = finding.time.format("%Y-%m-%d %H:%M:%S");
    let reason = if finding.reason.is_empty() { String::new() } else { format!(" ({})", terminal(&finding.reason)) };
    writeln!(out, "{time} {level} {} {}{reason}", finding.rule.id, terminal(&finding.summary))
}
