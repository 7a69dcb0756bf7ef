//! The loop: one run over one credential, from the state on disk to the state on disk.
//!
//! A step that takes longer than a moment holds up no other target: what can be begun beside it is. What must not be torn is
//! finished before the program ends, and what must be found again after a crash is on disk before the next step begins.

use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use tokio::sync::watch;

use super::account;
use super::doubts::{doubts_of, each_once};
use super::durable::{Commit, state_failure};
use super::fetched::name_once_accepted;
use super::steps::{Done, KeptInRun, outcome_of, target_id};
use super::{Agent, FinishedRun, Run, RunEnd, RunEvent, jitter};
use crate::apply::{self, Reply, Request};
use crate::audit::{StepKind, StepTime};
use crate::config;
use crate::fault::{Class, Fault};
use crate::report;
use crate::rollover::{self, Facts, Outcome, Policy, Reason, Step};
use crate::state::{Access, StateError};
use crate::wake;

/// A step that must not be torn ends within this from when the program is told to end ([`apply::ending`]): three minutes for a
/// reload are the longest, and 5 s for each command that only looks. Who is told to end waits for it no longer.
pub const LONGEST_STEP: Duration = Duration::from_secs(4 * 60);

/// As [`LONGEST_STEP`], for the read-back after a swap. It only looks, and is worth its time as long as nothing hangs: what does
/// not read back is put back by this process alone. The next start reads back again.
const READING_BACK: Duration = Duration::from_secs(20);

/// A step that ends within this has the next one wait for it: what goes well goes in one order.
const A_MOMENT: Duration = Duration::from_secs(1);

/// As [`LONGEST_STEP`], for one that stages files, or removes them again. Nothing in use is changed by it, and the next start removes
/// what it left.
const STAGING: Duration = Duration::from_secs(3);

