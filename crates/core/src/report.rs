//! The report document, schema `relaykey/report/v2` (DESIGN.md, "Report document"): what a host tells of one credential, and
//! what whoever gets it reads. Facts, of which each reader makes its own sentence.
//!
//! What 0.1.0 sent, `relaykey/report/v1`, is read for ever: a field that came later has a default, and is left out where it
//! says nothing, so that a report of that release that is still owed is delivered as it was written.

mod held;
pub mod place;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

pub use self::held::{EntryPlace, HeldKeyId, OtherKeyIds, StillHeld, held_mark};
use crate::credential::{ProofFields, SignedToo};
use crate::fault::{Class, Failure};
use crate::instruction::Instruction;
use crate::text;

/// Schema of the documents of 0.1.0, whose proof covers none of the lists.
pub const REPORT_V1: &str = "relaykey/report/v1";
/// Schema of the documents that are written.
pub const REPORT_V2: &str = "relaykey/report/v2";
/// What every schema of a report begins with, also of a release that is to come.
const ANY_REPORT: &str = "relaykey/report/";

/// Is it the schema of a report, of whichever release?
pub fn is_report(schema: &str) -> bool {
    schema.starts_with(ANY_REPORT)
}

crate::words! {
    /// What a report says.
    pub enum ReportOutcome {
        /// The host is there, and has applied nothing yet.
        Hello = "hello",
        /// The version was found in use, with no state; nothing was written.
        Adopted = "adopted",
        /// The version was put in place, and reads back.
        Confirmed = "confirmed",
        /// Something stands in the way of a version, or of what was confirmed.
        Failed = "failed",
        /// A version waits for a person.
        PendingApproval = "pending-approval",
        /// A person rejected a version.
        Rejected = "rejected",
        /// What was confirmed does not hold any more.
        Withdrawn = "withdrawn",
        /// The mail relay refuses the login in use.
        AppliedRefused = "applied-refused",
        /// Only a sign of life.
        Alive = "alive",
        /// The host has left the fleet.
        Left = "left",
    }
}

impl ReportOutcome {
    /// Does it confirm a version?
    pub fn confirms(self) -> bool {
        matches!(self, Self::Adopted | Self::Confirmed)
    }

    /// Does the confirmation stand that a report of this outcome has inside? Not under what takes it back, or ends it.
    pub fn leaves_standing(self) -> bool {
        matches!(self, Self::Alive | Self::Failed | Self::PendingApproval | Self::Rejected)
    }
}

crate::words! {
    /// Does a new version go into use by itself?
    pub enum ReportMode {
        Automatic = "automatic",
        /// A person lets it go, or a window.
        Manual = "manual",
    }
}

/// One report document (DESIGN.md, "Report document").
#[derive(Debug, Clone, PartialEq, Hash, Serialize, Deserialize)]
pub struct Report {
    pub schema: String,
    pub id: String,
    pub seq: u64,
    pub host_id: String,
    pub host: String,
    pub credential: String,
    pub source: String,
    pub version: String,
    pub username: String,
    pub previous_username: Option<String>,
    /// RFC 3339, Z, seconds.
    pub at: String,
    pub mode: ReportMode,
    pub agent: String,
    pub outcome: ReportOutcome,
    pub targets: Vec<ReportTarget>,
    pub error: Option<ReportError>,
    /// With `pending-approval`: what the version waits for, and what a person does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waiting: Option<Waiting>,
    /// Whether every mail server of this credential was seen running when this was made; `None`: not looked at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mail_server: Option<MailServer>,
    /// The user names that the mail servers of this credential were found to log in with when they were last looked up, each
    /// once; empty: they have no login. Not in a confirmation, which is made of what was read back; `None`: not every one was
    /// looked at yet, or one is owed a reload.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub in_use: Option<Vec<String>>,
    /// Beside `in_use`: the version that was found, where it is one that this host confirmed or put in place. A key may be the
    /// same in two versions, with two passwords.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version_in_use: Option<String>,
    /// Beside `in_use`: a mail server was found to use what this host neither confirmed nor put there.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub another_login: bool,
    /// User names whose login a run that was killed put into the text of a table and not into the map that the mail server
    /// reads, each once: whoever compiles it puts them into use.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub half_done: Vec<String>,
    /// With `failed`: it is about the version that was confirmed here, which the mail server does not hold any more and which
    /// could not be put back.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub of_applied: bool,
    pub approved_by: Option<String>,
    /// Labels of versions that this host takes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub labels: Vec<String>,
    /// How often it asks the source, in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub poll_s: Option<u32>,
    /// When its next sign of life is there at the latest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alive_due: Option<Timestamp>,
    /// How long this host may be silent, in seconds: one that was not heard of for twice as long is gone. `None`: it is
    /// expected until it says that it has left.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease_s: Option<u32>,
    /// What this one replaces and what stands all the same, so that a place that holds one document per host still has the
    /// evidence and the proof: the last confirmation, unless it was withdrawn; of `alive` the last report that says
    /// something else. Not in a confirmation itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latest: Option<Box<Report>>,
}

impl Report {
    /// Itself, the one inside it, and so on to the innermost of the same installation and credential: what another one
    /// confirmed says nothing of this one. A host may have been given another name in between.
    pub fn chain(&self) -> impl Iterator<Item = &Self> {
        std::iter::successors(Some(self), |report| report.latest.as_deref().filter(|inside| inside.is_of_same(report)))
    }

    /// Is it about the same installation and credential as another one?
    pub fn is_of_same(&self, other: &Self) -> bool {
        (&self.host_id, &self.credential) == (&other.host_id, &other.credential)
    }

