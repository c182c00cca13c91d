//! `lapwing output`: what is configured, whether it works, where alerts go, and what could not be delivered.

mod route;

use std::collections::HashSet;
use std::io::{IsTerminal, Write};
use std::path::Path;

use anyhow::{Context, Result, bail};
use clap::Subcommand;
use comfy_table::{Table, presets};
use serde_json::json;

use crate::flow::silence::{Silences, Watch};
use crate::output::dead::{DeadLetter, DeadLetters};
use crate::output::encode::{json_line, terminal};
use crate::output::{Config, Failure, Output, sample};

/// Try outputs and see what they could not deliver
#[derive(Debug, clap::Args)]
#[command(after_long_help = "EXAMPLES
  lapwing output list                 What is configured and where it sends to
  lapwing output test soc             Send a marked test alert to the output `soc`
  lapwing output route 3f2c9a7e       Which outputs this alert goes to, and why
  lapwing output dead list            Alerts that were given up, and why
  lapwing output dead list soc | jq   The same for one output, as NDJSON
  lapwing output dead retry soc       Send them again, once the receiver is repaired

EXIT CODES
  0  good    1  the receiver did not take the alert, or there are dead letters    2  could not run")]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List the configured outputs
    #[command(after_long_help = "EXAMPLES\n  lapwing output list\n  lapwing output list | jq -r .name")]
    List,
    /// Send a marked test alert and tell what the receiver answered
    #[command(after_long_help = "EXAMPLES\n  lapwing output test soc")]
    Test {
        /// Name of the output in the configuration
        name: String,
    },
    /// Say where an alert goes and why
    ///
    /// By what is configured and silenced now. Inhibition depends on the alerts before it and is told only as possible.
    #[command(after_long_help = "EXAMPLES
  lapwing output route 3f2c9a7e
  lapwing output route alert.json     A file with alerts, one JSON object a line; - for standard input

EXIT CODES
  0  told to an output    1  told to none    2  could not run")]
    Route {
        /// Id of an alert, or a file with alerts
        #[arg(value_name = "ID|FILE")]
        alert: String,
    },
    /// Alerts that were given up
    #[command(after_long_help = "EXAMPLES\n  lapwing output dead list\n  lapwing output dead list soc")]
    Dead {
        #[command(subcommand)]
        command: Dead,
    },
}

#[derive(Debug, Subcommand)]
enum Dead {
    /// List dead letters: a table on a terminal, NDJSON when piped
    #[command(after_long_help = "EXAMPLES\n  lapwing output dead list\n  lapwing output dead list soc | jq .alert.id")]
    List {
        /// Only of this output
        name: Option<String>,
    },
    /// Send dead letters again; what the receiver takes is taken off the list
    ///
    /// Works beside a running service. Oldest first; each is tried once.
    #[command(after_long_help = "EXAMPLES
  lapwing output dead retry soc
  lapwing output dead retry soc 3f2c9a7e

EXIT CODES
  0  all were delivered    1  some are still dead    2  could not run")]
    Retry {
        /// Of this output
        name: String,
        /// Only these alerts, by the beginning of their ids
        alerts: Vec<String>,
    },
    /// Take dead letters off the list without sending them
    #[command(after_long_help = "EXAMPLES
  lapwing output dead drop soc 3f2c9a7e
  lapwing output dead drop soc --all

EXIT CODES
  0  done    1  there was no such dead letter    2  could not run")]
    Drop {
        /// Of this output
        name: String,
        /// These alerts, by the beginning of their ids
        #[arg(required_unless_present = "all")]
        alerts: Vec<String>,
        /// Every dead letter of the output
        #[arg(long, conflicts_with = "alerts")]
        all: bool,
    },
}

