//! Breadth-first over all states, then backwards: from where is the good end in reach?

use std::collections::{HashMap, VecDeque};
use std::time::Instant;

use super::setups::{Group, May, Options, setups};
use super::steps::{Game, Kind};
use super::world::{Hand, Report, Status, World};
use crate::refusal::{Refusal, WaitsFor};

#[derive(Debug, Default)]
struct Found {
    states: usize,
    steps: usize,
    violations: Vec<String>,
    /// Classes of refusals that wait for a person where the good end is out of reach.
    waits: Vec<String>,
    /// Neither the good end nor such a refusal is in reach.
    dead_ends: Vec<String>,
    circle: Option<String>,
}

/// Counted, by whoever: a host or the version that everybody takes, with a key that we made dead.
fn violated(game: &Game, world: &World) -> Option<String> {
    if world.number_of_keys() > 2 {
        return Some("three keys".into());
    }
    if world.moved(&game.options) || world.moved_second(&game.options) {
        return None;
    }
    let dead = |key: i8| {
        key >= 0 && matches!(world.status(key), Status::Inactive | Status::Gone) && world.hand(key) == Hand::Us
    };
    for (j, host) in world.hosts.iter().enumerate() {
        let key = world.key_of(host.applied);
        if dead(key) && !host.drifted {
            return Some(format!("h{j} has K{key} alone, which we made dead"));
        }
    }
    if dead(world.user) {
        return Some(format!("the unknown user has K{}, which we made dead", world.user));
    }
    let second = world.second.map_or(-1, |second| second.gives);
    if dead(second) {
        return Some(format!("the second place gives K{second}, which we made dead"));
    }
    let current = world.key_of(world.labels[0]);
    dead(current).then(|| format!("the published K{current} is dead by us"))
}

/// A host that we cut off says so, and the next look does not bring its key back.
fn unhealed(game: &Game, world: &World) -> Option<String> {
    if world.controllers.iter().any(|c| c.doing.is_some()) {
        return None;
    }
    let cut = world.hosts.iter().position(|host| {
        let key = world.key_of(host.applied);
        let by_us = key >= 0 && world.status(key) == Status::Inactive && world.hand(key) == Hand::Us;
        by_us && host.report == Report::Refused(key)
    })?;
    let mut alone = world.clone();
    alone.rec.lease = false;
    let (_, _, decision) = game.look(&alone, 0, &world.labels)?;
    let heals = matches!(decision.action, Some(crate::plan::Action::Reactivate { .. }));
    // Without the record nobody knows whose hand it was: a person is asked.
    let lost = game.options.has(May::LoseRecord) && !world.may(May::LoseRecord);
    let asked = lost && decision.refusals.iter().any(|refusal| matches!(refusal, Refusal::DeactivatedByHand { .. }));
    (!heals && !asked).then(|| format!("h{cut} is cut off, and the next look does {:?}", decision.action))
}

fn good(game: &Game, world: &World) -> bool {
    let (rec, options) = (&world.rec, &game.options);
    let [current, pending, ..] = world.labels;
    let key = world.key_of(current);
    let keys = world.number_of_keys() == 1
        || options.never_deletes && world.keys.iter().filter(|k| k.status == Status::Active).count() == 1;
    let host = |host: &super::world::HostState| {
        let absent = host.applied < 0 && host.report == Report::None;
        absent || host.applied == current && host.report == Report::Confirmed(current) && host.silent == 0
    };
    let second = |second: super::world::Second| second.gives == key && !second.unseen;
    world.live(key)
        && world.second.is_none_or(second)
        && keys
        && rec.published == Some((current, key))
        && (pending < 0 || pending == current)
        && (rec.old < 0 || options.never_deletes)
        && rec.trouble.iter().all(|trouble| *trouble < 0)
        && !rec.want
        && world.hosts.iter().all(host)
        && world.controllers.iter().all(|c| c.doing.is_none() && c.memory < 0)
        && (world.user < 0 || world.user == key)
}

