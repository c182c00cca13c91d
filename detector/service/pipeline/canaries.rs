//! Requests that Lapwing itself makes to an API server, to see whether their audit events come back. Each is for a config map
//! of a name nobody can foresee; it need not exist, and Lapwing needs no right to it: a refusal is recorded too.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use lapwing_engine::batch::{Batch, Item};
use memchr::memmem;

/// How the names begin.
const PREFIX: &str = "lapwing-canary-";
/// Of one API server so many are waited for: the oldest says since when it is blind, the newest that it no longer is.
const WAITING: usize = 16;

#[derive(Debug)]
struct Canary {
    cluster: String,
    server: String,
    name: String,
    /// Microseconds since the epoch.
    sent: i64,
}

/// Those that have not come back.
#[derive(Debug, Default)]
pub struct Canaries {
    waiting: Mutex<Vec<Canary>>,
    /// How many, for whoever only wants to know whether there are any.
    count: AtomicUsize,
}

impl Canaries {
    /// The name of the next one for `server`, waited for from now on.
    pub fn next(&self, cluster: &str, server: &str, now: i64) -> String {
        let name = format!("{PREFIX}{:032x}", rand::random::<u128>());
        let mut waiting = self.lock();
        let mine: Vec<usize> = (0..waiting.len()).filter(|i| waiting[*i].server == server).collect();
        if mine.len() >= WAITING {
            waiting.remove(mine[1]);
        }
        waiting.push(Canary { cluster: cluster.to_owned(), server: server.to_owned(), name: name.clone(), sent: now });
        self.count.store(waiting.len(), Ordering::Release);
        name
    }

    /// Looks for them in what was stored. Costs nothing while none is waited for.
    pub fn look_in(&self, batch: &Batch) {
        if self.count.load(Ordering::Acquire) == 0 {
            return;
        }
        for item in &batch.items {
            let Item::Event(text) = item else { continue };
            if let Some(at) = memmem::find(text.as_bytes(), PREFIX.as_bytes()) {
                self.came(&batch.cluster, &text[at..]);
            }
        }
    }

    /// One is back, and with it the way of all that were sent to this API server before.
    fn came(&self, cluster: &str, text: &str) {
        let mut waiting = self.lock();
        let Some(found) = waiting.iter().position(|c| c.cluster == cluster && text.starts_with(&c.name)) else {
            return;
        };
        let (server, sent) = (waiting[found].server.clone(), waiting[found].sent);
        waiting.retain(|c| c.server != server || c.sent > sent);
        self.count.store(waiting.len(), Ordering::Release);
    }

    /// When the oldest was sent to `server` that should have been back, if it was sent before `due`.
    pub fn overdue(&self, server: &str, due: i64) -> Option<i64> {
        self.lock().iter().filter(|c| c.server == server && c.sent < due).map(|c| c.sent).min()
    }

    /// One that could not be sent proves nothing.
    pub fn forget(&self, name: &str) {
        let mut waiting = self.lock();
        waiting.retain(|c| c.name != name);
        self.count.store(waiting.len(), Ordering::Release);
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Canary>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use lapwing_engine::batch::Origin;

    use super::*;

    fn batch(cluster: &str, name: &str) -> Batch {
        let item = Item::Event(format!(r#"{{"auditID":"1","objectRef":{{"resource":"configmaps","name":"{name}"}}}}"#));
        Batch { cluster: cluster.into(), origin: Origin::Webhook, received: 0, items: vec![item] }
    }

    #[test]
    fn one_that_comes_back_ends_the_waiting_for_those_before_it() {
        let canaries = Canaries::default();
        let names: Vec<String> = (1..5).map(|n| canaries.next("prod", "a", n)).collect();
        canaries.next("prod", "b", 1);
        assert_eq!(
            (canaries.overdue("a", 1), canaries.overdue("a", 9), canaries.overdue("b", 9)),
            (None, Some(1), Some(1))
        );
        for wrong in [batch("dev", &names[2]), batch("prod", "lapwing-canary-0"), batch("prod", "x")] {
            canaries.look_in(&wrong);
        }
        assert_eq!(canaries.overdue("a", 9), Some(1), "of another cluster, or a guess");
        canaries.look_in(&batch("prod", &names[2]));
        assert_eq!((canaries.overdue("a", 9), canaries.overdue("b", 9)), (Some(4), Some(1)));
        canaries.forget(&names[3]);
        assert_eq!(canaries.overdue("a", 9), None);
    }

    #[test]
    fn a_blind_api_server_takes_no_memory_and_its_recovery_is_seen() {
        let canaries = Canaries::default();
        let names: Vec<String> = (0..100).map(|n| canaries.next("prod", "a", n)).collect();
        assert_eq!(canaries.overdue("a", 1000), Some(0));
        assert_eq!(canaries.lock().len(), WAITING);
        canaries.look_in(&batch("prod", &names[99]));
        assert_eq!(canaries.count.load(Ordering::Relaxed), 0);
        assert!(canaries.lock().is_empty());
    }
}
