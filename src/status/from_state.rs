//! How the document is made: of the configuration, the state files, and what a running daemon knows besides.

use jiff::{SignedDuration, Timestamp};

use super::cost::Cost;
use super::seconds::InSeconds as _;
use super::words::{how_to_start, key_refused, words};
use super::{
    AppliedRefused, AppliedStatus, ChangeStatus, CredentialState, CredentialStatus, DaemonStatus, FailureStatus,
    HalfDone, HeldStatus, InUseStatus, KnownCredential, Live, LiveStatus, NotReady, OwedStatus, PendingStatus,
    ReportOwed, Status,
};
use crate::config::{self, Config, IfAppliedDies, TargetKind};
use crate::fault::Class;
use crate::instruction::relaykey;
use crate::rollover::{
    self, Candidate, CloneOf, Holds, MailServer, OwnResult, ReloadOwed, State, TargetState, rfc3339, whole_seconds,
};

/// A look takes time, and polls are jittered: late is what is later than two polls by more than this.
const POLL_MARGIN: SignedDuration = SignedDuration::from_secs(5);

impl Status {
    /// From what is known; `daemon` where it is made by one.
    pub fn new<'a>(
        daemon: Option<DaemonStatus>,
        known: impl IntoIterator<Item = KnownCredential<'a>>,
        now: Timestamp,
    ) -> Self {
        let mut status = Self {
            schema: "relaykey/status/v1".into(),
            at: now,
            daemon,
            clone_of: None,
            credentials: known.into_iter().map(|k| CredentialStatus::new(k, now)).collect(),
        };
        status.in_seconds();
        status
    }

    /// The same of an installation that is a copy.
    pub fn of_clone(mut self, clone_of: Option<CloneOf>) -> Self {
        self.clone_of = clone_of;
        self.clone_of.in_seconds();
        self
    }

    /// From state files alone.
    pub fn at_rest(config: &Config, states: &[Option<State>], now: Timestamp) -> Self {
        let known = config.credentials.iter().zip(states);
        Self::new(
            None,
            known.map(|(credential, state)| KnownCredential { credential, state: state.as_ref(), live: None }),
            now,
        )
    }
}

