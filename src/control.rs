//! The control socket, both ends: how `relaykey sync`, `status`, `approve` and the like reach a running daemon.
//!
//! `RUN_DIR/control.sock`, mode 0600. One request per connection, one JSON object per line:
//!
//! ```text
//! -> {"relaykey":1,"command":"sync","names":["ses"],"accept_version":null,"wait_seconds":60,"claimed":"alice"}
//! <- {"taken":true}                                  the daemon is at it; not there: nothing was begun
//! <- {"progress":"ses: verify ..."}                  any number
//! <- {"document":{...}}                              or {"error":{"what":...,"fix":...,"temporary":...}}
//! ```
//!
//! `claimed` is who the operator says to be (sudo's user), and may be missing. The answer to `status` is the status
//! document, to everything else `{"schema":"relaykey/sync/v1","credentials":[...]}`. The other commands, with `names`:
//!
//! ```text
//! {"relaykey":1,"command":"approve","names":["ses"],"version":"v2","wait_seconds":60}
//! {"relaykey":1,"command":"reject","names":["ses"],"version":null,"reason":"not in the change calendar"}
//! {"relaykey":1,"command":"confirm","names":["ses"],"code":"","wait_seconds":60}     code: null, or a nonce for the typed code
//! {"relaykey":1,"command":"deregister","names":[]}
//! ```
//!
//! Who may ask is decided by the credentials that the kernel attaches to a connection (`SO_PEERCRED`, unix(7)): root, and
//! the daemon's own user. The file's mode says the same, but decides nothing.
//!
//! Clients are bounded in number, in what they may send and in how long they may take for it. One that does not read, or
//! goes away, holds up nothing: what it asked for is done all the same.

use std::fs::FileType;
use std::future::Future;
use std::io::{self, Read, Write};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::os::unix::net::UnixStream as BlockingStream;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketAddrUnix, SocketFlags, SocketType, sockopt};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{mpsc, watch};
use tokio::task::{AbortHandle, JoinSet};

use crate::host::{self, HostError};
use crate::instruction::relaykey;
use crate::text::Repeats;
use crate::wake;

/// The version of the protocol, in every request.
pub const VERSION: u64 = 1;
/// The socket's name in the run directory.
const SOCKET: &str = "control.sock";
/// The longest request, in bytes: names and options of one command are far shorter.
const MAX_REQUEST: usize = 16 * 1024;
/// The longest line of an answer that is sent and taken, in bytes: a status document with its history is far shorter.
const MAX_ANSWER: usize = 16 << 20;
/// Connections that are served at the same time.
const MAX_CONNECTIONS: usize = 32;
/// How long a client may take to send its request.
const REQUEST_TIME: Duration = Duration::from_secs(5);
/// How long a client may take to read one line.
const WRITE_TIME: Duration = Duration::from_secs(5);
/// Progress lines that wait for a slow reader; what does not fit is left out.
const PROGRESS_LINES: usize = 64;
/// How long nothing is accepted after accepting failed, as it does without free file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_secs(1);
/// That none can be accepted is told once in this time.
const TOLD: Duration = Duration::from_secs(600);
/// The longest wait that a client may ask for.
pub const MAX_WAIT: Duration = Duration::from_secs(24 * 3600);
/// How long the daemon may take to take a request, or to answer one that does not wait.
const ANSWER_TIME: Duration = Duration::from_secs(10);
/// How much longer than `wait_seconds` a rollover may be silent: a step that was begun is finished.
const STEP_TIME: Duration = Duration::from_secs(120);
/// How long a client goes on asking a daemon that has no place for it.
const BUSY_TIME: Duration = Duration::from_secs(3);
/// Of a text from outside, what is kept.
const MAX_CLAIMED: usize = 64;
/// Of the reason of a rejection, in characters.
pub const MAX_REASON: usize = 500;

/// What a client asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// A rollover now, of what is new.
    Sync(SyncRequest),
    /// The version that waits may go.
    Approve(ApproveRequest),
    /// The version that waits is not to be taken.
    Reject(RejectRequest),
    /// Reads back what is there, and confirms it if it is right.
    Confirm(ConfirmRequest),
    /// This host leaves the fleet.
    Deregister(DeregisterRequest),
    /// The status document.
    Status,
}

/// What `sync` is asked with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SyncRequest {
    /// Credentials to look at; empty: all.
    pub names: Vec<String>,
    /// A version to take although it was left behind.
    pub accept_version: Option<String>,
    /// How long to wait for what fails for now; at most [`MAX_WAIT`].
    pub wait_seconds: u64,
}

/// What `approve` is asked with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ApproveRequest {
    /// One credential.
    pub names: Vec<String>,
    /// The version that is meant; without it the one that waits.
    pub version: Option<String>,
    /// As for `sync`.
    pub wait_seconds: u64,
}

