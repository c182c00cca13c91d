//! The parts' own sections, until each part brings its `Config`: replace a module here by
//! `pub use crate::source::webhook;`, name its own checks in `problems`, and nothing else changes.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What the parts find wrong with their own sections: the section's path and the message. The general
/// checks run first; a section they complained about is not complained about again.
pub fn problems(config: &super::Config) -> Vec<(String, String)> {
    let outputs = config.outputs.iter().enumerate();
    outputs.flat_map(|(i, c)| c.problems().into_iter().map(move |p| (format!("outputs[{i}]"), p))).collect()
}

pub mod webhook {
    use super::*;

    /// The audit webhook: an HTTPS listener kube-apiserver posts event lists to.
    #[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
    #[serde(deny_unknown_fields, rename_all = "camelCase", default)]
    pub struct Config {
        /// Address and port to listen on. Without `tls` only a loopback address is accepted.
        pub listen: SocketAddr,
        /// Certificate to show, and who may sign the senders' certificates.
        pub tls: Option<Tls>,
        /// Who may send, and as which cluster.
        pub clusters: Vec<Cluster>,
        /// Accept events without any credential, on loopback and without `tls` only: for trials.
        pub insecure_loopback: bool,
        /// The cluster of events that come without credential and without a cluster in the path.
        pub default_cluster: String,
    }

    impl Default for Config {
        fn default() -> Self {
            Self {
                listen: SocketAddr::from(([127, 0, 0, 1], 8443)),
                tls: None,
                clusters: Vec::new(),
                insecure_loopback: false,
                default_cluster: "default".into(),
            }
        }
    }

    /// The server's certificate and, for client certificates, who signed them.
    #[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
    #[serde(deny_unknown_fields, rename_all = "camelCase")]
    pub struct Tls {
        /// PEM file with the certificate and its chain.
        pub cert: PathBuf,
        /// PEM file with the private key.
        pub key: PathBuf,
        /// PEM file with the authorities that sign client certificates.
        pub client_ca: Option<PathBuf>,
    }

    /// A cluster and how its API servers prove who they are.
    #[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
    #[serde(deny_unknown_fields, rename_all = "camelCase")]
    pub struct Cluster {
        /// The name its events carry.
        pub name: String,
        /// Common names or subject alternative names of its client certificates.
        #[serde(default)]
        pub client_names: Vec<String>,
        /// File with its bearer tokens, one a line.
        #[serde(default)]
        pub token_file: Option<PathBuf>,
    }
}

pub mod kafka {
    use super::*;

    /// A Kafka consumer group that reads audit events.
    #[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
    #[serde(deny_unknown_fields, rename_all = "camelCase")]
    pub struct Config {
        /// Name of this source, unique.
        pub name: String,
        /// Bootstrap servers, `host:port`.
        pub brokers: Vec<String>,
        /// Topics to read.
        pub topics: Vec<String>,
        /// Consumer group.
        #[serde(default = "lapwing")]
        pub group: String,
        /// The cluster the events come from.
        pub cluster: String,
        /// Further librdkafka properties, such as `security.protocol`.
        #[serde(default)]
        pub properties: BTreeMap<String, String>,
    }

    fn lapwing() -> String {
        "lapwing".into()
    }
}

pub mod file {
    use super::*;

    /// An audit log file, followed through rotation.
    #[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
    #[serde(deny_unknown_fields, rename_all = "camelCase")]
    pub struct Config {
        /// The file kube-apiserver writes (`--audit-log-path`).
        pub path: PathBuf,
        /// The cluster the events come from.
        pub cluster: String,
    }
}

pub use crate::output;
