//! Who could have written what we obey: one rule for every program that is run and every file whose content counts.
//!
//! A file is trusted where it, and every directory on the way to it from `/` down (those of symbolic links too), belongs
//! to root, or to us where we are not root, and nobody else can write to it. In a sticky directory everybody may make
//! files, but nobody may replace those of others: there the next step down has to be root's or ours. What another user
//! owns, or everybody may change, or an access control list lets another user change, is refused. What a group may change is
//! a [`Doubt`] in this release: it is told, and the file is taken, so that hosts that work today go on.
//!
//! Where another user is named who may own a file, that user could lead us, by a link or by what they make of a directory of
//! theirs, to what they may not read themselves: so what such a way ends at has to be theirs.
//!
//! The rule is applied at every use, right before it, and to the descriptor that is read ([`open`]); a program is started
//! by the path that was checked, without symbolic links ([`program`]), and only if its arguments name nothing that is not
//! trusted either ([`command`]): a shell obeys the script that it is given. [`super::Directory`], in which files are
//! *replaced*, goes the same way by a stricter rule: there a group that may write is refused too.

mod program;
mod users;

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{self, AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;
use zeroize::Zeroizing;

use super::{ACL, Directory, FileId, HostError, MAX_LINKS, Permissions, Result, Stat, names, trusted};
use crate::finding::{Finding, Severity};

pub use self::program::{Program, command, command_path, program};
pub use self::users::{user_group, user_id, user_name};

/// How often a path is gone again that changes on the way, as a mounted secret does when it is exchanged.
const TRIES: usize = 3;

/// What is asked of the way to a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TrustRule {
    /// For a directory in which files are made and replaced: neither others nor a group may write.
    Replace,
    /// For a directory of ours that is to be made where it is missing: as [`TrustRule::Replace`], but the one above may be sticky.
    Make,
    /// For a file that is obeyed. `owner`: a user who may own it besides root and ourselves.
    Obey { owner: Option<u32> },
    /// For what a program is given as an argument: a file as with [`TrustRule::Obey`]; of a directory alone the way to it, since
    /// it may be where the program works. The program runs with the rights of `owner`, where that is one, so nothing is read
    /// for them that they may not read.
    Given { owner: Option<u32> },
}

impl TrustRule {
    fn is_strict(self) -> bool {
        matches!(self, TrustRule::Replace | TrustRule::Make)
    }

    fn lets_own(self, uid: u32) -> bool {
        let owner = match self {
            TrustRule::Obey { owner } | TrustRule::Given { owner } => owner,
            TrustRule::Replace | TrustRule::Make => None,
        };
        trusted(uid) || owner == Some(uid)
    }

    /// Could this user lead us to what they may not read themselves?
    fn is_led_by(self, uid: u32) -> bool {
        !trusted(uid) && matches!(self, TrustRule::Obey { owner } if owner == Some(uid))
    }
}

/// Something that a group may change, and that is taken all the same.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Doubt {
    /// The file, or a directory above it.
    pub at: PathBuf,
    /// The group, by its number.
    pub gid: u32,
    /// Is it in the access control list, and not the file's own group?
    pub listed: bool,
    /// The last twelve bits of the mode.
    pub mode: u32,
}

impl fmt::Display for Doubt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (at, gid, mode) = (self.at.display(), self.gid, self.mode);
        let who = match self.listed {
            false => format!("its group (group id {gid}, mode {mode:04o})"),
            true => format!("group id {gid}, by its access control list"),
        };
        write!(
            f,
            "{at} may be changed by {who}, and who may change it decides what this host does; a later release refuses it"
        )
    }
}

impl From<&Doubt> for Finding {
    fn from(doubt: &Doubt) -> Self {
        Finding {
            severity: Severity::Warning,
            line: None,
            file: Some(doubt.at.clone()),
            what: doubt.to_string(),
            fix: doubt.fix(),
        }
    }
}

impl Doubt {
    /// The command that ends it.
    pub fn fix(&self) -> String {
        let at = quoted(&self.at);
        match self.listed {
            false => format!("chmod g-w {at}"),
            true => off_the_list(&format!("g:{}", self.gid), &at),
        }
    }
}

