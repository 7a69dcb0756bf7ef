//! Where the health endpoints listen: addresses, Unix sockets, and sockets that the service manager opened for us.

use std::fs;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use listenfd::ListenFd;
use rustix::fs::Mode;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

use crate::config::{self, Listen};
use crate::host::{Directory, HostError};

/// Who may connect to a Unix socket of ours: its owner, and its group. The group is that of the process, or of the
/// directory where that has the set-group-ID bit: so `chgrp monitoring` and `chmod g+s` on the directory let one in.
pub const SOCKET_MODE: u32 = 0o660;

/// Connections that the kernel keeps for us until they are accepted.
const BACKLOG: i32 = 1024;

/// Why there is no listening at one place.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// The address cannot be bound.
    #[error("the health endpoint cannot listen at {address}: {source}")]
    Tcp {
        /// As configured.
        address: SocketAddr,
        /// What the operating system said.
        #[source]
        source: io::Error,
    },
    /// Something that is no socket has the name.
    #[error("the health endpoint cannot listen at {}: there is something that is no socket", path.display())]
    NotASocket {
        /// As configured.
        path: PathBuf,
    },
    /// Another process listens there.
    #[error("the health endpoint cannot listen at {}: another process does", path.display())]
    Taken {
        /// As configured.
        path: PathBuf,
    },
    /// Another user could put a socket of theirs in its place, or the directory is not there.
    #[error("the health endpoint cannot listen at {}: {source}", path.display())]
    Directory {
        /// As configured.
        path: PathBuf,
        /// What is wrong with its directory.
        #[source]
        source: HostError,
    },
    /// The socket cannot be made.
    #[error("the health endpoint cannot listen at {}: {source}", path.display())]
    Unix {
        /// As configured.
        path: PathBuf,
        /// What the operating system said.
        #[source]
        source: io::Error,
    },
    /// The service manager handed over something else.
    #[error("socket {number} from the service manager is neither a TCP nor a Unix stream socket: {source}")]
    Inherited {
        /// 1-based, in the order of the socket unit.
        number: usize,
        /// What is wrong with it.
        #[source]
        source: io::Error,
    },
}

impl ListenError {
    /// Which place of the configuration it is about; `None`: one of the service manager's.
    pub fn place(&self) -> Option<Listen> {
        match self {
            ListenError::Tcp { address, .. } => Some(Listen::Tcp(*address)),
            ListenError::NotASocket { path }
            | ListenError::Taken { path }
            | ListenError::Directory { path, .. }
            | ListenError::Unix { path, .. } => Some(Listen::Unix(path.clone())),
            ListenError::Inherited { .. } => None,
        }
    }

    /// Is it that another process listens there? It may be the service manager, for us.
    pub fn is_taken(&self) -> bool {
        match self {
            ListenError::Tcp { source, .. } => source.kind() == io::ErrorKind::AddrInUse,
            ListenError::Taken { .. } => true,
            _ => false,
        }
    }

    /// What to do about it.
    pub fn fix(&self) -> String {
        match self {
            ListenError::Tcp { address, source } => match source.kind() {
                io::ErrorKind::AddrInUse => format!(
                    "`ss -ltnp 'sport = :{}'` shows who listens there; stop it, or set another port in [health] listen",
                    address.port()
                ),
                io::ErrorKind::AddrNotAvailable => {
                    format!(
                        "{} is no address of this host: `ip address` lists them; correct [health] listen",
                        address.ip()
                    )
                }
                io::ErrorKind::PermissionDenied => {
                    "take a port from 1024 on in [health] listen; the ones below are for privileged processes".into()
                }
                _ => "correct [health] listen".into(),
            },
            ListenError::NotASocket { path } => {
                format!("see what {} is; remove it, or name another path in [health] listen", path.display())
            }
            ListenError::Taken { path } => {
                format!(
                    "`ss -lxp src {}` shows which; stop it, or name another path in [health] listen",
                    path.display()
                )
            }
            ListenError::Directory { source, .. } => source.fix(),
            ListenError::Unix { source, .. } => match source.kind() {
                io::ErrorKind::InvalidInput => {
                    "a socket's path may have 107 bytes: name a shorter one in [health] listen".into()
                }
                _ => "see to the directory, or name another path in [health] listen".into(),
            },
            ListenError::Inherited { .. } => {
                "let the socket unit have ListenStream= lines only, for addresses, ports and paths".into()
            }
        }
    }
}

/// One socket that is listened at. Copies share the socket; with the last of them, the file of a Unix socket that was
/// made here goes.
#[derive(Debug, Clone)]
pub struct HttpListener {
    pub(super) socket: Arc<Socket>,
    /// The place in the configuration; `None`: from the service manager.
    place: Option<Listen>,
}

