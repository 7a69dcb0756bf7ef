//! One confirmation: the stamp that its proofs share, and what it makes durable.

use jiff::Timestamp;
use relaykey_core::report::{Report, whole_seconds};

use super::drift::go_on_with_offered;
use super::facts::{Facts, Inspection, Stamp};
use super::own_login::OwnLoginTrials;
use super::state::{Applied, Completion, LEFT_BEHIND, State, remember, remember_logins};
use super::target_state::Retry;
use crate::credential::VersionId;

/// The seq of a report: the larger of last + 1 and Unix milliseconds.
pub(super) fn next_seq(state: &State, now: Timestamp) -> u64 {
    u64::try_from(now.as_millisecond()).unwrap_or(0).max(state.seq + 1)
}

pub(super) fn new_stamp(facts: &Facts, now: Timestamp) -> Stamp {
    let untouched = facts
        .targets
        .iter()
        .all(|t| !t.swapped && t.prepared.as_ref().is_none_or(|p| p.nothing_to_write && !p.swapped_before));
    Stamp {
        seq: next_seq(&facts.state, now),
        at: whole_seconds(now),
        outcome: if untouched && facts.state.applied.is_none() { Completion::Adopted } else { Completion::Confirmed },
    }
}

pub(super) fn commit(facts: &mut Facts, stamp: &Stamp, report: Report, now: Timestamp) {
    let Some(found) = facts.fetched.clone() else { return };
    let previous_username = facts.previous_username();
    let state = &mut facts.state;
    let in_use_before = state.begun().filter(|begun| begun.used).map(|begun| begun.username.clone());
    let earlier: Vec<String> = in_use_before.chain(state.found_first.clone()).collect();
    let used_before: Vec<String> =
        state.begun().filter(|begun| begun.used).map(|begun| begun.live_id.clone()).collect();
    remember_logins(&mut state.earlier_logins, used_before);
    state.found_first = None;
    let before = state.applied.take();
    let applied_before = before.iter().flat_map(|b| b.previous_username.iter().chain([&b.username])).cloned();
    remember(&mut state.earlier, applied_before.chain(earlier).chain(previous_username.clone()));
    let since = before.as_ref().filter(|b| b.id == found.id).map_or(now, |b| b.since);
    // What was in use and never confirmed is left behind as well.
    let begun = state.begun().filter(|b| b.used && b.source.as_ref() == Some(&found.identity)).map(|b| b.id.clone());
    let offered = facts.aside.as_ref().map(|aside| &aside.offered.id);
    let others = before.map(|b| b.id).into_iter().chain(begun);
    let left: Vec<VersionId> = others.filter(|id| *id != found.id && Some(id) != offered).collect();
    for left in left {
        state.left_behind.retain(|v| *v != left && *v != found.id);
        state.left_behind.push(left);
        let surplus = state.left_behind.len().saturating_sub(LEFT_BEHIND);
        state.left_behind.drain(..surplus);
    }
    if state.source.as_ref() != Some(&found.identity) {
        state.left_behind.clear();
    }
    state.source = Some(found.identity);
    state.applied =
        Some(Applied { id: found.id, username: found.username, previous_username, outcome: stamp.outcome, since });
    // Beside one that was put back, the other version goes on waiting, with all that was met by it.
    let waits = facts.aside.as_ref().map(|aside| aside.offered.id.clone());
    if waits.is_none() {
        state.candidate = None;
    }
    state.put_back = Retry::default();
    state.seq = stamp.seq;
    state.told = Some(report.clone());
    state.report = Some(report);
    (state.withdrawn, state.left) = (None, None);
    (state.refused, state.refusal) = (None, None);
    state.begun_elsewhere.clear();
    for t in &facts.targets {
        let durable = state.targets.entry(t.name.clone()).or_default();
        if t.activated {
            durable.reload_owed = None;
            durable.unread = None;
        }
        durable.begun.retain(|begun| Some(&begun.id) == waits.as_ref());
        if waits.is_none() {
            (durable.retry, durable.first_refused, durable.change) = (Retry::default(), None, None);
            durable.wanted = None;
        }
        // What the mail log told of was about the login that was there before.
        let of_before = |own: &OwnLoginTrials| t.swapped && own.refused.is_empty();
        durable.own_login = durable
            .own_login
            .take()
            .filter(|own| Some(&own.id) == state.applied.as_ref().map(|a| &a.id) && !of_before(own));
        if let Some(read_back) = &t.read_back {
            durable.held.get_or_insert_default().confirm(&read_back.held, t.swapped);
            let before = std::mem::replace(&mut durable.live_id, read_back.live_id.clone());
            durable.regional.clone_from(&read_back.regional);
            durable.endpoints = t.inspected.as_ref().map(Inspection::endpoints_beside_default).unwrap_or_default();
            durable.one_region = read_back.one_region;
            // Until the next confirmation the target has the new one itself.
            remember_logins(&mut state.earlier_logins, before.filter(|id| Some(id) != durable.live_id.as_ref()));
        }
    }
    match facts.aside {
        Some(_) => {
            go_on_with_offered(facts);
            facts.put_back.clear();
        }
        None => facts.committed = Some(stamp.outcome),
    }
}
