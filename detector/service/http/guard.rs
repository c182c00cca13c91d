//! Who may ask what of the admin port: names from tokens and certificates, and a role for each.
//!
//! A request that needs nothing (is the process alive?) never comes here.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use hyper::header::ORIGIN;
use hyper::{HeaderMap, StatusCode};
use rustls::ServerConfig;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use super::certificate;
use super::keys::{self, Files, LoadError, Tls, Tokens, bearer};
use super::listen::{Peer, Terms};

/// The admin port: `/livez`, `/readyz`, `/metrics`.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct Config {
    /// Address and port to listen on. An address other machines reach needs `tls` and `users`.
    pub listen: String,
    /// Another address and port for `/metrics` alone, which `listen` then no longer serves: what scrapes metrics need not
    /// reach the rest. The same `tls` and `users`.
    pub metrics_listen: Option<String>,
    /// Certificate to show, and who may sign the users' certificates.
    pub tls: Option<Tls>,
    /// Who may ask. Without any, everybody on this machine may look and nobody may change anything.
    pub users: Vec<User>,
    /// Listen on an address other machines reach without `tls` or without `users`. Whoever reaches it may look; a network
    /// policy must keep others out.
    pub insecure: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self { listen: "127.0.0.1:9466".into(), metrics_listen: None, tls: None, users: Vec::new(), insecure: false }
    }
}

/// Somebody who may ask, and how they prove who they are.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct User {
    /// Name of the person or program; what they change is kept under it.
    pub name: String,
    /// What they may do.
    pub role: Role,
    /// File of bearer tokens, one a line, of 16 characters or more. Several lines let two tokens overlap in a rotation.
    #[serde(default)]
    pub token_file: Option<PathBuf>,
    /// Names of client certificates, each compared exactly with DNS and URI subject alternative names and the common name.
    #[serde(default)]
    pub client_names: Vec<String>,
}

/// What somebody may do; each may also do what those before it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Read metrics, and why Lapwing is not ready.
    Metrics,
    /// Read what the API tells.
    Viewer,
    /// Change what it lets change.
    Operator,
}

impl Role {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Metrics => "metrics",
            Self::Viewer => "viewer",
            Self::Operator => "operator",
        }
    }
}

impl Config {
    /// What is wrong, without touching disk or network: the key's path and the message.
    pub fn problems(&self) -> Vec<(String, String)> {
        let mut problems = Vec::new();
        let mut say = |path: String, what: String| problems.push((path, what));
        let listen = [("admin.listen", Some(&self.listen)), ("admin.metricsListen", self.metrics_listen.as_ref())];
        for (path, text) in listen.into_iter().filter_map(|(path, text)| Some((path, text?))) {
            let address = text.parse::<SocketAddr>();
            if address.is_err() && path != "admin.listen" {
                say(path.into(), format!("expected an address and port such as `0.0.0.0:9467`, found `{text}`"));
            }
            let open = address.is_ok_and(|a| !a.ip().to_canonical().is_loopback());
            if open && !self.insecure && (self.tls.is_none() || self.users.is_empty()) {
                let what = format!(
                    "other machines can reach `{text}`; set `admin.tls` and `admin.users`, listen on 127.0.0.1, \
                     or set `admin.insecure: true` where a network policy keeps others out"
                );
                say(path.into(), what);
            }
        }
        let ca = self.tls.as_ref().is_some_and(|tls| tls.client_ca.is_some());
        for (i, user) in self.users.iter().enumerate() {
            let at = |key: &str| format!("admin.users[{i}]{key}");
            let earlier = &self.users[..i];
            if user.name.is_empty() || user.name.len() > 63 || user.name.chars().any(char::is_control) {
                say(at(".name"), "expected 1 to 63 characters".into());
            }
            if earlier.iter().any(|u| u.name == user.name) {
                say(at(".name"), format!("a second user `{}`; put what proves them together", user.name));
            }
            if user.token_file.is_none() && user.client_names.is_empty() {
                say(at(""), "nothing proves who asks; set `tokenFile` or `clientNames`".into());
            }
            if !user.client_names.is_empty() && !ca {
                let what = "client certificates cannot be verified without `admin.tls.clientCa`";
                say(at(".clientNames"), what.into());
            }
            for name in &user.client_names {
                if name.is_empty() {
                    say(at(".clientNames"), "a name is empty".into());
                } else if let Some(other) = earlier.iter().find(|u| u.client_names.contains(name)) {
                    say(at(".clientNames"), format!("`{name}` already stands for `{}`", other.name));
                }
            }
        }
        let tls = self.tls.as_ref();
        if ca && self.users.iter().all(|u| u.client_names.is_empty()) {
            say("admin.tls.clientCa".into(), "no user has `clientNames`; list the names, or remove it".into());
        }
        if tls.is_some_and(|tls| tls.client_crl_file.is_some() && tls.client_ca.is_none()) {
            say(
                "admin.tls.clientCrlFile".into(),
                "nothing verifies client certificates; set `admin.tls.clientCa`".into(),
            );
        }
        problems
    }
}

