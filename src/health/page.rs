//! The page for people: self-contained, without a script, readable on a phone and in the dark. What is wrong and what to
//! do about it stands at the top; the facts come after it.

mod facts;
mod history;
mod html;

use std::fmt::{self, Write as _};
use std::sync::LazyLock;

use axum::http::HeaderValue;
use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use jiff::Timestamp;
use sha2::{Digest as _, Sha256};

use self::facts::write_facts;
use self::history::write_history;
use self::html::{Safe, WithCommands, capitalised, clock, when, write_command, write_commands};
use super::verdict::{Level, PageTrouble, PageVerdict, Todo, since, troubles, verdict};
use crate::fault::Class;
use crate::status::{ConfigRefused, CredentialState, CredentialStatus, DaemonStatus, NotListening, Status};

const STYLE: &str = include_str!("page.css");

/// The page makes itself anew after so many seconds.
const REFRESH: u32 = 30;

/// What a browser may do with the page: apply this one style sheet, and nothing else.
pub(super) static POLICY: LazyLock<HeaderValue> = LazyLock::new(|| {
    let hash = BASE64.encode(Sha256::digest(STYLE));
    let policy = format!(
        "default-src 'none'; style-src 'sha256-{hash}'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    );
    HeaderValue::try_from(policy).expect("printable ASCII")
});

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
