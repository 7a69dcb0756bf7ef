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

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::config::{self, Drift, IfAppliedDies, Mode, Opening};
use crate::credential::{
    NOT_SHOWN, ProofFields, SourceIdentity, VersionOrder, has_secret_shape, is_access_key_id, shown, shown_or_said,
};
use crate::fault::{Class, Failure, Fault};
use crate::instruction::{Instruction, relaykey};
use crate::text;

/// A version whose order does not increase must be seen again this long after, DESIGN.md promise 8.
pub const SECOND_READ: SignedDuration = SignedDuration::from_secs(60);
/// Drift is healed this often within [`HEAL_WINDOW`], then only reported.
pub const HEALS: usize = 3;
pub const HEAL_WINDOW: SignedDuration = SignedDuration::from_hours(1);
/// Outcome of a report that is only a sign of life.
pub const ALIVE: &str = "alive";
/// How long after the last report such a sign is due; give or take a tenth, so that a fleet does not report at once.
const ALIVE_AFTER: SignedDuration = SignedDuration::from_hours(24);
/// A key that is older than this should have been rotated: the usual 90 days.
pub const OLD_KEY: SignedDuration = SignedDuration::from_hours(90 * 24);
/// Class of a sign of life that tells of such a key.
/// A failure that may pass by itself is reported when it has stood this long.
const LASTING: SignedDuration = SignedDuration::from_mins(15);
/// A failure that was not met for so long is over, although others stand: should it come again, it is a new one.
const FORGOTTEN: SignedDuration = SignedDuration::from_hours(1);
/// A version that is held is verified again this long after.
const HELD_VERIFIED: SignedDuration = SignedDuration::from_hours(24);
/// A message that went out over the candidate's login proves for this long that it may send.
const PROBE_HOLDS: SignedDuration = SignedDuration::from_hours(1);
/// Between the first refusal of a login of our own with the applied version and the next try, in units of `retry`: by
/// default a minute. Only the second one counts.
const SECOND_LOGIN: i32 = 6;
/// Between two such logins otherwise, at first and at last, in the same units: by default 5 and 15 minutes. Anybody may
/// write to a mail log, and is not to make a host knock at the endpoint.
const LOGIN_GAP: i32 = 30;
const LONGEST_LOGIN_GAP: i32 = 90;
/// So many refusals of our own prove that the endpoint does not take the applied version any more.
const PROVED: usize = 2;
/// What was looked up and found unchanged is written down anew this often.
const LOOKED_UP: SignedDuration = SignedDuration::from_hours(1);
/// After somebody else wrote to a table between a swap and its read-back, it is looked at again this long after.
const OVERTAKEN: SignedDuration = SignedDuration::from_secs(1);
/// How many rejected versions are remembered.
const REJECTED: usize = 100;
/// How many versions that this host left behind are remembered.
const LEFT_BEHIND: usize = 100;
/// How many versions that were candidates here are remembered.
const SEEN: usize = 100;
/// How many user names that were in use here before are remembered.
const EARLIER: usize = 100;
/// How many logins that were confirmed here before are known again.
const EARLIER_LOGINS: usize = 32;

// ---------------------------------------------------------------- state

/// What is durable about one credential on this host: one file, one rename per change.
#[derive(Debug, Clone, PartialEq, Hash, Serialize, Deserialize)]
pub struct State {
    /// Of the file format: 1.
    pub schema: u32,
    pub credential: String,
    /// The installation that wrote it: another one's came with a copy of its state directory.
    #[serde(default)]
    pub host_id: Option<String>,
    pub source: Option<SourceIdentity>,
    pub applied: Option<Applied>,
    /// Versions that were applied here once and are not taken again by themselves; the latest last.
    pub left_behind: Vec<VersionId>,
    pub candidate: Option<Candidate>,
    /// Fetching: attempts and next time.
    pub source_retry: Retry,
    pub targets: BTreeMap<String, TargetState>,
    /// Last `seq` that a report of this credential took.
    pub seq: u64,
    /// The latest report document, complete.
    pub report: Option<Report>,
    /// Versions that a person rejected here, the latest last: not taken again by themselves.
    #[serde(default)]
    pub rejected: Vec<Rejected>,
    /// Versions with an order that were candidates here, the latest last: a source that was made anew counts from 1 again, and
    /// who names a number may have seen another version of it.
    #[serde(default)]
    pub seen: Vec<VersionId>,
    /// The version of which a person was told that its number was another one's before: named once more, it is what is meant.
    #[serde(default)]
    pub told_apart: Option<VersionId>,
    /// The latest report of all that is no mere sign of life.
    #[serde(default)]
    pub told: Option<Report>,
    /// Since when a target that was confirmed holds something else. Over with the next confirmation.
    #[serde(default)]
    pub withdrawn: Option<Timestamp>,
    /// Failures that stand, and whether they were reported.
    #[serde(default)]
    pub failing: Vec<Failing>,
    /// When a sign of life is due.
    #[serde(default)]
    pub alive_due: Option<Timestamp>,
    /// The version of which it was told that its key is old.
    #[serde(default)]
    pub aged: Option<VersionId>,
    /// When this host left the fleet (`relaykey deregister`). Over with the next confirmation.
    #[serde(default)]
    pub left: Option<Timestamp>,
    /// Reports that are owed, by the name of the receiver, in the order of their `seq`.
    #[serde(default)]
    pub outbox: BTreeMap<String, Outbox>,
    /// Where the audit log stands.
    #[serde(default)]
    pub audit: AuditHead,
    /// User names that were found in use here, applied or put in place, the latest last: what still holds one of them, and is
    /// not to be written, is named in a confirmation.
    #[serde(default)]
    pub earlier: Vec<String>,
    /// Live ids of logins that were found in use here, confirmed, or put in use by this host, the latest last: where a user name
    /// is others' too, an entry that holds one of them is ours all the same, as in a backup of the table that was put back.
    #[serde(default)]
    pub earlier_logins: Vec<String>,
    /// Live ids of logins that were found in use here where this host had another one confirmed, and that are none of its
    /// versions: what still holds one after a rollover is named. The latest last.
    #[serde(default)]
    pub found_logins: Vec<String>,
    /// While nothing is applied yet: the user name that was found in use, before a version was put in its place.
    #[serde(default)]
    pub found_first: Option<String>,
    /// As [`TargetState::begun`], of targets whose names the configuration does not have any more: one of another name may be
    /// the same mail server.
    #[serde(default)]
    pub begun_elsewhere: Vec<Begun>,
    /// Putting the applied version back where somebody else changed it, while the source gives another one: attempts and next
    /// time. What stands in the way of that other one is told, and tried again, by itself.
    #[serde(default)]
    pub put_back: Retry,
}

/// What is owed to one receiver.
#[derive(Debug, Clone, PartialEq, Hash, Default, Serialize, Deserialize)]
pub struct Outbox {
    /// In the order of their `seq`; only the latest for a receiver that holds one document per host.
    pub owed: Vec<Report>,
    /// Attempts at the first of them, and when it is due again.
    pub retry: Retry,
    /// `seq` of the last report that arrived there.
    pub delivered: u64,
}

/// Where the audit log of a credential stands. The lines that its files may lack are part of it, so that what was done
/// and its line become durable in one rename; the files are brought up to it afterwards, and at every start.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct AuditHead {
    /// Number of the last line; 0: there is none.
    pub number: u64,
    /// SHA-256 of the last line, hex; empty where there is none.
    pub hash: String,
    /// The last lines, up to `number`, each without its line feed: those that may not be in their file yet.
    pub lines: Vec<String>,
    /// The files that are kept, the oldest first; lines are added to the last.
    pub files: Vec<AuditFile>,
}

/// One file of the audit log. Where it begins stands here too, so that what was dropped because it was old is told from
/// what somebody took away, and a break in one file does not keep the others from being checked.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct AuditFile {
    /// In its name; the next file has a higher one.
    pub number: u64,
    /// Number of its first line.
    pub first: u64,
    /// SHA-256 of the line before that, hex; 64 zeros where there is none.
    pub before: String,
    /// Bytes that it has, once all its lines are there.
    pub size: u64,
}

impl State {
    pub const SCHEMA: u32 = 1;

    pub fn new(credential: &str) -> Self {
        Self {
            schema: Self::SCHEMA,
            credential: credential.to_owned(),
            host_id: None,
            source: None,
            applied: None,
            left_behind: Vec::new(),
            candidate: None,
            source_retry: Retry::default(),
            targets: BTreeMap::new(),
            seq: 0,
            report: None,
            rejected: Vec::new(),
            seen: Vec::new(),
            told_apart: None,
            told: None,
            withdrawn: None,
            failing: Vec::new(),
            alive_due: None,
            aged: None,
            left: None,
            outbox: BTreeMap::new(),
            audit: AuditHead::default(),
            earlier: Vec::new(),
            earlier_logins: Vec::new(),
            found_logins: Vec::new(),
            found_first: None,
            begun_elsewhere: Vec::new(),
            put_back: Retry::default(),
        }
    }
}

/// That an installation came from a copy of another one's state directory: a machine started from an image, a restore on
/// other hardware.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CloneOf {
    /// Of the original.
    pub host_id: String,
    /// When the copy was noticed, and became an installation of its own.
    pub at: Timestamp,
}

/// A state that another installation wrote and that was begun anew.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Moved {
    /// The other installation's host id.
    pub from: String,
    /// How many reports it owed, and are not owed here.
    pub dropped: usize,
}

impl State {
    /// The other installation that wrote this state, where `host_id` did not. `clone_of`: of what that one is a copy,
    /// which tells whose a state is that does not say so itself.
    pub fn copied_from(&self, host_id: &str, clone_of: Option<&CloneOf>) -> Option<String> {
        let writer = self.host_id.clone().or_else(|| clone_of.map(|original| original.host_id.clone()))?;
        (writer != host_id).then_some(writer)
    }

    /// Makes it the state of the installation `host_id`. What another installation wrote is its own affair: the reports
    /// that it owes it delivers itself, and what it did says nothing about the mail server here, so that the credential
    /// is adopted anew. What was left behind stays so, with the version that was applied, and numbers go on, because the
    /// audit log does.
    pub fn moved_to(&mut self, host_id: &str, clone_of: Option<&CloneOf>) -> Option<Moved> {
        let from = self.copied_from(host_id, clone_of);
        self.host_id = Some(host_id.to_owned());
        let from = from?;
        let dropped = self.outbox.values().map(|outbox| outbox.owed.len()).sum();
        let before = std::mem::replace(self, State::new(&self.credential));
        let State { host_id, source, applied, mut left_behind, rejected, seen, seq, audit, mut earlier, .. } = before;
        let (mut earlier_logins, targets) = (before.earlier_logins, before.targets);
        remember_logins(&mut earlier_logins, targets.into_values().filter_map(|target| target.live_id));
        if let Some(applied) = applied {
            remember(&mut earlier, applied.previous_username.into_iter().chain([applied.username]));
            left_behind.retain(|id| *id != applied.id);
            left_behind.push(applied.id);
            left_behind.drain(..left_behind.len().saturating_sub(LEFT_BEHIND));
        }
        let new = State::new(&self.credential);
        *self = State { host_id, source, left_behind, rejected, seen, seq, audit, earlier, earlier_logins, ..new };
        Some(Moved { from, dropped })
    }
}

/// Takes user names down as earlier ones, the latest last; none that may be a secret.
fn remember(earlier: &mut Vec<String>, usernames: impl IntoIterator<Item = String>) {
    let may_be_shown = |username: &String| username != NOT_SHOWN && !has_secret_shape(username);
    remember_last(EARLIER, earlier, usernames.into_iter().filter(may_be_shown));
}

/// The same of the live ids of logins.
fn remember_logins(earlier: &mut Vec<String>, logins: impl IntoIterator<Item = String>) {
    remember_last(EARLIER_LOGINS, earlier, logins);
}

/// Each once, the latest last, and of all the last so many.
fn remember_last(most: usize, remembered: &mut Vec<String>, new: impl IntoIterator<Item = String>) {
    for one in new {
        remembered.retain(|known| *known != one);
        remembered.push(one);
    }
    remembered.drain(..remembered.len().saturating_sub(most));
}

/// The longest that anything is put off: the last step of the back-off.
const LONGEST_WAIT: SignedDuration = SignedDuration::from_hours(6);

impl State {
    /// The user names of the versions that this host has applied, had applied before, has put in place, or is to apply.
    fn usernames(&self) -> impl Iterator<Item = &String> {
        let applied = self.applied.iter().flat_map(|a| std::iter::once(&a.username).chain(&a.previous_username));
        let begun = self.begun().map(|begun| &begun.username);
        applied.chain(self.candidate.iter().map(|c| &c.username)).chain(begun).filter(|name| *name != NOT_SHOWN)
    }

    /// Every user name that this host knows as one of this credential's: a name that is no access key id gets among them
    /// once the endpoint has taken it for one.
    pub fn known_usernames(&self) -> Vec<String> {
        let mut all = self.earlier_usernames();
        all.extend(self.usernames().cloned());
        all.retain(|name| name != NOT_SHOWN);
        all
    }

    /// What was put in place, or asked for, and never confirmed: in any target, of a name that is gone too.
    pub fn begun(&self) -> impl Iterator<Item = &Begun> {
        self.targets.values().flat_map(|t| &t.begun).chain(&self.begun_elsewhere)
    }

    /// What was put in place in part, and where: the text of a table holds it, and what the mail server reads does not.
    pub fn half_done(&self) -> impl Iterator<Item = (&String, &Begun)> {
        self.targets.iter().filter_map(|(name, t)| Some((name, t.begun.iter().rfind(|begun| begun.is_half_done())?)))
    }

    /// Every user name that was in use here before, as far as is known, or may be.
    pub fn earlier_usernames(&self) -> Vec<String> {
        let applied = self.applied.iter().flat_map(|a| std::iter::once(&a.username).chain(&a.previous_username));
        let begun = self.begun().map(|begun| &begun.username);
        let mut all = self.earlier.clone();
        all.extend(applied.chain(&self.found_first).chain(begun).cloned());
        all.sort();
        all.dedup();
        all
    }

    /// Takes out what an older relaykey wrote down as a user name, and that may be a secret which somebody put in its place.
    pub fn without_secret_names(mut self) -> Self {
        // relaykey 0.1.0 wrote a candidate's name down before the endpoint had taken it for one.
        let known = self.earlier_usernames();
        let is_unproved = |c: &&Candidate| {
            let logged_in = c.held.is_some() || c.probed.is_some() || c.approval.is_some();
            !logged_in && shown(&c.username, known.contains(&c.username)).is_none()
        };
        let unproved = self.candidate.as_ref().filter(is_unproved).map(|c| c.username.clone());
        let hide = |username: &mut String| {
            if has_secret_shape(username) || unproved.as_ref() == Some(username) {
                NOT_SHOWN.clone_into(username);
            }
        };
        if let Some(applied) = &mut self.applied {
            std::iter::once(&mut applied.username).chain(&mut applied.previous_username).for_each(hide);
        }
        self.candidate.iter_mut().for_each(|candidate| hide(&mut candidate.username));
        let begun = self.targets.values_mut().flat_map(|t| &mut t.begun).chain(&mut self.begun_elsewhere);
        begun.for_each(|begun| hide(&mut begun.username));
        self.earlier.retain(|username| !has_secret_shape(username));
        let reports = self.outbox.values_mut().flat_map(|outbox| &mut outbox.owed);
        for mut report in reports.chain(&mut self.report).chain(&mut self.told) {
            loop {
                let others = report.previous_username.iter_mut().chain(report.in_use.iter_mut().flatten());
                std::iter::once(&mut report.username).chain(others).for_each(hide);
                match &mut report.latest {
                    Some(latest) => report = latest,
                    None => break,
                }
            }
        }
        let known: Vec<String> = self.usernames().cloned().collect();
        for found in self.targets.values_mut().flat_map(|t| &mut t.in_use) {
            let all = found.usernames.iter().map(|name| shown_or_said(name, known.contains(name)).to_owned());
            let mut once: Vec<String> = Vec::new();
            for name in all {
                if !once.contains(&name) {
                    once.push(name);
                }
            }
            found.usernames = once;
        }
        self
    }

    /// Takes back what was written down while the clock was ahead: times that have not come yet, and waits that are longer
    /// than any that is ever decided upon. Without it a host that started with a wrong clock would wait for years, or take
    /// a refused login for one that SES does not know yet for as long.
    pub fn set_right_by(&mut self, now: Timestamp) {
        let latest = now.saturating_add(LONGEST_WAIT).unwrap_or(Timestamp::MAX);
        let retries = self.targets.values_mut().map(|t| &mut t.retry);
        let retries = retries.chain(self.outbox.values_mut().map(|o| &mut o.retry));
        for retry in retries.chain([&mut self.source_retry, &mut self.put_back]) {
            retry.next = retry.next.filter(|next| *next <= latest);
        }
        for target in self.targets.values_mut() {
            target.heals.retain(|at| *at <= now);
            target.overtaken.retain(|at| *at <= now);
            if let Some(found) = &mut target.in_use {
                found.at = found.at.min(now);
            }
            if let Some(own) = &mut target.own_login {
                own.next = own.next.filter(|next| *next <= latest);
                own.refused.retain(|at| *at <= now);
                own.last = own.last.take().filter(|last| last.at <= now);
            }
            if let Some(first) = &mut target.first_refused {
                first.since = first.since.min(now);
            }
        }
        if let Some(candidate) = &mut self.candidate {
            candidate.first_seen = candidate.first_seen.min(now);
            candidate.probed = candidate.probed.filter(|at| *at <= now);
            // A window that was open by a wrong clock only.
            candidate.approval = candidate.approval.take().filter(|a| a.until.is_none() || a.at <= now);
            if let Some(held) = &mut candidate.held {
                held.since = held.since.min(now);
                held.next = held.next.filter(|next| next.duration_since(now) <= HELD_VERIFIED);
            }
        }
        for failing in &mut self.failing {
            (failing.since, failing.seen) = (failing.since.min(now), failing.seen.min(now));
        }
        self.alive_due = self.alive_due.filter(|due| due.duration_since(now) <= ALIVE_AFTER * 2);
    }
}

/// So long after something failed it is tried again by a program that was started meanwhile, whatever wait was written
/// down: a start is mostly a person's doing, who is waiting; and one that is started again and again by a service manager
/// does not hammer.
const AFTER_A_START: SignedDuration = SignedDuration::from_mins(1);

impl State {
    /// A program has just started: what failed a minute ago or longer is due. How often it was tried goes on counting.
    fn look_again_soon(&mut self) {
        let retries = self.targets.values_mut().map(|t| &mut t.retry);
        for retry in retries.chain([&mut self.source_retry, &mut self.put_back]) {
            let soon = retry.failure.as_ref().and_then(|f| f.at.checked_add(AFTER_A_START).ok());
            retry.next = retry.next.map(|next| soon.map_or(next, |soon| next.min(soon)));
        }
    }
}

/// A version together with its order: a recreated parameter counts from 1 again, and is not the version 1 of before.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct VersionId {
    pub version: String,
    pub order: Option<VersionOrder>,
}

#[derive(Debug, Clone, PartialEq, Hash, Serialize, Deserialize)]
pub struct Applied {
    #[serde(flatten)]
    pub id: VersionId,
    pub username: String,
    pub previous_username: Option<String>,
    pub outcome: Completion,
    /// When it was committed here.
    pub since: Timestamp,
}

impl Applied {
    /// How old this version is, and so how old the key is at least: since it was stored at the source; for a file, which
    /// does not say so, since it was applied here. When the key itself was made only AWS knows.
    pub fn key_age(&self, now: Timestamp) -> SignedDuration {
        now.duration_since(self.id.order.map_or(self.since, |order| order.at)).max(SignedDuration::ZERO)
    }
}

/// How an applied version came to be applied here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Completion {
    /// Found in use, with no state; nothing was written.
    Adopted,
    Confirmed,
}

impl Completion {
    /// The word of the report document.
    pub fn word(self) -> &'static str {
        match self {
            Completion::Adopted => "adopted",
            Completion::Confirmed => "confirmed",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Hash, Serialize, Deserialize)]
pub struct Candidate {
    #[serde(flatten)]
    pub id: VersionId,
    pub username: String,
    pub first_seen: Timestamp,
    /// Named by an operator with `--accept-version`, or in an approval.
    pub accepted: bool,
    /// When a message last went out over its login.
    #[serde(default)]
    pub probed: Option<Timestamp>,
    /// Verified, and waiting for a person.
    #[serde(default)]
    pub held: Option<Held>,
    /// Who let it go.
    #[serde(default)]
    pub approval: Option<Approval>,
    /// It is not newer than the applied one, and waits for a second read that gives it too.
    #[serde(default, skip_serializing_if = "is_false")]
    pub not_newer: bool,
}

/// A version that waits for a person: to approve it, or to change a target by hand.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Held {
    pub since: Timestamp,
    /// When it is verified again.
    pub next: Option<Timestamp>,
}

/// Who or what let a held version go.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Approval {
    /// The operator, as the kernel says it; or the setting that let it go: `apply = …`, `if_applied_dies = "apply"`.
    pub by: String,
    pub at: Timestamp,
    /// Of a window: its end. What was not begun by then waits for the next one.
    pub until: Option<Timestamp>,
}

impl Approval {
    /// Does it count at this time?
    fn holds(&self, now: Timestamp) -> bool {
        self.until.is_none_or(|until| now < until)
    }
}

/// A version that a person rejected.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Rejected {
    #[serde(flatten)]
    pub id: VersionId,
    /// The operator, as the kernel says it.
    pub by: String,
    #[serde(deserialize_with = "text::on_one_line")]
    pub reason: String,
    pub at: Timestamp,
}

/// A failure that stands: reported once per cause, not per attempt.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Failing {
    pub class: Class,
    /// The version that it was met with; `None`: before any was known.
    pub version: Option<String>,
    pub since: Timestamp,
    /// When it last stood.
    #[serde(default)]
    pub seen: Timestamp,
    pub told: bool,
}

