//! One step: a look, and the one thing that it decides, with what is written before and after the call.

use std::time::Duration;

use jiff::Timestamp;
use relaykey_core::credential::Secret;
use relaykey_core::fault::{Class, Fault};

use super::{Controller, FurtherAt, LOGINS, Look, NewKey, TRIES};
use crate::audit::AuditEntry;
use crate::aws::parameters::Put;
use crate::aws::payload::Held;
use crate::aws::store::{Seen, StoreAt};
use crate::aws::{CallFailed, FailKind, Until, logins, payload};
use crate::facts::{CURRENT, Facts, KeyId, KeyPlace, KeyStatus, LoginReply, PENDING, VersionId};
use crate::hosts::Kept;
use crate::plan::{Action, Outcome, Purpose, plan};
use crate::record::ControlRecord;

/// What one step came to.
pub(super) struct StepDone {
    pub look: Look,
    /// What was done is in the record.
    pub wrote: bool,
}

/// Logins that change nothing are made within one step, so many at most.
const LOGINS_AT_ONCE: usize = 3;

/// What became of a call: for the record, and in words for people.
struct Called {
    outcome: Outcome,
    said: String,
    fault: Option<Fault>,
}

impl Called {
    fn done(outcome: Outcome) -> Self {
        Self { outcome, said: String::new(), fault: None }
    }

    fn of<T>(result: Result<T, CallFailed>, outcome: impl FnOnce(T) -> Outcome) -> Self {
        match result {
            Ok(given) => Self::done(outcome(given)),
            Err(CallFailed { kind, mut fault }) => {
                // Somebody was faster: the next look sees what they did.
                fault.temporary |= kind == FailKind::Conflict;
                let outcome = if kind.is_definite() { Outcome::Failed } else { Outcome::Unknown };
                Self { outcome, said: fault.what.clone(), fault: Some(*fault) }
            }
        }
    }

    /// Of a parameter: what is put is published.
    fn of_a_put(result: Result<Put, CallFailed>) -> Self {
        match result {
            Ok(Put { version, raced }) => {
                let said = raced.as_ref().map_or_else(String::new, |raced| raced.what.clone());
                Self { outcome: Outcome::Published(version), said, fault: raced }
            }
            Err(failed) => Self::of(Err::<(), _>(failed), |()| Outcome::Done),
        }
    }

    fn failed(fault: Fault) -> Self {
        Self { outcome: Outcome::Failed, said: fault.what.clone(), fault: Some(fault) }
    }
}

impl Controller {
    /// Looks, and does what is to be done.
    pub(super) async fn step(
        &mut self,
        kept: &mut Kept,
        done: &mut Vec<(Action, Outcome)>,
    ) -> Result<StepDone, CallFailed> {
        // Who it was that did it is in the log, where STS tells.
        let _ = self.caller().await;
        let decided = (self.hooks.now(), self.hooks.boot());
        let (mut look, seen) = self.looked(kept.record.clone(), decided.0, Some(&mut *kept)).await;
        look.faults.extend(self.told.take());
        for _ in 0..LOGINS_AT_ONCE {
            let Some(action @ Action::LogIn { purpose: Purpose::Verify | Purpose::ProveDead, .. }) =
                look.decision.action.clone()
            else {
                break;
            };
            if !self.act(kept, &action, &mut look, seen.as_ref(), decided, done).await? {
                return Ok(StepDone { look, wrote: false });
            }
            look.facts.logins.clone_from(&self.logins);
            look.decision = plan(&look.facts, &self.policy, look.now);
        }
        let Some(action) = look.decision.action.clone() else {
            let record = ControlRecord { next: look.decision.next, ..look.facts.record.clone() };
            let wrote = self.keep(kept, record, None).await?;
            look.faults.extend((!wrote).then(written_in_between));
            return Ok(StepDone { look, wrote });
        };
        let wrote = self.act(kept, &action, &mut look, seen.as_ref(), decided, done).await?;
        Ok(StepDone { look, wrote })
    }

    /// `false`: somebody was faster, and what was decided is worth nothing any more.
    async fn keep(
        &self,
        kept: &mut Kept,
        mut record: ControlRecord,
        entry: Option<AuditEntry>,
    ) -> Result<bool, CallFailed> {
        // Each name stands in the registry: a record of a hundred thousand fits nowhere.
        record.roster.names.clear();
        match self.write(kept, record, entry, None).await {
            Ok(()) => Ok(true),
            Err(failed) if failed.kind == FailKind::Conflict => Ok(false),
            Err(failed) => Err(failed),
        }
    }

