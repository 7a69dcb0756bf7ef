//! One look, as people see it and as programs read it. Facts in, text or a document out: nothing here asks anybody.

use std::fmt::Write as _;

use jiff::{SignedDuration, Timestamp};
use relaykey::fault::Fault;
use serde::Serialize;

use super::Exit;
use crate::config::Credential;
use crate::evidence::{Verdict, verdict};
use crate::facts::{Host, HostName, Key, KeyId, KeyStatus, LastUsed, PENDING, WhyUnseen};
use crate::plan::{Decision, Outcome, Phase};
use crate::policy::{DeleteOld, Policy};
use crate::record::Lease;
use crate::refusal::{Refusal, WaitsFor};
use crate::retire;
use crate::run::{AuditEvent, AuditLine, Look, Turned};

/// Of every document on standard output.
pub const SCHEMA: &str = "relaykey/rotate/v1";

/// Columns of a terminal that nobody made wider.
const WIDTH: usize = 80;

/// Whose move it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stand {
    /// Nothing is due.
    Done,
    /// There is something to do, and it can be done.
    Acts,
    /// A clock runs.
    Time,
    /// Hosts, or people who have a say about them.
    People,
    /// It does not go on by waiting.
    ForGood,
    /// Somebody else is at work, or AWS did not answer.
    ForNow,
}

impl Stand {
    pub fn of(look: &Look) -> Self {
        let decision = &look.decision;
        let unseen = |why: &[WhyUnseen]| look.facts.gaps.iter().any(|gap| why.contains(&gap.why));
        if unseen(&[WhyUnseen::AccessDenied, WhyUnseen::KmsDenied, WhyUnseen::UserMissing, WhyUnseen::SecretDeleting]) {
            return Stand::ForGood;
        }
        if look.busy.is_some() || unseen(&[WhyUnseen::Throttled]) {
            return Stand::ForNow;
        }
        if decision.action.is_some() {
            return Stand::Acts;
        }
        if let Some(fault) = look.faults.first() {
            return if fault.temporary { Stand::ForNow } else { Stand::ForGood };
        }
        let waits = |what| decision.refusals.iter().any(|refusal| refusal.waits_for() == what);
        match &decision.phase {
            Phase::Stuck(refusal) if !is_of_the_fleet(refusal) => Stand::ForGood,
            Phase::Stuck(_) => Stand::People,
            _ if waits(WaitsFor::Person) || waits(WaitsFor::Hosts) => Stand::People,
            Phase::Idle => Stand::Done,
            _ if is_complete(look, DeleteOld::Never) && !waits(WaitsFor::Time) => Stand::Done,
            _ => Stand::Time,
        }
    }

    /// Of a turn: what was decided and was not done speaks for itself.
    pub fn after(turned: &Turned) -> Self {
        match undone(turned) {
            Some(fault) if fault.temporary => Stand::ForNow,
            Some(_) => Stand::ForGood,
            None => Stand::of(&turned.look),
        }
    }

    /// Of a command that ends at once: what is waited for is no failure, unless it is people.
    pub fn exit(self) -> Exit {
        match self {
            Stand::Done | Stand::Acts | Stand::Time => Exit::Done,
            Stand::People => Exit::People,
            Stand::ForGood => Exit::ForGood,
            Stand::ForNow => Exit::ForNow,
        }
    }

    /// Of a check: whoever only waits, or whose work somebody else does, is in order.
    pub fn exit_of_a_check(self, busy: bool) -> Exit {
        match self {
            Stand::ForGood => Exit::ForGood,
            Stand::ForNow if !busy => Exit::ForNow,
            _ => Exit::Done,
        }
    }

    /// Of a rotation that is not complete when the time to wait for it is over.
    pub fn exit_at_the_end(self) -> Exit {
        match self {
            Stand::Acts | Stand::Time => Exit::ForNow,
            other => other.exit(),
        }
    }
}

/// Why what was decided was not done: its call failed, nobody knows what became of it, or it was dropped.
pub fn undone(turned: &Turned) -> Option<&Fault> {
    let last = turned.done.last();
    let failed = matches!(last, Some((_, Outcome::Failed | Outcome::Unknown)));
    let dropped = turned.look.decision.action.is_some() && turned.look.decision.action.as_ref() != last.map(|(a, _)| a);
    turned.look.faults.last().filter(|_| failed || dropped)
}

