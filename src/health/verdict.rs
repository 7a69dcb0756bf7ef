//! What a status means to whoever is on duty: what is wrong, what it does to the mail, and what to do, in plain words.
//!
//! Only what the document says is said: where it does not tell whether mail flows, the words say what that hangs on.

use jiff::{SignedDuration, Timestamp};

use crate::status::{CredentialStatus, NotReady, Status, words};

/// A key that is older should have been rotated: the usual 90 days.
const OLD_KEY: SignedDuration = SignedDuration::from_hours(90 * 24);

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
            Level::Busy => "…",
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
    /// What the program or another server said.
    pub what: String,
    /// What to do.
    pub fix: String,
}

/// Everything that is wrong with a credential, what is most urgent first.
pub(super) fn troubles(c: &CredentialStatus) -> Vec<Trouble> {
    // Where something stands in the way of a new key, that is the news, and not that the key is not in use yet.
    let waits = |n: &&NotReady| matches!(n.class.as_str(), "never-applied" | "pending");
    let obstacles: Vec<&NotReady> = c.not_ready.iter().filter(|n| !waits(n)).collect();
    let told = if obstacles.is_empty() { c.not_ready.iter().collect() } else { obstacles };
    let mut all: Vec<Trouble> = told.into_iter().map(|n| of_reason(c, n)).collect();
    for n in c.notices.iter().filter(|n| n.class == "policy") {
        all.push(Trouble {
            level: Level::Now,
            headline: "messages are refused although the login is right".into(),
            mail: "Mail is being refused. Another key does not help: it is what the key or the sender may do.".into(),
            what: n.what.clone(),
            fix: n.fix.clone(),
        });
    }
    if let Some(age) = old_key(c) {
        all.push(Trouble {
            level: Level::Soon,
            headline: format!("the key is {age} old"),
            mail: "Mail is not affected. A key is usually replaced after 90 days.".into(),
            what: String::new(),
            fix: "make a new key and publish it as a new version where this credential comes from; this host takes it from there"
                .into(),
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

fn of_reason(c: &CredentialStatus, n: &NotReady) -> Trouble {
    let goes_on = match &c.applied {
        Some(a) => format!("Mail goes on with the key in use ({}) for as long as that one is valid.", a.username),
        None => "relaykey has changed nothing on this host: mail goes as it did before.".into(),
    };
    let (level, headline, mail) = match n.class.as_str() {
        "refused" => match (&c.applied, &c.pending) {
            (Some(a), Some(_)) => (
                Level::Soon,
                "the new key is refused by the mail relay".into(),
                format!(
                    "Mail still goes out with the old key ({}), for as long as that one is valid. A refused key is \
                     not put into use.",
                    a.username
                ),
            ),
            (Some(a), None) => (
                Level::Now,
                "the key in use is refused by the mail relay".into(),
                format!("Mail that needs a login now ({}) is probably held back in the queue.", a.username),
            ),
            (None, _) => (Level::Soon, "the key is refused by the mail relay".into(), goes_on),
        },
        "drift" => (
            Level::Now,
            "somebody else changed the mail server's login".into(),
            "Mail may be going out with another login, or failing: relaykey no longer knows.".into(),
        ),
        "reload-owed" => (
            Level::Soon,
            "the mail server has not been reloaded".into(),
            "The new key is in place, but the mail server may still be using the old one. Mail flows for as long as the old \
             one is valid, so do not delete it yet."
                .into(),
        ),
        "left-behind" => (
            Level::Soon,
            "the source offers a version that is no newer, and it is not taken".into(),
            goes_on,
        ),
        "never-applied" => (Level::Soon, "no key has been put into use on this host yet".into(), goes_on),
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
            "Mail is not affected. But nobody elsewhere knows yet that this host has the new key, so the old key is not retired.".into(),
        ),
        _ if c.pending.is_some() => (Level::Soon, "the new key cannot be put into use".into(), goes_on),
        _ => (Level::Soon, "something stands in the way".into(), goes_on),
    };
    Trouble { level, headline, mail, what: n.what.clone(), fix: n.fix.clone() }
}

/// What stands at the very top.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Verdict {
    pub level: Level,
    /// One sentence.
    pub sentence: String,
    /// What it does to the mail.
    pub mail: Option<String>,
    /// What to do.
    pub fix: Option<String>,
    /// Where more than one credential is not fine: the sentence for each, with its name.
    pub others: Vec<(String, Level, String)>,
}

/// Of the whole document.
pub(super) fn verdict(status: &Status, now: Timestamp) -> Verdict {
    let mut worst: Vec<(&str, Trouble)> =
        status.credentials.iter().filter_map(|c| Some((c.name.as_str(), troubles(c).into_iter().next()?))).collect();
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
            fix: Some(t.fix.clone()).filter(|fix| !fix.is_empty()),
            others,
        },
        (_, Some(refused)) => Verdict {
            level: Level::Soon,
            sentence: "The changed configuration was refused; the one before it is still in force.".into(),
            mail: Some("Mail is not affected. What was changed in the configuration has no effect yet.".into()),
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
