//! What librdkafka has to say, once and with its reason.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use crate::brokers;

/// The client of this name, told of in the log.
pub struct Quiet {
    name: String,
    client: ClientConfig,
    trouble: Trouble,
    refused: AtomicBool,
}

impl Quiet {
    pub fn new(name: &str, client: &ClientConfig) -> Self {
        let (trouble, refused) = (Trouble::default(), AtomicBool::default());
        Self { name: name.to_owned(), client: client.clone(), trouble, refused }
    }

    /// Whether a certificate or a password was refused since the last question.
    pub fn refused(&self) -> bool {
        self.refused.swap(false, Ordering::AcqRel)
    }
}

impl ClientContext for Quiet {
    /// librdkafka's own words repeat with every try what [`Self::error`] tells once.
    fn log(&self, _: RDKafkaLogLevel, facility: &str, message: &str) {
        tracing::debug!(source = self.name, facility, "{message}");
    }

    fn error(&self, error: KafkaError, reason: &str) {
        let refusal = brokers::is_refusal(reason);
        self.refused.fetch_or(refusal, Ordering::AcqRel);
        if !error.rdkafka_error_code().is_none_or(|code| self.trouble.is_news(code)) {
            return;
        }
        let (name, client, reason) = (self.name.clone(), self.client.clone(), reason.to_owned());
        let tell = move || {
            let reason = brokers::explain(&client, &reason);
            tracing::warn!(source = name, %error, reason, "kafka; trying again");
        };
        // Looking at a certificate takes time the caller's thread does not have.
        if refusal {
            std::thread::spawn(tell);
        } else {
            tell();
        }
    }
}

/// What was told of last: a broker that stays away is tried again many times a second.
#[derive(Default)]
struct Trouble(Mutex<Vec<(RDKafkaErrorCode, Instant)>>);

const TELL_AGAIN: Duration = Duration::from_secs(60);

impl Trouble {
    fn is_news(&self, code: RDKafkaErrorCode) -> bool {
        let mut told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        told.retain(|(_, at)| at.elapsed() < TELL_AGAIN);
        let news = told.iter().all(|(known, _)| *known != code);
        if news {
            told.push((code, Instant::now()));
        }
        news
    }
}
