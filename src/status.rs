//! The one document behind `relaykey status`, the health endpoints, the page, the metrics and the service manager's line: its
//! types, and the questions that are asked of it.
//!
//! - `from_state`: how it is made, and what stands in the way of being ready.
//! - `words`: how people are told.
//! - `cost`, `seconds`: what a source costs; every time in whole seconds.

mod cost;
mod from_state;
mod seconds;
mod words;

use std::collections::BTreeMap;

use jiff::Timestamp;
use relaykey_core::report::StillHeld;
use serde::{Deserialize, Serialize};

pub use self::cost::Cost;
pub use self::seconds::InSeconds;
pub use self::words::{UNREAD_FIX, how_to_start, key_refused, not_running, own_login_words, words};
use crate::audit::{By, Record, StepKind};
use crate::config;
use crate::fault::{Class, Failure};
use crate::instruction::Instruction;
use crate::rollover::{
    Approval, CloneOf, Completion, Holds, PlannedChange, Rejected, ReloadOwed, Report, ReportMode, State, Tried,
};

/// The document. A program that reads it goes by `schema`; fields may be added.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Status {
    /// `relaykey/status/v1`.
    pub schema: String,
    /// When it was made.
    pub at: Timestamp,
    /// The daemon that made it; `None`: it is made of state files alone.
    pub daemon: Option<DaemonStatus>,
    /// The installation that this one is a copy of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clone_of: Option<CloneOf>,
    pub credentials: Vec<CredentialStatus>,
}

/// A running `relaykey run`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DaemonStatus {
    /// `relaykey/0.2.0`.
    pub agent: String,
    /// The host's name in reports.
    pub host: String,
    pub pid: u32,
    pub since: Timestamp,
    /// The configuration file in force, and since when.
    pub config: String,
    pub config_since: Timestamp,
    /// A newer configuration that was refused.
    pub config_refused: Option<ConfigRefused>,
    /// Places of `[health]` that cannot be listened at: tried again until they can. Rotation goes on meanwhile.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub not_listening: Vec<NotListening>,
}

/// A place of `[health]` that is not listened at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NotListening {
    /// As configured; `None`: it is the service manager's.
    #[serde(default)]
    pub place: Option<String>,
    /// Since when.
    pub since: Timestamp,
    pub what: String,
    pub fix: String,
}

impl NotListening {
    /// What becomes of it, for people.
    pub const GOES_ON: &str = "keys are kept fresh all the same, and the place is tried again until it can be had";
}

/// A configuration that was read anew and refused: the old one stays in force.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfigRefused {
    pub at: Timestamp,
    /// Every mistake, with file and line in front, and its fix.
    pub mistakes: Vec<ConfigMistake>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfigMistake {
    pub what: String,
    pub fix: String,
}

/// What only the running daemon knows of a credential.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Live {
    /// Since when this daemon watches the credential.
    pub since: Timestamp,
    /// When the source last gave an answer.
    pub answered: Option<Timestamp>,
    pub woken: Option<Woken>,
    /// When the source was last asked, whatever it answered. A wake that only waits asks nothing.
    pub source_asked: Option<Timestamp>,
    pub next_wake: Option<Timestamp>,
    /// The step that is under way.
    pub step: Option<StepKind>,
    /// When each target was last looked at.
    pub looked: BTreeMap<String, Timestamp>,
    /// What the last wake ended with that no state file says, such as a version that this host left behind.
    pub failures: Vec<(Option<String>, Failure)>,
    /// What the mail log said that is not the credential's fault.
    pub notices: Vec<Notice>,
    pub counters: Counters,
    /// Of the audit log, the latest first.
    pub history: Vec<Record>,
}

/// The last wake.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Woken {
    pub at: Timestamp,
    pub by: By,
}

/// Something that was seen and is for a person to judge.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notice {
    pub at: Timestamp,
    /// `policy`: SES took the login and refused the message. `temporary`: 454.
    pub class: Class,
    pub what: String,
    pub fix: String,
}