/// The socket itself.
#[derive(Debug)]
pub(super) enum Socket {
    Tcp(TcpListener),
    Unix {
        listener: UnixListener,
        /// Removed at the end.
        _file: Option<SocketFile>,
    },
}

/// The name of a Unix socket that was made here.
#[derive(Debug)]
pub(super) struct SocketFile {
    path: PathBuf,
    /// Device and inode: what has its name later may be another's.
    id: (u64, u64),
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if fs::symlink_metadata(&self.path).is_ok_and(|m| (m.dev(), m.ino()) == self.id) {
            // Where it fails, the next start finds a socket that nobody listens at, and replaces it.
            let _ = fs::remove_file(&self.path);
        }
    }
}

impl HttpListener {
    /// The address, where it is a TCP socket.
    ///
    /// # Errors
    /// The operating system does not say.
    pub fn address(&self) -> io::Result<Option<SocketAddr>> {
        match &*self.socket {
            Socket::Tcp(listener) => listener.local_addr().map(Some),
            Socket::Unix { .. } => Ok(None),
        }
    }

    /// Where it listens, for people: an address, or the path of a socket.
    pub fn shown(&self) -> String {
        let path = |listener: &UnixListener| Some(listener.local_addr().ok()?.as_pathname()?.display().to_string());
        match &*self.socket {
            Socket::Tcp(listener) => listener.local_addr().ok().map(|at| at.to_string()),
            Socket::Unix { listener, .. } => path(listener),
        }
        .unwrap_or_else(|| "a socket that has no name".to_owned())
    }

    fn tcp(address: SocketAddr) -> Result<Self, ListenError> {
        let failed = |source| ListenError::Tcp { address, source };
        let listener = TcpListener::bind(address).map_err(failed)?;
        listener.set_nonblocking(true).map_err(failed)?;
        // A longer queue than the standard library asks for: where it overflows, clients try again only after a second.
        rustix::net::listen(&listener, BACKLOG).map_err(|e| failed(e.into()))?;
        Ok(Self { socket: Arc::new(Socket::Tcp(listener)), place: Some(Listen::Tcp(address)) })
    }

    fn unix(path: &Path) -> Result<Self, ListenError> {
        let failed = |source: io::Error| ListenError::Unix { path: path.to_owned(), source };
        let errno = |e: rustix::io::Errno| failed(e.into());
        let directory = path.parent().unwrap_or(Path::new("/"));
        Directory::open(directory).map_err(|source| ListenError::Directory { path: path.to_owned(), source })?;
        remove_stale(path)?;
        let name = address_of(path)?;
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None).map_err(errno)?;
        rustix::net::bind(&socket, &name).map_err(errno)?;
        // Before it listens nobody can connect, so there is no moment with a wider mode than this.
        rustix::fs::chmod(path, Mode::from_raw_mode(SOCKET_MODE)).map_err(errno)?;
        rustix::net::listen(&socket, BACKLOG).map_err(errno)?;
        let made = fs::symlink_metadata(path).map_err(failed)?;
        let file = SocketFile { path: path.to_owned(), id: (made.dev(), made.ino()) };
        let socket = Socket::Unix { listener: socket.into(), _file: Some(file) };
        Ok(Self { socket: Arc::new(socket), place: Some(Listen::Unix(path.to_owned())) })
    }

    /// Listens at one place.
    ///
    /// # Errors
    /// It is taken, or not there.
    pub fn at(place: &Listen) -> Result<Self, ListenError> {
        match place {
            Listen::Tcp(address) => Self::tcp(*address),
            Listen::Unix(path) => Self::unix(path),
        }
    }

    /// Is this the place, however it was opened?
    fn is_at(&self, place: &Listen) -> bool {
        if let Some(own) = &self.place {
            return own == place;
        }
        match (&*self.socket, place) {
            (Socket::Tcp(listener), Listen::Tcp(address)) => listener.local_addr().is_ok_and(|a| a == *address),
            (Socket::Unix { listener, .. }, Listen::Unix(path)) => {
                listener.local_addr().is_ok_and(|a| a.as_pathname() == Some(path))
            }
            _ => false,
        }
    }
}

fn address_of(path: &Path) -> Result<SocketAddrUnix, ListenError> {
    SocketAddrUnix::new(path).map_err(|e| {
        let source = match e {
            rustix::io::Errno::NAMETOOLONG => io::ErrorKind::InvalidInput.into(),
            e => e.into(),
        };
        ListenError::Unix { path: path.to_owned(), source }
    })
}

/// Removes a socket that a process which is gone has left behind.
fn remove_stale(path: &Path) -> Result<(), ListenError> {
    match find_stale(path)? {
        true => fs::remove_file(path).map_err(|source| ListenError::Unix { path: path.to_owned(), source }),
        false => Ok(()),
    }
}

