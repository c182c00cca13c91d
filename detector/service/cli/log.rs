//! Logs go to standard error: text on a terminal, JSON otherwise. Results never go through here.

use std::io::IsTerminal;

use anyhow::Context;
use tracing_subscriber::EnvFilter;

use super::Color;

/// What repeats an error that is told anyway.
const QUIET: &str = "rustls_platform_verifier=off";

/// Starts logging at `level` (a level or filter directives).
///
/// # Errors
/// When `level` cannot be read.
pub fn init(level: &str, color: Color) -> anyhow::Result<()> {
    let filter = EnvFilter::builder()
        .parse(format!("{QUIET},{level}"))
        .with_context(|| format!("`--log-level {level}`: expected off, error, warn, info, debug or trace"))?;
    let terminal = std::io::stderr().is_terminal();
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    // A second start (tests) keeps the first.
    let _ = if terminal {
        builder.with_ansi(color.wanted(terminal)).with_target(false).try_init()
    } else {
        builder.json().flatten_event(true).try_init()
    };
    Ok(())
}
