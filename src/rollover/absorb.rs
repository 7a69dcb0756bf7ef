//! The outcome of a step, taken into the facts. One of a step that is no longer under way is dropped.

use jiff::Timestamp;
use relaykey_core::report::ReportOutcome;

use super::commit::commit;
use super::decide::next_step;
use super::drift::{go_on_with_offered, not_given_again, set_aside};
use super::events::{attested, tell};
use super::facts::{Facts, TargetFacts, UnderWay, at_rest, due_one};
use super::failures::{backoff, failed, not_reloaded, target_failed};
use super::fetched::fetched;
use super::logged_in::{accepted, no_answer, own_login, own_refused, probed, refused_there};
use super::looked::inspected;
use super::own_login::OwnResult;
use super::people::{hold, reject};
use super::policy::{Policy, same_place};
use super::put_in_place::{
    activated, by_hand, mismatch, prepared, previewed, read_back, reload_owed, swapped, undo_overtaken, undone,
};
use super::refrained::refrained;
use super::state::Approval;
use super::step::{Outcome, Step, StepId};

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
        (Step::Inspect { target }, Outcome::Inspected(found)) => inspected(facts, *target, found, now),
        // Why it was to be looked at anew is what matters, and is tried again.
        (Step::Inspect { target }, Outcome::Failed(_)) if facts.targets[*target].must_look => {
            facts.targets[*target].must_look = false;
        }
        // As it is where it was looked at before its time: its time has not come yet.
        (Step::Inspect { target }, Outcome::Failed(_)) if !due_one(facts, *target, now) => {
            facts.targets[*target].failed = true;
        }
        (Step::Fetch, Outcome::Fetched(found)) => fetched(facts, policy, found, now),
        (Step::Fetch, Outcome::Failed(failure)) => failed(&mut facts.state.source_retry, failure, now, jitter),
        (Step::FetchApplied, Outcome::Fetched(found)) => set_aside(facts, found, now),
        (Step::FetchApplied, Outcome::Failed(failure)) => {
            let failure = not_given_again(facts, policy, failure, now);
            failed(&mut facts.state.put_back, failure, now, jitter);
        }
        (Step::Verify { target }, Outcome::Accepted(evidence)) => accepted(facts, policy, *target, &evidence, now),
        (Step::Verify { target } | Step::Probe { target }, Outcome::Refused { endpoint, reply }) => {
            refused_there(facts, policy, step, *target, (endpoint.as_deref(), &reply), now, jitter);
        }
        (Step::Verify { target } | Step::Probe { target }, Outcome::Failed(failure)) => {
            no_answer(facts, policy, *target, &failure, now, jitter);
        }
        (Step::Probe { target }, Outcome::Probed) => probed(facts, policy, *target, now),
        (Step::VerifyApplied { target }, Outcome::Accepted(_)) => {
            own_login(facts, policy, *target, OwnResult::Accepted, now);
        }
        (Step::VerifyApplied { target }, Outcome::Refused { endpoint, reply }) => {
            own_refused(facts, policy, *target, endpoint.as_deref(), reply, now);
        }
        (Step::VerifyApplied { target }, Outcome::Failed(failure)) => {
            own_login(facts, policy, *target, OwnResult::Unknown { what: failure.what }, now);
        }
        (Step::VerifyApplied { target }, Outcome::NotGiven(failure)) => {
            own_login(facts, policy, *target, OwnResult::NotGiven { what: failure.what, fix: failure.fix }, now);
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
            tell(facts, ReportOutcome::Left, None, now);
        }
        (Step::Preview { target }, Outcome::Previewed(change, live_id)) => previewed(facts, *target, change, live_id),
        (Step::Prepare { target }, Outcome::Prepared(staged)) => prepared(facts, policy, *target, staged, now, jitter),
        (Step::Prepare { target }, Outcome::ByHand(change, live_id)) => {
            by_hand(facts, policy, *target, (change, live_id), now, jitter);
        }
        (Step::Swap { target }, Outcome::Swapped) => swapped(facts, *target, now),
        (Step::Activate { target }, Outcome::Activated) => activated(facts, *target),
        (Step::Activate { target }, Outcome::ReloadOwed(failure)) => {
            reload_owed(facts, *target, failure, now, jitter);
        }
        (Step::Activate { target }, Outcome::Failed(failure)) => not_reloaded(facts, *target, failure, now, jitter),
        // Its proof is not of the confirmation that comes now.
        (Step::ReadBack { stamp, .. }, Outcome::ReadBack(_)) if facts.stamp.as_ref() != Some(stamp) => {}
        (Step::ReadBack { target, .. }, Outcome::ReadBack(found)) => read_back(facts, *target, found, now),
        (Step::ReadBack { target, .. }, Outcome::Mismatch(failure)) => mismatch(facts, *target, failure, now, jitter),
        (Step::Attest { stamp, .. }, Outcome::ReadBack(found)) => attested(facts, stamp, Some(found)),
        // What is wrong there a look tells, and not a sign of life.
        (Step::Attest { stamp, .. }, Outcome::Mismatch(_) | Outcome::Failed(_)) => attested(facts, stamp, None),
        // On to the look at what is there now, whichever version that was for.
        (Step::Undo { target }, Outcome::Overtaken) => {
            undo_overtaken(facts, policy, *target, now, jitter);
            return true;
        }
        (Step::Undo { target }, result) => undone(facts, *target, result, now, jitter),
        (Step::Discard { target }, _) => facts.targets[*target].must_discard = false,
        (Step::Refrain { target }, Outcome::Refrained) => refrained(facts, policy, *target, now, jitter),
        (Step::Wait { .. }, Outcome::Waited) => waited(facts, now),
        (Step::Commit { stamp }, Outcome::Committed(report)) => commit(facts, stamp, *report, now),
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
    put_back_is_over(facts, policy, now, jitter);
    true
}

/// It was waited: what is due now is looked at anew.
fn waited(facts: &mut Facts, now: Timestamp) {
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

/// Nothing more can be done about what was to be put back: on with what the source gives.
fn put_back_is_over(facts: &mut Facts, policy: &Policy, now: Timestamp, jitter: f64) {
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
}
