//! `lapwing scan` as a user runs it: every form a file can have, what is printed, and how it ends.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;

use crate::daemon::{fixture, lapwing, lapwing_with, ndjson, read, stderr, stdout};

/// The recorded exec attack as lines; its highest finding is `high`.
fn recorded() -> Vec<String> {
    let bytes = read(&fixture("attacks/exec-ws/events.jsonl.zst"));
    String::from_utf8(bytes).expect("text").lines().map(str::to_owned).collect()
}

/// The few events of it that make findings, for tests that run often.
fn execs() -> Vec<String> {
    recorded().into_iter().filter(|line| line.contains("/exec?")).collect()
}

fn write(dir: &Path, name: &str, content: &[u8]) -> String {
    let path = dir.join(name);
    std::fs::write(&path, content).expect("written");
    path.display().to_string()
}

fn gzip(plain: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(plain).expect("packed");
    encoder.finish().expect("packed")
}

fn zstd(plain: &[u8]) -> Vec<u8> {
    zstd::encode_all(plain, 1).expect("packed")
}

/// Only the rule about commands in pods: loading two hundred costs more than judging a few events.
fn exec_rule() -> [String; 3] {
    let rule = Path::new(env!("CARGO_MANIFEST_DIR")).join("rules/execution/exec-into-pod.yml");
    ["--rules".to_owned(), rule.display().to_string(), "--only-rules".to_owned()]
}

/// Scans `content` from standard input with only that rule.
fn scan_execs(content: &[u8], more: &[&str]) -> Output {
    let rule = exec_rule();
    let mut args = vec!["scan", "-"];
    args.extend(rule.iter().map(String::as_str));
    args.extend(more);
    lapwing_with(&args, content)
}

fn findings(output: &Output) -> Vec<Value> {
    ndjson(&stdout(output))
}

/// Ids of the findings in order, and that nothing was unreadable.
#[track_caller]
fn ids(output: &Output) -> Vec<String> {
    assert_eq!(output.status.code(), Some(0), "{}", stderr(output));
    findings(output).iter().map(|f| f["id"].as_str().expect("an id").to_owned()).collect()
}

#[test]
fn every_form_of_the_same_events_gives_the_same_findings() {
    let events = recorded();
    let lines = events.join("\n");
    let head = r#"{"kind":"EventList","apiVersion":"audit.k8s.io/v1","metadata":{},"items":"#;
    let pretty: Vec<String> = events
        .iter()
        .map(|e| serde_json::from_str::<Value>(e).and_then(|v| serde_json::to_string_pretty(&v)).expect("JSON"))
        .collect();
    let (one, two) = events.split_at(100);
    let half = |part: &[String]| [head, "[", &part.join(","), "]}"].concat();
    let forms: Vec<(&str, Vec<u8>)> = vec![
        ("lines.jsonl", lines.clone().into_bytes()),
        ("windows.jsonl", ["\u{feff}", &events.join("\r\n"), "\r\n"].concat().into_bytes()),
        ("list.json", half(&events).into_bytes()),
        ("array.json", format!("[{}]", events.join(",\n")).into_bytes()),
        ("concatenated.json", events.concat().into_bytes()),
        ("lists.jsonl", format!("{}\n{}\n", half(one), half(two)).into_bytes()),
        ("mixed.json", format!("{} [{}]", half(one), two.join(" , ")).into_bytes()),
        ("pretty.json", pretty.join("\n").into_bytes()),
        ("pretty-list.json", format!("{head} [\n{}\n]\n}}\n", pretty.join(",\n")).into_bytes()),
        ("lines.gz", gzip(lines.as_bytes())),
        ("members.gz", [gzip(format!("{}\n", one.join("\n")).as_bytes()), gzip(two.join("\n").as_bytes())].concat()),
        ("lines.zst", zstd(lines.as_bytes())),
        ("frames.zst", [zstd(format!("{}\n", one.join("\n")).as_bytes()), zstd(two.join("\n").as_bytes())].concat()),
        ("pretty-list.with-a-wrong-name", gzip(format!("{head}[{}]}}", pretty.join(",")).as_bytes())),
    ];
    let dir = tempfile::tempdir().expect("a directory");
    let mut expected: Option<Vec<String>> = None;
    for (name, content) in &forms {
        let path = write(dir.path(), name, content);
        let got = ids(&lapwing(&["scan", "--findings", "--output", "ndjson", &path]));
        assert!(got.len() >= 8, "{name}: {got:?}");
        assert_eq!(*expected.get_or_insert_with(|| got.clone()), got, "{name}");
    }
    let expected = expected.expect("some form");
    for name in ["lines.jsonl", "list.json", "lines.zst", "lines.gz"] {
        let content = std::fs::read(dir.path().join(name)).expect("written above");
        let got = ids(&lapwing_with(&["scan", "--findings", "--output", "ndjson", "-"], &content));
        assert_eq!(expected, got, "{name} on standard input");
    }
    // Two files one after the other are one stream.
    let parts = [one, two].map(|part| part.join("\n"));
    let paths = [write(dir.path(), "1", parts[0].as_bytes()), write(dir.path(), "2", parts[1].as_bytes())];
    assert_eq!(expected, ids(&lapwing(&["scan", "--findings", "--output", "ndjson", &paths[0], &paths[1]])));
}

