//! The audit log: who had what done, when, how long each step took, and what became of it.
//!
//! ```text
//! STATE_DIR/audit/             0700
//!   NAME.1.jsonl               0600, one JSON line per record: its number, the SHA-256 of the line before it, the record
//!   NAME.2.jsonl               the next 1 MiB; the latest five files are kept
//! STATE_DIR/credentials/NAME.json: .audit    rollover::AuditHead
//! ```
//!
//! The *head* says how far the log goes, which files it consists of, and holds the lines that a file may still lack. It
//! stands in the credential's state, so that what was done and its line become durable in one rename. [`Log::append`]
//! makes the next head without touching a file; [`Log::settle`] brings the files up to a head that is durable. Whatever
//! is killed in between, the next settle goes on from the head. It completes a line that was cut off in writing; anything
//! else that is not as it was written is an error that stays to be seen, and the log goes on in a new file.
//!
//! What this proves and what not is told in `docs/audit-log.md`.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::credential::{NOT_SHOWN, has_secret_shape};
use crate::fault::Class;
use crate::host::{self, Directory, FileId, HostError};
use crate::rollover::{AuditFile, AuditHead};
use crate::text::{self, shows};

/// A file that would grow beyond this is followed by another one, in bytes.
pub const FILE_SIZE: u64 = 1 << 20;
/// Files kept per credential, the current one included.
pub const FILES: usize = 5;
/// The longest line, in bytes.
pub const LINE: usize = 16 << 10;
/// How many lines the head holds for files that cannot be written. The oldest are lost beyond that, and missed by
/// [`verify`].
const OWED: usize = 64;
/// Steps of a record that are told one by one; the last stands for the rest where there are more.
const STEPS: usize = 64;
/// The largest file that is read, in bytes: one that somebody added to is still to be judged.
const MAX: usize = 4 << 20;

/// One line of the audit log, without its place in the chain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    pub at: Timestamp,
    pub credential: String,
    pub by: By,
    /// `rollover`, `adoption`, `heal`, `confirmation`, `reload`, `waits`, `rejection`, `departure`, `refused`, `failed`,
    /// `drift`, `withdrawal`, `no-change` (asked for by a person, nothing to do), `clone` (the state came with a copy of another
    /// installation, which the words name).
    pub what: String,
    pub version: Option<String>,
    pub username: Option<String>,
    pub previous_username: Option<String>,
    pub steps: Vec<StepTime>,
    /// `adopted`, `confirmed`, `done`, `failed-for-now`, `failed`, `interrupted`.
    pub outcome: String,
    /// Class and words of what stood in the way; of a rejection its reason.
    pub error: Option<Trouble>,
    /// Who let the version go, where somebody had to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub approved_by: Option<String>,
}

/// Who or what had it done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct By {
    /// `start`, `timer`, `signal`, `operator`, `file-watch`, `log-alarm`, `retry`.
    pub cause: String,
    /// For an operator: the user, as the kernel says it.
    pub user: Option<String>,
    pub uid: Option<u32>,
    /// Who the operator says to be: sudo's user.
    pub claimed: Option<String>,
    /// What woke it, in words: the file that changed, the line of the mail log.
    pub detail: Option<String>,
}

