//! Good and bad rule files, and what is said about them.

use super::*;

const GOOD: &str = "\
title: Exec into a pod
id: 5638f7c0-ac70-491d-8465-2a65075e0d86
name: exec
status: test
description: |
  Two lines
  of text.
references: [https://kubernetes.io]
author: A
date: 2024-03-26
modified: 2024/04/01
tags: [attack.execution, attack.t1609]
logsource: {category: application, product: kubernetes, service: audit, definition: d}
detection:
  selection: {verb: create}
  filter_x: {verb: get}
  condition: [selection, selection and not filter_x]
fields: [verb]
falsepositives: debugging
level: high
related: [{id: x, type: similar}]
license: Apache-2.0
scope: [server]
x-team: blue
custom_field: {a: 1}
simulation: [{type: atomic}]
lapwing:
  next_steps: [look, ask]
  owner: soc
  suppress: 2h
";

fn problems(text: &str) -> Vec<String> {
    RuleFile::parse("r.yml".as_ref(), text).1.iter().map(ToString::to_string).collect()
}

#[test]
fn a_whole_rule_is_read() {
    let (file, problems) = RuleFile::parse("r.yml".as_ref(), GOOD);
    assert_eq!(problems, []);
    let meta = &file.documents[0].meta;
    assert_eq!((meta.label(), meta.level), ("exec", Level::High));
    assert_eq!(meta.description, "Two lines\nof text.\n");
    assert_eq!(meta.modified, NaiveDate::from_ymd_opt(2024, 4, 1));
    assert_eq!(meta.false_positives, ["debugging"]);
    assert_eq!(meta.related, [("x".to_owned(), "similar".to_owned())]);
    assert_eq!(meta.next_steps, ["look", "ask"]);
    assert_eq!(meta.suppress_micros, Some(7_200_000_000));
    assert!(meta.is("exec") && meta.is("5638F7C0-AC70-491D-8465-2A65075E0D86") && !meta.is("Exec"));
    let Body::Detection(detection) = &file.documents[0].body else { panic!("a detection") };
    assert_eq!(detection.selections.len(), 2);
    assert_eq!(detection.conditions.len(), 2);
}

#[test]
fn everything_wrong_is_told_at_once() {
    let text = "\
titel: x
status: tested
date: yesterday
level: hihg
tags: [[a]]
logsource: {product: windows, service: audti}
detection: {selection: {verb: a}, timeframe: 5m}
lapwing: {next_step: x, expires: soon, suppress: 5}
";
    assert_eq!(
        problems(text),
        [
            "r.yml:1:1: rule `r`: `title` is missing; a rule needs a short name for people",
            "r.yml:1:1: rule `r`: unknown key `titel`; did you mean `title`?",
            "r.yml:2:9: rule `r`: `status` is `tested`; expected one of stable, test, experimental, deprecated, unsupported; did you mean `test`?",
            "r.yml:3:7: rule `r`: `date` is `yesterday`; expected a date as YYYY-MM-DD",
            "r.yml:4:8: rule `r`: `level` is `hihg`; expected one of informational, low, medium, high, critical; did you mean `high`?",
            "r.yml:5:8: rule `r`: expected a text, found a list",
            "r.yml:6:22: rule `r`: logsource product is `windows`; only `product: kubernetes` with `service: audit` can be judged here",
            "r.yml:6:40: rule `r`: logsource service is `audti`; only `product: kubernetes` with `service: audit` can be judged here",
            "r.yml:7:12: rule `r`: `condition` is missing; a rule needs one, as in `condition: selection`",
            "r.yml:7:35: rule `r`: `timeframe` was removed from Sigma; write a correlation with `timespan`",
            "r.yml:8:11: rule `r`: unknown key `next_step`; did you mean `next_steps`?",
            "r.yml:8:34: rule `r`: `expires` is `soon`; expected a date as YYYY-MM-DD",
            "r.yml:8:50: rule `r`: `suppress` is `5`; expected a number and one of s, m, h, d, as in `90m`",
        ]
    );
}

#[test]
fn bad_documents() {
    let base = "title: t\nlogsource: {product: kubernetes}\n";
    let correlation = "title: t\ncorrelation:\n  type: event_count\n  rules: [a]\n  timespan: 5m\n  ";
    for (text, want) in [
        ("".to_owned(), "r.yml: the file holds no rule"),
        ("- a".to_owned(), "r.yml:1:1: expected a map with `title` and `detection`, found a list"),
        ("a: [".to_owned(), "r.yml:1:"),
        ("a: 1\na: 2".to_owned(), "r.yml:2:1: not YAML we can read: "),
        (base.to_owned(), "r.yml:1:1: rule `r`: `detection` is missing; a rule needs what to look for"),
        (
            format!("{base}detection: {{}}\nfilter: {{}}"),
            "r.yml:1:1: rule `r`: a document has `detection`, `correlation` or `filter`, and only one",
        ),
        (
            format!("{base}detection: x"),
            "r.yml:3:12: rule `r`: expected a map of selections and a `condition`, found a text",
        ),
        (
            "title: t\ndetection: {s: {verb: a}, condition: s}".to_owned(),
            "r.yml:1:1: rule `r`: `logsource` is missing; a rule needs `product: kubernetes`",
        ),
        (
            format!("{base}id: ''\ndetection: {{s: {{verb: a}}, condition: s}}"),
            "r.yml:3:5: rule ``: expected a text that is not empty, found a text",
        ),
        (
            format!("{base}filter: {{selection: {{verb: a}}, condition: selection}}"),
            "r.yml:3:9: rule `r`: `rules` is missing; a rule needs the ids or names of the rules to filter, or `any`",
        ),
        (
            "title: t\ncorrelation: {type: event_count}".to_owned(),
            "r.yml:2:14: rule `r`: `rules` is missing; a rule needs the ids or names of the rules to correlate",
        ),
        (
            format!("{correlation}condition: {{gt: -1}}"),
            "r.yml:6:19: rule `r`: expected a whole number from 0, found a number",
        ),
        (format!("{correlation}condition: {{gr: 1}}"), "r.yml:6:15: rule `r`: unknown key `gr`; did you mean `gt`?"),
        (format!("{correlation}groupby: [a]"), "r.yml:6:3: rule `r`: unknown key `groupby`; did you mean `group-by`?"),
        (format!("{correlation}generate: 1"), "r.yml:6:13: rule `r`: expected true or false, found a number"),
        (
            correlation.replace("5m", "5w"),
            "r.yml:5:13: rule `r`: `timespan` is `5w`; expected a number and one of s, m, h, d, as in `90m`",
        ),
    ] {
        let found = problems(&text);
        assert!(found.first().is_some_and(|p| p.starts_with(want)), "{text}\n{found:?}");
    }
}

#[test]
fn a_bad_document_does_not_hide_a_good_one() {
    let (file, problems) = RuleFile::parse("r.yml".as_ref(), &format!("title: t\n---\n{GOOD}"));
    assert_eq!(file.documents.len(), 1);
    assert!(!problems.is_empty());
    assert_eq!(file.documents[0].at.line, 3);
}

#[test]
fn time_spans() {
    for (text, want) in [
        ("5s", Some(5_000_000)),
        ("90m", Some(5_400_000_000)),
        ("1d", Some(86_400_000_000)),
        ("0s", None),
        ("-1s", None),
        ("1w", None),
        ("s", None),
        ("1é", None),
        ("", None),
        ("999999999999d", None),
    ] {
        assert_eq!(parse_span(text), want, "{text}");
    }
}
