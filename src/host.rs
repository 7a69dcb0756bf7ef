//! The operating system's side: files that are replaced whole or not at all, locks, commands, the process itself.
//!
//! Words: a [`Directory`] was checked from `/` down and is held open, and all work on its files is relative to it. A
//! *live* file is one that somebody reads; a *staged* one is its successor beside it, complete before it is renamed
//! over the live one. Live files are only ever renamed over: a hard link to the old one, or moving it aside, would
//! keep a running Postfix on the old credential, which looks at the link count.
//!
//! Every call that changes anything but a lock file, which holds nothing, passes [`mutate`], which numbers them, so that
//! tests can stop the program at exactly the n-th and replay every prefix. With the cargo feature `crash-at`, which
//! packages never have, `CRASH_AT=n` aborts the process just before the n-th call (counted from 1) and `CRASH_LOG=FILE`
//! records each.

mod locks;
pub mod trust;

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::ops::Range;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::FileExt;
use std::os::unix::process::CommandExt;
use std::path::{Component, Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{self, AtFlags, FileType, Mode, OFlags, RenameFlags, StatxAttributes, StatxFlags};
use rustix::io::Errno;
use rustix::process::{DumpableBehavior, Pid, PidfdFlags, Resource, Rlimit, Signal, pidfd_open};
use rustix::time::{ClockId, clock_gettime};
use zeroize::Zeroizing;

pub use locks::{Holder, Lock, PLACE as LOCK_PLACE, holder};

/// What a command may write to its standard output before it is ended: a Postfix with many tables says kilobytes.
const MAX_STDOUT: usize = 8 * 1024 * 1024;
/// What is kept of a command's standard error; the rest is read and forgotten.
const MAX_STDERR: usize = 64 * 1024;
/// How long a command that only reads may still take once the program is to end: see [`ending`].
const LAST_LOOK: Duration = Duration::from_secs(5);
/// Where commands are looked for. The caller's own `PATH` does not count.
const COMMAND_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Symbolic links followed on one path, as the kernel's own limit.
const MAX_LINKS: usize = 40;
const ACL: &str = "system.posix_acl_access";

/// Why something could not be read or changed. Carries names and reasons, never content.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the fields are the parts of each variant's message")]
pub enum HostError {
    /// The call that `doing` names failed.
    #[error("cannot {doing} {}: {source}", path.display())]
    Io { doing: &'static str, path: PathBuf, source: io::Error },
    /// Somebody else could put another file or directory in the place of ours.
    #[error("{} is not safe to work in: {} {reason}", path.display(), directory.display())]
    UnsafeDirectory { path: PathBuf, directory: PathBuf, reason: trust::Open },
    /// Somebody else could have written what is to be read or run.
    #[error("{} is not trusted: {found}", path.display())]
    Untrusted { path: PathBuf, found: trust::Distrust },
    /// A directory, device, FIFO or socket where a file is expected.
    #[error("{} is {what}, not a regular file", path.display())]
    NotRegular { path: PathBuf, what: &'static str },
    /// More than one name: a rename would part them, writing in place would be seen half done.
    #[error("{} has {links} hard links, and replacing it would part them", path.display())]
    Linked { path: PathBuf, links: u32 },
    /// A file that is a mount point of its own, as containers get one: it cannot be renamed over.
    #[error("{} is a mount point of its own (a single-file bind mount), which cannot be replaced", path.display())]
    BindMount { path: PathBuf },
    /// More bytes than the caller takes.
    #[error("{} has {size} bytes, more than the {max} that are read", path.display())]
    TooLarge { path: PathBuf, size: u64, max: u64 },
    /// Somebody wrote to it after it was read.
    #[error("{} was changed by somebody else in the meantime", path.display())]
    Changed { path: PathBuf },
    /// The live file has an attribute that its successor could not be given.
    #[error("cannot give {} the attribute {name} of the file it replaces: {source}", path.display())]
    Attribute { path: PathBuf, name: String, source: io::Error },
    /// The lock on a directory was not free in time.
    #[error("{} is locked by {holder}; waited {} s", path.display(), waited.as_secs())]
    Locked { path: PathBuf, holder: String, waited: Duration },
    /// The place where every relaykey of this host has its locks cannot be used.
    #[error("cannot {doing} {}: {source}; without it, two relaykeys could change one table at once", path.display())]
    NoLockPlace { doing: &'static str, path: PathBuf, source: io::Error },
    /// A command could not be started.
    #[error("cannot run {program}: {source}")]
    NotStarted { program: String, source: io::Error },
    /// A command was ended, with its process group, because it took too long.
    #[error("{program} did not end within {} s and was killed", after.as_secs())]
    TimedOut { program: String, after: Duration },
    /// A command was ended because it wrote more than is taken.
    #[error("{program} wrote more than {limit} bytes to its standard output and was killed")]
    TooMuchOutput { program: String, limit: usize },
}

impl HostError {
    fn io(doing: &'static str, path: impl Into<PathBuf>, source: impl Into<io::Error>) -> Self {
        HostError::Io { doing, path: path.into(), source: source.into() }
    }

    /// The file or directory it is about; `None` for commands.
    pub fn path(&self) -> Option<&Path> {
        match self {
            HostError::Io { path, .. }
            | HostError::UnsafeDirectory { path, .. }
            | HostError::Untrusted { path, .. }
            | HostError::NotRegular { path, .. }
            | HostError::Linked { path, .. }
            | HostError::BindMount { path }
            | HostError::TooLarge { path, .. }
            | HostError::Changed { path }
            | HostError::NoLockPlace { path, .. }
            | HostError::Attribute { path, .. }
            | HostError::Locked { path, .. } => Some(path),
            HostError::NotStarted { .. } | HostError::TimedOut { .. } | HostError::TooMuchOutput { .. } => None,
        }
    }

    /// The operating system's error number behind it.
    fn errno(&self) -> Option<Errno> {
        match self {
            HostError::Io { source, .. }
            | HostError::NoLockPlace { source, .. }
            | HostError::NotStarted { source, .. } => Errno::from_io_error(source),
            _ => None,
        }
    }

    /// Is it that nothing of that name exists?
    pub fn is_not_found(&self) -> bool {
        self.errno() == Some(Errno::NOENT)
    }

    /// Will trying again help without anybody doing anything? A full file system counts: mail queues come and go.
    pub fn is_temporary(&self) -> bool {
        match self {
            HostError::Changed { .. } | HostError::Locked { .. } | HostError::TimedOut { .. } => true,
            HostError::Io { .. } | HostError::NoLockPlace { .. } | HostError::NotStarted { .. } => matches!(
                self.errno(),
                Some(
                    Errno::NOSPC
                        | Errno::DQUOT
                        | Errno::INTR
                        | Errno::AGAIN
                        | Errno::NOMEM
                        | Errno::MFILE
                        | Errno::NFILE
                        | Errno::TXTBSY
                        | Errno::BUSY
                        | Errno::STALE
                )
            ),
            _ => false,
        }
    }

    /// The machine-readable class, in the words of `mta::MtaError`.
    pub fn class(&self) -> &'static str {
        match self {
            HostError::Io { .. } | HostError::NoLockPlace { .. } => match self.errno() {
                Some(Errno::NOSPC | Errno::DQUOT | Errno::FBIG) => "no-space",
                Some(Errno::ACCESS | Errno::PERM | Errno::ROFS) => "permissions",
                _ => "io",
            },
            HostError::UnsafeDirectory { .. } | HostError::Untrusted { .. } | HostError::Attribute { .. } => {
                "permissions"
            }
            HostError::NotRegular { .. } | HostError::Linked { .. } | HostError::BindMount { .. } => "unsupported",
            HostError::TooLarge { .. } => "too-large",
            HostError::Changed { .. } => "changed-underneath",
            HostError::Locked { .. } => "lock-held",
            HostError::NotStarted { .. } | HostError::TimedOut { .. } | HostError::TooMuchOutput { .. } => "command",
        }
    }

    /// What to do about it.
    pub fn fix(&self) -> String {
        match self {
            // A flag of the directory keeps names from being made in it and removed.
            HostError::Io { doing: "create" | "remove" | "make the directory", path, source }
                if matches!(Errno::from_io_error(source), Some(Errno::ACCESS | Errno::PERM)) =>
            {
                not_permitted(path.parent().unwrap_or(path))
            }
            HostError::Io { path, .. } => match self.errno() {
                Some(Errno::NOSPC) => format!("free space on the file system that holds {}", path.display()),
                Some(Errno::DQUOT) => format!("raise the quota of the file system that holds {}", path.display()),
                Some(Errno::FBIG) => format!(
                    "raise the limit of file sizes under which relaykey runs (`ulimit -f`; in a unit LimitFSIZE=), or that of the \
                     file system that holds {}",
                    path.display()
                ),
                Some(Errno::ROFS) => format!(
                    "mount it writable; under systemd the directory must be in ReadWritePaths=: {}",
                    path.parent().unwrap_or(path).display()
                ),
                Some(Errno::ACCESS | Errno::PERM) => not_permitted(path),
                Some(Errno::NOENT) => format!("create {}, or correct the path", path.display()),
                Some(Errno::LOOP) => format!("look at the symbolic links of {}: namei -l", path.display()),
                _ => format!("look at the file and at the kernel's log: ls -ld {}; dmesg", path.display()),
            },
            // Taking the write bit off a sticky directory (`/tmp`) would be others' loss.
            HostError::UnsafeDirectory { path, reason, .. } if reason.is_sticky() => {
                format!("ls -ld {} # and have it in a directory that only root can change", trust::quoted(path))
            }
            HostError::UnsafeDirectory { directory, .. } => {
                let at = trust::quoted(directory);
                format!(
                    "chown root {at} && chmod go-w {at} # or move the file to a directory that only root can change"
                )
            }
            HostError::Untrusted { found, .. } => found.fix(),
            HostError::NotRegular { path, .. } => format!("name a regular file instead of {}", path.display()),
            HostError::Linked { path, .. } => format!(
                "find the other names with `find / -xdev -samefile {}` and remove them, or make them symbolic links",
                path.display()
            ),
            HostError::BindMount { path } => {
                format!("mount the directory {} instead of the file", path.parent().unwrap_or(path).display())
            }
            HostError::TooLarge { path, .. } => {
                format!("is {} what it should be? split it, or name another", path.display())
            }
            HostError::Changed { .. } => "it is looked at again; if this stays, find who keeps writing to it".into(),
            HostError::Attribute { path, name, .. } => format!(
                "run where that attribute may be set (for security.selinux: a policy that allows relabelling), or \
                 take it off the live file: setfattr -x {name} {}",
                path.display()
            ),
            HostError::NoLockPlace { doing, path, source } => match Errno::from_io_error(source) {
                Some(Errno::NOENT) => format!("mkdir -p -m 0700 {LOCK_PLACE} # then restart relaykey"),
                Some(Errno::ROFS) => format!(
                    "in a unit of your own ReadWritePaths=-{LOCK_PLACE}, in a container with a read-only root a tmpfs at /run; \
                     then restart relaykey"
                ),
                Some(Errno::NOTDIR | Errno::ISDIR | Errno::LOOP) => {
                    format!("ls -ld {0} # move aside what is there instead of a directory", trust::quoted(path))
                }
                _ => {
                    let source = io::Error::from_raw_os_error(source.raw_os_error().unwrap_or_default());
                    HostError::Io { doing, path: path.clone(), source }.fix()
                }
            },
            HostError::Locked { .. } => "wait until that process is done; if it hangs, end it".into(),
            HostError::NotStarted { program, .. } => match self.errno() {
                Some(Errno::NOENT) => format!("install {program}, or write its full path"),
                Some(Errno::ACCESS) => format!("make {program} executable"),
                _ => format!("look at {program}: file, ls -l"),
            },
            HostError::TimedOut { program, .. } => format!("run {program} by hand and see where it hangs"),
            HostError::TooMuchOutput { program, .. } => format!("run {program} by hand and see what it writes"),
        }
    }
}

fn not_permitted(path: &Path) -> String {
    format!(
        "run as root; as root, look at `lsattr -d {0}` (chattr -i takes the immutable flag off, chattr -a that of append-only) \
         and, with SELinux, at `ausearch -m avc -ts recent`",
        path.display()
    )
}

/// What the functions here give.
pub type Result<T> = std::result::Result<T, HostError>;

/// What `stat` says of a file that was read: if any of it differs later, somebody changed the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct FileId {
    /// Device number of the file system.
    pub dev: u64,
    /// Inode number.
    pub ino: u64,
    /// Bytes.
    pub size: u64,
    /// Time of the last change of the content, nanoseconds since 1970.
    pub mtime_ns: i128,
    /// Time of the last change of content, name count, owner or mode, nanoseconds since 1970.
    pub ctime_ns: i128,
}

impl FileId {
    /// Is it still that file, with that content? Owner, mode and attributes may be others.
    fn is_still(&self, before: &FileId) -> bool {
        let content = |id: &FileId| (id.dev, id.ino, id.size, id.mtime_ns);
        content(self) == content(before)
    }
}

// ---------------------------------------------------------------------------------------------------------------
// The choke point

/// One mutating call, as the choke point sees it. `bytes` and `to` are for the tests' log.
#[cfg_attr(not(feature = "crash-at"), expect(dead_code, reason = "what only the tests' log reads"))]
struct Op<'a> {
    /// The verb, as errors say it.
    doing: &'static str,
    dir: &'a Path,
    name: &'a OsStr,
    to: Option<&'a OsStr>,
    bytes: &'a [u8],
}

impl<'a> Op<'a> {
    fn new(doing: &'static str, dir: &'a Path, name: &'a OsStr) -> Self {
        Self { doing, dir, name, to: None, bytes: &[] }
    }

    fn path(&self) -> PathBuf {
        if self.name.is_empty() { self.dir.to_owned() } else { self.dir.join(self.name) }
    }
}

/// The one way to change anything outside this process.
fn mutate<T, E: Into<io::Error>>(op: &Op<'_>, call: impl FnOnce() -> std::result::Result<T, E>) -> Result<T> {
    #[cfg(feature = "crash-at")]
    crash::before();
    let done = call().map_err(|e| HostError::io(op.doing, op.path(), e))?;
    #[cfg(feature = "crash-at")]
    crash::after(op);
    Ok(done)
}

/// Stops the process at the n-th mutating call, and records those that were made. Never in a package.
#[cfg(feature = "crash-at")]
mod crash {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    use std::sync::atomic::{AtomicU64, Ordering};

    use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};

    use super::Op;

    static CALLS: AtomicU64 = AtomicU64::new(0);

    /// Counts the call, and ends the process if it is the one that `CRASH_AT` names.
    pub(super) fn before() {
        let n = CALLS.fetch_add(1, Ordering::SeqCst) + 1;
        if std::env::var("CRASH_AT").is_ok_and(|at| at.parse() == Ok(n)) {
            std::process::abort();
        }
    }

    /// Appends the call to `CRASH_LOG`, one JSON object per line: what it did, to which path, and the bytes that it
    /// wrote; for an fsync the bytes that are safe from now on, for a rename those that got the new name, for an append
    /// all that the file has then. The file that a command made is first told of by one of the first two.
    pub(super) fn after(op: &Op<'_>) {
        let Some(log) = std::env::var_os("CRASH_LOG") else { return };
        let read = |path| std::fs::read(path).unwrap_or_default();
        let bytes = match (op.doing, op.to) {
            ("fsync" | "append to", _) => read(op.path()),
            (_, Some(to)) => read(op.dir.join(to)),
            _ => op.bytes.to_vec(),
        };
        let line = serde_json::json!({
            "n": CALLS.load(Ordering::SeqCst),
            "op": op.doing,
            "path": op.path(),
            "to": op.to.map(|to| op.dir.join(to)),
            "bytes": BASE64.encode(bytes),
        });
        let mut file = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .mode(0o600)
            .open(log)
            .expect("CRASH_LOG names a file that can be written");
        writeln!(file, "{line}").expect("CRASH_LOG can be written");
    }
}

