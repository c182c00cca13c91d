//! What is remembered, of whom, for how long, and what leaves nothing.

mod objects;

use serde_json::{Value as Json, json};

use super::*;
use crate::event::Event;
use crate::field::Field;
use crate::rule::view::{Scalar, Values, View};

/// What a rule reads of a field that is not there.
const NONE: Json = Json::Null;

/// A memory and a stream of events into it.
struct Stream {
    memory: Memory,
    cluster: &'static str,
    second: i64,
}

impl Stream {
    fn new() -> Self {
        Self { memory: Memory::new(100), cluster: "prod", second: 0 }
    }

    fn at(mut self, second: i64) -> Self {
        self.second = second;
        self
    }

    /// One event as the API server would tell it, ten seconds after the one before; what rules read of it.
    fn event(&mut self, actor: &str, verb: &str, target: &str, more: Json, fields: &[&str]) -> Vec<Json> {
        self.second += 10;
        let time = chrono::DateTime::from_timestamp(1_800_000_000 + self.second, 0).expect("a time");
        let mut parts = target.split('/');
        let mut next = || parts.next().unwrap_or_default();
        let (resource, namespace, name, subresource) = (next(), next(), next(), next());
        let mut event = json!({
            "level": "RequestResponse", "auditID": format!("{}", self.second), "stage": "ResponseComplete", "verb": verb,
            "requestURI": "/x", "user": {"username": actor}, "sourceIPs": ["10.0.0.1"], "userAgent": "app/v1",
            "objectRef": {"resource": resource, "namespace": namespace, "name": name, "subresource": subresource},
            "responseStatus": {"code": 200}, "requestReceivedTimestamp": time.to_rfc3339(), "stageTimestamp": time.to_rfc3339(),
        });
        for (key, value) in more.as_object().expect("an object") {
            event[key] = value.clone();
        }
        let text = event.to_string();
        let event = Event::parse(&text).expect("an event");
        let facts = Facts::new(&event, &text, self.cluster);
        let (values, places) = {
            let sight = Sight::new(&facts, &self.memory);
            (fields.iter().map(|f| json_of(&sight.values(&Field::parse(f).expect(f)))).collect(), sight.places())
        };
        self.memory.learn(&facts, places);
        values
    }

    fn told(&mut self, actor: &str, verb: &str, target: &str, more: Json) {
        self.event(actor, verb, target, more, &[]);
    }
}

fn json_of(values: &Values<'_>) -> Json {
    let one = |s: &Scalar<'_>| match s {
        Scalar::Str(s) => json!(s),
        Scalar::Int(i) => json!(i),
        Scalar::Float(f) => json!(f),
        Scalar::Bool(b) => json!(b),
        Scalar::Null => Json::Null,
    };
    match values {
        Values::One(s) => one(s),
        Values::Many(list) => list.iter().map(one).collect(),
        _ => Json::Null,
    }
}

fn privileged_pod() -> Json {
    let spec = json!({"serviceAccountName": "builder", "hostPID": true,
        "containers": [{"name": "c", "image": "i", "securityContext": {"privileged": true}}]});
    json!({"requestObject": {"metadata": {"generateName": "p-"}, "spec": spec},
        "responseObject": {"kind": "Pod", "metadata": {"name": "p-1", "uid": "u-1"}, "spec": spec}})
}

const POD: [&str; 4] = ["pod.powers", "pod.service_account", "pod.creator", "pod.age"];

#[test]
fn who_enters_a_pod_learns_what_it_can_do() {
    let mut s = Stream::new();
    s.told("alice", "create", "pods/shop", privileged_pod());
    let seen = s.event("bob", "get", "pods/shop/p-1/exec", json!({}), &POD);
    assert_eq!(seen, [json!(["privileged", "host-pid"]), json!("builder"), json!("alice"), json!(10)]);
    assert_eq!(s.event("bob", "get", "pods/shop/p-2/exec", json!({}), &POD), [NONE; 4], "another pod");
    assert_eq!(s.event("bob", "get", "pods/other/p-1/exec", json!({}), &POD), [NONE; 4], "another namespace");
    s.cluster = "test";
    assert_eq!(s.event("bob", "get", "pods/shop/p-1/exec", json!({}), &POD), [NONE; 4], "another cluster");
}

