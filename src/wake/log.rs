//! Following the mail log: where it is, its new lines, across rotation; a file, or the journal through journalctl(1).

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use rustix::fs::OFlags;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;
use tokio::task::JoinSet;

use super::alarm::{self, Alarm, Brake};
use super::watch::Growth;
use super::{Cause, Mailbox, boot_time, wait};
use crate::config::{self, Finding, Severity};
use crate::host::trust;
use crate::text::line_of;

/// A longer line is passed over. Postfix itself cuts at 2 KiB or so.
const MAX_LINE: usize = 64 * 1024;
/// So much is read before others run.
const CHUNK: usize = 16 * 1024;
/// What is behind by more than this is passed over: only what happens now calls for a look now.
const MAX_BEHIND: u64 = 1024 * 1024;
/// Lines that arrive close together are read together.
const GATHER: Duration = Duration::from_millis(200);
/// A log that cannot be watched is looked at so often.
const UNWATCHED: Duration = Duration::from_secs(30);
/// A mail log that nobody has written to for so long is a left-over.
const FRESH: Duration = Duration::from_secs(7 * 24 * 3600);
/// Before journalctl is started again, at first and at last.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LAST_PAUSE: Duration = Duration::from_secs(300);

/// Where the mail server logs.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum LogPlace {
    /// A file, absolute.
    File(PathBuf),
    /// The systemd journal.
    Journal,
}

impl LogPlace {
    /// Why it cannot be followed. A file that is not there yet can; the journal is not asked.
    pub fn unreadable(&self) -> Option<Finding> {
        match self {
            LogPlace::File(path) => Tail::closed(path).reopen().err().map(|e| unreadable(path, &e)),
            LogPlace::Journal => None,
        }
    }
}

impl std::fmt::Display for LogPlace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            LogPlace::File(path) => write!(f, "{}", path.display()),
            LogPlace::Journal => f.write_str("the journal"),
        }
    }
}

/// Where to look for refusals: as it is configured; else where Postfix itself writes to, by its `maillog_file`
/// (postconf(5)), if that is a file; else where syslog daemons keep the mail log, if somebody writes there; else the
/// journal.
///
/// # Errors
/// There is no mail log on this host; the finding says what to do. The daemon goes on without its alarm.
pub fn find(configured: &config::MailLog, maillog_file: Option<&Path>, now: SystemTime) -> Result<LogPlace, Finding> {
    find_below(Path::new("/"), configured, maillog_file, now)
}

fn find_below(
    root: &Path,
    configured: &config::MailLog,
    maillog_file: Option<&Path>,
    now: SystemTime,
) -> Result<LogPlace, Finding> {
    match configured {
        config::MailLog::File(path) => return Ok(LogPlace::File(path.clone())),
        config::MailLog::Journal => return Ok(LogPlace::Journal),
        config::MailLog::Found => {}
    }
    // In containers it is /dev/stdout, which nobody can follow.
    if let Some(file) = maillog_file.filter(|file| file.is_absolute() && !file.starts_with("/dev")) {
        return Ok(LogPlace::File(file.to_owned()));
    }
    let at = |name: &str| root.join("var/log").join(name);
    let exists = |path: &PathBuf| fs::metadata(path).is_ok_and(|m| m.is_file());
    let is_fresh = |path: &PathBuf| {
        let written = fs::metadata(path).ok().filter(fs::Metadata::is_file).and_then(|m| m.modified().ok());
        written.is_some_and(|written| now.duration_since(written).unwrap_or_default() < FRESH)
    };
    // Those of Debian, of Red Hat and SUSE, then where everything goes.
    let files = ["mail.log", "maillog", "mail", "syslog", "messages"].map(at);
    if let Some(file) = files.iter().find(|file| is_fresh(file)) {
        return Ok(LogPlace::File(file.clone()));
    }
    if root.join("run/systemd/journal").is_dir() {
        return Ok(LogPlace::Journal);
    }
    // A host that has sent no mail for long; the next line will come there.
    files[..3].iter().find(|file| exists(file)).map(|file| LogPlace::File(file.clone())).ok_or_else(|| Finding {
        severity: Severity::Warning,
        line: None,
        file: None,
        what: "no mail log was found, so refused logins of the mail server are seen at the next poll only".into(),
        fix: "name it with `log = \"/path/to/mail.log\"` or `log = \"journal\"` in [[credential.target]]".into(),
    })
}

/// What comes out of a log.
#[derive(Debug, PartialEq)]
pub enum LogOutput<'a> {
    /// A whole line, without its end.
    Line(&'a str),
    /// So many bytes were passed over: a line that was too long, or too many lines at once.
    PassedOver(u64),
    /// The log cannot be read now; it is tried again.
    Trouble(Finding),
}

