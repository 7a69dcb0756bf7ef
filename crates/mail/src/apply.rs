//! The apply boundary: everything that touches a mail server goes through here, as requests and replies.
//!
//! Today [`Client::InProcess`] calls [`Server`] directly; later the server is a root process of its own behind a
//! socket, without network, and everything else runs unprivileged. So a secret goes in once (`Prepare`) and never
//! comes back, replies carry live ids and key ids, and the server reads its targets from its own configuration, keeps
//! its own journal and its own key for live ids, and knows neither network nor AWS nor run time.
//!
//! What is locked, and for how long:
//!
//! - Requests about one target are done one after the other, whole, child programs included. Nothing else waits for them:
//!   a target whose `postfix check` hangs, or whose table is on a file system that does, holds up no other one.
//! - The directories of a table are locked against other processes from `Prepare` to `Commit`, `Discard` or `Leave`; targets
//!   of this process share that lock, and take turns at the renames alone ([`registry`]). A change that another target
//!   overtakes is planned anew, for as long as others get further, and one that is put back after another target has
//!   renamed there is refused (class `changed-underneath`), as for anybody else's change.
//! - The journal and the key have a lock of their own, held for two fsyncs of small files in the state directory.

mod change;
mod journal;
mod registry;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError, mpsc};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::credential::{self, CodeFields, Login, ProofFields, Secret, SourceIdentity, VersionOrder};
use crate::fault::{Class, Fault};
use crate::finding::{Finding, Severity};
use crate::host::{self, Directory, HostError};
use crate::instruction::Instruction;
use crate::mta::postfix::Postfix;
use crate::mta::table::same_key;
use crate::mta::text::Text;
use crate::mta::{ByHand, Entry, LeftOut, Mta, Plan, Relay, Reload, View, shown};
pub use crate::mta::{KnownLogins, Ours, Running};
use crate::text;
use change::{Change, Over, Stopped};
use journal::{Ahead, Instance, Key, Moment, Phase, Record, Seen, Store};
use registry::{Held, Registry};

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
pub struct Version {
    /// As the source names it.
    pub version: String,
    /// What the source orders versions by, where it says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub order: Option<VersionOrder>,
    /// Which thing the source is; `None`: not known, as in a journal of relaykey 0.1.0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<SourceIdentity>,
}

impl Version {
    /// Can they be one and the same? Not where both say which they are, and differ.
    fn may_be(&self, other: &Self) -> bool {
        let named = self.source.is_some() && other.source.is_some();
        self.version == other.version && (!named || self == other)
    }
}

impl From<&str> for Version {
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
    /// (printable ASCII without blanks).
    ///
    /// Nothing stays staged after an error. What was prepared before for this target is discarded; a swap that was not
    /// committed stays in place, and its old bytes are forgotten.
    ///
    /// A target with `write = false` is changed by a person: nothing is locked or staged there, now or later. As long as
    /// something is to be changed the answer is [`Reply::ByHand`]: how what is there differs, and the steps; once text and map
    /// hold the login it goes on like any adoption, with [`Prepared::nothing_to_write`].
    Prepare { target: TargetId, ours: Ours, expect: Option<String>, login: Login, version: Version },
    /// The change as people read it, and as they make it by hand, with nothing staged: for `--dry-run`, and for targets
    /// with `write = false`. Of such a target whatever is wrong with the table is explained, and no error. There it makes
    /// the key for live ids, unless the server only looks; else it changes nothing.
    Preview { target: TargetId, ours: Ours, login: Login },
    /// Are user name and password in their order? Refused (class `payload`) where an entry in place has the user name for a
    /// password, or the password for a user name. Changes nothing.
    InOrder { target: TargetId, ours: Ours, login: Login },
    /// Is it the login of the applied version, as far as `ours` tells, or else the one in use? Refused (class `changed`) where it
    /// is another one. Changes nothing.
    IsApplied { target: TargetId, ours: Ours, login: Login },
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
    /// Looks every live key up in the running configuration and compares with the login of `Prepare`. `prove`: the
    /// fields of a report for which a proof is wanted. `nonce`: that of an invitation, empty where there is none, for
    /// which the code that a person types is wanted too.
    ReadBack { target: TargetId, prove: Option<ProofFields>, nonce: Option<String> },
    /// The caller has made it durable: forget old bytes and login, close the journal entry. A reload that is owed stays
    /// remembered. Also right when nothing is open: the caller was killed before it could say so.
    Commit { target: TargetId },
    /// The caller leaves it for now: forget old bytes and login and let go of the locks, as if it had been killed. Staged
    /// files go, what was swapped in stays, and the journal says how far it is. Also right when nothing is open.
    Leave { target: TargetId },
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
            | Request::Discard { target }
            | Request::Swap { target }
            | Request::Undo { target }
            | Request::Activate { target }
            | Request::ReadBack { target, .. }
            | Request::Commit { target }
            | Request::Leave { target } => target,
        }
    }

    /// Does it only look? Then a server that only looks answers it, and it can be given up at any time.
    pub fn only_looks(&self) -> bool {
        matches!(
            self,
            Request::Inspect { .. } | Request::Preview { .. } | Request::InOrder { .. } | Request::IsApplied { .. }
        )
    }
}

/// What the server answers; each to the request of its name.
#[derive(Debug, Clone)]
pub enum Reply {
    /// To `Inspect`.
    Inspected(Box<Inspected>),
    /// To `Prepare`.
    Prepared(Prepared),
    /// To `Prepare`, where a person is to make a change: nothing is staged.
    ByHand(Previewed),
    /// To `Preview`.
    Previewed(Previewed),
    /// To `Swap`.
    Swapped {
        /// When, in seconds since boot; 0 when the machine was started since.
        at_boot: u64,
    },
    /// To `Activate`.
    Activated(Activated),
    /// To `ReadBack`.
    ReadBack(ReadBack),
    /// `Discard`, `Undo`, `Commit`.
    Done,
}

/// What a target really holds.
#[derive(Debug, Clone, Serialize)]
pub struct Inspected {
    /// `postfix`, `text`.
    pub kind: &'static str,
    /// Live keys and our other entries.
    pub entries: Vec<LiveEntry>,
    /// Lookup keys under which an entry is needed and none exists.
    pub missing: Vec<String>,
    /// The one live id under every live key; `None` where none is found or they differ.
    pub live_id: Option<String>,
    /// The user name under the first live key that gives a login.
    pub username: Option<String>,
    /// Is the mail server up, and since when?
    pub running: Running,
    /// A reload that is still to be done.
    pub reload_owed: Option<ReloadOwed>,
    /// Somebody else changed the table, or the mail server's configuration, after the mail server had read them, and it is not
    /// known to have read what is there now; with nothing open, and unless a reload is owed anyway. `Activate` sees to it.
    pub unread: Option<ReloadOwed>,
    /// A version that was swapped in here, at least in part, and not committed yet: a killed run; `Prepare` finds what is
    /// left to do.
    pub swapped: Option<Uncommitted>,
    /// The mail server's and ours (directories and files that cannot be written safely), worst first.
    pub findings: Vec<Finding>,
    /// Those of them that say what a group could have written of all that is run and obeyed.
    pub doubts: Vec<Finding>,
    /// What would stand in the way of a rollover; `None` where it is not only looked: who changes something finds out by it.
    pub hindrances: Option<Box<Hindrances>>,
    /// The tables' files, text and compiled map: a change of one may be drift.
    pub files: Vec<PathBuf>,
    /// The file that the mail server logs to itself; `None`: it logs to syslog.
    pub log: Option<PathBuf>,
}

/// What a rollover would find out by doing it.
#[derive(Debug, Clone, Serialize)]
pub struct Hindrances {
    /// That a table's directory could not be locked or written to, as a rollover does; and whether that may pass by itself.
    pub not_lockable: Option<(Finding, bool)>,
    /// Why a reload, which a rollover does, would be refused.
    pub reload_refused: Option<Finding>,
}

/// A version that was swapped in and not committed, as the journal knows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Uncommitted {
    #[serde(flatten)]
    pub version: Version,
    /// The user name of its login; `None`: the journal does not say.
    pub username: Option<String>,
    /// HMAC of its login, under apply's own key.
    pub live_id: String,
}

/// One entry of a table in use.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LiveEntry {
    /// The lookup key as spelt in the table, or as it would be added.
    pub key: String,
    /// `type:path` of the table.
    pub map: String,
    /// 1-based line in the text, where it stands there.
    pub line: Option<usize>,
    /// User name of the login that the mail server finds under it.
    pub username: Option<String>,
    /// HMAC of what the mail server finds, under apply's own key.
    pub live_id: Option<String>,
    /// The same of what stands in the text; differs while the map is not compiled from it.
    pub text_id: Option<String>,
    /// Would the mail server use it for one of our next hops?
    pub is_live_key: bool,
}