/// What `reject` is asked with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RejectRequest {
    /// One credential.
    pub names: Vec<String>,
    /// The version that is meant; without it the one that waits.
    pub version: Option<String>,
    /// At most [`MAX_REASON`] characters are kept.
    pub reason: String,
}

/// What `confirm` is asked with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConfirmRequest {
    /// One credential.
    pub names: Vec<String>,
    /// Where the typed code is wanted too: the nonce of the invitation, or an empty text.
    pub code: Option<String>,
    /// As for `sync`.
    pub wait_seconds: u64,
}

/// What `deregister` is asked with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeregisterRequest {
    /// Credentials; empty: all.
    pub names: Vec<String>,
}

impl Request {
    /// How long the daemon may be silent over it.
    fn patience(&self) -> Duration {
        match self {
            Request::Sync(SyncRequest { wait_seconds, .. })
            | Request::Approve(ApproveRequest { wait_seconds, .. })
            | Request::Confirm(ConfirmRequest { wait_seconds, .. }) => {
                Duration::from_secs(*wait_seconds).min(MAX_WAIT) + STEP_TIME
            }
            Request::Reject(_) | Request::Deregister(_) => STEP_TIME,
            Request::Status => ANSWER_TIME,
        }
    }
}

/// Who asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// As the kernel says it.
    pub uid: u32,
    /// The same.
    pub gid: u32,
    /// The same; `None`: a process of another pid namespace.
    pub pid: Option<i32>,
    /// Who they say to be, such as sudo's user: at most 64 characters, none of them a control character.
    pub claimed: Option<String>,
}

/// Why there is no document.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// What stands in the way.
    pub what: String,
    /// What to do about it.
    pub fix: String,
    /// Will asking again help without anybody doing anything?
    pub temporary: bool,
}

/// What a request comes to.
pub type Answer = Result<Value, Refusal>;

/// Where lines for people go while a request is being worked on.
#[derive(Debug, Clone)]
pub struct Progress(mpsc::Sender<String>);

impl Progress {
    /// Sends one line, without its end. Never waits: what a slow reader has no room for, it does not get.
    pub fn line(&self, text: impl Into<String>) {
        let _ = self.0.try_send(text.into());
    }
}

/// One line of an answer.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Line {
    Taken(bool),
    Progress(String),
    Document(Value),
    Error(Refusal),
}

impl Line {
    /// What is said can be heard: what is longer than a client takes is said to be so.
    fn bytes(&self) -> Vec<u8> {
        let mut bytes = serde_json::to_vec(self).expect("lines have only text keys");
        if bytes.len() > MAX_ANSWER {
            let refusal = Refusal {
                what: format!("the answer has {} bytes, and at most {MAX_ANSWER} are taken", bytes.len()),
                fix: "ask for one credential at a time; what was asked for was done".into(),
                temporary: false,
            };
            bytes = serde_json::to_vec(&Line::Error(refusal)).expect("lines have only text keys");
        }
        bytes.push(b'\n');
        bytes
    }
}

impl From<Answer> for Line {
    fn from(answer: Answer) -> Self {
        match answer {
            Ok(document) => Line::Document(document),
            Err(refusal) => Line::Error(refusal),
        }
    }
}

impl Request {
    /// As a line of the protocol.
    fn bytes(&self, claimed: Option<&str>) -> Vec<u8> {
        let (command, fields) = match self {
            Request::Sync(sync) => ("sync", serde_json::to_value(sync)),
            Request::Approve(approve) => ("approve", serde_json::to_value(approve)),
            Request::Reject(reject) => ("reject", serde_json::to_value(reject)),
            Request::Confirm(confirm) => ("confirm", serde_json::to_value(confirm)),
            Request::Deregister(deregister) => ("deregister", serde_json::to_value(deregister)),
            Request::Status => ("status", Ok(Value::Object(serde_json::Map::new()))),
        };
        let fields = fields.expect("a request has only text keys");
        let Value::Object(mut map) = fields else { unreachable!("a struct is an object") };
        map.insert("relaykey".into(), VERSION.into());
        map.insert("command".into(), command.into());
        if let Some(claimed) = claimed {
            map.insert("claimed".into(), plain(claimed, MAX_CLAIMED).into());
        }
        let mut bytes = serde_json::to_vec(&map).expect("text keys");
        bytes.push(b'\n');
        bytes
    }

