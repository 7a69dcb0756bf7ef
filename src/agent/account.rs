//! What one run came to, for people and for programs: a line per step as it happens, and the outcome of `sync`.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::Timestamp;
use relaykey_core::exit::Exit;
use serde::{Deserialize, Serialize};

use super::{FileWarning, FinishedRun, RunEnd, RunEvent};
use crate::apply::WhyReload;
use crate::audit::{StepKind, StepTime};
use crate::config;
use crate::fault::{Class, Failure};
use crate::instruction::{Instruction, relaykey};
use crate::rollover::{self, Completion, MailServer, Outcome, PlannedChange, Report, Step, TargetState};
use crate::status::{InSeconds, how_to_start, key_refused, not_running, words};

/// What one run over one credential came to: an element of what `sync --json` prints.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Synced {
    pub name: String,
    pub outcome: SyncOutcome,
    /// Why it ended here.
    pub reason: String,
    /// The applied version.
    pub version: Option<String>,
    pub username: Option<String>,
    /// The version that would be applied, that waits for a person or was rejected, and its user name.
    pub candidate: Option<(String, String)>,
    pub failures: Vec<TargetFailure>,
    pub steps: Vec<StepTime>,
    pub preview: Vec<Preview>,
    /// The confirmation, if this run made one.
    pub report: Option<Report>,
    /// `confirm --code`: what a person types elsewhere.
    #[serde(default)]
    pub code: Option<String>,
    /// Why there is none although it was asked for.
    #[serde(default)]
    pub no_code: Option<String>,
    /// Of a `confirm` that confirmed nothing: who was found in use.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub in_use: Vec<String>,
    /// The same of targets whose mail server may use something else yet, because a reload is owed: who is in the files.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub in_files: Vec<String>,
    /// Mail servers that were seen not to run, whatever became of the credential.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_running: Option<NotRunning>,
    /// The endpoint refuses the key in use, as logins of our own have proved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub applied_refused: Option<KeyRefused>,
    /// What a group could have written of what the targets go by.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<FileWarning>,
    /// The exit code that this stands for.
    pub exit: u8,
}

relaykey_core::words! {
    /// What one run came to, in the word of documents.
    pub enum SyncOutcome {
        Adopted = "adopted",
        Confirmed = "confirmed",
        UpToDate = "up-to-date",
        DryRun = "dry-run",
        PendingApproval = "pending-approval",
        /// A person is to change what the mail server uses: to the version that waits, or to put right what is there.
        ByHand = "by-hand",
        Rejected = "rejected",
        Left = "left",
        FailedForNow = "failed-for-now",
        Failed = "failed",
        Interrupted = "interrupted",
    }
}

impl SyncOutcome {
    /// Did something stand in the way?
    fn has_failed(self) -> bool {
        match self {
            Self::FailedForNow | Self::Failed => true,
            // Every word of a failure begins so.
            Self::Foreign(word) => word.word().starts_with("failed"),
            _ => false,
        }
    }
}

/// That mail is held back, and what to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyRefused {
    pub what: String,
    pub fix: String,
}

impl KeyRefused {
    fn of(ended: &FinishedRun) -> Option<Self> {
        let (own, applied) = (ended.state.applied_refused()?, ended.state.applied.as_ref()?);
        let (last, first, latest) = (own.last.as_ref()?, *own.refused.first()?, *own.refused.last()?);
        let waits = ended.state.candidate.as_ref().filter(|c| c.held.is_some() && ended.end == RunEnd::Waits);
        Some(Self {
            what: key_refused(&last.endpoint, &applied.username, first, latest),
            fix: rollover::instead_of_the_refused(&ended.state.credential, waits.map(|c| c.id.version.as_str())),
        })
    }
}

/// That no mail goes out, and what to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NotRunning {
    pub targets: Vec<String>,
    pub what: String,
    pub fix: String,
}

