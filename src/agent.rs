//! The loop: facts, decide, do the one step, absorb its outcome, make it durable, decide again.
//!
//! A step that takes longer than a moment holds up no other target: what can be begun beside it is.
//!
//! What to do is `rollover`'s; here the steps are done, by the source, the SMTP login and the apply client. The agent
//! never touches a mail server's files itself: everything goes through [`apply::Client`].

pub mod account;
pub mod foresight;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::apply::{self, KnownLogins, Ours, Reply, Request, TargetId};
use crate::audit::{self, By, Record, StepTime, Trouble};
use crate::aws;
use crate::config::{self, Config};
use crate::credential::{Login, NOT_SHOWN, ses_region, shown_or_said};
use crate::fault::{Class, Failure, Fault};
use crate::report::{self, Attempt, Receivers};
use crate::rollover::{
    self, Change, Completion, Evidence, Facts, Found, News, Outcome, Policy, Reason, Report, ReportTarget, Staged,
    State, Step, VersionId, Wake,
};
use crate::smtp::{self, Verdict};
use crate::source::{self, Fetched, Source};
use crate::state::{Access, HostIdentity, StateError, Store};
use crate::text;
use crate::tls;
use crate::wake;

/// Schema word of report documents.
const REPORT_SCHEMA: &str = "relaykey/report/v1";
/// `agent` of report documents.
pub const AGENT: &str = concat!("relaykey/", env!("CARGO_PKG_VERSION"));

/// What to do about a state directory that was removed.
const RESTORED: &str =
    "find out what removes it: nothing but relaykey has anything to do there; the audit log in it begins anew";

/// A step that must not be torn ends within this from when the program is told to end ([`apply::ending`]): three minutes for a
/// reload are the longest, and 5 s for each command that only looks. Who is told to end waits for it no longer.
pub const LONGEST_STEP: Duration = Duration::from_secs(4 * 60);
/// As [`LONGEST_STEP`], for the read-back after a swap. It only looks, and is worth its time as long as nothing hangs: what does
/// not read back is put back by this process alone. The next start reads back again.
const READING_BACK: Duration = Duration::from_secs(20);
/// A look at a target takes longer only where something hangs for which there is no time limit: a file system. The longest
/// are a few commands of 30 s each.
const LONGEST_LOOK: Duration = Duration::from_secs(120);
/// A step that ends within this has the next one wait for it: what goes well goes in one order.
const A_MOMENT: Duration = Duration::from_secs(1);
/// As [`LONGEST_STEP`], for one that stages files, or removes them again. Nothing in use is changed by it, and the next start removes
/// what it left.
const STAGING: Duration = Duration::from_secs(3);

/// What the agent tells whoever watches, as it happens.
pub enum Event<'a> {
    /// A step begins.
    Begins { step: &'a Step, reason: &'a Reason },
    /// A step has ended.
    Ended { step: &'a Step, outcome: &'a Outcome, took: Duration },
    /// The change of one target, masked. `login`: the candidate, for who may show it (`--reveal`).
    Preview { target: &'a str, change: &'a apply::Previewed, login: &'a Login },
    /// What a target consists of, as far as it is worth watching.
    Files { target: &'a str, files: &'a [PathBuf], log: Option<&'a PathBuf> },
    /// The state, as it is on disk now.
    Saved(&'a State),
    /// Something beside the rollover that a person should see to.
    Trouble { what: &'a str, fix: &'a str },
}

/// A source, or why it could not be opened.
pub type Opened = Result<Box<dyn Source>, Fault>;

/// How one run over one credential goes.
pub struct Run<'a> {
    pub credential: &'a config::Credential,
    pub source: &'a Opened,
    pub wake: Wake,
    /// Who or what wants it, for the audit log.
    pub by: By,
    /// Persisted waits do not hold: a person asked, or there is news.
    pub ignore_backoff: bool,
    /// Steps that are due later than this are not waited for.
    pub deadline: Instant,
    pub observer: &'a mut (dyn FnMut(Event<'_>) + Send),
}

/// What one run came to.
#[derive(Debug, Clone)]
pub struct Ended {
    pub state: State,
    pub end: End,
    pub failures: Vec<(Option<String>, Failure)>,
    pub reason: Reason,
    pub steps: Vec<StepTime>,
    /// When something is due again, if something is.
    pub next: Option<Timestamp>,
    /// Of an order that needs nothing else, such as a rejection: was it carried out?
    pub carried_out: Option<bool>,
    /// When the source gave its answer, if it did.
    pub answered: Option<Timestamp>,
    /// `confirm --code`: what a person types elsewhere, or why there is none.
    pub code: Option<Result<String, String>>,
    /// What a group could have written of what the targets go by.
    pub doubts: Vec<Doubt>,
    /// It was to confirm what is in use, and has not.
    pub not_confirmed: bool,
}

impl Ended {
    /// A run that could not read or write its state.
    pub fn broken(credential: &str, e: &StateError) -> Self {
        let failure = state_failure(e);
        Self {
            state: State::new(credential),
            end: if failure.temporary { End::ForNow } else { End::ForGood },
            reason: Reason::Blocked(failure.what.clone()),
            failures: vec![(None, failure)],
            steps: Vec::new(),
            next: None,
            carried_out: None,
            answered: None,
            code: None,
            doubts: Vec::new(),
            not_confirmed: false,
        }
    }
}

/// How a run ended, as exit codes tell it: worst last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    Done(Option<Completion>),
    /// A person is to decide, or to change a target by hand.
    Waits,
    /// Failed for now, or a reload is owed.
    ForNow,
    ForGood,
    /// SIGINT or SIGTERM: stopped between two steps.
    Interrupted,
}

/// Everything a run needs that is not about one credential.
#[derive(Clone)]
pub struct Agent {
    pub apply: apply::Client,
    pub identity: HostIdentity,
    pub store: Arc<Store>,
    /// `[[report]]`: to whom confirmations are owed.
    pub receivers: Vec<config::Receiver>,
    pub logs: Logs,
}

/// The audit logs, by credential: each knows how far its files are.
#[derive(Clone, Default)]
pub struct Logs(Arc<Mutex<BTreeMap<String, AuditLog>>>);

type AuditLog = Arc<Mutex<audit::Log>>;

impl Logs {
    /// Lets go of the logs of all other credentials, which nobody keeps any more.
    pub fn retain(&self, credentials: &[config::Credential]) {
        let mut logs = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        logs.retain(|name, _| credentials.iter().any(|c| c.name == *name));
    }
}

impl Agent {
    fn log(&self, credential: &str) -> AuditLog {
        let mut logs = self.logs.0.lock().unwrap_or_else(PoisonError::into_inner);
        let new = || Arc::new(Mutex::new(audit::Log::new(self.store.dir(), credential)));
        logs.entry(credential.to_owned()).or_insert_with(new).clone()
    }