/// Is there a socket that nobody listens at?
fn find_stale(path: &Path) -> Result<bool, ListenError> {
    let failed = |source| ListenError::Unix { path: path.to_owned(), source };
    match fs::symlink_metadata(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(e) => return Err(failed(e)),
        Ok(found) if !found.file_type().is_socket() => return Err(ListenError::NotASocket { path: path.to_owned() }),
        Ok(_) => {}
    }
    let name = address_of(path)?;
    // Not to wait where the queue of whoever listens is full.
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let probe =
        rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None).map_err(|e| failed(e.into()))?;
    match rustix::net::connect(&probe, &name) {
        Err(rustix::io::Errno::CONNREFUSED) => Ok(true),
        // Also where the queue is full, or the mode keeps us out: somebody is there.
        Ok(()) | Err(_) => Err(ListenError::Taken { path: path.to_owned() }),
    }
}

/// Sockets that the service manager opened for this process (`LISTEN_FDS`), such as by `relaykey.socket`, and what is wrong
/// with those that are no stream sockets. They may be taken once in the life of the process.
pub fn inherited() -> (Vec<HttpListener>, Vec<ListenError>) {
    let mut handed = ListenFd::from_env();
    let (mut listeners, mut errors) = (Vec::new(), Vec::new());
    for taken in (0..handed.len()).filter_map(|index| take(&mut handed, index).transpose()) {
        match taken {
            Ok(listener) => listeners.push(listener),
            Err(e) => errors.push(e),
        }
    }
    (listeners, errors)
}

fn take(handed: &mut ListenFd, index: usize) -> Result<Option<HttpListener>, ListenError> {
    let failed = |source| ListenError::Inherited { number: index + 1, source };
    let socket = match handed.take_tcp_listener(index) {
        Ok(None) => return Ok(None),
        Ok(Some(listener)) => {
            listener.set_nonblocking(true).map_err(failed)?;
            Socket::Tcp(listener)
        }
        Err(_) => {
            let Some(listener) = handed.take_unix_listener(index).map_err(failed)? else { return Ok(None) };
            listener.set_nonblocking(true).map_err(failed)?;
            Socket::Unix { listener, _file: None }
        }
    };
    Ok(Some(HttpListener { socket: Arc::new(socket), place: None }))
}

/// Opens every place of the configuration. One that is listened at already (`held`: from the service manager, or under
/// the configuration before) is kept as it is, so that nobody who connects meanwhile is turned away; inherited ones stay
/// whatever the configuration says. Places that cannot be listened at are given with the reason: the others are, all the
/// same.
pub fn open(health: Option<&config::Health>, held: &[HttpListener]) -> OpenedPlaces {
    let mut opened: Vec<HttpListener> = held.iter().filter(|l| l.place.is_none()).cloned().collect();
    let mut failed = Vec::new();
    for place in health.iter().flat_map(|h| &h.listen) {
        if opened.iter().any(|l| l.is_at(place)) {
            continue;
        }
        match held.iter().find(|l| l.is_at(place)).cloned().map_or_else(|| HttpListener::at(place), Ok) {
            Ok(listener) => opened.push(listener),
            Err(e) => failed.push((place.clone(), e)),
        }
    }
    OpenedPlaces { listeners: opened, failed }
}

/// What came of opening the places of a configuration.
#[derive(Debug)]
pub struct OpenedPlaces {
    /// What is listened at.
    pub listeners: Vec<HttpListener>,
    /// The other places of the configuration, and why not.
    pub failed: Vec<(Listen, ListenError)>,
}

/// Could this place be listened at? Nobody can connect meanwhile, and nothing is left behind.
///
/// `run_dir`: the directory that the daemon makes at its start.
///
/// # Errors
/// Why not, as [`HttpListener::at`] would say it.
pub fn look(place: &Listen, run_dir: &Path) -> Result<(), ListenError> {
    match place {
        Listen::Tcp(address) => {
            let failed = |e: rustix::io::Errno| ListenError::Tcp { address: *address, source: e.into() };
            let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
            let socket = rustix::net::socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC, None);
            let socket = socket.map_err(failed)?;
            // As the standard library binds: a connection of before that is not quite over is in nobody's way.
            rustix::net::sockopt::set_socket_reuseaddr(&socket, true).map_err(failed)?;
            rustix::net::bind(&socket, address).map_err(failed)
        }
        Listen::Unix(path) => {
            let directory = path.parent().unwrap_or(Path::new("/"));
            match Directory::open(directory) {
                Err(e) if e.is_not_found() && directory == run_dir => return address_of(path).map(drop),
                opened => opened.map_err(|source| ListenError::Directory { path: path.clone(), source })?,
            };
            address_of(path)?;
            find_stale(path).map(drop)
        }
    }
}