// ---------------------------------------------------------------------------------------------------------------
// Directories and files

/// What one `statx` says, in types that are the same on every architecture.
#[derive(Clone, Copy)]
struct Stat {
    id: FileId,
    kind: FileType,
    mode: u32,
    uid: u32,
    gid: u32,
    links: u32,
    mount_root: bool,
}

impl Stat {
    fn of(dir: impl AsFd, name: &OsStr, flags: AtFlags) -> rustix::io::Result<Self> {
        let s = fs::statx(dir, name, flags | AtFlags::SYMLINK_NOFOLLOW, StatxFlags::BASIC_STATS)?;
        let ns = |t: &fs::StatxTimestamp| i128::from(t.tv_sec) * 1_000_000_000 + i128::from(t.tv_nsec);
        Ok(Self {
            id: FileId {
                dev: fs::makedev(s.stx_dev_major, s.stx_dev_minor),
                ino: s.stx_ino,
                size: s.stx_size,
                mtime_ns: ns(&s.stx_mtime),
                ctime_ns: ns(&s.stx_ctime),
            },
            kind: FileType::from_raw_mode(s.stx_mode.into()),
            mode: u32::from(s.stx_mode) & 0o7777,
            uid: s.stx_uid,
            gid: s.stx_gid,
            links: s.stx_nlink,
            // Linux 5.8 and later say it; before, the rename fails with EBUSY.
            mount_root: s.stx_attributes.contains(StatxAttributes::MOUNT_ROOT),
        })
    }

