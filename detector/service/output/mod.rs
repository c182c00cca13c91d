//! Ways out: each output takes a notice, one alert or several that are told together, and says whether the receiver
//! has it.
//!
//! One file per output, one encoding function per format ([`encode`]), the words of an alert written once
//! ([`text`]). An output delivers one notice and knows nothing of queues; order, grouping, retries and dead
//! letters are the [`worker`]'s, one per output, so that a dead receiver slows nobody else.

pub mod alertmanager;
pub mod allow;
pub mod attack;
pub mod cef;
pub mod dead;
pub mod ecs;
pub mod elasticsearch;
pub mod email;
pub mod encode;
pub mod file;
pub mod http;
pub mod kafka;
pub mod leef;
pub mod loki;
pub mod metrics;
pub mod net;
pub mod ocsf;
pub mod otlp;
pub mod pagerduty;
pub mod record;
pub mod sample;
pub mod secret;
pub mod shrink;
pub mod slack;
pub mod splunk;
pub mod stdout;
pub mod syslog;
pub mod teams;
pub mod text;
pub mod tls;
pub mod webhook;
pub mod worker;

use std::path::Path;
use std::time::Duration;

use lapwing_engine::alert::{Alert, Level};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::config::HumanDuration;

/// One output of the configuration, told apart by `type`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", rename_all = "lowercase")]
pub enum Config {
    /// Standard output, as text or NDJSON.
    Stdout(stdout::Config),
    /// A file, one JSON object a line.
    File(file::Config),
    /// A signed HTTP request (Standard Webhooks).
    Webhook(webhook::Config),
    /// A Slack incoming webhook.
    Slack(slack::Config),
    /// E-mail over SMTP.
    Email(email::Config),
    /// Syslog (RFC 5424) over TCP, TLS or UDP, carrying CEF, LEEF or JSON.
    Syslog(syslog::Config),
    /// Prometheus Alertmanager.
    Alertmanager(alertmanager::Config),
    /// PagerDuty Events v2.
    Pagerduty(pagerduty::Config),
    /// Microsoft Teams, through the webhook of a Workflow.
    Teams(teams::Config),
    /// Splunk HTTP Event Collector.
    Splunk(splunk::Config),
    /// Elasticsearch or OpenSearch.
    Elasticsearch(elasticsearch::Config),
    /// OpenTelemetry logs.
    Otlp(otlp::Config),
    /// Grafana Loki.
    Loki(loki::Config),
    /// A Kafka topic.
    Kafka(kafka::Config),
}

/// What every output can be told.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Common {
    /// Unique name of this output.
    pub name: String,
    /// Alerts below this level are not sent. Default: medium.
    pub min_level: Level,
    /// How stubborn it is.
    pub retry: Retry,
    /// Most a minute (1 to 10000), in any sixty seconds, failed tries included. Nothing is dropped: `slack`, `teams` and
    /// `email` tell what waited together, in one message; requests of `alertmanager`, `splunk`, `elasticsearch`, `otlp` and
    /// `loki` carry more alerts each; for `webhook`, `pagerduty`, `syslog`, `kafka`, `file` and `stdout` it counts alerts,
    /// which wait in order. Default: no limit.
    pub max_per_minute: Option<u32>,
}

/// How stubborn an output is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct Retry {
    /// Longest wait between two tries, in seconds (1 to 3600). What may pass by itself is tried for ever.
    pub max_wait_seconds: u32,
    /// How often an alert the receiver refuses for good is tried before it becomes a dead letter (1 to 100).
    pub refused_tries: u32,
}

impl Default for Retry {
    fn default() -> Self {
        Self { max_wait_seconds: 60, refused_tries: 5 }
    }
}

/// The receiver has the alert; this is what it answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receipt(pub String);

/// The receiver does not have the alert.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// May pass by itself (network, overload, expired credentials): try again, not before `after`.
    #[error("{reason}")]
    Retry { reason: String, after: Option<Duration> },
    /// The receiver will not take this notice as it is.
    #[error("{reason}")]
    Reject { reason: String },
    /// Fewer alerts at once might be taken.
    #[error("{reason}")]
    TooLarge { reason: String },
    /// The receiver took some alerts of the notice: not those `refused` for good (with why) nor those to be sent
    /// `again`, told by their place.
    #[error("{reason}")]
    Partial { refused: Vec<(usize, String)>, again: Vec<usize>, reason: String, after: Option<Duration> },
}

/// What one notice of an output can be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Carries {
    /// At most so many alerts, each a record of its own at the receiver.
    Records(usize),
    /// A message for people, about any number of alerts.
    Message,
}

