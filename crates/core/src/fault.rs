//! What went wrong, in the shape in which it goes from module to module and into documents: what kind of thing it is, what is wrong,
//! what to do, and whether it may go away by itself.
//!
//! Programs go by the [`Class`]; people read `what` and `fix`. Nobody goes by the words.

use std::fmt;
use std::path::PathBuf;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::text;
use crate::word::ForeignWord;

/// What kind of fault it is. The word of each, as state files, reports and JSON have it, is its name in kebab-case; those of
/// 0.1.0 are among them. A word that this program does not know is written again as it was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, strum::IntoStaticStr)]
#[serde(rename_all = "kebab-case")]
#[strum(serialize_all = "kebab-case")]
pub enum Class {
    /// Another version waits for a person who decides, or for its hour.
    Held,
    ByHand,
    Rejected,
    Refused,
    NotYet,
    LeftBehind,
    NotNewer,
    Drift,
    FoughtOver,
    Superseded,
    ReloadOwed,
    Mismatch,
    NothingWaits,
    NothingToDo,
    ChangedMeanwhile,
    Begun,
    NotTheNamedVersion,
    Changed,
    OldKey,
    Clone,
    State,
    // Of sources and of AWS.
    Network,
    Proxy,
    Tls,
    Throttled,
    Service,
    AccessDenied,
    Kms,
    Credentials,
    Clock,
    NotFound,
    NoSuchLabel,
    NotGiven,
    ScheduledForDeletion,
    Payload,
    File,
    Permissions,
    Configuration,
    // Of mail servers and of this host.
    Ambiguous,
    Unsupported,
    Config,
    Io,
    NoSpace,
    LockHeld,
    NotRunning,
    Command,
    ChangedUnderneath,
    TooLarge,
    OutOfOrder,
    // Of logins and of reports.
    Timeout,
    Trust,
    Smtp,
    Policy,
    Probe,
    /// Was told before, and is not told again.
    Told,
    Occupied,
    NewerThere,
    Limit,
    ForbiddenAddress,
    Redirect,
    Http,
    Secret,
    User,
    Program,
    Deferred,
    Message,
    AuditLogBroken,
    // What a line of the mail log, or AWS, hints at.
    Temporary,
    NoMechanism,
    NoLogin,
    Advice,
    // Of what stands in the way of a host that is ready, beside those above.
    AppliedRefused,
    NeverApplied,
    SourceDown,
    NoLook,
    Pending,
    PendingApproval,
    Failing,
    ReportOwed,
    /// One that this program does not know: another release wrote it.
    #[serde(untagged)]
    Foreign(ForeignWord),
}

impl Class {
    /// The word of documents.
    pub fn word(self) -> &'static str {
        match self {
            Self::Foreign(word) => word.word(),
            known => known.into(),
        }
    }
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// Why something did not work, and what to do. Carries no secret.
#[derive(Debug, Clone, PartialEq, Eq, Hash, thiserror::Error)]
#[error("{what}")]
pub struct Fault {
    /// What kind of fault it is.
    pub class: Class,
    /// Will trying again help without anybody doing anything?
    pub temporary: bool,
    /// What was asked of whom, and what came of it.
    pub what: String,
    /// What to do.
    pub fix: String,
    /// The file it is about, where there is one.
    pub file: Option<PathBuf>,
    /// The 1-based line of that file.
    pub line: Option<usize>,
}

impl Fault {
    /// One that stays until somebody does something.
    pub fn new(class: Class, what: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { class, temporary: false, what: what.into(), fix: fix.into(), file: None, line: None }
    }

    /// It may go away by itself.
    #[must_use]
    pub fn temporary(self) -> Self {
        self.temporary_if(true)
    }

    /// Whether it may go away by itself.
    #[must_use]
    pub fn temporary_if(self, temporary: bool) -> Self {
        Self { temporary, ..self }
    }

    /// It is about this file.
    #[must_use]
    pub fn in_file(self, file: impl Into<Option<PathBuf>>) -> Self {
        Self { file: file.into(), ..self }
    }

    /// It is about this line, counted from 1.
    #[must_use]
    pub fn at_line(self, line: impl Into<Option<usize>>) -> Self {
        Self { line: line.into(), ..self }
    }

