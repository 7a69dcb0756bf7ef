//! The one document behind `relaykey status`, the health endpoints, the page, the metrics and the service manager's line.

mod cost;
mod seconds;

use std::collections::BTreeMap;
use std::path::Path;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

pub use self::cost::Cost;
pub use self::seconds::InSeconds;
use crate::audit::{By, Record};
use crate::config::{self, Config, IfAppliedDies};
use crate::fault::{Class, Failure};
use crate::instruction::{Instruction, relaykey};
use crate::rollover::{
    self, Approval, Candidate, Change, CloneOf, Completion, Holds, MailServer, OLD_KEY, Owed, OwnResult, Rejected,
    Report, State, TargetState, Tried, rfc3339,
};

/// So long `relaykey status` tells that the installation is a copy of another one.
const CLONE_NEWS: SignedDuration = SignedDuration::from_hours(30 * 24);

/// A look takes time, and polls are jittered: late is what is later than two polls by more than this.
const POLL_MARGIN: SignedDuration = SignedDuration::from_secs(5);

/// The document. A program that reads it goes by `schema`; fields may be added.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Status {
    /// `relaykey/status/v1`.
    pub schema: String,
    /// When it was made, RFC 3339.
    pub at: String,
    /// The daemon that made it; `None`: it is made of state files alone.
    pub daemon: Option<Daemon>,
    /// The installation that this one is a copy of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clone_of: Option<CloneOf>,
    pub credentials: Vec<CredentialStatus>,
}

/// A running `relaykey run`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Daemon {
    /// `relaykey/0.2.0`.
    pub agent: String,
    /// The host's name in reports.
    pub host: String,
    pub pid: u32,
    pub since: Timestamp,
    /// The configuration file in force, and since when.
    pub config: String,
    pub config_since: Timestamp,
    /// A newer configuration that was refused.
    pub config_refused: Option<ConfigRefused>,
    /// Places of `[health]` that cannot be listened at: tried again until they can. Rotation goes on meanwhile.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub not_listening: Vec<NotListening>,
}

/// A place of `[health]` that is not listened at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NotListening {
    /// As configured; `None`: it is the service manager's.
    #[serde(default)]
    pub place: Option<String>,
    /// Since when.
    pub since: Timestamp,
    pub what: String,
    pub fix: String,
}

impl NotListening {
    /// What becomes of it, for people.
    pub const GOES_ON: &str = "keys are kept fresh all the same, and the place is tried again until it can be had";
}

/// A configuration that was read anew and refused: the old one stays in force.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfigRefused {
    pub at: Timestamp,
    /// Every mistake, with file and line in front, and its fix.
    pub mistakes: Vec<Mistake>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mistake {
    pub what: String,
    pub fix: String,
}

/// What only the running daemon knows of a credential.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Live {
    /// Since when this daemon watches the credential.
    pub since: Timestamp,
    /// When the source last gave an answer.
    pub answered: Option<Timestamp>,
    pub woken: Option<Woken>,
    /// When the source was last asked, whatever it answered. A wake that only waits asks nothing.
    pub source_asked: Option<Timestamp>,
    pub next_wake: Option<Timestamp>,
    /// The step that is under way, in one word.
    pub step: Option<String>,
    /// When each target was last looked at.
    pub looked: BTreeMap<String, Timestamp>,
    /// What the last wake ended with that no state file says, such as a version that this host left behind.
    pub failures: Vec<(Option<String>, Failure)>,
    /// What the mail log said that is not the credential's fault.
    pub notices: Vec<Notice>,
    pub counters: Counters,
    /// Of the audit log, the latest first.
    pub history: Vec<Record>,
}

/// The last wake.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Woken {
    pub at: Timestamp,
    pub by: By,
}

/// Something that was seen and is for a person to judge.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notice {
    pub at: Timestamp,
    /// `policy`: SES took the login and refused the message. `temporary`: 454.
    pub class: Class,
    pub what: String,
    pub fix: String,
}

/// Counts since the daemon started. Keys come from the program's own words, never from outside.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Counters {
    /// Wakes, by cause.
    pub wakes: BTreeMap<String, u64>,
    /// Requests to the source.
    pub source_requests: u64,
    /// Logins at the endpoint: `accepted`, `refused`, `unknown`.
    pub logins: BTreeMap<String, u64>,
    /// `adopted`, `confirmed`, `healed`.
    pub rollovers: BTreeMap<String, u64>,
    /// Failed steps, by class.
    pub failures: BTreeMap<String, u64>,
    /// Lines of the mail log: `refused`, `temporary`, `policy`.
    pub alarms: BTreeMap<String, u64>,
    /// Reports: `delivered`, `failed`.
    pub reports: BTreeMap<String, u64>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct CredentialStatus {
    pub name: String,
    pub source: String,
    /// The same as its owner calls it.
    #[serde(default)]
    pub source_in_full: String,
    /// `up-to-date`, `pending`, `pending-approval`, `by-hand`, `rejected`, `refused`, `failing`, `reload-owed`, `drift`,
    /// `report-owed`, `source-down`, `never-applied`.
    pub state: String,
    /// When a new version goes into use: `automatic` (once it is verified), `manual` (once somebody approves it).
    #[serde(default)]
    pub mode: String,
    /// Targets that a person changes (`write = false`).
    #[serde(default)]
    pub by_hand: Vec<String>,
    /// Empty: ready, which is what `/readyz` tells.
    pub not_ready: Vec<NotReady>,
    /// What this host put there, or found there, and confirmed.
    pub applied: Option<AppliedStatus>,
    /// What the mail server uses, as it was last looked up; of every target that was looked at.
    #[serde(default)]
    pub in_use: Vec<InUseStatus>,
    /// What was put in place in part.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub half_done: Vec<HalfDone>,
    /// While nothing is applied yet: the key that was in use before a version was put in its place.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub found_first: Option<String>,
    /// That the endpoint refuses the applied version: proved by logins of our own.
    #[serde(default)]
    pub applied_refused: Option<AppliedRefused>,
    /// What the latest login of our own with the applied version came to, where the mail log gave reason to make one.
    #[serde(default)]
    pub own_login: Option<Tried>,
    pub pending: Option<PendingStatus>,
    pub failures: Vec<FailureStatus>,
    pub owed: Vec<OwedStatus>,
    /// Targets whose mail server may not go by what is in place, where nothing may reload it, and why.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unread: Vec<OwedStatus>,
    /// Targets whose mail server was not running at the last look.
    #[serde(default)]
    pub mail_server_stopped: Vec<String>,
    /// Targets that were not looked at yet: whether their mail server runs, and what it uses, is not known.
    #[serde(default)]
    pub mail_server_unseen: Vec<String>,
    /// Since when a host that had confirmed holds something else; reported as `withdrawn`.
    #[serde(default)]
    pub withdrawn: Option<Timestamp>,
    /// Why what was confirmed could not be put back, while the source gives another version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_put_back: Option<FailureStatus>,
    /// When this host left the fleet (`relaykey deregister`).
    #[serde(default)]
    pub left: Option<Timestamp>,
    pub reports_owed: Vec<ReportOwed>,
    pub notices: Vec<Notice>,
    /// When something that failed is due again.
    pub next: Option<String>,
    /// What only a running daemon knows.
    pub live: Option<LiveStatus>,
    /// What asking the source costs.
    pub cost: Cost,
    /// The latest confirmation.
    pub report: Option<Report>,
    /// Recent records of the audit log, the latest first.
    pub history: Vec<Record>,
}

