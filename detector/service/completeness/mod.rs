//! Is it all? Watches each cluster for silence and for requests without an end, and compares what its API servers say they
//! recorded with what came.
//! What is missing becomes an alert and a metric; nothing here touches the events.

mod account;
pub mod clocks;
pub mod stages;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use lapwing_engine::alert::Level;
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderValue};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use self::account::{Account, Counters};
use self::stages::Ended;
use crate::config::HumanDuration;
use crate::metrics::Metrics;
use crate::output::{http, secret, tls};
use crate::pipeline::arrivals::Arrivals;
use crate::pipeline::now_micros;
use crate::pipeline::selfalert::{Notice, SelfAlerts};

/// The event of a canary must be here within this, microseconds: the API server's batching and some of its tries.
const CANARY_WAIT: i64 = 120_000_000;
/// Where canaries are asked for: a namespace that every cluster has.
const CANARY_PATH: &str = "/api/v1/namespaces/kube-public/configmaps/";
const LOOK_EVERY: Duration = Duration::from_secs(15);
const ASK_EVERY: Duration = Duration::from_secs(60);
const ASK_TIMEOUT: Duration = Duration::from_secs(20);
/// An API server that was not reached for so long is told.
const UNREACHED: Duration = Duration::from_secs(600);
/// Fewer requests without an end say nothing: one API server that was stopped leaves some.
const MANY: u64 = 20;
/// Longest line kept of an answer; those that matter are short.
const MAX_LINE: usize = 1024;

/// Whether everything comes that should.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct Config {
    /// A configured cluster without any event for so long is an alert. A very long time turns it off.
    pub silence: HumanDuration,
    /// Percent of a cluster's requests of the last quarter of an hour whose end (`ResponseComplete`) may be missing although
    /// their beginning came; more is an alert. What an audit policy leaves out is not expected. 100 turns it off.
    #[schemars(range(max = 100))]
    pub max_unfinished_percent: u8,
    /// API servers whose metrics tell what they recorded and could not deliver.
    pub api_servers: Vec<ApiServer>,
}

impl Default for Config {
    fn default() -> Self {
        Self { silence: HumanDuration::from_secs(900), max_unfinished_percent: 1, api_servers: Vec::new() }
    }
}

/// One API server; of a cluster with several name each, not a balancer in front of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct ApiServer {
    /// Name of the cluster, as its source has it.
    pub cluster: String,
    /// Address of its metrics, for example `https://10.0.0.1:6443/metrics`.
    pub url: String,
    /// File of the bearer token of a service account that may `get` the path `/metrics`.
    #[serde(default)]
    pub token_file: Option<PathBuf>,
    /// Ask it once a minute for a config map with a name of our own and expect the audit event of that. Needs a policy that
    /// logs reading config maps in `kube-public`, and no right to them: a refusal is logged too.
    #[serde(default)]
    pub canary: bool,
    /// How to trust it: `ca` is the cluster's authority.
    #[serde(default)]
    pub tls: tls::Config,
}

impl Config {
    /// What is wrong, without touching disk or network: the key's path and the message.
    pub fn problems(&self) -> Vec<(String, String)> {
        let servers = self.api_servers.iter().enumerate();
        servers
            .filter_map(|(i, s)| {
                Some((format!("completeness.apiServers[{i}].url"), http::parse(&s.url).err()?.to_string()))
            })
            .collect()
    }
}

/// The watch over all clusters.
pub struct Completeness {
    config: Config,
    clusters: Vec<String>,
    arrivals: Arc<Arrivals>,
    own: SelfAlerts,
    metrics: Arc<Metrics>,
    started: i64,
    servers: Vec<Server>,
    accounts: HashMap<String, Account>,
}

struct Server {
    config: ApiServer,
    client: http::Client,
    reached: Instant,
}

