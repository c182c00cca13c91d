//! Whether a filter rests on what nobody can lend or choose.
//!
//! A filter is the way past a rule. It has to say who is left out: by an exact name, which for a service account is
//! namespace and account, for everybody else name and credential, group or network. What a request says of itself
//! (client, names, labels, images, commands) narrows a filter and never carries it.

use lapwing_engine::field::Field;
use lapwing_engine::rule::expr::{Item, Test};

use super::parts::Part;

/// What the sender of a request writes as they like.
const CHOSEN: [&str; 12] = [
    "userAgent",
    "client.family",
    "client.version",
    "client.claims",
    "auditID",
    "requestURI",
    "target.name",
    "objectRef.name",
    "target.labels",
    "target.annotations",
    "exec.",
    "proxy.",
];

/// Bodies are chosen as well.
const BODIES: [&str; 7] =
    ["requestObject", "responseObject", "workload.", "rbac.", "csr.", "config.", "target.managers"];

/// What a caller cannot bring along beside a name.
const PROOF: [&str; 8] = [
    "credential.",
    "client.address",
    "client.network",
    "actor.cloud_identity",
    "actor.groups",
    "user.groups",
    "user.extra.",
    "actor.admin",
];

/// What is wrong with a filter, per alternative.
pub fn check(part: &Part<'_>) -> Vec<String> {
    let mut found: Vec<String> = alternatives(part).iter().filter_map(|items| alternative(items)).collect();
    found.dedup();
    found
}

/// More alternatives than this are looked at in part.
const MOST: usize = 256;

/// The items of each way to meet the part. What a `not` asks only makes it narrower.
fn alternatives<'r>(part: &Part<'r>) -> Vec<Vec<&'r Item<Field>>> {
    match part {
        Part::Item(item) => vec![vec![item]],
        Part::Any(parts) => parts.iter().flat_map(alternatives).take(MOST).collect(),
        Part::All(parts) => parts.iter().fold(vec![Vec::new()], |sofar, part| {
            let more = alternatives(part);
            let joined = sofar.iter().flat_map(|a| more.iter().map(move |b| [a.as_slice(), b.as_slice()].concat()));
            joined.take(MOST).collect()
        }),
        Part::Not(_) | Part::Keywords => vec![Vec::new()],
    }
}

fn alternative(items: &[&Item<Field>]) -> Option<String> {
    let named = |names: &[&str]| {
        items.iter().map(|i| i.key.name()).find(|n| names.iter().any(|w| matches(n, w))).map(|n| n.into_owned())
    };
    let exact = |names: &[&str]| items.iter().any(|i| names.iter().any(|n| i.key.name() == *n) && is_exact(i));
    let account = exact(&["actor.serviceaccount"]) && exact(&["actor.namespace"]);
    let name = exact(&["actor.name", "user.username"]);
    let proof = named(&PROOF).is_some();
    if account || name || (proof && named(&["actor.kind"]).is_some()) {
        return None;
    }
    if let Some(field) = named(&["actor.name", "user.username", "actor.serviceaccount", "actor.namespace"]) {
        return (!proof).then(|| {
            format!(
                "it leaves out whoever `{field}` fits, and nothing else proves who it is; name the account with its \
                 namespace, or add the credential, a group or the network"
            )
        });
    }
    let chosen = named(&CHOSEN).or_else(|| named(&BODIES))?;
    (!proof).then(|| format!("it leaves out by `{chosen}`, which the sender of a request chooses; add who it is"))
}

/// `name` is `wanted`, or below it where `wanted` ends with a dot or opens a body.
fn matches(name: &str, wanted: &str) -> bool {
    name == wanted || (wanted.ends_with('.') || BODIES.contains(&wanted)) && name.starts_with(wanted)
}

/// Whole values only, none of them a pattern.
fn is_exact(item: &Item<Field>) -> bool {
    !item.negated && matches!(&item.test, Test::One(matcher) if matcher.exact_texts().is_some_and(|t| !t.is_empty()))
}