/// What one target was found to use.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InUseStatus {
    pub target: String,
    /// Each user name under a key that the mail server looks up; empty: no login.
    pub usernames: Vec<String>,
    /// When it was looked up, in whole seconds.
    pub at: Timestamp,
    pub holds: Holds,
    /// With [`Holds::Begun`]: the version that this host put there and never confirmed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub begun: Option<String>,
    /// That was a person, who was asked to.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub begun_by_hand: bool,
}

/// What a run that was killed put into the text of a table and not into what the mail server reads.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HalfDone {
    pub target: String,
    pub version: String,
    pub username: String,
}

impl InUseStatus {
    /// `AKIA… and AKIA…`.
    pub fn who(&self) -> String {
        match self.usernames.is_empty() {
            true => "no login".into(),
            false => self.usernames.join(" and "),
        }
    }
}

impl HalfDone {
    /// In one sentence.
    pub fn said(&self) -> String {
        format!(
            "{} (version {}) stands in the text of the table (target {}), and not in what the mail server reads: a run was broken \
             off. Do not delete that key",
            self.username, self.version, self.target
        )
    }
}

/// The applied version is refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AppliedRefused {
    pub endpoint: String,
    /// The first and the latest refusal of a login of our own.
    pub since: Timestamp,
    pub at: Timestamp,
}

/// Why a credential is not ready.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NotReady {
    /// `applied-refused`, `never-applied`, `source-down`, `no-look`, `pending`, `pending-approval`, `by-hand`, `rejected`,
    /// `refused`, `left-behind`, `failing`, `reload-owed`, `drift`, `report-owed`.
    pub class: Class,
    pub what: String,
    pub fix: String,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct LiveStatus {
    /// When the source last gave an answer.
    pub answered: Option<Timestamp>,
    pub woken: Option<Woken>,
    /// When the source was last asked, whatever it answered; a wake may only have waited.
    #[serde(default)]
    pub source_asked: Option<Timestamp>,
    pub next_wake: Option<Timestamp>,
    /// The step that is under way.
    pub step: Option<String>,
    pub counters: Counters,
}

/// Reports that are owed to one receiver.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ReportOwed {
    pub receiver: String,
    pub count: usize,
    /// Of the oldest.
    pub since: String,
    pub attempts: u32,
    pub failure: Option<Failure>,
    pub next: Option<Timestamp>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct AppliedStatus {
    pub version: String,
    pub username: String,
    pub previous_username: Option<String>,
    pub outcome: Completion,
    pub since: String,
    /// When this version was stored at the source; `None`: a file, which does not say so.
    #[serde(default)]
    pub version_stored: Option<String>,
    /// How old the key is at least, in seconds: since this version was stored (for a file: since it was applied here). When
    /// the key itself was made is not known.
    pub key_age_seconds: i64,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PendingStatus {
    pub version: String,
    pub username: String,
    pub first_seen: String,
    pub first_refused: Option<String>,
    /// Since when it waits for a person: to approve it, or to change a target by hand.
    #[serde(default)]
    pub waits_since: Option<Timestamp>,
    /// Does it wait for approval (mode = "manual")?
    #[serde(default)]
    pub for_approval: bool,
    /// The weekly hours in which it goes by itself, in this host's local time: `Sat 02:00-04:00`.
    #[serde(default)]
    pub window: Option<String>,
    /// Does it go by itself where the mail relay refuses the key in use (if_applied_dies = "apply")? Not where the source
    /// cannot give that one, by which it would be proved.
    #[serde(default)]
    pub if_applied_dies: bool,
    /// Why if_applied_dies = "apply" has no effect.
    #[serde(default)]
    pub dies_in_vain: Option<String>,
    /// Who let it go.
    #[serde(default)]
    pub approval: Option<Approval>,
    /// Who said no, and why.
    #[serde(default)]
    pub rejected: Option<Rejected>,
    /// What would change in each target, masked.
    #[serde(default)]
    pub changes: Vec<ChangeStatus>,
    /// Why it is not taken yet, where it is not newer than the applied one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_newer: Option<Failure>,
}

/// What would change in one target.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ChangeStatus {
    pub target: String,
    /// A person makes the change (`write = false`).
    pub by_hand: bool,
    #[serde(flatten)]
    pub change: Change,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct FailureStatus {
    pub target: Option<String>,
    #[serde(flatten)]
    pub failure: Failure,
    pub attempts: u32,
    /// When it is tried again.
    #[serde(default)]
    pub next: Option<Timestamp>,
}

/// What settles it where nothing may reload the mail server.
pub const UNREAD_FIX: &str =
    "restart the mail server, which settles it (reload = \"never\"; a reload by hand is not seen)";

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct OwedStatus {
    pub target: String,
    #[serde(flatten)]
    pub owed: Owed,
}

/// One credential, as much as is known of it: input of [`Status::new`].
#[derive(Debug, Clone, Copy)]
pub struct Known<'a> {
    pub credential: &'a config::Credential,
    /// `None`: it has never been applied here.
    pub state: Option<&'a State>,
    pub live: Option<&'a Live>,
}

impl Status {
    /// From what is known; `daemon` where it is made by one.
    pub fn new<'a>(daemon: Option<Daemon>, known: impl IntoIterator<Item = Known<'a>>, now: Timestamp) -> Self {
        let mut status = Self {
            schema: "relaykey/status/v1".into(),
            at: rfc3339(now),
            daemon,
            clone_of: None,
            credentials: known.into_iter().map(|k| CredentialStatus::new(k, now)).collect(),
        };
        status.in_seconds();
        status
    }

    /// The same of an installation that is a copy.
    pub fn of_clone(mut self, clone_of: Option<CloneOf>) -> Self {
        self.clone_of = clone_of;
        self.clone_of.in_seconds();
        self
    }

    /// From state files alone.
    pub fn at_rest(config: &Config, states: &[Option<State>], now: Timestamp) -> Self {
        let known = config.credentials.iter().zip(states);
        Self::new(None, known.map(|(credential, state)| Known { credential, state: state.as_ref(), live: None }), now)
    }

    /// Is every credential ready?
    pub fn is_ready(&self) -> bool {
        self.credentials.iter().all(|c| c.not_ready.is_empty())
    }

    fn not_listening(&self) -> &[NotListening] {
        self.daemon.as_ref().map_or(&[], |d| &d.not_listening)
    }

    /// For the service manager: one line that tells what stands in the way, else that nothing does.
    pub fn line(&self) -> String {
        let troubled: Vec<String> = self
            .credentials
            .iter()
            .filter_map(|c| Some(format!("{}: {}", c.name, c.not_ready.first()?.what)))
            .collect();
        let refused = self.daemon.as_ref().is_some_and(|d| d.config_refused.is_some());
        let mut line = match (troubled.as_slice(), self.credentials.as_slice()) {
            ([], [one]) => match &one.applied {
                Some(a) => format!("{} up to date: version {} ({})", one.name, a.version, a.username),
                None => one.name.clone(),
            },
            ([], all) => format!("{} credentials up to date", all.len()),
            (troubled, _) => troubled.join("; "),
        };
        if refused {
            line.push_str("; the changed configuration was refused, the old one stays in force");
        }
        for place in self.not_listening() {
            line.push_str("; ");
            line.push_str(&place.what);
        }
        line
    }

    /// For people.
    pub fn text(&self, now: Timestamp) -> String {
        use std::fmt::Write as _;
        let mut out = String::new();
        if let Some(refused) = self.daemon.as_ref().and_then(|d| d.config_refused.as_ref()) {
            let _ =
                writeln!(out, "configuration: refused {}, the old one stays in force", ago(&rfc3339(refused.at), now));
            for m in &refused.mistakes {
                let _ = writeln!(out, "  error     {}\n  fix       {}", m.what, m.fix);
            }
        }
        for place in self.not_listening() {
            let _ = writeln!(
                out,
                "health: not answered since {}; {}",
                ago(&rfc3339(place.since), now),
                NotListening::GOES_ON
            );
            let _ = writeln!(out, "  error     {}\n  fix       {}", place.what, place.fix);
        }
        if let Some(original) = self.clone_of.as_ref().filter(|c| now.duration_since(c.at) < CLONE_NEWS) {
            let _ = writeln!(
                out,
                "this installation is a copy of {}, noticed {}: reports that the original owed are not sent from here, and \
                 every credential is adopted anew",
                original.host_id,
                ago(&rfc3339(original.at), now)
            );
        }
        for c in &self.credentials {
            c.text(now, &mut out);
        }
        if self.daemon.is_none() {
            let _ = writeln!(out, "(no daemon answers: this is what the state files say)");
        }
        out
    }
}

