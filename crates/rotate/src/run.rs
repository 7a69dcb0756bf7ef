//! One credential, one loop: look at everything, decide, do one thing, write down what came of it, look anew. The command line,
//! a timer, a Lambda function and a hook are ways to call it; none has a path of its own.
//!
//! ```text
//!   take the lease ─> look ─> plan ─> written before the call ─> the call ─> written after it
//!        │              │                (fence, audit)     decided < 60 s ago,     (fence, audit)
//!        └ Busy         └ gaps                              lease > 60 s: or dropped
//! ```

mod asked;
mod check;
mod doing;
mod look;

use std::time::Duration;

use jiff::Timestamp;
use relaykey::aws::Http;
use relaykey::config::Smtp;
use relaykey::tls::Roots;
use relaykey_core::credential::Secret;
use relaykey_core::fault::{Class, Fault};

pub use self::asked::{Answer, Ask};
pub use self::check::{Checked, PublishedLogin, Right};
use crate::audit::{self, AuditEntry, Head};
pub use crate::audit::{AuditEvent, AuditLine, Broken};
use crate::aws::keys::Keys;
use crate::aws::parameters::ParameterAt;
use crate::aws::secret::SecretAt;
use crate::aws::store::{Seen, StoreAt};
use crate::aws::{AwsCall, CallFailed, FailKind, Reach, Until, incomplete, logins};
pub use crate::aws::{Choke, Hooks, Moment};
use crate::config::{self, Config, Credential, EvidenceConfig, Form};
use crate::facts::{Facts, KeyId, KeyPlace, Login};
use crate::hosts::parameter_store::Parameters;
use crate::hosts::table::ReportsTable;
use crate::hosts::{EntryWrite, Kept, ReportsPlace};
use crate::plan::{Action, Decision, Outcome};
use crate::policy::{DECISION_HOLDS, Policy};
use crate::record::{ControlRecord, Lease, Others, TakenOver, WhyTakenOver};

/// Who we are to AWS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    pub arn: String,
    pub account: String,
    pub user_id: String,
}

/// One look at the world, and what is to be done about it.
#[derive(Debug, Clone)]
pub struct Look {
    pub facts: Facts,
    pub decision: Decision,
    /// What could not be looked at or done, in AWS's own words.
    pub faults: Vec<Fault>,
    /// Who is at work, if that is somebody else.
    pub busy: Option<Lease>,
    pub now: Timestamp,
}

/// What one turn came to.
#[derive(Debug, Clone)]
pub enum Tick {
    /// Somebody else holds the lease.
    Busy(Lease),
    Turned(Box<Turned>),
}

/// A look, and what was done: one action; with logins before it that change nothing, and a key that was made with its first try to
/// be stored.
#[derive(Debug, Clone)]
pub struct Turned {
    pub look: Look,
    /// In this order. Empty: nothing was to be done, or the decision had grown too old and was dropped.
    pub done: Vec<(Action, Outcome)>,
    /// This process holds a new key that no version has yet: whoever ends now loses it.
    pub holds_key: bool,
    /// What came of it is in the record. Else it was in vain, as far as the next look can tell; a fault of the look says why.
    pub wrote: bool,
}

/// A new key that no version has yet.
struct NewKey {
    id: KeyId,
    secret: Secret,
}

/// A further place with the same key.
struct FurtherAt {
    place: KeyPlace,
    store: StoreAt,
    form: Form,
    /// Of its place in AWS.
    region: Option<String>,
}

/// One credential, as this process looks after it.
pub struct Controller {
    credential: String,
    /// The holder of the lease: this process.
    me: String,
    policy: Policy,
    smtp: Smtp,
    form: Form,
    /// Where the same key is published too.
    also: Vec<FurtherAt>,
    hooks: Hooks,
    sts: Reach,
    keys: Keys,
    /// Where the key is published first.
    first: KeyPlace,
    store: StoreAt,
    place: ReportsPlace,
    caller: Option<Caller>,
    unstored: Option<NewKey>,
    /// What our own logins gave lately.
    logins: Vec<Login>,
    /// Since when the lease is held, by the clock that goes on in sleep.
    lease_taken: Option<Duration>,
    /// What was found when it was taken: the next look tells it.
    told: Option<Fault>,
}

/// So many replies are remembered.
const LOGINS: usize = 40;

impl Controller {
    /// Clients; nothing is asked yet.
    pub async fn new(config: &Config, credential: &Credential) -> Result<Self, Fault> {
        Self::with_hooks(config, credential, Hooks::default()).await
    }

