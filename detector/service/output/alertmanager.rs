//! Alerts to Prometheus Alertmanager (API v2). The labels of an alert are what goes on (rule, cluster, actor, level), so a
//! repetition is the same alert there; it ends by itself `resolveAfter` after it was told last.
//!
//! Every replica is told; one that took it is enough.

use std::path::{Path, PathBuf};

use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};
use lapwing_engine::alert::{Alert, Verdict};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::encode::{cap, visible};
use super::{Common, Failure, Receipt, http, text, tls};
use crate::config::HumanDuration;

/// Alerts in one request.
pub const BATCH: usize = 50;
/// Longest annotation, in characters.
const ANNOTATION: usize = 2000;
/// Longest label, in characters.
const LABEL: usize = 500;

/// Settings of an output of type `alertmanager`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
#[schemars(extend("required" = ["name", "urls"]))]
pub struct Config {
    #[serde(flatten)]
    pub common: Common,
    /// Every replica: `https://alertmanager-0.example.org:9093`.
    pub urls: Vec<String>,
    /// How long after it was told an alert ends there.
    pub resolve_after: HumanDuration,
    /// File with a bearer token to send along.
    pub token_file: Option<PathBuf>,
    /// User to log in as. Needs `passwordFile`.
    pub username: Option<String>,
    /// File with the password.
    pub password_file: Option<PathBuf>,
    /// How to trust the receiver.
    pub tls: tls::Config,
    /// Longest time for one request, in seconds (1 to 300).
    pub timeout_seconds: http::Timeout,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            common: Common::default(),
            urls: Vec::new(),
            resolve_after: HumanDuration::from_secs(4 * 3600),
            token_file: None,
            username: None,
            password_file: None,
            tls: tls::Config::default(),
            timeout_seconds: http::Timeout::default(),
        }
    }
}

impl Config {
    pub(super) fn target(&self) -> String {
        self.urls.iter().map(|url| http::named(url)).collect::<Vec<_>>().join(", ")
    }

    pub(super) fn resolve(&mut self, base: &Path) {
        http::resolve(base, [&mut self.token_file, &mut self.password_file]);
        self.tls.resolve(base);
    }

    pub(super) fn problems(&self) -> Vec<String> {
        let mut found: Vec<String> =
            self.urls.iter().flat_map(|url| http::receiver_problems(url, &self.tls, self.timeout_seconds)).collect();
        if self.urls.is_empty() {
            found.push("urls is empty; name at least one Alertmanager".to_owned());
        }
        found.extend(http::login_problem(self.username.as_ref(), self.password_file.as_ref()));
        found
    }
}

#[derive(Debug)]
pub struct Alertmanager {
    config: Config,
    clients: Vec<http::Client>,
}

impl Alertmanager {
    pub fn new(config: &Config) -> Result<Self, String> {
        let client = |_| http::Client::checked(&config.tls, config.timeout_seconds.get());
        let clients = config.urls.iter().map(client).collect::<Result<_, _>>()?;
        let output = Self { config: config.clone(), clients };
        output.headers().map_err(|e| e.to_string())?;
        Ok(output)
    }

    fn headers(&self) -> Result<reqwest::header::HeaderMap, Failure> {
        let mut headers = http::content("application/json");
        http::bearer(&mut headers, "Bearer", self.config.token_file.as_deref())?;
        http::basic(&mut headers, self.config.username.as_deref(), self.config.password_file.as_deref())?;
        Ok(headers)
    }

