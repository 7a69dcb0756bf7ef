//! A record, and the line that it is in the log: bounded, on one line, in its place in the chain.

use jiff::Timestamp;
use relaykey_core::audit::{RecordCause, RecordKind, RecordOutcome, StepKind};
use serde::{Deserialize, Serialize};

use crate::fault::Class;
use crate::text::{self, shows};

/// The longest line, in bytes.
pub const LINE: usize = 16 << 10;
/// Steps of a record that are told one by one; the last stands for the rest where there are more.
pub(super) const STEPS: usize = 64;

/// One line of the audit log, without its place in the chain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    pub at: Timestamp,
    pub credential: String,
    pub by: By,
    pub what: RecordKind,
    pub version: Option<String>,
    pub username: Option<String>,
    pub previous_username: Option<String>,
    pub steps: Vec<StepTime>,
    pub outcome: RecordOutcome,
    /// Class and words of what stood in the way; of a rejection its reason.
    pub error: Option<RecordError>,
    /// Who let the version go, where somebody had to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub approved_by: Option<String>,
}

/// Who or what had it done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct By {
    pub cause: RecordCause,
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
            (None, None) => f.write_str(self.cause.word())?,
        }
        match &self.claimed {
            Some(claimed) => write!(f, " (says: {claimed})"),
            None => Ok(()),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepTime {
    pub step: StepKind,
    pub target: Option<String>,
    pub ok: bool,
    pub milliseconds: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordError {
    pub class: Class,
    #[serde(deserialize_with = "text::on_one_line")]
    pub words: String,
}

/// A record in its place in the chain: one line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditLine {
    /// From 1, without gaps.
    pub n: u64,
    /// SHA-256 of the line before, hex, without its line feed; 64 zeros for the first.
    pub prev: String,
    #[serde(flatten)]
    pub record: Record,
}

/// What of a line makes the chain.
#[derive(Deserialize)]
pub(super) struct ChainLink {
    pub(super) n: u64,
    pub(super) prev: String,
}

/// One line of at most [`LINE`] bytes, without its line feed.
pub(super) fn render(n: u64, prev: &str, record: &Record) -> String {
    let mut record = record.clone();
    shorten(&mut record);
    let mut steps = STEPS;
    loop {
        fold(&mut record.steps, steps);
        let line = AuditLine { n, prev: prev.to_owned(), record };
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
        what: _,
        version,
        username,
        previous_username,
        steps,
        outcome: _,
        error,
        approved_by,
    } = record;
    cut(credential, 128);
    let By { cause: _, user, uid: _, claimed, detail } = by;
    some(user, 64);
    some(claimed, 64);
    some(detail, 512);
    some(version, 256);
    some(username, 128);
    some(previous_username, 128);
    for step in steps {
        some(&mut step.target, 64);
    }
    some(approved_by, 256);
    if let Some(RecordError { class: _, words }) = error {
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
            step: StepKind::Others,
            target: None,
            ok: others.iter().all(|step| step.ok),
            milliseconds: others.iter().fold(0, |sum, step| sum.saturating_add(step.milliseconds)),
        });
    }
}
