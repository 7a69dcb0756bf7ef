//! The vocabulary of the machine: the one next step, why it is that one, and what became of it.

use std::fmt;

use jiff::Timestamp;
use relaykey_core::audit::StepKind;
use relaykey_core::report::{Evidence, Report, rfc3339};

use super::facts::{Inspection, ReadBackFacts, SignOfLife, SourceVersion, StagedFacts, Stamp};
use super::target_state::PlannedChange;
use crate::fault::Failure;

/// Numbers a step within one wake, so that a late outcome is told from the awaited one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct StepId(pub(super) u64);

/// The one next thing to do. Targets are indexes into [`Facts::targets`].
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Step {
    Inspect {
        target: usize,
    },
    Fetch,
    /// Ask the source for the applied version by its number, to put it back although the source gives another one.
    FetchApplied,
    Verify {
        target: usize,
    },
    /// Log in with the applied version, of which the mail log tells that it is refused.
    VerifyApplied {
        target: usize,
    },
    /// Send a message over the candidate's login.
    Probe {
        target: usize,
    },
    Preview {
        target: usize,
    },
    Prepare {
        target: usize,
    },
    Swap {
        target: usize,
    },
    Activate {
        target: usize,
    },
    ReadBack {
        target: usize,
        stamp: Stamp,
    },
    /// Prove anew, for a sign of life, that the mail server finds what was confirmed.
    Attest {
        target: usize,
        stamp: SignOfLife,
    },
    Undo {
        target: usize,
    },
    /// Remove staged files that will not be swapped in.
    Discard {
        target: usize,
    },
    /// Leave a target as it is: a drifted one with `drift = "report"` or healed too often within the hour, or one that a
    /// person changes.
    Refrain {
        target: usize,
    },
    /// Keep the candidate until somebody approves it.
    Hold,
    /// Let the candidate go, by a setting.
    Release {
        by: String,
        until: Option<Timestamp>,
    },
    /// A person rejects the candidate.
    Reject,
    /// This host leaves the fleet.
    Leave,
    /// Make it durable: applied version and report document in one rename.
    Commit {
        stamp: Stamp,
    },
    /// Nothing to do before `until`, or until a step that is under way has ended.
    Wait {
        until: Timestamp,
    },
    /// Nothing to begin before a step that is under way has ended.
    Await,
    /// Nothing left to do until the next wake.
    End,
}

impl Step {
    /// The step in one word, as progress and `--json` have it.
    pub fn word(&self) -> &'static str {
        self.kind().word()
    }

    /// What kind of step it is.
    pub fn kind(&self) -> StepKind {
        match self {
            Step::Inspect { .. } => StepKind::Inspect,
            Step::Fetch => StepKind::Fetch,
            Step::FetchApplied => StepKind::FetchApplied,
            Step::Verify { .. } => StepKind::Verify,
            Step::VerifyApplied { .. } => StepKind::VerifyApplied,
            Step::Probe { .. } => StepKind::Probe,
            Step::Hold => StepKind::Hold,
            Step::Release { .. } => StepKind::Release,
            Step::Reject => StepKind::Reject,
            Step::Leave => StepKind::Leave,
            Step::Preview { .. } => StepKind::Preview,
            Step::Prepare { .. } => StepKind::Prepare,
            Step::Swap { .. } => StepKind::Swap,
            Step::Activate { .. } => StepKind::Activate,
            Step::ReadBack { .. } => StepKind::ReadBack,
            Step::Attest { .. } => StepKind::Attest,
            Step::Undo { .. } => StepKind::Undo,
            Step::Discard { .. } => StepKind::Discard,
            Step::Refrain { .. } => StepKind::Refrain,
            Step::Commit { .. } => StepKind::Commit,
            Step::Wait { .. } => StepKind::Wait,
            Step::Await => StepKind::Await,
            Step::End => StepKind::End,
        }
    }

    /// The target that the step is about.
    pub fn target(&self) -> Option<usize> {
        match self {
            Step::Inspect { target }
            | Step::Verify { target }
            | Step::VerifyApplied { target }
            | Step::Probe { target }
            | Step::Preview { target }
            | Step::Prepare { target }
            | Step::Swap { target }
            | Step::Activate { target }
            | Step::ReadBack { target, .. }
            | Step::Attest { target, .. }
            | Step::Undo { target }
            | Step::Discard { target }
            | Step::Refrain { target } => Some(*target),
            Step::Fetch
            | Step::FetchApplied
            | Step::Hold
            | Step::Release { .. }
            | Step::Reject
            | Step::Leave
            | Step::Commit { .. }
            | Step::Wait { .. }
            | Step::Await
            | Step::End => None,
        }
    }
}