/// What a source is, in a few words.
pub fn source_words(source: &config::Source) -> String {
    source_called(source, "secrets-manager", "parameter-store")
}

/// What a source is, as its owner calls it: `AWS Secrets Manager mail/ses (AWSCURRENT)`.
fn source_in_full(source: &config::Source) -> String {
    source_called(source, "AWS Secrets Manager", "AWS Parameter Store")
}

fn source_called(source: &config::Source, secrets_manager: &str, parameter_store: &str) -> String {
    match source {
        config::Source::SecretsManager { secret, stages, .. } => {
            format!("{secrets_manager} {secret} ({})", stages.join(", "))
        }
        config::Source::ParameterStore { parameter, label: None, .. } => format!("{parameter_store} {parameter}"),
        config::Source::ParameterStore { parameter, label: Some(label), .. } => {
            format!("{parameter_store} {parameter} ({label})")
        }
        config::Source::File { path, .. } => format!("file {}", path.display()),
    }
}

/// What a state is, in a few words; `None`: its name says it, or what is wrong has to be said.
pub fn in_words(state: &str) -> Option<&'static str> {
    Some(match state {
        "pending" => "new key on its way",
        "pending-approval" => "new key waits for approval",
        "by-hand" => "new key waits for a change by hand",
        "rejected" => "new key rejected",
        "refused" => "key refused",
        "applied-refused" => "key in use refused",
        "reload-owed" => "reload missing",
        "drift" => "changed by somebody else",
        "superseded" => "key in use not confirmed",
        "report-owed" => "report not delivered",
        "not-running" => "mail server is not running",
        "source-down" => "source does not answer",
        "never-applied" => "not yet in use",
        "failing" => "something stands in the way",
        _ => return None,
    })
}

/// That the mail servers of these targets do not run; `None`: there are no such targets.
pub fn not_running(targets: &[String]) -> Option<String> {
    let names = targets.join(", ");
    (!targets.is_empty()).then(|| format!("the mail server is not running (target {names}): no mail goes out from it"))
}

/// That the key in use is refused, as logins of our own have proved.
pub fn key_refused(endpoint: &str, username: &str, first: Timestamp, latest: Timestamp) -> String {
    format!(
        "{endpoint} refuses the key in use, {username}: two logins of our own with it were refused, the first {}, the latest {}",
        rfc3339(first),
        rfc3339(latest)
    )
}

/// What to do about a key in use that is refused. `waits`: the version that waits for approval.
pub fn instead_of_the_refused(credential: &str, waits: Option<&str>) -> String {
    match waits {
        Some(version) => format!(
            "put the new key into use: `{}`; or activate the old one again",
            relaykey(format_args!("approve {credential} --version {version}"))
        ),
        None => "activate the key again, or publish a valid one at the source".to_owned(),
    }
}

/// How the mail servers of these targets are started, each by the name of its instance.
pub fn how_to_start(credential: &config::Credential, targets: &[String]) -> String {
    let stopped = credential.targets.iter().filter(|t| targets.contains(&t.name));
    let commands: Vec<String> = stopped
        .map(|target| match &target.kind {
            config::TargetKind::Postfix { config_dir } if config_dir == Path::new("/etc/postfix") => {
                "`postfix start`, or `systemctl start postfix`".into()
            }
            config::TargetKind::Postfix { config_dir } => format!("`postfix -c {} start`", config_dir.display()),
            config::TargetKind::Text { .. } => target.name.clone(),
        })
        .collect();
    format!("start it ({})", commands.join("; "))
}

