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

mod record;
mod verify;

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

pub use relaykey_core::audit::{AuditFile, AuditHead, RecordCause, RecordKind, RecordOutcome, StepKind};
use sha2::{Digest as _, Sha256};

pub use self::record::{AuditLine, By, LINE, Record, RecordError, StepTime};
use self::record::{ChainLink, render};
use self::verify::{Completeness, Stretch};
pub use self::verify::{Verified, verify};
use crate::credential::{NOT_SHOWN, has_secret_shape};
use crate::fault::Class;
use crate::host::{self, Directory, FileId, HostError};

/// A file that would grow beyond this is followed by another one, in bytes.
pub const FILE_SIZE: u64 = 1 << 20;
/// Files kept per credential, the current one included.
pub const FILES: usize = 5;
/// How many lines the head holds for files that cannot be written. The oldest are lost beyond that, and missed by
/// [`verify`].
const OWED: usize = 64;
/// The largest file that is read, in bytes: one that somebody added to is still to be judged.
const MAX: usize = 4 << 20;

/// Why the log could not be brought up to its head, or does not hold.
#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    #[error(transparent)]
    Host(#[from] HostError),
    #[error(transparent)]
    Broken(#[from] BrokenLog),
}

/// Something in the log is not as it was written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}{} {what}", file.display(), if *line == 0 { ":".to_owned() } else { format!(":{line}:") })]
pub struct BrokenLog {
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
                    matches!(judged, Completeness::Lacking)
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
    pub fn go_on(&self, head: &AuditHead, broken: &BrokenLog) -> Result<AuditHead, AuditError> {
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
            let before = match head.lines.first().map(|line| serde_json::from_str::<ChainLink>(line)) {
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
            Err(BrokenLog { file: directory.path().join(name), line: 0, what: e.to_string() }.into())
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

/// The last `n` lines that can be read, the latest first. Reads no more than the ends of the files that it needs, and
/// judges nothing: that is what [`verify`] is for.
///
/// # Errors
/// A file that is there cannot be read.
pub fn lines(state_dir: &Path, credential: &str, head: &AuditHead, n: usize) -> Result<Vec<AuditLine>, HostError> {
    // What is in the log stays, as the chain has it; what was a secret in the place of a user name is not shown.
    let parse = |text: &[u8]| {
        let mut line = serde_json::from_slice::<AuditLine>(text).ok()?;
        let names = [&mut line.record.username, &mut line.record.previous_username].into_iter().flatten();
        names.filter(|name| has_secret_shape(name)).for_each(|name| NOT_SHOWN.clone_into(name));
        Some(line)
    };
    let mut found: Vec<AuditLine> = head.lines.iter().rev().filter_map(|line| parse(line.as_bytes())).take(n).collect();
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
            let lines: Vec<AuditLine> = whole.filter_map(parse).filter(|line| line.n < owed_from).collect();
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
