//! Where people decide, or change the files themselves.

use super::lab::{LabHost, LabRun, approve, refused, trouble};
use super::*;

const DAY: i64 = 86_400;

fn confirm() -> Wake {
    Wake { confirm: true, ..Wake::default() }
}

/// As [`policy`]; a person changes these targets.
fn by_hand(targets: usize, hands: &[usize]) -> Policy {
    let mut policy = policy(targets);
    hands.iter().for_each(|&i| policy.targets[i].write = false);
    policy
}

// ---------------------------------------------------------------- held

#[test]
fn a_version_is_verified_and_held_and_that_is_told_once() {
    let mut host = LabHost::new(manual(1), 2);
    let run = host.poll(0);
    assert_eq!(run.steps.clone(), ["inspect", "fetch", "verify", "preview", "hold"]);
    assert_eq!(run.news, [("pending-approval", "v2".to_owned(), "held".to_owned())]);
    let told = &run.told[0];
    assert_eq!((told.username.as_str(), told.previous_username.as_deref()), ("AKIA2", Some("AKIA1")));
    let words = &told.error.as_ref().unwrap().words;
    assert!(words.contains("relaykey approve ses --version v2"), "{words}");
    assert!(run.waits && run.failures.is_empty());
    assert_eq!(run.last, Step::Wait { until: at(DAY) });
    assert_eq!(run.reason, "version v2 waits for approval");
    assert_eq!(host.state.targets["t0"].change, Some(change()));
    // Every five minutes it is looked at, and nothing is done; a day later it is verified again.
    for seconds in (300..DAY).step_by(3000) {
        let run = host.poll(seconds);
        assert_eq!((run.steps.clone(), run.outcomes()), (vec!["inspect", "fetch"], vec![]), "{seconds}");
        assert!(run.waits);
    }
    for day in 1..4 {
        let run = host.poll(day * DAY);
        assert_eq!(run.steps.clone(), ["inspect", "fetch", "verify", "preview", "hold"]);
        assert!(!run.outcomes().contains(&"pending-approval"), "{:?}", run.news);
    }
    assert_eq!(host.candidate().held.as_ref().unwrap().since, at(0));
    // Somebody who asks sees it verified.
    let run = host.order(Wake::default(), 3 * DAY + 60);
    assert_eq!(run.steps.clone(), ["inspect", "fetch", "verify", "preview", "hold"]);
    assert_eq!((host.version(), run.news.len()), ("v1", 0));
}

#[test]
fn approved_it_goes_straight_down() {
    let mut host = LabHost::new(manual(1), 2);
    host.poll(0);
    let run = host.approve(None, 60);
    let down = ["inspect", "fetch", "verify", "prepare", "swap", "activate", "read-back", "commit"];
    assert_eq!((run.steps.as_slice(), run.approved_by.as_deref()), (down.as_slice(), Some("alice")));
    assert_eq!((host.version(), host.state.candidate.as_ref(), run.news.len()), ("v2", None, 0));
    assert_eq!(host.state.targets["t0"].change, None);
    // By its name it goes without having waited.
    let mut host = LabHost::new(manual(1), 2);
    let run = host.approve(Some("v2"), 0);
    assert_eq!((run.steps.as_slice(), run.approved_by.as_deref()), (down.as_slice(), Some("alice")));
}

#[test]
fn what_nobody_has_seen_is_not_approved_without_its_name_and_waits_from_then_on() {
    let held = ["inspect", "fetch", "verify", "preview", "hold"];
    let mut host = LabHost::new(manual(1), 2);
    let run = host.approve(None, 0);
    assert_eq!((run.failures.clone(), run.steps.as_slice()), (vec!["nothing-waits".to_owned()], held.as_slice()));
    assert_eq!((run.outcomes(), host.version()), (vec!["pending-approval"], "v1"), "others are told that it waits");
    assert_eq!((&host.candidate().approval, host.candidate().held.is_some()), (&None, true));
    // Now it was seen: without another look in between, the next word is meant for it.
    let run = host.approve(None, 1);
    assert_eq!((run.committed, run.approved_by.as_deref()), (Some(Completion::Confirmed), Some("alice")));
    assert_eq!((host.version(), run.failures.len()), ("v2", 0));
    // One that fails does not wait, and both are said.
    let mut host = LabHost::new(manual(1), 2);
    host.troubles = vec![("verify", trouble("network", true))];
    assert_eq!(host.approve(None, 0).failures, ["nothing-waits", "network"]);
    assert_eq!(host.candidate().held, None);
    // Nothing is there to be approved.
    let mut host = LabHost::new(manual(1), 1);
    assert_eq!(host.approve(None, 0).failures, ["nothing-to-do"]);
    assert_eq!(host.approve(Some("v1"), 0).failures, ["nothing-to-do"]);
    assert_eq!(host.approve(Some("v2"), 0).failures, ["changed-meanwhile"]);
}

#[test]
fn a_newer_version_replaces_the_one_that_is_held() {
    let mut host = LabHost::new(manual(1), 2);
    host.poll(0);
    host.troubles = vec![("prepare", trouble("io", true))];
    host.approve(None, 60);
    assert!(host.candidate().approval.is_some(), "it has not been put in place yet");
    (host.source, host.troubles) = (3, Vec::new());
    let run = host.poll(120);
    assert!(!run.staged(), "{:?}", run.steps);
    assert_eq!(run.news, [("pending-approval", "v3".to_owned(), "held".to_owned())]);
    let candidate = host.candidate();
    assert_eq!((candidate.id.clone(), candidate.approval.clone()), (version(3), None));
    assert_eq!(candidate.held.as_ref().unwrap().since, at(120));
    assert_eq!((host.version(), host.files[0]), ("v1", 1));
}

#[test]
fn an_approval_of_what_has_changed_meanwhile_applies_nothing() {
    for named in [None, Some("v2")] {
        let mut host = LabHost::new(manual(1), 2);
        host.poll(0);
        host.source = 3;
        let run = host.approve(named, 60);
        assert_eq!(
            (run.failures.clone(), run.outcomes()),
            (vec!["changed-meanwhile".to_owned()], vec!["pending-approval"])
        );
        assert_eq!((host.version(), run.committed), ("v1", None));
        assert_eq!(run.steps, ["inspect", "fetch", "verify", "preview", "hold"]);
        // What waits now is what is approved now.
        assert_eq!(host.approve(None, 180).committed, Some(Completion::Confirmed));
        assert_eq!(host.version(), "v3");
    }
}

#[test]
fn a_version_that_comes_while_the_approved_one_is_under_way_is_not_approved() {
    let mut policy = manual(2);
    policy.targets[1].retry = SignedDuration::from_secs(10);
    let mut host = LabHost::new(policy, 2);
    host.poll(0);
    // One target holds version 2, the other could not be logged in for; and then there is version 3.
    (host.troubles, host.then) = (vec![("verify 1", trouble("network", true))], Some(3));
    let run = host.run(approve(None), true, at(60), 5);
    assert_eq!(run.failures[0], "changed-meanwhile");
    assert_eq!((run.outcomes()[0], host.files.clone()), ("pending-approval", vec![2, 1]));
    host.troubles.clear();
    let run = host.poll(300);
    assert!(!run.staged(), "{:?}", run.steps);
    assert_eq!((run.outcomes(), host.files.clone()), (vec![], vec![2, 1]));
    let run = host.approve(None, 360);
    assert_eq!((run.committed, host.files), (Some(Completion::Confirmed), vec![3, 3]));
}

#[test]
fn each_version_is_let_go_by_itself() {
    // The login in use is refused: version 2 goes at once, into one target; version 3 comes before the other can have it.
    let mut policy = manual(2);
    policy.mode = Mode::Manual { window: None, if_applied_dies: IfAppliedDies::Apply };
    let mut host = LabHost::new(policy, 2);
    host.troubles = vec![("verify 1", trouble("network", true)), ("verify-applied", refused())];
    host.order(hint(), 0);
    host.order(hint(), 60);
    host.then = Some(3);
    let run = host.run(hint(), true, at(120), 60);
    assert_eq!(run.steps.iter().filter(|s| **s == "release").count(), 1, "{:?}", run.steps);
    assert_eq!((&host.files, &host.candidate().id), (&vec![3, 1], &version(3)));
}

/// A parameter that is deleted and made again counts from 1 again; what a killed run had put in place of the old one was not
/// let go for the new one.
#[test]
fn what_was_begun_of_another_source_or_of_an_unknown_one_was_not_let_go() {
    let order = |version: VersionId| VersionId {
        order: version.order.map(|o| VersionOrder { number: o.number + 1, ..o }),
        ..version
    };
    for (what, journal, begun) in [
        ("the same", swapped(2), true),
        ("of the same name", Swapped { id: order(version(2)), ..swapped(2) }, false),
        ("another source", Swapped { source: Some(source("arn:b")), ..swapped(2) }, false),
        ("a journal of 0.1.0", Swapped { source: None, ..swapped(2) }, false),
    ] {
        let mut host = LabHost::new(manual(1), 2);
        (host.files[0], host.journal[0]) = (9, Some(journal));
        let run = host.poll(0);
        assert_eq!((run.wrote(), run.waits, host.version() == "v2"), (begun, !begun, begun), "{what}: {:?}", run.steps);
        // Half swapped it is ours all the same, and goes on once somebody lets it.
        let run = host.approve(None, 60);
        assert_eq!((run.wrote(), host.version()), (!begun, "v2"), "{what}: {:?}", run.steps);
    }
}

#[test]
fn an_approval_outlasts_what_fails_for_now_and_a_crash() {
    let mut host = LabHost::new(manual(2), 2);
    host.poll(0);
    host.troubles = vec![("verify", trouble("network", true))];
    let run = host.approve(None, 60);
    assert_eq!(run.failures[0], "network");
    host.troubles = vec![("prepare 1", trouble("lock-held", true))];
    let run = host.poll(3600);
    assert!(run.wrote() && host.files == [2, 1], "{:?}", run.steps);
    host.troubles.clear();
    host.killed_before = Some("swap");
    host.poll(7200);
    let run = host.poll(7300);
    assert_eq!((run.committed, run.approved_by.as_deref()), (Some(Completion::Confirmed), Some("alice")));
    assert_eq!(host.files, [2, 2]);
}

#[test]
fn one_target_that_cannot_be_logged_in_for_is_tried_again_before_the_day_is_over() {
    let mut host = LabHost::new(manual(2), 2);
    host.troubles = vec![("verify 1", trouble("network", true))];
    let run = host.poll(0);
    let Step::Wait { until } = run.last else { panic!("{:?}", run.last) };
    assert!(until <= at(10), "{until}");
    assert_eq!((run.failures.clone(), run.waits), (vec!["network".to_owned()], true));
    host.troubles.clear();
    let run = host.poll(60);
    assert_eq!(run.steps.iter().filter(|s| **s == "verify").count(), 2, "{:?}", run.steps);
    assert_eq!((run.failures.clone(), run.last), (vec![], Step::Wait { until: at(60 + DAY) }));
}