/// Who asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Who {
    /// `None` where nobody has to say.
    pub name: Option<String>,
    pub role: Role,
}

/// Why a request is turned away.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    #[error("no credential; send a bearer token or a client certificate of a user under admin.users")]
    NoCredential,
    #[error("no user under admin.users has this credential")]
    Unknown,
    #[error("this needs the role `{}`, and `{name}` has the role `{}`", needs.as_str(), has.as_str())]
    Role { name: String, has: Role, needs: Role },
    #[error("this needs a user with the role `{}`; name one under admin.users", needs.as_str())]
    Nobody { needs: Role },
    #[error("requests from web pages are not accepted")]
    WebPage,
}

impl Denied {
    /// The HTTP status: 401 asks for a credential, 403 says that it does not help.
    pub const fn code(&self) -> StatusCode {
        match self {
            Self::NoCredential | Self::Unknown => StatusCode::UNAUTHORIZED,
            _ => StatusCode::FORBIDDEN,
        }
    }
}

/// The guard of the admin port.
pub struct Guard {
    config: Config,
    now: RwLock<Arc<State>>,
    /// The files on disk cannot be used, and that was said.
    said: AtomicBool,
}

struct State {
    fingerprint: blake3::Hash,
    tls: Option<Arc<ServerConfig>>,
    /// By user.
    tokens: Tokens,
    retired: CancellationToken,
}

impl Guard {
    /// Reads every file `config` names. `config` must have no [`Config::problems`].
    ///
    /// # Errors
    /// The first file that cannot be used.
    pub fn load(config: Config) -> Result<Self, LoadError> {
        let state = State::load(&config)?;
        Ok(Self { config, now: RwLock::new(Arc::new(state)), said: AtomicBool::new(false) })
    }

    /// Takes changed files; keeps the old ones when the new cannot be used, and says so once.
    pub fn reload(&self) {
        match State::load(&self.config) {
            Err(error) => {
                if !self.said.swap(true, Ordering::Relaxed) {
                    let error = &error as &dyn std::error::Error;
                    tracing::error!(
                        error,
                        "admin: changed certificates or tokens cannot be used, keeping the old ones"
                    );
                }
            }
            Ok(fresh) => {
                self.said.store(false, Ordering::Relaxed);
                let old = self.state();
                if fresh.fingerprint != old.fingerprint {
                    *self.now.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(fresh);
                    old.retired.cancel();
                    tracing::info!("admin: new certificates or tokens in use");
                }
            }
        }
    }

    /// The terms for the next connection.
    pub fn terms(&self) -> Terms {
        let state = self.state();
        Terms { tls: state.tls.clone(), retired: state.retired.clone() }
    }

    /// Who asks, if they may do what `needs` may. To be asked for each request, a connection alone proves nothing.
    ///
    /// # Errors
    /// Why they may not.
    pub fn allow(&self, peer: &Peer, headers: &HeaderMap, needs: Role) -> Result<Who, Denied> {
        // A browser shows a client certificate to any page that asks, and reaches loopback too.
        if headers.contains_key(ORIGIN) {
            return Err(Denied::WebPage);
        }
        let who = self.who(peer, headers)?;
        match who.name {
            _ if who.role >= needs => {
                peer.known();
                Ok(who)
            }
            Some(name) => Err(Denied::Role { name, has: who.role, needs }),
            None => Err(Denied::Nobody { needs }),
        }
    }