/// Runs the command; the number is the exit code.
pub async fn run(args: Args, config: &crate::config::Config) -> Result<u8> {
    let (configs, data_dir) = (config.outputs.as_slice(), config.data_dir.as_path());
    let mut out = std::io::stdout();
    let people = out.is_terminal();
    match args.command {
        Command::List => list(configs, data_dir, people, &mut out),
        Command::Test { name } => test(find(configs, &name)?, &mut out).await,
        Command::Route { alert } => {
            let flow = config.flow().map_err(|wrong| anyhow::anyhow!("{wrong:?}"))?;
            let watch = Watch::new(Silences::of(data_dir));
            let mut told = false;
            for alert in route::alerts(&alert, data_dir)? {
                told |= route::explain(&alert, configs, &flow, &watch, people, &mut out)?;
            }
            Ok(u8::from(!told))
        }
        Command::Dead { command: Dead::List { name } } => {
            let chosen = match &name {
                Some(name) => std::slice::from_ref(find(configs, name)?),
                None => configs,
            };
            dead_list(chosen, data_dir, people, &mut out)
        }
        Command::Dead { command: Dead::Retry { name, alerts } } => {
            retry(find(configs, &name)?, data_dir, &alerts, &mut out).await
        }
        Command::Dead { command: Dead::Drop { name, alerts, all: _ } } => {
            let dropped = DeadLetters::of(data_dir, find(configs, &name)?.name()).remove(|l| is_meant(l, &alerts))?;
            writeln!(out, "output `{name}`: {dropped} dropped")?;
            Ok(u8::from(dropped == 0))
        }
    }
}

fn find<'a>(configs: &'a [Config], name: &str) -> Result<&'a Config> {
    if let Some(config) = configs.iter().find(|c| c.name() == name) {
        return Ok(config);
    }
    let near = configs.iter().map(Config::name).max_by(|a, b| {
        let like = |known| strsim::jaro_winkler(known, name);
        like(a).total_cmp(&like(b))
    });
    match near {
        None => bail!("no output is configured; add one under `outputs:`"),
        Some(near) if strsim::jaro_winkler(near, name) > 0.7 => bail!("no output `{name}`; did you mean `{near}`?"),
        Some(_) => bail!("no output `{name}`; `lapwing output list` shows the configured ones"),
    }
}

async fn test(config: &Config, out: &mut impl Write) -> Result<u8> {
    let mut output = Output::new(config)?;
    let alert = sample::test_alert(config.name(), chrono::Utc::now());
    let (name, kind, target) = (config.name(), config.kind(), config.target());
    let said = match output.deliver(&[&alert]).await {
        Ok(receipt) => {
            writeln!(out, "output `{name}` ({kind}, {}): delivered test alert {}", terminal(&target), alert.id)?;
            writeln!(out, "  it answered: {}", terminal(&receipt.0))?;
            return Ok(0);
        }
        Err(Failure::Retry { reason, .. }) => format!("not delivered, would be tried again: {}", terminal(&reason)),
        Err(failure) => format!("refused: {}", terminal(&failure.to_string())),
    };
    writeln!(out, "output `{name}` ({kind}, {}): {said}", terminal(&target))?;
    Ok(1)
}

/// Whether a letter is one of `alerts`, given by the beginnings of their ids; none given: all are.
fn is_meant(letter: &DeadLetter, alerts: &[String]) -> bool {
    let id = letter.alert.as_ref().map_or("", |alert| alert.id.as_str());
    alerts.is_empty() || alerts.iter().any(|start| !start.is_empty() && id.starts_with(start.as_str()))
}

