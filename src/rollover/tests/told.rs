//! What is told, when, and how often.

use super::lab::{LabHost, refused, trouble};
use super::*;

const HOUR: i64 = 3600;

fn words(run: &super::lab::LabRun) -> Vec<(&'static str, &str)> {
    run.news.iter().map(|(outcome, _, class)| (*outcome, class.as_str())).collect()
}

#[test]
fn a_failure_that_is_permanent_is_told_once_per_cause_and_version() {
    let mut host = LabHost::new(policy(1), 2);
    host.troubles = vec![("prepare", trouble("config", false))];
    assert_eq!(words(&host.poll(0)), [("failed", "config")]);
    for hour in 1..20 {
        assert_eq!(words(&host.poll(hour * HOUR)), [], "{hour}");
    }
    assert_eq!(words(&host.notice(20 * HOUR)), []);
    // Another cause, another version.
    host.troubles = vec![("verify", trouble("tls", false))];
    assert_eq!(words(&host.notice(20 * HOUR + 10)), [("failed", "tls")]);
    host.source = 3;
    let run = host.notice(20 * HOUR + 20);
    assert_eq!(run.news, [("failed", "v3".to_owned(), "tls".to_owned())]);
    // It went well, and then it did not.
    host.troubles.clear();
    assert_eq!(words(&host.notice(20 * HOUR + 30)), []);
    assert!(host.state.failing.is_empty());
    host.source = 4;
    host.troubles = vec![("verify", trouble("tls", false))];
    assert_eq!(words(&host.notice(20 * HOUR + 40)), [("failed", "tls")]);
}

#[test]
fn a_host_that_has_told_nothing_says_that_it_is_there() {
    let says = |state: &State, wake: Wake| {
        let mut facts = Facts::new(state.clone(), &policy(1), wake, false);
        hello(&mut facts, at(0));
        facts.news.iter().map(|news| (news.outcome.word(), news.version.clone())).collect::<Vec<_>>()
    };
    let said = [("hello", String::new())];
    let host = LabHost::unknown(policy(1), 1, 2);
    assert_eq!(says(&host.state, Wake::default()), said);
    assert_eq!(says(&host.state, Wake { confirm: true, ..Wake::default() }), said);
    // Who only looks, or leaves, does not come.
    for wake in [Wake { dry_run: true, ..Wake::default() }, Wake { leave: true, ..Wake::default() }] {
        assert_eq!(says(&host.state, wake), []);
    }
    // Whatever it has told says so too.
    let told = State { told: Some(report(1)), ..host.state.clone() };
    let left = State { left: Some(at(0)), ..host.state };
    for state in [told, left, LabHost::new(policy(1), 1).state, applied(&policy(1), 1)] {
        assert_eq!(says(&state, Wake::default()), []);
    }
}

#[test]
fn what_may_pass_by_itself_is_told_when_it_has_stood_for_a_quarter_of_an_hour() {
    let mut host = LabHost::new(policy(1), 2);
    host.troubles = vec![("verify", trouble("network", true))];
    for seconds in [0, 300, 600, 899] {
        assert_eq!(words(&host.notice(seconds)), [], "{seconds}");
    }
    assert_eq!(words(&host.notice(900)), [("failed", "network")]);
    assert_eq!(words(&host.notice(5000)), []);
    // The source, too, before anything is new.
    let mut host = LabHost::new(policy(1), 1);
    host.troubles = vec![("fetch", trouble("throttled", true))];
    host.notice(0);
    assert_eq!(words(&host.notice(899)), []);
    let run = host.notice(900);
    // About no version: least of all about the one in use.
    assert_eq!(run.news, [("failed", String::new(), "throttled".to_owned())]);
    // Over, and again: the time begins anew.
    host.troubles.clear();
    host.notice(1000);
    host.troubles = vec![("fetch", trouble("throttled", true))];
    assert_eq!(words(&host.notice(1100)), []);
    assert_eq!(words(&host.notice(2000)), [("failed", "throttled")]);
}