    /// Brings the files of the audit log up to what the state says. Mail is more important than the log: what stands in
    /// the way is said, and the rollover goes on.
    async fn settle(&self, state: &mut State, observer: &mut (dyn FnMut(Event<'_>) + Send)) -> Result<(), StateError> {
        if state.audit.number == 0 || self.store.access() == Access::Read {
            return Ok(());
        }
        let log = self.log(&state.credential);
        let settle = |head: rollover::AuditHead| {
            let log = log.clone();
            tokio::task::spawn_blocking(move || {
                let mut log = log.lock().unwrap_or_else(PoisonError::into_inner);
                match log.settle(&head) {
                    Err(audit::AuditError::Broken(broken)) => {
                        let next = log.go_on(&head, &broken);
                        (Err(audit::AuditError::Broken(broken)), next.ok())
                    }
                    result => (result, None),
                }
            })
        };
        let Ok((Err(e), next)) = settle(state.audit.clone()).await else { return Ok(()) };
        observer(Event::Trouble { what: &e.to_string(), fix: &e.fix() });
        let Some(next) = next.filter(|next| *next != state.audit) else { return Ok(()) };
        let going_on = State { audit: next, ..state.clone() };
        self.save(&going_on, observer).await?;
        *state = going_on;
        if let Ok((Err(e), _)) = settle(state.audit.clone()).await {
            observer(Event::Trouble { what: &e.to_string(), fix: &e.fix() });
        }
        Ok(())
    }

    /// Runs one credential until nothing is left to do, or nothing before the deadline.
    ///
    /// `stop` becomes true when the program is to end: what only looks is broken off, any other step under way is
    /// finished if it does not hang, what is staged is removed.
    pub async fn run(&self, run: Run<'_>, stop: &mut watch::Receiver<bool>) -> Result<Ended, StateError> {
        let Run { credential, source, wake, by, ignore_backoff, deadline, observer } = run;
        let policy = Policy::new(credential, TimeZone::system());
        let mine = || State { host_id: Some(self.identity.host_id.clone()), ..State::new(&credential.name) };
        if let Some(what) = self.store.restore()? {
            observer(Event::Trouble { what: &what, fix: RESTORED });
        }
        let mut state = self.store.load(&credential.name)?.unwrap_or_else(mine);
        if self.store.access() == Access::Write {
            let now = Timestamp::now();
            state.set_right_by(now);
            let before = state.applied.clone();
            let moved = state.moved_to(&self.identity.host_id, self.identity.clone_of.as_ref());
            let latest = state.told.clone().or_else(|| state.report.clone());
            let name = &credential.name;
            for dropped in report::reconcile(&mut state.outbox, &self.receivers, name, latest.as_ref(), now, jitter()) {
                let fix = "nothing, if it was meant so; else add its [[report]] again under the same name";
                observer(Event::Trouble { what: &dropped.to_string(), fix });
            }
            if let Some(moved) = moved {
                let copy = self.identity.clone_of.as_ref().is_some_and(|original| original.host_id == moved.from);
                let record = begun_anew(credential, &by, before, &moved, copy, now);
                self.owe(&mut state, &record, None);
                self.save(&state, observer).await?;
                let what = record.error.map(|e| e.words).unwrap_or_default();
                let fix = match copy {
                    true => {
                        "nothing, if this machine was made from the other one; else find out why /etc/machine-id or the id of \
                         the cloud instance has changed"
                    }
                    false => {
                        "nothing, if host.json was taken away on purpose; the former host id stays as a host of its own with who is reported to"
                    }
                };
                observer(Event::Trouble { what: &what, fix });
            }
            self.settle(&mut state, observer).await?;
        }
        let mut facts = Facts::new(state, &policy, wake, ignore_backoff);
        let fetched = Kept::default();
        let mut unsaved = None;
        let mut steps = Vec::new();
        let mut next = None;
        let mut doubts = Vec::new();
        let mut doing = FuturesUnordered::new();
        let (end, reason) = loop {
            let now = Timestamp::now();
            self.tell(&mut facts, credential, &by);
            let (step, reason) = rollover::decide(&facts, &policy, now);
            // What a crash must find again is on disk before the next step; above all before a swap. A target that is
            // in between is put right first, even if nothing can be written down, and even if the program is to end.
            // What a person has ordered, a rejection or a departure, waits for its line of the audit log: one rename.
            let ordered = step == Step::End && facts.carried_out().is_some() && unsaved.is_none();
            if !ordered && let Err(e) = self.save(&facts.state, observer).await {
                unsaved = Some(e);
            }
            let goes_on = facts.is_torn()
                && matches!(
                    step,
                    Step::Swap { .. }
                        | Step::Activate { .. }
                        | Step::ReadBack { .. }
                        | Step::Undo { .. }
                        | Step::Discard { .. }
                );
            // What is under way and must not be torn is waited for.
            let ends = !goes_on && !ordered && (unsaved.is_some() || *stop.borrow());
            if ends && facts.under_way().all(|step| patience(step).is_zero()) {
                break (End::Interrupted, reason);
            }
            let left = match step {
                Step::Wait { until } => Duration::try_from(until.duration_since(now)).unwrap_or_default(),
                _ => Duration::ZERO,
            };
            let in_vain = matches!(reason, Reason::UntilAPersonActs(_));
            let too_long = matches!(step, Step::Wait { .. }) && (in_vain || Instant::now() + left > deadline);
            if (step == Step::End || too_long) && facts.under_way().next().is_none() {
                let due = if let Step::Wait { until } = step { Some(until) } else { None };
                let others = facts.state.next_own_login().into_iter().chain(facts.state.put_back.next);
                next = due.into_iter().chain(others).min();
                break (ended(&facts, &policy), reason);
            }
            let waits = matches!(step, Step::Wait { .. });
            let begins = !ends && !too_long && step != Step::Await;
            let began = Instant::now();
            let id = begins.then(|| rollover::begin(&mut facts, &policy, &step));
            if let Some(id) = id {
                observer(Event::Begins { step: &step, reason: &reason });
                if !waits {
                    let (facts, step, fetched) = (facts.clone(), step.clone(), &fetched);
                    doing.push(async move {
                        let done = self.step(&facts, credential, source, &step, fetched).await;
                        (id, step, began, done)
                    });
                }
            }
            let patience = facts.under_way().map(patience).max().unwrap_or_default();
            let (id, step, began, done) = tokio::select! {
                Some(ended) = doing.next() => ended,
                () = wake::wait(left), if begins && waits => {
                    (id.expect("it was begun"), step, began, Done::Outcome(Box::new(Outcome::Waited)))
                }
                () = tokio::time::sleep(A_MOMENT), if begins && !waits => continue,
                () = told_to_end(stop, patience) => break (End::Interrupted, reason),
            };
            let done = match done {
                Done::Replied(result, login) => {
                    if let (Ok(Reply::Inspected(seen)), Some(target)) = (&*result, step.target()) {
                        doubts.extend(doubts_of(seen, &credential.name, &credential.targets[target].name));
                    }
                    Done::Outcome(Box::new(taken(*result, login, &step, &facts, credential, observer)))
                }
                done => done,
            };
            let outcome = match (&step, done) {
                (Step::Commit { stamp }, Done::Reported(report)) => {
                    steps.push(account::step_time(
                        credential,
                        &step,
                        &Outcome::Committed(report.clone()),
                        began.elapsed(),
                    ));
                    let mut durable = facts.clone();
                    let outcome = Outcome::Committed(report.clone());
                    rollover::absorb(&mut durable, &policy, id, &step, outcome.clone(), now, 0.0);
                    let what = what_was_done(&facts, stamp);
                    // Of what was confirmed, and not of what the run goes on with.
                    let record = Record {
                        approved_by: facts.approved_by(),
                        version: Some(report.version.clone()),
                        username: Some(report.username.clone()),
                        previous_username: report.previous_username.clone(),
                        ..record(&durable, credential, &by, what, stamp.outcome.word(), &steps, now)
                    };
                    self.owe(&mut durable.state, &record, Some(&report));
                    // What there is to tell besides has later numbers.
                    // Where the version before was only put back, the run goes on.
                    if durable.committed.is_some() {
                        rollover::conclude(&mut durable, now, jitter());
                    }
                    self.tell(&mut durable, credential, &by);
                    // What was done, its line of the audit log and what is owed to whom: one rename.
                    match self.save(&durable.state, observer).await {
                        Ok(()) => {
                            for target in &credential.targets {
                                let request = Request::Commit { target: target_id(credential, target) };
                                // What apply forgets here it would find out anew; the commit itself has happened.
                                let _ = self.call(request).await;
                            }
                            facts = durable;
                            self.settle(&mut facts.state, observer).await?;
                            observer(Event::Ended { step: &step, outcome: &outcome, took: began.elapsed() });
                            continue;
                        }
                        Err(e) => {
                            // It did not come to pass: as a failed step it is counted below.
                            steps.pop();
                            Outcome::Failed(state_failure(&e))
                        }
                    }
                }
                (_, Done::Outcome(outcome)) => *outcome,
                (_, Done::Reported(_) | Done::Replied(..)) => unreachable!("only a commit makes a report"),
            };
            let took = began.elapsed();
            if !matches!(step, Step::Wait { .. }) {
                steps.push(account::step_time(credential, &step, &outcome, took));
            }
            observer(Event::Ended { step: &step, outcome: &outcome, took });
            name_once_accepted(&mut facts, &step, &outcome, fetched.get().as_ref());
            rollover::absorb(&mut facts, &policy, id, &step, outcome, Timestamp::now(), jitter());
        };
        drop(doing);
        let leaving = self.leave_all(credential, &facts, &steps);
        if *stop.borrow() {
            // A target that is still at work on something that hangs lets nobody in, and the program is to end: what stays
            // staged goes at the next start.
            let _ = tokio::time::timeout(STAGING, leaving).await;
        } else {
            leaving.await;
        }
        drop(fetched);
        if let Some(e) = unsaved {
            return Err(e);
        }
        let failures: Vec<_> = facts.failures().into_iter().map(|(t, f)| (t.map(str::to_owned), f.clone())).collect();
        if end != End::Interrupted && self.store.access() == Access::Write {
            rollover::conclude(&mut facts, Timestamp::now(), jitter());
            self.tell(&mut facts, credential, &by);
        }
        self.note(&mut facts, credential, &by, end, &steps, observer).await?;
        // Of several targets the first that has one: they share a login, or a key of which theirs are made.
        let codes = facts.targets.iter().filter_map(|t| t.read_back.as_ref()?.code.clone());
        let (good, bad): (Vec<_>, Vec<_>) = codes.partition(Result::is_ok);
        Ok(Ended {
            end,
            failures,
            reason,
            steps,
            next,
            carried_out: facts.carried_out(),
            answered: facts.fetched.as_ref().map(|f| f.at),
            code: good.into_iter().chain(bad).next().filter(|_| facts.committed.is_some()),
            doubts: each_once(doubts),
            not_confirmed: facts.wake.confirm && facts.committed.is_none(),
            state: facts.state,
        })
    }

    /// Tries every report that is owed, for a program that does nothing else meanwhile. What does not arrive stays owed,
    /// as does what is not begun before the deadline, or what is under way when the program is told to stop. Gives what
    /// became of each attempt.
    ///
    /// # Errors
    /// What became of it could not be written down: it is delivered again, which does no harm.
    pub async fn deliver(
        &self,
        state: &mut State,
        receivers: &Arc<Receivers>,
        deadline: Instant,
        stop: &mut watch::Receiver<bool>,
    ) -> Result<Vec<Attempt>, StateError> {
        let mut all = Vec::new();
        report::hasten(&mut state.outbox);
        loop {
            let delivering = report::deliver_due(&mut state.outbox, receivers, Timestamp::now(), jitter());
            let attempts = tokio::select! {
                biased;
                () = wake::stopped(stop) => None,
                attempts = delivering => Some(attempts),
            };
            // Broken off, it may have taken in what some of them came to.
            self.save(state, &mut |_| {}).await?;
            let Some(attempts) = attempts else { return Ok(all) };
            let arrived = attempts.iter().any(|a| a.outcome.is_ok());
            all.extend(attempts);
            if !arrived || Instant::now() >= deadline {
                return Ok(all);
            }
        }
    }

    /// Makes a state durable, off the event loop.
    pub async fn save(&self, state: &State, observer: &mut (dyn FnMut(Event<'_>) + Send)) -> Result<(), StateError> {
        if !self.store.differs(state) {
            return Ok(());
        }
        let (store, new) = (self.store.clone(), state.clone());
        let saved = tokio::task::spawn_blocking(move || {
            let restored = store.restore()?;
            store.save(&new).map(|()| restored)
        })
        .await;
        let restored = saved.unwrap_or_else(|e| Err(StateError::broken_off(&state.credential, &e.to_string())))?;
        if let Some(what) = restored {
            observer(Event::Trouble { what: &what, fix: RESTORED });
        }
        observer(Event::Saved(state));
        Ok(())
    }

    /// Puts into the state what becomes durable together with what was done: its line of the audit log, and to whom its
    /// report is owed.
    fn owe(&self, state: &mut State, record: &Record, report: Option<&Report>) {
        let log = self.log(&state.credential);
        state.audit = log.lock().unwrap_or_else(PoisonError::into_inner).append(&state.audit, record);
        if let Some(report) = report {
            report::owe(&mut state.outbox, &self.receivers, report, record.at, jitter());
        }
    }

    /// Makes reports of what is to be told, and owes them: in the state, which is saved before the next step.
    fn tell(&self, facts: &mut Facts, credential: &config::Credential, by: &By) {
        let (superseded, news) = (std::mem::take(&mut facts.superseded), std::mem::take(&mut facts.news));
        if self.store.access() == Access::Read {
            return;
        }
        for superseded in superseded {
            let record = superseded_record(facts, credential, by, superseded, Timestamp::now());
            self.owe(&mut facts.state, &record, None);
        }
        for news in news {
            // A run that left what somebody else changed has a line that says so; others do not speak of it.
            let left = told_of(facts).is_some_and(|f| f.class == Class::Drift) && facts.carried_out() != Some(true);
            let withdrawn = news.outcome == "withdrawn" && !left;
            if withdrawn && news.error.as_ref().is_some_and(|e| e.class != Class::Superseded) {
                let record = withdrawal_record(facts, credential, by, &news, Timestamp::now());
                self.owe(&mut facts.state, &record, None);
            }
            let report = self.news(facts, credential, news);
            report::owe(&mut facts.state.outbox, &self.receivers, &report, Timestamp::now(), jitter());
            if report.outcome != rollover::ALIVE {
                facts.state.told = Some(report);
            }
        }
    }

    /// The document of something that is no confirmation.
    fn news(&self, facts: &Facts, credential: &config::Credential, news: News) -> Report {
        let source = facts.fetched.as_ref().map(|f| &f.identity).or(facts.state.source.as_ref());
        let another_login = news.in_use.is_some() && facts.state.foreign().is_some();
        // In a place that holds one document per host, this one replaces what still stands.
        let latest = match news.outcome {
            rollover::ALIVE => facts.state.told.clone(),
            "withdrawn" | "left" => None,
            _ => facts.state.report.clone().filter(|_| facts.state.withdrawn.is_none()),
        };
        Report {
            schema: REPORT_SCHEMA.into(),
            id: self.report_id(credential, news.seq),
            seq: news.seq,
            host_id: self.identity.host_id.clone(),
            host: self.identity.name.clone(),
            credential: credential.name.clone(),
            source: source.map(|s| s.arn.clone()).unwrap_or_default(),
            version: news.version,
            username: news.username,
            previous_username: news.previous_username,
            at: news.at,
            mode: credential.mode.word().into(),
            agent: AGENT.into(),
            outcome: news.outcome.into(),
            targets: Vec::new(),
            error: news.error,
            waiting: news.waiting,
            mail_server: facts.mail_server(),
            in_use: news.in_use,
            another_login,
            version_in_use: news.version_in_use,
            half_done: each_name_once(facts.state.half_done().map(|(_, begun)| &begun.username)),
            of_applied: news.of_applied,
            approved_by: None,
            latest: latest.map(Box::new),
        }
    }

    fn report_id(&self, credential: &config::Credential, seq: u64) -> String {
        format!("{}-{}-{seq}", self.identity.host_id, credential.name)
    }

    /// A run that ended without a commit has its line too, if there is news in it, or if a person asked for it.
    async fn note(
        &self,
        facts: &mut Facts,
        credential: &config::Credential,
        by: &By,
        end: End,
        steps: &[StepTime],
        observer: &mut (dyn FnMut(Event<'_>) + Send),
    ) -> Result<(), StateError> {
        if facts.wake.dry_run || self.store.access() == Access::Read {
            return Ok(());
        }
        if facts.committed.is_some() {
            return self.save(&facts.state, observer).await;
        }
        // What was put back and confirmed has its line.
        let from = steps.iter().rposition(|s| s.step == "commit" && s.ok).map_or(0, |last| last + 1);
        let steps = &steps[from..];
        if !facts.put_back.is_empty() {
            let record = put_back_record(facts, credential, by, steps, Timestamp::now());
            self.owe(&mut facts.state, &record, None);
        }
        let failed = told_of(facts);
        let settled = steps.iter().any(|s| s.step == "activate" && s.ok);
        let (what, outcome) = match (&failed, end) {
            (_, End::Interrupted) => ("interrupted", "interrupted"),
            _ if facts.carried_out() == Some(true) && facts.wake.leave => ("departure", "done"),
            _ if facts.carried_out() == Some(true) => ("rejection", "done"),
            // Whoever is to put it right.
            (Some(f), _) if f.class == Class::Drift => ("drift", "failed"),
            (_, End::Waits) => ("waits", "pending-approval"),
            (Some(f), _) if f.class == Class::Refused => ("refused", "failed"),
            (Some(_), End::ForGood) => ("failed", "failed"),
            (Some(_), _) => ("failed", "failed-for-now"),
            (None, _) if settled => ("reload", "done"),
            (None, _) => ("no-change", "done"),
        };
        let mut record = record(facts, credential, by, what, outcome, steps, Timestamp::now());
        if let ("rejection", Some(rejected)) = (what, facts.state.rejected.last()) {
            record.version = Some(rejected.id.version.clone());
            record.username = facts.state.candidate.as_ref().map(|c| c.username.clone());
            record.error = Some(Trouble { class: Class::Rejected, words: rejected.reason.clone() });
        }
        if what == "interrupted" && steps.is_empty() || !is_news(&facts.state, &record) {
            return self.save(&facts.state, observer).await;
        }
        let mut state = facts.state.clone();
        self.owe(&mut state, &record, None);
        self.save(&state, observer).await?;
        self.settle(&mut state, observer).await?;
        facts.state = state;
        Ok(())
    }

    /// Does one step.
    async fn step(
        &self,
        facts: &Facts,
        credential: &config::Credential,
        source: &Opened,
        step: &Step,
        fetched: &Kept,
    ) -> Done {
        Done::Outcome(Box::new(match step {
            Step::Wait { .. } | Step::Await | Step::End => unreachable!("the loop's own"),
            Step::Refrain { .. } => Outcome::Refrained,
            Step::Hold | Step::Release { .. } | Step::Reject | Step::Leave => Outcome::Noted,
            Step::Fetch => match look(facts, source, fetched).await {
                Ok(found) => Outcome::Fetched(found),
                Err(failure) => Outcome::Failed(failure),
            },
            Step::FetchApplied => match applied(facts, source).await {
                Ok(again) => {
                    let found = without_secret(&again, Some(&facts.state), Timestamp::now());
                    *fetched.get() = Some(again);
                    Outcome::Fetched(found)
                }
                Err(failure) => Outcome::Failed(failure),
            },
            Step::Verify { target } => {
                let target = &credential.targets[*target];
                match have(facts, source, fetched).await.and_then(|()| login_for(&fetched.get(), target)) {
                    Ok(login) => match self.fits(facts, credential, target, &login).await {
                        Ok(()) => self.verify(target, &login).await,
                        Err(failure) => Outcome::Failed(failure),
                    },
                    Err(failure) => Outcome::Failed(failure),
                }
            }
            Step::VerifyApplied { target } => {
                self.verify_applied(facts, credential, source, &credential.targets[*target]).await
            }
            Step::Probe { target } => {
                let target = &credential.targets[*target];
                let login = have(facts, source, fetched).await.and_then(|()| login_for(&fetched.get(), target));
                match (login, &credential.probe) {
                    (Ok(login), Some(probe)) => self.probe(facts, target, &login, probe).await,
                    (Ok(_), None) => Outcome::Probed,
                    (Err(failure), _) => Outcome::Failed(failure),
                }
            }
            Step::Commit { stamp } => match self.report(facts, credential, stamp) {
                Some(report) => return Done::Reported(Box::new(report)),
                None => Outcome::Failed(incomplete()),
            },
            step => {
                let target = step.target().expect("every other step is about a target");
                return self.apply_step(facts, credential, source, step, target, fetched).await;
            }
        }))
    }

    /// Nothing stays staged, locked or in memory when a run ends, however it ends: the next one may be hours away.
    async fn leave_all(&self, credential: &config::Credential, facts: &Facts, steps: &[StepTime]) {
        for (target, facts) in credential.targets.iter().zip(&facts.targets) {
            if facts.prepared.is_some() && !facts.swapped {
                // What cannot be removed now is removed by name at the next start.
                let _ = self.call(Request::Discard { target: target_id(credential, target) }).await;
            }
            if steps.iter().any(|s| s.step == "prepare" && s.target.as_ref() == Some(&target.name)) {
                let _ = self.call(Request::Leave { target: target_id(credential, target) }).await;
            }
        }
    }

    /// Is its user name no password that the mail server has in use, and the other way round? Of a name that may be shown
    /// anyway nobody is asked; the passwords in use nobody but apply knows.
    async fn in_order(
        &self,
        facts: &Facts,
        credential: &config::Credential,
        target: &config::Target,
        login: &Login,
    ) -> Result<(), Failure> {
        if facts.fetched.as_ref().is_none_or(|found| found.username != NOT_SHOWN) {
            return Ok(());
        }
        let (target, ours) = (target_id(credential, target), ours(Some(&facts.state)));
        let asked = self.call(Request::InOrder { target, ours, login: login.clone() }).await;
        asked.map(drop).map_err(|e| apply_failure(e, Timestamp::now()))
    }

    /// Is the login what it is taken for: user name and password in their order, and the applied version's where it counts as that?
    async fn fits(
        &self,
        facts: &Facts,
        credential: &config::Credential,
        target: &config::Target,
        login: &Login,
    ) -> Result<(), Failure> {
        self.in_order(facts, credential, target, login).await?;
        self.is_applied(&facts.state, asks_whether_applied(facts, credential, target, login), login).await
    }

    /// `asked`: that question; `None`: it does not arise.
    async fn is_applied(&self, state: &State, asked: Option<Request>, login: &Login) -> Result<(), Failure> {
        let Some(asked) = asked else { return Ok(()) };
        self.call(asked).await.map(drop).map_err(|e| not_as_applied(state, login, e))
    }

    async fn verify(&self, target: &config::Target, login: &Login) -> Outcome {
        proved(&target.smtp, login, &self.identity.name).await
    }

    /// A login with the version that is applied here. Its password is nowhere but in the mail server's files, from which
    /// none comes back: the source has to give it again.
    async fn verify_applied(
        &self,
        facts: &Facts,
        credential: &config::Credential,
        source: &Opened,
        target: &config::Target,
    ) -> Outcome {
        let fetched = match applied(facts, source).await {
            Ok(fetched) => fetched,
            Err(failure) if failure.temporary || source.is_err() => return Outcome::Failed(failure),
            Err(failure) => return Outcome::NotGiven(failure),
        };
        let login = match login_for(&Some(fetched), target) {
            Ok(login) => login,
            Err(failure) => return Outcome::NotGiven(failure),
        };
        // That another login is refused proves nothing of the one in use.
        let asked = asks_whether_login_is_applied(&facts.state, credential, target, &login);
        match self.is_applied(&facts.state, asked, &login).await {
            Ok(()) => self.verify(target, &login).await,
            Err(failure) if failure.class == Class::Changed => Outcome::NotGiven(failure),
            Err(failure) => Outcome::Failed(failure),
        }
    }

    /// Sends one message over the candidate's login: a login may be accepted, and then every message refused.
    async fn probe(&self, facts: &Facts, target: &config::Target, login: &Login, probe: &config::Probe) -> Outcome {
        let at = Timestamp::now();
        let version = facts.fetched.as_ref().map_or("", |f| f.id.version.as_str());
        let about = smtp::Probed { host: &self.identity.name, credential: &facts.state.credential, version, at };
        let roots = match tls::CaFile::new(target.smtp.ca_file.clone()).roots() {
            Ok(roots) => roots,
            Err(e) => return unproved(e.into(), at),
        };
        match smtp::probe(&target.smtp, login, &roots, &self.identity.name, probe, &about).await {
            Verdict::Accepted { .. } => Outcome::Probed,
            verdict => unproved(verdict, at),
        }
    }

    /// One request to apply, and its reply.
    async fn apply_step(
        &self,
        facts: &Facts,
        credential: &config::Credential,
        source: &Opened,
        step: &Step,
        index: usize,
        fetched: &Kept,
    ) -> Done {
        let target = &credential.targets[index];
        let id = target_id(credential, target);
        let ours = ours(Some(&facts.state));
        let login = match step {
            // What is at hand may be the version that was put back before this one goes on.
            Step::Prepare { .. } | Step::Preview { .. } => {
                match have(facts, source, fetched).await.and_then(|()| login_for(&fetched.get(), target)) {
                    Ok(login) => Some(login),
                    Err(failure) => return Done::Outcome(Box::new(Outcome::Failed(failure))),
                }
            }
            _ => None,
        };
        let shown = login.clone().filter(|_| matches!(step, Step::Preview { .. }));
        let request = match (step, login) {
            (Step::Inspect { .. }, _) => Request::Inspect { target: id, ours },
            (Step::Preview { .. }, Some(login)) => Request::Preview { target: id, ours, login },
            (Step::Prepare { .. }, Some(login)) => Request::Prepare {
                target: id,
                ours,
                expect: facts.targets[index].inspected.as_ref().and_then(|i| i.first_live_id.clone()),
                login,
                version: version_of(facts.fetched.as_ref()),
            },
            (Step::Swap { .. }, _) => Request::Swap { target: id },
            (Step::Activate { .. }, _) => Request::Activate { target: id },
            (Step::ReadBack { stamp, .. }, _) => Request::ReadBack {
                target: id,
                prove: Some(
                    self.heading(facts, credential, stamp).proof_fields(&target.name, region_of(target).as_deref()),
                ),
                nonce: facts.wake.code.clone(),
            },
            (Step::Undo { .. }, _) => Request::Undo { target: id },
            (Step::Discard { .. }, _) => Request::Discard { target: id },
            (step, _) => unreachable!("{step:?} is not apply's"),
        };
        Done::Replied(Box::new(self.call(request).await), shown)
    }

    /// Calls block (files, child processes): off the event loop. A look is given up after [`LONGEST_LOOK`]: a file system may hang
    /// for ever, and the other targets are to go on.
    async fn call(&self, request: Request) -> Result<Reply, Fault> {
        let (client, name) = (self.apply.clone(), request.target().target.clone());
        let looks = request.only_looks();
        let called = tokio::task::spawn_blocking(move || client.call(request));
        let ended = match looks {
            true => tokio::time::timeout(LONGEST_LOOK, called).await.map_err(|_| hangs(&name))?,
            false => called.await,
        };
        match ended {
            Ok(result) => result,
            Err(e) => Err(Fault {
                temporary: true,
                class: Class::Io,
                file: None,
                line: None,
                what: format!("the apply side broke off: {e}"),
                fix: "look at the log for what happened before".into(),
            }),
        }
    }

    /// The confirmation, from what was read back.
    /// `None`: a target was not verified or not read back, which would make it incomplete.
    fn report(&self, facts: &Facts, credential: &config::Credential, stamp: &rollover::Stamp) -> Option<Report> {
        let targets = credential.targets.iter().zip(&facts.targets).map(|(target, facts)| {
            let read_back = facts.read_back.as_ref()?;
            Some(ReportTarget {
                name: target.name.clone(),
                kind: read_back.kind.clone(),
                map: read_back.map.clone(),
                keys: read_back.keys.clone(),
                read_back: read_back.how.clone(),
                remaining_old: read_back.remaining_old.clone(),
                region: region_of(target),
                evidence: facts.evidence.clone()?,
                proof: read_back.proof.clone().ok(),
                no_proof: read_back.proof.clone().err(),
            })
        });
        let targets = targets.collect::<Option<Vec<_>>>()?;
        Some(Report { targets, ..self.heading(facts, credential, stamp) })
    }

    /// Everything of the confirmation but its targets: what their proofs are made over stands here.
    fn heading(&self, facts: &Facts, credential: &config::Credential, stamp: &rollover::Stamp) -> Report {
        let found = facts.fetched.as_ref();
        Report {
            schema: REPORT_SCHEMA.into(),
            id: self.report_id(credential, stamp.seq),
            seq: stamp.seq,
            host_id: self.identity.host_id.clone(),
            host: self.identity.name.clone(),
            credential: credential.name.clone(),
            source: found.map(|f| f.identity.arn.clone()).unwrap_or_default(),
            version: found.map(|f| f.id.version.clone()).unwrap_or_default(),
            username: found.map(|f| f.username.clone()).unwrap_or_default(),
            previous_username: facts.previous_username(),
            at: stamp.at.clone(),
            mode: credential.mode.word().into(),
            agent: AGENT.into(),
            outcome: stamp.outcome.word().into(),
            targets: Vec::new(),
            error: None,
            waiting: None,
            // It was read back, which a mail server that is down fails.
            mail_server: Some(rollover::MailServer::Runs),
            in_use: None,
            version_in_use: None,
            another_login: false,
            half_done: Vec::new(),
            of_applied: false,
            approved_by: facts.approved_by(),
            latest: None,
        }
    }
}

/// How long a program that is told to end waits for a step under way.
fn patience(step: &Step) -> Duration {
    match step {
        // They only look: nothing is torn.
        Step::Wait { .. } | Step::Fetch | Step::Verify { .. } | Step::VerifyApplied { .. } => Duration::ZERO,
        Step::Inspect { .. } | Step::Preview { .. } | Step::FetchApplied => Duration::ZERO,
        Step::Prepare { .. } | Step::Discard { .. } => STAGING,
        Step::ReadBack { .. } => READING_BACK,
        _ => LONGEST_STEP,
    }
}

/// Comes back so long after the program was told to end.
async fn told_to_end(stop: &mut watch::Receiver<bool>, patience: Duration) {
    wake::stopped(stop).await;
    if !patience.is_zero() {
        tokio::time::sleep(patience).await;
    }
}

/// The failure of a look that took too long.
fn hangs(target: &str) -> Fault {
    Fault {
        temporary: true,
        class: Class::Io,
        file: None,
        line: None,
        what: format!("target {target} could not be looked at within {} s: something hangs", LONGEST_LOOK.as_secs()),
        fix: "see whether the file systems of its configuration and tables answer (stat), and what hangs: ps -ef"
            .into(),
    }
}

/// What a step gave: its outcome, or the report that a commit is to make durable, or apply's reply, with the login that a
/// preview shows.
enum Done {
    Outcome(Box<Outcome>),
    Reported(Box<Report>),
    Replied(Box<Result<Reply, Fault>>, Option<Login>),
}

/// The credential that was fetched, for the steps that need it.
#[derive(Default)]
struct Kept(Mutex<Option<Fetched>>);

impl Kept {
    fn get(&self) -> MutexGuard<'_, Option<Fetched>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a commit completes, in the word of the audit log.
fn what_was_done(facts: &Facts, stamp: &rollover::Stamp) -> &'static str {
    let same = facts.state.applied.as_ref().map(|a| &a.id) == facts.fetched.as_ref().map(|f| &f.id);
    match stamp.outcome {
        rollover::Completion::Adopted => "adoption",
        rollover::Completion::Confirmed if same && facts.targets.iter().any(|t| t.swapped) => "heal",
        // Somebody asked for it, or what was withdrawn holds again.
        rollover::Completion::Confirmed if same => "confirmation",
        rollover::Completion::Confirmed => "rollover",
    }
}

/// One record of the audit log, of what the facts say now.
fn record(
    facts: &Facts,
    credential: &config::Credential,
    by: &By,
    what: &str,
    outcome: &str,
    steps: &[StepTime],
    at: Timestamp,
) -> Record {
    let found = facts.fetched.as_ref();
    let failure = told_of(facts);
    // What failed before the source gave any version is no fault of the one in use.
    let applied = facts.state.applied.as_ref().filter(|_| failure.is_none() || facts.of_a_version());
    Record {
        at,
        credential: credential.name.clone(),
        by: by.clone(),
        what: what.into(),
        version: found.map(|f| f.id.version.clone()).or_else(|| applied.map(|a| a.id.version.clone())),
        username: found.map(|f| f.username.clone()).or_else(|| applied.map(|a| a.username.clone())),
        previous_username: facts.previous_username(),
        steps: steps.to_vec(),
        outcome: outcome.into(),
        error: failure
            .filter(|_| outcome != "adopted" && outcome != "confirmed")
            .map(|f| Trouble { class: f.class, words: f.what }),
        approved_by: facts.approved_by(),
    }
}

/// The record of a version that was put in place by a run that was killed, before another one came.
fn superseded_record(
    facts: &Facts,
    credential: &config::Credential,
    by: &By,
    superseded: rollover::Superseded,
    at: Timestamp,
) -> Record {
    let rollover::Superseded { begun, by: other, targets, everywhere, approved_by } = superseded;
    let (where_, in_part) = match everywhere {
        true => (String::new(), ""),
        false => (format!(" (target {})", targets.join(", ")), " in part"),
    };
    let came = match (begun.by_hand, begun.used) {
        (true, _) => format!("was put in place{in_part} by hand{where_}, as asked, and never confirmed:"),
        (false, true) => {
            format!(
                "was put in place{in_part}{where_} and found in use, and never confirmed: the run was broken off, and"
            )
        }
        (false, false) => format!("was put in place in part{where_}, and never confirmed: the run was broken off, and"),
    };
    let words = format!("it {came} {} came", rollover::said_beside(&other, &begun.id));
    Record {
        at,
        credential: credential.name.clone(),
        by: by.clone(),
        what: "rollover".into(),
        version: Some(begun.id.version),
        username: Some(begun.username),
        previous_username: facts.state.applied.as_ref().map(|a| a.username.clone()).or(facts.state.found_first.clone()),
        steps: Vec::new(),
        outcome: Class::Superseded.word().to_owned(),
        error: Some(Trouble { class: Class::Superseded, words }),
        approved_by,
    }
}

/// The record of a confirmation that no longer holds.
fn withdrawal_record(facts: &Facts, credential: &config::Credential, by: &By, news: &News, at: Timestamp) -> Record {
    Record {
        version: Some(news.version.clone()),
        username: Some(news.username.clone()),
        previous_username: facts.state.applied.as_ref().and_then(|a| a.previous_username.clone()),
        error: news.error.as_ref().map(|e| Trouble { class: e.class, words: e.words.clone() }),
        approved_by: None,
        ..record(facts, credential, by, "withdrawal", "done", &[], at)
    }
}

/// What the record of a run that ended without a commit is about, where it has failed.
fn told_of(facts: &Facts) -> Option<Failure> {
    facts.failures().into_iter().map(|(_, f)| f.clone()).find(|f| f.class != Class::NothingToDo)
}

/// The record of the applied version that was put back in some targets, and that another one keeps from being confirmed.
fn put_back_record(
    facts: &Facts,
    credential: &config::Credential,
    by: &By,
    steps: &[StepTime],
    at: Timestamp,
) -> Record {
    let applied = facts.state.applied.as_ref();
    let words = format!(
        "somebody else had changed the login (target {}), and it was put back; not confirmed, because of another target",
        facts.put_back.join(", ")
    );
    Record {
        version: applied.map(|a| a.id.version.clone()),
        username: applied.map(|a| a.username.clone()),
        previous_username: applied.and_then(|a| a.previous_username.clone()),
        error: Some(Trouble { class: Class::Drift, words }),
        approved_by: None,
        ..record(facts, credential, by, "heal", "done", steps, at)
    }
}

/// The record of a state that came with a copy of another installation.
fn begun_anew(
    credential: &config::Credential,
    by: &By,
    before: Option<rollover::Applied>,
    moved: &rollover::Moved,
    copy: bool,
    at: Timestamp,
) -> Record {
    let reports = match moved.dropped {
        0 => "no report was owed by it".to_owned(),
        1 => "the report that it owed is not sent from here".to_owned(),
        n => format!("the {n} reports that it owed are not sent from here"),
    };
    let from = &moved.from;
    let what = match copy {
        true => format!("this is a copy of the installation {from}, on another machine"),
        false => format!("this state is of the installation {from}, and host.json does not say so any more"),
    };
    let words = format!("{what}: {reports}, and the credential is adopted anew");
    Record {
        at,
        credential: credential.name.clone(),
        by: by.clone(),
        what: "clone".into(),
        version: before.as_ref().map(|a| a.id.version.clone()),
        username: before.map(|a| a.username),
        previous_username: None,
        steps: Vec::new(),
        outcome: "done".into(),
        error: Some(Trouble { class: Class::Clone, words }),
        approved_by: None,
    }
}

/// Is there anything in a record that the one before it did not say? That another person asked is.
fn is_news(state: &State, record: &Record) -> bool {
    let asked = record.by.cause == "operator";
    if record.what == "no-change" && !asked {
        return false;
    }
    let before: Option<Record> = state.audit.lines.last().and_then(|line| serde_json::from_str(line).ok());
    before.is_none_or(|b| {
        asked && (&b.by.cause, b.by.uid, &b.by.claimed) != (&record.by.cause, record.by.uid, &record.by.claimed)
            || (&b.what, &b.version, &b.outcome, b.error.map(|e| e.class))
                != (&record.what, &record.version, &record.outcome, record.error.as_ref().map(|e| e.class))
    })
}

/// The HTTP client for AWS, where a credential has a source or a report goes there: it trusts what the system trusts.
pub fn http(config: &Config) -> Result<aws::Http, tls::TrustError> {
    let file = |c: &config::Credential| matches!(c.source, config::Source::File { .. });
    if config.credentials.iter().all(file) && !config.reports.iter().any(|r| r.kind.is_aws()) {
        return Ok(aws::Http::new(&[]));
    }
    tls::warm_up();
    Ok(aws::Http::new(&tls::Roots::system()?.pem()))
}

/// Something that works, and should not be as it is: who may read or write a file that this host goes by.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Doubt {
    /// The credential that it is about, where it is about one.
    pub credential: Option<String>,
    /// `config`, `source`, `login`, `target NAME`, `report NAME`.
    pub about: String,
    /// What is so, and what to do.
    #[serde(flatten)]
    pub finding: config::Finding,
}

impl Doubt {
    /// For people: what is so, and what to do.
    pub fn lines(&self) -> [String; 2] {
        let place = self.credential.as_ref().map(|c| format!("{c}: ")).unwrap_or_default();
        let config::Finding { severity, fix, .. } = &self.finding;
        [format!("{place}{}: {severity}: {}", self.about, self.finding.located()), format!("  fix: {fix}")]
    }
}

/// Those of a target.
fn doubts_of<'a>(
    seen: &'a apply::Inspected,
    credential: &'a str,
    target: &'a str,
) -> impl Iterator<Item = Doubt> + use<'a> {
    seen.doubts.iter().map(move |finding| Doubt {
        credential: Some(credential.to_owned()),
        about: format!("target {target}"),
        finding: finding.clone(),
    })
}

/// What others may read, or a group may change, of the files that sources, TLS, AWS and reports go by. What is refused is
/// told where it is used.
pub fn doubts(config: &Config) -> Vec<Doubt> {
    let mut all = Vec::new();
    let mut add = |credential: Option<&str>, about: &str, findings: Vec<config::Finding>| {
        all.extend(findings.into_iter().map(|finding| Doubt {
            credential: credential.map(str::to_owned),
            about: about.to_owned(),
            finding,
        }));
    };
    let tls = |file: Option<&std::path::Path>| tls::doubts(file).iter().map(config::Finding::from).collect::<Vec<_>>();
    let aws = |aws: &config::Aws| aws::doubts(aws).iter().map(config::Finding::from).collect::<Vec<_>>();
    for credential in &config.credentials {
        let name = Some(credential.name.as_str());
        add(
            name,
            "source",
            match &credential.source {
                config::Source::File { path, owner } => source::file::doubts(path, owner.as_deref()),
                config::Source::SecretsManager { aws: of, .. } | config::Source::ParameterStore { aws: of, .. } => {
                    aws(of)
                }
            },
        );
        let mut files: Vec<_> = credential.targets.iter().map(|target| target.smtp.ca_file.as_deref()).collect();
        files.dedup();
        files.into_iter().for_each(|file| add(name, "login", tls(file)));
    }
    for receiver in &config.reports {
        let findings = match &receiver.kind {
            config::ReceiverKind::Webhook { ca_file, .. } => tls(ca_file.as_deref()),
            config::ReceiverKind::ParameterStore { aws: of, .. } | config::ReceiverKind::DynamoDb { aws: of, .. } => {
                aws(of)
            }
            config::ReceiverKind::Email { via: config::MailVia::Ses(of), .. } => aws(of),
            config::ReceiverKind::Exec { command, user, .. } => {
                crate::report::exec::doubts(command, user).iter().map(config::Finding::from).collect()
            }
            // There is nothing.
            config::ReceiverKind::Email { .. } => Vec::new(),
        };
        add(None, &format!("report {}", receiver.name), findings);
    }
    all
}

/// A target is looked at more than once in a run.
fn each_once(doubts: Vec<Doubt>) -> Vec<Doubt> {
    let mut once: Vec<Doubt> = Vec::new();
    for doubt in doubts {
        if !once.contains(&doubt) {
            once.push(doubt);
        }
    }
    once
}

/// One login, trusting what `ca_file`, else the system, says now: the file is read anew each time.
pub async fn login_at(smtp: &config::Smtp, login: &Login, hello_name: &str) -> Verdict {
    match tls::CaFile::new(smtp.ca_file.clone()).roots() {
        Ok(roots) => smtp::login(smtp, login, &roots, hello_name).await,
        Err(e) => e.into(),
    }
}

/// The exit that the facts stand for when nothing is left to do.
fn ended(facts: &Facts, policy: &Policy) -> End {
    if let Some(done) = facts.carried_out() {
        return if done { End::Done(None) } else { End::ForGood };
    }
    let owed = facts.state.targets.values().any(|t| t.reload_owed.is_some());
    let failures = facts.failures().into_iter().filter(|(_, f)| f.class != Class::NothingToDo);
    let (by_hand, failures): (Vec<_>, Vec<_>) =
        failures.partition(|(target, f)| facts.is_for_a_person(policy, *target, f));
    // A dry run decides nothing, and holds nothing.
    let waits = if facts.wake.dry_run { !by_hand.is_empty() } else { facts.waits_for_a_person(policy) };
    let pending = facts.state.candidate.as_ref().filter(|_| facts.committed.is_none() && !facts.wake.dry_run);
    let is_rejected = |c: Option<&rollover::Candidate>| c.is_some_and(|c| facts.rejection(&c.id).is_some());
    if failures.iter().any(|(_, f)| !f.temporary && f.class != Class::ReloadOwed) {
        End::ForGood
    } else if owed || !failures.is_empty() {
        End::ForNow
    } else if facts.committed.is_none() && (waits || facts.wake.confirm && is_rejected(pending)) {
        // Nothing is confirmed of a version that is not to be taken; what is to come instead is a person's matter.
        End::Waits
    } else if pending.is_some() && !is_rejected(pending) {
        // Seen, and waiting for the second read.
        End::ForNow
    } else {
        End::Done(facts.committed)
    }
}

/// Tells what a reply of apply shows, and gives its outcome.
fn taken(
    result: Result<Reply, Fault>,
    shown: Option<Login>,
    step: &Step,
    facts: &Facts,
    credential: &config::Credential,
    observer: &mut (dyn FnMut(Event<'_>) + Send),
) -> Outcome {
    let target = &credential.targets[step.target().expect("apply is asked about targets")];
    match result {
        Ok(reply) => {
            if let Reply::Inspected(seen) = &reply {
                observer(Event::Files { target: &target.name, files: &seen.files, log: seen.log.as_ref() });
            }
            if let (Reply::Previewed(change), Some(login)) = (&reply, &shown) {
                observer(Event::Preview { target: &target.name, change, login });
            }
            outcome_of(reply, step, target, facts)
        }
        // What somebody else has written since is theirs.
        Err(e) if matches!(step, Step::Undo { .. }) && e.class == apply::OVERTAKEN => Outcome::Overtaken,
        Err(e) => Outcome::Failed(apply_failure(e, Timestamp::now())),
    }
}

fn outcome_of(reply: Reply, step: &Step, target: &config::Target, facts: &Facts) -> Outcome {
    let now = Timestamp::now();
    match reply {
        Reply::Inspected(seen) => {
            if let Some(error) = seen.findings.iter().find(|f| f.severity == config::Severity::Error) {
                return Outcome::Failed(Fault::new(Class::Config, error.located(), error.fix.clone()).at(now));
            }
            let first_live_id = seen.expect();
            let mut ids = seen.entries.iter().flat_map(|e| [&e.live_id, &e.text_id]);
            let one = ids.next().cloned().flatten();
            let same = one.is_some() && seen.missing.is_empty() && ids.all(|id| *id == one);
            let mut usernames: Vec<String> = Vec::new();
            for username in seen.entries.iter().filter(|e| e.is_live_key).filter_map(|e| e.username.as_ref()) {
                let username = facts.shown(username);
                if !usernames.contains(&username) {
                    usernames.push(username);
                }
            }
            let live_id = if same { one } else { None };
            let owed = |o: apply::ReloadOwed| rollover::Owed { since: o.since, why: o.why };
            // What is not in place is seen to otherwise, and then read.
            let confirmed = facts.state.targets.get(&target.name).and_then(|state| state.live_id.as_ref());
            let holds_it = live_id.is_some() && live_id.as_ref() == confirmed && seen.swapped.is_none();
            let unread = seen.unread.filter(|_| holds_it && !facts.wake.dry_run).map(owed);
            let (to_reload, left) = if target.reload.is_ours() { (unread, None) } else { (None, unread) };
            Outcome::Inspected(rollover::Inspection {
                live_id,
                username: seen.username,
                first_live_id,
                in_use: seen.live_id,
                usernames,
                reload_owed: seen.reload_owed.map(owed).or(to_reload),
                unread: left,
                swapped: seen.swapped.map(|apply::Uncommitted { version: v, username, live_id }| rollover::Swapped {
                    id: VersionId { version: v.version, order: v.order },
                    source: v.source,
                    username,
                    live_id,
                }),
                mail_server: Some(match seen.running {
                    apply::Running::No => rollover::MailServer::Stopped,
                    apply::Running::Yes { .. } => rollover::MailServer::Runs,
                    apply::Running::NotApplicable => rollover::MailServer::NoProcess,
                }),
            })
        }
        Reply::Prepared(p) => Outcome::Prepared(Staged {
            nothing_to_write: p.nothing_to_write,
            swapped_before: p.swapped_before,
            live_id: p.live_id,
            goes_live: p.goes_live,
        }),
        Reply::Previewed(previewed) => {
            let (change, live_id) = change_of(previewed, target);
            Outcome::Previewed(change, live_id)
        }
        Reply::ByHand(previewed) => {
            let (change, live_id) = change_of(previewed, target);
            Outcome::ByHand(change, live_id)
        }
        Reply::Swapped { .. } => Outcome::Swapped,
        Reply::Activated(apply::Activated::Yes { .. }) => Outcome::Activated,
        Reply::Activated(apply::Activated::Owed { why, fix, temporary }) => {
            Outcome::ReloadOwed(Fault::new(Class::ReloadOwed, why, fix).temporary_if(temporary).at(now))
        }
        Reply::ReadBack(r) if !r.matches => Outcome::Mismatch(
            Fault::new(
                Class::Mismatch,
                format!("target {} does not read back as the right login: {}", target.name, r.mismatches.join("; ")),
                "find out what else writes the table or changes main.cf; relaykey tries again",
            )
            .temporary()
            .at(now),
        ),
        // What it needs at its start it finds then: no reload is owed for that.
        Reply::ReadBack(r) if r.running == apply::Running::No => Outcome::Failed(not_running(target)),
        Reply::ReadBack(r) => Outcome::ReadBack(rollover::ReadBack {
            kind: r.kind.into(),
            map: r.map,
            keys: r.keys,
            how: r.how.into(),
            remaining_old: r.remaining_old,
            live_id: r.live_id,
            proof: match r.proof {
                Some(proof) => proof.map_err(str::to_owned),
                None => Err("no proof was asked for".into()),
            },
            code: r.code.map(|code| code.map_err(str::to_owned)),
        }),
        Reply::Done => match step {
            Step::Undo { .. } => Outcome::Undone,
            _ => Outcome::Discarded,
        },
    }
}

/// And the live id of the login that it is about.
fn change_of(previewed: apply::Previewed, target: &config::Target) -> (Change, String) {
    let apply::Previewed { diff, steps, differences, reload, live_id } = previewed;
    (Change { diff, steps, differences, reload: reload.is_some() && target.reload.is_ours() }, live_id)
}

/// The version at hand, for apply's journal.
fn version_of(found: Option<&Found>) -> apply::Version {
    let found = found.expect("a version was fetched before it is prepared");
    let VersionId { version, order } = found.id.clone();
    apply::Version { version, order, source: Some(found.identity.clone()) }
}

/// Asks the source. Where it still has the applied version, nothing more is asked: the credential itself stays where it is
/// until a step needs it.
async fn look(facts: &Facts, source: &Opened, fetched: &Kept) -> Result<Found, Failure> {
    *fetched.get() = None;
    let state = &facts.state;
    let source = source.as_ref().map_err(|e| source_failure(e.clone()))?;
    if let (Some(applied), Some(identity)) = (&state.applied, &state.source) {
        let seen = source.look().await.map_err(source_failure)?;
        // What waits for a person may wait for days: it need not be fetched at every look, no more than what is applied.
        let waits = |c: &&rollover::Candidate| c.held.is_some() || facts.rejection(&c.id).is_some();
        let waits = state.candidate.iter().filter(waits).map(|c| (&c.id, &c.username));
        // A name that did not show would stand in reports; it is in the credential alone.
        let waits = waits.filter(|(_, username)| *username != NOT_SHOWN);
        let known = std::iter::once((&applied.id, &applied.username)).chain(waits).find(|(id, _)| {
            // A recreated parameter counts from 1 again: its version 1 is not the version 1 of before.
            seen.version == id.version && seen.order.is_none_or(|order| Some(order) == id.order)
        });
        if let Some((id, username)) = known.filter(|_| seen.identity == *identity) {
            return Ok(Found {
                identity: seen.identity,
                id: id.clone(),
                username: username.clone(),
                at: Timestamp::now(),
            });
        }
    }
    let new = source.fetch().await.map_err(source_failure)?;
    in_order(&new, Some(state), in_use(facts)).map_err(source_failure)?;
    let found = without_secret(&new, Some(state), Timestamp::now());
    *fetched.get() = Some(new);
    Ok(found)
}

fn version_id(fetched: &Fetched) -> VersionId {
    VersionId { version: fetched.version.clone(), order: fetched.order }
}

/// The user names that were found in use, as the mail servers' tables have them.
fn in_use(facts: &Facts) -> impl Iterator<Item = &str> {
    facts.targets.iter().filter_map(|target| target.inspected.as_ref()?.username.as_deref())
}

/// Refuses a credential with user name and password in the wrong order, as far as the names tell that are known here or in
/// use: what it has for a user name is a password then, and must not be shown.
pub fn in_order<'a>(
    fetched: &Fetched,
    state: Option<&State>,
    in_use: impl Iterator<Item = &'a str>,
) -> Result<(), Fault> {
    let mut known = state.map(State::known_usernames).unwrap_or_default();
    known.extend(in_use.map(str::to_owned));
    fetched.payload.in_order(known.iter().map(String::as_str)).map_err(|e| {
        Fault::new(
            Class::Payload,
            format!("version {}: {e}", fetched.version),
            "put USER:PASSWORD there as a new version, in this order; until then this host keeps what it has. A password that \
             was written in the place of the user name may have been shown by other programs: make a new one",
        )
    })
}

/// The user name of what a source gives, as it may be shown before the endpoint has taken it for one.
pub fn shown_before_the_login(fetched: &Fetched, state: Option<&State>) -> String {
    let username = fetched.payload.username();
    let is_known = state.is_some_and(|state| state.known_usernames().iter().any(|known| known == username));
    shown_or_said(username, is_known).to_owned()
}

/// Once the endpoint has taken what stands in the user name's place for one, the facts have it.
fn name_once_accepted(facts: &mut Facts, step: &Step, outcome: &Outcome, fetched: Option<&Fetched>) {
    if let (Step::Verify { .. }, Outcome::Accepted(_), Some(of)) = (step, outcome, fetched) {
        facts.logged_in_as(&version_id(of), of.payload.username());
    }
}

/// What a source has given, without its secret, and without what may be one.
fn without_secret(fetched: &Fetched, state: Option<&State>, at: Timestamp) -> Found {
    Found {
        identity: fetched.identity.clone(),
        id: version_id(fetched),
        username: shown_before_the_login(fetched, state),
        at,
    }
}

/// The applied version once more, by its number.
async fn applied(facts: &Facts, source: &Opened) -> Result<Fetched, Failure> {
    let (Some(applied), Some(identity)) = (&facts.state.applied, &facts.state.source) else {
        unreachable!("it is asked of an applied version only")
    };
    let source = source.as_ref().map_err(|e| source_failure(e.clone()))?;
    let again = source.fetch_version(identity, &applied.id.version, applied.id.order).await.map_err(source_failure)?;
    if again.payload.username() != applied.username {
        return Err(another_login(&facts.state, again.payload.username()));
    }
    Ok(again)
}

/// Where what is at hand counts as the applied version: is its login that version's?
fn asks_whether_applied(
    facts: &Facts,
    credential: &config::Credential,
    target: &config::Target,
    login: &Login,
) -> Option<Request> {
    let (state, found) = (&facts.state, facts.fetched.as_ref()?);
    let is_it = state.applied.as_ref()?.id == found.id && state.source.as_ref() == Some(&found.identity);
    is_it.then(|| asks_whether_login_is_applied(state, credential, target, login)).flatten()
}

fn asks_whether_login_is_applied(
    state: &State,
    credential: &config::Credential,
    target: &config::Target,
    login: &Login,
) -> Option<Request> {
    state.applied.as_ref().filter(|applied| applied.username != NOT_SHOWN)?;
    let (target, ours, login) = (target_id(credential, target), ours(Some(state)), login.clone());
    Some(Request::IsApplied { target, ours, login })
}

/// What the answer to that comes to.
fn not_as_applied(state: &State, login: &Login, e: Fault) -> Failure {
    match e.class {
        Class::Changed => another_login(state, &login.username),
        _ => apply_failure(e, Timestamp::now()),
    }
}

/// The source gives the applied version with another login in it than this host has applied. AWS does not do that.
fn another_login(state: &State, username: &str) -> Failure {
    let (version, before) =
        state.applied.as_ref().map(|a| (a.id.version.as_str(), a.username.as_str())).unwrap_or_default();
    let holds = match shown_or_said(username, username == before) {
        same if same == before => format!("another password for {before}"),
        other => format!("the login of {other} instead of {before}"),
    };
    Fault::new(
        Class::Changed,
        format!(
            "the source gives version {version} with another content than this host has applied: {holds}. It is not \
             put in place, because nobody could tell the two apart by their version"
        ),
        format!(
            "find out who changed the source (AWS never changes a version: was it restored, or is something else behind \
             `endpoint_url`?), and store the credential that is to be used there as a new version: relaykey takes that, also \
             where it is {before} again. Where the mail server no longer has the login of {before}, put that back by hand until then"
        ),
    )
    .at(Timestamp::now())
}

/// The credential itself, now that a step needs it: of the version that was decided upon, or not at all.
async fn have(facts: &Facts, source: &Opened, fetched: &Kept) -> Result<(), Failure> {
    let Some(found) = &facts.fetched else { return Ok(()) };
    let is_it = |new: &Fetched| {
        new.identity == found.identity && new.version == found.id.version && new.order == found.id.order
    };
    // Another one may be at hand: the one that was put back before.
    if fetched.get().as_ref().is_some_and(is_it) {
        return Ok(());
    }
    *fetched.get() = None;
    let source = source.as_ref().map_err(|e| source_failure(e.clone()))?;
    let new = source.fetch().await.map_err(source_failure)?;
    if !is_it(&new) {
        return Err(Fault::new(
            Class::Changed,
            format!("the source had version {}, and a moment later version {}", found.id.version, new.version),
            "nothing: it is looked at anew",
        )
        .temporary()
        .at(Timestamp::now()));
    }
    in_order(&new, Some(&facts.state), in_use(facts)).map_err(source_failure)?;
    *fetched.get() = Some(new);
    Ok(())
}

/// Whose logins in a mail server's table are this credential's, as far as its state knows.
pub fn ours(state: Option<&State>) -> Ours {
    let applied = state.and_then(|s| s.applied.as_ref());
    let targets = || state.iter().flat_map(|state| state.targets.values());
    Ours {
        applied: applied.map(|a| a.username.clone()),
        previous: applied.and_then(|a| a.previous_username.clone()),
        known: state.iter().flat_map(|s| known(s)).cloned().collect(),
        earlier: state.map(State::earlier_usernames).unwrap_or_default(),
        logins: KnownLogins {
            // `apply` has the key.
            key: None,
            applied: targets().filter_map(|target| target.live_id.clone()).collect(),
            others: targets()
                .flat_map(|target| target.begun.iter().map(|begun| begun.live_id.clone()))
                .chain(state.iter().flat_map(|state| state.earlier_logins.clone()))
                .collect(),
            found: state.map(|state| state.found_logins.clone()).unwrap_or_default(),
        },
    }
}

fn each_name_once<'a>(names: impl Iterator<Item = &'a String>) -> Vec<String> {
    let once: std::collections::BTreeSet<&String> = names.collect();
    once.into_iter().cloned().collect()
}

/// What is to come, and what was put in place, or asked for, and never confirmed.
fn known(state: &State) -> impl Iterator<Item = &String> {
    state.candidate.iter().map(|c| &c.username).chain(state.begun().map(|begun| &begun.username))
}

fn apply_failure(e: Fault, at: Timestamp) -> Failure {
    Fault::new(e.class, e.located(), e.fix).temporary_if(e.temporary).at(at)
}

fn source_failure(e: Fault) -> Failure {
    Fault::new(e.class, e.what, e.fix).temporary_if(e.temporary).at(Timestamp::now())
}

/// The login of the fetched payload for one target's endpoint.
fn login_for(fetched: &Option<Fetched>, target: &config::Target) -> Result<Login, Failure> {
    let payload = &fetched.as_ref().expect("verifying comes first, and fetches").payload;
    payload.login(&target.smtp.endpoint, target.smtp.region.as_deref()).map_err(|e| {
        Fault::new(
            Class::Payload,
            format!("what the source holds is no login for {}: {e}", target.smtp.endpoint),
            e.fix(),
        )
        .at(Timestamp::now())
    })
}

fn state_failure(e: &StateError) -> Failure {
    Fault::new(Class::State, e.to_string(), e.fix()).temporary_if(e.is_temporary()).at(Timestamp::now())
}

/// What a login at this endpoint comes to.
async fn proved(smtp: &config::Smtp, login: &Login, hello_name: &str) -> Outcome {
    // As it is written down, and as reports have it.
    let at = Timestamp::from_second(Timestamp::now().as_second()).unwrap_or_default();
    match login_at(smtp, login, hello_name).await {
        Verdict::Accepted { reply } => {
            Outcome::Accepted(Evidence { endpoint: format!("{}:{}", smtp.endpoint, smtp.port), reply, at })
        }
        verdict => unproved(verdict, at),
    }
}

/// What a login, or a message over it, did not prove.
fn unproved(verdict: Verdict, at: Timestamp) -> Outcome {
    match verdict {
        Verdict::Accepted { .. } => unreachable!("that is proof"),
        Verdict::Refused { reply } => Outcome::Refused { reply },
        Verdict::Unknown { class, temporary, words, fix } => Outcome::Failed(
            Fault::new(
                class,
                match class {
                    Class::Policy => words,
                    _ => format!("no login: {words}"),
                },
                fix.unwrap_or_else(|| "nothing: it is tried again".into()),
            )
            .temporary_if(temporary)
            .at(at),
        ),
    }
}

/// What is in its files cannot be confirmed as what it uses.
fn not_running(target: &config::Target) -> Failure {
    let fix = match &target.kind {
        config::TargetKind::Postfix { config_dir } => format!("postfix -c {} start", config_dir.display()),
        config::TargetKind::Text { .. } => "start it".into(),
    };
    let what = format!("target {}: the mail server is not running, so that nothing can be confirmed", target.name);
    Fault::new(Class::NotRunning, what, fix).temporary().at(Timestamp::now())
}

fn incomplete() -> Failure {
    Fault::new(
        Class::State,
        "a target was not read back, so there is nothing to confirm",
        "nothing: it is looked at anew",
    )
    .temporary()
    .at(Timestamp::now())
}

fn region_of(target: &config::Target) -> Option<String> {
    target.smtp.region.clone().or_else(|| ses_region(&target.smtp.endpoint))
}

fn target_id(credential: &config::Credential, target: &config::Target) -> TargetId {
    TargetId { credential: credential.name.clone(), target: target.name.clone() }
}

/// A random number in [0, 1).
pub fn jitter() -> f64 {
    f64::from(getrandom::u32().unwrap_or(u32::MAX / 2)) / (f64::from(u32::MAX) + 1.0)
}

/// The fully qualified host name where the system knows one: the kernel's name if it has a dot, else the canonical
/// name that the hosts file gives for it, else the bare name.
pub fn host_name() -> String {
    let node = rustix::system::uname().nodename().to_string_lossy().into_owned();
    if node.contains('.') {
        return node;
    }
    let hosts = std::fs::read_to_string("/etc/hosts").unwrap_or_default();
    let full = hosts.lines().filter_map(|line| {
        let names: Vec<&str> = line.split('#').next()?.split_whitespace().skip(1).collect();
        names.contains(&node.as_str()).then(|| names.iter().find(|n| n.contains('.')).map(|n| (*n).to_owned()))?
    });
    full.into_iter().next().unwrap_or(node)
}

/// Whoever runs this process, by the kernel's word, and sudo's user as claimed.
pub fn operator() -> By {
    let plain = |text: String| text::plain(&text, 64);
    let claimed = std::env::var("SUDO_USER").ok().filter(|user| !user.is_empty()).map(plain);
    operator_with(rustix::process::getuid().as_raw(), claimed)
}

/// An operator with this user id. `claimed`: who they say to be, cut, and without what a terminal would obey; the control
/// socket sees to that for those who ask there.
pub fn operator_with(uid: u32, claimed: Option<String>) -> By {
    By { cause: "operator".into(), user: user_name(uid), uid: Some(uid), claimed, detail: None }
}

/// The name of a user that this host knows itself; those of a directory service have none here.
fn user_name(uid: u32) -> Option<String> {
    let passwd = std::fs::read_to_string("/etc/passwd").ok()?;
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse::<u32>().ok()? == uid).then(|| name.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::credential::{JsonKeys, Payload, SourceIdentity, VersionOrder};
    use crate::rollover::{Applied, Completion};
    use crate::source::{Fetching, Looking, Seen};

    /// A source that says the same each time, and counts how often the credential itself was asked for.
    struct Fixed {
        seen: Seen,
        holds: Fetched,
        fetches: Arc<AtomicUsize>,
    }

    impl Source for Fixed {
        fn look(&self) -> Looking<'_> {
            Box::pin(async { Ok(self.seen.clone()) })
        }

        fn fetch(&self) -> Fetching<'_> {
            self.fetches.fetch_add(1, Ordering::Relaxed);
            Box::pin(async { Ok(self.holds.clone()) })
        }

        fn fetch_version<'a>(&'a self, _: &'a SourceIdentity, _: &'a str, _: Option<VersionOrder>) -> Fetching<'a> {
            self.fetch()
        }

