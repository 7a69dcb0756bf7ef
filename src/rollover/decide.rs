//! The one next step, and why. Pure: facts, policy and time in. What is in between comes first, then what a person orders, then
//! looks, then the way of a version through its targets as the diagram in `rollover` has it.

use jiff::Timestamp;
use relaykey_core::report::MailServer;

use super::commit::new_stamp;
use super::drift::{drifted, is_changed_by_others, is_fought_over, left_to_others, may_heal, put_back_due};
use super::events::attest_due;
use super::facts::{Facts, TargetFacts, at_rest, due, due_one, is_by_hand, is_in_use};
use super::failures::OF_LOGINS;
use super::policy::Policy;
use super::standing::{Permission, VersionStanding, permission, standing};
use super::step::{Reason, Step};
use super::target_state::{HeldBeside, Retry, TargetState};
use crate::fault::{Class, Failure};

/// The target for whose endpoint a login with the applied version is to be made now.
fn own_login_due(facts: &Facts, now: Timestamp) -> Option<usize> {
    let wake = &facts.wake;
    let other = wake.dry_run || wake.confirm || wake.leave || wake.reject.is_some();
    // The source has to give it: one that does not answer is not asked for more.
    if other || facts.committed.is_some() || facts.fetched.is_none() {
        return None;
    }
    let applied = &facts.state.applied.as_ref()?.id;
    let is_due = |t: &TargetFacts| {
        let own = facts.state.targets.get(&t.name)?.own_login.as_ref()?;
        (own.id == *applied && own.is_wanted() && own.next.is_none_or(|next| next <= now)).then_some(())
    };
    facts.targets.iter().position(|t| is_due(t).is_some())
}

/// Is it known that the candidate's login may send? Where it was put in place, it was known before.
pub(super) fn may_send(facts: &Facts, index: usize) -> bool {
    let t = &facts.targets[index];
    let in_place = t.inspected.as_ref().zip(facts.fetched.as_ref()).is_some_and(|(i, found)| i.has_in_place(found));
    t.probed || t.swapped || in_place
}

/// May this target's files be changed? Asked anew when it is known that they would be.
pub(super) fn may_write(facts: &Facts, policy: &Policy, index: usize, now: Timestamp) -> bool {
    let held = || matches!(permission(facts, policy, now), Permission::Held { .. });
    !is_by_hand(facts, policy, index) && (is_in_use(facts) || !held())
}

/// The one next step to begin, and why. Pure: facts, policy and time in.
pub fn decide(facts: &Facts, policy: &Policy, now: Timestamp) -> (Step, Reason) {
    let (step, reason) = next_step(facts, policy, now);
    let rests = |step: &Step| matches!(step, Step::End | Step::Hold | Step::Wait { .. });
    // A reload that is owed is done whatever becomes of a new version: it may be refused for days.
    let owed = reload_owed(facts, now).filter(|_| rests(&step));
    let (step, reason) = owed.unwrap_or((step, reason));
    // So is what was confirmed put back: the newer version may wait, or be refused, for as long.
    let (step, reason) = match put_back_due(facts, policy, now).filter(|_| rests(&step)) {
        Some(target) => (Step::FetchApplied, Reason::Drifted(facts.targets[target].name.clone())),
        None => (step, reason),
    };
    if !may_begin(facts, &step) {
        return (Step::Await, reason);
    }
    // Whether the applied version is refused is asked where nothing else is to be done: a new version comes first.
    let own_login = own_login_due(facts, now).filter(|_| rests(&step) && facts.under_way.is_empty());
    if let Some(target) = own_login {
        return (Step::VerifyApplied { target }, Reason::MayBeRefused);
    }
    let ends = matches!(step, Step::End | Step::Wait { .. });
    match attest_due(facts, now).filter(|_| ends && facts.under_way.is_empty()) {
        Some((target, stamp)) => {
            let reason = Reason::SignOfLife(facts.targets[target].name.clone());
            (Step::Attest { target, stamp }, reason)
        }
        None => (step, reason),
    }
}

/// May this step be begun beside those that are under way?
fn may_begin(facts: &Facts, step: &Step) -> bool {
    let mut under_way = facts.under_way.iter();
    match step {
        // What is about all targets comes when all are at rest.
        Step::Hold | Step::Reject | Step::Leave | Step::FetchApplied | Step::Commit { .. } | Step::End => {
            facts.under_way.is_empty()
        }
        // Time passes, and the source is asked again, while nothing is done with the version at hand: beside looks alone.
        Step::Fetch | Step::Wait { .. } => under_way.all(|u| matches!(u.step, Step::Inspect { .. })),
        _ => under_way.all(|u| !u.targets.is_empty()),
    }
}

