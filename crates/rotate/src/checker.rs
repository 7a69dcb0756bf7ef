//! What is unsafe about a decision, judged apart from [`crate::plan`]: it reads the decision and its facts, shares no
//! condition with the rules, and is run on every decision of the model and of the scenarios.

use jiff::Timestamp;

use crate::facts::{Facts, KeyId, KeyPlace, KeyStatus, LastUsed, LoginReply, Proved};
use crate::plan::{Action, Decision, WhyGone};
use crate::policy::{DeleteOld, Policy};

/// One thing that must not be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Unsafe {
    /// Somebody else holds the lease, or nobody does.
    WithoutLease,
    /// A key that IAM does not have.
    UnknownKey,
    /// The published key would die.
    PublishedKey,
    /// A counted host says that it uses the key that would die.
    HostUses,
    /// A place of the rotation was not looked at: it may give the key that would die.
    PlaceNotSeen,
    /// Some counted host has no proof, and nobody vouched for it.
    Unproved,
    /// Nobody knows whether all hosts are known.
    Unsealed,
    /// Grace or the lag of the last use is not over.
    TooEarly,
    /// It was used since.
    Used,
    /// It would be deleted, and we did not deactivate it.
    NotOurs,
    /// It would be deleted, and is not known to be dead, or was not for long.
    NotDead,
    /// A revoked key would come back.
    Revoked,
    /// A key that somebody else deactivated would come back.
    ByAnotherHand,
    /// A version would be published whose key was not accepted everywhere just now.
    Unverified,
    /// A third key.
    NoPlace,
}

