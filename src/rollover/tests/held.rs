//! What login tables hold beside the login in use is part of a confirmation: one that says something else is made anew.

use super::lab::{LabHost, LabRun};
use super::*;

/// A host that somebody is told of, and that has confirmed what its tables hold now.
fn told_host(targets: usize) -> LabHost {
    let mut host = LabHost::new(policy(targets), 1);
    host.state.outbox.insert("fleet".into(), Outbox::default());
    host.state.targets.values_mut().for_each(|target| target.held = None);
    assert_eq!(confirmed(&host.poll(0)), 1, "what an earlier release confirmed says nothing of it");
    assert_eq!(confirmed(&host.poll(300)), 0);
    host
}

fn confirmed(run: &LabRun) -> usize {
    assert!(!run.wrote() && run.news.is_empty(), "{:?} {:?}", run.steps, run.news);
    usize::from(run.committed == Some(Completion::Confirmed))
}

#[test]
fn a_change_of_what_the_tables_hold_besides_owes_one_confirmation_each_time() {
    for targets in [1, 2] {
        let mut host = told_host(targets);
        for (at, held, owed) in [(600, "a", 1), (900, "a", 0), (1200, "b", 1), (1500, "a", 1), (1800, "a", 0)] {
            host.besides = (held, held);
            let run = host.poll(at);
            assert_eq!(confirmed(&run), owed, "{at}");
            // The report names what was read back, with a login that was accepted now.
            assert_eq!(run.steps.contains(&"verify") && run.steps.contains(&"read-back"), owed == 1, "{:?}", run.steps);
            assert_eq!(run.steps.contains(&"prepare"), owed == 1);
        }
    }
}

#[test]
fn what_a_look_sees_otherwise_than_the_reader_is_confirmed_once() {
    let mut host = told_host(1);
    host.besides = ("seen", "read back");
    assert_eq!([600, 900, 1200].map(|at| confirmed(&host.poll(at))), [1, 0, 0]);
    host.besides = ("read back", "read back");
    assert_eq!(confirmed(&host.poll(1500)), 0);
    host.besides = ("other", "read back");
    assert_eq!(confirmed(&host.poll(1800)), 1);
}

#[test]
fn what_was_seen_before_a_swap_is_not_what_was_confirmed_after_it() {
    let mut host = told_host(1);
    (host.besides, host.source) = (("clean", "left"), 2);
    let run = host.poll(600);
    assert!(run.wrote() && run.committed == Some(Completion::Confirmed));
    host.besides = ("left", "left");
    assert_eq!(confirmed(&host.poll(900)), 0);
    // Somebody has put right what was left.
    host.besides = ("clean", "clean");
    assert_eq!(confirmed(&host.poll(1200)), 1);
}

#[test]
fn nobody_is_told_where_there_is_no_receiver_and_by_who_has_left_or_only_tries() {
    let mut host = LabHost::new(policy(1), 1);
    for (at, held) in [(0, "a"), (300, "b")] {
        host.besides = (held, held);
        assert_eq!(confirmed(&host.poll(at)), 0);
    }
    let mut host = told_host(1);
    host.besides = ("a", "a");
    let run = host.run(Wake { dry_run: true, ..Wake::default() }, true, at(600), 0);
    assert!(run.committed.is_none() && !run.steps.contains(&"verify"), "{:?}", run.steps);
    host.run(Wake { leave: true, ..Wake::default() }, true, at(700), 0);
    assert_eq!(confirmed(&host.poll(900)), 0);
}

#[test]
fn what_cannot_be_confirmed_now_stays_owed() {
    let mut host = told_host(1);
    host.besides = ("a", "a");
    host.troubles = vec![("verify", Outcome::Failed(failure(true)))];
    assert_eq!(confirmed(&host.poll(600)), 0);
    // Killed before it is durable.
    host.troubles.clear();
    host.killed_before = Some("commit");
    assert_eq!(confirmed(&host.poll(3600)), 0);
    host.killed_before = None;
    assert_eq!(confirmed(&host.poll(7200)), 1);
    // Another target holds what is not ours: there is nothing to confirm.
    let mut host = told_host(2);
    host.policy.targets[1].drift = Drift::Report;
    (host.besides, host.files) = (("a", "a"), vec![1, 9]);
    assert_eq!(host.poll(600).committed, None);
    host.files = vec![1, 1];
    assert_eq!(host.poll(900).committed, Some(Completion::Confirmed));
    assert_eq!(host.poll(1200).committed, None);
}
