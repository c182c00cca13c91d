//! One careful HTTP client for the outputs that speak HTTP: no redirects, no proxy from the environment,
//! bounded answers and times, guarded addresses, verified TLS.

use std::path::{Path, PathBuf};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::header::{AUTHORIZATION, CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER};
use reqwest::{Method, StatusCode, Url};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Failure, encode, net, secret, tls};

/// Longest answer read, in bytes.
const MAX_ANSWER: usize = 256 * 1024;
/// Longest body taken by [`Client::get`], in bytes.
const MAX_GOT: usize = 64 << 20;
/// Longest piece of an answer that is told to a person, in characters.
const SHOWN_ANSWER: usize = 300;
/// Shortest secret hidden in answers: to hide less would only spell it.
const MIN_SECRET: usize = 4;
/// Shortest part of a secret address that is hidden where it stands alone.
const MIN_PART: usize = 8;

/// What a receiver answered.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub retry_after: Option<Duration>,
    /// At most 256 KiB.
    pub body: String,
    /// The same as it came.
    pub bytes: Vec<u8>,
    /// All of the body came, as far as it is read.
    pub whole: bool,
}

impl Answer {
    /// An answer as a test wants it.
    #[cfg(test)]
    pub fn of(status: u16, body: &str) -> Self {
        let status = StatusCode::from_u16(status).expect("a status");
        Self { status, retry_after: None, body: body.to_owned(), bytes: body.as_bytes().to_vec(), whole: true }
    }

    /// For receivers whose yes or no stands in the body: one that broke off says neither.
    ///
    /// # Errors
    /// To be tried again, when it broke off.
    pub fn complete(&self) -> Result<(), Failure> {
        if self.whole { Ok(()) } else { Err(Failure::retry(format_args!("the answer broke off: {}", self.told()))) }
    }

    /// Overwrites `secret` wherever the receiver repeats it, because what a receiver says is logged and told.
    pub fn hide(&mut self, secret: &str) {
        if secret.len() < MIN_SECRET {
            return;
        }
        let found: Vec<usize> = memchr::memmem::find_iter(&self.bytes, secret).collect();
        for at in &found {
            // As long as before: the answer may be read by a machine yet.
            self.bytes[*at..at + secret.len()].fill(b'*');
        }
        if !found.is_empty() {
            self.body = String::from_utf8_lossy(&self.bytes).into_owned();
        }
    }

    /// As [`Self::hide`], for an address that is a secret itself.
    pub fn hide_address(&mut self, url: &Url) {
        self.hide(url.path().trim_start_matches('/'));
        let parts = url.path().split('/').chain(url.query().unwrap_or_default().split(['&', '=']));
        for part in parts.filter(|p| p.len() >= MIN_PART) {
            self.hide(part);
        }
    }

    /// As [`Self::hide`], for the credential in the headers of a request.
    fn hide_credential(&mut self, headers: &HeaderMap) {
        let value = headers.get(AUTHORIZATION).and_then(|v| v.to_str().ok());
        let Some((scheme, credential)) = value.and_then(|v| v.split_once(' ')) else { return };
        self.hide(credential);
        if scheme == "Basic"
            && let Ok(pair) = STANDARD.decode(credential)
            && let Some((_, password)) = String::from_utf8_lossy(&pair).split_once(':')
        {
            self.hide(password);
        }
    }

    /// `404 Not Found: no such hook`, safe to print.
    pub fn told(&self) -> String {
        let body = self.body.trim();
        let colon = if body.is_empty() { "" } else { ": " };
        format!("{}{colon}{}", self.status, encode::visible(&encode::cap(body, SHOWN_ANSWER)))
    }

    /// As [`Answer::verdict`], for a request with several alerts: smaller ones may be taken.
    pub fn verdict_of_batch(&self) -> Result<(), Failure> {
        if self.status == StatusCode::PAYLOAD_TOO_LARGE {
            return Err(Failure::TooLarge { reason: self.told() });
        }
        self.verdict()
    }