    /// From a line of the protocol: the request, and who its sender claims to be.
    ///
    /// A field that is not known is an error: what it asks to be done otherwise must not be done the usual way.
    fn parse(line: &[u8]) -> Result<(Self, Option<String>), Refusal> {
        let value: Value =
            serde_json::from_slice(line).map_err(|e| malformed(format!("the request is not JSON: {}", said(&e))))?;
        let Value::Object(mut map) = value else { return Err(malformed("the request is not a JSON object")) };
        match map.remove("relaykey").as_ref().and_then(Value::as_u64) {
            Some(VERSION) => {}
            Some(other) => {
                return Err(Refusal {
                    what: format!("the request is in version {other} of the protocol, the daemon speaks {VERSION}"),
                    fix: "after an upgrade restart the daemon: systemctl restart relaykey".into(),
                    temporary: false,
                });
            }
            None => return Err(malformed("the request does not say `\"relaykey\":1`")),
        }
        let claimed = match map.remove("claimed") {
            None | Some(Value::Null) => None,
            Some(Value::String(text)) => Some(plain(&text, MAX_CLAIMED)),
            Some(_) => return Err(malformed("`claimed` is not a text")),
        };
        let Some(Value::String(command)) = map.remove("command") else {
            return Err(malformed("the request names no command"));
        };
        let request = match command.as_str() {
            "sync" => {
                let mut sync: SyncRequest = fields(map, "sync")?;
                sync.wait_seconds = sync.wait_seconds.min(MAX_WAIT.as_secs());
                Request::Sync(sync)
            }
            "approve" => {
                let mut approve: ApproveRequest = fields(map, "approve")?;
                approve.wait_seconds = approve.wait_seconds.min(MAX_WAIT.as_secs());
                Request::Approve(approve)
            }
            "reject" => {
                let mut reject: RejectRequest = fields(map, "reject")?;
                // It goes to logs, reports and pages.
                reject.reason = plain(&reject.reason, MAX_REASON).trim().to_owned();
                if reject.reason.is_empty() {
                    return Err(malformed("reject: a reason is missing"));
                }
                Request::Reject(reject)
            }
            "confirm" => {
                let mut confirm: ConfirmRequest = fields(map, "confirm")?;
                confirm.wait_seconds = confirm.wait_seconds.min(MAX_WAIT.as_secs());
                Request::Confirm(confirm)
            }
            "deregister" => Request::Deregister(fields(map, "deregister")?),
            "status" => match map.keys().next() {
                None => Request::Status,
                Some(key) => return Err(malformed(format!("status: unknown field `{}`", plain(key, 64)))),
            },
            other => {
                return Err(Refusal {
                    what: format!("the daemon has no command {:?}", plain(other, 64)),
                    fix: format!(
                        "it is relaykey {}: after an upgrade restart it: systemctl restart relaykey",
                        env!("CARGO_PKG_VERSION")
                    ),
                    temporary: false,
                });
            }
        };
        Ok((request, claimed))
    }
}

fn fields<T: DeserializeOwned>(map: serde_json::Map<String, Value>, command: &str) -> Result<T, Refusal> {
    serde_json::from_value(Value::Object(map)).map_err(|e| malformed(format!("{command}: {}", said(&e))))
}

fn malformed(what: impl Into<String>) -> Refusal {
    Refusal {
        what: what.into(),
        fix: format!("ask with `relaykey`, such as `{}` or `{}`", relaykey("sync"), relaykey("status")),
        temporary: false,
    }
}

/// What a parser says, which may quote what was sent.
fn said(e: &serde_json::Error) -> String {
    plain(&e.to_string(), 200)
}

/// A text from outside, cut, and without what a terminal would obey.
fn plain(text: &str, max: usize) -> String {
    crate::text::plain(text, max)
}

