//! The effective configuration as text, without its secrets.

use serde_json::Value as Json;

use super::Loaded;
use super::tree::{Node, Value};

const HIDDEN: &str = "(hidden)";

impl Loaded {
    /// Every key that has a value, defaults included, as YAML. Secrets are hidden, and a value that came
    /// from the environment is shown as it was written, `${NAME}`.
    pub fn show(&self) -> String {
        let mut json = serde_json::to_value(&self.config).unwrap_or_default();
        hide(&mut json, Some(&self.tree), "");
        serde_saphyr::to_string(&json).unwrap_or_default()
    }
}

fn hide(json: &mut Json, node: Option<&Node>, key: &str) {
    if let Some(template) = node.and_then(|n| n.template.as_ref()) {
        *json = template.as_str().into();
        return;
    }
    match json {
        Json::Object(map) => {
            map.retain(|_, inner| !inner.is_null());
            for (name, inner) in map {
                hide(inner, node.and_then(|n| n.entry(name)).map(|e| &e.node), name);
            }
        }
        Json::Array(items) => {
            let nodes = match node.map(|n| &n.value) {
                Some(Value::List(nodes)) => nodes.as_slice(),
                _ => &[],
            };
            for (i, inner) in items.iter_mut().enumerate() {
                hide(inner, nodes.get(i), key);
            }
        }
        Json::String(text) if is_secret(key) && !text.is_empty() => *text = HIDDEN.into(),
        Json::String(text) => hide_password(text),
        _ => {}
    }
}

/// Keys whose value is a secret itself, in our own sections and in librdkafka properties. A key that
/// names a file (`tokenFile`) or a place does not hold the secret.
fn is_secret(key: &str) -> bool {
    let key = key.to_ascii_lowercase();
    let names_a_place = key.ends_with("file") || key.ends_with("location") || key.ends_with("path");
    let words =
        ["password", "passwd", "secret", "token", "authorization", "apikey", "api_key", "api-key", "credential"];
    let exact = ["webhookurl", "ssl.key.pem", "sasl.jaas.config"];
    !names_a_place && (words.iter().any(|w| key.contains(w)) || exact.contains(&key.as_str()))
}

/// `https://user:password@host` without the password, and the secret paths of Slack's hooks.
fn hide_password(text: &mut String) {
    let Some(scheme) = text.find("://").map(|at| at + 3) else { return };
    let end = text[scheme..].find(['/', '?']).map_or(text.len(), |at| scheme + at);
    if text[scheme..end].ends_with("hooks.slack.com") {
        text.truncate(end);
        text.push('/');
        text.push_str(HIDDEN);
        return;
    }
    let Some(at) = text[scheme..end].rfind('@').map(|at| scheme + at) else { return };
    if let Some(colon) = text[scheme..at].find(':').map(|c| scheme + c) {
        text.replace_range(colon + 1..at, HIDDEN);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_hidden_and_files_are_not() {
        for (key, secret) in [
            ("password", true),
            ("sasl.password", true),
            ("signingSecret", true),
            ("Authorization", true),
            ("ssl.key.location", false),
            ("tokenFile", false),
            ("name", false),
        ] {
            assert_eq!(is_secret(key), secret, "{key}");
        }
    }

    #[test]
    fn passwords_in_urls_are_hidden() {
        for (url, shown) in [
            ("https://u:p@h/x", "https://u:(hidden)@h/x"),
            ("https://h:9/x@y:z", "https://h:9/x@y:z"),
            ("https://hooks.slack.com/services/T/B/x", "https://hooks.slack.com/(hidden)"),
            ("siem:6514", "siem:6514"),
        ] {
            let mut text = url.to_owned();
            hide_password(&mut text);
            assert_eq!(text, shown);
        }
    }
}