#[test]
fn a_finding_says_what_the_issue_promises_on_every_line() {
    let path = fixture("attacks/exec-ws/events.jsonl.zst").display().to_string();
    let output = lapwing(&["scan", "--findings", "--output", "ndjson", "--cluster", "prod-eu", &path]);
    let known: Vec<String> =
        recorded().iter().map(|e| serde_json::from_str::<Value>(e).expect("JSON")["auditID"].to_string()).collect();
    let found = findings(&output);
    assert!(found.len() >= 8);
    for f in &found {
        for pointer in ["/id", "/rule/id", "/rule/title", "/actor", "/actorKind", "/summary"] {
            assert!(f.pointer(pointer).and_then(Value::as_str).is_some_and(|v| !v.is_empty()), "{pointer}: {f}");
        }
        let level = f["rule"]["level"].as_str().expect("a level");
        assert!(["informational", "low", "medium", "high", "critical"].contains(&level), "{f}");
        assert!(["match", "undecidable"].contains(&f["verdict"].as_str().expect("a verdict")), "{f}");
        assert_eq!(f["verdict"] == "undecidable", f["reason"].is_string(), "{f}");
        assert_eq!(f["cluster"], "prod-eu");
        let time = f["time"].as_str().expect("a time");
        assert!(time.starts_with("2026-11-20T16:0") && time.ends_with('Z'), "{time}");
        let ids = f["auditIDs"].as_array().expect("audit ids");
        assert!(!ids.is_empty() && ids.iter().all(|id| known.contains(&id.to_string())), "{f}");
    }
}

#[test]
fn a_request_counts_once_however_many_stages_and_copies_of_it_there_are() {
    let stages = execs();
    let requests: std::collections::BTreeSet<String> = stages
        .iter()
        .map(|e| serde_json::from_str::<Value>(e).expect("JSON")["auditID"].as_str().expect("an id").to_owned())
        .collect();
    assert!(stages.len() >= 2 * requests.len(), "the recording holds two stages of each");
    let received: Vec<String> = stages
        .iter()
        .filter(|e| e.contains("ResponseStarted"))
        .map(|e| {
            let mut event: Value = serde_json::from_str(e).expect("JSON");
            event["stage"] = "RequestReceived".into();
            event.as_object_mut().expect("an object").remove("responseStatus");
            event.to_string()
        })
        .collect();
    let all = [received, stages].concat().join("\n");
    let ndjson = ["--findings", "--output", "ndjson"];
    let once = ids(&scan_execs(all.as_bytes(), &ndjson));
    assert_eq!(once.len(), requests.len());
    // The same file again within one run adds nothing; in a run of its own it gives the same ids.
    let dir = tempfile::tempdir().expect("a directory");
    let path = write(dir.path(), "all", all.as_bytes());
    let rule = exec_rule();
    let mut args = vec!["scan", "--findings", "--output", "ndjson", &path, &path];
    args.extend(rule.iter().map(String::as_str));
    let twice = lapwing(&args);
    assert_eq!(once, ids(&twice));
    assert!(stderr(&twice).starts_with("24 events, 4 findings"), "{}", stderr(&twice));
}

