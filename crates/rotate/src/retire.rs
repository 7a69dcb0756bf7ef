//! What has to be so before an old key may die: conditions alone, no action. [`crate::record`] keeps its clocks by them, and
//! rules 10, 10a and 11 of [`crate::plan`] act on them.

use std::collections::BTreeSet;

use jiff::{SignedDuration, Timestamp};

use crate::evidence::{Verdict, is_silent, verdict};
use crate::facts::VersionId;
use crate::facts::{CURRENT, Facts, Further, Host, HostName, Key, KeyId, LastUsed, PENDING, PREVIOUS, Part};
use crate::policy::{Policy, UNKNOWN_POLL, USE_SLACK};
use crate::record::{ControlRecord, KnownPlace};
use crate::refusal::{AtPlace, Refusal};

/// What stands in the way at this host, where this version with this key is published, and `old` is to go. A waiver covers
/// silence and lack of proof, and nothing that a host said about an old key.
pub fn stops_of(host: &Host, version: &VersionId, key: &KeyId, old: Option<&KeyId>, now: Timestamp) -> Vec<Refusal> {
    let name = || host.name.clone();
    let waived = host.waiver.as_ref().is_some_and(|waiver| waiver.until > now);
    let mut stops = Vec::new();
    if host.took_back.is_some() {
        stops.push(Refusal::Withdrawn { host: name() });
    }
    match verdict(host, version, key, now) {
        Verdict::True { .. } => {}
        Verdict::False => stops.push(Refusal::ProofFalse { host: name() }),
        Verdict::Old { version, key } => stops.push(Refusal::OtherVersion { host: name(), version, key }),
        // It told so itself, above.
        Verdict::TookBack => {}
        Verdict::NeverHeard if !waived => stops.push(Refusal::HostUnconfirmed { host: name() }),
        Verdict::Unconfirmed if !waived => stops.push(Refusal::HostUnconfirmed { host: name() }),
        Verdict::Stale { since } if !waived => stops.push(Refusal::HostSilent { host: name(), since }),
        Verdict::Clock if !waived => stops.push(Refusal::Clock { host: name() }),
        Verdict::Missing(why) if !waived => stops.push(Refusal::ProofMissing { host: name(), why }),
        Verdict::TooOld if !waived => stops.push(Refusal::AgentTooOld { host: name() }),
        Verdict::NeverHeard
        | Verdict::Unconfirmed
        | Verdict::Stale { .. }
        | Verdict::Clock
        | Verdict::Missing(_)
        | Verdict::TooOld => {}
    }
    // A waived host's standing evidence is not asked for; what it names is.
    let told = stops.iter().any(|stop| matches!(stop, Refusal::OtherVersion { .. }));
    let standing = host.standing.as_ref().map(|standing| &standing.key).filter(|_| !told);
    // What it took back names its keys itself.
    let in_use = host.lists.in_use.iter().filter(|_| !told && host.took_back.is_none());
    let named = host.lists.others.iter().chain(in_use).chain(standing);
    if let Some(old) = old.filter(|old| named.clone().any(|key| key == *old)) {
        stops.push(Refusal::OldKeyElsewhere { host: name(), key: old.clone() });
    }
    let lists = &host.lists;
    if !lists.remaining_old.is_empty() {
        stops.push(Refusal::RemainingOld { host: name(), entries: lists.remaining_old.clone() });
    }
    if !lists.incomplete.is_empty() || lists.shortened {
        stops.push(Refusal::Incomplete { host: name(), tables: lists.incomplete.clone() });
    }
    if host.name_twice {
        stops.push(Refusal::NameTwice { host: name() });
    }
    if host.identity_shared {
        stops.push(Refusal::IdentityShared { host: name() });
    }
    stops
}

/// The hosts' side of it: there are some, all of them are known, and nothing stands in the way at any.
pub fn fleet_stops(facts: &Facts, old: Option<&KeyId>, now: Timestamp) -> Vec<Refusal> {
    let record = &facts.record;
    let mut stops = Vec::new();
    if facts.fleet.is_empty() {
        stops.push(Refusal::NoHosts);
    }
    if record.roster.sealed_at.is_none() {
        let (heard, counted) = (heard_of(facts, now), counted(facts));
        let (raised, expect) = (record.roster.raised, record.roster.expect);
        let sealed_with = record.roster.sealed_with.filter(|_| raised.is_some());
        let lost = record.roster.lost.unwrap_or(0);
        stops.push(Refusal::RosterOpen { heard, counted, expect: raised.or(expect), sealed_with, lost });
    }
    // Who stood on the roster and is not there any more, without having left: its item may have been removed by anybody.
    let there: BTreeSet<&HostName> = facts.fleet.iter().map(|host| &host.name).collect();
    let missing = record.roster.names.iter().filter(|name| !there.contains(name));
    stops.extend(missing.map(|name| Refusal::HostUnconfirmed { host: name.clone() }));
    match &record.published {
        Some(published) => {
            for host in &facts.fleet {
                stops.extend(stops_of(host, &published.version, &published.key, old, now));
            }
        }
        None => stops.push(Refusal::LabelMoved { kind: facts.store.kind, current: None }),
    }
    for trouble in &record.trouble {
        let told = Refusal::Withdrawn { host: trouble.host.clone() };
        if !stops.contains(&told) {
            stops.push(told);
        }
    }
    stops
}