#[test]
fn what_was_refused_or_rehearsed_or_only_received_leaves_nothing() {
    let dry = json!({"requestURI": "/api/v1/namespaces/shop/pods?dryRun=All"});
    let received = json!({"stage": "RequestReceived", "responseStatus": null});
    let rejected = json!({"responseStatus": {"code": 403}, "annotations": {"authorization.k8s.io/decision": "allow"}});
    for more in
        [dry, received, json!({"responseStatus": {"code": 403}}), json!({"responseStatus": {"code": 409}}), rejected]
    {
        let mut s = Stream::new();
        let mut event = privileged_pod();
        for (key, value) in more.as_object().expect("an object") {
            event[key] = value.clone();
        }
        s.told("alice", "create", "pods/shop", event);
        assert_eq!(s.event("bob", "get", "pods/shop/p-1/exec", json!({}), &POD), [NONE; 4], "{more}");
        assert!(s.memory.pods.is_empty());
    }
}

#[test]
fn a_debug_container_adds_to_the_power_of_its_pod() {
    let debug = |privileged: bool| {
        let container = json!({"name": "d", "image": "i", "securityContext": {"privileged": privileged}});
        json!({"requestObject": {"spec": {"ephemeralContainers": [container]}}})
    };
    let mut s = Stream::new();
    s.told("alice", "patch", "pods/shop/p/ephemeralcontainers", debug(false));
    assert_eq!(s.event("a", "get", "pods/shop/p/exec", json!({}), &POD[..1]), [Json::Null], "the rest was not seen");
    s.told("alice", "patch", "pods/shop/p/ephemeralcontainers", debug(true));
    s.told("alice", "patch", "pods/shop/p/ephemeralcontainers", debug(false));
    assert_eq!(s.event("a", "get", "pods/shop/p/exec", json!({}), &POD[..1]), [json!(["privileged"])]);
}

fn pod_token(pod: &str, uid: &str, id: &str) -> Json {
    json!({"user": {"username": "system:serviceaccount:shop:app", "extra": {
        "authentication.kubernetes.io/credential-id": [format!("JTI={id}")],
        "authentication.kubernetes.io/pod-name": [pod], "authentication.kubernetes.io/pod-uid": [uid]}}})
}

#[test]
fn the_token_of_a_dead_pod_is_known_by_the_uid_or_by_its_earlier_use() {
    const DEAD: [&str; 1] = ["credential.pod_deleted"];
    let delete = |uid: &str| json!({"responseObject": {"kind": "Pod", "metadata": {"uid": uid, "deletionGracePeriodSeconds": 15}}});
    let mut s = Stream::new();
    s.told("x", "get", "secrets/shop/a", pod_token("db-0", "u-1", "t1"));
    s.told("alice", "delete", "pods/shop/db-0", delete("u-1"));
    assert_eq!(
        s.event("x", "get", "secrets/shop/a", pod_token("db-0", "u-1", "t1"), &DEAD),
        [Json::Null],
        "still in its grace"
    );
    assert_eq!(s.event("x", "get", "secrets/shop/a", pod_token("db-0", "u-1", "t1"), &DEAD), [json!(5)]);
    assert_eq!(
        s.event("x", "get", "secrets/shop/a", pod_token("db-0", "u-1", "t9"), &DEAD),
        [json!(15)],
        "another token of it"
    );
    // A stateful set makes a pod of the same name.
    let again = json!({"responseObject": {"kind": "Pod", "metadata": {"name": "db-0", "uid": "u-2"}}});
    s.told("sts", "create", "pods/shop/db-0", again);
    assert_eq!(
        s.event("x", "get", "secrets/shop/a", pod_token("db-0", "u-2", "t2"), &DEAD),
        [Json::Null],
        "the living one"
    );
    assert_eq!(s.event("x", "get", "secrets/shop/a", pod_token("db-0", "u-1", "t1"), &DEAD), [json!(20)], "replaced");
    // Where only names are told, a token first seen afterwards may belong to the next pod.
    s.told("x", "get", "secrets/shop/a", pod_token("web-1", "", "t3"));
    s.told("system:node:n1", "delete", "pods/shop/web-1", json!({"level": "Metadata"}));
    assert_eq!(s.event("x", "get", "secrets/shop/a", pod_token("web-1", "", "t3"), &DEAD), [json!(10)]);
    assert_eq!(s.event("x", "get", "secrets/shop/a", pod_token("web-1", "", "t4"), &DEAD), [Json::Null]);
}