/// Counts since the daemon started. Keys come from the program's own words, never from outside.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Counters {
    /// Wakes, by cause.
    pub wakes: BTreeMap<String, u64>,
    /// Requests to the source.
    pub source_requests: u64,
    /// Logins at the endpoint: `accepted`, `refused`, `unknown`.
    pub logins: BTreeMap<String, u64>,
    /// `adopted`, `confirmed`, `healed`.
    pub rollovers: BTreeMap<String, u64>,
    /// Failed steps, by class.
    pub failures: BTreeMap<String, u64>,
    /// Lines of the mail log: `refused`, `temporary`, `policy`.
    pub alarms: BTreeMap<String, u64>,
    /// Reports: `delivered`, `failed`.
    pub reports: BTreeMap<String, u64>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct CredentialStatus {
    pub name: String,
    pub source: String,
    /// The same as its owner calls it.
    #[serde(default)]
    pub source_in_full: String,
    pub state: CredentialState,
    /// When a new version goes into use: `automatic` (once it is verified), `manual` (once somebody approves it).
    #[serde(default = "unsaid")]
    pub mode: ReportMode,
    /// Targets that a person changes (`write = false`).
    #[serde(default)]
    pub by_hand: Vec<String>,
    /// Empty: ready, which is what `/readyz` tells.
    pub not_ready: Vec<NotReady>,
    /// What this host put there, or found there, and confirmed.
    pub applied: Option<AppliedStatus>,
    /// What the mail server uses, as it was last looked up; of every target that was looked at.
    #[serde(default)]
    pub in_use: Vec<InUseStatus>,
    /// What was put in place in part.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub half_done: Vec<HalfDone>,
    /// What the login tables of a target hold beside the login in use; of those that hold something, or could not be listed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub held: Vec<HeldStatus>,
    /// While nothing is applied yet: the key that was in use before a version was put in its place.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub found_first: Option<String>,
    /// That the endpoint refuses the applied version: proved by logins of our own.
    #[serde(default)]
    pub applied_refused: Option<AppliedRefused>,
    /// What the latest login of our own with the applied version came to, where the mail log gave reason to make one.
    #[serde(default)]
    pub own_login: Option<Tried>,
    pub pending: Option<PendingStatus>,
    pub failures: Vec<FailureStatus>,
    pub owed: Vec<OwedStatus>,
    /// Targets whose mail server may not go by what is in place, where nothing may reload it, and why.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unread: Vec<OwedStatus>,
    /// Targets whose mail server was not running at the last look.
    #[serde(default)]
    pub mail_server_stopped: Vec<String>,
    /// Targets that were not looked at yet: whether their mail server runs, and what it uses, is not known.
    #[serde(default)]
    pub mail_server_unseen: Vec<String>,
    /// Since when a host that had confirmed holds something else; reported as `withdrawn`.
    #[serde(default)]
    pub withdrawn: Option<Timestamp>,
    /// Why what was confirmed could not be put back, while the source gives another version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_put_back: Option<FailureStatus>,
    /// When this host left the fleet (`relaykey deregister`).
    #[serde(default)]
    pub left: Option<Timestamp>,
    pub reports_owed: Vec<ReportOwed>,
    pub notices: Vec<Notice>,
    /// When something that failed is due again.
    pub next: Option<Timestamp>,
    /// What only a running daemon knows.
    pub live: Option<LiveStatus>,
    /// What asking the source costs.
    pub cost: Cost,
    /// The latest confirmation.
    pub report: Option<Report>,
    /// Recent records of the audit log, the latest first.
    pub history: Vec<Record>,
}

/// What a credential is in, in one word: `up-to-date`, `pending`, `pending-approval`, `by-hand`, `rejected`, `refused`,
/// `failing`, `reload-owed`, `drift`, `report-owed`, `source-down`, `never-applied` and so on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CredentialState {
    /// Nothing stands in the way.
    UpToDate,
    /// The worst of what stands in the way of being ready.
    #[serde(untagged)]
    Hindered(Class),
}

impl CredentialState {
    /// The word of documents.
    pub fn word(self) -> &'static str {
        match self {
            Self::UpToDate => "up-to-date",
            Self::Hindered(class) => class.word(),
        }
    }
}

/// Of a document of a release that did not say.
fn unsaid() -> ReportMode {
    "".into()
}

