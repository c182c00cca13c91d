//! Who may send, over real TLS: certificates, tokens, HTTP/2, files that change.

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};

use super::*;
use crate::http::certificate;

struct Pki {
    ca: CertifiedIssuer<'static, KeyPair>,
    stranger: CertifiedIssuer<'static, KeyPair>,
}

fn authority(name: &str) -> CertifiedIssuer<'static, KeyPair> {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(DnType::CommonName, name);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

type Identity = (CertificateDer<'static>, PrivateKeyDer<'static>);

impl Pki {
    fn new() -> Self {
        Self { ca: authority("ours"), stranger: authority("theirs") }
    }

    fn leaf(
        issuer: &CertifiedIssuer<'static, KeyPair>,
        common: &str,
        alternative: &[&str],
        ends: i32,
    ) -> (String, KeyPair, Identity) {
        let mut params =
            CertificateParams::new(alternative.iter().map(|a| (*a).to_owned()).collect::<Vec<_>>()).unwrap();
        params.distinguished_name.push(DnType::CommonName, common);
        params.not_before = rcgen::date_time_ymd(2020, 1, 1);
        params.not_after = rcgen::date_time_ymd(ends, 1, 1);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, issuer).unwrap();
        let identity = (certificate.der().clone(), PrivateKeyDer::try_from(key.serialize_der()).unwrap());
        (certificate.pem(), key, identity)
    }

    fn write_server(&self, dir: &Path, ends: i32) {
        let (pem, key, _) = Self::leaf(&self.ca, "lapwing", &["localhost"], ends);
        std::fs::write(dir.join("server.crt"), pem).unwrap();
        std::fs::write(dir.join("server.key"), key.serialize_pem()).unwrap();
        std::fs::write(dir.join("clients.crt"), self.ca.pem()).unwrap();
        std::fs::write(dir.join("dev.token"), TOKEN).unwrap();
    }

    /// Sends one delivery as the bearer of `identity`; empty when the handshake or connection failed.
    async fn ask(&self, running: &Running, identity: Option<Identity>, request: &[u8]) -> String {
        match self.connect(running, identity, &[]).await {
            Ok(mut stream) => exchange(&mut stream, request).await,
            Err(_) => String::new(),
        }
    }

    async fn connect(
        &self,
        running: &Running,
        identity: Option<Identity>,
        alpn: &[&[u8]],
    ) -> std::io::Result<tokio_rustls::client::TlsStream<TcpStream>> {
        let mut config = self.client(identity, rustls::ALL_VERSIONS);
        config.alpn_protocols = alpn.iter().map(|p| p.to_vec()).collect();
        let name = ServerName::try_from("localhost").unwrap();
        tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, running.connect().await).await
    }

    fn client(
        &self,
        identity: Option<Identity>,
        versions: &[&'static rustls::SupportedProtocolVersion],
    ) -> rustls::ClientConfig {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(self.ca.der().clone()).unwrap();
        let builder = rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_protocol_versions(versions)
            .unwrap()
            .with_root_certificates(roots);
        match identity {
            Some((certificate, key)) => builder.with_client_auth_cert(vec![certificate], key).unwrap(),
            None => builder.with_no_client_auth(),
        }
    }
}

fn secured(dir: &Path, pki: &Pki, tokens: bool) -> Config {
    pki.write_server(dir, 2099);
    let prod = Sender {
        name: "prod".into(),
        client_names: vec!["kube-apiserver-prod".into(), "api.prod.example".into()],
        token_file: None,
        identity: None,
    };
    let dev = Sender { name: "dev".into(), client_names: vec![], token_file: Some("dev.token".into()), identity: None };
    let tls = Tls {
        cert: "server.crt".into(),
        key: "server.key".into(),
        client_ca: Some("clients.crt".into()),
        client_crl_file: None,
    };
    Config {
        listen: "127.0.0.1:0".parse().unwrap(),
        tls: Some(tls),
        clusters: if tokens { vec![prod, dev] } else { vec![prod] },
        ..Config::default()
    }
}

