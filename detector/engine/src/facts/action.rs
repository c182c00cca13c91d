//! What a request does and how it ended, whatever verb, transport and stage carried it.

use crate::event::{Event, Stage};

/// The action of a request; see `docs/fields.md` for the list.
pub fn action<'e>(event: &'e Event<'_>) -> &'e str {
    let Some(object) = &event.object_ref else { return "url" };
    let denied_impersonation = event.code() == Some(403)
        && event.impersonated_user.is_none()
        && event.response_status.as_ref().is_some_and(|s| s.message.contains("cannot impersonate resource"));
    if denied_impersonation {
        return "impersonate";
    }
    match (&*object.resource, &*object.subresource) {
        ("selfsubjectaccessreviews" | "selfsubjectrulesreviews" | "selfsubjectreviews", "") => "self-review",
        ("subjectaccessreviews" | "localsubjectaccessreviews", "") => "access-review",
        ("tokenreviews", "") => "token-review",
        (_, "") => &event.verb,
        (_, "exec") => "exec",
        (_, "attach") => "attach",
        (_, "portforward") => "portforward",
        (_, "proxy") => "proxy",
        ("pods", "ephemeralcontainers") if writes(&event.verb) => "debug",
        ("pods", "log") => "log",
        ("pods", "eviction") => "evict",
        ("pods", "binding") => "bind",
        ("bindings", _) => "bind",
        ("serviceaccounts", "token") => "token-request",
        ("certificatesigningrequests", "approval") if writes(&event.verb) => "approve",
        (_, "scale") if writes(&event.verb) => "scale",
        (_, "status") if writes(&event.verb) => "status",
        ("namespaces", "finalize") => "finalize",
        _ => &event.verb,
    }
}

fn writes(verb: &str) -> bool {
    matches!(verb, "create" | "update" | "patch")
}

/// `read`, `write`, `delete` or `connect`.
pub fn action_type(action: &str, verb: &str) -> &'static str {
    match action {
        "exec" | "attach" | "portforward" | "proxy" => "connect",
        "log" | "self-review" | "access-review" | "token-review" => "read",
        "evict" => "delete",
        _ => match verb {
            "create" | "update" | "patch" | "post" | "put" | "apply" => "write",
            "delete" | "deletecollection" => "delete",
            _ => "read",
        },
    }
}

/// How the request ended: `allowed`, `denied`, `rejected`, `unauthenticated`, `failed`, `dry-run` or
/// `pending`.
///
/// A 403 whose authorization decision is `allow` came from admission or from the RBAC escalation
/// check (`rejected`); every other 403 from the authorizer (`denied`).
pub fn outcome(event: &Event<'_>, dry_run: bool) -> &'static str {
    let Some(code) = event.code() else {
        return match event.stage {
            Stage::RequestReceived => "pending",
            Stage::Panic => "failed",
            // Sources that carry no status still carry the decision.
            _ => match event.annotation("authorization.k8s.io/decision") {
                Some("forbid") => "denied",
                Some("allow") => "allowed",
                _ => "pending",
            },
        };
    };
    match code {
        401 => "unauthenticated",
        403 if event.annotation("authorization.k8s.io/decision") == Some("allow") => "rejected",
        403 => "denied",
        101 | 200..=399 if dry_run => "dry-run",
        101 | 200..=399 => "allowed",
        // Admission webhooks choose their own codes; the message is the API server's own wording.
        400..=499 if denied_by_admission(event) => "rejected",
        _ => "failed",
    }
}

fn denied_by_admission(event: &Event<'_>) -> bool {
    event
        .response_status
        .as_ref()
        .is_some_and(|s| s.message.starts_with("admission webhook ") && s.message.contains(" denied the request"))
}

/// Whether every stage of the write was a rehearsal: `dryRun=All` in the query, of an action that can be rehearsed. Reads,
/// sessions in pods and tokens are given all the same, whatever the query says.
pub fn dry_run(action: &str, action_type: &str, request_uri: &str) -> bool {
    if !matches!(action_type, "write" | "delete") || action == "token-request" {
        return false;
    }
    let Some((_, query)) = request_uri.split_once('?') else { return false };
    query.split('&').any(|pair| pair == "dryRun=All")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(json: &str) -> Event<'_> {
        Event::parse(json).expect(json)
    }

    #[test]
    fn exec_is_exec_over_either_transport() {
        for verb in ["get", "create"] {
            let text =
                format!(r#"{{"auditID":"a","verb":"{verb}","objectRef":{{"resource":"pods","subresource":"exec"}}}}"#);
            assert_eq!(action(&event(&text)), "exec");
        }
    }

    #[test]
    fn actions_of_special_resources() {
        for (resource, sub, verb, expected) in [
            ("pods", "", "list", "list"),
            ("pods", "ephemeralcontainers", "patch", "debug"),
            ("pods", "ephemeralcontainers", "get", "get"),
            ("nodes", "proxy", "get", "proxy"),
            ("serviceaccounts", "token", "create", "token-request"),
            ("certificatesigningrequests", "approval", "update", "approve"),
            ("selfsubjectrulesreviews", "", "create", "self-review"),
            ("deployments", "scale", "patch", "scale"),
            ("deployments", "scale", "get", "get"),
        ] {
            let text = format!(
                r#"{{"auditID":"a","verb":"{verb}","objectRef":{{"resource":"{resource}","subresource":"{sub}"}}}}"#
            );
            assert_eq!(action(&event(&text)), expected, "{text}");
        }
        assert_eq!(action(&event(r#"{"auditID":"a","verb":"get","requestURI":"/version"}"#)), "url");
    }

    #[test]
    fn only_what_can_be_rehearsed_is_a_rehearsal() {
        let uri = "/x?a=1&dryRun=All";
        for (action, verb, rehearsed) in [
            ("create", "create", true),
            ("scale", "patch", true),
            ("evict", "create", true),
            ("delete", "delete", true),
            ("get", "get", false),
            ("list", "list", false),
            ("exec", "create", false),
            ("portforward", "create", false),
            ("proxy", "create", false),
            ("token-request", "create", false),
            ("self-review", "create", false),
        ] {
            assert_eq!(dry_run(action, action_type(action, verb), uri), rehearsed, "{action}");
        }
    }

    #[test]
    fn outcomes_follow_the_decision_not_only_the_code() {
        let of = |code: &str, decision: &str, uri: &str| {
            let text = format!(
                r#"{{"auditID":"a","verb":"create","requestURI":"{uri}","responseStatus":{{"code":{code}}},"annotations":{{"authorization.k8s.io/decision":"{decision}"}}}}"#
            );
            outcome(&event(&text), dry_run("create", "write", uri))
        };
        assert_eq!(of("201", "allow", "/x"), "allowed");
        assert_eq!(of("101", "allow", "/x"), "allowed");
        assert_eq!(of("201", "allow", "/x?a=1&dryRun=All"), "dry-run");
        assert_eq!(of("403", "forbid", "/x"), "denied");
        assert_eq!(of("403", "allow", "/x"), "rejected");
        assert_eq!(of("403", "", "/x"), "denied");
        assert_eq!(of("401", "", "/x"), "unauthenticated");
        assert_eq!(of("409", "allow", "/x"), "failed");
        assert_eq!(outcome(&event(r#"{"auditID":"a","stage":"RequestReceived"}"#), false), "pending");
    }
}
