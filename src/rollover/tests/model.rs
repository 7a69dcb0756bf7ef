//! The model with people in it: whoever approves, changes files by hand, or asks for a confirmation may do so at any
//! point, the source may move on, one step may fail, and the program may be killed before any step.

use std::collections::BTreeMap;

use super::lab::approve;
use super::*;

/// What may happen.
#[derive(Debug, Clone)]
struct Game {
    policy: Policy,
    /// Orders that may be given whenever no step is under way.
    orders: Vec<Wake>,
    /// What a person may do to the files of the last target, one after the other.
    edits: Vec<u8>,
    /// The source may come to have version 3.
    moves: bool,
    failures: u8,
}

/// One target's mail server; versions are numbers, 0 is none and 9 nobody's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct PeopleServer {
    files: u8,
    noticed: u8,
    staged: u8,
    /// Journal: swapped in and not committed.
    swapped: u8,
    verified: u8,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct PeopleWorld {
    servers: Vec<PeopleServer>,
    source: u8,
    /// Versions that somebody has let go.
    approved: Vec<u8>,
    /// Logins of our own with the applied version that were refused, in a row.
    refusals: u8,
    /// The number of edits and orders that have happened.
    edits: usize,
    orders: usize,
    waits: u8,
    crashes: u8,
    failures: u8,
    /// Versions of which it was told that they wait.
    pending: Vec<String>,
    seq: u64,
}

/// What was met on all ways together.
#[derive(Debug, Default)]
struct Tally {
    situations: usize,
    steps: BTreeMap<&'static str, usize>,
    told: BTreeMap<&'static str, usize>,
}

