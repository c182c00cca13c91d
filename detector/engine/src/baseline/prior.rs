//! What attackers do: how an intruder's requests spread over the actions, and which step of an attack each is.
//!
//! The masses are estimates from published attack reports and recorded attack tools, group by group; they sum
//! to less than one. What is in no group still has a little, more when it writes: a closed table would speak
//! for the innocence of whatever its author forgot.

/// Share of the table in the mixture; the rest is spread over all actions.
const TABLE: f32 = 0.7;
/// Distinct actions an API server knows, about.
pub(super) const ACTIONS: f32 = 300.0;

/// Probability that an attacker's next request is this action on this resource.
pub(super) fn attack(action: &str, resource: &str, reads: bool) -> f32 {
    TABLE * mass(action, resource) + if reads { 0.12 } else { 0.3 } / ACTIONS
}

fn mass(action: &str, resource: &str) -> f32 {
    match (action, resource) {
        ("get" | "list", "secrets") => 0.07,
        ("watch", "secrets") => 0.02,
        ("exec", _) => 0.04,
        ("attach" | "debug", _) => 0.01,
        ("portforward" | "proxy", _) => 0.02,
        ("create", "rolebindings" | "clusterrolebindings") => 0.03,
        ("create", "roles" | "clusterroles") => 0.02,
        ("update" | "patch", "rolebindings" | "clusterrolebindings") => 0.005,
        ("update" | "patch", "roles" | "clusterroles") => 0.005,
        ("self-review", _) => 0.035,
        ("token-request", _) => 0.03,
        ("create", "serviceaccounts" | "secrets") => 0.02,
        ("create", "pods") => 0.03,
        ("create", "daemonsets" | "cronjobs" | "jobs") => 0.015,
        ("create" | "patch" | "update", "deployments") => 0.01,
        ("patch" | "update", "daemonsets" | "cronjobs") => 0.005,
        ("create" | "approve", "certificatesigningrequests") => 0.015,
        ("create" | "update" | "patch", "mutatingwebhookconfigurations" | "validatingwebhookconfigurations") => 0.005,
        ("impersonate", _) => 0.02,
        ("list", "pods" | "nodes" | "namespaces" | "configmaps" | "services" | "serviceaccounts") => 0.01,
        ("list", "roles" | "rolebindings" | "clusterroles" | "clusterrolebindings") => 0.005,
        ("get", "configmaps") => 0.01,
        ("delete" | "deletecollection", _) => 0.003,
        _ => 0.0,
    }
}

/// A step of an attack, in ATT&CK's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Tactic {
    Discovery,
    CredentialAccess,
    Execution,
    Persistence,
    PrivilegeEscalation,
    Impact,
}

impl Tactic {
    pub const ALL: [Self; 6] = [
        Self::Discovery,
        Self::CredentialAccess,
        Self::Execution,
        Self::Persistence,
        Self::PrivilegeEscalation,
        Self::Impact,
    ];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Discovery => "discovery",
            Self::CredentialAccess => "credential-access",
            Self::Execution => "execution",
            Self::Persistence => "persistence",
            Self::PrivilegeEscalation => "privilege-escalation",
            Self::Impact => "impact",
        }
    }

    /// The step an action belongs to, if it belongs to one.
    pub(super) fn of(action: &str, resource: &str) -> Option<Self> {
        let writes = matches!(action, "create" | "update" | "patch");
        Some(match (action, resource) {
            (
                "list",
                "pods"
                | "nodes"
                | "namespaces"
                | "configmaps"
                | "services"
                | "roles"
                | "rolebindings"
                | "clusterroles"
                | "clusterrolebindings"
                | "serviceaccounts",
            )
            | ("self-review" | "access-review", _) => Self::Discovery,
            ("get" | "list" | "watch", "secrets") | ("token-request", _) => Self::CredentialAccess,
            ("exec" | "attach" | "debug" | "proxy" | "portforward", _) | ("create", "pods" | "jobs") => Self::Execution,
            ("impersonate", _) => Self::PrivilegeEscalation,
            ("approve", _) => Self::Persistence,
            (_, "roles" | "rolebindings" | "clusterroles" | "clusterrolebindings") if writes => {
                Self::PrivilegeEscalation
            }
            (
                _,
                "cronjobs"
                | "daemonsets"
                | "deployments"
                | "serviceaccounts"
                | "mutatingwebhookconfigurations"
                | "validatingwebhookconfigurations"
                | "certificatesigningrequests",
            ) if writes => Self::Persistence,
            (
                "delete" | "deletecollection" | "evict",
                "pods"
                | "deployments"
                | "namespaces"
                | "secrets"
                | "configmaps"
                | "persistentvolumeclaims"
                | "services"
                | "daemonsets",
            ) => Self::Impact,
            _ => return None,
        })
    }

    /// The step a Sigma tag names.
    pub(super) fn of_tag(tag: &str) -> Option<Self> {
        let name = tag.strip_prefix("attack.")?;
        Self::ALL.into_iter().find(|t| t.as_str() == name)
    }
}
