//! Where the engine thread begins: at the newest snapshot, or at the beginning of the journal.

use std::sync::Arc;

use anyhow::Context;
use lapwing_engine::engine::Engine;
use serde_json::value::RawValue;

use super::snapshot::{self, Stored};
use super::{ColdFiles, Detect, Positions, Rulebook, orders, rulebook};

/// Where to go on from, with the engine as it was there.
pub(super) struct Start {
    pub lsn: u64,
    pub alert_lsn: u64,
    pub now: i64,
    pub positions: Positions,
    /// The rulebook the engine has.
    pub judging: rulebook::Id,
    /// The one the journal names for this place.
    pub named: Option<rulebook::Id>,
    /// A replay from here must say what was said before.
    pub ours: bool,
}

impl Detect {
    /// Takes over the newest snapshot: its place in the event and the alert journal, its rules, and the sources' positions.
    /// One that does not fit these types is passed over; the journal is then replayed from its start.
    pub(super) fn resume(&mut self) -> anyhow::Result<Start> {
        let beginning = Start {
            lsn: 0,
            alert_lsn: 0,
            now: 0,
            positions: Positions::default(),
            judging: self.rulebook.id,
            named: None,
            ours: true,
        };
        let (state, durable) = (self.state.clone(), self.events.durable().0);
        let newest = snapshot::newest(&state, durable, |stored| self.take_over(stored)).context("reading snapshots")?;
        Ok(match newest {
            None => beginning,
            Some(Ok(start)) => start,
            Some(Err(positions)) => Start { positions, ours: false, ..beginning },
        })
    }

    /// Goes on from a snapshot; only its positions where it does not fit.
    fn take_over(&mut self, stored: Stored<&RawValue>) -> Result<Start, Positions> {
        let book = stored.rules.and_then(|id| self.book(&id));
        if let Some(book) = &book {
            self.engine = Engine::new(Arc::clone(&book.rules), self.options.clone());
        }
        if let Err(error) = self.engine.restore(stored.engine.get()) {
            tracing::warn!(
                %error,
                "the newest snapshot does not fit this version; replaying the journal from its start"
            );
            self.engine = Engine::new(Arc::clone(&self.rulebook.rules), self.options.clone());
            return Err(stored.positions);
        }
        Ok(Start {
            lsn: stored.lsn,
            alert_lsn: stored.alert_lsn,
            now: stored.now,
            positions: stored.positions,
            judging: book.as_ref().map_or(self.rulebook.id, |book| book.id),
            named: stored.rules,
            ours: book.is_some_and(|book| book.ours),
        })
    }

    /// The rulebook `id`, if it can still be had.
    pub(super) fn book(&self, id: &rulebook::Id) -> Option<Arc<Rulebook>> {
        if *id == self.rulebook.id {
            return Some(Arc::clone(&self.rulebook));
        }
        match Rulebook::read(&self.rules, id, &self.options) {
            Ok(book) => Some(Arc::new(book)),
            Err(error) => {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "the rules that were in use then cannot be had; the ones of now judge instead"
                );
                None
            }
        }
    }

    /// Gives the baselines a place on disk for whoever memory has no room for; nothing where none is wanted.
    pub(super) fn shelve(&mut self) -> anyhow::Result<Option<ColdFiles>> {
        let wanted = self.options.baseline.is_some_and(|b| b.max_shelved > 0);
        let Some(baselines) = self.engine.baselines_mut().filter(|_| wanted) else { return Ok(None) };
        let cold = ColdFiles::open(&orders::cold_dir(&self.state)).context("baselines on disk")?;
        baselines.shelve(Box::new(cold.clone()));
        Ok(Some(cold))
    }

    /// Takes over baselines that were left for this start.
    pub(super) fn import(&mut self) {
        let file = orders::import_file(&self.state);
        if !file.exists() {
            return;
        }
        match orders::read_baselines(&file) {
            Ok(stored) => {
                self.engine.import(stored);
                tracing::info!("imported baselines are in use");
            }
            Err(error) => tracing::error!(%error, "the baselines to import cannot be read"),
        }
        if let Err(error) = std::fs::rename(&file, file.with_extension("taken")) {
            tracing::error!(%error, "the imported file could not be moved; the next start imports it again");
        }
    }
}
