//! Integration tests: the real program and real servers. One binary, one module a subject.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod archive;
mod baseline;
mod daemon;
mod envelopes;
mod evasion;
mod formats;
mod grafana;
mod guarantees;
mod hostile;
mod kafka;
mod outputs;
mod pubsub;
mod rules;
mod scan;
mod secrets;
mod serve;
mod silences;
