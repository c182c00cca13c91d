//! Prometheus Alertmanager, the real one of Debian.

use std::process::{Command, Stdio};
use std::time::Duration;

use lapwing::output::{Failure, Output};
use lapwing_engine::alert::Alert;
use serde_json::{Value, json};

use super::http::Receiver;
use super::{EVIL, Server, alert, config, evil, until};

struct Alertmanager {
    _server: Server,
    _dir: tempfile::TempDir,
    port: u16,
}

/// A port nobody listens on now.
pub fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// What is answered to a GET, once there is an answer.
pub async fn get(url: &str) -> Option<Value> {
    let client = reqwest::Client::builder().timeout(Duration::from_secs(2)).build().unwrap();
    client.get(url).send().await.ok()?.json().await.ok()
}

impl Alertmanager {
    async fn start() -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("am.yml"), "{ route: { receiver: none }, receivers: [{ name: none }] }")
            .unwrap();
        let port = free_port();
        let mut command = Command::new("prometheus-alertmanager");
        command
            .arg(format!("--config.file={}", dir.path().join("am.yml").display()))
            .arg(format!("--storage.path={}", dir.path().join("data").display()))
            .arg(format!("--web.listen-address=127.0.0.1:{port}"))
            .arg("--cluster.listen-address=")
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let server = Server::start(&mut command, "prometheus-alertmanager");
        let up = Self { _server: server, _dir: dir, port };
        for _ in 0..200 {
            if get(&format!("{}/api/v2/status", up.url())).await.is_some() {
                return up;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("Alertmanager did not start");
    }

    fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    async fn alerts(&self) -> Vec<Value> {
        let all = get(&format!("{}/api/v2/alerts", self.url())).await.unwrap();
        let mut all = all.as_array().unwrap().clone();
        all.sort_by_key(|a| a["annotations"]["alert_id"].to_string());
        all
    }
}

fn output(urls: &[String], more: Value) -> Output {
    let mut settings = json!({ "type": "alertmanager", "name": "am", "urls": urls });
    settings.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    Output::new(&config(settings)).unwrap()
}

#[tokio::test]
async fn alerts_arrive_whole_and_a_repetition_is_the_same_alert() {
    let am = Alertmanager::start().await;
    let mut output = output(&[am.url()], json!({}));
    let mut old = evil("2");
    (old.first, old.last) = (old.first - chrono::Duration::days(400), old.last - chrono::Duration::days(400));
    output.deliver(&[&alert("1"), &old]).await.unwrap();
    let again = Alert { id: "3".into(), count: 7, ..alert("1") };
    output.deliver(&[&again]).await.unwrap();
    let all = am.alerts().await;
    let ids: Vec<_> = all.iter().map(|a| a["annotations"]["alert_id"].as_str().unwrap()).collect();
    assert_eq!(ids, ["2", "3"], "what goes on is one alert there");
    assert_eq!(all[1]["labels"]["alertname"], "exec");
    assert_eq!(all[1]["status"]["state"], "active");
    let actor = all[0]["labels"]["actor"].as_str().unwrap();
    assert!(!actor.contains('\x1b') && actor.contains("root"), "{actor:?} from {EVIL:?}");
    assert_eq!(all[0]["labels"].as_object().unwrap().len(), 6, "no label from inside another: {}", all[0]["labels"]);
}

#[tokio::test]
async fn an_alert_ends_when_it_was_not_told_again() {
    let am = Alertmanager::start().await;
    let mut output = output(&[am.url()], json!({ "resolveAfter": "2s" }));
    output.deliver(&[&alert("1")]).await.unwrap();
    assert_eq!(am.alerts().await.len(), 1);
    for _ in 0..200 {
        if am.alerts().await.is_empty() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("still active: {:?}", am.alerts().await);
}

#[tokio::test]
async fn one_replica_is_enough_and_none_is_tried_again() {
    let am = Alertmanager::start().await;
    let dead = format!("http://127.0.0.1:{}", free_port());
    output(&[dead.clone(), am.url()], json!({})).deliver(&[&alert("1")]).await.unwrap();
    assert_eq!(am.alerts().await.len(), 1);
    let failed = output(&[dead], json!({})).deliver(&[&alert("1")]).await;
    assert!(matches!(failed, Err(Failure::Retry { .. })), "{failed:?}");
    let refusing = Receiver::refusing(400);
    let url = format!("http://127.0.0.1:{}", refusing.serve(None).await);
    let refused = output(&[url], json!({})).deliver(&[&alert("1")]).await;
    assert!(matches!(refused, Err(Failure::Reject { .. })), "{refused:?}");
    until(|| "the request".to_owned(), || (refusing.bodies().len() == 1).then_some(())).await;
}
