//! What outlives the process: one versioned JSON file per credential, changed by one rename per step; who this host
//! is; and the local key under which contents are identified.
//!
//! ```text
//! STATE_DIR/                 0700
//!   lock                     held while a program decides for this host, and so is the directory's name
//!   key                      32 random bytes: versions of `file` sources
//!   host.json                host id and name, made at first start and kept
//!   credentials/NAME.json    rollover::State
//!   apply/                   the mail server's side: its own journal and key
//! ```
//!
//! No file here holds a secret of the credential. A file that cannot be read stops the program: forgetting what was
//! applied would let an old version win.

use std::collections::BTreeMap;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::credential::LocalKey;
use crate::host::{self, HostError, trust};
use crate::instruction::relaykey;
use crate::rollover::{CloneOf, ReportOutcome, State};

/// The largest state file that is written, in bytes: tens of thousands of reports that are owed.
const MAX_WRITTEN: usize = 64 << 20;
/// The largest that is read: what is written can be read, and relaykey 0.1.0 did not look at what it wrote.
const MAX_READ: usize = 4 * MAX_WRITTEN;

/// What a file of the state directory holds: what to do about one that cannot be read depends on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StateFile {
    /// Who this host is.
    Host,
    /// The key for versions of `file` sources.
    Key,
    /// The state of one credential.
    Credential,
}

#[derive(Debug, thiserror::Error)]
pub enum StateError {
    #[error(transparent)]
    Host(#[from] host::HostError),
    #[error("{path}:{line}: {what}")]
    Broken { file: StateFile, path: PathBuf, line: usize, what: String },
    #[error("{path}: written by a newer relaykey (schema {schema}); this one reads schema {known}")]
    Newer { path: PathBuf, schema: u64, known: u32 },
    #[error("{path}: {source}")]
    Io { path: PathBuf, source: io::Error },
    /// It stays as it was, and what is not written down is not done.
    #[error("{path}: it would have {size} bytes, and at most {MAX_WRITTEN} are written: {owed}")]
    Full { path: PathBuf, size: usize, owed: String },
}

impl StateError {
    /// Will trying again help without anybody doing anything?
    pub fn is_temporary(&self) -> bool {
        matches!(self, StateError::Host(e) if e.is_temporary())
    }
}

impl StateError {
    /// Writing broke off in the middle.
    pub fn broken_off(credential: &str, what: &str) -> Self {
        StateError::Io { path: format!("{credential}.json").into(), source: io::Error::other(what.to_owned()) }
    }

    /// Does another process hold the directory?
    pub fn is_locked(&self) -> bool {
        matches!(self, StateError::Host(HostError::Locked { .. }))
    }

    /// Could others put another file in the place of any of its files? Then none of them is read either.
    pub fn is_unsafe_directory(&self) -> bool {
        matches!(self, StateError::Host(HostError::UnsafeDirectory { .. }))
    }

    /// The process that holds it, where that is a daemon: it does not let it go by itself.
    pub fn held_by_daemon(&self) -> Option<&host::Holder> {
        match self {
            StateError::Host(HostError::Locked { holder, .. }) => holder.daemon(),
            _ => None,
        }
    }

    /// The same, after so long a wait for another process.
    pub fn after(self, waited: Duration) -> Self {
        match self {
            StateError::Host(HostError::Locked { path, holder, .. }) => {
                HostError::Locked { path, holder, waited }.into()
            }
            other => other,
        }
    }

    /// What to do.
    pub fn fix(&self) -> String {
        match self {
            // A daemon is never done with its state directory.
            e if e.held_by_daemon().is_some() => format!(
                "`{}` says what that daemon is at; where another relaykey is to have its place, end it: systemctl stop relaykey",
                relaykey("status")
            ),
            // Nobody named it: all that is in the state directory is relaykey's own.
            StateError::Host(HostError::NotRegular { path, .. }) => format!(
                "find out who put that there in the place of a file of relaykey's own, put the file back from a backup, or move what \
                 is there aside: mv {} {}",
                trust::quoted(path),
                trust::quoted(&path.with_extension("odd"))
            ),
            StateError::Host(e) => e.fix(),
            // Without it the credentials' states count as those of another installation: what they owe is dropped.
            StateError::Broken { file: StateFile::Host, path, .. } => format!(
                "put {} back from a backup; only where there is none, move it aside: this host gets a new host id then, the \
                 reports that it still owes are dropped and named, and the next `{}` adopts what is in use",
                path.display(),
                relaykey("sync")
            ),
            // What a version of a file source is called comes out of it.
            StateError::Broken { file: StateFile::Key, path, .. } => format!(
                "put {0} back from a backup; or move it aside, and a new one is made: mv {0} {1}; what a `file` source gives then \
                 counts as another version, also where it is the same, and is confirmed once more",
                trust::quoted(path),
                trust::quoted(&path.with_extension("broken"))
            ),
            StateError::Broken { file: StateFile::Credential, path, .. } => {
                let (dir, name) = (path.parent().and_then(Path::parent), path.file_stem().unwrap_or_default());
                let dir = dir.unwrap_or(Path::new("."));
                let place = |path: PathBuf| trust::quoted(&path);
                format!(
                    "put the file back from a backup; or move it aside, and the credential's audit log with it, which only that file \
                     vouches for and which begins anew: mkdir -m 0700 {0} && mv {1} {2}.*.jsonl {0}/; the next `{3}` adopts what is \
                     in use",
                    place(dir.join(format!("{}.broken", name.display()))),
                    place(path.clone()),
                    place(dir.join("audit").join(name)),
                    relaykey("sync")
                )
            }
            StateError::Newer { .. } => "upgrade relaykey".into(),
            StateError::Io { .. } => "run as root, or see the path named".into(),
            StateError::Full { .. } => format!(
                "let that receiver take what it is owed (`{}` says why it does not), or remove its [[report]]: what it was owed is \
                 dropped then, and named",
                relaykey("status")
            ),
        }
    }
}

/// Who this host is, in reports.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostIdentity {
    pub schema: u32,
    /// Random per installation: 32 hex digits.
    pub host_id: String,
    /// The configured name, else the fully qualified host name at first start.
    pub name: String,
    /// Keyed hash of the machine id that the host id was made on, so that a clone can be told.
    pub machine: Option<String>,
    /// The same of the cloud instance's id, because images are made with the machine id in them.
    #[serde(default)]
    pub instance: Option<String>,
    /// The installation that this one is a copy of.
    #[serde(default)]
    pub clone_of: Option<CloneOf>,
    /// The host id is not kept: the next process makes another one.
    #[serde(skip)]
    pub is_passing: bool,
}

