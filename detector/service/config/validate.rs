//! Checks that need meaning: what a schema cannot say about how sections fit together.
//!
//! They read the effective configuration as JSON rather than the typed one, so that they also run on
//! a file that is wrong elsewhere (everything is told at once) and parts may change their types.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::Value as Json;

use super::problem::Problem;
use super::tree::{Node, join, shorten};

/// Problems, and notes: not wrong, but worth a look.
pub fn validate(config: &Json, tree: &Node) -> (Vec<Problem>, Vec<Problem>) {
    let mut checks = Checks { tree, problems: Vec::new(), notes: Vec::new() };
    checks.listeners(config);
    checks.baseline(&config["baseline"]);
    checks.sources(&config["sources"]);
    checks.webhook(&config["sources"]["webhook"]);
    checks.unique(&config["sources"]["kafka"], "sources.kafka", "name", "Kafka source");
    checks.unique(&config["sources"]["files"], "sources.files", "path", "file source");
    checks.unique(&config["outputs"], "outputs", "name", "output");
    checks.output_names(&config["outputs"]);
    checks.key_pairs(config, "");
    (checks.problems, checks.notes)
}

struct Checks<'a> {
    tree: &'a Node,
    problems: Vec<Problem>,
    notes: Vec<Problem>,
}

impl Checks<'_> {
    fn say(&mut self, path: &str, what: impl Into<String>) {
        self.problems.push(Problem::new(self.tree.place_of(path), path, what));
    }

    fn note(&mut self, path: &str, what: impl Into<String>) {
        self.notes.push(Problem::new(self.tree.place_of(path), path, what));
    }

    fn listeners(&mut self, config: &Json) {
        let mut ports = BTreeMap::new();
        for (section, path) in
            [(&config["admin"], "admin.listen"), (&config["sources"]["webhook"], "sources.webhook.listen")]
        {
            let Some(text) = section["listen"].as_str() else { continue };
            let Ok(address) = text.parse::<SocketAddr>() else {
                let what = format!("expected an address and port such as `0.0.0.0:8443`, found `{}`", shorten(text));
                self.say(path, what);
                continue;
            };
            if address.port() != 0
                && let Some(other) = ports.insert(address.port(), path)
            {
                self.say(path, format!("uses the same port as `{other}`; give each its own"));
            }
            if path == "admin.listen" && section["insecure"] == true && !address.ip().is_loopback() {
                let what =
                    format!("whoever reaches `{text}` may read metrics; a network policy should keep others out");
                self.note(path, what);
            }
        }
    }

    fn baseline(&mut self, baseline: &Json) {
        for (one, other) in [("surprise", "risk"), ("risk", "surprise")] {
            if !baseline[one].is_null() && baseline[other].is_null() {
                self.say(
                    &join("baseline", one),
                    format!("needs `baseline.{other}` beside it; without both, thresholds are steered"),
                );
            }
        }
    }

    fn sources(&mut self, sources: &Json) {
        let empty = |key: &str| sources[key].as_array().is_none_or(Vec::is_empty);
        if sources["webhook"].is_null() && empty("kafka") && empty("files") {
            self.say("sources", "no source: nothing would be read; add `webhook`, `kafka` or `files`");
        }
        let kafka = sources["kafka"].as_array().map_or(&[][..], Vec::as_slice);
        let alone = kafka.len() == 1 && sources["webhook"].is_null() && empty("files");
        if let Some(i) = kafka.iter().position(|k| k["shards"] == true)
            && !alone
        {
            let what = "a source with `shards` must be the only one; let `lapwing receive` bring what the others would";
            self.say(&format!("sources.kafka[{i}].shards"), what);
        }
        for (i, kafka) in sources["kafka"].as_array().into_iter().flatten().enumerate() {
            for key in ["brokers", "topics"] {
                if kafka[key].as_array().is_some_and(Vec::is_empty) {
                    self.say(&format!("sources.kafka[{i}].{key}"), "is empty; name at least one");
                }
            }
        }
    }

    fn webhook(&mut self, webhook: &Json) {
        if !webhook.is_object() {
            return;
        }
        let at = |key: &str| join("sources.webhook", key);
        let tls = !webhook["tls"].is_null();
        let loopback =
            webhook["listen"].as_str().and_then(|t| t.parse::<SocketAddr>().ok()).map(|a| a.ip().is_loopback());
        let insecure = webhook["insecureLoopback"] == true;
        if !tls && loopback == Some(false) {
            let what = "plain HTTP is allowed on loopback only; set `tls`, or listen on `127.0.0.1:8443`";
            self.say(&at("listen"), what);
        }
        if insecure && tls {
            self.say(&at("insecureLoopback"), "is for plain HTTP on loopback; remove it, or remove `tls`");
        }
        let clusters = webhook["clusters"].as_array().map_or(&[][..], Vec::as_slice);
        if clusters.is_empty() && !insecure {
            let what = "no cluster may send: every event would be refused; add for example \
                        `- { name: prod, tokenFile: prod.token }`, or set `insecureLoopback: true` for a trial";
            self.say(&at("clusters"), what);
        }
        self.unique(&webhook["clusters"], &at("clusters"), "name", "cluster");
        let mut client_names = BTreeMap::new();
        for (i, cluster) in clusters.iter().enumerate() {
            let path = format!("sources.webhook.clusters[{i}]");
            let names: Vec<&str> =
                cluster["clientNames"].as_array().into_iter().flatten().filter_map(Json::as_str).collect();
            let token = cluster["tokenFile"].is_string();
            let identity = &cluster["identity"];
            if names.is_empty() && !token && identity.is_null() && !insecure {
                self.say(&path, "nothing proves who sends; set `clientNames`, `tokenFile` or `identity`");
            }
            for key in ["email", "audience"] {
                if !identity.is_null() && identity[key].as_str().is_none_or(str::is_empty) {
                    self.say(&join(&path, &format!("identity.{key}")), "is missing; both are compared");
                }
            }
            if !names.is_empty() && webhook["tls"]["clientCa"].is_null() {
                let what = "client certificates cannot be verified without `sources.webhook.tls.clientCa`";
                self.say(&join(&path, "clientNames"), what);
            }
            if token && !tls {
                let what = "kube-apiserver sends a bearer token over TLS only; set `sources.webhook.tls`";
                self.note(&join(&path, "tokenFile"), what);
            }
            for (n, name) in names.iter().enumerate() {
                let path = format!("{path}.clientNames[{n}]");
                if let Some(other) = client_names.insert((*name).to_owned(), path.clone()) {
                    let what = format!("`{name}` already stands for another cluster in `{other}`; a name means one");
                    self.say(&path, what);
                }
            }
        }
    }

    fn unique(&mut self, items: &Json, path: &str, key: &str, noun: &str) {
        let mut seen = BTreeMap::new();
        for (i, item) in items.as_array().into_iter().flatten().enumerate() {
            let Some(name) = item[key].as_str().filter(|name| !name.is_empty()) else { continue };
            let path = format!("{path}[{i}].{key}");
            if let Some(first) = seen.get(name) {
                let what = format!("a second {noun} `{}`, the first is `{first}`; give each its own", shorten(name));
                self.say(&path, what);
            } else {
                seen.insert(name.to_owned(), path);
            }
        }
    }

    /// An output's name is the name of its files in `dataDir/outputs`.
    fn output_names(&mut self, outputs: &Json) {
        let outputs = outputs.as_array();
        if outputs.is_none_or(Vec::is_empty) {
            self.note("outputs", "no output: alerts are stored and can be searched, but nobody is told");
        }
        for (i, output) in outputs.into_iter().flatten().enumerate() {
            let name = output["name"].as_str().unwrap_or_default();
            if output.is_object() && (output["name"].is_null() || name.is_empty()) {
                self.say(&format!("outputs[{i}].name"), "missing; every output needs a name of its own");
                continue;
            }
            let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
            if name.len() > 63 || !name.chars().all(fits) {
                let what = format!("expected 1 to 63 lowercase letters, digits or `-`, found `{}`", shorten(name));
                self.say(&format!("outputs[{i}].name"), what);
            }
        }
    }

    /// Every `cert` with a `key` beside it must be a certificate and its private key.
    fn key_pairs(&mut self, section: &Json, path: &str) {
        match section {
            Json::Object(map) => {
                if let (Some(cert), Some(key)) =
                    (map.get("cert").and_then(Json::as_str), map.get("key").and_then(Json::as_str))
                    && let Some((field, what)) = pair_complaint(cert, key)
                {
                    self.say(&join(path, field), what);
                }
                for (name, inner) in map {
                    self.key_pairs(inner, &join(path, name));
                }
            }
            Json::Array(items) => {
                for (i, inner) in items.iter().enumerate() {
                    self.key_pairs(inner, &format!("{path}[{i}]"));
                }
            }
            _ => {}
        }
    }
}

/// Which of the two is wrong and why. Files that cannot be read were reported before.
fn pair_complaint(cert: &str, key: &str) -> Option<(&'static str, String)> {
    let (cert_pem, key_pem) = (std::fs::read(cert).ok()?, std::fs::read(key).ok()?);
    let chain: Vec<_> = CertificateDer::pem_slice_iter(&cert_pem).filter_map(Result::ok).collect();
    if chain.is_empty() {
        return Some(("cert", format!("`{cert}` holds no certificate in PEM form")));
    }
    let Ok(private) = PrivateKeyDer::from_pem_slice(&key_pem) else {
        return Some(("key", format!("`{key}` holds no private key in PEM form")));
    };
    let provider = rustls::crypto::ring::default_provider();
    match rustls::sign::CertifiedKey::from_der(chain, private, &provider) {
        Ok(_) => None,
        Err(rustls::Error::InconsistentKeys(_)) => {
            Some(("key", format!("`{key}` is not the private key of the certificate in `{cert}`")))
        }
        Err(error) => Some(("cert", format!("certificate and key cannot be used: {error}"))),
    }
}
