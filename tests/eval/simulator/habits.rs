//! Who usually does what, and how often.

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    Developer,
    Operator,
    Analyst,
    Reader,
}

/// Verb, resource and how often.
pub type Habit = ((&'static str, &'static str), f64);

const DEVELOPER: &[Habit] = &[
    (("list", "pods"), 8.0),
    (("get", "pods"), 4.0),
    (("get", "pods/log"), 5.0),
    (("list", "deployments"), 3.0),
    (("get", "configmaps"), 2.0),
    (("list", "events"), 2.0),
    (("list", "services"), 1.0),
    (("create", "pods/portforward"), 1.0),
    (("create", "pods/exec"), 0.5),
    (("patch", "deployments"), 0.5),
    (("delete", "pods"), 0.4),
    (("create", "selfsubjectaccessreviews"), 0.3),
    (("get", "secrets"), 0.12),
    (("list", "secrets"), 0.08),
];
const OPERATOR: &[Habit] = &[
    (("list", "pods"), 8.0),
    (("get", "pods/log"), 4.0),
    (("list", "deployments"), 4.0),
    (("list", "events"), 4.0),
    (("list", "nodes"), 3.0),
    (("patch", "deployments"), 1.5),
    (("create", "pods/exec"), 1.0),
    (("delete", "pods"), 1.0),
    (("list", "namespaces"), 1.0),
    (("get", "secrets"), 0.5),
    (("patch", "nodes"), 0.4),
    (("create", "pods/eviction"), 0.3),
    (("list", "secrets"), 0.3),
    (("list", "rolebindings"), 0.3),
    (("create", "selfsubjectaccessreviews"), 0.3),
    (("create", "pods/portforward"), 0.3),
    (("get", "clusterroles"), 0.2),
    (("create", "jobs"), 0.2),
    (("create", "rolebindings"), 0.06),
    (("create", "clusterrolebindings"), 0.015),
];
const ANALYST: &[Habit] = &[
    (("list", "pods"), 4.0),
    (("get", "pods/log"), 3.0),
    (("create", "jobs"), 2.0),
    (("list", "jobs"), 2.0),
    (("delete", "jobs"), 0.5),
    (("get", "configmaps"), 0.5),
];
const READER: &[Habit] =
    &[(("list", "pods"), 3.0), (("list", "deployments"), 2.0), (("list", "nodes"), 1.0), (("list", "namespaces"), 1.0)];

impl Role {
    pub fn habits(self) -> &'static [Habit] {
        match self {
            Self::Developer => DEVELOPER,
            Self::Operator => OPERATOR,
            Self::Analyst => ANALYST,
            Self::Reader => READER,
        }
    }

    pub fn group(self) -> &'static str {
        match self {
            Self::Developer => "developers",
            Self::Operator => "operators",
            Self::Analyst => "analysts",
            Self::Reader => "readers",
        }
    }

    pub fn sessions_a_day(self) -> f64 {
        match self {
            Self::Developer => 25.0,
            Self::Operator => 60.0,
            Self::Analyst => 12.0,
            Self::Reader => 6.0,
        }
    }
}

/// An operator: namespace and name of its account, client, requests a day, habits, and whether it works in the
/// namespaces of applications.
pub struct Controller {
    pub account: (&'static str, &'static str),
    pub agent: &'static str,
    pub per_day: f64,
    pub habits: &'static [Habit],
    pub everywhere: bool,
}

