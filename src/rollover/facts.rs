//! Everything a decision looks at: the durable state, what woke the machine, and what this wake has found out. What outcomes
//! bring is taken in by `absorb`; `agent` writes what it has made durable, and the name under which an endpoint took a login.

use jiff::{SignedDuration, Timestamp};
use relaykey_core::report::{Evidence, MailServer, ReportError, ReportOutcome, ReportTable, StillHeld, Waiting};
use relaykey_core::target::{ReloadOwed, Swapped};

use super::events::alive_after;
use super::own_login::hint;
use super::policy::Policy;
use super::state::{Candidate, Completion, Rejected, State};
use super::step::{Step, StepId};
use super::target_state::{BEGUN, Begun, PlannedChange, TargetState};
use crate::credential::{RegionalLogin, SourceIdentity, VersionId, shown, shown_or_said};
use crate::fault::{Class, Failure};

/// Everything a decision looks at.
#[derive(Debug, Clone, Hash)]
pub struct Facts {
    pub state: State,
    pub wake: Wake,
    /// The source's answer in this wake.
    pub fetched: Option<SourceVersion>,
    /// Time has passed since the source gave that: it is asked again before anything is built on it.
    pub(super) stale: bool,
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
    pub(super) spoke: bool,
    /// A person's order that needs nothing else, such as a rejection, was carried out.
    pub(super) ordered: bool,
    /// How long after the last report a sign of life is due.
    pub(super) alive_after: SignedDuration,
    /// What the next sign of life proves.
    pub(super) attested: Option<Attested>,
    /// [`conclude`] was called.
    pub(super) concluded: bool,
    /// The version that waited for approval when this wake began.
    pub(super) waited: Option<VersionId>,
    /// The version that was shown as the candidate when this wake began, whatever had become of it.
    pub(super) shown: Option<VersionId>,
    /// What the state says of it when this wake begins: who is told in this wake has not had time to look.
    pub(super) told_apart: Option<VersionId>,
    /// A decision that needs a person; shown, and the end of this wake.
    pub(super) blocked: Option<Failure>,
    /// Why what a person approved is not approved. The version that is there instead goes its way all the same, so that the next
    /// approval finds it waiting.
    pub(super) not_approved: Option<Failure>,
    /// The applied version is being put back; what the source gives waits here meanwhile.
    pub(super) aside: Option<Aside>,
    /// The targets in which the applied version was put back in this wake without a confirmation, because of another target.
    pub put_back: Vec<String>,
    /// The targets that a person changes.
    pub(super) by_hand: Vec<String>,
    /// The steps that are under way, at most one about each target.
    pub(super) under_way: Vec<UnderWay>,
    pub(super) steps: u64,
}

/// What the source gives, and what was found out about it, while the version before it is put back: it goes on afterwards.
#[derive(Debug, Clone, Hash)]
pub(super) struct Aside {
    pub(super) offered: SourceVersion,
    pub(super) blocked: Option<Failure>,
    /// By target.
    pub(super) targets: Vec<TargetFacts>,
}

/// A step that was begun and has not ended.
#[derive(Debug, Clone, Hash)]
pub(super) struct UnderWay {
    pub(super) id: StepId,
    pub(super) step: Step,
    /// The targets that wait for its outcome; none: all do, because it is about none of them.
    pub(super) targets: Vec<usize>,
}

/// What woke the machine, as far as it matters to the decision.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Wake {
    /// `sync --accept-version`.
    pub accept_version: Option<String>,
    /// `sync --previous`: an access key id that root names as an earlier one of the credential; whoever drives the machine has
    /// handed it on.
    pub previous: Option<String>,
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
    pub outcome: ReportOutcome,
    pub seq: u64,
    /// In whole seconds, as it stands in the document.
    pub at: Timestamp,
    pub version: String,
    pub username: String,
    pub previous_username: Option<String>,
    /// What was last looked up; `None`: not every mail server was.
    pub in_use: Option<Vec<String>>,
    /// Which version that is, where it is known.
    pub version_in_use: Option<String>,
    /// Of a sign of life: what was found in each target, with its proof; empty where not every one has one.
    pub attested: Vec<ReadBackFacts>,
    /// A failure to put back what was confirmed.
    pub of_applied: bool,
    pub error: Option<ReportError>,
    pub waiting: Option<Waiting>,
}

/// A version that the source gave, without its secret.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct SourceVersion {
    pub identity: SourceIdentity,
    pub id: VersionId,
    pub username: String,
    /// When the source said so.
    pub at: Timestamp,
}