/// A reload that is remembered until it is done, or until the mail server is started after the swap.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReloadOwed {
    /// Wall time of the swap, for people.
    pub since: jiff::Timestamp,
    /// Why it could not be done yet.
    #[serde(deserialize_with = "text::on_one_line")]
    pub why: String,
}

/// What would change in a target, masked. No part of a password stands in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Previewed {
    /// One line per entry that would change. Empty: nothing is to be written, text and map hold the login already.
    pub diff: Vec<String>,
    /// Why the mail server would be reloaded, as the configuration allows it; `None`: it would not.
    pub reload: Option<WhyReload>,
    /// What a person does to make the change, in this order: edits with file and line (of the text as it is now), and
    /// commands. The login stands in it as `USER:***`.
    pub steps: Vec<Instruction>,
    /// How what is there differs from the wanted login, with file and line: for a person who has begun to change it. Empty
    /// where nothing differs.
    pub differences: Vec<String>,
    /// HMAC of the login that it is about, under apply's own key.
    pub live_id: String,
}

/// Why a mail server has to read its tables anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WhyReload {
    /// The configuration asks for it after each change.
    Always,
    /// It notices a change of a table of this kind by nothing else.
    Kind,
    /// It is not known to have read what is in place, or what would be replaced.
    Unread,
    /// One is owed from before.
    Owed,
}

impl WhyReload {
    /// What follows `because`, for people.
    pub fn because(self) -> &'static str {
        match self {
            WhyReload::Always => "the configuration asks for it after each change",
            WhyReload::Kind => "it notices a change of such a table only by that",
            WhyReload::Unread => "it is not known to have read the table that is there",
            WhyReload::Owed => "a reload is owed",
        }
    }
}

/// What `Prepare` has staged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prepared {
    /// Nothing is staged: the live files hold the candidate already.
    pub nothing_to_write: bool,
    /// This version was swapped in by us, in a run that was killed before `Commit`.
    pub swapped_before: bool,
    /// Live id of the candidate.
    pub live_id: String,
    /// One masked line per entry that changes.
    pub diff: Vec<String>,
    /// The keys of other relays that go into effect with it, as only the text has them, for people.
    pub goes_live: Option<String>,
    /// Does this mail server notice the change only by a reload?
    pub reload_needed: bool,
}

/// Has the mail server noticed?
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Activated {
    /// It has noticed, or will at its next look-up.
    Yes {
        /// `reload`, `command` (the configured one), `indexed-map` (renamed over files that it had read, and needs no reload),
        /// `read-before` (these very files), `started-after` (the swap, or a look at these very files), `not-running` (what it will read is there), `no-process`,
        /// `nothing-owed` (and nothing is open).
        how: &'static str,
    },
    /// Not done, and remembered: mail server down, reload failed, `reload = "never"` where one is needed.
    Owed {
        /// Why it was not done.
        why: String,
        /// What to do.
        fix: String,
        /// Will trying again help without anybody doing anything?
        temporary: bool,
    },
}

/// What the running configuration gives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReadBack {
    /// The kind of mail server: `postfix`, `text`.
    pub kind: &'static str,
    /// Every live key gives the candidate, and so does the text.
    pub matches: bool,
    /// Where it does not: key, and what was found in words (never the value).
    pub mismatches: Vec<String>,
    /// Every key that was looked up.
    pub keys: Vec<String>,
    /// `type:path` of the table with the first live key.
    pub map: String,
    /// `postmap -q`, `text`.
    pub how: &'static str,
    /// Entries with the previous key id that are still there under keys that we may not write.
    pub remaining_old: Vec<String>,
    /// The one live id under every live key; `None` where none is found or they differ.
    pub live_id: Option<String>,
    /// Is the mail server up, and since when?
    pub running: Running,
    /// Computed with the read-back password, or why there is none. `None`: not asked for, or no match.
    pub proof: Option<Result<String, &'static str>>,
    /// The same for the code that a person types.
    pub code: Option<Result<String, &'static str>>,
}

/// What a [`Server`] is made from.
#[derive(Debug, Clone, PartialEq)]
pub struct Setup {
    /// Where it keeps what it remembers between runs, in a directory of its own. Absolute.
    pub state_dir: PathBuf,
    pub targets: Vec<TargetSetup>,
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
    /// How the mail server is told.
    pub reload: Reload,
    /// False: a person changes it.
    pub write: bool,
}

/// The kind of mail server a target is.
#[derive(Debug, Clone, PartialEq)]
pub enum TargetKind {
    /// One Postfix instance.
    Postfix {
        /// What `postconf -c` takes. Absolute.
        config_dir: PathBuf,
    },
    /// A key-value text read directly, with no mail server behind it: what `relaykey demo` rolls over where no Postfix
    /// is installed. Not offered in the configuration file.
    Text {
        /// The text. Absolute.
        path: PathBuf,
    },
}

/// The caller's end. Calls block; the agent runs them off its event loop.
#[derive(Clone)]
pub enum Client {
    /// The server is in this process.
    InProcess(Arc<Server>),
}

impl Client {
    /// A client of a server in this process.
    pub fn in_process(server: Server) -> Self {
        Client::InProcess(Arc::new(server))
    }

    /// Does what the request says, and waits for it.
    ///
    /// # Errors
    /// What [`Request`] documents; a target that is not configured; a server that ended in the middle of something.
    pub fn call(&self, request: Request) -> Result<Reply, Fault> {
        let Client::InProcess(server) = self;
        server.serve(request)
    }
}

/// The program is to end: what only looks at a mail server, and hangs, is given up within seconds from now on. What changes
/// something is finished.
pub fn ending() {
    host::ending();
}

/// Class of an [`Request::Undo`] that finds the files written by somebody else since.
pub const OVERTAKEN: Class = Class::ChangedUnderneath;

/// How long another process may hold a table's directory: it does so for as long as a rollover is open there. So long a
/// request also waits for an earlier one about the same target, which its caller has given up.
const LOCK_WAIT: Duration = Duration::from_secs(30);
/// How often a target that is at work is tried.
const BUSY_AGAIN: Duration = Duration::from_millis(20);
/// How often a change is planned anew because somebody wrote to the table meanwhile.
const ATTEMPTS: usize = 3;
/// How long the first look of a server waits for what killed runs of targets that are no longer configured left: their
/// directories may be on a file system that hangs.
const ORPHANS_WAIT: Duration = Duration::from_secs(2);

/// May a server change anything?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Access {
    Look,
    Change,
}

/// The mail server's side: does what requests say, those about one target one at a time.
pub struct Server {
    shared: Arc<Shared>,
    targets: BTreeMap<TargetId, Mutex<Target>>,
}

/// What all targets have in common. Nothing of it is held while anything outside is waited for, but the journal's lock.
struct Shared {
    access: Access,
    /// Was looked for what killed runs left of targets that are no longer configured?
    swept: AtomicBool,
    store: Store,
    key: Mutex<Option<Key>>,
    directories: Registry,
    /// Every target of the configuration.
    configured: BTreeSet<TargetId>,
}

/// One target, its open change among it.
struct Target {
    id: TargetId,
    shared: Arc<Shared>,
    mta: Box<dyn Mta>,
    reload: Reload,
    /// False: a person changes it, and we never do.
    write: bool,
    /// The files that the last look found in use, text and map, under every name: what `Prepare` locks around first.
    files: Vec<PathBuf>,
    /// How they were at the last look, and since when.
    seen: Option<Seen>,
    /// Was looked for what killed runs left of it?
    swept: bool,
    open: Option<Open>,
}

/// What is kept of a target between `Prepare` and `Commit` or `Discard`.
struct Open {
    ours: Ours,
    login: Login,
    version: Version,
    live_id: String,
    /// The user name that was in use before.
    previous: Option<String>,
    /// The tables in use, as the configuration spells them.
    tables: Vec<PathBuf>,
    /// Texts and maps.
    files: Vec<PathBuf>,
    /// Every key that must give the login in the running configuration after the swap.
    lookups: Vec<String>,
    reload_needed: bool,
    /// When the look began that the staged files are made from.
    planned: Instant,
    change: Change,
    swap: Swap,
    /// What the journal said before the swap.
    before: Option<Record>,
    /// The directories that hold the tables and their maps, by path, and our locks on them.
    locks: Locks,
}

/// Directories, by path, that are locked against other processes.
type Locks = BTreeMap<PathBuf, Arc<Held>>;

/// How far the renames of an open change are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Swap {
    NotYet,
    /// `at`: seconds since boot. `reloaded`: the mail server has been made to read what was swapped in.
    Done {
        at: u64,
        reloaded: bool,
    },
}

