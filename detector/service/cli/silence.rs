//! `lapwing silence`: alerts that are told to nobody for a while.

use anyhow::{Context, bail};
use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};
use comfy_table::{Table, presets};
use std::io::IsTerminal;

use super::{Exit, Globals, print};
use crate::config::HumanDuration;
use crate::flow::silence::{Silence, Silences, State};
use crate::output::encode::{json_line, terminal};

/// Keep alerts from being told for a while
///
/// Silenced alerts are stored and can be searched; no output is told of them. The running service takes changes over by
/// itself.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "EXAMPLES
  lapwing silence add 'rule=\"pod-exec-shell\"' 'cluster=\"test\"' --owner ann --reason 'load test' --for 2h
  lapwing silence list
  lapwing silence expire 3f2c9a7e")]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    Add(Add),
    List(List),
    Expire(Expire),
}

/// Silence alerts that fit every matcher
///
/// A matcher is a field, `=`, `!=`, `=~` or `!~`, and a value or pattern. Fields: level, rule, tag, cluster, namespace,
/// actor, actorKind, action, resource, outcome, verdict, status.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "EXAMPLES
  lapwing silence add 'actor=\"ci-bot\"' 'namespace=~\"stage-.*\"' --owner ann --reason 'migration' --for 4h
  lapwing silence add 'cluster=\"test\"' --owner ann --reason upgrade --starts 2026-05-01T22:00:00Z --until 2026-05-02T04:00:00Z")]
struct Add {
    /// For example `level="low"` or `actor=~"system:.*"`
    #[arg(value_name = "MATCHER", required = true)]
    matchers: Vec<String>,
    /// Who answers for it
    #[arg(long, value_name = "NAME")]
    owner: String,
    /// Why
    #[arg(long, value_name = "TEXT")]
    reason: String,
    /// When it begins [default: now]
    #[arg(long, value_name = "TIME")]
    starts: Option<DateTime<Utc>>,
    /// For how long
    #[arg(long = "for", value_name = "DURATION", required_unless_present = "until", conflicts_with = "until")]
    lasts: Option<HumanDuration>,
    /// When it ends
    #[arg(long, value_name = "TIME")]
    until: Option<DateTime<Utc>>,
}

/// List silences: a table on a terminal, NDJSON when piped
#[derive(Debug, clap::Args)]
#[command(after_long_help = "EXAMPLES
  lapwing silence list
  lapwing silence list --all | jq -r '[.owner, .reason] | @tsv'")]
struct List {
    /// Also those that ended in the last 30 days
    #[arg(long)]
    all: bool,
}

/// End silences now
#[derive(Debug, clap::Args)]
#[command(after_long_help = "EXAMPLES
  lapwing silence expire 3f2c9a7e

EXIT CODES
  0  done    1  no such silence    2  could not run")]
struct Expire {
    /// The silences, by the beginning of their ids
    #[arg(value_name = "ID", required = true)]
    ids: Vec<String>,
}

/// # Errors
/// When the silence cannot be, or the file of silences cannot be used.
pub fn run(args: Args, globals: &Globals) -> anyhow::Result<Exit> {
    let silences = Silences::of(&globals.data_dir()?);
    let now = Utc::now();
    match args.command {
        Command::Add(add) => {
            let silence = silence(add, now)?;
            let line = format!("{}\n", silence.id);
            silences.add(silence)?;
            print(line.as_bytes())
        }
        Command::List(list) => {
            let mut all = silences.list()?;
            all.retain(|s| list.all || s.state(now) != State::Expired);
            let text = if std::io::stdout().is_terminal() { table(&all, now) } else { lines(&all, now)? };
            print(text.as_bytes())
        }
        Command::Expire(expire) => {
            let ended = silences.expire(&expire.ids, now)?;
            for id in &ended {
                print(format!("{id}\n").as_bytes())?;
            }
            Ok(if ended.is_empty() { Exit::Found } else { Exit::Good })
        }
    }
}

fn silence(add: Add, now: DateTime<Utc>) -> anyhow::Result<Silence> {
    let starts = add.starts.unwrap_or(now);
    let ends = match (add.lasts, add.until) {
        (Some(lasts), _) => {
            let lasts = TimeDelta::from_std(lasts.get()).context("--for is too long")?;
            starts.checked_add_signed(lasts).context("--for is too long")?
        }
        (None, Some(until)) => until,
        (None, None) => bail!("say when it ends: --for or --until"),
    };
    if ends <= now {
        bail!("it would have ended already, at {}", time(ends));
    }
    Ok(Silence::new(add.matchers, (add.owner, add.reason), (starts, ends), now)?)
}

fn time(time: DateTime<Utc>) -> String {
    time.to_rfc3339_opts(SecondsFormat::Secs, true)
}

fn table(all: &[Silence], now: DateTime<Utc>) -> String {
    if all.is_empty() {
        return "nothing is silenced\n".to_owned();
    }
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(["ID", "STATE", "STARTS", "ENDS", "OWNER", "REASON", "MATCHERS"]);
    for s in all {
        let shown = |text: &str| terminal(text).into_owned();
        let (starts, ends) = (time(s.starts), time(s.ends));
        let texts = [shown(&s.owner), shown(&s.reason), shown(&s.matchers.join(" "))];
        let [owner, reason, matchers] = texts;
        table.add_row([s.id.clone(), s.state(now).as_str().to_owned(), starts, ends, owner, reason, matchers]);
    }
    format!("{table}\n")
}

fn lines(all: &[Silence], now: DateTime<Utc>) -> anyhow::Result<String> {
    let mut text = String::new();
    for silence in all {
        let mut value = serde_json::to_value(silence)?;
        value["state"] = serde_json::to_value(silence.state(now))?;
        text.push_str(&json_line(&value)?);
        text.push('\n');
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_say_who_why_and_until_when() {
        let now = Utc::now();
        let add = Add {
            matchers: vec!["actor=\"eve\x1b[2J\"".into()],
            owner: "ann".into(),
            reason: "load test".into(),
            starts: None,
            lasts: Some(HumanDuration::from_secs(3600)),
            until: None,
        };
        let silence = silence(add, now).unwrap();
        assert_eq!(silence.ends - silence.starts, TimeDelta::hours(1));
        let all = [silence];
        let shown = table(&all, now);
        assert!(shown.contains("ann") && shown.contains("active") && !shown.contains('\x1b'), "{shown}");
        let line = lines(&all, now + TimeDelta::hours(2)).unwrap();
        assert!(line.contains("\"state\":\"expired\"") && line.ends_with("}\n"), "{line}");
        assert_eq!(table(&[], now), "nothing is silenced\n");
    }

    #[test]
    fn what_would_be_over_already_is_refused() {
        let add = Add {
            matchers: vec!["actor=eve".into()],
            owner: "ann".into(),
            reason: "x".into(),
            starts: Some(DateTime::UNIX_EPOCH),
            lasts: None,
            until: Some(DateTime::UNIX_EPOCH + TimeDelta::hours(1)),
        };
        assert!(silence(add, Utc::now()).unwrap_err().to_string().contains("ended already"));
    }
}