    /// As state and documents keep it: with its file and line in what is wrong.
    pub fn at(self, at: Timestamp) -> Failure {
        let what = self.located();
        let Self { class, temporary, fix, .. } = self;
        Failure { class, what, fix, temporary, at }
    }

    /// What is wrong, with the file and line that it is about in front, where there are such.
    pub fn located(&self) -> String {
        crate::finding::located(self.file.as_deref(), self.line, &self.what)
    }
}

/// A [`Fault`] with its time, as state and documents keep it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Failure {
    /// What kind of fault it is.
    pub class: Class,
    /// What is wrong.
    #[serde(deserialize_with = "text::on_one_line")]
    pub what: String,
    /// What to do.
    #[serde(deserialize_with = "text::on_one_line")]
    pub fix: String,
    /// Will trying again help without anybody doing anything?
    pub temporary: bool,
    /// When it happened last.
    pub at: Timestamp,
}

impl Failure {
    /// Is it the same thing once more, met at another time or by another target?
    pub fn says_the_same(&self, other: &Self) -> bool {
        (self.class, &self.what) == (other.class, &other.what)
    }

    /// Is it only the answer to somebody who asked in vain? Then it is over when that person has it.
    pub fn is_an_answer(&self) -> bool {
        use Class::{Begun, ChangedMeanwhile, NotTheNamedVersion, NothingToDo, NothingWaits, Rejected};
        matches!(self.class, NothingToDo | NothingWaits | ChangedMeanwhile | Rejected | Begun | NotTheNamedVersion)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::word::NOT_HELD;

    /// Every word that 0.1.0, and what came after it before these were values, wrote into a file or a document.
    #[rustfmt::skip]
    const WRITTEN: [&str; 79] = [
        "held", "by-hand", "rejected", "refused", "not-yet", "left-behind", "not-newer", "drift", "fought-over",
        "superseded", "reload-owed", "mismatch", "nothing-waits", "nothing-to-do", "changed-meanwhile", "begun",
        "not-the-named-version", "changed", "old-key", "clone", "state", "network", "proxy", "tls", "throttled",
        "service", "access-denied", "kms", "credentials", "clock", "not-found", "no-such-label", "not-given",
        "scheduled-for-deletion", "payload", "file", "permissions", "configuration", "ambiguous", "unsupported",
        "config", "io", "no-space", "lock-held", "not-running", "command", "changed-underneath", "too-large",
        "out-of-order", "timeout", "trust", "smtp", "policy", "probe", "told", "occupied", "newer-there", "limit",
        "forbidden-address", "redirect", "http", "secret", "user", "program", "deferred", "message",
        "audit-log-broken", "temporary", "no-mechanism", "no-login", "advice", "applied-refused", "never-applied",
        "source-down", "no-look", "pending", "pending-approval", "failing", "report-owed",
    ];

    fn read(word: &str) -> Class {
        serde_json::from_str(&format!("{word:?}")).expect(word)
    }

    #[test]
    fn every_word_that_was_ever_written_is_known_and_written_again() {
        for word in WRITTEN {
            let class = read(word);
            assert!(!matches!(class, Class::Foreign(_)), "{word} is not known");
            assert_eq!((class.word(), class.to_string().as_str()), (word, word));
            assert_eq!(serde_json::to_string(&class).unwrap(), format!("{word:?}"));
        }
    }

    #[test]
    fn a_word_of_another_release_is_written_as_it_was_read() {
        for word in ["of-tomorrow", "foreign", "unknown", "ByHand", "", "with a blank, \u{fc}"] {
            let failure =
                format!(r#"{{"class":"{word}","what":"w","fix":"f","temporary":true,"at":"2026-01-01T00:00:00Z"}}"#);
            let read: Failure = serde_json::from_str(&failure).unwrap();
            assert_eq!((read.class.word(), serde_json::to_string(&read).unwrap()), (word, failure));
        }
        assert_eq!(read("of-tomorrow"), read("of-tomorrow"));
        assert_ne!(read("of-tomorrow"), read("of-yesterday"));
        assert_eq!(read(&"x".repeat(1 << 20)).word(), NOT_HELD);
        for no_word in ["1", "null", r#"{"a":"b"}"#, "[]"] {
            serde_json::from_str::<Class>(no_word).expect_err(no_word);
        }
    }
}
