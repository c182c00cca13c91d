//! Alerts as signed HTTP requests, after the Standard Webhooks specification: `webhook-id`,
//! `webhook-timestamp`, `webhook-signature: v1,<base64 HMAC-SHA256 of id.timestamp.body>`.
//!
//! The id is the same for every try of one notice, so a receiver can drop repetitions; the timestamp is the
//! time of the try, because receivers refuse old ones. The body is the alert as it is everywhere else.

use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, Mac};
use lapwing_engine::alert::Alert;
use lapwing_engine::group;
use reqwest::Url;
use reqwest::header::{HeaderMap, HeaderName};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Common, Failure, Receipt, encode, http, record, secret, tls};
use crate::config::HumanDuration;

/// Settings of an output of type `webhook`.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
#[schemars(extend("required" = ["name"]))]
pub struct Config {
    #[serde(flatten)]
    pub common: Common,
    /// Where to post; `https://`, or `http://` on loopback. Either this or `urlFile`.
    pub url: Option<String>,
    /// File that holds the address, when the address itself is a secret.
    pub url_file: Option<PathBuf>,
    /// File with the signing secret (`whsec_` and base64, or plain text). Two lines while a secret is rotated.
    pub secret_file: Option<PathBuf>,
    /// File with a bearer token to send along.
    pub token_file: Option<PathBuf>,
    /// How the body is written: `json`, or `ocsf`.
    pub format: record::Format,
    /// Told as resolved when nothing came of it for so long. Default: never.
    pub resolve_after: Option<HumanDuration>,
    /// How to trust the receiver.
    pub tls: tls::Config,
    /// Longest time for one request, in seconds (1 to 300).
    pub timeout_seconds: http::Timeout,
}

impl std::fmt::Debug for Config {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The address may carry a secret in its path or query.
        f.debug_struct("Config")
            .field("name", &self.common.name)
            .field("target", &self.target())
            .finish_non_exhaustive()
    }
}

impl Config {
    pub(super) fn target(&self) -> String {
        match (&self.url, &self.url_file) {
            (Some(url), _) => http::named(url),
            (None, Some(path)) => format!("the address in {}", path.display()),
            (None, None) => "nowhere".to_owned(),
        }
    }

    pub(super) fn resolve(&mut self, base: &Path) {
        http::resolve(base, [&mut self.url_file, &mut self.secret_file, &mut self.token_file]);
        self.tls.resolve(base);
    }

    pub(super) fn problems(&self) -> Vec<String> {
        let mut found = Vec::new();
        match (&self.url, &self.url_file) {
            (Some(url), None) => found.extend(http::parse(url).err().map(|e| e.to_string())),
            (None, Some(_)) => {}
            _ => found.push("set exactly one of `url` and `urlFile`".to_owned()),
        }
        found.extend(http::no_server_name(&self.tls));
        found.extend(self.timeout_seconds.problem());
        found
    }
}

#[derive(Debug)]
pub struct Webhook {
    config: Config,
    client: http::Client,
}

impl Webhook {
    pub fn new(config: &Config) -> Result<Self, String> {
        let client = http::Client::checked(&config.tls, config.timeout_seconds.get())?;
        let webhook = Self { client, config: config.clone() };
        // A missing file is better told at start than at the first alert.
        webhook.url().and_then(|_| webhook.headers("", 0, &[])).map_err(|e| e.to_string())?;
        Ok(webhook)
    }

    pub async fn deliver(&mut self, alert: &Alert) -> Result<Receipt, Failure> {
        let body = record::line(alert, self.config.format, usize::MAX).into_bytes();
        let url = self.url()?;
        let headers = self.headers(&notice_id(&[alert]), chrono::Utc::now().timestamp(), &body)?;
        let mut answer = self.client.post(&url, headers, body).await?;
        if self.config.url_file.is_some() {
            answer.hide_address(&url);
        }
        answer.verdict()?;
        Ok(Receipt(answer.told()))
    }

    fn url(&self) -> Result<Url, Failure> {
        match (&self.config.url, &self.config.url_file) {
            (Some(url), _) => http::parse(url).map_err(Failure::retry),
            (None, Some(path)) => url_from(path),
            (None, None) => Err(Failure::retry("neither `url` nor `urlFile` is set")),
        }
    }

