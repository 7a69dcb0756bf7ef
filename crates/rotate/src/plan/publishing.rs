//! Rules 5 to 7a: from a new key to what hosts take.

use super::{Action, OwnLogins, Part, Purpose, Reason, Refusal, RuleInput, StoreKind, Turn, act, add, log_in, wait};
use crate::evidence::{Verdict, verdict};
use crate::facts::{CURRENT, Further, KeyId, KeyStatus, PENDING, Value, Version, VersionId};
use crate::policy::{EMPTY_PENDING, UNANSWERED};
use crate::refusal::AtPlace;
use crate::retire;

/// A new key of mine is not stored yet. Within the lease it is put, later its secret is forgotten: another one may have begun
/// anew by then, and the key is a leftover.
pub(super) fn rule_5(look: &RuleInput, refusals: &mut Vec<Refusal>) -> Option<Turn> {
    let key = look.facts.unstored.as_ref()?;
    let mine = look.record.creating_now(look.now).filter(|creating| creating.key.as_ref() == Some(key));
    let Some(creating) = mine.filter(|_| look.status(key) == Some(KeyStatus::Active)) else {
        return act(Action::Forget { key: key.clone(), refused: false }, Reason::LeaseOver(key.clone()));
    };
    // What is put is published where the store has no AWSPENDING, and where it is the first version of all: verified first.
    let publishes = look.facts.store.kind == StoreKind::ParameterStore || look.current.is_none();
    let put = || act(Action::Put { key: key.clone(), publishes }, Reason::NotStored(key.clone()));
    if !publishes {
        // Staged by somebody else since the key was made: a put would take the label off theirs. The rules of AWSPENDING say what
        // becomes of it (6 to 6b), and the key is held for as long as the lease goes on.
        let theirs = look.pending.is_some_and(|pending| pending.key() != Some(key));
        return if theirs { None } else { put() };
    }
    if let Some(refusal) = first_in_the_way(look) {
        refusals.push(refusal);
        return wait(Reason::Refused);
    }
    let waited = look.now.duration_since(creating.at);
    match look.asked(key) {
        OwnLogins::Accepted => put(),
        OwnLogins::Stale => act(log_in(key, Purpose::Verify), Reason::ToVerify(key.clone())),
        OwnLogins::Refused if waited < look.policy.propagation => {
            wait(Reason::Propagating { key: key.clone(), until: creating.at + look.policy.propagation })
        }
        OwnLogins::Unanswered if waited < UNANSWERED => {
            wait(Reason::Unanswered { key: key.clone(), until: creating.at + UNANSWERED })
        }
        OwnLogins::Refused | OwnLogins::Unanswered => {
            refusals.push(Refusal::SesRefuses { key: key.clone() });
            act(Action::Forget { key: key.clone(), refused: true }, Reason::NotTaken(key.clone()))
        }
    }
}

/// AWSPENDING with a value whose key is Active.
fn pending<'a>(look: &'a RuleInput) -> Option<(&'a Version, &'a KeyId)> {
    let pending = look.pending?;
    let key = pending.key().filter(|key| look.status(key) == Some(KeyStatus::Active))?;
    Some((pending, key))
}

/// Did we put it there, or is its key one of ours?
fn is_ours(look: &RuleInput, pending: &Version, key: &KeyId) -> bool {
    let record = look.record;
    record.creating.iter().any(|creating| creating.key.as_ref() == Some(key))
        || record.old.as_ref() == Some(key)
        || record.published.as_ref().is_some_and(|published| published.key == *key)
        || record.promoting.as_ref().is_some_and(|promoting| promoting.version.as_ref() == Some(&pending.id))
}

/// AWSPENDING is verified by a login at every configured endpoint, never at a name out of a report.
pub(super) fn rule_6(look: &RuleInput, refusals: &mut Vec<Refusal>) -> Option<Turn> {
    let (pending, key) = pending(look)?;
    if !is_ours(look, pending, key) {
        refusals.push(Refusal::PendingForeign { version: pending.id.clone() });
        return None;
    }
    let waited = look.now.duration_since(pending.created);
    match look.asked(key) {
        OwnLogins::Accepted => None,
        OwnLogins::Stale => act(log_in(key, Purpose::Verify), Reason::ToVerify(key.clone())),
        OwnLogins::Refused if waited < look.policy.propagation => {
            wait(Reason::Propagating { key: key.clone(), until: pending.created + look.policy.propagation })
        }
        OwnLogins::Unanswered if waited < UNANSWERED => {
            wait(Reason::Unanswered { key: key.clone(), until: pending.created + UNANSWERED })
        }
        // Its key is a leftover then, if it is one that we made and nothing names it (rule 9).
        OwnLogins::Refused | OwnLogins::Unanswered => {
            refusals.push(Refusal::SesRefuses { key: key.clone() });
            act(
                Action::TakeOff { version: pending.id.clone(), refused: Some(key.clone()) },
                Reason::NotTaken(key.clone()),
            )
        }
    }
}