    /// What a status means to somebody with an alert to deliver: credentials, overload and breakdowns pass,
    /// anything else the receiver says about the request does not.
    pub fn verdict(&self) -> Result<(), Failure> {
        let told = self.told();
        match self.status.as_u16() {
            200..=299 => Ok(()),
            // A rotated token must not turn alerts into dead letters.
            401 | 403 | 408 | 425 | 429 | 500..=599 => Err(Failure::Retry { reason: told, after: self.retry_after }),
            300..=399 => {
                Err(Failure::reject(format_args!("{told}; redirects are not followed, configure the final address")))
            }
            _ => Err(Failure::Reject { reason: told }),
        }
    }
}

/// Longest time for one request, in seconds (1 to 300).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
#[schemars(inline)]
pub struct Timeout(u32);

impl Default for Timeout {
    fn default() -> Self {
        Self(30)
    }
}

impl Timeout {
    pub const fn seconds(seconds: u32) -> Self {
        Self(seconds)
    }

    pub const fn get(self) -> Duration {
        Duration::from_secs(self.0 as u64)
    }

    /// The complaint about one out of bounds.
    pub fn problem(self) -> Option<String> {
        (!(1..=300).contains(&self.0)).then(|| "timeoutSeconds: expected 1 to 300".to_owned())
    }
}

/// Posts JSON. The connection is kept between requests and built anew, certificates and all, after a failure.
#[derive(Debug)]
pub struct Client {
    tls: tls::Config,
    timeout: Duration,
    inner: Option<reqwest::Client>,
}

impl Client {
    pub fn new(tls: tls::Config, timeout: Duration) -> Self {
        Self { tls, timeout, inner: None }
    }

    /// As [`Client::new`], for at most `timeout`, once the certificates it names can be read.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn checked(tls: &tls::Config, timeout: Duration) -> Result<Self, String> {
        tls.client().map_err(|e| e.to_string())?;
        Ok(Self::new(tls.clone(), timeout))
    }

    pub async fn post(&mut self, url: &Url, headers: HeaderMap, body: Vec<u8>) -> Result<Answer, Failure> {
        self.ask(Method::POST, url, headers, body).await
    }

    /// Any request, and what was answered.
    pub async fn ask(
        &mut self,
        method: Method,
        url: &Url,
        headers: HeaderMap,
        body: Vec<u8>,
    ) -> Result<Answer, Failure> {
        let client = self.take(url)?;
        let mut answer = send(&client, method, url, headers.clone(), body).await.map_err(told)?;
        answer.hide_credential(&headers);
        self.inner = Some(client);
        Ok(answer)
    }

    /// Gets `url` and gives `take` the body part by part, at most 64 MiB of it. Any status but 2xx is a failure.
    pub async fn get(&mut self, url: &Url, headers: HeaderMap, mut take: impl FnMut(&[u8])) -> Result<(), Failure> {
        let client = self.take(url)?;
        let mut response = client.get(url.clone()).headers(headers).send().await.map_err(told)?;
        if !response.status().is_success() {
            return Err(Failure::retry(response.status()));
        }
        let mut got = 0;
        while let Some(part) = response.chunk().await.map_err(told)? {
            got += part.len();
            if got > MAX_GOT {
                return Err(Failure::retry(format_args!("the answer is larger than {MAX_GOT} bytes")));
            }
            take(&part);
        }
        self.inner = Some(client);
        Ok(())
    }

    /// The client underneath, for those who speak HTTP by themselves. Literal addresses are theirs to check.
    pub fn guarded(&self) -> Result<reqwest::Client, Failure> {
        self.build()
    }

    /// Asks for `url` and tells the status; what else is answered is not read.
    pub async fn status(&mut self, url: &Url, headers: HeaderMap) -> Result<StatusCode, Failure> {
        let client = self.take(url)?;
        let status = client.get(url.clone()).headers(headers).send().await.map_err(told)?.status();
        self.inner = Some(client);
        Ok(status)
    }

    /// The client for a request to `url`. Whoever gets an answer puts it back.
    fn take(&mut self, url: &Url) -> Result<reqwest::Client, Failure> {
        // The address may stem from a file that was just changed.
        check(url).map_err(Failure::retry)?;
        self.inner.take().map_or_else(|| self.build(), Ok)
    }

    fn build(&self) -> Result<reqwest::Client, Failure> {
        let mut tls = self.tls.client().map_err(Failure::retry)?;
        tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let client = reqwest::Client::builder()
            .tls_backend_preconfigured(tls)
            .dns_resolver(Guarded)
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .connect_timeout(net::CONNECT_TIMEOUT)
            .timeout(self.timeout)
            .user_agent(concat!("lapwing/", env!("CARGO_PKG_VERSION")))
            .build();
        client.map_err(told)
    }
}