impl Completeness {
    pub fn new(
        config: Config,
        clusters: Vec<String>,
        arrivals: Arc<Arrivals>,
        own: SelfAlerts,
        metrics: Arc<Metrics>,
    ) -> Self {
        let server = |config: &ApiServer| Server {
            client: http::Client::new(config.tls.clone(), ASK_TIMEOUT),
            config: config.clone(),
            reached: Instant::now(),
        };
        let servers = config.api_servers.iter().map(server).collect();
        Self { config, clusters, arrivals, own, metrics, started: now_micros(), servers, accounts: HashMap::new() }
    }

    pub async fn run(mut self, stop: CancellationToken) {
        let (mut look, mut ask) = (interval(LOOK_EVERY), interval(ASK_EVERY));
        ask.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = look.tick() => {
                    self.listen(now_micros()).await;
                    self.count_ends().await;
                    self.look_for_canaries(now_micros()).await;
                }
                _ = ask.tick() => {
                    let ask = self.ask();
                    if stop.run_until_cancelled(ask).await.is_none() {
                        return;
                    }
                }
            }
        }
    }

    /// Tells which clusters are silent at `now`.
    async fn listen(&self, now: i64) {
        let most = i64::try_from(self.config.silence.get().as_micros()).unwrap_or(i64::MAX);
        for cluster in &self.clusters {
            let last = self.arrivals.of(cluster).last.max(self.started);
            let silent = now.saturating_sub(last) > most;
            self.metrics.silent(cluster, silent);
            if silent {
                self.tell(silence(cluster, last)).await;
            } else {
                self.own.over(SILENT, cluster, "");
            }
        }
    }

    /// Tells of which clusters too many requests have no end.
    async fn count_ends(&self) {
        for cluster in &self.clusters {
            let ended = self.arrivals.ended(cluster);
            self.metrics.unfinished(cluster, ended.missing);
            let most = ended.expected * u64::from(self.config.max_unfinished_percent);
            if ended.missing >= MANY && ended.missing * 100 > most {
                self.tell(unfinished(cluster, ended)).await;
            } else {
                self.own.over(UNFINISHED, cluster, "");
            }
        }
    }

    /// Asks every API server and does the accounts.
    async fn ask(&mut self) {
        let now = now_micros() / 1_000_000;
        for i in 0..self.servers.len() {
            let server = &mut self.servers[i];
            let (cluster, url) = (server.config.cluster.clone(), server.config.url.clone());
            match server.ask().await {
                Ok(counters) => {
                    server.reached = Instant::now();
                    let account = self.accounts.entry(cluster.clone()).or_default();
                    for (plugin, lost) in account.take(&url, now, counters) {
                        self.metrics.audit_errors(&cluster, &plugin, lost);
                        self.tell(dropped(&cluster, &plugin, lost)).await;
                    }
                }
                Err(reason) => {
                    tracing::warn!(cluster, reason, "the metrics of an API server could not be read");
                    if server.reached.elapsed() > UNREACHED {
                        self.tell(unwatched(&cluster, &reason)).await;
                    }
                }
            }
            self.send_canary(i).await;
        }
        let mut told = Vec::new();
        for (cluster, account) in &mut self.accounts {
            let missing = account.missing(now, self.arrivals.of(cluster).events);
            self.metrics.missing(cluster, missing);
            if account.must_tell(missing) {
                told.push(incomplete(cluster, missing));
            }
        }
        for notice in told {
            // More than what was told before is told at once.
            self.own.over(INCOMPLETE, &notice.cluster, "");
            self.tell(notice).await;
        }
    }

    async fn send_canary(&mut self, server: usize) {
        let server = &mut self.servers[server];
        if !server.config.canary {
            return;
        }
        let name = self.arrivals.canaries.next(&server.config.cluster, &server.config.url, now_micros());
        if let Err(reason) = server.touch(&format!("{CANARY_PATH}{name}")).await {
            self.arrivals.canaries.forget(&name);
            tracing::warn!(server.config.cluster, reason, "a canary request could not be made");
        }
    }

    /// Tells which API servers' canaries have not come back at `now`.
    async fn look_for_canaries(&self, now: i64) {
        let mut blind: HashMap<&str, bool> = HashMap::new();
        for server in self.servers.iter().filter(|s| s.config.canary) {
            let (cluster, url) = (&server.config.cluster, &server.config.url);
            let since = self.arrivals.canaries.overdue(url, now - CANARY_WAIT);
            *blind.entry(cluster).or_default() |= since.is_some();
            match since {
                Some(since) => self.tell(unseen(cluster, url, since)).await,
                None => self.own.over(BLIND, cluster, url),
            }
        }
        blind.into_iter().for_each(|(cluster, blind)| self.metrics.blind(cluster, blind));
    }

    async fn tell(&self, notice: Notice) {
        let own = self.own.clone();
        if let Ok(Err(error)) = tokio::task::spawn_blocking(move || own.raise(&notice)).await {
            tracing::error!(%error, "an alert about Lapwing itself could not be stored");
        }
    }
}