    /// What the proof of one of its targets is made over: whoever makes one and whoever checks one asks here. Of v2 also its
    /// source, when the login was accepted, and the lists.
    pub fn proof_fields(&self, target: &ReportTarget) -> ProofFields {
        let lists = || target.held.signed();
        self.proof_fields_of(&target.name, target.region.as_deref(), target.evidence.at, lists)
    }

    /// The same of a target that is not in it.
    pub fn proof_fields_of(
        &self,
        target: &str,
        region: Option<&str>,
        accepted: Timestamp,
        lists: impl FnOnce() -> Vec<String>,
    ) -> ProofFields {
        let is_v1 = self.schema == REPORT_V1;
        let lists = if is_v1 { Vec::new() } else { lists() };
        let fields = self.proof_heading().fields(target, region, accepted, lists);
        ProofFields { v2: fields.v2.filter(|_| !is_v1), ..fields }
    }

    /// What of it every one of its proofs is made over.
    fn proof_heading(&self) -> ProofHeading {
        ProofHeading {
            host_id: self.host_id.clone(),
            host: self.host.clone(),
            credential: self.credential.clone(),
            source: self.source.clone(),
            version: self.version.clone(),
            username: self.username.clone(),
            outcome: self.outcome,
            seq: self.seq,
            at: self.at.clone(),
        }
    }
}

/// What the proofs of one report have in common: all that they are made over but what is of one target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProofHeading {
    pub host_id: String,
    pub host: String,
    pub credential: String,
    pub source: String,
    pub version: String,
    pub username: String,
    pub outcome: ReportOutcome,
    pub seq: u64,
    /// As [`Report::at`].
    pub at: String,
}

impl ProofHeading {
    /// What the proof of a target is made over, in a report as it is written now.
    pub fn fields(&self, target: &str, region: Option<&str>, accepted: Timestamp, lists: Vec<String>) -> ProofFields {
        ProofFields {
            host_id: self.host_id.clone(),
            host: self.host.clone(),
            credential: self.credential.clone(),
            version: self.version.clone(),
            username: self.username.clone(),
            target: target.to_owned(),
            region: region.unwrap_or_default().to_owned(),
            outcome: self.outcome.word().to_owned(),
            seq: self.seq,
            at: self.at.clone(),
            v2: Some(SignedToo { source: self.source.clone(), evidence_at: rfc3339(accepted), lists }),
        }
    }
}

/// A login table, and the client services that ask it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ReportTable {
    /// `type:path`.
    pub table: String,
    pub services: Vec<String>,
}

/// Was a target's mail server seen running? Only where it was may anything be said of how mail goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MailServer {
    Runs,
    Stopped,
    /// There is no process to run: the text file of the demo.
    NoProcess,
}

#[derive(Debug, Clone, PartialEq, Hash, Serialize, Deserialize)]
pub struct ReportTarget {
    pub name: String,
    pub kind: String,
    pub map: String,
    /// The login tables that its client services ask, in their order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tables: Vec<ReportTable>,
    pub keys: Vec<String>,
    /// How it was read back.
    pub read_back: String,
    /// What its tables hold beside the login in use.
    #[serde(flatten)]
    pub held: StillHeld,
    pub region: Option<String>,
    pub evidence: Evidence,
    pub proof: Option<String>,
    /// Why there is no proof.
    pub no_proof: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ReportError {
    pub class: Class,
    /// What is wrong and what to do, in one sentence: all that 0.1.0 has.
    #[serde(deserialize_with = "text::on_one_line")]
    pub words: String,
    /// What is wrong, and what to do, apart; `None` where there is nothing to be told apart.
    #[serde(default, deserialize_with = "text::on_one_line", skip_serializing_if = "Option::is_none")]
    pub what: Option<String>,
    #[serde(default, deserialize_with = "text::on_one_line", skip_serializing_if = "Option::is_none")]
    pub fix: Option<String>,
}

impl ReportError {
    /// Words alone.
    pub fn new(class: Class, words: String) -> Self {
        Self { class, words, what: None, fix: None }
    }

    /// Something that stands in the way.
    pub fn of(failure: &Failure) -> Self {
        let words = format!("{}. To do: {}", failure.what, failure.fix);
        let (what, fix) = (Some(failure.what.clone()), Some(failure.fix.clone()));
        Self { class: failure.class, words, what, fix }
    }
}

/// What a version waits for that a person decides about, or puts in place: facts, of which each receiver makes its own
/// sentence.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct Waiting {
    /// When it goes into use by itself; `None`: it does not.
    pub opens: Option<Timestamp>,
    /// The setting that says so: `Sat 02:00-04:00`, in this host's local time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub window: Option<String>,
    /// Does it go into use at once where the mail relay refuses the key in use?
    pub if_applied_dies: bool,
    /// What a person does who makes the change by hand, in this order. `***` stands for the password.
    pub steps: Vec<Instruction>,
    /// How what is there differs from what is wanted, one to a line.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub differences: Vec<String>,
}

/// What an accepted login proved.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Evidence {
    pub endpoint: String,
    /// The server's words.
    #[serde(deserialize_with = "text::on_one_line")]
    pub reply: String,
    /// RFC 3339, Z, seconds; of 0.1.0 it comes with nanoseconds.
    #[serde(serialize_with = "in_seconds")]
    pub at: Timestamp,
}

fn in_seconds<S: serde::Serializer>(at: &Timestamp, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(&rfc3339(*at))
}

/// Without what is less than a second: the form in which times go into documents and are told.
pub fn whole_seconds(at: Timestamp) -> Timestamp {
    Timestamp::from_second(at.as_second()).unwrap_or(at)
}

/// RFC 3339 with Z and whole seconds, as reports have it.
pub fn rfc3339(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}
