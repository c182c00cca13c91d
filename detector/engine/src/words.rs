//! The words of a finding: one sentence of who did what to what, and the request as evidence.
//!
//! Names and commands are text that the sender chose. They are cut here to a bounded length; they
//! are escaped where they leave, by the encoder of each format.

use crate::alert::Evidence;
use crate::event::to_datetime;
use crate::facts::Facts;
use crate::memory::Sight;

/// Longest piece of sender-chosen text in a sentence or a detail line, in characters.
pub(crate) const MAX: usize = 200;

/// `text`, cut to [`MAX`] characters with a mark.
pub(crate) fn cut(text: &str) -> String {
    match text.char_indices().nth(MAX) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text.to_owned(),
    }
}

/// `namespace/name`, or what there is of it.
fn place(facts: &Facts<'_>) -> String {
    let (namespace, name) = (facts.namespace, facts.name());
    match (namespace.is_empty(), name.is_empty()) {
        (false, false) => format!(" {}/{}", cut(namespace), cut(name)),
        (true, false) => format!(" {}", cut(name)),
        (false, true) => format!(" in {}", cut(namespace)),
        (true, true) if facts.scope() == "all-namespaces" => " in all namespaces".to_owned(),
        (true, true) => String::new(),
    }
}

/// What the request does, past tense and base form: (`ran …`, `run …`).
fn deed(facts: &Facts<'_>) -> (String, String) {
    let place = place(facts);
    let resource = cut(facts.resource);
    let both = |past: &str, base: &str, rest: String| (format!("{past} {rest}"), format!("{base} {rest}"));
    match facts.action {
        "exec" | "attach" => {
            let command = facts.exec().map(|e| cut(&e.command)).unwrap_or_default();
            if facts.action == "attach" {
                both("attached to", "attach to", format!("pod{place}"))
            } else {
                both("ran", "run", format!("`{command}` in pod{place}"))
            }
        }
        "portforward" => both("forwarded a port to", "forward a port to", format!("pod{place}")),
        "debug" => both("added a debug container to", "add a debug container to", format!("pod{place}")),
        "proxy" => {
            let path = facts.proxy().map(|p| cut(&p.path)).unwrap_or_default();
            both(
                "reached",
                "reach",
                format!("{path} of {}{place} through the API server", resource.trim_end_matches('s')),
            )
        }
        "log" => both("read", "read", format!("the log of pod{place}")),
        "token-request" => both("requested", "request", format!("a token for service account{place}")),
        "approve" => both("approved", "approve", format!("certificate signing request{place}")),
        "evict" => both("evicted", "evict", format!("pod{place}")),
        "self-review" => both("asked for", "ask for", "their own permissions".to_owned()),
        "access-review" => both("asked for", "ask for", "the permissions of another identity".to_owned()),
        "token-review" => both("asked", "ask", "whether a token is valid".to_owned()),
        "impersonate" => {
            both("acted as another identity on", "act as another identity on", format!("{resource}{place}"))
        }
        "url" => both("requested", "request", cut(&facts.event.request_uri)),
        "list" | "watch" => {
            let (past, base) = if facts.action == "list" { ("listed", "list") } else { ("watched", "watch") };
            both(past, base, format!("{resource}{place}"))
        }
        "get" => both("read", "read", format!("{resource}{place}")),
        "deletecollection" => both("deleted all", "delete all", format!("{resource}{place}")),
        "update" => both("updated", "update", format!("{resource}{place}{}", extra(facts))),
        "patch" => both("patched", "patch", format!("{resource}{place}{}", extra(facts))),
        "create" => both("created", "create", format!("{resource}{place}{}", extra(facts))),
        "delete" => both("deleted", "delete", format!("{resource}{place}")),
        other => both("did", "do", format!("`{}` on {resource}{place}", cut(other))),
    }
}

/// For grants: which role to whom.
fn extra(facts: &Facts<'_>) -> String {
    let Ok(Some(rbac)) = facts.rbac() else { return String::new() };
    let Some(Ok(role)) = &rbac.role else { return String::new() };
    let to = if rbac.subjects.is_empty() { "nobody".to_owned() } else { cut(&rbac.subjects.join(", ")) };
    format!(", granting {} to {to}", cut(role))
}

fn ending(outcome: &str, code: Option<u16>) -> String {
    match outcome {
        "allowed" => "it succeeded".to_owned(),
        "denied" => "it was denied".to_owned(),
        "rejected" => "it was rejected by admission or escalation checks".to_owned(),
        "unauthenticated" => "the request was not authenticated".to_owned(),
        "dry-run" => "it was a dry run".to_owned(),
        "pending" => "the outcome is not known".to_owned(),
        _ => code.map_or("it failed".to_owned(), |c| format!("it failed with {c}")),
    }
}

/// One sentence: who did what to what, from where, with what, and how it ended.
pub fn summary(facts: &Facts<'_>) -> String {
    let (past, base) = deed(facts);
    let done = matches!(facts.outcome, "allowed");
    let who = match facts.acting_as() {
        Some(other) => format!("{} acting as {}", cut(facts.actor()), cut(other)),
        None => cut(facts.actor()),
    };
    let deed = if done { past } else { format!("tried to {base}") };
    let from = if facts.address().is_empty() { String::new() } else { format!(" from {}", cut(facts.address())) };
    let with = match facts.client().0 {
        "none" | "" => String::new(),
        family => format!(" with {}", cut(family)),
    };
    format!("{who} {deed}{from}{with}; {}", ending(facts.outcome, facts.event.code()))
}