    /// The same, with other clocks, or somebody who watches its calls.
    pub async fn with_hooks(config: &Config, credential: &Credential, hooks: Hooks) -> Result<Self, Fault> {
        let Some((publish, also)) = credential.publish.split_first() else {
            let what = format!("credential {:?} is published nowhere", credential.name);
            return Err(Fault::new(Class::Configuration, what, "add [[credential.publish]]"));
        };
        let http = match &hooks.http {
            Some(http) => http.clone(),
            None => {
                let roots = Roots::system().map_err(|e| Fault::new(Class::Trust, e.to_string(), e.fix()))?;
                Http::new(&roots.pem())
            }
        };
        let reach = |aws: &relaykey_core::config::Aws| Reach::new(aws, &http, &hooks);
        let store_at = |publish: &config::Publish| -> Result<StoreAt, Fault> {
            let reach = reach(&publish.aws)?;
            Ok(match &publish.place {
                config::PublishPlace::SecretsManager { secret } => StoreAt::Secret(SecretAt::new(reach, secret)),
                config::PublishPlace::ParameterStore { parameter } => {
                    StoreAt::Parameter(ParameterAt::new(reach, parameter))
                }
            })
        };
        let store = store_at(publish)?;
        let also = also.iter().map(|publish| {
            let region = publish.aws.region.clone();
            Ok(FurtherAt { place: publish.at(), store: store_at(publish)?, form: publish.form, region })
        });
        let also = also.collect::<Result<Vec<_>, Fault>>()?;
        let place = match &credential.evidence {
            EvidenceConfig::DynamoDb { table, aws, .. } => {
                ReportsPlace::Table(ReportsTable::new(reach(aws)?, table, &credential.name))
            }
            EvidenceConfig::ParameterStore { path, aws } => {
                ReportsPlace::Parameters(Parameters::new(reach(aws)?, path, &credential.name))
            }
        };
        let policy = Policy { endpoints: logins::endpoints(&credential.smtp), ..credential.policy.clone() };
        Ok(Self {
            credential: credential.name.clone(),
            me: random_name(),
            policy,
            smtp: credential.smtp.clone(),
            form: publish.form,
            also,
            sts: reach(&config.aws)?,
            keys: Keys::new(reach(&config.aws)?, &credential.iam_user),
            first: publish.at(),
            store,
            place,
            hooks,
            caller: None,
            unstored: None,
            logins: Vec::new(),
            lease_taken: None,
            told: None,
        })
    }

    /// As STS GetCallerIdentity says; asked once.
    pub async fn caller(&mut self) -> Result<Caller, Fault> {
        if let Some(caller) = &self.caller {
            return Ok(caller.clone());
        }
        let asked = AwsCall { action: "sts:GetCallerIdentity", about: "this process".into(), arn: "*".into() };
        let send = |config| aws_sdk_sts::Client::new(&config).get_caller_identity().send();
        let said = self.sts.send(asked, send).await.map_err(|failed| *failed.fault)?;
        let (Some(arn), Some(account), Some(user_id)) = (said.arn, said.account, said.user_id) else {
            return Err(*incomplete("sts:GetCallerIdentity", "name").fault);
        };
        Ok(self.caller.insert(Caller { arn, account, user_id }).clone())
    }

    /// This process, as people find it: as STS names it, once that was asked, and where it runs.
    fn who(&self) -> Option<String> {
        let caller = self.caller.as_ref()?;
        Some(format!("{} (process {} on {})", caller.arn, std::process::id(), relaykey::agent::host_name()))
    }

    /// Everything looked at; nothing taken, written or logged in. It decides as if the lease were ours.
    pub async fn look(&mut self) -> Result<Look, Fault> {
        self.seen().await.map(|(look, _)| look)
    }

    /// The same, with the values of the store.
    async fn seen(&mut self) -> Result<(Look, Option<Seen>), Fault> {
        let now = self.hooks.now();
        let mut record = match self.place.record().await.map_err(|failed| *failed.fault)? {
            Some(kept) => kept.record,
            None => self.first(ControlRecord::new(&self.credential)).await?.record,
        };
        let other = record.lease.take().filter(|lease| lease.holder != self.me);
        let too_long = other.as_ref().filter(|lease| lease.is_too_long(&self.policy, now)).map(lease_too_long);
        let busy = other.filter(|lease| lease.is_held(&self.policy, now));
        record.lease = Some(Lease { holder: self.me.clone(), until: now + self.policy.lease, ..Lease::default() });
        let (mut look, seen) = self.looked(record, now, None).await;
        look.busy = busy;
        look.faults.extend(too_long);
        Ok((look, seen))
    }