/// Is it about a host, or about which hosts there are?
fn is_of_the_fleet(refusal: &Refusal) -> bool {
    let fleet = matches!(refusal, Refusal::NoHosts | Refusal::RosterOpen { .. } | Refusal::OldKeyUsed { .. });
    fleet || refusal.host().is_some() && !matches!(refusal, Refusal::RegionRefused { .. } | Refusal::WouldCut { .. })
}

/// Is the last rotation over? The old key is gone, what is published is in use, and no host is cut off.
pub fn is_complete(look: &Look, delete: DeleteOld) -> bool {
    let (facts, record) = (&look.facts, &look.facts.record);
    let pending = facts.store.labelled(PENDING).is_some_and(|pending| !pending.carries(crate::facts::CURRENT));
    let begun = record.want.is_some() || facts.unstored.is_some() || pending || record.creating_now(look.now).is_some();
    let published = record.published.as_ref();
    let lives = published.is_some_and(|published| facts.status(&published.key) == Some(KeyStatus::Active));
    let lives = lives && retire::published_is_current(facts);
    let cut_off = !record.trouble.is_empty() || facts.fleet.iter().any(|host| host.took_back.is_some());
    lives && old_is_gone(look, delete) && !begun && !cut_off
}

/// Is nothing left to be done about an old key? It is deleted; or, where keys are not deleted, deactivated and proved dead.
pub fn old_is_gone(look: &Look, delete: DeleteOld) -> bool {
    let (facts, record) = (&look.facts, &look.facts.record);
    match &record.old {
        None => true,
        Some(old) => {
            let dead = record.proved_dead.as_ref().is_some_and(|dead| dead.key == *old);
            delete == DeleteOld::Never && dead && facts.status(old) == Some(KeyStatus::Inactive)
        }
    }
}

/// The last sentence of a rotation that is over: what was counted, and no more.
pub fn over(look: &Look) -> String {
    let published = look.facts.record.published.as_ref().map(|published| &published.key);
    let mut words = format!("done: {} is in use", published.map_or("the published key", KeyId::as_str));
    let mut others = look.facts.keys.iter().filter(|key| Some(&key.id) != published).peekable();
    if others.peek().is_none() && look.facts.gaps.is_empty() {
        words += ", and no other key is";
    }
    for key in others {
        let status = if key.status == KeyStatus::Active { "active" } else { "inactive" };
        words += &format!("; {} is there too, {status}", key.id);
    }
    words
}

/// One host, and what stands in its way.
pub struct HostView<'a> {
    pub host: &'a Host,
    pub verdict: Verdict,
    /// The key that it is to have.
    published: Option<&'a KeyId>,
    pub stops: Vec<Refusal>,
    pub waived: bool,
}

impl HostView<'_> {
    pub fn is_done(&self) -> bool {
        self.stops.is_empty()
    }

    /// It has the new key, and says so itself. Else a person vouches for it, where nothing stands in its way.
    pub fn is_confirmed(&self) -> bool {
        self.is_done() && matches!(self.verdict, Verdict::True { .. })
    }

    /// More than that it has not come to the new key yet.
    pub fn is_in_trouble(&self) -> bool {
        let waits = |stop: &Refusal| matches!(stop, Refusal::OtherVersion { .. } | Refusal::HostUnconfirmed { .. });
        self.host.says.is_some() || !self.stops.iter().all(waits)
    }

    /// The worse, the lower.
    fn rank(&self) -> u32 {
        let worst = |refusal: &Refusal| match refusal {
            Refusal::ProofFalse { .. } => 0,
            Refusal::Withdrawn { .. } => 1,
            Refusal::NameTwice { .. } | Refusal::IdentityShared { .. } => 2,
            Refusal::OldKeyElsewhere { .. } | Refusal::RemainingOld { .. } | Refusal::Incomplete { .. } => 3,
            Refusal::HostSilent { .. } => 4,
            Refusal::Clock { .. } | Refusal::AgentTooOld { .. } | Refusal::ProofMissing { .. } => 5,
            _ => 6,
        };
        let trouble = u32::from(self.host.says.is_none() && self.host.failed.is_none());
        self.stops.iter().map(|refusal| 2 * worst(refusal) + trouble).min().unwrap_or(u32::MAX)
    }

    /// What is wrong with it, in its agent's own words where it has any.
    pub fn words(&self) -> String {
        let mut words: Vec<String> = Vec::new();
        for stop in &self.stops {
            let said = match stop {
                // The host's name stands in front.
                Refusal::ProofFalse { .. } => "its proof was not made with the new key: forged, or a fault".into(),
                // Which version matters only where the key is the same.
                Refusal::OtherVersion { key, .. } if Some(key) != self.published => format!("still on {key}"),
                Refusal::HostUnconfirmed { .. } | Refusal::OtherVersion { .. } | Refusal::HostSilent { .. } => {
                    self.verdict.to_string()
                }
                other => other.words().trim_start_matches(self.host.name.as_str()).trim_start().to_owned(),
            };
            words.push(said);
        }
        if let Some(says) = &self.host.says {
            words.push(format!("it says: {says}"));
        }
        words.join("; ")
    }
}

