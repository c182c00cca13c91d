//! `lapwing serve`: the service.

use super::{Exit, Globals};

/// Run the service: read events, judge them, deliver alerts
///
/// Reads the sources of the configuration, keeps every event in the journal before it answers the sender,
/// judges events in order and delivers alerts to every output. SIGTERM ends it: it stops accepting,
/// finishes what it has, and exits.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "EXAMPLES
  lapwing serve --config lapwing.yaml
  lapwing serve --config lapwing.yaml --data-dir /tmp/try
  LAPWING_LOG=debug lapwing serve")]
pub struct Args {}

/// Checks the configuration and runs until told to stop.
///
/// # Errors
/// When the configuration has problems, or the service cannot start.
pub fn run(_: Args, globals: &Globals) -> anyhow::Result<Exit> {
    let loaded = globals.load()?;
    for note in &loaded.notes {
        tracing::warn!("{}:{}: {note}", loaded.file.display(), note.place.line);
    }
    crate::app::confine(&loaded)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(crate::app::serve(loaded))?;
    Ok(Exit::Good)
}