async fn send(
    client: &reqwest::Client,
    method: Method,
    url: &Url,
    headers: HeaderMap,
    body: Vec<u8>,
) -> reqwest::Result<Answer> {
    let mut response = client.request(method, url.clone()).headers(headers).body(body).send().await?;
    let retry_after = response.headers().get(RETRY_AFTER).and_then(|v| retry_after(v.to_str().ok()?));
    let status = response.status();
    let (mut body, mut whole) = (Vec::new(), true);
    while body.len() < MAX_ANSWER {
        // Once the status says yes, a broken body does not undo it for those who asked for no more.
        match response.chunk().await {
            Ok(Some(chunk)) => body.extend_from_slice(&chunk[..chunk.len().min(MAX_ANSWER - body.len())]),
            Ok(None) => break,
            Err(_) if status.is_success() => {
                whole = false;
                break;
            }
            Err(e) => return Err(e),
        }
    }
    Ok(Answer { status, retry_after, body: String::from_utf8_lossy(&body).into_owned(), bytes: body, whole })
}

/// `base` with `path` behind it.
pub fn join(base: &str, path: &str) -> Result<Url, Failure> {
    parse(&format!("{}/{path}", base.trim_end_matches('/'))).map_err(Failure::retry)
}

/// `body` compressed, and the header that says so.
pub fn gzip(headers: &mut HeaderMap, body: &[u8]) -> Result<Vec<u8>, Failure> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    std::io::Write::write_all(&mut encoder, body).map_err(Failure::reject)?;
    headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    encoder.finish().map_err(Failure::reject)
}

/// Headers that say what the body is.
pub fn content(kind: &'static str) -> HeaderMap {
    HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static(kind))])
}

/// Puts a secret header there; its value never shows in logs.
pub fn secret_header(headers: &mut HeaderMap, name: HeaderName, value: &str) -> Result<(), Failure> {
    let mut value = HeaderValue::from_str(value).map_err(|_| {
        Failure::retry(format_args!("`{name}` cannot carry its value; look for line breaks in its file"))
    })?;
    value.set_sensitive(true);
    headers.insert(name, value);
    Ok(())
}

/// `Authorization: SCHEME TOKEN` with the token in the file, when there is one.
pub fn bearer(headers: &mut HeaderMap, scheme: &str, token_file: Option<&Path>) -> Result<(), Failure> {
    let Some(path) = token_file else { return Ok(()) };
    let token = secret::read(path).map_err(Failure::retry)?;
    secret_header(headers, AUTHORIZATION, &format!("{scheme} {}", token.expose()))
}

/// `Authorization: Basic` for a user and the password in the file, when both are there.
pub fn basic(headers: &mut HeaderMap, user: Option<&str>, password_file: Option<&Path>) -> Result<(), Failure> {
    let (Some(user), Some(path)) = (user, password_file) else { return Ok(()) };
    let password = secret::read(path).map_err(Failure::retry)?;
    let pair = STANDARD.encode(format!("{user}:{}", password.expose()));
    secret_header(headers, AUTHORIZATION, &format!("Basic {pair}"))
}

/// The complaint about a `tls.serverName`, which HTTP does not use.
pub fn no_server_name(tls: &tls::Config) -> Option<String> {
    let set = tls.server_name.is_some();
    set.then(|| "tls.serverName does not apply here; the name in the url is verified".to_owned())
}

/// The complaints about a receiver reached by `url`.
pub fn receiver_problems(url: &str, tls: &tls::Config, timeout: Timeout) -> Vec<String> {
    let mut found: Vec<String> = parse(url).err().map(|e| format!("url: {e}")).into_iter().collect();
    found.extend(no_server_name(tls));
    found.extend(timeout.problem());
    found
}

/// The complaint about half a login.
pub fn login_problem(user: Option<&String>, password_file: Option<&PathBuf>) -> Option<String> {
    let half = user.is_some() != password_file.is_some();
    half.then(|| "`username` and `passwordFile` belong together; set both or none".to_owned())
}

/// Makes paths relative to `base`, those that are set.
pub fn resolve<const N: usize>(base: &Path, paths: [&mut Option<PathBuf>; N]) {
    for path in paths.into_iter().flatten() {
        *path = base.join(&*path);
    }
}

