//! What a person writes about the webhook, and what is wrong with it.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::oidc;
pub use crate::http::keys::Tls;

/// The audit webhook: API servers POST their audit events here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct Config {
    /// Address and port to listen on. Without `tls` only a loopback address is accepted.
    pub listen: SocketAddr,
    /// Certificate to show, and who may sign the senders' certificates.
    pub tls: Option<Tls>,
    /// Who may send, and as which cluster. A cluster's name never comes from the events.
    pub clusters: Vec<Sender>,
    /// Where identity tokens come from; of use with `clusters[].identity`.
    pub oidc: oidc::Config,
    /// Accept events without any credential, on a loopback address without `tls` only. The cluster is then
    /// taken from the path `/audit/v1/<cluster>`. Every process of this machine can forge events: for trials.
    pub insecure_loopback: bool,
    /// The cluster of events that come without credential and without a cluster in the path
    /// (`insecureLoopback` only).
    pub default_cluster: String,
    /// Largest body in bytes. What is larger is refused, and the API server drops that batch after five tries.
    pub max_body: u64,
    /// Offer HTTP/2. One connection then carries everything of an API server, so a balancer in front
    /// cannot spread it.
    pub http2: bool,
    /// Accept `Content-Encoding: gzip`. API servers never compress; a forwarder in between may.
    pub gzip: bool,
    /// Connections at once.
    pub max_connections: usize,
    /// Connections at once from one source address. Raise it when a balancer hides the addresses of many API servers.
    pub max_connections_per_address: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8443),
            tls: None,
            clusters: Vec::new(),
            oidc: oidc::Config::default(),
            insecure_loopback: false,
            default_cluster: "default".to_owned(),
            max_body: 64 * 1024 * 1024,
            http2: false,
            gzip: false,
            max_connections: 1024,
            max_connections_per_address: 64,
        }
    }
}

/// One cluster and how its API servers prove that they are it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Sender {
    /// Name of the cluster in findings, alerts and searches: letters, digits, `.`, `_`, `-`; at most 63.
    pub name: String,
    /// Names of client certificates, each compared exactly with DNS and URI subject alternative names and the common name.
    #[serde(default)]
    pub client_names: Vec<String>,
    /// File of bearer tokens, one a line, of 16 characters or more. Several lines let two tokens overlap in a rotation.
    #[serde(default)]
    pub token_file: Option<PathBuf>,
    /// The identity whose tokens (OpenID Connect) prove it, as Google Pub/Sub shows them with each push.
    #[serde(default)]
    pub identity: Option<oidc::Identity>,
}

/// What is wrong with a configuration that could be read.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Problem {
    #[error(
        "`listen` is {0}, which other machines can reach, but `tls` is missing: events could be read and forged on the way; \
         set `tls.cert` and `tls.key` (and `tls.clientCa` or a `tokenFile`), or listen on 127.0.0.1"
    )]
    PlainOffLoopback(SocketAddr),
    #[error(
        "`insecureLoopback` needs a loopback address, but `listen` is {0}; listen on 127.0.0.1, or remove it and set `clusters`"
    )]
    InsecureOffLoopback(SocketAddr),
    #[error("`insecureLoopback` is for plain HTTP; remove it, or remove `tls`")]
    InsecureWithTls,
    #[error(
        "nobody may send: give `clusters` at least one entry with `clientNames` or `tokenFile`, \
         or set `insecureLoopback: true` for a trial on this machine"
    )]
    NobodyMaySend,
    #[error("cluster `{0}` has no way to prove itself; give it `clientNames`, `tokenFile` or `identity`")]
    NoProof(String),
    #[error("cluster `{0}` has `clientNames`, but nothing verifies client certificates; set `tls.clientCa`")]
    NamesWithoutCa(String),
    #[error("`tls.clientCa` is set, but no cluster has `clientNames`; list the names that may send, or remove it")]
    CaWithoutNames,
    #[error("`tls.clientCrlFile` is set, but nothing verifies client certificates; set `tls.clientCa`, or remove it")]
    CrlWithoutCa,
    #[error("cluster `{0}` is listed twice; put its `clientNames` together")]
    ClusterTwice(String),
    #[error("client name `{name}` belongs to cluster `{first}` and to cluster `{second}`; a name decides one cluster")]
    NameTwice { name: String, first: String, second: String },
    #[error("`identity` of cluster `{0}` has no `email` or no `audience`; both are compared")]
    HalfIdentity(String),
    #[error("clusters `{0}` and `{1}` have the same `identity`; give their subscriptions different audiences")]
    IdentityTwice(String, String),
    #[error("oidc.{0}")]
    Oidc(String),
    #[error("client name of cluster `{0}` is empty")]
    EmptyName(String),
    #[error("`{0}` is no cluster name; expected 1 to 63 letters, digits, `.`, `_` or `-`")]
    ClusterName(String),
    #[error("`{field}` is 0; expected at least 1")]
    Zero { field: &'static str },
}

