//! PagerDuty, Teams and Slack's bot API, as scripts after their documentation: services nobody can run for themselves.

use std::io::Write;
use std::path::Path;
use std::process::Stdio;

use lapwing::output::{Failure, Output};
use lapwing_engine::alert::{Alert, Status};
use serde_json::{Value, json};

use super::http::{Receiver, Say};
use super::{alert, config, evil};

fn file(dir: &Path, name: &str, text: &str) -> std::path::PathBuf {
    let path = dir.join(name);
    std::fs::write(&path, text).unwrap();
    path
}

fn read(body: &[u8]) -> Value {
    serde_json::from_slice(body).unwrap()
}

#[tokio::test]
async fn pagerduty_opens_and_closes_one_incident() {
    let dir = tempfile::tempdir().unwrap();
    let receiver = Receiver::saying(&[Say::Status(202), Say::Status(202), Say::Wait(1), Say::Status(400)]);
    let url = format!("http://127.0.0.1:{}/v2/enqueue", receiver.serve(None).await);
    let key = file(dir.path(), "key", "R0UTE\n");
    let mut output =
        Output::new(&config(json!({ "type": "pagerduty", "name": "pager", "keyFile": key, "url": url }))).unwrap();
    output.deliver(&[&alert("1")]).await.unwrap();
    output.deliver(&[&Alert { status: Status::Resolved, ..alert("2") }]).await.unwrap();
    match output.deliver(&[&evil("3")]).await {
        Err(Failure::Retry { after, .. }) => assert_eq!(after.unwrap().as_secs(), 1),
        other => panic!("{other:?}"),
    }
    assert!(matches!(output.deliver(&[&evil("3")]).await, Err(Failure::Reject { .. })));
    let events: Vec<Value> = receiver.bodies().iter().map(|b| read(b)).collect();
    assert_eq!((&events[0]["event_action"], &events[1]["event_action"]), (&json!("trigger"), &json!("resolve")));
    assert_eq!(events[0]["dedup_key"], events[1]["dedup_key"]);
    assert_eq!(events[0]["routing_key"], "R0UTE");
    assert!(!events[2]["payload"]["summary"].as_str().unwrap().contains(['\n', '\x1b']));
}

#[tokio::test]
async fn teams_gets_a_card_without_markup() {
    let dir = tempfile::tempdir().unwrap();
    let receiver = Receiver::saying(&[Say::Status(202), Say::Status(429)]);
    let port = receiver.serve(None).await;
    let url = file(dir.path(), "url", &format!("http://localhost:{port}/workflows/SECRET\n"));
    let mut output = Output::new(&config(json!({ "type": "teams", "name": "teams", "urlFile": url }))).unwrap();
    output.deliver(&[&alert("1"), &evil("2")]).await.unwrap();
    assert!(matches!(output.deliver(&[&alert("3")]).await, Err(Failure::Retry { .. })));
    let card = &read(&receiver.bodies()[0])["attachments"][0];
    assert_eq!(card["contentType"], "application/vnd.microsoft.card.adaptive");
    assert!(card["content"]["body"].as_array().unwrap().iter().all(|b| b["type"] == "RichTextBlock"), "{card}");
    assert!(card.to_string().contains("2 alerts, the worst: HIGH Shell in a pod"));
}

/// What Slack's own library reads of the messages.
fn read_by_slack(messages: &[Vec<u8>]) -> Result<usize, String> {
    let mut command = super::records::python("slack.py");
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(&messages.join(&b'\n')).unwrap();
    let output = child.wait_with_output().unwrap();
    let [said, wrong] = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    if output.status.success() { Ok(said.trim().parse().unwrap()) } else { Err(wrong) }
}