impl Carries {
    /// How many alerts are gathered before one is told.
    pub const fn most(self) -> usize {
        match self {
            Self::Records(most) => most,
            Self::Message => 1,
        }
    }
}

impl Failure {
    pub fn retry(reason: impl std::fmt::Display) -> Self {
        Self::Retry { reason: reason.to_string(), after: None }
    }

    pub fn reject(reason: impl std::fmt::Display) -> Self {
        Self::Reject { reason: reason.to_string() }
    }
}

/// Why an output cannot be set up.
#[derive(Debug, thiserror::Error)]
#[error("output `{name}`: {problem}")]
pub struct SetupError {
    pub name: String,
    pub problem: String,
}

/// Runs `$body` with the settings of whichever output this is.
macro_rules! each {
    ($config:expr, $c:ident => $body:expr) => {
        match $config {
            Config::Stdout($c) => $body,
            Config::File($c) => $body,
            Config::Webhook($c) => $body,
            Config::Slack($c) => $body,
            Config::Email($c) => $body,
            Config::Syslog($c) => $body,
            Config::Alertmanager($c) => $body,
            Config::Pagerduty($c) => $body,
            Config::Teams($c) => $body,
            Config::Splunk($c) => $body,
            Config::Elasticsearch($c) => $body,
            Config::Otlp($c) => $body,
            Config::Loki($c) => $body,
            Config::Kafka($c) => $body,
        }
    };
}

impl Config {
    /// Unique; also the name of its files in `outputs/` and its metric label.
    pub fn name(&self) -> &str {
        &self.common().name
    }

    pub const fn common(&self) -> &Common {
        each!(self, c => &c.common)
    }

    /// The word under `type`.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Stdout(_) => "stdout",
            Self::File(_) => "file",
            Self::Webhook(_) => "webhook",
            Self::Slack(_) => "slack",
            Self::Email(_) => "email",
            Self::Syslog(_) => "syslog",
            Self::Alertmanager(_) => "alertmanager",
            Self::Pagerduty(_) => "pagerduty",
            Self::Teams(_) => "teams",
            Self::Splunk(_) => "splunk",
            Self::Elasticsearch(_) => "elasticsearch",
            Self::Otlp(_) => "otlp",
            Self::Loki(_) => "loki",
            Self::Kafka(_) => "kafka",
        }
    }

    pub const fn carries(&self) -> Carries {
        match self {
            Self::Stdout(_) | Self::File(_) | Self::Webhook(_) | Self::Syslog(_) | Self::Pagerduty(_) => {
                Carries::Records(1)
            }
            Self::Slack(_) | Self::Teams(_) | Self::Email(_) => Carries::Message,
            Self::Alertmanager(_) => Carries::Records(alertmanager::BATCH),
            Self::Splunk(_) => Carries::Records(splunk::BATCH),
            Self::Elasticsearch(_) => Carries::Records(elasticsearch::BATCH),
            Self::Otlp(_) => Carries::Records(otlp::BATCH),
            Self::Loki(_) => Carries::Records(loki::BATCH),
            Self::Kafka(_) => Carries::Records(kafka::BATCH),
        }
    }

    /// Whether `maxPerMinute` is about alerts and not about notices: Kafka's records travel together, and whoever reads
    /// the topic does not see it.
    pub const fn counts_alerts(&self) -> bool {
        matches!(self, Self::Kafka(_))
    }

    /// After how much quiet it is told that an alert is over. Not for those that keep records: what was, was.
    pub const fn resolve_after(&self) -> Option<HumanDuration> {
        match self {
            Self::Pagerduty(c) => c.resolve_after,
            Self::Webhook(c) => c.resolve_after,
            Self::Slack(c) => c.resolve_after,
            Self::Teams(c) => c.resolve_after,
            Self::Email(c) => c.resolve_after,
            Self::Kafka(c) => c.resolve_after,
            _ => None,
        }
    }

    /// Where it sends to, without anything secret.
    pub fn target(&self) -> String {
        each!(self, c => c.target())
    }

    /// Makes relative paths relative to `base`, the directory of the configuration file.
    pub fn resolve(&mut self, base: &Path) {
        each!(self, c => c.resolve(base));
    }

    /// Everything wrong with these settings, without touching disk or network.
    pub fn problems(&self) -> Vec<String> {
        let mut found = Vec::new();
        let name = self.name();
        let safe = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        if name.is_empty() || name.len() > 63 || !name.bytes().all(safe) {
            found.push(format!("name `{name}`: expected 1 to 63 lowercase letters, digits or `-`"));
        }
        let Common { retry, max_per_minute, .. } = self.common();
        if !(1..=3600).contains(&retry.max_wait_seconds) {
            found.push("retry.maxWaitSeconds: expected 1 to 3600".to_owned());
        }
        if !(1..=100).contains(&retry.refused_tries) {
            found.push("retry.refusedTries: expected 1 to 100".to_owned());
        }
        if max_per_minute.is_some_and(|n| !(1..=10_000).contains(&n)) {
            found.push("maxPerMinute: expected 1 to 10000".to_owned());
        }
        found.extend(each!(self, c => c.problems()));
        found
    }
}

