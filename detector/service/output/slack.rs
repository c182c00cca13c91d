//! Alerts in a Slack channel through an incoming webhook, laid out with Block Kit.
//!
//! Text an attacker may have written stands only in `plain_text` blocks, where Slack renders no markup, no
//! mention and no link; links are never unfurled.

use std::path::{Path, PathBuf};
use std::time::Duration;

use lapwing_engine::alert::{Alert, Level};
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::encode::{cap, slack, visible};
use super::{Failure, Receipt, Retry, http, text, tls, webhook};

/// Slack's limits, in characters.
const HEADER: usize = 150;
const SECTION: usize = 3000;
/// Ours: longest section of prose, so that a whole message stays below the 13,000 Slack takes.
const PROSE: usize = 2000;
/// Ours: longest piece of one field.
const FIELD: usize = 300;
/// Slack takes ten fields in a section.
const FIELDS: usize = 10;
/// Messages at once before one a second.
const BURST: f64 = 5.0;

/// Settings of an output of type `slack`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
#[schemars(extend("required" = ["name", "urlFile"]))]
pub struct Config {
    /// Unique name of this output.
    pub name: String,
    /// Alerts below this level are not sent. Default: medium.
    pub min_level: Level,
    /// How stubborn it is.
    pub retry: Retry,
    /// File that holds the address of the incoming webhook. The address is a secret.
    pub url_file: PathBuf,
    /// How to trust the receiver.
    pub tls: tls::Config,
}

impl Config {
    pub(super) fn target(&self) -> String {
        format!("the address in {}", self.url_file.display())
    }

    pub(super) fn resolve(&mut self, base: &Path) {
        self.url_file = base.join(&self.url_file);
        self.tls.resolve(base);
    }

    pub(super) fn problems(&self) -> Vec<String> {
        let mut found = Vec::new();
        if self.url_file.as_os_str().is_empty() {
            found.push("urlFile is missing; expected a file with the address of the incoming webhook".to_owned());
        }
        if self.tls.server_name.is_some() {
            found.push("tls.serverName does not apply here; the name in the url is verified".to_owned());
        }
        found
    }
}

#[derive(Debug)]
pub struct Slack {
    url_file: PathBuf,
    client: http::Client,
    pace: Pace,
}

impl Slack {
    pub fn new(config: &Config) -> Result<Self, String> {
        webhook::url_from(&config.url_file).map_err(|e| e.to_string())?;
        config.tls.client().map_err(|e| e.to_string())?;
        let client = http::Client::new(config.tls.clone(), Duration::from_secs(30));
        Ok(Self { url_file: config.url_file.clone(), client, pace: Pace::new() })
    }

    pub async fn deliver(&mut self, alert: &Alert) -> Result<Receipt, Failure> {
        let url = webhook::url_from(&self.url_file)?;
        let body = serde_json::to_vec(&message(alert)).map_err(Failure::reject)?;
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json; charset=utf-8"));
        self.pace.wait().await;
        let answer = self.client.post(&url, headers, body).await?;
        verdict(&answer)?;
        Ok(Receipt(answer.told()))
    }
}

/// Slack says no in the body of a 200, and 403 means the webhook is gone.
fn verdict(answer: &http::Answer) -> Result<(), Failure> {
    if answer.status.as_u16() == 403 {
        return Err(Failure::reject(format_args!("{}; make a new incoming webhook", answer.told())));
    }
    answer.verdict()?;
    let body = answer.body.trim();
    let accepted = body == "ok"
        || serde_json::from_str::<Value>(body).is_ok_and(|v| v.get("ok").and_then(Value::as_bool) == Some(true));
    if accepted { Ok(()) } else { Err(Failure::reject(answer.told())) }
}

/// A short burst, then a message a second: more, and Slack refuses.
#[derive(Debug)]
struct Pace {
    tokens: f64,
    at: Instant,
}

impl Pace {
    fn new() -> Self {
        Self { tokens: BURST, at: Instant::now() }
    }

    async fn wait(&mut self) {
        let now = Instant::now();
        self.tokens = (self.tokens + (now - self.at).as_secs_f64()).min(BURST) - 1.0;
        self.at = now;
        if self.tokens < 0.0 {
            tokio::time::sleep(Duration::from_secs_f64(-self.tokens)).await;
        }
    }
}

fn plain_text(text: &str, max: usize) -> Value {
    // Slack refuses an empty text.
    let text = if text.trim().is_empty() { "-" } else { text };
    json!({ "type": "plain_text", "text": cap(&visible(text), max), "emoji": false })
}

/// A titled section. Lines stay lines; nothing in them is markup.
fn section(title: &str, lines: &[String]) -> Option<Value> {
    let lines: Vec<String> = lines.iter().flat_map(|l| l.lines()).map(|l| visible(l).into_owned()).collect();
    let body = lines.join("\n");
    let text = format!("{title}\n{}", body.trim());
    let section = json!({ "type": "section",
        "text": { "type": "plain_text", "text": cap(&text, PROSE), "emoji": false } });
    (!body.trim().is_empty()).then_some(section)
}

fn emblem(level: Level) -> &'static str {
    match level {
        Level::Critical => "🟥",
        Level::High => "🟧",
        Level::Medium => "🟨",
        Level::Low => "🟦",
        Level::Informational => "⬜",
    }
}

