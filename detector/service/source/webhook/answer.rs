//! What the webhook says back, in words an API server acts upon.
//!
//! An API server sends a batch again after any answer but 2xx, five times in all, and then drops it. So
//! nothing about the content is ever an error here.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::header::{ALLOW, CONNECTION, CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use hyper::{Response, StatusCode};
use tokio::time::Instant;

/// While trouble is this young, senders are asked to come back soon, which does not use up their tries.
const YOUNG: Duration = Duration::from_secs(60);
/// Trouble after this much silence is new trouble.
const FORGET: Duration = Duration::from_secs(120);
const COME_BACK: HeaderValue = HeaderValue::from_static("3");

/// The batch is on disk.
pub fn stored() -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from("{}"));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// Anything else, with a sentence for whoever reads the sender's log.
pub fn refused(code: StatusCode, why: &str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(format!("{why}\n")));
    *response.status_mut() = code;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    // The body may still be on its way; reading it would cost more than a new connection.
    headers.insert(CONNECTION, HeaderValue::from_static("close"));
    response
}

/// A request that is no delivery: mostly a person with a browser.
pub fn not_post() -> Response<Full<Bytes>> {
    let mut response = refused(
        StatusCode::METHOD_NOT_ALLOWED,
        "this is Lapwing's audit webhook: API servers POST audit events here, to /audit/v1/<cluster>.\n\
         Set it as the server of the kubeconfig given to kube-apiserver --audit-webhook-config-file.\n\
         Health and metrics are on the admin port.",
    );
    response.headers_mut().insert(ALLOW, HeaderValue::from_static("POST"));
    response
}

/// Names a delivery of Amazon Data Firehose, which wants it back.
pub const FIREHOSE_REQUEST: &str = "x-amz-firehose-request-id";

/// The answer in the only form Firehose takes for one: JSON with the request's id and the time, milliseconds since the
/// epoch; with what went wrong where something did. Any other form it takes for a failure and sends again.
pub async fn to_firehose(id: &HeaderValue, response: Response<Full<Bytes>>, now: i64) -> Response<Full<Bytes>> {
    let (mut head, body) = response.into_parts();
    let id = String::from_utf8_lossy(id.as_bytes());
    let mut told = serde_json::json!({ "requestId": id, "timestamp": now });
    if !head.status.is_success() {
        let why = body.collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
        told["errorMessage"] = String::from_utf8_lossy(&why).trim_end().into();
    }
    head.headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Response::from_parts(head, Full::from(told.to_string()))
}

/// Since when batches have been refused.
#[derive(Default)]
pub struct Trouble(Mutex<Option<Spell>>);

struct Spell {
    since: Instant,
    last: Instant,
}

impl Trouble {
    /// A batch could not be stored. `Retry-After` makes the sender hold the batch in its memory and
    /// come back without using up a try; for ever, that would exhaust the API server instead.
    pub fn refuse(&self, why: &str) -> Response<Full<Bytes>> {
        let mut response = refused(StatusCode::SERVICE_UNAVAILABLE, why);
        // The connection is fine; a new handshake for every try would add to the trouble.
        response.headers_mut().remove(CONNECTION);
        if self.is_young() {
            response.headers_mut().insert(RETRY_AFTER, COME_BACK);
        }
        response
    }

    fn is_young(&self) -> bool {
        let now = Instant::now();
        let mut spell = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let since = spell.as_ref().filter(|spell| now - spell.last < FORGET).map_or(now, |spell| spell.since);
        *spell = Some(Spell { since, last: now });
        now - since < YOUNG
    }

    /// A batch was stored.
    pub fn over(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn senders_are_asked_back_only_while_trouble_is_young() {
        let trouble = Trouble::default();
        let asked_back = |trouble: &Trouble| trouble.refuse("full").headers().contains_key(RETRY_AFTER);
        let wait = |seconds| tokio::time::advance(Duration::from_secs(seconds));
        assert!(asked_back(&trouble));
        wait(59).await;
        assert!(asked_back(&trouble));
        wait(1).await;
        assert!(!asked_back(&trouble));
        trouble.over();
        assert!(asked_back(&trouble));
        wait(120).await;
        assert!(asked_back(&trouble), "long ago and not the same trouble");
    }
}
