//! The pure core of Lapwing: an audit event becomes facts, facts become verdicts, verdicts become
//! findings, findings become alerts.
//!
//! Nothing here reads a clock, a disk, a socket or an environment variable, and nothing logs. Time
//! is an argument. The same events with the same rules give the same findings with the same ids.

pub mod alert;
mod alike;
pub mod baseline;
pub mod batch;
pub mod carry;
pub mod engine;
pub mod event;
pub mod facts;
pub mod field;
pub mod group;
mod listed;
pub mod memory;
pub mod redact;
pub mod rule;
pub mod tree;
pub mod window;
pub mod words;
