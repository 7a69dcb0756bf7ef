//! What is done next, and why: facts in, one action out. The first rule that fires wins; whatever stands in the way is listed
//! with it, as far as the rules were asked.
//!
//! ```text
//!   idle ─ 8 ─> creating ─ 5 ─> pending ─ 6 ─> canary ─ 7 ─> waiting ─> grace ─> lag ─ 10 ─> retiring ─ 10a ─> observing ─ 11 ─> idle
//!                  │               │                                                                  │
//!                  └─ 9 leftover   └─ 6, 6a, 6b: taken off                     1, 3: brought back ────┘
//! ```
//!
//! Phases are derived from the facts each time, and never stored. Each action names the ids it is about: never "the other
//! key". Time is passed in.

mod decision;
mod publishing;
mod retiring;

use std::collections::HashSet;

use jiff::{SignedDuration, Timestamp};

pub use self::decision::{Action, Decision, Outcome, Phase, Purpose, Reason, WhyGone};
use crate::evidence::{Verdict, verdict};
use crate::facts::{CURRENT, Facts, HostName, Key, KeyId, KeyStatus, LastUsed, LoginReply, PENDING, Part};
use crate::facts::{StoreKind, Value, Version};
use crate::policy::{DeleteOld, LEFTOVER, Policy, UNUSED};
use crate::record::ControlRecord;
use crate::refusal::{KnownUse, Refusal, WaitsFor};
use crate::retire;

/// What a rule says that fires.
enum Turn {
    Act(Action, Reason),
    /// Nothing further down is asked.
    Wait(Reason),
}

/// Acts for this reason.
fn act(action: Action, reason: Reason) -> Option<Turn> {
    Some(Turn::Act(action, reason))
}

fn wait(reason: Reason) -> Option<Turn> {
    Some(Turn::Wait(reason))
}

/// One look, with what every rule asks.
struct RuleInput<'a> {
    facts: &'a Facts,
    policy: &'a Policy,
    record: &'a ControlRecord,
    now: Timestamp,
    current: Option<&'a Version>,
    /// The key in AWSCURRENT.
    current_key: Option<&'a KeyId>,
    /// AWSPENDING, where that is not AWSCURRENT too. Parameter Store has none.
    pending: Option<&'a Version>,
}

type Rule = fn(&RuleInput, &mut Vec<Refusal>) -> Option<Turn>;

/// In their order; 9 is asked last, and then 12 is left.
const RULES: [Rule; 19] = [
    rule_1,
    rule_2,
    rule_3,
    rule_4,
    publishing::rule_5,
    publishing::rule_6,
    publishing::rule_6a,
    publishing::rule_6b,
    publishing::composed_anew,
    publishing::rule_7,
    publishing::staged_everywhere,
    publishing::rule_7a,
    publishing::published_everywhere,
    publishing::canary_over,
    rule_8,
    retiring::rule_10,
    retiring::rule_10a,
    retiring::rule_11,
    rule_9,
];

/// What is to be done about these facts, now.
#[must_use]
pub fn plan(facts: &Facts, policy: &Policy, now: Timestamp) -> Decision {
    let current = facts.store.labelled(CURRENT);
    let pending = facts.store.labelled(PENDING).filter(|p| current.is_none_or(|c| c.id != p.id));
    let look = RuleInput {
        facts,
        policy,
        record: &facts.record,
        now,
        current,
        current_key: current.and_then(|version| version.key()),
        pending: pending.filter(|_| facts.store.kind == StoreKind::SecretsManager),
    };
    let mut refusals = look.unseen();
    let turn = if look.blind(&mut refusals) {
        Turn::Wait(Reason::Refused)
    } else {
        // A key that another place gives, or that a host misses, need not wait for the first place: what was seen there, the
        // host's word, the keys and our own record are enough.
        let rules: &[Rule] = if look.unseen_part(&Part::Store) { &[rule_1, rule_3] } else { &RULES };
        rules.iter().find_map(|rule| rule(&look, &mut refusals)).unwrap_or_else(|| rule_12(&look, &mut refusals))
    };
    let (action, reason) = match turn {
        Turn::Act(action, reason) => match look.would_cut(&action) {
            Some(refusal) => {
                refusals.push(refusal);
                (None, Reason::Refused)
            }
            None => (Some(action), reason),
        },
        Turn::Wait(reason) => (None, reason),
    };
    let phase = look.phase(action.as_ref(), &reason, &refusals);
    let next = look.next(&phase, action.as_ref(), &reason);
    Decision { phase, next, action, reason, refusals, hosts: look.hosts() }
}

