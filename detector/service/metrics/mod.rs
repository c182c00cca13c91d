//! What Lapwing tells Prometheus about itself.
//!
//! Names follow the Prometheus conventions under one prefix. No user, pod, address or URI is ever a
//! label; values that come from outside pass a cap. Nothing is read back from here.

mod label;

use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use std::time::Duration;

use lapwing_engine::alert::Level;
use lapwing_engine::batch::RejectReason;
use prometheus::core::Collector;
use prometheus::proto::MetricFamily;
use prometheus::{
    CounterVec, Encoder, Gauge, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge,
    IntGaugeVec, Opts, Registry, TextEncoder,
};

use self::label::Cap;
pub use self::label::OTHER;
use crate::input::envelope::Counts;

/// Most values of the label `cluster`; configured clusters come first.
pub const MAX_CLUSTERS: usize = 64;
/// Most values of the label `rule`.
pub const MAX_RULES: usize = 500;
/// Most values of the label `output`.
pub const MAX_OUTPUTS: usize = 64;

/// How a delivery to an output ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Delivered,
    /// Failed, will be tried again.
    Retry,
    /// Given up: in the dead letters.
    Dead,
}

impl Outcome {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Delivered => "delivered",
            Self::Retry => "retry",
            Self::Dead => "dead",
        }
    }
}

/// Why an output was not told an alert.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Withheld {
    /// Below its level.
    Level,
    /// No route leads there.
    Route,
    Silence,
    Inhibition,
}

impl Withheld {
    const ALL: [Self; 4] = [Self::Level, Self::Route, Self::Silence, Self::Inhibition];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Level => "level",
            Self::Route => "route",
            Self::Silence => "silence",
            Self::Inhibition => "inhibition",
        }
    }
}

/// Every metric of the process. Public fields have no labels; the others go through a method.
pub struct Metrics {
    registry: Registry,
    clusters: Cap,
    rules: Cap,
    outputs: Cap,

    events_received: IntCounterVec,
    events_rejected: IntCounterVec,
    unwrapped: IntCounterVec,
    salvaged: IntCounter,
    forwarded: IntCounterVec,
    kafka_lag: IntGaugeVec,
    kafka_lost: IntCounterVec,
    kafka_connected: IntGaugeVec,
    batches: IntCounterVec,
    last_event: GaugeVec,
    requests: IntCounterVec,
    request_seconds: HistogramVec,
    connections_closed: IntCounterVec,
    findings: IntCounterVec,
    undecidable: IntCounterVec,
    memory_evictions: IntCounterVec,
    alerts: IntCounterVec,
    output_deliveries: IntCounterVec,
    output_pending: IntGaugeVec,
    output_oldest: GaugeVec,
    /// Tries to archive that failed.
    pub archive_failures: IntCounter,
    archive_events: IntCounter,
    archive_bytes: IntCounter,
    output_dead: IntCounterVec,
    output_withheld: IntCounterVec,
    output_held: IntGaugeVec,
    output_limited: CounterVec,
    cluster_silent: IntGaugeVec,
    audit_blind: IntGaugeVec,
    events_missing: IntGaugeVec,
    audit_errors: IntCounterVec,
    unfinished: IntGaugeVec,
    clock_skew: IntCounterVec,

