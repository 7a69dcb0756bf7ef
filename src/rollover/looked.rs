//! What a look at a mail server found, taken into the state: what is in use there, and what of it was ours.

use jiff::{SignedDuration, Timestamp};
use relaykey_core::report::MailServer;

use super::decide::is_watched;
use super::drift::drifted;
use super::facts::{Facts, Inspection, is_in_use};
use super::state::{remember, remember_logins};
use super::target_state::{Begun, InUse, Retry, TargetState, WantedLogin};
use crate::credential::{VersionId, is_access_key_id, shown};
use crate::fault::{Class, Failure};

/// What was looked up and found unchanged is written down anew this often.
pub(super) const LOOKED_UP: SignedDuration = SignedDuration::from_hours(1);

/// A look at a target gave this.
pub(super) fn inspected(facts: &mut Facts, index: usize, found: Inspection, now: Timestamp) {
    // A heal that was killed put back what was confirmed: that is no version without a confirmation.
    let of_applied = facts.is_of_applied(&found);
    let asked = facts.wake.asked;
    let username = facts.state.applied.as_ref().map(|applied| applied.username.clone());
    let state = facts.target_state(index);
    if username.is_some_and(|username| found.is_of_other_endpoints(state, &username)) {
        state.live_id = None;
    }
    let starts = state.mail_server == Some(MailServer::Stopped) || found.reload_owed.is_none();
    let runs = found.mail_server == Some(MailServer::Runs);
    (state.reload_owed, state.mail_server) = (found.reload_owed.clone(), found.mail_server);
    state.unread.clone_from(&found.unread);
    state.held.get_or_insert_default().see(&found.held);
    let of_that = |f: &Failure| [Class::ReloadOwed, Class::NotRunning].contains(&f.class);
    if starts && runs && state.retry.failure.as_ref().is_some_and(of_that) {
        state.retry.next = None;
    }
    let holds_it = state.live_id.is_some() && found.holds == state.live_id && found.swapped.is_none();
    if holds_it && state.retry.failure.as_ref().is_some_and(|f| f.class == Class::Drift) {
        state.retry = Retry::default();
    }
    // Looked at before its time, and what was in the way still is, as far as is known.
    let waits = state.retry.next.is_some_and(|next| next > now);
    let in_use = InUse { at: now, usernames: found.usernames.clone(), live_id: found.in_use.clone() };
    looked_up(state, in_use, asked);
    begun_under_another_name(facts, index, &found);
    found_before_anything(facts, index, &found);
    found_beside_ours(facts, index, &found);
    let state = facts.target_state(index);
    state.take_down(found.swapped.as_ref().filter(|_| !of_applied), found.in_use.as_ref());
    let not_due = waits && facts.aside.is_none();
    let before_its_time = not_due && (facts.wake.at_start || is_watched(facts, index));
    let t = &mut facts.targets[index];
    // Mail goes to other endpoints than those that took the login.
    if t.inspected.as_ref().is_some_and(|before| before.endpoints != found.endpoints) {
        t.evidence = None;
    }
    (t.inspected, t.must_look, t.reload_tried) = (Some(found), false, false);
    t.failed |= not_due;
    t.before_its_time = before_its_time;
    // The source may have answered meanwhile.
    let answered = facts.fetched.is_some() && !facts.stale && facts.aside.is_none();
    if answered && is_in_use(facts) && !facts.targets[index].failed {
        nothing_stands_in_the_way(facts, index);
    }
    // What was confirmed is in use again everywhere, whoever put it back.
    let holds = |i: usize| {
        let t = &facts.targets[i];
        t.inspected.as_ref().is_some_and(|seen| !facts.is_of_applied(seen)) && !drifted(facts, i)
    };
    if facts.aside.is_none() && (0..facts.targets.len()).all(holds) {
        facts.state.put_back = Retry::default();
    }
}

/// The login of what the source gives was compared with what a target holds.
pub(super) fn compared(facts: &mut Facts, index: usize, live_id: &str) {
    let of_candidate = |id: &VersionId| facts.state.candidate.as_ref().is_some_and(|c| c.id == *id);
    let id = facts.fetched.as_ref().map(|found| found.id.clone()).filter(of_candidate);
    if let Some(id) = id.filter(|_| !facts.wake.dry_run) {
        facts.target_state(index).wanted = Some(WantedLogin { id, live_id: live_id.to_owned() });
    }
}

