//! What people tell the baselines: this was right, this was an attack, start anew.
//!
//! An order lies in the journal like an event, so that a replay sees it at the same place. It teaches and quiets single
//! values of one principal; findings of rules and powers in bodies it cannot touch.

use serde::{Deserialize, Serialize};

use super::explain::place;
use super::observation::{Observation, is_power};
use super::score::Terms;
use super::{Baselines, Dimension, HOUR, members};

/// Values that are quieted at once; beyond that the one that ends first goes.
const MAX_EXCEPTIONS: usize = 1000;

/// A value of a reason, as alerts carry it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    pub dimension: String,
    #[serde(default)]
    pub context: String,
    pub value: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "order", rename_all = "lowercase")]
pub enum Order {
    /// These values are right for this principal: learn them, and be quiet about them until `until` (microseconds).
    Benign { cluster: String, principal: String, places: Vec<Place>, until: i64, owner: String },
    /// The principal was misused from `since` (microseconds) on: forget what it taught since.
    Malicious { cluster: String, principal: String, since: i64, owner: String },
    /// Forget a principal, or all of them.
    Reset { cluster: Option<String>, principal: Option<String> },
}

/// A value that is not told for a while.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Exception {
    /// Cluster and principal.
    principal: String,
    dimension: Dimension,
    context: String,
    value: String,
    until: i64,
    owner: String,
}

/// Whether people may quiet this value. A power in a body, a new identity, a burst and a rule stay loud.
pub fn may_quiet(place: &Place) -> bool {
    match Dimension::parse(&place.dimension) {
        Some(Dimension::Content) => !is_power(&place.value),
        Some(Dimension::Principal | Dimension::Burst | Dimension::Rule) | None => false,
        Some(_) => true,
    }
}

fn owner(cluster: &str, principal: &str) -> String {
    format!("{cluster}\u{1f}{principal}")
}

impl Baselines {
    /// Follows an order; false where it is about nobody known.
    pub fn follow(&mut self, order: &Order) -> bool {
        match order {
            Order::Benign { cluster, principal, places, until, owner: by } => {
                let principal = owner(cluster, principal);
                let places: Vec<&Place> = places.iter().filter(|p| may_quiet(p)).collect();
                let known = self.teach(&principal, &places);
                places.into_iter().for_each(|p| self.quiet(&principal, p, *until, by));
                known
            }
            Order::Malicious { cluster, principal, since, .. } => self.purge(&owner(cluster, principal), *since),
            Order::Reset { cluster, principal } => self.reset(cluster.as_deref(), principal.as_deref()),
        }
    }

    fn teach(&mut self, principal: &str, places: &[&Place]) -> bool {
        let Some(id) = self.members.find_anywhere(principal, &mut self.words) else { return false };
        let Some(mut p) = self.members.take(id) else { return false };
        let hour = self.hour();
        for place in places {
            if let Some(dimension) = Dimension::parse(&place.dimension) {
                self.learn_value(&mut p, dimension, &place.context, &place.value, hour, true);
            }
        }
        self.members.put(id, p);
        self.make_room();
        true
    }

    fn quiet(&mut self, principal: &str, place: &Place, until: i64, by: &str) {
        let Some(dimension) = Dimension::parse(&place.dimension) else { return };
        if self.exceptions.len() >= MAX_EXCEPTIONS {
            let first = (0..self.exceptions.len()).min_by_key(|i| self.exceptions[*i].until);
            first.map(|at| self.exceptions.swap_remove(at));
        }
        self.exceptions.push(Exception {
            principal: principal.to_owned(),
            dimension,
            context: place.context.clone(),
            value: place.value.clone(),
            until,
            owner: by.to_owned(),
        });
    }

    /// Takes the weight from terms that somebody called right.
    pub(super) fn apply_exceptions(&mut self, o: &Observation, terms: &mut Terms) {
        if self.exceptions.is_empty() {
            return;
        }
        let now = self.time;
        self.exceptions.retain(|e| e.until > now);
        for term in terms.iter_mut().filter(|t| t.bits > 0.0) {
            let (context, value) = place(o, term);
            let dimension = term.dimension;
            let covers = |e: &Exception| {
                e.principal == o.owner() && e.dimension == dimension && e.context == context && e.value == value
            };
            if self.exceptions.iter().any(covers) {
                term.bits = 0.0;
            }
        }
    }

    fn purge(&mut self, principal: &str, since: i64) -> bool {
        let Some(id) = self.members.find_anywhere(principal, &mut self.words) else { return false };
        let Some(mut p) = self.members.take(id) else { return false };
        let (peers, words) = (p.who.peers, &mut self.words);
        let gone = |table, value, told| members::forget_value(words, peers, table, value, told);
        p.forget_since((since / HOUR).max(0) as u32, (self.time / HOUR) as u32, gone);
        self.members.put(id, p);
        self.make_room();
        true
    }

    fn reset(&mut self, cluster: Option<&str>, principal: Option<&str>) -> bool {
        let matches = |name: &str| {
            let (of, who) = name.split_once('\u{1f}').unwrap_or_default();
            cluster.is_none_or(|c| c == of) && principal.is_none_or(|p| p == who)
        };
        match principal {
            // Names are known of those in memory alone.
            Some(name) => self.bring_back(name),
            None => self.members.gather(&mut self.words),
        }
        let ids: Vec<u32> = self.members.ids().filter(|(_, p)| matches(&p.who.owner)).map(|(id, _)| id).collect();
        ids.iter().for_each(|id| {
            self.members.remove(*id, &mut self.words);
        });
        self.seen.clear();
        self.make_room();
        !ids.is_empty()
    }
}
