//! Outputs against real receivers: rsyslogd, an SMTP server, an OpenTelemetry Collector, HTTP. A missing server fails the
//! test and names what to install.

mod alertmanager;
mod chat;
mod collector;
pub mod http;
mod mail;
mod records;
mod search;
mod splunk;
mod syslog;
mod troubles;
pub mod working;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use lapwing::output::Config;
use lapwing_engine::alert::{Alert, Evidence, Level, RuleRef, Status, Verdict};

/// What an attacker puts where a name belongs: the syntax of every format at once.
const EVIL: &str =
    "x\n<131>1 2026-01-01T00:00:00Z h a - - - fake\r\nCEF:0|a|b|c|d|e|10|suser=root =]\"\\ \u{1b}[2J é<b>&";

pub fn alert(id: &str) -> Alert {
    let time: DateTime<Utc> = "2026-03-01T12:00:00Z".parse().unwrap();
    Alert {
        id: id.to_owned(),
        status: Status::New,
        rule: RuleRef {
            id: "exec".into(),
            title: "Shell in a pod".into(),
            level: Level::High,
            tags: vec!["attack.t1609".into()],
        },
        level: Level::High,
        verdict: Verdict::Match,
        cluster: "prod".into(),
        actor: "alice".into(),
        actor_kind: "human".into(),
        first: time,
        last: time,
        count: 1,
        summary: "alice opened a shell in pod web-1".into(),
        why: "A shell runs with the pod's rights".into(),
        false_positives: vec![],
        next_steps: vec!["kubectl get pod web-1".into()],
        audit_ids: vec!["7f0f6f3e".into()],
        evidence: vec![Evidence {
            time,
            actor: "alice".into(),
            action: "exec".into(),
            verb: "create".into(),
            resource: "pods/exec".into(),
            namespace: "shop".into(),
            name: "web-1".into(),
            outcome: "allowed".into(),
            code: Some(101),
            address: "203.0.113.7".into(),
            user_agent: "kubectl/v1.31.0".into(),
            ..Evidence::default()
        }],
        anomaly: None,
    }
}

/// An alert whose every field of an event is [`EVIL`].
pub fn evil(id: &str) -> Alert {
    let mut alert = alert(id);
    let evil = || EVIL.to_owned();
    (alert.actor, alert.summary, alert.cluster) = (evil(), evil(), evil());
    let e = &mut alert.evidence[0];
    (e.actor, e.namespace, e.name, e.user_agent, e.right) = (evil(), evil(), evil(), evil(), evil());
    (e.acting_as, e.details) = (Some(evil()), vec![evil()]);
    alert
}

pub fn config(json: serde_json::Value) -> Config {
    let config: Config = serde_json::from_value(json).unwrap();
    assert_eq!(config.problems(), Vec::<String>::new());
    config
}

/// Looks until `found` finds something; `what` is told when it does not within 20 seconds.
async fn until<T>(what: impl Fn() -> String, mut found: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        if let Some(value) = found() {
            return value;
        }
        assert!(Instant::now() < deadline, "waited 20 seconds for {}", what());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// A server process that ends with its test.
struct Server {
    child: std::process::Child,
}

impl Server {
    /// Starts `command`; when it is not there, `package` is what to install.
    fn start(command: &mut std::process::Command, package: &str) -> Self {
        let child = command.spawn();
        let program = command.get_program().display();
        Self { child: child.unwrap_or_else(|e| panic!("cannot start `{program}` ({e}); install it: {package}")) }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Lines of a file, none when it is not there yet.
pub fn lines(path: &Path) -> Vec<String> {
    std::fs::read_to_string(path).unwrap_or_default().lines().map(str::to_owned).collect()
}

/// A certificate authority and a server certificate for localhost, as PEM files.
pub struct Certificates {
    pub ca: PathBuf,
    pub cert: PathBuf,
    pub key: PathBuf,
    pub other_ca: PathBuf,
    /// As `cert`, but signed by the other authority.
    pub foreign: PathBuf,
    /// As `cert`, but for another host.
    pub elsewhere: PathBuf,
    /// As `cert`, but of last year.
    pub expired: PathBuf,
}

impl Certificates {
    pub fn make(dir: &Path) -> Self {
        let write = |name: &str, text: String| {
            let path = dir.join(name);
            std::fs::write(&path, text).unwrap();
            path
        };
        let authority = |name: &str| {
            let mut params = rcgen::CertificateParams::default();
            params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
            params.key_usages = vec![rcgen::KeyUsagePurpose::KeyCertSign];
            params.distinguished_name.push(rcgen::DnType::CommonName, name);
            let key = rcgen::KeyPair::generate().unwrap();
            (params.self_signed(&key).unwrap(), rcgen::Issuer::new(params, key))
        };
        let (ca, issuer) = authority("test CA");
        let (other, other_issuer) = authority("another CA");
        let key = rcgen::KeyPair::generate().unwrap();
        let params = |names: &[&str]| {
            rcgen::CertificateParams::new(names.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>()).unwrap()
        };
        let (ours, elsewhere) = (params(&["localhost", "127.0.0.1"]), params(&["elsewhere.example.org"]));
        let mut expired = ours.clone();
        (expired.not_before, expired.not_after) = (rcgen::date_time_ymd(2024, 1, 1), rcgen::date_time_ymd(2025, 1, 1));
        let signed = |params: &rcgen::CertificateParams, issuer| params.signed_by(&key, issuer).unwrap().pem();
        Self {
            ca: write("ca.pem", ca.pem()),
            cert: write("cert.pem", signed(&ours, &issuer)),
            foreign: write("foreign.pem", signed(&ours, &other_issuer)),
            elsewhere: write("elsewhere.pem", signed(&elsewhere, &issuer)),
            expired: write("expired.pem", signed(&expired, &issuer)),
            key: write("key.pem", key.serialize_pem()),
            other_ca: write("other-ca.pem", other.pem()),
        }
    }
}
