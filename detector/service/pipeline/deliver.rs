//! The alert journal as the queue of one output.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::alert_record;
use crate::journal::{self, CursorFile, Journal, Lsn, ReadError, Reader};
use crate::output::worker::{AlertSource, Next};

/// Alerts behind an output's durable cursor.
pub struct Queue {
    alerts: Journal,
    reader: Reader,
    cursor: CursorFile,
    passed: Arc<AtomicU64>,
}

impl Queue {
    /// Opens the queue of the output `name`. A new output begins with the next alert, not with history.
    pub fn open(data_dir: &Path, name: &str, alerts: &Journal) -> Result<Self, journal::Error> {
        let path = data_dir.join("outputs").join(format!("{name}.cursor"));
        let new = !path.exists();
        let mut cursor = CursorFile::open(&path)?;
        if new {
            cursor.set(alerts.durable().0)?;
        }
        let reader = alerts.reader(Lsn(cursor.get()));
        let passed = Arc::new(AtomicU64::new(cursor.get()));
        Ok(Self { alerts: alerts.clone(), reader, cursor, passed })
    }

    /// How far this output has come, kept up to date; for the drain.
    pub fn passed(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.passed)
    }

    fn read(&mut self) -> io::Result<Next> {
        match self.reader.next() {
            Ok(None) => Ok(Next::Idle),
            Ok(Some(record)) if record.kind == alert_record::ALERT => {
                Ok(Next::from_json(record.lsn.0, &record.payload))
            }
            Ok(Some(record)) => Ok(Next::Skip { position: record.lsn.0 }),
            Err(ReadError::Lost { to, cause, .. }) => Ok(Next::Unreadable {
                position: to.0,
                text: String::new(),
                reason: format!("the alert journal is damaged here ({})", cause.as_str()),
            }),
            Err(error) => Err(io::Error::other(error)),
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
        self.passed.store(position, Ordering::Release);
        self.cursor.set(position).map_err(io::Error::other)
    }

    fn pending(&self) -> u64 {
        self.alerts.durable().0.saturating_sub(self.cursor.get())
    }
}