/// What would change in one target, masked.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(from = "WrittenChange", into = "WrittenChange")]
pub struct Change {
    /// One line per entry. Empty: nothing is to be written.
    pub diff: Vec<String>,
    /// What a person does who makes the change by hand, in this order.
    pub steps: Vec<Instruction>,
    /// How what is there differs from the candidate, where somebody has begun to change it.
    pub differences: Vec<String>,
    /// Would the mail server be reloaded?
    pub reload: bool,
}

/// [`Change`] in JSON. 0.1.0 has the steps as texts alone, and reads no others; what is a command stands in `todo`.
#[derive(Serialize, Deserialize)]
struct WrittenChange {
    #[serde(deserialize_with = "text::on_one_line")]
    diff: Vec<String>,
    steps: Vec<String>,
    #[serde(default)]
    todo: Vec<Instruction>,
    #[serde(deserialize_with = "text::on_one_line")]
    differences: Vec<String>,
    reload: bool,
}

impl From<WrittenChange> for Change {
    fn from(written: WrittenChange) -> Self {
        let WrittenChange { diff, steps, todo, differences, reload } = written;
        let steps = if todo.is_empty() { steps.into_iter().map(Instruction::Text).collect() } else { todo };
        Self { diff, steps, differences, reload }
    }
}

impl From<Change> for WrittenChange {
    fn from(change: Change) -> Self {
        let Change { diff, steps, differences, reload } = change;
        Self { diff, steps: Instruction::plain(&steps), todo: steps, differences, reload }
    }
}

/// Was a target's mail server seen running? Only where it was may anything be said of how mail goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MailServer {
    Runs,
    Stopped,
    /// There is no process to run: the text file of the demo.
    NoProcess,
}

#[derive(Debug, Clone, PartialEq, Hash, Default, Serialize, Deserialize)]
pub struct TargetState {
    /// Live id under every key of ours when the applied version was read back.
    pub live_id: Option<String>,
    pub retry: Retry,
    /// First 535 that a version met here: from then on `propagation` counts for it.
    pub first_refused: Option<FirstRefused>,
    /// When drift was healed, within the last hour.
    pub heals: Vec<Timestamp>,
    /// Why a reload is owed, as last seen.
    pub reload_owed: Option<Owed>,
    /// Why the mail server may not go by what is there, where nothing may reload it, as last seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unread: Option<Owed>,
    /// What waits to be changed here, by relaykey once it may, or by hand.
    #[serde(default)]
    pub change: Option<Change>,
    /// As seen at the last look; `None`: it was not looked at.
    #[serde(default)]
    pub mail_server: Option<MailServer>,
    /// What the mail server was found to use when it was last looked up.
    #[serde(default)]
    pub in_use: Option<InUse>,
    /// What logins of our own with the applied version came to, since the mail log first told of a refusal. Kept by the
    /// first of several targets that log in alike.
    #[serde(default)]
    pub own_login: Option<OwnLogin>,
    /// When somebody else wrote to the table between a swap and its read-back, within the last hour.
    #[serde(default)]
    pub overtaken: Vec<Timestamp>,
    /// Versions that were put in place here and never confirmed, the latest last. Over with the next confirmation.
    #[serde(default)]
    pub begun: Vec<Begun>,
    /// The login of the version that waits, as far as it was compared with what is here: by it somebody's change by hand is
    /// told from another login of the same user name.
    #[serde(default)]
    pub wanted: Option<Wanted>,
}

/// The login of a version, as one target would hold it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Wanted {
    #[serde(flatten)]
    pub id: VersionId,
    pub live_id: String,
}

/// A version that this host put in place, or asked a person to put there, and did not confirm: the run was killed between its
/// swap and its commit, or another version came before the change by hand was seen.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Begun {
    #[serde(flatten)]
    pub id: VersionId,
    pub source: Option<SourceIdentity>,
    pub username: String,
    /// Live id of its login.
    pub live_id: String,
    /// Was it found in use? It may have been killed with the text renamed and the compiled map not.
    pub used: bool,
    /// Something that this host did not put there was found in its place since.
    #[serde(default)]
    pub gone: bool,
    /// It was told that another version came before it was confirmed.
    #[serde(default)]
    pub told: bool,
    /// A person was asked to put it there, and this host wrote nothing.
    #[serde(default)]
    pub by_hand: bool,
}

impl Begun {
    /// Is it this very version? As of [`Swapped`].
    fn is(&self, found: &Found) -> bool {
        self.id == found.id && self.source.as_ref() == Some(&found.identity)
    }

    /// Was only a part of it put in place, as far as was seen? What a person was asked for is theirs to begin.
    pub fn is_half_done(&self) -> bool {
        !self.used && !self.by_hand && !self.gone
    }
}

/// Does this user name alone tell one version's login from another's? Of an access key id there is one password for one
/// region; `apikey` is everybody's, and a password may change under one name.
fn tells_apart(username: &str, applied: Option<&Applied>) -> bool {
    is_access_key_id(username) && applied.is_none_or(|applied| applied.username != username)
}

/// So many are remembered.
const BEGUN: usize = 8;

/// What a look at the mail server's tables found: not what this host put there, but what is there.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct InUse {
    /// When it was looked up. While nothing changes it is written down once an hour.
    pub at: Timestamp,
    /// The user names under the live keys, each once; empty: there is no login.
    pub usernames: Vec<String>,
    /// The one live id under every live key; `None`: none, or they differ.
    pub live_id: Option<String>,
}

/// How what is in use stands to what this host wants there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Holds {
    /// The applied version.
    Applied,
    /// The version that is to take its place.
    Pending,
    /// A version that this host put there and never confirmed, and that is not the one to come any more.
    Begun,
    /// Somebody else's login, or another password.
    Other,
    /// No login at all.
    Nothing,
}

impl TargetState {
    /// What this target was last found to hold; `None`: it was not looked up yet.
    pub fn holds(&self, state: &State) -> Option<Holds> {
        let found = self.in_use.as_ref()?;
        let only = |username: &str| {
            username != NOT_SHOWN && !found.usernames.is_empty() && found.usernames.iter().all(|u| u == username)
        };
        let begun = found.live_id.as_ref().and_then(|live_id| self.has_begun(live_id));
        Some(match (&self.live_id, &state.applied, &state.candidate) {
            _ if found.usernames.is_empty() => Holds::Nothing,
            (Some(expected), Some(_), _) if found.live_id.as_ref() == Some(expected) => Holds::Applied,
            (_, _, Some(candidate)) if begun.is_some_and(|begun| begun.id == candidate.id) => Holds::Pending,
            _ if begun.is_some() => Holds::Begun,
            (Some(_), applied, Some(candidate))
                if self.is_login_of(&candidate.id, found.live_id.as_ref()).unwrap_or_else(|| {
                    only(&candidate.username) && tells_apart(&candidate.username, applied.as_ref())
                }) =>
            {
                Holds::Pending
            }
            // Nothing was read back here yet: the name alone tells.
            (None, Some(applied), _) if only(&applied.username) => Holds::Applied,
            _ => Holds::Other,
        })
    }

    /// The version with this live id, where this host put one in place and never confirmed it.
    pub fn has_begun(&self, live_id: &str) -> Option<&Begun> {
        self.begun.iter().rfind(|begun| begun.live_id == live_id)
    }

    /// Is this the login of that version? `None`: it was not compared yet.
    fn is_login_of(&self, id: &VersionId, live_id: Option<&String>) -> Option<bool> {
        self.wanted.as_ref().filter(|wanted| wanted.id == *id).map(|wanted| live_id == Some(&wanted.live_id))
    }

    /// What is in place and not committed was looked up, and what is in use.
    fn take_down(&mut self, swapped: Option<&Swapped>, in_use: Option<&String>) {
        // A person has done what was asked for.
        for asked in self.begun.iter_mut().filter(|begun| begun.by_hand && in_use == Some(&begun.live_id)) {
            (asked.used, asked.gone) = (true, false);
        }
        let is_begun = in_use
            .is_some_and(|id| self.has_begun(id).is_some() || swapped.is_some_and(|swapped| swapped.live_id == *id));
        if in_use.is_some() && !is_begun {
            // Something else took its place, and is what the next version takes over from.
            self.begun.iter_mut().for_each(|begun| begun.gone = true);
        }
        let Some((swapped, username)) = swapped.and_then(|s| Some((s, s.username.clone()?))) else { return };
        let used = in_use == Some(&swapped.live_id);
        let same = |begun: &Begun| begun.id == swapped.id && begun.source == swapped.source;
        let (id, source, live_id) = (swapped.id.clone(), swapped.source.clone(), swapped.live_id.clone());
        let before = self.begun.iter().position(same).map(|at| self.begun.remove(at));
        let (used_before, told) = before.map_or((false, false), |before| (before.used, before.told));
        let (used, gone, by_hand) = (used || used_before, false, false);
        self.begun.push(Begun { id, source, username, live_id, used, gone, told, by_hand });
        self.begun.drain(..self.begun.len().saturating_sub(BEGUN));
    }

    /// A person was asked to put this version there: should another one come first, what they did is known all the same.
    fn asks_for(&mut self, found: &Found, live_id: String) {
        if let Some(before) = self.begun.iter_mut().find(|begun| begun.is(found)) {
            before.live_id = live_id;
            return;
        }
        let Found { identity, id, username, .. } = found.clone();
        let (used, gone, told, by_hand) = (false, false, false, true);
        self.begun.push(Begun { id, source: Some(identity), username, live_id, used, gone, told, by_hand });
        self.begun.drain(..self.begun.len().saturating_sub(BEGUN));
    }
}

/// Logins of our own with the applied version, at one endpoint: what the mail log only hints at, they prove.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct OwnLogin {
    /// The version that they are made with; one that is no longer applied is no longer asked about.
    #[serde(flatten)]
    pub id: VersionId,
    /// The mail log has told of a refusal since the last one.
    pub hinted: bool,
    /// How many were made lately: the gap between two grows with it.
    pub tries: u32,
    /// The next one is not made before this.
    pub next: Option<Timestamp>,
    /// When the endpoint refused them, the first and the latest in a row. One alone proves nothing.
    pub refused: Vec<Timestamp>,
    /// What the last one came to.
    pub last: Option<Tried>,
}

/// What a login of our own with the applied version came to.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Tried {
    pub at: Timestamp,
    /// Where it was tried.
    pub endpoint: String,
    #[serde(flatten)]
    pub result: OwnResult,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "result")]
pub enum OwnResult {
    /// Whatever the mail log tells is not about this login.
    Accepted,
    /// 535.
    Refused {
        #[serde(deserialize_with = "text::on_one_line")]
        reply: String,
    },
    /// Neither: the network, a 454.
    Unknown {
        #[serde(deserialize_with = "text::on_one_line")]
        what: String,
    },
    /// The source does not give the applied version any more, so that nothing can be proved.
    NotGiven {
        #[serde(deserialize_with = "text::on_one_line")]
        what: String,
        #[serde(deserialize_with = "text::on_one_line")]
        fix: String,
    },
}

impl State {
    /// The logins that prove that the endpoint refuses the applied version, where they do.
    pub fn applied_refused(&self) -> Option<&OwnLogin> {
        let applied = self.applied.as_ref()?;
        let mut all = self.targets.values().filter_map(|t| t.own_login.as_ref());
        all.find(|own| own.id == applied.id && own.refused.len() >= PROVED)
    }

    /// A target that was found to hold what this host never put there, in the place of what it had confirmed.
    pub fn foreign(&self) -> Option<&TargetState> {
        self.applied.as_ref()?;
        let foreign = |t: &&TargetState| matches!(t.holds(self), Some(Holds::Other | Holds::Nothing));
        self.targets.values().find(foreign)
    }

    /// What the latest login of our own with the applied version came to, as far as one was made.
    pub fn own_login(&self) -> Option<&Tried> {
        let applied = self.applied.as_ref()?;
        let all = self.targets.values().filter_map(|t| t.own_login.as_ref()).filter(|own| own.id == applied.id);
        all.filter_map(|own| own.last.as_ref()).max_by_key(|tried| tried.at)
    }

    /// When the next login of our own with the applied version is due, if one is.
    pub fn next_own_login(&self) -> Option<Timestamp> {
        let applied = self.applied.as_ref()?;
        let all = self.targets.values().filter_map(|t| t.own_login.as_ref()).filter(|own| own.id == applied.id);
        all.filter(|own| own.is_wanted()).filter_map(|own| own.next).min()
    }
}

impl OwnLogin {
    fn of(id: &VersionId) -> Self {
        Self { id: id.clone(), hinted: false, tries: 0, next: None, refused: Vec::new(), last: None }
    }

    /// Is there anything to prove? What the mail log tells, or that a refusal was not the only one, or is over.
    fn is_wanted(&self) -> bool {
        self.hinted || !self.refused.is_empty()
    }

    /// Takes in what one came to. `unit`: the time between two tries of a login that is not taken yet.
    fn tried(&mut self, tried: Tried, unit: SignedDuration) {
        let now = tried.at;
        if self.last.as_ref().is_some_and(|last| now.duration_since(last.at) > LONGEST_WAIT) {
            self.tries = 0;
        }
        match &tried.result {
            OwnResult::Accepted => self.refused.clear(),
            OwnResult::Refused { .. } => {
                self.refused.truncate(PROVED - 1);
                self.refused.push(now);
            }
            OwnResult::Unknown { .. } | OwnResult::NotGiven { .. } => {}
        }
        let gap = match (&tried.result, self.refused.len()) {
            (OwnResult::Refused { .. }, 1) => SECOND_LOGIN,
            _ => LOGIN_GAP.saturating_mul(1 << self.tries.min(4)).min(LONGEST_LOGIN_GAP),
        };
        self.next = now.checked_add(unit.saturating_mul(gap)).ok();
        self.tries = self.tries.saturating_add(1);
        self.hinted = false;
        self.last = Some(tried);
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct FirstRefused {
    #[serde(flatten)]
    pub id: VersionId,
    pub since: Timestamp,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Owed {
    pub since: Timestamp,
    #[serde(deserialize_with = "text::on_one_line")]
    pub why: String,
}

/// Attempts at something that failed, and when it is due again. Persists, so that a restart does not hammer.
#[derive(Debug, Clone, PartialEq, Hash, Default, Serialize, Deserialize)]
pub struct Retry {
    pub attempts: u32,
    pub next: Option<Timestamp>,
    pub failure: Option<Failure>,
}

/// One report document, schema `relaykey/report/v1` (DESIGN.md, "Report document").
#[derive(Debug, Clone, PartialEq, Hash, Serialize, Deserialize)]
pub struct Report {
    pub schema: String,
    pub id: String,
    pub seq: u64,
    pub host_id: String,
    pub host: String,
    pub credential: String,
    pub source: String,
    pub version: String,
    pub username: String,
    pub previous_username: Option<String>,
    /// RFC 3339, Z, seconds.
    pub at: String,
    pub mode: String,
    pub agent: String,
    pub outcome: String,
    pub targets: Vec<ReportTarget>,
    pub error: Option<ReportError>,
    /// With `pending-approval`: what the version waits for, and what a person does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waiting: Option<Waiting>,
    /// Whether every mail server of this credential was seen running when this was made; `None`: not looked at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mail_server: Option<MailServer>,
    /// The user names that the mail servers of this credential were found to log in with when they were last looked up, each
    /// once; empty: they have no login. Not in a confirmation, which is made of what was read back; `None`: not every one was
    /// looked at yet, or one is owed a reload.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub in_use: Option<Vec<String>>,
    /// Beside `in_use`: the version that was found, where it is one that this host confirmed or put in place. A key may be the
    /// same in two versions, with two passwords.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version_in_use: Option<String>,
    /// Beside `in_use`: a mail server was found to use what this host neither confirmed nor put there.
    #[serde(default, skip_serializing_if = "is_false")]
    pub another_login: bool,
    /// User names whose login a run that was killed put into the text of a table and not into the map that the mail server
    /// reads, each once: whoever compiles it puts them into use.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub half_done: Vec<String>,
    /// With `failed`: it is about the version that was confirmed here, which the mail server does not hold any more and which
    /// could not be put back.
    #[serde(default, skip_serializing_if = "is_false")]
    pub of_applied: bool,
    pub approved_by: Option<String>,
    /// What this one replaces and what stands all the same, so that a place that holds one document per host still has the
    /// evidence and the proof: the last confirmation, unless it was withdrawn; of `alive` the last report that says
    /// something else. Not in a confirmation itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latest: Option<Box<Report>>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks so")]
fn is_false(value: &bool) -> bool {
    !*value
}

impl Report {
    /// What the proof of one of its targets is made over: whoever makes one and whoever checks one asks here.
    pub fn proof_fields(&self, target: &str, region: Option<&str>) -> ProofFields {
        ProofFields {
            host_id: self.host_id.clone(),
            host: self.host.clone(),
            credential: self.credential.clone(),
            version: self.version.clone(),
            username: self.username.clone(),
            target: target.to_owned(),
            region: region.unwrap_or_default().to_owned(),
            outcome: self.outcome.clone(),
            seq: self.seq,
            at: self.at.clone(),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Hash, Serialize, Deserialize)]
pub struct ReportTarget {
    pub name: String,
    pub kind: String,
    pub map: String,
    pub keys: Vec<String>,
    /// How it was read back.
    pub read_back: String,
    pub remaining_old: Vec<String>,
    pub region: Option<String>,
    pub evidence: Evidence,
    pub proof: Option<String>,
    /// Why there is no proof.
    pub no_proof: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ReportError {
    pub class: Class,
    /// What is wrong and what to do, in one sentence: all that 0.1.0 has.
    #[serde(deserialize_with = "text::on_one_line")]
    pub words: String,
    /// What is wrong, and what to do, apart; `None` where there is nothing to be told apart.
    #[serde(default, deserialize_with = "text::on_one_line", skip_serializing_if = "Option::is_none")]
    pub what: Option<String>,
    #[serde(default, deserialize_with = "text::on_one_line", skip_serializing_if = "Option::is_none")]
    pub fix: Option<String>,
}

impl ReportError {
    /// Words alone.
    pub fn new(class: Class, words: String) -> Self {
        Self { class, words, what: None, fix: None }
    }

    /// Something that stands in the way.
    fn of(failure: &Failure) -> Self {
        let words = format!("{}. To do: {}", failure.what, failure.fix);
        let (what, fix) = (Some(failure.what.clone()), Some(failure.fix.clone()));
        Self { class: failure.class, words, what, fix }
    }
}

/// What a version waits for that a person decides about, or puts in place: facts, of which each receiver makes its own
/// sentence.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct Waiting {
    /// When it goes into use by itself; `None`: it does not.
    pub opens: Option<Timestamp>,
    /// The setting that says so: `Sat 02:00-04:00`, in this host's local time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub window: Option<String>,
    /// Does it go into use at once where the mail relay refuses the key in use?
    pub if_applied_dies: bool,
    /// What a person does who makes the change by hand, in this order. `***` stands for the password.
    pub steps: Vec<Instruction>,
    /// How what is there differs from what is wanted, one to a line.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub differences: Vec<String>,
}

/// What an accepted login proved.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Evidence {
    pub endpoint: String,
    /// The server's words.
    #[serde(deserialize_with = "text::on_one_line")]
    pub reply: String,
    /// RFC 3339, Z, seconds; of 0.1.0 it comes with nanoseconds.
    #[serde(serialize_with = "in_seconds")]
    pub at: Timestamp,
}

fn in_seconds<S: serde::Serializer>(at: &Timestamp, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(&rfc3339(*at))
}

// ---------------------------------------------------------------- facts

/// Everything a decision looks at.
#[derive(Debug, Clone, Hash)]
pub struct Facts {
    pub state: State,
    pub wake: Wake,
    /// The source's answer in this wake.
    pub fetched: Option<Found>,
    /// Time has passed since the source gave that: it is asked again before anything is built on it.
    stale: bool,
    pub targets: Vec<TargetFacts>,
    /// The stamp of the confirmation that is being made.
    pub stamp: Option<Stamp>,
    pub committed: Option<Completion>,
    /// What is to be told beyond the confirmation, in this order; whoever drives the machine takes it from here.
    pub news: Vec<News>,
    /// What was put in place and never confirmed, and is not the source's version any more, each once: for the audit log;
    /// whoever drives the machine takes it from here.
    pub superseded: Vec<Superseded>,
    /// Something was told in this wake.
    spoke: bool,
    /// A person's order that needs nothing else, such as a rejection, was carried out.
    ordered: bool,
    /// [`conclude`] was called.
    concluded: bool,
    /// The version that waited for approval when this wake began.
    waited: Option<VersionId>,
    /// The version that was shown as the candidate when this wake began, whatever had become of it.
    shown: Option<VersionId>,
    /// What the state says of it when this wake begins: who is told in this wake has not had time to look.
    told_apart: Option<VersionId>,
    /// A decision that needs a person; shown, and the end of this wake.
    blocked: Option<Failure>,
    /// The applied version is being put back; what the source gives waits here meanwhile.
    aside: Option<Aside>,
    /// The targets in which the applied version was put back in this wake without a confirmation, because of another target.
    pub put_back: Vec<String>,
    /// The targets that a person changes.
    by_hand: Vec<String>,
    /// The steps that are under way, at most one about each target.
    under_way: Vec<UnderWay>,
    steps: u64,
}

/// What the source gives, and what was found out about it, while the version before it is put back: it goes on afterwards.
#[derive(Debug, Clone, Hash)]
struct Aside {
    offered: Found,
    blocked: Option<Failure>,
    /// By target.
    targets: Vec<TargetFacts>,
}

/// A step that was begun and has not ended.
#[derive(Debug, Clone, Hash)]
struct UnderWay {
    id: StepId,
    step: Step,
    /// The targets that wait for its outcome; none: all do, because it is about none of them.
    targets: Vec<usize>,
}

/// What woke the machine, as far as it matters to the decision.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Wake {
    /// `sync --accept-version`.
    pub accept_version: Option<String>,
    /// `sync --dry-run`: preview instead of prepare.
    pub dry_run: bool,
    /// `check`: what a run would do, what it would put back included. Nothing is written.
    pub foresees: bool,
    /// `approve`.
    pub approve: Option<Approve>,
    /// `reject`.
    pub reject: Option<Reject>,
    /// `confirm`: nothing is written; what is there is read back, and confirmed if it is right.
    pub confirm: bool,
    /// `confirm --code`: the nonce, which may be empty.
    pub code: Option<String>,
    /// `deregister`.
    pub leave: bool,
    /// The mail log tells that the login in use is refused. Anybody may write to it: a hint, which a login of our own has to
    /// prove.
    pub log_hint: bool,
    /// A person asks.
    pub asked: bool,
    /// The first look of a program that has just started.
    pub at_start: bool,
}

/// `relaykey approve`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Approve {
    /// `--version`; without it the version that waited when the wake began.
    pub version: Option<String>,
    /// The operator, as the kernel says it.
    pub by: String,
}

/// `relaykey reject`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Reject {
    /// `--version`; without it the version that waits.
    pub version: Option<String>,
    pub reason: String,
    /// The operator, as the kernel says it.
    pub by: String,
}

/// Something to tell beyond a confirmation: a report without evidence.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct News {
    /// Of the report document: `failed`, `pending-approval`, `rejected`, `withdrawn`, `alive`, `left`.
    pub outcome: &'static str,
    pub seq: u64,
    /// RFC 3339, Z, seconds.
    pub at: String,
    pub version: String,
    pub username: String,
    pub previous_username: Option<String>,
    /// What was last looked up; `None`: not every mail server was.
    pub in_use: Option<Vec<String>>,
    /// Which version that is, where it is known.
    pub version_in_use: Option<String>,
    /// A failure to put back what was confirmed.
    pub of_applied: bool,
    pub error: Option<ReportError>,
    pub waiting: Option<Waiting>,
}

