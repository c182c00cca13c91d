//! `lapwing scan`: audit files, once.

use std::path::PathBuf;

use super::{Exit, Globals};

/// Look at audit files once and report what is in them
#[derive(Debug, clap::Args)]
#[command(after_long_help = "EXAMPLES
  lapwing scan audit.log
  zstdcat audit.log.zst | lapwing scan -")]
pub struct Args {
    /// Audit files, `-` for standard input
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
}

/// # Errors
/// Always, until it is built in.
pub fn run(args: Args, _: &Globals) -> anyhow::Result<Exit> {
    anyhow::bail!("`scan` is not built into this program; {} file(s) not read", args.files.len())
}
