//! `lapwing journal`: what is stored and whether it is whole. Reads only; works beside a running service.

use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::{Subcommand, ValueEnum};
use comfy_table::{Table, presets};
use serde_json::{Value, json};

use crate::journal::{CursorFile, Report, open_read_only, verify};
use crate::output::encode::json_line;

/// Tell what is stored, and whether all of it can be read
#[derive(Debug, clap::Args)]
#[command(after_long_help = "EXAMPLES
  lapwing journal stat                How much is stored, and how far each output came
  lapwing journal verify              Read all of it and check every checksum
  lapwing journal verify | jq .gaps   The same as NDJSON: which records are lost, and where

EXIT CODES
  0  good    1  something is damaged or missing (verify)    2  could not run")]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Read every record and check it
    ///
    /// Checks blocks, records, headers and the hash each file holds of the one before it. Changes nothing. The
    /// service does the same by itself, a file at a time, within a day.
    #[command(after_long_help = "EXAMPLES\n  lapwing journal verify\n  lapwing journal verify events")]
    Verify {
        /// Only this journal
        journal: Option<Which>,
    },
    /// Sizes and positions
    #[command(after_long_help = "EXAMPLES\n  lapwing journal stat\n  lapwing journal stat | jq .bytes")]
    Stat,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Which {
    /// What was accepted
    Events,
    /// What was found
    Alerts,
}

impl Which {
    const fn name(self) -> &'static str {
        match self {
            Self::Events => "events",
            Self::Alerts => "alerts",
        }
    }

    fn dir(self, data_dir: &Path) -> PathBuf {
        data_dir.join(match self {
            Self::Events => "journal",
            Self::Alerts => "alerts",
        })
    }
}

/// Runs the command. Returns the exit status 0 or 1; an error is exit status 2.
pub fn run(args: &Args, data_dir: &Path) -> Result<u8> {
    let mut out = std::io::stdout();
    let people = out.is_terminal();
    match args.command {
        Command::Verify { journal } => verify_all(journal, data_dir, people, &mut out),
        Command::Stat => stat(data_dir, people, &mut out),
    }
}

fn verify_all(journal: Option<Which>, data_dir: &Path, people: bool, out: &mut impl Write) -> Result<u8> {
    let mut clean = true;
    for which in [Which::Events, Which::Alerts].into_iter().filter(|w| journal.is_none_or(|j| j == *w)) {
        let report = verify(&which.dir(data_dir))?;
        clean &= report.is_clean();
        if people {
            tell(which, &report, out)?;
        } else {
            writeln!(out, "{}", json_line(&verified(which, &report))?)?;
        }
    }
    Ok(u8::from(!clean))
}

fn tell(which: Which, report: &Report, out: &mut impl Write) -> Result<()> {
    let records: u64 = report.segments.iter().map(|s| s.records).sum();
    let bytes: u64 = report.segments.iter().map(|s| s.bytes).sum();
    let verdict = if report.is_clean() { "whole" } else { "DAMAGED" };
    writeln!(
        out,
        "{}: {verdict}; {records} records, {} files, {:.1} MiB",
        which.name(),
        report.segments.len(),
        bytes as f64 / f64::from(1 << 20)
    )?;
    for gap in &report.gaps {
        let (from, to, cause, segment, at) = (gap.from, gap.to, gap.cause, gap.segment, gap.offset);
        writeln!(out, "  records {from} to {to} are {cause} ({segment:020}.wal at byte {at})")?;
    }
    for s in report.segments.iter().filter(|s| s.header_copy_lost) {
        writeln!(out, "  {:020}.wal: one of two copies of the header is damaged; nothing is lost", s.first)?;
    }
    for s in report.segments.iter().filter(|s| s.changed) {
        writeln!(out, "  {:020}.wal: not the bytes that were written; its records hold their checksums", s.first)?;
    }
    if report.torn.is_some() {
        writeln!(
            out,
            "  the last write is unfinished and was never acknowledged: normal after a crash and while it runs"
        )?;
    }
    Ok(())
}

