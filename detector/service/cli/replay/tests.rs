//! Replay against a server with scripted answers. The server refuses what kube-apiserver would not send.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::io::Write;
use std::sync::{Arc, Mutex};

use clap::Parser;
use http_body_util::{BodyExt, Empty};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

use super::*;

#[derive(Clone, Copy)]
enum Answer {
    Status(u16),
    RetryAfter(u16, &'static str),
    Never,
}

#[derive(Default)]
struct Script {
    answers: VecDeque<Answer>,
    /// Items of every request, in order of arrival.
    requests: Vec<Vec<serde_json::Value>>,
    targets: Vec<String>,
}

type Shared = Arc<Mutex<Script>>;

async fn answer(request: Request<Incoming>, script: Shared) -> Result<Response<Empty<Bytes>>, Infallible> {
    let header = |name: &str| request.headers().get(name).map(|v| v.to_str().unwrap().to_owned()).unwrap_or_default();
    let target = format!("{} {}", request.method(), request.uri());
    for (name, expected) in [
        ("content-type", "application/json"),
        ("accept", "application/json, */*"),
        ("accept-encoding", "gzip"),
        ("user-agent", "Go-http-client/1.1"),
        ("transfer-encoding", ""),
        ("authorization", ""),
    ] {
        assert_eq!(header(name), expected, "{name}");
    }
    let length: usize = header("content-length").parse().unwrap();
    let body = request.into_body().collect().await.unwrap().to_bytes();
    assert_eq!(body.len(), length);
    let list: serde_json::Value = serde_json::from_slice(&body).unwrap();
    assert_eq!((&list["kind"], &list["apiVersion"]), (&"EventList".into(), &"audit.k8s.io/v1".into()));
    let next = {
        let mut script = script.lock().unwrap();
        script.requests.push(list["items"].as_array().unwrap().clone());
        script.targets.push(target);
        script.answers.pop_front().unwrap_or(Answer::Status(200))
    };
    let (status, after) = match next {
        Answer::Status(status) => (status, None),
        Answer::RetryAfter(status, after) => (status, Some(after)),
        Answer::Never => std::future::pending().await,
    };
    let mut response = Response::builder().status(status);
    if let Some(after) = after {
        response = response.header("retry-after", after);
    }
    Ok(response.body(Empty::new()).unwrap())
}

async fn serve(listener: TcpListener, script: Shared) {
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        let script = script.clone();
        tokio::spawn(async move {
            let service = service_fn(move |request| answer(request, script.clone()));
            // A client that gives up closes the connection: nothing to do about it here.
            let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

#[derive(Parser)]
struct Line {
    #[command(flatten)]
    args: Args,
}

fn args(line: &[&str]) -> Args {
    Line::parse_from(["replay", "--wait-scale", "0.0001"].iter().chain(line)).args
}

/// Replays `events` lines against `answers`; what was counted and what the server saw.
fn replayed(events: usize, answers: &[Answer], flags: &[&str]) -> (Tally, Script) {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    for i in 0..events {
        writeln!(file, r#"{{"kind":"Event","apiVersion":"audit.k8s.io/v1","auditID":"{i}"}}"#).unwrap();
    }
    replayed_file(file.path(), answers, flags)
}

fn replayed_file(file: &Path, answers: &[Answer], flags: &[&str]) -> (Tally, Script) {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let script = Shared::default();
    script.lock().unwrap().answers.extend(answers);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let tally = runtime.block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/?secret=1", listener.local_addr().unwrap());
        let file = file.to_str().unwrap();
        let line: Vec<&str> = [file, "--to", &url].iter().chain(flags).copied().collect();
        let args = args(&line);
        tokio::spawn(serve(listener, script.clone()));
        replay(&args, target(&args).unwrap(), false).await.unwrap()
    });
    drop(runtime);
    (tally, Arc::into_inner(script).unwrap().into_inner().unwrap())
}

fn ids(items: &[serde_json::Value]) -> Vec<&str> {
    items.iter().map(|item| item["auditID"].as_str().unwrap()).collect()
}

#[test]
fn lists_arrive_in_batches() {
    let (tally, seen) = replayed(5, &[], &["--batch", "2", "--cluster", "prod eu"]);
    assert_eq!(tally, Tally { events: 5, batches: 3, ..Tally::default() });
    let batches: Vec<_> = seen.requests.iter().map(|items| ids(items)).collect();
    assert_eq!(batches, [vec!["0", "1"], vec!["2", "3"], vec!["4"]]);
    assert_eq!(seen.requests[0][0].as_object().unwrap().len(), 1, "no kind and version in an item");
    assert_eq!(seen.targets[0], "POST /audit/v1/prod%20eu?timeout=30s");
}

#[test]
fn every_refusal_is_tried_again_with_the_same_body() {
    let (tally, seen) = replayed(3, &[Answer::Status(500), Answer::Status(400), Answer::Status(301)], &[]);
    assert_eq!(tally, Tally { events: 3, batches: 1, retries: 3, ..Tally::default() });
    assert_eq!(seen.requests.len(), 4);
    assert!(seen.requests.iter().all(|r| r == &seen.requests[0]));
    assert_eq!(seen.targets[0], "POST /?timeout=30s");
}

#[test]
fn after_five_tries_the_batch_is_lost_and_the_next_one_goes() {
    let (tally, seen) = replayed(4, &[Answer::Status(503); 5], &["--batch", "3"]);
    assert_eq!(tally, Tally { events: 1, batches: 1, retries: 4, lost: 3, ..Tally::default() });
    assert_eq!(seen.requests.len(), 6);
}

#[test]
fn retry_after_does_not_use_up_tries() {
    let (tally, seen) = replayed(1, &[Answer::RetryAfter(429, "1"); 10], &[]);
    assert_eq!(tally, Tally { events: 1, batches: 1, retries: 10, ..Tally::default() });
    assert_eq!(seen.requests.len(), 11);
    // The eleventh time is a failed try: 5 tries of 11 requests.
    let (tally, seen) = replayed(1, &[Answer::RetryAfter(503, "0"); 56], &[]);
    assert_eq!(tally, Tally { lost: 1, retries: 54, ..Tally::default() });
    assert_eq!(seen.requests.len(), 55);
}

#[test]
fn a_silent_server_is_asked_again() {
    let (tally, seen) = replayed(1, &[Answer::Never], &["--timeout", "50ms"]);
    assert_eq!(tally, Tally { events: 1, batches: 1, retries: 1, ..Tally::default() });
    assert_eq!(seen.targets[0], "POST /?timeout=1s");
}

#[test]
fn unreadable_lines_are_left_out_and_counted() {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(b"{\"auditID\":\"a\"}\nnonsense\n\n{\"auditID\":\"b\"").unwrap();
    let (tally, seen) = replayed_file(file.path(), &[], &[]);
    assert_eq!(tally, Tally { events: 1, batches: 1, unreadable: 2, ..Tally::default() });
    assert_eq!(ids(&seen.requests[0]), ["a"]);
    let url = Url::parse("http://h:1/?timeout=30s").unwrap();
    assert_eq!(report(&tally, &url), "sent 1 event in 1 batch to http://h:1/, 0 retries, 2 lines unreadable");
}

#[test]
fn credentials_never_go_over_plain_http() {
    let args = args(&["x", "--to", "http://h/", "--token-file", "t"]);
    assert!(target(&args).unwrap_err().to_string().contains("HTTPS only"));
    assert!(target(&self::args(&["x", "--to", "ftp://h/"])).is_err());
}

#[test]
fn the_address_is_what_client_go_makes_of_it() {
    for (to, cluster, expected) in [
        ("https://h:8443/hooks/audit/?secret=1#x", None, "https://h:8443/hooks/audit?timeout=30s"),
        ("https://h/hooks/", Some("prod"), "https://h/hooks?timeout=30s"),
        ("https://h", Some("prod"), "https://h/audit/v1/prod?timeout=30s"),
        ("https://h/", None, "https://h/?timeout=30s"),
    ] {
        let mut line = vec!["x", "--to", to];
        line.extend(cluster.iter().flat_map(|name| ["--cluster", name]));
        assert_eq!(target(&args(&line)).unwrap().as_str(), expected);
    }
}

#[test]
fn rates_read() {
    assert_eq!("500/s".parse(), Ok(Rate(500.0)));
    assert_eq!("0.5".parse(), Ok(Rate(0.5)));
    for wrong in ["0/s", "-1", "fast", "inf/s"] {
        assert!(wrong.parse::<Rate>().is_err(), "{wrong}");
    }
}

#[test]
fn exit_codes_tell_lost_from_unreachable() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let globals = Globals {
        config: PathBuf::new(),
        data_dir: None,
        color: super::super::Color::Never,
        quiet: true,
        log_level: None,
    };
    let mut file = tempfile::NamedTempFile::new().unwrap();
    let url = format!("http://{free}");
    let exit = |file: &Path| run(args(&[file.to_str().unwrap(), "--to", &url]), &globals).unwrap();
    assert_eq!(exit(file.path()), Exit::Good, "nothing to send");
    file.write_all(b"nonsense\n").unwrap();
    assert_eq!(exit(file.path()), Exit::Partial);
    file.write_all(b"{}\n").unwrap();
    assert_eq!(exit(file.path()), Exit::CouldNotRun, "nobody there");
}
