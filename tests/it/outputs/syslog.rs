//! Syslog against rsyslogd, over TCP, TLS and UDP, and against syslog-ng.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use lapwing::output::{Failure, Output, cef, encode};
use lapwing_engine::alert::Alert;
use serde_json::{Value, json};

use super::alertmanager::free_port;
use super::{Certificates, EVIL, Server, alert, config, evil, lines, until};

const PACKAGES: &str = "apt-get install rsyslog rsyslog-gnutls";

/// A running rsyslogd that writes each record it understood as a line of JSON.
struct Rsyslog {
    _server: Server,
    port: u16,
}

impl Rsyslog {
    /// `port` 0 takes a free one.
    async fn start(dir: &Path, port: u16, tls: Option<&Certificates>) -> Self {
        let (conf, port_file) = (dir.join("rsyslog.conf"), dir.join("port"));
        // Left behind by one that was killed.
        for old in [&port_file, &dir.join("pid")] {
            let _ = std::fs::remove_file(old);
        }
        std::fs::write(&conf, configuration(dir, port, tls)).unwrap();
        let rsyslogd = ["/usr/sbin/rsyslogd", "/sbin/rsyslogd"].into_iter().find(|p| Path::new(p).exists());
        let log = std::fs::File::create(dir.join("log")).unwrap();
        let mut command = Command::new(rsyslogd.unwrap_or("rsyslogd"));
        command.arg("-n").arg("-f").arg(&conf).arg("-i").arg(dir.join("pid"));
        let server = Server::start(command.stdout(Stdio::null()).stderr(log), PACKAGES);
        let log = dir.join("log");
        let what = || format!("rsyslogd to listen; if it lacks a module: {PACKAGES}; it says: {:?}", lines(&log));
        // rsyslogd writes down only a port it chose itself.
        let given = || std::net::TcpStream::connect(("127.0.0.1", port)).ok().map(|_| port);
        let chosen = || lines(&port_file).first()?.parse().ok();
        let port = until(what, || if port == 0 { chosen() } else { given() }).await;
        Self { _server: server, port }
    }
}

fn configuration(dir: &Path, port: u16, tls: Option<&Certificates>) -> String {
    let dir = dir.display();
    let input = format!("port=\"{port}\" address=\"127.0.0.1\" listenPortFileName=\"{dir}/port\" ruleset=\"all\"");
    let (global, input) = match tls {
        None => (String::new(), format!("module(load=\"imptcp\")\ninput(type=\"imptcp\" {input})")),
        Some(c) => (
            format!(
                "defaultNetstreamDriver=\"gtls\" defaultNetstreamDriverCAFile=\"{}\" \
                 defaultNetstreamDriverCertFile=\"{}\" defaultNetstreamDriverKeyFile=\"{}\"",
                c.ca.display(),
                c.cert.display(),
                c.key.display()
            ),
            format!(
                "module(load=\"imtcp\" streamDriver.name=\"gtls\" streamDriver.mode=\"1\" streamDriver.authMode=\"anon\")\n\
                 input(type=\"imtcp\" {input})"
            ),
        ),
    };
    let property = |name: &str| format!("  property(outname=\"{name}\" name=\"{name}\" format=\"jsonf\")\n");
    let properties: String = ["pri", "hostname", "app-name", "msgid", "structured-data", "msg"].map(property).concat();
    // A given port is listened on for datagrams, too.
    let datagrams =
        format!("module(load=\"imudp\")\ninput(type=\"imudp\" port=\"{port}\" address=\"127.0.0.1\" ruleset=\"all\")");
    let input = if port == 0 { input } else { format!("{input}\n{datagrams}") };
    format!(
        "global(workDirectory=\"{dir}\" {global})\n\
         template(name=\"rec\" type=\"list\" option.jsonf=\"on\") {{\n{properties}}}\n\
         ruleset(name=\"all\") {{ action(type=\"omfile\" file=\"{dir}/records\" template=\"rec\") }}\n{input}\n"
    )
}

fn records(dir: &Path) -> Vec<Value> {
    let mut lines = lines(&dir.join("records"));
    // The last line may still be on its way to the disk.
    if lines.last().is_some_and(|l| serde_json::from_str::<Value>(l).is_err()) {
        lines.pop();
    }
    lines.iter().map(|l| serde_json::from_str(l).unwrap_or_else(|e| panic!("{e}: {l}"))).collect()
}

fn ids(dir: &Path) -> Vec<String> {
    let id = |r: &Value| r["structured-data"].as_str().unwrap().split('"').nth(1).unwrap().to_owned();
    records(dir).iter().map(id).collect()
}

async fn wait_for(dir: &Path, count: usize) -> Vec<Value> {
    until(
        || format!("{count} records at rsyslogd, which has {:?}", ids(dir)),
        || Some(records(dir)).filter(|r| r.len() >= count),
    )
    .await
}

