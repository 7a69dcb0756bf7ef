//! Whether the files of a log are as they were written: each line by its hash, from the last one back.

use std::path::Path;

use super::record::ChainLink;
use super::{AuditError, BrokenLog, directory, end_hash, hash, name, numbered, owed, read};
use crate::host::Directory;
use crate::rollover::AuditHead;

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

pub(super) enum Completeness {
    /// All that has to be there is.
    Whole,
    /// Some or all of the lines that the head holds are not there yet, or only in part.
    Lacking,
}

/// What one file has to hold, as the head says it.
pub(super) struct Stretch {
    /// Numbers of its lines; `last` is one less than `first` where there are none.
    first: u64,
    last: u64,
    /// Hash of the line before the first, and of the last.
    before: String,
    end: String,
    size: u64,
}

impl Stretch {
    pub(super) fn of(head: &AuditHead, at: usize) -> Self {
        let file = &head.files[at];
        let (next, end) = match head.files.get(at + 1) {
            Some(next) => (next.first, next.before.clone()),
            None => (head.number.saturating_add(1), end_hash(head)),
        };
        Self { first: file.first, last: next.saturating_sub(1), before: file.before.clone(), end, size: file.size }
    }

    /// Holds a file against what it has to be; what the head holds itself need not be there yet, or not all of it.
    pub(super) fn examine(&self, path: &Path, bytes: &[u8], owed: &str) -> Result<Completeness, BrokenLog> {
        let start = usize::try_from(self.size).unwrap_or(usize::MAX).saturating_sub(owed.len());
        let tail = bytes.get(start..).filter(|tail| is_part(tail, owed.as_bytes()) && *tail != owed.as_bytes());
        if tail.is_some() && self.follow_back(&[&bytes[..start], owed.as_bytes()].concat()).is_ok() {
            return Ok(Completeness::Lacking);
        }
        match self.follow_back(bytes) {
            Ok(()) => Ok(Completeness::Whole),
            Err((line, what)) => Err(BrokenLog { file: path.to_owned(), line, what }),
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
            match serde_json::from_slice::<ChainLink>(line) {
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
        let n = |line: &&[u8]| serde_json::from_slice::<ChainLink>(line).ok().map(|place| place.n);
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
    pub(super) fn gone(&self, path: &Path) -> BrokenLog {
        let what = format!("the file is gone: {}", missing(self.first, self.last));
        BrokenLog { file: path.to_owned(), line: 0, what }
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
        wrong.push(BrokenLog { file: dir.clone(), line: 0, what }.into());
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
            Ok(Completeness::Whole) => {}
            Ok(Completeness::Lacking) => verified.owed += owed.lines().count() as u64,
            Err(e) => wrong.push(e),
        }
    }
    // Lower numbers are old files that a kill kept from being removed.
    let oldest = head.files.first().map_or(0, |file| file.number);
    for (_, name) in
        there.iter().filter(|(number, _)| *number >= oldest && head.files.iter().all(|f| f.number != *number))
    {
        let what = "the state does not know this file: an older state was put back, or the state was lost".into();
        wrong.push(BrokenLog { file: dir.join(name), line: 0, what }.into());
    }
    if wrong.is_empty() { Ok(verified) } else { Err(wrong) }
}
