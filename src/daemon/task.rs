//! One credential's task: waits for a cause, runs the agent, puts what came of it into the status cache. Credentials share no
//! task, so that one that hangs holds up no other.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};
use tokio::sync::{mpsc, oneshot, watch};

use super::status_cache::StatusCache;
use crate::agent::account::{self, Synced};
use crate::agent::{Agent, FileWarning, FinishedRun, OpenedSource, Run, RunEnd, RunEvent, jitter};
use crate::audit::{self, By, Record, RecordKind, StepKind, StepTime};
use crate::config;
use crate::fault::{Class, Failure};
use crate::instruction::{Instruction, relaykey};
use crate::report::{self, Attempt, Deliveries};
use crate::rollover::{Outcome, OwnResult, REPLACE_REFUSED, Rejected, ReportOutcome, State, Step, Wake};
use crate::service::log::{self, Matter};
use crate::state::HostIdentity;
use crate::status::{Counters, Notice, Woken, own_login_words};
use crate::text::without_numbers;
use crate::wake::alarm::Brake;
use crate::wake::{self, Cause, Mailbox};

/// A run that files or the log cause again comes this much later than the first, doubling while they find nothing to do.
const CALM: Duration = Duration::from_secs(1);
/// A run that files or the log keep causing, and that finds nothing to do, is put off this long at most.
const MOST_CALM: Duration = Duration::from_secs(60);
/// A file that is being written is looked at when it has been left alone this long.
const SETTLED: Duration = Duration::from_millis(100);
/// What the mail log said is shown this long after it was last said.
const NOTICE: SignedDuration = SignedDuration::from_hours(1);
/// How many records of the audit log the status shows.
const HISTORY: usize = 20;

/// What an operator asks for: `sync`, `approve`, `reject`, `confirm`, `deregister`.
pub struct TaskOrder {
    pub wake: Wake,
    /// How long to wait for what fails for now.
    pub wait: Duration,
    pub by: By,
    /// Takes lines for whoever asked. Never waits: a reader that does not keep up misses some.
    pub progress: Box<dyn Fn(String) + Send + Sync>,
    pub answer: oneshot::Sender<Synced>,
}

/// What a target consists of, for those who watch files and logs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TargetFiles {
    pub credential: String,
    pub target: String,
    pub files: Vec<PathBuf>,
    /// The file that the mail server logs to itself.
    pub log: Option<PathBuf>,
}

/// Keeps one credential fresh.
pub struct CredentialTask {
    pub credential: config::Credential,
    pub agent: Agent,
    pub source: OpenedSource,
    pub cache: Arc<StatusCache>,
    pub mailbox: Mailbox,
    pub brake: Arc<Mutex<Brake>>,
    pub orders: mpsc::Receiver<TaskOrder>,
    pub sights: mpsc::UnboundedSender<TargetFiles>,
    pub deliveries: Deliveries,
    pub stop: watch::Receiver<bool>,
    /// Why it looks at once.
    pub first: Cause,
}

/// What is remembered from one run to the next.
struct Memory {
    /// As it is on disk.
    state: State,
    /// Failures that were logged and still stand: by target, class, and candidate and words.
    told: BTreeMap<Option<String>, LoggedFailure>,
    /// What was last said to wait for a person: version, what, and what to do.
    waits: Option<(String, String, String)>,
    /// How long runs that files and the log cause are put off.
    calm: Duration,
    /// When files or the log last caused a run.
    stirred: Option<Instant>,
    /// What was swapped in last was put back. The files that changed may be our own doing.
    in_vain: bool,
    /// What was last said of a login of our own with the applied version: what it came to, and whether that is proof.
    own_login: Option<(std::mem::Discriminant<OwnResult>, bool)>,
    /// What was said of what a group could have written.
    doubts: Vec<FileWarning>,
}

/// A failure that was logged and stands.
#[derive(Debug, Clone, PartialEq)]
struct LoggedFailure {
    class: Class,
    what: String,
    /// The version that it was met with; `None`: the source gave none.
    version: Option<String>,
}

