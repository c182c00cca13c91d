//! Every output that speaks HTTP through the same troubles: a receiver that is not there, refuses, is busy, breaks, is slow,
//! closes in the middle of its answer, or shows a wrong certificate. What each answer means, and that nothing is lost, told
//! twice or out of its place once the receiver is well again.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use lapwing::output::dead::DeadLetters;
use lapwing::output::{Carries, Config, Failure, Output};
use lapwing_engine::alert::Alert;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use serde_json::{Value, json};

use super::http::{Good, Receiver, Say};
use super::working::{Memory, Working};
use super::{Certificates, alert, config, evil, lines};
use crate::daemon::{Daemon, fixture, post, read, until};

/// A kind of output, and how its receiver says that all is well.
struct Kind {
    name: &'static str,
    /// With `URL`, the receiver's address, and `DIR`, where files for secrets are.
    settings: Value,
    good: Good,
    aside: Option<&'static str>,
    /// A yes stands in the status alone: what follows does not matter.
    status_is_all: bool,
    differs: &'static [(u16, Meaning)],
}

/// What becomes of a notice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Meaning {
    Delivered,
    Again,
    Refused,
    Smaller,
}

/// What a failure means, and how long to wait.
fn meaning(end: &Result<lapwing::output::Receipt, Failure>) -> (Meaning, Option<Duration>) {
    match end {
        Ok(_) => (Meaning::Delivered, None),
        Err(Failure::Retry { after, .. }) => (Meaning::Again, *after),
        Err(Failure::Reject { .. }) => (Meaning::Refused, None),
        Err(Failure::TooLarge { .. }) => (Meaning::Smaller, None),
        Err(partial @ Failure::Partial { .. }) => panic!("{partial:?}"),
    }
}

fn stored(_: &str, body: &[u8]) -> (u16, String) {
    let documents = String::from_utf8_lossy(body).lines().filter(|l| l.starts_with("{\"create\"")).count();
    (200, json!({ "errors": false, "items": vec![json!({ "create": { "status": 201 } }); documents] }).to_string())
}