impl Server {
    /// Makes its targets from the configuration. Touches nothing: what is wrong with a target is said when it is asked
    /// about.
    pub fn new(setup: &Setup) -> Self {
        Self::with_access(setup, Access::Change)
    }

    /// As [`Server::new`], for `check` and `--dry-run`: answers `Inspect` and `Preview` and refuses everything else, and
    /// changes nothing on the side.
    pub fn looking(setup: &Setup) -> Self {
        Self::with_access(setup, Access::Look)
    }

    fn with_access(setup: &Setup, access: Access) -> Self {
        let shared = Arc::new(Shared {
            access,
            swept: AtomicBool::new(false),
            store: Store::new(&setup.state_dir),
            key: Mutex::new(None),
            directories: Registry::default(),
            configured: setup.targets.iter().map(|target| target.id.clone()).collect(),
        });
        let mut targets = BTreeMap::new();
        for TargetSetup { id, kind, relay, keys, reload, write } in setup.targets.iter().cloned() {
            let mta: Box<dyn Mta> = match &kind {
                TargetKind::Postfix { config_dir } => Box::new(Postfix::new(config_dir, &relay, keys, &reload)),
                TargetKind::Text { path } => Box::new(Text::new(path, &relay)),
            };
            let shared = Arc::clone(&shared);
            let files = Vec::new();
            let target =
                Target { id: id.clone(), shared, mta, reload, write, files, seen: None, swept: false, open: None };
            targets.insert(id, Mutex::new(target));
        }
        Self { shared, targets }
    }

    /// Does what a request says. Waits for other requests about the same target, and for no others.
    ///
    /// # Errors
    /// What [`Request`] documents; a target that is not configured; a request that does not fit what was done before
    /// (class `out-of-order`).
    pub fn serve(&self, request: Request) -> Result<Reply, Fault> {
        if self.shared.access == Access::Look && !request.only_looks() {
            return Err(out_of_order("change anything", "this run only looks"));
        }
        match request {
            Request::Inspect { target, ours } => {
                self.sweep_orphans();
                self.target(&target)?.inspect(&ours).map(|seen| Reply::Inspected(Box::new(seen)))
            }
            Request::Prepare { target, ours, expect, login, version } => {
                let mut target = self.target(&target)?;
                match target.left_to_a_person(&ours, &login)? {
                    Some(change) => Ok(Reply::ByHand(change)),
                    None => target.prepare(ours, expect.as_deref(), login, version).map(Reply::Prepared),
                }
            }
            Request::Preview { target, ours, login } => {
                self.target(&target)?.preview(&ours, login).map(Reply::Previewed)
            }
            Request::InOrder { target, ours, login } => {
                self.target(&target)?.in_order(&ours, &login).map(|()| Reply::Done)
            }
            Request::IsApplied { target, ours, login } => {
                self.target(&target)?.is_applied(&ours, &login).map(|()| Reply::Done)
            }
            Request::Discard { target } => self.target(&target)?.discard().map(|()| Reply::Done),
            Request::Swap { target } => self.target(&target)?.swap().map(|at_boot| Reply::Swapped { at_boot }),
            Request::Undo { target } => self.target(&target)?.undo().map(|()| Reply::Done),
            Request::Activate { target } => self.target(&target)?.activate().map(Reply::Activated),
            Request::ReadBack { target, prove, nonce } => {
                self.target(&target)?.read_back(prove.as_ref(), nonce).map(Reply::ReadBack)
            }
            Request::Commit { target } => self.target(&target)?.commit().map(|()| Reply::Done),
            Request::Leave { target } => {
                // One that the configuration no longer has, has nothing open.
                if let Ok(mut target) = self.target(&target) {
                    target.open = None;
                }
                Ok(Reply::Done)
            }
        }
    }

    fn target(&self, id: &TargetId) -> Result<MutexGuard<'_, Target>, Fault> {
        let target = self.targets.get(id).ok_or_else(|| {
            Fault::new(
                Class::Config,
                format!("there is no target {:?} for the credential {:?}", id.target, id.credential),
                "add it to the configuration, or restart relaykey after a change of it",
            )
        })?;
        let began = Instant::now();
        loop {
            match target.try_lock() {
                Ok(target) => return Ok(target),
                Err(TryLockError::WouldBlock) if began.elapsed() < LOCK_WAIT => std::thread::sleep(BUSY_AGAIN),
                Err(TryLockError::WouldBlock) => {
                    return Err(Fault::new(
                        Class::Io,
                        format!("target {} is still at work on an earlier request: what it waits for hangs", id.target),
                        "see whether the file system of its tables answers (stat), and which programs hang: ps -ef",
                    )
                    .temporary());
                }
                Err(TryLockError::Poisoned(_)) => {
                    return Err(Fault::new(
                        Class::Io,
                        "an earlier request to change the mail server's files broke off in the middle",
                        "restart relaykey: it looks at what is there and goes on; and please report it",
                    ));
                }
            }
        }
    }

    /// Once, at the first look: removes what killed runs left of targets that are no longer configured. On a thread of its
    /// own, which is not waited for where a directory hangs that no target needs any more. What cannot be removed is
    /// tried again at the next start.
    fn sweep_orphans(&self) {
        if self.shared.access == Access::Look || self.shared.swept.swap(true, Ordering::SeqCst) {
            return;
        }
        let shared = Arc::clone(&self.shared);
        let (done, ended) = mpsc::channel();
        let sweep = move || {
            for (id, path) in shared.store.staged_in().unwrap_or_default() {
                // A directory that is gone holds nothing any more.
                if let (false, Ok(directory)) = (shared.configured.contains(&id), Directory::open(&path)) {
                    let _ = shared.sweep(&id, &directory);
                }
            }
            let _ = done.send(());
        };
        if std::thread::Builder::new().name("sweep".into()).spawn(sweep).is_ok() {
            let _ = ended.recv_timeout(ORPHANS_WAIT);
        }
    }
}

impl Shared {
    /// Works with the key for live ids; made, but not written, where there is none.
    fn with_key<T>(&self, work: impl FnOnce(&Key) -> T) -> Result<T, Fault> {
        let mut key = self.key.lock().unwrap_or_else(PoisonError::into_inner);
        if key.is_none() {
            *key = Some(Key::load(&self.store)?);
        }
        Ok(work(key.as_ref().expect("made above")))
    }

    /// Makes the key for live ids durable where it is not.
    fn keep_key(&self) -> Result<(), Fault> {
        let mut key = self.with_key(Key::clone)?;
        key.keep(&self.store)?;
        *self.key.lock().unwrap_or_else(PoisonError::into_inner) = Some(key);
        Ok(())
    }

    /// Removes what a killed run staged for a target in a directory. Another process that is at work there holds its
    /// lock.
    fn sweep(&self, id: &TargetId, directory: &Directory) -> Result<(), HostError> {
        let prefix = change::prefix(id);
        if change::leftovers(directory, &prefix)?.is_empty() {
            return Ok(());
        }
        match self.directories.lock(directory, Duration::ZERO) {
            Ok(_held) => change::sweep(directory, &prefix).map(drop),
            Err(HostError::Locked { .. }) => Ok(()),
            Err(e) => Err(e),
        }
    }
}

impl Target {
    // -- looking ------------------------------------------------------------------------------------------------

    fn inspect(&mut self, ours: &Ours) -> Result<Inspected, Fault> {
        if self.shared.access == Access::Change && !self.swept {
            self.sweep()?;
            self.swept = true;
        }
        let ours = &self.with_uncommitted(ours)?;
        let view = self.look(ours)?;
        let mut findings = view.findings.clone();
        for (file, e) in self.tidy(&view.files) {
            let (what, fix) = (e.to_string(), e.fix());
            findings.push(Finding { severity: Severity::Error, line: None, file: Some(file), what, fix });
        }
        findings.sort_by_key(|finding| finding.severity);
        self.files.clone_from(&view.files);
        // What cannot be looked at is a finding already; not seen, it is read once more.
        let seen = self.see().unwrap_or_default();
        let entries = self.shared.with_key(|key| live_entries(&view, key))?;
        if self.shared.store.get(&self.id)?.is_none() {
            self.inherit(&entries)?;
        }
        let record = match self.settle(view.running)? {
            None => self.inherit(&entries)?,
            record => record,
        };
        // What the journal calls swapped may have been stopped before the first rename.
        let swapped = record
            .as_ref()
            .filter(|record| record.phase == Phase::Swapped && is_in_place(record, &entries))
            .map(|record| Uncommitted {
                version: record.version.clone(),
                username: record.usernames.last().filter(|name| !credential::has_secret_shape(name)).cloned(),
                live_id: record.live_id.clone(),
            });
        let hindrances = self.hindrances(&view)?.map(Box::new);
        let reload_owed = record.and_then(|record| record.reload_owed);
        let unread = match &reload_owed {
            None => seen.filter(|seen| self.is_unread(seen, view.running)).map(|seen| ReloadOwed {
                since: seen.at.wall,
                why: "somebody else changed the table or the mail server's configuration, and the mail server is not known to \
                      have read what is there now"
                    .into(),
            }),
            Some(_) => None,
        };
        Ok(Inspected {
            kind: view.kind,
            live_id: one_live_id(&entries),
            username: first_live(&view).map(|login| login.username.clone()),
            entries,
            swapped,
            missing: view.missing,
            doubts: view.doubts,
            hindrances,
            files: view.files,
            log: view.log,
            running: view.running,
            reload_owed,
            unread,
            findings,
        })
    }