/// AWSPENDING without a value: Secrets Manager's own, for a while.
pub(super) fn rule_6a(look: &RuleInput, refusals: &mut Vec<Refusal>) -> Option<Turn> {
    let pending = look.pending.filter(|pending| pending.value == Value::Empty)?;
    let until = pending.created + EMPTY_PENDING;
    if until > look.now {
        return wait(Reason::EmptyPending { until });
    }
    refusals.push(Refusal::PendingEmpty { version: pending.id.clone() });
    act(Action::TakeOff { version: pending.id.clone(), refused: None }, Reason::EmptyPendingOld)
}

/// AWSPENDING whose key is gone or Inactive.
pub(super) fn rule_6b(look: &RuleInput, refusals: &mut Vec<Refusal>) -> Option<Turn> {
    let pending = look.pending?;
    let Some(key) = pending.key() else {
        if pending.value == Value::Unreadable {
            refusals.push(Refusal::PendingForeign { version: pending.id.clone() });
        }
        return None;
    };
    if look.status(key) == Some(KeyStatus::Active) {
        return None;
    }
    let version = pending.id.clone();
    act(Action::TakeOff { version: version.clone(), refused: None }, Reason::PendingDead(version))
}

/// AWSPENDING is verified, and canary hosts come first.
pub(super) fn rule_7(look: &RuleInput, refusals: &mut Vec<Refusal>) -> Option<Turn> {
    let (pending, key) = pending(look).filter(|(pending, key)| is_ours(look, pending, key))?;
    let label = look.policy.canary.as_ref()?;
    if !pending.carries(label) {
        let action = Action::Label { version: pending.id.clone(), label: label.clone() };
        return act(action, Reason::Canary(label.clone()));
    }
    let canaries: Vec<_> = look.facts.fleet.iter().filter(|host| host.watches.contains(label)).collect();
    if canaries.is_empty() && !look.unseen_part(&Part::Fleet) {
        refusals.push(Refusal::CanaryNone { label: label.clone() });
    }
    let failed = canaries.iter().find(|host| host.failed.as_ref() == Some(&pending.id));
    refusals.extend(failed.map(|host| Refusal::CanaryFailed { host: host.name.clone() }));
    if canaries.is_empty() || failed.is_some() {
        return wait(Reason::Refused);
    }
    let confirmed =
        |host: &&&crate::facts::Host| matches!(verdict(host, &pending.id, key, look.now), Verdict::True { .. });
    let done: Vec<_> = canaries.iter().filter(confirmed).collect();
    if done.len() < canaries.len() {
        // Named, as any host that is waited for: one that is silent would else be waited for without a word.
        for host in canaries.iter().filter(|host| !confirmed(host)) {
            let stops = retire::stops_of(host, &pending.id, key, None, look.now);
            // A waiver is about the old key's end: for what is tried at this host, nobody can vouch.
            let waived = stops.is_empty().then(|| Refusal::HostUnconfirmed { host: host.name.clone() });
            refusals.extend(stops.into_iter().chain(waived));
        }
        return wait(Reason::CanaryWaits { confirmed: done.len(), of: canaries.len() });
    }
    // As long as our own clock says so: what a host dates may be any time.
    let soak = look.record.soak.as_ref().filter(|soak| soak.version == pending.id);
    let until = soak.map_or(look.now, |soak| soak.at) + look.policy.canary_soak;
    if until > look.now { wait(Reason::CanarySoaks { until }) } else { None }
}

/// AWSPENDING of a further place, where that is not AWSCURRENT too.
fn pending_at(further: &Further) -> Option<&Version> {
    let current = further.store.labelled(CURRENT);
    further.store.labelled(PENDING).filter(|pending| current.is_none_or(|current| current.id != pending.id))
}

/// What is AWSPENDING there was composed from another text than it gives now.
fn is_outdated(look: &RuleInput, further: &Further) -> bool {
    look.facts.outdated.iter().any(|part| matches!(part, Part::Further(place) if *place == further.place))
}

