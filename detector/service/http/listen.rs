//! The accept loop of both listeners: connection limits, TLS handshake, deadlines, graceful drain.
//!
//! hyper alone keeps a silent or half-open client for ever (its header timeout also counts while a
//! connection idles, so it cannot be used for this). Here every connection has exactly one deadline at any
//! time, moved by what happens on the wire. What a request means is the handler's business; the
//! deadline of a request's body is too.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls::pki_types::CertificateDer;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::slots::{Slot, Slots};

const MAX_HEADER: usize = 16 * 1024;
const MAX_HEADERS: usize = 64;
const H2_STREAMS: u32 = 64;

/// How many connections, and how long each may take for what.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Connections at once; one more is closed on arrival, or closes one that has not shown who it is.
    pub connections: usize,
    /// Connections at once that have not shown who they are; one more closes the oldest of the address that has most of them.
    pub unknown: usize,
    /// Connections at once of one source address (IPv6: of one /64).
    pub per_address: usize,
    /// From accept to the end of the TLS handshake.
    pub handshake: Duration,
    /// From there to the first byte of a request.
    pub first_byte: Duration,
    /// From the first byte to the end of the header.
    pub header: Duration,
    /// From an answer to the next request.
    pub idle: Duration,
    /// From the order to stop until what is left is cut off.
    pub drain: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 1024,
            unknown: 128,
            per_address: 64,
            handshake: Duration::from_secs(5),
            first_byte: Duration::from_secs(10),
            header: Duration::from_secs(5),
            idle: Duration::from_secs(90),
            drain: Duration::from_secs(15),
        }
    }
}

/// The other end of a connection.
#[derive(Clone, Debug)]
pub struct Peer {
    pub address: SocketAddr,
    /// The client certificate, when one was presented; the handshake has verified it.
    pub certificate: Option<CertificateDer<'static>>,
    /// `None` where connections are not counted.
    pub slot: Option<Arc<Slot>>,
}

impl Peer {
    /// It has shown who it is: its connection is not closed to make room for others.
    pub fn known(&self) {
        self.slot.iter().for_each(|slot| slot.known());
    }
}

/// What a new connection is served with.
#[derive(Clone)]
pub struct Terms {
    /// `None` is plain HTTP.
    pub tls: Option<Arc<rustls::ServerConfig>>,
    /// Cancelled when these terms were replaced: connections made under them end after the request in hand.
    pub retired: CancellationToken,
}

/// Why a connection ended. Each is a metric label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum End {
    /// Closed in good order.
    Done,
    /// Reset, or not HTTP.
    Broken,
    TooMany,
    TooManyFromAddress,
    /// It had not shown who it is, and newer connections needed its place.
    Displaced,
    HandshakeFailed,
    HandshakeSlow,
    NoRequest,
    HeaderSlow,
    Idle,
    /// Cut off because the drain took too long.
    CutOff,
}

impl End {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Broken => "broken",
            Self::TooMany => "too_many",
            Self::TooManyFromAddress => "too_many_from_address",
            Self::Displaced => "displaced",
            Self::HandshakeFailed => "handshake_failed",
            Self::HandshakeSlow => "handshake_slow",
            Self::NoRequest => "no_request",
            Self::HeaderSlow => "header_slow",
            Self::Idle => "idle",
            Self::CutOff => "cut_off",
        }
    }
}

/// What a listener serves.
pub trait Handler: Send + Sync + 'static {
    /// The terms for the next connection.
    fn terms(&self) -> Terms;

    /// Answers one request. Must itself bound how long it waits for the body.
    fn handle(&self, peer: &Peer, request: Request<Incoming>) -> impl Future<Output = Response<Full<Bytes>>> + Send;

    /// A connection was accepted; `ended` follows exactly once.
    fn opened(&self) {}

    /// A connection is over.
    fn ended(&self, _end: End) {}
}

/// Serves until `drain` is cancelled, then finishes what is in hand, at most `limits.drain` long.
pub async fn serve<H: Handler>(tcp: TcpListener, handler: Arc<H>, limits: Limits, drain: CancellationToken) {
    let slots = Arc::new(Slots::default());
    let tasks = TaskTracker::new();
    let cut = CancellationToken::new();
    while let Some(accepted) = drain.run_until_cancelled(tcp.accept()).await {
        let (stream, address) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of file descriptors, mostly: wait for connections to end instead of spinning.
                tracing::warn!(%error, "cannot accept a connection");
                drain.run_until_cancelled(sleep(Duration::from_millis(100))).await;
                continue;
            }
        };
        handler.opened();
        let slot = match Slots::take(&slots, address.ip(), &limits) {
            Ok(slot) => Arc::new(slot),
            Err(end) => {
                handler.ended(end);
                continue;
            }
        };
        let connection = Connection {
            handler: Arc::clone(&handler),
            limits: limits.clone(),
            drain: drain.clone(),
            tasks: tasks.clone(),
            slot: Arc::clone(&slot),
        };
        let cut = cut.clone();
        tasks.spawn(async move {
            let handler = Arc::clone(&connection.handler);
            let end = tokio::select! {
                end = connection.run(stream, address) => end,
                () = cut.cancelled() => End::CutOff,
                () = slot.displaced() => End::Displaced,
            };
            drop(slot);
            handler.ended(end);
        });
        // Who has sent a request already shows who they are before a crowd behind them could take their place.
        tokio::task::yield_now().await;
    }
    drop(tcp);
    tasks.close();
    if timeout(limits.drain, tasks.wait()).await.is_err() {
        tracing::warn!(connections = tasks.len(), "connections did not finish in time, cutting them off");
        cut.cancel();
        tasks.wait().await;
    }
}

