//! Incidents an output opened at its receiver and is to close: nothing came of them for a while.

use std::collections::BTreeMap;

use lapwing_engine::alert::{Alert, Status};
use serde::{Deserialize, Serialize};

use super::gather::identity;

/// Open at once; the one quiet for longest is closed early.
const MAX_OPEN: usize = 1000;

/// One that is open.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Open {
    /// Microseconds; when it was last told.
    pub told: i64,
    /// Without evidence.
    pub alert: Alert,
}

/// What is open, by [`identity`].
pub type Opened = BTreeMap<String, Open>;

/// The incidents of one output.
#[derive(Debug)]
pub struct Incidents {
    /// Microseconds of quiet after which one is closed.
    after: i64,
    open: Opened,
}

impl Incidents {
    pub fn new(after: i64, open: Opened) -> Self {
        Self { after, open }
    }

    pub fn open(&self) -> &Opened {
        &self.open
    }

    /// The receiver was told `alert`.
    pub fn told(&mut self, alert: &Alert, now: i64) {
        match alert.status {
            Status::New | Status::Update => {
                let alert = Alert { evidence: Vec::new(), audit_ids: Vec::new(), ..alert.clone() };
                self.open.insert(identity(&alert), Open { told: now, alert });
            }
            Status::Resolved => {
                self.open.remove(&identity(alert));
            }
            Status::Test => {}
        }
    }

    /// One to close, as the notice that closes it.
    pub fn due(&self, now: i64) -> Option<Alert> {
        let (_, quiet) = self.open.iter().min_by_key(|(_, open)| open.told)?;
        let over = quiet.told.saturating_add(self.after) <= now || self.open.len() > MAX_OPEN;
        over.then(|| Alert { status: Status::Resolved, ..quiet.alert.clone() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::sample;

    #[test]
    fn quiet_ones_are_closed_once() {
        let mut incidents = Incidents::new(100, Opened::new());
        let (alice, mut bob) = (sample::alert(), sample::alert());
        bob.actor = "bob".into();
        incidents.told(&alice, 0);
        incidents.told(&bob, 10);
        incidents.told(&Alert { status: Status::Update, ..alice }, 50);
        assert_eq!(incidents.due(109), None);
        let closing = incidents.due(110).unwrap();
        assert_eq!((closing.actor.as_str(), closing.status), ("bob", Status::Resolved));
        incidents.told(&closing, 110);
        assert_eq!(incidents.due(149), None);
        assert_eq!(incidents.due(150).unwrap().actor, "alice");
        for n in 0..=MAX_OPEN {
            incidents.told(&Alert { actor: n.to_string(), ..sample::alert() }, 50);
        }
        assert!(incidents.due(60).is_some(), "too many: the quietest goes");
    }
}
