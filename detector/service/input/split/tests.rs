use super::*;

fn ev(n: usize) -> String {
    format!(r#"{{"level":"Metadata","auditID":"{n}","verb":"get"}}"#)
}

/// Audit ids of events, reasons of rejects.
fn summary(body: &[u8]) -> Vec<String> {
    split(body, &Limits::default())
        .iter()
        .map(|item| match item {
            Item::Event(text) => Event::parse(text).map(|e| e.audit_id.to_string()).unwrap_or_else(|e| e.to_string()),
            Item::Reject { reason, excerpt, .. } => {
                assert!(excerpt.len() <= EXCERPT);
                reason.as_str().to_owned()
            }
        })
        .collect()
}

#[test]
fn hostile_items_among_good_ones() {
    let deep = format!(r#"{{"auditID":"deep","requestObject":{}1{}}}"#, "[".repeat(10_000), "]".repeat(10_000));
    let agent = format!(r#"{{"auditID":"agent","userAgent":"{}"}}"#, "a".repeat(1 << 20));
    let items = [
        ev(1),
        deep,
        r#"{"auditID":"number","requestObject":1e999}"#.into(),
        r#"{"auditID":"surrogate","userAgent":"\ud800"}"#.into(),
        agent,
        r#"{"kind":"Pod","apiVersion":"v1"}"#.into(),
        r#"{"auditID":"#.to_owned() + "}",
        ev(2),
    ];
    let list = format!(r#"{{"kind":"EventList","apiVersion":"audit.k8s.io/v1","items":[{}]}}"#, items.join(","));
    let expected = ["1", "deep", "number", "surrogate", "agent", "not_an_event", "not_json", "2"];
    assert_eq!(summary(list.as_bytes()), expected);
    assert_eq!(summary(items.join("\n").as_bytes()), expected);
}

/// A string without its end, or without its beginning, in the middle of a list on one line.
#[test]
fn a_missing_quote_costs_its_item_and_no_other() {
    let list = |middle: &str| {
        let items = [&ev(1), middle, &ev(2), &ev(3)].map(String::from).join(",");
        format!(r#"{{"kind":"EventList","apiVersion":"audit.k8s.io/v1","metadata":{{}},"items":[{items}]}}"#)
    };
    for damaged in [
        r#"{"level":"Metadata","auditID":"x","verb":"get}"#,
        r#"{"level":"Metadata","auditID":"x","verb":get","user":{"username":"u"}}"#,
        r#"{"level":"Metadata","auditID":x","user":{"username":"u"}}"#,
        r#"{"level":"Metadata","auditID":"x","requestObject":{"a":["b]},"verb":"get"}"#,
    ] {
        assert_eq!(summary(list(damaged).as_bytes()), ["1", "not_json", "2", "3"], "{damaged}");
    }
    // What looks like the next event within a string or a body of a good one is text.
    let escaped = r#"{"level":"Metadata","auditID":"4","userAgent":"},{\"level\":\"","requestObject":[{},{"level":"Metadata","auditID":"no"}]}"#;
    assert_eq!(summary(list(escaped).as_bytes()), ["1", "4", "2", "3"]);
    // Also not when the list ends within the body.
    let whole = list(escaped);
    let cut = &whole[..whole.find(r#""no""#).expect("there") + 4];
    assert_eq!(summary(cut.as_bytes()), ["1", "not_json"]);
}

#[test]
fn bodies_that_hold_nothing() {
    assert_eq!(summary(b""), ["bad_body"]);
    assert_eq!(summary(b" \n"), ["bad_body"]);
    assert_eq!(summary(b"hello"), ["not_json"]);
    assert_eq!(summary(b"\xff\xff"), ["not_json"]);
    assert_eq!(summary(b"{}"), ["not_an_event"]);
    assert!(summary(br#"{"kind":"EventList","items":[]}"#).is_empty());
}

#[test]
fn events_and_rejects_are_redacted() {
    let secret = r#"{"auditID":"1","objectRef":{"resource":"secrets"},"requestObject":{"data":{"k":"c2VjcmV0"}}}"#;
    for body in [secret.to_owned(), secret[..secret.len() - 5].to_owned(), secret.replace("auditID", "other")] {
        let items = split(body.as_bytes(), &Limits::default());
        assert_eq!(items.len(), 1);
        assert!(!format!("{items:?}").contains("c2Vj"), "{items:?}");
    }
}