fn collected(path: &str, _: &[u8]) -> (u16, String) {
    let said =
        if path.contains("/ack") { r#"{"acks":{"7":true}}"# } else { r#"{"text":"Success","code":0,"ackId":7}"# };
    (200, said.to_owned())
}

fn kinds() -> Vec<Kind> {
    use Meaning::{Refused, Smaller};
    let kind =
        |name, settings, good: Good| Kind { name, settings, good, aside: None, status_is_all: true, differs: &[] };
    let slack = |name, settings, good| Kind { status_is_all: false, ..kind(name, settings, good) };
    let batch = &[(413, Smaller)];
    vec![
        kind("webhook", json!({ "type": "webhook", "url": "URL" }), |_, _| (204, String::new())),
        Kind {
            differs: &[(403, Refused)],
            ..slack("slack-webhook", json!({ "type": "slack", "urlFile": "DIR/url" }), |_, _| (200, "ok".into()))
        },
        slack(
            "slack-bot",
            json!({ "type": "slack", "tokenFile": "DIR/secret", "channel": "C1", "apiUrl": "URL" }),
            |_, _| (200, r#"{"ok":true,"ts":"1.1"}"#.into()),
        ),
        slack("teams", json!({ "type": "teams", "urlFile": "DIR/url" }), |_, _| (202, String::new())),
        kind("pagerduty", json!({ "type": "pagerduty", "keyFile": "DIR/secret", "url": "URL" }), |_, _| {
            (202, r#"{"status":"success"}"#.into())
        }),
        Kind {
            differs: batch,
            ..kind("alertmanager", json!({ "type": "alertmanager", "urls": ["URL"] }), |_, _| (200, String::new()))
        },
        Kind {
            differs: batch,
            ..slack("splunk", json!({ "type": "splunk", "url": "URL", "tokenFile": "DIR/secret" }), collected)
        },
        Kind {
            differs: batch,
            aside: Some("/ack"),
            ..slack(
                "splunk-ack",
                json!({ "type": "splunk", "url": "URL", "tokenFile": "DIR/secret", "acknowledge": true }),
                collected,
            )
        },
        Kind {
            differs: batch,
            ..slack("elasticsearch", json!({ "type": "elasticsearch", "url": "URL", "manageTemplate": false }), stored)
        },
        // The protocol itself says that 500 is final.
        Kind {
            differs: &[(413, Smaller), (500, Refused)],
            ..slack("otlp", json!({ "type": "otlp", "url": "URL" }), |_, _| (200, String::new()))
        },
        Kind { differs: batch, ..kind("loki", json!({ "type": "loki", "url": "URL" }), |_, _| (204, String::new())) },
    ]
}

/// `settings` with the receiver and the files in place of their names.
fn placed(kind: &Kind, port: u16, dir: &Path, ca: &Path) -> Config {
    let url = format!("https://localhost:{port}");
    std::fs::write(dir.join("url"), &url).unwrap();
    std::fs::write(dir.join("secret"), "s3cret").unwrap();
    let text = kind.settings.to_string().replace("URL", &url).replace("DIR", &dir.display().to_string());
    let mut settings: Value = serde_json::from_str(&text).unwrap();
    let common = json!({ "name": kind.name, "timeoutSeconds": 1, "tls": { "ca": ca },
        "retry": { "maxWaitSeconds": 1, "refusedTries": 3 } });
    settings.as_object_mut().unwrap().extend(common.as_object().unwrap().clone());
    config(settings)
}

/// The certificate a server shows, which can be changed while it runs.
#[derive(Debug)]
struct Shown {
    now: Mutex<Arc<CertifiedKey>>,
    key: std::path::PathBuf,
}

impl Shown {
    fn of(files: &Certificates) -> Arc<Self> {
        Arc::new(Self { now: Mutex::new(Self::read(&files.cert, &files.key)), key: files.key.clone() })
    }

    fn read(cert: &Path, key: &Path) -> Arc<CertifiedKey> {
        let chain = vec![CertificateDer::from_pem_file(cert).unwrap()];
        let key = PrivateKeyDer::from_pem_file(key).unwrap();
        let key = rustls::crypto::ring::default_provider().key_provider.load_private_key(key).unwrap();
        Arc::new(CertifiedKey::new(chain, key))
    }

    fn show(&self, cert: &Path) {
        *self.now.lock().unwrap() = Self::read(cert, &self.key);
    }

    fn server(self: &Arc<Self>) -> Arc<rustls::ServerConfig> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut tls = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_cert_resolver(Arc::clone(self) as Arc<dyn ResolvesServerCert>);
        // No resumption: each connection looks at the certificate.
        tls.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
        tls.send_tls13_tickets = 0;
        tls.alpn_protocols = vec![b"http/1.1".to_vec()];
        Arc::new(tls)
    }
}

impl ResolvesServerCert for Shown {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.now.lock().unwrap()))
    }
}

/// What an answer means to this kind.
fn expected(kind: &Kind, say: &Say) -> (Meaning, Option<Duration>) {
    let of_status = |status: u16| {
        let differs = kind.differs.iter().find(|(s, _)| *s == status).map(|(_, meaning)| *meaning);
        differs.unwrap_or(match status {
            401 | 403 | 429 | 500..=599 => Meaning::Again,
            _ => Meaning::Refused,
        })
    };
    let waits = |seconds: &u64| Some(Duration::from_secs(*seconds));
    match say {
        Say::Status(status) => (of_status(*status), None),
        Say::Wait(seconds) => (Meaning::Again, waits(seconds)),
        Say::Redirect => (Meaning::Refused, None),
        Say::Cut | Say::Stall if kind.status_is_all => (Meaning::Delivered, None),
        _ => (Meaning::Again, None),
    }
}

fn troubles() -> Vec<Say> {
    let mut all: Vec<Say> = [400, 401, 403, 404, 413, 500, 502, 503].map(Say::Status).to_vec();
    all.extend([Say::Wait(1), Say::Redirect, Say::Hang, Say::Close, Say::Cut, Say::Stall]);
    all
}