/// A version that the source gave, without its secret.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Found {
    pub identity: SourceIdentity,
    pub id: VersionId,
    pub username: String,
    /// When the source said so.
    pub at: Timestamp,
}

/// A version that was put in place, and in whose place another one has come before it was confirmed.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Superseded {
    pub begun: Begun,
    /// The version that has come.
    pub by: VersionId,
    /// The targets that hold it.
    pub targets: Vec<String>,
    /// Are these all of them?
    pub everywhere: bool,
    /// Who had let it go, where that is known.
    pub approved_by: Option<String>,
}

/// One target in this wake.
#[derive(Debug, Clone, Hash, Default)]
pub struct TargetFacts {
    pub name: String,
    pub inspected: Option<Inspection>,
    pub evidence: Option<Evidence>,
    /// A message went out over the candidate's login, in this wake or not long before it.
    pub probed: bool,
    pub prepared: Option<Staged>,
    pub swapped: bool,
    pub activated: bool,
    pub read_back: Option<ReadBack>,
    /// After a swap, the live files did not read back as the candidate.
    pub must_undo: Option<Failure>,
    /// What the files hold is not known any more: it is looked up at once, although the rest waits.
    pub must_look: bool,
    /// Staged, and then something stood in the way: the staged files go.
    pub must_discard: bool,
    pub previewed: Option<Change>,
    /// The live id of the login that a preview was made of.
    wanted: Option<String>,
    /// Failed in this wake; left alone until its retry is due, then looked at anew.
    pub failed: bool,
    /// It was looked at because this program has started, and waits because of what failed before that.
    before_its_time: bool,
    /// A reload that is owed was tried since it was looked at.
    reload_tried: bool,
}

impl TargetFacts {
    /// Was nothing staged or swapped in here in this wake?
    fn is_untouched(&self) -> bool {
        !self.swapped && self.prepared.is_none()
    }
}

/// What `Inspect` found, as far as decisions need it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Inspection {
    /// The one live id under every key of ours, in text and compiled map; `None`: none, or they differ.
    pub live_id: Option<String>,
    /// The user name under the first live key, for comparisons alone: it may be one that is not to be shown.
    pub username: Option<String>,
    /// The live id under the first live key.
    pub first_live_id: Option<String>,
    /// The one live id that the mail server gives under every live key, whatever the text says that its map was compiled
    /// from; `None`: none, or they differ.
    pub in_use: Option<String>,
    /// The user names under the live keys, each once, as they may be shown.
    pub usernames: Vec<String>,
    pub reload_owed: Option<Owed>,
    /// The confirmed login is in place, what is there was changed by somebody else since it was read, and nothing may reload
    /// the mail server.
    pub unread: Option<Owed>,
    /// A version swapped in by a run that was killed before its commit.
    pub swapped: Option<Swapped>,
    pub mail_server: Option<MailServer>,
}

/// A version that is in place and not committed, as the journal of the mail server's side knows it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Swapped {
    pub id: VersionId,
    /// `None`: the journal does not say of which source it was.
    pub source: Option<SourceIdentity>,
    /// `None`: the journal does not say.
    pub username: Option<String>,
    /// Live id of its login.
    pub live_id: String,
}

impl Swapped {
    /// Is it this very version? A source that was made anew counts from 1 again; and what does not say where it came from
    /// is not taken for anything that somebody let go.
    fn is(&self, found: &Found) -> bool {
        self.id == found.id && self.source.as_ref() == Some(&found.identity)
    }
}

