//! What of an event the baselines look at, in one reused buffer: no allocation once it has grown.

use super::name;
use crate::facts::{Facts, push_range};

/// Longest text of one part, bytes.
const MAX_PART: usize = 200;
/// Content tokens looked at of one request.
const MAX_TOKENS: usize = 8;
/// Between tokens. Parts hold no control characters of their own.
const TOKEN: char = '\u{1e}';
const PART: char = '\u{1f}';

/// What kind of identity a principal is; each kind is a peer group of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Class {
    Human,
    ServiceAccount,
    Node,
    ControlPlane,
    Anonymous,
}

impl Class {
    pub const ALL: [Self; 5] = [Self::Human, Self::ServiceAccount, Self::Node, Self::ControlPlane, Self::Anonymous];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Human => "human",
            Self::ServiceAccount => "serviceaccount",
            Self::Node => "node",
            Self::ControlPlane => "controlplane",
            Self::Anonymous => "anonymous",
        }
    }

    pub(super) fn parse(actor_kind: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|c| c.as_str() == actor_kind)
    }
}

#[derive(Clone, Copy)]
enum Part {
    Cluster,
    Principal,
    Group,
    Action,
    Namespace,
    Object,
    Client,
    Network,
    Tokens,
    /// Everything up to here tells whether an observation repeats another one.
    Version,
    Subnet,
}
const PARTS: usize = Part::Subnet as usize + 1;

/// One request as the baselines see it.
#[derive(Clone, Debug)]
pub struct Observation {
    text: String,
    ends: [usize; PARTS],
    pub class: Class,
    pub denied: bool,
    pub reads: bool,
    /// Whether it comes from a private address.
    pub private: bool,
    /// Whether the object itself matters, not only its kind.
    pub sensitive: bool,
    /// Place of the resource inside the action's text.
    resource_at: usize,
    /// Stage time, microseconds.
    pub time: i64,
}

impl Default for Observation {
    fn default() -> Self {
        Self {
            text: String::new(),
            ends: [0; PARTS],
            class: Class::Human,
            denied: false,
            reads: false,
            private: false,
            sensitive: false,
            resource_at: 0,
            time: 0,
        }
    }
}

impl Observation {
    /// Takes over an event; false where there is nobody or nothing to learn from: a stage before the answer,
    /// a user that cannot be read.
    pub fn fill(&mut self, facts: &Facts<'_>) -> bool {
        let Some(class) = Class::parse(facts.actor_kind).filter(|_| facts.judged()) else { return false };
        self.class = class;
        self.denied = matches!(facts.outcome, "denied" | "unauthenticated");
        self.reads = facts.action_type == "read";
        self.private = facts.network() == "private";
        self.time = facts.time().unwrap_or_default();
        self.text.clear();
        push(&mut self.text, facts.cluster);
        self.end(Part::Cluster);
        with_clean(&mut self.text, facts.actor(), name::push_principal);
        self.end(Part::Principal);
        if class == Class::Human {
            let groups = &facts.event.user.groups.0;
            push(&mut self.text, groups.iter().map(|g| &**g).find(|g| !g.starts_with("system:")).unwrap_or_default());
        }
        self.end(Part::Group);
        self.action(facts);
        self.end(Part::Action);
        push(&mut self.text, if facts.namespace.is_empty() { "*" } else { facts.namespace });
        self.end(Part::Namespace);
        self.object(facts);
        self.end(Part::Object);
        let (family, version) = facts.client();
        push(&mut self.text, family);
        self.end(Part::Client);
        with_clean(&mut self.text, facts.address(), |a, out| push_network(a, false, out));
        self.end(Part::Network);
        self.text.push(if self.denied { 'F' } else { 'S' });
        push_tokens(facts, &mut self.text);
        self.end(Part::Tokens);
        with_clean(&mut self.text, version, name::push_version);
        self.end(Part::Version);
        with_clean(&mut self.text, facts.address(), |a, out| push_network(a, true, out));
        self.end(Part::Subnet);
        true
    }

    fn end(&mut self, part: Part) {
        self.ends[part as usize] = self.text.len();
        self.text.push(PART);
    }

    /// `action resource`, with the subresource where the action does not tell it; for URLs the first two steps.
    fn action(&mut self, facts: &Facts<'_>) {
        push(&mut self.text, facts.action);
        self.text.push(' ');
        self.resource_at = self.text.len();
        if facts.resource.is_empty() {
            let path = facts.event.request_uri.split('?').next().unwrap_or_default();
            let end = path.match_indices('/').nth(3).map_or(path.len(), |(at, _)| at);
            push(&mut self.text, &path[..end]);
            return;
        }
        push(&mut self.text, facts.resource);
        if !facts.subresource.is_empty() && *facts.action == *facts.event.verb {
            self.text.push('/');
            push(&mut self.text, facts.subresource);
        }
    }

