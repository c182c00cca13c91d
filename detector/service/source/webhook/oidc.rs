//! Identity tokens (OpenID Connect) as credentials: what Google Pub/Sub shows with each push. RS256 alone; the keys come
//! from a URL or a file and are kept, so that no request waits for them.
//!
//! Whom a token stands for is decided by its e-mail address and audience, both exactly as configured.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::signature::{RSA_PKCS1_2048_8192_SHA256, RsaPublicKeyComponents};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

use crate::output::{http, tls};

/// How far the clocks of issuer and receiver may be apart, in seconds.
const SKEW: i64 = 60;
/// Keys are fetched anew this often; a file is read as often as other files.
const FETCH_EVERY: Duration = Duration::from_secs(3600);
const READ_EVERY: Duration = Duration::from_secs(10);
/// After a failure, and at the earliest after a token of an unknown key.
const AGAIN: Duration = Duration::from_secs(30);
/// Keys nobody could confirm for so long are not trusted any more.
const TRUSTED: Duration = Duration::from_secs(24 * 3600);
/// Largest set of keys read, in bytes.
const MAX_KEYS: usize = 256 << 10;

/// Where identity tokens come from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct Config {
    /// Who issues them: `iss` of each token.
    pub issuer: String,
    /// Where its public keys are (JWKS).
    pub keys_url: String,
    /// File with its public keys (JWKS), in place of `keysUrl`.
    pub keys_file: Option<PathBuf>,
    /// How to trust the host of `keysUrl`.
    pub tls: tls::Config,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            issuer: "https://accounts.google.com".to_owned(),
            keys_url: "https://www.googleapis.com/oauth2/v3/certs".to_owned(),
            keys_file: None,
            tls: tls::Config::default(),
        }
    }
}

impl Config {
    /// What is wrong, without touching disk or network.
    pub fn problem(&self) -> Option<String> {
        if self.issuer.is_empty() {
            return Some("issuer is empty".to_owned());
        }
        http::parse(&self.keys_url).err().filter(|_| self.keys_file.is_none()).map(|e| format!("keysUrl: {e}"))
    }
}

/// The identity that pushes for a cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Identity {
    /// Address of the service account, as in the token.
    pub email: String,
    /// Audience of the token, as set for the subscription.
    pub audience: String,
}

/// Why a token proves nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unproven {
    #[error("it is no signed token of the algorithm RS256")]
    Shape,
    #[error("it is signed by a key that is not among the issuer's")]
    Key,
    #[error("its signature is wrong")]
    Signature,
    #[error("it was not issued by the configured issuer")]
    Issuer,
    #[error("it has expired, or is not valid yet")]
    Time,
    #[error("its e-mail address is missing or not verified")]
    Email,
    #[error("the issuer's keys could not be had")]
    NoKeys,
}

/// What a token proves: who, and for whom it was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proven {
    pub email: String,
    pub audiences: Vec<String>,
}

/// A public key: modulus and exponent.
#[derive(Debug, PartialEq, Eq)]
struct Key {
    n: Vec<u8>,
    e: Vec<u8>,
}

/// The issuer's keys by their ids, and when they were last confirmed.
type Known = (BTreeMap<String, Key>, Option<Instant>);

/// The issuer and its keys. Shared by requests and by whoever keeps the keys fresh.
pub struct Issuer {
    config: Config,
    base: PathBuf,
    known: RwLock<Arc<Known>>,
    /// A token came that bears the id of an unknown key.
    wanted: Notify,
}

impl Issuer {
    /// Paths are relative to `base`. Without keys until [`Self::keep_fresh`] got them.
    pub fn new(config: Config, base: &Path) -> Self {
        Self { config, base: base.to_owned(), known: RwLock::default(), wanted: Notify::new() }
    }

    /// Whether `token` might be one of ours at all.
    pub fn looks_like_one(token: &[u8]) -> bool {
        token.iter().filter(|b| **b == b'.').count() == 2
    }

    /// What `token` proves at `now`, in seconds since 1970.
    ///
    /// # Errors
    /// Why it proves nothing.
    pub fn verify(&self, token: &[u8], now: i64) -> Result<Proven, Unproven> {
        let text = std::str::from_utf8(token).map_err(|_| Unproven::Shape)?;
        let (signed, signature) = text.rsplit_once('.').ok_or(Unproven::Shape)?;
        let (header, claims) = signed.split_once('.').ok_or(Unproven::Shape)?;
        let header = part(header)?;
        let kid = header["kid"].as_str().ok_or(Unproven::Shape)?;
        // The token does not choose how it is looked at: one algorithm, no extensions.
        if header["alg"] != "RS256" || header.get("crit").is_some() {
            return Err(Unproven::Shape);
        }
        let signature = URL_SAFE_NO_PAD.decode(signature).map_err(|_| Unproven::Shape)?;
        let known = Arc::clone(&self.known.read().unwrap_or_else(PoisonError::into_inner));
        if known.1.is_none_or(|at| at.elapsed() > TRUSTED) {
            return Err(Unproven::NoKeys);
        }
        let Some(key) = known.0.get(kid) else {
            self.wanted.notify_one();
            return Err(Unproven::Key);
        };
        let key = RsaPublicKeyComponents { n: &key.n, e: &key.e };
        key.verify(&RSA_PKCS1_2048_8192_SHA256, signed.as_bytes(), &signature).map_err(|_| Unproven::Signature)?;
        self.read(&part(claims)?, now)
    }

