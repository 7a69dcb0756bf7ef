//! What the daemon says over HTTP: is it alive, is it ready and why not, the whole status as JSON, metrics, and a page
//! for people.
//!
//! | path | answers |
//! |---|---|
//! | `/livez` | 200 as long as the process answers |
//! | `/readyz`, `/readyz/NAME` | 200 where the newest version is applied and everybody knows, else 503 with each reason and its fix |
//! | `/status` | [`Status`] as JSON |
//! | `/metrics` | the same as numbers, for Prometheus |
//! | `/` | the same for people |
//!
//! All of it is read-only and holds no secrets; any local user may read a loopback port all the same, and a Unix socket
//! keeps them out. Whoever asks is a stranger: a request has a few seconds and 8 KiB, its body is never read, and at each
//! place only so many are heard at a time. Where more come, each of them has a moment to ask and a moment to take the answer,
//! and the slowest goes first: who asks at once is answered, however many are slow.

mod hosts;
mod listen;
mod metrics;
mod page;
mod verdict;

use std::convert::Infallible;
use std::fmt::Write as _;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Path, State};
use axum::http::header::{self, HeaderName, HeaderValue};
use axum::http::{HeaderMap, Request, Response, StatusCode};
use axum::routing::get;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use jiff::Timestamp;
use rustix::net::RecvFlags;
use rustix::process::Resource;
use tokio::io::{AsyncRead, AsyncWrite, Interest};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet, yield_now};
use tokio::time::{Instant, sleep, sleep_until, timeout, timeout_at};

pub use self::hosts::HostAllowList;
use self::listen::Socket;
pub use self::listen::{HttpListener, ListenError, OpenedPlaces, SOCKET_MODE, inherited, look, open};
use crate::status::{NotReady, Status};
use crate::text::{self as words, Repeats};

/// The most connections that are heard at one time at each place. As many more wait in the kernel's queue.
pub const AT_ONCE: usize = 512;
/// And the fewest, where the operating system grants few descriptors.
const AT_LEAST: usize = 64;
/// Descriptors that are left to all else that the daemon does.
const SPARED: usize = 256;
/// While others wait, a connection has this long to ask, and as long again to take its answer. A request is one packet and
/// comes with the connection, and an answer fits into what the kernel keeps for a client; but a client's machine may be busy.
const GRACE: Duration = Duration::from_millis(1250);
/// The same where descriptors have run out.
const SHORT_GRACE: Duration = Duration::from_millis(250);
/// The head of a request has to be complete after this.
const HEAD: Duration = Duration::from_secs(5);
/// A whole connection, from its first byte to the last of the answer.
const CONNECTION: Duration = Duration::from_secs(10);
/// The most that the head of a request may have, in bytes; the smallest that hyper takes.
const HEAD_SIZE: usize = 8192;
/// And the most header lines.
const HEAD_LINES: usize = 64;
/// The wait after the operating system has run out of something, such as file descriptors.
const EXHAUSTED: Duration = Duration::from_millis(500);
/// That it cannot be heard is told once in this time.
const TOLD: Duration = Duration::from_secs(600);
/// What is being answered when the daemon stops has this long.
const LAST_ANSWERS: Duration = Duration::from_secs(1);

/// What there is, for those who ask for something else.
const PATHS: &str = "There is: / (for people), /livez, /readyz, /readyz/NAME, /status (JSON), /metrics (Prometheus).\n";

/// Gives the document of the moment. It is asked for every request: it should be quick, and give the same `Arc` while
/// nothing has changed, because what is made of it is kept as long as that.
pub type Documents = Arc<dyn Fn() -> Arc<Status> + Send + Sync>;

// ---------------------------------------------------------------- connections

