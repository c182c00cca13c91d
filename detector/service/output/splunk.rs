//! Alerts to Splunk's HTTP Event Collector, several in one request, with indexer acknowledgement where it is switched on.
//!
//! With acknowledgement an alert is delivered once an indexer has it, without it once Splunk's memory has it. A request
//! that is never acknowledged is sent again: search for distinct `event.id`.

use std::path::{Path, PathBuf};
use std::time::Duration;

use lapwing_engine::alert::Alert;
use reqwest::header::{HeaderMap, HeaderName};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::encode::{cap, json_line};
use super::{Common, Failure, Receipt, http, record, tls};

/// Alerts in one request, each of at most `MAX_BYTES`: below the megabyte Splunk recommends.
pub const BATCH: usize = 30;
const MAX_BYTES: usize = 30_000;
/// First pause before an acknowledgement is asked for; doubles up to ten seconds.
const ACK_PAUSE: Duration = Duration::from_millis(250);

/// Settings of an output of type `splunk`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
#[schemars(extend("required" = ["name", "url", "tokenFile"]))]
pub struct Config {
    #[serde(flatten)]
    pub common: Common,
    /// Where the collector is: `https://splunk.example.org:8088`.
    pub url: String,
    /// File with the token of the collector.
    pub token_file: PathBuf,
    /// Index to write to. Default: that of the token.
    pub index: Option<String>,
    /// Source type of the events.
    pub sourcetype: String,
    /// How an event is written: `json`, or `ocsf`.
    pub format: record::Format,
    /// Wait for an indexer to acknowledge. Must be as the token is configured.
    pub acknowledge: bool,
    /// Longest wait for an acknowledgement before the alerts are sent again, in seconds (1 to 3600).
    pub ack_timeout_seconds: u32,
    /// How to trust the receiver.
    pub tls: tls::Config,
    /// Longest time for one request, in seconds (1 to 300).
    pub timeout_seconds: http::Timeout,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            common: Common::default(),
            url: String::new(),
            token_file: PathBuf::new(),
            index: None,
            sourcetype: "lapwing:alert".to_owned(),
            format: record::Format::default(),
            acknowledge: false,
            ack_timeout_seconds: 300,
            tls: tls::Config::default(),
            timeout_seconds: http::Timeout::default(),
        }
    }
}

impl Config {
    pub(super) fn target(&self) -> String {
        http::named(&self.url)
    }

    pub(super) fn resolve(&mut self, base: &Path) {
        self.token_file = base.join(&self.token_file);
        self.tls.resolve(base);
    }

    pub(super) fn problems(&self) -> Vec<String> {
        let mut found = http::receiver_problems(&self.url, &self.tls, self.timeout_seconds);
        if self.token_file.as_os_str().is_empty() {
            found.push("tokenFile is missing; expected a file with the token of the collector".to_owned());
        }
        if !(1..=3600).contains(&self.ack_timeout_seconds) {
            found.push("ackTimeoutSeconds: expected 1 to 3600".to_owned());
        }
        found
    }
}

#[derive(Debug)]
pub struct Splunk {
    config: Config,
    client: http::Client,
    /// Names us to the acknowledgements; a new one for each run.
    channel: String,
}

impl Splunk {
    pub fn new(config: &Config) -> Result<Self, String> {
        let client = http::Client::checked(&config.tls, config.timeout_seconds.get())?;
        let splunk = Self { config: config.clone(), client, channel: channel() };
        splunk.headers().map_err(|e| e.to_string())?;
        Ok(splunk)
    }

    fn headers(&self) -> Result<HeaderMap, Failure> {
        let mut headers = http::content("application/json");
        http::bearer(&mut headers, "Splunk", Some(&self.config.token_file))?;
        http::secret_header(&mut headers, HeaderName::from_static("x-splunk-request-channel"), &self.channel)?;
        Ok(headers)
    }

    pub async fn deliver(&mut self, alerts: &[&Alert]) -> Result<Receipt, Failure> {
        // Objects one after the other: of an array Splunk would make one event.
        let body: String = alerts.iter().map(|a| self.event(a)).collect();
        let url = http::join(&self.config.url, "services/collector/event")?;
        let answer = self.client.post(&url, self.headers()?, body.into_bytes()).await?;
        let said: Value = serde_json::from_str(&answer.body).unwrap_or_default();
        if answer.status.is_success() {
            answer.complete()?;
        }
        verdict(&answer, &said, alerts.len(), self.config.acknowledge)?;
        if !self.config.acknowledge {
            return Ok(Receipt(answer.told()));
        }
        let Some(id) = said["ackId"].as_u64() else {
            return Err(Failure::retry("Splunk sent no ackId; switch acknowledgement on for the token, or off here"));
        };
        self.acknowledged(id).await?;
        Ok(Receipt(format!("{}; acknowledged by an indexer", answer.told())))
    }