impl Game {
    fn outcomes(&self, step: &Step, facts: &Facts, world: &PeopleWorld) -> Vec<(Outcome, PeopleWorld)> {
        let mut all = Vec::new();
        let mut one = |outcome: Outcome, change: &dyn Fn(&mut PeopleWorld)| {
            let mut after = world.clone();
            change(&mut after);
            all.push((outcome, after));
        };
        let same = |_: &mut PeopleWorld| {};
        let fails = world.failures < self.failures;
        let fail = |w: &mut PeopleWorld| w.failures += 1;
        // The version that the run has got.
        let version: u8 = facts.fetched.as_ref().map_or(0, |f| f.id.version[1..].parse().unwrap());
        let manual = self.policy.mode != Mode::Automatic;
        // Nothing is staged or swapped that nobody let go, nor where a person makes the change. What is in use is put back.
        let permitted = |t: usize| {
            assert!(self.policy.targets[t].write && !facts.wake.confirm && !facts.wake.dry_run, "{step:?}: {world:?}");
            let dead = self.applies_when_dead() && world.refusals >= 2;
            let let_go = !manual || dead || world.approved.contains(&version) || is_in_use(facts);
            assert!(let_go, "{step:?} without approval: {world:?}");
        };
        match step {
            Step::Inspect { target } => {
                let s = world.servers[*target];
                let owed = (s.files != s.noticed).then(|| ReloadOwed { since: at(-1), why: "owed".into() });
                let swapped = (s.swapped > 0).then(|| swapped(s.swapped.into()));
                one(Outcome::Inspected(Inspection { reload_owed: owed, swapped, ..holds(s.files.into()) }), &same);
            }
            Step::Fetch => {
                one(Outcome::Fetched(found(world.source.into(), 0)), &same);
                if fails {
                    one(Outcome::Failed(failure(true)), &fail);
                }
            }
            Step::FetchApplied => {
                assert!(self.policy.targets.iter().any(|t| t.write) && world.edits > 0, "{facts:?} {world:?}");
                one(Outcome::Fetched(found(1, 0)), &same);
                if fails {
                    one(Outcome::Failed(failure(true)), &fail);
                    one(Outcome::Failed(failure(false)), &fail);
                }
            }
            Step::Verify { target } => {
                let t = *target;
                one(Outcome::Accepted(evidence()), &move |w| w.servers[t].verified = version);
                if fails {
                    one(Outcome::Failed(failure(true)), &fail);
                    one(Outcome::Refused { endpoint: None, reply: "535".into() }, &fail);
                }
            }
            Step::Preview { target } => {
                let right = world.servers[*target].files == version;
                let change = if right { PlannedChange::default() } else { change() };
                one(Outcome::Previewed(change, format!("live{version}")), &same);
            }
            Step::Prepare { target } => {
                let (t, s) = (*target, world.servers[*target]);
                assert_eq!(s.verified, version, "staged before the login was accepted");
                let nothing_to_write = s.files == version;
                let swapped_before = nothing_to_write && s.swapped == version;
                let staged = StagedFacts {
                    nothing_to_write,
                    swapped_before,
                    live_id: format!("live{version}"),
                    goes_live: None,
                };
                if !nothing_to_write && facts.targets[t].previewed.as_ref().is_none_or(|p| !p.diff.is_empty()) {
                    permitted(t);
                }
                one(Outcome::Prepared(staged), &move |w| {
                    w.servers[t].staged = if nothing_to_write { 0 } else { version }
                });
                if fails {
                    one(Outcome::Failed(failure(true)), &fail);
                }
            }
            Step::Swap { target } => {
                let t = *target;
                permitted(t);
                assert_eq!(world.servers[t].staged, version, "swapped in what was staged");
                one(Outcome::Swapped, &move |w| {
                    w.servers[t] = PeopleServer { files: version, staged: 0, swapped: version, ..w.servers[t] };
                });
                if fails {
                    one(Outcome::Failed(failure(true)), &fail);
                }
            }
            Step::Activate { target } => {
                let t = *target;
                one(Outcome::Activated, &move |w| w.servers[t].noticed = w.servers[t].files);
                if fails {
                    one(Outcome::ReloadOwed(failure(true)), &fail);
                }
            }
            Step::ReadBack { target, .. } => {
                let s = world.servers[*target];
                if s.files == version && s.noticed == version {
                    one(Outcome::ReadBack(read_back(version.into())), &same);
                } else {
                    one(Outcome::Mismatch(failure(true)), &same);
                }
            }
            Step::Attest { target, .. } => {
                one(Outcome::ReadBack(proved(world.servers[*target].files.into())), &same);
                one(Outcome::Mismatch(failure(true)), &same);
            }
            Step::Undo { target } => {
                let t = *target;
                one(Outcome::Undone, &move |w| {
                    w.servers[t] = PeopleServer { files: 1, noticed: 1, staged: 0, swapped: 0, ..w.servers[t] };
                });
            }
            Step::Discard { target } => {
                let t = *target;
                one(Outcome::Discarded, &move |w| w.servers[t].staged = 0);
            }
            Step::Refrain { .. } => one(Outcome::Refrained, &same),
            Step::Hold => {
                assert!(manual, "nobody is to decide: {world:?}");
                one(Outcome::Noted, &same);
            }
            Step::Commit { stamp } => {
                assert!(stamp.seq > world.seq, "{stamp:?} {world:?}");
                for s in &world.servers {
                    assert_eq!(s.staged, 0, "confirmed with files left staged: {world:?}");
                }
                one(Outcome::Committed(Box::new(report(stamp.seq))), &|w| {
                    w.servers.iter_mut().for_each(|s| s.swapped = 0);
                    w.seq = stamp.seq;
                });
            }
            Step::Wait { .. } if world.waits < 2 => one(Outcome::Waited, &|w| w.waits += 1),
            Step::Wait { .. } | Step::Await | Step::End => {}
            Step::VerifyApplied { .. } => {
                one(Outcome::Accepted(evidence()), &|w| w.refusals = 0);
                one(Outcome::Refused { endpoint: None, reply: "535".into() }, &|w| {
                    w.refusals = (w.refusals + 1).min(2)
                });
                one(Outcome::NotGiven(failure(false)), &same);
                one(Outcome::Failed(failure(true)), &same);
            }
            Step::Release { .. } => {
                assert!(self.applies_when_dead() && world.refusals >= 2, "let go by nothing: {world:?}");
                // It is let go from now on, whatever the endpoint says later.
                one(Outcome::Noted, &|w| w.approved.push(version));
            }
            Step::Probe { .. } | Step::Reject | Step::Leave => panic!("{step:?}: not in this game"),
        }
        all
    }

    fn applies_when_dead(&self) -> bool {
        matches!(self.policy.mode, Mode::Manual { if_applied_dies: IfAppliedDies::Apply, .. })
    }

    /// Takes what is to be told, as whoever drives the machine does.
    fn hear(facts: &mut Facts, world: &mut PeopleWorld, tally: &mut Tally) {
        facts.superseded.clear();
        for news in std::mem::take(&mut facts.news) {
            *tally.told.entry(news.outcome.word()).or_default() += 1;
            assert!(news.seq > world.seq, "{news:?} {world:?}");
            world.seq = news.seq;
            if news.outcome == ReportOutcome::PendingApproval {
                assert!(!world.pending.contains(&news.version), "told twice: {news:?} {world:?}");
                world.pending.push(news.version);
            }
        }
    }