#[test]
fn causes_that_take_turns_are_told_each_once() {
    let mut host = LabHost::new(policy(1), 2);
    let mut told = Vec::new();
    for minute in 0..240 {
        let class = if minute % 2 == 0 { "network" } else { "timeout" };
        host.troubles = vec![("verify", trouble(class, true))];
        let run = host.notice(minute * 60);
        told.extend(run.news.iter().map(|n| (minute, n.2.clone())));
    }
    assert_eq!(told, [(16, "network".to_owned()), (17, "timeout".to_owned())]);
    assert_eq!(host.state.failing.len(), 2);
}

#[test]
fn what_has_a_report_of_its_own_is_no_failure() {
    // Not yet known to SES.
    let mut host = LabHost::new(policy(1), 2);
    host.troubles = vec![("verify", refused())];
    for seconds in [0, 100, 200, 299] {
        assert_eq!(words(&host.notice(seconds)), [], "{seconds}");
    }
    assert_eq!(words(&host.notice(300)), [("failed", "refused")]);
    assert_eq!(words(&host.notice(400)), []);
}

#[test]
fn what_is_put_back_in_the_same_run_was_never_withdrawn() {
    let mut host = LabHost::new(policy(1), 1);
    host.files = vec![9];
    let run = host.poll(0);
    assert_eq!((run.committed, run.news.len()), (Some(Completion::Confirmed), 0));
    // Never confirmed, never withdrawn.
    let mut host = LabHost::new(policy(1), 1);
    host.policy.targets[0].drift = Drift::Report;
    host.state.report = None;
    host.files = vec![9];
    assert_eq!(words(&host.poll(0)), []);
    // Confirmed: once, until the next confirmation.
    host.state.report = Some(report(1));
    assert_eq!(words(&host.notice(60)), [("withdrawn", "drift")]);
    assert_eq!(words(&host.notice(120)), []);
    host.files = vec![1];
    assert_eq!(host.notice(180).committed, Some(Completion::Confirmed));
    host.files = vec![9];
    assert_eq!(words(&host.notice(240)), [("withdrawn", "drift")]);
}

#[test]
fn a_target_that_is_on_its_way_to_the_candidate_has_not_drifted() {
    // A run was killed after its swap, and the login cannot be tried now.
    let mut host = LabHost::new(policy(2), 2);
    host.killed_before = Some("activate");
    host.poll(0);
    assert_eq!(host.files, [2, 1]);
    host.troubles = vec![("verify", trouble("network", true))];
    assert_eq!(words(&host.poll(60)), []);
    // The source is not there either.
    host.troubles = vec![("fetch", trouble("network", true))];
    assert_eq!(words(&host.notice(70)), []);
    // Somebody put the new one in place before its time.
    let mut host = LabHost::new(policy(2), 2);
    host.files = vec![2, 1];
    host.troubles = vec![("verify", trouble("network", true))];
    assert_eq!(words(&host.poll(0)), []);
    let mut host = LabHost::new(manual(2), 2);
    host.poll(0);
    host.files = vec![1, 2];
    assert_eq!(words(&host.poll(60)), []);
    assert_eq!(words(&host.notice(120)), []);
    // Something else is something else, also while a version waits.
    host.files = vec![1, 9];
    host.policy.targets[1].drift = Drift::Report;
    assert_eq!(words(&host.poll(180)), [("withdrawn", "drift")]);
}

#[test]
fn a_change_by_hand_that_is_under_way_takes_nothing_back() {
    let mut policy = policy(1);
    policy.targets[0].write = false;
    // The text is edited, its map is not compiled yet: the mail server goes on with what was confirmed. Then it does not.
    for (in_use, withdrawn) in [("live1", 0), ("live9", 1)] {
        let mut state = applied(&policy, 1);
        state.report = Some(report(1));
        let mut facts = Facts::new(state, &policy, Wake::default(), false);
        let half = Inspection { holds: None, in_use: Some(in_use.into()), ..holds(1) };
        let mut go = good(found(2, 0), half, false);
        drive(&mut facts, &policy, at(0), |step| match step {
            Step::Preview { .. } => {
                let diff = vec!["compiled anew".to_owned()];
                Some(Outcome::Previewed(PlannedChange { diff, ..PlannedChange::default() }, "live2".into()))
            }
            step => go(step),
        });
        conclude(&mut facts, at(1), 0.5);
        let count = facts.news.iter().filter(|news| news.outcome == ReportOutcome::Withdrawn).count();
        assert_eq!(count, withdrawn, "{in_use}: {:?}", facts.news);
    }
}

