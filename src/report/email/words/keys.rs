//! What a report says of keys: which are in use, which were before, and which must not be deleted; and what of it the sentences
//! need.

use super::body::{argument, clean};
use crate::instruction::relaykey;
use crate::rollover::{MailServer, Report, ReportOutcome};

/// What sentences are made of: every text of the report that they need, cleaned.
pub(super) struct ReportNames {
    pub(super) host: String,
    /// For commands.
    pub(super) credential: String,
    pub(super) version: String,
    /// `the SMTP login "ses"`.
    pub(super) login: String,
    /// `the mail relay HOST:PORT`.
    pub(super) relay: String,
    /// `the key AKIA…`.
    pub(super) key: String,
    /// `the new key AKIA…`.
    pub(super) new_key: String,
    /// The key in use, as it was looked up where it was; else the key before. Its name alone.
    pub(super) old: Option<String>,
    /// Every key that must not be deleted: what is in use, and what was before.
    pub(super) keep: Vec<String>,
    /// It was looked up, and the mail server has none.
    pub(super) no_login: bool,
    /// It was looked up, and is one that relaykey neither confirmed nor put there: whether it is valid nobody here knows.
    pub(super) another_login: bool,
    pub(super) of_aws: bool,
    pub(super) mail_server: Option<MailServer>,
    pub(super) words: Option<String>,
}

impl ReportNames {
    pub(super) fn new(report: &Report) -> Self {
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
    pub(super) fn goes_on(&self) -> String {
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
    pub(super) fn goes_on_if_nobody(&self, claim: &str) -> String {
        match self.another_login {
            true => "If nobody does anything, the mail server goes on with the login that was found there.".into(),
            false => claim.to_owned(),
        }
    }

    /// What may be said where the mail server was seen running when the report was made; else what is known.
    pub(super) fn unaffected(&self, claim: String) -> String {
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

    pub(super) fn keep_old(&self) -> String {
        let old = self.keep.join(" and ");
        match self.keep.len() {
            0 => "Do not delete the old key, if there is one.".into(),
            _ if self.another_login => format!("Do not delete any key that was in use here ({old})."),
            1 => format!("Do not delete the old key ({old})."),
            _ => format!("Do not delete any of the old keys ({old})."),
        }
    }

    pub(super) fn approve(&self) -> String {
        relaykey(format_args!("approve {} --version {}", self.credential, self.version))
    }

    pub(super) fn in_brackets(&self, key: &str) -> String {
        if key.is_empty() { String::new() } else { format!(" ({})", clean(key)) }
    }

    pub(super) fn said(&self, heading: &'static str) -> Option<(&'static str, String)> {
        self.words.clone().map(|words| (heading, words))
    }
}

/// The key before this one, where that is known and another.
pub(super) fn previous(report: &Report) -> Option<&str> {
    report.previous_username.as_deref().filter(|old| !old.is_empty() && *old != report.username)
}

/// The keys that were found in use, without the version that the report is about. The same key in another version has another
/// password.
pub(super) fn others_in_use(report: &Report) -> Vec<String> {
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

pub(super) fn named(mut keys: Vec<String>) -> Vec<String> {
    let others = keys.len().saturating_sub(NAMED);
    if others > 0 {
        keys.truncate(NAMED);
        keys.push(format!("{others} more"));
    }
    keys
}

/// Is the report about the applied version rather than about one that is to come?
fn is_of_applied(report: &Report) -> bool {
    use ReportOutcome::{Alive, AppliedRefused, Left, Withdrawn};
    report.of_applied || matches!(report.outcome, Withdrawn | AppliedRefused | Alive | Left)
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
fn kept(report: &Report) -> Vec<String> {
    let mut all = others_in_use(report);
    let before = previous(report).filter(|_| all.is_empty() || !is_of_applied(report));
    let reported = Some(report.username.as_str()).filter(|name| is_of_applied(report) && !name.is_empty());
    let half_done = report.half_done.iter().map(String::as_str).filter(|name| *name != report.username);
    for name in before.into_iter().chain(reported).chain(half_done).map(str::to_owned) {
        if !all.contains(&name) {
            all.push(name);
        }
    }
    all.iter().map(|name| clean(name)).collect()
}

/// Access key ids begin like this (IAM user guide, "Unique identifiers").
pub(super) fn is_aws_key(username: &str) -> bool {
    username.starts_with("AKIA")
}
