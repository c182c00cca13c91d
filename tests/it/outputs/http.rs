//! Webhook and Slack against an HTTP receiver that answers from a script, alone and behind a worker.

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use base64::Engine as _;
use bytes::Bytes;
use hmac::{Hmac, Mac};
use http_body_util::{BodyExt, Either, Full};
use hyper::body::{Body, Frame};
use hyper::header::{ETAG, HeaderMap, LOCATION, RETRY_AFTER};
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use lapwing::output::dead::{DeadLetter, DeadLetters};
use lapwing::output::worker::AlertSource;
use lapwing::output::{Config, Failure, Output};
use lapwing_engine::alert::Alert;
use rustls::pki_types::pem::PemObject;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use super::working::{Memory, Working};
use super::{Certificates, alert, config, evil, lines, until};

/// One answer of the script. When it is used up, everything is `Ok`.
#[derive(Clone, Debug)]
pub enum Say {
    Ok,
    Status(u16),
    /// 200 with this body.
    Body(String),
    /// This status with this body.
    With(u16, String),
    Wait(u64),
    Redirect,
    /// Never answers.
    Hang,
    /// Never stops answering.
    Flood,
    /// Closes the connection without an answer.
    Close,
    /// 200, and the connection breaks in the middle of the body.
    Cut,
    /// 200, and nothing behind the headers.
    Stall,
}

/// A body that does not end well.
enum Odd {
    Endless,
    /// Breaks, once its beginning is on its way.
    Broken(Option<Pin<Box<tokio::time::Sleep>>>),
    Silent,
}

impl Body for Odd {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        match &mut *self {
            Self::Endless => Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(&[b'x'; 4096]))))),
            Self::Broken(Some(pause)) => {
                pause.as_mut().poll(cx).map(|()| Some(Err(io::ErrorKind::ConnectionReset.into())))
            }
            Self::Broken(begin) => {
                *begin = Some(Box::pin(tokio::time::sleep(Duration::from_millis(50))));
                Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(b"ok")))))
            }
            Self::Silent => Poll::Pending,
        }
    }
}

/// What a receiver says to a path and a body when its script says nothing: status and body.
pub type Good = fn(&str, &[u8]) -> (u16, String);

pub struct Got {
    at: Instant,
    headers: HeaderMap,
    path: String,
    body: Bytes,
    /// All of a good answer was on its way.
    taken: bool,
    /// The status said yes, whatever followed.
    yes: bool,
}

impl Got {
    /// The body, decompressed.
    pub fn plain(&self) -> Vec<u8> {
        if self.headers.get("content-encoding").is_none() {
            return self.body.to_vec();
        }
        let mut plain = Vec::new();
        std::io::Read::read_to_end(&mut flate2::read::GzDecoder::new(&self.body[..]), &mut plain).unwrap();
        plain
    }
}

/// An HTTP receiver that answers from a script.
#[derive(Clone, Default)]
pub struct Receiver {
    script: Arc<Mutex<VecDeque<Say>>>,
    got: Arc<Mutex<Vec<Got>>>,
    good: Option<Good>,
    /// What a path contains to which the script does not apply.
    aside: Option<&'static str>,
}

impl Receiver {
    pub fn saying(script: &[Say]) -> Self {
        Self { script: Arc::new(Mutex::new(script.iter().cloned().collect())), ..Self::default() }
    }

    /// Always this status.
    pub fn refusing(status: u16) -> Self {
        Self::saying(&vec![Say::Status(status); 1000])
    }

    /// With `good` as what it says when all is well, and `aside` for paths the script does not apply to.
    pub fn well(good: Good, aside: Option<&'static str>) -> Self {
        Self { good: Some(good), aside, ..Self::default() }
    }

    /// What it says next.
    pub fn say(&self, say: Say) {
        self.script.lock().unwrap().push_back(say);
    }

    /// Whether the script is used up.
    pub fn said_all(&self) -> bool {
        self.script.lock().unwrap().is_empty()
    }

