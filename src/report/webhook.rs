//! Webhooks: an HTTPS POST for every report, the report as JSON in its body, signed as the specification *Standard
//! Webhooks* (version 1.0.0, symmetric signatures) says, so that a receiver verifies it with any library for that.
//!
//! ```text
//! secret and CA certificates, read anew ──> addresses of the name ──> judged ──> TCP, TLS ──> POST ──> status
//! ```
//!
//! Whoever answers there is not trusted. Every connection serves one report and is made here, to an address that was
//! judged here ([`forbidden`]): the name is looked up once per attempt, so that it cannot lead elsewhere after it was
//! judged. A redirect is never followed. The time, the answer's head and body and all that comes over the wire are
//! bounded, and only a few printable characters of the answer are shown.
//!
//! No proxy is used, whatever `HTTPS_PROXY` says: a proxy would resolve the name itself, and what was judged here
//! would not be what is reached.
//!
//! Once the status is there the outcome is known; the body adds words to an error and is not waited for longer than a
//! tenth of the time.

mod address;
mod secret;

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1;
use hyper::header::{self, HeaderMap, HeaderValue};
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use jiff::Timestamp;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use self::address::{HookUrl, forbidden};
use self::secret::SigningSecret;
use crate::fault::{Class, Fault};
use crate::net::{self, Lookup, NotConnected};
use crate::report::{Checking, Delivering, Receiver, Whose, printable};
use crate::rollover::Report;
use crate::tls::{self, CaFile, Roots, TrustError};

/// What one attempt may take, from reading the secret to the status. Less than [`super::ATTEMPT`], so that what was waited
/// for is said.
const TIME: Duration = Duration::from_secs(20);
/// The largest head of an answer that is read, in bytes.
const MAX_HEAD: usize = 32 * 1024;
/// What is read of an answer's body, in bytes.
const MAX_BODY: usize = 64 * 1024;
/// What is read from one connection in all, TLS and answers that precede the final one (100 Continue) included.
const MAX_HEARD: usize = 256 * 1024;
/// Characters of an answer that are shown.
const MOST_SHOWN: usize = 200;

/// A receiver of type `webhook`.
pub struct Webhook {
    place: HookUrl,
    secret_file: PathBuf,
    ca_file: Option<PathBuf>,
    limit: Duration,
    lookup: Lookup,
}

impl Webhook {
    /// `url` is an `https` URL. Reads nothing yet.
    ///
    /// # Errors
    /// The URL is none, or not one of `https`.
    pub fn new(url: &str, secret_file: &Path, ca_file: Option<&Path>) -> Result<Self, Fault> {
        Ok(Self {
            place: HookUrl::parse(url)?,
            secret_file: secret_file.to_owned(),
            ca_file: ca_file.map(Path::to_owned),
            limit: TIME,
            lookup: net::SYSTEM,
        })
    }

    /// With another time for an attempt than 20 seconds.
    pub fn with_limit(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    async fn post(&self, report: &Report) -> Result<(), Fault> {
        let deadline = Instant::now() + self.limit;
        let (secret, roots) = self.files(deadline).await?;
        let request = self.request(report, &secret)?;
        let (stream, _) = self.connect(deadline, &roots).await?;
        let answer = self.exchange(deadline, stream, request).await?;
        self.judge(&answer, &secret)
    }

    async fn look(&self) -> Result<String, Fault> {
        let deadline = Instant::now() + self.limit;
        let (secret, roots) = self.files(deadline).await?;
        let (_, address) = self.connect(deadline, &roots).await?;
        let (host, file, bytes) = (&self.place.host, self.secret_file.display(), secret.key.len());
        Ok(format!(
            "{address} shows a good certificate for {host}, and {file} holds a secret of {bytes} bytes; no report was sent, \
             so whether the receiver takes them is not known"
        ))
    }

    /// The secret and the certificates, as they are now.
    async fn files(&self, deadline: Instant) -> Result<(SigningSecret, Roots), Fault> {
        let (secret_file, ca_file) = (self.secret_file.clone(), self.ca_file.clone());
        let reading = tokio::task::spawn_blocking(move || {
            let secret = SigningSecret::read(&secret_file)?;
            Ok((secret, CaFile::new(ca_file).roots()?))
        });
        match self.within(deadline, "the files with its secret and its CA", reading).await? {
            Ok(read) => read,
            Err(broken) => match broken.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                Err(_) => {
                    Err(self.fails(true, Class::Io, "reading its files was broken off", "nothing to do if it passes"))
                }
            },
        }
    }

