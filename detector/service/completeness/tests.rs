//! Against a server that shows what an API server would.

use std::sync::Mutex;

use lapwing_engine::alert::Alert;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;
use crate::journal::{Journal, Lsn, Options};
use crate::pipeline::alert_record;

const TOKEN: &str = "a-token-for-metrics";

/// Serves `text` as metrics to whoever has the token.
async fn api_server(text: Arc<Mutex<String>>) -> String {
    let tcp = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/metrics", tcp.local_addr().unwrap());
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = tcp.accept().await.unwrap();
            let mut request = vec![0; 4096];
            let n = stream.read(&mut request).await.unwrap();
            let request = String::from_utf8_lossy(&request[..n]).into_owned();
            let known = request.contains(&format!("Bearer {TOKEN}"));
            let metrics = request.starts_with("GET /metrics ");
            let (code, body) = match (known, metrics) {
                (true, true) => (200, text.lock().unwrap().clone()),
                // It has no right to config maps, and what it asked for is remembered here.
                (true, false) => {
                    *text.lock().unwrap() = request.split(' ').nth(1).unwrap().to_owned();
                    (403, "no".to_owned())
                }
                (false, _) => (401, "no".to_owned()),
            };
            let answer =
                format!("HTTP/1.1 {code} X\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len());
            stream.write_all(answer.as_bytes()).await.unwrap();
        }
    });
    url
}

struct House {
    watch: Completeness,
    arrivals: Arc<Arrivals>,
    alerts: Journal,
    metrics: Arc<Metrics>,
    dir: tempfile::TempDir,
}

fn house(url: Option<String>) -> House {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("token"), TOKEN).unwrap();
    let (alerts, _) = Journal::open(&dir.path().join("alerts"), Options::default()).unwrap();
    let metrics = Arc::new(Metrics::new(["prod"]));
    let own = SelfAlerts::new(alerts.clone(), Arc::clone(&metrics));
    let arrivals = Arc::new(Arrivals::default());
    let token_file = Some(dir.path().join("token"));
    let server = |url| ApiServer {
        cluster: "prod".into(),
        url,
        token_file: token_file.clone(),
        canary: true,
        tls: tls::Config::default(),
    };
    let config = Config { api_servers: url.into_iter().map(server).collect(), ..Config::default() };
    let watch = Completeness::new(config, vec!["prod".into()], Arc::clone(&arrivals), own, Arc::clone(&metrics));
    House { watch, arrivals, alerts, metrics, dir }
}

impl House {
    fn told(&self) -> Vec<String> {
        let mut reader = self.alerts.reader(Lsn(0));
        let mut told = Vec::new();
        while let Some(record) = reader.next().unwrap() {
            assert_eq!(record.kind, alert_record::ALERT);
            let alert: Alert = serde_json::from_slice(&record.payload).unwrap();
            told.push(format!("{} {}", alert.rule.id, alert.summary));
        }
        told
    }

    fn metric(&self, line: &str) -> bool {
        String::from_utf8(self.metrics.render()).unwrap().lines().any(|l| l == line)
    }
}

#[tokio::test]
async fn silence_is_told_once_and_again_when_it_comes_back() {
    let house = house(None);
    let minutes = |n: i64| house.watch.started + n * 60_000_000;
    house.watch.listen(minutes(14)).await;
    assert_eq!(house.told().len(), 0);
    house.watch.listen(minutes(16)).await;
    house.watch.listen(minutes(17)).await;
    assert_eq!(house.told().len(), 1, "a cluster that never sent is silent too");
    assert!(house.metric("lapwing_cluster_silent{cluster=\"prod\"} 1"));
    house.arrivals.came("prod", minutes(18));
    house.watch.listen(minutes(19)).await;
    assert!(house.metric("lapwing_cluster_silent{cluster=\"prod\"} 0"));
    house.watch.listen(minutes(34)).await;
    let told = house.told();
    assert!(told.len() == 2 && told[1].starts_with("lapwing-cluster-silent No event of cluster prod"), "{told:?}");
}