/// Nothing is done, and a person is asked for something.
fn waits_for_a_person(game: &Game, world: &World) -> Option<String> {
    if world.controllers.iter().any(|c| c.doing.is_some() || c.memory >= 0) {
        return None;
    }
    let mut alone = world.clone();
    alone.rec.lease = false;
    let (_, _, decision) = game.look(&alone, 0, &world.labels)?;
    if decision.action.is_some() {
        return None;
    }
    let person = decision.refusals.iter().filter(|refusal| refusal.waits_for() == WaitsFor::Person);
    let mut classes: Vec<_> = person.map(|refusal| refusal.class()).collect();
    classes.sort_unstable();
    classes.dedup();
    (!classes.is_empty()).then(|| classes.join("+"))
}

const MOST: usize = 600_000;

fn walk(options: Options) -> Found {
    let game = Game::new(options);
    let mut found = Found::default();
    let mut index: HashMap<World, u32> = HashMap::new();
    let mut worlds: Vec<World> = Vec::new();
    let mut from: Vec<(u32, String)> = Vec::new();
    let mut edges: Vec<Vec<(u32, Kind)>> = Vec::new();
    let mut queue = VecDeque::new();
    let start = game.options.start();
    index.insert(start.clone(), 0);
    worlds.push(start);
    from.push((u32::MAX, String::new()));
    edges.push(Vec::new());
    queue.push_back(0_u32);
    let trace = |from: &Vec<(u32, String)>, mut at: u32| {
        let mut way = Vec::new();
        while from[at as usize].0 != u32::MAX {
            way.push(from[at as usize].1.clone());
            at = from[at as usize].0;
        }
        way.reverse();
        way.join(" > ")
    };
    while let Some(at) = queue.pop_front() {
        let world = worlds[at as usize].clone();
        for step in game.steps(&world) {
            found.steps += 1;
            let to = match step.to {
                Ok(to) => to,
                Err(violation) => {
                    found.violations.push(format!("{violation}: {} > {}", trace(&from, at), step.label));
                    continue;
                }
            };
            let next = match index.get(&to) {
                Some(next) => *next,
                None => {
                    let next = worlds.len() as u32;
                    index.insert(to.clone(), next);
                    from.push((at, step.label));
                    edges.push(Vec::new());
                    let bad = violated(&game, &to).or_else(|| unhealed(&game, &to));
                    worlds.push(to);
                    match bad {
                        Some(bad) => found.violations.push(format!("{bad}: {}", trace(&from, next))),
                        None => queue.push_back(next),
                    }
                    next
                }
            };
            edges[at as usize].push((next, step.kind));
        }
        // The first is enough to know: the rest are its neighbours.
        if !found.violations.is_empty() || worlds.len() > MOST {
            break;
        }
    }
    found.states = worlds.len();
    assert!(worlds.len() <= MOST, "too many states: {found:?}");
    if !found.violations.is_empty() {
        return found;
    }
    let mut back: Vec<Vec<u32>> = vec![Vec::new(); worlds.len()];
    for (at, next) in edges.iter().enumerate() {
        for (to, _) in next {
            back[*to as usize].push(at as u32);
        }
    }
    let reach = |ends: Vec<u32>| {
        let mut reached = vec![false; worlds.len()];
        let mut open = ends;
        for end in &open {
            reached[*end as usize] = true;
        }
        while let Some(at) = open.pop() {
            for before in &back[at as usize] {
                if !std::mem::replace(&mut reached[*before as usize], true) {
                    open.push(*before);
                }
            }
        }
        reached
    };
    let all = 0..worlds.len() as u32;
    let ends = all.clone().filter(|at| good(&game, &worlds[*at as usize])).collect();
    let reached = reach(ends);
    let rest: Vec<u32> = all.filter(|at| !reached[*at as usize]).collect();
    let mut persons = Vec::new();
    for at in &rest {
        if let Some(class) = waits_for_a_person(&game, &worlds[*at as usize]) {
            persons.push(*at);
            if !found.waits.contains(&class) {
                found.waits.push(class);
            }
        }
    }
    let asked = reach(persons);
    let dead = rest.iter().filter(|at| !asked[**at as usize]);
    found.dead_ends = dead.take(3).map(|at| trace(&from, *at)).collect();
    found.circle = circle(&edges).map(|at| trace(&from, at));
    found
}

