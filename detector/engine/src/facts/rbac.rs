//! What a write on roles and bindings grants, and to whom.

use crate::event::Event;
use crate::rule::view::Unknown;
use crate::tree::Tree;

/// A role or binding as a request writes it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Rbac {
    /// `role`, `clusterrole`, `rolebinding` or `clusterrolebinding`.
    pub kind: &'static str,
    /// `roleRef.name`. `Err` for a patch that does not carry it.
    pub role: Option<Result<String, Unknown>>,
    pub role_kind: Option<String>,
    /// `user:…`, `group:…`, `serviceaccount:ns/name`.
    pub subjects: Vec<String>,
    pub subject_kinds: Vec<String>,
    /// Names alone, as `actor.serviceaccount` or `actor.name` would tell them.
    pub subject_names: Vec<String>,
    pub verbs: Vec<String>,
    pub resources: Vec<String>,
    pub rules: Vec<Tree<'static>>,
    pub powers: Vec<&'static str>,
    pub broad_subject: bool,
    pub self_grant: bool,
    pub aggregates: Vec<String>,
}

/// The RBAC kind of a resource.
pub fn kind(resource: &str) -> Option<&'static str> {
    Some(match resource {
        "roles" => "role",
        "clusterroles" => "clusterrole",
        "rolebindings" => "rolebinding",
        "clusterrolebindings" => "clusterrolebinding",
        _ => return None,
    })
}

/// What `written` grants. `answered` fills in what a patch does not carry (`roleRef` never changes).
pub fn read(kind: &'static str, event: &Event<'_>, written: &Tree<'_>, answered: Option<&Tree<'_>>) -> Rbac {
    let mut rbac = Rbac { kind, ..Rbac::default() };
    if kind.ends_with("binding") {
        rbac.read_binding(event, written, answered);
    } else {
        rbac.read_role(written);
    }
    rbac.powers.sort_unstable();
    rbac.powers.dedup();
    rbac
}

fn texts(v: &Tree<'_>, key: &str) -> Vec<String> {
    v.each(key).filter_map(Tree::as_str).map(str::to_owned).collect()
}

impl Rbac {
    fn read_binding(&mut self, event: &Event<'_>, written: &Tree<'_>, answered: Option<&Tree<'_>>) {
        let reference = written.get("roleRef").or_else(|| answered.and_then(|a| a.get("roleRef")));
        match reference.and_then(|r| r.get("name")).and_then(Tree::as_str) {
            Some(name) => {
                self.powers.extend(powers_of_role(name));
                self.role = Some(Ok(name.to_owned()));
            }
            None if &*event.verb == "patch" => self.role = Some(Err(Unknown::NotCarried)),
            None => {}
        }
        self.role_kind = reference.and_then(|r| r.get("kind")).and_then(Tree::as_str).map(str::to_owned);
        let home = event.object_ref.as_ref().map_or("", |o| &*o.namespace);
        for subject in written.each("subjects") {
            let field = |key: &str| subject.get(key).and_then(Tree::as_str).unwrap_or_default();
            let (kind, name) = (field("kind"), field("name"));
            if name.is_empty() {
                continue;
            }
            self.subject_kinds.push(kind.to_lowercase());
            self.subject_names.push(name.to_owned());
            self.subjects.push(match kind {
                "ServiceAccount" => {
                    let namespace = if field("namespace").is_empty() { home } else { field("namespace") };
                    format!("serviceaccount:{namespace}/{name}")
                }
                "Group" => format!("group:{name}"),
                _ => format!("user:{name}"),
            });
        }
        self.broad_subject = self.subjects.iter().any(|s| is_broad(s));
        self.self_grant = self.subjects.iter().any(|s| is_actor(s, event));
    }

    fn read_role(&mut self, written: &Tree<'_>) {
        self.rules = written.each("rules").filter(|r| r.is_object()).map(Tree::to_static).collect();
        for rule in &self.rules {
            let (verbs, resources) = (texts(rule, "verbs"), texts(rule, "resources"));
            powers_of_rule(&verbs, &resources, &texts(rule, "apiGroups"), &mut self.powers);
            self.verbs.extend(verbs);
            self.resources.extend(resources);
        }
        for list in [&mut self.verbs, &mut self.resources] {
            list.sort_unstable();
            list.dedup();
        }
        let labels = written.at(&["metadata", "labels"]).and_then(Tree::as_object);
        for (key, value) in labels.into_iter().flatten() {
            if let Some(role) = key.strip_prefix("rbac.authorization.k8s.io/aggregate-to-")
                && value.as_str() == Some("true")
            {
                self.aggregates.push(role.to_owned());
            }
        }
    }
}

fn is_broad(subject: &str) -> bool {
    matches!(
        subject,
        "user:system:anonymous"
            | "group:system:unauthenticated"
            | "group:system:authenticated"
            | "group:system:nodes"
            | "group:system:serviceaccounts"
    ) || subject.starts_with("group:system:serviceaccounts:")
}

