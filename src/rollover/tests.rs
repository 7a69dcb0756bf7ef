//! Decisions as a transcript, and as a model: every outcome of every step, with invariants.

mod held;
mod lab;
mod model;
mod people;
mod side_by_side;
mod told;

use std::collections::HashMap;
use std::hash::{Hash, Hasher};

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use relaykey_core::report::{REPORT_V1, REPORT_V2};

use super::drift::{HEALS, denied};
use super::facts::{UnderWay, at_rest, is_in_use};
use super::failures::target_failed;
use super::fetched::fetched;
use super::people::REJECTED;
use super::*;
use crate::config::{self, Drift, IfAppliedDies, Mode};
use crate::credential::{SourceIdentity, VersionId, VersionOrder};
use crate::fault::{Class, Failure, Fault};

const NOW: i64 = 1_800_000_000;

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(NOW + seconds).unwrap()
}

fn policy(targets: usize) -> Policy {
    let target = |i: usize| TargetPolicy {
        name: format!("t{i}"),
        drift: Drift::Heal,
        write: true,
        endpoint: "email-smtp.us-east-1.amazonaws.com".into(),
        region: None,
        propagation: SignedDuration::from_secs(300),
        retry: SignedDuration::from_secs(10),
        logs_in_as: i,
    };
    Policy {
        targets: (0..targets).map(target).collect(),
        ordered: true,
        mode: Mode::Automatic,
        zone: TimeZone::UTC,
        probe: false,
        gives_older: true,
        lease: None,
    }
}

/// As [`policy`], and a person lets every version go.
fn manual(targets: usize) -> Policy {
    Policy { mode: Mode::Manual { window: None, if_applied_dies: IfAppliedDies::Wait }, ..policy(targets) }
}

fn accept(version: &str) -> Wake {
    Wake { accept_version: Some(version.into()), ..Wake::default() }
}

/// A version that was seen `at` this time, and nothing more.
fn candidate_of(id: VersionId, first_seen: Timestamp) -> Candidate {
    Candidate {
        id,
        username: "AKIA".into(),
        first_seen,
        accepted: false,
        probed: None,
        held: None,
        approval: None,
        not_newer: false,
    }
}

/// One entry of a table would change.
fn change() -> PlannedChange {
    PlannedChange { diff: vec!["[e]:587 AKIA1:… becomes AKIA2:…".into()], ..PlannedChange::default() }
}

fn source(arn: &str) -> SourceIdentity {
    SourceIdentity { arn: arn.into(), created: None }
}

fn version(n: i64) -> VersionId {
    VersionId { version: format!("v{n}"), order: Some(VersionOrder { at: at(n - 1000), number: n }) }
}

/// Version `n`, in place without having been committed.
fn swapped(n: i64) -> Swapped {
    Swapped {
        id: version(n),
        source: Some(source("arn:a")),
        username: Some(format!("AKIA{n}")),
        live_id: format!("live{n}"),
    }
}

fn found(n: i64, seconds: i64) -> SourceVersion {
    SourceVersion { identity: source("arn:a"), id: version(n), username: format!("AKIA{n}"), at: at(seconds) }
}

/// A state in which version `n` is applied on every target.
fn applied(policy: &Policy, n: i64) -> State {
    let mut state = State::new("ses");
    state.source = Some(source("arn:a"));
    state.applied = Some(Applied {
        id: version(n),
        username: format!("AKIA{n}"),
        previous_username: None,
        outcome: Completion::Confirmed,
        since: at(-500),
    });
    for t in &policy.targets {
        state.targets.insert(
            t.name.clone(),
            TargetState {
                live_id: Some(format!("live{n}")),
                in_use: Some(uses(n)),
                mail_server: Some(MailServer::Runs),
                held: Some(nothing_besides()),
                ..TargetState::default()
            },
        );
    }
    state
}

/// It was confirmed that the tables hold nothing but the login in use.
fn nothing_besides() -> HeldBeside {
    let mut held = HeldBeside::default();
    held.confirm(&HeldFacts::default(), false);
    held
}

/// Version `n` was looked up not long ago.
fn uses(n: i64) -> InUse {
    InUse { at: at(-10), usernames: vec![format!("AKIA{n}")], live_id: Some(format!("live{n}")) }
}

fn holds(n: i64) -> Inspection {
    Inspection {
        holds: Some(format!("live{n}")),
        username: Some(format!("AKIA{n}")),
        first_live_id: Some(format!("live{n}")),
        in_use: Some(format!("live{n}")),
        usernames: vec![format!("AKIA{n}")],
        endpoints: Vec::new(),
        reload_owed: None,
        unread: None,
        swapped: None,
        mail_server: Some(MailServer::Runs),
        held: HeldFacts::default(),
    }
}

fn failure(temporary: bool) -> Failure {
    Fault::new(Class::Io, "broken", "mend it").temporary_if(temporary).at(at(0))
}

fn evidence() -> Evidence {
    Evidence { endpoint: "e:587".into(), reply: "235".into(), at: at(0) }
}

fn read_back(n: i64) -> ReadBackFacts {
    ReadBackFacts {
        kind: "postfix".into(),
        map: "hash:/etc/postfix/sasl_passwd".into(),
        keys: vec!["[e]:587".into()],
        how: "postmap -q".into(),
        tables: vec![],
        held: HeldFacts::default(),
        live_id: Some(format!("live{n}")),
        region: None,
        regional: Vec::new(),
        one_region: false,
        proof: Err("none".into()),
        code: None,
    }
}

/// The same with a proof.
fn proved(n: i64) -> ReadBackFacts {
    ReadBackFacts { proof: Ok(format!("proof of {n}")), ..read_back(n) }
}

/// A report with this number and nothing else.
pub(crate) fn report(seq: u64) -> Report {
    Report {
        schema: String::new(),
        id: String::new(),
        seq,
        host_id: String::new(),
        host: String::new(),
        credential: "ses".into(),
        source: String::new(),
        version: String::new(),
        username: String::new(),
        previous_username: None,
        at: String::new(),
        mode: "".into(),
        agent: String::new(),
        outcome: "".into(),
        targets: vec![],
        error: None,
        waiting: None,
        in_use: None,
        version_in_use: None,
        another_login: false,
        half_done: Vec::new(),
        of_applied: false,
        mail_server: Some(MailServer::Runs),
        approved_by: None,
        labels: Vec::new(),
        poll_s: None,
        alive_due: None,
        lease_s: None,
        latest: None,
    }
}

/// Decides, and feeds the outcome that `world` gives, until the step is one that `world` has no outcome for.
fn drive(
    facts: &mut Facts,
    policy: &Policy,
    mut now: Timestamp,
    mut world: impl FnMut(&Step) -> Option<Outcome>,
) -> (Vec<&'static str>, Step, Timestamp) {
    let mut steps = Vec::new();
    loop {
        let (step, _) = decide(facts, policy, now);
        assert!(steps.len() < 200, "no end: {steps:?}");
        let outcome = match world(&step) {
            Some(outcome) => outcome,
            None => return (steps, step, now),
        };
        let id = begin(facts, policy, &step);
        steps.push(step.word());
        if let Step::Wait { until } = step {
            now = now.max(until);
        }
        assert!(absorb(facts, policy, id, &step, outcome, now, 0.5));
    }
}

/// All goes well: the source gives `found`, targets hold `held`.
fn good(found: SourceVersion, held: Inspection, nothing_to_write: bool) -> impl FnMut(&Step) -> Option<Outcome> {
    move |step| {
        Some(match step {
            Step::Inspect { .. } => Outcome::Inspected(held.clone()),
            Step::Fetch => Outcome::Fetched(found.clone()),
            Step::FetchApplied => Outcome::Fetched(super::tests::found(1, 0)),
            Step::Verify { .. } | Step::VerifyApplied { .. } => Outcome::Accepted(evidence()),
            Step::Probe { .. } => Outcome::Probed,
            Step::Hold | Step::Release { .. } | Step::Reject | Step::Leave => Outcome::Noted,
            Step::Preview { .. } => {
                let change = if nothing_to_write { PlannedChange::default() } else { change() };
                Outcome::Previewed(change, "live2".into())
            }
            Step::Prepare { .. } => Outcome::Prepared(StagedFacts {
                nothing_to_write,
                swapped_before: false,
                live_id: "live2".into(),
                goes_live: None,
            }),
            Step::Swap { .. } => Outcome::Swapped,
            Step::Activate { .. } => Outcome::Activated,
            Step::ReadBack { .. } => Outcome::ReadBack(read_back(2)),
            Step::Attest { .. } => Outcome::ReadBack(proved(2)),
            Step::Undo { .. } => Outcome::Undone,
            Step::Discard { .. } => Outcome::Discarded,
            Step::Refrain { .. } => Outcome::Refrained,
            Step::Commit { stamp } => Outcome::Committed(Box::new(report(stamp.seq))),
            Step::Wait { .. } | Step::Await | Step::End => return None,
        })
    }
}