impl Inspection {
    /// Was this very version put in place by a run that was killed?
    fn has_in_place(&self, version: &Found) -> bool {
        self.swapped.as_ref().is_some_and(|swapped| swapped.is(version))
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Staged {
    pub nothing_to_write: bool,
    pub swapped_before: bool,
    pub live_id: String,
    /// The keys of other relays that go into effect with it, as only the text has them, for people.
    pub goes_live: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ReadBack {
    pub kind: String,
    pub map: String,
    pub keys: Vec<String>,
    pub how: String,
    pub remaining_old: Vec<String>,
    pub live_id: Option<String>,
    pub proof: Result<String, String>,
    /// The code that a person may type instead of sending the report, or why there is none; `None`: not asked for.
    pub code: Option<Result<String, String>>,
}

/// What the proofs of one confirmation are made over, besides the target.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Stamp {
    pub seq: u64,
    /// RFC 3339, Z, seconds.
    pub at: String,
    pub outcome: Completion,
}

impl Facts {
    /// `ignore_backoff`: a person asked, so persisted waits do not hold (their counts do).
    pub fn new(mut state: State, policy: &Policy, wake: Wake, ignore_backoff: bool) -> Self {
        if ignore_backoff {
            (state.source_retry.next, state.put_back.next) = (None, None);
            state.targets.values_mut().for_each(|t| t.retry.next = None);
            if let Some(held) = state.candidate.as_mut().and_then(|c| c.held.as_mut()) {
                held.next = None;
            }
        }
        if wake.at_start {
            state.look_again_soon();
        }
        let is_configured = |name: &String| policy.targets.iter().any(|t| t.name == *name);
        for (_, gone) in state.targets.extract_if(.., |name, _| !is_configured(name)) {
            state.begun_elsewhere.extend(gone.begun);
        }
        state.begun_elsewhere.drain(..state.begun_elsewhere.len().saturating_sub(BEGUN));
        for target in &policy.targets {
            state.targets.entry(target.name.clone()).or_default();
        }
        if wake.log_hint {
            hint(&mut state, policy);
        }
        if wake.asked {
            let only_looks_or_leaves = wake.confirm || wake.leave || wake.reject.is_some();
            for target in state.targets.values_mut() {
                target.overtaken.clear();
                // Whoever asks has made the other writer stop, or wants to see.
                if !only_looks_or_leaves {
                    target.heals.clear();
                }
                if let Some(own) = &mut target.own_login {
                    own.next = None;
                }
            }
        }
        let targets =
            policy.targets.iter().map(|t| TargetFacts { name: t.name.clone(), ..TargetFacts::default() }).collect();
        let waited = state.candidate.as_ref().filter(|c| c.held.is_some()).map(|c| c.id.clone());
        let shown = state.candidate.as_ref().map(|c| c.id.clone());
        let told_apart = state.told_apart.clone();
        Self {
            state,
            wake,
            fetched: None,
            stale: false,
            targets,
            stamp: None,
            committed: None,
            news: Vec::new(),
            superseded: Vec::new(),
            spoke: false,
            ordered: false,
            concluded: false,
            waited,
            shown,
            told_apart,
            blocked: None,
            aside: None,
            put_back: Vec::new(),
            by_hand: policy.targets.iter().filter(|t| !t.write).map(|t| t.name.clone()).collect(),
            under_way: Vec::new(),
            steps: 0,
        }
    }

    /// Every failure that stands, worst first: what status shows and the exit code is made of.
    pub fn failures(&self) -> Vec<(Option<&str>, &Failure)> {
        let mut all: Vec<(Option<&str>, &Failure)> = Vec::new();
        all.extend(self.blocked.as_ref().map(|f| (None, f)));
        all.extend(self.state.source_retry.failure.as_ref().map(|f| (None, f)));
        for t in &self.targets {
            // What was met before this wake, and not met again, is history.
            let stands = t.failed || t.inspected.is_none();
            let failure = self.state.targets.get(&t.name).and_then(|s| s.retry.failure.as_ref());
            all.extend(failure.filter(|_| stands).map(|f| (Some(t.name.as_str()), f)));
        }
        // Beside a rejected version, the target says it.
        let not_put_back = self.state.put_back.failure.as_ref().filter(|_| rejection_of_found(self).is_none());
        let away = not_put_back.and_then(|f| Some((f, self.gone()?)));
        all.extend(away.map(|(f, index)| (Some(self.targets[index].name.as_str()), f)));
        all.sort_by_key(|(_, f)| f.temporary);
        all
    }

    /// The target that a failure to put back what was confirmed is about: one that holds something else, before one in which it
    /// was put back.
    fn gone(&self) -> Option<usize> {
        let is_back = |t: &TargetFacts| t.inspected.as_ref().is_some_and(|seen| self.is_of_applied(seen));
        let gone = || (0..self.targets.len()).filter(|&i| self.is_gone(&self.targets[i]));
        gone().find(|&i| !is_back(&self.targets[i])).or_else(|| gone().next())
    }

    /// Is the applied version not in this target any more, or only as a run left it that was killed while it put it back, and does
    /// the source give another one?
    fn is_gone(&self, t: &TargetFacts) -> bool {
        let expected = self.state.targets.get(&t.name).and_then(|s| s.live_id.as_ref());
        let is_other =
            |i: &Inspection| expected.is_some() && i.in_use.as_ref() != expected && self.begun_in_use(t).is_none();
        !is_in_use(self) && t.inspected.as_ref().is_some_and(|i| is_other(i) || self.is_of_applied(i))
    }

    /// Was the applied version put back here by a run that was killed before it confirmed it?
    fn is_of_applied(&self, inspected: &Inspection) -> bool {
        let applied = self.state.applied.as_ref().map(|applied| (&applied.id, self.state.source.as_ref()));
        inspected.swapped.as_ref().is_some_and(|s| Some((&s.id, s.source.as_ref())) == applied)
    }

    /// Is a target in between: swapped in and not read back, or to be put right? Then a run is not to end.
    pub fn is_torn(&self) -> bool {
        self.targets
            .iter()
            .any(|t| t.must_undo.is_some() || t.must_discard || t.swapped && !t.failed && t.read_back.is_none())
    }

    /// The user name that the candidate takes over from: of the applied version, or, without state, of what was found.
    pub fn previous_username(&self) -> Option<String> {
        let new = self.fetched.as_ref().map(|f| &f.username);
        // Of what was put in its place and never confirmed nobody has heard; of what was found first nobody else will tell.
        let first = self.state.found_first.as_ref().filter(|first| self.state.applied.is_none() && Some(*first) != new);
        if let Some(first) = first {
            return Some(first.clone());
        }
        if let Some(begun) = self.taken_over_from().filter(|begun| Some(&begun.username) != new) {
            return Some(begun.username.clone());
        }
        match &self.state.applied {
            Some(applied) if Some(&applied.username) != new => Some(applied.username.clone()),
            Some(applied) => applied.previous_username.clone(),
            None => {
                let found = self.targets.iter().find_map(|t| t.inspected.as_ref()?.username.clone());
                found.filter(|username| Some(username) != new && shown(username, false).is_some())
            }
        }
    }

    /// The endpoint has taken the login of this version: what stands in the user name's place is one, and may be shown.
    pub fn logged_in_as(&mut self, id: &VersionId, username: &str) {
        let found = self.fetched.as_mut().filter(|found| found.id == *id).map(|found| &mut found.username);
        let candidate = self.state.candidate.as_mut().filter(|c| c.id == *id).map(|c| &mut c.username);
        found.into_iter().chain(candidate).for_each(|name| username.clone_into(name));
    }

    /// A user name that was found in a mail server's table, as it may be shown and stored: one that this host does not know
    /// may be a secret in the wrong place.
    pub fn shown(&self, username: &str) -> String {
        let is_fetched = self.fetched.as_ref().is_some_and(|found| found.username == username);
        shown_or_said(username, is_fetched || self.state.usernames().any(|known| known == username)).to_owned()
    }

    /// What the source gives takes over from this one, which this host put in place and never confirmed: it was in use when
    /// it was looked up in this wake, or was until a run put the source's version there, and was killed in turn.
    fn taken_over_from(&self) -> Option<&Begun> {
        let of_target = |t: &TargetFacts| {
            let in_use = self.begun_in_use(t)?;
            match self.is_other(in_use) {
                true => Some(in_use),
                false => self
                    .state
                    .targets
                    .get(&t.name)?
                    .begun
                    .iter()
                    .rfind(|begun| self.is_other(begun) && begun.used && !begun.gone),
            }
        };
        self.targets.iter().find_map(of_target)
    }

    /// Is it another version than the one that the source gives?
    fn is_other(&self, begun: &Begun) -> bool {
        self.fetched.as_ref().is_some_and(|found| !begun.is(found))
    }

    /// The version that was found in use in this wake, where this host put it there and never confirmed it.
    fn begun_in_use(&self, t: &TargetFacts) -> Option<&Begun> {
        self.state.targets.get(&t.name)?.has_begun(t.inspected.as_ref()?.in_use.as_ref()?)
    }

    /// The one version that the mail servers were last found to use, where it is one that this host put there or confirmed.
    pub fn version_in_use(&self) -> Option<String> {
        let of_target = |t: &TargetFacts| {
            let state = self.state.targets.get(&t.name)?;
            let live_id = state.in_use.as_ref()?.live_id.as_ref()?;
            match (&self.state.applied, state.has_begun(live_id)) {
                (Some(applied), _) if state.live_id.as_ref() == Some(live_id) => Some(&applied.id.version),
                (_, Some(begun)) => Some(&begun.id.version),
                _ => None,
            }
        };
        let mut all = self.targets.iter().map(of_target);
        let first = all.next()??;
        all.all(|other| other == Some(first)).then(|| first.clone())
    }

    /// The user names that the mail servers were last found to use, each once; `None`: not every one was looked at yet, or one
    /// may not have read what is in its files, because a reload is owed.
    pub fn in_use(&self) -> Option<Vec<String>> {
        if self.state.targets.values().any(|t| t.reload_owed.is_some()) {
            return None;
        }
        let found = self.targets.iter().map(|t| self.state.targets.get(&t.name)?.in_use.as_ref());
        let mut all: Vec<String> = Vec::new();
        for username in found.collect::<Option<Vec<_>>>()?.iter().flat_map(|found| &found.usernames) {
            if !all.contains(username) {
                all.push(username.clone());
            }
        }
        Some(all)
    }

    /// Do the mail servers of all targets run, as far as they were looked at?
    pub fn mail_server(&self) -> Option<MailServer> {
        let state = |t: &TargetFacts| self.state.targets.get(&t.name).and_then(|s| s.mail_server);
        let all: Vec<Option<MailServer>> = self.targets.iter().map(state).collect();
        match all.contains(&Some(MailServer::Stopped)) {
            true => Some(MailServer::Stopped),
            false => all.iter().all(Option::is_some).then_some(MailServer::Runs),
        }
    }

    /// What a failure of this run is about: the version that the source gave. Where it gave none, the failure is the
    /// source's, or this host's, and no version's; least of all that of the version in use.
    pub fn of_a_version(&self) -> bool {
        self.fetched.is_some()
    }

    /// The rejection that stands against a version.
    pub fn rejection(&self, id: &VersionId) -> Option<&Rejected> {
        self.state.rejected.iter().find(|r| r.id == *id)
    }

    /// Who let the version go that is being put in place.
    pub fn approved_by(&self) -> Option<String> {
        let candidate = self.state.candidate.as_ref()?;
        let same = self.fetched.as_ref().is_some_and(|found| found.id == candidate.id);
        candidate.approval.as_ref().filter(|_| same).map(|a| a.by.clone())
    }

    /// Does the candidate wait for a person, to approve it or to change a target by hand?
    fn is_held(&self) -> bool {
        let held = |c: &Candidate| c.held.is_some() && self.rejection(&c.id).is_none();
        self.state.candidate.as_ref().is_some_and(held)
    }

    /// Is it a person's turn: to decide, or to change a target by hand?
    pub fn waits_for_a_person(&self, policy: &Policy) -> bool {
        self.is_held() || self.failures().iter().any(|(target, f)| self.is_for_a_person(policy, *target, f))
    }

    /// Does this failure end when a person acts, and not before? A change that waits to be made by hand; and what somebody
    /// else put into a target that a person changes, where nothing has failed: relaykey was told to leave it alone.
    pub fn is_for_a_person(&self, policy: &Policy, target: Option<&str>, failure: &Failure) -> bool {
        let index = target.and_then(|name| policy.targets.iter().position(|t| t.name == name));
        failure.class == Class::ByHand
            || failure.class == Class::Drift && index.is_some_and(|i| is_by_hand(self, policy, i))
    }

    /// Is what was confirmed being put back, beside another version that the source gives?
    pub fn puts_back(&self) -> bool {
        self.aside.is_some()
    }

    /// What a target would be found to hold once the applied version was put back there.
    pub fn with_applied(&self, target: usize, found: Inspection) -> Inspection {
        let live_id = self.state.targets.get(&self.targets[target].name).and_then(|s| s.live_id.clone());
        let username = self.state.applied.as_ref().map(|applied| applied.username.clone());
        Inspection {
            first_live_id: live_id.clone(),
            in_use: live_id.clone(),
            live_id,
            usernames: username.clone().into_iter().collect(),
            username,
            swapped: None,
            ..found
        }
    }

    /// Of an order that needs nothing else (`reject`, `deregister`): was it carried out? `None`: this wake has none.
    pub fn carried_out(&self) -> Option<bool> {
        let has = self.wake.leave || self.wake.reject.is_some();
        has.then(|| self.ordered && self.blocked.is_none())
    }

    /// The steps that were begun and have not ended.
    pub fn under_way(&self) -> impl Iterator<Item = &Step> {
        self.under_way.iter().map(|under_way| &under_way.step)
    }

    /// Is a step under way that this target has to wait for?
    fn is_busy(&self, index: usize) -> bool {
        self.under_way.iter().any(|under_way| under_way.targets.contains(&index))
    }

    fn target_state(&mut self, index: usize) -> &mut TargetState {
        self.state.targets.entry(self.targets[index].name.clone()).or_default()
    }
}

/// What the configuration says, as far as decisions need it.
#[derive(Debug, Clone)]
pub struct Policy {
    pub targets: Vec<TargetPolicy>,
    /// A file is authoritative as it is; AWS sources have an order.
    pub ordered: bool,
    pub mode: Mode,
    /// In which a window's hours are meant.
    pub zone: TimeZone,
    /// A candidate must be able to send a message before it is put in place.
    pub probe: bool,
    /// Can the source still give a version when it has a newer one? A file cannot.
    pub gives_older: bool,
}

#[derive(Debug, Clone)]
pub struct TargetPolicy {
    pub name: String,
    pub drift: Drift,
    /// False: a person changes it.
    pub write: bool,
    pub endpoint: String,
    pub propagation: SignedDuration,
    pub retry: SignedDuration,
    /// The first target that logs in at the same place with the same login: one AUTH serves all of them.
    pub logs_in_as: usize,
}

impl Policy {
    /// `zone`: this host's local time.
    pub fn new(credential: &config::Credential, zone: TimeZone) -> Self {
        let signed = |d: Duration| SignedDuration::try_from(d).unwrap_or(SignedDuration::MAX);
        let targets: Vec<_> = credential
            .targets
            .iter()
            .map(|t| TargetPolicy {
                name: t.name.clone(),
                drift: t.drift,
                write: t.write,
                endpoint: t.smtp.endpoint.clone(),
                propagation: signed(t.smtp.propagation),
                retry: signed(t.smtp.retry),
                logs_in_as: credential.targets.iter().position(|o| o.smtp == t.smtp).unwrap_or(0),
            })
            .collect();
        Self {
            targets,
            ordered: !matches!(credential.source, config::Source::File { .. }),
            mode: credential.mode.clone(),
            zone,
            probe: credential.probe.is_some(),
            gives_older: credential.source.gives_older(),
        }
    }
}

// ---------------------------------------------------------------- steps

/// Numbers a step within one wake, so that a late outcome is told from the awaited one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct StepId(u64);

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
        match self {
            Step::Inspect { .. } => "inspect",
            Step::Fetch => "fetch",
            Step::FetchApplied => "fetch-applied",
            Step::Verify { .. } => "verify",
            Step::VerifyApplied { .. } => "verify-applied",
            Step::Probe { .. } => "probe",
            Step::Hold => "hold",
            Step::Release { .. } => "release",
            Step::Reject => "reject",
            Step::Leave => "leave",
            Step::Preview { .. } => "preview",
            Step::Prepare { .. } => "prepare",
            Step::Swap { .. } => "swap",
            Step::Activate { .. } => "activate",
            Step::ReadBack { .. } => "read-back",
            Step::Undo { .. } => "undo",
            Step::Discard { .. } => "discard",
            Step::Refrain { .. } => "refrain",
            Step::Commit { .. } => "commit",
            Step::Wait { .. } => "wait",
            Step::Await => "await",
            Step::End => "end",
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
    Fetched(Found),
    Accepted(Evidence),
    /// 535, with the server's words.
    Refused {
        reply: String,
    },
    /// Of `VerifyApplied`: the source does not give the applied version any more.
    NotGiven(Failure),
    Probed,
    /// Also the live id of the login that it is about.
    Previewed(Change, String),
    Prepared(Staged),
    /// Of `Prepare`: nothing is staged, a person is to make this change; and the live id of the login that it is about.
    ByHand(Change, String),
    Swapped,
    Activated,
    /// Files right, reload not done: remembered.
    ReloadOwed(Failure),
    ReadBack(ReadBack),
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

/// Gives a decided step its number; from then on its outcome counts, and that of no earlier step about the same target.
pub fn begin(facts: &mut Facts, policy: &Policy, step: &Step) -> StepId {
    facts.steps += 1;
    let id = StepId(facts.steps);
    let targets = match step {
        Step::Verify { target } | Step::Probe { target } => same_place(policy, *target),
        step => step.target().into_iter().collect(),
    };
    if let Step::ReadBack { stamp, .. } = step {
        facts.stamp = Some(stamp.clone());
    }
    facts.under_way.retain(|before| before.step.target() != step.target());
    facts.under_way.push(UnderWay { id, step: step.clone(), targets });
    id
}

/// How the source's version stands to what this host has.
#[derive(Debug, PartialEq, Eq)]
enum Standing {
    Applied,
    Take,
    /// Not newer: a second read must agree, due then.
    AgreeAt(Timestamp),
    LeftBehind,
    Rejected,
    NotTheNamedOne,
}

impl State {
    /// Was another version of this number seen here before?
    fn has_namesake(&self, id: &VersionId) -> bool {
        let known = self.seen.iter().chain(&self.left_behind).chain(self.rejected.iter().map(|r| &r.id));
        let now = self.applied.iter().map(|a| &a.id).chain(self.candidate.iter().map(|c| &c.id));
        known.chain(now).any(|seen| seen.version == id.version && seen != id)
    }

    /// Takes down that a version is shown to people as the candidate from now on.
    fn shows(&mut self, candidate: Candidate) {
        // A person may put it in place by hand, also after it was refused or another one came.
        let username = Some(&candidate.username).filter(|name| is_access_key_id(name) && !self.earlier.contains(name));
        remember(&mut self.earlier, username.cloned());
        let before = self.candidate.replace(candidate.clone()).map(|before| before.id);
        for id in before.into_iter().chain([candidate.id]).filter(|id| id.order.is_some()) {
            self.seen.retain(|seen| *seen != id);
            self.seen.push(id);
        }
        let surplus = self.seen.len().saturating_sub(SEEN);
        self.seen.drain(..surplus);
    }
}

/// May who names this version's number mean another one? Not after they were told, and named it once more.
fn is_ambiguous(facts: &Facts, id: &VersionId) -> bool {
    !facts.wake.dry_run && facts.told_apart.as_ref() != Some(id) && facts.state.has_namesake(id)
}

/// What is said of a version that was named by a number which was another one's before.
fn ambiguous(version: &str, username: &str, not_done: &str) -> String {
    format!(
        "the source was made anew, and its version {version} ({username}) is another one than the version {version} that this host \
         has seen before: {not_done}"
    )
}

/// Did a person name this very version, where it counts?
fn named(facts: &Facts, found: &Found, policy: &Policy) -> bool {
    let is_it = |named: Option<&String>| named == Some(&found.id.version) && !is_ambiguous(facts, &found.id);
    let approved = is_it(facts.wake.approve.as_ref().and_then(|a| a.version.as_ref()));
    is_it(facts.wake.accept_version.as_ref()) || approved && is_approvable(facts, found, policy)
}

/// Is there anything to approve in this version? What was rejected may be approved in any mode.
fn is_approvable(facts: &Facts, found: &Found, policy: &Policy) -> bool {
    policy.mode != Mode::Automatic || facts.rejection(&found.id).is_some()
}

fn standing(facts: &Facts, found: &Found, policy: &Policy) -> Standing {
    let state = &facts.state;
    if facts.wake.accept_version.as_ref().is_some_and(|named| *named != found.id.version) {
        return Standing::NotTheNamedOne;
    }
    let named = named(facts, found, policy);
    let accepted = named || state.candidate.as_ref().is_some_and(|c| c.accepted && c.id == found.id);
    let is_applied = state.applied.as_ref().is_some_and(|applied| applied.id == found.id);
    if facts.rejection(&found.id).is_some() && !is_applied && !named {
        return Standing::Rejected;
    }
    let same_source = state.source.as_ref().is_none_or(|s| *s == found.identity);
    let Some(applied) = &state.applied else { return Standing::Take };
    if !same_source || accepted && applied.id != found.id {
        return Standing::Take;
    }
    if applied.id == found.id {
        return Standing::Applied;
    }
    if !policy.ordered {
        return Standing::Take;
    }
    if state.left_behind.contains(&found.id) {
        return Standing::LeftBehind;
    }
    if found.id.order > applied.id.order {
        return Standing::Take;
    }
    match &state.candidate {
        Some(c) if c.id == found.id => {
            let due = c.first_seen.saturating_add(SECOND_READ).unwrap_or(Timestamp::MAX);
            if found.at >= due { Standing::Take } else { Standing::AgreeAt(due) }
        }
        _ => Standing::AgreeAt(found.at.saturating_add(SECOND_READ).unwrap_or(Timestamp::MAX)),
    }
}

/// May the candidate be put in place?
#[derive(Debug, PartialEq, Eq)]
enum Permission {
    /// By itself, or somebody has let it go.
    Given,
    /// A setting lets it go now.
    Give { by: String, until: Option<Timestamp> },
    /// Not before somebody approves it, or the window opens.
    Held { opens: Option<Timestamp> },
}

fn permission(facts: &Facts, policy: &Policy, now: Timestamp) -> Permission {
    let Mode::Manual { window, if_applied_dies } = &policy.mode else { return Permission::Given };
    // What was begun goes on, whatever hour it has become: a host in between is worse than either.
    let begun = facts.fetched.as_ref().is_some_and(|found| is_begun(facts, found));
    let staged = |t: &TargetFacts| t.prepared.as_ref().is_some_and(|p| !p.nothing_to_write);
    let approval = facts.state.candidate.as_ref().and_then(|c| c.approval.as_ref());
    if begun || facts.targets.iter().any(staged) || approval.is_some_and(|a| a.holds(now)) {
        return Permission::Given;
    }
    if *if_applied_dies == IfAppliedDies::Apply
        && (0..facts.targets.len()).any(|i| uses_applied(facts, i))
        && let Some(by) = facts.state.applied_refused().and_then(|own| died(&facts.state, own))
    {
        return Permission::Give { by, until: None };
    }
    match window.as_ref().map(|window| (window, window.opening(now, &policy.zone))) {
        Some((window, Opening::Open { until })) => {
            Permission::Give { by: format!("apply = \"{window}\""), until: Some(until) }
        }
        Some((_, Opening::At(opens))) => Permission::Held { opens: Some(opens) },
        None => Permission::Held { opens: None },
    }
}

/// Which setting lets a held version go where the applied one is refused, and by what that was proved.
fn died(state: &State, own: &OwnLogin) -> Option<String> {
    let (applied, last) = (state.applied.as_ref()?, own.last.as_ref()?);
    let (first, latest) = (own.refused.first()?, own.refused.last()?);
    Some(format!(
        "if_applied_dies = \"apply\": {} refused two logins of our own with {}, at {} and {}",
        last.endpoint,
        applied.username,
        rfc3339(*first),
        rfc3339(*latest)
    ))
}

/// The mail log tells that the login in use is refused: that is to be proved.
fn hint(state: &mut State, policy: &Policy) {
    let Some(applied) = state.applied.as_ref().map(|a| a.id.clone()) else { return };
    for target in policy.targets.iter().enumerate().filter(|(i, t)| t.logs_in_as == *i).map(|(_, t)| t) {
        let own = &mut state.targets.entry(target.name.clone()).or_default().own_login;
        let about_it = own.take().filter(|own| own.id == applied);
        *own = Some(OwnLogin { hinted: true, ..about_it.unwrap_or_else(|| OwnLogin::of(&applied)) });
    }
}

/// The target for whose endpoint a login with the applied version is to be made now.
fn own_login_due(facts: &Facts, now: Timestamp) -> Option<usize> {
    let wake = &facts.wake;
    let other = wake.dry_run || wake.confirm || wake.leave || wake.reject.is_some();
    // The source has to give it: one that does not answer is not asked for more.
    if other || facts.committed.is_some() || facts.fetched.is_none() {
        return None;
    }
    let applied = &facts.state.applied.as_ref()?.id;
    let is_due = |t: &TargetFacts| {
        let own = facts.state.targets.get(&t.name)?.own_login.as_ref()?;
        (own.id == *applied && own.is_wanted() && own.next.is_none_or(|next| next <= now)).then_some(())
    };
    facts.targets.iter().position(|t| is_due(t).is_some())
}

/// A login of our own with the applied version has come to something.
fn own_login(facts: &mut Facts, policy: &Policy, index: usize, result: OwnResult, now: Timestamp) {
    let Some(applied) = facts.state.applied.as_ref().map(|a| a.id.clone()) else { return };
    let TargetPolicy { endpoint, retry, .. } = &policy.targets[index];
    let state = facts.target_state(index);
    let own = state.own_login.take().filter(|own| own.id == applied);
    let mut own = own.unwrap_or_else(|| OwnLogin::of(&applied));
    own.tried(Tried { at: now, endpoint: endpoint.clone(), result }, *retry);
    state.own_login = Some(own);
}

/// Does the mail server of this target use the applied version, as far as was looked up? Where somebody else's login is in its
/// place, a refusal of it keeps no mail from going out.
fn uses_applied(facts: &Facts, index: usize) -> bool {
    let Some(state) = facts.state.targets.get(&facts.targets[index].name) else { return true };
    match (&state.in_use, &state.live_id) {
        (Some(found), Some(expected)) => found.live_id.as_ref() == Some(expected),
        _ => true,
    }
}

/// Is this version in place in a target already, put there by this run or by one that was killed?
fn is_begun(facts: &Facts, version: &Found) -> bool {
    let by_a_run_before = |t: &TargetFacts| t.inspected.as_ref().is_some_and(|i| i.has_in_place(version));
    facts.targets.iter().any(|t| t.swapped || by_a_run_before(t))
}

/// Is it known that the candidate's login may send? Where it was put in place, it was known before.
fn may_send(facts: &Facts, index: usize) -> bool {
    let t = &facts.targets[index];
    let in_place = t.inspected.as_ref().zip(facts.fetched.as_ref()).is_some_and(|(i, found)| i.has_in_place(found));
    t.probed || t.swapped || in_place
}

/// May this target's files be changed? Asked anew when it is known that they would be.
fn may_write(facts: &Facts, policy: &Policy, index: usize, now: Timestamp) -> bool {
    let held = || matches!(permission(facts, policy, now), Permission::Held { .. });
    !is_by_hand(facts, policy, index) && (is_in_use(facts) || !held())
}

/// What is in use was put in place and never confirmed, and the version that is to come waits for somebody to let it go: until
/// then nothing is confirmed here. For who only looks; a run holds that version.
pub fn waits_unconfirmed<'a>(facts: &'a Facts, policy: &Policy, now: Timestamp) -> Option<(&'a str, Failure)> {
    let found = facts.fetched.as_ref()?;
    let opens = match (standing(facts, found, policy), permission(facts, policy, now)) {
        (Standing::Take, Permission::Held { opens }) => opens,
        _ => return None,
    };
    let in_use = |t: &'a TargetFacts| Some((t, facts.begun_in_use(t).filter(|begun| facts.is_other(begun))?));
    let (t, begun) = facts.targets.iter().find_map(in_use)?;
    let name = &facts.state.credential;
    let what = format!(
        "the mail server (target {}) uses version {} ({}), which was put there and never confirmed, and {} ({}) waits for \
         approval: until then nothing is confirmed here",
        t.name,
        begun.id.version,
        begun.username,
        said_beside(&found.id, &begun.id),
        found.username
    );
    let by_itself = opens.map(|opens| format!("; at {} it goes by itself", rfc3339(opens))).unwrap_or_default();
    let approve = relaykey(format_args!("approve {name} --version {}", found.id.version));
    let fix = format!("{approve}{by_itself}");
    Some((&t.name, denied(Class::Superseded, what, fix, now)))
}

/// Is it the applied version that the source gives?
fn is_in_use(facts: &Facts) -> bool {
    facts.state.applied.as_ref().map(|a| &a.id) == facts.fetched.as_ref().map(|f| &f.id)
}

/// The one next step to begin, and why. Pure: facts, policy and time in.
pub fn decide(facts: &Facts, policy: &Policy, now: Timestamp) -> (Step, Reason) {
    let (step, reason) = next_step(facts, policy, now);
    let rests = |step: &Step| matches!(step, Step::End | Step::Hold | Step::Wait { .. });
    // A reload that is owed is done whatever becomes of a new version: it may be refused for days.
    let owed = reload_owed(facts, now).filter(|_| rests(&step));
    let (step, reason) = owed.unwrap_or((step, reason));
    // So is what was confirmed put back: the newer version may wait, or be refused, for as long.
    let (step, reason) = match put_back_due(facts, policy, now).filter(|_| rests(&step)) {
        Some(target) => (Step::FetchApplied, Reason::Drifted(facts.targets[target].name.clone())),
        None => (step, reason),
    };
    if !may_begin(facts, &step) {
        return (Step::Await, reason);
    }
    // Whether the applied version is refused is asked where nothing else is to be done: a new version comes first.
    match own_login_due(facts, now).filter(|_| rests(&step) && facts.under_way.is_empty()) {
        Some(target) => (Step::VerifyApplied { target }, Reason::MayBeRefused),
        None => (step, reason),
    }
}

/// May this step be begun beside those that are under way?
fn may_begin(facts: &Facts, step: &Step) -> bool {
    let mut under_way = facts.under_way.iter();
    match step {
        // What is about all targets comes when all are at rest.
        Step::Hold | Step::Reject | Step::Leave | Step::FetchApplied | Step::Commit { .. } | Step::End => {
            facts.under_way.is_empty()
        }
        // Time passes, and the source is asked again, while nothing is done with the version at hand: beside looks alone.
        Step::Fetch | Step::Wait { .. } => under_way.all(|u| matches!(u.step, Step::Inspect { .. })),
        _ => under_way.all(|u| !u.targets.is_empty()),
    }
}

fn next_step(facts: &Facts, policy: &Policy, now: Timestamp) -> (Step, Reason) {
    let t = |i: usize| &facts.targets[i];
    let name = |i: usize| facts.targets[i].name.clone();
    // What was swapped and reads back wrong goes back first, what is staged in vain goes away, whatever else there is.
    if let Some(target) = at_rest(facts).find(|&i| t(i).must_undo.is_some()) {
        return (Step::Undo { target }, Reason::Mismatch(name(target)));
    }
    if let Some(target) = at_rest(facts).find(|&i| t(i).must_discard) {
        return (Step::Discard { target }, Reason::InVain(name(target)));
    }
    if let Some(target) = at_rest(facts).find(|&i| t(i).must_look) {
        return (Step::Inspect { target }, Reason::LookAtTarget(name(target)));
    }
    if facts.committed.is_some() {
        return (Step::End, Reason::Committed);
    }
    // What a person orders and what needs nothing else.
    if facts.wake.leave {
        return (if facts.ordered { Step::End } else { Step::Leave }, Reason::Leaves);
    }
    if let Some(target) = (0..facts.targets.len()).find(|&i| t(i).inspected.is_none() && to_look(facts, i, now)) {
        return (Step::Inspect { target }, Reason::LookAtTarget(name(target)));
    }
    // Only now: what is in place in one target already is not to be stopped in between.
    if facts.wake.reject.is_some() {
        return (if facts.ordered { Step::End } else { Step::Reject }, Reason::Rejects);
    }
    let Some(found) = facts.fetched.as_ref().filter(|_| !facts.stale) else {
        if facts.state.source_retry.next.is_none_or(|next| next <= now) {
            return (Step::Fetch, Reason::LookAtSource);
        }
        return waiting(facts, now);
    };
    if let Some(failure) = &facts.blocked {
        return (Step::End, Reason::Blocked(failure.what.clone()));
    }
    let standing = if facts.aside.is_some() { Standing::Applied } else { standing(facts, found, policy) };
    let applied = match standing {
        Standing::Applied => true,
        Standing::Take => false,
        // Waiting makes the first read stale: the second one comes after it.
        Standing::AgreeAt(until) => return (Step::Wait { until }, Reason::SecondRead),
        // `blocked` says so; nothing is due.
        Standing::LeftBehind | Standing::NotTheNamedOne => return (Step::End, Reason::UpToDate),
        Standing::Rejected => {
            // Where the version before it cannot be put back, that is said.
            let healed = put_back_due(facts, policy, now).is_some();
            return match due(facts, now).find(|&i| !healed && is_changed_by_others(facts, i, now)) {
                Some(target) => (Step::Refrain { target }, Reason::Drifted(name(target))),
                None => (Step::End, Reason::Rejected(found.id.version.clone())),
            };
        }
    };
    if !(0..facts.targets.len()).any(|i| needs_work(facts, i, applied)) {
        return (Step::End, Reason::UpToDate);
    }
    let ready: Vec<usize> = due(facts, now).collect();
    // Asked before anything is staged; a heal that is under way is not its own reason to stop.
    let untouched = |i: usize| !t(i).swapped && t(i).prepared.is_none();
    let refrain = |&&i: &&usize| {
        let drifted = applied && drifted(facts, i) && !may_heal(facts, policy, i, now);
        untouched(i) && (drifted || !applied && is_fought_over(facts, policy, i, now))
    };
    if let Some(&target) = ready.iter().find(refrain) {
        return (Step::Refrain { target }, Reason::Drifted(name(target)));
    }
    if !ready.iter().any(|&i| needs_work(facts, i, applied)) {
        return waiting(facts, now);
    }
    let permission = if applied || facts.wake.confirm { Permission::Given } else { permission(facts, policy, now) };
    // Held, and verified not long ago: nothing is to be done before the day is over, the window opens, or somebody asks.
    let held = facts.state.candidate.as_ref().and_then(|c| c.held.as_ref()?.next).filter(|next| *next > now);
    if let (Permission::Held { opens }, Some(next), false) = (&permission, held, facts.wake.dry_run) {
        if let Some(&target) = left_to_others(facts, policy, now).first() {
            return (Step::Refrain { target }, Reason::Drifted(name(target)));
        }
        let reason = Reason::Held { version: found.id.version.clone(), opens: *opens };
        let until = opens.map_or(next, |opens| opens.min(next));
        return (Step::Wait { until }, reason);
    }
    // From here on all targets go the same way, also those that hold the version already: a report names them all.
    if let Some(&target) = ready.iter().find(|&&i| t(i).evidence.is_none()) {
        let why = if applied {
            Reason::Drifted(name(target))
        } else if facts.state.applied.is_none() {
            Reason::Adoption
        } else {
            Reason::NewVersion(found.id.version.clone())
        };
        return (Step::Verify { target }, why);
    }
    let probes = policy.probe && !applied && !facts.wake.dry_run && !facts.wake.confirm;
    if let Some(&target) = ready.iter().find(|&&i| probes && !may_send(facts, i)) {
        return (Step::Probe { target }, Reason::MaySend(name(target)));
    }
    if facts.wake.dry_run {
        return match ready.iter().find(|&&i| t(i).previewed.is_none()) {
            Some(&target) => (Step::Preview { target }, Reason::DryRun),
            None => (Step::End, Reason::DryRun),
        };
    }
    // Where a person decides, or makes the change, it is looked at before anything is staged: it may be made already.
    let by_hand = |i: usize| is_by_hand(facts, policy, i);
    let is_held = matches!(permission, Permission::Held { .. });
    let looks_first = |&&i: &&usize| (by_hand(i) || is_held) && untouched(i) && t(i).previewed.is_none();
    if let Some(&target) = ready.iter().find(looks_first) {
        return (Step::Preview { target }, Reason::LookFirst(name(target)));
    }
    let changes = |i: usize| untouched(i) && t(i).previewed.as_ref().is_some_and(|change| !change.diff.is_empty());
    match permission {
        Permission::Held { opens } if ready.iter().any(|&i| changes(i) && !by_hand(i)) => {
            return (Step::Hold, Reason::Held { version: found.id.version.clone(), opens });
        }
        Permission::Held { .. } | Permission::Give { .. } | Permission::Given => {}
    }
    // What a person is to change is told together: when each was looked at, and without holding up the others.
    let (left_to_a_person, ready): (Vec<usize>, Vec<usize>) =
        ready.into_iter().partition(|&i| by_hand(i) && changes(i));
    match left_to_a_person.first() {
        Some(&target) if facts.under_way.is_empty() => return (Step::Refrain { target }, Reason::ByHand(name(target))),
        Some(_) if ready.is_empty() => return waiting(facts, now),
        _ => {}
    }
    match permission {
        Permission::Give { by, until } => {
            let reason = Reason::Released(by.clone());
            return (Step::Release { by, until }, reason);
        }
        Permission::Held { .. } | Permission::Given => {}
    }
    if let Some(&target) = ready.iter().find(|&&i| t(i).prepared.is_none()) {
        return (Step::Prepare { target }, Reason::Verified(name(target)));
    }
    for &target in &ready {
        let in_place = t(target).swapped || t(target).prepared.as_ref().is_some_and(|p| p.nothing_to_write);
        if !in_place {
            return (Step::Swap { target }, Reason::Staged(name(target)));
        }
        // Also where nothing was written: a table that is read only at a start or reload may be newer than both.
        if !t(target).activated {
            return (Step::Activate { target }, Reason::InPlace(name(target)));
        }
    }
    // Targets are independent up to here; the confirmation waits for all.
    if let Some(&target) = ready.iter().find(|&&i| t(i).read_back.is_none()) {
        let stamp = facts.stamp.clone().unwrap_or_else(|| new_stamp(facts, now));
        return (Step::ReadBack { target, stamp }, Reason::AllActivated);
    }
    match &facts.stamp {
        Some(stamp) if ready.len() == facts.targets.len() => {
            (Step::Commit { stamp: stamp.clone() }, Reason::AllReadBack)
        }
        _ => waiting(facts, now),
    }
}

/// Is this target one that a person changes, at least in this wake?
fn is_by_hand(facts: &Facts, policy: &Policy, index: usize) -> bool {
    !policy.targets[index].write || facts.wake.confirm
}

/// The seq of a report: the larger of last + 1 and Unix milliseconds.
fn next_seq(state: &State, now: Timestamp) -> u64 {
    u64::try_from(now.as_millisecond()).unwrap_or(0).max(state.seq + 1)
}

fn new_stamp(facts: &Facts, now: Timestamp) -> Stamp {
    let untouched = facts
        .targets
        .iter()
        .all(|t| !t.swapped && t.prepared.as_ref().is_none_or(|p| p.nothing_to_write && !p.swapped_before));
    Stamp {
        seq: next_seq(&facts.state, now),
        at: rfc3339(now),
        outcome: if untouched && facts.state.applied.is_none() { Completion::Adopted } else { Completion::Confirmed },
    }
}

/// RFC 3339 with Z and whole seconds, as reports have it.
pub fn rfc3339(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

fn due_one(facts: &Facts, index: usize, now: Timestamp) -> bool {
    let t = &facts.targets[index];
    if facts.aside.is_some() {
        // What waits is the other version.
        return !t.failed;
    }
    let next = facts.state.targets.get(&t.name).and_then(|s| s.retry.next);
    // What failed in this wake waits for its time; what failed before the wake too, unless a person asked.
    next.is_none_or(|next| next <= now) && !t.failed
}

/// The targets that no step is under way for.
fn at_rest(facts: &Facts) -> impl Iterator<Item = usize> + '_ {
    (0..facts.targets.len()).filter(|&i| !facts.is_busy(i))
}

/// Is this target to be looked at? Also one that waits for its time, where a start of the mail server settles what is in the way,
/// and every one when this program starts.
fn to_look(facts: &Facts, index: usize, now: Timestamp) -> bool {
    let t = &facts.targets[index];
    let started_may_be = |s: &TargetState| s.mail_server == Some(MailServer::Stopped) || s.reload_owed.is_some();
    let waits = || facts.state.targets.get(&t.name).is_some_and(started_may_be);
    // A program that has just started knows of no file what is in it, and watches those that it has looked at.
    let before_its_time = || !t.failed && (facts.wake.at_start || waits() || is_watched(facts, index));
    !facts.is_busy(index) && (due_one(facts, index, now) || before_its_time())
}

/// Does only a new version wait here for its time, or what somebody else has changed? The login that was confirmed is to be in
/// use meanwhile.
fn is_watched(facts: &Facts, index: usize) -> bool {
    let retry = facts.state.targets.get(&facts.targets[index].name).map(|s| &s.retry);
    let of_login = |f: &Failure| OF_LOGINS.contains(&f.class) || f.class == Class::Drift;
    facts.state.applied.is_some() && retry.is_some_and(|retry| retry.failure.as_ref().is_some_and(of_login))
}

/// The target in which the applied version is to be put back now, although the source gives another one: somebody else changed
/// the login, or a run was killed while it put it back.
fn put_back_due(facts: &Facts, policy: &Policy, now: Timestamp) -> Option<usize> {
    let wake = &facts.wake;
    let other = wake.dry_run && !wake.foresees || wake.confirm || wake.leave || wake.reject.is_some();
    let at_hand =
        facts.fetched.is_some() && !facts.stale && facts.state.applied.is_some() && facts.state.source.is_some();
    if other || !at_hand || is_in_use(facts) || facts.committed.is_some() {
        return None;
    }
    // What was begun with the other version goes on.
    let swapped_otherwise = |i: &Inspection| i.swapped.is_some() && !facts.is_of_applied(i);
    let is_begun = |t: &TargetFacts| !t.is_untouched() || t.inspected.as_ref().is_some_and(swapped_otherwise);
    if facts.state.put_back.next.is_some_and(|next| next > now) || facts.targets.iter().any(is_begun) {
        return None;
    }
    // For who only looks, what a run would put in place is begun.
    let previewed = || facts.aside.is_none() && facts.targets.iter().any(|t| t.previewed.is_some());
    if wake.foresees && previewed() && !matches!(permission(facts, policy, now), Permission::Held { .. }) {
        return None;
    }
    let of_applied = |i: usize| facts.targets[i].inspected.as_ref().is_some_and(|seen| facts.is_of_applied(seen));
    let mut ours = (0..facts.targets.len()).filter(|&i| !is_by_hand(facts, policy, i));
    ours.find(|&i| of_applied(i) || is_changed_by_others(facts, i, now) && may_heal(facts, policy, i, now))
}

/// The targets in which somebody else changed the login and in which it is not put back, beside a version that waits: where
/// that is to be said now.
fn left_to_others(facts: &Facts, policy: &Policy, now: Timestamp) -> Vec<usize> {
    let not_yet = facts.state.put_back.next.is_some_and(|next| next > now);
    if not_yet || is_in_use(facts) || put_back_due(facts, policy, now).is_some() {
        return Vec::new();
    }
    due(facts, now).filter(|&i| is_changed_by_others(facts, i, now)).collect()
}

/// Is the source's version held, and nothing to be done about it now?
fn is_held_for_now(facts: &Facts, policy: &Policy, now: Timestamp) -> bool {
    let next = facts.state.candidate.as_ref().and_then(|c| c.held.as_ref()?.next);
    facts.is_held()
        && !is_in_use(facts)
        && !facts.wake.confirm
        && next.is_some_and(|next| next > now)
        && matches!(permission(facts, policy, now), Permission::Held { .. })
}

fn due(facts: &Facts, now: Timestamp) -> impl Iterator<Item = usize> + '_ {
    at_rest(facts).filter(move |&i| due_one(facts, i, now))
}

/// A reload that is owed and can be tried now, whatever the source says, and whatever stands in the way of a new version.
fn reload_owed(facts: &Facts, now: Timestamp) -> Option<(Step, Reason)> {
    let wake = &facts.wake;
    if wake.dry_run || wake.leave || wake.reject.is_some() || facts.committed.is_some() {
        return None;
    }
    let owed = |i: &usize| {
        let t = &facts.targets[*i];
        let retry = facts.state.targets.get(&t.name).map(|s| &s.retry);
        // What else failed here, and waits for its time, does not keep a reload from being done; that the reload failed does.
        let of_reload = |retry: &Retry| retry.failure.as_ref().is_some_and(|f| f.class == Class::ReloadOwed);
        let waits = retry.is_some_and(|r| of_reload(r) && r.next.is_some_and(|next| next > now));
        !t.activated && !t.reload_tried && !waits && t.inspected.as_ref().is_some_and(|v| v.reload_owed.is_some())
    };
    let target = at_rest(facts).find(owed)?;
    Some((Step::Activate { target }, Reason::ReloadOwed(facts.targets[target].name.clone())))
}

fn needs_work(facts: &Facts, index: usize, applied: bool) -> bool {
    let t = &facts.targets[index];
    // A confirmation that somebody asks for, or that was withdrawn and holds again, is made anew although nothing is to be
    // written.
    let holds = |i: usize| !facts.targets[i].failed && facts.targets[i].inspected.is_some() && !drifted(facts, i);
    let again = facts.state.withdrawn.is_some() && (0..facts.targets.len()).all(holds);
    if !applied || facts.wake.confirm || again {
        return true;
    }
    let Some(found) = &t.inspected else { return true };
    let expected = facts.state.targets.get(&t.name).and_then(|s| s.live_id.as_ref());
    found.swapped.is_some() || expected.is_none() || found.live_id.as_ref() != expected
}

fn drifted(facts: &Facts, index: usize) -> bool {
    let t = &facts.targets[index];
    let expected = facts.state.targets.get(&t.name).and_then(|s| s.live_id.as_ref());
    t.inspected.as_ref().is_some_and(|found| found.swapped.is_none() && found.live_id.as_ref() != expected)
        && expected.is_some()
}

fn back_off(retry: &Retry) -> Reason {
    Reason::BackOff(retry.failure.as_ref().map_or_else(|| "tried again later".to_owned(), |f| f.what.clone()))
}

/// Wait for the earliest time at which something is due again; nothing is: end.
fn waiting(facts: &Facts, now: Timestamp) -> (Step, Reason) {
    let overdue = |t: &TargetFacts| {
        t.failed && facts.state.targets.get(&t.name).and_then(|s| s.retry.next).is_none_or(|next| next <= now)
    };
    if let Some(t) = at_rest(facts).map(|i| &facts.targets[i]).find(|t| overdue(t)) {
        return (Step::Wait { until: now }, Reason::LookAtTarget(t.name.clone()));
    }
    let retries = facts.state.targets.values().map(|t| &t.retry).chain(std::iter::once(&facts.state.source_retry));
    let retries: Vec<&Retry> = retries.filter(|r| r.next.is_some_and(|n| n > now)).collect();
    // A reload that this host must not do is done by nobody but a person.
    let of_a_person = |r: &&Retry| r.failure.as_ref().is_some_and(|f| f.class == Class::ReloadOwed && !f.temporary);
    match retries.iter().min_by_key(|r| r.next) {
        Some(retry) => {
            let reason = match (retries.iter().all(of_a_person), back_off(retry)) {
                (true, Reason::BackOff(what)) => Reason::UntilAPersonActs(what),
                (_, reason) => reason,
            };
            (Step::Wait { until: retry.next.unwrap_or(now) }, reason)
        }
        None => (Step::End, Reason::UpToDate),
    }
}

/// Does somebody else write to this target whenever a version was put there? Then it is left, and said.
fn is_fought_over(facts: &Facts, policy: &Policy, index: usize, now: Timestamp) -> bool {
    let overtaken = facts.state.targets.get(&facts.targets[index].name).map(|s| s.overtaken.as_slice());
    let recent = overtaken.unwrap_or_default().iter().filter(|at| now.duration_since(**at) < HEAL_WINDOW).count();
    let most = match policy.targets[index].drift {
        Drift::Heal => HEALS,
        Drift::Report => 0,
    };
    recent > most
}

/// May this drifted target be healed now? Not where `drift = "report"` or a person changes it, and not too often within
/// the hour.
fn may_heal(facts: &Facts, policy: &Policy, index: usize, now: Timestamp) -> bool {
    let heals = facts.state.targets.get(&facts.targets[index].name).map(|s| s.heals.as_slice()).unwrap_or_default();
    let recent = heals.iter().filter(|at| now.duration_since(**at) < HEAL_WINDOW).count();
    policy.targets[index].drift == Drift::Heal && !is_by_hand(facts, policy, index) && recent < HEALS
}

// ---------------------------------------------------------------- absorb

/// Classes of failures that an accepted login ends.
const OF_LOGINS: [Class; 9] = [
    Class::NotYet,
    Class::ByHand,
    Class::Refused,
    Class::Network,
    Class::Timeout,
    Class::Tls,
    Class::Trust,
    Class::Smtp,
    Class::Payload,
];

/// Full jitter: a random share of 10 s doubling to 15 min when temporary, of 15 min doubling to 6 h when not.
pub fn backoff(temporary: bool, attempts: u32, jitter: f64) -> SignedDuration {
    let (first, most) = if temporary { (10_000i64, 900_000) } else { (900_000, LONGEST_WAIT.as_secs() * 1000) };
    let ceiling = first.saturating_mul(1i64 << attempts.saturating_sub(1).min(20)).min(most);
    // At least a tenth: full jitter may otherwise give a time that has passed before it is written down.
    #[expect(clippy::cast_possible_truncation, clippy::cast_precision_loss, reason = "milliseconds, far below 2^52")]
    let share = (ceiling as f64 * jitter.clamp(0.1, 1.0)) as i64;
    SignedDuration::from_millis(share)
}

fn failed(retry: &mut Retry, failure: Failure, now: Timestamp, jitter: f64) {
    // "Not yet" is tried every few seconds; what comes after it begins to back off from its own start.
    if retry.failure.as_ref().is_some_and(|f| f.class == Class::NotYet) && failure.class != Class::NotYet {
        retry.attempts = 0;
    }
    retry.attempts = retry.attempts.saturating_add(1);
    // A reload that this host must not do is settled by a start of the mail server, and that is to be noticed.
    let soon = failure.temporary || failure.class == Class::ReloadOwed;
    retry.next = now.checked_add(backoff(soon, retry.attempts, jitter)).ok();
    retry.failure = Some(failure);
}

/// Takes the outcome of step `id` in. Returns false, and changes nothing, when that is not under way any more.
///
/// `jitter` is a random number in [0, 1).
pub fn absorb(
    facts: &mut Facts,
    policy: &Policy,
    id: StepId,
    step: &Step,
    outcome: Outcome,
    now: Timestamp,
    jitter: f64,
) -> bool {
    let Some(at) = facts.under_way.iter().position(|under_way| under_way.id == id) else { return false };
    facts.under_way.remove(at);
    // For what it is to be waited now is decided anew.
    facts.under_way.retain(|under_way| !matches!(under_way.step, Step::Wait { .. }));
    match (step, outcome) {
        (Step::Inspect { target }, Outcome::Inspected(found)) => {
            // A heal that was killed put back what was confirmed: that is no version without a confirmation.
            let applied = facts.state.applied.as_ref().map(|applied| (&applied.id, facts.state.source.as_ref()));
            let of_applied = found.swapped.as_ref().is_some_and(|s| Some((&s.id, s.source.as_ref())) == applied);
            let asked = facts.wake.asked;
            let state = facts.target_state(*target);
            let starts = state.mail_server == Some(MailServer::Stopped) || found.reload_owed.is_none();
            let runs = found.mail_server == Some(MailServer::Runs);
            (state.reload_owed, state.mail_server) = (found.reload_owed.clone(), found.mail_server);
            state.unread.clone_from(&found.unread);
            let of_that = |f: &Failure| [Class::ReloadOwed, Class::NotRunning].contains(&f.class);
            if starts && runs && state.retry.failure.as_ref().is_some_and(of_that) {
                state.retry.next = None;
            }
            let holds_it = state.live_id.is_some() && found.live_id == state.live_id && found.swapped.is_none();
            if holds_it && state.retry.failure.as_ref().is_some_and(|f| f.class == Class::Drift) {
                state.retry = Retry::default();
            }
            // Looked at before its time, and what was in the way still is, as far as is known.
            let waits = state.retry.next.is_some_and(|next| next > now);
            let in_use = InUse { at: now, usernames: found.usernames.clone(), live_id: found.in_use.clone() };
            looked_up(state, in_use, asked);
            begun_under_another_name(facts, *target, &found);
            found_before_anything(facts, *target, &found);
            found_beside_ours(facts, *target, &found);
            let state = facts.target_state(*target);
            state.take_down(found.swapped.as_ref().filter(|_| !of_applied), found.in_use.as_ref());
            let not_due = waits && facts.aside.is_none();
            let before_its_time = not_due && (facts.wake.at_start || is_watched(facts, *target));
            let t = &mut facts.targets[*target];
            (t.inspected, t.must_look, t.reload_tried) = (Some(found), false, false);
            t.failed |= not_due;
            t.before_its_time = before_its_time;
            // The source may have answered meanwhile.
            let answered = facts.fetched.is_some() && !facts.stale && facts.aside.is_none();
            if answered && is_in_use(facts) && !facts.targets[*target].failed {
                nothing_stands_in_the_way(facts, *target);
            }
            // What was confirmed is in use again everywhere, whoever put it back.
            let holds = |i: usize| {
                let t = &facts.targets[i];
                t.inspected.as_ref().is_some_and(|seen| !facts.is_of_applied(seen)) && !drifted(facts, i)
            };
            if facts.aside.is_none() && (0..facts.targets.len()).all(holds) {
                facts.state.put_back = Retry::default();
            }
        }
        (Step::Fetch, Outcome::Fetched(found)) => fetched(facts, policy, found, now),
        (Step::Fetch, Outcome::Failed(failure)) => {
            failed(&mut facts.state.source_retry, failure, now, jitter);
        }
        (Step::FetchApplied, Outcome::Fetched(found)) => set_aside(facts, found, now),
        (Step::FetchApplied, Outcome::Failed(failure)) => {
            let failure = not_given_again(facts, policy, failure, now);
            failed(&mut facts.state.put_back, failure, now, jitter);
        }
        (Step::Verify { target }, Outcome::Accepted(evidence)) => {
            // One AUTH serves every target that logs in with the same login at the same place.
            for i in same_place(policy, *target) {
                facts.targets[i].evidence = Some(evidence.clone());
                if is_in_use(facts) && facts.target_state(i).own_login.is_some() {
                    own_login(facts, policy, i, OwnResult::Accepted, now);
                }
                if facts.aside.is_some() {
                    // What stands in the way of the other version does so still.
                    continue;
                }
                let state = facts.target_state(i);
                state.first_refused = None;
                // What else stood in the way is not over yet: its attempts go on counting.
                let of_login = state.retry.failure.as_ref().is_some_and(|f| OF_LOGINS.contains(&f.class));
                if of_login && (!policy.probe || may_send(facts, i) || is_in_use(facts)) {
                    facts.target_state(i).retry = Retry::default();
                }
            }
        }
        (Step::Verify { target } | Step::Probe { target }, Outcome::Refused { reply }) => {
            // The applied version again, for drift or a confirmation: a login of our own like any other.
            let leader = policy.targets[*target].logs_in_as;
            let next = facts.target_state(leader).own_login.as_ref().and_then(|own| own.next);
            let uses = same_place(policy, leader).into_iter().any(|i| uses_applied(facts, i));
            let counts = is_in_use(facts) && uses && next.is_none_or(|next| next <= now);
            if counts && matches!(step, Step::Verify { .. }) {
                own_login(facts, policy, leader, OwnResult::Refused { reply: reply.clone() }, now);
            }
            for i in same_place(policy, *target) {
                refused(facts, &policy.targets[i], i, &reply, now, jitter);
            }
        }
        (Step::Verify { target } | Step::Probe { target }, Outcome::Failed(failure)) => {
            for i in same_place(policy, *target) {
                target_failed(facts, i, failure.clone(), now, jitter);
            }
        }
        (Step::VerifyApplied { target }, Outcome::Accepted(_)) => {
            own_login(facts, policy, *target, OwnResult::Accepted, now);
        }
        (Step::VerifyApplied { target }, Outcome::Refused { reply }) => {
            let result = match same_place(policy, *target).into_iter().any(|i| uses_applied(facts, i)) {
                true => OwnResult::Refused { reply },
                false => OwnResult::Unknown { what: format!("{reply} (the mail server uses another login)") },
            };
            own_login(facts, policy, *target, result, now);
        }
        (Step::VerifyApplied { target }, Outcome::Failed(failure)) => {
            own_login(facts, policy, *target, OwnResult::Unknown { what: failure.what }, now);
        }
        (Step::VerifyApplied { target }, Outcome::NotGiven(failure)) => {
            own_login(facts, policy, *target, OwnResult::NotGiven { what: failure.what, fix: failure.fix }, now);
        }
        (Step::Probe { target }, Outcome::Probed) => {
            for i in same_place(policy, *target) {
                facts.targets[i].probed = true;
                let state = facts.target_state(i);
                if state.retry.failure.as_ref().is_some_and(|f| OF_LOGINS.contains(&f.class)) {
                    state.retry = Retry::default();
                }
            }
            let all = (0..facts.targets.len()).all(|i| may_send(facts, i));
            if let Some(candidate) = facts.state.candidate.as_mut().filter(|_| all) {
                candidate.probed = Some(now);
            }
        }
        (Step::Preview { target }, Outcome::Previewed(change, live_id)) => {
            if !facts.wake.dry_run {
                facts.target_state(*target).change = Some(change.clone()).filter(|change| !change.diff.is_empty());
            }
            compared(facts, *target, &live_id);
            (facts.targets[*target].previewed, facts.targets[*target].wanted) = (Some(change), Some(live_id));
        }
        (Step::Hold, Outcome::Noted) => hold(facts, policy, now),
        (Step::Release { by, until }, Outcome::Noted) => {
            if let Some(candidate) = &mut facts.state.candidate {
                candidate.approval = Some(Approval { by: by.clone(), at: now, until: *until });
            }
        }
        (Step::Reject, Outcome::Noted) => {
            facts.ordered = true;
            reject(facts, now);
        }
        (Step::Leave, Outcome::Noted) => {
            facts.ordered = true;
            facts.state.left = Some(now);
            tell(facts, LEFT, None, now);
        }
        (Step::Prepare { target }, Outcome::Prepared(staged)) => {
            let writes = !staged.nothing_to_write;
            let allowed = !writes || may_write(facts, policy, *target, now);
            compared(facts, *target, &staged.live_id);
            facts.targets[*target].prepared = Some(staged);
            if !allowed {
                let failure = Fault::new(
                    Class::Changed,
                    format!("target {} changed while it was looked at", facts.targets[*target].name),
                    "nothing: it is looked at anew",
                )
                .temporary()
                .at(now);
                target_failed(facts, *target, failure, now, jitter);
            }
        }
        (Step::Prepare { target }, Outcome::ByHand(change, live_id)) => {
            if !facts.wake.dry_run {
                facts.target_state(*target).change = Some(change.clone());
            }
            compared(facts, *target, &live_id);
            (facts.targets[*target].previewed, facts.targets[*target].wanted) = (Some(change), Some(live_id));
            left_to_a_person(facts, policy, *target, now, jitter);
        }
        (Step::Swap { target }, Outcome::Swapped) => {
            let healed = is_in_use(facts) && drifted(facts, *target);
            if healed {
                let heals = &mut facts.target_state(*target).heals;
                heals.retain(|at| now.duration_since(*at) < HEAL_WINDOW);
                heals.push(now);
            }
            // A reload from before it says nothing of it.
            (facts.targets[*target].swapped, facts.targets[*target].activated) = (true, false);
            // What is begun goes on, whatever has let it go.
            let of_candidate = facts.state.candidate.as_mut().filter(|_| facts.aside.is_none());
            if let Some(approval) = of_candidate.and_then(|c| c.approval.as_mut()) {
                approval.until = None;
            }
            read_back_anew(facts);
        }
        (Step::Activate { target }, Outcome::Activated) => {
            facts.targets[*target].activated = true;
            read_back_anew(facts);
            facts.target_state(*target).reload_owed = None;
            if let Some(found) = &mut facts.targets[*target].inspected {
                found.reload_owed = None;
            }
        }
        (Step::Activate { target }, Outcome::ReloadOwed(failure)) => {
            let state = facts.target_state(*target);
            let since = state.reload_owed.as_ref().map_or(now, |owed| owed.since);
            state.reload_owed = Some(Owed { since, why: failure.what.clone() });
            not_reloaded(facts, *target, failure, now, jitter);
        }
        (Step::Activate { target }, Outcome::Failed(failure)) => not_reloaded(facts, *target, failure, now, jitter),
        // Its proof is not of the confirmation that comes now.
        (Step::ReadBack { stamp, .. }, Outcome::ReadBack(_)) if facts.stamp.as_ref() != Some(stamp) => {}
        (Step::ReadBack { target, .. }, Outcome::ReadBack(read_back)) => {
            let username = facts.fetched.as_ref().map(|f| f.username.clone());
            let found =
                InUse { at: now, usernames: username.into_iter().collect(), live_id: read_back.live_id.clone() };
            let asked = facts.wake.asked;
            looked_up(facts.target_state(*target), found, asked);
            facts.targets[*target].read_back = Some(read_back);
        }
        (Step::ReadBack { target, .. }, Outcome::Mismatch(failure)) => {
            facts.targets[*target].must_look = true;
            if facts.targets[*target].swapped {
                facts.targets[*target].must_undo = Some(failure);
            } else {
                target_failed(facts, *target, failure, now, jitter);
            }
        }
        (Step::Undo { target }, result) => {
            let t = &mut facts.targets[*target];
            let mut failure = t.must_undo.take().unwrap_or_else(|| {
                Fault::new(Class::Mismatch, "the live files did not read back as the right login", String::new())
                    .temporary()
                    .at(now)
            });
            (t.swapped, t.prepared, t.must_look) = (false, None, true);
            match result {
                Outcome::Overtaken => return overtaken(facts, policy, *target, failure, now, jitter),
                Outcome::Failed(why) => {
                    failure.what = format!("{}; and the old files could not be put back: {}", failure.what, why.what);
                    failure.fix = why.fix;
                    failure.temporary = false;
                }
                _ => failure.what.push_str("; the old files were put back"),
            }
            target_failed(facts, *target, failure, now, jitter);
        }
        (Step::Discard { target }, _) => facts.targets[*target].must_discard = false,
        (Step::Refrain { target }, Outcome::Refrained)
            if !is_in_use(facts) && is_fought_over(facts, policy, *target, now) =>
        {
            let failure = fought_over(facts, policy, *target, now);
            target_failed(facts, *target, failure, now, jitter);
        }
        (Step::Refrain { target }, Outcome::Refrained)
            if rejection_of_found(facts).is_some() && drifted(facts, *target) =>
        {
            let failure = not_put_back_beside_a_rejected_one(facts, policy, *target, now);
            target_failed(facts, *target, failure, now, jitter);
        }
        // The version that waits goes on waiting, and goes when it may: no target has failed.
        (Step::Refrain { .. }, Outcome::Refrained) if is_held_for_now(facts, policy, now) => {
            let left = left_to_others(facts, policy, now);
            let failure = left_beside_a_held_one(facts, policy, &left, now);
            failed(&mut facts.state.put_back, failure, now, jitter);
        }
        (Step::Refrain { target }, Outcome::Refrained) if !drifted_from_applied(facts, *target) => {
            left_to_a_person(facts, policy, *target, now, jitter);
        }
        (Step::Refrain { target }, Outcome::Refrained) if was_asked_for(facts, *target).is_some() => {
            let failure = taken_back(facts, *target, now);
            target_failed(facts, *target, failure, now, jitter);
        }
        (Step::Refrain { target }, Outcome::Refrained) => {
            let why = match policy.targets[*target].drift {
                _ if facts.wake.confirm => "this run only confirms".to_owned(),
                _ if !policy.targets[*target].write => "write = false".to_owned(),
                Drift::Heal => format!("it was put back {HEALS} times within the hour"),
                Drift::Report => "drift = \"report\"".to_owned(),
            };
            // On such a target it was a person who had put it there.
            let by_hand = !policy.targets[*target].write;
            let before = if by_hand { "this host had confirmed" } else { "relaykey put there" };
            let name = &facts.state.credential;
            let again = match (policy.targets[*target].drift, &facts.state.applied) {
                (Drift::Heal, _) if !by_hand => {
                    format!("; then have it put back: {}", relaykey(format_args!("sync {name}")))
                }
                (_, Some(applied)) => format!(
                    "; then put the login of {} back by hand. relaykey sees it and confirms it anew; where it does not run: {}",
                    applied.username,
                    relaykey(format_args!("confirm {name}"))
                ),
                (_, None) => String::new(),
            };
            let finds_none = facts.targets[*target].inspected.as_ref().is_some_and(|seen| seen.usernames.is_empty());
            let gone = match finds_none {
                true => format!(
                    "finds no login any more where it had the one that {before} (the entry is gone, or main.cf names another relay \
                     or table)"
                ),
                false => format!("no longer holds the login that {before}"),
            };
            let failure = Fault::new(
                Class::Drift,
                format!("the mail server (target {}) {gone}, and is left so: {why}", facts.targets[*target].name),
                format!("{OTHER_WRITER}{again}"),
            )
            .at(now);
            target_failed(facts, *target, failure, now, jitter);
        }
        (Step::Wait { .. }, Outcome::Waited) => {
            facts.stale = facts.fetched.is_some();
            let at_rest: Vec<usize> = at_rest(facts).collect();
            for i in at_rest {
                let t = &mut facts.targets[i];
                let next = facts.state.targets.get(&t.name).and_then(|s| s.retry.next);
                // So does what was looked at and not touched: hours may have passed, until a window opened.
                let untouched = !t.failed && !t.swapped && t.prepared.is_none() && t.evidence.is_some();
                if untouched || t.failed && next.is_none_or(|next| next <= now) {
                    *t = TargetFacts { name: t.name.clone(), ..TargetFacts::default() };
                }
            }
        }
        (Step::Commit { stamp }, Outcome::Committed(report)) => commit(facts, stamp, *report, now),
        // Why it was to be looked at anew is what matters, and is tried again.
        (Step::Inspect { target }, Outcome::Failed(_)) if facts.targets[*target].must_look => {
            facts.targets[*target].must_look = false;
        }
        // As it is where it was looked at before its time: its time has not come yet.
        (Step::Inspect { target }, Outcome::Failed(_)) if !due_one(facts, *target, now) => {
            facts.targets[*target].failed = true;
        }
        (
            Step::Inspect { target }
            | Step::Preview { target }
            | Step::Prepare { target }
            | Step::Swap { target }
            | Step::ReadBack { target, .. },
            Outcome::Failed(failure),
        ) => {
            target_failed(facts, *target, failure, now, jitter);
        }
        (Step::Commit { .. }, Outcome::Failed(failure)) => {
            // The state file could not be written: everything is read back and committed again.
            for i in 0..facts.targets.len() {
                target_failed(facts, i, failure.clone(), now, jitter);
            }
        }
        (step, outcome) => unreachable!("{outcome:?} is no outcome of {step:?}"),
    }
    // Nothing more can be done about what was to be put back: on with what the source gives.
    let is_over = facts.aside.is_some()
        && facts.under_way.is_empty()
        && matches!(next_step(facts, policy, now).0, Step::End | Step::Wait { .. });
    if is_over {
        // Put back, and not confirmed: what is in the way is another target's matter, and tried again later.
        let retry = &mut facts.state.put_back;
        if retry.next.is_none_or(|next| next <= now) {
            retry.attempts = retry.attempts.saturating_add(1);
            retry.next = now.checked_add(backoff(false, retry.attempts, jitter)).ok();
        }
        go_on_with_offered(facts);
    }
    true
}

/// What to do about drift before anything else.
const OTHER_WRITER: &str =
    "find out what changes the table or main.cf (configuration management, a script) and make it stop";

/// The applied version was fetched: it is put back first, as if it were what the source gives.
fn set_aside(facts: &mut Facts, applied: Found, now: Timestamp) {
    // What cannot be looked at is not written to, and what somebody has put there of the version to come stays.
    let is_left = |i: usize| match &facts.targets[i].inspected {
        Some(seen) => drifted(facts, i) && !facts.is_of_applied(seen) && !is_changed_by_others(facts, i, now),
        None => true,
    };
    let fresh = |(i, t): (usize, &TargetFacts)| TargetFacts {
        name: t.name.clone(),
        inspected: t.inspected.clone(),
        failed: is_left(i),
        ..TargetFacts::default()
    };
    let targets = facts.targets.iter().enumerate().map(fresh).collect();
    let Some(offered) = facts.fetched.replace(applied) else { return };
    let blocked = facts.blocked.take();
    let targets = std::mem::replace(&mut facts.targets, targets);
    facts.aside = Some(Aside { offered, blocked, targets });
    facts.stamp = None;
}

/// What the source gives is at hand again, with what was found out about it. The targets are looked at anew.
fn go_on_with_offered(facts: &mut Facts) {
    let Some(Aside { offered, blocked, targets }) = facts.aside.take() else { return };
    (facts.fetched, facts.blocked, facts.stamp) = (Some(offered), blocked, None);
    let before = std::mem::replace(&mut facts.targets, targets);
    facts.put_back.extend(before.iter().filter(|t| t.swapped).map(|t| t.name.clone()));
    for (t, healed) in facts.targets.iter_mut().zip(before) {
        let TargetFacts { name, evidence, probed, failed, before_its_time, .. } = std::mem::take(t);
        // A login that was put back in vain is still gone; where one was written, what is there is not known.
        let inspected = healed.inspected.filter(|_| healed.failed && !healed.swapped);
        *t = TargetFacts { name, evidence, probed, failed, before_its_time, inspected, ..TargetFacts::default() };
    }
}

/// What to do about a login that is gone and cannot be put back.
fn put_it_back_by_hand(facts: &Facts, policy: &Policy, now: Timestamp) -> String {
    let name = &facts.state.credential;
    let before = facts.state.applied.as_ref().map(|a| a.username.as_str()).unwrap_or_default();
    let by_hand = format!("{OTHER_WRITER}; then put the login of {before} back by hand");
    let offered = facts.fetched.as_ref().map(|f| f.id.version.as_str()).unwrap_or_default();
    let approve = relaykey(format_args!("approve {name} --version {offered}"));
    // It may be held only after this is said.
    let waits = facts.fetched.as_ref().is_some_and(|found| {
        let is_held = || matches!(permission(facts, policy, now), Permission::Held { .. });
        facts.is_held() || standing(facts, found, policy) == Standing::Take && is_held()
    });
    match (rejection_of_found(facts), waits && facts.by_hand.is_empty()) {
        (Some(_), _) => {
            format!("{by_hand}, or publish another version, or take the rejected one all the same: {approve}")
        }
        (None, true) => format!("{by_hand}, or put version {offered} into use: {approve}"),
        (None, false) => format!("{by_hand}, or publish a valid version at the source"),
    }
}

/// The source gives another version, and not the applied one any more, by which it could be put back.
fn not_given_again(facts: &Facts, policy: &Policy, failure: Failure, now: Timestamp) -> Failure {
    let index = facts.gone();
    let what = not_put_back(facts, index, &failure);
    let fix = if failure.temporary { failure.fix } else { put_it_back_by_hand(facts, policy, now) };
    Fault::new(Class::Drift, what, fix).temporary_if(failure.temporary).at(now)
}

fn not_put_back(facts: &Facts, index: Option<usize>, failure: &Failure) -> String {
    let target = index.map(|i| format!(" (target {})", facts.targets[i].name)).unwrap_or_default();
    let before = facts.state.applied.as_ref().map(|a| a.username.as_str()).unwrap_or_default();
    format!(
        "the mail server{target} no longer holds the login that this host had confirmed ({before}), and it could not be put back: {}",
        failure.what
    )
}

/// What is in use in a target that a person changes, where it is a version that they were asked to put there.
fn was_asked_for(facts: &Facts, index: usize) -> Option<&Begun> {
    let by_hand = facts.by_hand.contains(&facts.targets[index].name);
    facts.begun_in_use(&facts.targets[index]).filter(|begun| by_hand && begun.by_hand)
}

/// A person did what they were asked for, and the source has gone back to the version before it.
fn taken_back(facts: &Facts, index: usize, now: Timestamp) -> Failure {
    let said = |id: &VersionId, username: &str| format!("version {} ({username})", id.version);
    let used = was_asked_for(facts, index).map(|begun| said(&begun.id, &begun.username)).unwrap_or_default();
    let applied = facts.state.applied.as_ref();
    let right = applied.map(|applied| said(&applied.id, &applied.username)).unwrap_or_default();
    let username = applied.map(|applied| applied.username.as_str()).unwrap_or_default();
    let what = format!(
        "the mail server (target {}) uses {used}, which was put there by hand, as this host had asked; the source has gone back to \
         {right} since",
        facts.targets[index].name
    );
    let fix = format!(
        "put the login of {username} back by hand. relaykey sees it and confirms it anew; where it does not run: relaykey confirm {}",
        facts.state.credential
    );
    denied(Class::ByHand, what, fix, now)
}

/// The rejection of the version that the source gives, where that is not the one in use.
fn rejection_of_found(facts: &Facts) -> Option<&Rejected> {
    let found = facts.fetched.as_ref().filter(|_| !is_in_use(facts))?;
    facts.rejection(&found.id)
}

/// Somebody else changed the login, the source gives a version that a person rejected, and what was confirmed is not put back, or
/// not by who only looks.
fn not_put_back_beside_a_rejected_one(facts: &Facts, policy: &Policy, index: usize, now: Timestamp) -> Failure {
    let (version, rejected) =
        facts.fetched.as_ref().map(|f| (f.id.version.as_str(), f.username.as_str())).unwrap_or_default();
    let before = facts.state.applied.as_ref().map(|a| a.username.as_str()).unwrap_or_default();
    let tried = facts.state.put_back.failure.as_ref();
    let gone = format!(
        "the mail server (target {}) no longer holds the login that this host had confirmed ({before}); the source gives another \
         one, and version {version} ({rejected}) was rejected",
        facts.targets[index].name
    );
    let why = match tried {
        _ if facts.wake.confirm => "it is left so, because this run only confirms".to_owned(),
        _ if !may_heal(facts, policy, index, now) => format!("it is left so: {}", why_left(&policy.targets[index])),
        Some(tried) => {
            return Failure {
                what: format!("{}; version {version} ({rejected}) was rejected", tried.what),
                at: now,
                ..tried.clone()
            };
        }
        None => {
            let fix =
                format!("have relaykey put it back: {}", relaykey(format_args!("sync {}", facts.state.credential)));
            return denied(Class::Drift, gone, fix, now);
        }
    };
    denied(Class::Drift, format!("{gone}: {why}"), put_it_back_by_hand(facts, policy, now), now)
}

/// For who only looks: would a run put back here what somebody else changed, and is that the version that the source gives?
pub fn would_put_right(facts: &Facts, policy: &Policy, index: usize) -> bool {
    let t = &facts.targets[index];
    let changes = t.previewed.as_ref().is_some_and(|change| !change.diff.is_empty());
    changes && !t.failed && drifted(facts, index) && is_in_use(facts) && !is_by_hand(facts, policy, index)
}

/// What a run would put back, said by who only looks.
pub fn put_right(facts: &Facts, index: usize, now: Timestamp) -> Failure {
    let before = facts.state.applied.as_ref().map(|a| a.username.as_str()).unwrap_or_default();
    let what = format!(
        "the mail server (target {}) no longer holds the login that this host had confirmed ({before}): relaykey puts it back",
        facts.targets[index].name
    );
    let fix = format!(
        "have it put back now: {}; then find out what writes the table (configuration management, a script), and make it stop",
        relaykey(format_args!("sync {}", facts.state.credential))
    );
    denied(Class::Drift, what, fix, now)
}

/// Why what somebody else changed is left so, where it may not be put back.
fn why_left(target: &TargetPolicy) -> String {
    match target.drift {
        _ if !target.write => "write = false".into(),
        Drift::Report => "drift = \"report\"".into(),
        Drift::Heal => format!("it was put back {HEALS} times within the hour"),
    }
}

/// Somebody else changed the login, and it is left so, while the version that the source gives waits for approval.
fn left_beside_a_held_one(facts: &Facts, policy: &Policy, left: &[usize], now: Timestamp) -> Failure {
    let names: Vec<&str> = left.iter().map(|&i| facts.targets[i].name.as_str()).collect();
    let before = facts.state.applied.as_ref().map(|a| a.username.as_str()).unwrap_or_default();
    let why = left.first().map(|&i| why_left(&policy.targets[i])).unwrap_or_default();
    let what = format!(
        "the mail server (target {}) no longer holds the login that this host had confirmed ({before}), and is left so: {why}",
        names.join(", ")
    );
    denied(Class::Drift, what, put_it_back_by_hand(facts, policy, now), now)
}

/// The same, for who only looks: what a run would say of it; `None`: nothing, or it was said before.
pub fn left_changed<'f>(facts: &'f Facts, policy: &Policy, now: Timestamp) -> Option<(&'f str, Failure)> {
    let found = facts.fetched.as_ref().filter(|_| facts.state.put_back.failure.is_none())?;
    let waits = standing(facts, found, policy) == Standing::Take
        && matches!(permission(facts, policy, now), Permission::Held { .. });
    let is_left = |&i: &usize| {
        waits
            && policy.targets[i].write
            && !may_heal(facts, policy, i, now)
            && !facts.targets[i].failed
            && is_changed_by_others(facts, i, now)
    };
    let left: Vec<usize> = (0..facts.targets.len()).filter(is_left).collect();
    let first = *left.first()?;
    Some((&facts.targets[first].name, left_beside_a_held_one(facts, policy, &left, now)))
}

