//! What is known of one credential, fact by fact.

use std::fmt::{self, Write as _};

use jiff::Timestamp;

use super::super::verdict::{of_notice, old_key, rough, since};
use super::history::{cause, step_words};
use super::html::{Safe, WithCommands, ahead, capitalised, fact, when};
use crate::fault::Class;
use crate::instruction::relaykey;
use crate::rollover::{Holds, ReportMode};
use crate::status::{CredentialStatus, HeldStatus, InUseStatus, PendingStatus};

pub(super) fn write_facts(out: &mut String, c: &CredentialStatus, now: Timestamp) -> fmt::Result {
    let new_in_place = c.in_use.iter().any(|found| found.holds == Holds::Pending);
    match &c.applied {
        Some(a) => {
            // Put in place is not in use: somebody else may have changed it, or the mail server may not have read it.
            let doubtful = c.is_doubtful() || c.not_ready.iter().any(|n| n.class == Class::ReloadOwed);
            let (name, since) = match (doubtful, a.outcome) {
                _ if new_in_place || c.holds_begun() => ("Key confirmed last", "Confirmed"),
                (true, _) => ("Key put in place", "Put in place"),
                (false, crate::rollover::Completion::Adopted) => ("Key in use", "Found in use"),
                (false, crate::rollover::Completion::Confirmed) => ("Key in use", "In use since"),
            };
            fact(
                out,
                name,
                format_args!("<b>{}</b><br><small>version {}</small>", Safe(&a.username), Safe(&a.version)),
            )?;
            fact(out, since, Safe(when(a.since, now)))?;
            let age = rough(jiff::SignedDuration::from_secs(a.key_age_seconds));
            let (name, said) = match a.version_stored {
                Some(_) => ("Version stored", format!("{age} ago; the key may be older")),
                None => ("Key age", format!("at least {age}")),
            };
            match old_key(c) {
                Some(_) => fact(out, name, format_args!("<strong>! {}: older than 90 days</strong>", Safe(said)))?,
                None => fact(out, name, Safe(said))?,
            }
        }
        None => fact(out, "Key in use", "none yet that relaykey put there")?,
    }
    // What was looked up: said by itself where it is not what was put there.
    let is_said = |found: &&InUseStatus| match found.holds {
        Holds::Applied => false,
        Holds::Begun => true,
        Holds::Pending | Holds::Other | Holds::Nothing => c.applied.is_some(),
    };
    for found in c.in_use.iter().filter(is_said) {
        let who = c.applied.as_ref().map_or_else(|| found.who(), |a| found.who_else(a));
        let new = match found.holds {
            Holds::Pending => ", the new key, not confirmed yet",
            Holds::Begun if found.begun_by_hand => ", put there by hand, as relaykey had asked, and never confirmed",
            Holds::Begun => ", put there by relaykey and never confirmed",
            Holds::Applied | Holds::Other | Holds::Nothing => "",
        };
        let at = when(found.at, now);
        // What does not run uses nothing; what was not told of it perhaps what was there before.
        let only_in_place = c.mail_server_stopped.contains(&found.target) || c.is_unread(&found.target);
        fact(
            out,
            if only_in_place { "Found in its files" } else { "Found in use" },
            format_args!(
                "<b>{}</b>{new}<br><small>target {}, looked up {}</small>",
                Safe(who),
                Safe(&found.target),
                Safe(at)
            ),
        )?;
    }
    for half in &c.half_done {
        fact(out, "Put in place in part", Safe(half.said()))?;
    }
    for HeldStatus { target, held } in &c.held {
        for said in held.said() {
            let said = capitalised(&said);
            fact(out, "Besides", format_args!("{}.<br><small>target {}</small>", Safe(said), Safe(target)))?;
        }
    }
    if let Some(first) = &c.found_first {
        fact(out, "Key found first", format_args!("<b>{}</b><br><small>do not delete it yet</small>", Safe(first)))?;
    }
    if c.applied.is_some() {
        match c.in_use.iter().map(|found| found.at).min() {
            Some(at) => fact(out, "Looked up", Safe(when(at, now)))?,
            None => fact(out, "Looked up", "not yet")?,
        }
    }
    if let Some(p) = &c.pending {
        let refused = match p.first_refused {
            Some(at) => format!(", first refused {}", since(at, now)),
            None => String::new(),
        };
        fact(
            out,
            "New key",
            format_args!(
                "<b>{}</b>, {}<br><small>version {}, seen {}{}</small>",
                Safe(&p.username),
                if new_in_place { "not confirmed yet" } else { "not in use yet" },
                Safe(&p.version),
                Safe(since(p.first_seen, now)),
                Safe(refused),
            ),
        )?;
        write_pending(out, c, p, now)?;
    }
    if let Some(at) = c.withdrawn {
        let what = "the mail server no longer holds what was confirmed";
        fact(out, "Confirmation", format_args!("taken back {}: {what}", Safe(when(at, now))))?;
    }
    if let Some(at) = c.left {
        fact(out, "Left the fleet", Safe(when(at, now)))?;
    }
    for o in c.owed.iter().filter(|o| !c.mail_server_stopped.contains(&o.target)) {
        let since = when(o.owed.since, now);
        fact(out, "Reload missing", format_args!("target {}, since {}", Safe(&o.target), Safe(since)))?;
    }
    for r in &c.reports_owed {
        let next = r.next.map(|next| format!(", next try {}", ahead(next, now))).unwrap_or_default();
        let count = if r.count == 1 { "1 report".to_owned() } else { format!("{} reports", r.count) };
        let made = r.made().map_or_else(|| r.since.clone(), |at| since(at, now));
        fact(
            out,
            "Not delivered",
            format_args!("{count} to {}, the oldest made {}{}", Safe(&r.receiver), Safe(made), Safe(next)),
        )?;
    }
    fact(out, "Source", Safe(&c.source_in_full))?;
    if let Some(decides) = who_decides(c) {
        fact(out, "New keys", decides)?;
    }
    if let Some(live) = &c.live {
        match live.answered {
            Some(at) => fact(out, "Source answered", Safe(when(at, now)))?,
            None => fact(out, "Source answered", "not since relaykey started")?,
        }
        let by = live.woken.as_ref().map(|woken| format!(" ({})", cause(&woken.by))).unwrap_or_default();
        match live.source_asked {
            Some(at) => fact(out, "Last look", format_args!("{}{}", Safe(since(at, now)), Safe(by)))?,
            None => fact(out, "Last look", "not since relaykey started")?,
        }
        match (&live.step, live.next_wake) {
            (Some(step), _) => fact(out, "Doing now", Safe(step_words(step)))?,
            (None, Some(next)) => {
                let sync = relaykey("sync");
                let hint = format_args!("<small>(to look at once: <code>{}</code>)</small>", Safe(sync));
                fact(out, "Next look", format_args!("{} {hint}", Safe(ahead(next, now))))?;
            }
            (None, None) => {}
        }
    }
    for n in c.notices.iter().filter(|n| of_notice(c, n, now).is_none()) {
        let (at, what, fix) = (Safe(since(n.at, now)), WithCommands(&n.what), WithCommands(&n.fix));
        fact(out, "Notice", format_args!("{what} <small>({at})</small><br><small>{fix}</small>"))?;
    }
    let cost = format!("{} requests a day, about ${:.2} in 30 days", c.cost.requests_per_day, c.cost.usd_per_month);
    fact(out, "Cost of asking", Safe(cost))
}