pub const CONTROLLERS: &[Controller] = &[
    Controller {
        account: ("argocd", "argocd-application-controller"),
        agent: "argocd-application-controller/v2.9",
        per_day: 900.0,
        habits: &[
            (("get", "deployments"), 5.0),
            (("patch", "deployments"), 2.0),
            (("get", "services"), 3.0),
            (("get", "configmaps"), 3.0),
            (("patch", "configmaps"), 1.0),
            (("list", "pods"), 2.0),
            (("get", "serviceaccounts"), 0.5),
            (("patch", "ingresses"), 0.4),
            (("patch", "cronjobs"), 0.2),
            (("create", "services"), 0.2),
            (("create", "rolebindings"), 0.02),
        ],
        everywhere: true,
    },
    Controller {
        account: ("monitoring", "prometheus-k8s"),
        agent: "Prometheus/2.48",
        per_day: 500.0,
        habits: &[
            (("list", "pods"), 4.0),
            (("list", "endpoints"), 4.0),
            (("list", "services"), 3.0),
            (("get", "nodes/metrics"), 3.0),
        ],
        everywhere: false,
    },
    Controller {
        account: ("cert-manager", "cert-manager"),
        agent: "cert-manager-controller/v1.13",
        per_day: 250.0,
        habits: &[
            (("get", "secrets"), 3.0),
            (("update", "certificates/status"), 2.0),
            (("update", "secrets"), 1.0),
            (("create", "certificaterequests"), 0.5),
            (("patch", "ingresses"), 0.2),
        ],
        everywhere: true,
    },
    Controller {
        account: ("external-secrets", "external-secrets"),
        agent: "external-secrets/v0.9",
        per_day: 300.0,
        habits: &[(("get", "secrets"), 4.0), (("patch", "externalsecrets/status"), 3.0), (("update", "secrets"), 2.0)],
        everywhere: true,
    },
    Controller {
        account: ("kube-system", "coredns"),
        agent: "coredns/linux",
        per_day: 120.0,
        habits: &[(("list", "services"), 1.0), (("list", "endpointslices"), 1.0), (("list", "namespaces"), 0.5)],
        everywhere: false,
    },
    Controller {
        account: ("kube-system", "metrics-server"),
        agent: "metrics-server/v0.6",
        per_day: 150.0,
        habits: &[(("get", "nodes/metrics"), 3.0), (("list", "nodes"), 1.0), (("list", "pods"), 1.0)],
        everywhere: false,
    },
    Controller {
        account: ("kube-system", "cluster-autoscaler"),
        agent: "cluster-autoscaler/v1.28",
        per_day: 250.0,
        habits: &[
            (("list", "nodes"), 2.0),
            (("list", "pods"), 2.0),
            (("create", "pods/eviction"), 0.1),
            (("delete", "nodes"), 0.03),
        ],
        everywhere: false,
    },
    Controller {
        account: ("ingress", "ingress-nginx"),
        agent: "nginx-ingress-controller/v1.9",
        per_day: 250.0,
        habits: &[
            (("list", "ingresses"), 2.0),
            (("list", "endpointslices"), 2.0),
            (("get", "secrets"), 1.5),
            (("update", "ingresses/status"), 1.0),
        ],
        everywhere: true,
    },
    Controller {
        account: ("logging", "fluent-bit"),
        agent: "fluent-bit",
        per_day: 200.0,
        habits: &[(("get", "pods"), 4.0), (("list", "namespaces"), 1.0)],
        everywhere: true,
    },
    Controller {
        account: ("vault", "vault-injector"),
        agent: "vault-k8s/v1.3",
        per_day: 120.0,
        habits: &[
            (("create", "tokenreviews"), 3.0),
            (("get", "mutatingwebhookconfigurations"), 1.0),
            (("patch", "mutatingwebhookconfigurations"), 0.2),
        ],
        everywhere: false,
    },
    Controller {
        account: ("kube-system", "node-problem-detector"),
        agent: "node-problem-detector",
        per_day: 150.0,
        habits: &[(("patch", "nodes/status"), 3.0), (("create", "events"), 1.0)],
        everywhere: false,
    },
];

pub fn cluster_wide(resource: &str) -> bool {
    let kind = resource.split('/').next().unwrap_or_default();
    matches!(
        kind,
        "nodes"
            | "namespaces"
            | "clusterroles"
            | "clusterrolebindings"
            | "tokenreviews"
            | "selfsubjectaccessreviews"
            | "customresourcedefinitions"
    ) || kind.ends_with("webhookconfigurations")
}

pub fn success(verb: &str) -> u16 {
    if verb == "create" { 201 } else { 200 }
}
