//! How the version that the source gives stands to what this host has: is it to be taken, did a person name it or reject it,
//! and may it be put in place now?

use jiff::{SignedDuration, Timestamp};

use super::facts::{Facts, SourceVersion, TargetFacts, uses_applied};
use super::own_login::died;
use super::policy::Policy;
use crate::config::{IfAppliedDies, Mode, Opening};
use crate::credential::VersionId;

/// A version whose order does not increase must be seen again this long after, DESIGN.md promise 8.
pub(super) const SECOND_READ: SignedDuration = SignedDuration::from_secs(60);

/// How the source's version stands to what this host has.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum VersionStanding {
    Applied,
    Take,
    /// Not newer: a second read must agree, due then.
    AgreeAt(Timestamp),
    LeftBehind,
    Rejected,
    NotTheNamedOne,
}

/// May who names this version's number mean another one? Not after they were told, and named it once more.
pub(super) fn is_ambiguous(facts: &Facts, id: &VersionId) -> bool {
    !facts.wake.dry_run && facts.told_apart.as_ref() != Some(id) && facts.state.has_namesake(id)
}

/// What is said of a version that was named by a number which was another one's before.
pub(super) fn ambiguous(version: &str, username: &str, not_done: &str) -> String {
    format!(
        "the source was made anew, and its version {version} ({username}) is another one than the version {version} that this host \
         has seen before: {not_done}"
    )
}

/// Did a person name this very version, where it counts?
pub(super) fn named(facts: &Facts, found: &SourceVersion, policy: &Policy) -> bool {
    let is_it = |named: Option<&String>| named == Some(&found.id.version) && !is_ambiguous(facts, &found.id);
    let approved = is_it(facts.wake.approve.as_ref().and_then(|a| a.version.as_ref()));
    is_it(facts.wake.accept_version.as_ref()) || approved && is_approvable(facts, found, policy)
}

/// Is there anything to approve in this version? What was rejected may be approved in any mode.
pub(super) fn is_approvable(facts: &Facts, found: &SourceVersion, policy: &Policy) -> bool {
    policy.mode != Mode::Automatic || facts.rejection(&found.id).is_some()
}

pub(super) fn standing(facts: &Facts, found: &SourceVersion, policy: &Policy) -> VersionStanding {
    let state = &facts.state;
    if facts.wake.accept_version.as_ref().is_some_and(|named| *named != found.id.version) {
        return VersionStanding::NotTheNamedOne;
    }
    let named = named(facts, found, policy);
    let accepted = named || state.candidate.as_ref().is_some_and(|c| c.accepted && c.id == found.id);
    let is_applied = state.applied.as_ref().is_some_and(|applied| applied.id == found.id);
    if facts.rejection(&found.id).is_some() && !is_applied && !named {
        return VersionStanding::Rejected;
    }
    let same_source = state.source.as_ref().is_none_or(|s| *s == found.identity);
    let Some(applied) = &state.applied else { return VersionStanding::Take };
    if !same_source || accepted && applied.id != found.id {
        return VersionStanding::Take;
    }
    if applied.id == found.id {
        return VersionStanding::Applied;
    }
    if !policy.ordered {
        return VersionStanding::Take;
    }
    if state.left_behind.contains(&found.id) {
        return VersionStanding::LeftBehind;
    }
    if found.id.order > applied.id.order {
        return VersionStanding::Take;
    }
    match &state.candidate {
        Some(c) if c.id == found.id => {
            let due = c.first_seen.saturating_add(SECOND_READ).unwrap_or(Timestamp::MAX);
            if found.at >= due { VersionStanding::Take } else { VersionStanding::AgreeAt(due) }
        }
        _ => VersionStanding::AgreeAt(found.at.saturating_add(SECOND_READ).unwrap_or(Timestamp::MAX)),
    }
}

/// May the candidate be put in place?
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Permission {
    /// By itself, or somebody has let it go.
    Given,
    /// A setting lets it go now.
    Give { by: String, until: Option<Timestamp> },
    /// Not before somebody approves it, or the window opens.
    Held { opens: Option<Timestamp> },
}

pub(super) fn permission(facts: &Facts, policy: &Policy, now: Timestamp) -> Permission {
    let Mode::Manual { window, if_applied_dies } = &policy.mode else { return Permission::Given };
    // What was begun goes on, whatever hour it has become: a host in between is worse than either.
    let begun = facts.fetched.as_ref().is_some_and(|found| is_begun(facts, found));
    let staged = |t: &TargetFacts| t.prepared.as_ref().is_some_and(|p| !p.nothing_to_write);
    let approval = facts.state.candidate.as_ref().and_then(|c| c.approval.as_ref());
    if begun || facts.targets.iter().any(staged) || approval.is_some_and(|a| a.holds(now)) {
        return Permission::Given;
    }
    if *if_applied_dies == IfAppliedDies::Apply
        && (0..facts.targets.len()).any(|i| uses_applied(facts, i))
        && let Some(by) = facts.state.applied_refused().and_then(|own| died(&facts.state, own))
    {
        return Permission::Give { by, until: None };
    }
    match window.as_ref().map(|window| (window, window.opening(now, &policy.zone))) {
        Some((window, Opening::Open { until })) => {
            Permission::Give { by: format!("apply = \"{window}\""), until: Some(until) }
        }
        Some((_, Opening::At(opens))) => Permission::Held { opens: Some(opens) },
        None => Permission::Held { opens: None },
    }
}

/// Is this version in place in a target already, put there by this run or by one that was killed?
pub(super) fn is_begun(facts: &Facts, version: &SourceVersion) -> bool {
    let by_a_run_before = |t: &TargetFacts| t.inspected.as_ref().is_some_and(|i| i.has_in_place(version));
    facts.targets.iter().any(|t| t.swapped || by_a_run_before(t))
}

/// A version as it is said beside another one: a source that was made anew counts from 1 again.
pub fn said_beside(id: &VersionId, other: &VersionId) -> String {
    let another = if id.version == other.version && id != other { "another " } else { "" };
    format!("{another}version {}", id.version)
}