#[test]
fn a_plain_rollover_goes_straight_down() {
    let policy = policy(2);
    let mut facts = Facts::new(applied(&policy, 1), &policy, Wake::default(), false);
    let (steps, last, _) = drive(&mut facts, &policy, at(0), good(found(2, 0), holds(1), false));
    let expected = [
        "inspect",
        "inspect",
        "fetch",
        "verify",
        "verify",
        "prepare",
        "prepare",
        "swap",
        "activate",
        "swap",
        "activate",
        "read-back",
        "read-back",
        "commit",
    ];
    assert_eq!(steps, expected);
    assert_eq!(last, Step::End);
    let state = &facts.state;
    let applied = state.applied.as_ref().unwrap();
    assert_eq!((applied.id.clone(), applied.outcome), (version(2), Completion::Confirmed));
    assert_eq!(applied.previous_username.as_deref(), Some("AKIA1"));
    assert_eq!(state.left_behind, [version(1)]);
    assert_eq!(state.candidate, None);
    assert_eq!(state.seq, u64::try_from(at(0).as_millisecond()).unwrap());
}

#[test]
fn one_login_serves_targets_that_log_in_alike() {
    let mut policy = policy(2);
    policy.targets[1].logs_in_as = 0;
    let mut facts = Facts::new(applied(&policy, 1), &policy, Wake::default(), false);
    let (steps, ..) = drive(&mut facts, &policy, at(0), good(found(2, 0), holds(1), false));
    assert_eq!(steps.iter().filter(|s| **s == "verify").count(), 1);
}

/// Nothing is put in place for an endpoint that has not taken it.
#[test]
fn where_mail_goes_elsewhere_meanwhile_that_is_asked_too() {
    for (then, logins) in [(vec![0], 0), (vec![0, 1], 1)] {
        let policy = policy(1);
        let mut facts = Facts::new(applied(&policy, 1), &policy, Wake::default(), false);
        let to_prepare = |facts: &mut Facts, endpoints: &[usize]| {
            let mut world = good(found(2, 0), holds(1), false);
            let (steps, last, _) = drive(facts, &policy, at(0), |step| match step {
                Step::Inspect { .. } => {
                    Some(Outcome::Inspected(Inspection { endpoints: endpoints.to_vec(), ..holds(1) }))
                }
                Step::Prepare { .. } => None,
                step => world(step),
            });
            assert!(matches!(last, Step::Prepare { .. }), "{steps:?}");
            steps.iter().filter(|step| **step == "verify").count()
        };
        assert_eq!(to_prepare(&mut facts, &[0]), 1);
        facts.targets[0].must_look = true;
        assert_eq!(to_prepare(&mut facts, &then), logins);
    }
}

/// As after a further region was added to the configuration: its entries have another password, and nobody has changed them.
#[test]
fn where_mail_goes_to_more_endpoints_nobody_has_changed_a_login() {
    for (username, endpoints, drifts) in
        [("AKIA1", vec![0, 1], false), ("AKIA1", vec![0], true), ("AKIA9", vec![0, 1], true)]
    {
        let policy = policy(1);
        let mut facts = Facts::new(applied(&policy, 1), &policy, Wake::default(), false);
        let more = Inspection {
            holds: Some("of both".into()),
            in_use: Some("of both".into()),
            username: Some(username.into()),
            usernames: vec![username.into()],
            endpoints,
            ..holds(1)
        };
        let mut world = good(found(1, 0), more, false);
        let (steps, ..) = drive(&mut facts, &policy, at(0), |step| match step {
            Step::ReadBack { .. } => {
                Some(Outcome::ReadBack(ReadBackFacts { live_id: Some("of both".into()), ..read_back(1) }))
            }
            step => world(step),
        });
        let told =
            facts.news.iter().any(|news| news.outcome == ReportOutcome::Withdrawn) || facts.state.withdrawn.is_some();
        let heals = facts.state.targets["t0"].heals.len();
        assert_eq!(told || heals > 0, drifts, "{username} {steps:?} {:?}", facts.news);
        if !drifts {
            assert!(steps.contains(&"verify") && steps.contains(&"commit"), "{steps:?}");
            assert_eq!(facts.state.targets["t0"].endpoints, [0, 1]);
        }
    }
}

#[test]
fn nothing_new_and_nothing_drifted_logs_in_nowhere() {
    let policy = policy(1);
    let mut facts = Facts::new(applied(&policy, 1), &policy, Wake::default(), false);
    let (steps, last, _) = drive(&mut facts, &policy, at(0), good(found(1, 0), holds(1), true));
    assert_eq!((steps, last), (vec!["inspect", "fetch"], Step::End));
}

#[test]
fn day_one_adopts_what_is_in_use() {
    let policy = policy(1);
    let mut facts = Facts::new(State::new("ses"), &policy, Wake::default(), false);
    let (steps, ..) = drive(&mut facts, &policy, at(0), good(found(2, 0), holds(2), true));
    assert_eq!(steps, ["inspect", "fetch", "verify", "prepare", "activate", "read-back", "commit"]);
    assert_eq!(facts.state.applied.as_ref().unwrap().outcome, Completion::Adopted);
    assert_eq!(facts.previous_username(), None);
}

#[test]
fn a_first_version_that_is_not_in_use_yet_is_a_confirmed_rollover() {
    let policy = policy(1);
    let mut facts = Facts::new(State::new("ses"), &policy, Wake::default(), false);
    drive(&mut facts, &policy, at(0), good(found(2, 0), holds(1), false));
    let applied = facts.state.applied.as_ref().unwrap();
    assert_eq!((applied.outcome, applied.previous_username.as_deref()), (Completion::Confirmed, Some("AKIA1")));
}

#[test]
fn a_refusal_is_not_yet_within_propagation_and_final_after_it() {
    let policy = policy(1);
    let mut facts = Facts::new(applied(&policy, 1), &policy, Wake::default(), false);
    let mut waits = 0;
    let mut go = good(found(2, 0), holds(1), false);
    let (steps, last, now) = drive(&mut facts, &policy, at(0), |step| match step {
        Step::Verify { .. } => {
            Some(Outcome::Refused { endpoint: None, reply: "535 Authentication Credentials Invalid".into() })
        }
        Step::Wait { .. } if waits < 30 => {
            waits += 1;
            Some(Outcome::Waited)
        }
        step => go(step),
    });
    // Every 10 s for 300 s from the first refusal on, and once more when that time is over.
    assert_eq!(steps.iter().filter(|s| **s == "verify").count(), 31);
    assert_eq!(now, at(300));
    assert!(steps.iter().all(|s| !["prepare", "swap"].contains(s)), "{steps:?}");
    let state = &facts.state.targets["t0"];
    let failure = state.retry.failure.as_ref().unwrap();
    assert_eq!((failure.class.word(), failure.temporary), ("refused", false));
    assert!(failure.what.contains("535 Authentication Credentials Invalid"), "{}", failure.what);
    assert!(matches!(last, Step::Wait { until } if until >= at(300 + 90)), "{last:?}");
    // A new version starts with a clean slate.
    let mut facts = Facts::new(facts.state.clone(), &policy, Wake::default(), false);
    let (_, last, _) = drive(&mut facts, &policy, at(100_000), good(found(3, 100_000), holds(1), false));
    assert_eq!((last, facts.state.applied.unwrap().id), (Step::End, version(3)));
}

