//! What a Kafka consumer is told, and what librdkafka is told by it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use rdkafka::ClientConfig;

use crate::source::file::Start;

/// A Kafka consumer.
#[derive(Clone, Debug, PartialEq, Eq, serde::Deserialize, serde::Serialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
#[schemars(extend("required" = ["name", "brokers", "topics", "cluster"]))]
pub struct Config {
    /// Name of this source in logs and metrics.
    pub name: String,
    /// Brokers to begin with, `host:port`.
    pub brokers: Vec<String>,
    /// Topics to consume.
    pub topics: Vec<String>,
    /// Consumer group.
    pub group: String,
    /// Name of the cluster the events belong to.
    pub cluster: String,
    /// Message header that names the cluster; `cluster` is used where it is missing.
    pub cluster_header: Option<String>,
    /// Give every partition a journal, an engine and outputs of its own, below `dataDir/shards`. Lay `dataDir` on storage
    /// that all detectors of the group share: a partition then takes its memory along when it moves. See docs/scale.md.
    pub shards: bool,
    /// Where to begin when neither the journal nor the group knows a position.
    pub start: Start,
    /// File that holds the SASL password, so that it need not stand here.
    pub password_file: Option<PathBuf>,
    /// Further librdkafka properties, such as `security.protocol` and `ssl.ca.location`.
    pub properties: BTreeMap<String, String>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            name: String::new(),
            brokers: Vec::new(),
            topics: Vec::new(),
            group: "lapwing".to_owned(),
            cluster: String::new(),
            cluster_header: None,
            shards: false,
            start: Start::default(),
            password_file: None,
            properties: BTreeMap::new(),
        }
    }
}

/// What is wrong with the configuration of a Kafka source.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("kafka `{name}`: `{what}` is empty, expected at least one")]
    Empty { name: String, what: &'static str },
    #[error("kafka `{name}`: property `{key}` decides about losing events and cannot be set; remove it")]
    Reserved { name: String, key: String },
    #[error("kafka `{name}`: cannot read `{}`", path.display())]
    Password {
        name: String,
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
}

/// Set by us; changing one could lose events or commit what is not durable.
const RESERVED: [(&str, &str); 7] = [
    ("enable.auto.commit", "false"),
    ("enable.auto.offset.store", "false"),
    ("auto.offset.reset", "error"),
    ("partition.assignment.strategy", "cooperative-sticky"),
    ("isolation.level", "read_committed"),
    ("check.crcs", "true"),
    ("enable.partition.eof", "false"),
];

const DEFAULTS: [(&str, &str); 5] = [
    ("statistics.interval.ms", "5000"),
    ("session.timeout.ms", "45000"),
    ("max.poll.interval.ms", "300000"),
    ("queued.max.messages.kbytes", "16384"),
    ("fetch.message.max.bytes", "4194304"),
];

impl Config {
    /// The client's configuration; reads the password file.
    pub fn client(&self) -> Result<ClientConfig, ConfigError> {
        let name = || self.name.clone();
        for (what, empty) in
            [("brokers", self.brokers.is_empty()), ("topics", self.topics.is_empty()), ("group", self.group.is_empty())]
        {
            if empty {
                return Err(ConfigError::Empty { name: name(), what });
            }
        }
        let ours = |key: &str| RESERVED.iter().any(|(k, _)| *k == key) || key == "group.id";
        let mut client = connection(&self.name, &self.brokers, &self.properties, self.password_file.as_deref(), ours)?;
        for (key, value) in DEFAULTS {
            if client.get(key).is_none() {
                client.set(key, value);
            }
        }
        for (key, value) in RESERVED {
            client.set(key, value);
        }
        client.set("group.id", &self.group);
        Ok(client)
    }
}

/// A client of these brokers with further `properties`, of which `ours` are not for people to set; reads the password
/// file.
pub fn connection(
    name: &str,
    brokers: &[String],
    properties: &BTreeMap<String, String>,
    password_file: Option<&Path>,
    ours: impl Fn(&str) -> bool,
) -> Result<ClientConfig, ConfigError> {
    let mut client = ClientConfig::new();
    // A broker that takes connections and refuses the handshake is otherwise asked twenty times a second.
    client.set("reconnect.backoff.ms", "1000");
    for (key, value) in properties {
        if ours(key) || key == "bootstrap.servers" {
            return Err(ConfigError::Reserved { name: name.to_owned(), key: key.clone() });
        }
        client.set(key, value);
    }
    client.set("bootstrap.servers", brokers.join(","));
    if let Some(path) = password_file {
        let password = std::fs::read_to_string(path).map_err(|source| ConfigError::Password {
            name: name.to_owned(),
            path: path.to_owned(),
            source,
        })?;
        client.set("sasl.password", password.trim_end_matches(['\r', '\n']));
    }
    Ok(client)
}
