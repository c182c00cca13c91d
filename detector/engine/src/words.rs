//! The words of a finding: one sentence of who did what to what, and the request as evidence.
//!
//! Names and commands are text that the sender chose. They are cut here to a bounded length and told without secrets; they
//! are escaped where they leave, by the encoder of each format.
//!
//! Bodies are most of an event and little of what is told of it. What stands around them is redacted as a whole, and of
//! them only the few texts that are told.

use std::borrow::Cow;

use crate::alert::Evidence;
use crate::event::{Event, to_datetime};
use crate::facts::Facts;
use crate::memory::Sight;
use crate::redact;
use crate::rule::view::View;

/// Longest piece of sender-chosen text in a sentence or a detail line, in characters.
pub(crate) const MAX: usize = 200;

/// `text`, cut to [`MAX`] characters with a mark.
pub(crate) fn cut(text: &str) -> String {
    match text.char_indices().nth(MAX) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text.to_owned(),
    }
}

/// As [`cut`], without secrets.
pub(crate) fn safe(text: &str) -> String {
    cut(&redact::plain(text))
}

/// A request as it is told.
struct Teller<'t, 'h, 's, 'e> {
    /// What stands around the bodies, without secrets.
    head: &'t Facts<'h>,
    sight: &'t Sight<'s, 'e>,
}

/// What is told of a request.
#[derive(Debug)]
pub struct Told {
    pub evidence: Evidence,
    /// One sentence.
    pub summary: String,
}

/// Tells of a request that lies at `position`.
pub fn tell(sight: &Sight<'_, '_>, position: &str) -> Told {
    let facts = sight.facts;
    // The options of an exec may be its body.
    let text = if facts.action_type == "connect" {
        Cow::Borrowed(facts.all_text())
    } else {
        facts.event.text_without_bodies(facts.all_text())
    };
    if let Cow::Owned(clean) = redact::event(&text)
        && let Ok(event) = Event::parse(&clean)
    {
        return Teller { head: &Facts::new(&event, &clean, facts.cluster), sight }.tell(position);
    }
    Teller { head: facts, sight }.tell(position)
}

impl Teller<'_, '_, '_, '_> {
    fn tell(&self, position: &str) -> Told {
        Told { evidence: self.evidence(position), summary: self.summary() }
    }

    /// `namespace/name`, or what there is of it.
    fn place(&self) -> String {
        let (namespace, name) = (cut(self.head.namespace), self.name());
        match (namespace.is_empty(), name.is_empty()) {
            (false, false) => format!(" {namespace}/{name}"),
            (true, false) => format!(" {name}"),
            (false, true) => format!(" in {namespace}"),
            (true, true) if self.head.scope() == "all-namespaces" => " in all namespaces".to_owned(),
            (true, true) => String::new(),
        }
    }

    /// A name that the server made up stands in the body.
    fn name(&self) -> String {
        match self.head.name() {
            "" => safe(self.sight.facts.name()),
            name => cut(name),
        }
    }

