//! OpenSearch, the real one, from its published artifacts (`scripts/need` fetches them).

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use lapwing::output::{Failure, Output};
use serde_json::{Value, json};

use super::alertmanager::{free_port, get};
use super::{EVIL, Server, alert, config, evil};

struct OpenSearch {
    _server: Server,
    _dir: tempfile::TempDir,
    url: String,
}

impl OpenSearch {
    async fn start() -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let (dir, port) = (tempfile::tempdir().unwrap(), free_port());
        let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
        let jars = root.join("target/opensearch");
        assert!(jars.is_dir(), "no `{}`; scripts/need build test fetches it", jars.display());
        let mut command = Command::new("java");
        command
            .args(["-Xms256m", "-Xmx512m", "-cp"])
            .arg(format!("{}/*", jars.display()))
            .arg(root.join("tests/it/servers/opensearch/OpenSearch.java"))
            .arg(dir.path().join("node"))
            .arg(port.to_string())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let server = Server::start(&mut command, "openjdk-17-jdk-headless");
        let up = Self { _server: server, _dir: dir, url: format!("http://127.0.0.1:{port}") };
        for _ in 0..600 {
            if get(&up.url).await.is_some() {
                return up;
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        panic!("OpenSearch did not start");
    }

    async fn get(&self, path: &str) -> Value {
        get(&format!("{}/{path}", self.url)).await.unwrap_or_default()
    }

    async fn documents(&self, index: &str) -> Vec<Value> {
        self.get(&format!("{index}/_refresh")).await;
        let found = self.get(&format!("{index}/_search?size=100&sort=_id")).await;
        found["hits"]["hits"].as_array().cloned().unwrap_or_default()
    }

    fn output(&self, more: Value) -> Output {
        let mut settings = json!({ "type": "elasticsearch", "name": "search", "url": self.url });
        settings.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        Output::new(&config(settings)).unwrap()
    }
}

#[tokio::test]
async fn documents_arrive_once_in_a_stream_that_no_alert_can_widen() {
    let search = OpenSearch::start().await;
    let mut output = search.output(json!({}));
    let mut large = evil("3");
    large.evidence = vec![large.evidence[0].clone(); 10];
    large.evidence[0].user_agent = "é".repeat(200_000);
    output.deliver(&[&alert("1"), &evil("2"), &alert("1")]).await.unwrap();
    output.deliver(&[&alert("1"), &large]).await.unwrap();
    let documents = search.documents("lapwing-alerts").await;
    let ids: Vec<_> = documents.iter().map(|d| d["_id"].as_str().unwrap()).collect();
    assert_eq!(ids, ["1.new", "2.new", "3.new"], "a repetition is the same document");
    let first = &documents[0]["_source"];
    assert_eq!((&first["event"]["kind"], &first["rule"]["id"]), (&json!("alert"), &json!("exec")));
    assert_eq!(first["threat"]["technique"]["id"], json!(["T1609"]));
    assert_eq!(first["source"]["ip"], "203.0.113.7");
    assert_eq!(documents[1]["_source"]["user"]["name"], EVIL, "as it was, in one field");
    assert_eq!(documents[2]["_source"]["lapwing"]["truncated"], true);
    let mapping = search.get("lapwing-alerts/_mapping").await.to_string();
    assert!(mapping.contains("flat_object") && mapping.len() < 5000, "{mapping}");
    for query in ["user.name:alice", "lapwing.rule.id:exec", "source.ip:203.0.113.7", "threat.technique.id:T1609"] {
        let found = search.get(&format!("lapwing-alerts/_search?q={query}")).await;
        assert!(found["hits"]["total"]["value"].as_u64().unwrap() >= 1, "{query}: {found}");
    }

    // A stream whose mapping a document does not fit: the receiver refuses it, and only it.
    let template = json!({ "index_patterns": ["odd"], "data_stream": {}, "template": { "mappings": {
        "properties": { "message": { "type": "ip" } } } } });
    let client = reqwest::Client::new();
    let put = client.put(format!("{}/_index_template/odd", search.url)).json(&template).send().await.unwrap();
    assert!(put.status().is_success(), "{put:?}");
    let mut odd = search.output(json!({ "index": "odd", "manageTemplate": false }));
    let mut fits = alert("2");
    fits.summary = "10.0.0.1".into();
    match odd.deliver(&[&alert("1"), &fits]).await {
        Err(Failure::Partial { refused, again, .. }) => {
            assert_eq!((refused[0].0, refused.len(), again.len()), (0, 1, 0));
            assert!(refused[0].1.contains("failed to parse field [message]"), "{refused:?}");
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(search.documents("odd").await.len(), 1);
}
