//! What memory reads from bodies that the other facts do not hold. The only file here that knows their form.

use super::book::Key;
use super::short;
use crate::facts::{self, Facts};
use crate::tree::Tree;

/// Names, rights or limits of one object that are looked at.
pub const MANY: usize = 128;

fn object<'f, 'e>(body: &'f facts::Body<'e>) -> Option<&'f Tree<'e>> {
    body.as_ref().ok()?.as_ref().filter(|o| text(o, &["kind"]) != Some("Status"))
}

fn text<'v>(v: &'v Tree<'_>, path: &[&str]) -> Option<&'v str> {
    v.at(path).and_then(Tree::as_str).filter(|t| !t.is_empty())
}

fn each<'v, 'e>(v: &'v Tree<'e>, path: &[&str]) -> impl Iterator<Item = &'v Tree<'e>> {
    v.at(path).and_then(Tree::as_list).into_iter().flatten()
}

fn texts<'v>(v: &'v Tree<'_>, key: &str) -> Vec<&'v str> {
    v.each(key).filter_map(Tree::as_str).take(MANY).collect()
}

/// The object as it is after the request: the answer, else the body of a request that writes all of it.
fn whole<'f, 'e>(facts: &'f Facts<'e>) -> Option<&'f Tree<'e>> {
    object(facts.answered()).or_else(|| {
        let all = matches!(&*facts.event.verb, "create" | "update");
        all.then(|| object(facts.written())).flatten()
    })
}

/// Uid of the target, where the event tells it.
pub fn uid(facts: &Facts<'_>) -> String {
    let named = facts.event.object_ref.as_ref().map_or("", |o| &*o.uid);
    let told = if named.is_empty() { &*facts.head().uid } else { named };
    if !told.is_empty() {
        return short(told);
    }
    let asked = object(facts.written()).and_then(|o| text(o, &["preconditions", "uid"]));
    short(asked.unwrap_or_default())
}

/// Service account of the pod that the answer shows, where a default was filled in.
pub fn service_account(facts: &Facts<'_>) -> Option<String> {
    let name = facts.answered_service_account();
    (!name.is_empty()).then(|| short(&name))
}

/// Claims that the pod spec of this request mounts.
pub fn claims(facts: &Facts<'_>) -> Vec<String> {
    let Some(object) = object(facts.written()) else { return Vec::new() };
    let volumes: [&[&str]; 3] = [
        &["spec", "volumes"],
        &["spec", "template", "spec", "volumes"],
        &["spec", "jobTemplate", "spec", "template", "spec", "volumes"],
    ];
    let all = volumes.iter().flat_map(|at| each(object, at));
    all.filter_map(|v| text(v, &["persistentVolumeClaim", "claimName"])).take(MANY).map(short).collect()
}

/// Pods that an answer to `deletecollection` names: name and uid.
pub fn listed(facts: &Facts<'_>) -> Vec<(String, String)> {
    let Some(list) = object(facts.answered()) else { return Vec::new() };
    let pod =
        |p| Some((short(text(p, &["metadata", "name"])?), short(text(p, &["metadata", "uid"]).unwrap_or_default())));
    each(list, &["items"]).filter_map(pod).take(1000).collect()
}

/// When the deleted pod ends, microseconds: now and its grace.
pub fn ends(facts: &Facts<'_>, now: i64) -> i64 {
    const GRACE: i64 = 30;
    let asked = || object(facts.written()).and_then(|o| o.get("gracePeriodSeconds")).and_then(Tree::as_i64);
    let told = facts.head().deletion_grace_period_seconds.or_else(asked);
    let default = if facts.actor_kind == "node" { 0 } else { GRACE };
    now.saturating_add(told.unwrap_or(default).clamp(0, 86_400) * 1_000_000)
}

/// Where k3s keeps ordinary volumes, below a directory that is else none of a pod's business.
const K3S_STORAGE: &str = "/var/lib/rancher/k3s/storage/";

/// Sensitive path on the node of a PersistentVolume, and the claim it is bound to (namespace, name).
pub fn volume(facts: &Facts<'_>) -> (Option<String>, Option<(String, String)>) {
    let Some(object) = whole(facts).or_else(|| object(facts.written())) else { return (None, None) };
    let path = text(object, &["spec", "hostPath", "path"]).or_else(|| text(object, &["spec", "local", "path"]));
    let claim = text(object, &["spec", "claimRef", "namespace"]).zip(text(object, &["spec", "claimRef", "name"]));
    let path = path.filter(|p| facts::is_sensitive(p) && (!p.starts_with(K3S_STORAGE) || p.contains("..")));
    (path.map(short), claim.map(|(ns, name)| (short(ns), short(name))))
}

