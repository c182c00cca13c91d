//! `lapwing baseline score`: every event of some files with its bits, while learning from them.

use std::io::{BufWriter, Write};
use std::path::PathBuf;

use anyhow::Context;
use lapwing_engine::baseline;
use lapwing_engine::engine::{Engine, Options, Output};
use lapwing_engine::event::Event;
use lapwing_engine::rule::set::{LoadOptions, RuleSet};
use serde::Serialize;

use super::super::Exit;
use crate::input::{Events, Limits};
use crate::ruleset::Selection;

/// Print what each event of audit files is worth, learning from them in order
///
/// One JSON object a line: the surprise of the request and the risk of its actor, in bits. Requests like an earlier
/// one of the same hour are marked `repeated`; `over` are the bits above the threshold of that time, where an alert is
/// opened or grows. For evaluation, and to see what a threshold would do.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "EXAMPLES
  lapwing baseline score audit.log
  lapwing baseline score --no-rules audit.log.zst | jq 'select(.surprise > 8)'")]
pub struct Args {
    /// Audit files in the order of time, `-` for standard input
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Do not let findings of rules add to the risk
    #[arg(long)]
    no_rules: bool,
    /// Tell of surprise from so many bits on, instead of steering to a budget
    #[arg(long, value_name = "BITS", requires = "risk")]
    surprise: Option<f32>,
    /// Tell of risk from so many bits on
    #[arg(long, value_name = "BITS", requires = "surprise")]
    risk: Option<f32>,
    /// Name of the cluster the files come from
    #[arg(long, default_value = "local", value_name = "NAME")]
    cluster: String,
}

#[derive(Serialize)]
struct Line<'e> {
    #[serde(rename = "auditID")]
    audit_id: &'e str,
    surprise: f32,
    risk: f32,
    repeated: bool,
    /// Bits above the threshold that is exceeded most, where one is.
    #[serde(skip_serializing_if = "Option::is_none")]
    over: Option<f32>,
    /// Rules that spoke, built-in ones of the baseline included.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    rules: Vec<&'e str>,
}

/// # Errors
/// When a file cannot be opened, rules do not load or output cannot be written.
pub fn run(args: &Args) -> anyhow::Result<Exit> {
    let rules = if args.no_rules {
        let (none, _) = RuleSet::load_lenient(Vec::new(), &LoadOptions::default());
        none.into()
    } else {
        Selection::default().load()?
    };
    let baseline = baseline::Options { fixed: args.surprise.zip(args.risk), ..Default::default() };
    let options = Options { baseline: Some(baseline), ..Options::default() };
    let mut engine = Engine::new(rules, options);
    let mut out = BufWriter::new(std::io::stdout().lock());
    let mut now = i64::MIN;
    let mut unreadable = false;
    for path in &args.files {
        let mut events =
            Events::open(path, Limits::default()).with_context(|| format!("cannot open `{}`", path.display()))?;
        while let Some(item) = events.next() {
            let Ok(text) = item else {
                unreadable = true;
                continue;
            };
            let Ok(event) = Event::parse(text) else {
                unreadable = true;
                continue;
            };
            now = now.max(event.time().unwrap_or(now));
            let mut output = Output::default();
            engine.event(&args.cluster, text, now, &String::new, &mut output)?;
            let Some(scored) = engine.baselines().map(|b| b.last()) else { continue };
            let rules = output.findings.iter().map(|f| f.rule.id.as_str()).collect();
            let (surprise, risk, repeated) = (scored.surprise, scored.risk, scored.repeated);
            let over = Some(scored.over).filter(|over| *over >= 0.0);
            let line = Line { audit_id: &event.audit_id, surprise, risk, repeated, over, rules };
            serde_json::to_writer(&mut out, &line)?;
            out.write_all(b"\n")?;
        }
    }
    out.flush()?;
    Ok(if unreadable { Exit::Partial } else { Exit::Good })
}
