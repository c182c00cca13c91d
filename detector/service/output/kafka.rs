//! Alerts into a Kafka topic: idempotent producer, acknowledged by all replicas in sync. The key is cluster and actor, so
//! that what belongs together stays in order.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use lapwing_engine::alert::{Alert, Level};
use rdkafka::ClientConfig;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{FutureProducer, FutureRecord};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::encode::cap;
use super::{Failure, Receipt, Retry, record, secret, webhook};

/// Alerts on their way at once.
pub const BATCH: usize = 100;

/// Settings of an output of type `kafka`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
#[schemars(extend("required" = ["name", "brokers", "topic"]))]
pub struct Config {
    /// Unique name of this output.
    pub name: String,
    /// Alerts below this level are not sent. Default: medium.
    pub min_level: Level,
    /// How stubborn it is.
    pub retry: Retry,
    /// Brokers to begin with, `host:port`.
    pub brokers: Vec<String>,
    /// Topic to write to.
    pub topic: String,
    /// How an alert is written: `json`, or `ocsf`.
    pub format: record::Format,
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
            name: String::new(),
            min_level: Level::default(),
            retry: Retry::default(),
            brokers: Vec::new(),
            topic: String::new(),
            format: record::Format::default(),
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

pub struct Kafka {
    config: Config,
    producer: FutureProducer,
}

impl std::fmt::Debug for Kafka {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Kafka").field("config", &self.config).finish_non_exhaustive()
    }
}

impl Kafka {
    pub fn new(config: &Config) -> Result<Self, String> {
        let producer = config.client()?.create().map_err(|e| e.to_string())?;
        Ok(Self { config: config.clone(), producer })
    }

    pub async fn deliver(&mut self, alerts: &[&Alert]) -> Result<Receipt, Failure> {
        let sent: Vec<_> = alerts.iter().map(|alert| self.send(alert)).collect();
        let (mut refused, mut again, mut reason, mut told) = (Vec::new(), Vec::new(), String::new(), String::new());
        for (at, sent) in sent.into_iter().enumerate() {
            match sent.await {
                Ok(place) => told = place,
                Err(error) => {
                    reason = error.to_string();
                    if is_final(&error) { refused.push((at, reason.clone())) } else { again.push(at) }
                }
            }
        }
        match (refused.is_empty(), again.is_empty()) {
            (true, true) => Ok(Receipt(told)),
            // A producer that gave up once may never come back: another is made for the next try.
            (_, false) => {
                self.producer =
                    self.config.client().and_then(|c| c.create().map_err(|e| e.to_string())).map_err(Failure::retry)?;
                Err(Failure::Partial { refused, again, reason, after: None })
            }
            (false, true) => Err(Failure::Partial { refused, again, reason, after: None }),
        }
    }

    /// Hands one alert to the producer, now: the order of the calls is the order in the topic.
    fn send(&self, alert: &Alert) -> impl Future<Output = Result<String, KafkaError>> + use<> {
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
        let queued = self.producer.send_result(record).map_err(|(error, _)| error);
        async move {
            let queued = tokio::time::timeout(Duration::from_secs(60), queued?).await;
            let gone = || KafkaError::MessageProduction(RDKafkaErrorCode::MessageTimedOut);
            let delivery = queued.map_err(|_| gone())?.map_err(|_| gone())?.map_err(|(error, _)| error)?;
            Ok(format!("partition {}, offset {}", delivery.partition, delivery.offset))
        }
    }
}

/// Whether the message itself is to blame.
fn is_final(error: &KafkaError) -> bool {
    matches!(
        error,
        KafkaError::MessageProduction(RDKafkaErrorCode::MessageSizeTooLarge | RDKafkaErrorCode::InvalidMessage)
    )
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
