//! Redaction before the journal: secrets never reach the disk.
//!
//! [`event`] takes the JSON text of one event and returns it with every credential replaced by
//! `<redacted N bytes>`; key names, lengths and everything around stay as they were, byte for byte.
//! The text is never parsed into a value and written again: single strings are replaced in place, so
//! numbers, key order, depth and damage survive, and depth costs no stack. An event without any
//! trigger word is returned borrowed; that is the common case and costs one vectorised pass.
//!
//! Detection must not need the values. What a rule still sees: that a key exists, that its value was
//! a credential, how long it was, and the command line around it.

mod document;
mod name;
mod tape;
mod text;
mod trigger;
mod uri;

use std::borrow::Cow;

/// One event's JSON text without its secrets. Valid JSON stays valid; twice is the same as once.
/// Text that is not JSON, or is cut, is treated as far as it can be read and pattern-redacted behind.
pub fn event(json: &str) -> Cow<'_, str> {
    if !trigger::any(json) {
        return Cow::Borrowed(json);
    }
    match document::redact(json) {
        Some(changed) => Cow::Owned(changed),
        None => Cow::Borrowed(json),
    }
}

/// Plain text (a log line, an error detail) without its secrets.
pub fn plain(line: &str) -> Cow<'_, str> {
    match text::redact(line) {
        Some(changed) => Cow::Owned(changed),
        None => Cow::Borrowed(line),
    }
}

/// The start of something unreadable, redacted, at most `limit` bytes, for a reject.
pub fn excerpt(bytes: &[u8], limit: usize) -> String {
    // Redact more than is kept, so that the cut does not hide a pattern's end from its redactor.
    let window = &bytes[..bytes.len().min(limit.saturating_mul(4))];
    let lossy = String::from_utf8_lossy(window);
    let redacted = event(&lossy);
    let mut end = redacted.len().min(limit);
    while !redacted.is_char_boundary(end) {
        end -= 1;
    }
    redacted[..end].to_owned()
}

const OPEN: &str = "<redacted ";

/// What stands in place of a secret of `bytes` bytes.
fn marker(bytes: usize) -> String {
    format!("{OPEN}{bytes} bytes>")
}

/// Already what [`marker`] writes.
fn is_marker(value: &str) -> bool {
    value
        .strip_prefix(OPEN)
        .and_then(|rest| rest.strip_suffix(" bytes>"))
        .is_some_and(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()))
}

#[cfg(test)]
mod tests;
