//! Baselines as files: export, import, learn from history, and the order to start anew.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use lapwing_engine::baseline::{self, Baselines, Order, Snapshot};
use lapwing_engine::engine::{Engine, Options, Output};
use lapwing_engine::event::Event;
use lapwing_engine::rule::set::{LoadOptions, RuleSet};

use super::super::{Exit, Globals, print};
use crate::input::{Events, Limits};
use crate::pipeline::shelf::ColdFiles;
use crate::pipeline::{now_micros, orders, snapshot};

/// Write the baselines of the service to standard output, compressed
#[derive(Debug, clap::Args)]
#[command(after_long_help = "EXAMPLES
  lapwing baseline export > baselines.zst")]
pub struct ExportArgs {}

/// Leave exported baselines for the next start of the service
#[derive(Debug, clap::Args)]
#[command(after_long_help = "EXAMPLES
  lapwing baseline import baselines.zst && systemctl restart lapwing")]
pub struct ImportArgs {
    /// What `export` or `learn --to` wrote
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

/// Learn from audit files, so that the first day is not day zero
///
/// Reads the files in the order given, oldest first. Without --to, the result is left for the next start of the
/// service.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "EXAMPLES
  lapwing baseline learn --cluster prod audit-1.log.gz audit.log
  lapwing baseline learn --to baselines.zst audit*.log")]
pub struct LearnArgs {
    /// Audit files in the order of time, `-` for standard input
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Go on from these baselines
    #[arg(long, value_name = "FILE")]
    from: Option<PathBuf>,
    /// Write here instead
    #[arg(long, value_name = "FILE")]
    to: Option<PathBuf>,
    /// Name of the cluster the files come from
    #[arg(long, default_value = "local", value_name = "NAME")]
    cluster: String,
}

/// Forget what was learned of an identity, or of everybody
#[derive(Debug, clap::Args)]
#[command(after_long_help = "EXAMPLES
  lapwing baseline reset alice@corp.example
  lapwing baseline reset --all --cluster stage")]
pub struct ResetArgs {
    /// The identity, as `baseline show` names it
    #[arg(value_name = "PRINCIPAL", required_unless_present = "all", conflicts_with = "all")]
    principal: Option<String>,
    /// Everybody
    #[arg(long)]
    all: bool,
    /// Only in this cluster
    #[arg(long, value_name = "NAME")]
    cluster: Option<String>,
}

/// The baselines of `file`, or those of the newest snapshot of the service.
pub fn read(file: Option<&Path>, globals: &Globals) -> anyhow::Result<Snapshot> {
    if let Some(file) = file {
        return orders::read_baselines(file).with_context(|| format!("cannot read `{}`", file.display()));
    }
    let state = globals.data_dir()?.join("state");
    #[derive(serde::Deserialize)]
    struct Memory {
        baselines: Option<Snapshot>,
    }
    let newest = snapshot::newest(&state, u64::MAX, |stored| serde_json::from_str::<Memory>(stored.engine.get()))
        .with_context(|| format!("cannot read `{}`", state.display()))?;
    let Some(memory) = newest else { bail!("no snapshot in `{}` yet; is this the data directory?", state.display()) };
    let memory =
        memory.context("the newest snapshot is of another version; let this version's service run for a minute")?;
    memory.baselines.context("the service does not learn baselines; set `baseline.enabled: true`")
}

/// As [`read`], ready to be asked.
pub fn open(file: Option<&Path>, globals: &Globals) -> anyhow::Result<Baselines> {
    let mut baselines = Baselines::restore(baseline::Options::default(), read(file, globals)?);
    if file.is_none() {
        let cold = orders::cold_dir(&globals.data_dir()?.join("state"));
        // Where nobody is on disk there is no such directory.
        if cold.exists() {
            baselines.shelve(Box::new(ColdFiles::open(&cold)?));
        }
    }
    Ok(baselines)
}

/// # Errors
/// When there is no snapshot, or standard output is a terminal.
pub fn export(_: &ExportArgs, globals: &Globals) -> anyhow::Result<Exit> {
    if std::io::stdout().is_terminal() {
        bail!("this is binary; write it to a file: `lapwing baseline export > baselines.zst`");
    }
    let mut baselines = open(None, globals)?;
    baselines.gather();
    let json = serde_json::to_vec(&baselines)?;
    print(&zstd::encode_all(json.as_slice(), 3)?)
}

fn leave(baselines: &Baselines, globals: &Globals) -> anyhow::Result<Exit> {
    let state = globals.data_dir()?.join("state");
    std::fs::create_dir_all(&state)?;
    orders::write_baselines(&orders::import_file(&state), baselines)?;
    if !globals.quiet {
        eprintln!("the next start of the service takes these baselines instead of its own");
    }
    Ok(Exit::Good)
}

/// # Errors
/// When the file holds no baselines or the data directory cannot be written.
pub fn import(args: &ImportArgs, globals: &Globals) -> anyhow::Result<Exit> {
    leave(&open(Some(&args.file), globals)?, globals)
}

/// # Errors
/// When a file cannot be opened or the result cannot be written.
pub fn learn(args: &LearnArgs, globals: &Globals) -> anyhow::Result<Exit> {
    let (no_rules, _) = RuleSet::load_lenient(Vec::new(), &LoadOptions::default());
    let options = Options { baseline: Some(baseline::Options::default()), ..Options::default() };
    let mut engine = Engine::new(no_rules.into(), options);
    if let Some(from) = &args.from {
        engine.import(read(Some(from), globals)?);
    }
    let (mut now, mut unreadable) = (i64::MIN, 0u64);
    let mut output = Output::default();
    for path in &args.files {
        let mut events =
            Events::open(path, Limits::default()).with_context(|| format!("cannot open `{}`", path.display()))?;
        while let Some(item) = events.next() {
            let event = item.ok().and_then(|text| Some((text, Event::parse(text).ok()?.time())));
            let Some((text, time)) = event else {
                unreadable += 1;
                continue;
            };
            now = now.max(time.unwrap_or(now));
            engine.event(&args.cluster, text, now, &String::new, &mut output)?;
            (output.findings, output.alerts) = Default::default();
        }
    }
    let Some(learned) = engine.baselines() else { bail!("nothing was learned") };
    if !globals.quiet {
        let counts = learned.counts();
        eprintln!("{} identities, {} kB, {unreadable} events unreadable", counts.principals, counts.bytes / 1000);
    }
    match &args.to {
        Some(to) => orders::write_baselines(to, learned)?,
        None => leave(learned, globals).map(drop)?,
    }
    Ok(if unreadable > 0 { Exit::Partial } else { Exit::Good })
}

/// # Errors
/// When the order cannot be written.
pub fn reset(args: &ResetArgs, globals: &Globals) -> anyhow::Result<Exit> {
    let order = Order::Reset { cluster: args.cluster.clone(), principal: args.principal.clone() };
    orders::give(&globals.data_dir()?.join("state"), &order, now_micros())?;
    Ok(Exit::Good)
}
