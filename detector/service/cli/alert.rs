//! `lapwing alert`: what people say about an alert of the baselines.

use anyhow::{Context, bail};
use lapwing_engine::alert::Alert;
use lapwing_engine::baseline::{Order, Place, may_quiet};

use super::show::find_alert;
use super::{Exit, Globals};
use crate::pipeline::{now_micros, orders};

const DAY: i64 = 24 * 3_600_000_000;

/// Say whether an alert of the baselines was right
#[derive(Debug, clap::Args)]
#[command(after_long_help = "EXAMPLES
  lapwing alert benign 3f2c9a7e --owner platform
  lapwing alert malicious 3f2c9a7e --owner soc")]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    Benign(Benign),
    Malicious(Malicious),
}

/// It was nothing: learn it, and be quiet about these values of this identity for a while
///
/// Only what a baseline found can be called benign. Findings of rules, powers in bodies, bursts and new identities stay
/// loud; for rules write a filter with owner and expiry.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "EXAMPLES
  lapwing alert benign 3f2c9a7e --owner platform --days 90")]
struct Benign {
    /// The alert, by its id or the beginning of it
    #[arg(value_name = "ID")]
    id: String,
    /// Who says so
    #[arg(long, value_name = "NAME")]
    owner: String,
    /// For how many days
    #[arg(long, default_value_t = 30, value_name = "DAYS", value_parser = clap::value_parser!(u16).range(1..=365))]
    days: u16,
}

/// It was an attack: forget what the identity taught since
#[derive(Debug, clap::Args)]
#[command(after_long_help = "EXAMPLES
  lapwing alert malicious 3f2c9a7e --owner soc")]
struct Malicious {
    /// The alert, by its id or the beginning of it
    #[arg(value_name = "ID")]
    id: String,
    /// Who says so
    #[arg(long, value_name = "NAME")]
    owner: String,
}

/// # Errors
/// When the alert is not there, is no baseline's, or the order cannot be written.
pub fn run(args: Args, globals: &Globals) -> anyhow::Result<Exit> {
    let data = globals.data_dir()?;
    let id = match &args.command {
        Command::Benign(b) => &b.id,
        Command::Malicious(m) => &m.id,
    };
    let Some(alert) = find_alert(id, &data)? else {
        eprintln!("no alert has this id");
        return Ok(Exit::Found);
    };
    let now = now_micros();
    let order = match &args.command {
        Command::Benign(b) => benign(&alert, b.owner.clone(), now + i64::from(b.days) * DAY)?,
        Command::Malicious(m) => malicious(&alert, m.owner.clone()),
    };
    orders::give(&data.join("state"), &order, now).context("the order could not be written")?;
    Ok(Exit::Good)
}

fn benign(alert: &Alert, owner: String, until: i64) -> anyhow::Result<Order> {
    let Some(anomaly) = &alert.anomaly else {
        bail!("rule `{}` made this alert, and rules are not quieted here; write a filter for it", alert.rule.id);
    };
    let place = |r: &lapwing_engine::alert::Reason| Place {
        dimension: r.dimension.clone(),
        context: r.context.clone(),
        value: r.value.clone(),
    };
    let places: Vec<Place> = anomaly.reasons.iter().map(place).filter(may_quiet).collect();
    if places.is_empty() {
        bail!("nothing in this alert can be quieted: rules, powers in bodies, bursts and new identities stay loud");
    }
    let (cluster, principal) = (alert.cluster.clone(), anomaly.principal.name.clone());
    Ok(Order::Benign { cluster, principal, places, until, owner })
}

fn malicious(alert: &Alert, owner: String) -> Order {
    let principal = alert.anomaly.as_ref().map_or(&alert.actor, |a| &a.principal.name).clone();
    Order::Malicious { cluster: alert.cluster.clone(), principal, since: alert.first.timestamp_micros(), owner }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::sample;

    #[test]
    fn an_alert_of_a_rule_cannot_be_called_benign() {
        let error = benign(&sample::alert(), "me".into(), 0).expect_err("a rule's");
        assert!(error.to_string().contains("write a filter"), "{error}");
    }
}
