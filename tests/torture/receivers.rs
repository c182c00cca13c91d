//! Receivers that misbehave in one way until they are told to be well: of webhooks, Splunk's collector, Elasticsearch's bulk
//! requests, syslog over TCP and mail. They keep what they said they have, as `ID.STATUS` of each alert.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine as _;
use rustls::ServerConfig;
use serde_json::{Value, json};

use crate::daemon::free_port;
use crate::who::{Identity, authority, leaf};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Webhook,
    Splunk,
    Elasticsearch,
    Syslog,
    Mail,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// Nobody listens.
    Refuse,
    /// Takes the connection and never says a word.
    Silent,
    /// Closes without reading.
    Reset,
    /// Answers something of another protocol.
    Garbage,
    Unauthorized,
    /// Asks to come again later.
    Busy,
    /// Has an error of its own.
    Broken,
    /// Takes the alert and closes before it answers.
    Cut,
    /// Answers, or where there are no answers reads, a byte a second.
    Drip,
    /// Shows the certificate of a foreign authority.
    Certificate,
    /// Splunk: takes it, and no indexer acknowledges it.
    Unacknowledged,
    /// Elasticsearch: a 200 that says of each document to come again later.
    BusyItems,
}

impl Kind {
    pub const fn word(self) -> &'static str {
        match self {
            Self::Webhook => "webhook",
            Self::Splunk => "splunk",
            Self::Elasticsearch => "elasticsearch",
            Self::Syslog => "syslog",
            Self::Mail => "email",
        }
    }
}

/// What the connections of a receiver share.
struct State {
    kind: Kind,
    way: Way,
    well: AtomicBool,
    got: Mutex<Vec<String>>,
    /// Splunk: taken and not acknowledged, by the number of the acknowledgement.
    taken: Mutex<BTreeMap<u64, Vec<String>>>,
    /// The certificate it shows while it is not well, and afterwards.
    tls: Option<[Arc<ServerConfig>; 2]>,
}

impl State {
    /// What is wrong now.
    fn wrong(&self) -> Option<Way> {
        (!self.well.load(Ordering::Acquire)).then_some(self.way)
    }

    fn is(&self, way: Way) -> bool {
        self.wrong() == Some(way)
    }

    fn keep(&self, ids: impl IntoIterator<Item = String>) {
        self.got.lock().unwrap().extend(ids);
    }

    /// Until it is well, or for so many seconds.
    fn linger(&self, seconds: u32) {
        for _ in 0..seconds * 20 {
            if self.wrong().is_none() {
                break;
            }
            std::thread::park_timeout(Duration::from_millis(50));
        }
    }
}

/// Writes a byte a second.
fn drip(stream: &mut dyn Wire, text: &[u8]) -> Option<()> {
    for byte in text {
        say(stream, &[*byte])?;
        std::thread::park_timeout(Duration::from_secs(1));
    }
    Some(())
}

fn say(stream: &mut dyn Wire, text: &[u8]) -> Option<()> {
    stream.write_all(text).and_then(|()| stream.flush()).ok()
}

/// A connection, with TLS or without.
trait Wire: Read + Write {}
impl<T: Read + Write> Wire for T {}

pub struct Receiver {
    port: u16,
    state: Arc<State>,
}

fn shows((certificate, key): Identity) -> Arc<ServerConfig> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    Arc::new(builder.with_no_client_auth().with_single_cert(vec![certificate], key).unwrap())
}

impl Receiver {
    /// `dir`: where its authority's certificate goes, for [`Self::settings`].
    pub fn new(kind: Kind, way: Way, dir: &Path) -> Self {
        let tls = (way == Way::Certificate).then(|| {
            let [ours, foreign] = ["ours", "theirs"].map(authority);
            std::fs::write(dir.join("ca.pem"), ours.pem()).unwrap();
            [&foreign, &ours].map(|by| shows(leaf(by, "receiver", 2020, 2099).2))
        });
        let (well, got, taken) = (AtomicBool::default(), Mutex::default(), Mutex::default());
        // Other programs ask for ports too.
        let listener = (0..100).find_map(|_| TcpListener::bind(("127.0.0.1", free_port())).ok()).unwrap();
        let port = listener.local_addr().unwrap().port();
        let listener = (way != Way::Refuse).then_some(listener);
        let receiver = Self { port, state: Arc::new(State { kind, way, well, got, taken, tls }) };
        let state = Arc::clone(&receiver.state);
        std::thread::spawn(move || {
            while state.is(Way::Refuse) {
                std::thread::park_timeout(Duration::from_millis(20));
            }
            let listener = listener.unwrap_or_else(|| TcpListener::bind(("127.0.0.1", port)).unwrap());
            for stream in listener.incoming().flatten() {
                let state = Arc::clone(&state);
                // An error is the other side's business.
                std::thread::spawn(move || connection(stream, &state));
            }
        });
        receiver
    }

    /// From now on it does as it should.
    pub fn heal(&self) {
        self.state.well.store(true, Ordering::Release);
    }

    pub fn got(&self) -> Vec<String> {
        self.state.got.lock().unwrap().clone()
    }

