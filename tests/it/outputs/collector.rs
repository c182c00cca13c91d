//! Splunk's event collector, Loki's push API and OTLP against an OpenTelemetry Collector of its published parts
//! (`tests/receivers`; `scripts/need` builds it). What its receivers understood, it writes to files before they answer.

use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use chrono::Utc;
use lapwing::output::{Failure, Output};
use lapwing_engine::alert::{Alert, Level};
use serde_json::{Map, Value, json};

use super::{Certificates, EVIL, Server, alert, config, evil, lines, until};
use crate::daemon::{Daemon, free_port};

/// What an attacker writes into names to be heard elsewhere.
const LOUD: &str = "<!channel> {\"a\":\"b\"} ${env:HOME} {{x}} '\"\n2026-01-01 level=info\u{1b}[2J\u{202e}";
const TOKEN: &str = "t0ken-of-the-collector";

/// A program built from `tests/receivers`.
pub fn program(name: &str) -> Command {
    let built = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("target/receivers").join(name);
    assert!(built.is_file(), "no `{}`; scripts/need build test builds it", built.display());
    Command::new(built)
}

/// A log record as a receiver understood it.
#[derive(Debug)]
struct Record {
    resource: Map<String, Value>,
    attributes: Map<String, Value>,
    body: Value,
    /// The rest: times, severity, name of the event.
    own: Value,
}

impl Record {
    fn time(&self) -> i64 {
        self.own["timeUnixNano"].as_str().expect("a time").parse().expect("nanoseconds")
    }

    /// The alert in the body or, of a line, in its text.
    fn alert(&self) -> Alert {
        match &self.body {
            Value::String(line) => serde_json::from_str(line).unwrap(),
            event => serde_json::from_value(event.clone()).unwrap(),
        }
    }
}

/// The plain value of one of OTLP.
fn plain(value: &Value) -> Value {
    let Some((kind, inner)) = value.as_object().and_then(|v| v.iter().next()) else { return Value::Null };
    match kind.as_str() {
        "kvlistValue" => Value::Object(pairs(&inner["values"])),
        "arrayValue" => Value::Array(inner["values"].as_array().into_iter().flatten().map(plain).collect()),
        "intValue" => inner.as_str().and_then(|n| n.parse::<i64>().ok()).into(),
        // Go reads every number of JSON as one.
        "doubleValue" => match inner.as_f64() {
            Some(n) if n.fract() == 0.0 => json!(n as i64),
            _ => inner.clone(),
        },
        _ => inner.clone(),
    }
}

fn pairs(list: &Value) -> Map<String, Value> {
    let list = list.as_array().map_or(&[][..], Vec::as_slice);
    let all: Map<_, _> = list.iter().map(|p| (p["key"].as_str().unwrap().to_owned(), plain(&p["value"]))).collect();
    assert_eq!(all.len(), list.len(), "a key twice: {list:?}");
    all
}

struct Collector {
    server: Option<Server>,
    dir: PathBuf,
    splunk: u16,
    /// Splunk's collector with a token for which acknowledgement is off.
    plain: u16,
    loki: u16,
    otlp: u16,
}

