//! Who may send, and as which cluster: certificates, keys and tokens, read from files and read again
//! when those change.
//!
//! The cluster comes from the credential. The path may repeat it, the body is never asked. Services that can send no
//! `Authorization` show their token otherwise: Firehose in its access key, Pub/Sub as `?token=` behind the path,
//! or in an identity token that Google signed.

use std::borrow::Cow;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use hyper::HeaderMap;
use hyper::header::{HeaderValue, ORIGIN};
use percent_encoding::percent_decode_str;
use rustls::ServerConfig;
use rustls::pki_types::CertificateDer;
use tokio_util::sync::CancellationToken;

use super::config::{Config, is_cluster_name};
use super::oidc::{Issuer, Unproven};
use crate::http::certificate;
use crate::http::keys::{self, Files, LoadError, Tokens, bearer};
use crate::http::listen::{Peer, Terms};

const PATH: &str = "/audit/v1/";
const FIREHOSE_KEY: &str = "x-amz-firehose-access-key";

/// Why a sender is turned away.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    #[error("no credential; send a client certificate or a bearer token this webhook knows")]
    NoCredential,
    #[error("the bearer token is not known here; compare it with the cluster's tokenFile")]
    UnknownToken,
    #[error("the bearer token is none this webhook knows, and no identity token: {0}")]
    Unproven(#[from] Unproven),
    #[error("no cluster has the identity `{email}` with the audience {audiences:?}; compare them with its `identity`")]
    UnknownIdentity { email: String, audiences: Vec<String> },
    #[error("no cluster lists a name of this client certificate in clientNames; its names are {0:?}")]
    UnknownCertificate(Vec<String>),
    #[error("the credentials belong to two clusters, `{0}` and `{1}`")]
    TwoClusters(String, String),
    #[error(
        "the path names cluster `{path}`, but the credential belongs to another cluster; correct the URL or the credential"
    )]
    OtherCluster { path: String },
    #[error("`{0}` is no cluster this webhook knows; correct the path")]
    UnknownCluster(String),
    #[error("requests from web pages are not accepted")]
    WebPage,
}

impl Denied {
    /// The HTTP status: 401 asks for a credential, 403 says that it does not help.
    pub const fn code(&self) -> u16 {
        match self {
            Self::Unproven(Unproven::NoKeys) => 503,
            Self::NoCredential | Self::UnknownToken | Self::Unproven(_) => 401,
            _ => 403,
        }
    }
}

/// The guard at the door. Shared by the listener and whoever triggers reloads.
pub struct Access {
    config: Config,
    base: PathBuf,
    now: RwLock<Arc<State>>,
    /// `None` where no cluster has an identity.
    issuer: Option<Issuer>,
}

struct State {
    /// Of all files read, so that a poll notices a change whatever its time stamps say.
    fingerprint: blake3::Hash,
    tls: Option<Arc<ServerConfig>>,
    /// By cluster.
    tokens: Tokens,
    expiry: Option<i64>,
    retired: CancellationToken,
}

impl Access {
    /// Reads every file `config` names, relative to `base`. `config` must have passed [`Config::check`].
    pub fn load(config: Config, base: &Path) -> Result<Self, LoadError> {
        let state = State::load(&config, base)?;
        let issuer =
            config.clusters.iter().any(|c| c.identity.is_some()).then(|| Issuer::new(config.oidc.clone(), base));
        Ok(Self { config, base: base.to_owned(), now: RwLock::new(Arc::new(state)), issuer })
    }

    /// Keeps the keys of identity tokens fresh. Runs for ever.
    pub async fn keep_keys(&self) {
        match &self.issuer {
            Some(issuer) => issuer.keep_fresh().await,
            None => std::future::pending().await,
        }
    }

    /// Reads the files again. `Ok(true)` when something changed: new connections use it, old ones end after the
    /// request in hand. An error leaves everything as it was.
    pub fn reload(&self) -> Result<bool, LoadError> {
        let fresh = State::load(&self.config, &self.base)?;
        let old = self.state();
        if fresh.fingerprint == old.fingerprint {
            return Ok(false);
        }
        *self.now.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(fresh);
        old.retired.cancel();
        Ok(true)
    }

