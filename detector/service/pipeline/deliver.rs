//! The alert journal as the queue of one output.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use lapwing_engine::alert::Level;

use super::selfalert::{Notice, SelfAlerts, is_own};
use super::{alert_record, damage};
use crate::journal::{self, CursorFile, Journal, Lsn, ReadError, Reader};
use crate::output::dead::DeadLetter;
use crate::output::worker::{AlertSource, Next};

/// Pause before a journal that could not be read is read again.
const REST: Duration = Duration::from_secs(1);

/// How far an output has come in the alert journal.
#[derive(Debug, Default)]
pub struct Passed {
    /// Everything up to here is done.
    pub done: AtomicU64,
    /// Everything up to here is done or waits because the configuration wants it to.
    pub settled: AtomicU64,
}

/// Alerts behind an output's durable cursor.
pub struct Queue {
    alerts: Journal,
    reader: Reader,
    cursor: CursorFile,
    passed: Arc<Passed>,
    own: SelfAlerts,
}

impl Queue {
    /// Opens the queue of the output `name`. A new output begins with the next alert, not with history.
    pub fn open(data_dir: &Path, name: &str, alerts: &Journal, own: SelfAlerts) -> Result<Self, journal::Error> {
        let path = data_dir.join("outputs").join(format!("{name}.cursor"));
        let new = !path.exists();
        let mut cursor = CursorFile::open(&path)?;
        if new {
            cursor.set(alerts.durable().0)?;
        }
        let reader = alerts.reader(Lsn(cursor.get()));
        let at = cursor.get();
        let passed = Arc::new(Passed { done: at.into(), settled: at.into() });
        Ok(Self { alerts: alerts.clone(), reader, cursor, passed, own })
    }

    /// How far this output has come, kept up to date.
    pub fn passed(&self) -> Arc<Passed> {
        Arc::clone(&self.passed)
    }

    fn read(&mut self) -> io::Result<Next> {
        match self.reader.next() {
            Ok(None) => Ok(Next::Idle),
            Ok(Some(record)) if record.kind == alert_record::ALERT => {
                Ok(Next::from_json(record.lsn.0, &record.payload))
            }
            Ok(Some(record)) => Ok(Next::Skip { position: record.lsn.0 }),
            Err(error @ ReadError::Lost { to, cause, .. }) => {
                self.own.raise(&damage::notice("alert", &error.to_string())).map_err(io::Error::other)?;
                Ok(Next::Unreadable {
                    position: to.0,
                    text: String::new(),
                    reason: format!("the alert journal is damaged here ({})", cause.as_str()),
                })
            }
            Err(error) => {
                tracing::error!(%error, "the alert journal cannot be read now; trying again");
                std::thread::park_timeout(REST);
                Ok(Next::Idle)
            }
        }
    }
}

impl AlertSource for Queue {
    fn next(&mut self, wait: Duration) -> io::Result<Next> {
        let next = self.read()?;
        if !matches!(next, Next::Idle) {
            return Ok(next);
        }
        self.alerts.wait_past(self.reader.position(), wait);
        self.read()
    }

    fn done(&mut self, position: u64) -> io::Result<()> {
        self.passed.done.store(position, Ordering::Release);
        self.cursor.set(position).map_err(io::Error::other)
    }

    fn settled(&mut self, position: u64) {
        self.passed.settled.fetch_max(position, Ordering::AcqRel);
    }

    /// Told through every output: of several, one may work. A dead letter about a dead letter is told to nobody.
    fn buried(&mut self, letter: &DeadLetter) -> io::Result<()> {
        if letter.alert.as_ref().is_some_and(|alert| is_own(alert)) {
            return Ok(());
        }
        self.own.raise(&dead_letter(letter)).map_err(io::Error::other)
    }

    fn pending(&self) -> u64 {
        self.alerts.durable().0.saturating_sub(self.cursor.get())
    }
}

fn dead_letter(letter: &DeadLetter) -> Notice {
    let what = match &letter.alert {
        Some(alert) => format!("alert {} ({})", alert.id, alert.rule.title),
        None => "a record of the alert journal".to_owned(),
    };
    Notice {
        id: "lapwing-dead-letter",
        title: "An alert could not be delivered",
        level: Level::High,
        subject: letter.output.clone(),
        summary: format!("Output {} gave up {what}: {}", letter.output, letter.reason),
        why: "Whoever reads that output does not know of this alert. Further dead letters of the same output are told \
              once an hour.",
        next_steps: &[
            "lapwing output dead list shows them and the reasons",
            "repair the receiver or the output, then lapwing output dead retry NAME",
        ],
        ..Notice::default()
    }
}