    /// A receiver's spool: its bytes, and batches not brought yet.
    pub spool_bytes: IntGauge,
    pub spool_records: IntGauge,
    /// Connections to the webhook, now.
    pub connections: IntGauge,
    /// Bytes of webhook bodies in memory, now.
    pub inflight_bytes: IntGauge,
    /// 1 when certificates and tokens of the webhook were read without error the last time.
    pub webhook_reload_success: IntGauge,
    /// When the certificate the webhook shows ends, seconds since the epoch.
    pub certificate_expiry: Gauge,
    /// Seconds from the event's stage timestamp to its evaluation.
    pub event_lag: Histogram,
    /// Events seen before and skipped.
    pub duplicates: IntCounter,
    /// Audit ids that stood for a second request.
    pub audit_ids_reused: IntCounter,
    /// Events whose bodies the API server cut away.
    pub truncated: IntCounter,
    pub rules_loaded: IntGauge,
    /// 1 when the last load of the rules was taken.
    pub rules_reload_success: IntGauge,
    /// When rules were last taken, seconds since the epoch.
    pub rules_reload_timestamp: Gauge,
    /// Correlation windows dropped because memory for them was full.
    pub window_evictions: IntCounter,
    /// Identities with a baseline, and the bytes of all baselines.
    pub baseline_principals: IntGauge,
    pub baseline_bytes: IntGauge,
    /// Those of them that are on disk, and the bytes of their records.
    pub baseline_shelved: IntGauge,
    pub baseline_shelved_bytes: IntGauge,
    /// Identities forgotten because neither memory nor disk had room for their baselines.
    pub baseline_evictions: IntCounter,
    /// Identities forgotten because their record on disk could not be read.
    pub baseline_lost: IntCounter,
    /// Highest journal position known to be on disk.
    pub journal_durable_lsn: IntGauge,
    pub journal_bytes: IntGauge,
    /// Seconds one `fdatasync` of the journal took.
    pub journal_fsync: Histogram,
    /// Damaged places met while reading the journal.
    pub journal_damage: IntCounter,
    pub replay_divergence: IntCounter,
    pub set_aside: IntCounter,
    /// Files of the journals that were read again and checked.
    pub journal_scrubbed: IntCounter,
    pub alert_journal_bytes: IntGauge,
    pub index_bytes: IntGauge,
    /// Free bytes where the data directory is.
    pub disk_free_bytes: IntGauge,
    /// 0 plenty, 1 low, 2 the index waits, 3 nothing is taken in.
    pub disk_level: IntGauge,
    /// Journal records the engine has still to read.
    pub engine_lag: IntGauge,
    /// Journal records the indexer has still to read.
    pub index_lag: IntGauge,
    pub index_docs: IntGauge,
    /// 1 when `/readyz` says yes.
    pub ready: IntGauge,
    refresh: OnceLock<Refresh>,
    shards: Mutex<Vec<Weak<Self>>>,
}

/// Sets gauges to what is true now.
type Refresh = Box<dyn Fn(&Metrics) + Send + Sync>;

impl Metrics {
    /// Calls `refresh` before every rendering, so that gauges tell what is true now and not a while ago.
    pub fn refresh_with(&self, refresh: impl Fn(&Self) + Send + Sync + 'static) {
        // A second caller would replace what the first one promised; there is one, the app.
        let _ = self.refresh.set(Box::new(refresh));
    }

    /// A fresh set of metrics. `clusters` are the configured names; they always keep their own label.
    pub fn new(clusters: impl IntoIterator<Item = impl AsRef<str>>) -> Self {
        Self::of_shard(None, clusters)
    }

    /// The same for a part of a process that has several: every series bears the name of the shard.
    pub fn of_shard(shard: Option<&str>, clusters: impl IntoIterator<Item = impl AsRef<str>>) -> Self {
        let clusters: Vec<_> = clusters.into_iter().collect();
        let metrics = Self::build(Cap::new(MAX_CLUSTERS, &clusters), shard)
            .expect("metric names are literals, valid and distinct");
        let start = chrono::Utc::now().timestamp() as f64;
        for cluster in &clusters {
            metrics.announce_cluster(cluster.as_ref(), start);
        }
        for level in Level::ALL {
            metrics.alerts.with_label_values(&[level.as_str()]).inc_by(0);
        }
        metrics
    }

    /// Series that exist from the start, because Prometheus cannot see an increase from nothing to one,
    /// and because a cluster that never sends must grow old like one that stopped.
    fn announce_cluster(&self, cluster: &str, start: f64) {
        let cluster = self.clusters.admit(cluster);
        self.last_event.with_label_values(&[cluster]).set(start);
        for code in CODES {
            self.requests.with_label_values(&[cluster, code]).inc_by(0);
        }
        for direction in ["ahead", "behind"] {
            self.clock_skew.with_label_values(&[cluster, direction]).inc_by(0);
        }
        for reason in RejectReason::ALL {
            self.events_rejected.with_label_values(&[cluster, reason.as_str()]).inc_by(0);
        }
    }

    /// A rule was loaded: its series begin at 0.
    pub fn announce_rule(&self, rule: &str, level: Level) {
        let rule = self.rules.admit(rule);
        self.findings.with_label_values(&[rule, level.as_str()]).inc_by(0);
        self.undecidable.with_label_values(&[rule]).inc_by(0);
    }

