//! `lapwing rules`: what judges, whether it is right, and why it spoke.

mod coverage;
mod import;
mod lint;
mod test;

use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use comfy_table::{Cell, Color, ColumnConstraint, ContentArrangement, Table, presets};
use lapwing_engine::alert::Level;
use lapwing_engine::event::{AuditLevel, Event};
use lapwing_engine::facts::Facts;
use lapwing_engine::memory::{self, Memory, Sight};
use lapwing_engine::redact;
use lapwing_engine::rule::correlation::Part;
use lapwing_engine::rule::file::Meta;
use lapwing_engine::rule::set::RuleSet;
use lapwing_engine::words;

use super::scan::Format;
use super::terminal::clean;
use super::{Exit, Globals, print};
use crate::input::{Events, Limits};
use crate::lint::level;
use crate::ruleset::{DEFAULT_FILTERS, Selection, packs};

/// List, check, test and explain rules
#[derive(Debug, clap::Args)]
#[command(after_long_help = "EXAMPLES
  lapwing rules list
  lapwing rules check my-rules/
  lapwing rules test
  lapwing rules explain exec-into-pod event.json")]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

/// Which rules a command is about.
#[derive(Clone, Debug, clap::Args)]
struct Which {
    /// Files or directories of rules beside the built-in ones
    #[arg(long = "rules", value_name = "PATH")]
    paths: Vec<PathBuf>,
    /// Leave out the built-in rules
    #[arg(long, requires = "paths")]
    only_rules: bool,
    /// Packs of filters that are on, with commas between; `none` for none
    #[arg(long, value_name = "NAMES", value_delimiter = ',', default_values_t = DEFAULT_FILTERS.map(str::to_owned))]
    filters: Vec<String>,
}

impl Which {
    fn selection(&self) -> Selection {
        let filters = self.filters.iter().filter(|f| *f != "none").cloned().collect();
        Selection { paths: self.paths.clone(), only_paths: self.only_rules, filters, ..Selection::default() }
    }
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// List the rules that would judge
    #[command(after_long_help = "EXAMPLES
  lapwing rules list
  lapwing rules list --output ndjson | jq -r 'select(.level == \"critical\") | .id'")]
    List {
        #[command(flatten)]
        which: Which,
        /// How to print [default: text on a terminal, else ndjson]
        #[arg(short, long, value_enum)]
        output: Option<Format>,
    },
    /// Tell everything that is wrong with rule files
    ///
    /// Without a path the built-in rules are checked. Problems are printed as file:line:column, all at once.
    #[command(after_long_help = "EXAMPLES
  lapwing rules check
  lapwing rules check my-rules/ other.yml

EXIT CODES
  0  nothing is wrong    1  something is    2  a file cannot be read")]
    Check {
        /// Rule files or directories, checked together with the built-in rules
        paths: Vec<PathBuf>,
    },
    /// Run the tests beside rule files
    ///
    /// The tests of x.yml are in x.test.yml: events, and whether the rule matches, does not, or cannot decide.
    #[command(after_long_help = "EXAMPLES
  lapwing rules test
  lapwing rules test my-rules/
  lapwing rules test --only exec-into-pod

EXIT CODES
  0  every test passed    1  one failed, or a rule is wrong    2  a file cannot be read")]
    Test {
        /// Rule files or directories with tests, beside the built-in ones
        paths: Vec<PathBuf>,
        /// Only the tests of this rule
        #[arg(long, value_name = "RULE")]
        only: Option<String>,
    },
    /// Tell why a rule does or does not match an event
    ///
    /// Prints a tree of what the rule wants, the values of the event, and what held.
    #[command(after_long_help = "EXAMPLES
  lapwing rules explain exec-into-pod event.json
  lapwing search --raw 'verb:get resource:pods/exec' | lapwing rules explain exec-into-pod -")]
    Explain {
        /// Id of the rule
        rule: String,
        /// File with one or a few events, `-` for standard input
        event: PathBuf,
        #[command(flatten)]
        which: Which,
        /// How to print
        #[arg(short, long, value_enum, default_value = "text")]
        output: Format,
    },
    Coverage(coverage::Args),
    Import(import::Args),
    Lint(lint::Args),
}

