use relaykey_core::credential::proof;
use relaykey_core::report::HeldKeyId;
use serde_json::json;

use super::*;
use crate::refusal::Refusal;

/// Of SES's form: 32 random bytes after a version byte.
const PASSWORD: &str = "BMPPgbAHoFVbze1Ud0oA5uNdXRwUXUZ+qOwphGJbl/cS";
const OTHER: &str = "BMXhUYlu5Z3gSXVQORxlVa7XPaz91aGWdfHxvkOZdWZ2";
const KEY: &str = "AKIAIOSFODNN7EXAMPLE";
const OLD: &str = "AKIAI44QH8DHBEXAMPLE";

fn now() -> Timestamp {
    "2026-03-02T08:00:00Z".parse().unwrap()
}

fn passwords(version: &VersionId, _: &KeyId, region: Option<&str>) -> StoredPasswords {
    let known = version.as_str() == "v2" && region == Some("eu-west-1");
    StoredPasswords { passwords: known.then(|| Secret::new(PASSWORD.into())).into_iter().collect(), partly: false }
}

/// A confirmation of `v2`, proved with this password.
fn confirmed(host: &str, seq: u64, password: &str) -> Report {
    let mut report: Report = serde_json::from_value(json!({
        "schema": REPORT_V2, "id": "id", "seq": seq, "host_id": format!("id-{host}"), "host": host, "credential": "ses",
        "source": "arn", "version": "v2", "username": KEY, "previous_username": OLD, "at": "2026-03-02T07:00:00Z",
        "mode": "automatic", "agent": "relaykey/test", "outcome": "confirmed", "error": null, "approved_by": null,
        "targets": [{
            "name": "main", "kind": "postfix", "map": "hash:/t", "keys": [], "read_back": "postmap -q", "region": "eu-west-1",
            "remaining_old": [], "others": [], "incomplete": [], "proof": null, "no_proof": null,
            "evidence": {"endpoint": "e:587", "reply": "235", "at": "2026-03-02T06:59:59Z"},
        }],
    }))
    .unwrap();
    prove(&mut report, password);
    report
}

fn prove(report: &mut Report, password: &str) {
    let fields: Vec<_> = report.targets.iter().map(|target| report.proof_fields(target)).collect();
    for (target, fields) in report.targets.iter_mut().zip(fields) {
        target.proof = Some(proof(&Secret::new(password.into()), &fields).unwrap());
    }
}

/// Another report of that host, which replaces this one.
fn then(report: &Report, outcome: ReportOutcome) -> Report {
    let latest = (!matches!(outcome, ReportOutcome::Confirmed)).then(|| Box::new(report.clone()));
    Report { seq: report.seq + 1, outcome, targets: Vec::new(), latest, ..report.clone() }
}

fn written(principal: &str, report: Report) -> Written {
    let item = (principal.to_owned(), format!("ses#{}", report.host_id));
    Written { principal: principal.into(), item, at: now() - SignedDuration::from_mins(10), report }
}

fn judged(report: Report) -> Host {
    let fleet = fleet(&[written("p", report)], &Registry::default(), &passwords, now());
    assert_eq!((fleet.hosts.len(), fleet.gone.len()), (1, 0));
    fleet.hosts.into_iter().next().unwrap()
}

fn verdict_of(host: Host) -> Verdict {
    verdict(&host, &VersionId::new("v2"), &KeyId::new(KEY), now())
}

const TRUE: Verdict = Verdict::True { by_code: false };