    /// When the certificate shown to senders ends, seconds since the epoch.
    pub fn expiry(&self) -> Option<i64> {
        self.state().expiry
    }

    /// The terms for the next connection.
    pub fn terms(&self) -> Terms {
        let state = self.state();
        Terms { tls: state.tls.clone(), retired: state.retired.clone() }
    }

    /// The cluster a request speaks for.
    pub fn identify(&self, peer: &Peer, headers: &HeaderMap, uri: &str) -> Result<String, Denied> {
        let (path, query) = uri.split_once('?').unwrap_or((uri, ""));
        let claimed = path.strip_prefix(PATH).map(|name| name.trim_end_matches('/')).filter(|name| !name.is_empty());
        let by_token = self.by_token(headers, query).transpose();
        let by_certificate = peer.certificate.as_ref().map(|c| self.certificate(c)).transpose();
        let proven = match (by_certificate, by_token) {
            (Ok(Some(a)), Ok(Some(b))) if a != b => return Err(Denied::TwoClusters(a, b)),
            // One good credential is enough: senders may carry a certificate meant for others.
            (Ok(Some(cluster)), _) | (_, Ok(Some(cluster))) => cluster,
            (Err(denied), _) | (_, Err(denied)) => return Err(denied),
            (Ok(None), Ok(None)) if self.config.insecure_loopback => return self.trust(headers, claimed),
            (Ok(None), Ok(None)) => return Err(Denied::NoCredential),
        };
        match claimed {
            Some(path) if path != proven => Err(Denied::OtherCluster { path: shorten(path) }),
            _ => Ok(proven),
        }
    }

    /// Without any credential, on loopback, because the configuration says so.
    fn trust(&self, headers: &HeaderMap, claimed: Option<&str>) -> Result<String, Denied> {
        // A page in a local browser can post to loopback too; it cannot leave out this header.
        if headers.contains_key(ORIGIN) {
            return Err(Denied::WebPage);
        }
        let name = claimed.unwrap_or(&self.config.default_cluster);
        let listed = self.config.clusters.is_empty() || self.config.clusters.iter().any(|c| c.name == name);
        if claimed.is_none() || (is_cluster_name(name) && listed) {
            Ok(name.to_owned())
        } else {
            Err(Denied::UnknownCluster(shorten(name)))
        }
    }

    /// The cluster of the first token that is known; the first one's error where none is.
    fn by_token(&self, headers: &HeaderMap, query: &str) -> Option<Result<String, Denied>> {
        let in_query = query.split('&').find_map(|pair| pair.strip_prefix("token="));
        let in_query = in_query.map(|token| Cow::from(percent_decode_str(token)));
        let access_key = headers.get(FIREHOSE_KEY).map(HeaderValue::as_bytes);
        let shown = [bearer(headers), access_key, in_query.as_deref()];
        let mut answers = shown.into_iter().flatten().map(|token| match (self.token(token), &self.issuer) {
            (Err(Denied::UnknownToken), Some(issuer)) if Issuer::looks_like_one(token) => {
                self.by_identity(issuer, token)
            }
            (answer, _) => answer,
        });
        let first = answers.next()?;
        Some(if first.is_ok() { first } else { answers.find(Result::is_ok).unwrap_or(first) })
    }

    fn token(&self, token: &[u8]) -> Result<String, Denied> {
        self.state().tokens.owner(token).map(str::to_owned).ok_or(Denied::UnknownToken)
    }

    fn by_identity(&self, issuer: &Issuer, token: &[u8]) -> Result<String, Denied> {
        let proven = issuer.verify(token, chrono::Utc::now().timestamp())?;
        let is = |i: &super::oidc::Identity| i.email == proven.email && proven.audiences.contains(&i.audience);
        let found = self.config.clusters.iter().find(|c| c.identity.as_ref().is_some_and(is));
        found.map(|c| c.name.clone()).ok_or_else(|| Denied::UnknownIdentity {
            email: shorten(&proven.email),
            audiences: proven.audiences.iter().take(4).map(|a| shorten(a)).collect(),
        })
    }

