//! What may happen next in a state: a look, a step of a decision, a kill, a host, a person, time.

use super::setups::{May, Options, Staged, unknown_outcome};
use super::world::{
    Act, CANARY, Doing, EMPTY, ENDPOINT, HOSTS, Hand, KEYS, KeyState, LOST, Labels, Maker, NOBODYS, NOW, Report,
    Second, Stage, Status, VERSIONS, World, ago, bit, host_name, key_id, me, number, policy, second_id, second_place,
    version_id,
};
use crate::checker;
use crate::facts::{Facts, KeyId, Login, LoginReply, VersionId};
use crate::plan::{Action, Decision, Outcome, Purpose, WhyGone, plan};
use crate::policy::Policy;
use crate::record::look;

/// What kind of step it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Of our own, on fresh reads: a circle of these alone never ends.
    Ours,
    Else,
}

/// What must never be.
pub type Violation = String;

pub struct Step {
    pub label: String,
    pub kind: Kind,
    pub to: Result<World, Violation>,
}

/// One walk's rules.
pub struct Game {
    pub options: Options,
    pub policy: Policy,
}

impl Game {
    pub fn new(options: Options) -> Self {
        let policy = policy(options.canary, options.never_deletes);
        Self { options, policy }
    }

    /// A look of controller `i`: the lease, the record's own look, then the plan; logins that change nothing are made at once.
    pub fn look(&self, world: &World, i: usize, labels: &Labels) -> Option<(World, Facts, Decision)> {
        let mut facts = world.facts(labels, i, self.options.parameter_store);
        facts.record.take(&me(i), facts.unstored.as_ref(), &self.policy, NOW).ok()?;
        facts.record = look(&facts, &self.policy, NOW);
        let mut decision = plan(&facts, &self.policy, NOW);
        for _ in 0..3 {
            let Some(Action::LogIn { key, purpose: Purpose::Verify | Purpose::ProveDead }) = &decision.action else {
                break;
            };
            let reply = if bit(world.ses, number(key.as_str())) { LoginReply::Accepted } else { LoginReply::Refused };
            let key = key.clone();
            let action = decision.action.clone().expect("it logs in");
            facts.record.begin(&action, None, NOW);
            let mut record = facts.record.clone();
            let outcome = Outcome::logged_in(&[reply]);
            record.done(&action, &outcome, &facts, &self.policy, NOW);
            facts.record = record;
            facts.logins.push(Login { key, endpoint: ENDPOINT.into(), reply, at: NOW });
            decision = plan(&facts, &self.policy, NOW);
        }
        let mut after = world.clone();
        after.keep(&facts.record);
        for host in &mut after.hosts {
            host.anew = false;
        }
        Some((after, facts, decision))
    }

    /// Everything that may happen in this state.
    pub fn steps(&self, world: &World) -> Vec<Step> {
        let mut steps = Vec::new();
        for i in 0..self.options.controllers {
            self.controller(world, i, &mut steps);
        }
        let urgent = self.hosts(world, &mut steps) || self.ses(world, &mut steps);
        self.persons(world, &mut steps);
        self.time(world, urgent, &mut steps);
        steps.retain(|step| step.to.as_ref() != Ok(world));
        for step in &mut steps {
            if let Ok(world) = &mut step.to {
                self.settle(world);
            }
        }
        steps
    }

