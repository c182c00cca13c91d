//! Alerts as OpenTelemetry log records over OTLP/HTTP, protobuf.
//!
//! The messages are those of `opentelemetry-proto` 1.3, as much of them as an alert needs. What the receiver rejects of
//! a batch it does not name: then the whole batch becomes dead letters, because the protocol forbids to send it again. For a
//! while each alert is then a request of its own, so that of what comes next nothing is a dead letter that was taken.

use std::path::{Path, PathBuf};
use std::time::Duration;

use lapwing_engine::alert::{Alert, Level};
use prost::Message;
use reqwest::header::HeaderMap;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::encode::{cap, visible};
use super::{Common, Failure, Receipt, http, record, text, tls};

/// Alerts in one request.
pub const BATCH: usize = 50;
const MAX_BYTES: usize = 60_000;
/// How long alerts go one by one after a batch of which some were rejected.
const CAREFUL: Duration = Duration::from_secs(600);

/// Settings of an output of type `otlp`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
#[schemars(extend("required" = ["name", "url"]))]
pub struct Config {
    #[serde(flatten)]
    pub common: Common,
    /// Where logs are taken: `https://otel.example.org:4318/v1/logs`.
    pub url: String,
    /// File with a bearer token to send along.
    pub token_file: Option<PathBuf>,
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
        http::resolve(base, [&mut self.token_file]);
        self.tls.resolve(base);
    }

    pub(super) fn problems(&self) -> Vec<String> {
        http::receiver_problems(&self.url, &self.tls, self.timeout_seconds)
    }
}

#[derive(Debug)]
pub struct Otlp {
    config: Config,
    client: http::Client,
    /// Until when alerts go one by one.
    careful: Option<Instant>,
}

impl Otlp {
    pub fn new(config: &Config) -> Result<Self, String> {
        let client = http::Client::checked(&config.tls, config.timeout_seconds.get())?;
        let output = Self { config: config.clone(), client, careful: None };
        output.headers().map_err(|e| e.to_string())?;
        Ok(output)
    }

    fn headers(&self) -> Result<HeaderMap, Failure> {
        let mut headers = http::content("application/x-protobuf");
        http::bearer(&mut headers, "Bearer", self.config.token_file.as_deref())?;
        Ok(headers)
    }

    pub async fn deliver(&mut self, alerts: &[&Alert]) -> Result<Receipt, Failure> {
        if alerts.len() == 1 || self.careful.is_none_or(|until| until <= Instant::now()) {
            return self.send(alerts).await;
        }
        let mut refused = Vec::new();
        for (at, alert) in alerts.iter().enumerate() {
            match self.send(&[alert]).await {
                Ok(_) => {}
                Err(Failure::Retry { reason, after }) => {
                    return Err(Failure::Partial { refused, again: (at..alerts.len()).collect(), reason, after });
                }
                Err(failure) => refused.push((at, failure.to_string())),
            }
        }
        match refused.first().cloned() {
            None => Ok(Receipt(format!("{} records, one by one", alerts.len()))),
            Some((_, reason)) => Err(Failure::Partial { refused, again: Vec::new(), reason, after: None }),
        }
    }

    async fn send(&mut self, alerts: &[&Alert]) -> Result<Receipt, Failure> {
        let mut headers = self.headers()?;
        let body = http::gzip(&mut headers, &request(alerts).encode_to_vec())?;
        let url = http::parse(&self.config.url).map_err(Failure::retry)?;
        let answer = self.client.post(&url, headers, body).await?;
        verdict(&answer)?;
        answer.complete()?;
        let rejected = proto::Response::decode(answer.bytes.as_slice()).ok().and_then(|r| r.partial_success);
        let Some(rejected) = rejected.filter(|r| r.rejected_log_records > 0) else {
            return Ok(Receipt(format!("{}, {} records", answer.status, alerts.len())));
        };
        let (count, why) = (rejected.rejected_log_records, visible(&cap(&rejected.error_message, 300)).into_owned());
        // Which ones it does not say, and the protocol forbids to send the batch again: all of it is kept for a person.
        self.careful = Some(Instant::now() + CAREFUL);
        let reason = format!("{count} of {} records rejected, the receiver does not say which: {why}", alerts.len());
        let refused = (0..alerts.len()).map(|at| (at, reason.clone())).collect();
        Err(Failure::Partial { refused, again: Vec::new(), reason, after: None })
    }
}

/// OTLP names the statuses to try again; credentials are ours to add.
fn verdict(answer: &http::Answer) -> Result<(), Failure> {
    let reason = || format!("{}", answer.status);
    match answer.status.as_u16() {
        200..=299 => Ok(()),
        401 | 403 | 408 | 429 | 502..=504 => Err(Failure::Retry { reason: reason(), after: answer.retry_after }),
        413 => Err(Failure::TooLarge { reason: reason() }),
        _ => Err(Failure::reject(reason())),
    }
}

const fn severity(level: Level) -> (i32, &'static str) {
    match level {
        Level::Informational => (9, "INFO"),
        Level::Low => (10, "INFO2"),
        Level::Medium => (13, "WARN"),
        Level::High => (17, "ERROR"),
        Level::Critical => (21, "FATAL"),
    }
}

