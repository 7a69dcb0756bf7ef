//! A stand-in for the SMTP endpoint of Amazon SES, in this process, on loopback: what `relaykey demo`, the tests and
//! the benchmark log in at and send to.
//!
//! It speaks as SES does as far as a mail relay can tell: greeting, extensions, STARTTLS on one port and TLS from the
//! first byte on the other, AUTH PLAIN and LOGIN inside TLS only, SES's reply texts (SES developer guide, "SMTP
//! response codes"), the limits on lines, messages and connections. Keys can be added, deactivated, made to work only
//! after a while as new IAM keys do, or be denied sending; faults happen on request. It records who logged in and what
//! was sent. It never records a password.
//!
//! How it differs from SES: it delivers nothing; any sender address is good that was not said to be unverified; there are
//! no sending quotas or suppression lists; AUTH is not announced before TLS; one message may have 1000 recipients; its certificate comes
//! from a CA that is made at the start and forgotten at the end.

mod dialogue;
pub mod postfix;

use std::collections::{HashMap, HashSet, VecDeque};
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener as StdListener};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use self::dialogue::{Port, accept};
use crate::credential::Secret;

/// So many of the latest logins and messages are kept.
const KEPT: usize = 10_000;

/// How a stand-in is set up.
#[derive(Debug, Clone)]
pub struct Options {
    /// Names and addresses that its certificate is for.
    pub names: Vec<String>,
    /// The certificate expired long ago.
    pub expired: bool,
    /// The ways of logging in that it offers.
    pub mechanisms: &'static [Mechanism],
    /// A client that takes longer than this for a line, a part of a message or the TLS handshake is sent away.
    pub patience: Duration,
    /// The connection after so many open ones is answered with 421.
    pub max_connections: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            names: ["localhost", "127.0.0.1", "email-smtp.us-east-1.amazonaws.com"].map(str::to_owned).to_vec(),
            expired: false,
            mechanisms: &[Mechanism::Plain, Mechanism::Login],
            patience: Duration::from_secs(60),
            max_connections: 100,
        }
    }
}

/// A way of logging in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mechanism {
    Plain,
    Login,
}

/// How long a key is refused although it is right.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delay {
    /// So many times.
    Refusals(u32),
    /// Until then.
    Until(Instant),
}

/// What goes wrong on request; each happens as often as it was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Misbehavior {
    /// 454 in answer to AUTH.
    Reply454,
    /// The connection is closed before the greeting.
    DropAtConnect,
    /// The connection is closed in answer to AUTH.
    DropAfterAuth,
    /// No greeting comes.
    HangAtBanner,
    /// No answer to AUTH comes.
    HangAtAuth,
    /// 454 in answer to a message: the account sends too fast.
    Throttle,
    /// 451 in answer to RCPT.
    RecipientLater,
    /// 550 in answer to RCPT.
    RecipientNever,
    /// No answer to a message comes.
    HangAtData,
    /// No answer to QUIT comes.
    HangAtQuit,
    /// The greeting is not SMTP.
    Garbage,
    /// Half an answer to AUTH, then the connection is closed.
    CutReply,
    /// A 535 that quotes what the client sent: whole, cut short, and decoded.
    EchoAuth,
    /// A 554 in answer to a message, which quotes the password: as it is, and as AUTH PLAIN has it.
    EchoAtData,
    /// STARTTLS is not offered.
    NoStarttls,
    /// An answer to AUTH that does not end for two megabytes.
    HugeReply,
    /// With the answer to STARTTLS come, still in plain text, answers to EHLO and AUTH: what somebody on the path to
    /// the server could do.
    InjectReplies,
}

/// One attempt to log in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoginAttempt {
    pub username: String,
    pub accepted: bool,
    pub at: Timestamp,
    pub tls: bool,
    pub mechanism: Mechanism,
}

/// One message that was taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TakenMessage {
    /// As the answer to the client named it.
    pub id: String,
    /// Who had logged in.
    pub username: String,
    /// Envelope sender and recipients, without brackets.
    pub from: String,
    pub to: Vec<String>,
    pub at: Timestamp,
    /// Bytes, as sent.
    pub size: usize,
    /// The `Subject` header field's first line; empty where there is none.
    pub subject: String,
    /// Header and body, the first 64 KiB.
    pub text: Vec<u8>,
}

/// What was seen so far: the latest 10,000 logins and messages, and counters of everything.
#[derive(Debug, Clone, Default)]
pub struct StandinRecord {
    pub logins: VecDeque<LoginAttempt>,
    pub messages: VecDeque<TakenMessage>,
    pub connections: u64,
    /// How often a client said QUIT.
    pub quits: u64,
    /// How many messages were taken since the start.
    pub taken: u64,
}

