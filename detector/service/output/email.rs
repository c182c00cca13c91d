//! Alerts as e-mail over SMTP: STARTTLS (the default, required and never dropped), implicit TLS, or plain
//! towards loopback only.
//!
//! Headers hold fixed words, the rule's title, level, cluster and ids, never text of an event. Notices about
//! the same alert thread through `References`.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use lapwing_engine::alert::{Alert, Level, Status};
use lettre::message::header::{HeaderName, HeaderValue};
use lettre::message::{Mailbox, Message, MultiPart};
use lettre::transport::smtp;
use lettre::transport::smtp::authentication::{Credentials, Mechanism};
use lettre::transport::smtp::client::{
    AsyncSmtpConnection, AsyncTokioStream, Certificate, CertificateStore, Identity, TlsParameters,
};
use lettre::transport::smtp::commands::{Data, Mail, Rcpt};
use lettre::transport::smtp::extension::ClientId;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::encode::{cap, html, mail_header, syslog_token, visible};
use super::{Common, Failure, Receipt, net, secret, text, tls, webhook};
use crate::config::HumanDuration;
use crate::flow::gather::identity;

/// Longest time for one mail, connecting included.
const TIMEOUT: Duration = Duration::from_secs(60);
/// A connection nobody used for this long is closed.
const IDLE: Duration = Duration::from_secs(15);

/// Settings of an output of type `email`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
#[schemars(extend("required" = ["name", "host", "from", "to"]))]
pub struct Config {
    #[serde(flatten)]
    pub common: Common,
    /// SMTP server.
    pub host: String,
    /// Its port. Default: 587 with `starttls`, 465 with `tls`, 25 with `none`.
    pub port: Option<u16>,
    /// `starttls`, `tls` (from the first byte) or `none` (loopback only).
    pub security: Security,
    /// How to trust the server.
    pub tls: tls::Config,
    /// Sender, as `lapwing@example.org` or `Lapwing <lapwing@example.org>`.
    pub from: String,
    /// Receivers.
    pub to: Vec<String>,
    /// User to log in as. Needs `passwordFile`.
    pub username: Option<String>,
    /// File with the password.
    pub password_file: Option<PathBuf>,
    /// Told as resolved when nothing came of it for so long. Default: never.
    pub resolve_after: Option<HumanDuration>,
}

/// How the connection is protected.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Security {
    #[default]
    Starttls,
    Tls,
    None,
}

impl Config {
    fn port(&self) -> u16 {
        self.port.unwrap_or(match self.security {
            Security::Starttls => 587,
            Security::Tls => 465,
            Security::None => 25,
        })
    }

    pub(super) fn target(&self) -> String {
        format!("{} by {}:{}", self.to.join(", "), self.host, self.port())
    }

    pub(super) fn resolve(&mut self, base: &Path) {
        if let Some(path) = &mut self.password_file {
            *path = base.join(&*path);
        }
        self.tls.resolve(base);
    }

    pub(super) fn problems(&self) -> Vec<String> {
        let mut found = Vec::new();
        if self.host.is_empty() {
            found.push("host is missing; expected the name of an SMTP server".to_owned());
        } else if self.security == Security::None && !net::names_loopback(&self.host) {
            found.push("security `none` is for loopback only; use `starttls` or `tls`".to_owned());
        }
        if self.to.is_empty() {
            found.push("to is missing; expected at least one address".to_owned());
        }
        for address in self.to.iter().chain([&self.from]) {
            if address.parse::<Mailbox>().is_err() {
                found.push(format!("`{address}` is not a mail address; expected `name@host`"));
            }
        }
        if self.username.is_some() != self.password_file.is_some() {
            found.push("`username` and `passwordFile` belong together; set both or none".to_owned());
        }
        found
    }
}

pub struct Email {
    config: Config,
    from: Mailbox,
    to: Vec<Mailbox>,
    session: Option<(Instant, AsyncSmtpConnection)>,
}

impl std::fmt::Debug for Email {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Email").field("config", &self.config).finish_non_exhaustive()
    }
}

impl Email {
    pub fn new(config: &Config) -> Result<Self, String> {
        let mailbox = |text: &String| text.parse::<Mailbox>().map_err(|e| format!("`{text}`: {e}"));
        if let Some(path) = &config.password_file {
            secret::read(path).map_err(|e| e.to_string())?;
        }
        if config.security != Security::None {
            config.tls.client().map_err(|e| e.to_string())?;
            config.tls.name(&config.host).map_err(|e| e.to_string())?;
        }
        let to = config.to.iter().map(mailbox).collect::<Result<_, _>>()?;
        Ok(Self { from: mailbox(&config.from)?, to, config: config.clone(), session: None })
    }

