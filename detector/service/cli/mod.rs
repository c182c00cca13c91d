//! stub

pub mod output;