#[tokio::test]
async fn slacks_own_library_reads_every_message() {
    let dir = tempfile::tempdir().unwrap();
    let receiver = Receiver::default();
    let url = file(dir.path(), "url", &format!("http://localhost:{}/services/SECRET", receiver.serve(None).await));
    let mut output = Output::new(&config(json!({ "type": "slack", "name": "chat", "urlFile": url }))).unwrap();
    let mut long = evil("3");
    long.why = "x".repeat(20_000);
    long.next_steps = vec!["kubectl get pods".to_owned(), "y\n".repeat(5000)];
    long.evidence[0].details = vec!["z".repeat(5000); 30];
    let resolved = Alert { status: Status::Resolved, evidence: Vec::new(), ..alert("4") };
    let all = [alert("1"), evil("2"), long, resolved];
    for alert in &all {
        output.deliver(&[alert]).await.unwrap();
    }
    output.deliver(&all.iter().collect::<Vec<_>>()).await.unwrap();
    let messages = receiver.bodies();
    let blocks: usize = messages.iter().map(|m| read(m)["blocks"].as_array().unwrap().len()).sum();
    assert_eq!(read_by_slack(&messages), Ok(blocks));
    let header =
        |text: &str| json!({ "blocks": [{ "type": "header", "text": { "type": "plain_text", "text": text } }] });
    for wrong in [header(&"x".repeat(151)), json!({ "blocks": [{ "type": "no_such_block" }] })] {
        assert!(read_by_slack(&[wrong.to_string().into_bytes()]).is_err(), "it does say no: {wrong}");
    }
}

#[tokio::test]
async fn a_slack_bot_keeps_what_goes_on_in_one_thread() {
    let dir = tempfile::tempdir().unwrap();
    let said = |text: &str| Say::Body(text.to_owned());
    let script = [
        said(r#"{"ok":true,"ts":"17.1"}"#),
        said(r#"{"ok":true,"ts":"18.2"}"#),
        said(r#"{"ok":true,"ts":"19.3"}"#),
        said(r#"{"ok":false,"error":"token_revoked"}"#),
        said(r#"{"ok":false,"error":"not_in_channel"}"#),
    ];
    let receiver = Receiver::saying(&script);
    let api = format!("http://127.0.0.1:{}/api/", receiver.serve(None).await);
    let token = file(dir.path(), "token", "xoxb-1");
    let settings = json!({ "type": "slack", "name": "chat", "tokenFile": token, "channel": "C1", "apiUrl": api });
    std::fs::create_dir(dir.path().join("outputs")).unwrap();
    let mut output = Output::new(&config(settings)).unwrap().remembering(dir.path());
    let other = Alert { actor: "bob".into(), ..alert("2") };
    for alert in [&alert("1"), &other, &Alert { status: Status::Update, ..alert("1") }] {
        output.deliver(&[alert]).await.unwrap();
    }
    assert!(matches!(output.deliver(&[&alert("1")]).await, Err(Failure::Retry { .. })));
    assert!(matches!(output.deliver(&[&alert("1")]).await, Err(Failure::Reject { .. })));
    assert_eq!(receiver.paths()[0], "/api/chat.postMessage");
    assert_eq!(receiver.header("authorization")[0], "Bearer xoxb-1");
    let messages: Vec<Value> = receiver.bodies().iter().map(|b| read(b)).collect();
    let threads: Vec<&Value> = messages.iter().take(3).map(|m| &m["thread_ts"]).collect();
    assert_eq!(threads, [&Value::Null, &Value::Null, &json!("17.1")]);
    assert_eq!((&messages[0]["channel"], &messages[2]["reply_broadcast"]), (&json!("C1"), &json!(false)));

    // The next process goes on in the threads of this one, and ends one that is over or gone.
    drop(output);
    let ok = || said(r#"{"ok":true,"ts":"20.4"}"#);
    let gone = said(r#"{"ok":false,"error":"thread_not_found"}"#);
    let script = [ok(), ok(), gone, ok()];
    let receiver = Receiver::saying(&script);
    let api = format!("http://127.0.0.1:{}/api/", receiver.serve(None).await);
    let mut next = Output::new(&config(
        json!({ "type": "slack", "name": "chat", "tokenFile": token, "channel": "C1", "apiUrl": api }),
    ))
    .unwrap()
    .remembering(dir.path());
    next.deliver(&[&Alert { status: Status::Resolved, ..alert("1") }]).await.unwrap();
    next.deliver(&[&alert("1")]).await.unwrap();
    assert!(matches!(next.deliver(&[&other]).await, Err(Failure::Retry { .. })));
    next.deliver(&[&other]).await.unwrap();
    let messages: Vec<Value> = receiver.bodies().iter().map(|b| read(b)).collect();
    let threads: Vec<&Value> = messages.iter().map(|m| &m["thread_ts"]).collect();
    assert_eq!(threads, [&json!("17.1"), &Value::Null, &json!("18.2"), &Value::Null]);
    let resolved = messages[0]["blocks"].to_string();
    assert!(resolved.contains("RESOLVED: HIGH") && resolved.contains("no proof that it is over"), "{resolved}");
}
