//! A change of rules goes through the journal: it is written there first, and made where it is read.

use std::sync::Arc;

use super::{Run, Told, event_record};

impl Run {
    /// Writes down which rules are wanted, unless the journal says so already.
    pub(super) fn announce_rules(&mut self) {
        let waiting = self.at.new_rules.lock().ok().and_then(|mut slot| slot.take());
        if let Some(book) = waiting {
            self.at.rulebook = book;
        }
        let wanted = Some(self.at.rulebook.id);
        if self.named == wanted || self.announced == wanted {
            return;
        }
        self.attempts.rest();
        match self.at.events.append_blocking(event_record::RULES, self.at.rulebook.id.to_vec()) {
            Ok(_) => self.announced = wanted,
            Err(error) => tracing::warn!(%error, "new rules could not be journaled; the old ones go on for now"),
        }
    }

    /// From here on other rules judge; what the engine remembers stays.
    pub(super) fn change_rules(&mut self, payload: &[u8]) {
        let Ok(id) = payload.try_into() else {
            return tracing::warn!("a change of rules of a newer version is passed over");
        };
        self.named = Some(id);
        if id == self.judging {
            return;
        }
        let Some(book) = self.at.book(&id) else {
            self.check = None;
            return;
        };
        self.at.engine.change_rules(Arc::clone(&book.rules));
        self.told = Told::of(&self.at.engine);
        self.judging = id;
        if !book.ours {
            self.check = None;
        }
    }
}
