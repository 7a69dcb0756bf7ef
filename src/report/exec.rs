//! A program of the operator's own, started for every report, which it gets as one line of JSON on its standard input.
//!
//! What the program may rely on: an argv array without a shell; a user without rights and no supplementary groups; an
//! environment of exactly `PATH=/usr/bin:/bin`, `LANG=C.UTF-8` and `HOME=/`; `/` as working directory; a process group
//! of its own; standard output that nobody reads; no descriptor of relaykey's beyond the first three (what relaykey
//! was itself started with, and not closed on exec, is the caller's: a service manager hands nothing on).
//!
//! How it ends says what became of the report:
//!
//! | end | the report |
//! |---|---|
//! | status 0 | is delivered |
//! | status 75 (`EX_TEMPFAIL` of `sysexits.h`), a signal, the time-out | is tried again soon |
//! | any other status | is tried again, with the long back-off of what a person has to mend |
//!
//! When the program has ended, in whatever way, or the attempt is dropped, its process group is killed: nothing that it
//! started in the background is waited for, nor lives on, unless it left the group on purpose (setsid).
//!
//! A root process starts it, so nobody but root may decide what it is: each directory on the way to it and the file
//! itself belong to root and cannot be changed by others, at every start anew.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{
    Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, geteuid, kill_process_group, pidfd_open, waitid,
};
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest};
use tokio::process::{Child, ChildStderr, Command};
use tokio::time::{Instant, timeout, timeout_at};

use crate::fault::{Class, Fault};
use crate::host::{self, Directory, HostError, trust};
use crate::report::{Checking, Delivering, Receiver, Whose, printable_end};
use crate::rollover::Report;

/// `EX_TEMPFAIL` of `sysexits.h`: the same status by which mail programs say "later".
const TRY_AGAIN: i32 = 75;
/// Where users are looked up. Not by way of the C library, whose modules would make this process reach out to others.
const PASSWD: &str = "/etc/passwd";
/// The largest list of users that is read, in bytes.
const MAX_PASSWD: usize = 8 * 1024 * 1024;
/// What is kept of the end of standard error, in bytes; the rest is read and forgotten.
const MAX_STDERR: usize = 4096;
/// Characters of it that are shown.
const MOST_SHOWN: usize = 500;
/// How long standard error is read after the end, where somebody who left the process group holds it open.
const LAST_WORDS: Duration = Duration::from_millis(250);
/// How often the program is looked at where the kernel (before Linux 5.3) does not tell of its end.
const SLICE: Duration = Duration::from_millis(50);
/// From the time-out to the end of the attempt, at most.
const MARGIN: Duration = Duration::from_secs(5);

/// A receiver of type `exec`.
pub struct Exec {
    command: Vec<String>,
    user: String,
    timeout: Duration,
}

impl Exec {
    /// `command` is an argv array that begins with an absolute path.
    pub fn new(command: &[String], user: &str, timeout: Duration) -> Self {
        Self { command: command.to_vec(), user: user.to_owned(), timeout }
    }

    fn program(&self) -> &str {
        self.command.first().map_or("", String::as_str)
    }

    async fn hand_over(&self, report: &Report) -> Result<(), Fault> {
        let start = self.prepare().await?;
        let mut line = serde_json::to_vec(report).expect("a report has only text keys");
        line.push(b'\n');
        let mut running = RunningProgram::start(&self.command, &start).map_err(|e| self.not_started(e))?;
        let (end, said) = running.converse(&line, self.timeout).await;
        self.judge(end, &said)
    }

    async fn look(&self) -> Result<String, Fault> {
        let start = self.prepare().await?;
        let Start { path, user, .. } = &start;
        if let Some(closed) = first_closed(path, *user) {
            return Err(self.fails(
                Class::Permissions,
                format!("its user cannot get at it: {} is closed to user id {}", closed.display(), user.uid),
                format!("chmod o+x {}", closed.display()),
            ));
        }
        Ok(format!(
            "nobody but root can change {}, and it would run as {} (user id {}, group id {}); it was not started",
            path.display(),
            self.user,
            user.uid,
            user.gid
        ))
    }

