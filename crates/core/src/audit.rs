//! Where the audit log of a credential stands: what the state of the host keeps of it, and whoever verifies the files goes by;
//! and the words of its records.

use serde::{Deserialize, Serialize};

/// Where the audit log of a credential stands. The lines that its files may lack are part of it, so that what was done
/// and its line become durable in one rename; the files are brought up to it afterwards, and at every start.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct AuditHead {
    /// Number of the last line; 0: there is none.
    pub number: u64,
    /// SHA-256 of the last line, hex; empty where there is none.
    pub hash: String,
    /// The last lines, up to `number`, each without its line feed: those that may not be in their file yet.
    pub lines: Vec<String>,
    /// The files that are kept, the oldest first; lines are added to the last.
    pub files: Vec<AuditFile>,
}

/// One file of the audit log. Where it begins stands here too, so that what was dropped because it was old is told from
/// what somebody took away, and a break in one file does not keep the others from being checked.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct AuditFile {
    /// In its name; the next file has a higher one.
    pub number: u64,
    /// Number of its first line.
    pub first: u64,
    /// SHA-256 of the line before that, hex; 64 zeros where there is none.
    pub before: String,
    /// Bytes that it has, once all its lines are there.
    pub size: u64,
}

crate::words! {
    /// What a record of the audit log is about.
    pub enum RecordKind {
        Rollover = "rollover",
        Adoption = "adoption",
        /// What somebody else changed was put back.
        Heal = "heal",
        Confirmation = "confirmation",
        Reload = "reload",
        /// A version waits for a person.
        Waits = "waits",
        Rejection = "rejection",
        /// The host left the fleet.
        Departure = "departure",
        Refused = "refused",
        Failed = "failed",
        Drift = "drift",
        Withdrawal = "withdrawal",
        /// Asked for by a person, and nothing to do.
        NoChange = "no-change",
        /// Root named an access key id as an earlier one of the credential: the user name of the record.
        EarlierKey = "earlier-key",
        /// The state came with a copy of another installation, which the words name.
        Clone = "clone",
        Interrupted = "interrupted",
    }
}

crate::words! {
    /// What that came to.
    pub enum RecordOutcome {
        Adopted = "adopted",
        Confirmed = "confirmed",
        Done = "done",
        FailedForNow = "failed-for-now",
        Failed = "failed",
        Interrupted = "interrupted",
        PendingApproval = "pending-approval",
        /// Another version came before it was confirmed.
        Superseded = "superseded",
    }
}

crate::words! {
    /// A step of a run, as a record and progress name it.
    pub enum StepKind {
        Inspect = "inspect",
        Fetch = "fetch",
        FetchApplied = "fetch-applied",
        Verify = "verify",
        VerifyApplied = "verify-applied",
        Probe = "probe",
        Hold = "hold",
        Release = "release",
        Reject = "reject",
        Leave = "leave",
        Preview = "preview",
        Prepare = "prepare",
        Swap = "swap",
        Activate = "activate",
        ReadBack = "read-back",
        Attest = "attest",
        Undo = "undo",
        Discard = "discard",
        Refrain = "refrain",
        Commit = "commit",
        Wait = "wait",
        Await = "await",
        End = "end",
        /// Those that a record does not tell one by one.
        Others = "others",
    }
}

crate::words! {
    /// What had something done.
    pub enum RecordCause {
        /// The program started.
        Start = "start",
        Timer = "timer",
        Signal = "signal",
        /// A person asked.
        Operator = "operator",
        FileWatch = "file-watch",
        LogAlarm = "log-alarm",
        Retry = "retry",
    }
}