#[test]
fn a_login_that_was_good_before_a_long_wait_is_tried_again() {
    let mut policy = manual(1);
    policy.mode = daily("06:00-07:00");
    let mut host = LabHost::new(policy, 2);
    // `sync --wait 12h`, at five in the morning.
    let run = host.run(Wake::default(), true, day(0, "05:00:00"), 12 * 3600);
    assert_eq!(run.committed, Some(Completion::Confirmed));
    assert_eq!(run.steps.iter().filter(|s| **s == "verify").count(), 2, "{:?}", run.steps);
    assert_eq!(run.steps.iter().filter(|s| **s == "inspect").count(), 2, "{:?}", run.steps);
}

#[test]
fn a_dry_run_shows_what_waits_and_decides_nothing() {
    let mut host = LabHost::new(manual(1), 2);
    host.poll(0);
    let before = host.state.clone();
    let dry = || Wake { dry_run: true, ..Wake::default() };
    let run = host.order(dry(), 60);
    assert_eq!(run.steps.clone(), ["inspect", "fetch", "verify", "preview"]);
    let mut after = host.state.clone();
    // The order to look again is the person's.
    after.candidate.as_mut().unwrap().held.as_mut().unwrap().next =
        before.candidate.as_ref().unwrap().held.as_ref().unwrap().next;
    assert_eq!((after, run.news.len()), (before, 0));
    let mut host = LabHost::new(manual(1), 2);
    let run = host.order(dry(), 0);
    assert_eq!(run.steps.clone(), ["inspect", "fetch", "verify", "preview"]);
    assert_eq!((&host.candidate().held, &host.state.targets["t0"].change, run.news.len()), (&None, &None, 0));
}

#[test]
fn what_is_in_use_already_needs_no_approval() {
    // Adopted: no state, and the table holds the version.
    let mut host = LabHost::unknown(manual(1), 2, 2);
    let run = host.poll(0);
    assert_eq!(
        run.steps.clone(),
        ["inspect", "fetch", "verify", "preview", "prepare", "activate", "read-back", "commit"]
    );
    assert_eq!((run.committed, run.approved_by, run.news.len()), (Some(Completion::Adopted), None, 0));
    // No state, and it holds another.
    let mut host = LabHost::unknown(manual(1), 1, 2);
    let run = host.poll(0);
    assert_eq!((run.outcomes(), run.staged()), (vec!["pending-approval"], false));
    assert_eq!(run.told[0].version, "v2");
    let run = host.approve(None, 60);
    assert_eq!((run.committed, host.files), (Some(Completion::Confirmed), vec![2]));
}

#[test]
fn a_file_that_changes_between_the_look_and_the_staging_is_not_written() {
    // It was right when it was looked at: nobody has let it be written.
    for policy in [manual(1), by_hand(1, &[0])] {
        let mut host = LabHost::new(policy, 2);
        host.files = vec![2];
        host.meanwhile = Some(("prepare", 0, 9));
        let run = host.poll(0);
        assert!(!run.wrote() && run.steps.contains(&"discard"), "{:?}", run.steps);
        assert_eq!(host.files, [9]);
        // Looked at again, it waits; and what had been confirmed is put back meanwhile, where that is relaykey's to do.
        let ours = host.policy.targets[0].write;
        let run = host.notice(60);
        assert!(run.staged() == ours && run.waits, "{:?}", run.steps);
        assert_eq!((host.version(), host.files[0]), ("v1", if ours { 1 } else { 9 }));
    }
}

// ---------------------------------------------------------------- rejected

#[test]
fn a_rejected_version_is_not_taken_and_stays_to_be_seen() {
    let mut host = LabHost::new(manual(1), 2);
    host.poll(0);
    let run = host.reject(None, 60);
    assert_eq!(run.steps.clone(), ["inspect", "reject"]);
    assert_eq!((run.news.clone(), run.carried_out), (vec![("rejected", "v2".into(), "rejected".into())], Some(true)));
    assert_eq!(run.told[0].error.as_ref().unwrap().words, "rejected by root: not now. The present login stays in use");
    let looks_away = |host: &mut LabHost, seconds: i64| {
        for run in [host.poll(seconds), host.order(Wake::default(), seconds + 1)] {
            assert_eq!((run.steps.clone(), run.outcomes()), (vec!["inspect", "fetch"], vec![]));
            assert!(!run.waits && run.failures.is_empty());
            assert_eq!(run.reason, "version v2 was rejected");
        }
        assert_eq!((host.version(), host.candidate().id.clone()), ("v1", version(2)));
        assert_eq!(host.state.rejected.len(), 1);
    };
    looks_away(&mut host, 120);
    // The source goes away from it, and comes back.
    host.source = 1;
    host.poll(200);
    assert_eq!(host.state.candidate, None);
    host.source = 2;
    looks_away(&mut host, 300);
    // Also without anybody to ask.
    host.policy.mode = Mode::Automatic;
    looks_away(&mut host, 400);
    host.policy.mode = manual(1).mode;
    // Approved without its name it is not; with it, it is.
    let run = host.approve(None, 500);
    assert_eq!((run.failures.clone(), host.version()), (vec!["rejected".to_owned()], "v1"));
    let run = host.approve(Some("v2"), 600);
    assert_eq!((run.committed, run.approved_by.as_deref()), (Some(Completion::Confirmed), Some("alice")));
    assert!(host.state.rejected.is_empty());
}

#[test]
fn a_rejected_version_does_not_stop_the_next_one() {
    let mut host = LabHost::new(manual(1), 2);
    host.poll(0);
    host.reject(Some("v2"), 60);
    host.source = 3;
    let run = host.poll(120);
    assert_eq!(run.news, [("pending-approval", "v3".to_owned(), "held".to_owned())]);
    host.approve(None, 180);
    assert_eq!(host.version(), "v3");
    // And the one before, although newer ones were taken since, stays rejected.
    host.source = 2;
    assert_eq!(host.poll(240).committed, None);
    assert_eq!(host.version(), "v3");
}

/// What an endpoint, a source and a person may say to a newer version, and nothing of it is about the one that was confirmed.
fn newer_versions() -> Vec<(&'static str, LabHost)> {
    let host = |policy: Policy, source: i64, troubles: Vec<(&'static str, Outcome)>| {
        let mut host = LabHost::new(policy, source);
        host.state.left_behind.push(version(-1));
        host.troubles = troubles;
        host
    };
    let mut rejected = host(manual(1), 2, Vec::new());
    rejected.poll(0);
    rejected.reject(None, 10);
    let mut refused_for_good = host(policy(1), 2, Vec::new());
    refused_for_good.policy.targets[0].propagation = SignedDuration::ZERO;
    vec![
        ("held", host(manual(1), 2, Vec::new())),
        ("rejected", rejected),
        ("refused", refused_for_good),
        ("not accepted yet", host(policy(1), 2, Vec::new())),
        ("left behind", host(manual(1), -1, Vec::new())),
        ("read once", host(policy(1), -2, Vec::new())),
        ("not to be had", host(policy(1), 2, vec![("probe", refused())])),
    ]
}

#[test]
fn what_was_confirmed_is_put_back_although_a_newer_version_is_not_put_into_use() {
    for (what, mut host) in newer_versions() {
        host.policy.probe = what == "not to be had";
        let is_refused = what == "refused" || what == "not accepted yet";
        // It is met before anybody changes anything, and once more after it.
        let meet = |host: &mut LabHost, seconds: i64| {
            let mut run = host.poll(seconds);
            if is_refused {
                // The endpoint takes what was confirmed, and not what came after it.
                run.steps.retain(|step| *step != "verify");
            }
            run
        };
        host.refuses = is_refused.then_some(2);
        meet(&mut host, 20);
        let before = (host.state.candidate.clone(), host.state.targets["t0"].retry.clone(), host.state.failing.clone());
        let first_refused = host.state.targets["t0"].first_refused.clone();
        host.files = vec![9];
        let run = meet(&mut host, 25);
        assert!(run.wrote() && run.steps.contains(&"fetch-applied"), "{what}: {:?}", run.steps);
        assert_eq!(
            (host.version(), host.files[0], host.journal[0].is_none()),
            ("v1", 1, true),
            "{what}: {:?}",
            run.steps
        );
        assert!(!run.outcomes().contains(&"withdrawn") && host.state.withdrawn.is_none(), "{what}: {:?}", run.news);
        assert!(!run.failures.contains(&"drift".to_owned()), "{what}: {:?}", run.said);
        assert_eq!((run.committed, &host.state.put_back), (None, &Retry::default()), "{what}");
        // What was met by the newer one stands, and is told no second time.
        let id =
            |c: &Option<Candidate>| c.as_ref().map(|c| (c.id.clone(), c.first_seen, c.held.as_ref().map(|h| h.since)));
        assert_eq!(id(&host.state.candidate), id(&before.0), "{what}");
        assert_eq!(host.state.targets["t0"].retry, before.1, "{what}");
        assert_eq!(host.state.targets["t0"].first_refused, first_refused, "{what}");
        assert_eq!(
            host.state.failing.iter().map(|f| f.told).collect::<Vec<_>>(),
            before.2.iter().map(|f| f.told).collect::<Vec<_>>(),
            "{what}"
        );
        assert!(run.outcomes().is_empty(), "{what}: {:?}", run.news);
        // Nothing is done where nothing is changed.
        let run = meet(&mut host, 31);
        assert!(!run.staged() && !run.steps.contains(&"fetch-applied"), "{what}: {:?}", run.steps);
        // Not more often than at any other time.
        for n in 0..3 {
            host.files = vec![9];
            let run = meet(&mut host, 40 + n);
            assert_eq!(run.wrote(), n < 2, "{what}: {:?}", run.steps);
        }
        assert_eq!(host.state.targets["t0"].heals.len(), HEALS, "{what}");
        assert!(host.state.withdrawn.is_some(), "{what}");
    }
}

#[test]
fn a_run_that_was_killed_while_it_put_back_what_was_confirmed_is_finished_by_the_next() {
    for word in ["prepare", "swap", "activate", "read-back", "commit"] {
        for reject in [false, true] {
            let mut host = LabHost::new(manual(2), 2);
            host.poll(0);
            if reject {
                host.reject(None, 10);
            }
            host.files = vec![9, 1];
            host.killed_before = Some(word);
            host.poll(20);
            assert_eq!(host.candidate().id, version(2), "{word}");
            let run = host.poll(30);
            assert_eq!(
                (host.version(), host.files.clone(), host.journal.clone()),
                ("v1", vec![1, 1], vec![None, None]),
                "{word}"
            );
            assert_eq!((run.waits, run.failures.clone()), (!reject, vec![]), "{word}: {:?}", run.said);
            assert!(host.owed.iter().all(|owed| !owed), "{word}");
        }
    }
}