    /// Makes states that differ in nothing that matters the same.
    fn settle(&self, world: &mut World) {
        let idle = world.controllers.iter().all(|c| c.doing.is_none() && c.memory < 0);
        // Alone, the lease is nobody's but its own.
        if self.options.controllers == 1 && idle {
            (world.rec.holder, world.rec.lease) = (0, false);
        }
        if world.stale == Some(world.labels) {
            world.stale = None;
        }
        // A version that nothing refers to any more, and its key, make room: it changes nothing.
        let named = |world: &World, version: i8| {
            let hosts = world.hosts.iter().any(|host| {
                let told = matches!(host.report, Report::Confirmed(v) | Report::Forged(v) if v == version);
                host.applied == version || host.candidate == version || told
            });
            let labels = world.labels.iter().chain(world.stale.iter().flatten()).any(|v| *v == version);
            let rec = &world.rec;
            let rec =
                rec.promoting.is_some_and(|(v, _)| v == version) || rec.published.is_some_and(|(v, _)| v == version);
            hosts || labels || rec || world.canary_failed == version
        };
        if world.controllers.iter().any(|c| c.doing.is_some()) {
            return;
        }
        while world.count > 1 {
            let version = world.count as i8 - 1;
            let key = world.versions[version as usize];
            let dead = key < 0 || world.keys[key as usize].status == Status::Gone;
            if !dead || named(world, version) {
                break;
            }
            world.count -= 1;
            world.versions[version as usize] = 0;
        }
        for key in 1..KEYS as i8 {
            let versions = world.versions[..usize::from(world.count)].contains(&key);
            let told = world.hosts.iter().any(|host| {
                host.others == key || matches!(host.report, Report::Withdrawn(k) | Report::Refused(k) if k == key)
            });
            let second = world.second.is_some_and(|second| second.gives == key || second.staged == key);
            let told = told || second || world.rec.second == key;
            if world.status(key) == Status::Gone && !versions && !told && world.rec.old != key {
                for making in world.rec.creating.iter_mut().flatten() {
                    making.made &= !(1 << key);
                    if making.key == key {
                        return;
                    }
                }
                if world.rec.published.is_some_and(|(_, k)| k == key)
                    || world.rec.promoting.is_some_and(|(_, k)| k == key)
                {
                    continue;
                }
                if world.rec.backoff.is_some_and(|(k, _)| k == key) {
                    continue;
                }
                // Whoever still holds its secret holds nothing.
                for controller in world.controllers.iter_mut().filter(|c| c.memory == key) {
                    controller.memory = -1;
                }
                world.keys[key as usize] = KeyState { status: Status::Free, maker: Maker::Us, hand: Hand::Nobody };
                let mask = !(1 << key);
                (world.used, world.ses, world.rec.own) = (world.used & mask, world.ses & mask, world.rec.own & mask);
                let rec = &mut world.rec;
                for keys in [
                    &mut rec.deactivated,
                    &mut rec.long,
                    &mut rec.unanswered,
                    &mut rec.switched_on,
                    &mut rec.missing,
                    &mut rec.gone,
                ] {
                    *keys &= mask;
                }
                if world.needed == key {
                    world.needed = -1;
                }
            }
        }
    }

    // ------------------------------------------------------------ controllers

    fn controller(&self, world: &World, i: usize, steps: &mut Vec<Step>) {
        let controller = world.controllers[i];
        match controller.doing {
            None => {
                let stale = world.stale.filter(|_| self.options.stale);
                for (labels, fresh) in [(Some(world.labels), true), (stale, false)] {
                    let Some((mut after, facts, decision)) = labels.and_then(|labels| self.look(world, i, &labels))
                    else {
                        continue;
                    };
                    let found = checker::check(&decision, &facts, &self.policy, NOW);
                    let label = format!("c{i} looks{}: {:?}", if fresh { "" } else { " (stale)" }, decision.action);
                    if !found.is_empty() {
                        steps.push(Step { label, kind: Kind::Else, to: Err(format!("the checker: {found:?}")) });
                        continue;
                    }
                    let acts = decision.action.as_ref().map(pack);
                    after.controllers[i].doing = acts.map(|act| Doing { act, stage: first_stage(&act), old: false });
                    let kind = if fresh && acts.is_some() { Kind::Ours } else { Kind::Else };
                    steps.push(Step { label, kind, to: Ok(after) });
                }
            }
            Some(doing) => {
                let label = format!("c{i} {:?} {:?}", doing.act, doing.stage);
                let to = self.go_on(world, i, doing);
                steps.push(Step { label, kind: Kind::Ours, to });
            }
        }
        if world.may(May::Crash) && (controller.doing.is_some() || controller.memory >= 0) {
            let mut after = world.spend(May::Crash);
            (after.controllers[i].doing, after.controllers[i].memory) = (None, -1);
            steps.push(Step { label: format!("c{i} is killed"), kind: Kind::Else, to: Ok(after) });
        }
    }

