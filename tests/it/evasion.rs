//! The 27 ways to slip past detection on audit events, each as a trace in `fixtures/evasion`, and the rule that sees it.
//! The same table for people: `docs/evasions.md`.

use crate::daemon::{fixture, lapwing, ndjson, read, stderr, stdout};

/// Trace, rule, verdict.
const SEEN: [(&str, &str, &str); 25] = [
    ("01-audit-id-reused", "secret-list-all-by-person", "match"),
    ("03-poisoned-body", "reverse-shell-workload", "undecidable"),
    ("04-padded-until-truncated", "body-hidden-by-size", "match"),
    ("05-client-name-of-the-control-plane", "system-client-name-by-person", "match"),
    ("06-forged-forwarded-for", "pod-token-from-public-address", "match"),
    ("07-exec-over-websocket", "exec-into-pod", "match"),
    ("08-session-that-never-ends", "exec-into-system-namespace", "match"),
    ("09-failed-logins", "unauthenticated-burst", "match"),
    ("10-watch-instead-of-get", "secret-watch-by-person", "match"),
    ("11-list-that-reads-one", "system-secret-read", "match"),
    ("12-legacy-watch-path", "secret-list-all-by-person", "match"),
    ("13-kubelet-through-proxy", "kubelet-command-through-api", "match"),
    ("14-kubelet-directly", "kubelet-reached-directly", "match"),
    ("15-static-pod", "static-pod-created", "match"),
    ("16-aggregated-api", "apiservice-written", "match"),
    ("17-patch-forms", "privileged-workload", "match"),
    ("18-generated-name", "pod-named-like-system-pod", "match"),
    ("19-delete-collection", "events-deleted", "match"),
    ("20-dry-run", "dry-run-of-powerful-change", "match"),
    ("21-impersonation", "impersonation-of-privileged-identity", "match"),
    ("23-noise-flood", "exec-reverse-shell", "match"),
    ("24-many-identities-slowly", "denied-identities-by-address", "match"),
    ("25-clock-changed", "secret-list-all-by-person", "match"),
    ("26-detector-removed", "security-agent-disabled", "match"),
    ("27-look-alike-name", "look-alike-name", "match"),
];

/// No event tells of these: see `docs/evasions.md`.
const BLIND: [u32; 2] = [2, 22];

#[test]
fn every_evasion_is_seen_by_the_rule_that_is_named_or_is_a_stated_blind_spot() {
    let mut missed = Vec::new();
    for (trace, rule, verdict) in SEEN {
        let path = fixture(&format!("evasion/{trace}.jsonl")).display().to_string();
        let output = lapwing(&["scan", "--findings", "--output", "ndjson", &path]);
        assert_eq!(output.status.code(), Some(0), "{trace}: {}", stderr(&output));
        let found = ndjson(&stdout(&output));
        if !found.iter().any(|f| f["rule"]["id"] == rule && f["verdict"] == verdict) {
            let ids: Vec<_> = found.iter().map(|f| format!("{} {}", f["rule"]["id"], f["verdict"])).collect();
            missed.push(format!("{trace}: expected {rule} {verdict}, found {ids:?}"));
        }
    }
    assert!(missed.is_empty(), "{}", missed.join("\n"));
    let mut rows: Vec<u32> = SEEN.iter().map(|(t, ..)| t[..2].parse().expect("a number")).chain(BLIND).collect();
    rows.sort_unstable();
    assert_eq!(rows, (1..=27).collect::<Vec<_>>());
}

#[test]
fn the_page_on_evasions_tells_what_the_traces_show() {
    let page = String::from_utf8(read(std::path::Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/evasions.md"))))
        .expect("text");
    for (trace, rule, _) in SEEN {
        let number = trace[..2].trim_start_matches('0');
        let row =
            page.lines().find(|l| l.starts_with(&format!("| {number} |"))).unwrap_or_else(|| panic!("no row {number}"));
        assert!(row.contains(&format!("`{rule}`")), "{row}");
    }
    assert!(page.contains(&format!("{} of 27", SEEN.len())), "the count in docs/evasions.md is another");
}
