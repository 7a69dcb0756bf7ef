//! Directories that nobody else can change, and the files in them: read, staged, renamed over, made durable.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::ops::Range;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::FileExt;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{self, AtFlags, FileType, Mode, OFlags, RenameFlags, StatxAttributes, StatxFlags};
use rustix::io::Errno;
use zeroize::Zeroizing;

use super::{HostError, Op, Result, mutate, trust};

/// Symbolic links followed on one path, as the kernel's own limit.
pub(super) const MAX_LINKS: usize = 40;
pub(super) const ACL: &str = "system.posix_acl_access";

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
    pub(super) fn is_still(&self, before: &FileId) -> bool {
        let content = |id: &FileId| (id.dev, id.ino, id.size, id.mtime_ns);
        content(self) == content(before)
    }
}

/// What one `statx` says, in types that are the same on every architecture.
#[derive(Clone, Copy)]
pub(super) struct Stat {
    pub(super) id: FileId,
    pub(super) kind: FileType,
    pub(super) mode: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) links: u32,
    pub(super) mount_root: bool,
}

impl Stat {
    pub(super) fn of(dir: impl AsFd, name: &OsStr, flags: AtFlags) -> rustix::io::Result<Self> {
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

    pub(super) fn of_fd(fd: impl AsFd) -> rustix::io::Result<Self> {
        Self::of(fd, OsStr::new(""), AtFlags::EMPTY_PATH)
    }

    pub(super) fn permissions(&self) -> Permissions {
        Permissions { uid: self.uid, gid: self.gid, mode: self.mode }
    }

    pub(super) fn regular(self, path: impl FnOnce() -> PathBuf) -> Result<Self> {
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
pub(super) fn trusted(uid: u32) -> bool {
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
    pub(super) path: PathBuf,
    pub(super) fd: OwnedFd,
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
    pub(super) fn walk(path: &Path) -> Result<(Self, Option<OsString>)> {
        trust::walk(path, trust::TrustRule::Replace)?.directory()
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

    pub(super) fn stat(&self, name: &OsStr) -> Result<Option<Stat>> {
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

    pub(super) fn open_file(&self, name: &OsStr) -> Result<(File, Stat)> {
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

    pub(super) fn made(&self, file: &File, name: &OsStr) -> Result<FileId> {
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

    pub(super) fn create(&self, name: &OsStr) -> Result<File> {
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

    /// As [`Directory::dress`] of what is like no other file, and for this group to read too: 0640.
    ///
    /// # Errors
    /// As there.
    pub fn dress_for(&self, staged: &OsStr, group: u32) -> Result<()> {
        self.dress(staged, None)?;
        let op = |doing| Op::new(doing, &self.path, staged);
        let (file, _) = self.open_file(staged)?;
        mutate(&op("change the group of"), || fs::fchown(&file, None, Some(fs::Gid::from_raw(group))))?;
        mutate(&op("change the mode of"), || fs::fchmod(&file, Mode::from_raw_mode(0o640)))?;
        mutate(&op("fsync"), || fs::fsync(&file))
    }

    /// The extended attributes that belong to the file and not to its content: not IMA's and EVM's signatures of it.
    pub(super) fn attributes(&self, file: &File, name: &OsStr) -> Result<Vec<(OsString, Vec<u8>)>> {
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
    /// Says whether the file that it went over has no name left, for those who have it open: not every file system has it so
    /// (overlayfs over a lower layer, NFS, FUSE), and then nobody notices by it that there is another one.
    ///
    /// # Errors
    /// [`HostError::Changed`]; [`HostError::BindMount`]; the system call failed. Then nothing has changed.
    pub fn rename(&self, staged: &OsStr, made: &FileId, live: &OsStr, seen: Option<FileId>) -> Result<bool> {
        let changed = || HostError::Changed { path: self.path.join(live) };
        if self.look(live)? != seen {
            return Err(changed());
        }
        self.still(staged, made)?;
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        // What cannot be held is not known to have lost its name.
        let old = seen.and_then(|_| fs::openat(&self.fd, live, flags, Mode::empty()).ok());
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
        })?;
        let old = old.and_then(|old| Some((Stat::of_fd(&old).ok()?, seen?)));
        Ok(old.is_some_and(|(old, seen)| (old.id.dev, old.id.ino, old.links) == (seen.dev, seen.ino, 0)))
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
    pub(super) fn remove_quietly(&self, name: &OsStr) {
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
pub(super) fn names(path: &Path) -> VecDeque<OsString> {
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

/// Do the marks of a file let another one be renamed over it? Changes nothing. Its links are [`Directory::look_replaceable`]'s
/// matter, and its directory [`Directory::look_room`]'s.
///
/// # Errors
/// The file is marked as immutable or append-only; it cannot be looked at.
pub fn look_marks(path: &Path) -> Result<()> {
    let (directory, name) = Directory::of(path)?;
    let (file, _) = directory.open_file(&name)?;
    // A file system without such marks has nothing to say.
    match fs::ioctl_getflags(&file) {
        Ok(marks) if marks.intersects(fs::IFlags::IMMUTABLE | fs::IFlags::APPEND) => {
            Err(HostError::io("replace", path, Errno::PERM))
        }
        _ => Ok(()),
    }
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
        directory.rename(&staged, &made, &name, seen).map(drop)
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
pub(super) fn successor(name: &OsStr) -> OsString {
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
    if let (directory, Some(name)) = trust::walk(path, trust::TrustRule::Make)?.directory()? {
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