#[test]
fn where_what_was_confirmed_cannot_be_put_back_that_is_said_and_is_no_success() {
    // The source does not give it, does not answer, or the endpoint does not take it any more.
    let cases = [
        ("fetch-applied", trouble("not-given", false), false, 1),
        ("fetch-applied", trouble("network", true), true, 1),
        ("verify", refused(), false, 1),
        ("prepare", trouble("locked", true), true, 1),
    ];
    for (word, outcome, temporary, withdrawn) in cases {
        for reject in [false, true] {
            let mut host = LabHost::new(manual(1), 2);
            host.poll(0);
            if reject {
                host.reject(None, 10);
            }
            host.troubles = vec![(word, outcome.clone())];
            host.files = vec![9];
            let run = host.poll(20);
            assert!(run.failures.contains(&"drift".to_owned()) && !run.wrote(), "{word}: {:?}", run.failures);
            assert_eq!(
                run.outcomes().iter().filter(|o| **o == "withdrawn").count(),
                withdrawn,
                "{word}: {:?}",
                run.news
            );
            let failure = host.state.put_back.failure.clone().expect("it stands");
            assert!(failure.what.contains("(AKIA1), and it could not be put back: "), "{}", failure.what);
            assert_eq!(failure.temporary, temporary, "{word}");
            if !temporary && word == "fetch-applied" {
                assert!(failure.fix.contains("put the login of AKIA1 back by hand"), "{}", failure.fix);
                assert!(failure.fix.contains("relaykey approve ses --version v2"), "{}", failure.fix);
            }
            // It is not asked for at every look, stands until then, and is told once.
            let run = host.poll(21);
            assert!(!run.steps.contains(&"fetch-applied"), "{word}: {:?}", run.steps);
            assert!(run.failures.contains(&"drift".to_owned()) && run.outcomes().is_empty(), "{word}: {:?}", run.news);
            let dry = host.order(Wake { dry_run: true, ..Wake::default() }, 22);
            assert!(dry.failures.contains(&"drift".to_owned()), "{word}: {:?}", dry.failures);
            // Who asks has it tried at once; and so does the time.
            let run = host.notice(23);
            assert!(run.steps.contains(&"fetch-applied"), "{word}: {:?}", run.steps);
            host.troubles.clear();
            let run = host.poll(DAY / 2);
            assert!(run.wrote() && run.failures.is_empty(), "{word}: {:?} {:?}", run.steps, run.said);
            assert_eq!(
                (host.files[0], &host.state.put_back, host.state.withdrawn),
                (1, &Retry::default(), None),
                "{word}"
            );
        }
    }
}

#[test]
fn what_is_not_to_be_put_back_beside_a_rejected_version_is_said() {
    let mut host = LabHost::new(manual(1), 2);
    host.policy.targets[0].drift = Drift::Report;
    host.poll(0);
    host.reject(None, 60);
    host.files = vec![9];
    let run = host.notice(120);
    assert_eq!(
        (run.steps.clone(), run.failures.clone()),
        (vec!["inspect", "fetch", "refrain"], vec!["drift".to_owned()])
    );
    assert_eq!(run.outcomes(), ["withdrawn"]);
    let failure = host.state.targets["t0"].retry.failure.clone().expect("it stands");
    assert!(failure.what.contains("version v2 (AKIA2) was rejected"), "{}", failure.what);
    assert!(failure.fix.contains("put the login of AKIA1 back by hand"), "{}", failure.fix);
    assert!(failure.fix.contains("relaykey approve ses --version v2"), "{}", failure.fix);
    // Told once, and no success before its time either.
    for run in [host.poll(180), host.notice(240), host.order(Wake { dry_run: true, ..Wake::default() }, 300)] {
        assert_eq!((run.failures.clone(), run.news.len(), run.staged()), (vec!["drift".to_owned()], 0, false));
    }
    // Put right by hand, it is over.
    host.files = vec![1];
    let run = host.notice(360);
    assert_eq!((run.steps.clone(), run.failures.clone()), (vec!["inspect", "fetch"], vec![]));
    assert_eq!(host.state.targets["t0"].retry, Retry::default());
    // It keeps nobody from taking the rejected one after all.
    host.files = vec![9];
    host.poll(420);
    let run = host.approve(Some("v2"), 480);
    assert_eq!((run.committed, host.version(), host.files.clone()), (Some(Completion::Confirmed), "v2", vec![2]));
}

#[test]
fn of_several_targets_the_changed_one_is_put_back_and_the_others_are_left() {
    // One holds the version that waits already, because somebody put it there: that is theirs.
    let mut host = LabHost::new(manual(3), 2);
    host.poll(0);
    host.files = vec![9, 2, 1];
    let run = host.poll(10);
    assert_eq!((host.files.clone(), run.committed), (vec![1, 2, 1], None), "{:?}", run.steps);
    let run = host.poll(20);
    assert!(!run.staged() && run.waits, "{:?}", run.steps);
    // One cannot be looked at.
    let mut host = LabHost::new(manual(2), 2);
    host.poll(0);
    host.files = vec![9, 1];
    host.troubles = vec![("inspect 1", trouble("io", true))];
    host.poll(10);
    assert_eq!(host.files, [1, 1]);
    host.troubles.clear();
    let run = host.notice(7200);
    assert!(run.failures.is_empty() && run.waits, "{:?}", run.said);
    assert_eq!(host.journal, [None, None]);
}

#[test]
fn who_only_looks_or_confirms_puts_nothing_back() {
    for wake in [Wake { dry_run: true, ..Wake::default() }, confirm(), Wake { leave: true, ..Wake::default() }] {
        let mut host = LabHost::new(manual(1), 2);
        host.poll(0);
        host.files = vec![9];
        let run = host.order(wake, 10);
        assert!(!run.staged() && !run.steps.contains(&"fetch-applied"), "{:?}", run.steps);
    }
}

#[test]
fn the_rejected_version_put_in_by_hand_or_by_a_killed_run_is_nobody_elses() {
    let mut host = LabHost::new(manual(1), 2);
    host.poll(0);
    host.reject(None, 60);
    host.files = vec![2];
    let run = host.notice(120);
    assert_eq!((run.steps.clone(), run.failures.clone()), (vec!["inspect", "fetch"], vec![]));
}

#[test]
fn a_rejection_is_about_what_the_person_saw() {
    let mut host = LabHost::new(manual(1), 2);
    let run = host.reject(None, 0);
    assert_eq!((run.failures.clone(), run.carried_out), (vec!["nothing-waits".to_owned()], Some(false)));
    host.poll(60);
    let run = host.reject(Some("v3"), 120);
    assert_eq!((run.failures.clone(), run.carried_out), (vec!["changed-meanwhile".to_owned()], Some(false)));
    assert!(run.news.is_empty() && host.state.rejected.is_empty());
    assert!(host.candidate().held.is_some(), "it waits as before");
}

/// Deleted and made again, a parameter counts from 1 again. A person who names version 2 may have seen either, whatever was
/// looked at since: they are told, and what they then name once more is meant.
#[test]
fn a_number_that_was_another_versions_before_is_asked_about_once() {
    // What had become of the version 2 of before when the source was made anew, how it comes to be so, and whether the
    // source had others in between.
    type Before = fn(&mut LabHost);
    let before: [(&str, Before); 4] = [
        ("waits", |_| ()),
        ("rejected", |host| _ = host.reject(None, 10)),
        ("applied", |host| _ = host.approve(None, 10)),
        ("left behind", |host| {
            host.approve(None, 10);
            host.source = 3;
            host.poll(20);
            host.approve(None, 30);
        }),
    ];
    let made_anew = |before: Before, between: bool| {
        let mut host = LabHost::new(manual(1), 2);
        host.poll(0);
        before(&mut host);
        if between {
            host.source = 4;
            host.poll(40);
        }
        // Key 5 is version 2 of the source that was made anew, and is seen before anybody says anything.
        (host.source, host.renumbered) = (5, Some((5, 2)));
        let run = host.poll(50);
        assert_eq!(run.outcomes(), ["pending-approval"]);
        host
    };
    for (what, before) in before {
        for between in [false, true] {
            let of = format!("{what}, others in between: {between}");
            let mut host = made_anew(before, between);
            let used = host.files.clone();
            let run = host.approve(Some("v2"), 60);
            assert_eq!(run.failures, ["changed-meanwhile"], "{of}");
            assert!((&host.files, run.staged()) == (&used, false), "{of}: {:?}", run.steps);
            // Looking at it is no word about it.
            let run = host.poll(70);
            assert!((run.waits, &host.files, run.staged()) == (true, &used, false), "{of}: {:?}", run.steps);
            assert_eq!(host.approve(Some("v2"), 80).committed, Some(Completion::Confirmed), "{of}");
            assert_eq!(host.files, [5], "{of}");

            let mut host = made_anew(before, between);
            let rejected = host.state.rejected.len();
            let run = host.reject(Some("v2"), 60);
            assert_eq!((run.failures, run.carried_out), (vec!["changed-meanwhile".to_owned()], Some(false)), "{of}");
            assert!(host.state.rejected.len() == rejected && host.candidate().held.is_some(), "{of}");
            assert_eq!(host.reject(Some("v2"), 80).carried_out, Some(true), "{of}");
            assert_eq!(host.state.rejected.last().map(|r| &r.id), Some(&host.candidate().id), "{of}");
        }
    }
    // Whose number was nobody's before is taken at its word.
    let mut host = made_anew(|_| (), false);
    host.source = 6;
    host.poll(60);
    assert_eq!(host.approve(Some("v6"), 70).committed, Some(Completion::Confirmed));
}

/// As above, for what is not newer and is taken because a person names it.
#[test]
fn a_number_that_was_another_versions_before_is_not_accepted_at_the_first_word() {
    let mut host = LabHost::new(policy(1), 5);
    host.poll(0);
    host.source = 6;
    host.poll(10);
    assert_eq!((host.version(), host.files.clone()), ("v6", vec![6]));
    // Older than what is applied, and of the number of the one that was left behind.
    (host.source, host.renumbered) = (3, Some((3, 5)));
    host.poll(20);
    let run = host.order(accept("v5"), 30);
    assert_eq!((run.failures, host.files.clone()), (vec!["changed-meanwhile".to_owned()], vec![6]));
    let run = host.order(accept("v5"), 40);
    assert_eq!((run.committed, host.files), (Some(Completion::Confirmed), vec![3]));
}

#[test]
fn what_is_in_place_already_cannot_be_rejected() {
    let mut host = LabHost::new(manual(2), 2);
    host.poll(0);
    host.troubles = vec![("prepare 1", trouble("lock-held", true))];
    host.approve(None, 60);
    assert_eq!(host.files, [2, 1]);
    let run = host.reject(None, 120);
    assert_eq!((run.failures.clone(), run.carried_out), (vec!["begun".to_owned()], Some(false)));
    host.troubles.clear();
    let run = host.notice(180);
    assert_eq!((run.committed, host.files), (Some(Completion::Confirmed), vec![2, 2]));
}

#[test]
fn only_so_many_rejections_are_remembered() {
    let mut host = LabHost::new(manual(1), 2);
    for n in 0..i64::try_from(REJECTED).unwrap() + 5 {
        host.source = n + 2;
        host.poll(n * 100);
        host.reject(None, n * 100 + 50);
    }
    assert_eq!(host.state.rejected.len(), REJECTED);
    assert_eq!(host.state.rejected[0].id, version(7));
}