impl CredentialStatus {
    fn new(known: Known<'_>, now: Timestamp) -> Self {
        let Known { credential, state, live } = known;
        let empty = State::new(&credential.name);
        let state = state.unwrap_or(&empty);
        let retries = std::iter::once((None, &state.source_retry))
            .chain(state.targets.iter().map(|(name, t)| (Some(name.clone()), &t.retry)));
        let mut failures = Vec::new();
        let mut next: Option<Timestamp> = None;
        for (target, retry) in retries {
            if let Some(failure) = &retry.failure {
                failures.push(FailureStatus {
                    target,
                    failure: failure.clone(),
                    attempts: retry.attempts,
                    next: retry.next,
                });
                next = [next, retry.next].into_iter().flatten().min();
            }
        }
        for (target, failure) in live.iter().flat_map(|l| &l.failures) {
            if !failures.iter().any(|f| f.failure.what == failure.what) {
                failures.push(FailureStatus {
                    target: target.clone(),
                    failure: failure.clone(),
                    attempts: 1,
                    next: None,
                });
            }
        }
        let each = |of: fn(&TargetState) -> Option<&Owed>| -> Vec<OwedStatus> {
            let said =
                |(name, t): (&String, &TargetState)| Some(OwedStatus { target: name.clone(), owed: of(t)?.clone() });
            state.targets.iter().filter_map(said).collect()
        };
        let (owed, unread) = (each(|t| t.reload_owed.as_ref()), each(|t| t.unread.as_ref()));
        let reports_owed: Vec<ReportOwed> = state
            .outbox
            .iter()
            .filter_map(|(receiver, outbox)| {
                Some(ReportOwed {
                    receiver: receiver.clone(),
                    count: outbox.owed.len(),
                    since: outbox.owed.first()?.at.clone(),
                    attempts: outbox.retry.attempts,
                    failure: outbox.retry.failure.clone(),
                    next: outbox.retry.next,
                })
            })
            .collect();
        let in_use = state.targets.iter().filter_map(|(name, t)| {
            let found = t.in_use.as_ref()?;
            // What is found unchanged is not written down each time.
            let at = live.and_then(|l| l.looked.get(name)).map_or(found.at, |at| found.at.max(*at));
            let at = Timestamp::from_second(at.as_second()).unwrap_or(at);
            let (target, usernames, holds) = (name.clone(), found.usernames.clone(), t.holds(state)?);
            let begun = found.live_id.as_ref().filter(|_| holds == Holds::Begun).and_then(|id| t.has_begun(id));
            let begun_by_hand = begun.is_some_and(|begun| begun.by_hand);
            let begun = begun.map(|begun| begun.id.version.clone());
            Some(InUseStatus { target, usernames, at, holds, begun, begun_by_hand })
        });
        let in_use: Vec<InUseStatus> = in_use.collect();
        let is_used = |first: &String| in_use.iter().any(|found| found.usernames.contains(first));
        let found_first = state.found_first.clone().filter(|first| state.applied.is_none() && !is_used(first));
        let half_done = state.half_done().map(|(target, begun)| HalfDone {
            target: target.clone(),
            version: begun.id.version.clone(),
            username: begun.username.clone(),
        });
        let applied_refused = state.applied_refused().and_then(|own| {
            let (since, at) = (*own.refused.first()?, *own.refused.last()?);
            Some(AppliedRefused { endpoint: own.last.as_ref()?.endpoint.clone(), since, at })
        });
        let first_refused = state.targets.values().filter_map(|t| t.first_refused.as_ref().map(|f| f.since)).min();
        let seen = |is: fn(Option<MailServer>) -> bool| {
            let mail_server = |t: &config::Target| state.targets.get(&t.name).and_then(|s| s.mail_server);
            credential.targets.iter().filter(|t| is(mail_server(t))).map(|t| t.name.clone()).collect::<Vec<_>>()
        };
        let mut status = Self {
            name: credential.name.clone(),
            source: source_words(&credential.source),
            source_in_full: source_in_full(&credential.source),
            state: String::new(),
            mode: credential.mode.word().to_owned(),
            by_hand: credential.targets.iter().filter(|t| !t.write).map(|t| t.name.clone()).collect(),
            not_ready: Vec::new(),
            applied: state.applied.as_ref().map(|a| AppliedStatus {
                version: a.id.version.clone(),
                username: a.username.clone(),
                previous_username: a.previous_username.clone(),
                outcome: a.outcome,
                since: rfc3339(a.since),
                version_stored: a.id.order.map(|order| rfc3339(order.at)),
                key_age_seconds: a.key_age(now).as_secs(),
            }),
            in_use,
            half_done: half_done.collect(),
            found_first,
            applied_refused,
            own_login: state.own_login().cloned(),
            pending: state.candidate.as_ref().map(|c| PendingStatus::new(credential, state, c, first_refused)),
            failures,
            owed,
            unread,
            mail_server_stopped: seen(|s| s == Some(MailServer::Stopped)),
            mail_server_unseen: seen(|s| s.is_none()),
            withdrawn: state.withdrawn,
            not_put_back: state.put_back.failure.clone().filter(|_| state.foreign().is_some()).map(|failure| {
                FailureStatus { target: None, failure, attempts: state.put_back.attempts, next: state.put_back.next }
            }),
            left: state.left,
            reports_owed,
            notices: live.map(|l| l.notices.clone()).unwrap_or_default(),
            next: next.map(rfc3339),
            live: live.map(|l| LiveStatus {
                answered: l.answered,
                woken: l.woken.clone(),
                source_asked: l.source_asked,
                next_wake: l.next_wake,
                step: l.step.clone(),
                counters: l.counters.clone(),
            }),
            cost: Cost::of(credential),
            report: state.report.clone(),
            history: live.map(|l| l.history.clone()).unwrap_or_default(),
        };
        status.not_ready = status.unreadiness(credential, live, now);
        let first = status.not_ready.first().map(|n| n.class.word());
        status.state = match first {
            None => "up-to-date",
            Some("left-behind" | "no-look") => "failing",
            Some(class) => class,
        }
        .to_owned();
        status
    }

    /// Is something else in use than what was put there and confirmed, as far as it was looked up?
    pub fn is_doubtful(&self) -> bool {
        self.withdrawn.is_some() && !self.holds_begun() && !self.holds_again()
            || self.not_ready.iter().any(|n| n.class == Class::Drift)
            // Where nothing was put there yet, what is found is what was there before.
            || self.in_use.iter().any(|found| {
                found.is_foreign() && (self.applied.is_some() || found.holds == Holds::Nothing)
            })
    }

    /// What a person does about a login that somebody else changed, where relaykey could not put its own back: the source gives
    /// another version than the one that was confirmed, or none. `None`: it may put it back, or has said what to do instead.
    pub fn instead_of_putting_back(&self) -> Option<String> {
        let before = &self.applied.as_ref()?.username;
        match &self.not_put_back {
            Some(f) => Some(f.failure.fix.clone()).filter(|_| !f.failure.temporary),
            None => self.not_given().is_some().then(|| {
                format!("put the login of {before} back by hand: relaykey does not while the source does not give it")
            }),
        }
    }

    /// Of a login that somebody else changed: does its reason say all that is to be done? Else relaykey may put it back by itself,
    /// or try that again.
    pub fn says_how_to_put_back(&self) -> bool {
        let drift = self.failures.iter().map(|f| &f.failure).find(|f| f.class == Class::Drift);
        match (drift, &self.not_put_back) {
            (Some(f), _) => !f.temporary,
            (None, Some(f)) => !f.failure.temporary,
            (None, None) => self.instead_of_putting_back().is_some(),
        }
    }

    /// Is what was confirmed, and withdrawn since, in use again everywhere?
    pub fn holds_again(&self) -> bool {
        let applied = |found: &InUseStatus| found.holds == Holds::Applied;
        self.withdrawn.is_some() && !self.in_use.is_empty() && self.in_use.iter().all(applied) && self.owed.is_empty()
    }

    /// Is a version in use that this host put there and never confirmed, and that is not the one to come any more?
    pub fn holds_begun(&self) -> bool {
        self.in_use.iter().any(|found| found.holds == Holds::Begun)
    }

    /// Who is in use, as it was looked up: `AKIA…`. What was put there, where nothing was looked up yet.
    pub fn key_in_use(&self) -> Option<String> {
        let used = |found: &&InUseStatus| !self.is_unread(&found.target);
        let mut all: Vec<&String> = self.in_use.iter().filter(used).flat_map(|found| &found.usernames).collect();
        // A mail server that has not been reloaded goes on with what was there before.
        if self.in_use.is_empty() || !self.owed.is_empty() {
            all.extend(self.applied.as_ref().map(|a| &a.username));
        }
        all.sort();
        all.dedup();
        let who = all.iter().map(|u| u.as_str()).collect::<Vec<_>>().join(" and ");
        Some(who).filter(|who| !who.is_empty())
    }

    /// May what is in this target's files not be in use, because its mail server was not told of it?
    pub fn is_unread(&self, target: &str) -> bool {
        self.owed.iter().any(|owed| owed.target == target)
    }

    /// Did that begin after this look? Both are in whole seconds: within one, in doubt, it did.
    fn is_unread_since(&self, target: &str, looked: Timestamp) -> bool {
        self.owed.iter().any(|owed| owed.target == target && owed.owed.since >= looked)
    }

    /// Why the source does not give the version that was seen last: it fails, perhaps because it is another one since, or
    /// gives one that is not taken. Then nobody works on that version.
    pub fn not_given(&self) -> Option<&Failure> {
        let of_source = self.failures.iter().filter(|f| f.target.is_none()).map(|f| &f.failure);
        let mut all = of_source.filter(|f| !f.is_an_answer());
        all.find(|f| ![Class::State, Class::NotNewer].contains(&f.class))
    }

