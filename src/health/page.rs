//! The page for people: self-contained, without a script, readable on a phone and in the dark. What is wrong and what to
//! do about it stands at the top; the facts come after it.

use std::fmt::{self, Display, Write as _};
use std::sync::LazyLock;

use axum::http::HeaderValue;
use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use jiff::Timestamp;
use sha2::{Digest as _, Sha256};

use super::verdict::{Level, PageTrouble, PageVerdict, Todo, of_notice, old_key, rough, since, troubles, verdict};
use crate::audit::{By, Record, RecordCause, RecordKind, RecordOutcome, StepKind};
use crate::fault::Class;
use crate::instruction::relaykey;
use crate::rollover::{Holds, ReportMode, rfc3339};
use crate::status::{
    ConfigRefused, CredentialState, CredentialStatus, DaemonStatus, HeldStatus, InUseStatus, NotListening,
    PendingStatus, Status,
};
use crate::text::shows;

const STYLE: &str = include_str!("page.css");

/// The page makes itself anew after so many seconds.
const REFRESH: u32 = 30;
/// So many records of the past are shown at once; the rest unfolds.
const RECENT: usize = 6;

/// What a browser may do with the page: apply this one style sheet, and nothing else.
pub(super) static POLICY: LazyLock<HeaderValue> = LazyLock::new(|| {
    let hash = BASE64.encode(Sha256::digest(STYLE));
    let policy = format!(
        "default-src 'none'; style-src 'sha256-{hash}'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    );
    HeaderValue::try_from(policy).expect("printable ASCII")
});

/// Text for the inside of an element or a quoted attribute. What could end either, or change the direction or the place
/// of the text around it, is written as a reference or shown as what it is: some words come from other servers.
struct Safe<T>(T);

impl<T: Display> Display for Safe<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for c in self.0.to_string().chars() {
            match c {
                '&' => f.write_str("&amp;")?,
                '<' => f.write_str("&lt;")?,
                '>' => f.write_str("&gt;")?,
                '"' => f.write_str("&quot;")?,
                '\'' => f.write_str("&#39;")?,
                '\n' => f.write_str(" ")?,
                c if shows(c) => f.write_char(c)?,
                c => write!(f, "{}", c.escape_default())?,
            }
        }
        Ok(())
    }
}

/// As [`Safe`], where a command stands between two backticks, as in sentences of ours.
struct WithCommands<T>(T);

impl<T: Display> Display for WithCommands<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_commands(f, &self.0.to_string())
    }
}

/// The page for a document, as seen at `now`.
pub(super) fn render(status: &Status, now: Timestamp) -> String {
    let mut out = String::with_capacity(16 * 1024);
    // Writing to a string does not fail.
    let _ = write_page(&mut out, status, now);
    out
}

fn write_page(out: &mut String, status: &Status, now: Timestamp) -> fmt::Result {
    let top = verdict(status, now);
    let host = status.daemon.as_ref().map(|d| d.host.as_str()).unwrap_or("this host");
    write!(
        out,
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n\
         <meta http-equiv=\"refresh\" content=\"{REFRESH}\">\n\
         <title>{} {} · relaykey on {}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n",
        top.level.sign(),
        top.level.words(),
        Safe(host),
    )?;
    write_verdict(out, &top, host)?;
    out.push_str("<main>\n");
    let mut credentials: Vec<(&CredentialStatus, Vec<PageTrouble>)> =
        status.credentials.iter().map(|c| (c, troubles(c, now))).collect();
    credentials.sort_by_key(|(_, troubles)| std::cmp::Reverse(troubles.first().map(|t| t.level)));
    // A refused configuration can wait; what may be stopping the mail stands before it.
    let urgent = credentials.iter().take_while(|(_, t)| t.first().is_some_and(|t| t.level == Level::Now)).count();
    let (urgent, others) = credentials.split_at(urgent);
    for (c, troubles) in urgent {
        write_credential(out, c, troubles, &top, now)?;
    }
    if let Some(refused) = status.daemon.as_ref().and_then(|d| d.config_refused.as_ref()) {
        write_config_refused(out, refused, &top, now)?;
    }
    for (c, troubles) in others {
        write_credential(out, c, troubles, &top, now)?;
    }
    if let Some(daemon) = status.daemon.as_ref().filter(|d| !d.not_listening.is_empty()) {
        write_not_listening(out, &daemon.not_listening, now)?;
    }
    out.push_str("</main>\n");
    write_footer(out, status.daemon.as_ref(), now)?;
    out.push_str("</body>\n</html>\n");
    Ok(())
}