#[test]
fn a_key_that_ses_learns_of_late_is_taken_then() {
    let policy = policy(1);
    let mut facts = Facts::new(applied(&policy, 1), &policy, Wake::default(), false);
    let mut refusals = 2;
    let mut go = good(found(2, 0), holds(1), false);
    let (_, last, now) = drive(&mut facts, &policy, at(0), |step| match step {
        Step::Verify { .. } if refusals > 0 => {
            refusals -= 1;
            Some(Outcome::Refused { endpoint: None, reply: "535".into() })
        }
        Step::Wait { .. } => Some(Outcome::Waited),
        step => go(step),
    });
    assert_eq!((last, now), (Step::End, at(20)));
    assert_eq!(facts.state.applied.unwrap().id, version(2));
}

#[test]
fn a_version_left_behind_is_not_taken_again_by_itself() {
    let policy = policy(1);
    let mut state = applied(&policy, 2);
    state.left_behind.push(version(1));
    let run = |wake: Wake| {
        let mut facts = Facts::new(state.clone(), &policy, wake, false);
        let (steps, last, _) = drive(&mut facts, &policy, at(0), good(found(1, 0), holds(2), false));
        assert_eq!(last, Step::End);
        (steps, facts)
    };
    let (steps, facts) = run(Wake::default());
    assert_eq!(steps, ["inspect", "fetch"]);
    assert_eq!(facts.failures()[0].1.class, Class::LeftBehind);
    assert_eq!(facts.state.applied, state.applied);
    // On purpose it is, and only the version that was named.
    let (_, facts) = run(accept("v1"));
    assert_eq!(facts.state.applied.as_ref().unwrap().id, version(1));
    assert_eq!(facts.state.left_behind, [version(2)]);
    let (_, facts) = run(accept("v7"));
    assert_eq!(facts.failures()[0].1.class, Class::NotTheNamedVersion);
}

#[test]
fn a_version_that_is_not_newer_needs_a_second_read_a_minute_later() {
    let policy = policy(1);
    let mut facts = Facts::new(applied(&policy, 5), &policy, Wake::default(), false);
    let mut reads = Vec::new();
    let clock = std::cell::Cell::new(0);
    let mut go = good(found(2, 0), holds(5), false);
    let (steps, ..) = drive(&mut facts, &policy, at(0), |step| match step {
        Step::Wait { until } => {
            clock.set(until.as_second() - NOW);
            Some(Outcome::Waited)
        }
        Step::Fetch => {
            reads.push(clock.get());
            Some(Outcome::Fetched(found(2, clock.get())))
        }
        step => go(step),
    });
    assert_eq!(reads, [0, 60]);
    assert_eq!(steps[..4], ["inspect", "fetch", "wait", "fetch"]);
    assert_eq!(facts.state.applied.unwrap().id, version(2));
}

#[test]
fn a_recreated_source_is_a_new_one() {
    let policy = policy(1);
    let mut state = applied(&policy, 5);
    state.left_behind.push(version(1));
    let mut facts = Facts::new(state, &policy, Wake::default(), false);
    let mut again = found(1, 0);
    again.identity = source("arn:b");
    drive(&mut facts, &policy, at(0), good(again, holds(5), false));
    assert_eq!(facts.state.applied.as_ref().unwrap().id, version(1));
    assert_eq!(facts.state.source, Some(source("arn:b")));
    assert!(facts.state.left_behind.is_empty());
}

#[test]
fn an_approval_is_of_the_version_that_was_seen_and_not_of_one_with_its_number() {
    let policy = manual(1);
    for named in [None, Some("v2".to_owned())] {
        for anew in [false, true] {
            let mut state = applied(&policy, 1);
            let held = Some(HeldVersion { since: at(-100), next: None });
            state.candidate = Some(Candidate { held, ..candidate_of(version(2), at(-100)) });
            let approve = Approve { version: named.clone(), by: "root".into() };
            let mut facts = Facts::new(state, &policy, Wake { approve: Some(approve), ..Wake::default() }, true);
            let mut there = found(2, 0);
            if anew {
                // Deleted, and made again with another value.
                there.id.order = Some(VersionOrder { at: at(-1), number: 2 });
            }
            fetched(&mut facts, &policy, there.clone(), at(0));
            // Looked at once more in the same wake, it is no more approved than before.
            fetched(&mut facts, &policy, there, at(1));
            let said = facts.not_approved.as_ref().map(|f| f.class.word());
            assert_eq!(said, anew.then_some("changed-meanwhile"), "{named:?}");
            assert_eq!(facts.approved_by().is_some(), !anew, "{named:?}");
        }
    }
}

#[test]
fn a_source_that_gives_nothing_changes_nothing() {
    let policy = policy(1);
    let before = applied(&policy, 1);
    let mut facts = Facts::new(before.clone(), &policy, Wake::default(), false);
    let mut go = good(found(2, 0), holds(1), false);
    let (steps, last, _) = drive(&mut facts, &policy, at(0), |step| match step {
        Step::Fetch => Some(Outcome::Failed(failure(true))),
        step => go(step),
    });
    assert_eq!(steps, ["inspect", "fetch"]);
    assert!(matches!(last, Step::Wait { .. }));
    assert_eq!((facts.state.applied, facts.state.targets), (before.applied, before.targets));
}

#[test]
fn drift_is_healed_three_times_an_hour_and_then_reported() {
    let policy = policy(1);
    let mut state = applied(&policy, 2);
    for i in 0..3 {
        let mut facts = Facts::new(state, &policy, Wake::default(), false);
        let (steps, ..) = drive(&mut facts, &policy, at(i * 60), good(found(2, 0), holds(1), false));
        assert!(steps.contains(&"swap"), "{steps:?}");
        state = facts.state;
    }
    let mut facts = Facts::new(state.clone(), &policy, Wake::default(), false);
    let (steps, ..) = drive(&mut facts, &policy, at(200), good(found(2, 0), holds(1), false));
    assert_eq!(steps, ["inspect", "fetch", "refrain"]);
    let left = facts.failures()[0].1;
    assert_eq!(left.class, Class::Drift);
    assert!(
        left.fix.contains("; then have it put back: relaykey sync ses") && !left.fix.contains("what writes the table")
    );
    // Whoever asks has it put back all the same; who only confirms, or takes the host out, does not.
    let asked = || Wake { asked: true, ..Wake::default() };
    for (wake, swaps) in
        [(asked(), true), (Wake { confirm: true, ..asked() }, false), (Wake { leave: true, ..asked() }, false)]
    {
        let mut facts = Facts::new(state.clone(), &policy, wake.clone(), true);
        let (steps, ..) = drive(&mut facts, &policy, at(220), good(found(2, 0), holds(1), false));
        assert_eq!(steps.contains(&"swap"), swaps, "{wake:?}: {steps:?}");
    }
    let mut facts = Facts::new(state, &policy, Wake::default(), true);
    let (steps, ..) = drive(&mut facts, &policy, at(3600 + 61), good(found(2, 0), holds(1), false));
    assert!(steps.contains(&"swap"), "an hour later: {steps:?}");
}

#[test]
fn drift_that_is_only_to_be_reported_is_left_alone_also_after_waiting() {
    let mut policy = policy(1);
    policy.targets[0].drift = Drift::Report;
    let mut facts = Facts::new(applied(&policy, 2), &policy, Wake::default(), false);
    let (mut waits, mut go) = (0, good(found(2, 0), holds(1), false));
    let (steps, ..) = drive(&mut facts, &policy, at(0), |step| match step {
        Step::Wait { .. } if waits < 3 => {
            waits += 1;
            Some(Outcome::Waited)
        }
        step => go(step),
    });
    assert_eq!(steps[..3], ["inspect", "fetch", "refrain"]);
    assert!(!steps.contains(&"verify") && waits == 3, "{steps:?}");
    assert_eq!(facts.failures()[0].1.class, Class::Drift);
    assert_eq!(facts.state.targets["t0"].retry.attempts, 4, "and it backs off");
}