/// A circle of our own steps on fresh reads: it would never end.
fn circle(edges: &[Vec<(u32, Kind)>]) -> Option<u32> {
    // 0 not met, 1 on the way, 2 done.
    let mut met = vec![0_u8; edges.len()];
    let ours = |at: u32| {
        let next = edges[at as usize].iter().filter(|(_, kind)| *kind == Kind::Ours);
        next.map(|(to, _)| *to).collect::<Vec<_>>()
    };
    for start in 0..edges.len() as u32 {
        if met[start as usize] != 0 {
            continue;
        }
        let mut stack = vec![(start, ours(start))];
        met[start as usize] = 1;
        while let Some((at, next)) = stack.last_mut() {
            let at = *at;
            match next.pop() {
                Some(to) if met[to as usize] == 1 => return Some(to),
                Some(to) if met[to as usize] == 0 => {
                    met[to as usize] = 1;
                    stack.push((to, ours(to)));
                }
                Some(_) => {}
                None => {
                    met[at as usize] = 2;
                    stack.pop();
                }
            }
        }
    }
    None
}

/// Walks these set-ups and tells everything that is wrong at once.
fn walk_all(which: impl Fn(&str, bool, &Options) -> bool) {
    let (mut states, mut wrong) = (0, Vec::new());
    for (name, short, options) in setups() {
        if !which(name, short, &options) {
            continue;
        }
        let needs_nobody = !options.may_need_a_person();
        let began = Instant::now();
        let found = walk(options);
        let lines = format!(
            "{name}: {} states, {} steps, {:.1} s; waits for {:?}",
            found.states,
            found.steps,
            began.elapsed().as_secs_f32(),
            found.waits
        );
        #[expect(clippy::print_stderr, reason = "what was walked, for whoever runs it with --nocapture")]
        {
            eprintln!("{lines}");
        }
        states += found.states;
        wrong.extend(
            found
                .violations
                .iter()
                .take(1)
                .map(|violation| format!("{name}: after {} states: {violation}", found.states)),
        );
        wrong.extend(found.dead_ends.iter().take(1).map(|end| format!("{name}: no way on: {end}")));
        if needs_nobody && !found.waits.is_empty() {
            wrong.push(format!("{name}: needs a person: {:?}", found.waits));
        }
        wrong.extend(found.circle.iter().map(|circle| format!("{name}: a circle: {circle}")));
    }
    assert!(wrong.is_empty(), "{} states; wrong:\n{}", states, wrong.join("\n"));
    assert!(states > 100, "{states}");
}

/// The small set-ups of a group, or the one that `ROTATE_MODEL` names.
fn walk_group(group: Group) {
    let one = std::env::var("ROTATE_MODEL").ok();
    walk_all(|name, short, options| one.as_deref().map_or(short && options.group() == group, |one| name == one));
}

#[test]
fn every_order_of_events_in_a_fleet() {
    walk_group(Group::Fleet);
}

#[test]
fn every_order_of_events_with_kills_and_two_controllers() {
    walk_group(Group::Controllers);
}

#[test]
fn every_order_of_events_with_persons() {
    walk_group(Group::Persons);
}

#[test]
fn every_order_of_events_where_a_key_is_published() {
    walk_group(Group::Publishing);
}

#[test]
fn every_order_of_events_where_the_record_is_lost() {
    walk_group(Group::Record);
}

#[test]
#[ignore = "minutes: every set-up"]
fn every_order_of_events() {
    walk_all(|_, _, _| true);
}