/// Why a file or directory is not trusted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WhyUntrusted {
    /// Another user owns it.
    Owner {
        /// Who.
        uid: u32,
    },
    /// Everybody may write to it.
    Others {
        /// The last twelve bits of the mode.
        mode: u32,
    },
    /// Its access control list lets another user write to it.
    Listed {
        /// Who.
        uid: u32,
    },
    /// A user who may own such files could have led there, and it is not theirs: they may not be allowed to read it.
    NotTheirs {
        /// Whose it is.
        uid: u32,
        /// Who could have led there.
        led_by: u32,
    },
}

/// Why files may not be replaced in a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Openness {
    /// Another user owns it, or others may write to it.
    Changed(WhyUntrusted),
    /// Others may be first to make a file there.
    LetsMake {
        /// The last twelve bits of the mode.
        mode: u32,
    },
    /// Others may, and one of them made the next name on the way.
    Made {
        /// Whoever did.
        uid: u32,
        /// What.
        name: PathBuf,
        /// Of the directory.
        mode: u32,
    },
}

impl Openness {
    /// Does nobody there remove what is another's, as in `/tmp`? Taking the write bit off such a one would be others' loss.
    pub(super) fn is_sticky(&self) -> bool {
        match self {
            Openness::Changed(
                WhyUntrusted::Owner { .. } | WhyUntrusted::Listed { .. } | WhyUntrusted::NotTheirs { .. },
            ) => false,
            Openness::Changed(WhyUntrusted::Others { mode })
            | Openness::LetsMake { mode }
            | Openness::Made { mode, .. } => mode & 0o1000 != 0,
        }
    }
}

impl fmt::Display for Openness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Openness::Changed(WhyUntrusted::Owner { uid }) => write!(f, "belongs to user id {uid}"),
            Openness::Changed(WhyUntrusted::Others { mode }) => write!(f, "may be changed by others (mode {mode:04o})"),
            Openness::Changed(WhyUntrusted::Listed { uid }) => write!(f, "may be changed by {}", user(*uid)),
            Openness::Changed(WhyUntrusted::NotTheirs { uid, led_by }) => {
                write!(f, "belongs to {}, and {} could have led there", user(*uid), user(*led_by))
            }
            Openness::LetsMake { mode } => write!(f, "lets others make files (mode {mode:04o})"),
            Openness::Made { uid, name, mode } => {
                write!(f, "let {} make {} (mode {mode:04o})", user(*uid), name.display())
            }
        }
    }
}

/// What was found to be untrusted: the file that was asked for, or something on the way to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Distrust {
    /// Where.
    pub at: PathBuf,
    /// Why.
    pub reason: WhyUntrusted,
    is_directory: bool,
}

impl fmt::Display for Distrust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = self.at.display();
        match self.reason {
            WhyUntrusted::Owner { uid } => write!(f, "{at} belongs to {}", user(uid)),
            WhyUntrusted::Others { mode } => {
                write!(f, "{at} may be changed by every user of this host (mode {mode:04o})")
            }
            WhyUntrusted::Listed { uid } => {
                write!(f, "{at} may be changed by {}, by its access control list", user(uid))
            }
            WhyUntrusted::NotTheirs { uid, led_by } => write!(
                f,
                "{at} belongs to {}, and {} could have led this host there, to what that user may not read",
                user(uid),
                user(led_by)
            ),
        }
    }
}

impl Distrust {
    /// The command that ends it.
    pub(super) fn fix(&self) -> String {
        let at = quoted(&self.at);
        let command = match self.reason {
            WhyUntrusted::Owner { .. } => format!("chown -h root {at} && chmod go-w {at}"),
            WhyUntrusted::Others { .. } => format!("chmod go-w {at}"),
            WhyUntrusted::Listed { uid } => off_the_list(&format!("u:{uid}"), &at),
            // Nothing that changes it: it may be any file of this host, and what is read of it is for those who may.
            WhyUntrusted::NotTheirs { led_by, .. } => format!(
                "namei -l {at} # see who led there; the file has to belong to {}, or to lie where only root can lead",
                user(led_by)
            ),
        };
        match self.is_directory {
            true => format!("{command} # or use another directory, which only root can change"),
            false => command,
        }
    }
}

/// The command that takes an entry off an access control list. Without the program for it, the mode takes the right to write
/// from all that are named there.
fn off_the_list(entry: &str, at: &str) -> String {
    format!("setfacl -x {entry} {at} || chmod g-w {at}")
}