#[test]
fn what_is_asked_for_decides_the_exit_code() {
    let good = execs().join("\n");
    let bad = format!("{good}\n{{\"kind\":\"Pod\",\"apiVersion\":\"v1\"}}\n");
    for (content, more, code) in [
        (good.as_str(), &[][..], 0),
        (&good, &["--fail-on", "low"], 1),
        (&good, &["--fail-on", "LOW"], 1),
        (&good, &["--fail-on", "informational"], 1),
        (&good, &["--fail-on", "medium"], 0),
        (&good, &["--fail-on", "low", "--min-level", "high"], 0),
        (&good, &["--fail-on", "low", "--findings", "--output", "text"], 1),
        (&good, &["--fail-on", "nonsense"], 2),
        (&good, &["--min-level", "nonsense"], 2),
        (&good, &["--rules", "no/such/file.yml"], 2),
        (&bad, &[], 3),
        (&bad, &["--fail-on", "medium"], 3),
        (&bad, &["--fail-on", "low"], 1),
        ("", &[], 0),
    ] {
        let output = scan_execs(content.as_bytes(), more);
        assert_eq!(output.status.code(), Some(code), "{more:?}: {}", stderr(&output));
    }
    for (args, said) in [
        (vec!["scan"], "<FILE>"),
        (vec!["scan", "no/such/file"], "cannot open `no/such/file`: No such file"),
        (vec!["scan", "rules"], "cannot open `rules`: is a directory"),
        (vec!["scan", "--only-rules", "x"], "--rules"),
    ] {
        let output = lapwing(&args);
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        assert!(stderr(&output).contains(said), "{args:?}: {}", stderr(&output));
    }
    let help = stdout(&lapwing(&["scan", "--help"]));
    let codes: Vec<&str> = help.lines().skip_while(|l| *l != "EXIT CODES").skip(1).map(|l| &l[2..3]).collect();
    assert_eq!(codes, ["0", "1", "2", "3"], "the codes tested here are the documented ones");
}