#[test]
fn a_collection_that_is_deleted_ends_every_pod_it_names() {
    let mut s = Stream::new();
    let list = json!({"responseObject": {"kind": "PodList", "items": [{"metadata": {"name": "a", "uid": "u-a"}}]},
        "requestObject": {"gracePeriodSeconds": 0}});
    s.told("alice", "deletecollection", "pods/shop", list);
    let fields = ["credential.pod_deleted"];
    assert_eq!(s.event("x", "get", "secrets/shop/a", pod_token("a", "u-a", "t"), &fields), [json!(10)]);
}

#[test]
fn a_token_tells_who_asked_for_it_and_where_it_was_first_used() {
    const FIELDS: [&str; 9] = [
        "credential.issued_by",
        "credential.issued_kind",
        "credential.issued_from",
        "credential.issued_ago",
        "credential.first_address",
        "credential.first_client",
        "credential.new_address",
        "credential.new_client",
        "credential.seen_ago",
    ];
    let used = |address: &str, client: &str| {
        let mut event = pod_token("", "", "t1");
        event["sourceIPs"] = json!(["198.51.100.1", address]);
        event["userAgent"] = json!(client);
        event
    };
    let mut s = Stream::new();
    let issued = json!({"annotations": {"authentication.kubernetes.io/issued-credential-id": "JTI=t1"}});
    s.told("alice", "create", "serviceaccounts/shop/app/token", issued);
    let first = s.event("x", "list", "secrets/shop", used("10.0.0.7", "app/v1"), &FIELDS);
    assert_eq!(first[..4], [json!("alice"), json!("human"), json!("10.0.0.1"), json!(10)]);
    assert_eq!(first[4..], [NONE; 5], "never used before");
    let same = s.event("x", "list", "secrets/shop", used("10.0.0.7", "app/v1"), &FIELDS);
    assert_eq!(same[4..], [json!("10.0.0.7"), json!("app"), json!(false), json!(false), json!(10)]);
    let moved = s.event("x", "list", "secrets/shop", used("10.0.0.8", "curl/8"), &FIELDS);
    assert_eq!(moved[6..8], [json!(true), json!(true)]);
    for i in 0..4 {
        s.told("x", "list", "secrets/shop", used(&format!("10.0.1.{i}"), "app/v1"));
    }
    let anywhere = s.event("x", "list", "secrets/shop", used("10.0.9.9", "app/v1"), &FIELDS);
    assert_eq!(anywhere[6], Json::Null, "a credential with many addresses has no usual one");
}

#[test]
fn a_request_that_was_only_received_is_no_use_of_its_credential() {
    let mut s = Stream::new();
    let mut moved = pod_token("", "", "t1");
    s.told("x", "list", "secrets/shop", moved.clone());
    moved["sourceIPs"] = json!(["10.0.0.99"]);
    let mut received = moved.clone();
    received["stage"] = json!("RequestReceived");
    received["responseStatus"] = Json::Null;
    s.told("x", "list", "secrets/shop", received);
    assert_eq!(s.event("x", "list", "secrets/shop", moved, &["credential.new_address"]), [json!(true)]);
}

fn binding(role: &str, subjects: &[&str]) -> Json {
    let subjects: Vec<Json> = subjects.iter().map(|s| json!({"kind": "User", "name": s})).collect();
    json!({"requestObject": {"roleRef": {"kind": "Role", "name": role}, "subjects": subjects}})
}

fn by(binding: &str) -> Json {
    let reason = format!("RBAC: allowed by RoleBinding \"{binding}/shop\" of Role \"r\" to User \"bob\"");
    json!({"annotations": {"authorization.k8s.io/decision": "allow", "authorization.k8s.io/reason": reason}})
}