/// What one target was found to use.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InUseStatus {
    pub target: String,
    /// Each user name under a key that the mail server looks up; empty: no login.
    pub usernames: Vec<String>,
    /// When it was looked up, in whole seconds.
    pub at: Timestamp,
    pub holds: Holds,
    /// With [`Holds::Begun`]: the version that this host put there and never confirmed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub begun: Option<String>,
    /// That was a person, who was asked to.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub begun_by_hand: bool,
}

/// What the login tables of one target hold beside the login in use, as last seen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeldStatus {
    pub target: String,
    #[serde(flatten)]
    pub held: StillHeld,
}

/// What a run that was killed put into the text of a table and not into what the mail server reads.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HalfDone {
    pub target: String,
    pub version: String,
    pub username: String,
}

impl InUseStatus {
    /// `AKIA… and AKIA…`.
    pub fn who(&self) -> String {
        match self.usernames.is_empty() {
            true => "no login".into(),
            false => self.usernames.join(" and "),
        }
    }
}

impl HalfDone {
    /// In one sentence.
    pub fn said(&self) -> String {
        format!(
            "{} (version {}) stands in the text of the table (target {}), and not in what the mail server reads: a run was broken \
             off. Do not delete that key",
            self.username, self.version, self.target
        )
    }
}

/// The applied version is refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AppliedRefused {
    pub endpoint: String,
    /// The first and the latest refusal of a login of our own.
    pub since: Timestamp,
    pub at: Timestamp,
}

/// Why a credential is not ready.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NotReady {
    /// `applied-refused`, `never-applied`, `source-down`, `no-look`, `pending`, `pending-approval`, `by-hand`, `rejected`,
    /// `refused`, `left-behind`, `failing`, `reload-owed`, `drift`, `report-owed`.
    pub class: Class,
    pub what: String,
    pub fix: String,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct LiveStatus {
    /// When the source last gave an answer.
    pub answered: Option<Timestamp>,
    pub woken: Option<Woken>,
    /// When the source was last asked, whatever it answered; a wake may only have waited.
    #[serde(default)]
    pub source_asked: Option<Timestamp>,
    pub next_wake: Option<Timestamp>,
    /// The step that is under way.
    pub step: Option<StepKind>,
    pub counters: Counters,
}

/// Reports that are owed to one receiver.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ReportOwed {
    pub receiver: String,
    pub count: usize,
    /// Of the oldest, as it stands in that document.
    pub since: String,
    pub attempts: u32,
    pub failure: Option<Failure>,
    pub next: Option<Timestamp>,
}

