//! Locks between programs: flock(2) on a file of our own, 0600, that nobody else can open. A lock on a directory itself, or on
//! a file that others can read, is theirs to hold for ever.
//!
//! - A directory of a mail server's tables is everybody's to read. Its lock file is in [`PLACE`], named after the directory's
//!   device and inode, so that every relaykey of this host that runs as root finds the same one by whatever path, and whatever
//!   state directory it has. The place is made where it is missing; where it cannot be made, that is an error, because another
//!   relaykey may have it. Who is not root has none there, and uses the file `.relaykey.lock` in the directory itself, which
//!   only they (and root) can write to: [`Directory`] has seen to that.
//! - A directory of our own (state, sockets) has a file `lock` in it. Where nobody else can open the directory, it is
//!   locked itself too: that is how relaykey 0.1.0 locks it.
//! - Who removes such a directory, or moves it away, takes its lock file along. What has to outlive that locks its name as well
//!   ([`lock_name`]): a file in [`PLACE`], named after the directory above and that name. Root's alone, as the place is.
//!
//! A lock file stays: one that nobody holds is no lock. One that was removed while somebody waited for it is made anew and
//! waited for again. None of them passes the choke point of mutating calls: there is nothing in them, and nothing is
//! lost with one.

use std::ffi::{OsStr, OsString};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::fs::{self, Access, AtFlags, FlockOperation, Mode, OFlags};
use rustix::io::Errno;

use super::{Directory, HostError, Result, Stat, create_dir, trust, trusted};

/// Where root's lock files for directories of others are. Not below `/run/lock`, which anybody may write to.
pub const PLACE: &str = "/run/relaykey-lock";
/// How often a lock that somebody holds is tried.
const AGAIN: Duration = Duration::from_millis(25);
/// So many bytes of a name, its last ones, are in the name of its lock file.
const LONGEST_NAME: usize = 200;

/// The lock on a directory; free again when dropped, or when the process ends however it ends.
#[derive(Debug)]
pub struct Lock {
    file: OwnedFd,
    directory_too: Option<OwnedFd>,
    /// Held open, so that its inode keeps the number after which the file is named.
    _of: OwnedFd,
}

impl Drop for Lock {
    /// Closing alone would not do: a child that another thread is about to start has a copy of every descriptor until its
    /// `exec` closes them, and the lock belongs to all copies.
    fn drop(&mut self) {
        for fd in std::iter::once(&self.file).chain(&self.directory_too) {
            // What cannot be unlocked is unlocked by being closed.
            let _ = fs::flock(fd, FlockOperation::Unlock);
        }
    }
}

/// Who locks a directory, and by which file.
#[derive(Clone, Copy)]
enum LockKind<'a> {
    Foreign,
    Own,
    /// A name in the directory, whatever has it.
    Name(&'a OsStr),
}

impl Directory {
    /// Takes the lock on a directory that others may read, such as one of tables, waiting for it at most `wait`. Every
    /// relaykey of this host that runs as the same user shares it.
    ///
    /// # Errors
    /// [`HostError::Locked`], with the process that holds it; [`HostError::NoLockPlace`].
    pub fn lock(&self, wait: Duration) -> Result<Lock> {
        self.lock_as(LockKind::Foreign, wait)
    }

    /// As [`Directory::lock`], for a directory that is relaykey's alone.
    ///
    /// # Errors
    /// [`HostError::Locked`], with the process that holds it; the system call failed.
    pub fn lock_own(&self, wait: Duration) -> Result<Lock> {
        self.lock_as(LockKind::Own, wait)
    }

    /// Could [`Directory::lock`] have its file, now that a rollover is to come? Makes nothing, and waits for nobody.
    ///
    /// # Errors
    /// As [`Directory::lock`], but for a lock that somebody holds.
    pub fn look_lockable(&self) -> Result<()> {
        if is_root() { look_place_at(Path::new(PLACE)).map_err(no_place) } else { self.look_writable() }
    }

    /// Could files of so many bytes be made here? Makes nothing; a quota is not seen.
    ///
    /// # Errors
    /// No file can be made here, or there is no room for them.
    pub fn look_room(&self, bytes: u64) -> Result<()> {
        self.look_writable()?;
        let failed = |e| HostError::io("write to", &self.path, e);
        let system = fs::fstatvfs(&self.fd).map_err(failed)?;
        let free = if is_root() { system.f_bfree } else { system.f_bavail };
        // A file system without a size has no limit.
        match system.f_blocks != 0 && free.saturating_mul(system.f_frsize) < bytes {
            true => Err(failed(Errno::NOSPC)),
            false => Ok(()),
        }
    }