/// Distinct host names that were heard of, and are not silent: one that is long dead does not stand in for one that is to come.
pub fn heard_of(facts: &Facts, now: Timestamp) -> usize {
    let heard = facts.fleet.iter().filter(|host| host.heard.is_some() && !is_silent(host, now));
    let mut names: Vec<&HostName> = heard.map(|host| &host.name).collect();
    names.sort();
    names.dedup();
    names.len()
}

/// Distinct names of all hosts that are counted.
pub fn counted(facts: &Facts) -> usize {
    facts.fleet.iter().map(|host| &host.name).collect::<std::collections::BTreeSet<_>>().len()
}

/// Is what is published what the store gives?
pub fn published_is_current(facts: &Facts) -> bool {
    let current = facts.store.labelled(CURRENT);
    match (&facts.record.published, current) {
        (Some(published), Some(current)) => published.version == current.id,
        _ => false,
    }
}

/// Did it give what is published, and gives something else now? One that was emptied, or made anew, is nobody's choice.
pub fn was_moved(record: &ControlRecord, further: &Further) -> bool {
    if further.gives_nothing() {
        return false;
    }
    let published = record.published.as_ref().map(|published| &published.key);
    published.is_some() && record.copied_to(&further.place) == published && further.key() != published
}

/// The further places, and the replicas of any, that do not give what is published.
pub fn further_stops(facts: &Facts) -> Vec<Refusal> {
    let published = facts.record.published.as_ref().map(|published| &published.key);
    let elsewhere = facts.further.iter().filter(|further| further.key() != published);
    let stop = |further: &Further| {
        let why = if was_moved(&facts.record, further) { AtPlace::Moved } else { AtPlace::Behind };
        Refusal::NotEverywhere { place: further.place.clone(), why }
    };
    // A replica gives what its secret gave before: whoever starts there would get the old key.
    elsewhere
        .map(stop)
        .chain(replica_stops(facts))
        .chain(place_stops(facts))
        .chain(unseen_stops(facts))
        .chain(label_stops(facts))
        .collect()
}

/// The places of the rotation that the configuration does not name, or not in their order: no key dies that they may give.
pub fn place_stops(facts: &Facts) -> impl Iterator<Item = Refusal> {
    let dropped = |known: &KnownPlace| Refusal::PlaceDropped { place: known.place.clone(), gives: known.gives.clone() };
    // Told as dropped, where it is not there at all.
    let order = facts.first_before().filter(|first| facts.configured().any(|place| place == *first));
    let order = order.map(|first| Refusal::PlaceOrder { first: first.clone() });
    facts.dropped().map(dropped).chain(order)
}

/// The labels of their own by which hosts read a place, and which are on a version without the published key: whoever starts there
/// would get what that holds. No put and no promotion moves them. What is AWSPENDING is on its way.
pub fn label_stops(facts: &Facts) -> Vec<Refusal> {
    let published = facts.record.published.as_ref().map(|published| &published.key);
    let further = facts.further.iter().map(|further| (&further.place, &further.store));
    let mut stops = Vec::new();
    for (place, store) in std::iter::once((&facts.place, &facts.store)).chain(further) {
        let Some(current) = store.labelled(CURRENT) else {
            continue;
        };
        let elsewhere = store.versions.iter().filter(|version| version.key() != published && !version.carries(PENDING));
        for version in elsewhere {
            let own = |label: &&String| ![CURRENT, PREVIOUS].contains(&label.as_str());
            let read = |label: &&String| facts.fleet.iter().any(|host| host.watches.contains(label));
            stops.extend(version.labels.iter().filter(own).filter(read).map(|label| Refusal::LabelElsewhere {
                place: place.clone(),
                label: label.clone(),
                version: version.id.clone(),
                current: current.id.clone(),
            }));
        }
    }
    stops
}