/// What tells one machine from another, as far as it is known.
struct Machine {
    machine_id: Option<String>,
    instance_id: Option<String>,
}

impl Machine {
    fn here() -> Self {
        Self::of(|path| std::fs::read_to_string(path).ok())
    }

    /// `read` gives the content of a file.
    fn of(read: impl Fn(&str) -> Option<String>) -> Self {
        let text = |path| Some(read(path)?.trim().to_owned());
        // machine-id(5): "uninitialized" stands there, or nothing, until the first boot has made one.
        let machine_id = text("/etc/machine-id").filter(|id| !id.is_empty() && id != "uninitialized");
        // The id of an EC2 instance of the Nitro system (EC2 user guide, "Detect whether a host is an EC2 instance"); else
        // what cloud-init knows. Not the UUID of a Xen hypervisor: nobody says that it outlives a stop and a start.
        let of_nitro = text("/sys/devices/virtual/dmi/id/board_asset_tag").filter(|id| is_ec2_instance(id));
        let of_cloud_init = || text("/var/lib/cloud/data/instance-id").filter(|id| is_ec2_instance(id) || is_uuid(id));
        let instance_id = of_nitro.or_else(of_cloud_init).map(|id| id.to_ascii_lowercase());
        Self { machine_id, instance_id }
    }
}

/// `i-` and 8 or 17 hex digits (EC2 user guide, "Resource IDs").
fn is_ec2_instance(id: &str) -> bool {
    let digits = id.strip_prefix("i-").unwrap_or_default();
    matches!(digits.len(), 8 | 17) && digits.bytes().all(|b| b.is_ascii_hexdigit())
}

/// As OpenStack and Azure name instances. Fixed words, such as `nocloud` and `iid-datasource-none`, name none.
fn is_uuid(id: &str) -> bool {
    let parts: Vec<&str> = id.split('-').collect();
    let lengths: Vec<usize> = parts.iter().map(|part| part.len()).collect();
    lengths == [8, 4, 4, 4, 12] && parts.concat().bytes().all(|b| b.is_ascii_hexdigit())
}

/// A state file may grow by so much in a run.
const ROOM: u64 = 64 * 1024;

/// The state directory. With [`Access::Write`] it is made where missing and locked against other programs.
pub struct Store {
    dir: PathBuf,
    access: Access,
    /// Of a writing store: the lock, and which directory it is on.
    held: Mutex<Option<HeldLock>>,
    /// Of a writing store: the lock on its name, which stays where the directory goes.
    _name: Option<host::Lock>,
    /// What is on disk: the same is not written again, and all of it is when the directory was removed under us.
    saved: Mutex<Saved>,
}

struct HeldLock {
    _lock: host::Lock,
    /// Device and inode.
    id: (u64, u64),
}

#[derive(Default)]
struct Saved {
    /// By credential.
    states: BTreeMap<String, State>,
    key: Option<Zeroizing<[u8; 32]>>,
    identity: Option<HostIdentity>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Changes nothing on disk, so that `check`, `status` and `--dry-run` may run beside anything.
    Read,
    Write,
}

impl Store {
    /// `wait`: how long to wait for another relaykey that holds the directory, before an error that names it.
    pub fn open(dir: &Path, access: Access, wait: Duration) -> Result<Self, StateError> {
        let (held, name) = match access {
            Access::Read => (None, None),
            Access::Write => {
                // First: nothing is made beside one that decides already.
                let name = host::lock_name(dir, wait)?;
                let held = hold(dir, wait)?;
                // The directory above may have been missing.
                let name = if name.is_some() { name } else { host::lock_name(dir, wait)? };
                (Some(held), name)
            }
        };
        Ok(Self { dir: dir.to_owned(), access, held: Mutex::new(held), _name: name, saved: Mutex::default() })
    }

