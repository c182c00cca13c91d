//! `lapwing search QUERY`: what was stored, as a table or as lines of JSON.

use std::io::{self, Write};
use std::path::Path;
use std::time::Duration;

use chrono::{DateTime, Local, Utc};
use clap::ValueEnum;
use comfy_table::{Cell, Color, ContentArrangement, Table, presets};
use lapwing_engine::alert::Level;

use super::csv;
use super::terminal::{clean, clean_cut, is_interactive, quiet_pipe, wants_color};
use crate::store::originals::{self, Originals};
use crate::store::search::{MAX_LIMIT, TIME_LIMIT};
use crate::store::{Answer, Ask, Clock, Hit, Index, Kind, Order, Query, field};

const EXAMPLES: &str = "\
EXAMPLES
  lapwing search actor:alice outcome:denied --since 2h
  lapwing search 'action:exec ns:prod -actor:system:serviceaccount:*'
  lapwing search 'resource:secrets (verb:get OR verb:list) address:10.0.0.0/8'
  lapwing search 'kind:alert level:>=high' --oldest
  lapwing search '\"10.0.0.7\" curl*' --limit 200
  lapwing search audit:3f2c* --raw | jq .

A word finds text (path, user agent, names, command, summary); all words must be there. A value may
end in `*`. Join with blanks (and), OR, NOT or -, and parentheses; quote values that hold blanks.
A query that begins with a dash goes behind `--`.";

const EXIT_CODES: &str = "\
EXIT CODES
  0  something was found    1  nothing was    2  could not run";

/// Search stored events, alerts and rejects
///
/// Works while the service runs and when it does not. A table on a terminal, one JSON object a line in a pipe.
#[derive(Debug, Clone, Default, clap::Args)]
#[command(after_long_help = long_help())]
pub struct Args {
    /// What to look for; without it, everything
    #[arg(value_name = "QUERY")]
    pub query: Vec<String>,
    /// Not before: 2h, 3d, 2026-11-20, 2026-11-20T16:00Z
    #[arg(long, value_name = "TIME")]
    pub since: Option<String>,
    /// Not after
    #[arg(long, value_name = "TIME")]
    pub until: Option<String>,
    /// How many at most
    #[arg(long, short = 'n', value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(0..=MAX_LIMIT as i64))]
    pub limit: u32,
    /// Oldest first instead of newest first
    #[arg(long)]
    pub oldest: bool,
    /// Give up after so many seconds
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(1..=3600))]
    pub timeout: Option<u32>,
    /// How to print; a table on a terminal, ndjson otherwise
    #[arg(long, short, value_name = "FORMAT")]
    pub output: Option<Format>,
    /// Print the whole original (audit event or alert), one a line
    #[arg(long, conflicts_with = "output")]
    pub raw: bool,
    /// Show and read times in UTC instead of local time
    #[arg(long)]
    pub utc: bool,
    /// Flags that commands to type next must repeat.
    #[arg(skip)]
    pub again: String,
    /// No summary.
    #[arg(skip)]
    pub quiet: bool,
}

/// How hits are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    Table,
    Ndjson,
    Csv,
}

fn long_help() -> String {
    format!("{EXAMPLES}\n\nFIELDS\n{}\n{EXIT_CODES}", field::help())
}

/// Runs the command. Returns the exit status 0 or 1; an error is exit status 2.
pub fn run(args: &Args, data_dir: &Path) -> anyhow::Result<u8> {
    let query = query(args, Clock::system(args.utc))?;
    let index = Index::open_read_only(&data_dir.join("index"))?;
    let answer = index.searcher()?.search(&Ask {
        query,
        limit: args.limit as usize,
        order: order(args),
        within: time_limit(args),
    })?;
    let mut out = io::BufWriter::new(io::stdout().lock());
    let interactive = is_interactive();
    let format = args.output.unwrap_or(if interactive { Format::Table } else { Format::Ndjson });
    if args.raw {
        let originals = originals::open(data_dir)?;
        let missing = raw(&mut out, &answer, &*originals, interactive)?;
        if missing > 0 {
            eprintln!("{missing} of {} are no longer in the journal", answer.hits.len());
        }
    } else {
        let printed = match format {
            Format::Table if answer.hits.is_empty() => Ok(()),
            Format::Table => writeln!(out, "{}", table(&answer.hits, args.utc, None)),
            Format::Ndjson => ndjson(&mut out, &answer.hits),
            Format::Csv => csv(&mut out, &answer.hits, interactive),
        };
        quiet_pipe(printed.and_then(|()| out.flush()))?;
    }
    drop(out);
    if format == Format::Table && !args.raw && !args.quiet {
        eprintln!("{}", summary(&answer, &args.again));
    }
    Ok(u8::from(answer.total == 0))
}

