//! What the caller may ask, and what a server is set up with.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::TargetKind;
#[cfg(doc)]
use super::{Inspected, Prepared, Reply};
use crate::credential::{Login, ProofFields, SourceIdentity, VersionId, VersionOrder};
use crate::mta::{Logins, Ours, Relay, Reload};

/// Names one target: credential and target name of the configuration.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct TargetId {
    /// Name of the credential.
    pub credential: String,
    /// Name of the target, unique within the credential.
    pub target: String,
}

/// A version of a credential, for the journal: its name, and what tells it from another one of the same name. A parameter
/// that is deleted and made again counts from 1 again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JournalVersion {
    /// As the source names it.
    pub version: String,
    /// What the source orders versions by, where it says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub order: Option<VersionOrder>,
    /// Which thing the source is; `None`: not known, as in a journal of relaykey 0.1.0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<SourceIdentity>,
}

impl JournalVersion {
    /// Its name and order.
    pub(super) fn id(&self) -> VersionId {
        VersionId { version: self.version.clone(), order: self.order }
    }

    /// Can they be one and the same? Not where both say which they are, and differ.
    pub(super) fn may_be(&self, other: &Self) -> bool {
        let named = self.source.is_some() && other.source.is_some();
        self.version == other.version && (!named || self == other)
    }
}

impl From<&str> for JournalVersion {
    /// Nothing is known but the name.
    fn from(version: &str) -> Self {
        Self { version: version.to_owned(), order: None, source: None }
    }
}

/// What the caller may ask. Per target: `Prepare`, `Swap`, `Activate`, `ReadBack`, `Commit`, in this order; `Discard`
/// until `Swap`, `Undo` after it; `Inspect` and `Preview` at any time; `Activate` also with nothing open, for a reload
/// that is owed.
#[derive(Debug, Clone)]
pub enum Request {
    /// What is there now. Unless the server only looks, it also removes staged files that a killed run left and settles
    /// a reload that is owed when the mail server was started after the swap; it changes nothing else: it
    /// makes neither the state directory nor a key.
    Inspect { target: TargetId, ours: Ours },
    /// Plans and stages the change: writes staged copies, compiles, looks every key up in the staged map. From here to
    /// `Commit` or `Discard` the directories of the table are locked; another process waits up to 30 s for them.
    ///
    /// `expect` is the live id under the first live key that the caller saw ([`Inspected::expect`]; `None`: no entry);
    /// if another one is there now, nothing is staged (class `changed-underneath`). The login is checked again
    /// (printable ASCII without blanks). Of several logins only those that their endpoints have taken are put anywhere; an entry
    /// that is for another endpoint by now is seen anew (class `changed-underneath`).
    ///
    /// Nothing stays staged after an error. What was prepared before for this target is discarded; a swap that was not
    /// committed stays in place, and its old bytes are forgotten.
    ///
    /// A target with `write = false` is changed by a person: nothing is locked or staged there, now or later. As long as
    /// something is to be changed the answer is [`Reply::ByHand`]: how what is there differs, and the steps; once text and map
    /// hold the login it goes on like any adoption, with [`Prepared::nothing_to_write`].
    Prepare { target: TargetId, ours: Ours, expect: Option<String>, logins: Logins, version: JournalVersion },
    /// The change as people read it, and as they make it by hand, with nothing staged: for `--dry-run`, and for targets
    /// with `write = false`. Of such a target whatever is wrong with the table is explained, and no error. There it makes
    /// the key for live ids, unless the server only looks; else it changes nothing.
    Preview { target: TargetId, ours: Ours, logins: Logins },
    /// Are user name and password in their order? Refused (class `payload`) where an entry in place has the user name for a
    /// password, or the password for a user name. Changes nothing.
    InOrder { target: TargetId, ours: Ours, login: Login },
    /// Is it the login of the applied version, as far as `ours` tells, or else the one in use? Refused (class `changed`) where it
    /// is another one. Changes nothing.
    IsApplied { target: TargetId, ours: Ours, login: Login },
    /// Root says that this access key id is an earlier one of this credential: entries that hold it are ours from now on. Nobody
    /// else may say so, and it is handed on for root alone. Refused (class `config`) where it has not that form.
    NameEarlier { target: TargetId, id: String },
    /// Which of these logins is the one in use? Changes nothing.
    WhichStands { target: TargetId, ours: Ours, logins: Vec<Login> },
    /// Removes staged files and forgets the login. After a swap: forgets the old bytes too, as if this process had been
    /// killed.
    Discard { target: TargetId },
    /// Renames the staged files in. Old bytes stay in memory until `Commit`. What somebody else changed since `Prepare`
    /// is planned and staged anew, three times at most. If it stops half-way, what was renamed is put back before the
    /// error is returned; after an error `Prepare` is next.
    Swap { target: TargetId },
    /// Puts the old bytes back; possible until `Commit`, in the process that swapped, unless somebody else has changed
    /// the files since (class `changed-underneath`).
    Undo { target: TargetId },
    /// Reloads, as `reload` of the target says; `write = false` forbids no reload, which changes no file. What the mail
    /// server is known to have read needs none, nor what we renamed over that; anything else does, also where the mail server would
    /// most probably notice by itself: somebody else may have rewritten the table in place, or moved another one aside.
    Activate { target: TargetId },
    /// Looks every live key up in the running configuration and compares with the login of `Prepare`. `prove`: for which
    /// report a proof is wanted. `nonce`: that of an invitation, empty where there is none, for
    /// which the code that a person types is wanted too.
    ReadBack { target: TargetId, prove: Option<WantedProof>, nonce: Option<String> },
    /// Proves what the running configuration gives, with nothing open, for a sign of life: only where it is the login with this
    /// live id under every key of ours, in text and compiled map. The proof is over the outcome `alive`, whatever was asked:
    /// that a version is confirmed nobody learns without having it. Changes nothing.
    Attest { target: TargetId, ours: Ours, live_id: String, prove: WantedProof },
    /// The caller has made it durable: forget old bytes and login, close the journal entry. A reload that is owed stays
    /// remembered. Also right when nothing is open: the caller was killed before it could say so.
    Commit { target: TargetId },
    /// The caller leaves it for now: forget old bytes and login and let go of the locks, as if it had been killed. Staged
    /// files go, what was swapped in stays, and the journal says how far it is. Also right when nothing is open.
    Leave { target: TargetId },
}

