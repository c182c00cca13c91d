//! Who granted which right to whom, what roles could do before, and whether a grant was used.

use serde::{Deserialize, Serialize};

use super::book::fnv;
use super::{Book, Key, Memory, read, short};
use crate::facts::Facts;

/// Subjects of a binding and holders of a role that are remembered.
const MANY: usize = 32;

/// A binding as it was last written.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Binding {
    pub role: Option<RoleName>,
    /// `None`: not seen.
    pub subjects: Option<Vec<String>>,
    /// What the role gave when it was bound.
    pub powers: Vec<String>,
    /// Who wrote the newest subject.
    pub by: String,
    pub at: i64,
    /// `None`: its creation was not seen.
    pub created: Option<i64>,
    /// First request it allowed.
    pub used: Option<i64>,
    /// Of its name as the API server writes it: `name`, or `name/namespace`.
    pub mark: u64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RoleName {
    pub cluster_wide: bool,
    pub name: String,
}

/// What a role gives.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Role {
    /// Hashes of the single rights, sorted as the rights are; `None`: not known.
    pub rights: Option<Vec<u64>>,
    pub powers: Vec<String>,
    /// Subjects that were bound to it.
    pub holders: Vec<String>,
    /// When it was first bound while nobody had seen it.
    pub prebound: Option<i64>,
}

pub(super) fn binding_key(cluster: &str, cluster_wide: bool, namespace: &str, name: &str) -> Key {
    Key::of(cluster, &[if cluster_wide { "clusterrolebinding" } else { "rolebinding" }, namespace, name])
}

pub(super) fn role_key(cluster: &str, cluster_wide: bool, namespace: &str, name: &str) -> Key {
    let namespace = if cluster_wide { "" } else { namespace };
    Key::of(cluster, &[if cluster_wide { "clusterrole" } else { "role" }, namespace, name])
}

/// Marks of the names of bindings: a cheap no for most requests, which were allowed by a binding that nobody
/// saw written. A mark that stays behind its binding costs a look, no more.
#[derive(Clone, Debug, Default)]
pub struct Marks(foldhash::HashSet<u64>);

impl Marks {
    pub fn of(bindings: &Book<Binding>) -> Self {
        Self(bindings.values().map(|b| b.mark).collect())
    }

    fn add(&mut self, mark: u64, bindings: &Book<Binding>) {
        if self.0.len() > 2 * bindings.len() + MANY {
            *self = Self::of(bindings);
        }
        self.0.insert(mark);
    }
}

/// The binding that allowed the request, by the API server's own sentence.
pub(super) fn used_binding(facts: &Facts<'_>, marks: &Marks) -> Option<Key> {
    let reason = facts.reason().strip_prefix("RBAC: allowed by ")?;
    let mut parts = reason.split('"');
    let kind = parts.next()?.trim_end();
    let name = parts.next().filter(|name| marks.0.contains(&fnv(name)))?;
    match kind {
        "ClusterRoleBinding" => Some(binding_key(facts.cluster, true, "", name)),
        "RoleBinding" => {
            let (name, namespace) = name.split_once('/')?;
            Some(binding_key(facts.cluster, false, namespace, name))
        }
        _ => None,
    }
}

pub(super) fn written_binding(facts: &Facts<'_>) -> Key {
    binding_key(facts.cluster, facts.resource == "clusterrolebindings", facts.namespace, facts.name())
}

pub(super) fn written_role(facts: &Facts<'_>) -> Key {
    role_key(facts.cluster, facts.resource == "clusterroles", facts.namespace, facts.name())
}

/// What a write on a role adds to what it could do.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Gain {
    pub rights: Vec<String>,
    pub powers: Vec<String>,
}

impl Memory {
    /// What the role written here gains; `None` where its former rights or its new ones are not known.
    pub(super) fn gain(&self, facts: &Facts<'_>) -> Option<Gain> {
        let former = self.roles.get(written_role(facts)).and_then(|r| r.rights.as_deref());
        let former = if facts.action == "create" { &[] } else { former? };
        let (now, _) = read::rights(facts)?;
        let new = |i: &usize| !former.contains(&now.hashes[*i]);
        let gained: Vec<usize> = (0..now.names.len()).filter(new).collect();
        let mut powers: Vec<String> = gained.iter().flat_map(|i| &now.powers[*i]).map(|p| (*p).to_owned()).collect();
        powers.sort_unstable();
        powers.dedup();
        Some(Gain { rights: gained.into_iter().map(|i| now.names[i].clone()).collect(), powers })
    }

    /// Subjects that the binding written here did not have before.
    pub(super) fn gained_subjects(&self, facts: &Facts<'_>) -> Option<Vec<String>> {
        let written = facts.rbac().ok().flatten()?;
        let former = self.bindings.get(written_binding(facts)).and_then(|b| b.subjects.as_deref());
        let former = if facts.action == "create" { &[] } else { former? };
        let subjects = written.subjects.iter().take(MANY).map(|s| short(s));
        Some(subjects.filter(|s| !former.contains(s)).collect())
    }

