//! Sources: where versions of a credential come from.

pub mod file;
pub mod parameter_store;
pub mod secrets_manager;

use crate::credential::{Payload, SourceIdentity, VersionOrder};

/// One version, fetched.
#[derive(Debug, Clone)]
pub struct Fetched {
    pub identity: SourceIdentity,
    /// As the source names it: version id, number, keyed hash.
    pub version: String,
    /// `None` for a file: it is authoritative as it is.
    pub order: Option<VersionOrder>,
    pub payload: Payload,
}

/// Why nothing was fetched. Never carries content.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{what}")]
pub struct SourceError {
    /// Will trying again help without anybody doing anything?
    pub temporary: bool,
    /// Machine-readable class: `network`, `throttled`, `access-denied`, `kms`, `not-found`, `no-such-label`,
    /// `scheduled-for-deletion`, `payload`, `file`, `configuration`, `credentials`, `service`.
    pub class: &'static str,
    pub what: String,
    pub fix: String,
}