impl Agent {
    /// Runs one credential until nothing is left to do, or nothing before the deadline.
    ///
    /// `stop` becomes true when the program is to end: what only looks is broken off, any other step under way is
    /// finished if it does not hang, what is staged is removed.
    pub async fn run(&self, run: Run<'_>, stop: &mut watch::Receiver<bool>) -> Result<FinishedRun, StateError> {
        let Run { credential, source, wake, by, ignore_backoff, deadline, observer } = run;
        let policy = Policy { lease: self.lease, ..Policy::new(credential, TimeZone::system()) };
        let mut state = self.take_up(credential, &by, observer).await?;
        if let Some(id) = &wake.previous
            && let Err(failure) = self.name_earlier(credential, &mut state, &by, id, observer).await?
        {
            return Ok(FinishedRun::failed(state, failure));
        }
        let mut facts = Facts::new(state, &policy, wake, ignore_backoff);
        if report::keeps_a_roster(&self.receivers, &credential.name) {
            rollover::hello(&mut facts, Timestamp::now());
        }
        let kept = KeptInRun::default();
        let mut unsaved = None;
        let mut steps = Vec::new();
        let mut next = None;
        let mut doubts = Vec::new();
        let mut doing = FuturesUnordered::new();
        let (end, reason) = loop {
            let now = Timestamp::now();
            self.tell(&mut facts, credential, &by);
            let (step, reason) = rollover::decide(&facts, &policy, now);
            // What a crash must find again is on disk before the next step; above all before a swap. A target that is
            // in between is put right first, even if nothing can be written down, and even if the program is to end.
            // What a person has ordered, a rejection or a departure, waits for its line of the audit log: one rename.
            let ordered = step == Step::End && facts.carried_out().is_some() && unsaved.is_none();
            if !ordered && let Err(e) = self.save(&facts.state, observer).await {
                unsaved = Some(e);
            }
            let goes_on = facts.is_torn()
                && matches!(
                    step,
                    Step::Swap { .. }
                        | Step::Activate { .. }
                        | Step::ReadBack { .. }
                        | Step::Undo { .. }
                        | Step::Discard { .. }
                );
            // What is under way and must not be torn is waited for.
            let ends = !goes_on && !ordered && (unsaved.is_some() || *stop.borrow());
            if ends && facts.under_way().all(|step| patience(step).is_zero()) {
                break (RunEnd::Interrupted, reason);
            }
            let left = match step {
                Step::Wait { until } => Duration::try_from(until.duration_since(now)).unwrap_or_default(),
                _ => Duration::ZERO,
            };
            let in_vain = matches!(reason, Reason::UntilAPersonActs(_));
            let too_long = matches!(step, Step::Wait { .. }) && (in_vain || Instant::now() + left > deadline);
            if (step == Step::End || too_long) && facts.under_way().next().is_none() {
                let due = if let Step::Wait { until } = step { Some(until) } else { None };
                let others = facts.state.next_own_login().into_iter().chain(facts.state.put_back.next);
                next = due.into_iter().chain(others).min();
                break (ended(&facts, &policy), reason);
            }
            let waits = matches!(step, Step::Wait { .. });
            let begins = !ends && !too_long && step != Step::Await;
            let began = Instant::now();
            let id = begins.then(|| rollover::begin(&mut facts, &policy, &step));
            if let Some(id) = id {
                observer(RunEvent::Begins { step: &step, reason: &reason });
                if !waits {
                    let (facts, step, kept) = (facts.clone(), step.clone(), &kept);
                    doing.push(async move {
                        let done = self.step(&facts, credential, source, &step, kept).await;
                        (id, step, began, done)
                    });
                }
            }
            let patience = facts.under_way().map(patience).max().unwrap_or_default();
            let (id, step, began, done) = tokio::select! {
                Some(ended) = doing.next() => ended,
                () = wake::wait(left), if begins && waits => {
                    (id.expect("it was begun"), step, began, Done::Outcome(Box::new(Outcome::Waited)))
                }
                () = tokio::time::sleep(A_MOMENT), if begins && !waits => continue,
                () = told_to_end(stop, patience) => break (RunEnd::Interrupted, reason),
            };
            let done = match done {
                Done::Replied(result, login) => {
                    if let (Ok(Reply::Inspected(seen)), Some(target)) = (&*result, step.target()) {
                        doubts.extend(doubts_of(seen, &credential.name, &credential.targets[target].name));
                    }
                    Done::Outcome(Box::new(taken(*result, login, &step, &facts, credential, observer)))
                }
                done => done,
            };
            let outcome = match (&step, done) {
                (Step::Commit { stamp }, Done::Reported(report)) => {
                    let outcome = Outcome::Committed(report.clone());
                    steps.push(account::step_time(credential, &step, &outcome, began.elapsed()));
                    let commit = Commit { id, stamp, report: &report, steps: &steps, at: now };
                    match self.commit(&facts, &policy, credential, &by, commit, observer).await {
                        Ok(durable) => {
                            facts = durable;
                            self.settle(&mut facts.state, observer).await?;
                            observer(RunEvent::Ended { step: &step, outcome: &outcome, took: began.elapsed() });
                            continue;
                        }
                        Err(e) => {
                            // It did not come to pass: as a failed step it is counted below.
                            steps.pop();
                            Outcome::Failed(state_failure(&e))
                        }
                    }
                }
                (_, Done::Outcome(outcome)) => *outcome,
                (_, Done::Reported(_) | Done::Replied(..)) => unreachable!("only a commit makes a report"),
            };
            let took = began.elapsed();
            if !matches!(step, Step::Wait { .. }) {
                steps.push(account::step_time(credential, &step, &outcome, took));
            }
            observer(RunEvent::Ended { step: &step, outcome: &outcome, took });
            name_once_accepted(&mut facts, &step, &outcome, kept.fetched.get().as_ref());
            rollover::absorb(&mut facts, &policy, id, &step, outcome, Timestamp::now(), jitter());
        };
        drop(doing);
        let leaving = self.leave_all(credential, &facts, &steps);
        if *stop.borrow() {
            // A target that is still at work on something that hangs lets nobody in, and the program is to end: what stays
            // staged goes at the next start.
            let _ = tokio::time::timeout(STAGING, leaving).await;
        } else {
            leaving.await;
        }
        drop(kept);
        if let Some(e) = unsaved {
            return Err(e);
        }
        let failures: Vec<_> = facts.failures().into_iter().map(|(t, f)| (t.map(str::to_owned), f.clone())).collect();
        if end != RunEnd::Interrupted && self.store.access() == Access::Write {
            rollover::conclude(&mut facts, Timestamp::now(), jitter());
            self.tell(&mut facts, credential, &by);
        }
        self.note(&mut facts, credential, &by, end, &steps, observer).await?;
        // Of several targets the first that has one: they share a login, or a key of which theirs are made.
        let codes = facts.targets.iter().filter_map(|t| t.read_back.as_ref()?.code.clone());
        let (good, bad): (Vec<_>, Vec<_>) = codes.partition(Result::is_ok);
        Ok(FinishedRun {
            end,
            failures,
            reason,
            steps,
            next,
            carried_out: facts.carried_out(),
            answered: facts.fetched.as_ref().map(|f| f.at),
            code: good.into_iter().chain(bad).next().filter(|_| facts.committed.is_some()),
            doubts: each_once(doubts),
            not_confirmed: facts.wake.confirm && facts.committed.is_none(),
            state: facts.state,
        })
    }