async fn retry(config: &Config, data_dir: &Path, alerts: &[String], out: &mut impl Write) -> Result<u8> {
    let (dead, mut output) = (DeadLetters::of(data_dir, config.name()), Output::new(config)?);
    let (mut sent, mut left) = (HashSet::new(), 0);
    for letter in dead.list()?.into_iter().filter(|letter| is_meant(letter, alerts)) {
        let Some(alert) = &letter.alert else {
            left += 1;
            continue;
        };
        // An update of an alert has the id of the alert: the letter tells which of the two it was.
        if !sent.insert((alert.id.clone(), letter.time)) {
            continue;
        }
        match output.deliver(&[alert]).await {
            Ok(_) => {
                dead.remove(|l| l == &letter).context("delivered, but still on the list")?;
                writeln!(out, "{} delivered", alert.id)?;
            }
            Err(failure) => {
                left += 1;
                writeln!(out, "{} not delivered: {}", alert.id, terminal(&failure.to_string()))?;
            }
        }
    }
    Ok(u8::from(left > 0))
}

fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(header);
    table
}

fn list(configs: &[Config], data_dir: &Path, people: bool, out: &mut impl Write) -> Result<u8> {
    let mut table = table(&["NAME", "TYPE", "MIN LEVEL", "DEAD LETTERS", "SENDS TO"]);
    for config in configs {
        let dead = DeadLetters::of(data_dir, config.name()).list()?.len();
        if people {
            let target = terminal(&config.target()).into_owned();
            table.add_row([
                config.name(),
                config.kind(),
                config.common().min_level.as_str(),
                &dead.to_string(),
                &target,
            ]);
        } else {
            let line = json!({ "name": config.name(), "type": config.kind(), "minLevel": config.common().min_level,
                "target": config.target(), "deadLetters": dead });
            writeln!(out, "{}", json_line(&line)?)?;
        }
    }
    if people {
        writeln!(out, "{table}")?;
    }
    Ok(0)
}

fn dead_list(configs: &[Config], data_dir: &Path, people: bool, out: &mut impl Write) -> Result<u8> {
    let mut table = table(&["TIME", "OUTPUT", "TRIES", "ALERT", "LEVEL", "RULE", "REASON"]);
    let mut any = false;
    for config in configs {
        for letter in DeadLetters::of(data_dir, config.name()).list()? {
            any = true;
            if people {
                table.add_row(row(&letter));
            } else {
                writeln!(out, "{}", json_line(&letter)?)?;
            }
        }
    }
    match (people, any) {
        (true, true) => writeln!(out, "{table}")?,
        (true, false) => writeln!(out, "no dead letters")?,
        (false, _) => {}
    }
    Ok(u8::from(any))
}

