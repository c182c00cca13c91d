//! What the engine remembers of objects and credentials: what pods can do and when they ended, who issued
//! a token and where it was used, who granted which right, what a role or a quota was before.
//!
//! A pure fold like the engine: an event is judged with what was known before it, then learned from.
//! Requests that changed nothing (denied, rejected, rehearsed) leave nothing but that they were refused.
//! Every kind is a [`Book`]: bounded, evictions counted, part of the snapshot. Keys hold the cluster, so
//! clusters never mix. What is not remembered is absent for rules, never false.

mod book;
mod credential;
mod former;
mod grant;
mod guard;
mod pod;
mod read;
mod sight;

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::value::RawValue;

pub use book::{Book, Key};
pub use sight::{Places, Sight};

use crate::facts::Facts;
use credential::{Certificate, Credential, Requested};
use former::{Former, Refused};
use grant::{Binding, Marks, Role};
use guard::Guard;
use pod::Pod;

/// Entries of each kind that are remembered.
pub const DEFAULT_CAP: usize = 50_000;

/// A name as it is remembered: cut, so that nobody fills memory with one.
fn short(text: &str) -> String {
    crate::words::cut(text)
}

/// Whether `kept` is what [`short`] makes of `text`.
fn is_short_of(kept: &str, text: &str) -> bool {
    kept == text || (kept.len() > crate::words::MAX && kept == short(text))
}

/// Whole seconds from `then` to `now`; `None` where `then` lies behind it, as events may arrive late.
fn seconds(then: i64, now: i64) -> Option<i64> {
    (now >= then).then(|| (now - then) / 1_000_000)
}

macro_rules! books {
    ($($(#[$doc:meta])* $name:ident: $value:ty,)*) => {
        /// Everything remembered of objects and credentials.
        #[derive(Clone, Debug, Serialize)]
        pub struct Memory {
            $($(#[$doc])* $name: Book<$value>,)*
            /// Which bindings may be among those remembered.
            #[serde(skip)]
            marks: Marks,
        }

        impl Memory {
            /// `cap` entries of each kind.
            pub fn new(cap: usize) -> Self {
                Self { $($name: Book::new(cap),)* marks: Marks::default() }
            }

            /// Entries now, and entries forgotten for lack of room, of each kind.
            pub fn sizes(&self) -> impl Iterator<Item = (&'static str, usize, u64)> {
                [$((stringify!($name), self.$name.len(), self.$name.evicted()),)*].into_iter()
            }

            /// Takes over a snapshot; a kind it does not hold stays empty.
            pub fn restore(&mut self, snapshot: &str) -> Result<(), serde_json::Error> {
                let kinds: BTreeMap<String, &RawValue> = serde_json::from_str(snapshot)?;
                $(if let Some(stored) = kinds.get(stringify!($name)) {
                    self.$name.restore(stored.get())?;
                })*
                self.marks = Marks::of(&self.bindings);
                Ok(())
            }
        }
    };
}

books! {
    /// By namespace and name.
    pods: Pod,
    /// Sensitive paths on nodes, by PersistentVolume.
    volumes: String,
    /// Sensitive paths on nodes, by the namespace and name of a claim.
    claims: String,
    /// By credential id.
    credentials: Credential,
    /// Certificate signing requests, by name.
    requests: Requested,
    /// Issued client certificates, by the name they carry.
    certificates: Certificate,
    /// By kind, namespace and name.
    bindings: Binding,
    /// By kind, namespace and name.
    roles: Role,
    /// Namespaces and objects of admission control; the last weakening of all under no name.
    guards: Guard,
    /// When an actor was denied something, by what.
    denials: i64,
    /// Workloads that admission refused an actor, by name and by image.
    rejections: Refused,
    /// Workloads, autoscalers and quotas as they were last written.
    formers: Former,
}

impl Memory {
    /// Learns from an event that has been judged; `places` are those of its [`Sight`].
    pub fn learn(&mut self, facts: &Facts<'_>, places: Places) {
        let Some(now) = facts.time().filter(|_| facts.judged()) else { return };
        self.learn_credential(facts, places.credential, now);
        match facts.outcome {
            "allowed" => {
                self.learn_use(places.binding, now);
                match facts.action_type {
                    "write" => self.learn_write(facts, now),
                    "delete" => self.learn_delete(facts, now),
                    _ => {}
                }
            }
            "denied" => self.denials.put(former::denial_key(facts), now),
            "rejected" => self.learn_rejection(facts, now),
            _ => {}
        }
    }

    fn learn_write(&mut self, facts: &Facts<'_>, now: i64) {
        match facts.resource {
            "pods" => self.learn_pod(facts, now),
            "persistentvolumes" | "persistentvolumeclaims" => self.learn_volume(facts),
            "serviceaccounts" if facts.action == "token-request" => self.learn_token(facts, now),
            "certificatesigningrequests" => self.learn_request(facts, now),
            "roles" | "clusterroles" => self.learn_role(facts),
            "rolebindings" | "clusterrolebindings" => self.learn_binding(facts, now),
            _ if guard::guards(facts.resource) => self.learn_guard(facts, now),
            _ if former::is_kept(facts.resource) => self.learn_former(facts),
            _ => {}
        }
    }

    fn learn_delete(&mut self, facts: &Facts<'_>, now: i64) {
        match facts.resource {
            "pods" => self.learn_end(facts, now),
            "roles" | "clusterroles" => self.forget_role(facts),
            "rolebindings" | "clusterrolebindings" => self.forget_binding(facts),
            _ if guard::guards(facts.resource) => self.learn_guard_gone(facts, now),
            _ if former::is_kept(facts.resource) => self.forget_former(facts),
            _ => {}
        }
    }

    fn object_key(facts: &Facts<'_>) -> Key {
        Key::of(facts.cluster, &[facts.resource, facts.namespace, facts.name()])
    }
}

#[cfg(test)]
mod tests;
