//! An event as rules see it: its facts, and what is remembered of what it is about.

use std::cell::OnceCell;

use super::credential::{self, Certificate, Credential};
use super::grant::{self, Binding, Gain};
use super::{Key, Memory, former, pod, seconds, short};
use crate::facts::{self, Facts};
use crate::field::Field;
use crate::rule::index::carried;
use crate::rule::view::{Elements, Scalar, Values, View};

/// Facts and memory together. Nothing is looked up before a rule asks, but for what the index needs.
#[derive(Debug)]
pub struct Sight<'s, 'e> {
    pub facts: &'s Facts<'e>,
    memory: &'s Memory,
    now: i64,
    places: OnceCell<Places>,
    credential: OnceCell<Option<&'s Credential>>,
    binding: OnceCell<Option<&'s Binding>>,
    pod: OnceCell<Option<&'s pod::Pod>>,
    gain: OnceCell<Option<Gain>>,
    gained_subjects: OnceCell<Option<Vec<String>>>,
}

fn text(s: &str) -> Values<'_> {
    if s.is_empty() { Values::Absent } else { Values::One(Scalar::Str(s)) }
}

fn maybe<'a>(s: Option<&'a String>) -> Values<'a> {
    s.map_or(Values::Absent, |s| text(s))
}

fn number(n: Option<i64>) -> Values<'static> {
    n.map_or(Values::Absent, |n| Values::One(Scalar::Int(n)))
}

fn truth(b: Option<bool>) -> Values<'static> {
    b.map_or(Values::Absent, |b| Values::One(Scalar::Bool(b)))
}

/// There, even when nothing is in it: what is remembered to be empty is known.
fn list<'a>(items: Option<impl IntoIterator<Item = &'a str>>) -> Values<'a> {
    items.map_or(Values::Absent, |items| Values::Many(items.into_iter().map(Scalar::Str).collect()))
}

fn some(items: &[String]) -> Values<'_> {
    strings_if(items.iter().map(String::as_str).collect())
}

fn strings_if(items: Vec<&str>) -> Values<'_> {
    if items.is_empty() { Values::Absent } else { list(Some(items)) }
}

/// Keys that every event needs, made once.
#[derive(Clone, Copy, Debug, Default)]
pub struct Places {
    pub credential: Option<Key>,
    pub binding: Option<Key>,
}

impl<'s, 'e> Sight<'s, 'e> {
    pub fn new(facts: &'s Facts<'e>, memory: &'s Memory) -> Self {
        Self {
            facts,
            memory,
            now: facts.time().unwrap_or_default(),
            places: OnceCell::new(),
            credential: OnceCell::new(),
            binding: OnceCell::new(),
            pod: OnceCell::new(),
            gain: OnceCell::new(),
            gained_subjects: OnceCell::new(),
        }
    }

    /// Where the credential and the binding of this request are remembered.
    pub fn places(&self) -> Places {
        *self.places.get_or_init(|| Places {
            credential: credential::watched(self.facts).map(|id| credential::key(self.facts.cluster, id)),
            binding: grant::used_binding(self.facts, &self.memory.marks),
        })
    }

    /// What of the past the event carries, as bits of [`carried`].
    pub fn carried(&self) -> u16 {
        let held = [(self.is_remarkable(), carried::CREDENTIAL), (self.binding().is_some(), carried::GRANT)];
        held.iter().filter(|(held, _)| *held).fold(0, |bits, (_, bit)| bits | bit)
    }

    /// Anything but a credential that is used as always and belongs to a pod that lives.
    fn is_remarkable(&self) -> bool {
        if self.places().credential.is_none() {
            return false;
        }
        let Some(known) = self.credential() else { return self.certificate().is_some() };
        known.first.is_none()
            || known.issued.as_ref().is_some_and(|i| i.kind == "human" || i.kind == "serviceaccount")
            || Credential::is_new(&known.addresses, self.facts.address()) == Some(true)
            || Credential::is_new(&known.clients, self.facts.client().0) == Some(true)
            || self.pod_ended().is_some()
    }