    /// The next part of a decision: what is written before the call, the call, what is written after it.
    fn go_on(&self, world: &World, i: usize, doing: Doing) -> Result<World, Violation> {
        let mut after = world.clone();
        let action = unpack(&doing.act);
        let mut record = world.record();
        let held = world.rec.holder == i as u8 + 1;
        let next = |after: &mut World, stage: Option<Stage>| {
            after.controllers[i].doing = stage.map(|stage| Doing { stage, ..doing });
        };
        let decided = if doing.old { ago(2) } else { NOW };
        if !matches!(doing.stage, Stage::Done(..)) && !record.may_act(&me(i), record.fence, decided, NOW) {
            next(&mut after, None);
            return Ok(after);
        }
        match doing.stage {
            Stage::Begin => {
                // The version's id is the token, which is known before the put; Parameter Store numbers with the put.
                let token =
                    (!self.options.parameter_store).then(|| version_id(world.count.min(VERSIONS as u8 - 1) as i8));
                record.begin(&action, token, NOW);
                after.keep(&record);
                next(&mut after, Some(Stage::Call));
            }
            Stage::Call => {
                let stage = self.call(&mut after, i, &doing.act)?;
                next(&mut after, stage);
            }
            Stage::Done(gave, failed) => {
                // Fenced: whoever took over since has looked for itself.
                if held {
                    let outcome = match (&doing.act, failed) {
                        (_, true) => Outcome::Failed,
                        (Act::Create, _) => Outcome::Created(key_id(gave)),
                        (Act::Put { publishes: true, .. }, _) => Outcome::Published(version_id(gave)),
                        (Act::Republish { .. }, _) if self.options.parameter_store => {
                            Outcome::Published(version_id(gave))
                        }
                        (Act::LastLogin { key }, _) => {
                            let accepted = bit(world.ses, *key);
                            Outcome::logged_in(&[if accepted { LoginReply::Accepted } else { LoginReply::Refused }])
                        }
                        _ => Outcome::Done,
                    };
                    let facts = world.facts(&world.labels, i, self.options.parameter_store);
                    record.done(&action, &outcome, &facts, &self.policy, NOW);
                    after.keep(&record);
                }
                next(&mut after, None);
            }
        }
        Ok(after)
    }

    /// The call itself, and what it gave. `None`: there is nothing to be written after it.
    fn call(&self, world: &mut World, i: usize, act: &Act) -> Result<Option<Stage>, Violation> {
        let done = Stage::Done(-1, false);
        Ok(match *act {
            Act::Reactivate { key, .. } => {
                let state = &mut world.keys[key as usize];
                if state.status == Status::Inactive {
                    if state.hand == Hand::Person {
                        return Err(format!("K{key}, deactivated by a person, is brought back"));
                    }
                    (state.status, state.hand) = (Status::Active, Hand::Nobody);
                }
                Some(done)
            }
            Act::Create => {
                let free = world.keys.iter().position(|key| key.status == Status::Free);
                if free.is_none() && world.number_of_keys() < 2 {
                    // The model has no more numbers for keys: this way ends here, until time drops the decision.
                    return Ok(Some(Stage::Call));
                }
                match free.filter(|_| world.number_of_keys() < 2) {
                    None => Some(Stage::Done(-1, true)),
                    Some(key) => {
                        world.keys[key] = KeyState { status: Status::Active, maker: Maker::Us, hand: Hand::Nobody };
                        if let Some(making) = world.rec.making() {
                            making.made |= 1 << key;
                        }
                        world.controllers[i].memory = key as i8;
                        world.pending_long &= !self.options.parameter_store;
                        Some(Stage::Done(key as i8, false))
                    }
                }
            }
            Act::Put { key, publishes } => {
                world.controllers[i].memory = -1;
                self.put(world, key, publishes, publishes)
            }
            Act::Republish { key, .. } => {
                let publishes = self.options.parameter_store;
                self.put(world, key, publishes, publishes)
            }
            Act::Forget { refused, .. } => {
                world.controllers[i].memory = -1;
                refused.then_some(done)
            }
            Act::LastLogin { key } => {
                world.login_refused = !bit(world.ses, key);
                Some(done)
            }
            Act::Intend { .. } | Act::RecordPublished { .. } | Act::RecordDead { .. } => Some(done),
            Act::TakeOff { version, .. } => {
                if world.labels[1] == version {
                    self.label(world, |labels| labels[1] = -1);
                }
                Some(done)
            }
            Act::Label { version } => {
                self.label(world, |labels| labels[3] = version);
                None
            }
            Act::Unlabel { version } => {
                if world.labels[3] == version {
                    self.label(world, |labels| labels[3] = -1);
                }
                None
            }
            Act::Promote { from, version, key } => {
                if world.labels[0] != from {
                    return Ok(Some(Stage::Done(-1, true)));
                }
                self.label(world, |labels| {
                    *labels = [version, if labels[1] == version { -1 } else { labels[1] }, from, labels[3]];
                });
                world.used |= 1 << key;
                Some(done)
            }
            Act::CopyTo { key, .. } => {
                if let Some(second) = &mut world.second {
                    second.staged = key;
                }
                None
            }
            Act::PromoteAt { from, key } => match &mut world.second {
                Some(second) if second.gives == from => {
                    (second.gives, second.staged) = (key, -1);
                    world.used |= 1 << key;
                    Some(done)
                }
                _ => Some(Stage::Done(-1, true)),
            },
            Act::Deactivate { key, .. } => {
                let state = &mut world.keys[key as usize];
                let excused = world.rec.creating.iter().flatten().any(|m| m.key < 0 && bit(m.made, key));
                if state.maker == Maker::Person && !excused {
                    return Err(format!("K{key}, made by a person, is deactivated"));
                }
                if state.status == Status::Active {
                    if world.needed == key {
                        return Err(format!(
                            "K{key}, which a person switched on again, is deactivated as if it had not been"
                        ));
                    }
                    (state.status, state.hand) = (Status::Inactive, Hand::Us);
                }
                Some(done)
            }
            Act::Delete { key, .. } => {
                let state = world.keys[key as usize];
                let excused = world.rec.creating.iter().flatten().any(|m| m.key < 0 && bit(m.made, key));
                if world.exists(key) {
                    if state.maker == Maker::Person && !excused {
                        return Err(format!("K{key}, made by a person, is deleted"));
                    }
                    if !matches!(state.hand, Hand::Us | Hand::Either) {
                        return Err(format!("K{key} is deleted, and we did not deactivate it"));
                    }
                    if world.key_of(world.labels[0]) == key && !world.moved(&self.options) {
                        return Err(format!("the published K{key} is deleted"));
                    }
                    world.keys[key as usize].status = Status::Gone;
                }
                Some(done)
            }
        })
    }

