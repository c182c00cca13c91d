//! Incidents in PagerDuty through its Events API v2. What goes on (rule, cluster, actor) is one incident; it is resolved
//! after `resolveAfter` of quiet.

use std::path::{Path, PathBuf};

use chrono::SecondsFormat;
use lapwing_engine::alert::{Alert, Level, Status};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::encode::{cap, json_line, visible};
use super::{Common, Failure, Receipt, http, record, secret, shrink, text, tls};
use crate::config::HumanDuration;
use crate::flow::gather::identity;

const URL: &str = "https://events.pagerduty.com/v2/enqueue";
/// PagerDuty takes 512 KB; a person reads less.
const MAX_BYTES: usize = 100_000;
const SUMMARY: usize = 1024;

/// Settings of an output of type `pagerduty`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
#[schemars(extend("required" = ["name", "keyFile"]))]
pub struct Config {
    #[serde(flatten)]
    pub common: Common,
    /// File with the routing key (integration key) of the service.
    pub key_file: PathBuf,
    /// Where to post; in the EU `https://events.eu.pagerduty.com/v2/enqueue`.
    pub url: String,
    /// An incident is resolved when nothing came of it for so long. Without it people resolve.
    pub resolve_after: Option<HumanDuration>,
    /// How to trust the receiver.
    pub tls: tls::Config,
    /// Longest time for one request, in seconds (1 to 300).
    pub timeout_seconds: http::Timeout,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            common: Common::default(),
            key_file: PathBuf::new(),
            url: URL.to_owned(),
            resolve_after: None,
            tls: tls::Config::default(),
            timeout_seconds: http::Timeout::default(),
        }
    }
}

impl Config {
    pub(super) fn target(&self) -> String {
        http::named(&self.url)
    }

    pub(super) fn resolve(&mut self, base: &Path) {
        self.key_file = base.join(&self.key_file);
        self.tls.resolve(base);
    }

    pub(super) fn problems(&self) -> Vec<String> {
        let mut found = http::receiver_problems(&self.url, &self.tls, self.timeout_seconds);
        if self.key_file.as_os_str().is_empty() {
            found.push("keyFile is missing; expected a file with the routing key".to_owned());
        }
        found
    }
}

#[derive(Debug)]
pub struct Pagerduty {
    config: Config,
    client: http::Client,
}

impl Pagerduty {
    pub fn new(config: &Config) -> Result<Self, String> {
        secret::read(&config.key_file).map_err(|e| e.to_string())?;
        let client = http::Client::checked(&config.tls, config.timeout_seconds.get())?;
        Ok(Self { config: config.clone(), client })
    }

    pub async fn deliver(&mut self, alert: &Alert) -> Result<Receipt, Failure> {
        let key = secret::read(&self.config.key_file).map_err(Failure::retry)?;
        let url = http::parse(&self.config.url).map_err(Failure::retry)?;
        let body = event(alert, key.expose()).into_bytes();
        let mut answer = self.client.post(&url, http::content("application/json"), body).await?;
        answer.hide(key.expose());
        answer.verdict()?;
        Ok(Receipt(answer.told()))
    }
}

const fn severity(level: Level) -> &'static str {
    match level {
        Level::Critical => "critical",
        Level::High => "error",
        Level::Medium => "warning",
        Level::Low | Level::Informational => "info",
    }
}

/// The event, custom details dropped first where it would be too large.
fn event(alert: &Alert, key: &str) -> String {
    let action = if alert.status == Status::Resolved { "resolve" } else { "trigger" };
    shrink::fit(alert, MAX_BYTES, |alert, cut| {
        let mut event = json!({ "routing_key": key, "event_action": action, "dedup_key": identity(alert) });
        if action == "trigger" {
            event["client"] = "Lapwing".into();
            event["payload"] = payload(alert, cut);
        }
        json_line(&event).unwrap_or_default()
    })
}

fn payload(alert: &Alert, cut: bool) -> Value {
    let words = text::message(&[alert]);
    let summary = format!("{}: {}", words.headline, alert.summary);
    let line = |text: &str, max| visible(&cap(text, max)).into_owned();
    json!({
        "summary": cap(&line(&summary, SUMMARY), SUMMARY),
        "source": if alert.cluster.is_empty() { "lapwing".to_owned() } else { line(&alert.cluster, 200) },
        "severity": severity(alert.level),
        "timestamp": alert.last.to_rfc3339_opts(SecondsFormat::Millis, true),
        "component": line(&alert.actor, 200),
        "group": line(&alert.cluster, 200),
        "class": line(&alert.rule.id, 200),
        "custom_details": {
            "do_next": words.next_steps, "why": words.why, "unusual": words.unusual, "alert": record::own(alert, cut),
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::sample;

    fn read(alert: &Alert) -> Value {
        serde_json::from_str(&event(alert, "KEY")).unwrap()
    }

    #[test]
    fn what_goes_on_is_one_incident_that_is_resolved() {
        let (first, mut later) = (read(&sample::alert()), sample::alert());
        later.id = "another".into();
        later.status = Status::Resolved;
        let resolved = read(&later);
        assert_eq!(first["event_action"], "trigger");
        assert_eq!(first["payload"]["severity"], "error");
        assert_eq!(first["payload"]["summary"], format!("HIGH Shell opened in a pod: {}", sample::alert().summary));
        assert_eq!((&resolved["event_action"], &resolved["dedup_key"]), (&json!("resolve"), &first["dedup_key"]));
        assert!(resolved.get("payload").is_none() && first["dedup_key"].as_str().unwrap().len() <= 255);
    }

    #[test]
    fn however_large_the_alert_the_event_fits() {
        let mut alert = sample::hostile(&"\u{1}".repeat(5000));
        alert.evidence = vec![alert.evidence[0].clone(); 10];
        let text = event(&alert, "KEY");
        assert!(text.len() <= MAX_BYTES, "{}", text.len());
        let event: Value = serde_json::from_str(&text).unwrap();
        assert!(event["payload"]["summary"].as_str().unwrap().chars().count() <= SUMMARY);
        assert_eq!(event["payload"]["custom_details"]["alert"]["truncated"], true);
    }
}