impl Collector {
    /// One that is not running yet. What is told over TLS, Splunk, is shown `files`.
    fn prepare(dir: &Path, files: &Certificates) -> Self {
        let [splunk, plain, loki, otlp] = [(); 4].map(|()| free_port());
        let keeping = |kind: &str| {
            let directory = dir.join("kept").join(kind);
            std::fs::create_dir_all(&directory).unwrap();
            json!({ "directory": directory })
        };
        let at = |port: u16| format!("127.0.0.1:{port}");
        let bearer = json!({ "authenticator": "bearertokenauth/bearer" });
        let hec = json!({ "endpoint": at(splunk), "ack": { "extension": "ack" },
            "auth": { "authenticator": "bearertokenauth/splunk" },
            "tls": { "cert_file": files.cert, "key_file": files.key } });
        let mut plain_hec = hec.clone();
        plain_hec.as_object_mut().unwrap().remove("ack");
        plain_hec["endpoint"] = at(plain).into();
        let http = |port: u16| json!({ "protocols": { "http": { "endpoint": at(port), "auth": bearer } } });
        let mut loki_http = http(loki);
        loki_http["use_incoming_timestamp"] = true.into();
        let config = json!({
            "receivers": { "splunk_hec": hec, "splunk_hec/plain": plain_hec, "loki": loki_http, "otlp": http(otlp) },
            "extensions": { "ack": {}, "bearertokenauth/splunk": { "scheme": "Splunk", "token": TOKEN },
                "bearertokenauth/bearer": { "token": TOKEN } },
            "exporters": { "kept/splunk": keeping("splunk"), "kept/loki": keeping("loki"), "kept/otlp": keeping("otlp") },
            "service": { "telemetry": { "metrics": { "level": "none" }, "logs": { "level": "warn" } },
                "extensions": ["ack", "bearertokenauth/splunk", "bearertokenauth/bearer"],
                "pipelines": {
                    "logs/splunk": { "receivers": ["splunk_hec", "splunk_hec/plain"], "exporters": ["kept/splunk"] },
                    "logs/loki": { "receivers": ["loki"], "exporters": ["kept/loki"] },
                    "logs/otlp": { "receivers": ["otlp"], "exporters": ["kept/otlp"] },
                } },
        });
        std::fs::write(dir.join("collector.yaml"), config.to_string()).unwrap();
        std::fs::write(dir.join("token"), TOKEN).unwrap();
        Self { server: None, dir: dir.to_owned(), splunk, plain, loki, otlp }
    }

    async fn start(dir: &Path, files: &Certificates) -> Self {
        let mut collector = Self::prepare(dir, files);
        collector.run().await;
        collector
    }

    async fn run(&mut self) {
        let log = std::fs::File::options().create(true).append(true).open(self.dir.join("collector.log")).unwrap();
        let mut command = program("collector");
        command.arg("--config").arg(self.dir.join("collector.yaml")).stdout(Stdio::null()).stderr(log);
        self.server = Some(Server::start(&mut command, "scripts/need build test"));
        for port in [self.splunk, self.plain, self.loki, self.otlp] {
            let told = || {
                format!("the collector to listen: {}", std::fs::read_to_string(self.dir.join("collector.log")).unwrap())
            };
            until(told, || TcpStream::connect(("127.0.0.1", port)).ok()).await;
        }
    }

    /// As a power cut would end it.
    fn kill(&mut self) {
        self.server = None;
    }

    fn settings(&self, kind: &str) -> Value {
        let url = match kind {
            "splunk" => format!("https://localhost:{}", self.splunk),
            "loki" => format!("http://127.0.0.1:{}/loki/api/v1/push", self.loki),
            _ => format!("http://127.0.0.1:{}/v1/logs", self.otlp),
        };
        let mut settings = json!({ "type": kind, "name": kind, "url": url, "tokenFile": self.dir.join("token") });
        if kind == "splunk" {
            settings["acknowledge"] = true.into();
            settings["ackTimeoutSeconds"] = 10.into();
            settings["index"] = "security".into();
            settings["tls"] = json!({ "ca": self.dir.join("ca.pem") });
        }
        settings
    }

    fn output(&self, kind: &str) -> Output {
        Output::new(&config(self.settings(kind))).unwrap()
    }

