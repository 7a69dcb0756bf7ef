//! What a status means to whoever is on duty: what is wrong, what it does to the mail, and what to do, in plain words.
//!
//! Only what the document says is said: where it does not tell whether mail flows, the words say what that hangs on.

use jiff::{SignedDuration, Timestamp};

use crate::status::{CredentialStatus, NotReady, Notice, OLD_KEY, Status, words};

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
pub(super) struct Trouble {
    pub level: Level,
    /// What is wrong, as the end of the sentence `NAME: …`.
    pub headline: String,
    /// What it does to the mail.
    pub mail: String,
    /// What the program or another server said; empty where the headline says it all.
    pub what: String,
    /// What to do.
    pub fix: String,
}

/// Everything that is wrong with a credential, what is most urgent first.
pub(super) fn troubles(c: &CredentialStatus, now: Timestamp) -> Vec<Trouble> {
    // Where something stands in the way of a new key, that is the news, and not that the key is not in use yet.
    let waits = |n: &&NotReady| matches!(n.class.as_str(), "never-applied" | "pending");
    let obstacles: Vec<&NotReady> = c.not_ready.iter().filter(|n| !waits(n)).collect();
    let told = if obstacles.is_empty() { c.not_ready.iter().collect() } else { obstacles };
    let mut all: Vec<Trouble> = told.into_iter().map(|n| of_reason(c, n)).collect();
    all.extend(c.notices.iter().filter_map(|n| of_notice(c, n, now)));
    if let Some(age) = old_key(c) {
        all.push(Trouble {
            level: Level::Soon,
            headline: format!("the key is {age} old"),
            mail: "Mail is not affected: this can wait for the morning. A key is usually replaced after 90 days."
                .into(),
            what: String::new(),
            fix: format!(
                "make a new key and publish it as a new version at the source, {}; relaykey takes it from there",
                source_words(&c.source)
            ),
        });
    }
    all.sort_by_key(|t| std::cmp::Reverse(t.level));
    all
}

/// The age in days, where it is too high.
pub(super) fn old_key(c: &CredentialStatus) -> Option<String> {
    let age = SignedDuration::from_secs(c.applied.as_ref()?.key_age_seconds);
    (age > OLD_KEY).then(|| format!("{} days", age.as_hours() / 24))
}

/// What the mail log said, where it is trouble: mail is stopped, whatever the state of the key.
pub(super) fn of_notice(c: &CredentialStatus, n: &Notice, now: Timestamp) -> Option<Trouble> {
    let mut fix = n.fix.clone();
    let (headline, mail) = match n.class.as_str() {
        "refused" => {
            // That relaykey looks for another key by itself is no comfort where there is none.
            fix = format!(
                "check in AWS that the key is still active; if it is not, publish a valid one at the source, {}, then run \
                 `relaykey sync {}`",
                source_words(&c.source),
                c.name
            );
            (
                "the mail relay refuses the mail server's login",
                "Mail to this relay is probably held back in the queue, until the key works or another one is there.",
            )
        }
        "no-login" => {
            fix = "run `relaykey check`: it names next hops without an entry in the password table".into();
            ("the mail server sends without logging in", "Mail to this relay bounces.")
        }
        "no-mechanism" => (
            "the mail server has no way of logging in at the mail relay",
            "Mail to this relay is probably held back in the queue. Another key does not help.",
        ),
        "policy" => (
            "messages are refused although the login is right",
            "Mail is being refused, at least some of it. Another key does not help: what is missing is a permission, or a \
             verified sender, in AWS.",
        ),
        _ => return None,
    };
    Some(Trouble {
        level: Level::Now,
        headline: headline.into(),
        mail: mail.into(),
        what: format!("{} ({})", n.what, since(n.at, now)),
        fix,
    })
}

