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
//! place only so many have not asked yet, and only so many take their answer, at a time. Where there are more, the longest
//! standing one goes at once: who is slow delays nobody.

mod hosts;
mod listen;
mod metrics;
mod page;
mod verdict;

use std::collections::VecDeque;
use std::convert::Infallible;
use std::fmt::Write as _;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
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
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet, yield_now};
use tokio::time::{Instant, sleep, sleep_until, timeout};

pub use self::hosts::HostAllowList;
use self::listen::Socket;
pub use self::listen::{ListenError, Listener, SOCKET_MODE, inherited, open};
use crate::status::{NotReady, Status};
use crate::text::{self as words, Repeats};

/// Connections that stand at one time at each place and have not asked yet.
const UNASKED: usize = 192;
/// And those that have asked, and take their answer.
const ANSWERED: usize = 64;
/// Connections of both kinds, and one that is being accepted.
pub const AT_ONCE: usize = UNASKED + ANSWERED + 1;
/// Where descriptors have run out, a connection has this long before it has to go for another.
const GRACE: Duration = Duration::from_millis(250);
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

/// Answers at every place until `stop` is true or its sender is gone; what is being answered then may end, for a second.
/// The sockets themselves stay open as long as somebody has copies of the listeners.
///
/// # Errors
/// A socket cannot be handed to the run time. Nothing is answered then.
pub async fn serve(
    listeners: &[Listener],
    documents: Documents,
    hosts: HostAllowList,
    mut stop: watch::Receiver<bool>,
) -> io::Result<()> {
    let front = Arc::new(Front { hosts, app: TowerToHyperService::new(router(documents)) });
    let sockets = listeners.iter().map(Acceptor::new).collect::<io::Result<Vec<_>>>()?;
    let mut places = JoinSet::new();
    for socket in sockets {
        places.spawn(place(socket, Arc::clone(&front), stop.clone()));
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

enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Acceptor {
    fn new(listener: &Listener) -> io::Result<Self> {
        match &*listener.socket {
            Socket::Tcp(socket) => socket.try_clone().and_then(TcpListener::from_std).map(Self::Tcp),
            Socket::Unix { listener, .. } => listener.try_clone().and_then(UnixListener::from_std).map(Self::Unix),
        }
    }

    async fn accept(&self) -> io::Result<Stream> {
        match self {
            Self::Tcp(listener) => listener.accept().await.map(|(stream, _)| Stream::Tcp(stream)),
            Self::Unix(listener) => listener.accept().await.map(|(stream, _)| Stream::Unix(stream)),
        }
    }
}

/// The connections of one place: those that have not asked yet, and those whose answer is being taken. Each kind has a number
/// of its own, so that clients who do not read hold up nobody who asks, and clients who do not ask hold up no answer.
#[derive(Default)]
struct Connections {
    running: JoinSet<()>,
    /// The oldest first. Some may be over.
    standing: VecDeque<Connection>,
}

struct Connection {
    task: AbortHandle,
    since: Instant,
    /// Its request is complete.
    asked: Arc<AtomicBool>,
}

impl Connections {
    fn hear(&mut self, stream: Stream, front: &Arc<Front>) {
        let asked = Arc::new(AtomicBool::new(false));
        let task = self.running.spawn(hear(stream, Arc::clone(front), Arc::clone(&asked)));
        self.standing.push_back(Connection { task, since: Instant::now(), asked });
    }

    /// Where too many stand, those of a kind that have stood longest go, at once: whoever comes next has not to wait for them.
    /// A request is one packet and comes with the connection, and an answer fits into what the kernel keeps for a client: who
    /// still stands when so many have come after them takes their time.
    fn make_room(&mut self) {
        self.standing.retain(|c| !c.task.is_finished());
        for (asked, most) in [(false, UNASKED), (true, ANSWERED)] {
            let of_kind = |c: &Connection| c.asked.load(Ordering::Relaxed) == asked;
            let mut too_many = self.standing.iter().filter(|c| of_kind(c)).count().saturating_sub(most - 1);
            self.standing.retain(|c| {
                let goes = too_many > 0 && of_kind(c);
                if goes {
                    too_many -= 1;
                    c.task.abort();
                }
                !goes
            });
        }
    }

    /// Until one is over: by itself, or because it stands longest and has had its time.
    async fn one_less(&mut self) {
        self.standing.retain(|c| !c.task.is_finished());
        let oldest = self.standing.front().map_or_else(Instant::now, |c| c.since);
        tokio::select! {
            Some(_) = self.running.join_next() => return,
            () = sleep_until(oldest + GRACE) => {}
        }
        if let Some(oldest) = self.standing.pop_front() {
            oldest.task.abort();
        }
        // Until it is gone indeed, and its descriptor with it.
        let _ = self.running.join_next().await;
    }
}

/// Hears everybody who comes to one place.
async fn place(acceptor: Acceptor, front: Arc<Front>, mut stop: watch::Receiver<bool>) {
    let mut connections = Connections::default();
    tokio::select! {
        () = stopped(&mut stop) => {}
        () = accept_all(&acceptor, &front, &mut connections) => {}
    }
    // From here on nobody new is accepted.
    drop(acceptor);
    let _ = timeout(LAST_ANSWERS, async { while connections.running.join_next().await.is_some() {} }).await;
}

async fn accept_all(acceptor: &Acceptor, front: &Arc<Front>, connections: &mut Connections) {
    let (mut refusals, begun) = (Repeats::new(TOLD), Instant::now());
    loop {
        let accepted = tokio::select! {
            // What has ended gives its memory back.
            Some(_) = connections.running.join_next() => continue,
            accepted = acceptor.accept() => accepted,
        };
        match accepted {
            Ok(stream) => {
                connections.make_room();
                connections.hear(stream, front);
                // Those who have asked are answered before the next one is accepted, and what has to go is gone.
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
                    false => connections.one_less().await,
                }
            }
        }
    }
}

/// One connection: one request, one answer.
async fn hear(stream: Stream, front: Arc<Front>, asked: Arc<AtomicBool>) {
    match stream {
        Stream::Tcp(stream) => {
            let local = stream.local_addr().ok();
            converse(stream, Place::Tcp(local), front, &asked).await;
        }
        Stream::Unix(stream) => converse(stream, Place::Unix, front, &asked).await,
    }
}

/// Where a request came in.
#[derive(Debug, Clone, Copy)]
enum Place {
    /// At this address of ours.
    Tcp(Option<SocketAddr>),
    Unix,
}

async fn converse(stream: impl AsyncRead + AsyncWrite + Unpin, place: Place, front: Arc<Front>, asked: &AtomicBool) {
    let service = service_fn(move |request: Request<Incoming>| {
        asked.store(true, Ordering::Relaxed);
        let front = Arc::clone(&front);
        async move { Ok::<_, Infallible>(front.answer(request, place).await) }
    });
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEAD).max_buf_size(HEAD_SIZE).max_headers(HEAD_LINES);
    // Who scrapes every half minute gains nothing from a connection that stays. Who has said all (`nc -N`) still listens.
    http.keep_alive(false).half_close(true);
    // Whatever went wrong went wrong for the client, who knows it.
    let _ = timeout(CONNECTION, http.serve_connection(TokioIo::new(stream), service)).await;
}

