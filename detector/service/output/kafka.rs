//! Alerts into a Kafka topic: idempotent producer, acknowledged by all replicas in sync. The key is cluster and actor, so
//! that what belongs together stays in order.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use lapwing_engine::alert::Alert;
use rdkafka::ClientConfig;
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{FutureProducer, FutureRecord};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::encode::cap;
use super::{Common, Failure, Receipt, record, secret, webhook};
use crate::brokers;
use crate::config::HumanDuration;

/// Alerts on their way at once.
pub const BATCH: usize = 100;

/// Settings of an output of type `kafka`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
#[schemars(extend("required" = ["name", "brokers", "topic"]))]
pub struct Config {
    #[serde(flatten)]
    pub common: Common,
    /// Brokers to begin with, `host:port`.
    pub brokers: Vec<String>,
    /// Topic to write to.
    pub topic: String,
    /// How an alert is written: `json`, or `ocsf`.
    pub format: record::Format,
    /// Told as resolved when nothing came of it for so long. Default: never.
    pub resolve_after: Option<HumanDuration>,
    /// Largest message in bytes (2500 to 10000000). The broker's `message.max.bytes` must allow it.
    pub max_bytes: usize,
    /// File that holds the SASL password, so that it need not stand here.
    pub password_file: Option<PathBuf>,
    /// Further librdkafka properties, such as `security.protocol` and `ssl.ca.location`.
    pub properties: BTreeMap<String, String>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            common: Common::default(),
            brokers: Vec::new(),
            topic: String::new(),
            format: record::Format::default(),
            resolve_after: None,
            max_bytes: 900_000,
            password_file: None,
            properties: BTreeMap::new(),
        }
    }
}

/// Set by us; changing one could lose or repeat alerts.
const RESERVED: [(&str, &str); 3] = [("enable.idempotence", "true"), ("acks", "all"), ("message.timeout.ms", "30000")];

impl Config {
    pub(super) fn target(&self) -> String {
        format!("topic {} at {}", self.topic, self.brokers.join(", "))
    }

    pub(super) fn resolve(&mut self, base: &Path) {
        if let Some(path) = &mut self.password_file {
            *path = base.join(&*path);
        }
    }

    pub(super) fn problems(&self) -> Vec<String> {
        let mut found = Vec::new();
        if self.brokers.is_empty() {
            found.push("brokers is empty; name at least one".to_owned());
        }
        if self.topic.is_empty() {
            found.push("topic is missing".to_owned());
        }
        if !(2500..=10_000_000).contains(&self.max_bytes) {
            found.push("maxBytes: expected 2500 to 10000000".to_owned());
        }
        for key in self.properties.keys() {
            if key == "bootstrap.servers" || RESERVED.iter().any(|(reserved, _)| reserved == key) {
                found.push(format!("property `{key}` decides about losing alerts and cannot be set; remove it"));
            }
        }
        found
    }

    fn client(&self) -> Result<ClientConfig, String> {
        let mut client = ClientConfig::new();
        client.set("client.id", "lapwing").set("message.max.bytes", self.max_bytes.saturating_add(10_000).to_string());
        for (key, value) in &self.properties {
            client.set(key, value);
        }
        for (key, value) in RESERVED {
            client.set(key, value);
        }
        client.set("bootstrap.servers", self.brokers.join(","));
        if let Some(path) = &self.password_file {
            client.set("sasl.password", secret::read(path).map_err(|e| e.to_string())?.expose());
        }
        Ok(client)
    }
}

/// What the client last said is wrong. An alert's own failure is only that its time ran out.
#[derive(Clone, Default)]
struct Trouble(Arc<Mutex<String>>);

impl Trouble {
    /// `error`, and what is wrong as far as it is known.
    async fn explain(&self, error: &KafkaError, config: &Config) -> String {
        let why = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let Some(client) = config.client().ok().filter(|_| !why.is_empty()) else { return error.to_string() };
        let known = why.clone();
        let why = tokio::task::spawn_blocking(move || brokers::explain(&client, &why)).await.unwrap_or(known);
        format!("{error}; {why}")
    }