fn write_verdict(out: &mut String, top: &PageVerdict, host: &str) -> fmt::Result {
    write!(
        out,
        "<header class=\"{}\">\n<p class=\"where\">Mail credentials of <b>{}</b></p>\n\
         <p class=\"level\"><span class=\"sign\" aria-hidden=\"true\">{}</span> {}</p>\n<h1>{}</h1>\n",
        top.level.class(),
        Safe(host),
        top.level.sign(),
        top.level.words(),
        WithCommands(&top.sentence),
    )?;
    if let Some(mail) = &top.mail {
        writeln!(out, "<p class=\"mail\">{}</p>", WithCommands(mail))?;
    }
    if let Some(what) = &top.what {
        writeln!(out, "<p class=\"why\"><b>Why:</b> <span class=\"said\">{}</span></p>", WithCommands(what))?;
    }
    if let Some(fix) = &top.fix {
        write_fix(out, top.level, fix, &top.list)?;
    }
    if !top.others.is_empty() {
        out.push_str("<ul class=\"others\">\n");
        for (name, level, headline) in &top.others {
            writeln!(
                out,
                "<li class=\"{}\"><span class=\"sign\" aria-hidden=\"true\">{}</span> <a href=\"#{}\">{}</a>: {} <small>({})</small></li>",
                level.class(),
                level.sign(),
                Safe(name),
                Safe(name),
                WithCommands(headline),
                level.words().to_lowercase(),
            )?;
        }
        out.push_str("</ul>\n");
    }
    out.push_str("</header>\n");
    Ok(())
}

fn write_config_refused(out: &mut String, refused: &ConfigRefused, top: &PageVerdict, now: Timestamp) -> fmt::Result {
    write!(
        out,
        "<section class=\"card\" id=\"configuration\">\n<h2>Configuration <span class=\"badge soon\">! refused</span></h2>\n\
         <p>The changed file, read {}, holds {}. Until that is corrected, the configuration from before the change stays \
         in force. After the correction: <code>systemctl reload relaykey</code></p>\n",
        Safe(when(refused.at, now)),
        match refused.mistakes.len() {
            1 => "a mistake".to_owned(),
            n => format!("{n} mistakes"),
        },
    )?;
    for m in &refused.mistakes {
        if top.others.is_empty() && top.what.as_ref() == Some(&m.what) && top.fix.as_ref() == Some(&m.fix) {
            continue;
        }
        writeln!(out, "<div class=\"trouble soon\"><p class=\"said\">{}</p>", WithCommands(&m.what))?;
        write_fix(out, Level::Soon, &m.fix, &Todo::Nothing)?;
        out.push_str("</div>\n");
    }
    out.push_str("</section>\n");
    Ok(())
}

fn write_not_listening(out: &mut String, places: &[NotListening], now: Timestamp) -> fmt::Result {
    write!(
        out,
        "<section class=\"card\" id=\"health\">\n<h2>Health endpoint <span class=\"badge soon\">! does not listen everywhere</span></h2>\n\
         <p>It is not answered here, and {}.</p>\n",
        WithCommands(NotListening::GOES_ON),
    )?;
    for place in places {
        let what = format!("{}, since {}", place.what, when(place.since, now));
        writeln!(out, "<div class=\"trouble soon\"><p class=\"said\">{}</p>", WithCommands(what))?;
        write_fix(out, Level::Soon, &place.fix, &Todo::Nothing)?;
        out.push_str("</div>\n");
    }
    out.push_str("</section>\n");
    Ok(())
}

fn write_credential(
    out: &mut String,
    c: &CredentialStatus,
    troubles: &[PageTrouble],
    top: &PageVerdict,
    now: Timestamp,
) -> fmt::Result {
    let level = troubles.first().map_or(Level::Fine, |t| t.level);
    write!(
        out,
        "<section class=\"card\" id=\"{0}\">\n<h2>{0} <span class=\"badge {1}\">{2} {3}</span></h2>\n",
        Safe(&c.name),
        level.class(),
        level.sign(),
        Safe(state_words(c.state, level).to_lowercase()),
    )?;
    // What fills the top of the page is not said twice, unless it has to be told from what else is wrong.
    let told = |t: &PageTrouble| {
        let same = |top: &Option<String>, text: &str| top.as_deref().unwrap_or_default() == text;
        top.others.is_empty()
            && same(&top.mail, &t.mail)
            && same(&top.what, &t.what)
            && same(&top.fix, &t.fix)
            && top.list == t.list
    };
    for t in troubles.iter().filter(|t| !told(t)) {
        write_trouble(out, t)?;
    }
    out.push_str("<dl>\n");
    write_facts(out, c, now)?;
    out.push_str("</dl>\n");
    write_history(out, &c.history, now)?;
    out.push_str("</section>\n");
    Ok(())
}

