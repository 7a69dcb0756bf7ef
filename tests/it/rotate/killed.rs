//! Two controllers at once, each killed before or after a call, by a seeded choice: whatever happens, no host is left without a
//! live key, and each rotation ends with one key, the published one.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use jiff::SignedDuration;
use relaykey_rotate::run::{Ask, Controller, Moment, Tick};
use tokio::sync::Notify;

use super::lab::{Kind, Lab, Reads, SimHost, host, words};
use crate::lab::isolated::isolated_within;

/// Small and seeded: the same run again by the same number.
struct Dice(AtomicU64);

impl Dice {
    fn roll(&self, below: u64) -> u64 {
        let next = |x: u64| {
            let x = x ^ (x << 13);
            let x = x ^ (x >> 7);
            x ^ (x << 17)
        };
        let rolled = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |x| Some(next(x))).expect("it is set");
        next(rolled) % below
    }
}

/// Those that change something are struck more often: a look has many more calls, and forgets nothing.
fn changes(action: &str) -> bool {
    !["Get", "List", "Describe", "Query", "Scan"]
        .iter()
        .any(|read| action.split(':').nth(1).is_some_and(|a| a.starts_with(read)))
}

#[derive(Default)]
struct Counted {
    calls: AtomicU64,
    kills: AtomicU64,
}

/// One of two controllers, and how it is killed.
struct Process {
    controller: Option<Controller>,
    killed: Arc<Notify>,
}

fn start(lab: &Lab, dice: &Arc<Dice>, counted: &Arc<Counted>) -> Process {
    let killed = Arc::new(Notify::new());
    let (notify, dice, counted) = (Arc::clone(&killed), Arc::clone(dice), Arc::clone(counted));
    let choke = move |action: &'static str, moment: Moment| {
        if moment == Moment::Before {
            counted.calls.fetch_add(1, Ordering::Relaxed);
        }
        // Of a thousand, at each of two moments.
        let lives = dice.roll(1000) >= if changes(action) { 60 } else { 4 };
        if !lives {
            counted.kills.fetch_add(1, Ordering::Relaxed);
            notify.notify_one();
        }
        lives
    };
    Process { controller: Some(lab.controller_with(|_| {}, choke)), killed }
}

/// One turn of a process, or its end.
async fn turn(process: &mut Process) -> Option<Tick> {
    let killed = Arc::clone(&process.killed);
    let mut controller = process.controller.take()?;
    let tick = tokio::select! {
        tick = controller.tick() => tick,
        () = killed.notified() => return None,
    };
    process.controller = Some(controller);
    // Somebody else's write, or AWS in trouble, is not the end of it.
    tick.map_err(|fault| println!("{}", fault.what)).ok()
}

struct Fleet {
    hosts: Vec<SimHost>,
}

impl Fleet {
    /// Each host asks now and then, and takes what is published.
    fn live(&mut self, lab: &Lab, dice: &Dice) {
        for host in &mut self.hosts {
            if dice.roll(3) > 0 {
                continue;
            }
            let (version, key, _) = lab.published_at(host.reads);
            if host.applied != Some((version, key)) {
                lab.takes(host);
            }
        }
    }

    #[track_caller]
    fn has_live_keys(&self, lab: &Lab, told: &[String]) {
        let keys = lab.keys();
        assert!(keys.len() <= 2, "{keys:?}");
        for host in &self.hosts {
            let (_, key) = host.applied.as_ref().expect("it has one");
            let live = keys.iter().any(|(id, status)| id == key && status == "Active");
            assert!(live, "{} has {key}, which is dead: {keys:?}\n{}", host.name, told.join("\n"));
        }
    }
}

