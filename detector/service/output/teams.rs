//! Alerts in Microsoft Teams through the webhook of a Workflow, as an Adaptive Card.
//!
//! Text an attacker may have written stands only in text runs, where Teams renders no Markdown, no mention and no link.

use std::path::{Path, PathBuf};

use lapwing_engine::alert::{Alert, Level, Status};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::encode::{cap, json_line, visible};
use super::{Common, Failure, Receipt, http, text, tls, webhook};
use crate::config::HumanDuration;

/// Teams takes 28 KB.
const MAX_BYTES: usize = 26_000;
/// Longest section, in lines.
const LINES: usize = 21;

/// Settings of an output of type `teams`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
#[schemars(extend("required" = ["name", "urlFile"]))]
pub struct Config {
    #[serde(flatten)]
    pub common: Common,
    /// File that holds the address of the workflow. The address is a secret.
    pub url_file: PathBuf,
    /// Told as resolved when nothing came of it for so long. Default: never.
    pub resolve_after: Option<HumanDuration>,
    /// How to trust the receiver.
    pub tls: tls::Config,
    /// Longest time for one request, in seconds (1 to 300).
    pub timeout_seconds: http::Timeout,
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
        let mut found: Vec<String> = http::no_server_name(&self.tls).into_iter().collect();
        if self.url_file.as_os_str().is_empty() {
            found.push("urlFile is missing; expected a file with the address of the workflow".to_owned());
        }
        found.extend(self.timeout_seconds.problem());
        found
    }
}

#[derive(Debug)]
pub struct Teams {
    url_file: PathBuf,
    client: http::Client,
}

impl Teams {
    pub fn new(config: &Config) -> Result<Self, String> {
        webhook::url_from(&config.url_file).map_err(|e| e.to_string())?;
        let client = http::Client::checked(&config.tls, config.timeout_seconds.get())?;
        Ok(Self { url_file: config.url_file.clone(), client })
    }

    pub async fn deliver(&mut self, alerts: &[&Alert]) -> Result<Receipt, Failure> {
        let url = webhook::url_from(&self.url_file)?;
        let body = message(alerts).into_bytes();
        let mut answer = self.client.post(&url, http::content("application/json"), body).await?;
        answer.hide_address(&url);
        verdict(&answer)?;
        Ok(Receipt(answer.told()))
    }
}

/// The retired connectors answer 200 and say in the body that they failed.
fn verdict(answer: &http::Answer) -> Result<(), Failure> {
    answer.verdict()?;
    answer.complete()?;
    let failed = answer.body.contains("delivery failed") || answer.body.contains("HTTP error 4");
    if answer.body.contains("HTTP error 429") {
        return Err(Failure::Retry { reason: answer.told(), after: answer.retry_after });
    }
    if failed { Err(Failure::reject(answer.told())) } else { Ok(()) }
}

const fn colour(level: Level) -> &'static str {
    match level {
        Level::Critical | Level::High => "attention",
        Level::Medium => "warning",
        Level::Low => "accent",
        Level::Informational => "default",
    }
}

/// A block of text runs: nothing in it is markup.
fn block(runs: Vec<Value>) -> Value {
    json!({ "type": "RichTextBlock", "inlines": runs })
}

fn run(text: &str, max: usize) -> Value {
    let text = if text.trim().is_empty() { "-" } else { text };
    json!({ "type": "TextRun", "text": cap(&visible(text), max) })
}

fn bold(text: &str, max: usize) -> Value {
    let mut run = run(text, max);
    run["weight"] = "bolder".into();
    run
}

fn section(body: &mut Vec<Value>, title: &str, lines: &[String], max: usize) {
    let lines: Vec<&str> = lines.iter().flat_map(|l| l.lines()).filter(|l| !l.trim().is_empty()).collect();
    if lines.is_empty() {
        return;
    }
    let mut title = block(vec![bold(title, 100)]);
    title["spacing"] = "medium".into();
    body.push(title);
    for line in lines.into_iter().take(LINES) {
        let mut run = run(line, max);
        if text::is_command(line) {
            run["fontType"] = "monospace".into();
        }
        body.push(close(block(vec![run])));
    }
}

/// Right below what stands above it.
fn close(mut block: Value) -> Value {
    block["spacing"] = "none".into();
    block
}