    pub async fn deliver(&mut self, alerts: &[&Alert]) -> Result<Receipt, Failure> {
        let mail = compose(alerts, &self.from, &self.to, SystemTime::now()).map_err(Failure::reject)?;
        let sent = tokio::time::timeout(TIMEOUT, self.send(&mail.formatted())).await;
        sent.unwrap_or_else(|_| Err(Failure::retry("the SMTP server did not finish within 60 seconds")))
    }

    /// Closes a connection that is no longer used.
    pub async fn tend(&mut self) {
        if self.session.as_ref().is_some_and(|(used, _)| used.elapsed() > IDLE)
            && let Some((_, mut session)) = self.session.take()
        {
            let _ = tokio::time::timeout(Duration::from_secs(2), session.quit()).await;
        }
    }

    /// Sends one mail. The session survives only if all of it went well.
    async fn send(&mut self, mail: &[u8]) -> Result<Receipt, Failure> {
        let mut session = self.session().await?;
        let told = self.transact(&mut session, mail).await?;
        self.session = Some((Instant::now(), session));
        Ok(told)
    }

    /// The kept connection while the server still answers on it, else a new one.
    async fn session(&mut self) -> Result<AsyncSmtpConnection, Failure> {
        if let Some((_, mut session)) = self.session.take()
            && session.test_connected().await
        {
            return Ok(session);
        }
        self.connect().await
    }

    async fn transact(&self, session: &mut AsyncSmtpConnection, mail: &[u8]) -> Result<Receipt, Failure> {
        session.command(Mail::new(Some(self.from.email.clone()), vec![])).await.map_err(failure)?;
        let (mut accepted, mut refused) = (0, Vec::new());
        for to in &self.to {
            match session.command(Rcpt::new(to.email.clone(), vec![])).await {
                Ok(_) => accepted += 1,
                // One receiver that is gone must not keep the mail from the others.
                Err(e) if e.is_permanent() => refused.push(format!("{}: {}", to.email, visible(&e.to_string()))),
                Err(e) => return Err(failure(e)),
            }
        }
        if accepted == 0 {
            return Err(Failure::reject(refused.join("; ")));
        }
        session.command(Data).await.map_err(failure)?;
        let answer = session.message(mail).await.map_err(failure)?;
        let lines: Vec<&str> = answer.message().collect();
        let mut told = format!("{} {}", answer.code(), visible(&lines.join(" ")));
        if !refused.is_empty() {
            tracing::warn!(
                output = self.config.common.name,
                refused = refused.join("; "),
                "some receivers were refused"
            );
            told.push_str(&format!("; refused: {}", refused.join("; ")));
        }
        Ok(Receipt(told))
    }

    async fn connect(&self) -> Result<AsyncSmtpConnection, Failure> {
        let config = &self.config;
        let tcp = net::connect(&config.host, config.port()).await.map_err(Failure::retry)?;
        let hello = ClientId::default();
        let mut session = match config.security {
            Security::Tls => {
                let tls = std::sync::Arc::new(config.tls.client().map_err(Failure::retry)?);
                let name = config.tls.name(&config.host).map_err(Failure::retry)?;
                let stream = tokio_rustls::TlsConnector::from(tls).connect(name, tcp).await;
                let stream = stream.map_err(|e| Failure::retry(format_args!("no TLS session: {e}")))?;
                AsyncSmtpConnection::connect_with_transport(Box::new(Wire(stream)), &hello).await.map_err(opening)?
            }
            Security::Starttls => {
                let parameters = parameters(config)?;
                let session = AsyncSmtpConnection::connect_with_transport(Box::new(tcp), &hello).await;
                let mut session = session.map_err(opening)?;
                session.starttls(parameters, &hello).await.map_err(opening)?;
                session
            }
            Security::None => {
                AsyncSmtpConnection::connect_with_transport(Box::new(tcp), &hello).await.map_err(opening)?
            }
        };
        self.login(&mut session).await?;
        Ok(session)
    }

