//! A body or a message in memory → the items of a batch.

use std::sync::Arc;

use lapwing_engine::batch::{Item, RejectReason};
use lapwing_engine::event::{Event, NotAnEvent};
use lapwing_engine::redact;

use super::{EXCERPT, Events, Limits};
use crate::metrics::Metrics;

/// [`split`] for a source, counting what came in wrappers. Cheap to clone.
#[derive(Clone)]
pub struct Splitter {
    limits: Limits,
    metrics: Arc<Metrics>,
}

impl Splitter {
    pub fn new(metrics: Arc<Metrics>) -> Self {
        Self { limits: Limits::default(), metrics }
    }

    pub fn metrics(&self) -> Arc<Metrics> {
        Arc::clone(&self.metrics)
    }

    pub fn split(&self, body: &[u8]) -> Vec<Item> {
        let mut events = Events::new(body, self.limits);
        let items = all(&mut events, body);
        self.metrics.unwrapped(events.counts());
        items
    }
}

/// Every event of `body`, redacted, in order; whatever is no event becomes a reject beside them.
///
/// Accepts one event, an `EventList`, an array, lines or concatenated values of these, each in any wrapper that
/// [`super::envelope`] knows. A body cut off
/// somewhere gives the items before the cut and one reject. An empty body is one reject.
pub fn split(body: &[u8], limits: &Limits) -> Vec<Item> {
    all(&mut Events::new(body, *limits), body)
}

fn all(events: &mut Events<&[u8]>, body: &[u8]) -> Vec<Item> {
    let mut items = Vec::new();
    while let Some(found) = events.next() {
        items.push(match found {
            Ok(text) => item(text),
            Err(e) => Item::Reject { reason: e.reason, detail: e.detail, excerpt: e.excerpt },
        });
    }
    if items.is_empty() && body.iter().all(u8::is_ascii_whitespace) {
        items.push(Item::Reject {
            reason: RejectReason::BadBody,
            detail: "the body is empty".to_owned(),
            excerpt: String::new(),
        });
    }
    items
}

/// One item of [`Events`] as it is journaled.
pub fn item(text: &str) -> Item {
    let error = match Event::parse(text) {
        Ok(_) => return Item::Event(redact::event(text).into_owned()),
        Err(error) => error,
    };
    Item::Reject {
        reason: reason(&error),
        detail: redact::excerpt(error.to_string().as_bytes(), 512),
        excerpt: redact::excerpt(text.as_bytes(), EXCERPT),
    }
}

/// What a text that is no event is counted as.
pub const fn reason(error: &NotAnEvent) -> RejectReason {
    match error {
        NotAnEvent::NotJson(_) => RejectReason::NotJson,
        _ => RejectReason::NotAnEvent,
    }
}

#[cfg(test)]
mod tests;
