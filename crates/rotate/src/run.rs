//! One credential, one loop: look at everything, decide, do one thing, write down what came of it, look anew. The command line,
//! a timer, a Lambda function and a hook are ways to call it; none has a path of its own.
//!
//! ```text
//!   take the lease ─> look ─> plan ─> written before the call ─> the call ─> written after it
//!        │              │                (fence, audit)     decided < 60 s ago,     (fence, audit)
//!        └ Busy         └ gaps                              lease > 60 s: or dropped
//! ```

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use relaykey_core::fault::Fault;
use serde::{Deserialize, Serialize};

use crate::config::{Config, Credential};
use crate::facts::{Facts, HostName, KeyId};
use crate::plan::{Action, Decision, Outcome};
use crate::record::Lease;

/// Who we are to AWS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    pub arn: String,
    pub account: String,
    pub user_id: String,
}

/// One look at the world, and what is to be done about it.
#[derive(Debug, Clone)]
pub struct Look {
    pub facts: Facts,
    pub decision: Decision,
    /// What could not be looked at or done, in AWS's own words.
    pub faults: Vec<Fault>,
    /// Who is at work, if that is somebody else.
    pub busy: Option<Lease>,
    pub now: Timestamp,
}

/// What one turn came to.
#[derive(Debug, Clone)]
pub enum Tick {
    /// Somebody else holds the lease.
    Busy(Lease),
    Turned(Box<Turned>),
}

/// A look, and the one thing that was done.
#[derive(Debug, Clone)]
pub struct Turned {
    pub look: Look,
    /// `None`: nothing was to be done, or the decision had grown too old and was dropped.
    pub done: Option<(Action, Outcome)>,
    /// This process holds a new key that no version has yet: whoever ends now loses it.
    pub holds_key: bool,
}

/// What people ask for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ask {
    /// A rotation.
    Run,
    /// The roster is complete with so many distinct hosts.
    Seal { expect: usize },
    Add { host: HostName },
    Remove { host: HostName },
    Waive { host: HostName, reason: String, until: Timestamp },
    Unwaive { host: HostName },
    /// The principal that wrote last under this name owns it, and several hosts may write under that principal.
    Accept { host: HostName },
    /// A key that somebody deactivated, or that we did.
    Reactivate { key: KeyId },
}

/// What became of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    Done,
    /// It was so already.
    WasSo,
    /// Somebody else holds the lease: only where something is called beside the record.
    Busy(Lease),
}

/// One line of the audit log, each with the hash of the one before it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditLine {
    pub seq: u64,
    pub at: Timestamp,
    /// As STS names them.
    pub by: String,
    /// Of the process, as the lease names it.
    pub holder: String,
    pub event: AuditEvent,
    /// `deactivate`, `seal`.
    pub what: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<KeyId>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<HostName>,
    /// Replies of endpoints, a reason.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub more: Option<String>,
    /// SHA-256 of the line before, hexadecimal; empty for the first.
    pub previous: String,
    /// Of this line with an empty `hash`.
    pub hash: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AuditEvent {
    /// Somebody asked for it.
    Asked,
    /// It is about to be done.
    Begins,
    Done,
    Failed,
    /// Nobody knows what became of it.
    Unknown,
}

/// What is wrong with a chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Broken {
    /// A line was changed.
    Changed { seq: u64 },
    /// A line is missing before this one.
    Missing { seq: u64 },
    /// The record knows of later lines.
    Cut { seq: u64, head: u64 },
}

pub struct Controller {
    _hooks: Hooks,
}

/// Before or after a call to the outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    Before,
    After,
}

/// What tests put in the place of the clocks, and between calls.
#[derive(Clone, Default)]
pub struct Hooks {
    /// Instead of the system's time.
    pub now: Option<Arc<dyn Fn() -> Timestamp + Send + Sync>>,
    /// Instead of the clock that goes on in sleep.
    pub boot: Option<Arc<dyn Fn() -> Duration + Send + Sync>>,
    /// Asked before and after every call; `false`: the process ends here, as far as this controller can tell.
    pub choke: Option<Arc<dyn Fn(&'static str, Moment) -> bool + Send + Sync>>,
}

impl Controller {
    /// Clients; nothing is asked yet.
    pub async fn new(_config: &Config, _credential: &Credential) -> Result<Self, Fault> {
        Err(not_yet())
    }

    /// As STS GetCallerIdentity says; asked once.
    pub async fn caller(&mut self) -> Result<Caller, Fault> {
        Err(not_yet())
    }

    /// Everything looked at; nothing taken, written or logged in. It decides as if the lease were ours.
    pub async fn look(&mut self) -> Result<Look, Fault> {
        Err(not_yet())
    }

    /// Takes or renews the lease, looks, does one action or none, and writes record and audit.
    pub async fn tick(&mut self) -> Result<Tick, Fault> {
        Err(not_yet())
    }

    /// What people ask for, under the fence and into the audit.
    pub async fn ask(&mut self, _what: Ask) -> Result<Answer, Fault> {
        Err(not_yet())
    }

    /// The audit log, the first line first.
    pub async fn history(&mut self) -> Result<Vec<AuditLine>, Fault> {
        Err(not_yet())
    }

    /// The audit log, and what is wrong with its chain.
    pub async fn verify(&mut self) -> Result<(Vec<AuditLine>, Vec<Broken>), Fault> {
        Err(not_yet())
    }
}

fn not_yet() -> Fault {
    Fault::new(relaykey_core::fault::Class::Unsupported, "not built yet", "wait")
}