/// What was waited for did not come about in time.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("waited {waited:?} in vain for {what} at the SES stand-in")]
pub struct WaitError {
    pub what: String,
    pub waited: Duration,
}

/// A running stand-in. Dropping it closes its ports and ends its thread.
pub struct Standin {
    shared: Arc<StandinShared>,
    starttls_port: u16,
    implicit_port: u16,
    ca_pem: String,
    stop: Option<tokio::sync::oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Standin {
    /// Makes a CA and a certificate, takes two free ports on 127.0.0.1 and starts to serve them on a thread of its own.
    ///
    /// # Errors
    /// A name in the options is neither a host name nor an address, or there is no port or thread to be had.
    pub fn start(options: Options) -> io::Result<Self> {
        let (config, ca_pem) = certify(&options).map_err(io::Error::other)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build()?;
        let listen = || {
            let listener = StdListener::bind((Ipv4Addr::LOCALHOST, 0))?;
            listener.set_nonblocking(true)?;
            let _inside = runtime.enter();
            io::Result::Ok((listener.local_addr()?.port(), TcpListener::from_std(listener)?))
        };
        let ((starttls_port, starttls), (implicit_port, implicit)) = (listen()?, listen()?);
        let shared = Arc::new(StandinShared {
            state: Mutex::default(),
            changed: Condvar::new(),
            acceptor: TlsAcceptor::from(Arc::new(config)),
            options,
        });
        let (stop, stopped) = tokio::sync::oneshot::channel();
        let serving = Arc::clone(&shared);
        let thread = std::thread::Builder::new().name("ses-standin".into()).spawn(move || {
            runtime.spawn(accept(Arc::clone(&serving), starttls, Port::Starttls));
            runtime.spawn(accept(serving, implicit, Port::Implicit));
            // Either value means the end: that it was said, or that the one who could say it is gone.
            let _ = runtime.block_on(stopped);
            // The run time goes here, and with it every connection, also one that hangs on request.
        })?;
        Ok(Self { shared, starttls_port, implicit_port, ca_pem, stop: Some(stop), thread: Some(thread) })
    }

    /// The port that begins in plain text.
    pub fn starttls_port(&self) -> u16 {
        self.starttls_port
    }

    /// The port that speaks TLS from the first byte.
    pub fn implicit_port(&self) -> u16 {
        self.implicit_port
    }

    /// The certificate of the CA, for a `ca_file`.
    pub fn ca_pem(&self) -> &str {
        &self.ca_pem
    }

    /// Adds a key, or gives it another password; it is active, and no longer delayed or denied.
    pub fn set_key(&self, username: &str, password: &Secret) {
        let mut state = self.shared.lock();
        state.keys.insert(username.to_owned(), password.clone());
        state.inactive.remove(username);
        state.denied.remove(username);
        state.delays.remove(username);
    }

    /// Was this key added, and not removed?
    pub fn has_key(&self, username: &str) -> bool {
        self.shared.lock().keys.contains_key(username)
    }

    /// Refuses the key from now on, as after its deactivation in IAM. Sessions that have logged in stay.
    pub fn deactivate(&self, username: &str) {
        self.shared.lock().inactive.insert(username.to_owned());
    }

    /// Takes a deactivation back.
    pub fn activate(&self, username: &str) {
        self.shared.lock().inactive.remove(username);
    }

    /// Forgets the key.
    pub fn remove(&self, username: &str) {
        self.shared.lock().keys.remove(username);
    }

    /// Refuses the key for a while, as SES does with a new one until IAM has told it.
    pub fn delay(&self, username: &str, delay: Delay) {
        self.shared.lock().delays.insert(username.to_owned(), delay);
    }

    /// Lets the key log in but answers each message with 554, as when the IAM policy lacks `ses:SendRawEmail`.
    pub fn deny_sending(&self, username: &str) {
        self.shared.lock().denied.insert(username.to_owned());
    }

    /// Answers each message from this sender with 554, as for an identity that is not verified in the region.
    pub fn unverify(&self, sender: &str) {
        self.shared.lock().unverified.insert(sender.to_owned());
    }

    /// Makes the fault happen the next `count` times that there is an occasion for it.
    pub fn fault(&self, fault: Misbehavior, count: u32) {
        self.shared.lock().faults.push((fault, count));
    }

    /// The logins so far, oldest first.
    pub fn logins(&self) -> Vec<LoginAttempt> {
        self.shared.lock().seen.logins.iter().cloned().collect()
    }

    /// The messages so far, oldest first.
    pub fn messages(&self) -> Vec<TakenMessage> {
        self.shared.lock().seen.messages.iter().cloned().collect()
    }

    /// Waits until `condition` finds what it looks for in what was seen, and gives that; `what` names it. The condition
    /// must not ask the stand-in itself.
    ///
    /// # Errors
    /// It was not there after `limit`.
    pub fn wait_for<T>(
        &self,
        limit: Duration,
        what: &str,
        mut condition: impl FnMut(&StandinRecord) -> Option<T>,
    ) -> Result<T, WaitError> {
        let begun = Instant::now();
        let mut state = self.shared.lock();
        loop {
            if let Some(found) = condition(&state.seen) {
                return Ok(found);
            }
            let Some(left) = limit.checked_sub(begun.elapsed()) else {
                return Err(WaitError { what: what.to_owned(), waited: limit });
            };
            state = self.shared.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

/// Where the stand-in listens, for a person: `127.0.0.1:PORT`.
impl std::fmt::Debug for Standin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let at = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        write!(f, "Standin({} STARTTLS, {} TLS)", at(self.starttls_port), at(self.implicit_port))
    }
}

impl Drop for Standin {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // A panic in there has been printed; there is nobody to hand it to.
            let _ = thread.join();
        }
    }
}