    fn who(&self, peer: &Peer, headers: &HeaderMap) -> Result<Who, Denied> {
        if self.config.users.is_empty() {
            return Ok(Who { name: None, role: Role::Viewer });
        }
        let state = self.state();
        let by_token = bearer(headers).map(|token| {
            let owner = state.tokens.owner(token);
            self.config.users.iter().find(|u| Some(u.name.as_str()) == owner)
        });
        let by_certificate = peer.certificate.as_ref().map(|shown| {
            let names = certificate::names(shown);
            self.config.users.iter().find(|u| u.client_names.iter().any(|n| names.contains(n)))
        });
        // A token is shown on purpose, so it says whose request this is; a certificate comes with the connection.
        match (by_token, by_certificate) {
            (Some(Some(user)), _) | (None, Some(Some(user))) => {
                Ok(Who { name: Some(user.name.clone()), role: user.role })
            }
            (None, None) => Err(Denied::NoCredential),
            (Some(None), _) | (None, Some(None)) => Err(Denied::Unknown),
        }
    }

    fn state(&self) -> Arc<State> {
        Arc::clone(&self.now.read().unwrap_or_else(PoisonError::into_inner))
    }
}

impl State {
    fn load(config: &Config) -> Result<Self, LoadError> {
        let mut files = Files::below(Path::new(""));
        let tls = match &config.tls {
            // Whether it is alive may be asked without a certificate, so the handshake never insists on one.
            Some(tls) => Some(Arc::new(keys::server_config(tls, true, false, &mut files)?.0)),
            None => None,
        };
        let mut tokens = Tokens::default();
        for user in &config.users {
            if let Some(file) = &user.token_file {
                tokens.read(file, &user.name, &mut files)?;
            }
        }
        Ok(Self { fingerprint: files.fingerprint(), tls, tokens, retired: CancellationToken::new() })
    }
}

#[cfg(test)]
mod tests {
    use hyper::header::{AUTHORIZATION, HeaderValue};

    use super::*;

    const PROMETHEUS: &str = "prometheus-0123456789";
    const OPERATOR: &str = "operator-0123456789abc";

    fn user(dir: &Path, name: &str, role: Role, token: &str) -> User {
        let file = dir.join(name);
        std::fs::write(&file, token).unwrap();
        User { name: name.into(), role, token_file: Some(file), client_names: Vec::new() }
    }

    fn ask(guard: &Guard, token: Option<&str>, needs: Role) -> Result<Who, Denied> {
        let peer = Peer { address: "127.0.0.1:1".parse().unwrap(), certificate: None, slot: None };
        let mut headers = HeaderMap::new();
        if let Some(token) = token {
            headers.insert(AUTHORIZATION, HeaderValue::try_from(format!("Bearer {token}")).unwrap());
        }
        guard.allow(&peer, &headers, needs)
    }

