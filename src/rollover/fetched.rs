//! The source's answer, taken in: a candidate, one that is not taken, or the applied version.

use jiff::{SignedDuration, Timestamp};

use super::facts::{Facts, SourceVersion, Superseded, TargetFacts};
use super::looked::{LOOKED_UP, nothing_stands_in_the_way};
use super::people::approval;
use super::policy::Policy;
use super::standing::{VersionStanding, ambiguous, is_ambiguous, is_begun, named, standing};
use super::state::{Candidate, State};
use super::target_state::Retry;
use crate::fault::{Class, Failure, Fault};
use crate::instruction::relaykey;

/// A message that went out over the candidate's login proves for this long that it may send.
const PROBE_HOLDS: SignedDuration = SignedDuration::from_hours(1);

pub(super) fn fetched(facts: &mut Facts, policy: &Policy, found: SourceVersion, now: Timestamp) {
    facts.stale = false;
    (facts.blocked, facts.not_approved) = (None, None);
    supersede(facts, &found);
    facts.state.source_retry = Retry::default();
    let approved = match approval(facts, policy, &found, now) {
        Some(Ok(approval)) => Some(approval),
        Some(Err(failure)) => {
            let of_another = matches!(failure.class, Class::ChangedMeanwhile | Class::NothingWaits);
            *if of_another { &mut facts.not_approved } else { &mut facts.blocked } = Some(failure);
            None
        }
        None => None,
    };
    let standing = standing(facts, &found, policy);
    let unclear = is_ambiguous(facts, &found.id).then_some(&found.id.version);
    let accepts_another = unclear.is_some() && facts.wake.accept_version.as_ref() == unclear;
    let approves_another = unclear.is_some() && facts.wake.approve.as_ref().and_then(|a| a.version.as_ref()) == unclear;
    if accepts_another || approves_another {
        facts.state.told_apart = Some(found.id.clone());
    }
    let blocked = |class: Class, what: String, fix: String| Fault::new(class, what, fix).at(now);
    match standing {
        VersionStanding::Applied => {}
        VersionStanding::NotTheNamedOne => {
            let named = facts.wake.accept_version.clone().unwrap_or_default();
            facts.blocked = Some(blocked(
                Class::NotTheNamedVersion,
                format!("the source's current version is {}, not {named}", found.id.version),
                "look again at what the source holds, and name the version it gives".into(),
            ));
        }
        VersionStanding::LeftBehind | VersionStanding::AgreeAt(_) | VersionStanding::Rejected if accepts_another => {
            facts.blocked = Some(blocked(
                Class::ChangedMeanwhile,
                ambiguous(&found.id.version, &found.username, "it was not taken"),
                format!(
                    "look at what the source holds; if that is meant, say it once more: {}",
                    take_on_purpose(facts, &found)
                ),
            ));
        }
        VersionStanding::LeftBehind => {
            facts.blocked = Some(blocked(
                Class::LeftBehind,
                format!("the source gives version {} again, which this host has left behind", found.id.version),
                format!(
                    "publish the old value as a new version, or take it on purpose: {}",
                    take_on_purpose(facts, &found)
                ),
            ));
        }
        // A person said no; it stays to be seen what to.
        VersionStanding::Rejected => {
            if facts.state.candidate.as_ref().is_none_or(|c| c.id != found.id) {
                facts.state.shows(candidate(&found, false));
            }
            facts.state.targets.values_mut().for_each(|t| t.change = None);
        }
        VersionStanding::Take | VersionStanding::AgreeAt(_) => {
            let accepted = named(facts, &found, policy);
            if accepted {
                facts.state.rejected.retain(|r| r.id != found.id);
            }
            match &mut facts.state.candidate {
                Some(c) if c.id == found.id => c.accepted |= accepted,
                _ => {
                    facts.state.shows(candidate(&found, accepted));
                    facts.state.targets.values_mut().for_each(|t| t.change = None);
                    // A new version resets what the one before it ran into; not what this wake found in its way.
                    for i in 0..facts.targets.len() {
                        let t = &mut facts.targets[i];
                        t.failed &= !t.before_its_time;
                        let failed_now = t.failed;
                        if !failed_now {
                            facts.target_state(i).retry = Retry::default();
                        }
                    }
                }
            }
        }
    }
    keep_why_not_taken(facts, policy, &found);
    let begun = is_begun(facts, &found);
    if let Some(candidate) = facts.state.candidate.as_mut().filter(|c| c.id == found.id) {
        let before = candidate.approval.take().filter(|a| a.holds(now) || begun);
        candidate.approval = approved.or(before);
        candidate.not_newer = matches!(standing, VersionStanding::AgreeAt(_));
    }
    if standing == VersionStanding::Applied {
        // Nothing waits any more: the candidate was withdrawn before it was applied, or drift is all there is.
        facts.state.candidate = None;
        facts.state.put_back = Retry::default();
        facts.state.targets.values_mut().for_each(|t| t.change = None);
        (0..facts.targets.len()).for_each(|i| nothing_stands_in_the_way(facts, i));
    }
    if facts.fetched.as_ref().is_some_and(|before| before.id != found.id) {
        // What was proved of one version, and done with it, says nothing about another. Where it was put in place, what is
        // there now is looked at anew.
        facts.stamp = None;
        for t in &mut facts.targets {
            let staged = t.prepared.as_ref().is_some_and(|p| !p.nothing_to_write) && !t.swapped;
            *t = TargetFacts {
                name: t.name.clone(),
                inspected: t.inspected.take().filter(|_| !t.swapped),
                must_discard: t.must_discard || staged,
                must_look: t.must_look,
                failed: t.failed,
                ..TargetFacts::default()
            };
        }
    }
    let probed = |c: &Candidate| c.id == found.id && c.probed.is_some_and(|at| now.duration_since(at) < PROBE_HOLDS);
    if facts.state.candidate.as_ref().is_some_and(probed) {
        facts.targets.iter_mut().for_each(|t| t.probed = true);
    }
    facts.fetched = Some(found);
}

