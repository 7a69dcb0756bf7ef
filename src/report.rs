//! Reports: what was done on this host, told to places outside of it, at least once, in the order of `seq`, for as long
//! as it takes.
//!
//! ```text
//! commit ──> owe ──> one rename makes durable what was done and what is owed to whom
//!                          │
//!      ┌───────────────────┴──────────────────────────────┐
//!      v                                                  │
//! Deliveries::begin ──> Receiver::deliver ──> absorb ──> save the state
//!  (what is due)         (30 s, mostly)      (it arrived: no longer owed; it did not: later again)
//! ```
//!
//! The outboxes are part of the credential's [`State`](crate::rollover::State) and change only in pure functions:
//! [`reconcile`] with the configuration, [`owe`], [`hasten`], [`absorb`]. One [`Outbox`] belongs to one receiver, and
//! no receiver waits for another. What a receiver does is a [`Receiver`], one file per kind. [`Deliveries`] joins the
//! two: at most one attempt per receiver is under way, so nothing overtakes, and no rollover waits for any.
//!
//! A crash between an arrival and the save that follows delivers the same report again. Its `seq` and `id` tell it from
//! a new one, and every kind takes it without harm.
//!
//! No report is given up, however many are owed; but of signs of life in a row only the last is. A place that holds one
//! document per host costs one report in the state file; for one that gets all of them the state file grows by a report,
//! one to two kilobytes, per rollover missed.

pub mod dynamodb;
pub mod email;
pub mod exec;
pub mod parameter_store;
pub mod webhook;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};
use tokio::task::JoinSet;

use crate::aws::Http;
use crate::config::{self, Keeps, MailVia, ReceiverKind};
use crate::fault::{Class, Failure, Fault};
use crate::rollover::{self, Outbox, Report, ReportOutcome, Retry};
use crate::text::words;

pub use self::parameter_store::room_for_lists;

/// An attempt that takes longer is given up, and counts as failed. A receiver may say otherwise ([`Receiver::limit`]).
pub const ATTEMPT: Duration = Duration::from_secs(30);

// ---------------------------------------------------------------- what is owed: pure

/// Does a kind of receiver get this report? A sign of life every day is for programs: people would soon read none of the
/// messages. That a host is there is for places that say which hosts there are.
fn wants(kind: &ReceiverKind, report: &Report) -> bool {
    match report.outcome {
        ReportOutcome::Hello => kind.keeps() == Keeps::Latest,
        _ => !(kind.is_for_people() && is_alive(report)),
    }
}

/// Is this credential reported to a place that says which hosts there are?
pub fn keeps_a_roster(receivers: &[config::ReceiverConfig], credential: &str) -> bool {
    receivers.iter().any(|r| r.takes(credential) && r.kind.keeps() == Keeps::Latest)
}

/// Is it a sign of life and nothing else? One may tell of a key that has become old.
fn is_alive(report: &Report) -> bool {
    report.outcome == ReportOutcome::Alive && report.error.is_none()
}

/// Over how long the first attempts of a fleet are spread, so that hosts that rolled over together do not report
/// together, where the configuration does not say. The poll has spread them already; this parts those that a push or an operator
/// woke at the same moment.
fn spread(kind: &ReceiverKind) -> SignedDuration {
    match kind {
        // PutParameter allows about three calls a second to the whole account: 90 hosts in this time.
        ReceiverKind::ParameterStore { .. } => SignedDuration::from_secs(30),
        // These take hundreds a second; a relay of one's own, or a receiver that somebody wrote, may not.
        ReceiverKind::DynamoDb { .. } | ReceiverKind::Webhook { .. } => SignedDuration::from_secs(10),
        ReceiverKind::Email { via: MailVia::Ses(_), .. } => SignedDuration::from_secs(10),
        // On this machine.
        ReceiverKind::Email { .. } | ReceiverKind::Exec { .. } => SignedDuration::ZERO,
    }
}

