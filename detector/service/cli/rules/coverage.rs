//! `lapwing rules coverage`: which known detections the library has, and why not the others.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{IsTerminal, Write};

use anyhow::{Context, bail};
use clap::ValueEnum;
use comfy_table::{ContentArrangement, Table, presets};
use lapwing_engine::rule::file::Meta;
use lapwing_engine::rule::set::RuleSet;
use serde_json::{Value, json};

use super::Which;
use crate::cli::{Exit, print};
use crate::ruleset;

/// Tell which known detections the rules cover
///
/// Counts the rows of the coverage table: every detection that other products publish for Kubernetes audit
/// events. A row is coverable when an audit event shows it and it needs no learned baseline.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "EXAMPLES
  lapwing rules coverage
  lapwing rules coverage --peer falco
  lapwing rules coverage --row U061
  lapwing rules coverage --navigator > layer.json")]
pub struct Args {
    /// One row in full
    #[arg(long, value_name = "ROW", conflicts_with_all = ["peer", "navigator"])]
    row: Option<String>,
    /// Which of our rules replace the rules of this product
    #[arg(long, value_name = "NAME", conflicts_with = "navigator")]
    peer: Option<String>,
    /// A layer for the ATT&CK Navigator: techniques of the loaded rules
    #[arg(long, conflicts_with = "output")]
    navigator: bool,
    #[command(flatten)]
    which: Which,
    /// How to print [default: text on a terminal, else ndjson]
    #[arg(short, long, value_enum)]
    output: Option<Format>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    Text,
    Ndjson,
    Csv,
}

/// # Errors
/// When rules cannot be loaded, or there is no such row or product.
pub fn run(args: &Args) -> anyhow::Result<Exit> {
    if args.navigator {
        let set = args.which.selection().load()?;
        let mut out = serde_json::to_vec_pretty(&navigator(&set))?;
        out.push(b'\n');
        return print(&out);
    }
    let matrix = Matrix::built_in()?;
    let (head, rows) = match (&args.row, &args.peer) {
        (Some(row), _) => matrix.row(row)?,
        (None, Some(peer)) => matrix.replacements(peer)?,
        (None, None) => matrix.summary(),
    };
    let terminal = std::io::stdout().is_terminal();
    let format = args.output.unwrap_or(if terminal { Format::Text } else { Format::Ndjson });
    print(&shown(&head, &rows, format)?)
}

type Lines = (Vec<&'static str>, Vec<Vec<String>>);

fn shown(head: &[&'static str], rows: &[Vec<String>], format: Format) -> anyhow::Result<Vec<u8>> {
    let mut out = Vec::new();
    match format {
        Format::Text => {
            let mut table = Table::new();
            table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Dynamic);
            table.set_header(head.iter().map(|h| h.to_uppercase()));
            rows.iter().for_each(|r| {
                table.add_row(r.iter().map(String::as_str));
            });
            writeln!(out, "{table}")?;
        }
        Format::Ndjson => {
            for row in rows {
                let typed = |v: &String| v.parse::<u64>().map_or_else(|_| json!(v), |n| json!(n));
                let object: serde_json::Map<String, Value> =
                    head.iter().zip(row).map(|(h, v)| ((*h).to_owned(), typed(v))).collect();
                serde_json::to_writer(&mut out, &object)?;
                out.push(b'\n');
            }
        }
        Format::Csv => {
            writeln!(out, "{}", head.join(","))?;
            for row in rows {
                let cells: Vec<String> = row.iter().map(|c| quoted(c)).collect();
                writeln!(out, "{}", cells.join(","))?;
            }
        }
    }
    Ok(out)
}

fn quoted(cell: &str) -> String {
    let plain = !cell.contains([',', '"', '\n']);
    if plain { cell.to_owned() } else { format!("\"{}\"", cell.replace('"', "\"\"")) }
}

/// Why a row has no rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Gap {
    /// No audit event shows it.
    Invisible,
    /// It needs a learned baseline.
    Baseline,
    /// A rule could be written; the reason says why there is none.
    Open,
}

