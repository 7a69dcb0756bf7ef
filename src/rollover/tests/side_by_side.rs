//! Steps of several targets side by side: what hangs on one holds up no other, and whatever ends first, a confirmation is
//! true.

use std::collections::HashSet;

use super::*;

/// Drives two targets, of which the first hangs in the step with this word: its outcome does not come. What is begun
/// beside it, by word and target, and the step that hangs.
fn beside(facts: &mut Facts, policy: &Policy, word: &str) -> (Vec<(&'static str, Option<usize>)>, (StepId, Step)) {
    let (mut begun, mut hangs) = (Vec::new(), None);
    loop {
        let (step, _) = decide(facts, policy, at(0));
        if step == Step::Await {
            return (begun, hangs.expect("nothing waits for nothing"));
        }
        assert!(begun.len() < 50, "no end: {begun:?}");
        let id = begin(facts, policy, &step);
        if step.word() == word && step.target() == Some(0) && hangs.is_none() {
            hangs = Some((id, step));
            continue;
        }
        begun.push((step.word(), step.target()));
        let outcome = good(found(2, 0), holds(1), false)(&step).expect("an outcome");
        assert!(absorb(facts, policy, id, &step, outcome, at(0), 0.5));
    }
}

#[test]
fn what_hangs_on_one_target_holds_up_no_other() {
    for word in ["inspect", "verify", "probe", "prepare", "swap", "activate", "read-back"] {
        let policy = Policy { probe: true, ..policy(2) };
        let mut facts = Facts::new(applied(&policy, 1), &policy, Wake::default(), false);
        let (begun, (id, step)) = beside(&mut facts, &policy, word);
        let other: Vec<&str> = begun.iter().filter(|(_, target)| *target == Some(1)).map(|(word, _)| *word).collect();
        let whole = ["inspect", "verify", "probe", "prepare", "swap", "activate", "read-back"];
        assert_eq!(other, whole, "{word}");
        assert!(facts.targets[1].read_back.is_some() && facts.committed.is_none(), "{word}");

        // It comes late, and all is well; or it fails, and is tried again.
        for fails in [false, true] {
            let mut facts = facts.clone();
            let mut go = good(found(2, 0), holds(1), false);
            let outcome = if fails { Outcome::Failed(failure(true)) } else { go(&step).expect("an outcome") };
            assert!(absorb(&mut facts, &policy, id, &step, outcome, at(30), 0.5));
            let (rest, last, _) = drive(&mut facts, &policy, at(30), |step| match step {
                Step::Wait { .. } => Some(Outcome::Waited),
                step => go(step),
            });
            assert_eq!((last, rest.contains(&"wait")), (Step::End, fails), "{word}: {rest:?}");
            assert_eq!(facts.state.applied.as_ref().map(|a| a.id.clone()), Some(version(2)), "{word}: {rest:?}");
        }
    }
}

#[test]
fn a_login_under_way_is_not_tried_again_for_a_target_that_logs_in_alike() {
    let mut policy = policy(2);
    policy.targets[1].logs_in_as = 0;
    let mut facts = Facts::new(applied(&policy, 1), &policy, Wake::default(), false);
    let (begun, (id, step)) = beside(&mut facts, &policy, "verify");
    assert_eq!(begun, [("inspect", Some(0)), ("inspect", Some(1)), ("fetch", None)]);
    assert!(absorb(&mut facts, &policy, id, &step, Outcome::Accepted(evidence()), at(30), 0.5));
    assert!(facts.targets.iter().all(|t| t.evidence.is_some()));
}

/// Its proof is made over what the confirmation says, and that has become something else meanwhile.
#[test]
fn a_read_back_from_before_the_last_swap_does_not_count() {
    let policy = policy(2);
    // Without state, a target where nothing is written looks like an adoption as long as the other one hangs.
    let mut facts = Facts::new(State::new("ses"), &policy, Wake::default(), false);
    let mut go = good(found(2, 0), holds(1), false);
    let mut hung = Vec::new();
    let mut stamps = Vec::new();
    for n in 0.. {
        let now = at(0) + SignedDuration::from_millis(n);
        let (step, _) = decide(&facts, &policy, now);
        if step == Step::Await {
            break;
        }
        let id = begin(&mut facts, &policy, &step);
        if matches!(step, Step::Prepare { target: 0 } | Step::ReadBack { target: 1, .. }) {
            hung.push((id, step));
            continue;
        }
        let outcome = match &step {
            Step::Prepare { target: 1 } => Outcome::Prepared(StagedFacts {
                nothing_to_write: true,
                swapped_before: false,
                live_id: "live2".into(),
                goes_live: None,
            }),
            step => go(step).expect("an outcome"),
        };
        assert!(absorb(&mut facts, &policy, id, &step, outcome, now, 0.5));
    }
    let [(prepare, of_prepare), (read, of_read)] = <[_; 2]>::try_from(hung).expect("both hang");
    let Step::ReadBack { stamp, .. } = &of_read else { panic!("{of_read:?}") };
    assert_eq!(stamp.outcome, Completion::Adopted);
    let outcome = go(&of_prepare).expect("an outcome");
    assert!(absorb(&mut facts, &policy, prepare, &of_prepare, outcome, at(1), 0.5));
    for _ in 0..2 {
        let (step, _) = decide(&facts, &policy, at(1));
        let id = begin(&mut facts, &policy, &step);
        assert!(matches!(step, Step::Swap { target: 0 } | Step::Activate { target: 0 }), "{step:?}");
        assert!(absorb(&mut facts, &policy, id, &step, go(&step).expect("an outcome"), at(1), 0.5));
    }
    assert!(absorb(&mut facts, &policy, read, &of_read, Outcome::ReadBack(read_back(2)), at(1), 0.5));
    assert!(facts.targets[1].read_back.is_none(), "it was read back before the other one was swapped");
    let (rest, last, _) = drive(&mut facts, &policy, at(2), |step| {
        if let Step::ReadBack { stamp, .. } = step {
            stamps.push(stamp.outcome);
        }
        go(step)
    });
    assert_eq!((rest, last), (vec!["read-back", "read-back", "commit"], Step::End));
    assert_eq!(stamps, [Completion::Confirmed; 2]);
}

/// A wait ends with whatever comes first.
#[test]
fn time_is_waited_for_beside_a_look_alone() {
    let policy = policy(2);
    let mut facts = Facts::new(applied(&policy, 1), &policy, Wake::default(), false);
    let mut go = good(found(2, 0), holds(1), false);
    let look = Step::Inspect { target: 0 };
    assert_eq!(decide(&facts, &policy, at(0)).0, look);
    let looks = begin(&mut facts, &policy, &look);
    // The other one's login is not known yet.
    let (_, wait, _) = drive(&mut facts, &policy, at(0), |step| match step {
        Step::Verify { .. } => Some(Outcome::Refused { endpoint: None, reply: "535".into() }),
        step => go(step),
    });
    assert_eq!(wait, Step::Wait { until: at(10) });
    let waits = begin(&mut facts, &policy, &wait);
    assert!(absorb(&mut facts, &policy, looks, &look, Outcome::Inspected(holds(1)), at(5), 0.5));
    assert!(!absorb(&mut facts, &policy, waits, &wait, Outcome::Waited, at(10), 0.5), "it is decided anew");
    let (step, _) = decide(&facts, &policy, at(5));
    assert_eq!(step, Step::Verify { target: 0 });
    // With a login under way, the source is not asked whether it has something else by now.
    begin(&mut facts, &policy, &step);
    assert_eq!(decide(&facts, &policy, at(60)).0, Step::Await);
}

// ---------------------------------------------------------------- the model

/// A situation, with steps under way in its facts.
#[derive(Clone)]
struct Node {
    facts: Facts,
    world: ModelWorld,
    now: Timestamp,
    failures: u8,
    /// Milliseconds that have passed besides: each outcome takes one.
    passed: i64,
    /// When a target was last swapped, or its mail server told.
    changed: i64,
}

impl Node {
    /// What tells it from other situations: not which number a stamp has, but what was read back for the present one.
    fn key(&self) -> Situation {
        let stamp = self.facts.stamp.as_ref();
        let mut plain = self.facts.clone();
        plain.under_way.sort_by_key(|u| u.step.target());
        let mut present = Vec::new();
        for u in &mut plain.under_way {
            u.id = StepId(0);
            if let Step::ReadBack { stamp: of, .. } = &mut u.step {
                present.push(Some(&*of) == stamp);
                (of.seq, of.at) = (0, Timestamp::UNIX_EPOCH);
            }
        }
        if let Some(stamp) = &mut plain.stamp {
            (stamp.seq, stamp.at) = (0, Timestamp::UNIX_EPOCH);
        }
        let proved: Vec<bool> = self.facts.targets.iter().map(|t| self.is_proved(t, stamp)).collect();
        plain.targets.iter_mut().filter_map(|t| t.read_back.as_mut()).for_each(|r| r.proof = Err(String::new()));
        Situation::of(&mut plain, &(&self.world, self.failures, present, proved), self.now)
    }

    /// Was it read back for this stamp, which was made after the last change?
    fn is_proved(&self, target: &TargetFacts, stamp: Option<&Stamp>) -> bool {
        let Some((stamp, read_back)) = stamp.zip(target.read_back.as_ref()) else { return false };
        read_back.proof == Err(stamp.seq.to_string()) && i64::try_from(stamp.seq).unwrap() >= self.changed
    }

    /// For stamps alone: nothing else is told apart by milliseconds.
    fn now(&self) -> Timestamp {
        self.now + SignedDuration::from_millis(self.passed)
    }

    /// kill -9: staged files are removed by name at the next start; what was proved has to be proved again.
    fn killed(&self) -> Self {
        let mut world = ModelWorld { crashes: 1, verified: [false; 2], ..self.world };
        world.servers.iter_mut().for_each(|s| s.staged = false);
        let facts = Facts::new(self.facts.state.clone(), &policy(2), Wake::default(), true);
        Node { facts, world, ..self.clone() }
    }

    /// What may come of a step that is under way.
    fn ends(&self, step: &Step) -> Vec<(Outcome, Node)> {
        let all = outcomes(step, self.world);
        let only = all.len() == 1;
        let mut ends = Vec::new();
        for (mut outcome, world) in all {
            let mut after = Node { world, passed: self.passed + 1, ..self.clone() };
            if let Step::Wait { until } = step {
                after.now = after.now.max(*until);
            }
            let fails = matches!(
                outcome,
                Outcome::Failed(_) | Outcome::Refused { .. } | Outcome::ReloadOwed(_) | Outcome::Mismatch(_)
            );
            if fails && !only {
                after.failures += 1;
                if after.failures > 1 {
                    continue;
                }
            }
            if matches!(outcome, Outcome::Swapped | Outcome::Activated) {
                after.changed = after.now().as_millisecond();
            }
            if let (Step::ReadBack { stamp, .. }, Outcome::ReadBack(read_back)) = (step, &mut outcome) {
                read_back.proof = Err(stamp.seq.to_string());
            }
            ends.push((outcome, after));
        }
        ends
    }
}

/// Every order in which steps of two targets may begin and end, with one failure, and killed at any point: at most one
/// step about each target, no confirmation that is not true or not of one piece, no waiting for nothing, and a
/// confirmation in the end.
#[test]
fn whatever_ends_first_a_confirmation_is_true() {
    let policy = policy(2);
    let start = ModelWorld::start();
    let facts = Facts::new(applied(&policy, 1), &policy, Wake::default(), true);
    let mut seen: HashSet<Situation> = HashSet::new();
    let (mut commits, mut at_once) = (0, 0);
    let mut stack = vec![Node { facts, world: start, now: at(0), failures: 0, passed: 0, changed: 0 }];
    while let Some(node) = stack.pop() {
        if !seen.insert(node.key()) {
            continue;
        }
        let Node { facts, world, .. } = &node;
        at_once = at_once.max(facts.under_way.len());
        for under_way in &facts.under_way {
            for (outcome, mut after) in node.ends(&under_way.step) {
                if world.crashes == 0 && after.world != *world {
                    // Killed before anybody heard of it.
                    stack.push(after.killed());
                }
                if let (Step::Commit { stamp }, Outcome::Committed(_)) = (&under_way.step, &outcome) {
                    assert!(facts.targets.iter().all(|t| node.is_proved(t, Some(stamp))), "{:?}", facts.targets);
                }
                let (id, step) = (under_way.id, &under_way.step);
                assert!(absorb(&mut after.facts, &policy, id, step, outcome, after.now, 0.5));
                stack.push(after);
            }
        }
        let (step, _) = decide(facts, &policy, node.now());
        match &step {
            Step::Await => assert!(!facts.under_way.is_empty(), "waits for nothing: {facts:?}"),
            Step::End => {
                assert_eq!(facts.under_way.len(), 0);
                assert!(facts.committed.is_some(), "ended without a confirmation: {facts:?}");
                commits += 1;
            }
            step => {
                if let Step::Wait { until } = step {
                    let anew = at_rest(facts).any(|i| facts.targets[i].failed);
                    assert!(*until > node.now || anew, "waits without end: {facts:?}");
                }
                let about =
                    |u: &UnderWay| u.targets.is_empty() || step.target().is_some_and(|t| u.targets.contains(&t));
                assert!(!facts.under_way.iter().any(about), "{step:?} beside {:?}", facts.under_way);
                let mut after = node.clone();
                begin(&mut after.facts, &policy, step);
                stack.push(after);
            }
        }
        if world.crashes == 0 && step != Step::End {
            stack.push(node.killed());
        }
    }
    assert_eq!(at_once, 3, "two looks, and the source");
    assert!(seen.len() > 10_000 && commits > 10, "{} situations, {commits} ways to a confirmation", seen.len());
}