    fn put(&self, world: &mut World, key: i8, publishes: bool, told: bool) -> Option<Stage> {
        if usize::from(world.count) == VERSIONS {
            return None;
        }
        let version = world.count as i8;
        world.versions[version as usize] = key;
        world.count += 1;
        self.label(world, |labels| {
            *labels = if publishes { [version, -1, labels[0], -1] } else { [labels[0], version, labels[2], labels[3]] };
        });
        told.then_some(Stage::Done(version, false))
    }

    fn label(&self, world: &mut World, change: impl FnOnce(&mut Labels)) {
        let before = world.labels;
        change(&mut world.labels);
        if self.options.stale && world.stale.is_none() && before != world.labels {
            world.stale = Some(before);
        }
        if before[1] != world.labels[1] || before[3] != world.labels[3] {
            world.pending_long = false;
        }
    }

    // ------------------------------------------------------------ SES and hosts

    fn ses(&self, world: &World, steps: &mut Vec<Step>) -> bool {
        let mut one = |label: String, ses: u8| {
            steps.push(Step { label, kind: Kind::Else, to: Ok(World { ses, ..world.clone() }) });
        };
        let mut urgent = false;
        for key in 0..KEYS as i8 {
            let taken = bit(world.ses, key);
            let never = key > 0 && self.options.ses_never && world.keys[key as usize].maker == Maker::Us;
            if world.live(key) && !taken && !never {
                one(format!("SES takes K{key}"), world.ses | 1 << key);
            }
            if matches!(world.status(key), Status::Inactive | Status::Gone) && taken {
                one(format!("SES refuses K{key} now"), world.ses & !(1 << key));
                urgent |= world.status(key) == Status::Inactive;
            }
            urgent |= world.live(key) && !taken && !self.options.ses_never && !self.options.has(May::Outage);
        }
        if world.may(May::Outage) && bit(world.ses, world.key_of(world.labels[0])) {
            let after = World { ses: 0, ..world.spend(May::Outage) };
            steps.push(Step { label: "SES does not answer".into(), kind: Kind::Else, to: Ok(after) });
        }
        urgent
    }

    fn hosts(&self, world: &World, steps: &mut Vec<Step>) -> bool {
        let mut urgent = false;
        for j in 0..HOSTS {
            urgent |= self.host(world, j, steps);
        }
        urgent
    }

