//! The file itself: read as what nobody else could have written, and what is wrong with it, for people.

use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use relaykey_core::config::{NotText, text_at, text_of};
use rustix::io::Errno;

use super::{Config, Finding, MAX_FILE, SCHEMA, Severity, host, parse_on};
use crate::host::{HostError, trust};

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// There is no such file.
    #[error("{} does not exist", path.display())]
    Missing {
        /// The file asked for.
        path: PathBuf,
    },
    /// The path names a directory.
    #[error("{} is a directory", path.display())]
    Directory {
        /// The file asked for.
        path: PathBuf,
    },
    /// The path names a pipe, a socket or a device.
    #[error("{} is not a regular file", path.display())]
    NotAFile {
        /// The file asked for.
        path: PathBuf,
    },
    /// This user may not read it.
    #[error("{} may not be read by this user", path.display())]
    Denied {
        /// The file asked for.
        path: PathBuf,
    },
    /// Somebody else could have written it.
    #[error("{source}")]
    Untrusted {
        /// The file asked for.
        path: PathBuf,
        /// Who, and where.
        #[source]
        source: HostError,
    },
    /// Any other failure to read.
    #[error("{} cannot be read", path.display())]
    Io {
        /// The file asked for.
        path: PathBuf,
        /// What the operating system said.
        #[source]
        source: io::Error,
    },
    /// Larger than [`MAX_FILE`].
    #[error("{} is larger than 1 MiB: this is something else", path.display())]
    TooLarge {
        /// The file asked for.
        path: PathBuf,
    },
    /// Not UTF-8 text, or with a NUL byte in it.
    #[error("{} is not UTF-8 text: byte {offset}, on line {line}, is {byte:#04x}", path.display())]
    NotText {
        /// The file asked for.
        path: PathBuf,
        /// 1-based, of the first byte that is wrong.
        line: usize,
        /// 0-based offset of that byte in the file.
        offset: usize,
        /// The byte itself.
        byte: u8,
    },
    /// It was read, and has mistakes.
    #[error("{} has {}", path.display(), mistakes(findings))]
    Invalid {
        /// The file asked for.
        path: PathBuf,
        /// Everything there is to say about it, by line; at least one error.
        findings: Vec<Finding>,
    },
}

fn mistakes(findings: &[Finding]) -> String {
    match findings.iter().filter(|f| f.severity == Severity::Error).count() {
        1 => "1 mistake".to_owned(),
        n => format!("{n} mistakes"),
    }
}

impl LoadError {
    /// May it pass by itself? A mistake does not, nor does what the path names; what the system had trouble with may.
    pub fn may_pass(&self) -> bool {
        let LoadError::Io { source, .. } = self else { return false };
        let lasts = [Errno::LOOP, Errno::NAMETOOLONG, Errno::INVAL];
        !Errno::from_io_error(source).is_some_and(|errno| lasts.contains(&errno))
    }

    /// The error as findings, so that there is one way to show it: those of the content, or a single one for a file
    /// that could not be read.
    pub fn findings(&self) -> Vec<Finding> {
        let (path, line, what, fix) = match self {
            LoadError::Invalid { findings, .. } => return findings.clone(),
            LoadError::Missing { path } => {
                let fix = "create it (config.example.toml explains every key), or name another one with --config PATH";
                (path, None, "the configuration does not exist".to_owned(), fix)
            }
            LoadError::Directory { path } => {
                let fix = "name the file in it: --config PATH/config.toml";
                (path, None, "the configuration is a directory".to_owned(), fix)
            }
            LoadError::NotAFile { path } => {
                let fix = "name a regular file with --config PATH; pipes and devices are not read";
                (path, None, "the configuration is not a regular file".to_owned(), fix)
            }
            LoadError::Denied { path } => {
                let fix = "run as root, or let this user read the file and enter each directory above it";
                (path, None, "the configuration may not be read by this user".to_owned(), fix)
            }
            LoadError::Untrusted { path, source } => {
                let what = format!("the configuration is not obeyed: {source}");
                let fix = source.fix();
                return vec![Finding { severity: Severity::Error, line: None, file: Some(path.clone()), what, fix }];
            }
            LoadError::Io { path, source } => {
                let fix = "see to the file system, then try again";
                (path, None, format!("the configuration cannot be read: {source}"), fix)
            }
            LoadError::TooLarge { path } => {
                let fix = "name the right file with --config PATH";
                (path, None, "the configuration is larger than 1 MiB: this is something else".to_owned(), fix)
            }
            LoadError::NotText { path, line, offset, byte } => {
                let what = format!("the configuration is not UTF-8 text: the byte at offset {offset} is {byte:#04x}");
                (path, Some(*line), what, "save the file as UTF-8, without NUL bytes")
            }
        };
        vec![Finding { severity: Severity::Error, line, file: Some(path.clone()), what, fix: fix.to_owned() }]
    }
}