impl Server {
    fn headers(&self) -> Result<HeaderMap, String> {
        let mut headers = HeaderMap::new();
        if let Some(file) = &self.config.token_file {
            let token = secret::read(file).map_err(|e| e.to_string())?;
            let mut value = HeaderValue::try_from(format!("Bearer {}", token.expose())).map_err(|e| e.to_string())?;
            value.set_sensitive(true);
            headers.insert(AUTHORIZATION, value);
        }
        Ok(headers)
    }

    /// Makes a request that must leave an audit event. Of one nobody stands behind (401) the API server tells little.
    async fn touch(&mut self, path: &str) -> Result<(), String> {
        let mut url = http::parse(&self.config.url).map_err(|e| e.to_string())?;
        url.set_path(path);
        let headers = self.headers()?;
        let status = self.client.status(&url, headers).await.map_err(|e| e.to_string())?;
        if status.as_u16() == 401 || status.is_server_error() { Err(status.to_string()) } else { Ok(()) }
    }

    async fn ask(&mut self) -> Result<Counters, String> {
        let url = http::parse(&self.config.url).map_err(|e| e.to_string())?;
        let headers = self.headers()?;
        let (mut counters, mut lines) = (Counters::default(), Lines::default());
        self.client
            .get(&url, headers, |part| lines.take(part, |line| counters.line(line)))
            .await
            .map_err(|e| e.to_string())?;
        lines.take(b"\n", |line| counters.line(line));
        if counters == Counters::default() {
            return Err(
                "the answer holds no apiserver_audit_event_total; is it an API server with an audit policy?".into()
            );
        }
        Ok(counters)
    }
}

/// Lines out of parts; of one that is too long nothing is kept.
#[derive(Default)]
struct Lines(Vec<u8>);

impl Lines {
    fn take(&mut self, part: &[u8], mut line: impl FnMut(&str)) {
        for piece in part.split_inclusive(|b| *b == b'\n') {
            if self.0.len() <= MAX_LINE {
                self.0.extend(&piece[..piece.len().min(MAX_LINE + 1)]);
            }
            if piece.ends_with(b"\n") {
                if self.0.len() <= MAX_LINE {
                    line(String::from_utf8_lossy(&self.0).trim_end());
                }
                self.0.clear();
            }
        }
    }
}

const SILENT: &str = "lapwing-cluster-silent";
const INCOMPLETE: &str = "lapwing-audit-incomplete";
const BLIND: &str = "lapwing-audit-blind";
const UNFINISHED: &str = "lapwing-audit-unfinished";

fn silence(cluster: &str, last: i64) -> Notice {
    let since = chrono::DateTime::from_timestamp_micros(last).unwrap_or_default();
    Notice {
        id: SILENT,
        title: "A cluster went silent",
        level: Level::High,
        cluster: cluster.to_owned(),
        summary: format!("No event of cluster {cluster} has come since {}", since.format("%Y-%m-%d %H:%M UTC")),
        why: "Lapwing sees nothing of this cluster. Its audit policy or webhook may have been changed, the way to Lapwing cut, \
              or the API server replaced.",
        next_steps: &[
            "is the API server running with --audit-policy-file and --audit-webhook-config-file?",
            "can it reach Lapwing? its metric apiserver_audit_error_total tells what it gave up",
            "look for 401 and 403 in lapwing_webhook_requests_total",
        ],
        ..Notice::default()
    }
}