impl NotRunning {
    fn of(credential: &config::Credential, ended: &FinishedRun) -> Option<Self> {
        let is_stopped =
            |name: &String| ended.state.targets.get(name).is_some_and(|t| t.mail_server == Some(MailServer::Stopped));
        let names = credential.targets.iter().map(|t| t.name.clone());
        let targets: Vec<String> = names.filter(is_stopped).collect();
        let (what, fix) = (not_running(&targets)?, how_to_start(credential, &targets));
        Some(Self { targets, what, fix })
    }
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct TargetFailure {
    pub target: Option<String>,
    #[serde(flatten)]
    pub failure: Failure,
    /// Of a target that a person changes: what that person does, in this order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub steps: Vec<Instruction>,
    /// How what is there differs from what is wanted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub differences: Vec<String>,
}

impl TargetFailure {
    fn new(
        target: Option<String>,
        failure: Failure,
        credential: &config::Credential,
        targets: &BTreeMap<String, TargetState>,
    ) -> Self {
        // What relaykey writes itself nobody is told to change.
        let is_by_hand = |name: &&String| credential.targets.iter().any(|t| t.name == **name && !t.write);
        let asked = target.as_ref().filter(|_| failure.class == Class::ByHand).filter(is_by_hand);
        let change = asked.and_then(|t| targets.get(t)?.change.clone());
        let PlannedChange { steps, differences, .. } = change.unwrap_or_default();
        Self { target, failure, steps, differences }
    }
}

/// What would change in one target, masked.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Preview {
    pub target: String,
    pub change: Vec<String>,
    /// Is a reload of the mail server needed for it?
    pub reload: bool,
    /// Why so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reload_because: Option<WhyReload>,
    /// It would stay owed: `reload = "never"`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub reload_never: bool,
    /// Does a person change it (`write = false`)?
    #[serde(default)]
    pub by_hand: bool,
    /// What a person does to make the change, in this order, as texts.
    #[serde(default)]
    pub steps: Vec<String>,
    /// The same, told apart: what is an edit, and what is a command.
    #[serde(default)]
    pub todo: Vec<Instruction>,
    /// How what is there differs from the candidate.
    #[serde(default)]
    pub differences: Vec<String>,
}

/// What would become of the reload that a mail server needs, and why it needs one; `never`: the configuration has
/// `reload = "never"`.
pub fn reload_ahead(why: WhyReload, never: bool) -> String {
    let because = why.because();
    match never {
        false => format!("the mail server would be reloaded, because {because}"),
        true => format!("a reload of the mail server would be owed (reload = \"never\"), because {because}"),
    }
}

impl Synced {
    /// Of a run that has ended.
    pub fn new(credential: &config::Credential, ended: FinishedRun, dry_run: bool, preview: Vec<Preview>) -> Self {
        let not_running = NotRunning::of(credential, &ended);
        let applied_refused = KeyRefused::of(&ended);
        let answers = ended.failures.iter().any(|(_, f)| f.class == Class::NothingToDo);
        let candidate = ended.state.candidate.as_ref();
        let is_rejected = candidate.is_some_and(|c| ended.state.rejected.iter().any(|r| r.id == c.id));
        // Who asks for a confirmation asks what is in use.
        let found = |is_read: bool| {
            let asked = ended.state.targets.values().filter(|_| ended.not_confirmed);
            let of = asked.filter(|t| t.reload_owed.is_none() == is_read).filter_map(|t| t.in_use.as_ref());
            let all: BTreeSet<String> = of.flat_map(|found| found.usernames.clone()).collect();
            all.into_iter().collect::<Vec<_>>()
        };
        let (in_use, in_files) = (found(true), found(false));
        let outcome = match ended.end {
            RunEnd::Done(Some(Completion::Adopted)) => SyncOutcome::Adopted,
            RunEnd::Done(Some(Completion::Confirmed)) => SyncOutcome::Confirmed,
            RunEnd::Done(None) if dry_run && candidate.is_some() => SyncOutcome::DryRun,
            RunEnd::Done(None) if ended.steps.iter().any(|s| s.step == StepKind::Leave) => SyncOutcome::Left,
            RunEnd::Done(None) if ended.state.candidate.is_some() => SyncOutcome::Rejected,
            // Of a look that was asked for: nothing is to be done here, and mail is held back.
            RunEnd::Done(None) if applied_refused.is_some() && !answers => SyncOutcome::Failed,
            RunEnd::Done(None) => SyncOutcome::UpToDate,
            RunEnd::Waits if candidate.is_none() => SyncOutcome::ByHand,
            RunEnd::Waits if is_rejected => SyncOutcome::Rejected,
            // Nobody is asked to approve what a person is to put in place.
            RunEnd::Waits if ended.failures.iter().any(|(_, f)| f.class == Class::ByHand) => SyncOutcome::ByHand,
            RunEnd::Waits => SyncOutcome::PendingApproval,
            RunEnd::ForNow => SyncOutcome::FailedForNow,
            RunEnd::ForGood => SyncOutcome::Failed,
            RunEnd::Interrupted => SyncOutcome::Interrupted,
        };
        // Of a look that was asked for, mail that is held back counts.
        let end = if outcome == SyncOutcome::Failed { RunEnd::ForGood } else { ended.end };
        // What was rejected is what the outcome is about, and not the version in use.
        let candidate = candidate.filter(|_| dry_run || ended.end == RunEnd::Waits || outcome == SyncOutcome::Rejected);
        let done = matches!(ended.end, RunEnd::Done(Some(_)));
        let mut failures = ended.failures;
        if failures.is_empty() && outcome == SyncOutcome::FailedForNow {
            failures.extend(rollover::not_newer(&ended.state).map(|failure| (None, failure)));
        }
        failures.iter_mut().for_each(|(_, failure)| failure.in_seconds());
        let mut report = ended.state.report.filter(|_| done);
        report.in_seconds();
        Self {
            name: ended.state.credential.clone(),
            outcome,
            reason: ended.reason.to_string(),
            version: ended.state.applied.as_ref().map(|a| a.id.version.clone()),
            username: ended.state.applied.as_ref().map(|a| a.username.clone()),
            candidate: candidate.map(|c| (c.id.version.clone(), c.username.clone())),
            failures: failures
                .into_iter()
                .map(|(t, f)| TargetFailure::new(t, f, credential, &ended.state.targets))
                .collect(),
            steps: ended.steps,
            preview,
            report,
            code: ended.code.clone().and_then(Result::ok),
            no_code: ended.code.and_then(Result::err),
            applied_refused,
            in_use,
            in_files,
            not_running,
            warnings: ended.doubts,
            exit: end.exit().code(),
        }
    }