    /// That a mail server does not run, where one was seen not to.
    fn stopped(&self) -> Option<String> {
        not_running(&self.mail_server_stopped)
    }

    /// What was there before something else was: who put it there is said where it was relaykey.
    fn had_been(&self, target: &str, applied: &AppliedStatus) -> String {
        let by_us = applied.outcome == Completion::Confirmed && !self.by_hand.iter().any(|name| name == target);
        match by_us {
            true => format!("relaykey had put {} there", applied.username),
            false => format!("this host had confirmed {}", applied.username),
        }
    }

    /// Is a person asked to change this target? What is found there meanwhile is part of that change, and nobody else's doing.
    pub fn is_being_changed(&self, target: &str) -> bool {
        let pending = self.pending.iter().filter(|p| p.rejected.is_none());
        let mut changes = pending.flat_map(|p| &p.changes);
        changes.any(|change| change.by_hand && change.target == target)
    }

    /// Targets whose mail server does not run, and into whose files the new key was put meanwhile: it is in use once that is
    /// started, and nothing else has to be done about it.
    pub fn starts_with_the_new_key(&self) -> Vec<&InUseStatus> {
        let stopped = |found: &&InUseStatus| self.mail_server_stopped.contains(&found.target);
        self.in_use.iter().filter(|found| found.holds == Holds::Pending).filter(stopped).collect()
    }

    /// What has to be said in the place of "mail is not affected"; `None`: every mail server was seen running.
    pub fn mail_not_known(&self) -> Option<String> {
        let targets = self.mail_server_unseen.join(", ");
        let unseen = || format!("whether the mail server runs has not been looked at yet (target {targets})");
        self.stopped().or_else(|| (!targets.is_empty()).then(unseen))
    }

    /// Everything that stands in the way of "this host uses the newest credential, and everybody knows", worst first.
    fn unreadiness(&self, credential: &config::Credential, live: Option<&Live>, now: Timestamp) -> Vec<NotReady> {
        let mut all = Vec::new();
        let mut say = |class: Class, what: String, fix: String| all.push(NotReady { class, what, fix });
        if let Some(what) = self.stopped() {
            say(Class::NotRunning, what, how_to_start(credential, &self.mail_server_stopped));
        }
        let failure = |class: Class| self.failures.iter().find(|f| f.failure.class == class).map(|f| &f.failure);
        if let (Some(r), Some(a)) = (&self.applied_refused, &self.applied) {
            let what = key_refused(&r.endpoint, &a.username, r.since, r.at);
            let waits = self.pending.as_ref().filter(|p| p.for_approval && p.approval.is_none());
            let fix = instead_of_the_refused(&self.name, waits.map(|p| p.version.as_str()));
            say(Class::AppliedRefused, what, fix);
        }
        for class in [Class::Refused, Class::Drift] {
            if let Some(f) = failure(class) {
                say(class, f.what.clone(), f.fix.clone());
            }
        }
        let not_put_back = self.not_put_back.as_ref().map(|f| &f.failure).filter(|_| failure(Class::Drift).is_none());
        if let Some(f) = not_put_back {
            say(Class::Drift, f.what.clone(), f.fix.clone());
        }
        // What was looked up, also where nothing has failed yet: a run may be about to put it right.
        if let (Some(a), None) = (&self.applied, failure(Class::Drift).or(not_put_back).or(failure(Class::FoughtOver)))
        {
            let foreign = self.in_use.iter().filter(|found| found.is_foreign());
            for found in foreign.filter(|found| !self.is_being_changed(&found.target)) {
                let what = format!(
                    "the mail server (target {}) uses {}, as looked up {}; {}",
                    found.target,
                    found.who_else(a),
                    rfc3339(found.at),
                    self.had_been(&found.target, a)
                );
                let fix = match self.instead_of_putting_back() {
                    Some(instead) => format!("find out what writes the table, and make it stop; then {instead}"),
                    None => "find out what writes the table; relaykey looks again by itself".to_owned(),
                };
                say(Class::Drift, what, fix);
            }
        }
        for found in &self.in_use {
            let Some(version) = &found.begun else { continue };
            let how = match found.begun_by_hand {
                true => "which was put there by hand, as relaykey had asked, and was never confirmed:",
                false => "which relaykey put there and never confirmed: its run was broken off, and",
            };
            let what = format!(
                "the mail server (target {}) uses {} (version {version}), {how} another version has come since",
                found.target,
                found.who()
            );
            let before = self.applied.as_ref().map(|a| &a.username).or(self.found_first.as_ref());
            let also = before.map(|before| format!(" and {before}")).unwrap_or_default();
            let fix = format!(
                "see to the version that is to come, or publish another one: it is confirmed once it is in use. Until then keep \
                 the keys {}{also}",
                found.who()
            );
            say(Class::Superseded, what, fix);
        }
        for o in &self.owed {
            let what =
                format!("target {} still needs a reload, since {}: {}", o.target, rfc3339(o.owed.since), o.owed.why);
            let fix = failure(Class::ReloadOwed).map(|f| f.fix.clone());
            say(Class::ReloadOwed, what, fix.unwrap_or_else(|| "reload the mail server (`postfix reload`)".into()));
        }
        for class in [Class::LeftBehind, Class::NotNewer] {
            if let Some(f) = failure(class) {
                say(Class::LeftBehind, f.what.clone(), f.fix.clone());
            }
        }
        let mut fails = false;
        for f in &self.failures {
            let of_source = f.target.is_none();
            let told = [
                Class::Refused,
                Class::Drift,
                Class::ReloadOwed,
                Class::LeftBehind,
                Class::NotNewer,
                Class::NotYet,
                Class::NotTheNamedVersion,
                Class::ByHand,
            ];
            // Said first of all.
            if f.failure.class == Class::NotRunning && self.stopped().is_some() {
                continue;
            }
            // Without a state file nothing is done at all, whatever the source says.
            if (!of_source || f.failure.class == Class::State) && !told.contains(&f.failure.class) {
                fails = true;
                say(Class::Failing, f.failure.what.clone(), f.failure.fix.clone());
            }
        }
        if self.applied.is_none() {
            let what = "no version has been applied on this host yet".to_owned();
            say(
                Class::NeverApplied,
                what,
                format!("run `{}`, which says what stands in the way; relaykey goes on trying", relaykey("check")),
            );
        }
        for f in self.failures.iter().filter(|f| f.failure.class == Class::ByHand) {
            say(Class::ByHand, f.failure.what.clone(), f.failure.fix.clone());
        }
        let by_hand = failure(Class::ByHand).is_some();
        if let Some((p, r)) = self.pending.as_ref().and_then(|p| Some((p, p.rejected.as_ref()?))) {
            say(
                Class::Rejected,
                format!("version {} ({}) was rejected by {}: {}", p.version, p.username, r.by, r.reason),
                format!(
                    "publish another version; or, to take this one all the same: `{}`",
                    relaykey(format_args!("approve {} --version {}", self.name, p.version))
                ),
            );
        } else if let Some(p) = self.pending.as_ref().filter(|p| p.for_approval && p.approval.is_none()) {
            let since = p.waits_since.map(|at| format!(" since {}", rfc3339(at))).unwrap_or_default();
            // It is verified again while it waits, and may be refused by then.
            let verified =
                if failure(Class::Refused).or(failure(Class::NotYet)).is_some() { "" } else { "is verified, and " };
            let by_itself = p.window.as_ref().map(|w| format!("; or wait: it goes by itself {w} (local time)"));
            say(
                Class::PendingApproval,
                format!("version {} ({}) {verified}waits for approval{since}", p.version, p.username),
                format!(
                    "approve it: `{}`; or reject it: `{}`{}",
                    relaykey(format_args!("approve {} --version {}", self.name, p.version)),
                    relaykey(format_args!("reject {} --version {} --reason \"...\"", self.name, p.version)),
                    by_itself.unwrap_or_default()
                ),
            );
        } else if let Some(p) = self.pending.as_ref().filter(|_| !by_hand) {
            let (what, fix) = match (failure(Class::NotYet), self.not_given()) {
                (Some(f), _) => {
                    (format!("version {} ({}) is not accepted yet: {}", p.version, p.username, f.what), f.fix.clone())
                }
                (None, Some(f)) => (
                    format!(
                        "version {} ({}) was seen and is not in use, and the source does not give it now: {}",
                        p.version, p.username, f.what
                    ),
                    f.fix.clone(),
                ),
                // What stands in the way is said above, with what to do: nobody works on it.
                (None, None) if fails => (String::new(), String::new()),
                (None, None) if p.not_newer.is_some() => {
                    p.not_newer.clone().map(|f| (f.what, f.fix)).unwrap_or_default()
                }
                (None, None) => (
                    format!("version {} ({}) waits to be put into use", p.version, p.username),
                    "nothing: it is being worked on".to_owned(),
                ),
            };
            if !what.is_empty() {
                say(Class::Pending, what, fix);
            }
        }
        if let Some(live) = live {
            let patience = SignedDuration::try_from(credential.poll * 2).unwrap_or(SignedDuration::MAX);
            let last = live.answered.unwrap_or(live.since);
            if now.duration_since(last) > patience.saturating_add(POLL_MARGIN) {
                let silent = words(now.duration_since(last));
                let of_source = self.failures.iter().map(|f| (&f.target, &f.failure));
                let of_source =
                    of_source.into_iter().find(|(t, f)| t.is_none() && f.class != Class::State).map(|(_, f)| f);
                match of_source {
                    Some(f) => say(
                        Class::SourceDown,
                        format!("the source has given no answer for {silent}: {}", f.what),
                        f.fix.clone(),
                    ),
                    None => say(
                        Class::NoLook,
                        format!("the source has not been looked at for {silent}"),
                        "look at the log (`journalctl -u relaykey`); restart relaykey if it stays so (`systemctl restart relaykey`)".into(),
                    ),
                }
            }
        }
        // Without a daemon nobody says since when; what the last look met still stands.
        if let (None, Some(f)) = (live, self.failures.iter().find(|f| f.target.is_none()).map(|f| &f.failure)) {
            say(Class::SourceDown, format!("the source gave no answer: {}", f.what), f.fix.clone());
        }
        // A report that has only just been made is on its way, and not yet late.
        for r in self.reports_owed.iter().filter(|r| r.attempts > 0) {
            let why = r.failure.as_ref().map(|f| format!(": {}", f.what)).unwrap_or_default();
            let fix = r.failure.as_ref().map(|f| f.fix.clone()).unwrap_or_default();
            let count = if r.count == 1 { "a report".to_owned() } else { format!("{} reports", r.count) };
            let what = format!("{count} to {}, made {}, could not be delivered{why}", r.receiver, r.since);
            say(Class::ReportOwed, what, fix);
        }
        all
    }