#[test]
fn a_second_read_that_fails_waits_like_any_other() {
    let policy = policy(1);
    let mut facts = Facts::new(applied(&policy, 5), &policy, Wake::default(), false);
    let (mut reads, mut waits) = (0, 0);
    let mut go = good(found(2, 0), holds(5), false);
    let (steps, last, _) = drive(&mut facts, &policy, at(0), |step| match step {
        Step::Fetch => {
            reads += 1;
            Some(if reads == 1 { Outcome::Fetched(found(2, 0)) } else { Outcome::Failed(failure(true)) })
        }
        Step::Wait { .. } if waits < 5 => {
            waits += 1;
            Some(Outcome::Waited)
        }
        step => go(step),
    });
    assert_eq!((reads, waits), (6, 5), "{steps:?}");
    assert!(matches!(last, Step::Wait { .. }));
    assert_eq!(facts.state.applied.as_ref().unwrap().id, version(5));
}

#[test]
fn back_off_grows_although_the_login_is_good() {
    let policy = policy(1);
    let mut facts = Facts::new(applied(&policy, 1), &policy, Wake::default(), false);
    let (mut waits, mut go) = (0, good(found(2, 0), holds(1), false));
    drive(&mut facts, &policy, at(0), |step| match step {
        Step::Prepare { .. } => Some(Outcome::Failed(failure(true))),
        Step::Wait { .. } if waits < 6 => {
            waits += 1;
            Some(Outcome::Waited)
        }
        step => go(step),
    });
    assert_eq!(facts.state.targets["t0"].retry.attempts, 7);
}

#[test]
fn what_was_written_is_never_called_adopted_and_every_target_is_read_back_after_the_last_swap() {
    let policy = policy(2);
    let mut facts = Facts::new(State::new("ses"), &policy, Wake::default(), false);
    let mut refused_once = false;
    let mut go = good(found(2, 0), holds(1), false);
    let (steps, last, _) = drive(&mut facts, &policy, at(0), |step| match step {
        Step::Inspect { target: 0 } => Some(Outcome::Inspected(holds(2))),
        Step::Prepare { target: 0 } => Some(Outcome::Prepared(StagedFacts {
            nothing_to_write: true,
            swapped_before: false,
            live_id: "live2".into(),
            goes_live: None,
        })),
        Step::Verify { target: 1 } if !refused_once => {
            refused_once = true;
            Some(Outcome::Failed(failure(true)))
        }
        Step::Wait { .. } => Some(Outcome::Waited),
        step => go(step),
    });
    assert_eq!(last, Step::End);
    assert_eq!(steps[steps.len() - 3..], ["read-back", "read-back", "commit"], "{steps:?}");
    assert_eq!(facts.state.applied.as_ref().unwrap().outcome, Completion::Confirmed);
}

#[test]
fn healing_one_target_reads_all_of_them_back() {
    let policy = policy(2);
    let mut facts = Facts::new(applied(&policy, 2), &policy, Wake::default(), false);
    let mut go = good(found(2, 0), holds(2), true);
    let (steps, last, _) = drive(&mut facts, &policy, at(0), |step| match step {
        Step::Inspect { target: 1 } => Some(Outcome::Inspected(holds(1))),
        Step::Prepare { target: 1 } => Some(Outcome::Prepared(StagedFacts {
            nothing_to_write: false,
            swapped_before: false,
            live_id: "live2".into(),
            goes_live: None,
        })),
        step => go(step),
    });
    assert_eq!(last, Step::End);
    assert_eq!(steps.iter().filter(|s| **s == "read-back").count(), 2, "{steps:?}");
    assert_eq!(steps.iter().filter(|s| **s == "swap").count(), 1, "{steps:?}");
}

#[test]
fn a_version_that_flaps_does_not_start_its_propagation_anew() {
    let policy = policy(1);
    let refuse = |state: State, n: i64, seconds: i64| {
        let mut facts = Facts::new(state, &policy, Wake::default(), true);
        let mut go = good(found(n, seconds), holds(1), true);
        drive(&mut facts, &policy, at(seconds), |step| match step {
            Step::Verify { .. } => Some(Outcome::Refused { endpoint: None, reply: "535".into() }),
            step => go(step),
        });
        facts
    };
    let facts = refuse(applied(&policy, 1), 2, 0);
    assert_eq!(facts.failures()[0].1.class, Class::NotYet);
    let facts = refuse(facts.state, 1, 100);
    assert!(facts.failures().is_empty(), "{:?}", facts.failures());
    let facts = refuse(facts.state, 2, 301);
    assert_eq!(facts.failures()[0].1.class, Class::Refused);
}

#[test]
fn a_mismatch_after_the_swap_is_undone_and_the_other_target_stays_on_the_candidate() {
    let policy = policy(2);
    let mut facts = Facts::new(applied(&policy, 1), &policy, Wake::default(), false);
    let mut go = good(found(2, 0), holds(1), false);
    let (steps, last, _) = drive(&mut facts, &policy, at(0), |step| match step {
        Step::ReadBack { target: 0, .. } => Some(Outcome::Mismatch(failure(true))),
        step => go(step),
    });
    assert_eq!(steps[11..], ["read-back", "undo", "inspect", "read-back"]);
    assert!(matches!(last, Step::Wait { .. }), "{last:?}");
    assert_eq!(facts.state.applied.as_ref().unwrap().id, version(1), "the confirmation waits for all");
    assert!(facts.targets[1].swapped);
}

#[test]
fn a_new_version_does_not_hide_what_its_own_wake_has_met() {
    let policy = policy(1);
    let mut facts = Facts::new(applied(&policy, 1), &policy, Wake::default(), false);
    let mut go = good(found(2, 0), holds(1), false);
    let (steps, last, _) = drive(&mut facts, &policy, at(0), |step| match step {
        Step::Inspect { .. } => Some(Outcome::Failed(failure(false))),
        step => go(step),
    });
    assert_eq!(steps, ["inspect", "fetch"]);
    assert_eq!(facts.failures(), [(Some("t0"), &failure(false))]);
    assert!(matches!(last, Step::Wait { until } if until > at(0)), "{last:?}");
}

#[test]
fn a_confirmation_is_one_change_of_the_state_and_its_seq_only_grows() {
    let policy = policy(1);
    let mut before = applied(&policy, 1);
    // The clock was set back: what was said before is far ahead of it.
    before.seq = u64::try_from(at(1_000).as_millisecond()).unwrap();
    let mut facts = Facts::new(before.clone(), &policy, Wake::default(), false);
    let mut go = good(found(2, 0), holds(1), false);
    let (.., last, _) = drive(&mut facts, &policy, at(0), |step| match step {
        Step::Commit { .. } => None,
        step => go(step),
    });
    let Step::Commit { stamp } = last.clone() else { panic!("{last:?}") };
    assert_eq!(stamp.seq, before.seq + 1);
    assert_eq!((&facts.state.applied, facts.state.seq), (&before.applied, before.seq), "not before the commit");
    let id = begin(&mut facts, &policy, &last);
    absorb(&mut facts, &policy, id, &last, Outcome::Committed(Box::new(report(stamp.seq))), at(0), 0.5);
    let state = &facts.state;
    assert_eq!(state.applied.as_ref().unwrap().id, version(2));
    assert_eq!((state.seq, state.report.as_ref().map(|r| r.seq)), (stamp.seq, Some(stamp.seq)));
    // Later than everything before, the clock counts again.
    let mut facts = Facts::new(state.clone(), &policy, Wake::default(), false);
    drive(&mut facts, &policy, at(2_000), good(found(3, 2_000), holds(2), false));
    assert_eq!(facts.state.seq, u64::try_from(at(2_000).as_millisecond()).unwrap());
}

#[test]
fn what_was_proved_of_one_version_says_nothing_about_another() {
    let policy = policy(2);
    let mut facts = Facts::new(applied(&policy, 1), &policy, Wake::default(), true);
    let mut source = found(2, 0);
    let mut verified = Vec::new();
    let mut go = good(found(2, 0), holds(1), false);
    // The source moves on after both logins, before anything is staged.
    let (_, last, _) = drive(&mut facts, &policy, at(0), |step| match step {
        Step::Fetch => Some(Outcome::Fetched(source.clone())),
        Step::Verify { target } => {
            verified.push((source.id.version.clone(), *target));
            Some(Outcome::Accepted(evidence()))
        }
        Step::Prepare { .. } if source.id == version(2) => None,
        step => go(step),
    });
    assert_eq!(last, Step::Prepare { target: 0 });
    source = found(3, 10);
    let id = begin(&mut facts, &policy, &Step::Fetch);
    absorb(&mut facts, &policy, id, &Step::Fetch, Outcome::Fetched(source.clone()), at(10), 0.5);
    drive(&mut facts, &policy, at(10), |step| match step {
        Step::Verify { target } => {
            verified.push((source.id.version.clone(), *target));
            Some(Outcome::Accepted(evidence()))
        }
        step => go(step),
    });
    let all = [("v2", 0), ("v2", 1), ("v3", 0), ("v3", 1)].map(|(v, t)| (v.to_owned(), t));
    assert_eq!(verified, all);
    assert_eq!(facts.state.applied.unwrap().id, version(3));
}

