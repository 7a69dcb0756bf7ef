//! One host's move from the applied version to the candidate, decided purely: facts in, one step out, look again.
//!
//! Steps about different targets may be under way side by side: [`decide`] gives one at a time that can be begun beside
//! them, about a target that is at rest, and [`Step::Await`] where none can. A target that something hangs on is left out
//! like one that failed; the confirmation waits for all.
//!
//! ```text
//!            ┌──────── wake ────────┐
//!            v                      │
//!   inspect every target ──> fetch ─┼─ nothing new, nothing drifted ──> end
//!            │                      │
//!            v                      │
//!   is the version to be taken? ── no: left behind, rejected, or not newer and not agreed twice ──> wait
//!            │ yes
//!            v
//!   verify at every endpoint ──> probe ──> is somebody to decide, or to change it by hand?
//!        │ 535: not yet / refused             │ no                          │ yes
//!        v                                    v                             v
//!       wait                             prepare every target      preview ──> nothing would change: as on the left
//!                                             │                        │
//!                                             v                        v
//!                        swap ──> activate ──> read back ──> commit   hold, refrain ──> wait
//!                          │         │            │
//!                          v         v            v
//!        wait (nothing changed)  reload owed     undo
//! ```
//!
//! Where the source's version is not put in place, what was confirmed is to stay in use. If somebody else changed it, it is
//! asked for by its number and goes down the same way; then the run goes on with the source's version.
//!
//! [`decide`] looks only at [`Facts`], which are the durable [`State`] plus what this wake has found out. There is no
//! second path for recovery: after a crash the same function sees what is there and goes forward. [`absorb`] takes the
//! outcome of a step in; an outcome of a step that is no longer under way is dropped. Time and randomness are
//! passed in. Nothing here does I/O.
//!
//! What a run has to tell beyond its confirmation ([`News`]) is decided here too: by [`absorb`] where a step brings it,
//! by [`conclude`] where only the end of a run shows it.
//!
//! | file | subject |
//! |---|---|
//! | `state`, `target_state`, `own_login` | what is durable: of the credential, of one target, of logins of our own |
//! | `policy`, `facts` | what a decision looks at besides |
//! | `step` | the vocabulary: step, reason, outcome |
//! | `standing` | is the source's version to be taken, and may it be? |
//! | `drift` | what somebody else changed: put back, or left and said |
//! | `decide` | the one next step |
//! | `commit`, `events` | a confirmation taken in; what is told beyond it |
//! | `failures`, `people` | what failed, and when it is tried again; what people say |
//! | `refused` | what to do about a key that the endpoint refuses, wherever that is said |
//! | `looked`, `fetched`, `logged_in`, `put_in_place`, `refrained` | outcomes taken in: a look, the source's answer, logins, a change, what is left as it is |
//! | `absorb` | which of these an outcome is for |
//!
//! Read from top to bottom. What takes in an outcome uses what decides; `decide` asks `commit`, `events` and `failures` for a word
//! each; what is durable and what a decision looks at use each other's types.

mod absorb;
mod commit;
mod decide;
mod drift;
mod events;
mod facts;
mod failures;
mod fetched;
mod logged_in;
mod looked;
mod outbox;
mod own_login;
mod people;
mod policy;
mod put_in_place;
mod refrained;
mod refused;
mod standing;
mod state;
mod step;
mod target_state;
#[cfg(test)]
pub(crate) mod tests;

pub use absorb::{absorb, begin};
pub use decide::decide;
pub use drift::{left_changed, put_right, would_put_right};
pub use events::{OLD_KEY, alive_due, conclude, hello};
pub use facts::{
    Approve, Facts, HeldFacts, Inspection, News, ReadBackFacts, Reject, SignOfLife, SourceVersion, StagedFacts, Stamp,
    Superseded, TargetFacts, Wake, is_in_use,
};
pub use failures::backoff;
pub use fetched::not_newer;
pub use outbox::Outbox;
pub use own_login::{OwnLoginTrials, OwnResult, Tried};
pub use people::{left_to_people, waits_unconfirmed};
pub use policy::{Policy, TargetPolicy};
pub use refused::{REPLACE_REFUSED, RefusedNewKey, RegionSaidBy, instead_of_the_refused};
pub use relaykey_core::audit::{AuditFile, AuditHead};
pub use relaykey_core::report::{
    Evidence, MailServer, Report, ReportError, ReportMode, ReportOutcome, ReportTable, ReportTarget, StillHeld,
    Waiting, rfc3339, whole_seconds,
};
pub use relaykey_core::target::{ReloadOwed, Swapped};
pub use standing::said_beside;
pub use state::{Applied, Approval, Candidate, CloneOf, Completion, Failing, HeldVersion, Rejected, State, StateMoved};
pub use step::{Outcome, Reason, Step, StepId};
pub use target_state::{Begun, FirstRefused, HeldBeside, Holds, InUse, PlannedChange, Retry, TargetState, WantedLogin};
