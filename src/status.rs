//! The one document behind `relaykey status`, later also behind the HTTP endpoint and the service manager's line.

use jiff::{SignedDuration, Timestamp};
use serde::Serialize;

use crate::config::{self, Config};
use crate::rollover::{Completion, Failure, Owed, Report, State, rfc3339};

/// A key that is older than this should have been rotated: the usual 90 days.
const OLD_KEY: SignedDuration = SignedDuration::from_hours(90 * 24);

#[derive(Debug, Serialize)]
pub struct Status {
    pub schema: &'static str,
    pub at: String,
    pub credentials: Vec<CredentialStatus>,
}

#[derive(Debug, Serialize)]
pub struct CredentialStatus {
    pub name: String,
    pub source: String,
    /// `up-to-date`, `pending`, `refused`, `failing`, `reload-owed`, `drift`, `never-applied`.
    pub state: &'static str,
    pub applied: Option<AppliedStatus>,
    pub pending: Option<PendingStatus>,
    pub failures: Vec<FailureStatus>,
    pub owed: Vec<OwedStatus>,
    /// When something that failed is due again.
    pub next: Option<String>,
    /// The latest confirmation.
    pub report: Option<Report>,
}

#[derive(Debug, Serialize)]
pub struct AppliedStatus {
    pub version: String,
    pub username: String,
    pub previous_username: Option<String>,
    pub outcome: Completion,
    pub since: String,
    /// Seconds since the source made this version (for a file: since it was applied here).
    pub key_age_seconds: i64,
}

#[derive(Debug, Serialize)]
pub struct PendingStatus {
    pub version: String,
    pub username: String,
    pub first_seen: String,
    pub first_refused: Option<String>,
}

#[derive(Debug, Serialize)]
pub struct FailureStatus {
    pub target: Option<String>,
    #[serde(flatten)]
    pub failure: Failure,
    pub attempts: u32,
}

#[derive(Debug, Serialize)]
pub struct OwedStatus {
    pub target: String,
    #[serde(flatten)]
    pub owed: Owed,
}

impl Status {
    /// From the configuration and what state files say; a credential without a state file has never been applied.
    pub fn new(config: &Config, states: &[Option<State>], now: Timestamp) -> Self {
        let credentials =
            config.credentials.iter().zip(states).map(|(c, state)| CredentialStatus::new(c, state.as_ref(), now));
        Self { schema: "relaykey/status/v1", at: rfc3339(now), credentials: credentials.collect() }
    }

    /// For people.
    pub fn text(&self, now: Timestamp) -> String {
        let mut out = String::new();
        for c in &self.credentials {
            c.text(now, &mut out);
        }
        out
    }
}

/// What a source is, in a few words.
pub fn source_words(source: &config::Source) -> String {
    match source {
        config::Source::SecretsManager { secret, stages, .. } => {
            format!("secrets-manager {secret} ({})", stages.join(", "))
        }
        config::Source::ParameterStore { parameter, label: None, .. } => format!("parameter-store {parameter}"),
        config::Source::ParameterStore { parameter, label: Some(label), .. } => {
            format!("parameter-store {parameter} ({label})")
        }
        config::Source::File { path } => format!("file {}", path.display()),
    }
}

impl CredentialStatus {
    fn new(credential: &config::Credential, state: Option<&State>, now: Timestamp) -> Self {
        let empty = State::new(&credential.name);
        let state = state.unwrap_or(&empty);
        let retries = std::iter::once((None, &state.source_retry))
            .chain(state.targets.iter().map(|(name, t)| (Some(name.clone()), &t.retry)));
        let mut failures = Vec::new();
        let mut next: Option<Timestamp> = None;
        for (target, retry) in retries {
            if let Some(failure) = &retry.failure {
                failures.push(FailureStatus { target, failure: failure.clone(), attempts: retry.attempts });
                next = [next, retry.next].into_iter().flatten().min();
            }
        }
        let owed: Vec<OwedStatus> = state
            .targets
            .iter()
            .filter_map(|(name, t)| Some(OwedStatus { target: name.clone(), owed: t.reload_owed.clone()? }))
            .collect();
        let has = |class: &str| failures.iter().any(|f| f.failure.class == class);
        let word = if has("refused") {
            "refused"
        } else if has("drift") {
            "drift"
        } else if !owed.is_empty() {
            "reload-owed"
        } else if has("not-yet") {
            "pending"
        } else if !failures.is_empty() {
            "failing"
        } else if state.candidate.is_some() {
            "pending"
        } else if state.applied.is_none() {
            "never-applied"
        } else {
            "up-to-date"
        };
        let first_refused = state.targets.values().filter_map(|t| t.first_refused.as_ref().map(|f| f.since)).min();
        Self {
            name: credential.name.clone(),
            source: source_words(&credential.source),
            state: word,
            applied: state.applied.as_ref().map(|a| AppliedStatus {
                version: a.id.version.clone(),
                username: a.username.clone(),
                previous_username: a.previous_username.clone(),
                outcome: a.outcome,
                since: rfc3339(a.since),
                key_age_seconds: now.duration_since(a.id.order.map_or(a.since, |o| o.at)).as_secs().max(0),
            }),
            pending: state.candidate.as_ref().map(|c| PendingStatus {
                version: c.id.version.clone(),
                username: c.username.clone(),
                first_seen: rfc3339(c.first_seen),
                first_refused: first_refused.map(rfc3339),
            }),
            failures,
            owed,
            next: next.map(rfc3339),
            report: state.report.clone(),
        }
    }

    fn text(&self, now: Timestamp, out: &mut String) {
        use std::fmt::Write as _;
        let _ = writeln!(out, "{}: {}", self.name, self.state);
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
                let old = if age > OLD_KEY { ": older than 90 days, rotate it" } else { "" };
                line("key age", format!("{}{old}", words(age)));
            }
            None => line("applied", "nothing yet: run `relaykey sync`".into()),
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
        for o in &self.owed {
            line("owed", format!("target {}: a reload, since {}: {}", o.target, rfc3339(o.owed.since), o.owed.why));
        }
        let mut said: Vec<&Failure> = Vec::new();
        for f in &self.failures {
            if said.iter().any(|s| s.what == f.failure.what) {
                continue;
            }
            said.push(&f.failure);
            line(
                "error",
                format!("{} ({} attempts, last {})", f.failure.what, f.attempts, ago(&rfc3339(f.failure.at), now)),
            );
            line("fix", f.failure.fix.clone());
        }
        if let Some(next) = &self.next {
            line("next", format!("not before {next}; `relaykey sync` tries at once"));
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