    fn of_fd(fd: impl AsFd) -> rustix::io::Result<Self> {
        Self::of(fd, OsStr::new(""), AtFlags::EMPTY_PATH)
    }

    fn permissions(&self) -> Permissions {
        Permissions { uid: self.uid, gid: self.gid, mode: self.mode }
    }

    fn regular(self, path: impl FnOnce() -> PathBuf) -> Result<Self> {
        let what = match self.kind {
            FileType::RegularFile => return Ok(self),
            FileType::Directory => "a directory",
            FileType::Symlink => "a symbolic link",
            FileType::Fifo => "a FIFO",
            FileType::Socket => "a socket",
            FileType::CharacterDevice | FileType::BlockDevice => "a device",
            _ => "something else",
        };
        Err(HostError::NotRegular { path: path(), what })
    }
}

/// May another user change what this owner owns? Root may do everything anyway.
fn trusted(uid: u32) -> bool {
    uid == 0 || uid == rustix::process::geteuid().as_raw()
}

/// Who owns a file and may do what with it. An ACL shows in the group's bits, as it does to `ls`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Permissions {
    /// User id of the owner.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
    /// The last twelve bits of the mode: set-id, sticky, and rwx three times.
    pub mode: u32,
}

impl Permissions {
    /// Is it root's, or ours where we are not root?
    pub fn is_trusted(&self) -> bool {
        trusted(self.uid)
    }
}

/// A directory that nobody but root (and ourselves, where we are not root) can change, nor any directory above it.
/// Symbolic links were resolved once, on the way; the directory is held open, and its files are reached through it.
pub struct Directory {
    path: PathBuf,
    fd: OwnedFd,
}

impl std::fmt::Debug for Directory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Directory({})", self.path.display())
    }
}

impl Directory {
    /// Opens and checks a directory. Relative paths start at the working directory.
    ///
    /// # Errors
    /// It does not exist or is none; it or one above it may be changed by others ([`HostError::UnsafeDirectory`]).
    pub fn open(path: &Path) -> Result<Self> {
        let (directory, name) = Self::walk(path)?;
        match name {
            None => Ok(directory),
            Some(name) => {
                let exists = directory.look(&name)?.is_some();
                let why = if exists { Errno::NOTDIR } else { Errno::NOENT };
                Err(HostError::io("open the directory", directory.path.join(name), why))
            }
        }
    }

    /// Resolves a file's path: its checked directory, and its name in it. The file need not exist; if its name is a
    /// symbolic link, the directory is that of what it leads to.
    ///
    /// # Errors
    /// As [`Directory::open`]; [`HostError::NotRegular`] if the path is a directory.
    pub fn of(file: &Path) -> Result<(Self, OsString)> {
        match Self::walk(file)? {
            (directory, Some(name)) => Ok((directory, name)),
            (directory, None) => Err(HostError::NotRegular { path: directory.path, what: "a directory" }),
        }
    }

    /// Goes down from `/` by the stricter rule, one name at a time. Ends at a directory (no name), or at a last name that
    /// is no directory or does not exist.
    fn walk(path: &Path) -> Result<(Self, Option<OsString>)> {
        trust::walk(path, trust::Rule::Replace)?.directory()
    }