fn rotations(kind: Kind, rotations: usize, seed: u64, processes: usize) {
    let lab = Lab::new(kind);
    let dice = Arc::new(Dice(AtomicU64::new(seed)));
    let counted = Arc::new(Counted::default());
    let mut fleet = Fleet { hosts: ["mx1", "mx2", "mx3"].map(host).into() };
    let places: &[Reads] = match kind {
        Kind::ThreePlaces => &[Reads::First, Reads::Second, Reads::Parameter],
        Kind::SecretsManager | Kind::ParameterStore => &[Reads::First],
    };
    fleet.hosts.iter_mut().zip(places).for_each(|(host, place)| host.reads = *place);
    fleet.hosts.iter_mut().for_each(|host| lab.takes(host));
    let mut person = lab.controller();
    lab.ask(&mut person, Ask::Seal { expect: 3 });
    let mut all: Vec<Process> = (0..processes).map(|_| start(&lab, &dice, &counted)).collect();
    let began = std::time::Instant::now();
    for rotation in 0..rotations {
        let before = lab.published().1;
        // The machine may be busy with other tests.
        while let Err(fault) = lab.run_time.block_on(person.ask(Ask::Run)) {
            assert!(fault.temporary, "{fault:?}");
        }
        let mut told = Vec::new();
        let mut rounds = 0;
        loop {
            rounds += 1;
            assert!(
                rounds < 300,
                "rotation {rotation} does not end: {:?}\n{}\n{}",
                lab.keys(),
                told.join("\n"),
                lab.everything()
            );
            let ticks = lab.run_time.block_on(async {
                let futures = all.iter_mut().map(turn);
                futures_util::future::join_all(futures).await
            });
            let mut leap = SignedDuration::from_secs(20);
            for tick in ticks.into_iter().flatten() {
                match tick {
                    Tick::Busy(lease) => {
                        told.push(format!("busy until {}", lease.until));
                        if dice.roll(2) == 0 {
                            leap = leap.max(lease.until.duration_since(lab.now()) + SignedDuration::from_secs(1));
                        }
                    }
                    Tick::Turned(turned) => {
                        let decision = &turned.look.decision;
                        let faults = turned.look.faults.iter().map(|fault| fault.what.as_str());
                        let faults = faults.collect::<Vec<_>>().join("; ");
                        told.push(format!(
                            "{:?} {}: {} {faults}",
                            words(&turned.done),
                            decision.phase,
                            decision.reason
                        ));
                        // To the next look that is due, or to the end of what is waited for.
                        let until = decision.reason.until().filter(|_| dice.roll(2) == 0).or(decision.next);
                        if let Some(next) = until.filter(|_| turned.done.is_empty()) {
                            let wait = next.duration_since(lab.now()) + SignedDuration::from_secs(1);
                            leap = leap.max(wait.min(SignedDuration::from_hours(24 * 4)));
                        }
                    }
                }
            }
            fleet.has_live_keys(&lab, &told);
            for process in all.iter_mut().filter(|process| process.controller.is_none()) {
                told.push("killed".into());
                *process = start(&lab, &dice, &counted);
            }
            fleet.live(&lab, &dice);
            let (_, published, _) = lab.published();
            if published != before && lab.keys() == [(published, "Active".to_owned())] {
                break;
            }
            lab.pass(leap);
        }
        for place in places {
            assert_eq!(lab.published_at(*place).1, lab.published().1, "{place:?}: {}", told.join("\n"));
        }
        println!("rotation {rotation}: {rounds} rounds, {} s", began.elapsed().as_secs());
        let (_, broken) = lab.run_time.block_on(person.verify()).expect("a log");
        assert_eq!(broken, [], "{}", told.join("\n"));
    }
    let (calls, kills) = (counted.calls.load(Ordering::Relaxed), counted.kills.load(Ordering::Relaxed));
    println!("{rotations} rotations, {calls} calls, {kills} kills");
    assert!(kills * 60 > calls, "{kills} of {calls}: too few to show anything");
}

#[test]
fn two_controllers_are_killed_again_and_again() {
    isolated_within("rotate::killed::two_controllers_are_killed_again_and_again", 900, || {
        rotations(Kind::SecretsManager, 30, 0x5eed_0001, 2);
    });
}

#[test]
fn one_controller_is_killed_with_parameter_store() {
    isolated_within("rotate::killed::one_controller_is_killed_with_parameter_store", 400, || {
        rotations(Kind::ParameterStore, 5, 0x5eed_0002, 1);
    });
}

/// One key in two secrets and a parameter, each with a host of its own.
#[test]
fn one_controller_is_killed_with_three_places() {
    isolated_within("rotate::killed::one_controller_is_killed_with_three_places", 600, || {
        rotations(Kind::ThreePlaces, 8, 0x5eed_0004, 1);
    });
}

/// So many lanes side by side, each with servers of its own.
const LANES: usize = 2;
/// A lane begins anew after so many: what piles up in the server (versions, lines of the log) makes each look slower.
const AT_ONCE: usize = 25;

#[test]
#[ignore = "half an hour"]
fn two_controllers_are_killed_in_three_hundred_rotations() {
    isolated_within("rotate::killed::two_controllers_are_killed_in_three_hundred_rotations", 6000, || {
        let parts = std::env::var("RELAYKEY_KILLED_PARTS").unwrap_or_else(|_| format!("0-{}", 300 / AT_ONCE));
        let bounds = parts.split_once('-').and_then(|(from, to)| Some((from.parse().ok()?, to.parse().ok()?)));
        let (from, to): (u64, u64) = bounds.expect("RELAYKEY_KILLED_PARTS is FROM-TO");
        let seeds = std::sync::Mutex::new(0x5eed_0100 + from..0x5eed_0100 + to);
        std::thread::scope(|scope| {
            for _ in 0..LANES {
                scope.spawn(|| {
                    loop {
                        let next = seeds.lock().expect("no lane has failed").next();
                        let Some(seed) = next else { break };
                        rotations(Kind::SecretsManager, AT_ONCE, seed, 2);
                        println!("seed {seed:#x} is over");
                    }
                });
            }
        });
    });
}