impl SourceVersion {
    /// Is it this very version? A source that was made anew counts from 1 again; and what does not say where it came from
    /// is not taken for anything that somebody let go.
    pub(super) fn is(&self, id: &VersionId, source: Option<&SourceIdentity>) -> bool {
        self.id == *id && Some(&self.identity) == source
    }

    /// Can it be this version, as far as is known? Another source's of the same name is another one; what does not say where it
    /// came from may be.
    pub(super) fn may_be(&self, id: &VersionId, source: Option<&SourceIdentity>) -> bool {
        self.id == *id && source.is_none_or(|source| *source == self.identity)
    }
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
    pub prepared: Option<StagedFacts>,
    pub swapped: bool,
    pub activated: bool,
    pub read_back: Option<ReadBackFacts>,
    /// After a swap, the live files did not read back as the candidate.
    pub must_undo: Option<Failure>,
    /// What the files hold is not known any more: it is looked up at once, although the rest waits.
    pub must_look: bool,
    /// Staged, and then something stood in the way: the staged files go.
    pub must_discard: bool,
    pub previewed: Option<PlannedChange>,
    /// The live id of the login that a preview was made of.
    pub(super) wanted: Option<String>,
    /// Failed in this wake; left alone until its retry is due, then looked at anew.
    pub failed: bool,
    /// It was looked at because this program has started, and waits because of what failed before that.
    pub(super) before_its_time: bool,
    /// A reload that is owed was tried since it was looked at.
    pub(super) reload_tried: bool,
}

impl TargetFacts {
    /// Was nothing staged or swapped in here in this wake?
    pub(super) fn is_untouched(&self) -> bool {
        !self.swapped && self.prepared.is_none()
    }
}

/// What `Inspect` found, as far as decisions need it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Inspection {
    /// The one live id under every key of ours, in text and compiled map; `None`: none, or they differ.
    pub holds: Option<String>,
    /// The user name under the first live key, for comparisons alone: it may be one that is not to be shown.
    pub username: Option<String>,
    /// The live id under the first live key.
    pub first_live_id: Option<String>,
    /// The one live id that the mail server gives under every live key, whatever the text says that its map was compiled
    /// from; `None`: none, or they differ.
    pub in_use: Option<String>,
    /// The user names under the live keys, each once, as they may be shown.
    pub usernames: Vec<String>,
    /// The numbers of the endpoints whose logins stand there, in order; none: the default one's, which is 0.
    pub endpoints: Vec<usize>,
    pub reload_owed: Option<ReloadOwed>,
    /// The confirmed login is in place, what is there was changed by somebody else since it was read, and nothing may reload
    /// the mail server.
    pub unread: Option<ReloadOwed>,
    /// A version swapped in by a run that was killed before its commit.
    pub swapped: Option<Swapped>,
    pub mail_server: Option<MailServer>,
    /// What its login tables hold beside the login in use.
    pub held: HeldFacts,
}

/// What login tables hold beside the login in use.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct HeldFacts {
    /// As a report tells it.
    pub told: StillHeld,
    /// By it is known whether a report would say something else.
    pub mark: String,
}

impl Inspection {
    /// The endpoints, where they are any but the default one alone.
    pub(super) fn endpoints_beside_default(&self) -> Vec<usize> {
        if self.endpoints == [0] { Vec::new() } else { self.endpoints.clone() }
    }

    /// Does mail go to other endpoints than when the version was confirmed, and does everything there hold logins of its user
    /// name? Then nobody has changed a login, and what was confirmed says nothing of the others.
    pub(super) fn is_of_other_endpoints(&self, confirmed: &TargetState, username: &str) -> bool {
        self.endpoints_beside_default() != confirmed.endpoints
            && self.holds.is_some()
            && self.username.as_deref() == Some(username)
    }

