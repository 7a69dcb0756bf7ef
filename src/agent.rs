//! What has to be done is done here: facts, decide, do the one step, absorb its outcome, make it durable, decide again.
//!
//! What to do is `rollover`'s; the steps are done by the source, the SMTP login and the apply client. The agent never touches
//! a mail server's files itself: everything goes through [`apply::Client`].
//!
//! - `run`: the loop. It reads straight down.
//! - `steps`: one step, and what the answer to it comes to.
//! - `endpoints`: the login at every endpoint that a target uses, and a message over it.
//! - `earlier`: which passwords of earlier versions their endpoint takes.
//! - `fetched`: the credential as the source gives it, and what of it may be shown.
//! - `documents`: reports and records of the audit log, made of the facts.
//! - `durable`: what of a run is written down, and what is owed to others.
//! - [`account`]: what a run came to, for people and for programs; [`foresight`]: what one would come to.
//! - `doubts`: what works, and should not be as it is; `operator`: who asks.

pub mod account;
mod documents;
mod doubts;
mod durable;
mod earlier;
mod endpoints;
mod fetched;
pub mod foresight;
mod operator;
mod run;
mod steps;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use relaykey_core::exit::Exit;

pub use self::doubts::{FileWarning, doubts};
use self::durable::state_failure;
pub use self::earlier::TriedEarlier;
pub use self::endpoints::{login_at, or_the_default, places_used};
pub use self::fetched::{in_order, logins_of, named, not_told, shown_before_the_login, try_earlier, with_named};
pub use self::operator::{host_name, operator, operator_with};
pub use self::run::LONGEST_STEP;
pub use self::steps::ours;
use crate::apply;
use crate::audit::{self, By, StepTime};
use crate::aws;
use crate::config::{self, Config};
use crate::fault::{Failure, Fault};
use crate::rollover::{Completion, Outcome, Reason, State, Step, Wake};
use crate::source::Source;
use crate::state::{HostIdentity, StateError, Store};
use crate::tls;

/// `agent` of report documents.
pub const AGENT: &str = concat!("relaykey/", env!("CARGO_PKG_VERSION"));

/// What the agent tells whoever watches, as it happens.
pub enum RunEvent<'a> {
    /// A step begins.
    Begins { step: &'a Step, reason: &'a Reason },
    /// A step has ended.
    Ended { step: &'a Step, outcome: &'a Outcome, took: Duration },
    /// The change of one target, masked. `logins`: the candidate's, for who may show them (`--reveal`).
    Preview { target: &'a str, change: &'a apply::Previewed, logins: &'a apply::Logins },
    /// What a target consists of, as far as it is worth watching.
    Files { target: &'a str, files: &'a [PathBuf], log: Option<&'a PathBuf> },
    /// The state, as it is on disk now.
    Saved(&'a State),
    /// Something beside the rollover that a person should see to.
    Trouble { what: &'a str, fix: &'a str },
}

/// A source, or why it could not be opened.
pub type OpenedSource = Result<Box<dyn Source>, Fault>;

/// How one run over one credential goes.
pub struct Run<'a> {
    pub credential: &'a config::Credential,
    pub source: &'a OpenedSource,
    pub wake: Wake,
    /// Who or what wants it, for the audit log.
    pub by: By,
    /// Persisted waits do not hold: a person asked, or there is news.
    pub ignore_backoff: bool,
    /// Steps that are due later than this are not waited for.
    pub deadline: Instant,
    pub observer: &'a mut (dyn FnMut(RunEvent<'_>) + Send),
}

