//! stub
pub mod explain;
pub mod search;
pub mod show;
pub mod terminal;