/// How a failure that no longer stands came to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum FailureOver {
    /// The same was tried again, and works.
    Works,
    /// Its version is neither the candidate nor the applied one any more: what a version could not do, another one has not
    /// repaired.
    Replaced,
}

impl LoggedFailure {
    fn is_over(&self, candidate: Option<&String>, applied: Option<&String>) -> FailureOver {
        match &self.version {
            Some(version) if ![candidate, applied].contains(&Some(version)) => FailureOver::Replaced,
            None if self.class == Class::Payload => FailureOver::Replaced,
            _ => FailureOver::Works,
        }
    }
}

impl CredentialTask {
    /// Runs until it is told to stop. `looked` is told when the first look is done, whatever it found.
    pub async fn keep(mut self, looked: oneshot::Sender<()>) {
        let mut memory = Memory {
            state: State::new(&self.credential.name),
            told: BTreeMap::new(),
            waits: None,
            calm: Duration::ZERO,
            stirred: None,
            in_vain: false,
            own_login: None,
            doubts: Vec::new(),
        };
        if let Some(state) = self.recall().await {
            self.cache.set_state(&self.credential.name, &state);
            memory.state = state;
        }
        let mut stop = self.stop.clone();
        let mut next = self.run(vec![self.first.clone()], None, &mut memory).await;
        let _ = looked.send(());
        loop {
            self.deliveries.begin(&memory.state.outbox, Timestamp::now());
            let report = self.deliveries.due(&memory.state.outbox).map(|due| wake::until(due, Timestamp::now()));
            let left = next.left();
            let left = report.map_or(left, |report| report.min(left));
            let (mut causes, mut order) = tokio::select! {
                biased;
                () = wake::stopped(&mut stop) => return,
                Some(order) = self.orders.recv() => (vec![Cause::Operator], Some(order)),
                causes = self.mailbox.recv() => (causes, None),
                attempt = self.deliveries.next() => {
                    self.delivered(&attempt, &mut memory).await;
                    continue;
                }
                () = wake::wait(left) => {
                    if !next.left().is_zero() {
                        // A report is due.
                        continue;
                    }
                    (vec![next.cause.clone()], None)
                }
            };
            if causes.iter().all(|c| matches!(c, Cause::FileWatch(_) | Cause::LogAlarm(_))) {
                if memory.stirred.is_none_or(|at| at.elapsed() > MOST_CALM) {
                    memory.calm = Duration::ZERO;
                }
                memory.stirred = Some(Instant::now());
                // What nobody asked for waits until things have settled, unless somebody asks meanwhile.
                let settled = wake::wait(memory.calm.max(SETTLED));
                tokio::pin!(settled);
                while order.is_none() && !causes.contains(&Cause::Signal) {
                    tokio::select! {
                        biased;
                        () = wake::stopped(&mut stop) => return,
                        Some(asked) = self.orders.recv() => order = Some(asked),
                        more = self.mailbox.recv() => Cause::add(&mut causes, more),
                        () = &mut settled => break,
                    }
                }
                Cause::add(&mut causes, self.mailbox.take());
                if order.is_some() {
                    causes.insert(0, Cause::Operator);
                }
            }
            next = self.run(causes, order, &mut memory).await;
        }
    }

    /// The state, and what the audit log says of the time before this process. What cannot be read is told by the run.
    async fn recall(&self) -> Option<State> {
        let (store, name) = (self.agent.store.clone(), self.credential.name.clone());
        let HostIdentity { host_id, clone_of, .. } = self.agent.identity.clone();
        let read = move || {
            let mut state = store.load(&name).ok().flatten()?;
            if state.copied_from(&host_id, clone_of.as_ref()).is_some() {
                // The run begins it anew; until it could, what the original owes must not go out from here.
                state.outbox.clear();
            }
            let history = audit::recent(store.dir(), &name, &state.audit, HISTORY);
            Some((state, history))
        };
        let (state, history) = tokio::task::spawn_blocking(read).await.ok().flatten()?;
        self.cache.set_live(&self.credential.name, |live| live.history = history);
        Some(state)
    }

