//! One item of a batch as a Kafka record: the event's JSON as it is, so that anybody can read the topic. The key and a
//! header name the cluster, which the record's sender proved; a reject has its reason and detail in headers.

use lapwing_engine::batch::{Item, RejectReason};
use lapwing_engine::redact;
use rdkafka::message::{Header, Headers, OwnedHeaders};
use rdkafka::producer::FutureRecord;

use crate::input::{EXCERPT, Events, Limits, item};

/// Names the cluster, and says that a receiver of ours took the event in: it comes in no wrapper.
const CLUSTER: &str = "lapwing-cluster";
const REJECT: &str = "lapwing-reject";
const DETAIL: &str = "lapwing-detail";

/// A record to be.
pub struct Message {
    payload: String,
    headers: OwnedHeaders,
}

impl Message {
    pub fn record<'a>(&'a self, topic: &'a str, key: &'a str) -> FutureRecord<'a, str, str> {
        FutureRecord::to(topic).key(key).payload(self.payload.as_str()).headers(self.headers.clone())
    }
}

/// An event larger than `limit` bytes loses its bodies; one that is larger even then becomes a reject.
pub fn write(cluster: &str, item: &Item, limit: usize) -> Message {
    let header = |headers: OwnedHeaders, key, value: &str| headers.insert(Header { key, value: Some(value) });
    let headers = header(OwnedHeaders::new(), CLUSTER, cluster);
    match item {
        Item::Event(text) if text.len() <= limit => Message { payload: text.clone(), headers },
        Item::Event(text) => match Events::new(text.as_bytes(), Limits { item: limit }).next() {
            Some(Ok(smaller)) if smaller.len() <= limit => Message { payload: smaller.to_owned(), headers },
            _ => {
                let (detail, excerpt) =
                    (format!("larger than {limit} bytes"), redact::excerpt(text.as_bytes(), EXCERPT));
                write(cluster, &Item::Reject { reason: RejectReason::TooLarge, detail, excerpt }, limit)
            }
        },
        Item::Reject { reason, detail, excerpt } => {
            let headers = header(header(headers, REJECT, reason.as_str()), DETAIL, detail);
            Message { payload: excerpt.clone(), headers }
        }
    }
}

/// Cluster and item of a record that [`write()`] made; `None` for a record of another origin.
pub fn read<H: Headers>(headers: &H, payload: &[u8]) -> Option<(String, Item)> {
    let text = |key: &str| {
        let value = headers.iter().find(|h| h.key == key)?.value?;
        Some(String::from_utf8_lossy(value).into_owned())
    };
    let cluster = text(CLUSTER).filter(|cluster| !cluster.is_empty())?;
    let payload = String::from_utf8_lossy(payload);
    let Some(reject) = text(REJECT) else { return Some((cluster, item(&payload))) };
    let known = RejectReason::ALL.into_iter().find(|reason| reason.as_str() == reject);
    let reason = known.unwrap_or(RejectReason::BadBody);
    let detail = redact::excerpt(text(DETAIL).unwrap_or_default().as_bytes(), 512);
    Some((cluster, Item::Reject { reason, detail, excerpt: redact::excerpt(payload.as_bytes(), EXCERPT) }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round(item: &Item, limit: usize) -> Option<(String, Item)> {
        let message = write("prod", item, limit);
        read(&message.headers, message.payload.as_bytes())
    }

    #[test]
    fn what_is_written_is_read_back() {
        let event = Item::Event(r#"{"auditID":"a","verb":"get"}"#.to_owned());
        let marked = Item::Event(r#"{"lapwing.dev/not-carried":"requestURI","auditID":"a","verb":"get"}"#.to_owned());
        let reject = Item::Reject { reason: RejectReason::TooLarge, detail: "why".into(), excerpt: "{x".into() };
        for item in [event, marked, reject] {
            assert_eq!(round(&item, 1000), Some(("prod".to_owned(), item)));
        }
        assert_eq!(read(&OwnedHeaders::new(), b"{}"), None);
    }

    #[test]
    fn what_no_broker_would_take_loses_its_bodies_first() {
        let large = format!(r#"{{"auditID":"a","verb":"get","requestObject":"{}"}}"#, "x".repeat(2000));
        let Some((_, Item::Event(text))) = round(&Item::Event(large), 500) else { panic!("an event") };
        assert!(text.contains("bodies-dropped") && text.contains(r#""requestObject":null"#), "{text}");
        let larger = format!(r#"{{"auditID":"a","verb":"get","userAgent":"{}"}}"#, "x".repeat(2000));
        let Some((_, Item::Reject { reason, .. })) = round(&Item::Event(larger), 500) else { panic!("a reject") };
        assert_eq!(reason, RejectReason::TooLarge);
    }
}