    fn certificate(&self, certificate: &CertificateDer<'_>) -> Result<String, Denied> {
        let names = certificate::names(certificate);
        let mut clusters =
            self.config.clusters.iter().filter(|c| c.client_names.iter().any(|n| names.contains(n))).map(|c| &c.name);
        match (clusters.next(), clusters.next()) {
            (Some(only), None) => Ok(only.clone()),
            (Some(a), Some(b)) => Err(Denied::TwoClusters(a.clone(), b.clone())),
            (None, _) => Err(Denied::UnknownCertificate(names.iter().take(8).map(|n| shorten(n)).collect())),
        }
    }

    fn state(&self) -> Arc<State> {
        Arc::clone(&self.now.read().unwrap_or_else(PoisonError::into_inner))
    }
}

fn shorten(text: &str) -> String {
    text.chars().take(100).collect()
}

impl State {
    fn load(config: &Config, base: &Path) -> Result<Self, LoadError> {
        let mut files = Files::below(base);
        let (tls, expiry) = match &config.tls {
            None => (None, None),
            Some(tls) => {
                let by_token = config.clusters.iter().any(|c| c.token_file.is_some() || c.identity.is_some());
                let (server, expiry) = keys::server_config(tls, by_token, config.http2, &mut files)?;
                (Some(Arc::new(server)), expiry)
            }
        };
        let mut tokens = Tokens::default();
        for sender in &config.clusters {
            if let Some(file) = &sender.token_file {
                tokens.read(file, &sender.name, &mut files)?;
            }
        }
        Ok(Self { fingerprint: files.fingerprint(), tls, tokens, expiry, retired: CancellationToken::new() })
    }
}

#[cfg(test)]
mod tests {
    use super::super::config::Sender;
    use super::*;

    const TOKEN: &str = "0123456789abcdef-a";

    fn sender(name: &str) -> Sender {
        Sender {
            name: name.into(),
            client_names: vec![],
            token_file: Some(format!("{name}.token").into()),
            identity: None,
        }
    }

    fn access(
        files: &[(&str, &str)],
        clusters: &[&str],
        insecure: bool,
    ) -> (tempfile::TempDir, Result<Access, LoadError>) {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in files {
            std::fs::write(dir.path().join(name), text).unwrap();
        }
        let clusters = clusters.iter().map(|c| sender(c)).collect();
        let config = Config { clusters, insecure_loopback: insecure, ..Config::default() };
        let access = Access::load(config, dir.path());
        (dir, access)
    }

    fn ask(access: &Access, headers: &[(&str, &str)], path: &str) -> Result<String, Denied> {
        let headers: HeaderMap = headers
            .iter()
            .map(|(k, v)| (hyper::header::HeaderName::from_bytes(k.as_bytes()).unwrap(), v.parse().unwrap()))
            .collect();
        access.identify(
            &Peer { address: "127.0.0.1:1".parse().unwrap(), certificate: None, slot: None },
            &headers,
            path,
        )
    }