    /// Where it is, without symbolic links.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Device and inode: two paths of one directory have the same.
    ///
    /// # Errors
    /// The system call failed.
    pub fn id(&self) -> Result<(u64, u64)> {
        let stat = Stat::of_fd(&self.fd).map_err(|e| HostError::io("look at", &self.path, e))?;
        Ok((stat.id.dev, stat.id.ino))
    }

    fn stat(&self, name: &OsStr) -> Result<Option<Stat>> {
        match Stat::of(&self.fd, name, AtFlags::empty()) {
            Ok(stat) => stat.regular(|| self.path.join(name)).map(Some),
            Err(Errno::NOENT) => Ok(None),
            Err(e) => Err(HostError::io("look at", self.path.join(name), e)),
        }
    }

    /// The file as it is now; `None`: there is none of that name.
    ///
    /// # Errors
    /// [`HostError::NotRegular`]; the system call failed.
    pub fn look(&self, name: &OsStr) -> Result<Option<FileId>> {
        Ok(self.stat(name)?.map(|stat| stat.id))
    }

    /// Who owns a file and may do what with it; `None`: there is none of that name.
    ///
    /// # Errors
    /// [`HostError::NotRegular`]; the system call failed.
    pub fn permissions(&self, name: &OsStr) -> Result<Option<Permissions>> {
        Ok(self.stat(name)?.map(|stat| stat.permissions()))
    }

    /// As [`Directory::look`], for a file that is to be replaced.
    ///
    /// # Errors
    /// Also [`HostError::Linked`] and [`HostError::BindMount`]: what a rename would break, or could not do.
    pub fn look_replaceable(&self, name: &OsStr) -> Result<Option<FileId>> {
        let Some(stat) = self.stat(name)? else { return Ok(None) };
        if stat.mount_root {
            return Err(HostError::BindMount { path: self.path.join(name) });
        }
        if stat.links > 1 {
            return Err(HostError::Linked { path: self.path.join(name), links: stat.links });
        }
        Ok(Some(stat.id))
    }

    fn open_file(&self, name: &OsStr) -> Result<(File, Stat)> {
        let path = || self.path.join(name);
        // Looked at before it is opened: opening a FIFO waits, opening a device may do something.
        let found = Stat::of(&self.fd, name, AtFlags::empty()).map_err(|e| HostError::io("open", path(), e))?;
        found.regular(path)?;
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let file = fs::openat(&self.fd, name, flags, Mode::empty()).map_err(|e| HostError::io("open", path(), e))?;
        let stat = Stat::of_fd(&file).map_err(|e| HostError::io("look at", path(), e))?.regular(path)?;
        Ok((File::from(file), stat))
    }

    /// Reads a whole file of at most `max` bytes, and says which state of it that was.
    ///
    /// # Errors
    /// [`HostError::TooLarge`]; [`HostError::NotRegular`]; [`HostError::Changed`] if it was written to each of the
    /// three times that it was read; the system call failed, also because there is no such file.
    pub fn read(&self, name: &OsStr, max: usize) -> Result<(Zeroizing<Vec<u8>>, FileId)> {
        let path = || self.path.join(name);
        let max = max as u64;
        for _ in 0..3 {
            let (file, before) = self.open_file(name)?;
            let too_large = |size| HostError::TooLarge { path: path(), size, max };
            if before.id.size > max {
                return Err(too_large(before.id.size));
            }
            // The exact room at once: a vector that grows leaves copies of what it held behind.
            let room = usize::try_from(before.id.size).map_err(|_| too_large(before.id.size))? + 1;
            let mut bytes = Zeroizing::new(Vec::with_capacity(room));
            (&file).take(max + 1).read_to_end(&mut bytes).map_err(|e| HostError::io("read", path(), e))?;
            let after = Stat::of_fd(&file).map_err(|e| HostError::io("look at", path(), e))?;
            if bytes.len() as u64 > max {
                return Err(too_large(after.id.size));
            }
            if after.id == before.id && bytes.len() as u64 == after.id.size {
                return Ok((bytes, after.id));
            }
        }
        Err(HostError::Changed { path: path() })
    }

    /// Opens a file to be read, and says which state of it that is. The file stays readable when it is replaced.
    ///
    /// # Errors
    /// [`HostError::NotRegular`]; the system call failed, also because there is no such file.
    pub fn open_to_read(&self, name: &OsStr) -> Result<(File, FileId)> {
        let (file, stat) = self.open_file(name)?;
        Ok((file, stat.id))
    }

    /// Reads parts of a file that is as it was `seen`.
    ///
    /// # Errors
    /// [`HostError::Changed`] if it is another one, or was written to since; the system call failed.
    pub fn read_parts(&self, name: &OsStr, seen: FileId, parts: &[Range<usize>]) -> Result<Vec<Zeroizing<Vec<u8>>>> {
        let path = || self.path.join(name);
        let (file, stat) = self.open_file(name)?;
        let mut found = Vec::with_capacity(parts.len());
        for part in parts.iter().filter(|_| stat.id == seen) {
            let mut bytes = Zeroizing::new(vec![0; part.len()]);
            file.read_exact_at(&mut bytes, part.start as u64).map_err(|e| HostError::io("read", path(), e))?;
            found.push(bytes);
        }
        let after = Stat::of_fd(&file).map_err(|e| HostError::io("look at", path(), e))?;
        if stat.id != seen || after.id != seen {
            return Err(HostError::Changed { path: path() });
        }
        Ok(found)
    }

    /// Makes a new file with these bytes, 0600 and ours, and says which one it is: whoever does not see our lock may put
    /// another one in its place. Not yet synced: [`Directory::dress`] does that.
    ///
    /// # Errors
    /// [`HostError::Changed`]: the name is taken; the system call failed. Then nothing is left behind.
    pub fn stage(&self, name: &OsStr, bytes: &[u8]) -> Result<FileId> {
        let mut file = self.create(name)?;
        let op = Op { bytes, ..Op::new("write", &self.path, name) };
        mutate(&op, || file.write_all(bytes)).inspect_err(|_| self.remove_quietly(name))?;
        self.made(&file, name)
    }

    fn made(&self, file: &File, name: &OsStr) -> Result<FileId> {
        let stat = Stat::of_fd(file).map_err(|e| HostError::io("look at", self.path.join(name), e));
        stat.map(|stat| stat.id).inspect_err(|_| self.remove_quietly(name))
    }

    /// Is the staged file still the one that was `made`?
    ///
    /// # Errors
    /// [`HostError::Changed`] if it is another one, or none; the system call failed.
    pub fn still(&self, staged: &OsStr, made: &FileId) -> Result<()> {
        match self.look(staged)? {
            Some(now) if now.is_still(made) => Ok(()),
            _ => Err(HostError::Changed { path: self.path.join(staged) }),
        }
    }