fn request(alerts: &[&Alert]) -> proto::Request {
    let mut by_cluster: std::collections::BTreeMap<&str, Vec<proto::LogRecord>> = std::collections::BTreeMap::new();
    for alert in alerts {
        by_cluster.entry(&alert.cluster).or_default().push(log_record(alert));
    }
    let resource_logs = by_cluster.into_iter().map(|(cluster, log_records)| proto::ResourceLogs {
        resource: Some(proto::Resource {
            attributes: attributes(&[("service.name", "lapwing"), ("k8s.cluster.name", cluster)]),
        }),
        scope_logs: vec![proto::ScopeLogs {
            scope: Some(proto::Scope { name: "lapwing".to_owned(), version: env!("CARGO_PKG_VERSION").to_owned() }),
            log_records,
        }],
    });
    proto::Request { resource_logs: resource_logs.collect() }
}

fn log_record(alert: &Alert) -> proto::LogRecord {
    let (severity_number, severity_text) = severity(alert.level);
    let nanos =
        |time: chrono::DateTime<chrono::Utc>| u64::try_from(time.timestamp_nanos_opt().unwrap_or(0)).unwrap_or(0);
    let lead = text::leading(alert).cloned().unwrap_or_default();
    proto::LogRecord {
        time_unix_nano: nanos(alert.last),
        severity_number,
        severity_text: severity_text.to_owned(),
        body: Some(proto::AnyValue::text(&visible(&cap(&alert.summary, 2000)))),
        attributes: attributes(&[
            ("lapwing.alert.id", &alert.id),
            ("lapwing.alert.status", alert.status.as_str()),
            ("lapwing.rule.id", &alert.rule.id),
            ("lapwing.rule.title", &alert.rule.title),
            ("lapwing.alert", &record::line(alert, record::Format::Json, MAX_BYTES)),
            ("user.name", &alert.actor),
            ("k8s.namespace.name", &lead.namespace),
            ("client.address", &lead.address),
            ("user_agent.original", &lead.user_agent),
        ]),
        observed_time_unix_nano: nanos(chrono::Utc::now()),
        event_name: "lapwing.alert".to_owned(),
    }
}

fn attributes(pairs: &[(&str, &str)]) -> Vec<proto::KeyValue> {
    let there = pairs.iter().filter(|(_, value)| !value.is_empty());
    there
        .map(|(key, value)| proto::KeyValue { key: (*key).to_owned(), value: Some(proto::AnyValue::text(value)) })
        .collect()
}

/// The messages, by the numbers of their fields.
mod proto {
    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Request {
        #[prost(message, repeated, tag = "1")]
        pub resource_logs: Vec<ResourceLogs>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub struct ResourceLogs {
        #[prost(message, optional, tag = "1")]
        pub resource: Option<Resource>,
        #[prost(message, repeated, tag = "2")]
        pub scope_logs: Vec<ScopeLogs>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Resource {
        #[prost(message, repeated, tag = "1")]
        pub attributes: Vec<KeyValue>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub struct ScopeLogs {
        #[prost(message, optional, tag = "1")]
        pub scope: Option<Scope>,
        #[prost(message, repeated, tag = "2")]
        pub log_records: Vec<LogRecord>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Scope {
        #[prost(string, tag = "1")]
        pub name: String,
        #[prost(string, tag = "2")]
        pub version: String,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub struct LogRecord {
        #[prost(fixed64, tag = "1")]
        pub time_unix_nano: u64,
        #[prost(int32, tag = "2")]
        pub severity_number: i32,
        #[prost(string, tag = "3")]
        pub severity_text: String,
        #[prost(message, optional, tag = "5")]
        pub body: Option<AnyValue>,
        #[prost(message, repeated, tag = "6")]
        pub attributes: Vec<KeyValue>,
        #[prost(fixed64, tag = "11")]
        pub observed_time_unix_nano: u64,
        #[prost(string, tag = "12")]
        pub event_name: String,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub struct KeyValue {
        #[prost(string, tag = "1")]
        pub key: String,
        #[prost(message, optional, tag = "2")]
        pub value: Option<AnyValue>,
    }

    /// Only the text of the real one's choices.
    #[derive(Clone, PartialEq, prost::Message)]
    pub struct AnyValue {
        #[prost(string, optional, tag = "1")]
        pub string_value: Option<String>,
    }

    impl AnyValue {
        pub fn text(text: &str) -> Self {
            Self { string_value: Some(text.to_owned()) }
        }
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Response {
        #[prost(message, optional, tag = "1")]
        pub partial_success: Option<PartialSuccess>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub struct PartialSuccess {
        #[prost(int64, tag = "1")]
        pub rejected_log_records: i64,
        #[prost(string, tag = "2")]
        pub error_message: String,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::sample;

    #[test]
    fn what_is_written_can_be_read_again() {
        let mut other = sample::alert();
        other.cluster = "test".into();
        let request = request(&[&sample::alert(), &other, &sample::alert()]);
        let back = proto::Request::decode(request.encode_to_vec().as_slice()).unwrap();
        assert_eq!(back, request);
        let counts: Vec<_> = back.resource_logs.iter().map(|r| r.scope_logs[0].log_records.len()).collect();
        assert_eq!(counts, [2, 1]);
        let record = &back.resource_logs[0].scope_logs[0].log_records[0];
        assert_eq!((record.severity_number, record.time_unix_nano), (17, 1_772_366_400_000_000_000));
    }

    #[test]
    fn only_the_named_statuses_are_tried_again() {
        let answer = |status: u16| http::Answer::of(status, "");
        for status in [429, 502, 503, 504, 401] {
            assert!(matches!(verdict(&answer(status)), Err(Failure::Retry { .. })), "{status}");
        }
        for status in [400, 404, 500, 501] {
            assert!(matches!(verdict(&answer(status)), Err(Failure::Reject { .. })), "{status}");
        }
        assert!(verdict(&answer(201)).is_ok());
    }
}
