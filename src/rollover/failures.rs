//! What failed in a step: what is said of it, and when it is tried again. One that a person, the endpoint or another writer is
//! behind has its own way.

use jiff::{SignedDuration, Timestamp};
use relaykey_core::report::rfc3339;

use super::drift::{HEAL_WINDOW, OVERTAKEN, fought_over, is_fought_over, not_put_back};
use super::facts::{Facts, is_in_use, read_back_anew};
use super::policy::{Policy, TargetPolicy};
use super::refused::RefusedNewKey;
use super::state::LONGEST_WAIT;
use super::target_state::{FirstRefused, Retry};
use crate::credential::VersionId;
use crate::fault::{Class, Failure, Fault};

/// Classes of failures that an accepted login ends.
pub(super) const OF_LOGINS: [Class; 9] = [
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

pub(super) fn failed(retry: &mut Retry, failure: Failure, now: Timestamp, jitter: f64) {
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

/// The mail server was not told. Where something else stands in the way of a new version, that is what people see, and what
/// the next look waits for.
pub(super) fn not_reloaded(facts: &mut Facts, index: usize, failure: Failure, now: Timestamp, jitter: f64) {
    let t = &mut facts.targets[index];
    t.reload_tried = true;
    if t.swapped || !t.failed {
        target_failed(facts, index, failure, now, jitter);
    }
}

/// Somebody else wrote to the files between the swap and its read-back. What they wrote stays; what is there is looked at
/// anew, and the right login is put in at once, unless that was tried too often or is not wanted.
pub(super) fn overtaken(
    facts: &mut Facts,
    policy: &Policy,
    index: usize,
    failure: Failure,
    now: Timestamp,
    jitter: f64,
) {
    let state = facts.target_state(index);
    state.overtaken.retain(|at| now.duration_since(*at) < HEAL_WINDOW);
    state.overtaken.push(now);
    if !is_in_use(facts) && is_fought_over(facts, policy, index, now) {
        let failure = fought_over(facts, policy, index, now);
        target_failed(facts, index, failure, now, jitter);
        return;
    }
    let what = format!("{}: somebody else wrote to it in between, and it is looked at anew", failure.what);
    target_failed(facts, index, Failure { what, temporary: true, ..failure }, now, jitter);
    let again = now.checked_add(OVERTAKEN).ok();
    match facts.aside {
        Some(_) => facts.state.put_back.next = again,
        None => facts.target_state(index).retry.next = again,
    }
}

/// A 535 within `propagation` of the first one is "not yet"; after it the credential is bad for good.
pub(super) fn refused(
    facts: &mut Facts,
    policy: &TargetPolicy,
    index: usize,
    reply: &str,
    now: Timestamp,
    jitter: f64,
) {
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

pub(super) fn refusal(policy: &TargetPolicy, reply: &str, now: Timestamp) -> Failure {
    Fault::new(
        Class::Refused,
        format!("{} refused the credential: {reply}", policy.endpoint),
        RefusedNewKey::InRun { region: policy.region.as_deref() }.fix(),
    )
    .at(now)
}

pub(super) fn target_failed(facts: &mut Facts, index: usize, failure: Failure, now: Timestamp, jitter: f64) {
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