/// What stands in the way of what the source gives is for those who read the state later. What is met again is written down
/// anew now and then: a look that finds nothing new writes nothing.
fn keep_why_not_taken(facts: &mut Facts, policy: &Policy, found: &SourceVersion) {
    let Facts { blocked, state, .. } = facts;
    let kept = state.not_taken.take();
    state.not_taken = match blocked {
        None => None,
        // Somebody asked for something else in vain; what the source gives is as it was.
        Some(answer) if answer.is_an_answer() => {
            kept.filter(|_| policy.ordered && state.left_behind.contains(&found.id))
        }
        Some(new) => {
            let same = |kept: &Failure| (kept.class, &kept.what, &kept.fix) == (new.class, &new.what, &new.fix);
            let lately = |kept: &Failure| new.at.duration_since(kept.at) < LOOKED_UP;
            kept.filter(|kept| same(kept) && lately(kept)).or_else(|| Some(new.clone()))
        }
    };
}

/// Why the version that the source gives is not taken yet, where that is because it is not newer.
pub fn not_newer(state: &State) -> Option<Failure> {
    let candidate = state.candidate.as_ref().filter(|candidate| candidate.not_newer)?;
    let applied = state.applied.as_ref()?;
    let what = format!(
        "the source's version {} ({}) is not newer than the applied one, {} ({}): a second read must agree, a minute after the first",
        candidate.id.version, candidate.username, applied.id.version, applied.username
    );
    let fix = format!(
        "nothing, if it is meant and the service relaykey runs: it reads again by itself, and takes it then. To take it at once: {}. \
         If it is not meant, store the right credential there as a new version",
        relaykey(format_args!("sync {} --accept-version {}", state.credential, candidate.id.version))
    );
    Some(Fault::new(Class::NotNewer, what, fix).temporary().at(candidate.first_seen))
}

/// The command that takes what the source gives, although it would not be taken by itself.
fn take_on_purpose(facts: &Facts, found: &SourceVersion) -> String {
    relaykey(format_args!("sync {} --accept-version {}", facts.state.credential, found.id.version))
}

/// Another version has come before what is in place was confirmed: that has its line of the audit log, once.
fn supersede(facts: &mut Facts, found: &SourceVersion) {
    if facts.wake.dry_run {
        return;
    }
    let candidate = facts.state.candidate.as_ref();
    let approval = candidate.and_then(|c| Some((c.id.clone(), c.approval.as_ref()?.by.clone())));
    let all = facts.state.targets.len();
    let each = facts.state.targets.iter_mut().flat_map(|(name, t)| t.begun.iter_mut().map(move |begun| (name, begun)));
    for (name, begun) in each {
        // What a person was asked for and has not done is no longer asked for, and that is all.
        let asked_in_vain = begun.by_hand && !begun.used;
        if begun.is(found) || asked_in_vain || std::mem::replace(&mut begun.told, true) {
            continue;
        }
        // Several targets may hold it.
        let same = |s: &&mut Superseded| s.begun.id == begun.id && s.begun.source == begun.source;
        if let Some(told) = facts.superseded.iter_mut().find(same) {
            told.begun.used |= begun.used;
            told.begun.by_hand &= begun.by_hand;
            told.targets.push(name.clone());
            told.everywhere = told.targets.len() == all;
        } else {
            let approved_by = approval.as_ref().filter(|(id, _)| *id == begun.id).map(|(_, by)| by.clone());
            let (by, targets) = (found.id.clone(), vec![name.clone()]);
            facts.superseded.push(Superseded { begun: begun.clone(), by, targets, everywhere: all == 1, approved_by });
        }
    }
}

pub(super) fn candidate(found: &SourceVersion, accepted: bool) -> Candidate {
    Candidate {
        id: found.id.clone(),
        username: found.username.clone(),
        first_seen: found.at,
        accepted,
        probed: None,
        held: None,
        approval: None,
        not_newer: false,
    }
}