    fn text(&self, now: Timestamp, out: &mut String) {
        use std::fmt::Write as _;
        let junk = |f: &FailureStatus| f.target.is_none() && f.failure.class == Class::Payload;
        let meaning = match self.state.as_str() {
            "source-down" if self.failures.iter().any(junk) => Some("source gives no version that can be used"),
            state => in_words(state),
        };
        let _ = match meaning {
            Some(words) => writeln!(out, "{}: {} ({words})", self.name, self.state),
            None => writeln!(out, "{}: {}", self.name, self.state),
        };
        let mut line = |label: &str, text: String| {
            let _ = writeln!(out, "  {label:<9} {text}");
        };
        line("source", self.source.clone());
        match &self.applied {
            Some(a) => {
                line(
                    "applied",
                    format!("version {} ({}), {} {}", a.version, a.username, a.outcome.word(), ago(&a.since, now)),
                );
                let age = SignedDuration::from_secs(a.key_age_seconds);
                let replaced = self.pending.as_ref().is_some_and(|p| p.rejected.is_none());
                let old = match age > OLD_KEY {
                    true if replaced => ": older than 90 days; the pending one takes its place",
                    true if self.mail_not_known().is_some() => ": older than 90 days; publish a new one at the source",
                    true => ": older than 90 days; mail is not affected; publish a new one at the source",
                    false => "",
                };
                match &a.version_stored {
                    Some(_) => line("stored", format!("{} ago (this version; the key may be older){old}", words(age))),
                    None => line("key age", format!("at least {}{old}", words(age))),
                }
            }
            None => line("applied", format!("nothing yet: run `{}`", relaykey("sync"))),
        }
        for found in &self.in_use {
            let target = if self.in_use.len() > 1 { format!("target {}: ", found.target) } else { String::new() };
            let differs = match (&self.applied, found.holds) {
                (Some(a), Holds::Other | Holds::Nothing) => format!("; {}", self.had_been(&found.target, a)),
                (_, Holds::Pending) => "; this is the new key, not confirmed yet".to_owned(),
                (_, Holds::Begun) if found.begun_by_hand => format!(
                    "; put there by hand, as relaykey had asked (version {}), and never confirmed",
                    found.begun.as_deref().unwrap_or("not known")
                ),
                (_, Holds::Begun) => format!(
                    "; relaykey put it there (version {}) and never confirmed it",
                    found.begun.as_deref().unwrap_or("not known")
                ),
                _ => String::new(),
            };
            let who = self.applied.as_ref().map_or_else(|| found.who(), |a| found.who_else(a));
            // What does not run uses nothing; what was not told of it perhaps what was there before.
            let only_in_place = self.mail_server_stopped.contains(&found.target)
                || self.is_unread(&found.target)
                || self.unread.iter().any(|unread| unread.target == found.target);
            // A look from before a swap says neither what is in place since, nor what the mail server has read.
            let overtaken = found.holds == Holds::Applied && self.is_unread_since(&found.target, found.at);
            let (label, when) = match (overtaken, only_in_place) {
                (true, _) => ("seen", ", before the reload was owed"),
                (false, true) => ("in place", ""),
                (false, false) => ("in use", ""),
            };
            line(label, format!("{target}{who}, looked up {}{when}{differs}", ago(&rfc3339(found.at), now)));
        }
        for unread in &self.unread {
            let since = ago(&rfc3339(unread.owed.since), now);
            line("not read", format!("target {}, {since}: {}", unread.target, unread.owed.why));
            line("fix", UNREAD_FIX.to_owned());
        }
        for half in &self.half_done {
            line("half done", half.said());
        }
        if let Some(first) = &self.found_first {
            line("before", format!("{first}, found before any version was put in its place: do not delete it yet"));
        }
        if self.in_use.is_empty() && self.applied.is_some() {
            line("in use", "not looked up yet".into());
        }
        if let Some(own) = &self.own_login {
            line("mail log", own_login_words(own, self.in_use.iter().any(InUseStatus::is_foreign), now));
            if let OwnResult::NotGiven { fix, .. } = &own.result {
                line("fix", fix.clone());
            }
        }
        if let Some(p) = &self.pending {
            let refused = p.first_refused.as_ref().map(|at| format!(", first refused {}", ago(at, now)));
            line(
                "pending",
                format!(
                    "version {} ({}), seen {}{}",
                    p.version,
                    p.username,
                    ago(&p.first_seen, now),
                    refused.unwrap_or_default()
                ),
            );
        }
        if let Some(p) = &self.pending {
            self.text_of_pending(p, now, &mut line);
        }
        if let Some(f) = self.pending.as_ref().and_then(|p| p.not_newer.as_ref()) {
            line("", f.what.clone());
            line("fix", f.fix.clone());
        }
        if let Some(known) = self.mail_not_known().filter(|_| self.applied.is_some()) {
            line("mail", known);
            let stopped = self.not_ready.iter().find(|n| n.class == Class::NotRunning);
            stopped.into_iter().for_each(|n| line("fix", n.fix.clone()));
        }
        if self.applied_refused.is_some() {
            line("mail", "is probably held back in the queue: the mail relay refuses the key in use".into());
            let refused = self.not_ready.iter().find(|n| n.class == Class::AppliedRefused);
            refused.into_iter().for_each(|n| line("fix", n.fix.clone()));
        }
        if self.is_doubtful() {
            line("mail", "may be failing, or going out with another login: do not delete any key".into());
        }
        if let Some(at) = self.withdrawn.filter(|_| self.holds_again()) {
            let at = ago(&rfc3339(at), now);
            line(
                "withdrawn",
                format!("{at}: the mail server held something else. It holds the key again, which is confirmed"),
            );
            let confirm = relaykey(format_args!("confirm {}", self.name));
            line("", format!("with the next change, or at once: {confirm}"));
        } else if let Some(at) = self.withdrawn {
            line(
                "withdrawn",
                format!(
                    "{}: the mail server no longer holds the key that this host had reported;",
                    ago(&rfc3339(at), now)
                ),
            );
            line("", "where reports go out, that one is taken back, so that nobody deletes the old key".into());
        }
        if let Some(at) = self.left {
            line(
                "left",
                format!(
                    "the hosts that share this key, {} (relaykey deregister): nobody waits for it",
                    ago(&rfc3339(at), now)
                ),
            );
            let confirm = relaykey(format_args!("confirm {}", self.name));
            line("", format!("before an old key is deleted; if it still sends mail: {confirm}"));
        }
        for o in &self.owed {
            line("owed", format!("target {}: a reload, since {}: {}", o.target, rfc3339(o.owed.since), o.owed.why));
        }
        for r in &self.reports_owed {
            let why = r.failure.as_ref().map(|f| format!(": {}", f.what)).unwrap_or_default();
            let count = if r.count == 1 { "a report".to_owned() } else { format!("{} reports", r.count) };
            line("owed", format!("{count} to {}, since {}{why}", r.receiver, r.since));
            if let Some(f) = &r.failure {
                line("fix", f.fix.clone());
            }
        }
        let mut said: Vec<&Failure> = Vec::new();
        // What a person is to change stands above, step by step.
        let by_hand = self.pending.iter().flat_map(|p| &p.changes).any(|c| c.by_hand);
        let is_told = self.failures.iter().any(|f| f.failure.class == Class::Drift);
        let not_put_back = self.not_put_back.iter().filter(|_| !is_told);
        for f in self.failures.iter().chain(not_put_back).filter(|f| !by_hand || f.failure.class != Class::ByHand) {
            if said.iter().any(|s| s.what == f.failure.what) {
                continue;
            }
            said.push(&f.failure);
            line(
                "error",
                format!(
                    "{} ({} attempt{}, last {}{})",
                    f.failure.what,
                    f.attempts,
                    if f.attempts == 1 { "" } else { "s" },
                    ago(&rfc3339(f.failure.at), now),
                    f.next.map(|next| format!(", again at {}", rfc3339(next))).unwrap_or_default()
                ),
            );
            line("fix", f.failure.fix.clone());
        }
        // What our own logins have proved is not told as a hint besides.
        let proved = |n: &&Notice| n.class == Class::Refused && self.applied_refused.is_some();
        for n in self.notices.iter().filter(|n| !proved(n)) {
            line("notice", format!("{} ({})", n.what, ago(&rfc3339(n.at), now)));
            line("fix", n.fix.clone());
        }
        match (&self.live, &self.next) {
            (Some(live), _) => {
                let cause = live.woken.as_ref().map(|woken| format!(" ({})", woken.by.cause)).unwrap_or_default();
                match live.source_asked {
                    Some(at) => line("looked", format!("{}{cause}", ago(&rfc3339(at), now))),
                    None => line("looked", "not since relaykey started".into()),
                }
                if let Some(step) = &live.step {
                    line("doing", step.clone());
                } else if let Some(next) = live.next_wake {
                    let sync = relaykey("sync");
                    line("next", format!("in {}; `{sync}` looks at once", words(next.duration_since(now))));
                }
            }
            (None, Some(next)) => {
                line("next", format!("not before {next}; `{}` tries at once", relaykey("sync")));
            }
            (None, None) => {}
        }
        line("cost", self.cost.to_string());
    }