/// What makes the request remarkable, one short line each.
fn details(sight: &Sight<'_, '_>) -> Vec<String> {
    let facts = sight.facts;
    let mut lines = Vec::new();
    let mut line = |key: &str, value: String| {
        if !value.is_empty() {
            lines.push(format!("{key}: {}", cut(&value)));
        }
    };
    if let Some(exec) = facts.exec() {
        line("command", exec.command.clone());
        line("container", exec.container.clone().unwrap_or_default());
    }
    if let Some(proxy) = facts.proxy() {
        line("path", proxy.path.clone());
    }
    if let Ok(Some(rbac)) = facts.rbac() {
        if let Some(Ok(role)) = &rbac.role {
            line("role", role.clone());
        }
        line("subjects", rbac.subjects.join(", "));
        line("grants", rbac.powers.join(", "));
    }
    if let Ok(Some(workload)) = facts.workload() {
        let set = [
            (workload.privileged, "privileged"),
            (workload.host_pid, "hostPID"),
            (workload.host_ipc, "hostIPC"),
            (workload.host_network, "hostNetwork"),
        ];
        let set: Vec<&str> = set.iter().filter(|(held, _)| *held).map(|(_, name)| *name).collect();
        line("host access", set.join(", "));
        line("hostPath", workload.host_paths.join(", "));
        line("capabilities", workload.capabilities.join(", "));
        line("images", workload.images.join(", "));
        line("service account", workload.service_account.clone().unwrap_or_default());
    }
    if let Some(message) = facts.event.response_status.as_ref().map(|s| s.message.as_str()).filter(|m| !m.is_empty()) {
        line("answer", message.to_owned());
    }
    sight.details().into_iter().for_each(|(key, value)| line(key, value));
    lines
}

/// The request spelled out.
pub fn evidence(sight: &Sight<'_, '_>, position: &str) -> Evidence {
    let facts = sight.facts;
    let event = facts.event;
    let resource = match (facts.resource, facts.subresource) {
        ("", _) => cut(event.request_uri.split('?').next().unwrap_or_default()),
        (resource, "") => cut(resource),
        (resource, sub) => cut(&format!("{resource}/{sub}")),
    };
    Evidence {
        time: to_datetime(event.time().unwrap_or_default()),
        audit_id: cut(&event.audit_id),
        position: position.to_owned(),
        actor: cut(facts.actor()),
        acting_as: facts.acting_as().map(cut),
        action: cut(facts.action),
        verb: cut(&event.verb),
        resource,
        namespace: cut(facts.namespace),
        name: cut(facts.name()),
        outcome: facts.outcome.to_owned(),
        code: event.code(),
        address: cut(facts.address()),
        user_agent: cut(&event.user_agent),
        right: cut(facts.reason()),
        details: details(sight),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Event;

    fn said(text: &str) -> String {
        let event = Event::parse(text).expect(text);
        summary(&Facts::new(&event, text, "prod"))
    }

    #[test]
    fn sentences_a_tired_person_understands() {
        let exec = r#"{"auditID":"a","verb":"get","stage":"ResponseStarted","user":{"username":"dave"},"sourceIPs":["172.20.4.14"],
            "userAgent":"kubectl/v1.32.4 (linux)","requestURI":"/api/v1/namespaces/web/pods/p/exec?command=id&command=-u",
            "objectRef":{"resource":"pods","namespace":"web","name":"p","subresource":"exec"},"responseStatus":{"code":101}}"#;
        assert_eq!(said(exec), "dave ran `id -u` in pod web/p from 172.20.4.14 with kubectl; it succeeded");
        let secrets = r#"{"auditID":"a","verb":"list","user":{"username":"eve"},"impersonatedUser":{"username":"root"},
            "objectRef":{"resource":"secrets"},"responseStatus":{"code":403}}"#;
        assert_eq!(said(secrets), "eve acting as root tried to list secrets in all namespaces; it was denied");
        let grant = r#"{"auditID":"a","verb":"create","level":"Request","user":{"username":"eve"},"objectRef":{"resource":"clusterrolebindings","name":"x"},
            "requestObject":{"roleRef":{"name":"cluster-admin"},"subjects":[{"kind":"User","name":"mallory"}]},"responseStatus":{"code":201}}"#;
        assert_eq!(
            said(grant),
            "eve created clusterrolebindings x, granting cluster-admin to user:mallory; it succeeded"
        );
        let anonymous = r#"{"auditID":"a","verb":"get","requestURI":"/metrics?x","responseStatus":{"code":401}}"#;
        assert_eq!(said(anonymous), "system:anonymous tried to request /metrics?x; the request was not authenticated");
    }

    #[test]
    fn long_names_are_cut() {
        let text = format!(
            r#"{{"auditID":"a","verb":"get","user":{{"username":"{}"}},"objectRef":{{"resource":"pods"}}}}"#,
            "é".repeat(100_000)
        );
        assert!(said(&text).chars().count() < 2 * MAX);
    }
}
