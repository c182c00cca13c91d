//! The shipped rules as a whole, and what `lapwing rules` says about rules that are wrong.
//!
//! `LAPWING_RECORD=1 cargo test --test it rules::` writes the transcripts in `fixtures/rules` again.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use lapwing::ruleset::{Selection, pack_files, packs};
use lapwing_engine::alert::Level;
use lapwing_engine::rule::file::{Meta, RuleFile};
use lapwing_engine::rule::tests::{Events, Expect, TestFile};
use serde_json::Value;

use crate::daemon::{fixture, lapwing, lapwing_with, ndjson, read, stderr, stdout};

/// Every shipped rule and correlation: what it says of itself, and its path.
fn each(mut f: impl FnMut(&Meta, &Path)) {
    let set = Selection::default().load().expect("the built-in rules are good");
    set.rules().iter().for_each(|r| f(&r.meta, &r.path));
    set.correlations().iter().for_each(|c| f(&c.meta, &c.path));
    set.asleep().iter().for_each(|a| f(&a.meta, &a.path));
}

#[test]
fn every_rule_says_what_a_reader_needs() {
    let mut wrong = Vec::new();
    let mut count = 0;
    each(|meta, path| {
        count += 1;
        let mut check = |good: bool, what: &str| {
            if !good {
                wrong.push(format!("{}: {what}", path.display()));
            }
        };
        check(path.file_stem().is_some_and(|stem| stem == meta.id.as_str()), "the id is not the file's name");
        check(meta.name.as_deref() == Some(&meta.id), "the name is not the id");
        check(!meta.title.is_empty() && !meta.title.ends_with('.'), "no title, or one with a full stop");
        check(meta.description.len() > 40, "no description");
        check(!meta.false_positives.is_empty(), "no falsepositives");
        check(!meta.next_steps.is_empty(), "no next_steps");
        let technique =
            |tag: &String| tag.strip_prefix("attack.t").is_some_and(|t| t.starts_with(|c: char| c.is_ascii_digit()));
        check(meta.tags.iter().any(technique), "no ATT&CK technique");
        let tactic = path.parent().and_then(Path::file_name).map(|t| format!("attack.{}", t.to_string_lossy()));
        check(tactic.is_some_and(|t| meta.tags.contains(&t)), "the folder is none of its tactics");
        check(!meta.author.is_empty() && meta.date.is_some(), "no author or date");
    });
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(count >= 200, "{count} rules");
}

#[test]
fn every_rule_argues_its_level() {
    let everything = Selection { filters: Vec::new(), ..Selection::default() };
    for (path, text) in everything.rule_files().expect("built in") {
        let (before, level) = text.split_once("\nlevel: ").unwrap_or_else(|| panic!("{}: no level", path.display()));
        let level = level.lines().next().unwrap_or_default();
        let comments: Vec<&str> = before.lines().rev().take_while(|l| l.starts_with("# ")).collect();
        let argument = comments.iter().any(|l| l.starts_with(&format!("# {level}: ")));
        assert!(argument, "{}: no comment `# {level}: …` above the level", path.display());
    }
}

/// Fields that are read from a body.
fn of_a_body(field: &str) -> bool {
    ["workload.", "rbac.", "csr.", "requestObject", "responseObject", "psa.enforce"]
        .iter()
        .any(|p| field.starts_with(p))
}

