//! What is remembered can be hundreds of megabytes: it is written as it is gone through, never copied first.

use serde::{Serialize, Serializer};

/// A list in what is written: whatever the iterator gives that the function makes.
pub(crate) struct Listed<F>(pub F);

impl<F: Fn() -> I, I: Iterator<Item: Serialize>> Serialize for Listed<F> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0())
    }
}