    /// Writes what is about to be done, does it, and writes what came of it. `false`: it was dropped, or somebody was faster.
    pub(super) async fn act(
        &mut self,
        kept: &mut Kept,
        action: &Action,
        look: &mut Look,
        seen: Option<&Seen>,
        decided: (Timestamp, Duration),
        done: &mut Vec<(Action, Outcome)>,
    ) -> Result<bool, CallFailed> {
        let now = self.hooks.now();
        let token = seen.and_then(|seen| self.token(action, seen, kept.record.fence, now));
        let mut record = look.facts.record.clone();
        if !self.still_good(&record, decided) {
            look.faults.push(grown_old());
            return Ok(false);
        }
        if calls(action) {
            record.begin(action, token.clone(), now);
            if *action == Action::Create {
                record.saw(&look.facts.keys);
            }
            if !self.keep(kept, record.clone(), Some(AuditEntry::begins(action))).await? {
                look.faults.push(written_in_between());
                return Ok(false);
            }
            look.facts.record = record;
            // The last look at the clocks, just before the call.
            if !self.still_good(&kept.record, decided) {
                look.faults.push(grown_old());
                return Ok(false);
            }
        }
        let called = match (seen, action) {
            (Some(seen), _) => self.call(action, token, &look.facts, seen, &self.until(decided)).await,
            // It asks nothing of the store.
            (None, Action::Reactivate { key, .. }) => {
                let until = self.until(decided);
                Called::of(self.keys.set(key, KeyStatus::Active, &until).await, |()| Outcome::Done)
            }
            (None, _) => {
                Called::failed(Fault::new(Class::State, "the store was not seen", "nothing: it is looked at anew"))
            }
        };
        look.faults.extend(called.fault);
        // What is a note alone is done when it is written.
        if calls(action) {
            done.push((action.clone(), called.outcome.clone()));
        }
        let entry = AuditEntry::ended(action, &called.outcome, &called.said);
        let wrote = self.ended(kept, action, &called.outcome, look, entry).await?;
        if !wrote {
            look.faults.push(written_in_between());
        } else if !calls(action) {
            done.push((action.clone(), called.outcome));
        }
        Ok(wrote)
    }

    /// What came of it goes into the record as it stands there now: a person may have written it in between. Not if somebody else
    /// took over: they have looked for themselves.
    async fn ended(
        &self,
        kept: &mut Kept,
        action: &Action,
        outcome: &Outcome,
        look: &mut Look,
        entry: AuditEntry,
    ) -> Result<bool, CallFailed> {
        let fence = kept.record.fence;
        // Nothing was begun: what the look saw is written with it.
        let mut record = if calls(action) { kept.record.clone() } else { look.facts.record.clone() };
        for _ in 0..TRIES {
            record.done(action, outcome, &look.facts, &self.policy, self.hooks.now());
            let next = look.decision.next;
            let record_now = ControlRecord { next, ..record };
            if self.keep(kept, record_now.clone(), Some(entry.clone())).await? {
                look.facts.record = record_now;
                return Ok(true);
            }
            match self.place.record().await? {
                Some(there) if there.record.fence == fence && calls(action) => {
                    record = there.record.clone();
                    *kept = there;
                }
                _ => return Ok(false),
            }
        }
        Ok(false)
    }

    /// The id that a version will have that is about to be put.
    fn token(&self, action: &Action, seen: &Seen, fence: u64, now: Timestamp) -> Option<VersionId> {
        match action {
            Action::Put { key, .. } => self.store.token(seen, key),
            Action::Republish { key, .. } => self.store.fresh_token(seen, key, fence, now),
            _ => None,
        }
    }