#[test]
fn approving_where_nobody_needs_to_undoes_no_rejection() {
    let mut host = LabHost::new(manual(1), 3);
    host.poll(0);
    host.approve(None, 10);
    // Left behind: 1. It may not come back because somebody approves it where approvals count for nothing.
    host.policy.mode = Mode::Automatic;
    host.source = 1;
    assert_eq!(host.approve(Some("v1"), 60).failures, ["left-behind"]);
    host.poll(120);
    assert_eq!(host.version(), "v3");
    // What was rejected may be approved by its name in any mode, also if that takes two attempts.
    (host.source, host.policy.mode) = (4, manual(1).mode);
    host.poll(180);
    host.reject(None, 240);
    host.policy.mode = Mode::Automatic;
    assert_eq!(host.approve(None, 250).failures[0], "rejected");
    host.troubles = vec![("verify", trouble("network", true))];
    let run = host.run(approve(Some("v4")), true, at(300), 60);
    assert_eq!(run.failures[0], "network");
    host.troubles.clear();
    assert_eq!(host.notice(400).committed, Some(Completion::Confirmed));
    assert_eq!(host.version(), "v4");
}

#[test]
fn a_version_that_is_taken_on_purpose_is_still_held() {
    let mut host = LabHost::new(manual(1), 2);
    host.poll(0);
    host.approve(None, 10);
    host.source = 1;
    let run = host.order(accept("v1"), 60);
    assert_eq!((run.outcomes(), run.staged()), (vec!["pending-approval"], false));
    // And is, later, without being named again.
    let run = host.approve(None, 120);
    assert_eq!((run.committed, host.files), (Some(Completion::Confirmed), vec![1]));
}

// ---------------------------------------------------------------- windows

/// This day of January 2027 (the 15th is day 0, a Friday), at a time of day in UTC.
fn day(day: i64, time: &str) -> Timestamp {
    format!("2027-01-{:02}T{time}Z", 15 + day).parse().unwrap()
}

fn daily(hours: &str) -> Mode {
    window(&format!("daily {hours}"))
}

fn window(text: &str) -> Mode {
    Mode::Manual { window: Some(config::Window::parse(text).unwrap()), if_applied_dies: IfAppliedDies::Wait }
}

fn at_time(host: &mut LabHost, now: Timestamp) -> LabRun {
    host.run(Wake::default(), false, now, 0)
}

#[test]
fn before_the_window_it_waits_exactly_until_it_opens_and_within_it_goes_by_itself() {
    let policy = Policy { mode: window("Sat 02:00-04:00"), ..manual(1) };
    let mut host = LabHost::new(policy, 2);
    let run = at_time(&mut host, day(0, "12:00:00"));
    let opens = day(1, "02:00:00");
    assert_eq!((run.outcomes(), run.last), (vec!["pending-approval"], Step::Wait { until: opens }));
    let words = &run.told[0].error.as_ref().unwrap().words;
    assert!(words.contains("2027-01-16T02:00:00Z (apply = \"Sat 02:00-04:00\")"), "{words}");
    let run = at_time(&mut host, opens - SignedDuration::from_secs(1));
    assert!(!run.staged() && run.last == Step::Wait { until: opens }, "{:?}", run.last);
    let run = at_time(&mut host, opens);
    let down = ["inspect", "fetch", "verify", "release", "prepare", "swap", "activate", "read-back", "commit"];
    assert_eq!(
        (run.steps.as_slice(), run.approved_by.as_deref()),
        (down.as_slice(), Some("apply = \"Sat 02:00-04:00\""))
    );
    // A version that comes while it is open does not wait, and needs no word.
    host.source = 3;
    let run = at_time(&mut host, day(1, "03:59:59"));
    assert_eq!((run.committed, run.news.len()), (Some(Completion::Confirmed), 0));
    // One that comes after it waits for a week.
    host.source = 4;
    let run = at_time(&mut host, day(1, "04:00:00"));
    assert_eq!(run.outcomes(), ["pending-approval"]);
    assert!(matches!(run.last, Step::Wait { until } if until == day(2, "04:00:00")), "verified daily: {:?}", run.last);
    // And a person need not wait for it.
    let run = host.run(approve(None), true, day(3, "12:00:00"), 0);
    assert_eq!((run.approved_by.as_deref(), host.version()), (Some("alice"), "v4"));
}

#[test]
fn what_failed_while_the_window_was_open_waits_for_the_next_one() {
    let mut host = LabHost::new(Policy { mode: daily("02:00-04:00"), ..manual(1) }, 2);
    at_time(&mut host, day(0, "12:00:00"));
    host.troubles = vec![("prepare", trouble("lock-held", true))];
    let run = at_time(&mut host, day(1, "03:59:00"));
    assert_eq!((run.failures[0].as_str(), host.files[0]), ("lock-held", 1));
    host.troubles.clear();
    let run = at_time(&mut host, day(1, "04:00:00"));
    assert!(!run.staged(), "{:?}", run.steps);
    assert_eq!(host.candidate().approval, None, "it is over");
    assert!(!run.outcomes().contains(&"pending-approval"), "told before");
    // Whoever puts it in place by hand now has not been let by the window.
    host.files = vec![2];
    let run = host.run(Wake::default(), true, day(1, "05:00:00"), 0);
    assert_eq!((run.committed, run.approved_by), (Some(Completion::Confirmed), None));
}

#[test]
fn what_was_begun_goes_on_after_the_window() {
    for killed_before in ["activate", "read-back", "commit"] {
        let mut host = LabHost::new(Policy { mode: daily("02:00-04:00"), ..manual(2) }, 2);
        at_time(&mut host, day(0, "12:00:00"));
        host.killed_before = Some(killed_before);
        let run = at_time(&mut host, day(1, "03:59:59"));
        assert!(run.wrote() && run.committed.is_none(), "{:?}", run.steps);
        let run = at_time(&mut host, day(1, "04:00:30"));
        assert_eq!((run.committed, &host.files), (Some(Completion::Confirmed), &vec![2, 2]), "{killed_before}");
        assert_eq!(run.approved_by.as_deref(), Some("apply = \"daily 02:00-04:00\""));
        assert!(run.news.is_empty(), "{:?}", run.news);
    }
    // One target is in place and in trouble, so that it is not looked at when the other one's turn comes.
    let mut host = LabHost::new(Policy { mode: daily("02:00-04:00"), ..manual(2) }, 2);
    host.troubles = vec![("activate 0", trouble("lock-held", true)), ("prepare 1", trouble("lock-held", true))];
    at_time(&mut host, day(1, "03:59:59"));
    assert_eq!(host.files, [2, 1]);
    host.troubles.clear();
    host.state.targets.get_mut("t0").unwrap().retry.next = Some(day(1, "05:00:00"));
    let run = at_time(&mut host, day(1, "04:30:00"));
    assert_eq!(host.files, [2, 2], "{:?}", run.steps);
    assert_eq!(run.outcomes(), ["failed"], "of the one that is in trouble, and nobody is asked");
}

#[test]
fn the_nights_in_which_the_clock_changes() {
    // Central Europe. 2027-03-28: 02:00 to 03:00 does not exist. 2027-10-31: it comes twice.
    for (hours, before, opens, last_second) in [
        ("Sun 02:10-02:50", "2027-03-27T12:00:00Z", "2027-03-28T01:10:00Z", "2027-03-28T01:49:59Z"),
        ("Sun 02:30-03:15", "2027-03-27T12:00:00Z", "2027-03-28T01:30:00Z", "2027-03-28T02:14:59Z"),
        ("Sun 02:10-02:50", "2027-10-30T12:00:00Z", "2027-10-31T00:10:00Z", "2027-10-31T00:49:59Z"),
        ("Sun 02:00-04:00", "2027-10-30T12:00:00Z", "2027-10-31T00:00:00Z", "2027-10-31T02:59:59Z"),
    ] {
        let zone = TimeZone::posix("CET-1CEST,M3.5.0,M10.5.0/3").unwrap();
        let policy = Policy { mode: window(hours), zone, ..manual(1) };
        let time = |text: &str| text.parse::<Timestamp>().unwrap();
        let second = SignedDuration::from_secs(1);
        for (when, goes) in [
            (time(opens) - second, false),
            (time(opens), true),
            (time(last_second), true),
            (time(last_second) + second, false),
        ] {
            let mut host = LabHost::new(policy.clone(), 2);
            let run = at_time(&mut host, time(before));
            assert_eq!(run.last, Step::Wait { until: time(opens) }, "{hours} {before}");
            let run = at_time(&mut host, when);
            assert_eq!(run.committed.is_some(), goes, "{hours} {when}");
        }
    }
}

fn hint() -> Wake {
    Wake { log_hint: true, ..Wake::default() }
}

fn dies(if_applied_dies: IfAppliedDies) -> Policy {
    Policy { mode: Mode::Manual { window: None, if_applied_dies }, ..manual(1) }
}

/// How often the run logged in with the applied version.
fn own_logins(run: &LabRun) -> usize {
    run.steps.iter().filter(|s| **s == "verify-applied").count()
}

#[test]
fn when_the_login_in_use_is_refused_twice_it_waits_or_goes_as_configured() {
    for (if_applied_dies, goes) in [(IfAppliedDies::Wait, false), (IfAppliedDies::Apply, true)] {
        let mut host = LabHost::new(dies(if_applied_dies), 2);
        let words = &host.poll(0).told[0].error.as_ref().unwrap().words.clone();
        assert_eq!(words.contains("once two logins of relaykey's own with it were refused"), goes, "{words}");
        assert_eq!(host.poll(60).committed, None);
        host.troubles = vec![("verify-applied", refused())];
        // The log tells of it; one refusal of our own proves nothing, and the next is not made at once, whatever the log says.
        let run = host.order(hint(), 120);
        assert_eq!((own_logins(&run), run.committed), (1, None), "{:?}", run.steps);
        assert_eq!(host.state.next_own_login(), Some(at(180)));
        let run = host.order(hint(), 179);
        assert_eq!((own_logins(&run), run.committed), (0, None), "{:?}", run.steps);
        assert_eq!(host.state.applied_refused(), None);
        // The second one is due by itself.
        let run = host.poll(180);
        assert_eq!((own_logins(&run), run.committed.is_some()), (1, goes), "{:?}", run.steps);
        if goes {
            let by = "if_applied_dies = \"apply\": email-smtp.us-east-1.amazonaws.com refused two logins of our own with AKIA1, at \
                      2027-01-15T08:02:00Z and 2027-01-15T08:03:00Z";
            assert_eq!(run.approved_by.as_deref(), Some(by));
            assert_eq!((host.state.applied_refused(), host.state.own_login()), (None, None), "another one is applied");
        } else {
            assert!(host.state.applied_refused().is_some());
            // Taken again, it is over.
            host.troubles.clear();
            assert_eq!(own_logins(&host.poll(1500)), 1);
            assert_eq!((host.state.applied_refused(), host.state.next_own_login()), (None, None));
        }
        // A rejected one is not taken for that.
        let mut host = LabHost::new(dies(if_applied_dies), 2);
        host.poll(0);
        host.reject(None, 60);
        host.troubles = vec![("verify-applied", refused())];
        assert_eq!((host.order(hint(), 120).committed, host.poll(300).committed), (None, None));
    }
}