/// Answers at these places, of so many in all, until `stop` is true or its sender is gone; what is being answered then may end, for a second.
/// The sockets themselves stay open as long as somebody has copies of the listeners.
///
/// # Errors
/// A socket cannot be handed to the run time. Nothing is answered then.
pub async fn serve(
    listeners: &[HttpListener],
    in_all: usize,
    documents: Documents,
    hosts: HostAllowList,
    mut stop: watch::Receiver<bool>,
) -> io::Result<()> {
    let front = Arc::new(Front { hosts, app: TowerToHyperService::new(router(documents)) });
    let sockets = listeners.iter().map(Acceptor::new).collect::<io::Result<Vec<_>>>()?;
    let at_once = at_once(in_all);
    let mut places = JoinSet::new();
    for socket in sockets {
        places.spawn(place(socket, Arc::clone(&front), at_once, stop.clone()));
    }
    stopped(&mut stop).await;
    while places.join_next().await.is_some() {}
    Ok(())
}

/// A sender that is gone says the same: nobody wants answers any more.
async fn stopped(stop: &mut watch::Receiver<bool>) {
    let _ = stop.wait_for(|stop| *stop).await;
}

enum Acceptor {
    Tcp(TcpListener),
    Unix(UnixListener),
}

enum HttpStream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl HttpStream {
    /// Until the head of a request is there, or what can not become one. It is left in the kernel.
    async fn asks(&self) -> io::Result<()> {
        loop {
            let ready = match self {
                Self::Tcp(stream) => stream.ready(Interest::READABLE).await?,
                Self::Unix(stream) => stream.ready(Interest::READABLE).await?,
            };
            let whole = |socket: BorrowedFd<'_>| {
                let mut head = [0; HEAD_SIZE];
                let (_, length) = rustix::net::recv(socket, &mut head[..], RecvFlags::PEEK)?;
                match ready.is_read_closed() || is_head(&head[..length]) {
                    true => Ok(()),
                    // With this it waits for more.
                    false => Err(io::ErrorKind::WouldBlock.into()),
                }
            };
            let whole = match self {
                Self::Tcp(stream) => stream.try_io(Interest::READABLE, || whole(stream.as_fd())),
                Self::Unix(stream) => stream.try_io(Interest::READABLE, || whole(stream.as_fd())),
            };
            match whole {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                whole => return whole,
            }
        }
    }
}

/// Whether it is all of a head, too much for one, or what none begins with: then there is something to answer.
fn is_head(come: &[u8]) -> bool {
    let ends = |end: &[u8]| come.windows(end.len()).any(|w| w == end);
    come.len() >= HEAD_SIZE || !come.first().is_some_and(u8::is_ascii_alphabetic) || ends(b"\r\n\r\n") || ends(b"\n\n")
}

impl Acceptor {
    fn new(listener: &HttpListener) -> io::Result<Self> {
        match &*listener.socket {
            Socket::Tcp(socket) => socket.try_clone().and_then(TcpListener::from_std).map(Self::Tcp),
            Socket::Unix { listener, .. } => listener.try_clone().and_then(UnixListener::from_std).map(Self::Unix),
        }
    }

    async fn accept(&self) -> io::Result<HttpStream> {
        match self {
            Self::Tcp(listener) => listener.accept().await.map(|(stream, _)| HttpStream::Tcp(stream)),
            Self::Unix(listener) => listener.accept().await.map(|(stream, _)| HttpStream::Unix(stream)),
        }
    }
}

/// How many are heard at one time at each of so many places: a part of the descriptors that this process may have.
fn at_once(places: usize) -> usize {
    let most = rustix::process::getrlimit(Resource::Nofile).current;
    let most = most.map_or(usize::MAX, |most| usize::try_from(most).unwrap_or(usize::MAX));
    (most.saturating_sub(SPARED) / places.max(1)).clamp(AT_LEAST, AT_ONCE)
}

/// The connections of one place.
#[derive(Default)]
struct Connections {
    running: JoinSet<()>,
    /// Some may be over.
    standing: Vec<Connection>,
}

struct Connection {
    task: AbortHandle,
    since: Instant,
    /// When its request was complete.
    asked: Arc<OnceLock<Instant>>,
}