    /// The call itself.
    async fn call(
        &mut self,
        action: &Action,
        token: Option<VersionId>,
        facts: &Facts,
        seen: &Seen,
        until: &Until,
    ) -> Called {
        let done = |()| Outcome::Done;
        match action {
            Action::Reactivate { key, .. } => Called::of(self.keys.set(key, KeyStatus::Active, until).await, done),
            Action::Deactivate { key, .. } => Called::of(self.keys.set(key, KeyStatus::Inactive, until).await, done),
            Action::Delete { key, .. } => Called::of(self.keys.delete(key, until).await, done),
            Action::Create => {
                let made = self.keys.create(until).await;
                Called::of(made, |(id, secret)| {
                    self.unstored = Some(NewKey { id: id.clone(), secret });
                    Outcome::Created(id)
                })
            }
            Action::Forget { .. } => {
                self.unstored = None;
                Called::done(Outcome::Done)
            }
            Action::Put { key, publishes } => self.put(key, *publishes, token, seen, until).await,
            Action::Republish { from, .. } => match (self.text_of(from, seen), &self.store) {
                (Some(Err(fault)), _) => Called::failed(fault),
                (Some(Ok(text)), StoreAt::Secret(secret)) => {
                    let token = token.expect("a secret takes one");
                    Called::of(secret.put(&token, &text, PENDING, until).await, |_| Outcome::Done)
                }
                (Some(Ok(text)), StoreAt::Parameter(at)) => Called::of_a_put(at.put(&text, current(seen), until).await),
                (None, _) => Called::failed(gone(&format!("version {from}"))),
            },
            Action::LogIn { key, .. } => self.log_in(key, facts, seen).await,
            Action::TakeOff { version, .. } => label(&self.store, PENDING, Some(version), None, until).await,
            Action::Label { version, label } => {
                let from = facts.store.labelled(label).map(|version| version.id.clone());
                self::label(&self.store, label, from.as_ref(), Some(version), until).await
            }
            Action::Unlabel { version, label } => self::label(&self.store, label, Some(version), None, until).await,
            Action::Promote { from, version, .. } => promote(&self.store, from.as_ref(), version, until).await,
            Action::PromoteAt { place, from, version, .. } => match self.further(place, seen) {
                Some((at, _)) => promote(&at.store, from.as_ref(), version, until).await,
                None => Called::failed(gone(&place.to_string())),
            },
            Action::CopyTo { .. } => self.copy(action, seen, facts.record.fence, until).await,
            Action::RecordPublished { .. } | Action::Intend { .. } | Action::RecordProvedDead { .. } => {
                Called::done(Outcome::Done)
            }
        }
    }

    /// What is put again of this version: as it is; or, of AWSPENDING, its login within what is AWSCURRENT now.
    fn text_of(&self, version: &VersionId, seen: &Seen) -> Option<Result<Secret, Fault>> {
        let text = seen.values.get(version)?;
        let is_pending = seen.store.version(version).is_some_and(|version| version.carries(PENDING));
        Some(match seen.current().filter(|_| is_pending) {
            Some(current) => {
                payload::copied(self.form, Some(current.expose()), text, self.smtp.ses_region().as_deref())
            }
            None => Ok(text.clone()),
        })
    }