fn card(words: &text::Words, colour: &str, max: usize) -> Value {
    let mut headline = bold(&words.headline, max);
    headline["size"] = "large".into();
    headline["color"] = colour.into();
    let mut body = vec![block(vec![headline]), block(vec![run(&words.summary, max)])];
    for (at, (label, value)) in words.facts.iter().enumerate() {
        let fact = block(vec![bold(&format!("{label}: "), 100), run(value, max)]);
        body.push(if at == 0 { fact } else { close(fact) });
    }
    section(&mut body, "Why it is unusual", &words.unusual, max);
    section(&mut body, "Why it matters", std::slice::from_ref(&words.why), max);
    section(&mut body, "Harmless when", &words.false_positives, max);
    section(&mut body, "Do next", &words.next_steps, max);
    section(&mut body, "Told with it", &words.others, max);
    json!({ "type": "message", "attachments": [{
        "contentType": "application/vnd.microsoft.card.adaptive", "contentUrl": null,
        "content": { "$schema": "http://adaptivecards.io/schemas/adaptive-card.json", "type": "AdaptiveCard",
            "version": "1.4", "msteams": { "width": "full" }, "fallbackText": cap(&visible(&words.headline), 200),
            "body": body },
    }] })
}

/// The message for a notice, in at most [`MAX_BYTES`]: what is least needed goes first.
fn message(alerts: &[&Alert]) -> String {
    let (mut words, worst) = (text::message(alerts), text::worst(alerts));
    let colour = if worst.status == Status::Resolved { "default" } else { colour(worst.level) };
    let write = |words: &text::Words, max| json_line(&card(words, colour, max)).unwrap_or_default();
    let mut text = write(&words, 1000);
    let steps: [fn(&mut text::Words); 4] = [
        |w| w.false_positives.clear(),
        |w| w.others.truncate(5),
        |w| w.unusual.truncate(3),
        |w| w.facts.retain(|(label, _)| *label != "Detail"),
    ];
    for step in steps {
        if text.len() > MAX_BYTES {
            step(&mut words);
            text = write(&words, 400);
        }
    }
    if text.len() > MAX_BYTES {
        words.next_steps.truncate(2);
        words.why = String::new();
        words.others.truncate(1);
        text = write(&words, 60);
    }
    text
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::output::sample;

    fn read(alerts: &[&Alert]) -> Value {
        serde_json::from_str(&message(alerts)).unwrap()
    }

    /// Every text of a card with the type of element it stands in.
    fn texts(value: &Value, out: &mut Vec<(String, String)>) {
        match value {
            Value::Object(map) => {
                if let (Some(kind), Some(text)) = (map.get("type"), map.get("text")) {
                    out.push((kind.as_str().unwrap().to_owned(), text.as_str().unwrap().to_owned()));
                }
                map.values().for_each(|v| texts(v, out));
            }
            Value::Array(list) => list.iter().for_each(|v| texts(v, out)),
            _ => {}
        }
    }

    #[test]
    fn says_the_words() {
        let mut found = Vec::new();
        texts(&read(&[&sample::alert()]), &mut found);
        let all: Vec<&str> = found.iter().map(|(_, t)| t.as_str()).collect();
        for part in
            ["HIGH Shell opened in a pod", "Who: ", "alice (human)", "RoleBinding shop/devs", "lapwing show a1b2c3d4"]
        {
            assert!(all.contains(&part), "{part}: {all:#?}");
        }
    }

    #[test]
    fn a_link_or_mention_from_an_event_is_only_text() {
        let mut found = Vec::new();
        texts(&read(&[&sample::hostile("[reset](http://evil) <at>all</at> **b**")]), &mut found);
        assert!(found.iter().all(|(kind, _)| kind == "TextRun"), "{found:?}");
        assert!(!message(&[&sample::hostile("x")]).contains("entities"), "a mention needs an entity");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn never_too_large(text in "[a-z<\\[\n\\x01\u{202e}é]{0,4000}", others in 0usize..40) {
            let mut alert = sample::hostile(&text);
            alert.why = text.clone();
            alert.rule.title = text.clone();
            alert.evidence[0].details = vec![text; 10];
            let alerts = vec![alert; others + 1];
            let message = message(&alerts.iter().collect::<Vec<_>>());
            prop_assert!(message.len() <= MAX_BYTES, "{}", message.len());
            prop_assert!(!message.contains('\n'));
        }
    }

    #[test]
    fn teams_says_no_in_a_200() {
        let answer = http::Answer::of;
        assert!(verdict(&answer(202, "")).is_ok() && verdict(&answer(200, "1")).is_ok());
        let failed = "Webhook message delivery failed with error: Microsoft Teams endpoint returned HTTP error ";
        assert!(matches!(verdict(&answer(200, &format!("{failed}429"))), Err(Failure::Retry { .. })));
        assert!(matches!(verdict(&answer(200, &format!("{failed}413"))), Err(Failure::Reject { .. })));
        assert!(matches!(verdict(&answer(400, "no")), Err(Failure::Reject { .. })));
    }
}
