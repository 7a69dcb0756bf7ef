//! What counts as evidence that a host has what is published: its reports, read and checked. Pure: passwords and time are
//! passed in.
//!
//! - Any report registers a host; `adopted` and `confirmed` alone count, the latest of them, also inside of what replaced them.
//! - `failed`, `pending-approval` and `rejected` take nothing back. `withdrawn` and `applied-refused` do, until the next
//!   confirmation. `left` removes the host.
//! - `failed` about what was applied, with no confirmation under it, is a withdrawal that it replaced. A host without confirmation
//!   is cut off where a key that it names as in use is dead, whatever it says.
//! - A time out of a report may be any: `alive_due` counts as seven days after it was written at most, `poll_s` as a day.
//! - A removal by a person covers what was written before it.
//! - A host with a lease that was not heard of for twice as long is gone.
//! - Each item is a host of its own, whatever its report says of itself; and nobody leaves for a name that another one owns.
//! - `alive` with a proof of its own counts for as long as that is true.
//! - `another_login` beside `in_use` takes back what was confirmed: the mail server uses something else. What is half done counts
//!   with what tables hold.
//! - A key that a report names as in use after the confirmation is one that the host needs, proved or not.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};
use relaykey_core::credential::{NOT_SHOWN, ProofVerdict, Secret, is_access_key_id, verify_proof};
use relaykey_core::report::{REPORT_V1, REPORT_V2, Report, ReportOutcome, ReportTarget, StillHeld};
use relaykey_core::text;

use crate::facts::{Generation, Host, HostName, KeyId, Lists, Proved, Registered, Standing, TookBack, VersionId};
use crate::facts::{Waiver, WhyMissing, WhyTakenBack};
use crate::policy::SILENT;

/// How far a host's clock may be ahead of ours.
const CLOCK_AHEAD: SignedDuration = SignedDuration::from_mins(5);
/// When the sign of life of an agent that does not say so is due: daily, and a tenth later.
const ALIVE: SignedDuration = SignedDuration::from_mins(24 * 66);
/// No host may say that it will be silent for longer from when it wrote: it would never be missed.
const ALIVE_DUE: SignedDuration = SignedDuration::from_hours(7 * 24);
/// No host may say that it asks less often: the old key would never be let go.
const POLL: SignedDuration = SignedDuration::from_hours(24);

/// One host, as far as one version with one key is concerned.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// It has it, and proved it. `by_code`: by a code that a person typed, which is weaker.
    True {
        by_code: bool,
    },
    /// Its proof was made with another password, or over other fields.
    False,
    Missing(WhyMissing),
    /// What it last confirmed is another version, or the same with another key.
    Old {
        version: VersionId,
        key: KeyId,
    },
    /// It was not heard of in time.
    Stale {
        since: Timestamp,
    },
    /// Somebody named it, and it never wrote.
    NeverHeard,
    /// It wrote, and has confirmed nothing.
    Unconfirmed,
    /// It took its confirmation back.
    TookBack,
    /// Its clock is ahead.
    Clock,
    /// Its agent writes reports without what is asked.
    TooOld,
}

/// What this host's evidence is worth for this version with this key, now.
pub fn verdict(host: &Host, version: &VersionId, key: &KeyId, now: Timestamp) -> Verdict {
    if host.took_back.is_some() {
        return Verdict::TookBack;
    }
    let standing = host.standing.as_ref();
    let this = standing.filter(|standing| standing.version == *version && standing.key == *key);
    if this.is_some_and(|standing| standing.proof == Proved::False) {
        return Verdict::False;
    }
    let Some(heard) = host.heard else {
        return Verdict::NeverHeard;
    };
    if host.clock_ahead {
        return Verdict::Clock;
    }
    if is_silent(host, now) {
        return Verdict::Stale { since: heard };
    }
    let Some(standing) = standing else {
        return Verdict::Unconfirmed;
    };
    if this.is_none() {
        return Verdict::Old { version: standing.version.clone(), key: standing.key.clone() };
    }
    match standing.proof {
        Proved::False => Verdict::False,
        Proved::Missing(why) => Verdict::Missing(why),
        Proved::True | Proved::ByCode if host.generation == Generation::V1 => Verdict::TooOld,
        Proved::True => Verdict::True { by_code: false },
        Proved::ByCode => Verdict::True { by_code: true },
    }
}

/// It was heard of, and not in time.
pub fn is_silent(host: &Host, now: Timestamp) -> bool {
    host.heard.is_some_and(|heard| after(host.alive_due.unwrap_or_else(|| after(heard, ALIVE)), SILENT) < now)
}