fn write_trouble(out: &mut String, t: &PageTrouble) -> fmt::Result {
    write!(
        out,
        "<div class=\"trouble {}\">\n<h3><span class=\"sign\" aria-hidden=\"true\">{}</span> {}</h3>\n",
        t.level.class(),
        t.level.sign(),
        WithCommands(capitalised(&t.headline)),
    )?;
    writeln!(out, "<p>{}</p>", WithCommands(&t.mail))?;
    if !t.what.is_empty() {
        writeln!(out, "<p class=\"said\">{}</p>", WithCommands(&t.what))?;
    }
    if !t.fix.is_empty() {
        write_fix(out, t.level, &t.fix, &t.list)?;
    }
    out.push_str("</div>\n");
    Ok(())
}

/// What to do, and the list of what that is in detail.
fn write_fix(out: &mut String, level: Level, fix: &str, list: &Todo) -> fmt::Result {
    let label = if level.wants_nobody() { "Nothing to do:" } else { "Do:" };
    // A question alone is nothing that can be done.
    let asked = if fix.starts_with("did you mean") { "correct it: " } else { "" };
    let colon = if *list == Todo::Nothing { "" } else { ":" };
    write!(out, "<div class=\"do\"><p><b>{label}</b> {asked}")?;
    write_commands(out, fix)?;
    writeln!(out, "{colon}</p>")?;
    match list {
        Todo::Nothing => {}
        Todo::Steps(steps, note) => {
            out.push_str("<ol>\n");
            for step in steps {
                out.push_str("<li>");
                // An edit is to be typed too.
                write_command(out, step.as_str())?;
                out.push_str("</li>\n");
            }
            out.push_str("</ol>\n<p>");
            write_commands(out, note)?;
            out.push_str("</p>\n");
        }
        Todo::Choices(items) => {
            out.push_str("<ul>\n");
            for item in items {
                out.push_str("<li>");
                write_commands(out, item)?;
                out.push_str("</li>\n");
            }
            out.push_str("</ul>\n");
        }
    }
    out.push_str("</div>\n");
    Ok(())
}

/// Text in which a command stands between two backticks.
fn write_commands(out: &mut impl fmt::Write, text: &str) -> fmt::Result {
    // Other programs quote with one backtick, and one apostrophe at the end.
    let quoted = |(i, part): (usize, &str)| i % 2 == 1 && part.trim() != part;
    if !text.matches('`').count().is_multiple_of(2) || text.split('`').enumerate().any(quoted) {
        return write!(out, "{}", Safe(text));
    }
    for (i, part) in text.split('`').enumerate() {
        match i % 2 {
            0 => write!(out, "{}", Safe(part))?,
            _ => write_command(out, part)?,
        }
    }
    Ok(())
}

/// A command. An option is not broken at its hyphens, where a narrow screen would show another one.
fn write_command(out: &mut impl fmt::Write, command: &str) -> fmt::Result {
    out.write_str("<code>")?;
    for (i, word) in command.split(' ').enumerate() {
        out.write_str(if i == 0 { "" } else { " " })?;
        match word.starts_with("--") && word.len() <= 20 {
            true => write!(out, "<span class=\"option\">{}</span>", Safe(word))?,
            false => write!(out, "{}", Safe(word))?,
        }
    }
    out.write_str("</code>")
}

/// One line of the list of facts; `value` is HTML.
fn fact(out: &mut String, name: &str, value: impl Display) -> fmt::Result {
    writeln!(out, "<div><dt>{name}</dt><dd>{value}</dd></div>")
}

