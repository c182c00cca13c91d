//! `lapwing receive`: a webhook that brings events to Kafka.

use super::{Exit, Globals};

/// Run a receiver: take events from API servers and bring them to a Kafka topic
///
/// Answers an API server when the brokers have its events. While they are away it keeps events in a spool below dataDir
/// and brings them later. Any number of receivers may stand behind one address; they know nothing of each other.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "EXAMPLES
  lapwing receive --config receiver.yaml
  lapwing serve --config detector.yaml      # a detector that consumes the topic")]
pub struct Args {}

/// Checks the configuration and runs until told to stop.
///
/// # Errors
/// When the configuration has problems, or the receiver cannot start.
pub fn run(_: Args, globals: &Globals) -> anyhow::Result<Exit> {
    let loaded = globals.load()?;
    crate::app::confine(&loaded)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(crate::app::receive(loaded))?;
    Ok(Exit::Good)
}
