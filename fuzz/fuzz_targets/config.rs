//! Configuration files: a configuration, or problems with a place.
#![no_main]

use std::path::Path;

use lapwing::config::Config;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let _ = Config::read(text, Path::new("/nowhere/lapwing.yaml"), &|_| None);
});
