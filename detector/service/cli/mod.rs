//! stub
pub mod search;
pub mod show;
pub mod terminal;