#[test]
fn every_rule_has_a_test_that_fires_and_a_look_alike() {
    let mut tests: BTreeMap<String, BTreeSet<&str>> = BTreeMap::new();
    for (path, text) in Selection::default().test_files().expect("built in") {
        let file = TestFile::parse(&path, &text).unwrap_or_else(|e| panic!("{e:?}"));
        for test in file.tests {
            tests.entry(test.rule).or_default().insert(test.expect.as_str());
        }
    }
    let mut bodies = BTreeSet::new();
    let set = Selection::default().load().expect("the built-in rules are good");
    for rule in set.rules() {
        rule.visit_fields(&mut |field| {
            // What is remembered is absent where the body was hidden, not unknown.
            if of_a_body(&field.name()) && !field.is_remembered() {
                bodies.insert(rule.meta.id.clone());
            }
        });
    }
    let mut wrong = Vec::new();
    each(|meta, _| {
        let have = tests.remove(&meta.id).unwrap_or_default();
        for expect in [Expect::Match, Expect::NoMatch, Expect::Undecidable].map(Expect::as_str) {
            let needed = expect != "undecidable" || bodies.contains(&meta.id);
            if needed && !have.contains(expect) {
                wrong.push(format!("{}: no test expects {expect}", meta.id));
            }
        }
    });
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(tests.is_empty(), "tests of rules that do not exist: {tests:?}");
    assert!(bodies.len() > 30, "{bodies:?}");
}

#[test]
fn the_tests_beside_rules_pass() {
    let output = lapwing(&["rules", "test"]);
    assert_eq!(output.status.code(), Some(0), "{}", stdout(&output));
    let said = stdout(&output);
    let passed: usize = said.split(' ').next().and_then(|n| n.parse().ok()).unwrap_or_else(|| panic!("{said}"));
    assert!(passed >= 500 && said.trim_end().ends_with(" passed, 0 failed"), "{said}");
    let one = stdout(&lapwing(&["rules", "test", "--only", "exec-into-pod"]));
    assert_eq!(one, "4 passed, 0 failed\n");
}

/// What no event of an API server lacks, and what none has.
fn unreal(event: &Value) -> Option<String> {
    let text = |key: &str| event[key].as_str().unwrap_or_default();
    let lacks = ["auditID", "level", "stage", "verb", "requestURI", "requestReceivedTimestamp", "stageTimestamp"]
        .into_iter()
        .find(|key| text(key).is_empty());
    if let Some(key) = lacks {
        return Some(format!("it has no `{key}`"));
    }
    let bodies = ["requestObject", "responseObject"].map(|key| !event[key].is_null());
    let hidden = match text("level") {
        "Metadata" => bodies[0] || bodies[1],
        "Request" => bodies[1],
        "RequestResponse" => false,
        other => return Some(format!("level `{other}`")),
    };
    if hidden {
        return Some(format!("it has a body at level {}", text("level")));
    }
    if !["RequestReceived", "ResponseStarted", "ResponseComplete", "Panic"].contains(&text("stage")) {
        return Some(format!("stage `{}`", text("stage")));
    }
    let path = if event["objectRef"]["apiGroup"].as_str().unwrap_or_default().is_empty() { "/api/" } else { "/apis/" };
    let of_object = event["objectRef"]["resource"].is_string();
    (of_object && !text("requestURI").starts_with(path))
        .then(|| format!("`{}` is no path below {path}", text("requestURI")))
}

