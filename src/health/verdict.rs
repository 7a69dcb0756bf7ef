//! What a status means to whoever is on duty: what is wrong, what it does to the mail, and what to do, in plain words.
//!
//! Only what the document says is said: where it does not tell whether mail flows, the words say what that hangs on.

use jiff::{SignedDuration, Timestamp};

use crate::fault::Class;
use crate::instruction::{Instruction, relaykey};
use crate::rollover::{OLD_KEY, OwnResult, RefusedNewKey, ReportMode};
use crate::status::{CredentialStatus, InUseStatus, NotReady, Notice, PendingStatus, Status, words};

/// How much something wants a person.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Level {
    /// Nobody.
    Fine,
    /// Nobody: it is being worked on.
    Busy,
    /// Somebody, today. Mail is not stopped by it.
    Soon,
    /// Somebody, now: mail may be stopped by it.
    Now,
}

impl Level {
    /// The class in the style sheet.
    pub(super) fn class(self) -> &'static str {
        match self {
            Level::Fine => "fine",
            Level::Busy => "busy",
            Level::Soon => "soon",
            Level::Now => "now",
        }
    }

    /// A sign that is told apart without its colour.
    pub(super) fn sign(self) -> &'static str {
        match self {
            Level::Fine => "✓",
            Level::Busy => "⋯",
            Level::Soon => "!",
            Level::Now => "✕",
        }
    }

    /// Then what stands under "what to do" is why nothing is.
    pub(super) fn wants_nobody(self) -> bool {
        matches!(self, Level::Fine | Level::Busy)
    }

    pub(super) fn words(self) -> &'static str {
        match self {
            Level::Fine => "Fine",
            Level::Busy => "Under way",
            Level::Soon => "Needs attention",
            Level::Now => "Act now",
        }
    }
}

/// One thing that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PageTrouble {
    pub level: Level,
    /// What is wrong, as the end of the sentence `NAME: …`.
    pub headline: String,
    /// What it does to the mail.
    pub mail: String,
    /// What the program or another server said; empty where the headline says it all.
    pub what: String,
    /// What to do, or why nothing is to be done ([`Level::wants_nobody`]). A command stands between two backticks.
    pub fix: String,
    /// The same as a list below it, where it is more than one thing.
    pub list: Todo,
}

/// What to do, one thing to a line; in sentences commands stand between two backticks.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) enum Todo {
    #[default]
    Nothing,
    /// All of it, in this order; then what is good to know about it.
    Steps(Vec<Instruction>, String),
    /// One of these.
    Choices(Vec<String>),
}

/// Everything that is wrong with a credential, what is most urgent first.
pub(super) fn troubles(c: &CredentialStatus, now: Timestamp) -> Vec<PageTrouble> {
    // Where something stands in the way of a new key, that is the news, and not that the key is not in use yet.
    let waits = |n: &&NotReady| matches!(n.class, Class::NeverApplied | Class::Pending);
    // It is tried again every day while it waits: there is nothing to decide about a key that is refused by then.
    let is_refused = c.pending.is_some() && c.not_ready.iter().any(|n| n.class == Class::Refused);
    let undecided = |n: &&NotReady| is_refused && n.class == Class::PendingApproval;
    // A start settles the reload, and is asked for already.
    let settled = |n: &&NotReady| {
        n.class == Class::ReloadOwed && c.owed.iter().all(|o| c.mail_server_stopped.contains(&o.target))
    };
    let stands = |n: &&NotReady| !waits(n) && !undecided(n) && !settled(n);
    let obstacles: Vec<&NotReady> = c.not_ready.iter().filter(stands).collect();
    let told = if obstacles.is_empty() { c.not_ready.iter().collect() } else { obstacles };
    let mut all: Vec<PageTrouble> = Vec::new();
    for (i, n) in told.iter().enumerate() {
        // What is to be done by hand is told once, for all targets.
        let again = n.class == Class::ByHand && told[..i].iter().any(|before| before.class == n.class);
        all.extend((!again).then(|| of_reason(c, n, now)));
    }
    all.extend(c.notices.iter().filter_map(|n| of_notice(c, n, now)));
    all.extend(c.left.map(|at| of_leaving(c, at, now)));
    all.extend(old_key(c).map(|age| of_old_key(c, &age)));
    all.sort_by_key(|t| std::cmp::Reverse(t.level));
    all
}

