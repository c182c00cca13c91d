//! Redaction: what was an event still is one, and redacting it again changes nothing.
#![no_main]

use lapwing_engine::event::Event;
use lapwing_engine::redact;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if Event::parse(text).is_err() {
        return;
    }
    let once = redact::event(text).into_owned();
    assert!(Event::parse(&once).is_ok(), "{once}");
    assert_eq!(redact::event(&once), once);
});
