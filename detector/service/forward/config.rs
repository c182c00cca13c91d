//! Where batches go, and what librdkafka is told of it.

use std::collections::BTreeMap;
use std::path::PathBuf;

use rdkafka::ClientConfig;

use crate::config::ByteSize;
use crate::source::kafka::{ConfigError, connection};

/// `lapwing receive`: the topic the webhook's events go to.
#[derive(Clone, Debug, PartialEq, Eq, serde::Deserialize, serde::Serialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
#[schemars(extend("required" = ["brokers", "topic"]))]
pub struct Config {
    /// Brokers to begin with, `host:port`.
    pub brokers: Vec<String>,
    /// The topic. Its records are keyed by cluster: all of a cluster is in one partition.
    pub topic: String,
    /// File that holds the SASL password, so that it need not stand here.
    pub password_file: Option<PathBuf>,
    /// Further librdkafka properties, such as `security.protocol` and `ssl.ca.location`.
    pub properties: BTreeMap<String, String>,
    /// Largest event as it is; a larger one loses its bodies. Below the brokers' `message.max.bytes`.
    pub max_record: ByteSize,
    /// Most the spool may take on this disk while the brokers are away; then senders are refused.
    pub max_spool: ByteSize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            brokers: Vec::new(),
            topic: String::new(),
            password_file: None,
            properties: BTreeMap::new(),
            max_record: ByteSize(900 << 10),
            max_spool: ByteSize(10 << 30),
        }
    }
}

/// Set by us; changing one could lose events, spread a cluster over partitions, or answer too late.
const RESERVED: [(&str, &str); 4] = [
    ("acks", "all"),
    ("enable.idempotence", "true"),
    ("partitioner", "murmur2_random"),
    ("message.timeout.ms", "5000"),
];

const DEFAULTS: [(&str, &str); 3] =
    [("compression.type", "zstd"), ("linger.ms", "5"), ("queue.buffering.max.kbytes", "262144")];

impl Config {
    /// The client's configuration; reads the password file.
    pub fn client(&self) -> Result<ClientConfig, ConfigError> {
        let empty = |what| ConfigError::Empty { name: "forward".to_owned(), what };
        if self.brokers.is_empty() {
            return Err(empty("brokers"));
        }
        if self.topic.is_empty() {
            return Err(empty("topic"));
        }
        let ours = |key: &str| RESERVED.iter().any(|(k, _)| *k == key) || key == "message.max.bytes";
        let mut client = connection("forward", &self.brokers, &self.properties, self.password_file.as_deref(), ours)?;
        for (key, value) in DEFAULTS {
            if client.get(key).is_none() {
                client.set(key, value);
            }
        }
        for (key, value) in RESERVED {
            client.set(key, value);
        }
        // Room for the key and the headers beside the event.
        client.set("message.max.bytes", (self.max_record.get() + (64 << 10)).to_string());
        Ok(client)
    }
}