#[test]
fn only_a_proof_made_with_the_published_password_counts() {
    let report = confirmed("mx1", 5, PASSWORD);
    assert_eq!(verdict_of(judged(report.clone())), TRUE);
    // Of v1 the lists are not proved, and it has no `others`.
    let mut of_v1 = Report { schema: REPORT_V1.into(), ..report.clone() };
    assert_eq!(verdict_of(judged(of_v1.clone())), Verdict::False);
    prove(&mut of_v1, PASSWORD);
    assert_eq!(verdict_of(judged(of_v1)), Verdict::TooOld);
    assert_eq!(verdict_of(judged(confirmed("mx1", 5, OTHER))), Verdict::False);
    // Each signed field: the proof is about this report, and no other.
    let changed: [fn(&mut Report); 13] = [
        |r| r.host = "mx2".into(),
        |r| r.host_id = "another".into(),
        |r| r.seq += 1,
        |r| r.at = "2026-03-02T07:00:01Z".into(),
        |r| r.outcome = ReportOutcome::Adopted,
        |r| r.targets[0].name = "second".into(),
        |r| r.source = "another".into(),
        |r| r.targets[0].evidence.at += SignedDuration::from_secs(1),
        |r| r.targets[0].held.remaining_old.push("[relay]:587".into()),
        |r| r.targets[0].held.others.push(other_key(OLD)),
        |r| r.targets[0].held.incomplete.push("proxy:mysql:/x".into()),
        |r| r.targets[0].held.others_count = Some(1),
        |r| r.schema = REPORT_V1.into(),
    ];
    for change in changed {
        let mut report = report.clone();
        change(&mut report);
        assert_eq!(verdict_of(judged(report.clone())), Verdict::False, "{report:?}");
    }
}

fn other_key(id: &str) -> HeldKeyId {
    HeldKeyId { id: id.into(), count: 1, places: Vec::new() }
}

#[test]
fn a_host_that_names_the_old_key_or_hides_what_it_counts_keeps_it() {
    let stops = |change: fn(&mut StillHeld)| {
        let mut report = confirmed("mx1", 5, PASSWORD);
        change(&mut report.targets[0].held);
        prove(&mut report, PASSWORD);
        let host = judged(report);
        assert_eq!(verdict_of(host.clone()), TRUE);
        let (version, key, old) = (VersionId::new("v2"), KeyId::new(KEY), KeyId::new(OLD));
        crate::retire::stops_of(&host, &version, &key, Some(&old), now())
    };
    let host = HostName::new("mx1");
    assert_eq!(stops(|_| {}), []);
    // A second account's key is nobody's trouble.
    assert_eq!(stops(|held| held.others.push(other_key("AKIAANOTHERACCOUNT12"))), []);
    let key = KeyId::new(OLD);
    assert_eq!(stops(|held| held.others.push(other_key(OLD))), [Refusal::OldKeyElsewhere { host: host.clone(), key }]);
    let entries = vec!["[relay]:587".to_owned()];
    assert_eq!(
        stops(|held| held.remaining_old.push("[relay]:587".into())),
        [Refusal::RemainingOld { host: host.clone(), entries }]
    );
    let tables = vec!["proxy:mysql:/x".to_owned()];
    assert_eq!(
        stops(|held| held.incomplete.push("proxy:mysql:/x".into())),
        [Refusal::Incomplete { host: host.clone(), tables }]
    );
    let hides: [fn(&mut StillHeld); 3] = [
        |held| held.remaining_old_count = Some(1),
        |held| held.others_count = Some(1),
        |held| held.incomplete_count = Some(1),
    ];
    for hides in hides {
        assert_eq!(stops(hides), [Refusal::Incomplete { host: host.clone(), tables: Vec::new() }]);
    }
}

