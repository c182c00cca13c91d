//! Each kind of remark, and rules that earn none.

use super::*;

const HEAD: &str = "title: T\nid: t\ndescription: d\nlevel: low\ntags: [attack.t1609]\nfalsepositives: [x]\nlogsource: { product: kubernetes }\n";

fn look(rules: &[&str], tests: &str) -> Vec<(Kind, String)> {
    let named = |(i, t): (usize, &&str)| (PathBuf::from(format!("{i}.yml")), (*t).to_owned());
    let files = Files {
        rules: rules.iter().enumerate().map(named).collect(),
        tests: vec![("t.test.yml".into(), tests.to_owned())],
        others: Vec::new(),
        today: "2026-11-21".parse().ok(),
    };
    let (remarks, errors) = lint(&files);
    assert_eq!(errors, [], "{rules:?}");
    remarks.into_iter().map(|r| (r.kind, r.text)).collect()
}

const TESTED: &str = "rule: t\ntests:\n- { name: n, expect: match, events: [{ verb: get }] }\n";

/// The remarks on a rule with this detection.
fn on(detection: &str) -> Vec<(Kind, String)> {
    look(&[&format!("{HEAD}detection:\n{detection}")], TESTED)
}

/// A detection of one selection, in flow style.
fn one(selection: &str) -> Vec<(Kind, String)> {
    on(&format!("  s: {selection}\n  condition: s\n"))
}

#[test]
fn good_rules_earn_no_remark() {
    for selection in [
        "{ action: exec, target.namespace: kube-system }",
        "{ verb: [create, update], responseStatus.code: [401, '403'] }",
        "{ responseStatus.code|startswith: '2' }",
        "{ target.resource: deployments, target.group: apps }",
        "{ target.resource: widgets, target.group: example.org }",
        "{ hostPath: null }",
        "{ verb: delete, requestObject.propagationPolicy: Orphan }",
        "{ verb: get, rbac.kind: role }",
        "{ user.groups|contains: a, verb: get }",
        "[{ user.groups: a }, { user.groups: b }]",
    ] {
        assert_eq!(one(selection), [], "{selection}");
    }
    // A list can hold both values.
    assert_eq!(on("  a: { user.groups: a }\n  b: { user.groups: b }\n  condition: a and b\n"), []);
    assert_eq!(on("  a: { verb: get }\n  b: { verb: list }\n  condition: a or b\n"), []);
}

#[test]
fn rules_that_never_match() {
    for (selection, want) in [
        ("{ verb: create, hostPath: '*' }", "`workload.host_paths` is what is meant"),
        ("{ apiGroup: apps }", "no audit event has a field `apiGroup`"),
        ("{ verb: replace }", "`verb` is never `replace`; `update` is what is meant"),
        ("{ responseStatus.code: ALLOW }", "`responseStatus.code` is a number, never `allow`"),
        ("{ outcome: success }", "`outcome` is never `success`"),
        ("{ target.resource: deployments, target.group: batch }", "they are in `apps`"),
        ("{ objectRef.resource: pods, target.group: apps }", "the core group, whose name is empty"),
        ("{ verb: get, requestObject.spec.x: 1 }", "get, list and watch carry no object"),
        ("{ action: [list, watch], workload.privileged: true }", "get, list and watch carry no object"),
        ("{ verb: delete, workload.privileged: true }", "deletions carry no object"),
        ("[{ verb: replace }, { verb: edit }]", "`verb` is never"),
    ] {
        let remarks = one(selection);
        assert!(matches!(&*remarks, [(Kind::NeverMatches, text)] if text.contains(want)), "{selection}: {remarks:?}");
    }
    for detection in [
        "  a: { verb: get }\n  b: { verb: list }\n  condition: a and b\n",
        "  a: { objectRef.resource: pods }\n  b: { target.resource: secrets }\n  condition: all of them\n",
        "  a: { verb: get }\n  b: [{ verb: list }, { verb: watch }]\n  condition: a and b\n",
    ] {
        let remarks = on(detection);
        assert!(
            matches!(&*remarks, [(Kind::NeverMatches, text)] if text.contains("no value meets both")),
            "{remarks:?}"
        );
    }
}

