//! `lapwing config`: what a configuration says, what is wrong with it, and a first one to start from.

use std::fmt::Write as _;
use std::io::Write as _;

use serde_json::Value as Json;

use super::{Exit, Globals, print};
use crate::config::{ConfigError, Loaded};

/// The file `config init` prints.
const STARTER: &str = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/lapwing.yaml"));

/// Check, show and start configurations
#[derive(Debug, clap::Args)]
#[command(after_long_help = "EXAMPLES
  lapwing config init > lapwing.yaml
  lapwing config check --config lapwing.yaml
  lapwing config show --config lapwing.yaml")]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Tell everything that is wrong, or what would run
    ///
    /// Reads the configuration, its environment variables, and tries the files it names. Exits with 1 when
    /// something is wrong and 2 when the file cannot be read.
    #[command(after_long_help = "EXAMPLES
  lapwing config check
  lapwing config check --config lapwing.yaml && systemctl restart lapwing")]
    Check,
    /// Print the effective configuration, secrets hidden
    ///
    /// Defaults are filled in and paths are absolute. A value that came from the environment is shown as
    /// it was written.
    #[command(after_long_help = "EXAMPLES
  lapwing config show --config lapwing.yaml")]
    Show,
    /// Print a commented configuration to start from
    #[command(after_long_help = "EXAMPLES
  lapwing config init > lapwing.yaml")]
    Init,
}

/// # Errors
/// When the configuration cannot be read, or (`show`) has problems.
pub fn run(args: Args, globals: &Globals) -> anyhow::Result<Exit> {
    match args.command {
        Command::Check => check(globals),
        Command::Show => print(globals.load()?.show().as_bytes()),
        Command::Init => print(STARTER.as_bytes()),
    }
}

fn check(globals: &Globals) -> anyhow::Result<Exit> {
    match globals.load() {
        Ok(loaded) => print(summary(&loaded).as_bytes()),
        Err(ConfigError::Wrong(problems)) => {
            let count = problems.list.len();
            let noun = if count == 1 { "problem" } else { "problems" };
            writeln!(std::io::stdout(), "{problems}")?;
            if !globals.quiet {
                eprintln!("{count} {noun} in {}", problems.file.display());
            }
            Ok(Exit::Found)
        }
        Err(error) => Err(error.into()),
    }
}

/// What would run, for a person.
fn summary(loaded: &Loaded) -> String {
    let config = serde_json::to_value(&loaded.config).unwrap_or_default();
    let text = |value: &Json| value.as_str().unwrap_or("?").to_owned();
    let names = |list: &Json, key: &str| -> Vec<String> {
        list.as_array().into_iter().flatten().map(|item| text(&item[key])).collect()
    };
    let mut out = format!("{}: good\n", loaded.file.display());
    let mut line = |label: &str, what: String| {
        let _ = writeln!(out, "  {label:<10} {what}");
    };
    let webhook = &config["sources"]["webhook"];
    if webhook.is_object() {
        let scheme = if webhook["tls"].is_null() { "http" } else { "https" };
        let mut clusters = names(&webhook["clusters"], "name").join(", ");
        if webhook["insecureLoopback"] == true {
            clusters = format!("{}, from anyone on this machine", text(&webhook["defaultCluster"]));
        }
        line("webhook", format!("{scheme}://{} for {clusters}", text(&webhook["listen"])));
    }
    for kafka in config["sources"]["kafka"].as_array().into_iter().flatten() {
        line("kafka", format!("{} for {}", text(&kafka["name"]), text(&kafka["cluster"])));
    }
    for file in config["sources"]["files"].as_array().into_iter().flatten() {
        line("file", format!("{} for {}", text(&file["path"]), text(&file["cluster"])));
    }
    let extra = names_of(&config["rules"]["paths"]);
    let level = text(&config["rules"]["minLevel"]);
    line("rules", format!("built-in{extra}, from level {level}"));
    line("alerts", format!("grouped over {}", text(&config["alerts"]["groupWindow"])));
    let retention = &config["retention"];
    line("keeps", format!("{}, at most {}", text(&retention["maxAge"]), text(&retention["maxSize"])));
    line("data", loaded.config.data_dir.display().to_string());
    for output in config["outputs"].as_array().into_iter().flatten() {
        let (kind, level) = (text(&output["type"]), text(&output["minLevel"]));
        line("output", format!("{} ({kind}), from level {level}", text(&output["name"])));
    }
    let admin = &loaded.config.admin;
    let scheme = if admin.tls.is_some() { "https" } else { "http" };
    line("admin", format!("{scheme}://{}/metrics", admin.listen));
    for note in &loaded.notes {
        let _ = writeln!(out, "note: {}:{}:{}: {note}", loaded.file.display(), note.place.line, note.place.column);
    }
    out
}

fn names_of(paths: &Json) -> String {
    paths.as_array().into_iter().flatten().filter_map(Json::as_str).map(|p| format!(" and {p}")).collect()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::Config;

    #[test]
    fn the_starter_passes_its_own_check() {
        let loaded = Config::read(STARTER, Path::new("/etc/lapwing/lapwing.yaml"), &|_| None).unwrap();
        assert_eq!(
            summary(&loaded),
            "/etc/lapwing/lapwing.yaml: good
  webhook    http://127.0.0.1:8443 for dev, from anyone on this machine
  rules      built-in, from level informational
  alerts     grouped over 1h
  keeps      30d, at most 20GiB
  data       /var/lib/lapwing
  output     console (stdout), from level low
  admin      http://127.0.0.1:9466/metrics
"
        );
    }

    /// What is commented out in the starter must be right too: uncommented one by one, it reads.
    #[test]
    fn the_commented_sections_are_right() {
        let mut uncommented = String::new();
        let mut skip_first_webhook = false;
        for line in STARTER.lines() {
            if line == "  webhook:" {
                skip_first_webhook = true;
            }
            match line.trim_start().strip_prefix("# ") {
                Some(rest) if line.starts_with("  # ") && is_yaml(rest) => {
                    skip_first_webhook = false;
                    uncommented.push_str(&format!("  {rest}\n"));
                }
                Some(_) => {}
                None if skip_first_webhook => {}
                None => uncommented.push_str(&format!("{line}\n")),
            }
        }
        let env = |_: &str| Some("secret".to_owned());
        let problems = Config::read(&uncommented, Path::new("/etc/lapwing/lapwing.yaml"), &env).unwrap_err();
        let other: Vec<_> = problems.list.iter().filter(|p| !p.what.contains("does not exist")).collect();
        assert!(other.is_empty(), "{problems}\n{uncommented}");
        assert_eq!(problems.list.len(), 5, "certificate, key, authority, token and rules: {problems}");
    }

    fn is_yaml(line: &str) -> bool {
        let key = line.trim_start().trim_start_matches("- ").split(':').next().unwrap_or_default();
        line.contains(':') && !line.starts_with(char::is_uppercase) && !key.contains(' ')
    }
}