fn write_facts(out: &mut String, c: &CredentialStatus, now: Timestamp) -> fmt::Result {
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

fn write_history(out: &mut String, history: &[Record], now: Timestamp) -> fmt::Result {
    if history.is_empty() {
        return Ok(());
    }
    out.push_str("<h3 class=\"past\">What happened</h3>\n<ol class=\"past\">\n");
    for r in history.iter().take(RECENT) {
        write_record(out, r, now)?;
    }
    out.push_str("</ol>\n");
    if history.len() > RECENT {
        writeln!(out, "<details><summary>{} earlier</summary>\n<ol class=\"past\">", history.len() - RECENT)?;
        for r in &history[RECENT..] {
            write_record(out, r, now)?;
        }
        out.push_str("</ol></details>\n");
    }
    Ok(())
}

fn write_record(out: &mut String, r: &Record, now: Timestamp) -> fmt::Result {
    use RecordOutcome::{Adopted, Confirmed, Done, FailedForNow, Interrupted, Superseded};
    let (level, what) = match (r.what, r.outcome) {
        (RecordKind::Rollover, Confirmed | Done) => (Level::Fine, "New key put into use"),
        (RecordKind::Adoption, Adopted | Done) => (Level::Fine, "Key found already in use"),
        (RecordKind::Heal, Confirmed | Done | Adopted) => {
            (Level::Fine, "Login put back after somebody else changed it")
        }
        (RecordKind::Reload, Done | Confirmed) => (Level::Fine, "Mail server reloaded"),
        (RecordKind::Confirmation, Confirmed | Done | Adopted) => (Level::Fine, "Looked at again, and confirmed"),
        (RecordKind::Rejection, Done) => (Level::Fine, "New key rejected"),
        (RecordKind::Departure, Done) => (Level::Fine, "This host left the fleet"),
        (RecordKind::NoChange, _) => (Level::Fine, "Looked: nothing to do"),
        (RecordKind::EarlierKey, _) => (Level::Fine, "Key named as an earlier one of ours"),
        (RecordKind::Waits, _) => (Level::Busy, "New key waits for a person"),
        (RecordKind::Withdrawal, _) => (Level::Soon, "Confirmation taken back: another login found"),
        (RecordKind::Drift, _) => (Level::Soon, "Login found changed by somebody else"),
        (RecordKind::Clone, _) => (Level::Soon, "Found to be a copy of another host; began anew"),
        (RecordKind::Refused, _) => (Level::Soon, "New key refused"),
        (_, Superseded) => (Level::Soon, "New key put in place, never confirmed: another one came"),
        (_, Interrupted) => (Level::Soon, "Interrupted; taken up again at the next look"),
        (RecordKind::Heal, _) => (Level::Soon, "Login could not be put back"),
        (RecordKind::Reload, _) => (Level::Soon, "Mail server could not be reloaded"),
        (_, FailedForNow) => (Level::Soon, "Did not work yet; tried again"),
        _ => (Level::Soon, "Did not work"),
    };
    write!(
        out,
        "<li class=\"{}\"><span class=\"sign\" aria-hidden=\"true\">{}</span><div><b>{what}</b> <time datetime=\"{}\">{}</time>",
        level.class(),
        level.sign(),
        Safe(rfc3339(r.at)),
        Safe(when(r.at, now)),
    )?;
    match (&r.previous_username, &r.username) {
        _ if r.what == RecordKind::NoChange => {}
        (Some(old), Some(new)) if old != new && level == Level::Fine && r.what == RecordKind::Rollover => {
            write!(out, "<br>{} → <b>{}</b>", Safe(old), Safe(new))?
        }
        (_, Some(name)) => write!(out, "<br>{}", Safe(name))?,
        _ => {}
    }
    if let Some(e) = &r.error {
        write!(out, "<br><span class=\"said\">{}</span>", WithCommands(&e.words))?;
    }
    let took: u64 = r.steps.iter().map(|s| s.milliseconds).sum();
    let took = match took {
        0 => String::new(),
        ms if ms < 10_000 => format!(", took {}.{} s", ms / 1000, ms % 1000 / 100),
        ms => format!(", took {} s", ms / 1000),
    };
    let approved = r.approved_by.as_ref().map(|by| format!(", approved by {by}")).unwrap_or_default();
    writeln!(out, "<br><small>{}{}{took}</small></div></li>", Safe(cause(&r.by)), Safe(approved))
}

fn write_footer(out: &mut String, daemon: Option<&DaemonStatus>, now: Timestamp) -> fmt::Result {
    out.push_str("<footer>\n");
    if let Some(d) = daemon {
        writeln!(
            out,
            "<p>{} (process {}) was started {}. Configuration: <code>{}</code>, read {}.</p>",
            Safe(&d.agent),
            d.pid,
            Safe(when(d.since, now)),
            Safe(&d.config),
            Safe(since(d.config_since, now)),
        )?;
    }
    writeln!(
        out,
        "<p>As of {} UTC. This page reloads itself every {REFRESH} seconds and changes nothing. For programs: \
         <a href=\"/status\">/status</a>, <a href=\"/metrics\">/metrics</a>, <a href=\"/readyz\">/readyz</a>.</p>\n</footer>",
        Safe(clock(now)),
    )
}

// ---------------------------------------------------------------- words

fn state_words(state: CredentialState, level: Level) -> &'static str {
    match state {
        CredentialState::UpToDate if level == Level::Fine => "up to date",
        // The key is the newest, or it is not known; what is wrong stands elsewhere.
        CredentialState::UpToDate | CredentialState::Hindered(Class::Failing) => level.words(),
        other => other.in_words().unwrap_or(other.word()),
    }
}

