use ring::rand::SystemRandom;
use ring::rsa::PublicKeyComponents;
use ring::signature::{RSA_PKCS1_SHA256, RsaKeyPair};
use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::pki_types::pem::PemObject;
use serde_json::json;

use super::*;

const NOW: i64 = 1_790_000_000;

/// A fresh key and its entry in a JWKS.
fn key(kid: &str) -> (RsaKeyPair, Value) {
    let mut openssl = std::process::Command::new("openssl");
    let made = openssl.args(["genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"]).output();
    let made = made.expect("openssl runs; it comes with ca-certificates");
    let private = PrivatePkcs8KeyDer::from_pem_slice(&made.stdout).unwrap();
    let pair = RsaKeyPair::from_pkcs8(private.secret_pkcs8_der()).unwrap();
    let public: PublicKeyComponents<Vec<u8>> = pair.public().into();
    let number = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
    let entry = json!({ "kid": kid, "kty": "RSA", "use": "sig", "alg": "RS256", "n": number(&public.n), "e": number(&public.e) });
    (pair, entry)
}

fn token(pair: &RsaKeyPair, header: &Value, claims: &Value) -> String {
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let signed = format!("{}.{}", part(header), part(claims));
    let mut signature = vec![0; pair.public().modulus_len()];
    pair.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), signed.as_bytes(), &mut signature).unwrap();
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
}

fn header() -> Value {
    json!({ "alg": "RS256", "kid": "k1", "typ": "JWT" })
}

/// As Pub/Sub sends them.
fn claims(more: Value) -> Value {
    let mut claims = json!({ "aud": "https://lapwing.example.org/audit/v1/gke", "azp": "113774264463038321964",
        "email": "push@project.iam.gserviceaccount.com", "email_verified": true, "sub": "113774264463038321964",
        "exp": NOW + 3600, "iat": NOW, "iss": "https://accounts.google.com" });
    claims.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    claims
}

fn issuer(entries: &[Value]) -> Issuer {
    let issuer = Issuer::new(Config::default(), Path::new(""));
    let known = keys(json!({ "keys": entries }).to_string().as_bytes()).unwrap();
    *issuer.known.write().unwrap() = Arc::new((known, Some(Instant::now())));
    issuer
}

#[test]
fn only_what_the_issuer_signed_for_now_proves_anything() {
    let (pair, entry) = key("k1");
    let (stranger, other) = key("k1");
    let issuer = issuer(std::slice::from_ref(&entry));
    let of =
        |pair: &RsaKeyPair, header: Value, claims: Value| issuer.verify(token(pair, &header, &claims).as_bytes(), NOW);
    let proven = of(&pair, header(), claims(json!({}))).unwrap();
    assert_eq!(proven.email, "push@project.iam.gserviceaccount.com");
    assert_eq!(proven.audiences, ["https://lapwing.example.org/audit/v1/gke"]);
    for (claims_more, wrong) in [
        (json!({ "iss": "https://accounts.example.com" }), Unproven::Issuer),
        (json!({ "exp": NOW - SKEW }), Unproven::Time),
        (json!({ "exp": null }), Unproven::Time),
        (json!({ "iat": NOW + SKEW + 1 }), Unproven::Time),
        (json!({ "nbf": NOW + SKEW + 1 }), Unproven::Time),
        (json!({ "email_verified": false }), Unproven::Email),
        (json!({ "email": null }), Unproven::Email),
    ] {
        assert_eq!(of(&pair, header(), claims(claims_more.clone())), Err(wrong), "{claims_more}");
    }
    assert!(of(&pair, header(), claims(json!({ "exp": NOW - SKEW + 1 }))).is_ok(), "clocks differ a little");
    for (changed, wrong) in [
        (json!({ "alg": "none", "kid": "k1" }), Unproven::Shape),
        // With the public key as its secret, that would verify where the token chooses.
        (json!({ "alg": "HS256", "kid": "k1" }), Unproven::Shape),
        (json!({ "alg": "RS256" }), Unproven::Shape),
        (json!({ "alg": "RS256", "kid": "k1", "crit": ["x"] }), Unproven::Shape),
        (json!({ "alg": "RS256", "kid": "k2" }), Unproven::Key),
    ] {
        assert_eq!(of(&pair, changed.clone(), claims(json!({}))), Err(wrong), "{changed}");
    }
    assert_eq!(of(&stranger, header(), claims(json!({}))), Err(Unproven::Signature));
    let good = token(&pair, &header(), &claims(json!({})));
    let (head, rest) = good.split_once('.').unwrap();
    let (_, signature) = rest.split_once('.').unwrap();
    let forged = URL_SAFE_NO_PAD.encode(claims(json!({ "email": "eve@example.org" })).to_string());
    for (text, wrong) in [
        (format!("{head}.{forged}.{signature}"), Unproven::Signature),
        (format!("{head}.{forged}."), Unproven::Signature),
        ("a.b.c".to_owned(), Unproven::Shape),
        ("..".to_owned(), Unproven::Shape),
        (String::new(), Unproven::Shape),
    ] {
        assert_eq!(issuer.verify(text.as_bytes(), NOW), Err(wrong), "{text}");
    }
    // The same id, another key: rotated under its name.
    let rotated = keys(json!({ "keys": [other] }).to_string().as_bytes()).unwrap();
    *issuer.known.write().unwrap() = Arc::new((rotated, Some(Instant::now())));
    assert_eq!(issuer.verify(good.as_bytes(), NOW), Err(Unproven::Signature));
}