impl CredentialStatus {
    fn new(known: KnownCredential<'_>, now: Timestamp) -> Self {
        let KnownCredential { credential, state, live } = known;
        let empty = State::new(&credential.name);
        let state = state.unwrap_or(&empty);
        let retries = std::iter::once((None, &state.source_retry))
            .chain(state.targets.iter().map(|(name, t)| (Some(name.clone()), &t.retry)));
        let mut failures = Vec::new();
        let mut next: Option<Timestamp> = None;
        for (target, retry) in retries {
            if let Some(failure) = &retry.failure {
                failures.push(FailureStatus {
                    target,
                    failure: failure.clone(),
                    attempts: retry.attempts,
                    next: retry.next,
                });
                next = [next, retry.next].into_iter().flatten().min();
            }
        }
        failures.extend(state.not_taken.iter().map(|failure| FailureStatus {
            target: None,
            failure: failure.clone(),
            attempts: 1,
            next: None,
        }));
        for (target, failure) in live.iter().flat_map(|l| &l.failures) {
            if !failures.iter().any(|f| f.failure.says_the_same(failure)) {
                failures.push(FailureStatus {
                    target: target.clone(),
                    failure: failure.clone(),
                    attempts: 1,
                    next: None,
                });
            }
        }
        let each = |of: fn(&TargetState) -> Option<&ReloadOwed>| -> Vec<OwedStatus> {
            let said =
                |(name, t): (&String, &TargetState)| Some(OwedStatus { target: name.clone(), owed: of(t)?.clone() });
            state.targets.iter().filter_map(said).collect()
        };
        let (owed, unread) = (each(|t| t.reload_owed.as_ref()), each(|t| t.unread.as_ref()));
        let reports_owed: Vec<ReportOwed> = state
            .outbox
            .iter()
            .filter_map(|(receiver, outbox)| {
                Some(ReportOwed {
                    receiver: receiver.clone(),
                    count: outbox.owed.len(),
                    since: outbox.owed.first()?.at.clone(),
                    attempts: outbox.retry.attempts,
                    failure: outbox.retry.failure.clone(),
                    next: outbox.retry.next,
                })
            })
            .collect();
        let in_use = state.targets.iter().filter_map(|(name, t)| {
            let found = t.in_use.as_ref()?;
            // What is found unchanged is not written down each time.
            let at = live.and_then(|l| l.looked.get(name)).map_or(found.at, |at| found.at.max(*at));
            let at = whole_seconds(at);
            let (target, usernames, holds) = (name.clone(), found.usernames.clone(), t.holds(state)?);
            let begun = found.live_id.as_ref().filter(|_| holds == Holds::Begun).and_then(|id| t.has_begun(id));
            let begun_by_hand = begun.is_some_and(|begun| begun.by_hand);
            let begun = begun.map(|begun| begun.id.version.clone());
            Some(InUseStatus { target, usernames, at, holds, begun, begun_by_hand })
        });
        let in_use: Vec<InUseStatus> = in_use.collect();
        let is_used = |first: &String| in_use.iter().any(|found| found.usernames.contains(first));
        let found_first = state.found_first.clone().filter(|first| state.applied.is_none() && !is_used(first));
        let half_done = state.half_done().map(|(target, begun)| HalfDone {
            target: target.clone(),
            version: begun.id.version.clone(),
            username: begun.username.clone(),
        });
        let held = state.targets.iter().filter(|_| state.applied.is_some()).filter_map(|(name, t)| {
            let held = t.held.as_ref().map(|held| &held.seen).filter(|held| !held.is_empty())?;
            Some(HeldStatus { target: name.clone(), held: held.clone() })
        });
        let applied_refused = state.applied_refused().and_then(|own| {
            let (since, at) = (*own.refused.first()?, *own.refused.last()?);
            Some(AppliedRefused { endpoint: own.last.as_ref()?.endpoint.clone(), since, at })
        });
        let first_refused = state.targets.values().filter_map(|t| t.first_refused.as_ref().map(|f| f.since)).min();
        let seen = |is: fn(Option<MailServer>) -> bool| {
            let mail_server = |t: &config::Target| state.targets.get(&t.name).and_then(|s| s.mail_server);
            credential.targets.iter().filter(|t| is(mail_server(t))).map(|t| t.name.clone()).collect::<Vec<_>>()
        };
        let mut status = Self {
            name: credential.name.clone(),
            source: credential.source.words(),
            source_in_full: credential.source.words_in_full(),
            state: CredentialState::UpToDate,
            mode: credential.mode.word().into(),
            by_hand: credential.targets.iter().filter(|t| !t.write).map(|t| t.name.clone()).collect(),
            not_ready: Vec::new(),
            applied: state.applied.as_ref().map(|a| AppliedStatus {
                version: a.id.version.clone(),
                username: a.username.clone(),
                previous_username: a.previous_username.clone(),
                outcome: a.outcome,
                since: a.since,
                version_stored: a.id.order.map(|order| order.at),
                key_age_seconds: a.key_age(now).as_secs(),
            }),
            in_use,
            half_done: half_done.collect(),
            held: held.collect(),
            found_first,
            applied_refused,
            own_login: state.own_login().cloned(),
            pending: state.candidate.as_ref().map(|c| PendingStatus::new(credential, state, c, first_refused)),
            failures,
            owed,
            unread,
            mail_server_stopped: seen(|s| s == Some(MailServer::Stopped)),
            mail_server_unseen: seen(|s| s.is_none()),
            withdrawn: state.withdrawn,
            not_put_back: state.put_back.failure.clone().filter(|_| state.foreign().is_some()).map(|failure| {
                FailureStatus { target: None, failure, attempts: state.put_back.attempts, next: state.put_back.next }
            }),
            left: state.left,
            reports_owed,
            notices: live.map(|l| l.notices.clone()).unwrap_or_default(),
            next,
            live: live.map(|l| LiveStatus {
                answered: l.answered,
                woken: l.woken.clone(),
                source_asked: l.source_asked,
                next_wake: l.next_wake,
                step: l.step,
                counters: l.counters.clone(),
            }),
            cost: Cost::of(credential),
            report: state.report.clone(),
            history: live.map(|l| l.history.clone()).unwrap_or_default(),
        };
        status.not_ready = status.unreadiness(credential, live, now);
        status.state = match status.not_ready.first().map(|n| n.class) {
            None => CredentialState::UpToDate,
            Some(Class::LeftBehind | Class::NoLook) => CredentialState::Hindered(Class::Failing),
            Some(class) => CredentialState::Hindered(class),
        };
        status
    }

