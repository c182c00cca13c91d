//! Alerts over syslog: RFC 5424 messages in octet-counted frames (RFC 6587, RFC 5425), over TCP or TLS,
//! carrying CEF or JSON.
//!
//! Syslog has no acknowledgements. What was sent within the last half minute before a connection broke is
//! sent again over the next one; that may repeat an alert, and the receiver can tell by `alert_id`.

use std::collections::VecDeque;
use std::path::Path;
use std::time::Duration;

use chrono::{DateTime, SecondsFormat, Utc};
use lapwing_engine::alert::{Alert, Level};
use rustls::pki_types::ServerName;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::Instant;

use super::encode::{cap, sd_value, syslog_token};
use super::{Common, Failure, Receipt, cef, leef, net, record, tls};

/// Longest wait for one write.
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a sent frame may still be lost with its connection.
const UNCONFIRMED: Duration = Duration::from_secs(30);
/// How many such frames are kept.
const MAX_UNCONFIRMED: usize = 256;

/// Settings of an output of type `syslog`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
#[schemars(extend("required" = ["name", "address"]))]
pub struct Config {
    #[serde(flatten)]
    pub common: Common,
    /// `host:port` of the receiver. 6514 is usual with TLS, 514 or 601 without.
    pub address: String,
    /// Speak TLS. Without it alerts travel readable.
    pub tls: Option<tls::Config>,
    /// `tcp`, or `udp`, which loses messages without a word.
    pub transport: Transport,
    /// What the message is: `cef`, `leef` or `json`.
    pub format: Format,
    /// Syslog facility, 0 to 23. Default: 16 (local0).
    pub facility: u8,
    /// Largest message in bytes (2500 to 65536). rsyslog cuts at 8096 unless told otherwise.
    pub max_bytes: usize,
}

/// What a syslog message carries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    #[default]
    Cef,
    Leef,
    Json,
}

/// What carries the messages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Transport {
    #[default]
    Tcp,
    Udp,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            common: Common::default(),
            address: String::new(),
            tls: None,
            transport: Transport::default(),
            format: Format::default(),
            facility: 16,
            max_bytes: 8000,
        }
    }
}

impl Config {
    pub(super) fn target(&self) -> String {
        let over = match (self.transport, &self.tls) {
            (Transport::Udp, _) => "UDP",
            (Transport::Tcp, None) => "TCP",
            (Transport::Tcp, Some(_)) => "TLS",
        };
        format!("{} over {over}", self.address)
    }

    pub(super) fn resolve(&mut self, base: &Path) {
        if let Some(tls) = &mut self.tls {
            tls.resolve(base);
        }
    }

    pub(super) fn problems(&self) -> Vec<String> {
        let mut found = Vec::new();
        if net::split_address(&self.address).is_none() {
            found.push(format!("address `{}`: expected `host:port`", self.address));
        }
        if self.transport == Transport::Udp && self.tls.is_some() {
            found.push("tls needs transport `tcp`".to_owned());
        }
        if self.facility > 23 {
            found.push("facility: expected 0 to 23".to_owned());
        }
        if !(2500..=65536).contains(&self.max_bytes) {
            found.push("maxBytes: expected 2500 to 65536".to_owned());
        }
        found
    }
}

/// TCP or TLS.
trait Stream: AsyncRead + AsyncWrite + Send + Sync + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Sync + Unpin> Stream for T {}

pub struct Syslog {
    config: Config,
    host: String,
    port: u16,
    hostname: String,
    connection: Option<Box<dyn Stream>>,
    /// Sent, and not yet old enough to be safe.
    unconfirmed: VecDeque<(Instant, Vec<u8>)>,
}

impl std::fmt::Debug for Syslog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Syslog").field("config", &self.config).finish_non_exhaustive()
    }
}

impl Syslog {
    pub fn new(config: &Config) -> Result<Self, String> {
        let (host, port) = net::split_address(&config.address).ok_or("address: expected `host:port`")?;
        if let Some(tls) = &config.tls {
            tls.client().map_err(|e| e.to_string())?;
            tls.name(host).map_err(|e| e.to_string())?;
        }
        let hostname = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        Ok(Self {
            host: host.to_owned(),
            port,
            hostname: syslog_token(hostname.trim(), 255),
            config: config.clone(),
            connection: None,
            unconfirmed: VecDeque::new(),
        })
    }