    /// The settings of an output that sends to it, without its name.
    pub fn settings(&self) -> String {
        let (port, secure) = (self.port, self.state.tls.is_some());
        let (host, tls) = if secure { ("localhost", ", tls: { ca: ca.pem }") } else { ("127.0.0.1", "") };
        let url = format!("url: \"{}://{host}:{port}/\", timeoutSeconds: 2", if secure { "https" } else { "http" });
        let settings = match self.state.kind {
            Kind::Webhook => format!("type: webhook, {url}, secretFile: secret"),
            Kind::Splunk => format!("type: splunk, {url}, tokenFile: secret, acknowledge: true, ackTimeoutSeconds: 1"),
            Kind::Elasticsearch => format!("type: elasticsearch, {url}"),
            Kind::Syslog => format!("type: syslog, address: \"{host}:{port}\", format: json"),
            Kind::Mail => format!(
                "type: email, host: {host}, port: {port}, security: {}, from: lapwing@example.org, to: [soc@example.org], \
                 username: lapwing, passwordFile: secret",
                if secure { "tls" } else { "none" }
            ),
        };
        settings + tls
    }
}

fn connection(stream: TcpStream, state: &State) -> Option<()> {
    if state.is(Way::Reset) {
        return None;
    }
    let Some([foreign, ours]) = &state.tls else { return talk(Box::new(stream), state) };
    let shown = Arc::clone(if state.wrong().is_some() { foreign } else { ours });
    let session = rustls::ServerConnection::new(shown).ok()?;
    talk(Box::new(rustls::StreamOwned::new(session, stream)), state)
}

fn talk(mut stream: Box<dyn Wire>, state: &State) -> Option<()> {
    match state.kind {
        Kind::Webhook | Kind::Splunk | Kind::Elasticsearch => http(stream.as_mut(), state),
        Kind::Syslog => syslog(stream.as_mut(), state),
        Kind::Mail => smtp(stream, state),
    }
}

