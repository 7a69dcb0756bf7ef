//! The loop: facts, decide, do the one step, absorb its outcome, make it durable, decide again.
//!
//! What to do is `rollover`'s; here the steps are done, by the source, the SMTP login and the apply client. The agent
//! never touches a mail server's files itself: everything goes through [`apply::Client`].

use std::time::{Duration, Instant};

use jiff::Timestamp;

use crate::apply::{self, Ours, Reply, Request, TargetId};
use crate::aws;
use crate::config::{self, Config};
use crate::credential::{Login, ProofFields, ses_region};
use crate::rollover::{
    self, Completion, Evidence, Facts, Failure, Found, Outcome, Policy, Reason, Report, ReportTarget, Staged, State,
    Step, VersionId, Wake,
};
use crate::smtp::{self, Verdict};
use crate::source::{self, Fetched, Source};
use crate::state::{HostIdentity, StateError, Store};
use crate::tls;

/// Schema word of report documents.
const REPORT_SCHEMA: &str = "relaykey/report/v1";
/// `agent` of report documents.
const AGENT: &str = concat!("relaykey/", env!("CARGO_PKG_VERSION"));

/// What the agent tells whoever watches, as it happens.
pub enum Event<'a> {
    /// A step begins.
    Begins { step: &'a Step, reason: &'a Reason },
    /// A step has ended.
    Ended { step: &'a Step, outcome: &'a Outcome, took: Duration },
    /// The change of one target, masked, for `--dry-run`.
    Preview { target: &'a str, diff: &'a [String], reload: bool },
}

/// How one run over one credential goes.
pub struct Run<'a> {
    pub credential: &'a config::Credential,
    pub wake: Wake,
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
        }
    }
}

/// How a run ended, as exit codes tell it: worst last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    Done(Option<Completion>),
    /// Failed for now, or a reload is owed.
    ForNow,
    ForGood,
    /// SIGINT or SIGTERM: stopped between two steps.
    Interrupted,
}

/// Everything a run needs that is not about one credential.
pub struct Agent<'a> {
    pub config: &'a Config,
    pub apply: apply::Client,
    pub identity: HostIdentity,
    pub http: aws::Http,
}