/// Each trouble as the output itself reports it.
async fn is_told_apart(kind: &Kind, receiver: &Receiver, shown: &Shown, output: &mut Output, files: &Certificates) {
    let one = alert("one");
    for trouble in troubles() {
        receiver.say(trouble.clone());
        let end = output.deliver(&[&one]).await;
        assert_eq!(meaning(&end), expected(kind, &trouble), "{}: {trouble:?}: {end:?}", kind.name);
    }
    for wrong in [&files.foreign, &files.elsewhere, &files.expired] {
        shown.show(wrong);
        // What is open was shown another certificate: the connection goes with the trouble.
        receiver.say(Say::Close);
        let mut end = output.deliver(&[&one]).await;
        if !receiver.said_all() || !end.as_ref().is_err_and(|e| e.to_string().contains("certificate")) {
            end = output.deliver(&[&one]).await;
        }
        let told = format!("{end:?}");
        assert!(meaning(&end).0 == Meaning::Again && told.contains("certificate"), "{}: {wrong:?}: {told}", kind.name);
        assert!(!told.contains("s3cret"), "{told}");
        shown.show(&files.cert);
        while !receiver.said_all() {
            let _ = output.deliver(&[&one]).await;
        }
        let end = output.deliver(&[&one]).await;
        assert!(end.is_ok(), "{}: with a good certificate again: {end:?}", kind.name);
    }
}

/// Alerts come while the trouble lasts, and more once it is over.
struct Stream {
    memory: Memory,
    ids: Vec<String>,
    each: usize,
}

impl Stream {
    fn add(&mut self, kind: &Kind) {
        for _ in 0..self.each {
            // An end that no other id begins with.
            let id = format!("{}-{:03}.", kind.name, self.ids.len());
            self.memory.add([if self.ids.len().is_multiple_of(2) { evil(&id) } else { alert(&id) }]);
            self.ids.push(id);
        }
    }