    /// Everything that stands in the way of "this host uses the newest credential, and everybody knows", worst first.
    fn unreadiness(&self, credential: &config::Credential, live: Option<&Live>, now: Timestamp) -> Vec<NotReady> {
        let mut all = Vec::new();
        let mut say = |class: Class, what: String, fix: String| all.push(NotReady { class, what, fix });
        if let Some(what) = self.stopped() {
            say(Class::NotRunning, what, how_to_start(credential, &self.mail_server_stopped));
        }
        let failure = |class: Class| self.failures.iter().find(|f| f.failure.class == class).map(|f| &f.failure);
        if let (Some(r), Some(a)) = (&self.applied_refused, &self.applied) {
            let what = key_refused(&r.endpoint, &a.username, r.since, r.at);
            let waits = self.pending.as_ref().filter(|p| p.for_approval && p.approval.is_none());
            let fix = rollover::instead_of_the_refused(&self.name, waits.map(|p| p.version.as_str()));
            say(Class::AppliedRefused, what, fix);
        }
        for class in [Class::Refused, Class::Drift] {
            if let Some(f) = failure(class) {
                say(class, f.what.clone(), f.fix.clone());
            }
        }
        let not_put_back = self.not_put_back.as_ref().map(|f| &f.failure).filter(|_| failure(Class::Drift).is_none());
        if let Some(f) = not_put_back {
            say(Class::Drift, f.what.clone(), f.fix.clone());
        }
        // What was looked up, also where nothing has failed yet: a run may be about to put it right.
        if let (Some(a), None) = (&self.applied, failure(Class::Drift).or(not_put_back).or(failure(Class::FoughtOver)))
        {
            let foreign = self.in_use.iter().filter(|found| found.is_foreign());
            for found in foreign.filter(|found| !self.is_being_changed(&found.target)) {
                let what = format!(
                    "the mail server (target {}) uses {}, as looked up {}; {}",
                    found.target,
                    found.who_else(a),
                    rfc3339(found.at),
                    self.had_been(&found.target, a)
                );
                let fix = match self.instead_of_putting_back() {
                    Some(instead) => format!("find out what writes the table, and make it stop; then {instead}"),
                    None => "find out what writes the table; relaykey looks again by itself".to_owned(),
                };
                say(Class::Drift, what, fix);
            }
        }
        for found in &self.in_use {
            let Some(version) = &found.begun else { continue };
            let how = match found.begun_by_hand {
                true => "which was put there by hand, as relaykey had asked, and was never confirmed:",
                false => "which relaykey put there and never confirmed: its run was broken off, and",
            };
            let what = format!(
                "the mail server (target {}) uses {} (version {version}), {how} another version has come since",
                found.target,
                found.who()
            );
            let before = self.applied.as_ref().map(|a| &a.username).or(self.found_first.as_ref());
            let also = before.map(|before| format!(" and {before}")).unwrap_or_default();
            let fix = format!(
                "see to the version that is to come, or publish another one: it is confirmed once it is in use. Until then keep \
                 the keys {}{also}",
                found.who()
            );
            say(Class::Superseded, what, fix);
        }
        for o in &self.owed {
            let what =
                format!("target {} still needs a reload, since {}: {}", o.target, rfc3339(o.owed.since), o.owed.why);
            let fix = failure(Class::ReloadOwed).map(|f| f.fix.clone());
            let kind = credential.targets.iter().find(|t| t.name == o.target).map(|t| &t.kind);
            let command =
                kind.and_then(TargetKind::reload).map(|command| format!(" (`{command}`)")).unwrap_or_default();
            say(Class::ReloadOwed, what, fix.unwrap_or_else(|| format!("reload the mail server{command}")));
        }
        for class in [Class::LeftBehind, Class::NotNewer] {
            if let Some(f) = failure(class) {
                say(Class::LeftBehind, f.what.clone(), f.fix.clone());
            }
        }
        let mut fails = false;
        for f in &self.failures {
            let of_source = f.target.is_none();
            let told = [
                Class::Refused,
                Class::Drift,
                Class::ReloadOwed,
                Class::LeftBehind,
                Class::NotNewer,
                Class::NotYet,
                Class::NotTheNamedVersion,
                Class::ByHand,
            ];
            // Said first of all.
            if f.failure.class == Class::NotRunning && self.stopped().is_some() {
                continue;
            }
            // Without a state file nothing is done at all, whatever the source says.
            if (!of_source || f.failure.class == Class::State) && !told.contains(&f.failure.class) {
                fails = true;
                say(Class::Failing, f.failure.what.clone(), f.failure.fix.clone());
            }
        }
        if self.applied.is_none() {
            let what = "no version has been applied on this host yet".to_owned();
            say(
                Class::NeverApplied,
                what,
                format!("run `{}`, which says what stands in the way; relaykey goes on trying", relaykey("check")),
            );
        }
        for f in self.failures.iter().filter(|f| f.failure.class == Class::ByHand) {
            say(Class::ByHand, f.failure.what.clone(), f.failure.fix.clone());
        }
        let by_hand = failure(Class::ByHand).is_some();
        if let Some((p, r)) = self.pending.as_ref().and_then(|p| Some((p, p.rejected.as_ref()?))) {
            say(
                Class::Rejected,
                format!("version {} ({}) was rejected by {}: {}", p.version, p.username, r.by, r.reason),
                format!(
                    "publish another version; or, to take this one all the same: `{}`",
                    relaykey(format_args!("approve {} --version {}", self.name, p.version))
                ),
            );
        } else if let Some(p) = self.pending.as_ref().filter(|p| p.for_approval && p.approval.is_none()) {
            let since = p.waits_since.map(|at| format!(" since {}", rfc3339(at))).unwrap_or_default();
            // It is verified again while it waits, and may be refused by then.
            let verified =
                if failure(Class::Refused).or(failure(Class::NotYet)).is_some() { "" } else { "is verified, and " };
            let by_itself = p.window.as_ref().map(|w| format!("; or wait: it goes by itself {w} (local time)"));
            say(
                Class::PendingApproval,
                format!("version {} ({}) {verified}waits for approval{since}", p.version, p.username),
                format!(
                    "approve it: `{}`; or reject it: `{}`{}",
                    relaykey(format_args!("approve {} --version {}", self.name, p.version)),
                    relaykey(format_args!("reject {} --version {} --reason \"...\"", self.name, p.version)),
                    by_itself.unwrap_or_default()
                ),
            );
        } else if let Some(p) = self.pending.as_ref().filter(|_| !by_hand) {
            let (what, fix) = match (failure(Class::NotYet), self.not_given()) {
                (Some(f), _) => {
                    (format!("version {} ({}) is not accepted yet: {}", p.version, p.username, f.what), f.fix.clone())
                }
                (None, Some(f)) => (
                    format!(
                        "version {} ({}) was seen and is not in use, and the source does not give it now: {}",
                        p.version, p.username, f.what
                    ),
                    f.fix.clone(),
                ),
                // What stands in the way is said above, with what to do: nobody works on it.
                (None, None) if fails => (String::new(), String::new()),
                (None, None) if p.not_newer.is_some() => {
                    p.not_newer.clone().map(|f| (f.what, f.fix)).unwrap_or_default()
                }
                (None, None) => (
                    format!("version {} ({}) waits to be put into use", p.version, p.username),
                    "nothing: it is being worked on".to_owned(),
                ),
            };
            if !what.is_empty() {
                say(Class::Pending, what, fix);
            }
        }
        if let Some(live) = live {
            let patience = SignedDuration::try_from(credential.poll * 2).unwrap_or(SignedDuration::MAX);
            let last = live.answered.unwrap_or(live.since);
            if now.duration_since(last) > patience.saturating_add(POLL_MARGIN) {
                let silent = words(now.duration_since(last));
                let of_source = self.failures.iter().map(|f| (&f.target, &f.failure));
                let of_source =
                    of_source.into_iter().find(|(t, f)| t.is_none() && f.class != Class::State).map(|(_, f)| f);
                match of_source {
                    Some(f) => say(
                        Class::SourceDown,
                        format!("the source has given no answer for {silent}: {}", f.what),
                        f.fix.clone(),
                    ),
                    None => say(
                        Class::NoLook,
                        format!("the source has not been looked at for {silent}"),
                        "look at the log (`journalctl -u relaykey`); restart relaykey if it stays so (`systemctl restart relaykey`)".into(),
                    ),
                }
            }
        }
        // Without a daemon nobody says since when; what the last look met still stands.
        let of_source = self.failures.iter().map(|f| (&f.target, &f.failure));
        let silent = of_source.into_iter().find(|(target, f)| target.is_none() && f.class != Class::LeftBehind);
        if let (None, Some((_, f))) = (live, silent) {
            say(Class::SourceDown, format!("the source gave no answer: {}", f.what), f.fix.clone());
        }
        // A report that has only just been made is on its way, and not yet late.
        for r in self.reports_owed.iter().filter(|r| r.attempts > 0) {
            let why = r.failure.as_ref().map(|f| format!(": {}", f.what)).unwrap_or_default();
            let fix = r.failure.as_ref().map(|f| f.fix.clone()).unwrap_or_default();
            let count = if r.count == 1 { "a report".to_owned() } else { format!("{} reports", r.count) };
            let what = format!("{count} to {}, made {}, could not be delivered{why}", r.receiver, r.since);
            say(Class::ReportOwed, what, fix);
        }
        all
    }
}

