//! The one way to change anything outside this process, which numbers the calls for the tests.

use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};

use super::{HostError, Result};

/// One mutating call, as the choke point sees it. `bytes` and `to` are for the tests' log.
#[cfg_attr(not(feature = "crash-at"), expect(dead_code, reason = "what only the tests' log reads"))]
pub(super) struct Op<'a> {
    /// The verb, as errors say it.
    pub(super) doing: &'static str,
    pub(super) dir: &'a Path,
    pub(super) name: &'a OsStr,
    pub(super) to: Option<&'a OsStr>,
    pub(super) bytes: &'a [u8],
}

impl<'a> Op<'a> {
    pub(super) fn new(doing: &'static str, dir: &'a Path, name: &'a OsStr) -> Self {
        Self { doing, dir, name, to: None, bytes: &[] }
    }

    pub(super) fn path(&self) -> PathBuf {
        if self.name.is_empty() { self.dir.to_owned() } else { self.dir.join(self.name) }
    }
}

/// The one way to change anything outside this process.
pub(super) fn mutate<T, E: Into<io::Error>>(
    op: &Op<'_>,
    call: impl FnOnce() -> std::result::Result<T, E>,
) -> Result<T> {
    #[cfg(feature = "crash-at")]
    crash::before();
    let done = call().map_err(|e| HostError::io(op.doing, op.path(), e))?;
    #[cfg(feature = "crash-at")]
    crash::after(op);
    Ok(done)
}

/// Stops the process at the n-th mutating call, and records those that were made. Never in a package.
#[cfg(feature = "crash-at")]
mod crash {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    use std::sync::atomic::{AtomicU64, Ordering};

    use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};

    use super::Op;

    static CALLS: AtomicU64 = AtomicU64::new(0);

    /// Counts the call, and ends the process if it is the one that `CRASH_AT` names.
    pub(super) fn before() {
        let n = CALLS.fetch_add(1, Ordering::SeqCst) + 1;
        if std::env::var("CRASH_AT").is_ok_and(|at| at.parse() == Ok(n)) {
            std::process::abort();
        }
    }

    /// Appends the call to `CRASH_LOG`, one JSON object per line: what it did, to which path, and the bytes that it
    /// wrote; for an fsync the bytes that are safe from now on, for a rename those that got the new name, for an append
    /// all that the file has then. The file that a command made is first told of by one of the first two.
    pub(super) fn after(op: &Op<'_>) {
        let Some(log) = std::env::var_os("CRASH_LOG") else { return };
        let read = |path| std::fs::read(path).unwrap_or_default();
        let bytes = match (op.doing, op.to) {
            ("fsync" | "append to", _) => read(op.path()),
            (_, Some(to)) => read(op.dir.join(to)),
            _ => op.bytes.to_vec(),
        };
        let line = serde_json::json!({
            "n": CALLS.load(Ordering::SeqCst),
            "op": op.doing,
            "path": op.path(),
            "to": op.to.map(|to| op.dir.join(to)),
            "bytes": BASE64.encode(bytes),
        });
        let mut file = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .mode(0o600)
            .open(log)
            .expect("CRASH_LOG names a file that can be written");
        // In one call: several threads may write theirs.
        file.write_all(format!("{line}\n").as_bytes()).expect("CRASH_LOG can be written");
    }
}