    /// Everything that has to be so before the program may be started.
    async fn prepare(&self) -> Result<Start, Fault> {
        let (program, name) = (self.program().to_owned(), self.user.clone());
        let mut command: Vec<OsString> = self.command.iter().map(OsString::from).collect();
        command.resize(command.len().max(1), OsString::new());
        let looking = tokio::task::spawn_blocking(move || {
            let path = safe_program(Path::new(&program))?;
            let user = user_of(&name)?;
            // And what its first line names, if it is a script, and what its arguments do, if it is a shell or its like: the
            // user whom it runs as may have written that.
            command[0] = path.clone().into_os_string();
            trust::command(&command, Some(user.uid))?;
            Ok(Start { path, user, become_user: may_become(&name, user)? })
        });
        match looking.await {
            Ok(found) => found,
            Err(broken) => match broken.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                Err(_) => {
                    let failed = self.fails(Class::Io, "looking at it was broken off", "nothing to do if it passes");
                    Err(Fault { temporary: true, ..failed })
                }
            },
        }
    }

    fn not_started(&self, source: io::Error) -> Fault {
        let (program, kind) = (self.program(), source.kind());
        let failed = HostError::NotStarted { program: program.to_owned(), source };
        let fix = match kind {
            // It was there when it was looked at.
            io::ErrorKind::NotFound => format!("install what the first line of {program} names after #!"),
            io::ErrorKind::PermissionDenied => {
                format!("let {} execute it and search the directories above it: namei -l {program}", self.user)
            }
            _ if failed.is_temporary() => {
                "it is tried again; if this stays, look at the limits of processes and memory".to_owned()
            }
            _ => format!("look at it: file {program}"),
        };
        Fault { fix, ..failed.into() }
    }

    fn judge(&self, end: ProgramEnd, said: &[u8]) -> Result<(), Fault> {
        use std::os::unix::process::ExitStatusExt;
        let program = self.program();
        let by_hand = format!("look at what it says; by hand: a report on its standard input, as user {}", self.user);
        let (temporary, class, words, fix) = match end {
            ProgramEnd::Exited(status) => match (status.code(), status.signal()) {
                (Some(0), _) => return Ok(()),
                (Some(TRY_AGAIN), _) => {
                    (true, Class::Program, format!("it asks to be started again later (status {TRY_AGAIN})"), by_hand)
                }
                (Some(code), _) => (false, Class::Program, format!("it failed with status {code}"), by_hand),
                (None, signal) => {
                    let number = signal.map_or_else(|| "a signal".to_owned(), |n| format!("signal {n}"));
                    (true, Class::Program, format!("it was ended by {number}"), by_hand)
                }
            },
            ProgramEnd::TooLate => (
                true,
                Class::Timeout,
                format!("it did not end within {:?} and was killed with all that it had started", self.timeout),
                format!("see where {program} hangs, or raise `timeout` in [[report]]"),
            ),
            ProgramEnd::Lost(e) => {
                (true, Class::Io, format!("its end cannot be told: {e}"), "nothing to do if it passes".into())
            }
        };
        let said = printable_end(said, MOST_SHOWN);
        let words = if said.is_empty() { words } else { format!("{words}: \"{said}\"") };
        Err(Fault { temporary, ..self.fails(class, words, fix) })
    }

    /// A permanent one.
    fn fails(&self, class: Class, words: impl std::fmt::Display, fix: impl Into<String>) -> Fault {
        Fault::new(class, format!("{}: {words}", self.describe()), fix)
    }
}

impl Receiver for Exec {
    fn deliver<'a>(&'a self, report: &'a Report) -> Delivering<'a> {
        Box::pin(self.hand_over(report))
    }

    fn check<'a>(&'a self, _: &'a Whose) -> Checking<'a> {
        Box::pin(self.look())
    }

    /// Without the arguments, which may be nobody's business.
    fn describe(&self) -> String {
        format!("program {}", self.program())
    }

    fn limit(&self) -> Duration {
        self.timeout.saturating_add(MARGIN)
    }
}

// ---------------------------------------------------------------- what may be started, and as whom

/// What is started, and as whom.
struct Start {
    /// Without symbolic links.
    path: PathBuf,
    user: RunAs,
    become_user: bool,
}

/// What a group could have written of what the program is given. The program itself is held to a stricter rule.
pub fn doubts(command: &[String], user: &str) -> Vec<trust::Doubt> {
    let user = user_of(user).ok().map(|user| user.uid);
    trust::command(command, user).map(|looked| looked.doubts).unwrap_or_default()
}