    /// An output was configured: its series begin at 0.
    pub fn announce_output(&self, output: &str) {
        for outcome in [Outcome::Delivered, Outcome::Retry, Outcome::Dead] {
            self.delivery(output, outcome, 0);
        }
        self.backlog(output, 0, 0.0);
        self.held(output, 0);
        self.limited(output, Duration::ZERO);
        for why in Withheld::ALL {
            self.withheld(output, why, 0);
        }
    }

    fn build(clusters: Cap, shard: Option<&str>) -> prometheus::Result<Self> {
        let labels = shard.map(|shard| [("shard".to_owned(), shard.to_owned())].into());
        let r = Registry::new_custom(Some("lapwing".into()), labels)?;
        let metrics = Self {
            clusters,
            rules: Cap::new(MAX_RULES, [""; 0]),
            outputs: Cap::new(MAX_OUTPUTS, [""; 0]),
            events_received: counters(&r, "events_received_total", "Events stored.", &["cluster", "source"])?,
            events_rejected: counters(
                &r,
                "events_rejected_total",
                "Items that are no readable event, stored as rejects.",
                &["cluster", "reason"],
            )?,
            unwrapped: counters(
                &r,
                "unwrapped_total",
                "Wrappers of other systems taken off, and how many of them held another log.",
                &["envelope", "outcome"],
            )?,
            forwarded: counters(
                &r,
                "forwarded_total",
                "What a receiver did: items confirmed by the brokers (sent), items kept on its disk (spooled), batches \
                 brought from there (unspooled).",
                &["outcome"],
            )?,
            spool_bytes: gauge(&r, "spool_bytes", "Bytes of a receiver's spool.")?,
            spool_records: gauge(&r, "spool_records", "Batches a receiver has still to bring to the brokers.")?,
            kafka_lag: keep(
                &r,
                IntGaugeVec::new(
                    Opts::new("kafka_lag_records", "Records of a source's partitions that are not committed yet."),
                    &["source"],
                )?,
            )?,
            kafka_lost: counters(
                &r,
                "kafka_lost_records_total",
                "Records the broker deleted before they were read.",
                &["source"],
            )?,
            kafka_connected: keep(
                &r,
                IntGaugeVec::new(
                    Opts::new("kafka_connected", "1 when a source has a broker that lets it in."),
                    &["source"],
                )?,
            )?,
            salvaged: counter(&r, "salvaged_total", "Events a log service cut off, read as far as they go.")?,
            batches: counters(&r, "batches_total", "Batches stored.", &["cluster", "source"])?,
            last_event: gauges(
                &r,
                "last_event_timestamp_seconds",
                "When the last event of a cluster was stored, or the start while none has come.",
                &["cluster"],
            )?,
            requests: counters(&r, "webhook_requests_total", "Answers of the webhook.", &["cluster", "code"])?,
            request_seconds: keep(
                &r,
                HistogramVec::new(
                    HistogramOpts::new("webhook_request_duration_seconds", "From the end of the header to the answer.")
                        .buckets(vec![
                            0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0,
                        ]),
                    &["cluster"],
                )?,
            )?,
            connections_closed: counters(
                &r,
                "webhook_connections_closed_total",
                "Connections to the webhook that ended, by what ended them.",
                &["reason"],
            )?,
            findings: counters(&r, "findings_total", "Findings.", &["rule", "level"])?,
            undecidable: counters(&r, "undecidable_total", "Verdicts a rule could not reach.", &["rule"])?,
            memory_evictions: counters(
                &r,
                "memory_evictions_total",
                "Objects and credentials forgotten for lack of room.",
                &["kind"],
            )?,
            alerts: counters(&r, "alerts_total", "Alerts opened.", &["level"])?,
            output_deliveries: counters(
                &r,
                "output_deliveries_total",
                "Deliveries tried, by how they ended.",
                &["output", "outcome"],
            )?,
            output_pending: keep(
                &r,
                IntGaugeVec::new(Opts::new("output_pending", "Alerts an output has still to deliver."), &["output"])?,
            )?,
            output_oldest: gauges(
                &r,
                "output_oldest_seconds",
                "Age of the oldest alert an output has still to deliver.",
                &["output"],
            )?,
            archive_failures: counter(
                &r,
                "archive_failures_total",
                "Tries to put an object into the archive that failed.",
            )?,
            archive_events: counter(&r, "archive_events_total", "Events in the archive.")?,
            archive_bytes: counter(&r, "archive_bytes_total", "Bytes put into the archive, compressed.")?,
            output_dead: counters(&r, "output_dead_letters_total", "Alerts an output gave up.", &["output"])?,
            output_withheld: counters(
                &r,
                "output_withheld_total",
                "Alerts an output was not told: below its level, no route, silenced or inhibited.",
                &["output", "reason"],
            )?,
            output_limited: keep(
                &r,
                CounterVec::new(
                    Opts::new(
                        "output_limited_seconds_total",
                        "Time in which something was due and waited for the output's maxPerMinute.",
                    ),
                    &["output"],
                )?,
            )?,
            output_held: keep(
                &r,
                IntGaugeVec::new(
                    Opts::new("output_held", "Alerts that wait for their group, a digest or a time interval."),
                    &["output"],
                )?,
            )?,
            audit_blind: keep(
                &r,
                IntGaugeVec::new(
                    Opts::new("audit_blind", "1 when a request of our own left no audit event."),
                    &["cluster"],
                )?,
            )?,
            cluster_silent: keep(
                &r,
                IntGaugeVec::new(Opts::new("cluster_silent", "1 when no event came for too long."), &["cluster"])?,
            )?,
            events_missing: keep(
                &r,
                IntGaugeVec::new(
                    Opts::new("audit_events_missing", "Events API servers recorded that have not come."),
                    &["cluster"],
                )?,
            )?,
            unfinished: keep(
                &r,
                IntGaugeVec::new(
                    Opts::new("requests_unfinished", "Requests of the last 15 minutes that began and left no end."),
                    &["cluster"],
                )?,
            )?,
            clock_skew: counters(
                &r,
                "clock_skew_total",
                "Batches whose newest event lies too far ahead of their receipt, or behind it.",
                &["cluster", "direction"],
            )?,
            audit_errors: counters(
                &r,
                "apiserver_audit_errors_total",
                "Events API servers say they could not deliver.",
                &["cluster", "plugin"],
            )?,
            connections: gauge(&r, "webhook_connections", "Connections to the webhook.")?,
            inflight_bytes: gauge(
                &r,
                "webhook_inflight_bytes",
                "Bytes of webhook bodies in memory, and of what they become until it is stored.",
            )?,
            webhook_reload_success: gauge(
                &r,
                "webhook_reload_success",
                "1 when certificates and tokens were read without error the last time.",
            )?,
            certificate_expiry: float(
                &r,
                "webhook_certificate_expiry_timestamp_seconds",
                "When the certificate the webhook shows ends.",
            )?,
            event_lag: histogram(
                &r,
                "event_lag_seconds",
                "From the stage timestamp of an event to its evaluation.",
                vec![0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 900.0, 3600.0],
            )?,
            duplicates: counter(&r, "duplicates_total", "Events seen before and skipped.")?,
            audit_ids_reused: counter(
                &r,
                "audit_ids_reused_total",
                "Events under an audit id that stood for another request.",
            )?,
            truncated: counter(&r, "truncated_total", "Events whose bodies the API server cut away.")?,
            rules_loaded: gauge(&r, "rules_loaded", "Rules in use.")?,
            rules_reload_success: gauge(&r, "rules_last_reload_success", "1 when the last load was taken.")?,
            rules_reload_timestamp: float(&r, "rules_last_reload_timestamp_seconds", "When rules were last taken.")?,
            window_evictions: counter(&r, "window_evictions_total", "Correlation windows dropped for lack of room.")?,
            baseline_principals: gauge(&r, "baseline_principals", "Identities with a baseline.")?,
            baseline_bytes: gauge(&r, "baseline_bytes", "Memory of all baselines.")?,
            baseline_shelved: gauge(&r, "baseline_shelved_principals", "Identities whose baseline is on disk.")?,
            baseline_shelved_bytes: gauge(&r, "baseline_shelved_bytes", "Records of the baselines on disk.")?,
            baseline_evictions: counter(&r, "baseline_evictions_total", "Identities forgotten for lack of room.")?,
            baseline_lost: counter(&r, "baseline_lost_total", "Identities forgotten for a damaged record.")?,
            journal_durable_lsn: gauge(&r, "journal_durable_lsn", "Highest journal position on disk.")?,
            journal_bytes: gauge(&r, "journal_bytes", "Bytes of the journal on disk.")?,
            journal_fsync: histogram(
                &r,
                "journal_fsync_seconds",
                "Time one fdatasync of the journal took.",
                vec![0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0],
            )?,
            journal_damage: counter(&r, "journal_damage_total", "Damaged places met while reading the journal.")?,
            set_aside: counter(
                &r,
                "records_set_aside_total",
                "Events that ended the process again and again and are left out.",
            )?,
            replay_divergence: counter(
                &r,
                "replay_divergence_total",
                "Starts at which the same events gave other alerts than before.",
            )?,
            journal_scrubbed: counter(
                &r,
                "journal_scrubbed_files_total",
                "Files of the journals read again and checked.",
            )?,
            alert_journal_bytes: gauge(&r, "alert_journal_bytes", "Bytes of the alert journal on disk.")?,
            index_bytes: gauge(&r, "index_bytes", "Bytes of the index on disk.")?,
            disk_free_bytes: gauge(&r, "disk_free_bytes", "Free bytes where the data directory is.")?,
            disk_level: gauge(
                &r,
                "disk_level",
                "Room on the disk: 0 plenty, 1 low, 2 the index waits, 3 nothing is taken in.",
            )?,
            engine_lag: gauge(&r, "engine_lag_records", "Journal records the engine has still to read.")?,
            index_lag: gauge(&r, "index_lag_records", "Journal records the indexer has still to read.")?,
            index_docs: gauge(&r, "index_docs", "Documents in the index.")?,
            refresh: OnceLock::new(),
            shards: Mutex::default(),
            ready: gauge(&r, "ready", "1 when Lapwing is ready.")?,
            registry: r,
        };
        let build = Opts::new("build_info", "Always 1; the version is a label.");
        let build = keep(&metrics.registry, IntGaugeVec::new(build, &["version"])?)?;
        build.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        Ok(metrics)
    }