/// Every host, the worst first.
pub fn hosts(look: &Look) -> Vec<HostView<'_>> {
    let record = &look.facts.record;
    let mut hosts: Vec<HostView> = look.facts.fleet.iter().map(|host| host_view(look, host)).collect();
    hosts.sort_by(|a, b| a.rank().cmp(&b.rank()).then_with(|| a.host.name.cmp(&b.host.name)));
    debug_assert!(hosts.len() == look.facts.fleet.len() || record.published.is_none());
    hosts
}

fn host_view<'a>(look: &'a Look, host: &'a Host) -> HostView<'a> {
    let record = &look.facts.record;
    let waived = host.waiver.as_ref().is_some_and(|waiver| waiver.until > look.now);
    match &record.published {
        Some(published) => {
            let old = record.old.as_ref();
            let stops = retire::stops_of(host, &published.version, &published.key, old, look.now);
            let verdict = verdict(host, &published.version, &published.key, look.now);
            HostView { host, verdict, published: Some(&published.key), stops, waived }
        }
        None => {
            let stops = vec![Refusal::HostUnconfirmed { host: host.name.clone() }];
            let verdict = match host.heard {
                Some(_) => Verdict::Unconfirmed,
                None => Verdict::NeverHeard,
            };
            HostView { host, verdict, published: None, stops, waived }
        }
    }
}

/// `confirmed n/m`, and how many others a person vouches for.
pub fn confirmed(hosts: &[HostView]) -> String {
    let confirmed = hosts.iter().filter(|host| host.is_confirmed()).count();
    let waived = hosts.iter().filter(|host| host.is_done() && !host.is_confirmed()).count();
    let waived = if waived > 0 { format!(", {waived} waived") } else { String::new() };
    format!("confirmed {confirmed}/{}{waived}", hosts.len())
}

/// `1 host`, `2 hosts`.
pub fn number(n: usize, what: &str) -> String {
    if n == 1 { format!("1 {what}") } else { format!("{n} {what}s") }
}

/// `1 host has reported`.
pub fn hosts_reported(n: usize) -> String {
    if n == 1 { "1 host has reported".into() } else { format!("{n} hosts have reported") }
}

/// Who is at work, and for how long at most.
pub fn at_work(lease: &Lease) -> String {
    let since = lease.since.map(|since| format!(" since {}", stamp(since))).unwrap_or_default();
    let who = lease.who.as_ref().unwrap_or(&lease.holder);
    format!("{who} is at work{since}, until {} at the latest", stamp(lease.until))
}

/// The roster is sealed by what this look saw, and nobody has written that down yet.
pub fn seals_now(look: &Look) -> bool {
    look.facts.record.roster.sealed_at == Some(look.now)
}

/// What the last login with a key that is not published yet came to, as the audit log has it: whoever only looks makes none.
pub fn last_login(look: &Look, lines: &[AuditLine]) -> Option<String> {
    let key = unpublished(look)?;
    let of_it =
        |line: &&AuditLine| line.event == AuditEvent::Done && line.what == "log-in" && line.key.as_ref() == Some(key);
    let line = lines.iter().rev().find(of_it)?;
    Some(format!(
        "the last login with {key}, {}: {}",
        stamp(line.at),
        line.more.as_deref().unwrap_or("nothing was said")
    ))
}