#[test]
fn a_right_tells_who_granted_it_and_a_removed_grant_whether_it_was_used() {
    const USE: [&str; 4] = ["right.granted_by", "right.granted_ago", "right.granted_after_denial", "actor.denied_ago"];
    const END: [&str; 4] = ["rbac.granted_by", "rbac.lived", "rbac.used", "rbac.granted_powers"];
    let mut s = Stream::new();
    s.told("bob", "get", "pods/shop/p/exec", json!({"responseStatus": {"code": 403}}));
    s.told("alice", "create", "rolebindings/shop/b", binding("r", &["bob"]));
    let used = s.event("bob", "get", "pods/shop/p/exec", by("b"), &USE);
    assert_eq!(used, [json!("alice"), json!(10), json!(true), json!(20)]);
    // Written again without a new subject it is no new grant; with one it is.
    s.told("argo", "update", "rolebindings/shop/b", binding("r", &["bob"]));
    assert_eq!(s.event("bob", "get", "pods/shop/p/exec", by("b"), &USE[..1]), [json!("alice")]);
    s.told("carol", "update", "rolebindings/shop/b", binding("r", &["bob", "eve"]));
    assert_eq!(s.event("bob", "get", "pods/shop/p/exec", by("b"), &USE[..2]), [json!("carol"), json!(10)]);
    assert_eq!(
        s.event("alice", "delete", "rolebindings/shop/b", json!({}), &END),
        [json!("carol"), json!(60), json!(true), NONE]
    );
    assert_eq!(s.event("bob", "get", "pods/shop/p/exec", by("b"), &USE[..1]), [Json::Null], "removed");
    s.told("alice", "create", "rolebindings/shop/c", binding("view-all", &["bob"]));
    s.told("alice", "create", "rolebindings/shop/c", binding("system:node", &["bob"]));
    let unused = s.event("alice", "delete", "rolebindings/shop/c", json!({}), &END);
    assert_eq!(unused[2..], [json!(false), json!(["secrets-read", "token-create"])]);
    assert_eq!(s.event("alice", "delete", "rolebindings/shop/d", json!({}), &END), [NONE; 4], "never seen");
}

fn role(rules: Json) -> Json {
    json!({"requestObject": {"rules": rules}})
}