    /// A further place, and what was seen there.
    fn further<'a>(&'a self, place: &KeyPlace, seen: &'a Seen) -> Option<(&'a FurtherAt, &'a Seen)> {
        let at = self.also.iter().find(|at| at.place == *place)?;
        seen.further.iter().find(|(seen, _)| seen == place).map(|(_, seen)| (at, seen))
    }

    /// What this version of the first place holds, in a further one, in the form that this has. Each time under a token of its own:
    /// one that is known moves no label.
    async fn copy(&self, what: &Action, seen: &Seen, fence: u64, until: &Until) -> Called {
        let Action::CopyTo { place, from, key, publishes } = what else {
            return Called::failed(gone("a copy"));
        };
        let Some(((at, there), text)) = self.further(place, seen).zip(seen.values.get(from)) else {
            return Called::failed(gone(&format!("{place}, or version {from}")));
        };
        let before = there.current();
        let region = payload::region_of(at.region.as_deref(), self.smtp.endpoints().map(|smtp| smtp.ses_region()));
        let text = match payload::copied(at.form, before.map(|text| text.expose()), text, region.as_deref()) {
            Ok(text) => text,
            Err(fault) => return Called::failed(fault),
        };
        let token = at.store.fresh_token(there, key, fence, self.hooks.now());
        let put = match &at.store {
            StoreAt::Secret(secret) => {
                let label = if *publishes { CURRENT } else { PENDING };
                secret.put(&token.expect("a secret takes one"), &text, label, until).await
            }
            StoreAt::Parameter(parameter) => {
                return Called::of_a_put(parameter.put(&text, current(there), until).await);
            }
        };
        Called::of(put, |version| if *publishes { Outcome::Published(version) } else { Outcome::Done })
    }

    /// The new key, from memory, in the form of what is published now.
    async fn put(
        &mut self,
        key: &KeyId,
        publishes: bool,
        token: Option<VersionId>,
        seen: &Seen,
        until: &Until,
    ) -> Called {
        let text = match self.composed(key, seen) {
            Ok(text) => text,
            Err(fault) => return Called::failed(fault),
        };
        let put = match &self.store {
            StoreAt::Secret(secret) => {
                let label = if publishes { CURRENT } else { PENDING };
                secret.put(&token.expect("a secret takes one"), &text, label, until).await
            }
            StoreAt::Parameter(at) => {
                let called = Called::of_a_put(at.put(&text, current(seen), until).await);
                if matches!(called.outcome, Outcome::Published(_)) {
                    self.unstored = None;
                }
                return called;
            }
        };
        // A version of this token is there with another value: what was published changed in between. It is verified by its login.
        let put = match put {
            Err(failed) if failed.kind == FailKind::Conflict && !publishes => {
                self.unstored = None;
                return Called::done(Outcome::Done);
            }
            put => put,
        };
        let called = Called::of(put, |version| if publishes { Outcome::Published(version) } else { Outcome::Done });
        if !matches!(called.outcome, Outcome::Failed | Outcome::Unknown) {
            self.unstored = None;
        }
        called
    }

    fn composed(&self, key: &KeyId, seen: &Seen) -> Result<Secret, Fault> {
        let new = self.unstored.as_ref().filter(|new| new.id == *key).ok_or_else(|| gone(&format!("the key {key}")))?;
        let current = seen.current();
        let region = self.smtp.ses_region();
        payload::compose(self.form, current.map(|text| text.expose()), key, Held::Key(&new.secret), region.as_deref())
    }

    /// With what hosts would make of it: of the newest version that has it, or from memory.
    async fn log_in(&mut self, key: &KeyId, facts: &Facts, seen: &Seen) -> Called {
        let stored = facts.store.with_key(key).and_then(|version| seen.payload(&version.id));
        let payload = match stored {
            Some(payload) => Ok(payload),
            None => self
                .composed(key, seen)
                .and_then(|text| payload::parse(&text).ok_or_else(|| gone(&format!("a login of {key}")))),
        };
        let payload = match payload {
            Ok(payload) => payload,
            // Nothing was sent, so that it is no use of the key.
            Err(fault) => {
                let outcome = Outcome::LoggedIn { accepted: false, used: Some(false) };
                return Called { outcome, ..Called::failed(fault) };
            }
        };
        let hello = relaykey::agent::host_name();
        let replies = logins::log_in(&self.smtp, key, &payload, &hello, &self.hooks).await;
        let said_each: Vec<LoginReply> = replies.logins.iter().map(|login| login.reply).collect();
        self.logins.extend(replies.logins);
        let over = self.logins.len().saturating_sub(LOGINS);
        self.logins.drain(..over);
        // Of several without an answer the first is told; the audit log has all.
        let fault = replies.faults.into_iter().next();
        Called { outcome: Outcome::logged_in(&said_each), said: replies.said.join("; "), fault }
    }
}

/// The version that hosts find there.
fn current(seen: &Seen) -> Option<&VersionId> {
    seen.store.labelled(CURRENT).map(|version| &version.id)
}

/// Moves a label in this place.
async fn label(
    store: &StoreAt,
    label: &str,
    from: Option<&VersionId>,
    to: Option<&VersionId>,
    until: &Until,
) -> Called {
    match store {
        StoreAt::Secret(secret) => Called::of(secret.label(label, from, to, until).await, |()| Outcome::Done),
        StoreAt::Parameter(_) => Called::failed(Fault::new(
            Class::Unsupported,
            "Parameter Store has no labels that could be moved so",
            "do without `canary`, or publish in Secrets Manager",
        )),
    }
}

/// Makes a version AWSCURRENT where that still is what it was.
async fn promote(store: &StoreAt, from: Option<&VersionId>, version: &VersionId, until: &Until) -> Called {
    let promoted = label(store, CURRENT, from, Some(version), until).await;
    if promoted.outcome == Outcome::Done {
        // AWSPENDING has done its work. Where it stays, it is known as over.
        let _ = label(store, PENDING, Some(version), None, until).await;
    }
    promoted
}

/// Is anything called, so that it has to be told beforehand?
fn calls(action: &Action) -> bool {
    !matches!(
        action,
        Action::RecordPublished { .. }
            | Action::Intend { .. }
            | Action::RecordProvedDead { .. }
            | Action::Forget { .. }
    )
}

/// Why something that was decided was not done.
fn grown_old() -> Fault {
    let what = "what was decided is older than a minute, or the lease is nearly over: it was dropped";
    Fault::new(Class::ChangedMeanwhile, what, "nothing: everything is looked at anew").temporary()
}

fn written_in_between() -> Fault {
    let what = "somebody wrote the control record in between: what was decided, or came of it, is not in it";
    Fault::new(Class::ChangedMeanwhile, what, "nothing: everything is looked at anew").temporary()
}

fn gone(what: &str) -> Fault {
    Fault::new(Class::State, format!("{what} is not there any more"), "nothing: everything is looked at anew")
        .temporary()
}