/// Why nothing may be put there. What Secrets Manager or somebody else is at work on stays theirs; and a login that is not this
/// user's is written over only where it is the one that we left there, whose key is gone by now.
fn in_the_way(look: &RuleInput, further: &Further) -> Option<AtPlace> {
    let of_this_user = further.key().is_some_and(|key| look.status(key).is_some());
    let left = look.record.copied_to(&further.place);
    let left_by_us = left.is_some() && left == further.key();
    if !of_this_user && !further.gives_nothing() && !left_by_us {
        return Some(AtPlace::NotOurs);
    }
    if further.needs_key {
        return Some(AtPlace::NeedsKey);
    }
    let pending = pending_at(further).filter(|_| further.store.kind == StoreKind::SecretsManager)?;
    match &pending.value {
        Value::Login(key) => {
            let theirs = look.status(key) == Some(KeyStatus::Active) && !is_ours(look, pending, key);
            theirs.then_some(AtPlace::PendingForeign)
        }
        Value::Empty => (pending.created + EMPTY_PENDING > look.now).then_some(AtPlace::PendingEmpty),
        Value::Unreadable => Some(AtPlace::PendingForeign),
    }
}

/// The same, as a refusal.
pub(super) fn refused_at(look: &RuleInput, further: &Further) -> Option<Refusal> {
    in_the_way(look, further).map(|why| Refusal::NotEverywhere { place: further.place.clone(), why })
}

/// The login of this version is put in a further place.
fn copy(look: &RuleInput, further: &Further, from: &VersionId, key: &KeyId) -> Result<Turn, AtPlace> {
    let place = || further.place.clone();
    if let Some(why) = in_the_way(look, further) {
        return Err(why);
    }
    let publishes = further.store.kind == StoreKind::ParameterStore || further.store.labelled(CURRENT).is_none();
    let action = Action::CopyTo { place: place(), from: from.clone(), key: key.clone(), publishes };
    Ok(Turn::Act(action, Reason::NotEverywhere(place())))
}

/// Does anybody log in with what is published? Where its key is gone or Inactive, no place waits for another.
pub(super) fn serves(look: &RuleInput) -> bool {
    look.current_key.is_none_or(|key| look.status(key) == Some(KeyStatus::Active))
}

/// AWSPENDING is verified: it is put wherever the key is published, before it is published anywhere. Where one place cannot take
/// it, none gets it, unless nothing is left to lose. Replicas come after their secret by themselves.
pub(super) fn staged_everywhere(look: &RuleInput, refusals: &mut Vec<Refusal>) -> Option<Turn> {
    let (pending, key) = pending(look).filter(|(pending, key)| is_ours(look, pending, key))?;
    // What is put in a parameter, or in an empty secret, is published with that.
    let stages = |further: &&Further| {
        further.store.kind == StoreKind::SecretsManager && further.store.labelled(CURRENT).is_some()
    };
    let mut refused = Vec::new();
    for further in look.facts.further.iter().filter(stages) {
        if further.store.with_key(key).is_some() && !is_outdated(look, further) {
            // Somebody may have made it theirs since it was put there.
            let theirs = in_the_way(look, further).filter(|why| *why == AtPlace::NotOurs);
            refused.extend(theirs.map(|why| Refusal::NotEverywhere { place: further.place.clone(), why }));
            continue;
        }
        match copy(look, further, &pending.id, key) {
            Ok(turn) => return Some(turn),
            Err(why) => refused.push(Refusal::NotEverywhere { place: further.place.clone(), why }),
        }
    }
    refused.extend(retire::replica_stops(look.facts));
    refused.extend(retire::place_stops(look.facts).chain(retire::unseen_stops(look.facts)));
    let stopped = !refused.is_empty() && serves(look);
    add(refusals, refused);
    if stopped { wait(Reason::Refused) } else { None }
}

/// It is published in the first place: all others follow, also where whoever began that was killed.
pub(super) fn published_everywhere(look: &RuleInput, refusals: &mut Vec<Refusal>) -> Option<Turn> {
    let published = look.record.published.as_ref().filter(|_| retire::published_is_current(look.facts))?;
    if look.status(&published.key) != Some(KeyStatus::Active) || look.record.is_revoked(&published.key) {
        return None;
    }
    for further in look.facts.further.iter().filter(|further| further.key() != Some(&published.key)) {
        let (place, key) = (further.place.clone(), published.key.clone());
        if retire::was_moved(look.record, further) {
            add(refusals, [Refusal::NotEverywhere { place, why: AtPlace::Moved }]);
            continue;
        }
        if in_the_way(look, further) == Some(AtPlace::NotOurs) {
            add(refusals, [Refusal::NotEverywhere { place, why: AtPlace::NotOurs }]);
            continue;
        }
        let current = further.store.labelled(CURRENT);
        let there = further.store.with_key(&key).zip(current).filter(|_| !is_outdated(look, further));
        if let Some((version, current)) = there.filter(|_| further.store.kind == StoreKind::SecretsManager) {
            let (from, version) = (Some(current.id.clone()), version.id.clone());
            let action = Action::PromoteAt { place: place.clone(), from, version, key };
            return act(action, Reason::NotEverywhere(place));
        }
        match copy(look, further, &published.version, &key) {
            Ok(turn) => return Some(turn),
            Err(why) => add(refusals, [Refusal::NotEverywhere { place, why }]),
        }
    }
    None
}

