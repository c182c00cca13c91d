//! Which events came before, by their content, and which audit ids stand for two requests.
//!
//! The audit id cannot tell: a client may choose it, so whoever trusts it can be made to drop an event as a repetition.
//! Hashes are keyed with a secret of this process: nobody can compute two events with the same one. What is remembered
//! is read from the journal again after a start.

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;

use lapwing_engine::event::{Event, parse_time};

/// Events remembered: minutes at the highest rate one API server sends, far longer than it tries to deliver.
const EVENTS: usize = 200_000;
/// Audit ids remembered.
const REQUESTS: usize = 200_000;
/// An aggregated API server records the same request under the same id. Two that lie further apart are two requests.
const ONE_REQUEST: i64 = 60_000_000;

/// What came before.
pub struct Identity {
    key: [u8; 32],
    events: Known<u128, ()>,
    requests: Known<u64, Request>,
}

/// What an audit id stood for first.
#[derive(Clone, Copy)]
struct Request {
    what: u64,
    /// Microseconds since the epoch.
    received: i64,
}

impl Default for Identity {
    fn default() -> Self {
        Self { key: rand::random(), events: Known::new(EVENTS), requests: Known::new(REQUESTS) }
    }
}

impl Identity {
    /// Whether `text` comes from `cluster` for the first time.
    pub fn is_first(&mut self, cluster: &str, text: &str) -> bool {
        let hash = self.hash([cluster, text]);
        self.events.add(u128::from_le_bytes(hash), ()).is_none()
    }

    /// Whether the audit id of `event` stood for another request before.
    pub fn is_reused(&mut self, cluster: &str, event: &Event<'_>) -> bool {
        if event.audit_id.is_empty() {
            return false;
        }
        let short = |hash: [u8; 16]| hash.first_chunk().map_or(0, |first| u64::from_le_bytes(*first));
        let id = short(self.hash([cluster, &event.audit_id]));
        let what = short(self.hash([&event.verb, &event.request_uri, &event.user.username]));
        let request = Request { what, received: parse_time(&event.request_received_timestamp).unwrap_or_default() };
        self.requests.add(id, request).is_some_and(|first| {
            first.what != request.what || first.received.abs_diff(request.received) > ONE_REQUEST.unsigned_abs()
        })
    }

    fn hash<const N: usize>(&self, parts: [&str; N]) -> [u8; 16] {
        let mut hasher = blake3::Hasher::new_keyed(&self.key);
        for part in parts {
            hasher.update(&(part.len() as u64).to_le_bytes()).update(part.as_bytes());
        }
        let mut short = [0; 16];
        short.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
        short
    }
}

/// The newest so many keys with what came with them first.
struct Known<K, V> {
    values: HashMap<K, V>,
    order: VecDeque<K>,
    most: usize,
}

impl<K: Hash + Eq + Copy, V: Copy> Known<K, V> {
    fn new(most: usize) -> Self {
        Self { values: HashMap::new(), order: VecDeque::new(), most }
    }

    /// What `key` came with before; adds it if it is new.
    fn add(&mut self, key: K, value: V) -> Option<V> {
        if let Some(known) = self.values.get(&key) {
            return Some(*known);
        }
        self.values.insert(key, value);
        self.order.push_back(key);
        if self.order.len() > self.most
            && let Some(old) = self.order.pop_front()
        {
            self.values.remove(&old);
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(id: &str, verb: &str, received: &str, stage: &str) -> String {
        format!(
            r#"{{"auditID":"{id}","stage":"{stage}","verb":"{verb}","requestURI":"/api/v1/pods","user":{{"username":"u"}},"requestReceivedTimestamp":"2026-11-20T10:{received}.000000Z"}}"#
        )
    }

    fn is_reused(identity: &mut Identity, cluster: &str, text: &str) -> bool {
        identity.is_reused(cluster, &Event::parse(text).unwrap())
    }

    #[test]
    fn an_event_is_its_content_and_its_cluster() {
        let mut identity = Identity::default();
        let (a, b) = (event("a", "get", "00:00", "ResponseComplete"), event("a", "get", "00:00", "Panic"));
        assert!(identity.is_first("prod", &a) && !identity.is_first("prod", &a));
        assert!(identity.is_first("dev", &a), "the same text from elsewhere is another event");
        assert!(identity.is_first("prod", &b), "the same audit id is not the same event");
        let other = Identity::default();
        assert_ne!(identity.hash(["x"]), other.hash(["x"]), "keyed");
        assert_ne!(identity.hash(["ab", "c"]), identity.hash(["a", "bc"]));
    }

    #[test]
    fn an_audit_id_stands_for_one_request() {
        let mut identity = Identity::default();
        let mut again = |cluster, text: &str| is_reused(&mut identity, cluster, text);
        assert!(!again("prod", &event("a", "get", "00:00", "ResponseStarted")));
        assert!(!again("prod", &event("a", "get", "00:00", "ResponseComplete")), "another stage");
        assert!(!again("prod", &event("a", "get", "00:59", "ResponseComplete")), "an aggregated API server");
        assert!(again("prod", &event("a", "get", "02:00", "ResponseComplete")), "later");
        assert!(again("prod", &event("a", "delete", "00:00", "ResponseComplete")), "another verb");
        assert!(!again("dev", &event("a", "delete", "00:00", "ResponseComplete")), "another cluster");
        assert!(!again("prod", &event("", "get", "00:00", "ResponseComplete")));
        assert!(!again("prod", &event("", "delete", "09:00", "ResponseComplete")), "no id, nothing reused");
    }

    #[test]
    fn nobody_reuses_ids_on_an_ordinary_day() {
        let dir = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/benign/working-day.jsonl.zst");
        let text = zstd::decode_all(std::fs::File::open(dir).unwrap()).unwrap();
        let (mut identity, text) = (Identity::default(), String::from_utf8(text).unwrap());
        let reused: Vec<&str> = text.lines().filter(|line| is_reused(&mut identity, "prod", line)).collect();
        assert_eq!(reused, Vec::<&str>::new());
    }

    #[test]
    fn memory_is_bounded_and_forgets_the_oldest() {
        let mut known = Known::new(3);
        assert!((0..5).all(|n| known.add(n, n).is_none()));
        assert_eq!((known.values.len(), known.add(4, 9), known.add(0, 7)), (3, Some(4), None));
    }
}
