//! Who issued a credential, where and with which client it was used, and which certificate was asked for.

use serde::{Deserialize, Serialize};

use super::{Key, Memory, is_short_of, pod, read, short};
use crate::facts::Facts;

/// Places and clients of one credential that are remembered. A credential with more has no usual one.
const MANY: usize = 4;

/// A token or certificate by its id.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Credential {
    /// First use.
    pub first: Option<i64>,
    /// In the order they were seen, at most [`MANY`].
    pub addresses: Vec<String>,
    pub clients: Vec<String>,
    pub network: String,
    pub issued: Option<Issued>,
    /// Where the pod it is bound to is remembered: a hash that every use would make again.
    #[serde(skip)]
    pub pod: Option<Key>,
}

/// How a token came to be.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Issued {
    pub by: String,
    /// Kind of the actor that asked for it.
    pub kind: String,
    pub at: i64,
    pub address: String,
}

/// A certificate signing request.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Requested {
    pub by: String,
    pub cn: Option<String>,
    pub signer: String,
}

/// An approved client certificate.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Certificate {
    /// Empty when the request was not seen.
    pub requested_by: String,
    pub approved_by: String,
    pub approved: i64,
    pub signer: String,
}

const ISSUED: [&str; 2] =
    ["authentication.kubernetes.io/issued-credential-id", "authentication.k8s.io/issued-credential-id"];

pub(super) fn key(cluster: &str, id: &str) -> Key {
    Key::of_id(cluster, id)
}

pub(super) fn certificate_key(cluster: &str, name: &str) -> Key {
    Key::of(cluster, &["certificate", name])
}

/// The credential of identities whose place matters. Nodes and the control plane speak all day from one.
pub(super) fn watched<'f>(facts: &'f Facts<'_>) -> Option<&'f str> {
    let id = facts.credential_id();
    (matches!(facts.actor_kind, "human" | "serviceaccount") && !id.is_empty()).then_some(id)
}

impl Credential {
    /// Whether it was never used from here, as far as it can be told.
    pub fn is_new(seen: &[String], here: &str) -> Option<bool> {
        (!seen.is_empty() && seen.len() < MANY && !here.is_empty()).then(|| !seen.iter().any(|s| is_short_of(s, here)))
    }

    fn knows(&self, address: &str, client: &str) -> bool {
        let has = |seen: &[String], here: &str| seen.len() >= MANY || seen.iter().any(|s| is_short_of(s, here));
        self.first.is_some() && has(&self.addresses, address) && has(&self.clients, client)
    }
}

fn add(seen: &mut Vec<String>, here: &str) {
    let here = short(here);
    if seen.len() < MANY && !here.is_empty() && !seen.contains(&here) {
        seen.push(here);
    }
}

impl Memory {
    pub(super) fn learn_credential(&mut self, facts: &Facts<'_>, key: Option<Key>, now: i64) {
        let Some(key) = key else { return };
        let (address, client) = (facts.address(), facts.client().0);
        let bound = !facts.credential_pod().0.is_empty();
        if self.credentials.get(key).is_some_and(|c| c.knows(address, client) && c.pod.is_some() == bound) {
            return;
        }
        self.credentials.change(key, |former| {
            let mut credential = former.unwrap_or_default();
            if credential.first.is_none() {
                credential.first = Some(now);
                credential.network = facts.network().to_owned();
            }
            add(&mut credential.addresses, address);
            add(&mut credential.clients, client);
            credential.pod = pod::of_credential(facts);
            credential
        });
    }

    pub(super) fn learn_token(&mut self, facts: &Facts<'_>, now: i64) {
        let Some(id) = ISSUED.iter().find_map(|key| facts.event.annotation(key)) else { return };
        let (by, kind) = (short(facts.actor()), facts.actor_kind.to_owned());
        let issued = Some(Issued { by, kind, at: now, address: short(facts.address()) });
        self.credentials.change(key(facts.cluster, id), |former| Credential { issued, ..former.unwrap_or_default() });
    }

    pub(super) fn learn_request(&mut self, facts: &Facts<'_>, now: i64) {
        let key = Key::of(facts.cluster, &["csr", facts.name()]);
        let told = facts.csr().ok().flatten();
        let cn = told.and_then(|c| c.cn.as_deref()).map(short);
        let signer = told.and_then(|c| c.signer.as_deref()).map(short).unwrap_or_default();
        match facts.action {
            "create" => self.requests.put(key, Requested { by: short(facts.actor()), cn, signer }),
            "approve" if read::approves(facts) != Some(false) => {
                let request = self.requests.get(key).cloned().unwrap_or_default();
                let Some(cn) = cn.or(request.cn) else { return };
                let signer = if signer.is_empty() { request.signer } else { signer };
                let approved_by = short(facts.actor());
                let certificate = Certificate { requested_by: request.by, approved_by, approved: now, signer };
                self.certificates.put(certificate_key(facts.cluster, &cn), certificate);
            }
            _ => {}
        }
    }
}