    /// As [`Directory::stage`], with the content of an open file, however large.
    ///
    /// # Errors
    /// As [`Directory::stage`].
    pub fn stage_copy(&self, name: &OsStr, source: &File) -> Result<FileId> {
        let mut file = self.create(name)?;
        let mut copy = || -> io::Result<()> {
            let mut buffer = Zeroizing::new(vec![0; 256 * 1024]);
            let mut at = 0;
            loop {
                match source.read_at(&mut buffer, at)? {
                    0 => return Ok(()),
                    n => file.write_all(&buffer[..n])?,
                }
                at = file.stream_position()?;
            }
        };
        mutate(&Op::new("write", &self.path, name), &mut copy).inspect_err(|_| self.remove_quietly(name))?;
        self.made(&file, name)
    }

    fn create(&self, name: &OsStr) -> Result<File> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mode = Mode::from_raw_mode(0o600);
        let made = mutate(&Op::new("create", &self.path, name), || fs::openat(&self.fd, name, flags, mode));
        made.map(File::from).map_err(|e| match e.errno() {
            // Whoever sees our lock has none there, and what was left behind is removed before.
            Some(Errno::EXIST) => HostError::Changed { path: self.path.join(name) },
            _ => e,
        })
    }

    /// Writes at the end of a file of ours, which is after its first `at` bytes: what stands there already is what an
    /// earlier try, that was cut off, left of the same bytes. Makes the file, 0600, where there is none. The content,
    /// also what an earlier process wrote, is durable when this returns, the name of a new file after
    /// [`Directory::sync`]. The caller holds the lock that keeps others from doing the same.
    ///
    /// # Errors
    /// [`HostError::NotRegular`]; [`HostError::Changed`] if the file ends before `at`; the system call failed, and then
    /// a part of the bytes may be there.
    pub fn append(&self, name: &OsStr, at: u64, bytes: &[u8]) -> Result<FileId> {
        let path = || self.path.join(name);
        let (access, mode) = (if bytes.is_empty() { OFlags::RDONLY } else { OFlags::WRONLY }, Mode::empty());
        let flags = access | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = match self.stat(name)? {
            Some(_) => fs::openat(&self.fd, name, flags, mode).map_err(|e| HostError::io("open", path(), e))?,
            None if at > 0 => return Err(HostError::Changed { path: path() }),
            None => {
                let (flags, mode) = (flags | OFlags::CREATE | OFlags::EXCL, Mode::from_raw_mode(0o600));
                mutate(&Op::new("create", &self.path, name), || fs::openat(&self.fd, name, flags, mode))?
            }
        };
        let file = File::from(file);
        let found = Stat::of_fd(&file).map_err(|e| HostError::io("look at", path(), e))?.regular(path)?;
        if found.id.size < at {
            return Err(HostError::Changed { path: path() });
        }
        if !bytes.is_empty() {
            mutate(&Op::new("append to", &self.path, name), || file.write_all_at(bytes, at))?;
        }
        mutate(&Op::new("fsync", &self.path, name), || fs::fsync(&file))?;
        Ok(Stat::of_fd(&file).map_err(|e| HostError::io("look at", path(), e))?.id)
    }

    /// Reads the last bytes of a file, at most `max`, and says how many are before them.
    ///
    /// # Errors
    /// [`HostError::NotRegular`]; the system call failed, also because there is no such file.
    pub fn read_end(&self, name: &OsStr, max: u64) -> Result<(Vec<u8>, u64)> {
        let (file, stat) = self.open_file(name)?;
        let before = stat.id.size.saturating_sub(max);
        let mut bytes = Vec::new();
        let mut read = |mut file: &File| {
            file.seek(io::SeekFrom::Start(before))?;
            file.take(max).read_to_end(&mut bytes)
        };
        read(&file).map_err(|e| HostError::io("read", self.path.join(name), e))?;
        Ok((bytes, before))
    }

    /// Gives a staged file the owner, mode, ACL, security label and other attributes of the file `like` (here or in
    /// another directory), and makes its content durable. Without `like` it stays ours with mode 0600, without an ACL that the directory's default gave.
    ///
    /// The order keeps it as closed as either: owner and ACL are set while the mode is still 0600, then the mode. An
    /// attribute that it has already, as SELinux gives by the directory, is not set again.
    ///
    /// # Errors
    /// [`HostError::Attribute`] for one that cannot be copied; the system call failed.
    pub fn dress(&self, staged: &OsStr, like: Option<(&Directory, &OsStr)>) -> Result<()> {
        let op = |doing| Op::new(doing, &self.path, staged);
        let (file, mut now) = self.open_file(staged)?;
        let (mode, attributes) = match like {
            None => (0o600, Vec::new()),
            Some((directory, like)) => {
                let (live, stat) = directory.open_file(like)?;
                if (stat.uid, stat.gid) != (now.uid, now.gid) {
                    let (uid, gid) = (fs::Uid::from_raw(stat.uid), fs::Gid::from_raw(stat.gid));
                    mutate(&op("change the owner of"), || fs::fchown(&file, Some(uid), Some(gid)))?;
                }
                (stat.mode, directory.attributes(&live, like)?)
            }
        };
        let mine = self.attributes(&file, staged)?;
        let has_acl = |list: &[(OsString, Vec<u8>)]| list.iter().any(|(name, _)| name == ACL);
        if has_acl(&mine) && !has_acl(&attributes) {
            mutate(&op("take the ACL off"), || fs::fremovexattr(&file, ACL))?;
        }
        for (name, value) in attributes.iter().filter(|pair| !mine.contains(pair)) {
            mutate(&op("set an attribute of"), || fs::fsetxattr(&file, name, value, fs::XattrFlags::empty())).map_err(
                |e| match e {
                    HostError::Io { path, source, .. } => {
                        HostError::Attribute { path, name: name.to_string_lossy().into_owned(), source }
                    }
                    other => other,
                },
            )?;
        }
        now = Stat::of_fd(&file).unwrap_or(now);
        if now.mode != mode {
            mutate(&op("change the mode of"), || fs::fchmod(&file, Mode::from_raw_mode(mode)))?;
        }
        mutate(&op("fsync"), || fs::fsync(&file))
    }

    /// The extended attributes that belong to the file and not to its content: not IMA's and EVM's signatures of it.
    fn attributes(&self, file: &File, name: &OsStr) -> Result<Vec<(OsString, Vec<u8>)>> {
        let failed = |e: Errno| HostError::io("read the attributes of", self.path.join(name), e);
        let mut list = Vec::with_capacity(64 * 1024); // the kernel's largest list, and largest value
        match fs::flistxattr(file, rustix::buffer::spare_capacity(&mut list)) {
            Ok(_) => {}
            Err(Errno::NOTSUP | Errno::NOSYS) => return Ok(Vec::new()),
            Err(e) => return Err(failed(e)),
        }
        let mut found = Vec::new();
        for attribute in list.split(|b| *b == 0).filter(|name| !name.is_empty()) {
            let attribute = OsString::from_vec(attribute.to_vec());
            if attribute == "security.ima" || attribute == "security.evm" {
                continue;
            }
            let mut value = Vec::with_capacity(64 * 1024);
            match fs::fgetxattr(file, &attribute, rustix::buffer::spare_capacity(&mut value)) {
                Ok(_) => found.push((attribute, value)),
                Err(Errno::NODATA) => {}
                Err(e) => return Err(failed(e)),
            }
        }
        Ok(found)
    }

    /// Renames a staged file over the live one, if that is still what was `seen` (`None`: still does not exist), and the
    /// staged one is still that which was `made`. The name is durable after [`Directory::sync`].
    ///
    /// # Errors
    /// [`HostError::Changed`]; [`HostError::BindMount`]; the system call failed. Then nothing has changed.
    pub fn rename(&self, staged: &OsStr, made: &FileId, live: &OsStr, seen: Option<FileId>) -> Result<()> {
        let changed = || HostError::Changed { path: self.path.join(live) };
        if self.look(live)? != seen {
            return Err(changed());
        }
        self.still(staged, made)?;
        let op = Op { to: Some(live), ..Op::new("rename", &self.path, staged) };
        let plain = || fs::renameat(&self.fd, staged, &self.fd, live);
        let renamed = mutate(&op, || match seen {
            Some(_) => plain(),
            // Never over a file that somebody made since; not every file system knows the flag.
            None => match fs::renameat_with(&self.fd, staged, &self.fd, live, RenameFlags::NOREPLACE) {
                Err(Errno::INVAL | Errno::NOSYS) => plain(),
                other => other,
            },
        });
        renamed.map_err(|e| match e.errno() {
            Some(Errno::EXIST | Errno::NOENT) => changed(),
            Some(Errno::BUSY) => HostError::BindMount { path: self.path.join(live) },
            // What stands in the way is the live file's (the immutable flag), not the staged one's.
            _ => match e {
                HostError::Io { source, .. } => HostError::io("replace", self.path.join(live), source),
                other => other,
            },
        })
    }

    /// Removes a file; says whether there was one. Durable after [`Directory::sync`].
    ///
    /// # Errors
    /// The system call failed, also because it is a directory.
    pub fn remove(&self, name: &OsStr) -> Result<bool> {
        match Stat::of(&self.fd, name, AtFlags::empty()) {
            Err(Errno::NOENT) => return Ok(false),
            Err(e) => return Err(HostError::io("look at", self.path.join(name), e)),
            Ok(_) => {}
        }
        match mutate(&Op::new("remove", &self.path, name), || fs::unlinkat(&self.fd, name, AtFlags::empty())) {
            Err(e) if e.is_not_found() => Ok(false),
            other => other.map(|()| true),
        }
    }

    /// The names here that start with `prefix`, which has to be enough to know them by.
    ///
    /// # Errors
    /// The directory cannot be read.
    pub fn names_starting(&self, prefix: &OsStr) -> Result<Vec<OsString>> {
        let failed = |e: Errno| HostError::io("read the directory", &self.path, e);
        let mut names = Vec::new();
        for entry in fs::Dir::read_from(&self.fd).map_err(failed)? {
            let name = entry.map_err(failed)?.file_name().to_bytes().to_vec();
            if name.starts_with(prefix.as_bytes()) {
                names.push(OsString::from_vec(name));
            }
        }
        Ok(names)
    }

    /// For clean-up after a failure that is reported already; what stays is removed by name at the next start.
    fn remove_quietly(&self, name: &OsStr) {
        let _ = self.remove(name);
    }

    /// Makes renames, new and removed names durable.
    ///
    /// # Errors
    /// The system call failed.
    pub fn sync(&self) -> Result<()> {
        mutate(&Op::new("fsync the directory", &self.path, OsStr::new("")), || fs::fsync(&self.fd))
    }
}