    /// Takes or renews the lease, looks, does one action or none, and writes record and audit.
    pub async fn tick(&mut self) -> Result<Tick, Fault> {
        let mut kept = match self.take(false).await? {
            Ok(kept) => kept,
            Err(lease) => return Ok(Tick::Busy(lease)),
        };
        let mut done = Vec::new();
        loop {
            let before = done.len();
            let step = self.step(&mut kept, &mut done).await.map_err(|failed| *failed.fault)?;
            // A key that was made just now is stored at once, where that can be: it is in memory alone.
            let made = matches!(done.last(), Some((Action::Create, Outcome::Created(_)))) && done.len() > before;
            if !made || !step.wrote {
                let holds_key = self.unstored.is_some();
                return Ok(Tick::Turned(Box::new(Turned { look: step.look, done, holds_key, wrote: step.wrote })));
            }
        }
    }

    /// Gives the lease back, so that the next process need not wait for its end; not while a key is held that no version has.
    pub async fn leave(&mut self) -> Result<(), Fault> {
        let now = self.hooks.now();
        let Some(mut kept) = self.place.record().await.map_err(|failed| *failed.fault)? else {
            return Ok(());
        };
        let mut record = kept.record.clone();
        match &record.lease {
            // One that stands there with its end in the past is of somebody who was killed.
            Some(lease) if lease.holder == self.me && lease.until > now && self.unstored.is_none() => {
                record.lease = None;
            }
            _ => return Ok(()),
        }
        self.lease_taken = None;
        match self.write(&mut kept, record, None, None).await {
            Err(failed) if failed.kind != FailKind::Conflict => Err(*failed.fault),
            _ => Ok(()),
        }
    }

    /// The audit log, the first line first.
    pub async fn history(&mut self) -> Result<Vec<AuditLine>, Fault> {
        Ok(self.place.audit().await.map_err(|failed| *failed.fault)?.0)
    }

    /// The audit log, and what is wrong with its chain.
    pub async fn verify(&mut self) -> Result<(Vec<AuditLine>, Vec<Broken>), Fault> {
        let kept = self.place.record().await.map_err(|failed| *failed.fault)?;
        let (mut lines, whole) = self.place.audit().await.map_err(|failed| *failed.fault)?;
        let head = kept.map(|kept| kept.head).unwrap_or_default();
        if !whole {
            // Written just before a record that was not written any more.
            lines.retain(|line| line.seq <= head.seq);
        }
        let broken = audit::verify(&lines, &head, whole);
        Ok((lines, broken))
    }

    /// Takes or renews the lease, in the record as it stands there. `seizes`: also from somebody who is at work: what they have
    /// decided, and not begun, is dropped, for their fence is over.
    async fn take(&mut self, seizes: bool) -> Result<Result<Kept, Lease>, Fault> {
        for _ in 0..TRIES {
            let (now, boot) = (self.hooks.now(), self.hooks.boot());
            let mut kept = self.place.record().await.map_err(|failed| *failed.fault)?;
            let mut record = kept.as_ref().map_or_else(|| ControlRecord::new(&self.credential), |k| k.record.clone());
            if record.schema != ControlRecord::SCHEMA {
                return Err(Fault::new(
                    Class::Unsupported,
                    format!(
                        "the control record has schema {}, and this program knows {}",
                        record.schema,
                        ControlRecord::SCHEMA
                    ),
                    "use the version of relaykey-rotate that wrote it, or a later one",
                ));
            }
            let is_at_work = |lease: &Lease| lease.holder != self.me && lease.is_held(&self.policy, now);
            let seized = record.lease.take_if(|lease| seizes && is_at_work(lease));
            let seized = seized.map(|lease| TakenOver { lease, why: WhyTakenOver::Seized });
            let unstored = self.unstored.as_ref().map(|new| &new.id);
            let over = match record.take(&self.me, unstored, &self.policy, now) {
                Ok(over) => over.or(seized),
                Err(busy) => return Ok(Err(busy.0)),
            };
            if let Some(lease) = record.lease.as_mut().filter(|lease| lease.who.is_none()) {
                lease.who = self.who();
            }
            let entry = over.as_ref().map(taken_over);
            let written = match &mut kept {
                Some(kept) => self.write(kept, record, entry, None).await,
                None => {
                    let first = self.first(record).await?;
                    self.place.write(None, &first, None, None).await.map(|()| kept = Some(first))
                }
            };
            match written {
                Ok(()) => {
                    self.lease_taken = Some(boot);
                    let too_long = over.filter(|over| over.why == WhyTakenOver::TooLong);
                    self.told = too_long.map(|over| lease_too_long(&over.lease));
                    return Ok(Ok(kept.expect("it was written")));
                }
                // Somebody wrote in between: perhaps a person, perhaps the next holder.
                Err(failed) if failed.kind == FailKind::Conflict => {}
                Err(failed) => return Err(*failed.fault),
            }
        }
        Err(contended())
    }

