//! Alerts as ECS documents into a data stream of Elasticsearch or OpenSearch, through the bulk API.
//!
//! The id of a document is that of the notice: a repetition finds it there, which is success. The index template is put
//! there at the first delivery, so that an alert can never add a field to the index.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use lapwing_engine::alert::Alert;
use reqwest::Method;
use reqwest::header::HeaderMap;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::encode::{cap, json_line, visible};
use super::{Common, Failure, Receipt, ecs, http, shrink, tls, webhook};

/// Alerts in one request.
pub const BATCH: usize = 100;
/// Largest document, in bytes; no text in it may be longer than Lucene's longest term.
const MAX_BYTES: usize = 30_000;

/// Settings of an output of type `elasticsearch`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
#[schemars(extend("required" = ["name", "url"]))]
pub struct Config {
    #[serde(flatten)]
    pub common: Common,
    /// Where it is: `https://search.example.org:9200`.
    pub url: String,
    /// Data stream to write to.
    pub index: String,
    /// Put the index template there, at the first delivery of a run.
    pub manage_template: bool,
    /// File with an API key (the base64 form).
    pub api_key_file: Option<PathBuf>,
    /// User to log in as. Needs `passwordFile`.
    pub username: Option<String>,
    /// File with the password.
    pub password_file: Option<PathBuf>,
    /// How to trust the receiver.
    pub tls: tls::Config,
    /// Longest time for one request, in seconds (1 to 300).
    pub timeout_seconds: http::Timeout,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            common: Common::default(),
            url: String::new(),
            index: "lapwing-alerts".to_owned(),
            manage_template: true,
            api_key_file: None,
            username: None,
            password_file: None,
            tls: tls::Config::default(),
            timeout_seconds: http::Timeout::default(),
        }
    }
}

impl Config {
    pub(super) fn target(&self) -> String {
        format!("{} at {}", self.index, http::named(&self.url))
    }

    pub(super) fn resolve(&mut self, base: &Path) {
        http::resolve(base, [&mut self.api_key_file, &mut self.password_file]);
        self.tls.resolve(base);
    }

    pub(super) fn problems(&self) -> Vec<String> {
        let mut found = http::receiver_problems(&self.url, &self.tls, self.timeout_seconds);
        let safe = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-_.".contains(&b);
        if self.index.is_empty() || !self.index.bytes().all(safe) || self.index.starts_with(['-', '_', '.']) {
            found.push(format!("index `{}`: expected lowercase letters, digits, `-`, `_` or `.`", self.index));
        }
        found.extend(http::login_problem(self.username.as_ref(), self.password_file.as_ref()));
        if self.api_key_file.is_some() && self.username.is_some() {
            found.push("set `apiKeyFile` or `username`, not both".to_owned());
        }
        found
    }
}

#[derive(Debug)]
pub struct Elasticsearch {
    config: Config,
    client: http::Client,
    /// The template is there.
    ready: bool,
}

impl Elasticsearch {
    pub fn new(config: &Config) -> Result<Self, String> {
        let client = http::Client::checked(&config.tls, config.timeout_seconds.get())?;
        let output = Self { config: config.clone(), client, ready: !config.manage_template };
        output.headers("application/json").map_err(|e| e.to_string())?;
        Ok(output)
    }

    fn headers(&self, content: &'static str) -> Result<HeaderMap, Failure> {
        let mut headers = http::content(content);
        http::bearer(&mut headers, "ApiKey", self.config.api_key_file.as_deref())?;
        http::basic(&mut headers, self.config.username.as_deref(), self.config.password_file.as_deref())?;
        Ok(headers)
    }

