//! What logins at the endpoint came to: with the version that is to come, and of our own with the applied one.

use jiff::Timestamp;
use relaykey_core::report::Evidence;

use super::decide::may_send;
use super::facts::{Facts, is_in_use, uses_applied};
use super::failures::{OF_LOGINS, refused, target_failed};
use super::own_login::{OwnLoginTrials, OwnResult, Tried};
use super::policy::{Policy, TargetPolicy, same_place};
use super::step::Step;
use super::target_state::Retry;
use crate::fault::Failure;

/// The endpoint took the login. One AUTH serves every target that logs in with the same login at the same place.
pub(super) fn accepted(facts: &mut Facts, policy: &Policy, index: usize, evidence: &Evidence, now: Timestamp) {
    for i in same_place(policy, index) {
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

/// It refused the login, or the probe message with it.
pub(super) fn refused_there(
    facts: &mut Facts,
    policy: &Policy,
    step: &Step,
    index: usize,
    (endpoint, reply): (Option<&str>, &str),
    now: Timestamp,
    jitter: f64,
) {
    // The applied version again, for drift or a confirmation: a login of our own like any other.
    let leader = policy.targets[index].logs_in_as;
    let next = facts.target_state(leader).own_login.as_ref().and_then(|own| own.next);
    let uses = same_place(policy, leader).into_iter().any(|i| uses_applied(facts, i));
    let counts = is_in_use(facts) && uses && next.is_none_or(|next| next <= now);
    if counts && matches!(step, Step::Verify { .. }) {
        own_login_at(facts, policy, leader, endpoint, OwnResult::Refused { reply: reply.to_owned() }, now);
    }
    for i in same_place(policy, index) {
        refused(facts, &policy.targets[i].at(endpoint), i, reply, now, jitter);
    }
}

/// Whether the login is good is not known.
pub(super) fn no_answer(
    facts: &mut Facts,
    policy: &Policy,
    index: usize,
    failure: &Failure,
    now: Timestamp,
    jitter: f64,
) {
    for i in same_place(policy, index) {
        target_failed(facts, i, failure.clone(), now, jitter);
    }
}

/// The probe message was taken.
pub(super) fn probed(facts: &mut Facts, policy: &Policy, index: usize, now: Timestamp) {
    for i in same_place(policy, index) {
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

/// A login of our own with the applied version has come to something.
pub(super) fn own_login(facts: &mut Facts, policy: &Policy, index: usize, result: OwnResult, now: Timestamp) {
    own_login_at(facts, policy, index, None, result, now);
}

/// The same at another endpoint than the target's default one.
pub(super) fn own_login_at(
    facts: &mut Facts,
    policy: &Policy,
    index: usize,
    endpoint: Option<&str>,
    result: OwnResult,
    now: Timestamp,
) {
    let Some(applied) = facts.state.applied.as_ref().map(|a| a.id.clone()) else { return };
    let TargetPolicy { endpoint, retry, .. } = &policy.targets[index].at(endpoint);
    let state = facts.target_state(index);
    let own = state.own_login.take().filter(|own| own.id == applied);
    let mut own = own.unwrap_or_else(|| OwnLoginTrials::of(&applied));
    own.tried(Tried { at: now, endpoint: endpoint.clone(), result }, *retry);
    state.own_login = Some(own);
}

/// The applied version was refused.
pub(super) fn own_refused(
    facts: &mut Facts,
    policy: &Policy,
    index: usize,
    endpoint: Option<&str>,
    reply: String,
    now: Timestamp,
) {
    let result = match same_place(policy, index).into_iter().any(|i| uses_applied(facts, i)) {
        true => OwnResult::Refused { reply },
        false => OwnResult::Unknown { what: format!("{reply} (the mail server uses another login)") },
    };
    own_login_at(facts, policy, index, endpoint, result, now);
}
