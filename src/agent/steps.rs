//! One step: what it asks of the source, of the endpoint or of apply, and what the answer comes to.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use relaykey_core::report::{ProofHeading, held_mark};

use super::endpoints::{endpoints_used, proved_everywhere};
use super::fetched::{
    FetchedCredential, applied, asks_whether_applied, asks_whether_login_is_applied, have, known_as_ours, logins_for,
    look, not_as_applied, without_secret,
};
use super::{Agent, OpenedSource};
use crate::apply::{self, KnownLogins, Logins, Ours, Reply, Request, TargetId, WantedProof};
use crate::config;
use crate::credential::{Login, NOT_SHOWN, VersionId};
use crate::fault::{Class, Failure, Fault};
use crate::report;
use crate::rollover::{
    self, Evidence, Facts, HeldFacts, Outcome, PlannedChange, Report, ReportTarget, SourceVersion, StagedFacts, State,
    Step, StillHeld,
};

/// A look at a target takes longer only where something hangs for which there is no time limit: a file system. The longest
/// are a few commands of 30 s each.
const LONGEST_LOOK: Duration = Duration::from_secs(120);

/// What a step gave: its outcome, or the report that a commit is to make durable, or apply's reply, with the login that a
/// preview shows.
pub(super) enum Done {
    Outcome(Box<Outcome>),
    Reported(Box<Report>),
    Replied(Box<Result<Reply, Fault>>, Option<Logins>),
}

/// What one run keeps for its steps.
#[derive(Default)]
pub(super) struct KeptInRun {
    pub(super) fetched: FetchedCredential,
    /// Of the report that proofs were asked for last: how much the lists of one target may take in it.
    room: Mutex<Option<(ProofHeading, usize)>>,
}

impl KeptInRun {
    /// The room under this heading, measured once for all its targets.
    fn room(&self, of: &ProofHeading, measure: impl FnOnce() -> usize) -> usize {
        let mut known = self.room.lock().unwrap_or_else(PoisonError::into_inner);
        match &*known {
            Some((measured, room)) if measured == of => *room,
            _ => known.insert((of.clone(), measure())).1,
        }
    }
}

