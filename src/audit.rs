//! The audit log: who had what done, when, how long each step took, and what became of it. One file per credential, one
//! JSON line per record, each with the SHA-256 of the line before it; the head stands in the credential's state.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// One line of the audit log, without its place in the chain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    pub at: Timestamp,
    pub credential: String,
    pub by: By,
    /// `rollover`, `adoption`, `heal`, `reload`, `refused`, `failed`, `no-change` (asked for by a person, nothing to do).
    pub what: String,
    pub version: Option<String>,
    pub username: Option<String>,
    pub previous_username: Option<String>,
    pub steps: Vec<StepTime>,
    /// `adopted`, `confirmed`, `done`, `failed-for-now`, `failed`, `interrupted`.
    pub outcome: String,
    /// Class and words of what stood in the way.
    pub error: Option<Trouble>,
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

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepTime {
    pub step: String,
    pub target: Option<String>,
    pub ok: bool,
    pub milliseconds: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trouble {
    pub class: String,
    pub words: String,
}
