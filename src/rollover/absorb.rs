//! The outcome of a step, taken into the facts. One of a step that is no longer under way is dropped.

use jiff::Timestamp;
use relaykey_core::report::{MailServer, ReportOutcome};

use super::commit::commit;
use super::decide::{is_held_for_now, is_watched, may_send, may_write, next_step};
use super::drift::{
    HEAL_WINDOW, HEALS, OTHER_WRITER, drifted, drifted_from_applied, fought_over, go_on_with_offered, is_fought_over,
    left_beside_a_held_one, left_to_others, not_given_again, not_put_back_beside_a_rejected_one, set_aside, taken_back,
    was_asked_for,
};
use super::events::{attested, tell};
use super::facts::{
    Facts, TargetFacts, UnderWay, at_rest, due_one, is_in_use, read_back_anew, rejection_of_found, uses_applied,
};
use super::failures::{OF_LOGINS, backoff, failed, not_reloaded, overtaken, refused, target_failed};
use super::fetched::fetched;
use super::looked::{
    begun_under_another_name, compared, found_before_anything, found_beside_ours, looked_up, nothing_stands_in_the_way,
    own_login, own_login_at,
};
use super::own_login::OwnResult;
use super::people::{hold, left_to_a_person, reject};
use super::policy::{Policy, same_place};
use super::state::Approval;
use super::step::{Outcome, Step, StepId};
use super::target_state::{InUse, Owed, Retry};
use crate::config::Drift;
use crate::fault::{Class, Failure, Fault};
use crate::instruction::relaykey;

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
        (Step::Inspect { target }, Outcome::Inspected(found)) => {
            // A heal that was killed put back what was confirmed: that is no version without a confirmation.
            let applied = facts.state.applied.as_ref().map(|applied| (&applied.id, facts.state.source.as_ref()));
            let of_applied = found.swapped.as_ref().is_some_and(|s| Some((&s.id, s.source.as_ref())) == applied);
            let asked = facts.wake.asked;
            let username = facts.state.applied.as_ref().map(|applied| applied.username.clone());
            let state = facts.target_state(*target);
            if username.is_some_and(|username| found.is_of_other_endpoints(state, &username)) {
                state.live_id = None;
            }
            let starts = state.mail_server == Some(MailServer::Stopped) || found.reload_owed.is_none();
            let runs = found.mail_server == Some(MailServer::Runs);
            (state.reload_owed, state.mail_server) = (found.reload_owed.clone(), found.mail_server);
            state.unread.clone_from(&found.unread);
            state.held.get_or_insert_default().see(&found.held);
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
            // Mail goes to other endpoints than those that took the login.
            if t.inspected.as_ref().is_some_and(|before| before.endpoints != found.endpoints) {
                t.evidence = None;
            }
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
        (Step::Verify { target } | Step::Probe { target }, Outcome::Refused { endpoint, reply }) => {
            // The applied version again, for drift or a confirmation: a login of our own like any other.
            let leader = policy.targets[*target].logs_in_as;
            let next = facts.target_state(leader).own_login.as_ref().and_then(|own| own.next);
            let uses = same_place(policy, leader).into_iter().any(|i| uses_applied(facts, i));
            let counts = is_in_use(facts) && uses && next.is_none_or(|next| next <= now);
            if counts && matches!(step, Step::Verify { .. }) {
                own_login_at(
                    facts,
                    policy,
                    leader,
                    endpoint.as_deref(),
                    OwnResult::Refused { reply: reply.clone() },
                    now,
                );
            }
            for i in same_place(policy, *target) {
                refused(facts, &policy.targets[i].at(endpoint.as_deref()), i, &reply, now, jitter);
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
        (Step::VerifyApplied { target }, Outcome::Refused { endpoint, reply }) => {
            let result = match same_place(policy, *target).into_iter().any(|i| uses_applied(facts, i)) {
                true => OwnResult::Refused { reply },
                false => OwnResult::Unknown { what: format!("{reply} (the mail server uses another login)") },
            };
            own_login_at(facts, policy, *target, endpoint.as_deref(), result, now);
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
            tell(facts, ReportOutcome::Left, None, now);
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
        (Step::Attest { stamp, .. }, Outcome::ReadBack(found)) => attested(facts, stamp, Some(found)),
        // What is wrong there a look tells, and not a sign of life.
        (Step::Attest { stamp, .. }, Outcome::Mismatch(_) | Outcome::Failed(_)) => attested(facts, stamp, None),
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