/// Proved by nothing, and a warning all the same: a waiver does not cover it either.
#[test]
fn a_host_that_reports_the_old_key_in_use_keeps_it() {
    let (version, key, old) = (VersionId::new("v2"), KeyId::new(KEY), KeyId::new(OLD));
    let stops = |host: &Host| crate::retire::stops_of(host, &version, &key, Some(&old), now());
    let elsewhere = [Refusal::OldKeyElsewhere { host: HostName::new("mx1"), key: old.clone() }];
    let named = || Some(vec![OLD.into(), PASSWORD.into()]);
    let report = confirmed("mx1", 5, PASSWORD);
    for outcome in [ReportOutcome::Alive, ReportOutcome::Failed, ReportOutcome::Hello] {
        let host = judged(Report { in_use: named(), ..then(&report, outcome) });
        assert_eq!(verdict_of(host.clone()), TRUE);
        assert_eq!(host.lists.in_use, std::slice::from_ref(&old), "nothing else that stands there");
        assert_eq!(stops(&host), elsewhere, "{outcome:?}");
    }
    // The newest that tells it counts, and none from before the confirmation.
    let failed = Report { in_use: named(), ..then(&report, ReportOutcome::Failed) };
    assert_eq!(stops(&judged(Report { in_use: None, ..then(&failed, ReportOutcome::Alive) })), elsewhere);
    let cleaned = Report { in_use: Some(vec![KEY.into()]), ..then(&failed, ReportOutcome::Alive) };
    assert_eq!(stops(&judged(cleaned)), []);
    let mut anew = Report { latest: Some(Box::new(failed.clone())), ..confirmed("mx1", 9, PASSWORD) };
    prove(&mut anew, PASSWORD);
    assert_eq!(stops(&judged(anew)), []);
    // One that is waived, and has confirmed nothing.
    let waiver =
        Waiver { reason: "down for repair".into(), by: "arn".into(), until: now() + SignedDuration::from_hours(9) };
    let unproved = judged(Report { latest: None, ..failed });
    assert_eq!(stops(&Host { waiver: Some(waiver), ..unproved }), elsewhere);
}

#[test]
fn what_another_host_confirmed_proves_nothing_of_the_one_that_carries_it() {
    let of_another = confirmed("mx1", 5, PASSWORD);
    for outcome in [ReportOutcome::Alive, ReportOutcome::Failed, ReportOutcome::Hello, ReportOutcome::PendingApproval] {
        let carrier = |report: Report| Report { host: "mx2".into(), host_id: "id-mx2".into(), ..report };
        let host = judged(carrier(then(&of_another, outcome)));
        assert_eq!((host.name.as_str(), host.standing.is_some()), ("mx2", false), "{outcome:?}");
        // Also further in, and of another credential.
        let own = carrier(then(&of_another, outcome));
        assert!(judged(then(&own, ReportOutcome::Alive)).standing.is_none(), "{outcome:?}");
        let of_credential = Report { credential: "other".into(), ..then(&of_another, outcome) };
        assert!(judged(of_credential).standing.is_none(), "{outcome:?}");
    }
    // One that has been given another name since then is the same host.
    let renamed = Report { host: "mx9".into(), ..then(&of_another, ReportOutcome::Alive) };
    assert_eq!(verdict_of(judged(renamed)), TRUE);
}

#[test]
fn every_target_has_to_be_proved() {
    let mut report = confirmed("mx1", 5, PASSWORD);
    let second = ReportTarget { name: "second".into(), proof: None, ..report.targets[0].clone() };
    report.targets.push(second);
    assert_eq!(verdict_of(judged(report.clone())), Verdict::Missing(WhyMissing::NoProof));
    prove(&mut report, PASSWORD);
    assert_eq!(verdict_of(judged(report.clone())), TRUE);
    // No password is derived for that region.
    report.targets[1].region = Some("us-east-1".into());
    assert_eq!(verdict_of(judged(report.clone())), Verdict::Missing(WhyMissing::NoPassword));
    report.targets.clear();
    assert_eq!(verdict_of(judged(report)), Verdict::Missing(WhyMissing::NoProof));
}

#[test]
fn a_proof_of_a_kind_that_cannot_be_checked_is_none() {
    let mut report = confirmed("mx1", 5, PASSWORD);
    report.schema = "relaykey/report/v3".into();
    assert_eq!(verdict_of(judged(report)), Verdict::Missing(WhyMissing::UnknownKind));
}

#[test]
fn another_version_or_another_key_is_the_old_one() {
    let other = Report { version: "v1".into(), username: OLD.into(), ..confirmed("mx1", 5, PASSWORD) };
    let old = Verdict::Old { version: VersionId::new("v1"), key: KeyId::new(OLD) };
    assert_eq!(verdict_of(judged(other)), old);
    let other = Report { username: OLD.into(), ..confirmed("mx1", 5, PASSWORD) };
    assert_eq!(verdict_of(judged(other)), Verdict::Old { version: VersionId::new("v2"), key: KeyId::new(OLD) });
    // A secret in the place of a user name is not shown.
    let other = Report { username: PASSWORD.into(), ..confirmed("mx1", 5, PASSWORD) };
    assert!(!format!("{:?}", judged(other)).contains(PASSWORD));
}

