//! stub

pub mod webhook;
