//! `lapwing rules`: what judges, whether it is right, and why it spoke.

use std::path::PathBuf;

use super::{Exit, Globals};

/// List, check, test and explain rules
#[derive(Debug, clap::Args)]
#[command(after_long_help = "EXAMPLES
  lapwing rules list
  lapwing rules check rules/
  lapwing rules explain exec-into-pod event.json")]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// List the rules that would judge
    #[command(after_long_help = "EXAMPLES
  lapwing rules list")]
    List,
    /// Tell everything that is wrong with rule files
    #[command(after_long_help = "EXAMPLES
  lapwing rules check rules/")]
    Check { paths: Vec<PathBuf> },
    /// Run the tests beside rule files
    #[command(after_long_help = "EXAMPLES
  lapwing rules test rules/")]
    Test { paths: Vec<PathBuf> },
    /// Tell why a rule does or does not match an event
    #[command(after_long_help = "EXAMPLES
  lapwing rules explain exec-into-pod event.json")]
    Explain { rule: String, event: PathBuf },
}

/// # Errors
/// Always, until it is built in.
pub fn run(args: Args, _: &Globals) -> anyhow::Result<Exit> {
    anyhow::bail!("`rules {}` is not built into this program", format!("{:?}", args.command).to_lowercase())
}
