//! Requests just like one that was looked at in this hour, known before they are taken into their parts.
//!
//! Only saves time: whatever is found here would be found as repeated by its parts too.

use crate::facts::Facts;

/// Requests told apart; when there are more, all are forgotten.
const MAX: usize = 16_384;
/// Longer ones are not remembered, bytes.
const MAX_KEY: usize = 1_024;

#[derive(Debug, Default)]
pub(super) struct Again {
    /// Surprise of those that repeat and count in no channel, all of one hour.
    known: foldhash::HashMap<Box<[u8]>, f32>,
    key: Vec<u8>,
}

impl Again {
    /// Takes over everything of a request that an [`Observation`](super::Observation) is made of. Its surprise, if it is
    /// known; bodies are not compared, so a request that writes powers never is.
    pub(super) fn find(&mut self, facts: &Facts<'_>) -> Option<f32> {
        self.key.clear();
        let event = facts.event;
        let powers = facts.may_write_powers() && !facts.cluster_component;
        if event.impersonated_user.is_some() || powers || !event.not_carried.none() {
            return None;
        }
        let object = event.object_ref.as_ref().map_or("", |o| &*o.name);
        let path = if facts.resource.is_empty() { &*event.request_uri } else { "" };
        for text in [
            facts.cluster,
            facts.actor_kind,
            facts.actor(),
            facts.action,
            &*event.verb,
            facts.resource,
            facts.subresource,
            facts.namespace,
            object,
            path,
            facts.outcome,
            &*event.user_agent,
            facts.address(),
        ] {
            self.push(text);
        }
        event.user.groups.0.iter().for_each(|group| self.push(group));
        self.key.extend([event.stage as u8, u8::from(facts.cluster_component)]);
        self.known.get(self.key.as_slice()).copied()
    }

    fn push(&mut self, text: &str) {
        self.key.extend_from_slice(&(text.len() as u64).to_le_bytes());
        self.key.extend_from_slice(text.as_bytes());
    }

    /// Remembers the request that was asked for last.
    pub(super) fn keep(&mut self, surprise: f32) {
        if self.key.is_empty() || self.key.len() > MAX_KEY {
            return;
        }
        if self.known.len() >= MAX {
            self.known.clear();
        }
        self.known.insert(self.key.as_slice().into(), surprise);
    }

    pub(super) fn clear(&mut self) {
        self.known.clear();
    }
}