/// Where the program is without symbolic links, if nobody but root (and ourselves, where we are not root) can put
/// another in its place.
fn safe_program(path: &Path) -> Result<PathBuf, Fault> {
    let shown = path.display();
    let wrong =
        |what: String, fix: String| Err(Fault::new(Class::Permissions, format!("program {shown}: {what}"), fix));
    let (directory, name) = Directory::of(path)?;
    let whole = directory.path().join(&name);
    let Some(found) = directory.permissions(&name)? else {
        return Err(Fault::new(
            Class::NotFound,
            format!("program {shown}: it does not exist"),
            "correct `command` in [[report]], or install it",
        ));
    };
    let mode = found.mode;
    if !found.is_trusted() {
        return wrong(format!("it belongs to user id {}", found.uid), format!("chown root: {}", whole.display()));
    }
    if mode & 0o022 != 0 {
        let what = format!("others than its owner may change it (mode {mode:04o})");
        return wrong(what, format!("chmod go-w {}", whole.display()));
    }
    if mode & 0o6000 != 0 {
        let what = format!("it runs with the rights of its owner or group, whoever starts it (mode {mode:04o})");
        return wrong(what, format!("chmod ug-s {}, or name a program that needs no rights", whole.display()));
    }
    if mode & 0o111 == 0 {
        return wrong(format!("it is not executable (mode {mode:04o})"), format!("chmod 755 {}", whole.display()));
    }
    Ok(whole)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct RunAs {
    uid: u32,
    gid: u32,
}

/// A user of this host who has no rights.
fn user_of(name: &str) -> Result<RunAs, Fault> {
    let (text, _) = host::read(Path::new(PASSWD), MAX_PASSWD)?;
    without_rights(&text, name)
}

fn without_rights(passwd: &[u8], name: &str) -> Result<RunAs, Fault> {
    let wrong = |what: &str, fix: String| Err(Fault::new(Class::User, format!("user {name:?}: {what}"), fix));
    let other = "set `user` in [[report]] to a user without rights, such as \"nobody\"";
    match find(passwd, name) {
        None => wrong(
            &format!("{PASSWD} has no such user; directory services are not asked"),
            format!("make one: useradd --system --no-create-home {name}; or {other}"),
        ),
        Some(RunAs { uid: 0, .. }) => wrong("it is root under another name (user id 0)", other.into()),
        // Files that are for root's group are not for programs like this one.
        Some(RunAs { gid: 0, .. }) => wrong("it is in root's group (group id 0)", other.into()),
        Some(user) => Ok(user),
    }
}

/// The user of this name in a passwd(5) file; lines that are no entries are passed over.
fn find(passwd: &[u8], name: &str) -> Option<RunAs> {
    let text = String::from_utf8_lossy(passwd);
    text.lines().find_map(|line| {
        let mut fields = line.split(':');
        let is_name = fields.next() == Some(name) && !name.is_empty();
        let (uid, gid) = (fields.nth(1)?, fields.next()?);
        is_name.then_some(())?;
        Some(RunAs { uid: uid.parse().ok()?, gid: gid.parse().ok()? })
    })
}

/// Has the program to become that user? An error where it cannot.
fn may_become(name: &str, user: RunAs) -> Result<bool, Fault> {
    let me = geteuid();
    if me.is_root() || me.as_raw() == user.uid {
        return Ok(me.is_root());
    }
    Err(Fault::new(
        Class::User,
        format!("user {name:?}: only root can start a program as another user, and this is user id {}", me.as_raw()),
        "run relaykey as root; or set `user` in [[report]] to the user that it runs as",
    ))
}

/// The file, or the first directory above it, that the user may not execute or search, by its mode.
fn first_closed(path: &Path, user: RunAs) -> Option<PathBuf> {
    use std::os::unix::fs::MetadataExt;
    let closed = |at: &&Path| {
        let Ok(found) = std::fs::metadata(at) else { return true };
        let bit = match () {
            () if found.uid() == user.uid => 0o100,
            () if found.gid() == user.gid => 0o010,
            () => 0o001,
        };
        found.mode() & bit == 0
    };
    path.ancestors().collect::<Vec<_>>().into_iter().rev().find(closed).map(Path::to_owned)
}

// ---------------------------------------------------------------- the program at work

/// How a program ended.
enum ProgramEnd {
    Exited(ExitStatus),
    TooLate,
    /// The system did not say.
    Lost(io::Error),
}

/// A program that does not outlive this value, nor does its process group.
struct RunningProgram {
    child: Child,
    group: Pid,
    /// Its number, and with it that of the group, may be another's by now.
    reaped: bool,
}

impl RunningProgram {
    fn start(command: &[String], start: &Start) -> io::Result<Self> {
        let mut program = Command::new(&start.path);
        program
            .arg0(command.first().map_or("", String::as_str))
            .args(command.iter().skip(1))
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .env("LANG", "C.UTF-8")
            .env("HOME", "/")
            .current_dir("/")
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        if start.become_user {
            // With a user id the standard library also drops the supplementary groups, as root may.
            program.uid(start.user.uid).gid(start.user.gid);
        }
        let child = program.spawn()?;
        let group = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
        let group = group.ok_or_else(|| io::Error::other("it has no process number"))?;
        Ok(Self { child, group, reaped: false })
    }

    /// Says the line, and listens until the end. Also what it said last.
    async fn converse(&mut self, line: &[u8], time: Duration) -> (ProgramEnd, Vec<u8>) {
        let deadline = Instant::now() + time;
        let (stdin, mut stderr) = (self.child.stdin.take(), self.child.stderr.take());
        let mut said = Vec::new();
        let ended = {
            let talk = async {
                let say = async {
                    // Dropped at the end, which is the end of its input. It need not want any of it.
                    if let Some(mut stdin) = stdin {
                        let _ = stdin.write_all(line).await;
                    }
                };
                tokio::join!(say, listen(stderr.as_mut(), &mut said));
                std::future::pending::<()>().await;
            };
            tokio::select! {
                ended = timeout_at(deadline, ended(self.group)) => ended,
                () = talk => unreachable!("it waits for ever"),
            }
        };
        // The program is not reaped yet, so this is still its group; what it left behind ends here.
        self.kill_group();
        let _ = timeout(LAST_WORDS, listen(stderr.as_mut(), &mut said)).await;
        let status = timeout(MARGIN / 2, self.child.wait()).await;
        self.reaped = matches!(status, Ok(Ok(_)));
        let end = match (ended, status) {
            (Err(_), _) => ProgramEnd::TooLate,
            (Ok(Ok(())), Ok(Ok(status))) => ProgramEnd::Exited(status),
            (Ok(Err(e)), _) | (_, Ok(Err(e))) => ProgramEnd::Lost(e),
            (_, Err(_)) => ProgramEnd::Lost(io::ErrorKind::TimedOut.into()),
        };
        (end, said)
    }

    fn kill_group(&self) {
        // It fails only where nobody is left.
        let _ = kill_process_group(self.group, Signal::KILL);
    }
}

impl Drop for RunningProgram {
    fn drop(&mut self) {
        if !self.reaped {
            // The run time reaps the program itself later.
            self.kill_group();
        }
    }
}

/// Waits for the end of a child of ours, and leaves it to be reaped: until then its number is nobody else's.
async fn ended(child: Pid) -> io::Result<()> {
    #[allow(
        deprecated,
        reason = "its successor is `unsafe` for types whose descriptor may change or close; OwnedFd's cannot"
    )]
    let readable = |fd| AsyncFd::with_interest(fd, Interest::READABLE).ok();
    let told = pidfd_open(child, PidfdFlags::empty()).ok().and_then(readable);
    loop {
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT | WaitIdOptions::NOHANG;
        if waitid(WaitId::Pid(child), options)?.is_some() {
            return Ok(());
        }
        match &told {
            // Readable once it has ended, and not before (pidfd_open(2)).
            Some(told) => drop(told.readable().await?),
            None => tokio::time::sleep(SLICE).await,
        }
    }
}