#[test]
fn every_event_that_fires_a_rule_has_the_shape_of_a_real_one() {
    let mut wrong = Vec::new();
    for (path, text) in Selection::default().test_files().expect("built in") {
        for test in TestFile::parse(&path, &text).unwrap_or_else(|e| panic!("{e:?}")).tests {
            let Events::Inline(events) = &test.events else { continue };
            for event in events.iter().filter(|_| test.expect == Expect::Match) {
                let event = serde_json::from_str(event).expect("JSON");
                wrong.extend(unreal(&event).map(|why| format!("{}: `{}`: {why}", test.rule, test.name)));
            }
        }
    }
    assert!(wrong.is_empty(), "{} events:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn no_known_defect_of_published_rules_is_ours() {
    let file = "fixtures/defects/defects.test.yml";
    let tests =
        TestFile::parse(Path::new(file), &String::from_utf8(read(&fixture("defects/defects.test.yml"))).expect("text"));
    let named: BTreeSet<String> = tests.expect("readable").tests.iter().map(|t| t.name[..3].to_owned()).collect();
    assert_eq!(named, (1..=31).map(|n| format!("D{n:02}")).collect());
    let output = lapwing(&["rules", "test", "fixtures/defects"]);
    assert_eq!(output.status.code(), Some(0), "{}", stdout(&output));
}

#[test]
fn lint_tells_what_contradicts_itself_with_its_place() {
    let dir = tempfile::tempdir().expect("a directory");
    let rule = "title: Own\nid: own\nlevel: low\nlogsource: { product: kubernetes, service: audit }\n\
                detection:\n  a: { verb: get }\n  b: { verb: delete }\n  condition: a and b\n";
    std::fs::write(dir.path().join("own.yml"), rule).expect("written");
    let output = lapwing(&["rules", "lint", &dir.path().display().to_string()]);
    assert_eq!(output.status.code(), Some(1));
    let said = stdout(&output);
    assert!(
        said.contains("own.yml:1:1: rule `own`: never-matches: no value meets both `verb = get` and `verb = delete`"),
        "{said}"
    );
}

#[test]
fn a_failing_test_is_told_and_is_exit_code_1() {
    let dir = tempfile::tempdir().expect("a directory");
    let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).expect("written");
    write(
        "own.yml",
        "title: Own\nid: own\nlevel: low\nlogsource: { product: kubernetes, service: audit }\n\
         detection:\n  selection:\n    verb: get\n  condition: selection\n",
    );
    let event = "{ auditID: a, verb: delete, stage: ResponseComplete, stageTimestamp: '2026-11-20T09:00:00Z' }";
    write("own.test.yml", &format!("rule: own\ntests:\n- name: deletes\n  expect: match\n  events: [{event}]\n"));
    let path = dir.path().display().to_string();
    let output = lapwing(&["rules", "test", "--only", "own", &path]);
    assert_eq!(output.status.code(), Some(1));
    let said = stdout(&output).replace(&path, "");
    assert!(
        said.starts_with(
            "FAILED /own.test.yml:3: rule `own`, test `deletes`: expected match, was no-match (0 findings)\n"
        ),
        "{said}"
    );
    assert!(said.ends_with("0 passed, 1 failed\n"), "{said}");
}

#[test]
fn every_filter_is_told_from_who_imitates_it() {
    let on = Selection { filters: packs(), ..Selection::default() };
    let mut filters: BTreeMap<String, [usize; 3]> = BTreeMap::new();
    for (path, text) in pack_files() {
        for document in RuleFile::parse(&path, &text).0.documents {
            filters.insert(document.meta.id.clone(), [0; 3]);
        }
    }
    assert!(packs().len() >= 13 && filters.len() >= 25, "{filters:?}");
    for (path, text) in on.test_files().expect("built in") {
        for test in TestFile::parse(&path, &text).unwrap_or_else(|e| panic!("{e:?}")).tests {
            let Some((id, _)) = test.name.split_once(": ") else { continue };
            let Some(seen) = filters.get_mut(id) else { continue };
            let kind = match (test.filters.is_empty(), test.expect) {
                (true, Expect::Match) => 0,
                (false, Expect::NoMatch) => 1,
                (false, Expect::Match) => 2,
                other => panic!("{id}: {other:?}"),
            };
            seen[kind] += 1;
        }
    }
    for (id, [without, with, imitators]) in filters {
        assert!(without >= 1 && with >= 1 && imitators >= 2, "{id}: {without} {with} {imitators}");
    }
}