#[test]
fn what_is_staged_in_vain_is_discarded() {
    let policy = policy(1);
    let mut facts = Facts::new(applied(&policy, 1), &policy, Wake::default(), false);
    let mut go = good(found(2, 0), holds(1), false);
    let (steps, ..) = drive(&mut facts, &policy, at(0), |step| match step {
        Step::Swap { .. } => Some(Outcome::Failed(failure(true))),
        step => go(step),
    });
    assert_eq!(steps[steps.len() - 2..], ["swap", "discard"]);
}

#[test]
fn a_reload_that_is_owed_is_tried_again_without_the_source() {
    let policy = policy(1);
    let mut facts = Facts::new(applied(&policy, 1), &policy, Wake::default(), false);
    let owed = Inspection { reload_owed: Some(ReloadOwed { since: at(-60), why: "down".into() }), ..holds(1) };
    let mut go = good(found(1, 0), owed, true);
    let (steps, ..) = drive(&mut facts, &policy, at(0), |step| match step {
        Step::Fetch => Some(Outcome::Failed(failure(true))),
        step => go(step),
    });
    assert_eq!(steps, ["inspect", "fetch", "activate"]);
    assert!(facts.state.targets["t0"].reload_owed.is_none());
}

/// What was owed is done while the new version waits for its time. The swap that comes in the same run has a reload of its own.
#[test]
fn a_reload_before_a_swap_is_not_taken_for_the_one_after_it() {
    let policy = policy(1);
    let mut facts = Facts::new(applied(&policy, 1), &policy, Wake::default(), false);
    let owed = Inspection { reload_owed: Some(ReloadOwed { since: at(-60), why: "down".into() }), ..holds(1) };
    let mut go = good(found(2, 0), owed, false);
    let mut failed = false;
    let (steps, ..) = drive(&mut facts, &policy, at(0), |step| match step {
        Step::Verify { .. } if !std::mem::replace(&mut failed, true) => Some(Outcome::Failed(failure(true))),
        Step::Wait { .. } => Some(Outcome::Waited),
        step => go(step),
    });
    let swap = steps.iter().position(|step| *step == "swap").expect("the new version is put in place");
    assert!(steps[..swap].contains(&"activate"), "what was owed was done before: {steps:?}");
    assert_eq!(steps[swap..swap + 4], ["swap", "activate", "read-back", "commit"], "{steps:?}");
}

/// A mail server that did not run may have been started since: every look sees, and waits for nothing then.
#[test]
fn a_mail_server_that_was_started_is_seen_before_the_next_attempt_is_due() {
    let policy = policy(1);
    let owed = Some(ReloadOwed { since: at(-60), why: "down".into() });
    // What is in place without having been committed, and what is confirmed with its reload owed.
    let begun = Inspection { swapped: Some(swapped(2)), ..holds(2) };
    let stopped = Some(MailServer::Stopped);
    for (class, version_there, there, owed, seen) in [
        (Class::NotRunning, 2, begun, None, stopped),
        (Class::ReloadOwed, 1, holds(1), owed.clone(), stopped),
        // It was stopped and started between two looks.
        (Class::ReloadOwed, 1, holds(1), owed, Some(MailServer::Runs)),
    ] {
        let mut state = applied(&policy, 1);
        let failure = Failure { class, what: "it does not run".into(), ..failure(true) };
        let retry = Retry { attempts: 9, next: Some(at(900)), failure: Some(failure) };
        if version_there == 2 {
            state.candidate = Some(candidate_of(version(2), at(-60)));
        }
        let target = state.targets.get_mut("t0").unwrap();
        (target.retry, target.reload_owed) = (retry.clone(), owed.clone());
        target.mail_server = seen;
        let look = |found_there: Outcome| {
            let mut facts = Facts::new(state.clone(), &policy, Wake::default(), false);
            let mut go = good(found(version_there, 0), there.clone(), true);
            let (steps, ..) = drive(&mut facts, &policy, at(0), |step| match step {
                Step::Inspect { .. } => Some(found_there.clone()),
                step => go(step),
            });
            let failures: Vec<String> = facts.failures().iter().map(|(_, f)| f.class.word().to_owned()).collect();
            conclude(&mut facts, at(0), 0.5);
            (steps, failures, facts)
        };
        // It still does not run, or the look fails: nothing is done before its time, and nothing is put off or forgotten.
        let as_before = Inspection { mail_server: seen, reload_owed: owed.clone(), ..there.clone() };
        for vain in [Outcome::Inspected(as_before), Outcome::Failed(super::tests::failure(false))] {
            let (steps, failures, facts) = look(vain);
            assert_eq!((steps, failures), (vec!["inspect", "fetch"], vec![class.to_string()]));
            assert_eq!(facts.state.targets["t0"].retry, retry);
        }
        // It was started, and has read what is there.
        let (steps, failures, facts) = look(Outcome::Inspected(there.clone()));
        assert_eq!((failures, &facts.state.targets["t0"].retry), (vec![], &Retry::default()), "{class}: {steps:?}");
        assert_eq!(facts.state.targets["t0"].mail_server, Some(MailServer::Runs));
        match version_there {
            2 => assert_eq!(facts.committed, Some(Completion::Confirmed), "{steps:?}"),
            _ => assert_eq!(steps, ["inspect", "fetch"]),
        }
        // It was started, and a reload is owed all the same: it is done at once.
        if owed.is_some() && seen == stopped {
            let (steps, failures, _) =
                look(Outcome::Inspected(Inspection { reload_owed: owed.clone(), ..there.clone() }));
            assert_eq!((steps, failures), (vec!["inspect", "fetch", "activate"], vec![]));
        }
    }
}

#[test]
fn a_reload_that_only_a_start_settles_is_looked_at_again_within_a_quarter_of_an_hour() {
    let policy = policy(1);
    let mut facts = Facts::new(applied(&policy, 1), &policy, Wake::default(), false);
    for attempt in 0..20 {
        let never = Failure { class: Class::ReloadOwed, ..failure(false) };
        target_failed(&mut facts, 0, never, at(0), 1.0);
        let next = facts.state.targets["t0"].retry.next.expect("it is due again");
        assert!(next <= at(900), "attempt {attempt}: {next}");
    }
}

#[test]
fn an_outcome_of_a_step_that_is_no_longer_the_current_one_is_dropped() {
    let policy = policy(1);
    let mut facts = Facts::new(applied(&policy, 1), &policy, Wake::default(), false);
    let (step, _) = decide(&facts, &policy, at(0));
    let late = begin(&mut facts, &policy, &step);
    let current = begin(&mut facts, &policy, &step);
    assert!(!absorb(&mut facts, &policy, late, &step, Outcome::Inspected(holds(9)), at(0), 0.5));
    assert!(facts.targets[0].inspected.is_none());
    assert!(absorb(&mut facts, &policy, current, &step, Outcome::Inspected(holds(1)), at(0), 0.5));
    assert!(!absorb(&mut facts, &policy, current, &step, Outcome::Inspected(holds(9)), at(0), 0.5), "once only");
}

#[test]
fn back_off_doubles_within_its_bounds_with_full_jitter() {
    let cases = [
        (true, 1, 1.0, 10),
        (true, 2, 1.0, 20),
        (true, 7, 1.0, 640),
        (true, 8, 1.0, 900),
        (true, 4_000_000, 1.0, 900),
        (true, 8, 0.5, 450),
        (true, 8, 0.0, 90),
        (false, 1, 1.0, 900),
        (false, 5, 1.0, 14_400),
        (false, 6, 1.0, 21_600),
        (false, u32::MAX, 1.0, 21_600),
    ];
    for (temporary, attempts, jitter, seconds) in cases {
        assert_eq!(backoff(temporary, attempts, jitter).as_secs(), seconds, "{temporary} {attempts} {jitter}");
    }
}