    async fn login(&self, session: &mut AsyncSmtpConnection) -> Result<(), Failure> {
        let (Some(user), Some(path)) = (&self.config.username, &self.config.password_file) else { return Ok(()) };
        let password = secret::read(path).map_err(Failure::retry)?;
        let credentials = Credentials::new(user.clone(), password.expose().to_owned());
        session.auth(&[Mechanism::Plain, Mechanism::Login], &credentials).await.map_err(opening)?;
        Ok(())
    }
}

/// A refusal of this mail.
fn failure(e: smtp::Error) -> Failure {
    if e.is_permanent() { Failure::reject(visible(&e.to_string())) } else { opening(e) }
}

/// A refusal before there was a mail: the server or the password may be mended, the alert is not to blame.
fn opening(e: smtp::Error) -> Failure {
    let mut reason = visible(&e.to_string()).into_owned();
    if let Some(cause) = std::error::Error::source(&e) {
        let cause = visible(&cause.to_string()).into_owned();
        if !reason.contains(&cause) {
            reason.push_str(&format!(": {cause}"));
        }
    }
    Failure::retry(reason)
}

/// The same trust as [`tls::Config::client`], in lettre's words.
fn parameters(config: &Config) -> Result<TlsParameters, Failure> {
    let name = config.tls.server_name.clone().unwrap_or_else(|| config.host.clone());
    let read = |path: &Path| {
        std::fs::read(path).map_err(|e| Failure::retry(format_args!("cannot read `{}`: {e}", path.display())))
    };
    let mut builder = TlsParameters::builder(name);
    if let Some(path) = &config.tls.ca {
        let ca = Certificate::from_pem(&read(path)?).map_err(opening)?;
        builder = builder.certificate_store(CertificateStore::None).add_root_certificate(ca);
    }
    if let (Some(cert), Some(key)) = (&config.tls.cert, &config.tls.key) {
        builder = builder.identify_with(Identity::from_pem(&read(cert)?, &read(key)?).map_err(opening)?);
    }
    builder.build().map_err(opening)
}

fn raw(name: &'static str, value: String) -> HeaderValue {
    HeaderValue::new(HeaderName::new_from_ascii_str(name), value)
}

fn id(notice: &str, from: &Mailbox) -> String {
    format!("<{notice}@{}>", from.email.domain())
}

/// The mail for a notice.
fn compose(
    alerts: &[&Alert],
    from: &Mailbox,
    to: &[Mailbox],
    now: SystemTime,
) -> Result<Message, lettre::error::Error> {
    let (alert, words) = (text::worst(alerts), text::message(alerts));
    let subject = format!("[lapwing] {} ({})", cap(&words.headline, 110), cap(&alert.cluster, 30));
    let mut mail = Message::builder()
        .from(from.clone())
        .subject(mail_header(&subject))
        .date(now)
        .message_id(Some(id(&webhook::notice_id(alerts), from)))
        .raw_header(raw("Auto-Submitted", "auto-generated".to_owned()))
        .raw_header(raw("X-Lapwing-Alert", syslog_token(&alert.id, 100)));
    // What goes on stands in one thread; its root is a mail that never was, which readers put up with.
    let thread = id(&format!("{}.thread", identity(alert)), from);
    mail = match alert.status {
        Status::Update | Status::Resolved => {
            let first = id(&format!("{}.new", syslog_token(&alert.id, 100)), from);
            mail.in_reply_to(first.clone()).references(format!("{thread} {first}"))
        }
        _ => mail.references(thread),
    };
    for mailbox in to {
        mail = mail.to(mailbox.clone());
    }
    mail.multipart(MultiPart::alternative_plain_html(
        text::layout(&words, alert.level, false),
        page(if alert.status == Status::Resolved { Level::Informational } else { alert.level }, &words),
    ))
}

fn colour(level: Level) -> &'static str {
    match level {
        Level::Critical => "#8b0000",
        Level::High => "#c0392b",
        Level::Medium => "#b9770e",
        Level::Low => "#1f618d",
        Level::Informational => "#555555",
    }
}

/// A list under a title; what looks like a command stands as one.
fn list(title: &str, items: &[String]) -> String {
    let item = |item: &String| {
        let text = html(&cap(item.trim(), 1000));
        if text::is_command(item.trim()) {
            format!("<li><code style=\"{CODE}\">{text}</code></li>\n")
        } else {
            format!("<li>{text}</li>\n")
        }
    };
    let items: Vec<String> = items.iter().filter(|i| !i.trim().is_empty()).map(item).collect();
    if items.is_empty() {
        return String::new();
    }
    format!("<h3 style=\"{TITLE}\">{title}</h3>\n<ul style=\"margin:0;padding-left:20px\">\n{}</ul>\n", items.concat())
}

