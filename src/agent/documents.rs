//! The documents that a run writes: reports of what was confirmed or is to be told, and records of the audit log.

use jiff::Timestamp;
use relaykey_core::report::{ProofHeading, REPORT_V2};

use super::steps::{evidence_of, region_of};
use super::{AGENT, Agent};
use crate::audit::{By, Record, RecordCause, RecordError, RecordKind, RecordOutcome, StepTime};
use crate::config;
use crate::fault::{Class, Failure};
use crate::rollover::{self, Facts, News, Report, ReportOutcome, ReportTarget, State};

impl Agent {
    /// The confirmation, from what was read back.
    /// `None`: a target was not verified or not read back, which would make it incomplete.
    pub(super) fn report(
        &self,
        facts: &Facts,
        credential: &config::Credential,
        stamp: &rollover::Stamp,
    ) -> Option<Report> {
        let targets = credential.targets.iter().zip(&facts.targets);
        let targets =
            targets.map(|(target, facts)| Some(read(target, facts.read_back.as_ref()?, facts.evidence.clone()?)));
        let targets = targets.collect::<Option<Vec<_>>>()?;
        let of = self.of_confirmation(facts, credential, stamp);
        Some(Report { targets, ..self.heading(facts, credential, of, stamp.at) })
    }

    /// What every proof of the confirmation is made over.
    pub(super) fn of_confirmation(
        &self,
        facts: &Facts,
        credential: &config::Credential,
        stamp: &rollover::Stamp,
    ) -> ProofHeading {
        let found = facts.fetched.as_ref();
        ProofHeading {
            host_id: self.identity.host_id.clone(),
            host: self.identity.name.clone(),
            credential: credential.name.clone(),
            source: found.map(|f| f.identity.arn.clone()).unwrap_or_default(),
            version: found.map(|f| f.id.version.clone()).unwrap_or_default(),
            username: found.map(|f| f.username.clone()).unwrap_or_default(),
            outcome: stamp.outcome.into(),
            seq: stamp.seq,
            at: rollover::rfc3339(stamp.at),
        }
    }

    /// The same of a sign of life; `None`: there is nothing applied to prove.
    pub(super) fn of_sign_of_life(
        &self,
        facts: &Facts,
        credential: &config::Credential,
        stamp: &rollover::SignOfLife,
    ) -> Option<ProofHeading> {
        let applied = facts.state.applied.as_ref()?;
        Some(ProofHeading {
            host_id: self.identity.host_id.clone(),
            host: self.identity.name.clone(),
            credential: credential.name.clone(),
            source: facts.state.source.as_ref()?.arn.clone(),
            version: applied.id.version.clone(),
            username: applied.username.clone(),
            outcome: ReportOutcome::Alive,
            seq: stamp.seq,
            at: rollover::rfc3339(stamp.at),
        })
    }

    /// Everything of a confirmation, or of a sign of life, but its targets. What their proofs are made over stands in it as it is.
    pub(super) fn heading(
        &self,
        facts: &Facts,
        credential: &config::Credential,
        of: ProofHeading,
        at: Timestamp,
    ) -> Report {
        let ProofHeading { host_id, host, credential: name, source, version, username, outcome, seq, at: stamped } = of;
        Report {
            host_id,
            host,
            credential: name,
            source,
            version,
            username,
            at: stamped,
            previous_username: facts.previous_username(),
            // It was read back, which a mail server that is down fails.
            mail_server: Some(rollover::MailServer::Runs),
            approved_by: facts.approved_by(),
            ..self.blank(credential, seq, at, outcome)
        }
    }

    /// What every document says of this host and the credential, and nothing of what happened.
    fn blank(&self, credential: &config::Credential, seq: u64, at: Timestamp, outcome: ReportOutcome) -> Report {
        Report {
            schema: REPORT_V2.into(),
            id: format!("{}-{}-{seq}", self.identity.host_id, credential.name),
            seq,
            host_id: self.identity.host_id.clone(),
            host: self.identity.name.clone(),
            credential: credential.name.clone(),
            source: String::new(),
            version: String::new(),
            username: String::new(),
            previous_username: None,
            alive_due: rollover::alive_due(at, self.lease),
            at: rollover::rfc3339(at),
            mode: credential.mode.word().into(),
            agent: AGENT.into(),
            outcome,
            targets: Vec::new(),
            error: None,
            waiting: None,
            mail_server: None,
            in_use: None,
            version_in_use: None,
            another_login: false,
            half_done: Vec::new(),
            of_applied: false,
            approved_by: None,
            labels: credential.source.labels().to_vec(),
            poll_s: u32::try_from(credential.poll.as_secs()).ok(),
            lease_s: self.lease.and_then(|lease| u32::try_from(lease.as_secs()).ok()),
            latest: None,
        }
    }

