//! `lapwing baseline`: what is normal, learned, shown and kept.

mod score;

use super::{Exit, Globals};

/// What is normal for each identity
#[derive(Debug, clap::Args)]
#[command(after_long_help = "EXAMPLES
  lapwing baseline score last-month.log.gz | jq 'select(.surprise > 8)'")]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    Score(score::Args),
}

/// # Errors
/// When input, rules or output fail.
pub fn run(args: Args, globals: &Globals) -> anyhow::Result<Exit> {
    match args.command {
        Command::Score(args) => score::run(&args, globals),
    }
}
