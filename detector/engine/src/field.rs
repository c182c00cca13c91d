//! The closed list of what a rule may read.

use std::borrow::Cow;

/// A field of an event. Minimal until the fact table lands.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Field {
    Known(&'static str),
    Keyed(String),
}

/// No such field.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown field `{name}`")]
pub struct UnknownField {
    pub name: String,
    pub suggestion: Option<String>,
}

const PREFIXES: [&str; 4] = ["annotations.", "user.extra.", "requestObject.", "responseObject."];
const NAMES: &[&str] = &[
    "auditID",
    "level",
    "stage",
    "verb",
    "requestURI",
    "userAgent",
    "sourceIPs",
    "user.username",
    "user.uid",
    "user.groups",
    "impersonatedUser.username",
    "impersonatedUser.uid",
    "impersonatedUser.groups",
    "objectRef.resource",
    "objectRef.subresource",
    "objectRef.namespace",
    "objectRef.name",
    "objectRef.uid",
    "objectRef.apiGroup",
    "objectRef.apiVersion",
    "objectRef.resourceVersion",
    "responseStatus.code",
    "responseStatus.status",
    "responseStatus.reason",
    "responseStatus.message",
    "requestObject",
    "responseObject",
    "requestReceivedTimestamp",
    "stageTimestamp",
    "actor.name",
    "actor.kind",
    "actor.groups",
    "action",
    "outcome",
    "target.resource",
    "target.subresource",
    "target.namespace",
    "target.name",
    "client.address",
    "client.family",
    "exec.command",
    "workload.privileged",
    "workload.host_paths",
    "workload.capabilities",
    "workload.images",
    "workload.containers",
    "rbac.powers",
    "rbac.rules",
    "cluster",
];

impl Field {
    pub fn parse(name: &str) -> Result<Self, UnknownField> {
        if let Some(known) = NAMES.iter().find(|n| **n == name) {
            return Ok(Self::Known(known));
        }
        if PREFIXES.iter().any(|p| name.len() > p.len() && name.starts_with(p)) {
            return Ok(Self::Keyed(name.to_owned()));
        }
        let near = NAMES.iter().map(|n| (strsim::damerau_levenshtein(n, name), *n)).min();
        let suggestion = near.filter(|(d, _)| *d <= 3).map(|(_, n)| n.to_owned());
        Err(UnknownField { name: name.to_owned(), suggestion })
    }

    pub fn name(&self) -> Cow<'_, str> {
        match self {
            Self::Known(name) => Cow::Borrowed(name),
            Self::Keyed(name) => Cow::Borrowed(name),
        }
    }
}
