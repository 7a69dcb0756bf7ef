//! What people decide and do: a version is held until somebody approves it, approved, rejected, or left to a person who
//! changes a target by hand.

use jiff::{SignedDuration, Timestamp};
use relaykey_core::report::{ReportError, ReportOutcome, Waiting, rfc3339};
use relaykey_core::target::Swapped;

use super::drift::denied;
use super::events::{tell, tell_of_waiting};
use super::facts::{Facts, SourceVersion, TargetFacts, is_by_hand};
use super::failures::target_failed;
use super::policy::Policy;
use super::standing::{
    Permission, VersionStanding, ambiguous, is_ambiguous, is_approvable, permission, said_beside, standing,
};
use super::state::{Approval, Candidate, HeldVersion, Rejected};
use super::target_state::{PlannedChange, Retry};
use crate::config::{IfAppliedDies, Mode};
use crate::credential::VersionId;
use crate::fault::{Class, Failure};
use crate::instruction::{Instruction, relaykey};

/// A version that is held is verified again this long after.
pub(super) const HELD_VERIFIED: SignedDuration = SignedDuration::from_hours(24);
/// How many rejected versions are remembered.
pub(super) const REJECTED: usize = 100;

/// What is in use was put in place and never confirmed, and the version that is to come waits for somebody to let it go: until
/// then nothing is confirmed here. For who only looks; a run holds that version.
pub fn waits_unconfirmed<'a>(facts: &'a Facts, policy: &Policy, now: Timestamp) -> Option<(&'a str, Failure)> {
    let found = facts.fetched.as_ref()?;
    let opens = match (standing(facts, found, policy), permission(facts, policy, now)) {
        (VersionStanding::Take, Permission::Held { opens }) => opens,
        _ => return None,
    };
    let in_use = |t: &'a TargetFacts| Some((t, facts.begun_in_use(t).filter(|begun| facts.is_other(begun))?));
    let (t, begun) = facts.targets.iter().find_map(in_use)?;
    let name = &facts.state.credential;
    let what = format!(
        "the mail server (target {}) uses version {} ({}), which was put there and never confirmed, and {} ({}) waits for \
         approval: until then nothing is confirmed here",
        t.name,
        begun.id.version,
        begun.username,
        said_beside(&found.id, &begun.id),
        found.username
    );
    let by_itself = opens.map(|opens| format!("; at {} it goes by itself", rfc3339(opens))).unwrap_or_default();
    let approve = relaykey(format_args!("approve {name} --version {}", found.id.version));
    let fix = format!("{approve}{by_itself}");
    Some((&t.name, denied(Class::Superseded, what, fix, now)))
}