// ---------------------------------------------------------------- answers

/// What every request passes.
struct Front {
    hosts: HostAllowList,
    app: TowerToHyperService<Router>,
}

impl Front {
    async fn answer(&self, request: Request<Incoming>, place: Place) -> Response<Body> {
        let ours = match place {
            // A browser does not come this way.
            Place::Unix => Ok(()),
            Place::Tcp(local) => self.hosts.judge(request.uri(), request.headers(), local),
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
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    of: Option<Arc<Status>>,
    json: Option<Bytes>,
    numbers: Option<Bytes>,
    open_numbers: Option<Bytes>,
    /// With the second it was made in: it says how long ago things were.
    page: Option<(i64, Bytes)>,
}

impl Shelf {
    /// Gives what `slot` keeps, made anew where it is of another document.
    fn keep(&self, slot: impl FnOnce(&mut Kept, &Status) -> Bytes) -> Bytes {
        let now = (self.documents)();
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if !kept.of.as_ref().is_some_and(|of| Arc::ptr_eq(of, &now)) {
            *kept = Kept { of: Some(Arc::clone(&now)), ..Kept::default() };
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
    let format = metrics::Format::asked_for(&headers);
    let body = shelf.keep(|kept, _| {
        let status = kept.of.clone().unwrap_or_else(|| (shelf.documents)());
        let slot = match format {
            metrics::Format::Text => &mut kept.numbers,
            metrics::Format::OpenMetrics => &mut kept.open_numbers,
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
