//! What was read and is not durable yet, and what is durable and not committed yet.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::Duration;

use lapwing_engine::batch::{Batch, Item, Origin, RejectReason};
use tokio::runtime::Handle;

use super::Partition;
use crate::source::{Refused, Sink, now};

/// A batch ends at so many bytes or messages.
const BATCH_BYTES: usize = 1 << 20;
const BATCH_MESSAGES: usize = 500;
const RETRY: Duration = Duration::from_secs(1);

/// One message.
pub(super) struct Read {
    pub cluster: String,
    pub items: Vec<Item>,
    pub next_offset: i64,
    pub bytes: usize,
}

impl Read {
    /// Records `from..to` that the broker deleted before they were read.
    pub(super) fn gap(cluster: String, topic: &str, partition: i32, from: i64, to: i64) -> Self {
        let detail = format!("kafka records {from}..{to} of {topic}/{partition} were gone before they were read");
        let item = Item::Reject { reason: RejectReason::BadBody, detail, excerpt: String::new() };
        Self { cluster, items: vec![item], next_offset: to, bytes: 0 }
    }
}

#[derive(Default)]
struct Lane {
    held: VecDeque<Read>,
    /// A task is delivering this partition's messages.
    busy: bool,
    /// Assigned to us; what is read for others is dropped.
    assigned: bool,
    /// The next offset that is not durable.
    journaled: Option<i64>,
    committed: Option<i64>,
    /// The next offset to be read.
    expected: Option<i64>,
}

#[derive(Default)]
struct State {
    lanes: HashMap<Partition, Lane>,
    bytes: usize,
    closed: bool,
}

/// Between the polling thread and the deliveries, one at a time for each partition.
pub(super) struct Shared<S> {
    state: Mutex<State>,
    settled: Condvar,
    sink: Arc<S>,
    runtime: Handle,
}

