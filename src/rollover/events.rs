//! What a run has to tell beyond its confirmation: each cause once, and what only the end of a run shows.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use relaykey_core::report::{MailServer, ReportError, ReportOutcome, Waiting, rfc3339, whole_seconds};

use super::commit::next_seq;
use super::drift::is_changed_by_others;
use super::facts::{Attested, Facts, News, ReadBackFacts, SignOfLife, TargetFacts, Wake, is_in_use, read_back_anew};
use super::own_login::refusal;
use super::standing::said_beside;
use super::state::{Failing, State};
use crate::credential::VersionId;
use crate::fault::Class;

/// How long after the last report a sign of life is due; give or take a tenth, so that a fleet does not report at once.
pub(super) const ALIVE_AFTER: SignedDuration = SignedDuration::from_hours(24);
/// That tenth.
const ALIVE_SPREAD: f64 = 0.1;
/// A key that is older than this should have been rotated: the usual 90 days.
pub const OLD_KEY: SignedDuration = SignedDuration::from_hours(90 * 24);
/// A failure that may pass by itself is reported when it has stood this long.
const LASTING: SignedDuration = SignedDuration::from_mins(15);
/// A failure that was not met for so long is over, although others stand: should it come again, it is a new one.
const FORGOTTEN: SignedDuration = SignedDuration::from_hours(1);

/// When the sign of life after a report of this time is there at the latest.
pub fn alive_due(at: Timestamp, lease: Option<Duration>) -> Option<Timestamp> {
    at.checked_add(alive_after(lease).mul_f64(1.0 + ALIVE_SPREAD)).ok()
}

/// Daily; and within the time that this host may be silent, if that is shorter.
pub(super) fn alive_after(lease: Option<Duration>) -> SignedDuration {
    lease.and_then(|lease| SignedDuration::try_from(lease).ok()).map_or(ALIVE_AFTER, |lease| lease.min(ALIVE_AFTER))
}

/// Something is to be told: about the candidate where it is about one, else about what is applied.
pub(super) fn tell(facts: &mut Facts, outcome: ReportOutcome, error: Option<ReportError>, now: Timestamp) {
    // Who has left is not asked any more, and a place that holds one document per host is to go on saying so.
    if facts.state.left.is_some() && outcome != ReportOutcome::Left {
        return;
    }
    let applied = facts.state.applied.as_ref().map(|a| (a.id.version.clone(), a.username.clone()));
    let candidate = facts.state.candidate.as_ref().map(|c| (c.id.version.clone(), c.username.clone()));
    use ReportOutcome::{Failed, PendingApproval, Rejected};
    let of_candidate = matches!(outcome, Failed | PendingApproval | Rejected);
    let of_applied = outcome == Failed && candidate.is_none() && applied.is_some();
    let about = if of_candidate { candidate.or(applied) } else { applied };
    let (version, username) = about.unwrap_or_default();
    let previous = facts.state.applied.as_ref().and_then(|a| match a.username == username {
        true => a.previous_username.clone(),
        false => Some(a.username.clone()),
    });
    let previous = previous.or_else(|| {
        let first = facts.state.found_first.clone().filter(|_| facts.state.applied.is_none());
        first.filter(|first| *first != username)
    });
    let seq = next_seq(&facts.state, now);
    facts.state.seq = seq;
    // A confirmation that is being made takes a later number.
    read_back_anew(facts);
    facts.spoke = true;
    let (at, waiting, previous_username) = (whole_seconds(now), None, previous);
    let (in_use, version_in_use) = (facts.in_use(), facts.version_in_use());
    facts.news.push(News {
        outcome,
        seq,
        at,
        version,
        username,
        previous_username,
        in_use,
        version_in_use,
        attested: Vec::new(),
        of_applied,
        error,
        waiting,
    });
}

/// This host has told nothing yet: that it is there, before it applies anything. Who waits for all hosts is to know of it, however
/// long its first version takes.
pub fn hello(facts: &mut Facts, now: Timestamp) {
    let State { applied, report, told, left, .. } = &facts.state;
    let is_new = applied.is_none() && report.is_none() && told.is_none() && left.is_none();
    let Wake { dry_run, foresees, leave, .. } = facts.wake;
    if is_new && !dry_run && !foresees && !leave {
        tell(facts, ReportOutcome::Hello, None, now);
    }
}