/// The key that is to be published, or that no login came to be with.
pub fn unpublished(look: &Look) -> Option<&KeyId> {
    let refused = |refusal: &Refusal| matches!(refusal, Refusal::SesRefuses { .. });
    let backoff = look.facts.record.backoff.as_ref().map(|backoff| &backoff.key);
    let backoff = backoff.filter(|_| look.decision.refusals.iter().any(refused));
    let pending = look.facts.store.labelled(PENDING).filter(|version| !version.carries(crate::facts::CURRENT));
    let creating = look.facts.record.creating_now(look.now).and_then(|creating| creating.key.as_ref());
    pending.and_then(|version| version.key()).or(creating).or(backoff)
}

/// How far a part of a rotation is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Done,
    Now,
    Then,
}

/// The parts of a rotation, each with its clock.
fn parts(look: &Look, policy: &Policy, hosts: &[HostView]) -> Vec<(Part, String)> {
    let (facts, record, now) = (&look.facts, &look.facts.record, look.now);
    let pending = facts.store.labelled(PENDING).filter(|version| !version.carries(crate::facts::CURRENT));
    let old = record.old.as_ref();
    let proved = record.proved_dead.as_ref().filter(|dead| Some(&dead.key) == old);
    let dead = old.and_then(|old| record.deactivated_by_us(old));
    let at = match (old, pending) {
        _ if facts.unstored.is_some() || record.creating_now(now).is_some() => 0,
        (_, Some(_)) => 1,
        (None, None) if record.want.is_some() => 0,
        (None, None) => return Vec::new(),
        (Some(_), None) if proved.is_some() => 5,
        (Some(old), None) if record.intention.is_some() || facts.status(old) == Some(KeyStatus::Inactive) => 4,
        (Some(_), None) if record.complete_at.is_some() => 3,
        (Some(_), None) => 2,
    };
    let new = if at == 0 { facts.unstored.as_ref() } else { None };
    let new = new.or_else(|| pending.and_then(|version| version.key()));
    let new = new.or_else(|| record.published.as_ref().map(|published| &published.key).filter(|_| at > 1));
    let since = |at: Timestamp| format!("{} ago", span(now.duration_since(at)));
    let left = |until: Timestamp| format!("{} left, until {}", span(until.duration_since(now)), stamp(until));
    let key = new.map(|key| format!(" {key}")).unwrap_or_default();
    let clocks = retire::grace_and_lag(facts, policy).map(|(grace, lag)| grace.max(lag)).filter(|until| *until > now);
    let grace = clocks
        .filter(|_| at >= 3)
        .map(left)
        .unwrap_or_else(|| format!("at least {}", span(policy.grace.max(policy.last_use_lag))));
    let canary = if policy.canary.is_some() { ", canary hosts first" } else { "" };
    let observed = dead.map(|dead| dead.at + policy.observe).filter(|until| *until > now);
    let published = record.published.as_ref().filter(|_| at > 1).map(|published| since(published.at));
    let complete = record.complete_at.filter(|_| at > 2).map(since);
    let name = |key: Option<&KeyId>| key.map_or_else(|| "the old key".into(), |key| format!("the old key {key}"));
    let end = match policy.delete {
        DeleteOld::AfterObserve => "observed, then deleted",
        DeleteOld::Never => "observed; it stays deactivated",
    };
    let all = [
        (format!("a new key{key} is made and stored"), String::new()),
        (format!("SES takes it, and it is published{canary}"), published.unwrap_or_default()),
        (format!("hosts confirm: {}", confirmed(hosts)), complete.unwrap_or_default()),
        ("nobody uses the old key any more".to_owned(), grace),
        (format!("{} is deactivated, and proved dead", name(old)), dead.map(|dead| since(dead.at)).unwrap_or_default()),
        (end.to_owned(), observed.filter(|_| at == 5).map_or_else(|| span(policy.observe), left)),
    ];
    let part = |n: usize| match n.cmp(&at) {
        std::cmp::Ordering::Less => Part::Done,
        std::cmp::Ordering::Equal => Part::Now,
        std::cmp::Ordering::Greater => Part::Then,
    };
    let with_clock =
        |(n, (what, clock)): (usize, (String, String))| match (clock.is_empty(), n > 0 && part(n) == Part::Done) {
            (true, _) => (part(n), what),
            // How long it was to be is of no interest any more.
            (false, true) if n == 3 => (part(n), what),
            (false, _) => (part(n), format!("{what}  ({clock})")),
        };
    all.into_iter().enumerate().map(with_clock).collect()
}

