//! Who may send: every combination of certificate, token and path, and certificates that change under load.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};

use crate::daemon::Daemon;
use crate::sender::{event, list};
use crate::{Row, Scale};

pub type Authority = CertifiedIssuer<'static, KeyPair>;
pub type Identity = (CertificateDer<'static>, PrivateKeyDer<'static>);

const PROD: &str = "0123456789abcdef-prod";
const ONE_BIT_OFF: &str = "0123456789abcdef-prne";
const DEV: &str = "0123456789abcdef-dev";

pub fn authority(name: &str) -> Authority {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(DnType::CommonName, name);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

/// A certificate and its key in PEM, and as an identity.
pub fn leaf(by: &Authority, name: &str, from: i32, to: i32) -> (String, String, Identity) {
    let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    params.distinguished_name.push(DnType::CommonName, name);
    params.not_before = rcgen::date_time_ymd(from, 1, 1);
    params.not_after = rcgen::date_time_ymd(to, 1, 1);
    let key = KeyPair::generate().unwrap();
    let certificate = params.signed_by(&key, by).unwrap();
    let identity = (certificate.der().clone(), PrivateKeyDer::try_from(key.serialize_der()).unwrap());
    (certificate.pem(), key.serialize_pem(), identity)
}

/// A sender's certificate, as the receiver must see it.
struct Shown {
    identity: Option<Identity>,
    /// `None`: the handshake must fail. Else what the name proves: nothing, nobody known, a cluster.
    proves: Option<Result<Option<&'static str>, ()>>,
}

/// Whom the rules let in, written down a second time: certificate or token decide, both must agree, the path may only
/// agree.
fn expected(shown: &Shown, token: Result<Option<&'static str>, ()>, path: Option<&str>) -> Option<&'static str> {
    let cluster = match (shown.proves?, token) {
        (Ok(Some(a)), Ok(Some(b))) if a != b => return None,
        (Ok(Some(cluster)), _) | (_, Ok(Some(cluster))) => cluster,
        _ => return None,
    };
    path.is_none_or(|path| path == cluster).then_some(cluster)
}

/// The status of one delivery; 0 when there was none.
fn send(port: u16, trusted: &Authority, identity: Option<&Identity>, token: Option<&str>, path: &str) -> u16 {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(trusted.der().clone()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots);
    let config = match identity {
        Some((certificate, key)) => builder.with_client_auth_cert(vec![certificate.clone()], key.clone_key()).unwrap(),
        None => builder.with_no_client_auth(),
    };
    let connection =
        rustls::ClientConnection::new(Arc::new(config), ServerName::try_from("localhost").unwrap()).unwrap();
    let Ok(tcp) = TcpStream::connect(("127.0.0.1", port)) else { return 0 };
    let mut stream = rustls::StreamOwned::new(connection, tcp);
    let body = list(&[event(1)]);
    let token = token.map_or(String::new(), |t| format!("Authorization: Bearer {t}\r\n"));
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: localhost\r\n{token}Connection: close\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    let mut answer = Vec::new();
    let sent = stream.write_all(&[head.as_bytes(), &body].concat()).and_then(|()| stream.read_to_end(&mut answer));
    // A receiver that closes without a word leaves an error and no answer.
    drop(sent);
    String::from_utf8_lossy(&answer).split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or(0)
}

fn write_server(dir: &Path, ca: &Authority, clients: &Authority) {
    let (certificate, key, _) = leaf(ca, "lapwing", 2020, 2099);
    std::fs::write(dir.join("server.crt"), certificate).unwrap();
    std::fs::write(dir.join("server.key"), key).unwrap();
    std::fs::write(dir.join("clients.crt"), clients.pem()).unwrap();
}

fn start(dir: &Path, ca: &Authority) -> Daemon {
    write_server(dir, ca, ca);
    std::fs::write(dir.join("prod.token"), PROD).unwrap();
    std::fs::write(dir.join("dev.token"), DEV).unwrap();
    let mut daemon = Daemon::prepare(dir, "");
    let webhook = "tls: { cert: server.crt, key: server.key, clientCa: clients.crt }\n    clusters:\n      \
                   - { name: prod, clientNames: [api-prod], tokenFile: prod.token }\n      - { name: dev, tokenFile: dev.token }";
    let config = std::fs::read_to_string(daemon.config()).unwrap().replace("insecureLoopback: true", webhook);
    std::fs::write(daemon.config(), config).unwrap();
    daemon.run();
    daemon
}

pub fn matrix(scale: &Scale) -> Row {
    let mut row = Row::default();
    let (ca, stranger) = (authority("ours"), authority("theirs"));
    let dir = tempfile::tempdir().unwrap();
    let mut daemon = start(dir.path(), &ca);
    let by = |ca, name, from, to| Some(leaf(ca, name, from, to).2);
    let certificates = [
        Shown { identity: None, proves: Some(Ok(None)) },
        Shown { identity: by(&ca, "api-prod", 2020, 2099), proves: Some(Ok(Some("prod"))) },
        Shown { identity: by(&ca, "api-prod2", 2020, 2099), proves: Some(Err(())) },
        Shown { identity: by(&stranger, "api-prod", 2020, 2099), proves: None },
        Shown { identity: by(&ca, "api-prod", 2020, 2021), proves: None },
        Shown { identity: by(&ca, "api-prod", 2098, 2099), proves: None },
    ];
    let tokens =
        [(None, Ok(None)), (Some(PROD), Ok(Some("prod"))), (Some(ONE_BIT_OFF), Err(())), (Some(DEV), Ok(Some("dev")))];
    for (c, shown) in certificates.iter().enumerate() {
        for (token, proves) in tokens {
            for (path, named) in [("/", None), ("/audit/v1/prod", Some("prod")), ("/audit/v1/dev", Some("dev"))] {
                let cluster = expected(shown, proves, named);
                let series = |name: &str| format!("lapwing_batches_total{{cluster=\"{name}\",source=\"webhook\"}}");
                let before = cluster.map(|name| daemon.metric(&series(name)));
                let code = send(daemon.webhook, &ca, shown.identity.as_ref(), token, path);
                if (code == 200) != cluster.is_some() {
                    row.lost += 1;
                    row.wrong.push(format!("certificate {c}, token {token:?}, {path}: {code}, expected {cluster:?}"));
                } else if let (Some(name), Some(before)) = (cluster, before)
                    && daemon.metric(&series(name)) != before + 1.0
                {
                    row.wrong.push(format!("certificate {c}, token {token:?}, {path}: not stored as {name}"));
                }
                row.trials += 1;
            }
        }
    }
    let rotations = rotate(scale, &daemon, &ca, certificates[1].identity.as_ref().unwrap(), &mut row);
    // The authority of the senders changes: who was let in by the old one is not any more.
    write_server(dir.path(), &ca, &stranger);
    hang_up(&daemon);
    crate::daemon::until("the old certificate to be refused", || {
        (send(daemon.webhook, &ca, certificates[1].identity.as_ref(), None, "/") != 200).then_some(())
    });
    if send(daemon.webhook, &ca, certificates[3].identity.as_ref(), None, "/") != 200 {
        row.wrong.push("the new authority's certificate is refused".into());
    }
    assert!(daemon.stop().success());
    row.checked = row.trials;
    row.note = format!("lost: wrong decisions; {rotations}");
    row
}

fn hang_up(daemon: &Daemon) {
    assert!(Command::new("kill").args(["-HUP", &daemon.pid().to_string()]).status().unwrap().success());
}

/// Changes the server's certificate again and again while somebody sends.
fn rotate(scale: &Scale, daemon: &Daemon, ca: &Authority, identity: &Identity, row: &mut Row) -> String {
    let (stop, count) = (AtomicBool::new(false), scale.of(5, 50));
    let (sent, failed) = std::thread::scope(|scope| {
        let sender = scope.spawn(|| {
            let (mut sent, mut failed) = (0, 0);
            while !stop.load(Ordering::Acquire) {
                sent += 1;
                failed += usize::from(send(daemon.webhook, ca, Some(identity), None, "/") != 200);
            }
            (sent, failed)
        });
        for _ in 0..count {
            write_server(&daemon.dir, ca, ca);
            hang_up(daemon);
            std::thread::park_timeout(std::time::Duration::from_millis(200));
        }
        stop.store(true, Ordering::Release);
        sender.join().unwrap()
    });
    row.lost += failed;
    format!("{count} rotations under load, {failed} of {sent} requests failed")
}