    async fn finished(&self, what: &str) {
        let deadline = Instant::now() + Duration::from_secs(90);
        while self.memory.done_with() < self.ids.len() as u64 {
            assert!(Instant::now() < deadline, "{what}: {} of {}", self.memory.done_with(), self.ids.len());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

/// The same behind a worker, and a receiver that is not there: nothing is lost.
async fn is_lived_through(
    kind: &Kind,
    config: &Config,
    receiver: &Receiver,
    shown: &Arc<Shown>,
    (port, listening): (u16, tokio::task::AbortHandle),
    files: &Certificates,
    dir: &Path,
) {
    let memory = Memory::with(Vec::<Alert>::new());
    let each = if config.carries() == Carries::Message { 1 } else { 2 };
    let mut stream = Stream { memory: memory.clone(), ids: Vec::new(), each };
    let working = Working::start(config, &memory, dir);
    for trouble in troubles() {
        receiver.say(trouble.clone());
        stream.add(kind);
        stream.finished(&format!("{} after {trouble:?}", kind.name)).await;
    }
    for wrong in [&files.foreign, &files.elsewhere, &files.expired] {
        shown.show(wrong);
        receiver.say(Say::Close);
        stream.add(kind);
        tokio::time::sleep(Duration::from_millis(700)).await;
        shown.show(&files.cert);
        stream.finished(&format!("{} after {wrong:?}", kind.name)).await;
    }
    listening.abort();
    stream.add(kind);
    tokio::time::sleep(Duration::from_millis(700)).await;
    let (_, listening) = receiver.serve_at(port, Some(shown.server())).await;
    stream.finished(&format!("{} after it was away", kind.name)).await;
    working.end().await;
    listening.abort();

    let letters = lines(DeadLetters::of(dir, kind.name).path());
    assert_eq!(letters, Vec::<String>::new(), "{}", kind.name);
    let taken = receiver.taken_bodies();
    for id in &stream.ids {
        let times = taken.iter().filter(|body| body.windows(id.len()).any(|w| w == id.as_bytes())).count();
        // Where a yes in the status is enough, what broke off behind it was a yes.
        let least = usize::from(!kind.status_is_all);
        assert!((least..=1).contains(&times), "{}: {id} was taken {times} times", kind.name);
    }
    let all = receiver.bodies();
    let there = |id: &String| all.iter().any(|body| body.windows(id.len()).any(|w| w == id.as_bytes()));
    assert!(stream.ids.iter().all(there), "{}: each arrived", kind.name);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_http_output_tells_troubles_apart_and_loses_nothing_to_them() {
    let mut all = tokio::task::JoinSet::new();
    for kind in kinds() {
        all.spawn(async move {
            let dir = tempfile::tempdir().unwrap();
            let files = Certificates::make(dir.path());
            let shown = Shown::of(&files);
            let receiver = Receiver::well(kind.good, kind.aside);
            let (port, listening) = receiver.serve_at(0, Some(shown.server())).await;
            let config = placed(&kind, port, dir.path(), &files.ca);
            let mut output = Output::new(&config).unwrap();
            is_told_apart(&kind, &receiver, &shown, &mut output, &files).await;
            drop(output);
            is_lived_through(&kind, &config, &receiver, &shown, (port, listening), &files, dir.path()).await;
        });
    }
    while let Some(ended) = all.join_next().await {
        ended.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_archive_lives_through_the_same_troubles() {
    let dir = tempfile::tempdir().unwrap();
    let files = Certificates::make(dir.path());
    let shown = Shown::of(&files);
    let receiver = Receiver::well(|_, _| (200, String::new()), None);
    let (port, listening) = receiver.serve_at(0, Some(shown.server())).await;
    let key = dir.path().join("key");
    std::fs::write(&key, "k3y").unwrap();
    let mut daemon = Daemon::prepare(dir.path(), "");
    let archive = format!(
        "archive: {{ endpoint: \"https://localhost:{port}\", bucket: audit, accessKeyFile: {key}, secretKeyFile: {key}, \
         maxWait: 50ms, timeoutSeconds: 1, tls: {{ ca: {} }} }}\n",
        files.ca.display(),
        key = key.display()
    );
    let settings = std::fs::read_to_string(daemon.config()).unwrap() + &archive;
    std::fs::write(daemon.config(), settings).unwrap();
    let events = String::from_utf8(read(&fixture("attacks/exec-ws/events.jsonl.zst"))).unwrap();
    let mut sent = 0;
    let mut send = |daemon: &Daemon| {
        let event = events.lines().nth(sent).unwrap();
        sent += 1;
        assert_eq!(post(daemon.webhook, "/", event.as_bytes()).unwrap().0, 200);
        sent as f64
    };
    let archived = |daemon: &Daemon, what: &str, count: f64| {
        until(what, || (daemon.metric("lapwing_archive_events_total") == count).then_some(()));
    };
    let failed = |daemon: &Daemon, before: f64| {
        until("a failure", || (daemon.metric("lapwing_archive_failures_total") > before).then_some(()));
    };
    let failures = |daemon: &Daemon| daemon.metric("lapwing_archive_failures_total");
    tokio::task::block_in_place(|| {
        daemon.run();
        for trouble in troubles() {
            receiver.say(trouble.clone());
            let count = send(&daemon);
            archived(&daemon, &format!("{trouble:?} to be over"), count);
        }
        for wrong in [&files.foreign, &files.elsewhere, &files.expired] {
            let before = failures(&daemon);
            shown.show(wrong);
            let count = send(&daemon);
            failed(&daemon, before);
            assert!(daemon.log().contains("certificate"), "{}", daemon.log());
            shown.show(&files.cert);
            archived(&daemon, &format!("{wrong:?} to be over"), count);
        }
        let before = failures(&daemon);
        listening.abort();
        let count = send(&daemon);
        failed(&daemon, before);
        let handle = tokio::runtime::Handle::current();
        let (_, listening) = handle.block_on(receiver.serve_at(port, Some(shown.server())));
        archived(&daemon, "what was put in vain", count);
        assert!(daemon.stop().success(), "{}", daemon.log());
        listening.abort();
    });
    // An object that is put again is the same object.
    let objects: BTreeMap<String, Vec<u8>> = receiver.put().into_iter().collect();
    let text: String =
        objects.values().map(|o| String::from_utf8(zstd::decode_all(&o[..]).unwrap()).unwrap()).collect();
    let mut ids: Vec<Value> =
        text.lines().map(|l| serde_json::from_str::<Value>(l).unwrap()["auditID"].clone()).collect();
    let mut wanted: Vec<Value> =
        events.lines().take(sent).map(|l| serde_json::from_str::<Value>(l).unwrap()["auditID"].clone()).collect();
    ids.sort_by_key(Value::to_string);
    wanted.sort_by_key(Value::to_string);
    assert_eq!(ids, wanted, "each once");
}