pub(super) fn next_step(facts: &Facts, policy: &Policy, now: Timestamp) -> (Step, Reason) {
    let t = |i: usize| &facts.targets[i];
    let name = |i: usize| facts.targets[i].name.clone();
    // What was swapped and reads back wrong goes back first, what is staged in vain goes away, whatever else there is.
    if let Some(target) = at_rest(facts).find(|&i| t(i).must_undo.is_some()) {
        return (Step::Undo { target }, Reason::Mismatch(name(target)));
    }
    if let Some(target) = at_rest(facts).find(|&i| t(i).must_discard) {
        return (Step::Discard { target }, Reason::InVain(name(target)));
    }
    if let Some(target) = at_rest(facts).find(|&i| t(i).must_look) {
        return (Step::Inspect { target }, Reason::LookAtTarget(name(target)));
    }
    if facts.committed.is_some() {
        return (Step::End, Reason::Committed);
    }
    // What a person orders and what needs nothing else.
    if facts.wake.leave {
        return (if facts.ordered { Step::End } else { Step::Leave }, Reason::Leaves);
    }
    if let Some(target) = (0..facts.targets.len()).find(|&i| t(i).inspected.is_none() && to_look(facts, i, now)) {
        return (Step::Inspect { target }, Reason::LookAtTarget(name(target)));
    }
    // Only now: what is in place in one target already is not to be stopped in between.
    if facts.wake.reject.is_some() {
        return (if facts.ordered { Step::End } else { Step::Reject }, Reason::Rejects);
    }
    let Some(found) = facts.fetched.as_ref().filter(|_| !facts.stale) else {
        if facts.state.source_retry.next.is_none_or(|next| next <= now) {
            return (Step::Fetch, Reason::LookAtSource);
        }
        return waiting(facts, now);
    };
    if let Some(failure) = &facts.blocked {
        return (Step::End, Reason::Blocked(failure.what.clone()));
    }
    let standing = if facts.aside.is_some() { VersionStanding::Applied } else { standing(facts, found, policy) };
    let applied = match standing {
        VersionStanding::Applied => true,
        VersionStanding::Take => false,
        // Waiting makes the first read stale: the second one comes after it.
        VersionStanding::AgreeAt(until) => return (Step::Wait { until }, Reason::SecondRead),
        // `blocked` says so; nothing is due.
        VersionStanding::LeftBehind | VersionStanding::NotTheNamedOne => return (Step::End, Reason::UpToDate),
        VersionStanding::Rejected => {
            // Where the version before it cannot be put back, that is said.
            let healed = put_back_due(facts, policy, now).is_some();
            return match due(facts, now).find(|&i| !healed && is_changed_by_others(facts, i, now)) {
                Some(target) => (Step::Refrain { target }, Reason::Drifted(name(target))),
                None => (Step::End, Reason::Rejected(found.id.version.clone())),
            };
        }
    };
    if !(0..facts.targets.len()).any(|i| needs_work(facts, i, applied)) {
        return (Step::End, Reason::UpToDate);
    }
    let ready: Vec<usize> = due(facts, now).collect();
    // Asked before anything is staged; a heal that is under way is not its own reason to stop.
    let untouched = |i: usize| !t(i).swapped && t(i).prepared.is_none();
    let refrain = |&&i: &&usize| {
        let drifted = applied && drifted(facts, i) && !may_heal(facts, policy, i, now);
        untouched(i) && (drifted || !applied && is_fought_over(facts, policy, i, now))
    };
    if let Some(&target) = ready.iter().find(refrain) {
        return (Step::Refrain { target }, Reason::Drifted(name(target)));
    }
    if !ready.iter().any(|&i| needs_work(facts, i, applied)) {
        return waiting(facts, now);
    }
    let permission = if applied || facts.wake.confirm { Permission::Given } else { permission(facts, policy, now) };
    // Held, and verified not long ago: nothing is to be done before the day is over, the window opens, or somebody asks.
    let held = facts.state.candidate.as_ref().and_then(|c| c.held.as_ref()?.next).filter(|next| *next > now);
    if let (Permission::Held { opens }, Some(next), false) = (&permission, held, facts.wake.dry_run) {
        if let Some(&target) = left_to_others(facts, policy, now).first() {
            return (Step::Refrain { target }, Reason::Drifted(name(target)));
        }
        let reason = Reason::Held { version: found.id.version.clone(), opens: *opens };
        let until = opens.map_or(next, |opens| opens.min(next));
        return (Step::Wait { until }, reason);
    }
    // From here on all targets go the same way, also those that hold the version already: a report names them all.
    if let Some(&target) = ready.iter().find(|&&i| t(i).evidence.is_none()) {
        let why = if applied {
            Reason::Drifted(name(target))
        } else if facts.state.applied.is_none() {
            Reason::Adoption
        } else {
            Reason::NewVersion(found.id.version.clone())
        };
        return (Step::Verify { target }, why);
    }
    let probes = policy.probe && !applied && !facts.wake.dry_run && !facts.wake.confirm;
    if let Some(&target) = ready.iter().find(|&&i| probes && !may_send(facts, i)) {
        return (Step::Probe { target }, Reason::MaySend(name(target)));
    }
    if facts.wake.dry_run {
        return match ready.iter().find(|&&i| t(i).previewed.is_none()) {
            Some(&target) => (Step::Preview { target }, Reason::DryRun),
            None => (Step::End, Reason::DryRun),
        };
    }
    // Where a person decides, or makes the change, it is looked at before anything is staged: it may be made already.
    let by_hand = |i: usize| is_by_hand(facts, policy, i);
    let is_held = matches!(permission, Permission::Held { .. });
    let looks_first = |&&i: &&usize| (by_hand(i) || is_held) && untouched(i) && t(i).previewed.is_none();
    if let Some(&target) = ready.iter().find(looks_first) {
        return (Step::Preview { target }, Reason::LookFirst(name(target)));
    }
    let changes = |i: usize| untouched(i) && t(i).previewed.as_ref().is_some_and(|change| !change.diff.is_empty());
    match permission {
        Permission::Held { opens } if ready.iter().any(|&i| changes(i) && !by_hand(i)) => {
            return (Step::Hold, Reason::Held { version: found.id.version.clone(), opens });
        }
        Permission::Held { .. } | Permission::Give { .. } | Permission::Given => {}
    }
    // What a person is to change is told together: when each was looked at, and without holding up the others.
    let (left_to_a_person, ready): (Vec<usize>, Vec<usize>) =
        ready.into_iter().partition(|&i| by_hand(i) && changes(i));
    match left_to_a_person.first() {
        Some(&target) if facts.under_way.is_empty() => return (Step::Refrain { target }, Reason::ByHand(name(target))),
        Some(_) if ready.is_empty() => return waiting(facts, now),
        _ => {}
    }
    match permission {
        Permission::Give { by, until } => {
            let reason = Reason::Released(by.clone());
            return (Step::Release { by, until }, reason);
        }
        Permission::Held { .. } | Permission::Given => {}
    }
    if let Some(&target) = ready.iter().find(|&&i| t(i).prepared.is_none()) {
        return (Step::Prepare { target }, Reason::Verified(name(target)));
    }
    for &target in &ready {
        let in_place = t(target).swapped || t(target).prepared.as_ref().is_some_and(|p| p.nothing_to_write);
        if !in_place {
            return (Step::Swap { target }, Reason::Staged(name(target)));
        }
        // Also where nothing was written: a table that is read only at a start or reload may be newer than both.
        if !t(target).activated {
            return (Step::Activate { target }, Reason::InPlace(name(target)));
        }
    }
    // Targets are independent up to here; the confirmation waits for all.
    if let Some(&target) = ready.iter().find(|&&i| t(i).read_back.is_none()) {
        let stamp = facts.stamp.clone().unwrap_or_else(|| new_stamp(facts, now));
        return (Step::ReadBack { target, stamp }, Reason::AllActivated);
    }
    match &facts.stamp {
        Some(stamp) if ready.len() == facts.targets.len() => {
            (Step::Commit { stamp: stamp.clone() }, Reason::AllReadBack)
        }
        _ => waiting(facts, now),
    }
}