/// What people see of one look, 80 columns wide. `last_login`: what the last login with a new key came to.
pub fn text(credential: &Credential, look: &Look, last_login: Option<&str>) -> String {
    let decision = &look.decision;
    let mut out = String::new();
    let title = format!("{}: {}", credential.name, title(decision));
    let at = stamp(look.now);
    let gap = WIDTH.saturating_sub(title.chars().count() + at.len()).max(2);
    let _ = writeln!(out, "{title}{}{at}", " ".repeat(gap));
    for key in &look.facts.keys {
        let (role, words) = key_line(look, key);
        put(&mut out, &format!("  {role:<10} "), "             ", &words);
    }
    let hosts = hosts(look);
    let parts = parts(look, &credential.policy, &hosts);
    if !parts.is_empty() {
        out.push('\n');
    }
    for (part, what) in parts {
        let mark = match part {
            Part::Done => "  done  ",
            Part::Now => "  now   ",
            Part::Then => "  then  ",
        };
        put(&mut out, mark, "          ", &what);
    }
    out.push('\n');
    let roster = &look.facts.record.roster;
    let sealed = match (roster.sealed_at, roster.expect) {
        (Some(_), _) if seals_now(look) => "; the roster is sealed with the next look of a run".into(),
        (Some(_), _) => String::new(),
        (None, Some(expect)) => format!(", {expect} expected"),
        (None, None) => ", not sealed".into(),
    };
    let _ = writeln!(out, "  {}{sealed}", confirmed(&hosts));
    for host in hosts.iter().filter(|host| !host.is_done()) {
        let name = format!("    {:<16} ", host.host.name.as_str());
        put(&mut out, &name, "        ", &host.words());
    }
    for host in hosts.iter().filter(|host| host.waived) {
        let waiver = host.host.waiver.as_ref().expect("a waived host has one");
        let words = format!("waived until {} by {}: {}", stamp(waiver.until), waiver.by, waiver.reason);
        put(&mut out, &format!("    {:<16} ", host.host.name.as_str()), "        ", &words);
    }
    if let Some(lease) = &look.busy {
        put(&mut out, "\n  ", "    ", &at_work(lease));
    }
    if let Some(said) = last_login {
        put(&mut out, "\n  ", "    ", said);
    }
    for fault in &look.faults {
        out.push('\n');
        put(&mut out, "  ", "    ", &fault.what);
        put(&mut out, "    to do: ", "      ", &fault.fix);
    }
    // What hosts say stands above; what to do about it stands here, each once.
    for refusal in refusals(look) {
        out.push('\n');
        put(&mut out, "  ", "    ", &format!("{}: {}", refusal.class(), refusal.words()));
        put(&mut out, "    to do: ", "      ", &refusal.fix());
    }
    out.push('\n');
    let next = match &decision.action {
        Some(action) => format!("next: {action} ({})", decision.reason),
        None => format!("next: nothing now: {}", decision.reason),
    };
    put(&mut out, "  ", "    ", &next);
    if let (None, Some(next)) = (&decision.action, decision.next) {
        let _ = writeln!(out, "  looked at again at {}", stamp(next));
    }
    out
}

/// How far it is, in as few lines as say it: the first is the phase, the others what is not done.
pub fn progress(look: &Look) -> String {
    let decision = &look.decision;
    let hosts = hosts(look);
    let shows_hosts = matches!(
        decision.phase,
        Phase::Waiting | Phase::Trouble | Phase::Stuck(_) | Phase::Canary | Phase::Grace | Phase::Lag
    );
    let count = if shows_hosts { format!("; {}", confirmed(&hosts)) } else { String::new() };
    let mut out = format!("{}{count}", title(decision));
    if let (None, Some(until)) = (&decision.action, decision.reason.until()) {
        out += &format!("; until {}", stamp(until));
    }
    if shows_hosts {
        for host in hosts.iter().filter(|host| !host.is_done()).take(20) {
            out += &format!("\n{}: {}", host.host.name, host.words());
        }
    }
    // What is waited for at canary hosts is about what is not published yet: above it is not told.
    let canary = decision.phase == Phase::Canary;
    let about_all = |refusal: &&&Refusal| canary || refusal.host().is_none();
    for refusal in refusals(look).iter().filter(about_all) {
        out += &format!("\n{}: {}. To do: {}", refusal.class(), refusal.words(), refusal.fix());
    }
    for fault in &look.faults {
        out += &format!("\n{}. To do: {}", fault.what, fault.fix);
    }
    out
}