/// # Errors
/// When a file cannot be read or the output not be written.
pub fn run(args: Args, globals: &Globals) -> anyhow::Result<Exit> {
    match args.command {
        Command::List { which, output } => list(&which, output, globals),
        Command::Check { paths } => check(paths, globals),
        Command::Test { paths, only } => test::run(paths, only.as_deref(), globals),
        Command::Explain { rule, event, which, output } => explain(&rule, &event, &which, output),
        Command::Coverage(args) => coverage::run(&args),
        Command::Import(args) => import::run(&args, globals),
        Command::Lint(args) => lint::run(args, globals),
    }
}

#[derive(serde::Serialize)]
#[serde(rename_all = "camelCase")]
struct Listed<'a> {
    id: &'a str,
    title: &'a str,
    level: &'static str,
    kind: &'static str,
    /// The least audit level it can be decided at.
    needs: &'static str,
    tags: &'a [String],
    path: String,
    /// Why it does not run: a list that is empty, a pack of filters that is off.
    #[serde(skip_serializing_if = "Option::is_none")]
    inactive: Option<String>,
}

fn listed(set: &RuleSet) -> Vec<Listed<'_>> {
    let one = |m, kind, needs: AuditLevel, path: &Path| -> Listed<'_> {
        let m: &Meta = m;
        let path = path.display().to_string();
        let (level, needs) = (m.level.as_str(), needs.as_str());
        Listed { id: &m.id, title: &m.title, level, kind, needs, tags: &m.tags, path, inactive: None }
    };
    let rules = set.rules().iter().map(|r| one(&r.meta, "rule", level::of_rule(r), &r.path));
    let correlations =
        set.correlations().iter().map(|c| one(&c.meta, c.kind.as_str(), level::of_correlation(set, c), &c.path));
    let asleep = set.asleep().iter().map(|a| Listed {
        inactive: Some(format!("rules.lists has no `{}`", a.lists.join("`, `"))),
        ..one(&a.meta, "rule", AuditLevel::Metadata, &a.path)
    });
    let mut all: Vec<Listed<'_>> = rules.chain(correlations).chain(asleep).collect();
    all.sort_by(|a, b| a.path.cmp(&b.path).then(a.id.cmp(b.id)));
    all
}

fn list(which: &Which, output: Option<Format>, globals: &Globals) -> anyhow::Result<Exit> {
    let set = which.selection().load()?;
    let terminal = std::io::stdout().is_terminal();
    let rows = listed(&set);
    let mut out = Vec::new();
    if output.unwrap_or(if terminal { Format::Text } else { Format::Ndjson }) == Format::Ndjson {
        for row in &rows {
            serde_json::to_writer(&mut out, row)?;
            out.push(b'\n');
        }
        return print(&out);
    }
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Dynamic);
    table.set_header(["LEVEL", "RULE", "NEEDS", "TITLE"]);
    for row in &rows {
        let title = row.inactive.as_ref().map_or(row.title.to_owned(), |why| format!("{} (asleep: {why})", row.title));
        table.add_row([
            level_cell(Level::parse(row.level).unwrap_or_default(), globals.color_stdout()),
            Cell::new(clean(row.id)),
            Cell::new(row.needs),
            Cell::new(clean(&title)),
        ]);
    }
    for column in [0, 1, 2] {
        if let Some(c) = table.column_mut(column) {
            c.set_constraint(ColumnConstraint::ContentWidth);
        }
    }
    let off: Vec<String> = packs().into_iter().filter(|p| !which.filters.contains(p)).collect();
    writeln!(out, "{}\n{} rules", table.trim_fmt(), rows.len())?;
    writeln!(out, "filter packs on: {}; off: {}", which.filters.join(", "), off.join(", "))?;
    print(&out)
}

