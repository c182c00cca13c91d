//! Translated rules judge events as their originals would.

use std::path::PathBuf;

use lapwing_engine::event::Event;
use lapwing_engine::facts::Facts;
use lapwing_engine::rule::Judgement;
use lapwing_engine::rule::set::{LoadOptions, RuleSet};
use serde_json::{Value, json};

use super::{Import, Why, import};

fn files(texts: &[&str]) -> Import {
    let named = texts.iter().enumerate().map(|(i, t)| (PathBuf::from(format!("{i}.yaml")), (*t).to_owned()));
    import(&named.collect::<Vec<_>>()).unwrap()
}

fn rule(condition: &str) -> String {
    format!("- rule: T\n  desc: d\n  condition: >\n    {condition}\n  priority: WARNING\n  source: k8s_audit\n")
}

/// `Some(true)` match, `Some(false)` none, `None` undecidable.
fn judge(import: &Import, event: &Value) -> Option<bool> {
    assert!(import.left_out.is_empty(), "{:?}", import.left_out);
    let rule = &import.rules[0];
    let set = RuleSet::load(vec![("t.yml".into(), rule.text.clone())], &LoadOptions::default()).unwrap();
    let text = event.to_string();
    let event = Event::parse(&text).unwrap();
    match set.rules()[0].judge(&Facts::new(&event, &text, "c")) {
        Judgement::Match => Some(true),
        Judgement::NoMatch => Some(false),
        Judgement::Undecidable(..) => None,
    }
}

fn event(more: &Value) -> Value {
    let mut event = json!({
        "kind": "Event", "apiVersion": "audit.k8s.io/v1", "level": "RequestResponse", "auditID": "1",
        "stage": "ResponseComplete", "verb": "create", "requestURI": "/api/v1/namespaces/web/pods?dryRun=All",
        "user": { "username": "alice", "groups": ["devs", "ops"] }, "sourceIPs": ["10.0.0.1"],
        "objectRef": { "resource": "pods", "namespace": "web", "name": "shell", "apiVersion": "v1" },
        "responseStatus": { "code": 201 },
        "annotations": { "authorization.k8s.io/decision": "allow" },
        "requestObject": { "kind": "Pod", "spec": {
            "containers": [
                { "name": "a", "image": "ngo/web:1", "ports": [{ "containerPort": 80 }],
                  "securityContext": { "privileged": true, "capabilities": { "add": ["SYS_TIME"] } } },
                { "name": "b", "image": "reg.example/side@sha256:00" } ],
            "volumes": [ { "name": "v", "hostPath": { "path": "/etc/kubernetes/x*" } }, { "name": "w", "emptyDir": {} } ] } },
        "requestReceivedTimestamp": "2026-11-20T10:00:00.000000Z", "stageTimestamp": "2026-11-20T10:00:00.000000Z"
    });
    for (key, value) in more.as_object().unwrap() {
        event[key] = value.clone();
    }
    event
}