    /// What was understood, in the order it came.
    fn kept(&self, kind: &str) -> Vec<Record> {
        let mut all = Vec::new();
        let files = std::fs::read_dir(self.dir.join("kept").join(kind)).unwrap().map(|f| f.unwrap().path());
        let mut files: Vec<PathBuf> = files.filter(|f| f.extension().is_some_and(|e| e == "json")).collect();
        files.sort();
        for file in files {
            let request: Value = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
            for resource in request["resourceLogs"].as_array().unwrap() {
                for scope in resource["scopeLogs"].as_array().unwrap() {
                    for record in scope["logRecords"].as_array().unwrap() {
                        all.push(Record {
                            resource: pairs(&resource["resource"]["attributes"]),
                            attributes: pairs(&record["attributes"]),
                            body: plain(&record["body"]),
                            own: record.clone(),
                        });
                    }
                }
            }
        }
        all
    }
}

/// An alert whose actor, and all an attacker can name, is loud.
fn loud(id: &str) -> Alert {
    let mut alert = Alert { actor: LOUD.into(), summary: format!("{LOUD} opened a shell"), ..alert(id) };
    alert.level = Level::Critical;
    let e = &mut alert.evidence[0];
    (e.actor, e.name, e.user_agent) = (LOUD.into(), LOUD.into(), LOUD.into());
    alert
}

fn object(value: Value) -> Map<String, Value> {
    value.as_object().unwrap().clone()
}

const KINDS: [&str; 3] = ["splunk", "loki", "otlp"];