    /// What this host may do; whether it is about to, so that no hour passes before.
    fn host(&self, world: &World, j: usize, steps: &mut Vec<Step>) -> bool {
        let host = world.hosts[j];
        let mut one = |what: String, mut after: World, change: &dyn Fn(&mut World)| {
            change(&mut after);
            steps.push(Step { label: format!("h{j} {what}"), kind: Kind::Else, to: Ok(after) });
        };
        let mut urgent = false;
        let (old, current) = (world.rec.old, world.labels[0]);
        let takes = |version: i8| {
            let key = world.key_of(version);
            world.live(key) && bit(world.ses, key)
        };
        if host.applied < 0 && host.report == Report::None {
            if world.may(May::Join) && j == self.options.hosts {
                one("says hello".into(), world.spend(May::Join), &|w| w.hosts[j].report = Report::Hello);
            }
            return false;
        }
        let base = if self.options.canary && j == 0 && world.labels[3] >= 0 { world.labels[3] } else { current };
        let stale = world.stale.map(|labels| labels[0]).filter(|stale| *stale != base);
        // The second host reads the second place.
        let (base, current, stale) = match world.second {
            Some(_) if j == 1 => (world.given_by_second(), world.given_by_second(), None),
            _ => (base, current, stale),
        };
        let seen = [Some(base).filter(|base| *base >= 0), stale];
        if host.silent == 0 && host.candidate < 0 {
            for version in seen.into_iter().flatten().filter(|version| *version != host.applied && takes(*version)) {
                one(format!("fetches v{version}"), world.clone(), &|w| w.hosts[j].candidate = version);
                urgent |= version == base;
            }
        }
        if host.candidate >= 0 && host.silent < 2 {
            let (version, key) = (host.candidate, world.key_of(host.candidate));
            if takes(version) {
                one(format!("applies v{version}"), world.clone(), &|w| {
                    let host = &mut w.hosts[j];
                    (host.applied, host.candidate) = (version, -1);
                    host.drifted &= version != current;
                    w.used |= 1 << key;
                });
            } else {
                one(format!("drops v{version}"), world.clone(), &|w| w.hosts[j].candidate = -1);
            }
            urgent |= host.silent == 0;
        }
        if host.applied >= 0 && host.silent == 0 {
            let key = world.key_of(host.applied);
            let live = world.live(key);
            let says = match (host.drifted, live) {
                (_, false) => Some(Report::Refused(key)),
                (true, true) => Some(Report::Withdrawn(key)),
                (false, true) => Some(Report::Confirmed(host.applied)).filter(|_| bit(world.ses, key)),
            };
            let said = matches!(host.report, Report::Refused(k) if k == key && host.drifted && live);
            if let Some(says) = says.filter(|says| *says != host.report && !said) {
                let took = matches!(host.report, Report::Withdrawn(_) | Report::Refused(_));
                one(format!("reports {says:?}"), world.clone(), &|w| {
                    w.hosts[j].anew |= took && matches!(says, Report::Confirmed(_));
                    w.hosts[j].report = says;
                });
                urgent = true;
            }
        }
        if host.silent == 0 && host.applied >= 0 && world.may(May::Silent) {
            one("goes silent".into(), world.spend(May::Silent), &|w| w.hosts[j].silent = 1);
        }
        if host.silent > 0 {
            one("comes back".into(), world.clone(), &|w| w.hosts[j].silent = 0);
        }
        if host.applied == current && current > 0 && world.may(May::Drift) {
            one("is put back to v0".into(), world.spend(May::Drift), &|w| {
                let host = &mut w.hosts[j];
                (host.applied, host.candidate, host.drifted) = (0, -1, true);
                if self.options.busy && w.rec.complete > 0 && w.rec.old == 0 && w.live(0) {
                    w.last_use = 3;
                }
            });
        }
        let told = matches!(host.report, Report::Confirmed(v) | Report::Forged(v) if v == current);
        if current > 0 && !told && world.may(May::ForgeConfirmed) {
            one("forged confirmation".into(), world.spend(May::ForgeConfirmed), &|w| {
                w.hosts[j].report = Report::Forged(current);
            });
        }
        if old >= 0 && host.report != Report::Refused(old) && world.may(May::ForgeRefused) {
            one("forged refusal".into(), world.spend(May::ForgeRefused), &|w| w.hosts[j].report = Report::Refused(old));
        }
        if old >= 0 && host.others < 0 && world.live(old) && world.may(May::Others) {
            one("holds the old key elsewhere".into(), world.spend(May::Others), &|w| w.hosts[j].others = old);
        }
        if host.others >= 0 {
            one("is cleaned".into(), world.clone(), &|w| w.hosts[j].others = -1);
        }
        let canary = world.labels[3];
        if j == 0 && world.may(May::CanaryFails) && canary >= 0 && canary == world.labels[1] && world.canary_failed < 0
        {
            one("cannot take the canary".into(), world.spend(May::CanaryFails), &|w| w.canary_failed = canary);
        }
        urgent
    }

    // ------------------------------------------------------------ persons