    /// The document of something that is no confirmation.
    pub(super) fn news(&self, facts: &Facts, credential: &config::Credential, news: News) -> Report {
        let source = match news.outcome {
            // It is about what is applied, whatever the source has become.
            ReportOutcome::Alive => facts.state.source.as_ref(),
            _ => facts.fetched.as_ref().map(|f| &f.identity).or(facts.state.source.as_ref()),
        };
        let attested = credential.targets.iter().zip(&news.attested);
        let attested =
            attested.map(|(target, found)| Some(read(target, found, evidence_of(&facts.state, &target.name)?.clone())));
        let another_login = news.in_use.is_some() && facts.state.foreign().is_some();
        // In a place that holds one document per host, this one replaces what still stands.
        let latest = match news.outcome {
            ReportOutcome::Alive => facts.state.told.clone(),
            ReportOutcome::Withdrawn | ReportOutcome::AppliedRefused | ReportOutcome::Left => None,
            _ if facts.state.refused.is_some() => facts.state.refusal.clone(),
            _ => facts.state.report.clone().filter(|_| facts.state.withdrawn.is_none()),
        };
        // Who has applied nothing, or has left, gives none.
        let gives_signs = facts.state.applied.is_some() && news.outcome != ReportOutcome::Left;
        let blank = self.blank(credential, news.seq, news.at, news.outcome);
        Report {
            source: source.map(|s| s.arn.clone()).unwrap_or_default(),
            version: news.version,
            username: news.username,
            previous_username: news.previous_username,
            targets: attested.collect::<Option<_>>().unwrap_or_default(),
            error: news.error,
            waiting: news.waiting,
            mail_server: facts.mail_server(),
            in_use: news.in_use,
            another_login,
            version_in_use: news.version_in_use,
            half_done: each_name_once(facts.state.half_done().map(|(_, begun)| &begun.username)),
            of_applied: news.of_applied,
            alive_due: blank.alive_due.filter(|_| gives_signs),
            latest: latest.map(Box::new),
            ..blank
        }
    }
}

/// What was read back of a target.
fn read(target: &config::Target, found: &rollover::ReadBackFacts, evidence: rollover::Evidence) -> ReportTarget {
    ReportTarget {
        name: target.name.clone(),
        kind: found.kind.clone(),
        map: found.map.clone(),
        tables: found.tables.clone(),
        keys: found.keys.clone(),
        read_back: found.how.clone(),
        held: found.held.told.clone(),
        region: found.region.clone().or_else(|| region_of(target)),
        evidence,
        proof: found.proof.clone().ok(),
        no_proof: found.proof.clone().err(),
    }
}

fn each_name_once<'a>(names: impl Iterator<Item = &'a String>) -> Vec<String> {
    let once: std::collections::BTreeSet<&String> = names.collect();
    once.into_iter().cloned().collect()
}

/// What a commit completes, in the word of the audit log.
pub(super) fn what_was_done(facts: &Facts, stamp: &rollover::Stamp) -> RecordKind {
    let same = rollover::is_in_use(facts);
    match stamp.outcome {
        rollover::Completion::Adopted => RecordKind::Adoption,
        rollover::Completion::Confirmed if same && facts.targets.iter().any(|t| t.swapped) => RecordKind::Heal,
        // Somebody asked for it, or what was withdrawn holds again.
        rollover::Completion::Confirmed if same => RecordKind::Confirmation,
        rollover::Completion::Confirmed => RecordKind::Rollover,
    }
}

/// How the audit log says what a confirmation came to.
pub(super) fn completed(completion: rollover::Completion) -> RecordOutcome {
    match completion {
        rollover::Completion::Adopted => RecordOutcome::Adopted,
        rollover::Completion::Confirmed => RecordOutcome::Confirmed,
    }
}

/// One record of the audit log, of what the facts say now.
pub(super) fn record(
    facts: &Facts,
    credential: &config::Credential,
    by: &By,
    what: RecordKind,
    outcome: RecordOutcome,
    steps: &[StepTime],
    at: Timestamp,
) -> Record {
    let found = facts.fetched.as_ref();
    let failure = told_of(facts);
    // What failed before the source gave any version is no fault of the one in use.
    let applied = facts.state.applied.as_ref().filter(|_| failure.is_none() || facts.of_a_version());
    Record {
        version: found.map(|f| f.id.version.clone()).or_else(|| applied.map(|a| a.id.version.clone())),
        username: found.map(|f| f.username.clone()).or_else(|| applied.map(|a| a.username.clone())),
        previous_username: facts.previous_username(),
        steps: steps.to_vec(),
        error: failure
            .filter(|_| !matches!(outcome, RecordOutcome::Adopted | RecordOutcome::Confirmed))
            .map(|f| RecordError { class: f.class, words: f.what }),
        approved_by: facts.approved_by(),
        ..blank(credential, by, what, outcome, at)
    }
}

/// A record of nothing yet.
fn blank(credential: &config::Credential, by: &By, what: RecordKind, outcome: RecordOutcome, at: Timestamp) -> Record {
    Record {
        at,
        credential: credential.name.clone(),
        by: by.clone(),
        what,
        version: None,
        username: None,
        previous_username: None,
        steps: Vec::new(),
        outcome,
        error: None,
        approved_by: None,
    }
}