impl Config {
    /// Everything that is wrong, without touching the disk or the network.
    pub fn check(&self) -> Vec<Problem> {
        let mut problems = self.check_exposure();
        let mut clusters = HashMap::new();
        let mut names: HashMap<&str, &str> = HashMap::new();
        for sender in &self.clusters {
            if !is_cluster_name(&sender.name) {
                problems.push(Problem::ClusterName(sender.name.clone()));
            }
            if clusters.insert(&sender.name, ()).is_some() {
                problems.push(Problem::ClusterTwice(sender.name.clone()));
            }
            self.check_proof(sender, &mut problems);
            for name in &sender.client_names {
                match names.insert(name, &sender.name) {
                    Some(first) if first != sender.name => problems.push(Problem::NameTwice {
                        name: name.clone(),
                        first: first.to_owned(),
                        second: sender.name.clone(),
                    }),
                    _ => {}
                }
            }
        }
        let identities = self.clusters.iter().filter_map(|c| Some((c, c.identity.as_ref()?)));
        for (at, (sender, identity)) in identities.clone().enumerate() {
            if identity.email.is_empty() || identity.audience.is_empty() {
                problems.push(Problem::HalfIdentity(sender.name.clone()));
            }
            if let Some((other, _)) = identities.clone().take(at).find(|(_, i)| *i == identity) {
                problems.push(Problem::IdentityTwice(other.name.clone(), sender.name.clone()));
            }
        }
        problems.extend(self.oidc.problem().map(Problem::Oidc));
        if names.is_empty() && self.tls.as_ref().is_some_and(|tls| tls.client_ca.is_some()) {
            problems.push(Problem::CaWithoutNames);
        }
        if self.tls.as_ref().is_some_and(|tls| tls.client_crl_file.is_some() && tls.client_ca.is_none()) {
            problems.push(Problem::CrlWithoutCa);
        }
        problems
    }

    fn check_exposure(&self) -> Vec<Problem> {
        let loopback = self.listen.ip().to_canonical().is_loopback();
        let mut problems = Vec::new();
        match (self.tls.is_some(), self.insecure_loopback) {
            (true, true) => problems.push(Problem::InsecureWithTls),
            (false, true) if !loopback => problems.push(Problem::InsecureOffLoopback(self.listen)),
            (false, false) if !loopback => problems.push(Problem::PlainOffLoopback(self.listen)),
            _ => {}
        }
        if self.clusters.is_empty() && !self.insecure_loopback {
            problems.push(Problem::NobodyMaySend);
        }
        if !is_cluster_name(&self.default_cluster) {
            problems.push(Problem::ClusterName(self.default_cluster.clone()));
        }
        let sizes = [
            ("maxBody", self.max_body == 0),
            ("maxConnections", self.max_connections == 0),
            ("maxConnectionsPerAddress", self.max_connections_per_address == 0),
        ];
        problems.extend(sizes.into_iter().filter(|(_, zero)| *zero).map(|(field, _)| Problem::Zero { field }));
        problems
    }

