//! PagerDuty, Teams and Slack's bot API, as scripts after their documentation: services nobody can run for themselves. What
//! is sent is read by libraries of those who run them.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use lapwing::output::{Failure, Output};
use lapwing_engine::alert::{Alert, Level, Status};
use serde_json::{Value, json};

use super::http::{Receiver, Say};
use super::{alert, config, evil};

/// A link, mentions and markup of all kinds.
const MARKUP: &str =
    "[reset](https://evil.example) <at>all</at> <!channel> **b** <b>x</b> ![i](http://evil.example/i.png) & {{x}}";

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

/// What `command` says to the messages, one a line, or what it complains of.
fn read_by(command: &mut Command, messages: &[Vec<u8>]) -> Result<Vec<Value>, String> {
    let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let program = command.get_program().display();
    let mut child = child.unwrap_or_else(|e| panic!("cannot start `{program}` ({e}): scripts/need build test"));
    let (mut pipe, input) = (child.stdin.take().unwrap(), messages.join(&b'\n'));
    // One that complains reads no further.
    let writer = std::thread::spawn(move || pipe.write_all(&input));
    let output = child.wait_with_output().unwrap();
    let _ = writer.join().unwrap();
    let [said, wrong] = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    if output.status.success() { Ok(crate::daemon::ndjson(&said)) } else { Err(wrong) }
}

/// How many blocks Slack's own library reads of the messages.
fn read_by_slack(messages: &[Vec<u8>]) -> Result<u64, String> {
    read_by(&mut super::records::python("slack.py"), messages).map(|said| said[0].as_u64().unwrap())
}

/// What Microsoft's own library reads and renders of the messages.
fn read_by_microsoft(messages: &[Vec<u8>]) -> Vec<Value> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let libraries = root.join("target/teams");
    assert!(libraries.is_dir(), "no `{}`; scripts/need build test fetches it", libraries.display());
    let path = format!("{}:{}", root.join("target/venv/bin").display(), std::env::var("PATH").unwrap_or_default());
    // Through a shell, which looks in this path and not in ours.
    let mut node = Command::new("sh");
    node.args(["-c", "exec node \"$@\"", "node"]).arg(root.join("tests/it/servers/teams/card.cjs")).arg(libraries);
    read_by(node.env("PATH", path), messages).unwrap()
}

/// What messages are made of: alerts of all sizes and ends, with markup in every name.
fn samples() -> Vec<Alert> {
    let mut long = evil("3");
    long.why = "x".repeat(20_000);
    long.next_steps = vec!["kubectl get pods".to_owned(), "y\n".repeat(5000)];
    long.evidence[0].details = vec!["z".repeat(5000); 30];
    let mut markup = alert("5");
    markup.actor = MARKUP.into();
    markup.summary = format!("{MARKUP} opened a shell");
    markup.evidence[0].name = MARKUP.into();
    markup.evidence[0].details = vec![MARKUP.into()];
    let resolved = Alert { status: Status::Resolved, evidence: Vec::new(), ..alert("4") };
    vec![alert("1"), evil("2"), long, resolved, markup]
}

/// A card without what Teams adds to cards; words in lower case, because the library knows them in either.
fn compared(value: &Value) -> Value {
    match value {
        Value::Object(map) => {
            let said = map.iter().filter(|(key, _)| *key != "msteams");
            let one = |(key, value): (&String, &Value)| match (key.as_str(), value) {
                ("color" | "fontType" | "size" | "spacing" | "weight", Value::String(word)) => {
                    (key.clone(), word.to_lowercase().into())
                }
                _ => (key.clone(), compared(value)),
            };
            Value::Object(said.map(one).collect())
        }
        Value::Array(list) => list.iter().map(compared).collect(),
        other => other.clone(),
    }
}