/// Reads and parses a configuration file. With the configuration come warnings and notes.
///
/// # Errors
/// Somebody else could have written it; it cannot be read, is no text, or has mistakes; [`LoadError::findings`] and
/// [`render`] say which, and what to do.
pub fn load(path: &Path) -> Result<(Config, Vec<Finding>), LoadError> {
    let (text, doubts) = read_text(path)?;
    let invalid = |findings| LoadError::Invalid { path: path.to_owned(), findings };
    let (config, mut findings) = parse_on(&text, &is_user).map_err(invalid)?;
    findings.extend(doubts.iter().map(Finding::from));
    Ok((config, findings))
}

/// Is there a user of this name or number on this host? Where that cannot be told, who uses it will see.
fn is_user(name: &str) -> bool {
    trust::user_id(name).map_or(true, |found| found.is_some())
}

/// Where the daemon of this configuration is reached: also with mistakes in the file, which a daemon that started before
/// they were made does not go by.
pub fn run_dir(path: &Path) -> PathBuf {
    let named = || {
        let (text, _) = read_text(path).ok()?;
        let run_dir = text_at(&text, "host", "run_dir")?;
        Some(PathBuf::from(run_dir)).filter(|dir| dir.is_absolute())
    };
    named().unwrap_or_else(|| host::RUN_DIR.into())
}

/// The text of a configuration file, whosever program it is, and what is to be said of who may write it.
///
/// # Errors
/// Somebody else could have written it; it cannot be read, or is no text.
pub fn read_text(path: &Path) -> Result<(String, Vec<trust::Doubt>), LoadError> {
    let path_buf = || path.to_owned();
    let failed = |source: io::Error| match source.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => LoadError::Missing { path: path_buf() },
        io::ErrorKind::PermissionDenied => LoadError::Denied { path: path_buf() },
        _ => LoadError::Io { path: path_buf(), source },
    };
    // Looked at before it is opened: opening a pipe waits for its other end.
    let kind = fs::metadata(path).map_err(failed)?;
    if kind.is_dir() {
        return Err(LoadError::Directory { path: path_buf() });
    }
    if !kind.is_file() {
        return Err(LoadError::NotAFile { path: path_buf() });
    }
    let opened = trust::open(path, None).map_err(|e| match e {
        HostError::Io { source, .. } => failed(source),
        HostError::NotRegular { .. } => LoadError::NotAFile { path: path_buf() },
        untrusted => LoadError::Untrusted { path: path_buf(), source: untrusted },
    })?;
    let mut bytes = Vec::new();
    opened.file.take(MAX_FILE + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > MAX_FILE {
        return Err(LoadError::TooLarge { path: path_buf() });
    }
    let not_text = |NotText { line, offset, byte }| LoadError::NotText { path: path_buf(), line, offset, byte };
    let text = text_of(bytes).map_err(not_text)?;
    Ok((text, opened.doubts))
}

/// The findings for people, each with the line it is about, which is read from the file at `path` again; see
/// [`render_text`] for the form.
pub fn render(findings: &[Finding], path: &Path) -> String {
    render_text(findings, path, read_text(path).ok().map(|(text, _)| text).as_deref())
}

/// The findings for people; `text` is the configuration's. See [`relaykey_core::config::render_text`].
pub fn render_text(findings: &[Finding], path: &Path, text: Option<&str>) -> String {
    relaykey_core::config::render_text(findings, path, text, &SCHEMA)
}