    /// A state directory that was removed, or emptied, or exchanged, while we hold it: makes it anew, takes its lock, and writes down again
    /// what is known to have been in it: the states with what they owe, who this host is, its key. Says what happened, where
    /// something did. (Its audit log begins anew, and says so; the mail server's side makes its own files.)
    ///
    /// # Errors
    /// Another relaykey was quicker, or it cannot be written: nothing is to be decided on it meanwhile.
    pub fn restore(&self) -> Result<Option<String>, StateError> {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(before) = held.as_ref() else { return Ok(None) };
        let ours = identify(&self.dir).is_some_and(|id| id == before.id);
        let saved = self.saved();
        let absent = |path: &Path| std::fs::symlink_metadata(path).is_err_and(|e| e.kind() == io::ErrorKind::NotFound);
        if ours && !saved.states.keys().any(|name| absent(&self.path(name))) {
            return Ok(None);
        }
        if ours {
            host::create_dir(&self.dir.join("credentials"), 0o700)?;
        } else {
            *held = Some(hold(&self.dir, Duration::ZERO)?);
        }
        // What another one has written in a directory of its own stays.
        let key = self.dir.join("key");
        if let Some(bytes) = saved.key.as_ref().filter(|_| absent(&key)) {
            host::replace(&key, &bytes[..], 0o600)?;
        }
        let host = self.dir.join("host.json");
        if let Some(identity) = saved.identity.as_ref().filter(|_| absent(&host)) {
            host::replace(&host, &json(identity), 0o600)?;
        }
        let mut names = Vec::new();
        for (name, state) in &saved.states {
            if absent(&self.path(name)) {
                host::replace(&self.path(name), &self.bounded(state)?, 0o600)?;
                names.push(name.as_str());
            }
        }
        let path = self.dir.display();
        Ok(Some(format!(
            "{path}, or what was in it, was removed while relaykey ran; it was made anew, with the state of {} as this process knew it",
            if names.is_empty() { "no credential".to_owned() } else { names.join(", ") }
        )))
    }

    /// The state of one credential; `None` where there is none yet.
    pub fn load(&self, credential: &str) -> Result<Option<State>, StateError> {
        self.tidy(&self.path(credential))?;
        let state: Option<State> = self.read_json(StateFile::Credential, &self.path(credential), State::SCHEMA)?;
        if let Some(state) = &state {
            self.saved().states.insert(credential.to_owned(), state.clone());
        }
        // What goes is gone from the file too with the next change.
        Ok(state.map(State::without_secret_names))
    }

    /// Makes a state durable, by one rename; does nothing where it says what is on disk already.
    pub fn save(&self, state: &State) -> Result<(), StateError> {
        if !self.differs(state) {
            return Ok(());
        }
        host::replace(&self.path(&state.credential), &self.bounded(state)?, 0o600)?;
        self.saved().states.insert(state.credential.clone(), state.clone());
        Ok(())
    }

    /// A state as it is written: no larger than it may be read. Where it would be, it is written without indentation, then
    /// without signs of life that a later one follows: nothing is confirmed by them. What is owed besides is never dropped.
    fn bounded(&self, state: &State) -> Result<Vec<u8>, StateError> {
        bounded_to(MAX_WRITTEN, &self.path(&state.credential), state)
    }

    /// Would [`Self::save`] write?
    pub fn differs(&self, state: &State) -> bool {
        self.access == Access::Write && self.saved().states.get(&state.credential) != Some(state)
    }

    /// The state directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Could a run write down what it does: are the directories that are there already writable, and is there room? Makes
    /// nothing.
    ///
    /// # Errors
    /// What a run would end with before it changed anything.
    pub fn look_writable(&self) -> Result<(), StateError> {
        for dir in [self.dir.clone(), self.dir.join("credentials"), self.dir.join("apply")] {
            let Ok(entries) = std::fs::read_dir(&dir) else { continue };
            // Each file is written anew beside the old one.
            let sizes = entries.filter_map(|entry| Some(entry.ok()?.metadata().ok().filter(|m| m.is_file())?.len()));
            let room = sizes.max().unwrap_or_default().saturating_add(ROOM);
            host::Directory::open(&dir)?.look_room(room)?;
        }
        Ok(())
    }

    /// Does it write?
    pub fn access(&self) -> Access {
        self.access
    }

    fn saved(&self) -> MutexGuard<'_, Saved> {
        self.saved.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The key for versions of `file` sources. Made at first use; a reading store without one gets a passing one.
    pub fn key(&self) -> Result<LocalKey, StateError> {
        let path = self.dir.join("key");
        if let Some(bytes) = self.read(&path)? {
            let key: [u8; 32] = bytes.as_slice().try_into().map_err(|_| StateError::Broken {
                file: StateFile::Key,
                path: path.clone(),
                line: 1,
                what: format!("{} bytes instead of 32", bytes.len()),
            })?;
            self.saved().key = Some(Zeroizing::new(key));
            return Ok(LocalKey::new(key));
        }
        let key: [u8; 32] = random(&path)?;
        if self.access == Access::Write {
            host::replace(&path, &key, 0o600)?;
            self.saved().key = Some(Zeroizing::new(key));
            return Ok(LocalKey::new(key));
        }
        Ok(LocalKey::passing(key))
    }

    /// Who this host is. `configured` wins over the name that was kept; without either `fallback` is kept.
    ///
    /// Where what was kept was made on another machine, this is a copy: it gets a host id and a name of its own, and
    /// keeps of what it is a copy. States of credentials say themselves who wrote them, so that this one rename is enough.
    pub fn identity(
        &self,
        configured: Option<&str>,
        fallback: impl FnOnce() -> String,
    ) -> Result<HostIdentity, StateError> {
        self.identity_on(&Machine::here(), configured, fallback, Timestamp::now())
    }