/// Everything that is unsafe about it.
pub fn check(decision: &Decision, facts: &Facts, policy: &Policy, now: Timestamp) -> Vec<Unsafe> {
    let Some(action) = &decision.action else {
        return Vec::new();
    };
    let mut found = Vec::new();
    let mut must = |holds: bool, what: Unsafe| {
        if !holds {
            found.push(what);
        }
    };
    let record = &facts.record;
    let held = record.lease.as_ref().is_some_and(|lease| lease.holder == facts.me && lease.until > now);
    must(held, Unsafe::WithoutLease);
    let find = |key: &KeyId| facts.keys.iter().find(|known| known.id == *key);
    let ours = |key: &KeyId| record.deactivated.iter().find(|d| d.key == *key).map(|d| d.at);
    let revoked = |key: &KeyId| record.revoked.iter().find(|r| r.key == *key).map(|r| r.at);
    let current = facts.store.versions.iter().find(|v| v.labels.iter().any(|label| label == "AWSCURRENT"));
    let accepted_everywhere = |key: &KeyId| {
        let accepted = |endpoint: &String| {
            let mut logins = facts.logins.iter().filter(|login| login.key == *key && login.endpoint == *endpoint);
            logins.next_back().is_some_and(|login| login.reply == LoginReply::Accepted)
        };
        !policy.endpoints.is_empty() && policy.endpoints.iter().all(accepted)
    };
    match action {
        Action::Reactivate { key, .. } => {
            must(find(key).is_some(), Unsafe::UnknownKey);
            must(revoked(key).is_none(), Unsafe::Revoked);
            must(ours(key).is_some(), Unsafe::ByAnotherHand);
        }
        Action::Create => must(facts.keys.len() < 2, Unsafe::NoPlace),
        // After the lease another one may have begun anew, or be clearing the key away.
        Action::Put { key, publishes: false } => {
            let mine = record.creating.iter().any(|one| one.key.as_ref() == Some(key) && one.until > now);
            must(mine, Unsafe::WithoutLease);
        }
        Action::RecordProvedDead { key } => {
            let refused = |endpoint: &String| {
                let mut logins = facts.logins.iter().filter(|login| login.key == *key && login.endpoint == *endpoint);
                logins.next_back().is_some_and(|login| login.reply == LoginReply::Refused)
            };
            must(policy.endpoints.iter().all(refused), Unsafe::NotDead);
        }
        // The first place has it, or is about to.
        Action::CopyTo { key, .. } | Action::PromoteAt { key, .. } => {
            must(find(key).is_some_and(|key| key.status == KeyStatus::Active), Unsafe::UnknownKey);
            let published = record.published.as_ref().is_some_and(|published| published.key == *key);
            must(published || accepted_everywhere(key), Unsafe::Unverified);
        }
        Action::Promote { key, .. } | Action::Put { key, publishes: true } => {
            must(find(key).is_some_and(|key| key.status == KeyStatus::Active), Unsafe::UnknownKey);
            must(accepted_everywhere(key), Unsafe::Unverified);
        }
        Action::Deactivate { key, why } | Action::Delete { key, why } => {
            let Some(known) = find(key) else {
                return vec![Unsafe::UnknownKey];
            };
            must(current.is_none_or(|current| current.key() != Some(key)), Unsafe::PublishedKey);
            must(facts.further.iter().all(|further| further.key() != Some(key)), Unsafe::PublishedKey);
            let deletes = matches!(action, Action::Delete { .. });
            for host in &facts.fleet {
                let standing = host.standing.as_ref();
                let uses = standing.is_some_and(|standing| standing.key == *key)
                    || host.took_back.as_ref().is_some_and(|took| took.keys.contains(key))
                    || host.lists.others.contains(key)
                    || host.lists.in_use.contains(key);
                must(!uses, Unsafe::HostUses);
                if *why == WhyGone::Retired {
                    let vouched = host.waiver.as_ref().is_some_and(|waiver| waiver.until > now);
                    let published = record.published.as_ref();
                    let proved = standing.is_some_and(|standing| {
                        matches!(standing.proof, Proved::True | Proved::ByCode)
                            && published.is_some_and(|p| p.version == standing.version && p.key == standing.key)
                            && current.is_some_and(|current| current.id == standing.version)
                    });
                    must(proved || vouched, Unsafe::Unproved);
                    must(host.took_back.is_none() && host.lists.remaining_old.is_empty(), Unsafe::HostUses);
                }
            }
            let further = |place: &KeyPlace| facts.further.iter().any(|further| further.place == *place);
            let mut places = record.places.iter().map(|known| &known.place);
            let all_seen = places.all(|place| *place == facts.place || further(place));
            if *why == WhyGone::Retired {
                must(all_seen, Unsafe::PlaceNotSeen);
                must(!facts.fleet.is_empty() && record.roster.sealed_at.is_some(), Unsafe::Unsealed);
                let began = record.complete_at.zip(record.published.as_ref()).map(|(at, p)| at.max(p.at));
                let lag = began.is_some_and(|began| began + policy.grace.max(policy.last_use_lag) <= now);
                must(lag, Unsafe::TooEarly);
            }
            let used = match (&known.last_used, record.complete_at) {
                (LastUsed::Never, _) => false,
                (LastUsed::Unknown, _) => true,
                (LastUsed::At { at, .. }, complete) => {
                    let own = record.own_logins.iter().filter(|own| own.key == *key).flat_map(|own| &own.at);
                    let own = own.into_iter().any(|own| at.duration_since(*own).abs() <= crate::policy::USE_SLACK);
                    let early = *why == WhyGone::Retired
                        && complete.is_some_and(|complete| *at < complete + crate::policy::USE_SLACK);
                    !own && !early
                }
            };
            must(!used, Unsafe::Used);
            if deletes {
                let since = ours(key).or(revoked(key));
                must(since.is_some() && known.status == KeyStatus::Inactive, Unsafe::NotOurs);
                let lay = match why {
                    WhyGone::Retired if policy.delete == DeleteOld::Never => policy.observe,
                    WhyGone::Retired => policy.observe,
                    WhyGone::Leftover => crate::policy::LEFTOVER,
                };
                must(since.is_some_and(|since| since + lay <= now), Unsafe::NotDead);
                let dead = record.proved_dead.as_ref().is_some_and(|dead| dead.key == *key);
                must(dead || *why == WhyGone::Leftover, Unsafe::NotDead);
            }
        }
        Action::Republish { .. }
        | Action::Forget { .. }
        | Action::LogIn { .. }
        | Action::TakeOff { .. }
        | Action::Label { .. }
        | Action::Unlabel { .. }
        | Action::RecordPublished { .. }
        | Action::Intend { .. } => {}
    }
    found.sort_by_key(|unsafe_| *unsafe_ as u8);
    found.dedup();
    found
}