/// Gives every line that is written to the log from now on to `each`, for ever. `growth` is the watch on a file; without
/// one the file is looked at every 30 s. Giving up ends it, and a journalctl that it started.
pub async fn follow(place: &LogPlace, growth: Option<Growth>, mut each: impl FnMut(LogOutput<'_>)) {
    match place {
        LogPlace::File(path) => follow_file(path, growth, &mut each).await,
        LogPlace::Journal => follow_journal(&JOURNALCTL.map(PathBuf::from), &mut each).await,
    }
}

// ---------------------------------------------------------------------------------------------------------------
// A file

async fn follow_file(path: &Path, growth: Option<Growth>, each: &mut impl FnMut(LogOutput<'_>)) {
    let mut tail = Tail::new(path);
    // What cannot be read is said once, not with every line that is written.
    let mut said = None;
    loop {
        loop {
            match tail.read(each) {
                Ok(more) => {
                    said = None;
                    if !more {
                        break;
                    }
                    tokio::task::yield_now().await;
                }
                Err(e) => {
                    if said.replace(e.kind()) != Some(e.kind()) {
                        each(LogOutput::Trouble(unreadable(path, &e)));
                    }
                    break;
                }
            }
        }
        match &growth {
            Some(growth) => {
                growth.grown().await;
                tokio::time::sleep(GATHER).await;
            }
            None => wait(UNWATCHED).await,
        }
    }
}

fn unreadable(path: &Path, e: &io::Error) -> Finding {
    Finding {
        severity: Severity::Warning,
        line: None,
        file: Some(path.to_owned()),
        what: format!("the mail log cannot be read: {e}"),
        fix: "let the daemon's user read it, or name another with `log` in [[credential.target]]".into(),
    }
}

/// The end of a file that others write to.
struct Tail {
    path: PathBuf,
    open: Option<OpenLog>,
    lines: LineSplitter,
    /// What is there at first is old.
    first: bool,
}

struct OpenLog {
    file: File,
    id: (u64, u64),
    /// How far it was read.
    at: u64,
}

impl Tail {
    fn closed(path: &Path) -> Self {
        Self { path: path.to_owned(), open: None, lines: LineSplitter::default(), first: true }
    }

    fn new(path: &Path) -> Self {
        let mut tail = Self::closed(path);
        // What goes wrong here goes wrong again when it is read, and is said then.
        let _ = tail.reopen();
        tail.first = false;
        tail
    }

    /// Reads a part of what is new. Is there more?
    fn read(&mut self, each: &mut impl FnMut(LogOutput<'_>)) -> io::Result<bool> {
        let Some(open) = &mut self.open else { return self.reopen() };
        let size = open.file.metadata()?.len();
        if size < open.at {
            // Cut short in place (copytruncate): what is there is new.
            self.lines.clear();
            (open.at, open.file) = (0, rewound(&open.file)?);
        }
        let behind = size.saturating_sub(open.at);
        if behind > MAX_BEHIND {
            let passed = behind - MAX_BEHIND;
            open.at = open.file.seek(SeekFrom::Start(open.at + passed))?;
            self.lines.skip_to_next();
            each(LogOutput::PassedOver(passed));
        }
        let mut chunk = [0; CHUNK];
        let n = open.file.read(&mut chunk)?;
        open.at += n as u64;
        self.lines.feed(&chunk[..n], each);
        if n > 0 {
            return Ok(true);
        }
        // At the end of this one: has another taken its place?
        match fs::metadata(&self.path) {
            Ok(m) if (m.dev(), m.ino()) == open.id => Ok(false),
            Ok(_) => self.reopen(),
            // Moved away; the old one may still be written to until there is a new one.
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(e) => Err(e),
        }
    }

    /// Opens what has the name now. Is there something to read? One that does not exist (yet) is no error.
    fn reopen(&mut self) -> io::Result<bool> {
        // Others may write to the directory, and opening a device can do something: the place is looked at first, and it is
        // that very file that is opened then.
        let open = |path: &Path, flags: OFlags| {
            let flags = (flags | OFlags::CLOEXEC).bits().cast_signed();
            File::options().read(true).custom_flags(flags).open(path)
        };
        let place = match open(&self.path, OFlags::PATH) {
            Ok(place) => place,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(e) => return Err(e),
        };
        let found = place.metadata()?;
        if !found.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file"));
        }
        let again = PathBuf::from(format!("/proc/self/fd/{}", place.as_raw_fd()));
        let mut file = open(&again, OFlags::NONBLOCK | OFlags::NOCTTY)?;
        self.lines.clear();
        let mut at = 0;
        if self.first && found.len() > 0 {
            // One byte before the end, to see whether the last line is complete.
            file.seek(SeekFrom::Start(found.len() - 1))?;
            let mut last = [0];
            at = found.len() - 1 + file.read(&mut last)? as u64;
            if last != *b"\n" {
                self.lines.skip_to_next();
            }
        }
        self.open = Some(OpenLog { file, id: (found.dev(), found.ino()), at });
        Ok(true)
    }
}

/// The same open file, read from its beginning again.
fn rewound(file: &File) -> io::Result<File> {
    let mut file = file.try_clone()?;
    file.rewind()?;
    Ok(file)
}

/// Makes lines of what is read.
#[derive(Default)]
struct LineSplitter {
    partial: Vec<u8>,
    /// Bytes of the line that is passed over, where one is.
    skipping: Option<u64>,
}

impl LineSplitter {
    fn clear(&mut self) {
        *self = Self::default();
    }

    /// What comes before the next line's end is not a whole line.
    fn skip_to_next(&mut self) {
        self.clear();
        self.skipping = Some(0);
    }

    fn feed(&mut self, bytes: &[u8], each: &mut impl FnMut(LogOutput<'_>)) {
        for piece in bytes.split_inclusive(|b| *b == b'\n') {
            let (text, whole) = match piece.strip_suffix(b"\n") {
                Some(text) => (text, true),
                None => (piece, false),
            };
            if let Some(passed) = &mut self.skipping {
                *passed += piece.len() as u64;
                if whole {
                    // One that was cut by our own beginning is nothing to speak of.
                    if *passed > MAX_LINE as u64 {
                        each(LogOutput::PassedOver(*passed));
                    }
                    self.skipping = None;
                }
            } else if self.partial.len() + text.len() > MAX_LINE {
                let passed = (self.partial.len() + piece.len()) as u64;
                self.clear();
                if whole { each(LogOutput::PassedOver(passed)) } else { self.skipping = Some(passed) }
            } else if !whole {
                self.partial.extend_from_slice(text);
            } else if self.partial.is_empty() {
                each(LogOutput::Line(&String::from_utf8_lossy(text)));
            } else {
                self.partial.extend_from_slice(text);
                each(LogOutput::Line(&String::from_utf8_lossy(&self.partial)));
                // Gives the memory of a long one back.
                self.partial = Vec::new();
            }
        }
    }
}

// ---------------------------------------------------------------------------------------------------------------
// The journal

/// Where journalctl(1) is.
const JOURNALCTL: [&str; 2] = ["/usr/bin/journalctl", "/bin/journalctl"];

async fn follow_journal(programs: &[PathBuf], each: &mut impl FnMut(LogOutput<'_>)) {
    let mut pause = FIRST_PAUSE;
    loop {
        let begun = boot_time();
        let why = match read_journal(programs, each).await {
            Ok(()) => "journalctl ended".to_owned(),
            Err(e) => format!("journalctl cannot be run: {e}"),
        };
        // One that ran for a while is started again soon.
        if boot_time().saturating_sub(begun) > LAST_PAUSE {
            pause = FIRST_PAUSE;
        }
        each(LogOutput::Trouble(Finding {
            severity: Severity::Warning,
            line: None,
            file: None,
            what: format!("the journal cannot be followed: {why}; tried again in {} s", pause.as_secs()),
            fix:
                "see whether `journalctl --follow _COMM=smtp` works for the daemon's user, or name a file with `log` in \
                  [[credential.target]]"
                    .into(),
        }));
        wait(pause).await;
        pause = (pause * 2).min(LAST_PAUSE);
    }
}

/// Runs journalctl until it ends.
async fn read_journal(programs: &[PathBuf], each: &mut impl FnMut(LogOutput<'_>)) -> io::Result<()> {
    let program = programs.iter().find(|program| program.exists());
    let program = program.ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "it is not installed"))?;
    let senders = senders(&fs::read_to_string("/etc/passwd").unwrap_or_default());
    let checked = trust::program(program.as_os_str()).map_err(|e| io::Error::other(format!("{e} ({})", e.fix())))?;
    let mut child = Command::new(checked.path)
        .arg0(program)
        .args(["--follow", "--lines=0", "--quiet", "--no-pager", "--output=json"])
        .arg("--output-fields=MESSAGE,SYSLOG_IDENTIFIER,SYSLOG_PID,_PID,_UID,_COMM")
        // Facility and identifier are whatever the sender says; these the journal finds out itself.
        .arg("_COMM=smtp")
        .args(senders.iter().map(|uid| format!("_UID={uid}")))
        .env_clear()
        .env("LANG", "C")
        .env("PATH", "/usr/bin:/bin")
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()?;
    let Some(stdout) = child.stdout.take() else { return Ok(()) };
    let mut reader = BufReader::with_capacity(CHUNK, stdout);
    let mut lines = LineSplitter::default();
    loop {
        let bytes = reader.fill_buf().await?;
        let n = bytes.len();
        if n == 0 {
            break;
        }
        lines.feed(bytes, &mut |said: LogOutput<'_>| match said {
            LogOutput::Line(json) => {
                if let Some(line) = of_journal(json, &senders) {
                    each(LogOutput::Line(&line));
                }
            }
            other => each(other),
        });
        reader.consume(n);
    }
    child.wait().await.map(drop)
}

/// Who Postfix's smtp(8) runs as: root, until it has given up its rights, and `postfix`. Not the unit alone: a command in
/// somebody's `.forward` runs within Postfix's unit, as that user.
fn senders(passwd: &str) -> Vec<u32> {
    let postfix = passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next()? == "postfix").then_some(())?;
        fields.nth(1)?.parse::<u32>().ok()
    });
    std::iter::once(0).chain(postfix).collect()
}