fn row(letter: &DeadLetter) -> [String; 7] {
    let alert = letter.alert.as_deref();
    let shown = |text: Option<&str>| terminal(text.unwrap_or("-")).into_owned();
    [
        letter.time.format("%Y-%m-%d %H:%M:%S").to_string(),
        letter.output.clone(),
        letter.tries.to_string(),
        shown(alert.map(|a| a.id.as_str())),
        shown(alert.map(|a| a.level.as_str())),
        shown(alert.map(|a| a.rule.title.as_str())),
        shown(Some(&letter.reason)),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::{Common, file, stdout};

    fn named(name: &str) -> Common {
        Common { name: name.to_owned(), ..Common::default() }
    }

    fn configs(dir: &Path) -> Vec<Config> {
        vec![
            Config::Stdout(stdout::Config { common: named("console"), ..Default::default() }),
            Config::File(file::Config { common: named("archive"), path: dir.join("a.ndjson"), ..Default::default() }),
        ]
    }

    #[tokio::test]
    async fn a_test_alert_says_test_and_tells_the_answer() {
        let dir = tempfile::tempdir().unwrap();
        let (configs, mut out) = (configs(dir.path()), Vec::new());
        assert_eq!(test(&configs[1], &mut out).await.unwrap(), 0);
        let said = String::from_utf8(out).unwrap();
        assert!(said.contains("it answered: appended to"), "{said}");
        let line = std::fs::read_to_string(dir.path().join("a.ndjson")).unwrap();
        assert!(line.contains("\"status\":\"test\"") && line.contains("TEST"), "{line}");
    }

    #[tokio::test]
    async fn a_receiver_that_fails_is_exit_code_one() {
        let broken = Config::File(file::Config { common: named("a"), path: "/dev/full".into(), ..Default::default() });
        let mut out = Vec::new();
        assert_eq!(test(&broken, &mut out).await.unwrap(), 1);
        assert!(String::from_utf8(out).unwrap().contains("would be tried again"));
    }

    #[test]
    fn a_wrong_name_gets_a_hint() {
        let configs = configs(Path::new("/"));
        assert_eq!(find(&configs, "consol").unwrap_err().to_string(), "no output `consol`; did you mean `console`?");
        assert!(find(&configs, "zzz").unwrap_err().to_string().contains("output list"));
    }

    #[test]
    fn lists_outputs_and_dead_letters() {
        let dir = tempfile::tempdir().unwrap();
        let configs = configs(dir.path());
        std::fs::create_dir(dir.path().join("outputs")).unwrap();
        let mut out = Vec::new();
        assert_eq!(dead_list(&configs, dir.path(), true, &mut out).unwrap(), 0);
        let letter = DeadLetter {
            time: chrono::Utc::now(),
            output: "archive".into(),
            reason: "404\x1b[2J".into(),
            tries: 5,
            alert: Some(Box::new(sample::alert())),
            unreadable: String::new(),
        };
        let path = DeadLetters::of(dir.path(), "archive").path().to_owned();
        std::fs::write(&path, format!("{}\n{{\"half", json_line(&letter).unwrap())).unwrap();
        assert_eq!(dead_list(&configs, dir.path(), true, &mut out).unwrap(), 1);
        assert_eq!(list(&configs, dir.path(), true, &mut out).unwrap(), 0);
        let text = String::from_utf8(std::mem::take(&mut out)).unwrap();
        assert!(text.contains("Shell opened in a pod") && text.contains("archive") && !text.contains('\x1b'), "{text}");
        dead_list(&configs, dir.path(), false, &mut out).unwrap();
        assert_eq!(serde_json::from_slice::<DeadLetter>(&out).unwrap(), letter);
    }

    #[tokio::test]
    async fn dead_letters_are_sent_again_or_dropped() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("outputs")).unwrap();
        let archive = &configs(dir.path())[1];
        let broken =
            Config::File(file::Config { common: named("archive"), path: "/dev/full".into(), ..Default::default() });
        let dead = DeadLetters::of(dir.path(), "archive");
        let letter = |alert: Option<lapwing_engine::alert::Alert>| DeadLetter {
            time: chrono::Utc::now(),
            output: "archive".into(),
            reason: "404".into(),
            tries: 5,
            alert: alert.map(Box::new),
            unreadable: String::new(),
        };
        let (first, mut second) = (sample::alert(), sample::hostile("x"));
        second.id = format!("other-{}", second.id);
        [Some(first.clone()), Some(second), None].into_iter().for_each(|a| dead.append(&letter(a)).unwrap());
        let mut out = Vec::new();
        assert_eq!(retry(&broken, dir.path(), &[], &mut out).await.unwrap(), 1);
        assert_eq!(dead.list().unwrap().len(), 3, "nothing is lost when it fails again");
        assert_eq!(retry(archive, dir.path(), &[first.id[..6].to_owned()], &mut out).await.unwrap(), 0);
        assert_eq!(dead.list().unwrap().len(), 2);
        assert_eq!(retry(archive, dir.path(), &[], &mut out).await.unwrap(), 1, "no alert, nothing to send");
        assert_eq!(dead.list().unwrap().len(), 1);
        assert_eq!(std::fs::read_to_string(dir.path().join("a.ndjson")).unwrap().lines().count(), 2);
        let none = vec!["nosuch".to_owned()];
        assert_eq!(dead.remove(|l| is_meant(l, &none)).unwrap(), 0);
        assert_eq!(dead.remove(|l| is_meant(l, &[])).unwrap(), 1);
    }
}