    fn read(&self, claims: &Value, now: i64) -> Result<Proven, Unproven> {
        if claims["iss"] != self.config.issuer.as_str() {
            return Err(Unproven::Issuer);
        }
        let time = |name: &str| claims[name].as_f64().map(|t| t as i64);
        let begun = |name: &str| time(name).is_none_or(|t| t <= now.saturating_add(SKEW));
        if time("exp").is_none_or(|t| t.saturating_add(SKEW) <= now) || !begun("iat") || !begun("nbf") {
            return Err(Unproven::Time);
        }
        let email = claims["email"].as_str().filter(|_| claims["email_verified"] == true).ok_or(Unproven::Email)?;
        let audiences = match &claims["aud"] {
            Value::String(one) => vec![one.clone()],
            Value::Array(all) => all.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
            _ => Vec::new(),
        };
        Ok(Proven { email: email.to_owned(), audiences })
    }

    /// Gets the keys, and gets them again: regularly, soon after a failure, and when a token bears another key's id. Runs for
    /// ever.
    pub async fn keep_fresh(&self) {
        let regular = if self.config.keys_file.is_some() { READ_EVERY } else { FETCH_EVERY };
        let mut failed = false;
        loop {
            let asked = Instant::now();
            match self.get().await {
                Ok(keys) => {
                    failed = false;
                    *self.known.write().unwrap_or_else(PoisonError::into_inner) = Arc::new((keys, Some(asked)));
                }
                Err(reason) => {
                    if !failed {
                        tracing::warn!(
                            issuer = self.config.issuer,
                            reason,
                            "webhook: keys of identity tokens cannot be had; trying again"
                        );
                    }
                    failed = true;
                }
            }
            let next = sleep_until(asked + if failed { AGAIN } else { regular });
            let wanted = async {
                self.wanted.notified().await;
                // Strangers can make up ids: not more often than this for their sake.
                sleep_until(asked + AGAIN.min(regular)).await;
            };
            tokio::select! {
                () = next => {}
                () = wanted => {}
            }
        }
    }

    async fn get(&self) -> Result<BTreeMap<String, Key>, String> {
        let mut text = Vec::new();
        if let Some(path) = &self.config.keys_file {
            let path = self.base.join(path);
            text = tokio::fs::read(&path).await.map_err(|e| format!("`{}`: {e}", path.display()))?;
        } else {
            let url = http::parse(&self.config.keys_url).map_err(|e| e.to_string())?;
            let mut tls = self.config.tls.clone();
            tls.resolve(&self.base);
            let mut client = http::Client::new(tls, http::Timeout::default().get());
            let take = |part: &[u8]| {
                text.extend_from_slice(&part[..part.len().min((MAX_KEYS + 1).saturating_sub(text.len()))])
            };
            client.get(&url, reqwest::header::HeaderMap::new(), take).await.map_err(|e| e.to_string())?;
        }
        if text.len() > MAX_KEYS {
            return Err(format!("the keys are larger than {MAX_KEYS} bytes"));
        }
        keys(&text)
    }
}

/// A part of a token, as JSON.
fn part(text: &str) -> Result<Value, Unproven> {
    let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| Unproven::Shape)?;
    serde_json::from_slice(&bytes).map_err(|_| Unproven::Shape)
}

/// The RSA keys for signatures in a JWKS.
fn keys(text: &[u8]) -> Result<BTreeMap<String, Key>, String> {
    let set: Value = serde_json::from_slice(text).map_err(|e| format!("no JWKS: {e}"))?;
    let all = set["keys"].as_array().ok_or("no JWKS: `keys` is missing")?;
    let usable = all.iter().filter(|k| k["kty"] == "RSA" && (k["use"].is_null() || k["use"] == "sig"));
    let read = |k: &Value| {
        let number = |name: &str| URL_SAFE_NO_PAD.decode(k[name].as_str()?).ok();
        Some((k["kid"].as_str()?.to_owned(), Key { n: number("n")?, e: number("e")? }))
    };
    let found: BTreeMap<String, Key> = usable.filter_map(read).collect();
    if found.is_empty() { Err("no RSA key for signatures in it".to_owned()) } else { Ok(found) }
}

#[cfg(test)]
mod tests;