/// Seconds, or a date to wait for.
fn retry_after(value: &str) -> Option<Duration> {
    if let Ok(seconds) = value.trim().parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = chrono::DateTime::parse_from_rfc2822(value).ok()?;
    (date.to_utc() - chrono::Utc::now()).to_std().ok()
}

/// An error in words, with its causes and without the address, which may be a secret.
fn told(error: reqwest::Error) -> Failure {
    let error = error.without_url();
    let mut reason = error.to_string();
    let mut cause = std::error::Error::source(&error);
    while let Some(e) = cause {
        reason.push_str(": ");
        reason.push_str(&e.to_string());
        cause = e.source();
    }
    Failure::retry(reason)
}

/// Looks names up through the guard; reqwest connects to what this returns and nothing else.
#[derive(Debug)]
struct Guarded;

impl Resolve for Guarded {
    fn resolve(&self, name: Name) -> Resolving {
        let host = name.as_str().to_owned();
        Box::pin(async move {
            let found = net::resolve(&host, 0).await?;
            Ok(Box::new(found.into_iter()) as Addrs)
        })
    }
}

/// What is wrong with an address to post to.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum UrlError {
    #[error("the url is not an address like `https://host/path`")]
    Shape,
    #[error("the url is `http://` to another machine; use `https://` (plain http is for loopback only)")]
    Plain,
    #[error("the url holds a user name or password; put the credential into `tokenFile`")]
    Credentials,
    #[error("the url names {0}, which outputs may not talk to ({1}); `outbound.allow` makes exceptions")]
    Refused(std::net::IpAddr, &'static str),
}

/// A checked address to post to.
pub fn parse(text: &str) -> Result<Url, UrlError> {
    let url = Url::parse(text.trim()).map_err(|_| UrlError::Shape)?;
    check(&url)?;
    Ok(url)
}

fn check(url: &Url) -> Result<(), UrlError> {
    let host = url.host_str().filter(|h| !h.is_empty()).ok_or(UrlError::Shape)?;
    if !url.username().is_empty() || url.password().is_some() {
        return Err(UrlError::Credentials);
    }
    match url.scheme() {
        "https" => {}
        "http" if net::names_loopback(host) => {}
        "http" => return Err(UrlError::Plain),
        _ => return Err(UrlError::Shape),
    }
    // reqwest does not ask the resolver about literal addresses.
    match host.trim_matches(['[', ']']).parse() {
        Ok(ip) => net::refusal(host, ip).map_or(Ok(()), |why| Err(UrlError::Refused(ip, why))),
        Err(_) => Ok(()),
    }
}

/// As [`shown`], for an address nobody has checked.
pub fn named(url: &str) -> String {
    parse(url).map_or_else(|_| "not an address".to_owned(), |url| shown(&url))
}