    /// Does the mail server, as far as is known, not go by what somebody else has put there? Not asked while a target of this
    /// process has its change open there, which sees to that.
    fn is_unread(&self, seen: &Seen, running: Running) -> bool {
        matches!(running, Running::Yes { .. })
            && seen.overtaken
            && self.open.is_none()
            && !self.shared.directories.is_any_held(&ids_around(&self.files))
            && has_read(Some(seen), running).is_ok_and(|has_read| has_read.is_none())
    }

    /// What is there now, and not half of what another target of this process renames there meanwhile.
    fn look(&self, ours: &Ours) -> Result<View, Fault> {
        let around = |view: Option<&View>| ids_around(view.map_or(&self.files, |view| &view.files));
        self.undisturbed(around, || self.mta.inspect(ours)).map(|(view, _)| view)
    }

    /// Looks again where another target of this process renamed in one of the directories meanwhile: text and map may
    /// have been seen as they never belonged together. Also says when the look began.
    fn undisturbed<T>(
        &self,
        directories: impl Fn(Option<&T>) -> Vec<registry::Id>,
        look: impl Fn() -> Result<T, Fault>,
    ) -> Result<(T, Instant), Fault> {
        for attempt in 1.. {
            let since = Instant::now();
            let seen = look();
            let directories = directories(seen.as_ref().ok());
            if self.shared.directories.quiet_since(&directories, since, LOCK_WAIT) || attempt == ATTEMPTS {
                return seen.map(|seen| (seen, since));
            }
        }
        unreachable!("the last attempt returns")
    }

    fn preview(&mut self, ours: &Ours, login: Login) -> Result<Previewed, Fault> {
        let mut ours = self.with_uncommitted(ours)?;
        let login = printable(login)?;
        ours.logins.others.push(self.shared.with_key(|key| key.live_id(&login))?);
        let ours = &ours;
        let Target { mta, write, .. } = self;
        // What we write ourselves has to be beyond doubt: there `plan` says what stands in the way.
        let planned = if *write { Some(mta.plan(ours, &login)?) } else { None };
        let ByHand { diff, steps, differences } = mta.by_hand(ours, &login)?;
        if !*write && self.shared.access == Access::Change {
            // By it the caller knows again what a person was asked for.
            self.shared.keep_key()?;
        }
        let live_id = self.shared.with_key(|key| key.live_id(&login))?;
        let (diff, to_come) = match planned {
            Some(plan) if plan.files.is_empty() => (plan.diff, ToCome::Nothing),
            Some(plan) => {
                let over = plan.files.iter().map(|file| (file.path.clone(), file.seen)).collect();
                (plan.diff, ToCome::Ours { over, reload_needed: plan.reload_needed })
            }
            None if diff.is_empty() => (diff, ToCome::Nothing),
            None => (diff, ToCome::ByHand),
        };
        let reload = self.foretell_reload(&to_come)?;
        Ok(Previewed { diff, reload, steps, differences, live_id })
    }

    /// What [`Target::activate`] would come to after this, and why, by the same rules. Where no mail server runs, nothing would
    /// be reloaded for its sake; what the configuration asks for would be owed until it is started.
    fn foretell_reload(&mut self, to_come: &ToCome) -> Result<Option<WhyReload>, Fault> {
        let running = self.mta.running()?;
        if running == Running::NotApplicable {
            return Ok(None);
        }
        match to_come {
            ToCome::Ours { reload_needed: needed, .. } if wants_reload(&self.reload, *needed) => {
                let asked = matches!(self.reload, Reload::Always | Reload::Command(_));
                return Ok(Some(if asked { WhyReload::Always } else { WhyReload::Kind }));
            }
            ToCome::ByHand if wants_reload(&self.reload, false) => return Ok(Some(WhyReload::Always)),
            ToCome::Nothing | ToCome::Ours { .. } | ToCome::ByHand => {}
        }
        if self.settled(running, false)?.is_some_and(|record| record.reload_owed.is_some()) {
            return Ok(Some(WhyReload::Owed));
        }
        // What cannot be looked at is a finding already; of it nothing is known.
        let seen = self.see().unwrap_or_default();
        let has_read = match to_come {
            ToCome::Nothing => has_read(seen.as_ref(), running)?.is_some(),
            ToCome::Ours { over, .. } => {
                let over = over.iter().map(|(path, before)| (&**path, *before));
                running == Running::No || seen.is_some_and(|seen| seen.would_notice(over))
            }
            // As nobody can know how a person does it.
            ToCome::ByHand => running == Running::No,
        };
        Ok((!has_read).then_some(WhyReload::Unread))
    }

    fn in_order(&self, ours: &Ours, login: &Login) -> Result<(), Fault> {
        let view = self.look(&self.with_uncommitted(ours)?)?;
        let (as_password, name) = (Secret::new(login.username.clone()), &login.password);
        let stands = |there: &Login| (there.password == as_password) | (Secret::new(there.username.clone()) == *name);
        let there = view.entries.iter().flat_map(|entry| entry.live.iter().chain(&entry.text));
        match there.fold(false, |found, there| found | stands(there)) {
            false => Ok(()),
            true => Err(Fault::new(
                Class::Payload,
                "what the source holds has for its user name a password that is in use here, or the other way round: are the \
                       two in the wrong order? It was not tried",
                "put USER:PASSWORD there as a new version, in this order; the old credential stays in place",
            )),
        }
    }

    fn is_applied(&self, ours: &Ours, login: &Login) -> Result<(), Fault> {
        // Of an access key id there is one password for each region: the name says it.
        let tells = credential::is_access_key_id(&login.username) || ours.logins.applied.is_empty();
        let live_id = self.shared.with_key(|key| key.live_id(login))?;
        let is_it = match &ours.applied {
            Some(applied) if *applied != login.username => false,
            _ if tells || ours.logins.applied.contains(&live_id) => true,
            // Where the key for live ids was made anew, they tell nothing, and the mail server does.
            _ => first_live(&self.look(&self.with_uncommitted(ours)?)?) == Some(login),
        };
        match is_it {
            true => Ok(()),
            false => Err(Fault::new(
                Class::Changed,
                "it is not the login of the applied version",
                "look at what the source holds",
            )),
        }
    }

    /// What a person is to change where `write = false`; `None`: nothing, or it is ours to change.
    fn left_to_a_person(&mut self, ours: &Ours, login: &Login) -> Result<Option<Previewed>, Fault> {
        if self.write {
            return Ok(None);
        }
        self.open = None;
        let change = self.preview(ours, login.clone())?;
        Ok(Some(change).filter(|change| !change.diff.is_empty()))
    }

    /// Once, at the first look: removes what killed runs left of this target, also beside tables that it no longer uses.
    fn sweep(&self) -> Result<(), Fault> {
        self.shared.store.tidy()?;
        for (id, path) in self.shared.store.staged_in()? {
            // A directory that is gone holds nothing any more.
            if let (true, Ok(directory)) = (id == self.id, Directory::open(&path)) {
                self.shared.sweep(&id, &directory)?;
            }
        }
        Ok(())
    }

    /// What was swapped in and not committed is ours too, whatever the caller knows of it.
    fn with_uncommitted(&self, ours: &Ours) -> Result<Ours, Fault> {
        let mut ours = ours.clone();
        let uncommitted = self.shared.store.get(&self.id)?;
        // So is what was swapped in under a name that the configuration has no more: it may have been this target's.
        let elsewhere = self.shared.store.orphans(&self.id.credential, &self.shared.configured)?;
        let elsewhere = elsewhere.into_iter().map(|(_, record)| record);
        for record in uncommitted.into_iter().chain(elsewhere) {
            ours.known.extend(record.usernames);
            ours.logins.others.push(record.live_id);
        }
        ours.logins.key = Some(self.shared.with_key(Key::local)?);
        Ok(ours)
    }