fn verified(which: Which, report: &Report) -> Value {
    let gap = |g: &crate::journal::Gap| json!({ "from": g.from.0, "to": g.to.0, "cause": g.cause.as_str(), "segment": g.segment.0, "offset": g.offset });
    let first = |s: &crate::journal::SegmentReport| s.first.0;
    json!({
        "journal": which.name(),
        "clean": report.is_clean(),
        "files": report.segments.len(),
        "records": report.segments.iter().map(|s| s.records).sum::<u64>(),
        "bytes": report.segments.iter().map(|s| s.bytes).sum::<u64>(),
        "gaps": report.gaps.iter().map(gap).collect::<Vec<_>>(),
        "headerCopyLost": report.segments.iter().filter(|s| s.header_copy_lost).map(first).collect::<Vec<_>>(),
        "changed": report.segments.iter().filter(|s| s.changed).map(first).collect::<Vec<_>>(),
        "unfinished": report.torn.is_some(),
    })
}

fn stat(data_dir: &Path, people: bool, out: &mut impl Write) -> Result<u8> {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(["JOURNAL", "FILES", "BYTES", "FIRST", "LAST"]);
    let mut last_alert = 0;
    for which in [Which::Events, Which::Alerts] {
        let stat = open_read_only(&which.dir(data_dir))?.stat()?;
        last_alert = stat.last.0;
        let numbers = [stat.segments as u64, stat.bytes, stat.first.0, stat.last.0];
        if people {
            table.add_row(std::iter::once(which.name().to_owned()).chain(numbers.iter().map(u64::to_string)));
        } else {
            let [files, bytes, first, last] = numbers;
            let line = json!({ "journal": which.name(), "files": files, "bytes": bytes, "first": first, "last": last });
            writeln!(out, "{}", json_line(&line)?)?;
        }
    }
    if people {
        writeln!(out, "{table}\n")?;
    }
    for (output, at) in cursors(data_dir)? {
        if people {
            writeln!(out, "output {output} has come to alert record {at} of {last_alert}")?;
        } else {
            writeln!(out, "{}", json_line(&json!({ "output": output, "at": at, "last": last_alert }))?)?;
        }
    }
    Ok(0)
}

/// How far each output came, by name.
fn cursors(data_dir: &Path) -> Result<Vec<(String, u64)>> {
    let dir = data_dir.join("outputs");
    let mut found = Vec::new();
    for entry in std::fs::read_dir(&dir).with_context(|| format!("cannot read `{}`", dir.display()))? {
        let path = entry?.path();
        if path.extension().is_some_and(|e| e == "cursor") {
            let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            found.push((name, CursorFile::peek(&path)?));
        }
    }
    found.sort();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::{Journal, Options};

    #[test]
    fn damage_is_told_and_is_the_exit_code() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("outputs")).unwrap();
        CursorFile::open(&dir.path().join("outputs/soc.cursor")).unwrap().set(2).unwrap();
        for which in [Which::Events, Which::Alerts] {
            let (journal, _) = Journal::open(&which.dir(dir.path()), Options::default()).unwrap();
            for n in 0..3 {
                journal.append_blocking(1, vec![n; 200]).unwrap();
            }
            journal.close();
        }
        let run = |people| {
            let mut out = Vec::new();
            let code = verify_all(None, dir.path(), people, &mut out).unwrap();
            (code, String::from_utf8(out).unwrap())
        };
        let (code, text) = run(true);
        assert_eq!(code, 0, "{text}");
        assert!(text.starts_with("events: whole; 3 records, 1 files"), "{text}");
        let file = Which::Events.dir(dir.path()).join("00000000000000000001.wal");
        let mut bytes = std::fs::read(&file).unwrap();
        // A byte of the second record: behind two header pages and the first block.
        bytes[3 * 4096 + 75] ^= 1;
        std::fs::write(&file, bytes).unwrap();
        let (code, text) = run(true);
        assert!(code == 1 && text.contains("records 2 to 2 are damaged") && text.contains("alerts: whole"), "{text}");
        let (_, lines) = run(false);
        let first: Value = serde_json::from_str(lines.lines().next().unwrap()).unwrap();
        assert_eq!((first["gaps"][0]["from"].as_u64(), first["records"].as_u64()), (Some(2), Some(2)), "{first}");

        let mut out = Vec::new();
        stat(dir.path(), false, &mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        let lines: Vec<Value> = text.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
        assert_eq!(
            (lines[0]["last"].as_u64(), lines[2]["output"].as_str(), lines[2]["at"].as_u64()),
            (Some(3), Some("soc"), Some(2)),
            "{text}"
        );
    }
}
