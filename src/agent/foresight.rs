//! What `sync` would run into now, for who has looked already and changes nothing: the same decisions in the same order, so
//! that `relaykey check` and `relaykey sync` cannot come to different ends.

use std::path::PathBuf;

use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::endpoints::{endpoints_used, proved_everywhere};
use super::fetched::{
    applied, asks_whether_applied, login_for, logins_for, name_once_accepted, not_as_applied, with_named,
    without_secret,
};
use super::steps::{holds_confirmed, not_running, outcome_of, target_id};
use super::{OpenedSource, RunEnd, TriedEarlier, host_name, ours};
use crate::apply::{self, Inspected, Reply, Request, Running, WhyReload};
use crate::config::{self, Reload};
use crate::credential::VersionId;
use crate::fault::{Class, Failure, Fault};
use crate::rollover::{self, Evidence, Facts, Outcome, PlannedChange, Policy, Retry, SourceVersion, State, Step, Wake};
use crate::source::{EarlierVersions, Fetched};

/// What was looked at beforehand.
pub struct LookedAt<'a> {
    pub state: Option<&'a State>,
    /// What the source names on a host without state.
    pub named: EarlierVersions,
    /// What came of their logins.
    pub tried: TriedEarlier,
    /// By target; `None`: it could not be looked at, and that is told.
    pub targets: Vec<Option<Inspected>>,
    /// `None`: the source was not asked, and is taken to have nothing new.
    pub fetched: Option<&'a Fetched>,
    /// It is asked for the applied version, where that would be put back beside another one.
    pub source: Option<&'a OpenedSource>,
    /// The accepted login of each target; `None`: there is none, and that is told, or it was not tried.
    pub logins: Vec<Option<Evidence>>,
}

/// Something that a run would meet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Obstacle {
    pub target: Option<String>,
    pub failure: Failure,
    /// How a run would end that met nothing else.
    pub end: RunEnd,
    pub weight: Weight,
    /// The file and line of the mail server's side that it is about, where a change would fail of what stands there.
    pub place: Option<(PathBuf, usize)>,
}

impl Obstacle {
    fn new(target: Option<&str>, failure: Failure, end: RunEnd, weight: Weight) -> Self {
        Self { target: target.map(str::to_owned), failure, end, weight, place: None }
    }
}

/// What becomes of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Weight {
    /// The run would fail of it.
    Fails,
    /// The run would put it right.
    PutRight,
    /// It only waits for a person, and nothing has failed.
    OnlyWaits,
}

/// A reload that a run would come to, if nothing stands in its way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReloadAhead {
    pub target: String,
    pub why: WhyReload,
    /// It would stay owed: `reload = "never"`.
    pub never: bool,
}

