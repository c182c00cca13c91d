//! Sigma text: rules, or problems with a place.
#![no_main]

use lapwing_engine::rule::set::{LoadOptions, RuleSet};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let _ = RuleSet::load(vec![("fuzz.yml".into(), text.to_owned())], &LoadOptions::default());
});
