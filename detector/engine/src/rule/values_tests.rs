//! What each kind of value and modifier matches: one table a reader can check against Sigma.

use serde_json::{Value, json};

use super::fake::{compile, judge};
use super::{Judgement, Unknown};

const YES: &str = "match";
const NO: &str = "no match";
const OPEN: &str = "undecidable";

fn verdict(selection: &str, event: Value) -> &'static str {
    match judge(selection, event) {
        Judgement::Match => YES,
        Judgement::NoMatch => NO,
        Judgement::Undecidable(..) => OPEN,
    }
}

fn check(cases: &[(&str, Value, &str)]) {
    for (selection, event, want) in cases {
        assert_eq!(verdict(selection, event.clone()), *want, "{selection} on {event}");
    }
}

#[test]
fn plain_values() {
    check(&[
        ("verb: create", json!({"verb": "create"}), YES),
        ("verb: create", json!({"verb": "Create"}), YES),
        ("verb: create", json!({"verb": "creates"}), NO),
        ("verb: create", json!({}), NO),
        ("verb: [get, list]", json!({"verb": "list"}), YES),
        ("verb: [get, list]", json!({"verb": "watch"}), NO),
        ("verb: g?t", json!({"verb": "get"}), YES),
        ("verb: '*'", json!({"verb": "get"}), YES),
        ("verb: '*'", json!({}), NO),
        ("verb: ''", json!({"verb": ""}), YES),
        ("verb: ''", json!({}), NO),
        ("verb: null", json!({}), YES),
        ("verb: null", json!({"verb": "x"}), NO),
        ("verb: [null, x]", json!({"verb": "x"}), YES),
        ("responseStatus.code: 403", json!({"responseStatus": {"code": 403}}), YES),
        ("responseStatus.code: '403'", json!({"responseStatus": {"code": 403}}), YES),
        ("responseStatus.code: 403", json!({"responseStatus": {"code": "403"}}), YES),
        ("responseStatus.code: 403", json!({"responseStatus": {"code": 40}}), NO),
        ("workload.privileged: true", json!({"workload": {"privileged": true}}), YES),
        ("workload.privileged: true", json!({"workload": {"privileged": false}}), NO),
        ("user.groups: system:masters", json!({"user": {"groups": ["a", "system:masters"]}}), YES),
        ("user.groups: system:masters", json!({"user": {"groups": ["a"]}}), NO),
        ("verb: get\nuser.groups: a", json!({"verb": "get", "user": {"groups": ["a"]}}), YES),
        ("verb: get\nuser.groups: a", json!({"verb": "put", "user": {"groups": ["a"]}}), NO),
        ("- verb: get\n- user.groups: a", json!({"verb": "put", "user": {"groups": ["a"]}}), YES),
        ("- verb: get\n- user.groups: a", json!({"verb": "put"}), NO),
    ]);
}