#[test]
fn unreadable_input_is_named_and_the_rest_is_judged() {
    let events = execs();
    let rule = exec_rule();
    let dir = tempfile::tempdir().expect("a directory");
    let whole = events.join("\n");
    let damaged =
        [&events[0], r#"{"kind":"Pod","apiVersion":"v1"}"#, "hello", &events[1][..200], "[1, true, {}]", &events[2]];
    let packed = gzip(events.join("\n").as_bytes());
    let files = [
        write(dir.path(), "damaged.jsonl", damaged.join("\n").as_bytes()),
        write(dir.path(), "cut.json", format!("{{\"items\":[{},{}", events[4], &events[5][..300]).as_bytes()),
        write(dir.path(), "cut.gz", &packed[..packed.len() - 20]),
        write(dir.path(), "whole.jsonl", whole.as_bytes()),
    ];
    let mut args = vec!["scan", "--findings", "--output", "ndjson"];
    args.extend(files.iter().map(String::as_str));
    args.extend(rule.iter().map(String::as_str));
    let output = lapwing(&args);
    assert_eq!(output.status.code(), Some(3), "{}", stderr(&output));
    assert_eq!(findings(&output).len(), 4, "all four requests, damage or not: {}", stdout(&output));
    let said = stderr(&output).replace(&format!("{}/", dir.path().display()), "");
    let named: Vec<&str> = said.lines().filter_map(|l| l.strip_prefix("unreadable: ")).collect();
    let expected = [
        "damaged.jsonl:2: kind is `v1 Pod`, expected `Event` of `audit.k8s.io` (not_an_event)",
        "damaged.jsonl:3: not JSON (not_json)",
        "damaged.jsonl:4: the line is cut off (not_json)",
        "damaged.jsonl:5: not an event: a bare value in a list (not_an_event)",
        "damaged.jsonl:5: not an event: a bare value in a list (not_an_event)",
        "damaged.jsonl:5: neither `auditID`, `verb` nor `requestURI` is there (not_an_event)",
        "cut.json:1: cut off: the input ends within this item (not_json)",
    ];
    assert_eq!(named[..7], expected, "{said}");
    assert!(named[7].starts_with("cut.gz:") && named[7].ends_with("(bad_body)"), "{said}");
    assert_eq!(named.len(), 8, "{said}");
    // Many bad lines are counted, not listed.
    let output = scan_execs("x\n".repeat(1000).as_bytes(), &[]);
    assert_eq!(stderr(&output).lines().filter(|l| l.starts_with("unreadable")).count(), 21);
    assert!(stderr(&output).ends_with("unreadable: … and 980 more places\n"), "{}", stderr(&output));
}

#[test]
fn levels_and_rules_can_be_chosen() {
    let path = fixture("attacks/exec-ws/events.jsonl.zst").display().to_string();
    let levels = |more: &[&str]| {
        let mut args = vec!["scan", "--findings", "--output", "ndjson", &path];
        args.extend(more);
        let mut levels: Vec<String> = findings(&lapwing(&args))
            .iter()
            .map(|f| f["rule"]["level"].as_str().expect("a level").to_owned())
            .collect();
        levels.dedup();
        levels.sort();
        levels.dedup();
        levels
    };
    assert_eq!(levels(&[]), ["high", "informational", "low", "medium"]);
    assert_eq!(levels(&["--min-level", "medium"]), ["high", "medium"]);
    assert_eq!(levels(&["--min-level", "critical"]), [""; 0]);
    let dir = tempfile::tempdir().expect("a directory");
    let own = "title: Dave\nid: dave-was-here\nlevel: critical\nlogsource: { product: kubernetes, service: audit }\n\
               detection:\n  selection:\n    actor.name: dave@corp.example\n  condition: selection\n";
    let own = write(dir.path(), "own.yml", own.as_bytes());
    assert_eq!(levels(&["--rules", &own]), ["critical", "high", "informational", "low", "medium"]);
    assert_eq!(levels(&["--rules", &own, "--only-rules"]), ["critical"]);
}

#[test]
fn broken_rules_stop_the_scan_with_every_problem() {
    let dir = tempfile::tempdir().expect("a directory");
    let rule = |condition: &str, field: &str| {
        format!(
            "title: T\nid: broken-{field}\nlevel: low\nlogsource: {{ product: kubernetes, service: audit }}\n\
             detection:\n  selection:\n    {field}: x\n  condition: {condition}\n"
        )
    };
    write(dir.path(), "one.yml", rule("selecton", "verb").as_bytes());
    write(dir.path(), "two.yml", rule("selection", "verbb").as_bytes());
    let rules = dir.path().display().to_string();
    let output = lapwing_with(&["scan", "--rules", &rules, "-"], execs().join("\n").as_bytes());
    assert_eq!(output.status.code(), Some(2));
    assert!(output.stdout.is_empty(), "nothing is judged by half a rule set: {}", stdout(&output));
    let said = stderr(&output);
    assert!(said.contains("one.yml:8:14: ") && said.contains("two.yml:7:5: "), "{said}");
    assert!(said.contains("did you mean `selection`?") && said.contains("did you mean `verb`?"), "{said}");
}

#[test]
fn a_closed_pipe_is_no_failure() {
    for output in ["ndjson", "text"] {
        let path = fixture("attacks/exec-ws/events.jsonl.zst");
        let paths: Vec<PathBuf> = vec![path];
        let mut child = Command::new(env!("CARGO_BIN_EXE_lapwing"))
            .args(["scan", "--quiet", "--output", output])
            .args(&paths)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program starts");
        drop(child.stdout.take());
        let ended = child.wait_with_output().expect("the program ends");
        assert_eq!((ended.status.code(), stderr(&ended)), (Some(0), String::new()), "{output}");
    }
}

#[test]
fn the_report_is_for_reading() {
    let path = fixture("attacks/exec-ws/events.jsonl.zst").display().to_string();
    let output = lapwing(&["scan", "--output", "text", &path]);
    let report = stdout(&output);
    let order: Vec<usize> =
        ["HIGH ", "MEDIUM ", "LOW ", "INFORMATIONAL "].iter().map(|l| report.find(l).expect(l)).collect();
    assert!(order.is_sorted(), "the gravest first:\n{report}");
    // Sentences wrap at the width of a narrow terminal.
    let flat = report.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(flat.contains("dave@corp.example ran `cat /var/run/secrets/"), "{report}");
    assert!(report.contains(", 4 times"), "four commands are one alert:\n{report}");
    assert!(report.trim_end().lines().last().is_some_and(|l| l.contains("--verbose")), "{report}");
    assert!(!report.contains('\u{1b}'), "no colours in a pipe");
    let summary = stderr(&output);
    assert!(summary.starts_with("208 events, ") && summary.contains(" findings: 2 high, 1 medium, "), "{summary}");
    let full = stdout(&lapwing(&["scan", "--output", "text", "--verbose", "--min-level", "high", &path]));
    for part in ["Why it matters", "Harmless when", "Do next", "Detail   command: cat /var/run/secrets/"] {
        assert!(full.contains(part), "{part} is missing:\n{full}");
    }
    let quiet = lapwing(&["scan", "--output", "text", "--quiet", &path]);
    assert!(quiet.stderr.is_empty() && !quiet.stdout.is_empty());
    // What an attacker names cannot draw on the terminal.
    let painted = execs()[0].replace("dave@corp.example", r"dave\u001b[2J\u202e\r\nHIGH forged");
    for more in [&["--output", "text"][..], &["--output", "text", "--findings"], &["--output", "text", "--verbose"]] {
        let report = stdout(&scan_execs(painted.as_bytes(), more));
        assert!(report.contains("forged"), "{report}");
        let raw = |c: char| (c.is_control() && c != '\n') || c == '\u{202e}';
        assert!(!report.contains(raw) && !report.lines().any(|l| l.starts_with("HIGH forged")), "{report:?}");
    }
}