/// The message for `alert`: at most eight blocks, every limit of Block Kit kept.
fn message(alert: &Alert) -> Value {
    let words = text::words(alert);
    let header = format!("{} {}", emblem(alert.level), words.headline);
    let facts = words.facts.iter().filter(|(label, _)| !matches!(*label, "Rule" | "Alert")).take(FIELDS);
    let fields: Vec<Value> = facts.map(|(label, value)| plain_text(&format!("{label}: {value}"), FIELD)).collect();
    let mut blocks = vec![
        json!({ "type": "header", "text": plain_text(&header, HEADER) }),
        json!({ "type": "section", "text": plain_text(&words.summary, 1000) }),
        json!({ "type": "section", "fields": fields }),
    ];
    blocks.extend(section("Why it is unusual", &words.unusual));
    blocks.extend(section("Why it matters", std::slice::from_ref(&words.why)));
    blocks.extend(section("Harmless when", &words.false_positives));
    blocks.extend(section("Do next", &words.next_steps));
    let footer = format!("Lapwing · alert {} · rule {}", cap(&alert.id, FIELD), cap(&alert.rule.id, FIELD));
    blocks.push(json!({ "type": "context", "elements": [plain_text(&footer, 2 * FIELD)] }));
    json!({
        "text": cap(&slack(&words.headline), SECTION),
        "mrkdwn": false,
        "unfurl_links": false,
        "unfurl_media": false,
        "link_names": false,
        "blocks": blocks,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use reqwest::StatusCode;

    use super::*;
    use crate::output::sample;

    fn texts<'a>(value: &'a Value, out: &mut Vec<(&'a str, &'a str)>) {
        match value {
            Value::Object(map) => {
                if let (Some(kind), Some(text)) =
                    (map.get("type").and_then(Value::as_str), map.get("text").and_then(Value::as_str))
                {
                    out.push((kind, text));
                }
                map.values().for_each(|v| texts(v, out));
            }
            Value::Array(list) => list.iter().for_each(|v| texts(v, out)),
            _ => {}
        }
    }

    #[test]
    fn says_the_words() {
        let message = message(&sample::alert());
        let mut found = Vec::new();
        texts(&message, &mut found);
        let all: Vec<_> = found.iter().map(|(_, t)| *t).collect();
        assert_eq!(all[0], "🟧 HIGH Shell opened in a pod");
        for part in [
            "Who: alice (human)",
            "From: 203.0.113.7",
            "Right: RoleBinding shop/devs",
            "Outcome: allowed (101)",
            "Do next\nkubectl -n shop get pod web-1 -o yaml\nAsk alice whether this was planned",
        ] {
            assert!(all.contains(&part), "{part}: {all:#?}");
        }
    }

    #[test]
    fn a_mention_or_link_from_an_event_is_only_text() {
        let evil = "<!channel> <http://evil|Reset password> *b* `c`";
        let message = message(&sample::hostile(evil));
        let mut found = Vec::new();
        texts(&message, &mut found);
        assert!(found.iter().all(|(kind, _)| *kind == "plain_text"), "{found:?}");
        assert!(!message["text"].as_str().unwrap().contains('<'));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]
        #[test]
        fn every_limit_is_kept(text in "[a-z<&\n\\x1b\u{202e}é]{0,5000}") {
            let mut alert = sample::hostile(&text);
            alert.why = text.clone();
            alert.rule.title = text.clone();
            alert.evidence[0].details = vec![text; 10];
            let message = message(&alert);
            let blocks = message["blocks"].as_array().unwrap();
            let count = |v: &Value| v["text"].as_str().unwrap().chars().count();
            prop_assert!(count(&blocks[0]["text"]) <= HEADER);
            for block in blocks {
                prop_assert!(block.get("text").is_none_or(|t| (1..=SECTION).contains(&count(t))));
                let fields = block.get("fields").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
                prop_assert!(fields.len() <= FIELDS && fields.iter().all(|f| (1..=2000).contains(&count(f))));
            }
            let mut all = Vec::new();
            texts(&message, &mut all);
            prop_assert!(all.iter().map(|(_, t)| t.chars().count()).sum::<usize>() < 13_000);
        }
    }

    #[test]
    fn slack_says_no_in_many_ways() {
        let answer = |status, body: &str| http::Answer {
            status: StatusCode::from_u16(status).unwrap(),
            retry_after: None,
            body: body.to_owned(),
        };
        assert!(verdict(&answer(200, "ok")).is_ok());
        assert!(verdict(&answer(200, "{\"ok\":true}")).is_ok());
        assert!(matches!(verdict(&answer(200, "{\"ok\":false}")), Err(Failure::Reject { .. })));
        assert!(matches!(verdict(&answer(200, "<html>proxy")), Err(Failure::Reject { .. })));
        for status in [400, 403, 404, 410] {
            assert!(matches!(verdict(&answer(status, "no")), Err(Failure::Reject { .. })), "{status}");
        }
        assert!(matches!(verdict(&answer(429, "")), Err(Failure::Retry { .. })));
        assert!(matches!(verdict(&answer(500, "")), Err(Failure::Retry { .. })));
    }

    #[tokio::test(start_paused = true)]
    async fn a_burst_and_then_one_a_second() {
        let (mut pace, start) = (Pace::new(), Instant::now());
        for _ in 0..5 {
            pace.wait().await;
        }
        assert_eq!(start.elapsed(), Duration::ZERO);
        for _ in 0..3 {
            pace.wait().await;
        }
        assert_eq!(start.elapsed().as_secs(), 3);
    }
}