/// What an approval comes to, now that it is known what the source has; `None`: nobody approves anything.
///
/// Approved is what the person saw: the version that they name, or the one that waited when they said so. Whatever came
/// in its place since is not.
pub(super) fn approval(
    facts: &Facts,
    policy: &Policy,
    found: &SourceVersion,
    now: Timestamp,
) -> Option<Result<Approval, Failure>> {
    let approve = facts.wake.approve.as_ref()?;
    let (name, there) = (&facts.state.credential, &found.id.version);
    let no = |class: Class, what: String, fix: String| Some(Err(denied(class, what, fix, now)));
    let nothing = |why: &str| {
        let there = match &facts.state.applied {
            Some(a) => {
                let (version, since) = (&a.id.version, rfc3339(a.since));
                format!("version {version} ({}) is the applied one, since {since}", a.username)
            }
            None => "no version has been applied here yet".to_owned(),
        };
        let fix = format!("nothing to do; to see what there is: {}", relaykey("status"));
        no(Class::NothingToDo, format!("nothing waits for approval: {why}; {there}"), fix)
    };
    // Given already, and the source is only asked once more.
    let before = facts.state.candidate.as_ref().filter(|c| c.id == found.id).and_then(|c| c.approval.as_ref());
    if let Some(approval) = before.filter(|a| a.by == approve.by && a.until.is_none()) {
        return Some(Ok(approval.clone()));
    }
    // What a person is to put in place needs no other word.
    let by_hand = is_held_version(facts, found) && !facts.by_hand.is_empty();
    if by_hand && policy.mode == Mode::Automatic && approve.version.as_ref().is_none_or(|version| version == there) {
        let what = format!(
            "version {there} ({}) waits for a change by hand (target {}), which is the approval",
            found.username,
            facts.by_hand.join(", ")
        );
        let fix = format!("make the change: {} shows what to do, step by step", relaykey("status"));
        return no(Class::NothingToDo, what, fix);
    }
    // Who names a version that is not there has not seen what is.
    let named_another = approve.version.as_ref().is_some_and(|version| version != there);
    if !is_approvable(facts, found, policy) && !named_another {
        return nothing("mode = \"automatic\", where a new version goes into use by itself once it is verified");
    }
    if facts.state.applied.as_ref().is_some_and(|applied| applied.id == found.id) && !named_another {
        return nothing("the source has the version that is in use");
    }
    let by_name = relaykey(format_args!("approve {name} --version {there}"));
    // It tries all but the writing, and `status` tells what is known already.
    let check = relaykey(format_args!("check {name}"));
    // A source that was made anew counts from 1 again: the same number, and perhaps not what the person saw. Whatever was
    // looked at in between does not tell what they had in mind.
    let another = |seen: &VersionId| seen.version == *there && *seen != found.id;
    let by_its_name = approve.version.as_ref() == Some(there) && is_ambiguous(facts, &found.id);
    if by_its_name || facts.shown.as_ref().is_some_and(another) {
        return no(
            Class::ChangedMeanwhile,
            ambiguous(there, &found.username, "nothing was approved"),
            format!("look at what waits now ({check}); if that is meant, say it once more: {by_name}"),
        );
    }
    let waited = facts.waited.as_ref().map(|id| &id.version);
    match (approve.version.as_ref().or(waited), facts.rejection(&found.id)) {
        (Some(version), _) if version != there => no(
            Class::ChangedMeanwhile,
            format!("the source has version {there} now, not {version}: nothing was approved"),
            format!("look at what waits now ({check}), then approve that: {by_name}"),
        ),
        (_, Some(rejected)) if approve.version.is_none() => no(
            Class::Rejected,
            format!("version {there} was rejected by {}: {}", rejected.by, rejected.reason),
            format!("to approve it all the same, name it: {by_name}"),
        ),
        (None, _) => no(
            Class::NothingWaits,
            format!("version {there} was only seen just now: nothing was approved"),
            format!("look at it ({check}), then approve it: {by_name}"),
        ),
        _ => Some(Ok(Approval { by: approve.by.clone(), at: now, until: None })),
    }
}

/// Is this version held, for a person to put it in place?
fn is_held_version(facts: &Facts, found: &SourceVersion) -> bool {
    let held = |c: &Candidate| c.id == found.id && c.held.is_some() && facts.rejection(&c.id).is_none();
    facts.state.candidate.as_ref().is_some_and(held)
}

/// The candidate waits for a person; the first time, that is news.
pub(super) fn hold(facts: &mut Facts, policy: &Policy, now: Timestamp) {
    let name = facts.state.credential.clone();
    let permission = permission(facts, policy, now);
    let Some(candidate) = &mut facts.state.candidate else { return };
    let since = candidate.held.as_ref().map(|held| held.since);
    let failed = facts.targets.iter().filter(|t| t.failed);
    let retries = failed.filter_map(|t| facts.state.targets.get(&t.name)?.retry.next);
    let next = retries.chain(now.checked_add(HELD_VERIFIED)).min();
    candidate.held = Some(HeldVersion { since: since.unwrap_or(now), next });
    if since.is_some() {
        return;
    }
    let version = candidate.id.version.clone();
    let mut words = format!(
        "verified, and waits for somebody to decide. To put it into use: {}. To refuse it: {}. ",
        relaykey(format_args!("approve {name} --version {version}")),
        relaykey(format_args!("reject {name} --version {version} --reason \"...\""))
    );
    words.push_str(&match (&policy.mode, &permission) {
        (Mode::Manual { window: Some(window), .. }, Permission::Held { opens: Some(opens) }) => {
            format!("If nobody does either, it goes into use by itself at {} (apply = \"{window}\")", rfc3339(*opens))
        }
        _ => "Until then the present login stays in use".to_owned(),
    });
    let dies = matches!(policy.mode, Mode::Manual { if_applied_dies: IfAppliedDies::Apply, .. });
    if dies {
        words.push_str(match policy.gives_older {
            true => {
                "; should the mail relay refuse that one, it goes into use once two logins of relaykey's own with it were \
                 refused, if the source still gives it"
            }
            false => {
                "; should the mail relay refuse that one, it does not go into use by itself, because a file does not give the \
                 older version that would prove it"
            }
        });
    }
    let (opens, window) = match (&policy.mode, permission) {
        (Mode::Manual { window: Some(window), .. }, Permission::Held { opens: Some(opens) }) => {
            (Some(opens), Some(window.to_string()))
        }
        _ => (None, None),
    };
    let waiting = Waiting { opens, window, if_applied_dies: dies && policy.gives_older, ..Waiting::default() };
    tell_of_waiting(facts, ReportError::new(Class::Held, words), waiting, now);
}