    /// A record where there is none: the chain of the audit log goes on where it ended.
    async fn first(&self, mut record: ControlRecord) -> Result<Kept, Fault> {
        let (lines, _) = self.place.audit().await.map_err(|failed| *failed.fault)?;
        record.is_first = lines.is_empty();
        let head = lines.last().map(AuditLine::head).unwrap_or_default();
        Ok(Kept { rev: 1, head, record, others: Others::new() })
    }

    /// Writes the record, and a line of the audit log with it.
    async fn write(
        &self,
        kept: &mut Kept,
        record: ControlRecord,
        entry: Option<AuditEntry>,
        host: Option<&EntryWrite>,
    ) -> Result<(), CallFailed> {
        if kept.record == record && entry.is_none() && host.is_none() {
            return Ok(());
        }
        let by = self.caller.as_ref().map_or("not known", |caller| caller.arn.as_str());
        let attempt = async |log: &Head, before: &Kept| {
            let line = entry.clone().map(|entry| entry.after(log, by, &self.me, self.hooks.now()));
            let head = line.as_ref().map_or_else(|| log.clone(), AuditLine::head);
            let others = before.others.clone();
            let after = Kept { rev: before.rev + 1, head, record: record.clone(), others };
            self.place.write(Some(before), &after, line.as_ref(), host).await.map(|()| after)
        };
        let written = match attempt(&kept.head, kept).await {
            // The record was put back to an earlier one, and the log was not: its chain goes on where it ends.
            Err(failed) if failed.kind == FailKind::LogAhead => {
                let (lines, _) = self.place.audit().await?;
                let ahead = lines.last().map(AuditLine::head).filter(|last| last.seq > kept.head.seq);
                attempt(&ahead.ok_or(failed)?, kept).await
            }
            written => written,
        };
        *kept = written?;
        Ok(())
    }

    /// May what was decided then still be done? By the clock that goes on in sleep, too: a program that was frozen must not wake
    /// up and act.
    fn still_good(&self, record: &ControlRecord, decided: (Timestamp, Duration)) -> bool {
        let boot = self.hooks.boot();
        let age = boot.saturating_sub(decided.1);
        let held = self.lease_taken.map(|taken| boot.saturating_sub(taken));
        let (holds, lease) = (DECISION_HOLDS.unsigned_abs(), self.policy.lease.unsigned_abs());
        let margin = crate::policy::LEASE_MARGIN.unsigned_abs();
        age < holds
            && held.is_some_and(|held| held + margin < lease)
            && record.may_act(&self.me, record.fence, decided.0, self.hooks.now())
    }
}

impl Controller {
    /// The end of what may be done of a decision of then: a minute later, or a minute before the lease is over.
    fn until(&self, decided: (Timestamp, Duration)) -> Until {
        let lease = self.policy.lease.unsigned_abs().saturating_sub(crate::policy::LEASE_MARGIN.unsigned_abs());
        let leased = self.lease_taken.map_or(Duration::ZERO, |taken| taken + lease);
        Until::new(&self.hooks, leased.min(decided.1 + DECISION_HOLDS.unsigned_abs()))
    }
}

/// So often a write is tried again that somebody was faster with.
const TRIES: usize = 5;

fn contended() -> Fault {
    let what = "the control record is written by somebody else again and again";
    Fault::new(Class::ChangedMeanwhile, what, "nothing to do if it passes; else find out what writes it").temporary()
}

/// That somebody's lease is another's now, who did not give it back.
fn taken_over(over: &TakenOver) -> AuditEntry {
    let TakenOver { lease, why } = over;
    let who = lease.who.as_ref().unwrap_or(&lease.holder);
    let how = match why {
        WhyTakenOver::RanOut => "ran out",
        WhyTakenOver::TooLong => "is longer than any, with its end",
        WhyTakenOver::Seized => "was to end",
    };
    let more = format!("the lease of {who}, which {how} at {:.0}", lease.until);
    AuditEntry::new(AuditEvent::Done, "take-over").more(more)
}

/// A clock is wrong by years, or somebody wrote the record by hand.
fn lease_too_long(lease: &Lease) -> Fault {
    let who = lease.who.as_ref().unwrap_or(&lease.holder);
    let what = format!("the lease of {who} ends at {:.0}: none is so long, and it is taken over", lease.until);
    Fault::new(Class::State, what, "set the clock of that machine, or of this one: one of them is far wrong")
        .temporary()
}

/// Names this process: who it is is told by the audit log, by STS.
fn random_name() -> String {
    let mut bytes = [0_u8; 8];
    getrandom::fill(&mut bytes).expect("the system's random numbers");
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests;