#[test]
fn verdicts_are_the_same() {
    for (condition, want) in [
        ("ka.verb=create", true),
        ("ka.user.name = Alice", false),
        ("ka.user.name icontains ALI", true),
        ("ka.verb in (get, create)", true),
        ("ka.verb in ()", false),
        ("not ka.verb in ()", true),
        // A value that is not there equals nothing and differs from nothing.
        ("ka.target.subresource != exec", false),
        ("not ka.target.subresource = exec", true),
        ("ka.target.subresource exists", false),
        ("ka.target.namespace != kube-system", true),
        ("ka.user.groups intersects (ops, nobody)", true),
        ("ka.uri startswith /api/v1/namespaces/web/pods?dry", true),
        ("ka.uri contains \"p?ds\"", false),
        ("ka.uri glob /api/v1/*All", true),
        ("ka.uri regex \".*dryRun=A[l]+\"", true),
        ("ka.uri regex dryRun", false),
        ("ka.uri.param[dryRun] = All", true),
        ("ka.uri.param[dryRun] = Al", false),
        ("ka.response.code startswith 2", true),
        ("ka.response.code >= 300", false),
        ("ka.auth.decision = allow", true),
        ("jevt.value[/objectRef/name] = shell", true),
        ("jevt.value[/requestObject/spec/volumes] exists", true),
        ("jevt.value[/requestObject/spec/tls] exists", false),
        ("ka.req.pod.containers.privileged intersects (true)", true),
        ("ka.req.pod.containers.privileged in (true)", true),
        ("ka.req.pod.containers.privileged in (false)", false),
        ("ka.req.pod.initContainers.privileged intersects (true)", false),
        ("ka.req.pod.containers.image.repository intersects (ngo/web)", true),
        // `in` asks for every container.
        ("ka.req.pod.containers.image.repository in (ngo/web)", false),
        ("ka.req.pod.containers.image.repository in (ngo/web, reg.example/side)", true),
        ("ka.req.pod.containers.image.repository intersects (ngo)", false),
        ("ka.req.pod.containers.image.repository in (ngo/web:1)", false),
        ("ka.req.pod.containers.add_capabilities intersects (SYS_TIME)", true),
        ("ka.req.pod.containers.host_port intersects (80)", true),
        ("ka.req.pod.containers.host_port intersects (81)", false),
        ("ka.req.pod.volumes.hostpath intersects (/etc/kubernetes)", false),
        ("ka.req.pod.volumes.hostpath intersects (\"/etc/kubernetes/x*\")", true),
        ("ka.req.pod.volumes.hostpath intersects (\"/etc/*\")", false),
        ("ka.req.pod.volumes.volume_type intersects (nfs, emptyDir)", true),
        ("ka.req.pod.volumes.volume_type intersects (nfs)", false),
        ("ka.req.volume.hostpath[/etc/*] = true", true),
        ("ka.req.volume.hostpath[/etc] = true", false),
        ("jevt.value[/requestObject/spec/volumes/x] pmatch (/etc)", false),
        ("jevt.value[/objectRef/name] pmatch (shell)", true),
        ("ka.uri pmatch (/api/v1)", true),
        ("ka.uri pmatch (/api/v)", false),
        ("ka.verb=get or ka.verb=create and not ka.user.name=bob", true),
        ("(ka.verb=get or ka.verb=create) and not (ka.user.name=alice and ka.target.name=shell)", false),
        ("ka.verb=create and (jevt.rawtime exists) and not (jevt.rawtime=0)", true),
        ("jevt.obj contains SYS_TIME", true),
        ("jevt.obj contains sys_time", false),
    ] {
        let import = files(&[&rule(condition)]);
        if condition == "ka.verb in ()" || condition == "not ka.verb in ()" {
            let why = if want { Why::Always } else { Why::Never };
            assert_eq!(import.left_out[0].why, why, "{condition}");
            continue;
        }
        if let Some(left) = import.left_out.iter().find(|l| l.why == Why::Never) {
            assert!(!want, "{condition}: {}", left.why);
            continue;
        }
        assert_eq!(judge(&import, &event(&json!({}))), Some(want), "{condition}\n{}", import.rules[0].text);
    }
}

#[test]
fn texts_in_an_object() {
    let import = files(&[&rule(
        "ka.target.resource=configmaps and (ka.req.configmap.obj contains \"secret_key\" or ka.req.configmap.obj contains pass)",
    )]);
    let map = |data: Value| {
        event(&json!({ "objectRef": { "resource": "configmaps", "name": "c" }, "requestObject": { "data": data } }))
    };
    assert_eq!(judge(&import, &map(json!({ "a": "x", "passwords": "y" }))), Some(true));
    assert_eq!(judge(&import, &map(json!({ "a": "x" }))), Some(false));
    let mut hidden = map(json!({}));
    hidden["level"] = json!("Metadata");
    hidden.as_object_mut().unwrap().remove("requestObject");
    assert_eq!(judge(&import, &hidden), None);
}

const BASE: &str = r#"
- required_engine_version: 15
- list: friends
  items: [alice, "carol"]
- list: known
  items: [friends, bob]
- macro: writes
  condition: (ka.verb in (create, update))
- macro: pods
  condition: ka.target.resource=pods
