//! Takes a request's body off the wire: not too large, not too slow, never more than the memory set
//! aside for all bodies together and for the items they become.

use std::io::Read;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, Bytes};
use http_body_util::BodyExt;
use hyper::body::Body;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout, timeout_at};

/// Permits are counted in this many bytes.
const UNIT: u64 = 1024;
/// While a body is split it is in memory twice: as it came, and as its items.
const COPIES: u64 = 2;
/// What a body of unknown length asks for at a time.
const STEP: u64 = 1024 * 1024;

/// How much and how fast.
#[derive(Clone, Debug)]
pub struct Pace {
    /// Largest body in bytes, also after decompression.
    pub max_body: u64,
    /// From the end of the header to the end of the body.
    pub total: Duration,
    /// Bytes a second a body must reach on average…
    pub min_rate: u64,
    /// …once this much time has passed.
    pub grace: Duration,
    /// How long to wait for memory.
    pub patience: Duration,
}

/// Why there is no body.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum BodyError {
    #[error(
        "the body is larger than {0} bytes; raise `maxBody`, or let the API server truncate (--audit-webhook-truncate-enabled)"
    )]
    TooLarge(u64),
    #[error("the body came too slowly")]
    Slow,
    #[error("too many bodies in memory")]
    NoRoom,
    #[error("the connection broke inside the body")]
    Broken,
}

/// The memory all bodies and their items share.
#[derive(Clone)]
pub struct Budget {
    permits: Arc<Semaphore>,
    all: u32,
}

impl Budget {
    /// Room for `bytes`, and for one body of `max_body` in any case.
    pub fn new(bytes: u64, max_body: u64) -> Self {
        let all = units((bytes / COPIES).max(max_body).saturating_add(STEP));
        Self { permits: Arc::new(Semaphore::new(all as usize)), all }
    }

    /// Bytes taken, those of items to come included.
    pub fn taken(&self) -> u64 {
        u64::from(self.all).saturating_sub(self.permits.available_permits() as u64) * UNIT
    }

    /// Room for so many bytes of a body, and for the items made of them.
    async fn take(&self, bytes: u64, patience: Duration) -> Result<OwnedSemaphorePermit, BodyError> {
        let permits = Arc::clone(&self.permits).acquire_many_owned(units(bytes));
        timeout(patience, permits).await.ok().and_then(Result::ok).ok_or(BodyError::NoRoom)
    }
}

fn units(bytes: u64) -> u32 {
    u32::try_from(bytes.div_ceil(UNIT) * COPIES).unwrap_or(u32::MAX)
}

