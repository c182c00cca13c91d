//! Requests just like one that was looked at in this hour, known before they are taken into their parts.
//!
//! Only saves time: whatever is found here would be found as repeated by its parts too.

use crate::alike::Alike;
use crate::facts::Facts;

#[derive(Debug, Default)]
pub(super) struct Again {
    /// Surprise of those that repeat and count in no channel, all of one hour.
    known: Alike<f32>,
    /// Whether the last request asked for can be told apart by what is compared here.
    comparable: bool,
}

impl Again {
    /// Takes over everything of a request that an [`Observation`](super::Observation) is made of. Its surprise, if it is
    /// known; bodies are not compared, so a request that writes powers never is.
    pub(super) fn find(&mut self, facts: &Facts<'_>) -> Option<f32> {
        let event = facts.event;
        let powers = facts.may_write_powers() && !facts.cluster_component;
        self.comparable = event.impersonated_user.is_none() && !powers && event.not_carried.none();
        if !self.comparable {
            return None;
        }
        let object = event.object_ref.as_ref().map_or("", |o| &*o.name);
        let path = if facts.resource.is_empty() { &*event.request_uri } else { "" };
        self.known.start(&[event.stage as u8, u8::from(facts.cluster_component)]);
        self.known.texts([
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
        ]);
        self.known.texts(event.user.groups.0.iter().map(|group| &**group));
        self.known.get().copied()
    }

    /// Remembers the request that was asked for last.
    pub(super) fn keep(&mut self, surprise: f32) {
        if self.comparable {
            self.known.keep(surprise);
        }
    }

    pub(super) fn clear(&mut self) {
        self.known.clear();
    }
}