    fn event(&self, alert: &Alert) -> String {
        let event = record::line(alert, self.config.format, MAX_BYTES - 2000);
        let event: Value = serde_json::from_str(&event).unwrap_or_else(|_| event.into());
        let mut outer = json!({
            "time": alert.last.timestamp_millis() as f64 / 1000.0,
            "host": cap(&alert.cluster, 100),
            "source": "lapwing",
            "sourcetype": self.config.sourcetype,
            "event": event,
            "fields": { "level": alert.level, "rule": cap(&alert.rule.id, 100), "cluster": cap(&alert.cluster, 100) },
        });
        if let Some(index) = &self.config.index {
            outer["index"] = index.clone().into();
        }
        json_line(&outer).unwrap_or_default() + "\n"
    }

    /// Asks until an indexer has it.
    async fn acknowledged(&mut self, id: u64) -> Result<(), Failure> {
        let path = format!("services/collector/ack?channel={}", self.channel);
        let url = http::join(&self.config.url, &path)?;
        let body = serde_json::to_vec(&json!({ "acks": [id] })).map_err(Failure::reject)?;
        let end = Instant::now() + Duration::from_secs(self.config.ack_timeout_seconds.into());
        let mut pause = ACK_PAUSE;
        loop {
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(Duration::from_secs(10));
            let asked = self.client.post(&url, self.headers()?, body.clone()).await;
            if let Ok(answer) = &asked
                && answer.status.is_success()
                && serde_json::from_str::<Value>(&answer.body).is_ok_and(|v| v["acks"][id.to_string()] == true)
            {
                return Ok(());
            }
            if Instant::now() >= end {
                let said = asked.map_or_else(|e| e.to_string(), |a| a.told());
                return Err(Failure::retry(format_args!("no indexer acknowledged within the time: {said}")));
            }
        }
    }
}

/// A version 4 UUID, as Splunk wants it.
fn channel() -> String {
    let hex = format!("{:032x}", rand::random::<u128>());
    format!("{}-{}-4{}-a{}-{}", &hex[..8], &hex[8..12], &hex[13..16], &hex[17..20], &hex[20..])
}

/// What Splunk's code means. Of a batch with a bad event those before it were taken, unless only an acknowledgement would
/// tell.
fn verdict(answer: &http::Answer, said: &Value, count: usize, acknowledge: bool) -> Result<(), Failure> {
    if answer.status.as_u16() == 413 {
        return Err(Failure::TooLarge { reason: answer.told() });
    }
    let bad = said["invalid-event-number"].as_u64().and_then(|n| usize::try_from(n).ok()).filter(|n| *n < count);
    match (said["code"].as_u64(), bad) {
        (Some(0), _) if answer.status.is_success() => Ok(()),
        (Some(6 | 12 | 13 | 15), Some(bad)) => Err(Failure::Partial {
            refused: vec![(bad, answer.told())],
            again: (0..count).filter(|at| if acknowledge { *at != bad } else { *at > bad }).collect(),
            reason: answer.told(),
            after: None,
        }),
        // An unknown or missing token, channel or index gets mended at either end; the alert is not to blame.
        (Some(1..=4 | 7 | 10 | 11 | 14), _) => Err(Failure::Retry { reason: answer.told(), after: answer.retry_after }),
        _ => answer.verdict().and_then(|()| Err(Failure::retry(answer.told()))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(status: u16, body: &str, acknowledge: bool) -> Result<(), Failure> {
        let answer = http::Answer::of(status, body);
        verdict(&answer, &serde_json::from_str(body).unwrap_or_default(), 4, acknowledge)
    }

    #[test]
    fn splunks_codes_are_told_apart() {
        assert!(said(200, r#"{"text":"Success","code":0}"#, false).is_ok());
        for (status, body) in [
            (403, r#"{"text":"Invalid token","code":4}"#),
            (401, r#"{"text":"Token is required","code":2}"#),
            (400, r#"{"text":"Incorrect index","code":7}"#),
            (503, r#"{"text":"Server is busy","code":9}"#),
            (429, ""),
            (200, "<html>a proxy"),
        ] {
            assert!(matches!(said(status, body, false), Err(Failure::Retry { .. })), "{status} {body}");
        }
        assert!(matches!(said(400, r#"{"text":"No data","code":5}"#, false), Err(Failure::Reject { .. })));
        assert!(matches!(said(413, "", false), Err(Failure::TooLarge { .. })));
        let bad = r#"{"text":"Invalid data format","code":6,"invalid-event-number":1}"#;
        for (acknowledge, rest) in [(false, vec![2, 3]), (true, vec![0, 2, 3])] {
            match said(400, bad, acknowledge) {
                Err(Failure::Partial { refused, again, .. }) => assert_eq!((refused[0].0, again), (1, rest)),
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn a_channel_is_a_uuid() {
        let channel = channel();
        let lengths: Vec<_> = channel.split('-').map(str::len).collect();
        assert_eq!(lengths, [8, 4, 4, 4, 12]);
        assert!(channel.split('-').nth(2).unwrap().starts_with('4'));
    }
}