- rule: Strange Writer!
  desc: somebody else writes
  condition: writes and pods and not ka.user.name in (known)
  priority: CRITICAL
  source: k8s_audit
  tags: [k8s, mitre_privilege_escalation, T1098.006]
"#;

#[test]
fn macros_lists_and_what_later_files_change() {
    let dave = event(&json!({ "user": { "username": "dave" } }));
    let alice = event(&json!({}));
    let import = files(&[BASE]);
    assert_eq!((judge(&import, &dave), judge(&import, &alice)), (Some(true), Some(false)));
    let imported = &import.rules[0];
    assert_eq!((imported.id.as_str(), imported.at.to_string().as_str()), ("falco-strange-writer", "0.yaml:11:3"));
    assert!(
        imported.text.contains("level: critical\n")
            && imported.text.contains("tags: [attack.privilege-escalation, attack.t1098.006]")
    );
    for (change, d, a) in [
        ("- list: friends\n  items: [dave]\n  append: true\n", false, false),
        ("- list: friends\n  items: [dave]\n  override: { items: append }\n", false, false),
        ("- list: friends\n  items: [dave]\n", false, true),
        ("- macro: writes\n  condition: ka.verb=patch\n", false, false),
        ("- macro: writes\n  condition: and ka.user.name=alice\n  append: true\n", false, false),
        ("- rule: Strange Writer!\n  condition: and not ka.user.name=dave\n  append: true\n", false, false),
        (
            "- rule: Strange Writer!\n  condition: or ka.user.name=alice\n  override: { condition: append }\n",
            true,
            true,
        ),
        ("- rule: Strange Writer!\n  condition: ka.user.name=alice\n  override: { condition: replace }\n", false, true),
    ] {
        let import = files(&[BASE, change]);
        assert_eq!((judge(&import, &dave), judge(&import, &alice)), (Some(d), Some(a)), "{change}");
    }
    let off = files(&[BASE, "- rule: Strange Writer!\n  enabled: false\n"]);
    assert_eq!(off.left_out[0].why, Why::Disabled);
    let on = files(&[
        BASE,
        "- rule: Strange Writer!\n  enabled: false\n",
        "- rule: Strange Writer!\n  enabled: true\n  override: { enabled: replace }\n",
    ]);
    assert_eq!(judge(&on, &dave), Some(true));
}

#[test]
fn exceptions() {
    let with = |exceptions: &str| format!("{}  exceptions:\n{exceptions}", rule("ka.verb=create"));
    let alice = event(&json!({}));
    for (exceptions, want) in [
        ("  - name: who\n    fields: [ka.user.name, ka.target.namespace]\n    values: [[alice, web]]\n", false),
        (
            "  - name: who\n    fields: [ka.user.name, ka.target.namespace]\n    values: [[alice, db], [bob, web]]\n",
            true,
        ),
        (
            "  - name: who\n    fields: [ka.user.name, ka.target.namespace]\n    comps: [startswith, in]\n    values: [[al, [db, web]]]\n",
            false,
        ),
        ("  - name: who\n    fields: ka.user.name\n    values: [bob, alice]\n", false),
        ("  - name: who\n    fields: ka.user.name\n    comps: startswith\n    values: [bob, ali]\n", false),
        ("  - name: who\n    fields: [ka.user.name]\n", true),
    ] {
        assert_eq!(judge(&files(&[&with(exceptions)]), &alice), Some(want), "{exceptions}");
    }
    let base = with("  - name: who\n    fields: [ka.user.name]\n");
    for more in [
        "- rule: T\n  exceptions:\n  - name: who\n    values: [[alice]]\n  append: true\n",
        "- rule: T\n  exceptions:\n  - name: who\n    values: [[alice]]\n  override: { exceptions: append }\n",
    ] {
        assert_eq!(judge(&files(&[&base, more]), &alice), Some(false), "{more}");
    }
}

