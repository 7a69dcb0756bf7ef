//! One look: keys, store, hosts and our record become facts, and facts a decision. What could not be seen is a gap, with AWS's
//! words beside it.

use std::collections::BTreeSet;

use futures_util::future::join_all;
use jiff::Timestamp;
use relaykey_core::fault::Fault;

use super::{Controller, Look};
use crate::audit::{AuditEntry, AuditEvent};
use crate::aws::store::Seen;
use crate::aws::{CallFailed, FailKind, payload};
use crate::config::Form;
use crate::evidence;
use crate::facts::{
    CURRENT, Facts, Further, Gap, HostName, IamUser, KeyId, KeyPlace, PENDING, Part, Store, StoreKind, Version,
    VersionId,
};
use crate::hosts::{Kept, Read};
use crate::plan::plan;
use crate::record::{self, ControlRecord};

impl Controller {
    /// `pins`: who owns a name, and who stands on the roster, is written; and who left it, into the audit log.
    pub(super) async fn looked(
        &mut self,
        record: ControlRecord,
        now: Timestamp,
        pins: Option<&mut Kept>,
    ) -> (Look, Option<Seen>) {
        let published = record.published.as_ref().map(|published| &published.key);
        let further = join_all(self.also.iter().map(|further| further.store.look(published)));
        let first = self.store.look(record.old.as_ref());
        let (keys, seen, also, read) = tokio::join!(self.keys.list(), first, further, self.place.read());
        let (mut gaps, mut faults) = (Vec::new(), Vec::new());
        let mut seen = taken(seen, Part::Store, &mut gaps, &mut faults);
        // Each by itself: what cannot be read in one place is nobody's emergency in another.
        let also = self.also.iter().zip(also).filter_map(|(at, looked)| {
            let part = || Part::Further(at.place.clone());
            let mut seen = taken(looked, part(), &mut gaps, &mut faults)?;
            seen.behind.iter_mut().for_each(|replica| replica.of = part());
            Some((at.place.clone(), seen))
        });
        let also: Vec<_> = also.collect();
        let mut read = taken(read, Part::Fleet, &mut gaps, &mut faults);
        // Before anything is added to it.
        let size = read.as_ref().map(Read::size).unwrap_or_default();
        if let Some(read) = read.as_mut().filter(|_| pins.is_some()) {
            let pinned = self.place.pin(read).await;
            taken(pinned, Part::Fleet, &mut gaps, &mut faults);
        }
        let kind = match &self.store {
            crate::aws::store::StoreAt::Secret(_) => StoreKind::SecretsManager,
            crate::aws::store::StoreAt::Parameter(_) => StoreKind::ParameterStore,
        };
        if let Some(seen) = &mut seen {
            promoted_before(&mut seen.store, &record);
        }
        let store = seen.as_ref().map_or_else(|| Store { kind, versions: Vec::new() }, |seen| seen.store.clone());
        let has_key = seen.as_ref().is_none_or(|seen| payload::holds_key(self.form, seen.current()));
        let further = also.iter().map(|(place, seen)| {
            let form = self.also.iter().find(|at| at.place == *place).map_or(Form::Keep, |at| at.form);
            // Where there is nothing yet, it takes the form that comes.
            let asks = seen.current().is_some() || form == Form::IamKey;
            let needs_key = asks && !has_key && payload::holds_key(form, seen.current());
            Further { place: place.clone(), store: seen.store.clone(), needs_key }
        });
        let further = further.collect();
        let behind = seen.iter().chain(also.iter().map(|(_, seen)| seen)).flat_map(|seen| &seen.behind);
        let behind = behind.cloned().collect();
        let outdated = self.outdated(seen.as_ref(), &also);
        if let Some(seen) = &mut seen {
            seen.further = also;
        }
        let mut facts = Facts {
            me: self.me.clone(),
            user: IamUser {
                name: self.keys.user().to_owned(),
                account: self.caller.as_ref().map(|caller| caller.account.clone()),
            },
            keys: taken(keys, Part::Keys, &mut gaps, &mut faults).unwrap_or_default(),
            place: self.first.clone(),
            store,
            further,
            behind,
            outdated,
            fleet: Vec::new(),
            gone: Vec::new(),
            record,
            logins: self.logins.clone(),
            unstored: self.unstored.as_ref().map(|new| new.id.clone()),
            gaps,
        };
        let mut expired = BTreeSet::new();
        if let Some(read) = &mut read {
            let partly = facts.unseen_places().next().is_some();
            let fleet = self.fleet(read, seen.as_ref(), partly, now);
            facts.fleet = fleet.hosts;
            as_the_first_place_has_it(&mut facts);
            facts.gone = fleet.gone;
            expired = fleet.expired;
            // Reports are large, and read.
            read.rows = Vec::new();
            let roster = &mut facts.record.roster;
            roster.names.extend(read.roster());
            roster.names.sort();
            roster.names.dedup();
            roster.sees(size);
        }
        let before = read.as_ref().zip(pins).map(|(read, kept)| (read, kept, facts.record.clone()));
        record::take_in(&mut facts, &self.policy, now);
        if let Some((read, kept, before)) = before {
            // Before anything depends on it; and told before it is forgotten.
            let stands: BTreeSet<&HostName> = facts.record.roster.names.iter().collect();
            let left: Vec<HostName> = read.roster().into_iter().filter(|name| !stands.contains(name)).collect();
            let mut written = Ok(());
            for some in left.chunks(TOLD_AT_ONCE) {
                if written.is_ok() {
                    let record = kept.record.clone();
                    written = self.write(kept, record, Some(left_entry(some, &expired)), None).await;
                }
            }
            if written.is_ok() {
                written = self.place.write_entries(&read.to_roster(&facts.record.roster.names)).await;
            }
            if taken(written, Part::Fleet, &mut facts.gaps, &mut faults).is_none() {
                facts.record = before;
                record::take_in(&mut facts, &self.policy, now);
            }
        }
        let decision = plan(&facts, &self.policy, now);
        (Look { facts, decision, faults, busy: None, now }, seen)
    }