/// The age in days, where it is too high.
pub(super) fn old_key(c: &CredentialStatus) -> Option<String> {
    let age = SignedDuration::from_secs(c.applied.as_ref()?.key_age_seconds);
    (age > OLD_KEY).then(|| format!("{} days", age.as_hours() / 24))
}

fn of_old_key(c: &CredentialStatus, age: &str) -> PageTrouble {
    let (level, fix) = match &c.pending {
        Some(p) if p.rejected.is_none() => (
            Level::Busy,
            format!("the new key that is here already ({}) takes its place once it is in use", p.username),
        ),
        _ => {
            let then = match (c.mode, c.by_hand.is_empty()) {
                (_, false) => "relaykey tries it, then says what is to be changed by hand",
                (ReportMode::Manual, true) => "relaykey tries it, then waits for somebody to approve it",
                _ => "relaykey takes it from there",
            };
            let source = &c.source_in_full;
            (Level::Soon, format!("make a new key and publish it as a new version at the source, {source}; {then}"))
        }
    };
    PageTrouble {
        level,
        headline: format!("the key is at least {age} old"),
        mail: unaffected(
            c,
            "Mail is not affected: this can wait for the morning. A key is usually replaced after 90 days; until then the mail server \
             goes on with it.",
        ),
        what: String::new(),
        fix,
        list: Todo::Nothing,
    }
}

/// What may be said where the mail server was seen running; else what is known.
fn unaffected(c: &CredentialStatus, claim: &str) -> String {
    c.mail_not_known().map_or(claim.to_owned(), |known| {
        let mut chars = known.chars();
        let first = chars.next().map(|c| c.to_uppercase().collect::<String>()).unwrap_or_default();
        format!("{first}{}.", chars.as_str())
    })
}

/// `relaykey deregister` was run here, and relaykey still runs.
fn of_leaving(c: &CredentialStatus, at: Timestamp, now: Timestamp) -> PageTrouble {
    PageTrouble {
        level: Level::Soon,
        headline: "this host has left the fleet, the hosts that share this key".into(),
        mail: unaffected(c, "Mail is not affected yet.")
            + " But nobody waits for this host any more before an old key is deleted: if mail still goes out from here, it may stop \
               then.",
        what: format!("relaykey deregister was run here {}", since(at, now)),
        fix: "one of these".into(),
        list: Todo::Choices(vec![
            "if this host sends no more mail: stop relaykey, `systemctl disable --now relaykey`".into(),
            format!(
                "if it still sends mail, so that it counts again: `{}`",
                relaykey(format_args!("confirm {}", c.name))
            ),
        ]),
    }
}

/// What the mail log said, where it is trouble: mail is stopped, whatever the state of the key.
pub(super) fn of_notice(c: &CredentialStatus, n: &Notice, now: Timestamp) -> Option<PageTrouble> {
    let mut fix = n.fix.clone();
    let (headline, mail) = match n.class {
        // Anybody may write to the mail log: what our own login says is told with it, or instead of it.
        Class::Refused if c.applied_refused.is_some() => return None,
        Class::Refused => return Some(of_hint(c, n, now)),
        Class::NoLogin => {
            fix = format!("run `{}`: it names next hops without an entry in the password table", relaykey("check"));
            (
                "the mail log tells that the mail server sends without logging in",
                "Mail to this relay bounces, or the line is not Postfix's.",
            )
        }
        Class::NoMechanism => (
            "the mail log tells that the mail server has no way of logging in at the mail relay",
            "Mail to this relay is probably held back in the queue, or the line is not Postfix's. Another key does not help.",
        ),
        Class::Policy => (
            "the mail log tells that messages are refused although the login is right",
            "Mail is being refused, at least some of it, or the line is not Postfix's. Another key does not help: what is missing \
             is a permission, or a verified sender, in AWS.",
        ),
        _ => return None,
    };
    Some(PageTrouble {
        level: Level::Now,
        headline: headline.into(),
        mail: mail.into(),
        what: format!("{} ({})", n.what, since(n.at, now)),
        fix,
        list: Todo::Nothing,
    })
}