    /// The record of a target that the configuration has no more, where what it swapped in is found here: this one was called
    /// so. From now on it is this one's.
    fn inherit(&self, entries: &[LiveEntry]) -> Result<Option<Record>, Fault> {
        let orphans = self.shared.store.orphans(&self.id.credential, &self.shared.configured)?;
        let Some((id, record)) = orphans.into_iter().find(|(_, record)| is_in_place(record, entries)) else {
            return Ok(None);
        };
        if self.shared.access == Access::Change {
            self.shared.store.hand_over(&id, &self.id)?;
        }
        Ok(Some(record))
    }

    /// Are these files, text and map, such as can be replaced? Gives those that are not, and why. Also removes staged files
    /// that a killed run left beside them, unless another process is at work there.
    fn tidy(&self, files: &[PathBuf]) -> Vec<(PathBuf, HostError)> {
        let (mut problems, mut seen) = (Vec::new(), BTreeSet::new());
        for file in files {
            let replaceable = Directory::of(file).and_then(|(directory, name)| {
                if seen.insert(directory.path().join(&name)) && self.write {
                    directory.look_replaceable(&name)?;
                }
                Ok(())
            });
            problems.extend(replaceable.err().map(|e| (file.clone(), e)));
        }
        if let (true, Err(e)) = (problems.is_empty(), self.tidy_directories(files)) {
            let file = e.path().map(Path::to_owned).or_else(|| files.first().cloned());
            problems.push((file.unwrap_or_default(), e));
        }
        problems
    }

    fn tidy_directories(&self, files: &[PathBuf]) -> Result<(), HostError> {
        if self.open.is_some() || self.shared.access == Access::Look {
            return Ok(());
        }
        let uncommitted = self.shared.store.get(&self.id).ok().flatten().is_some();
        for directory in directories(files)? {
            if uncommitted {
                // Nothing is built on renames, above all no confirmation, that a power cut could still take back: the
                // run that made them may have been killed before their fsync.
                directory.sync()?;
            }
            self.shared.sweep(&self.id, &directory)?;
        }
        Ok(())
    }

    /// What would stand in the way of a rollover. Who changes something finds out by it.
    fn hindrances(&self, view: &View) -> Result<Option<Hindrances>, Fault> {
        match self.shared.access {
            Access::Change => Ok(None),
            Access::Look => Ok(Some(Hindrances {
                not_lockable: self.not_lockable(&view.files),
                reload_refused: self.reload_refused(view.running)?,
            })),
        }
    }

    /// Why a rollover could not lock the tables' directories, or not write to them.
    fn not_lockable(&self, files: &[PathBuf]) -> Option<(Finding, bool)> {
        if !self.write {
            return None;
        }
        // What cannot be opened is a finding of its own.
        let directories = directories(files).ok()?;
        // Text and map have their successors beside them before they go.
        let size = |file: &PathBuf| std::fs::metadata(file).map_or(0, |found| found.len());
        let all: u64 = files.iter().map(size).sum();
        let look = |directory: &Directory| directory.look_lockable().and_then(|()| directory.look_room(all)).err();
        let marked = |file: &PathBuf| host::look_marks(file).err().filter(|e| !e.is_not_found());
        let e = directories.iter().find_map(look).or_else(|| files.iter().find_map(marked))?;
        let (what, fix) =
            (format!("the tables cannot be locked and written, so that nothing would be changed: {e}"), e.fix());
        let file = e.path().map(Path::to_owned);
        Some((Finding { severity: Severity::Error, line: None, file, what, fix }, e.is_temporary()))
    }

    /// Why the mail server, which runs, would refuse a reload.
    fn reload_refused(&self, running: Running) -> Result<Option<Finding>, Fault> {
        match running {
            Running::Yes { .. } if self.reload.is_ours() => self.mta.reload_refused(),
            Running::Yes { .. } | Running::No | Running::NotApplicable => Ok(None),
        }
    }

    /// The journal's record, its owed reload taken off where the mail server was started after the swap.
    fn settle(&self, running: Running) -> Result<Option<Record>, Fault> {
        self.settled(running, self.shared.access == Access::Change)
    }

    /// The same, written down where it `may_change` something.
    fn settled(&self, running: Running, may_change: bool) -> Result<Option<Record>, Fault> {
        let Some(mut record) = self.shared.store.get(&self.id)? else { return Ok(None) };
        if record.reload_owed.is_some() && record.ahead.as_ref().is_some_and(|ahead| ahead.first.is_as_it_was()) {
            // Killed before the first rename: no reload is owed for what was not put in place.
            record.reload_owed = record.ahead.take().and_then(|ahead| ahead.reload_owed);
            if may_change && self.open.is_none() {
                self.shared.store.set(&self.id, Some(record.clone()))?;
            }
        }
        if record.reload_owed.is_some() && record.swapped.is_before_start(running, &Moment::now()?) {
            match may_change {
                true => self.reload_is_settled(&mut record)?,
                false => record.reload_owed = None,
            }
        }
        Ok(Some(record))
    }

    fn reload_is_settled(&self, record: &mut Record) -> Result<(), Fault> {
        record.reload_owed = None;
        // A closed record is kept for the reload alone.
        self.shared.store.set(&self.id, (record.phase == Phase::Swapped).then(|| record.clone()))
    }

    // -- changing -----------------------------------------------------------------------------------------------

    fn prepare(&mut self, ours: Ours, expect: Option<&str>, login: Login, version: Version) -> Result<Prepared, Fault> {
        let login = printable(login)?;
        self.shared.keep_key()?;
        let live_id = self.shared.with_key(|key| key.live_id(&login))?;
        let mut ours = self.with_uncommitted(&ours)?;
        ours.logins.others.push(live_id.clone());
        // What an earlier `Prepare` staged goes. A swap that was not committed stays, as if this process had been killed.
        self.open = None;

        let prefix = change::prefix(&self.id);
        let mut locks = Locks::new();
        if self.write {
            self.lock_around(&self.files, &mut locks, &prefix)?;
        }
        let (view, plan, since) = self.look_under_lock(&ours, &login, &mut locks, &prefix)?;
        let found = first_live(&view);
        let previous = ours.applied.clone().or_else(|| found.map(|login| login.username.clone()));
        let found = match found {
            Some(login) => Some(self.shared.with_key(|key| key.live_id(login))?),
            None => None,
        };
        if found.as_deref() != expect {
            return Err(Fault::new(
                Class::ChangedUnderneath,
                "the login in use is no longer the one that was there before: somebody else changed it",
                "what is there now is looked at, and decided about, anew",
            )
            .temporary());
        }
        let before = self.shared.store.get(&self.id)?;
        let mut open = Open {
            ours,
            login,
            version,
            live_id,
            previous,
            tables: tables(&view),
            files: view.files,
            lookups: Vec::new(),
            reload_needed: false,
            planned: since,
            change: Change::default(),
            swap: Swap::NotYet,
            before,
            locks,
        };
        let (diff, goes_live) = (plan.diff.clone(), plan.goes_live.clone());
        self.stage(&mut open, plan, since)?;
        let nothing_to_write = open.change.is_empty();
        let swapped_by_us = |record: &Record| {
            record.phase == Phase::Swapped && record.version.may_be(&open.version) && record.live_id == open.live_id
        };
        let prepared = Prepared {
            nothing_to_write,
            swapped_before: nothing_to_write && open.before.as_ref().is_some_and(swapped_by_us),
            live_id: open.live_id.clone(),
            diff,
            goes_live,
            reload_needed: open.reload_needed,
        };
        self.open = Some(open);
        Ok(prepared)
    }

    /// Locks the directories of a table's files, and removes what a killed run staged there.
    fn lock_around(&self, files: &[PathBuf], locks: &mut Locks, prefix: &std::ffi::OsStr) -> Result<(), Fault> {
        for directory in directories(files)? {
            if !locks.contains_key(directory.path()) {
                let held = self.shared.directories.lock(&directory, LOCK_WAIT)?;
                change::sweep(&directory, prefix)?;
                locks.insert(directory.path().to_owned(), held);
            }
        }
        Ok(())
    }

    /// What is there, and the plan for it, both read while every directory that the plan writes to was locked. Which
    /// directories these are is known from the last look; where that was wrong, it is looked at again. Also says when
    /// that look began.
    fn look_under_lock(
        &mut self,
        ours: &Ours,
        login: &Login,
        locks: &mut Locks,
        prefix: &std::ffi::OsStr,
    ) -> Result<(View, Plan, Instant), Fault> {
        for _ in 0..ATTEMPTS {
            let look = || Ok((self.mta.inspect(ours)?, self.mta.plan(ours, login)?));
            let ((view, plan), since) = self.undisturbed(|_| ids(locks), look)?;
            let held = locks.len();
            let files: Vec<PathBuf> =
                view.files.iter().chain(plan.files.iter().map(|file| &file.path)).cloned().collect();
            if self.write {
                self.lock_around(&files, locks, prefix)?;
            }
            self.files.clone_from(&view.files);
            if locks.len() == held {
                return Ok((view, plan, since));
            }
        }
        Err(Fault::new(
            Class::ChangedUnderneath,
            "the mail server's configuration names another table at each look",
            "finish what is changing it; it is tried again",
        )
        .temporary())
    }