/// Why the two ends do not come together.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the fields are the parts of each variant's message")]
pub enum ControlError {
    /// The run directory cannot be made or is not safe.
    #[error(transparent)]
    Host(#[from] HostError),
    /// Something else has the socket's name.
    #[error("{} is {what}, not a socket", path.display())]
    NotASocket { path: PathBuf, what: &'static str },
    /// Another daemon listens.
    #[error("a relaykey daemon runs already: {} (user id {uid}) listens on {}", process(*pid), path.display())]
    Live { path: PathBuf, pid: i32, uid: u32 },
    /// Socket addresses have 107 bytes (unix(7)).
    #[error("{} is too long for the name of a socket: {} bytes, at most 107", path.display(), path.as_os_str().len())]
    TooLong { path: PathBuf },
    /// A system call failed.
    #[error("cannot {doing} {}: {source}", path.display())]
    Io { doing: &'static str, path: PathBuf, source: io::Error },
    /// The file's mode keeps this user away.
    #[error("a relaykey daemon runs, but {} is not for this user", path.display())]
    Forbidden { path: PathBuf },
    /// What listens there is neither root's nor ours.
    #[error("{} of user id {uid} listens on {}, and is not to be believed", process(*pid), path.display())]
    Foreign { path: PathBuf, pid: i32, uid: u32 },
    /// Nobody accepts connections, and the queue for them is full.
    #[error("a relaykey daemon listens on {}, but accepted nobody for {} s", path.display(), ANSWER_TIME.as_secs())]
    Full { path: PathBuf },
    /// The daemon is there and says nothing.
    #[error("the relaykey daemon ({}) said nothing for {} s {}", process(*pid), waited.as_secs(), awaited(*taken))]
    Silent { pid: i32, waited: Duration, taken: bool },
    /// The daemon ended, or dropped the connection.
    #[error("the relaykey daemon ({}) went away before it had answered", process(*pid))]
    Lost { pid: i32 },
    /// The daemon said something that no relaykey of this version says.
    #[error("the relaykey daemon gave an answer that relaykey {} does not understand: {what}", env!("CARGO_PKG_VERSION"))]
    Unclear { what: String },
    /// The daemon says why not.
    #[error("{}", .0.what)]
    Refused(Refusal),
}

/// 0 is a process of another pid namespace, which has no number here.
fn process(pid: i32) -> String {
    if pid == 0 { "a process outside this container".to_owned() } else { format!("process {pid}") }
}

fn awaited(taken: bool) -> &'static str {
    if taken { "while it worked on the request" } else { "when it was asked" }
}

impl ControlError {
    fn io(doing: &'static str, path: &Path, source: impl Into<io::Error>) -> Self {
        ControlError::Io { doing, path: path.to_owned(), source: source.into() }
    }

    /// Will trying again help without anybody doing anything?
    pub fn is_temporary(&self) -> bool {
        match self {
            ControlError::Host(e) => e.is_temporary(),
            ControlError::Refused(refusal) => refusal.temporary,
            ControlError::Io { .. }
            | ControlError::Full { .. }
            | ControlError::Silent { .. }
            | ControlError::Lost { .. } => true,
            _ => false,
        }
    }

    /// What to do.
    pub fn fix(&self) -> String {
        match self {
            ControlError::Host(e) => e.fix(),
            ControlError::NotASocket { path, .. } => format!("see what made it, and remove it: {}", path.display()),
            ControlError::Live { pid, .. } => {
                format!(
                    "one daemon serves a host: stop that one (`systemctl stop relaykey`, `kill {pid}`), or give this \
                         configuration a run_dir and state_dir of its own"
                )
            }
            ControlError::TooLong { .. } => "choose a shorter `run_dir` in [host]".into(),
            ControlError::Io { path, .. } => format!("look at it: ls -ld {}", path.display()),
            ControlError::Forbidden { .. } => {
                "ask as root or as the user that the daemon runs as: sudo relaykey ...".into()
            }
            ControlError::Foreign { pid, path, .. } => {
                format!("find out what process {pid} is; only root may write to the directory of {}", path.display())
            }
            ControlError::Full { .. } => "see what it does (`journalctl -u relaykey`) and restart it".into(),
            ControlError::Silent { pid, taken: false, .. } => {
                format!("see what it does (`journalctl -u relaykey`, /proc/{pid}/status) and restart it")
            }
            ControlError::Silent { .. } => {
                format!("what it was asked for goes on there: {}; journalctl -u relaykey", relaykey("status"))
            }
            ControlError::Lost { .. } => "see why it ended (`journalctl -u relaykey`) and ask again".into(),
            ControlError::Unclear { .. } => "after an upgrade restart the daemon: systemctl restart relaykey".into(),
            ControlError::Refused(refusal) => refusal.fix.clone(),
        }
    }
}

// ---------------------------------------------------------------- the daemon's end

/// The listening socket. Dropped, its file is removed.
#[derive(Debug)]
pub struct Listener {
    socket: UnixListener,
    directory: host::Directory,
    path: PathBuf,
    /// Device and inode of the socket file.
    id: (u64, u64),
}

impl Listener {
    /// Where it listens.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let ours = |m: std::fs::Metadata| (m.dev(), m.ino()) == self.id;
        if std::fs::symlink_metadata(&self.path).is_ok_and(ours) {
            // Nobody waits for a report of it: a file that stays is found stale at the next start.
            let _ = self.directory.remove(SOCKET.as_ref());
        }
    }
}

/// Makes the run directory where it is missing (0755), and listens in it. To be called within the run time.
///
/// The file of a daemon that is dead is replaced.
///
/// # Errors
/// A daemon listens there; the directory can be changed by others; something else has the socket's name.
pub fn bind(run_dir: &Path) -> Result<Listener, ControlError> {
    let directory = host::create_dir(run_dir, 0o755)?;
    let path = directory.path().join(SOCKET);
    let address = address(&path)?;
    // Two daemons that start at once must not take each other's fresh socket for a stale one.
    let _lock = directory.lock_own(Duration::from_secs(5))?;
    match std::fs::symlink_metadata(&path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => {}
        Err(e) => return Err(ControlError::io("look at", &path, e)),
        Ok(found) if !found.file_type().is_socket() => {
            return Err(ControlError::NotASocket { path, what: kind(found.file_type()) });
        }
        Ok(_) => match dial(&path, &address) {
            Ok(Some(stream)) => {
                let (pid, uid) = listener_of(&stream, &path)?;
                return Err(ControlError::Live { path, pid, uid });
            }
            Ok(None) => drop(directory.remove(SOCKET.as_ref())?),
            Err(e) => return Err(e),
        },
    }
    let failed = |doing| {
        let path = path.clone();
        move |e: Errno| ControlError::io(doing, &path, e)
    };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)
        .map_err(failed("make a socket for"))?;
    rustix::net::bind(&socket, &address).map_err(failed("listen on"))?;
    // Before anybody can connect, so that no umask matters.
    rustix::fs::chmod(&path, rustix::fs::Mode::from_raw_mode(0o600)).map_err(failed("change the mode of"))?;
    rustix::net::listen(&socket, 128).map_err(failed("listen on"))?;
    let made = std::fs::symlink_metadata(&path).map_err(|e| ControlError::io("look at", &path, e))?;
    let socket = UnixListener::from_std(socket.into()).map_err(|e| ControlError::io("listen on", &path, e))?;
    Ok(Listener { socket, directory, path, id: (made.dev(), made.ino()) })
}