/// The record of a version that was put in place by a run that was killed, before another one came.
pub(super) fn superseded_record(
    facts: &Facts,
    credential: &config::Credential,
    by: &By,
    superseded: rollover::Superseded,
    at: Timestamp,
) -> Record {
    let rollover::Superseded { begun, by: other, targets, everywhere, approved_by } = superseded;
    let (where_, in_part) = match everywhere {
        true => (String::new(), ""),
        false => (format!(" (target {})", targets.join(", ")), " in part"),
    };
    let came = match (begun.by_hand, begun.used) {
        (true, _) => format!("was put in place{in_part} by hand{where_}, as asked, and never confirmed:"),
        (false, true) => {
            format!(
                "was put in place{in_part}{where_} and found in use, and never confirmed: the run was broken off, and"
            )
        }
        (false, false) => format!("was put in place in part{where_}, and never confirmed: the run was broken off, and"),
    };
    let words = format!("it {came} {} came", rollover::said_beside(&other, &begun.id));
    Record {
        version: Some(begun.id.version),
        username: Some(begun.username),
        previous_username: facts.state.applied.as_ref().map(|a| a.username.clone()).or(facts.state.found_first.clone()),
        error: Some(RecordError { class: Class::Superseded, words }),
        approved_by,
        ..blank(credential, by, RecordKind::Rollover, RecordOutcome::Superseded, at)
    }
}

/// The record of a confirmation that no longer holds.
pub(super) fn withdrawal_record(
    facts: &Facts,
    credential: &config::Credential,
    by: &By,
    news: &News,
    at: Timestamp,
) -> Record {
    Record {
        version: Some(news.version.clone()),
        username: Some(news.username.clone()),
        previous_username: facts.state.applied.as_ref().and_then(|a| a.previous_username.clone()),
        error: news.error.as_ref().map(|e| RecordError { class: e.class, words: e.words.clone() }),
        approved_by: None,
        ..record(facts, credential, by, RecordKind::Withdrawal, RecordOutcome::Done, &[], at)
    }
}

/// What the record of a run that ended without a commit is about, where it has failed.
pub(super) fn told_of(facts: &Facts) -> Option<Failure> {
    facts.failures().into_iter().map(|(_, f)| f.clone()).find(|f| f.class != Class::NothingToDo)
}

/// The record of the applied version that was put back in some targets, and that another one keeps from being confirmed.
pub(super) fn put_back_record(
    facts: &Facts,
    credential: &config::Credential,
    by: &By,
    steps: &[StepTime],
    at: Timestamp,
) -> Record {
    let applied = facts.state.applied.as_ref();
    let words = format!(
        "somebody else had changed the login (target {}), and it was put back; not confirmed, because of another target",
        facts.put_back.join(", ")
    );
    Record {
        version: applied.map(|a| a.id.version.clone()),
        username: applied.map(|a| a.username.clone()),
        previous_username: applied.and_then(|a| a.previous_username.clone()),
        error: Some(RecordError { class: Class::Drift, words }),
        approved_by: None,
        ..record(facts, credential, by, RecordKind::Heal, RecordOutcome::Done, steps, at)
    }
}

/// The record of a state that came with a copy of another installation.
pub(super) fn begun_anew(
    credential: &config::Credential,
    by: &By,
    before: Option<rollover::Applied>,
    moved: &rollover::StateMoved,
    copy: bool,
    at: Timestamp,
) -> Record {
    let reports = match moved.dropped {
        0 => "no report was owed by it".to_owned(),
        1 => "the report that it owed is not sent from here".to_owned(),
        n => format!("the {n} reports that it owed are not sent from here"),
    };
    let from = &moved.from;
    let what = match copy {
        true => format!("this is a copy of the installation {from}, on another machine"),
        false => format!("this state is of the installation {from}, and host.json does not say so any more"),
    };
    let words = format!("{what}: {reports}, and the credential is adopted anew");
    Record {
        version: before.as_ref().map(|a| a.id.version.clone()),
        username: before.map(|a| a.username),
        error: Some(RecordError { class: Class::Clone, words }),
        ..blank(credential, by, RecordKind::Clone, RecordOutcome::Done, at)
    }
}

/// The record of an access key id that root names as an earlier one of the credential.
pub(super) fn names_earlier(credential: &config::Credential, by: &By, id: &str, at: Timestamp) -> Record {
    Record { username: Some(id.to_owned()), ..blank(credential, by, RecordKind::EarlierKey, RecordOutcome::Done, at) }
}

/// Is there anything in a record that the one before it did not say? That another person asked is.
pub(super) fn is_news(state: &State, record: &Record) -> bool {
    let asked = record.by.cause == RecordCause::Operator;
    if record.what == RecordKind::NoChange && !asked {
        return false;
    }
    let before: Option<Record> = state.audit.lines.last().and_then(|line| serde_json::from_str(line).ok());
    before.is_none_or(|b| {
        asked && (&b.by.cause, b.by.uid, &b.by.claimed) != (&record.by.cause, record.by.uid, &record.by.claimed)
            || (&b.what, &b.version, &b.outcome, b.error.map(|e| e.class))
                != (&record.what, &record.version, &record.outcome, record.error.as_ref().map(|e| e.class))
    })
}