    /// Is it marked (chattr(1)) so that files may be made here and none replaced?
    ///
    /// # Errors
    /// It is.
    pub fn look_marked(&self) -> Result<()> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let Ok(opened) = fs::openat(&self.fd, ".", flags, Mode::empty()) else { return Ok(()) };
        // A file system without such marks has nothing to say.
        match fs::ioctl_getflags(&opened) {
            Ok(marks) if marks.contains(fs::IFlags::APPEND) => {
                Err(HostError::io("replace a file in", &self.path, Errno::PERM))
            }
            _ => Ok(()),
        }
    }

    /// Could a file be made here? Root may do so anywhere but on a file system, or in a directory, that takes nothing.
    fn look_writable(&self) -> Result<()> {
        let may = Access::WRITE_OK | Access::EXEC_OK;
        fs::accessat(&self.fd, ".", may, AtFlags::empty()).map_err(|e| HostError::io("write to", &self.path, e))
    }

    fn lock_as(&self, kind: LockKind<'_>, wait: Duration) -> Result<Lock> {
        let started = Instant::now();
        loop {
            let held = match self.try_lock(kind)? {
                Ok(lock) => return Ok(lock),
                Err(held) => held,
            };
            let waited = started.elapsed();
            if waited >= wait {
                let holder = holder_of(held.0, held.1).map_or(LockHolder::Unseen, LockHolder::Process);
                let path = match kind {
                    LockKind::Name(name) => self.path.join(name),
                    LockKind::Foreign | LockKind::Own => self.path.clone(),
                };
                return Err(HostError::Locked { path, holder, waited });
            }
            std::thread::sleep(AGAIN.min(wait - waited));
        }
    }

    /// The lock, or device and inode of what somebody else has locked.
    fn try_lock(&self, kind: LockKind<'_>) -> Result<std::result::Result<Lock, (u64, u64)>> {
        let failed = |e: Errno| HostError::io("lock", &self.path, e);
        let own = |name: &str| self.open_lock_file(OsStr::new(name));
        let file = match kind {
            LockKind::Own => own("lock")?,
            LockKind::Foreign if is_root() => {
                let (dev, ino) = self.id()?;
                let name = OsString::from(format!("{}:{}-{ino}", fs::major(dev), fs::minor(dev)));
                place()?.open_lock_file(&name).map_err(no_place)?
            }
            LockKind::Foreign => own(".relaykey.lock")?,
            LockKind::Name(name) => place()?.open_lock_file(&self.file_of_name(name)?).map_err(no_place)?,
        };
        let Some(file) = file else { return Ok(Err((0, 0))) };
        let id = |fd: &OwnedFd| Stat::of_fd(fd).map(|stat| (stat.id.dev, stat.id.ino)).map_err(failed);
        if !take(&file).map_err(failed)? {
            return Ok(Err(id(&file)?));
        }
        let stat = Stat::of_fd(&self.fd).map_err(failed)?;
        let directory_too = match kind {
            LockKind::Own if stat.mode & 0o077 == 0 => {
                // A description of its own: flock belongs to it, and closing it ends the lock.
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
                let directory = fs::openat(&self.fd, ".", flags, Mode::empty()).map_err(failed)?;
                if !take(&directory).map_err(failed)? {
                    return Ok(Err(id(&directory)?));
                }
                Some(directory)
            }
            _ => None,
        };
        let of = rustix::io::fcntl_dupfd_cloexec(&self.fd, 0).map_err(failed)?;
        Ok(Ok(Lock { file, directory_too, _of: of }))
    }

    /// The name in [`PLACE`] of the lock file for a name in this directory.
    fn file_of_name(&self, name: &OsStr) -> Result<OsString> {
        let (dev, ino) = self.id()?;
        let mut file = OsString::from(format!("{}:{}-{ino}-", fs::major(dev), fs::minor(dev)));
        // There is room for 255 bytes. Two long names with one end in one directory would only wait for each other.
        let bytes = name.as_bytes();
        file.push(OsStr::from_bytes(&bytes[bytes.len().saturating_sub(LONGEST_NAME)..]));
        Ok(file)
    }

    /// A lock file here, made where it is missing; `None`: it went while it was opened.
    fn open_lock_file(&self, name: &OsStr) -> Result<Option<OwnedFd>> {
        let path = || self.path.join(name);
        let flags =
            OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let mode = Mode::from_raw_mode(0o600);
        let file = fs::openat(&self.fd, name, flags, mode).map_err(|e| HostError::io("open", path(), e))?;
        let stat = Stat::of_fd(&file).map_err(|e| HostError::io("look at", path(), e))?.regular(path)?;
        if stat.mode & 0o7777 != 0o600 && trusted(stat.uid) {
            fs::fchmod(&file, mode).map_err(|e| HostError::io("change the mode of", path(), e))?;
        }
        // A lock on a file that is not there any more keeps nobody out.
        let there = Stat::of(&self.fd, name, AtFlags::empty());
        Ok(there.is_ok_and(|there| (there.id.dev, there.id.ino) == (stat.id.dev, stat.id.ino)).then_some(file))
    }
}