    /// This run, and another one right after it that looked once more: what that came to is the last word, if it came to anything.
    pub fn followed_by(self, again: Self) -> Self {
        if again.outcome == SyncOutcome::UpToDate {
            return self;
        }
        Self { steps: self.steps.into_iter().chain(again.steps).collect(), ..again }
    }

    /// The last word for people: lines of standard output, and of standard error what stands in the way, with its fix.
    pub fn lines(&self) -> (Vec<String>, Vec<String>) {
        let (mut out, mut err) = (Vec::new(), Vec::new());
        for p in &self.preview {
            // Nothing of it is relaykey's to do, the reload neither: what a person does, and in which order, is said below.
            let is_for_a_person = p.by_hand && !p.change.is_empty();
            let whose = if is_for_a_person { "is changed by hand (write = false), to" } else { "would change:" };
            let end = if is_for_a_person { ":" } else { "" };
            out.push(format!("{}: target {} {whose}{end}", self.name, p.target));
            out.extend(p.change.iter().map(|line| format!("  {line}")));
            if p.change.is_empty() {
                out.push("  nothing".into());
            }
            if let Some(why) = p.reload_because.filter(|_| !is_for_a_person) {
                out.push(format!("  {}", reload_ahead(why, p.reload_never)));
            }
            // Of a target that relaykey changes itself, the change says it all.
            if is_for_a_person {
                out.push(format!("{}: target {}: what differs now:", self.name, p.target));
                out.extend(p.differences.iter().map(|line| format!("  {line}")));
                out.extend(by_hand(&self.name, &p.target, &p.todo));
            }
        }
        let version = match (&self.candidate, &self.version, &self.username) {
            (Some((version, username)), _, _) => format!(" version {version} ({username})"),
            // What was confirmed is not what is in use.
            (None, Some(version), Some(username))
                if !self.outcome.has_failed() && self.outcome != SyncOutcome::ByHand =>
            {
                format!(" version {version} ({username})")
            }
            _ => String::new(),
        };
        out.push(format!("{}: {}{version}", self.name, self.outcome.word()));
        out.extend(self.code.iter().map(|code| format!("{}: code {code}", self.name)));
        err.extend(self.no_code.iter().map(|why| format!("{}: there is no code: {why}", self.name)));
        let mut said: Vec<&Failure> = Vec::new();
        for f in &self.failures {
            if said.iter().any(|said| said.says_the_same(&f.failure)) {
                continue;
            }
            said.push(&f.failure);
            let target = f.target.as_ref().map(|t| format!(" {t}")).unwrap_or_default();
            err.push(format!("{}{target}: {}", self.name, f.failure.what));
            if f.steps.is_empty() {
                err.push(format!("  fix: {}", f.failure.fix));
            } else {
                err.extend(f.differences.iter().map(|line| format!("  as it is: {line}")));
                err.push("  fix: change it by hand, as root:".into());
                err.extend(numbered(&f.steps));
            }
        }
        // What a failure says already is not said twice.
        let said = |target: &String| {
            let mut of = self.failures.iter().filter(|f| f.target.as_ref() == Some(target));
            of.any(|f| {
                f.failure.class == Class::NotRunning || f.failure.class == Class::ReloadOwed && f.failure.temporary
            })
        };
        if let Some(n) = self.not_running.as_ref().filter(|n| !n.targets.iter().all(said)) {
            err.push(format!("{}: {}", self.name, n.what));
            err.push(format!("  fix: {}", n.fix));
        }
        if let Some(refused) = &self.applied_refused {
            err.push(format!("{}: {}", self.name, refused.what));
            err.push(format!("  fix: {}", refused.fix));
        }
        err.extend(self.warnings.iter().flat_map(FileWarning::lines));
        let found = [("in use is", &self.in_use), ("in the files is", &self.in_files)];
        let found: Vec<String> = found
            .iter()
            .filter(|(_, who)| !who.is_empty())
            .map(|(is, who)| format!("{is} {}", who.join(" and ")))
            .collect();
        if !found.is_empty() {
            err.push(format!("{}: nothing was confirmed; {}", self.name, found.join(", ")));
        }
        let exit = Exit::of(self.exit);
        if let (SyncOutcome::Rejected, Exit::People, Some((version, _))) = (&self.outcome, exit, &self.candidate) {
            err.push(format!("{}: the newest version is confirmed and no other, and {}", self.name, self.reason));
            err.push(format!(
                "  fix: publish another version, or take this one: {}",
                relaykey(format_args!("approve {} --version {version}", self.name))
            ));
        }
        let waits = matches!(self.outcome, SyncOutcome::FailedForNow | SyncOutcome::PendingApproval);
        if self.failures.is_empty() && waits {
            err.push(format!("{}: {}", self.name, self.reason));
        }
        if let (SyncOutcome::PendingApproval, true, Some((version, _))) =
            (&self.outcome, self.failures.is_empty(), &self.candidate)
        {
            err.push(format!(
                "  fix: {}; or {}",
                relaykey(format_args!("approve {} --version {version}", self.name)),
                relaykey(format_args!("reject {} --version {version} --reason \"...\"", self.name))
            ));
        }
        (out, err)
    }
}