/// The further places that could not be looked at.
pub fn unseen_stops(facts: &Facts) -> impl Iterator<Item = Refusal> {
    facts.gaps.iter().filter(|gap| matches!(gap.part, Part::Further(_))).map(Refusal::of_a_gap)
}

/// The replicas that do not have what their secret has.
pub fn replica_stops(facts: &Facts) -> impl Iterator<Item = Refusal> {
    facts.behind.iter().map(|one| Refusal::ReplicaBehind {
        of: one.of.clone(),
        region: one.region.clone(),
        failed: one.failed,
    })
}

/// The pending version that carries the canary label, where every host that watches the label has it, with proof.
pub fn canaries_have<'a>(facts: &'a Facts, policy: &Policy, now: Timestamp) -> Option<&'a VersionId> {
    let label = policy.canary.as_ref()?;
    let pending = facts.store.labelled(PENDING).filter(|pending| pending.carries(label))?;
    let key = pending.key().filter(|_| !pending.carries(CURRENT))?;
    let mut canaries = facts.fleet.iter().filter(|host| host.watches.contains(label)).peekable();
    canaries.peek()?;
    let has = |host: &Host| matches!(verdict(host, &pending.id, key, now), Verdict::True { .. });
    canaries.all(|host| has(host) && host.failed.as_ref() != Some(&pending.id)).then_some(&pending.id)
}

/// All counted hosts have what is published, as far as the old key is concerned: `complete_at` runs from here.
pub fn is_complete(facts: &Facts, now: Timestamp) -> bool {
    published_is_current(facts)
        && further_stops(facts).is_empty()
        && fleet_stops(facts, facts.record.old.as_ref(), now).is_empty()
}

/// A host confirmed anew after `complete_at` was set: it may have drifted and come back between two looks.
pub fn confirmed_since(facts: &Facts, complete_at: Timestamp) -> bool {
    // What is dated ahead would be new at every look. It stops all, unless a person vouched for that host.
    let dated = facts.fleet.iter().filter(|host| !host.clock_ahead).filter_map(|host| host.standing.as_ref());
    dated.into_iter().any(|standing| standing.at > complete_at)
}

/// When the clocks of grace and last use began.
fn began(record: &ControlRecord) -> Option<Timestamp> {
    Some(record.complete_at?.max(record.published.as_ref()?.at))
}

/// When grace and the lag of the last use are over; `None`: they have not begun.
pub fn grace_and_lag(facts: &Facts, policy: &Policy) -> Option<(Timestamp, Timestamp)> {
    let began = began(&facts.record)?;
    let polls = facts.fleet.iter().map(|host| host.poll.unwrap_or(UNKNOWN_POLL));
    let longest = polls.max().unwrap_or(SignedDuration::ZERO);
    Some((began + policy.grace_for(longest), began + policy.last_use_lag))
}

/// What the last use of a key says against its end. A use shortly after the last confirmation is an open session's; our own
/// logins are no use.
pub fn use_stops(facts: &Facts, key: &Key, now: Timestamp) -> Option<Refusal> {
    let complete_at = facts.record.complete_at?;
    match &key.last_used {
        LastUsed::Never => None,
        LastUsed::Unknown => Some(Refusal::LastUsedUnknown { key: key.id.clone() }),
        LastUsed::At { at, .. } if *at < complete_at + USE_SLACK || facts.record.own_login(&key.id, *at) => None,
        // By a clock that is behind nobody can tell what was before and what after.
        LastUsed::At { at, .. } if *at > now + USE_SLACK => Some(Refusal::OurClock { behind: at.duration_since(now) }),
        LastUsed::At { at, service, .. } => {
            Some(Refusal::OldKeyUsed { key: key.id.clone(), at: *at, service: service.clone() })
        }
    }
}

/// Everything that stands in the way of this key's end, but for the clocks.
pub fn stops(facts: &Facts, old: &Key, now: Timestamp) -> Vec<Refusal> {
    let mut stops = fleet_stops(facts, Some(&old.id), now);
    let current = facts.store.labelled(CURRENT);
    if !published_is_current(facts) {
        let current = current.map(|version| version.id.clone());
        stops.push(Refusal::LabelMoved { kind: facts.store.kind, current });
    }
    // Never the key that is published, whatever the record says.
    stops.extend(further_stops(facts));
    let given = facts.further.iter().any(|further| further.key() == Some(&old.id));
    if given || facts.may_be_given(&old.id) || current.and_then(|version| version.key()) == Some(&old.id) {
        stops.push(Refusal::WouldCut { host: None, key: old.id.clone() });
    }
    stops.extend(use_stops(facts, old, now));
    stops
}