/// Memory for the items of a body; dropping it gives it back.
#[derive(Default)]
pub struct Room(#[expect(dead_code, reason = "held, not read")] Option<OwnedSemaphorePermit>);

/// A body in memory; dropping it gives its room back.
pub struct Taken {
    pub bytes: Vec<u8>,
    room: Option<OwnedSemaphorePermit>,
}

impl Taken {
    fn make_room(&mut self, more: OwnedSemaphorePermit) {
        match &mut self.room {
            Some(room) => room.merge(more),
            room => *room = Some(more),
        }
    }

    /// Bytes of body there is room for.
    fn room(&self) -> u64 {
        self.room.as_ref().map_or(0, |room| room.num_permits() as u64 * UNIT / COPIES)
    }

    /// The body has become items: what is left to them of its room.
    pub fn into_room(self) -> Room {
        Room(self.room.map(|mut room| {
            let rest = room.num_permits() / COPIES as usize;
            room.split(rest).unwrap_or(room)
        }))
    }
}

/// Reads a whole body. `length` is what the header announced.
pub async fn read<B>(body: B, length: Option<u64>, pace: &Pace, budget: &Budget) -> Result<Taken, BodyError>
where
    B: Body<Data = Bytes>,
{
    let announced = length.unwrap_or(0);
    if announced > pace.max_body {
        return Err(BodyError::TooLarge(pace.max_body));
    }
    let room = budget.take(announced, pace.patience).await?;
    let mut taken = Taken { bytes: Vec::with_capacity(announced as usize), room: Some(room) };
    let mut body = std::pin::pin!(body);
    let start = Instant::now();
    loop {
        let frame = match timeout_at(start + allowed(taken.bytes.len(), pace), body.frame()).await {
            Err(_) => return Err(BodyError::Slow),
            Ok(None) => return Ok(taken),
            Ok(Some(Err(_))) => return Err(BodyError::Broken),
            Ok(Some(Ok(frame))) => frame,
        };
        let Ok(data) = frame.into_data() else { continue };
        let size = (taken.bytes.len() + data.remaining()) as u64;
        if size > pace.max_body {
            return Err(BodyError::TooLarge(pace.max_body));
        }
        if size > taken.room() {
            let more = budget.take(STEP.max(data.remaining() as u64), pace.patience).await?;
            taken.make_room(more);
        }
        taken.bytes.extend_from_slice(&data);
    }
}

/// How long after the start the next bytes may come, when `received` have.
fn allowed(received: usize, pace: &Pace) -> Duration {
    let earned = Duration::from_secs_f64(received as f64 / pace.min_rate.max(1) as f64);
    earned.max(pace.grace).min(pace.total)
}

/// Inflates gzip. `Ok(Some(problem))` means that the end is missing or damaged: what could be read is kept.
/// Does not wait for room, because it runs on a thread.
pub fn gunzip(packed: Taken, pace: &Pace, budget: &Budget) -> Result<(Taken, Option<String>), BodyError> {
    let mut plain = Taken { bytes: Vec::new(), room: None };
    let mut decoder = flate2::read::MultiGzDecoder::new(packed.bytes.as_slice());
    loop {
        let more = Arc::clone(&budget.permits).try_acquire_many_owned(units(STEP)).map_err(|_| BodyError::NoRoom)?;
        plain.make_room(more);
        let before = plain.bytes.len();
        let result = decoder.by_ref().take(STEP).read_to_end(&mut plain.bytes);
        if plain.bytes.len() as u64 > pace.max_body {
            return Err(BodyError::TooLarge(pace.max_body));
        }
        match result {
            Err(error) => return Ok((plain, Some(format!("gzip: {error}")))),
            Ok(_) if plain.bytes.len() == before => return Ok((plain, None)),
            Ok(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use http_body_util::channel::Channel;
    use hyper::body::Frame;

    use super::*;

    fn pace() -> Pace {
        Pace {
            max_body: 4 << 20,
            total: Duration::from_secs(25),
            min_rate: 16_000,
            grace: Duration::from_secs(2),
            patience: Duration::from_secs(2),
        }
    }

    /// Sends `parts`, each after its delay; then ends, or with `None` as the end stays silent.
    async fn send(
        parts: Vec<(u64, usize)>,
        ends: bool,
        length: Option<u64>,
        budget: &Budget,
    ) -> Result<usize, BodyError> {
        let (mut sender, body) = Channel::<Bytes>::new(1);
        let feed = tokio::spawn(async move {
            for (millis, size) in parts {
                tokio::time::sleep(Duration::from_millis(millis)).await;
                if sender.send(Frame::data(Bytes::from(vec![b'x'; size]))).await.is_err() {
                    return;
                }
            }
            if !ends {
                std::future::pending::<()>().await;
            }
        });
        let result = read(body, length, &pace(), budget).await.map(|taken| taken.bytes.len());
        feed.abort();
        result
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_must_keep_its_pace() {
        let budget = Budget::new(8 << 20, 4 << 20);
        let start = Instant::now();
        assert_eq!(send(vec![(1_900, 100), (100_000, 1)], true, None, &budget).await, Err(BodyError::Slow));
        assert_eq!(start.elapsed().as_millis(), 2_000, "silent after little: grace ends it");
        assert_eq!(send(vec![(1_900, 1_000); 2], true, None, &budget).await, Err(BodyError::Slow));
        assert_eq!(send(vec![(450, 10_000); 40], true, None, &budget).await, Ok(400_000));
        let start = Instant::now();
        assert_eq!(send(vec![(450, 10_000); 80], true, None, &budget).await, Err(BodyError::Slow));
        assert_eq!(start.elapsed().as_millis(), 25_000, "fast enough, but the whole takes too long");
        assert_eq!(send(vec![(0, 64_000)], false, None, &budget).await, Err(BodyError::Slow));
        assert_eq!(budget.taken(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn the_limit_counts_announced_and_real_bytes() {
        let budget = Budget::new(8 << 20, 4 << 20);
        let limit = Err(BodyError::TooLarge(4 << 20));
        assert_eq!(send(vec![], false, Some((4 << 20) + 1), &budget).await, limit);
        assert_eq!(send(vec![(0, 1 << 20); 5], true, None, &budget).await, limit);
        assert_eq!(send(vec![(0, 1 << 20); 4], true, None, &budget).await, Ok(4 << 20));
    }

    #[tokio::test(start_paused = true)]
    async fn bodies_share_the_memory_and_give_it_back() {
        let budget = Budget::new(4 << 20, 4 << 20);
        let (_sender, body) = Channel::<Bytes>::new(1);
        let held = tokio::spawn({
            let budget = budget.clone();
            async move { read(body, Some(4 << 20), &pace(), &budget).await.map(|_| ()) }
        });
        tokio::time::sleep(Duration::from_millis(500)).await;
        assert_eq!(budget.taken(), COPIES * (4 << 20));
        let start = Instant::now();
        assert_eq!(send(vec![(0, 9)], true, Some(2 << 20), &budget).await, Ok(9), "waits for room");
        assert!(start.elapsed() >= Duration::from_millis(1_500));
        assert_eq!(held.await.unwrap(), Err(BodyError::Slow));
        let (mut sender, body) = Channel::<Bytes>::new(4);
        for _ in 0..4 {
            sender.send(Frame::data(Bytes::from(vec![b'x'; 1 << 20]))).await.unwrap();
        }
        drop(sender);
        let chunked = read(body, None, &pace(), &budget).await.unwrap();
        assert!(budget.taken() >= COPIES * (4 << 20), "a body of unknown length takes room as it grows");
        let before = budget.taken();
        let items = chunked.into_room();
        assert_eq!(budget.taken(), before / COPIES, "until its items are stored");
        drop(items);
        assert_eq!(budget.taken(), 0);
        let _all = budget.take(5 << 20, Duration::ZERO).await.unwrap();
        assert_eq!(send(vec![(0, 9)], true, Some(9), &budget).await, Err(BodyError::NoRoom));
    }

    fn packed(plain: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(plain).unwrap();
        encoder.finish().unwrap()
    }

    fn unpack(bytes: Vec<u8>, budget: &Budget) -> Result<(usize, Option<String>), BodyError> {
        gunzip(Taken { bytes, room: None }, &pace(), budget).map(|(taken, problem)| (taken.bytes.len(), problem))
    }

    #[test]
    fn gzip_is_bounded_and_a_damaged_end_keeps_the_beginning() {
        let budget = Budget::new(8 << 20, 4 << 20);
        assert_eq!(unpack(packed(&[b'x'; 3 << 20]), &budget), Ok((3 << 20, None)));
        assert_eq!(unpack(packed(&vec![b'x'; 5 << 20]), &budget), Err(BodyError::TooLarge(4 << 20)));
        let mut cut = packed(&[b'x'; 1000]);
        cut.truncate(cut.len() - 4);
        let (kept, problem) = unpack(cut, &budget).unwrap();
        assert!(kept == 1000 && problem.unwrap().starts_with("gzip: "));
        assert_eq!(
            unpack(packed(&[b'x'; 2 << 20]), &Budget { all: 1024, permits: Arc::new(Semaphore::new(1024)) }),
            Err(BodyError::NoRoom)
        );
        assert_eq!(budget.taken(), 0);
    }
}