    fn walk(&self) -> Tally {
        let server = PeopleServer { files: 1, noticed: 1, staged: 0, swapped: 0, verified: 0 };
        let start = PeopleWorld {
            servers: vec![server; self.policy.targets.len()],
            source: 2,
            approved: Vec::new(),
            refusals: 0,
            edits: 0,
            orders: 0,
            waits: 0,
            crashes: 0,
            failures: 0,
            pending: Vec::new(),
            seq: 1,
        };
        let mut state = applied(&self.policy, 1);
        (state.seq, state.report) = (1, Some(report(1)));
        let facts = Facts::new(state, &self.policy, Wake::default(), true);
        let mut seen = Visited::default();
        let mut tally = Tally::default();
        enum PeopleVisit {
            Enter(Box<(Facts, PeopleWorld, Timestamp)>),
            Leave(Situation),
        }
        let mut stack = vec![PeopleVisit::Enter(Box::new((facts, start, at(0))))];
        while let Some(visit) = stack.pop() {
            let (mut facts, mut world, now) = match visit {
                PeopleVisit::Leave(key) => {
                    seen.leave(key);
                    continue;
                }
                PeopleVisit::Enter(node) => *node,
            };
            Self::hear(&mut facts, &mut world, &mut tally);
            let key = Situation::of(&mut facts, &world, now);
            let (step, _) = decide(&facts, &self.policy, now);
            match seen.enter(key) {
                Met::New => {}
                Met::Before => continue,
                Met::OnTheWay => panic!("a loop without end at {step:?}"),
            }
            stack.push(PeopleVisit::Leave(key));
            *tally.steps.entry(step.word()).or_default() += 1;
            if facts.committed.is_some() {
                // True when it was made; a person may have changed it since.
                assert_eq!(step, Step::End);
            }
            if step == Step::End && facts.committed.is_none() {
                // Refused an order, nothing to do, or it has what the source has.
                let calm = facts.blocked.is_some() || facts.state.candidate.is_none();
                assert!(calm, "ended without a reason: {facts:?} {world:?}");
            }
            for (outcome, after) in self.outcomes(&step, &facts, &world) {
                let mut next = facts.clone();
                let id = begin(&mut next, &self.policy, &step);
                let now = if let Step::Wait { until } = step { now.max(until) } else { now };
                if let Outcome::Committed(_) = outcome {
                    let version: u8 = facts.fetched.as_ref().unwrap().id.version[1..].parse().unwrap();
                    // What was read back and has been changed since is the next run's.
                    let edited = world.edits > 0;
                    for (s, t) in world.servers.iter().zip(&facts.targets) {
                        assert!(edited || (s.files, s.noticed) == (version, version), "not so: {world:?}");
                        assert_eq!(t.read_back, Some(read_back(version.into())), "{world:?}");
                    }
                }
                assert!(absorb(&mut next, &self.policy, id, &step, outcome, now, 0.5));
                if let Step::Inspect { target } = step {
                    // What this host put there is never taken for somebody else's, whatever the source has by then.
                    let (s, state) = (world.servers[target], &next.state.targets[&format!("t{target}")]);
                    let ours = world.edits == 0 && s.files == 1 || s.files != 0 && s.files == s.swapped;
                    assert!(
                        !ours || state.holds(&next.state) != Some(Holds::Other),
                        "taken for a stranger's: {world:?}"
                    );
                }
                stack.push(PeopleVisit::Enter(Box::new((next, after, now))));
            }
            // Others act.
            if self.moves && world.source == 2 {
                stack.push(PeopleVisit::Enter(Box::new((
                    facts.clone(),
                    PeopleWorld { source: 3, ..world.clone() },
                    now,
                ))));
            }
            if let Some(&files) = self.edits.get(world.edits) {
                let mut after = PeopleWorld { edits: world.edits + 1, ..world.clone() };
                after.servers.last_mut().unwrap().files = files;
                stack.push(PeopleVisit::Enter(Box::new((facts.clone(), after, now))));
            }
            let at_rest = matches!(step, Step::Wait { .. } | Step::End);
            if at_rest {
                let mut ended = (facts.clone(), world.clone());
                conclude(&mut ended.0, now, 0.5);
                Self::hear(&mut ended.0, &mut ended.1, &mut tally);
                if let Some(order) = self.orders.get(world.orders) {
                    let next = PeopleWorld { orders: world.orders + 1, ..ended.1.clone() };
                    // A login of our own may be due by then.
                    let then = ended.0.state.next_own_login().map_or(now, |due| due.max(now));
                    stack.push(PeopleVisit::Enter(Box::new(self.woken(&ended.0, next, order.clone(), then))));
                }
                if world.crashes == 0 {
                    let next = PeopleWorld { crashes: 1, ..ended.1 };
                    stack.push(PeopleVisit::Enter(Box::new(self.woken(&ended.0, next, Wake::default(), now))));
                }
            } else if world.crashes == 0 {
                // Killed; and whoever comes next may be a person.
                let next = PeopleWorld { crashes: 1, ..world.clone() };
                stack.push(PeopleVisit::Enter(Box::new(self.woken(&facts, next.clone(), Wake::default(), now))));
                if let Some(order) = self.orders.get(world.orders) {
                    let next = PeopleWorld { orders: world.orders + 1, ..next };
                    stack.push(PeopleVisit::Enter(Box::new(self.woken(&facts, next, order.clone(), now))));
                }
            }
        }
        tally.situations = seen.len();
        tally
    }