/// What a run of `sync` would end with, beyond what was told when it was looked at, and what it would reload.
pub async fn obstacles(
    credential: &config::Credential,
    seen: LookedAt<'_>,
    apply: &apply::Client,
) -> (Vec<Obstacle>, Vec<ReloadAhead>) {
    let policy = Policy::new(credential, TimeZone::system());
    let mut state = seen.state.cloned().unwrap_or_else(|| State::new(&credential.name));
    let Some(found) = found(&state, seen.fetched) else { return Default::default() };
    // It has answered now.
    state.source_retry = Retry::default();
    // As `sync`, which a person orders.
    let wake = Wake { dry_run: true, asked: true, foresees: true, ..Wake::default() };
    let mut facts = Facts::new(state, &policy, wake, true);
    let fetched = seen.fetched.cloned();
    let targets = seen.targets;
    // The applied version, where it would be put back, and what would be changed for that.
    let mut again: Option<Fetched> = None;
    let mut put_back: Vec<Option<PlannedChange>> = vec![None; credential.targets.len()];
    let refused = |seen: &Inspected| seen.hindrances.as_ref()?.reload_refused.clone();
    let refused_reloads: Vec<_> = targets.iter().map(|seen| seen.as_ref().and_then(refused)).collect();
    let stopped: Vec<bool> =
        targets.iter().map(|seen| seen.as_ref().is_some_and(|seen| seen.running == Running::No)).collect();
    let mut told = vec![false; credential.targets.len()];
    // By target, where a change would fail of a line.
    let mut places: Vec<Option<(PathBuf, usize)>> = vec![None; credential.targets.len()];
    let mut reloads_ahead = Vec::new();
    // Nobody is asked before it comes.
    let mut for_certain = vec![false; credential.targets.len()];
    loop {
        let now = Timestamp::now();
        let (step, _) = rollover::decide(&facts, &policy, now);
        let outcome = match &step {
            Step::Inspect { target } => match targets.get(*target).cloned().flatten() {
                Some(seen) => {
                    match outcome_of(Reply::Inspected(Box::new(seen)), &step, &credential.targets[*target], &facts) {
                        Outcome::Inspected(found) if put_back[*target].is_some() => {
                            Outcome::Inspected(facts.with_applied(*target, found))
                        }
                        outcome => outcome,
                    }
                }
                None => Outcome::Failed(told_already(now)),
            },
            Step::FetchApplied => match seen.source {
                Some(source) => match applied(&facts, source).await {
                    Ok(fetched) => {
                        let found = without_secret(&fetched, Some(&facts.state), now);
                        again = Some(fetched);
                        Outcome::Fetched(found)
                    }
                    Err(failure) => Outcome::Failed(failure),
                },
                None => break,
            },
            Step::Verify { target } if facts.puts_back() => {
                let (index, target) = (*target, &credential.targets[*target]);
                match (logins_for(&again, target), not_the_applied_one(&facts, credential, target, &again, apply)) {
                    (Ok(logins), None) => {
                        proved_everywhere(&target.smtp, &endpoints_used(&facts, index), &logins, &host_name()).await
                    }
                    (_, Some(failure)) | (Err(failure), None) => Outcome::Failed(failure),
                }
            }
            Step::Fetch => Outcome::Fetched(SourceVersion { at: now, ..found.clone() }),
            Step::Verify { target } => match (
                not_the_applied_one(&facts, credential, &credential.targets[*target], &fetched, apply),
                seen.logins.get(*target).cloned().flatten(),
            ) {
                (Some(failure), _) => Outcome::Failed(failure),
                (None, Some(evidence)) => Outcome::Accepted(evidence),
                (None, None) => Outcome::Failed(told_already(now)),
            },
            Step::Preview { target } => {
                let index = *target;
                let target = &credential.targets[index];
                let logins = if facts.puts_back() { logins_for(&again, target) } else { logins_for(&fetched, target) };
                let previewed = logins.and_then(|logins| {
                    let ours = with_named(ours(Some(&facts.state)), &seen.named, &target.smtp, &seen.tried);
                    let target = target_id(credential, target);
                    apply.call(Request::Preview { target, ours, logins }).map_err(|e| {
                        places[index] = e.file.clone().zip(e.line);
                        e.at(now)
                    })
                });
                match previewed {
                    // It would be put in place, and not be read back by what does not run.
                    Ok(_) if facts.puts_back() && stopped[index] => Outcome::Failed(not_running(target)),
                    Ok(reply) => {
                        if let Reply::Previewed(change) = &reply {
                            // After what a person changes, that is looked at anew.
                            let why = change.reload.filter(|_| policy.targets[index].write || change.diff.is_empty());
                            reloads_ahead.extend(why.map(|why| (index, why)));
                            for_certain[index] |= why.is_some() && facts.puts_back();
                        }
                        outcome_of(reply, &step, target, &facts)
                    }
                    Err(failure) => Outcome::Failed(failure),
                }
            }
            Step::Refrain { .. } => Outcome::Refrained,
            _ => break,
        };
        if let (Step::Preview { target }, Outcome::Previewed(change, _), true) = (&step, &outcome, facts.puts_back()) {
            put_back[*target] = Some(change.clone());
        }
        let is_told = matches!(step, Step::Inspect { .. } | Step::Verify { .. }) && !facts.puts_back();
        if let (Some(target), true, Outcome::Failed(_)) = (step.target(), is_told, &outcome) {
            // A login is tried for all that log in alike.
            let place = policy.targets[target].logs_in_as;
            let alike =
                |i: usize| i == target || matches!(step, Step::Verify { .. }) && policy.targets[i].logs_in_as == place;
            told.iter_mut().enumerate().for_each(|(i, told)| *told |= alike(i));
        }
        let at_hand = if facts.puts_back() { again.as_ref() } else { seen.fetched };
        name_once_accepted(&mut facts, &step, &outcome, at_hand);
        let id = rollover::begin(&mut facts, &policy, &step);
        rollover::absorb(&mut facts, &policy, id, &step, outcome, now, 0.0);
    }
    let is_told =
        |target: Option<&str>| credential.targets.iter().zip(&told).any(|(t, told)| *told && Some(&*t.name) == target);
    // What was in the way of the source's version is told, and not what is in the way of putting back another one.
    let untold = [Class::Drift, Class::Changed];
    let failures = facts.failures().into_iter().filter(|(target, f)| untold.contains(&f.class) || !is_told(*target));
    let obstacle = |(target, failure): (Option<&str>, &Failure)| {
        let end = match failure.temporary {
            _ if facts.is_for_a_person(&policy, target, failure) => RunEnd::Waits,
            true => RunEnd::ForNow,
            false => RunEnd::ForGood,
        };
        Obstacle::new(target, failure.clone(), end, Weight::Fails)
    };
    // What keeps the applied version from being put back says more than what stands at the place.
    let place = |(target, failure): (Option<&str>, &Failure)| {
        let index = credential.targets.iter().position(|t| Some(&*t.name) == target)?;
        places[index].clone().filter(|_| failure.class != Class::Drift)
    };
    let mut all: Vec<Obstacle> = failures.map(|met| Obstacle { place: place(met), ..obstacle(met) }).collect();
    // A run that has nothing to do does not read the credential, and does not fail of it.
    if all.iter().all(|obstacle| obstacle.failure.class != Class::Changed) {
        let asked = |target| not_the_applied_one(&facts, credential, target, &fetched, apply);
        let changed = credential.targets.iter().filter_map(asked).find(|failure| failure.class == Class::Changed);
        let (end, weight) = (RunEnd::Done(None), Weight::PutRight);
        all.extend(changed.map(|failure| Obstacle::new(None, failure, end, weight)));
    }
    let now = Timestamp::now();
    // Decided here, because it is decided by a person: what is only looked at is not held.
    let unconfirmed = rollover::waits_unconfirmed(&facts, &policy, now);
    let waits = rollover::left_to_people(&facts, &policy, now);
    let left = rollover::left_changed(&facts, &policy, now).map(|(target, failure)| (Some(target), failure));
    all.extend(left.iter().map(|(target, failure)| obstacle((*target, failure))));
    let waits = waits.into_iter().filter(|(target, _)| target.is_some() || unconfirmed.is_none());
    let of_a_person = |target, failure, weight| Obstacle::new(target, failure, RunEnd::Waits, weight);
    all.extend(waits.map(|(target, failure)| of_a_person(target, failure, Weight::OnlyWaits)));
    all.extend(unconfirmed.map(|(target, failure)| of_a_person(Some(target), failure, Weight::Fails)));
    all.extend(refused_probes(&facts, &policy).map(|(target, failure)| obstacle((Some(target), failure))));
    // What `sync` would put right is told, and stands in the way of nothing; unless that what does not run cannot read it back.
    for index in 0..credential.targets.len() {
        let beside_another = put_back[index].as_ref().is_some_and(|change| !change.diff.is_empty());
        if !beside_another && !rollover::would_put_right(&facts, &policy, index) {
            continue;
        }
        let target = &credential.targets[index];
        let (failure, end, weight) = match stopped[index] {
            true => (not_running(target), RunEnd::ForNow, Weight::Fails),
            false => (rollover::put_right(&facts, index, now), RunEnd::Done(None), Weight::PutRight),
        };
        all.push(Obstacle::new(Some(&target.name), failure, end, weight));
    }
    // Of what somebody else has changed since it was read.
    for (index, target) in credential.targets.iter().enumerate() {
        let found = facts.targets[index].inspected.as_ref().and_then(|found| found.holds.as_ref());
        let unread =
            targets[index].as_ref().is_some_and(|seen| seen.unread.is_some()) && holds_confirmed(&facts, target, found);
        let is_told = reloads_ahead.iter().any(|(ahead, _)| *ahead == index);
        if unread && !is_told && target.reload.is_ours() {
            reloads_ahead.push((index, WhyReload::Unread));
        }
    }
    // The reload that `sync` would come to: of what it would write, of what is not known as read, or owed.
    let reloads = |index: usize| {
        let owed = || facts.targets[index].inspected.as_ref().is_some_and(|i| i.reload_owed.is_some());
        reloads_ahead.iter().any(|(ahead, _)| *ahead == index) || policy.targets[index].write && owed()
    };
    for (index, target) in credential.targets.iter().enumerate().filter(|(index, _)| reloads(*index)) {
        let Some(refused) = refused_reloads.get(index).cloned().flatten() else { continue };
        let failure = Fault::new(Class::ReloadOwed, refused.located(), refused.fix).temporary().at(now);
        all.push(Obstacle::new(Some(&target.name), failure, RunEnd::ForNow, Weight::Fails));
    }
    // One that is needed and that this host must not do stays owed; a version that waits for a person brings none yet.
    let is_held = all.iter().any(|obstacle| obstacle.target.is_none() && obstacle.weight == Weight::OnlyWaits);
    let never = |index: usize| credential.targets[index].reload == Reload::Never;
    for (index, why) in reloads_ahead.iter().filter(|(index, _)| never(*index) && (for_certain[*index] || !is_held)) {
        let target = &credential.targets[*index].name;
        // What is owed already was told when it was looked at.
        if *why == WhyReload::Owed
            || all.iter().any(|o| o.target.as_ref() == Some(target) && o.failure.class == Class::ReloadOwed)
        {
            continue;
        }
        let what = format!(
            "a reload of the mail server would stay owed, because reload = \"never\": it is needed because {}",
            why.because()
        );
        let fix = "restart the mail server after the sync: a start after the change settles it (a reload by hand is not seen)";
        let failure = Fault::new(Class::ReloadOwed, what, fix).temporary().at(now);
        all.push(Obstacle::new(Some(target), failure, RunEnd::ForNow, Weight::Fails));
    }
    let ahead = |(index, why): (usize, WhyReload)| {
        let target = &credential.targets[index];
        ReloadAhead { target: target.name.clone(), why, never: target.reload == Reload::Never }
    };
    (all, reloads_ahead.into_iter().map(ahead).collect())
}

