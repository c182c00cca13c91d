//! `lapwing rules lint`: what `check` does not say.

use std::io::Write;
use std::path::PathBuf;

use serde_json::json;

use super::super::scan::Format;
use crate::cli::terminal::clean;
use crate::cli::{Exit, Globals, print};
use crate::lint::{Files, lint};
use crate::ruleset::{Selection, packs};

/// Tell what is doubtful about rules that load
///
/// Rules that can never match a real event, that say what another rule says, that exempt what an attacker
/// may choose, or that lack tests and explanations. Without a path the built-in rules are looked at.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "EXAMPLES
  lapwing rules lint
  lapwing rules lint my-rules/
  lapwing rules lint my-rules/ --output ndjson | jq -r 'select(.kind == \"never-matches\")'

EXIT CODES
  0  nothing to say    1  something is doubtful or wrong    2  a file cannot be read")]
pub struct Args {
    /// Rule files or directories
    paths: Vec<PathBuf>,
    /// How to print
    #[arg(short, long, value_enum, default_value = "text")]
    output: Format,
}

/// # Errors
/// When a file cannot be read or the output not be written.
pub fn run(args: Args, globals: &Globals) -> anyhow::Result<Exit> {
    let built_in = Selection::default();
    let today = Some(chrono::Utc::now().date_naive());
    let files = if args.paths.is_empty() {
        let built_in = Selection { filters: packs(), ..built_in };
        Files { rules: built_in.rule_files()?, tests: built_in.test_files()?, others: Vec::new(), today }
    } else {
        let own = Selection { paths: args.paths, only_paths: true, ..Selection::default() };
        Files { rules: own.rule_files()?, tests: own.test_files()?, others: built_in.rule_files()?, today }
    };
    let (remarks, errors) = lint(&files);
    let mut out = Vec::new();
    for error in &errors {
        match args.output {
            Format::Text => writeln!(out, "{}", clean(&error.to_string()))?,
            Format::Ndjson => {
                let line = json!({ "path": error.path, "line": error.place.line, "column": error.place.column,
                    "rule": error.rule, "kind": "error", "text": error.fault.to_string() });
                writeln!(out, "{line}")?;
            }
        }
    }
    for remark in &remarks {
        match args.output {
            Format::Text => writeln!(out, "{}", clean(&remark.to_string()))?,
            Format::Ndjson => {
                let line = json!({ "path": remark.path, "line": remark.at.line, "column": remark.at.column,
                    "rule": remark.rule, "kind": remark.kind.as_str(), "text": remark.text });
                writeln!(out, "{line}")?;
            }
        }
    }
    if !globals.quiet && args.output == Format::Text {
        writeln!(out, "{} files, {} remarks, {} errors", files.rules.len(), remarks.len(), errors.len())?;
    }
    print(&out)?;
    Ok(if remarks.is_empty() && errors.is_empty() { Exit::Good } else { Exit::Found })
}