#[test]
fn failures_take_nothing_back_and_withdrawals_do() {
    let report = confirmed("mx1", 5, PASSWORD);
    for outcome in [
        ReportOutcome::Failed,
        ReportOutcome::PendingApproval,
        ReportOutcome::Rejected,
        ReportOutcome::Alive,
        ReportOutcome::Hello,
    ] {
        assert_eq!(verdict_of(judged(then(&report, outcome))), TRUE, "{outcome:?}");
    }
    // A sign of life over a failure over a confirmation.
    assert_eq!(verdict_of(judged(then(&then(&report, ReportOutcome::Failed), ReportOutcome::Alive))), TRUE);
    for outcome in [ReportOutcome::Withdrawn, ReportOutcome::AppliedRefused] {
        let after = Report { in_use: Some(vec![OLD.into(), "postmaster".into()]), ..then(&report, outcome) };
        let host = judged(after.clone());
        let keys = host.took_back.as_ref().unwrap().keys.clone();
        let own = (outcome == ReportOutcome::AppliedRefused).then(|| KeyId::new(KEY));
        assert_eq!(keys, [KeyId::new(OLD)].into_iter().chain(own).collect::<Vec<_>>());
        assert_eq!(verdict_of(host), Verdict::TookBack);
        // It stands under a sign of life too, and is over with the next confirmation.
        assert_eq!(verdict_of(judged(then(&after, ReportOutcome::Alive))), Verdict::TookBack);
        let mut anew = Report { targets: report.targets.clone(), ..then(&after, ReportOutcome::Confirmed) };
        prove(&mut anew, PASSWORD);
        assert_eq!(verdict_of(judged(anew)), TRUE);
    }
    let failed = judged(then(&report, ReportOutcome::Failed));
    assert_eq!(failed.failed, Some(VersionId::new("v2")));
}

#[test]
fn a_withdrawal_is_not_forgotten_with_what_replaces_it() {
    let report = confirmed("mx1", 5, PASSWORD);
    let in_use = Some(vec![OLD.to_owned()]);
    // Whatever replaces it has no confirmation to carry on.
    let failed = Report { latest: None, in_use: in_use.clone(), ..then(&report, ReportOutcome::Failed) };
    let of_applied = judged(Report { of_applied: true, ..failed });
    let keys = vec![KeyId::new(OLD), KeyId::new(KEY)];
    assert_eq!(of_applied.took_back, Some(TookBack { why: WhyTakenBack::Withdrawn, keys }));
    assert_eq!(verdict_of(of_applied), Verdict::TookBack);
    let hello = judged(Report { latest: None, in_use: in_use.clone(), ..then(&report, ReportOutcome::Hello) });
    assert_eq!(hello.needs_back().collect::<Vec<_>>(), [&KeyId::new(OLD)]);
    assert_eq!(verdict_of(hello), Verdict::Unconfirmed);
    // Where it stands, a failure to put it back takes nothing back.
    let stands = judged(Report { of_applied: true, in_use, ..then(&report, ReportOutcome::Failed) });
    assert_eq!(stands.needs_back().count(), 0);
    assert_eq!(verdict_of(stands), TRUE);
}

#[test]
fn a_sign_of_life_with_a_proof_counts_for_as_long_as_it_is_true() {
    let report = confirmed("mx1", 5, PASSWORD);
    let mut alive = Report { targets: report.targets.clone(), ..then(&report, ReportOutcome::Alive) };
    prove(&mut alive, PASSWORD);
    assert_eq!(verdict_of(judged(alive.clone())), TRUE);
    // What has come into its tables since counts.
    assert_eq!(judged(alive.clone()).lists, Lists::default());
    let mut drifted = alive.clone();
    drifted.targets[0].held.others.push(other_key(OLD));
    prove(&mut drifted, PASSWORD);
    assert_eq!(judged(drifted.clone()).lists.others, [KeyId::new(OLD)]);
    assert_eq!(verdict_of(judged(drifted)), TRUE);
    prove(&mut alive, OTHER);
    assert_eq!(verdict_of(judged(alive)), Verdict::False);
}