/// A user, for messages: the number, and the name where there is one.
fn user(uid: u32) -> String {
    let name = user_name(uid).map(|name| format!(" ({name})")).unwrap_or_default();
    format!("user id {uid}{name}")
}

/// What the rule makes of one file or directory.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum TrustOutcome {
    Trusted,
    /// A group may change it. `listed`: by the access control list.
    Warning {
        gid: u32,
        listed: bool,
    },
    Refused(WhyUntrusted),
}

/// The rule itself. `acl`: the access control list as the system gives it, empty where there is none; asked for only where
/// the mode lets it let anybody write. In a sticky directory the mode is not what counts: the owner of the next step is,
/// which the walk asks.
pub(super) fn judge(
    found: Permissions,
    is_directory: bool,
    rule: TrustRule,
    acl: impl FnOnce() -> Vec<u8>,
) -> TrustOutcome {
    let Permissions { uid, gid, mode } = found;
    if !rule.lets_own(uid) {
        return TrustOutcome::Refused(WhyUntrusted::Owner { uid });
    }
    if is_directory && mode & 0o1000 != 0 {
        return TrustOutcome::Trusted;
    }
    let strict = rule.is_strict();
    if mode & 0o002 != 0 || strict && mode & 0o020 != 0 {
        return TrustOutcome::Refused(WhyUntrusted::Others { mode });
    }
    if mode & 0o020 == 0 {
        return TrustOutcome::Trusted;
    }
    let writers = writers(&acl());
    if let Some(uid) = writers.users.iter().find(|uid| !rule.lets_own(**uid)) {
        return TrustOutcome::Refused(WhyUntrusted::Listed { uid: *uid });
    }
    // With a list these bits of the mode stand for its mask, and no longer for the group.
    if writers.own_group.unwrap_or(true) && !is_our_group(gid) {
        return TrustOutcome::Warning { gid, listed: false };
    }
    match writers.groups.iter().find(|gid| !is_our_group(**gid)) {
        Some(gid) => TrustOutcome::Warning { gid: *gid, listed: true },
        None => TrustOutcome::Trusted,
    }
}

/// Is everybody in it who we are, as far as can be told? Root's group is root alone on any host that means to be safe.
fn is_our_group(gid: u32) -> bool {
    gid == 0 || gid == rustix::process::getegid().as_raw()
}

/// Where a path leads, and what was seen on the way.
pub(super) struct Walked {
    /// The last directory, without symbolic links.
    pub(super) path: PathBuf,
    /// That directory, opened only as a place (`O_PATH`).
    pub(super) fd: OwnedFd,
    /// The last name, where it is no directory or does not exist.
    pub(super) last: Option<OsString>,
    pub(super) doubts: Vec<Doubt>,
    /// The user whom the rule names, where it went through a directory or a link of theirs.
    led_by: Option<u32>,
}

