//! A report in words, for whoever is on duty: what happened, what it does to the mail, what to do; then the facts.
//!
//! Only what the report says is said. It says what was true when it was made; the message may come late, so its end
//! names the command that says how things are now.

mod body;
mod facts;
mod failed;
mod keys;
mod waiting;

use self::body::Body;
pub(super) use self::body::clean;
use self::facts::{facts, of_target, proofs};
use self::failed::failed;
use self::keys::{ReportNames, previous};
use self::waiting::{pending, steps};
use crate::fault::Class;
use crate::instruction::relaykey;
use crate::rollover::{Report, ReportMode, ReportOutcome, Waiting};
use crate::text::line;

/// Subject and body of the message about a report. Neither holds a control character, the body's line feeds apart.
pub fn text(report: &Report) -> (String, String) {
    let told = tell(report);
    let host = clean(&report.host);
    let mut body = Body::default();
    body.paragraph(&told.happened);
    body.paragraph(&told.mail);
    body.paragraph(&told.to_do);
    for (what, command) in &told.commands {
        body.paragraph(what);
        body.line(&format!("    {command}"));
        body.gap();
    }
    if let Some(after) = &told.after {
        body.paragraph(after);
    }
    if let Some(waiting) = &told.steps {
        steps(waiting, &mut body);
    }
    if let Some((heading, words)) = &told.said {
        body.heading(heading);
        for line in words.lines().filter(|line| !line.trim().is_empty()) {
            body.indented(4, &clean(line));
        }
        body.gap();
    }
    if let Some(fix) = &told.fix {
        body.heading("What relaykey says to do about it");
        // Not broken into lines: there may be a command in it.
        body.line(&format!("    {}", line(fix)));
        body.gap();
    }
    facts(report, &mut body);
    for target in &report.targets {
        of_target(report, target, &mut body);
    }
    proofs(report, &mut body);
    body.heading(&format!("To see how things are now, on {host}, as root:"));
    body.line(&format!("    {}", relaykey("status")));
    body.line(&format!("    {}      (what was done before)", relaykey("history")));
    body.gap();
    body.paragraph(&format!(
        "{} on {host} sent this message by itself. The same report, for programs, is attached as report.json.",
        clean(&report.agent)
    ));
    let subject = format!("[relaykey] {host}: {} ({})", told.headline, clean(&report.credential));
    (subject, body.text.trim_end().to_owned() + "\n")
}

