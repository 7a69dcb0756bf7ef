//! Somebody else changed what this host had confirmed. It is put back where that is allowed and was not done too often,
//! also beside another version that the source gives: the applied one goes first then, and the other one waits aside. Where
//! it is left, that is said, with what to do.

use jiff::{SignedDuration, Timestamp};

use super::facts::{
    Aside, Facts, Inspection, SourceVersion, TargetFacts, due, is_by_hand, is_in_use, rejection_of_found,
};
use super::policy::{Policy, TargetPolicy};
use super::standing::{Permission, VersionStanding, permission, standing};
use super::target_state::{Begun, tells_apart};
use crate::config::Drift;
use crate::credential::VersionId;
use crate::fault::{Class, Failure, Fault};
use crate::instruction::relaykey;

/// Drift is healed this often within [`HEAL_WINDOW`], then only reported.
pub(super) const HEALS: usize = 3;
pub(super) const HEAL_WINDOW: SignedDuration = SignedDuration::from_hours(1);
/// After somebody else wrote to a table between a swap and its read-back, it is looked at again this long after.
pub(super) const OVERTAKEN: SignedDuration = SignedDuration::from_secs(1);

/// The target in which the applied version is to be put back now, although the source gives another one: somebody else changed
/// the login, or a run was killed while it put it back.
pub(super) fn put_back_due(facts: &Facts, policy: &Policy, now: Timestamp) -> Option<usize> {
    let wake = &facts.wake;
    let other = wake.dry_run && !wake.foresees || wake.confirm || wake.leave || wake.reject.is_some();
    let at_hand =
        facts.fetched.is_some() && !facts.stale && facts.state.applied.is_some() && facts.state.source.is_some();
    if other || !at_hand || is_in_use(facts) || facts.committed.is_some() {
        return None;
    }
    // What was begun with the other version goes on.
    let swapped_otherwise = |i: &Inspection| i.swapped.is_some() && !facts.is_of_applied(i);
    let is_begun = |t: &TargetFacts| !t.is_untouched() || t.inspected.as_ref().is_some_and(swapped_otherwise);
    if facts.state.put_back.next.is_some_and(|next| next > now) || facts.targets.iter().any(is_begun) {
        return None;
    }
    // For who only looks, what a run would put in place is begun.
    let previewed = || facts.aside.is_none() && facts.targets.iter().any(|t| t.previewed.is_some());
    if wake.foresees && previewed() && !matches!(permission(facts, policy, now), Permission::Held { .. }) {
        return None;
    }
    let of_applied = |i: usize| facts.targets[i].inspected.as_ref().is_some_and(|seen| facts.is_of_applied(seen));
    let mut ours = (0..facts.targets.len()).filter(|&i| !is_by_hand(facts, policy, i));
    ours.find(|&i| of_applied(i) || is_changed_by_others(facts, i, now) && may_heal(facts, policy, i, now))
}

/// The targets in which somebody else changed the login and in which it is not put back, beside a version that waits: where
/// that is to be said now.
pub(super) fn left_to_others(facts: &Facts, policy: &Policy, now: Timestamp) -> Vec<usize> {
    let not_yet = facts.state.put_back.next.is_some_and(|next| next > now);
    if not_yet || is_in_use(facts) || put_back_due(facts, policy, now).is_some() {
        return Vec::new();
    }
    due(facts, now).filter(|&i| is_changed_by_others(facts, i, now)).collect()
}

pub(super) fn drifted(facts: &Facts, index: usize) -> bool {
    let t = &facts.targets[index];
    let expected = facts.state.targets.get(&t.name).and_then(|s| s.live_id.as_ref());
    t.inspected.as_ref().is_some_and(|found| found.swapped.is_none() && found.holds.as_ref() != expected)
        && expected.is_some()
}

/// Does somebody else write to this target whenever a version was put there? Then it is left, and said.
pub(super) fn is_fought_over(facts: &Facts, policy: &Policy, index: usize, now: Timestamp) -> bool {
    let overtaken = facts.state.targets.get(&facts.targets[index].name).map(|s| s.overtaken.as_slice());
    let recent = overtaken.unwrap_or_default().iter().filter(|at| now.duration_since(**at) < HEAL_WINDOW).count();
    let most = match policy.targets[index].drift {
        Drift::Heal => HEALS,
        Drift::Report => 0,
    };
    recent > most
}