    /// What became of an attempt at a report becomes durable before the next one begins.
    async fn delivered(&self, attempt: &Attempt, memory: &mut Memory) {
        let name = &self.credential.name;
        let owed = memory.state.outbox.get(&attempt.receiver).map_or(0, |o| o.owed.len());
        let trouble = attempt.outcome.as_ref().err();
        let again = memory.state.outbox.get(&attempt.receiver).and_then(|o| o.retry.failure.clone());
        if trouble.is_none()
            || trouble.map(|t| without_numbers(&t.what)) != again.as_ref().map(|f| without_numbers(&f.what))
        {
            let count = if trouble.is_some() { owed } else { 1 };
            log::report(name, &attempt.receiver, count, trouble.map(|t| (t.what.as_str(), t.fix.as_str())));
        }
        if !report::absorb(&mut memory.state.outbox, attempt, Timestamp::now(), jitter()) {
            return;
        }
        let mut observer = |event: RunEvent<'_>| {
            if let RunEvent::Trouble { what, fix } = event {
                log::trouble(Matter::Warning, &format!("{name}: {what}"), fix);
            }
        };
        if let Err(e) = self.agent.save(&memory.state, &mut observer).await {
            // It is delivered again after a restart, which does no harm.
            log::trouble(Matter::Error, &format!("{name}: {e}"), &e.fix());
        }
        self.cache.set_state(name, &memory.state);
        self.cache.set_live(name, |live| {
            count(&mut live.counters.reports, if attempt.outcome.is_ok() { "delivered" } else { "failed" });
        });
    }

    /// One run of the agent, and when the next one is due.
    async fn run(&mut self, causes: Vec<Cause>, order: Option<TaskOrder>, memory: &mut Memory) -> Next {
        let name = self.credential.name.clone();
        let by = match &order {
            Some(order) => order.by.clone(),
            None => self.by(&causes),
        };
        let asked = causes.iter().any(|c| matches!(c, Cause::Operator | Cause::Signal));
        let news = causes.iter().any(|c| matches!(c, Cause::FileWatch(_) | Cause::LogAlarm(_)));
        let began = Timestamp::now();
        log::woken(&name, by.cause.word(), by.detail.as_deref());
        self.cache.set_live(&name, |live| {
            live.woken = Some(Woken { at: began, by: by.clone() });
            live.next_wake = None;
            for cause in &causes {
                count(&mut live.counters.wakes, cause.word());
            }
        });
        let wait = order.as_ref().map_or(Duration::from_millis(100), |o| o.wait);
        let (cache, credential, sights) = (self.cache.clone(), self.credential.clone(), self.sights.clone());
        let started = Instant::now();
        let cause = by.cause;
        let (durable, deliveries) = (&mut memory.state, &mut self.deliveries);
        // What hangs is shown, and not what was done beside it.
        let mut under_way: Vec<Step> = Vec::new();
        let mut observer = |event: RunEvent<'_>| {
            if let Some(order) = &order
                && let Some(line) = account::line(&credential, &event, Timestamp::now())
            {
                (order.progress)(line);
            }
            match event {
                RunEvent::Begins { step, .. } => {
                    under_way.push(step.clone());
                    cache.set_live(&credential.name, |live| live.step = Some(under_way[0].kind()));
                }
                RunEvent::Ended { step, outcome, took } => {
                    // A wait is over with whatever comes first.
                    under_way.retain(|before| before != step && !matches!(before, Step::Wait { .. }));
                    if let Some(longest) = under_way.first() {
                        cache.set_live(&credential.name, |live| live.step = Some(longest.kind()));
                    }
                    if matches!(step, Step::Fetch) {
                        cache.set_live(&credential.name, |live| live.source_asked = Some(Timestamp::now()));
                    }
                    if let (Outcome::Inspected(_) | Outcome::ReadBack(_), Some(target)) =
                        (outcome, account::target_name(&credential, step))
                    {
                        let (target, at) = (target.to_owned(), Timestamp::now());
                        cache.set_live(&credential.name, |live| _ = live.looked.insert(target, at));
                    }
                    tell_step(&credential, step, outcome, took, started, cause.word());
                    cache.set_live(&credential.name, |live| {
                        // What was committed has its record: both became durable together.
                        let healed = live.history.first().is_some_and(|record| record.what == RecordKind::Heal);
                        count_step(&mut live.counters, step, outcome, healed);
                    });
                }
                RunEvent::Saved(state) => {
                    durable.clone_from(state);
                    // A run may take long, and waits for no receiver: what became of an attempt is taken in after it.
                    deliveries.begin(&state.outbox, Timestamp::now());
                    cache.set_state(&credential.name, state);
                    cache.set_live(&credential.name, |live| remember(&mut live.history, state));
                }
                RunEvent::Files { target, files, log } => {
                    let sight = TargetFiles {
                        credential: credential.name.clone(),
                        target: target.to_owned(),
                        files: files.to_vec(),
                        log: log.cloned(),
                    };
                    let _ = sights.send(sight);
                }
                RunEvent::Trouble { what, fix } => {
                    log::trouble(Matter::Warning, &format!("{}: {what}", credential.name), fix);
                }
                RunEvent::Preview { .. } => {}
            }
        };
        let run = Run {
            credential: &self.credential,
            source: &self.source,
            wake: Wake {
                log_hint: causes.iter().any(Cause::is_refusal),
                asked,
                at_start: causes.contains(&Cause::Start),
                ..order.as_ref().map(|order| order.wake.clone()).unwrap_or_default()
            },
            by,
            // Files that change again and again without any good of it do not make it hammer; and a rollover that cannot be
            // completed changes tables each time: it must not be its own reason to begin anew.
            ignore_backoff: asked || news && !memory.in_vain && memory.calm < MOST_CALM,
            deadline: started + wait,
            observer: &mut observer,
        };
        let result = self.agent.run(run, &mut self.stop).await;
        // What cannot be read or written now has not made forgotten what was.
        let ended =
            result.unwrap_or_else(|e| FinishedRun { state: memory.state.clone(), ..FinishedRun::broken(&name, &e) });
        self.tell_failures(&ended, memory);
        self.tell_waits(&ended, memory);
        self.tell_own_login(&ended, memory);
        tell_doubts(&ended, memory);
        let did = did_something(&ended.steps);
        memory.in_vain = is_in_vain(memory.in_vain, &ended.steps, !ended.failures.is_empty());
        memory.calm = match () {
            () if asked || did || !news && ended.failures.is_empty() => Duration::ZERO,
            // Somebody is at work on the files, and is not to wait for us.
            () if news && ended.end == RunEnd::Waits => (memory.calm * 2).clamp(SETTLED, MOST_CALM),
            () if news => (memory.calm * 2).clamp(CALM, MOST_CALM),
            () => memory.calm,
        };
        if did {
            // Another login is in use: what the log says from now on is a new matter.
            self.brake.lock().unwrap_or_else(PoisonError::into_inner).settle();
        }
        let next = self.next(&ended);
        let advice = self.source.as_ref().ok().and_then(|source| source.advice());
        let requests = self.source.as_ref().map_or(0, |source| source.requests());
        self.cache.set_state(&name, &ended.state);
        memory.state.clone_from(&ended.state);
        if order.is_some() {
            // In memory alone: after a restart the times that were written down hold again.
            report::hasten(&mut memory.state.outbox);
        }
        self.cache.set_live(&name, |live| {
            live.step = None;
            live.answered = ended.answered.or(live.answered);
            live.next_wake = Some(next.at);
            live.failures = ended.failures.iter().filter(|(_, f)| !f.is_an_answer()).cloned().collect();
            live.notices.retain(|n| {
                let old = began.duration_since(n.at) > NOTICE;
                n.class != Class::Advice && !old && !(did && matches!(n.class, Class::Refused | Class::NoLogin))
            });
            live.notices.extend(advice.map(|a| Notice { at: began, class: Class::Advice, what: a.what, fix: a.fix }));
            live.counters.source_requests = requests;
        });
        if let Some(order) = order {
            let _ = order.answer.send(Synced::new(&self.credential, ended, false, Vec::new()));
        }
        next
    }

    fn by(&self, causes: &[Cause]) -> By {
        let first = causes.first();
        By {
            cause: first.map_or("timer", Cause::word).into(),
            user: None,
            uid: None,
            claimed: None,
            detail: first.and_then(Cause::detail),
        }
    }

    /// The next poll, or what failed if that is due before it.
    fn next(&self, ended: &FinishedRun) -> Next {
        let now = Timestamp::now();
        let poll =
            wake::next_poll(now, self.credential.poll, &self.agent.identity.host_id, &self.credential.name, jitter());
        // Never at once: whatever is due and cannot be done must not become a loop.
        let soonest = now.saturating_add(SignedDuration::try_from(CALM).unwrap_or_default()).unwrap_or(Timestamp::MAX);
        // A sign of life may be due before the next poll; one that could not be given is no reason to hurry.
        let alive = ended.state.alive_due.filter(|due| *due > now);
        let (at, cause) = match ended.next.into_iter().chain(alive).min().map(|at| at.max(soonest)) {
            Some(at) if at < poll => (at, Cause::Retry),
            _ => (poll, Cause::Timer),
        };
        Next { at, due: wake::boot_time().saturating_add(wake::until(at, now)), cause }
    }

    /// A failure has its line when it is new, and when it is over; not at every attempt.
    fn tell_failures(&self, ended: &FinishedRun, memory: &mut Memory) {
        let mut stand = BTreeMap::new();
        let stands = |f: &Failure| !f.is_an_answer() && f.class != Class::ByHand;
        for (target, failure) in ended.failures.iter().filter(|(_, f)| stands(f)) {
            // Another port, time or request id is no other failure.
            let version = ended.state.candidate.as_ref().map(|c| c.id.version.clone());
            let what = without_numbers(&failure.what);
            let words = LoggedFailure { class: failure.class, what, version };
            if memory.told.get(target) != Some(&words) {
                self.tell_failure(target.as_deref(), failure, ended);
            }
            stand.insert(target.clone(), words);
        }
        let candidate = ended.state.candidate.as_ref().map(|c| &c.id.version);
        let applied = ended.state.applied.as_ref().map(|a| &a.id.version);
        for (target, before) in memory.told.iter().filter(|(target, _)| !stand.contains_key(*target)) {
            let (name, target) = (&self.credential.name, target.as_deref());
            let by = candidate.or(applied).map(String::as_str);
            match before.is_over(candidate, applied) {
                FailureOver::Replaced => {
                    let version = before.version.as_deref().unwrap_or_default();
                    log::superseded(name, target, before.class.word(), version, by);
                }
                FailureOver::Works => log::recovered(name, target, before.class.word()),
            }
        }
        memory.told = stand;
    }

    /// What waits for a person has its line once, and once more when something else is to be done.
    fn tell_waits(&self, ended: &FinishedRun, memory: &mut Memory) {
        let name = &self.credential.name;
        if let Some(rejected) = rejected_now(ended) {
            log::rejected(name, &rejected.id.version, &rejected.by, &rejected.reason);
        }
        let candidate = ended.state.candidate.as_ref().filter(|_| ended.end == RunEnd::Waits);
        let waits = candidate.map(|c| {
            let by_hand = ended.failures.iter().find(|(_, f)| f.class == Class::ByHand).map(|(_, f)| f);
            let version = c.id.version.clone();
            match by_hand {
                Some(f) => {
                    let asked = self.credential.targets.iter().filter(|t| !t.write);
                    let changes = asked.filter_map(|t| ended.state.targets.get(&t.name)?.change.as_ref());
                    let todo: Vec<Instruction> = changes.flat_map(|change| change.steps.clone()).collect();
                    let fix = if todo.is_empty() { f.fix.clone() } else { Instruction::on_one_line(&todo) };
                    (version, f.what.clone(), fix)
                }
                None => {
                    let what = format!("version {version} ({}) waits for approval", c.username);
                    let fix = format!(
                        "{}; or {}",
                        relaykey(format_args!("approve {name} --version {version}")),
                        relaykey(format_args!("reject {name} --version {version} --reason \"...\""))
                    );
                    (version, what, fix)
                }
            }
        });
        if let Some((version, what, fix)) = waits.as_ref().filter(|_| waits != memory.waits) {
            log::waits(name, version, what, fix);
        }
        memory.waits = waits;
    }

    /// What a login of our own says about a hint of the mail log has its line once, and once more when that changes.
    fn tell_own_login(&self, ended: &FinishedRun, memory: &mut Memory) {
        let name = &self.credential.name;
        let proved = ended.state.applied_refused().is_some();
        let own = ended.state.own_login();
        let another = ended.state.foreign().is_some();
        let said = own.map(|own| (std::mem::discriminant(&own.result), proved || another));
        if let Some(own) = own.filter(|_| said != memory.own_login) {
            let fix = match &own.result {
                OwnResult::Accepted if another => {
                    format!("see to that login: {} tells it, and what to do", relaykey("status"))
                }
                OwnResult::Accepted => {
                    format!("nothing, if mail goes out; else see which login it uses: {}", relaykey("check"))
                }
                OwnResult::Refused { .. } if proved => REPLACE_REFUSED.to_owned(),
                OwnResult::Refused { .. } => {
                    "nothing yet: one refusal proves nothing, and it is tried once more".to_owned()
                }
                OwnResult::Unknown { .. } => {
                    "nothing: it is tried again when the mail log tells of it again".to_owned()
                }
                OwnResult::NotGiven { fix, .. } => fix.clone(),
            };
            let matter = if proved { Matter::Error } else { Matter::Warning };
            log::trouble(matter, &format!("{name}: the mail log {}", own_login_words(own, another, own.at)), &fix);
        }
        memory.own_login = said;
    }

    fn tell_failure(&self, target: Option<&str>, failure: &Failure, ended: &FinishedRun) {
        if failure.class == Class::Drift {
            log::drift(&self.credential.name, target.unwrap_or_default(), &failure.what, &failure.fix);
            return;
        }
        let next = due_again(&ended.state, target, failure).map(crate::rollover::rfc3339);
        log::failure(&log::FailureLine {
            credential: &self.credential.name,
            target,
            version: ended.state.candidate.as_ref().map(|c| c.id.version.as_str()),
            failure,
            next: next.as_deref(),
        });
    }
}