impl Outbox {
    /// Adds a report. One whose `seq` is not larger than that of the last one is known already, and changes nothing.
    ///
    /// What the receiver has failed at before still counts, but a new report is not held up by it for longer than until
    /// `first`.
    fn owe(&mut self, report: &Report, keeps: Keeps, first: Timestamp) {
        let last = self.owed.last().map_or(0, |r| r.seq).max(self.delivered);
        if report.seq <= last {
            return;
        }
        self.retry.next = match (self.owed.is_empty(), self.retry.next) {
            (false, None) => None,
            (false, Some(next)) => Some(next.min(first)),
            (true, _) => Some(first),
        };
        if keeps == Keeps::Latest {
            self.owed.clear();
        } else if is_alive(report) && self.owed.last().is_some_and(is_alive) {
            // That this host was alive the day before tells nobody anything, now that it is alive today.
            self.owed.pop();
        }
        self.owed.push(report.clone());
    }

    /// When the first of the reports is to be tried; `None`: nothing is owed.
    pub fn due(&self) -> Option<Timestamp> {
        let now_or_later = self.retry.next.unwrap_or(Timestamp::UNIX_EPOCH);
        (!self.owed.is_empty()).then_some(now_or_later)
    }

    /// The report to deliver now. The next one only when this one has arrived.
    pub fn next(&self, now: Timestamp) -> Option<&Report> {
        self.owed.first().filter(|_| self.due().is_some_and(|due| due <= now))
    }

    /// The report with this `seq` has arrived.
    ///
    /// An answer that comes late, for a report that a newer one has replaced, leaves the newer one owed.
    fn delivered(&mut self, seq: u64) {
        match self.owed.first() {
            Some(first) if first.seq == seq => {
                self.owed.remove(0);
                self.retry = Retry::default();
            }
            // Never sent, so no answer to anything: what is owed stays owed.
            Some(first) if first.seq < seq => return,
            Some(_) | None => {}
        }
        self.delivered = self.delivered.max(seq);
    }

    /// The report with this `seq` did not arrive: when it is tried again. `jitter` is a random number in [0, 1).
    ///
    /// An answer that comes late, for a report that is no longer the first one, changes nothing.
    fn failed(&mut self, seq: u64, failure: Failure, now: Timestamp, jitter: f64) {
        if self.owed.first().is_none_or(|first| first.seq != seq) {
            return;
        }
        let attempts = self.retry.attempts.saturating_add(1);
        let wait = rollover::backoff(failure.temporary, attempts, jitter);
        self.retry = Retry { attempts, next: now.checked_add(wait).ok(), failure: Some(failure) };
    }
}

/// Owes a report to every receiver that takes reports of its credential. Part of the commit: the rename that makes
/// durable what was done makes this durable with it.
///
/// `jitter` is a random number in [0, 1), by which first attempts are spread; 0 makes them due at `now`.
pub fn owe(
    outboxes: &mut BTreeMap<String, Outbox>,
    receivers: &[config::ReceiverConfig],
    report: &Report,
    now: Timestamp,
    jitter: f64,
) {
    let takes = |r: &&config::ReceiverConfig| r.takes(&report.credential) && wants(&r.kind, report);
    for receiver in receivers.iter().filter(takes) {
        let outbox = outboxes.entry(receiver.name.clone()).or_default();
        // That it is there a host says before anything else: it is not to be spread until after that.
        let first = match report.outcome {
            ReportOutcome::Hello => now,
            _ => first_attempt(receiver, now, jitter),
        };
        outbox.owe(report, receiver.kind.keeps(), first);
    }
}