/// The volume that a PersistentVolumeClaim names.
pub fn claimed_volume(facts: &Facts<'_>) -> Option<String> {
    text(whole(facts).or_else(|| object(facts.written()))?, &["spec", "volumeName"]).map(short)
}

/// The rules of a role as single rights.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Rights {
    /// `verb resource.group`, `verb resource.group/name` or `verb /url`, sorted.
    pub names: Vec<String>,
    /// [`Key::half`] of each.
    pub hashes: Vec<u64>,
    /// What each gives, as `rbac.powers` calls it.
    pub powers: Vec<Vec<&'static str>>,
    /// There are more than are looked at.
    pub too_many: bool,
}

/// The rights a role is written with, and whether these are all it has.
pub fn rights(facts: &Facts<'_>) -> Option<(Rights, bool)> {
    let after = whole(facts);
    let object = after.or_else(|| object(facts.written()))?;
    // A patch that writes the list writes all of it; one that writes an element does not say so.
    (after.is_some() || object.get("rules").is_some()).then(|| (rights_of(object), after.is_some()))
}

fn rights_of(role: &Tree<'_>) -> Rights {
    let mut rights = Rights::default();
    let mut all: Vec<_> = each(role, &["rules"]).flat_map(rights_of_rule).take(MANY + 1).collect();
    rights.too_many = all.len() > MANY;
    all.truncate(MANY);
    all.sort_unstable();
    all.dedup();
    for (name, powers) in all {
        rights.hashes.push(Key::of("", &[&name]).half());
        rights.names.push(short(&name));
        rights.powers.push(powers);
    }
    rights
}

/// Lazily, for three lists of a thousand make a thousand million.
fn rights_of_rule(rule: &Tree<'_>) -> impl Iterator<Item = (String, Vec<&'static str>)> {
    let (groups, resources, names) = (texts(rule, "apiGroups"), texts(rule, "resources"), texts(rule, "resourceNames"));
    let urls = texts(rule, "nonResourceURLs");
    texts(rule, "verbs").into_iter().flat_map(move |verb| {
        let (groups, names) = (groups.clone(), names.clone());
        let on_url = urls.clone().into_iter().map(move |url| (format!("{verb} {url}"), Vec::new()));
        let on_resource = resources.clone().into_iter().flat_map(move |resource| {
            let names = names.clone();
            groups.clone().into_iter().flat_map(move |group| {
                let dot = if group.is_empty() { "" } else { "." };
                let kind = format!("{verb} {resource}{dot}{group}");
                let powers = facts::powers_of_right(verb, resource, group);
                let named: Vec<String> = names.iter().map(|n| format!("{kind}/{n}")).collect();
                let rights = if named.is_empty() { vec![kind] } else { named };
                rights.into_iter().map(move |r| (r, powers.clone()))
            })
        });
        on_url.chain(on_resource)
    })
}

/// Whether an approval says yes; `None` where the body is not there.
pub fn approves(facts: &Facts<'_>) -> Option<bool> {
    let object = object(facts.answered()).or_else(|| object(facts.written()))?;
    Some(each(object, &["status", "conditions"]).any(|c| text(c, &["type"]) == Some("Approved")))
}

/// How much an object of admission control stops: for a namespace 0 to 2 (its Pod Security level), for
/// webhooks how many refuse when they fail, for policies whether they deny. `None`: not told.
pub fn strictness(facts: &Facts<'_>) -> Option<u8> {
    let whole = whole(facts);
    let object = whole.or_else(|| object(facts.written()))?;
    match facts.resource {
        "namespaces" => match object.at(&["metadata", "labels", "pod-security.kubernetes.io/enforce"]) {
            Some(level) => Some(match level.as_str() {
                Some("restricted") => 2,
                Some("baseline") => 1,
                _ => 0,
            }),
            None => whole.map(|_| 0),
        },
        "validatingadmissionpolicybindings" => {
            let actions = object.at(&["spec", "validationActions"]).and_then(Tree::as_list)?;
            Some(u8::from(actions.iter().any(|a| a.as_str() == Some("Deny"))))
        }
        _ => {
            let hooks: Vec<&Tree<'_>> = each(object, &["webhooks"]).collect();
            let policies =
                hooks.iter().map(|h| text(h, &["failurePolicy"])).chain([text(object, &["spec", "failurePolicy"])]);
            let ignored = policies.flatten().filter(|p| *p == "Ignore").count();
            let known = whole.is_some() || ignored > 0;
            let stops = if object.get("webhooks").is_some() { hooks.len() } else { 1 };
            known.then(|| u8::try_from(stops.saturating_sub(ignored)).unwrap_or(u8::MAX))
        }
    }
}