/// Whether a subject is the actor, one of the actor's own groups or the actor's account.
pub(crate) fn is_actor(subject: &str, event: &Event<'_>) -> bool {
    let user = &event.user;
    if let Some(name) = subject.strip_prefix("user:") {
        return name == &*user.username;
    }
    if let Some(group) = subject.strip_prefix("group:") {
        return !matches!(group, "system:authenticated" | "system:unauthenticated" | "system:serviceaccounts")
            && user.groups.0.iter().any(|g| &**g == group);
    }
    subject
        .strip_prefix("serviceaccount:")
        .and_then(|s| s.split_once('/'))
        .is_some_and(|(ns, name)| super::actor::service_account(&user.username) == Some((ns, name)))
}

/// What the well-known roles of every cluster grant.
fn powers_of_role(name: &str) -> &'static [&'static str] {
    match name {
        "cluster-admin" => &[
            "cluster-admin",
            "wildcard-verbs",
            "wildcard-resources",
            "escalate",
            "bind",
            "impersonate",
            "secrets-read",
        ],
        "admin" => {
            &["admin", "secrets-read", "pods-exec", "pods-create", "workloads-write", "rbac-write", "token-create"]
        }
        "edit" => {
            &["edit", "secrets-read", "pods-exec", "pods-create", "workloads-write", "token-create", "impersonate"]
        }
        "system:kube-controller-manager" | "system:masters" | "system:admin" => {
            &["admin", "secrets-read", "token-create"]
        }
        "system:node" => &["secrets-read", "token-create"],
        "system:kubelet-api-admin" => &["nodes-proxy", "pods-exec"],
        "system:aggregate-to-admin" => &["admin", "rbac-write"],
        "system:aggregate-to-edit" => &["edit", "secrets-read", "pods-exec"],
        _ => &[],
    }
}

/// What one verb on one resource gives.
pub(crate) fn powers_of_right(verb: &str, resource: &str, group: &str) -> Vec<&'static str> {
    let one = |text: &str| [text.to_owned()];
    let mut powers = Vec::new();
    powers_of_rule(&one(verb), &one(resource), &one(group), &mut powers);
    powers
}