impl<S: Sink> Shared<S> {
    pub(super) fn new(sink: Arc<S>, runtime: Handle, positions: HashMap<Partition, i64>) -> Self {
        let lane = |next| Lane { journaled: Some(next), ..Lane::default() };
        let lanes = positions.into_iter().map(|(partition, next)| (partition, lane(next))).collect();
        let state = Mutex::new(State { lanes, ..State::default() });
        Self { state, settled: Condvar::new(), sink, runtime }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing is left half done while the lock is held, so a panic elsewhere does not spoil it.
        self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Holds a message and sees that it is delivered.
    pub(super) fn push(this: &Arc<Self>, partition: Partition, read: Read) {
        let mut state = this.lock();
        let lane = state.lanes.entry(partition.clone()).or_default();
        let known = lane.expected.is_some_and(|expected| read.next_offset <= expected);
        if !lane.assigned || known {
            return;
        }
        lane.expected = Some(read.next_offset);
        let bytes = read.bytes;
        lane.held.push_back(read);
        let idle = !std::mem::replace(&mut lane.busy, true);
        state.bytes += bytes;
        drop(state);
        if idle {
            this.runtime.spawn(Arc::clone(this).deliver(partition));
        }
    }

    async fn deliver(self: Arc<Self>, partition: Partition) {
        while let Some((batch, next, bytes)) = self.next_batch(&partition) {
            let stored = self.store(batch).await;
            let mut state = self.lock();
            state.bytes = state.bytes.saturating_sub(bytes);
            state.closed |= stored == Err(Refused::Closed);
            if let Some(lane) = state.lanes.get_mut(&partition).filter(|_| stored.is_ok()) {
                lane.journaled = Some(next);
            }
        }
        self.settled.notify_all();
    }

    /// Tries as long as it makes sense.
    async fn store(&self, batch: Batch) -> Result<(), Refused> {
        loop {
            match self.sink.accept(batch.clone()).await {
                Err(Refused::Busy) => tokio::time::sleep(RETRY).await,
                answer => return answer,
            }
        }
    }

    /// The partition is ours: the next offset by the sink, where it stores each partition apart. Closes when it cannot.
    pub(super) fn taken(&self, topic: &str, partition: i32) -> Option<i64> {
        match self.sink.taken(topic, partition) {
            Ok(next) => next,
            Err(error) => {
                tracing::error!(topic, partition, error = format!("{error:#}"), "kafka partition cannot be taken");
                self.lock().closed = true;
                None
            }
        }
    }

    pub(super) fn given_up(&self, partitions: &[Partition]) {
        partitions.iter().for_each(|(topic, partition)| self.sink.given_up(topic, *partition));
    }

    /// What is held of one cluster, as far as a batch goes; without any the lane is idle.
    fn next_batch(&self, partition: &Partition) -> Option<(Batch, i64, usize)> {
        let mut state = self.lock();
        let closed = state.closed;
        let lane = state.lanes.get_mut(partition)?;
        let Some(first) = (if closed { None } else { lane.held.pop_front() }) else {
            lane.busy = false;
            return None;
        };
        let Read { cluster, mut items, mut next_offset, mut bytes } = first;
        let mut messages = 1;
        while let Some(read) = lane.held.front().filter(|r| r.cluster == cluster && bytes + r.bytes <= BATCH_BYTES)
            && messages < BATCH_MESSAGES
        {
            next_offset = read.next_offset;
            bytes += read.bytes;
            messages += 1;
            items.extend(lane.held.pop_front().map(|r| r.items).unwrap_or_default());
        }
        let origin = Origin::Kafka { topic: partition.0.clone(), partition: partition.1, next_offset };
        Some((Batch { cluster, origin, received: now(), items }, next_offset, bytes))
    }

    pub(super) fn closed(&self) -> bool {
        self.lock().closed
    }

    pub(super) fn held_bytes(&self) -> usize {
        self.lock().bytes
    }

    pub(super) fn journaled(&self, topic: &str, partition: i32) -> Option<i64> {
        self.lock().lanes.get(&(topic.to_owned(), partition)).and_then(|lane| lane.journaled)
    }

    /// The partition is ours from this offset on, where it is known.
    pub(super) fn begin(&self, partition: Partition, from: Option<i64>) {
        let mut state = self.lock();
        let lane = state.lanes.entry(partition).or_default();
        lane.assigned = true;
        lane.expected = from;
    }

    /// The next offset of each partition that is ours.
    pub(super) fn expected(&self) -> Vec<(Partition, i64)> {
        let state = self.lock();
        let ours = state.lanes.iter().filter(|(_, lane)| lane.assigned);
        ours.filter_map(|(partition, lane)| Some((partition.clone(), lane.expected?))).collect()
    }

    /// Durable and not committed yet; counted as committed from now on.
    pub(super) fn uncommitted(&self, of: Option<&[Partition]>) -> Vec<(Partition, i64)> {
        let mut state = self.lock();
        let wanted = |p: &Partition| of.is_none_or(|of| of.contains(p));
        let mut offsets = Vec::new();
        for (partition, lane) in state.lanes.iter_mut().filter(|(p, lane)| lane.assigned && wanted(p)) {
            if let Some(next) = lane.journaled.filter(|_| lane.journaled != lane.committed) {
                lane.committed = lane.journaled;
                offsets.push((partition.clone(), next));
            }
        }
        offsets
    }

    /// Waits until nothing is under way, at most `most`.
    pub(super) fn settle(&self, of: Option<&[Partition]>, most: Duration) {
        let busy =
            |state: &mut State| state.lanes.iter().any(|(p, lane)| lane.busy && of.is_none_or(|of| of.contains(p)));
        // The answer does not matter: what is not durable by then is not committed.
        drop(self.settled.wait_timeout_while(self.lock(), most, busy));
    }

    pub(super) fn drop_held(&self, partitions: &[Partition]) {
        let mut state = self.lock();
        let mut bytes = 0;
        for partition in partitions {
            if let Some(lane) = state.lanes.get_mut(partition) {
                bytes += lane.held.drain(..).map(|read| read.bytes).sum::<usize>();
            }
        }
        state.bytes = state.bytes.saturating_sub(bytes);
    }

    /// Somebody else goes on: should the partition come back, the group's position is the right one.
    pub(super) fn forget(&self, partitions: &[Partition]) {
        let mut state = self.lock();
        for partition in partitions {
            if let Some(lane) = state.lanes.get_mut(partition) {
                *lane = Lane { busy: lane.busy, ..Lane::default() };
            }
        }
    }
}