/// What one run came to.
#[derive(Debug, Clone)]
pub struct FinishedRun {
    pub state: State,
    pub end: RunEnd,
    pub failures: Vec<(Option<String>, Failure)>,
    pub reason: Reason,
    pub steps: Vec<StepTime>,
    /// When something is due again, if something is.
    pub next: Option<Timestamp>,
    /// Of an order that needs nothing else, such as a rejection: was it carried out?
    pub carried_out: Option<bool>,
    /// When the source gave its answer, if it did.
    pub answered: Option<Timestamp>,
    /// `confirm --code`: what a person types elsewhere, or why there is none.
    pub code: Option<Result<String, String>>,
    /// What a group could have written of what the targets go by.
    pub doubts: Vec<FileWarning>,
    /// It was to confirm what is in use, and has not.
    pub not_confirmed: bool,
}

impl FinishedRun {
    /// A run that could not read or write its state.
    pub fn broken(credential: &str, e: &StateError) -> Self {
        Self::failed(State::new(credential), state_failure(e))
    }

    /// A run that ended before it looked at anything.
    fn failed(state: State, failure: Failure) -> Self {
        Self {
            state,
            end: if failure.temporary { RunEnd::ForNow } else { RunEnd::ForGood },
            reason: Reason::Blocked(failure.what.clone()),
            failures: vec![(None, failure)],
            steps: Vec::new(),
            next: None,
            carried_out: None,
            answered: None,
            code: None,
            doubts: Vec::new(),
            not_confirmed: false,
        }
    }
}

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RunEnd {
    Done(Option<Completion>),
    /// A person is to decide, or to change a target by hand.
    Waits,
    /// Failed for now, or a reload is owed.
    ForNow,
    ForGood,
    /// SIGINT or SIGTERM: stopped between two steps.
    Interrupted,
}

impl RunEnd {
    /// How a program ends that did this run.
    pub fn exit(self) -> Exit {
        match self {
            RunEnd::Done(_) => Exit::Done,
            RunEnd::Waits => Exit::People,
            RunEnd::ForNow | RunEnd::Interrupted => Exit::ForNow,
            RunEnd::ForGood => Exit::ForGood,
        }
    }
}

/// Everything a run needs that is not about one credential.
#[derive(Clone)]
pub struct Agent {
    pub apply: apply::Client,
    pub identity: HostIdentity,
    pub store: Arc<Store>,
    /// `[[report]]`: to whom confirmations are owed.
    pub receivers: Vec<config::ReceiverConfig>,
    /// `[host] lease`: how long it may be silent before it is no longer expected.
    pub lease: Option<Duration>,
    pub logs: Logs,
}

/// The audit logs, by credential: each knows how far its files are.
#[derive(Clone, Default)]
pub struct Logs(Arc<Mutex<BTreeMap<String, AuditLog>>>);

type AuditLog = Arc<Mutex<audit::Log>>;

impl Logs {
    /// Lets go of the logs of all other credentials, which nobody keeps any more.
    pub fn retain(&self, credentials: &[config::Credential]) {
        let mut logs = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        logs.retain(|name, _| credentials.iter().any(|c| c.name == *name));
    }
}

impl Agent {
    fn log(&self, credential: &str) -> AuditLog {
        let mut logs = self.logs.0.lock().unwrap_or_else(PoisonError::into_inner);
        let new = || Arc::new(Mutex::new(audit::Log::new(self.store.dir(), credential)));
        logs.entry(credential.to_owned()).or_insert_with(new).clone()
    }
}

/// The HTTP client for AWS, where a credential has a source or a report goes there: it trusts what the system trusts.
pub fn http(config: &Config) -> Result<aws::Http, tls::TrustError> {
    let sources = config.credentials.iter().filter_map(|c| c.source.aws());
    if sources.chain(config.reports.iter().filter_map(|r| r.kind.aws())).next().is_none() {
        return Ok(aws::Http::new(&[]));
    }
    tls::warm_up();
    Ok(aws::Http::new(&tls::Roots::system()?.pem()))
}

/// A random number in [0, 1).
pub fn jitter() -> f64 {
    f64::from(getrandom::u32().unwrap_or(u32::MAX / 2)) / (f64::from(u32::MAX) + 1.0)
}
