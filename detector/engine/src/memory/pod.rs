//! What pods can do, who made them, and when they ended.

use serde::{Deserialize, Serialize};

use super::{Key, Memory, read, short};
use crate::facts::{self, Facts, Workload};

/// A pod as far as it was seen.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Pod {
    pub uid: String,
    /// Bits of [`POWERS`]; `None`: its spec was not seen.
    pub powers: Option<u8>,
    pub service_account: Option<String>,
    /// Empty when the creation was not seen.
    pub creator: String,
    pub created: Option<i64>,
    /// When it ends or ended.
    pub ends: Option<i64>,
}

/// What lets somebody inside a pod out of it.
pub const POWERS: [&str; 6] = ["privileged", "host-pid", "host-ipc", "host-network", "host-path", "capabilities"];

/// Capabilities that give the node, or another container's memory.
const DANGEROUS: [&str; 8] =
    ["ALL", "SYS_ADMIN", "SYS_PTRACE", "SYS_MODULE", "SYS_RAWIO", "DAC_READ_SEARCH", "BPF", "SYS_BOOT"];

pub(super) fn key(cluster: &str, namespace: &str, name: &str) -> Key {
    Key::of(cluster, &["pod", namespace, name])
}

/// Of the pod that the credential of this request is bound to.
pub(super) fn of_credential(facts: &Facts<'_>) -> Option<Key> {
    let (name, _) = facts.credential_pod();
    let (namespace, _) = facts::service_account(facts.actor()).filter(|_| !name.is_empty())?;
    Some(key(facts.cluster, namespace, name))
}

fn volume_key(cluster: &str, name: &str) -> Key {
    Key::of(cluster, &["volume", name])
}

pub(super) fn claim_key(cluster: &str, namespace: &str, name: &str) -> Key {
    Key::of(cluster, &["claim", namespace, name])
}

fn powers(w: &Workload, claims_host_path: bool) -> u8 {
    let capable = w.capabilities.iter().any(|c| DANGEROUS.contains(&c.as_str()));
    let host_path = claims_host_path || !w.sensitive_host_paths.is_empty();
    [w.privileged, w.host_pid, w.host_ipc, w.host_network, host_path, capable]
        .iter()
        .enumerate()
        .fold(0, |bits, (i, held)| bits | u8::from(*held) << i)
}

/// The names of powers.
pub fn names(powers: u8) -> impl Iterator<Item = &'static str> {
    POWERS.iter().enumerate().filter(move |(i, _)| powers >> i & 1 == 1).map(|(_, name)| *name)
}

impl Memory {
    /// Sensitive paths on the node that the pod spec of this request reaches through claims.
    pub(super) fn claimed_paths<'m>(&'m self, facts: &Facts<'_>) -> Vec<&'m str> {
        if self.claims.is_empty() || !matches!(facts.workload(), Ok(Some(_))) {
            return Vec::new();
        }
        let path = |claim: &String| self.claims.get(claim_key(facts.cluster, facts.namespace, claim));
        read::claims(facts).iter().filter_map(path).map(String::as_str).collect()
    }

    pub(super) fn learn_pod(&mut self, facts: &Facts<'_>, now: i64) {
        // The API server ignores a spec sent to `status`.
        let writes = matches!(facts.action, "create" | "update" | "patch" | "debug" | "bind");
        if !writes || facts.subresource == "status" || facts.name().is_empty() {
            return;
        }
        let key = key(facts.cluster, facts.namespace, facts.name());
        let claims_host_path = !self.claimed_paths(facts).is_empty();
        let seen = facts.workload().ok().flatten();
        let seen_powers = seen.map(|w| powers(w, claims_host_path));
        let service_account = seen.and_then(|w| w.service_account.as_deref().map(short));
        if facts.action == "create" {
            let service_account = service_account.or_else(|| read::service_account(facts));
            let (uid, creator) = (read::uid(facts), short(facts.actor()));
            let pod = Pod { uid, powers: seen_powers, service_account, creator, created: Some(now), ends: None };
            self.pods.put(key, pod);
            return;
        }
        self.pods.change(key, |former| {
            let mut pod = former.unwrap_or_default();
            if pod.uid.is_empty() {
                pod.uid = read::uid(facts);
            }
            // What was given is not taken back: a pod's spec cannot lose power.
            pod.powers = match (pod.powers, seen_powers) {
                (Some(a), Some(b)) => Some(a | b),
                // A debug container with power makes the pod powerful; one without says nothing of the rest.
                (None, Some(b)) => (b != 0).then_some(b),
                (a, None) => a,
            };
            pod.service_account = service_account.or(pod.service_account);
            pod
        });
    }

    pub(super) fn learn_end(&mut self, facts: &Facts<'_>, now: i64) {
        let ends = read::ends(facts, now);
        let mut ended = |name: &str, uid: String| {
            self.pods.change(key(facts.cluster, facts.namespace, name), |former| {
                // Another pod took the name: its predecessor's end is not its own.
                let same = |p: &Pod| uid.is_empty() || p.uid.is_empty() || p.uid == uid;
                let pod = former.filter(same).unwrap_or_default();
                let uid = if uid.is_empty() { pod.uid.clone() } else { uid };
                Pod { uid, ends: Some(pod.ends.unwrap_or(ends).min(ends)), ..pod }
            });
        };
        if facts.action == "deletecollection" {
            read::listed(facts).into_iter().for_each(|(name, uid)| ended(&name, uid));
        } else if !facts.name().is_empty() {
            ended(facts.name(), read::uid(facts));
        }
    }

    pub(super) fn learn_volume(&mut self, facts: &Facts<'_>) {
        let name = facts.name();
        if facts.resource == "persistentvolumeclaims" {
            let Some(volume) = read::claimed_volume(facts) else { return };
            let path = self.volumes.get(volume_key(facts.cluster, &volume)).cloned();
            if let Some(path) = path {
                self.claims.put(claim_key(facts.cluster, facts.namespace, name), path);
            }
            return;
        }
        let (path, claim) = read::volume(facts);
        let key = volume_key(facts.cluster, name);
        if let Some(path) = path {
            self.volumes.put(key, path);
        }
        if let (Some((namespace, claim)), Some(path)) = (claim, self.volumes.get(key).cloned()) {
            self.claims.put(claim_key(facts.cluster, &namespace, &claim), path);
        }
    }
}
