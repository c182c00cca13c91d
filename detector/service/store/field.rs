//! The fields a query may name: one table for the parser, the help text and the did-you-mean.

/// A field that holds identifiers, matched exactly or by prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Id {
    Actor,
    ActorKind,
    ActingAs,
    Verb,
    Action,
    Resource,
    Subresource,
    Namespace,
    Name,
    Outcome,
    Client,
    Rule,
    Kind,
    Cluster,
    Audit,
    Alert,
}

/// What a field holds, and so what its value may look like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    Id(Id),
    Level,
    Code,
    Address,
    Since,
    Until,
    Text,
}

/// One searchable field.
#[derive(Clone, Copy, Debug)]
pub struct FieldInfo {
    pub name: &'static str,
    pub aliases: &'static [&'static str],
    pub target: Target,
    /// The only values it takes; empty when any.
    pub values: &'static [&'static str],
    pub help: &'static str,
}

const fn any(name: &'static str, aliases: &'static [&'static str], target: Target, help: &'static str) -> FieldInfo {
    FieldInfo { name, aliases, target, values: &[], help }
}

const fn one_of(
    name: &'static str,
    aliases: &'static [&'static str],
    target: Target,
    values: &'static [&'static str],
    help: &'static str,
) -> FieldInfo {
    FieldInfo { name, aliases, target, values, help }
}

const KINDS: &[&str] = &["event", "alert", "reject"];
const ACTOR_KINDS: &[&str] = &["human", "serviceaccount", "node", "controlplane", "anonymous"];
const LEVELS: &[&str] = &["informational", "low", "medium", "high", "critical"];
/// Outcomes of events, then reasons of rejects.
const OUTCOMES: &[&str] = &[
    "allowed",
    "denied",
    "rejected",
    "unauthenticated",
    "failed",
    "dry-run",
    "pending",
    "not_json",
    "not_an_event",
    "too_large",
    "bad_body",
];

/// Every field, in the order the help prints them.
pub const FIELDS: &[FieldInfo] = &[
    any("actor", &["user", "who"], Target::Id(Id::Actor), "who did it (the impersonator)"),
    one_of("actorkind", &["actor_kind", "actor.kind"], Target::Id(Id::ActorKind), ACTOR_KINDS, "what the actor is"),
    any("as", &["acting_as", "impersonated"], Target::Id(Id::ActingAs), "the impersonated identity"),
    any("verb", &[], Target::Id(Id::Verb), "verb of the request"),
    any("action", &[], Target::Id(Id::Action), "what was done: exec, portforward, get, …"),
    any("resource", &["res"], Target::Id(Id::Resource), "pods, pods/exec, or a path such as /healthz"),
    any("subresource", &["sub"], Target::Id(Id::Subresource), "exec, status, …"),
    any("namespace", &["ns"], Target::Id(Id::Namespace), "namespace of the object"),
    any("name", &["object"], Target::Id(Id::Name), "name of the object"),
    one_of("outcome", &["result"], Target::Id(Id::Outcome), OUTCOMES, "how it ended"),
    any("code", &["status"], Target::Code, "HTTP status: 403, 4xx, >=400"),
    any("address", &["ip", "source"], Target::Address, "source address or range: 10.0.0.7, 10.0.0.0/8"),
    any("client", &["agent"], Target::Id(Id::Client), "client family: kubectl, curl, …"),
    any("rule", &[], Target::Id(Id::Rule), "rule id of an alert"),
    one_of("level", &["severity"], Target::Level, LEVELS, "level of an alert: high, >=medium"),
    one_of("kind", &["type"], Target::Id(Id::Kind), KINDS, "event, alert or reject"),
    any("cluster", &[], Target::Id(Id::Cluster), "cluster the event came from"),
    any("audit", &["auditid", "audit_id"], Target::Id(Id::Audit), "audit id, also of an alert's events"),
    any("alert", &["id", "alertid", "alert_id"], Target::Id(Id::Alert), "alert id"),
    any("since", &["after", "from"], Target::Since, "not before: 2h, 3d, 2026-11-20T16:00Z"),
    any("until", &["before", "to"], Target::Until, "not after"),
    any("text", &[], Target::Text, "words in path, user agent, names, command, summary"),
];

/// The field called `name`, in any case.
pub fn find(name: &str) -> Option<&'static FieldInfo> {
    let name = name.to_ascii_lowercase();
    FIELDS.iter().find(|f| f.name == name || f.aliases.contains(&name.as_str()))
}

/// The candidate most like `text`, if any is.
pub fn nearest<'a>(text: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let text = text.to_ascii_lowercase();
    candidates
        .map(|c| (strsim::osa_distance(&text, c), c))
        .filter(|(d, c)| *d <= (c.len().max(text.len()) / 3).max(1))
        .min_by_key(|(d, _)| *d)
        .map(|(_, c)| c)
}

/// The field name most like `name`.
pub fn nearest_field(name: &str) -> Option<&'static str> {
    nearest(name, FIELDS.iter().flat_map(|f| std::iter::once(f.name).chain(f.aliases.iter().copied())))
}

/// The table of fields for a help text, one line each.
pub fn help() -> String {
    let mut out = String::new();
    for f in FIELDS {
        let aliases = if f.aliases.is_empty() { String::new() } else { format!(" (also {})", f.aliases.join(", ")) };
        out.push_str(&format!("  {:<12} {}{aliases}\n", f.name, f.help));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_name_means_two_fields() {
        let mut names: Vec<_> = FIELDS.iter().flat_map(|f| std::iter::once(&f.name).chain(f.aliases)).collect();
        let n = names.len();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), n);
    }

    #[test]
    fn near_names_are_found_and_far_ones_are_not() {
        assert_eq!(nearest_field("actr"), Some("actor"));
        assert_eq!(nearest_field("namespaces"), Some("namespace"));
        assert_eq!(nearest_field("verbs"), Some("verb"));
        assert_eq!(nearest_field("xyzzyplugh"), None);
    }
}