/// The published key is Inactive. By us: a host may be on it, back with it at once. By another's hand: it is theirs to say,
/// and no other key dies meanwhile (rules 10 and 11).
fn rule_1(look: &RuleInput, refusals: &mut Vec<Refusal>) -> Option<Turn> {
    if let Some(key) = look.deactivated_by_hand() {
        refusals.push(Refusal::DeactivatedByHand { key: key.clone() });
    }
    let further = look.facts.further.iter().filter_map(|further| further.key());
    let mut given = look.current_key.into_iter().chain(further);
    let key = given.find(|key| look.inactive_by_us(key) && !look.record.is_revoked(key))?;
    act(Action::Reactivate { key: key.clone(), host: None }, Reason::PublishedKeyInactive(key.clone()))
}

/// The published key is gone, and nothing better is under way: whatever lives is published again, else a new key is made.
fn rule_2(look: &RuleInput, refusals: &mut Vec<Refusal>) -> Option<Turn> {
    let (current, key) = (look.current?, look.current_key?);
    if look.status(key).is_some() {
        return None;
    }
    // Never seen alive, or put there since: another user's, for all we know.
    if let Some(refusal) = publishing::not_ours(look, current, key) {
        add(refusals, [refusal]);
        return None;
    }
    // Where nothing was published yet, a rotation that is asked for makes one (rule 8).
    look.record.published.as_ref()?;
    if look.pending.is_some() || look.facts.unstored.is_some() {
        return None;
    }
    let reason = || Reason::PublishedKeyGone(key.clone());
    // What SES refused is not published again while the back-off stands, nor after it where a new key has a place. Another value
    // is tried at once; when that is refused too, all wait.
    let held = |key: &KeyId| {
        look.record.backoff.as_ref().is_some_and(|backoff| {
            let stands = backoff.until > look.now;
            if backoff.key == *key { stands || look.facts.keys.len() < 2 } else { stands && backoff.attempts > 1 }
        })
    };
    let live = |version: &&Version| {
        let lives = |key: &KeyId| look.status(key) == Some(KeyStatus::Active) && !look.record.is_revoked(key);
        version.key().is_some_and(|key| lives(key) && !held(key))
    };
    if let Some((version, key)) = look.facts.store.versions.iter().rev().find(live).and_then(|v| Some((v, v.key()?))) {
        // Where there is no AWSPENDING, what is put is published: verified first.
        if look.facts.store.kind == StoreKind::ParameterStore {
            match look.asked(key) {
                OwnLogins::Accepted => {}
                OwnLogins::Stale => return act(log_in(key, Purpose::Verify), Reason::ToVerify(key.clone())),
                // Held back for a while: another value, or a new key, has its turn.
                OwnLogins::Refused => {
                    refusals.push(Refusal::SesRefuses { key: key.clone() });
                    let forgotten = Action::Forget { key: key.clone(), refused: true };
                    return act(forgotten, Reason::NotTaken(key.clone()));
                }
                OwnLogins::Unanswered => {
                    refusals.push(Refusal::SesRefuses { key: key.clone() });
                    return wait(Reason::NotTaken(key.clone()));
                }
            }
        }
        return act(Action::Republish { from: version.id.clone(), key: key.clone() }, reason());
    }
    if let Some(creating) = look.record.creating_now(look.now) {
        return wait(Reason::BeingMade { until: creating.until });
    }
    let backs_off = look.backs_off(refusals);
    if look.facts.keys.len() < 2 {
        return if backs_off { None } else { act(Action::Create, reason()) };
    }
    let leftover = look.leftover_turn(refusals);
    if let Some(Turn::Act(..)) = leftover {
        return leftover;
    }
    let old = look.record.old.as_ref().filter(|old| look.inactive_by_us(old) && !look.record.is_revoked(old));
    if let Some(old) = old.filter(|old| look.facts.store.with_key(old).is_some()) {
        return act(Action::Reactivate { key: old.clone(), host: None }, reason());
    }
    if leftover.is_none() {
        refusals.push(Refusal::TwoLiveKeys { keys: look.key_ids() });
    }
    leftover
}