#[tokio::test]
async fn microsofts_own_library_reads_every_card() {
    let dir = tempfile::tempdir().unwrap();
    let receiver = Receiver::default();
    let url = file(dir.path(), "url", &format!("http://localhost:{}/workflows/SECRET", receiver.serve(None).await));
    let mut output = Output::new(&config(json!({ "type": "teams", "name": "chat", "urlFile": url }))).unwrap();
    let all = samples();
    for level in [Level::Informational, Level::Low, Level::Medium, Level::Critical] {
        output.deliver(&[&Alert { level, ..alert("0") }]).await.unwrap();
    }
    for alert in &all {
        output.deliver(&[alert]).await.unwrap();
    }
    output.deliver(&all.iter().collect::<Vec<_>>()).await.unwrap();
    let messages = receiver.bodies();
    let cards = read_by_microsoft(&messages);
    assert_eq!(cards.len(), 4 + all.len() + 1);
    for (card, message) in cards.iter().zip(&messages) {
        assert_eq!(card["kind"], "application/vnd.microsoft.card.adaptive");
        assert_eq!(card["complaints"], json!([]));
        let sent = &read(message)["attachments"][0]["content"];
        assert_eq!(compared(&card["understood"]), compared(sent), "nothing in it that it does not know");
        let elements = card["elements"].as_array().unwrap();
        assert!(elements.iter().all(|e| e == "DIV" || e == "SPAN"), "{elements:?}");
        let text = |block: &Value| {
            block["inlines"].as_array().unwrap().iter().map(|run| run["text"].as_str().unwrap()).collect::<String>()
        };
        let sent: Vec<String> = sent["body"].as_array().unwrap().iter().map(text).collect();
        assert_eq!(card["blocks"], json!(sent), "shown as it stands there");
    }
    let shown = cards[4 + 4]["blocks"].as_array().unwrap();
    let who = format!("Who: {} (human)", MARKUP.replace("://", "[://]"));
    assert!(shown.contains(&json!(who)), "{shown:#?}");

    // It does say no, and would show a link.
    let wrong = |body: Value| {
        let content = json!({ "type": "AdaptiveCard", "version": "1.4", "body": body });
        json!({ "attachments": [{ "content": content }] }).to_string().into_bytes()
    };
    let odd = json!([{ "type": "RichTextBlock", "inlines": [{ "type": "TextRun", "text": "x", "color": "red" }] }]);
    let read = read_by_microsoft(&[wrong(odd), wrong(json!([{ "type": "TextBlock", "text": MARKUP }]))]);
    assert_eq!(read[0]["complaints"], json!(["Invalid value \"red\" for property \"color\"."]));
    assert!(read[1]["elements"].as_array().unwrap().contains(&json!("A")), "{}", read[1]);
}

#[tokio::test]
async fn pagerdutys_own_library_reads_every_event() {
    let dir = tempfile::tempdir().unwrap();
    let receiver = Receiver::default();
    let url = format!("http://127.0.0.1:{}/v2/enqueue", receiver.serve(None).await);
    let key = file(dir.path(), "key", "R0UTE\n");
    let mut output =
        Output::new(&config(json!({ "type": "pagerduty", "name": "pager", "keyFile": key, "url": url }))).unwrap();
    let all = samples();
    for alert in &all {
        output.deliver(&[alert]).await.unwrap();
    }
    let sent = receiver.bodies();
    let read_by_pagerduty = |events: &[Vec<u8>]| read_by(&mut super::collector::program("pagerduty"), events);
    let events = read_by_pagerduty(&sent).unwrap();
    assert_eq!(events, sent.iter().map(|e| read(e)).collect::<Vec<_>>(), "nothing in it that it does not know");
    for (event, alert) in events.iter().zip(&all) {
        if alert.status == Status::Resolved {
            assert_eq!((&event["event_action"], &event["payload"]), (&json!("resolve"), &Value::Null));
            continue;
        }
        let payload = &event["payload"];
        assert_eq!((&event["event_action"], &payload["severity"]), (&json!("trigger"), &json!("error")));
        assert_eq!(payload["timestamp"], "2026-03-01T12:00:00.000Z");
        assert_eq!(payload["custom_details"]["alert"]["actor"], alert.actor);
        for line in ["summary", "source", "component", "group", "class"] {
            assert!(!payload[line].as_str().unwrap().contains(['\n', '\r', '\u{1b}']), "{line}: {}", payload[line]);
        }
    }
    for wrong in [json!({ "event_action": "trigger", "dedupKey": "x" }), json!({ "payload": { "severity": 3 } })] {
        assert!(read_by_pagerduty(&[wrong.to_string().into_bytes()]).is_err(), "it does say no: {wrong}");
    }
}

#[tokio::test]
async fn slacks_own_library_reads_every_message() {
    let dir = tempfile::tempdir().unwrap();
    let receiver = Receiver::default();
    let url = file(dir.path(), "url", &format!("http://localhost:{}/services/SECRET", receiver.serve(None).await));
    let mut output = Output::new(&config(json!({ "type": "slack", "name": "chat", "urlFile": url }))).unwrap();
    let all = samples();
    for alert in &all {
        output.deliver(&[alert]).await.unwrap();
    }
    output.deliver(&all.iter().collect::<Vec<_>>()).await.unwrap();
    let messages = receiver.bodies();
    let blocks: usize = messages.iter().map(|m| read(m)["blocks"].as_array().unwrap().len()).sum();
    assert_eq!(read_by_slack(&messages), Ok(blocks as u64));
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