/// The mail log tells of a refusal, which is a hint: what our own login came to says what it is worth.
fn of_hint(c: &CredentialStatus, n: &Notice, now: Timestamp) -> PageTrouble {
    let headline = "the mail log tells that the mail relay refuses the mail server's login";
    let said = c.own_login.as_ref().filter(|own| own.at + SignedDuration::from_mins(30) >= n.at);
    let another = c.in_use.iter().any(InUseStatus::is_foreign);
    let (level, mail, fix) = match said.map(|own| &own.result) {
        Some(OwnResult::Accepted) if another => (
            Level::Now,
            "relaykey's own login with the key that this host had confirmed is accepted: the mail server uses another login \
             than that, as was looked up."
                .to_owned(),
            format!("see to that login: `{}` tells it, and what to do", relaykey("status")),
        ),
        Some(OwnResult::Accepted) => (
            Level::Soon,
            "relaykey's own login with the key in use is accepted: another table, service or instance of the mail server \
             uses another login, or the line is not Postfix's."
                .to_owned(),
            format!("run `{}`: it names every login that the mail server uses", relaykey("check")),
        ),
        Some(OwnResult::NotGiven { what, .. }) => (
            Level::Now,
            format!("Mail may be held back in the queue. relaykey cannot try that itself: {what}."),
            format!(
                "check in AWS that the key is still active; if it is not, publish a valid one at the source, {}, then run \
                 `{}`",
                c.source_in_full,
                relaykey(format_args!("sync {}", c.name))
            ),
        ),
        _ => (
            Level::Soon,
            "Mail may be held back in the queue. relaykey tries the key in use itself: two refusals prove it.".to_owned(),
            format!("look again in a few minutes, or run `{}`: it says what that came to", relaykey("status")),
        ),
    };
    let what = format!("{} ({})", n.what, since(n.at, now));
    PageTrouble { level, headline: headline.into(), mail, what, fix, list: Todo::Nothing }
}

