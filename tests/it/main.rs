//! x
#[cfg(test)]
mod outputs;
