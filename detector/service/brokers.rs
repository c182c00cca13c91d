//! What keeps a Kafka client from its brokers, in words that say what to do.
//!
//! librdkafka says of a certificate it does not accept only that it was not verified, and guesses at the authority. So
//! the broker is asked for its certificate once more, with the same trust, by the TLS of the other outputs, which tells
//! the name, the end and the authority apart.

use std::net::{TcpStream, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rdkafka::ClientConfig;
use rustls::{CertificateError, ClientConnection};

use crate::output::encode::{cap, visible};
use crate::output::tls;

/// Longest time for one step of looking at a certificate.
const STEP: Duration = Duration::from_secs(5);
/// Longest text of librdkafka that is repeated.
const LONGEST: usize = 300;

/// `reason` as librdkafka told it, with what is to be done where that is known. May take a few seconds: it may connect to
/// the broker.
pub fn explain(client: &ClientConfig, reason: &str) -> String {
    let said = |what: &str| reason.to_ascii_lowercase().contains(what);
    let broker = address(reason);
    let about = if said("certificate verify failed") {
        broker.and_then(|broker| certificate(client, broker))
    } else if said("alert certificate") || said("alert bad certificate") || said("alert unknown ca") {
        Some(refused(client, broker))
    } else if said("sasl") && said("authentication") {
        let user = client.get("sasl.username").unwrap_or_default();
        Some(format!(
            "the broker does not take the user `{user}` with this password; correct `sasl.username`, the password's file \
             or the user at the broker"
        ))
    } else {
        None
    };
    let reason = cap(reason, LONGEST);
    let told = about.map_or_else(|| reason.to_string(), |about| format!("{about} ({reason})"));
    visible(&told).into_owned()
}

/// Whether a certificate or a password is to blame.
pub fn is_refusal(reason: &str) -> bool {
    let reason = reason.to_ascii_lowercase();
    ["ssl", "tls", "authentication"].iter().any(|word| reason.contains(word))
}

/// `host:port` in `ssl://host:port/1: what happened`.
fn address(reason: &str) -> Option<&str> {
    let (_, rest) = reason.split_once("://")?;
    rest.split_once('/').map(|(address, _)| address)
}

/// What the broker has against our certificate.
fn refused(client: &ClientConfig, broker: Option<&str>) -> String {
    let broker = broker.unwrap_or("the broker");
    match client.get("ssl.certificate.location").or_else(|| client.get("ssl.keystore.location")) {
        Some(file) => format!(
            "{broker} refuses the client certificate in `{file}`; it must not have ended, and come from an authority in \
             the broker's truststore"
        ),
        None => format!(
            "{broker} wants a client certificate; set `ssl.certificate.location` and `ssl.key.location` to one from an \
             authority in the broker's truststore"
        ),
    }
}

/// What is wrong with the certificate the broker shows; `None` when that cannot be told.
fn certificate(client: &ClientConfig, broker: &str) -> Option<String> {
    let (host, port) = broker.rsplit_once(':')?;
    let host = host.trim_matches(['[', ']']);
    if ["ssl.ca.pem", "ssl.keystore.location"].iter().any(|key| client.get(key).is_some()) {
        return None;
    }
    let ca = client.get("ssl.ca.location").map(PathBuf::from);
    if ca.as_ref().is_some_and(|ca| !ca.is_file()) {
        return None;
    }
    let trust = tls::Config { ca: ca.clone(), ..tls::Config::default() };
    let mut session = ClientConnection::new(trust.client().ok()?.into(), trust.name(host).ok()?).ok()?;
    let place = (host, port.parse::<u16>().ok()?).to_socket_addrs().ok()?.next()?;
    let mut tcp = TcpStream::connect_timeout(&place, STEP).ok()?;
    tcp.set_read_timeout(Some(STEP)).ok()?;
    tcp.set_write_timeout(Some(STEP)).ok()?;
    let error = session.complete_io(&mut tcp).err()?;
    let rustls::Error::InvalidCertificate(problem) = error.get_ref()?.downcast_ref()? else { return None };
    let day = |time: &rustls::pki_types::UnixTime| {
        let time = i64::try_from(time.as_secs()).ok().and_then(|at| chrono::DateTime::from_timestamp(at, 0));
        time.map_or_else(String::new, |time| time.format(" on %Y-%m-%d").to_string())
    };
    let what = match problem {
        CertificateError::ExpiredContext { not_after, .. } => format!("ended{}; have it renewed", day(not_after)),
        CertificateError::Expired => "has ended; have it renewed".to_owned(),
        CertificateError::NotValidYetContext { not_before, .. } => {
            format!("begins{}; compare the clocks of both machines", day(not_before))
        }
        CertificateError::NotValidForNameContext { presented, .. } => format!(
            "is for {}, not for `{host}`; name the broker as its certificate does, here and in its advertised.listeners, \
             or have the certificate issued for this name",
            presented.iter().map(|name| plain(name)).collect::<Vec<_>>().join(", ")
        ),
        CertificateError::NotValidForName => format!("is not for `{host}`; name the broker as its certificate does"),
        CertificateError::UnknownIssuer => {
            let held = ca.map_or_else(|| "this machine".to_owned(), |ca| format!("`{}`", ca.display()));
            format!(
                "comes from an authority {held} does not hold; put the authority's certificate in `ssl.ca.location`"
            )
        }
        other => format!("is not accepted: {other}"),
    };
    Some(format!("the certificate of {broker} {}", cap(&what, 2 * LONGEST)))
}

/// `name` as rustls tells it, `DnsName("name")`, without that.
fn plain(name: &str) -> &str {
    name.split('"').nth(1).unwrap_or(name)
}

/// The files a client is made from, and how they looked.
#[derive(Debug)]
pub struct Files(Vec<(PathBuf, Option<(SystemTime, u64)>)>);

impl Files {
    pub fn of(client: &ClientConfig, password: Option<&Path>) -> Self {
        let keys = ["ssl.ca.location", "ssl.certificate.location", "ssl.key.location", "ssl.keystore.location"];
        let named = keys.iter().filter_map(|key| client.get(key)).map(PathBuf::from);
        Self(named.chain(password.map(Path::to_owned)).map(|path| (path.clone(), look(&path))).collect())
    }

    /// Whether one of them was replaced since.
    pub fn changed(&self) -> bool {
        self.0.iter().any(|(path, then)| look(path) != *then)
    }
}

fn look(path: &Path) -> Option<(SystemTime, u64)> {
    let data = std::fs::metadata(path).ok()?;
    Some((data.modified().ok()?, data.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_are_explained_and_nothing_else_is() {
        let mut client = ClientConfig::new();
        client.set("sasl.username", "ann\n").set("sasl.password", "secret");
        let told = explain(&client, "sasl_ssl://k:9093/1: SASL authentication error: Authentication failed");
        assert!(
            told.contains("the user `ann\\u000a`") && told.contains("k:9093") && !told.contains("secret"),
            "{told}"
        );
        let wants =
            "ssl://k:9093/1: SSL handshake failed: error:0A00045C:SSL routines::tlsv13 alert certificate required";
        assert!(
            explain(&client, wants).starts_with("k:9093 wants a client certificate; set `ssl.certificate.location`")
        );
        client.set("ssl.certificate.location", "/c.pem");
        assert!(explain(&client, wants).starts_with("k:9093 refuses the client certificate in `/c.pem`"));
        let gone = "ssl://k:9093/1: Connect to ipv4#10.0.0.1:9093 failed: Connection refused";
        assert_eq!(explain(&client, gone), gone);
    }

    #[test]
    fn the_address_is_found() {
        assert_eq!(address("sasl_ssl://[::1]:9093/bootstrap: x"), Some("[::1]:9093"));
        assert_eq!(address("GroupCoordinator: ssl://k.example.org:9093/1: x"), Some("k.example.org:9093"));
        assert_eq!(address("2/2 brokers are down"), None);
    }

    #[test]
    fn a_file_put_in_its_place_is_noticed() {
        let dir = tempfile::tempdir().expect("a directory");
        let password = dir.path().join("password");
        let files = Files::of(&ClientConfig::new(), Some(&password));
        assert!(!files.changed(), "it is as missing as before");
        std::fs::write(&password, "one").expect("written");
        assert!(files.changed());
        let files = Files::of(&ClientConfig::new(), Some(&password));
        assert!(!files.changed());
        std::fs::write(&password, "other").expect("written");
        assert!(files.changed());
    }
}