    fn persons(&self, world: &World, steps: &mut Vec<Step>) {
        let mut one = |label: String, mut after: World, change: &dyn Fn(&mut World)| {
            change(&mut after);
            steps.push(Step { label, kind: Kind::Else, to: Ok(after) });
        };
        let rec = &world.rec;
        let current = world.key_of(world.labels[0]);
        let kept = self.options.never_deletes && rec.old >= 0 && world.status(rec.old) == Status::Inactive;
        if world.may(May::Want) && !rec.want && (rec.old < 0 || kept) {
            one("a rotation is asked for".into(), world.spend(May::Want), &|w| w.rec.want = true);
        }
        if rec.expect == 0 {
            let hosts = world.hosts.iter().filter(|host| host.applied >= 0).count() as u8;
            one("a person seals the roster".into(), world.clone(), &|w| w.rec.expect = hosts);
        }
        if world.may(May::Reseal) && world.last_use == 4 {
            one("a person seals again".into(), world.spend(May::Reseal), &|w| (w.rec.complete, w.last_use) = (0, 0));
        }
        if self.options.user_is_moved && world.user >= 0 && world.user != current && world.live(current) {
            one("the unknown user gets the published key".into(), world.clone(), &|w| w.user = current);
        }
        for key in 0..KEYS as i8 {
            if world.live(key) && world.may(May::PersonDeactivates) {
                one(format!("a person deactivates K{key}"), world.spend(May::PersonDeactivates), &|w| {
                    // While our own call about it is under way, nobody can tell the two hands apart.
                    let ours = bit(w.rec.deactivated, key) || w.controllers.iter().any(|c| touches(c.doing, key));
                    let state = &mut w.keys[key as usize];
                    (state.status, state.hand) = (Status::Inactive, if ours { Hand::Either } else { Hand::Person });
                });
            }
            let deletes = |doing: Doing| matches!(doing.act, Act::Delete { key: k, .. } if k == key);
            let at_it = world.controllers.iter().any(|c| touches(c.doing, key) || c.doing.is_some_and(deletes));
            let ours = world.status(key) == Status::Inactive && world.hand(key) == Hand::Us && !at_it;
            // One that nobody knows to be dead cannot be known to be brought back.
            let known = bit(world.rec.deactivated, key) && !bit(world.rec.unanswered, key);
            if ours && known && world.may(May::PersonActivates) {
                one(format!("a person activates K{key}"), world.spend(May::PersonActivates), &|w| {
                    let state = &mut w.keys[key as usize];
                    (state.status, state.hand, w.needed) = (Status::Active, Hand::Nobody, key);
                });
            }
            if world.exists(key) && world.may(May::PersonDeletes) {
                one(format!("a person deletes K{key}"), world.spend(May::PersonDeletes), &|w| {
                    let state = &mut w.keys[key as usize];
                    (state.status, state.hand) = (Status::Gone, Hand::Person);
                });
            }
        }
        for version in 0..world.count as i8 {
            if world.may(May::PersonMovesLabel) && world.key_of(version) >= 0 && version != world.labels[0] {
                one(format!("a person moves AWSCURRENT to v{version}"), world.spend(May::PersonMovesLabel), &|w| {
                    self.label(w, |labels| {
                        let pending = if labels[1] == version { -1 } else { labels[1] };
                        *labels = [version, pending, labels[0], labels[3]];
                    });
                });
            }
        }
        let free = world.keys.iter().position(|key| key.status == Status::Free);
        let free = free.filter(|_| world.number_of_keys() < 2);
        let creates = |w: &mut World, key: usize, status: Status| {
            let hand = if status == Status::Active { Hand::Nobody } else { Hand::Person };
            w.keys[key] = KeyState { status, maker: Maker::Person, hand };
            // In the same minutes as a create of ours of which nobody knows what became.
            if let Some(making) = w.rec.making().filter(|making| unknown_outcome(making)) {
                making.made |= 1 << key;
            }
        };
        for (may, status) in [(May::PersonCreates, Status::Active), (May::PersonCreatesInactive, Status::Inactive)] {
            if let Some(key) = free.filter(|_| world.may(may)) {
                one(format!("a person creates K{key}"), world.spend(may), &|w| creates(w, key, status));
            }
        }
        if usize::from(world.count) == VERSIONS {
            return;
        }
        let version = world.count as i8;
        let stage = |w: &mut World, key: i8| {
            (w.versions[version as usize], w.count) = (key, w.count + 1);
            self.label(w, |labels| labels[1] = version);
        };
        if let Some(staged) = self.options.staged.filter(|_| world.may(May::Stage)) {
            let key = match staged {
                Staged::Empty => Some(EMPTY),
                Staged::KeyOfNobody => Some(NOBODYS),
                Staged::SameKey => Some(current).filter(|key| *key >= 0),
                Staged::OldKey => Some(rec.old).filter(|key| *key >= 0),
                Staged::KeyOfAPerson => free.map(|key| key as i8),
            };
            if let Some(key) = key {
                one(format!("a person stages {staged:?}"), world.spend(May::Stage), &|w| {
                    if staged == Staged::KeyOfAPerson {
                        creates(w, key as usize, Status::Active);
                    }
                    stage(w, key);
                });
            }
        }
        if world.may(May::Edit) && current >= 0 {
            one("a person edits the secret".into(), world.spend(May::Edit), &|w| {
                (w.versions[version as usize], w.count) = (current, w.count + 1);
                self.label(w, |labels| *labels = [version, labels[1], labels[0], labels[3]]);
            });
        }
        if let Some(second) = world.second {
            if world.may(May::PlaceUnseen) && !second.unseen {
                one("the second place cannot be read".into(), world.spend(May::PlaceUnseen), &|w| {
                    w.second = Some(Second { unseen: true, ..second });
                });
            }
            if second.unseen {
                one("the second place can be read again".into(), world.clone(), &|w| {
                    w.second = Some(Second { unseen: false, ..second });
                });
            }
            for key in (0..KEYS as i8).filter(|key| *key != second.gives && world.exists(*key)) {
                if world.may(May::PersonMovesSecond) && world.versions[..usize::from(world.count)].contains(&key) {
                    one(
                        format!("a person makes the second place give K{key}"),
                        world.spend(May::PersonMovesSecond),
                        &|w| {
                            w.second = Some(Second { gives: key, ..second });
                        },
                    );
                }
            }
        }
        if world.may(May::LoseRecord) {
            one("the control record is lost".into(), world.spend(May::LoseRecord), &|w| {
                w.rec = super::world::Rec { holder: w.rec.holder, lease: w.rec.lease, ..LOST };
                w.last_use = 0;
            });
        }
    }

