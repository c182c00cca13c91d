//! `lapwing baseline`: what is normal, learned, shown and kept.

mod score;
mod show;
mod store;

use super::{Exit, Globals};

/// What is normal for each identity
///
/// The service learns it from the events it judges, and keeps it in its snapshot: what these commands show is up to
/// half a minute old. Orders (`reset`) reach a running service within seconds; imported baselines are taken over at
/// the next start.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "EXAMPLES
  lapwing baseline show                                      who is known
  lapwing baseline show system:serviceaccount:web:front      what is normal for it
  lapwing baseline learn /var/log/kubernetes/audit*.log.gz   day one is not day zero
  lapwing baseline export > monday.zst
  lapwing baseline diff monday.zst
  lapwing baseline reset alice@corp.example")]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    Show(show::Args),
    Diff(show::DiffArgs),
    Export(store::ExportArgs),
    Import(store::ImportArgs),
    Learn(store::LearnArgs),
    Reset(store::ResetArgs),
    Score(score::Args),
}

/// # Errors
/// When input, rules or output fail.
pub fn run(args: Args, globals: &Globals) -> anyhow::Result<Exit> {
    match args.command {
        Command::Show(args) => show::run(&args, globals),
        Command::Diff(args) => show::diff(&args, globals),
        Command::Export(args) => store::export(&args, globals),
        Command::Import(args) => store::import(&args, globals),
        Command::Learn(args) => store::learn(&args, globals),
        Command::Reset(args) => store::reset(&args, globals),
        Command::Score(args) => score::run(&args),
    }
}
