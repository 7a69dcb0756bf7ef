//! Rules 10, 10a and 11: the old key's end, which can be undone for as long as it is only deactivated.

use super::{
    Action, DeleteOld, OwnLogins, Part, Purpose, Reason, Refusal, RuleInput, Turn, WhyGone, act, add, log_in, wait,
};
use crate::facts::{Key, KeyId, KeyStatus};
use crate::policy::NOT_DEAD;
use crate::retire;

/// The old key, with this status; where nobody could tell who still gets it, it is not asked for.
fn old<'a>(look: &'a RuleInput, status: KeyStatus) -> Option<&'a Key> {
    let old = look.record.old.as_ref()?;
    let seen = !look.unseen_part(&Part::Fleet) && look.facts.sees_all_places();
    look.facts.key(old).filter(|key| key.status == status && seen)
}

/// Whatever stands in the way of this key's end. No key dies while the published one was switched off by another's hand.
fn stops(look: &RuleInput, old: &Key) -> Vec<Refusal> {
    let mut stops = retire::stops(look.facts, old, look.now);
    if let Some(key) = look.deactivated_by_hand() {
        stops.push(Refusal::DeactivatedByHand { key: key.clone() });
    }
    stops.extend(look.not_listed());
    stops.extend(look.our_clock());
    stops
}

/// When grace and the lag of the last use are over; `None`: they have not begun.
fn clocks(look: &RuleInput) -> Option<jiff::Timestamp> {
    retire::grace_and_lag(look.facts, look.policy).map(|(grace, lag)| grace.max(lag))
}

/// Everybody has confirmed with proof, nobody names the old key, the clocks are over, its last use is quiet: it is about to
/// be deactivated. The intention is written, everything is looked at again, it logs in once more, and then it goes.
pub(super) fn rule_10(look: &RuleInput, refusals: &mut Vec<Refusal>) -> Option<Turn> {
    let old = old(look, KeyStatus::Active)?;
    let stops = stops(look, old);
    if !stops.is_empty() {
        add(refusals, stops);
        return None;
    }
    if let Some(until) = look.listed_late(&old.id) {
        return wait(Reason::Settles { until });
    }
    let until = clocks(look)?;
    if until > look.now {
        let again = look.record.switched_on.contains(&old.id);
        refusals.extend(again.then(|| Refusal::BroughtBack { key: old.id.clone() }));
        refusals.push(Refusal::Grace { until });
        return wait(Reason::Confirmed { until });
    }
    let key = || old.id.clone();
    let Some(intention) = look.record.intention.as_ref().filter(|intention| intention.key == old.id) else {
        return act(Action::Intend { key: key() }, Reason::AllQuiet(key()));
    };
    let settled = intention.at + look.policy.settle;
    if settled > look.now {
        return wait(Reason::Settles { until: settled });
    }
    // Where no version holds it any more, it cannot be asked, nor proved dead later: rule 10a says so then.
    if !intention.logged_in && look.facts.store.with_key(&old.id).is_some() {
        return match look.asked(&old.id) {
            OwnLogins::Stale | OwnLogins::Accepted => {
                act(log_in(&old.id, Purpose::LastLogin), Reason::LastLogin(key()))
            }
            OwnLogins::Refused | OwnLogins::Unanswered => {
                refusals.push(Refusal::SesRefuses { key: key() });
                None
            }
        };
    }
    act(Action::Deactivate { key: key(), why: WhyGone::Retired }, Reason::Retires(key()))
}

fn is_proved_dead(look: &RuleInput, key: &KeyId) -> bool {
    look.record.proved_dead.as_ref().is_some_and(|dead| dead.key == *key)
}

/// When we deactivated it; a revoked key lies dead from its revocation.
fn dead_since(look: &RuleInput, key: &KeyId) -> Option<jiff::Timestamp> {
    let revoked = look.record.revoked.iter().find(|revoked| revoked.key == *key).map(|revoked| revoked.at);
    look.record.deactivated_by_us(key).map(|deactivated| deactivated.at).or(revoked)
}

/// The old key is Inactive by us: the same login must be refused now.
pub(super) fn rule_10a(look: &RuleInput, refusals: &mut Vec<Refusal>) -> Option<Turn> {
    let old = old(look, KeyStatus::Inactive)?;
    let key = || old.id.clone();
    let Some(since) = dead_since(look, &old.id) else {
        add(refusals, vec![Refusal::DeactivatedByHand { key: key() }]);
        return None;
    };
    if is_proved_dead(look, &old.id) {
        return None;
    }
    if look.dead(&old.id, since) {
        return act(Action::RecordProvedDead { key: key() }, Reason::IsDead(key()));
    }
    if look.facts.store.with_key(&old.id).is_none() {
        add(refusals, vec![Refusal::VersionUnreadable { key: key() }]);
        return None;
    }
    if look.now.duration_since(since) > NOT_DEAD {
        add(refusals, vec![Refusal::NotDead { key: key() }]);
    }
    // What was said before it was deactivated says nothing about that.
    match look.asked_since(&old.id, since) {
        OwnLogins::Stale => act(log_in(&old.id, Purpose::ProveDead), Reason::MustDie(key())),
        OwnLogins::Accepted | OwnLogins::Refused | OwnLogins::Unanswered => wait(Reason::StillAlive(key())),
    }
}

/// Dead, observed, and still nothing stands in the way.
pub(super) fn may_be_deleted(look: &RuleInput, key: &KeyId, refusals: &mut Vec<Refusal>) -> bool {
    let Some(old) = look.facts.key(key).filter(|old| old.status == KeyStatus::Inactive) else {
        return false;
    };
    let dead = dead_since(look, key).filter(|_| is_proved_dead(look, key));
    let stops = stops(look, old);
    let free = stops.is_empty();
    add(refusals, stops);
    // The clocks may have begun anew: a use that IAM does not tell yet is somebody's who has it.
    let until = dead.zip(clocks(look)).map(|(since, clocks)| (since + look.policy.observe).max(clocks));
    until.is_some_and(|until| until <= look.now) && free
}

/// Dead, and observed for long enough: deleted.
pub(super) fn rule_11(look: &RuleInput, refusals: &mut Vec<Refusal>) -> Option<Turn> {
    let old = old(look, KeyStatus::Inactive).filter(|old| is_proved_dead(look, &old.id))?;
    let observed = dead_since(look, &old.id)? + look.policy.observe;
    let until = clocks(look).map_or(observed, |clocks| clocks.max(observed));
    if until > look.now {
        // What stands in the way is told in time.
        may_be_deleted(look, &old.id, refusals);
        refusals.push(Refusal::Observe { until });
        return wait(Reason::Observing { until });
    }
    if !may_be_deleted(look, &old.id, refusals) || look.policy.delete == DeleteOld::Never {
        return None;
    }
    let reason = Reason::Observed(old.id.clone());
    act(Action::Delete { key: old.id.clone(), why: WhyGone::Retired }, reason)
}