fn paragraph(title: &str, text: &str) -> String {
    let text = html(&cap(&text.split_whitespace().collect::<Vec<_>>().join(" "), 2000));
    if text.is_empty() {
        return text;
    }
    format!("<h3 style=\"{TITLE}\">{title}</h3>\n<p style=\"margin:0\">{text}</p>\n")
}

const CODE: &str = "font-family:monospace;background:#f3f4f6;padding:2px 4px;word-break:break-all";
const TITLE: &str = "font-size:14px;margin:16px 0 4px 0;color:#374151";
const LABEL: &str = "text-align:left;vertical-align:top;padding:2px 12px 2px 0;color:#6b7280;font-weight:normal";
const VALUE: &str = "vertical-align:top;padding:2px 0;word-break:break-word";

/// The HTML part: no image, no link, no script; styles stand where they are used, because mail readers drop others.
fn page(level: Level, words: &text::Words) -> String {
    let row = |(label, value): &(&str, String)| {
        let value = html(&cap(value, 400));
        format!("<tr><th style=\"{LABEL}\">{label}</th><td style=\"{VALUE}\">{value}</td></tr>\n")
    };
    let rows: Vec<String> = words.facts.iter().map(row).collect();
    format!(
        "<!doctype html>\n<html><head><meta charset=\"utf-8\"></head>\n<body style=\"font-family:sans-serif;\
         font-size:14px;line-height:1.4;color:#111827;max-width:720px\">\n\
         <div style=\"border-left:6px solid {};padding-left:12px\">\n<h2 style=\"font-size:18px;margin:0 0 4px 0\">{}</h2>\n\
         <p style=\"margin:0\">{}</p>\n</div>\n<table style=\"border-collapse:collapse;margin-top:12px\">\n{}</table>\n\
         {}{}{}{}{}</body></html>\n",
        colour(level),
        html(&words.headline),
        html(&cap(&words.summary, 1000)),
        rows.concat(),
        list("Why it is unusual", &words.unusual),
        paragraph("Why it matters", &words.why),
        list("Harmless when", &words.false_positives),
        list("Do next", &words.next_steps),
        list("Told with it", &words.others),
    )
}

/// A TLS stream as lettre wants it.
#[derive(Debug)]
struct Wire(tokio_rustls::client::TlsStream<tokio::net::TcpStream>);

mod wire {
    use std::io;
    use std::pin::Pin;
    use std::task::{Context, Poll};

    use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

    use super::Wire;

    impl super::AsyncTokioStream for Wire {
        fn peer_addr(&self) -> io::Result<std::net::SocketAddr> {
            self.0.get_ref().0.peer_addr()
        }
    }