    /// Another run begins: on what is durable, with what is staged gone, and nothing proved.
    fn woken(
        &self,
        facts: &Facts,
        mut world: PeopleWorld,
        wake: Wake,
        now: Timestamp,
    ) -> (Facts, PeopleWorld, Timestamp) {
        world.servers.iter_mut().for_each(|s| (s.staged, s.verified) = (0, 0));
        let facts = Facts::new(facts.state.clone(), &self.policy, wake, true);
        if let Some(approve) = &facts.wake.approve {
            // What the person has seen, or names.
            let version = approve.version.as_ref().or(facts.waited.as_ref().map(|id| &id.version));
            world.approved.extend(version.map(|v| v[1..].parse::<u8>().unwrap()));
        }
        (facts, world, now)
    }
}

fn game(policy: Policy) -> Game {
    Game { policy, orders: Vec::new(), edits: Vec::new(), moves: false, failures: 1 }
}

fn none(tally: &Tally, words: &[&str]) {
    for word in words {
        assert!(!tally.steps.contains_key(word), "{word}: {tally:?}");
    }
}

fn some(tally: &Tally, words: &[&str]) {
    for word in words {
        assert!(tally.steps.contains_key(word) || tally.told.contains_key(word), "no {word}: {tally:?}");
    }
}

#[test]
fn where_nobody_approves_nothing_is_ever_staged() {
    let tally = Game { moves: true, failures: 2, ..game(manual(2)) }.walk();
    none(&tally, &["prepare", "swap", "activate", "read-back", "commit"]);
    some(&tally, &["hold", "pending-approval"]);
    assert!(tally.situations > 500, "{tally:?}");
}

#[test]
fn what_the_mail_log_tells_lets_nothing_go_and_two_refusals_of_our_own_do() {
    let hint = Wake { log_hint: true, ..Wake::default() };
    let orders = vec![hint.clone(), hint];
    let tally = Game { orders: orders.clone(), failures: 0, moves: true, ..game(manual(1)) }.walk();
    none(&tally, &["prepare", "swap", "release"]);
    some(&tally, &["hold", "verify-applied"]);
    let mut policy = manual(1);
    policy.mode = Mode::Manual { window: None, if_applied_dies: IfAppliedDies::Apply };
    let tally = Game { orders, failures: 0, moves: true, ..game(policy) }.walk();
    some(&tally, &["hold", "verify-applied", "release", "swap", "commit"]);
    assert!(tally.situations > 500, "{tally:?}");
}

#[test]
fn what_is_approved_goes_and_nothing_else() {
    for orders in [vec![approve(None), approve(None)], vec![approve(Some("v2")), approve(Some("v3"))]] {
        let tally = Game { moves: true, orders, ..game(manual(1)) }.walk();
        some(&tally, &["hold", "swap", "commit", "pending-approval"]);
        assert!(tally.situations > 500, "{tally:?}");
    }
    let tally = Game { orders: vec![approve(None)], moves: true, ..game(manual(2)) }.walk();
    some(&tally, &["hold", "swap", "commit", "pending-approval"]);
}

#[test]
fn what_a_person_changes_is_never_written_and_confirmed_when_it_is_right() {
    let mut policy = policy(2);
    policy.targets[1].write = false;
    let tally = Game { edits: vec![9, 2], ..game(policy.clone()) }.walk();
    some(&tally, &["refrain", "commit", "pending-approval", "withdrawn"]);
    let tally = Game { edits: vec![2, 1], ..game(policy.clone()) }.walk();
    some(&tally, &["refrain", "commit", "pending-approval"]);
    policy.mode = manual(1).mode;
    let tally = Game { edits: vec![2], orders: vec![approve(None)], failures: 0, ..game(policy) }.walk();
    some(&tally, &["refrain", "hold", "commit", "pending-approval"]);
}

#[test]
fn a_run_that_only_confirms_never_writes() {
    let confirm = Wake { confirm: true, ..Wake::default() };
    for policy in [policy(1), manual(1)] {
        let tally = Game { edits: vec![2, 9], orders: vec![confirm.clone()], ..game(policy) }.walk();
        some(&tally, &["refrain", "commit"]);
        assert!(tally.situations > 300, "{tally:?}");
    }
}
