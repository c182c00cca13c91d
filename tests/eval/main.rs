//! `lapwing-eval`: what the baselines find, what they cost who reads the alerts, and what simpler ways do.
//!
//! `cargo run --release -p lapwing-eval` measures everything with fixed seeds and writes `docs/evaluation.md` and its
//! plots again. `observe FILE…` prints what the scorer sees and says of each event, for `reference.py`.

mod cost;
mod memory;
mod methods;
mod metrics;
mod observe;
mod plot;
mod recorded;
mod report;
mod simulator;
mod stream;

use std::path::{Path, PathBuf};

use clap::Parser;

/// As in the program: memory and time are measured with the allocator it has.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Measure what the baselines find
#[derive(Debug, Parser)]
struct Args {
    #[command(subcommand)]
    command: Option<Command>,
    /// Seeds of the simulator
    #[arg(long, value_delimiter = ',', default_values_t = [1, 2, 3, 4, 5, 6, 7])]
    seeds: Vec<u64>,
    /// Placements of the recorded attack windows
    #[arg(long, value_delimiter = ',', default_values_t = [1, 2, 3, 4, 5, 6])]
    placements: Vec<u64>,
    /// Recordings: `benign/*.zst` and `attack/**/events.jsonl.zst`
    #[arg(long, value_name = "DIR")]
    corpus: Option<PathBuf>,
    /// Print the tables and write nothing
    #[arg(long)]
    dry_run: bool,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Print every event of audit files as the scorer sees it, with its scores, one JSON object a line
    Observe {
        #[arg(required = true)]
        files: Vec<PathBuf>,
    },
    /// Print the stream of a seed as audit events, one a line
    Simulate { seed: u64 },
    /// Measure the CPU time of the engine with and without baselines
    Cost,
    /// Fill the memory with identities and bring it through a restart
    Memory {
        #[arg(default_value_t = 1_000_000)]
        identities: u32,
        /// Only measure what one in memory takes
        #[arg(long)]
        each: bool,
    },
    /// Print the stretched recordings of a placement as audit events, one a line
    Stretch { placement: u64 },
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let corpus = args.corpus.clone().unwrap_or_else(|| root.join("fixtures/evaluation"));
    match args.command {
        Some(Command::Observe { files }) => observe::run(&files),
        Some(Command::Cost) => {
            let rules = methods::rules(&root.join("rules"))?;
            cost::run("bench", &cost::bench_stream(&root.join("fixtures"))?, &rules)?;
            cost::run("simulator", &simulator::simulate(1), &rules)?;
            cost::run("recordings", &recorded::stretched(&recorded::Corpus::read(&corpus)?, 1, true), &rules)
        }
        Some(Command::Memory { identities, each: true }) => memory::each(identities),
        Some(Command::Memory { identities, .. }) => memory::run(identities),
        Some(Command::Simulate { seed }) => observe::print(&simulator::simulate(seed)),
        Some(Command::Stretch { placement }) => {
            observe::print(&recorded::stretched(&recorded::Corpus::read(&corpus)?, placement, true))
        }
        None => {
            let report = report::run(&args.seeds, &args.placements, &corpus, &root)?;
            if args.dry_run {
                print!("{}", report.text);
                return Ok(());
            }
            report.write(&root)
        }
    }
}