    /// The bodies of the requests it took and said so, decompressed.
    pub fn taken_bodies(&self) -> Vec<Vec<u8>> {
        self.got.lock().unwrap().iter().filter(|g| g.taken).map(Got::plain).collect()
    }

    /// The bodies it got, in order, decompressed.
    pub fn bodies(&self) -> Vec<Vec<u8>> {
        self.got.lock().unwrap().iter().map(Got::plain).collect()
    }

    /// Paths and bodies of the requests whose status said yes.
    pub fn put(&self) -> Vec<(String, Vec<u8>)> {
        let got = self.got.lock().unwrap();
        got.iter().filter(|g| g.yes).map(|g| (g.path.clone(), g.plain())).collect()
    }

    /// Paths asked for, in order.
    pub fn paths(&self) -> Vec<String> {
        self.got.lock().unwrap().iter().map(|got| got.path.clone()).collect()
    }

    /// A header of each request.
    pub fn header(&self, name: &str) -> Vec<String> {
        let of = |got: &Got| got.headers.get(name).map_or("", |v| v.to_str().unwrap()).to_owned();
        self.got.lock().unwrap().iter().map(of).collect()
    }

    /// Serves on loopback until the runtime of the test ends.
    pub async fn serve(&self, tls: Option<Arc<rustls::ServerConfig>>) -> u16 {
        self.serve_at(0, tls).await.0
    }

    /// As [`Self::serve`], at this port, until the task is aborted.
    pub async fn serve_at(&self, port: u16, tls: Option<Arc<rustls::ServerConfig>>) -> (u16, tokio::task::AbortHandle) {
        let listener = TcpListener::bind(("127.0.0.1", port)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let receiver = self.clone();
        let task = tokio::spawn(async move {
            // Connections end with the listener.
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let (receiver, tls) = (receiver.clone(), tls.clone());
                connections.spawn(async move {
                    let service = hyper::service::service_fn(move |r| receiver.clone().answer(r));
                    let server = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
                    // A client that gives up is part of the tests.
                    let _ = match tls {
                        None => server.serve_connection(TokioIo::new(stream), service).await,
                        Some(tls) => match tokio_rustls::TlsAcceptor::from(tls).accept(stream).await {
                            Ok(stream) => server.serve_connection(TokioIo::new(stream), service).await,
                            Err(_) => Ok(()),
                        },
                    };
                });
            }
        });
        (port, task.abort_handle())
    }

    async fn answer(self, request: Request<hyper::body::Incoming>) -> io::Result<Response<Either<Full<Bytes>, Odd>>> {
        let (parts, body) = request.into_parts();
        let body = body.collect().await.map_err(io::Error::other)?.to_bytes();
        let path = parts.uri.path_and_query().map(ToString::to_string).unwrap_or_default();
        let aside = self.aside.is_some_and(|aside| path.contains(aside));
        let scripted = if aside { None } else { self.script.lock().unwrap().pop_front() };
        let say = scripted.unwrap_or(Say::Ok);
        let taken = matches!(say, Say::Ok | Say::Flood) && !aside;
        let yes = taken || matches!(say, Say::Cut | Say::Stall);
        let got = Got { at: Instant::now(), headers: parts.headers, path, body, taken, yes };
        let good = self.good.map(|good| good(&got.path, &got.plain()));
        self.got.lock().unwrap().push(got);
        // Object stores name what they have.
        let answer = Response::builder().header(ETAG, "\"x\"");
        let odd = |body| Ok(Response::builder().header(ETAG, "\"x\"").body(Either::Right(body)).unwrap());
        let answer = match say {
            Say::Ok => {
                let (status, body) = good.unwrap_or((200, "ok".to_owned()));
                answer.status(status).body(body.into())
            }
            Say::Body(text) => answer.body(text.into()),
            Say::With(status, text) => answer.status(status).body(text.into()),
            Say::Status(status) => answer.status(status).body("no, because".into()),
            Say::Wait(seconds) => answer.status(429).header(RETRY_AFTER, seconds).body("slow down".into()),
            Say::Redirect => answer.status(307).header(LOCATION, "/elsewhere").body(Full::default()),
            Say::Flood => return odd(Odd::Endless),
            Say::Close => return Err(io::ErrorKind::ConnectionAborted.into()),
            Say::Cut => return odd(Odd::Broken(None)),
            Say::Stall => return odd(Odd::Silent),
            Say::Hang => std::future::pending().await,
        };
        Ok(answer.unwrap().map(Either::Left))
    }