/// May this drifted target be healed now? Not where `drift = "report"` or a person changes it, and not too often within
/// the hour.
pub(super) fn may_heal(facts: &Facts, policy: &Policy, index: usize, now: Timestamp) -> bool {
    let heals = facts.state.targets.get(&facts.targets[index].name).map(|s| s.heals.as_slice()).unwrap_or_default();
    let recent = heals.iter().filter(|at| now.duration_since(**at) < HEAL_WINDOW).count();
    policy.targets[index].drift == Drift::Heal && !is_by_hand(facts, policy, index) && recent < HEALS
}

/// What to do about drift before anything else.
pub(super) const OTHER_WRITER: &str =
    "find out what changes the table or main.cf (configuration management, a script) and make it stop";

/// The applied version was fetched: it is put back first, as if it were what the source gives.
pub(super) fn set_aside(facts: &mut Facts, applied: SourceVersion, now: Timestamp) {
    // What cannot be looked at is not written to, and what somebody has put there of the version to come stays.
    let is_left = |i: usize| match &facts.targets[i].inspected {
        Some(seen) => drifted(facts, i) && !facts.is_of_applied(seen) && !is_changed_by_others(facts, i, now),
        None => true,
    };
    let fresh = |(i, t): (usize, &TargetFacts)| TargetFacts {
        name: t.name.clone(),
        inspected: t.inspected.clone(),
        failed: is_left(i),
        ..TargetFacts::default()
    };
    let targets = facts.targets.iter().enumerate().map(fresh).collect();
    let Some(offered) = facts.fetched.replace(applied) else { return };
    let blocked = facts.blocked.take();
    let targets = std::mem::replace(&mut facts.targets, targets);
    facts.aside = Some(Aside { offered, blocked, targets });
    facts.stamp = None;
}

/// What the source gives is at hand again, with what was found out about it. The targets are looked at anew.
pub(super) fn go_on_with_offered(facts: &mut Facts) {
    let Some(Aside { offered, blocked, targets }) = facts.aside.take() else { return };
    (facts.fetched, facts.blocked, facts.stamp) = (Some(offered), blocked, None);
    let before = std::mem::replace(&mut facts.targets, targets);
    facts.put_back.extend(before.iter().filter(|t| t.swapped).map(|t| t.name.clone()));
    for (t, healed) in facts.targets.iter_mut().zip(before) {
        let TargetFacts { name, evidence, probed, failed, before_its_time, .. } = std::mem::take(t);
        // A login that was put back in vain is still gone; where one was written, what is there is not known.
        let inspected = healed.inspected.filter(|_| healed.failed && !healed.swapped);
        *t = TargetFacts { name, evidence, probed, failed, before_its_time, inspected, ..TargetFacts::default() };
    }
}

/// What to do about a login that is gone and cannot be put back.
fn put_it_back_by_hand(facts: &Facts, policy: &Policy, now: Timestamp) -> String {
    let name = &facts.state.credential;
    let before = facts.state.applied.as_ref().map(|a| a.username.as_str()).unwrap_or_default();
    let by_hand = format!("{OTHER_WRITER}; then put the login of {before} back by hand");
    let offered = facts.fetched.as_ref().map(|f| f.id.version.as_str()).unwrap_or_default();
    let approve = relaykey(format_args!("approve {name} --version {offered}"));
    // It may be held only after this is said.
    let waits = facts.fetched.as_ref().is_some_and(|found| {
        let is_held = || matches!(permission(facts, policy, now), Permission::Held { .. });
        facts.is_held() || standing(facts, found, policy) == VersionStanding::Take && is_held()
    });
    match (rejection_of_found(facts), waits && facts.by_hand.is_empty()) {
        (Some(_), _) => {
            format!("{by_hand}, or publish another version, or take the rejected one all the same: {approve}")
        }
        (None, true) => format!("{by_hand}, or put version {offered} into use: {approve}"),
        (None, false) => format!("{by_hand}, or publish a valid version at the source"),
    }
}

/// The source gives another version, and not the applied one any more, by which it could be put back.
pub(super) fn not_given_again(facts: &Facts, policy: &Policy, failure: Failure, now: Timestamp) -> Failure {
    let index = facts.gone();
    let what = not_put_back(facts, index, &failure);
    let fix = if failure.temporary { failure.fix } else { put_it_back_by_hand(facts, policy, now) };
    Fault::new(Class::Drift, what, fix).temporary_if(failure.temporary).at(now)
}

pub(super) fn not_put_back(facts: &Facts, index: Option<usize>, failure: &Failure) -> String {
    let target = index.map(|i| format!(" (target {})", facts.targets[i].name)).unwrap_or_default();
    let before = facts.state.applied.as_ref().map(|a| a.username.as_str()).unwrap_or_default();
    format!(
        "the mail server{target} no longer holds the login that this host had confirmed ({before}), and it could not be put back: {}",
        failure.what
    )
}