#[test]
fn what_anybody_may_write_into_the_mail_log_lets_nothing_go_and_makes_logins_rare() {
    let mut host = LabHost::new(dies(IfAppliedDies::Apply), 2);
    host.poll(0);
    let mut logins = 0;
    for second in 0..3600 {
        let run = host.order(hint(), second);
        assert!(!run.staged(), "{:?}", run.steps);
        logins += own_logins(&run);
    }
    // At once, then after 5, 10, 15, 15 … minutes.
    assert_eq!(logins, 5);
    assert!(matches!(host.state.own_login().unwrap().result, OwnResult::Accepted));
    // Nor does what is neither taken nor refused, or what cannot be had.
    let not_given = Outcome::NotGiven(failure(false));
    for (n, outcome) in [trouble("network", true), not_given, trouble("smtp", true)].into_iter().enumerate() {
        host.troubles = vec![("verify-applied", outcome)];
        let begin = 40_000 * (n as i64 + 1);
        for second in (begin..begin + 7200).step_by(10) {
            assert!(!host.order(hint(), second).staged());
        }
        assert_eq!(host.state.applied_refused(), None);
    }
    // A single refusal between logins that were taken.
    for round in 0..5 {
        let begin = 400_000 + round * 40_000;
        host.troubles = vec![("verify-applied", refused())];
        assert!(!host.order(hint(), begin).staged());
        host.troubles.clear();
        assert!(!host.order(hint(), begin + 60).staged());
    }
    assert_eq!((host.state.applied_refused(), host.version()), (None, "v1"));
}

#[test]
fn where_the_source_cannot_give_the_older_version_nothing_else_is_promised() {
    let mut host = LabHost::new(Policy { gives_older: false, ..dies(IfAppliedDies::Apply) }, 2);
    let words = &host.poll(0).told[0].error.as_ref().unwrap().words.clone();
    assert!(words.contains("it does not go into use by itself"), "{words}");
}

/// It is told once, with the server's words, and takes the confirmation back until it is taken again.
#[test]
fn that_the_login_in_use_is_refused_is_told_once_and_its_end_is_a_confirmation() {
    let told = |run: &super::lab::LabRun| run.news.iter().map(|(outcome, ..)| *outcome).collect::<Vec<_>>();
    let mut host = LabHost::new(policy(1), 1);
    host.poll(0);
    host.troubles = vec![("verify-applied", refused())];
    assert_eq!(told(&host.order(hint(), 120)), [""; 0], "one refusal proves nothing");
    let run = host.poll(180);
    assert_eq!(run.news, [("applied-refused", "v1".to_owned(), "applied-refused".to_owned())]);
    let error = run.told[0].error.as_ref().unwrap();
    assert_eq!(
        error.what.as_deref(),
        Some(
            "email-smtp.us-east-1.amazonaws.com refuses the key in use, AKIA1, since 2027-01-15T08:02:00Z: \
             535 Authentication Credentials Invalid"
        )
    );
    assert_eq!((&run.told[0].username, host.state.refused), (&"AKIA1".to_owned(), Some(at(120))));
    // Once, however often it is tried; no sign of life proves anything meanwhile.
    for seconds in [1500, 3000] {
        assert_eq!(told(&host.order(hint(), seconds)), [""; 0]);
    }
    let run = host.poll(26 * 3600);
    assert_eq!((told(&run), run.steps.contains(&"attest")), (vec!["alive"], false));
    // A login that says nothing ends nothing.
    host.troubles = vec![("verify-applied", trouble("network", true))];
    let run = host.poll(27 * 3600);
    assert_eq!((run.committed, host.state.refused), (None, Some(at(120))));
    // Taken again.
    host.troubles.clear();
    let run = host.poll(28 * 3600);
    assert_eq!((own_logins(&run), run.committed), (1, Some(Completion::Confirmed)), "{:?}", run.steps);
    assert!(!run.wrote());
    assert_eq!((host.state.refused, told(&host.poll(29 * 3600))), (None, vec![]));
    // Or another one has come.
    let mut host = LabHost::new(policy(1), 1);
    host.poll(0);
    host.troubles = vec![("verify-applied", refused())];
    host.order(hint(), 120);
    host.poll(180);
    host.source = 2;
    assert_eq!((host.poll(600).committed, host.state.refused), (Some(Completion::Confirmed), None));
    // Who has left is not asked.
    let mut host = LabHost::new(policy(1), 1);
    host.state.left = Some(at(0));
    host.troubles = vec![("verify-applied", refused())];
    host.order(hint(), 120);
    assert_eq!((told(&host.poll(180)), host.state.refused), (vec![], None));
}

#[test]
fn in_automatic_mode_a_hint_is_looked_into_after_the_source() {
    let mut host = LabHost::new(policy(1), 2);
    host.troubles = vec![("verify-applied", refused())];
    // What is new goes at once, and nobody asks about the old one.
    let run = host.order(hint(), 0);
    assert_eq!((own_logins(&run), run.committed.is_some()), (0, true));
    for seconds in [60, 120, 180] {
        host.order(hint(), seconds);
    }
    let own = host.state.applied_refused().expect("two refusals of our own");
    assert_eq!((own.refused.clone(), &own.id), (vec![at(60), at(120)], &version(2)));
    // A source that does not answer is not asked for more; what was told is not forgotten.
    let mut host = LabHost::new(policy(1), 1);
    host.troubles = vec![("fetch", trouble("network", true)), ("verify-applied", refused())];
    assert_eq!(own_logins(&host.order(hint(), 0)), 0);
    host.troubles.remove(0);
    assert_eq!(own_logins(&host.poll(600)), 1);
}

// ---------------------------------------------------------------- somebody else writes

#[test]
fn a_write_between_the_swap_and_its_read_back_is_put_right_at_once_and_not_for_ever() {
    let mut host = LabHost::new(policy(1), 2);
    host.troubles = vec![("undo", Outcome::Overtaken)];
    host.meanwhile = Some(("read-back", 0, 1));
    let run = host.poll(0);
    assert_eq!(run.steps[run.steps.len() - 3..], ["read-back", "undo", "inspect"], "looked up anew");
    assert_eq!((run.committed, &run.last), (None, &Step::Wait { until: at(1) }));
    assert_eq!(host.state.targets["t0"].in_use.as_ref().unwrap().usernames, ["AKIA1"]);
    let run = host.poll(1);
    assert_eq!((run.committed, host.files.clone()), (Some(Completion::Confirmed), vec![2]));
    assert_eq!(host.state.targets["t0"].holds(&host.state), Some(Holds::Applied));

    // Somebody who writes each time.
    for (drift, most) in [(Drift::Heal, HEALS + 1), (Drift::Report, 1)] {
        let mut policy = policy(1);
        policy.targets[0].drift = drift;
        let mut host = LabHost::new(policy, 2);
        host.troubles = vec![("undo", Outcome::Overtaken)];
        let (mut swaps, mut told) = (0, Vec::new());
        for second in 0..3000 {
            host.meanwhile = Some(("read-back", 0, 9));
            let run = host.notice(second);
            swaps += run.steps.iter().filter(|s| **s == "swap").count();
            told.extend(run.told.into_iter().filter(|n| n.outcome == ReportOutcome::Failed));
        }
        assert_eq!(swaps, most, "{drift:?}");
        assert_eq!(told.len(), 1, "{told:?}");
        assert_eq!(told[0].error.as_ref().unwrap().class, Class::FoughtOver);
        assert_eq!(host.state.targets["t0"].holds(&host.state), Some(Holds::Other));
        // Somebody who has mended that asks, and has it.
        host.meanwhile = None;
        let run = host.order(Wake { asked: true, ..Wake::default() }, 3100);
        assert!(run.committed.is_some(), "{:?} {:?}", run.steps, run.failures);
    }
}

// ---------------------------------------------------------------- by hand

#[test]
fn a_change_by_hand_is_shown_watched_and_confirmed() {
    let mut host = LabHost::new(by_hand(1, &[0]), 2);
    let run = host.poll(0);
    assert_eq!(run.steps.clone(), ["inspect", "fetch", "verify", "preview", "refrain"]);
    assert_eq!(run.news, [("pending-approval", "v2".to_owned(), "by-hand".to_owned())]);
    assert_eq!((run.failures.clone(), run.waits), (vec!["by-hand".to_owned()], true));
    assert_eq!(host.state.targets["t0"].change, Some(change()));
    // Told once, whoever looks how often.
    for seconds in [60, 3600, 7200] {
        let run = host.notice(seconds);
        assert_eq!((run.outcomes(), run.wrote(), run.waits), (vec![], false, true));
    }
    // Something else than what was to be done is there.
    host.files = vec![9];
    let run = host.notice(8000);
    assert_eq!((run.failures.clone(), run.committed), (vec!["by-hand".to_owned()], None));
    // What was confirmed is not there any more; it is the change that was asked for, and nobody else's.
    assert_eq!(run.news, [("withdrawn", "v1".to_owned(), "by-hand".to_owned())]);
    host.files = vec![2];
    let run = host.notice(8100);
    assert_eq!(run.steps, ["inspect", "fetch", "verify", "preview", "prepare", "activate", "read-back", "commit"]);
    assert_eq!((run.committed, host.version()), (Some(Completion::Confirmed), "v2"));
    assert_eq!((host.state.withdrawn, host.state.targets["t0"].change.clone()), (None, None));
}

/// Who approves what waits to be changed by hand has that answer, and not that nothing waits.
#[test]
fn an_approval_of_what_is_changed_by_hand_says_so() {
    let mut host = LabHost::new(by_hand(1, &[0]), 2);
    host.poll(0);
    let run = host.approve(None, 60);
    assert!(run.failures.iter().any(|f| f == "nothing-to-do") && !run.wrote(), "{:?}", run.failures);
    assert!(
        run.said.iter().any(|what| what.contains("v2 (AKIA2) waits for a change by hand (target t0)")),
        "{:?}",
        run.said
    );
}

#[test]
fn the_other_targets_go_ahead_and_the_confirmation_waits_for_all() {
    let mut host = LabHost::new(by_hand(2, &[1]), 2);
    let run = host.poll(0);
    assert_eq!((run.committed, host.files.clone(), run.outcomes()), (None, vec![2, 1], vec!["pending-approval"]));
    assert!(run.told[0].error.as_ref().unwrap().words.contains("target t1"));
    assert!(!run.steps.contains(&"commit") && run.waits);
    host.files[1] = 2;
    let run = host.notice(60);
    assert_eq!((run.committed, run.wrote(), run.news.len()), (Some(Completion::Confirmed), false, 0));
}