/// The phase in words.
fn title(decision: &Decision) -> String {
    match &decision.phase {
        Phase::Idle => "no rotation is under way".into(),
        Phase::Creating => "a new key is being made".into(),
        Phase::Pending => "a new key is being verified".into(),
        Phase::Canary => "the new key is with the canary hosts".into(),
        Phase::Waiting => "published; waiting for hosts".into(),
        Phase::Grace => "all hosts have confirmed; grace".into(),
        Phase::Lag => "all hosts have confirmed; is the old key still used?".into(),
        Phase::Retiring => "the old key is being retired".into(),
        Phase::Observing => "the old key is dead, and observed".into(),
        Phase::Trouble => "trouble: a key was needed, or is brought back".into(),
        Phase::Revoked => "a revoked key is published or alive".into(),
        Phase::Stuck(refusal) if refusal.host().is_some() => format!("published; in the way: {}", refusal.class()),
        Phase::Stuck(refusal) => format!("stuck: {}", refusal.class()),
    }
}

/// That something cannot be seen: AWS's own words say it too, and why.
pub fn is_of_a_gap(refusal: &Refusal) -> bool {
    use Refusal::{AccessDenied, KmsDenied, NotFound, SecretDeleting, UserMissing};
    matches!(refusal, AccessDenied { .. } | KmsDenied | NotFound { .. } | SecretDeleting | UserMissing)
}

/// Refusals that a person can do something about; of many hosts with the same trouble the first three.
fn refusals(look: &Look) -> Vec<&Refusal> {
    let mut shown: Vec<&Refusal> = Vec::new();
    let told =
        |refusal: &&Refusal| refusal.waits_for() != WaitsFor::Time && (look.faults.is_empty() || !is_of_a_gap(refusal));
    for refusal in look.decision.refusals.iter().filter(told) {
        if shown.iter().filter(|other| other.class() == refusal.class()).count() < 3 {
            shown.push(refusal);
        }
    }
    shown
}

/// What a key is, and what is known of it.
fn key_line(look: &Look, key: &Key) -> (&'static str, String) {
    let record = &look.facts.record;
    let role = match &key.id {
        id if record.published.as_ref().is_some_and(|published| published.key == *id) => "published",
        id if record.old.as_ref() == Some(id) => "old",
        id if look.facts.store.labelled(PENDING).and_then(|version| version.key()) == Some(id) => "pending",
        _ => "other",
    };
    let status = match key.status {
        KeyStatus::Active => "active",
        KeyStatus::Inactive => "inactive",
    };
    let used = match &key.last_used {
        LastUsed::Never => "never used".to_owned(),
        LastUsed::Unknown => "last use not known".to_owned(),
        LastUsed::At { at, service, region } => format!("last used {} ({service}, {region})", stamp(*at)),
    };
    (role, format!("{} {status}, made {}, {used}", key.id, stamp(key.created)))
}

/// `2026-11-29 12:07:10Z`.
pub fn stamp(at: Timestamp) -> String {
    at.strftime("%Y-%m-%d %H:%M:%SZ").to_string()
}

/// A length of time for people: its two largest units.
pub fn span(length: SignedDuration) -> String {
    let seconds = length.as_secs().max(0);
    let units = [(86_400, "d"), (3600, "h"), (60, "m"), (1, "s")];
    let first = units.iter().position(|(unit, _)| seconds >= *unit).unwrap_or(3);
    let mut rest = seconds;
    let mut parts = Vec::new();
    for (unit, name) in units.iter().skip(first).take(2) {
        if rest >= *unit || parts.is_empty() {
            parts.push(format!("{}{name}", rest / unit));
        }
        rest %= unit;
    }
    parts.join(" ")
}