/// The reasons begin with fixed words, see `rules/README.md`.
fn gap(why: &str) -> Gap {
    let lower = why.to_lowercase();
    let starts = |words: &[&str]| words.iter().any(|w| lower.starts_with(w));
    if starts(&["not visible", "needs process events", "needs file events"]) {
        Gap::Invisible
    } else if lower.contains("anomaly learner") || lower.contains("baseline") {
        Gap::Baseline
    } else {
        Gap::Open
    }
}

struct Row {
    id: String,
    rules: Vec<String>,
    why: String,
    /// For each peer its rules' names.
    theirs: Vec<Vec<String>>,
}

/// The coverage table.
pub struct Matrix {
    peers: Vec<String>,
    rows: Vec<Row>,
}

impl Matrix {
    /// The table compiled in.
    ///
    /// # Errors
    /// When its columns are not as expected.
    pub fn built_in() -> anyhow::Result<Self> {
        Self::parse(ruleset::coverage().context("this program was built without `rules/coverage.csv`")?)
    }

    fn parse(text: &str) -> anyhow::Result<Self> {
        let mut lines = csv(text).into_iter();
        let head = lines.next().unwrap_or_default();
        let [row, rules, why, peers @ ..] = head.as_slice() else { bail!("the coverage table has no columns") };
        if (row.as_str(), rules.as_str(), why.as_str()) != ("row", "rules", "why") {
            bail!("the coverage table begins with `{row},{rules},{why}`; expected `row,rules,why`");
        }
        let peers: Vec<String> = peers.iter().map(|p| p.trim_end_matches('*').to_owned()).collect();
        let rows = lines.map(|cells| {
            let cell = |i: usize| cells.get(i).map_or("", String::as_str);
            let names = |i: usize| cell(i).split(';').map(|n| n.trim().to_owned()).filter(|n| !n.is_empty()).collect();
            Row {
                id: cell(0).to_owned(),
                rules: cell(1).split_whitespace().map(str::to_owned).collect(),
                why: cell(2).to_owned(),
                theirs: (0..peers.len()).map(|p| names(3 + p)).collect(),
            }
        });
        let rows = rows.collect();
        Ok(Self { peers, rows })
    }

    fn summary(&self) -> Lines {
        let line = |name: &str, rows: &[&Row]| -> Vec<String> {
            let covered = rows.iter().filter(|r| !r.rules.is_empty()).count();
            let without = |g: Gap| rows.iter().filter(|r| r.rules.is_empty() && gap(&r.why) == g).count();
            let open = without(Gap::Open);
            let numbers = [rows.len(), covered, covered + open, open, without(Gap::Baseline), without(Gap::Invisible)];
            std::iter::once(name.to_owned()).chain(numbers.iter().map(usize::to_string)).collect()
        };
        let mut lines: Vec<Vec<String>> = Vec::new();
        for (p, peer) in self.peers.iter().enumerate() {
            let theirs: Vec<&Row> = self.rows.iter().filter(|r| !r.theirs[p].is_empty()).collect();
            lines.push(line(peer, &theirs));
        }
        lines.push(line("all", &self.rows.iter().collect::<Vec<_>>()));
        (vec!["peer", "rows", "covered", "coverable", "open", "baseline", "invisible"], lines)
    }

    fn row(&self, id: &str) -> anyhow::Result<Lines> {
        let Some(row) = self.rows.iter().find(|r| r.id.eq_ignore_ascii_case(id)) else {
            bail!("there is no row `{id}`; rows are U001 to U198 and G01 to G75");
        };
        let mut lines = vec![vec![row.id.clone(), "lapwing".to_owned(), row.rules.join(" "), row.why.clone()]];
        for (peer, names) in self.peers.iter().zip(&row.theirs).filter(|(_, n)| !n.is_empty()) {
            lines.push(vec![row.id.clone(), peer.clone(), names.join("; "), String::new()]);
        }
        Ok((vec!["row", "whose", "rules", "why"], lines))
    }

    fn peer(&self, name: &str) -> anyhow::Result<usize> {
        let wanted = name.to_lowercase();
        let found = self.peers.iter().position(|p| p.to_lowercase() == wanted);
        found.or_else(|| self.peers.iter().position(|p| p.to_lowercase().starts_with(&wanted))).with_context(|| {
            format!("the coverage table knows nothing of `{name}`; it knows {}", self.peers.join(", "))
        })
    }

