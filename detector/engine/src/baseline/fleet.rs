//! The same new thing at three principals within an hour is a change of the fleet, not three intruders: a client
//! version, a private network, a namespace. It is told once, and weighs half for a day.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::Dimension;
use super::explain::place;
use super::observation::Observation;
use super::score::Term;

/// Principals that make a value common.
const MANY: usize = 3;
/// Hours in which they must come, and hours a value stays common.
const TOGETHER: u32 = 6;
const SPAN: u32 = 24;
/// Values watched at once; more are not.
const MAX: usize = 4096;

/// New values of the last hours.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Fleet {
    /// By cluster, class, dimension and value.
    seen: BTreeMap<String, Seen>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Seen {
    hour: u32,
    principals: Vec<u32>,
}

/// Whether a fleet can change in this: what is new to a principal that has a history, and no stranger's network.
fn may_change(o: &Observation, term: &Term) -> bool {
    let kind = match term.dimension {
        Dimension::ClientVersion | Dimension::Namespace => true,
        Dimension::Network | Dimension::Subnet => o.private,
        _ => false,
    };
    kind && term.own.count <= 0.0 && term.own.total > 0.0
}

fn key(cluster: u32, o: &Observation, term: &Term) -> String {
    let (context, value) = place(o, term);
    // Readers and writers share a namespace.
    let context = if term.dimension == Dimension::Namespace { "" } else { context };
    format!("{cluster}\u{1f}{}\u{1f}{}\u{1f}{context}\u{1f}{value}", o.class.as_str(), term.dimension.as_str())
}

impl Fleet {
    /// Notes what is new to a principal; true at the principal that makes it common.
    pub fn note(&mut self, (cluster, principal): (u32, u32), o: &Observation, term: &Term, hour: u32) -> bool {
        if !may_change(o, term) {
            return false;
        }
        let key = key(cluster, o, term);
        if self.seen.len() >= MAX && !self.seen.contains_key(&key) {
            return false;
        }
        let seen = self.seen.entry(key).or_insert(Seen { hour, principals: Vec::new() });
        if seen.principals.len() >= MANY || seen.principals.contains(&principal) {
            return false;
        }
        seen.principals.push(principal);
        seen.principals.len() == MANY
    }

    /// What a term keeps of its weight.
    pub fn weight(&self, cluster: u32, o: &Observation, term: &Term) -> f32 {
        let common = !self.seen.is_empty()
            && may_change(o, term)
            && self.seen.get(&key(cluster, o, term)).is_some_and(|s| s.principals.len() >= MANY);
        if common { 0.5 } else { 1.0 }
    }

    /// Lets time pass.
    pub fn forget(&mut self, hour: u32) {
        self.seen.retain(|_, s| hour - s.hour <= if s.principals.len() >= MANY { SPAN } else { TOGETHER });
    }
}