#[test]
fn in_manual_mode_what_a_person_changes_needs_no_other_word() {
    let policy = Policy { mode: manual(1).mode, ..by_hand(2, &[1]) };
    let mut host = LabHost::new(policy, 2);
    let run = host.poll(0);
    assert_eq!((run.outcomes(), run.staged(), host.files.clone()), (vec!["pending-approval"], false, vec![1, 1]));
    // Both are to be seen: what is held, and what is to be done.
    assert!(host.state.targets.values().all(|t| t.change.is_some()));
    // Early, and right: not approved by that, and no false alarm.
    host.files[1] = 2;
    for seconds in [60, 120] {
        let run = if seconds == 60 { host.notice(seconds) } else { host.poll(seconds) };
        assert_eq!((run.outcomes(), run.staged()), (vec![], false), "{seconds}");
    }
    let run = host.approve(None, 180);
    assert_eq!((run.committed, host.files.clone(), run.news.len()), (Some(Completion::Confirmed), vec![2, 2], 0));
    // Approved first.
    host.source = 3;
    host.poll(240);
    let run = host.approve(None, 300);
    assert_eq!((run.committed, host.files.clone(), run.waits), (None, vec![3, 2], true));
    host.files[1] = 3;
    let run = host.notice(360);
    assert_eq!((run.committed, run.approved_by.as_deref()), (Some(Completion::Confirmed), Some("alice")));
}

#[test]
fn a_target_that_a_person_changes_is_not_healed() {
    let mut host = LabHost::new(by_hand(1, &[0]), 1);
    host.files = vec![9];
    let run = host.notice(0);
    assert_eq!((run.steps.clone(), run.failures), (vec!["inspect", "fetch", "refrain"], vec!["drift".to_owned()]));
    assert_eq!(run.news, [("withdrawn", "v1".to_owned(), "drift".to_owned())]);
    assert_eq!(host.state.withdrawn, Some(at(0)));
    let run = host.notice(60);
    assert_eq!((run.news.len(), run.staged()), (0, false));
    // Put right, it is confirmed anew.
    host.files = vec![1];
    let run = host.notice(120);
    assert_eq!((run.committed, run.wrote(), run.news.len()), (Some(Completion::Confirmed), false, 0));
    assert_eq!(host.state.withdrawn, None);
    assert_eq!(host.notice(180).steps, ["inspect", "fetch"]);
}

// ---------------------------------------------------------------- confirm

#[test]
fn confirming_what_is_right_makes_a_new_confirmation_and_writes_nothing() {
    let mut host = LabHost::new(policy(2), 1);
    let since = host.state.applied.as_ref().unwrap().since;
    let (before, run) = (host.state.seq, host.order(confirm(), 60));
    assert_eq!((run.committed, run.wrote()), (Some(Completion::Confirmed), false));
    assert!(host.state.seq > before && host.version() == "v1");
    assert_eq!(host.state.applied.as_ref().unwrap().since, since, "it is in use as long as before");
}

#[test]
fn confirming_what_is_not_right_writes_nothing_and_puts_nothing_off() {
    // Drift that is healed otherwise.
    let mut host = LabHost::new(policy(1), 1);
    host.files = vec![9];
    let run = host.order(confirm(), 0);
    assert_eq!(
        (run.failures.clone(), run.staged(), run.outcomes()),
        (vec!["drift".to_owned()], false, vec!["withdrawn"])
    );
    let run = host.poll(10);
    assert_eq!((run.committed, host.files.clone()), (Some(Completion::Confirmed), vec![1]));
    // A version that goes into use by itself otherwise: nobody is to do anything.
    let mut host = LabHost::new(policy(1), 2);
    let run = host.order(confirm(), 0);
    assert_eq!((run.failures.clone(), run.staged(), run.news.len()), (vec!["by-hand".to_owned()], false, 0));
    assert_eq!(host.candidate().held, None);
    let run = host.poll(10);
    assert_eq!((run.committed, host.version()), (Some(Completion::Confirmed), "v2"));
    // One that is held.
    let mut host = LabHost::new(manual(1), 2);
    host.poll(0);
    let run = host.order(confirm(), 60);
    let fix = host.state.targets["t0"].retry.failure.as_ref().map(|f| f.fix.clone()).unwrap_or_default();
    assert!(fix.contains("relaykey approve ses --version v2") && !fix.contains("by hand"), "{fix}");
    assert_eq!((run.failures.clone(), run.staged(), run.news.len()), (vec!["by-hand".to_owned()], false, 0));
    // Somebody has made the change.
    host.files = vec![2];
    let run = host.order(confirm(), 120);
    assert_eq!((run.committed, run.wrote(), host.version()), (Some(Completion::Confirmed), false, "v2"));
}

// ---------------------------------------------------------------- probe

#[test]
fn a_message_goes_out_before_anything_is_staged() {
    let probing = || Policy { probe: true, ..policy(1) };
    let mut host = LabHost::new(probing(), 2);
    let run = host.poll(0);
    assert_eq!(run.steps[..5], ["inspect", "fetch", "verify", "probe", "prepare"]);
    // It is refused: nothing is touched, and it is tried ever more rarely.
    let mut host = LabHost::new(probing(), 2);
    host.troubles = vec![("probe", trouble("smtp", false))];
    for (attempt, seconds) in [(1, 0), (2, 10_000), (3, 40_000)] {
        let run = host.poll(seconds);
        assert_eq!((run.steps.as_slice(), run.staged()), (["inspect", "fetch", "verify", "probe"].as_slice(), false));
        assert_eq!(host.state.targets["t0"].retry.attempts, attempt);
    }
    // One that went out is good for an hour, whatever else fails.
    host.troubles = vec![("prepare", trouble("lock-held", true))];
    let run = host.notice(50_000);
    assert!(run.steps.contains(&"probe"));
    assert!(!host.notice(50_000 + 3599).steps.contains(&"probe"));
    assert!(host.notice(50_000 + 3600).steps.contains(&"probe"));
    // And says nothing about another version.
    host.source = 3;
    assert!(host.notice(50_000 + 3700).steps.contains(&"probe"));
}

#[test]
fn no_message_goes_out_where_nothing_new_is_put_in_place() {
    let probing = || Policy { probe: true, ..policy(2) };
    let mut host = LabHost::new(probing(), 2);
    let dry = Wake { dry_run: true, ..Wake::default() };
    assert!(!host.order(dry, 0).steps.contains(&"probe"));
    assert!(!host.order(confirm(), 0).steps.contains(&"probe"));
    // Healed.
    let mut host = LabHost::new(probing(), 1);
    host.files = vec![9, 1];
    let run = host.poll(0);
    assert!(run.wrote() && !run.steps.contains(&"probe"), "{:?}", run.steps);
    // In place already, while another target fails for days.
    host.source = 2;
    host.troubles = vec![("verify 1", trouble("network", true))];
    assert!(host.notice(60).steps.contains(&"probe"));
    for hour in 1..5 {
        assert!(!host.notice(hour * 4000).steps.contains(&"probe"), "{hour}");
    }
}

#[test]
fn a_held_version_may_send_before_it_is_held() {
    let mut host = LabHost::new(Policy { probe: true, ..manual(1) }, 2);
    let run = host.poll(0);
    assert_eq!(run.steps.clone(), ["inspect", "fetch", "verify", "probe", "preview", "hold"]);
    assert!(!host.approve(None, 60).steps.contains(&"probe"));
}

/// The run that put version 2 in place is killed, and version 3, which the mail relay refuses, comes before the next one.
#[test]
fn what_a_killed_run_put_in_place_is_ours_although_another_version_came() {
    let begun = |policy: Policy, killed_before: &'static str| {
        let mut host = LabHost::new(policy, 2);
        host.killed_before = Some(killed_before);
        host.poll(0);
        assert_eq!(host.files, [2]);
        host.source = 3;
        host.troubles = vec![("verify", refused())];
        host
    };
    for killed_before in ["activate", "read-back", "commit"] {
        let mut host = begun(policy(1), killed_before);
        let run = host.poll(10);
        // The reload is done, although nothing becomes of version 3.
        assert_eq!(run.steps.contains(&"activate"), killed_before == "activate", "{killed_before}: {:?}", run.steps);
        assert!(!run.waits && host.owed == [false]);
        assert_eq!(run.superseded, [("v2".to_owned(), None)], "{killed_before}");
        assert_eq!(run.news, [("withdrawn", "v1".to_owned(), "superseded".to_owned())]);
        let words = &run.told[0].error.as_ref().unwrap().words;
        assert!(words.contains("version v2 (AKIA2)") && words.contains("version v3"), "{words}");
        assert_eq!(run.told[0].in_use, Some(vec!["AKIA2".to_owned()]));
        assert_eq!(host.state.targets["t0"].holds(&host.state), Some(Holds::Begun));
        // Said once; and what is told later names the key in use, not the one of the state.
        host.troubles = vec![("verify", trouble("trust", false))];
        let run = host.order(Wake { asked: true, ..Wake::default() }, 700);
        assert_eq!((run.superseded, run.news.len()), (vec![], 1));
        let told = &run.told[0];
        assert_eq!((told.outcome.word(), &*told.username), ("failed", "AKIA3"));
        assert_eq!(told.previous_username.as_deref(), Some("AKIA1"), "what was confirmed before");
        assert_eq!(told.in_use, Some(vec!["AKIA2".to_owned()]), "what is in use");
        // It takes over from what was in use, and that is left behind.
        host.troubles.clear();
        let run = host.notice(800);
        assert_eq!(run.committed, Some(Completion::Confirmed));
        let applied = host.state.applied.as_ref().unwrap();
        assert_eq!((&*applied.id.version, applied.previous_username.as_deref()), ("v3", Some("AKIA2")));
        assert_eq!(host.state.left_behind, [version(1), version(2)]);
        assert!(host.state.targets["t0"].begun.is_empty() && host.state.withdrawn.is_none());
    }
    // The source takes version 3 back: version 2 is gone on with, and confirmed.
    let mut host = begun(policy(1), "activate");
    host.poll(10);
    (host.source, host.troubles) = (2, Vec::new());
    let run = host.notice(20);
    let run = if run.committed.is_none() { host.notice(100) } else { run };
    assert_eq!((run.committed, host.version(), &host.files), (Some(Completion::Confirmed), "v2", &vec![2]));
    assert!(!run.wrote());
    // Who had let it go is remembered with it.
    let mut host = LabHost::new(manual(1), 2);
    host.poll(0);
    host.killed_before = Some("commit");
    host.approve(Some("v2"), 5);
    (host.source, host.files) = (3, vec![2]);
    assert_eq!(host.poll(10).superseded, [("v2".to_owned(), Some("alice".to_owned()))]);
}

/// Two kills: version 2 in place, then version 3; what is in place is ours all the same, and the key before is version 2's.
#[test]
fn what_two_killed_runs_put_in_place_is_ours() {
    let mut host = LabHost::new(policy(1), 2);
    host.killed_before = Some("commit");
    host.poll(0);
    (host.source, host.killed_before) = (3, Some("commit"));
    host.poll(10);
    assert_eq!(host.files, [3]);
    (host.source, host.troubles) = (4, vec![("verify", refused())]);
    host.poll(20);
    assert_eq!(host.state.targets["t0"].holds(&host.state), Some(Holds::Begun));
    host.troubles.clear();
    host.notice(30);
    let applied = host.state.applied.as_ref().unwrap();
    assert_eq!((&*applied.id.version, applied.previous_username.as_deref()), ("v4", Some("AKIA3")));
    assert_eq!(host.state.left_behind, [version(1), version(2), version(3)]);
}