/// A time out of a report may be any.
fn after(at: Timestamp, by: SignedDuration) -> Timestamp {
    at.checked_add(by).unwrap_or(Timestamp::MAX)
}

fn takes_back(outcome: ReportOutcome) -> Option<WhyTakenBack> {
    match outcome {
        ReportOutcome::Withdrawn => Some(WhyTakenBack::Withdrawn),
        ReportOutcome::AppliedRefused => Some(WhyTakenBack::AppliedRefused),
        _ => None,
    }
}

/// Reports inside of reports: a report, what stands, and what stood before a sign of life.
const DEPTH: usize = 3;

/// A report where it was found: who wrote it, as the place vouches for it, and when.
#[derive(Debug, Clone, PartialEq)]
pub struct Written {
    pub principal: String,
    /// The item that holds it. What the report says of itself does not make two of them one.
    pub item: (String, String),
    pub at: Timestamp,
    pub report: Report,
}

/// The SMTP passwords that a version's id stands for, with a user name and a region: one for each place that has such a version.
#[derive(Debug, Default)]
pub struct StoredPasswords {
    pub passwords: Vec<Secret>,
    /// There may be others: some place could not be looked at.
    pub partly: bool,
}

/// The same, as far as it can be read and derived.
pub type Passwords<'a> = &'a dyn Fn(&VersionId, &KeyId, Option<&str>) -> StoredPasswords;

/// What people said about hosts.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Registry {
    /// Counted although it may never have written.
    pub listed: Vec<HostName>,
    /// Counted no more, as far as it wrote nothing since then.
    pub removed: BTreeMap<HostName, Removed>,
    pub waivers: BTreeMap<HostName, Waiver>,
    /// The principal that owns a name: the first that wrote it, or the one that a person accepted.
    pub owners: BTreeMap<HostName, String>,
    /// Principals that several hosts may write under.
    pub shared: Vec<String>,
}

/// A person's word that a host is gone.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Removed {
    pub at: Timestamp,
    /// The number of the last report of each installation that was there then; `None`: it was not written down.
    pub reports: Option<BTreeMap<String, u64>>,
}

impl Removed {
    /// Was this there when it was said? By numbers: the clock of a host may lag behind ours.
    fn covers(&self, one: &Written) -> bool {
        match &self.reports {
            Some(reports) => reports.get(&one.report.host_id).is_some_and(|last| one.report.seq <= *last),
            None => one.at <= self.at,
        }
    }
}

/// The fleet, and who left it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Fleet {
    pub hosts: Vec<Host>,
    pub gone: Vec<HostName>,
    /// Those of them that come and go, and were not heard of for twice their lease.
    pub expired: BTreeSet<HostName>,
}

/// Judges everything that was written about one credential.
pub fn fleet<'a>(
    written: impl IntoIterator<Item = &'a Written>,
    registry: &Registry,
    passwords: Passwords,
    now: Timestamp,
) -> Fleet {
    // The highest number of each item: two items are two hosts, also where both name one installation.
    let mut latest: BTreeMap<&(String, String), &Written> = BTreeMap::new();
    for one in written {
        let entry = latest.entry(&one.item).or_insert(one);
        if one.report.seq > entry.report.seq {
            *entry = one;
        }
    }
    let mut fleet = Fleet::default();
    let mut there = Vec::new();
    for one in latest.into_values() {
        let name = host_name(&one.report.host);
        // A person's word covers what they could know: who writes later is there.
        let removed = registry.removed.get(&name).is_some_and(|removed| removed.covers(one));
        // Whoever leaves in another one's name is gone, and takes nobody along.
        let owns = registry.owners.get(&name).is_none_or(|owner| *owner == one.principal);
        match is_gone(one, now) {
            _ if removed => fleet.gone.push(name),
            true if owns => {
                if one.report.outcome != ReportOutcome::Left {
                    fleet.expired.insert(name.clone());
                }
                fleet.gone.push(name);
            }
            true => {}
            false => there.push((name, one)),
        }
    }
    // How many there are of a name, and under a principal.
    let (mut names, mut principals) = (BTreeMap::<HostName, usize>::new(), BTreeMap::<&str, usize>::new());
    for (name, one) in &there {
        *names.entry(name.clone()).or_default() += 1;
        *principals.entry(&one.principal).or_default() += 1;
    }
    let shared: BTreeSet<&str> = registry.shared.iter().map(String::as_str).collect();
    for (name, one) in &there {
        let principal = one.principal.as_str();
        let mut host = judge(one, passwords, now);
        host.name_twice = registry.owners.get(name).is_some_and(|owner| *owner != principal) || names[name] > 1;
        host.identity_shared = !shared.contains(principal) && principals[principal] > 1;
        host.waiver = registry.waivers.get(name).cloned();
        fleet.hosts.push(host);
    }
    for name in registry.listed.iter().filter(|name| !names.contains_key(*name)) {
        let waiver = registry.waivers.get(name).cloned();
        fleet.hosts.push(Host { waiver, ..Host::never_heard(name.clone()) });
    }
    // Somebody of that name is there: it is not gone.
    let hosts: BTreeSet<&HostName> = fleet.hosts.iter().map(|host| &host.name).collect();
    fleet.gone.retain(|name| !hosts.contains(name));
    fleet
}