/// A host says that it is cut off, and the key it names is one that we deactivated.
fn rule_3(look: &RuleInput, _: &mut Vec<Refusal>) -> Option<Turn> {
    let mut named = look.facts.fleet.iter().flat_map(|host| host.needs_back().map(move |key| (host, key)));
    let (host, key) = named.find(|(_, key)| look.inactive_by_us(key) && !look.record.is_revoked(key))?;
    let reason = Reason::HostCutOff(host.name.clone(), key.clone());
    act(Action::Reactivate { key: key.clone(), host: Some(host.name.clone()) }, reason)
}

/// A revoke is open. What is done about it is not decided here yet; nothing else is done meanwhile.
fn rule_4(look: &RuleInput, refusals: &mut Vec<Refusal>) -> Option<Turn> {
    let published = look.current_key.filter(|key| look.record.is_revoked(key));
    if let Some(key) = published {
        refusals.push(Refusal::RevokedKeyPublished { key: key.clone() });
    }
    let alive = |key: &&Key| key.status == KeyStatus::Active && look.record.is_revoked(&key.id);
    let open = published.is_some() || look.facts.keys.iter().any(|key| alive(&key));
    if open { wait(Reason::Refused) } else { None }
}

/// A rotation is due or asked for, and none is under way.
fn rule_8(look: &RuleInput, refusals: &mut Vec<Refusal>) -> Option<Turn> {
    let reason = look.wanted()?;
    if look.unseen_part(&Part::Fleet) || look.pending.is_some() || look.facts.unstored.is_some() {
        return None;
    }
    // Told by rule 7a. What hosts are given now may be another one's key: whose it is, a person says first.
    if look.record.published.is_some() && !retire::published_is_current(look.facts) {
        return None;
    }
    if let Some(creating) = look.record.creating_now(look.now) {
        return wait(Reason::BeingMade { until: creating.until });
    }
    let refused = look.facts.fleet.iter().find_map(|host| Some((host, host.region_refused.as_ref()?)));
    if let Some((host, region)) = refused {
        refusals.push(Refusal::RegionRefused { host: host.name.clone(), region: region.clone() });
        return None;
    }
    if let Some(refusal) = publishing::first_in_the_way(look) {
        add(refusals, [refusal]);
        return None;
    }
    // No key is made that one place could not take, or that one would not get.
    let in_the_way = look.facts.further.iter().filter_map(|further| publishing::refused_at(look, further));
    let not_seen = retire::place_stops(look.facts).chain(retire::unseen_stops(look.facts));
    let in_the_way: Vec<_> = in_the_way.chain(not_seen).collect();
    let stopped = !in_the_way.is_empty() && publishing::serves(look);
    add(refusals, in_the_way);
    if stopped {
        return None;
    }
    if look.backs_off(refusals) {
        return None;
    }
    match &look.record.old {
        None if look.facts.keys.len() < 2 => act(Action::Create, reason),
        // Kept dead for ever, until its place is needed.
        Some(old) if look.policy.delete == DeleteOld::Never && retiring::may_be_deleted(look, old, &mut Vec::new()) => {
            let reason = Reason::MakesRoom(old.clone());
            act(Action::Delete { key: old.clone(), why: WhyGone::Retired }, reason)
        }
        _ => None,
    }
}

