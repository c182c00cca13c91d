//! What librdkafka has to say, once and with its reason.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

/// The client of this name, told of in the log.
pub struct Quiet {
    name: String,
    trouble: Trouble,
}

impl Quiet {
    pub fn new(name: &str) -> Self {
        Self { name: name.to_owned(), trouble: Trouble::default() }
    }
}

impl ClientContext for Quiet {
    /// librdkafka's own words repeat with every try what [`Self::error`] tells once.
    fn log(&self, _: RDKafkaLogLevel, facility: &str, message: &str) {
        tracing::debug!(source = self.name, facility, "{message}");
    }

    fn error(&self, error: KafkaError, reason: &str) {
        if error.rdkafka_error_code().is_none_or(|code| self.trouble.is_news(code)) {
            tracing::warn!(source = self.name, %error, reason, "kafka; trying again");
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