/// A start is mostly a person's doing; one that a service manager does again and again must not hammer.
#[test]
fn a_start_cuts_a_wait_and_keeps_the_count() {
    let failure = denied(Class::Refused, "535".into(), "publish another".into(), at(100));
    let mut state = State::new("ses");
    state.source_retry = Retry { attempts: 4, next: Some(at(100 + 3600)), failure: Some(failure) };
    let wake = || Wake { at_start: true, ..Wake::default() };
    let of = |wake| Facts::new(state.clone(), &policy(1), wake, false).state.source_retry;
    assert_eq!((of(wake()).attempts, of(wake()).next), (4, Some(at(160))), "a minute after the last try");
    assert_eq!(of(Wake::default()).next, Some(at(3700)));
    state.source_retry.next = Some(at(130));
    let of = Facts::new(state.clone(), &policy(1), wake(), false).state.source_retry;
    assert_eq!(of.next, Some(at(130)), "what is due before is not put off");
}

#[test]
fn persisted_waits_hold_until_a_person_asks() {
    let policy = policy(1);
    let mut state = applied(&policy, 1);
    state.targets.get_mut("t0").unwrap().retry =
        Retry { attempts: 3, next: Some(at(50)), failure: Some(failure(true)) };
    state.source_retry = Retry { attempts: 1, next: Some(at(40)), failure: Some(failure(true)) };
    let facts = Facts::new(state.clone(), &policy, Wake::default(), false);
    assert_eq!(decide(&facts, &policy, at(0)).0, Step::Wait { until: at(40) });
    let facts = Facts::new(state, &policy, Wake::default(), true);
    assert_eq!(decide(&facts, &policy, at(0)).0, Step::Inspect { target: 0 });
    assert_eq!(facts.state.targets["t0"].retry.attempts, 3);
}

/// Only what was looked at is watched: a start looks at every target, and does no more there than what is due.
#[test]
fn a_start_looks_also_at_a_target_that_waits() {
    let policy = policy(2);
    let mut state = applied(&policy, 1);
    let retry = Retry { attempts: 3, next: Some(at(50)), failure: Some(Failure { at: at(-5), ..failure(true) }) };
    state.targets.get_mut("t1").unwrap().retry = retry.clone();
    state.candidate = Some(candidate_of(version(2), at(-60)));
    let looks = |at_start: bool| {
        let wake = Wake { at_start, ..Wake::default() };
        let mut facts = Facts::new(state.clone(), &policy, wake, false);
        let mut looked = Vec::new();
        let mut go = good(found(2, 0), holds(1), false);
        let (steps, ..) = drive(&mut facts, &policy, at(0), |step| {
            if let Step::Inspect { target } = step {
                looked.push(*target);
            }
            go(step)
        });
        assert_eq!(facts.state.targets["t1"].retry, retry, "{steps:?}");
        assert!(!steps.contains(&"commit"), "{steps:?}");
        looked
    };
    assert_eq!((looks(true), looks(false)), (vec![0, 1], vec![0]));
    // A new version does not wait for what the one before it ran into.
    let mut facts = Facts::new(state.clone(), &policy, Wake { at_start: true, ..Wake::default() }, false);
    let (steps, ..) = drive(&mut facts, &policy, at(0), good(found(3, 0), holds(1), false));
    assert!(facts.committed.is_some(), "{steps:?}");
}

#[test]
fn state_survives_its_file_format() {
    let policy = policy(2);
    let mut facts = Facts::new(applied(&policy, 1), &policy, Wake::default(), false);
    drive(&mut facts, &policy, at(0), good(found(2, 0), holds(1), false));
    let text = serde_json::to_string(&facts.state).unwrap();
    assert_eq!(serde_json::from_str::<State>(&text).unwrap(), facts.state);
}

// ---------------------------------------------------------------- the model

/// One target's mail server in the model: what its files hold, and what its running process has noticed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct ModelServer {
    files: u8,
    noticed: u8,
    staged: bool,
    /// Journal: swapped in and not committed.
    swapped: bool,
}

/// The world of the model: version 1 is in use, the source gives version 2, two targets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct ModelWorld {
    servers: [ModelServer; 2],
    verified: [bool; 2],
    waits: u8,
    crashes: u8,
}

impl ModelWorld {
    /// Version 1 is in use on both, and nothing has happened yet.
    fn start() -> Self {
        let server = ModelServer { files: 1, noticed: 1, staged: false, swapped: false };
        Self { servers: [server; 2], verified: [false; 2], waits: 0, crashes: 0 }
    }
}

fn outcomes(step: &Step, world: ModelWorld) -> Vec<(Outcome, ModelWorld)> {
    let mut all = Vec::new();
    let mut one = |outcome: Outcome, change: &dyn Fn(&mut ModelWorld)| {
        let mut after = world;
        change(&mut after);
        all.push((outcome, after));
    };
    let same = |_: &mut ModelWorld| {};
    match step {
        Step::Inspect { target } => {
            let s = world.servers[*target];
            one(
                Outcome::Inspected(Inspection {
                    reload_owed: (s.files != s.noticed).then(|| ReloadOwed { since: at(-1), why: "owed".into() }),
                    swapped: s.swapped.then(|| swapped(2)),
                    ..holds(s.files.into())
                }),
                &same,
            );
            one(Outcome::Failed(failure(true)), &same);
        }
        Step::Fetch => {
            one(Outcome::Fetched(found(2, 0)), &same);
            one(Outcome::Failed(failure(true)), &same);
        }
        Step::Verify { target } => {
            let t = *target;
            one(Outcome::Accepted(evidence()), &move |w| w.verified[t] = true);
            one(Outcome::Refused { endpoint: None, reply: "535".into() }, &same);
            one(Outcome::Failed(failure(true)), &same);
        }
        Step::Prepare { target } => {
            let t = *target;
            assert!(world.verified[t], "staged before the login was accepted");
            let s = world.servers[t];
            let staged = StagedFacts {
                nothing_to_write: s.files == 2,
                swapped_before: s.swapped,
                live_id: "live2".into(),
                goes_live: None,
            };
            one(Outcome::Prepared(staged), &move |w| w.servers[t].staged = s.files != 2);
            one(Outcome::Failed(failure(true)), &same);
        }
        Step::Swap { target } => {
            let t = *target;
            assert!(world.servers[t].staged, "swapped without anything staged");
            one(Outcome::Swapped, &move |w| {
                w.servers[t] = ModelServer { files: 2, staged: false, swapped: true, ..w.servers[t] };
            });
            one(Outcome::Failed(failure(true)), &same);
        }
        Step::Activate { target } => {
            let t = *target;
            one(Outcome::Activated, &move |w| w.servers[t].noticed = w.servers[t].files);
            one(Outcome::ReloadOwed(failure(true)), &same);
        }
        Step::ReadBack { target, .. } => {
            let t = *target;
            if world.servers[t].files == 2 {
                one(Outcome::ReadBack(read_back(2)), &same);
            }
            // Somebody else wrote in between.
            one(Outcome::Mismatch(failure(true)), &same);
        }
        Step::Attest { target, .. } => {
            assert!(world.servers[*target].files == 1, "{world:?}");
            one(Outcome::ReadBack(proved(1)), &same);
        }
        Step::Undo { target } => {
            let t = *target;
            one(Outcome::Undone, &move |w| {
                w.servers[t] = ModelServer { files: 1, noticed: 1, staged: false, swapped: false }
            });
            one(Outcome::Failed(failure(false)), &same);
        }
        Step::Discard { target } => {
            let t = *target;
            one(Outcome::Discarded, &move |w| w.servers[t].staged = false);
        }
        Step::Commit { stamp } => {
            for s in world.servers {
                assert_eq!((s.files, s.noticed), (2, 2), "confirmed what is not so: {world:?}");
                assert!(!s.staged, "confirmed with files left staged: {world:?}");
            }
            one(Outcome::Committed(Box::new(report(stamp.seq))), &|w| {
                w.servers.iter_mut().for_each(|s| s.swapped = false)
            });
            one(Outcome::Failed(failure(true)), &same);
        }
        Step::Probe { .. }
        | Step::VerifyApplied { .. }
        | Step::FetchApplied
        | Step::Hold
        | Step::Release { .. }
        | Step::Reject
        | Step::Leave
        | Step::Refrain { .. }
        | Step::Preview { .. } => panic!("{step:?}: nobody decides here, and healing is allowed"),
        Step::Wait { .. } if world.waits < 2 => one(Outcome::Waited, &|w| w.waits += 1),
        Step::Wait { .. } | Step::Await | Step::End => {}
    }
    all
}

