//! Programs: found, and looked at with their interpreters and what their arguments name, before they are started.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{self, FileType, Mode, OFlags};
use rustix::io::Errno;

use super::{Doubt, TrustRule, walk};
use crate::host::{COMMAND_PATH, HostError, Result, Stat};

/// Interpreters of interpreters, as many as the kernel follows.
const MAX_INTERPRETERS: usize = 5;

/// A program that may be started.
#[derive(Debug)]
pub struct Program {
    /// Without symbolic links: to be started by this, under the name it was asked for.
    pub path: PathBuf,
    /// What a group may change: the program, its interpreter, or a directory above them.
    pub doubts: Vec<Doubt>,
}

/// Looks at a program that is about to be started: a path, or a name to be found in the fixed search path. A script's
/// interpreter is looked at too, and what `env` starts for it. What the program itself reads and starts is its own affair.
///
/// # Errors
/// [`HostError::Untrusted`]; [`HostError::NotStarted`] if there is none.
pub fn program(program: &OsStr) -> Result<Program> {
    let none: &[&OsStr] = &[];
    look_at(program, none, None)
}

/// As [`program`], and looks at what its arguments name too: a shell or another interpreter obeys the script that it is
/// given, others a configuration. An argument counts as it stands, where it is no option, as a path from `/`, where commands
/// run. What is not there passes, if nobody else could put it there. `owner`: a user besides who may own those files.
///
/// # Errors
/// As [`program`].
pub fn command(argv: &[impl AsRef<OsStr>], owner: Option<u32>) -> Result<Program> {
    match argv.split_first() {
        Some((program, arguments)) => look_at(program.as_ref(), arguments, owner),
        None => program(OsStr::new("")),
    }
}

fn look_at(program: &OsStr, arguments: &[impl AsRef<OsStr>], owner: Option<u32>) -> Result<Program> {
    let (path, mut needed, mut doubts) = executable(program)?;
    for argument in arguments.iter().map(AsRef::as_ref).filter(|a| !a.as_bytes().starts_with(b"-")) {
        let (also, mut more) = named(&Path::new("/").join(argument), owner)?;
        needed.extend(also);
        doubts.append(&mut more);
    }
    for _ in 0..MAX_INTERPRETERS {
        let mut next = Vec::new();
        for asked in needed {
            let (_, also, mut more) = match executable(&asked) {
                // Then the script cannot be started, which its start tells; or we took an argument for a program.
                Err(HostError::NotStarted { .. }) => continue,
                other => other?,
            };
            next.extend(also);
            doubts.append(&mut more);
        }
        needed = next;
    }
    doubts.sort();
    doubts.dedup();
    Ok(Program { path, doubts })
}

/// One step of [`program`]: where it is, and which programs are needed to run it.
fn executable(asked: &OsStr) -> Result<(PathBuf, Vec<OsString>, Vec<Doubt>)> {
    let not_started =
        |e: Errno| HostError::NotStarted { program: asked.to_string_lossy().into_owned(), source: e.into() };
    let place = match asked.as_bytes().contains(&b'/') {
        // Commands run in `/`.
        true => Path::new("/").join(asked),
        false => found_in_path(asked).ok_or_else(|| not_started(Errno::NOENT))?,
    };
    let rule = TrustRule::Obey { owner: None };
    let mut walked = match walk(&place, rule) {
        Err(HostError::Io { source, .. }) => {
            return Err(HostError::NotStarted { program: asked.to_string_lossy().into_owned(), source });
        }
        other => other?,
    };
    let Some(name) = walked.last.clone() else { return Err(not_started(Errno::ACCESS)) };
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = fs::openat(&walked.fd, &name, flags, Mode::empty()).map_err(not_started)?;
    let stat = Stat::of_fd(&file).map_err(not_started)?;
    if stat.kind != FileType::RegularFile {
        return Err(not_started(Errno::ACCESS));
    }
    walked.judged(&place, &name, stat, &file, rule)?;
    Ok((walked.path.join(&name), walked.interpreters(&name), walked.doubts))
}

/// What an argument names, if it names anything: which programs are needed to run it, should it be run, and doubts.
fn named(place: &Path, owner: Option<u32>) -> Result<(Vec<OsString>, Vec<Doubt>)> {
    let rule = TrustRule::Given { owner };
    let mut walked = match walk(place, rule) {
        Err(e @ HostError::Untrusted { .. }) => return Err(e),
        // There is no such way: it is some other word.
        Err(_) => return Ok((Vec::new(), Vec::new())),
        Ok(walked) => walked,
    };
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = |name: &OsString| {
        let file = fs::openat(&walked.fd, name, flags, Mode::empty()).ok()?;
        let stat = Stat::of_fd(&file).ok().filter(|stat| stat.kind == FileType::RegularFile)?;
        Some((name.clone(), file, stat))
    };
    let mut needed = Vec::new();
    // A device, a pipe or a socket is for everybody, and no script.
    if let Some((name, file, stat)) = walked.last.as_ref().and_then(file) {
        walked.judged(place, &name, stat, &file, rule)?;
        needed = walked.interpreters(&name);
    }
    Ok((needed, walked.doubts))
}

/// What runs a script, by its first line (execve(2)), and what it names besides; where that is `env`, also what `env` runs.
pub(super) fn interpreters(head: &[u8]) -> Vec<OsString> {
    let Some(line) = head.strip_prefix(b"#!").and_then(|rest| rest.split(|b| matches!(b, b'\n' | 0)).next()) else {
        return Vec::new();
    };
    let mut words = line.split(|b| matches!(b, b' ' | b'\t' | b'\r')).filter(|word| !word.is_empty());
    let Some(first) = words.next() else { return Vec::new() };
    // A name without a slash is one in the working directory here, not one to be searched for.
    let mut found = vec![Path::new("/").join(OsStr::from_bytes(first)).into_os_string()];
    let given = words.clone().filter(|word| word.starts_with(b"/"));
    if first.rsplit(|b| *b == b'/').next() == Some(b"env") {
        let run = words.find(|word| !word.starts_with(b"-") && !word.contains(&b'='));
        found.extend(run.map(|word| OsStr::from_bytes(word).to_owned()));
    }
    found.extend(given.map(|word| OsStr::from_bytes(word).to_owned()));
    found.dedup();
    found
}

fn found_in_path(name: &OsStr) -> Option<PathBuf> {
    let is_program = |path: &PathBuf| {
        use std::os::unix::fs::PermissionsExt;
        std::fs::metadata(path).is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0)
    };
    std::env::split_paths(COMMAND_PATH).map(|dir| dir.join(name)).find(is_program)
}

/// The search path for what we start: the directories of the fixed one that nobody else can put a program into.
pub fn command_path() -> OsString {
    let is_trusted = |dir: &PathBuf| {
        walk(dir, TrustRule::Obey { owner: None }).is_ok_and(|walked| {
            // In a sticky directory everybody may make what is not there yet.
            walked.last.is_none() && Stat::of_fd(&walked.fd).is_ok_and(|here| here.mode & 0o002 == 0)
        })
    };
    let dirs: Vec<PathBuf> = std::env::split_paths(COMMAND_PATH).filter(is_trusted).collect();
    std::env::join_paths(dirs).unwrap_or_default()
}