    pub async fn deliver(&mut self, alerts: &[&Alert]) -> Result<Receipt, Failure> {
        let ends = Utc::now() + TimeDelta::from_std(self.config.resolve_after.get()).unwrap_or(TimeDelta::days(365));
        let body: Vec<Value> = alerts.iter().map(|a| posted(a, ends)).collect();
        let body = serde_json::to_vec(&body).map_err(Failure::reject)?;
        let headers = self.headers()?;
        let (mut told, mut failed) = (Vec::new(), Vec::new());
        for (url, client) in self.config.urls.iter().zip(&mut self.clients) {
            let answer = client.post(&http::join(url, "api/v2/alerts")?, headers.clone(), body.clone()).await;
            match answer.and_then(|a| a.verdict_of_batch().map(|()| a.told())) {
                Ok(answer) => told.push(answer),
                Err(failure) => failed.push(failure),
            }
        }
        if told.is_empty() {
            // What may pass is worth trying again, whatever another replica said.
            let passing = failed.iter().position(|f| matches!(f, Failure::Retry { .. })).unwrap_or(0);
            return Err(failed.swap_remove(passing));
        }
        for failure in failed {
            tracing::warn!(output = self.config.common.name, reason = %failure, "one Alertmanager did not take it, another did");
        }
        Ok(Receipt(told.join("; ")))
    }
}

/// One alert as the API wants it. Labels are only what stays the same while it goes on: a change would be another alert.
fn posted(alert: &Alert, ends: DateTime<Utc>) -> Value {
    let words = text::message(&[alert]);
    let verdict = if alert.verdict == Verdict::Undecidable { "undecidable" } else { "" };
    let labels = [
        ("alertname", alert.rule.id.as_str()),
        ("severity", alert.rule.level.as_str()),
        ("cluster", &alert.cluster),
        ("actor", &alert.actor),
        ("actor_kind", &alert.actor_kind),
        ("verdict", verdict),
        ("source", "lapwing"),
    ];
    let facts: Vec<String> = words.facts.iter().map(|(label, value)| format!("{label}: {value}")).collect();
    let annotations = [
        ("summary", words.headline.clone()),
        ("description", alert.summary.clone()),
        ("facts", facts.join("\n")),
        ("unusual", words.unusual.join("\n")),
        ("why", words.why.clone()),
        ("next_steps", words.next_steps.join("\n")),
        ("alert_id", alert.id.clone()),
    ];
    let rfc = |time: DateTime<Utc>| time.to_rfc3339_opts(SecondsFormat::Millis, true);
    // It must not end before it begins, however old it is.
    let starts = alert.first.min(ends - TimeDelta::seconds(1));
    json!({ "labels": map(labels.map(|(k, v)| (k, v.to_owned())), LABEL), "annotations": map(annotations, ANNOTATION),
        "startsAt": rfc(starts), "endsAt": rfc(ends) })
}

fn map<const N: usize>(pairs: [(&str, String); N], max: usize) -> Map<String, Value> {
    let line = |text: &str| text.lines().map(|l| visible(l).into_owned()).collect::<Vec<_>>().join("\n");
    let there = pairs.into_iter().filter(|(_, value)| !value.trim().is_empty());
    there.map(|(key, value)| (key.to_owned(), cap(&line(&value), max).into_owned().into())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::sample;

    #[test]
    fn labels_stay_the_same_while_it_goes_on() {
        let first = posted(&sample::alert(), Utc::now());
        let mut later = sample::alert();
        (later.id, later.count, later.summary) = ("other".into(), 9, "another".into());
        later.evidence[0].namespace = "elsewhere".into();
        let second = posted(&later, Utc::now());
        assert_eq!(first["labels"], second["labels"]);
        assert_ne!(first["annotations"], second["annotations"]);
        assert_eq!(first["labels"]["alertname"], "pod-exec-shell");
        assert!(first["annotations"]["next_steps"].as_str().unwrap().starts_with("lapwing show a1b2c3d4\nkubectl"));
    }

    #[test]
    fn names_are_those_prometheus_takes_and_values_are_never_empty() {
        let mut alert = sample::hostile("");
        alert.why = String::new();
        let posted = posted(&alert, DateTime::UNIX_EPOCH + TimeDelta::days(1));
        for map in [&posted["labels"], &posted["annotations"]] {
            for (name, value) in map.as_object().unwrap() {
                assert!(name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'), "{name}");
                assert!(!value.as_str().unwrap().is_empty(), "{name}");
            }
        }
        assert!(posted["startsAt"].as_str() < posted["endsAt"].as_str());
    }
}
