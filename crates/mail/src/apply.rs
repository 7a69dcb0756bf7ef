//! The apply boundary: everything that touches a mail server goes through here, as requests and replies.
//!
//! Today [`Client::InProcess`] calls [`Server`] directly; later the server is a root process of its own behind a
//! socket, without network, and everything else runs unprivileged. So a login goes in (`Prepare` and `Preview`, to be put in place;
//! `InOrder`, `IsApplied` and `WhichStands`, to be compared with what is in place) and none ever
//! comes back: those three answer yes or no, or which one. On a host without state those that the source held before come with `Ours`,
//! to be compared alike. Replies carry live ids and key ids, and the server reads its targets from its own configuration, keeps
//! its own journal and its own key for live ids, and knows neither network nor AWS nor run time.
//!
//! What is locked, and for how long:
//!
//! - Requests about one target are done one after the other, whole, child programs included. Nothing else waits for them:
//!   a target whose `postfix check` hangs, or whose table is on a file system that does, holds up no other one.
//! - The directories of a table are locked against other processes from `Prepare` to `Commit`, `Discard` or `Leave`; targets
//!   of this process, of whatever configuration, share that lock, and take turns at the renames alone ([`registry`]). A
//!   change that another target overtakes is planned anew, for as long as others get further, and one that is put back after
//!   another target has renamed there is refused (class `changed-underneath`), as for anybody else's change.
//! - The journal and the key have a lock of their own, held for two fsyncs of small files in the state directory.

mod activate;
mod change;
mod inspect;
mod journal;
mod kind;
mod left_behind;
mod own_ids;
mod preview;
mod read_back;
mod registry;
mod reply;
mod request;
mod server;
mod session;
mod version_id;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::fault::{Class, Fault};
use crate::host;
pub use crate::mta::by_hand::masked;
pub use crate::mta::{KnownLogins, Logins, NamedLogin, Ours, RegionalLogin, Running};
use crate::mta::{Mta, Reload, ServicePlan, TableId, WantedKey};
use change::StagedChange;
use journal::{ApplyJournal, LiveIdKey, SeenFiles, TableRecord, TargetRecord};
pub use kind::TargetKind;
use registry::{Directories, HeldDirectory};
pub use reply::{
    Activated, Hindrances, Inspected, LiveEntry, Prepared, Previewed, ReadBack, RegionsRead, Reply, WhyReload,
};
pub use request::{JournalVersion, Request, Setup, TargetId, TargetSetup, WantedProof};
pub use server::Server;

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
/// How often a change is planned anew because somebody wrote to the table meanwhile.
const ATTEMPTS: usize = 3;

/// May a server change anything?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum MayChange {
    Look,
    Change,
}

/// What all targets have in common. Nothing of it is held while anything outside is waited for, but the journal's lock.
struct Shared {
    access: MayChange,
    /// Was looked for what killed runs left of targets that are no longer configured?
    swept: AtomicBool,
    store: Arc<ApplyJournal>,
    key: Arc<Mutex<Option<LiveIdKey>>>,
    directories: Arc<Directories>,
    /// Every target of the configuration.
    configured: BTreeSet<TargetId>,
    process: ApplyProcess,
}

/// What the servers of one process share, of whatever configurations they are: the locks of the tables' directories, the turns at
/// the renames, the journal and its key. A target of an earlier configuration that has not ended yet is in the way of those of
/// the next one no more than another target of the same configuration.
#[derive(Clone)]
pub struct ApplyProcess {
    store: Arc<ApplyJournal>,
    key: Arc<Mutex<Option<LiveIdKey>>>,
    directories: Arc<Directories>,
    /// Every target that one of the servers ever had: what they have staged is nobody's left-over.
    targets: Arc<Mutex<BTreeSet<TargetId>>>,
}

impl ApplyProcess {
    /// Of a process that has this state directory. Touches nothing.
    pub fn new(state_dir: &Path) -> Self {
        Self {
            store: Arc::new(ApplyJournal::new(state_dir)),
            key: Arc::default(),
            directories: Arc::default(),
            targets: Arc::default(),
        }
    }

    fn targets(&self) -> MutexGuard<'_, BTreeSet<TargetId>> {
        self.targets.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One target, its open change among it.
struct Target {
    id: TargetId,
    shared: Arc<Shared>,
    kind: TargetKind,
    mta: Box<dyn Mta>,
    /// By the numbers of its endpoints, the SES region of each, or its name.
    regions: Vec<String>,
    reload: Reload,
    /// False: a person changes it, and we never do.
    write: bool,
    /// The files that the last look found in use, text and map, under every name: what `Prepare` locks around first.
    files: Vec<PathBuf>,
    /// How they were at the last look, and since when.
    seen: Option<SeenFiles>,
    /// Was looked for what killed runs left of it?
    swept: bool,
    /// Why the mail server does not run, where it ended at our reload and has not been started since.
    ended: Option<Fault>,
    open: Option<OpenChange>,
}

/// What is kept of a target between `Prepare` and `Commit` or `Discard`.
struct OpenChange {
    ours: Ours,
    logins: Logins,
    version: JournalVersion,
    /// Of the logins that the live keys get.
    live_id: String,
    /// Each login, where the version has several.
    regional: Vec<RegionalLogin>,
    /// The user name that was in use before.
    previous: Option<String>,
    /// Texts and maps.
    files: Vec<PathBuf>,
    /// Every key that must give the login in the running configuration after the swap, table by table.
    lookups: Vec<(TableId, Vec<WantedKey>)>,
    /// The tables that were, or are about to be, renamed in.
    written: Vec<TableRecord>,
    /// What every client service must find then.
    services: Vec<ServicePlan>,
    reload_needed: bool,
    /// When the look began that the staged files are made from.
    planned: Instant,
    change: StagedChange,
    swap: Swap,
    /// What the journal said before the swap.
    before: Option<TargetRecord>,
    /// The directories that hold the tables and their maps, by path, and our locks on them.
    locks: Locks,
}

/// Directories, by path, that are locked against other processes.
type Locks = BTreeMap<PathBuf, Arc<HeldDirectory>>;

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

fn out_of_order(asked: &str, because: &str) -> Fault {
    Fault::new(
        Class::OutOfOrder,
        format!("cannot {asked}: {because} here"),
        "what is there is looked at, and decided about, anew",
    )
    .temporary()
}