impl ReportOwed {
    /// When the oldest was made, where the document says it in form.
    pub fn made(&self) -> Option<Timestamp> {
        self.since.parse().ok()
    }
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct AppliedStatus {
    pub version: String,
    pub username: String,
    pub previous_username: Option<String>,
    pub outcome: Completion,
    pub since: Timestamp,
    /// When this version was stored at the source; `None`: a file, which does not say so.
    #[serde(default)]
    pub version_stored: Option<Timestamp>,
    /// How old the key is at least, in seconds: since this version was stored (for a file: since it was applied here). When
    /// the key itself was made is not known.
    pub key_age_seconds: i64,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PendingStatus {
    pub version: String,
    pub username: String,
    pub first_seen: Timestamp,
    pub first_refused: Option<Timestamp>,
    /// Since when it waits for a person: to approve it, or to change a target by hand.
    #[serde(default)]
    pub waits_since: Option<Timestamp>,
    /// Does it wait for approval (mode = "manual")?
    #[serde(default)]
    pub for_approval: bool,
    /// The weekly hours in which it goes by itself, in this host's local time: `Sat 02:00-04:00`.
    #[serde(default)]
    pub window: Option<String>,
    /// Does it go by itself where the mail relay refuses the key in use (if_applied_dies = "apply")? Not where the source
    /// cannot give that one, by which it would be proved.
    #[serde(default)]
    pub if_applied_dies: bool,
    /// Why if_applied_dies = "apply" has no effect.
    #[serde(default)]
    pub dies_in_vain: Option<String>,
    /// Who let it go.
    #[serde(default)]
    pub approval: Option<Approval>,
    /// Who said no, and why.
    #[serde(default)]
    pub rejected: Option<Rejected>,
    /// What would change in each target, masked.
    #[serde(default)]
    pub changes: Vec<ChangeStatus>,
    /// Why it is not taken yet, where it is not newer than the applied one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_newer: Option<Failure>,
}

/// What would change in one target.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ChangeStatus {
    pub target: String,
    /// A person makes the change (`write = false`).
    pub by_hand: bool,
    #[serde(flatten)]
    pub change: PlannedChange,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct FailureStatus {
    pub target: Option<String>,
    #[serde(flatten)]
    pub failure: Failure,
    pub attempts: u32,
    /// When it is tried again.
    #[serde(default)]
    pub next: Option<Timestamp>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct OwedStatus {
    pub target: String,
    #[serde(flatten)]
    pub owed: ReloadOwed,
}

/// One credential, as much as is known of it: input of [`Status::new`].
#[derive(Debug, Clone, Copy)]
pub struct KnownCredential<'a> {
    pub credential: &'a config::Credential,
    /// `None`: it has never been applied here.
    pub state: Option<&'a State>,
    pub live: Option<&'a Live>,
}

impl Status {
    /// Is every credential ready?
    pub fn is_ready(&self) -> bool {
        self.credentials.iter().all(|c| c.not_ready.is_empty())
    }

    fn not_listening(&self) -> &[NotListening] {
        self.daemon.as_ref().map_or(&[], |d| &d.not_listening)
    }
}

impl CredentialStatus {
    /// Is something else in use than what was put there and confirmed, as far as it was looked up?
    pub fn is_doubtful(&self) -> bool {
        self.withdrawn.is_some() && !self.holds_begun() && !self.holds_again()
            || self.not_ready.iter().any(|n| n.class == Class::Drift)
            // Where nothing was put there yet, what is found is what was there before.
            || self.in_use.iter().any(|found| {
                found.is_foreign() && (self.applied.is_some() || found.holds == Holds::Nothing)
            })
    }

    /// What a person does about a login that somebody else changed, where relaykey could not put its own back: the source gives
    /// another version than the one that was confirmed, or none. `None`: it may put it back, or has said what to do instead.
    pub fn instead_of_putting_back(&self) -> Option<String> {
        let before = &self.applied.as_ref()?.username;
        match &self.not_put_back {
            Some(f) => Some(f.failure.fix.clone()).filter(|_| !f.failure.temporary),
            None => self.not_given().is_some().then(|| {
                format!("put the login of {before} back by hand: relaykey does not while the source does not give it")
            }),
        }
    }

    /// Of a login that somebody else changed: does its reason say all that is to be done? Else relaykey may put it back by itself,
    /// or try that again.
    pub fn says_how_to_put_back(&self) -> bool {
        let drift = self.failures.iter().map(|f| &f.failure).find(|f| f.class == Class::Drift);
        match (drift, &self.not_put_back) {
            (Some(f), _) => !f.temporary,
            (None, Some(f)) => !f.failure.temporary,
            (None, None) => self.instead_of_putting_back().is_some(),
        }
    }

    /// Is what was confirmed, and withdrawn since, in use again everywhere?
    pub fn holds_again(&self) -> bool {
        let applied = |found: &InUseStatus| found.holds == Holds::Applied;
        self.withdrawn.is_some() && !self.in_use.is_empty() && self.in_use.iter().all(applied) && self.owed.is_empty()
    }

    /// Is a version in use that this host put there and never confirmed, and that is not the one to come any more?
    pub fn holds_begun(&self) -> bool {
        self.in_use.iter().any(|found| found.holds == Holds::Begun)
    }

    /// Who is in use, as it was looked up: `AKIA…`. What was put there, where nothing was looked up yet.
    pub fn key_in_use(&self) -> Option<String> {
        let used = |found: &&InUseStatus| !self.is_unread(&found.target);
        let mut all: Vec<&String> = self.in_use.iter().filter(used).flat_map(|found| &found.usernames).collect();
        // A mail server that has not been reloaded goes on with what was there before.
        if self.in_use.is_empty() || !self.owed.is_empty() {
            all.extend(self.applied.as_ref().map(|a| &a.username));
        }
        all.sort();
        all.dedup();
        let who = all.iter().map(|u| u.as_str()).collect::<Vec<_>>().join(" and ");
        Some(who).filter(|who| !who.is_empty())
    }

    /// May what is in this target's files not be in use, because its mail server was not told of it?
    pub fn is_unread(&self, target: &str) -> bool {
        self.owed.iter().any(|owed| owed.target == target)
    }

    /// Did that begin after this look? Both are in whole seconds: within one, in doubt, it did.
    fn is_unread_since(&self, target: &str, looked: Timestamp) -> bool {
        self.owed.iter().any(|owed| owed.target == target && owed.owed.since >= looked)
    }

    /// Why the source does not give the version that was seen last: it fails, perhaps because it is another one since, or
    /// gives one that is not taken. Then nobody works on that version.
    pub fn not_given(&self) -> Option<&Failure> {
        let of_source = self.failures.iter().filter(|f| f.target.is_none()).map(|f| &f.failure);
        let mut all = of_source.filter(|f| !f.is_an_answer());
        all.find(|f| ![Class::State, Class::NotNewer].contains(&f.class))
    }

    /// That a mail server does not run, where one was seen not to.
    fn stopped(&self) -> Option<String> {
        not_running(&self.mail_server_stopped)
    }

    /// What was there before something else was: who put it there is said where it was relaykey.
    fn had_been(&self, target: &str, applied: &AppliedStatus) -> String {
        let by_us = applied.outcome == Completion::Confirmed && !self.by_hand.iter().any(|name| name == target);
        match by_us {
            true => format!("relaykey had put {} there", applied.username),
            false => format!("this host had confirmed {}", applied.username),
        }
    }

    /// Is a person asked to change this target? What is found there meanwhile is part of that change, and nobody else's doing.
    pub fn is_being_changed(&self, target: &str) -> bool {
        let pending = self.pending.iter().filter(|p| p.rejected.is_none());
        let mut changes = pending.flat_map(|p| &p.changes);
        changes.any(|change| change.by_hand && change.target == target)
    }

    /// Targets whose mail server does not run, and into whose files the new key was put meanwhile: it is in use once that is
    /// started, and nothing else has to be done about it.
    pub fn starts_with_the_new_key(&self) -> Vec<&InUseStatus> {
        let stopped = |found: &&InUseStatus| self.mail_server_stopped.contains(&found.target);
        self.in_use.iter().filter(|found| found.holds == Holds::Pending).filter(stopped).collect()
    }

    /// What has to be said in the place of "mail is not affected"; `None`: every mail server was seen running.
    pub fn mail_not_known(&self) -> Option<String> {
        let targets = self.mail_server_unseen.join(", ");
        let unseen = || format!("whether the mail server runs has not been looked at yet (target {targets})");
        self.stopped().or_else(|| (!targets.is_empty()).then(unseen))
    }
}

impl InUseStatus {
    /// Neither what was put there nor what is to take its place?
    pub fn is_foreign(&self) -> bool {
        matches!(self.holds, Holds::Other | Holds::Nothing)
    }

    /// The same as [`InUseStatus::who`], where the name alone does not tell the difference.
    pub fn who_else(&self, applied: &AppliedStatus) -> String {
        match self.holds == Holds::Other && self.usernames == [applied.username.as_str()] {
            true => format!("{} with another password", applied.username),
            false => self.who(),
        }
    }
}

impl ChangeStatus {
    /// What a person does who makes the change, in this order.
    pub fn todo(&self) -> Vec<Instruction> {
        match self.change.steps.as_slice() {
            [] => self.change.diff.iter().cloned().map(Instruction::Text).collect(),
            steps => steps.to_vec(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Also words of another release, which are written as they were read.
    #[test]
    fn the_state_of_a_credential_is_one_word() {
        for (word, state) in [
            ("up-to-date", Some(CredentialState::UpToDate)),
            ("failing", Some(CredentialState::Hindered(Class::Failing))),
            ("pending-approval", Some(CredentialState::Hindered(Class::PendingApproval))),
            ("of-tomorrow", None),
        ] {
            let read: CredentialState = serde_json::from_value(word.into()).expect("a state");
            assert!(state.is_none_or(|state| state == read), "{word}: {read:?}");
            assert_eq!((read.word(), serde_json::to_value(read).expect("JSON")), (word, word.into()));
        }
    }
}