    pub async fn deliver(&mut self, alerts: &[&Alert]) -> Result<Receipt, Failure> {
        if !self.ready {
            self.put_template().await?;
            self.ready = true;
        }
        // One document an id: two notices with the same one are the same.
        let mut first = HashMap::new();
        let ids: Vec<String> = alerts.iter().map(|a| webhook::notice_id(&[a])).collect();
        let mut body = String::new();
        let mut sent = Vec::new();
        for (at, (alert, id)) in alerts.iter().zip(&ids).enumerate() {
            if first.insert(id, at).is_none() {
                body.push_str(&json_line(&json!({ "create": { "_id": id } })).map_err(Failure::reject)?);
                body.push('\n');
                body.push_str(&shrink::fit(alert, MAX_BYTES, |a, cut| {
                    json_line(&ecs::document(a, cut)).unwrap_or_default()
                }));
                body.push('\n');
                sent.push(at);
            }
        }
        let mut headers = self.headers("application/x-ndjson")?;
        let body = http::gzip(&mut headers, body.as_bytes())?;
        let url = http::join(&self.config.url, &format!("{}/_bulk", self.config.index))?;
        let answer = self.client.post(&url, headers, body).await?;
        answer.verdict_of_batch()?;
        answer.complete()?;
        outcome(&answer, &sent)
    }

    /// The template, with the word the product has for a flattened field.
    async fn put_template(&mut self) -> Result<(), Failure> {
        let root = http::join(&self.config.url, "")?;
        let about = self.client.ask(Method::GET, &root, self.headers("application/json")?, Vec::new()).await?;
        about.verdict()?;
        let about: Value = serde_json::from_str(&about.body).unwrap_or_default();
        let flattened = if about["version"]["distribution"] == "opensearch" { "flat_object" } else { "flattened" };
        let url = http::join(&self.config.url, &format!("_index_template/{}", self.config.index))?;
        let template = serde_json::to_vec(&ecs::template(&self.config.index, flattened)).map_err(Failure::reject)?;
        let answer = self.client.ask(Method::PUT, &url, self.headers("application/json")?, template).await?;
        let why = "the index template could not be put there; give the key the right, or set manageTemplate: false";
        answer.verdict().map_err(|e| Failure::retry(format_args!("{why}: {e}")))
    }
}

/// What became of each document. `sent` are the places of the alerts they stand for.
fn outcome(answer: &http::Answer, sent: &[usize]) -> Result<Receipt, Failure> {
    let said: Value = serde_json::from_str(&answer.body).unwrap_or_default();
    let items = said["items"].as_array().map_or(&[][..], Vec::as_slice);
    // A 200 alone says nothing: something in between, or a body it could not read, answers the same.
    if items.len() != sent.len() {
        let what = format!("{} documents sent, {} answered for", sent.len(), items.len());
        return Err(Failure::retry(format_args!("{what}: {}", answer.told())));
    }
    let (mut refused, mut again, mut reason) = (Vec::new(), Vec::new(), String::new());
    for (item, at) in items.iter().zip(sent) {
        let item = &item["create"];
        let told = || visible(&cap(&item["error"].to_string(), 300)).into_owned();
        match item["status"].as_u64().unwrap_or_default() {
            // Already there: a repetition.
            200..=299 | 409 => {}
            401 | 403 | 408 | 429 | 500..=599 | 0 => {
                reason = told();
                again.push(*at);
            }
            _ => {
                reason = told();
                refused.push((*at, reason.clone()));
            }
        }
    }
    if refused.is_empty() && again.is_empty() {
        return Ok(Receipt(format!("{} stored", sent.len())));
    }
    Err(Failure::Partial { refused, again, reason, after: answer.retry_after })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(body: Value) -> Result<Receipt, Failure> {
        let body = body.to_string();
        outcome(&http::Answer::of(200, &body), &[0, 1, 3])
    }

    #[test]
    fn each_document_has_its_own_fate() {
        let item = |status: u64| json!({ "create": { "status": status, "error": { "type": "t" } } });
        assert!(said(json!({ "errors": false, "items": [item(201), item(409), item(201)] })).is_ok());
        match said(json!({ "errors": true, "items": [item(400), item(429), item(201)] })) {
            Err(Failure::Partial { refused, again, .. }) => {
                assert_eq!((refused.len(), refused[0].0, again), (1, 0, vec![1]));
            }
            other => panic!("{other:?}"),
        }
        match said(json!({ "errors": true, "items": [item(201), item(503), item(400)] })) {
            Err(Failure::Partial { refused, again, .. }) => assert_eq!((refused[0].0, again), (3, vec![1])),
            other => panic!("{other:?}"),
        }
        for bad in [json!({ "errors": false, "items": [] }), json!("<html>"), json!({ "items": [item(201)] })] {
            assert!(matches!(said(bad), Err(Failure::Retry { .. })));
        }
    }
}