/// Brings the outboxes of one credential in line with the configuration: at start, and when it has changed. Save the
/// state afterwards.
///
/// The outbox of a receiver that is no longer configured goes, and what it held is given back, to be said. A receiver
/// that is new is owed the latest report, where there is one: it does not know of this host, and the next rollover may
/// be months away. (One that kept its name and moved elsewhere is no new one: give it another name.)
pub fn reconcile(
    outboxes: &mut BTreeMap<String, Outbox>,
    receivers: &[config::ReceiverConfig],
    credential: &str,
    latest: Option<&Report>,
    now: Timestamp,
    jitter: f64,
) -> Vec<Dropped> {
    let takers: BTreeMap<&str, &config::ReceiverConfig> =
        receivers.iter().filter(|r| r.takes(credential)).map(|r| (r.name.as_str(), r)).collect();
    let mut dropped = Vec::new();
    outboxes.retain(|name, outbox| {
        let stays = takers.contains_key(name.as_str());
        if !stays {
            dropped.push(Dropped { receiver: name.clone(), owed: outbox.owed.len() });
        }
        stays
    });
    for (name, receiver) in takers {
        match outboxes.get_mut(name) {
            // It may have been of a kind that gets all of them.
            Some(outbox) if receiver.kind.keeps() == Keeps::Latest => {
                outbox.owed.drain(..outbox.owed.len().saturating_sub(1));
            }
            Some(_) => {}
            None => {
                let mut outbox = Outbox::default();
                if let Some(latest) = latest.filter(|latest| wants(&receiver.kind, latest)) {
                    let first = first_attempt(receiver, now, jitter);
                    outbox.owe(latest, receiver.kind.keeps(), first);
                }
                outboxes.insert(name.to_owned(), outbox);
            }
        }
    }
    dropped
}

/// A receiver that is no longer configured. `Display` is what people read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dropped {
    /// Its name.
    pub receiver: String,
    /// How many reports were owed to it, and are not any more.
    pub owed: usize,
}

impl fmt::Display for Dropped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { receiver, owed } = self;
        write!(f, "the receiver {receiver:?} is no longer configured for this credential")?;
        match owed {
            0 => f.write_str("; nothing was owed to it"),
            1 => f.write_str("; the report that was owed to it is dropped"),
            n => write!(f, "; the {n} reports that were owed to it are dropped"),
        }
    }
}

/// A person asked: what is owed is tried at once. What was counted stays counted.
pub fn hasten(outboxes: &mut BTreeMap<String, Outbox>) {
    for outbox in outboxes.values_mut() {
        outbox.retry.next = None;
    }
}

/// Takes what became of an attempt in. Save the state afterwards, and only then begin the next attempt: so no report
/// that a crash made owed again comes after a later one. False: it changed nothing.
///
/// `jitter` is a random number in [0, 1).
pub fn absorb(outboxes: &mut BTreeMap<String, Outbox>, attempt: &Attempt, now: Timestamp, jitter: f64) -> bool {
    // A receiver may have gone from the configuration meanwhile.
    let Some(outbox) = outboxes.get_mut(&attempt.receiver) else { return false };
    let before = outbox.clone();
    match &attempt.outcome {
        Ok(()) => outbox.delivered(attempt.seq),
        Err(e) => outbox.failed(attempt.seq, e.clone().at(now), now, jitter),
    }
    *outbox != before
}

fn first_attempt(receiver: &config::ReceiverConfig, now: Timestamp, jitter: f64) -> Timestamp {
    let configured = receiver.spread.and_then(|spread| SignedDuration::try_from(spread).ok());
    let wait = configured.unwrap_or_else(|| spread(&receiver.kind)).mul_f64(jitter.clamp(0.0, 1.0));
    now.checked_add(wait).unwrap_or(now)
}

// ---------------------------------------------------------------- receivers

/// What [`Receiver::deliver`] gives: boxed, so that receivers of several kinds stand in one list.
pub type Delivering<'a> = Pin<Box<dyn Future<Output = Result<(), Fault>> + Send + 'a>>;

/// One place that reports go to.
pub trait Receiver: Send + Sync {
    /// Brings one report there. `Ok` means that it is there, durably: it is not sent again. Bringing the same report
    /// twice does no harm, and a later one that is there already is never replaced by an earlier one.
    ///
    /// May be dropped at any await. Back-off is the caller's.
    fn deliver<'a>(&'a self, report: &'a Report) -> Delivering<'a>;

    /// Would a report arrive? Looks as closely as it can without leaving anything there, and says what it saw.
    fn check<'a>(&'a self, whose: &'a Whose) -> Checking<'a>;

    /// What it is, in words for status and errors: `Parameter Store /relaykey in eu-west-1`.
    fn describe(&self) -> String;

    /// An attempt that takes longer is given up from outside. A receiver that has a limit of its own ends before.
    fn limit(&self) -> Duration {
        ATTEMPT
    }
}

