//! When admission control was weakened: Pod Security levels, webhooks, policies.

use serde::{Deserialize, Serialize};

use super::{Key, Memory, read, short};
use crate::facts::Facts;

/// A namespace or an object of admission control.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Guard {
    /// As [`read::strictness`] tells it.
    pub strictness: Option<u8>,
    pub weakened: Option<Weakened>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Weakened {
    pub at: i64,
    pub by: String,
    /// `resource name`
    pub what: String,
}

pub(super) fn guards(resource: &str) -> bool {
    resource == "namespaces" || is_cluster_wide(resource)
}

fn is_cluster_wide(resource: &str) -> bool {
    matches!(
        resource,
        "validatingwebhookconfigurations"
            | "mutatingwebhookconfigurations"
            | "validatingadmissionpolicies"
            | "validatingadmissionpolicybindings"
    )
}

fn key(cluster: &str, resource: &str, name: &str) -> Key {
    Key::of(cluster, &["guard", resource, name])
}

impl Memory {
    /// The newest weakening of what guards `namespace`.
    pub(super) fn weakened(&self, cluster: &str, namespace: &str) -> Option<&Weakened> {
        let of = |resource, name| self.guards.get(key(cluster, resource, name)).and_then(|g| g.weakened.as_ref());
        of("namespaces", namespace).into_iter().chain(of("", "")).max_by_key(|w| w.at)
    }

    pub(super) fn learn_guard(&mut self, facts: &Facts<'_>, now: i64) {
        let key = key(facts.cluster, facts.resource, facts.name());
        let Some(new) = read::strictness(facts).filter(|_| !facts.name().is_empty()) else { return };
        let created = facts.action == "create";
        let former = self.guards.get(key).filter(|_| !created);
        let weaker = match former.and_then(|g| g.strictness) {
            Some(former) => new < former,
            // What a patch sets to nothing was more before.
            None => !created && new == 0 && &*facts.event.verb == "patch",
        };
        let weakened = weaker.then(|| weakened(facts, now)).or_else(|| former.and_then(|g| g.weakened.clone()));
        self.guards.put(key, Guard { strictness: Some(new), weakened });
        if weaker && is_cluster_wide(facts.resource) {
            self.weaken_all(facts, now);
        }
    }

    pub(super) fn learn_guard_gone(&mut self, facts: &Facts<'_>, now: i64) {
        self.guards.remove(key(facts.cluster, facts.resource, facts.name()));
        if is_cluster_wide(facts.resource) {
            self.weaken_all(facts, now);
        }
    }

    fn weaken_all(&mut self, facts: &Facts<'_>, now: i64) {
        let weakened = Some(weakened(facts, now));
        self.guards.put(key(facts.cluster, "", ""), Guard { strictness: None, weakened });
    }
}

fn weakened(facts: &Facts<'_>, now: i64) -> Weakened {
    let what = format!("{} {}", facts.resource, facts.name());
    Weakened { at: now, by: short(facts.actor()), what: short(what.trim()) }
}
