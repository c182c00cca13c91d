//! The same new client version at three principals within an hour is an upgrade, not three intruders: it is told
//! once, and weighs half.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::observation::Observation;

/// Principals that make a value common.
const MANY: usize = 3;
/// Hours a value stays common.
const SPAN: u32 = 24;
/// Values watched at once; more are not.
const MAX: usize = 4096;

/// New client versions of the last hours.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Fleet {
    /// By cluster, class, client and version.
    seen: BTreeMap<String, Seen>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Seen {
    hour: u32,
    principals: Vec<u32>,
}

fn key(cluster: u32, o: &Observation) -> String {
    format!("{cluster}\u{1f}{}\u{1f}{}\u{1f}{}", o.class.as_str(), o.client(), o.version())
}

impl Fleet {
    /// Notes a version that is new to a principal; true at the principal that makes it common.
    pub fn note(&mut self, cluster: u32, principal: u32, o: &Observation, hour: u32) -> bool {
        let key = key(cluster, o);
        if self.seen.len() >= MAX && !self.seen.contains_key(&key) {
            return false;
        }
        let seen = self.seen.entry(key).or_insert(Seen { hour, principals: Vec::new() });
        if seen.principals.len() >= MANY || seen.principals.contains(&principal) {
            return false;
        }
        if hour - seen.hour > 1 {
            (seen.hour, seen.principals) = (hour, Vec::new());
        }
        seen.principals.push(principal);
        seen.principals.len() == MANY
    }

    pub fn is_common(&self, cluster: u32, o: &Observation) -> bool {
        self.seen.get(&key(cluster, o)).is_some_and(|s| s.principals.len() >= MANY)
    }

    /// Lets time pass.
    pub fn forget(&mut self, hour: u32) {
        self.seen.retain(|_, s| hour - s.hour <= if s.principals.len() >= MANY { SPAN } else { 1 });
    }
}