#[test]
fn text_modifiers() {
    check(&[
        ("requestURI|contains: /exec", json!({"requestURI": "/api/EXEC?x"}), YES),
        ("requestURI|contains|cased: /exec", json!({"requestURI": "/api/EXEC?x"}), NO),
        ("requestURI|startswith: /api", json!({"requestURI": "/api/v1"}), YES),
        ("requestURI|startswith: /api", json!({"requestURI": "/x/api"}), NO),
        ("requestURI|endswith: /log", json!({"requestURI": "/pods/x/log"}), YES),
        ("requestURI|contains|all: [sh, '-c']", json!({"requestURI": "sh -c id"}), YES),
        ("requestURI|contains|all: [sh, '-c']", json!({"requestURI": "sh"}), NO),
        ("user.groups|all: [a, b]", json!({"user": {"groups": ["b", "c", "a"]}}), YES),
        ("user.groups|all: [a, b]", json!({"user": {"groups": ["b", "c"]}}), NO),
        ("verb|cased: get", json!({"verb": "GET"}), NO),
        ("verb|neq: get", json!({"verb": "list"}), YES),
        ("verb|neq: get", json!({"verb": "GET"}), NO),
        ("verb|neq: [get, list]", json!({"verb": "list"}), NO),
        ("verb|neq: get", json!({}), YES),
        ("userAgent|re: '^kube.*/v1\\.[0-9]+$'", json!({"userAgent": "kubectl/v1.30"}), YES),
        ("userAgent|re: '^KUBE'", json!({"userAgent": "kubectl"}), NO),
        ("userAgent|re|i: '^KUBE'", json!({"userAgent": "kubectl"}), YES),
        ("userAgent|re|m: '^b'", json!({"userAgent": "a\nb"}), YES),
        ("userAgent|re|s: 'a.b'", json!({"userAgent": "a\nb"}), YES),
        ("userAgent|re: 'a.b'", json!({"userAgent": "a\nb"}), NO),
        ("exec.command|windash|contains: ' -enc'", json!({"exec": {"command": "x /ENC"}}), YES),
        ("exec.command|windash|contains: ' -enc'", json!({"exec": {"command": "x +enc"}}), NO),
        ("exec.command|base64: /bin/sh", json!({"exec": {"command": "L2Jpbi9zaA=="}}), YES),
        ("exec.command|base64offset|contains: /bin/sh", json!({"exec": {"command": "echo eC9iaW4vc2ggLWM="}}), YES),
        ("exec.command|base64offset|contains: /bin/sh", json!({"exec": {"command": "/bin/sh"}}), NO),
        ("exec.command|wide|base64offset|contains: sh", json!({"exec": {"command": "cwBoAA=="}}), YES),
        ("exec.command|utf16be|base64: sh", json!({"exec": {"command": "AHMAaA=="}}), YES),
        ("exec.command|utf16|base64: sh", json!({"exec": {"command": "//5zAGgA"}}), YES),
        ("user.username|expand: '%admins%'", json!({"user": {"username": "bob"}}), YES),
        ("user.username|expand: 'x-%admins%-y'", json!({"user": {"username": "x-alice-y"}}), YES),
        ("user.username|expand: '%admins%'", json!({"user": {"username": "%admins%"}}), NO),
    ]);
}

#[test]
fn numbers_networks_times_and_fields() {
    check(&[
        ("responseStatus.code|gte: 400", json!({"responseStatus": {"code": 400}}), YES),
        ("responseStatus.code|gt: 400", json!({"responseStatus": {"code": 400}}), NO),
        ("responseStatus.code|lt: 400", json!({"responseStatus": {"code": 399}}), YES),
        ("responseStatus.code|lte: 400", json!({"responseStatus": {"code": 401}}), NO),
        ("responseStatus.code|lte: 400", json!({}), NO),
        ("sourceIPs|cidr: 10.0.0.0/8", json!({"sourceIPs": ["1.1.1.1", "10.2.3.4"]}), YES),
        ("sourceIPs|cidr: [10.0.0.0/8, '::1/128']", json!({"sourceIPs": ["::1"]}), YES),
        ("sourceIPs|cidr|neq: 10.0.0.0/8", json!({"sourceIPs": ["10.2.3.4"]}), NO),
        ("stageTimestamp|hour: [2, 3]", json!({"stageTimestamp": "2025-01-01T03:00:00.1Z"}), YES),
        ("stageTimestamp|hour|lt: 6", json!({"stageTimestamp": "2025-01-01T03:00:00Z"}), YES),
        ("stageTimestamp|year|neq: 2025", json!({"stageTimestamp": "2025-01-01T03:00:00Z"}), NO),
        ("user.username|exists: true", json!({"user": {"username": ""}}), YES),
        ("user.username|exists: false", json!({"user": {"username": ""}}), NO),
        ("user.username|exists: false", json!({}), YES),
        ("user.username|fieldref: actor.name", json!({"user": {"username": "A"}, "actor": {"name": "a"}}), YES),
        ("user.username|fieldref|cased: actor.name", json!({"user": {"username": "A"}, "actor": {"name": "a"}}), NO),
        ("user.username|fieldref|neq: actor.name", json!({"user": {"username": "b"}, "actor": {"name": "a"}}), YES),
        (
            "user.username|fieldref|endswith: actor.name",
            json!({"user": {"username": "x:a"}, "actor": {"name": "a"}}),
            YES,
        ),
        (
            "user.username|fieldref|startswith: actor.name",
            json!({"user": {"username": "x:a"}, "actor": {"name": "a"}}),
            NO,
        ),
        (
            "user.username|fieldref|contains: actor.name",
            json!({"user": {"username": "x:a:y"}, "actor": {"name": "A"}}),
            YES,
        ),
        ("user.username|fieldref: actor.name", json!({}), NO),
    ]);
}

