//! Records for machines: OTLP read by the project's own messages, Loki's push API as a script (both against a real receiver
//! in `collector`), a Kafka topic on librdkafka's mock cluster, OCSF against the published schema.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use lapwing::output::{Failure, Output, ocsf};
use lapwing_engine::alert::{Alert, Anomaly, AnomalyKind, Confidence, Habits, Reason, Status};
use rdkafka::Message;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::Headers;
use rdkafka::mocking::MockCluster;
use serde_json::{Value, json};

use super::http::{Receiver, Say};
use super::{EVIL, Server, alert, config, evil, lines, until};

pub fn python(script: &str) -> Command {
    let python = std::env::var("LAPWING_TEST_PYTHON").unwrap_or_else(|_| "python3".to_owned());
    let mut command = Command::new(python);
    command.arg(PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/it/servers").join(script));
    command
}

fn records(dir: &Path) -> Vec<Value> {
    lines(&dir.join("records")).iter().map(|l| serde_json::from_str(l).unwrap()).collect()
}

#[tokio::test]
async fn otlp_is_what_the_projects_own_messages_read() {
    let dir = tempfile::tempdir().unwrap();
    let mut command = python("otlp.py");
    let _server = Server::start(command.arg(dir.path()), "scripts/need build test");
    let port_file = dir.path().join("port");
    let port: u16 = until(|| "the receiver to listen".to_owned(), || lines(&port_file).first()?.parse().ok()).await;
    let url = format!("http://127.0.0.1:{port}/v1/logs");
    let mut output = Output::new(&config(json!({ "type": "otlp", "name": "otel", "url": url }))).unwrap();
    output.deliver(&[&alert("1"), &evil("2")]).await.unwrap();
    let all = records(dir.path());
    let attribute = |record: &Value, key: &str| {
        let found = record["attributes"].as_array().unwrap().iter().find(|a| a["key"] == key).unwrap();
        found["value"]["stringValue"].as_str().unwrap().to_owned()
    };
    let mut ids: Vec<_> = all.iter().map(|r| attribute(r, "lapwing.alert.id")).collect();
    ids.sort();
    assert_eq!(ids, ["1", "2"]);
    let first = all.iter().find(|r| attribute(r, "lapwing.alert.id") == "1").unwrap();
    assert_eq!((&first["severityText"], &first["timeUnixNano"]), (&json!("ERROR"), &json!("1772366400000000000")));
    assert_eq!(serde_json::from_str::<Alert>(&attribute(first, "lapwing.alert")).unwrap(), alert("1"));
    let second = all.iter().find(|r| attribute(r, "lapwing.alert.id") == "2").unwrap();
    assert_eq!(attribute(second, "user.name"), EVIL);

    let said = |id: &str, summary: &str| Alert { summary: summary.into(), ..alert(id) };
    match output.deliver(&[&said("3", "REJECT"), &alert("4")]).await {
        Err(Failure::Partial { refused, again, .. }) => {
            assert_eq!((refused.len(), again.len()), (2, 0), "nobody knows which; none is lost");
            assert!(refused[0].1.starts_with("1 of 2 records rejected") && refused[0].1.ends_with("the body says so"));
        }
        other => panic!("{other:?}"),
    }
    match output.deliver(&[&said("6", "BUSY")]).await {
        Err(Failure::Retry { after, .. }) => assert_eq!(after, Some(Duration::from_secs(1))),
        other => panic!("{other:?}"),
    }
    output.deliver(&[&said("6", "BUSY")]).await.unwrap();
    assert_eq!(records(dir.path()).len(), 4);

    // From the rejection on each goes by itself: only what is rejected is a dead letter, and what is busy is waited for.
    match output.deliver(&[&alert("7"), &said("8", "REJECT"), &alert("9")]).await {
        Err(Failure::Partial { refused, again, .. }) => {
            assert_eq!((refused.len(), refused[0].0, again.len()), (1, 1, 0), "{refused:?}");
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(records(dir.path()).len(), 6);
}

#[tokio::test]
async fn a_repetition_to_loki_has_the_same_time_and_line() {
    let receiver = Receiver::saying(&[Say::Status(500), Say::Status(204), Say::Status(400)]);
    let url = format!("http://127.0.0.1:{}/loki/api/v1/push", receiver.serve(None).await);
    let settings = json!({ "type": "loki", "name": "loki", "url": url, "tenant": "soc" });
    let mut output = Output::new(&config(settings)).unwrap();
    let (one, two) = (alert("1"), evil("2"));
    assert!(matches!(output.deliver(&[&one, &two]).await, Err(Failure::Retry { .. })));
    output.deliver(&[&one, &two]).await.unwrap();
    assert!(matches!(output.deliver(&[&one]).await, Err(Failure::Reject { .. })));
    let bodies: Vec<Value> = receiver.bodies().iter().map(|b| serde_json::from_slice(b).unwrap()).collect();
    assert_eq!(bodies[0], bodies[1]);
    assert_ne!(
        bodies[1]["streams"][0]["values"][0][0], bodies[2]["streams"][0]["values"][0][0],
        "told anew, a new time"
    );
    assert_eq!(receiver.header("x-scope-orgid")[0], "soc");
    let lines: usize =
        bodies[0]["streams"].as_array().unwrap().iter().map(|s| s["values"].as_array().unwrap().len()).sum();
    assert_eq!(lines, 2);
}

#[tokio::test]
async fn a_topic_gets_each_alert_keyed_and_in_order() {
    let cluster = MockCluster::new(3).unwrap();
    cluster.create_topic("alerts", 4, 3).unwrap();
    let brokers = cluster.bootstrap_servers();
    let settings =
        json!({ "type": "kafka", "name": "topic", "brokers": [brokers], "topic": "alerts", "maxBytes": 20000 });
    let mut output = Output::new(&config(settings)).unwrap();
    let mut large = evil("4");
    large.why = "x".repeat(100_000);
    let all = [alert("1"), alert("2"), evil("3"), large, alert("5")];
    output.deliver(&all.iter().collect::<Vec<_>>()).await.unwrap();

    let mut client = rdkafka::ClientConfig::new();
    client.set("bootstrap.servers", &brokers).set("group.id", "t").set("auto.offset.reset", "earliest");
    let consumer: BaseConsumer = client.create().unwrap();
    consumer.subscribe(&["alerts"]).unwrap();
    let mut got: Vec<(i32, String, String)> = Vec::new();
    until(
        || "five messages".to_owned(),
        || {
            if let Some(Ok(message)) = consumer.poll(Duration::from_millis(500)) {
                let value: Value = serde_json::from_slice(message.payload().unwrap()).unwrap();
                let key = String::from_utf8(message.key().unwrap().to_vec()).unwrap();
                let headers = message.headers().unwrap();
                assert_eq!(headers.iter().filter_map(|h| h.value).next(), Some(&b"application/json"[..]));
                got.push((message.partition(), key, value["id"].as_str().unwrap().to_owned()));
            }
            (got.len() == 5).then_some(())
        },
    )
    .await;
    let of = |key: &str| got.iter().filter(|(_, k, _)| k == key).collect::<Vec<_>>();
    let alice = of("prod/alice");
    assert_eq!(alice.iter().map(|(_, _, id)| id.as_str()).collect::<Vec<_>>(), ["1", "2", "5"], "in order");
    assert!(alice.iter().all(|(partition, ..)| *partition == alice[0].0), "in one partition");
}

fn anomaly() -> Anomaly {
    let reason = |usual: Vec<String>, seen: f32| Reason {
        dimension: "subnet".into(),
        context: "pods".into(),
        value: "203.0.113.0/24".into(),
        bits: 11.0,
        probability: Some(0.001),
        seen,
        of: 900.0,
        peers: 0,
        usual,
        text: "never from 203.0.113.0/24".into(),
    };
    Anomaly {
        kind: AnomalyKind::Surprise,
        surprise_bits: 20.0,
        risk_bits: 21.0,
        threshold: 18.0,
        confidence: Confidence::High,
        principal: Habits {
            name: "alice".into(),
            class: "human".into(),
            since: "2026-01-01T00:00:00Z".parse().unwrap(),
            active_hours: 300.0,
        },
        reasons: vec![reason(vec!["10.0.0.0/8".into()], 3.0), reason(vec![], 0.0)],
        tactics: vec!["execution".into()],
    }
}

#[test]
fn every_finding_is_valid_ocsf() {
    let schema = python("ocsf.py").args(["1.5.0", "detection_finding"]).stderr(Stdio::inherit()).output().unwrap();
    assert!(schema.status.success(), "the schema of OCSF comes with a package: scripts/need build test");
    let schema: Value = serde_json::from_slice(&schema.stdout).unwrap();
    let valid = jsonschema::validator_for(&schema).unwrap();
    let mut tagged = alert("2");
    tagged.rule.tags =
        ["attack.execution", "attack.t1552.007", "attack.privilege-escalation"].map(str::to_owned).to_vec();
    tagged.anomaly = Some(Box::new(anomaly()));
    let mut bare = alert("4");
    bare.evidence.clear();
    bare.rule.tags.clear();
    let unnamed = Alert { actor: String::new(), cluster: String::new(), ..bare.clone() };
    let resolved = Alert { status: Status::Resolved, ..alert("6") };
    for alert in [alert("1"), tagged, evil("3"), bare, unnamed, resolved] {
        let finding = ocsf::finding(&alert);
        let wrong: Vec<_> = valid.iter_errors(&finding).map(|e| format!("{}: {e}", e.instance_path)).collect();
        assert_eq!(wrong, Vec::<String>::new(), "alert {}", alert.id);
    }
    let finding = ocsf::finding(&Alert { anomaly: Some(Box::new(anomaly())), ..alert("7") });
    assert_eq!(finding["anomaly_analyses"][0]["anomalies"][0]["observed_pattern"], "RARE");
    assert_eq!(finding["finding_info"]["analytic"]["type_id"], 2);
    let broken = json!({ "class_uid": 2004 });
    assert!(!valid.is_valid(&broken), "the schema does say no");
}