/// `https://host:port/…`: enough to recognise, nothing secret.
pub fn shown(url: &Url) -> String {
    format!("{}/…", url.origin().ascii_serialization())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16) -> Answer {
        Answer::of(status, "no\x1b")
    }

    #[test]
    fn what_passes_by_itself_is_tried_again() {
        for status in [401, 403, 408, 425, 429, 500, 502, 503, 504] {
            assert!(matches!(answer(status).verdict(), Err(Failure::Retry { .. })), "{status}");
        }
        for status in [301, 302, 307, 400, 404, 405, 410, 413, 415, 422] {
            assert!(matches!(answer(status).verdict(), Err(Failure::Reject { .. })), "{status}");
        }
        for status in [200, 201, 202, 204] {
            assert!(answer(status).verdict().is_ok());
        }
        assert_eq!(answer(404).told(), "404 Not Found: no\\u001b");
    }

    #[test]
    fn a_secret_that_the_receiver_repeats_is_not_told() {
        let mut headers = HeaderMap::new();
        let hidden = |headers: &HeaderMap, body: &str| {
            let mut answer = Answer::of(401, body);
            answer.hide_credential(headers);
            assert_eq!(answer.bytes, answer.body.as_bytes());
            answer.told()
        };
        secret_header(&mut headers, AUTHORIZATION, "Splunk t0ken").unwrap();
        assert_eq!(hidden(&headers, "no Splunk t0ken, t0ken"), "401 Unauthorized: no Splunk *****, *****");
        let pair = STANDARD.encode("soc:s3cret");
        secret_header(&mut headers, AUTHORIZATION, &format!("Basic {pair}")).unwrap();
        let told = hidden(&headers, &format!("soc:s3cret was {pair}"));
        assert_eq!(told, format!("401 Unauthorized: soc:****** was {}", "*".repeat(pair.len())));
        secret_header(&mut headers, AUTHORIZATION, "Bearer x").unwrap();
        assert_eq!(hidden(&headers, "an axe"), "401 Unauthorized: an axe", "too short to be a secret");

        let url = parse("https://h.example.org/services/T0/SECRET?v=1&sig=abcdefgh1234").unwrap();
        let mut answer = Answer::of(404, "Cannot POST /services/T0/SECRET: bad sig abcdefgh1234");
        answer.hide_address(&url);
        assert_eq!(answer.told(), "404 Not Found: Cannot POST /******************: bad sig ************");
    }

    #[test]
    fn addresses_are_checked() {
        assert!(parse("https://example.org/x?y=z").is_ok());
        assert!(parse("http://127.0.0.1:9/x").is_ok());
        assert!(parse("http://[::1]:9/x").is_ok());
        assert_eq!(parse("http://example.org/"), Err(UrlError::Plain));
        assert_eq!(parse("ftp://example.org/"), Err(UrlError::Shape));
        assert_eq!(parse("https://a:b@example.org/"), Err(UrlError::Credentials));
        for url in [
            "https://169.254.169.254/",
            "https://2852039166/",
            "https://0xa9fea9fe/",
            "https://[fe80::1]/",
            "https://[::ffff:169.254.169.254]/",
            "https://[fd00:ec2::254]/",
        ] {
            assert!(matches!(parse(url), Err(UrlError::Refused(..))), "{url}");
        }
    }

    #[tokio::test]
    async fn names_go_through_the_guard() {
        assert!(Guarded.resolve("127.1".parse().unwrap()).await.is_err());
        assert!(Guarded.resolve("localhost".parse().unwrap()).await.is_ok());
    }

    #[tokio::test]
    async fn a_redirect_is_not_followed() {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        for (status, to) in [(302, "http://169.254.169.254/"), (307, "/elsewhere"), (308, "http://[::ffff:a9fe:a9fe]/")]
        {
            let tcp = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            let url = parse(&format!("http://{}/in", tcp.local_addr().unwrap())).unwrap();
            let server = tokio::spawn(async move {
                let mut asked = Vec::new();
                while let Ok(Ok((mut stream, _))) = tokio::time::timeout(Duration::from_millis(300), tcp.accept()).await
                {
                    let mut request = vec![0; 4096];
                    let n = stream.read(&mut request).await.unwrap();
                    asked.push(String::from_utf8_lossy(&request[..n]).lines().next().unwrap().to_owned());
                    let answer = format!(
                        "HTTP/1.1 {status} X\r\nLocation: {to}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
                    );
                    stream.write_all(answer.as_bytes()).await.unwrap();
                }
                asked
            });
            let mut client = Client::new(tls::Config::default(), Duration::from_secs(5));
            let answer = client.post(&url, HeaderMap::new(), b"{}".to_vec()).await.unwrap();
            assert!(matches!(answer.verdict(), Err(Failure::Reject { reason }) if reason.contains("not followed")));
            assert_eq!(server.await.unwrap(), ["POST /in HTTP/1.1"], "{to}");
        }
    }

    #[test]
    fn a_shown_address_keeps_its_secret() {
        let url = parse("https://hooks.example.org/services/T0/B0/SECRET?token=x").unwrap();
        assert_eq!(shown(&url), "https://hooks.example.org/…");
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        assert_eq!(retry_after("7"), Some(Duration::from_secs(7)));
        let date =
            (chrono::Utc::now() + chrono::Duration::seconds(100)).format("%a, %d %b %Y %H:%M:%S GMT").to_string();
        let wait = retry_after(&date).unwrap().as_secs();
        assert!((90..=100).contains(&wait), "{wait}");
        assert_eq!(retry_after("Wed, 21 Oct 2015 07:28:00 GMT"), None);
        assert_eq!(retry_after("soon"), None);
    }
}
