//! `lapwing receive`: the webhook, with a topic behind it instead of an engine.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use tokio_util::sync::CancellationToken;

use super::{Signals, private_dir};
use crate::config::Loaded;
use crate::forward::{self, Forward};
use crate::http::{Admin, Readiness};
use crate::input::Splitter;
use crate::metrics::Metrics;
use crate::source::webhook::{Timing, Webhook};

const FLUSH: Duration = Duration::from_secs(5);

/// Runs the receiver until it is told to stop.
///
/// # Errors
/// When it cannot start, or its spool fails: restart it.
pub async fn receive(loaded: Loaded) -> anyhow::Result<()> {
    let Loaded { config, file, .. } = loaded;
    let base = file.parent().map(Path::to_path_buf).unwrap_or_default();
    let webhook =
        config.sources.webhook.clone().context("`sources.webhook` is missing; a receiver has nothing else")?;
    let target = config.forward.clone().context("`forward` is missing; name the topic the events go to")?;
    let mut signals = Signals::listen()?;
    private_dir(&config.data_dir)?;
    let metrics = Arc::new(Metrics::new(webhook.clusters.iter().map(|c| c.name.clone())));
    let readiness = Arc::new(Readiness::new(["listeners"]));
    let admin = Admin::bind(&config.admin, Arc::clone(&readiness), Arc::clone(&metrics)).await?;
    let admin_stop = CancellationToken::new();
    let admin = tokio::spawn(admin.run(admin_stop.clone()));

    let (forward, drainer) = Forward::open(target, &config.data_dir, Arc::clone(&metrics))?;
    let drainer_stop = CancellationToken::new();
    let mut drainer = tokio::spawn(drainer.run(drainer_stop.clone()));
    let splitter = Splitter::new(Arc::clone(&metrics));
    let sink = {
        let forward = forward.clone();
        move |batch| {
            let forward = forward.clone();
            async move { forward.store(batch).await }
        }
    };
    let cut = move |body: &[u8]| splitter.split(body);
    let webhook = Webhook::bind(webhook, &base, Timing::default(), cut, sink, metrics).await?;
    tracing::info!(address = %webhook.local_addr()?, "webhook is listening; events go to the topic");
    readiness.ready("listeners");
    let certificates = webhook.reloader();
    let webhook_stop = CancellationToken::new();
    let mut webhook = tokio::spawn(webhook.run(webhook_stop.clone()));

    let failed = loop {
        tokio::select! {
            () = signals.stop.cancelled() => break Ok(()),
            Ok(()) = signals.reload.changed() => {
                certificates.reload();
            }
            ended = &mut drainer => break ended.map_err(Into::into).and_then(|result| result).context("the spool"),
            _ = &mut webhook => break Err(anyhow::anyhow!("the webhook ended by itself")),
        }
    };
    readiness.drain();
    webhook_stop.cancel();
    if !webhook.is_finished() {
        webhook.await?;
    }
    drainer_stop.cancel();
    if !drainer.is_finished() {
        drainer.await??;
    }
    tokio::task::spawn_blocking(move || forward::flush(&forward, FLUSH)).await?;
    admin_stop.cancel();
    admin.await?;
    tracing::info!("stopped");
    failed
}