    fn over(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

impl ClientContext for Trouble {
    fn log(&self, _: RDKafkaLogLevel, facility: &str, message: &str) {
        tracing::debug!(facility, "{message}");
    }

    fn error(&self, error: KafkaError, reason: &str) {
        let mut told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // That all brokers are down follows from what was said of each, and says less.
        let summary = error.rdkafka_error_code() == Some(RDKafkaErrorCode::AllBrokersDown);
        if told.is_empty() || !summary {
            reason.clone_into(&mut told);
        }
    }
}

type Producer = FutureProducer<Trouble>;

pub struct Kafka {
    config: Config,
    /// `None` after one gave up: it may never come back. The next try makes another, with the password as it is then.
    producer: Option<Producer>,
    trouble: Trouble,
}

impl std::fmt::Debug for Kafka {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Kafka").field("config", &self.config).finish_non_exhaustive()
    }
}

impl Kafka {
    pub fn new(config: &Config) -> Result<Self, String> {
        let trouble = Trouble::default();
        Ok(Self { producer: Some(producer(config, &trouble)?), config: config.clone(), trouble })
    }

    pub async fn deliver(&mut self, alerts: &[&Alert]) -> Result<Receipt, Failure> {
        let producer = match self.producer.take() {
            Some(producer) => producer,
            None => producer(&self.config, &self.trouble).map_err(Failure::retry)?,
        };
        let sent: Vec<_> = alerts.iter().map(|alert| self.send(&producer, alert)).collect();
        let mut ends = Vec::new();
        for sent in sent {
            ends.push(sent.await);
        }
        for (alert, end) in alerts.iter().zip(&mut ends) {
            // The broker refused what the client had packed together: whether this one is to blame shows by itself.
            if alerts.len() > 1 && end.as_ref().is_err_and(|e| is(e, RDKafkaErrorCode::MessageSizeTooLarge)) {
                *end = self.send(&producer, alert).await;
            }
        }
        let (mut refused, mut again, mut reason, mut told) = (Vec::new(), Vec::new(), String::new(), String::new());
        let mut last = None;
        for (at, end) in ends.into_iter().enumerate() {
            match end {
                Ok(place) => told = place,
                Err(error) if is_final(&error) => {
                    reason = error.to_string();
                    refused.push((at, reason.clone()));
                }
                Err(error) => {
                    again.push(at);
                    last = Some(error);
                }
            }
        }
        if let Some(error) = last {
            reason = self.trouble.explain(&error, &self.config).await;
        }
        if !again.is_empty() {
            return Err(Failure::Partial { refused, again, reason, after: None });
        }
        self.producer = Some(producer);
        self.trouble.over();
        if refused.is_empty() {
            return Ok(Receipt(told));
        }
        Err(Failure::Partial { refused, again, reason, after: None })
    }

    /// Hands one alert to the producer, now: the order of the calls is the order in the topic.
    fn send(&self, producer: &Producer, alert: &Alert) -> impl Future<Output = Result<String, KafkaError>> + use<> {
        let key = format!("{}/{}", cap(&alert.cluster, 200), cap(&alert.actor, 200));
        let payload = record::line(alert, self.config.format, self.config.max_bytes);
        let (kind, id) =
            (if self.config.format == record::Format::Ocsf { "ocsf" } else { "lapwing" }, webhook::notice_id(&[alert]));
        let header = |key, value: &'static str| Header { key, value: Some(value) };
        let headers = OwnedHeaders::new()
            .insert(header("content-type", "application/json"))
            .insert(header("schema", kind))
            .insert(Header { key: "id", value: Some(&id) });
        let record = FutureRecord::to(&self.config.topic).key(&key).payload(&payload).headers(headers);
        let queued = producer.send_result(record).map_err(|(error, _)| error);
        async move {
            let queued = tokio::time::timeout(Duration::from_secs(60), queued?).await;
            let gone = || KafkaError::MessageProduction(RDKafkaErrorCode::MessageTimedOut);
            let delivery = queued.map_err(|_| gone())?.map_err(|_| gone())?.map_err(|(error, _)| error)?;
            Ok(format!("partition {}, offset {}", delivery.partition, delivery.offset))
        }
    }
}

fn producer(config: &Config, trouble: &Trouble) -> Result<Producer, String> {
    config.client()?.create_with_context(trouble.clone()).map_err(|e| e.to_string())
}

fn is(error: &KafkaError, code: RDKafkaErrorCode) -> bool {
    matches!(error, KafkaError::MessageProduction(known) if *known == code)
}

/// Whether the message itself is to blame.
fn is_final(error: &KafkaError) -> bool {
    is(error, RDKafkaErrorCode::MessageSizeTooLarge) || is(error, RDKafkaErrorCode::InvalidMessage)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_decides_about_losses_cannot_be_set() {
        let mut config = Config { brokers: vec!["a:1".into()], topic: "t".into(), ..Config::default() };
        assert_eq!(config.problems(), Vec::<String>::new());
        config.properties.insert("acks".into(), "0".into());
        config.properties.insert("security.protocol".into(), "ssl".into());
        assert_eq!(config.problems().len(), 1);
    }
}