#[test]
fn alternatives_that_never_match_are_only_pointless() {
    for selection in
        ["{ verb: [create, replace] }", "[{ verb: create }, { verb: replace }]", "[{ verb: get }, { hostPath: x }]"]
    {
        let remarks = one(selection);
        assert!(matches!(&*remarks, [(Kind::Pointless, _)]), "{selection}: {remarks:?}");
    }
}

#[test]
fn exemptions_an_attacker_chooses() {
    for (excused, evadable) in [
        ("{ userAgent|startswith: kube }", true),
        ("{ client.family: kubectl, target.resource: pods }", true),
        ("{ client.family: kubectl, actor.name: bob }", false),
        ("{ target.name: coredns }", true),
        ("[{ actor.name: bob }, { objectRef.name: coredns }]", true),
        ("{ target.name: coredns, credential.kind: x509 }", false),
        ("{ actor.name: bob }", false),
    ] {
        let remarks = on(&format!("  s: {{ verb: create }}\n  f: {excused}\n  condition: s and not f\n"));
        assert_eq!(matches!(&*remarks, [(Kind::Evadable, _)]), evadable, "{excused}: {remarks:?}");
        let filter = format!(
            "title: F\nid: f\nlapwing: {{ owner: o, reason: r, expires: 2030-01-01 }}\nlogsource: {{ product: kubernetes }}\nfilter:\n  rules: any\n  f: {excused}\n  condition: not f\n"
        );
        let remarks = look(&[&filter], TESTED);
        assert_eq!(matches!(&*remarks, [(Kind::Evadable, _)]), evadable, "filter {excused}: {remarks:?}");
    }
}

#[test]
fn a_filter_says_who_and_what_proves_it() {
    let filter = |excused: &str| {
        let text = format!(
            "title: F\nid: f\nlapwing: {{ owner: o, reason: r, expires: 2030-01-01 }}\nlogsource: {{ product: kubernetes }}\nfilter:\n  rules: any\n{excused}"
        );
        look(&[&text], TESTED)
    };
    let one = |excused: &str| filter(&format!("  f: {excused}\n  condition: f\n"));
    for good in [
        "{ actor.namespace: argocd, actor.serviceaccount: argocd-application-controller }",
        "{ actor.name: aksService, credential.kind: x509 }",
        "{ actor.name|startswith: 'eks:', actor.cloud_identity|contains: ':assumed-role/AWSWesley' }",
        "{ actor.kind: node, credential.kind: x509, target.name|startswith: etcd- }",
        "{ target.namespace: sandbox }",
    ] {
        assert_eq!(one(good), [], "{good}");
    }
    for bad in [
        "{ actor.name|startswith: 'system:' }",
        "{ actor.serviceaccount: argocd-application-controller }",
        "{ actor.namespace: argocd, actor.serviceaccount|startswith: argocd- }",
        "{ userAgent|contains: flux, target.namespace: web }",
        "{ workload.images|startswith: registry.example/ }",
        "{ target.labels: app=x, target.resource: pods }",
        "{ requestURI|contains: metrics }",
        "{ exec.command: ls }",
    ] {
        let remarks = one(bad);
        assert!(matches!(&*remarks, [(Kind::Evadable, _)]), "{bad}: {remarks:?}");
    }
    // A `not` beside it makes it no safer, and one bad way of several is bad.
    for detection in [
        "  f: { client.family: argocd }\n  g: { client.network: public }\n  condition: f and not g\n",
        "  f: { client.family: argocd }\n  g: { actor.name: bob }\n  condition: f or g\n",
    ] {
        let remarks = filter(detection);
        assert!(matches!(&*remarks, [(Kind::Evadable, _)]), "{detection}: {remarks:?}");
    }
}