        fn describe(&self) -> String {
            "a fixed source".into()
        }
    }

    const FIRST: &str = "arn:aws:ssm:eu-west-1:111122223333:parameter/ses";
    const OTHER: &str = "arn:aws:ssm:eu-west-1:111122223333:parameter/other";

    fn at(seconds: i64) -> Option<VersionOrder> {
        Some(VersionOrder { at: Timestamp::from_second(seconds).unwrap(), number: 1 })
    }

    fn source(arn: &str, version: &str, order: Option<VersionOrder>) -> (Opened, Arc<AtomicUsize>) {
        let identity = SourceIdentity { arn: arn.into(), created: None };
        let fetches = Arc::new(AtomicUsize::new(0));
        let holds = Fetched {
            identity: identity.clone(),
            version: version.into(),
            order,
            payload: Payload::parse(b"AKIAFETCHED:secret", &JsonKeys::default()).unwrap(),
        };
        let seen = Seen { identity, version: version.into(), order };
        (Ok(Box::new(Fixed { seen, holds, fetches: fetches.clone() })), fetches)
    }

    /// Version 1 of the first parameter, of second 100, is applied.
    fn facts() -> Facts {
        let text = "config_version = 1\n[[credential]]\nname = \"ses\"\n[credential.source]\ntype = \"file\"\npath = \"/x\"\n\
                    [credential.smtp]\nendpoint = \"localhost\"\n[[credential.target]]\ntype = \"postfix\"\n";
        let (config, _) = config::parse(text).unwrap();
        let mut state = State::new("ses");
        state.source = Some(SourceIdentity { arn: FIRST.into(), created: None });
        state.applied = Some(Applied {
            id: VersionId { version: "1".into(), order: at(100) },
            username: "AKIAAPPLIED".into(),
            previous_username: None,
            outcome: Completion::Confirmed,
            since: Timestamp::UNIX_EPOCH,
        });
        Facts::new(state, &Policy::new(&config.credentials[0], TimeZone::UTC), Wake::default(), false)
    }

    fn now<T>(future: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
    }

    #[test]
    fn only_the_applied_version_of_the_same_source_is_not_fetched() {
        for (arn, version, order, fetched) in [
            (FIRST, "1", at(100), false),
            // As Secrets Manager tells it: without the age.
            (FIRST, "1", None, false),
            (FIRST, "2", at(200), true),
            // Deleted and made again: it counts from 1 again.
            (FIRST, "1", at(200), true),
            (OTHER, "1", at(100), true),
        ] {
            let (source, fetches) = source(arn, version, order);
            let kept = Kept::default();
            let found = now(look(&facts(), &source, &kept)).unwrap();
            let username = if fetched { "AKIAFETCHED" } else { "AKIAAPPLIED" };
            assert_eq!(
                (found.username.as_str(), kept.get().is_some()),
                (username, fetched),
                "{arn} {version} {order:?}"
            );
            assert_eq!(fetches.load(Ordering::Relaxed), usize::from(fetched), "{arn} {version} {order:?}");
        }
    }

    #[test]
    fn a_credential_that_is_needed_later_is_that_of_the_version_decided_upon() {
        for (arn, version, order, same) in [
            (FIRST, "1", at(100), true),
            (FIRST, "2", at(100), false),
            (FIRST, "1", at(200), false),
            (OTHER, "1", at(100), false),
        ] {
            let mut facts = facts();
            facts.fetched = Some(Found {
                identity: SourceIdentity { arn: FIRST.into(), created: None },
                id: VersionId { version: "1".into(), order: at(100) },
                username: "AKIAAPPLIED".into(),
                at: Timestamp::UNIX_EPOCH,
            });
            let (source, _) = source(arn, version, order);
            let kept = Kept::default();
            let result = now(have(&facts, &source, &kept));
            assert_eq!((result.is_ok(), kept.get().is_some()), (same, same), "{arn} {version} {order:?}");
            if let Err(failure) = result {
                assert!(failure.temporary && failure.class == Class::Changed, "{failure:?}");
            }
        }
    }
}