/// Why a step is the next one. `Display` is what people read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reason {
    LookAtTarget(String),
    LookAtSource,
    UpToDate,
    /// The applied version, but a target does not hold it.
    Drifted(String),
    NewVersion(String),
    Adoption,
    Verified(String),
    /// The mail log tells of a refusal, or a refusal of our own is to be seen twice.
    MayBeRefused,
    /// May its login send, too?
    MaySend(String),
    /// A person decides, or changes the target: what would change?
    LookFirst(String),
    ByHand(String),
    /// Waits for approval; the window opens then.
    Held {
        version: String,
        opens: Option<Timestamp>,
    },
    Released(String),
    Rejected(String),
    Rejects,
    Leaves,
    Staged(String),
    InPlace(String),
    ReloadOwed(String),
    AllActivated,
    AllReadBack,
    /// A sign of life is due.
    SignOfLife(String),
    Mismatch(String),
    InVain(String),
    BackOff(String),
    /// As [`Reason::BackOff`], and nothing but a person's doing ends it: a run notices that later, and does not wait for it.
    UntilAPersonActs(String),
    SecondRead,
    Blocked(String),
    Committed,
    DryRun,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reason::LookAtTarget(t) => write!(f, "what does target {t} hold?"),
            Reason::LookAtSource => f.write_str("what does the source hold?"),
            Reason::UpToDate => f.write_str("the applied version is the source's version, and every target holds it"),
            Reason::Drifted(t) => write!(f, "target {t} no longer holds the applied version"),
            Reason::NewVersion(v) => write!(f, "version {v} is new"),
            Reason::Adoption => f.write_str("there is no state: is the source's version in use already?"),
            Reason::Verified(t) => write!(f, "the login for target {t} was accepted"),
            Reason::MayBeRefused => f.write_str("does the endpoint refuse the applied version?"),
            Reason::MaySend(t) => write!(f, "the login for target {t} was accepted: may it send a message, too?"),
            Reason::LookFirst(t) => write!(f, "what would change in target {t}?"),
            Reason::ByHand(t) => write!(f, "target {t} is changed by hand"),
            Reason::Held { version, opens: None } => write!(f, "version {version} waits for approval"),
            Reason::Held { version, opens: Some(opens) } => {
                write!(f, "version {version} waits for approval, or for {}", rfc3339(*opens))
            }
            Reason::Released(by) => write!(f, "the version may go: {by}"),
            Reason::Rejected(version) => write!(f, "version {version} was rejected"),
            Reason::Rejects => f.write_str("somebody rejects the version that waits"),
            Reason::Leaves => f.write_str("this host leaves the fleet"),
            Reason::Staged(t) => write!(f, "every key gives the right login in the staged files of target {t}"),
            Reason::InPlace(t) => write!(f, "the files of target {t} are in place"),
            Reason::ReloadOwed(t) => write!(f, "a reload is owed to target {t}"),
            Reason::AllActivated => f.write_str("every target is in place"),
            Reason::AllReadBack => f.write_str("every target reads back as the right login"),
            Reason::SignOfLife(t) => write!(f, "a sign of life is due: does target {t} still give what was confirmed?"),
            Reason::Mismatch(t) => write!(f, "target {t} does not read back as the right login"),
            Reason::InVain(t) => write!(f, "what was staged for target {t} will not be used"),
            Reason::BackOff(what) | Reason::UntilAPersonActs(what) => write!(f, "{what}"),
            Reason::SecondRead => {
                f.write_str("the source's version is not newer than the applied one: a second read must agree")
            }
            Reason::Blocked(what) => write!(f, "{what}"),
            Reason::Committed => f.write_str("the rollover is complete"),
            Reason::DryRun => f.write_str("dry run: nothing is changed"),
        }
    }
}

/// What became of a step.
#[derive(Debug, Clone)]
pub enum Outcome {
    Inspected(Inspection),
    Fetched(SourceVersion),
    Accepted(Evidence),
    /// 535, with the server's words. `endpoint`: which of several it was; `None`: the target's.
    Refused {
        endpoint: Option<String>,
        reply: String,
    },
    /// Of `VerifyApplied`: the source does not give the applied version any more.
    NotGiven(Failure),
    Probed,
    /// Also the live id of the login that it is about.
    Previewed(PlannedChange, String),
    Prepared(StagedFacts),
    /// Of `Prepare`: nothing is staged, a person is to make this change; and the live id of the login that it is about.
    ByHand(PlannedChange, String),
    Swapped,
    Activated,
    /// Files right, reload not done: remembered.
    ReloadOwed(Failure),
    ReadBack(ReadBackFacts),
    /// The live files do not read back as the candidate; what was found instead, in words.
    Mismatch(Failure),
    Undone,
    /// Of `Undo`: somebody else has written to the files since, and what they wrote stays.
    Overtaken,
    Discarded,
    Refrained,
    /// A decision was taken down: of `Hold`, `Release`, `Reject`, `Leave`.
    Noted,
    /// The time of a `Wait` has come.
    Waited,
    Committed(Box<Report>),
    /// The step failed; for `Fetch` and `Verify` too.
    Failed(Failure),
}