#[test]
fn what_cannot_be_translated_is_named() {
    for (condition, want) in [
        ("nobody and ka.verb=get", "there is no macro `nobody` in the files given; give the file that defines it too"),
        ("ka.verb=get and", "condition: expected a field or a macro at the end"),
        ("ka.req.pod.containers.image[0] = x", "reads one element of a list by its number"),
        ("ka.user.groups in (a, b)", "`ka.user.groups in`: asks whether all values"),
        ("ka.user.groups = a", "`ka.user.groups =`: a list takes only"),
        ("ka.req.pod.containers.eff_run_as_user intersects (0)", "no counterpart"),
        ("proc.name = sh", "field `proc.name` is not known"),
        ("jevt.value[/requestObject/metadata/labels/a.b] exists", "a key that holds a dot"),
        ("ka.uri.param[command] = sh", "write a rule on `exec.command`"),
        ("ka.uri regex \"(\"", "our own check refuses the translation"),
    ] {
        let import = files(&[&rule(condition)]);
        assert!(import.is_partial() && import.rules.is_empty(), "{condition}");
        let why = import.left_out[0].why.to_string();
        assert!(why.contains(want), "{condition}: {why}");
    }
    let circle = format!("- macro: a\n  condition: b\n- macro: b\n  condition: a\n{}", rule("a"));
    assert!(files(&[&circle]).left_out[0].why.to_string().contains("refers to itself"));
    let grows = (1..40).map(|i| format!("- macro: m{i}\n  condition: m{} or m{}\n", i - 1, i - 1)).collect::<String>();
    let grows = format!("- macro: m0\n  condition: ka.verb=get\n{grows}{}", rule("m39"));
    assert!(files(&[&grows]).left_out[0].why.to_string().contains("more than"));
    let syscall = files(&["- rule: S\n  desc: d\n  condition: proc.name=sh\n  priority: INFO\n"]);
    assert_eq!((&syscall.left_out[0].why, syscall.is_partial()), (&Why::OtherSource("syscall".into()), false));
}

#[test]
fn a_file_that_is_none_is_refused_with_its_place() {
    for (text, want) in [
        ("a: b\n", "0.yaml:1:1: expected a list of rules, macros and lists"),
        ("- nothing: 1\n", "0.yaml:1:3: expected `rule`, `macro` or `list`"),
        (
            "- rule: T\n  append: true\n  condition: and a\n",
            "0.yaml:1:3: rule `T` is changed before it is written; give its file first",
        ),
        ("- macro: m\n", "0.yaml:1:3: macro `m` has no `condition`"),
    ] {
        let e = import(&[("0.yaml".into(), text.to_owned())]).unwrap_err();
        assert_eq!(e.to_string(), want);
    }
}

#[test]
fn blind_spots_are_told() {
    let blind = |condition: &str| files(&[&rule(condition)]).rules[0].blind.join("\n");
    for (condition, want) in [
        ("ka.target.subresource=exec and ka.verb=create", "only with verb create"),
        ("ka.stage=ResponseStarted and ka.target.subresource=exec", "only at stage ResponseStarted"),
        ("ka.target.subresource=portforward", "names no stage"),
        ("ka.target.resource=pods and ka.verb=create and ka.req.pod.host_pid intersects (true)", "bare pods only"),
        ("ka.verb=create and ka.req.pod.containers.privileged intersects (true)", "containers only"),
        ("ka.req.pod.volumes.hostpath intersects (/etc)", "letter by letter"),
        ("ka.target.resource=roles and ka.verb=create", "create only"),
        ("ka.target.resource=clusterrolebindings and ka.req.binding.role=admin", "ClusterRoleBindings only"),
        ("ka.target.resource=secrets and ka.verb=delete", "does not look at the answer"),
        ("ka.verb=create and not ka.target.name in (coredns)", "by their name"),
        ("ka.verb=create and not ka.useragent startswith kube", "user agent"),
        ("ka.verb=create and not ka.user.name startswith \"system:\"", "by how they begin"),
        ("ka.verb=create and not ka.req.pod.containers.image.repository in (a)", "by their repository"),
    ] {
        assert!(blind(condition).contains(want), "{condition}: {}", blind(condition));
    }
    assert_eq!(blind("ka.stage=ResponseComplete and ka.target.resource=nodes and ka.verb=get"), "");
}