    /// Stages a plan, made of what was seen from `since` on; one that is overtaken by somebody else's change is made anew.
    /// Nothing is ever written that was not staged here.
    fn stage(&self, open: &mut Open, mut plan: Plan, mut since: Instant) -> Result<(), Fault> {
        let Target { mta, write, .. } = self;
        let mta = &**mta;
        if !write && !plan.files.is_empty() {
            return Err(Fault::new(
                Class::ChangedUnderneath,
                "somebody is changing the table this very moment",
                "what is there now is looked at, and decided about, anew",
            )
            .temporary());
        }
        let prefix = change::prefix(&self.id);
        let mut attempt = 1;
        loop {
            open.lookups = plan.lookups.clone();
            open.reload_needed = plan.reload_needed;
            open.planned = since;
            if !plan.files.is_empty() {
                self.shared.store.will_stage_in(&self.id, open.locks.keys())?;
            }
            if let Some(elsewhere) = unlocked(&plan, &open.locks)? {
                return Err(HostError::Changed { path: elsewhere }.into());
            }
            let Err(stopped) = open.change.stage(mta, plan, &open.login, &prefix) else { return Ok(()) };
            // A compiler that failed may have left a part of its work.
            for path in open.locks.keys() {
                // What cannot be removed now is removed at the next look; the failure itself matters more.
                let _ = Directory::open(path).and_then(|directory| change::sweep(&directory, &prefix));
            }
            // What a target of ours did meanwhile is no reason to give up, as it has got further; nor is what was found
            // wrong then, with a text and a map of which one was its new one.
            let overtaken = self.is_overtaken(open, since);
            match stopped {
                _ if overtaken => {}
                Stopped::Changed(_) if attempt < ATTEMPTS => attempt += 1,
                Stopped::Changed(e) | Stopped::Failed(e) => return Err(e),
            }
            (plan, since) = self.plan_anew(open)?;
        }
    }

    /// Has another target of this process renamed beside the tables since then?
    fn is_overtaken(&self, open: &Open, since: Instant) -> bool {
        !self.shared.directories.quiet_since(&ids(&open.locks), since, LOCK_WAIT)
    }

    fn plan_anew(&self, open: &Open) -> Result<(Plan, Instant), Fault> {
        self.undisturbed(|_| ids(&open.locks), || self.mta.plan(&open.ours, &open.login))
    }

    fn swap(&mut self) -> Result<u64, Fault> {
        let Some(mut open) = self.open.take() else { return Err(out_of_order("swap", "nothing is prepared")) };
        let swapped = match open.swap {
            Swap::Done { at, .. } => Ok(at),
            Swap::NotYet if open.change.is_empty() => {
                // Swapped in before this process: then, or before everything that runs since the machine was started.
                let ours = open.before.as_ref().filter(|record| record.version.may_be(&open.version));
                let this_boot = host::boot_id()?;
                Ok(match ours.map(|record| &record.swapped) {
                    Some(swapped) if swapped.boot_id == this_boot => swapped.boot_seconds,
                    Some(_) => 0,
                    None => host::boot_seconds(),
                })
            }
            Swap::NotYet => {
                // Not known, it costs a reload.
                let before = self.see().ok().flatten();
                self.rename(&mut open).inspect(|_| {
                    self.went_over(before, open.reload_needed, &open.change.went_over());
                })
            }
        };
        match swapped {
            Ok(at) => {
                if open.swap == Swap::NotYet {
                    open.swap = Swap::Done { at, reloaded: false };
                }
                self.open = Some(open);
                Ok(at)
            }
            Err(e) => {
                // Dropped, the staged files go with it; kept only where something is in place that `Undo` may put back.
                if open.change.replaced_any() {
                    open.swap = Swap::Done { at: host::boot_seconds(), reloaded: false };
                    self.open = Some(open);
                }
                Err(e)
            }
        }
    }

    /// The renames, with the journal written before the first. If they stop half-way, what was renamed is put back.
    fn rename(&self, open: &mut Open) -> Result<u64, Fault> {
        let mut attempt = 1;
        loop {
            let owed_before = open.before.as_ref().and_then(|record| record.reload_owed.clone());
            let wants_reload = wants_reload(&self.reload, open.reload_needed);
            let (version, live_id) = (open.version.clone(), open.live_id.clone());
            let mut usernames = open.before.as_ref().map(|record| record.usernames.clone()).unwrap_or_default();
            // The last is that of the version which the record is of.
            usernames.retain(|username| *username != open.login.username);
            usernames.push(open.login.username.clone());
            let record = |swapped: Moment| {
                let new = || ReloadOwed { since: swapped.wall, why: "it is not done yet".into() };
                let reload_owed = if wants_reload { Some(new()) } else { owed_before.clone() };
                let (version, live_id) = (version.clone(), live_id.clone());
                let (usernames, phase, ahead) = (usernames.clone(), Phase::Swapped, None);
                Record { version, usernames, live_id, phase, swapped, reload_owed, ahead }
            };
            let mut at = 0;
            let turn = match self.shared.directories.turn(open.locks.values(), LOCK_WAIT) {
                Ok(turn) => turn,
                Err(e) => return Err(self.put_back(open, e.into())),
            };
            let overtaken = turn.is_overtaken(open.planned);
            let renamed = open.change.rename(|first| {
                let moment = Moment::now()?;
                at = moment.boot_seconds;
                // Where something of this change is in place already, none of it is ahead of the renames.
                let ahead = first.map(|first| Ahead { first, reload_owed: owed_before.clone() });
                self.shared.store.set(&self.id, Some(Record { ahead, ..record(moment) }))
            });
            drop(turn);
            if renamed.is_ok() {
                self.mta.left(&open.change.in_place());
            }
            match renamed {
                // Seldom: the disk was so slow that a start in between would pass for one after the swap.
                Ok(()) if host::boot_seconds() >= at + journal::SWAP_SECONDS => {
                    let moment = Moment::now()?;
                    at = moment.boot_seconds;
                    self.shared.store.set(&self.id, Some(record(moment)))?;
                    return Ok(at);
                }
                Ok(()) => return Ok(at),
                Err(Stopped::Changed(_)) if overtaken || attempt < ATTEMPTS => {
                    attempt += usize::from(!overtaken);
                    let planned = self.plan_anew(open);
                    if let Err(e) = planned.and_then(|(plan, since)| self.stage(open, plan, since)) {
                        return Err(self.put_back(open, e));
                    }
                }
                Err(Stopped::Changed(e) | Stopped::Failed(e)) => return Err(self.put_back(open, e)),
            }
        }
    }

    /// These files of the table were renamed over, which were so `before`. Where the mail server notices that by itself, it has
    /// read what is there now if it had read what was there before.
    fn went_over(&mut self, before: Option<Seen>, reload_needed: bool, renamed: &[Over]) {
        let after = before.filter(|_| !reload_needed).and_then(|before| before.renamed_over(renamed));
        // Not remembered, they are looked at anew, which costs a reload.
        self.seen = after.filter(|after| self.set_seen(after).is_ok());
    }

    /// After renames that stopped: puts back what was replaced, and the journal. Gives the error to report.
    fn put_back(&self, open: &mut Open, e: Fault) -> Fault {
        let undone = self.undo_renames(open);
        match undone.and_then(|_| self.shared.store.set(&self.id, open.before.clone())) {
            Ok(()) => e,
            Err(also) => Fault {
                what: format!("{}; and what was changed before that could not be put back: {}", e.what, also.what),
                fix: format!("{}; {}", e.fix, also.fix),
                ..e
            },
        }
    }

    fn undo_renames(&self, open: &mut Open) -> Result<Vec<Over>, Fault> {
        if !open.change.replaced_any() {
            // Nothing is renamed, and nobody waited for.
            return Ok(open.change.undo()?);
        }
        let _turn = self.shared.directories.turn(open.locks.values(), LOCK_WAIT)?;
        Ok(open.change.undo()?)
    }

    fn discard(&mut self) -> Result<(), Fault> {
        // What a swap that failed could not put back is put back now, if it can be.
        if self.open.as_ref().is_some_and(|open| open.change.replaced_any()) {
            self.undo()?;
        }
        self.open = None;
        Ok(())
    }