impl Connection {
    /// When the client last did what it is waited for. A byte now and then is not that.
    fn moved(&self) -> Instant {
        self.asked.get().copied().unwrap_or(self.since)
    }
}

impl Connections {
    fn hear(&mut self, stream: HttpStream, front: &Arc<Front>) {
        self.standing.retain(|c| !c.task.is_finished());
        let asked = Arc::new(OnceLock::new());
        let task = self.running.spawn(hear(stream, Arc::clone(front), Arc::clone(&asked)));
        self.standing.push(Connection { task, since: Instant::now(), asked });
    }

    /// Until one may be less: it is over by itself, or it has not moved for longest and has had its time.
    async fn one_less(&mut self, grace: Duration) {
        self.standing.retain(|c| !c.task.is_finished());
        let oldest = self.standing.iter().map(Connection::moved).min().unwrap_or_else(Instant::now);
        tokio::select! {
            Some(_) = self.running.join_next() => return,
            () = sleep_until(oldest + grace) => {}
        }
        // It may be us who were late: what has come meanwhile is read and answered first.
        yield_now().await;
        if self.running.try_join_next().is_some() {
            return;
        }
        let Some(oldest) = self.standing.iter().min_by_key(|c| c.moved()).filter(|c| c.moved().elapsed() >= grace)
        else {
            return;
        };
        oldest.task.abort();
        // Until it is gone indeed, and its descriptor with it.
        let _ = self.running.join_next().await;
    }
}

/// Hears everybody who comes to one place.
async fn place(acceptor: Acceptor, front: Arc<Front>, at_once: usize, mut stop: watch::Receiver<bool>) {
    let mut connections = Connections::default();
    tokio::select! {
        () = stopped(&mut stop) => {}
        () = accept_all(&acceptor, &front, at_once, &mut connections) => {}
    }
    // From here on nobody new is accepted.
    drop(acceptor);
    let _ = timeout(LAST_ANSWERS, async { while connections.running.join_next().await.is_some() {} }).await;
}

async fn accept_all(acceptor: &Acceptor, front: &Arc<Front>, at_once: usize, connections: &mut Connections) {
    let (mut refusals, begun) = (Repeats::new(TOLD), Instant::now());
    loop {
        let accepted = tokio::select! {
            // What has ended gives its memory back.
            Some(_) = connections.running.join_next() => continue,
            accepted = acceptor.accept() => accepted,
        };
        match accepted {
            Ok(stream) => {
                while connections.running.len() >= at_once {
                    connections.one_less(GRACE).await;
                }
                connections.hear(stream, front);
                // Those who have asked are answered before the next one is accepted.
                yield_now().await;
                while connections.running.try_join_next().is_some() {}
            }
            // The client has gone again.
            Err(e) if matches!(e.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset) => {}
            Err(e) => {
                // Out of descriptors or memory: the next try would end the same way at once, and so on without an end.
                if let Some(told) = refusals.happened(&e.to_string(), begun.elapsed()) {
                    tracing::warn!("the health endpoint cannot accept connections: {e}{}", told.words());
                }
                // Linux says so even where nobody waits: then whoever is heard has less time, but no less than it takes.
                match connections.running.is_empty() {
                    true => sleep(EXHAUSTED).await,
                    false => connections.one_less(SHORT_GRACE).await,
                }
            }
        }
    }
}

/// One connection: one request, one answer. Who has not asked yet costs a socket, and no memory for a request.
async fn hear(stream: HttpStream, front: Arc<Front>, asked: Arc<OnceLock<Instant>>) {
    let begun = Instant::now();
    if !matches!(timeout(HEAD, stream.asks()).await, Ok(Ok(()))) {
        return;
    }
    match stream {
        HttpStream::Tcp(stream) => {
            let local = stream.local_addr().ok();
            Box::pin(converse(stream, RequestOrigin::Tcp(local), begun, front, &asked)).await;
        }
        HttpStream::Unix(stream) => Box::pin(converse(stream, RequestOrigin::Unix, begun, front, &asked)).await,
    }
}