/// Plain, hostile and large alerts: one record each, nothing cut or torn, text intact.
async fn round_trip(format: &str, tls: bool) {
    let dir = tempfile::tempdir().unwrap();
    let certificates = tls.then(|| Certificates::make(dir.path()));
    let server = Rsyslog::start(dir.path(), 0, certificates.as_ref()).await;
    let mut settings =
        json!({ "type": "syslog", "name": "siem", "address": format!("localhost:{}", server.port), "format": format });
    if let Some(c) = &certificates {
        settings["tls"] = json!({ "ca": c.ca });
    }
    let mut output = Output::new(&config(settings)).unwrap();
    let mut large = evil("3");
    large.why = "é".repeat(9000);
    large.evidence[0].user_agent = "|=]\"\\\n".repeat(9000);
    let sent = [alert("1"), evil("2"), large, alert("4")];
    for alert in &sent {
        output.deliver(&[alert]).await.unwrap();
    }
    let records = wait_for(dir.path(), sent.len()).await;
    assert_eq!(ids(dir.path()), ["1", "2", "3", "4"]);
    for (record, alert) in records.iter().zip(&sent) {
        let cluster = format!("cluster=\"{}\"]", encode::sd_value(&encode::cap(&alert.cluster, 64)));
        assert!(record["structured-data"].as_str().unwrap().ends_with(&cluster), "{record}");
        assert_eq!(
            (&record["pri"], &record["msgid"], &record["app-name"]),
            (&json!("131"), &json!("alert-new"), &json!("lapwing"))
        );
        let text = record["msg"].as_str().unwrap().trim_start();
        if format == "leef" {
            assert!(text.starts_with("LEEF:2.0|Lapwing|Lapwing|"), "{text}");
            assert!(text.contains(&format!("msg={}", encode::leef_value(&alert.summary))), "{text}");
        } else if format == "json" {
            let value: Value = serde_json::from_str(text).unwrap();
            assert_eq!(value["summary"], alert.summary.as_str());
            if alert.id != "3" {
                assert_eq!(&serde_json::from_str::<Alert>(text).unwrap(), alert);
            }
        } else {
            assert!(text.contains(&format!("msg={}", encode::cef_value(&alert.summary))), "{text}");
            if alert.id != "3" {
                assert_eq!(text, cef::encode(alert, 7800));
            }
        }
    }
}

#[tokio::test]
async fn cef_over_tcp() {
    round_trip("cef", false).await;
}

#[tokio::test]
async fn json_over_tcp() {
    round_trip("json", false).await;
}

#[tokio::test]
async fn leef_over_tcp() {
    round_trip("leef", false).await;
}

#[tokio::test]
async fn each_datagram_is_one_record() {
    let dir = tempfile::tempdir().unwrap();
    let server = Rsyslog::start(dir.path(), free_port(), None).await;
    let settings = json!({ "type": "syslog", "name": "siem", "address": format!("localhost:{}", server.port),
        "transport": "udp", "format": "json" });
    let mut output = Output::new(&config(settings)).unwrap();
    for id in ["1", "2", "3"] {
        output.deliver(&[&evil(id)]).await.unwrap();
    }
    let records = wait_for(dir.path(), 3).await;
    assert_eq!(ids(dir.path()), ["1", "2", "3"]);
    let text = records[1]["msg"].as_str().unwrap().trim_start();
    assert_eq!(serde_json::from_str::<Alert>(text).unwrap(), evil("2"));
}

/// A running syslog-ng, unpacked by scripts/need, that writes what it understood as lines of JSON.
async fn syslog_ng(dir: &Path) -> (Server, u16) {
    let place = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("target/syslog-ng/usr");
    let port = free_port();
    let pairs = "--pair level=\"${LEVEL_NUM}\" --pair msgid=\"${MSGID}\" --pair msg=\"${MESSAGE}\" \
                 --pair id=\"${.SDATA.lapwing@32473.alert_id}\" --pair cluster=\"${.SDATA.lapwing@32473.cluster}\"";
    let records = dir.join("records");
    let text = format!(
        "@version: 3.38\n@requires json-plugin\n\
         source s {{ syslog(ip(\"127.0.0.1\") port({port}) transport(\"tcp\")); }};\n\
         destination d {{ file(\"{}\" template(\"$(format-json {})\\n\")); }};\nlog {{ source(s); destination(d); }};\n",
        records.display(),
        pairs.replace('"', "\\\"")
    );
    std::fs::write(dir.join("ng.conf"), text).unwrap();
    let mut command = Command::new(place.join("sbin/syslog-ng"));
    command.env("LD_LIBRARY_PATH", place.join("lib/syslog-ng")).arg("-F").arg("--no-caps");
    command.arg(format!("--module-path={}", place.join("lib/syslog-ng/3.38").display()));
    for (flag, name) in
        [("--cfgfile", "ng.conf"), ("--persist-file", "persist"), ("--control", "ctl"), ("--pidfile", "pid")]
    {
        command.arg(format!("{flag}={}", dir.join(name).display()));
    }
    let log = std::fs::File::create(dir.join("log")).unwrap();
    let server = Server::start(command.stdout(Stdio::null()).stderr(log), "scripts/need build test");
    let listens = || std::net::TcpStream::connect(("127.0.0.1", port)).ok();
    until(|| format!("syslog-ng to listen; it says {:?}", lines(&dir.join("log"))), listens).await;
    (server, port)
}