/// The candidate waits for a person: what for.
pub(super) fn tell_of_waiting(facts: &mut Facts, error: ReportError, waiting: Waiting, now: Timestamp) {
    let before = facts.news.len();
    tell(facts, ReportOutcome::PendingApproval, Some(error), now);
    if let Some(news) = facts.news.get_mut(before) {
        news.waiting = Some(waiting);
    }
}

/// What only the end of a run shows: a confirmation that no longer holds, failures that stand, a sign of life that is due.
/// To be called when nothing is left to do, or with a commit; not when the program was told to end in between. A second call
/// does nothing.
///
/// `jitter` is a random number in [0, 1).
pub fn conclude(facts: &mut Facts, now: Timestamp, jitter: f64) {
    if facts.wake.dry_run || facts.concluded {
        return;
    }
    facts.concluded = true;
    if facts.wake.confirm {
        // What somebody only asked about is no attempt that the next one would have to wait for.
        for retry in facts.state.targets.values_mut().map(|t| &mut t.retry) {
            let asked = retry.failure.as_ref().is_some_and(|f| f.class == Class::ByHand || f.class == Class::Drift);
            retry.next = retry.next.filter(|_| !asked);
        }
    }
    withdraw(facts, now);
    tell_refusal(facts, now);
    for (about, error) in standing_failures(facts, now) {
        let before = facts.news.len();
        tell(facts, ReportOutcome::Failed, Some(error), now);
        let Some(news) = facts.news.get_mut(before) else { continue };
        let applied = facts.state.applied.as_ref();
        match about {
            About::Target => {}
            About::Source => {
                news.of_applied = false;
                (news.version, news.username) = (String::new(), String::new());
                news.previous_username = applied.map(|a| a.username.clone());
            }
            About::Offered(id, username) => {
                news.of_applied = false;
                news.previous_username = applied.map(|a| a.username.clone()).filter(|before| *before != username);
                (news.version, news.username) = (id.version, username);
            }
        }
    }
    if let Some(error) = old_key(facts, now) {
        tell(facts, ReportOutcome::Alive, Some(error), now);
    }
    let spread = facts.alive_after.mul_f64(0.9 + 2.0 * ALIVE_SPREAD * jitter.clamp(0.0, 1.0));
    let next = now.checked_add(spread).ok();
    let told = facts.spoke || facts.committed.is_some();
    match facts.state.alive_due {
        _ if facts.state.applied.is_none() || facts.state.left.is_some() => facts.state.alive_due = None,
        Some(due) if due > now && !told => {}
        Some(_) if !told => {
            facts.state.alive_due = next;
            give_sign_of_life(facts, now);
        }
        _ => facts.state.alive_due = next,
    }
}

/// With the proofs that were made for it, where every target has one and nothing was told since.
fn give_sign_of_life(facts: &mut Facts, now: Timestamp) {
    let all = facts.targets.len();
    let proved =
        facts.attested.take().filter(|a| !a.in_vain && a.targets.len() == all && a.stamp.seq > facts.state.seq);
    let error = uses_another_login(&facts.state);
    let before = facts.news.len();
    tell(facts, ReportOutcome::Alive, error, now);
    let (Some(Attested { stamp, targets, .. }), Some(news)) = (proved, facts.news.get_mut(before)) else { return };
    (news.seq, news.at, news.attested) = (stamp.seq, stamp.at, targets);
    facts.state.seq = news.seq;
}

