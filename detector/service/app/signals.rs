//! SIGTERM, SIGINT and SIGHUP, for as many parts as want to know.

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// What the process is told from outside.
#[derive(Clone)]
pub(super) struct Signals {
    /// It shall end.
    pub stop: CancellationToken,
    /// It shall read files again; the count changes.
    pub reload: watch::Receiver<u64>,
}

impl Signals {
    pub fn listen() -> anyhow::Result<Self> {
        let [mut terminate, mut interrupt] = [signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?];
        let mut hangup = signal(SignalKind::hangup())?;
        let stop = CancellationToken::new();
        let (send, reload) = watch::channel(0);
        let told = stop.clone();
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    _ = terminate.recv() => break,
                    _ = interrupt.recv() => break,
                    _ = hangup.recv() => send.send_modify(|n| *n += 1),
                }
            }
            tracing::info!("stopping");
            told.cancel();
            // Nobody is left waiting for a reload that cannot come.
            send.closed().await;
        });
        Ok(Self { stop, reload })
    }
}
