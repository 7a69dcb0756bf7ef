//! The server: its targets, and who may ask what of them, one request about a target at a time.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError, mpsc};
use std::time::{Duration, Instant};

use super::journal::LiveIdKey;
use super::{
    ApplyProcess, LOCK_WAIT, MayChange, Reply, Request, Setup, Shared, Target, TargetId, TargetKind, TargetSetup,
    change, out_of_order,
};
use crate::fault::{Class, Fault};
use crate::host::{Directory, HostError};
use crate::mta::postfix::{Postfix, TargetDirectories};
use crate::mta::text::Text;
use crate::mta::{Mta, Relay};

/// How often a target that is at work is tried.
const BUSY_AGAIN: Duration = Duration::from_millis(20);

/// How long the first look of a server waits for what killed runs of targets that are no longer configured left: their
/// directories may be on a file system that hangs.
const ORPHANS_WAIT: Duration = Duration::from_secs(2);

/// The mail server's side: does what requests say, those about one target one at a time.
pub struct Server {
    shared: Arc<Shared>,
    targets: BTreeMap<TargetId, Mutex<Target>>,
}

impl Server {
    /// Makes its targets from the configuration. Touches nothing: what is wrong with a target is said when it is asked
    /// about.
    pub fn new(setup: &Setup) -> Self {
        Self::in_process(&ApplyProcess::new(&setup.state_dir), setup)
    }

    /// As [`Server::new`], beside other servers of the same process.
    pub fn in_process(process: &ApplyProcess, setup: &Setup) -> Self {
        Self::with_access(process, setup, MayChange::Change, &|target| of_its_kind(setup, target))
    }

    /// As [`Server::new`], with mail servers of the caller's making.
    pub fn with_mtas(setup: &Setup, make: &dyn Fn(&TargetSetup) -> Box<dyn Mta>) -> Self {
        Self::with_access(&ApplyProcess::new(&setup.state_dir), setup, MayChange::Change, make)
    }

    /// As [`Server::looking`], with mail servers of the caller's making.
    pub fn looking_with_mtas(setup: &Setup, make: &dyn Fn(&TargetSetup) -> Box<dyn Mta>) -> Self {
        Self::with_access(&ApplyProcess::new(&setup.state_dir), setup, MayChange::Look, make)
    }

    /// As [`Server::new`], for `check` and `--dry-run`: answers `Inspect` and `Preview` and refuses everything else, and
    /// changes nothing on the side.
    pub fn looking(setup: &Setup) -> Self {
        let process = ApplyProcess::new(&setup.state_dir);
        Self::with_access(&process, setup, MayChange::Look, &|target| of_its_kind(setup, target))
    }