/// What somebody else said, as part of an error: what cannot be printed, line ends too, is one blank, and of more than
/// `most` characters the first are shown.
fn printable(said: &[u8], most: usize) -> String {
    // Cut before it is looked at; a character has at most 4 bytes.
    let text = words(&String::from_utf8_lossy(&said[..said.len().min(most.saturating_mul(16))]));
    let mut shown: String = text.chars().take(most).collect();
    if shown.len() < text.len() {
        shown.pop();
        shown.push('…');
    }
    shown
}

/// As [`printable`], of which the last characters are shown: programs say at the end why they gave up.
fn printable_end(said: &[u8], most: usize) -> String {
    let text = words(&String::from_utf8_lossy(&said[said.len().saturating_sub(most.saturating_mul(16))..]));
    let count = text.chars().count();
    if count <= most {
        return text;
    }
    let end: String = text.chars().skip(count - most + 1).collect();
    format!("…{end}")
}

/// Whose reports a check is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Whose {
    pub credential: String,
    pub host: String,
    pub host_id: String,
    /// The id is not kept: the first run makes another one.
    pub is_passing: bool,
}

/// What [`Receiver::check`] gives: what was seen, in words; or why a report would not arrive.
pub type Checking<'a> = Pin<Box<dyn Future<Output = Result<String, Fault>> + Send + 'a>>;

/// Opens a receiver. Reaches nothing yet: what is wrong there is told by [`Receiver::deliver`].
pub fn open(receiver: &config::ReceiverConfig, http: &Http) -> Result<Box<dyn Receiver>, Fault> {
    Ok(match &receiver.kind {
        ReceiverKind::ParameterStore { path, aws } => {
            Box::new(parameter_store::ParameterReceiver::new(path, aws, http)?)
        }
        ReceiverKind::DynamoDb { table, keys, aws } => Box::new(dynamodb::DynamoDb::new(table, keys, aws, http)?),
        ReceiverKind::Webhook { url, secret_file, ca_file } => {
            Box::new(webhook::Webhook::new(url, secret_file, ca_file.as_deref())?)
        }
        ReceiverKind::Email { from, to, via } => Box::new(email::Email::new(from, to, via, http)?),
        ReceiverKind::Exec { command, user, timeout } => Box::new(exec::Exec::new(command, user, *timeout)),
    })
}

/// All receivers of a configuration, opened. Shared by the credentials that report to them.
pub struct Receivers {
    all: BTreeMap<String, Result<Box<dyn Receiver>, Fault>>,
    /// For all of them, in place of their own.
    limit: Option<Duration>,
}

impl Receivers {
    /// One that cannot be opened stays among them, and fails every attempt with its reason.
    pub fn open(receivers: &[config::ReceiverConfig], http: &Http) -> Self {
        let all = receivers.iter().map(|r| (r.name.clone(), open(r, http))).collect();
        Self { all, limit: None }
    }

    /// With another limit than their own.
    pub fn with_limit(mut self, limit: Duration) -> Self {
        self.limit = Some(limit);
        self
    }

    /// [`Receiver::check`], bounded as an attempt is. `None`: there is no such receiver.
    pub async fn check(&self, receiver: &str, whose: &Whose) -> Option<Result<String, Fault>> {
        let receiver = match self.all.get(receiver)? {
            Ok(receiver) => receiver,
            Err(e) => return Some(Err(e.clone())),
        };
        let limit = self.limit.unwrap_or_else(|| receiver.limit());
        let checked = tokio::time::timeout(limit, receiver.check(whose)).await;
        Some(checked.unwrap_or_else(|_| {
            Err(Fault::new(
                Class::Timeout,
                format!("{} did not answer within {limit:?}", receiver.describe()),
                "check that this host reaches it: route, firewall, proxy",
            )
            .temporary())
        }))
    }

    /// One attempt, bounded. `None`: there is no such receiver.
    async fn deliver(&self, receiver: &str, report: &Report) -> Option<Result<(), Fault>> {
        let receiver = match self.all.get(receiver)? {
            Ok(receiver) => receiver,
            Err(e) => return Some(Err(e.clone())),
        };
        let limit = self.limit.unwrap_or_else(|| receiver.limit());
        let outcome = match tokio::time::timeout(limit, receiver.deliver(report)).await {
            Ok(outcome) => outcome,
            Err(_) => Err(Fault::new(
                Class::Timeout,
                format!("{} did not take the report within {limit:?}", receiver.describe()),
                "check that this host reaches it: route, firewall, proxy; it is tried again",
            )
            .temporary()),
        };
        Some(outcome)
    }
}

