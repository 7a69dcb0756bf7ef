//! One look as people see it, and the pieces of such texts.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use jiff::{SignedDuration, Timestamp};

use super::hosts::{HostView, confirmed, hosts};
use super::{is_of_a_gap, places, seals_now};
use crate::config::Credential;
use crate::facts::{HostName, Key, KeyId, KeyStatus, LastUsed, PENDING, Part};
use crate::plan::Phase;
use crate::policy::{DeleteOld, Policy};
use crate::record::Lease;
use crate::refusal::{Refusal, WaitsFor};
use crate::retire;
use crate::run::{AuditEvent, AuditLine, Look};

/// Columns of a terminal that nobody made wider.
pub(super) const WIDTH: usize = 80;

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
enum PartState {
    Done,
    Now,
    Then,
}

/// The parts of a rotation, each with its clock.
fn parts(look: &Look, policy: &Policy, hosts: &[HostView]) -> Vec<(PartState, String)> {
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
        std::cmp::Ordering::Less => PartState::Done,
        std::cmp::Ordering::Equal => PartState::Now,
        std::cmp::Ordering::Greater => PartState::Then,
    };
    let with_clock =
        |(n, (what, clock)): (usize, (String, String))| match (clock.is_empty(), n > 0 && part(n) == PartState::Done) {
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
    let title = format!("{}: {}", credential.name, title(look));
    let at = stamp(look.now);
    let gap = WIDTH.saturating_sub(title.chars().count() + at.len()).max(2);
    let _ = writeln!(out, "{title}{}{at}", " ".repeat(gap));
    for key in &look.facts.keys {
        let (role, words) = key_line(look, key);
        put(&mut out, &format!("  {role:<10} "), "             ", &words);
    }
    let places = places(look);
    for place in places.iter().filter(|_| places.len() > 1) {
        put(&mut out, "  place      ", "             ", &place.words());
    }
    let hosts = hosts(look);
    let hidden = hidden(look);
    let parts = if hidden.is_empty() { parts(look, &credential.policy, &hosts) } else { Vec::new() };
    if !hidden.is_empty() {
        let names: Vec<String> = hidden.iter().map(|part| part.words()).collect();
        put(&mut out, "\n  ", "    ", &format!("how far it is, is not known: no look at {}", names.join(", nor at ")));
    }
    if !parts.is_empty() {
        out.push('\n');
    }
    for (part, what) in parts {
        let mark = match part {
            PartState::Done => "  done  ",
            PartState::Now => "  now   ",
            PartState::Then => "  then  ",
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
    if !hidden.contains(&&Part::Fleet) {
        let _ = writeln!(out, "  {}{sealed}", confirmed(&hosts));
    }
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
        let _ = writeln!(out, "  next look: {}, by `run` or the timer", stamp(next));
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
    let counts = shows_hosts && !hidden(look).contains(&&Part::Fleet);
    let count = if counts { format!("; {}", confirmed(&hosts)) } else { String::new() };
    let mut out = format!("{}{count}", title(look));
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
    let shown: BTreeSet<&HostName> = look.facts.fleet.iter().map(|host| &host.name).collect();
    let about_all = |refusal: &&&Refusal| canary || refusal.host().is_none_or(|host| !shown.contains(host));
    for refusal in refusals(look).iter().filter(about_all) {
        out += &format!("\n{}: {}. To do: {}", refusal.class(), refusal.words(), refusal.fix());
    }
    for fault in &look.faults {
        out += &format!("\n{}. To do: {}", fault.what, fault.fix);
    }
    out
}

/// What a rotation is followed in, and this look did not see. A further place hides nothing of it.
fn hidden(look: &Look) -> Vec<&Part> {
    let mut hidden: Vec<&Part> = Vec::new();
    for part in look.facts.gaps.iter().map(|gap| &gap.part).filter(|part| !matches!(part, Part::Further(_))) {
        if !hidden.contains(&part) {
            hidden.push(part);
        }
    }
    hidden
}

/// The phase in words.
fn title(look: &Look) -> String {
    match &look.decision.phase {
        Phase::Stuck(refusal) if refusal.host().is_some() => format!("published; in the way: {}", refusal.class()),
        Phase::Stuck(refusal) => format!("stuck: {}", refusal.class()),
        _ if look.decision.action.is_none() && !hidden(look).is_empty() => "not everything could be looked at".into(),
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
    }
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
    let listed = if record.unlisted(&key.id).is_some() { ", not listed by IAM" } else { "" };
    (role, format!("{} {status}{listed}, made {}, {used}", key.id, stamp(key.created)))
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
