//! `lapwing baseline show` and `diff`: a baseline as people read it.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::PathBuf;

use clap::ValueEnum;
use lapwing_engine::baseline::Description;

use super::super::terminal::clean_cut;
use super::super::{Exit, Globals, print};
use super::store::open;

/// Values of one table that are shown as text.
const SHOWN: usize = 8;
/// Longest value shown as text, in characters.
const WIDTH: usize = 100;
/// Share of a value that must have changed to be a difference.
const DIFFERENT: f32 = 0.1;

/// Show what is normal for an identity, or who is known
#[derive(Debug, clap::Args)]
#[command(after_long_help = "EXAMPLES
  lapwing baseline show
  lapwing baseline show system:serviceaccount:web:front
  lapwing baseline show alice@corp.example --output json | jq '.[].tables'

EXIT CODES
  0  found    1  nobody of this name    2  could not run")]
pub struct Args {
    /// The identity; all of them in one line each without it
    #[arg(value_name = "PRINCIPAL")]
    principal: Option<String>,
    /// Exported baselines instead of those of the service
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// How to print
    #[arg(long, short, value_name = "FORMAT", default_value = "text")]
    output: Format,
}

/// Show what became normal, or no longer is, since an export
#[derive(Debug, clap::Args)]
#[command(after_long_help = "EXAMPLES
  lapwing baseline diff monday.zst
  lapwing baseline diff monday.zst friday.zst

EXIT CODES
  0  no difference    1  differences    2  could not run")]
pub struct DiffArgs {
    /// The older baselines
    #[arg(value_name = "OLD")]
    old: PathBuf,
    /// The newer ones, instead of those of the service
    #[arg(value_name = "NEW")]
    new: Option<PathBuf>,
    /// Only this identity
    #[arg(long, value_name = "NAME")]
    principal: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    Text,
    Json,
}

/// # Errors
/// When there are no baselines to read.
pub fn run(args: &Args, globals: &Globals) -> anyhow::Result<Exit> {
    let found = open(args.file.as_deref(), globals)?.describe(args.principal.as_deref());
    if found.is_empty() {
        eprintln!("nobody of this name has a baseline; `lapwing baseline show` lists who has");
        return Ok(Exit::Found);
    }
    let text = match (args.output, &args.principal) {
        (Format::Json, _) => serde_json::to_string_pretty(&found)? + "\n",
        (Format::Text, None) => found.iter().map(line).collect(),
        (Format::Text, Some(_)) => found.iter().map(whole).collect(),
    };
    print(text.as_bytes())
}

fn line(d: &Description) -> String {
    let p = &d.principal;
    let name = clean_cut(&p.name, WIDTH);
    let since = p.since.format("%Y-%m-%d");
    format!("{:14} {name:60} {:8.1} h since {since}  risk {:.1}\n", p.class, p.active_hours, d.risk_bits)
}

fn whole(d: &Description) -> String {
    let p = &d.principal;
    let mut out = format!("{} in cluster {}\n", clean_cut(&p.name, WIDTH), clean_cut(&d.cluster, WIDTH));
    let since = p.since.format("%Y-%m-%d %H:%M UTC");
    let _ = writeln!(
        out,
        "  {}, {} active hours, known since {since}, risk {:.1} bits",
        p.class, p.active_hours, d.risk_bits
    );
    for table in &d.tables {
        let context =
            if table.context.is_empty() { String::new() } else { format!(" ({})", clean_cut(&table.context, WIDTH)) };
        let _ = writeln!(out, "\n  {}{context}", table.dimension);
        for v in table.values.iter().take(SHOWN) {
            let peers = v.peers.saturating_sub(1);
            let _ = writeln!(out, "    {:3.0} %  {}  ({peers} peers)", v.share * 100.0, clean_cut(&v.value, WIDTH));
        }
        let more = table.values.len().saturating_sub(SHOWN);
        if more > 0 {
            let _ = writeln!(out, "           … and {more} more");
        }
    }
    out
}

/// Share of every value, by identity, dimension, context and value.
fn shares(found: Vec<Description>) -> BTreeMap<[String; 4], f32> {
    let mut out = BTreeMap::new();
    for d in found {
        for table in d.tables {
            for v in table.values {
                let name = format!("{} {}", d.cluster, d.principal.name);
                out.insert([name, table.dimension.to_owned(), table.context.clone(), v.value], v.share);
            }
        }
    }
    out
}

/// # Errors
/// When there are no baselines to read.
pub fn diff(args: &DiffArgs, globals: &Globals) -> anyhow::Result<Exit> {
    let only = args.principal.as_deref();
    let old = shares(open(Some(&args.old), globals)?.describe(only));
    let new = shares(open(args.new.as_deref(), globals)?.describe(only));
    let text = differences(&old, &new);
    print(text.as_bytes())?;
    Ok(if text.is_empty() { Exit::Good } else { Exit::Found })
}

fn differences(old: &BTreeMap<[String; 4], f32>, new: &BTreeMap<[String; 4], f32>) -> String {
    let mut out = String::new();
    let mut last = "";
    let all: std::collections::BTreeSet<&[String; 4]> = old.keys().chain(new.keys()).collect();
    for key in all {
        let (before, now) = (old.get(key).copied(), new.get(key).copied());
        let sign = match (before, now) {
            (None, Some(_)) => '+',
            (Some(_), None) => '-',
            (Some(a), Some(b)) if (a - b).abs() >= DIFFERENT => '~',
            _ => continue,
        };
        let [name, dimension, context, value] = key;
        if *name != last {
            let _ = writeln!(out, "{}", clean_cut(name, WIDTH));
            last = name;
        }
        let context = if context.is_empty() { String::new() } else { format!(" ({})", clean_cut(context, WIDTH)) };
        let share = |x: Option<f32>| x.map_or("-".to_owned(), |x| format!("{:.0} %", x * 100.0));
        let value = clean_cut(value, WIDTH);
        let _ = writeln!(out, "  {sign} {dimension}{context}: {value}  {} → {}", share(before), share(now));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_is_what_came_went_or_moved() {
        let key = |value: &str| ["prod eve", "client", "", value].map(str::to_owned);
        let old = BTreeMap::from([(key("curl"), 0.5), (key("kubectl"), 0.5), (key("same"), 0.2)]);
        let new = BTreeMap::from([(key("kubectl"), 0.9), (key("k9s"), 0.1), (key("same"), 0.25)]);
        assert_eq!(
            differences(&old, &new),
            "prod eve\n  - client: curl  50 % → -\n  + client: k9s  - → 10 %\n  ~ client: kubectl  50 % → 90 %\n"
        );
        assert_eq!(differences(&new, &new), "");
    }
}
