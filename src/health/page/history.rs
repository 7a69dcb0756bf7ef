//! What was done with a credential before.

use std::fmt::{self, Write as _};

use jiff::Timestamp;

use super::super::verdict::Level;
use super::html::{Safe, WithCommands, when};
use crate::audit::{By, Record, RecordCause, RecordKind, RecordOutcome, StepKind};
use crate::rollover::rfc3339;

/// So many records of the past are shown at once; the rest unfolds.
const RECENT: usize = 6;

pub(super) fn write_history(out: &mut String, history: &[Record], now: Timestamp) -> fmt::Result {
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

/// Who or what had something done.
pub(super) fn cause(by: &By) -> String {
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

pub(super) fn step_words(step: &StepKind) -> &str {
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