/// A CA, and a certificate of it for the names.
fn certify(options: &Options) -> Result<(ServerConfig, String), Box<dyn std::error::Error + Send + Sync>> {
    use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, KeyUsagePurpose};
    let mut ca = CertificateParams::default();
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    ca.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    // Its own name for each: of two CAs with one name, the wrong one looks like a bad signature.
    let number = getrandom::u64()?;
    ca.distinguished_name.push(DnType::CommonName, format!("throw-away CA {number:016x} of a relaykey SES stand-in"));
    let ca = CertifiedIssuer::self_signed(ca, KeyPair::generate()?)?;
    let key = KeyPair::generate()?;
    let mut leaf = CertificateParams::new(options.names.clone())?;
    leaf.distinguished_name.push(DnType::CommonName, "relaykey SES stand-in");
    if options.expired {
        leaf.not_before = rcgen::date_time_ymd(2001, 1, 1);
        leaf.not_after = rcgen::date_time_ymd(2002, 1, 1);
    }
    let leaf = leaf.signed_by(&key, &ca)?;
    let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(vec![leaf.der().clone()], PrivateKeyDer::Pkcs8(key.serialize_der().into()))?;
    Ok((config, ca.pem()))
}

#[derive(Default)]
struct StandinState {
    keys: HashMap<String, Secret>,
    inactive: HashSet<String>,
    denied: HashSet<String>,
    unverified: HashSet<String>,
    delays: HashMap<String, Delay>,
    faults: Vec<(Misbehavior, u32)>,
    open: usize,
    seen: StandinRecord,
}

struct StandinShared {
    state: Mutex<StandinState>,
    changed: Condvar,
    acceptor: TlsAcceptor,
    options: Options,
}

impl StandinShared {
    fn lock(&self) -> MutexGuard<'_, StandinState> {
        // Nothing is left half-done in it by a caller's condition that panics.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes something and wakes whoever waits for it.
    fn note<T>(&self, change: impl FnOnce(&mut StandinState) -> T) -> T {
        let result = change(&mut self.lock());
        self.changed.notify_all();
        result
    }

    /// Is it this fault's turn? Uses one up if so.
    fn strikes(&self, fault: Misbehavior) -> bool {
        let mut state = self.lock();
        let Some((_, count)) = state.faults.iter_mut().find(|(f, count)| *f == fault && *count > 0) else {
            return false;
        };
        *count -= 1;
        true
    }

    fn accepts(&self, username: &str, password: &Secret, tls: bool, mechanism: Mechanism) -> bool {
        self.note(|state| {
            let right = state.keys.get(username).is_some_and(|key| key == password);
            let mut accepted = right && !state.inactive.contains(username);
            if accepted {
                accepted = match state.delays.get_mut(username) {
                    Some(Delay::Refusals(left)) if *left > 0 => {
                        *left -= 1;
                        false
                    }
                    Some(Delay::Until(when)) => Instant::now() >= *when,
                    _ => true,
                };
            }
            let attempt =
                LoginAttempt { username: username.to_owned(), accepted, at: Timestamp::now(), tls, mechanism };
            keep(&mut state.seen.logins, attempt);
            accepted
        })
    }
}

fn keep<T>(kept: &mut VecDeque<T>, new: T) {
    if kept.len() == KEPT {
        kept.pop_front();
    }
    kept.push_back(new);
}