/// When this failure is tried again, as `status` has it: another one may be due before it.
fn due_again(state: &State, target: Option<&str>, failure: &Failure) -> Option<Timestamp> {
    let retry = match target {
        Some(target) => &state.targets.get(target)?.retry,
        None => &state.source_retry,
    };
    retry.next.filter(|_| retry.failure.as_ref() == Some(failure))
}

/// What a person rejected in this run: the order may have been refused, and then the last rejection is another one.
fn rejected_now(ended: &FinishedRun) -> Option<&Rejected> {
    let ordered = ended.steps.iter().any(|s| s.step == StepKind::Reject);
    ended.state.rejected.last().filter(|_| ordered && ended.carried_out == Some(true))
}

/// Is another login in use, or has the mail server read it, as of this run?
fn did_something(steps: &[StepTime]) -> bool {
    let well = |step: StepKind| steps.iter().any(|s| s.step == step && s.ok);
    well(StepKind::Commit) || well(StepKind::Activate) && !steps.iter().any(|s| s.step == StepKind::Undo)
}

/// Were files changed and put back? It stays so through runs that only look, until one has nothing to complain about.
fn is_in_vain(before: bool, steps: &[StepTime], failed: bool) -> bool {
    let put_back = steps.iter().any(|s| s.step == StepKind::Undo || s.step == StepKind::Swap && !s.ok);
    put_back || before && failed
}