    /// The role that the binding written here gives.
    fn bound_role(&self, facts: &Facts<'_>) -> Option<&Role> {
        let role = self.role_of(facts)?;
        self.roles.get(role_key(facts.cluster, role.cluster_wide, facts.namespace, &role.name))
    }

    /// What the role of the binding written here gives, by its name or as it was written.
    pub(super) fn bound_powers<'m>(&'m self, facts: &'m Facts<'_>) -> Vec<&'m str> {
        let named = facts.rbac().ok().flatten().map_or(&[][..], |r| &r.powers);
        let written = self.bound_role(facts).map_or(&[][..], |r| &r.powers);
        let mut powers: Vec<&str> = named.iter().copied().chain(written.iter().map(String::as_str)).collect();
        powers.sort_unstable();
        powers.dedup();
        powers
    }

    fn role_of(&self, facts: &Facts<'_>) -> Option<RoleName> {
        let written = facts.rbac().ok().flatten();
        let named = written.and_then(|r| Some((r.role.as_ref()?.as_ref().ok()?, r.role_kind.as_deref()?)));
        match named {
            Some((name, kind)) => Some(RoleName { cluster_wide: kind == "ClusterRole", name: short(name) }),
            None => self.bindings.get(written_binding(facts))?.role.clone(),
        }
    }

    pub(super) fn learn_binding(&mut self, facts: &Facts<'_>, now: i64) {
        if facts.name().is_empty() {
            return;
        }
        let role = self.role_of(facts);
        let powers: Vec<String> = self.bound_powers(facts).into_iter().map(str::to_owned).collect();
        let gained = self.gained_subjects(facts);
        let written = facts.rbac().ok().flatten();
        let subjects = written.map(|r| r.subjects.iter().take(MANY).map(|s| short(s)).collect::<Vec<_>>());
        if let (Some(role), Some(subjects)) = (&role, &subjects) {
            self.learn_holders(facts, role, subjects, now);
        }
        let created = facts.action == "create";
        // Controllers write the same binding again and again; only new subjects are a grant.
        let grant = created || gained.is_some_and(|g| !g.is_empty());
        let key = written_binding(facts);
        let whole_name = match facts.resource {
            "rolebindings" => format!("{}/{}", facts.name(), facts.namespace),
            _ => facts.name().to_owned(),
        };
        let mark = fnv(&whole_name);
        if !grant && self.bindings.get(key).is_none() && subjects.is_none() {
            return;
        }
        self.marks.add(mark, &self.bindings);
        self.bindings.change(key, |former| {
            let mut binding = former.filter(|_| !created).unwrap_or_default();
            if grant {
                binding.by = short(facts.actor());
                binding.at = now;
                binding.powers = powers;
            }
            if created {
                binding.created = Some(now);
            }
            binding.mark = mark;
            binding.role = role.or(binding.role);
            binding.subjects = subjects.or(binding.subjects);
            binding
        });
    }

    fn learn_holders(&mut self, facts: &Facts<'_>, role: &RoleName, subjects: &[String], now: i64) {
        let key = role_key(facts.cluster, role.cluster_wide, facts.namespace, &role.name);
        self.roles.change(key, |former| {
            let mut role = former.unwrap_or_else(|| Role { prebound: Some(now), ..Role::default() });
            let new: Vec<String> = subjects.iter().filter(|s| !role.holders.contains(s)).cloned().collect();
            role.holders.extend(new);
            role.holders.truncate(MANY);
            role
        });
    }

    pub(super) fn learn_role(&mut self, facts: &Facts<'_>) {
        let seen = read::rights(facts).filter(|(rights, _)| !rights.too_many);
        let created = facts.action == "create";
        self.roles.change(written_role(facts), |former| {
            let mut role = former.unwrap_or_default();
            let known = if created { Some(Vec::new()) } else { role.rights.take() };
            role.prebound = None;
            (role.rights, role.powers) = match (seen, known) {
                (Some((rights, true)), _) => (Some(rights.hashes.clone()), names(&rights)),
                // Part of the rules: what it had and what is written, so that too little is told rather than too much.
                (Some((rights, false)), Some(mut all)) => {
                    all.extend(&rights.hashes);
                    all.sort_unstable();
                    all.dedup();
                    all.truncate(2 * super::read::MANY);
                    let powers = role.powers.iter().cloned().chain(names(&rights)).collect();
                    (Some(all), powers)
                }
                _ => (None, Vec::new()),
            };
            role.powers.sort_unstable();
            role.powers.dedup();
            role
        });
    }

    pub(super) fn forget_role(&mut self, facts: &Facts<'_>) {
        self.roles.remove(written_role(facts));
    }

    pub(super) fn forget_binding(&mut self, facts: &Facts<'_>) {
        self.bindings.remove(written_binding(facts));
    }

    /// Marks the binding that allowed this request as used.
    pub(super) fn learn_use(&mut self, binding: Option<Key>, now: i64) {
        let Some(key) = binding else { return };
        if self.bindings.get(key).is_some_and(|b| b.used.is_none()) {
            self.bindings.change(key, |former| Binding { used: Some(now), ..former.unwrap_or_default() });
        }
    }
}

fn names(rights: &read::Rights) -> Vec<String> {
    rights.powers.iter().flatten().map(|p| (*p).to_owned()).collect()
}
