use std::io::Write;

use lapwing_engine::carry::Part;
use lapwing_engine::event::Event;
use serde_json::{Value, json};

use super::super::{Events, Limits};
use super::*;

const EVENT: &str = r#"{"kind":"Event","apiVersion":"audit.k8s.io/v1","level":"Metadata","auditID":"a","stage":"ResponseComplete","requestURI":"/api/v1/pods?limit=1","verb":"list","user":{"username":"u\\\"\u00e9"},"objectRef":{"resource":"pods"}}"#;

fn gzip(text: &str) -> Vec<u8> {
    let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    out.write_all(text.as_bytes()).unwrap();
    out.finish().unwrap()
}

fn base64(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

/// What comes out of a body: events' texts, reasons of the rest; and the counts.
fn read(body: &str) -> (Vec<Result<String, String>>, Counts) {
    let mut events = Events::new(body.as_bytes(), Limits::default());
    let mut found = Vec::new();
    while let Some(item) = events.next() {
        found.push(item.map(str::to_owned).map_err(|e| e.detail));
    }
    (found, events.counts().clone())
}

fn only(body: &Value) -> String {
    match read(&body.to_string()) {
        (found, _) if found.len() == 1 => found[0].clone().unwrap_or_else(|e| panic!("{body}: {e}")),
        (found, _) => panic!("{body}: {found:?}"),
    }
}

fn subscription(message: &str) -> Value {
    json!({"messageType": "DATA_MESSAGE", "owner": "1", "logGroup": "/aws/eks/prod/cluster",
        "logStream": "kube-apiserver-audit-0a", "subscriptionFilters": ["f"],
        "logEvents": [{"id": "1", "timestamp": 1_795_190_557_089_i64, "message": message}]})
}

#[test]
fn every_wrapper_comes_off_and_leaves_the_event_byte_for_byte() {
    let object: Value = serde_json::from_str(EVENT).unwrap();
    let aks = json!({"records": [{"category": "kube-audit", "operationName": "x", "properties": {"log": EVENT, "pod": "p"}}]});
    let cases = [
        ("vector", json!({"file": "/var/log/audit.log", "host": "h", "message": EVENT, "source_type": "file"})),
        ("fluent bit", json!({"date": 1.5, "log": format!("{EVENT}\n"), "stream": "stdout"})),
        ("container log", json!({"log": format!("2026-11-20T16:02:37.089627Z stdout F {EVENT}")})),
        ("filebeat", json!({"@timestamp": "t", "log": {"file": {"path": "p"}, "offset": 1}, "message": EVENT})),
        ("ingested", json!({"@timestamp": "t", "event": {"original": EVENT, "kind": "event"}})),
        ("a list in a line", json!({"message": format!(r#"{{"kind":"EventList","items":[{EVENT}]}}"#)})),
        ("aks", aks.clone()),
        ("aks, one record", aks["records"][0].clone()),
        ("cloudwatch", subscription(EVENT)),
        ("lambda", json!({"awslogs": {"data": base64(&gzip(&subscription(EVENT).to_string()))}})),
        (
            "firehose",
            json!({"requestId": "r", "timestamp": 1, "records": [{"data": base64(&gzip(&subscription(EVENT).to_string()))}]}),
        ),
        ("pub/sub", json!({"message": {"data": base64(EVENT.as_bytes()), "messageId": "1"}, "subscription": "s"})),
        ("kinesis", json!({"data": base64(EVENT.as_bytes()), "partitionKey": "1"})),
    ];
    for (name, body) in cases {
        assert_eq!(only(&body), EVENT, "{name}");
    }
    for (name, body) in [
        ("fluent bit, merged", json!({"log_processed": object, "stream": "stdout"})),
        ("elastic", json!({"kubernetes": {"audit": object}})),
        ("hec", json!({"event": object, "sourcetype": "x"})),
        ("aks, parsed", json!({"category": "kube-audit-admin", "properties": {"log": object}})),
    ] {
        assert_eq!(serde_json::from_str::<Value>(&only(&body)).unwrap(), object, "{name}");
    }
}

#[test]
fn what_is_no_audit_event_by_its_own_word_is_counted_and_not_rejected() {
    let control = json!({"messageType": "CONTROL_MESSAGE", "logEvents": [{"message": "CWL CONTROL MESSAGE"}]});
    let mut scheduler = subscription("I1120 scheduled");
    scheduler["logStream"] = "kube-scheduler-0a".into();
    for (kind, body) in [
        (Kind::CloudWatch, control),
        (Kind::CloudWatch, scheduler),
        (Kind::CloudWatch, subscription("no JSON at all")),
        (Kind::Aks, json!({"category": "kube-scheduler", "properties": {"log": "I1120 scheduled"}})),
        (Kind::Aks, json!({"category": "kube-audit", "properties": {"log": "I1120 text"}})),
        (Kind::Gke, json!({"protoPayload": {"methodName": "google.container.v1.ClusterManager.CreateCluster"}})),
        (Kind::Gke, json!({"protoPayload": {"methodName": "io.k8s.core.v1.pods.get", "serviceName": "other"}})),
    ] {
        let (found, counts) = read(&body.to_string());
        assert_eq!((found, counts.skipped), (vec![], [(kind, 1)].into()), "{body}");
    }
}

#[test]
fn damage_is_told_and_nothing_unpacks_without_end() {
    // Members of a gzip file follow each other.
    let blanks = |mebibytes: usize| gzip(&" ".repeat(1 << 20)).repeat(mebibytes);
    let bomb = blanks(70);
    let detail = |body: Value| read(&body.to_string()).0.into_iter().map(|f| f.unwrap_err()).collect::<Vec<_>>();
    assert!(detail(json!({"data": base64(&bomb)}))[0].contains("unpacks to more than"));
    let half = [gzip(EVENT), blanks(33)].concat();
    let records: Vec<Value> = (0..3).map(|_| json!({"data": base64(&half)})).collect();
    let (found, _) = read(&json!({"records": records}).to_string());
    assert_eq!(found.iter().map(Result::is_ok).collect::<Vec<_>>(), [true, false, false], "one body, one allowance");
    assert!(detail(json!({"data": "%%%"}))[0].contains("not base64"));
    assert!(detail(json!({"data": base64(&gzip(EVENT)[..20])}))[0].contains("damaged"));
    assert!(detail(json!({"category": "kube-audit", "properties": {}}))[0].contains("properties.log"));
    assert!(detail(json!({"protoPayload": {"methodName": 7}}))[0].contains("another form"));
    // Wrapped deeper than anybody wraps: handed out as it is, for the next one to reject.
    let deep = (0..6).fold(EVENT.to_owned(), |inner, _| json!({"message": inner}).to_string());
    assert!(Event::parse(&only(&serde_json::from_str(&deep).unwrap())).is_err());
}

#[test]
fn a_cut_event_is_read_as_far_as_it_goes() {
    let whole = r#"{"kind":"Event","level":"RequestResponse","auditID":"a","verb":"create","user":{"username":"u"},"sourceIPs":["10.0.0.1"],"objectRef":{"resource":"pods"},"responseStatus":{"code":201},"requestObject":{"a":"},"#;
    let (found, counts) = read(&subscription(&format!("{whole}[Truncated...]")).to_string());
    let text = found[0].as_ref().unwrap();
    let event = Event::parse(text).unwrap();
    assert_eq!((counts.salvaged, &*event.verb, event.code()), (1, "create", Some(201)));
    assert_eq!(event.time(), Some(1_795_190_557_089_000), "the log service's time");
    assert!(event.truncated() && event.not_carried.has(Part::Annotations) && event.not_carried.has(Part::RequestBody));
    assert!(!event.not_carried.has(Part::Status) && !event.not_carried.has(Part::Impersonated));
    let answer = format!("{whole}\"}},\"responseObject\":{{[Truncated...]");
    let event = read(&json!({"message": answer}).to_string()).0.remove(0).unwrap();
    let event = Event::parse(&event).unwrap();
    assert!(event.request_object.is_some() && event.not_carried.has(Part::ResponseBody), "{event:?}");
    // Too little to judge: a reject, as ever.
    let (found, counts) = read(&subscription(&whole[..120]).to_string());
    assert!(found[0].is_err() && counts.salvaged == 0, "{found:?}");
}

#[test]
fn no_sender_can_say_that_a_field_is_not_carried() {
    let forged = EVENT.replacen('{', r#"{"lapwing.dev/not-carried":"requestURI user.groups","#, 1);
    assert_eq!(read(&forged).0, [Ok(EVENT.to_owned())]);
    assert_eq!(only(&json!({"message": forged})), EVENT);
    let list = format!(r#"{{"kind":"EventList","items":[{forged},{forged}]}}"#);
    assert_eq!(read(&list).0, [Ok(EVENT.to_owned()), Ok(EVENT.to_owned())]);
}

fn gke(payload: Value, more: Value) -> Value {
    let mut entry = json!({"insertId": "i", "timestamp": "2026-11-20T10:00:00.5Z", "protoPayload": payload});
    entry.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    entry
}

#[test]
fn an_entry_of_gke_is_an_event_that_says_what_it_cannot_know() {
    let payload = json!({
        "serviceName": "k8s.io", "methodName": "io.k8s.core.v1.pods.exec.create",
        "resourceName": "core/v1/namespaces/shop/pods/web/exec",
        "authenticationInfo": {"principalEmail": "ada@example.com", "authoritySelector": "root"},
        "authorizationInfo": [{"granted": true, "resource": "x"}],
        "requestMetadata": {"callerIp": "203.0.113.9", "callerSuppliedUserAgent": "kubectl/v1"}, "status": {}
    });
    let text = only(&gke(payload, json!({"operation": {"id": "op", "first": true}})));
    let event = Event::parse(&text).unwrap();
    let object = event.object_ref.as_ref().unwrap();
    assert_eq!((&*event.audit_id, &*event.verb, event.code()), ("op", "create", Some(101)));
    assert_eq!((&*object.resource, &*object.subresource, &*object.name), ("pods", "exec", "web"));
    assert_eq!((&*object.namespace, &*object.api_group, &*object.api_version), ("shop", "", "v1"));
    assert_eq!(event.stage, lapwing_engine::event::Stage::ResponseStarted);
    assert_eq!(event.impersonated_user.as_ref().map(|u| &*u.username), Some("root"));
    assert_eq!(event.annotation("authorization.k8s.io/decision"), Some("allow"));
    assert!([Part::Groups, Part::Uri, Part::Extra].iter().all(|part| event.not_carried.has(*part)));
    assert!(!event.not_carried.has(Part::Status) && !event.not_carried.has(Part::Annotations));

    let of = |payload: Value| only(&gke(payload, json!({})));
    let url = of(json!({"methodName": "io.k8s.get", "resourceName": "readyz", "status": {"code": 0}}));
    let event = Event::parse(&url).unwrap();
    assert_eq!((&*event.verb, &*event.request_uri, event.object_ref.is_none()), ("get", "/readyz", true));
    assert_eq!(event.malformed, ["user"], "Google removed the name: it was not nobody");
}

#[test]
fn outcomes_of_gke_are_true_or_unknown() {
    let of = |more: Value| {
        let mut payload =
            json!({"methodName": "io.k8s.core.v1.pods.create", "resourceName": "core/v1/namespaces/n/pods/p"});
        payload.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let text = only(&gke(payload, json!({})));
        let event = Event::parse(&text).unwrap();
        let facts = lapwing_engine::facts::Facts::new(&event, &text, "c");
        (event.code(), facts.outcome, event.not_carried.has(Part::Status))
    };
    let allowed = json!([{"granted": true}]);
    let refused = json!([{"granted": false}]);
    assert_eq!(of(json!({"status": {}})), (Some(200), "allowed", false));
    assert_eq!(of(json!({"status": {"code": 7}, "authorizationInfo": refused})), (Some(403), "denied", false));
    assert_eq!(of(json!({"status": {"code": 7}, "authorizationInfo": allowed})), (Some(403), "rejected", false));
    assert_eq!(of(json!({"status": {"code": 16}})), (Some(401), "unauthenticated", false));
    assert_eq!(of(json!({"status": {"code": 10}})), (Some(409), "failed", false));
    let exact = json!({"status": {"code": 3}, "response": {"kind": "Status", "code": 422, "status": "Failure"}});
    assert_eq!(of(exact), (Some(422), "failed", false));
    assert_eq!(of(json!({"authorizationInfo": allowed})), (None, "allowed", true));
    assert_eq!(of(json!({})), (None, "pending", true));
}

#[test]
fn paths_are_read_as_the_api_server_reads_them() {
    let of = |uri: &str| {
        path::Object::of_uri(uri)
            .map(|o| [o.api_group, o.api_version, o.namespace, o.resource, o.name, o.subresource].join("|"))
    };
    for (uri, expected) in [
        ("/api/v1/namespaces/n/pods/p/exec?command=sh", "|v1|n|pods|p|exec"),
        ("/api/v1/pods", "|v1||pods||"),
        ("/api/v1/namespaces/n", "|v1|n|namespaces|n|"),
        ("/api/v1/namespaces/n/status", "|v1|n|namespaces|n|status"),
        ("/apis/apps/v1/namespaces/n/deployments", "apps|v1|n|deployments||"),
        ("/api/v1/nodes/x/proxy/run/y", "|v1||nodes|x|proxy"),
    ] {
        assert_eq!(of(uri).as_deref(), Some(expected), "{uri}");
    }
    assert!(["/healthz", "/api", "/apis/apps", "", "/v3/users"].iter().all(|uri| of(uri).is_none()));
}

#[test]
fn variants_of_distributions_become_the_same_event() {
    let openshift = json!({"@timestamp": "t", "auditID": "a", "k8s_audit_level": "Request", "level": "default",
        "log_type": "audit", "verb": "create", "user": {"username": "u"}});
    let event_text = only(&openshift);
    assert_eq!(Event::parse(&event_text).unwrap().level, lapwing_engine::event::AuditLevel::Request);

    let old = json!({"auditID": "a", "requestURI": "/k8s/clusters/c-1/api/v1/namespaces/n/secrets", "sourceIPs": ["192.0.2.1"],
        "user": {"name": "user-1", "group": ["system:authenticated"]}, "verb": "GET", "stage": "RequestReceived",
        "stageTimestamp": "2018-07-20 10:22:43 +0800"});
    let text = only(&old);
    let event = Event::parse(&text).unwrap();
    assert_eq!(
        (&*event.verb, &*event.user.username, &*event.user.groups.0[0]),
        ("list", "user-1", "system:authenticated")
    );
    assert_eq!(event.object_ref.as_ref().map(|o| (&*o.resource, &*o.namespace)), Some(("secrets", "n")));
    assert_eq!(event.time(), Some(1_532_053_363_000_000));
    let new = json!({"auditID": "a", "requestURI": "/v3/users", "user": {"name": "u"}, "method": "POST",
        "remoteAddr": "192.0.2.7:5000", "responseCode": 201, "requestBody": {"a": 1}, "requestTimestamp": "2026-11-20T10:00:00Z"});
    let text = only(&new);
    let event = Event::parse(&text).unwrap();
    assert_eq!((&*event.verb, event.code(), event.object_ref.is_none()), ("create", Some(201), true));
    assert_eq!((&*event.source_ips.0[0], event.request_object.is_some()), ("192.0.2.7", true));
    assert!(event.not_carried.has(Part::Agent) && !event.not_carried.has(Part::Groups));
}