#[tokio::test]
async fn syslog_ng_reads_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let (_server, port) = syslog_ng(dir.path()).await;
    for format in ["json", "cef"] {
        let settings =
            json!({ "type": "syslog", "name": "siem", "address": format!("localhost:{port}"), "format": format });
        let mut output = Output::new(&config(settings)).unwrap();
        for alert in [alert("1"), evil("2")] {
            output.deliver(&[&alert]).await.unwrap();
        }
    }
    let told = || format!("4 records; there are {:?}", lines(&dir.path().join("records")));
    let records = until(told, || Some(records(dir.path())).filter(|r| r.len() == 4)).await;
    let of = |format: &str, id: &str| {
        let start = if format == "cef" { "CEF:0|" } else { "{" };
        let found = records.iter().find(|r| r["id"] == id && r["msg"].as_str().unwrap().starts_with(start));
        found.unwrap_or_else(|| panic!("{format} {id}: {records:?}")).clone()
    };
    let second = of("json", "2");
    assert_eq!(serde_json::from_str::<Alert>(second["msg"].as_str().unwrap()).unwrap(), evil("2"));
    assert_eq!((&second["level"], &second["msgid"]), (&json!("3"), &json!("alert-new")));
    assert_eq!(of("cef", "2")["msg"], cef::encode(&evil("2"), 7800));
    assert_eq!(of("json", "1")["cluster"], "prod");
}

#[tokio::test]
async fn cef_over_tls() {
    round_trip("cef", true).await;
}

#[tokio::test]
async fn json_over_tls() {
    round_trip("json", true).await;
}

#[tokio::test]
async fn a_receiver_with_a_foreign_certificate_gets_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let certificates = Certificates::make(dir.path());
    let server = Rsyslog::start(dir.path(), 0, Some(&certificates)).await;
    let deliver = async |tls: Value| {
        let settings =
            json!({ "type": "syslog", "name": "siem", "address": format!("localhost:{}", server.port), "tls": tls });
        Output::new(&config(settings)).unwrap().deliver(&[&alert("1")]).await
    };
    for tls in
        [json!({ "ca": certificates.other_ca }), json!({ "ca": certificates.ca, "serverName": "siem.example.org" })]
    {
        let answer = deliver(tls).await;
        assert!(matches!(&answer, Err(Failure::Retry { reason, .. }) if reason.contains("certificate")), "{answer:?}");
    }
    deliver(json!({ "ca": certificates.ca })).await.unwrap();
    assert_eq!(wait_for(dir.path(), 1).await.len(), 1);

    let dir = tempfile::tempdir().unwrap();
    let mut certificates = Certificates::make(dir.path());
    certificates.cert = certificates.expired.clone();
    let server = Rsyslog::start(dir.path(), 0, Some(&certificates)).await;
    let settings = json!({ "type": "syslog", "name": "siem", "address": format!("localhost:{}", server.port),
        "tls": { "ca": certificates.ca } });
    let answer = Output::new(&config(settings)).unwrap().deliver(&[&alert("1")]).await;
    assert!(matches!(&answer, Err(Failure::Retry { reason, .. }) if reason.contains("certificate")), "{answer:?}");
}

#[tokio::test]
async fn nothing_is_lost_when_the_receiver_restarts() {
    let dir = tempfile::tempdir().unwrap();
    let server = Rsyslog::start(dir.path(), 0, None).await;
    let port = server.port;
    let settings =
        json!({ "type": "syslog", "name": "siem", "address": format!("127.0.0.1:{port}"), "format": "json" });
    let mut output = Output::new(&config(settings)).unwrap();
    output.deliver(&[&alert("1")]).await.unwrap();
    wait_for(dir.path(), 1).await;
    drop(server);
    let while_down = output.deliver(&[&evil("2")]).await;
    assert!(matches!(while_down, Err(Failure::Retry { .. })), "{while_down:?}");

    let _server = Rsyslog::start(dir.path(), port, None).await;
    // 1 may have been lost with the connection for all a sender can know: it comes again, before the next.
    output.tend().await.unwrap();
    output.deliver(&[&evil("2")]).await.unwrap();
    output.tend().await.unwrap();
    wait_for(dir.path(), 3).await;
    assert_eq!(ids(dir.path()), ["1", "1", "2"]);
    let text = records(dir.path())[2]["msg"].as_str().unwrap().to_owned();
    assert_eq!(serde_json::from_str::<Alert>(text.trim_start()).unwrap().summary, EVIL);
}
