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
//!
//! - `protocol`: requests and lines of answers, and what of them is taken.
//! - `server`: the daemon's end: who is let in, how many, for how long.
//! - `client`: the command line's end.

mod client;
mod protocol;
mod server;

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::SocketAddrUnix;

pub use self::client::{ControlClient, connect, understood};
pub use self::protocol::{
    ApproveRequest, ConfirmRequest, ControlRequest, DeregisterRequest, MAX_REASON, MAX_WAIT, Peer, RejectRequest,
    RequestAnswer, RequestRefusal, SyncRequest, VERSION,
};
pub use self::server::{ControlSocket, Progress, bind, serve};
use crate::host::HostError;
use crate::instruction::relaykey;

/// The socket's name in the run directory.
const SOCKET: &str = "control.sock";
/// How long the daemon may take to take a request, or to answer one that does not wait.
const ANSWER_TIME: Duration = Duration::from_secs(10);

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
    /// It has the state directory, and no socket here.
    #[error("a relaykey daemon runs ({}), but nobody listens on {}: it cannot be asked", process(*pid), path.display())]
    NotThere { path: PathBuf, pid: i32 },
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
    Refused(RequestRefusal),
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
            | ControlError::NotThere { .. }
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
            ControlError::NotThere { .. } => {
                "let it make its socket anew: systemctl reload relaykey; one that only starts or ends has \
                 none, and nothing is to be done"
                    .into()
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

/// Where the socket of this run directory is.
pub fn socket_in(run_dir: &Path) -> PathBuf {
    run_dir.join(SOCKET)
}

fn address(path: &Path) -> Result<SocketAddrUnix, ControlError> {
    SocketAddrUnix::new(path).map_err(|e| match e {
        Errno::NAMETOOLONG => ControlError::TooLong { path: path.to_owned() },
        e => ControlError::io("name", path, e),
    })
}