#[tokio::test]
async fn a_certificate_decides_the_cluster() {
    let (pki, dir) = (Pki::new(), tempfile::tempdir().unwrap());
    let config = secured(dir.path(), &pki, false);
    let mut running = start_in(dir, config, Timing::default()).await;
    let one = |path| post(path, "", b"{\"items\":[{\"cluster\":\"evil\"}]}");
    let good = |common, alternative| Some(Pki::leaf(&pki.ca, common, alternative, 2099).2);
    for (common, alternative) in [("kube-apiserver-prod", &[][..]), ("x", &["api.prod.example"])] {
        assert_code(&pki.ask(&running, good(common, alternative), &one("/audit/v1/prod")).await, 200);
        assert_eq!(running.batches.recv().await.unwrap().cluster, "prod");
    }
    let wrong_name = pki.ask(&running, good("kube-apiserver-prod2", &["prod.example"]), &one("/")).await;
    assert_code(&wrong_name, 403);
    assert!(wrong_name.contains("kube-apiserver-prod2") && wrong_name.contains("clientNames"), "{wrong_name}");
    assert_code(&pki.ask(&running, good("kube-apiserver-prod", &[]), &one("/audit/v1/dev")).await, 403);
    let stranger = Pki::leaf(&pki.stranger, "kube-apiserver-prod", &[], 2099).2;
    assert_eq!(pki.ask(&running, Some(stranger), &one("/")).await, "", "wrong authority");
    let expired = Pki::leaf(&pki.ca, "kube-apiserver-prod", &[], 2021).2;
    assert_eq!(pki.ask(&running, Some(expired), &one("/")).await, "", "expired");
    assert_eq!(pki.ask(&running, None, &one("/")).await, "", "no certificate");
    assert_eq!(running.ask(&one("/")).await.matches("200 OK").count(), 0, "plain HTTP on the TLS port");
    assert!(running.batches.try_recv().is_err());
    running.until("lapwing_webhook_connections_closed_total{reason=\"handshake_failed\"} 4").await;
}

#[tokio::test]
async fn a_token_decides_the_cluster_too() {
    let (pki, dir) = (Pki::new(), tempfile::tempdir().unwrap());
    let config = secured(dir.path(), &pki, true);
    let mut running = start_in(dir, config, Timing::default()).await;
    let with = |token: &str| post("/", &format!("Authorization: Bearer {token}\r\n"), b"{\"items\":[{}]}");
    assert_code(&pki.ask(&running, None, &with(TOKEN)).await, 200);
    assert_eq!(running.batches.recv().await.unwrap().cluster, "dev");
    assert_code(&pki.ask(&running, None, &with("a-token-for-tests-0124")).await, 401);
    assert_code(&pki.ask(&running, None, &post("/", "", b"{\"items\":[{}]}")).await, 401);
    let prod = Pki::leaf(&pki.ca, "kube-apiserver-prod", &[], 2099).2;
    let both = pki.ask(&running, Some(prod), &with(TOKEN)).await;
    assert_code(&both, 403);
    assert!(both.contains("two clusters"), "{both}");
    assert!(running.batches.try_recv().is_err());
    assert!(running.metric("lapwing_webhook_requests_total{cluster=\"unknown\",code=\"401\"} 2"));
}

#[tokio::test]
async fn a_silent_handshake_is_closed() {
    let (pki, dir) = (Pki::new(), tempfile::tempdir().unwrap());
    let config = secured(dir.path(), &pki, true);
    let limits = Limits { handshake: Duration::from_millis(50), ..Limits::default() };
    let running = start_in(dir, config, Timing { limits, ..Timing::default() }).await;
    assert_eq!(exchange(&mut running.connect().await, b"\x16\x03\x01").await, "");
    running.until("lapwing_webhook_connections_closed_total{reason=\"handshake_slow\"} 1").await;
}

#[tokio::test]
async fn http2_only_when_asked_for() {
    let pki = Pki::new();
    for (http2, expected) in [(false, &b"http/1.1"[..]), (true, b"h2")] {
        let dir = tempfile::tempdir().unwrap();
        let config = Config { http2, ..secured(dir.path(), &pki, true) };
        let running = start_in(dir, config, unhurried()).await;
        let stream = pki.connect(&running, None, &[b"h2", b"http/1.1"]).await.unwrap();
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(expected));
        running.drain.cancel();
        timeout(PLENTY, running.task).await.expect("the drain ends").unwrap();
    }
}