/// `alice`, `root (says: alice)`, `uid 1000`, `timer`.
impl std::fmt::Display for By {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (&self.user, self.uid) {
            (Some(user), _) => f.write_str(user)?,
            (None, Some(uid)) => write!(f, "uid {uid}")?,
            (None, None) => f.write_str(&self.cause)?,
        }
        match &self.claimed {
            Some(claimed) => write!(f, " (says: {claimed})"),
            None => Ok(()),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepTime {
    pub step: String,
    pub target: Option<String>,
    pub ok: bool,
    pub milliseconds: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trouble {
    pub class: Class,
    #[serde(deserialize_with = "text::on_one_line")]
    pub words: String,
}

/// A record in its place in the chain: one line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    /// From 1, without gaps.
    pub n: u64,
    /// SHA-256 of the line before, hex, without its line feed; 64 zeros for the first.
    pub prev: String,
    #[serde(flatten)]
    pub record: Record,
}

/// What of a line makes the chain.
#[derive(Deserialize)]
struct Place {
    n: u64,
    prev: String,
}

/// Why the log could not be brought up to its head, or does not hold.
#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    #[error(transparent)]
    Host(#[from] HostError),
    #[error(transparent)]
    Broken(#[from] Broken),
}

/// Something in the log is not as it was written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}{} {what}", file.display(), if *line == 0 { ":".to_owned() } else { format!(":{line}:") })]
pub struct Broken {
    pub file: PathBuf,
    /// In the file, from 1; 0: the file as a whole.
    pub line: usize,
    /// What is wrong there.
    pub what: String,
}

impl AuditError {
    /// Is the log itself damaged, so that it has to go on in a new file? Otherwise the next settle may succeed.
    pub fn is_broken(&self) -> bool {
        matches!(self, AuditError::Broken(_))
    }

    /// Machine-readable.
    pub fn class(&self) -> Class {
        match self {
            AuditError::Host(e) => e.class(),
            AuditError::Broken(_) => Class::AuditLogBroken,
        }
    }

    /// What to do.
    pub fn fix(&self) -> String {
        match self {
            AuditError::Host(e) => e.fix(),
            AuditError::Broken(_) => {
                "find out who changed the file, which relaykey never does, and compare it with a backup of it. Records that are \
                 still to come hold: where the file was the latest, they go to a new one. The break is told for as long as the \
                 file is kept"
                    .into()
            }
        }
    }
}

/// What [`verify`] found to be as it was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Verified {
    pub lines: u64,
    /// Number of the oldest line that is kept; 0: there is none.
    pub first: u64,
    /// Number of the last line; 0: there is none.
    pub last: u64,
    pub files: usize,
    /// How many of the lines stand in the state only: the next run adds them to their file.
    pub owed: u64,
}

// ---------------------------------------------------------------------------------------------------------------
// Writing

/// The log of one credential, for the one process that holds the state directory's lock.
#[derive(Debug)]
pub struct Log {
    dir: PathBuf,
    credential: String,
    file_size: u64,
    /// Number of the last line that is known to be durable in its file.
    settled: u64,
    /// The current file by its number, as this process left it.
    seen: Option<(u64, FileId)>,
    directory: Option<Directory>,
    /// Files with lower numbers are gone.
    oldest: u64,
}

impl Log {
    /// Touches nothing yet. The state directory has to exist when the log is settled.
    pub fn new(state_dir: &Path, credential: &str) -> Self {
        Self {
            dir: directory(state_dir),
            credential: credential.to_owned(),
            file_size: FILE_SIZE,
            settled: 0,
            seen: None,
            directory: None,
            oldest: 0,
        }
    }

    /// As [`Log::new`], with files of another size in bytes than [`FILE_SIZE`].
    pub fn with_file_size(state_dir: &Path, credential: &str, bytes: u64) -> Self {
        Self { file_size: bytes, ..Self::new(state_dir, credential) }
    }

    /// The head with one more record. Nothing is written: the caller makes the head durable together with what the record
    /// tells of, and then calls [`Log::settle`]. Words that are longer than anything that belongs there are cut.
    #[must_use]
    pub fn append(&self, head: &AuditHead, record: &Record) -> AuditHead {
        let mut head = head.clone();
        let settled = (self.settled + 1).saturating_sub(first_owed(&head));
        head.lines.drain(..head.lines.len().min(usize::try_from(settled).unwrap_or(usize::MAX)));
        let number = head.number.saturating_add(1);
        let before = end_hash(&head);
        let line = render(number, &before, record);
        let size = line.len() as u64 + 1;
        match head.files.last_mut() {
            Some(file) if file.size == 0 || file.size + size <= self.file_size => file.size += size,
            last => {
                let next = last.map_or(1, |file| file.number + 1);
                head.files.push(AuditFile { number: next, first: number, before, size });
            }
        }
        keep_latest(&mut head.files);
        head.number = number;
        head.hash = hash(line.as_bytes());
        head.lines.push(line);
        if head.lines.len() > OWED {
            head.lines.remove(0);
        }
        head
    }

    /// Brings the files up to a head that is durable, and removes those that it no longer names. Cheap where nothing is
    /// to be done.
    ///
    /// # Errors
    /// [`AuditError::Host`]: a file could not be read or written; try again at the next occasion, nothing is lost.
    /// [`AuditError::Broken`]: a file that has to be added to is not as it was written; it stays as it is. Make the head
    /// of [`Log::go_on`] durable and settle that.
    pub fn settle(&mut self, head: &AuditHead) -> Result<(), AuditError> {
        let oldest = head.files.first().map_or(0, |file| file.number);
        if self.settled == head.number && self.oldest == oldest {
            return Ok(());
        }
        let done = self.write(head, oldest);
        if done.is_err() {
            (self.seen, self.directory) = (None, None);
        }
        done
    }

    fn write(&mut self, head: &AuditHead, oldest: u64) -> Result<(), AuditError> {
        let directory = match self.directory.take() {
            Some(directory) => directory,
            None => host::create_dir(&self.dir, 0o700)?,
        };
        for (at, file) in head.files.iter().enumerate() {
            let owed = owed(head, at);
            if owed.is_empty() {
                continue;
            }
            let name = name(&self.credential, file.number);
            let start = file.size.saturating_sub(owed.len() as u64);
            let found = directory.look(&name)?;
            // What this process left there need not be read again.
            let known = found.is_some_and(|id| self.seen == Some((file.number, id)) && id.size == start);
            let lacking = match found {
                _ if known => true,
                None if start > 0 => return Err(Stretch::of(head, at).gone(&self.dir.join(&name)).into()),
                None => true,
                Some(_) => {
                    let bytes = read(&directory, &name)?;
                    let judged = Stretch::of(head, at).examine(&self.dir.join(&name), &bytes, &owed)?;
                    matches!(judged, Found::Lacking)
                }
            };
            // Where nothing is lacking, an earlier process may have been killed before it was durable.
            let (from, rest) = if lacking { (start, owed.as_bytes()) } else { (file.size, &[][..]) };
            let id = directory.append(&name, from, rest)?;
            if found.is_none() {
                directory.sync()?;
            }
            self.seen = Some((file.number, id));
        }
        self.settled = head.number;
        if self.oldest != oldest {
            let mut gone = false;
            for (_, old) in numbered(&directory, &self.credential)?.into_iter().filter(|(number, _)| *number < oldest) {
                gone |= directory.remove(&old)?;
            }
            if gone {
                directory.sync()?;
            }
            self.oldest = oldest;
        }
        self.directory = Some(directory);
        Ok(())
    }

    /// The head with which the log goes on after a file was found broken: the lines that are owed to that file go to a
    /// new one. The broken file stays where it is, and in the head, so that [`verify`] tells of it for as long as it is
    /// kept.
    ///
    /// # Errors
    /// The directory cannot be read.
    pub fn go_on(&self, head: &AuditHead, broken: &Broken) -> Result<AuditHead, AuditError> {
        let mut head = head.clone();
        let owed_from = first_owed(&head);
        let Some(at) = head.files.iter().position(|f| self.dir.join(name(&self.credential, f.number)) == broken.file)
        else {
            return Ok(head);
        };
        // From here on lines have a place; those before were owed to the broken file alone.
        let (from, is_last) = match head.files.get(at + 1) {
            Some(next) => (next.first, false),
            None => (head.files[at].first, true),
        };
        let lost = usize::try_from(from.saturating_sub(owed_from)).unwrap_or(usize::MAX).min(head.lines.len());
        head.lines.drain(..lost);
        if is_last {
            let moved: u64 = head.lines.iter().map(|line| line.len() as u64 + 1).sum();
            let before = match head.lines.first().map(|line| serde_json::from_str::<Place>(line)) {
                Some(Ok(place)) => place.prev,
                _ => end_hash(&head),
            };
            let last = &mut head.files[at];
            last.size = last.size.saturating_sub(moved);
            let there = match Directory::open(&self.dir) {
                Ok(directory) => numbered(&directory, &self.credential)?,
                Err(e) if e.is_not_found() => Vec::new(),
                Err(e) => return Err(e.into()),
            };
            let taken = there.last().map_or(0, |(number, _)| *number);
            let number = taken.max(last.number) + 1;
            let first = first_owed(&head);
            head.files.push(AuditFile { number, first, before, size: moved });
            keep_latest(&mut head.files);
        }
        Ok(head)
    }
}

/// Where the logs of a state directory are.
fn directory(state_dir: &Path) -> PathBuf {
    state_dir.join("audit")
}

fn name(credential: &str, number: u64) -> OsString {
    format!("{credential}.{number}.jsonl").into()
}

/// The files of a credential that are there, by their numbers. A credential's name has no dot.
fn numbered(directory: &Directory, credential: &str) -> Result<Vec<(u64, OsString)>, HostError> {
    let number = |found: &OsStr| {
        let number = found.to_str()?.strip_prefix(credential)?.strip_prefix('.')?.strip_suffix(".jsonl")?;
        number.parse().ok().filter(|n| name(credential, *n) == *found)
    };
    let names = directory.names_starting(OsStr::new(&format!("{credential}.")))?;
    let mut found: Vec<(u64, OsString)> = names.into_iter().filter_map(|name| Some((number(&name)?, name))).collect();
    found.sort();
    Ok(found)
}

fn read(directory: &Directory, name: &OsStr) -> Result<Vec<u8>, AuditError> {
    match directory.read(name, MAX) {
        Ok((bytes, _)) => Ok(bytes.to_vec()),
        Err(e @ HostError::TooLarge { .. }) => {
            Err(Broken { file: directory.path().join(name), line: 0, what: e.to_string() }.into())
        }
        Err(e) => Err(e.into()),
    }
}

fn hash(line: &[u8]) -> String {
    let digit = |half: u8| char::from(b"0123456789abcdef"[usize::from(half)]);
    Sha256::digest(line).iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

/// What the next line gives as the hash of the one before it.
fn end_hash(head: &AuditHead) -> String {
    if head.hash.is_empty() { "0".repeat(64) } else { head.hash.clone() }
}

/// Number of the first line that the head holds itself; the next one's where it holds none.
fn first_owed(head: &AuditHead) -> u64 {
    head.number.saturating_add(1).saturating_sub(head.lines.len() as u64)
}

/// The lines that the head holds for its `at`th file, as they stand there.
fn owed(head: &AuditHead, at: usize) -> String {
    let from = head.files[at].first;
    let until = head.files.get(at + 1).map_or(u64::MAX, |next| next.first);
    let numbers = first_owed(head)..;
    let ours = numbers.zip(&head.lines).filter(|(number, _)| (from..until).contains(number));
    ours.flat_map(|(_, line)| [line.as_str(), "\n"]).collect()
}

fn keep_latest(files: &mut Vec<AuditFile>) {
    let gone = files.len().saturating_sub(FILES);
    files.drain(..gone);
}

/// One line of at most [`LINE`] bytes, without its line feed.
fn render(n: u64, prev: &str, record: &Record) -> String {
    let mut record = record.clone();
    shorten(&mut record);
    let mut steps = STEPS;
    loop {
        fold(&mut record.steps, steps);
        let line = Line { n, prev: prev.to_owned(), record };
        let text = serde_json::to_string(&line).expect("a record has only text keys");
        if text.len() <= LINE || steps <= 1 {
            return text;
        }
        (record, steps) = (line.record, steps / 2);
    }
}

/// Cuts every word to what can stand there, in bytes, so that all of them together fit a line.
fn shorten(record: &mut Record) {
    let some = |text: &mut Option<String>, most| text.iter_mut().for_each(|text| cut(text, most));
    let Record {
        at: _,
        credential,
        by,
        what,
        version,
        username,
        previous_username,
        steps,
        outcome,
        error,
        approved_by,
    } = record;
    cut(credential, 128);
    let By { cause, user, uid: _, claimed, detail } = by;
    cut(cause, 32);
    some(user, 64);
    some(claimed, 64);
    some(detail, 512);
    cut(what, 32);
    some(version, 256);
    some(username, 128);
    some(previous_username, 128);
    for step in steps {
        cut(&mut step.step, 32);
        some(&mut step.target, 64);
    }
    cut(outcome, 32);
    some(approved_by, 256);
    if let Some(Trouble { class: _, words }) = error {
        cut(words, 1024);
    }
}

/// Cuts at a character, and says that it did. What does not show has no business in a record.
fn cut(text: &mut String, most: usize) {
    const MARK: &str = "…";
    let long = text.len() > most;
    if long {
        text.truncate(text.floor_char_boundary(most - MARK.len()));
    }
    if !text.chars().all(shows) {
        *text = text.chars().map(|c| if shows(c) { c } else { ' ' }).collect();
    }
    if long {
        text.push_str(MARK);
    }
}

/// Puts what is beyond the first steps into one.
fn fold(steps: &mut Vec<StepTime>, most: usize) {
    if steps.len() > most {
        let others = steps.split_off(most.saturating_sub(1));
        steps.push(StepTime {
            step: "others".into(),
            target: None,
            ok: others.iter().all(|step| step.ok),
            milliseconds: others.iter().fold(0, |sum, step| sum.saturating_add(step.milliseconds)),
        });
    }
}

// ---------------------------------------------------------------------------------------------------------------
// Judging

enum Found {
    /// All that has to be there is.
    Whole,
    /// Some or all of the lines that the head holds are not there yet, or only in part.
    Lacking,
}

/// What one file has to hold, as the head says it.
struct Stretch {
    /// Numbers of its lines; `last` is one less than `first` where there are none.
    first: u64,
    last: u64,
    /// Hash of the line before the first, and of the last.
    before: String,
    end: String,
    size: u64,
}

impl Stretch {
    fn of(head: &AuditHead, at: usize) -> Self {
        let file = &head.files[at];
        let (next, end) = match head.files.get(at + 1) {
            Some(next) => (next.first, next.before.clone()),
            None => (head.number.saturating_add(1), end_hash(head)),
        };
        Self { first: file.first, last: next.saturating_sub(1), before: file.before.clone(), end, size: file.size }
    }

    /// Holds a file against what it has to be; what the head holds itself need not be there yet, or not all of it.
    fn examine(&self, path: &Path, bytes: &[u8], owed: &str) -> Result<Found, Broken> {
        let start = usize::try_from(self.size).unwrap_or(usize::MAX).saturating_sub(owed.len());
        let tail = bytes.get(start..).filter(|tail| is_part(tail, owed.as_bytes()) && *tail != owed.as_bytes());
        if tail.is_some() && self.follow_back(&[&bytes[..start], owed.as_bytes()].concat()).is_ok() {
            return Ok(Found::Lacking);
        }
        match self.follow_back(bytes) {
            Ok(()) => Ok(Found::Whole),
            Err((line, what)) => Err(Broken { file: path.to_owned(), line, what }),
        }
    }

    /// Goes from the last line, whose hash the state knows, to the first: each line is genuine if its hash is the one
    /// that the genuine line after it gives, so that the first that is not is the one that was changed.
    fn follow_back(&self, text: &[u8]) -> Result<(), (usize, String)> {
        let mut lines: Vec<&[u8]> = text.split(|byte| *byte == b'\n').collect();
        if lines.pop().is_some_and(|rest| !rest.is_empty()) {
            return Err((lines.len() + 1, "the last line is not as it was written: it has no end".into()));
        }
        let (mut number, mut expected) = (self.last, self.end.clone());
        for (at, line) in lines.iter().enumerate().rev() {
            if number < self.first {
                let what = match number + 1 {
                    _ if self.last < self.first => "the state knows no line of this file".into(),
                    first => format!("this is not part of the log, which begins here with line {first}"),
                };
                return Err((at + 1, what));
            }
            if hash(line) != expected {
                return Err((at + 1, self.blame(&lines, at, number)));
            }
            match serde_json::from_slice::<Place>(line) {
                Ok(place) if place.n == number => expected = place.prev,
                _ => return Err((at + 1, format!("this is not line {number} of the log"))),
            }
            number = number.saturating_sub(1);
        }
        if number + 1 > self.first {
            return Err((1, format!("{} before this", missing(self.first, number))));
        }
        if expected != self.before {
            return Err((1, format!("line {} does not follow the line that the state says it does", self.first)));
        }
        Ok(())
    }

    /// What became of line `number`, where another text stands at `at`.
    fn blame(&self, lines: &[&[u8]], at: usize, number: u64) -> String {
        let n = |line: &&[u8]| serde_json::from_slice::<Place>(line).ok().map(|place| place.n);
        let Some(found) = n(&lines[at]) else {
            return format!("this is not line {number} of the log, which has to be here");
        };
        let elsewhere = |wanted| lines.iter().enumerate().any(|(i, line)| i != at && n(line) == Some(wanted));
        if found == number {
            format!("line {number} was changed")
        } else if !(self.first..=self.last).contains(&found) {
            format!("line {found} does not belong here, where line {number} has to be")
        } else if elsewhere(number) {
            format!("line {found} stands where line {number} has to be: the order was changed")
        } else if found < number && at + 1 == lines.len() {
            format!("the file is cut off after this: {}", missing(found + 1, number))
        } else if found < number {
            format!("{} after this", missing(found + 1, number))
        } else {
            format!("line {found} stands here twice, and line {number} is missing")
        }
    }

    /// The file is not there at all.
    fn gone(&self, path: &Path) -> Broken {
        let what = format!("the file is gone: {}", missing(self.first, self.last));
        Broken { file: path.to_owned(), line: 0, what }
    }
}

fn missing(first: u64, last: u64) -> String {
    if first == last { format!("line {first} is missing") } else { format!("lines {first} to {last} are missing") }
}

/// Is this what a write of `all` that was cut off may leave? After a power cut the end may be there without its content.
fn is_part(found: &[u8], all: &[u8]) -> bool {
    let same = found.iter().zip(all).take_while(|(a, b)| a == b).count();
    found.len() <= all.len() && found[same..].iter().all(|byte| *byte == 0)
}

/// Holds the files of a credential's log against its head: changed, missing, moved, doubled, cut-off lines, and files that
/// are gone, exchanged or not known.
///
/// # Errors
/// Every file that is not as it was written, with the first such line from its end; a file that cannot be read. A reader
/// that holds no lock has to see whether the head is still the same before it believes an error.
pub fn verify(state_dir: &Path, credential: &str, head: &AuditHead) -> Result<Verified, Vec<AuditError>> {
    let mut wrong: Vec<AuditError> = Vec::new();
    let dir = directory(state_dir);
    let directory = match Directory::open(&dir) {
        Ok(directory) => Some(directory),
        Err(e) if e.is_not_found() => None,
        Err(e) => return Err(vec![e.into()]),
    };
    let there = match directory.as_ref().map(|directory| numbered(directory, credential)).transpose() {
        Ok(there) => there.unwrap_or_default(),
        Err(e) => return Err(vec![e.into()]),
    };
    let mut verified = Verified { last: head.number, files: head.files.len(), ..Verified::default() };
    verified.first = head.files.first().map_or(0, |file| file.first.min(head.number));
    verified.lines =
        if head.files.is_empty() { 0 } else { head.number.saturating_add(1).saturating_sub(verified.first) };
    if head.files.is_empty() && head.number > 0 {
        let what = format!("the state says that there are {} lines, and names no file", head.number);
        wrong.push(Broken { file: dir.clone(), line: 0, what }.into());
    }
    for (at, file) in head.files.iter().enumerate() {
        let (name, owed) = (name(credential, file.number), owed(head, at));
        let stretch = Stretch::of(head, at);
        let bytes = match &directory {
            Some(directory) if there.iter().any(|(number, _)| *number == file.number) => read(directory, &name),
            _ if file.size > owed.len() as u64 => Err(stretch.gone(&dir.join(&name)).into()),
            _ => Ok(Vec::new()),
        };
        match bytes.and_then(|bytes| Ok(stretch.examine(&dir.join(&name), &bytes, &owed)?)) {
            Ok(Found::Whole) => {}
            Ok(Found::Lacking) => verified.owed += owed.lines().count() as u64,
            Err(e) => wrong.push(e),
        }
    }
    // Lower numbers are old files that a kill kept from being removed.
    let oldest = head.files.first().map_or(0, |file| file.number);
    for (_, name) in
        there.iter().filter(|(number, _)| *number >= oldest && head.files.iter().all(|f| f.number != *number))
    {
        let what = "the state does not know this file: an older state was put back, or the state was lost".into();
        wrong.push(Broken { file: dir.join(name), line: 0, what }.into());
    }
    if wrong.is_empty() { Ok(verified) } else { Err(wrong) }
}

// ---------------------------------------------------------------------------------------------------------------
// Reading

/// The last `n` lines that can be read, the latest first. Reads no more than the ends of the files that it needs, and
/// judges nothing: that is what [`verify`] is for.
///
/// # Errors
/// A file that is there cannot be read.
pub fn lines(state_dir: &Path, credential: &str, head: &AuditHead, n: usize) -> Result<Vec<Line>, HostError> {
    // What is in the log stays, as the chain has it; what was a secret in the place of a user name is not shown.
    let parse = |text: &[u8]| {
        let mut line = serde_json::from_slice::<Line>(text).ok()?;
        let names = [&mut line.record.username, &mut line.record.previous_username].into_iter().flatten();
        names.filter(|name| has_secret_shape(name)).for_each(|name| NOT_SHOWN.clone_into(name));
        Some(line)
    };
    let mut found: Vec<Line> = head.lines.iter().rev().filter_map(|line| parse(line.as_bytes())).take(n).collect();
    if found.len() == n || head.files.is_empty() {
        return Ok(found);
    }
    let directory = match Directory::open(&directory(state_dir)) {
        Ok(directory) => directory,
        Err(e) if e.is_not_found() => return Ok(found),
        Err(e) => return Err(e),
    };
    let owed_from = first_owed(head);
    for file in head.files.iter().rev() {
        let name = name(credential, file.number);
        let mut most = 64 << 10;
        let lines = loop {
            let (bytes, before) = match directory.read_end(&name, most) {
                Ok(read) => read,
                Err(e) if e.is_not_found() => break Vec::new(),
                Err(e) => return Err(e),
            };
            // Where the beginning is left out, the first line is only a part of one.
            let whole = bytes.split(|byte| *byte == b'\n').skip(usize::from(before > 0));
            let lines: Vec<Line> = whole.filter_map(parse).filter(|line| line.n < owed_from).collect();
            if before == 0 || found.len() + lines.len() >= n || most >= MAX as u64 {
                break lines;
            }
            most *= 4;
        };
        found.extend(lines.into_iter().rev().take(n - found.len()));
        if found.len() == n {
            break;
        }
    }
    Ok(found)
}

/// The last `n` records, the latest first, as [`lines`]; none where they cannot be read.
pub fn recent(state_dir: &Path, credential: &str, head: &AuditHead, n: usize) -> Vec<Record> {
    let lines = lines(state_dir, credential, head, n).unwrap_or_default();
    lines.into_iter().map(|line| line.record).collect()
}

#[cfg(test)]
mod tests;
