//! What workloads and quotas were before, and what an actor was refused.

use serde::{Deserialize, Serialize};

use super::{Key, Memory, read, short};
use crate::facts::Facts;

/// Images and limits of one object that are remembered.
const MANY: usize = 16;

/// An object as it was last written.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Former {
    pub images: Vec<String>,
    pub registries: Vec<String>,
    pub service_account: Option<String>,
    pub replicas: Option<i64>,
    /// Hard limits of a quota: name and thousandths.
    pub limits: Option<Vec<(String, i64)>>,
}

/// A workload that admission refused.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Refused {
    pub at: i64,
    pub namespace: String,
}

/// Kinds whose former state is worth its place. What controllers make from templates is not.
pub(super) fn is_kept(resource: &str) -> bool {
    matches!(
        resource,
        "deployments" | "daemonsets" | "statefulsets" | "cronjobs" | "horizontalpodautoscalers" | "resourcequotas"
    )
}

pub(super) fn denial_key(facts: &Facts<'_>) -> Key {
    let (action, actor) = (facts.action, facts.actor());
    Key::of(facts.cluster, &["denial", actor, action, facts.resource, facts.subresource, facts.namespace])
}

/// Under which names the workload of this request would be found again: its own and its images'.
fn likenesses(facts: &Facts<'_>) -> Vec<Key> {
    let images = match facts.workload() {
        Ok(Some(workload)) => workload.images.as_slice(),
        // Its name is told all the same.
        Err(_) => &[],
        Ok(None) => return Vec::new(),
    };
    let key = |kind, name| Key::of(facts.cluster, &[kind, facts.actor(), name]);
    let name = Some(facts.name()).filter(|n| !n.is_empty()).map(|n| key("name", n));
    name.into_iter().chain(images.iter().take(MANY).map(|i| key("image", i))).collect()
}

impl Memory {
    /// The newest refusal of a workload like the one written here.
    pub(super) fn refused(&self, facts: &Facts<'_>) -> Option<&Refused> {
        if self.rejections.is_empty() {
            return None;
        }
        likenesses(facts).into_iter().filter_map(|key| self.rejections.get(key)).max_by_key(|r| r.at)
    }

    pub(super) fn learn_rejection(&mut self, facts: &Facts<'_>, now: i64) {
        for key in likenesses(facts) {
            self.rejections.put(key, Refused { at: now, namespace: short(facts.namespace) });
        }
    }

    pub(super) fn former(&self, facts: &Facts<'_>) -> Option<&Former> {
        self.formers.get(Self::object_key(facts)).filter(|_| facts.action != "create")
    }

    /// Limits of the quota written here that it raises or drops.
    pub(super) fn raised(&self, facts: &Facts<'_>) -> Option<Vec<&str>> {
        let former = self.former(facts)?.limits.as_ref()?;
        let (limits, all) = read::limits(facts)?;
        let raised = |name: &str, had: i64| match limits.iter().find(|(n, _)| n == name) {
            Some((_, now)) => *now > had,
            None => all,
        };
        Some(former.iter().filter(|(name, had)| raised(name, *had)).map(|(name, _)| name.as_str()).collect())
    }

    pub(super) fn learn_former(&mut self, facts: &Facts<'_>) {
        if facts.name().is_empty() || !matches!(facts.action, "create" | "update" | "patch" | "scale") {
            return;
        }
        let whole = if facts.action == "scale" { None } else { read::workload(facts) };
        let part = facts.workload().ok().flatten();
        let replicas = read::replicas(facts);
        let limits = read::limits(facts);
        let key = Self::object_key(facts);
        if whole.is_none() && part.is_none() && replicas.is_none() && limits.is_none() {
            return;
        }
        self.formers.change(key, |former| {
            let mut former = former.filter(|_| facts.action != "create").unwrap_or_default();
            if let Some(now) = whole.as_ref().or(part) {
                if !now.images.is_empty() {
                    former.images = now.images.iter().take(MANY).map(|i| short(i)).collect();
                    former.registries = now.registries.iter().take(MANY).map(|r| short(r)).collect();
                }
                former.service_account = now.service_account.as_deref().map(short).or(former.service_account);
            }
            former.replicas = replicas.or(former.replicas);
            former.limits = match (limits, former.limits) {
                (Some((limits, true)), _) | (Some((limits, false)), None) => Some(limits),
                (Some((limits, false)), Some(mut had)) => {
                    had.retain(|(name, _)| !limits.iter().any(|(n, _)| n == name));
                    had.extend(limits);
                    Some(had)
                }
                (None, had) => had,
            };
            if let Some(limits) = &mut former.limits {
                limits.truncate(MANY);
            }
            former
        });
    }

    pub(super) fn forget_former(&mut self, facts: &Facts<'_>) {
        self.formers.remove(Self::object_key(facts));
    }
}
