//! What has taught the habits of this hour already.
//!
//! A rule that only teaches what is new or rare matches on a good part of all events, and most of them show what the same
//! identity has shown minutes ago. Habits know hours, not seconds, so that leaving those out changes nothing.

use crate::alike::Alike;
use crate::facts::Facts;
use crate::field::Field;
use crate::rule::correlation::Correlation;

pub(super) const HOUR: i64 = 3_600_000_000;
/// The hour of the last lesson, under everything its correlations look at.
#[derive(Debug, Default)]
pub(super) struct Taught(Alike<i64>);

/// Whether all that `c` looks at is part of what [`Taught`] tells lessons apart by.
pub(super) fn can_be_left_out(c: &Correlation, slot: u32) -> bool {
    c.group_by.iter().chain(&c.counted).all(|key| {
        matches!(
            key.fields[slot as usize],
            Field::Cluster
                | Field::ActorName
                | Field::Action
                | Field::TargetResource
                | Field::TargetNamespace
                | Field::ClientAddress
                | Field::ClientFamily
                | Field::ClientNetwork
                | Field::ClientRange
                | Field::ClientVersion
                | Field::CredentialKind
                | Field::RightBinding
                | Field::RightRole
        )
    })
}

impl Taught {
    /// Whether rule `index` has to teach this event, at `now`, microseconds.
    pub(super) fn is_new(&mut self, index: u32, facts: &Facts<'_>, now: i64) -> bool {
        self.0.start(&index.to_le_bytes());
        self.0.texts([
            facts.cluster,
            facts.actor(),
            facts.action,
            facts.resource,
            facts.namespace,
            facts.address(),
            &facts.event.user_agent,
            facts.credential_kind(),
            facts.reason(),
        ]);
        let hour = now.div_euclid(HOUR);
        if let Some(known) = self.0.get_mut() {
            return std::mem::replace(known, hour) != hour;
        }
        self.0.keep(hour);
        true
    }
}