    pub async fn deliver(&mut self, alert: &Alert) -> Result<Receipt, Failure> {
        let message = message(alert, &self.config, &self.hostname, Utc::now());
        if self.config.transport == Transport::Udp {
            return self.datagram(message.as_bytes()).await;
        }
        let frame = format!("{} {message}", message.len()).into_bytes();
        self.tend().await?;
        self.ready().await?;
        self.write(&frame).await?;
        if self.unconfirmed.len() == MAX_UNCONFIRMED {
            self.unconfirmed.pop_front();
        }
        self.unconfirmed.push_back((Instant::now(), frame));
        Ok(Receipt("sent; syslog has no acknowledgement, look for the alert at the receiver".to_owned()))
    }

    async fn datagram(&self, message: &[u8]) -> Result<Receipt, Failure> {
        let socket = net::connect_udp(&self.host, self.port).await.map_err(Failure::retry)?;
        socket.send(message).await.map_err(|e| match e.raw_os_error() {
            Some(code) if code == rustix::io::Errno::MSGSIZE.raw_os_error() => Failure::reject(e),
            _ => Failure::retry(format_args!("cannot send to {}: {e}", self.config.target())),
        })?;
        Ok(Receipt("sent as a datagram, which nobody acknowledges; look for the alert at the receiver".to_owned()))
    }

    /// Sends again what a broken connection may have lost.
    pub async fn tend(&mut self) -> Result<(), Failure> {
        if self.connection.is_some() && !self.alive().await {
            self.connection = None;
        }
        if self.connection.is_some() {
            // Only while the connection lives does waiting make a frame safe.
            self.unconfirmed.retain(|(sent, _)| sent.elapsed() < UNCONFIRMED);
            return Ok(());
        }
        if self.unconfirmed.is_empty() {
            return Ok(());
        }
        self.ready().await?;
        for at in 0..self.unconfirmed.len() {
            let frame = self.unconfirmed[at].1.clone();
            self.write(&frame).await?;
            self.unconfirmed[at].0 = Instant::now();
        }
        Ok(())
    }

    /// A receiver never writes; reading tells whether it hung up. The millisecond lets the runtime ask the
    /// kernel: without it, news that already arrived would not be seen.
    async fn alive(&mut self) -> bool {
        let Some(stream) = &mut self.connection else { return false };
        let mut buffer = [0; 256];
        let hung_up = async { while matches!(stream.read(&mut buffer).await, Ok(1..)) {} };
        tokio::time::timeout(Duration::from_millis(1), hung_up).await.is_err()
    }

    async fn ready(&mut self) -> Result<(), Failure> {
        if self.connection.is_none() {
            let connecting = tokio::time::timeout(WRITE_TIMEOUT, self.connect()).await;
            self.connection = Some(connecting.map_err(|_| Failure::retry("no TLS session within 30 seconds"))??);
        }
        Ok(())
    }

    async fn connect(&self) -> Result<Box<dyn Stream>, Failure> {
        let tcp = net::connect(&self.host, self.port).await.map_err(Failure::retry)?;
        watch(&tcp);
        let Some(tls) = &self.config.tls else { return Ok(Box::new(tcp)) };
        let name: ServerName<'static> = tls.name(&self.host).map_err(Failure::retry)?;
        let connector = tokio_rustls::TlsConnector::from(std::sync::Arc::new(tls.client().map_err(Failure::retry)?));
        let target = self.config.target();
        let stream = connector.connect(name, tcp).await;
        Ok(Box::new(stream.map_err(|e| Failure::retry(format_args!("no TLS session with {target}: {e}")))?))
    }

    async fn write(&mut self, frame: &[u8]) -> Result<(), Failure> {
        // Taken out: a half-written frame makes a connection useless, also when this future is dropped.
        let Some(mut stream) = self.connection.take() else { return Err(Failure::retry("not connected")) };
        let writing = async {
            stream.write_all(frame).await?;
            stream.flush().await
        };
        let target = self.config.target();
        match tokio::time::timeout(WRITE_TIMEOUT, writing).await {
            Ok(Ok(())) => {
                self.connection = Some(stream);
                Ok(())
            }
            Ok(Err(e)) => Err(Failure::retry(format_args!("cannot write to {target}: {e}"))),
            Err(_) => Err(Failure::retry(format_args!("{target} took nothing for 30 seconds"))),
        }
    }
}

/// Makes the kernel notice a peer that vanished without a word.
fn watch(tcp: &tokio::net::TcpStream) {
    use rustix::net::sockopt;
    // Best effort: without these a vanished peer is only noticed later.
    let _ = sockopt::set_socket_keepalive(tcp, true);
    let _ = sockopt::set_tcp_keepidle(tcp, Duration::from_secs(10));
    let _ = sockopt::set_tcp_keepintvl(tcp, Duration::from_secs(5));
    let _ = sockopt::set_tcp_user_timeout(tcp, 20_000);
}