    /// What a person has to know who is to decide, or to make the change. Commands and steps stand on lines of their own.
    fn text_of_pending(&self, p: &PendingStatus, now: Timestamp, line: &mut impl FnMut(&str, String)) {
        let (name, version) = (&self.name, &p.version);
        let approve = relaykey(format_args!("approve {name} --version {version}"));
        // Where something else is in place than what was confirmed, nobody knows whether it does.
        let sure = self.mail_not_known().is_none() && !self.is_doubtful() && self.applied_refused.is_none();
        // Nothing may be applied yet: a first run that was killed has left a key in use all the same.
        let keep = self
            .key_in_use()
            .or_else(|| self.applied.as_ref().map(|a| a.username.clone()))
            .filter(|_| sure)
            .map(|who| format!("goes on with {who}: do not delete that key yet"));
        let decide = p.for_approval && p.approval.is_none();
        if let Some(r) = &p.rejected {
            line("rejected", format!("by {} {}: {}", r.by, ago(&rfc3339(r.at), now), r.reason));
            keep.into_iter().for_each(|keep| line("mail", keep));
            line("to do", "nothing, if that was meant; else publish another version, or take this one:".into());
            line("", approve);
            return;
        }
        if let Some(a) = &p.approval {
            line("approved", format!("by {} {}", a.by, ago(&rfc3339(a.at), now)));
        }
        if decide {
            let since = p.waits_since.map(|at| format!(", for {}", words(now.duration_since(at)))).unwrap_or_default();
            line("waits", format!("for somebody to approve it{since}"));
            keep.iter().for_each(|keep| line("mail", keep.clone()));
            // It is tried again every day while it waits, and may be refused by then.
            if !self.not_ready.iter().any(|n| n.class == Class::Refused) {
                line("approve", approve);
            }
            line("reject", relaykey(format_args!("reject {name} --version {version} --reason \"...\"")));
            match &p.window {
                Some(window) => line("or wait", format!("it goes into use by itself: {window}, local time")),
                None => {
                    let dies = if p.if_applied_dies { ", or the mail relay refuses the key in use" } else { "" };
                    line("or wait", format!("nothing changes until somebody decides{dies}"));
                    if let Some(why) = &p.dies_in_vain {
                        line("", format!("(if_applied_dies = \"apply\" has no effect: {why})"));
                    }
                }
            }
        }
        for c in p.changes.iter().filter(|c| !c.by_hand) {
            c.change.diff.iter().enumerate().for_each(|(n, diff)| {
                line(if n == 0 { "change" } else { "" }, diff.clone());
            });
        }
        let by_hand: Vec<&ChangeStatus> = p.changes.iter().filter(|c| c.by_hand).collect();
        if !decide && !by_hand.is_empty() {
            keep.iter().for_each(|keep| line("mail", keep.clone()));
        }
        // A new key that cannot be put into use does nothing to the mail either.
        if !decide
            && by_hand.is_empty()
            && self.not_ready.iter().any(|n| matches!(n.class, Class::Refused | Class::Failing))
        {
            keep.iter().for_each(|keep| line("mail", keep.clone()));
        }
        for c in &by_hand {
            let since = p.waits_since.map(|at| format!(", for {}", words(now.duration_since(at)))).unwrap_or_default();
            let waits = match decide {
                true => "is for a person to change, after the approval".to_owned(),
                false => format!("waits for a person to change it{since}"),
            };
            line("by hand", format!("target {} {waits}:", c.target));
            c.todo().iter().enumerate().for_each(|(n, step)| line("", format!("{}. {step}", n + 1)));
            c.change.differences.iter().enumerate().for_each(|(n, difference)| {
                line(if n == 0 { "as it is" } else { "" }, difference.clone());
            });
        }
        if !by_hand.is_empty() {
            let reveal = relaykey(format_args!("sync {name} --dry-run --reveal"));
            line("password", format!("*** stands for it; root sees it with: {reveal}"));
            let confirm = relaykey(format_args!("confirm {name}"));
            line("then", format!("relaykey sees it and reports it; where it does not run: {confirm}"));
        }
    }
}