#[test]
fn a_sign_of_life_is_given_daily() {
    let mut host = LabHost::new(policy(1), 1);
    assert_eq!(words(&host.poll(0)), []);
    let due = host.state.alive_due.unwrap();
    assert_eq!(due, at(24 * HOUR), "half of the jitter is none");
    let seconds = due.as_second() - NOW;
    assert_eq!(words(&host.poll(seconds - 1)), []);
    let run = host.poll(seconds);
    assert_eq!(run.news, [("alive", "v1".to_owned(), String::new())]);
    assert_eq!(host.state.alive_due, Some(due + SignedDuration::from_hours(24)));
    // Anything else that is told is a sign, too; told by a step, or by the end of a run.
    host.policy.mode = manual(1).mode;
    host.source = 2;
    assert_eq!(words(&host.poll(seconds + 20 * HOUR)), [("pending-approval", "held")]);
    assert_eq!(host.state.alive_due, Some(due + SignedDuration::from_hours(44)));
    host.source = 3;
    assert_eq!(words(&host.poll(seconds + 44 * HOUR)), [("pending-approval", "held")], "not both at once");
    host.approve(None, seconds + 50 * HOUR);
    assert_eq!(host.state.alive_due, Some(due + SignedDuration::from_hours(74)));
    // Not before the first confirmation.
    let mut host = LabHost::unknown(policy(1), 1, 2);
    host.troubles = vec![("verify", trouble("tls", false))];
    host.poll(0);
    assert_eq!(host.state.alive_due, None);
    assert_eq!(words(&host.notice(200 * HOUR)), []);
}

#[test]
fn a_host_with_a_lease_gives_signs_of_life_within_it() {
    for (lease, hours) in [(None, 24), (Some(3600), 1), (Some(30 * 86_400), 24)] {
        let lease = lease.map(std::time::Duration::from_secs);
        let mut host = LabHost::new(Policy { lease, ..policy(1) }, 1);
        host.poll(0);
        assert_eq!(host.state.alive_due, Some(at(hours * HOUR)), "half of the jitter is none");
        assert_eq!(words(&host.poll(hours * HOUR - 1)), []);
        assert_eq!(words(&host.poll(hours * HOUR)), [("alive", "")]);
        let latest = at(0) + SignedDuration::from_mins(66 * hours);
        assert_eq!(alive_due(at(0), lease), Some(latest), "and says when the next is there");
    }
}