#[test]
fn words_without_a_field_are_searched_everywhere() {
    check(&[
        ("- secret\n- token", json!({"a": {"b": ["x Token y"]}}), YES),
        ("- secret\n- token", json!({"a": 1}), NO),
        ("'|all': [secret, token]", json!({"a": "secret", "b": "token"}), YES),
        ("'|all': [secret, token]", json!({"a": "secret"}), NO),
        ("- 'say \"hi\"'", json!({"a": "say \"hi\""}), YES),
        ("- 'C:\\dir'", json!({"a": "C:\\dir"}), YES),
        ("- 'sec*et'", json!({"a": "secEt"}), YES),
        ("'|re': 'tok[a-z]n'", json!({"a": "token"}), YES),
        ("- verb: get\n- secret", json!({"a": "secret"}), YES),
    ]);
}

#[test]
fn any_wants_one_element_to_meet_everything() {
    let rule = "workload.containers|any:\n  privileged: true\n  image|startswith: evil/";
    let both = json!({"workload": {"containers": [{"privileged": false, "image": "a"}, {"privileged": true, "image": "evil/x"}]}});
    let split = json!({"workload": {"containers": [{"privileged": true, "image": "a"}, {"image": "evil/x"}]}});
    let nested = "workload.containers|any:\n  ports|any:\n    port: 22\n    host: true\n  env.name: X";
    let deep = json!({"workload": {"containers": [{"env": [{"name": "x"}], "ports": [{"port": 22, "host": true}]}]}});
    let shallow =
        json!({"workload": {"containers": [{"env": [{"name": "x"}], "ports": [{"port": 22}, {"host": true}]}]}});
    let either = "workload.containers|any:\n  - privileged: true\n  - image: b";
    check(&[
        (rule, both, YES),
        (rule, split.clone(), NO),
        (rule, json!({}), NO),
        (rule, json!({"workload": {"?": "level"}}), OPEN),
        (nested, deep, YES),
        (nested, shallow, NO),
        (either, split, YES),
    ]);
}

#[test]
fn what_cannot_be_read_leaves_the_verdict_open_unless_the_rest_decides() {
    let event = json!({"verb": "create", "requestObject": {"?": "level"}, "user": {"username": "u"}});
    let on = |s: &str| judge(s, event.clone());
    for open in [
        "requestObject.a: 1",
        "requestObject.a|exists: true",
        "requestObject.a|exists: false",
        "requestObject.a|neq: 1",
        "requestObject.a: null",
        "verb: create\nrequestObject.a: 1",
        "- verb: get\n- requestObject.a: 1",
        "user.username|fieldref: requestObject.a",
        "requestObject.a|fieldref: user.username",
    ] {
        let Judgement::Undecidable(why, field) = on(open) else { panic!("{open} is {:?}", on(open)) };
        assert_eq!((why, &*field.name()), (Unknown::LevelTooLow, "requestObject.a"), "{open}");
    }
    assert_eq!(on("requestObject.a: 1\nverb: get"), Judgement::NoMatch);
    assert_eq!(on("- requestObject.a: 1\n- verb: create"), Judgement::Match);
}

