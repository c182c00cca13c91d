//! Rules.
pub mod view;