#[tokio::test]
async fn http2_delivers_many_batches_over_one_connection() {
    let (pki, dir) = (Pki::new(), tempfile::tempdir().unwrap());
    let config = Config { http2: true, ..secured(dir.path(), &pki, true) };
    let mut running = start_in(dir, config, unhurried()).await;
    let client = reqwest::Client::builder().no_proxy().resolve("localhost", running.address);
    let mut tls = pki.client(None, rustls::ALL_VERSIONS);
    tls.alpn_protocols = vec![b"h2".to_vec()];
    let client = client.tls_backend_preconfigured(tls).build().unwrap();
    let url = format!("https://localhost:{}/audit/v1/dev", running.address.port());
    let large = format!("{{\"items\":[{}1]}}", "1,".repeat(1_000_000));
    for body in ["{\"items\":[{}]}", &large] {
        let request = client.post(&url).bearer_auth(TOKEN).body(body.to_owned());
        let answer = timeout(PLENTY, request.send()).await.unwrap().unwrap();
        assert_eq!((answer.status().as_u16(), answer.version()), (200, hyper::Version::HTTP_2));
        assert_eq!(running.batches.recv().await.unwrap().cluster, "dev");
    }
    assert!(running.metric("lapwing_webhook_connections 1"));
    running.drain.cancel();
    timeout(PLENTY, running.task).await.expect("the drain ends").unwrap();
}

#[tokio::test]
async fn no_session_outlives_its_certificate() {
    let (pki, dir) = (Pki::new(), tempfile::tempdir().unwrap());
    let config = secured(dir.path(), &pki, true);
    let running = start_in(dir, config, Timing::default()).await;
    for version in rustls::ALL_VERSIONS {
        let connector = tokio_rustls::TlsConnector::from(Arc::new(pki.client(None, &[version])));
        for _ in 0..2 {
            let name = ServerName::try_from("localhost").unwrap();
            let mut stream = connector.connect(name, running.connect().await).await.unwrap();
            assert_code(&exchange(&mut stream, &post("/", "", b"")).await, 401);
            let kind = stream.get_ref().1.handshake_kind();
            assert_eq!(kind, Some(rustls::HandshakeKind::Full), "{version:?}");
        }
    }
}

#[tokio::test]
async fn changed_files_are_taken_and_bad_ones_are_not() {
    let (pki, dir) = (Pki::new(), tempfile::tempdir().unwrap());
    let config = secured(dir.path(), &pki, true);
    let running = start_in(dir, config, Timing { poll: Duration::from_millis(20), ..unhurried() }).await;
    running.until("lapwing_webhook_reload_success 1").await;
    let shown = |stream: &tokio_rustls::client::TlsStream<TcpStream>| {
        stream.get_ref().1.peer_certificates().unwrap()[0].clone().into_owned()
    };
    let mut silent = pki.connect(&running, None, &[]).await.unwrap();
    let mut old = pki.connect(&running, None, &[]).await.unwrap();
    let good = post("/", &format!("Authorization: Bearer {TOKEN}\r\n"), b"{\"items\":[]}");
    assert_code(&exchange(&mut old, &good).await, 200);

    std::fs::write(running.dir.path().join("server.crt"), "no certificate").unwrap();
    running.until("lapwing_webhook_reload_success 0").await;
    assert!(!running.reload.reload());
    assert_eq!(shown(&pki.connect(&running, None, &[]).await.unwrap()), shown(&old), "the old one stays in use");

    pki.write_server(running.dir.path(), 2050);
    running.until("lapwing_webhook_reload_success 1").await;
    running.until("lapwing_webhook_certificate_expiry_timestamp_seconds 2524608000").await;
    assert_eq!(exchange(&mut old, b"").await, "", "connections of before are closed");
    assert_code(&exchange(&mut silent, &good).await, 200);
    assert_eq!(exchange(&mut silent, b"").await, "", "one request that was on its way, and no more");
    let fresh = pki.connect(&running, None, &[]).await.unwrap();
    assert_eq!(certificate::not_after(&shown(&fresh)), Some(2_524_608_000));
}