/// The line as a file would have it, from the journal's JSON (systemd.journal-fields(7)), if one of these users' smtp(8)
/// wrote it: fields that begin with `_` are the journal's own, and nobody else can set them. A message that is no UTF-8 is an
/// array of numbers; none of Postfix's is.
fn of_journal(json: &str, senders: &[u32]) -> Option<String> {
    let entry: serde_json::Value = serde_json::from_str(json).ok()?;
    let text = |name: &str| entry.get(name).and_then(serde_json::Value::as_str);
    let uid: u32 = text("_UID")?.parse().ok()?;
    if !senders.contains(&uid) || text("_COMM") != Some("smtp") {
        return None;
    }
    let identifier = text("SYSLOG_IDENTIFIER").filter(|name| !name.contains([' ', ':', '[', ']']))?;
    // Only the form of a process id is asked for.
    let pid = text("SYSLOG_PID").or(text("_PID")).unwrap_or("0");
    Some(format!("{identifier}[{pid}]: {}", line_of(text("MESSAGE")?, MAX_LINE)))
}

// ---------------------------------------------------------------------------------------------------------------
// From lines to causes

/// Somebody who wants to know of alarms: one credential.
pub struct AlarmListener {
    /// Host names as the mail server may know the endpoint (aliases too), each with its port.
    pub endpoints: Vec<(String, u16)>,
    /// Gets a [`Cause::LogAlarm`], as often as the brake lets it.
    pub mailbox: Mailbox,
    /// To be settled when a look has changed something.
    pub brake: Arc<Mutex<Brake>>,
    /// Is told every alarm, also those that call for no look.
    pub heard: Box<dyn FnMut(&Alarm) + Send>,
}

