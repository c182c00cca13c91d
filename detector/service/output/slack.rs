//! Alerts in a Slack channel through an incoming webhook, or through a bot, which can thread; laid out with Block Kit.
//!
//! Text an attacker may have written stands only in `plain_text` and in the text of `rich_text`, where Slack renders no
//! markup, no mention and no link; links are never unfurled.

mod threads;

use std::path::{Path, PathBuf};
use std::time::Duration;

use lapwing_engine::alert::{Alert, Level, Status};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::time::Instant;

use self::threads::Threads;
use super::encode::{cap, slack, visible};
use super::{Common, Failure, Receipt, http, secret, text, tls, webhook};
use crate::config::HumanDuration;
use crate::flow::gather::identity;

/// Slack's limits, in characters.
const HEADER: usize = 150;
const SECTION: usize = 3000;
/// Ours: longest section of prose, so that a whole message stays below the 13,000 Slack takes.
const PROSE: usize = 2000;
/// Ours: longest piece of one field.
const FIELD: usize = 300;
/// Ours: facts of one alert.
const FIELDS: usize = 12;
/// Messages at once before one a second.
const BURST: f64 = 5.0;

/// What Slack says when a thread cannot be written to.
const THREAD_GONE: [&str; 3] = ["thread_not_found", "cannot_reply_to_message", "thread_locked"];
const API: &str = "https://slack.com/api/";

/// Settings of an output of type `slack`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
#[schemars(extend("required" = ["name"]))]
pub struct Config {
    #[serde(flatten)]
    pub common: Common,
    /// File that holds the address of an incoming webhook. The address is a secret. Either this, or `tokenFile`.
    pub url_file: Option<PathBuf>,
    /// File with a bot token (scope `chat:write`): what goes on stands in one thread. Needs `channel`.
    pub token_file: Option<PathBuf>,
    /// Where the bot writes: the id of a channel it was invited to.
    pub channel: Option<String>,
    /// Where the bot's API is.
    pub api_url: String,
    /// Told as resolved when nothing came of it for so long. Default: never.
    pub resolve_after: Option<HumanDuration>,
    /// How to trust the receiver.
    pub tls: tls::Config,
    /// Longest time for one request, in seconds (1 to 300).
    pub timeout_seconds: http::Timeout,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            common: Common::default(),
            url_file: None,
            token_file: None,
            channel: None,
            api_url: API.to_owned(),
            resolve_after: None,
            tls: tls::Config::default(),
            timeout_seconds: http::Timeout::default(),
        }
    }
}

impl Config {
    pub(super) fn target(&self) -> String {
        match (&self.url_file, &self.channel) {
            (Some(path), _) => format!("the address in {}", path.display()),
            (None, Some(channel)) => format!("channel {channel}"),
            (None, None) => "nowhere".to_owned(),
        }
    }

    pub(super) fn resolve(&mut self, base: &Path) {
        http::resolve(base, [&mut self.url_file, &mut self.token_file]);
        self.tls.resolve(base);
    }

    pub(super) fn problems(&self) -> Vec<String> {
        let mut found = Vec::new();
        match (&self.url_file, &self.token_file, &self.channel) {
            (Some(_), None, None) | (None, Some(_), Some(_)) => {}
            _ => found.push("set `urlFile` (an incoming webhook), or `tokenFile` and `channel` (a bot)".to_owned()),
        }
        found.extend(http::parse(&self.api_url).err().map(|e| format!("apiUrl: {e}")));
        found.extend(http::no_server_name(&self.tls));
        found.extend(self.timeout_seconds.problem());
        found
    }
}

#[derive(Debug)]
pub struct Slack {
    config: Config,
    client: http::Client,
    pace: Pace,
    threads: Threads,
}

impl Slack {
    pub fn new(config: &Config) -> Result<Self, String> {
        if let Some(path) = &config.url_file {
            webhook::url_from(path).map_err(|e| e.to_string())?;
        }
        if let Some(path) = &config.token_file {
            secret::read(path).map_err(|e| e.to_string())?;
        }
        let client = http::Client::checked(&config.tls, config.timeout_seconds.get())?;
        Ok(Self { config: config.clone(), client, pace: Pace::new(), threads: Threads::default() })
    }

    /// Threads outlive the process, in `data_dir/outputs`.
    pub fn remember_in(&mut self, data_dir: &Path) {
        if let Some(channel) = &self.config.channel {
            self.threads = Threads::of(data_dir, &self.config.common.name, channel);
        }
    }