/// What a run would leave to people, as a dry run has found it: the targets that they change, and a version that they are to
/// approve.
pub fn left_to_people<'f>(facts: &'f Facts, policy: &Policy, now: Timestamp) -> Vec<(Option<&'f str>, Failure)> {
    let name = &facts.state.credential;
    let found = facts.fetched.as_ref().filter(|_| facts.blocked.is_none());
    let is_to_come = |found: &&SourceVersion| facts.state.candidate.as_ref().is_some_and(|c| c.id == found.id);
    let Some(found) = found.filter(is_to_come).filter(|found| facts.rejection(&found.id).is_none()) else {
        return Vec::new();
    };
    let changes = |t: &TargetFacts| !t.failed && t.previewed.as_ref().is_some_and(|change| !change.diff.is_empty());
    let (by_hand, ours): (Vec<usize>, Vec<usize>) =
        (0..facts.targets.len()).filter(|&i| changes(&facts.targets[i])).partition(|&i| is_by_hand(facts, policy, i));
    let held = matches!(permission(facts, policy, now), Permission::Held { .. }) && !ours.is_empty();
    let approval = held.then(|| {
        let version = &found.id.version;
        let what = format!("version {version} ({}) waits for approval", found.username);
        (None, denied(Class::Held, what, relaykey(format_args!("approve {name} --version {version}")), now))
    });
    let by_hand = by_hand.into_iter().map(|i| (Some(&*facts.targets[i].name), not_done_by_hand(facts, policy, i, now)));
    approval.into_iter().chain(by_hand).collect()
}

/// That a target that a person changes does not hold the candidate.
fn not_done_by_hand(facts: &Facts, policy: &Policy, index: usize, now: Timestamp) -> Failure {
    let t = &facts.targets[index];
    let (version, username) =
        facts.fetched.as_ref().map(|f| (f.id.version.as_str(), f.username.as_str())).unwrap_or_default();
    let why = if facts.wake.confirm { "this run only confirms" } else { "write = false" };
    let what = format!("target {} does not hold version {version} ({username}), and is left so: {why}", t.name);
    // What relaykey writes itself nobody is to change by hand: that would go round the approval.
    if policy.targets[index].write {
        let name = &facts.state.credential;
        let fix = match permission(facts, policy, now) {
            Permission::Held { .. } => relaykey(format_args!("approve {name} --version {version}")),
            Permission::Given | Permission::Give { .. } => {
                format!("have relaykey put it there: {}", relaykey(format_args!("sync {name}")))
            }
        };
        return denied(Class::ByHand, what, fix, now);
    }
    // Where nothing is recorded, there is nothing that `status` could show.
    let show = relaykey(if facts.wake.dry_run { "sync --dry-run" } else { "status" });
    let steps = t.previewed.as_ref().map_or(0, |change| change.steps.len());
    denied(Class::ByHand, what, format!("change it by hand: {show} shows what to do, step by step ({steps})"), now)
}