/// Replicas that are written: of a workload, its scale or its autoscaler.
pub fn replicas(facts: &Facts<'_>) -> Option<i64> {
    let object = object(facts.written())?;
    let wanted = object.at(&["spec", "replicas"]).or_else(|| object.at(&["spec", "maxReplicas"]));
    wanted.and_then(Tree::as_i64)
}

/// What is left of a workload after the request: its images and its service account.
pub fn workload(facts: &Facts<'_>) -> Option<facts::Workload> {
    facts::workload_of(facts.resource, whole(facts)?)
}

/// The hard limits of a ResourceQuota: name and amount in thousandths; and whether these are all.
pub fn limits(facts: &Facts<'_>) -> Option<(Vec<(String, i64)>, bool)> {
    let after = whole(facts);
    let object = after.or_else(|| object(facts.written()))?;
    let hard = object.at(&["spec", "hard"]).and_then(Tree::as_object)?;
    let amount = |v: &Tree<'_>| v.as_str().map_or_else(|| v.as_i64().map(|n| n.saturating_mul(1000)), quantity);
    let limits = hard.iter().filter_map(|(name, v)| Some((short(name), amount(v)?))).take(MANY);
    Some((limits.collect(), after.is_some()))
}

/// A Kubernetes quantity in thousandths, as far as they go: `500m`, `2`, `4Gi`, `1e3`.
fn quantity(text: &str) -> Option<i64> {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, suffix) = text.split_at(end);
    let (whole, part) = number.split_once('.').unwrap_or((number, ""));
    let part: String = part.chars().chain("000".chars()).take(3).collect();
    let thousandths = whole.parse::<i128>().ok()?.checked_mul(1000)?.checked_add(part.parse().ok()?)?;
    let factor: i128 = match suffix {
        "m" => return i64::try_from(thousandths / 1000).ok(),
        "" => 1,
        "k" => 1000,
        "M" => 1_000_000,
        "G" => 1_000_000_000,
        "T" => 1_000_000_000_000,
        "P" => 1_000_000_000_000_000,
        "E" => 1_000_000_000_000_000_000,
        "Ki" => 1 << 10,
        "Mi" => 1 << 20,
        "Gi" => 1 << 30,
        "Ti" => 1 << 40,
        "Pi" => 1 << 50,
        "Ei" => 1 << 60,
        exponent => 10i128.checked_pow(exponent.strip_prefix(['e', 'E'])?.parse().ok()?)?,
    };
    Some(i64::try_from(thousandths.checked_mul(factor)?).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn tree(value: serde_json::Value) -> Tree<'static> {
        Tree::from(value)
    }

    #[test]
    fn quantities() {
        for (text, expected) in [
            ("2", Some(2000)),
            ("500m", Some(500)),
            ("1.5", Some(1500)),
            ("1k", Some(1_000_000)),
            ("2Ki", Some(2_048_000)),
            ("1e3", Some(1_000_000)),
            ("8Ei", Some(i64::MAX)),
            ("1e99", None),
            ("", None),
            ("-1", None),
            ("many", None),
        ] {
            assert_eq!(quantity(text), expected, "{text}");
        }
    }

    #[test]
    fn rights_are_single_bounded_and_ordered() {
        let role = json!({"rules": [
            {"apiGroups": ["", "apps"], "resources": ["deployments"], "verbs": ["patch"]},
            {"apiGroups": [""], "resources": ["secrets"], "resourceNames": ["a"], "verbs": ["get"]},
            {"nonResourceURLs": ["/metrics"], "verbs": ["get"]}]});
        let rights = rights_of(&tree(role));
        assert_eq!(rights.names, ["get /metrics", "get secrets/a", "patch deployments", "patch deployments.apps"]);
        assert_eq!(rights.powers[1], ["secrets-read"]);
        assert!(!rights.too_many);
        let many: Vec<String> = (0..10_000).map(|i| format!("r{i}")).collect();
        let rights = rights_of(&tree(json!({"rules": [{"apiGroups": many, "resources": many, "verbs": many}]})));
        assert!(rights.too_many && rights.names.len() == MANY);
    }
}