/// The part of a message that is told in sentences.
struct Sentences {
    /// What happened, for the subject.
    headline: String,
    happened: String,
    /// What it does to the mail.
    mail: String,
    to_do: String,
    /// Commands, each with what it is for.
    commands: Vec<(String, String)>,
    /// What happens if nobody does anything.
    after: Option<String>,
    /// What a person changes, step by step.
    steps: Option<Waiting>,
    /// Words of the report, under a heading of their own.
    said: Option<(&'static str, String)>,
    /// What to do about what is said.
    fix: Option<String>,
}

fn tell(report: &Report) -> Sentences {
    let r = ReportNames::new(report);
    // Or does a person decide about the next key?
    let by_itself = report.mode != ReportMode::Manual;
    match report.outcome {
        ReportOutcome::Confirmed => confirmed(report, &r),
        ReportOutcome::Adopted => Sentences {
            headline: "SMTP key found in use and checked".into(),
            happened: format!(
                "relaykey looks after {} on {} from now on, and found that the mail server there uses {} already. It has checked \
                 that {} accepts this key.",
                r.login, r.host, r.key, r.relay
            ),
            mail: left_over(report).unwrap_or_else(|| "Mail is not affected: nothing was changed.".into()),
            to_do: nothing_or_left_over(report, "Nothing to do."),
            ..Sentences::empty()
        },
        ReportOutcome::Failed => failed(report, &r),
        ReportOutcome::PendingApproval => pending(report, &r),
        ReportOutcome::Rejected => Sentences {
            headline: if r.another_login { "new SMTP key rejected" } else { "new SMTP key rejected, old key stays" }.into(),
            happened: format!(
                "A person has rejected {} of {}: relaykey does not put it into use on {}.",
                r.new_key, r.login, r.host
            ),
            mail: r.goes_on(),
            to_do: format!(
                "{} {} The next key that is published at the source is offered again.",
                r.keep_old(),
                match r.another_login {
                    true => "Put the login that relaykey had confirmed back by hand, or a newer key into use.",
                    false => "Nothing else to do if that was meant.",
                }
            ),
            commands: vec![(
                format!("If it was a mistake, put the key into use after all; on {}, as root:", r.host),
                r.approve(),
            )],
            after: Some(r.goes_on_if_nobody("If nobody does anything, the mail server goes on with the old key.")),
            said: r.said("Reason given"),
            ..Sentences::empty()
        },
        ReportOutcome::Withdrawn if report.error.as_ref().is_some_and(|e| e.class == Class::Superseded) => Sentences {
            headline: "key in use is not the one that was reported".into(),
            happened: format!(
                "After relaykey on {} had reported {} of {}, a newer one was put into use and never confirmed, because relaykey was \
                 broken off, or the change was made by hand; then another key came. What the mail server uses is not what was \
                 reported last: that report is withdrawn.",
                r.host, r.key, r.login
            ),
            mail: r.goes_on(),
            to_do: format!(
                "{} {}",
                r.keep_old(),
                match by_itself {
                    true => "Nothing else to do: relaykey goes on with the newest key, and reports it once it is in use.",
                    false => "Until another key is approved and in use, this host has no confirmation: see what waits, and decide.",
                }
            ),
            commands: vec![match by_itself {
                true => (
                    format!("To have that tried right away; on {}, as root:", r.host),
                    relaykey(format_args!("sync {}", r.credential)),
                ),
                false => (
                    format!("To see what waits; on {}, as root:", r.host),
                    relaykey(format_args!("status {}", r.credential)),
                ),
            }],
            said: r.said("What relaykey found"),
            ..Sentences::empty()
        },
        ReportOutcome::Withdrawn if report.error.as_ref().is_some_and(|e| e.class == Class::ByHand) => Sentences {
            headline: "a change of the mail server's login by hand is not finished".into(),
            happened: format!(
                "A new key of {} waits to be put into the mail server on {} by hand. Somebody has begun, and the mail server uses \
                 neither that key nor {}, which relaykey had reported there. That report is withdrawn.",
                r.login, r.host, r.key
            ),
            mail: format!(
                "Mail to {} may be failing, or may go out with another login, until the change is finished.",
                r.relay
            ),
            to_do: format!(
                "Do not delete any key yet. Finish the change: `{}` on the host shows what to do, step by step, and what is wrong \
                 with what is there. relaykey sees it then, and reports it.",
                relaykey("status")
            ),
            commands: vec![(format!("To see the steps; on {}, as root:", r.host), relaykey("status"))],
            said: r.said("What relaykey found"),
            ..Sentences::empty()
        },
        ReportOutcome::Withdrawn => Sentences {
            headline: "somebody else changed the mail server's login".into(),
            happened: format!(
                "Somebody else has changed the login of the mail server on {}, after relaykey had reported that {} of {} is in \
                 use there. That report is withdrawn: it is no longer true.",
                r.host, r.key, r.login
            ),
            mail: format!(
                "Mail to {} may be failing, or may go out with another login: the mail server's password table no longer holds \
                 what relaykey had put there.",
                r.relay
            ),
            to_do: "Do not delete any key yet, not even an old one: this host may be using it again. Find out who or what changes \
                    the password table (configuration management such as Puppet or Ansible, a restored backup, a colleague), and \
                    stop it. Then put the login of relaykey's key back by hand, or put a newer key into use. relaykey puts its own \
                    back by itself only where the source still gives that one, so not while a newer key waits, or was rejected or \
                    refused; where it finds a login that it knows; and where the configuration does not say drift = \"report\" or \
                    write = false; at most three times an hour. It reports that."
                .into(),
            commands: vec![(
                format!("To have relaykey look right away, and say what it does or why it does not; on {}, as root:", r.host),
                relaykey(format_args!("sync {}", r.credential)),
            )],
            said: r.said("What relaykey found"),
            ..Sentences::empty()
        },
        ReportOutcome::AppliedRefused => Sentences {
            headline: "the mail relay refuses the SMTP key in use".into(),
            happened: format!(
                "The mail relay refuses {} of {}, which {} uses. relaykey has tried it itself, twice.",
                r.key, r.login, r.host
            ),
            mail: "Mail to this relay is probably held back in the queue, until the key works or another one is there.".into(),
            to_do: match r.of_aws {
                true => "If this key was deactivated, activate it again: mail goes out with it as it did before. Else make a new key, \
                         and publish it at the source that is named below, as a new version."
                    .into(),
                false => "Make the key valid again, or publish a valid one at the source that is named below, as a new version.".into(),
            },
            commands: vec![(
                format!("To have it tried right away, or a new key taken; on {}, as root:", r.host),
                relaykey(format_args!("sync {}", r.credential)),
            )],
            after: Some("relaykey goes on trying it, and reports once it is taken again or another key is in use.".into()),
            said: r.said("What relaykey found"),
            ..Sentences::empty()
        },
        ReportOutcome::Left => Sentences {
            headline: "host no longer counts among those that use this SMTP login".into(),
            happened: format!(
                "{} no longer counts among the hosts that use {}: somebody ran `relaykey deregister` there. Nobody waits for its \
                 reports any more before an old key is deleted.",
                r.host, r.login
            ),
            mail: r.unaffected(format!(
                "Mail is not affected now: the mail server keeps the key that it has{}, and takes new ones for as long as \
                 relaykey runs there.",
                r.in_brackets(&report.username)
            )) + " But a key may be deleted while it still uses it, and then its mail stops.",
            to_do: "Nothing to do if this host sends no more mail, or gets its keys in another way.".into(),
            commands: vec![(
                format!("If it does send mail, and is to count again; on {}, as root:", r.host),
                relaykey(format_args!("confirm {}", r.credential)),
            )],
            said: r.said("What relaykey says about it"),
            ..Sentences::empty()
        },
        ReportOutcome::Alive if report.error.as_ref().is_some_and(|e| e.class == Class::OldKey) => Sentences {
            headline: "SMTP key is more than 90 days old".into(),
            happened: format!(
                "{} of {}, which {} uses, is more than 90 days old. A key is usually replaced after 90 days.",
                capital(&r.key),
                r.login,
                r.host
            ),
            mail: r.unaffected(
                "Mail is not affected: the mail server goes on with this key. This can wait for the morning.".into(),
            ),
            to_do: "Make a new key and publish it at the source that is named below, as a new version: relaykey takes it from there, \
                    and reports. Do not delete the old key before every host that uses it has reported that the new one is in use."
                .into(),
            after: Some("If nobody does anything, nothing changes, and this is not told again.".into()),
            said: r.said("What relaykey says about it"),
            ..Sentences::empty()
        },
        // What is in use is what was looked up.
        ReportOutcome::Alive if report.error.as_ref().is_some_and(|e| e.class == Class::Drift) => Sentences {
            headline: "the mail server uses another login than relaykey put there".into(),
            happened: format!("relaykey on {} is at work, and found another login in use than {}.", r.host, r.login),
            mail: "Mail may be failing, or going out with another login: do not delete any key.".into(),
            to_do: "Find out what writes the mail server's password table, and make it stop.".into(),
            said: r.said("What relaykey says about it"),
            ..Sentences::empty()
        },
        ReportOutcome::Alive => Sentences {
            headline: "still at work, SMTP key unchanged".into(),
            happened: format!("relaykey on {} is at work; {} uses {}.", r.host, r.login, r.key),
            mail: r.unaffected("Mail is not affected.".into()),
            to_do: "Nothing to do.".into(),
            ..Sentences::empty()
        },
        other => Sentences {
            headline: format!("report \"{}\" on the SMTP key", clean(other.word())),
            happened: format!(
                "relaykey on {} reports \"{}\" about {}; this version has no other words for it.",
                r.host,
                clean(other.word()),
                r.login
            ),
            mail: "What that does to the mail, it does not say.".into(),
            to_do: "Look at the facts below, and at the commands at the end of this message.".into(),
            said: r.said("What relaykey says about it"),
            ..Sentences::empty()
        },
    }
}

fn confirmed(report: &Report, r: &ReportNames) -> Sentences {
    let old = match &r.old {
        Some(old) => format!(
            "Nothing to do. This host no longer needs the previous key, {old}. Others may: delete it only when every host that used \
             it has reported as this one does."
        ),
        None => "Nothing to do.".into(),
    };
    Sentences {
        headline: match left_over_count(report) {
            0 => "new SMTP key in use".into(),
            1 => "new SMTP key in use, but one entry still holds the old key".into(),
            n => format!("new SMTP key in use, but {n} entries still hold the old key"),
        },
        happened: format!(
            "The mail server on {} now logs in with {} of {}. relaykey has checked that {} accepts this key, and that it is the \
             one that the mail server uses.",
            r.host, r.new_key, r.login, r.relay
        ),
        mail: left_over(report).unwrap_or_else(|| "Mail is not affected: it goes out with the new key.".into()),
        to_do: nothing_or_left_over(report, &old),
        ..Sentences::empty()
    }
}

fn left_over_count(report: &Report) -> usize {
    report.targets.iter().map(|t| t.held.remaining()).sum()
}

/// What entries that still hold the previous key do to the mail.
fn left_over(report: &Report) -> Option<String> {
    let n = left_over_count(report);
    let (entries, hold) = if n == 1 { ("one entry".to_owned(), "holds") } else { (format!("{n} entries"), "hold") };
    (n > 0).then(|| {
        format!(
            "Mail is not affected yet. But {entries} of the password table still {hold} the previous key, and mail that needs such \
             an entry stops when that key is deleted."
        )
    })
}

fn nothing_or_left_over(report: &Report, nothing: &str) -> String {
    if left_over_count(report) == 0 {
        return nothing.to_owned();
    }
    let key = previous(report).map(clean);
    format!(
        "Do not delete the previous key{} yet. Change or remove the entries that are listed below as \"still old\": relaykey leaves \
         them alone, because its configuration does not let it touch them (`keys`, `maps`) or because it cannot write there.",
        key.map(|key| format!(", {key},")).unwrap_or_default()
    )
}

impl Sentences {
    fn empty() -> Self {
        Self {
            headline: String::new(),
            happened: String::new(),
            mail: String::new(),
            to_do: String::new(),
            commands: Vec::new(),
            after: None,
            steps: None,
            said: None,
            fix: None,
        }
    }
}

fn capital(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map(|first| first.to_uppercase().chain(chars).collect()).unwrap_or_default()
}

#[cfg(test)]
mod tests;