/// A proof that is wanted of what is read back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WantedProof {
    /// Of the report; the texts of the lists are put in here, where it is known what the tables hold.
    pub fields: ProofFields,
    /// Characters of JSON that the lists may take in the report.
    pub room: usize,
}

impl Request {
    /// Which target it is about.
    pub fn target(&self) -> &TargetId {
        match self {
            Request::Inspect { target, .. }
            | Request::Prepare { target, .. }
            | Request::Preview { target, .. }
            | Request::InOrder { target, .. }
            | Request::IsApplied { target, .. }
            | Request::NameEarlier { target, .. }
            | Request::WhichStands { target, .. }
            | Request::Discard { target }
            | Request::Swap { target }
            | Request::Undo { target }
            | Request::Activate { target }
            | Request::ReadBack { target, .. }
            | Request::Attest { target, .. }
            | Request::Commit { target }
            | Request::Leave { target } => target,
        }
    }

    /// Does it only look? Then a server that only looks answers it, and it can be given up at any time.
    pub fn only_looks(&self) -> bool {
        matches!(
            self,
            Request::Inspect { .. }
                | Request::Preview { .. }
                | Request::InOrder { .. }
                | Request::IsApplied { .. }
                | Request::WhichStands { .. }
                | Request::Attest { .. }
        )
    }
}

/// What a [`Server`] is made from.
#[derive(Debug, Clone, PartialEq)]
pub struct Setup {
    /// Where it keeps what it remembers between runs, in a directory of its own. Absolute.
    pub state_dir: PathBuf,
    pub targets: Vec<TargetSetup>,
    /// Do mail servers count that run here, and that nothing names?
    pub beside_running: bool,
}

/// One target of a [`Setup`].
#[derive(Debug, Clone, PartialEq)]
pub struct TargetSetup {
    pub id: TargetId,
    pub kind: TargetKind,
    /// Whose logins are ours.
    pub relay: Relay,
    /// Exactly these lookup keys are ours, where given.
    pub keys: Option<Vec<String>>,
    /// Login tables that cannot be listed, and for which somebody answers.
    pub unlisted_ok: Vec<String>,
    /// How the mail server is told.
    pub reload: Reload,
    /// False: a person changes it.
    pub write: bool,
}