#[test]
fn the_highest_number_of_an_installation_counts_wherever_it_stands() {
    let (first, second) = (confirmed("mx1", 5, PASSWORD), confirmed("mx1", 9, OTHER));
    for order in [[first.clone(), second.clone()], [second, first]] {
        let written = order.map(|report| written("p", report));
        let fleet = fleet(&written, &Registry::default(), &passwords, now());
        let [host] = fleet.hosts.try_into().unwrap();
        assert_eq!(verdict_of(host), Verdict::False);
    }
}

#[test]
fn who_left_or_was_removed_is_not_counted_and_who_is_listed_is() {
    let left = then(&confirmed("mx1", 5, PASSWORD), ReportOutcome::Left);
    let removed = confirmed("mx2", 5, PASSWORD);
    let removed_then = [(HostName::new("mx2"), by_time(now()))].into();
    let registry = Registry { removed: removed_then, listed: vec![HostName::new("mx3")], ..Registry::default() };
    let fleet = fleet(&[written("p", left), written("q", removed)], &registry, &passwords, now());
    assert_eq!(fleet.gone, [HostName::new("mx1"), HostName::new("mx2")]);
    assert_eq!(fleet.hosts.len(), 1);
    assert_eq!(verdict_of(fleet.hosts[0].clone()), Verdict::NeverHeard);
}

fn by_time(at: Timestamp) -> Removed {
    Removed { at, reports: None }
}

/// By the numbers of what was there, and not by the times that hosts write.
#[test]
fn a_host_whose_clock_lags_is_there_when_it_writes_after_its_removal() {
    let late = Written { at: now() - SignedDuration::from_mins(4), ..written("p", confirmed("mx1", 6, PASSWORD)) };
    let host_id = late.report.host_id.clone();
    let counted = |reports: BTreeMap<String, u64>| {
        let removed = [(HostName::new("mx1"), Removed { at: now(), reports: Some(reports) })].into();
        let registry = Registry { removed, ..Registry::default() };
        fleet(std::slice::from_ref(&late), &registry, &passwords, now()).hosts.len()
    };
    assert_eq!(counted([(host_id.clone(), 6)].into()), 0, "it was there");
    assert_eq!(counted([(host_id, 5)].into()), 1);
    assert_eq!(counted(BTreeMap::new()), 1, "nothing was there");
}

#[test]
fn another_login_in_use_takes_the_confirmation_back() {
    let told = |change: fn(&mut Report)| {
        let mut alive = then(&confirmed("mx1", 5, PASSWORD), ReportOutcome::Alive);
        alive.in_use = Some(vec!["AKIAIOSFODNN7OTHER01".into()]);
        change(&mut alive);
        fleet(&[written("p", alive)], &Registry::default(), &passwords, now()).hosts.remove(0)
    };
    assert_eq!(verdict_of(told(|_| {})), TRUE);
    let another = told(|alive| alive.another_login = true);
    let took_back = another.took_back.clone().unwrap();
    assert_eq!((took_back.why, took_back.keys), (WhyTakenBack::Withdrawn, vec![KeyId::new("AKIAIOSFODNN7OTHER01")]));
    assert_eq!(verdict_of(another), Verdict::TookBack);
}

#[test]
fn what_is_half_done_counts_with_what_tables_hold() {
    let mut failed = then(&confirmed("mx1", 5, PASSWORD), ReportOutcome::Failed);
    failed.half_done = vec![OLD.into()];
    let host = fleet(&[written("p", failed)], &Registry::default(), &passwords, now()).hosts.remove(0);
    assert_eq!(host.lists.others, [KeyId::new(OLD)]);
}