    /// What the request does, past tense and base form: (`ran …`, `run …`).
    fn deed(&self) -> (String, String) {
        let facts = self.head;
        let place = self.place();
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
            "update" => both("updated", "update", format!("{resource}{place}{}", self.grant())),
            "patch" => both("patched", "patch", format!("{resource}{place}{}", self.grant())),
            "create" => both("created", "create", format!("{resource}{place}{}", self.grant())),
            "delete" => both("deleted", "delete", format!("{resource}{place}")),
            other => both("did", "do", format!("`{}` on {resource}{place}", cut(other))),
        }
    }

    /// For grants: which role to whom.
    fn grant(&self) -> String {
        let Ok(Some(rbac)) = self.sight.facts.rbac() else { return String::new() };
        let Some(Ok(role)) = &rbac.role else { return String::new() };
        let to = if rbac.subjects.is_empty() { "nobody".to_owned() } else { safe(&rbac.subjects.join(", ")) };
        format!(", granting {} to {to}", safe(role))
    }

    /// One sentence: who did what to what, from where, with what, and how it ended.
    fn summary(&self) -> String {
        let facts = self.head;
        let (past, base) = self.deed();
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
    fn details(&self) -> Vec<String> {
        let (head, whole) = (self.head, self.sight.facts);
        let mut lines = Vec::new();
        let mut line = |key: &str, value: String| {
            if !value.is_empty() {
                lines.push(format!("{key}: {}", safe(&value)));
            }
        };
        if let Some(exec) = head.exec() {
            line("command", exec.command.clone());
            line("container", exec.container.clone().unwrap_or_default());
        }
        if let Some(proxy) = head.proxy() {
            line("path", proxy.path.clone());
        }
        if let Ok(Some(rbac)) = whole.rbac() {
            if let Some(Ok(role)) = &rbac.role {
                line("role", role.clone());
            }
            line("subjects", rbac.subjects.join(", "));
            line("grants", rbac.powers.join(", "));
        }
        if let Ok(Some(workload)) = whole.workload() {
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
        if let Some(message) = head.event.response_status.as_ref().map(|s| s.message.as_str()).filter(|m| !m.is_empty())
        {
            line("answer", message.to_owned());
        }
        self.sight.details().into_iter().for_each(|(key, value)| line(key, value));
        lines
    }

    /// The request spelled out.
    fn evidence(&self, position: &str) -> Evidence {
        let facts = self.head;
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
            name: self.name(),
            outcome: facts.outcome.to_owned(),
            code: event.code(),
            address: cut(facts.address()),
            user_agent: cut(&event.user_agent),
            right: cut(facts.reason()),
            details: self.details(),
        }
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::Memory;

    fn told(text: &str) -> Told {
        let event = Event::parse(text).expect(text);
        tell(&Sight::new(&Facts::new(&event, text, "prod"), &Memory::new(1)), "")
    }

    fn said(text: &str) -> String {
        told(text).summary
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
    fn nothing_secret_is_told_of_head_or_bodies() {
        let pod = r#"{"auditID":"a","level":"RequestResponse","verb":"create","user":{"username":"bob --password=hunter21"},
            "objectRef":{"resource":"pods","namespace":"web"},"responseStatus":{"code":201,"message":"Authorization: Bearer hunter22aaaa"},
            "requestObject":{"metadata":{"generateName":"x-"},"spec":{"serviceAccountName":"robot","hostPID":true,
            "containers":[{"image":"https://bot:hunter23@registry.example/x:1"},{"image":"plain:2"}]}},
            "responseObject":{"metadata":{"name":"x-token=hunter24","uid":"u"}}}"#;
        let Told { evidence, summary } = told(pod);
        assert_eq!(
            evidence.details,
            [
                "host access: hostPID",
                "images: https://bot:<redacted 8 bytes>@registry.example/x:1, plain:2",
                "service account: robot",
                "answer: Authorization: Bearer <redacted 12 bytes>",
            ]
        );
        assert_eq!(evidence.name, "x-token=<redacted 8 bytes>");
        assert_eq!(
            summary,
            "bob --password=<redacted 8 bytes> created pods web/x-token=<redacted 8 bytes>; it succeeded"
        );
        let grant = r#"{"auditID":"a","verb":"create","level":"Request","user":{"username":"eve"},"objectRef":{"resource":"rolebindings"},
            "requestObject":{"roleRef":{"name":"pwd=hunter25"},"subjects":[{"kind":"User","name":"token=hunter26"}]},"responseStatus":{"code":201}}"#;
        let Told { evidence, summary } = told(grant);
        let said = format!("{summary} {:?}", evidence.details);
        assert!(said.contains("granting pwd=<redacted 8 bytes> to user:token=<redacted 8 bytes>"), "{said}");
        assert!(!said.contains("hunter2"), "{said}");
    }

    #[test]
    fn the_command_of_an_exec_is_told_though_it_is_a_body() {
        let exec = r#"{"auditID":"a","level":"Request","verb":"create","user":{"username":"eve"},"requestURI":"/api/v1/namespaces/web/pods/p/exec",
            "objectRef":{"resource":"pods","namespace":"web","name":"p","subresource":"exec"},"responseStatus":{"code":101},
            "requestObject":{"kind":"PodExecOptions","command":["mysql","-phunter27"],"container":"db"}}"#;
        assert_eq!(told(exec).evidence.details, ["command: mysql -p<redacted 8 bytes>", "container: db"]);
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
