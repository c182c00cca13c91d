//! One event through every built-in rule.
#![no_main]

use std::cell::RefCell;

use lapwing::ruleset::Selection;
use lapwing_engine::engine::{Engine, Options, Output};
use libfuzzer_sys::fuzz_target;

thread_local! {
    static ENGINE: RefCell<Engine> =
        RefCell::new(Engine::new(Selection::default().load().expect("the built-in rules"), Options::default()));
}

fuzz_target!(|text: &str| {
    ENGINE.with_borrow_mut(|engine| {
        let mut out = Output::default();
        let _ = engine.event("fuzz", text, 1, &String::new, &mut out);
        for finding in &out.findings {
            assert!(finding.summary.len() < 100_000);
        }
    });
});