fn of_reason(c: &CredentialStatus, n: &NotReady, now: Timestamp) -> PageTrouble {
    let goes_on = match (c.key_in_use(), &c.pending) {
        _ if c.applied_refused.is_some() => {
            "Mail is probably held back in the queue: the mail relay refuses the key in use.".to_owned()
        }
        // What is in use is what was looked up.
        (who, _) if c.applied.is_some() && c.in_use.iter().any(InUseStatus::is_foreign) => format!(
            "The mail server uses {}, which is {}: do not delete any key.",
            who.unwrap_or_else(|| "no login".into()),
            match c.in_use.iter().filter(|found| found.is_foreign()).all(|found| c.by_hand.contains(&found.target)) {
                true => "neither what this host had confirmed nor the new key",
                false => "not what relaykey put there",
            }
        ),
        // Who sees that a new key is there may think that the old one can go.
        (Some(who), Some(_)) if c.applied.is_some() => {
            format!("Mail is not affected for as long as the old key ({who}) is valid: do not delete that one yet.")
        }
        (Some(who), None) if c.applied.is_some() => {
            format!("Mail is not affected for as long as the key in use ({who}) is valid.")
        }
        (None, _) if c.applied.is_some() => "The mail server has no login: mail bounces, or waits.".into(),
        _ => "relaykey has changed nothing on this host: mail goes as it did before.".into(),
    };
    let goes_on = match &c.applied {
        Some(_) => c.mail_not_known().map_or(goes_on, |_| unaffected(c, "") + " Do not delete any key yet."),
        None => goes_on,
    };
    let (mut what, mut fix) = (n.what.clone(), n.fix.clone());
    match (n.class, &c.pending) {
        (Class::PendingApproval, Some(p)) => return of_approval(c, p, &goes_on, now),
        (Class::ByHand, Some(p)) => return of_by_hand(c, p, &goes_on, now),
        (Class::Rejected, Some(p)) => return of_rejection(c, p, &goes_on, now),
        _ => {}
    }
    let (level, headline, mail) = match n.class {
        Class::AppliedRefused => (
            Level::Now,
            "the mail relay refuses the key in use".into(),
            "Mail to this relay is probably held back in the queue, until the key works or another one is there."
                .into(),
        ),
        Class::NotRunning => {
            what.clear();
            let mut mail = unaffected(c, "");
            if let Some(found) = c.starts_with_the_new_key().first() {
                mail.push_str(&format!(
                    " The new key ({}) is in its files, and in use once it is started. Do not delete any key before relaykey has \
                     confirmed that.",
                    found.who()
                ));
            }
            (Level::Now, "the mail server is not running".into(), mail)
        }
        Class::Refused => match (&c.applied, &c.pending) {
            (Some(_), Some(p)) => {
                // The line on the mail says that the old one stays.
                fix = RefusedNewKey::OnPage { username: &p.username, source: &c.source_in_full }.fix();
                (
                    Level::Soon,
                    "the new key is refused by the mail relay".into(),
                    format!(
                        "{goes_on} This can wait for the morning: the new key is not put into use, and relaykey goes on trying it."
                    ),
                )
            }
            (Some(a), None) => (
                Level::Now,
                "the key in use is refused by the mail relay".into(),
                format!("Mail that logs in with it ({}) is probably held back in the queue.", a.username),
            ),
            (None, _) => (Level::Soon, "the key is refused by the mail relay".into(), goes_on),
        },
        Class::Drift => {
            // What a person changes is not healed, whatever `drift` says.
            // Nor is a login that is not ours, which relaykey leaves where it is.
            let is_foreign = c.failures.iter().any(|f| f.failure.class == Class::Ambiguous);
            let then = match c.instead_of_putting_back() {
                _ if !c.by_hand.is_empty() || is_foreign => "; then put the login back by hand".to_owned(),
                // The reason says it.
                _ if c.says_how_to_put_back() => String::new(),
                Some(instead) => format!("; then {instead}"),
                None => "; then wait: relaykey puts its login back within about an hour. Where the configuration says \
                              drift = \"report\", it does not: put it back by hand"
                    .to_owned(),
            };
            fix.push_str(&then);
            fix.push_str(". Do not delete any key meanwhile");
            (
                Level::Now,
                "somebody else changed the mail server's login".into(),
                format!(
                    "Mail may be failing, or going out with another login: the mail server's password table \
                     (smtp_sasl_password_maps) no longer holds what relaykey {}.{}",
                    if c.by_hand.is_empty() { "put there" } else { "had confirmed" },
                    taken_back(c)
                ),
            )
        }
        Class::Superseded if c.in_use.iter().any(|found| found.begun_by_hand) => (
            Level::Soon,
            "the key in use was put there by hand, as relaykey had asked, and never confirmed".into(),
            goes_on,
        ),
        Class::Superseded => {
            (Level::Soon, "the key in use was put there by relaykey and never confirmed".into(), goes_on)
        }
        Class::ReloadOwed => (
            Level::Soon,
            "the mail server has not been reloaded".into(),
            unaffected(c, "Mail is not affected for as long as the old key is valid: do not delete that one yet.")
                + " The new key is in place, but the mail server may still be using the old one.",
        ),
        Class::LeftBehind => {
            (Level::Soon, "the source offers a key that is not newer, so it is not used".into(), goes_on)
        }
        Class::NeverApplied => {
            what.clear();
            (Level::Soon, "no key has been put into use on this host yet".into(), goes_on)
        }
        Class::Pending if c.failures.iter().any(|f| f.failure.class == Class::NotYet) => {
            fix = "SES may not know a new key for some minutes, and it is tried again until it does".into();
            (Level::Busy, "the mail relay does not take the new key yet".into(), goes_on)
        }
        Class::Pending if c.not_given().is_some() => {
            (Level::Soon, "a new key was seen, and the source does not give it now".into(), goes_on)
        }
        Class::Pending => {
            fix = "it is being worked on".into();
            (Level::Busy, "a new key is being put into use".into(), goes_on)
        }
        Class::SourceDown => (
            Level::Soon,
            "the source of the key does not answer".into(),
            format!("{goes_on} A new key would not be noticed."),
        ),
        Class::NoLook => (
            Level::Soon,
            "relaykey has not looked for a new key for too long".into(),
            format!("{goes_on} A new key would not be noticed."),
        ),
        Class::ReportOwed => (
            Level::Soon,
            "a report of this host does not get through".into(),
            unaffected(c, "Mail is not affected: this can wait for the morning.")
                + " Until the report arrives, nobody elsewhere knows that this host uses the new key, so the old key is not retired.",
        ),
        _ if c.pending.is_some() => (Level::Soon, "the new key cannot be put into use".into(), goes_on),
        _ => (Level::Soon, "relaykey cannot do its work".into(), goes_on),
    };
    PageTrouble { level, headline, mail, what, fix, list: Todo::Nothing }
}