/// Takes the lock on a path by its name, whatever has that, or nothing: it is in the way of another one also where what had the name
/// was removed. `None`: not for this user; there is no place for it; or the directory above is not there, or not safe.
///
/// # Errors
/// [`HostError::Locked`], with the process that holds it.
pub fn lock_name(path: &Path, wait: Duration) -> Result<Option<Lock>> {
    let (true, Some((above, name))) = (is_root(), above(path)) else { return Ok(None) };
    match above.lock_as(LockKind::Name(name), wait) {
        Ok(lock) => Ok(Some(lock)),
        Err(e @ HostError::Locked { .. }) => Err(e),
        // Without the place no table can be locked either, and that is said.
        Err(_) => Ok(None),
    }
}

/// Who holds the lock on a name; `None`: nobody, or it cannot be seen. Makes nothing.
pub fn name_holder(path: &Path) -> Option<Holder> {
    let (above, name) = above(path)?;
    holder(&Path::new(PLACE).join(above.file_of_name(name).ok()?))
}

fn above(path: &Path) -> Option<(Directory, &OsStr)> {
    Some((Directory::open(path.parent()?).ok()?, path.file_name()?))
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// [`PLACE`], made where it is missing.
fn place() -> Result<Directory> {
    place_at(Path::new(PLACE)).map_err(no_place)
}

fn place_at(path: &Path) -> Result<Directory> {
    match trust::walk(path, trust::TrustRule::Make)?.directory()? {
        (found, None) => Ok(found),
        (_, Some(_)) => create_dir(path, 0o700),
    }
}

/// Is the place there, or could [`place_at`] make it?
fn look_place_at(path: &Path) -> Result<()> {
    match trust::walk(path, trust::TrustRule::Make)?.directory()? {
        (found, None) => found.look_writable(),
        (above, Some(name)) => match above.look(&name)? {
            None => above.look_writable(),
            Some(_) => Err(HostError::io("open the directory", path, Errno::NOTDIR)),
        },
    }
}

fn no_place(e: HostError) -> HostError {
    match e {
        HostError::Io { doing, path, source } => HostError::NoLockPlace { doing, path, source },
        other => other,
    }
}

/// Takes a lock if nobody has it.
fn take(fd: &OwnedFd) -> rustix::io::Result<bool> {
    match fs::flock(fd, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(true),
        Err(Errno::WOULDBLOCK | Errno::INTR) => Ok(false),
        Err(e) => Err(e),
    }
}

/// A process that holds a lock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    /// Its number.
    pub pid: i32,
    name: String,
    /// Is it `relaykey run`, which holds its state directory for as long as it lives?
    pub is_daemon: bool,
}

impl std::fmt::Display for Holder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.is_daemon {
            true => write!(f, "the relaykey daemon, process {}", self.pid),
            false => write!(f, "process {} ({})", self.pid, self.name),
        }
    }
}

/// Who holds a lock that was waited for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LockHolder {
    /// Another process.
    Process(Holder),
    /// Another target of this process.
    OwnTarget,
    /// It is not seen, as from another pid namespace.
    Unseen,
}