fn powers_of_rule(verbs: &[String], resources: &[String], groups: &[String], powers: &mut Vec<&'static str>) {
    let verb = |wanted: &[&str]| verbs.iter().any(|v| v == "*" || wanted.contains(&v.as_str()));
    let exactly = |wanted: &str| verbs.iter().any(|v| v == wanted);
    let group = |wanted: &str| groups.is_empty() || groups.iter().any(|g| g == "*" || g == wanted);
    let on = |api: &str, wanted: &[&str]| {
        group(api)
            && resources.iter().any(|r| {
                r == "*"
                    || wanted.contains(&r.as_str())
                    || r.strip_prefix("*/")
                        .is_some_and(|sub| wanted.iter().any(|w| w.split_once('/').is_some_and(|(_, s)| s == sub)))
            })
    };
    const WRITE: &[&str] = &["create", "update", "patch"];
    const RBAC: &str = "rbac.authorization.k8s.io";
    let mut add = |held: bool, power| {
        if held {
            powers.push(power);
        }
    };
    let all_verbs = verbs.iter().any(|v| v == "*");
    let all_resources = resources.iter().any(|r| r == "*");
    add(all_verbs, "wildcard-verbs");
    add(all_resources, "wildcard-resources");
    add(all_verbs && all_resources && groups.iter().any(|g| g == "*"), "cluster-admin");
    add(exactly("escalate") || (all_verbs && on(RBAC, &["clusterroles", "roles"])), "escalate");
    add(exactly("bind") || (all_verbs && on(RBAC, &["clusterroles", "roles"])), "bind");
    add(exactly("impersonate") || (all_verbs && on("", &["users", "groups", "serviceaccounts"])), "impersonate");
    add(verb(&["get", "list", "watch"]) && on("", &["secrets"]), "secrets-read");
    add(verb(&["create", "get"]) && on("", &["pods/exec", "pods/attach"]), "pods-exec");
    add(verb(&["create"]) && on("", &["pods"]), "pods-create");
    add(verb(&["get", "create"]) && on("", &["nodes/proxy"]), "nodes-proxy");
    add(verb(&["create"]) && on("", &["serviceaccounts/token"]), "token-create");
    add(
        verb(WRITE)
            && (on("apps", &["deployments", "daemonsets", "statefulsets", "replicasets"])
                || on("batch", &["jobs", "cronjobs"])),
        "workloads-write",
    );
    add(verb(WRITE) && on(RBAC, &["roles", "clusterroles", "rolebindings", "clusterrolebindings"]), "rbac-write");
    add(
        verb(WRITE)
            && on(
                "admissionregistration.k8s.io",
                &[
                    "mutatingwebhookconfigurations",
                    "validatingwebhookconfigurations",
                    "validatingadmissionpolicies",
                    "validatingadmissionpolicybindings",
                    "mutatingadmissionpolicies",
                    "mutatingadmissionpolicybindings",
                ],
            ),
        "webhooks-write",
    );
    add(
        verb(&["update", "patch", "approve"])
            && on("certificates.k8s.io", &["certificatesigningrequests/approval", "signers"]),
        "csr-approve",
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn event(text: &str) -> Event<'_> {
        Event::parse(text).expect("an event")
    }

    const BY_ALICE: &str = r#"{"auditID":"a","verb":"create","user":{"username":"alice","groups":["devs","system:authenticated"]},
        "objectRef":{"resource":"rolebindings","namespace":"shop"}}"#;

    #[test]
    fn a_binding_names_role_subjects_and_power() {
        let e = event(BY_ALICE);
        let written = json!({"roleRef": {"kind": "ClusterRole", "name": "cluster-admin"}, "subjects": [
            {"kind": "ServiceAccount", "name": "default"}, {"kind": "User", "name": "bob"}, {"kind": "Group", "name": "ops"}]});
        let r = read("rolebinding", &e, &written.into(), None);
        assert_eq!(r.role, Some(Ok("cluster-admin".into())));
        assert_eq!(r.subjects, ["serviceaccount:shop/default", "user:bob", "group:ops"]);
        assert_eq!(r.subject_names, ["default", "bob", "ops"]);
        assert!(r.powers.contains(&"cluster-admin") && !r.broad_subject && !r.self_grant);
    }

    #[test]
    fn granting_oneself_is_seen_through_user_group_and_account() {
        let e = event(BY_ALICE);
        for (subject, own) in [
            (json!({"kind": "User", "name": "alice"}), true),
            (json!({"kind": "Group", "name": "devs"}), true),
            (json!({"kind": "Group", "name": "system:authenticated"}), false),
            (json!({"kind": "User", "name": "bob"}), false),
        ] {
            let r = read("rolebinding", &e, &json!({"roleRef": {"name": "edit"}, "subjects": [subject]}).into(), None);
            assert_eq!(r.self_grant, own, "{subject}");
        }
        let sa = event(
            r#"{"auditID":"a","verb":"create","user":{"username":"system:serviceaccount:ci:bot"},"objectRef":{"resource":"clusterrolebindings"}}"#,
        );
        let r = read(
            "clusterrolebinding",
            &sa,
            &json!({"subjects": [{"kind": "ServiceAccount", "namespace": "ci", "name": "bot"}]}).into(),
            None,
        );
        assert!(r.self_grant);
    }

    #[test]
    fn a_patch_without_role_is_unknown_until_the_answer_tells() {
        let e = event(r#"{"auditID":"a","verb":"patch","objectRef":{"resource":"clusterrolebindings"}}"#);
        let written = json!({"subjects": [{"kind": "User", "name": "mallory"}]}).into();
        assert_eq!(read("clusterrolebinding", &e, &written, None).role, Some(Err(Unknown::NotCarried)));
        let answer = json!({"roleRef": {"kind": "ClusterRole", "name": "cluster-admin"}}).into();
        assert!(read("clusterrolebinding", &e, &written, Some(&answer)).powers.contains(&"cluster-admin"));
    }

    #[test]
    fn powers_of_rules() {
        let e = event(BY_ALICE);
        let of = |rule: Value| read("clusterrole", &e, &json!({"rules": [rule]}).into(), None).powers;
        assert_eq!(of(json!({"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list"]})), [] as [&str; 0]);
        assert_eq!(of(json!({"apiGroups": [""], "resources": ["secrets"], "verbs": ["get"]})), ["secrets-read"]);
        assert_eq!(of(json!({"apiGroups": ["other"], "resources": ["secrets"], "verbs": ["get"]})), [] as [&str; 0]);
        assert_eq!(of(json!({"apiGroups": [""], "resources": ["*/exec"], "verbs": ["create"]})), ["pods-exec"]);
        assert_eq!(of(json!({"apiGroups": [""], "resources": ["nodes/proxy"], "verbs": ["get"]})), ["nodes-proxy"]);
        assert!(of(json!({"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]})).contains(&"cluster-admin"));
        assert!(of(json!({"apiGroups": ["rbac.authorization.k8s.io"], "resources": ["clusterroles"], "verbs": ["escalate"]})).contains(&"escalate"));
    }

    #[test]
    fn aggregation_labels_count_only_when_true() {
        let e = event(BY_ALICE);
        let r = read(
            "clusterrole",
            &e,
            &json!({"metadata": {"labels": {"rbac.authorization.k8s.io/aggregate-to-view": "true", "rbac.authorization.k8s.io/aggregate-to-edit": "false"}}, "rules": []}).into(),
            None,
        );
        assert_eq!(r.aggregates, ["view"]);
    }
}