/// Is this target to be looked at? Also one that waits for its time, where a start of the mail server settles what is in the way,
/// and every one when this program starts.
fn to_look(facts: &Facts, index: usize, now: Timestamp) -> bool {
    let t = &facts.targets[index];
    let started_may_be = |s: &TargetState| s.mail_server == Some(MailServer::Stopped) || s.reload_owed.is_some();
    let waits = || facts.state.targets.get(&t.name).is_some_and(started_may_be);
    // A program that has just started knows of no file what is in it, and watches those that it has looked at.
    let before_its_time = || !t.failed && (facts.wake.at_start || waits() || is_watched(facts, index));
    !facts.is_busy(index) && (due_one(facts, index, now) || before_its_time())
}

/// Does only a new version wait here for its time, or what somebody else has changed? The login that was confirmed is to be in
/// use meanwhile.
pub(super) fn is_watched(facts: &Facts, index: usize) -> bool {
    let retry = facts.state.targets.get(&facts.targets[index].name).map(|s| &s.retry);
    let of_login = |f: &Failure| OF_LOGINS.contains(&f.class) || f.class == Class::Drift;
    facts.state.applied.is_some() && retry.is_some_and(|retry| retry.failure.as_ref().is_some_and(of_login))
}

/// Is the source's version held, and nothing to be done about it now?
pub(super) fn is_held_for_now(facts: &Facts, policy: &Policy, now: Timestamp) -> bool {
    let next = facts.state.candidate.as_ref().and_then(|c| c.held.as_ref()?.next);
    facts.is_held()
        && !is_in_use(facts)
        && !facts.wake.confirm
        && next.is_some_and(|next| next > now)
        && matches!(permission(facts, policy, now), Permission::Held { .. })
}