    fn object(&mut self, facts: &Facts<'_>) {
        let named = matches!(facts.resource, "secrets" | "configmaps") || facts.action == "token-request";
        let connects = matches!(facts.action, "exec" | "attach" | "portforward" | "debug")
            || (facts.action == "proxy" && facts.resource == "nodes");
        self.sensitive = named || connects;
        if self.sensitive {
            push(&mut self.text, if facts.namespace.is_empty() { "*" } else { facts.namespace });
            self.text.push('/');
            if named && let Some(object) = &facts.event.object_ref {
                with_clean(&mut self.text, &object.name, name::push_object);
            }
        }
    }

    fn part(&self, part: Part) -> &str {
        let i = part as usize;
        let start = if i == 0 { 0 } else { self.ends[i - 1] + PART.len_utf8() };
        &self.text[start..self.ends[i]]
    }

    /// The same for requests that teach nothing beyond the first of them.
    pub fn key(&self) -> &str {
        &self.text[..self.ends[Part::Tokens as usize]]
    }

    /// Cluster and principal: whose baseline this is.
    pub fn owner(&self) -> &str {
        &self.text[..self.ends[Part::Principal as usize]]
    }

    pub fn cluster(&self) -> &str {
        self.part(Part::Cluster)
    }

    pub fn principal(&self) -> &str {
        self.part(Part::Principal)
    }

    /// The first group of a person that is not the system's.
    pub fn group(&self) -> &str {
        self.part(Part::Group)
    }

    pub fn action_text(&self) -> &str {
        self.part(Part::Action)
    }

    pub fn verb(&self) -> &str {
        self.action_text().split(' ').next().unwrap_or_default()
    }

    pub fn resource(&self) -> &str {
        &self.text[self.resource_at..self.ends[Part::Action as usize]]
    }

    /// What kind of object [`Self::object_text`] is: sessions in pods are apart from forwarded ports.
    pub fn object_kind(&self) -> &str {
        if matches!(self.verb(), "exec" | "attach" | "portforward" | "debug" | "proxy") {
            self.action_text()
        } else {
            self.resource()
        }
    }

    pub fn namespace(&self) -> &str {
        self.part(Part::Namespace)
    }

    pub fn object_text(&self) -> &str {
        self.part(Part::Object)
    }

    pub fn client(&self) -> &str {
        self.part(Part::Client)
    }

    pub fn version(&self) -> &str {
        self.part(Part::Version)
    }

    pub fn network(&self) -> &str {
        self.part(Part::Network)
    }

    pub fn subnet(&self) -> &str {
        self.part(Part::Subnet)
    }

    /// What the body writes that matters, and whom the request acts as.
    pub fn tokens(&self) -> impl Iterator<Item = &str> {
        self.part(Part::Tokens).split(TOKEN).skip(1)
    }

    /// Four hours of the day, working days and weekends apart: 0 to 11.
    pub fn slot(&self) -> u32 {
        let seconds = self.time.div_euclid(1_000_000);
        let monday_first = (seconds.div_euclid(86_400) + 3).rem_euclid(7);
        let block = (seconds.rem_euclid(86_400) / 14_400) as u32;
        block + if monday_first >= 5 { 6 } else { 0 }
    }
}

/// Names of [`Observation::slot`].
pub(super) const SLOTS: [&str; 12] = [
    "working days 00-04 h",
    "working days 04-08 h",
    "working days 08-12 h",
    "working days 12-16 h",
    "working days 16-20 h",
    "working days 20-24 h",
    "weekends 00-04 h",
    "weekends 04-08 h",
    "weekends 08-12 h",
    "weekends 12-16 h",
    "weekends 16-20 h",
    "weekends 20-24 h",
];

fn push_token(out: &mut String, left: &mut usize, prefix: &str, value: &str) {
    if *left > 0 {
        *left -= 1;
        out.push(TOKEN);
        out.push_str(prefix);
        push(out, value);
    }
}

/// The powers a body asks for. Bodies are read only of requests that may write a pod spec or RBAC, and not of those of the
/// cluster's own controllers: what they write is what others asked for, and is unusual of those.
fn push_tokens(facts: &Facts<'_>, out: &mut String) {
    let mut left = MAX_TOKENS;
    if let Some(other) = facts.acting_as() {
        push_token(out, &mut left, "acts as ", other);
    }
    if facts.cluster_component {
        return;
    }
    if let Ok(Some(rbac)) = facts.rbac() {
        rbac.powers.iter().for_each(|power| push_token(out, &mut left, "grants ", power));
        if let Some(Ok(role)) = &rbac.role {
            push_token(out, &mut left, "role ", role);
        }
        rbac.subjects.iter().for_each(|subject| push_token(out, &mut left, "to ", subject));
    }
    if let Ok(Some(workload)) = facts.workload() {
        let flags = [
            (workload.privileged, "privileged"),
            (workload.host_pid, "hostPID"),
            (workload.host_ipc, "hostIPC"),
            (workload.host_network, "hostNetwork"),
        ];
        flags.iter().filter(|(set, _)| *set).for_each(|(_, flag)| push_token(out, &mut left, flag, ""));
        workload.sensitive_host_paths.iter().for_each(|path| push_token(out, &mut left, "hostPath ", path));
        workload.capabilities.iter().for_each(|cap| push_token(out, &mut left, "capability ", cap));
        if let Some(account) = &workload.service_account {
            push_token(out, &mut left, "runs as ", account);
        }
        workload.registries.iter().for_each(|registry| push_token(out, &mut left, "image from ", registry));
    }
}