/// A person said it is gone, and it is not: what it wrote later counts, as the old key that it names.
#[test]
fn a_removal_covers_what_was_written_before_it() {
    let removed = |at| Registry { removed: [(HostName::new("mx1"), by_time(at))].into(), ..Registry::default() };
    let one = written("p", Report { version: "v1".into(), username: OLD.into(), ..confirmed("mx1", 5, PASSWORD) });
    let of = |at| fleet(std::slice::from_ref(&one), &removed(at), &passwords, now());
    assert_eq!((of(one.at).hosts.len(), of(one.at).gone), (0, vec![HostName::new("mx1")]));
    let back = of(one.at - SignedDuration::from_secs(1));
    assert_eq!((back.hosts.len(), back.gone.len()), (1, 0));
    assert!(matches!(verdict_of(back.hosts[0].clone()), Verdict::Old { .. }));
    // Set up anew under its name: what was removed is no second one.
    let before = Written { at: now() - SignedDuration::from_hours(1), ..one.clone() };
    let anew = written("p", Report { host_id: "anew".into(), ..confirmed("mx1", 1, PASSWORD) });
    let both = fleet(&[before.clone(), anew], &removed(before.at), &passwords, now());
    assert_eq!((both.hosts.len(), both.gone.len()), (1, 0));
    assert!(!both.hosts[0].name_twice && !both.hosts[0].identity_shared);
}

fn entries(entry: crate::hosts::RegistryEntry) -> BTreeMap<String, crate::hosts::Known> {
    [("mx1".to_owned(), crate::hosts::Known { entry, text: String::new() })].into()
}