    pub async fn deliver(&mut self, alerts: &[&Alert]) -> Result<Receipt, Failure> {
        let mut body = message(alerts);
        let mut headers = http::content("application/json; charset=utf-8");
        let worst = text::worst(alerts);
        let incident = identity(worst);
        let url = match (&self.config.url_file, &self.config.token_file) {
            (Some(path), _) => webhook::url_from(path)?,
            (None, token) => {
                http::bearer(&mut headers, "Bearer", token.as_deref())?;
                body["channel"] = self.config.channel.clone().into();
                if let Some(thread) = self.threads.get(&incident) {
                    body["thread_ts"] = thread.into();
                    body["reply_broadcast"] = (worst.status == Status::New).into();
                }
                let api = format!("{}/chat.postMessage", self.config.api_url.trim_end_matches('/'));
                http::parse(&api).map_err(Failure::retry)?
            }
        };
        let body = serde_json::to_vec(&body).map_err(Failure::reject)?;
        self.pace.wait().await;
        let mut answer = self.client.post(&url, headers, body).await?;
        if self.config.url_file.is_some() {
            answer.hide_address(&url);
        }
        if self.config.token_file.is_none() {
            verdict(&answer)?;
        } else {
            let posted = bot_verdict(&answer).inspect_err(|_| {
                // Somebody deleted or locked it: what goes on begins another.
                if THREAD_GONE.iter().any(|gone| answer.body.contains(gone)) {
                    self.threads.end(&incident);
                }
            })?;
            match worst.status {
                Status::Resolved => self.threads.end(&incident),
                _ => self.threads.used(&incident, &posted),
            }
            self.threads.keep().await;
        }
        Ok(Receipt(answer.told()))
    }
}

/// Slack says no in the body of a 200, and 403 means the webhook is gone.
fn verdict(answer: &http::Answer) -> Result<(), Failure> {
    if answer.status.as_u16() == 403 {
        return Err(Failure::reject(format_args!("{}; make a new incoming webhook", answer.told())));
    }
    answer.verdict()?;
    answer.complete()?;
    if answer.body.trim() == "ok" { Ok(()) } else { Err(Failure::reject(answer.told())) }
}