/// Follows the log for ever, and tells each listener what concerns it. `trouble` gets what hinders it, and what is well
/// again is not said.
pub async fn listen(
    place: &LogPlace,
    growth: Option<Growth>,
    listeners: &mut [AlarmListener],
    mut trouble: impl FnMut(Finding),
) {
    // Looks that are still to come; they go with the listening.
    let mut later = JoinSet::new();
    follow(place, growth, |said| match said {
        LogOutput::Line(line) => {
            while later.try_join_next().is_some() {}
            for listener in listeners.iter_mut() {
                let endpoints: Vec<(&str, u16)> = listener.endpoints.iter().map(|(h, p)| (h.as_str(), *p)).collect();
                let Some(alarm) = alarm::judge(line, &endpoints) else { continue };
                (listener.heard)(&alarm);
                if !alarm.kind.calls_for_a_look() {
                    continue;
                }
                let admitted = listener.brake.lock().unwrap_or_else(PoisonError::into_inner).admit(boot_time());
                match admitted {
                    Some(Duration::ZERO) => listener.mailbox.post(Cause::LogAlarm(alarm)),
                    Some(left) => {
                        let mailbox = listener.mailbox.clone();
                        later.spawn(async move {
                            wait(left).await;
                            mailbox.post(Cause::LogAlarm(alarm));
                        });
                    }
                    None => {}
                }
            }
        }
        LogOutput::PassedOver(bytes) => trouble(Finding {
            severity: Severity::Note,
            line: None,
            file: None,
            what: format!("{bytes} bytes of {place} were passed over: a line too long, or too many lines at once"),
            fix: "nothing; refusals that go on are seen in the lines that follow".into(),
        }),
        LogOutput::Trouble(finding) => trouble(finding),
    })
    .await;
}

#[cfg(test)]
mod tests;