fn of_reason(c: &CredentialStatus, n: &NotReady) -> Trouble {
    let goes_on = match (&c.applied, &c.pending) {
        // Who sees that a new key is there may think that the old one can go.
        (Some(a), Some(_)) => {
            format!("Mail flows for as long as the old key ({}) is valid: do not delete that one yet.", a.username)
        }
        (Some(a), None) => format!("Mail flows for as long as the key in use ({}) is valid.", a.username),
        (None, _) => "relaykey has changed nothing on this host: mail goes as it did before.".into(),
    };
    let (mut what, mut fix) = (n.what.clone(), n.fix.clone());
    let (level, headline, mail) = match n.class.as_str() {
        "refused" => match (&c.applied, &c.pending) {
            (Some(_), Some(_)) => {
                // The line on the mail says it already.
                if let Some(rest) = fix.strip_prefix("the old credential stays in place; ") {
                    fix = rest.to_owned();
                }
                (
                    Level::Soon,
                    "the new key is refused by the mail relay".into(),
                    format!("{goes_on} The new key is not put into use."),
                )
            }
            (Some(a), None) => (
                Level::Now,
                "the key in use is refused by the mail relay".into(),
                format!("Mail that logs in with it ({}) is probably held back in the queue.", a.username),
            ),
            (None, _) => (Level::Soon, "the key is refused by the mail relay".into(), goes_on),
        },
        "drift" => {
            fix.push_str(
                "; then restore the table, or, where drift = \"heal\" is set, wait: relaykey puts its login back within about \
                 an hour",
            );
            (
                Level::Now,
                "somebody else changed the mail server's login".into(),
                "Mail may be failing, or going out with another login: the mail server's password table \
                 (smtp_sasl_password_maps) no longer holds what relaykey put there."
                    .into(),
            )
        }
        "reload-owed" => (
            Level::Soon,
            "the mail server has not been reloaded".into(),
            "Mail flows for as long as the old key is valid: do not delete that one yet. The new key is in place, but the \
             mail server may still be using the old one."
                .into(),
        ),
        "left-behind" => (
            Level::Soon,
            "the source offers a key that is not newer, so it is not used".into(),
            goes_on,
        ),
        "never-applied" => {
            what.clear();
            (Level::Soon, "no key has been put into use on this host yet".into(), goes_on)
        }
        "pending" if c.failures.iter().any(|f| f.failure.class == "not-yet") => {
            (Level::Busy, "the mail relay does not take the new key yet".into(), goes_on)
        }
        "pending" => (Level::Busy, "a new key is being put into use".into(), goes_on),
        "source-down" => (
            Level::Soon,
            "the source of the key does not answer".into(),
            format!("{goes_on} A new key would not be noticed."),
        ),
        "no-look" => (
            Level::Soon,
            "relaykey has not looked for a new key for too long".into(),
            format!("{goes_on} A new key would not be noticed."),
        ),
        "report-owed" => (
            Level::Soon,
            "a report of this host does not get through".into(),
            "Mail is not affected: this can wait for the morning. Until the report arrives, nobody elsewhere knows that this \
             host uses the new key, so the old key is not retired."
                .into(),
        ),
        _ if c.pending.is_some() => (Level::Soon, "the new key cannot be put into use".into(), goes_on),
        _ => (Level::Soon, "relaykey cannot do its work".into(), goes_on),
    };
    Trouble { level, headline, mail, what, fix }
}

/// `AWS Secrets Manager mail/ses (AWSCURRENT)`: the source as its owner calls it.
pub(super) fn source_words(source: &str) -> String {
    match source.split_once(' ') {
        Some(("secrets-manager", rest)) => format!("AWS Secrets Manager {rest}"),
        Some(("parameter-store", rest)) => format!("AWS Parameter Store {rest}"),
        _ => source.to_owned(),
    }
}

/// What stands at the very top.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Verdict {
    pub level: Level,
    /// One sentence.
    pub sentence: String,
    /// What it does to the mail.
    pub mail: Option<String>,
    /// What the program or another server said.
    pub what: Option<String>,
    /// What to do.
    pub fix: Option<String>,
    /// Where more than one credential is not fine: the sentence for each, with its name.
    pub others: Vec<(String, Level, String)>,
}

/// Of the whole document.
pub(super) fn verdict(status: &Status, now: Timestamp) -> Verdict {
    let mut worst: Vec<(&str, Trouble)> = status
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
        (Some((name, t)), refused) if refused.is_none() || t.level >= Level::Soon => Verdict {
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
            others,
        },
        (_, Some(refused)) => Verdict {
            level: Level::Soon,
            sentence: "The changed configuration was refused; the one before it is still in force.".into(),
            mail: Some("Mail is not affected. What was changed in the configuration has no effect yet.".into()),
            what: refused.mistakes.first().map(|m| m.what.clone()),
            fix: refused.mistakes.first().map(|m| m.fix.clone()),
            others,
        },
        (_, None) => Verdict {
            level: Level::Fine,
            sentence: "Everything is fine.".into(),
            mail: Some(match status.credentials.as_slice() {
                [] => "No credential is configured.".into(),
                [one] => match &one.applied {
                    Some(a) => format!(
                        "Mail logs in with the newest key of {}: {}, put into use {}.",
                        one.name,
                        a.username,
                        ago(&a.since, now)
                    ),
                    None => format!("{} is up to date.", one.name),
                },
                all => format!("Mail logs in with the newest key of each of {} credentials.", all.len()),
            }),
            what: None,
            fix: None,
            others: Vec::new(),
        },
    }
}

/// `3 days 4 hours ago`; the text itself where it is no time.
pub(super) fn ago(at: &str, now: Timestamp) -> String {
    match at.parse::<Timestamp>() {
        Ok(then) => since(then, now),
        Err(_) => at.to_owned(),
    }
}

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
