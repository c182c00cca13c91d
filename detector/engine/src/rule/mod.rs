//! Sigma text → [`file::RuleFile`] (what a person wrote) → [`Rule`] (what runs).

pub mod condition;
pub mod detection;
pub mod expr;
pub mod matcher;
pub mod modifier;
pub mod pattern;
pub mod problem;
pub mod view;
pub mod yaml;
