//! The dashboard and the alert rules, executed by a real Prometheus that scraped a real run.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::collections::BTreeSet;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use lapwing::http::{Admin, Readiness};
use lapwing::metrics::{Metrics, Outcome};
use lapwing::source::webhook::{Config, Timing, Webhook};
use lapwing_engine::alert::Level;
use lapwing_engine::batch::{Batch, Item, RejectReason};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, interval};
use tokio_util::sync::CancellationToken;

use crate::daemon::Daemon;
use crate::outputs::Certificates;

const PATIENCE: Duration = Duration::from_secs(45);

fn file(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(name)
}

fn dashboard() -> Value {
    serde_json::from_slice(&std::fs::read(file("grafana/lapwing-overview.json")).unwrap()).unwrap()
}

/// A query of a panel, or of the dashboard itself.
struct Query {
    title: String,
    expr: String,
}

fn panels(dashboard: &Value) -> Vec<&Value> {
    dashboard["panels"].as_array().unwrap().iter().filter(|panel| panel["type"] != "row").collect()
}

fn queries(dashboard: &Value) -> Vec<Query> {
    let mut queries = Vec::new();
    for panel in panels(dashboard) {
        for target in panel["targets"].as_array().unwrap() {
            let title = panel["title"].as_str().unwrap().to_owned();
            queries.push(Query { title, expr: target["expr"].as_str().unwrap().to_owned() });
        }
    }
    queries
}

/// What Grafana puts in before it asks.
fn fill(expr: &str) -> String {
    let filled = expr.replace("$__rate_interval", "15s").replace("$__range", "2m").replace("$cluster", ".*");
    assert!(!filled.contains('$'), "a variable nobody fills: {filled}");
    filled
}

/// A program of the machine, or a failure that says how to get it.
fn program(name: &str) -> Command {
    let found = std::env::var_os("PATH")
        .is_some_and(|path| std::env::split_paths(&path).any(|directory| directory.join(name).is_file()));
    assert!(found, "`{name}` is not on PATH; install the Debian package `prometheus`");
    Command::new(name)
}

/// A Prometheus of our own on a loopback port, gone with the test.
pub struct Prometheus {
    child: Child,
    address: SocketAddr,
    client: reqwest::Client,
    _data: tempfile::TempDir,
}

impl Prometheus {
    /// Starts it, scraping `target` every second.
    pub async fn start(target: SocketAddr) -> Self {
        let data = tempfile::tempdir().unwrap();
        let config = data.path().join("prometheus.yml");
        let text = format!(
            "global: {{ scrape_interval: 1s }}\nrule_files: ['{}']\nscrape_configs:\n  \
             - job_name: lapwing\n    static_configs: [{{ targets: ['{target}'] }}]\n",
            file("grafana/alerts.yml").display()
        );
        std::fs::write(&config, text).unwrap();
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let log = std::fs::File::create(data.path().join("log")).unwrap();
        let child = program("prometheus")
            .arg(format!("--config.file={}", config.display()))
            .arg(format!("--storage.tsdb.path={}", data.path().join("data").display()))
            .arg(format!("--web.listen-address={address}"))
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        // The client needs a TLS provider even for plain HTTP; another test may have set it.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let mut this = Self { child, address, client, _data: data };
        this.ready().await;
        this
    }

    async fn ready(&mut self) {
        let (start, mut tick) = (Instant::now(), interval(Duration::from_millis(100)));
        loop {
            tick.tick().await;
            let answer = self.client.get(format!("http://{}/-/ready", self.address)).send().await;
            if answer.is_ok_and(|answer| answer.status().is_success()) {
                return;
            }
            let log = || std::fs::read_to_string(self._data.path().join("log")).unwrap_or_default();
            assert!(self.child.try_wait().unwrap().is_none(), "prometheus ended:\n{}", log());
            assert!(start.elapsed() < PATIENCE, "prometheus is not ready:\n{}", log());
        }
    }

    async fn api(&self, path: &str) -> Value {
        let answer = self.client.get(format!("http://{}/api/v1/{path}", self.address)).send().await.unwrap();
        serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap()
    }