    #[test]
    fn each_may_do_what_their_role_may_and_others_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let users = vec![
            user(dir.path(), "prometheus", Role::Metrics, PROMETHEUS),
            user(dir.path(), "ops", Role::Operator, OPERATOR),
        ];
        let guard = Guard::load(Config { users, ..Config::default() }).unwrap();
        let code = |token, needs| ask(&guard, token, needs).map(|w| w.name.unwrap()).map_err(|d| d.code().as_u16());
        assert_eq!(code(Some(PROMETHEUS), Role::Metrics), Ok("prometheus".into()));
        assert_eq!(code(Some(PROMETHEUS), Role::Viewer), Err(403));
        assert_eq!(code(Some(PROMETHEUS), Role::Operator), Err(403));
        for role in [Role::Metrics, Role::Viewer, Role::Operator] {
            assert_eq!(code(Some(OPERATOR), role), Ok("ops".into()));
            assert_eq!(code(None, role), Err(401));
            assert_eq!(code(Some(&OPERATOR[1..]), role), Err(401));
            assert_eq!(code(Some(""), role), Err(401));
        }
        let peer = Peer { address: "127.0.0.1:1".parse().unwrap(), certificate: None, slot: None };
        let mut page = HeaderMap::new();
        page.insert(ORIGIN, HeaderValue::from_static("https://evil.example"));
        page.insert(AUTHORIZATION, HeaderValue::try_from(format!("Bearer {OPERATOR}")).unwrap());
        assert_eq!(guard.allow(&peer, &page, Role::Operator), Err(Denied::WebPage));
    }

    #[test]
    fn a_certificate_stands_for_who_lists_its_name_and_a_token_beside_it_counts_first() {
        let shown = |name: &str| {
            let key = rcgen::KeyPair::generate().unwrap();
            let params = rcgen::CertificateParams::new(vec![name.to_owned()]).unwrap();
            Some(params.self_signed(&key).unwrap().der().clone())
        };
        let dir = tempfile::tempdir().unwrap();
        let soc = User {
            name: "soc".into(),
            role: Role::Viewer,
            token_file: None,
            client_names: vec!["soc.example.org".into()],
        };
        let users = vec![soc, user(dir.path(), "ops", Role::Operator, OPERATOR)];
        let guard = Guard::load(Config { users, ..Config::default() }).unwrap();
        let ask = |name: &str, token: Option<&str>, needs| {
            let peer = Peer { address: "127.0.0.1:1".parse().unwrap(), certificate: shown(name), slot: None };
            let mut headers = HeaderMap::new();
            if let Some(token) = token {
                headers.insert(AUTHORIZATION, HeaderValue::try_from(format!("Bearer {token}")).unwrap());
            }
            guard.allow(&peer, &headers, needs).map(|who| who.name.unwrap())
        };
        assert_eq!(ask("soc.example.org", None, Role::Viewer), Ok("soc".into()));
        assert!(matches!(ask("soc.example.org", None, Role::Operator), Err(Denied::Role { .. })));
        assert_eq!(ask("evil.example.org", None, Role::Metrics), Err(Denied::Unknown));
        assert_eq!(ask("soc.example.org", Some(OPERATOR), Role::Operator), Ok("ops".into()));
        assert_eq!(ask("soc.example.org", Some("not-a-token-we-know"), Role::Viewer), Err(Denied::Unknown));
    }

    #[test]
    fn without_users_looking_is_free_and_changing_is_not() {
        let guard = Guard::load(Config::default()).unwrap();
        assert_eq!(ask(&guard, None, Role::Viewer), Ok(Who { name: None, role: Role::Viewer }));
        assert_eq!(ask(&guard, Some("anything"), Role::Operator), Err(Denied::Nobody { needs: Role::Operator }));
    }

    #[test]
    fn tokens_rotate_and_bad_files_change_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let users = vec![user(dir.path(), "ops", Role::Operator, OPERATOR)];
        let guard = Guard::load(Config { users, ..Config::default() }).unwrap();
        let may = |token: &str| ask(&guard, Some(token), Role::Operator).is_ok();
        let retired = guard.terms().retired;
        std::fs::write(dir.path().join("ops"), "short").unwrap();
        guard.reload();
        assert!(may(OPERATOR) && !may("short") && !retired.is_cancelled());
        std::fs::write(dir.path().join("ops"), PROMETHEUS).unwrap();
        guard.reload();
        assert!(!may(OPERATOR) && may(PROMETHEUS) && retired.is_cancelled());
    }

    #[test]
    fn an_open_port_is_a_problem_unless_somebody_said_so() {
        let open = Config { listen: "0.0.0.0:9466".into(), ..Config::default() };
        let said = |config: &Config| config.problems().into_iter().map(|(path, _)| path).collect::<Vec<_>>();
        assert_eq!(said(&open), ["admin.listen"]);
        let tls = Tls { cert: "c".into(), key: "k".into(), client_ca: None, client_crl_file: None };
        let ops = User { name: "ops".into(), role: Role::Viewer, token_file: Some("t".into()), client_names: vec![] };
        assert_eq!(said(&Config { tls: Some(tls.clone()), ..open.clone() }), ["admin.listen"]);
        assert_eq!(said(&Config { users: vec![ops.clone()], ..open.clone() }), ["admin.listen"]);
        assert_eq!(said(&Config { tls: Some(tls), users: vec![ops.clone()], ..open.clone() }), [""; 0]);
        assert_eq!(said(&Config { insecure: true, ..open }), [""; 0]);
        let beside = Config { metrics_listen: Some("0.0.0.0:9467".into()), ..Config::default() };
        assert_eq!(said(&beside), ["admin.metricsListen"]);
        let nowhere = Config { metrics_listen: Some("nowhere".into()), ..Config::default() };
        assert_eq!(said(&nowhere), ["admin.metricsListen"]);
        for loopback in ["127.0.0.1:1", "[::1]:1", "[::ffff:127.0.0.1]:1"] {
            assert_eq!(said(&Config { listen: loopback.into(), ..Config::default() }), [""; 0], "{loopback}");
        }
        let by_name = User { token_file: None, client_names: vec!["x".into()], ..ops.clone() };
        let nothing = User { token_file: None, ..ops };
        let users = vec![by_name, nothing];
        let expected = ["admin.users[0].clientNames", "admin.users[1].name", "admin.users[1]"];
        assert_eq!(said(&Config { users, ..Config::default() }), expected);
    }
}