    fn headers(&self, id: &str, timestamp: i64, body: &[u8]) -> Result<HeaderMap, Failure> {
        let mut headers = http::content("application/json");
        let mut put =
            |name: &'static str, value: &str| http::secret_header(&mut headers, HeaderName::from_static(name), value);
        put("webhook-id", id)?;
        put("idempotency-key", id)?;
        put("webhook-timestamp", &timestamp.to_string())?;
        if let Some(path) = &self.config.secret_file {
            let secret = secret::read(path).map_err(Failure::retry)?;
            put("webhook-signature", &signatures(&secret, id, timestamp, body)?)?;
        }
        http::bearer(&mut headers, "Bearer", self.config.token_file.as_deref())?;
        Ok(headers)
    }
}

/// The address in the file `path`.
pub(super) fn url_from(path: &Path) -> Result<Url, Failure> {
    let text = secret::read(path).map_err(Failure::retry)?;
    http::parse(text.expose()).map_err(|e| Failure::retry(format_args!("`{}`: {e}", path.display())))
}

/// One id for every try of one notice: `<alert id>.new`; of several alerts a hash of theirs.
pub(super) fn notice_id(alerts: &[&Alert]) -> String {
    let of = |alert: &&Alert| format!("{}.{}", encode::syslog_token(&alert.id, 100), alert.status.as_str());
    let ids: Vec<String> = alerts.iter().map(of).collect();
    match ids.as_slice() {
        [one] => one.clone(),
        several => group::id(&several.iter().map(String::as_str).collect::<Vec<_>>()),
    }
}

/// One signature for each line of the secret file, blanks between them.
fn signatures(secret: &secret::Secret, id: &str, timestamp: i64, body: &[u8]) -> Result<String, Failure> {
    let mut out = Vec::new();
    for line in secret.expose().lines().map(str::trim).filter(|l| !l.is_empty()) {
        let key = match line.strip_prefix("whsec_") {
            Some(encoded) => STANDARD.decode(encoded).map_err(|_| {
                Failure::retry("the signing secret after `whsec_` is not base64; copy it again from the receiver")
            })?,
            None => line.as_bytes().to_vec(),
        };
        let mut mac = Hmac::<sha2::Sha256>::new_from_slice(&key).map_err(Failure::retry)?;
        mac.update(format!("{id}.{timestamp}.").as_bytes());
        mac.update(body);
        out.push(format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes())));
    }
    Ok(out.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::sample;

    fn secret(text: &str) -> secret::Secret {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        std::fs::write(&path, text).unwrap();
        secret::read(&path).unwrap()
    }

    #[test]
    fn signs_the_example_of_the_specification() {
        let key = secret("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw");
        let body = br#"{"test": 2432232314}"#;
        let signature = signatures(&key, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, body).unwrap();
        assert_eq!(signature, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }

    #[test]
    fn two_secrets_while_rotating_give_two_signatures() {
        let both = signatures(&secret("one\ntwo\n"), "i", 1, b"b").unwrap();
        let (first, second) = both.split_once(' ').unwrap();
        assert_eq!(first, signatures(&secret("one"), "i", 1, b"b").unwrap());
        assert_eq!(second, signatures(&secret("two"), "i", 1, b"b").unwrap());
        assert!(signatures(&secret("whsec_???"), "i", 1, b"b").is_err());
    }

    #[test]
    fn debug_and_target_hide_the_path() {
        let url = Some("https://example.org/hook/SECRET".to_owned());
        let config = Config { url, ..Config::default() };
        assert!(!format!("{config:?} {}", config.target()).contains("SECRET"));
    }

    #[test]
    fn exactly_one_address() {
        let problems = |c: &Config| c.problems().len();
        assert_eq!(problems(&Config::default()), 1);
        let both = Config { url: Some("https://x/".into()), url_file: Some("y".into()), ..Config::default() };
        assert_eq!(problems(&both), 1);
        assert_eq!(problems(&Config { url_file: None, ..both }), 0);
    }

    #[test]
    fn a_hostile_id_is_a_header_all_the_same() {
        let mut alert = sample::alert();
        alert.id = "a\r\nx: y".to_owned();
        assert_eq!(notice_id(&[&alert]), "a__x:_y.new");
        assert_eq!(notice_id(&[&alert, &alert]).len(), 20);
    }
}