impl InUseStatus {
    /// Neither what was put there nor what is to take its place?
    pub fn is_foreign(&self) -> bool {
        matches!(self.holds, Holds::Other | Holds::Nothing)
    }

    /// The same as [`InUseStatus::who`], where the name alone does not tell the difference.
    pub fn who_else(&self, applied: &AppliedStatus) -> String {
        match self.holds == Holds::Other && self.usernames == [applied.username.as_str()] {
            true => format!("{} with another password", applied.username),
            false => self.who(),
        }
    }
}

/// What a login of our own with the applied version says about what the mail log tells. `another`: a mail server was looked up
/// and does not hold that version.
pub fn own_login_words(own: &Tried, another: bool, now: Timestamp) -> String {
    let told = "tells that the mail server's login is refused";
    let at = ago(&rfc3339(own.at), now);
    match &own.result {
        OwnResult::Accepted if another => format!(
            "{told}; a login of our own with the key that this host had confirmed is accepted at {} ({at}): the mail server uses \
             another login than that, as was looked up",
            own.endpoint
        ),
        OwnResult::Accepted => format!(
            "{told}; a login of our own is accepted at {} ({at}): another table, service or instance uses another login, or \
             the line is not Postfix's",
            own.endpoint
        ),
        OwnResult::Refused { reply } => {
            format!("{told}; {} refused a login of our own with the key in use ({at}): {reply}", own.endpoint)
        }
        OwnResult::Unknown { what } => format!("{told}; a login of our own proved nothing ({at}): {what}"),
        OwnResult::NotGiven { what, .. } => {
            format!("{told}; that cannot be tried with a login of our own ({at}), so nothing is done about it: {what}")
        }
    }
}

impl ChangeStatus {
    /// What a person does who makes the change, in this order.
    pub fn todo(&self) -> Vec<Instruction> {
        match self.change.steps.as_slice() {
            [] => self.change.diff.iter().cloned().map(Instruction::Text).collect(),
            steps => steps.to_vec(),
        }
    }
}

impl PendingStatus {
    fn new(
        credential: &config::Credential,
        state: &State,
        candidate: &Candidate,
        first_refused: Option<Timestamp>,
    ) -> Self {
        let rejected = state.rejected.iter().find(|r| r.id == candidate.id).cloned();
        let (window, if_applied_dies) = match &credential.mode {
            config::Mode::Manual { window, if_applied_dies } => {
                (window.as_ref().map(ToString::to_string), *if_applied_dies == IfAppliedDies::Apply)
            }
            config::Mode::Automatic => (None, false),
        };
        let changes = credential.targets.iter().filter_map(|target| {
            let change = state.targets.get(&target.name)?.change.clone()?;
            Some(ChangeStatus { target: target.name.clone(), by_hand: !target.write, change })
        });
        let changes: Vec<ChangeStatus> = changes.collect();
        let waits = candidate.held.as_ref().filter(|_| rejected.is_none());
        // What a person changes needs no approval: that person decides.
        let is_manual = matches!(credential.mode, config::Mode::Manual { .. });
        let for_approval = waits.is_some() && is_manual && changes.iter().any(|c| !c.by_hand);
        let (gives, dies) = (credential.source.gives_older(), if_applied_dies && for_approval);
        let not_given = state.own_login().and_then(|own| match &own.result {
            OwnResult::NotGiven { what, .. } => Some(what.clone()),
            _ => None,
        });
        let in_vain = match gives {
            true => not_given,
            false => Some("a file does not give the older key, by which it would be proved".to_owned()),
        };
        Self {
            version: candidate.id.version.clone(),
            username: candidate.username.clone(),
            first_seen: rfc3339(candidate.first_seen),
            first_refused: first_refused.map(rfc3339),
            waits_since: waits.map(|held| held.since),
            for_approval,
            window: window.filter(|_| for_approval),
            if_applied_dies: dies && in_vain.is_none(),
            dies_in_vain: in_vain.filter(|_| dies),
            approval: candidate.approval.clone(),
            rejected,
            changes,
            not_newer: rollover::not_newer(state),
        }
    }
}

/// `3 days 4 hours ago`, from an RFC 3339 text.
fn ago(at: &str, now: Timestamp) -> String {
    match at.parse::<Timestamp>() {
        Ok(then) => format!("{} ago", words(now.duration_since(then))),
        Err(_) => at.to_owned(),
    }
}

/// The two largest units of a duration, in words.
pub fn words(d: SignedDuration) -> String {
    let s = d.as_secs().max(0);
    let units = [("day", s / 86400), ("hour", s / 3600 % 24), ("minute", s / 60 % 60), ("second", s % 60)];
    let parts: Vec<String> = units
        .iter()
        .skip_while(|(_, n)| *n == 0)
        .take(2)
        .filter(|(_, n)| *n > 0)
        .map(|(unit, n)| format!("{n} {unit}{}", if *n == 1 { "" } else { "s" }))
        .collect();
    if parts.is_empty() { "0 seconds".into() } else { parts.join(" ") }
}