fn address(path: &Path) -> Result<SocketAddrUnix, ControlError> {
    SocketAddrUnix::new(path).map_err(|e| match e {
        Errno::NAMETOOLONG => ControlError::TooLong { path: path.to_owned() },
        e => ControlError::io("name", path, e),
    })
}

fn kind(of: FileType) -> &'static str {
    if of.is_dir() {
        "a directory"
    } else if of.is_symlink() {
        "a symbolic link"
    } else if of.is_file() {
        "a regular file"
    } else {
        "a device or FIFO"
    }
}

/// A connection that is being served.
struct Slot {
    /// Its task holds it, so that it is closed when that ends.
    stream: Weak<UnixStream>,
    /// Its request is complete and being worked on.
    asked: Arc<AtomicBool>,
    task: AbortHandle,
}

impl Slot {
    fn is_reading(&self) -> bool {
        !self.asked.load(Ordering::Relaxed)
    }

    /// Has it sent something (or gone away), which its task has not looked at yet?
    fn has_news(&self) -> bool {
        let peek = RecvFlags::PEEK | RecvFlags::DONTWAIT;
        self.stream
            .upgrade()
            .is_none_or(|stream| !matches!(rustix::net::recv(&*stream, &mut [0u8; 1], peek), Err(Errno::AGAIN)))
    }

    fn end(self, why: Refusal) {
        self.task.abort();
        if let Some(stream) = self.stream.upgrade() {
            say_at_once(&stream, why);
        }
    }
}

/// Serves the socket until `stop` becomes true; then the file is gone, and it comes back when the requests that were
/// being worked on are answered. It does not end them: the handler has to see the stop too.
///
/// `handler` is called for every request of somebody who may ask. Its future is a task of its own, which goes on when
/// the client goes away.
pub async fn serve<H, F>(listener: Listener, handler: H, mut stop: watch::Receiver<bool>)
where
    H: Fn(Peer, Request, Progress) -> F + Send + Sync + 'static,
    F: Future<Output = Answer> + Send + 'static,
{
    let handler = Arc::new(handler);
    let mut tasks = JoinSet::new();
    // The oldest first.
    let mut slots: Vec<Slot> = Vec::new();
    let mut refusals = Repeats::new(TOLD);
    loop {
        let accepted = tokio::select! {
            biased;
            () = wake::stopped(&mut stop) => break,
            Some(_) = tasks.join_next() => {
                slots.retain(|slot| !slot.task.is_finished());
                continue;
            }
            accepted = listener.socket.accept() => accepted,
        };
        let stream = match accepted {
            Ok((stream, _)) => Arc::new(stream),
            Err(e) => {
                // Without file descriptors the connection stays where it is, and asking again at once would spin.
                if let Some(told) = refusals.happened(&e.to_string(), wake::boot_time()) {
                    tracing::warn!("control socket: cannot accept: {e}{}", told.words());
                }
                tokio::select! {
                    () = wake::stopped(&mut stop) => break,
                    // One that ends gives its descriptor back.
                    Some(_) = tasks.join_next() => {}
                    () = tokio::time::sleep(ACCEPT_PAUSE) => {}
                }
                slots.retain(|slot| !slot.task.is_finished());
                continue;
            }
        };
        let Ok(who) = stream.peer_cred() else { continue };
        let own = rustix::process::geteuid().as_raw();
        if who.uid() != 0 && who.uid() != own {
            say_at_once(&stream, forbidden(who.uid(), own));
            continue;
        }
        if !make_room(&mut slots).await {
            say_at_once(&stream, busy());
            continue;
        }
        let asked = Arc::new(AtomicBool::new(false));
        let peer = Peer { uid: who.uid(), gid: who.gid(), pid: who.pid().filter(|pid| *pid != 0), claimed: None };
        let slot = Arc::downgrade(&stream);
        let task = tasks.spawn(converse(stream, peer, asked.clone(), handler.clone()));
        slots.push(Slot { stream: slot, asked, task });
    }
    // Who asks from now on finds no daemon.
    drop(listener);
    for slot in slots {
        if slot.is_reading() {
            slot.end(Refusal { what: "the daemon is ending".into(), fix: "ask again".into(), temporary: true });
        }
    }
    while tasks.join_next().await.is_some() {}
}