    /// A batch is on disk: `events` events of it, from `source` ([`Origin::name`]), at `now` seconds
    /// since the epoch.
    ///
    /// [`Origin::name`]: lapwing_engine::batch::Origin::name
    pub fn stored(&self, cluster: &str, source: &'static str, events: u64, now: f64) {
        let cluster = self.clusters.admit(cluster);
        self.batches.with_label_values(&[cluster, source]).inc();
        self.events_received.with_label_values(&[cluster, source]).inc_by(events);
        if events > 0 {
            self.last_event.with_label_values(&[cluster]).set(now);
        }
    }

    /// An item was stored as a reject.
    pub fn rejected(&self, cluster: &str, reason: RejectReason) {
        self.events_rejected.with_label_values(&[self.clusters.admit(cluster), reason.as_str()]).inc();
    }

    /// What a receiver did with items or batches.
    pub fn forwarded(&self, outcome: &'static str, n: u64) {
        self.forwarded.with_label_values(&[outcome]).inc_by(n);
    }

    /// How far a Kafka source is behind.
    pub fn kafka_lag(&self, source: &str, records: i64) {
        self.kafka_lag.with_label_values(&[self.outputs.admit(source)]).set(records);
    }

    /// Records were gone before a Kafka source could read them; below 0 where the log was made anew.
    pub fn kafka_lost(&self, source: &str, records: i64) {
        let lost = u64::try_from(records).unwrap_or_default();
        self.kafka_lost.with_label_values(&[self.outputs.admit(source)]).inc_by(lost);
    }