#[test]
fn conditions_keep_the_three_values() {
    let event = super::fake::Fake::new(json!({"verb": "create", "requestObject": {"?": "cut"}}));
    for (condition, want) in [
        ("yes and open", OPEN),
        ("no and open", NO),
        ("yes or open", YES),
        ("no or open", OPEN),
        ("not open", OPEN),
        ("yes and not open", OPEN),
        ("no and not open", NO),
        ("1 of them", YES),
        ("all of them", NO),
        ("2 of them", OPEN),
    ] {
        let text =
            format!("yes:\n  verb: create\nno:\n  verb: get\nopen:\n  requestObject.a: 1\ncondition: {condition}");
        let got = match compile(&text).unwrap().judge(&event) {
            Judgement::Match => YES,
            Judgement::NoMatch => NO,
            Judgement::Undecidable(..) => OPEN,
        };
        assert_eq!(got, want, "{condition}");
    }
}

#[test]
fn a_list_of_conditions_is_or() {
    let rule = compile("a:\n  verb: get\nb:\n  verb: list\ncondition:\n  - a\n  - b").unwrap();
    assert_eq!(rule.judge(&super::fake::Fake::new(json!({"verb": "list"}))), Judgement::Match);
}

#[test]
fn bad_selections_are_told_all_at_once_with_place() {
    let text = "s:\n  objectRef.subresourse: exec\n  verb|contians: x\n  sourceIPs|cidr: 10.0.0.0/99\n  userAgent|re: 'a(?=b)'\ncondition: t";
    let problems: Vec<_> = compile(text).unwrap_err().iter().map(ToString::to_string).collect();
    assert_eq!(
        problems,
        [
            "x.yml:6:5: rule `r`: unknown field `objectRef.subresourse`; did you mean `objectRef.subresource`?",
            "x.yml:7:5: rule `r`: unknown modifier `contians`; did you mean `contains`?",
            "x.yml:8:21: rule `r`: `10.0.0.0/99` is no network; expected an address and a prefix length, as in `10.0.0.0/8`",
            "x.yml:9:19: rule `r`: regular expression `a(?=b)` uses look-ahead, which is not supported because it can \
             take forever; write it without, or as a second selection with `not`",
            "x.yml:10:14: rule `r`: condition `t`: there is no selection `t`",
        ]
    );
}

#[test]
fn bad_values_are_told() {
    for (selection, want) in [
        ("verb|exists: maybe", "modifier `exists` takes true or false, not `maybe`"),
        ("verb|gt: x", "modifier `gt` takes a number, not `x`"),
        ("verb|gt: [1, 2]", "modifier `gt` takes one single number, not `1`"),
        ("verb|hour: x", "modifier `hour` takes a whole number, not `x`"),
        ("verb|any: x", "modifier `any` takes a map of conditions, or a list of such maps, not `x`"),
        ("verb|fieldref: verv", "unknown field `verv`; did you mean `verb`?"),
        ("verb|fieldref: 1", "modifier `fieldref` takes the name of a field, not `1`"),
        ("verb|base64: 'a*'", "modifier `base64` takes a text without wildcards, not `a*`"),
        ("verb|expand: '%admin%'", "placeholder `%admin%` is not defined; did you mean `admins`?"),
        ("verb|contains: null", "modifier `contains` takes a text, not null"),
        ("verb: []", "field `verb` has an empty list of values and would never match"),
        ("verb: {a: 1}", "expected a text, number or boolean, found a map"),
        (
            "workload.containers|any:\n  a..b: 1",
            "`a..b` cannot be read as a path; expected names joined by dots, as in `securityContext.privileged`",
        ),
        (
            "'|cidr': 10.0.0.0/8",
            "modifier `cidr` needs a field; without one the whole event is searched, with `all`, `cased`, `contains` or `re`",
        ),
        ("- ' '", "a search text without a field must not be empty"),
        ("{}", "selection `s` is empty and would never match"),
    ] {
        let indented: String = selection.lines().map(|l| format!("  {l}\n")).collect();
        let problems = compile(&format!("s:\n{indented}condition: s")).unwrap_err();
        assert_eq!(problems[0].fault.to_string(), want, "{selection}");
    }
}