struct Connection<H> {
    handler: Arc<H>,
    limits: Limits,
    drain: CancellationToken,
    tasks: TaskTracker,
    slot: Arc<Slot>,
}

impl<H: Handler> Connection<H> {
    async fn run(self, stream: TcpStream, address: SocketAddr) -> End {
        let _ = stream.set_nodelay(true);
        let Terms { tls, retired } = self.handler.terms();
        let slot = Some(Arc::clone(&self.slot));
        let Some(config) = tls else {
            return self.speak(stream, Peer { address, certificate: None, slot }, false, retired).await;
        };
        let stream = match timeout(self.limits.handshake, TlsAcceptor::from(config).accept(stream)).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => {
                tracing::debug!(%address, %error, "TLS handshake failed");
                return End::HandshakeFailed;
            }
            Err(_) => return End::HandshakeSlow,
        };
        let session = stream.get_ref().1;
        let certificate = session.peer_certificates().and_then(|chain| chain.first()).cloned().map(|c| c.into_owned());
        let h2 = session.alpn_protocol() == Some(b"h2");
        self.speak(stream, Peer { address, certificate, slot }, h2, retired).await
    }

    async fn speak<S>(self, stream: S, peer: Peer, h2: bool, retired: CancellationToken) -> End
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let clock = Arc::new(Clock::new(&self.limits, h2));
        let io = TokioIo::new(Watched { stream, clock: Arc::clone(&clock) });
        let (handler, peer) = (self.handler, Arc::new(peer));
        let service = {
            let clock = Arc::clone(&clock);
            service_fn(move |request| {
                let (handler, peer, busy) = (Arc::clone(&handler), Arc::clone(&peer), clock.request());
                async move {
                    let response = handler.handle(&peer, request).await;
                    drop(busy);
                    Ok::<_, std::convert::Infallible>(response)
                }
            })
        };
        if h2 {
            let mut http = hyper::server::conn::http2::Builder::new(Tracked(self.tasks));
            http.timer(TokioTimer::new()).max_concurrent_streams(H2_STREAMS).max_header_list_size(MAX_HEADER as u32);
            let connection = pin!(http.serve_connection(io, service));
            drive(connection, |c| c.graceful_shutdown(), &clock, &self.drain, &retired).await
        } else {
            let mut http = hyper::server::conn::http1::Builder::new();
            http.timer(TokioTimer::new()).header_read_timeout(None);
            http.max_headers(MAX_HEADERS).max_header_size(MAX_HEADER).max_buf_size(4 * MAX_HEADER);
            let connection = pin!(http.serve_connection(io, service));
            drive(connection, |c| c.graceful_shutdown(), &clock, &self.drain, &retired).await
        }
    }
}