    fn request(&self, report: &Report, secret: &SigningSecret) -> Result<Request<Full<Bytes>>, Fault> {
        let body = serde_json::to_vec(report).expect("a report has only text keys");
        let sent = Timestamp::now().as_second();
        let signature = secret.sign(&report.id, sent, &body);
        Request::post(&self.place.target)
            .header(header::HOST, &self.place.authority)
            .header(header::USER_AGENT, concat!("relaykey/", env!("CARGO_PKG_VERSION")))
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::CONNECTION, "close")
            .header("webhook-id", &report.id)
            .header("webhook-timestamp", sent)
            .header("webhook-signature", signature)
            .body(Full::new(Bytes::from(body)))
            .map_err(|_| {
                let words = "the report's id, host or credential name cannot stand in a header";
                self.fails(false, Class::Configuration, words, "correct `name` under [host]")
            })
    }

    /// A TLS connection to an address that was judged, and which one that is.
    async fn connect(&self, deadline: Instant, roots: &Roots) -> Result<(TlsStream<Heard>, SocketAddr), Fault> {
        let addresses = self.addresses(deadline).await?;
        let NotConnected { timed_out, tried } = match net::connect(&addresses, deadline).await {
            Ok((socket, address)) => return Ok((self.handshake(deadline, roots, socket).await?, address)),
            Err(e) => e,
        };
        let class = if timed_out { Class::Timeout } else { Class::Network };
        // A name may have any number of addresses.
        let words = format!("cannot connect ({})", printable(tried.as_bytes(), MOST_SHOWN * 2));
        let fix = format!("check that a receiver listens there, and allow outgoing TCP port {}", self.place.port);
        Err(self.fails(true, class, words, fix))
    }

    /// All addresses of the name, if a report may go to every one of them: which one a connection takes is chance.
    async fn addresses(&self, deadline: Instant) -> Result<Vec<SocketAddr>, Fault> {
        let HookUrl { host, port, .. } = &self.place;
        let found = self.within(deadline, "the addresses of its name", net::resolve(self.lookup, host, *port)).await?;
        let addresses = found.map_err(|e| {
            let fix = format!("check the spelling of {host:?} in `url`, and this host's DNS");
            self.fails(true, Class::Network, format!("its name cannot be resolved: {e}"), fix)
        })?;
        if let Some((address, why)) = addresses.iter().find_map(|a| Some((a.ip(), forbidden(a.ip())?))) {
            return Err(self.fails(
                false,
                Class::ForbiddenAddress,
                format!("{host} has the address {address}, and no report is sent there: {why}"),
                "set `url` to a name that has none but the receiver's own addresses; if it should be so already, find out \
                 who changed its DNS",
            ));
        }
        Ok(addresses)
    }

    async fn handshake(&self, deadline: Instant, roots: &Roots, socket: TcpStream) -> Result<TlsStream<Heard>, Fault> {
        let name = ServerName::try_from(self.place.host.clone()).map_err(|_| {
            let words = format!("{:?} is neither a host name nor an address", self.place.host);
            self.fails(false, Class::Configuration, words, "correct `url`")
        })?;
        let mut config = roots.client_config();
        // The name of HTTP/1.1 in ALPN (RFC 7301, section 6).
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        let heard = Heard { socket, left: MAX_HEARD };
        let waiting = "the TLS handshake";
        let connecting = TlsConnector::from(Arc::new(config)).connect(name, heard);
        self.within(deadline, waiting, connecting).await?.map_err(|e| self.lost(&e, waiting))
    }

    /// Sends the request, and gives the final answer to it.
    async fn exchange(
        &self,
        deadline: Instant,
        stream: TlsStream<Heard>,
        request: Request<Full<Bytes>>,
    ) -> Result<HookAnswer, Fault> {
        let waiting = "the answer to the report";
        let (mut sender, connection) = http1::Builder::new()
            .max_buf_size(MAX_HEAD)
            .max_header_size(MAX_HEAD)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(|e| self.lost(&e, waiting))?;
        let talk = async {
            let answer = self.within(deadline, waiting, sender.send_request(request)).await?;
            let (head, body) = answer.map_err(|e| self.lost(&e, waiting))?.into_parts();
            let until = deadline.min(Instant::now() + self.limit / 10);
            Ok(HookAnswer { status: head.status, headers: head.headers, body: beginning(body, until).await })
        };
        // Whatever ends the connection, the talk hears of it.
        let driver = async {
            let _ = connection.await;
            std::future::pending::<()>().await;
        };
        let (talk, driver) = (pin!(talk), pin!(driver));
        tokio::select! {
            answer = talk => answer,
            () = driver => unreachable!("it waits for ever"),
        }
    }

    /// What the final answer means (RFC 9110, section 15; 425 is from RFC 8470, 429 from RFC 6585).
    fn judge(&self, answer: &HookAnswer, secret: &SigningSecret) -> Result<(), Fault> {
        let status = answer.status;
        if status.is_success() {
            return Ok(());
        }
        // What its status line calls it is its own invention.
        let mut words = format!("it answered {}", status.as_u16());
        if let Some(reason) = status.canonical_reason() {
            words = format!("{words} {reason}");
        }
        if status.is_redirection() {
            let to =
                answer.redirect().map_or_else(String::new, |to| format!(", which leads to \"{}\"", secret.hide(&to)));
            let fix = "redirects are never followed: set `url` to the address that takes reports itself";
            return Err(self.fails(false, Class::Redirect, format!("{words}{to}"), fix));
        }
        if let (429 | 503, Some(seconds)) = (status.as_u16(), answer.retry_after()) {
            words = format!("{words} and asks to be left alone for {seconds} s");
        }
        let said = secret.hide(&printable(&answer.body, MOST_SHOWN * 10));
        if !said.is_empty() {
            words = format!("{words}: \"{}\"", printable(said.as_bytes(), MOST_SHOWN));
        }
        let secret_file = self.secret_file.display();
        let (temporary, class, fix) = match status.as_u16() {
            429 => (
                true,
                Class::Throttled,
                "nothing to do if it passes; if it stays, the receiver takes too few requests".into(),
            ),
            408 | 425 | 500..=599 => {
                (true, Class::Service, "nothing to do if it passes; if it stays, look at the receiver's log".into())
            }
            401 | 403 => (
                false,
                Class::AccessDenied,
                format!(
                    "check that {secret_file} holds the secret that the receiver knows, and that both clocks are right"
                ),
            ),
            404 | 410 => (false, Class::NotFound, "check the path in `url`: nobody takes reports there".into()),
            413 => (false, Class::TooLarge, "let the receiver take larger requests, a few hundred kilobytes".into()),
            400..=499 => {
                (false, Class::Refused, "read the receiver's words and its log: it must answer 2xx to a report".into())
            }
            _ => (
                false,
                Class::Http,
                "this is no final status of HTTP: check that `url` leads to a webhook receiver".into(),
            ),
        };
        Err(self.fails(temporary, class, words, fix))
    }

    async fn within<T>(&self, deadline: Instant, waiting: &str, step: impl Future<Output = T>) -> Result<T, Fault> {
        timeout_at(deadline, step).await.map_err(|_| {
            let words = format!("gave up after {:?}, waiting for {waiting}", self.limit);
            let fix = "check that this host reaches it, and how long the receiver takes: it should answer first and work then";
            self.fails(true, Class::Timeout, words, fix)
        })
    }

    /// What an error of the socket, TLS or HTTP means, while waiting for something.
    fn lost(&self, error: &(dyn std::error::Error + 'static), waiting: &str) -> Fault {
        if let Some(tls) = tls::cause::<rustls::Error>(error) {
            return self.tls_failure(tls);
        }
        let no_http = "check that `url` leads to a webhook receiver: this is not how one answers";
        let io = tls::cause::<io::Error>(error);
        if io.is_some_and(|e| e.get_ref().is_some_and(|inner| inner.is::<TooMuch>())) {
            let words = format!("it sent more than {MAX_HEARD} bytes, and still not {waiting}");
            return self.fails(false, Class::Http, words, no_http);
        }
        if let Some(http) = tls::cause::<hyper::Error>(error).filter(|e| e.is_parse()) {
            let words = if http.is_parse_too_large() {
                format!("the head of its answer is larger than {MAX_HEAD} bytes or has too many lines")
            } else {
                format!("what came instead of {waiting} is not HTTP")
            };
            return self.fails(false, Class::Http, words, no_http);
        }
        let cut = |e: &&io::Error| e.kind() == io::ErrorKind::UnexpectedEof;
        let closed = io.as_ref().is_some_and(cut)
            || tls::cause::<hyper::Error>(error).is_some_and(hyper::Error::is_incomplete_message);
        let words = match io {
            _ if closed => format!("it closed the connection, waiting for {waiting}"),
            Some(e) => format!("{}, waiting for {waiting}", printable(e.to_string().as_bytes(), MOST_SHOWN)),
            None => format!("{}, waiting for {waiting}", printable(error.to_string().as_bytes(), MOST_SHOWN)),
        };
        self.fails(true, Class::Network, words, "nothing to do if it passes; if it stays, look at the receiver's log")
    }

    fn tls_failure(&self, error: &rustls::Error) -> Fault {
        let (words, fix) = match error {
            rustls::Error::InvalidCertificate(problem) => tls::explain(problem, &self.place.host, "url", None),
            rustls::Error::InvalidMessage(_) => {
                let fix = format!("set `url` to a port that speaks TLS: {} does not", self.place.port);
                ("what it sends is not TLS".to_owned(), fix)
            }
            other => (
                format!("TLS failed: {}", tls::failed(other)),
                "the receiver must speak TLS 1.2 or 1.3; look for a proxy on the way that changes TLS".to_owned(),
            ),
        };
        // Names in a certificate are as long as whoever made it wanted.
        self.fails(false, Class::Tls, printable(words.as_bytes(), MOST_SHOWN * 2), fix)
    }

    fn fails(&self, temporary: bool, class: Class, words: impl std::fmt::Display, fix: impl Into<String>) -> Fault {
        Fault { temporary, ..Fault::new(class, format!("{}: {words}", self.describe()), fix) }
    }
}