impl LockHolder {
    /// The daemon, which holds its state directory for as long as it lives.
    pub fn daemon(&self) -> Option<&Holder> {
        match self {
            LockHolder::Process(holder) if holder.is_daemon => Some(holder),
            _ => None,
        }
    }
}

impl std::fmt::Display for LockHolder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            LockHolder::Process(holder) => holder.fmt(f),
            LockHolder::OwnTarget => {
                f.write_str("another target of this process, whose files in it cannot be replaced at the moment")
            }
            LockHolder::Unseen => f.write_str("a process that /proc/locks does not name"),
        }
    }
}

/// Who holds the flock on a file, which anybody can take who may read it; `None`: nobody, or it cannot be seen.
pub fn holder(file: &Path) -> Option<Holder> {
    let file = std::fs::canonicalize(file).ok()?;
    let stat = Stat::of(fs::CWD, file.as_os_str(), AtFlags::empty()).ok()?;
    holder_of(stat.id.dev, stat.id.ino)
}

/// Who holds the flock on an inode, from `/proc/locks` (proc(5)). Seen from another pid namespace nobody does.
fn holder_of(dev: u64, ino: u64) -> Option<Holder> {
    let locks = std::fs::read_to_string("/proc/locks").ok()?;
    let inode = format!("{:02x}:{:02x}:{ino}", fs::major(dev), fs::minor(dev));
    let pids = |same: &dyn Fn(&str) -> bool| {
        let held = |line: &str| {
            let fields: Vec<&str> = line.split_ascii_whitespace().collect();
            // `-> ` in the second field: one that waits.
            matches!(fields.as_slice(), [_, "FLOCK", _, _, _, at, ..] if same(at))
                .then(|| fields[4].parse::<i32>().ok())
                .flatten()
        };
        locks.lines().filter_map(held).filter(|pid| *pid > 0).collect::<Vec<_>>()
    };
    let mut found = pids(&|at| at == inode);
    if found.is_empty() {
        // Some file systems (btrfs, overlay) show another device there than stat does.
        found = pids(&|at| at.rsplit(':').next() == Some(ino.to_string().as_str()));
    }
    let pid = *found.first()?;
    let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    let name = if name.trim().is_empty() { "unknown".to_owned() } else { name.trim().to_owned() };
    let is_daemon = std::fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|arguments| is_daemon(&arguments));
    Some(Holder { pid, name, is_daemon })
}

/// Do these arguments (proc(5), `cmdline`) start the daemon?
fn is_daemon(arguments: &[u8]) -> bool {
    let mut arguments = arguments.split(|byte| *byte == 0);
    let program = arguments.next().and_then(|path| path.rsplit(|byte| *byte == b'/').next());
    let mut command = None;
    while command.is_none() {
        match arguments.next() {
            Some(b"--config") => _ = arguments.next(),
            Some(option) if option.starts_with(b"-") => {}
            other => command = Some(other),
        }
    }
    program == Some(b"relaykey") && command.flatten() == Some(b"run")
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};

    use super::*;

    #[test]
    fn the_daemon_is_known_by_its_command() {
        for (arguments, is) in [
            ("/usr/bin/relaykey\0run\0", true),
            ("relaykey\0--config\0/etc/run.toml\0run\0", true),
            ("relaykey\0--config=/c\0--json\0run\0", true),
            ("relaykey\0sync\0run\0", false),
            ("relaykey\0--config\0run\0sync\0", false),
            ("flock\0run\0", false),
            ("relaykey\0", false),
            ("", false),
        ] {
            assert_eq!(is_daemon(arguments.as_bytes()), is, "{arguments:?}");
        }
    }

    /// As where `/run` is a tmpfs of mode 1777, which is the kernel's default.
    #[test]
    fn the_place_is_made_in_a_sticky_directory() {
        let scratch = tempfile::Builder::new().prefix("relaykey-locks-").tempdir().unwrap();
        let run = scratch.path();
        std::fs::set_permissions(run, std::fs::Permissions::from_mode(0o1777)).unwrap();
        let place = run.join("relaykey-lock");
        let made = place_at(&place).map(|made| std::fs::metadata(made.path()).unwrap().mode() & 0o7777);
        let again = place_at(&place).map(|found| found.open_lock_file(OsStr::new("1:2-3")).unwrap().is_some());
        assert_eq!((made.unwrap(), again.unwrap()), (0o700, true));
    }
}
