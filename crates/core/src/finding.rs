//! What is wrong with a configuration or a file, and what to do: one shape for everything that `check` says.

use std::fmt;
use std::path::{Path, PathBuf};

/// One mistake in a configuration file, or a remark about it.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// 1-based line of the configuration file (or of the file named in `file`), where there is one.
    pub line: Option<usize>,
    /// The file the finding is about, where it is not the configuration itself.
    pub file: Option<PathBuf>,
    /// What is wrong.
    pub what: String,
    /// What to do.
    pub fix: String,
}

impl Finding {
    /// What is wrong, with the file and line that it is about in front, where there are such.
    pub fn located(&self) -> String {
        located(self.file.as_deref(), self.line, &self.what)
    }
}

/// What is wrong, with the file and line that it is about in front, unless it names the file itself.
pub fn located(file: Option<&Path>, line: Option<usize>, what: &str) -> String {
    match (file, line) {
        (Some(file), Some(line)) => format!("{}:{line}: {what}", file.display()),
        (Some(file), None) if !what.contains(&*file.to_string_lossy()) => format!("{}: {what}", file.display()),
        _ => what.to_owned(),
    }
}

/// How bad a finding is; the worst sorts first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    /// It cannot work like this.
    Error,
    /// It works, and is probably not what was meant.
    Warning,
    /// Worth knowing.
    Note,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Severity::Error => "error",
            Severity::Warning => "warning",
            Severity::Note => "note",
        })
    }
}