/// The login of what the source gives was compared with what a target holds.
fn compared(facts: &mut Facts, index: usize, live_id: &str) {
    let of_candidate = |id: &VersionId| facts.state.candidate.as_ref().is_some_and(|c| c.id == *id);
    let id = facts.fetched.as_ref().map(|found| found.id.clone()).filter(of_candidate);
    if let Some(id) = id.filter(|_| !facts.wake.dry_run) {
        facts.target_state(index).wanted = Some(Wanted { id, live_id: live_id.to_owned() });
    }
}

/// The mail server was not told. Where something else stands in the way of a new version, that is what people see, and what
/// the next look waits for.
fn not_reloaded(facts: &mut Facts, index: usize, failure: Failure, now: Timestamp, jitter: f64) {
    let t = &mut facts.targets[index];
    t.reload_tried = true;
    if t.swapped || !t.failed {
        target_failed(facts, index, failure, now, jitter);
    }
}

/// What this host put in place under another target's name, the one that this target had before among them, is taken for
/// that here too, where it is the very same login.
fn begun_under_another_name(facts: &mut Facts, index: usize, found: &Inspection) {
    let name = &facts.targets[index].name;
    let swapped = found.swapped.as_ref().map(|swapped| &swapped.live_id);
    let own = facts.state.targets.get(name).map(|t| t.begun.as_slice()).unwrap_or_default();
    let is_new = |begun: &&Begun| {
        let there = [found.in_use.as_ref(), swapped].contains(&Some(&begun.live_id));
        there && !own.iter().any(|known| known.live_id == begun.live_id)
    };
    let begun = facts.state.begun().find(is_new).cloned();
    if let Some(begun) = begun {
        let used = begun.used || found.in_use.as_ref() == Some(&begun.live_id);
        facts.target_state(index).begun.push(Begun { used, gone: false, ..begun });
    }
}