impl Host {
    /// One that a person named, and that never wrote.
    pub fn never_heard(name: HostName) -> Self {
        Self {
            name,
            registered: Registered::Listed,
            waiver: None,
            generation: Generation::V1,
            watches: Vec::new(),
            poll: None,
            heard: None,
            alive_due: None,
            clock_ahead: false,
            standing: None,
            took_back: None,
            failed: None,
            says: None,
            regions: Vec::new(),
            region_refused: None,
            lists: Lists::default(),
            name_twice: false,
            identity_shared: false,
        }
    }
}

/// Has it left, or was it one that comes and goes, and not heard of for twice its lease?
fn is_gone(one: &Written, now: Timestamp) -> bool {
    let lease = one.report.lease_s.map(|s| SignedDuration::from_secs(s.into()));
    one.report.outcome == ReportOutcome::Left || lease.is_some_and(|lease| now.duration_since(one.at) > lease * 2)
}

/// A host's name comes from outside.
pub(crate) fn host_name(name: &str) -> HostName {
    HostName::new(text::plain(name, 255))
}

/// One host by what it wrote last.
fn judge(written: &Written, passwords: Passwords, now: Timestamp) -> Host {
    let report = &written.report;
    let chain: Vec<&Report> = report.chain().take(DEPTH).collect();
    let standing = chain.iter().position(|one| one.outcome.confirms());
    let newer = &chain[..standing.unwrap_or(chain.len())];
    let took_back = newer.iter().find_map(|one| Some(took_back(one, takes_back(one.outcome)?)));
    // A withdrawal is not carried on by what replaces it: no confirmation stands under it.
    let of_applied = newer.iter().find(|one| one.of_applied).filter(|_| standing.is_none());
    let took_back = took_back.or_else(|| of_applied.map(|one| self::took_back(one, WhyTakenBack::Withdrawn)));
    // What its mail servers were found to log in with lately; where that is nothing that it confirmed, its confirmation holds no more.
    let found = newer.iter().find(|one| one.in_use.is_some());
    let another = found.filter(|one| one.another_login).map(|one| self::took_back(one, WhyTakenBack::Withdrawn));
    let took_back = took_back.or(another);
    let confirmation = standing.map(|at| chain[at]).filter(|_| took_back.is_none());
    let alive = newer.iter().copied().find(|one| one.outcome == ReportOutcome::Alive && has_proof(one));
    let clock_ahead = chain.iter().filter_map(|one| at(one)).chain([written.at]).any(|at| at > after(now, CLOCK_AHEAD));
    let proof = |confirmation: &Report| match (clock_ahead, proved(confirmation, passwords), alive) {
        (true, ..) => Proved::Missing(WhyMissing::Clock),
        // What it says now, over what it said then: only where it is about the same login.
        (_, Proved::True, Some(alive)) if is_about(alive, confirmation) => proved(alive, passwords),
        (_, proved, _) => proved,
    };
    // In the table it is the host that says when.
    let heard = written.at.min(now);
    // What it holds now, over what it held then. A forged sign of life gains nothing: its proof is false, and stops all.
    let listed =
        alive.filter(|alive| confirmation.is_some_and(|c| is_about(alive, c))).or(confirmation).unwrap_or(report);
    let in_use = found.map(|one| in_use(one)).unwrap_or_default();
    let mut lists = Lists { in_use, ..lists(listed) };
    // Half put in place by a run that was killed: whoever compiles the table puts it into use.
    lists.others.extend(report.half_done.iter().map(|name| key_id(name)));
    Host {
        registered: Registered::Evidence,
        generation: if report.schema == REPORT_V1 { Generation::V1 } else { Generation::V2 },
        watches: report.labels.clone(),
        poll: report.poll_s.map(|s| SignedDuration::from_secs(s.into()).min(POLL)),
        heard: Some(heard),
        alive_due: report.alive_due.map(|due| due.min(after(heard, ALIVE_DUE))),
        clock_ahead,
        standing: confirmation.map(|confirmation| Standing {
            version: version_id(confirmation),
            key: key_id(&confirmation.username),
            at: at(confirmation).unwrap_or(written.at),
            proof: proof(confirmation),
        }),
        took_back,
        failed: newer.iter().find(|one| one.outcome == ReportOutcome::Failed).map(|one| version_id(one)),
        says: newer.first().and_then(|one| says(one)),
        lists,
        regions: listed.targets.iter().filter_map(|target| Some(text::plain(target.region.as_ref()?, 63))).collect(),
        ..Host::never_heard(host_name(&report.host))
    }
}