fn time_limit(args: &Args) -> Duration {
    args.timeout.map_or(TIME_LIMIT, |seconds| Duration::from_secs(u64::from(seconds)))
}

fn order(args: &Args) -> Order {
    if args.oldest { Order::Oldest } else { Order::Newest }
}

/// The query of the words and flags together. Each is parsed on its own: a flag cannot be undone by
/// an `OR` or a parenthesis in the words.
fn query(args: &Args, clock: Clock) -> anyhow::Result<Query> {
    let mut query = Query::parse(&args.query.join(" "), clock)?;
    for (name, value) in [("since", &args.since), ("until", &args.until)] {
        if let Some(value) = value {
            query = query.and(Query::parse(&format!("{name}:{value}"), clock)?);
        }
    }
    Ok(query)
}

fn ndjson(out: &mut impl Write, hits: &[Hit]) -> io::Result<()> {
    for hit in hits {
        serde_json::to_writer(&mut *out, hit)?;
        out.write_all(b"\n")?;
    }
    Ok(())
}

/// With a header; on a terminal without what a terminal would obey.
fn csv(out: &mut impl Write, hits: &[Hit], interactive: bool) -> io::Result<()> {
    write!(out, "{}\r\n", csv::record(&csv::COLUMNS))?;
    for hit in hits {
        let record = csv::hit(hit);
        write!(out, "{}\r\n", if interactive { clean(&record) } else { record.into() })?;
    }
    Ok(())
}

/// Prints originals, one a line; returns how many were no longer there.
fn raw(out: &mut impl Write, answer: &Answer, originals: &dyn Originals, interactive: bool) -> anyhow::Result<usize> {
    let mut missing = 0;
    for hit in &answer.hits {
        let text = match hit.kind {
            Kind::Alert => originals.alert(hit.position.lsn)?.map(|a| serde_json::to_string(&a)).transpose()?,
            Kind::Event | Kind::Reject => originals.event(hit.position)?,
        };
        let Some(text) = text else {
            missing += 1;
            continue;
        };
        // One line each even if the sender wrote several: a raw line break is only ever white space in JSON.
        let line = if interactive { clean(&text).into_owned() } else { text.replace(['\n', '\r'], " ") };
        if quiet_pipe(writeln!(out, "{line}")).is_err() {
            break;
        }
    }
    quiet_pipe(out.flush())?;
    Ok(missing)
}

fn summary(answer: &Answer, again: &str) -> String {
    let Answer { hits, total } = answer;
    let alert = hits.iter().find(|h| h.kind == Kind::Alert);
    let next = match (alert.or(hits.first()), hits.len() < *total) {
        (None, false) => {
            "nothing found; other words, or a longer time? `lapwing search --help` lists the fields".to_owned()
        }
        (None, true) => "none shown".to_owned(),
        (Some(hit), cut) => {
            let more = if cut { "; --limit shows more" } else { "" };
            format!("next: lapwing show{again} {}{more}", clean_cut(&short_id(hit), 64))
        }
    };
    if hits.is_empty() && *total == 0 { next } else { format!("{} of {total} shown; {next}", hits.len()) }
}

/// What `lapwing show` takes: the start of an alert's id, or the position of anything else.
pub(super) fn short_id(hit: &Hit) -> String {
    match hit.kind {
        Kind::Alert => hit.id.chars().take(12).collect(),
        Kind::Event | Kind::Reject => hit.position.to_string(),
    }
}

/// The hits in columns fitted to `width`, or to the terminal; two lines a hit where columns have no room.
pub(super) fn table(hits: &[Hit], utc: bool, width: Option<u16>) -> String {
    /// Narrower columns break words in the middle.
    const ROOM: u16 = 120;
    let terminal = || Table::new().width().filter(|_| is_interactive()).map(|w| w.saturating_sub(2));
    let Some(width) = width.or_else(terminal) else { return columns(hits, utc, None).trim_fmt() };
    if width < ROOM {
        let natural = columns(hits, utc, Some(u16::MAX)).trim_fmt();
        if natural.lines().any(|line| line.chars().count() > usize::from(width)) {
            return two_lines(hits, utc, usize::from(width));
        }
    }
    columns(hits, utc, Some(width)).trim_fmt()
}

