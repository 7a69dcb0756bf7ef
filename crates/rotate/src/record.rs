//! The control record: the one small thing of ours, with what AWS does not tell. Losing it costs time, and may need a person,
//! never safety.
//!
//! ```text
//!   take (the lease) ─> look (strikes what is no longer so, keeps the clocks) ─> plan ─> may_act? ─> begin (written before
//!   the call, under the fence) ─> the call ─> done (written after it) ─> all anew
//! ```
//!
//! A program may be killed between any two of these. Nothing here is written unless the writer still holds the fence.

use std::collections::BTreeSet;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::facts::{
    CURRENT, Facts, HostName, IamUser, Key, KeyId, KeyPlace, KeyStatus, LastUsed, PENDING, PREVIOUS, Part, VersionId,
};
use crate::plan::{Action, Outcome, Purpose};
use crate::policy::{BACKOFF, CLOCKS_APART, DECISION_HOLDS, LEASE_MARGIN, LISTED_LATE, Policy, USE_SLACK};
use crate::retire;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ControlRecord {
    /// Of the format: 1.
    pub schema: u32,
    pub credential: String,
    /// There was no audit log when this was begun: no record was lost, and no rotation of ours is to be gone on with.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_first: bool,
    /// Whose the published key was seen to be: nothing that is said of another one's keys changes anything here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<IamUser>,
    /// Counts the holders: a write names the one it was made under.
    pub fence: u64,
    pub lease: Option<Lease>,
    /// When a look is due.
    pub next: Option<Timestamp>,
    /// Somebody asked for a rotation. Over with the next promotion.
    pub want: Option<Wanted>,
    /// The key of somebody else's login that may be written over, where a person said so. Over with the next promotion.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub over: Option<KeyId>,
    /// SES did not take the last new key.
    pub backoff: Option<Backoff>,
    /// Keys that we set out to make and that did not come to anything yet, the latest last.
    pub creating: Vec<Creating>,
    /// Keys that we made lately, whatever came of them.
    #[serde(default)]
    pub made: Vec<Made>,
    /// Since when every canary host has the version that is tried there.
    #[serde(default)]
    pub soak: Option<Soak>,
    /// What is about to become AWSCURRENT by us.
    pub promoting: Option<Promoting>,
    pub published: Option<Published>,
    /// Every place that the key is published in, the first one first. None leaves it but by a person's word: a controller that
    /// is not told of one would let the key die that this place gives.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub places: Vec<KnownPlace>,
    /// The key before the published one.
    pub old: Option<KeyId>,
    /// Since when all counted hosts have what is published.
    pub complete_at: Option<Timestamp>,
    /// The old key is about to be deactivated.
    pub intention: Option<Intention>,
    /// Logins of our own with each key, as far as they may be its last use.
    pub own_logins: Vec<OwnLogin>,
    /// Keys that we deactivated, or were about to.
    pub deactivated: Vec<Deactivated>,
    /// Keys that were brought back after that, by whoever: somebody needs them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub switched_on: Vec<KeyId>,
    /// Keys that this record knows, and that IAM did not list at the last look.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub missing: Vec<Missing>,
    pub proved_dead: Option<ProvedDead>,
    pub roster: Roster,
    /// Hosts for which a key was brought back.
    pub trouble: Vec<HostTrouble>,
    pub revoked: Vec<Revoked>,
    /// What a later release wrote there and this one does not know: it stays.
    #[serde(flatten)]
    pub others: Others,
}

