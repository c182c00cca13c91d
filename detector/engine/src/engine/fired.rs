//! Which requests have fired which rule.

use std::collections::{HashSet, VecDeque};

use crate::event::Stage;
use crate::facts::Facts;

/// (rule, request) pairs remembered, oldest forgotten first.
const MAX_FIRED: usize = 200_000;

/// Which requests have fired which rule: stages of one request and deliveries of one event count once.
#[derive(Debug, Default)]
pub(super) struct Fired {
    set: HashSet<(u32, u64), foldhash::fast::FixedState>,
    pub(super) order: VecDeque<(u32, u64)>,
}

impl Fired {
    pub(super) fn first(&mut self, pair: (u32, u64)) -> bool {
        if !self.set.insert(pair) {
            return false;
        }
        self.order.push_back(pair);
        if self.order.len() > MAX_FIRED
            && let Some(old) = self.order.pop_front()
        {
            self.set.remove(&old);
        }
        true
    }
}

/// Identity of the request, the same for all its stages. The audit id alone would not do: a client
/// may choose it; the time the server received the request it cannot choose.
pub(super) fn request_id(facts: &Facts<'_>) -> u64 {
    let e = facts.event;
    let mut hasher = blake3::Hasher::new();
    let parts: [&str; 7] = [
        facts.cluster,
        &e.audit_id,
        &e.request_received_timestamp,
        &e.verb,
        &e.request_uri,
        &e.user.username,
        if e.stage == Stage::Panic { "panic" } else { "" },
    ];
    for part in parts {
        hasher.update(&(part.len() as u64).to_le_bytes());
        hasher.update(part.as_bytes());
    }
    let mut first = [0; 8];
    first.copy_from_slice(&hasher.finalize().as_bytes()[..8]);
    u64::from_le_bytes(first)
}