/// The target whose login is to be proved anew for a sign of life that is due: only where every target was found to hold what
/// was confirmed, and nothing else is to be told.
pub(super) fn attest_due(facts: &Facts, now: Timestamp) -> Option<(usize, SignOfLife)> {
    let State { applied, report, alive_due, withdrawn, refused, left, .. } = &facts.state;
    let Wake { dry_run, foresees, confirm, leave, ref reject, .. } = facts.wake;
    let plain = !dry_run && !foresees && !confirm && !leave && reject.is_none();
    let due = alive_due.is_some_and(|due| due <= now) && applied.is_some() && left.is_none();
    let stands = withdrawn.is_none() && refused.is_none();
    let told = facts.spoke || facts.committed.is_some() || facts.aside.is_some() || facts.concluded;
    let of_report =
        |name: &String| report.as_ref().is_some_and(|report| report.targets.iter().any(|t| t.name == *name));
    let holds = |t: &TargetFacts| {
        let (seen, state) = (t.inspected.as_ref()?, facts.state.targets.get(&t.name)?);
        let is_it = |found: &Option<String>| found.is_some() && *found == state.live_id;
        let read = seen.reload_owed.is_none() && seen.unread.is_none() && seen.swapped.is_none();
        let runs = seen.mail_server.is_some_and(|found| found != MailServer::Stopped);
        (is_it(&seen.in_use) && is_it(&seen.holds) && read && runs && t.is_untouched() && of_report(&t.name))
            .then_some(())
    };
    if !plain || !due || !stands || told || !facts.targets.iter().all(|t| holds(t).is_some()) {
        return None;
    }
    match &facts.attested {
        Some(attested) => {
            let next = attested.targets.len();
            (!attested.in_vain && next < facts.targets.len()).then(|| (next, attested.stamp.clone()))
        }
        None => Some((0, SignOfLife { seq: next_seq(&facts.state, now), at: whole_seconds(now) })),
    }
}

/// What the proof of one target came to.
pub(super) fn attested(facts: &mut Facts, stamp: &SignOfLife, found: Option<ReadBackFacts>) {
    let new = || Attested { stamp: stamp.clone(), targets: Vec::new(), in_vain: false };
    let attested = facts.attested.get_or_insert_with(new);
    match found.filter(|found| found.proof.is_ok()) {
        Some(found) => attested.targets.push(found),
        None => attested.in_vain = true,
    }
}

/// A sign of life names the applied version; where another login was looked up, it says both.
fn uses_another_login(state: &State) -> Option<ReportError> {
    let applied = state.applied.as_ref()?;
    let found = state.foreign()?.in_use.as_ref()?;
    let who = match found.usernames.as_slice() {
        [] => "no login".to_owned(),
        [one] if *one == applied.username => format!("{one} with another password"),
        all => all.join(" and "),
    };
    let words = format!(
        "the mail server uses {who}, as looked up at {}, and not what this host had confirmed ({})",
        rfc3339(found.at),
        applied.username
    );
    Some(ReportError::new(Class::Drift, words))
}

/// What is to be told of a key that has become old: once per version. A host that has left is not asked.
fn old_key(facts: &mut Facts, now: Timestamp) -> Option<ReportError> {
    let applied = facts.state.applied.as_ref().filter(|_| facts.state.left.is_none())?;
    let age = applied.key_age(now);
    if age <= OLD_KEY || facts.state.aged.as_ref() == Some(&applied.id) {
        return None;
    }
    let words = format!(
        "the key {} is at least {} days old, and a key is usually replaced after 90: make a new one and publish it at the source",
        applied.username,
        age.as_hours() / 24
    );
    facts.state.aged = Some(applied.id.clone());
    Some(ReportError::new(Class::OldKey, words))
}

/// What a failure that stands is about.
pub(super) enum About {
    /// The candidate on its way into a target, or what is applied there.
    Target,
    /// The source, which gave no version that could be used.
    Source,
    /// A version that the source gave and that is not taken.
    Offered(VersionId, String),
}

/// Takes down which failures stand, and gives those that are to be reported now: each cause once, one that may pass by
/// itself only when it has lasted.
fn standing_failures(facts: &mut Facts, now: Timestamp) -> Vec<(About, ReportError)> {
    // What waits has a report of its own, as has drift; and "not yet" is how a new key begins.
    const OF_THEIR_OWN: [Class; 3] = [Class::NotYet, Class::ByHand, Class::Drift];
    let version = facts.state.candidate.as_ref().map(|c| c.id.version.clone());
    let mut stand: Vec<Failing> = Vec::new();
    let mut known: Vec<Class> = Vec::new();
    let mut due = Vec::new();
    for (_, failure) in facts.failures() {
        if known.contains(&failure.class) || OF_THEIR_OWN.contains(&failure.class) || failure.is_an_answer() {
            continue;
        }
        known.push(failure.class);
        let before = facts.state.failing.iter().find(|f| f.class == failure.class && f.version == version);
        let new = || Failing { class: failure.class, version: version.clone(), since: now, seen: now, told: false };
        let mut failing = Failing { seen: now, ..before.cloned().unwrap_or_else(new) };
        let lasts = !failure.temporary || now.duration_since(failing.since) >= LASTING;
        if lasts && !failing.told {
            failing.told = true;
            let of_source = facts.state.source_retry.failure.as_ref() == Some(failure);
            let about = match (of_source, &facts.fetched) {
                (true, _) => About::Source,
                (false, Some(found)) if facts.blocked.as_ref() == Some(failure) => {
                    About::Offered(found.id.clone(), found.username.clone())
                }
                (false, _) => About::Target,
            };
            due.push((about, ReportError::of(failure)));
        }
        stand.push(failing);
    }
    // Causes may take turns, and a run may not come as far as to meet each again. All are over with what they kept from
    // happening.
    if facts.committed.is_none() && (facts.state.candidate.is_some() || !stand.is_empty()) {
        let lately = |f: &Failing| f.version == version && now.duration_since(f.seen) < FORGOTTEN;
        let others = facts.state.failing.iter().filter(|f| !known.contains(&f.class) && lately(f));
        stand.extend(others.cloned());
    }
    facts.state.failing = stand;
    due
}