/// Polls a connection until it ends, its deadline passes, or it is told to finish.
async fn drive<C>(
    mut connection: Pin<&mut C>,
    finish: impl Fn(Pin<&mut C>),
    clock: &Clock,
    drain: &CancellationToken,
    retired: &CancellationToken,
) -> End
where
    C: Future<Output = hyper::Result<()>>,
{
    let mut now = clock.now.subscribe();
    let mut finishing = false;
    loop {
        let Now { stage, until, .. } = *now.borrow_and_update();
        let late = async {
            match until {
                Some(until) => sleep_until(until).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            result = connection.as_mut() => return if result.is_ok() { End::Done } else { End::Broken },
            _ = now.changed() => {}
            () = late => return stage.late(),
            () = drain.cancelled(), if !finishing => {
                // HTTP/2 would wait for the preface of a client that never said a word.
                if stage == Stage::First {
                    return End::Done;
                }
                finishing = true;
                finish(connection.as_mut());
            }
            // Who has just come with a good certificate has its first request on the way: cutting it off would cost the
            // sender a try. It has the deadline of a first byte to arrive.
            () = retired.cancelled(), if !finishing && stage != Stage::First => {
                finishing = true;
                finish(connection.as_mut());
            }
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    First,
    Header,
    Busy,
    Idle,
}

impl Stage {
    const fn late(self) -> End {
        match self {
            Self::First => End::NoRequest,
            Self::Header => End::HeaderSlow,
            Self::Busy | Self::Idle => End::Idle,
        }
    }
}

#[derive(Clone, Copy, Debug)]
struct Now {
    stage: Stage,
    until: Option<Instant>,
    requests: usize,
}

/// The one deadline of a connection and what it waits for.
struct Clock {
    now: watch::Sender<Now>,
    header: Duration,
    idle: Duration,
    h2: bool,
}

impl Clock {
    fn new(limits: &Limits, h2: bool) -> Self {
        let first = Now { stage: Stage::First, until: Some(Instant::now() + limits.first_byte), requests: 0 };
        Self { now: watch::Sender::new(first), header: limits.header, idle: limits.idle, h2 }
    }

    /// Bytes came in: outside a request that is the beginning of a header. HTTP/2 frames say less,
    /// so there only a request moves the deadline.
    fn read(&self) {
        self.now.send_if_modified(|now| {
            let (stage, wait) = match (now.stage, self.h2) {
                (Stage::First, true) => (Stage::Idle, self.idle),
                (Stage::First | Stage::Idle, false) => (Stage::Header, self.header),
                _ => return false,
            };
            *now = Now { stage, until: Some(Instant::now() + wait), ..*now };
            true
        });
    }

    fn request(self: &Arc<Self>) -> Busy {
        self.now.send_modify(|now| *now = Now { stage: Stage::Busy, until: None, requests: now.requests + 1 });
        Busy(Arc::clone(self))
    }
}

/// A request is being answered; dropping it starts the idle deadline.
struct Busy(Arc<Clock>);

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.now.send_modify(|now| {
            now.requests -= 1;
            if now.requests == 0 {
                *now = Now { stage: Stage::Idle, until: Some(Instant::now() + self.0.idle), requests: 0 };
            }
        });
    }
}

/// A stream that tells the clock when bytes come in.
struct Watched<S> {
    stream: S,
    clock: Arc<Clock>,
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        let before = buf.filled().len();
        let result = Pin::new(&mut self.stream).poll_read(cx, buf);
        if buf.filled().len() > before {
            self.clock.read();
        }
        result
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// Runs HTTP/2's tasks where the drain waits for them.
#[derive(Clone)]
struct Tracked(TaskTracker);

impl<F: Future<Output: Send> + Send + 'static> hyper::rt::Executor<F> for Tracked {
    fn execute(&self, future: F) {
        self.0.spawn(future);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn one_deadline_moves_with_the_wire() {
        let limits = Limits::default();
        let clock = Arc::new(Clock::new(&limits, false));
        let start = Instant::now();
        let left = |clock: &Clock| clock.now.borrow().until.map(|until| (until - start).as_secs());
        assert_eq!(left(&clock), Some(10));
        clock.read();
        assert_eq!(left(&clock), Some(5));
        tokio::time::advance(Duration::from_secs(2)).await;
        clock.read();
        assert_eq!(left(&clock), Some(5), "a dripping header earns no more time");
        let (a, b) = (clock.request(), clock.request());
        clock.read();
        assert_eq!(left(&clock), None);
        drop(a);
        assert_eq!(left(&clock), None);
        drop(b);
        assert_eq!(left(&clock), Some(92));
        clock.read();
        assert_eq!(left(&clock), Some(7));
    }

    #[tokio::test(start_paused = true)]
    async fn frames_without_requests_do_not_keep_an_http2_connection() {
        let clock = Arc::new(Clock::new(&Limits::default(), true));
        clock.read();
        let until = clock.now.borrow().until;
        tokio::time::advance(Duration::from_secs(60)).await;
        clock.read();
        assert_eq!(clock.now.borrow().until, until);
        assert_eq!(clock.now.borrow().stage.late(), End::Idle);
    }

    /// Knows whoever asks anything.
    struct Friendly;

    impl Handler for Friendly {
        fn terms(&self) -> Terms {
            Terms { tls: None, retired: CancellationToken::new() }
        }

        async fn handle(&self, peer: &Peer, _: Request<Incoming>) -> Response<Full<Bytes>> {
            peer.known();
            Response::new(Full::new(Bytes::from_static(b"hello")))
        }
    }

    #[tokio::test]
    async fn a_crowd_does_not_take_the_place_of_who_has_asked_already() {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = tcp.local_addr().unwrap();
        let mut client = TcpStream::connect(address).await.unwrap();
        client.write_all(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await.unwrap();
        let mut crowd = Vec::new();
        for _ in 0..40 {
            crowd.push(TcpStream::connect(address).await.unwrap());
        }
        // All of them wait to be accepted when it begins.
        let (limits, drain) = (Limits { unknown: 8, ..Limits::default() }, CancellationToken::new());
        let task = tokio::spawn(serve(tcp, Arc::new(Friendly), limits, drain.clone()));
        let mut answer = String::new();
        let _ = client.read_to_string(&mut answer).await;
        assert!(answer.ends_with("hello"), "{answer:?}");
        drop(crowd);
        drain.cancel();
        task.await.unwrap();
    }
}