/// The names of a path, `..` among them.
fn names(path: &Path) -> VecDeque<OsString> {
    let wanted = |c: &Component<'_>| matches!(c, Component::Normal(_) | Component::ParentDir);
    path.components().filter(wanted).map(|c| c.as_os_str().to_owned()).collect()
}

/// Reads a whole file of at most `max` bytes in a safe directory, and says which state of it that was.
///
/// # Errors
/// As [`Directory::of`] and [`Directory::read`].
pub fn read(path: &Path, max: usize) -> Result<(Zeroizing<Vec<u8>>, FileId)> {
    let (directory, name) = Directory::of(path)?;
    directory.read(&name, max)
}

/// As [`read`], for a file that only we write: what others could have written is not believed.
///
/// # Errors
/// As [`read`], and [`HostError::Untrusted`].
pub fn read_own(path: &Path, max: usize) -> Result<Zeroizing<Vec<u8>>> {
    let (directory, name) = Directory::of(path)?;
    if let Some(found) = directory.permissions(&name)? {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let acl = || fs::openat(&directory.fd, &name, flags, Mode::empty()).map(trust::acl_of).unwrap_or_default();
        trust::own(&directory.path.join(&name), found, acl)?;
    }
    Ok(directory.read(&name, max)?.0)
}

/// Replaces a file of ours, or makes it: its content is the old or the new one, whatever happens, and the new one is
/// durable when this returns. The caller holds the lock that keeps others from doing the same.
///
/// # Errors
/// As [`Directory::of`], [`Directory::stage`] and [`Directory::rename`]. Then the old file is as it was.
pub fn replace(path: &Path, bytes: &[u8], mode: u32) -> Result<()> {
    let (directory, name) = Directory::of(path)?;
    let staged = successor(&name);
    directory.remove(&staged)?;
    let made = directory.stage(&staged, bytes)?;
    let finish = || {
        directory.dress(&staged, None)?;
        if mode != 0o600 {
            let (file, _) = directory.open_file(&staged)?;
            let op = Op::new("change the mode of", &directory.path, &staged);
            mutate(&op, || fs::fchmod(&file, Mode::from_raw_mode(mode)))?;
        }
        let seen = directory.look_replaceable(&name)?;
        directory.rename(&staged, &made, &name, seen)
    };
    finish().inspect_err(|_: &HostError| directory.remove_quietly(&staged))?;
    directory.sync()
}

/// Removes what a [`replace`] of this file left beside it when it was killed. The caller holds the lock.
///
/// # Errors
/// As [`Directory::of`] and [`Directory::remove`].
pub fn remove_successor(path: &Path) -> Result<()> {
    let (directory, name) = Directory::of(path)?;
    directory.remove(&successor(&name)).map(drop)
}

/// The staged name of a file of ours.
fn successor(name: &OsStr) -> OsString {
    let mut staged = OsString::from(".");
    staged.push(name);
    staged.push(".new");
    staged
}

