//! What real audit events hold: closed sets of values, and which API groups the built-in kinds are in.

use lapwing_engine::field::Field;

const VERBS: &[&str] = &[
    "get",
    "list",
    "watch",
    "create",
    "update",
    "patch",
    "delete",
    "deletecollection",
    // Requests beside the resources carry their HTTP method.
    "head",
    "post",
    "put",
    "options",
    "connect",
];

/// Every value the field can have; `None`: open.
pub const fn values(field: &Field) -> Option<&'static [&'static str]> {
    Some(match field {
        Field::Verb => VERBS,
        Field::Stage => &["requestreceived", "responsestarted", "responsecomplete", "panic"],
        Field::Level => &["none", "metadata", "request", "requestresponse"],
        Field::ActionType => &["read", "write", "delete", "connect"],
        Field::Outcome => &["allowed", "denied", "rejected", "unauthenticated", "failed", "dry-run", "pending"],
        Field::ActorKind => &["human", "serviceaccount", "node", "controlplane", "anonymous"],
        Field::CredentialKind => &["x509", "token", "unknown", "none"],
        Field::TargetScope => &["namespaced", "cluster", "all-namespaces", "url"],
        Field::ClientNetwork => &["loopback", "private", "public", "unknown"],
        _ => return None,
    })
}

/// What an author meant by a value that does not exist.
pub fn meant(value: &str) -> Option<&'static str> {
    Some(match value {
        "replace" => "update",
        "edit" | "modify" => "update and patch",
        "remove" => "delete",
        "exec" => "action: exec",
        _ => return None,
    })
}

const GROUPS: &[(&str, &[&str])] = &[
    (
        "",
        &[
            "pods",
            "services",
            "secrets",
            "configmaps",
            "namespaces",
            "nodes",
            "serviceaccounts",
            "persistentvolumes",
            "persistentvolumeclaims",
            "replicationcontrollers",
            "resourcequotas",
            "limitranges",
            "podtemplates",
            "endpoints",
            "bindings",
        ],
    ),
    ("apps", &["deployments", "daemonsets", "statefulsets", "replicasets", "controllerrevisions"]),
    ("batch", &["jobs", "cronjobs"]),
    ("rbac.authorization.k8s.io", &["roles", "rolebindings", "clusterroles", "clusterrolebindings"]),
    ("networking.k8s.io", &["networkpolicies", "ingresses", "ingressclasses"]),
    (
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
    ("certificates.k8s.io", &["certificatesigningrequests"]),
    ("authentication.k8s.io", &["tokenreviews", "selfsubjectreviews"]),
    (
        "authorization.k8s.io",
        &["subjectaccessreviews", "localsubjectaccessreviews", "selfsubjectaccessreviews", "selfsubjectrulesreviews"],
    ),
    ("apiextensions.k8s.io", &["customresourcedefinitions"]),
    ("apiregistration.k8s.io", &["apiservices"]),
    ("storage.k8s.io", &["storageclasses", "csidrivers", "csinodes", "volumeattachments"]),
    ("policy", &["poddisruptionbudgets"]),
    ("coordination.k8s.io", &["leases"]),
    ("autoscaling", &["horizontalpodautoscalers"]),
    ("discovery.k8s.io", &["endpointslices"]),
];

/// The API groups this built-in kind is in, older ones too; `None`: not a built-in kind.
pub fn groups(resource: &str) -> Option<&'static [&'static str]> {
    Some(match resource {
        "events" => &["", "events.k8s.io"],
        // Long gone, but a rule may be older.
        "deployments" | "daemonsets" | "replicasets" => &["apps", "extensions"],
        "ingresses" | "networkpolicies" => &["networking.k8s.io", "extensions"],
        // Metrics of nodes and pods are read under the same names.
        "pods" | "nodes" => &["", "metrics.k8s.io"],
        other => {
            let group = GROUPS.iter().find(|(_, kinds)| kinds.contains(&other))?;
            std::slice::from_ref(&group.0)
        }
    })
}
