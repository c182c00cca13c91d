//! `lapwing scan`: audit files through the engine, once.

mod report;

use std::io::{BufWriter, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use clap::ValueEnum;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use lapwing_engine::alert::Level;
use lapwing_engine::baseline;
use lapwing_engine::engine::{Engine, Options, Output};
use lapwing_engine::event::{Event, NotAnEvent};

use super::{Exit, Globals};
use crate::input::{Events, Limits, reason};
use crate::ruleset::{DEFAULT_FILTERS, Selection};
use report::Report;

/// Look at audit files once and report what is in them
///
/// Reads JSON lines, an EventList, a JSON array or any of these one after another; gzip and zstd are recognised.
/// On a terminal it prints a report, into a pipe one JSON alert a line (an alert that grew is printed again, with the
/// same id and `"status":"update"`).
#[derive(Debug, clap::Args)]
#[command(after_long_help = "EXAMPLES
  lapwing scan audit.log
  lapwing scan /var/log/kubernetes/audit*.log.gz
  zstdcat audit.log.zst | lapwing scan -
  lapwing scan --findings --output ndjson audit.log | jq -r .summary
  lapwing scan --fail-on high audit.log            in a pipeline
  lapwing scan --rules ./my-rules --only-rules audit.log
  lapwing scan --filters kubeadm,argocd,cert-manager audit.log

EXIT CODES
  0  done; without --fail-on also when there are alerts
  1  there is a finding of the level of --fail-on or above
  2  could not run: a rule is wrong, a file cannot be opened
  3  some input was unreadable; the rest was scanned (1 comes first)")]
pub struct Args {
    /// Audit files, `-` for standard input
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Print every finding instead of alerts that group them
    #[arg(long)]
    findings: bool,
    /// How to print [default: text on a terminal, else ndjson]
    #[arg(short, long, value_enum, value_name = "FORMAT")]
    output: Option<Format>,
    /// Exit with 1 when there is a finding of this level or above
    #[arg(long, value_name = "LEVEL", value_parser = level)]
    fail_on: Option<Level>,
    /// Leave out findings below this level
    #[arg(long, value_name = "LEVEL", default_value = "informational", value_parser = level)]
    min_level: Level,
    /// More rules: files or directories
    #[arg(long, value_name = "PATH")]
    rules: Vec<PathBuf>,
    /// Learn what is normal for each identity on the way, and tell of what is not
    #[arg(long)]
    baseline: bool,
    /// Only the rules of --rules, not the built-in ones
    #[arg(long, requires = "rules")]
    only_rules: bool,
    /// Packs of filters that are on, with commas between; `none` for none
    #[arg(long, value_name = "NAMES", value_delimiter = ',', default_values_t = DEFAULT_FILTERS.map(str::to_owned))]
    filters: Vec<String>,
    /// Values of a list that rules ask for, as `name=value,value`; may be repeated
    #[arg(long = "list", value_name = "NAME=VALUES", value_parser = list)]
    lists: Vec<(String, Vec<String>)>,
    /// Name of the cluster the files come from
    #[arg(long, default_value = "local", value_name = "NAME")]
    cluster: String,
    /// Explain each alert in full: evidence, why it matters, what to do
    #[arg(short, long)]
    verbose: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    Text,
    Ndjson,
}

/// Parses a level for clap.
pub fn level(text: &str) -> Result<Level, String> {
    Level::parse(&text.to_lowercase())
        .ok_or_else(|| format!("expected one of {}", Level::ALL.map(Level::as_str).join(", ")))
}

/// Parses `name=value,value` for clap.
fn list(text: &str) -> Result<(String, Vec<String>), String> {
    let (name, values) = text.split_once('=').ok_or("expected a name, `=`, and values with commas between")?;
    Ok((name.to_owned(), values.split(',').filter(|v| !v.is_empty()).map(str::to_owned).collect()))
}

/// # Errors
/// When rules cannot be loaded, no file can be opened or the output cannot be written.
pub fn run(args: Args, globals: &Globals) -> anyhow::Result<Exit> {
    let selection = Selection {
        paths: args.rules.clone(),
        only_paths: args.only_rules,
        filters: args.filters.iter().filter(|f| *f != "none").cloned().collect(),
        lists: args.lists.iter().cloned().collect(),
        ..Selection::default()
    };
    let rules = selection.load()?;
    let baseline = args.baseline.then(baseline::Options::default);
    let options = Options { min_level: args.min_level, brief: !args.findings, baseline, ..Options::default() };
    let terminal = std::io::stdout().is_terminal();
    let format = args.output.unwrap_or(if terminal { Format::Text } else { Format::Ndjson });
    let mut scan = Scan::new(Engine::new(rules, options), args.cluster.clone());
    let mut sink = Sink {
        out: BufWriter::new(std::io::stdout().lock()),
        format,
        findings: args.findings,
        colours: globals.color_stdout(),
        verbose: args.verbose,
        report: Report::default(),
    };
    for path in &args.files {
        scan_file(&mut scan, path, globals.quiet, &mut sink)?;
    }
    let mut rest = Output::default();
    scan.engine.finish(&mut rest);
    sink.take(rest)?;
    sink.finish(&scan, globals.quiet)?;
    Ok(sink.exit(&scan, args.fail_on))
}

fn scan_file(scan: &mut Scan, path: &Path, quiet: bool, sink: &mut Sink<impl Write>) -> anyhow::Result<()> {
    let mut events =
        Events::open(path, Limits::default()).with_context(|| format!("cannot open `{}`", path.display()))?;
    let bar = progress_bar(path, events.progress().total, quiet);
    let mut seen = 0u32;
    let mut output = Output::default();
    while let Some(item) = events.next() {
        match item.map(|text| scan.event(text, &mut output)) {
            Ok(Ok(())) => {}
            Ok(Err(error)) => scan.unreadable(path, events.item_line(), reason(&error).as_str(), &error.to_string()),
            Err(e) => scan.unreadable(path, e.line, e.reason.as_str(), &e.detail),
        }
        if !output.findings.is_empty() || !output.alerts.is_empty() {
            sink.take(std::mem::take(&mut output))?;
        }
        seen = seen.wrapping_add(1);
        if seen.is_multiple_of(1024) {
            bar.set_position(events.progress().read());
        }
    }
    bar.finish_and_clear();
    Ok(())
}

fn progress_bar(path: &Path, total: Option<u64>, quiet: bool) -> ProgressBar {
    if quiet || !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = total.map_or_else(ProgressBar::new_spinner, ProgressBar::new);
    let template = if total.is_some() {
        "{msg} {wide_bar} {bytes}/{total_bytes} {bytes_per_sec} {eta}"
    } else {
        "{spinner} {msg} {bytes} {bytes_per_sec}"
    };
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    bar.set_draw_target(ProgressDrawTarget::stderr_with_hz(5));
    bar.set_message(path.display().to_string());
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}

/// Something in the input that was not scanned.
#[derive(Clone, Debug)]
pub struct Unreadable {
    pub path: PathBuf,
    pub line: u64,
    pub reason: String,
    pub detail: String,
}

/// How many unreadable places are named; the rest is counted.
const NAMED: usize = 20;

/// The engine over files: time is the newest event time so far.
pub struct Scan {
    pub engine: Engine,
    cluster: String,
    now: Option<i64>,
    pub unreadable: Vec<Unreadable>,
    pub unreadable_count: u64,
}

impl Scan {
    pub fn new(engine: Engine, cluster: String) -> Self {
        Self { engine, cluster, now: None, unreadable: Vec::new(), unreadable_count: 0 }
    }

    /// One event's text.
    ///
    /// # Errors
    /// When it is none.
    pub fn event(&mut self, text: &str, out: &mut Output) -> Result<(), NotAnEvent> {
        let now = *self.now.get_or_insert_with(|| Event::parse(text).ok().and_then(|e| e.time()).unwrap_or_default());
        let time = self.engine.event(&self.cluster, text, now, &String::new, out)?;
        let now = time.map_or(now, |t| t.max(now));
        self.now = Some(now);
        self.engine.tick(now, out);
        Ok(())
    }

    fn unreadable(&mut self, path: &Path, line: u64, reason: &str, detail: &str) {
        self.unreadable_count += 1;
        if self.unreadable.len() < NAMED {
            let (reason, detail) = (reason.to_owned(), detail.to_owned());
            self.unreadable.push(Unreadable { path: path.to_owned(), line, reason, detail });
        }
    }
}

/// Where results go.
struct Sink<W: Write> {
    out: W,
    format: Format,
    findings: bool,
    colours: bool,
    verbose: bool,
    report: Report,
}

impl<W: Write> Sink<W> {
    fn take(&mut self, output: Output) -> anyhow::Result<()> {
        for finding in &output.findings {
            self.report.finding(finding);
        }
        match (self.format, self.findings) {
            (Format::Ndjson, true) => self.lines(&output.findings),
            (Format::Ndjson, false) => self.lines(&output.alerts),
            (Format::Text, true) => {
                for finding in &output.findings {
                    report::finding(&mut self.out, finding, self.colours)?;
                }
                Ok(())
            }
            (Format::Text, false) => {
                output.alerts.into_iter().for_each(|alert| self.report.alert(alert));
                Ok(())
            }
        }
    }

    fn lines<T: serde::Serialize>(&mut self, items: &[T]) -> anyhow::Result<()> {
        for item in items {
            serde_json::to_writer(&mut self.out, item)?;
            self.out.write_all(b"\n")?;
        }
        Ok(())
    }

    fn finish(&mut self, scan: &Scan, quiet: bool) -> anyhow::Result<()> {
        if self.format == Format::Text && !self.findings {
            self.report.print(&mut self.out, self.colours, self.verbose)?;
        }
        self.out.flush()?;
        if !quiet {
            self.report.summary(&mut std::io::stderr().lock(), scan)?;
        }
        Ok(())
    }

    fn exit(&self, scan: &Scan, fail_on: Option<Level>) -> Exit {
        let found = fail_on.is_some_and(|level| self.report.highest().is_some_and(|h| h >= level));
        match (found, scan.unreadable_count) {
            (true, _) => Exit::Found,
            (false, 0) => Exit::Good,
            _ => Exit::Partial,
        }
    }
}