#[tokio::test]
async fn splunk_acknowledges_and_reads_each_alert_as_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let collector = Collector::start(dir.path(), &Certificates::make(dir.path())).await;
    let mut output = collector.output("splunk");
    let mut late = loud("3");
    late.last += chrono::Duration::milliseconds(7_123);
    let all = [alert("1"), evil("2"), late];
    let told = output.deliver(&all.iter().collect::<Vec<_>>()).await.unwrap().0;
    assert_eq!(told, r#"200 OK: {"text": "Success", "code": 0, "ackId": 1}; acknowledged by an indexer"#);
    let told = output.deliver(&[&all[0]]).await.unwrap().0;
    assert!(told.contains(r#""ackId": 2}; acknowledged"#), "{told}");
    let kept = collector.kept("splunk");
    let mut ids: Vec<String> = kept.iter().map(|r| r.alert().id).collect();
    ids.sort();
    assert_eq!(ids, ["1", "1", "2", "3"]);
    for alert in &all {
        let record = kept.iter().find(|r| r.alert().id == alert.id).unwrap();
        assert_eq!(record.alert(), *alert);
        let from = json!({ "host.name": alert.cluster, "com.splunk.source": "lapwing", "com.splunk.index": "security",
            "com.splunk.sourcetype": "lapwing:alert" });
        assert_eq!(record.resource, object(from));
        let fields = json!({ "level": alert.level, "rule": "exec", "cluster": alert.cluster });
        assert_eq!(record.attributes, object(fields));
        // Splunk's time has milliseconds; the receiver holds it as a double.
        let off = record.time() - alert.last.timestamp_nanos_opt().unwrap();
        assert!(off.abs() < 1_000, "{off} ns");
    }

    // With acknowledgement off for the token there is nothing to wait for, and an output that wants it says so.
    let mut settings = collector.settings("splunk");
    settings["url"] = format!("https://localhost:{}", collector.plain).into();
    let refused = Output::new(&config(settings.clone())).unwrap().deliver(&[&alert("4")]).await;
    assert!(matches!(&refused, Err(Failure::Retry { reason, .. }) if reason.contains("no ackId")), "{refused:?}");
    settings["acknowledge"] = false.into();
    settings["format"] = "ocsf".into();
    let told = Output::new(&config(settings)).unwrap().deliver(&[&evil("5")]).await.unwrap().0;
    assert_eq!(told, r#"200 OK: {"text": "Success", "code": 0}"#);
    let finding = collector.kept("splunk").pop().unwrap().body;
    assert_eq!(finding, lapwing::output::ocsf::finding(&evil("5")));
}

#[tokio::test]
async fn loki_reads_few_labels_and_one_line_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let collector = Collector::start(dir.path(), &Certificates::make(dir.path())).await;
    let mut output = collector.output("loki");
    let before = Utc::now().timestamp_nanos_opt().unwrap();
    let all = [alert("1"), alert("2"), loud("3"), evil("4"), alert("5"), loud("6")];
    for pair in all.chunks(2) {
        output.deliver(&pair.iter().collect::<Vec<_>>()).await.unwrap();
    }
    let after = Utc::now().timestamp_nanos_opt().unwrap();
    let kept = collector.kept("loki");
    assert_eq!(kept.len(), all.len());
    for alert in &all {
        let record = kept.iter().find(|r| r.alert().id == alert.id).expect("each");
        assert_eq!(record.alert(), *alert);
        let line = record.body.as_str().unwrap();
        assert!(!line.contains(['\n', '\r', '\u{1b}', '\u{202e}']), "{line:?}");
        // Labels and structured metadata of an entry are one map to the receiver.
        let cluster = if alert.cluster == EVIL {
            r#"x\u000a<131>1 2026-01-01T00:00:00Z h a - - - fake\u000d\u000aCEF:0|a|b|c|d|e|10|suser=root =]"\ \u001b[2J é<b>&"#
        } else {
            "prod"
        };
        let labels = json!({ "job": "lapwing", "level": alert.level, "rule": "exec", "cluster": cluster });
        assert_eq!(record.attributes, object(labels));
        assert_eq!(record.resource, Map::new());
        assert!((before..=after).contains(&record.time()), "told now, not when it happened");
    }
    // Loki keeps a stream in order of time.
    let stream = |level: &str| {
        let of = |r: &&Record| r.attributes["level"] == level && r.attributes["cluster"] == "prod";
        kept.iter().filter(of).map(|r| (r.alert().id, r.time())).collect::<Vec<_>>()
    };
    for (level, ids) in [("high", vec!["1", "2", "5"]), ("critical", vec!["3", "6"])] {
        let stream = stream(level);
        assert!(stream.is_sorted_by_key(|(_, time)| *time), "{stream:?}");
        assert_eq!(stream.iter().map(|(id, _)| id).collect::<Vec<_>>(), ids);
    }
}

#[tokio::test]
async fn otlp_says_who_what_and_how_bad() {
    let dir = tempfile::tempdir().unwrap();
    let collector = Collector::start(dir.path(), &Certificates::make(dir.path())).await;
    let mut output = collector.output("otlp");
    let levels = [
        (Level::Informational, 9, "INFO"),
        (Level::Low, 10, "INFO2"),
        (Level::Medium, 13, "WARN"),
        (Level::High, 17, "ERROR"),
        (Level::Critical, 21, "FATAL"),
    ];
    let mut all: Vec<Alert> =
        levels.iter().map(|(level, number, _)| Alert { level: *level, ..loud(&number.to_string()) }).collect();
    all.push(evil("evil"));
    let before = Utc::now().timestamp_nanos_opt().unwrap();
    output.deliver(&all.iter().collect::<Vec<_>>()).await.unwrap();
    let kept = collector.kept("otlp");
    assert_eq!(kept.len(), all.len());
    for alert in &all {
        let record = kept.iter().find(|r| r.attributes["lapwing.alert.id"] == alert.id).expect("each");
        let whole = record.attributes["lapwing.alert"].as_str().unwrap();
        assert_eq!(serde_json::from_str::<Alert>(whole).unwrap(), *alert);
        let (_, number, text) = levels.iter().find(|(level, ..)| *level == alert.level).unwrap();
        assert_eq!((&record.own["severityNumber"], &record.own["severityText"]), (&json!(number), &json!(text)));
        assert_eq!(record.own["eventName"], "lapwing.alert");
        assert_eq!(record.time(), alert.last.timestamp_nanos_opt().unwrap());
        let observed: i64 = record.own["observedTimeUnixNano"].as_str().unwrap().parse().unwrap();
        assert!((before..before + 60_000_000_000).contains(&observed));
        assert_eq!(record.resource, object(json!({ "service.name": "lapwing", "k8s.cluster.name": alert.cluster })));
        let e = &alert.evidence[0];
        let mut attributes = record.attributes.clone();
        attributes.remove("lapwing.alert");
        let expected = json!({ "lapwing.alert.id": alert.id, "lapwing.alert.status": "new", "lapwing.rule.id": "exec",
            "lapwing.rule.title": "Shell in a pod", "user.name": alert.actor, "k8s.namespace.name": e.namespace,
            "client.address": e.address, "user_agent.original": e.user_agent });
        assert_eq!(attributes, object(expected));
        let body = record.body.as_str().unwrap();
        assert!(!body.contains(['\n', '\u{1b}', '\u{202e}']), "{body:?}");
    }
    let body = kept[0].body.as_str().unwrap();
    assert_eq!(
        body,
        "<!channel> {\"a\":\"b\"} ${env:HOME} {{x}} '\"\\u000a2026-01-01 level=info\\u001b[2J\\u202e opened a shell"
    );
}

#[tokio::test]
async fn a_refused_token_is_not_told_and_is_read_again() {
    let dir = tempfile::tempdir().unwrap();
    let collector = Collector::start(dir.path(), &Certificates::make(dir.path())).await;
    for kind in KINDS {
        let mut output = collector.output(kind);
        std::fs::write(dir.path().join("token"), "another-t0ken").unwrap();
        match output.deliver(&[&alert("1")]).await {
            // This receiver quotes what it refuses.
            Err(Failure::Retry { reason, .. }) => {
                assert!(reason.starts_with("401 Unauthorized"), "{kind}: {reason}");
                assert!(!reason.contains("another-t0ken"), "{kind}: {reason}");
            }
            other => panic!("{kind}: {other:?}"),
        }
        assert!(collector.kept(kind).is_empty(), "{kind}");
        std::fs::write(dir.path().join("token"), TOKEN).unwrap();
        output.deliver(&[&alert("1")]).await.unwrap();
        assert_eq!(collector.kept(kind).len(), 1, "{kind}");
    }
}

#[tokio::test]
async fn what_the_receiver_could_not_keep_is_sent_again() {
    let dir = tempfile::tempdir().unwrap();
    let collector = Collector::start(dir.path(), &Certificates::make(dir.path())).await;
    let (kept, away) = (dir.path().join("kept"), dir.path().join("away"));
    for (kind, status) in [("splunk", "500"), ("loki", "503"), ("otlp", "503")] {
        let mut output = collector.output(kind);
        std::fs::rename(&kept, &away).unwrap();
        match output.deliver(&[&alert("1"), &loud("2")]).await {
            Err(Failure::Retry { reason, .. }) => assert!(reason.starts_with(status), "{kind}: {reason}"),
            other => panic!("{kind}: {other:?}"),
        }
        std::fs::rename(&away, &kept).unwrap();
        output.deliver(&[&alert("1"), &loud("2")]).await.unwrap();
        assert_eq!(collector.kept(kind).len(), 2, "{kind}");
    }
}

/// A shell in a pod, by a user with a name of an attacker's choice.
fn event(n: usize) -> Value {
    let now = Utc::now().to_rfc3339_opts(chrono::SecondsFormat::Micros, true);
    json!({
        "kind": "Event", "apiVersion": "audit.k8s.io/v1", "level": "Metadata", "auditID": format!("shell-{n}"),
        "stage": "ResponseStarted", "verb": "create",
        "requestURI": "/api/v1/namespaces/web/pods/p/exec?command=sh&container=c&stdin=true&stdout=true&tty=true",
        "user": { "username": format!("eve{n} {LOUD}"), "groups": ["system:authenticated"] },
        "sourceIPs": ["203.0.113.66"], "userAgent": format!("kubectl {LOUD}"),
        "objectRef": { "resource": "pods", "subresource": "exec", "namespace": "web", "name": "p", "apiVersion": "v1" },
        "responseStatus": { "metadata": {}, "code": 101 },
        "requestReceivedTimestamp": now, "stageTimestamp": now,
        "annotations": { "authorization.k8s.io/decision": "allow", "authorization.k8s.io/reason": "" },
    })
}

/// The whole program; the collector is killed while alerts wait for it, and comes back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_collector_that_is_killed_gets_every_alert_in_the_end() {
    const KILLS: usize = 6;
    const EACH: usize = 5;
    let dir = tempfile::tempdir().unwrap();
    let mut collector = Collector::prepare(dir.path(), &Certificates::make(dir.path()));
    let outputs: String = KINDS
        .iter()
        .map(|kind| {
            let mut settings = collector.settings(kind);
            settings["minLevel"] = "informational".into();
            settings["timeoutSeconds"] = 2.into();
            settings["retry"] = json!({ "maxWaitSeconds": 1 });
            if *kind == "splunk" {
                // Its memory of what to acknowledge ends with it.
                settings["ackTimeoutSeconds"] = 2.into();
            }
            format!("  - {settings}\n")
        })
        .collect();
    let mut daemon = Daemon::prepare(dir.path(), &outputs);
    daemon.run();
    let mut sent = 0;
    let mut send = |daemon: &Daemon| {
        let items: Vec<Value> = (sent..sent + EACH).map(event).collect();
        let body = json!({ "kind": "EventList", "apiVersion": "audit.k8s.io/v1", "items": items }).to_string();
        assert_eq!(daemon.post(body.as_bytes()).unwrap().0, 200);
        sent += EACH;
        sent
    };
    let told = |daemon: &Daemon| {
        let alerts = daemon.alerts().into_iter().filter(|a| a["rule"]["id"] == "interactive-shell-in-pod");
        alerts.map(|a| serde_json::from_value::<Alert>(a).unwrap()).collect::<Vec<_>>()
    };
    for kill in 0..KILLS {
        let sent = send(&daemon);
        tokio::task::block_in_place(|| {
            crate::daemon::until("alerts", || (told(&daemon).len() >= sent).then_some(()));
        });
        collector.run().await;
        let more = send(&daemon);
        tokio::task::block_in_place(|| {
            crate::daemon::until("more alerts", || (told(&daemon).len() >= more).then_some(()));
        });
        // Each time a little later: before, amid and after what is told.
        tokio::time::sleep(Duration::from_millis(150 * kill as u64)).await;
        collector.kill();
    }
    collector.run().await;
    let wanted = told(&daemon);
    let began = Instant::now();
    for kind in KINDS {
        let arrived = |a: &Alert| collector.kept(kind).iter().any(|r| whole(r) == *a);
        while !wanted.iter().all(arrived) {
            assert!(began.elapsed() < Duration::from_secs(120), "{kind}: {}", daemon.log());
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
    assert_eq!(wanted.len(), 2 * KILLS * EACH);
    assert!(wanted.iter().all(|a| a.actor.ends_with(LOUD)), "{:?}", wanted[0].actor);
    for kind in KINDS {
        let dead = dir.path().join("data/outputs").join(format!("{kind}.dead.ndjson"));
        assert_eq!(lines(&dead), Vec::<String>::new(), "{kind}");
        // What comes twice had its answer, or its acknowledgement, cut off by a kill.
        let kept = collector.kept(kind);
        let repeated = kept.len() - kept.iter().map(|r| whole(r).id).collect::<std::collections::BTreeSet<_>>().len();
        assert!(repeated <= KILLS * 2 * EACH, "{kind}: {repeated} repeated");
    }
    assert!(daemon.stop().success(), "{}", daemon.log());
}

/// The alert a record carries, wherever its format has it.
fn whole(record: &Record) -> Alert {
    match record.attributes.get("lapwing.alert") {
        Some(text) => serde_json::from_str(text.as_str().unwrap()).unwrap(),
        None => record.alert(),
    }
}
