//! What came of putting a version in place at one target: from the preview to what is read back, or put back.

use jiff::Timestamp;
use relaykey_core::target::ReloadOwed;

use super::decide::may_write;
use super::drift::{HEAL_WINDOW, drifted};
use super::facts::{Facts, ReadBackFacts, StagedFacts, is_in_use, read_back_anew};
use super::failures::{not_reloaded, overtaken, target_failed};
use super::looked::{compared, looked_up};
use super::people::left_to_a_person;
use super::policy::Policy;
use super::step::Outcome;
use super::target_state::{InUse, PlannedChange};
use crate::fault::{Class, Failure, Fault};

/// What would be changed was looked at.
pub(super) fn previewed(facts: &mut Facts, index: usize, change: PlannedChange, live_id: String) {
    if !facts.wake.dry_run {
        facts.target_state(index).change = Some(change.clone()).filter(|change| !change.diff.is_empty());
    }
    compared(facts, index, &live_id);
    (facts.targets[index].previewed, facts.targets[index].wanted) = (Some(change), Some(live_id));
}

/// Everything is staged.
pub(super) fn prepared(
    facts: &mut Facts,
    policy: &Policy,
    index: usize,
    staged: StagedFacts,
    now: Timestamp,
    jitter: f64,
) {
    let writes = !staged.nothing_to_write;
    let allowed = !writes || may_write(facts, policy, index, now);
    compared(facts, index, &staged.live_id);
    facts.targets[index].prepared = Some(staged);
    if !allowed {
        let failure = Fault::new(
            Class::Changed,
            format!("target {} changed while it was looked at", facts.targets[index].name),
            "nothing: it is looked at anew",
        )
        .temporary()
        .at(now);
        target_failed(facts, index, failure, now, jitter);
    }
}

/// A person is to make the change.
pub(super) fn by_hand(
    facts: &mut Facts,
    policy: &Policy,
    index: usize,
    (change, live_id): (PlannedChange, String),
    now: Timestamp,
    jitter: f64,
) {
    if !facts.wake.dry_run {
        facts.target_state(index).change = Some(change.clone());
    }
    compared(facts, index, &live_id);
    (facts.targets[index].previewed, facts.targets[index].wanted) = (Some(change), Some(live_id));
    left_to_a_person(facts, policy, index, now, jitter);
}

/// The new files are in place.
pub(super) fn swapped(facts: &mut Facts, index: usize, now: Timestamp) {
    let healed = is_in_use(facts) && drifted(facts, index);
    if healed {
        let heals = &mut facts.target_state(index).heals;
        heals.retain(|at| now.duration_since(*at) < HEAL_WINDOW);
        heals.push(now);
    }
    // A reload from before it says nothing of it.
    (facts.targets[index].swapped, facts.targets[index].activated) = (true, false);
    // What is begun goes on, whatever has let it go.
    let of_candidate = facts.state.candidate.as_mut().filter(|_| facts.aside.is_none());
    if let Some(approval) = of_candidate.and_then(|c| c.approval.as_mut()) {
        approval.until = None;
    }
    read_back_anew(facts);
}

/// The mail server has noticed.
pub(super) fn activated(facts: &mut Facts, index: usize) {
    facts.targets[index].activated = true;
    read_back_anew(facts);
    facts.target_state(index).reload_owed = None;
    if let Some(found) = &mut facts.targets[index].inspected {
        found.reload_owed = None;
    }
}

/// It has not, and is to be told.
pub(super) fn reload_owed(facts: &mut Facts, index: usize, failure: Failure, now: Timestamp, jitter: f64) {
    let state = facts.target_state(index);
    let since = state.reload_owed.as_ref().map_or(now, |owed| owed.since);
    state.reload_owed = Some(ReloadOwed { since, why: failure.what.clone() });
    not_reloaded(facts, index, failure, now, jitter);
}

/// The mail server uses the login, with this proof.
pub(super) fn read_back(facts: &mut Facts, index: usize, found: ReadBackFacts, now: Timestamp) {
    let username = facts.fetched.as_ref().map(|f| f.username.clone());
    let seen = InUse { at: now, usernames: username.into_iter().collect(), live_id: found.live_id.clone() };
    let asked = facts.wake.asked;
    looked_up(facts.target_state(index), seen, asked);
    facts.targets[index].read_back = Some(found);
}

/// It uses another.
pub(super) fn mismatch(facts: &mut Facts, index: usize, failure: Failure, now: Timestamp, jitter: f64) {
    facts.targets[index].must_look = true;
    if facts.targets[index].swapped {
        facts.targets[index].must_undo = Some(failure);
    } else {
        target_failed(facts, index, failure, now, jitter);
    }
}

/// The old files were put back, or could not be.
pub(super) fn undone(facts: &mut Facts, index: usize, result: Outcome, now: Timestamp, jitter: f64) {
    let mut failure = in_vain(facts, index, now);
    match result {
        Outcome::Failed(why) => {
            failure.what = format!("{}; and the old files could not be put back: {}", failure.what, why.what);
            failure.fix = why.fix;
            failure.temporary = false;
        }
        _ => failure.what.push_str("; the old files were put back"),
    }
    target_failed(facts, index, failure, now, jitter);
}

/// They were not put back, as somebody else has written to them meanwhile.
pub(super) fn undo_overtaken(facts: &mut Facts, policy: &Policy, index: usize, now: Timestamp, jitter: f64) {
    let failure = in_vain(facts, index, now);
    overtaken(facts, policy, index, failure, now, jitter);
}

/// Why the swap was in vain; what is there is looked at anew.
fn in_vain(facts: &mut Facts, index: usize, now: Timestamp) -> Failure {
    let t = &mut facts.targets[index];
    (t.swapped, t.prepared, t.must_look) = (false, None, true);
    t.must_undo.take().unwrap_or_else(|| {
        Fault::new(Class::Mismatch, "the live files did not read back as the right login", String::new())
            .temporary()
            .at(now)
    })
}
