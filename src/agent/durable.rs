//! What of a run becomes durable: the state, the lines of the audit log that it owes, and the reports that are owed to others.

use std::sync::{Arc, PoisonError};
use std::time::Instant;

use jiff::Timestamp;
use tokio::sync::watch;

use super::documents::{
    begun_anew, completed, is_news, names_earlier, put_back_record, record, superseded_record, told_of, what_was_done,
    withdrawal_record,
};
use super::steps::target_id;
use super::{Agent, RunEnd, RunEvent, jitter};
use crate::apply::Request;
use crate::audit::{self, By, Record, RecordError, RecordKind, RecordOutcome, StepKind, StepTime};
use crate::config;
use crate::fault::{Class, Failure, Fault};
use crate::report::{self, Attempt, Receivers};
use crate::rollover::{self, Facts, Outcome, Policy, Report, ReportOutcome, Stamp, State, Step, StepId};
use crate::state::{Access, StateError};
use crate::wake;

/// What to do about a state directory that was removed.
const RESTORED: &str =
    "find out what removes it: nothing but relaykey has anything to do there; the audit log in it begins anew";

/// A confirmation that is to become durable.
pub(super) struct Commit<'c> {
    pub(super) id: StepId,
    pub(super) stamp: &'c Stamp,
    pub(super) report: &'c Report,
    /// The steps that led to it, and itself.
    pub(super) steps: &'c [StepTime],
    pub(super) at: Timestamp,
}

