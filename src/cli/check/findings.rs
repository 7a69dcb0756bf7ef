//! Findings as they come: told at once, kept for the document and for the exit code.

use serde::Serialize;

use super::super::{Exit, say};
use crate::config::{Finding, Severity};

/// A finding, and what it is about.
#[derive(Serialize)]
pub(super) struct CheckFinding {
    pub(super) credential: Option<String>,
    /// `config`, `state`, `aws`, `health`, `mode`, `source`, `login`, `target NAME`, `reports`, `report NAME`.
    pub(super) about: String,
    #[serde(flatten)]
    pub(super) finding: Finding,
}

/// Findings as they come, printed at once for people.
pub(super) struct Findings {
    pub(super) json: bool,
    pub(super) all: Vec<CheckFinding>,
    /// What they come to: the worst that `sync` would end with.
    pub(super) worst: Exit,
}

impl Findings {
    pub(super) fn add(&mut self, credential: Option<&str>, about: &str, finding: Finding) {
        let ends = if finding.severity == Severity::Error { Exit::ForGood } else { Exit::Done };
        self.add_that(ends, credential, about, finding);
    }

    /// A finding, and what `sync` would end with because of it.
    pub(super) fn add_that(&mut self, ends: Exit, credential: Option<&str>, about: &str, finding: Finding) {
        self.worst = self.worst.max(ends);
        if !self.json {
            let place = credential.map(|c| format!("{c}: ")).unwrap_or_default();
            say(&format!("{:<8} {place}{about}: {}", word(&finding), finding.located()));
            if !finding.fix.is_empty() {
                say(&format!("         fix: {}", finding.fix));
            }
        }
        self.all.push(CheckFinding { credential: credential.map(str::to_owned), about: about.to_owned(), finding });
    }

    pub(super) fn good(&mut self, credential: Option<&str>, about: &str, what: String) {
        self.add(
            credential,
            about,
            Finding { severity: Severity::Note, line: None, file: None, what, fix: String::new() },
        );
    }

    pub(super) fn error(&mut self, credential: Option<&str>, about: &str, what: String, fix: String) {
        self.say(Severity::Error, credential, about, what, fix);
    }

    /// An error that may be gone in a minute, or not.
    pub(super) fn failed(&mut self, temporary: bool, credential: Option<&str>, about: &str, what: String, fix: String) {
        let ends = if temporary { Exit::ForNow } else { Exit::ForGood };
        self.add_that(
            ends,
            credential,
            about,
            Finding { severity: Severity::Error, line: None, file: None, what, fix },
        );
    }

    /// Was this said of it as an error?
    pub(super) fn has_error(&self, credential: &str, what: &str) -> bool {
        let of = self.all.iter().filter(|p| p.credential.as_deref() == Some(credential));
        let mut errors = of.filter(|p| p.finding.severity == Severity::Error);
        errors.any(|p| p.finding.what == what || p.finding.located() == what)
    }

    pub(super) fn say(&mut self, severity: Severity, credential: Option<&str>, about: &str, what: String, fix: String) {
        self.add(credential, about, Finding { severity, line: None, file: None, what, fix });
    }
}

fn word(finding: &Finding) -> &'static str {
    match finding.severity {
        Severity::Error => "error",
        Severity::Warning => "warning",
        Severity::Note if finding.fix.is_empty() => "ok",
        Severity::Note => "note",
    }
}
