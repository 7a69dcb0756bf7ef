//! What the mail server's side knows of one target from before, and the host agent goes by: each has one shape on both sides.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::credential::{SourceIdentity, VersionId};
use crate::text;

/// A reload that is remembered until it is done, or until the mail server is started after the swap.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ReloadOwed {
    /// Wall time of the swap, for people.
    pub since: Timestamp,
    /// Why it could not be done yet.
    #[serde(deserialize_with = "text::on_one_line")]
    pub why: String,
}

/// A version that was put in place and not committed, as the journal of the mail server's side knows it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize)]
pub struct Swapped {
    /// The version.
    #[serde(flatten)]
    pub id: VersionId,
    /// `None`: the journal does not say of which source it was.
    pub source: Option<SourceIdentity>,
    /// The user name of its login; `None`: the journal does not say.
    pub username: Option<String>,
    /// Live id of its login.
    pub live_id: String,
}