    impl AsyncRead for Wire {
        fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
            Pin::new(&mut self.0).poll_read(cx, buf)
        }
    }

    impl AsyncWrite for Wire {
        fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
            Pin::new(&mut self.0).poll_write(cx, buf)
        }
        fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            Pin::new(&mut self.0).poll_flush(cx)
        }
        fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            Pin::new(&mut self.0).poll_shutdown(cx)
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::output::sample;

    fn mail(alert: &Alert) -> String {
        let from: Mailbox = "Lapwing <lapwing@example.org>".parse().unwrap();
        let to: Vec<Mailbox> = vec!["soc@example.org".parse().unwrap(), "on-call@example.org".parse().unwrap()];
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_772_366_400);
        String::from_utf8(compose(&[alert], &from, &to, now).unwrap().formatted()).unwrap()
    }

    fn headers(mail: &str) -> Vec<(String, String)> {
        let (head, _) = mail.split_once("\r\n\r\n").unwrap();
        let unfolded = head.replace("\r\n ", " ");
        let pair = |l: &str| l.split_once(": ").map(|(k, v)| (k.to_owned(), v.to_owned()));
        unfolded.split("\r\n").map(|l| pair(l).unwrap_or_else(|| panic!("{l:?} is no header"))).collect()
    }

    fn header(mail: &str, name: &str) -> Option<String> {
        headers(mail).into_iter().find(|(k, _)| k == name).map(|(_, v)| v)
    }

    #[test]
    fn headers_read_as_expected() {
        let mail = mail(&sample::alert());
        let header = |name| header(&mail, name);
        assert_eq!(header("Subject").unwrap(), "[lapwing] HIGH Shell opened in a pod (prod)");
        assert_eq!(header("Message-ID").unwrap(), "<a1b2c3d4.new@example.org>");
        assert_eq!(header("Auto-Submitted").unwrap(), "auto-generated");
        assert_eq!(header("To").unwrap(), "soc@example.org, on-call@example.org");
        assert!(header("References").unwrap().ends_with(".thread@example.org>"));
        assert_eq!(header("In-Reply-To"), None);
        assert!(header("Content-Type").unwrap().starts_with("multipart/alternative"));
        assert!(mail.contains("text/plain") && mail.contains("text/html"));
    }

    #[test]
    fn an_update_threads_under_the_first_notice() {
        let mut alert = sample::alert();
        alert.status = Status::Update;
        let thread = header(&mail(&sample::alert()), "References").unwrap();
        let mail = mail(&alert);
        assert_eq!(header(&mail, "Message-ID").unwrap(), "<a1b2c3d4.update@example.org>");
        assert_eq!(header(&mail, "References").unwrap(), format!("{thread} <a1b2c3d4.new@example.org>"));
        assert_eq!(header(&mail, "In-Reply-To").unwrap(), "<a1b2c3d4.new@example.org>");
    }

    #[test]
    fn the_page_shows_markup_as_text() {
        let alert = sample::hostile("<img src=x onerror=alert(1)> \"'&");
        let page = page(alert.level, &text::words(&alert));
        assert!(!page.contains("<img") && page.contains("&lt;img src=x onerror=alert(1)&gt; &quot;&#39;&amp;"));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]
        #[test]
        fn no_event_adds_a_header(text in "[a-z:\r\n\\x01 é\u{202e}]{0,300}") {
            let mut alert = sample::hostile(&text);
            let count = headers(&mail(&sample::alert())).len();
            prop_assert_eq!(headers(&mail(&alert)).len(), count);
            alert.rule.title = text.clone();
            alert.id = text;
            prop_assert_eq!(headers(&mail(&alert)).len(), count);
        }
    }

    /// Everything between angle brackets, in order.
    fn tags(page: &str) -> Vec<&str> {
        page.split('<').skip(1).map(|rest| rest.split_once('>').expect("an end of the tag").0).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(96))]
        #[test]
        fn no_event_adds_markup_to_the_page_and_its_text_comes_back(
            text in r#"(<img src=x>|</td></tr>|&lt;|&#60;|&|"|'|<!--|\x1b|\u{202e}|é|[a-z ]){0,40}"#,
        ) {
            // With a letter before it: an empty value has no row, and a command has a tag of its own.
            let (plain, text) = (sample::hostile("x"), format!("x {text}"));
            let hostile = sample::hostile(&text);
            let words = text::words(&hostile);
            let (page, expected) = (page(hostile.level, &words), page(plain.level, &text::words(&plain)));
            prop_assert_eq!(tags(&page), tags(&expected));
            let summary = page.split_once("<p style=\"margin:0\">").unwrap().1.split_once("</p>").unwrap().0;
            let back = [("&lt;", "<"), ("&gt;", ">"), ("&quot;", "\""), ("&#39;", "'"), ("&amp;", "&")]
                .iter()
                .fold(summary.to_owned(), |text, (from, to)| text.replace(from, to));
            prop_assert_eq!(back, crate::output::encode::visible(&cap(&words.summary, 1000)).into_owned());
        }
    }

    #[test]
    fn settings_are_checked() {
        let good = Config {
            host: "mail.example.org".into(),
            from: "a@example.org".into(),
            to: vec!["b@example.org".into()],
            ..Config::default()
        };
        assert_eq!(good.problems(), Vec::<String>::new());
        for bad in [
            Config { security: Security::None, ..good.clone() },
            Config { to: vec![], ..good.clone() },
            Config { to: vec!["x\r\nRCPT TO:<y@z>".into()], ..good.clone() },
            Config { username: Some("a".into()), ..good.clone() },
            Config { host: String::new(), ..good.clone() },
        ] {
            assert_eq!(bad.problems().len(), 1, "{bad:?}");
        }
        let local = Config { security: Security::None, host: "localhost".into(), ..good };
        assert_eq!(local.problems(), Vec::<String>::new());
    }
}