const fn severity(level: Level) -> u8 {
    match level {
        Level::Informational => 6,
        Level::Low => 5,
        Level::Medium => 4,
        Level::High => 3,
        Level::Critical => 2,
    }
}

/// The message of `alert`, of at most `config.max_bytes` bytes.
fn message(alert: &Alert, config: &Config, hostname: &str, now: DateTime<Utc>) -> String {
    let priority = u16::from(config.facility) * 8 + u16::from(severity(alert.level));
    let time = now.to_rfc3339_opts(SecondsFormat::Micros, true);
    let data = structured_data(alert);
    let kind = alert.status.as_str();
    let mut message = format!("<{priority}>1 {time} {hostname} lapwing - alert-{kind} {data} ");
    let room = config.max_bytes.saturating_sub(message.len());
    message.push_str(&match config.format {
        Format::Cef => cef::encode(alert, room),
        Format::Leef => leef::encode(alert, room),
        Format::Json => record::line(alert, record::Format::Json, room),
    });
    message
}

fn structured_data(alert: &Alert) -> String {
    let value = |text: &str| sd_value(&cap(text, 64));
    let data = format!(
        "[lapwing@32473 alert_id=\"{}\" rule=\"{}\" level=\"{}\" cluster=\"{}\"]",
        value(&alert.id),
        value(&alert.rule.id),
        alert.level,
        value(&alert.cluster)
    );
    // Only names made of escapes are this long.
    if data.len() > 600 { "-".to_owned() } else { data }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;
    use crate::output::sample;

    fn text(alert: &Alert, format: Format) -> String {
        let config = Config { format, ..Config::default() };
        let now = "2026-03-01T12:00:00.123456789Z".parse().unwrap();
        message(alert, &config, "host", now)
    }

    #[test]
    fn a_frame_reads_as_expected() {
        let text = text(&sample::alert(), Format::Json);
        let start = "<131>1 2026-03-01T12:00:00.123456Z host lapwing - alert-new [lapwing@32473 alert_id=\"a1b2c3d4\" \
                     rule=\"pod-exec-shell\" level=\"high\" cluster=\"prod\"] ";
        let body = text.strip_prefix(start).unwrap_or_else(|| panic!("{text}"));
        assert_eq!(serde_json::from_str::<Alert>(body).unwrap(), sample::alert());
    }

    #[test]
    fn structured_data_cannot_be_closed_from_inside() {
        let text = text(&sample::hostile("\"] <131>1 - - - - - -\n"), Format::Cef);
        assert!(text.contains(r#"cluster="\"\] <131>1 - - - - - -\\u000a"] CEF:0|"#), "{text}");
    }

    #[test]
    fn a_large_alert_keeps_what_matters() {
        let mut alert = sample::alert();
        alert.evidence = vec![alert.evidence[0].clone(); 10];
        alert.evidence[9].name = "last".to_owned();
        alert.audit_ids = vec!["x".repeat(36); 500];
        let value: Value = serde_json::from_str(&record::line(&alert, record::Format::Json, 3000)).unwrap();
        assert_eq!(value["truncated"], true);
        assert_eq!(value["summary"], alert.summary);
        assert_eq!(value["evidence"][0]["name"], "last");
        assert_eq!(value["auditIDs"].as_array().unwrap().len(), 10);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]
        #[test]
        fn never_too_large_and_always_whole(text in "[a-z=\"\\]\\\\\n\\x01\u{1f600}]{0,4000}", json in any::<bool>(), max in 2500usize..9000) {
            let mut alert = sample::hostile(&text);
            alert.rule.title = text.clone();
            alert.rule.tags = vec![text; 20];
            let format = if json { Format::Json } else { Format::Cef };
            let config = Config { format, max_bytes: max, ..Config::default() };
            let message = message(&alert, &config, "host", Utc::now());
            prop_assert!(message.len() <= max, "{}", message.len());
            prop_assert!(!message.contains('\n'));
            if json {
                let body = message.split_once(" {").unwrap().1;
                let body = ["{", body].concat();
                prop_assert!(serde_json::from_str::<Value>(&body).is_ok());
            } else {
                cef::tests::read(&message[message.find("CEF:0").unwrap()..]);
            }
        }
    }

    #[test]
    fn settings_are_checked() {
        let config = Config { address: "siem".into(), facility: 24, max_bytes: 100, ..Config::default() };
        assert_eq!(config.problems().len(), 3);
    }
}