/// While nothing was applied or put in place yet: what was found is what was in use before all of that.
fn found_before_anything(facts: &mut Facts, index: usize, found: &Inspection) {
    let in_place = || {
        let begun = facts.state.targets.get(&facts.targets[index].name).map(|t| t.begun.as_slice()).unwrap_or_default();
        begun.iter().any(|begun| found.in_use.as_ref() == Some(&begun.live_id))
    };
    if facts.state.applied.is_some() || found.swapped.is_some() || facts.targets[index].swapped || in_place() {
        return;
    }
    let may_be_shown = |username: &&String| shown(username, false).is_some();
    remember(&mut facts.state.earlier, found.usernames.iter().filter(may_be_shown).cloned());
    remember_logins(&mut facts.state.earlier_logins, found.in_use.clone());
    let first = found.username.as_ref().filter(may_be_shown);
    if let Some(first) = first.filter(|_| index == 0 || facts.state.found_first.is_none()) {
        facts.state.found_first = Some(first.clone());
    }
}

/// What was found in use where this host had something else confirmed is what the next version takes over from, whoever put it
/// there: what still holds it then is to be named.
fn found_beside_ours(facts: &mut Facts, index: usize, found: &Inspection) {
    let state = &facts.state;
    let Some(applied) = &state.applied else { return };
    let known = state.earlier_usernames();
    let is_other = |username: &&String| **username != applied.username && !known.contains(username);
    let may_be_named = |username: &&String| is_access_key_id(username);
    let new: Vec<String> = found.usernames.iter().filter(is_other).filter(may_be_named).cloned().collect();
    // Of an access key id there is one password for one region: the name says enough.
    let by_name = found.username.as_deref().is_some_and(is_access_key_id);
    let ours = |id: &String| {
        let of_target = |t: &TargetState| t.live_id.as_ref() == Some(id) || t.has_begun(id).is_some();
        let wanted = |t: &TargetState| t.wanted.as_ref().is_some_and(|wanted| wanted.live_id == *id);
        let swapped = found.swapped.as_ref().is_some_and(|swapped| swapped.live_id == *id);
        swapped || state.targets.values().any(|t| of_target(t) || wanted(t)) || state.earlier_logins.contains(id)
    };
    let is_new = |id: &&String| !by_name && !ours(id) && !state.found_logins.contains(id);
    let login = found.in_use.iter().find(is_new).cloned();
    if facts.targets[index].swapped {
        return;
    }
    remember(&mut facts.state.earlier, new);
    remember_logins(&mut facts.state.found_logins, login);
}