    /// Where AWSPENDING is not what would be composed now.
    fn outdated(&self, seen: Option<&Seen>, also: &[(KeyPlace, Seen)]) -> Vec<Part> {
        let is_old = |seen: &Seen, form: Form, place: Option<&str>| {
            let pending = seen.store.labelled(PENDING).filter(|pending| !pending.carries(CURRENT));
            let text = pending.and_then(|pending| seen.values.get(&pending.id));
            let (Some(text), Some(current)) = (text, seen.current()) else { return false };
            let region = payload::region_of(place, self.smtp.endpoints().map(|smtp| smtp.ses_region()));
            payload::copied(form, Some(current.expose()), text, region.as_deref())
                .is_ok_and(|anew| !payload::says_the_same(&anew, text))
        };
        let first = seen.is_some_and(|seen| is_old(seen, self.form, None)).then_some(Part::Store);
        let further = also.iter().filter(|(place, seen)| {
            let at = self.also.iter().find(|at| at.place == *place);
            at.is_some_and(|at| is_old(seen, at.form, at.region.as_deref()))
        });
        first.into_iter().chain(further.map(|(place, _)| Part::Further(place.clone()))).collect()
    }

    /// `partly`: some place could not be looked at.
    fn fleet(&self, read: &Read, seen: Option<&Seen>, partly: bool, now: Timestamp) -> evidence::Fleet {
        let passwords = |version: &VersionId, key: &KeyId, region: Option<&str>| {
            let payloads = seen.into_iter().flat_map(|seen| seen.logins_of(version, key));
            let logins = payloads.filter_map(|payload| payload.login("", region).ok());
            evidence::StoredPasswords { passwords: logins.map(|login| login.password).collect(), partly }
        };
        let written = read.rows.iter().map(|row| &row.written);
        let registry = read.registry();
        let mut fleet = evidence::fleet(written, &registry, &passwords, now);
        // A new key is tried in these alone: what SES says elsewhere nobody would know before all hosts of that region have it.
        let tried: Vec<String> = self.smtp.endpoints().filter_map(|smtp| smtp.ses_region()).collect();
        for host in fleet.hosts.iter_mut().filter(|_| !tried.is_empty()) {
            host.region_refused = host.regions.iter().find(|region| !tried.contains(region)).cloned();
        }
        fleet
    }
}

/// A line of the audit log names so many hosts at most.
const TOLD_AT_ONCE: usize = 50;

/// That these stand on the roster no longer, without a person's word.
fn left_entry(hosts: &[HostName], expired: &BTreeSet<HostName>) -> AuditEntry {
    let why = |host: &HostName| if expired.contains(host) { "its lease ran out" } else { "it said so" };
    let told: Vec<String> = hosts.iter().map(|host| format!("{host}: {}", why(host))).collect();
    let entry = AuditEntry::new(AuditEvent::Done, "left-the-roster").more(told.join("; "));
    match hosts {
        [host] => entry.host(host),
        _ => entry,
    }
}

/// AWSPENDING that stays on the version that we published is over: whoever moves AWSCURRENT away from it by hand would else see it
/// promoted again.
fn promoted_before(store: &mut Store, record: &ControlRecord) {
    let Some(published) = &record.published else {
        return;
    };
    if let Some(version) = store.versions.iter_mut().find(|version| version.id == published.version) {
        version.labels.retain(|label| label != PENDING);
    }
}

/// A host that reads a further place names its versions: with the same login they stand for the first place's. Its proof was
/// checked with the value that it read.
pub(super) fn as_the_first_place_has_it(facts: &mut Facts) {
    let (store, further) = (&facts.store, &facts.further);
    for standing in facts.fleet.iter_mut().filter_map(|host| host.standing.as_mut()) {
        let is_it = |version: &Version| version.id == standing.version && version.key() == Some(&standing.key);
        let holds = |store: &Store| store.version(&standing.version).is_some_and(is_it);
        // Ids of parameters are numbers: the first place may have had this login under that one, before it was put again.
        let given = further.iter().any(|further| further.store.labelled(CURRENT).is_some_and(is_it));
        let current = store.labelled(CURRENT).filter(|current| given && current.key() == Some(&standing.key));
        let there = !holds(store) && further.iter().any(|further| holds(&further.store));
        if let Some(first) = current.or_else(|| store.with_key(&standing.key).filter(|_| there)) {
            standing.version = first.id.clone();
        }
    }
}

impl Look {
    /// The id of the published version.
    pub fn published(&self) -> Option<&VersionId> {
        self.facts.store.labelled(CURRENT).map(|version| &version.id)
    }
}

/// What could not be looked at is a gap.
fn taken<T>(result: Result<T, CallFailed>, part: Part, gaps: &mut Vec<Gap>, faults: &mut Vec<Fault>) -> Option<T> {
    match result {
        Ok(taken) => Some(taken),
        Err(CallFailed { kind, mut fault }) => {
            // Somebody was faster: the next look sees what they did.
            fault.temporary |= kind == FailKind::Conflict;
            gaps.push(Gap { why: kind.unseen(&part), part });
            faults.push(*fault);
            None
        }
    }
}