/// Verified, and soaked: promoted. Or it was promoted, and whoever did it was killed before it could be written down.
pub(super) fn rule_7a(look: &RuleInput, refusals: &mut Vec<Refusal>) -> Option<Turn> {
    let from = look.current.map(|current| current.id.clone());
    if let Some((pending, key)) = pending(look).filter(|(pending, key)| is_ours(look, pending, key)) {
        if let Some(refusal) = first_in_the_way(look) {
            add(refusals, [refusal]);
            return wait(Reason::Refused);
        }
        let version = pending.id.clone();
        return act(Action::Promote { from, version: version.clone(), key: key.clone() }, Reason::Verified(version));
    }
    if retire::published_is_current(look.facts) {
        return None;
    }
    if let Some((current, key)) = promoted(look) {
        let version = current.id.clone();
        let action = Action::RecordPublished { version: version.clone(), key: key.clone() };
        return act(action, Reason::PromotedBefore(version));
    }
    if look.record.published.is_some() {
        add(refusals, [moved(look)]);
    }
    None
}

/// Is this, in AWSCURRENT of the first place, a login of somebody else's? What a person put there after ours was published may be
/// another user's, in an emergency; an older value with a key of ours that is gone is none.
pub(super) fn not_ours(look: &RuleInput, current: &Version, key: &KeyId) -> Option<Refusal> {
    if look.status(key).is_some() {
        return None;
    }
    let Some(published) = &look.record.published else {
        let said = look.record.over.as_ref() == Some(key);
        return (!said).then(|| Refusal::ValueNotOurs { version: current.id.clone(), key: Some(key.clone()) });
    };
    let before = |version: &Version| version.key() == Some(key) && version.created <= published.at;
    let was_there = published.key == *key || look.facts.store.versions.iter().any(before);
    (!was_there).then(|| moved(look))
}

fn moved(look: &RuleInput) -> Refusal {
    let current = look.current.map(|current| current.id.clone());
    Refusal::LabelMoved { kind: look.facts.store.kind, current }
}

/// Why nothing is published over what the first place gives: it is not what we published, and nobody said that it may go.
pub(super) fn first_in_the_way(look: &RuleInput) -> Option<Refusal> {
    let current = look.current.filter(|current| current.value != Value::Empty)?;
    if look.facts.first_before().is_some() || retire::published_is_current(look.facts) || promoted(look).is_some() {
        return None;
    }
    let Some(key) = current.key() else {
        return Some(match look.record.published {
            Some(_) => moved(look),
            None => Refusal::ValueNotOurs { version: current.id.clone(), key: None },
        });
    };
    match &look.record.published {
        // A key that is gone serves nobody: it is healed, by whatever is at hand.
        Some(published) if published.key != *key && look.status(key).is_some() => Some(moved(look)),
        _ => not_ours(look, current, key),
    }
}

/// It was promoted, and whoever did it was killed before it could be written down.
fn promoted<'a>(look: &RuleInput<'a>) -> Option<(&'a Version, &'a KeyId)> {
    let (promoting, current) = look.record.promoting.as_ref().zip(look.current)?;
    let this = promoting.version.as_ref().is_none_or(|version| *version == current.id);
    (this && current.key() == Some(&promoting.key)).then_some((current, &promoting.key))
}

/// AWSPENDING was composed from what was AWSCURRENT then, and somebody wrote something else beside that login since: it is composed
/// anew, and what they wrote stays.
pub(super) fn composed_anew(look: &RuleInput, _: &mut Vec<Refusal>) -> Option<Turn> {
    let (pending, key) = pending(look).filter(|(pending, key)| is_ours(look, pending, key))?;
    if !look.facts.outdated.contains(&Part::Store) || first_in_the_way(look).is_some() {
        return None;
    }
    let version = pending.id.clone();
    act(Action::Republish { from: version.clone(), key: key.clone() }, Reason::Outdated(version))
}

/// The canary label stands on a version that is neither published nor about to be.
pub(super) fn canary_over(look: &RuleInput, _: &mut Vec<Refusal>) -> Option<Turn> {
    let label = look.policy.canary.as_ref()?;
    let labelled = look.facts.store.labelled(label)?;
    let used = [look.current, look.pending].into_iter().flatten().any(|version| version.id == labelled.id);
    if used {
        return None;
    }
    let version = labelled.id.clone();
    act(Action::Unlabel { version: version.clone(), label: label.clone() }, Reason::CanaryOver(version))
}