    /// Nothing stays staged, locked or in memory when a run ends, however it ends: the next one may be hours away.
    async fn leave_all(&self, credential: &config::Credential, facts: &Facts, steps: &[StepTime]) {
        for (target, facts) in credential.targets.iter().zip(&facts.targets) {
            if facts.prepared.is_some() && !facts.swapped {
                // What cannot be removed now is removed by name at the next start.
                let _ = self.call(Request::Discard { target: target_id(credential, target) }).await;
            }
            if steps.iter().any(|s| s.step == StepKind::Prepare && s.target.as_ref() == Some(&target.name)) {
                let _ = self.call(Request::Leave { target: target_id(credential, target) }).await;
            }
        }
    }
}

/// How long a program that is told to end waits for a step under way.
fn patience(step: &Step) -> Duration {
    match step {
        // They only look: nothing is torn.
        Step::Wait { .. } | Step::Fetch | Step::Verify { .. } | Step::VerifyApplied { .. } => Duration::ZERO,
        Step::Inspect { .. } | Step::Preview { .. } | Step::FetchApplied | Step::Attest { .. } => Duration::ZERO,
        Step::Prepare { .. } | Step::Discard { .. } => STAGING,
        Step::ReadBack { .. } => READING_BACK,
        _ => LONGEST_STEP,
    }
}

/// Comes back so long after the program was told to end.
async fn told_to_end(stop: &mut watch::Receiver<bool>, patience: Duration) {
    wake::stopped(stop).await;
    if !patience.is_zero() {
        tokio::time::sleep(patience).await;
    }
}

/// The exit that the facts stand for when nothing is left to do.
fn ended(facts: &Facts, policy: &Policy) -> RunEnd {
    if let Some(done) = facts.carried_out() {
        return if done { RunEnd::Done(None) } else { RunEnd::ForGood };
    }
    let owed = facts.state.targets.values().any(|t| t.reload_owed.is_some());
    let failures = facts.failures().into_iter().filter(|(_, f)| f.class != Class::NothingToDo);
    let (by_hand, failures): (Vec<_>, Vec<_>) =
        failures.partition(|(target, f)| facts.is_for_a_person(policy, *target, f));
    // A dry run decides nothing, and holds nothing.
    let waits = if facts.wake.dry_run { !by_hand.is_empty() } else { facts.waits_for_a_person(policy) };
    let pending = facts.state.candidate.as_ref().filter(|_| facts.committed.is_none() && !facts.wake.dry_run);
    let is_rejected = |c: Option<&rollover::Candidate>| c.is_some_and(|c| facts.rejection(&c.id).is_some());
    if failures.iter().any(|(_, f)| !f.temporary && f.class != Class::ReloadOwed) {
        RunEnd::ForGood
    } else if owed || !failures.is_empty() {
        RunEnd::ForNow
    } else if facts.committed.is_none() && (waits || facts.wake.confirm && is_rejected(pending)) {
        // Nothing is confirmed of a version that is not to be taken; what is to come instead is a person's matter.
        RunEnd::Waits
    } else if pending.is_some() && !is_rejected(pending) {
        // Seen, and waiting for the second read.
        RunEnd::ForNow
    } else {
        RunEnd::Done(facts.committed)
    }
}

/// Tells what a reply of apply shows, and gives its outcome.
fn taken(
    result: Result<Reply, Fault>,
    shown: Option<apply::Logins>,
    step: &Step,
    facts: &Facts,
    credential: &config::Credential,
    observer: &mut (dyn FnMut(RunEvent<'_>) + Send),
) -> Outcome {
    let target = &credential.targets[step.target().expect("apply is asked about targets")];
    match result {
        Ok(reply) => {
            if let Reply::Inspected(seen) = &reply {
                observer(RunEvent::Files { target: &target.name, files: &seen.files, log: seen.log.as_ref() });
            }
            if let (Reply::Previewed(change), Some(logins)) = (&reply, &shown) {
                observer(RunEvent::Preview { target: &target.name, change, logins });
            }
            outcome_of(reply, step, target, facts)
        }
        // What somebody else has written since is theirs.
        Err(e) if matches!(step, Step::Undo { .. }) && e.class == apply::OVERTAKEN => Outcome::Overtaken,
        Err(e) => Outcome::Failed(e.at(Timestamp::now())),
    }
}