/// A verified key that waits for somebody's decision, or for its hours.
fn of_approval(c: &CredentialStatus, p: &PendingStatus, goes_on: &str, now: Timestamp) -> PageTrouble {
    let otherwise = match (&p.window, p.if_applied_dies) {
        (Some(window), _) => format!("it goes into use by itself: {window}, in this host's local time"),
        (None, false) => "it goes on waiting".to_owned(),
        (None, true) => "it goes on waiting, until the mail relay refuses the old key".to_owned(),
    };
    let (level, headline, fix) = match &p.window {
        Some(_) => (
            Level::Busy,
            "a new key waits for its time window, or for somebody's approval",
            "it goes into use by itself. To decide before that, as root on this host",
        ),
        None => (Level::Soon, "a new key waits for somebody's approval", "decide, as root on this host"),
    };
    PageTrouble {
        level,
        headline: headline.into(),
        mail: format!("{goes_on} {} If nobody decides, {otherwise}.", has_waited(c, p, now)),
        what: String::new(),
        fix: fix.into(),
        list: Todo::Choices(vec![
            format!("to put it into use now: `{}`", approve(c, p)),
            format!(
                "to refuse it: `{}`",
                relaykey(format_args!("reject {} --version {} --reason \"...\"", c.name, p.version))
            ),
        ]),
    }
}

/// The command that puts the version that waits into use.
fn approve(c: &CredentialStatus, p: &PendingStatus) -> String {
    relaykey(format_args!("approve {} --version {}", c.name, p.version))
}

/// A verified key that somebody is to put into the mail server's files.
fn of_by_hand(c: &CredentialStatus, p: &PendingStatus, goes_on: &str, now: Timestamp) -> PageTrouble {
    let by_hand = p.changes.iter().filter(|change| change.by_hand);
    let steps: Vec<Instruction> = by_hand.flat_map(|change| change.todo()).collect();
    if steps.is_empty() {
        // Somebody ran `relaykey confirm` before the new key was there.
        return PageTrouble {
            level: Level::Busy,
            headline: "the mail server does not hold the new key yet".into(),
            mail: goes_on.to_owned(),
            what: String::new(),
            fix: format!(
                "relaykey puts it there at its next look; to have that now: `{}`",
                relaykey(format_args!("sync {}", c.name))
            ),
            list: Todo::Nothing,
        };
    }
    let (level, headline, mail) = match c.withdrawn {
        Some(_) => (
            Level::Now,
            "the change to a new key by hand is only half done",
            format!(
                "Mail may be failing, or going out with another login: the mail server's files no longer hold the old key \
                 rightly, and not yet the new one.{}",
                taken_back(c)
            ),
        ),
        None => {
            let headline = "a new key waits for somebody to put it into the mail server";
            (Level::Soon, headline, format!("{goes_on} {}", has_waited(c, p, now)))
        }
    };
    // What is there is what was there, until somebody has begun.
    let begun = p.changes.iter().filter(|change| change.by_hand && c.withdrawn.is_some());
    let what: Vec<&str> = begun.flat_map(|c| &c.change.differences).map(String::as_str).collect();
    PageTrouble {
        level,
        headline: headline.into(),
        mail,
        what: what.join("; "),
        fix: "change the mail server's files, as root on this host, in this order".into(),
        list: Todo::Steps(
            steps,
            format!(
                "`***` stands for the password: `{}` shows it, to root on a terminal. Within a second of the last step relaykey \
                 sees it and confirms by itself.",
                relaykey(format_args!("sync {} --dry-run --reveal", c.name))
            ),
        ),
    }
}

fn of_rejection(c: &CredentialStatus, p: &PendingStatus, goes_on: &str, now: Timestamp) -> PageTrouble {
    let said = p.rejected.as_ref().map(|r| format!("rejected by {} {}: {}", r.by, since(r.at, now), r.reason));
    PageTrouble {
        level: Level::Soon,
        headline: "the new key was rejected".into(),
        mail: match &c.applied {
            Some(_) => format!("{goes_on} The old key stays in use until another new key takes its place."),
            None => goes_on.to_owned(),
        },
        what: said.unwrap_or_default(),
        fix: "nothing, if that was meant. Otherwise one of these".into(),
        list: Todo::Choices(vec![
            format!("publish another new key at the source, {}", c.source_in_full),
            format!("to use this one all the same: `{}`", approve(c, p)),
        ]),
    }
}

/// A sentence on the confirmation that this host has taken back; empty where it has not.
fn taken_back(c: &CredentialStatus) -> &'static str {
    match c.withdrawn {
        Some(_) => {
            " Where this host sends reports, it has taken back that the key is in use, so that nobody deletes the old one."
        }
        None => "",
    }
}

/// A sentence on a key that was tried and waits.
fn has_waited(c: &CredentialStatus, p: &PendingStatus, now: Timestamp) -> String {
    let waited = p.waits_since.map(|at| rough(now.duration_since(at)));
    // It is tried again every day while it waits.
    let accepted = !c.failures.iter().any(|f| f.failure.class == Class::NotYet);
    match (accepted, waited) {
        (true, Some(waited)) => format!("The mail relay accepts the new key, which has waited for {waited}."),
        (true, None) => "The mail relay accepts the new key.".to_owned(),
        (false, Some(waited)) => format!("The new key has waited for {waited}."),
        (false, None) => "The new key waits.".to_owned(),
    }
}