impl PendingStatus {
    fn new(
        credential: &config::Credential,
        state: &State,
        candidate: &Candidate,
        first_refused: Option<Timestamp>,
    ) -> Self {
        let rejected = state.rejected.iter().find(|r| r.id == candidate.id).cloned();
        let (window, if_applied_dies) = match &credential.mode {
            config::Mode::Manual { window, if_applied_dies } => {
                (window.as_ref().map(ToString::to_string), *if_applied_dies == IfAppliedDies::Apply)
            }
            config::Mode::Automatic => (None, false),
        };
        let changes = credential.targets.iter().filter_map(|target| {
            let change = state.targets.get(&target.name)?.change.clone()?;
            Some(ChangeStatus { target: target.name.clone(), by_hand: !target.write, change })
        });
        let changes: Vec<ChangeStatus> = changes.collect();
        let waits = candidate.held.as_ref().filter(|_| rejected.is_none());
        // What a person changes needs no approval: that person decides.
        let is_manual = matches!(credential.mode, config::Mode::Manual { .. });
        let for_approval = waits.is_some() && is_manual && changes.iter().any(|c| !c.by_hand);
        let (gives, dies) = (credential.source.gives_older(), if_applied_dies && for_approval);
        let not_given = state.own_login().and_then(|own| match &own.result {
            OwnResult::NotGiven { what, .. } => Some(what.clone()),
            _ => None,
        });
        let in_vain = match gives {
            true => not_given,
            false => Some("a file does not give the older key, by which it would be proved".to_owned()),
        };
        Self {
            version: candidate.id.version.clone(),
            username: candidate.username.clone(),
            first_seen: candidate.first_seen,
            first_refused,
            waits_since: waits.map(|held| held.since),
            for_approval,
            window: window.filter(|_| for_approval),
            if_applied_dies: dies && in_vain.is_none(),
            dies_in_vain: in_vain.filter(|_| dies),
            approval: candidate.approval.clone(),
            rejected,
            changes,
            not_newer: rollover::not_newer(state),
        }
    }
}
