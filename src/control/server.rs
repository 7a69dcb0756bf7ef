//! The daemon's end: who is let in, how many at a time, and for how long.

use std::fs::FileType;
use std::future::Future;
use std::io;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::{AbortHandle, JoinSet};

use super::client::{dial, listener_of};
use super::protocol::{AnswerLine, ControlRequest, Peer, RequestAnswer, RequestRefusal, malformed};
use super::{ControlError, SOCKET, address};
use crate::host;
use crate::text::Repeats;
use crate::wake;

/// The longest request, in bytes: names and options of one command are far shorter.
const MAX_REQUEST: usize = 16 * 1024;

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

/// Where lines for people go while a request is being worked on.
#[derive(Debug, Clone)]
pub struct Progress(mpsc::Sender<String>);

impl Progress {
    /// Sends one line, without its end. Never waits: what a slow reader has no room for, it does not get.
    pub fn line(&self, text: impl Into<String>) {
        let _ = self.0.try_send(text.into());
    }
}

/// The listening socket. Dropped, its file is removed.
#[derive(Debug)]
pub struct ControlSocket {
    socket: UnixListener,
    directory: host::Directory,
    path: PathBuf,
    /// Device and inode of the socket file.
    id: (u64, u64),
}

impl ControlSocket {
    /// Where it listens.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl ControlSocket {
    /// Does its name still lead to it? It holds its inode, so that no other file has the number.
    fn is_there(&self) -> bool {
        std::fs::symlink_metadata(&self.path).is_ok_and(|m| (m.dev(), m.ino()) == self.id)
    }

    /// Where its file was removed, or exchanged, under it: another one, made anew; `None`: it is there.
    fn anew(&self) -> Result<Option<ControlSocket>, ControlError> {
        if self.is_there() {
            return Ok(None);
        }
        bind(self.directory.path()).map(Some)
    }
}

impl Drop for ControlSocket {
    fn drop(&mut self) {
        if self.is_there() {
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
pub fn bind(run_dir: &Path) -> Result<ControlSocket, ControlError> {
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
    Ok(ControlSocket { socket, directory, path, id: (made.dev(), made.ino()) })
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

    fn end(self, why: RequestRefusal) {
        self.task.abort();
        if let Some(stream) = self.stream.upgrade() {
            say_at_once(&stream, why);
        }
    }
}

/// Serves the socket until `stop` becomes true; then the file is gone, and it comes back when the requests that were
/// being worked on are answered. It does not end them: the handler has to see the stop too.
///
/// After each `look` it is seen to that its file is there: whoever removed that, or the whole run directory, would else keep every
/// command from the daemon, until the next start.
///
/// `handler` is called for every request of somebody who may ask. Its future is a task of its own, which goes on when
/// the client goes away.
pub async fn serve<H, F>(listener: ControlSocket, look: Arc<Notify>, handler: H, mut stop: watch::Receiver<bool>)
where
    H: Fn(Peer, ControlRequest, Progress) -> F + Send + Sync + 'static,
    F: Future<Output = RequestAnswer> + Send + 'static,
{
    let handler = Arc::new(handler);
    let mut listener = Arc::new(listener);
    let mut tasks = JoinSet::new();
    // The oldest first.
    let mut slots: Vec<Slot> = Vec::new();
    let mut refusals = Repeats::new(TOLD);
    loop {
        let accepted = tokio::select! {
            biased;
            () = wake::stopped(&mut stop) => break,
            () = look.notified() => {
                let before = listener.clone();
                // Off this thread: another daemon may be there by now, and take its time.
                match tokio::task::spawn_blocking(move || before.anew()).await {
                    Ok(Ok(Some(anew))) => {
                        tracing::warn!(
                            "control socket: {} was removed while relaykey ran; it was made anew",
                            anew.path.display()
                        );
                        listener = Arc::new(anew);
                    }
                    Ok(Err(e)) => {
                        if let Some(told) = refusals.happened(&e.to_string(), wake::boot_time()) {
                            let fix = e.fix();
                            tracing::warn!("control socket: nobody can ask this daemon: {e}; to do: {fix}{}", told.words());
                        }
                    }
                    Ok(Ok(None)) | Err(_) => {}
                }
                continue;
            }
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
            slot.end(RequestRefusal { what: "the daemon is ending".into(), fix: "ask again".into(), temporary: true });
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

fn busy() -> RequestRefusal {
    RequestRefusal {
        what: format!("the daemon serves {MAX_CONNECTIONS} connections already"),
        fix: "ask again in a moment; see who asks so much: ss -xp".into(),
        temporary: true,
    }
}

fn forbidden(uid: u32, own: u32) -> RequestRefusal {
    let who = if own == 0 { "root".to_owned() } else { format!("root and user id {own}, as which the daemon runs,") };
    RequestRefusal {
        what: format!("user id {uid} may not ask the relaykey daemon: {who} may"),
        fix: "ask as root: sudo relaykey ...".into(),
        temporary: false,
    }
}

/// An error for a connection that nobody waits for: as much of it as goes at once.
fn say_at_once(stream: &UnixStream, why: RequestRefusal) {
    let _ = rustix::net::send(stream, &AnswerLine::Error(why).bytes(), SendFlags::DONTWAIT | SendFlags::NOSIGNAL);
}

/// One connection: its request, lines of progress, its answer.
async fn converse<H, F>(stream: Arc<UnixStream>, mut peer: Peer, asked: Arc<AtomicBool>, handler: Arc<H>)
where
    H: Fn(Peer, ControlRequest, Progress) -> F,
    F: Future<Output = RequestAnswer> + Send + 'static,
{
    let request = match tokio::time::timeout(REQUEST_TIME, read_line(&stream)).await {
        Ok(Ok(line)) => ControlRequest::parse(&line),
        Ok(Err(refusal)) => Err(refusal),
        Err(_) => Err(malformed(format!("no whole request came within {} s", REQUEST_TIME.as_secs()))),
    };
    let (request, claimed) = match request {
        Ok(request) => request,
        Err(refusal) => {
            write(&stream, &AnswerLine::Error(refusal)).await;
            return;
        }
    };
    asked.store(true, Ordering::Relaxed);
    peer.claimed = claimed;
    let (tell, mut told) = mpsc::channel(PROGRESS_LINES);
    let mut work = tokio::spawn(handler(peer, request, Progress(tell)));
    let mut listens = write(&stream, &AnswerLine::Taken(true)).await;
    let answer = loop {
        tokio::select! {
            Some(line) = told.recv(), if listens => listens = write(&stream, &AnswerLine::Progress(line)).await,
            answer = &mut work => break answer,
        }
    };
    // The last lines may not have been fetched yet.
    while let (true, Ok(line)) = (listens, told.try_recv()) {
        listens = write(&stream, &AnswerLine::Progress(line)).await;
    }
    let answer = answer.unwrap_or_else(|e| {
        Err(RequestRefusal {
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
async fn read_line(stream: &UnixStream) -> Result<Vec<u8>, RequestRefusal> {
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
async fn write(stream: &UnixStream, line: &AnswerLine) -> bool {
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