/// Adds a paragraph, wrapped; what stands in backquotes is pasted, and so never torn apart.
pub fn put(out: &mut String, first: &str, further: &str, text: &str) {
    let mut line = first.to_owned();
    let mut is_empty = true;
    for (n, part) in text.split('`').enumerate() {
        let quoted = n % 2 == 1;
        let words: Vec<String> = match quoted {
            true => vec![format!("`{part}`")],
            false => part.split(' ').filter(|word| !word.is_empty()).map(str::to_owned).collect(),
        };
        for (n, word) in words.iter().enumerate() {
            // A comma or a bracket belongs to what stands before it.
            let glued = !quoted && n == 0 && !part.starts_with(' ') && line.ends_with('`')
                || quoted && line.ends_with(['(', '"']);
            let blank = if is_empty || glued { "" } else { " " };
            if !is_empty && !glued && line.chars().count() + 1 + word.chars().count() > WIDTH {
                out.push_str(line.trim_end());
                out.push('\n');
                line = format!("{further}{word}");
            } else {
                line += blank;
                line += word;
            }
            is_empty = false;
        }
    }
    out.push_str(line.trim_end());
    out.push('\n');
}

/// One look as a document.
#[derive(Debug, Serialize)]
pub struct Document<'a> {
    pub schema: &'static str,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub lab: bool,
    pub credential: &'a str,
    pub at: String,
    /// One word.
    pub phase: String,
    pub reason: String,
    pub action: Option<ActionView>,
    pub next: Option<String>,
    pub complete: bool,
    pub keys: Vec<KeyView<'a>>,
    pub published: Option<PublishedView<'a>>,
    pub old: Option<&'a str>,
    pub wanted_by: Option<&'a str>,
    pub complete_at: Option<String>,
    pub roster: RosterView<'a>,
    pub confirmed: usize,
    /// Hosts that a person vouches for.
    pub waived: usize,
    /// The worst first.
    pub hosts: Vec<HostDocument<'a>>,
    pub refusals: Vec<RefusalView<'a>>,
    pub faults: Vec<FaultView<'a>>,
    pub busy: Option<BusyView<'a>>,
    pub exit: u8,
}

#[derive(Debug, Serialize)]
pub struct ActionView {
    pub action: &'static str,
    pub key: Option<String>,
    pub version: Option<String>,
    pub words: String,
}

impl ActionView {
    pub fn of(action: &crate::plan::Action) -> Self {
        Self {
            action: action.class(),
            key: action.key().map(|key| key.as_str().to_owned()),
            version: action.version().map(|version| version.as_str().to_owned()),
            words: action.to_string(),
        }
    }
}

#[derive(Debug, Serialize)]
pub struct KeyView<'a> {
    pub key: &'a str,
    pub active: bool,
    pub created: String,
    pub last_used: Option<String>,
    /// Where it was last used, or `never`, or `unknown`.
    pub last_used_by: &'a str,
}

#[derive(Debug, Serialize)]
pub struct PublishedView<'a> {
    pub key: &'a str,
    pub version: &'a str,
    pub at: String,
}

#[derive(Debug, Serialize)]
pub struct RosterView<'a> {
    pub sealed_at: Option<String>,
    pub expect: Option<usize>,
    pub heard: usize,
    pub names: Vec<&'a str>,
}

#[derive(Debug, Serialize)]
pub struct HostDocument<'a> {
    pub host: &'a str,
    /// Nothing stands in the way at this host.
    pub done: bool,
    pub verdict: &'static str,
    pub words: String,
    /// Its agent's own.
    pub says: Option<&'a str>,
    pub refusals: Vec<&'static str>,
    pub key: Option<&'a str>,
    pub heard: Option<String>,
    pub poll_s: Option<i64>,
    pub waived: bool,
}

#[derive(Debug, Serialize)]
pub struct RefusalView<'a> {
    pub class: &'static str,
    pub host: Option<&'a str>,
    /// `time`, `hosts` or `person`.
    pub waits_for: &'static str,
    pub what: String,
    pub fix: String,
}

#[derive(Debug, Serialize)]
pub struct FaultView<'a> {
    pub class: &'static str,
    pub temporary: bool,
    pub what: &'a str,
    pub fix: &'a str,
}

impl<'a> FaultView<'a> {
    pub fn of(fault: &'a relaykey::fault::Fault) -> Self {
        Self { class: fault.class.word(), temporary: fault.temporary, what: &fault.what, fix: &fault.fix }
    }
}

