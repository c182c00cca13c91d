//! A marked alert to send for a test (`lapwing output test`), and the example the tests of this room share.

use chrono::{DateTime, Utc};
use lapwing_engine::alert::{Alert, Evidence, Level, RuleRef, Status, Verdict};

/// The alert `lapwing output test` sends. It says TEST in every field a person reads.
pub fn test_alert(output: &str, now: DateTime<Utc>) -> Alert {
    Alert {
        id: format!("test-{}", now.format("%Y%m%dT%H%M%S%3f")),
        status: Status::Test,
        rule: RuleRef {
            id: "lapwing-test".to_owned(),
            title: "TEST alert, nothing happened".to_owned(),
            level: Level::Informational,
            tags: Vec::new(),
        },
        level: Level::Informational,
        verdict: Verdict::Match,
        cluster: "TEST".to_owned(),
        actor: "TEST".to_owned(),
        actor_kind: "human".to_owned(),
        first: now,
        last: now,
        count: 1,
        summary: format!("TEST: `lapwing output test {output}` asked whether alerts arrive here; nothing happened"),
        why: "TEST: this message proves the way from Lapwing to you. No event is behind it.".to_owned(),
        false_positives: Vec::new(),
        next_steps: vec!["TEST: nothing to do".to_owned()],
        audit_ids: Vec::new(),
        evidence: vec![Evidence {
            time: now,
            actor: "TEST".to_owned(),
            action: "test".to_owned(),
            verb: "test".to_owned(),
            resource: "tests".to_owned(),
            outcome: "allowed".to_owned(),
            ..Evidence::default()
        }],
        anomaly: None,
    }
}

#[cfg(test)]
pub(crate) fn alert() -> Alert {
    let time: DateTime<Utc> = "2026-03-01T12:00:00Z".parse().unwrap();
    Alert {
        id: "a1b2c3d4".to_owned(),
        status: Status::New,
        rule: RuleRef {
            id: "pod-exec-shell".to_owned(),
            title: "Shell opened in a pod".to_owned(),
            level: Level::High,
            tags: vec!["attack.execution".to_owned(), "attack.t1609".to_owned()],
        },
        level: Level::High,
        verdict: Verdict::Match,
        cluster: "prod".to_owned(),
        actor: "alice".to_owned(),
        actor_kind: "human".to_owned(),
        first: time,
        last: time,
        count: 1,
        summary: "alice opened a shell in pod web-1 (namespace shop) from 203.0.113.7; it was allowed".to_owned(),
        why: "A shell in a pod runs with the pod's rights.\n".to_owned(),
        false_positives: vec!["Debugging by the team that owns the pod".to_owned()],
        next_steps: vec![
            "kubectl -n shop get pod web-1 -o yaml".to_owned(),
            "Ask alice whether this was planned".to_owned(),
        ],
        audit_ids: vec!["7f0f6f3e-0000-4000-8000-000000000001".to_owned()],
        evidence: vec![Evidence {
            time,
            audit_id: "7f0f6f3e-0000-4000-8000-000000000001".to_owned(),
            position: "1:0".to_owned(),
            actor: "alice".to_owned(),
            acting_as: None,
            action: "exec".to_owned(),
            verb: "create".to_owned(),
            resource: "pods/exec".to_owned(),
            namespace: "shop".to_owned(),
            name: "web-1".to_owned(),
            outcome: "allowed".to_owned(),
            code: Some(101),
            address: "203.0.113.7".to_owned(),
            user_agent: "kubectl/v1.31.0".to_owned(),
            right: "RoleBinding shop/devs".to_owned(),
            details: vec!["command: sh -i".to_owned()],
        }],
        anomaly: None,
    }
}

/// [`alert`] with every field an attacker can write set to `text`.
#[cfg(test)]
pub(crate) fn hostile(text: &str) -> Alert {
    let mut alert = alert();
    let text = || text.to_owned();
    (alert.actor, alert.summary, alert.cluster) = (text(), text(), text());
    alert.next_steps = vec![text()];
    alert.audit_ids = vec![text()];
    let e = &mut alert.evidence[0];
    (e.actor, e.acting_as, e.verb, e.audit_id) = (text(), Some(text()), text(), text());
    (e.resource, e.namespace, e.name, e.outcome) = (text(), text(), text(), text());
    (e.address, e.user_agent, e.right, e.details) = (text(), text(), text(), vec![text()]);
    alert
}
