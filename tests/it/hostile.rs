//! What no API server should send, and some day something does: good items are kept and judged, bad
//! ones are counted and kept as rejects, the sender is told 200, and the process goes on.
//!
//! `fixtures/malformed/*.body` are the bodies; beside each stands what must become of it.
//! `LAPWING_RECORD=1 cargo test --test it hostile` writes these again.

use std::collections::BTreeMap;
use std::path::PathBuf;

use lapwing::input::{Limits, split};
use lapwing_engine::batch::Item;
use lapwing_engine::event::Event;
use lapwing_engine::tree::Tree;
use proptest::prelude::*;

use crate::daemon::{Daemon, fixture, lapwing, ndjson, read, stderr, stdout, until};

struct Case {
    name: String,
    body: Vec<u8>,
}

fn fixtures() -> Vec<Case> {
    let mut paths: Vec<PathBuf> = std::fs::read_dir(fixture("malformed"))
        .expect("the directory")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.extension().is_some_and(|e| e == "body"))
        .collect();
    paths.sort();
    let name = |path: &PathBuf| path.file_stem().expect("a name").to_string_lossy().into_owned();
    paths.iter().map(|path| Case { name: name(path), body: read(path) }).collect()
}

/// A command in a pod by `<case>@corp.example`: the rule `exec-into-pod` speaks about it.
fn exec(case: &str, id: &str) -> String {
    let text = String::from_utf8(read(&fixture("malformed/two-lists.body"))).expect("text");
    let start = text.find(r#"{"kind":"Event","#).expect("an event");
    let event = &text[start..text.find(r#"]}{"kind":"EventList""#).expect("an end")];
    event.replace("two-lists-first", &format!("{case}-{id}")).replace("two-lists@", &format!("{case}@"))
}

/// Bodies too large to lie in the repository: a hostile item between two good ones.
fn generated() -> Vec<Case> {
    let among = |name: &str, hostile: &dyn Fn(String) -> String| {
        let items = [exec(name, "first"), hostile(exec(name, "hostile")), exec(name, "last")];
        let body = format!(r#"{{"kind":"EventList","apiVersion":"audit.k8s.io/v1","items":[{}]}}"#, items.join(","));
        Case { name: name.to_owned(), body: body.into_bytes() }
    };
    let with_body =
        |event: String, body: &str| event.replacen(r#""stage":"#, &format!(r#""requestObject":{body},"stage":"#), 1);
    let nested = |open: &str, close: &str, n: usize| format!("{}1{}", open.repeat(n), close.repeat(n));
    let raw = |name: &str, body: String| Case { name: name.to_owned(), body: body.into_bytes() };
    vec![
        among("deep-body", &|e| with_body(e, &nested("[", "]", 10_000))),
        among("deep-objects", &|e| with_body(e, &nested(r#"{"a":"#, "}", 10_000))),
        among("deep-item", &|_| nested("[", "]", 10_000)),
        among("deep-user", &|e| e.replace(r#""user":{"#, &format!(r#""user":{},"user":{{"#, nested("[", "]", 10_000)))),
        among("long-agent", &|e| e.replace("kubectl/", &"kubectl".repeat(150_000))),
        among("many-groups", &|e| e.replace(r#""team-web""#, &vec![r#""g""#; 200_000].join(","))),
        among("many-annotations", &|e| {
            e.replace(r#""annotations":{"#, &format!(r#""annotations":{{{}"#, r#""a":"b","#.repeat(100_000)))
        }),
        raw("brackets", "[".repeat(5_000_000)),
        raw("braces", "{".repeat(5_000_000)),
        raw("objects", r#"{"items":["#.repeat(500_000)),
        raw("bad-lines", "x\n".repeat(20_000)),
    ]
}

/// What became of a body, one line an item.
fn transcript(body: &[u8]) -> Vec<String> {
    let line = |item: &Item| match item {
        Item::Event(text) => match Event::parse(text) {
            Ok(e) if e.malformed.is_empty() => format!("event {}", &*e.audit_id),
            Ok(e) => format!("event {} without {}", &*e.audit_id, e.malformed.join(", ")),
            Err(e) => panic!("journaled and no event: {e}"),
        },
        Item::Reject { reason, detail, excerpt } => {
            assert!(excerpt.len() <= lapwing::input::EXCERPT);
            format!("reject {}: {detail}", reason.as_str())
        }
    };
    split(body, &Limits::default()).iter().map(line).collect()
}

/// Events and rejects by reason.
#[derive(Debug, Default)]
struct Sum {
    events: Vec<String>,
    rejects: BTreeMap<String, usize>,
}

fn sum(cases: &[Case]) -> Sum {
    let mut sum = Sum::default();
    for line in cases.iter().flat_map(|case| transcript(&case.body)) {
        match line.strip_prefix("reject ") {
            Some(rest) => *sum.rejects.entry(rest.split(':').next().expect("a reason").to_owned()).or_default() += 1,
            None => sum.events.push(line.split(' ').nth(1).expect("an id").to_owned()),
        }
    }
    sum
}

#[test]
fn bodies_become_what_is_written_beside_them() {
    let mut wrong = Vec::new();
    for case in fixtures() {
        let got: String = transcript(&case.body).iter().map(|line| format!("{line}\n")).collect();
        let path = fixture(&format!("malformed/{}.expected", case.name));
        if std::env::var_os("LAPWING_RECORD").is_some() {
            std::fs::write(&path, &got).expect("written");
        }
        let expected = std::fs::read_to_string(&path).unwrap_or_default();
        if got != expected {
            wrong.push(format!("== {}\nexpected:\n{expected}got:\n{got}", case.name));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn large_hostile_items_cost_no_neighbour() {
    for case in generated() {
        let got = transcript(&case.body);
        let id = |end: &str| format!("event {}-{end}", case.name);
        match case.name.as_str() {
            "brackets" | "braces" | "objects" => assert!(got.len() <= 8 && got[0].starts_with("reject"), "{got:?}"),
            "bad-lines" => assert_eq!(got.len(), 20_000),
            "deep-item" => {
                assert_eq!((&got[0], got.last()), (&id("first"), Some(&id("last"))), "{}", case.name);
                assert!(got.len() > 2, "{got:?}");
            }
            _ => {
                assert_eq!(got.len(), 3, "{}: {got:?}", case.name);
                assert_eq!((&got[0], &got[2]), (&id("first"), &id("last")), "{}", case.name);
                assert!(got[1].starts_with(&id("hostile")), "{}", got[1]);
            }
        }
    }
}

#[test]
fn a_scan_judges_the_good_and_names_the_bad() {
    let rule = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("rules/execution/exec-into-pod.yml");
    let dir = tempfile::tempdir().expect("a directory");
    for case in fixtures().into_iter().chain(generated()) {
        let path = dir.path().join(&case.name);
        std::fs::write(&path, &case.body).expect("written");
        let (path, rule) = (path.display().to_string(), rule.display().to_string());
        let output = lapwing(&["scan", "--findings", "--output", "ndjson", "--rules", &rule, "--only-rules", &path]);
        // A file may be empty; a body may not.
        let expected = if case.body.trim_ascii().is_empty() { Sum::default() } else { sum(&[case]) };
        let code = if expected.rejects.is_empty() { 0 } else { 3 };
        assert_eq!(output.status.code(), Some(code), "{path}: {}", stderr(&output));
        let found = ndjson(&stdout(&output));
        let judged =
            |id: &str| found.iter().any(|f| f["auditIDs"].as_array().is_some_and(|ids| ids.iter().any(|i| i == id)));
        for id in expected.events.iter().filter(|id| id.ends_with("-first") || id.ends_with("-last")) {
            assert!(judged(id), "{id} was not judged: {}", stderr(&output));
        }
        let named = stderr(&output).lines().filter(|l| l.starts_with(&format!("unreadable: {path}:"))).count();
        assert_eq!(named, expected.rejects.values().sum::<usize>().min(20), "{path}: {}", stderr(&output));
    }
}

/// Largest resident memory so far, in MiB.
fn peak(daemon: &Daemon) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", daemon.pid())).expect("the process");
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:")).expect("a peak");
    line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") / 1024
}

fn search(daemon: &Daemon, query: &str) -> Vec<serde_json::Value> {
    let output =
        lapwing(&["search", "--data-dir", &daemon.data_dir(), "--output", "ndjson", "-n", "10000", "--", query]);
    assert!(output.status.code().is_some_and(|c| c < 2), "{}", stderr(&output));
    ndjson(&stdout(&output))
}

#[test]
fn the_webhook_takes_everything_and_loses_nothing_good() {
    let mut daemon = Daemon::start("");
    let cases: Vec<Case> = fixtures().into_iter().chain(generated()).filter(|c| c.name != "bad-lines").collect();
    for case in &cases {
        let (code, answer) = daemon.post(&case.body).unwrap_or_else(|e| panic!("{}: {e}", case.name));
        assert_eq!(code, 200, "{}: the sender would try again: {answer}", case.name);
    }
    let expected = sum(&cases);
    let rejected = |reason: &str| {
        daemon.metric(&format!("lapwing_events_rejected_total{{cluster=\"prod\",reason=\"{reason}\"}}")) as usize
    };
    for (reason, n) in &expected.rejects {
        assert_eq!(rejected(reason), *n, "{reason}: {}", daemon.metrics());
    }
    let all: usize = expected.rejects.values().sum();
    until("the rejects in the index", || (search(&daemon, "kind:reject").len() == all).then_some(()));
    let good: Vec<&String> =
        expected.events.iter().filter(|id| id.ends_with("-first") || id.ends_with("-last")).collect();
    assert!(good.len() > 30);
    let stored = search(&daemon, "kind:event");
    for id in &good {
        assert!(stored.iter().any(|hit| hit.to_string().contains(id.as_str())), "{id} is not found");
    }
    until("an alert for every actor", || {
        let alerts = search(&daemon, "kind:alert rule:exec-into-pod");
        let told = |id: &str| alerts.iter().any(|a| a.to_string().contains(id));
        good.iter().filter(|id| id.ends_with("-first")).all(|id| told(id)).then_some(())
    });
    let (code, _) = crate::daemon::get(daemon.admin, "/readyz").expect("an answer");
    assert_eq!(code, 200);
    let peak = peak(&daemon);
    assert!(peak < 600, "{peak} MiB for bodies of at most 5 MB");
    // A reject can be looked at.
    let reject = &search(&daemon, "kind:reject outcome:bad_body")[0];
    let position = reject["position"].as_str().expect("a position").to_owned();
    let shown = lapwing(&["show", "--data-dir", &daemon.data_dir(), &position]);
    assert!(shown.status.success() && stdout(&shown).contains("the body is empty"), "{}", stderr(&shown));
    // And the whole thing can be read again.
    assert!(daemon.stop().success());
    daemon.run();
    daemon.post(exec("after", "restart").as_bytes()).expect("an answer");
    until("an alert behind all that", || {
        (search(&daemon, "kind:alert actor:after@corp.example").len() == 1).then_some(())
    });
    assert_eq!(search(&daemon, "kind:reject").len(), all, "nothing is indexed twice");
}

/// Damage to the text of one item.
#[derive(Clone, Debug)]
enum Mutation {
    Replace(usize, u8),
    Remove(usize, usize),
    Insert(usize, Vec<u8>),
    Double(usize, usize),
}

impl Mutation {
    fn apply(&self, item: &mut Vec<u8>) {
        let at = |n: usize| n % item.len().max(1);
        let range = |from: usize, n: usize| at(from)..(at(from) + n).min(item.len());
        match self {
            Self::Replace(n, byte) => {
                let n = at(*n);
                item[n..].first_mut().into_iter().for_each(|b| *b = *byte);
            }
            Self::Remove(from, n) => drop(item.drain(range(*from, *n))),
            Self::Insert(n, bytes) => {
                let n = at(*n);
                item.splice(n..n, bytes.iter().copied());
            }
            Self::Double(from, n) => {
                let part = item[range(*from, *n)].to_vec();
                let n = at(*from);
                item.splice(n..n, part);
            }
        }
    }
}

fn mutation() -> impl Strategy<Value = Mutation> {
    let token = prop::sample::select(vec![
        "\"",
        "{",
        "}",
        "[",
        "]",
        ",",
        ":",
        "\\",
        "\u{0}",
        "1e999",
        "\\ud800",
        "null",
        "{\"items\":[",
        "]}",
        "}}",
    ]);
    prop_oneof![
        (any::<usize>(), any::<u8>()).prop_map(|(n, b)| Mutation::Replace(n, b)),
        (any::<usize>(), 1usize..300).prop_map(|(n, m)| Mutation::Remove(n, m)),
        (any::<usize>(), prop::collection::vec(any::<u8>(), 1..20)).prop_map(|(n, b)| Mutation::Insert(n, b)),
        (any::<usize>(), token).prop_map(|(n, t)| Mutation::Insert(n, t.as_bytes().to_vec())),
        (any::<usize>(), 1usize..300).prop_map(|(n, m)| Mutation::Double(n, m)),
    ]
}

fn audit_ids(body: &[u8]) -> Vec<String> {
    let items = split(body, &Limits::default());
    let id = |item: &Item| match item {
        Item::Event(text) => Event::parse(text).ok().map(|e| e.audit_id.to_string()),
        Item::Reject { .. } => None,
    };
    items.iter().filter_map(id).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    /// Seven recorded events, each with an id of its own; the one in the middle is damaged.
    #[test]
    fn damage_to_one_item_never_costs_its_neighbours(mutations in prop::collection::vec(mutation(), 1..4)) {
        let recorded = String::from_utf8(read(&fixture("attacks/nodes-proxy/events.jsonl.zst"))).expect("text");
        let mut items: Vec<Vec<u8>> = recorded.lines().take(7).map(|l| l.as_bytes().to_vec()).collect();
        let ids: Vec<String> = items.iter().flat_map(|i| audit_ids(i)).collect();
        mutations.iter().for_each(|m| m.apply(&mut items[3]));
        // A line break within a line makes two, which is another case.
        items[3].retain(|b| *b != b'\n');
        let lines = audit_ids(&items.join(&b'\n'));
        for (i, id) in ids.iter().enumerate().filter(|(i, _)| *i != 3) {
            prop_assert!(lines.contains(id), "line {i} is lost: {}", String::from_utf8_lossy(&items[3]));
        }
        // In a list what is in front of the damage is kept whatever it is.
        let head = br#"{"kind":"EventList","apiVersion":"audit.k8s.io/v1","items":["#.to_vec();
        for separator in [&b","[..], b",\n"] {
            let list = [head.clone(), items.join(separator), b"]}".to_vec()].concat();
            let kept = audit_ids(&list);
            prop_assert!(ids[..3].iter().all(|id| kept.contains(id)), "{}", String::from_utf8_lossy(&items[3]));
        }
    }
}

/// What becomes of an item that holds a hostile text.
#[derive(Debug, PartialEq)]
enum Fate {
    /// An event; the field with the text reads so.
    Reads(&'static str),
    /// An event without that field.
    Without,
    /// Kept as a reject.
    Reject,
}

/// Of a text in three places: a field every event has, a field nobody knows, a body.
struct Hostile {
    input: &'static str,
    json: Vec<u8>,
    /// As `userAgent`, of which text is expected.
    field: Fate,
    /// As a field Lapwing does not know; only how the event fares.
    unknown: Fate,
    /// As `requestObject`, read as a rule reads it: `Without` is unknown to rules, never absent.
    body: Fate,
}

/// What serde_json does to hostile JSON is built upon; if it changes, this says where. Each is tried between two good events.
#[test]
fn hostile_json_is_read_as_the_table_says() {
    use Fate::{Reads, Reject, Without};
    let text = |inner: &[u8]| [b"\"", inner, b"\""].concat();
    let row = |input, json: &[u8], field, unknown, body| Hostile { input, json: json.to_vec(), field, unknown, body };
    let deep = |open: &str, close: &str| format!("{}1{}", open.repeat(10_000), close.repeat(10_000)).into_bytes();
    let table = [
        row("depth bomb of lists", &deep("[", "]"), Without, Reads(""), Without),
        row("depth bomb of objects", &deep(r#"{"a":"#, "}"), Without, Reads(""), Without),
        row("duplicate key", br#"{"a":1,"a":2}"#, Without, Reads(""), Reads("2")),
        row("lone surrogate", &text(br"a\ud800"), Without, Reads(""), Without),
        row("surrogates the wrong way round", &text(br"\udc00\ud800"), Without, Reads(""), Without),
        row("invalid UTF-8", &text(b"a\xff"), Reads("a\u{fffd}"), Reads(""), Reads("a\u{fffd}")),
        row("overlong UTF-8", &text(b"a\xc0\xaf"), Reads("a\u{fffd}\u{fffd}"), Reads(""), Reads("a\u{fffd}\u{fffd}")),
        row("raw control", &text(b"a\x01"), Reject, Reject, Reject),
        row("raw line break", &text(b"a\nb"), Reject, Reject, Reject),
        row("byte order mark", b"\xef\xbb\xbf1", Reject, Reject, Reject),
        row("byte order mark in text", &text(b"\xef\xbb\xbfa"), Reads("\u{feff}a"), Reads(""), Reads("\u{feff}a")),
        row("1e999", b"1e999", Without, Reads(""), Without),
        row("100,000 digits", "7".repeat(100_000).as_bytes(), Without, Reads(""), Without),
        row("30 digits", "1".repeat(30).as_bytes(), Without, Reads(""), Reads("111111111111111100000000000000")),
        row("NUL escape", &text(br"a\u0000b"), Reads("a\0b"), Reads(""), Reads("a\0b")),
        row("escape nobody knows", &text(br"\x41"), Reject, Reject, Reject),
        row("no JSON", b"NaN", Reject, Reject, Reject),
    ];
    let good = |id: &str| exec("table", id);
    let mut wrong = Vec::new();
    let agent = regex::bytes::Regex::new(r#""userAgent":"[^"]*""#).expect("a pattern");
    for Hostile { input, json, field, unknown, body } in &table {
        for (place, expected) in [("userAgent", field), ("unknownField", unknown), ("requestObject", body)] {
            let value = [format!("\"{place}\":").as_bytes(), json].concat();
            let event = good("hostile").into_bytes();
            let item = if place == "userAgent" {
                agent.replace(&event, regex::bytes::NoExpand(&value)).into_owned()
            } else {
                [&b"{"[..], &value, b",", &event[1..]].concat()
            };
            let list = br#"{"kind":"EventList","apiVersion":"audit.k8s.io/v1","items":["#;
            let all = [&list[..], good("first").as_bytes(), b",", &item, b",", good("last").as_bytes(), b"]}"].concat();
            let items = split(&all, &Limits::default());
            let ids: Vec<String> = items
                .iter()
                .filter_map(|item| if let Item::Event(text) = item { Some(text) } else { None })
                .map(|text| Event::parse(text).expect("an event").audit_id.to_string())
                .collect();
            assert_eq!((ids.first(), ids.last()), (Some(&"table-first".into()), Some(&"table-last".into())), "{input}");
            let got = fate(&items, place);
            let is = match (&got, expected) {
                (Some(Ok(got)), Reads(text)) => got == text,
                (Some(Err(())), Without) | (None, Reject) => true,
                _ => false,
            };
            if !is {
                wrong.push(format!("{input} as {place}: expected {expected:?}, got {got:?}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// How the place reads in the event between the good ones: `Err` where it cannot be read, `None` where that is no event.
fn fate(items: &[Item], place: &str) -> Option<Result<String, ()>> {
    let texts = items.iter().filter_map(|item| if let Item::Event(text) = item { Some(text) } else { None });
    let text = texts.into_iter().find(|text| text.contains("table-hostile"))?;
    let event = Event::parse(text).expect("an event");
    Some(match place {
        "userAgent" if event.malformed.is_empty() => Ok(event.user_agent.to_string()),
        "userAgent" => Err(()),
        "requestObject" => {
            let raw = event.request_object.map_or("", |raw| raw.get());
            match serde_json::from_str::<Tree<'_>>(raw) {
                Ok(Tree::Text(text)) => Ok(text.into_owned()),
                Ok(Tree::Float(n)) => Ok(n.to_string()),
                Ok(object) => object.get("a").and_then(Tree::as_i64).map(|n| n.to_string()).ok_or(()),
                Err(_) => Err(()),
            }
        }
        _ => Ok(String::new()),
    })
}
