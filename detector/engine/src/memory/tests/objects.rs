//! What is remembered of guards, refusals, volumes, workloads and quotas.

use super::*;

#[test]
fn a_weakened_guard_is_remembered_where_it_guarded() {
    const WEAK: [&str; 3] = ["admission.weakened", "admission.weakened_ago", "admission.weakened_by"];
    let label =
        |level: &str| json!({"requestObject": {"metadata": {"labels": {"pod-security.kubernetes.io/enforce": level}}}});
    let mut s = Stream::new();
    s.told("alice", "create", "namespaces//shop", label("privileged"));
    assert_eq!(s.event("bob", "create", "pods/shop/p", json!({}), &WEAK), [NONE; 3], "made so");
    s.told("alice", "patch", "namespaces//shop", label("restricted"));
    assert_eq!(s.event("bob", "create", "pods/shop/p", json!({}), &WEAK), [NONE; 3], "stricter");
    s.told("eve", "patch", "namespaces//shop", label("baseline"));
    let weak = s.event("bob", "create", "pods/shop/p", json!({}), &WEAK);
    assert_eq!(weak, [json!("namespaces shop"), json!(10), json!("eve")]);
    assert_eq!(s.event("bob", "create", "pods/other/p", json!({}), &WEAK), [NONE; 3]);
    let hook = |policy: &str| json!({"requestObject": {"webhooks": [{"name": "a", "failurePolicy": policy}]}});
    s.told("alice", "create", "validatingwebhookconfigurations//w", hook("Fail"));
    s.told("alice", "update", "validatingwebhookconfigurations//w", hook("Fail"));
    assert_eq!(s.event("bob", "create", "pods/other/p", json!({}), &WEAK), [NONE; 3]);
    s.told("eve", "patch", "validatingwebhookconfigurations//w", hook("Ignore"));
    assert_eq!(s.event("bob", "create", "pods/other/p", json!({}), &WEAK[2..]), [json!("eve")]);
    s.told("mallory", "delete", "validatingadmissionpolicies//q", json!({}));
    let all = s.event("bob", "create", "pods/shop/p", json!({}), &WEAK);
    assert_eq!(all, [json!("validatingadmissionpolicies q"), json!(10), json!("mallory")], "the newest counts");
}

#[test]
fn a_refused_workload_is_known_again_by_name_or_image() {
    const REFUSED: [&str; 2] = ["admission.refused_ago", "admission.refused_in"];
    let pod = |image: &str, code: i64| {
        json!({"requestObject": {"spec": {"containers": [{"name": "c", "image": image}]}}, "responseStatus": {"code": code},
            "annotations": {"authorization.k8s.io/decision": "allow"}})
    };
    let mut s = Stream::new();
    s.told("eve", "create", "pods/shop/a", pod("evil", 403));
    assert_eq!(s.event("eve", "create", "pods/lab/b", pod("evil", 201), &REFUSED), [json!(10), json!("shop")]);
    assert_eq!(s.event("eve", "create", "pods/lab/a", pod("other", 201), &REFUSED), [json!(20), json!("shop")]);
    assert_eq!(s.event("eve", "create", "pods/lab/c", pod("other", 201), &REFUSED), [NONE; 2]);
    assert_eq!(s.event("bob", "create", "pods/lab/a", pod("evil", 201), &REFUSED), [NONE; 2], "another actor");
}

#[test]
fn a_claim_leads_to_the_path_on_the_node() {
    const PATHS: [&str; 1] = ["workload.claimed_host_paths"];
    let pod = json!({"requestObject": {"spec": {"containers": [{"name": "c", "image": "i"}],
        "volumes": [{"persistentVolumeClaim": {"claimName": "c1"}}]}}});
    let mut s = Stream::new();
    s.told("eve", "create", "persistentvolumes//v", json!({"requestObject": {"spec": {"hostPath": {"path": "/etc"}}}}));
    assert_eq!(s.event("eve", "create", "pods/shop/a", pod.clone(), &PATHS), [Json::Null], "not bound yet");
    let bound = json!({"requestObject": {"spec": {"claimRef": {"namespace": "shop", "name": "c1"}}}});
    s.told("pv-controller", "patch", "persistentvolumes//v", bound);
    assert_eq!(s.event("eve", "create", "pods/shop/b", pod.clone(), &PATHS), [json!(["/etc"])]);
    assert_eq!(s.event("eve", "get", "pods/shop/b/exec", json!({}), &POD[..1]), [json!(["host-path"])]);
    for (path, told) in
        [("/mnt/data", NONE), ("/var/lib/rancher/k3s/storage/pvc-1", NONE), ("/mnt/../root", json!(["/mnt/../root"]))]
    {
        let spec = json!({"hostPath": {"path": path}, "claimRef": {"namespace": "other", "name": "c1"}});
        s.told("eve", "create", "persistentvolumes//w", json!({"requestObject": {"spec": spec}}));
        assert_eq!(s.event("eve", "create", "pods/other/b", pod.clone(), &PATHS), [told], "{path}");
    }
    assert_eq!(s.event("eve", "create", "pods/lab/b", pod, &PATHS), [Json::Null], "a claim of another namespace");
}

#[test]
fn an_object_tells_what_it_was_before() {
    const FORMER: [&str; 5] =
        ["former.images", "former.registries", "former.service_account", "former.replicas", "former.growth"];
    let deployment = |image: &str, replicas: i64| {
        json!({"requestObject": {"spec": {"replicas": replicas, "template": {"spec": {
            "serviceAccountName": "app", "containers": [{"name": "c", "image": image}]}}}}})
    };
    let target = "deployments/shop/web";
    let mut s = Stream::new();
    assert_eq!(s.event("ci", "create", target, deployment("ghcr.io/a:1", 3), &FORMER), [NONE; 5]);
    let scaled = s.event(
        "eve",
        "patch",
        &format!("{target}/scale"),
        json!({"requestObject": {"spec": {"replicas": 60}}}),
        &FORMER,
    );
    assert_eq!(scaled, [json!(["ghcr.io/a:1"]), json!(["ghcr.io"]), json!("app"), json!(3), json!(20)]);
    assert_eq!(s.event("ci", "update", target, deployment("b:1", 3), &FORMER)[3..], [json!(60), json!(0)]);
    let quota = |pods: &str| json!({"requestObject": {"spec": {"hard": {"pods": pods, "requests.cpu": "500m"}}}});
    s.told("alice", "create", "resourcequotas/shop/q", quota("10"));
    assert_eq!(s.event("eve", "update", "resourcequotas/shop/q", quota("1k"), &["former.raised"]), [json!(["pods"])]);
    assert_eq!(s.event("eve", "update", "resourcequotas/shop/q", quota("999"), &["former.raised"]), [Json::Null]);
    let dropped = json!({"requestObject": {"spec": {"hard": {"pods": "9"}}}});
    assert_eq!(
        s.event("eve", "update", "resourcequotas/shop/q", dropped, &["former.raised"]),
        [json!(["requests.cpu"])]
    );
}