#[test]
fn a_set_of_keys_is_read_as_far_as_it_is_of_use() {
    let read = |value: Value| keys(value.to_string().as_bytes()).map(|k| k.into_keys().collect::<Vec<_>>());
    let rsa = |kid: &str, usage: &str| json!({ "kid": kid, "kty": "RSA", "use": usage, "n": "AQAB", "e": "AQAB" });
    let elliptic = json!({ "kid": "e", "kty": "EC", "crv": "P-256" });
    assert_eq!(read(json!({ "keys": [rsa("a", "sig"), rsa("b", "enc"), elliptic] })), Ok(vec!["a".to_owned()]));
    for bad in [
        json!({ "keys": [elliptic] }),
        json!({ "keys": 1 }),
        json!([]),
        json!({ "keys": [{ "kty": "RSA", "n": "?" }] }),
    ] {
        assert!(read(bad).is_err());
    }
}

#[tokio::test(start_paused = true)]
async fn keys_are_kept_fresh_and_not_trusted_for_ever() {
    let dir = tempfile::tempdir().unwrap();
    let ((first, one), (second, two)) = (key("k1"), key("k2"));
    let file = dir.path().join("keys.json");
    let write = |entries: &[&Value]| std::fs::write(&file, json!({ "keys": entries }).to_string()).unwrap();
    let config = Config { keys_file: Some("keys.json".into()), ..Config::default() };
    let issuer = Arc::new(Issuer::new(config, dir.path()));
    let by = |pair: &RsaKeyPair, kid: &str| {
        let mut header = header();
        header["kid"] = kid.into();
        issuer.verify(token(pair, &header, &claims(json!({}))).as_bytes(), NOW)
    };
    assert_eq!(by(&first, "k1"), Err(Unproven::NoKeys), "none were had yet");
    write(&[&one]);
    let keeping = tokio::spawn({
        let issuer = Arc::clone(&issuer);
        async move { issuer.keep_fresh().await }
    });
    let settle = async || {
        // The file is read by a thread of its own, whatever the paused clock says.
        for _ in 0..50 {
            tokio::task::yield_now().await;
            std::thread::park_timeout(Duration::from_millis(2));
        }
    };
    settle().await;
    assert!(by(&first, "k1").is_ok());
    assert_eq!(by(&second, "k2"), Err(Unproven::Key));
    write(&[&one, &two]);
    tokio::time::sleep(READ_EVERY * 2).await;
    settle().await;
    assert!(by(&first, "k1").is_ok() && by(&second, "k2").is_ok(), "both while one follows the other");
    std::fs::remove_file(&file).unwrap();
    tokio::time::sleep(TRUSTED / 2).await;
    assert!(by(&second, "k2").is_ok(), "what cannot be read now is no reason to refuse");
    tokio::time::sleep(TRUSTED).await;
    assert_eq!(by(&second, "k2"), Err(Unproven::NoKeys), "but a day later it is");
    keeping.abort();
}