/// A way out, ready to deliver. Connections are made when the first alert needs one.
#[derive(Debug)]
pub enum Output {
    Stdout(stdout::Stdout),
    File(file::File),
    Webhook(Box<webhook::Webhook>),
    Slack(Box<slack::Slack>),
    Email(Box<email::Email>),
    Syslog(Box<syslog::Syslog>),
    Alertmanager(Box<alertmanager::Alertmanager>),
    Pagerduty(Box<pagerduty::Pagerduty>),
    Teams(Box<teams::Teams>),
    Splunk(Box<splunk::Splunk>),
    Elasticsearch(Box<elasticsearch::Elasticsearch>),
    Otlp(Box<otlp::Otlp>),
    Loki(Box<loki::Loki>),
    Kafka(Box<kafka::Kafka>),
}

impl Output {
    /// Sets up without connecting. Fails when the settings are wrong or a secret cannot be read.
    pub fn new(config: &Config) -> Result<Self, SetupError> {
        let failed = |problem: String| SetupError { name: config.name().to_owned(), problem };
        if let Some(first) = config.problems().into_iter().next() {
            return Err(failed(first));
        }
        Ok(match config {
            Config::Stdout(c) => Self::Stdout(stdout::Stdout::new(c)),
            Config::File(c) => Self::File(file::File::new(c)),
            Config::Webhook(c) => Self::Webhook(Box::new(webhook::Webhook::new(c).map_err(failed)?)),
            Config::Slack(c) => Self::Slack(Box::new(slack::Slack::new(c).map_err(failed)?)),
            Config::Email(c) => Self::Email(Box::new(email::Email::new(c).map_err(failed)?)),
            Config::Syslog(c) => Self::Syslog(Box::new(syslog::Syslog::new(c).map_err(failed)?)),
            Config::Alertmanager(c) => {
                Self::Alertmanager(Box::new(alertmanager::Alertmanager::new(c).map_err(failed)?))
            }
            Config::Pagerduty(c) => Self::Pagerduty(Box::new(pagerduty::Pagerduty::new(c).map_err(failed)?)),
            Config::Teams(c) => Self::Teams(Box::new(teams::Teams::new(c).map_err(failed)?)),
            Config::Splunk(c) => Self::Splunk(Box::new(splunk::Splunk::new(c).map_err(failed)?)),
            Config::Elasticsearch(c) => {
                Self::Elasticsearch(Box::new(elasticsearch::Elasticsearch::new(c).map_err(failed)?))
            }
            Config::Otlp(c) => Self::Otlp(Box::new(otlp::Otlp::new(c).map_err(failed)?)),
            Config::Loki(c) => Self::Loki(Box::new(loki::Loki::new(c).map_err(failed)?)),
            Config::Kafka(c) => Self::Kafka(Box::new(kafka::Kafka::new(c).map_err(failed)?)),
        })
    }

    /// As it is for a worker, which remembers below `data_dir` what must outlive it.
    #[must_use]
    pub fn remembering(mut self, data_dir: &Path) -> Self {
        if let Self::Slack(slack) = &mut self {
            slack.remember_in(data_dir);
        }
        self
    }

    /// Hands the alerts, one at least and no more than it carries, to the receiver. `Ok` only when the receiver has them
    /// all, as far as its protocol tells.
    pub async fn deliver(&mut self, alerts: &[&Alert]) -> Result<Receipt, Failure> {
        let Some(first) = alerts.first() else { return Ok(Receipt("nothing to send".to_owned())) };
        match self {
            Self::Stdout(o) => o.deliver(first).await,
            Self::File(o) => o.deliver(first).await,
            Self::Webhook(o) => o.deliver(first).await,
            Self::Slack(o) => o.deliver(alerts).await,
            Self::Email(o) => o.deliver(alerts).await,
            Self::Syslog(o) => o.deliver(first).await,
            Self::Alertmanager(o) => o.deliver(alerts).await,
            Self::Pagerduty(o) => o.deliver(first).await,
            Self::Teams(o) => o.deliver(alerts).await,
            Self::Splunk(o) => o.deliver(alerts).await,
            Self::Elasticsearch(o) => o.deliver(alerts).await,
            Self::Otlp(o) => o.deliver(alerts).await,
            Self::Loki(o) => o.deliver(alerts).await,
            Self::Kafka(o) => o.deliver(alerts).await,
        }
    }