/// What is in use in a target that a person changes, where it is a version that they were asked to put there.
pub(super) fn was_asked_for(facts: &Facts, index: usize) -> Option<&Begun> {
    let by_hand = facts.by_hand.contains(&facts.targets[index].name);
    facts.begun_in_use(&facts.targets[index]).filter(|begun| by_hand && begun.by_hand)
}

/// A person did what they were asked for, and the source has gone back to the version before it.
pub(super) fn taken_back(facts: &Facts, index: usize, now: Timestamp) -> Failure {
    let said = |id: &VersionId, username: &str| format!("version {} ({username})", id.version);
    let used = was_asked_for(facts, index).map(|begun| said(&begun.id, &begun.username)).unwrap_or_default();
    let applied = facts.state.applied.as_ref();
    let right = applied.map(|applied| said(&applied.id, &applied.username)).unwrap_or_default();
    let username = applied.map(|applied| applied.username.as_str()).unwrap_or_default();
    let what = format!(
        "the mail server (target {}) uses {used}, which was put there by hand, as this host had asked; the source has gone back to \
         {right} since",
        facts.targets[index].name
    );
    let fix = format!(
        "put the login of {username} back by hand. relaykey sees it and confirms it anew; where it does not run: relaykey confirm {}",
        facts.state.credential
    );
    denied(Class::ByHand, what, fix, now)
}

/// Somebody else changed the login, the source gives a version that a person rejected, and what was confirmed is not put back, or
/// not by who only looks.
pub(super) fn not_put_back_beside_a_rejected_one(
    facts: &Facts,
    policy: &Policy,
    index: usize,
    now: Timestamp,
) -> Failure {
    let (version, rejected) =
        facts.fetched.as_ref().map(|f| (f.id.version.as_str(), f.username.as_str())).unwrap_or_default();
    let before = facts.state.applied.as_ref().map(|a| a.username.as_str()).unwrap_or_default();
    let tried = facts.state.put_back.failure.as_ref();
    let gone = format!(
        "the mail server (target {}) no longer holds the login that this host had confirmed ({before}); the source gives another \
         one, and version {version} ({rejected}) was rejected",
        facts.targets[index].name
    );
    let why = match tried {
        _ if facts.wake.confirm => "it is left so, because this run only confirms".to_owned(),
        _ if !may_heal(facts, policy, index, now) => format!("it is left so: {}", why_left(&policy.targets[index])),
        Some(tried) => {
            return Failure {
                what: format!("{}; version {version} ({rejected}) was rejected", tried.what),
                at: now,
                ..tried.clone()
            };
        }
        None => {
            let fix =
                format!("have relaykey put it back: {}", relaykey(format_args!("sync {}", facts.state.credential)));
            return denied(Class::Drift, gone, fix, now);
        }
    };
    denied(Class::Drift, format!("{gone}: {why}"), put_it_back_by_hand(facts, policy, now), now)
}

/// For who only looks: would a run put back here what somebody else changed, and is that the version that the source gives?
pub fn would_put_right(facts: &Facts, policy: &Policy, index: usize) -> bool {
    let t = &facts.targets[index];
    let changes = t.previewed.as_ref().is_some_and(|change| !change.diff.is_empty());
    changes && !t.failed && drifted(facts, index) && is_in_use(facts) && !is_by_hand(facts, policy, index)
}

/// What a run would put back, said by who only looks.
pub fn put_right(facts: &Facts, index: usize, now: Timestamp) -> Failure {
    let before = facts.state.applied.as_ref().map(|a| a.username.as_str()).unwrap_or_default();
    let what = format!(
        "the mail server (target {}) no longer holds the login that this host had confirmed ({before}): relaykey puts it back",
        facts.targets[index].name
    );
    let fix = format!(
        "have it put back now: {}; then find out what writes the table (configuration management, a script), and make it stop",
        relaykey(format_args!("sync {}", facts.state.credential))
    );
    denied(Class::Drift, what, fix, now)
}

/// Why what somebody else changed is left so, where it may not be put back.
fn why_left(target: &TargetPolicy) -> String {
    match target.drift {
        _ if !target.write => "write = false".into(),
        Drift::Report => "drift = \"report\"".into(),
        Drift::Heal => format!("it was put back {HEALS} times within the hour"),
    }
}