/// What a person does, as people read it; nothing where nothing is to be done.
pub fn by_hand<'a>(credential: &str, target: &str, steps: &'a [Instruction]) -> impl Iterator<Item = String> + use<'a> {
    let title = format!("{credential}: target {target}: to change it by hand, as root:");
    std::iter::once(title).filter(|_| !steps.is_empty()).chain(numbered(steps))
}

/// One step to a line.
fn numbered(steps: &[Instruction]) -> impl Iterator<Item = String> + use<'_> {
    steps.iter().enumerate().map(|(n, step)| format!("  {}. {step}", n + 1))
}

/// What `sync --json` prints, through the daemon or not.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SyncDocument {
    /// `relaykey/sync/v1`.
    pub schema: String,
    pub credentials: Vec<Synced>,
    /// What others may read, or a group could have written, of the files that the configuration names, and of it itself.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<FileWarning>,
    /// The worst of them: 2, 1, 75, 3, 0.
    pub exit: u8,
}

impl SyncDocument {
    pub const SCHEMA: &str = "relaykey/sync/v1";

    pub fn new(credentials: Vec<Synced>) -> Self {
        let worst = credentials.iter().map(|c| Exit::of(c.exit)).max().unwrap_or(Exit::Done);
        Self { schema: Self::SCHEMA.into(), credentials, warnings: Vec::new(), exit: worst.code() }
    }
}

/// The target that a step is about.
pub fn target_name<'a>(credential: &'a config::Credential, step: &Step) -> Option<&'a str> {
    step.target().map(|i| credential.targets[i].name.as_str())
}

/// Did the step do what it was for?
pub fn went_well(outcome: &Outcome) -> bool {
    !matches!(
        outcome,
        Outcome::ByHand(..)
            | Outcome::Failed(_)
            | Outcome::Refused { .. }
            | Outcome::NotGiven(_)
            | Outcome::Mismatch(_)
            | Outcome::Overtaken
            | Outcome::ReloadOwed(_)
    )
}

/// A step that has ended, as the audit log and `sync --json` have it.
pub fn step_time(credential: &config::Credential, step: &Step, outcome: &Outcome, took: Duration) -> StepTime {
    StepTime {
        step: step.kind(),
        target: target_name(credential, step).map(str::to_owned),
        ok: went_well(outcome),
        milliseconds: u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
    }
}