/// Who or what had something done.
fn cause(by: &By) -> String {
    let mut said = match (by.cause, &by.user) {
        (RecordCause::Start, _) => "relaykey started".to_owned(),
        (RecordCause::Timer, _) => "regular look".to_owned(),
        (RecordCause::Signal, _) => "asked to by a signal (SIGHUP)".to_owned(),
        (RecordCause::Operator, Some(user)) => format!("asked for by {user}"),
        (RecordCause::Operator, None) => "asked for by a person".to_owned(),
        (RecordCause::FileWatch, _) => "a file changed".to_owned(),
        (RecordCause::LogAlarm, _) => "the mail log told of a refused login".to_owned(),
        (RecordCause::Retry, _) => "tried again".to_owned(),
        (RecordCause::Foreign(other), _) => other.word().to_owned(),
    };
    if let Some(claimed) = &by.claimed {
        let _ = write!(said, " (claims to be {claimed})");
    }
    if let Some(detail) = &by.detail {
        let _ = write!(said, ": {detail}");
    }
    said
}

fn step_words(step: &StepKind) -> &str {
    match step {
        StepKind::Inspect => "looking at the mail server's login",
        StepKind::Fetch => "asking the source",
        StepKind::FetchApplied => "asking the source for the key in use once more",
        StepKind::Verify => "trying the login at the mail relay",
        StepKind::VerifyApplied => "trying the login in use at the mail relay",
        StepKind::Probe => "sending a test message over the new login",
        StepKind::Preview => "looking what would change",
        StepKind::Hold => "keeping the new key until somebody approves it",
        StepKind::Release => "letting the new key go",
        StepKind::Reject => "taking down that the new key was rejected",
        StepKind::Leave => "leaving the fleet",
        StepKind::Refrain => "leaving the mail server's login as it is",
        StepKind::Prepare => "preparing the new tables",
        StepKind::Swap => "putting the new login in place",
        StepKind::Activate => "reloading the mail server",
        StepKind::ReadBack => "reading back what the mail server uses",
        StepKind::Attest => "proving anew that the mail server uses the login",
        StepKind::Undo => "putting the old login back",
        StepKind::Discard => "removing prepared tables that are not used",
        StepKind::Commit => "writing down what was done",
        StepKind::Wait | StepKind::Await => "waiting",
        StepKind::End => "ending",
        StepKind::Others | StepKind::Foreign(_) => step.word(),
    }
}

/// As the beginning of a sentence; the program's own name stays as it is.
fn capitalised(text: &str) -> String {
    if text.starts_with("relaykey") {
        return text.to_owned();
    }
    let mut chars = text.chars();
    chars.next().map(|c| c.to_uppercase().collect::<String>() + chars.as_str()).unwrap_or_default()
}

/// `2026-11-20 22:10:05`.
fn clock(at: Timestamp) -> String {
    rfc3339(at).replace('T', " ").trim_end_matches('Z').to_owned()
}

/// `3 hours ago (2026-11-20 19:10:05 UTC)`.
fn when(at: Timestamp, now: Timestamp) -> String {
    format!("{} ({} UTC)", since(at, now), clock(at))
}

fn ahead(at: Timestamp, now: Timestamp) -> String {
    match at.duration_since(now) {
        left if left.as_secs() <= 0 => "now".into(),
        left => format!("in {}", rough(left)),
    }
}