impl Agent<'_> {
    /// Runs one credential until nothing is left to do, or nothing before the deadline.
    ///
    /// `stop` becomes true when the program is to end: the step under way is finished, what is staged is removed.
    pub async fn run(
        &self,
        run: Run<'_>,
        store: &mut Store,
        stop: &mut tokio::sync::watch::Receiver<bool>,
    ) -> Result<Ended, StateError> {
        let Run { credential, wake, deadline, observer } = run;
        let policy = Policy::new(credential);
        let state = store.load(&credential.name)?.unwrap_or_else(|| State::new(&credential.name));
        let mut facts = Facts::new(state, &policy, wake, true);
        let opened = source::open(credential, &store.key()?, &self.http);
        let mut fetched: Option<Fetched> = None;
        let mut unsaved = None;
        let (end, reason) = loop {
            let now = Timestamp::now();
            let (step, reason) = rollover::decide(&facts, &policy, now);
            // What a crash must find again is on disk before the next step; above all before a swap. A target that is
            // in between is put right first, even if nothing can be written down, and even if the program is to end.
            if let Err(e) = store.save(&facts.state) {
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
            if !goes_on && (unsaved.is_some() || *stop.borrow()) {
                break (End::Interrupted, reason);
            }
            let left = match step {
                Step::Wait { until } => Duration::try_from(until.duration_since(now)).unwrap_or_default(),
                _ => Duration::ZERO,
            };
            let began = Instant::now();
            let too_long = matches!(step, Step::Wait { .. }) && began + left > deadline;
            if step == Step::End || too_long {
                break (ended(&facts), reason);
            }
            let id = rollover::begin(&mut facts);
            observer(Event::Begins { step: &step, reason: &reason });
            let outcome = match &step {
                Step::End => unreachable!("the loop has ended"),
                Step::Wait { .. } => {
                    tokio::select! {
                        () = wait(left) => Outcome::Waited,
                        _ = stop.changed() => continue,
                    }
                }
                Step::Refrain { .. } => Outcome::Refrained,
                Step::Fetch => match fetch(&opened).await {
                    Ok(new) => {
                        let found = Found {
                            identity: new.identity.clone(),
                            id: VersionId { version: new.version.clone(), order: new.order },
                            username: new.payload.username().to_owned(),
                            at: Timestamp::now(),
                        };
                        fetched = Some(new);
                        Outcome::Fetched(found)
                    }
                    Err(failure) => Outcome::Failed(failure),
                },
                Step::Verify { target } => {
                    let target = &credential.targets[*target];
                    match login_for(&fetched, target) {
                        Ok(login) => self.verify(target, &login).await,
                        Err(failure) => Outcome::Failed(failure),
                    }
                }
                Step::Commit { stamp } => 'commit: {
                    let Some(report) = self.report(&facts, credential, stamp) else {
                        break 'commit Outcome::Failed(incomplete());
                    };
                    let mut durable = facts.clone();
                    // Durable first, then absorbed: the rename of the state file is the commit.
                    rollover::absorb(
                        &mut durable,
                        &policy,
                        id,
                        &step,
                        Outcome::Committed(Box::new(report.clone())),
                        now,
                        0.0,
                    );
                    match store.save(&durable.state) {
                        Ok(()) => {
                            for target in &credential.targets {
                                let request = Request::Commit { target: target_id(credential, target) };
                                // What apply forgets here it would find out anew; the commit itself has happened.
                                let _ = self.call(request).await;
                            }
                            Outcome::Committed(Box::new(report))
                        }
                        Err(e) => Outcome::Failed(state_failure(&e)),
                    }
                }
                step => {
                    let target = step.target().expect("every other step is about a target");
                    self.apply_step(&facts, credential, step, target, &fetched, observer).await
                }
            };
            observer(Event::Ended { step: &step, outcome: &outcome, took: began.elapsed() });
            // A commit is absorbed at the time that it was made durable with: what is on disk is not written again.
            let at = if matches!(step, Step::Commit { .. }) { now } else { Timestamp::now() };
            rollover::absorb(&mut facts, &policy, id, &step, outcome, at, jitter());
        };
        self.discard_all(credential, &facts).await;
        if let Some(e) = unsaved {
            return Err(e);
        }
        let failures = facts.failures().into_iter().map(|(t, f)| (t.map(str::to_owned), f.clone())).collect();
        Ok(Ended { state: facts.state, end, failures, reason })
    }

    /// Nothing stays staged when a run ends, however it ends.
    async fn discard_all(&self, credential: &config::Credential, facts: &Facts) {
        for (target, facts) in credential.targets.iter().zip(&facts.targets) {
            if facts.prepared.is_some() && !facts.swapped {
                // What cannot be removed now is removed by name at the next start.
                let _ = self.call(Request::Discard { target: target_id(credential, target) }).await;
            }
        }
    }

    async fn verify(&self, target: &config::Target, login: &Login) -> Outcome {
        let at = Timestamp::now();
        match login_at(&target.smtp, login, &self.identity.name).await {
            Verdict::Accepted { reply } => Outcome::Accepted(Evidence {
                endpoint: format!("{}:{}", target.smtp.endpoint, target.smtp.port),
                reply,
                at,
            }),
            Verdict::Refused { reply } => Outcome::Refused { reply },
            Verdict::Unknown { class, temporary, words, fix } => Outcome::Failed(Failure {
                class: class.word().into(),
                what: format!("no login: {words}"),
                fix: fix.unwrap_or_else(|| "nothing: it is tried again".into()),
                temporary,
                at,
            }),
        }
    }

    /// One request to apply, and its reply as an outcome.
    async fn apply_step(
        &self,
        facts: &Facts,
        credential: &config::Credential,
        step: &Step,
        index: usize,
        fetched: &Option<Fetched>,
        observer: &mut (dyn FnMut(Event<'_>) + Send),
    ) -> Outcome {
        let target = &credential.targets[index];
        let id = target_id(credential, target);
        let ours = Ours {
            applied: facts.state.applied.as_ref().map(|a| a.username.clone()),
            previous: facts.state.applied.as_ref().and_then(|a| a.previous_username.clone()),
            known: facts.state.candidate.iter().map(|c| c.username.clone()).collect(),
        };
        let login = match step {
            Step::Prepare { .. } | Step::Preview { .. } => match login_for(fetched, target) {
                Ok(login) => Some(login),
                Err(failure) => return Outcome::Failed(failure),
            },
            _ => None,
        };
        let request = match (step, login) {
            (Step::Inspect { .. }, _) => Request::Inspect { target: id, ours },
            (Step::Preview { .. }, Some(login)) => Request::Preview { target: id, ours, login },
            (Step::Prepare { .. }, Some(login)) => Request::Prepare {
                target: id,
                ours,
                expect: facts.targets[index].inspected.as_ref().and_then(|i| i.first_live_id.clone()),
                login,
                version: facts.fetched.as_ref().map(|f| f.id.version.clone()).unwrap_or_default(),
            },
            (Step::Swap { .. }, _) => Request::Swap { target: id },
            (Step::Activate { .. }, _) => Request::Activate { target: id },
            (Step::ReadBack { stamp, .. }, _) => Request::ReadBack {
                target: id,
                prove: Some(ProofFields {
                    host_id: self.identity.host_id.clone(),
                    host: self.identity.name.clone(),
                    credential: credential.name.clone(),
                    version: facts.fetched.as_ref().map(|f| f.id.version.clone()).unwrap_or_default(),
                    username: facts.fetched.as_ref().map(|f| f.username.clone()).unwrap_or_default(),
                    target: target.name.clone(),
                    region: region_of(target).unwrap_or_default(),
                    outcome: stamp.outcome.word().into(),
                    seq: stamp.seq,
                    at: stamp.at.clone(),
                }),
            },
            (Step::Undo { .. }, _) => Request::Undo { target: id },
            (Step::Discard { .. }, _) => Request::Discard { target: id },
            (step, _) => unreachable!("{step:?} is not apply's"),
        };
        match self.call(request).await {
            Ok(reply) => outcome_of(reply, step, target, observer),
            Err(e) => Outcome::Failed(Failure {
                class: e.class.into(),
                what: config::located(e.file.as_deref(), e.line, &e.what),
                fix: e.fix,
                temporary: e.temporary,
                at: Timestamp::now(),
            }),
        }
    }

    /// Calls block (files, child processes): off the event loop.
    async fn call(&self, request: Request) -> Result<Reply, apply::MtaError> {
        let client = self.apply.clone();
        match tokio::task::spawn_blocking(move || client.call(request)).await {
            Ok(result) => result,
            Err(e) => Err(apply::MtaError {
                temporary: true,
                class: "io",
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
        let found = facts.fetched.as_ref();
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
        Some(Report {
            schema: REPORT_SCHEMA.into(),
            id: format!("{}-{}-{}", self.identity.host_id, credential.name, stamp.seq),
            seq: stamp.seq,
            host_id: self.identity.host_id.clone(),
            host: self.identity.name.clone(),
            credential: credential.name.clone(),
            source: found.map(|f| f.identity.arn.clone()).unwrap_or_default(),
            version: found.map(|f| f.id.version.clone()).unwrap_or_default(),
            username: found.map(|f| f.username.clone()).unwrap_or_default(),
            previous_username: facts.previous_username(),
            at: stamp.at.clone(),
            mode: "automatic".into(),
            agent: AGENT.into(),
            outcome: stamp.outcome.word().into(),
            targets: targets.collect::<Option<Vec<_>>>()?,
            error: None,
            approved_by: None,
        })
    }
}

/// The HTTP client for AWS, where a credential has a source there: it trusts what the system trusts.
pub fn http(config: &Config) -> Result<aws::Http, tls::TrustError> {
    let file = |c: &config::Credential| matches!(c.source, config::Source::File { .. });
    if config.credentials.iter().all(file) {
        return Ok(aws::Http::new(&[]));
    }
    tls::warm_up();
    Ok(aws::Http::new(&tls::Roots::system()?.pem()))
}

/// One login, trusting what `ca_file`, else the system, says now: the file is read anew each time.
pub async fn login_at(smtp: &config::Smtp, login: &Login, hello_name: &str) -> Verdict {
    match tls::CaFile::new(smtp.ca_file.clone()).roots() {
        Ok(roots) => smtp::login(smtp, login, &roots, hello_name).await,
        Err(e) => e.into(),
    }
}

/// The exit that the facts stand for when nothing is left to do.
fn ended(facts: &Facts) -> End {
    let owed = facts.state.targets.values().any(|t| t.reload_owed.is_some());
    let failures = facts.failures();
    if failures.iter().any(|(_, f)| !f.temporary && f.class != "reload-owed") {
        End::ForGood
    } else if owed || !failures.is_empty() {
        End::ForNow
    } else if facts.committed.is_none() && facts.state.candidate.is_some() && !facts.wake.dry_run {
        // Seen, and waiting for the second read.
        End::ForNow
    } else {
        End::Done(facts.committed)
    }
}

fn outcome_of(
    reply: Reply,
    step: &Step,
    target: &config::Target,
    observer: &mut (dyn FnMut(Event<'_>) + Send),
) -> Outcome {
    let now = Timestamp::now();
    match reply {
        Reply::Inspected(seen) => {
            if let Some(error) = seen.findings.iter().find(|f| f.severity == config::Severity::Error) {
                return Outcome::Failed(Failure {
                    class: "config".into(),
                    what: error.located(),
                    fix: error.fix.clone(),
                    temporary: false,
                    at: now,
                });
            }
            let first_live_id = seen.expect();
            let mut ids = seen.entries.iter().flat_map(|e| [&e.live_id, &e.text_id]);
            let one = ids.next().cloned().flatten();
            let same = one.is_some() && seen.missing.is_empty() && ids.all(|id| *id == one);
            Outcome::Inspected(rollover::Inspection {
                live_id: if same { one } else { None },
                username: seen.username,
                first_live_id,
                reload_owed: seen.reload_owed.map(|o| rollover::Owed { since: o.since, why: o.why }),
                swapped: seen.swapped,
            })
        }
        Reply::Prepared(p) => Outcome::Prepared(Staged {
            nothing_to_write: p.nothing_to_write,
            swapped_before: p.swapped_before,
            live_id: p.live_id,
        }),
        Reply::Preview { diff, reload } => {
            observer(Event::Preview { target: &target.name, diff: &diff, reload });
            Outcome::Previewed
        }
        Reply::Swapped { .. } => Outcome::Swapped,
        Reply::Activated(apply::Activated::Yes { .. }) => Outcome::Activated,
        Reply::Activated(apply::Activated::Owed { why, fix, temporary }) => {
            Outcome::ReloadOwed(Failure { class: "reload-owed".into(), what: why, fix, temporary, at: now })
        }
        Reply::ReadBack(r) if !r.matches => Outcome::Mismatch(Failure {
            class: "mismatch".into(),
            what: format!("target {} does not read back as the candidate: {}", target.name, r.mismatches.join("; ")),
            fix: "find out what else writes the table or changes main.cf; relaykey tries again".into(),
            temporary: true,
            at: now,
        }),
        Reply::ReadBack(r) if r.running == apply::Running::No => Outcome::ReloadOwed(Failure {
            class: "reload-owed".into(),
            what: format!("target {}: the mail server is not running", target.name),
            fix: "start it".into(),
            temporary: true,
            at: now,
        }),
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
        }),
        Reply::Done => match step {
            Step::Undo { .. } => Outcome::Undone,
            _ => Outcome::Discarded,
        },
    }
}

async fn fetch(source: &Result<Box<dyn Source>, source::SourceError>) -> Result<Fetched, Failure> {
    let result = match source {
        Ok(source) => source.fetch().await,
        Err(e) => Err(e.clone()),
    };
    result.map_err(|e| Failure {
        class: e.class.into(),
        what: e.what,
        fix: e.fix,
        temporary: e.temporary,
        at: Timestamp::now(),
    })
}

/// The login of the fetched payload for one target's endpoint.
fn login_for(fetched: &Option<Fetched>, target: &config::Target) -> Result<Login, Failure> {
    let payload = &fetched.as_ref().expect("steps with a login come after the fetch").payload;
    payload.login(&target.smtp.endpoint, target.smtp.region.as_deref()).map_err(|e| Failure {
        class: "payload".into(),
        what: format!("what the source holds is no login for {}: {e}", target.smtp.endpoint),
        fix: "publish a corrected version; the old credential stays in place".into(),
        temporary: false,
        at: Timestamp::now(),
    })
}

fn state_failure(e: &StateError) -> Failure {
    Failure {
        class: "state".into(),
        what: e.to_string(),
        fix: e.fix(),
        temporary: e.is_temporary(),
        at: Timestamp::now(),
    }
}

fn incomplete() -> Failure {
    Failure {
        class: "state".into(),
        what: "a target was not read back, so there is nothing to confirm".into(),
        fix: "nothing: it is looked at anew".into(),
        temporary: true,
        at: Timestamp::now(),
    }
}

/// Waits by the clock that also runs while the host sleeps: who slept through a wait has waited.
async fn wait(left: Duration) {
    let now = || {
        let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), u32::try_from(time.tv_nsec).unwrap_or(0))
    };
    let due = now() + left;
    loop {
        let left = due.saturating_sub(now());
        if left.is_zero() {
            return;
        }
        // The run time's own clock stands still while the host sleeps: asked again after a short part of the wait.
        tokio::time::sleep(left.min(Duration::from_secs(5))).await;
    }
}

fn region_of(target: &config::Target) -> Option<String> {
    target.smtp.region.clone().or_else(|| ses_region(&target.smtp.endpoint))
}

fn target_id(credential: &config::Credential, target: &config::Target) -> TargetId {
    TargetId { credential: credential.name.clone(), target: target.name.clone() }
}

/// A random number in [0, 1).
fn jitter() -> f64 {
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