/// A reload that is owed and can be tried now, whatever the source says, and whatever stands in the way of a new version.
pub(super) fn reload_owed(facts: &Facts, now: Timestamp) -> Option<(Step, Reason)> {
    let wake = &facts.wake;
    if wake.dry_run || wake.leave || wake.reject.is_some() || facts.committed.is_some() {
        return None;
    }
    let owed = |i: &usize| {
        let t = &facts.targets[*i];
        let retry = facts.state.targets.get(&t.name).map(|s| &s.retry);
        // What else failed here, and waits for its time, does not keep a reload from being done; that the reload failed does.
        let of_reload = |retry: &Retry| retry.failure.as_ref().is_some_and(|f| f.class == Class::ReloadOwed);
        let waits = retry.is_some_and(|r| of_reload(r) && r.next.is_some_and(|next| next > now));
        !t.activated && !t.reload_tried && !waits && t.inspected.as_ref().is_some_and(|v| v.reload_owed.is_some())
    };
    let target = at_rest(facts).find(owed)?;
    Some((Step::Activate { target }, Reason::ReloadOwed(facts.targets[target].name.clone())))
}

fn needs_work(facts: &Facts, index: usize, applied: bool) -> bool {
    let t = &facts.targets[index];
    // A confirmation that somebody asks for, that was withdrawn and holds again, of a login that was refused and is taken again,
    // or that names other keys than the tables hold now, is made anew although nothing is to be written.
    let holds = |i: usize| !facts.targets[i].failed && facts.targets[i].inspected.is_some() && !drifted(facts, i);
    let over = facts.state.withdrawn.is_some() || facts.state.is_taken_again();
    let again = (over || names_other_keys(facts)) && (0..facts.targets.len()).all(holds);
    if !applied || facts.wake.confirm || again {
        return true;
    }
    let Some(found) = &t.inspected else { return true };
    let expected = facts.state.targets.get(&t.name).and_then(|s| s.live_id.as_ref());
    found.swapped.is_some() || expected.is_none() || found.holds.as_ref() != expected
}

/// Does somebody have a confirmation of this host that says something else of its login tables than they hold now? Whoever is
/// about to retire a key goes by it.
fn names_other_keys(facts: &Facts) -> bool {
    let state = &facts.state;
    // Without a receiver nothing is owed; who has left is not asked.
    let is_told = !state.outbox.is_empty() && state.applied.is_some() && state.left.is_none() && !facts.wake.dry_run;
    let differs = |t: &TargetFacts| {
        let held = state.targets.get(&t.name).and_then(|state| state.held.as_ref());
        t.inspected.is_some() && held.is_some_and(HeldBeside::differs)
    };
    is_told && facts.targets.iter().any(differs)
}

fn back_off(retry: &Retry) -> Reason {
    Reason::BackOff(retry.failure.as_ref().map_or_else(|| "tried again later".to_owned(), |f| f.what.clone()))
}

/// Wait for the earliest time at which something is due again; nothing is: end.
pub(super) fn waiting(facts: &Facts, now: Timestamp) -> (Step, Reason) {
    let overdue = |t: &TargetFacts| {
        t.failed && facts.state.targets.get(&t.name).and_then(|s| s.retry.next).is_none_or(|next| next <= now)
    };
    if let Some(t) = at_rest(facts).map(|i| &facts.targets[i]).find(|t| overdue(t)) {
        return (Step::Wait { until: now }, Reason::LookAtTarget(t.name.clone()));
    }
    let retries = facts.state.targets.values().map(|t| &t.retry).chain(std::iter::once(&facts.state.source_retry));
    let retries: Vec<&Retry> = retries.filter(|r| r.next.is_some_and(|n| n > now)).collect();
    // A reload that this host must not do is done by nobody but a person.
    let of_a_person = |r: &&Retry| r.failure.as_ref().is_some_and(|f| f.class == Class::ReloadOwed && !f.temporary);
    match retries.iter().min_by_key(|r| r.next) {
        Some(retry) => {
            let reason = match (retries.iter().all(of_a_person), back_off(retry)) {
                (true, Reason::BackOff(what)) => Reason::UntilAPersonActs(what),
                (_, reason) => reason,
            };
            (Step::Wait { until: retry.next.unwrap_or(now) }, reason)
        }
        None => (Step::End, Reason::UpToDate),
    }
}
