//! A worker at work on alerts in memory.

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use lapwing::metrics::Metrics;
use lapwing::output::metrics::Meter;
use lapwing::output::worker::{AlertSource, Next, Worker};
use lapwing::output::{Config, Output};
use lapwing_engine::alert::Alert;
use tokio_util::sync::CancellationToken;

use super::{alert, evil};

/// An alert journal in memory. Wakes the test when everything is done.
#[derive(Clone)]
pub struct Memory {
    alerts: Arc<Mutex<Vec<Alert>>>,
    state: Arc<Mutex<(usize, u64)>>,
}

impl Memory {
    pub fn of(count: usize) -> Self {
        let alerts = (1..=count).map(|n| if n % 2 == 0 { evil(&n.to_string()) } else { alert(&n.to_string()) });
        Self::with(alerts.collect())
    }

    pub fn with(alerts: Vec<Alert>) -> Self {
        Self { alerts: Arc::new(Mutex::new(alerts)), state: Arc::default() }
    }

    pub fn add(&self, alerts: impl IntoIterator<Item = Alert>) {
        self.alerts.lock().unwrap().extend(alerts);
    }

    /// How many are done.
    pub fn done_with(&self) -> u64 {
        self.state.lock().unwrap().1
    }

    pub async fn finished(&self) {
        super::until(|| "the worker to finish".to_owned(), || (self.pending() == 0).then_some(())).await;
    }
}

impl AlertSource for Memory {
    fn next(&mut self, _wait: Duration) -> std::io::Result<Next> {
        let mut state = self.state.lock().unwrap();
        let Some(alert) = self.alerts.lock().unwrap().get(state.0).cloned() else { return Ok(Next::Idle) };
        state.0 += 1;
        Ok(Next::Alert { position: state.0 as u64, alert: Box::new(alert) })
    }

    fn done(&mut self, position: u64) -> std::io::Result<()> {
        self.state.lock().unwrap().1 = position;
        Ok(())
    }

    fn pending(&self) -> u64 {
        self.alerts.lock().unwrap().len() as u64 - self.done_with()
    }
}

/// A worker at work; ends with the test.
pub struct Working {
    pub stop: CancellationToken,
    task: tokio::task::JoinHandle<Result<(), lapwing::output::worker::WorkerError>>,
}

impl Working {
    pub fn start(config: &Config, memory: &Memory, dir: &Path) -> Self {
        std::fs::create_dir_all(dir.join("outputs")).unwrap();
        let stop = CancellationToken::new();
        let meter = Meter::new(Arc::new(Metrics::new([""; 0])), config.name());
        let worker = Worker::new(config, Output::new(config).unwrap(), dir, meter, stop.clone());
        Self { stop, task: tokio::spawn(worker.run(memory.clone())) }
    }

    pub async fn end(self) {
        self.stop.cancel();
        self.task.await.unwrap().unwrap();
    }
}
