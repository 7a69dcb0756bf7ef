//! A target was left as it is: why, and what is said of it.

use jiff::Timestamp;

use super::decide::is_held_for_now;
use super::drift::{
    HEALS, OTHER_WRITER, drifted, drifted_from_applied, fought_over, is_fought_over, left_beside_a_held_one,
    left_to_others, not_put_back_beside_a_rejected_one, taken_back, was_asked_for,
};
use super::facts::{Facts, is_in_use, rejection_of_found};
use super::failures::{failed, target_failed};
use super::people::left_to_a_person;
use super::policy::Policy;
use crate::config::Drift;
use crate::fault::{Class, Failure, Fault};
use crate::instruction::relaykey;

/// Says why, in the order in which the reasons count.
pub(super) fn refrained(facts: &mut Facts, policy: &Policy, index: usize, now: Timestamp, jitter: f64) {
    let failure = if !is_in_use(facts) && is_fought_over(facts, policy, index, now) {
        fought_over(facts, policy, index, now)
    } else if rejection_of_found(facts).is_some() && drifted(facts, index) {
        not_put_back_beside_a_rejected_one(facts, policy, index, now)
    } else if is_held_for_now(facts, policy, now) {
        // The version that waits goes on waiting, and goes when it may: no target has failed.
        let left = left_to_others(facts, policy, now);
        let failure = left_beside_a_held_one(facts, policy, &left, now);
        return failed(&mut facts.state.put_back, failure, now, jitter);
    } else if !drifted_from_applied(facts, index) {
        return left_to_a_person(facts, policy, index, now, jitter);
    } else if was_asked_for(facts, index).is_some() {
        taken_back(facts, index, now)
    } else {
        left_changed_by_others(facts, policy, index, now)
    };
    target_failed(facts, index, failure, now, jitter);
}

/// Somebody else changed what was confirmed, and it is not put back.
fn left_changed_by_others(facts: &Facts, policy: &Policy, index: usize, now: Timestamp) -> Failure {
    let why = match policy.targets[index].drift {
        _ if facts.wake.confirm => "this run only confirms".to_owned(),
        _ if !policy.targets[index].write => "write = false".to_owned(),
        Drift::Heal => format!("it was put back {HEALS} times within the hour"),
        Drift::Report => "drift = \"report\"".to_owned(),
    };
    // On such a target it was a person who had put it there.
    let by_hand = !policy.targets[index].write;
    let before = if by_hand { "this host had confirmed" } else { "relaykey put there" };
    let name = &facts.state.credential;
    let again = match (policy.targets[index].drift, &facts.state.applied) {
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
    let finds_none = facts.targets[index].inspected.as_ref().is_some_and(|seen| seen.usernames.is_empty());
    let gone = match finds_none {
        true => format!(
            "finds no login any more where it had the one that {before} (the entry is gone, or main.cf names another relay \
             or table)"
        ),
        false => format!("no longer holds the login that {before}"),
    };
    Fault::new(
        Class::Drift,
        format!("the mail server (target {}) {gone}, and is left so: {why}", facts.targets[index].name),
        format!("{OTHER_WRITER}{again}"),
    )
    .at(now)
}