/// A target that a person changes does not hold the candidate: said with what to do, and watched.
pub(super) fn left_to_a_person(facts: &mut Facts, policy: &Policy, index: usize, now: Timestamp, jitter: f64) {
    let change = facts.targets[index].previewed.clone().unwrap_or_default();
    let failure = not_done_by_hand(facts, policy, index, now);
    let mut words = failure.what.clone();
    for difference in &change.differences {
        words.push_str(&format!(". {difference}"));
    }
    words.push_str(&format!(". To do: {}", Instruction::on_one_line(&change.steps)));
    target_failed(facts, index, failure, now, jitter);
    if policy.targets[index].write {
        // Asked only to confirm: nobody is to change anything here.
        return;
    }
    let asked = facts.fetched.clone().zip(facts.targets[index].wanted.clone());
    if let Some((found, live_id)) = asked.filter(|_| !facts.wake.dry_run) {
        facts.target_state(index).asks_for(&found, live_id);
    }
    let first = facts.state.candidate.as_mut().filter(|c| c.held.is_none());
    if let Some(candidate) = first {
        candidate.held = Some(HeldVersion { since: now, next: None });
        // All of them were looked at before the first is left to a person.
        let by_hand = facts.targets.iter().zip(&policy.targets).filter(|(_, policy)| !policy.write);
        let changes: Vec<&PlannedChange> = by_hand.filter_map(|(t, _)| t.previewed.as_ref()).collect();
        let waiting = Waiting {
            steps: changes.iter().flat_map(|change| change.steps.clone()).collect(),
            differences: changes.iter().flat_map(|change| change.differences.clone()).collect(),
            ..Waiting::default()
        };
        tell_of_waiting(facts, ReportError::new(Class::ByHand, words), waiting, now);
    }
}

/// A person rejects the version that waits: it is not taken by itself any more.
pub(super) fn reject(facts: &mut Facts, now: Timestamp) {
    let Some(reject) = facts.wake.reject.clone() else { return };
    let name = &facts.state.credential;
    let reject_by_name = reject.version.is_some();
    let Some(candidate) = &facts.state.candidate else {
        let what = match &facts.state.applied {
            Some(a) => {
                format!(
                    "nothing waits that could be rejected: version {} ({}) is the applied one",
                    a.id.version, a.username
                )
            }
            None => "nothing waits that could be rejected".to_owned(),
        };
        let fix = format!(
            "to see what there is: {}; what is in use is replaced by publishing another version",
            relaykey("status")
        );
        facts.blocked = Some(denied(Class::NothingWaits, what, fix, now));
        return;
    };
    if let Some(version) = reject.version.filter(|version| *version != candidate.id.version) {
        let there = &candidate.id.version;
        facts.blocked = Some(denied(
            Class::ChangedMeanwhile,
            format!("version {there} waits now, not {version}: nothing was rejected"),
            format!(
                "look at it ({}), then: {}",
                relaykey("status"),
                relaykey(format_args!("reject {name} --version {there} --reason \"...\""))
            ),
            now,
        ));
        return;
    }
    let (id, username) = (candidate.id.clone(), candidate.username.clone());
    if reject_by_name && is_ambiguous(facts, &id) {
        let (version, name) = (&id.version, &facts.state.credential);
        facts.blocked = Some(denied(
            Class::ChangedMeanwhile,
            ambiguous(version, &username, "nothing was rejected"),
            format!(
                "look at what waits now ({}); if that is meant, say it once more: {}",
                relaykey("status"),
                relaykey(format_args!("reject {name} --version {version} --reason \"...\""))
            ),
            now,
        ));
        facts.state.told_apart = Some(id);
        return;
    }
    let Some(candidate) = &mut facts.state.candidate else { return };
    let version = &candidate.id.version;
    // In doubt, where the journal does not say of which source it was, it is.
    let same = |s: &Swapped| if s.source.is_some() { s.id == candidate.id } else { s.id.version == *version };
    let swapped = |t: &&TargetFacts| t.inspected.as_ref().and_then(|i| i.swapped.as_ref()).is_some_and(same);
    if let Some(target) = facts.targets.iter().find(swapped) {
        let what = format!("target {} uses version {version} already: it cannot be rejected any more", target.name);
        let fix = "publish what is to be used instead as a new version".to_owned();
        facts.blocked = Some(denied(Class::Begun, what, fix, now));
        return;
    }
    (candidate.held, candidate.approval, candidate.accepted) = (None, None, false);
    let id = candidate.id.clone();
    let rejected = &mut facts.state.rejected;
    rejected.retain(|r| r.id != id);
    rejected.push(Rejected { id, by: reject.by.clone(), reason: reject.reason.clone(), at: now });
    let surplus = rejected.len().saturating_sub(REJECTED);
    rejected.drain(..surplus);
    for t in facts.state.targets.values_mut() {
        (t.retry, t.first_refused, t.change) = (Retry::default(), None, None);
    }
    let words = format!("rejected by {}: {}. The present login stays in use", reject.by, reject.reason);
    tell(facts, ReportOutcome::Rejected, Some(ReportError::new(Class::Rejected, words)), now);
}
