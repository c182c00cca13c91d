//! Splunk's event collector, as a script after its documentation: what `collector` does not do by itself. Splunk cannot be
//! had freely.

use std::time::{Duration, Instant};

use lapwing::output::{Failure, Output};
use serde_json::{Value, json};

use super::http::{Receiver, Say};
use super::{alert, config, evil};

const OK: &str = r#"{"text":"Success","code":0}"#;

fn said(text: &str) -> Say {
    Say::Body(text.to_owned())
}

/// An output towards `receiver`, and the directory of its token.
async fn output(receiver: &Receiver, more: Value) -> (Output, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let token = dir.path().join("token");
    std::fs::write(&token, "t0ken\n").unwrap();
    let url = format!("http://127.0.0.1:{}", receiver.serve(None).await);
    let mut settings = json!({ "type": "splunk", "name": "hec", "url": url, "tokenFile": token, "index": "main", "timeoutSeconds": 2 });
    settings.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    (Output::new(&config(settings)).unwrap(), dir)
}

fn objects(body: &[u8]) -> Vec<Value> {
    serde_json::Deserializer::from_slice(body).into_iter().collect::<Result<_, _>>().unwrap()
}

#[tokio::test]
async fn events_are_objects_one_after_the_other() {
    let receiver = Receiver::saying(&[said(OK)]);
    let (mut output, _dir) = output(&receiver, json!({})).await;
    output.deliver(&[&alert("1"), &evil("2")]).await.unwrap();
    assert_eq!(receiver.header("authorization"), ["Splunk t0ken"]);
    assert_eq!(receiver.header("x-splunk-request-channel")[0].len(), 36);
    assert_eq!(receiver.paths(), ["/services/collector/event"]);
    let events = objects(&receiver.bodies()[0]);
    let ids: Vec<_> = events.iter().map(|e| e["event"]["id"].as_str().unwrap()).collect();
    assert_eq!(ids, ["1", "2"]);
    assert_eq!((&events[0]["index"], &events[0]["time"]), (&json!("main"), &json!(1_772_366_400.0)));
    assert_eq!(events[0]["fields"]["level"], "high");
}

#[tokio::test]
async fn delivered_is_when_an_indexer_acknowledges() {
    let with_id = r#"{"text":"Success","code":0,"ackId":7}"#;
    let script = [said(with_id), said(r#"{"acks":{"7":false}}"#), Say::Status(503), said(r#"{"acks":{"7":true}}"#)];
    let receiver = Receiver::saying(&script);
    let (mut output, _dir) = output(&receiver, json!({ "acknowledge": true, "format": "ocsf" })).await;
    let told = output.deliver(&[&alert("1")]).await.unwrap().0;
    assert!(told.contains("acknowledged by an indexer"), "{told}");
    let paths = receiver.paths();
    let channel = &receiver.header("x-splunk-request-channel")[0];
    assert_eq!(paths.len(), 4);
    assert!(paths[1..].iter().all(|p| *p == format!("/services/collector/ack?channel={channel}")), "{paths:?}");
    assert_eq!(objects(&receiver.bodies()[1]), [json!({ "acks": [7] })]);
    assert_eq!(objects(&receiver.bodies()[0])[0]["event"]["class_uid"], 2004);
}

#[tokio::test]
async fn what_is_never_acknowledged_is_sent_again() {
    let with_id = r#"{"text":"Success","code":0,"ackId":7}"#;
    let receiver = Receiver::saying(&[said(with_id)]);
    let (mut output, _dir) = output(&receiver, json!({ "acknowledge": true, "ackTimeoutSeconds": 1 })).await;
    let start = Instant::now();
    let answer = output.deliver(&[&alert("1")]).await;
    assert!(matches!(&answer, Err(Failure::Retry { reason, .. }) if reason.contains("no indexer")), "{answer:?}");
    assert!(start.elapsed() >= Duration::from_secs(1));
    let off = Receiver::saying(&[said(OK)]);
    let (mut output, _dir) = self::output(&off, json!({ "acknowledge": true })).await;
    let answer = output.deliver(&[&alert("1")]).await;
    assert!(matches!(&answer, Err(Failure::Retry { reason, .. }) if reason.contains("no ackId")), "{answer:?}");
}

#[tokio::test]
async fn refusals_are_told_apart() {
    let bad = r#"{"text":"Invalid data format","code":6,"invalid-event-number":1}"#;
    let busy = r#"{"text":"Server is busy","code":9}"#;
    let script = [Say::With(400, bad.into()), Say::With(503, busy.into()), Say::Hang, Say::Status(413)];
    let receiver = Receiver::saying(&script);
    let (mut output, _dir) = output(&receiver, json!({})).await;
    let alerts = [alert("1"), alert("2"), alert("3")];
    let all: Vec<_> = alerts.iter().collect();
    match output.deliver(&all).await {
        Err(Failure::Partial { refused, again, .. }) => assert_eq!((refused[0].0, again), (1, vec![2])),
        other => panic!("{other:?}"),
    }
    for _ in 0..2 {
        let answer = output.deliver(&all).await;
        assert!(matches!(answer, Err(Failure::Retry { .. })), "{answer:?}");
    }
    assert!(matches!(output.deliver(&all).await, Err(Failure::TooLarge { .. })));
}