/// Makes a directory with exactly this mode, durably; one that exists stays as it is, and what a process that was
/// killed made or renamed in it is durable too when this returns, so that nothing is built on what a power cut would
/// take back. The one above must exist; it may be sticky, as a `/run` of mode 1777 is: who was first with the name there is
/// refused if it is neither root nor us, and what is refused is named with its owner.
///
/// # Errors
/// As [`Directory::open`], for the one above and for this; the system call failed.
pub fn create_dir(path: &Path, mode: u32) -> Result<Directory> {
    if let (directory, Some(name)) = trust::walk(path, trust::Rule::Make)?.directory()? {
        let mode = Mode::from_raw_mode(mode);
        match mutate(&Op::new("make the directory", &directory.path, &name), || fs::mkdirat(&directory.fd, &name, mode))
        {
            Err(e) if e.errno() == Some(Errno::EXIST) => {}
            other => other?,
        }
        let made = Directory::open(path)?;
        // The umask may have taken bits away.
        if Stat::of_fd(&made.fd).map_err(|e| HostError::io("look at", &made.path, e))?.mode != mode.as_raw_mode() {
            let op = Op::new("change the mode of", &made.path, OsStr::new(""));
            mutate(&op, || fs::fchmod(&made.fd, mode))?;
        }
        directory.sync()?;
        return Ok(made);
    }
    let found = Directory::open(path)?;
    found.sync()?;
    // Nothing is made in it before its own name is durable, so only an empty one may lack that.
    let mut listed = std::fs::read_dir(found.path()).map_err(|e| HostError::io("list", found.path(), e))?;
    if let (None, Some(above)) = (listed.next(), found.path().parent()) {
        // By what it is held by: the one above may be sticky, and is no place for anything else of ours.
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = fs::openat(&found.fd, "..", flags, Mode::empty()).map_err(|e| HostError::io("open", above, e))?;
        Directory { path: above.to_owned(), fd }.sync()?;
    }
    Ok(found)
}

// ---------------------------------------------------------------------------------------------------------------
// Commands

/// What a command said and how it ended.
#[derive(Debug)]
pub struct Output {
    /// How it ended.
    pub status: ExitStatus,
    /// Its standard output. May hold secrets (`postmap -q`).
    pub stdout: Zeroizing<Vec<u8>>,
    /// The first 64 KiB of its standard error, what is not UTF-8 replaced. May quote secrets: redact before showing.
    pub stderr: String,
}

/// When this process was told to end.
static ENDING: OnceLock<Instant> = OnceLock::new();

/// This process is to end. Commands that only read have 5 s left from now on, or from their start: they hang, and ending them
/// tears nothing. Those that change something ([`run_mutating`]) are waited for as before.
pub fn ending() {
    ENDING.get_or_init(Instant::now);
}

/// May a command be ended when the program is to end?
#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Reads,
    Changes,
}

/// Until when a command is waited for, as of now.
fn deadline(kind: Kind, started: Instant, timeout: Duration) -> Instant {
    let latest = started + timeout;
    match ENDING.get().filter(|_| kind == Kind::Reads) {
        Some(told) => latest.min(started.max(*told) + LAST_LOOK),
        None => latest,
    }
}

/// Runs a command that only reads, if nobody else could have put another in its place ([`trust::command`]): argv without a
/// shell, an environment of `PATH` and the C locale, `/` as working
/// directory, `stdin` (or nothing) on its standard input, in a process group of its own that is killed whole when
/// `timeout` is over. Secrets go in through `stdin`, never through `argv`.
///
/// # Errors
/// [`HostError::NotStarted`], [`HostError::Untrusted`], [`HostError::TimedOut`], [`HostError::TooMuchOutput`] (8 MiB). A command that ends with a
/// failure is no error here.
pub fn run(argv: &[impl AsRef<OsStr>], stdin: Option<&[u8]>, timeout: Duration) -> Result<Output> {
    let mut stdout = Zeroizing::new(Vec::with_capacity(64 * 1024));
    let output = start(argv, stdin, Kind::Reads, timeout, MAX_STDOUT, &mut |piece| stdout.extend_from_slice(piece))?;
    Ok(Output { stdout, ..output })
}

/// As [`run`], for a command that may say much: `each` gets its standard output piece by piece, as it comes, and nothing of
/// it is kept. More than `limit` bytes end it.
///
/// # Errors
/// As [`run`].
pub fn run_listing(
    argv: &[impl AsRef<OsStr>],
    timeout: Duration,
    limit: usize,
    each: &mut dyn FnMut(&[u8]),
) -> Result<Output> {
    start(argv, None, Kind::Reads, timeout, limit, each)
}

fn start(
    argv: &[impl AsRef<OsStr>],
    stdin: Option<&[u8]>,
    kind: Kind,
    timeout: Duration,
    limit: usize,
    each: &mut dyn FnMut(&[u8]),
) -> Result<Output> {
    let (program, arguments) = match argv.split_first() {
        Some((program, arguments)) => (program.as_ref(), arguments),
        None => (OsStr::new(""), argv),
    };
    let name = || program.to_string_lossy().into_owned();
    let started = Instant::now();
    let mut command = Command::new(trust::command(argv, None)?.path);
    command
        .arg0(program)
        .args(arguments)
        .env_clear()
        .env("PATH", trust::command_path())
        .env("LANG", "C")
        .env("LC_ALL", "C")
        .current_dir("/")
        .process_group(0)
        .stdin(if stdin.is_some() { Stdio::piped() } else { Stdio::null() })
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let child = command.spawn().map_err(|source| HostError::NotStarted { program: name(), source })?;
    let until = || deadline(kind, started, timeout);
    match Running(child).converse(stdin.unwrap_or_default(), &until, limit, each) {
        Ok(output) => Ok(output),
        Err(Ended::TooLate) => Err(HostError::TimedOut { program: name(), after: timeout.min(started.elapsed()) }),
        Err(Ended::TooMuch) => Err(HostError::TooMuchOutput { program: name(), limit }),
        Err(Ended::Io(e)) => Err(HostError::io("talk to", program, e)),
    }
}

/// As [`run`], for a command that changes something outside this process, and is therefore counted, and not ended before its
/// time.
///
/// # Errors
/// As [`run`].
pub fn run_mutating(argv: &[impl AsRef<OsStr>], stdin: Option<&[u8]>, timeout: Duration) -> Result<Output> {
    run_counted(argv, stdin, Kind::Changes, timeout)
}

/// As [`run_mutating`], for a command that looks, and may repair what it finds, each thing by itself: it may be ended between
/// them, as one that only reads.
///
/// # Errors
/// As [`run`].
pub fn run_checking(argv: &[impl AsRef<OsStr>], timeout: Duration) -> Result<Output> {
    run_counted(argv, None, Kind::Reads, timeout)
}

fn run_counted(argv: &[impl AsRef<OsStr>], stdin: Option<&[u8]>, kind: Kind, timeout: Duration) -> Result<Output> {
    let program = argv.first().map(AsRef::as_ref).unwrap_or_default();
    let call = || {
        let mut stdout = Zeroizing::new(Vec::with_capacity(64 * 1024));
        let output = start(argv, stdin, kind, timeout, MAX_STDOUT, &mut |piece| stdout.extend_from_slice(piece));
        Ok::<_, io::Error>(output.map(|output| Output { stdout, ..output }))
    };
    mutate(&Op::new("run", Path::new(""), program), call)?
}

enum Ended {
    TooLate,
    TooMuch,
    Io(io::Error),
}