    fn check_proof(&self, sender: &Sender, problems: &mut Vec<Problem>) {
        let name = || sender.name.clone();
        if sender.client_names.iter().any(String::is_empty) {
            problems.push(Problem::EmptyName(name()));
        }
        if sender.client_names.is_empty()
            && sender.token_file.is_none()
            && sender.identity.is_none()
            && !self.insecure_loopback
        {
            problems.push(Problem::NoProof(name()));
        }
        let ca = self.tls.as_ref().and_then(|tls| tls.client_ca.as_ref());
        if !sender.client_names.is_empty() && ca.is_none() {
            problems.push(Problem::NamesWithoutCa(name()));
        }
    }
}

/// A name that is safe in a path, a label and a file name.
pub fn is_cluster_name(name: &str) -> bool {
    (1..=63).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
        && name.bytes().any(|b| b != b'.')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sender(name: &str, names: &[&str], token: bool) -> Sender {
        Sender {
            name: name.into(),
            client_names: names.iter().map(|n| (*n).to_owned()).collect(),
            token_file: token.then(|| "tokens".into()),
            identity: None,
        }
    }

    fn tls(ca: bool) -> Option<Tls> {
        Some(Tls { cert: "c".into(), key: "k".into(), client_ca: ca.then(|| "ca".into()), client_crl_file: None })
    }

    #[track_caller]
    fn check(config: Config, expected: &[&str]) {
        let problems: Vec<_> = config.check().iter().map(ToString::to_string).collect();
        assert_eq!(problems.len(), expected.len(), "{problems:#?}");
        for (problem, part) in problems.iter().zip(expected) {
            assert!(problem.contains(part), "`{problem}` does not say `{part}`");
        }
    }

    #[test]
    fn what_may_start() {
        let base = Config::default;
        check(Config { tls: tls(true), clusters: vec![sender("prod", &["api"], true)], ..base() }, &[]);
        check(Config { clusters: vec![sender("prod", &[], true)], ..base() }, &[]);
        check(Config { insecure_loopback: true, ..base() }, &[]);
        check(Config { insecure_loopback: true, listen: "[::1]:1".parse().unwrap(), ..base() }, &[]);
        check(Config { insecure_loopback: true, clusters: vec![sender("prod", &[], false)], ..base() }, &[]);
    }

    #[test]
    fn what_may_not_and_what_to_do() {
        let base = Config::default;
        let open: SocketAddr = "0.0.0.0:8443".parse().unwrap();
        check(base(), &["nobody may send"]);
        let token = || vec![sender("dev", &[], true)];
        check(Config { listen: open, clusters: token(), ..base() }, &["set `tls.cert` and `tls.key`"]);
        check(Config { listen: open, insecure_loopback: true, ..base() }, &["listen on 127.0.0.1"]);
        check(Config { tls: tls(false), insecure_loopback: true, ..base() }, &["remove `tls`"]);
        check(
            Config { tls: tls(false), clusters: vec![sender("a", &[], false)], ..base() },
            &["no way to prove itself"],
        );
        check(
            Config { tls: tls(false), clusters: vec![sender("a", &["x"], false)], ..base() },
            &["set `tls.clientCa`"],
        );
        check(Config { tls: tls(true), clusters: token(), ..base() }, &["no cluster has `clientNames`"]);
        check(
            Config { tls: tls(true), clusters: vec![sender("a", &["x"], false), sender("b", &["x"], false)], ..base() },
            &["client name `x` belongs to cluster `a` and to cluster `b`"],
        );
        check(
            Config { clusters: vec![sender("a", &[], true), sender("a", &[], true)], ..base() },
            &["cluster `a` is listed twice"],
        );
        check(
            Config { clusters: vec![sender("a/b", &[], true)], default_cluster: "..".into(), max_body: 0, ..base() },
            &["`..` is no cluster name", "`maxBody` is 0", "`a/b` is no cluster name"],
        );
        check(Config { tls: tls(true), clusters: vec![sender("a", &[""], false)], ..base() }, &["is empty"]);
    }
}