    /// Whether a Kafka source has a broker that lets it in.
    pub fn kafka_connected(&self, source: &str, connected: bool) {
        self.kafka_connected.with_label_values(&[self.outputs.admit(source)]).set(connected.into());
    }

    /// Wrappers were taken off.
    pub fn unwrapped(&self, counts: &Counts) {
        for (outcome, kinds) in [("opened", &counts.opened), ("skipped", &counts.skipped)] {
            for (kind, n) in kinds {
                self.unwrapped.with_label_values(&[kind.as_str(), outcome]).inc_by(*n);
            }
        }
        self.salvaged.inc_by(counts.salvaged);
    }

    /// The webhook answered. `cluster` is `None` when the sender is unknown.
    pub fn answered(&self, cluster: Option<&str>, code: u16, took: Duration) {
        let cluster = cluster.map_or("unknown", |cluster| self.clusters.admit(cluster));
        self.requests.with_label_values(&[cluster, code_label(code)]).inc();
        self.request_seconds.with_label_values(&[cluster]).observe(took.as_secs_f64());
    }

    /// A connection to the webhook ended.
    pub fn closed(&self, reason: &'static str) {
        self.connections_closed.with_label_values(&[reason]).inc();
    }

    /// A rule made a finding.
    pub fn finding(&self, rule: &str, level: Level) {
        self.findings.with_label_values(&[self.rules.admit(rule), level.as_str()]).inc();
    }