// ---------------------------------------------------------------- delivery

/// What became of one attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempt {
    /// Name of the receiver.
    pub receiver: String,
    /// Of the report.
    pub seq: u64,
    /// It is there, or why not.
    pub outcome: Result<(), Fault>,
    /// How long that took.
    pub took: Duration,
}

/// The attempts under way for one credential, at most one per receiver. They run beside the task that owns the state,
/// on the same run time; dropping this drops them, and what they were about stays owed.
///
/// The task that owns the state does, in a loop: [`begin`](Self::begin), then whichever comes first of its other work,
/// the time [`due`](Self::due), and [`next`](Self::next), after which it calls [`absorb`] and saves.
pub struct Deliveries {
    receivers: Arc<Receivers>,
    under_way: JoinSet<Attempt>,
    busy: BTreeSet<String>,
}

impl Deliveries {
    /// None under way yet.
    pub fn new(receivers: Arc<Receivers>) -> Self {
        Self { receivers, under_way: JoinSet::new(), busy: BTreeSet::new() }
    }

    /// Begins an attempt at every report that is due at a receiver with none under way. Call it with saved state only:
    /// what is not durable is not told to anybody.
    pub fn begin(&mut self, outboxes: &BTreeMap<String, Outbox>, now: Timestamp) {
        for (name, outbox) in outboxes {
            let Some(report) = outbox.next(now).filter(|_| self.is_free(name)) else { continue };
            self.busy.insert(name.clone());
            let (receivers, name, report) = (Arc::clone(&self.receivers), name.clone(), report.clone());
            self.under_way.spawn(async move {
                let began = Instant::now();
                // Only receivers that there are were free.
                let outcome = receivers.deliver(&name, &report).await.unwrap_or(Ok(()));
                Attempt { receiver: name, seq: report.seq, outcome, took: began.elapsed() }
            });
        }
    }

    /// Waits for the next attempt to end; for ever while none is under way. Cancel-safe.
    pub async fn next(&mut self) -> Attempt {
        loop {
            match self.under_way.join_next().await {
                Some(Ok(attempt)) => {
                    self.busy.remove(&attempt.receiver);
                    return attempt;
                }
                // A bug there is a bug here: not to be taken for a receiver that is down.
                Some(Err(e)) => {
                    if let Ok(panic) = e.try_into_panic() {
                        std::panic::resume_unwind(panic);
                    }
                }
                None => std::future::pending().await,
            }
        }
    }

    /// Is any attempt under way?
    pub fn is_busy(&self) -> bool {
        !self.busy.is_empty()
    }

    /// When [`begin`](Self::begin) will next have something to do; `None`: not before something else changes.
    pub fn due(&self, outboxes: &BTreeMap<String, Outbox>) -> Option<Timestamp> {
        outboxes.iter().filter(|(name, _)| self.is_free(name)).filter_map(|(_, outbox)| outbox.due()).min()
    }

    fn is_free(&self, name: &str) -> bool {
        !self.busy.contains(name) && self.receivers.all.contains_key(name)
    }
}

/// One round for a program that does nothing else meanwhile: tries the first due report at every receiver, all at the
/// same time, and takes in what becomes of it. Save the state afterwards, and call it again for as long as any arrived.
/// Ends within the longest [`Receiver::limit`]; dropped earlier, it has taken in what was known until then.
pub async fn deliver_due(
    outboxes: &mut BTreeMap<String, Outbox>,
    receivers: &Arc<Receivers>,
    now: Timestamp,
    jitter: f64,
) -> Vec<Attempt> {
    let mut deliveries = Deliveries::new(Arc::clone(receivers));
    deliveries.begin(outboxes, now);
    let mut attempts = Vec::new();
    while deliveries.is_busy() {
        let attempt = deliveries.next().await;
        absorb(outboxes, &attempt, now, jitter);
        attempts.push(attempt);
    }
    attempts
}

#[cfg(test)]
mod tests;
