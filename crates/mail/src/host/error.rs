//! Why something could not be read or changed: names and reasons, never content.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::io::Errno;

use super::{LOCK_PLACE, LockHolder, trust};
use crate::fault::{Class, Fault};

/// Why something could not be read or changed. Carries names and reasons, never content.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the fields are the parts of each variant's message")]
pub enum HostError {
    /// The call that `doing` names failed.
    #[error("cannot {doing} {}: {source}", path.display())]
    Io { doing: &'static str, path: PathBuf, source: io::Error },
    /// Somebody else could put another file or directory in the place of ours.
    #[error("{} is not safe to work in: {} {reason}", path.display(), directory.display())]
    UnsafeDirectory { path: PathBuf, directory: PathBuf, reason: trust::Openness },
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
    Locked { path: PathBuf, holder: LockHolder, waited: Duration },
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
    pub(super) fn io(doing: &'static str, path: impl Into<PathBuf>, source: impl Into<io::Error>) -> Self {
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
    pub(super) fn errno(&self) -> Option<Errno> {
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

    /// What kind of fault it is.
    pub fn class(&self) -> Class {
        match self {
            HostError::Io { .. } | HostError::NoLockPlace { .. } => match self.errno() {
                Some(Errno::NOSPC | Errno::DQUOT | Errno::FBIG) => Class::NoSpace,
                Some(Errno::ACCESS | Errno::PERM | Errno::ROFS) => Class::Permissions,
                _ => Class::Io,
            },
            HostError::UnsafeDirectory { .. } | HostError::Untrusted { .. } | HostError::Attribute { .. } => {
                Class::Permissions
            }
            HostError::NotRegular { .. } | HostError::Linked { .. } | HostError::BindMount { .. } => Class::Unsupported,
            HostError::TooLarge { .. } => Class::TooLarge,
            HostError::Changed { .. } => Class::ChangedUnderneath,
            HostError::Locked { .. } => Class::LockHeld,
            HostError::NotStarted { .. } | HostError::TimedOut { .. } | HostError::TooMuchOutput { .. } => {
                Class::Command
            }
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
                Some(Errno::NOSPC | Errno::DQUOT) => make_room(path),
                Some(Errno::FBIG) => format!(
                    "raise the limit of file sizes under which relaykey runs (`ulimit -f`; in a unit LimitFSIZE=), or that of the \
                     file system that holds {}",
                    path.display()
                ),
                Some(Errno::MFILE) => "raise the limit of open files under which relaykey runs (`ulimit -n`; in a unit LimitNOFILE=): 1024 \
                                       is enough"
                    .into(),
                Some(Errno::NFILE) => "this machine has no room for more open files: see fs.file-nr, and end what holds them, or raise \
                                       fs.file-max (sysctl)"
                    .into(),
                Some(Errno::ROFS) => format!(
                    "mount it writable; under systemd the directory must be in ReadWritePaths=: {}",
                    path.parent().unwrap_or(path).display()
                ),
                Some(Errno::ACCESS | Errno::PERM) => not_permitted(path),
                Some(Errno::NOENT) => format!("create {}, or correct the path", path.display()),
                Some(Errno::NOTDIR) => {
                    format!("namei -l {} # what is to be a directory on the way there is none", trust::quoted(path))
                }
                Some(Errno::LOOP) => format!("look at the symbolic links of {}: namei -l", path.display()),
                _ => format!("look at the file and at the kernel's log: ls -ld {}; dmesg", path.display()),
            },
            // Taking the write bit off a sticky directory (`/tmp`) would be others' loss.
            HostError::UnsafeDirectory { path, reason, .. } if reason.is_sticky() => {
                format!("ls -ld {} # and have it in a directory that only root can change", trust::quoted(path))
            }
            HostError::UnsafeDirectory { directory, .. } => {
                let at = trust::quoted(directory);
                format!("chown root {at} && chmod go-w {at} # or use another directory, which only root can change")
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

/// What helps where there is no room, whether the file system is full or a quota used up: which of them it was, the words of
/// the operating system say.
pub fn make_room(path: &Path) -> String {
    format!("free space on the file system that holds {}, or raise the quota there", path.display())
}

pub(super) fn not_permitted(path: &Path) -> String {
    format!(
        "run as root; as root, look at `lsattr -d {0}` (chattr -i takes the immutable flag off, chattr -a that of append-only) \
         and, with SELinux, at `ausearch -m avc -ts recent`",
        path.display()
    )
}

/// What the functions here give.
pub type Result<T> = std::result::Result<T, HostError>;

impl From<HostError> for Fault {
    fn from(e: HostError) -> Self {
        let file = e.path().map(Path::to_owned);
        Self::new(e.class(), e.to_string(), e.fix()).temporary_if(e.is_temporary()).in_file(file)
    }
}