    /// A rule could not decide `times` times.
    pub fn undecidable(&self, rule: &str, times: u64) {
        self.undecidable.with_label_values(&[self.rules.admit(rule)]).inc_by(times);
    }

    /// The engine forgot things of a kind.
    pub fn memory_evictions(&self, kind: &'static str, times: u64) {
        self.memory_evictions.with_label_values(&[kind]).inc_by(times);
    }

    /// A new alert was opened.
    pub fn alert(&self, level: Level) {
        self.alerts.with_label_values(&[level.as_str()]).inc();
    }

    /// Whether a cluster sends nothing.
    pub fn silent(&self, cluster: &str, silent: bool) {
        self.cluster_silent.with_label_values(&[self.clusters.admit(cluster)]).set(i64::from(silent));
    }

    /// Whether requests of our own to a cluster leave no event.
    pub fn blind(&self, cluster: &str, blind: bool) {
        self.audit_blind.with_label_values(&[self.clusters.admit(cluster)]).set(i64::from(blind));
    }

    /// Events of a cluster that have not come.
    pub fn missing(&self, cluster: &str, events: u64) {
        let events = i64::try_from(events).unwrap_or(i64::MAX);
        self.events_missing.with_label_values(&[self.clusters.admit(cluster)]).set(events);
    }

    /// Requests of a cluster without an end.
    pub fn unfinished(&self, cluster: &str, requests: u64) {
        let cluster = self.clusters.admit(cluster);
        self.unfinished.with_label_values(&[cluster]).set(i64::try_from(requests).unwrap_or(i64::MAX));
    }

    /// A batch's clock was `ahead` or `behind`.
    pub fn clock_skew(&self, cluster: &str, direction: &'static str) {
        self.clock_skew.with_label_values(&[self.clusters.admit(cluster), direction]).inc();
    }

    /// Events an API server could not deliver. `plugin` is one of few.
    pub fn audit_errors(&self, cluster: &str, plugin: &str, events: u64) {
        self.audit_errors.with_label_values(&[self.clusters.admit(cluster), plugin]).inc_by(events);
    }

    /// A delivery of `alerts` alerts ended.
    pub fn delivery(&self, output: &str, outcome: Outcome, alerts: u64) {
        let output = self.outputs.admit(output);
        self.output_deliveries.with_label_values(&[output, outcome.as_str()]).inc_by(alerts);
        // Also when nothing died, so that the series exists before the first dead letter.
        let dead = if outcome == Outcome::Dead { alerts } else { 0 };
        self.output_dead.with_label_values(&[output]).inc_by(dead);
    }

    /// An object went to the archive: events in it, and its bytes.
    pub fn archived(&self, events: u64, bytes: u64) {
        self.archive_events.inc_by(events);
        self.archive_bytes.inc_by(bytes);
    }

    /// Alerts an output was not told.
    pub fn withheld(&self, output: &str, why: Withheld, alerts: u64) {
        let output = self.outputs.admit(output);
        self.output_withheld.with_label_values(&[output, why.as_str()]).inc_by(alerts);
    }

    /// How many alerts of an output wait on purpose.
    pub fn held(&self, output: &str, alerts: usize) {
        let output = self.outputs.admit(output);
        self.output_held.with_label_values(&[output]).set(i64::try_from(alerts).unwrap_or(i64::MAX));
    }

    /// So long an output had something to tell and waited for its `maxPerMinute`.
    pub fn limited(&self, output: &str, time: Duration) {
        let output = self.outputs.admit(output);
        self.output_limited.with_label_values(&[output]).inc_by(time.as_secs_f64());
    }

    /// How many records of the alert journal an output has before it.
    pub fn pending(&self, output: &str, pending: u64) {
        let output = self.outputs.admit(output);
        self.output_pending.with_label_values(&[output]).set(i64::try_from(pending).unwrap_or(i64::MAX));
    }