/// Where a request came in.
#[derive(Debug, Clone, Copy)]
enum RequestOrigin {
    /// At this address of ours.
    Tcp(Option<SocketAddr>),
    Unix,
}

async fn converse(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    place: RequestOrigin,
    begun: Instant,
    front: Arc<Front>,
    asked: &OnceLock<Instant>,
) {
    let service = service_fn(move |request: Request<Incoming>| {
        let _ = asked.set(Instant::now());
        let front = Arc::clone(&front);
        async move { Ok::<_, Infallible>(front.answer(request, place).await) }
    });
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(HEAD.saturating_sub(begun.elapsed()))
        .max_buf_size(HEAD_SIZE)
        .max_headers(HEAD_LINES);
    // Who scrapes every half minute gains nothing from a connection that stays. Who has said all (`nc -N`) still listens.
    http.keep_alive(false).half_close(true);
    // Whatever went wrong went wrong for the client, who knows it.
    let _ = timeout_at(begun + CONNECTION, http.serve_connection(TokioIo::new(stream), service)).await;
}

// ---------------------------------------------------------------- answers

/// What every request passes.
struct Front {
    hosts: HostAllowList,
    app: TowerToHyperService<Router>,
}

impl Front {
    async fn answer(&self, request: Request<Incoming>, place: RequestOrigin) -> Response<Body> {
        let ours = match place {
            // A browser does not come this way.
            RequestOrigin::Unix => Ok(()),
            RequestOrigin::Tcp(local) => self.hosts.judge(request.uri(), request.headers(), local),
        };
        let mut response = match ours {
            Ok(()) => match self.app.call(request).await {
                Ok(response) => response,
                Err(never) => match never {},
            },
            Err(why) => text(
                StatusCode::MISDIRECTED_REQUEST,
                format!(
                    "misdirected request: it has {why}, and not a name of this host\nfix: ask for localhost, or for an \
                     address that relaykey listens at; or add the name to hosts in [health] of relaykey's configuration\n"
                ),
            ),
        };
        let headers = response.headers_mut();
        for (name, value) in GUARDS {
            headers.insert(name, HeaderValue::from_static(value));
        }
        headers.entry(header::CONTENT_SECURITY_POLICY).or_insert(HeaderValue::from_static(NOTHING));
        response
    }
}

/// What a browser is told of every answer.
const GUARDS: [(HeaderName, &str); 4] = [
    (header::CACHE_CONTROL, "no-store"),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::REFERRER_POLICY, "no-referrer"),
    (header::X_FRAME_OPTIONS, "DENY"),
];
/// The policy of all that is not the page.
const NOTHING: &str = "default-src 'none'; frame-ancestors 'none'";

fn router(documents: Documents) -> Router {
    Router::new()
        .route("/", get(people))
        .route("/livez", get(async || text(StatusCode::OK, "ok\n".to_owned())))
        .route("/readyz", get(ready))
        .route("/readyz/{credential}", get(credential_ready))
        .route("/status", get(status))
        .route("/metrics", get(numbers))
        .method_not_allowed_fallback(async || {
            text(StatusCode::METHOD_NOT_ALLOWED, format!("only GET and HEAD: nothing is changed here\n{PATHS}"))
        })
        .fallback(async || text(StatusCode::NOT_FOUND, format!("there is nothing of that name\n{PATHS}")))
        .with_state(Arc::new(Shelf { documents, kept: Mutex::default() }))
}

/// What was made of the document of the moment: once, whoever asks and however slowly they read.
struct Shelf {
    documents: Documents,
    kept: Mutex<RenderedStatus>,
}

#[derive(Default)]
struct RenderedStatus {
    of: Option<Arc<Status>>,
    json: Option<Bytes>,
    numbers: Option<Bytes>,
    open_numbers: Option<Bytes>,
    /// With the second it was made in: it says how long ago things were.
    page: Option<(i64, Bytes)>,
}

