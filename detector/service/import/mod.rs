//! Rules of other products, translated into ours.

pub mod falco;