/// A heal that fails: what is in use is what was looked up, and not the key before the applied one.
#[test]
fn what_is_told_of_a_heal_that_fails_names_the_key_that_was_found() {
    let mut host = LabHost::new(policy(1), 1);
    host.state.applied.as_mut().unwrap().previous_username = Some("AKIA0".into());
    host.files = vec![9];
    host.troubles = vec![("prepare", trouble("io", false))];
    let run = host.notice(0);
    let told = run.told.iter().find(|n| n.outcome == ReportOutcome::Failed).expect("it is told");
    assert_eq!((&*told.username, told.in_use.clone()), ("AKIA1", Some(vec!["AKIA9".to_owned()])));
}

/// A heal puts back what was confirmed: killed in the middle, it leaves no version without a confirmation.
#[test]
fn a_heal_that_was_killed_takes_back_no_confirmation() {
    let mut host = LabHost::new(policy(1), 1);
    host.files = vec![9];
    host.killed_before = Some("activate");
    host.notice(0);
    assert_eq!((&host.files, host.journal[0].is_some()), (&vec![1], true), "put back, and killed");
    (host.source, host.troubles) = (2, vec![("verify", refused())]);
    let run = host.poll(20);
    assert!(run.superseded.is_empty() && run.outcomes().is_empty(), "nothing is taken back: {:?}", run.news);
    assert_eq!(host.state.targets["t0"].holds(&host.state), Some(Holds::Applied));
    host.troubles.clear();
    let run = host.notice(400);
    assert_eq!(run.committed, Some(Completion::Confirmed));
    assert_eq!(host.state.applied.as_ref().unwrap().previous_username.as_deref(), Some("AKIA1"));
}

/// Somebody puts version 1 back after version 2 was put in place and never confirmed: version 3 takes over from version 1.
#[test]
fn what_is_taken_over_from_is_what_was_found() {
    let mut host = LabHost::new(policy(1), 2);
    host.killed_before = Some("commit");
    host.poll(0);
    (host.source, host.troubles) = (3, vec![("verify", refused())]);
    host.poll(10);
    assert_eq!(host.state.targets["t0"].holds(&host.state), Some(Holds::Begun));
    (host.files, host.journal) = (vec![1], vec![None]);
    host.troubles.clear();
    host.killed_before = Some("commit");
    host.notice(400);
    host.notice(500);
    let applied = host.state.applied.as_ref().unwrap();
    assert_eq!((&*applied.id.version, applied.previous_username.as_deref()), ("v3", Some("AKIA1")));
    assert_eq!(host.state.left_behind, [version(1), version(2)]);
}

/// The same key with another password is another version: what is told names what is in use, by its version.
#[test]
fn what_is_told_of_the_same_key_with_another_password_tells_the_two_apart() {
    let mut host = LabHost::new(policy(1), 2);
    host.state.applied.as_mut().unwrap().previous_username = Some("AKIA0".into());
    host.troubles = vec![("verify", trouble("trust", false))];
    let run = host.poll(0);
    let told = &run.told[0];
    assert_eq!((&*told.version, told.version_in_use.as_deref(), told.of_applied), ("v2", Some("v1"), false));
    let mut host = LabHost::new(policy(1), 1);
    host.files = vec![9];
    host.troubles = vec![("prepare", trouble("io", false))];
    let run = host.notice(0);
    let told = run.told.iter().find(|n| n.outcome == ReportOutcome::Failed).expect("it is told");
    assert_eq!((&*told.version, told.version_in_use.as_deref(), told.of_applied), ("v1", None, true));
}

/// A person does exactly what was asked for, and the source's next version has come first: it is no stranger's login.
#[test]
fn what_was_put_in_by_hand_as_asked_is_known_although_another_version_came() {
    let asked = || {
        let mut host = LabHost::new(by_hand(1, &[0]), 2);
        assert_eq!(host.poll(0).outcomes(), ["pending-approval"]);
        assert_eq!(host.files, [1], "nothing is done yet");
        host
    };
    for (next, followed) in [("taken", true), ("refused", false)] {
        let mut host = asked();
        (host.files, host.source) = (vec![2], 3);
        if !followed {
            host.troubles = vec![("verify", refused())];
        }
        let run = host.notice(60);
        let told: Vec<_> = run.told.iter().filter(|n| n.outcome == ReportOutcome::Withdrawn).collect();
        let error = told[0].error.as_ref().unwrap();
        assert_eq!((told.len(), error.class), (1, Class::Superseded), "{next}: {}", error.words);
        assert!(error.words.contains("uses version v2 (AKIA2), which was put there by hand, as this host had asked"));
        assert!(error.words.ends_with("and was never confirmed: version v3 has come since"), "{}", error.words);
        assert_eq!(run.superseded, [("v2".to_owned(), None)], "{next}");
        assert_eq!(run.outcomes().contains(&"pending-approval"), followed, "{next}: {:?}", run.news);
        assert_eq!(host.state.targets["t0"].holds(&host.state), Some(Holds::Begun), "{next}");
        assert_eq!(told[0].version_in_use.as_deref(), Some("v2"));
        // Said once.
        let run = host.order(Wake::default(), 900);
        assert!(run.superseded.is_empty() && !run.outcomes().contains(&"withdrawn"), "{next}: {:?}", run.news);
        // Done by hand too, version 3 takes over from version 2, which is left behind.
        host.troubles.clear();
        host.notice(1000);
        host.files = vec![3];
        let run = host.notice(1100);
        assert_eq!(run.committed, Some(Completion::Confirmed), "{next}: {:?}", run.steps);
        let applied = host.state.applied.as_ref().unwrap();
        assert_eq!((&*applied.id.version, applied.previous_username.as_deref()), ("v3", Some("AKIA2")), "{next}");
        assert_eq!(host.state.left_behind, [version(1), version(2)], "{next}");
    }
    // What was asked for and never done leaves no trace.
    let mut host = asked();
    host.source = 3;
    let run = host.poll(60);
    assert_eq!((run.superseded.clone(), run.outcomes()), (vec![], vec!["pending-approval"]));
    host.files = vec![3];
    host.notice(120);
    let applied = host.state.applied.as_ref().unwrap();
    assert_eq!((&*applied.id.version, applied.previous_username.as_deref()), ("v3", Some("AKIA1")));
    assert_eq!(host.state.left_behind, [version(1)]);
    // Another login is somebody else's as ever.
    let mut host = asked();
    (host.files, host.source) = (vec![9], 3);
    host.troubles = vec![("verify", refused())];
    let run = host.notice(60);
    let withdrawn = run.news.iter().find(|n| n.0 == "withdrawn").expect("it is told");
    assert_eq!((&*withdrawn.2, host.state.targets["t0"].holds(&host.state)), ("drift", Some(Holds::Other)));
    // Who only confirms asks for nothing.
    let mut host = LabHost::new(policy(1), 2);
    host.order(confirm(), 0);
    assert!(host.state.targets["t0"].begun.is_empty());
}

/// The person did what was asked for, and the source has gone back: they are told so, and not to look for a stranger.
#[test]
fn what_was_put_in_by_hand_as_asked_is_no_drift_when_the_source_goes_back() {
    let mut host = LabHost::new(by_hand(1, &[0]), 2);
    host.poll(0);
    (host.files, host.source) = (vec![2], 1);
    let run = host.notice(60);
    assert_eq!((run.failures.clone(), run.waits), (vec!["by-hand".to_owned()], true), "{:?}", run.said);
    assert!(
        run.said[0]
            .contains("put there by hand, as this host had asked; the source has gone back to version v1 (AKIA1)")
    );
    assert_eq!(run.news, [("withdrawn", "v1".to_owned(), "superseded".to_owned())]);
    host.files = vec![1];
    assert_eq!(host.notice(120).committed, Some(Completion::Confirmed));
}

/// A source that was made anew counts from 1 again.
#[test]
fn another_version_of_the_same_number_is_said_to_be_another() {
    let mut host = LabHost::new(policy(1), 2);
    host.killed_before = Some("commit");
    host.poll(0);
    (host.source, host.renumbered, host.troubles) = (3, Some((3, 2)), vec![("verify", refused())]);
    let run = host.poll(10);
    let words = &run.told[0].error.as_ref().unwrap().words;
    assert!(
        words.contains("uses version v2 (AKIA2)") && words.ends_with("and another version v2 has come since"),
        "{words}"
    );
}

/// A target that is renamed in the configuration after a kill is the same mail server: what is in place there is this host's.
#[test]
fn a_target_that_was_renamed_holds_what_was_put_there_under_its_old_name() {
    let begun = || {
        let mut host = LabHost::new(policy(1), 2);
        host.killed_before = Some("commit");
        host.poll(0);
        (host.source, host.troubles) = (3, vec![("verify", refused())]);
        assert_eq!(host.poll(10).superseded.len(), 1);
        host.policy.targets[0].name = "renamed".into();
        host
    };
    for journal in ["handed over", "lost"] {
        let mut host = begun();
        if journal == "lost" {
            host.journal = vec![None];
        }
        let run = host.notice(20);
        assert!(run.superseded.is_empty(), "{journal}: it has its line");
        assert_eq!(host.state.targets["renamed"].holds(&host.state), Some(Holds::Begun), "{journal}");
        host.troubles.clear();
        host.notice(30);
        let applied = host.state.applied.as_ref().unwrap();
        assert_eq!((&*applied.id.version, applied.previous_username.as_deref()), ("v3", Some("AKIA2")), "{journal}");
        assert_eq!(host.state.left_behind, [version(1), version(2)], "{journal}");
        assert!(host.state.begun_elsewhere.is_empty(), "{journal}");
    }
    // What it holds is looked up all the same: another login is none of ours.
    let mut host = begun();
    (host.journal, host.files) = (vec![None], vec![9]);
    host.notice(20);
    assert_eq!(host.state.targets["renamed"].holds(&host.state), Some(Holds::Other));
    // What a person was asked for under the old name is asked for under the new one.
    let mut host = LabHost::new(by_hand(1, &[0]), 2);
    host.poll(0);
    host.policy.targets[0].name = "renamed".into();
    (host.source, host.files, host.troubles) = (3, vec![2], vec![("verify", refused())]);
    let run = host.notice(20);
    assert_eq!(host.state.targets["renamed"].holds(&host.state), Some(Holds::Begun), "{:?}", run.news);
}

