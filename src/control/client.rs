//! The command line's end: asking a running daemon. It blocks.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream as BlockingStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, sockopt};
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::net::UnixStream;

use super::protocol::{AnswerLine, ControlRequest, MAX_ANSWER, said};
use super::{ANSWER_TIME, ControlError, address, socket_in};

/// How long a client goes on asking a daemon that has no place for it.
const BUSY_TIME: Duration = Duration::from_secs(3);

/// A connection to a running daemon. Blocks: for the command line.
#[derive(Debug)]
pub struct ControlClient {
    stream: BlockingStream,
    path: PathBuf,
    pid: i32,
}

/// Connects to the daemon of this run directory; `None`: there is none. To be called within the run time.
///
/// # Errors
/// This user may not; what listens there belongs to another user; the system call failed.
pub fn connect(run_dir: &Path) -> Result<Option<ControlClient>, ControlError> {
    let path = socket_in(run_dir);
    let Some(stream) = dial(&path, &address(&path)?)? else { return Ok(None) };
    let (pid, uid) = listener_of(&stream, &path)?;
    if uid != 0 && uid != rustix::process::geteuid().as_raw() {
        return Err(ControlError::Foreign { path, pid, uid });
    }
    Ok(Some(ControlClient { stream, path, pid }))
}

/// A connection; `None`: nobody listens.
pub(super) fn dial(path: &Path, address: &SocketAddrUnix) -> Result<Option<BlockingStream>, ControlError> {
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
pub(super) fn listener_of(stream: &BlockingStream, path: &Path) -> Result<(i32, u32), ControlError> {
    // By way of tokio: rustix has no place for the process id 0, which one of another pid namespace has.
    let who = stream.try_clone().and_then(|same| {
        same.set_nonblocking(true)?;
        UnixStream::from_std(same)?.peer_cred()
    });
    let who = who.and_then(|who| stream.set_nonblocking(false).map(|()| who));
    let who = who.map_err(|e| ControlError::io("see who listens on", path, e))?;
    Ok((who.pid().unwrap_or(0), who.uid()))
}

impl ControlClient {
    /// Asks, and gives the document that is the answer. `claimed`: who the operator says to be.
    ///
    /// # Errors
    /// The daemon refuses, goes away, or says nothing: within 10 s that it has taken the request, or for the time that
    /// the request allows and two minutes more.
    pub fn call(
        mut self,
        request: &ControlRequest,
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
                Ok(AnswerLine::Taken(_)) => *taken = true,
                Ok(AnswerLine::Progress(text)) => on_progress(&text),
                Ok(AnswerLine::Document(document)) => return Ok(document),
                Ok(AnswerLine::Error(refusal)) => return Err(ControlError::Refused(refusal)),
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