/// No probe is sent by who only looks: what the endpoint said to the latest one stands.
fn refused_probes<'f>(facts: &'f Facts, policy: &'f Policy) -> impl Iterator<Item = (&'f str, &'f Failure)> {
    let state = &facts.state;
    let is_new = |id: &VersionId| state.applied.as_ref().is_none_or(|applied| applied.id != *id);
    let given = facts.fetched.as_ref().map(|found| &found.id);
    let candidate = state.candidate.as_ref().filter(|c| Some(&c.id) == given && is_new(&c.id) && c.probed.is_none());
    let names = policy.targets.iter().filter(move |_| policy.probe && candidate.is_some()).map(|t| &t.name);
    names.filter_map(|name| {
        let failure = state.targets.get(name)?.retry.failure.as_ref()?;
        (failure.class == Class::Policy).then_some((name.as_str(), failure))
    })
}

/// What the source gives; the applied version where it was not asked. `None`: nothing is known of any.
fn found(state: &State, fetched: Option<&Fetched>) -> Option<SourceVersion> {
    let at = Timestamp::now();
    if let Some(fetched) = fetched {
        return Some(without_secret(fetched, Some(state), at));
    }
    let (applied, identity) = (state.applied.as_ref()?, state.source.clone()?);
    Some(SourceVersion { identity, id: applied.id.clone(), username: applied.username.clone(), at })
}

/// Why what is at hand is not the applied version, although the source says so.
fn not_the_applied_one(
    facts: &Facts,
    credential: &config::Credential,
    target: &config::Target,
    fetched: &Option<Fetched>,
    apply: &apply::Client,
) -> Option<Failure> {
    let login = fetched.as_ref().and_then(|_| login_for(fetched, target).ok())?;
    let asked = asks_whether_applied(facts, credential, target, &login)?;
    apply.call(asked).err().map(|e| not_as_applied(&facts.state, &login, e))
}

/// Stands for what was told when it was met; it is not told again.
fn told_already(at: Timestamp) -> Failure {
    Fault::new(Class::Told, String::new(), String::new()).temporary().at(at)
}