/// One line per step, as it happens; `None`: nothing that people wait for.
pub fn line(credential: &config::Credential, event: &RunEvent<'_>, now: Timestamp) -> Option<String> {
    let name = &credential.name;
    match event {
        RunEvent::Begins { step: Step::Wait { until }, reason } => {
            let left = until.duration_since(now);
            let words = if left.as_secs() > 0 { words(left) } else { "a moment".to_owned() };
            (left.as_millis() > 0).then(|| format!("{name}: waiting {words} ({reason})"))
        }
        RunEvent::Ended { step: Step::Wait { .. }, .. } => None,
        RunEvent::Ended { step, outcome, took } => {
            let target = target_name(credential, step).map(|t| format!(" {t}")).unwrap_or_default();
            let text = match outcome {
                Outcome::Inspected(i) => match (i.usernames.as_slice(), &i.swapped) {
                    (_, Some(swapped)) => {
                        format!("version {} was put there before, and is not confirmed yet", swapped.id.version)
                    }
                    // Of what stands there nothing is shown: a secret may stand in the place of the name.
                    ([], None) if i.first_live_id.is_some() => "has an entry whose value is no login".into(),
                    ([], None) => "has no entry yet".into(),
                    (usernames, None) => format!("uses {}", usernames.join(" and ")),
                },
                Outcome::Fetched(f) => format!("version {} ({})", f.id.version, f.username),
                Outcome::Accepted(e) => format!("{}: {}", e.endpoint, e.reply),
                Outcome::Refused { endpoint: None, reply } => format!("refused: {reply}"),
                Outcome::Refused { endpoint: Some(endpoint), reply } => format!("refused by {endpoint}: {reply}"),
                Outcome::Prepared(p) if p.nothing_to_write => "holds the right login already, nothing to write".into(),
                Outcome::Prepared(p) => match &p.goes_live {
                    None => "staged, every key looked up".into(),
                    Some(names) => format!(
                        "staged, every key looked up; what only the text has of other relays goes into effect, too: {names}"
                    ),
                },
                Outcome::ByHand(..) => "is for a person to change".into(),
                Outcome::Swapped => "in place".into(),
                Outcome::Activated => "no reload is owed".into(),
                Outcome::ReadBack(r) => format!("{} gives the right login ({})", r.keys.join(", "), r.how),
                Outcome::Failed(f) | Outcome::Mismatch(f) | Outcome::ReloadOwed(f) => format!("failed: {}", f.what),
                Outcome::NotGiven(f) => format!("cannot be tried: {}", f.what),
                Outcome::Overtaken => "somebody else has written there since: left as it is".into(),
                Outcome::Refrained
                | Outcome::Previewed(..)
                | Outcome::Probed
                | Outcome::Noted
                | Outcome::Undone
                | Outcome::Discarded
                | Outcome::Waited
                | Outcome::Committed(_) => "done".into(),
            };
            Some(format!("{name}: {:<9}{target} {text} ({:.3} s)", step.word(), took.as_secs_f64()))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What of an entry may not be shown is not called no entry; and of a mail server that does not run nobody says that it noticed.
    #[test]
    fn a_step_says_no_more_than_was_seen() {
        let (config, _) = config::parse(config::EXAMPLE).expect("the example");
        let credential = &config.credentials[0];
        let said = |step: Step, outcome: Outcome| {
            let event = RunEvent::Ended { step: &step, outcome: &outcome, took: Duration::ZERO };
            line(credential, &event, Timestamp::UNIX_EPOCH).expect("a line")
        };
        let inspect = |first_live_id: Option<&str>| {
            let first_live_id = first_live_id.map(str::to_owned);
            let found = rollover::Inspection { first_live_id, ..rollover::Inspection::default() };
            said(Step::Inspect { target: 0 }, Outcome::Inspected(found))
        };
        assert!(inspect(None).contains("has no entry yet"));
        assert!(inspect(Some("id")).contains("has an entry whose value is no login"), "{}", inspect(Some("id")));
        let activated = said(Step::Activate { target: 0 }, Outcome::Activated);
        assert!(activated.contains("no reload is owed"), "{activated}");
    }

    #[test]
    fn the_outcome_of_a_run_is_one_word() {
        use SyncOutcome::*;
        let all = [
            Adopted,
            Confirmed,
            UpToDate,
            DryRun,
            PendingApproval,
            ByHand,
            Rejected,
            Left,
            FailedForNow,
            Failed,
            Interrupted,
        ];
        for outcome in all.into_iter().chain(["of-tomorrow".into()]) {
            let word = serde_json::to_value(outcome).expect("JSON");
            assert_eq!(word, outcome.word());
            assert_eq!(serde_json::from_value::<SyncOutcome>(word).expect("an outcome"), outcome);
        }
    }
}
