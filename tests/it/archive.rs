//! The archive of events against moto's S3 server, through an outage and kills of the real program.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use crate::daemon::{Daemon, fixture, free_port, get, http, post, read, until};

/// A running S3 server with an empty bucket; ends with its test.
struct S3(Child, u16);

impl S3 {
    fn start(port: u16) -> Self {
        let python = std::env::var("LAPWING_TEST_PYTHON").unwrap_or_else(|_| "python3".to_owned());
        let mut command = Command::new(python);
        command.args(["-m", "moto.server", "-p", &port.to_string()]).stdout(Stdio::null()).stderr(Stdio::null());
        let server = Self(command.spawn().expect("moto; scripts/need build test installs it"), port);
        let create =
            format!("PUT /audit HTTP/1.1\r\nHost: localhost:{port}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        until("the S3 server", || http(port, create.as_bytes()).ok().filter(|(code, _)| *code == 200));
        server
    }

    fn names(&self) -> Vec<String> {
        let (_, list) = get(self.1, "/audit?list-type=2&prefix=kept/").expect("a list");
        list.split("<Key>").skip(1).filter_map(|rest| Some(rest.split_once("</Key>")?.0.to_owned())).collect()
    }

    /// Every line of every object, sorted.
    fn lines(&self) -> Vec<String> {
        let client = reqwest::Client::new();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let fetch = |name: &String| {
            let url = format!("http://127.0.0.1:{}/audit/{name}", self.1);
            // moto shows objects to whoever says who they are.
            let get = client.get(url).header(
                "authorization",
                "AWS4-HMAC-SHA256 Credential=k/20260101/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=x",
            );
            let bytes = runtime.block_on(async { get.send().await?.bytes().await }).expect("an object");
            // moto keeps what it got when the sender is killed while it sends; S3 would not. It is put again, whole.
            zstd::decode_all(&bytes[..]).map(|text| String::from_utf8(text).expect("UTF-8")).unwrap_or_default()
        };
        let mut lines: Vec<String> = self
            .names()
            .iter()
            .map(fetch)
            .flat_map(|text| text.lines().map(str::to_owned).collect::<Vec<_>>())
            .collect();
        lines.sort();
        lines
    }
}

impl Drop for S3 {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn every_event_is_kept_once_through_outages_and_kills() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let dir = tempfile::tempdir().expect("a directory");
    let key = |name: &str| -> PathBuf {
        let path = dir.path().join(name);
        std::fs::write(&path, "k3y\n").expect("written");
        path
    };
    let (port, mut daemon) = (free_port(), Daemon::prepare(dir.path(), ""));
    let archive = format!(
        "archive: {{ endpoint: \"http://127.0.0.1:{port}\", bucket: audit, prefix: kept/, accessKeyFile: {}, \
         secretKeyFile: {}, maxWait: 300ms, maxBytes: 64KiB }}\n",
        key("access").display(),
        key("secret").display()
    );
    let config = std::fs::read_to_string(daemon.config()).expect("read") + &archive;
    std::fs::write(daemon.config(), config).expect("written");
    daemon.run();

    let bytes = read(&fixture("attacks/exec-ws/events.jsonl.zst"));
    let events: Vec<String> = String::from_utf8(bytes).expect("UTF-8").lines().map(str::to_owned).collect();
    let chunks: Vec<&[String]> = events.chunks(events.len().div_ceil(6)).collect();
    let send = |daemon: &Daemon, events: &[String]| {
        let body =
            format!("{{\"kind\":\"EventList\",\"apiVersion\":\"audit.k8s.io/v1\",\"items\":[{}]}}", events.join(","));
        let answer = until("the webhook", || post(daemon.webhook, "/", body.as_bytes()).ok());
        assert_eq!(answer.0, 200, "{answer:?}");
    };
    let archived = |d: &Daemon| d.metric("lapwing_archive_events_total");

    // Nobody listens: nothing is lost, and it is counted.
    send(&daemon, chunks[0]);
    until("a failure", || (daemon.metric("lapwing_archive_failures_total") > 0.0).then_some(()));
    daemon.kill();
    let s3 = S3::start(port);
    daemon.run();
    until("what waited", || (archived(&daemon) > 0.0).then_some(()));
    for chunk in &chunks[1..] {
        send(&daemon, chunk);
        // In the middle of gathering, of putting, or just after: whatever comes.
        daemon.kill();
        daemon.run();
    }
    until("all of it", || (s3.lines().len() >= events.len()).then_some(()));
    assert!(daemon.stop().success(), "{}", daemon.log());

    let mut sent: Vec<String> = events.iter().map(|e| e.replace(['\n', '\r'], " ")).collect();
    sent.sort();
    let kept = s3.lines();
    assert_eq!(kept.len(), sent.len(), "each once");
    let id = |line: &String| serde_json::from_str::<serde_json::Value>(line).expect("JSON")["auditID"].to_string();
    let ids = |lines: &[String]| {
        let mut ids: Vec<String> = lines.iter().map(id).collect();
        ids.sort();
        ids
    };
    assert_eq!(ids(&kept), ids(&sent));
    assert!(s3.names().iter().all(|n| n.starts_with("kept/") && n.ends_with(".ndjson.zst")), "{:?}", s3.names());
}