/// When a credential is looked at again, and why.
struct Next {
    /// For people.
    at: Timestamp,
    /// The same by [`wake::boot_time`]: a wall clock that is put right meanwhile must not move it.
    due: Duration,
    cause: Cause,
}

impl Next {
    fn left(&self) -> Duration {
        self.due.saturating_sub(wake::boot_time())
    }
}

/// What a group could have written has its line once.
fn tell_doubts(ended: &FinishedRun, memory: &mut Memory) {
    for doubt in &ended.doubts {
        if !memory.doubts.contains(doubt) {
            let place = doubt.credential.as_ref().map(|name| format!("{name}: ")).unwrap_or_default();
            let what = format!("{place}{}: {}", doubt.about, doubt.finding.located());
            log::trouble(Matter::Warning, &what, &doubt.finding.fix);
            memory.doubts.push(doubt.clone());
        }
    }
}

fn tell_step(
    credential: &config::Credential,
    step: &Step,
    outcome: &Outcome,
    took: Duration,
    started: Instant,
    cause: &str,
) {
    let Outcome::Committed(report) = outcome else {
        if !matches!(step, Step::Wait { .. }) {
            let target = account::target_name(credential, step);
            log::step(&credential.name, target, step.kind(), account::went_well(outcome), took);
        }
        return;
    };
    log::rollover(&log::Rollover {
        credential: &credential.name,
        version: &report.version,
        username: &report.username,
        previous_username: report.previous_username.as_deref(),
        outcome: report.outcome.word(),
        cause,
        took: started.elapsed(),
    });
}