fn two_lines(hits: &[Hit], utc: bool, width: usize) -> String {
    let mut lines = Vec::with_capacity(2 * hits.len());
    for hit in hits {
        let kind = match hit.kind {
            Kind::Alert => hit.level.map_or("alert", Level::as_str),
            Kind::Event => "event",
            Kind::Reject => "reject",
        };
        let who = [when(hit.time, utc), kind.to_owned(), short_id(hit), actor(hit), hit.address.clone()];
        let target = target(&hit.resource, &hit.namespace, &hit.name);
        let what = [action(hit), target, outcome(&hit.outcome, hit.code)];
        for (indent, parts, between) in [("", &who[..], "  "), ("    ", &what[..], ", ")] {
            let parts: Vec<&str> = parts.iter().map(|p| p.as_str()).filter(|p| !p.is_empty()).collect();
            lines.push(format!("{indent}{}", clean_cut(&parts.join(between), width - indent.len())));
        }
    }
    lines.join("\n")
}

fn columns(hits: &[Hit], utc: bool, width: Option<u16>) -> Table {
    const MOST: usize = 90;
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Dynamic);
    if let Some(width) = width {
        table.set_width(width);
    }
    if !wants_color() {
        table.force_no_tty();
    }
    let zone = if utc { "TIME (UTC)" } else { "TIME" };
    table.set_header([zone, "KIND", "ACTOR", "ACTION", "TARGET", "OUTCOME", "ADDRESS", "ID"]);
    for hit in hits {
        let text = |t: &str| Cell::new(clean_cut(t, MOST));
        table.add_row([
            Cell::new(when(hit.time, utc)),
            kind_cell(hit),
            text(&actor(hit)),
            text(&action(hit)),
            text(&target(&hit.resource, &hit.namespace, &hit.name)),
            text(&outcome(&hit.outcome, hit.code)),
            text(&hit.address),
            text(&short_id(hit)),
        ]);
    }
    for column in [0, 1, 7] {
        if let Some(c) = table.column_mut(column) {
            c.set_constraint(comfy_table::ColumnConstraint::ContentWidth);
        }
    }
    table
}

fn kind_cell(hit: &Hit) -> Cell {
    match (hit.kind, hit.level) {
        (Kind::Alert, Some(level)) => {
            let cell = Cell::new(level);
            match level {
                Level::Critical | Level::High => cell.fg(Color::Red),
                Level::Medium => cell.fg(Color::Yellow),
                Level::Low | Level::Informational => cell,
            }
        }
        (Kind::Alert, None) => Cell::new("alert"),
        (Kind::Event, _) => Cell::new("event"),
        (Kind::Reject, _) => Cell::new("reject"),
    }
}

fn actor(hit: &Hit) -> String {
    if hit.acting_as.is_empty() { hit.actor.clone() } else { format!("{} as {}", hit.actor, hit.acting_as) }
}

/// Alerts are named by their rule, rejects by what was wrong.
fn action(hit: &Hit) -> String {
    match hit.kind {
        Kind::Event => hit.action.clone(),
        Kind::Reject => hit.summary.clone(),
        Kind::Alert if hit.count > 1 => format!("{} (×{})", hit.title, hit.count),
        Kind::Alert => hit.title.clone(),
    }
}

/// `pods/exec shop/web-0`.
pub(super) fn target(resource: &str, namespace: &str, name: &str) -> String {
    let object = match (namespace.is_empty(), name.is_empty()) {
        (true, _) => name.to_owned(),
        (false, true) => format!("{namespace}/"),
        (false, false) => format!("{namespace}/{name}"),
    };
    format!("{resource} {object}").trim().to_owned()
}

/// `denied 403`.
pub(super) fn outcome(outcome: &str, code: Option<u16>) -> String {
    match code {
        Some(code) => format!("{outcome} {code}").trim().to_owned(),
        None => outcome.to_owned(),
    }
}

/// Seconds are enough for a person; JSON has the microseconds.
pub(super) fn when(time: DateTime<Utc>, utc: bool) -> String {
    const FORMAT: &str = "%Y-%m-%d %H:%M:%S";
    if utc { time.format(FORMAT).to_string() } else { time.with_timezone(&Local).format(FORMAT).to_string() }
}