#[test]
fn a_role_tells_what_it_gains_and_who_holds_it() {
    const GAIN: [&str; 5] =
        ["rbac.gained", "rbac.gained_powers", "rbac.holders", "rbac.gained_by_self", "rbac.prebound"];
    let read = json!({"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]});
    let secrets = json!({"apiGroups": [""], "resources": ["secrets"], "verbs": ["get"]});
    let mut s = Stream::new();
    let unknown = s.event("bob", "patch", "roles/shop/r", role(json!([read])), &GAIN);
    assert_eq!(unknown, [NONE; 5], "what it was before is not known");
    s.told("alice", "delete", "roles/shop/r", json!({}));
    s.told("alice", "create", "rolebindings/shop/b", binding("r", &["bob"]));
    let made = s.event("alice", "create", "roles/shop/r", role(json!([read])), &GAIN);
    assert_eq!(made, [json!(["get pods"]), Json::Null, json!(["user:bob"]), json!(false), json!(10)]);
    let widened = s.event("bob", "update", "roles/shop/r", role(json!([read, secrets])), &GAIN);
    assert_eq!(
        widened,
        [json!(["get secrets"]), json!(["secrets-read"]), json!(["user:bob"]), json!(true), Json::Null]
    );
    assert_eq!(s.event("bob", "update", "roles/shop/r", role(json!([read])), &GAIN[..2]), [Json::Null, Json::Null]);
    // A JSON patch writes one element; the rest is still there.
    let add = json!({"requestObject": [{"op": "add", "path": "/rules/-", "value": secrets}]});
    assert_eq!(s.event("bob", "patch", "roles/shop/r", add, &GAIN[..1]), [json!(["get secrets"])]);
    assert_eq!(
        s.event("bob", "create", "widgets/shop/r", role(json!([secrets])), &GAIN),
        [NONE; 5],
        "rules of something else"
    );
    let bound = ["rbac.gained_subjects", "rbac.gained_powers"];
    let grown = s.event("bob", "update", "rolebindings/shop/b", binding("r", &["bob", "eve"]), &bound);
    assert_eq!(grown, [json!(["user:eve"]), json!(["secrets-read"])]);
}

#[test]
fn a_certificate_tells_who_asked_and_who_approved() {
    const CSR: [&str; 3] = ["credential.csr_requested_by", "credential.csr_approved_by", "credential.csr_ago"];
    let engine = base64::engine::general_purpose::STANDARD;
    let request = base64::Engine::encode(&engine, include_str!("../../testdata/mallory.csr"));
    let spec = json!({"request": request, "signerName": "kubernetes.io/kube-apiserver-client"});
    let object = |kind: &str| json!({"responseObject": {"spec": spec, "status": {"conditions": [{"type": kind}]}}});
    let certificate = json!({"user": {"username": "mallory", "extra": {
        "authentication.kubernetes.io/credential-id": ["X509SHA256=abc"]}}});
    let target = "certificatesigningrequests//r";
    let mut s = Stream::new();
    s.told("alice", "create", target, json!({"requestObject": {"spec": spec}}));
    s.told("bob", "update", &format!("{target}/approval"), object("Denied"));
    assert_eq!(s.event("mallory", "get", "secrets/shop/a", certificate.clone(), &CSR), [NONE; 3]);
    s.told("bob", "update", &format!("{target}/approval"), object("Approved"));
    let used = s.event("mallory", "get", "secrets/shop/a", certificate, &CSR);
    assert_eq!(used, [json!("alice"), json!("bob"), json!(10)]);
    assert_eq!(s.event("mallory", "get", "secrets/shop/a", json!({}), &CSR), [NONE; 3], "a token of that name");
}

/// Half of a story of every kind.
fn half_a_story(s: &mut Stream) {
    s.told("alice", "create", "pods/shop", privileged_pod());
    s.told("x", "get", "secrets/shop/a", pod_token("p-1", "u-1", "t1"));
    s.told("bob", "get", "secrets/shop/p", json!({"responseStatus": {"code": 403}}));
    s.told("alice", "create", "rolebindings/shop/b", binding("r", &["bob"]));
    s.told("alice", "create", "resourcequotas/shop/q", json!({"requestObject": {"spec": {"hard": {"cpu": "8Ei"}}}}));
}

fn other_half(s: &mut Stream) -> Vec<Json> {
    let mut seen =
        s.event("bob", "get", "secrets/shop/p", by("b"), &["right.granted_by", "right.granted_after_denial"]);
    seen.extend(s.event("bob", "get", "pods/shop/p-1/exec", json!({}), &POD));
    seen.extend(s.event("x", "get", "secrets/shop/a", pod_token("p-1", "u-1", "t1"), &["credential.seen_ago"]));
    seen.extend(s.event("alice", "delete", "rolebindings/shop/b", json!({}), &["rbac.used"]));
    seen
}

#[test]
fn a_snapshot_goes_on_in_the_middle_of_a_story() {
    let mut a = Stream::new();
    half_a_story(&mut a);
    let stored = serde_json::to_string(&a.memory).expect("JSON");
    let mut b = Stream::new().at(a.second);
    b.memory.restore(&stored).expect("own snapshot");
    assert_eq!(serde_json::to_string(&b.memory).expect("JSON"), stored);
    let told = other_half(&mut a);
    assert!(told.iter().all(|v| !v.is_null()), "{told:?}");
    assert_eq!(told, other_half(&mut b));
    let data = |s: &Stream| serde_json::to_string(&s.memory).expect("JSON");
    assert_eq!(data(&a), data(&b));
    let mut again = Stream::new();
    half_a_story(&mut again);
    assert_eq!(serde_json::to_string(&again.memory).expect("JSON"), stored, "the same from the same");
}

#[test]
fn what_fills_memory_is_counted_and_costs_no_more_than_the_cap() {
    let mut s = Stream::new();
    s.memory = Memory::new(3);
    let long = "é".repeat(100_000);
    for i in 0..10 {
        let spec = json!({"serviceAccountName": long, "containers": [{"name": "c", "image": long}]});
        s.told(
            &format!("{i}{long}"),
            "create",
            &format!("pods/shop/p{i}\u{0}\"{long}"),
            json!({"requestObject": {"spec": spec}}),
        );
    }
    let (_, entries, evicted) = s.memory.sizes().find(|(kind, ..)| *kind == "pods").expect("pods");
    assert_eq!((entries, evicted), (3, 7));
    let size = serde_json::to_string(&s.memory).expect("JSON").len();
    assert!(size < 10_000, "{size} bytes");
}