    fn identity_on(
        &self,
        here: &Machine,
        configured: Option<&str>,
        fallback: impl FnOnce() -> String,
        now: Timestamp,
    ) -> Result<HostIdentity, StateError> {
        let path = self.dir.join("host.json");
        self.tidy(&path)?;
        let kept: Option<HostIdentity> = self.read_json(StateFile::Host, &path, 1)?;
        // Hashes under a key that is gone tell nothing.
        let comparable = self.read(&self.dir.join("key"))?.is_some();
        let key = self.key()?;
        let hash = |id: &String| key.content_version(format!("{id}\n").as_bytes());
        let (machine, instance) = (here.machine_id.as_ref().map(hash), here.instance_id.as_ref().map(hash));
        let another = |was: &Option<String>, is: &Option<String>| was.is_some() && is.is_some() && was != is;
        let fresh = || random::<16>(&path).map(|bytes| bytes.iter().map(|b| format!("{b:02x}")).collect());
        let mut identity = match kept.clone() {
            None => HostIdentity {
                schema: 1,
                host_id: fresh()?,
                name: configured.map_or_else(fallback, str::to_owned),
                machine,
                instance,
                clone_of: None,
                is_passing: false,
            },
            Some(kept) if comparable && (another(&kept.machine, &machine) || another(&kept.instance, &instance)) => {
                HostIdentity {
                    schema: 1,
                    host_id: fresh()?,
                    name: configured.map_or_else(fallback, str::to_owned),
                    machine,
                    instance,
                    clone_of: Some(CloneOf { host_id: kept.host_id, at: now }),
                    is_passing: false,
                }
            }
            // What is not known at the moment is not another one.
            Some(kept) => HostIdentity {
                machine: machine.or(kept.machine.filter(|_| comparable)),
                instance: instance.or(kept.instance.filter(|_| comparable)),
                ..kept
            },
        };
        if let Some(name) = configured {
            name.clone_into(&mut identity.name);
        }
        let is_kept =
            self.access == Access::Write || kept.as_ref().is_some_and(|kept| kept.host_id == identity.host_id);
        identity.is_passing = !is_kept;
        if kept.as_ref() != Some(&identity) && self.access == Access::Write {
            host::replace(&path, &json(&identity), 0o600)?;
        }
        self.saved().identity = Some(identity.clone());
        Ok(identity)
    }

    /// A run that was killed while it wrote the file may have left half a successor.
    fn tidy(&self, path: &Path) -> Result<(), StateError> {
        match self.access {
            Access::Read => Ok(()),
            Access::Write => Ok(host::remove_successor(path)?),
        }
    }

    fn path(&self, credential: &str) -> PathBuf {
        self.dir.join("credentials").join(format!("{credential}.json"))
    }

    fn read(&self, path: &Path) -> Result<Option<Zeroizing<Vec<u8>>>, StateError> {
        match std::fs::symlink_metadata(path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(StateError::Io { path: path.to_owned(), source }),
            Ok(_) => Ok(Some(host::read_own(path, MAX_READ)?)),
        }
    }

    fn read_json<T: serde::de::DeserializeOwned>(
        &self,
        file: StateFile,
        path: &Path,
        known: u32,
    ) -> Result<Option<T>, StateError> {
        let Some(bytes) = self.read(path)? else { return Ok(None) };
        let broken = |e: serde_json::Error| {
            let (path, line) = (path.to_owned(), e.line());
            StateError::Broken { file, path, line, what: e.to_string() }
        };
        let value: serde_json::Value = serde_json::from_slice(&bytes).map_err(broken)?;
        match value.get("schema").and_then(serde_json::Value::as_u64) {
            Some(schema) if schema > u64::from(known) => {
                Err(StateError::Newer { path: path.to_owned(), schema, known })
            }
            _ => serde_json::from_slice(&bytes).map(Some).map_err(broken),
        }
    }
}

/// Makes the directory where it is missing, and locks it.
fn hold(dir: &Path, wait: Duration) -> Result<HeldLock, StateError> {
    loop {
        let directory = host::create_dir(dir, 0o700)?;
        host::create_dir(&dir.join("credentials"), 0o700)?;
        let before = directory.id().ok();
        let lock = directory.lock_own(wait)?;
        // It may have been removed in between, and another one made.
        if let Some(id) = identify(dir).filter(|id| Some(*id) == before) {
            return Ok(HeldLock { _lock: lock, id });
        }
    }
}

/// Which directory has this name, by device and inode.
fn identify(dir: &Path) -> Option<(u64, u64)> {
    std::fs::metadata(dir).ok().map(|m| (m.dev(), m.ino()))
}

fn json(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec_pretty(value).expect("what is written here has only text keys")
}

fn bounded_to(most: usize, path: &Path, state: &State) -> Result<Vec<u8>, StateError> {
    let mut text = json(state);
    text.push(b'\n');
    if text.len() <= most {
        return Ok(text);
    }
    let compact = |state: &State| serde_json::to_vec(state).expect("state has only text keys");
    text = compact(state);
    if text.len() <= most {
        return Ok(text);
    }
    let mut lighter = state.clone();
    for outbox in lighter.outbox.values_mut() {
        let last = outbox.owed.iter().rposition(|r| r.outcome == ReportOutcome::Alive);
        let mut n = 0;
        outbox.owed.retain(|r| {
            n += 1;
            r.outcome != ReportOutcome::Alive || Some(n - 1) == last
        });
    }
    text = compact(&lighter);
    if text.len() <= most {
        return Ok(text);
    }
    let most_owed = lighter.outbox.iter().max_by_key(|(_, outbox)| outbox.owed.len());
    let owed = match most_owed {
        Some((name, outbox)) => format!("{} reports are owed to receiver {name:?}", outbox.owed.len()),
        None => "nothing is owed".to_owned(),
    };
    Err(StateError::Full { path: path.to_owned(), size: text.len(), owed })
}