#[derive(Debug, Serialize)]
pub struct BusyView<'a> {
    pub holder: &'a str,
    pub who: Option<&'a str>,
    pub since: Option<String>,
    pub until: String,
}

impl<'a> BusyView<'a> {
    fn of(lease: &'a Lease) -> Self {
        let (who, since) = (lease.who.as_deref(), lease.since.map(rfc3339));
        Self { holder: &lease.holder, who, since, until: rfc3339(lease.until) }
    }
}

/// RFC 3339, whole seconds.
pub fn rfc3339(at: Timestamp) -> String {
    format!("{at:.0}")
}

impl<'a> Document<'a> {
    pub fn of(credential: &'a Credential, look: &'a Look, lab: bool, exit: Exit) -> Self {
        let (facts, record, decision) = (&look.facts, &look.facts.record, &look.decision);
        let hosts = hosts(look);
        let key = |key: &'a Key| KeyView {
            key: key.id.as_str(),
            active: key.status == KeyStatus::Active,
            created: rfc3339(key.created),
            last_used: match &key.last_used {
                LastUsed::At { at, .. } => Some(rfc3339(*at)),
                LastUsed::Never | LastUsed::Unknown => None,
            },
            last_used_by: match &key.last_used {
                LastUsed::At { service, .. } => service,
                LastUsed::Never => "never",
                LastUsed::Unknown => "unknown",
            },
        };
        let phase = match &decision.phase {
            Phase::Stuck(_) => "stuck".to_owned(),
            other => other.to_string(),
        };
        Self {
            schema: SCHEMA,
            lab,
            credential: &credential.name,
            at: rfc3339(look.now),
            phase,
            reason: decision.reason.to_string(),
            action: decision.action.as_ref().map(ActionView::of),
            next: decision.next.map(rfc3339),
            complete: is_complete(look, credential.policy.delete),
            keys: facts.keys.iter().map(key).collect(),
            published: record.published.as_ref().map(|published| PublishedView {
                key: published.key.as_str(),
                version: published.version.as_str(),
                at: rfc3339(published.at),
            }),
            old: record.old.as_ref().map(KeyId::as_str),
            wanted_by: record.want.as_ref().map(|want| want.by.as_str()),
            complete_at: record.complete_at.map(rfc3339),
            roster: RosterView {
                sealed_at: record.roster.sealed_at.filter(|_| !seals_now(look)).map(rfc3339),
                expect: record.roster.expect,
                heard: retire::heard_of(facts, look.now),
                names: record.roster.names.iter().map(HostName::as_str).collect(),
            },
            confirmed: hosts.iter().filter(|host| host.is_confirmed()).count(),
            waived: hosts.iter().filter(|host| host.is_done() && !host.is_confirmed()).count(),
            hosts: hosts.iter().map(host_document).collect(),
            refusals: decision.refusals.iter().map(RefusalView::of).collect(),
            faults: look.faults.iter().map(FaultView::of).collect(),
            busy: look.busy.as_ref().map(BusyView::of),
            exit: exit.code(),
        }
    }
}

fn host_document<'a>(view: &HostView<'a>) -> HostDocument<'a> {
    let host = view.host;
    HostDocument {
        host: host.name.as_str(),
        done: view.is_done(),
        verdict: view.verdict.class(),
        words: if view.is_done() { view.verdict.to_string() } else { view.words() },
        says: host.says.as_deref(),
        refusals: view.stops.iter().map(Refusal::class).collect(),
        key: host.standing.as_ref().map(|standing| standing.key.as_str()),
        heard: host.heard.map(rfc3339),
        poll_s: host.poll.map(|poll| poll.as_secs()),
        waived: view.waived,
    }
}

impl<'a> RefusalView<'a> {
    pub fn of(refusal: &'a Refusal) -> Self {
        let waits_for = match refusal.waits_for() {
            WaitsFor::Time => "time",
            WaitsFor::Hosts => "hosts",
            WaitsFor::Person => "person",
        };
        let host = refusal.host().map(HostName::as_str);
        Self { class: refusal.class(), host, waits_for, what: refusal.words(), fix: refusal.fix() }
    }
}

#[cfg(test)]
mod tests;