    // ------------------------------------------------------------ time

    fn time(&self, world: &World, urgent: bool, steps: &mut Vec<Step>) {
        let mut one = |label: &str, to: World| steps.push(Step { label: label.into(), kind: Kind::Else, to: Ok(to) });
        let minute = self.passes(world, false);
        if self.options.minutes {
            one("a minute passes", minute);
        }
        let minutes = self.passes(world, true);
        one("minutes pass", minutes.clone());
        if urgent {
            return;
        }
        let old = world.rec.old;
        let uses = |host: &super::world::HostState| {
            host.applied >= 0 && world.key_of(host.applied) == old && self.options.busy
        };
        let used = old >= 0
            && world.live(old)
            && world.rec.complete > 0
            && (world.user == old || world.hosts.iter().any(uses));
        // Whoever verifies a key from memory goes on looking, and renews the lease with each look.
        let verifies = self.verifies(world);
        let mut hour = minutes;
        for making in hour.rec.creating.iter_mut().flatten() {
            making.running &= verifies;
        }
        if let Some((_, over)) = &mut hour.rec.backoff {
            *over = true;
        }
        if let Some((_, over)) = &mut hour.rec.soak {
            *over = true;
        }
        hour.rec.lease &= verifies;
        hour.rec.gone = hour.rec.missing;
        hour.pending_long = hour.labels[1] >= 0 || verifies;
        let mut days = hour.clone();
        if used && hour.last_use < 3 {
            hour.last_use = 3;
        }
        one("an hour passes", hour);
        days.last_use = if used || days.last_use == 3 { 4 } else { days.last_use };
        days.rec.complete = if days.rec.complete > 0 { 2 } else { 0 };
        days.rec.long = days.rec.deactivated;
        for host in &mut days.hosts {
            host.silent = if host.silent == 1 { 2 } else { host.silent };
        }
        one("days pass", days);
    }

    /// Somebody verifies a key from memory, which can take a while.
    fn verifies(&self, world: &World) -> bool {
        self.options.parameter_store && !world.pending_long && world.controllers.iter().any(|c| c.memory >= 0)
    }

    /// A minute, or five: decisions grow old, the intention settles, leases end.
    fn passes(&self, world: &World, five: bool) -> World {
        let mut after = world.clone();
        (after.stale, after.login_refused) = (None, false);
        if let Some((_, settled, _)) = &mut after.rec.intention {
            *settled = true;
        }
        if five && !self.verifies(world) {
            after.rec.lease = false;
            for making in after.rec.creating.iter_mut().flatten() {
                making.running = false;
            }
        }
        let record = after.record();
        for (i, controller) in after.controllers.iter_mut().enumerate() {
            let Some(doing) = controller.doing.as_mut().filter(|doing| !matches!(doing.stage, Stage::Done(..))) else {
                continue;
            };
            doing.old = true;
            // What would be dropped is dropped.
            if !record.may_act(&me(i), record.fence, ago(2), NOW) {
                controller.doing = None;
            }
        }
        after
    }
}

/// Is this decision about that key?
fn touches(doing: Option<Doing>, key: i8) -> bool {
    match doing.map(|doing| doing.act) {
        Some(Act::Reactivate { key: k, .. } | Act::Deactivate { key: k, .. }) => k == key,
        _ => false,
    }
}

fn first_stage(act: &Act) -> Stage {
    match act {
        Act::Create
        | Act::Put { publishes: true, .. }
        | Act::Republish { .. }
        | Act::Promote { .. }
        | Act::LastLogin { .. }
        | Act::Deactivate { .. } => Stage::Begin,
        _ => Stage::Call,
    }
}