/// To the microsecond, as JSON has it.
pub(super) fn when_exactly(time: DateTime<Utc>) -> String {
    serde_json::to_value(time).ok().and_then(|v| v.as_str().map(str::to_owned)).unwrap_or_default()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may stop")]
mod tests {
    use super::*;
    use crate::store::tests::{NOW, alert, clock, exec, filled};
    use crate::store::{EventDoc, Progress, originals::InMemory};
    use clap::Parser;

    #[derive(Debug, Parser)]
    struct Cli {
        #[command(flatten)]
        args: Args,
    }

    fn args(words: &[&str]) -> Args {
        Cli::try_parse_from(std::iter::once(&"search").chain(words)).unwrap_or_else(|e| panic!("{e}")).args
    }

    fn ask(index: &Index, query: Query) -> Answer {
        index.searcher().unwrap().search(&Ask { query, limit: 50, order: Order::Newest, within: TIME_LIMIT }).unwrap()
    }

    #[test]
    fn words_and_flags_make_one_query() {
        let a = args(&["actor:alice", "--since", "2h", "text words", "-n", "9", "--", "-verb:get"]);
        assert_eq!(a.query, ["actor:alice", "text words", "-verb:get"]);
        assert_eq!((a.limit, a.since.as_deref()), (9, Some("2h")));
        let q = query(&args(&["a", "OR", "b", "--since", "2h"]), clock()).unwrap();
        let Query::And(both) = q else { panic!("{q:?}") };
        assert!(matches!(both.as_slice(), [Query::Or(_), Query::Since(_)]));
        assert!(query(&args(&["--since", "2h) OR (a"]), clock()).is_err(), "a flag stays what it is");
        assert!(Cli::try_parse_from(["search", "--limit", "10001"]).is_err());
    }

    #[test]
    fn the_table_fits_and_obeys_nobody() {
        let dir = tempfile::tempdir().unwrap();
        let index = filled(dir.path());
        let mut w = index.writer().unwrap();
        let long = "x".repeat(3000);
        let hostile = EventDoc { time: NOW, actor: "eve\u{1b}[2J\u{202e}", name: &long, ..exec() };
        w.add_event(&hostile, 9, 0).unwrap();
        w.commit(Progress::default()).unwrap();
        let hits = ask(&index, Query::All).hits;
        for width in [60, 100, 200] {
            let text = table(&hits, true, Some(width));
            assert!(text.lines().all(|l| l.chars().count() <= usize::from(width)), "{width}\n{text}");
            assert!(!text.contains(['\u{1b}', '\u{202e}']));
        }
        assert!(table(&hits, true, Some(80)).contains("high  f00dcafe00  alice@example.com"), "whole words");
        let text = table(&hits, true, Some(200));
        for part in ["2026-11-20 15:52:37", "eve\\x1b[2J", "high", "Exec into a pod", "cut off at byte 12", "7:1"] {
            assert!(text.contains(part), "{part}\n{text}");
        }
    }

    #[test]
    fn ndjson_is_one_object_a_line() {
        let dir = tempfile::tempdir().unwrap();
        let index = filled(dir.path());
        let mut out = Vec::new();
        ndjson(&mut out, &ask(&index, Query::All).hits).unwrap();
        let lines: Vec<serde_json::Value> =
            out.split(|b| *b == b'\n').filter(|l| !l.is_empty()).map(|l| serde_json::from_slice(l).unwrap()).collect();
        assert_eq!(lines.len(), 4);
        assert_eq!(lines[1]["rule"], "exec-into-pod");
    }

    #[test]
    fn raw_prints_the_originals_that_are_left() {
        let dir = tempfile::tempdir().unwrap();
        let index = filled(dir.path());
        let mut originals = InMemory::default();
        originals.events.insert("7:0".parse().unwrap(), "{\"verb\":\n\"create\"}".into());
        originals.alerts.insert(3, alert("f00dcafe00", 1, 5));
        let mut out = Vec::new();
        let missing = raw(&mut out, &ask(&index, Query::All), &originals, false).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert_eq!((missing, text.lines().count()), (2, 2));
        assert!(text.contains("{\"verb\": \"create\"}\n"), "{text}");
        originals.events.insert("7:1".parse().unwrap(), "{\"name\":\"\u{9b}2J\"}".into());
        let printed = |interactive| {
            let mut out = Vec::new();
            raw(&mut out, &ask(&index, Query::All), &originals, interactive).unwrap();
            String::from_utf8(out).unwrap()
        };
        assert!(printed(false).contains('\u{9b}') && !printed(true).contains('\u{9b}'));
    }

    #[test]
    fn the_last_line_says_what_next() {
        let dir = tempfile::tempdir().unwrap();
        let index = filled(dir.path());
        assert_eq!(
            summary(&ask(&index, Query::All), " --data-dir d"),
            "4 of 4 shown; next: lapwing show --data-dir d f00dcafe00"
        );
        let nothing = Query::parse("zebra", clock()).unwrap();
        assert!(summary(&ask(&index, nothing), "").starts_with("nothing found"));
    }

    #[test]
    fn exit_status_tells_whether_something_was_found() {
        let dir = tempfile::tempdir().unwrap();
        drop(filled(&dir.path().join("index")));
        assert_eq!(run(&args(&["kind:alert"]), dir.path()).unwrap(), 0);
        assert_eq!(run(&args(&["zebra"]), dir.path()).unwrap(), 1);
        assert!(run(&args(&["zebra:1"]), dir.path()).is_err());
        assert!(run(&args(&[]), &dir.path().join("none")).unwrap_err().to_string().contains("no index"));
    }
}