/// A request each second from `at` (microseconds) on, with its end or without.
fn requests(house: &House, at: i64, n: std::ops::Range<i64>, ends: bool) {
    for n in n {
        for stage in ["RequestReceived", "ResponseComplete"].into_iter().take(if ends { 2 } else { 1 }) {
            let text =
                format!(r#"{{"auditID":"{n}","stage":"{stage}","verb":"get","user":{{"username":"u{}"}}}}"#, n % 5);
            let event = lapwing_engine::event::Event::parse(&text).unwrap();
            house.arrivals.stage("prod", &event, at + n * 1_000_000);
        }
    }
}

#[tokio::test]
async fn requests_without_an_end_are_told_once_and_again_when_it_comes_back() {
    let house = house(None);
    let start = house.watch.started;
    requests(&house, start, 0..2000, true);
    requests(&house, start, 2000..2019, false);
    requests(&house, start, 2700..2701, true);
    assert_eq!(house.arrivals.ended("prod").missing, 19);
    house.watch.count_ends().await;
    assert_eq!(house.told(), Vec::<String>::new(), "nineteen are an API server that was stopped");
    requests(&house, start, 4000..5000, true);
    requests(&house, start, 5000..5025, false);
    requests(&house, start, 5700..5701, true);
    house.watch.count_ends().await;
    house.watch.count_ends().await;
    let told = house.told();
    assert_eq!(told.len(), 1);
    assert!(told[0].starts_with("lapwing-audit-unfinished Of ") && told[0].contains("cluster prod"), "{told:?}");
    requests(&house, start, 7000..7001, true);
    house.watch.count_ends().await;
    assert!(house.metric("lapwing_requests_unfinished{cluster=\"prod\"} 0"));
}

#[tokio::test]
async fn what_an_api_server_drops_is_told() {
    let text = Arc::new(Mutex::new("apiserver_audit_event_total 100\n".to_owned()));
    let mut house = house(Some(api_server(Arc::clone(&text)).await));
    house.watch.ask().await;
    assert_eq!(house.told(), Vec::<String>::new());
    *text.lock().unwrap() = format!(
        "{}\napiserver_audit_event_total 900\napiserver_audit_error_total{{plugin=\"webhook\"}} 400",
        "x".repeat(200_000)
    );
    house.watch.ask().await;
    let told = house.told();
    assert!(told.len() == 1 && told[0].contains("could not deliver 400 audit events (plugin webhook)"), "{told:?}");
    assert!(house.metric("lapwing_apiserver_audit_errors_total{cluster=\"prod\",plugin=\"webhook\"} 400"));
    assert!(house.metric("lapwing_audit_events_missing{cluster=\"prod\"} 0"), "they are on their way for five minutes");
}

#[tokio::test]
async fn a_canary_that_does_not_come_back_is_told_until_one_does() {
    let text = Arc::new(Mutex::new("apiserver_audit_event_total 100\n".to_owned()));
    let mut house = house(Some(api_server(Arc::clone(&text)).await));
    house.watch.ask().await;
    let asked = text.lock().unwrap().clone();
    assert!(asked.starts_with("/api/v1/namespaces/kube-public/configmaps/lapwing-canary-"), "{asked}");
    let seconds = |n: i64| now_micros() + n * 1_000_000;
    house.watch.look_for_canaries(seconds(100)).await;
    assert_eq!(house.told(), Vec::<String>::new());
    house.watch.look_for_canaries(seconds(130)).await;
    house.watch.look_for_canaries(seconds(150)).await;
    let told = house.told();
    assert!(told.len() == 1 && told[0].starts_with("lapwing-audit-blind Lapwing is blind for cluster prod since"));
    assert!(house.metric("lapwing_audit_blind{cluster=\"prod\"} 1"));
    house.watch.ask().await;
    let event = format!(r#"{{"auditID":"1","requestURI":"{}"}}"#, text.lock().unwrap());
    let items = vec![lapwing_engine::batch::Item::Event(event)];
    let origin = lapwing_engine::batch::Origin::Webhook;
    house.arrivals.canaries.look_in(&lapwing_engine::batch::Batch {
        cluster: "prod".into(),
        origin,
        received: 0,
        items,
    });
    house.watch.look_for_canaries(seconds(300)).await;
    assert!(house.metric("lapwing_audit_blind{cluster=\"prod\"} 0"));
    // With a token nobody knows there is no telling what is logged.
    std::fs::write(house.dir.path().join("token"), "wrong").unwrap();
    house.watch.ask().await;
    house.watch.look_for_canaries(seconds(300)).await;
    assert_eq!(house.told().len(), 1);
}

#[tokio::test]
async fn who_does_not_answer_well_is_an_error_with_a_reason() {
    let mut house = house(Some(api_server(Arc::default()).await));
    let reason = house.watch.servers[0].ask().await.unwrap_err();
    assert!(reason.contains("no apiserver_audit_event_total"), "{reason}");
    std::fs::write(house.dir.path().join("token"), "wrong").unwrap();
    let reason = house.watch.servers[0].ask().await.unwrap_err();
    assert!(reason.contains("401"), "{reason}");
    house.watch.ask().await;
    assert_eq!(house.told(), Vec::<String>::new(), "not at once");
}

#[test]
fn lines_come_out_whole_and_long_ones_not_at_all() {
    let (mut lines, mut got) = (Lines::default(), Vec::new());
    for part in [&b"a\nb"[..], b"c\n", &[b'x'; 5000], b"y\nd", b"\n"] {
        lines.take(part, |line| got.push(line.to_owned()));
    }
    assert_eq!(got, ["a", "bc", "d"]);
}