impl Receiver for Webhook {
    fn deliver<'a>(&'a self, report: &'a Report) -> Delivering<'a> {
        Box::pin(self.post(report))
    }

    fn check<'a>(&'a self, _: &'a Whose) -> Checking<'a> {
        Box::pin(self.look())
    }

    /// Without the query, which may hold a token.
    fn describe(&self) -> String {
        format!("webhook {}", self.place.shown)
    }
}

impl From<TrustError> for Fault {
    fn from(e: TrustError) -> Self {
        Fault::new(Class::Trust, e.to_string(), e.fix()).temporary_if(e.is_temporary())
    }
}

/// The final answer to a report.
struct HookAnswer {
    status: StatusCode,
    headers: HeaderMap<HeaderValue>,
    /// What came of it in time, at most [`MAX_BODY`].
    body: Vec<u8>,
}

impl HookAnswer {
    /// Where a redirect leads, without the query, which may hold a token.
    fn redirect(&self) -> Option<String> {
        let location = self.headers.get(header::LOCATION)?.as_bytes();
        let end = location.iter().position(|b| matches!(b, b'?' | b'#')).unwrap_or(location.len());
        Some(printable(&location[..end], MOST_SHOWN))
    }

    /// The seconds form of Retry-After (RFC 9110, section 10.2.3); it is for people: back-off is the caller's.
    fn retry_after(&self) -> Option<u32> {
        self.headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()
    }
}