/// What stands at the very top.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PageVerdict {
    pub level: Level,
    /// One sentence.
    pub sentence: String,
    /// What it does to the mail.
    pub mail: Option<String>,
    /// What the program or another server said.
    pub what: Option<String>,
    /// What to do.
    pub fix: Option<String>,
    pub list: Todo,
    /// Where more than one credential is not fine: the sentence for each, with its name.
    pub others: Vec<(String, Level, String)>,
}

/// Of the whole document.
pub(super) fn verdict(status: &Status, now: Timestamp) -> PageVerdict {
    let mut worst: Vec<(&str, PageTrouble)> = status
        .credentials
        .iter()
        .filter_map(|c| Some((c.name.as_str(), troubles(c, now).into_iter().next()?)))
        .collect();
    worst.sort_by_key(|(_, t)| std::cmp::Reverse(t.level));
    let refused = status.daemon.as_ref().and_then(|d| d.config_refused.as_ref());
    let mut others: Vec<_> = worst.iter().map(|(name, t)| ((*name).to_owned(), t.level, t.headline.clone())).collect();
    if refused.is_some() {
        let headline = "a change was refused, and the one before it is in force".to_owned();
        others.push(("configuration".to_owned(), Level::Soon, headline));
    }
    // A single one is the sentence itself.
    if others.len() == 1 {
        others.clear();
    }
    match (worst.first(), refused) {
        (Some((name, t)), refused) if refused.is_none() || t.level >= Level::Soon => PageVerdict {
            level: t.level,
            sentence: match worst.iter().filter(|(_, t)| t.level >= Level::Soon).count() {
                0 | 1 => format!("{name}: {}.", t.headline),
                n => format!(
                    "{n} of {} credentials need attention. First {name}: {}.",
                    status.credentials.len(),
                    t.headline
                ),
            },
            mail: Some(t.mail.clone()),
            what: Some(t.what.clone()).filter(|what| !what.is_empty()),
            fix: Some(t.fix.clone()).filter(|fix| !fix.is_empty()),
            list: t.list.clone(),
            others,
        },
        (_, Some(refused)) => PageVerdict {
            level: Level::Soon,
            sentence: "The changed configuration was refused; the one before it is still in force.".into(),
            mail: Some(
                match status.credentials.iter().any(|c| c.mail_not_known().is_some()) {
                    false => "Mail is not affected. What was changed in the configuration has no effect yet.",
                    true => "What was changed in the configuration has no effect yet.",
                }
                .into(),
            ),
            what: refused.mistakes.first().map(|m| m.what.clone()),
            fix: refused.mistakes.first().map(|m| m.fix.clone()),
            list: Todo::Nothing,
            others,
        },
        (_, None) => PageVerdict {
            level: Level::Fine,
            sentence: match status.credentials.iter().find_map(CredentialStatus::mail_not_known) {
                None => "Everything is fine.".into(),
                Some(known) => format!("Nothing is known to be wrong, but {known}."),
            },
            mail: Some(match status.credentials.as_slice() {
                [] => "No credential is configured.".into(),
                [one] => match &one.applied {
                    Some(a) => format!(
                        "Mail logs in with the newest key of {}: {}, put into use {}.",
                        one.name,
                        a.username,
                        since(a.since, now)
                    ),
                    None => format!("{} is up to date.", one.name),
                },
                all => format!("Mail logs in with the newest key of each of {} credentials.", all.len()),
            }),
            what: None,
            fix: None,
            list: Todo::Nothing,
            others: Vec::new(),
        },
    }
}

/// `3 days 4 hours ago`.
pub(super) fn since(then: Timestamp, now: Timestamp) -> String {
    match now.duration_since(then) {
        passed if passed.as_secs() < 5 => "just now".into(),
        passed => format!("{} ago", rough(passed)),
    }
}

/// A duration in words, as exact as anybody wants to know it.
pub(super) fn rough(d: SignedDuration) -> String {
    let seconds = d.as_secs();
    let unit = match seconds {
        0..60 => 1,
        60..86_400 => 60,
        86_400..864_000 => 3600,
        _ => 86_400,
    };
    words(SignedDuration::from_secs(seconds / unit * unit))
}
