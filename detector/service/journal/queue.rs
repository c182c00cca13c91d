//! Between the appenders and the writer thread: bounded in bytes. When it is full, [`Queue::push`] waits or answers
//! `Busy`, as the caller says; nothing is ever dropped.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;

use super::{AppendError, Lsn};

pub(super) type Reply = oneshot::Sender<Result<Lsn, AppendError>>;

/// One append: all of its records go into one commit block.
pub(super) struct Pending {
    pub records: Vec<(u8, Vec<u8>)>,
    pub bytes: usize,
    pub reply: Reply,
}

#[derive(Default)]
struct Inner {
    waiting: VecDeque<Pending>,
    bytes: usize,
    closed: bool,
}

pub(super) struct Queue {
    inner: Mutex<Inner>,
    limit: usize,
    work: Condvar,
    space: Condvar,
}

/// What the writer should do next.
pub(super) enum Next {
    Commit(Vec<Pending>),
    /// Nothing came for the time asked.
    Idle,
    Closed,
}

impl Queue {
    pub fn new(limit: usize) -> Self {
        Self { inner: Mutex::default(), limit, work: Condvar::new(), space: Condvar::new() }
    }

    /// Errors: `Busy` when full and not `wait`; `Closed`. An append larger than the whole queue is let in alone.
    pub fn push(
        &self,
        records: Vec<(u8, Vec<u8>)>,
        wait: bool,
    ) -> Result<oneshot::Receiver<Result<Lsn, AppendError>>, AppendError> {
        let bytes = records.iter().map(|(_, p)| p.len() + 64).sum();
        let mut inner = lock(&self.inner);
        while inner.bytes > 0 && inner.bytes + bytes > self.limit && !inner.closed {
            if !wait {
                return Err(AppendError::Busy { queued: inner.bytes });
            }
            inner = self.space.wait(inner).unwrap_or_else(PoisonError::into_inner);
        }
        if inner.closed {
            return Err(AppendError::Closed);
        }
        let (reply, answer) = oneshot::channel();
        inner.bytes += bytes;
        inner.waiting.push_back(Pending { records, bytes, reply });
        self.work.notify_one();
        Ok(answer)
    }

    /// Everything that waits, up to `max_bytes` or `max_records`, at least one append. The bytes stay counted until
    /// [`Queue::release`]: they are still in memory.
    pub fn take(&self, max_bytes: usize, max_records: usize, idle: Duration) -> Next {
        let mut inner = lock(&self.inner);
        while inner.waiting.is_empty() {
            if inner.closed {
                return Next::Closed;
            }
            let (guard, timed_out) = self.work.wait_timeout(inner, idle).unwrap_or_else(PoisonError::into_inner);
            inner = guard;
            if timed_out.timed_out() && inner.waiting.is_empty() && !inner.closed {
                return Next::Idle;
            }
        }
        let (mut group, mut bytes, mut records) = (Vec::new(), 0, 0);
        while let Some(next) = inner.waiting.front() {
            let (b, r) = (bytes + next.bytes, records + next.records.len());
            if !group.is_empty() && (b > max_bytes || r > max_records) {
                break;
            }
            (bytes, records) = (b, r);
            group.extend(inner.waiting.pop_front());
        }
        Next::Commit(group)
    }

    pub fn release(&self, bytes: usize) {
        lock(&self.inner).bytes -= bytes;
        self.space.notify_all();
    }

    pub fn bytes(&self) -> usize {
        lock(&self.inner).bytes
    }

    /// No more appends; what waits is still written.
    pub fn close(&self) {
        lock(&self.inner).closed = true;
        self.work.notify_all();
        self.space.notify_all();
    }

    /// The writer is gone: whoever waits learns it.
    pub fn abandon(&self) {
        self.close();
        lock(&self.inner).waiting.clear();
    }
}

/// A lock whose data stays usable when a holder panicked: every change under it is a single step.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
