//! How fast records become durable events, beside kcat reading the same topic. `tests/kafka-speed` runs it with a release
//! build.

use std::collections::BTreeMap;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};

use super::broker::Broker;
use super::real::detector;
use crate::daemon::{Daemon, fixture, read, until};

/// How often the working day is sent.
fn copies() -> usize {
    std::env::var("LAPWING_COPIES").ok().and_then(|n| n.parse().ok()).unwrap_or(40)
}

/// Seconds of CPU each thread of a process has used, by name, and clock ticks a second as the kernel counts them.
fn cpu(daemon: &Daemon) -> BTreeMap<String, f64> {
    let mut used = BTreeMap::new();
    for task in std::fs::read_dir(format!("/proc/{}/task", daemon.pid())).expect("threads").flatten() {
        let Ok(stat) = std::fs::read_to_string(task.path().join("stat")) else { continue };
        let (name, rest) = stat.split_once('(').and_then(|(_, s)| s.rsplit_once(')')).expect("a name");
        let times: Vec<f64> = rest.split_whitespace().skip(11).take(2).map(|t| t.parse().expect("ticks")).collect();
        *used.entry(name.to_owned()).or_default() += (times[0] + times[1]) / 100.0;
    }
    used
}

#[test]
#[ignore = "a measurement: wants a release build and kcat"]
fn consuming_to_the_journal_beside_kcat() {
    let broker = Broker::start(1);
    let bytes = read(&fixture("benign/working-day.jsonl.zst"));
    let lines: Vec<&str> = std::str::from_utf8(&bytes).expect("UTF-8").lines().collect();
    let producer: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", broker.address())
        .set("compression.type", "zstd")
        .set("linger.ms", "20")
        .create()
        .expect("a producer");
    for line in (0..copies()).flat_map(|_| &lines) {
        while producer.send(BaseRecord::<(), str>::to("audit").payload(line)).is_err() {
            producer.poll(Duration::from_millis(50));
        }
    }
    producer.flush(Duration::from_secs(120)).expect("delivered");
    let (count, mebibytes) = (copies() * lines.len(), (copies() * bytes.len()) as f64 / f64::from(1 << 20));
    eprintln!("{count} events, {mebibytes:.0} MiB of JSON");

    let before = Instant::now();
    let kcat = Command::new("bash")
        .args([
            "-c",
            &format!("TIMEFORMAT='%U %S'; time kcat -C -b {} -t audit -o beginning -e -q >/dev/null", broker.address()),
        ])
        .stderr(Stdio::piped())
        .output()
        .expect("kcat runs");
    let wall = before.elapsed().as_secs_f64();
    let said = String::from_utf8_lossy(&kcat.stderr).into_owned();
    let used: f64 = said.split_whitespace().filter_map(|t| t.parse::<f64>().ok()).sum();
    eprintln!("kcat: {:.0} events/s, {:.0} events per CPU second", count as f64 / wall, count as f64 / used);

    let dir = tempfile::tempdir().expect("a directory");
    let mut daemon = detector(dir.path(), &[format!("name: speed, brokers: [\"{}\"], group: speed", broker.address())]);
    let before = Instant::now();
    daemon.run();
    let received = |d: &Daemon| d.metric("lapwing_events_received_total{cluster=\"prod\",source=\"kafka\"}");
    until("everything in the journal", || (received(&daemon) >= count as f64).then_some(()));
    let wall = before.elapsed().as_secs_f64();
    let used = cpu(&daemon);
    let way_in = |name: &str| {
        name.starts_with("kafka-") || name.starts_with("rdk:") || name.starts_with("tokio") || name == "journal"
    };
    let consuming: f64 = used.iter().filter(|(name, _)| way_in(name)).map(|(_, seconds)| seconds).sum();
    eprintln!(
        "lapwing: {:.0} events/s into the journal beside engine and index, {:.0} events per CPU second of the way in\n{used:.1?}",
        count as f64 / wall,
        count as f64 / consuming
    );
    assert!(daemon.stop().success());
}