/// Two keys: one that we made and nothing came of is cleared; one that nobody explains is a person's.
fn rule_9(look: &RuleInput, refusals: &mut Vec<Refusal>) -> Option<Turn> {
    if look.facts.keys.len() < 2 || look.unseen_part(&Part::Fleet) {
        return None;
    }
    if let Some(turn) = look.leftover_turn(refusals) {
        return Some(turn);
    }
    let ours = |key: &KeyId| {
        let made = look.record.creating_now(look.now).is_some_and(|c| c.key.as_ref().is_none_or(|made| made == key));
        made || look.pending.and_then(|pending| pending.key()) == Some(key)
    };
    let published = look.record.published.as_ref().map(|published| &published.key);
    let explained = |key: &KeyId| {
        Some(key) == look.current_key || Some(key) == published || Some(key) == look.record.old.as_ref() || ours(key)
    };
    let mut unexplained = look.facts.keys.iter().map(|key| &key.id).filter(|key| !explained(key)).peekable();
    if unexplained.peek().is_some() && look.wanted().is_some() {
        refusals.push(Refusal::TwoLiveKeys { keys: look.key_ids() });
    }
    let told = |key: &KeyId| Refusal::UnexplainedKey { key: key.clone(), used: look.known_use(key) };
    refusals.extend(unexplained.map(told));
    None
}

/// Else wait. A host that is cut off is told, also where no old key is left that it could be given back.
fn rule_12(look: &RuleInput, refusals: &mut Vec<Refusal>) -> Turn {
    let cut_off = look.facts.fleet.iter().filter(|host| host.took_back.is_some());
    add(refusals, cut_off.map(|host| Refusal::Withdrawn { host: host.name.clone() }));
    add(refusals, look.not_listed());
    Turn::Wait(if refusals.is_empty() { Reason::NothingDue { until: look.due() } } else { Reason::Refused })
}

/// Each once: there may be one for each of many hosts.
fn add(refusals: &mut Vec<Refusal>, more: impl IntoIterator<Item = Refusal>) {
    let mut told: HashSet<Refusal> = refusals.iter().cloned().collect();
    refusals.extend(more.into_iter().filter(|refusal| told.insert(refusal.clone())));
}

/// What our logins say of a key.
enum OwnLogins {
    Accepted,
    Refused,
    Unanswered,
    /// Not asked, or not lately.
    Stale,
}

fn log_in(key: &KeyId, purpose: Purpose) -> Action {
    Action::LogIn { key: key.clone(), purpose }
}

/// What AWS dates so much later than now, our clock is behind with.
const CLOCK_BEHIND: SignedDuration = SignedDuration::from_mins(2);

/// A reply counts for so long.
const LOGIN_HOLDS: SignedDuration = SignedDuration::from_secs(50);