    fn undo(&mut self) -> Result<(), Fault> {
        let Some(mut open) = self.open.take() else { return Err(out_of_order("undo", "nothing is open")) };
        let before = self.see().ok().flatten();
        let undone = self.undo_open(&mut open);
        if let Ok(renamed) = &undone {
            self.went_over(before, open.reload_needed, renamed);
        }
        self.open = Some(open);
        undone.map(drop)
    }

    fn undo_open(&self, open: &mut Open) -> Result<Vec<Over>, Fault> {
        let Swap::Done { reloaded, .. } = open.swap else { return Ok(Vec::new()) };
        let renamed = self.undo_renames(open)?;
        let mut record = open.before.clone();
        if reloaded && open.reload_needed {
            // The mail server has read what is no longer there.
            let swapped = Moment::now()?;
            let why = "the login was put back after a reload".to_owned();
            record = Some(Record {
                version: open.version.clone(),
                usernames: open.before.as_ref().map(|record| record.usernames.clone()).unwrap_or_default(),
                live_id: open.live_id.clone(),
                phase: Phase::Undone,
                ahead: None,
                reload_owed: Some(ReloadOwed { since: swapped.wall, why }),
                swapped,
            });
        }
        open.swap = Swap::NotYet;
        self.shared.store.set(&self.id, record)?;
        Ok(renamed)
    }

    fn activate(&mut self) -> Result<Activated, Fault> {
        let running = self.mta.running()?;
        let owed = |record: &Option<Record>| record.as_ref().is_some_and(|record| record.reload_owed.is_some());
        let owed_before = owed(&self.shared.store.get(&self.id)?);
        let mut record = self.settle(running)?;
        if running == Running::NotApplicable {
            if let (true, Some(record)) = (owed_before, &mut record) {
                self.reload_is_settled(record)?;
            }
            return Ok(Activated::Yes { how: "no-process" });
        }
        if let Some(open) = &self.open {
            self.files.clone_from(&open.files);
        }
        // Ahead of all that makes it read them: what changes later shows.
        let seen = self.see()?;
        if !owed(&record) {
            // What is open may have been changed by somebody else since, and is seen to by what follows.
            if owed_before && self.open.is_none() {
                return Ok(Activated::Yes { how: "started-after" });
            }
            match self.unread(running, record, seen.as_ref())? {
                Ok(how) => return Ok(Activated::Yes { how }),
                Err(unread) => record = unread,
            }
        }
        let not_done = |why: &str, fix: &str, temporary| (why.to_owned(), fix.to_owned(), temporary);
        let (why, fix, temporary) = match (&self.reload, running) {
            (reload, _) if !reload.is_ours() => not_done(
                "the configuration says reload = \"never\"",
                "restart the mail server: a start after the change settles it (a reload by hand is not seen)",
                false,
            ),
            (_, Running::No) => not_done(
                "the mail server is not running",
                "start it: a start after the change settles the reload",
                true,
            ),
            (reload, _) => match self.mta.activate() {
                Ok(()) => {
                    let how = if matches!(reload, Reload::Command(_)) { "command" } else { "reload" };
                    self.remember(seen.as_ref(), true)?;
                    if let Some(record) = &mut record {
                        self.reload_is_settled(record)?;
                    }
                    return Ok(Activated::Yes { how });
                }
                Err(e) => (e.what, e.fix, e.temporary),
            },
        };
        // A start after this look will have read them so.
        self.remember(seen.as_ref(), false)?;
        if let Some(mut record) = record {
            record.reload_owed = Some(ReloadOwed { since: record.swapped.wall, why: why.clone() });
            self.shared.store.set(&self.id, Some(record))?;
        }
        Ok(Activated::Owed { why, fix, temporary })
    }

    /// How the table's files are, and since when that is known. `None`: which they are is not known yet.
    fn see(&mut self) -> Result<Option<Seen>, Fault> {
        if self.files.is_empty() {
            return Ok(None);
        }
        let now = Seen::now(&self.files, Instance::now(self.mta.instance()?)?)?;
        let may_change = self.shared.access == Access::Change;
        let mut seen =
            self.shared.store.look(&self.id, now, self.seen.as_ref(), &self.shared.configured, may_change)?;
        // Asked after the look: one that was started in between may have read something else.
        if may_change && !seen.read && !seen.stopped && self.mta.running()? == Running::No {
            seen.stopped = true;
            self.shared.store.note(&self.id, &seen, &self.shared.configured)?;
        }
        self.seen = Some(seen.clone());
        Ok(Some(seen))
    }

    fn set_seen(&self, seen: &Seen) -> Result<(), Fault> {
        self.shared.store.set_seen(&self.id, seen, &self.shared.configured)
    }

    /// Remembers how the files were, durably, and whether the mail server has read them so.
    fn remember(&mut self, seen: Option<&Seen>, read: bool) -> Result<(), Fault> {
        let Some(seen) = seen else { return Ok(()) };
        let read = seen.read || read;
        let seen = Seen { read, overtaken: seen.overtaken && !read, ..seen.clone() };
        self.set_seen(&seen)?;
        if let Some(Open { swap: Swap::Done { reloaded, .. }, .. }) = &mut self.open {
            *reloaded |= read;
        }
        self.seen = Some(seen);
        Ok(())
    }

    /// No reload is owed: has the mail server read what is there, and how so? Else a record for the reload that is
    /// needed: unless that very table was seen before the mail server was started, or was read by it before. Time stamps of
    /// the wall clock prove neither, as it may have been set; a reload by hand leaves no trace that could be trusted; and one
    /// more does no harm.
    ///
    /// Needed it is for every kind of table. A running smtp(8) may miss that a map was rewritten in place, as it goes by the
    /// modification time in whole seconds; and it goes on with a file that was moved aside, as long as that has a name.
    fn unread(
        &mut self,
        running: Running,
        known: Option<Record>,
        seen: Option<&Seen>,
    ) -> Result<Result<&'static str, Option<Record>>, Fault> {
        if self.open.is_none() && !seen.is_some_and(|seen| seen.overtaken) {
            return Ok(Ok("nothing-owed"));
        }
        match has_read(seen, running)? {
            Some(HasRead::Before) => {
                let how = match &self.open {
                    Some(Open { swap: Swap::Done { reloaded: true, .. }, .. }) => "reload",
                    // Known as read, as it went over what was.
                    Some(open) if open.change.replaced_any() => "indexed-map",
                    _ => "read-before",
                };
                self.remember(seen, false)?;
                return Ok(Ok(how));
            }
            Some(HasRead::AtItsStart) => {
                self.remember(seen, true)?;
                return Ok(Ok("started-after"));
            }
            Some(HasRead::WillAtItsStart) => {
                self.remember(seen, false)?;
                return Ok(Ok("not-running"));
            }
            None => {}
        }
        // Of what nobody of ours has put there, it is remembered with the files.
        let Some(open) = &self.open else { return Ok(Err(None)) };
        let swapped = Moment::now()?;
        if let Some(known) = known.filter(|record| record.live_id == open.live_id) {
            return Ok(Err(Some(Record { swapped, ..known })));
        }
        let (version, live_id) = (open.version.clone(), open.live_id.clone());
        let usernames = Vec::new();
        let (phase, reload_owed, ahead) = (Phase::Committed, None, None);
        Ok(Err(Some(Record { version, usernames, live_id, phase, reload_owed, swapped, ahead })))
    }

    fn read_back(&self, prove: Option<&ProofFields>, nonce: Option<String>) -> Result<ReadBack, Fault> {
        let Some(open) = &self.open else { return Err(out_of_order("read back", "nothing is prepared")) };
        // Seen from before: whatever still holds the previous key id shows.
        let previous = open.previous.as_ref().filter(|user| **user != open.login.username);
        let has_previous = previous.is_some();
        let applied = Some(previous.unwrap_or(&open.login.username).clone());
        let known = vec![open.login.username.clone()];
        let Ours { applied: before, previous: before_that, known: ours, earlier, logins } = &open.ours;
        let earlier: Vec<String> =
            [before, before_that].into_iter().flatten().chain(ours).chain(earlier).cloned().collect();
        let logins = logins.clone();
        let view = self.look(&Ours { applied, previous: None, known, earlier: earlier.clone(), logins })?;
        let mut found: Vec<(String, Option<Login>)> =
            view.entries.iter().map(|entry| (entry.key.clone(), entry.live.clone())).collect();
        let rest: Vec<String> =
            (open.lookups.iter()).filter(|key| !found.iter().any(|(have, _)| same_key(have, key))).cloned().collect();
        if let (false, Some(table)) = (rest.is_empty(), open.tables.first()) {
            let answers = self.mta.lookup(table, &rest)?;
            found.extend(rest.into_iter().zip(answers.into_iter().chain(std::iter::repeat(None))));
        }
        let wrong = |(key, login): &(String, Option<Login>)| match login {
            Some(login) if *login == open.login => None,
            Some(login) if login.username == open.login.username => {
                Some(format!("{} gives another password for {}", shown::quoted_key(key, None), login.username))
            }
            Some(login) => {
                let given = open.ours.login_of(&login.username, Some(&open.login.username));
                Some(format!("{} gives {given}", shown::quoted_key(key, None)))
            }
            None => Some(format!("{} gives no login", shown::quoted_key(key, None))),
        };
        let mut mismatches: Vec<String> = found.iter().filter_map(wrong).collect();
        let in_text =
            |entry: &&Entry| entry.live.as_ref() == Some(&open.login) && entry.text.as_ref() != Some(&open.login);
        let differs = |entry: &Entry| {
            format!(
                "the text under {} is not what its map was compiled from",
                shown::quoted_key(&entry.key, entry.line)
            )
        };
        mismatches.extend(view.entries.iter().filter(in_text).map(differs));
        let live = view.entries.iter().find(|entry| entry.is_live_key);
        if live.is_none() {
            mismatches.push("the mail server would find no login for the endpoint".into());
        }
        let matches = mismatches.is_empty();
        // With what was read back, not with what came in: so that they prove that the mail server has it.
        let proven = prove.filter(|_| matches).and_then(|fields| Some((&live?.live.as_ref()?.password, fields)));
        let proof = proven.map(|(password, fields)| credential::proof(password, fields));
        let code = proven.zip(nonce).map(|((password, fields), nonce)| {
            credential::code(password, &CodeFields::of(fields, nonce)).map(|code| code.to_string())
        });
        let is_old = |left: &LeftOut| match &left.username {
            Some(_) if left.was_found => true,
            // One access key id has a password for each region, and all of them end together. Any other name goes on with the
            // next password, while the one before it ends.
            Some(username) if *username == open.login.username => {
                !credential::is_access_key_id(username) && left.own.as_ref().is_some_and(|own| *own != open.live_id)
            }
            Some(username) => has_previous || earlier.contains(username),
            None => has_previous,
        };
        let map = live.map(|entry| entry.map.clone()).unwrap_or_default();
        let live_id = one_live_id(&self.shared.with_key(|key| live_entries(&view, key))?);
        Ok(ReadBack {
            kind: view.kind,
            matches,
            mismatches,
            keys: found.into_iter().map(|(key, _)| shown::key(&key).into_owned()).collect(),
            map,
            how: if view.kind == "text" { "text" } else { "postmap -q" },
            remaining_old: view
                .left_out
                .into_iter()
                .filter(is_old)
                .map(|left| shown::key(&left.key).into_owned())
                .collect(),
            live_id,
            running: view.running,
            proof,
            code,
        })
    }

    fn commit(&mut self) -> Result<(), Fault> {
        if let Some(record) = self.shared.store.get(&self.id)? {
            let owed = record.reload_owed.is_some();
            self.shared.store.set(
                &self.id,
                owed.then_some(Record { phase: Phase::Committed, usernames: Vec::new(), ahead: None, ..record }),
            )?;
        }
        self.open = None;
        Ok(())
    }
}