    /// What an output has before it: how many alerts, and the age of the oldest in seconds.
    pub fn backlog(&self, output: &str, pending: u64, oldest_seconds: f64) {
        self.pending(output, pending);
        let output = self.outputs.admit(output);
        self.output_oldest.with_label_values(&[output]).set(oldest_seconds);
    }

    /// Shows the metrics of a shard of this process beside its own, as long as it lives.
    pub fn join(&self, shard: &Arc<Self>) {
        let mut shards = self.shards.lock().unwrap_or_else(PoisonError::into_inner);
        shards.retain(|shard| shard.strong_count() > 0);
        shards.push(Arc::downgrade(shard));
    }

    fn gather(&self) -> Vec<MetricFamily> {
        if let Some(refresh) = self.refresh.get() {
            refresh(self);
        }
        let mut families = self.registry.gather();
        let shards = self.shards.lock().unwrap_or_else(PoisonError::into_inner).clone();
        for family in shards.iter().filter_map(Weak::upgrade).flat_map(|shard| shard.gather()) {
            match families.iter_mut().find(|known| known.name() == family.name()) {
                Some(known) => known.mut_metric().extend_from_slice(family.get_metric()),
                None => families.push(family),
            }
        }
        families
    }

    /// The Prometheus text format.
    pub fn render(&self) -> Vec<u8> {
        let mut families = self.gather();
        families.extend(process());
        let mut out = Vec::with_capacity(16 * 1024);
        if let Err(error) = TextEncoder::new().encode(&families, &mut out) {
            tracing::error!(%error, "metrics cannot be written");
        }
        out
    }
}

/// CPU, memory and file descriptors, under the names every exporter uses (no prefix).
fn process() -> Vec<prometheus::proto::MetricFamily> {
    #[cfg(target_os = "linux")]
    return prometheus::process_collector::ProcessCollector::for_self().collect();
    #[cfg(not(target_os = "linux"))]
    return Vec::new();
}

/// The codes the webhook answers with; anything else would be a bug worth seeing as `other`.
const CODES: [&str; 8] = ["200", "401", "403", "405", "408", "413", "415", "503"];

fn code_label(code: u16) -> &'static str {
    CODES.into_iter().find(|known| known.parse() == Ok(code)).unwrap_or(OTHER)
}

fn keep<C: Collector + Clone + 'static>(registry: &Registry, metric: C) -> prometheus::Result<C> {
    registry.register(Box::new(metric.clone()))?;
    Ok(metric)
}

fn counter(r: &Registry, name: &str, help: &str) -> prometheus::Result<IntCounter> {
    keep(r, IntCounter::new(name, help)?)
}

fn counters(r: &Registry, name: &str, help: &str, labels: &[&str]) -> prometheus::Result<IntCounterVec> {
    keep(r, IntCounterVec::new(Opts::new(name, help), labels)?)
}

fn gauge(r: &Registry, name: &str, help: &str) -> prometheus::Result<IntGauge> {
    keep(r, IntGauge::new(name, help)?)
}

fn float(r: &Registry, name: &str, help: &str) -> prometheus::Result<Gauge> {
    keep(r, Gauge::new(name, help)?)
}

fn gauges(r: &Registry, name: &str, help: &str, labels: &[&str]) -> prometheus::Result<GaugeVec> {
    keep(r, GaugeVec::new(Opts::new(name, help), labels)?)
}