/// One situation of a model: the facts as far as anything is decided by them, the world, and the time; of those 128 bits,
/// so that memory does not grow with what they hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Situation(u64, u64);

impl Situation {
    fn of(facts: &mut Facts, world: &impl Hash, now: Timestamp) -> Self {
        // What counts the steps of one wake begins anew with each.
        facts.steps = 0;
        // Nothing is decided by what was looked up before.
        let before: Vec<_> = facts.state.targets.values_mut().map(|t| t.in_use.take()).collect();
        let mut hasher = Folded(1, 2);
        (&*facts, world, now).hash(&mut hasher);
        for (target, in_use) in facts.state.targets.values_mut().zip(before) {
            target.in_use = in_use;
        }
        Self(hasher.0, hasher.1)
    }
}

/// A hash that is fast in a build without optimization, where the standard one takes most of a model's time: there every
/// call costs, and plain arithmetic does not. Two halves, each multiplied and folded; nobody picks what goes in.
struct Folded(u64, u64);

impl Folded {
    fn word(&mut self, word: u64) {
        let (one, two) = (self.0 ^ word, self.1 ^ word);
        let (one, two) = ((one as u128) * 0xa076_1d64_78bd_642f, (two as u128) * 0xe703_7ed1_a0b4_28db);
        self.0 = one as u64 ^ (one >> 64) as u64 ^ 0x9e37_79b9_7f4a_7c15;
        self.1 = two as u64 ^ (two >> 64) as u64 ^ 0xd1b5_4a32_d192_ed03;
    }
}

impl Hasher for Folded {
    fn write(&mut self, bytes: &[u8]) {
        let (mut at, mut word) = (0, 0);
        while at < bytes.len() {
            word = (word << 8) | u64::from(bytes[at]);
            at += 1;
            if at & 7 == 0 {
                self.word(word);
                word = 0;
            }
        }
        // With the length, so that two texts are told from the same bytes cut elsewhere.
        self.word(word);
        self.word(bytes.len() as u64);
    }

    fn write_u8(&mut self, number: u8) {
        self.word(number.into());
    }

    fn write_u32(&mut self, number: u32) {
        self.word(number.into());
    }

    fn write_i32(&mut self, number: i32) {
        self.word(number as u64);
    }

    fn write_u64(&mut self, number: u64) {
        self.word(number);
    }

    fn write_i64(&mut self, number: i64) {
        self.word(number as u64);
    }

    fn write_usize(&mut self, number: usize) {
        self.word(number as u64);
    }