/// Whether a token is a power by itself.
pub(super) fn is_power(token: &str) -> bool {
    ["acts as ", "grants ", "privileged", "host", "capability "].iter().any(|p| token.starts_with(p))
}

/// The network of an address; what is no address as it is.
fn push_network(address: &str, narrow: bool, out: &mut String) {
    if !push_range(address, narrow, out) {
        out.push_str(address);
    }
}

/// Looks at every byte: without a way out of the loop it is done many at a time.
fn has_control(text: &str) -> bool {
    text.bytes().fold(false, |found, b| found | b.is_ascii_control())
}

/// `text` up to [`MAX_PART`] bytes; control characters become `?`, so that no text can pass for two parts.
fn push(out: &mut String, text: &str) {
    let cut = text.floor_char_boundary(MAX_PART.min(text.len()));
    let text = &text[..cut];
    if has_control(text) {
        out.extend(text.chars().map(|c| if c.is_control() { '?' } else { c }));
    } else {
        out.push_str(text);
    }
}

/// As [`push`], of a text that is rewritten on the way.
fn with_clean(out: &mut String, text: &str, rewrite: impl Fn(&str, &mut String)) {
    let cut = &text[..text.floor_char_boundary(MAX_PART.min(text.len()))];
    if has_control(cut) {
        let clean: String = cut.chars().map(|c| if c.is_control() { '?' } else { c }).collect();
        rewrite(&clean, out);
    } else {
        rewrite(cut, out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Event;

    fn seen(text: &str) -> Observation {
        let event = Event::parse(text).expect(text);
        let mut observation = Observation::default();
        assert!(observation.fill(&Facts::new(&event, text, "prod")));
        observation
    }

    #[test]
    fn an_event_in_its_parts() {
        let o = seen(
            r#"{"auditID":"a","stage":"ResponseComplete","verb":"get","user":{"username":"system:serviceaccount:web:front"},
            "sourceIPs":["10.244.3.9"],"userAgent":"curl/7.88.1","objectRef":{"resource":"secrets","namespace":"web","name":"sh.helm.release.v1.app.v7"},
            "responseStatus":{"code":403},"stageTimestamp":"2026-11-21T14:35:00Z"}"#,
        );
        assert_eq!(o.owner(), "prod\u{1f}system:serviceaccount:web:front");
        assert_eq!((o.action_text(), o.verb(), o.resource()), ("get secrets", "get", "secrets"));
        assert_eq!((o.namespace(), o.object_text()), ("web", "web/sh.helm.release.v1.app"));
        assert_eq!(
            (o.client(), o.version(), o.network(), o.subnet()),
            ("curl", "7.88", "10.244.0.0/16", "10.244.3.0/24")
        );
        assert!(o.denied && o.reads && o.sensitive);
        assert_eq!(o.tokens().count(), 0);
        assert_eq!(SLOTS[o.slot() as usize], "weekends 12-16 h", "a Saturday");
    }

    #[test]
    fn a_client_cannot_write_itself_into_another_part() {
        let text = |agent: &str| {
            format!(
                r#"{{"auditID":"a","stage":"ResponseComplete","verb":"list","user":{{"username":"eve"}},"sourceIPs":["10.0.0.1"],
                "userAgent":"{agent}","objectRef":{{"resource":"pods"}},"responseStatus":{{"code":200}}}}"#
            )
        };
        let forged = seen(&text(r"kubectl\u001f10.9.0.0/16\u001eprivileged"));
        assert_eq!(forged.client(), "kubectl?10.9.0.0");
        assert_eq!(forged.network(), "10.0.0.0/16");
        assert_eq!(forged.tokens().count(), 0);
    }

    #[test]
    fn powers_of_a_body_are_tokens() {
        let o = seen(
            r#"{"auditID":"a","stage":"ResponseComplete","level":"Request","verb":"create","user":{"username":"eve"},
            "impersonatedUser":{"username":"root"},"objectRef":{"resource":"pods","namespace":"web"},"responseStatus":{"code":201},
            "requestObject":{"spec":{"hostPID":true,"serviceAccountName":"deployer","containers":[{"name":"a","image":"evil.example/x:1","securityContext":{"privileged":true}}]}}}"#,
        );
        let tokens: Vec<&str> = o.tokens().collect();
        assert_eq!(tokens, ["acts as root", "privileged", "hostPID", "runs as deployer", "image from evil.example"]);
        assert!(is_power(tokens[1]) && !is_power(tokens[4]));
    }

    #[test]
    fn before_the_answer_there_is_nothing_to_learn() {
        let text = r#"{"auditID":"a","stage":"RequestReceived","verb":"get","user":{"username":"eve"}}"#;
        let event = Event::parse(text).expect(text);
        assert!(!Observation::default().fill(&Facts::new(&event, text, "prod")));
    }
}