/// With no state: the key that was found first is told, whatever was put in its place and never confirmed.
#[test]
fn the_key_that_was_found_first_is_told_although_the_first_run_was_killed() {
    let killed = || {
        let mut host = LabHost::unknown(policy(1), 7, 1);
        host.killed_before = Some("commit");
        host.poll(0);
        assert_eq!(host.files, [1]);
        host
    };
    // Gone on with.
    let mut host = killed();
    assert_eq!(host.poll(10).committed, Some(Completion::Confirmed));
    assert_eq!(host.state.applied.as_ref().unwrap().previous_username.as_deref(), Some("AKIA7"));
    assert_eq!(host.state.found_first, None);
    // Another version comes first, and is refused.
    let mut host = killed();
    host.source = 2;
    host.troubles = vec![("verify", trouble("trust", false))];
    let run = host.poll(10);
    let told = run.told.iter().find(|n| n.outcome == ReportOutcome::Failed).expect("it is told");
    assert_eq!(
        (told.previous_username.as_deref(), told.in_use.clone()),
        (Some("AKIA7"), Some(vec!["AKIA1".to_owned()]))
    );
    host.troubles.clear();
    host.notice(20);
    let applied = host.state.applied.as_ref().unwrap();
    assert_eq!((&*applied.id.version, applied.previous_username.as_deref()), ("v2", Some("AKIA7")));
    assert_eq!(
        host.state.earlier_usernames(),
        ["AKIA1", "AKIA2", "AKIA7"],
        "what was in use meanwhile is not forgotten"
    );
    // What is found while nothing was put in place is what counts, the latest; an adoption has none before it.
    let mut host = LabHost::unknown(policy(1), 7, 1);
    host.troubles = vec![("verify", trouble("trust", false))];
    host.poll(0);
    (host.files, host.troubles) = (vec![8], Vec::new());
    host.notice(10);
    assert_eq!(host.state.applied.as_ref().unwrap().previous_username.as_deref(), Some("AKIA8"));
    let mut host = LabHost::unknown(policy(1), 1, 1);
    assert_eq!(host.poll(0).committed, Some(Completion::Adopted));
    assert_eq!(host.state.applied.as_ref().unwrap().previous_username, None);
}

/// Of two targets the kill left one with the version and one without.
#[test]
fn a_version_that_one_of_two_targets_holds_is_said_to_be_there_in_part() {
    let mut host = LabHost::new(policy(2), 2);
    host.troubles = vec![("verify 1", trouble("network", true))];
    host.policy.targets[1].logs_in_as = 1;
    host.killed_before = Some("activate");
    host.poll(0);
    (host.source, host.troubles) = (3, vec![("verify", refused())]);
    assert_eq!(host.files, [2, 1]);
    let run = host.poll(10);
    assert_eq!((run.superseded.len(), run.held_by), (1, vec![(vec!["t0".to_owned()], false)]));
    let mut host = LabHost::new(policy(2), 2);
    host.killed_before = Some("commit");
    host.poll(0);
    (host.source, host.troubles) = (3, vec![("verify", refused())]);
    assert_eq!(host.poll(10).held_by, [(vec!["t0".to_owned(), "t1".to_owned()], true)]);
}

/// Killed between the text and its map: that is known until the next confirmation.
#[test]
fn what_was_put_in_place_in_part_is_known() {
    let mut host = LabHost::new(policy(1), 2);
    // The mail server goes on with version 1; the text has version 2.
    host.journal = vec![Some(swapped(2))];
    host.troubles = vec![("verify", refused())];
    host.poll(0);
    let half =
        |host: &LabHost| -> Vec<String> { host.state.half_done().map(|(_, begun)| begun.username.clone()).collect() };
    assert_eq!(half(&host), ["AKIA2"]);
    host.source = 3;
    host.poll(10);
    assert_eq!(half(&host), ["AKIA2"], "another version has come");
    // Somebody has put the text right.
    host.journal = vec![None];
    host.notice(20);
    assert!(half(&host).is_empty());
    host.journal = vec![Some(swapped(2))];
    host.notice(30);
    assert_eq!(half(&host), ["AKIA2"]);
    host.troubles.clear();
    host.notice(40);
    assert_eq!((host.version(), half(&host)), ("v3", Vec::<String>::new()));
    // A person who was asked and has not begun has done nothing in part.
    let mut host = LabHost::new(by_hand(1, &[0]), 2);
    host.poll(0);
    assert!(half(&host).is_empty());
}

#[test]
fn where_nothing_was_confirmed_yet_what_is_in_use_is_no_strangers() {
    let mut host = LabHost::unknown(manual(1), 1, 2);
    host.poll(0);
    assert!(host.state.applied.is_none() && host.state.foreign().is_none());
    let mut host = LabHost::new(policy(1), 1);
    host.policy.targets[0].drift = Drift::Report;
    host.files = vec![9];
    host.poll(0);
    assert!(host.state.foreign().is_some());
}

// ---------------------------------------------------------------- one user name for every login, and what is left

/// Where every login has the same user name, as at a relay that is not SES, and where a password changes under one access key:
/// the name does not tell somebody else's login from the version that is not put into use.
#[test]
fn a_login_of_the_same_user_name_is_not_taken_for_the_version_that_waits() {
    for name in ["apikey", "AKIA1"] {
        let host = |policy: Policy| LabHost::of_one_name(policy, 2, name);
        let held = || {
            let mut host = host(manual(1));
            host.poll(0);
            host
        };
        let mut rejected = held();
        rejected.reject(None, 10);
        let mut refused_one = host(policy(1));
        (refused_one.refuses, refused_one.policy.targets[0].propagation) = (Some(2), SignedDuration::ZERO);
        refused_one.poll(0);
        for (what, mut host) in [("held", held()), ("rejected", rejected), ("refused", refused_one)] {
            host.files = vec![9];
            let run = host.poll(20);
            assert_eq!(host.files, [1], "{name}, {what}: {:?}", run.steps);
            // Where it stays, that is told, and it is no success.
            host.policy.targets[0].drift = Drift::Report;
            host.files = vec![9];
            let run = host.poll(40);
            assert_eq!((host.files[0], run.outcomes()), (9, vec!["withdrawn"]), "{name}, {what}: {:?}", run.steps);
            assert!(!run.failures.is_empty(), "{name}, {what}");
            assert_eq!(host.state.targets["t0"].holds(&host.state), Some(Holds::Other), "{name}, {what}");
        }
        // The version itself, put in by hand, is theirs: it was compared when it was held.
        for reject in [false, true] {
            let mut host = held();
            if reject {
                host.reject(None, 10);
            }
            host.files = vec![2];
            let run = host.poll(20);
            assert_eq!((host.files[0], run.failures.clone()), (2, vec![]), "{name}: {:?}", run.steps);
            assert_eq!(host.state.targets["t0"].holds(&host.state), Some(Holds::Pending), "{name}");
        }
    }
}

/// A password that is no version's, of the new version's own access key.
#[test]
fn the_key_of_the_version_that_waits_with_another_password_is_somebody_elses() {
    let mut host = LabHost::new(manual(1), 2);
    host.poll(0);
    (host.files, host.name) = (vec![9], Some("AKIA2"));
    let run = host.poll(20);
    assert_eq!((host.files.clone(), run.steps.contains(&"fetch-applied")), (vec![1], true), "{:?}", run.steps);
}

#[test]
fn what_is_not_put_back_beside_a_version_that_waits_is_said_and_the_version_goes_when_it_may() {
    let with = |drift: Drift, window: bool| {
        let mut host = LabHost::new(manual(1), 2);
        if window {
            host.policy.mode = daily("06:00-07:00");
        }
        host.policy.targets[0].drift = drift;
        host
    };
    for drift in [Drift::Report, Drift::Heal] {
        let mut host = with(drift, false);
        host.poll(0);
        if drift == Drift::Heal {
            host.state.targets.get_mut("t0").expect("it is there").heals = vec![at(0); HEALS];
        }
        host.files = vec![9];
        let run = host.poll(20);
        assert_eq!((run.failures.clone(), run.outcomes()), (vec!["drift".to_owned()], vec!["withdrawn"]), "{drift:?}");
        assert!(run.said[0].contains("(AKIA1), and is left so: "), "{:?}", run.said);
        let failure = host.state.put_back.failure.clone().expect("it stands");
        assert!(failure.fix.contains("relaykey approve ses --version v2"), "{}", failure.fix);
        // It stands, is told once, and keeps nothing from being done.
        for run in [host.poll(40), host.notice(60)] {
            assert_eq!((run.failures.clone(), run.news.len()), (vec!["drift".to_owned()], 0), "{drift:?}");
        }
        let run = host.approve(None, 80);
        assert_eq!((run.committed, host.files[0]), (Some(Completion::Confirmed), 2), "{drift:?}: {:?}", run.steps);
        assert_eq!(host.state.put_back, Retry::default());
    }
    // It waits for its window, and what is left as it is does not keep it from going.
    let mut host = with(Drift::Report, true);
    let poll = |host: &mut LabHost, time: &str| host.run(Wake::default(), false, day(0, time), 0);
    host.files = vec![9];
    let run = poll(&mut host, "05:59:00");
    assert_eq!(run.failures, ["drift"], "{:?}", run.steps);
    let run = poll(&mut host, "06:00:30");
    assert_eq!((run.committed, host.files[0]), (Some(Completion::Confirmed), 2), "{:?}", run.steps);
}

/// Somebody else's login is in use, and works: that the applied version is refused keeps no mail from going out, and lets
/// nothing go.
#[test]
fn a_refusal_of_what_is_not_in_use_lets_nothing_go() {
    let mut host = LabHost::new(dies(IfAppliedDies::Apply), 2);
    host.poll(0);
    host.files = vec![9];
    host.refuses = Some(1);
    host.troubles = vec![("verify-applied", refused())];
    for n in 1..20 {
        let run = host.order(hint(), n * 600);
        assert!(!run.wrote() && run.committed.is_none(), "{n}: {:?}", run.steps);
    }
    assert_eq!((host.state.applied_refused(), host.files[0]), (None, 9));
    // Nor does one that was met before somebody put it there.
    let mut host = LabHost::new(Policy { mode: Mode::Automatic, ..dies(IfAppliedDies::Apply) }, 1);
    host.troubles = vec![("verify-applied", refused())];
    host.order(hint(), 0);
    host.order(hint(), 60);
    assert!(host.state.applied_refused().is_some());
    (host.policy, host.source, host.files, host.refuses) = (dies(IfAppliedDies::Apply), 2, vec![9], Some(1));
    let run = host.poll(120);
    assert!(!run.wrote() && host.files == [9], "{:?}", run.steps);
    // In use again, it lets it go.
    host.files = vec![1];
    let run = host.notice(180);
    assert_eq!((run.committed, host.files[0]), (Some(Completion::Confirmed), 2), "{:?}", run.steps);
}

/// Of two targets one is put right and the other is left: it is the other one that is named.
#[test]
fn the_target_that_is_not_put_back_is_the_one_that_is_named() {
    let mut host = LabHost::new(manual(2), 2);
    host.policy.targets[1].drift = Drift::Report;
    host.poll(0);
    host.files = vec![9, 9];
    for seconds in [20, 40] {
        let run = host.poll(seconds);
        assert_eq!((host.files.clone(), run.failures.len()), (vec![1, 9], 1), "{:?}", run.steps);
        assert_eq!(run.drifted, ["t1"], "{:?}", run.said);
        assert!(run.said[0].contains("(target t1)"), "{:?}", run.said);
    }
}

#[test]
fn what_to_do_about_a_login_that_cannot_be_put_back_names_the_version_that_is_about_to_wait() {
    let mut host = LabHost::new(manual(1), 2);
    host.troubles = vec![("fetch-applied", trouble("not-given", false))];
    host.files = vec![9];
    host.poll(0);
    let fix = host.state.put_back.failure.as_ref().expect("it stands").fix.clone();
    assert!(fix.contains("relaykey approve ses --version v2"), "{fix}");
}
