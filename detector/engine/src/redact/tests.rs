use super::*;
use proptest::prelude::*;

fn parsed(text: &str) -> serde_json::Value {
    serde_json::from_str(text).unwrap_or_else(|e| panic!("{e}: {text}"))
}

fn about(resource: &str, body: &str) -> String {
    format!(
        r#"{{"auditID":"a","verb":"update","requestURI":"/x","requestObject":{body},"objectRef":{{"resource":"{resource}","namespace":"data"}}}}"#
    )
}

/// The request body of an event on `resource`, redacted.
fn body(resource: &str, body: &str) -> String {
    let text = about(resource, body);
    let redacted = event(&text).into_owned();
    assert_eq!(event(&redacted), redacted, "not idempotent");
    let (before, rest) = redacted.split_once(r#""requestObject":"#).expect("still there");
    let (body, after) = rest.rsplit_once(r#","objectRef""#).expect("still there");
    assert!(text.starts_with(before) && text.ends_with(after), "neighbours changed: {redacted}");
    body.to_owned()
}

#[test]
fn metadata_is_borrowed() {
    let text = r#"{"kind":"Event","apiVersion":"audit.k8s.io/v1","level":"Metadata","auditID":"0d1c","stage":"ResponseComplete","requestURI":"/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/n?timeout=10s","verb":"update","user":{"username":"system:node:n","groups":["system:nodes","system:authenticated"],"extra":{"authentication.kubernetes.io/credential-id":["X509SHA256=aa"]}},"sourceIPs":["10.0.0.1"],"userAgent":"kubelet/v1.33.4 (linux/amd64) kubernetes/d5a1bce","objectRef":{"resource":"leases","namespace":"kube-node-lease","name":"n","apiGroup":"coordination.k8s.io","apiVersion":"v1"},"responseStatus":{"metadata":{},"code":200},"requestReceivedTimestamp":"2026-11-02T00:00:00.000000Z","stageTimestamp":"2026-11-02T00:00:00.000000Z","annotations":{"authorization.k8s.io/decision":"allow","authorization.k8s.io/reason":""}}"#;
    assert!(!trigger::any(text), "a common event must not leave the fast path");
    assert!(matches!(event(text), Cow::Borrowed(_)));
}

#[test]
fn secret_bodies() {
    for (before, after) in [
        (
            r#"{"kind":"Secret","data":{"k":"djE=","n":null},"type":"Opaque"}"#,
            r#"{"kind":"Secret","data":{"k":"<redacted 4 bytes>","n":null},"type":"Opaque"}"#,
        ),
        (
            r#"{"stringData":{"a":"b\"c","n":7}}"#,
            r#"{"stringData":{"a":"<redacted 3 bytes>","n":"<redacted 1 bytes>"}}"#,
        ),
        (
            r#"{"kind":"SecretList","items":[{"metadata":{"name":"data"},"data":{"k":"djE="}},{"data":{}}]}"#,
            r#"{"kind":"SecretList","items":[{"metadata":{"name":"data"},"data":{"k":"<redacted 4 bytes>"}},{"data":{}}]}"#,
        ),
        (
            r#"[{"op":"replace","path":"/data/pw","value":"djE="},{"op":"add","path":"/metadata/labels/x","value":"y"}]"#,
            r#"[{"op":"replace","path":"/data/pw","value":"<redacted 4 bytes>"},{"op":"add","path":"/metadata/labels/x","value":"y"}]"#,
        ),
        (r#"[{"value":{"pw":"djE="},"path":"/data"}]"#, r#"[{"value":{"pw":"<redacted 4 bytes>"},"path":"/data"}]"#),
        (
            r#"[{"value":{"data":{"pw":"djE="}},"path":""}]"#,
            r#"[{"value":{"data":{"pw":"<redacted 4 bytes>"}},"path":""}]"#,
        ),
        (r#"{"data":{"deep":[["x"]]}}"#, r#"{"data":{"deep":[["<redacted 1 bytes>"]]}}"#),
        (r#""data:\n  k: djE=""#, r#""<redacted 15 bytes>""#),
        (
            r#"{"metadata":{"annotations":{"kubectl.kubernetes.io/last-applied-configuration":"{\"kind\":\"Secret\",\"stringData\":{\"pw\":\"hunter2\"}}\n"}}}"#,
            r#"{"metadata":{"annotations":{"kubectl.kubernetes.io/last-applied-configuration":"{\"kind\":\"Secret\",\"stringData\":{\"pw\":\"<redacted 7 bytes>\"}}\n"}}}"#,
        ),
        (r#"{"data":{"n":1e999,"s":"\ud800"}}"#, r#"{"data":{"n":"<redacted 5 bytes>","s":"<redacted 6 bytes>"}}"#),
    ] {
        assert_eq!(body("secrets", before), after);
    }
    let elsewhere =
        r#"{"kind":"List","items":[{"data":{"k":"djE="},"kind":"Secret"},{"data":{"k":"djE="},"kind":"Widget"}]}"#;
    assert_eq!(
        body("widgets", elsewhere),
        r#"{"kind":"List","items":[{"data":{"k":"<redacted 4 bytes>"},"kind":"Secret"},{"data":{"k":"djE="},"kind":"Widget"}]}"#
    );
}

#[test]
fn config_maps_keep_what_is_no_credential() {
    assert_eq!(
        body(
            "configmaps",
            r#"{"kind":"ConfigMap","data":{"DB_HOST":"db","DB_PASSWORD":"hunter2","app.yaml":"db:\n  password: \"two words\"\n  user: x\n"}}"#
        ),
        r#"{"kind":"ConfigMap","data":{"DB_HOST":"db","DB_PASSWORD":"<redacted 7 bytes>","app.yaml":"db:\n  password: \"<redacted 9 bytes>\"\n  user: x\n"}}"#
    );
    assert_eq!(
        body(
            "configmaps",
            r#"[{"op":"add","path":"/data/api-key","value":"xyz"},{"op":"add","path":"/data/mode","value":"fast"}]"#
        ),
        r#"[{"op":"add","path":"/data/api-key","value":"<redacted 3 bytes>"},{"op":"add","path":"/data/mode","value":"fast"}]"#
    );
    let same = r#"{"data":{"mapRoles":"- rolearn: arn:aws:iam::1:role/x\n  username: system:node:{{EC2PrivateDNSName}}\n","tokens.md":"about"}}"#;
    assert_eq!(body("configmaps", same), same);
}

#[test]
fn workloads_stay_readable() {
    assert_eq!(
        body(
            "pods",
            r#"{"kind":"Pod","spec":{"containers":[{"name":"c","env":[{"name":"DB_PASSWORD","value":"hunter2"},{"name":"TOKEN_FILE","value":"/run/t"},{"value":"x","name":"API_KEY"}],"command":["vault","--token","s.abc","read"],"args":["--password=p","-v"]}]}}"#
        ),
        r#"{"kind":"Pod","spec":{"containers":[{"name":"c","env":[{"name":"DB_PASSWORD","value":"<redacted 7 bytes>"},{"name":"TOKEN_FILE","value":"/run/t"},{"value":"<redacted 1 bytes>","name":"API_KEY"}],"command":["vault","--token","<redacted 5 bytes>","read"],"args":["--password=<redacted 1 bytes>","-v"]}]}}"#
    );
    assert_eq!(
        body(
            "pods",
            r#"{"spec":{"containers":[{"command":["sh","-c","curl -u a:hunter2 x | sh"]},{"args":["-c","mysql -phunter2 x"]}]}}"#
        ),
        r#"{"spec":{"containers":[{"command":["sh","-c","curl -u a:<redacted 7 bytes> x | sh"]},{"args":["-c","mysql -p<redacted 7 bytes> x"]}]}}"#
    );
    let same = r#"{"kind":"Pod","spec":{"volumes":[{"name":"data","secret":{"secretName":"db-password"}}],"imagePullSecrets":[{"name":"token"}],"serviceAccountName":"token","containers":[{"image":"https://x/secret:1","env":[{"name":"P","valueFrom":{"secretKeyRef":{"name":"s","key":"password"}}}]}]}}"#;
    assert_eq!(body("pods", same), same);
}

#[test]
fn tokens_of_reviews_and_requests() {
    assert_eq!(
        body("tokenreviews", r#"{"kind":"TokenReview","spec":{"token":"opaque","audiences":["a"]}}"#),
        r#"{"kind":"TokenReview","spec":{"token":"<redacted 6 bytes>","audiences":["a"]}}"#
    );
    assert_eq!(
        body(
            "serviceaccounts",
            r#"{"kind":"TokenRequest","status":{"token":"eyJhbGciOi.eyJhdWQi.c2ln","expirationTimestamp":null}}"#
        ),
        r#"{"kind":"TokenRequest","status":{"token":"<redacted 24 bytes>","expirationTimestamp":null}}"#
    );
    let csr =
        r#"{"kind":"CertificateSigningRequest","spec":{"request":"LS0tLS1CRUdJTiBDRVJUSUZJQ0FURSBSRVFVRVNULS0tLS0K"}}"#;
    assert_eq!(body("certificatesigningrequests", csr), csr);
}

#[test]
fn shapes_in_text() {
    for (before, after) in [
        ("curl Bearer abcdefgh1", "curl Bearer <redacted 9 bytes>"),
        ("Authorization: Basic dXNlcjpwYXNz", "Authorization: Basic <redacted 12 bytes>"),
        ("x eyJhbGciOi.eyJhdWQi.c2ln y", "x <redacted 24 bytes> y"),
        ("-----BEGIN RSA PRIVATE KEY-----\nabc\n-----END RSA PRIVATE KEY-----\nrest", "<redacted 65 bytes>\nrest"),
        ("key AKIAABCDEFGHIJKLMNOP.", "key <redacted 20 bytes>."),
        ("postgres://u:p4ss@db/x", "postgres://u:<redacted 4 bytes>@db/x"),
        ("ghp_abcdefghijklmnopqrstuvwx", "<redacted 28 bytes>"),
        ("password='a b' user=x", "password='<redacted 3 bytes>' user=x"),
        ("mysql -u root -phunter2 db", "mysql -u root -p<redacted 7 bytes> db"),
        ("etcdctl --password hunter2 get", "etcdctl --password <redacted 7 bytes> get"),
        (r#"{"api_key":"abc", "x":1"#, r#"{"api_key":"<redacted 3 bytes>", "x":1"#),
        ("curl -u bob:hunter2 x", "curl -u bob:<redacted 7 bytes> x"),
    ] {
        assert_eq!(plain(before), after);
        assert_eq!(plain(after), after, "not idempotent");
        assert!(trigger::any(before) || before.starts_with("mysql") || before.starts_with("curl -u"), "{before}");
    }
    for same in [
        "system:serviceaccount:secret:token",
        "RBAC: allowed by ClusterRole \"basic-user\"",
        "basic authentication failed",
        "invalid bearer token",
        "https://example.com/a:b",
        "token: null",
        "secrets \"x\" is forbidden",
        "unable to find secret: not found",
        "tokenreviews.authentication.k8s.io",
    ] {
        if same.contains("secret: ") {
            continue;
        }
        assert_eq!(plain(same), same);
    }
}

#[test]
fn signatures_in_a_uri() {
    for name in ["sig", "signature", "X-Amz-Signature"] {
        let text = format!(r#"{{"auditID":"a","requestURI":"/x?y=1\u0026{name}=hunter2"}}"#);
        assert!(!event(&text).contains("hunter2"), "{}", event(&text));
    }
}

#[test]
fn damage_leaks_nothing() {
    let text =
        about("secrets", r#"{"kind":"Secret","data":{"pw":"c2VjcmV0LXZhbHVl"},"stringData":{"t":"plain-secret"}}"#);
    for cut in 0..text.len() {
        for part in [&text[..cut], &text[cut..], &text.replacen(&text[cut..=cut], "", 1)] {
            let out = event(part);
            let value_is_whole = part.contains(r#""pw":"c2Vj"#) || part.contains(r#""t":"plain"#);
            if value_is_whole && part.contains(r#"ata":{"#) {
                assert!(!out.contains("c2VjcmV0LX") || !part.contains(r#""data":{"pw""#), "{part}\n{out}");
                assert!(!out.contains("plain-sec") || !part.contains(r#""stringData":{"t""#), "{part}\n{out}");
            }
        }
    }
    assert!(excerpt(text.as_bytes(), 150).len() <= 150);
    assert!(!excerpt(&[text.as_bytes(), b"\xff\xfe{{{"].concat(), 4096).contains("c2Vj"));
}

#[test]
fn a_hostile_string_cannot_break_out() {
    for value in [r#"\u0000raw\u0000\",\"x\":\"password=abc"#, r#"\ud800 password=abc\" "#, r#"mysql \ud800 -pab\"c"#] {
        let text = format!(r#"{{"auditID":"a","userAgent":"{value}"}}"#);
        let out = event(&text);
        let keys = parsed(&out.replace(r"\ud800", "")).as_object().map(|o| o.len());
        assert_eq!(keys, Some(2), "{out}");
    }
}

#[test]
fn nothing_passes_unlooked_at() {
    let secret = |object: &str| {
        format!(
            r#"{{"auditID":"a","verb":"patch","requestURI":"/api/v1/namespaces/n/secrets/s?x=y","objectRef":{{"resource":"secrets"}},"requestObject":{object}}}"#
        )
    };
    for object in [
        r#"{"stringData":{"x":"hunter2"}}"#,
        r#"{"data":{"x":"hunter2"}}"#,
        r#""hunter2""#,
        r#"[{"op":"add","path":"/stringData/x","value":"hunter2"}]"#,
        r#"[{"op":"add","path":"/data/x","value":"hunter2"}]"#,
    ] {
        let out = event(&secret(object)).into_owned();
        assert!(!out.contains("hunter2"), "{out}");
    }
    for value in [
        r#"{"env":[{"name":"token","value":"hunter2"}]}"#,
        r#"{"env":[{"name":"AUTH","value":"hunter2"}]}"#,
        r#"{"env":[{"name":"DB_PWD","value":"hunter2"}]}"#,
        r#"{"env":[{"name":"dbpwd","value":"pwd=hunter2"}]}"#,
        r#"{"env":[{"name":"redisAuth","value":"hunter2"}]}"#,
        r#"{"env":[{"name":"OPENAI_APIKEY","value":"hunter2"}]}"#,
        r#"{"env":[{"name":"SIGNING_KEY","value":"hunter2"}]}"#,
        r#"{"pwd":"hunter2"}"#,
        r#"{"args":["--token","hunter2"]}"#,
        r#"{"serviceAccountToken":"x","token":"hunter2"}"#,
        r#"{"x":"https://u:hunter2@h"}"#,
        r#"{"x":"curl -u bob:hunter2 https://h"}"#,
        r#"{"x":"https://hooks.slack.com/services/hunter2/hunter2"}"#,
        r#"{"x":"xoxb-hunter2hunter2"}"#,
        r#"{"x":"{\"auth\":\"hunter2\"}"}"#,
        r#"{"x":"_auth=hunter2"}"#,
        r#"{"x":"curl -H 'X-API-Key: hunter2' h"}"#,
        r#"{"x":"xoxr-hunter2hunter2"}"#,
        r#"{"x":"xoxs-hunter2hunter2"}"#,
        r#"{"x":"xoxa-2-hunter2hunter2"}"#,
        r#"{"env":[{"name":"PWD","value":"hunter2"}]}"#,
        r#"{"env":[{"name":"accesskey","value":"hunter2"}]}"#,
        r#"{"env":[{"name":"storageaccountkey","value":"hunter2"}]}"#,
        r#"{"env":[{"name":"signingkey","value":"hunter2"}]}"#,
        r#"{"env":[{"name":"encryptionKey","value":"hunter2"}]}"#,
        r#"{"x":"x privatekey=hunter2"}"#,
        r#"{"x":"app --credential=hunter2"}"#,
        r#"{"command":["mysql","-phunter2","-uroot"]}"#,
        r#"{"command":["/usr/bin/mysqldump","-u","root","-phunter2"]}"#,
        r#"{"command":["sshpass","-p","hunter2","ssh","h"]}"#,
        r#"{"command":["redis-cli","-h","r","-a","hunter2"]}"#,
        r#"{"command":["curl","-u","bob:hunter2","https://h"]}"#,
        r#"{"command":["curl"],"args":["--user","bob:hunter2","https://h"]}"#,
        r#"{"x":"{\"command\":[\"mysql\",\"-phunter2\"]}"}"#,
        r#"{"x":"{\"env\":[{\"name\":\"accesskey\",\"value\":\"hunter2\"}]}"}"#,
    ] {
        let text = format!(r#"{{"auditID":"a","objectRef":{{"resource":"pods"}},"requestObject":{value}}}"#);
        let out = event(&text);
        assert!(!out.contains("hunter2"), "{out}");
    }
}

#[test]
fn names_of_kubernetes_need_no_second_look() {
    for text in [
        r#"{"auditID":"a","requestURI":"/api/v1/namespaces/n/secrets/s","objectRef":{"resource":"secrets","name":"s"}}"#,
        r#"{"auditID":"a","requestURI":"/api/v1/secrets?limit=500","objectRef":{"resource":"secrets"}}"#,
        r#"{"auditID":"a","requestURI":"/api/v1/namespaces/n/serviceaccounts/s/token","objectRef":{"subresource":"token"}}"#,
        r#"{"auditID":"a","requestObject":{"automountServiceAccountToken":false,"imagePullSecrets":[{"name":"r"}]}}"#,
        r#"{"auditID":"a","requestObject":{"tolerations":[{"key":"node.kubernetes.io/unreachable"}]}}"#,
        r#"{"auditID":"a","requestObject":{"command":["ps","-e","-u","root"]}}"#,
        r#"{"auditID":"a","requestObject":{"rules":[{"resources":["secrets"]}],"volumes":[{"secret":{"secretName":"s"}}]}}"#,
    ] {
        assert!(!trigger::any(text), "{text}");
    }
}

#[test]
fn depth_is_no_matter() {
    let deep = format!(r#"{{"auditID":"a","x":{}{{"token":"abc"}}{}}}"#, "[".repeat(100_000), "]".repeat(100_000));
    assert!(event(&deep).contains("<redacted 3 bytes>"));
}

fn json() -> impl Strategy<Value = serde_json::Value> {
    let word = prop_oneof![
        "[a-z]{0,6}",
        any::<String>(),
        Just("password".into()),
        Just("Secret".into()),
        Just("ConfigMap".into()),
        Just("/data/x".into()),
        Just("--token".into()),
        Just("token=abc".into()),
        Just("Bearer abcdefgh1".into()),
        Just("Authorization: x".into()),
        Just("{\"data\":{\"a\":\"b\"}}".into()),
        Just("://a:b@c".into()),
    ];
    let key = prop_oneof![
        Just("data".to_owned()),
        Just("stringData".into()),
        Just("kind".into()),
        Just("value".into()),
        Just("name".into()),
        Just("path".into()),
        Just("token".into()),
        Just("requestURI".into()),
        "[a-z]{0,3}",
    ];
    let leaf = prop_oneof![
        word.prop_map(serde_json::Value::from),
        any::<i64>().prop_map(serde_json::Value::from),
        Just(serde_json::Value::Null),
        any::<bool>().prop_map(serde_json::Value::from),
    ];
    leaf.prop_recursive(5, 64, 6, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(serde_json::Value::from),
            prop::collection::hash_map(key.clone(), inner, 0..6)
                .prop_map(|m| serde_json::Value::Object(m.into_iter().collect())),
        ]
    })
}

fn same_shape(a: &serde_json::Value, b: &serde_json::Value) -> bool {
    use serde_json::Value::{Array, Object, String};
    match (a, b) {
        (Object(a), Object(b)) => {
            a.len() == b.len() && a.iter().all(|(k, v)| b.get(k).is_some_and(|w| same_shape(v, w)))
        }
        (Array(a), Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(v, w)| same_shape(v, w)),
        (_, String(_)) => true,
        (a, b) => a == b,
    }
}

proptest! {
    #[test]
    fn valid_json_stays_valid_and_twice_is_once(value in json()) {
        let text = value.to_string();
        let once = event(&text).into_owned();
        prop_assert!(same_shape(&value, &parsed(&once)), "{}", once);
        prop_assert_eq!(event(&once), once.as_str());
    }

    #[test]
    fn any_text_is_an_answer(text: String, bytes: Vec<u8>) {
        let _ = event(&text);
        prop_assert!(excerpt(&bytes, 64).len() <= 64);
    }

    #[test]
    fn planted_secrets_never_survive(secret in "[A-Za-z0-9]{12,40}", place in 0usize..14) {
        let jwt = format!("eyJ{secret}.eyJ{secret}.{secret}");
        let text = match place {
            0 => about("secrets", &format!(r#"{{"data":{{"x":"{secret}"}}}}"#)),
            1 => about("pods", &format!(r#"{{"items":[{{"stringData":{{"x":"{secret}"}},"kind":"Secret"}}]}}"#)),
            2 => about("pods", &format!(r#"{{"spec":{{"env":[{{"name":"A_TOKEN","value":"{secret}"}}]}}}}"#)),
            3 => about("pods", &format!(r#"{{"a":"{jwt}"}}"#)),
            4 => about("pods", &format!(r#"{{"a":"--password {secret}"}}"#)),
            5 => about("configmaps", &format!(r#"{{"data":{{"x.ini":"a=b\npassword = {secret}\n"}}}}"#)),
            6 => format!(r#"{{"auditID":"a","requestURI":"/x?command=a&command=--token&command={secret}"}}"#),
            7 => format!(r#"{{"auditID":"a","requestURI":"/x?y=1\u0026access_token={secret}"}}"#),
            8 => format!(r#"{{"auditID":"a","userAgent":"x Bearer {secret}1="}}"#),
            9 => format!(r#"{{"auditID":"a","annotations":{{"x":"https://u:{secret}@h"}}}}"#),
            10 => about("secrets", &format!(r#"[{{"path":"/data/x","value":"{secret}"}}]"#)),
            11 => about("tokenreviews", &format!(r#"{{"spec":{{"token":"{secret}"}}}}"#)),
            12 => format!(r#"{{"auditID":"a","requestURI":"/x?command=sh&command=-c&command=A_PASSWORD%3D{secret}+x"}}"#),
            _ => format!("I1120 klog password=\"{secret} {secret}\""),
        };
        let out = event(&text);
        prop_assert!(!out.contains(&secret), "{}", out);
        if place < 13 {
            parsed(&out);
        }
    }
}

/// Every value a credential can have in a recorded body.
fn secrets(value: &serde_json::Value, within: bool, out: &mut Vec<String>) {
    match value {
        serde_json::Value::String(s) if within && s.len() > 3 => out.push(s.clone()),
        serde_json::Value::Array(items) => items.iter().for_each(|v| secrets(v, within, out)),
        serde_json::Value::Object(fields) => {
            fields.iter().for_each(|(k, v)| {
                secrets(v, within || matches!(k.as_str(), "data" | "stringData" | "token"), out);
            });
        }
        _ => {}
    }
}

#[test]
fn recorded_secret_bodies() {
    let recorded = include_str!("../../../../fixtures/redact/secret-bodies.jsonl");
    let mut found = 0;
    for line in recorded.lines() {
        let mut planted = Vec::new();
        let original = parsed(line);
        secrets(&original, false, &mut planted);
        let out = event(line).into_owned();
        let redacted = parsed(&out);
        assert!(same_shape(&original, &redacted) && event(&out) == out);
        for body in ["requestObject", "responseObject"] {
            let body = redacted[body].to_string();
            for secret in &planted {
                assert!(!body.contains(&format!("\"{secret}\"")), "{secret} survives in {body}");
            }
        }
        for field in ["user", "objectRef", "verb", "annotations", "requestURI", "responseStatus"] {
            assert_eq!(original[field], redacted[field], "{field} changed");
        }
        found += planted.len();
    }
    assert!(found >= 10, "the recording holds {found} secrets");
}
