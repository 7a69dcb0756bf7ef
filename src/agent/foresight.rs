//! What `sync` would run into now, for who has looked already and changes nothing: the same decisions in the same order, so
//! that `relaykey check` and `relaykey sync` cannot come to different ends.

use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::{End, apply_failure, login_for, name_once_accepted, ours, outcome_of, target_id, without_secret};
use crate::apply::{self, Inspected, Reply, Request, WhyReload};
use crate::config::{self, Reload};
use crate::fault::{Class, Failure, Fault};
use crate::rollover::{self, Evidence, Facts, Found, Outcome, Policy, Retry, State, Step, Wake};
use crate::source::Fetched;

/// What was looked at beforehand.
#[derive(Debug)]
pub struct Seen<'a> {
    pub state: Option<&'a State>,
    /// By target; `None`: it could not be looked at, and that is told.
    pub targets: Vec<Option<Inspected>>,
    /// `None`: the source was not asked, and is taken to have nothing new.
    pub fetched: Option<&'a Fetched>,
    /// The accepted login of each target; `None`: there is none, and that is told, or it was not tried.
    pub logins: Vec<Option<Evidence>>,
}

/// Something that a run would end with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Obstacle {
    pub target: Option<String>,
    pub failure: Failure,
    /// How a run would end that met nothing else.
    pub end: End,
    /// Does it only wait for a person, and nothing has failed?
    pub only_waits: bool,
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
pub fn obstacles(
    credential: &config::Credential,
    seen: Seen<'_>,
    apply: &apply::Client,
) -> (Vec<Obstacle>, Vec<ReloadAhead>) {
    let policy = Policy::new(credential, TimeZone::system());
    let mut state = seen.state.cloned().unwrap_or_else(|| State::new(&credential.name));
    let Some(found) = found(&state, seen.fetched) else { return Default::default() };
    // It has answered now.
    state.source_retry = Retry::default();
    let wake = Wake { dry_run: true, ..Wake::default() };
    let mut facts = Facts::new(state, &policy, wake, true);
    let fetched = seen.fetched.cloned();
    let mut targets = seen.targets;
    let refused = |seen: &Inspected| seen.hindrances.as_ref()?.reload_refused.clone();
    let refused_reloads: Vec<_> = targets.iter().map(|seen| seen.as_ref().and_then(refused)).collect();
    let mut told = vec![false; credential.targets.len()];
    let mut reloads_ahead = Vec::new();
    loop {
        let now = Timestamp::now();
        let (step, _) = rollover::decide(&facts, &policy, now);
        let outcome = match &step {
            Step::Inspect { target } => match targets.get_mut(*target).and_then(Option::take) {
                Some(seen) => outcome_of(Reply::Inspected(seen), &step, &credential.targets[*target], &facts),
                None => Outcome::Failed(told_already(now)),
            },
            Step::Fetch => Outcome::Fetched(Found { at: now, ..found.clone() }),
            Step::Verify { target } => match seen.logins.get(*target).cloned().flatten() {
                Some(evidence) => Outcome::Accepted(evidence),
                None => Outcome::Failed(told_already(now)),
            },
            Step::Preview { target } => {
                let index = *target;
                let target = &credential.targets[index];
                let previewed = login_for(&fetched, target).and_then(|login| {
                    let (target, ours) = (target_id(credential, target), ours(Some(&facts.state)));
                    apply.call(Request::Preview { target, ours, login }).map_err(|e| apply_failure(e, now))
                });
                match previewed {
                    Ok(reply) => {
                        if let Reply::Previewed(change) = &reply {
                            // After what a person changes, that is looked at anew.
                            let why = change.reload.filter(|_| policy.targets[index].write || change.diff.is_empty());
                            reloads_ahead.extend(why.map(|why| (index, why)));
                        }
                        outcome_of(reply, &step, target, &facts)
                    }
                    Err(failure) => Outcome::Failed(failure),
                }
            }
            Step::Refrain { .. } => Outcome::Refrained,
            _ => break,
        };
        if let (Step::Inspect { target } | Step::Verify { target }, Outcome::Failed(_)) = (&step, &outcome) {
            // A login is tried for all that log in alike.
            let place = policy.targets[*target].logs_in_as;
            let alike =
                |i: usize| i == *target || matches!(step, Step::Verify { .. }) && policy.targets[i].logs_in_as == place;
            told.iter_mut().enumerate().for_each(|(i, told)| *told |= alike(i));
        }
        name_once_accepted(&mut facts, &step, &outcome, seen.fetched);
        let id = rollover::begin(&mut facts, &policy, &step);
        rollover::absorb(&mut facts, &policy, id, &step, outcome, now, 0.0);
    }
    let is_told =
        |target: Option<&str>| credential.targets.iter().zip(&told).any(|(t, told)| *told && Some(&*t.name) == target);
    let failures = facts.failures().into_iter().filter(|(target, _)| !is_told(*target));
    let obstacle = |(target, failure): (Option<&str>, &Failure)| Obstacle {
        target: target.map(str::to_owned),
        failure: failure.clone(),
        end: match failure.temporary {
            _ if facts.is_for_a_person(&policy, target, failure) => End::Waits,
            true => End::ForNow,
            false => End::ForGood,
        },
        only_waits: false,
    };
    let mut all: Vec<Obstacle> = failures.map(obstacle).collect();
    let now = Timestamp::now();
    // Decided here, because it is decided by a person: what is only looked at is not held.
    let unconfirmed = rollover::waits_unconfirmed(&facts, &policy, now);
    let waits = rollover::left_to_people(&facts, &policy, now);
    let left = rollover::left_changed(&facts, &policy, now).map(|(target, failure)| (Some(target), failure));
    all.extend(left.iter().map(|(target, failure)| obstacle((*target, failure))));
    let waits = waits.into_iter().filter(|(target, _)| target.is_some() || unconfirmed.is_none());
    all.extend(waits.map(|(target, failure)| Obstacle {
        target: target.map(str::to_owned),
        failure,
        end: End::Waits,
        only_waits: true,
    }));
    all.extend(unconfirmed.map(|(target, failure)| Obstacle {
        target: Some(target.to_owned()),
        failure,
        end: End::Waits,
        only_waits: false,
    }));
    // The reload that `sync` would come to: of what it would write, of what is not known as read, or owed.
    let reloads = |index: usize| {
        let owed = || facts.targets[index].inspected.as_ref().is_some_and(|i| i.reload_owed.is_some());
        reloads_ahead.iter().any(|(ahead, _)| *ahead == index) || policy.targets[index].write && owed()
    };
    for (index, target) in credential.targets.iter().enumerate().filter(|(index, _)| reloads(*index)) {
        let Some(refused) = refused_reloads.get(index).cloned().flatten() else { continue };
        let failure = Fault::new(Class::ReloadOwed, refused.located(), refused.fix).temporary().at(now);
        all.push(Obstacle { target: Some(target.name.clone()), failure, end: End::ForNow, only_waits: false });
    }
    let ahead = |(index, why): (usize, WhyReload)| {
        let target = &credential.targets[index];
        ReloadAhead { target: target.name.clone(), why, never: target.reload == Reload::Never }
    };
    (all, reloads_ahead.into_iter().map(ahead).collect())
}

/// What the source gives; the applied version where it was not asked. `None`: nothing is known of any.
fn found(state: &State, fetched: Option<&Fetched>) -> Option<Found> {
    let at = Timestamp::now();
    if let Some(fetched) = fetched {
        return Some(without_secret(fetched, Some(state), at));
    }
    let (applied, identity) = (state.applied.as_ref()?, state.source.clone()?);
    Some(Found { identity, id: applied.id.clone(), username: applied.username.clone(), at })
}

/// Stands for what was told when it was met; it is not told again.
fn told_already(at: Timestamp) -> Failure {
    Fault::new(Class::Told, String::new(), String::new()).temporary().at(at)
}