#[tokio::test]
async fn a_webhook_that_must_not_start_says_why() {
    let refuse = async |config: Config, dir: &Path| {
        let sink = |_| std::future::ready(Err::<(), _>("no"));
        let bound = Webhook::bind(config, dir, Timing::default(), split, sink, Arc::new(Metrics::new(["a"]))).await;
        format!("{:#}", anyhow::Error::from(bound.err().expect("must not start")))
    };
    let dir = tempfile::tempdir().unwrap();
    let open = Config { listen: "0.0.0.0:0".parse().unwrap(), ..plain() };
    assert!(refuse(open, dir.path()).await.contains("`insecureLoopback` needs a loopback address"));
    let pki = Pki::new();
    let config = secured(dir.path(), &pki, true);
    let (_, other, _) = Pki::leaf(&pki.ca, "x", &[], 2099);
    std::fs::write(dir.path().join("server.key"), other.serialize_pem()).unwrap();
    assert!(refuse(config.clone(), dir.path()).await.contains("does the key belong to the certificate?"));
    std::fs::remove_file(dir.path().join("server.key")).unwrap();
    assert!(refuse(config, dir.path()).await.contains("server.key"));
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let config = Config { listen: taken.local_addr().unwrap(), ..plain() };
    assert!(refuse(config, dir.path()).await.contains("is the port in use"));
}

/// A revocation list of `issuer` in PEM that names these serial numbers.
fn revocations(issuer: &CertifiedIssuer<'static, KeyPair>, serials: &[u64], ends: i32) -> String {
    let revoked = |serial: &u64| rcgen::RevokedCertParams {
        serial_number: (*serial).into(),
        revocation_time: rcgen::date_time_ymd(2021, 1, 1),
        reason_code: None,
        invalidity_date: None,
    };
    let list = rcgen::CertificateRevocationListParams {
        this_update: rcgen::date_time_ymd(2021, 1, 1),
        next_update: rcgen::date_time_ymd(ends, 1, 1),
        crl_number: 1.into(),
        issuing_distribution_point: None,
        revoked_certs: serials.iter().map(revoked).collect(),
        key_identifier_method: rcgen::KeyIdMethod::Sha256,
    };
    list.signed_by(issuer).unwrap().pem().unwrap()
}

#[tokio::test]
async fn a_revoked_certificate_is_refused_as_soon_as_the_list_says_so() {
    let (pki, dir) = (Pki::new(), tempfile::tempdir().unwrap());
    let mut config = secured(dir.path(), &pki, false);
    config.tls.as_mut().unwrap().client_crl_file = Some("clients.crl".into());
    let list = dir.path().join("clients.crl");
    std::fs::write(&list, revocations(&pki.ca, &[7], 2099)).unwrap();
    let mut running = start_in(dir, config, Timing::default()).await;
    let numbered = |serial: u64| {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "kube-apiserver-prod");
        params.serial_number = Some(serial.into());
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &pki.ca).unwrap();
        Some((certificate.der().clone(), PrivateKeyDer::try_from(key.serialize_der()).unwrap()))
    };
    let one = post("/", "", b"{\"items\":[{}]}");
    assert_eq!(pki.ask(&running, numbered(7), &one).await, "", "revoked");
    assert_code(&pki.ask(&running, numbered(8), &one).await, 200);
    std::fs::write(&list, revocations(&pki.ca, &[7, 8], 2099)).unwrap();
    assert!(running.reload.reload());
    assert_eq!(pki.ask(&running, numbered(8), &one).await, "", "revoked meanwhile");
    std::fs::write(&list, "no list").unwrap();
    assert!(!running.reload.reload(), "an unusable list is an error, and the old goes on");
    assert_eq!(pki.ask(&running, numbered(8), &one).await, "");
    std::fs::write(&list, revocations(&pki.ca, &[], 2022)).unwrap();
    assert!(running.reload.reload());
    assert_eq!(pki.ask(&running, numbered(9), &one).await, "", "an expired list proves nothing");
    assert!(running.batches.recv().await.is_some() && running.batches.try_recv().is_err());
}