fn unfinished(cluster: &str, ended: Ended) -> Notice {
    Notice {
        id: UNFINISHED,
        title: "Requests have no end",
        level: Level::High,
        cluster: cluster.to_owned(),
        summary: format!(
            "Of {} requests of cluster {cluster} that should have ended in the last 15 minutes {} left no ResponseComplete",
            ended.expected, ended.missing
        ),
        why: "How a request ended stands in its last event alone. Either the audit policy was changed to omit that stage, or \
              somebody or something loses events on the way, such as a batch an API server could not encode.",
        next_steps: &[
            "compare the audit policy, omitStages above all, with what it should be",
            "the API servers' metric apiserver_audit_error_total tells what they gave up",
            "what stands between: a forwarder, Kafka, a log shipper?",
        ],
        ..Notice::default()
    }
}

fn unseen(cluster: &str, server: &str, since: i64) -> Notice {
    let since = chrono::DateTime::from_timestamp_micros(since).unwrap_or_default();
    Notice {
        id: BLIND,
        title: "Requests leave no audit events",
        level: Level::Critical,
        cluster: cluster.to_owned(),
        subject: server.to_owned(),
        summary: format!(
            "Lapwing is blind for cluster {cluster} since {}: what it asked {server} itself has left no audit event",
            since.format("%Y-%m-%d %H:%M UTC")
        ),
        why: "Other events may still come and hide that. The audit policy may have been changed, the webhook removed, its \
              buffer be full, or another API server answers at this address.",
        next_steps: &[
            "does the policy log `get` of config maps in kube-public?",
            "compare the API server's flags and policy with what they should be",
            "its metric apiserver_audit_error_total tells what it gave up",
        ],
        ..Notice::default()
    }
}

fn dropped(cluster: &str, plugin: &str, lost: u64) -> Notice {
    Notice {
        id: "lapwing-audit-dropped",
        title: "An API server dropped audit events",
        level: Level::High,
        cluster: cluster.to_owned(),
        subject: plugin.to_owned(),
        summary: format!("An API server of cluster {cluster} could not deliver {lost} audit events (plugin {plugin})"),
        why: "These events never reach Lapwing. `buffered` means that its buffer was full, `webhook` that all tries failed, \
              `truncate` and `log` that events were too large or could not be encoded, which a hostile request can provoke.",
        next_steps: &[
            "read the API server's log of that minute",
            "webhook: was Lapwing down or refusing? buffered: raise --audit-webhook-batch-buffer-size",
            "set --audit-webhook-truncate-enabled, so that one bad event does not cost its batch",
        ],
        ..Notice::default()
    }
}

fn incomplete(cluster: &str, missing: u64) -> Notice {
    Notice {
        id: INCOMPLETE,
        title: "Audit events are missing",
        level: Level::High,
        cluster: cluster.to_owned(),
        summary: format!(
            "{missing} events that API servers of cluster {cluster} recorded have not come within five minutes"
        ),
        why: "The API servers counted more events than Lapwing received. Somebody or something between them loses or removes \
              some.",
        next_steps: &[
            "is every API server of the cluster configured to send, and listed under completeness.apiServers?",
            "what stands between them: a forwarder, Kafka, a log shipper?",
        ],
        ..Notice::default()
    }
}

fn unwatched(cluster: &str, reason: &str) -> Notice {
    Notice {
        id: "lapwing-audit-unwatched",
        title: "An API server's metrics cannot be read",
        level: Level::Medium,
        cluster: cluster.to_owned(),
        summary: format!("Whether all events of cluster {cluster} come is not known: {reason}"),
        why: "Without its metrics nobody notices that an API server drops audit events.",
        next_steps: &["check completeness.apiServers: url, tokenFile and tls.ca"],
        ..Notice::default()
    }
}

#[cfg(test)]
mod tests;