/// One request.
fn http(stream: &mut dyn Wire, state: &State) -> Option<()> {
    let (head, body) = request(stream)?;
    let wrong = state.wrong();
    let (code, body) = match wrong {
        Some(Way::Silent) => {
            state.linger(30);
            return None;
        }
        Some(Way::Garbage) => return say(stream, b"220 this is a mail server\r\n\r\n"),
        Some(Way::Cut) => return None,
        Some(Way::Unauthorized) if state.kind == Kind::Splunk => (403, json!({ "text": "Invalid token", "code": 4 })),
        Some(Way::Unauthorized) => (401, Value::Null),
        Some(Way::Busy) if state.kind == Kind::Splunk => (503, json!({ "text": "Server is busy", "code": 9 })),
        Some(Way::Busy) => (429, Value::Null),
        Some(Way::Broken) => (500, Value::Null),
        _ => (200, well(state, wrong, &head, &body)?),
    };
    let body = body.to_string();
    let wait = if code == 429 { "Retry-After: 1\r\n" } else { "" };
    let answer = format!(
        "HTTP/1.1 {code} X\r\n{wait}Content-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    );
    if wrong == Some(Way::Drip) { drip(stream, answer.as_bytes()) } else { say(stream, answer.as_bytes()) }
}

/// Head and body of one request.
fn request(stream: &mut dyn Wire) -> Option<(String, Vec<u8>)> {
    let (mut bytes, mut part) = (Vec::new(), [0; 8192]);
    loop {
        let n = stream.read(&mut part).ok().filter(|n| *n > 0)?;
        bytes.extend(&part[..n]);
        let Some(end) = bytes.windows(4).position(|w| w == b"\r\n\r\n") else { continue };
        let head = String::from_utf8_lossy(&bytes[..end]).to_lowercase();
        let length = head.split("content-length: ").nth(1).and_then(|rest| rest.lines().next()?.trim().parse().ok());
        if bytes.len() >= end + 4 + length.unwrap_or(0) {
            return Some((head, bytes.split_off(end + 4)));
        }
    }
}

/// `ID.STATUS` of an alert.
fn id(alert: &Value) -> Option<String> {
    Some(format!("{}.{}", alert["id"].as_str()?, alert["status"].as_str()?))
}

/// What a receiver answers that takes what it is sent. Nobody waits for the end of what drips.
fn well(state: &State, wrong: Option<Way>, head: &str, body: &[u8]) -> Option<Value> {
    let whole = |ids: Vec<String>| {
        if wrong != Some(Way::Drip) {
            state.keep(ids);
        }
    };
    match state.kind {
        Kind::Elasticsearch if head.starts_with("get ") => Some(json!({ "version": { "number": "8.11.0" } })),
        Kind::Elasticsearch if head.starts_with("put ") => Some(json!({ "acknowledged": true })),
        Kind::Elasticsearch => {
            let mut text = String::new();
            flate2::read::GzDecoder::new(body).read_to_string(&mut text).ok()?;
            let actions = text.lines().step_by(2).map(|line| serde_json::from_str(line).unwrap());
            let ids: Vec<String> = actions.map(|a: Value| a["create"]["_id"].as_str().unwrap().to_owned()).collect();
            let busy = wrong == Some(Way::BusyItems);
            let status = if busy { 429 } else { 201 };
            let items: Vec<_> = ids.iter().map(|id| json!({ "create": { "_id": id, "status": status } })).collect();
            if !busy {
                whole(ids);
            }
            Some(json!({ "errors": busy, "items": items }))
        }
        Kind::Splunk if head.contains("collector/ack") => {
            let asked: Value = serde_json::from_slice(body).ok()?;
            let number = asked["acks"][0].as_u64()?;
            let there = wrong != Some(Way::Unacknowledged);
            if there {
                whole(state.taken.lock().unwrap().remove(&number).unwrap_or_default());
            }
            Some(json!({ "acks": { number.to_string(): there } }))
        }
        Kind::Splunk => {
            let events = serde_json::Deserializer::from_slice(body).into_iter::<Value>();
            let ids = events.filter_map(|event| id(&event.ok()?["event"])).collect();
            let mut taken = state.taken.lock().unwrap();
            let number = taken.keys().next_back().map_or(0, |last| last + 1);
            taken.insert(number, ids);
            Some(json!({ "text": "Success", "code": 0, "ackId": number }))
        }
        _ => {
            whole(vec![id(&serde_json::from_slice(body).ok()?)?]);
            Some(json!({}))
        }
    }
}

/// Messages with their lengths in front, as long as the connection lasts.
fn syslog(stream: &mut dyn Wire, state: &State) -> Option<()> {
    if state.is(Way::Silent) {
        state.linger(60);
        return None;
    }
    let (mut bytes, mut part) = (Vec::new(), [0; 8192]);
    loop {
        let dripping = state.is(Way::Drip);
        let n = stream.read(if dripping { &mut part[..1] } else { &mut part }).ok().filter(|n| *n > 0)?;
        bytes.extend(&part[..n]);
        if dripping {
            state.linger(1);
        }
        while let Some(space) = bytes.iter().position(|b| *b == b' ') {
            let length: usize = std::str::from_utf8(&bytes[..space]).ok()?.parse().ok()?;
            if bytes.len() < space + 1 + length {
                break;
            }
            let message: Vec<u8> = bytes.drain(..space + 1 + length).skip(space + 1).collect();
            if state.is(Way::Cut) {
                return None;
            }
            let json = message.iter().position(|b| *b == b'{')?;
            state.keep(id(&serde_json::from_slice(&message[json..]).ok()?));
        }
    }
}

/// A session of as many mails as come.
fn smtp(stream: Box<dyn Wire>, state: &State) -> Option<()> {
    let mut stream = BufReader::new(stream);
    let hello: &[u8] = match state.wrong() {
        Some(Way::Silent) => {
            state.linger(90);
            return None;
        }
        Some(Way::Garbage) => b"HTTP/1.1 400 Bad Request\r\n\r\n",
        Some(Way::Broken) => b"421 4.3.2 out of order\r\n",
        _ => b"220 torture.example.org ESMTP\r\n",
    };
    let answer = |stream: &mut BufReader<Box<dyn Wire>>, text: &[u8]| {
        if state.is(Way::Drip) { drip(stream.get_mut(), text) } else { say(stream.get_mut(), text) }
    };
    answer(&mut stream, hello)?;
    loop {
        let mut line = String::new();
        stream.read_line(&mut line).ok().filter(|n| *n > 0)?;
        let word = line.split_whitespace().next().unwrap_or_default().to_uppercase();
        let text: &[u8] = match word.as_str() {
            "EHLO" => b"250-torture.example.org\r\n250-AUTH PLAIN\r\n250 8BITMIME\r\n",
            "AUTH" if state.is(Way::Unauthorized) => b"535 5.7.8 wrong password\r\n",
            "AUTH" => {
                let told = line.split_whitespace().nth(2).unwrap_or_default();
                let told = base64::engine::general_purpose::STANDARD.decode(told).ok()?;
                assert!(told.starts_with(b"\0lapwing\0whsec_"), "{line}");
                b"235 2.7.0 welcome\r\n"
            }
            "MAIL" if state.is(Way::Busy) => b"451 4.3.0 come again later\r\n",
            "DATA" => {
                answer(&mut stream, b"354 go on\r\n")?;
                let mut mail = String::new();
                while !mail.ends_with("\r\n.\r\n") {
                    stream.read_line(&mut mail).ok().filter(|n| *n > 0)?;
                }
                if state.is(Way::Cut) {
                    return None;
                }
                let mail = mail.replace("\r\n ", " ");
                let id = mail
                    .lines()
                    .find_map(|l| l.strip_prefix("Message-ID: ")?.trim().strip_prefix('<')?.split('@').next());
                state.keep(id.map(str::to_owned));
                b"250 kept\r\n"
            }
            "QUIT" => return answer(&mut stream, b"221 bye\r\n"),
            _ => b"250 well\r\n",
        };
        answer(&mut stream, text)?;
    }
}
