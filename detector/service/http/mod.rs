//! stub

pub mod listen;
mod slots;