/// Fields of a document of ours that this release does not know.
pub type Others = serde_json::Map<String, serde_json::Value>;

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Lease {
    pub holder: String,
    pub until: Timestamp,
    /// Who that is, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub who: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Timestamp>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wanted {
    pub by: String,
    pub at: Timestamp,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Backoff {
    pub key: KeyId,
    pub attempts: u32,
    pub until: Timestamp,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Creating {
    pub at: Timestamp,
    /// Of the maker's lease: who made it may store it until then. Without a key: its call goes out until then.
    pub until: Timestamp,
    /// `None`: what became of the call is not known.
    pub key: Option<KeyId>,
    /// The keys that were there when it was begun; `None`: an earlier release did not write them down.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<Vec<KeyId>>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Made {
    pub key: KeyId,
    pub at: Timestamp,
    /// IAM did not list it at the last look: its list is late, or somebody deleted it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unlisted: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Soak {
    pub version: VersionId,
    /// By our clock: a host's own may be any.
    pub at: Timestamp,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Promoting {
    /// `None`: the store gives the number with the put.
    pub version: Option<VersionId>,
    pub key: KeyId,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Published {
    pub version: VersionId,
    pub key: KeyId,
    pub at: Timestamp,
}

/// A place of the rotation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KnownPlace {
    pub place: KeyPlace,
    /// The published key that it was last seen to give.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gives: Option<KeyId>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Intention {
    pub key: KeyId,
    pub at: Timestamp,
    /// The key still logged in after the intention: what must turn into a refusal was an acceptance.
    pub logged_in: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OwnLogin {
    pub key: KeyId,
    /// The last that was accepted, and those after it of which nobody knows.
    pub at: Vec<Timestamp>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deactivated {
    pub key: KeyId,
    pub at: Timestamp,
    /// Nobody knows yet that it came about.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unanswered: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Missing {
    pub key: KeyId,
    pub since: Timestamp,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProvedDead {
    pub key: KeyId,
    pub at: Timestamp,
    /// Endpoints that refused it.
    pub endpoints: Vec<String>,
}

/// How many entries of hosts the registry has, and how many lists of the roster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct RegistrySize {
    pub entries: usize,
    pub lists: usize,
}

/// Who is to be heard of.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Roster {
    /// Seals it when so many were heard of.
    pub expect: Option<usize>,
    pub by: Option<String>,
    pub sealed_at: Option<Timestamp>,
    /// The number that it was sealed with, or a larger one that the configuration had then: a person's word was about that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sealed_with: Option<usize>,
    /// A number of the configuration that is larger still: so many are waited for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub raised: Option<usize>,
    /// Of the registry that holds the names, at the last look.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub registry: Option<RegistrySize>,
    /// So many names were lost with the registry: a person says anew how many hosts there are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lost: Option<usize>,
    pub names: Vec<HostName>,
    #[serde(flatten)]
    pub others: Others,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostTrouble {
    pub host: HostName,
    pub key: KeyId,
    pub at: Timestamp,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Revoked {
    pub key: KeyId,
    pub at: Timestamp,
    pub by: String,
    pub reason: String,
}

/// How far IAM's clock and ours may be apart.
const SKEW: jiff::SignedDuration = jiff::SignedDuration::from_secs(5);

impl Roster {
    /// The registry is of this size now. Where entries and lists were lost together, nobody knows whose names were in both: those hosts
    /// have to be heard of, and a number that was said before cannot stand in for them.
    pub fn sees(&mut self, registry: RegistrySize) {
        let before = self.registry.replace(registry).unwrap_or_default();
        let lost = before.entries.saturating_sub(registry.entries);
        if lost == 0 || registry.lists >= before.lists {
            return;
        }
        self.lost = Some(self.lost.unwrap_or(0) + lost);
        (self.expect, self.sealed_at, self.sealed_with, self.raised) = (None, None, None, None);
    }
}

impl Lease {
    /// It stands: it is not over, and no longer than a lease can be. Whoever wrote another one had a clock that was far wrong, and
    /// would be waited for for years.
    pub fn is_held(&self, policy: &Policy, now: Timestamp) -> bool {
        self.until > now && !self.is_too_long(policy, now)
    }

    /// By our clock, with what two clocks may be apart.
    pub fn is_too_long(&self, policy: &Policy, now: Timestamp) -> bool {
        self.until > now + policy.lease + CLOCKS_APART
    }
}

/// A lease of another one that did not give it back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TakenOver {
    pub lease: Lease,
    pub why: WhyTakenOver,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WhyTakenOver {
    /// Its holder ended without a word.
    RanOut,
    /// No lease is so long.
    TooLong,
    /// A person's word does not wait.
    Seized,
}

/// Somebody else holds the lease.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{} is at work until {}", .0.holder, .0.until)]
pub struct Busy(pub Lease);

impl ControlRecord {
    pub const SCHEMA: u32 = 1;

    /// Of a credential that has none yet, or whose record was lost.
    pub fn new(credential: &str) -> Self {
        Self {
            schema: Self::SCHEMA,
            credential: credential.into(),
            is_first: false,
            user: None,
            fence: 0,
            lease: None,
            next: None,
            want: None,
            over: None,
            backoff: None,
            creating: Vec::new(),
            made: Vec::new(),
            soak: None,
            promoting: None,
            published: None,
            places: Vec::new(),
            old: None,
            complete_at: None,
            intention: None,
            own_logins: Vec::new(),
            deactivated: Vec::new(),
            switched_on: Vec::new(),
            missing: Vec::new(),
            proved_dead: None,
            roster: Roster::default(),
            trouble: Vec::new(),
            revoked: Vec::new(),
            others: Others::new(),
        }
    }

    /// Takes or renews the lease. Whoever holds a new key that is not stored yet keeps it for as long.
    ///
    /// What it gives is the lease of another one that was not given back.
    ///
    /// # Errors
    /// Another one holds it.
    pub fn take(
        &mut self,
        me: &str,
        unstored: Option<&KeyId>,
        policy: &Policy,
        now: Timestamp,
    ) -> Result<Option<TakenOver>, Busy> {
        let until = now + policy.lease;
        match &mut self.lease {
            Some(lease) if lease.holder == me && lease.until > now => lease.until = until,
            Some(lease) if lease.is_held(policy, now) => return Err(Busy(lease.clone())),
            // A lease that ran out is a new one, also of the same holder: another may have been at work in between.
            lease => {
                let new = Lease { holder: me.into(), until, who: None, since: Some(now) };
                let before = lease.replace(new).filter(|before| before.holder != me);
                self.fence += 1;
                let why = |lease: &Lease| {
                    if lease.until > now { WhyTakenOver::TooLong } else { WhyTakenOver::RanOut }
                };
                return Ok(before.map(|lease| TakenOver { why: why(&lease), lease }));
            }
        }
        // Nobody holds a key of which it is not known whether it came to be: its time ends.
        let held = |c: &&mut Creating| unstored.is_some() && c.key.as_ref() == unstored && c.until > now;
        if let Some(creating) = self.creating.last_mut().filter(held) {
            creating.until = until;
        }
        Ok(None)
    }

    /// May a decision of then still be done now? Nothing of it if it is old, or the lease is nearly over: calls to IAM name no
    /// fence, so that they have to end within the lease.
    pub fn may_act(&self, me: &str, fence: u64, decided: Timestamp, now: Timestamp) -> bool {
        let held = self.lease.as_ref().is_some_and(|l| l.holder == me && l.until > now + LEASE_MARGIN);
        held && self.fence == fence && now.duration_since(decided) < DECISION_HOLDS
    }

    pub fn deactivated_by_us(&self, key: &KeyId) -> Option<&Deactivated> {
        self.deactivated.iter().rfind(|d| d.key == *key)
    }

    /// The published key that this place gave when it was last seen to give one.
    pub fn copied_to(&self, place: &KeyPlace) -> Option<&KeyId> {
        self.places.iter().find(|known| known.place == *place)?.gives.as_ref()
    }

    /// It is taken to be there although IAM does not list it: until when.
    pub fn unlisted(&self, key: &KeyId) -> Option<Timestamp> {
        self.made.iter().find(|made| made.unlisted && made.key == *key).map(|made| made.at + LISTED_LATE)
    }

    pub fn is_revoked(&self, key: &KeyId) -> bool {
        self.revoked.iter().any(|r| r.key == *key)
    }

    /// Was this use a login of our own?
    pub fn own_login(&self, key: &KeyId, used: Timestamp) -> bool {
        // IAM tells minutes.
        let minute = jiff::SignedDuration::from_mins(1);
        let own = self.own_logins.iter().filter(|own| own.key == *key).flat_map(|own| &own.at);
        own.into_iter().any(|own| used >= *own - minute && used <= *own + USE_SLACK)
    }

    /// Is a key being made, by whoever holds the lease it is made under?
    pub fn creating_now(&self, now: Timestamp) -> Option<&Creating> {
        self.creating.last().filter(|creating| creating.until > now)
    }
}

/// Takes in what one look saw: strikes from the record what is no longer so, then keeps its clocks. What could not be seen
/// changes nothing.
pub fn take_in(facts: &mut Facts, policy: &Policy, now: Timestamp) {
    if facts.user_before().is_some() {
        return;
    }
    list_late(facts, now);
    if facts.gaps.iter().any(|gap| !matches!(gap.part, Part::Further(_))) {
        if facts.gaps.iter().all(|gap| gap.part != Part::Keys) {
            disown(facts, policy, now);
        }
        return;
    }
    strike(facts, policy, now);
    recover(facts, now);
    pin(facts);
    places(facts);
    seal(facts, policy, now);
    // Whether all have moved is not known then: neither that they have, nor that they have not.
    if facts.sees_all_places() {
        clocks(facts, policy, now);
    }
}

/// IAM may list a key late that was made just now, also after it was listed once. One that we made and wrote down is there for a
/// while, whatever one listing says: its secret would else be forgotten, or its version taken off.
fn list_late(facts: &mut Facts, now: Timestamp) {
    if facts.gaps.iter().any(|gap| gap.part == Part::Keys) {
        return;
    }
    facts.record.made.retain(|made| made.at + LISTED_LATE > now);
    let listed: BTreeSet<&KeyId> = facts.keys.iter().map(|key| &key.id).collect();
    for made in &mut facts.record.made {
        made.unlisted = !listed.contains(&made.key);
    }
    for made in &facts.record.made {
        if made.unlisted {
            let by_us = facts.record.deactivated_by_us(&made.key).is_some();
            let status = if by_us { KeyStatus::Inactive } else { KeyStatus::Active };
            facts.keys.push(Key { id: made.key.clone(), status, created: made.at, last_used: LastUsed::Never });
        }
    }
}

/// The same, of facts that stay as they are.
#[cfg(test)]
#[must_use]
pub fn look(facts: &Facts, policy: &Policy, now: Timestamp) -> ControlRecord {
    let mut facts = facts.clone();
    take_in(&mut facts, policy, now);
    facts.record
}

/// Notes which keys of this record IAM does not list. One look says nothing: what it lists may be old.
fn miss(facts: &mut Facts, now: Timestamp) {
    let record = &facts.record;
    let known = record.old.iter().chain(record.intention.iter().map(|intention| &intention.key));
    let known = known.chain(record.deactivated.iter().map(|d| &d.key)).chain(record.revoked.iter().map(|r| &r.key));
    let known = known.chain(record.own_logins.iter().map(|own| &own.key)).chain(&record.switched_on);
    let known = known.chain(record.creating.iter().filter_map(|creating| creating.key.as_ref()));
    let unlisted: BTreeSet<&KeyId> = known.filter(|key| facts.key(key).is_none()).collect();
    let since = |key: &KeyId| record.missing.iter().find(|missing| missing.key == *key).map_or(now, |m| m.since);
    facts.record.missing = unlisted.into_iter().map(|key| Missing { key: key.clone(), since: since(key) }).collect();
}

/// It was not listed for so short a time that it may be there.
fn may_be_there(missing: &[Missing], key: &KeyId, policy: &Policy, now: Timestamp) -> bool {
    missing.iter().any(|missing| missing.key == *key && missing.since + policy.listed_late > now)
}

/// Of a key that was seen Active, whoever deactivates it next is not us; and whoever brought it back needs it.
fn disown(facts: &mut Facts, policy: &Policy, now: Timestamp) {
    miss(facts, now);
    let keys = &facts.keys;
    let status = |key: &KeyId| keys.iter().find(|k| k.id == *key).map(|k| k.status);
    let record = &mut facts.record;
    for dead in record.deactivated.iter_mut().filter(|dead| status(&dead.key) == Some(KeyStatus::Inactive)) {
        dead.unanswered = false;
    }
    let (stands, over): (Vec<_>, Vec<_>) = record.deactivated.iter().cloned().partition(|d| match status(&d.key) {
        Some(KeyStatus::Inactive) => true,
        // A call that nobody answered may still arrive; and one that was answered is not listed at once.
        Some(KeyStatus::Active) => d.at + if d.unanswered { LEASE_MARGIN } else { policy.listed_late } > now,
        None => may_be_there(&record.missing, &d.key, policy, now),
    });
    record.deactivated = stands;
    for Deactivated { key, unanswered, .. } in over {
        if status(&key) != Some(KeyStatus::Active) || record.deactivated_by_us(&key).is_some() {
            continue;
        }
        record.brought_back(&key);
        // As far as anybody knows it was Active all the time.
        record.switched_on.retain(|on| !unanswered || *on != key);
    }
}

fn strike(facts: &mut Facts, policy: &Policy, now: Timestamp) {
    disown(facts, policy, now);
    let status = |key: &KeyId| facts.keys.iter().find(|k| k.id == *key).map(|k| k.status);
    let missing = facts.record.missing.clone();
    let is_there = |key: &KeyId| status(key).is_some() || may_be_there(&missing, key, policy, now);
    let inactive = |key: &KeyId| status(key) == Some(KeyStatus::Inactive);
    let record = &mut facts.record;
    record.old.take_if(|old| !is_there(old));
    record.intention.take_if(|intention| !is_there(&intention.key));
    record.own_logins.retain(|own| is_there(&own.key));
    record.proved_dead.take_if(|dead| !inactive(&dead.key));
    record.revoked.retain(|revoked| is_there(&revoked.key));
    record.switched_on.retain(|on| is_there(on));
    let (published, old) = (record.published.clone(), record.old.clone());
    let keys = &facts.keys;
    record.creating.retain(|creating| match &creating.key {
        _ if creating.until > now => true,
        Some(key) => is_there(key) && published.as_ref().is_none_or(|p| p.key != *key) && old.as_ref() != Some(key),
        None => keys.iter().any(|key| creating.fits(key)),
    });
    let fleet = &facts.fleet;
    // Until it confirms anew: what replaces a withdrawal may say nothing of it.
    let confirms = |host: &crate::facts::Host| host.standing.is_some() && host.took_back.is_none();
    record.trouble.retain(|trouble| fleet.iter().any(|h| h.name == trouble.host && !confirms(h)));
    let gone: BTreeSet<&HostName> = facts.gone.iter().collect();
    record.roster.names.retain(|name| !gone.contains(name));
}

impl Creating {
    /// Could this have made the key? By IAM's clock, which may be some minutes behind ours where it is known what was there before.
    pub fn fits(&self, key: &Key) -> bool {
        let was_there = self.before.as_ref().is_some_and(|before| before.contains(&key.id));
        let apart = if self.before.is_some() { CLOCKS_APART } else { SKEW };
        !was_there && key.created >= self.at - apart && key.created <= self.until
    }
}

/// What a lost record held, as far as the store tells; and AWSCURRENT that is another version with the published key.
fn recover(facts: &mut Facts, now: Timestamp) {
    let current = facts.store.labelled(CURRENT);
    let current_key = current.and_then(|version| version.key());
    let there = |key: &&KeyId| facts.keys.iter().any(|k| k.id == **key);
    let published = |now| {
        let (version, key) = (current?.id.clone(), current_key?.clone());
        Some(Published { version, key, at: now })
    };
    let record = &facts.record;
    match &record.published {
        None => {
            let previous = facts.store.labelled(PREVIOUS).and_then(|version| version.key());
            // Where no record was lost, that key is a person's: nobody asked for its end.
            let old =
                previous.filter(|_| !record.is_first).filter(there).filter(|key| Some(*key) != current_key).cloned();
            let pending = facts.store.labelled(PENDING).filter(|pending| Some(&pending.id) != current.map(|v| &v.id));
            let known = current_key.filter(there).is_some() && pending.is_none();
            let new = if known { published(now) } else { None };
            facts.record.old = facts.record.old.take().or(old);
            facts.record.published = new;
        }
        // In another place a version has another id: that is not published anew.
        Some(_) if facts.first_before().is_some() => {}
        Some(before) if current.is_some_and(|c| c.id != before.version) && current_key == Some(&before.key) => {
            facts.record.published = published(now);
        }
        Some(_) => {}
    }
}

/// The user is noted that has the published key.
fn pin(facts: &mut Facts) {
    if facts.record.published.as_ref().is_some_and(|published| facts.key(&published.key).is_some()) {
        let account = facts.record.user.take().and_then(|user| user.account);
        let account = facts.user.account.clone().or(account);
        facts.record.user = Some(IamUser { account, ..facts.user.clone() });
    }
}

/// The places are noted, and what each gives that is published: whatever else it gives later, somebody moved it. Which one is the
/// first may change between two rotations.
fn places(facts: &mut Facts) {
    let first = facts.place.clone();
    let may_move = facts.is_between_rotations();
    let configured: Vec<KeyPlace> = facts.configured().cloned().collect();
    let published = facts.record.published.as_ref().map(|published| &published.key);
    let current = facts.store.labelled(CURRENT).and_then(|version| version.key());
    let seen = std::iter::once((&facts.place, current));
    let seen = seen.chain(facts.further.iter().map(|further| (&further.place, further.key())));
    let known = &mut facts.record.places;
    for place in configured {
        if known.iter().all(|known| known.place != place) {
            known.push(KnownPlace { place, gives: None });
        }
    }
    for (place, given) in seen.filter(|(_, given)| given.is_some() && *given == published) {
        for known in known.iter_mut().filter(|known| known.place == *place) {
            known.gives = given.cloned();
        }
    }
    if may_move {
        known.sort_by_key(|known| known.place != first);
    }
}

fn seal(facts: &mut Facts, policy: &Policy, now: Timestamp) {
    let heard = retire::heard_of(facts, now);
    let configured = Some(policy.expected_hosts).filter(|expected| *expected > 0);
    let roster = &mut facts.record.roster;
    let with_configured = |number: usize| number.max(configured.unwrap_or(0));
    if roster.sealed_at.is_some() && roster.sealed_with.is_none() {
        // As an earlier release wrote it.
        roster.sealed_with = Some(with_configured(roster.expect.unwrap_or(0)));
    }
    roster.raised = configured.filter(|number| roster.sealed_with.is_some_and(|with| *number > with));
    roster.sealed_at.take_if(|_| roster.raised.is_some());
    // Where names were lost, a number that was written before says nothing: a person counts anew.
    let configured = configured.filter(|_| roster.lost.is_none());
    let expect = roster.raised.or(roster.expect).or(configured);
    if let Some(expect) = expect.filter(|expect| *expect > 0 && heard >= *expect && roster.sealed_at.is_none()) {
        (roster.sealed_at, roster.sealed_with, roster.raised) = (Some(now), Some(with_configured(expect)), None);
    }
    // Who comes later is missed like those before. Sealed again or not: who stands there leaves, or is removed.
    if facts.record.roster.sealed_at.is_some() {
        let names = &mut facts.record.roster.names;
        names.extend(facts.fleet.iter().map(|host| host.name.clone()));
        names.sort();
        names.dedup();
    }
}

fn clocks(facts: &mut Facts, policy: &Policy, now: Timestamp) {
    let soaked = retire::canaries_have(facts, policy, now).cloned();
    let before = facts.record.soak.take();
    facts.record.soak = soaked.map(|version| match before {
        Some(before) if before.version == version => before,
        _ => Soak { version, at: now },
    });
    let complete = retire::is_complete(facts, now);
    let anew = facts.record.complete_at.is_some_and(|at| retire::confirmed_since(facts, at));
    facts.record.complete_at = match facts.record.complete_at {
        _ if !complete => None,
        Some(at) if !anew => Some(at),
        _ => Some(now),
    };
    let holds = |key: &KeyId| {
        let old = facts.record.old.as_ref() == Some(key);
        let stops = facts.key(key).is_none_or(|old| !retire::stops(facts, old, now).is_empty());
        old && complete && !anew && !stops
    };
    let stands = facts.record.intention.as_ref().is_some_and(|intention| holds(&intention.key));
    facts.record.intention.take_if(|_| !stands);
}

impl ControlRecord {
    /// Before the call: what it is about to do. `version`: the token under which a value is about to be put.
    pub fn begin(&mut self, action: &Action, version: Option<VersionId>, now: Timestamp) {
        match action {
            Action::Create => {
                // As long as its call may go out: whoever is killed holds no key, and one of later is another's.
                let until = now + DECISION_HOLDS + SKEW;
                self.creating.push(Creating { at: now, until, key: None, before: None });
            }
            Action::Put { key, publishes: true } | Action::Republish { key, .. } => {
                self.promoting = Some(Promoting { version, key: key.clone() });
            }
            Action::Promote { version, key, .. } => {
                self.promoting = Some(Promoting { version: Some(version.clone()), key: key.clone() });
            }
            Action::LogIn { key, .. } => match self.own_logins.iter_mut().find(|own| own.key == *key) {
                Some(own) => own.at.push(now),
                None => self.own_logins.push(OwnLogin { key: key.clone(), at: vec![now] }),
            },
            Action::Deactivate { key, .. } => self.deactivate(key, now),
            Action::Put { publishes: false, .. }
            | Action::Reactivate { .. }
            | Action::Forget { .. }
            | Action::TakeOff { .. }
            | Action::Label { .. }
            | Action::Unlabel { .. }
            | Action::CopyTo { .. }
            | Action::PromoteAt { .. }
            | Action::RecordPublished { .. }
            | Action::Intend { .. }
            | Action::RecordProvedDead { .. }
            | Action::Delete { .. } => {}
        }
    }

    /// What is there before a key is made: none of it is the new one.
    pub fn saw(&mut self, keys: &[Key]) {
        if let Some(creating) = self.creating.last_mut() {
            creating.before = Some(keys.iter().map(|key| key.id.clone()).collect());
        }
    }

    /// After the call. Of a call of which nobody knows what became, the next look sees what it did.
    pub fn done(&mut self, action: &Action, outcome: &Outcome, facts: &Facts, policy: &Policy, now: Timestamp) {
        match (action, outcome) {
            (Action::Create, Outcome::Created(key)) => {
                let lease = self.lease.as_ref().map_or(now, |lease| lease.until);
                if let Some(creating) = self.creating.last_mut() {
                    (creating.key, creating.until) = (Some(key.clone()), lease);
                }
                self.made.push(Made { key: key.clone(), at: now, unlisted: false });
            }
            (Action::Create, Outcome::Failed) => {
                self.creating.pop();
            }
            // It may still arrive, for as long as a call takes. What is made later is another's.
            (Action::Create, Outcome::Unknown) => {
                if let Some(creating) = self.creating.last_mut() {
                    creating.until = creating.until.min(now + LEASE_MARGIN);
                }
            }
            // It did not come about: whoever switches the key off after that, it is not us.
            (Action::Deactivate { key, .. }, Outcome::Failed) => {
                if let Some(begun) = self.deactivated.iter().rposition(|d| d.key == *key) {
                    self.deactivated.remove(begun);
                }
            }
            (_, Outcome::Failed | Outcome::Unknown) => {}
            (Action::Promote { version, key, .. } | Action::RecordPublished { version, key }, _) => {
                self.publish(version, key, facts, now);
            }
            (Action::Put { key, .. } | Action::Republish { key, .. }, Outcome::Published(version)) => {
                self.publish(version, key, facts, now);
            }
            // Whatever else that place gives from now on, somebody put there, also before anybody looked again.
            (Action::CopyTo { place, key, .. }, Outcome::Published(_)) | (Action::PromoteAt { place, key, .. }, _) => {
                for known in self.places.iter_mut().filter(|known| known.place == *place) {
                    known.gives = Some(key.clone());
                }
            }
            (Action::TakeOff { version, refused }, _) => {
                self.promoting.take_if(|promoting| promoting.version.as_ref() == Some(version));
                if let Some(key) = refused {
                    self.back_off(key, now);
                    self.given_up(key, now);
                }
            }
            (Action::Forget { key, refused }, _) => {
                if *refused {
                    self.back_off(key, now);
                }
                self.given_up(key, now);
            }
            (Action::Reactivate { key, host }, _) => {
                self.brought_back(key);
                if let Some(host) = host {
                    self.trouble.retain(|trouble| trouble.host != *host);
                    self.trouble.push(HostTrouble { host: host.clone(), key: key.clone(), at: now });
                }
            }
            (Action::Intend { key }, _) => {
                self.intention = Some(Intention { key: key.clone(), at: now, logged_in: false });
            }
            (Action::LogIn { key, purpose }, Outcome::LoggedIn { accepted, used }) => {
                self.logged_in(key, *used);
                let last = *accepted && *purpose == Purpose::LastLogin;
                if let Some(intention) = self.intention.as_mut().filter(|intention| last && intention.key == *key) {
                    intention.logged_in = true;
                }
            }
            (Action::Deactivate { key, .. }, _) => {
                self.deactivated.retain(|d| d.key != *key);
                self.switched_on.retain(|on| on != key);
                self.deactivated.push(Deactivated { key: key.clone(), at: now, unanswered: false });
            }
            (Action::RecordProvedDead { key }, _) => {
                let endpoints = policy.endpoints.clone();
                self.proved_dead = Some(ProvedDead { key: key.clone(), at: now, endpoints });
            }
            (Action::Delete { key, .. }, _) => {
                self.old.take_if(|old| old == key);
                self.intention.take_if(|intention| intention.key == *key);
                self.deactivated.retain(|d| d.key != *key);
                self.proved_dead.take_if(|dead| dead.key == *key);
                self.creating.retain(|creating| creating.key.as_ref() != Some(key));
                self.made.retain(|made| made.key != *key);
            }
            (
                Action::Put { .. }
                | Action::Republish { .. }
                | Action::LogIn { .. }
                | Action::Label { .. }
                | Action::Unlabel { .. }
                | Action::CopyTo { .. }
                | Action::Create,
                _,
            ) => {}
        }
    }

    /// A login that every endpoint refused is no use of the key; one that any accepted is its last. One without an answer may
    /// be either: it stays beside those before it.
    fn logged_in(&mut self, key: &KeyId, used: Option<bool>) {
        let Some(own) = self.own_logins.iter_mut().find(|own| own.key == *key) else {
            return;
        };
        match used {
            Some(true) => drop(own.at.drain(..own.at.len().saturating_sub(1))),
            Some(false) => drop(own.at.pop()),
            None => thin(&mut own.at),
        }
        self.own_logins.retain(|own| !own.at.is_empty());
    }

    /// No host reads this place any more, given by its word: the clocks of the old key's end begin anew. Where it was the first
    /// one, this is the first from now on.
    pub fn remove_place(&mut self, word: &str, first: &KeyPlace) {
        let was_first = self.places.first().is_some_and(|known| known.place.word() == word);
        self.places.retain(|known| known.place.word() != word);
        if was_first {
            self.places.sort_by_key(|known| known.place != *first);
        }
        (self.complete_at, self.intention) = (None, None);
    }

    /// From now on it is about this user's keys. What is known of another one's is forgotten, and none of them was asked to go; the
    /// hosts are the same, and a person counts them anew.
    pub fn accept_user(&mut self, user: IamUser) {
        let new = Self::new(&self.credential);
        let before = std::mem::replace(self, new);
        let Roster { names, registry, others, .. } = before.roster;
        self.roster = Roster { names, registry, others, ..Roster::default() };
        (self.user, self.is_first) = (Some(user), true);
        (self.fence, self.lease, self.places, self.others) = (before.fence, before.lease, before.places, before.others);
    }

    /// It is Active again, by whoever: somebody needs it, so that the clocks of its end begin anew.
    pub fn brought_back(&mut self, key: &KeyId) {
        self.deactivated.retain(|d| d.key != *key);
        self.switched_on.retain(|on| on != key);
        self.switched_on.push(key.clone());
        self.proved_dead.take_if(|dead| dead.key == *key);
        (self.complete_at, self.intention) = (None, None);
    }

    /// Beside what is known of an earlier call, which may have been ours although this one fails.
    fn deactivate(&mut self, key: &KeyId, now: Timestamp) {
        self.deactivated.push(Deactivated { key: key.clone(), at: now, unanswered: true });
    }

    fn back_off(&mut self, key: &KeyId, now: Timestamp) {
        let attempts = self.backoff.as_ref().map_or(0, |backoff| backoff.attempts) + 1;
        let wait = (BACKOFF.0 * (1 << (attempts - 1).min(8))).min(BACKOFF.1);
        self.backoff = Some(Backoff { key: key.clone(), attempts, until: now + wait });
    }

    /// Nobody goes on with it: it is not being made any more.
    fn given_up(&mut self, key: &KeyId, now: Timestamp) {
        for creating in self.creating.iter_mut().filter(|creating| creating.key.as_ref() == Some(key)) {
            creating.until = creating.until.min(now);
        }
    }

    fn publish(&mut self, version: &VersionId, key: &KeyId, facts: &Facts, now: Timestamp) {
        // A record that was lost knows the one before from the store alone.
        let current = facts.store.labelled(CURRENT).filter(|current| current.id != *version);
        let before = current.or_else(|| facts.store.labelled(PREVIOUS)).and_then(|before| before.key());
        // Never the key that is published now; nor one that is gone: then it is the one that hosts were given instead. Where there is
        // none either, the older one is still to go.
        let mut known = self.published.iter().map(|published| &published.key).chain(before);
        let before = known.find(|before| **before != *key && facts.key(before).is_some()).cloned();
        let older = self.old.take().filter(|old| old != key);
        self.old = before.or(older);
        self.published = Some(Published { version: version.clone(), key: key.clone(), at: now });
        self.creating.retain(|creating| creating.key.as_ref() != Some(key));
        self.over = None;
        (self.want, self.backoff, self.complete_at, self.intention, self.promoting) = (None, None, None, None, None);
    }
}

/// So many logins of a key are remembered: an endpoint that gives no answer is waited for no longer than they reach.
const OWN_LOGINS: usize = 20;

/// Leaves out what the logins around it cover, and then the oldest but for the very first, which was the last that was accepted.
fn thin(logins: &mut Vec<Timestamp>) {
    if let [.., before, _, last] = logins[..]
        && last.duration_since(before) <= USE_SLACK
    {
        logins.remove(logins.len() - 2);
    }
    if logins.len() > OWN_LOGINS {
        logins.remove(1);
    }
}

#[cfg(test)]
mod tests;