    /// Their rule → rows, our rules, and why there is none for the rest.
    fn replacements(&self, peer: &str) -> anyhow::Result<Lines> {
        let peer = self.peer(peer)?;
        let mut order: Vec<&str> = Vec::new();
        let mut by_name: BTreeMap<&str, Vec<&Row>> = BTreeMap::new();
        for row in &self.rows {
            for name in &row.theirs[peer] {
                let rows = by_name.entry(name).or_default();
                if rows.is_empty() {
                    order.push(name);
                }
                rows.push(row);
            }
        }
        let lines = order.iter().map(|name| {
            let rows = &by_name[name];
            let ids: Vec<&str> = rows.iter().map(|r| r.id.as_str()).collect();
            let rules: BTreeSet<&str> = rows.iter().flat_map(|r| &r.rules).map(String::as_str).collect();
            let whys: BTreeSet<&str> = rows.iter().map(|r| r.why.as_str()).filter(|w| !w.is_empty()).collect();
            let list = |set: BTreeSet<&str>| set.into_iter().collect::<Vec<_>>().join(" ");
            vec![(*name).to_owned(), list(rules), ids.join(" "), list(whys)]
        });
        Ok((vec!["theirs", "ours", "rows", "why"], lines.collect()))
    }

    /// Our rules that see what the peer's rule `name` means to see.
    pub fn ours(&self, peer: &str, name: &str) -> Vec<String> {
        let Ok(peer) = self.peer(peer) else { return Vec::new() };
        // "X (off)" is our remark on X.
        let is = |n: &String| n == name || n.strip_prefix(name).is_some_and(|rest| rest.starts_with(" ("));
        let rows = self.rows.iter().filter(|r| r.theirs[peer].iter().any(is));
        rows.flat_map(|r| r.rules.clone()).collect::<BTreeSet<_>>().into_iter().collect()
    }
}

/// Comma-separated values (RFC 4180); blank lines are left out.
fn csv(text: &str) -> Vec<Vec<String>> {
    let mut rows = vec![vec![String::new()]];
    let mut quotes = false;
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        let row = rows.last_mut();
        let Some((row, cell)) = row.map(|r| (r.len(), r)).filter(|(n, _)| *n > 0).map(|(n, r)| (r, n - 1)) else {
            break;
        };
        match c {
            '"' if quotes && chars.peek() == Some(&'"') => {
                chars.next();
                row[cell].push('"');
            }
            '"' => quotes = !quotes,
            ',' if !quotes => row.push(String::new()),
            '\r' if !quotes => {}
            '\n' if !quotes => rows.push(vec![String::new()]),
            c => row[cell].push(c),
        }
    }
    rows.retain(|r| r.iter().any(|c| !c.is_empty()));
    rows
}

/// Techniques of the rules as a layer of the ATT&CK Navigator, format 4.5.
fn navigator(set: &RuleSet) -> Value {
    let mut by_technique: BTreeMap<String, BTreeSet<&str>> = BTreeMap::new();
    let metas = set.rules().iter().map(|r| &r.meta).chain(set.correlations().iter().map(|c| &c.meta));
    for meta in metas {
        for technique in techniques(meta) {
            by_technique.entry(technique).or_default().insert(&meta.id);
        }
    }
    let most = by_technique.values().map(BTreeSet::len).max().unwrap_or(1);
    let techniques: Vec<Value> = by_technique
        .iter()
        .map(|(id, rules)| {
            let comment = rules.iter().copied().collect::<Vec<_>>().join(", ");
            json!({ "techniqueID": id, "score": rules.len(), "comment": comment, "enabled": true })
        })
        .collect();
    json!({
        "name": "Lapwing",
        "description": "Techniques the loaded rules name; the score counts rules, the comment lists them.",
        "domain": "enterprise-attack",
        "versions": { "layer": "4.5", "navigator": "5.1.0" },
        "techniques": techniques,
        "gradient": { "colors": ["#e8f1fa", "#1f5f99"], "minValue": 1, "maxValue": most.max(2) },
    })
}