#[test]
fn a_filter_past_its_day_is_told() {
    let text = |day: &str| {
        format!(
            "title: F\nid: f\nlapwing: {{ owner: o, reason: r, expires: {day} }}\nlogsource: {{ product: kubernetes }}\nfilter:\n  rules: any\n  f: {{ actor.name: bob }}\n  condition: f\n"
        )
    };
    assert_eq!(look(&[&text("2026-11-22")], TESTED), []);
    let remarks = look(&[&text("2026-11-21")], TESTED);
    assert!(matches!(&*remarks, [(Kind::Expired, text)] if text.contains("2026-11-21")), "{remarks:?}");
}

#[test]
fn exec_by_one_verb_only() {
    let remarks = one("{ verb: create, objectRef.resource: pods, objectRef.subresource: exec }");
    assert!(matches!(&*remarks, [(Kind::Partial, _)]), "{remarks:?}");
    assert_eq!(one("{ verb: [create, get], objectRef.subresource: exec }"), []);
}

#[test]
fn rules_that_say_the_same() {
    let rule = |id: &str, level: &str, detection: &str| {
        HEAD.replace("id: t", &format!("id: {id}")).replace("level: low", &format!("level: {level}"))
            + &format!("detection:\n{detection}")
    };
    let first = rule("a", "low", "  s: { verb: get, action: exec }\n  condition: s\n");
    let tests = "tests:\n- { rule: a, name: n, expect: match, events: [{}] }\n- { rule: b, name: n, expect: match, events: [{}] }\n";
    for (level, detection, want) in [
        ("low", "  other_name:\n    verb: get\n    action: exec\n  condition: other_name\n", Some(Kind::Duplicate)),
        ("high", "  s: { verb: get, action: exec }\n  condition: s\n", Some(Kind::Shadowed)),
        ("low", "  s: { verb: list, action: exec }\n  condition: s\n", None),
        ("low", "  s: { verb: get, action: exec }\n  condition: not s\n", None),
    ] {
        let second = rule("b", level, detection);
        let kinds: Vec<Kind> = look(&[&first, &second], tests).into_iter().map(|(k, _)| k).collect();
        assert_eq!(kinds, want.into_iter().collect::<Vec<_>>(), "{level} {detection}");
    }
}

#[test]
fn what_is_missing() {
    let bare = "title: T\nid: t\nlogsource: { product: kubernetes }\ndetection:\n  s: { verb: get }\n  condition: s\n";
    let remarks = look(&[bare], "tests: []\n");
    assert_eq!(remarks[0], (Kind::Incomplete, "it lacks description, falsepositives, level, an attack tag".to_owned()));
    assert_eq!(remarks[1].0, Kind::NoTest);
    let filter = "title: F\nid: f\nlogsource: { product: kubernetes }\nfilter:\n  rules: any\n  f: { actor.name: bob }\n  condition: f\n";
    let remarks = look(&[filter], TESTED);
    assert_eq!(
        remarks,
        [(Kind::Incomplete, "it lacks description, lapwing.owner, lapwing.reason, lapwing.expires".to_owned())]
    );
}

#[test]
fn a_rule_that_does_not_load_is_an_error() {
    let files = Files {
        rules: vec![("x.yml".into(), format!("{HEAD}detection:\n  s: {{ nofield: 1 }}\n  condition: s\n"))],
        ..Files::default()
    };
    let (_, errors) = lint(&files);
    assert!(
        errors.iter().any(|e| e.to_string().contains("x.yml:9:8: rule `t`: unknown field `nofield`")),
        "{errors:?}"
    );
}

#[test]
fn the_built_in_rules_earn_no_remark() {
    let all = crate::ruleset::Selection { filters: crate::ruleset::packs(), ..Default::default() };
    let files =
        Files { rules: all.rule_files().unwrap(), tests: all.test_files().unwrap(), others: Vec::new(), today: None };
    let (remarks, errors) = lint(&files);
    let told: Vec<String> = remarks.iter().map(ToString::to_string).collect();
    assert!(told.is_empty() && errors.is_empty(), "{}\n{errors:?}", told.join("\n"));
}