    #[test]
    fn a_token_decides_the_cluster_and_the_path_may_only_agree() {
        let b = "fedcba9876543210-b";
        let (_dir, access) = access(
            &[("a.token", &format!("\n{TOKEN}\r\n")), ("b.token", &format!("old-token-of-b-0000\n{b}"))],
            &["a", "b"],
            false,
        );
        let access = access.unwrap();
        let with = |token: &str, path| ask(&access, &[("authorization", &format!("bearer {token}"))], path);
        assert_eq!(with(TOKEN, "/"), Ok("a".into()));
        assert_eq!(with(TOKEN, "/audit/v1/a/"), Ok("a".into()));
        assert_eq!(with(TOKEN, "/audit/v1/"), Ok("a".into()));
        assert_eq!(with(b, "/anything"), Ok("b".into()));
        assert_eq!(with("old-token-of-b-0000", "/audit/v1/b"), Ok("b".into()));
        assert_eq!(with(b, "/audit/v1/a"), Err(Denied::OtherCluster { path: "a".into() }));
        assert_eq!(with("0123456789abcdef-x", "/"), Err(Denied::UnknownToken));
        assert_eq!(with("", "/"), Err(Denied::UnknownToken));
        assert_eq!(ask(&access, &[], "/audit/v1/a"), Err(Denied::NoCredential));
        assert_eq!(ask(&access, &[("x-amz-firehose-access-key", TOKEN)], "/"), Ok("a".into()));
        assert_eq!(
            ask(&access, &[("x-amz-firehose-access-key", "0123456789abcdef-x")], "/"),
            Err(Denied::UnknownToken)
        );
        assert_eq!(ask(&access, &[], "/audit/v1/b?x=1&token=fedcba9876543210%2Db"), Ok("b".into()));
        assert_eq!(
            ask(&access, &[], "/audit/v1/a?token=fedcba9876543210-b"),
            Err(Denied::OtherCluster { path: "a".into() })
        );
        let identity = [("authorization", "Bearer a-token-google-signed")];
        assert_eq!(ask(&access, &identity, "/?token=fedcba9876543210-b"), Ok("b".into()), "Pub/Sub shows both");
        assert_eq!(ask(&access, &identity, "/?token="), Err(Denied::UnknownToken));
        assert_eq!(ask(&access, &[("authorization", "Basic YTpi")], "/"), Err(Denied::NoCredential));
    }

    #[test]
    fn without_credentials_only_what_the_configuration_trusts() {
        let (_dir, open) = access(&[], &[], true);
        let open = open.unwrap();
        assert_eq!(ask(&open, &[], "/"), Ok("default".into()));
        assert_eq!(ask(&open, &[], "/audit/v1/demo"), Ok("demo".into()));
        assert_eq!(ask(&open, &[], "/audit/v1/a%2fb"), Err(Denied::UnknownCluster("a%2fb".into())));
        assert_eq!(ask(&open, &[("origin", "https://evil.example")], "/"), Err(Denied::WebPage));
        assert_eq!(ask(&open, &[("authorization", "Bearer x")], "/"), Err(Denied::UnknownToken));
        let (_dir, listed) = access(&[("a.token", TOKEN)], &["a"], true);
        assert_eq!(ask(&listed.unwrap(), &[], "/audit/v1/b"), Err(Denied::UnknownCluster("b".into())));
    }

    #[test]
    fn bad_token_files_say_where() {
        let error =
            |files: &[(&str, &str)], clusters: &[&str]| access(files, clusters, false).1.err().unwrap().to_string();
        assert!(error(&[], &["a"]).contains("cannot read"));
        assert!(error(&[("a.token", "\n\n")], &["a"]).contains("holds no token"));
        assert!(error(&[("a.token", "\nshort")], &["a"]).contains("line 2"));
        assert!(error(&[("a.token", TOKEN), ("b.token", TOKEN)], &["a", "b"]).contains("also belongs to `a`"));
    }

    #[test]
    fn a_reload_takes_the_new_or_keeps_the_old() {
        let (dir, access) = access(&[("a.token", TOKEN)], &["a"], false);
        let access = access.unwrap();
        let retired = access.terms().retired;
        assert!(!access.reload().unwrap());
        std::fs::write(dir.path().join("a.token"), "x").unwrap();
        assert!(access.reload().is_err());
        let ask = |token: &str| ask(&access, &[("authorization", &format!("Bearer {token}"))], "/");
        assert!(ask(TOKEN).is_ok() && !retired.is_cancelled());
        std::fs::write(dir.path().join("a.token"), "a-new-token-0123456").unwrap();
        assert!(access.reload().unwrap());
        assert!(ask(TOKEN).is_err() && ask("a-new-token-0123456").is_ok() && retired.is_cancelled());
    }
}
