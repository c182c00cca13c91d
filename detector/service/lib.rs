//! Everything of Lapwing that touches the world: command line, configuration, sources, journal,
//! store, outputs, metrics. The decisions are made in `lapwing-engine`.

pub mod app;
pub mod archive;
pub mod brokers;
pub mod cli;
pub mod completeness;
pub mod config;
pub mod flow;
pub mod forward;
pub mod http;
pub mod import;
pub mod input;
pub mod journal;
pub mod lint;
pub mod metrics;
pub mod output;
pub mod pipeline;
pub mod ruleset;
pub mod source;
pub mod space;
pub mod store;