/// What arrives of a body until then. That it stops half-way changes nothing: the status is there.
async fn beginning(mut body: Incoming, until: Instant) -> Vec<u8> {
    let mut bytes = Vec::new();
    while bytes.len() < MAX_BODY {
        let Ok(Some(Ok(frame))) = timeout_at(until, body.frame()).await else { break };
        if let Some(data) = frame.data_ref() {
            bytes.extend_from_slice(&data[..data.len().min(MAX_BODY - bytes.len())]);
        }
    }
    bytes
}

#[derive(Debug, thiserror::Error)]
#[error("more than {MAX_HEARD} bytes")]
struct TooMuch;

/// A connection from which no more than so many bytes are taken.
#[derive(Debug)]
struct Heard {
    socket: TcpStream,
    left: usize,
}

impl AsyncRead for Heard {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.socket).poll_read(cx, buf))?;
        let count = buf.filled().len() - before;
        self.left = self.left.checked_sub(count).ok_or_else(|| io::Error::other(TooMuch))?;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Heard {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::os::unix::fs::PermissionsExt;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::report::tests::report;

    pub const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

    fn webhook(url: &str) -> Webhook {
        Webhook::new(url, Path::new("/nonexistent/secret"), None).expect("a webhook")
    }

    /// A directory of its own, 0700, gone at the end.
    pub struct HookDirectory(pub tempfile::TempDir);

    impl HookDirectory {
        pub fn new() -> Self {
            Self(
                tempfile::Builder::new()
                    .prefix("relaykey-webhook-")
                    .permissions(std::fs::Permissions::from_mode(0o700))
                    .tempdir()
                    .unwrap(),
            )
        }

        pub fn file(&self, name: &str, content: &[u8], mode: u32) -> PathBuf {
            let path = self.0.path().join(name);
            std::fs::write(&path, content).expect("write");
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).expect("chmod");
            path
        }
    }

    /// Trusts nobody that a test meets.
    fn roots(dir: &HookDirectory) -> Roots {
        let key = rcgen::KeyPair::generate().expect("a key");
        let mut params = rcgen::CertificateParams::new(Vec::new()).expect("parameters");
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let ca = params.self_signed(&key).expect("a certificate");
        Roots::from_file(&dir.file("ca.pem", ca.pem().as_bytes(), 0o600)).expect("roots")
    }

    /// What the resolver of a test says: the trap's port comes with the question.
    fn trap_and(other: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        let address = |text: &str| SocketAddr::new(text.parse().expect("an address"), port);
        Ok(vec![address("127.0.0.1"), address(other)])
    }

    #[tokio::test]
    async fn a_name_with_one_forbidden_address_is_not_reached_at_any() {
        let trap = TcpListener::bind("127.0.0.1:0").expect("a port");
        trap.set_nonblocking(true).expect("non-blocking");
        let port = trap.local_addr().expect("an address").port();
        let roots = roots(&HookDirectory::new());
        let lookups: [Lookup; 5] = [
            |_, port| trap_and("169.254.169.254", port),
            |_, port| trap_and("::ffff:169.254.169.254", port),
            |_, port| trap_and("fe80::1", port),
            |_, port| trap_and("fd00:ec2::254", port),
            |_, port| trap_and("0.0.0.0", port),
        ];
        for lookup in lookups {
            let hook = Webhook { lookup, ..webhook(&format!("https://hooks.example.com:{port}/x?token=hunter2")) };
            let deadline = Instant::now() + Duration::from_secs(10);
            let Err(e) = hook.connect(deadline, &roots).await else { panic!("connected") };
            assert_eq!((e.class.word(), e.temporary), ("forbidden-address", false), "{e:?}");
            assert!(e.what.contains("hooks.example.com has the address") && !e.what.contains("hunter2"), "{e:?}");
        }
        assert_eq!(trap.accept().map(drop).map_err(|e| e.kind()), Err(io::ErrorKind::WouldBlock), "a trap was reached");
    }

    #[tokio::test]
    async fn a_name_that_changes_its_mind_is_asked_once() {
        static ASKED: AtomicUsize = AtomicUsize::new(0);
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        // The first answer is judged; a second would lead elsewhere.
        let lookup: Lookup = |_, port| {
            let address = if ASKED.fetch_add(1, Ordering::SeqCst) == 0 { "127.0.0.1" } else { "169.254.169.254" };
            Ok(vec![SocketAddr::new(address.parse().expect("an address"), port)])
        };
        let hook = Webhook { lookup, ..webhook(&format!("https://rebinds.example.com:{port}/")) };
        let roots = roots(&HookDirectory::new());
        let ((), connected) = tokio::join!(
            async {
                let (socket, _) = listener.accept().await.expect("a connection");
                drop(socket);
            },
            hook.connect(Instant::now() + Duration::from_secs(10), &roots)
        );
        let Err(e) = connected else { panic!("there is no TLS") };
        assert_eq!((e.class.word(), e.temporary, ASKED.load(Ordering::SeqCst)), ("network", true, 1), "{e:?}");
    }

    #[tokio::test]
    async fn a_resolver_that_hangs_is_left_behind() {
        let lookup: Lookup = |_, _| {
            std::thread::sleep(Duration::from_secs(5));
            Ok(Vec::new())
        };
        let hook = Webhook { lookup, ..webhook("https://slow.example.com/") };
        let began = Instant::now();
        let e = hook.addresses(began + Duration::from_millis(100)).await.expect_err("no answer");
        assert_eq!((e.class.word(), e.temporary), ("timeout", true), "{e:?}");
        assert!(e.what.contains("the addresses of its name") && began.elapsed() < Duration::from_secs(4), "{e:?}");
    }

    #[test]
    fn statuses_mean_what_http_says() {
        let hook = webhook("https://a.example/x");
        let secret = SigningSecret::parse(SECRET.as_bytes()).expect("a secret");
        let ask = |status: u16, headers: &[(&'static str, &str)], body: &[u8]| {
            let mut map = HeaderMap::new();
            for (name, value) in headers {
                map.insert(*name, HeaderValue::from_bytes(value.as_bytes()).expect("a value"));
            }
            let status = StatusCode::from_u16(status).expect("a status");
            hook.judge(&HookAnswer { status, headers: map, body: body.to_vec() }, &secret)
        };
        for status in [200, 201, 202, 204, 299] {
            assert_eq!(ask(status, &[("location", "https://b.example")], b"no"), Ok(()), "{status}");
        }
        for (status, class, temporary) in [
            (101, "http", false),
            (300, "redirect", false),
            (304, "redirect", false),
            (308, "redirect", false),
            (400, "refused", false),
            (401, "access-denied", false),
            (403, "access-denied", false),
            (404, "not-found", false),
            (408, "service", true),
            (410, "not-found", false),
            (413, "too-large", false),
            (422, "refused", false),
            (425, "service", true),
            (429, "throttled", true),
            (500, "service", true),
            (503, "service", true),
            (599, "service", true),
            (600, "http", false),
            (999, "http", false),
        ] {
            let e = ask(status, &[], b"").expect_err("an error");
            assert_eq!((e.class.word(), e.temporary), (class, temporary), "{status}");
            assert!(e.what.contains(&format!("it answered {status}")) && !e.fix.is_empty(), "{e:?}");
        }
        let e = ask(302, &[("location", "https://b.example/p?token=hunter2#x")], b"").expect_err("a redirect");
        assert!(e.what.ends_with("302 Found, which leads to \"https://b.example/p\""), "{e:?}");
        let e =
            ask(301, &[("location", &format!("https://b.example/{}", "x".repeat(5000)))], b"").expect_err("a redirect");
        assert!(e.what.chars().count() < 320 && e.what.ends_with("…\""), "{e:?}");
        for (value, says) in [("120", true), ("99999999999", false), ("Wed, 21 Oct 2015 07:28:00 GMT", false)] {
            let e = ask(503, &[("retry-after", value)], b"").expect_err("later");
            assert_eq!(e.what.contains("alone for 120 s"), says, "{e:?}");
        }
    }

    #[test]
    fn of_an_answer_little_is_shown_and_nothing_of_the_secret() {
        let hook = webhook("https://a.example/x");
        let secret = SigningSecret::parse(SECRET.as_bytes()).expect("a secret");
        let said = |body: &[u8]| {
            let (status, headers) = (StatusCode::BAD_REQUEST, HeaderMap::new());
            hook.judge(&HookAnswer { status, headers, body: body.to_vec() }, &secret).expect_err("refused").what
        };
        assert!(said(b"no\x1b[31m\x07\r\n\0 way\xe2\x80\xae!").ends_with(": \"no [31m way !\""));
        let long = said("ä".repeat(40_000).as_bytes());
        assert!(long.chars().count() < 300 && long.ends_with("ä…\""), "{long}");
        let echoed = said(format!("expected {SECRET}, and not {}", &SECRET[6..20]).as_bytes());
        assert!(!echoed.contains("MfKQ") && !echoed.contains("TwjU") && echoed.contains("***"), "{echoed}");
        assert!(said(b"").ends_with("400 Bad Request"));
    }

    #[test]
    fn its_name_for_people_has_no_query() {
        assert_eq!(webhook("https://a.example/x?token=1").describe(), "webhook https://a.example/x");
    }

    #[test]
    fn a_request_is_a_signed_post() {
        let hook = webhook("https://a.example:8443/x?y=1");
        let secret = SigningSecret::parse(SECRET.as_bytes()).expect("a secret");
        let request = hook.request(&report(3), &secret).expect("a request");
        assert_eq!((request.method().as_str(), request.uri().to_string().as_str()), ("POST", "/x?y=1"));
        let header = |name: &str| request.headers()[name].to_str().expect("text").to_owned();
        assert_eq!(header("host"), "a.example:8443");
        assert_eq!(header("webhook-id"), report(3).id);
        assert!(header("webhook-timestamp").parse::<i64>().is_ok_and(|t| t > 1_700_000_000));
        let mut broken = report(3);
        broken.id = "a\r\nx: y".into();
        let e = hook.request(&broken, &secret).expect_err("no header");
        assert_eq!((e.class.word(), e.temporary), ("configuration", false));
    }
}