/// Somebody else changed the login, and it is left so, while the version that the source gives waits for approval.
pub(super) fn left_beside_a_held_one(facts: &Facts, policy: &Policy, left: &[usize], now: Timestamp) -> Failure {
    let names: Vec<&str> = left.iter().map(|&i| facts.targets[i].name.as_str()).collect();
    let before = facts.state.applied.as_ref().map(|a| a.username.as_str()).unwrap_or_default();
    let why = left.first().map(|&i| why_left(&policy.targets[i])).unwrap_or_default();
    let what = format!(
        "the mail server (target {}) no longer holds the login that this host had confirmed ({before}), and is left so: {why}",
        names.join(", ")
    );
    denied(Class::Drift, what, put_it_back_by_hand(facts, policy, now), now)
}

/// The same, for who only looks: what a run would say of it; `None`: nothing, or it was said before.
pub fn left_changed<'f>(facts: &'f Facts, policy: &Policy, now: Timestamp) -> Option<(&'f str, Failure)> {
    let found = facts.fetched.as_ref().filter(|_| facts.state.put_back.failure.is_none())?;
    let waits = standing(facts, found, policy) == VersionStanding::Take
        && matches!(permission(facts, policy, now), Permission::Held { .. });
    let is_left = |&i: &usize| {
        waits
            && policy.targets[i].write
            && !may_heal(facts, policy, i, now)
            && !facts.targets[i].failed
            && is_changed_by_others(facts, i, now)
    };
    let left: Vec<usize> = (0..facts.targets.len()).filter(is_left).collect();
    let first = *left.first()?;
    Some((&facts.targets[first].name, left_beside_a_held_one(facts, policy, &left, now)))
}

/// Two write to the same table.
pub(super) fn fought_over(facts: &Facts, policy: &Policy, index: usize, now: Timestamp) -> Failure {
    let (version, username) =
        facts.fetched.as_ref().map(|f| (f.id.version.as_str(), f.username.as_str())).unwrap_or_default();
    let why = match policy.targets[index].drift {
        Drift::Heal => format!("each of {} times within the hour", HEALS + 1),
        Drift::Report => "drift = \"report\", so it is not put in again".to_owned(),
    };
    Fault::new(
        Class::FoughtOver,
        format!(
            "target {}: somebody else wrote to the table right after version {version} ({username}) was put there: {why}",
            facts.targets[index].name
        ),
        format!(
            "find out what writes the table (configuration management, the program that `reload` names) and make it stop; then: {}",
            relaykey(format_args!("sync {}", facts.state.credential))
        ),
    )
    .at(now)
}

pub(super) fn denied(class: Class, what: String, fix: String, at: Timestamp) -> Failure {
    Fault::new(class, what, fix).at(at)
}

/// Does the mail server use something else than what this host confirmed, that this host did not put there either, and that is
/// not what is to come?
pub(super) fn is_changed_by_others(facts: &Facts, index: usize, now: Timestamp) -> bool {
    let t = &facts.targets[index];
    // What a person put there may be the candidate; where that was not looked at, its live id tells, or an access key id.
    let right = match (&t.previewed, &facts.fetched, &t.inspected) {
        (Some(change), ..) => change.diff.is_empty(),
        (None, Some(found), Some(seen)) if !is_in_use(facts) => {
            let of_found = |id: &Option<String>| facts.state.targets.get(&t.name)?.is_login_of(&found.id, id.as_ref());
            match of_found(&seen.in_use) {
                Some(is_it) => is_it || of_found(&seen.first_live_id) == Some(true),
                None => {
                    seen.username.as_ref() == Some(&found.username)
                        && tells_apart(&found.username, facts.state.applied.as_ref())
                }
            }
        }
        (None, ..) => false,
    };
    // Somebody who has edited the text and not compiled it has not changed what the mail server uses.
    let expected = facts.state.targets.get(&t.name).and_then(|s| s.live_id.as_ref());
    let in_use = t.inspected.as_ref().and_then(|i| i.in_use.as_ref());
    // What somebody else has just written over is put right in a moment.
    let state = facts.state.targets.get(&t.name).filter(|s| !s.overtaken.is_empty());
    let soon = |next: Timestamp| next.duration_since(now) <= OVERTAKEN;
    let at_once = t.failed && state.and_then(|s| s.retry.next).is_some_and(soon)
        || state.is_some() && facts.state.put_back.next.is_some_and(|next| next > now && soon(next));
    let foreign = facts.begun_in_use(t).is_none_or(|begun| begun.by_hand && !facts.is_other(begun));
    drifted(facts, index) && in_use != expected && foreign && t.is_untouched() && !right && !at_once
}

/// Is it the applied version that this target no longer holds, rather than a candidate that it does not hold yet?
pub(super) fn drifted_from_applied(facts: &Facts, index: usize) -> bool {
    is_in_use(facts) && drifted(facts, index)
}