/// What a preview has found to be done, as far as a mail server notices it.
enum ToCome {
    Nothing,
    /// We rename over these files, which are now such.
    Ours {
        over: Vec<(PathBuf, Option<host::FileId>)>,
        reload_needed: bool,
    },
    /// A person makes the change.
    ByHand,
}

/// How it is known that a mail server goes by the files that are there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum HasRead {
    /// It was made to read them, or noticed our rename.
    Before,
    /// It was started after they were seen so.
    AtItsStart,
    /// It does not run.
    WillAtItsStart,
}

/// Is that known? `None`: it is not, and takes a reload.
fn has_read(seen: Option<&Seen>, running: Running) -> Result<Option<HasRead>, Fault> {
    Ok(match seen {
        Some(seen) if seen.read => Some(HasRead::Before),
        _ if running == Running::No => Some(HasRead::WillAtItsStart),
        Some(seen) if seen.is_before_start(running, &Moment::now()?) => Some(HasRead::AtItsStart),
        _ => None,
    })
}

/// Does this setting ask for a reload after a swap?
fn wants_reload(reload: &Reload, needed: bool) -> bool {
    match reload {
        Reload::Always | Reload::Command(_) => true,
        Reload::IfNeeded | Reload::Never => needed,
    }
}

/// The tables in use, as the configuration spells them; texts, not their maps.
fn tables(view: &View) -> Vec<PathBuf> {
    let mut tables: Vec<PathBuf> = Vec::new();
    for entry in &view.entries {
        // `type:path`, and the type may have parts of its own; the path is absolute.
        let Some(path) = entry.map.find(":/").map(|at| Path::new(&entry.map[at + 1..])) else { continue };
        if !tables.iter().any(|have| have == path) {
            tables.push(path.into());
        }
    }
    tables
}

/// The directories that a table's files are in: text and map may each be a symbolic link, and then both the directory of the
/// link and that of the file count, since what Postfix opens can be changed in either.
fn directories(files: &[PathBuf]) -> Result<Vec<Directory>, HostError> {
    let mut directories: Vec<Directory> = Vec::new();
    for file in files {
        let beside = file.parent().map(Directory::open).transpose()?;
        for directory in std::iter::once(Directory::of(file)?.0).chain(beside) {
            if !directories.iter().any(|have| have.path() == directory.path()) {
                directories.push(directory);
            }
        }
    }
    // In one order, whoever asks, so that two processes that need both do not wait for each other.
    directories.sort_by(|a, b| a.path().cmp(b.path()));
    Ok(directories)
}

/// The directories that a target has locked.
fn ids(locks: &Locks) -> Vec<registry::Id> {
    locks.values().map(|held| held.id()).collect()
}

/// The directories of files; none where they cannot be had.
fn ids_around(files: &[PathBuf]) -> Vec<registry::Id> {
    let directories = directories(files).unwrap_or_default();
    directories.iter().filter_map(|directory| directory.id().ok()).collect()
}

/// A file of the plan in a directory that is not locked.
fn unlocked(plan: &Plan, locks: &Locks) -> Result<Option<PathBuf>, HostError> {
    for file in &plan.files {
        if !locks.contains_key(Directory::of(&file.path)?.0.path()) {
            return Ok(Some(file.path.clone()));
        }
    }
    Ok(None)
}

/// What the mail server finds under the first live key that gives anything.
fn first_live(view: &View) -> Option<&Login> {
    view.entries.iter().filter(|entry| entry.is_live_key).find_map(|entry| entry.live.as_ref())
}

fn live_entries(view: &View, key: &Key) -> Vec<LiveEntry> {
    let entry = |entry: &Entry| LiveEntry {
        key: shown::key(&entry.key).into_owned(),
        map: entry.map.clone(),
        line: entry.line,
        username: entry.live.as_ref().map(|login| login.username.clone()),
        live_id: entry.live.as_ref().map(|login| key.live_id(login)),
        text_id: entry.text.as_ref().map(|login| key.live_id(login)),
        is_live_key: entry.is_live_key,
    };
    view.entries.iter().map(entry).collect()
}

/// Is any of what was swapped in there?
fn is_in_place(record: &Record, entries: &[LiveEntry]) -> bool {
    let holds = |id: &Option<String>| id.as_ref() == Some(&record.live_id);
    entries.iter().any(|entry| holds(&entry.live_id) || holds(&entry.text_id))
}

/// The live id under every live key, where it is one.
fn one_live_id(entries: &[LiveEntry]) -> Option<String> {
    let mut ids = entries.iter().filter(|entry| entry.is_live_key).map(|entry| entry.live_id.as_ref());
    let first = ids.next()??;
    ids.all(|id| id == Some(first)).then(|| first.clone())
}

impl Inspected {
    /// What `Prepare` expects to find: the live id under the first live key that gives anything.
    pub fn expect(&self) -> Option<String> {
        self.entries.iter().filter(|entry| entry.is_live_key).find_map(|entry| entry.live_id.clone())
    }
}

/// Checks a login once more: what comes over the boundary is not believed.
fn printable(login: Login) -> Result<Login, Fault> {
    Login::new(login.username, login.password).map_err(|e| {
        Fault::new(
            Class::Unsupported,
            format!("the login cannot be written into a mail server's table: {e}"),
            "store a user name and password of printable ASCII characters without blanks",
        )
    })
}

fn out_of_order(asked: &str, because: &str) -> Fault {
    Fault::new(
        Class::OutOfOrder,
        format!("cannot {asked}: {because} here"),
        "what is there is looked at, and decided about, anew",
    )
    .temporary()
}
