//! The search language.
#![no_main]

use lapwing::store::{Clock, Query};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let _ = Query::parse(text, Clock { now: 1_795_190_557_000_000, utc: true });
});