/// The colour is the table's: an escape sequence in the text would be counted as letters.
fn level_cell(level: Level, colours: bool) -> Cell {
    let cell = Cell::new(level.as_str().to_uppercase());
    match level {
        _ if !colours => cell,
        Level::Critical | Level::High => cell.fg(Color::Red),
        Level::Medium => cell.fg(Color::Yellow),
        Level::Low | Level::Informational => cell,
    }
}

fn check(paths: Vec<PathBuf>, globals: &Globals) -> anyhow::Result<Exit> {
    let selection = Selection { paths, ..Selection::default() };
    let (set, errors) = RuleSet::load_lenient(selection.rule_files()?, &selection.options());
    let mut out = std::io::stdout().lock();
    for problem in errors.iter().chain(set.warnings()) {
        writeln!(out, "{}", clean(&problem.to_string()))?;
    }
    if !globals.quiet {
        let (good, bad) = (set.rules().len() + set.correlations().len(), errors.len());
        writeln!(out, "{good} rules are good, {bad} errors, {} warnings", set.warnings().len())?;
    }
    Ok(if errors.is_empty() { Exit::Good } else { Exit::Found })
}

/// Events of a file that `explain` explains at most.
const MOST: usize = 20;

fn explain(id: &str, path: &Path, which: &Which, output: Format) -> anyhow::Result<Exit> {
    let set = which.selection().load()?;
    let Some(part) = set.find(id) else {
        let ids: Vec<&str> = set.rules().iter().map(|r| r.meta.id.as_str()).collect();
        let near = lapwing_engine::field::nearest(id, &ids).map(|n| format!("; did you mean `{n}`?"));
        bail!("there is no rule `{id}`{}", near.unwrap_or_default());
    };
    let Part::Rule(index) = part else {
        let Part::Correlation(c) = part else { bail!("there is no rule `{id}`") };
        let parts: Vec<&str> = set.correlations()[c].parts.iter().map(|p| set.meta(*p).id.as_str()).collect();
        if parts.is_empty() {
            bail!("`{id}` counts the findings of all rules; `lapwing scan` shows what they find");
        }
        bail!("`{id}` counts matches of other rules over time; explain one of them: {}", parts.join(", "));
    };
    let rule = &set.rules()[index];
    let mut events =
        Events::open(path, Limits::default()).with_context(|| format!("cannot open `{}`", path.display()))?;
    let mut out = std::io::stdout().lock();
    let mut memory = Memory::new(memory::DEFAULT_CAP);
    let mut explained = 0;
    while let Some(item) = events.next() {
        let text = match item {
            Ok(text) => redact::event(text).into_owned(),
            Err(e) => bail!("{}:{}: {}", path.display(), e.line, e.detail),
        };
        let event = Event::parse(&text).with_context(|| format!("`{}` holds something else", path.display()))?;
        let facts = Facts::new(&event, &text, "local");
        let (explanation, places, told) = {
            let sight = Sight::new(&facts, &memory);
            (rule.explain(&sight), sight.places(), words::tell(&sight, ""))
        };
        memory.learn(&facts, places);
        if output == Format::Ndjson {
            serde_json::to_writer(&mut out, &explanation)?;
            writeln!(out)?;
        } else {
            writeln!(out, "{}", clean(&told.summary))?;
            writeln!(out, "audit id {}, stage {}", clean(&event.audit_id), event.stage.as_str())?;
            if !rule.sees(event.stage) {
                writeln!(out, "the rule does not look at this stage: it judges a request when it is answered")?;
            }
            for line in explanation.to_string().lines() {
                writeln!(out, "{}", clean(line))?;
            }
            writeln!(out)?;
        }
        explained += 1;
        if explained == MOST {
            writeln!(std::io::stderr(), "only the first {MOST} events are explained")?;
            break;
        }
    }
    if explained == 0 {
        bail!("`{}` holds no event", path.display());
    }
    Ok(Exit::Good)
}
