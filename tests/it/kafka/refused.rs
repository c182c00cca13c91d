//! Brokers that let nobody in, or only others: a certificate for another host, one that has ended, a client certificate that
//! is missing or foreign, a wrong password. Each is named with what to do, nothing is lost, and what is mended is noticed
//! without a restart.

use std::collections::BTreeSet;
use std::path::Path;

use super::broker::{Broker, PASSWORD};
use super::output::all;
use super::real::Sender;
use crate::daemon::{Daemon, until};

/// A refusal, what is said of it, and whether the broker has to be mended or our files.
struct Case {
    name: &'static str,
    port: u16,
    /// Of the source and of the output.
    settings: String,
    said: String,
    at_broker: bool,
}

fn cases(broker: &Broker, dir: &Path) -> Vec<Case> {
    let file = |name: &str| dir.join(name).display().to_string();
    let ca = broker.certificates.ca.display();
    let ssl = |more: &str| format!("properties: {{ security.protocol: SSL, ssl.ca.location: \"{ca}\"{more} }}");
    let own = format!(
        ", ssl.certificate.location: \"{}\", ssl.key.location: \"{}\"",
        file("client.pem"),
        broker.certificates.key.display()
    );
    let scram = format!(
        "passwordFile: \"{}\", properties: {{ security.protocol: SASL_SSL, sasl.mechanisms: SCRAM-SHA-512, \
         sasl.username: lapwing, ssl.ca.location: \"{ca}\" }}",
        file("password")
    );
    let case = |name, port, settings: &str, said: &str, at_broker| {
        let said = said.replace("BROKER", &format!("127.0.0.1:{port}"));
        Case { name, port, settings: settings.to_owned(), said, at_broker }
    };
    let host = "the certificate of BROKER is for elsewhere.example.org, not for `127.0.0.1`; name the broker as";
    let ended = "the certificate of BROKER ended on 2025-01-01; have it renewed";
    let wanted = "BROKER wants a client certificate; set `ssl.certificate.location`";
    let foreign = "BROKER refuses the client certificate in `";
    let password = "the broker does not take the user `lapwing` with this password; correct";
    vec![
        case("elsewhere", broker.elsewhere, &ssl(""), host, true),
        case("expired", broker.expired, &ssl(""), ended, true),
        case("nameless", broker.mutual, &ssl(""), wanted, true),
        case("foreign", broker.mutual, &ssl(&own), foreign, false),
        case("password", broker.scram, &scram, password, false),
    ]
}

/// A daemon with a source and an output for each case, and a source that is let in.
fn daemon(broker: &Broker, cases: &[Case], dir: &Path) -> Daemon {
    let (mut sources, mut outputs) = (String::new(), String::new());
    for Case { name, port, settings, .. } in cases {
        let client = format!("brokers: [\"127.0.0.1:{port}\"], {settings}");
        sources += &format!("    - {{ name: from-{name}, topics: [audit], cluster: prod, group: {name}, {client} }}\n");
        outputs += &format!(
            "  - {{ name: to-{name}, type: kafka, topic: to-{name}, minLevel: low, retry: {{ maxWaitSeconds: 1 }}, {client} }}\n"
        );
    }
    sources += &format!(
        "    - {{ name: let-in, topics: [audit], cluster: prod, group: let-in, brokers: [\"{}\"] }}\n",
        broker.address()
    );
    let daemon = Daemon::prepare(dir, &outputs);
    let config = std::fs::read_to_string(daemon.config()).expect("read");
    std::fs::write(daemon.config(), config.replace("outputs:", &format!("  kafka:\n{sources}outputs:")))
        .expect("written");
    daemon
}

const EVENTS: usize = 5;

fn connected(daemon: &Daemon, source: &str) -> f64 {
    daemon.metric(&format!("lapwing_kafka_connected{{source=\"{source}\"}}"))
}