/// A host's own words, as far as it is in trouble.
fn says(report: &Report) -> Option<String> {
    let words = match (&report.error, report.outcome) {
        (Some(error), _) => error.what.as_ref().unwrap_or(&error.words),
        (None, ReportOutcome::PendingApproval) => return Some("waits for a person's approval".into()),
        (None, _) => return None,
    };
    Some(text::line_of(words, 300).into_owned())
}

/// In the place of a user name a secret may stand.
fn key_id(name: &str) -> KeyId {
    KeyId::new(if is_access_key_id(name) { name } else { NOT_SHOWN })
}

fn version_id(report: &Report) -> VersionId {
    VersionId::new(text::plain(&report.version, 255))
}

fn at(report: &Report) -> Option<Timestamp> {
    report.at.parse().ok()
}

fn is_about(alive: &Report, confirmation: &Report) -> bool {
    alive.version == confirmation.version && alive.username == confirmation.username
}

fn has_proof(report: &Report) -> bool {
    report.targets.iter().any(|target| target.proof.is_some())
}

fn took_back(report: &Report, why: WhyTakenBack) -> TookBack {
    let mut keys = in_use(report);
    // What SES refuses is what it has applied; and so is what it could not put back.
    let applied = key_id(&report.username);
    if (why == WhyTakenBack::AppliedRefused || report.of_applied) && !keys.contains(&applied) {
        keys.push(applied);
    }
    TookBack { why, keys }
}

/// The access key ids among the user names it logs in with: another one is nobody's here.
fn in_use(report: &Report) -> Vec<KeyId> {
    report.in_use.iter().flatten().filter(|name| is_access_key_id(name)).map(KeyId::new).collect()
}

fn lists(report: &Report) -> Lists {
    let held = || report.targets.iter().map(|target| &target.held);
    Lists {
        remaining_old: held().flat_map(|held| held.remaining_old.clone()).collect(),
        others: held().flat_map(|held| &held.others).map(|other| key_id(&other.id)).collect(),
        in_use: Vec::new(),
        incomplete: held().flat_map(|held| held.incomplete.clone()).collect(),
        shortened: held().any(StillHeld::is_shortened),
    }
}

/// The proofs of all targets: true only if every one is.
fn proved(report: &Report, passwords: Passwords) -> Proved {
    if report.targets.is_empty() {
        return Proved::Missing(WhyMissing::NoProof);
    }
    // A false one is told before a missing one.
    let all: Vec<Proved> = report.targets.iter().map(|target| proved_by(report, target, passwords)).collect();
    if all.contains(&Proved::False) {
        return Proved::False;
    }
    all.into_iter().find(|proved| *proved != Proved::True).unwrap_or(Proved::True)
}

fn proved_by(report: &Report, target: &ReportTarget, passwords: Passwords) -> Proved {
    let Some(proof) = &target.proof else {
        return Proved::Missing(WhyMissing::NoProof);
    };
    if ![REPORT_V1, REPORT_V2].contains(&report.schema.as_str()) {
        return Proved::Missing(WhyMissing::UnknownKind);
    }
    let (version, key) = (VersionId::new(report.version.clone()), KeyId::new(report.username.clone()));
    let known = passwords(&version, &key, target.region.as_deref());
    let fields = report.proof_fields(target);
    let verdicts: Vec<_> = known.passwords.iter().map(|password| verify_proof(password, &fields, proof)).collect();
    // The number of a version is the same in every parameter: it is the password of the place that the host reads.
    let is = |verdict: fn(&ProofVerdict) -> bool| verdicts.iter().any(verdict);
    match () {
        () if is(|verdict| *verdict == ProofVerdict::True) => Proved::True,
        () if is(|verdict| matches!(verdict, ProofVerdict::NoProof(_))) => Proved::Missing(WhyMissing::UnknownKind),
        () if verdicts.is_empty() || known.partly => Proved::Missing(WhyMissing::NoPassword),
        () => Proved::False,
    }
}

#[cfg(test)]
mod tests;
