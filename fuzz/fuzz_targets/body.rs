//! Webhook bodies into items: whatever comes, each item is an event or a bounded reject.
#![no_main]

use lapwing::input::{EXCERPT, Limits, split};
use lapwing_engine::batch::{Batch, Item, Origin};
use lapwing_engine::event::Event;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|body: &[u8]| {
    let items = split(body, &Limits::default());
    for item in &items {
        match item {
            Item::Event(text) => drop(Event::parse(text).expect("what is journaled is an event")),
            Item::Reject { excerpt, .. } => assert!(excerpt.len() <= EXCERPT),
        }
    }
    let batch = Batch { cluster: "c".into(), origin: Origin::Webhook, received: 1, items };
    assert_eq!(Batch::decode(&batch.encode()).expect("readable"), batch);
});