    fn credential(&self) -> Option<&'s Credential> {
        *self.credential.get_or_init(|| self.memory.credentials.get(self.places().credential?))
    }

    fn certificate(&self) -> Option<&'s Certificate> {
        let id = self.facts.credential_id();
        if self.memory.certificates.is_empty() || !id.starts_with("X509SHA256=") {
            return None;
        }
        self.memory.certificates.get(credential::certificate_key(self.facts.cluster, &short(self.facts.actor())))
    }

    fn binding(&self) -> Option<&'s Binding> {
        *self.binding.get_or_init(|| {
            let known = self.memory.bindings.get(self.places().binding?)?;
            (!known.by.is_empty()).then_some(known)
        })
    }

    fn pod(&self) -> Option<&'s pod::Pod> {
        *self.pod.get_or_init(|| {
            let facts = self.facts;
            let entered = facts.resource == "pods" && facts.action != "create" && !facts.name().is_empty();
            let pod = || self.memory.pods.get(pod::key(facts.cluster, facts.namespace, facts.name()));
            if entered { pod() } else { None }
        })
    }

    /// When the pod ended that the credential is bound to. Pods of one name follow each other: the uid
    /// tells them apart, else a token that was used before the end belongs to the one that ended.
    fn pod_ended(&self) -> Option<i64> {
        let (name, uid) = self.facts.credential_pod();
        let known = || self.credential().and_then(|c| c.pod).or_else(|| pod::of_credential(self.facts));
        let pod = self.memory.pods.get(if name.is_empty() { None } else { known() }?)?;
        let used_before = |end: i64| self.credential()?.first.filter(|first| *first < end).map(|_| end);
        if uid.is_empty() || pod.uid.is_empty() {
            return used_before(pod.ends?);
        }
        if uid == pod.uid { pod.ends } else { used_before(pod.created?) }
    }

    fn gain(&self) -> Option<&Gain> {
        let written = || matches!(self.facts.resource, "roles" | "clusterroles") && self.facts.action_type == "write";
        self.gain.get_or_init(|| if written() { self.memory.gain(self.facts) } else { None }).as_ref()
    }

    fn gained_subjects(&self) -> Option<&Vec<String>> {
        self.gained_subjects.get_or_init(|| self.memory.gained_subjects(self.facts)).as_ref()
    }

    fn ago(&self, then: Option<i64>) -> Option<i64> {
        seconds(then?, self.now)
    }

    fn credential_value(&self, field: &Field) -> Option<Values<'_>> {
        let known = || self.credential();
        let issued = || known().and_then(|c| c.issued.as_ref());
        let used = || known().filter(|c| c.first.is_some());
        let new =
            |seen: fn(&Credential) -> &[String], here| truth(known().and_then(|c| Credential::is_new(seen(c), here)));
        Some(match field {
            Field::CredentialPodDeleted => number(self.ago(self.pod_ended())),
            Field::CredentialIssuedBy => maybe(issued().map(|i| &i.by)),
            Field::CredentialIssuedKind => maybe(issued().map(|i| &i.kind)),
            Field::CredentialIssuedFrom => maybe(issued().map(|i| &i.address)),
            Field::CredentialIssuedAgo => number(self.ago(issued().map(|i| i.at))),
            Field::CredentialSeenAgo => number(self.ago(known().and_then(|c| c.first))),
            Field::CredentialFirstAddress => maybe(used().and_then(|c| c.addresses.first())),
            Field::CredentialFirstClient => maybe(used().and_then(|c| c.clients.first())),
            Field::CredentialFirstNetwork => maybe(used().map(|c| &c.network)),
            Field::CredentialNewAddress => new(|c| &c.addresses, self.facts.address()),
            Field::CredentialNewClient => new(|c| &c.clients, self.facts.client().0),
            Field::CredentialCsrRequestedBy => maybe(self.certificate().map(|c| &c.requested_by)),
            Field::CredentialCsrApprovedBy => maybe(self.certificate().map(|c| &c.approved_by)),
            Field::CredentialCsrAgo => number(self.ago(self.certificate().map(|c| c.approved))),
            _ => return None,
        })
    }

    fn denied(&self) -> Option<i64> {
        if self.memory.denials.is_empty() {
            None
        } else {
            self.memory.denials.get(former::denial_key(self.facts)).copied()
        }
    }

    fn actor_value(&self, field: &Field) -> Option<Values<'_>> {
        let after = || Some((self.binding()?.at, self.denied()?));
        Some(match field {
            Field::RightGrantedBy => maybe(self.binding().map(|b| &b.by)),
            Field::RightGrantedAgo => number(self.ago(self.binding().map(|b| b.at))),
            Field::RightGrantedAfterDenial => truth(after().map(|(granted, denied)| granted >= denied)),
            Field::ActorDeniedAgo => number(self.ago(self.denied())),
            Field::PodPowers => list(self.pod().and_then(|p| p.powers).map(pod::names)),
            Field::PodServiceAccount => maybe(self.pod().and_then(|p| p.service_account.as_ref())),
            Field::PodCreator => maybe(self.pod().map(|p| &p.creator)),
            Field::PodAge => number(self.ago(self.pod().and_then(|p| p.created))),
            _ => return None,
        })
    }

    fn rbac_value(&self, field: &Field) -> Option<Values<'_>> {
        let facts = self.facts;
        let removed = || {
            let binding = matches!(facts.resource, "rolebindings" | "clusterrolebindings");
            let gone = binding && facts.action == "delete";
            if gone { self.memory.bindings.get(grant::written_binding(facts)) } else { None }
        };
        let role = || {
            let written = matches!(facts.resource, "roles" | "clusterroles") && facts.action_type == "write";
            if written { self.memory.roles.get(grant::written_role(facts)) } else { None }
        };
        let own = |holders: &Vec<String>| holders.iter().any(|s| facts::is_actor(s, facts.event));
        Some(match field {
            Field::RbacGained => some(self.gain().map_or(&[], |g| &g.rights)),
            Field::RbacGainedPowers if facts.rbac().is_ok_and(|r| r.is_some_and(|r| r.kind.ends_with("binding"))) => {
                let gained = self.gained_subjects().is_some_and(|s| !s.is_empty());
                strings_if(if gained { self.memory.bound_powers(facts) } else { Vec::new() })
            }
            Field::RbacGainedPowers => some(self.gain().map_or(&[], |g| &g.powers)),
            Field::RbacGainedSubjects => some(self.gained_subjects().map_or(&[], |s| s)),
            Field::RbacHolders => some(role().map_or(&[], |r| &r.holders)),
            Field::RbacGainedBySelf => {
                truth(self.gain().and_then(|g| Some(!g.rights.is_empty() && own(&role()?.holders))))
            }
            Field::RbacPrebound => {
                number(self.ago(role().and_then(|r| r.prebound).filter(|_| facts.action == "create")))
            }
            Field::RbacGrantedBy => maybe(removed().map(|b| &b.by)),
            Field::RbacGrantedPowers => some(removed().map_or(&[], |b| &b.powers)),
            Field::RbacLived => number(self.ago(removed().and_then(|b| b.created))),
            Field::RbacUsed => truth(removed().map(|b| b.used.is_some())),
            _ => return None,
        })
    }

    fn object_value(&self, field: &Field) -> Option<Values<'_>> {
        let (facts, memory) = (self.facts, self.memory);
        let writes = facts.action_type == "write";
        let weakened = || if writes { memory.weakened(facts.cluster, facts.namespace) } else { None };
        let refused = || if writes { memory.refused(facts) } else { None };
        let former = || if writes { memory.former(facts) } else { None };
        Some(match field {
            Field::WorkloadClaimedHostPaths => strings_if(memory.claimed_paths(facts)),
            Field::AdmissionWeakened => maybe(weakened().map(|w| &w.what)),
            Field::AdmissionWeakenedAgo => number(self.ago(weakened().map(|w| w.at))),
            Field::AdmissionWeakenedBy => maybe(weakened().map(|w| &w.by)),
            Field::AdmissionRefusedAgo => number(self.ago(refused().map(|r| r.at))),
            Field::AdmissionRefusedIn => maybe(refused().map(|r| &r.namespace)),
            Field::FormerImages => some(former().map_or(&[], |f| &f.images)),
            Field::FormerRegistries => some(former().map_or(&[], |f| &f.registries)),
            Field::FormerServiceAccount => maybe(former().and_then(|f| f.service_account.as_ref())),
            Field::FormerReplicas => number(former().and_then(|f| f.replicas)),
            Field::FormerGrowth => {
                let growth = |had: i64| Some(super::read::replicas(facts)? / had.max(1));
                number(former().and_then(|f| f.replicas).and_then(growth))
            }
            Field::FormerRaised => strings_if(memory.raised(facts).filter(|_| writes).unwrap_or_default()),
            _ => return None,
        })
    }

    /// What is remembered and makes the request remarkable: a key and words each.
    pub fn details(&self) -> Vec<(&'static str, String)> {
        let mut lines = Vec::new();
        let ago = |then| self.ago(then).map(|s| format!(", {s} s before")).unwrap_or_default();
        if let Some(pod) = self.pod().filter(|_| self.facts.action_type == "connect" || self.facts.action == "debug") {
            let powers: Vec<&str> = pod.powers.into_iter().flat_map(pod::names).collect();
            lines.push(("the pod can", powers.join(", ")));
            lines.push(("the pod runs as", pod.service_account.clone().unwrap_or_default()));
            lines.push(("pod created by", format!("{}{}", pod.creator, ago(pod.created))));
        }
        if let Some(binding) = self.binding() {
            lines.push(("right granted by", format!("{}{}", binding.by, ago(Some(binding.at)))));
        }
        if let Some(issued) = self.credential().and_then(|c| c.issued.as_ref()) {
            lines.push(("token issued by", format!("{} from {}{}", issued.by, issued.address, ago(Some(issued.at)))));
        }
        if let Some(known) = self.credential().filter(|_| self.is_remarkable()) {
            let first = |seen: &[String]| seen.first().cloned().unwrap_or_default();
            lines.push((
                "credential first used",
                format!("from {} with {}", first(&known.addresses), first(&known.clients)),
            ));
        }
        let writes_workload = matches!(self.facts.workload(), Ok(Some(_)));
        let weakened = || self.memory.weakened(self.facts.cluster, self.facts.namespace);
        if let Some(weak) = writes_workload.then(weakened).flatten() {
            lines.push(("admission weakened", format!("{} by {}{}", weak.what, weak.by, ago(Some(weak.at)))));
        }
        if let Some(gain) = self.gain() {
            lines.push(("rights gained", gain.rights.join(", ")));
        }
        lines
    }
}

impl View for Sight<'_, '_> {
    fn values(&self, field: &Field) -> Values<'_> {
        if !field.is_remembered() {
            return self.facts.values(field);
        }
        let values = self
            .credential_value(field)
            .or_else(|| self.actor_value(field))
            .or_else(|| self.rbac_value(field))
            .or_else(|| self.object_value(field))
            .unwrap_or(Values::Absent);
        self.facts.unless_hidden(field, values)
    }

    fn elements(&self, field: &Field) -> Elements<'_> {
        self.facts.elements(field)
    }

    fn all_text(&self) -> &str {
        self.facts.all_text()
    }
}
