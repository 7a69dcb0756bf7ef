//! The apply boundary: everything that touches a mail server goes through here, as requests and replies.
//!
//! Today [`Client::InProcess`] calls [`Server`] directly; later the server is a root process of its own behind a
//! socket, without network, and everything else runs unprivileged. So a secret goes in once (`Prepare`) and never
//! comes back, replies carry live ids and key ids, and the server reads its targets from its own configuration, keeps
//! its own journal and its own key for live ids, and knows neither network nor AWS nor run time.

use serde::{Deserialize, Serialize};

use crate::config::Finding;
use crate::credential::{Login, ProofFields};
use crate::mta::{MtaError, Ours, Running};

/// Names one target: credential and target name of the configuration.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct TargetId {
    pub credential: String,
    pub target: String,
}

#[derive(Debug, Clone)]
pub enum Request {
    /// What is there now. Also removes staged files that a killed run left, settles a reload that is owed when the mail
    /// server was started after the swap, and changes nothing else.
    Inspect { target: TargetId, ours: Ours },
    /// Plans and stages the change: writes staged copies, compiles, looks every key up in the staged map.
    /// `expect` is the live id under the first live key that the caller saw (`None`: no entry); if another one is
    /// there now, nothing is staged. The login is checked again (printable ASCII without blanks).
    Prepare { target: TargetId, ours: Ours, expect: Option<String>, login: Login, version: String },
    /// The change as people read it, with nothing staged: for `--dry-run`.
    Preview { target: TargetId, ours: Ours, login: Login },
    /// Removes staged files and forgets the login.
    Discard { target: TargetId },
    /// Renames the staged files in. Old bytes stay in memory until `Commit`.
    Swap { target: TargetId },
    /// Puts the old bytes back; possible until `Commit`, in the process that swapped.
    Undo { target: TargetId },
    /// Reloads, as `reload` of the target says.
    Activate { target: TargetId },
    /// Looks every live key up in the running configuration and compares with the login of `Prepare`.
    ReadBack { target: TargetId, prove: Option<ProofFields> },
    /// The caller has made it durable: forget old bytes and login, close the journal entry.
    Commit { target: TargetId },
}

#[derive(Debug, Clone)]
pub enum Reply {
    Inspected(Inspected),
    Prepared(Prepared),
    Preview {
        diff: Vec<String>,
        reload: bool,
    },
    Swapped {
        at_boot: u64,
    },
    Activated(Activated),
    ReadBack(ReadBack),
    /// `Discard`, `Undo`, `Commit`.
    Done,
}

#[derive(Debug, Clone, Serialize)]
pub struct Inspected {
    pub kind: &'static str,
    /// Live keys and our other entries.
    pub entries: Vec<LiveEntry>,
    pub missing: Vec<String>,
    /// The one live id under every live key; `None` where none is found or they differ.
    pub live_id: Option<String>,
    /// The user name under the first live key.
    pub username: Option<String>,
    pub running: Running,
    pub reload_owed: Option<ReloadOwed>,
    /// A version that was swapped in here and not committed yet: a killed run; `Prepare` finds what is left to do.
    pub swapped: Option<String>,
    pub findings: Vec<Finding>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LiveEntry {
    pub key: String,
    pub map: String,
    pub line: Option<usize>,
    pub username: Option<String>,
    /// HMAC of what the mail server finds, under apply's own key.
    pub live_id: Option<String>,
    pub is_live_key: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReloadOwed {
    /// Wall time of the swap, for people.
    pub since: jiff::Timestamp,
    pub why: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prepared {
    /// Nothing is staged: the live files hold the candidate already.
    pub nothing_to_write: bool,
    /// This version was swapped in by us, in a run that was killed before `Commit`.
    pub swapped_before: bool,
    /// Live id of the candidate.
    pub live_id: String,
    pub diff: Vec<String>,
    pub reload_needed: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Activated {
    /// Reloaded, or the mail server needs no reload (an indexed map replaced by rename, `if-needed`), or was started
    /// after the swap.
    Yes { how: &'static str },
    /// Not done, and remembered: mail server down, reload failed, `reload = "never"` where one is needed.
    Owed { why: String, fix: String, temporary: bool },
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReadBack {
    /// Every live key gives the candidate.
    pub matches: bool,
    /// Where it does not: key, and what was found in words (never the value).
    pub mismatches: Vec<String>,
    pub keys: Vec<String>,
    pub map: String,
    /// `postmap -q`, `text`.
    pub how: &'static str,
    /// Entries with the previous key id that are still there under keys that we may not write.
    pub remaining_old: Vec<String>,
    pub live_id: Option<String>,
    pub running: Running,
    /// Computed with the read-back password, or why there is none.
    pub proof: Option<Result<String, &'static str>>,
}

/// The caller's end. Calls block; the agent runs them off its event loop.
#[derive(Clone)]
pub enum Client {
    InProcess(std::sync::Arc<std::sync::Mutex<Server>>),
}

pub struct Server {}

impl Client {
    pub fn call(&self, _request: Request) -> Result<Reply, MtaError> {
        unimplemented!()
    }
}
