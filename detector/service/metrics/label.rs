//! Label values that come from outside, kept few: what an attacker can name must not grow our memory
//! or the monitoring's.

use std::collections::HashSet;
use std::sync::{PoisonError, RwLock};

/// What every value beyond the cap is counted under.
pub const OTHER: &str = "other";

/// The values one label may take: first come, first kept, at most `cap`.
pub struct Cap {
    cap: usize,
    seen: RwLock<HashSet<Box<str>>>,
}

impl Cap {
    /// `known` values are admitted now, whatever comes later.
    pub fn new(cap: usize, known: impl IntoIterator<Item = impl AsRef<str>>) -> Self {
        let seen = known.into_iter().take(cap).map(|value| value.as_ref().into()).collect();
        Self { cap, seen: RwLock::new(seen) }
    }

    /// `value` itself, or [`OTHER`] when the cap is reached and `value` is new.
    pub fn admit<'a>(&self, value: &'a str) -> &'a str {
        if self.seen.read().unwrap_or_else(PoisonError::into_inner).contains(value) {
            return value;
        }
        let mut seen = self.seen.write().unwrap_or_else(PoisonError::into_inner);
        if seen.len() < self.cap || seen.contains(value) {
            seen.insert(value.into());
            value
        } else {
            OTHER
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_values_stay_and_the_rest_is_other() {
        let cap = Cap::new(2, ["prod"]);
        assert_eq!(cap.admit("dev"), "dev");
        assert_eq!(cap.admit("evil"), OTHER);
        assert_eq!(cap.admit("prod"), "prod");
        assert_eq!(cap.admit("dev"), "dev");
    }
}