#[test]
fn packs_are_off_until_they_are_named_and_lists_wake_rules() {
    let event = r#"{"kind":"Event","apiVersion":"audit.k8s.io/v1","level":"Metadata","auditID":"a","stage":"ResponseComplete",
        "requestURI":"/api/v1/secrets","verb":"list","objectRef":{"resource":"secrets","apiVersion":"v1"},"sourceIPs":["10.42.0.17"],
        "user":{"username":"system:serviceaccount:argocd:argocd-application-controller","groups":["system:serviceaccounts"],
        "extra":{"authentication.kubernetes.io/pod-name":["argocd-application-controller-0"]}},"userAgent":"argocd/v2",
        "responseStatus":{"code":200},"stageTimestamp":"2026-11-20T09:00:00Z"}"#
        .replace('\n', "");
    let ids = |args: &[&str]| -> BTreeSet<String> {
        let output = lapwing_with(&[&["scan", "--findings"], args, &["-"]].concat(), event.as_bytes());
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
        ndjson(&stdout(&output)).iter().map(|f| f["rule"]["id"].as_str().expect("an id").to_owned()).collect()
    };
    let (broad, watched) = ("secret-list-all-by-service-account", "call-from-watched-address");
    assert!(ids(&[]).contains(broad) && ids(&["--filters", "none"]).contains(broad));
    assert!(!ids(&["--filters", "kubeadm,argocd"]).contains(broad));
    assert!(!ids(&[]).contains(watched) && ids(&["--list", "watched_addresses=10.42.0.0/16"]).contains(watched));
    let wrong = lapwing_with(&["scan", "--filters", "argo-cd", "-"], event.as_bytes());
    assert_eq!(wrong.status.code(), Some(2));
    assert!(stderr(&wrong).contains("there is no filter pack `argo-cd`; did you mean `argocd`?"), "{}", stderr(&wrong));
    let listed = ndjson(&stdout(&lapwing(&["rules", "list", "--output", "ndjson"])));
    let asleep = listed.iter().find(|r| r["id"] == watched).expect("listed");
    assert_eq!(asleep["inactive"], "rules.lists has no `watched_addresses`");
}