fn count(counts: &mut BTreeMap<String, u64>, key: &str) {
    *counts.entry(key.to_owned()).or_default() += 1;
}

fn count_step(counters: &mut Counters, step: &Step, outcome: &Outcome, healed: bool) {
    match outcome {
        Outcome::Accepted(_) => count(&mut counters.logins, "accepted"),
        Outcome::Refused { .. } => count(&mut counters.logins, "refused"),
        Outcome::Failed(_) if matches!(step, Step::Verify { .. } | Step::VerifyApplied { .. }) => {
            count(&mut counters.logins, "unknown")
        }
        Outcome::Committed(report) => {
            let word = match report.outcome == ReportOutcome::Adopted {
                true => "adopted",
                false if healed => "healed",
                false => "confirmed",
            };
            count(&mut counters.rollovers, word);
        }
        _ => {}
    }
    if let Outcome::Failed(f) | Outcome::Mismatch(f) | Outcome::ReloadOwed(f) = outcome {
        count(&mut counters.failures, f.class.word());
    }
}

/// Puts the last record of the audit log in front, if it is a new one.
fn remember(history: &mut Vec<Record>, state: &State) {
    let Some(Ok(record)) = state.audit.lines.last().map(|line| serde_json::from_str::<Record>(line)) else { return };
    if history.first() != Some(&record) {
        history.insert(0, record);
        history.truncate(HISTORY);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::credential::VersionId;
    use crate::rollover::{Retry, TargetState};
    use crate::state::StateError;

    fn steps(words: &[&str]) -> Vec<StepTime> {
        let step = |word: &&str| {
            let (word, ok) = word.strip_prefix('!').map_or((*word, true), |word| (word, false));
            StepTime { step: word.into(), target: None, ok, milliseconds: 1 }
        };
        words.iter().map(step).collect()
    }

    fn failure(class: &str) -> Failure {
        let (what, fix) = ("it does not work", "mend it");
        crate::fault::Fault::new(serde_json::from_value(class.into()).expect("a class"), what, fix)
            .temporary()
            .at(Timestamp::UNIX_EPOCH)
    }

    #[test]
    fn what_was_only_replaced_is_not_said_to_work_again() {
        let told = |class: &str, version: Option<&str>| LoggedFailure {
            class: serde_json::from_value(class.into()).expect("a class"),
            what: String::new(),
            version: version.map(str::to_owned),
        };
        let version = |n: &str| Some(n.to_owned());
        // The failure; the candidate and the applied version by then.
        for (told, candidate, applied, expected) in [
            (told("refused", Some("2")), version("3"), version("1"), FailureOver::Replaced),
            (told("refused", Some("2")), None, version("3"), FailureOver::Replaced),
            (told("refused", Some("2")), None, None, FailureOver::Replaced),
            (told("payload", None), version("3"), version("1"), FailureOver::Replaced),
            (told("refused", Some("2")), None, version("2"), FailureOver::Works),
            (told("refused", Some("2")), version("2"), version("1"), FailureOver::Works),
            (told("network", None), None, version("1"), FailureOver::Works),
        ] {
            assert_eq!(
                told.is_over(candidate.as_ref(), applied.as_ref()),
                expected,
                "{told:?} {candidate:?} {applied:?}"
            );
        }
    }

    /// Of each failure the journal names the time that `status` has for it, and not when anything at all is due.
    #[test]
    fn the_journal_and_status_name_the_same_next_time() {
        let at = |seconds: i64| Timestamp::from_second(1_800_000_000 + seconds).ok();
        let retry = |class: &str, next| Retry { attempts: 1, next, failure: Some(failure(class)) };
        let mut state = State::new("ses");
        state.source_retry = retry("network", at(10));
        for (name, class, next) in [("a", "lock-held", 20), ("b", "refused", 30)] {
            state.targets.insert(name.into(), TargetState { retry: retry(class, at(next)), ..TargetState::default() });
        }
        let due = |target, class: &str| due_again(&state, target, &failure(class));
        assert_eq!(
            [due(None, "network"), due(Some("a"), "lock-held"), due(Some("b"), "refused")],
            [at(10), at(20), at(30)]
        );
        // What was met and is not what stands has no time of its own.
        assert_eq!([due(None, "drift"), due(Some("a"), "refused"), due(Some("c"), "refused")], [None, None, None]);
    }

    #[test]
    fn a_rejection_that_was_refused_is_not_told_as_one() {
        let mut ended =
            FinishedRun::broken("ses", &StateError::Full { path: "ses.json".into(), size: 1, owed: String::new() });
        let id = VersionId { version: "1".into(), order: None };
        let (by, reason, at) = ("root".into(), "an old one".into(), Timestamp::UNIX_EPOCH);
        ended.state.rejected.push(Rejected { id, by, reason, at });
        ended.steps = steps(&["inspect", "reject"]);
        ended.carried_out = Some(false);
        assert_eq!(rejected_now(&ended), None, "nothing waited, and the last rejection is another one");
        ended.carried_out = Some(true);
        assert_eq!(rejected_now(&ended).map(|r| r.id.version.as_str()), Some("1"));
        ended.steps = steps(&["inspect", "leave"]);
        assert_eq!(rejected_now(&ended), None);
    }

    #[test]
    fn files_that_a_failed_rollover_changed_are_no_reason_to_begin_anew() {
        // Steps (`!`: failed), whether anything stands in the way after them; in use, in vain.
        let table: [(&[&str], bool, bool, bool); 7] = [
            (&["inspect", "fetch"], false, false, false),
            (&["swap", "activate", "!read-back", "undo"], true, false, true),
            (&["!swap"], true, false, true),
            (&["swap", "activate", "read-back", "!commit"], true, true, false),
            (&["swap", "activate", "read-back", "commit"], false, true, false),
            (&["swap", "!activate"], true, false, false),
            (&["activate"], false, true, false),
        ];
        for (words, failed, in_use, in_vain) in table {
            let steps = steps(words);
            assert_eq!((did_something(&steps), is_in_vain(false, &steps, failed)), (in_use, in_vain), "{words:?}");
        }
        // The events of one swap may come in several portions.
        assert!(is_in_vain(true, &steps(&["fetch"]), true));
        assert!(!is_in_vain(true, &steps(&["inspect", "fetch"]), false));
    }
}