fn pack(action: &Action) -> Act {
    let k = |key: &KeyId| number(key.as_str());
    let v = |version: &VersionId| number(version.as_str());
    match action {
        Action::Reactivate { key, host } => {
            Act::Reactivate { key: k(key), host: host.as_ref().map_or(-1, |host| number(host.as_str())) }
        }
        Action::Republish { from, key } => Act::Republish { from: v(from), key: k(key) },
        Action::Create => Act::Create,
        Action::Put { key, publishes } => Act::Put { key: k(key), publishes: *publishes },
        Action::Forget { key, refused } => Act::Forget { key: k(key), refused: *refused },
        Action::LogIn { key, .. } => Act::LastLogin { key: k(key) },
        Action::TakeOff { version, refused } => {
            Act::TakeOff { version: v(version), refused: refused.as_ref().map_or(-1, k) }
        }
        Action::Label { version, .. } => Act::Label { version: v(version) },
        Action::Unlabel { version, .. } => Act::Unlabel { version: v(version) },
        Action::Promote { from, version, key } => {
            Act::Promote { from: from.as_ref().map_or(-1, v), version: v(version), key: k(key) }
        }
        Action::CopyTo { from, key, .. } => Act::CopyTo { from: v(from), key: k(key) },
        Action::PromoteAt { from, key, .. } => Act::PromoteAt { from: from.as_ref().map_or(-1, v), key: k(key) },
        Action::RecordPublished { version, key } => Act::RecordPublished { version: v(version), key: k(key) },
        Action::Intend { key } => Act::Intend { key: k(key) },
        Action::Deactivate { key, why } => Act::Deactivate { key: k(key), leftover: *why == WhyGone::Leftover },
        Action::RecordProvedDead { key } => Act::RecordDead { key: k(key) },
        Action::Delete { key, why } => Act::Delete { key: k(key), leftover: *why == WhyGone::Leftover },
    }
}

fn unpack(act: &Act) -> Action {
    let why = |leftover| if leftover { WhyGone::Leftover } else { WhyGone::Retired };
    match *act {
        Act::Reactivate { key, host } => {
            Action::Reactivate { key: key_id(key), host: (host >= 0).then(|| host_name(host as usize)) }
        }
        Act::Republish { from, key } => Action::Republish { from: version_id(from), key: key_id(key) },
        Act::Create => Action::Create,
        Act::Put { key, publishes } => Action::Put { key: key_id(key), publishes },
        Act::Forget { key, refused } => Action::Forget { key: key_id(key), refused },
        Act::LastLogin { key } => Action::LogIn { key: key_id(key), purpose: Purpose::LastLogin },
        Act::TakeOff { version, refused } => {
            Action::TakeOff { version: version_id(version), refused: (refused >= 0).then(|| key_id(refused)) }
        }
        Act::Label { version } => Action::Label { version: version_id(version), label: CANARY.into() },
        Act::Unlabel { version } => Action::Unlabel { version: version_id(version), label: CANARY.into() },
        Act::Promote { from, version, key } => Action::Promote {
            from: (from >= 0).then(|| version_id(from)),
            version: version_id(version),
            key: key_id(key),
        },
        Act::CopyTo { from, key } => {
            Action::CopyTo { place: second_place(), from: version_id(from), key: key_id(key), publishes: false }
        }
        Act::PromoteAt { from, key } => Action::PromoteAt {
            place: second_place(),
            from: (from >= 0).then(|| second_id(from)),
            version: second_id(key),
            key: key_id(key),
        },
        Act::RecordPublished { version, key } => {
            Action::RecordPublished { version: version_id(version), key: key_id(key) }
        }
        Act::Intend { key } => Action::Intend { key: key_id(key) },
        Act::Deactivate { key, leftover } => Action::Deactivate { key: key_id(key), why: why(leftover) },
        Act::RecordDead { key } => Action::RecordProvedDead { key: key_id(key) },
        Act::Delete { key, leftover } => Action::Delete { key: key_id(key), why: why(leftover) },
    }
}

impl World {
    pub fn may(&self, may: May) -> bool {
        self.left[may as usize] > 0
    }

    fn spend(&self, may: May) -> World {
        let mut after = self.clone();
        after.left[may as usize] -= 1;
        after
    }

    /// Has a person made the second place give another key?
    pub fn moved_second(&self, options: &Options) -> bool {
        options.has(May::PersonMovesSecond) && !self.may(May::PersonMovesSecond)
    }

    /// Has a person moved a label?
    pub fn moved(&self, options: &Options) -> bool {
        options.has(May::PersonMovesLabel) && !self.may(May::PersonMovesLabel)
    }
}