impl Agent {
    /// Does one step.
    pub(super) async fn step(
        &self,
        facts: &Facts,
        credential: &config::Credential,
        source: &OpenedSource,
        step: &Step,
        kept: &KeptInRun,
    ) -> Done {
        let fetched = &kept.fetched;
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
                    fetched.keep(Some(again));
                    Outcome::Fetched(found)
                }
                Err(failure) => Outcome::Failed(failure),
            },
            Step::Verify { target } => {
                let (index, target) = (*target, &credential.targets[*target]);
                match have(facts, source, fetched).await.and_then(|()| fetched.logins_for(target)) {
                    Ok(logins) => match self.fits(facts, credential, target, logins.default_login()).await {
                        Ok(()) => self.verify(facts, index, target, &logins).await,
                        Err(failure) => Outcome::Failed(failure),
                    },
                    Err(failure) => Outcome::Failed(failure),
                }
            }
            Step::VerifyApplied { target } => self.verify_applied(facts, credential, source, *target).await,
            Step::Probe { target: index } => {
                let target = &credential.targets[*index];
                let logins = have(facts, source, fetched).await.and_then(|()| fetched.logins_for(target));
                match (logins, &credential.probe) {
                    (Ok(logins), Some(probe)) => self.probe_everywhere(facts, *index, target, &logins, probe).await,
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
                return self.apply_step(facts, credential, source, step, target, kept).await;
            }
        }))
    }

    /// Is its user name no password that the mail server has in use, and the other way round? Of a name that may be shown
    /// anyway nobody is asked; the passwords in use nobody but apply knows.
    pub(super) async fn in_order(
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
        asked.map(drop).map_err(|e| e.at(Timestamp::now()))
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

    async fn verify(&self, facts: &Facts, index: usize, target: &config::Target, logins: &Logins) -> Outcome {
        proved_everywhere(&target.smtp, &endpoints_used(facts, index), logins, &self.identity.name).await
    }

    /// A login with the version that is applied here. Its password is nowhere but in the mail server's files, from which
    /// none comes back: the source has to give it again.
    async fn verify_applied(
        &self,
        facts: &Facts,
        credential: &config::Credential,
        source: &OpenedSource,
        index: usize,
    ) -> Outcome {
        let target = &credential.targets[index];
        let fetched = match applied(facts, source).await {
            Ok(fetched) => fetched,
            Err(failure) if failure.temporary || source.is_err() => return Outcome::Failed(failure),
            Err(failure) => return Outcome::NotGiven(failure),
        };
        let logins = match logins_for(&Some(fetched), target) {
            Ok(logins) => logins,
            Err(failure) => return Outcome::NotGiven(failure),
        };
        // That another login is refused proves nothing of the one in use.
        let login = logins.default_login();
        let asked = asks_whether_login_is_applied(&facts.state, credential, target, login);
        match self.is_applied(&facts.state, asked, login).await {
            Ok(()) => self.verify(facts, index, target, &logins).await,
            Err(failure) if failure.class == Class::Changed => Outcome::NotGiven(failure),
            Err(failure) => Outcome::Failed(failure),
        }
    }

    /// One request to apply, and its reply.
    async fn apply_step(
        &self,
        facts: &Facts,
        credential: &config::Credential,
        source: &OpenedSource,
        step: &Step,
        index: usize,
        kept: &KeptInRun,
    ) -> Done {
        let (fetched, target) = (&kept.fetched, &credential.targets[index]);
        let id = target_id(credential, target);
        let ours = match step {
            Step::Inspect { .. } | Step::Preview { .. } | Step::Prepare { .. } => {
                known_as_ours(&facts.state, source, fetched, &target.smtp).await
            }
            _ => Ours::default(),
        };
        let logins = match step {
            // What is at hand may be the version that was put back before this one goes on.
            Step::Prepare { .. } | Step::Preview { .. } => {
                match have(facts, source, fetched).await.and_then(|()| fetched.logins_for(target)) {
                    Ok(logins) => Some(logins),
                    Err(failure) => return Done::Outcome(Box::new(Outcome::Failed(failure))),
                }
            }
            _ => None,
        };
        let shown = matches!(step, Step::Preview { .. }).then(|| logins.clone()).flatten();
        let request = match (step, logins) {
            (Step::Inspect { .. }, _) => Request::Inspect { target: id, ours },
            (Step::Preview { .. }, Some(logins)) => Request::Preview { target: id, ours, logins },
            (Step::Prepare { .. }, Some(logins)) => Request::Prepare {
                target: id,
                ours,
                expect: facts.targets[index].inspected.as_ref().and_then(|i| i.first_live_id.clone()),
                logins: logins.proved_at(endpoints_used(facts, index)),
                version: version_of(facts.fetched.as_ref()),
            },
            (Step::Swap { .. }, _) => Request::Swap { target: id },
            (Step::Activate { .. }, _) => Request::Activate { target: id },
            (Step::ReadBack { stamp, .. }, _) => Request::ReadBack {
                target: id,
                prove: self.wanted_proof(facts, credential, stamp, index, kept),
                nonce: facts.wake.code.clone(),
            },
            (Step::Attest { stamp, .. }, _) => {
                let live_id = facts.state.targets.get(&target.name).and_then(|state| state.live_id.clone());
                match live_id.zip(self.sign_of_life_proof(facts, credential, stamp, index, kept)) {
                    Some((live_id, prove)) => {
                        Request::Attest { target: id, ours: self::ours(Some(&facts.state)), live_id, prove }
                    }
                    None => return Done::Outcome(Box::new(Outcome::Failed(incomplete()))),
                }
            }
            (Step::Undo { .. }, _) => Request::Undo { target: id },
            (Step::Discard { .. }, _) => Request::Discard { target: id },
            (step, _) => unreachable!("{step:?} is not apply's"),
        };
        let mut reply = self.call(request).await;
        // A login with an earlier version's password tells more of an entry: with that it is looked at once more.
        if let Ok(Reply::Inspected(seen)) = &reply
            && seen.asks_for_proof
            && fetched.try_earlier(&target.smtp, &self.identity.name).await
        {
            let ours = known_as_ours(&facts.state, source, fetched, &target.smtp).await;
            reply = self.call(Request::Inspect { target: target_id(credential, target), ours }).await;
        }
        Done::Replied(Box::new(reply), shown)
    }

    /// The proof of a target that a confirmation is to have. Its lists are put in by apply, which reads them.
    fn wanted_proof(
        &self,
        facts: &Facts,
        credential: &config::Credential,
        stamp: &rollover::Stamp,
        index: usize,
        kept: &KeptInRun,
    ) -> Option<WantedProof> {
        let (of, target) = (self.of_confirmation(facts, credential, stamp), &credential.targets[index]);
        let accepted = facts.targets[index].evidence.as_ref()?.at;
        let fields = of.fields(&target.name, region_of(target).as_deref(), accepted, Vec::new());
        let heading = || self.heading(facts, credential, of.clone(), stamp.at);
        Some(WantedProof { fields, room: kept.room(&of, || room_in_report(&heading(), credential)) })
    }

    /// The same of a sign of life: with the login that the confirmation was made with, which was accepted then.
    fn sign_of_life_proof(
        &self,
        facts: &Facts,
        credential: &config::Credential,
        stamp: &rollover::SignOfLife,
        index: usize,
        kept: &KeptInRun,
    ) -> Option<WantedProof> {
        let (of, target) = (self.of_sign_of_life(facts, credential, stamp)?, &credential.targets[index]);
        let accepted = evidence_of(&facts.state, &target.name)?.at;
        let fields = of.fields(&target.name, region_of(target).as_deref(), accepted, Vec::new());
        let heading = || self.heading(facts, credential, of.clone(), stamp.at);
        Some(WantedProof { fields, room: kept.room(&of, || room_in_report(&heading(), credential)) })
    }

    /// Calls block (files, child processes): off the event loop. A look is given up after [`LONGEST_LOOK`]: a file system may hang
    /// for ever, and the other targets are to go on.
    pub(super) async fn call(&self, request: Request) -> Result<Reply, Fault> {
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

/// What the login of the last confirmation of a target came to.
pub(super) fn evidence_of<'s>(state: &'s State, target: &str) -> Option<&'s Evidence> {
    state.report.as_ref()?.targets.iter().find(|t| t.name == target).map(|t| &t.evidence)
}