/// The time stamp of the message a bot wrote, which is its name. Of the many errors only those about this message or
/// this channel are final.
fn bot_verdict(answer: &http::Answer) -> Result<String, Failure> {
    answer.verdict()?;
    answer.complete()?;
    let body: Value = serde_json::from_str(answer.body.trim()).unwrap_or_default();
    if body["ok"] == true {
        return Ok(body["ts"].as_str().unwrap_or_default().to_owned());
    }
    let told = answer.told();
    match body["error"].as_str().unwrap_or_default() {
        "channel_not_found"
        | "not_in_channel"
        | "is_archived"
        | "msg_too_long"
        | "msg_blocks_too_long"
        | "no_text"
        | "invalid_blocks"
        | "invalid_blocks_format"
        | "restricted_action" => Err(Failure::reject(told)),
        _ => Err(Failure::Retry { reason: told, after: answer.retry_after }),
    }
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

/// A piece of rich text. Slack shows its characters as they are: a link or a mention would be another kind of element.
fn rich(text: &str, max: usize, bold: bool) -> Value {
    let text = if text.trim().is_empty() { "-" } else { text };
    let mut piece = json!({ "type": "text", "text": cap(text, max) });
    if bold {
        piece["style"] = json!({ "bold": true });
    }
    piece
}

fn rich_block(elements: Vec<Value>) -> Value {
    json!({ "type": "rich_text", "elements": elements })
}

/// A line of pieces.
fn rich_line(pieces: Vec<Value>) -> Value {
    json!({ "type": "rich_text_section", "elements": pieces })
}

/// A titled section. Lines stay lines, commands stand apart, to be copied; nothing in them is markup.
fn section(title: &str, lines: &[String]) -> Option<Value> {
    let lines: Vec<String> = lines.iter().flat_map(|l| l.lines()).map(|l| visible(l).trim_end().to_owned()).collect();
    let (commands, prose): (Vec<&str>, Vec<&str>) =
        lines.iter().map(String::as_str).filter(|l| !l.trim().is_empty()).partition(|l| text::is_command(l));
    let mut first = vec![rich(title, 100, true)];
    let prose = (!prose.is_empty()).then(|| prose.join("\n"));
    if commands.is_empty() {
        first.push(rich(&format!("\n{}", prose?), PROSE, false));
        return Some(rich_block(vec![rich_line(first)]));
    }
    let commands = rich(&commands.join("\n"), PROSE, false);
    let mut elements = vec![rich_line(first), json!({ "type": "rich_text_preformatted", "elements": [commands] })];
    elements.extend(prose.map(|prose| rich_line(vec![rich(&prose, PROSE, false)])));
    Some(rich_block(elements))
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

/// The message for a notice: at most ten blocks, every limit of Block Kit kept.
fn message(alerts: &[&Alert]) -> Value {
    let (alert, words) = (text::worst(alerts), text::message(alerts));
    let emblem = if alert.status == Status::Resolved { "⬜" } else { emblem(alert.level) };
    let header = format!("{emblem} {}", words.headline);
    let shown = words.facts.iter().filter(|(label, _)| !matches!(*label, "Rule" | "Alert")).take(FIELDS);
    let mut facts = Vec::new();
    for (at, (label, value)) in shown.enumerate() {
        // Sections that follow each other would stand in one line: one section, and the line breaks are its own.
        let line = if at == 0 { "" } else { "\n" };
        facts.push(rich(&format!("{line}{label}: "), 100, true));
        facts.push(rich(&visible(value), FIELD, false));
    }
    let mut blocks = vec![
        json!({ "type": "header", "text": plain_text(&header, HEADER) }),
        rich_block(vec![rich_line(vec![rich(&visible(&words.summary), 1000, false)])]),
        rich_block(vec![rich_line(facts)]),
    ];
    blocks.extend(section("Why it is unusual", &words.unusual));
    blocks.extend(section("Why it matters", std::slice::from_ref(&words.why)));
    blocks.extend(section("Harmless when", &words.false_positives));
    blocks.extend(section("Do next", &words.next_steps));
    blocks.extend(section("Told with it", &words.others));
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
        let message = message(&[&sample::alert()]);
        let mut found = Vec::new();
        texts(&message, &mut found);
        let all: Vec<_> = found.iter().map(|(_, t)| *t).collect();
        assert_eq!(all[0], "🟧 HIGH Shell opened in a pod");
        let all = all.join("|");
        for part in [
            "Who: |alice (human)|\nWhat: |",
            "From: |203.0.113.7|",
            "Right: |RoleBinding shop/devs|",
            "Outcome: |allowed (101)|",
            "Do next|lapwing show a1b2c3d4\nkubectl -n shop get pod web-1 -o yaml|Ask alice whether this was planned|",
        ] {
            assert!(all.contains(part), "{part}: {all}");
        }
    }

    #[test]
    fn a_mention_or_link_from_an_event_is_only_text() {
        let evil = "<!channel> <http://evil|Reset password> *b* `c`";
        let message = message(&[&sample::hostile(evil)]);
        let mut found = Vec::new();
        texts(&message, &mut found);
        assert!(found.iter().all(|(kind, _)| ["plain_text", "text"].contains(kind)), "{found:?}");
        for kind in ["mrkdwn", "\"link\"", "\"user\"", "\"broadcast\"", "\"emoji\",", "\"url\""] {
            assert!(!message["blocks"].to_string().contains(kind), "{kind}");
        }
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
            let message = message(&[&alert]);
            let blocks = message["blocks"].as_array().unwrap();
            let count = |v: &Value| v["text"].as_str().unwrap().chars().count();
            prop_assert!(count(&blocks[0]["text"]) <= HEADER);
            for block in blocks {
                prop_assert!(block.get("text").is_none_or(|t| (1..=SECTION).contains(&count(t))));
                for line in block["elements"].as_array().into_iter().flatten() {
                    let pieces = line["elements"].as_array().into_iter().flatten();
                    prop_assert!(pieces.clone().all(|p| (1..=SECTION).contains(&count(p))), "{}", line);
                }
            }
            let mut all = Vec::new();
            texts(&message, &mut all);
            prop_assert!(all.iter().map(|(_, t)| t.chars().count()).sum::<usize>() < 13_000);
        }
    }

    #[test]
    fn slack_says_no_in_many_ways() {
        let answer = http::Answer::of;
        assert!(verdict(&answer(200, "ok")).is_ok());
        assert_eq!(bot_verdict(&answer(200, r#"{"ok":true,"ts":"17.1"}"#)).unwrap(), "17.1");
        for (error, gone) in [("channel_not_found", true), ("invalid_auth", false), ("fatal_error", false)] {
            let no = bot_verdict(&answer(200, &format!(r#"{{"ok":false,"error":"{error}"}}"#)));
            assert_eq!(matches!(no, Err(Failure::Reject { .. })), gone, "{error}: {no:?}");
        }
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
