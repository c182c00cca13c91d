//! Alerts to Grafana Loki's push API. Labels are few and bounded (job, cluster, level, rule); everything else is in the
//! line, as JSON.
//!
//! An entry carries the time it was first sent, because Loki refuses old ones; when it happened stands in the line. A
//! repetition has the same time and line and is stored once.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use lapwing_engine::alert::Alert;
use reqwest::header::{HeaderMap, HeaderName};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::encode::{cap, visible};
use super::{Common, Failure, Receipt, http, record, tls, webhook};

/// Alerts in one request.
pub const BATCH: usize = 50;
/// Loki takes lines of 256 KB.
const MAX_BYTES: usize = 60_000;

/// Settings of an output of type `loki`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
#[schemars(extend("required" = ["name", "url"]))]
pub struct Config {
    #[serde(flatten)]
    pub common: Common,
    /// Where to push: `https://loki.example.org/loki/api/v1/push`.
    pub url: String,
    /// Tenant (`X-Scope-OrgID`).
    pub tenant: Option<String>,
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

impl Config {
    pub(super) fn target(&self) -> String {
        http::named(&self.url)
    }

    pub(super) fn resolve(&mut self, base: &Path) {
        http::resolve(base, [&mut self.token_file, &mut self.password_file]);
        self.tls.resolve(base);
    }

    pub(super) fn problems(&self) -> Vec<String> {
        let mut found = http::receiver_problems(&self.url, &self.tls, self.timeout_seconds);
        found.extend(http::login_problem(self.username.as_ref(), self.password_file.as_ref()));
        found
    }
}

#[derive(Debug)]
pub struct Loki {
    config: Config,
    client: http::Client,
    /// When what is being sent was first sent, in nanoseconds, by notice.
    sending: HashMap<String, i64>,
}

impl Loki {
    pub fn new(config: &Config) -> Result<Self, String> {
        let client = http::Client::checked(&config.tls, config.timeout_seconds.get())?;
        let output = Self { config: config.clone(), client, sending: HashMap::new() };
        output.headers().map_err(|e| e.to_string())?;
        Ok(output)
    }

    fn headers(&self) -> Result<HeaderMap, Failure> {
        let mut headers = http::content("application/json");
        http::bearer(&mut headers, "Bearer", self.config.token_file.as_deref())?;
        http::basic(&mut headers, self.config.username.as_deref(), self.config.password_file.as_deref())?;
        if let Some(tenant) = &self.config.tenant {
            http::secret_header(&mut headers, HeaderName::from_static("x-scope-orgid"), tenant)?;
        }
        Ok(headers)
    }

    pub async fn deliver(&mut self, alerts: &[&Alert]) -> Result<Receipt, Failure> {
        let now = chrono::Utc::now().timestamp_nanos_opt().unwrap_or_default();
        let ids: Vec<String> = alerts.iter().map(|a| webhook::notice_id(&[a])).collect();
        // Kept over the tries of one batch, whole or in parts; a repetition must have the same time to be known.
        self.sending.retain(|_, first| now - *first < 3_600_000_000_000);
        let times: Vec<i64> = ids.iter().map(|id| *self.sending.entry(id.clone()).or_insert(now)).collect();
        let body = serde_json::to_vec(&pushed(alerts, &times)).map_err(Failure::reject)?;
        let mut headers = self.headers()?;
        let body = http::gzip(&mut headers, &body)?;
        let url = http::parse(&self.config.url).map_err(Failure::retry)?;
        let answer = self.client.post(&url, headers, body).await?;
        answer.verdict_of_batch()?;
        ids.iter().for_each(|id| {
            self.sending.remove(id);
        });
        Ok(Receipt(answer.told()))
    }
}

/// The streams, one for each set of labels.
fn pushed(alerts: &[&Alert], times: &[i64]) -> Value {
    let mut streams: BTreeMap<[String; 3], Vec<Value>> = BTreeMap::new();
    for (alert, time) in alerts.iter().zip(times) {
        let label = |text: &str| visible(&cap(text, 100)).into_owned();
        let labels = [label(&alert.cluster), alert.level.to_string(), label(&alert.rule.id)];
        let line = record::line(alert, record::Format::Json, MAX_BYTES);
        streams.entry(labels).or_default().push(json!([time.to_string(), line]));
    }
    let stream = |([cluster, level, rule], values): ([String; 3], Vec<Value>)| json!({ "stream": { "job": "lapwing", "cluster": cluster, "level": level, "rule": rule }, "values": values });
    json!({ "streams": streams.into_iter().map(stream).collect::<Vec<_>>() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::sample;

    #[test]
    fn labels_are_few_and_a_line_is_the_alert() {
        let (first, mut second) = (sample::alert(), sample::alert());
        second.level = lapwing_engine::alert::Level::Critical;
        let body = pushed(&[&first, &second, &first], &[1, 2, 3]);
        let streams = body["streams"].as_array().unwrap();
        assert_eq!(streams.len(), 2);
        let high = streams.iter().find(|s| s["stream"]["level"] == "high").unwrap();
        assert_eq!(high["stream"].as_object().unwrap().len(), 4);
        assert_eq!(high["values"].as_array().unwrap().len(), 2);
        assert_eq!(high["values"][1][0], "3");
        let line = high["values"][0][1].as_str().unwrap();
        assert_eq!(serde_json::from_str::<Alert>(line).unwrap(), first);
    }
}