impl From<Errno> for Ended {
    fn from(e: Errno) -> Self {
        Ended::Io(e.into())
    }
}

/// A child that does not outlive this value, nor does its process group.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        if matches!(self.0.try_wait(), Ok(None)) {
            // Not reaped yet, so the group's number is still its own.
            let _ = rustix::process::kill_process_group(Pid::from_child(&self.0), Signal::KILL);
            let _ = self.0.wait();
        }
    }
}

impl Running {
    /// Writes and reads whatever is possible, in one thread, until the child has ended and its output with it.
    fn converse(
        mut self,
        mut input: &[u8],
        deadline: &dyn Fn() -> Instant,
        limit: usize,
        each: &mut dyn FnMut(&[u8]),
    ) -> std::result::Result<Output, Ended> {
        /// How long one wait lasts before the child is looked at again, where nothing tells of its end while a daemon
        /// which it started keeps its output open.
        const SLICE: Duration = Duration::from_millis(50);
        /// How long such a daemon is listened to if it writes without a pause.
        const LAST_WORDS: Duration = Duration::from_secs(1);
        // Tells of the child's end at once (Linux 5.3 and later). Without it the child is looked at after each slice.
        let end = pidfd_open(Pid::from_child(&self.0), PidfdFlags::empty()).ok();
        let (mut to, mut out, mut err) = (self.0.stdin.take(), self.0.stdout.take(), self.0.stderr.take());
        for fd in [to.as_ref().map(AsFd::as_fd), out.as_ref().map(AsFd::as_fd), err.as_ref().map(AsFd::as_fd)] {
            let Some(fd) = fd else { continue };
            fs::fcntl_setfl(fd, fs::fcntl_getfl(fd)? | OFlags::NONBLOCK)?;
        }
        let (mut said, mut stderr) = (0_usize, Vec::new());
        let mut ended: Option<(ExitStatus, Instant)> = None;
        loop {
            if to.is_some() && input.is_empty() {
                to = None; // end of file for the child
            }
            let mut waiting = Vec::with_capacity(4);
            waiting.extend(to.as_ref().map(|fd| PollFd::new(fd, PollFlags::OUT)));
            waiting.extend(out.as_ref().map(|fd| PollFd::new(fd, PollFlags::IN)));
            waiting.extend(err.as_ref().map(|fd| PollFd::new(fd, PollFlags::IN)));
            let left = deadline().saturating_duration_since(Instant::now());
            let all_closed = out.is_none() && err.is_none();
            let slice = match (&ended, &end) {
                // All that it wrote is there to be read; what it left running (`postfix reload` does) is not waited for.
                (Some(_), _) => Duration::ZERO,
                (None, None) if all_closed => Duration::from_millis(1).min(left),
                (None, _) => SLICE.min(left),
            };
            if ended.is_none() {
                waiting.extend(end.as_ref().map(|fd| PollFd::new(fd, PollFlags::IN)));
            }
            let slice = Timespec { tv_sec: 0, tv_nsec: i64::from(slice.subsec_nanos()) };
            let ready = match poll(&mut waiting, Some(&slice)) {
                Ok(ready) => ready > 0,
                Err(Errno::INTR) => false,
                Err(e) => return Err(e.into()),
            };
            drop(waiting);
            if let Some(pipe) = &mut to {
                match rustix::io::write(&*pipe, input) {
                    Ok(written) => input = &input[written..],
                    Err(Errno::AGAIN | Errno::INTR) => {}
                    Err(Errno::PIPE) => input = &[], // it does not want the rest
                    Err(e) => return Err(e.into()),
                }
            }
            let mut hand_over = |piece: &[u8]| {
                said += piece.len();
                if said <= limit {
                    each(piece);
                }
            };
            if out.as_mut().is_some_and(|pipe| drain(pipe, &mut hand_over)) {
                out = None;
            }
            if said > limit {
                return Err(Ended::TooMuch);
            }
            let mut keep = |piece: &[u8]| {
                let room = MAX_STDERR.saturating_sub(stderr.len());
                stderr.extend_from_slice(&piece[..piece.len().min(room)]);
            };
            if err.as_mut().is_some_and(|pipe| drain(pipe, &mut keep)) {
                err = None;
            }
            let ended_before = ended.is_some();
            if !ended_before {
                ended = self.0.try_wait().map_err(Ended::Io)?.map(|status| (status, Instant::now()));
            }
            if let Some((status, at)) = &ended {
                // Once more round the loop after its end, for what it wrote last.
                let nothing_more = ended_before && (!ready || at.elapsed() > LAST_WORDS);
                if nothing_more || out.is_none() && err.is_none() {
                    let stderr = String::from_utf8_lossy(&stderr).into_owned();
                    return Ok(Output { status: *status, stdout: Zeroizing::default(), stderr });
                }
            } else if left.is_zero() {
                return Err(Ended::TooLate);
            }
        }
    }
}

/// Reads what is there, hands it on, and says whether that was the end of it.
fn drain(pipe: &mut impl Read, each: &mut dyn FnMut(&[u8])) -> bool {
    // As much as a pipe holds.
    let mut buffer = Zeroizing::new([0u8; 64 * 1024]);
    // Bounded, so that a child that writes without end does not keep us from looking at the clock.
    for _ in 0..16 {
        match pipe.read(&mut buffer[..]) {
            Ok(0) => return true,
            Ok(n) => each(&buffer[..n]),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => return false,
            Err(_) => return true,
        }
    }
    false
}

// ---------------------------------------------------------------------------------------------------------------
// The machine and this process

/// Seconds since the machine was started, time asleep included: what process start times are counted in.
pub fn boot_seconds() -> u64 {
    clock_gettime(ClockId::Boottime).tv_sec.try_into().unwrap_or(0)
}

/// A name for the time since the machine was started; another one after the next start.
///
/// # Errors
/// `/proc` is not mounted.
pub fn boot_id() -> Result<String> {
    let path = "/proc/sys/kernel/random/boot_id";
    let text = std::fs::read_to_string(path).map_err(|e| HostError::io("read", path, e))?;
    Ok(text.trim().to_owned())
}

/// A name for what the time since boot is counted by: in another time namespace it is another one. `None`: this kernel
/// has no such namespaces.
pub fn time_namespace() -> Option<String> {
    let name = std::fs::read_link("/proc/self/ns/time").ok()?;
    name.into_os_string().into_string().ok()
}

/// Closes the ways by which secrets in memory get out of the process: no core dumps, not traceable by other processes
/// of the same user, and files that are made without a mode are ours alone. For the start of the program.
///
/// # Errors
/// The system call failed.
pub fn process_hardening() -> Result<()> {
    let failed = |doing| move |e: Errno| HostError::io(doing, "/proc/self", e);
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)
        .map_err(failed("set the dumpable flag of"))?;
    rustix::process::setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) })
        .map_err(failed("set the core limit of"))?;
    rustix::process::umask(Mode::from_raw_mode(0o077));
    Ok(())
}