/// What a person has to know of a new key who is to decide, or to make the change.
fn write_pending(out: &mut String, c: &CredentialStatus, p: &PendingStatus, now: Timestamp) -> fmt::Result {
    if let Some(r) = &p.rejected {
        let (by, at, reason) = (Safe(&r.by), Safe(when(r.at, now)), Safe(&r.reason));
        return fact(out, "Rejected by", format_args!("{by}, {at}<br><span class=\"said\">{reason}</span>"));
    }
    let waits = c.not_ready.iter().any(|n| matches!(n.class, Class::PendingApproval | Class::ByHand));
    if let Some(at) = p.waits_since.filter(|_| waits) {
        fact(out, "Waits since", Safe(when(at, now)))?;
    }
    match (&p.approval, &p.window) {
        (Some(a), _) => fact(out, "Approved by", format_args!("{}, {}", Safe(&a.by), Safe(when(a.at, now))))?,
        (None, Some(window)) => fact(out, "Goes by itself", format_args!("{}, local time of this host", Safe(window)))?,
        (None, None) => {}
    }
    for change in &p.changes {
        let (name, lines) = match change.by_hand {
            true => ("There now", &change.change.differences),
            false => ("Would change", &change.change.diff),
        };
        // What is wrong with a change that somebody has begun is told as the trouble that it is.
        let told = change.by_hand && waits && c.withdrawn.is_some();
        if lines.is_empty() || told {
            continue;
        }
        let mut value = String::new();
        for line in lines {
            write!(value, "<code class=\"line\">{}</code>", Safe(line))?;
        }
        if !change.by_hand {
            let reload = if change.change.reload { "; then the mail server is reloaded" } else { "" };
            write!(value, "<small>target {}; *** stands for a password{reload}</small>", Safe(&change.target))?;
        }
        fact(out, name, value)?;
    }
    Ok(())
}

/// Where a person decides about new keys: how.
fn who_decides(c: &CredentialStatus) -> Option<&'static str> {
    match (c.mode, c.by_hand.is_empty()) {
        (ReportMode::Manual, true) => Some("wait for approval (mode = \"manual\")"),
        (ReportMode::Manual, false) => {
            Some("wait for approval (mode = \"manual\"), or for a change by hand (write = false)")
        }
        (_, false) => Some("wait for a change by hand (write = false)"),
        (_, true) => None,
    }
}
