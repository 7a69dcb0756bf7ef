//! A report in words, for whoever is on duty: what happened, what it does to the mail, what to do; then the facts.
//!
//! Only what the report says is said. It says what was true when it was made; the message may come late, so its end
//! names the command that says how things are now.

use jiff::Timestamp;

use crate::fault::Class;
use crate::instruction::{Instruction, relaykey};
use crate::rollover::{ALIVE, MailServer, Report, ReportTarget, Waiting};
use crate::text::{line, line_of};

/// Columns of a line, as people's mail programs show them without wrapping.
const WIDTH: usize = 72;
/// Column at which the facts begin.
const INDENT: usize = 18;
/// Characters of any one text of a report: the words of servers have no end of their own.
const LONGEST: usize = 600;
/// Entries of any one list.
const MOST: usize = 20;

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
struct Told {
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

fn tell(report: &Report) -> Told {
    let r = Named::new(report);
    // Or does a person decide about the next key?
    let by_itself = report.mode != "manual";
    match report.outcome.as_str() {
        "confirmed" => confirmed(report, &r),
        "adopted" => Told {
            headline: "SMTP key found in use and checked".into(),
            happened: format!(
                "relaykey looks after {} on {} from now on, and found that the mail server there uses {} already. It has checked \
                 that {} accepts this key.",
                r.login, r.host, r.key, r.relay
            ),
            mail: left_over(report).unwrap_or_else(|| "Mail is not affected: nothing was changed.".into()),
            to_do: nothing_or_left_over(report, "Nothing to do."),
            ..Told::empty()
        },
        "failed" => failed(report, &r),
        "pending-approval" => pending(report, &r),
        "rejected" => Told {
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
            ..Told::empty()
        },
        "withdrawn" if report.error.as_ref().is_some_and(|e| e.class == Class::Superseded) => Told {
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
            ..Told::empty()
        },
        "withdrawn" if report.error.as_ref().is_some_and(|e| e.class == Class::ByHand) => Told {
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
            ..Told::empty()
        },
        "withdrawn" => Told {
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
            ..Told::empty()
        },
        "left" => Told {
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
            ..Told::empty()
        },
        ALIVE if report.error.as_ref().is_some_and(|e| e.class == Class::OldKey) => Told {
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
            ..Told::empty()
        },
        // What is in use is what was looked up.
        ALIVE if report.error.as_ref().is_some_and(|e| e.class == Class::Drift) => Told {
            headline: "the mail server uses another login than relaykey put there".into(),
            happened: format!("relaykey on {} is at work, and found another login in use than {}.", r.host, r.login),
            mail: "Mail may be failing, or going out with another login: do not delete any key.".into(),
            to_do: "Find out what writes the mail server's password table, and make it stop.".into(),
            said: r.said("What relaykey says about it"),
            ..Told::empty()
        },
        ALIVE => Told {
            headline: "still at work, SMTP key unchanged".into(),
            happened: format!("relaykey on {} is at work; {} uses {}.", r.host, r.login, r.key),
            mail: r.unaffected("Mail is not affected.".into()),
            to_do: "Nothing to do.".into(),
            ..Told::empty()
        },
        other => Told {
            headline: format!("report \"{}\" on the SMTP key", clean(other)),
            happened: format!(
                "relaykey on {} reports \"{}\" about {}; this version has no other words for it.",
                r.host,
                clean(other),
                r.login
            ),
            mail: "What that does to the mail, it does not say.".into(),
            to_do: "Look at the facts below, and at the commands at the end of this message.".into(),
            said: r.said("What relaykey says about it"),
            ..Told::empty()
        },
    }
}

fn confirmed(report: &Report, r: &Named) -> Told {
    let old = match &r.old {
        Some(old) => format!(
            "Nothing to do. This host no longer needs the previous key, {old}. Others may: delete it only when every host that used \
             it has reported as this one does."
        ),
        None => "Nothing to do.".into(),
    };
    Told {
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
        ..Told::empty()
    }
}

fn left_over_count(report: &Report) -> usize {
    report.targets.iter().map(|t| t.remaining_old.len()).sum()
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

fn pending(report: &Report, r: &Named) -> Told {
    if report.error.as_ref().is_some_and(|e| e.class == Class::ByHand) {
        return Told {
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
            ..Told::empty()
        };
    }
    let waiting = report.waiting.clone().unwrap_or_default();
    let by_itself = waiting.opens.map(|at| {
        let setting = waiting.window.as_ref().map(|window| format!(" (apply = \"{}\")", clean(window)));
        let at = when(&crate::rollover::rfc3339(at));
        format!("the new key goes into use by itself at {at}{}", setting.unwrap_or_default())
    });
    let dies = if waiting.if_applied_dies { ", or at once when the mail relay refuses the old one" } else { "" };
    Told {
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
        ..Told::empty()
    }
}

/// What is to be changed by hand: edits wrapped, each command on a line of its own, whole.
fn steps(waiting: &Waiting, body: &mut Body) {
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

fn failed(report: &Report, r: &Named) -> Told {
    let class = report.error.as_ref().map(|e| e.class);
    let check = || {
        vec![(
            format!("To have everything checked, each problem with its remedy; on {}, as root:", r.host),
            relaykey("check"),
        )]
    };
    let keep = r.keep_old();
    let (headline, happened, mail, to_do, commands) = match class {
        Some(Class::Refused) => (
            if r.another_login {
                "new SMTP key refused by the mail relay"
            } else {
                "new SMTP key refused by the mail relay, old key stays"
            },
            format!(
                "{} refuses {} of {}, so relaykey does not put it into use on {}.",
                capital(&r.relay),
                r.new_key,
                r.login,
                r.host
            ),
            match r.old {
                Some(_) if r.another_login => r.goes_on(),
                Some(_) => format!("{} As long as nobody deletes it, this can wait for the morning.", r.goes_on()),
                // On a host where relaykey begins, this may be the very key that the mail server has.
                None => "relaykey has changed nothing here: mail goes on with the login that the mail server has, for as long as \
                         that one is valid. Should it be this same key, mail is probably held back in the queue already."
                    .into(),
            },
            if r.of_aws {
                format!(
                    "{keep} Check in AWS that the new key is there and active, and that what is stored at the source belongs to it. \
                     If not, publish a valid key there, as a new version. relaykey goes on trying by itself."
                )
            } else {
                format!(
                    "{keep} Check at the mail relay that user name and password are valid. If not, publish valid ones at the \
                     source, as a new version. relaykey goes on trying by itself."
                )
            },
            check(),
        ),
        Some(Class::Policy | Class::Probe) => (
            if r.another_login { "new SMTP key may not send mail" } else { "new SMTP key may not send mail, old key stays" },
            format!(
                "{} accepts the login with {} of {}, but took no test message over it, so relaykey does not put it into use on {}.",
                capital(&r.relay),
                r.new_key,
                r.login,
                r.host
            ),
            format!("{} With the new key, mail would have been refused.", r.goes_on()),
            if r.of_aws {
                format!(
                    "{keep} Give the IAM user of the new key the permission to send (ses:SendRawEmail), and see that the sender \
                     address is verified in SES: what the relay said is below. relaykey goes on trying by itself."
                )
            } else {
                format!(
                    "{keep} Let the mail relay take mail from this user and sender: what it said is below. relaykey goes on trying \
                     by itself."
                )
            },
            check(),
        ),
        Some(Class::LeftBehind | Class::NotNewer) => (
            "offered SMTP key is not newer, not used",
            format!(
                "The source of {} offers a key that is not newer than the one in use, so relaykey does not take it on {}.",
                r.login, r.host
            ),
            r.goes_on(),
            format!(
                "{} If somebody put an old key back by mistake, publish the right one at the source, as a new version.",
                if r.another_login { keep.as_str() } else { "Do not delete the key in use." }
            ),
            vec![(
                format!("If going back is meant, put the offered key into use; on {}, as root:", r.host),
                relaykey(format_args!("sync {} --accept-version {}", r.credential, r.version)),
            )],
        ),
        Some(Class::ReloadOwed) => (
            "new SMTP key in place, but the mail server was not reloaded",
            format!(
                "{} of {} is in the files of the mail server on {}, but the mail server has not been told to read them again: it \
                 may still log in with the old key.",
                capital(&r.new_key),
                r.login,
                r.host
            ),
            r.unaffected("Mail is not affected for as long as the old key is valid as well.".into()),
            format!("{keep} Reload the mail server; relaykey notices that by itself and reports it."),
            vec![(format!("For Postfix, on {}, as root:", r.host), "postfix reload".into())],
        ),
        Some(Class::Drift) => (
            "mail server's login changed by somebody else and not put back",
            format!(
                "Somebody else has changed the login of the mail server on {} that relaykey looks after ({}), and relaykey has not \
                 put its own back: either it is told not to, or it did so three times within an hour.",
                r.host, r.login
            ),
            format!(
                "Mail to {} may be failing, or may go out with another login: the mail server's password table no longer holds \
                 what relaykey had put there.",
                r.relay
            ),
            "Do not delete any key. Find out who or what changes the password table (configuration management such as Puppet or \
             Ansible, a restored backup, a colleague), and stop it. relaykey puts its login back within about an hour where the \
             source still gives it, also while a newer key waits or is refused. Where the source does not (a file holds one key \
             only), or the configuration says drift = \"report\", put it back by hand, or put the newer key into use."
                .into(),
            check(),
        ),
        _ if report.username.is_empty() => (
            "cannot look for a new SMTP key",
            format!("relaykey on {} cannot find out whether there is a new key for {}.", r.host, r.login),
            r.goes_on(),
            match (&r.keep, r.another_login) {
                (Some(_), true) => format!("{keep} See to what stood in the way; relaykey goes on trying by itself."),
                _ => "Do not delete the key in use: this host would not notice a new one. See to what stood in the way; relaykey \
                      goes on trying by itself."
                    .into(),
            },
            check(),
        ),
        _ if report.of_applied => (
            "mail server's login could not be put back",
            format!(
                "The mail server on {} does not hold {} of {} any more, which relaykey had put there, and relaykey could not put it \
                 back.",
                r.host, r.key, r.login
            ),
            format!(
                "Mail to {} may be failing, or may go out with another login, which relaykey has not checked.",
                r.relay
            ),
            "Do not delete any key. See to what stood in the way, and find out who or what changes the password table; relaykey goes \
             on trying by itself where it knows the login that it finds there."
                .into(),
            check(),
        ),
        _ => (
            "new SMTP key could not be put into use",
            format!("relaykey could not put {} of {} into use on {}.", r.new_key, r.login, r.host),
            r.goes_on(),
            format!("{keep} See to what stood in the way; relaykey goes on trying by itself."),
            check(),
        ),
    };
    let heading = if class == Some(Class::Drift) { "What relaykey found" } else { "What stood in the way" };
    let apart = report.error.as_ref().and_then(|e| Some((e.what.clone()?, e.fix.clone()?)));
    let (said, fix) = match apart {
        Some((what, fix)) => (Some((heading, what)), Some(fix)),
        None => (r.said(heading), None),
    };
    Told { headline: headline.into(), happened, mail, to_do, commands, said, fix, ..Told::empty() }
}

impl Told {
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

/// What sentences are made of: every text of the report that they need, cleaned.
struct Named {
    host: String,
    /// For commands.
    credential: String,
    version: String,
    /// `the SMTP login "ses"`.
    login: String,
    /// `the mail relay HOST:PORT`.
    relay: String,
    /// `the key AKIA…`.
    key: String,
    /// `the new key AKIA…`.
    new_key: String,
    /// The key in use, as it was looked up where it was; else the key before. Its name alone.
    old: Option<String>,
    /// Every key that must not be deleted: what is in use, and what was before.
    keep: Option<String>,
    /// It was looked up, and the mail server has none.
    no_login: bool,
    /// It was looked up, and is one that relaykey neither confirmed nor put there: whether it is valid nobody here knows.
    another_login: bool,
    of_aws: bool,
    mail_server: Option<MailServer>,
    words: Option<String>,
}

impl Named {
    fn new(report: &Report) -> Self {
        let key = |new: &str| match report.username.as_str() {
            "" => format!("the{new} key"),
            name => format!("the{new} key {}", clean(name)),
        };
        let mut relays: Vec<String> = report.targets.iter().map(|t| clean(&t.evidence.endpoint)).collect();
        relays.retain(|relay| !relay.is_empty());
        relays.sort();
        relays.dedup();
        Self {
            host: clean(&report.host),
            credential: argument(&report.credential),
            version: argument(&report.version),
            login: format!("the SMTP login \"{}\"", clean(&report.credential)),
            relay: match relays.as_slice() {
                [] => "the mail relay".into(),
                [one] => format!("the mail relay {one}"),
                several => format!("each of the mail relays {}", several.join(", ")),
            },
            key: key(""),
            new_key: key(" new"),
            old: in_use_or_previous(report),
            keep: kept(report),
            no_login: report.in_use.as_ref().is_some_and(Vec::is_empty),
            another_login: report.another_login,
            of_aws: is_aws_key(&report.username),
            mail_server: report.mail_server,
            words: report.error.as_ref().map(|e| e.words.trim().to_owned()).filter(|words| !words.is_empty()),
        }
    }

    /// What a key that is not put into use does to the mail. Several targets are independent, so that one may have the
    /// new key already.
    fn goes_on(&self) -> String {
        self.unaffected(match &self.old {
            _ if self.no_login => "The mail server was found to have no login for this mail relay: mail bounces, or waits.".into(),
            Some(old) => format!(
                "Mail is not affected for now: the mail server goes on with the key that it has ({old}), for as long as that one \
                 is valid."
            ),
            None => "Mail is not affected for now: the mail server goes on with the login that it has, for as long as that one is \
                     valid."
                .into(),
        })
    }

    /// What comes of doing nothing, where the mail server uses what relaykey knows.
    fn goes_on_if_nobody(&self, claim: &str) -> String {
        match self.another_login {
            true => "If nobody does anything, the mail server goes on with the login that was found there.".into(),
            false => claim.to_owned(),
        }
    }

    /// What may be said where the mail server was seen running when the report was made; else what is known.
    fn unaffected(&self, claim: String) -> String {
        match self.mail_server {
            Some(MailServer::Runs | MailServer::NoProcess) | None if self.another_login => format!(
                "Mail may be failing, or going out with another login: the mail server uses {}, which relaykey did not put there.",
                self.old.as_deref().unwrap_or("a login")
            ),
            Some(MailServer::Runs | MailServer::NoProcess) => claim,
            Some(MailServer::Stopped) => {
                format!(
                    "The mail server on {} was not running: no mail goes out from there until it is started.",
                    self.host
                )
            }
            None => {
                "What that does to the mail is not known: this report does not say whether the mail server runs.".into()
            }
        }
    }

    fn keep_old(&self) -> String {
        match &self.keep {
            Some(old) if self.another_login => format!("Do not delete any key that was in use here ({old})."),
            Some(old) if old.contains(" and ") => format!("Do not delete any of the old keys ({old})."),
            Some(old) => format!("Do not delete the old key ({old})."),
            None => "Do not delete the old key, if there is one.".into(),
        }
    }

    fn approve(&self) -> String {
        relaykey(format_args!("approve {} --version {}", self.credential, self.version))
    }

    fn in_brackets(&self, key: &str) -> String {
        if key.is_empty() { String::new() } else { format!(" ({})", clean(key)) }
    }

    fn said(&self, heading: &'static str) -> Option<(&'static str, String)> {
        self.words.clone().map(|words| (heading, words))
    }
}

/// The key before this one, where that is known and another.
fn previous(report: &Report) -> Option<&str> {
    report.previous_username.as_deref().filter(|old| !old.is_empty() && *old != report.username)
}

/// The keys that were found in use, without the version that the report is about. The same key in another version has another
/// password.
fn others_in_use(report: &Report) -> Vec<String> {
    if report.version_in_use.as_ref() == Some(&report.version) && !is_of_applied(report) {
        return Vec::new();
    }
    let name = |name: &String| match *name == report.username && !is_of_applied(report) {
        true => format!("{name}, with another password"),
        false => name.clone(),
    };
    named(report.in_use.iter().flatten().filter(|name| !name.is_empty()).map(name).collect())
}

/// So many keys are named; of the others it is said how many there are.
const NAMED: usize = 4;

fn named(mut keys: Vec<String>) -> Vec<String> {
    let others = keys.len().saturating_sub(NAMED);
    if others > 0 {
        keys.truncate(NAMED);
        keys.push(format!("{others} more"));
    }
    keys
}

/// Is the report about the applied version rather than about one that is to come?
fn is_of_applied(report: &Report) -> bool {
    report.of_applied || matches!(report.outcome.as_str(), "withdrawn" | "alive" | "left")
}

/// The key in use, as it was looked up where it was; else the key before.
fn in_use_or_previous(report: &Report) -> Option<String> {
    match report.in_use.as_deref() {
        None | Some([]) => previous(report).map(clean),
        Some(found) => {
            let others = others_in_use(report);
            let all = if others.is_empty() { named(found.to_vec()) } else { others };
            Some(all.iter().map(|name| clean(name)).collect::<Vec<_>>().join(" and "))
        }
    }
}

/// Every key that must not be deleted yet: those in use, the key before, and what a report that is taken back was about.
fn kept(report: &Report) -> Option<String> {
    let mut all = others_in_use(report);
    let before = previous(report).filter(|_| all.is_empty() || !is_of_applied(report));
    let reported = Some(report.username.as_str()).filter(|name| is_of_applied(report) && !name.is_empty());
    let half_done = report.half_done.iter().map(String::as_str).filter(|name| *name != report.username);
    for name in before.into_iter().chain(reported).chain(half_done).map(str::to_owned) {
        if !all.contains(&name) {
            all.push(name);
        }
    }
    (!all.is_empty()).then(|| all.iter().map(|name| clean(name)).collect::<Vec<_>>().join(" and "))
}

/// Access key ids begin like this (IAM user guide, "Unique identifiers").
fn is_aws_key(username: &str) -> bool {
    username.starts_with("AKIA")
}

fn capital(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map(|first| first.to_uppercase().chain(chars).collect()).unwrap_or_default()
}

// ---------------------------------------------------------------- facts

fn facts(report: &Report, body: &mut Body) {
    body.heading("Facts");
    body.fact("host", &report.host);
    body.fact("SMTP login", &format!("{} (its name in relaykey's configuration)", report.credential));
    let class = report.error.as_ref().map(|e| e.class);
    let (new, old) = match (report.outcome.as_str(), class) {
        ("withdrawn", Some(Class::Superseded)) => ("key reported", "previous key"),
        ("withdrawn", _) | ("failed", Some(Class::Drift)) => ("relaykey's key", "previous key"),
        ("failed", _) if report.of_applied => ("relaykey's key", "previous key"),
        // In the files, and perhaps not in use.
        ("failed", Some(Class::ReloadOwed)) => ("new key", "previous key"),
        ("pending-approval" | "rejected" | "failed", _) => ("new key", "key in use"),
        _ => ("key in use", "previous key"),
    };
    if !report.username.is_empty() {
        body.fact(new, &report.username);
    }
    let previous = previous(report);
    let others = others_in_use(report);
    let no_login = report.in_use.as_ref().is_some_and(Vec::is_empty);
    if old == "key in use" && (no_login || !others.is_empty()) {
        body.fact(old, &if no_login { "none: no login was found".to_owned() } else { others.join(" and ") });
        if let Some(previous) = previous.filter(|previous| !others.iter().any(|other| other == previous)) {
            // What was confirmed here, and is not in use.
            body.fact(if report.another_login { "relaykey's key" } else { "previous key" }, previous);
        }
    } else {
        let is_told =
            report.another_login || matches!(class, Some(Class::Superseded | Class::Drift)) || report.of_applied;
        if let Some(found) = report.in_use.clone().map(named).filter(|_| is_told) {
            body.fact("found in use", &if found.is_empty() { "no login".to_owned() } else { found.join(" and ") });
        }
        if let Some(previous) = previous {
            body.fact(old, previous);
        }
    }
    if !report.half_done.is_empty() {
        let names = named(report.half_done.clone()).join(" and ");
        let what = "in the text of the password table, and not in what the mail server reads: relaykey was broken off";
        body.fact("half in place", &format!("{names} ({what})"));
    }
    body.explain(if is_aws_key(&report.username) || previous.is_some_and(is_aws_key) {
        "A key is the user name and password that the mail server logs in with at the mail relay. It is called by its user name, \
         which in AWS is the \"access key id\" and no secret."
    } else {
        "A key is the user name and password that the mail server logs in with at the mail relay. It is called by its user name."
    });
    if !report.version.is_empty() {
        body.fact("version", &format!("{} (what the source calls this key)", report.version));
    }
    if !report.source.is_empty() {
        body.fact("source", &format!("{} (where new keys come from)", report.source));
    }
    body.fact("when", &when(&report.at));
    if let Some(person) = &report.approved_by {
        // The one who said no stands in the same place.
        body.fact(if report.outcome == "rejected" { "rejected by" } else { "approved by" }, person);
    }
    body.fact("report", &format!("number {}, {}", report.seq, report.id));
    body.gap();
}

fn of_target(report: &Report, target: &ReportTarget, body: &mut Body) {
    body.heading(&format!("Mail server \"{}\" ({})", clean(&target.name), clean(&target.kind)));
    if !target.map.is_empty() {
        body.fact("password table", &target.map);
    }
    for (n, key) in shortened(&target.keys).iter().enumerate() {
        body.fact(if n == 0 { "entries" } else { "" }, key);
    }
    if !target.evidence.endpoint.is_empty() {
        let at = when(&crate::rollover::rfc3339(target.evidence.at));
        body.fact("login tried at", &format!("{}, {at}", target.evidence.endpoint));
    }
    if !target.evidence.reply.is_empty() {
        body.fact("it answered", &target.evidence.reply);
    }
    if !target.read_back.is_empty() {
        body.fact("read back with", &format!("{} (how it was seen what the mail server uses)", target.read_back));
    }
    for (n, key) in shortened(&target.remaining_old).iter().enumerate() {
        body.fact(if n == 0 { "still old" } else { "" }, key);
    }
    if !target.remaining_old.is_empty() {
        let key = previous(report).map(|key| format!(", {}", clean(key)));
        body.explain(&format!("What still holds the previous key{}.", key.unwrap_or_default()));
    }
    body.gap();
}

/// Which targets have a proof, and why the others have none. The proofs themselves are for programs.
fn proofs(report: &Report, body: &mut Body) {
    let several = report.targets.len() > 1;
    let of = |t: &ReportTarget| if several { format!(" for \"{}\"", clean(&t.name)) } else { String::new() };
    if report.targets.iter().any(|t| t.proof.is_some()) {
        body.paragraph(
            "That this host holds the key can be proved: whoever knows the key's password gives the attached report.json to \
             `relaykey verify-proof`.",
        );
    }
    for target in &report.targets {
        if let (None, Some(why)) = (&target.proof, &target.no_proof) {
            let why = clean(why);
            let why = why.trim_end_matches('.');
            body.paragraph(&format!("There is no proof{} that this host holds the key: {why}.", of(target)));
        }
    }
}

fn shortened(list: &[String]) -> Vec<String> {
    let mut short: Vec<String> = list.iter().take(MOST).cloned().collect();
    if list.len() > MOST {
        short.push(format!("and {} more: see report.json", list.len() - MOST));
    }
    short
}

/// `2027-01-15 08:00:00 UTC`; the text itself where it is no time.
fn when(at: &str) -> String {
    at.parse::<Timestamp>().map_or_else(|_| at.to_owned(), |at| at.strftime("%Y-%m-%d %H:%M:%S UTC").to_string())
}

// ---------------------------------------------------------------- text

/// A text from elsewhere on one line: blanks made one, cut.
pub(super) fn clean(text: &str) -> String {
    line_of(&text.split_whitespace().collect::<Vec<_>>().join(" "), LONGEST).into_owned()
}

/// One argument of a command that is to be copied into a shell.
fn argument(text: &str) -> String {
    let text = clean(text);
    let plain = |c: char| c.is_ascii_alphanumeric() || "._:/@%+=-".contains(c);
    if !text.is_empty() && !text.starts_with('-') && text.chars().all(plain) {
        return text;
    }
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[derive(Default)]
struct Body {
    text: String,
}

impl Body {
    fn line(&mut self, line: &str) {
        self.text.push_str(line.trim_end());
        self.text.push('\n');
    }

    /// An empty line, unless there is one.
    fn gap(&mut self) {
        if !self.text.is_empty() && !self.text.ends_with("\n\n") {
            self.text.push('\n');
        }
    }

    fn paragraph(&mut self, text: &str) {
        self.wrapped("", "", text);
        self.gap();
    }

    fn heading(&mut self, text: &str) {
        self.gap();
        self.wrapped("", "", text);
    }

    fn indented(&mut self, columns: usize, text: &str) {
        let margin = " ".repeat(columns);
        self.wrapped(&margin, &margin, text);
    }

    /// A line of the table of facts.
    fn fact(&mut self, label: &str, text: &str) {
        let first = format!("  {label:<width$}", width = INDENT - 2);
        self.wrapped(&first, &" ".repeat(INDENT), &clean(text));
    }

    /// A remark on the fact above.
    fn explain(&mut self, text: &str) {
        self.indented(INDENT, text);
    }

    /// Lines of at most [`WIDTH`] columns; a word that is longer stands whole, so that it can be copied.
    fn wrapped(&mut self, first: &str, margin: &str, text: &str) {
        let mut line = first.to_owned();
        let mut empty = true;
        for word in text.split(' ').filter(|word| !word.is_empty()) {
            if !empty && line.chars().count() + 1 + word.chars().count() > WIDTH {
                self.line(&line);
                line = margin.to_owned();
                empty = true;
            }
            if !empty {
                line.push(' ');
            }
            line.push_str(word);
            empty = false;
        }
        self.line(&line);
    }
}

#[cfg(test)]
mod tests;