/// Reads to the end, and keeps the last [`MAX_STDERR`] bytes. May be dropped at any await, and called again.
async fn listen(pipe: Option<&mut ChildStderr>, said: &mut Vec<u8>) {
    let Some(pipe) = pipe else { return };
    let mut buffer = [0; 4096];
    while let Ok(count @ 1..) = pipe.read(&mut buffer).await {
        said.extend_from_slice(&buffer[..count]);
        said.drain(..said.len().saturating_sub(MAX_STDERR));
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    #[test]
    fn a_user_is_found_and_has_no_rights() {
        let passwd = b"root:x:0:0:root:/root:/bin/sh\n\
            broken:x\n\xff\xfe:x:7:7\n\
            toor:x:0:5::/:/bin/sh\nwheel:x:7:0::/:/bin/sh\nodd:x:many:1::/:/bin/sh\n\
            nobody:x:65534:65533:nobody:/nonexistent:/usr/sbin/nologin";
        let found = without_rights(passwd, "nobody").expect("nobody");
        assert_eq!(found, RunAs { uid: 65534, gid: 65533 });
        for (name, what) in [
            ("root", "user id 0"),
            ("toor", "user id 0"),
            ("wheel", "group id 0"),
            ("odd", "no such user"),
            ("broken", "no such user"),
            ("nobod", "no such user"),
            ("", "no such user"),
        ] {
            let e = without_rights(passwd, name).expect_err(name);
            assert_eq!((e.class.word(), e.temporary), ("user", false), "{name}");
            assert!(e.what.contains(what) && e.fix.contains("user"), "{name}: {e:?}");
        }
    }

    #[test]
    fn only_a_program_that_nobody_else_can_change_is_started() {
        let scratch = tempfile::Builder::new().prefix("relaykey-exec-").tempdir().unwrap();
        let dir = scratch.path().to_owned();
        std::fs::set_permissions(&dir, std::fs::Permissions::from_mode(0o755)).unwrap();
        let open = dir.join("open");
        std::fs::create_dir(&open).unwrap();
        let program = |at: &Path, mode| {
            std::fs::write(at, "#!/bin/sh\n").unwrap();
            std::fs::set_permissions(at, std::fs::Permissions::from_mode(mode)).unwrap();
        };
        std::fs::set_permissions(&open, std::fs::Permissions::from_mode(0o777)).unwrap();
        let at = |name: &str| dir.join(name);
        program(&at("good"), 0o755);
        program(&open.join("in-open"), 0o755);
        symlink(at("good"), at("link")).unwrap();
        symlink(open.join("in-open"), at("link-to-open")).unwrap();
        for (name, mode) in
            [("group", 0o775), ("others", 0o757), ("setuid", 0o4755), ("setgid", 0o2755), ("plain", 0o644)]
        {
            program(&at(name), mode);
        }
        assert_eq!(safe_program(&at("good")).unwrap(), std::fs::canonicalize(at("good")).unwrap());
        assert_eq!(safe_program(&at("link")).unwrap(), std::fs::canonicalize(at("good")).unwrap());
        for (path, class, fix) in [
            (at("group"), "permissions", "chmod go-w"),
            (at("others"), "permissions", "chmod go-w"),
            (at("setuid"), "permissions", "chmod ug-s"),
            (at("setgid"), "permissions", "chmod ug-s"),
            (at("plain"), "permissions", "chmod 755"),
            (open.join("in-open"), "permissions", "chmod go-w"),
            (at("link-to-open"), "permissions", "chmod go-w"),
            (at("none"), "not-found", "install it"),
            (dir.clone(), "unsupported", "regular file"),
        ] {
            let e = safe_program(&path).expect_err(&path.display().to_string());
            assert_eq!((e.class.word(), e.temporary), (class, false), "{e:?}");
            assert!(e.fix.contains(fix), "{e:?}");
        }
        std::fs::set_permissions(&dir, std::fs::Permissions::from_mode(0o700)).unwrap();
        let stranger = RunAs { uid: 65534, gid: 65534 };
        assert_eq!(first_closed(&at("good"), stranger), Some(dir.clone()));
        std::fs::set_permissions(&dir, std::fs::Permissions::from_mode(0o755)).unwrap();
        assert_eq!(first_closed(&at("good"), stranger), None);
        assert_eq!(first_closed(&at("plain"), stranger), Some(at("plain")));
    }

    #[test]
    fn it_says_how_long_it_may_take_and_not_its_arguments() {
        let command = ["/usr/local/lib/report".to_owned(), "--token=x".to_owned()];
        let exec = Exec::new(&command, "nobody", Duration::from_secs(120));
        assert_eq!(exec.describe(), "program /usr/local/lib/report");
        assert!(exec.limit() > Duration::from_secs(120) && exec.limit() < Duration::from_secs(130));
    }
}