/// What the mail server uses was looked up. As long as it stays the same, the time alone is not worth a write to the disk, but
/// for a person who `asked`: they are told afterwards when it was looked up.
fn looked_up(state: &mut TargetState, found: InUse, asked: bool) {
    let same = |before: &InUse| {
        let passed = found.at.duration_since(before.at);
        (&before.usernames, &before.live_id) == (&found.usernames, &found.live_id)
            && !passed.is_negative()
            && passed < LOOKED_UP
    };
    if asked || !state.in_use.as_ref().is_some_and(same) {
        state.in_use = Some(found);
    }
}

/// Somebody else wrote to the files between the swap and its read-back. What they wrote stays; what is there is looked at
/// anew, and the right login is put in at once, unless that was tried too often or is not wanted.
fn overtaken(facts: &mut Facts, policy: &Policy, index: usize, failure: Failure, now: Timestamp, jitter: f64) -> bool {
    let state = facts.target_state(index);
    state.overtaken.retain(|at| now.duration_since(*at) < HEAL_WINDOW);
    state.overtaken.push(now);
    if !is_in_use(facts) && is_fought_over(facts, policy, index, now) {
        let failure = fought_over(facts, policy, index, now);
        target_failed(facts, index, failure, now, jitter);
        return true;
    }
    let what = format!("{}: somebody else wrote to it in between, and it is looked at anew", failure.what);
    target_failed(facts, index, Failure { what, temporary: true, ..failure }, now, jitter);
    let again = now.checked_add(OVERTAKEN).ok();
    match facts.aside {
        Some(_) => facts.state.put_back.next = again,
        None => facts.target_state(index).retry.next = again,
    }
    true
}

/// Two write to the same table.
fn fought_over(facts: &Facts, policy: &Policy, index: usize, now: Timestamp) -> Failure {
    let (version, username) =
        facts.fetched.as_ref().map(|f| (f.id.version.as_str(), f.username.as_str())).unwrap_or_default();
    let why = match policy.targets[index].drift {
        Drift::Heal => format!("each of {} times within the hour", HEALS + 1),
        Drift::Report => "drift = \"report\", so it is not put in again".to_owned(),
    };
    Fault::new(
        Class::FoughtOver,
        format!(
            "target {}: somebody else wrote to the table right after version {version} ({username}) was put there: {why}",
            facts.targets[index].name
        ),
        format!(
            "find out what writes the table (configuration management, the program that `reload` names) and make it stop; then: {}",
            relaykey(format_args!("sync {}", facts.state.credential))
        ),
    )
    .at(now)
}

fn fetched(facts: &mut Facts, policy: &Policy, found: Found, now: Timestamp) {
    facts.stale = false;
    facts.blocked = None;
    supersede(facts, &found);
    facts.state.source_retry = Retry::default();
    let approved = match approval(facts, policy, &found, now) {
        Some(Ok(approval)) => Some(approval),
        Some(Err(failure)) => {
            facts.blocked = Some(failure);
            None
        }
        None => None,
    };
    let standing = standing(facts, &found, policy);
    let unclear = is_ambiguous(facts, &found.id).then_some(&found.id.version);
    let accepts_another = unclear.is_some() && facts.wake.accept_version.as_ref() == unclear;
    let approves_another = unclear.is_some() && facts.wake.approve.as_ref().and_then(|a| a.version.as_ref()) == unclear;
    if accepts_another || approves_another {
        facts.state.told_apart = Some(found.id.clone());
    }
    let blocked = |class: Class, what: String, fix: String| Fault::new(class, what, fix).at(now);
    match standing {
        Standing::Applied => {}
        Standing::NotTheNamedOne => {
            let named = facts.wake.accept_version.clone().unwrap_or_default();
            facts.blocked = Some(blocked(
                Class::NotTheNamedVersion,
                format!("the source's current version is {}, not {named}", found.id.version),
                "look again at what the source holds, and name the version it gives".into(),
            ));
        }
        Standing::LeftBehind | Standing::AgreeAt(_) | Standing::Rejected if accepts_another => {
            facts.blocked = Some(blocked(
                Class::ChangedMeanwhile,
                ambiguous(&found.id.version, &found.username, "it was not taken"),
                format!(
                    "look at what the source holds; if that is meant, say it once more: {}",
                    take_on_purpose(facts, &found)
                ),
            ));
        }
        Standing::LeftBehind => {
            facts.blocked = Some(blocked(
                Class::LeftBehind,
                format!("the source gives version {} again, which this host has left behind", found.id.version),
                format!(
                    "publish the old value as a new version, or take it on purpose: {}",
                    take_on_purpose(facts, &found)
                ),
            ));
        }
        // A person said no; it stays to be seen what to.
        Standing::Rejected => {
            if facts.state.candidate.as_ref().is_none_or(|c| c.id != found.id) {
                facts.state.shows(candidate(&found, false));
            }
            facts.state.targets.values_mut().for_each(|t| t.change = None);
        }
        Standing::Take | Standing::AgreeAt(_) => {
            let accepted = named(facts, &found, policy);
            if accepted {
                facts.state.rejected.retain(|r| r.id != found.id);
            }
            match &mut facts.state.candidate {
                Some(c) if c.id == found.id => c.accepted |= accepted,
                _ => {
                    facts.state.shows(candidate(&found, accepted));
                    facts.state.targets.values_mut().for_each(|t| t.change = None);
                    // A new version resets what the one before it ran into; not what this wake found in its way.
                    for i in 0..facts.targets.len() {
                        let t = &mut facts.targets[i];
                        t.failed &= !t.before_its_time;
                        let failed_now = t.failed;
                        if !failed_now {
                            facts.target_state(i).retry = Retry::default();
                        }
                    }
                }
            }
        }
    }
    let begun = is_begun(facts, &found);
    if let Some(candidate) = facts.state.candidate.as_mut().filter(|c| c.id == found.id) {
        let before = candidate.approval.take().filter(|a| a.holds(now) || begun);
        candidate.approval = approved.or(before);
        candidate.not_newer = matches!(standing, Standing::AgreeAt(_));
    }
    if standing == Standing::Applied {
        // Nothing waits any more: the candidate was withdrawn before it was applied, or drift is all there is.
        facts.state.candidate = None;
        facts.state.put_back = Retry::default();
        facts.state.targets.values_mut().for_each(|t| t.change = None);
        (0..facts.targets.len()).for_each(|i| nothing_stands_in_the_way(facts, i));
    }
    if facts.fetched.as_ref().is_some_and(|before| before.id != found.id) {
        // What was proved of one version, and done with it, says nothing about another. Where it was put in place, what is
        // there now is looked at anew.
        facts.stamp = None;
        for t in &mut facts.targets {
            let staged = t.prepared.as_ref().is_some_and(|p| !p.nothing_to_write) && !t.swapped;
            *t = TargetFacts {
                name: t.name.clone(),
                inspected: t.inspected.take().filter(|_| !t.swapped),
                must_discard: t.must_discard || staged,
                must_look: t.must_look,
                failed: t.failed,
                ..TargetFacts::default()
            };
        }
    }
    let probed = |c: &Candidate| c.id == found.id && c.probed.is_some_and(|at| now.duration_since(at) < PROBE_HOLDS);
    if facts.state.candidate.as_ref().is_some_and(probed) {
        facts.targets.iter_mut().for_each(|t| t.probed = true);
    }
    facts.fetched = Some(found);
}

/// Why the version that the source gives is not taken yet, where that is because it is not newer.
pub fn not_newer(state: &State) -> Option<Failure> {
    let candidate = state.candidate.as_ref().filter(|candidate| candidate.not_newer)?;
    let applied = state.applied.as_ref()?;
    let what = format!(
        "the source's version {} ({}) is not newer than the applied one, {} ({}): a second read must agree, a minute after the first",
        candidate.id.version, candidate.username, applied.id.version, applied.username
    );
    let fix = format!(
        "nothing, if it is meant and the service relaykey runs: it reads again by itself, and takes it then. To take it at once: {}. \
         If it is not meant, store the right credential there as a new version",
        relaykey(format_args!("sync {} --accept-version {}", state.credential, candidate.id.version))
    );
    Some(Fault::new(Class::NotNewer, what, fix).temporary().at(candidate.first_seen))
}

/// The command that takes what the source gives, although it would not be taken by itself.
fn take_on_purpose(facts: &Facts, found: &Found) -> String {
    relaykey(format_args!("sync {} --accept-version {}", facts.state.credential, found.id.version))
}

/// A version as it is said beside another one: a source that was made anew counts from 1 again.
pub fn said_beside(id: &VersionId, other: &VersionId) -> String {
    let another = if id.version == other.version && id != other { "another " } else { "" };
    format!("{another}version {}", id.version)
}

/// Another version has come before what is in place was confirmed: that has its line of the audit log, once.
fn supersede(facts: &mut Facts, found: &Found) {
    if facts.wake.dry_run {
        return;
    }
    let candidate = facts.state.candidate.as_ref();
    let approval = candidate.and_then(|c| Some((c.id.clone(), c.approval.as_ref()?.by.clone())));
    let all = facts.state.targets.len();
    let each = facts.state.targets.iter_mut().flat_map(|(name, t)| t.begun.iter_mut().map(move |begun| (name, begun)));
    for (name, begun) in each {
        // What a person was asked for and has not done is no longer asked for, and that is all.
        let asked_in_vain = begun.by_hand && !begun.used;
        if begun.is(found) || asked_in_vain || std::mem::replace(&mut begun.told, true) {
            continue;
        }
        // Several targets may hold it.
        let same = |s: &&mut Superseded| s.begun.id == begun.id && s.begun.source == begun.source;
        if let Some(told) = facts.superseded.iter_mut().find(same) {
            told.begun.used |= begun.used;
            told.begun.by_hand &= begun.by_hand;
            told.targets.push(name.clone());
            told.everywhere = told.targets.len() == all;
        } else {
            let approved_by = approval.as_ref().filter(|(id, _)| *id == begun.id).map(|(_, by)| by.clone());
            let (by, targets) = (found.id.clone(), vec![name.clone()]);
            facts.superseded.push(Superseded { begun: begun.clone(), by, targets, everywhere: all == 1, approved_by });
        }
    }
}

/// The applied version is what the source has: where a target was found to hold it, whatever failed there is over.
fn nothing_stands_in_the_way(facts: &mut Facts, index: usize) {
    let found = facts.targets[index].inspected.as_ref();
    if !drifted(facts, index) && found.is_some_and(|v| v.reload_owed.is_none()) {
        facts.target_state(index).retry = Retry::default();
    }
}

/// A stamp and read-backs from before a swap, or before a mail server was told of it, are not of the confirmation that
/// comes now.
fn read_back_anew(facts: &mut Facts) {
    facts.stamp = None;
    facts.targets.iter_mut().for_each(|t| t.read_back = None);
}

fn candidate(found: &Found, accepted: bool) -> Candidate {
    Candidate {
        id: found.id.clone(),
        username: found.username.clone(),
        first_seen: found.at,
        accepted,
        probed: None,
        held: None,
        approval: None,
        not_newer: false,
    }
}

fn denied(class: Class, what: String, fix: String, at: Timestamp) -> Failure {
    Fault::new(class, what, fix).at(at)
}

/// What an approval comes to, now that it is known what the source has; `None`: nobody approves anything.
///
/// Approved is what the person saw: the version that they name, or the one that waited when they said so. Whatever came
/// in its place since is not.
fn approval(facts: &Facts, policy: &Policy, found: &Found, now: Timestamp) -> Option<Result<Approval, Failure>> {
    let approve = facts.wake.approve.as_ref()?;
    let (name, there) = (&facts.state.credential, &found.id.version);
    let no = |class: Class, what: String, fix: String| Some(Err(denied(class, what, fix, now)));
    let nothing = |why: &str| {
        let there = match &facts.state.applied {
            Some(a) => {
                let (version, since) = (&a.id.version, rfc3339(a.since));
                format!("version {version} ({}) is the applied one, since {since}", a.username)
            }
            None => "no version has been applied here yet".to_owned(),
        };
        let fix = format!("nothing to do; to see what there is: {}", relaykey("status"));
        no(Class::NothingToDo, format!("nothing waits for approval: {why}; {there}"), fix)
    };
    // Given already, and the source is only asked once more.
    let before = facts.state.candidate.as_ref().filter(|c| c.id == found.id).and_then(|c| c.approval.as_ref());
    if let Some(approval) = before.filter(|a| a.by == approve.by && a.until.is_none()) {
        return Some(Ok(approval.clone()));
    }
    // What a person is to put in place needs no other word.
    let by_hand = is_held_version(facts, found) && !facts.by_hand.is_empty();
    if by_hand && policy.mode == Mode::Automatic && approve.version.as_ref().is_none_or(|version| version == there) {
        let what = format!(
            "version {there} ({}) waits for a change by hand (target {}), which is the approval",
            found.username,
            facts.by_hand.join(", ")
        );
        let fix = format!("make the change: {} shows what to do, step by step", relaykey("status"));
        return no(Class::NothingToDo, what, fix);
    }
    // Who names a version that is not there has not seen what is.
    let named_another = approve.version.as_ref().is_some_and(|version| version != there);
    if !is_approvable(facts, found, policy) && !named_another {
        return nothing("mode = \"automatic\", where a new version goes into use by itself once it is verified");
    }
    if facts.state.applied.as_ref().is_some_and(|applied| applied.id == found.id) && !named_another {
        return nothing("the source has the version that is in use");
    }
    let by_name = relaykey(format_args!("approve {name} --version {there}"));
    // It has not been looked into yet, so that `status` has nothing to tell of it.
    let status = relaykey(format_args!("check {name}"));
    // A source that was made anew counts from 1 again: the same number, and perhaps not what the person saw. Whatever was
    // looked at in between does not tell what they had in mind.
    let another = |seen: &VersionId| seen.version == *there && *seen != found.id;
    let by_its_name = approve.version.as_ref() == Some(there) && is_ambiguous(facts, &found.id);
    if by_its_name || facts.shown.as_ref().is_some_and(another) {
        return no(
            Class::ChangedMeanwhile,
            ambiguous(there, &found.username, "nothing was approved"),
            format!("look at what waits now ({status}); if that is meant, say it once more: {by_name}"),
        );
    }
    let waited = facts.waited.as_ref().map(|id| &id.version);
    match (approve.version.as_ref().or(waited), facts.rejection(&found.id)) {
        (Some(version), _) if version != there => no(
            Class::ChangedMeanwhile,
            format!("the source has version {there} now, not {version}: nothing was approved"),
            format!("look at what waits now ({status}), then approve that: {by_name}"),
        ),
        (_, Some(rejected)) if approve.version.is_none() => no(
            Class::Rejected,
            format!("version {there} was rejected by {}: {}", rejected.by, rejected.reason),
            format!("to approve it all the same, name it: {by_name}"),
        ),
        (None, _) => no(
            Class::NothingWaits,
            format!("version {there} was only seen just now, and waits since"),
            format!("look at it ({status}), then approve it: {by_name}"),
        ),
        _ => Some(Ok(Approval { by: approve.by.clone(), at: now, until: None })),
    }
}

/// Is this version held, for a person to put it in place?
fn is_held_version(facts: &Facts, found: &Found) -> bool {
    let held = |c: &Candidate| c.id == found.id && c.held.is_some() && facts.rejection(&c.id).is_none();
    facts.state.candidate.as_ref().is_some_and(held)
}

/// Outcome of the report of a host that leaves.
const LEFT: &str = "left";
/// Outcome of a report about a version that waits for a person.
const PENDING_APPROVAL: &str = "pending-approval";

/// The candidate waits for a person; the first time, that is news.
fn hold(facts: &mut Facts, policy: &Policy, now: Timestamp) {
    let name = facts.state.credential.clone();
    let permission = permission(facts, policy, now);
    let Some(candidate) = &mut facts.state.candidate else { return };
    let since = candidate.held.as_ref().map(|held| held.since);
    let failed = facts.targets.iter().filter(|t| t.failed);
    let retries = failed.filter_map(|t| facts.state.targets.get(&t.name)?.retry.next);
    let next = retries.chain(now.checked_add(HELD_VERIFIED)).min();
    candidate.held = Some(Held { since: since.unwrap_or(now), next });
    if since.is_some() {
        return;
    }
    let version = candidate.id.version.clone();
    let mut words = format!(
        "verified, and waits for somebody to decide. To put it into use: {}. To refuse it: {}. ",
        relaykey(format_args!("approve {name} --version {version}")),
        relaykey(format_args!("reject {name} --version {version} --reason \"...\""))
    );
    words.push_str(&match (&policy.mode, &permission) {
        (Mode::Manual { window: Some(window), .. }, Permission::Held { opens: Some(opens) }) => {
            format!("If nobody does either, it goes into use by itself at {} (apply = \"{window}\")", rfc3339(*opens))
        }
        _ => "Until then the present login stays in use".to_owned(),
    });
    let dies = matches!(policy.mode, Mode::Manual { if_applied_dies: IfAppliedDies::Apply, .. });
    if dies {
        words.push_str(match policy.gives_older {
            true => {
                "; should the mail relay refuse that one, it goes into use once two logins of relaykey's own with it were \
                 refused, if the source still gives it"
            }
            false => {
                "; should the mail relay refuse that one, it does not go into use by itself, because a file does not give the \
                 older version that would prove it"
            }
        });
    }
    let (opens, window) = match (&policy.mode, permission) {
        (Mode::Manual { window: Some(window), .. }, Permission::Held { opens: Some(opens) }) => {
            (Some(opens), Some(window.to_string()))
        }
        _ => (None, None),
    };
    let waiting = Waiting { opens, window, if_applied_dies: dies && policy.gives_older, ..Waiting::default() };
    tell_of_waiting(facts, ReportError::new(Class::Held, words), waiting, now);
}

/// What a run would leave to people, as a dry run has found it: the targets that they change, and a version that they are to
/// approve.
pub fn left_to_people<'f>(facts: &'f Facts, policy: &Policy, now: Timestamp) -> Vec<(Option<&'f str>, Failure)> {
    let name = &facts.state.credential;
    let found = facts.fetched.as_ref().filter(|_| facts.blocked.is_none());
    let is_to_come = |found: &&Found| facts.state.candidate.as_ref().is_some_and(|c| c.id == found.id);
    let Some(found) = found.filter(is_to_come).filter(|found| facts.rejection(&found.id).is_none()) else {
        return Vec::new();
    };
    let changes = |t: &TargetFacts| !t.failed && t.previewed.as_ref().is_some_and(|change| !change.diff.is_empty());
    let (by_hand, ours): (Vec<usize>, Vec<usize>) =
        (0..facts.targets.len()).filter(|&i| changes(&facts.targets[i])).partition(|&i| is_by_hand(facts, policy, i));
    let held = matches!(permission(facts, policy, now), Permission::Held { .. }) && !ours.is_empty();
    let approval = held.then(|| {
        let version = &found.id.version;
        let what = format!("version {version} ({}) waits for approval", found.username);
        (None, denied(Class::Held, what, relaykey(format_args!("approve {name} --version {version}")), now))
    });
    let by_hand = by_hand.into_iter().map(|i| (Some(&*facts.targets[i].name), not_done_by_hand(facts, policy, i, now)));
    approval.into_iter().chain(by_hand).collect()
}

/// That a target that a person changes does not hold the candidate.
fn not_done_by_hand(facts: &Facts, policy: &Policy, index: usize, now: Timestamp) -> Failure {
    let t = &facts.targets[index];
    let (version, username) =
        facts.fetched.as_ref().map(|f| (f.id.version.as_str(), f.username.as_str())).unwrap_or_default();
    let why = if facts.wake.confirm { "this run only confirms" } else { "write = false" };
    let what = format!("target {} does not hold version {version} ({username}), and is left so: {why}", t.name);
    // What relaykey writes itself nobody is to change by hand: that would go round the approval.
    if policy.targets[index].write {
        let name = &facts.state.credential;
        let fix = match permission(facts, policy, now) {
            Permission::Held { .. } => relaykey(format_args!("approve {name} --version {version}")),
            Permission::Given | Permission::Give { .. } => {
                format!("have relaykey put it there: {}", relaykey(format_args!("sync {name}")))
            }
        };
        return denied(Class::ByHand, what, fix, now);
    }
    // Where nothing is recorded, there is nothing that `status` could show.
    let show = relaykey(if facts.wake.dry_run { "sync --dry-run" } else { "status" });
    let steps = t.previewed.as_ref().map_or(0, |change| change.steps.len());
    denied(Class::ByHand, what, format!("change it by hand: {show} shows what to do, step by step ({steps})"), now)
}

/// A target that a person changes does not hold the candidate: said with what to do, and watched.
fn left_to_a_person(facts: &mut Facts, policy: &Policy, index: usize, now: Timestamp, jitter: f64) {
    let change = facts.targets[index].previewed.clone().unwrap_or_default();
    let failure = not_done_by_hand(facts, policy, index, now);
    let mut words = failure.what.clone();
    for difference in &change.differences {
        words.push_str(&format!(". {difference}"));
    }
    words.push_str(&format!(". To do: {}", Instruction::on_one_line(&change.steps)));
    target_failed(facts, index, failure, now, jitter);
    if policy.targets[index].write {
        // Asked only to confirm: nobody is to change anything here.
        return;
    }
    let asked = facts.fetched.clone().zip(facts.targets[index].wanted.clone());
    if let Some((found, live_id)) = asked.filter(|_| !facts.wake.dry_run) {
        facts.target_state(index).asks_for(&found, live_id);
    }
    let first = facts.state.candidate.as_mut().filter(|c| c.held.is_none());
    if let Some(candidate) = first {
        candidate.held = Some(Held { since: now, next: None });
        // All of them were looked at before the first is left to a person.
        let by_hand = facts.targets.iter().zip(&policy.targets).filter(|(_, policy)| !policy.write);
        let changes: Vec<&Change> = by_hand.filter_map(|(t, _)| t.previewed.as_ref()).collect();
        let waiting = Waiting {
            steps: changes.iter().flat_map(|change| change.steps.clone()).collect(),
            differences: changes.iter().flat_map(|change| change.differences.clone()).collect(),
            ..Waiting::default()
        };
        tell_of_waiting(facts, ReportError::new(Class::ByHand, words), waiting, now);
    }
}