/// `attack.t1552.007` → `T1552.007`.
fn techniques(meta: &Meta) -> impl Iterator<Item = String> {
    meta.tags.iter().filter_map(|tag| {
        let id = tag.strip_prefix("attack.")?;
        let digits = id.strip_prefix(['t', 'T'])?;
        digits.starts_with(|c: char| c.is_ascii_digit()).then(|| id.to_ascii_uppercase())
    })
}

#[cfg(test)]
mod tests {
    use lapwing_engine::engine::ANOMALY_RULES;

    use super::*;

    const TABLE: &str = "row,rules,why,Falco,Stratus*\n\
        U001,a b,,One; Two,\n\
        U002,,No rule yet: later.,One,x\n\
        U003,,\"Anomaly learner, \"\"soon\"\".\",Three (off),\n\
        U004,,Not visible in Kubernetes audit events.,,x\n";

    #[test]
    fn rows_are_counted_per_peer() {
        let (_, lines) = Matrix::parse(TABLE).unwrap().summary();
        assert_eq!(lines[0], ["Falco", "3", "1", "2", "1", "1", "0"]);
        assert_eq!(lines[1], ["Stratus", "2", "0", "1", "1", "0", "1"]);
        assert_eq!(lines[2], ["all", "4", "1", "2", "1", "1", "1"]);
    }

    #[test]
    fn their_rules_have_ours_beside_them() {
        let matrix = Matrix::parse(TABLE).unwrap();
        let (_, lines) = matrix.replacements("falco").unwrap();
        assert_eq!(lines[0], ["One", "a b", "U001 U002", "No rule yet: later."]);
        assert_eq!(lines[1], ["Two", "a b", "U001", ""]);
        assert_eq!(lines[2][3], "Anomaly learner, \"soon\".");
        assert_eq!(matrix.ours("falco", "Two"), ["a", "b"]);
        assert!(matrix.ours("falco", "Three").is_empty() && matrix.replacements("nobody").is_err());
    }

    #[test]
    fn one_row_in_full() {
        let matrix = Matrix::parse(TABLE).unwrap();
        let (_, lines) = matrix.row("u001").unwrap();
        assert_eq!(lines, [vec!["U001", "lapwing", "a b", ""], vec!["U001", "Falco", "One; Two", ""]]);
        assert!(matrix.row("U999").is_err());
    }

    #[test]
    fn csv_is_read_back() {
        let (head, lines) = Matrix::parse(TABLE).unwrap().replacements("falco").unwrap();
        let text = String::from_utf8(shown(&head, &lines, Format::Csv).unwrap()).unwrap();
        assert_eq!(csv(&text)[3][3], "Anomaly learner, \"soon\".");
    }

    #[test]
    fn the_table_compiled_in_names_rules_that_exist() {
        let matrix = Matrix::built_in().unwrap();
        let set = ruleset::Selection::default().load().unwrap();
        for row in &matrix.rows {
            assert!(!row.rules.is_empty() || !row.why.is_empty(), "{} says neither rule nor reason", row.id);
            for rule in &row.rules {
                let asleep = set.asleep().iter().any(|a| a.meta.is(rule));
                // The service's own alerts begin with its name.
                let built_in = ANOMALY_RULES.contains(&rule.as_str()) || rule.starts_with("lapwing-");
                let known = asleep || built_in || set.find(rule).is_some();
                assert!(known, "{}: there is no rule `{rule}`", row.id);
            }
        }
    }

    #[test]
    fn the_layer_counts_rules_per_technique() {
        let set = ruleset::Selection::default().load().unwrap();
        let layer = navigator(&set);
        assert_eq!(layer["versions"]["layer"], "4.5");
        let techniques = layer["techniques"].as_array().unwrap();
        assert!(techniques.len() > 20);
        for t in techniques {
            let id = t["techniqueID"].as_str().unwrap();
            assert!(id.starts_with('T') && id.len() >= 5, "{id}");
            let named = t["comment"].as_str().unwrap().split(", ").count() as u64;
            assert_eq!(t["score"].as_u64(), Some(named), "{id}");
        }
    }
}
