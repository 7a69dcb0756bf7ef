//! What is durable about one credential on this host: one file, one rename per change. Which version is applied, which is its
//! candidate, what people said of others, and what is owed to whom.
//!
//! What 0.1.0 wrote is read for ever: a field that came later has a default.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use relaykey_core::audit::AuditHead;
use relaykey_core::report::{Report, ReportOutcome};
use serde::{Deserialize, Serialize};

use super::events::ALIVE_AFTER;
use super::outbox::Outbox;
use super::people::HELD_VERIFIED;
use super::target_state::{Begun, Retry, TargetState};
use crate::credential::{
    NOT_SHOWN, SourceIdentity, VersionId, has_secret_shape, is_access_key_id, shown, shown_or_said,
};
use crate::fault::{Class, Failure};
use crate::text;

/// How many versions that this host left behind are remembered.
pub(super) const LEFT_BEHIND: usize = 100;
/// How many versions that were candidates here are remembered.
const SEEN: usize = 100;
/// How many user names that were in use here before are remembered.
pub(super) const EARLIER: usize = 100;
/// How many logins that were confirmed here before are known again.
const EARLIER_LOGINS: usize = 32;

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
    /// Since when the endpoint refuses the applied version, as it was told. Over with the next confirmation.
    #[serde(default)]
    pub refused: Option<Timestamp>,
    /// That report: as long as it is not over, what comes after it brings it along in the place of a confirmation.
    #[serde(default)]
    pub refusal: Option<Report>,
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
    /// Why what the source gave last was not taken, where nobody asked in vain: it stands until the source gives what is taken. A
    /// process that only reads the state would know nothing of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_taken: Option<Failure>,
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
            refused: None,
            refusal: None,
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
            not_taken: None,
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
pub struct StateMoved {
    /// The other installation's host id.
    pub from: String,
    /// How many reports it owed, and are not owed here.
    pub dropped: usize,
}

impl State {
    /// As last seen: does any target's mail server hold a key beside the login in use, or a table that could not be listed?
    pub fn names_something(&self) -> bool {
        self.targets.values().filter_map(|target| target.held.as_ref()).any(|held| !held.seen.is_empty())
    }

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
    pub fn moved_to(&mut self, host_id: &str, clone_of: Option<&CloneOf>) -> Option<StateMoved> {
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
        Some(StateMoved { from, dropped })
    }
}

/// Takes user names down as earlier ones, the latest last; none that may be a secret.
pub(super) fn remember(earlier: &mut Vec<String>, usernames: impl IntoIterator<Item = String>) {
    let may_be_shown = |username: &String| username != NOT_SHOWN && !has_secret_shape(username);
    remember_last(EARLIER, earlier, usernames.into_iter().filter(may_be_shown));
}

/// The same of the live ids of logins.
pub(super) fn remember_logins(earlier: &mut Vec<String>, logins: impl IntoIterator<Item = String>) {
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
pub(super) const LONGEST_WAIT: SignedDuration = SignedDuration::from_hours(6);

impl State {
    /// The user names of the versions that this host has applied, had applied before, has put in place, or is to apply.
    pub(super) fn usernames(&self) -> impl Iterator<Item = &String> {
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
        for mut report in reports.chain(&mut self.report).chain(&mut self.told).chain(&mut self.refusal) {
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
    pub(super) fn look_again_soon(&mut self) {
        let retries = self.targets.values_mut().map(|t| &mut t.retry);
        for retry in retries.chain([&mut self.source_retry, &mut self.put_back]) {
            let soon = retry.failure.as_ref().and_then(|f| f.at.checked_add(AFTER_A_START).ok());
            retry.next = retry.next.map(|next| soon.map_or(next, |soon| next.min(soon)));
        }
    }
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
        ReportOutcome::from(self).word()
    }
}

/// A confirmation is reported as what it is.
impl From<Completion> for ReportOutcome {
    fn from(completion: Completion) -> Self {
        match completion {
            Completion::Adopted => Self::Adopted,
            Completion::Confirmed => Self::Confirmed,
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
    pub held: Option<HeldVersion>,
    /// Who let it go.
    #[serde(default)]
    pub approval: Option<Approval>,
    /// It is not newer than the applied one, and waits for a second read that gives it too.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub not_newer: bool,
}

/// A version that waits for a person: to approve it, or to change a target by hand.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct HeldVersion {
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
    pub(super) fn holds(&self, now: Timestamp) -> bool {
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

impl State {
    /// Was another version of this number seen here before?
    pub(super) fn has_namesake(&self, id: &VersionId) -> bool {
        let known = self.seen.iter().chain(&self.left_behind).chain(self.rejected.iter().map(|r| &r.id));
        let now = self.applied.iter().map(|a| &a.id).chain(self.candidate.iter().map(|c| &c.id));
        known.chain(now).any(|seen| seen.version == id.version && seen != id)
    }

    /// Takes down that a version is shown to people as the candidate from now on.
    pub(super) fn shows(&mut self, candidate: Candidate) {
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