impl Shelf {
    /// Gives what `slot` keeps, made anew where it is of another document.
    fn keep(&self, slot: impl FnOnce(&mut RenderedStatus, &Status) -> Bytes) -> Bytes {
        let now = (self.documents)();
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if !kept.of.as_ref().is_some_and(|of| Arc::ptr_eq(of, &now)) {
            *kept = RenderedStatus { of: Some(Arc::clone(&now)), ..RenderedStatus::default() };
        }
        slot(&mut kept, &now)
    }
}

async fn people(State(shelf): State<Arc<Shelf>>) -> Response<Body> {
    let now = Timestamp::now();
    let body = shelf.keep(|kept, status| match &kept.page {
        Some((second, page)) if *second == now.as_second() => page.clone(),
        _ => {
            let page = Bytes::from(page::render(status, now));
            kept.page = Some((now.as_second(), page.clone()));
            page
        }
    });
    let mut response = answer(StatusCode::OK, "text/html; charset=utf-8", body);
    response.headers_mut().insert(header::CONTENT_SECURITY_POLICY, page::POLICY.clone());
    response
}

async fn status(State(shelf): State<Arc<Shelf>>) -> Response<Body> {
    let body = shelf.keep(|kept, status| {
        let made = || {
            let json = serde_json::to_string_pretty(status).expect("a document of texts and numbers");
            let mut json = words::json(&json).into_owned();
            json.push('\n');
            Bytes::from(json)
        };
        kept.json.get_or_insert_with(made).clone()
    });
    answer(StatusCode::OK, "application/json", body)
}

async fn numbers(State(shelf): State<Arc<Shelf>>, headers: HeaderMap) -> Response<Body> {
    let format = metrics::MetricsFormat::asked_for(&headers);
    let body = shelf.keep(|kept, _| {
        let status = kept.of.clone().unwrap_or_else(|| (shelf.documents)());
        let slot = match format {
            metrics::MetricsFormat::Text => &mut kept.numbers,
            metrics::MetricsFormat::OpenMetrics => &mut kept.open_numbers,
        };
        slot.get_or_insert_with(|| Bytes::from(metrics::render(status, format))).clone()
    });
    answer(StatusCode::OK, format.content_type(), body)
}

async fn ready(State(shelf): State<Arc<Shelf>>) -> Response<Body> {
    let status = (shelf.documents)();
    readiness(status.credentials.iter().flat_map(|c| c.not_ready.iter().map(|n| (c.name.as_str(), n))))
}

async fn credential_ready(State(shelf): State<Arc<Shelf>>, Path(name): Path<String>) -> Response<Body> {
    let status = (shelf.documents)();
    match status.credentials.iter().find(|c| c.name == name) {
        Some(c) => readiness(c.not_ready.iter().map(|n| (c.name.as_str(), n))),
        None => {
            let names: Vec<&str> = status.credentials.iter().map(|c| c.name.as_str()).collect();
            text(
                StatusCode::NOT_FOUND,
                format!("there is no credential of that name; there is: {}\n", names.join(", ")),
            )
        }
    }
}

/// 200, or 503 with each reason, one on a line, and its fix on the next.
fn readiness<'a>(reasons: impl Iterator<Item = (&'a str, &'a NotReady)>) -> Response<Body> {
    let mut said = String::new();
    for (credential, n) in reasons {
        // Some words are those of other servers.
        let (what, fix) = (words::line(&n.what), words::line(&n.fix));
        let _ = writeln!(said, "{credential}: {}: {what}\n  fix: {fix}", n.class);
    }
    match said.is_empty() {
        true => text(StatusCode::OK, "ok\n".to_owned()),
        false => text(StatusCode::SERVICE_UNAVAILABLE, said),
    }
}

fn text(status: StatusCode, body: String) -> Response<Body> {
    answer(status, "text/plain; charset=utf-8", Bytes::from(body))
}

fn answer(status: StatusCode, kind: &'static str, body: Bytes) -> Response<Body> {
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}