    fn write_isize(&mut self, number: isize) {
        self.word(number as u64);
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

/// How a situation was met.
enum Met {
    New,
    /// And all that comes of it.
    Before,
    /// It is on the way to itself: a loop without end.
    OnTheWay,
}

/// The situations that were met, and whether all that comes of them was.
#[derive(Debug, Default)]
struct Visited(HashMap<Situation, bool>);

impl Visited {
    fn enter(&mut self, situation: Situation) -> Met {
        match self.0.get(&situation) {
            Some(true) => Met::Before,
            Some(false) => Met::OnTheWay,
            None => {
                self.0.insert(situation, false);
                Met::New
            }
        }
    }

    fn leave(&mut self, situation: Situation) {
        self.0.insert(situation, true);
    }

    fn len(&self) -> usize {
        self.0.len()
    }
}

/// Every outcome of every step, and a crash (with a restart on the durable state) before every step: no confirmation
/// that is not true, nothing staged before the login, no step without end, and a path to the end from everywhere.
#[test]
fn the_model_keeps_its_invariants() {
    // Facts and world, and the time.
    let policy = policy(2);
    let start = ModelWorld::start();
    let facts = Facts::new(applied(&policy, 1), &policy, Wake::default(), true);
    let mut seen = Visited::default();
    let mut commits = 0;
    // Depth first.
    enum ModelVisit {
        Enter(Box<(Facts, ModelWorld, Timestamp)>),
        Leave(Situation),
    }
    let mut stack = vec![ModelVisit::Enter(Box::new((facts, start, at(0))))];
    while let Some(visit) = stack.pop() {
        let (mut facts, world, now) = match visit {
            ModelVisit::Leave(key) => {
                seen.leave(key);
                continue;
            }
            ModelVisit::Enter(node) => *node,
        };
        let key = Situation::of(&mut facts, &world, now);
        match seen.enter(key) {
            Met::New => {}
            Met::Before => continue,
            Met::OnTheWay => panic!("a loop without end at {:?}", decide(&facts, &policy, now)),
        }
        stack.push(ModelVisit::Leave(key));
        let (step, _) = decide(&facts, &policy, now);
        if let (Step::End, Some(_)) = (&step, facts.committed) {
            commits += 1;
            assert_eq!(facts.state.applied.as_ref().unwrap().id, version(2));
        }
        if step == Step::End && facts.committed.is_none() {
            panic!("ended without a confirmation although the source gives a new version: {facts:?}");
        }
        if world.crashes == 0 && step != Step::End {
            // kill -9: staged files are removed by name at the next start; what was proved has to be proved again.
            let mut after = ModelWorld { crashes: 1, verified: [false; 2], ..world };
            after.servers.iter_mut().for_each(|s| s.staged = false);
            let again = Facts::new(facts.state.clone(), &policy, Wake::default(), true);
            stack.push(ModelVisit::Enter(Box::new((again, after, now))));
        }
        let outcomes = outcomes(&step, world);
        let copies = std::iter::repeat_n(facts, outcomes.len());
        for ((outcome, after), mut next) in outcomes.into_iter().zip(copies) {
            let id = begin(&mut next, &policy, &step);
            let now = if let Step::Wait { until } = step { now.max(until) } else { now };
            assert!(absorb(&mut next, &policy, id, &step, outcome, now, 0.5));
            stack.push(ModelVisit::Enter(Box::new((next, after, now))));
        }
    }
    assert!(seen.len() > 400_000 && commits > 10, "{} situations, {commits} ways to a confirmation", seen.len());
}

#[test]
fn what_was_written_down_under_a_clock_that_was_ahead_is_taken_back() {
    let now: Timestamp = "2026-11-20T12:00:00Z".parse().unwrap();
    let hours = |h| now + SignedDuration::from_hours(h);
    let retry = |next| Retry { attempts: 3, next: Some(next), failure: None };
    let id = VersionId { version: "v2".into(), order: None };
    let made = |at: Timestamp| {
        let mut state = State::new("ses");
        state.source_retry = retry(at);
        state.outbox.insert("fleet".into(), Outbox { retry: retry(at), ..Outbox::default() });
        state.candidate = Some(candidate_of(id.clone(), at));
        let target = TargetState {
            retry: retry(at),
            first_refused: Some(FirstRefused { id: id.clone(), since: at }),
            heals: vec![at],
            ..TargetState::default()
        };
        state.targets.insert("main".into(), target);
        state
    };
    let mut ahead = made(hours(24 * 365));
    ahead.set_right_by(now);
    let target = &ahead.targets["main"];
    assert_eq!((ahead.source_retry.next, ahead.outbox["fleet"].retry.next, target.retry.next), (None, None, None));
    assert_eq!(ahead.source_retry.attempts, 3, "what was counted stays counted");
    assert_eq!(ahead.candidate.as_ref().map(|c| c.first_seen), Some(now));
    assert_eq!(target.first_refused.as_ref().map(|f| f.since), Some(now));
    assert!(target.heals.is_empty());
    // The longest back-off there is stands, and so does everything that was.
    let mut waits = made(hours(6));
    waits.set_right_by(now);
    assert_eq!(waits.targets["main"].retry.next, Some(hours(6)));
    let mut past = made(hours(-1));
    past.set_right_by(now);
    assert_eq!(past, made(hours(-1)));
}

fn original() -> CloneOf {
    CloneOf { host_id: "original".into(), at: at(-100) }
}

#[test]
fn a_copied_state_is_begun_anew_and_owes_nothing_of_the_originals() {
    let policy = policy(2);
    let mut state = applied(&policy, 2);
    state.host_id = Some("original".into());
    state.left_behind = vec![version(1)];
    state.candidate = Some(Candidate {
        id: version(3),
        username: "AKIA3".into(),
        first_seen: at(-5),
        accepted: true,
        probed: None,
        held: None,
        approval: None,
        not_newer: false,
    });
    (state.seq, state.report) = (7, Some(report(7)));
    let owed = |seqs: &[u64]| Outbox { owed: seqs.iter().map(|s| report(*s)).collect(), ..Outbox::default() };
    state.outbox = [("a".into(), owed(&[7])), ("b".into(), owed(&[5, 6, 7])), ("c".into(), owed(&[]))].into();
    state.source_retry = Retry { attempts: 3, next: Some(at(100)), failure: Some(failure(true)) };
    state.audit.number = 12;
    let before = state.clone();

    assert_eq!(state.copied_from("copy", None), Some("original".into()));
    assert_eq!(state.moved_to("copy", None), Some(StateMoved { from: "original".into(), dropped: 4 }));
    let live_ids: std::collections::BTreeSet<String> =
        before.targets.values().filter_map(|target| target.live_id.clone()).collect();
    let anew = State {
        host_id: Some("copy".into()),
        source: before.source.clone(),
        left_behind: vec![version(1), version(2)],
        seq: 7,
        audit: before.audit.clone(),
        // Its mail server may hold them, too.
        earlier: vec!["AKIA2".into()],
        earlier_logins: live_ids.into_iter().collect(),
        ..State::new("ses")
    };
    assert_eq!(state, anew);
    // Once; and the original goes on as it was.
    assert_eq!(state.moved_to("copy", Some(&original())), None);
    let mut same = before.clone();
    assert_eq!(same.moved_to("original", None), None);
    assert_eq!(same, before);

    // What is in use on the copy is adopted, although the original has left it behind or applied it; its seq goes on.
    for n in [1, 2] {
        let mut facts = Facts::new(state.clone(), &policy, Wake::default(), false);
        let stamp_of = |step: &Step| match step {
            Step::Commit { stamp } => Some(stamp.clone()),
            _ => None,
        };
        let (_, step, _) = drive(&mut facts, &policy, at(0), |step| match step {
            Step::Inspect { .. } => Some(Outcome::Inspected(holds(n))),
            Step::Fetch => Some(Outcome::Fetched(found(n, 0))),
            Step::Verify { .. } => Some(Outcome::Accepted(evidence())),
            Step::Prepare { .. } => Some(Outcome::Prepared(StagedFacts {
                nothing_to_write: true,
                swapped_before: false,
                live_id: format!("live{n}"),
                goes_live: None,
            })),
            Step::Activate { .. } => Some(Outcome::Activated),
            Step::ReadBack { .. } => Some(Outcome::ReadBack(read_back(n))),
            _ => None,
        });
        let stamp = stamp_of(&step).unwrap_or_else(|| panic!("version {n} is not adopted: {step:?}"));
        assert_eq!(stamp.outcome, Completion::Adopted);
        assert!(stamp.seq > 7);
    }
}

#[test]
fn a_state_that_does_not_say_whose_it_is_belongs_to_who_reads_it_unless_that_is_a_copy() {
    let mut state = applied(&policy(1), 2);
    // As it was written before states said so.
    let mut text = serde_json::to_value(&state).unwrap();
    text.as_object_mut().unwrap().remove("host_id");
    assert_eq!(serde_json::from_value::<State>(text).unwrap(), state);

    let mut copied = state.clone();
    assert_eq!(state.copied_from("me", None), None);
    assert_eq!(state.moved_to("me", None), None);
    assert_eq!(state, State { host_id: Some("me".into()), ..applied(&policy(1), 2) });
    let moved = copied.moved_to("me", Some(&original()));
    assert_eq!(moved, Some(StateMoved { from: "original".into(), dropped: 0 }));
    assert_eq!((copied.applied, copied.host_id), (None, Some("me".into())));
}

#[test]
fn who_makes_a_proof_and_who_checks_one_sign_the_same_fields_of_a_report() {
    let target = |region: Option<&str>| -> ReportTarget {
        serde_json::from_value(serde_json::json!({
            "name": "main", "kind": "postfix", "map": "hash:/t", "keys": [], "read_back": "postmap -q",
            "remaining_old": [], "others": [{"id": "AKIA2", "count": 3}], "region": region, "proof": null, "no_proof": null,
            "evidence": {"endpoint": "e", "reply": "235", "at": at(0)},
        }))
        .unwrap()
    };
    let heading = Report {
        schema: REPORT_V2.into(),
        source: "arn".into(),
        host_id: "id".into(),
        host: "mx1".into(),
        version: "v".into(),
        username: "AKIA".into(),
        at: "then".into(),
        outcome: "confirmed".into(),
        ..report(7)
    };
    for region in [Some("eu-west-1"), None] {
        // Before there are targets, and as it is read again.
        let made = heading.proof_fields_of("main", region, at(0), Vec::new);
        let whole = Report { targets: vec![target(region)], error: None, ..heading.clone() };
        let read: Report = serde_json::from_str(&serde_json::to_string(&whole).unwrap()).unwrap();
        let lists = read.targets[0].held.signed();
        let with_lists = heading.proof_fields_of("main", region, at(0), || lists);
        assert_eq!(read.proof_fields(&read.targets[0]), with_lists);
        let too = with_lists.v2.unwrap();
        assert_eq!((too.source.as_str(), too.evidence_at), ("arn", rfc3339(at(0))));
        assert_eq!(too.lists, ["0", "0", "1", "1", "AKIA2", "3", "0", "0", "0"]);
        // Those of 0.1.0 signed none of that.
        let v1 = Report { schema: REPORT_V1.into(), ..read };
        assert_eq!(v1.proof_fields(&v1.targets[0]).v2, None);
        assert_eq!(
            (made.host_id.as_str(), made.host.as_str(), made.credential.as_str(), made.version.as_str()),
            ("id", "mx1", "ses", "v")
        );
        assert_eq!(
            (made.username.as_str(), made.target.as_str(), made.region.as_str(), made.outcome.as_str()),
            ("AKIA", "main", region.unwrap_or_default(), "confirmed")
        );
        assert_eq!((made.seq, made.at.as_str()), (7, "then"));
    }
}

#[test]
fn reports_that_0_1_0_wrote_are_written_again_byte_for_byte() {
    let cases = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/legacy/0.1.0");
    let mut seen = 0;
    for case in std::fs::read_dir(cases).unwrap() {
        let file = case.unwrap().path().join("state/credentials/ses.json");
        let text = std::fs::read_to_string(file).unwrap();
        let state: State = serde_json::from_str(&text).unwrap();
        // Evidence had nanoseconds then.
        let recorded: String = (text.split_inclusive('\n'))
            .map(|line| match line.split_once('.') {
                Some((seconds, fraction)) if line.trim_start().starts_with("\"at\":") => {
                    let fraction = fraction.trim_start_matches(|c: char| c.is_ascii_digit());
                    format!("{seconds}{fraction}")
                }
                _ => line.to_owned(),
            })
            .collect();
        let of_state = state.report.iter().chain(&state.told).map(|report| (report, 2));
        let owed = state.outbox.values().flat_map(|outbox| &outbox.owed).map(|report| (report, 8));
        for (report, depth) in of_state.chain(owed) {
            let indent = format!("\n{}", " ".repeat(depth));
            let written = serde_json::to_string_pretty(report).unwrap().replace('\n', &indent);
            assert!(recorded.contains(&written), "{written}\n{recorded}");
            assert!(
                !matches!(report.outcome, ReportOutcome::Foreign(_)) && !matches!(report.mode, ReportMode::Foreign(_))
            );
            seen += 1;
        }
    }
    assert!(seen >= 10, "{seen} reports");
}