    /// How many series an expression has now. An expression Prometheus refuses fails the test.
    pub async fn series(&self, expr: &str) -> usize {
        let encoded = percent_encoding::utf8_percent_encode(expr, percent_encoding::NON_ALPHANUMERIC);
        let answer = self.api(&format!("query?query={encoded}")).await;
        assert_eq!(answer["status"], "success", "`{expr}`: {answer}");
        assert!(answer["warnings"].is_null(), "`{expr}`: {answer}");
        answer["data"]["result"].as_array().unwrap().len()
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Executes every panel of the dashboard over what `scrape` serves. Each must have a series.
pub async fn every_panel_answers(scrape: SocketAddr) {
    let prometheus = Prometheus::start(scrape).await;
    let dashboard = dashboard();
    let mut waiting = queries(&dashboard);
    let (start, mut tick) = (Instant::now(), interval(Duration::from_millis(300)));
    while !waiting.is_empty() && start.elapsed() < PATIENCE {
        tick.tick().await;
        let mut empty = Vec::new();
        for query in waiting {
            let series = prometheus.series(&fill(&query.expr)).await;
            if series == 0 {
                empty.push(query);
            }
        }
        waiting = empty;
    }
    let empty: Vec<_> = waiting.iter().map(|query| format!("{}: {}", query.title, query.expr)).collect();
    assert!(empty.is_empty(), "panels without data:\n{}", empty.join("\n"));
    for annotation in dashboard["annotations"]["list"].as_array().unwrap() {
        prometheus.series(&fill(annotation["expr"].as_str().unwrap())).await;
    }
    let clusters = prometheus.api("label/cluster/values?match[]=lapwing_events_received_total").await;
    assert!(!clusters["data"].as_array().unwrap().is_empty(), "the variable `cluster` is empty: {clusters}");
    let rules = prometheus.api("rules").await.to_string();
    assert!(rules.contains("LapwingNoEvents") && !rules.contains("\"health\":\"err\""), "{rules}");
}

/// Every labelled series the service can have, by way of the webhook where that makes them.
async fn run() -> (SocketAddr, CancellationToken) {
    let metrics = Arc::new(Metrics::new(["prod"]));
    let readiness = Arc::new(Readiness::new(["webhook"]));
    let desk = lapwing::http::guard::Config { listen: "127.0.0.1:0".into(), ..Default::default() };
    let admin = Admin::bind(&desk, Arc::clone(&readiness), Arc::clone(&metrics));
    let admin = admin.await.unwrap();
    let config = Config { listen: "127.0.0.1:0".parse().unwrap(), insecure_loopback: true, ..Config::default() };
    let split = |body: &[u8]| vec![Item::Event(String::from_utf8_lossy(body).into_owned())];
    let sink = |_: Batch| std::future::ready(Ok::<(), &str>(()));
    let base = file(".");
    let webhook = Webhook::bind(config, &base, Timing::default(), split, sink, Arc::clone(&metrics));
    let webhook = webhook.await.unwrap();
    let (door, desk, stop) = (webhook.local_addr().unwrap(), admin.local_addr().unwrap(), CancellationToken::new());
    tokio::spawn(webhook.run(stop.clone()));
    tokio::spawn(admin.run(stop.clone()));
    readiness.ready("webhook");
    post(door).await;
    let stream = stop.clone();
    tokio::spawn(async move {
        let mut tick = interval(Duration::from_millis(200));
        while stream.run_until_cancelled(tick.tick()).await.is_some() {
            fill_pipeline(&metrics);
        }
    });
    (desk, stop)
}

/// Posts a recorded request and waits for its answer.
async fn post(door: SocketAddr) {
    let request = std::fs::File::open(file("fixtures/webhook/batch-of-20.raw.zst")).unwrap();
    let request = String::from_utf8(zstd::decode_all(request).unwrap()).unwrap();
    let request = request.replacen("POST /k8s/audit", "POST /audit/v1/prod", 1);
    let request = request.replacen("\r\n", "\r\nConnection: close\r\n", 1);
    let mut stream = TcpStream::connect(door).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

/// Stands in for the parts behind the webhook, once.
fn fill_pipeline(metrics: &Metrics) {
    metrics.announce_rule("exec-into-pod", Level::High);
    metrics.announce_output("soc");
    metrics.finding("exec-into-pod", Level::High);
    metrics.undecidable("exec-into-pod", 1);
    metrics.memory_evictions("pods", 1);
    metrics.alert(Level::High);
    metrics.blind("prod", false);
    metrics.missing("prod", 0);
    metrics.unfinished("prod", 0);
    metrics.rejected("prod", RejectReason::NotJson);
    metrics.delivery("soc", Outcome::Delivered, 1);
    metrics.kafka_connected("events", true);
    metrics.event_lag.observe(0.4);
    metrics.journal_fsync.observe(0.002);
    metrics.rules_loaded.set(44);
    metrics.rules_reload_success.set(1);
    metrics.rules_reload_timestamp.set(1.0);
    metrics.certificate_expiry.set(4e9);
}

#[tokio::test]
async fn every_panel_has_data_after_a_run() {
    let (scrape, stop) = run().await;
    every_panel_answers(scrape).await;
    stop.cancel();
}

/// A recorded file as bodies of two hundred events.
fn bodies(recorded: &str) -> Vec<String> {
    let lines = String::from_utf8(crate::daemon::read(&crate::daemon::fixture(recorded))).unwrap();
    let lines: Vec<&str> = lines.lines().take(400).collect();
    let head = r#"{"kind":"EventList","apiVersion":"audit.k8s.io/v1","items":["#;
    lines.chunks(200).map(|batch| format!("{head}{}]}}", batch.join(","))).collect()
}

/// What posts to the webhook over TLS, with a token.
struct ApiServer {
    client: reqwest::Client,
    token: String,
    address: String,
}

impl ApiServer {
    fn new(certificates: &Certificates, token: &str, port: u16) -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let ca = reqwest::Certificate::from_pem(&std::fs::read(&certificates.ca).unwrap()).unwrap();
        // A connection for each batch, so that some end.
        let client = reqwest::Client::builder().no_proxy().pool_max_idle_per_host(0).tls_certs_only([ca]);
        let client = client.build().unwrap();
        Self { client, token: token.into(), address: format!("https://localhost:{port}/audit/v1/prod?timeout=30s") }
    }

    async fn post(&self, body: String) {
        let answer = self.client.post(&self.address).bearer_auth(&self.token).body(body).send().await.unwrap();
        assert_eq!(answer.status(), 200);
    }
}

/// The real program under a recorded attack that goes on, because a panel shows what grew since the last scrape.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_panel_has_data_after_a_real_run() {
    let dir = tempfile::tempdir().unwrap();
    let certificates = Certificates::make(dir.path());
    let token = "a-token-only-this-test-knows";
    std::fs::write(dir.path().join("token"), token).unwrap();
    let mut daemon = Daemon::prepare(dir.path(), "");
    let config = std::fs::read_to_string(daemon.config()).unwrap();
    let secure = "tls: { cert: cert.pem, key: key.pem }\n    clusters: [{ name: prod, tokenFile: token }]";
    std::fs::write(daemon.config(), config.replace("insecureLoopback: true", secure)).unwrap();
    let daemon = tokio::task::spawn_blocking(move || {
        daemon.run();
        daemon
    });
    let daemon = daemon.await.unwrap();
    let api_server = ApiServer::new(&certificates, token, daemon.webhook);
    for body in bodies("benign/working-day.jsonl.zst") {
        api_server.post(body).await;
    }
    let stop = CancellationToken::new();
    let stream = stop.clone();
    let attack = tokio::spawn(async move {
        let (mut tick, mut round) = (interval(Duration::from_secs(1)), 0);
        while stream.run_until_cancelled(tick.tick()).await.is_some() {
            round += 1;
            for body in bodies("attacks/exec-ws/events.jsonl.zst") {
                // Other requests each time: the same ones again count once.
                api_server.post(body.replace(r#""auditID":""#, &format!(r#""auditID":"{round}-"#))).await;
            }
            api_server.post("not JSON".into()).await;
        }
    });
    every_panel_answers(SocketAddr::from(([127, 0, 0, 1], daemon.admin))).await;
    stop.cancel();
    attack.await.unwrap();
    assert!(!daemon.alerts().is_empty());
}

/// The names of metrics in an expression, each with the function that is applied directly.
fn metrics_in(expr: &str) -> Vec<(String, Option<String>)> {
    let name = regex::Regex::new(r"(?:\b(\w+)\()?\b((?:lapwing|process|apiserver)_\w+)").unwrap();
    name.captures_iter(expr)
        .map(|found| (found[2].to_owned(), found.get(1).map(|function| function.as_str().to_owned())))
        .collect()
}

fn is_counter(metric: &str) -> bool {
    ["_total", "_bucket", "_sum", "_count"].iter().any(|suffix| metric.ends_with(suffix))
}

#[track_caller]
fn lint_expr(title: &str, expr: &str) {
    for (metric, function) in metrics_in(expr) {
        let rated = matches!(function.as_deref(), Some("rate" | "increase"));
        assert_eq!(rated, is_counter(&metric), "{title}: counters, and only they, take rate or increase: `{expr}`");
        assert_ne!(function.as_deref(), Some("irate"), "{title}: irate depends on the zoom: `{expr}`");
    }
}

#[test]
fn the_dashboard_keeps_the_conventions() {
    const UNITS: [&str; 11] =
        ["short", "s", "eps", "ops", "cps", "reqps", "bytes", "percentunit", "bool_yes_no", "dateTimeFromNow", "none"];
    let dashboard = dashboard();
    assert_eq!((dashboard["uid"].as_str(), dashboard["schemaVersion"].as_i64()), (Some("lapwing-overview"), Some(39)));
    let (mut titles, mut ids) = (BTreeSet::new(), BTreeSet::new());
    for panel in panels(&dashboard) {
        let title = panel["title"].as_str().unwrap();
        assert!(!title.is_empty() && titles.insert(title), "title `{title}` is empty or used twice");
        assert!(ids.insert(panel["id"].as_i64().unwrap()), "{title}: id used twice");
        assert!(panel["description"].as_str().is_some_and(|text| text.len() > 20), "{title}: no description");
        let unit = panel["fieldConfig"]["defaults"]["unit"].as_str().unwrap_or_default();
        assert!(UNITS.contains(&unit), "{title}: unit `{unit}`");
        assert_eq!(panel["datasource"]["uid"], "${datasource}", "{title}");
        for target in panel["targets"].as_array().unwrap() {
            assert_eq!(target["datasource"]["uid"], "${datasource}", "{title}");
            let expr = target["expr"].as_str().unwrap();
            lint_expr(title, expr);
            let per_cluster = ["events_received", "last_event", "webhook_requests", "batches_total", "events_rejected"];
            if per_cluster.iter().any(|name| expr.contains(name)) {
                assert!(expr.contains("$cluster"), "{title}: does not follow the variable `cluster`: `{expr}`");
            }
        }
        if panel["type"] == "timeseries" {
            assert!(!panel.to_string().contains("$__range]"), "{title}: a graph takes $__rate_interval");
        }
    }
}

#[test]
fn panels_do_not_overlap() {
    let dashboard = dashboard();
    let mut taken = BTreeSet::new();
    for panel in dashboard["panels"].as_array().unwrap() {
        let at = |key: &str| panel["gridPos"][key].as_u64().unwrap();
        assert!(at("x") + at("w") <= 24, "{}", panel["title"]);
        for x in at("x")..at("x") + at("w") {
            for y in at("y")..at("y") + at("h") {
                assert!(taken.insert((x, y)), "{} lies on another panel", panel["title"]);
            }
        }
    }
}

#[tokio::test]
async fn only_metrics_that_exist_are_asked_for() {
    let metrics = Metrics::new(["prod"]);
    metrics.stored("prod", "webhook", 1, 1.0);
    metrics.answered(None, 401, Duration::ZERO);
    metrics.closed("done");
    fill_pipeline(&metrics);
    let text = String::from_utf8(metrics.render()).unwrap();
    let exported: BTreeSet<_> =
        text.lines().filter(|line| !line.starts_with('#')).map(|line| line.split(['{', ' ']).next().unwrap()).collect();
    let alerts = std::fs::read_to_string(file("grafana/alerts.yml")).unwrap();
    let alerts = alerts.lines().filter_map(|line| line.trim().strip_prefix("expr: "));
    let dashboard = dashboard();
    let panels = queries(&dashboard);
    let mut asked = BTreeSet::new();
    for expr in panels.iter().map(|query| query.expr.as_str()).chain(alerts) {
        lint_expr(expr, expr);
        for (metric, _) in metrics_in(expr).into_iter().filter(|(metric, _)| !metric.starts_with("apiserver_")) {
            assert!(exported.contains(metric.as_str()), "`{metric}` does not exist: `{expr}`");
            asked.insert(metric);
        }
    }
    let family =
        |name: &str| name.trim_end_matches("_bucket").trim_end_matches("_sum").trim_end_matches("_count").to_owned();
    let asked: BTreeSet<_> = asked.iter().map(|name| family(name)).collect();
    let unseen: Vec<_> =
        exported.iter().filter(|name| name.starts_with("lapwing_") && !asked.contains(&family(name))).collect();
    assert!(unseen.is_empty(), "no panel and no alert shows {unseen:?}");
}

#[test]
fn alert_rules_pass_their_tests() {
    for arguments in [["check", "rules", "grafana/alerts.yml"], ["test", "rules", "grafana/alerts.test.yml"]] {
        let output = program("promtool").args(arguments).current_dir(file(".")).output().unwrap();
        assert!(
            output.status.success(),
            "{}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
    }
}

#[test]
fn promtool_likes_our_metrics() {
    let metrics = Metrics::new(["prod"]);
    metrics.stored("prod", "webhook", 1, 1.0);
    metrics.answered(Some("prod"), 200, Duration::from_millis(2));
    metrics.closed("done");
    fill_pipeline(&metrics);
    let directory = tempfile::tempdir().unwrap();
    let text = directory.path().join("metrics");
    std::fs::write(&text, metrics.render()).unwrap();
    let text = std::fs::File::open(text).unwrap();
    let output = program("promtool").args(["check", "metrics"]).stdin(text).output().unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
}
