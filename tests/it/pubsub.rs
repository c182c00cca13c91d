//! Google Pub/Sub's push to the webhook: identity tokens signed with keys of our own, which a server of our own publishes.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use ring::rand::SystemRandom;
use ring::rsa::PublicKeyComponents;
use ring::signature::{RSA_PKCS1_SHA256, RsaKeyPair};
use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::pki_types::pem::PemObject;
use serde_json::{Value, json};

use crate::daemon::{Daemon, fixture, http, read, until};
use crate::outputs::http::{Receiver, Say};

const AUDIENCE: &str = "https://lapwing.example.org/audit/v1/gke";
const EMAIL: &str = "push@project.iam.gserviceaccount.com";

struct Key {
    pair: RsaKeyPair,
    id: &'static str,
}

impl Key {
    fn new(id: &'static str) -> Self {
        let args = ["genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"];
        let made = std::process::Command::new("openssl").args(args).output();
        let made = made.expect("openssl runs; it comes with ca-certificates");
        let private = PrivatePkcs8KeyDer::from_pem_slice(&made.stdout).expect("a key");
        Self { pair: RsaKeyPair::from_pkcs8(private.secret_pkcs8_der()).expect("a key"), id }
    }

    fn public(&self) -> Value {
        let public: PublicKeyComponents<Vec<u8>> = self.pair.public().into();
        let [n, e] = [public.n, public.e].map(|bytes| URL_SAFE_NO_PAD.encode(bytes));
        json!({ "kid": self.id, "kty": "RSA", "use": "sig", "alg": "RS256", "n": n, "e": e })
    }

    fn token(&self, email: &str, audience: &str, lasts: i64) -> String {
        let now = chrono::Utc::now().timestamp();
        let claims = json!({ "aud": audience, "email": email, "email_verified": true, "iat": now + lasts - 3600,
            "exp": now + lasts, "iss": "https://accounts.google.com", "sub": "1" });
        let part = |value: Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let signed = format!("{}.{}", part(json!({ "alg": "RS256", "kid": self.id, "typ": "JWT" })), part(claims));
        let mut signature = vec![0; self.pair.public().modulus_len()];
        self.pair.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), signed.as_bytes(), &mut signature).expect("signed");
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_push_proves_itself_by_googles_token_through_a_change_of_keys() {
    let (first, second, stranger) = (Key::new("one"), Key::new("two"), Key::new("one"));
    let keys = |keys: &[&Key]| json!({ "keys": keys.iter().map(|k| k.public()).collect::<Vec<_>>() }).to_string();
    let issuer = Receiver::saying(&[Say::Body(keys(&[&first])), Say::Body(keys(&[&first, &second]))]);
    let port = issuer.serve(None).await;
    let dir = tempfile::tempdir().expect("a directory");
    let mut daemon = Daemon::prepare(dir.path(), "");
    let sender = format!(
        "oidc: {{ keysUrl: \"http://127.0.0.1:{port}/certs\" }}\n    clusters:\n      - \
         {{ name: gke, identity: {{ email: {EMAIL}, audience: \"{AUDIENCE}\" }} }}\n"
    );
    let config = std::fs::read_to_string(daemon.config()).expect("read").replace("insecureLoopback: true\n", &sender);
    std::fs::write(daemon.config(), config).expect("written");
    let events = String::from_utf8(read(&fixture("attacks/exec-ws/events.jsonl.zst"))).expect("UTF-8");
    tokio::task::block_in_place(|| {
        daemon.run();
        let mut sent = 0;
        let mut push = |token: Option<&str>| {
            let event = events.lines().nth(sent).expect("an event");
            let body = json!({ "subscription": "projects/p/subscriptions/s",
                "message": { "data": STANDARD.encode(event), "messageId": "1", "attributes": {} } });
            let (body, bearer) = (body.to_string(), token.map(|t| format!("Authorization: Bearer {t}\r\n")));
            let request = format!(
                "POST /audit/v1/gke HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: application/json\r\n{}Content-Length: {}\r\n\r\n{body}",
                bearer.unwrap_or_default(),
                body.len()
            );
            let (status, said) = http(daemon.webhook, request.as_bytes()).expect("an answer");
            sent += usize::from(status == 200);
            (status, said)
        };
        let good = first.token(EMAIL, AUDIENCE, 3600);
        until("the keys", || (push(Some(&good)).0 == 200).then_some(()));
        assert_eq!(push(None).0, 401);
        for (token, status, why) in [
            (first.token("eve@project.iam.gserviceaccount.com", AUDIENCE, 3600), 403, "no cluster has the identity"),
            (
                first.token(EMAIL, "https://lapwing.example.org/audit/v1/other", 3600),
                403,
                "no cluster has the identity",
            ),
            (first.token(EMAIL, AUDIENCE, -120), 401, "expired"),
            (stranger.token(EMAIL, AUDIENCE, 3600), 401, "signature is wrong"),
            (second.token(EMAIL, AUDIENCE, 3600), 401, "not among the issuer's"),
            (good.replacen('.', ".x", 1), 401, "signature is wrong"),
        ] {
            let (said, body) = push(Some(&token));
            assert!(said == status && body.contains(why), "{said} {body}; expected {status} {why}");
        }
        // The new key's first token made the keys be fetched anew; Pub/Sub brings again what was refused.
        let rotated = second.token(EMAIL, AUDIENCE, 3600);
        until("the new key", || (push(Some(&rotated)).0 == 200).then_some(()));
        assert_eq!(push(Some(&good)).0, 200, "the old one is good as long as it is published");
        let series = "lapwing_events_received_total{cluster=\"gke\",source=\"webhook\"}";
        until("the events", || (daemon.metric(series) == 3.0).then_some(()));
        assert!(daemon.stop().success(), "{}", daemon.log());
    });
    assert_eq!(issuer.paths(), ["/certs", "/certs"]);
}