/// A person rejects the version that waits: it is not taken by itself any more.
fn reject(facts: &mut Facts, now: Timestamp) {
    let Some(reject) = facts.wake.reject.clone() else { return };
    let name = &facts.state.credential;
    let reject_by_name = reject.version.is_some();
    let Some(candidate) = &facts.state.candidate else {
        let what = match &facts.state.applied {
            Some(a) => {
                format!(
                    "nothing waits that could be rejected: version {} ({}) is the applied one",
                    a.id.version, a.username
                )
            }
            None => "nothing waits that could be rejected".to_owned(),
        };
        let fix = format!(
            "to see what there is: {}; what is in use is replaced by publishing another version",
            relaykey("status")
        );
        facts.blocked = Some(denied(Class::NothingWaits, what, fix, now));
        return;
    };
    if let Some(version) = reject.version.filter(|version| *version != candidate.id.version) {
        let there = &candidate.id.version;
        facts.blocked = Some(denied(
            Class::ChangedMeanwhile,
            format!("version {there} waits now, not {version}: nothing was rejected"),
            format!(
                "look at it ({}), then: {}",
                relaykey("status"),
                relaykey(format_args!("reject {name} --version {there} --reason \"...\""))
            ),
            now,
        ));
        return;
    }
    let (id, username) = (candidate.id.clone(), candidate.username.clone());
    if reject_by_name && is_ambiguous(facts, &id) {
        let (version, name) = (&id.version, &facts.state.credential);
        facts.blocked = Some(denied(
            Class::ChangedMeanwhile,
            ambiguous(version, &username, "nothing was rejected"),
            format!(
                "look at what waits now ({}); if that is meant, say it once more: {}",
                relaykey("status"),
                relaykey(format_args!("reject {name} --version {version} --reason \"...\""))
            ),
            now,
        ));
        facts.state.told_apart = Some(id);
        return;
    }
    let Some(candidate) = &mut facts.state.candidate else { return };
    let version = &candidate.id.version;
    // In doubt, where the journal does not say of which source it was, it is.
    let same = |s: &Swapped| if s.source.is_some() { s.id == candidate.id } else { s.id.version == *version };
    let swapped = |t: &&TargetFacts| t.inspected.as_ref().and_then(|i| i.swapped.as_ref()).is_some_and(same);
    if let Some(target) = facts.targets.iter().find(swapped) {
        let what = format!("target {} uses version {version} already: it cannot be rejected any more", target.name);
        let fix = "publish what is to be used instead as a new version".to_owned();
        facts.blocked = Some(denied(Class::Begun, what, fix, now));
        return;
    }
    (candidate.held, candidate.approval, candidate.accepted) = (None, None, false);
    let id = candidate.id.clone();
    let rejected = &mut facts.state.rejected;
    rejected.retain(|r| r.id != id);
    rejected.push(Rejected { id, by: reject.by.clone(), reason: reject.reason.clone(), at: now });
    let surplus = rejected.len().saturating_sub(REJECTED);
    rejected.drain(..surplus);
    for t in facts.state.targets.values_mut() {
        (t.retry, t.first_refused, t.change) = (Retry::default(), None, None);
    }
    let words = format!("rejected by {}: {}. The present login stays in use", reject.by, reject.reason);
    tell(facts, "rejected", Some(ReportError::new(Class::Rejected, words)), now);
}

/// Something is to be told: about the candidate where it is about one, else about what is applied.
fn tell(facts: &mut Facts, outcome: &'static str, error: Option<ReportError>, now: Timestamp) {
    // Who has left is not asked any more, and a place that holds one document per host is to go on saying so.
    if facts.state.left.is_some() && outcome != LEFT {
        return;
    }
    let applied = facts.state.applied.as_ref().map(|a| (a.id.version.clone(), a.username.clone()));
    let candidate = facts.state.candidate.as_ref().map(|c| (c.id.version.clone(), c.username.clone()));
    let of_candidate = ["failed", PENDING_APPROVAL, "rejected"].contains(&outcome);
    let of_applied = outcome == "failed" && candidate.is_none() && applied.is_some();
    let about = if of_candidate { candidate.or(applied) } else { applied };
    let (version, username) = about.unwrap_or_default();
    let previous = facts.state.applied.as_ref().and_then(|a| match a.username == username {
        true => a.previous_username.clone(),
        false => Some(a.username.clone()),
    });
    let previous = previous.or_else(|| {
        let first = facts.state.found_first.clone().filter(|_| facts.state.applied.is_none());
        first.filter(|first| *first != username)
    });
    let seq = next_seq(&facts.state, now);
    facts.state.seq = seq;
    // A confirmation that is being made takes a later number.
    read_back_anew(facts);
    facts.spoke = true;
    let (at, waiting, previous_username) = (rfc3339(now), None, previous);
    let (in_use, version_in_use) = (facts.in_use(), facts.version_in_use());
    facts.news.push(News {
        outcome,
        seq,
        at,
        version,
        username,
        previous_username,
        in_use,
        version_in_use,
        of_applied,
        error,
        waiting,
    });
}

/// The candidate waits for a person: what for.
fn tell_of_waiting(facts: &mut Facts, error: ReportError, waiting: Waiting, now: Timestamp) {
    let before = facts.news.len();
    tell(facts, PENDING_APPROVAL, Some(error), now);
    if let Some(news) = facts.news.get_mut(before) {
        news.waiting = Some(waiting);
    }
}

/// What only the end of a run shows: a confirmation that no longer holds, failures that stand, a sign of life that is due.
/// To be called when nothing is left to do, or with a commit; not when the program was told to end in between. A second call
/// does nothing.
///
/// `jitter` is a random number in [0, 1).
pub fn conclude(facts: &mut Facts, now: Timestamp, jitter: f64) {
    if facts.wake.dry_run || facts.concluded {
        return;
    }
    facts.concluded = true;
    if facts.wake.confirm {
        // What somebody only asked about is no attempt that the next one would have to wait for.
        for retry in facts.state.targets.values_mut().map(|t| &mut t.retry) {
            let asked = retry.failure.as_ref().is_some_and(|f| f.class == Class::ByHand || f.class == Class::Drift);
            retry.next = retry.next.filter(|_| !asked);
        }
    }
    withdraw(facts, now);
    for (about, error) in standing_failures(facts, now) {
        let before = facts.news.len();
        tell(facts, "failed", Some(error), now);
        let Some(news) = facts.news.get_mut(before) else { continue };
        let applied = facts.state.applied.as_ref();
        match about {
            About::Target => {}
            About::Source => {
                news.of_applied = false;
                (news.version, news.username) = (String::new(), String::new());
                news.previous_username = applied.map(|a| a.username.clone());
            }
            About::Offered(id, username) => {
                news.of_applied = false;
                news.previous_username = applied.map(|a| a.username.clone()).filter(|before| *before != username);
                (news.version, news.username) = (id.version, username);
            }
        }
    }
    if let Some(error) = old_key(facts, now) {
        tell(facts, ALIVE, Some(error), now);
    }
    let spread = ALIVE_AFTER.mul_f64(0.9 + 0.2 * jitter.clamp(0.0, 1.0));
    let next = now.checked_add(spread).ok();
    let told = facts.spoke || facts.committed.is_some();
    match facts.state.alive_due {
        _ if facts.state.applied.is_none() || facts.state.left.is_some() => facts.state.alive_due = None,
        Some(due) if due > now && !told => {}
        Some(_) if !told => {
            facts.state.alive_due = next;
            let error = uses_another_login(&facts.state);
            tell(facts, ALIVE, error, now);
        }
        _ => facts.state.alive_due = next,
    }
}

/// A sign of life names the applied version; where another login was looked up, it says both.
fn uses_another_login(state: &State) -> Option<ReportError> {
    let applied = state.applied.as_ref()?;
    let found = state.foreign()?.in_use.as_ref()?;
    let who = match found.usernames.as_slice() {
        [] => "no login".to_owned(),
        [one] if *one == applied.username => format!("{one} with another password"),
        all => all.join(" and "),
    };
    let words = format!(
        "the mail server uses {who}, as looked up at {}, and not what this host had confirmed ({})",
        rfc3339(found.at),
        applied.username
    );
    Some(ReportError::new(Class::Drift, words))
}

/// What is to be told of a key that has become old: once per version. A host that has left is not asked.
fn old_key(facts: &mut Facts, now: Timestamp) -> Option<ReportError> {
    let applied = facts.state.applied.as_ref().filter(|_| facts.state.left.is_none())?;
    let age = applied.key_age(now);
    if age <= OLD_KEY || facts.state.aged.as_ref() == Some(&applied.id) {
        return None;
    }
    let words = format!(
        "the key {} is at least {} days old, and a key is usually replaced after 90: make a new one and publish it at the source",
        applied.username,
        age.as_hours() / 24
    );
    facts.state.aged = Some(applied.id.clone());
    Some(ReportError::new(Class::OldKey, words))
}

/// What a failure that stands is about.
enum About {
    /// The candidate on its way into a target, or what is applied there.
    Target,
    /// The source, which gave no version that could be used.
    Source,
    /// A version that the source gave and that is not taken.
    Offered(VersionId, String),
}

/// Takes down which failures stand, and gives those that are to be reported now: each cause once, one that may pass by
/// itself only when it has lasted.
fn standing_failures(facts: &mut Facts, now: Timestamp) -> Vec<(About, ReportError)> {
    // What waits has a report of its own, as has drift; and "not yet" is how a new key begins.
    const OF_THEIR_OWN: [Class; 3] = [Class::NotYet, Class::ByHand, Class::Drift];
    let version = facts.state.candidate.as_ref().map(|c| c.id.version.clone());
    let mut stand: Vec<Failing> = Vec::new();
    let mut known: Vec<Class> = Vec::new();
    let mut due = Vec::new();
    for (_, failure) in facts.failures() {
        if known.contains(&failure.class) || OF_THEIR_OWN.contains(&failure.class) || failure.is_an_answer() {
            continue;
        }
        known.push(failure.class);
        let before = facts.state.failing.iter().find(|f| f.class == failure.class && f.version == version);
        let new = || Failing { class: failure.class, version: version.clone(), since: now, seen: now, told: false };
        let mut failing = Failing { seen: now, ..before.cloned().unwrap_or_else(new) };
        let lasts = !failure.temporary || now.duration_since(failing.since) >= LASTING;
        if lasts && !failing.told {
            failing.told = true;
            let of_source = facts.state.source_retry.failure.as_ref() == Some(failure);
            let about = match (of_source, &facts.fetched) {
                (true, _) => About::Source,
                (false, Some(found)) if facts.blocked.as_ref() == Some(failure) => {
                    About::Offered(found.id.clone(), found.username.clone())
                }
                (false, _) => About::Target,
            };
            due.push((about, ReportError::of(failure)));
        }
        stand.push(failing);
    }
    // Causes may take turns, and a run may not come as far as to meet each again. All are over with what they kept from
    // happening.
    if facts.committed.is_none() && (facts.state.candidate.is_some() || !stand.is_empty()) {
        let lately = |f: &Failing| f.version == version && now.duration_since(f.seen) < FORGOTTEN;
        let others = facts.state.failing.iter().filter(|f| !known.contains(&f.class) && lately(f));
        stand.extend(others.cloned());
    }
    facts.state.failing = stand;
    due
}

/// Does the mail server use something else than what this host confirmed, that this host did not put there either, and that is
/// not what is to come?
fn is_changed_by_others(facts: &Facts, index: usize, now: Timestamp) -> bool {
    let t = &facts.targets[index];
    // What a person put there may be the candidate; where that was not looked at, its live id tells, or an access key id.
    let right = match (&t.previewed, &facts.fetched, &t.inspected) {
        (Some(change), ..) => change.diff.is_empty(),
        (None, Some(found), Some(seen)) if !is_in_use(facts) => {
            let of_found = |id: &Option<String>| facts.state.targets.get(&t.name)?.is_login_of(&found.id, id.as_ref());
            match of_found(&seen.in_use) {
                Some(is_it) => is_it || of_found(&seen.first_live_id) == Some(true),
                None => {
                    seen.username.as_ref() == Some(&found.username)
                        && tells_apart(&found.username, facts.state.applied.as_ref())
                }
            }
        }
        (None, ..) => false,
    };
    // Somebody who has edited the text and not compiled it has not changed what the mail server uses.
    let expected = facts.state.targets.get(&t.name).and_then(|s| s.live_id.as_ref());
    let in_use = t.inspected.as_ref().and_then(|i| i.in_use.as_ref());
    // What somebody else has just written over is put right in a moment.
    let state = facts.state.targets.get(&t.name).filter(|s| !s.overtaken.is_empty());
    let soon = |next: Timestamp| next.duration_since(now) <= OVERTAKEN;
    let at_once = t.failed && state.and_then(|s| s.retry.next).is_some_and(soon)
        || state.is_some() && facts.state.put_back.next.is_some_and(|next| next > now && soon(next));
    let foreign = facts.begun_in_use(t).is_none_or(|begun| begun.by_hand && !facts.is_other(begun));
    drifted(facts, index) && in_use != expected && foreign && t.is_untouched() && !right && !at_once
}

/// Somebody put something else where this host has confirmed its login, and it stays there: what was confirmed no longer
/// holds.
fn withdraw(facts: &mut Facts, now: Timestamp) {
    if facts.committed.is_some() || facts.state.withdrawn.is_some() || facts.state.report.is_none() {
        return;
    }
    let elsewhere = |i: &usize| is_changed_by_others(facts, *i, now);
    // Put there by this host itself, in a run that was killed; and another version came before it was confirmed.
    let begun = |i: &usize| {
        let t = &facts.targets[*i];
        facts.begun_in_use(t).filter(|begun| t.is_untouched() && facts.is_other(begun))
    };
    let targets = 0..facts.targets.len();
    let (ours, others): (Vec<usize>, Vec<usize>) =
        targets.filter(|i| begun(i).is_some() || elsewhere(i)).partition(|i| begun(i).is_some());
    let names = |of: &[usize]| of.iter().map(|&i| facts.targets[i].name.as_str()).collect::<Vec<_>>().join(", ");
    let error = match (others.as_slice(), ours.first().and_then(begun), &facts.fetched) {
        ([], Some(begun), Some(found)) => {
            let how = match begun.by_hand {
                true => "which was put there by hand, as this host had asked, and was never confirmed:",
                false => "which this host put there and never confirmed: the run was broken off in between, and",
            };
            let words = format!(
                "the mail server (target {}) uses version {} ({}), {how} {} has come since",
                names(&ours),
                begun.id.version,
                begun.username,
                said_beside(&found.id, &begun.id)
            );
            ReportError::new(Class::Superseded, words)
        }
        ([], ..) => return,
        (others, ..) if others.iter().all(|&i| is_asked_for(facts, i)) => {
            let words = format!(
                "a change by hand is not finished (target {}): the mail server uses neither what this host had confirmed nor, as \
                 far as was seen, the new version",
                names(others)
            );
            ReportError::new(Class::ByHand, words)
        }
        (others, ..) => {
            let words = format!(
                "somebody else changed the login that the mail server uses (target {}), and it has not been put back",
                names(others)
            );
            ReportError::new(Class::Drift, words)
        }
    };
    facts.state.withdrawn = Some(now);
    tell(facts, "withdrawn", Some(error), now);
}

/// Was a person asked, before this wake, to put the source's version into this target by hand? What is found there meanwhile is
/// that change.
fn is_asked_for(facts: &Facts, index: usize) -> bool {
    let asked = facts.waited.as_ref().is_some_and(|id| facts.fetched.as_ref().is_some_and(|found| found.id == *id));
    asked && !is_in_use(facts) && facts.by_hand.contains(&facts.targets[index].name)
}

/// Is it the applied version that this target no longer holds, rather than a candidate that it does not hold yet?
fn drifted_from_applied(facts: &Facts, index: usize) -> bool {
    is_in_use(facts) && drifted(facts, index)
}

fn same_place(policy: &Policy, target: usize) -> Vec<usize> {
    let place = policy.targets[target].logs_in_as;
    (0..policy.targets.len()).filter(|&i| policy.targets[i].logs_in_as == place).collect()
}

/// A 535 within `propagation` of the first one is "not yet"; after it the credential is bad for good.
fn refused(facts: &mut Facts, policy: &TargetPolicy, index: usize, reply: &str, now: Timestamp, jitter: f64) {
    if facts.aside.is_some() {
        // It was accepted before: no new key that is not known yet.
        target_failed(facts, index, refusal(policy, reply, now), now, jitter);
        return;
    }
    let id = facts
        .fetched
        .as_ref()
        .map(|f| f.id.clone())
        .unwrap_or_else(|| VersionId { version: String::new(), order: None });
    let state = facts.target_state(index);
    let first = match &state.first_refused {
        Some(first) if first.id == id => first.since,
        _ => {
            state.first_refused = Some(FirstRefused { id, since: now });
            now
        }
    };
    let until = first.saturating_add(policy.propagation).unwrap_or(Timestamp::MAX);
    if now >= until {
        target_failed(facts, index, refusal(policy, reply, now), now, jitter);
        return;
    }
    let failure = Fault::new(
        Class::NotYet,
        format!("{} answered: {reply}", policy.endpoint),
        format!(
            "nothing yet: SES may not know a new key for some minutes; first refused at {}, given up at {}",
            rfc3339(first),
            rfc3339(until)
        ),
    )
    .temporary()
    .at(now);
    target_failed(facts, index, failure, now, jitter);
    facts.target_state(index).retry.next = now.checked_add(policy.retry).ok();
}

fn refusal(policy: &TargetPolicy, reply: &str, now: Timestamp) -> Failure {
    Fault::new(
        Class::Refused,
        format!("{} refused the credential: {reply}", policy.endpoint),
        "nothing was changed by it; check that the access key is active and that what is stored is the SMTP password made from \
         it for the region of this mail relay; if not, publish a valid one at the source",
    )
    .at(now)
}

fn target_failed(facts: &mut Facts, index: usize, failure: Failure, now: Timestamp, jitter: f64) {
    match &facts.aside {
        // What was met by the version that the source gives stays as it is.
        Some(_) => {
            let what =
                if failure.class == Class::Drift { failure.what } else { not_put_back(facts, Some(index), &failure) };
            failed(&mut facts.state.put_back, Failure { class: Class::Drift, what, ..failure }, now, jitter);
        }
        None => failed(&mut facts.target_state(index).retry, failure, now, jitter),
    }
    let t = &mut facts.targets[index];
    t.failed = true;
    t.must_discard = t.prepared.take().is_some_and(|p| !p.nothing_to_write) && !t.swapped;
    // The proofs of one confirmation share a stamp: made anew when all are there.
    read_back_anew(facts);
}

fn commit(facts: &mut Facts, stamp: &Stamp, report: Report, now: Timestamp) {
    let Some(found) = facts.fetched.clone() else { return };
    let previous_username = facts.previous_username();
    let state = &mut facts.state;
    let in_use_before = state.begun().filter(|begun| begun.used).map(|begun| begun.username.clone());
    let earlier: Vec<String> = in_use_before.chain(state.found_first.clone()).collect();
    let used_before: Vec<String> =
        state.begun().filter(|begun| begun.used).map(|begun| begun.live_id.clone()).collect();
    remember_logins(&mut state.earlier_logins, used_before);
    state.found_first = None;
    let before = state.applied.take();
    let applied_before = before.iter().flat_map(|b| b.previous_username.iter().chain([&b.username])).cloned();
    remember(&mut state.earlier, applied_before.chain(earlier).chain(previous_username.clone()));
    let since = before.as_ref().filter(|b| b.id == found.id).map_or(now, |b| b.since);
    // What was in use and never confirmed is left behind as well.
    let begun = state.begun().filter(|b| b.used && b.source.as_ref() == Some(&found.identity)).map(|b| b.id.clone());
    let offered = facts.aside.as_ref().map(|aside| &aside.offered.id);
    let others = before.map(|b| b.id).into_iter().chain(begun);
    let left: Vec<VersionId> = others.filter(|id| *id != found.id && Some(id) != offered).collect();
    for left in left {
        state.left_behind.retain(|v| *v != left && *v != found.id);
        state.left_behind.push(left);
        let surplus = state.left_behind.len().saturating_sub(LEFT_BEHIND);
        state.left_behind.drain(..surplus);
    }
    if state.source.as_ref() != Some(&found.identity) {
        state.left_behind.clear();
    }
    state.source = Some(found.identity);
    state.applied =
        Some(Applied { id: found.id, username: found.username, previous_username, outcome: stamp.outcome, since });
    // Beside one that was put back, the other version goes on waiting, with all that was met by it.
    let waits = facts.aside.as_ref().map(|aside| aside.offered.id.clone());
    if waits.is_none() {
        state.candidate = None;
    }
    state.put_back = Retry::default();
    state.seq = stamp.seq;
    state.told = Some(report.clone());
    state.report = Some(report);
    (state.withdrawn, state.left) = (None, None);
    state.begun_elsewhere.clear();
    for t in &facts.targets {
        let durable = state.targets.entry(t.name.clone()).or_default();
        if t.activated {
            durable.reload_owed = None;
            durable.unread = None;
        }
        durable.begun.retain(|begun| Some(&begun.id) == waits.as_ref());
        if waits.is_none() {
            (durable.retry, durable.first_refused, durable.change) = (Retry::default(), None, None);
            durable.wanted = None;
        }
        // What the mail log told of was about the login that was there before.
        let of_before = |own: &OwnLogin| t.swapped && own.refused.is_empty();
        durable.own_login = durable
            .own_login
            .take()
            .filter(|own| Some(&own.id) == state.applied.as_ref().map(|a| &a.id) && !of_before(own));
        if let Some(read_back) = &t.read_back {
            let before = std::mem::replace(&mut durable.live_id, read_back.live_id.clone());
            // Until the next confirmation the target has the new one itself.
            remember_logins(&mut state.earlier_logins, before.filter(|id| Some(id) != durable.live_id.as_ref()));
        }
    }
    match facts.aside {
        Some(_) => {
            go_on_with_offered(facts);
            facts.put_back.clear();
        }
        None => facts.committed = Some(stamp.outcome),
    }
}

#[cfg(test)]
pub(crate) mod tests;