/// Makes room for one more connection, at the cost of the oldest that has not said yet what it wants.
/// `false`: all are waiting for what they asked for.
async fn make_room(slots: &mut Vec<Slot>) -> bool {
    // What was sent in time is looked at first, however many come behind it; a few turns of the run time do that.
    for last_turn in [false, false, false, true] {
        slots.retain(|slot| !slot.task.is_finished());
        if slots.len() < MAX_CONNECTIONS {
            return true;
        }
        if let Some(at) = slots.iter().position(|slot| slot.is_reading() && (last_turn || !slot.has_news())) {
            slots.remove(at).end(busy());
            return true;
        }
        if !slots.iter().any(Slot::is_reading) {
            return false;
        }
        tokio::task::yield_now().await;
    }
    false
}

fn busy() -> Refusal {
    Refusal {
        what: format!("the daemon serves {MAX_CONNECTIONS} connections already"),
        fix: "ask again in a moment; see who asks so much: ss -xp".into(),
        temporary: true,
    }
}

fn forbidden(uid: u32, own: u32) -> Refusal {
    let who = if own == 0 { "root".to_owned() } else { format!("root and user id {own}, as which the daemon runs,") };
    Refusal {
        what: format!("user id {uid} may not ask the relaykey daemon: {who} may"),
        fix: "ask as root: sudo relaykey ...".into(),
        temporary: false,
    }
}

/// An error for a connection that nobody waits for: as much of it as goes at once.
fn say_at_once(stream: &UnixStream, why: Refusal) {
    let _ = rustix::net::send(stream, &Line::Error(why).bytes(), SendFlags::DONTWAIT | SendFlags::NOSIGNAL);
}

/// One connection: its request, lines of progress, its answer.
async fn converse<H, F>(stream: Arc<UnixStream>, mut peer: Peer, asked: Arc<AtomicBool>, handler: Arc<H>)
where
    H: Fn(Peer, Request, Progress) -> F,
    F: Future<Output = Answer> + Send + 'static,
{
    let request = match tokio::time::timeout(REQUEST_TIME, read_line(&stream)).await {
        Ok(Ok(line)) => Request::parse(&line),
        Ok(Err(refusal)) => Err(refusal),
        Err(_) => Err(malformed(format!("no whole request came within {} s", REQUEST_TIME.as_secs()))),
    };
    let (request, claimed) = match request {
        Ok(request) => request,
        Err(refusal) => {
            write(&stream, &Line::Error(refusal)).await;
            return;
        }
    };
    asked.store(true, Ordering::Relaxed);
    peer.claimed = claimed;
    let (tell, mut told) = mpsc::channel(PROGRESS_LINES);
    let mut work = tokio::spawn(handler(peer, request, Progress(tell)));
    let mut listens = write(&stream, &Line::Taken(true)).await;
    let answer = loop {
        tokio::select! {
            Some(line) = told.recv(), if listens => listens = write(&stream, &Line::Progress(line)).await,
            answer = &mut work => break answer,
        }
    };
    // The last lines may not have been fetched yet.
    while let (true, Ok(line)) = (listens, told.try_recv()) {
        listens = write(&stream, &Line::Progress(line)).await;
    }
    let answer = answer.unwrap_or_else(|e| {
        Err(Refusal {
            what: format!("the daemon broke off: {e}"),
            fix: "look at its log: journalctl -u relaykey".into(),
            temporary: true,
        })
    });
    if listens {
        write(&stream, &answer.into()).await;
    }
}

/// One line, without its end.
async fn read_line(stream: &UnixStream) -> Result<Vec<u8>, Refusal> {
    let mut line = Vec::new();
    let mut part = [0; 1024];
    loop {
        let read = match stream.readable().await.and_then(|()| stream.try_read(&mut part)) {
            Ok(0) if line.is_empty() => return Err(malformed("no request came")),
            Ok(0) => return Err(malformed("the request ended before its line did")),
            Ok(n) => &part[..n],
            Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => continue,
            Err(e) => return Err(malformed(format!("the request could not be read: {e}"))),
        };
        let end = read.iter().position(|b| *b == b'\n');
        line.extend_from_slice(&read[..end.unwrap_or(read.len())]);
        if line.len() > MAX_REQUEST {
            return Err(malformed(format!("the request is longer than {MAX_REQUEST} bytes")));
        }
        if end.is_some() {
            return Ok(line);
        }
    }
}

