//! Programs of others: started with a clean environment, waited for with a deadline, ended whole.

use std::ffi::OsStr;
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{self, OFlags};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open};
use zeroize::{Zeroize as _, Zeroizing};

use super::{HostError, Op, Result, mutate, trust};

/// What a command may write to its standard output before it is ended: a Postfix with many tables says kilobytes.
const MAX_STDOUT: usize = 8 * 1024 * 1024;
/// What is kept of a command's standard error; the rest is read and forgotten.
const MAX_STDERR: usize = 64 * 1024;
/// How long a command that only reads may still take once the program is to end: see [`ending`].
const LAST_LOOK: Duration = Duration::from_secs(5);
/// Where commands are looked for. The caller's own `PATH` does not count.
pub(super) const COMMAND_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

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
pub(super) static ENDING: OnceLock<Instant> = OnceLock::new();

/// This process is to end. Commands that only read have 5 s left from now on, or from their start: they hang, and ending them
/// tears nothing. Those that change something ([`run_mutating`]) are waited for as before.
pub fn ending() {
    ENDING.get_or_init(Instant::now);
}

/// Until when something that only looks is waited for that began at `started`: `timeout` long, and 5 s from when this process is told
/// to end.
pub fn looks_until(started: Instant, timeout: Duration) -> Instant {
    deadline(CommandKind::Reads, started, timeout)
}

/// May a command be ended when the program is to end?
#[derive(Clone, Copy, PartialEq)]
pub(super) enum CommandKind {
    Reads,
    Changes,
}

/// Until when a command is waited for, as of now.
pub(super) fn deadline(kind: CommandKind, started: Instant, timeout: Duration) -> Instant {
    let latest = started + timeout;
    match ENDING.get().filter(|_| kind == CommandKind::Reads) {
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
    let output =
        start(argv, stdin, CommandKind::Reads, timeout, MAX_STDOUT, &mut |piece| stdout.extend_from_slice(piece))?;
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
    start(argv, None, CommandKind::Reads, timeout, limit, each)
}

pub(super) fn start(
    argv: &[impl AsRef<OsStr>],
    stdin: Option<&[u8]>,
    kind: CommandKind,
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
    match RunningChild(child).converse(stdin.unwrap_or_default(), &until, limit, each) {
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
    run_counted(argv, stdin, CommandKind::Changes, timeout)
}

/// As [`run_mutating`], for a command that looks, and may repair what it finds, each thing by itself: it may be ended between
/// them, as one that only reads.
///
/// # Errors
/// As [`run`].
pub fn run_checking(argv: &[impl AsRef<OsStr>], timeout: Duration) -> Result<Output> {
    run_counted(argv, None, CommandKind::Reads, timeout)
}

pub(super) fn run_counted(
    argv: &[impl AsRef<OsStr>],
    stdin: Option<&[u8]>,
    kind: CommandKind,
    timeout: Duration,
) -> Result<Output> {
    let program = argv.first().map(AsRef::as_ref).unwrap_or_default();
    let call = || {
        let mut stdout = Zeroizing::new(Vec::with_capacity(64 * 1024));
        let output = start(argv, stdin, kind, timeout, MAX_STDOUT, &mut |piece| stdout.extend_from_slice(piece));
        Ok::<_, io::Error>(output.map(|output| Output { stdout, ..output }))
    };
    mutate(&Op::new("run", Path::new(""), program), call)?
}

pub(super) enum Ended {
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
pub(super) struct RunningChild(Child);

impl Drop for RunningChild {
    fn drop(&mut self) {
        if matches!(self.0.try_wait(), Ok(None)) {
            // Not reaped yet, so the group's number is still its own.
            let _ = rustix::process::kill_process_group(Pid::from_child(&self.0), Signal::KILL);
            let _ = self.0.wait();
        }
    }
}

impl RunningChild {
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
pub(super) fn drain(pipe: &mut impl Read, each: &mut dyn FnMut(&[u8])) -> bool {
    // As much as a pipe holds; what was read into it is wiped.
    let (mut buffer, mut used) = ([0u8; 64 * 1024], 0);
    // Bounded, so that a child that writes without end does not keep us from looking at the clock.
    let ended = (0..16).find_map(|_| match pipe.read(&mut buffer[..]) {
        Ok(0) => Some(true),
        Ok(n) => {
            used = used.max(n);
            each(&buffer[..n]);
            None
        }
        Err(e) if e.kind() == io::ErrorKind::Interrupted => None,
        Err(e) if e.kind() == io::ErrorKind::WouldBlock => Some(false),
        Err(_) => Some(true),
    });
    buffer[..used].zeroize();
    ended.unwrap_or(false)
}