/// Findings of medium or above in a recorded file.
fn grave(path: &str) -> Vec<Value> {
    let path = fixture(path).display().to_string();
    let output = lapwing(&["scan", "--findings", "--output", "ndjson", "--min-level", "medium", &path]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    ndjson(&stdout(&output))
}

#[test]
fn an_ordinary_day_is_quiet() {
    let found = grave("benign/working-day.jsonl.zst");
    let reasons = std::fs::read_to_string(fixture("benign/reasons.txt")).expect("the file of reasons");
    let known: BTreeSet<&str> =
        reasons.lines().filter(|l| !l.starts_with('#')).filter_map(|l| l.split(':').next()).collect();
    let fired: BTreeSet<&str> = found.iter().filter_map(|f| f["rule"]["id"].as_str()).collect();
    assert_eq!(fired, known, "rules that speak about ordinary work, and those `reasons.txt` gives a reason for");
}

/// Attacks that no rule of medium or above sees, and why.
const UNSEEN: [(&str, &str); 0] = [];

#[test]
fn every_recorded_attack_has_a_finding_on_an_event_that_carries_it() {
    let mut missed = Vec::new();
    let mut attacks = 0;
    for entry in std::fs::read_dir(fixture("attacks")).expect("the directory") {
        let name = entry.expect("an entry").file_name().to_string_lossy().into_owned();
        attacks += 1;
        let labels: Value =
            serde_json::from_slice(&read(&fixture(&format!("attacks/{name}/labels.json")))).expect("JSON");
        let key = labels["key"].as_array().expect("key events");
        let on_key = |f: &Value| f["auditIDs"].as_array().is_some_and(|ids| ids.iter().any(|id| key.contains(id)));
        let found = grave(&format!("attacks/{name}/events.jsonl.zst"));
        if found.iter().any(|f| f["verdict"] == "match" && on_key(f)) == UNSEEN.iter().any(|(n, _)| *n == name) {
            let rules: BTreeSet<String> = found.iter().map(|f| f["rule"]["id"].to_string()).collect();
            missed.push(format!("{name}: {rules:?}"));
        }
    }
    assert!(missed.is_empty(), "missed, or listed as unseen and seen:\n{}", missed.join("\n"));
    assert!(attacks >= 20);
}

#[track_caller]
fn transcript(name: &str, got: &str) {
    let path = fixture(&format!("rules/{name}.expected"));
    if std::env::var_os("LAPWING_RECORD").is_some() {
        std::fs::write(&path, got).expect("written");
    }
    assert_eq!(std::fs::read_to_string(&path).unwrap_or_default(), got, "{name}");
}

#[test]
fn what_is_wrong_with_a_rule_is_said_with_its_place() {
    let mut names: Vec<String> = std::fs::read_dir(fixture("rules"))
        .expect("the directory")
        .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
        .filter_map(|name| name.strip_suffix(".yml").map(str::to_owned))
        .collect();
    names.sort();
    assert!(names.len() >= 12);
    let place = regex::Regex::new(r"^fixtures/rules/[a-z-]+\.yml(:\d+:\d+)?: ").expect("a pattern");
    for name in &names {
        // A relative path, so that the transcript is the same everywhere.
        let path = format!("fixtures/rules/{name}.yml");
        let output = lapwing(&["rules", "check", "--quiet", &path]);
        assert_eq!(output.status.code(), Some(1), "{name}: {}", stderr(&output));
        let said = stdout(&output);
        assert!(said.lines().all(|line| place.is_match(line)), "{said}");
        transcript(name, &said);
    }
    // All of them together: nothing is told less, except what they take from each other.
    let output = lapwing(&["rules", "check", "fixtures/rules"]);
    assert_eq!(output.status.code(), Some(1));
    let said = stdout(&output);
    for name in &names {
        assert!(said.contains(&format!("fixtures/rules/{name}.yml")), "{name} is not told:\n{said}");
    }
    assert_eq!(lapwing(&["rules", "check", "no/such/file.yml"]).status.code(), Some(2));
    let good = lapwing(&["rules", "check"]);
    assert_eq!(good.status.code(), Some(0), "{}", stdout(&good));
    assert!(stdout(&good).ends_with(" rules are good, 0 errors, 0 warnings\n"), "{}", stdout(&good));
}

#[test]
fn explain_shows_what_held_and_with_which_values() {
    for (rule, event) in [
        ("exec-into-pod", "exec"),
        ("exec-reads-credentials", "exec"),
        ("privileged-workload", "privileged-pod"),
        ("privileged-workload", "privileged-pod-at-metadata"),
    ] {
        let path = format!("fixtures/rules/{event}.json");
        let output = lapwing(&["rules", "explain", rule, &path]);
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
        transcript(&format!("explain-{rule}-{event}"), &stdout(&output));
        let json = ndjson(&stdout(&lapwing(&["rules", "explain", "--output", "ndjson", rule, &path])));
        assert_eq!(json.len(), 1);
        let piped = lapwing_with(&["rules", "explain", rule, "-"], &read(&fixture(&format!("rules/{event}.json"))));
        assert_eq!(stdout(&piped), stdout(&output));
    }
    for (args, said) in [
        (["exec-into-pd", "fixtures/rules/exec.json"], "did you mean `exec-into-pod`?"),
        (["exec-into-pod", "fixtures/rules/none.json"], "cannot open"),
        (["exec-into-pod", "fixtures/malformed/not-json.body"], "not-json.body:1: not JSON"),
        (["exec-into-many-pods", "fixtures/rules/exec.json"], "explain one of them: "),
    ] {
        let output = lapwing(&["rules", "explain", args[0], args[1]]);
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        assert!(stderr(&output).contains(said), "{}", stderr(&output));
    }
}

#[test]
fn the_list_is_the_library() {
    let listed = ndjson(&stdout(&lapwing(&["rules", "list", "--output", "ndjson"])));
    let mut expected = BTreeSet::new();
    each(|meta, _| {
        expected.insert((meta.id.clone(), meta.level));
    });
    let got: BTreeSet<_> = listed
        .iter()
        .map(|r| {
            let text = |key: &str| r[key].as_str().expect("text").to_owned();
            (text("id"), Level::parse(&text("level")).expect("a level"))
        })
        .collect();
    assert_eq!(got, expected);
}