/// Writes a line; `false`: the client has gone away or does not read.
async fn write(stream: &UnixStream, line: &Line) -> bool {
    let bytes = line.bytes();
    let all = async {
        let mut left = bytes.as_slice();
        while !left.is_empty() {
            match stream.writable().await.and_then(|()| stream.try_write(left)) {
                Ok(n) => left = &left[n..],
                Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
                Err(_) => return false,
            }
        }
        true
    };
    tokio::time::timeout(WRITE_TIME, all).await.unwrap_or(false)
}

// ---------------------------------------------------------------- the client's end

/// A connection to a running daemon. Blocks: for the command line.
#[derive(Debug)]
pub struct Client {
    stream: BlockingStream,
    path: PathBuf,
    pid: i32,
}

/// Connects to the daemon of this run directory; `None`: there is none. To be called within the run time.
///
/// # Errors
/// This user may not; what listens there belongs to another user; the system call failed.
pub fn connect(run_dir: &Path) -> Result<Option<Client>, ControlError> {
    let path = run_dir.join(SOCKET);
    let Some(stream) = dial(&path, &address(&path)?)? else { return Ok(None) };
    let (pid, uid) = listener_of(&stream, &path)?;
    if uid != 0 && uid != rustix::process::geteuid().as_raw() {
        return Err(ControlError::Foreign { path, pid, uid });
    }
    Ok(Some(Client { stream, path, pid }))
}

/// A connection; `None`: nobody listens.
fn dial(path: &Path, address: &SocketAddrUnix) -> Result<Option<BlockingStream>, ControlError> {
    let failed = |e: Errno| ControlError::io("connect to", path, e);
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)
        .map_err(failed)?;
    // It also bounds the wait for a place in the queue of a daemon that does not accept.
    sockopt::set_socket_timeout(&socket, sockopt::Timeout::Send, Some(ANSWER_TIME)).map_err(failed)?;
    match rustix::net::connect(&socket, address) {
        Ok(()) => Ok(Some(socket.into())),
        Err(Errno::NOENT | Errno::CONNREFUSED) => Ok(None),
        Err(Errno::AGAIN) => Err(ControlError::Full { path: path.to_owned() }),
        Err(Errno::ACCESS | Errno::PERM) => Err(ControlError::Forbidden { path: path.to_owned() }),
        Err(e) => Err(failed(e)),
    }
}

/// Process and user id of who listens at the other end.
fn listener_of(stream: &BlockingStream, path: &Path) -> Result<(i32, u32), ControlError> {
    // By way of tokio: rustix has no place for the process id 0, which one of another pid namespace has.
    let who = stream.try_clone().and_then(|same| {
        same.set_nonblocking(true)?;
        UnixStream::from_std(same)?.peer_cred()
    });
    let who = who.and_then(|who| stream.set_nonblocking(false).map(|()| who));
    let who = who.map_err(|e| ControlError::io("see who listens on", path, e))?;
    Ok((who.pid().unwrap_or(0), who.uid()))
}

impl Client {
    /// Asks, and gives the document that is the answer. `claimed`: who the operator says to be.
    ///
    /// # Errors
    /// The daemon refuses, goes away, or says nothing: within 10 s that it has taken the request, or for the time that
    /// the request allows and two minutes more.
    pub fn call(
        mut self,
        request: &Request,
        claimed: Option<&str>,
        mut on_progress: impl FnMut(&str),
    ) -> Result<Value, ControlError> {
        let bytes = request.bytes(claimed);
        let patience = request.patience();
        let began = Instant::now();
        loop {
            let mut taken = false;
            let error = match self.ask(&bytes, patience, &mut taken, &mut on_progress) {
                Ok(document) => return Ok(document),
                Err(e) => e,
            };
            // Nothing was begun, so it may be asked for once more.
            let crowded = match &error {
                ControlError::Refused(refusal) => refusal.temporary,
                ControlError::Lost { .. } => true,
                _ => false,
            };
            if taken || !crowded || began.elapsed() > BUSY_TIME {
                return Err(error);
            }
            std::thread::sleep(Duration::from_millis(100));
            match connect(self.path.parent().unwrap_or(Path::new("/")))? {
                Some(again) => self = again,
                None => return Err(error),
            }
        }
    }

