//! Credentials in a request URI: query parameters, and the command of an exec.

use std::borrow::Cow;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

use super::{is_marker, marker, name, text};

/// What Go's `url.QueryEscape` leaves alone; a blank becomes `+`.
const QUERY: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~').remove(b' ');

/// `None` when there is nothing to redact. Parameters without a secret stay as they were written.
pub(super) fn redact(uri: &str) -> Option<String> {
    let (path, query) = uri.split_once('?').unwrap_or((uri, ""));
    let new_path = text::redact(path);
    let mut changed = new_path.is_some();
    let mut command = Command::default();
    let mut parts = Vec::new();
    for part in query.split('&') {
        let new = parameter(part, &mut command);
        changed |= new.is_some();
        parts.push(new.map_or(Cow::Borrowed(part), Cow::Owned));
    }
    changed.then(|| {
        let path = new_path.as_deref().unwrap_or(path);
        if uri.contains('?') { format!("{path}?{}", parts.join("&")) } else { path.to_owned() }
    })
}

/// The words of the command so far.
#[derive(Default)]
struct Command {
    program: Option<String>,
    before: Option<String>,
}

fn parameter(part: &str, command: &mut Command) -> Option<String> {
    let (raw_key, raw_value) = part.split_once('=')?;
    let key = decode(raw_key);
    let value = decode(raw_value);
    if value.is_empty() {
        return None;
    }
    let new = if key == "command" {
        let new = text::argument(command.program.as_deref().unwrap_or(&value), command.before.as_deref(), &value);
        command.program.get_or_insert_with(|| value.to_string());
        command.before = Some(value.into_owned());
        new
    } else if is_secret_parameter(&key) {
        (!is_marker(&value)).then(|| marker(value.len()))
    } else {
        text::redact(&value)
    };
    new.map(|new| format!("{raw_key}={}", encode(&new)))
}

fn is_secret_parameter(key: &str) -> bool {
    name::is_credential_key(key)
        || name::promises_credential(key)
        || ["sig", "signature", "x-amz-signature"].iter().any(|s| key.eq_ignore_ascii_case(s))
}

fn decode(text: &str) -> Cow<'_, str> {
    if !text.contains(['%', '+']) {
        return Cow::Borrowed(text);
    }
    Cow::Owned(percent_decode_str(&text.replace('+', " ")).decode_utf8_lossy().into_owned())
}

fn encode(text: &str) -> String {
    utf8_percent_encode(text, QUERY).to_string().replace(' ', "+")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries() {
        for (uri, expected) in [
            ("/api/v1/pods?limit=500&token=abc&x=%31", "/api/v1/pods?limit=500&token=%3Credacted+3+bytes%3E&x=%31"),
            ("/x?access_token=a%2Bb", "/x?access_token=%3Credacted+3+bytes%3E"),
            (
                "/e?command=mysql&command=-uroot&command=-ps3cret&container=c",
                "/e?command=mysql&command=-uroot&command=-p%3Credacted+6+bytes%3E&container=c",
            ),
            (
                "/e?command=%2Fbin%2Fvault&command=--token&command=s.abc&command=read",
                "/e?command=%2Fbin%2Fvault&command=--token&command=%3Credacted+5+bytes%3E&command=read",
            ),
            (
                "/e?command=sh&command=-c&command=curl+-H+%22Authorization%3A+Bearer+abcdefg1%22+https%3A%2F%2Fx",
                "/e?command=sh&command=-c&command=curl+-H+%22Authorization%3A+Bearer+%3Credacted+8+bytes%3E%22+https%3A%2F%2Fx",
            ),
            (
                "/e?command=sh&command=-c&command=PGPASSWORD%3Dhunter2+psql",
                "/e?command=sh&command=-c&command=PGPASSWORD%3D%3Credacted+7+bytes%3E+psql",
            ),
        ] {
            assert_eq!(redact(uri).as_deref(), Some(expected));
            assert_eq!(redact(expected), None, "{expected}");
        }
        for same in [
            "/api/v1/namespaces/vault/secrets?fieldSelector=metadata.name%3Dtoken&limit=1",
            "/api/v1/secrets?continue=eyJ2IjoibWV0YS5rOHMuaW8vdjEiLCJydiI6MX0&limit=500",
            "/e?command=ls&command=-p&command=x",
            "/e?command=mysql&command=-p",
            "/?",
            "",
            "/x?token=",
        ] {
            assert_eq!(redact(same), None, "{same}");
        }
    }
}
