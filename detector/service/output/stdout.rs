//! Alerts on standard output: NDJSON for programs, text for people.

use std::io::Write;
use std::path::Path;

use lapwing_engine::alert::{Alert, Status};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Common, Failure, Receipt, encode, text};

/// Settings of an output of type `stdout`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
#[schemars(extend("required" = ["name"]))]
pub struct Config {
    #[serde(flatten)]
    pub common: Common,
    /// `ndjson` (one JSON object a line) or `text` (for people; colours only on a terminal).
    pub format: Format,
}

/// How an alert looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    #[default]
    Ndjson,
    Text,
}

impl Config {
    pub(super) fn target(&self) -> String {
        "standard output".to_owned()
    }

    pub(super) fn resolve(&mut self, _base: &Path) {}

    pub(super) fn problems(&self) -> Vec<String> {
        Vec::new()
    }
}

#[derive(Debug)]
pub struct Stdout {
    format: Format,
    colours: bool,
}

impl Stdout {
    pub fn new(config: &Config) -> Self {
        Self { format: config.format, colours: text::colours_wanted() }
    }

    pub async fn deliver(&mut self, alert: &Alert) -> Result<Receipt, Failure> {
        let out = render(alert, self.format, self.colours)?;
        // A full pipe blocks: keep that away from the threads that serve sockets.
        let written = tokio::task::spawn_blocking(move || {
            let mut stdout = std::io::stdout().lock();
            stdout.write_all(out.as_bytes()).and_then(|()| stdout.flush())
        });
        match written.await {
            Ok(Ok(())) => Ok(Receipt("written to standard output".to_owned())),
            Ok(Err(e)) => Err(Failure::retry(format_args!("cannot write to standard output: {e}"))),
            Err(e) => Err(Failure::retry(format_args!("cannot write to standard output: {e}"))),
        }
    }
}

fn render(alert: &Alert, format: Format, colours: bool) -> Result<String, Failure> {
    match format {
        Format::Text => Ok(text::plain(alert, colours) + &look_closer(alert)),
        Format::Ndjson => {
            let mut line = encode::json_line(alert).map_err(Failure::reject)?;
            line.push('\n');
            Ok(line)
        }
    }
}

/// The command that shows the evidence and what happened around it. A test alert is not stored.
fn look_closer(alert: &Alert) -> String {
    let id: String = alert.id.chars().filter(char::is_ascii_hexdigit).take(12).collect();
    if alert.status == Status::Test { String::new() } else { format!("  Look closer: lapwing show {id}\n\n") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::sample;

    #[test]
    fn text_ends_with_the_command_to_type_next() {
        let mut alert = sample::alert();
        let text = render(&alert, Format::Text, false).unwrap();
        assert!(text.ends_with("\n  Look closer: lapwing show a1b2c3d4\n\n"), "{text}");
        alert.status = Status::Test;
        assert!(!render(&alert, Format::Text, false).unwrap().contains("lapwing show"), "it is not stored");
    }

    #[test]
    fn ndjson_is_one_line_and_comes_back() {
        let alert = sample::hostile("a\nb\r\u{2028}\x1b[0m\"}{");
        let line = render(&alert, Format::Ndjson, false).unwrap();
        assert_eq!(line.lines().count(), 1);
        assert!(line.is_ascii(), "nothing in it needs more");
        assert_eq!(serde_json::from_str::<Alert>(&line).unwrap(), alert);
    }
}