fn delivered(daemon: &Daemon, case: &Case, outcome: &str) -> f64 {
    let name = case.name;
    daemon.metric(&format!("lapwing_output_deliveries_total{{outcome=\"{outcome}\",output=\"to-{name}\"}}"))
}

#[test]
fn who_is_refused_says_why_and_goes_on_when_that_is_mended() {
    let mut broker = Broker::start(1);
    let dir = tempfile::tempdir().expect("a directory");
    std::fs::write(dir.path().join("password"), "of-yesterday").expect("written");
    std::fs::copy(&broker.certificates.foreign, dir.path().join("client.pem")).expect("copied");
    let cases = cases(&broker, dir.path());
    let mut daemon = daemon(&broker, &cases, dir.path());
    daemon.run();
    Sender::new(&broker.address()).send(EVENTS, std::time::Duration::ZERO, 0..1);
    let received = |d: &Daemon| d.metric("lapwing_events_received_total{cluster=\"prod\",source=\"kafka\"}");

    until("the source that is let in", || (connected(&daemon, "let-in") == 1.0).then_some(()));
    until("its events", || (received(&daemon) >= EVENTS as f64).then_some(()));
    for case in &cases {
        for (end, said) in [("from", "trying again"), ("to", "will try again")] {
            let (who, why) = (format!("{end}-{}\"", case.name), &case.said);
            let mut log = String::new();
            let told = |log: &str| log.lines().any(|l| l.contains(&who) && l.contains(why) && l.contains(said));
            let deadline = std::time::Instant::now() + crate::daemon::PATIENCE;
            while !told(&log) {
                assert!(std::time::Instant::now() < deadline, "{who} does not say `{why}`");
                std::thread::park_timeout(std::time::Duration::from_millis(100));
                log = daemon.log();
            }
        }
        assert_eq!(connected(&daemon, &format!("from-{}", case.name)), 0.0, "{}", case.name);
        assert_eq!(
            (delivered(&daemon, case, "delivered"), delivered(&daemon, case, "dead")),
            (0.0, 0.0),
            "{}",
            case.name
        );
    }
    assert!(!daemon.log().contains("of-yesterday"));

    let there = |daemon: &Daemon, at_broker: bool| {
        for case in cases.iter().filter(|c| c.at_broker == at_broker) {
            let source = format!("from-{}", case.name);
            until(&source, || (connected(daemon, &source) == 1.0).then_some(()));
            until(case.name, || (delivered(daemon, case, "delivered") >= EVENTS as f64).then_some(()));
        }
    };
    // What is ours is read again.
    std::fs::write(dir.path().join("password"), PASSWORD).expect("written");
    std::fs::copy(&broker.certificates.cert, dir.path().join("client.pem")).expect("copied");
    there(&daemon, false);
    until("the events of three", || (received(&daemon) >= (3 * EVENTS) as f64).then_some(()));
    broker.mend();
    there(&daemon, true);
    until("the events of all", || (received(&daemon) >= (6 * EVENTS) as f64).then_some(()));
    assert_eq!(received(&daemon), (6 * EVENTS) as f64, "each reads each once");
    assert!(!daemon.log().contains(PASSWORD));

    let alerts = daemon.alerts();
    let wanted: BTreeSet<_> = alerts
        .iter()
        .filter(|a| a["status"] == "new")
        .map(|a| format!("{}.new", a["id"].as_str().unwrap_or_default()))
        .collect();
    assert!(wanted.len() >= EVENTS, "{alerts:?}");
    assert!(daemon.stop().success(), "{}", daemon.log());
    for case in &cases {
        let got: Vec<_> = all(&broker, &format!("to-{}", case.name), EVENTS).into_iter().map(|g| g.id).collect();
        let new: BTreeSet<_> = got.iter().filter(|id| id.ends_with(".new")).cloned().collect();
        assert_eq!((new.len(), &new), (got.iter().filter(|id| id.ends_with(".new")).count(), &wanted), "{}", case.name);
    }
}