    /// Called about once a second while there is nothing to deliver. Syslog has no acknowledgements: it
    /// looks here whether its connection died, and sends again what may have been lost with it.
    pub async fn tend(&mut self) -> Result<(), Failure> {
        match self {
            Self::Syslog(o) => o.tend().await,
            Self::Email(o) => {
                o.tend().await;
                Ok(())
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(yaml: &str) -> Result<Vec<Config>, String> {
        serde_saphyr::from_str(yaml).map_err(|e| e.to_string())
    }

    #[test]
    fn reads_every_type() {
        let configs = parse(
            "
- { name: console, type: stdout, minLevel: low, format: text }
- { name: archive, type: file, path: alerts.ndjson }
- { name: hook, type: webhook, url: https://example.org/in, secretFile: hook.key, retry: { refusedTries: 3 } }
- { name: chat, type: slack, urlFile: slack.url, minLevel: high }
- { name: mail, type: email, host: mail.example.org, from: lapwing@example.org, to: [soc@example.org] }
- { name: siem, type: syslog, address: 'siem:6514', tls: { ca: ca.pem }, format: cef }
- { name: am, type: alertmanager, urls: ['https://am.example.org:9093'] }
- { name: pager, type: pagerduty, keyFile: pd.key, resolveAfter: 4h }
- { name: teams, type: teams, urlFile: teams.url }
- { name: hec, type: splunk, url: 'https://splunk.example.org:8088', tokenFile: hec.token, acknowledge: true }
- { name: search, type: elasticsearch, url: 'https://search.example.org:9200', apiKeyFile: key }
- { name: otel, type: otlp, url: 'https://otel.example.org:4318/v1/logs' }
- { name: loki, type: loki, url: 'https://loki.example.org/loki/api/v1/push', tenant: soc }
- { name: topic, type: kafka, brokers: ['kafka:9092'], topic: alerts, format: ocsf }
",
        )
        .unwrap();
        let kinds: Vec<_> = configs.iter().map(Config::kind).collect();
        let expected =
            "stdout file webhook slack email syslog alertmanager pagerduty teams splunk elasticsearch otlp loki kafka";
        assert_eq!(kinds.join(" "), expected);
        assert_eq!(configs.iter().flat_map(Config::problems).collect::<Vec<_>>(), Vec::<String>::new());
        assert_eq!(configs[0].common().min_level, Level::Low);
        assert_eq!(configs[2].common().retry.refused_tries, 3);
    }

    #[test]
    fn unknown_keys_and_types_are_errors() {
        for yaml in ["[{ name: a, type: stdout, fromat: text }]", "[{ name: a, type: pigeon }]", "[{ name: a }]"] {
            assert!(parse(yaml).is_err(), "{yaml}");
        }
    }

    #[test]
    fn a_name_cannot_leave_its_directory() {
        let config =
            &parse("[{ name: ../x, type: stdout, retry: { maxWaitSeconds: 0, refusedTries: 0 } }]").unwrap()[0];
        assert_eq!(config.problems().len(), 3, "{:?}", config.problems());
        let error = Output::new(config).unwrap_err().to_string();
        assert!(error.starts_with("output `../x`: name `../x`: expected 1 to 63"), "{error}");
    }

    #[test]
    fn the_schema_says_what_serde_does() {
        let schema = serde_json::to_value(schemars::schema_for!(Config)).unwrap();
        let schema = jsonschema::validator_for(&schema).unwrap();
        for (good, json) in [
            (true, serde_json::json!({ "name": "a", "type": "teams", "urlFile": "x", "minLevel": "high" })),
            (true, serde_json::json!({ "name": "a", "type": "syslog", "address": "a:1", "tls": { "ca": "x" } })),
            (false, serde_json::json!({ "name": "a", "type": "stdout", "fromat": "text" })),
            (false, serde_json::json!({ "name": "a", "type": "stdout", "urlFile": "x" })),
            (false, serde_json::json!({ "name": "a", "type": "pigeon" })),
            (false, serde_json::json!({ "name": "a" })),
        ] {
            assert_eq!(schema.is_valid(&json), good, "{json}");
            assert_eq!(serde_json::from_value::<Config>(json.clone()).is_ok(), good, "{json}");
        }
    }

    #[test]
    fn relative_paths_follow_the_configuration_file() {
        let mut configs =
            parse("[{ name: a, type: file, path: x.ndjson }, { name: b, type: file, path: /x }]").unwrap();
        for c in &mut configs {
            c.resolve(Path::new("/etc/lapwing"));
        }
        assert_eq!(configs[0].target(), "/etc/lapwing/x.ndjson");
        assert_eq!(configs[1].target(), "/x");
    }
}