impl RuleInput<'_> {
    fn status(&self, key: &KeyId) -> Option<KeyStatus> {
        self.facts.status(key)
    }

    fn inactive_by_us(&self, key: &KeyId) -> bool {
        self.status(key) == Some(KeyStatus::Inactive) && self.record.deactivated_by_us(key).is_some()
    }

    /// It is listed as Active, and we deactivated it: until when nobody knows whether that is an old list, or somebody brought it back.
    fn listed_late(&self, key: &KeyId) -> Option<Timestamp> {
        let dead = self.record.deactivated_by_us(key).filter(|dead| !dead.unanswered)?;
        Some(dead.at + self.policy.listed_late).filter(|_| self.status(key) == Some(KeyStatus::Active))
    }

    /// The published key is one that IAM does not list. Its list may be late; and no other key dies meanwhile.
    fn not_listed(&self) -> Option<Refusal> {
        let key = self.current_key?;
        Some(Refusal::NotListed { key: key.clone(), until: self.record.unlisted(key)? })
    }

    /// AWS dates something later than our clock says it is now.
    fn our_clock(&self) -> Option<Refusal> {
        let used = self.facts.keys.iter().filter_map(|key| match &key.last_used {
            LastUsed::At { at, .. } => Some(*at),
            LastUsed::Never | LastUsed::Unknown => None,
        });
        let made = self.facts.keys.iter().map(|key| key.created);
        let stored = self.facts.store.versions.iter().map(|version| version.created);
        let behind = made.chain(stored).chain(used).max()?.duration_since(self.now);
        (behind > CLOCK_BEHIND).then_some(Refusal::OurClock { behind })
    }

    /// The published key is Inactive, and not by us.
    fn deactivated_by_hand(&self) -> Option<&KeyId> {
        let inactive = self.current_key.filter(|key| self.status(key) == Some(KeyStatus::Inactive))?;
        Some(inactive).filter(|key| !self.record.is_revoked(key) && self.record.deactivated_by_us(key).is_none())
    }

    fn key_ids(&self) -> Vec<KeyId> {
        self.facts.keys.iter().map(|key| key.id.clone()).collect()
    }

    /// At every configured endpoint: accepted at all, refused at one, or not known of one.
    fn asked(&self, key: &KeyId) -> OwnLogins {
        self.asked_since(key, Timestamp::MIN)
    }

    /// The same, by what was said since then.
    fn asked_since(&self, key: &KeyId, since: Timestamp) -> OwnLogins {
        let of = |endpoint: &String| {
            let lately = |login: &&crate::facts::Login| {
                let is_fresh = login.at + LOGIN_HOLDS > self.now && login.at >= since;
                login.key == *key && login.endpoint == *endpoint && is_fresh
            };
            self.facts.logins.iter().rev().find(lately).map(|login| login.reply)
        };
        let replies: Vec<_> = self.policy.endpoints.iter().map(of).collect();
        match () {
            () if replies.is_empty() || replies.contains(&None) => OwnLogins::Stale,
            () if replies.contains(&Some(LoginReply::Refused)) => OwnLogins::Refused,
            () if replies.contains(&Some(LoginReply::NoAnswer)) => OwnLogins::Unanswered,
            () => OwnLogins::Accepted,
        }
    }

    /// At every configured endpoint: refused.
    fn dead(&self, key: &KeyId, since: Timestamp) -> bool {
        let refused = |endpoint: &String| {
            let login = self.facts.logins.iter().rev().find(|login| login.key == *key && login.endpoint == *endpoint);
            login.is_some_and(|login| login.reply == LoginReply::Refused && login.at >= since)
        };
        !self.policy.endpoints.is_empty() && self.policy.endpoints.iter().all(refused)
    }

    /// Why a rotation is wanted, if it is.
    fn wanted(&self) -> Option<Reason> {
        if let Some(want) = &self.record.want {
            return Some(Reason::Asked { by: want.by.clone() });
        }
        let created = self.facts.key(self.current_key?)?.created;
        (created + self.policy.every <= self.now).then_some(Reason::OldEnough { since: created })
    }

    /// SES did not take the last key: told until one is taken, also while it is tried again. Is it too early for that?
    fn backs_off(&self, refusals: &mut Vec<Refusal>) -> bool {
        let Some(backoff) = &self.record.backoff else {
            return false;
        };
        let told = Refusal::SesRefuses { key: backoff.key.clone() };
        if !refusals.contains(&told) {
            refusals.push(told);
        }
        backoff.until > self.now
    }

    fn due(&self) -> Option<Timestamp> {
        Some(self.facts.key(self.current_key?)?.created + self.policy.every)
    }

    /// What names this key: a labelled version, what is published, the old key, a host.
    fn named(&self, key: &KeyId) -> bool {
        let labelled = self.facts.store.versions.iter().any(|v| !v.labels.is_empty() && v.key() == Some(key));
        let record = self.record;
        let ours = record.published.as_ref().is_some_and(|p| p.key == *key) || record.old.as_ref() == Some(key);
        let given = self.facts.further.iter().any(|further| further.key() == Some(key));
        // Who gives a key that nobody can see now may be found out later; an emergency does not wait for that.
        let hidden = self.facts.may_be_given(key) || !self.facts.sees_all_places() && publishing::serves(self);
        labelled || given || hidden || ours || self.facts.fleet.iter().any(|host| names(host, key))
    }

    /// A key of ours that nothing came of. An Inactive one only if we deactivated it.
    fn is_leftover(&self, key: &Key) -> bool {
        let made = self.record.creating.iter().filter(|creating| creating.until <= self.now);
        let made = made.clone().any(|creating| match &creating.key {
            Some(made) => *made == key.id,
            None => creating.fits(key),
        });
        let by_us = key.status == KeyStatus::Active || self.inactive_by_us(&key.id) || self.record.is_revoked(&key.id);
        let needed = self.record.switched_on.contains(&key.id);
        made && by_us && !needed && !self.named(&key.id) && self.unused(key)
    }

    /// But for logins of our own.
    fn unused(&self, key: &Key) -> bool {
        match &key.last_used {
            LastUsed::Never => true,
            LastUsed::At { at, .. } => self.record.own_login(&key.id, *at),
            LastUsed::Unknown => false,
        }
    }

    /// What is known of who uses a key. That nothing does is only said where everything was seen that would tell.
    fn known_use(&self, id: &KeyId) -> KnownUse {
        // Also of one that is Inactive: that host misses it.
        if let Some(host) = self.facts.fleet.iter().find(|host| names(host, id)) {
            return KnownUse::Named { host: host.name.clone() };
        }
        let Some(key) = self.facts.key(id).filter(|key| key.status == KeyStatus::Active) else {
            return KnownUse::Inactive;
        };
        let unreadable = self.facts.store.versions.iter().any(|version| version.value == Value::Unreadable);
        // IAM tells late; and whoever has a key that is not published is not seen where nothing is.
        let tells = self.current_key.is_some() && !unreadable && key.created + self.policy.last_use_lag <= self.now;
        match &key.last_used {
            LastUsed::At { at, service, .. } if *at + UNUSED > self.now => {
                KnownUse::Used { at: *at, service: service.clone() }
            }
            LastUsed::Never | LastUsed::At { .. } if tells => KnownUse::Nothing,
            _ => KnownUse::NotKnown,
        }
    }

    /// Clears a leftover: deactivated, and a day later deleted.
    fn leftover_turn(&self, _: &mut Vec<Refusal>) -> Option<Turn> {
        let key = self.facts.keys.iter().find(|k| Some(&k.id) != self.current_key && self.is_leftover(k))?;
        let (id, why, reason) = (key.id.clone(), WhyGone::Leftover, Reason::Leftover(key.id.clone()));
        if key.status == KeyStatus::Active {
            return match self.listed_late(&id) {
                Some(until) => wait(Reason::Settles { until }),
                None => act(Action::Deactivate { key: id, why }, reason),
            };
        }
        let until = self.record.deactivated_by_us(&key.id)?.at + LEFTOVER;
        if until <= self.now {
            return act(Action::Delete { key: id, why }, reason);
        }
        wait(Reason::LeftoverLies { key: id, until })
    }

    fn unseen_part(&self, part: &Part) -> bool {
        self.facts.gaps.iter().any(|gap| gap.part == *part)
    }

    /// What could not be looked at, and which places are not: told whatever is done.
    fn unseen(&self) -> Vec<Refusal> {
        self.facts.gaps.iter().map(Refusal::of_a_gap).chain(retire::place_stops(self.facts)).collect()
    }

    /// Without keys or lease there is nothing that could be done; without the store, only what rule 3 asks for.
    fn blind(&self, refusals: &mut Vec<Refusal>) -> bool {
        let lease = self.record.lease.as_ref().filter(|lease| lease.holder == self.facts.me && lease.until > self.now);
        if lease.is_none() {
            let other = self.record.lease.clone().filter(|other| other.until > self.now);
            let (holder, until) =
                other.map_or((String::new(), self.now), |other| (other.who.unwrap_or(other.holder), other.until));
            refusals.push(Refusal::Busy { holder, until });
        }
        let neither = self.unseen_part(&Part::Store) && self.unseen_part(&Part::Fleet);
        let nothing = neither && self.facts.further.is_empty();
        let before = self.facts.user_before();
        let is = || self.facts.user.clone();
        refusals.extend(before.map(|user| Refusal::WrongUser { user: user.clone(), is: is() }));
        lease.is_none() || before.is_some() || self.unseen_part(&Part::Keys) || nothing
    }

    /// The last look at an action before it is given out: no counted host that is known to log in with a key loses it.
    fn would_cut(&self, action: &Action) -> Option<Refusal> {
        let (Action::Deactivate { key, .. } | Action::Delete { key, .. }) = action else {
            return None;
        };
        let given = self.facts.further.iter().any(|further| further.key() == Some(key));
        if given || self.facts.may_be_given(key) || self.current_key == Some(key) {
            return Some(Refusal::WouldCut { host: None, key: key.clone() });
        }
        let host = self.facts.fleet.iter().find(|host| names(host, key))?;
        Some(Refusal::WouldCut { host: Some(host.name.clone()), key: key.clone() })
    }

    fn hosts(&self) -> Vec<(HostName, Verdict)> {
        let published = self.record.published.as_ref();
        let of = |published: &crate::record::Published| {
            let one = |host: &crate::facts::Host| {
                (host.name.clone(), verdict(host, &published.version, &published.key, self.now))
            };
            self.facts.fleet.iter().map(one).collect()
        };
        published.map(of).unwrap_or_default()
    }

    fn phase(&self, action: Option<&Action>, reason: &Reason, refusals: &[Refusal]) -> Phase {
        let person = refusals.iter().find(|refusal| refusal.waits_for() == WaitsFor::Person);
        let old = self.record.old.as_ref();
        let dead = |old: &KeyId| self.record.proved_dead.as_ref().is_some_and(|dead| dead.key == *old);
        match reason {
            Reason::PublishedKeyInactive(_) | Reason::PublishedKeyGone(_) | Reason::HostCutOff(..) => Phase::Trouble,
            _ if refusals.iter().any(|r| matches!(r, Refusal::RevokedKeyPublished { .. })) => Phase::Revoked,
            _ if !self.record.trouble.is_empty() => Phase::Trouble,
            Reason::Refused if action.is_none() && person.is_some() => {
                Phase::Stuck(person.cloned().expect("there is one"))
            }
            Reason::Canary(_) | Reason::CanaryWaits { .. } | Reason::CanarySoaks { .. } => Phase::Canary,
            _ if self.pending.is_some() => Phase::Pending,
            _ if self.facts.unstored.is_some() || self.record.creating_now(self.now).is_some() => Phase::Creating,
            Reason::Asked { .. } | Reason::OldEnough { .. } => Phase::Creating,
            _ if old.is_some_and(dead) => Phase::Observing,
            _ if old.is_some_and(|old| self.status(old) == Some(KeyStatus::Inactive)) => Phase::Retiring,
            Reason::AllQuiet(_) => Phase::Retiring,
            _ if self.record.intention.is_some() => Phase::Retiring,
            Reason::Confirmed { .. } => match retire::grace_and_lag(self.facts, self.policy) {
                Some((grace, _)) if grace > self.now => Phase::Grace,
                _ => Phase::Lag,
            },
            _ if old.is_some() => Phase::Waiting,
            _ => Phase::Idle,
        }
    }

    /// When it is worth looking again: at once after an action, else soon where much can change, and never later than what is
    /// waited for.
    fn next(&self, phase: &Phase, action: Option<&Action>, reason: &Reason) -> Option<Timestamp> {
        if action.is_some() {
            return Some(self.now);
        }
        let minutes = match phase {
            Phase::Creating | Phase::Pending | Phase::Canary | Phase::Trouble | Phase::Retiring | Phase::Revoked => 1,
            Phase::Waiting | Phase::Observing | Phase::Stuck(_) => 5,
            Phase::Grace | Phase::Lag => 60,
            Phase::Idle => 24 * 60,
        };
        let regular = self.now + SignedDuration::from_mins(minutes).min(self.policy.reconcile);
        let known = self.current_key.and_then(|key| self.record.unlisted(key));
        let regular = known.map_or(regular, |known| regular.min(known.max(self.now)));
        Some(reason.until().map_or(regular, |until| regular.min(until.max(self.now))))
    }
}

/// Does this host say that it logs in with this key, or that a table of it holds it?
fn names(host: &crate::facts::Host, key: &KeyId) -> bool {
    let standing = host.standing.as_ref().map(|standing| &standing.key);
    let took = host.took_back.iter().flat_map(|took| &took.keys);
    took.chain(&host.lists.others).chain(&host.lists.in_use).chain(standing).any(|named| named == key)
}

#[cfg(test)]
mod tests;