    /// Was this very version put in place by a run that was killed?
    pub(super) fn has_in_place(&self, version: &SourceVersion) -> bool {
        self.swapped.as_ref().is_some_and(|swapped| version.is(&swapped.id, swapped.source.as_ref()))
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct StagedFacts {
    pub nothing_to_write: bool,
    pub swapped_before: bool,
    pub live_id: String,
    /// The keys of other relays that go into effect with it, as only the text has them, for people.
    pub goes_live: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ReadBackFacts {
    pub kind: String,
    pub map: String,
    pub keys: Vec<String>,
    pub how: String,
    pub tables: Vec<ReportTable>,
    pub held: HeldFacts,
    pub live_id: Option<String>,
    /// The region that the proof is over, where it is not simply the target's.
    pub region: Option<String>,
    /// Each login of the version, where it has several.
    pub regional: Vec<RegionalLogin>,
    /// The version has a password for one of several regions.
    pub one_region: bool,
    pub proof: Result<String, String>,
    /// The code that a person may type instead of sending the report, or why there is none; `None`: not asked for.
    pub code: Option<Result<String, String>>,
}

/// What the proofs of one confirmation are made over, besides the target.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Stamp {
    pub seq: u64,
    /// In whole seconds, as it stands in the document.
    pub at: Timestamp,
    pub outcome: Completion,
}

/// The number and the time of a sign of life, which its proofs are made over.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct SignOfLife {
    pub seq: u64,
    /// In whole seconds, as it stands in the document.
    pub at: Timestamp,
}

/// What is proved for a sign of life that is due.
#[derive(Debug, Clone, Hash)]
pub(super) struct Attested {
    pub(super) stamp: SignOfLife,
    /// By target, in their order.
    pub(super) targets: Vec<ReadBackFacts>,
    /// One could not be proved: then it goes without.
    pub(super) in_vain: bool,
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
            alive_after: alive_after(policy.lease),
            attested: None,
            concluded: false,
            waited,
            shown,
            told_apart,
            blocked: None,
            not_approved: None,
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
        all.extend(self.blocked.iter().chain(&self.not_approved).map(|f| (None, f)));
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
    pub(super) fn gone(&self) -> Option<usize> {
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
    pub(super) fn is_of_applied(&self, inspected: &Inspection) -> bool {
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
    pub(super) fn is_other(&self, begun: &Begun) -> bool {
        self.fetched.as_ref().is_some_and(|found| !begun.is(found))
    }

    /// The version that was found in use in this wake, where this host put it there and never confirmed it.
    pub(super) fn begun_in_use(&self, t: &TargetFacts) -> Option<&Begun> {
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
    pub(super) fn is_held(&self) -> bool {
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
            holds: live_id,
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
    pub(super) fn is_busy(&self, index: usize) -> bool {
        self.under_way.iter().any(|under_way| under_way.targets.contains(&index))
    }

    pub(super) fn target_state(&mut self, index: usize) -> &mut TargetState {
        self.state.targets.entry(self.targets[index].name.clone()).or_default()
    }
}

/// Does the mail server of this target use the applied version, as far as was looked up? Where somebody else's login is in its
/// place, a refusal of it keeps no mail from going out.
pub(super) fn uses_applied(facts: &Facts, index: usize) -> bool {
    let Some(state) = facts.state.targets.get(&facts.targets[index].name) else { return true };
    match (&state.in_use, &state.live_id) {
        (Some(found), Some(expected)) => found.live_id.as_ref() == Some(expected),
        _ => true,
    }
}

/// Is it the applied version that the source gives? Another source's of the same number is another one.
pub fn is_in_use(facts: &Facts) -> bool {
    match (&facts.state.applied, &facts.fetched) {
        (Some(applied), Some(found)) => found.may_be(&applied.id, facts.state.source.as_ref()),
        (applied, found) => applied.is_none() && found.is_none(),
    }
}

/// Is this target one that a person changes, at least in this wake?
pub(super) fn is_by_hand(facts: &Facts, policy: &Policy, index: usize) -> bool {
    !policy.targets[index].write || facts.wake.confirm
}

pub(super) fn due_one(facts: &Facts, index: usize, now: Timestamp) -> bool {
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
pub(super) fn at_rest(facts: &Facts) -> impl Iterator<Item = usize> + '_ {
    (0..facts.targets.len()).filter(|&i| !facts.is_busy(i))
}

pub(super) fn due(facts: &Facts, now: Timestamp) -> impl Iterator<Item = usize> + '_ {
    at_rest(facts).filter(move |&i| due_one(facts, i, now))
}

/// The rejection of the version that the source gives, where that is not the one in use.
pub(super) fn rejection_of_found(facts: &Facts) -> Option<&Rejected> {
    let found = facts.fetched.as_ref().filter(|_| !is_in_use(facts))?;
    facts.rejection(&found.id)
}

/// A stamp and read-backs from before a swap, or before a mail server was told of it, are not of the confirmation that
/// comes now.
pub(super) fn read_back_anew(facts: &mut Facts) {
    facts.stamp = None;
    facts.targets.iter_mut().for_each(|t| t.read_back = None);
}