/// As it was written before a removal had a time: it covers nothing of what is there.
#[test]
fn a_removal_without_a_time_covers_nothing_new() {
    let entry = serde_json::from_str(r#"{"listed":false,"removed":true,"shared":false}"#).unwrap();
    let read = crate::hosts::Read { entries: entries(entry), ..crate::hosts::Read::default() };
    let one = [written("p", confirmed("mx1", 5, PASSWORD))];
    assert_eq!(fleet(&one, &read.registry(), &passwords, now()).hosts.len(), 1);
    // An item that makes no sense is somebody's who is there, too, unless it was there already.
    let at = now() - SignedDuration::from_mins(10);
    let unreadable = |removed_at| {
        let entry = crate::hosts::RegistryEntry { removed: true, removed_at, ..Default::default() };
        let (entries, unreadable) = (entries(entry), vec![(HostName::new("mx1"), at)]);
        let read = crate::hosts::Read { entries, unreadable, ..Default::default() };
        fleet(&[], &read.registry(), &passwords, now()).hosts.len()
    };
    assert_eq!((unreadable(Some(at)), unreadable(Some(at - SignedDuration::from_secs(1)))), (0, 1));
    let timed = format!(r#"{{"removed":true,"removed_at":"{}"}}"#, now());
    let entry = serde_json::from_str(&timed).unwrap();
    let read = crate::hosts::Read { entries: entries(entry), ..crate::hosts::Read::default() };
    assert_eq!(fleet(&one, &read.registry(), &passwords, now()).hosts.len(), 0);
}

#[test]
fn a_name_that_two_write_under_and_a_principal_that_two_write_with_are_told() {
    let (one, mut clone) = (confirmed("mx1", 5, PASSWORD), confirmed("mx1", 6, PASSWORD));
    clone.host_id = "another".into();
    let twice = fleet(&[written("p", one.clone()), written("q", clone)], &Registry::default(), &passwords, now());
    assert!(twice.hosts.iter().all(|host| host.name_twice && !host.identity_shared));
    let shared = [written("p", one.clone()), written("p", confirmed("mx2", 5, PASSWORD))];
    let told = fleet(&shared, &Registry::default(), &passwords, now());
    assert!(told.hosts.iter().all(|host| host.identity_shared && !host.name_twice));
    let accepted = Registry { shared: vec!["p".into()], ..Registry::default() };
    assert!(fleet(&shared, &accepted, &passwords, now()).hosts.iter().all(|host| !host.identity_shared));
    // Another principal than the one that owns the name.
    let owners = [(HostName::new("mx1"), "p".to_owned())].into();
    let registry = Registry { owners, ..Registry::default() };
    assert!(fleet(&[written("q", one)], &registry, &passwords, now()).hosts[0].name_twice);
}

#[test]
fn who_is_silent_or_dates_ahead_proves_nothing() {
    let written = |at| Written { at, ..written("p", confirmed("mx1", 5, PASSWORD)) };
    let judged = |one: Written| fleet(&[one], &Registry::default(), &passwords, now()).hosts.remove(0);
    let fifty = now() - SignedDuration::from_hours(51);
    assert_eq!(verdict_of(judged(written(fifty))), Verdict::Stale { since: fifty });
    assert_eq!(verdict_of(judged(written(now() - SignedDuration::from_hours(50)))), TRUE);
    let mut due = written(now() - SignedDuration::from_hours(50));
    due.report.alive_due = Some(now() - SignedDuration::from_hours(25));
    assert!(matches!(verdict_of(judged(due)), Verdict::Stale { .. }));
    let mut ahead = written(now());
    ahead.report.at = "2026-03-02T08:05:01Z".into();
    prove(&mut ahead.report, PASSWORD);
    assert_eq!(verdict_of(judged(ahead)), Verdict::Clock);
}

/// Whoever can write one host's reports is not to stop every command, nor to be heard of for ever.
#[test]
fn no_time_in_a_report_is_too_far_away() {
    let last: Timestamp = "9999-12-30T12:00:00Z".parse().unwrap();
    let judged = |one: Written| fleet(&[one], &Registry::default(), &passwords, now()).hosts.remove(0);
    let of = |change: fn(&mut Report, Timestamp)| {
        let mut one = written("p", confirmed("mx1", 5, PASSWORD));
        change(&mut one.report, last);
        prove(&mut one.report, PASSWORD);
        one
    };
    let due = of(|report, last| report.alive_due = Some(last));
    assert_eq!(judged(due.clone()).alive_due, Some(due.at + SignedDuration::from_hours(7 * 24)));
    let dead = Written { at: now() - SignedDuration::from_hours(8 * 24 + 1), ..due };
    assert!(matches!(verdict_of(judged(dead)), Verdict::Stale { .. }));
    // The item itself is dated by its host.
    let ahead = judged(Written { at: last, ..of(|_, _| {}) });
    assert_eq!((ahead.heard, verdict_of(ahead)), (Some(now()), Verdict::Clock));
    assert_eq!(verdict_of(judged(of(|report, last| report.at = last.to_string()))), Verdict::Clock);
    let poll = judged(of(|report, _| report.poll_s = Some(u32::MAX))).poll;
    assert_eq!(poll, Some(SignedDuration::from_hours(24)));
    let host = Host { heard: Some(Timestamp::MAX), ..Host::never_heard(HostName::new("mx1")) };
    assert!(!is_silent(&host, now()) && !is_silent(&Host { alive_due: host.heard, ..host.clone() }, now()));
    for at in [Timestamp::MIN, Timestamp::MAX] {
        let mut one = of(|report, _| report.lease_s = Some(u32::MAX));
        (one.at, one.report.alive_due) = (at, Some(at));
        one.report.at = at.to_string();
        fleet(&[one], &Registry::default(), &passwords, now())
            .hosts
            .into_iter()
            .for_each(|host| drop(verdict_of(host)));
    }
}

#[test]
fn a_host_with_a_lease_is_gone_when_it_was_silent_for_twice_as_long() {
    let of = |minutes| {
        let report = Report { lease_s: Some(3600), ..confirmed("mx1", 5, PASSWORD) };
        Written { at: now() - SignedDuration::from_mins(minutes), ..written("p", report) }
    };
    let of_fleet = |written: &[Written]| fleet(written, &Registry::default(), &passwords, now());
    let there = of_fleet(&[of(120)]);
    assert_eq!((there.hosts.len(), there.gone.len()), (1, 0));
    assert_eq!((of_fleet(&[of(121)]).hosts.len(), of_fleet(&[of(121)]).gone), (0, vec![HostName::new("mx1")]));
    // Who comes after it under its name, or with its principal, is alone there.
    let next = Report { host_id: "next".into(), ..confirmed("mx1", 6, PASSWORD) };
    let after = of_fleet(&[of(121), written("p", next)]);
    assert_eq!((after.hosts.len(), after.gone.len()), (1, 0));
    assert!(!after.hosts[0].name_twice && !after.hosts[0].identity_shared);
    // Somebody named it: it is missed.
    let registry = Registry { listed: vec![HostName::new("mx1")], ..Registry::default() };
    assert_eq!(verdict_of(fleet(&[of(121)], &registry, &passwords, now()).hosts.remove(0)), Verdict::NeverHeard);
}

/// The number of a version is the same in two parameters, and the password behind it each one's own: the host has that of the one
/// that it reads.
#[test]
fn a_proof_counts_with_the_password_of_any_place_that_has_that_version() {
    let passwords = |partly| {
        move |version: &VersionId, _: &KeyId, _: Option<&str>| {
            let known = [OTHER, PASSWORD].map(|password| Secret::new(password.into()));
            StoredPasswords { passwords: known.into_iter().filter(|_| version.as_str() == "v2").collect(), partly }
        }
    };
    let proved = |password: &str, partly| {
        let written = [written("p", confirmed("mx1", 1, password))];
        let mut fleet = fleet(&written, &Registry::default(), &passwords(partly), now());
        fleet.hosts.remove(0).standing.map(|standing| standing.proof)
    };
    let of_no_place = relaykey_core::credential::ses_smtp_password(&Secret::new("of no place".into()), "eu-west-1");
    let of_no_place = of_no_place.expose().to_owned();
    assert_eq!(proved(PASSWORD, false), Some(Proved::True));
    assert_eq!(proved(OTHER, false), Some(Proved::True));
    assert_eq!(proved(&of_no_place, false), Some(Proved::False));
    // It may be that of the place which could not be read: nobody is called a forger for that.
    assert_eq!(proved(&of_no_place, true), Some(Proved::Missing(WhyMissing::NoPassword)));
}

/// Where nothing vouches for a writer: a clone of a machine, or whoever writes another one's report into an item of theirs.
#[test]
fn one_installation_in_two_items_is_two_hosts_and_is_told() {
    let item = |name: &str, report: Report| Written {
        principal: report.host_id.clone(),
        item: (format!("/r/ses/{name}"), String::new()),
        ..written("", report)
    };
    let moved = confirmed("mx1", 9, PASSWORD);
    let mut clone = Report { host: "mx2".into(), seq: 5, version: "v1".into(), username: OLD.into(), ..moved.clone() };
    prove(&mut clone, OTHER);
    let both = [item("mx1", moved.clone()), item("mx2", clone)];
    let told = fleet(&both, &Registry::default(), &passwords, now()).hosts;
    assert_eq!(told.len(), 2, "{told:?}");
    assert!(told.iter().all(|host| host.identity_shared));
    assert!(matches!(verdict_of(told[1].clone()), Verdict::Old { .. }));
    // Its own item says that it failed, and another one that it has confirmed.
    let failed = Report { seq: 3, latest: None, ..then(&moved, ReportOutcome::Failed) };
    let told = fleet(&[item("mx1", failed), item("mx9", moved)], &Registry::default(), &passwords, now()).hosts;
    assert_eq!(told.len(), 2);
    assert!(told.iter().all(|host| host.name_twice && host.identity_shared));
}

/// It vanished, and somebody else says `left` in its name, or lets a lease of theirs run out.
#[test]
fn nobody_leaves_in_the_name_of_a_host_that_another_owns() {
    let left = then(&confirmed("mx1", 5, PASSWORD), ReportOutcome::Left);
    let mut expired = written("q", Report { lease_s: Some(60), ..confirmed("mx1", 5, PASSWORD) });
    expired.at = now() - SignedDuration::from_mins(3);
    let owner = |owner: &str| Registry { owners: [(HostName::new("mx1"), owner.into())].into(), ..Registry::default() };
    for one in [written("q", left), expired] {
        let of = |registry: &Registry| fleet(std::slice::from_ref(&one), registry, &passwords, now());
        assert_eq!(of(&owner("p")), Fleet::default());
        for registry in [owner("q"), Registry::default()] {
            assert_eq!(of(&registry).gone, [HostName::new("mx1")]);
        }
    }
}