#[test]
fn a_sign_of_life_proves_anew_what_is_in_use() {
    let confirmed = || {
        let mut host = LabHost::new(policy(2), 1);
        host.poll(0);
        let target = |name: &str| ReportTarget { name: name.into(), ..reported() };
        host.state.report = Some(Report { targets: vec![target("t0"), target("t1")], ..report(1) });
        host
    };
    let proofs = |run: &super::lab::LabRun| {
        let last = run.told.last().expect("a sign of life");
        assert_eq!(last.outcome, ReportOutcome::Alive);
        last.attested.iter().map(|found| found.proof.clone()).collect::<Vec<_>>()
    };
    let mut host = confirmed();
    let run = host.poll(24 * HOUR);
    assert_eq!(proofs(&run), [Ok("proof of 1".to_owned()), Ok("proof of 1".to_owned())]);
    assert_eq!(run.steps.iter().filter(|step| **step == "attest").count(), 2);
    assert_eq!((run.told[0].seq, rfc3339(run.told[0].at).as_str()), (host.state.seq, "2027-01-16T08:00:00Z"));
    // Not before its time, and once.
    assert!(!host.poll(24 * HOUR + 60).steps.contains(&"attest"));
    // Where one of them has none, or holds something else, it is given without: half a proof would be taken for none.
    let mut host = confirmed();
    host.troubles = vec![("attest 1", Outcome::Mismatch(failure(true)))];
    assert_eq!(proofs(&host.poll(24 * HOUR)), []);
    let mut host = confirmed();
    host.policy.targets[1].drift = Drift::Report;
    host.files = vec![1, 9];
    host.poll(60);
    let run = host.poll(25 * HOUR);
    assert_eq!((proofs(&run), run.steps.contains(&"attest")), (vec![], false));
    // Nor where the mail server is known not to have read it.
    let mut host = confirmed();
    host.troubles = vec![("activate", Outcome::ReloadOwed(failure(true)))];
    host.owed = vec![false, true];
    let run = host.poll(24 * HOUR);
    assert!(!run.steps.contains(&"attest"), "{:?}", run.steps);
    // Something else is told meanwhile: the number of the proof is used up, and the sign of life is given.
    let mut host = confirmed();
    let due = host.state.alive_due.unwrap();
    let mut facts = Facts::new(host.state.clone(), &host.policy, Wake::default(), false);
    drive(&mut facts, &host.policy, due, good(found(1, 0), holds(1), true));
    assert_eq!(facts.attested.as_ref().map(|a| a.targets.len()), Some(2));
    facts.state.seq = facts.attested.as_ref().unwrap().stamp.seq;
    conclude(&mut facts, due, 0.5);
    assert_eq!((facts.news.len(), facts.news[0].attested.len()), (1, 0));
    assert_eq!(host.seqs.pop(), Some(host.state.seq));
}

/// A target as a confirmation names it.
fn reported() -> ReportTarget {
    ReportTarget {
        name: "t0".into(),
        kind: "postfix".into(),
        map: "hash:/t".into(),
        tables: Vec::new(),
        keys: Vec::new(),
        read_back: "postmap -q".into(),
        held: StillHeld::default(),
        region: None,
        evidence: evidence(),
        proof: None,
        no_proof: None,
    }
}

#[test]
fn a_sign_of_life_says_what_was_looked_up_and_not_what_should_be_there() {
    let mut policy = policy(1);
    policy.targets[0].drift = Drift::Report;
    let mut host = LabHost::new(policy, 1);
    host.poll(0);
    host.files = vec![9];
    assert_eq!(host.poll(60).outcomes(), ["withdrawn"]);
    let run = host.poll(3 * 86_400);
    assert_eq!(run.news, [("alive", "v1".to_owned(), "drift".to_owned())]);
    let words = &run.told[0].error.as_ref().unwrap().words;
    assert!(words.contains("uses AKIA9") && words.contains("(AKIA1)"), "{words}");
}

/// A mail server that was not told of what is in its files may go on with what was there before.
#[test]
fn a_report_names_no_key_as_in_use_where_a_reload_is_owed() {
    let policy = policy(1);
    let mut state = applied(&policy, 1);
    let in_use = |state: &State| Facts::new(state.clone(), &policy, Wake::default(), false).in_use();
    assert_eq!(in_use(&state), Some(vec!["AKIA1".to_owned()]));
    state.targets.get_mut("t0").unwrap().reload_owed = Some(ReloadOwed { since: at(-60), why: "never".into() });
    assert_eq!(in_use(&state), None);
}

/// What the mail log told of was about the login that is put right now.
#[test]
fn a_login_of_our_own_that_was_accepted_is_over_with_the_heal() {
    let mut host = LabHost::new(policy(1), 1);
    let id = host.state.applied.as_ref().unwrap().id.clone();
    let last = Tried { at: at(-30), endpoint: "e:587".into(), result: OwnResult::Accepted };
    let own = OwnLoginTrials { last: Some(last), ..OwnLoginTrials::of(&id) };
    host.state.targets.get_mut("t0").unwrap().own_login = Some(own);
    host.files = vec![9];
    let run = host.poll(60);
    assert!(run.wrote() && run.committed.is_some(), "{:?}", run.steps);
    assert_eq!(host.state.own_login(), None);
}