    /// One request on one connection.
    fn ask(
        &mut self,
        request: &[u8],
        patience: Duration,
        taken: &mut bool,
        on_progress: &mut impl FnMut(&str),
    ) -> Result<Value, ControlError> {
        // A daemon that does not want it says why before it closes: what it said is read all the same.
        let _ = self.stream.write_all(request);
        let mut rest = Vec::new();
        loop {
            let limit = if *taken { patience } else { ANSWER_TIME };
            let line = self.line(&mut rest, limit, *taken)?;
            match serde_json::from_slice(&line) {
                Ok(Line::Taken(_)) => *taken = true,
                Ok(Line::Progress(text)) => on_progress(&text),
                Ok(Line::Document(document)) => return Ok(document),
                Ok(Line::Error(refusal)) => return Err(ControlError::Refused(refusal)),
                Err(e) => return Err(ControlError::Unclear { what: said(&e) }),
            }
        }
    }

    /// The next line, without its end. `rest`: what has come behind the last one.
    fn line(&mut self, rest: &mut Vec<u8>, limit: Duration, taken: bool) -> Result<Vec<u8>, ControlError> {
        let began = Instant::now();
        let mut part = [0; 16 * 1024];
        let mut looked = 0;
        loop {
            if let Some(at) = rest[looked..].iter().position(|b| *b == b'\n') {
                let mut line: Vec<u8> = rest.drain(..=looked + at).collect();
                line.pop();
                return Ok(line);
            }
            looked = rest.len();
            if looked > MAX_ANSWER {
                let what = format!("a line of more than {MAX_ANSWER} bytes");
                return Err(ControlError::Unclear { what });
            }
            let left = limit.saturating_sub(began.elapsed());
            let silent = || ControlError::Silent { pid: self.pid, waited: limit, taken };
            if left.is_zero() {
                return Err(silent());
            }
            let read = self.stream.set_read_timeout(Some(left)).and_then(|()| self.stream.read(&mut part));
            match read {
                Ok(0) => return Err(ControlError::Lost { pid: self.pid }),
                Ok(n) => rest.extend_from_slice(&part[..n]),
                Err(e) => match e.kind() {
                    io::ErrorKind::Interrupted => {}
                    io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => return Err(silent()),
                    io::ErrorKind::ConnectionReset => return Err(ControlError::Lost { pid: self.pid }),
                    _ => return Err(ControlError::io("read from", &self.path, e)),
                },
            }
        }
    }
}

/// The document of an answer, as the type it is.
///
/// # Errors
/// It is none of that type: the daemon is another version.
pub fn understood<T: DeserializeOwned>(document: Value) -> Result<T, ControlError> {
    serde_json::from_value(document).map_err(|e| ControlError::Unclear { what: said(&e) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_no_longer_than_a_client_takes() {
        let long = Line::Document(Value::String("x".repeat(MAX_ANSWER)));
        let bytes = long.bytes();
        assert!(bytes.len() < 1000 && bytes.ends_with(b"\n"));
        let Line::Error(refusal) = serde_json::from_slice(&bytes).expect("a line") else { panic!("an error") };
        assert!(!refusal.temporary && refusal.what.contains("bytes"), "{refusal:?}");
        let fits = Line::Document(Value::String("x".repeat(MAX_ANSWER - 100)));
        assert!(matches!(serde_json::from_slice(&fits.bytes()), Ok(Line::Document(_))));
    }

    #[test]
    fn what_a_client_writes_is_what_the_daemon_reads() {
        let sync = |names: &[&str], accept_version: Option<&str>, wait_seconds| {
            Request::Sync(SyncRequest {
                names: names.iter().map(|n| (*n).to_owned()).collect(),
                accept_version: accept_version.map(str::to_owned),
                wait_seconds,
            })
        };
        let table = [
            (Request::Status, None),
            (Request::Status, Some("alice")),
            (sync(&[], None, 0), None),
            (sync(&["ses", "other"], Some("v \" 1\n"), MAX_WAIT.as_secs()), Some("bob")),
        ];
        for (request, claimed) in table {
            let bytes = request.bytes(claimed);
            assert_eq!(bytes.iter().position(|b| *b == b'\n'), Some(bytes.len() - 1), "one line");
            let read = Request::parse(&bytes[..bytes.len() - 1]);
            assert_eq!(read, Ok((request, claimed.map(str::to_owned))));
        }
        let bytes = sync(&[], None, u64::MAX).bytes(None);
        let (read, _) = Request::parse(&bytes).expect("read");
        assert_eq!(read, sync(&[], None, MAX_WAIT.as_secs()), "no wait without an end");
    }

    #[test]
    fn every_line_of_an_answer_is_one_key() {
        let refusal = Refusal { what: "a".into(), fix: "b".into(), temporary: true };
        let table = [
            (Line::Taken(true), r#"{"taken":true}"#),
            (Line::Progress("a\nb".into()), r#"{"progress":"a\nb"}"#),
            (Ok(Value::from(1)).into(), r#"{"document":1}"#),
            (Err(refusal).into(), r#"{"error":{"what":"a","fix":"b","temporary":true}}"#),
        ];
        for (line, text) in table {
            assert_eq!(String::from_utf8(line.bytes()), Ok(format!("{text}\n")));
        }
    }
}