    /// Ids of the alerts it took, in order.
    fn taken(&self) -> Vec<String> {
        let got = self.got.lock().unwrap();
        let id = |g: &Got| serde_json::from_slice::<Alert>(&g.body).unwrap().id;
        got.iter().filter(|g| g.taken).map(id).collect()
    }
}

fn signature(key: &[u8], got: &Got) -> String {
    let header = |name: &str| got.headers[name].to_str().unwrap().to_owned();
    let mut mac = Hmac::<sha2::Sha256>::new_from_slice(key).unwrap();
    mac.update(format!("{}.{}.", header("webhook-id"), header("webhook-timestamp")).as_bytes());
    mac.update(&got.body);
    format!("v1,{}", base64::engine::general_purpose::STANDARD.encode(mac.finalize().into_bytes()))
}

fn webhook(port: u16, more: Value) -> Config {
    let mut settings = json!({ "type": "webhook", "name": "hook", "url": format!("http://127.0.0.1:{port}/in"),
        "timeoutSeconds": 1, "retry": { "maxWaitSeconds": 1 } });
    settings.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    config(settings)
}

#[tokio::test]
async fn a_request_is_signed_and_carries_the_alert() {
    let dir = tempfile::tempdir().unwrap();
    let (secret, token) = (dir.path().join("secret"), dir.path().join("token"));
    std::fs::write(&secret, "whsec_c2lnbiBtZQ==\n").unwrap();
    std::fs::write(&token, "t0ken\n").unwrap();
    let receiver = Receiver::default();
    let port = receiver.serve(None).await;
    let mut output = Output::new(&webhook(port, json!({ "secretFile": secret, "tokenFile": token }))).unwrap();
    assert_eq!(output.deliver(&[&evil("1")]).await.unwrap().0, "200 OK: ok");
    let got = receiver.got.lock().unwrap().pop().unwrap();
    assert_eq!(got.headers["webhook-signature"], signature(b"sign me", &got).as_str());
    assert_eq!(
        (&got.headers["webhook-id"], &got.headers["authorization"]),
        (&"1.new".parse().unwrap(), &"Bearer t0ken".parse().unwrap())
    );
    let age =
        chrono::Utc::now().timestamp() - got.headers["webhook-timestamp"].to_str().unwrap().parse::<i64>().unwrap();
    assert!((0..60).contains(&age), "{age}");
    assert_eq!(serde_json::from_slice::<Alert>(&got.body).unwrap(), evil("1"));

    std::fs::write(&secret, "changed").unwrap();
    output.deliver(&[&alert("2")]).await.unwrap();
    let got = receiver.got.lock().unwrap().pop().unwrap();
    assert_eq!(got.headers["webhook-signature"], signature(b"changed", &got).as_str(), "read again on each use");
}

#[tokio::test]
async fn through_every_trouble_each_alert_arrives_once_and_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let trouble =
        [Say::Ok, Say::Wait(1), Say::Ok, Say::Status(500), Say::Status(503), Say::Ok, Say::Hang, Say::Status(401)];
    let receiver = Receiver::saying(&trouble);
    let config = webhook(receiver.serve(None).await, json!({}));
    let memory = Memory::of(6);
    let working = Working::start(&config, &memory, dir.path());
    memory.finished().await;
    working.end().await;
    assert_eq!(receiver.taken(), ["1", "2", "3", "4", "5", "6"]);
    assert_eq!(lines(DeadLetters::of(dir.path(), "hook").path()).len(), 0);
    let got = receiver.got.lock().unwrap();
    assert!(got[2].at - got[1].at >= Duration::from_secs(1), "waited as asked");
    assert_eq!(got[1].headers["webhook-id"], got[2].headers["webhook-id"], "a repetition has the same id");
}

