//! A key that waits: for a person's word, for its hours, or for a person to change files.

use super::body::{Body, clean};
use super::facts::when;
use super::keys::ReportNames;
use super::{Sentences, capital};
use crate::fault::Class;
use crate::instruction::{Instruction, relaykey};
use crate::rollover::{Report, Waiting};
use crate::text::line;

pub(super) fn pending(report: &Report, r: &ReportNames) -> Sentences {
    if report.error.as_ref().is_some_and(|e| e.class == Class::ByHand) {
        return Sentences {
            headline: "new SMTP key waits: a person has to change the mail server's files".into(),
            happened: format!(
                "{} of {} is ready, and a person has to put it into the files of the mail server on {}: relaykey is not allowed to \
                 write there (write = false in its configuration). {} accepts the key; this was checked.",
                capital(&r.new_key),
                r.login,
                r.host,
                capital(&r.relay)
            ),
            mail: r.goes_on(),
            to_do: format!(
                "{} Change the files as it says below, on {}, as root. As soon as they hold the new key, relaykey notices that by \
                 itself, checks it and reports it.",
                r.keep_old(),
                r.host
            ),
            commands: vec![
                (
                    "To see the password of the new key, on a terminal (*** stands for it below):".into(),
                    relaykey(format_args!("sync {} --dry-run --reveal", r.credential)),
                ),
                (
                    "To have the files looked at right away, and to be told what is still missing:".into(),
                    relaykey(format_args!("confirm {}", r.credential)),
                ),
            ],
            after: Some(format!(
                "{} {WAITED_FOR}",
                r.goes_on_if_nobody(
                    "If nobody does anything, the mail server goes on with the old key, and its mail stops when that one is deleted."
                )
            )),
            // 0.1.0 told it in one sentence, in which nobody can tell one step from the next.
            said: if report.waiting.is_some() { None } else { r.said("What to change") },
            steps: report.waiting.clone(),
            ..Sentences::empty()
        };
    }
    let waiting = report.waiting.clone().unwrap_or_default();
    let by_itself = waiting.opens.map(|at| {
        let setting = waiting.window.as_ref().map(|window| format!(" (apply = \"{}\")", clean(window)));
        let at = when(at);
        format!("the new key goes into use by itself at {at}{}", setting.unwrap_or_default())
    });
    let dies = if waiting.if_applied_dies { ", or at once when the mail relay refuses the old one" } else { "" };
    Sentences {
        headline: match &by_itself {
            Some(_) => "new SMTP key waits for its time, or for approval".into(),
            None => "new SMTP key waits for approval".into(),
        },
        happened: format!(
            "{} of {} is ready for use on {}, and waits until {}. {} accepts the key; this was checked.",
            capital(&r.new_key),
            r.login,
            r.host,
            if by_itself.is_some() { "its time has come, or a person approves it" } else { "a person approves it" },
            capital(&r.relay)
        ),
        mail: r.goes_on(),
        to_do: match &by_itself {
            Some(by_itself) => format!(
                "{} Nothing else to do: {by_itself}{dies}. To decide before that, on {}, as root, run one of these.",
                r.keep_old(),
                r.host
            ),
            None => format!("{} Decide: approve the new key, or reject it, on {}, as root.", r.keep_old(), r.host),
        },
        commands: vec![
            ("To put it into use now:".into(), r.approve()),
            (
                "To keep the old one (write why in place of the dots; it is kept in the records):".into(),
                relaykey(format_args!("reject {} --version {} --reason \"...\"", r.credential, r.version)),
            ),
        ],
        after: Some(match (by_itself, dies.is_empty()) {
            (Some(_), _) => format!("Mail stops if the old key is deleted before. {WAITED_FOR}"),
            (None, true) => format!(
                "If nobody does anything, the new key goes on waiting. Mail stops if the old key is deleted before. {WAITED_FOR}"
            ),
            (None, false) => format!(
                "If nobody does anything, the new key goes on waiting; when the mail relay refuses the old one, it goes into use \
                 at once. {WAITED_FOR}"
            ),
        }),
        // What waits as data is told above, commands and all; 0.1.0 has words alone.
        said: if report.waiting.is_some() { None } else { r.said("What relaykey says about it") },
        ..Sentences::empty()
    }
}

/// What is to be changed by hand: edits wrapped, each command on a line of its own, whole.
pub(super) fn steps(waiting: &Waiting, body: &mut Body) {
    body.heading("What to change");
    for (n, step) in waiting.steps.iter().enumerate() {
        match step {
            Instruction::Text(text) => body.wrapped(&format!("    {}. ", n + 1), "    ", &clean(text)),
            Instruction::Command(command) => {
                body.line(&format!("    {}. Run this command:", n + 1));
                body.line(&format!("    {}", line(command)));
            }
        }
    }
    if !waiting.differences.is_empty() {
        body.line("    As it is now:");
    }
    for difference in &waiting.differences {
        body.indented(4, &clean(difference));
    }
    body.gap();
}

const WAITED_FOR: &str = "Whoever changes keys for all hosts waits for this one meanwhile.";
