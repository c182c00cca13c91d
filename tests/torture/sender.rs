//! Sends numbered events as an API server does and keeps the ledger: what was sent, what was acknowledged.

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use crate::daemon::post;

/// Every so many events one is a command in a pod, which makes an alert.
const ALERT_EVERY: u32 = 5;
const TRY_AGAIN: Duration = Duration::from_millis(20);

/// What was sent and what was answered.
#[derive(Default)]
pub struct Ledger {
    next: AtomicU32,
    pub acked: Mutex<BTreeSet<u32>>,
    /// Answers other than 200, by status; 0 is none at all.
    pub refused: Mutex<std::collections::BTreeMap<u16, usize>>,
}

/// The actor and the number in the audit id of event `n`.
pub fn actor(n: u32) -> String {
    format!("u{n}@torture.example")
}

pub fn audit_id(n: u32) -> String {
    format!("00000000-0000-4000-8000-{n:012}")
}

/// Whether event `n` makes an alert.
pub const fn is_loud(n: u32) -> bool {
    n.is_multiple_of(ALERT_EVERY)
}

/// Event `n` as JSON.
pub fn event(n: u32) -> String {
    let (verb, sub, uri) = if is_loud(n) {
        ("create", "\"subresource\":\"exec\",", "/api/v1/namespaces/web/pods/p/exec?command=id")
    } else {
        ("get", "", "/api/v1/namespaces/web/pods/p")
    };
    let code = if is_loud(n) { 101 } else { 200 };
    format!(
        r#"{{"kind":"Event","apiVersion":"audit.k8s.io/v1","level":"Metadata","auditID":"{id}","stage":"ResponseComplete","requestURI":"{uri}","verb":"{verb}","user":{{"username":"{actor}","groups":["system:authenticated"]}},"sourceIPs":["203.0.113.7"],"userAgent":"kubectl/v1.32.0","objectRef":{{"resource":"pods","namespace":"web","name":"p",{sub}"apiVersion":"v1"}},"responseStatus":{{"metadata":{{}},"code":{code}}},"requestReceivedTimestamp":"2026-11-20T10:00:00.000000Z","stageTimestamp":"2026-11-20T10:00:00.000000Z","annotations":{{"authorization.k8s.io/decision":"allow"}}}}"#,
        id = audit_id(n),
        actor = actor(n),
    )
}

pub fn list(events: &[String]) -> Vec<u8> {
    let items = events.join(",");
    format!(r#"{{"kind":"EventList","apiVersion":"audit.k8s.io/v1","metadata":{{}},"items":[{items}]}}"#).into_bytes()
}

impl Ledger {
    /// Numbers for `n` new events.
    pub fn take(&self, n: u32) -> std::ops::Range<u32> {
        let first = self.next.fetch_add(n, Ordering::Relaxed);
        first..first + n
    }

    pub fn sent(&self) -> u32 {
        self.next.load(Ordering::Relaxed)
    }

    pub fn acked(&self) -> usize {
        self.acked.lock().unwrap().len()
    }

    /// Offers `numbers` once; whether they were acknowledged.
    pub fn offer(&self, port: u16, numbers: std::ops::Range<u32>) -> bool {
        let body = list(&numbers.clone().map(event).collect::<Vec<_>>());
        let code = post(port, "/audit/v1/prod", &body).map_or(0, |(code, _)| code);
        if code == 200 {
            self.acked.lock().unwrap().extend(numbers);
        } else {
            *self.refused.lock().unwrap().entry(code).or_default() += 1;
        }
        code == 200
    }

    /// Offers `n` new events until they are acknowledged, at most `patience`; how long that took.
    pub fn deliver(&self, port: u16, n: u32, patience: Duration) -> Option<Duration> {
        let (numbers, started) = (self.take(n), Instant::now());
        while !self.offer(port, numbers.clone()) {
            if started.elapsed() > patience {
                return None;
            }
            std::thread::park_timeout(TRY_AGAIN);
        }
        Some(started.elapsed())
    }

    /// Sends batches of `n` until told to stop; the last one is offered until it is taken or `stop` is set.
    pub fn keep_sending(&self, port: u16, n: u32, pause: Duration, stop: &AtomicBool) {
        while !stop.load(Ordering::Acquire) {
            let numbers = self.take(n);
            while !self.offer(port, numbers.clone()) && !stop.load(Ordering::Acquire) {
                std::thread::park_timeout(TRY_AGAIN);
            }
            std::thread::park_timeout(pause);
        }
    }
}
