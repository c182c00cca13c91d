//! One list to one webhook, with the patience of kube-apiserver.
//!
//! Every answer but 2xx is retried alike: 5 tries with growing waits. Inside a try, 429 and 5xx with a
//! Retry-After are asked again after that time, up to 10 times and within the try's timeout.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, ensure};
use reqwest::header::{ACCEPT, ACCEPT_ENCODING, AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue, RETRY_AFTER};
use reqwest::{Client, StatusCode, Url};

use super::Args;

const TRIES: u32 = 5;
const FIRST_WAIT: Duration = Duration::from_secs(10);
const GROWTH: f64 = 1.5;
const JITTER: f64 = 0.2;
const RETRY_AFTERS: u32 = 10;

/// Posts lists to one address.
pub struct Sender {
    client: Client,
    url: Url,
    timeout: Duration,
    wait_scale: f64,
}

/// What became of a list, and how many requests it took beyond the first.
#[derive(Debug, PartialEq, Eq)]
pub struct Delivery {
    pub arrived: bool,
    pub retries: u64,
}

impl Sender {
    /// # Errors
    /// When the token or a certificate cannot be read.
    pub fn new(url: Url, args: &Args) -> anyhow::Result<Self> {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(ACCEPT, HeaderValue::from_static("application/json, */*"));
        headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("gzip"));
        if let Some(file) = &args.token_file {
            headers.insert(AUTHORIZATION, bearer(file)?);
        }
        let agent = if url.scheme() == "https" { "Go-http-client/2.0" } else { "Go-http-client/1.1" };
        let mut client = Client::builder()
            .user_agent(agent)
            .default_headers(headers)
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy();
        if let Some(file) = &args.ca {
            let pem = read(file)?;
            let authorities = reqwest::Certificate::from_pem_bundle(&pem)
                .with_context(|| format!("`{}`: expected certificates in PEM form", file.display()))?;
            client = client.tls_certs_only(authorities);
        }
        if let Some(file) = &args.client_cert {
            let identity = reqwest::Identity::from_pem(&read(file)?)
                .with_context(|| format!("`{}`: expected a certificate and its key in PEM form", file.display()))?;
            client = client.identity(identity);
        }
        let client = client.build().context("cannot set up HTTPS")?;
        Ok(Self { client, url, timeout: args.timeout.get(), wait_scale: args.wait_scale })
    }

    /// Sends `body` until it is taken or the tries are used up; `tell` hears of every failed try.
    pub async fn deliver(&self, body: Vec<u8>, tell: &mut dyn FnMut(&str)) -> Delivery {
        let body = bytes::Bytes::from(body);
        let mut retries = 0;
        for number in 1..=TRIES {
            let mut asked_again = 0;
            let outcome = match tokio::time::timeout(self.timeout, self.attempt(&body, &mut asked_again)).await {
                Ok(outcome) => outcome,
                Err(_) => Err(format!("no answer within {} s", self.timeout.as_secs_f64())),
            };
            retries += u64::from(asked_again) + u64::from(number > 1);
            match outcome {
                Ok(()) => return Delivery { arrived: true, retries },
                Err(why) if number < TRIES => {
                    let wait = scaled(wait_after(number, rand::random()), self.wait_scale);
                    tell(&format!("try {number} of {TRIES}: {why}; again in {:.1} s", wait.as_secs_f64()));
                    tokio::time::sleep(wait).await;
                }
                Err(why) => tell(&format!("try {number} of {TRIES}: {why}; this batch is lost")),
            }
        }
        Delivery { arrived: false, retries }
    }

    /// One try: a request, and again as long as the answer asks for it with Retry-After.
    async fn attempt(&self, body: &bytes::Bytes, asked_again: &mut u32) -> Result<(), String> {
        loop {
            let request = self.client.post(self.url.clone()).body(body.clone());
            let answer = request.send().await.map_err(|error| root_cause(&error))?;
            let status = answer.status();
            if status.is_success() {
                return Ok(());
            }
            match retry_after(status, answer.headers()).filter(|_| *asked_again < RETRY_AFTERS) {
                Some(wait) => {
                    *asked_again += 1;
                    tokio::time::sleep(scaled(wait, self.wait_scale)).await;
                }
                None => return Err(format!("answered {status}")),
            }
        }
    }
}

/// The wait after the failed try `number` (from 1); `chance` in 0..1 spreads senders.
fn wait_after(number: u32, chance: f64) -> Duration {
    FIRST_WAIT.mul_f64(GROWTH.powi(number.saturating_sub(1).cast_signed()) * (1.0 + JITTER * chance))
}

fn retry_after(status: StatusCode, headers: &HeaderMap) -> Option<Duration> {
    let counts = status == StatusCode::TOO_MANY_REQUESTS || status.is_server_error();
    let seconds = headers.get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    counts.then_some(Duration::from_secs(seconds))
}

fn scaled(wait: Duration, scale: f64) -> Duration {
    Duration::try_from_secs_f64(wait.as_secs_f64() * scale).unwrap_or(wait)
}

fn bearer(file: &Path) -> anyhow::Result<HeaderValue> {
    let text = String::from_utf8(read(file)?).with_context(|| format!("`{}`: expected text", file.display()))?;
    ensure!(!text.trim().is_empty(), "`{}` is empty; expected a token", file.display());
    let mut value = HeaderValue::from_str(&format!("Bearer {}", text.trim()))
        .with_context(|| format!("`{}`: expected one line of printable characters", file.display()))?;
    value.set_sensitive(true);
    Ok(value)
}

fn read(file: &Path) -> anyhow::Result<Vec<u8>> {
    std::fs::read(file).with_context(|| format!("cannot read `{}`", file.display()))
}

/// The innermost reason: `connection refused` says more than `error sending request`.
fn root_cause(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_waits_are_those_of_kube_apiserver() {
        let waits: Vec<f64> = (1..5).map(|n| wait_after(n, 0.0).as_secs_f64()).collect();
        assert_eq!(waits, [10.0, 15.0, 22.5, 33.75]);
        assert_eq!(wait_after(1, 1.0), Duration::from_secs(12));
        assert_eq!(scaled(Duration::from_secs(10), 0.01), Duration::from_millis(100));
    }

    #[test]
    fn retry_after_counts_on_overload_only() {
        let with = |text: &'static str| HeaderMap::from_iter([(RETRY_AFTER, HeaderValue::from_static(text))]);
        let three = Some(Duration::from_secs(3));
        assert_eq!(retry_after(StatusCode::TOO_MANY_REQUESTS, &with("3")), three);
        assert_eq!(retry_after(StatusCode::SERVICE_UNAVAILABLE, &with("3")), three);
        assert_eq!(retry_after(StatusCode::BAD_REQUEST, &with("3")), None);
        assert_eq!(retry_after(StatusCode::TOO_MANY_REQUESTS, &with("soon")), None);
        assert_eq!(retry_after(StatusCode::TOO_MANY_REQUESTS, &HeaderMap::new()), None);
    }
}
