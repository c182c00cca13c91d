//! Bad configurations and what is said about them, as transcripts: every `fixtures/config/*.yaml` has
//! the expected messages in `*.expected` beside it. Record again with `LAPWING_RECORD=1`.

use std::path::{Path, PathBuf};

use super::*;

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/config")
}

fn env(name: &str) -> Option<String> {
    match name {
        "LAPWING_TEST_HOST" => Some("siem.example.org".into()),
        "LAPWING_TEST_SECRET" => Some("hunter2".into()),
        "LAPWING_TEST_NUMBER" => Some("7".into()),
        _ => None,
    }
}

/// Reads a text as if it stood in the directory of the fixtures; messages name paths relative to it.
fn outcome(text: &str, name: &str) -> String {
    let dir = fixtures();
    let said = match Config::read(text, &dir.join(name), &env) {
        Ok(loaded) => {
            let notes = Problems::new(&loaded.file, loaded.notes.clone());
            format!("good\n{notes}")
        }
        Err(problems) => problems.to_string(),
    };
    said.replace(&format!("{}/", dir.display()), "").replace(&*dir.to_string_lossy(), "<here>").trim_end().to_owned()
        + "\n"
}

#[test]
fn transcripts() {
    let mut seen = 0;
    for entry in std::fs::read_dir(fixtures()).unwrap() {
        let file = entry.unwrap().path();
        if file.extension().is_none_or(|e| e != "yaml") {
            continue;
        }
        seen += 1;
        let name = file.file_name().unwrap().to_string_lossy().into_owned();
        let said = outcome(&std::fs::read_to_string(&file).unwrap(), &name);
        let transcript = file.with_extension("expected");
        if std::env::var_os("LAPWING_RECORD").is_some() {
            std::fs::write(&transcript, &said).unwrap();
        }
        let expected = std::fs::read_to_string(&transcript).unwrap_or_default();
        assert_eq!(said, expected, "{name}: record again with LAPWING_RECORD=1 when this is better");
    }
    assert!(seen >= 8, "only {seen} fixtures found");
}

#[test]
fn a_good_file_becomes_the_typed_config() {
    let text = "dataDir: data\nretention: { maxAge: 2w }\nsources:\n  files: [{ path: /var/log/a.log, cluster: no }]\n";
    let loaded = Config::read(text, Path::new("/etc/lapwing/lapwing.yaml"), &env).unwrap();
    assert_eq!(loaded.config.data_dir, Path::new("/etc/lapwing/data"));
    assert_eq!(loaded.config.retention.max_age, HumanDuration::from_secs(14 * 86_400));
    assert_eq!(loaded.config.retention.max_size, ByteSize::gib(20));
    assert_eq!(loaded.config.sources.files[0].cluster, "no", "Norway is a cluster");
}

#[test]
fn an_empty_file_lacks_only_a_source() {
    assert_eq!(
        outcome("", "x.yaml"),
        "x.yaml:1:1: `sources`: no source: nothing would be read; add `webhook`, `kafka` or `files`\n"
    );
}

#[test]
fn secrets_are_not_shown() {
    let text = "sources:\n  kafka:\n    - name: k\n      brokers: [\"${LAPWING_TEST_HOST}:9092\"]\n      topics: [t]\n      \
                cluster: c\n      properties: { sasl.password: plain, sasl.username: $ConnectionString, x: '${LAPWING_TEST_SECRET}' }\n";
    let shown = Config::read(text, Path::new("x.yaml"), &env).unwrap().show();
    for secret in ["plain", "hunter2", "siem.example.org"] {
        assert!(!shown.contains(secret), "{secret} in\n{shown}");
    }
    for kept in ["${LAPWING_TEST_HOST}:9092", "(hidden)", "$ConnectionString", "maxAge: 30d"] {
        assert!(shown.contains(kept), "{kept} not in\n{shown}");
    }
}

#[test]
fn what_is_shown_can_be_read_again() {
    let text = "sources:\n  files: [{ path: /var/log/a.log, cluster: prod }]\noutputs: [{ name: a, type: stdout }]\n";
    let first = Config::read(text, Path::new("/x.yaml"), &env).unwrap().show();
    let second = Config::read(&first, Path::new("/x.yaml"), &env).unwrap().show();
    assert_eq!(first, second);
}

#[test]
fn certificates_must_fit_their_keys() {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
    let pair = || rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let (a, b) = (pair(), pair());
    write("a.crt", &a.cert.pem());
    write("a.key", &a.signing_key.serialize_pem());
    write("b.key", &b.signing_key.serialize_pem());
    write("c.token", "t");
    let check = |cert: &str, key: &str| {
        let text = format!(
            "sources:\n  webhook:\n    tls: {{ cert: {cert}, key: {key} }}\n    clusters: [{{ name: c, tokenFile: c.token }}]\n"
        );
        let said = match Config::read(&text, &dir.path().join("x.yaml"), &env) {
            Ok(_) => "good".to_owned(),
            Err(problems) => problems.to_string(),
        };
        said.replace(&format!("{}/", dir.path().display()), "")
    };
    assert_eq!(check("a.crt", "a.key"), "good");
    assert_eq!(
        check("a.crt", "b.key"),
        "x.yaml:3:30: `sources.webhook.tls.key`: `b.key` is not the private key of the certificate in `a.crt`"
    );
    assert_eq!(
        check("a.key", "a.key"),
        "x.yaml:3:18: `sources.webhook.tls.cert`: `a.key` holds no certificate in PEM form"
    );
    assert_eq!(
        check("a.crt", "c.token"),
        "x.yaml:3:30: `sources.webhook.tls.key`: `c.token` holds no private key in PEM form"
    );
}

#[test]
fn a_file_that_cannot_be_read_says_the_way_out() {
    let error = Config::load(Path::new("/nonexistent/lapwing.yaml"), None).unwrap_err().to_string();
    assert!(error.contains("`/nonexistent/lapwing.yaml`") && error.contains("lapwing config init"), "{error}");
}