fn histogram(r: &Registry, name: &str, help: &str, buckets: Vec<f64>) -> prometheus::Result<Histogram> {
    keep(r, Histogram::with_opts(HistogramOpts::new(name, help).buckets(buckets))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(metrics: &Metrics) -> String {
        String::from_utf8(metrics.render()).unwrap()
    }

    #[test]
    fn a_hundred_thousand_names_stay_under_the_cap() {
        let metrics = Metrics::new(["prod"]);
        for n in 0..100_000 {
            let name = format!("name-{n}");
            metrics.stored(&name, "webhook", 1, 1.0);
            metrics.rejected(&name, RejectReason::NotJson);
            metrics.answered(Some(&name), 200, Duration::ZERO);
            metrics.finding(&name, Level::High);
            metrics.undecidable(&name, 1);
            metrics.delivery(&name, Outcome::Retry, 1);
            metrics.backlog(&name, 1, 1.0);
        }
        metrics.stored("prod", "webhook", 7, 1.0);
        let text = text(&metrics);
        let series = text.lines().filter(|line| !line.starts_with('#')).count();
        assert!(series < 5_000, "{series} series");
        assert!(text.contains("lapwing_events_received_total{cluster=\"prod\",source=\"webhook\"} 7"), "{text}");
        assert!(text.contains("lapwing_findings_total{level=\"high\",rule=\"other\"} 99500"), "{text}");
        assert!(text.contains("lapwing_events_received_total{cluster=\"other\",source=\"webhook\"} 99937"));
    }

    #[test]
    fn series_begin_at_zero_and_a_silent_cluster_grows_old() {
        let metrics = Metrics::new(["prod"]);
        metrics.announce_rule("exec", Level::High);
        metrics.announce_output("soc");
        let text = text(&metrics);
        for line in [
            "lapwing_webhook_requests_total{cluster=\"prod\",code=\"413\"} 0",
            "lapwing_events_rejected_total{cluster=\"prod\",reason=\"not_json\"} 0",
            "lapwing_alerts_total{level=\"critical\"} 0",
            "lapwing_findings_total{level=\"high\",rule=\"exec\"} 0",
            "lapwing_undecidable_total{rule=\"exec\"} 0",
            "lapwing_output_dead_letters_total{output=\"soc\"} 0",
            "lapwing_output_pending{output=\"soc\"} 0",
            "lapwing_last_event_timestamp_seconds{cluster=\"prod\"} 1",
        ] {
            assert!(text.contains(line), "`{line}` is missing in\n{text}");
        }
    }

    #[test]
    fn the_names_promised_exist() {
        let metrics = Metrics::new(["prod"]);
        metrics.stored("prod", "webhook", 1, 1.0);
        metrics.rejected("prod", RejectReason::BadBody);
        metrics.answered(None, 401, Duration::from_millis(3));
        metrics.closed("idle");
        metrics.finding("r", Level::Low);
        metrics.undecidable("r", 1);
        metrics.memory_evictions("pods", 1);
        metrics.alert(Level::Low);
        metrics.delivery("soc", Outcome::Delivered, 1);
        metrics.backlog("soc", 0, 0.0);
        metrics.limited("soc", Duration::from_millis(1500));
        let text = text(&metrics);
        for name in [
            "lapwing_events_received_total{cluster=\"prod\",source=\"webhook\"} 1",
            "lapwing_events_rejected_total{cluster=\"prod\",reason=\"bad_body\"} 1",
            "lapwing_batches_total",
            "lapwing_webhook_requests_total{cluster=\"unknown\",code=\"401\"} 1",
            "lapwing_webhook_request_duration_seconds_bucket",
            "lapwing_webhook_connections_closed_total{reason=\"idle\"} 1",
            "lapwing_event_lag_seconds_bucket",
            "lapwing_last_event_timestamp_seconds{cluster=\"prod\"} 1",
            "lapwing_duplicates_total 0",
            "lapwing_truncated_total 0",
            "lapwing_undecidable_total{rule=\"r\"} 1",
            "lapwing_memory_evictions_total{kind=\"pods\"} 1",
            "lapwing_alerts_total{level=\"low\"} 1",
            "lapwing_rules_loaded 0",
            "lapwing_rules_last_reload_success 0",
            "lapwing_rules_last_reload_timestamp_seconds 0",
            "lapwing_window_evictions_total 0",
            "lapwing_baseline_principals 0",
            "lapwing_baseline_bytes 0",
            "lapwing_baseline_shelved_principals 0",
            "lapwing_baseline_shelved_bytes 0",
            "lapwing_baseline_evictions_total 0",
            "lapwing_baseline_lost_total 0",
            "lapwing_journal_durable_lsn 0",
            "lapwing_journal_bytes 0",
            "lapwing_journal_fsync_seconds_bucket",
            "lapwing_engine_lag_records 0",
            "lapwing_index_lag_records 0",
            "lapwing_index_docs 0",
            "lapwing_output_deliveries_total{outcome=\"delivered\",output=\"soc\"} 1",
            "lapwing_output_dead_letters_total{output=\"soc\"} 0",
            "lapwing_output_oldest_seconds{output=\"soc\"} 0",
            "lapwing_output_limited_seconds_total{output=\"soc\"} 1.5",
            "lapwing_build_info{version=",
            "\nprocess_resident_memory_bytes ",
        ] {
            assert!(text.contains(name), "`{name}` is missing in\n{text}");
        }
    }
}