#[tokio::test]
async fn what_is_refused_for_good_becomes_a_dead_letter() {
    let dir = tempfile::tempdir().unwrap();
    let receiver = Receiver::saying(&[Say::Status(404), Say::Redirect, Say::Status(413)]);
    let config = webhook(receiver.serve(None).await, json!({ "retry": { "maxWaitSeconds": 1, "refusedTries": 3 } }));
    let memory = Memory::of(2);
    let working = Working::start(&config, &memory, dir.path());
    memory.finished().await;
    working.end().await;
    assert_eq!(receiver.taken(), ["2"]);
    let letters = lines(DeadLetters::of(dir.path(), "hook").path());
    let letter: DeadLetter = serde_json::from_str(&letters[0]).unwrap();
    assert_eq!((letters.len(), letter.tries, letter.alert.unwrap().id.as_str()), (1, 3, "1"));
    assert_eq!(letter.reason, "413 Payload Too Large: no, because");
    assert_eq!(receiver.got.lock().unwrap().len(), 4, "a redirect is not followed");
}

#[tokio::test]
async fn quiet_is_told_once_even_by_the_next_process() {
    let dir = tempfile::tempdir().unwrap();
    let receiver = Receiver::default();
    let config = webhook(receiver.serve(None).await, json!({ "resolveAfter": "2s" }));
    let memory = Memory::of(1);
    let working = Working::start(&config, &memory, dir.path());
    memory.finished().await;
    working.end().await;
    assert_eq!(receiver.taken(), ["1"]);
    let working = Working::start(&config, &memory, dir.path());
    until(|| "the quiet to be told".to_owned(), || (receiver.taken().len() > 1).then_some(())).await;
    tokio::time::sleep(Duration::from_millis(2500)).await;
    working.end().await;
    let told: Vec<Alert> = receiver.bodies().iter().map(|b| serde_json::from_slice(b).unwrap()).collect();
    let statuses: Vec<_> = told.iter().map(|a| (a.id.as_str(), a.status.as_str())).collect();
    assert_eq!(statuses, [("1", "new"), ("1", "resolved")]);
    assert_eq!(receiver.header("webhook-id"), ["1.new", "1.resolved"]);
}

#[tokio::test]
async fn a_dead_output_does_not_slow_another() {
    let dir = tempfile::tempdir().unwrap();
    let (dead, well) = (Receiver::saying(&vec![Say::Hang; 100]), Receiver::default());
    let dead_config = webhook(dead.serve(None).await, json!({ "name": "dead", "timeoutSeconds": 30 }));
    let well_config = webhook(well.serve(None).await, json!({}));
    let (stuck, flowing) = (Memory::of(50), Memory::of(50));
    let workers =
        [Working::start(&dead_config, &stuck, dir.path()), Working::start(&well_config, &flowing, dir.path())];
    until(|| "the dead output to be tried".to_owned(), || (!dead.got.lock().unwrap().is_empty()).then_some(())).await;
    flowing.finished().await;
    assert_eq!((well.taken().len(), stuck.pending()), (50, 50));
    for working in workers {
        working.stop.cancel();
        // A receiver that never answers is left after a grace of five seconds, its alert still pending.
        working.end().await;
    }
    assert_eq!(stuck.pending(), 50);
}