    fn with_access(
        process: &ApplyProcess,
        setup: &Setup,
        access: MayChange,
        make: &dyn Fn(&TargetSetup) -> Box<dyn Mta>,
    ) -> Self {
        process.targets().extend(setup.targets.iter().map(|target| target.id.clone()));
        let shared = Arc::new(Shared {
            access,
            swept: AtomicBool::new(false),
            store: Arc::clone(&process.store),
            key: Arc::clone(&process.key),
            directories: Arc::clone(&process.directories),
            configured: setup.targets.iter().map(|target| target.id.clone()).collect(),
            process: process.clone(),
        });
        let mut targets = BTreeMap::new();
        for target in &setup.targets {
            let mta = make(target);
            let TargetSetup { id, kind, relay, reload, write, .. } = target.clone();
            let regions = relay.endpoints().map(Relay::takes_password_of).collect();
            let shared = Arc::clone(&shared);
            let files = Vec::new();
            let target = Target {
                id: id.clone(),
                shared,
                kind,
                mta,
                regions,
                reload,
                write,
                files,
                seen: None,
                swept: false,
                ended: None,
                open: None,
            };
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
        if self.shared.access == MayChange::Look && !request.only_looks() {
            return Err(out_of_order("change anything", "this run only looks"));
        }
        match request {
            Request::Inspect { target, ours } => {
                self.sweep_orphans();
                self.target(&target)?.inspect(&ours).map(|seen| Reply::Inspected(Box::new(seen)))
            }
            Request::Prepare { target, ours, expect, logins, version } => {
                let mut target = self.target(&target)?;
                match target.left_to_a_person(&ours, &logins)? {
                    Some(change) => Ok(Reply::ByHand(change)),
                    None => target.prepare(ours, expect.as_deref(), logins, version).map(Reply::Prepared),
                }
            }
            Request::Preview { target, ours, logins } => {
                self.target(&target)?.preview(&ours, logins).map(Reply::Previewed)
            }
            Request::InOrder { target, ours, login } => {
                self.target(&target)?.in_order(&ours, &login).map(|()| Reply::Done)
            }
            Request::IsApplied { target, ours, login } => {
                self.target(&target)?.is_applied(&ours, &login).map(|()| Reply::Done)
            }
            Request::NameEarlier { target, id } => self.target(&target)?.name_earlier(id).map(|()| Reply::Done),
            Request::WhichStands { target, ours, logins } => {
                self.target(&target)?.which_stands(&ours, &logins).map(Reply::Stands)
            }
            Request::Discard { target } => self.target(&target)?.discard().map(|()| Reply::Done),
            Request::Swap { target } => self.target(&target)?.swap().map(|at_boot| Reply::Swapped { at_boot }),
            Request::Undo { target } => self.target(&target)?.undo().map(|()| Reply::Done),
            Request::Activate { target } => self.target(&target)?.activate().map(Reply::Activated),
            Request::ReadBack { target, prove, nonce } => {
                self.target(&target)?.read_back(prove.as_ref(), nonce).map(Box::new).map(Reply::ReadBack)
            }
            Request::Attest { target, ours, live_id, prove } => {
                self.target(&target)?.attest(&ours, &live_id, &prove).map(Box::new).map(Reply::ReadBack)
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

    pub(super) fn target(&self, id: &TargetId) -> Result<MutexGuard<'_, Target>, Fault> {
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
        if self.shared.access == MayChange::Look || self.shared.swept.swap(true, Ordering::SeqCst) {
            return;
        }
        let shared = Arc::clone(&self.shared);
        let (done, ended) = mpsc::channel();
        let sweep = move || {
            for (id, path) in shared.store.staged_in().unwrap_or_default() {
                // A directory that is gone holds nothing any more.
                let is_ours = shared.process.targets().contains(&id);
                if let (false, Ok(directory)) = (is_ours, Directory::open(&path)) {
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

/// The mail server that a target's kind names.
fn of_its_kind(setup: &Setup, target: &TargetSetup) -> Box<dyn Mta> {
    let TargetSetup { kind, relay, keys, unlisted_ok, reload, .. } = target;
    match kind {
        TargetKind::Postfix { config_dir } => {
            let directories = |all: bool| {
                let named = setup.targets.iter().filter(|t| all || t.id.credential == target.id.credential);
                let of = named.filter_map(|target| match &target.kind {
                    TargetKind::Postfix { config_dir } => Some(config_dir.clone()),
                    TargetKind::Text { .. } => None,
                });
                of.collect()
            };
            let targets = TargetDirectories {
                of_credential: directories(false),
                of_all: directories(true),
                beside_running: setup.beside_running,
            };
            let postfix = Postfix::new(config_dir, relay, keys.clone(), reload).vouched_for(unlisted_ok.clone());
            Box::new(postfix.of_credential(&target.id.credential).beside(targets))
        }
        TargetKind::Text { path } => Box::new(Text::new(path, relay)),
    }
}

impl Shared {
    /// Works with the key for live ids; made, but not written, where there is none.
    pub(super) fn with_key<T>(&self, work: impl FnOnce(&LiveIdKey) -> T) -> Result<T, Fault> {
        let mut key = self.key.lock().unwrap_or_else(PoisonError::into_inner);
        if key.is_none() {
            *key = Some(LiveIdKey::load(&self.store)?);
        }
        Ok(work(key.as_ref().expect("made above")))
    }

    /// Makes the key for live ids durable where it is not.
    pub(super) fn keep_key(&self) -> Result<(), Fault> {
        let mut key = self.with_key(LiveIdKey::clone)?;
        key.keep(&self.store)?;
        *self.key.lock().unwrap_or_else(PoisonError::into_inner) = Some(key);
        Ok(())
    }

    /// Removes what a killed run staged for a target in a directory. Another process that is at work there holds its
    /// lock.
    pub(super) fn sweep(&self, id: &TargetId, directory: &Directory) -> Result<(), HostError> {
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

#[cfg(test)]
mod tests {
    use std::ffi::OsString;
    use std::path::Path;

    use super::*;
    use crate::mta::Reload;

    fn setup(base: &Path, credential: &str) -> Setup {
        let relay = Relay {
            endpoint: "relay.example.com".into(),
            port: 587,
            region: None,
            endpoint_aliases: Vec::new(),
            also: Vec::new(),
        };
        let kind = TargetKind::Text { path: base.join("sasl_passwd") };
        let id = TargetId { credential: credential.into(), target: "main".into() };
        let (keys, unlisted_ok, reload) = (None, Vec::new(), Reload::Never);
        let target = TargetSetup { id, kind, relay, keys, unlisted_ok, reload, write: true };
        Setup { state_dir: base.join("state"), targets: vec![target], beside_running: false }
    }

    /// A target that the next configuration has no more may still be at work.
    #[test]
    fn what_a_target_of_the_configuration_before_has_staged_is_no_left_over() {
        let scratch = tempfile::Builder::new().prefix("relaykey-swept-").tempdir().unwrap();
        let base = scratch.path();
        let (setup_before, setup_next) = (setup(base, "a"), setup(base, "b"));
        let process = ApplyProcess::new(&setup_before.state_dir);
        let before = Server::in_process(&process, &setup_before);
        let id = &setup_before.targets[0].id;
        before.shared.store.will_stage_in(id, [base.to_owned()].iter()).unwrap();
        let mut name: OsString = change::prefix(id);
        name.push("1");
        let staged = base.join(name);
        std::fs::write(&staged, "").unwrap();
        Server::in_process(&process, &setup_next).sweep_orphans();
        assert!(staged.exists(), "it is in use");
        // Of another process it is one.
        Server::new(&setup_next).sweep_orphans();
        assert!(!staged.exists());
    }
}