/// What this host put in place under another target's name, the one that this target had before among them, is taken for
/// that here too, where it is the very same login.
fn begun_under_another_name(facts: &mut Facts, index: usize, found: &Inspection) {
    let name = &facts.targets[index].name;
    let swapped = found.swapped.as_ref().map(|swapped| &swapped.live_id);
    let own = facts.state.targets.get(name).map(|t| t.begun.as_slice()).unwrap_or_default();
    let is_new = |begun: &&Begun| {
        let there = [found.in_use.as_ref(), swapped].contains(&Some(&begun.live_id));
        there && !own.iter().any(|known| known.live_id == begun.live_id)
    };
    let begun = facts.state.begun().find(is_new).cloned();
    if let Some(begun) = begun {
        let used = begun.used || found.in_use.as_ref() == Some(&begun.live_id);
        facts.target_state(index).begun.push(Begun { used, gone: false, ..begun });
    }
}

/// While nothing was applied or put in place yet: what was found is what was in use before all of that.
fn found_before_anything(facts: &mut Facts, index: usize, found: &Inspection) {
    let in_place = || {
        let begun = facts.state.targets.get(&facts.targets[index].name).map(|t| t.begun.as_slice()).unwrap_or_default();
        begun.iter().any(|begun| found.in_use.as_ref() == Some(&begun.live_id))
    };
    if facts.state.applied.is_some() || found.swapped.is_some() || facts.targets[index].swapped || in_place() {
        return;
    }
    let may_be_shown = |username: &&String| shown(username, false).is_some();
    remember(&mut facts.state.earlier, found.usernames.iter().filter(may_be_shown).cloned());
    remember_logins(&mut facts.state.earlier_logins, found.in_use.clone());
    let first = found.username.as_ref().filter(may_be_shown);
    if let Some(first) = first.filter(|_| index == 0 || facts.state.found_first.is_none()) {
        facts.state.found_first = Some(first.clone());
    }
}

/// What was found in use where this host had something else confirmed is what the next version takes over from, whoever put it
/// there: what still holds it then is to be named.
fn found_beside_ours(facts: &mut Facts, index: usize, found: &Inspection) {
    let state = &facts.state;
    let Some(applied) = &state.applied else { return };
    let known = state.earlier_usernames();
    let is_other = |username: &&String| **username != applied.username && !known.contains(username);
    let may_be_named = |username: &&String| is_access_key_id(username);
    let new: Vec<String> = found.usernames.iter().filter(is_other).filter(may_be_named).cloned().collect();
    // Of an access key id there is one password for one region: the name says enough.
    let by_name = found.username.as_deref().is_some_and(is_access_key_id);
    let ours = |id: &String| {
        let of_target = |t: &TargetState| t.live_id.as_ref() == Some(id) || t.has_begun(id).is_some();
        let wanted = |t: &TargetState| t.wanted.as_ref().is_some_and(|wanted| wanted.live_id == *id);
        let swapped = found.swapped.as_ref().is_some_and(|swapped| swapped.live_id == *id);
        swapped || state.targets.values().any(|t| of_target(t) || wanted(t)) || state.earlier_logins.contains(id)
    };
    let is_new = |id: &&String| !by_name && !ours(id) && !state.found_logins.contains(id);
    let login = found.in_use.iter().find(is_new).cloned();
    if facts.targets[index].swapped {
        return;
    }
    remember(&mut facts.state.earlier, new);
    remember_logins(&mut facts.state.found_logins, login);
}

/// What the mail server uses was looked up. As long as it stays the same, the time alone is not worth a write to the disk, but
/// for a person who `asked`: they are told afterwards when it was looked up.
pub(super) fn looked_up(state: &mut TargetState, found: InUse, asked: bool) {
    let same = |before: &InUse| {
        let passed = found.at.duration_since(before.at);
        (&before.usernames, &before.live_id) == (&found.usernames, &found.live_id)
            && !passed.is_negative()
            && passed < LOOKED_UP
    };
    if asked || !state.in_use.as_ref().is_some_and(same) {
        state.in_use = Some(found);
    }
}

/// The applied version is what the source has: where a target was found to hold it, whatever failed there is over.
pub(super) fn nothing_stands_in_the_way(facts: &mut Facts, index: usize) {
    let found = facts.targets[index].inspected.as_ref();
    if !drifted(facts, index) && found.is_some_and(|v| v.reload_owed.is_none()) {
        facts.target_state(index).retry = Retry::default();
    }
}