#[tokio::test]
async fn answers_are_bounded_in_time_and_size() {
    let receiver = Receiver::saying(&[Say::Hang, Say::Flood]);
    let mut output = Output::new(&webhook(receiver.serve(None).await, json!({}))).unwrap();
    let start = Instant::now();
    let slow = output.deliver(&[&alert("1")]).await;
    assert!(matches!(slow, Err(Failure::Retry { .. })) && start.elapsed() < Duration::from_secs(5), "{slow:?}");
    assert!(matches!(receiver.script.lock().unwrap().pop_front(), Some(Say::Flood)));

    let flood = Receiver::saying(&[Say::Flood]);
    let mut output = Output::new(&webhook(flood.serve(None).await, json!({ "timeoutSeconds": 60 }))).unwrap();
    let start = Instant::now();
    let told = output.deliver(&[&alert("1")]).await.unwrap().0;
    assert!(told.len() < 400 && start.elapsed() < Duration::from_secs(30), "{}", told.len());
}

#[tokio::test]
async fn a_receiver_with_a_foreign_certificate_gets_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let files = Certificates::make(dir.path());
    let chain = vec![rustls::pki_types::CertificateDer::from_pem_file(&files.cert).unwrap()];
    let key = rustls::pki_types::PrivateKeyDer::from_pem_file(&files.key).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut tls = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let receiver = Receiver::default();
    let port = receiver.serve(Some(Arc::new(tls))).await;
    let url = format!("https://localhost:{port}/SECRET");
    let mut wrong = Output::new(&webhook(port, json!({ "url": url, "tls": { "ca": files.other_ca } }))).unwrap();
    match wrong.deliver(&[&alert("1")]).await {
        Err(Failure::Retry { reason, .. }) => {
            assert!(reason.contains("certificate") && !reason.contains("SECRET"), "{reason}");
        }
        other => panic!("{other:?}"),
    }
    let mut right = Output::new(&webhook(port, json!({ "url": url, "tls": { "ca": files.ca } }))).unwrap();
    right.deliver(&[&alert("1")]).await.unwrap();
    assert_eq!(receiver.taken(), ["1"]);
}

#[tokio::test]
async fn slack_gets_blocks_without_markup_and_its_pace() {
    let dir = tempfile::tempdir().unwrap();
    let receiver = Receiver::saying(&[Say::Wait(1)]);
    let port = receiver.serve(None).await;
    let url_file = dir.path().join("slack.url");
    std::fs::write(&url_file, format!("http://localhost:{port}/services/SECRET\n")).unwrap();
    let config = config(json!({ "type": "slack", "name": "chat", "urlFile": url_file }));
    assert!(!format!("{config:?}").contains("SECRET"));
    let memory = Memory::of(2);
    let working = Working::start(&config, &memory, dir.path());
    memory.finished().await;
    working.end().await;
    let got = receiver.got.lock().unwrap();
    assert_eq!(got.len(), 3);
    assert!(got[1].at - got[0].at >= Duration::from_secs(1));
    let message: Value = serde_json::from_slice(&got[2].body).unwrap();
    assert_eq!(message["blocks"][0]["type"], "header");
    assert!(message["blocks"].to_string().contains("<b>") && !message["blocks"].to_string().contains("\"mrkdwn\""));
    assert_eq!(message["unfurl_links"], false);
}

#[tokio::test]
async fn slack_gone_is_final() {
    let dir = tempfile::tempdir().unwrap();
    let receiver = Receiver::saying(&[Say::Status(404), Say::Status(410), Say::Status(403), Say::Status(500)]);
    let url_file = dir.path().join("slack.url");
    std::fs::write(&url_file, format!("http://127.0.0.1:{}/x", receiver.serve(None).await)).unwrap();
    let mut output = Output::new(&config(json!({ "type": "slack", "name": "chat", "urlFile": url_file }))).unwrap();
    for _ in 0..3 {
        assert!(matches!(output.deliver(&[&alert("1")]).await, Err(Failure::Reject { .. })));
    }
    assert!(matches!(output.deliver(&[&alert("1")]).await, Err(Failure::Retry { .. })));
    output.deliver(&[&alert("1")]).await.unwrap();
}