#[test]
fn a_key_that_has_become_old_is_told_of_once() {
    let mut host = LabHost::new(policy(1), 1);
    let applied = host.state.applied.as_ref().unwrap();
    let made = applied.id.order.map_or(applied.since, |order| order.at);
    let after = |days: i64| (made + SignedDuration::from_hours(24 * days)).as_second() - NOW + 1;
    host.poll(after(89));
    let old = |run: &[(&str, &str)]| run.iter().filter(|(_, class)| *class == "old-key").count();
    assert_eq!(old(&words(&host.poll(after(90) - 10))), 0);
    assert_eq!(words(&host.poll(after(90))), [("alive", "old-key")]);
    assert_eq!(old(&words(&host.poll(after(92)))), 0, "once");
    // The next one has its own time.
    host.source = 2;
    assert_eq!(old(&words(&host.poll(after(93)))), 1, "made as long ago as the first");
    assert_eq!(host.state.applied.as_ref().unwrap().username, "AKIA2");
    assert_eq!(old(&words(&host.poll(after(94)))), 0);
}

#[test]
fn signs_of_life_are_spread_by_a_tenth_of_a_day() {
    for (jitter, minutes) in [(0.0, 1296), (0.5, 1440), (1.0, 1584)] {
        let policy = policy(1);
        let mut facts = Facts::new(applied(&policy, 1), &policy, Wake::default(), false);
        conclude(&mut facts, at(0), jitter);
        let due = facts.state.alive_due.unwrap().duration_since(at(0));
        assert!((due.as_secs() - minutes * 60).abs() <= 1, "{jitter}: {due}");
    }
}

#[test]
fn a_host_that_leaves_says_so_and_is_silent_until_it_confirms_again() {
    let mut host = LabHost::new(policy(1), 1);
    host.poll(0);
    let leave = || Wake { leave: true, ..Wake::default() };
    let run = host.order(leave(), 60);
    assert_eq!((run.steps.as_slice(), run.carried_out), (["leave"].as_slice(), Some(true)));
    assert_eq!(run.news, [("left", "v1".to_owned(), String::new())]);
    assert_eq!((host.state.left, host.state.alive_due), (Some(at(60)), None));
    for day in 1..5 {
        assert_eq!(words(&host.poll(day * 24 * HOUR)), []);
    }
    host.source = 2;
    assert_eq!(host.poll(200 * HOUR).committed, Some(Completion::Confirmed));
    assert_eq!(host.state.left, None);
    assert!(host.state.alive_due.is_some());
}

#[test]
fn numbers_grow_also_when_the_clock_goes_back() {
    // The lab looks at every number.
    let mut host = LabHost::new(manual(1), 2);
    host.poll(1_000_000);
    host.reject(None, 500_000);
    host.source = 3;
    host.poll(400_000);
    host.approve(None, 300_000);
    host.files = vec![9];
    host.policy.targets[0].drift = Drift::Report;
    host.notice(200_000);
    host.files = vec![3];
    host.notice(100_000);
    host.order(Wake { leave: true, ..Wake::default() }, 0);
    assert_eq!(host.seqs.len(), 1 + 7);
    assert!(host.seqs.is_sorted(), "{:?}", host.seqs);
    let first = u64::try_from(at(1_000_000).as_millisecond()).unwrap();
    assert_eq!(host.seqs[1..], (0..7).map(|n| first + n).collect::<Vec<_>>());
}

#[test]
fn a_person_who_asked_in_vain_has_the_answer_and_nobody_else_is_told() {
    let mut host = LabHost::new(manual(1), 2);
    host.poll(-10);
    for run in [host.approve(Some("v7"), 0), host.reject(Some("v7"), 10), host.order(accept("v7"), 20)] {
        assert_eq!((run.failures.len(), words(&run)), (1, vec![]));
    }
    assert!(host.state.failing.is_empty());
}