impl Agent {
    /// The state that a run begins with: what another installation, a clock or a configuration that changed has left in it is put
    /// right and told first.
    pub(super) async fn take_up(
        &self,
        credential: &config::Credential,
        by: &By,
        observer: &mut (dyn FnMut(RunEvent<'_>) + Send),
    ) -> Result<State, StateError> {
        let mine = || State { host_id: Some(self.identity.host_id.clone()), ..State::new(&credential.name) };
        if let Some(what) = self.store.restore()? {
            observer(RunEvent::Trouble { what: &what, fix: RESTORED });
        }
        let mut state = self.store.load(&credential.name)?.unwrap_or_else(mine);
        if self.store.access() == Access::Write {
            let now = Timestamp::now();
            state.set_right_by(now);
            let before = state.applied.clone();
            let moved = state.moved_to(&self.identity.host_id, self.identity.clone_of.as_ref());
            let latest = state.told.clone().or_else(|| state.report.clone());
            let name = &credential.name;
            for dropped in report::reconcile(&mut state.outbox, &self.receivers, name, latest.as_ref(), now, jitter()) {
                let fix = "nothing, if it was meant so; else add its [[report]] again under the same name";
                observer(RunEvent::Trouble { what: &dropped.to_string(), fix });
            }
            if let Some(moved) = moved {
                let copy = self.identity.clone_of.as_ref().is_some_and(|original| original.host_id == moved.from);
                let record = begun_anew(credential, by, before, &moved, copy, now);
                self.owe(&mut state, &record, None);
                self.save(&state, observer).await?;
                let what = record.error.map(|e| e.words).unwrap_or_default();
                let fix = match copy {
                    true => {
                        "nothing, if this machine was made from the other one; else find out why /etc/machine-id or the id of \
                         the cloud instance has changed"
                    }
                    false => {
                        "nothing, if host.json was taken away on purpose; the former host id stays as a host of its own with who is reported to"
                    }
                };
                observer(RunEvent::Trouble { what: &what, fix });
            }
            self.settle(&mut state, observer).await?;
        }
        Ok(state)
    }

    /// Hands on what root has named as an earlier key of the credential, and writes down who did.
    pub(super) async fn name_earlier(
        &self,
        credential: &config::Credential,
        state: &mut State,
        by: &By,
        id: &str,
        observer: &mut (dyn FnMut(RunEvent<'_>) + Send),
    ) -> Result<Result<(), Failure>, StateError> {
        // Who did it is known whatever becomes of it.
        self.owe(state, &names_earlier(credential, by, id, Timestamp::now()), None);
        self.save(state, observer).await?;
        self.settle(state, observer).await?;
        for target in &credential.targets {
            let request = Request::NameEarlier { target: target_id(credential, target), id: id.to_owned() };
            if let Err(e) = self.call(request).await {
                return Ok(Err(e.at(Timestamp::now())));
            }
        }
        Ok(Ok(()))
    }

    /// Brings the files of the audit log up to what the state says. Mail is more important than the log: what stands in
    /// the way is said, and the rollover goes on.
    pub(super) async fn settle(
        &self,
        state: &mut State,
        observer: &mut (dyn FnMut(RunEvent<'_>) + Send),
    ) -> Result<(), StateError> {
        if state.audit.number == 0 || self.store.access() == Access::Read {
            return Ok(());
        }
        let log = self.log(&state.credential);
        let settle = |head: rollover::AuditHead| {
            let log = log.clone();
            tokio::task::spawn_blocking(move || {
                let mut log = log.lock().unwrap_or_else(PoisonError::into_inner);
                match log.settle(&head) {
                    Err(audit::AuditError::Broken(broken)) => {
                        let next = log.go_on(&head, &broken);
                        (Err(audit::AuditError::Broken(broken)), next.ok())
                    }
                    result => (result, None),
                }
            })
        };
        let Ok((Err(e), next)) = settle(state.audit.clone()).await else { return Ok(()) };
        observer(RunEvent::Trouble { what: &e.to_string(), fix: &e.fix() });
        let Some(next) = next.filter(|next| *next != state.audit) else { return Ok(()) };
        let going_on = State { audit: next, ..state.clone() };
        self.save(&going_on, observer).await?;
        *state = going_on;
        if let Ok((Err(e), _)) = settle(state.audit.clone()).await {
            observer(RunEvent::Trouble { what: &e.to_string(), fix: &e.fix() });
        }
        Ok(())
    }

    /// Tries every report that is owed, for a program that does nothing else meanwhile. What does not arrive stays owed,
    /// as does what is not begun before the deadline, or what is under way when the program is told to stop. Gives what
    /// became of each attempt.
    ///
    /// # Errors
    /// What became of it could not be written down: it is delivered again, which does no harm.
    pub async fn deliver(
        &self,
        state: &mut State,
        receivers: &Arc<Receivers>,
        deadline: Instant,
        stop: &mut watch::Receiver<bool>,
    ) -> Result<Vec<Attempt>, StateError> {
        let mut all = Vec::new();
        report::hasten(&mut state.outbox);
        loop {
            let delivering = report::deliver_due(&mut state.outbox, receivers, Timestamp::now(), jitter());
            let attempts = tokio::select! {
                biased;
                () = wake::stopped(stop) => None,
                attempts = delivering => Some(attempts),
            };
            // Broken off, it may have taken in what some of them came to.
            self.save(state, &mut |_| {}).await?;
            let Some(attempts) = attempts else { return Ok(all) };
            let arrived = attempts.iter().any(|a| a.outcome.is_ok());
            all.extend(attempts);
            if !arrived || Instant::now() >= deadline {
                return Ok(all);
            }
        }
    }

    /// Makes a state durable, off the event loop.
    pub async fn save(&self, state: &State, observer: &mut (dyn FnMut(RunEvent<'_>) + Send)) -> Result<(), StateError> {
        if !self.store.differs(state) {
            return Ok(());
        }
        let (store, new) = (self.store.clone(), state.clone());
        let saved = tokio::task::spawn_blocking(move || {
            let restored = store.restore()?;
            store.save(&new).map(|()| restored)
        })
        .await;
        let restored = saved.unwrap_or_else(|e| Err(StateError::broken_off(&state.credential, &e.to_string())))?;
        if let Some(what) = restored {
            observer(RunEvent::Trouble { what: &what, fix: RESTORED });
        }
        observer(RunEvent::Saved(state));
        Ok(())
    }

    /// Puts into the state what becomes durable together with what was done: its line of the audit log, and to whom its
    /// report is owed.
    pub(super) fn owe(&self, state: &mut State, record: &Record, report: Option<&Report>) {
        let log = self.log(&state.credential);
        state.audit = log.lock().unwrap_or_else(PoisonError::into_inner).append(&state.audit, record);
        if let Some(report) = report {
            report::owe(&mut state.outbox, &self.receivers, report, record.at, jitter());
        }
    }

    /// Makes a confirmation durable: what was done, its line of the audit log and what is owed to whom, in one rename. Gives the facts
    /// that the run goes on with; the log's files are brought up to them by [`Agent::settle`].
    ///
    /// # Errors
    /// It could not be written down: it did not come to pass.
    pub(super) async fn commit(
        &self,
        facts: &Facts,
        policy: &Policy,
        credential: &config::Credential,
        by: &By,
        commit: Commit<'_>,
        observer: &mut (dyn FnMut(RunEvent<'_>) + Send),
    ) -> Result<Facts, StateError> {
        let Commit { id, stamp, report, steps, at } = commit;
        let mut durable = facts.clone();
        let (step, outcome) = (Step::Commit { stamp: stamp.clone() }, Outcome::Committed(Box::new(report.clone())));
        rollover::absorb(&mut durable, policy, id, &step, outcome, at, 0.0);
        let what = what_was_done(facts, stamp);
        // Of what was confirmed, and not of what the run goes on with.
        let record = Record {
            approved_by: facts.approved_by(),
            version: Some(report.version.clone()),
            username: Some(report.username.clone()),
            previous_username: report.previous_username.clone(),
            ..record(&durable, credential, by, what, completed(stamp.outcome), steps, at)
        };
        self.owe(&mut durable.state, &record, Some(report));
        // What there is to tell besides has later numbers.
        // Where the version before was only put back, the run goes on.
        if durable.committed.is_some() {
            rollover::conclude(&mut durable, at, jitter());
        }
        self.tell(&mut durable, credential, by);
        self.save(&durable.state, observer).await?;
        for target in &credential.targets {
            let request = Request::Commit { target: target_id(credential, target) };
            // What apply forgets here it would find out anew; the commit itself has happened.
            let _ = self.call(request).await;
        }
        Ok(durable)
    }

    /// Makes reports of what is to be told, and owes them: in the state, which is saved before the next step.
    pub(super) fn tell(&self, facts: &mut Facts, credential: &config::Credential, by: &By) {
        let (superseded, news) = (std::mem::take(&mut facts.superseded), std::mem::take(&mut facts.news));
        if self.store.access() == Access::Read {
            return;
        }
        for superseded in superseded {
            let record = superseded_record(facts, credential, by, superseded, Timestamp::now());
            self.owe(&mut facts.state, &record, None);
        }
        for news in news {
            // A run that left what somebody else changed has a line that says so; others do not speak of it.
            let left = told_of(facts).is_some_and(|f| f.class == Class::Drift) && facts.carried_out() != Some(true);
            let withdrawn = news.outcome == ReportOutcome::Withdrawn && !left;
            if withdrawn && news.error.as_ref().is_some_and(|e| e.class != Class::Superseded) {
                let record = withdrawal_record(facts, credential, by, &news, Timestamp::now());
                self.owe(&mut facts.state, &record, None);
            }
            let report = self.news(facts, credential, news);
            report::owe(&mut facts.state.outbox, &self.receivers, &report, Timestamp::now(), jitter());
            if report.outcome == ReportOutcome::AppliedRefused {
                facts.state.refusal = Some(report.clone());
            }
            if report.outcome != ReportOutcome::Alive {
                facts.state.told = Some(report);
            }
        }
    }

    /// A run that ended without a commit has its line too, if there is news in it, or if a person asked for it.
    pub(super) async fn note(
        &self,
        facts: &mut Facts,
        credential: &config::Credential,
        by: &By,
        end: RunEnd,
        steps: &[StepTime],
        observer: &mut (dyn FnMut(RunEvent<'_>) + Send),
    ) -> Result<(), StateError> {
        if facts.wake.dry_run || self.store.access() == Access::Read {
            return Ok(());
        }
        if facts.committed.is_some() {
            return self.save(&facts.state, observer).await;
        }
        // What was put back and confirmed has its line.
        let from = steps.iter().rposition(|s| s.step == StepKind::Commit && s.ok).map_or(0, |last| last + 1);
        let steps = &steps[from..];
        if !facts.put_back.is_empty() {
            let record = put_back_record(facts, credential, by, steps, Timestamp::now());
            self.owe(&mut facts.state, &record, None);
        }
        let failed = told_of(facts);
        let settled = steps.iter().any(|s| s.step == StepKind::Activate && s.ok);
        use RecordKind as What;
        use RecordOutcome::{Done, Failed, FailedForNow, Interrupted, PendingApproval};
        let (what, outcome) = match (&failed, end) {
            (_, RunEnd::Interrupted) => (What::Interrupted, Interrupted),
            _ if facts.carried_out() == Some(true) && facts.wake.leave => (What::Departure, Done),
            _ if facts.carried_out() == Some(true) => (What::Rejection, Done),
            // Whoever is to put it right.
            (Some(f), _) if f.class == Class::Drift => (What::Drift, Failed),
            (_, RunEnd::Waits) => (What::Waits, PendingApproval),
            (Some(f), _) if f.class == Class::Refused => (What::Refused, Failed),
            (Some(_), RunEnd::ForGood) => (What::Failed, Failed),
            (Some(_), _) => (What::Failed, FailedForNow),
            (None, _) if settled => (What::Reload, Done),
            (None, _) => (What::NoChange, Done),
        };
        let mut record = record(facts, credential, by, what, outcome, steps, Timestamp::now());
        if let (What::Rejection, Some(rejected)) = (what, facts.state.rejected.last()) {
            record.version = Some(rejected.id.version.clone());
            record.username = facts.state.candidate.as_ref().map(|c| c.username.clone());
            record.error = Some(RecordError { class: Class::Rejected, words: rejected.reason.clone() });
        }
        if what == What::Interrupted && steps.is_empty() || !is_news(&facts.state, &record) {
            return self.save(&facts.state, observer).await;
        }
        let mut state = facts.state.clone();
        self.owe(&mut state, &record, None);
        self.save(&state, observer).await?;
        self.settle(&mut state, observer).await?;
        facts.state = state;
        Ok(())
    }
}

pub(super) fn state_failure(e: &StateError) -> Failure {
    Fault::new(Class::State, e.to_string(), e.fix()).temporary_if(e.is_temporary()).at(Timestamp::now())
}