/// Goes down from `/`, one name at a time. Ends at a directory (no name), or at a last name that is no directory or does
/// not exist.
pub(super) fn walk(path: &Path, rule: TrustRule) -> Result<Walked> {
    let whole = std::path::absolute(path).map_err(|e| HostError::io("resolve", path, e))?;
    let open = |dir: &OwnedFd, name: &OsStr, at: &Path| {
        fs::openat(dir, name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
            .map_err(|e| HostError::io("open", at, e))
    };
    let root = fs::open("/", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .map_err(|e| HostError::io("open", "/", e))?;
    let unsafe_ = |directory: &Path, reason: Openness| HostError::UnsafeDirectory {
        path: whole.clone(),
        directory: directory.to_owned(),
        reason,
    };
    let untrusted = |at: &Path, reason: WhyUntrusted, is_directory: bool| HostError::Untrusted {
        path: whole.clone(),
        found: Distrust { at: at.to_owned(), reason, is_directory },
    };
    // The names still to go, and the directories passed, for `..`.
    let mut ahead: VecDeque<OsString> = names(&whole);
    let mut passed = vec![(PathBuf::from("/"), root)];
    let mut doubts = Vec::new();
    let mut led_by = None;
    let mut links = 0;
    let last = loop {
        let (at, dir) = passed.last().expect("the root stays");
        let here = Stat::of_fd(dir).map_err(|e| HostError::io("look at", at, e))?;
        let is_spared = ahead.is_empty() && matches!(rule, TrustRule::Given { .. });
        match judge(here.permissions(), true, rule, || acl_of(dir)) {
            _ if is_spared => {}
            TrustOutcome::Trusted => {}
            TrustOutcome::Warning { gid, listed } => {
                doubts.push(Doubt { at: at.clone(), gid, listed, mode: here.mode })
            }
            TrustOutcome::Refused(reason) => {
                return Err(match rule {
                    TrustRule::Obey { .. } | TrustRule::Given { .. } => untrusted(at, reason, true),
                    TrustRule::Replace | TrustRule::Make => unsafe_(at, Openness::Changed(reason)),
                });
            }
        }
        led_by = led_by.or(Some(here.uid).filter(|uid| rule.is_led_by(*uid)));
        let open_to_others = here.mode & 0o022 != 0;
        // In a sticky directory nobody can replace our files, but anybody can be first to make one. Whose it is that is
        // there is asked of what is read.
        let may_end_here = || match open_to_others && rule.is_strict() {
            false => Ok(()),
            true => Err(unsafe_(at, Openness::LetsMake { mode: here.mode })),
        };
        let Some(name) = ahead.pop_front() else {
            may_end_here()?;
            break None;
        };
        if name == ".." {
            if passed.len() > 1 {
                passed.pop();
            }
            continue;
        }
        let below = at.join(&name);
        let next = match open(dir, &name, &below) {
            Err(e) if e.is_not_found() && ahead.is_empty() => {
                // Nobody can take away a directory that we made in a sticky one, nor make anything in it; who was first with
                // the name is asked when it is opened.
                if rule != TrustRule::Make {
                    may_end_here()?;
                }
                break Some(name);
            }
            other => other?,
        };
        let stat = Stat::of_fd(&next).map_err(|e| HostError::io("look at", &below, e))?;
        if open_to_others && !rule.lets_own(stat.uid) {
            return Err(match rule {
                TrustRule::Obey { .. } | TrustRule::Given { .. } => {
                    untrusted(&below, WhyUntrusted::Owner { uid: stat.uid }, stat.kind == FileType::Directory)
                }
                TrustRule::Replace | TrustRule::Make => {
                    unsafe_(at, Openness::Made { uid: stat.uid, name: below.clone(), mode: here.mode })
                }
            });
        }
        match stat.kind {
            FileType::Directory => passed.push((below, next)),
            FileType::Symlink => {
                led_by = led_by.or(Some(stat.uid).filter(|uid| rule.is_led_by(*uid)));
                links += 1;
                if links > MAX_LINKS {
                    return Err(HostError::io("resolve", whole.as_path(), Errno::LOOP));
                }
                let target = fs::readlinkat(&next, "", Vec::new())
                    .map_err(|e| HostError::io("read the symbolic link", &below, e))?;
                let target = PathBuf::from(OsString::from_vec(target.into_bytes()));
                if target.is_absolute() {
                    passed.truncate(1);
                }
                for name in names(&target).into_iter().rev() {
                    ahead.push_front(name);
                }
            }
            _ if ahead.is_empty() => {
                may_end_here()?;
                break Some(name);
            }
            _ => return Err(HostError::io("open the directory", below, Errno::NOTDIR)),
        }
    };
    doubts.sort();
    doubts.dedup();
    let (path, fd) = passed.pop().expect("the root stays");
    Ok(Walked { path, fd, last, doubts, led_by })
}

impl Walked {
    /// The directory, opened for reading: an `O_PATH` descriptor can be neither synced nor locked.
    pub(super) fn directory(self) -> Result<(Directory, Option<OsString>)> {
        let fd = fs::openat(&self.fd, ".", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
            .map_err(|e| HostError::io("open the directory", &self.path, e))?;
        Ok((Directory { path: self.path, fd }, self.last))
    }

    /// What runs the file at the end, if it is a script. One that may be executed and not read has no `#!` line that could be
    /// followed: the kernel reads that as us.
    fn interpreters(&self, name: &OsStr) -> Vec<OsString> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let mut head = Vec::with_capacity(256);
        if let Ok(file) = fs::openat(&self.fd, name, flags, Mode::empty()) {
            let _ = File::from(file).take(256).read_to_end(&mut head);
        }
        program::interpreters(&head)
    }

    /// What the rule makes of the file at the end.
    fn judged(&mut self, whole: &Path, name: &OsStr, stat: Stat, fd: impl AsFd, rule: TrustRule) -> Result<()> {
        let at = self.path.join(name);
        let refused = |at, reason| {
            Err(HostError::Untrusted { path: whole.to_owned(), found: Distrust { at, reason, is_directory: false } })
        };
        match (judge(stat.permissions(), false, rule, || acl_of(fd)), self.led_by) {
            (TrustOutcome::Refused(reason), _) => refused(at, reason),
            (_, Some(led_by)) if stat.uid != led_by => refused(at, WhyUntrusted::NotTheirs { uid: stat.uid, led_by }),
            (TrustOutcome::Trusted, _) => Ok(()),
            (TrustOutcome::Warning { gid, listed }, _) => {
                self.doubts.push(Doubt { at, gid, listed, mode: stat.mode });
                Ok(())
            }
        }
    }
}

/// A trusted file, open for reading.
#[derive(Debug)]
pub struct Opened {
    /// It is this descriptor that was judged.
    pub file: File,
    /// The state it is in.
    pub id: FileId,
    /// Where it is, without symbolic links.
    pub path: PathBuf,
    /// What a group may change.
    pub doubts: Vec<Doubt>,
}

/// Opens a file whose content is to be obeyed. `owner`: a user who may own it, and directories above it, besides root and
/// ourselves.
///
/// # Errors
/// [`HostError::Untrusted`]; [`HostError::NotRegular`]; the system call failed, also because there is no such file.
pub fn open(path: &Path, owner: Option<u32>) -> Result<Opened> {
    let rule = TrustRule::Obey { owner };
    let mut tries = 0;
    loop {
        tries += 1;
        match open_once(path, rule) {
            // A mounted secret was exchanged between two steps. Links of a way that leads nowhere do so at each try.
            Err(e) if tries < TRIES && (e.is_not_found() || matches!(e.errno(), Some(Errno::LOOP))) => {}
            other => return other,
        }
    }
}

fn open_once(path: &Path, rule: TrustRule) -> Result<Opened> {
    let mut walked = walk(path, rule)?;
    let Some(name) = walked.last.clone() else {
        return Err(HostError::NotRegular { path: path.to_owned(), what: "a directory" });
    };
    let at = || walked.path.join(&name);
    // Looked at before it is opened: opening a FIFO waits, opening a device may do something.
    let found = Stat::of(&walked.fd, &name, AtFlags::empty()).map_err(|e| HostError::io("open", at(), e))?;
    if found.kind != FileType::Symlink {
        found.regular(at)?;
    }
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let file = fs::openat(&walked.fd, &name, flags, Mode::empty()).map_err(|e| HostError::io("open", at(), e))?;
    let stat = Stat::of_fd(&file).map_err(|e| HostError::io("look at", at(), e))?.regular(at)?;
    walked.judged(path, &name, stat, &file, rule)?;
    Ok(Opened { file: File::from(file), id: stat.id, path: walked.path.join(&name), doubts: walked.doubts })
}

/// Reads a whole trusted file of at most `max` bytes.
///
/// # Errors
/// As [`open`] and [`Opened::read`].
pub fn read(path: &Path, max: usize) -> Result<Zeroizing<Vec<u8>>> {
    open(path, None)?.read(path, max)
}

impl Opened {
    /// Reads all of it, at most `max` bytes. `path`: as the caller spells it.
    ///
    /// # Errors
    /// [`HostError::TooLarge`]; [`HostError::Changed`] if it was written to while it was read.
    pub fn read(&self, path: &Path, max: usize) -> Result<Zeroizing<Vec<u8>>> {
        let too_large = |size| HostError::TooLarge { path: path.to_owned(), size, max: max as u64 };
        let size = self.id.size;
        let room = usize::try_from(size).ok().filter(|size| *size <= max).ok_or_else(|| too_large(size))? + 1;
        // The exact room at once: a vector that grows leaves copies of what it held behind.
        let mut bytes = Zeroizing::new(Vec::with_capacity(room));
        (&self.file).take(room as u64).read_to_end(&mut bytes).map_err(|e| HostError::io("read", path, e))?;
        let after = Stat::of_fd(&self.file).map_err(|e| HostError::io("look at", path, e))?;
        if after.id != self.id || bytes.len() as u64 != size {
            return Err(HostError::Changed { path: path.to_owned() });
        }
        Ok(bytes)
    }
}

/// Looks at a file that another program is about to read, or at a directory of such files. `None`: it does not exist.
///
/// # Errors
/// As [`open`], but a file need not be one that we may read.
pub fn look(path: &Path) -> Result<Option<Vec<Doubt>>> {
    let rule = TrustRule::Obey { owner: None };
    let mut walked = match walk(path, rule) {
        Err(e) if e.is_not_found() => return Ok(None),
        other => other?,
    };
    let Some(name) = walked.last.clone() else { return Ok(Some(walked.doubts)) };
    let at = walked.path.join(&name);
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = match fs::openat(&walked.fd, &name, flags, Mode::empty()) {
        Err(Errno::NOENT) => return Ok(None),
        other => other.map_err(|e| HostError::io("open", &at, e))?,
    };
    let stat = Stat::of_fd(&file).map_err(|e| HostError::io("look at", &at, e))?.regular(|| at.clone())?;
    walked.judged(path, &name, stat, &file, rule)?;
    Ok(Some(walked.doubts))
}

/// A file in a [`Directory`], where the way is safe already. `acl`: its access control list, as the system gives it.
pub(super) fn own(path: &Path, found: Permissions, acl: impl FnOnce() -> Vec<u8>) -> Result<()> {
    match judge(found, false, TrustRule::Obey { owner: None }, acl) {
        TrustOutcome::Trusted | TrustOutcome::Warning { .. } => Ok(()),
        TrustOutcome::Refused(reason) => {
            let found = Distrust { at: path.to_owned(), reason, is_directory: false };
            Err(HostError::Untrusted { path: path.to_owned(), found })
        }
    }
}

/// The access control list of a file or directory as the system gives it; empty where there is none, or it cannot be read:
/// then the mode's word has to do.
pub(super) fn acl_of(fd: impl AsFd) -> Vec<u8> {
    // By its name under /proc, since a place (`O_PATH`) has no attributes of its own to ask for.
    let name = format!("/proc/self/fd/{}", fd.as_fd().as_raw_fd());
    let mut value = Vec::with_capacity(64 * 1024);
    match fs::getxattr(name.as_str(), ACL, rustix::buffer::spare_capacity(&mut value)) {
        Ok(_) => value,
        Err(_) => Vec::new(),
    }
}

/// Has the file that this path leads to an access control list?
pub fn has_acl(path: &Path) -> bool {
    let mut value = Vec::with_capacity(64 * 1024);
    fs::getxattr(path, ACL, rustix::buffer::spare_capacity(&mut value)).is_ok()
}

/// Who may write by an access control list, besides the owner and everybody.
#[derive(Debug, Default, PartialEq, Eq)]
struct Writers {
    users: Vec<u32>,
    groups: Vec<u32>,
    /// The file's own group; `None`: the list does not say.
    own_group: Option<bool>,
}

/// posix_acl_xattr(5): a version in four bytes, then entries of a tag, what is allowed, and an id; little-endian.
fn writers(acl: &[u8]) -> Writers {
    const USER: u16 = 0x02;
    const OWN_GROUP: u16 = 0x04;
    const GROUP: u16 = 0x08;
    const MASK: u16 = 0x10;
    const WRITE: u16 = 0x02;
    let entries = || {
        acl.get(4..).unwrap_or_default().chunks_exact(8).map(|e| {
            let id = u32::from_le_bytes([e[4], e[5], e[6], e[7]]);
            (u16::from_le_bytes([e[0], e[1]]), u16::from_le_bytes([e[2], e[3]]) & WRITE != 0, id)
        })
    };
    let masked = entries().any(|(tag, writes, _)| tag == MASK && !writes);
    let of = |wanted| entries().filter(move |(tag, writes, _)| *tag == wanted && *writes && !masked).map(|(.., id)| id);
    let says = entries().any(|(tag, ..)| tag == OWN_GROUP);
    Writers {
        users: of(USER).collect(),
        groups: of(GROUP).collect(),
        own_group: says.then(|| of(OWN_GROUP).next().is_some()),
    }
}

/// A path, or any word, as a shell takes it for one.
pub fn quoted(word: &(impl AsRef<OsStr> + ?Sized)) -> String {
    let text = word.as_ref().display().to_string();
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+:@%,=".contains(c);
    match !text.is_empty() && text.chars().all(plain) {
        true => text,
        false => format!("'{}'", text.replace('\'', r"'\''")),
    }
}

#[cfg(test)]
mod tests;