fn random<const N: usize>(path: &Path) -> Result<[u8; N], StateError> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes)
        .map_err(|e| StateError::Io { path: path.to_owned(), source: io::Error::other(e.to_string()) })?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Read as _;
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};

    use super::*;
    use crate::fault::{Class, Fault};

    /// A directory for a state directory, gone at the end.
    struct Place(tempfile::TempDir);

    impl Place {
        fn new() -> Self {
            Self(
                tempfile::Builder::new()
                    .prefix("relaykey-state-")
                    .permissions(fs::Permissions::from_mode(0o700))
                    .tempdir()
                    .unwrap(),
            )
        }

        fn open(&self, access: Access) -> Store {
            Store::open(&self.0.path().join("state"), access, Duration::ZERO).unwrap()
        }

        fn file(&self) -> PathBuf {
            self.0.path().join("state/credentials/ses.json")
        }
    }

    /// A report with nothing in it but its number and outcome.
    fn report(seq: u64, outcome: &str) -> crate::rollover::Report {
        serde_json::from_value(serde_json::json!({
            "schema": "relaykey/report/v1", "id": format!("id-{seq}"), "seq": seq, "host_id": "0123", "host": "mx1",
            "credential": "ses", "source": "file:/x", "version": "1", "username": "AKIA", "previous_username": null,
            "at": "2026-11-20T22:00:00Z", "mode": "automatic", "agent": "relaykey", "outcome": outcome, "targets": [],
            "error": null, "approved_by": null
        }))
        .unwrap()
    }

    fn owing(outcomes: &[&str]) -> State {
        let owed = (1..).zip(outcomes).map(|(seq, outcome)| report(seq, outcome)).collect();
        let outbox = crate::rollover::Outbox { owed, ..Default::default() };
        State { outbox: BTreeMap::from([("fleet".to_owned(), outbox)]), ..state(9) }
    }

    /// What nobody has named nobody can name another one of.
    #[test]
    fn what_is_no_file_in_the_state_directory_is_moved_aside() {
        let error = StateError::from(HostError::NotRegular { path: "/s/credentials/ses.json".into(), what: "a pipe" });
        assert!(error.fix().ends_with("mv /s/credentials/ses.json /s/credentials/ses.odd"), "{}", error.fix());
        let source = io::Error::from_raw_os_error(rustix::io::Errno::MFILE.raw_os_error());
        let full = HostError::Io { doing: "open", path: "/s".into(), source };
        assert!(StateError::from(full).fix().contains("ulimit -n"));
    }

    #[test]
    fn a_broken_host_json_is_not_to_be_moved_aside_before_a_backup_was_looked_for() {
        let fix = |file, path: &str| StateError::Broken { file, path: path.into(), line: 1, what: "x".into() }.fix();
        let said = fix(StateFile::Host, "/var/lib/relaykey/host.json");
        assert!(said.starts_with("put /var/lib/relaykey/host.json back from a backup"), "{said}");
        assert!(said.contains("new host id") && said.contains("dropped"), "{said}");
        assert!(fix(StateFile::Credential, "/var/lib/relaykey/credentials/ses.json").contains(
            ": mkdir -m 0700 /var/lib/relaykey/ses.broken && mv /var/lib/relaykey/credentials/ses.json /var/lib/relaykey/audit/ses.*.jsonl \
             /var/lib/relaykey/ses.broken/;"
        ));
        let said = fix(StateFile::Key, "/var/lib/relaykey/key");
        assert!(
            said.contains(": mv /var/lib/relaykey/key /var/lib/relaykey/key.broken;") && !said.contains("audit"),
            "{said}"
        );
    }

    #[test]
    fn what_is_written_can_be_read() {
        const { assert!(MAX_WRITTEN <= MAX_READ) };
        let state = owing(&["confirmed", "alive", "failed", "alive", "alive"]);
        let path = Path::new("ses.json");
        let written = |most: usize| {
            bounded_to(most, path, &state).map(|text| {
                assert!(text.len() <= most);
                serde_json::from_slice::<State>(&text).unwrap()
            })
        };
        let pretty = json(&state).len() + 1;
        let compact = serde_json::to_vec(&state).unwrap().len();
        assert_eq!(written(pretty).unwrap(), state);
        assert_eq!(written(pretty - 1).unwrap(), state, "without indentation");
        let lighter = written(compact - 1).unwrap();
        let outcomes: Vec<_> = lighter.outbox["fleet"].owed.iter().map(|r| (r.seq, r.outcome.word())).collect();
        assert_eq!(outcomes, [(1, "confirmed"), (3, "failed"), (5, "alive")], "a later sign of life says the same");
        assert_eq!(State { outbox: state.outbox.clone(), ..lighter }, state, "nothing else is dropped");
        let e = written(1000).unwrap_err();
        assert!(!e.is_temporary() && e.to_string().contains("3 reports are owed to receiver \"fleet\""), "{e}");
        assert!(e.fix().contains("[[report]]"));
    }

    #[test]
    fn a_state_file_of_another_release_keeps_its_words() {
        let scratch = Place::new();
        let store = scratch.open(Access::Write);
        let at = Timestamp::UNIX_EPOCH;
        let mut of_ours = state(1);
        of_ours.put_back.failure = Some(Fault::new(Class::NothingToDo, "what", "fix").at(at));
        store.save(&of_ours).unwrap();
        let path = scratch.file();
        let written = fs::read_to_string(&path).unwrap();
        let of_another = written.replace("\"nothing-to-do\"", "\"of-tomorrow\"");
        assert_ne!(of_another, written, "{written}");
        fs::write(&path, &of_another).unwrap();
        let read = store.load("ses").unwrap().expect("a state");
        store.save(&read).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), of_another);
    }

    #[test]
    fn a_directory_that_is_removed_under_us_is_made_anew() {
        let scratch = Place::new();
        let dir = scratch.0.path().join("state");
        let store = scratch.open(Access::Write);
        let identity = store.identity(None, || "mx1.example.com".into()).unwrap();
        let version = store.key().unwrap().content_version(b"content");
        let owing = owing(&["confirmed"]);
        store.save(&owing).unwrap();
        assert_eq!(store.restore().unwrap(), None, "nothing happened");

        fs::remove_dir_all(&dir).unwrap();
        let said = store.restore().unwrap().expect("it says so");
        assert!(said.contains("state of ses") && said.contains(dir.to_str().unwrap()), "{said}");
        assert_eq!(store.restore().unwrap(), None, "once");
        assert_eq!(store.load("ses").unwrap(), Some(owing.clone()), "what is owed is not lost");
        assert_eq!(store.identity(None, || panic!("it is kept")).unwrap(), identity);
        assert_eq!(store.key().unwrap().content_version(b"content"), version);
        for path in [dir.clone(), dir.join("credentials")] {
            assert_eq!(fs::metadata(path).unwrap().mode() & 0o7777, 0o700);
        }
        fs::remove_dir_all(dir.join("credentials")).unwrap();
        assert!(store.restore().unwrap().is_some(), "emptied");
        assert_eq!(store.load("ses").unwrap(), Some(owing));
        // Also where the lock on its name is in nobody's way.
        let second = hold(&dir, Duration::ZERO).map(drop).unwrap_err();
        assert!(second.is_locked(), "two programs hold the state directory: {second}");
    }

    #[test]
    fn a_directory_that_another_program_has_by_now_is_its_own() {
        let scratch = Place::new();
        let dir = scratch.0.path().join("state");
        let store = scratch.open(Access::Write);
        store.save(&owing(&["confirmed"])).unwrap();
        fs::rename(&dir, scratch.0.path().join("away")).unwrap();
        if rustix::process::geteuid().is_root() {
            let other = Store::open(&dir, Access::Write, Duration::ZERO).map(drop).unwrap_err();
            assert!(other.is_locked() && other.to_string().contains(dir.to_str().unwrap()), "two decide: {other}");
            assert!(!dir.exists(), "nothing is made beside the one that decides");
        }
        // One that has no place for the lock on the name.
        let held = Mutex::new(Some(hold(&dir, Duration::ZERO).unwrap()));
        let other = Store { dir: dir.clone(), access: Access::Write, held, _name: None, saved: Mutex::default() };
        other.save(&state(77)).unwrap();
        assert!(store.restore().unwrap_err().is_locked(), "it is the other's now");
        drop(other);
        assert!(store.restore().unwrap().is_some());
        assert_eq!(store.load("ses").unwrap(), Some(state(77)), "what the other wrote stays");
    }

    fn state(seq: u64) -> State {
        State { seq, ..State::new("ses") }
    }

    #[test]
    fn a_state_is_replaced_whole_and_only_when_it_differs() {
        let scratch = Place::new();
        let store = scratch.open(Access::Write);
        assert_eq!(store.load("ses").unwrap(), None);
        store.save(&state(1)).unwrap();
        let before = fs::metadata(scratch.file()).unwrap();
        let mut reader = fs::File::open(scratch.file()).unwrap();

        store.save(&state(1)).unwrap();
        assert_eq!(fs::metadata(scratch.file()).unwrap().ino(), before.ino(), "the same is not written again");
        store.save(&state(2)).unwrap();
        assert_ne!(fs::metadata(scratch.file()).unwrap().ino(), before.ino(), "another file, by rename");
        // Whoever had the old one open, as a crash has, still finds all of it.
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        assert_eq!(serde_json::from_str::<State>(&text).unwrap(), state(1));
        assert_eq!(scratch.open(Access::Read).load("ses").unwrap(), Some(state(2)));
        assert_eq!(
            fs::read_dir(scratch.0.path().join("state/credentials")).unwrap().count(),
            1,
            "nothing is left beside it"
        );
        assert_eq!(fs::metadata(scratch.file()).unwrap().mode() & 0o7777, 0o600);
    }

    #[test]
    fn a_secret_that_stands_there_as_a_user_name_is_not_given_again_and_goes_with_the_next_change() {
        use crate::credential::NOT_SHOWN;
        use crate::rollover::{InUse, TargetState};
        use serde_json::json;

        let scratch = Place::new();
        let store = scratch.open(Access::Write);
        let secret = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY";
        let report = |username: &str| {
            json!({
                "schema": "relaykey/report/v1", "id": "i", "seq": 1, "host_id": "h", "host": "mx1", "credential": "ses",
                "source": "file:/x", "version": "1", "username": username, "previous_username": username, "at": "2026-01-01T00:00:00Z",
                "mode": "auto", "agent": "relaykey/0.1.0", "outcome": "alive", "targets": [], "error": null,
                "in_use": [username, "AKIA1"], "approved_by": null,
            })
        };
        let older = |secret: &str| -> State {
            let mut text = serde_json::to_value(state(1)).unwrap();
            text["report"] = report(secret);
            text["report"]["latest"] = report(secret);
            text["told"] = report(secret);
            let at = "2026-01-01T00:00:00Z";
            text["applied"] = json!({"version": "1", "username": "mx1", "previous_username": secret, "order": null, "outcome": "adopted", "since": at});
            text["targets"]["a"] = serde_json::to_value(TargetState {
                in_use: Some(InUse {
                    at: at.parse().unwrap(),
                    usernames: ["mx1", "AKIA1", "any-password", secret].map(str::to_owned).into(),
                    live_id: None,
                }),
                ..TargetState::default()
            })
            .unwrap();
            serde_json::from_value(text).unwrap()
        };
        store.save(&older(secret)).unwrap();

        let read = scratch.open(Access::Read).load("ses").unwrap().unwrap();
        let text = serde_json::to_string(&read).unwrap();
        assert!(!text.contains("wJalr") && !text.contains("any-password"), "{text}");
        assert_eq!(read.targets["a"].in_use.as_ref().unwrap().usernames, ["mx1", "AKIA1", NOT_SHOWN]);
        assert_eq!(read.report.as_ref().unwrap().in_use, Some(vec![NOT_SHOWN.to_owned(), "AKIA1".to_owned()]));
        drop(store);
        let again = scratch.open(Access::Write);
        again.save(&again.load("ses").unwrap().unwrap()).unwrap();
        assert!(!fs::read_to_string(scratch.file()).unwrap().contains("wJalr"));
    }

    #[test]
    fn one_that_only_reads_changes_nothing() {
        let scratch = Place::new();
        let store = scratch.open(Access::Read);
        store.save(&state(1)).unwrap();
        let identity = store.identity(None, || "mx1.example.com".into()).unwrap();
        assert_eq!((identity.name.as_str(), identity.host_id.len()), ("mx1.example.com", 32));
        store.key().unwrap();
        assert_eq!(fs::read_dir(scratch.0.path()).unwrap().count(), 0);
    }

    #[test]
    fn who_the_host_is_and_its_key_are_kept() {
        let scratch = Place::new();
        let store = scratch.open(Access::Write);
        let first = store.identity(None, || "mx1.example.com".into()).unwrap();
        let again = store.identity(None, || panic!("it is kept")).unwrap();
        assert_eq!(again, first);
        let named = store.identity(Some("mx2.example.com"), || panic!("it is configured")).unwrap();
        assert_eq!((named.host_id, named.name.as_str()), (first.host_id, "mx2.example.com"));
        let version = |store: &Store| store.key().unwrap().content_version(b"content");
        assert_eq!(version(&store), version(&scratch.open(Access::Read)));
    }

    fn machine(machine_id: Option<&str>, instance_id: Option<&str>) -> Machine {
        Machine { machine_id: machine_id.map(str::to_owned), instance_id: instance_id.map(str::to_owned) }
    }

    const NOW: Timestamp = Timestamp::UNIX_EPOCH;

    #[test]
    fn another_machine_or_instance_makes_a_copy_an_installation_of_its_own() {
        let (a, b) = (Some("3d1219c7c4c5404aaa1f6d2a48adfda4"), Some("ffff19c7c4c5404aaa1f6d2a48adfda4"));
        let (one, two) = (Some("i-0af01c0123456789a"), Some("i-0bf01c0123456789b"));
        // Machine and instance before and now; is it a copy?
        for (before, now, copied) in [
            ((a, None), (a, None), false),
            ((a, None), (b, None), true),
            ((None, None), (a, one), false),
            ((a, one), (None, None), false),
            ((a, None), (a, one), false),
            ((a, one), (a, None), false),
            // An image with the machine id in it.
            ((a, one), (a, two), true),
            ((a, one), (b, None), true),
            ((None, one), (b, two), true),
            ((None, one), (b, one), false),
        ] {
            let scratch = Place::new();
            let store = scratch.open(Access::Write);
            let (was, is) = (machine(before.0, before.1), machine(now.0, now.1));
            let first = store.identity_on(&was, None, || "mx1".into(), NOW).unwrap();
            let second = store.identity_on(&is, None, || "mx2".into(), NOW).unwrap();
            if copied {
                assert_ne!(second.host_id, first.host_id, "{before:?} {now:?}");
                assert_eq!(second.clone_of, Some(CloneOf { host_id: first.host_id.clone(), at: NOW }));
                assert_eq!(second.name, "mx2", "the name was the other machine's");
            } else {
                assert_eq!(
                    (&second.host_id, &second.name, second.clone_of.is_none()),
                    (&first.host_id, &first.name, true)
                );
            }
            // What is known now counts from now on, and what is not known any more is still known.
            let third = store.identity_on(&machine(None, None), None, || panic!("it is kept"), NOW).unwrap();
            assert_eq!(third, second, "{before:?} {now:?}");
            let back = store.identity_on(&was, None, || "mx1".into(), NOW).unwrap();
            assert_eq!(back.host_id == second.host_id, !copied, "{before:?} {now:?}");
        }
    }

    #[test]
    fn a_copy_is_noticed_by_one_that_only_reads_and_nothing_is_kept() {
        let scratch = Place::new();
        let first =
            scratch.open(Access::Write).identity_on(&machine(Some("a"), None), None, || "mx1".into(), NOW).unwrap();
        let reads = scratch.open(Access::Read);
        for _ in 0..2 {
            let seen = reads.identity_on(&machine(Some("b"), None), Some("mx9"), || panic!("configured"), NOW).unwrap();
            assert_eq!((seen.clone_of.map(|c| c.host_id), seen.name.as_str()), (Some(first.host_id.clone()), "mx9"));
        }
        let same = reads.identity_on(&machine(Some("a"), None), None, || panic!("it is kept"), NOW).unwrap();
        assert_eq!(same, first);
    }

    #[test]
    fn without_its_key_a_host_is_not_taken_for_a_copy() {
        let scratch = Place::new();
        let store = scratch.open(Access::Write);
        let here = machine(Some("a"), Some("i-12345678"));
        let first = store.identity_on(&here, None, || "mx1".into(), NOW).unwrap();
        fs::remove_file(scratch.0.path().join("state/key")).unwrap();
        let second = store.identity_on(&machine(None, None), None, || panic!("it is kept"), NOW).unwrap();
        assert_eq!((&second.host_id, second.machine, second.instance), (&first.host_id, None, None));
        let third = store.identity_on(&here, None, || panic!("it is kept"), NOW).unwrap();
        assert!(third.host_id == first.host_id && third.machine.is_some() && third.clone_of.is_none());
    }

    #[test]
    fn a_host_json_from_before_clones_were_told_is_no_copy() {
        let scratch = Place::new();
        let store = scratch.open(Access::Write);
        let machine_id = "3d1219c7c4c5404aaa1f6d2a48adfda4";
        let hash = store.key().unwrap().content_version(format!("{machine_id}\n").as_bytes());
        let text = format!(r#"{{"schema": 1, "host_id": "0123", "name": "mx1", "machine": "{hash}"}}"#);
        host::replace(&scratch.0.path().join("state/host.json"), text.as_bytes(), 0o600).unwrap();
        let here = machine(Some(machine_id), Some("i-12345678"));
        let identity = store.identity_on(&here, None, || panic!("it is kept"), NOW).unwrap();
        assert_eq!((identity.host_id.as_str(), identity.clone_of), ("0123", None));
        assert!(identity.instance.is_some(), "filled in");
    }

    #[test]
    fn machines_are_told_apart_by_ids_that_are_some() {
        let of = |files: &[(&str, &str)]| {
            let read = |path: &str| files.iter().find(|(p, _)| *p == path).map(|(_, text)| (*text).to_owned());
            let machine = Machine::of(read);
            (machine.machine_id, machine.instance_id)
        };
        const ID: &str = "/etc/machine-id";
        const TAG: &str = "/sys/devices/virtual/dmi/id/board_asset_tag";
        const CLOUD: &str = "/var/lib/cloud/data/instance-id";
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(of(&[]), (None, None));
        assert_eq!(of(&[(ID, "3d12\n")]), (some("3d12"), None));
        for none in ["", "\n", "uninitialized\n"] {
            assert_eq!(of(&[(ID, none)]), (None, None), "{none:?}");
        }
        let (nitro, uuid) = ("i-0af01c0123456789a", "54a14473-5850-48f8-a777-1951d3edfedb");
        assert_eq!(of(&[(TAG, "i-0af01c0123456789a\n"), (CLOUD, uuid)]).1, some(nitro));
        assert_eq!(of(&[(TAG, "Asset-1234567890"), (CLOUD, "i-12345678\n")]).1, some("i-12345678"));
        assert_eq!(of(&[(CLOUD, &uuid.to_uppercase())]).1, some(uuid));
        for none in
            ["nocloud", "iid-datasource-none", "i-", "i-0af01c0123456789", "i-0af01c012345678zz", "1234-5678", ""]
        {
            assert_eq!(of(&[(TAG, none), (CLOUD, none)]).1, None, "{none:?}");
        }
    }

    #[test]
    fn what_cannot_be_read_stops_the_program_and_is_named() {
        let scratch = Place::new();
        let store = scratch.open(Access::Write);
        for (text, expected) in [
            ("", "ses.json:1: "),
            ("{\n\"schema\": 1,\n", "ses.json:3: "),
            ("{\"schema\": 1}", "missing field"),
            ("{\"schema\": 2}", "written by a newer relaykey (schema 2); this one reads schema 1"),
        ] {
            fs::write(scratch.file(), text).unwrap();
            let error = store.load("ses").unwrap_err();
            assert!(error.to_string().contains(expected), "{error}");
            assert!(!error.is_temporary() && !error.fix().is_empty());
            assert_eq!(fs::read_to_string(scratch.file()).unwrap(), text);
        }
    }

    #[test]
    fn only_one_program_decides_at_a_time() {
        let scratch = Place::new();
        let _held = scratch.open(Access::Write);
        let Err(error) = Store::open(&scratch.0.path().join("state"), Access::Write, Duration::from_millis(50)) else {
            panic!("two programs hold the state directory")
        };
        assert!(
            error.is_temporary() && error.to_string().contains(&format!("process {}", std::process::id())),
            "{error}"
        );
        scratch.open(Access::Read);
    }
}