pub(super) fn outcome_of(reply: Reply, step: &Step, target: &config::Target, facts: &Facts) -> Outcome {
    let now = Timestamp::now();
    match reply {
        Reply::Inspected(seen) => {
            if let Some(error) = seen.findings.iter().find(|f| f.severity == config::Severity::Error) {
                return Outcome::Failed(Fault::new(Class::Config, error.located(), error.fix.clone()).at(now));
            }
            let first_live_id = seen.expect();
            let held = held_facts(facts, &seen);
            let mut usernames: Vec<String> = Vec::new();
            for username in &seen.usernames {
                let username = facts.shown(username);
                if !usernames.contains(&username) {
                    usernames.push(username);
                }
            }
            let holds = seen.holds;
            // What is not in place is seen to otherwise, and then read.
            let holds_it = holds_confirmed(facts, target, holds.as_ref()) && seen.swapped.is_none();
            let unread = seen.unread.filter(|_| holds_it && !facts.wake.dry_run);
            let (to_reload, left) = if target.reload.is_ours() { (unread, None) } else { (None, unread) };
            Outcome::Inspected(rollover::Inspection {
                holds,
                username: seen.username,
                first_live_id,
                in_use: seen.live_id,
                usernames,
                endpoints: seen.endpoints,
                reload_owed: seen.reload_owed.or(to_reload),
                unread: left,
                swapped: seen.swapped,
                mail_server: Some(match seen.running {
                    apply::Running::No => rollover::MailServer::Stopped,
                    apply::Running::Yes { .. } => rollover::MailServer::Runs,
                    apply::Running::NotApplicable => rollover::MailServer::NoProcess,
                }),
                held,
            })
        }
        Reply::Prepared(p) => Outcome::Prepared(StagedFacts {
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
        Reply::ReadBack(r) => Outcome::ReadBack(rollover::ReadBackFacts {
            kind: r.kind.into(),
            map: r.map,
            keys: r.keys,
            how: r.how.into(),
            tables: r.tables,
            held: HeldFacts { mark: held_mark(&r.remaining_old, &r.others, &r.incomplete), told: r.held },
            live_id: r.live_id,
            region: r.regions.as_ref().and_then(|read| read.region.clone()),
            regional: r.regions.as_ref().map(|read| read.regional.clone()).unwrap_or_default(),
            one_region: r.regions.as_ref().is_some_and(|read| read.one_region),
            proof: match r.proof {
                Some(proof) => proof.map_err(str::to_owned),
                None => Err("no proof was asked for".into()),
            },
            code: r.code.map(|code| code.map_err(str::to_owned)),
        }),
        Reply::Done | Reply::Stands(_) => match step {
            Step::Undo { .. } => Outcome::Undone,
            _ => Outcome::Discarded,
        },
    }
}

/// How much a state file keeps of what a look found.
const ROOM_IN_STATE: usize = 1600;

/// What a look found beside the login in use.
fn held_facts(facts: &Facts, seen: &apply::Inspected) -> HeldFacts {
    let apply::Inspected { remaining_old, others, incomplete, .. } = seen;
    let applied = facts.state.applied.as_ref();
    let ours = applied.iter().flat_map(|a| std::iter::once(&a.username).chain(&a.previous_username));
    let ours: Vec<&str> = ours.map(String::as_str).collect();
    HeldFacts {
        told: StillHeld::within(ROOM_IN_STATE, remaining_old, others, incomplete, &ours),
        mark: held_mark(remaining_old, others, incomplete),
    }
}

/// How much the lists of one target may take in a report, so that every place holds it.
fn room_in_report(heading: &Report, credential: &config::Credential) -> usize {
    let targets: Vec<ReportTarget> = credential.targets.iter().map(named).collect();
    report::room_for_lists(heading, &targets)
}

/// A target as far as the configuration says what a report has of it.
fn named(target: &config::Target) -> ReportTarget {
    ReportTarget {
        name: target.name.clone(),
        kind: target.kind.word().into(),
        map: String::new(),
        tables: Vec::new(),
        keys: Vec::new(),
        read_back: String::new(),
        held: StillHeld::default(),
        region: region_of(target),
        evidence: Evidence {
            endpoint: format!("{}:{}", target.smtp.endpoint, target.smtp.port),
            reply: String::new(),
            at: Timestamp::UNIX_EPOCH,
        },
        proof: None,
        no_proof: None,
    }
}

/// Is the login that was found in a target the one that was confirmed there?
pub(super) fn holds_confirmed(facts: &Facts, target: &config::Target, found: Option<&String>) -> bool {
    found.is_some() && found == facts.state.targets.get(&target.name).and_then(|state| state.live_id.as_ref())
}

/// And the live id of the login that it is about.
fn change_of(previewed: apply::Previewed, target: &config::Target) -> (PlannedChange, String) {
    let apply::Previewed { diff, steps, differences, reload, live_id } = previewed;
    (PlannedChange { diff, steps, differences, reload: reload.is_some() && target.reload.is_ours() }, live_id)
}

/// The version at hand, for apply's journal.
fn version_of(found: Option<&SourceVersion>) -> apply::JournalVersion {
    let found = found.expect("a version was fetched before it is prepared");
    let VersionId { version, order } = found.id.clone();
    apply::JournalVersion { version, order, source: Some(found.identity.clone()) }
}

/// What is in its files cannot be confirmed as what it uses.
pub(super) fn not_running(target: &config::Target) -> Failure {
    let fix = target.kind.start().unwrap_or_else(|| "start it".into());
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

pub(super) fn region_of(target: &config::Target) -> Option<String> {
    target.smtp.ses_region()
}

pub(super) fn target_id(credential: &config::Credential, target: &config::Target) -> TargetId {
    TargetId { credential: credential.name.clone(), target: target.name.clone() }
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
        named: Vec::new(),
        named_logins: Vec::new(),
        // `apply` alone says which these are.
        remembered: Vec::new(),
        named_by_root: Vec::new(),
        logins: KnownLogins {
            // `apply` has the key.
            key: None,
            applied: targets().filter_map(|target| target.live_id.clone()).collect(),
            others: targets()
                .flat_map(|target| target.begun.iter().map(|begun| begun.live_id.clone()))
                .chain(state.iter().flat_map(|state| state.earlier_logins.clone()))
                .collect(),
            found: state.map(|state| state.found_logins.clone()).unwrap_or_default(),
            regional: targets().flat_map(|target| target.regional.clone()).collect(),
            passwords: Vec::new(),
        },
        one_region: targets().any(|target| target.one_region),
    }
}

/// What is to come, and what was put in place, or asked for, and never confirmed.
fn known(state: &State) -> impl Iterator<Item = &String> {
    state.candidate.iter().map(|c| &c.username).chain(state.begun().map(|begun| &begun.username))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_room_of_a_report_is_measured_once_for_all_its_targets() {
        let heading = |seq| ProofHeading {
            host_id: "id".into(),
            host: "mx1".into(),
            credential: "ses".into(),
            source: "arn".into(),
            version: "v".into(),
            username: "AKIA".into(),
            outcome: rollover::ReportOutcome::Confirmed,
            seq,
            at: "then".into(),
        };
        let (kept, measured) = (KeptInRun::default(), std::cell::Cell::new(0));
        let measure = || {
            measured.set(measured.get() + 1);
            100 * measured.get()
        };
        assert_eq!([1, 1, 2, 2, 1].map(|seq| kept.room(&heading(seq), measure)), [100, 100, 200, 200, 300]);
    }
}