/// Two logins of our own proved that the endpoint refuses what is in use: mail is held back, and what was confirmed no longer
/// holds.
fn tell_refusal(facts: &mut Facts, now: Timestamp) {
    let State { refused, withdrawn, left, .. } = &facts.state;
    if facts.committed.is_some() || refused.is_some() || withdrawn.is_some() || left.is_some() {
        return;
    }
    if let Some((since, error)) = refusal(&facts.state) {
        facts.state.refused = Some(since);
        tell(facts, ReportOutcome::AppliedRefused, Some(error), now);
    }
}

/// Somebody put something else where this host has confirmed its login, and it stays there: what was confirmed no longer
/// holds.
fn withdraw(facts: &mut Facts, now: Timestamp) {
    if facts.committed.is_some() || facts.state.withdrawn.is_some() || facts.state.report.is_none() {
        return;
    }
    let elsewhere = |i: &usize| is_changed_by_others(facts, *i, now);
    // Put there by this host itself, in a run that was killed; and another version came before it was confirmed.
    let begun = |i: &usize| {
        let t = &facts.targets[*i];
        facts.begun_in_use(t).filter(|begun| t.is_untouched() && facts.is_other(begun))
    };
    let targets = 0..facts.targets.len();
    let (ours, others): (Vec<usize>, Vec<usize>) =
        targets.filter(|i| begun(i).is_some() || elsewhere(i)).partition(|i| begun(i).is_some());
    let names = |of: &[usize]| of.iter().map(|&i| facts.targets[i].name.as_str()).collect::<Vec<_>>().join(", ");
    let error = match (others.as_slice(), ours.first().and_then(begun), &facts.fetched) {
        ([], Some(begun), Some(found)) => {
            let how = match begun.by_hand {
                true => "which was put there by hand, as this host had asked, and was never confirmed:",
                false => "which this host put there and never confirmed: the run was broken off in between, and",
            };
            let words = format!(
                "the mail server (target {}) uses version {} ({}), {how} {} has come since",
                names(&ours),
                begun.id.version,
                begun.username,
                said_beside(&found.id, &begun.id)
            );
            ReportError::new(Class::Superseded, words)
        }
        ([], ..) => return,
        (others, ..) if others.iter().all(|&i| is_asked_for(facts, i)) => {
            let words = format!(
                "a change by hand is not finished (target {}): the mail server uses neither what this host had confirmed nor, as \
                 far as was seen, the new version",
                names(others)
            );
            ReportError::new(Class::ByHand, words)
        }
        (others, ..) => {
            let words = format!(
                "somebody else changed the login that the mail server uses (target {}), and it has not been put back",
                names(others)
            );
            ReportError::new(Class::Drift, words)
        }
    };
    facts.state.withdrawn = Some(now);
    tell(facts, ReportOutcome::Withdrawn, Some(error), now);
}

/// Was a person asked, before this wake, to put the source's version into this target by hand? What is found there meanwhile is
/// that change.
fn is_asked_for(facts: &Facts, index: usize) -> bool {
    let asked = facts.waited.as_ref().is_some_and(|id| facts.fetched.as_ref().is_some_and(|found| found.id == *id));
    asked && !is_in_use(facts) && facts.by_hand.contains(&facts.targets[index].name)
}
