//! The directories of tables, as the targets of this process share them.
//!
//! Against other processes a directory is locked as long as any target of ours has a change open there; the targets of
//! this process share that lock, because those of one credential have their changes open at the same time. Between
//! themselves they take turns at the renames alone, which takes milliseconds and no child program. So:
//!
//! - No rename falls between a target's last look at the live files and its own rename, whoever makes it among us; what
//!   another one has renamed before is seen at that look, and planned anew.
//! - Text and map are looked at together, or the look is repeated: [`Directories::undisturbed`]. What was seen
//!   while one of us renamed is nothing to decide by.
//! - What waits for a target's child program, for its file system or for another process holds up nobody whose tables are in
//!   other directories. In the same directory a rename that hangs holds up renames, and looks: nothing is decided by what may be
//!   half of it.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use super::{ATTEMPTS, Locks};
use crate::fault::{Class, Fault};
use crate::host::{Directory, HostError, Lock, LockHolder};

/// Device and inode of a directory.
pub(super) type DirectoryId = (u64, u64);

/// How often a lock that another process holds is tried.
const AGAIN: Duration = Duration::from_millis(25);

/// All directories in which a target of this process ever had a change. The mutex is held for moments, never while
/// anything is waited for.
#[derive(Default)]
pub(super) struct Directories {
    entries: Mutex<BTreeMap<DirectoryId, DirectoryState>>,
    turn_ended: Condvar,
}

#[derive(Default)]
struct DirectoryState {
    /// The lock that open changes hold.
    held: Weak<HeldDirectory>,
    /// One of us renames at this moment.
    renaming: bool,
    /// When one of us last ended to.
    renamed: Option<Instant>,
}

/// A directory that is locked against other processes until the last target that holds it lets go.
pub(super) struct HeldDirectory {
    id: DirectoryId,
    path: PathBuf,
    _lock: Lock,
}

/// The right to rename in some directories. Ends when dropped.
pub(super) struct RenameTurn<'a> {
    registry: &'a Directories,
    ids: Vec<DirectoryId>,
}

impl RenameTurn<'_> {
    /// Has another target of this process renamed in one of the directories since then?
    pub(super) fn is_overtaken(&self, since: Instant) -> bool {
        let entries = self.registry.lock_entries();
        self.ids.iter().filter_map(|id| entries.get(id)?.renamed).any(|at| at >= since)
    }
}

impl Drop for RenameTurn<'_> {
    fn drop(&mut self) {
        let mut entries = self.registry.lock_entries();
        for id in &self.ids {
            let entry = entries.entry(*id).or_default();
            entry.renaming = false;
            entry.renamed = Some(Instant::now());
        }
        self.registry.turn_ended.notify_all();
    }
}

impl Directories {
    fn lock_entries(&self) -> MutexGuard<'_, BTreeMap<DirectoryId, DirectoryState>> {
        // Every change is a plain assignment: what a panic leaves is whole.
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Locks a directory against other processes, waiting for them at most `wait`; where a target of ours has it locked
    /// already, that lock is shared.
    pub(super) fn lock(&self, directory: &Directory, wait: Duration) -> Result<Arc<HeldDirectory>, HostError> {
        let id = directory.id()?;
        let deadline = Instant::now() + wait;
        loop {
            let shared =
                |entries: &mut BTreeMap<DirectoryId, DirectoryState>| entries.entry(id).or_default().held.upgrade();
            if let Some(held) = shared(&mut self.lock_entries()) {
                return Ok(held);
            }
            // Not while the entries are locked: the directory may be on a file system that hangs.
            match directory.lock(Duration::ZERO) {
                Ok(lock) => {
                    let held = Arc::new(HeldDirectory { id, path: directory.path().to_owned(), _lock: lock });
                    self.lock_entries().entry(id).or_default().held = Arc::downgrade(&held);
                    return Ok(held);
                }
                Err(HostError::Locked { .. }) if Instant::now() < deadline => {}
                Err(HostError::Locked { path, holder, .. }) => {
                    // Perhaps a target of ours that was quicker.
                    let mine = shared(&mut self.lock_entries());
                    return mine.ok_or(HostError::Locked { path, holder, waited: wait });
                }
                Err(e) => return Err(e),
            }
            std::thread::sleep(AGAIN.min(deadline.saturating_duration_since(Instant::now())));
        }
    }

    /// Waits, at most `wait`, until none of us renames in any of these directories, and keeps the others from it.
    pub(super) fn turn<'a>(
        &self,
        held: impl Iterator<Item = &'a Arc<HeldDirectory>>,
        wait: Duration,
    ) -> Result<RenameTurn<'_>, HostError> {
        let held: BTreeMap<DirectoryId, &PathBuf> = held.map(|held| (held.id, &held.path)).collect();
        let ids: Vec<DirectoryId> = held.keys().copied().collect();
        let mut entries = self.wait_quiet(self.lock_entries(), &ids, wait);
        if let Some(id) = ids.iter().find(|id| is_renaming(&entries, id)) {
            let holder = LockHolder::OwnTarget;
            return Err(HostError::Locked { path: held[id].clone(), holder, waited: wait });
        }
        for id in &ids {
            entries.entry(*id).or_default().renaming = true;
        }
        Ok(RenameTurn { registry: self, ids })
    }

    /// Has a target of this process its change open in one of these directories?
    pub(super) fn is_any_held(&self, ids: &[DirectoryId]) -> bool {
        let entries = self.lock_entries();
        ids.iter().filter_map(|id| entries.get(id)).any(|entry| entry.held.strong_count() > 0)
    }

    fn wait_quiet<'a>(
        &'a self,
        entries: MutexGuard<'a, BTreeMap<DirectoryId, DirectoryState>>,
        ids: &[DirectoryId],
        wait: Duration,
    ) -> MutexGuard<'a, BTreeMap<DirectoryId, DirectoryState>> {
        let busy = |entries: &mut BTreeMap<DirectoryId, DirectoryState>| ids.iter().any(|id| is_renaming(entries, id));
        self.turn_ended.wait_timeout_while(entries, wait, busy).unwrap_or_else(PoisonError::into_inner).0
    }

    /// Looks, and again where another target of this process renamed in one of the directories meanwhile: text and map may
    /// have been seen as they never belonged together. Also says when the look began.
    ///
    /// # Errors
    /// What the look comes to, an error also where others renamed meanwhile; [`Class::ChangedUnderneath`], temporary, where they did
    /// during every look, three at least, for `wait`: what was seen then is nothing to decide by, however often it was looked.
    pub(super) fn undisturbed<T>(
        &self,
        wait: Duration,
        directories: impl Fn(Option<&T>) -> Vec<DirectoryId>,
        look: impl Fn() -> Result<T, Fault>,
    ) -> Result<(T, Instant), Fault> {
        let began = Instant::now();
        for attempt in 1.. {
            let since = Instant::now();
            let seen = look();
            if self.quiet_since(&directories(seen.as_ref().ok()), since, wait) {
                return seen.map(|seen| (seen, since));
            }
            if attempt >= ATTEMPTS && began.elapsed() >= wait {
                seen?;
                return Err(Fault::new(
                    Class::ChangedUnderneath,
                    "other targets of this process replaced files beside the tables during every look, so that text and map were \
                     never seen together",
                    "nothing, if it passes: what is there then is looked at anew",
                )
                .temporary());
            }
        }
        unreachable!("the last attempt returns")
    }

    /// Waits, at most `wait`, until none of us renames in any of these directories. Did none since `since`?
    pub(super) fn quiet_since(&self, ids: &[DirectoryId], since: Instant, wait: Duration) -> bool {
        let entries = self.lock_entries();
        let disturbed = |entries: &BTreeMap<DirectoryId, DirectoryState>| {
            ids.iter().filter_map(|id| entries.get(id)).any(|e| e.renaming || e.renamed.is_some_and(|at| at >= since))
        };
        let was_disturbed = disturbed(&entries);
        let entries = self.wait_quiet(entries, ids, wait);
        !was_disturbed && !disturbed(&entries)
    }
}

fn is_renaming(entries: &BTreeMap<DirectoryId, DirectoryState>, id: &DirectoryId) -> bool {
    entries.get(id).is_some_and(|entry| entry.renaming)
}

impl HeldDirectory {
    pub(super) fn id(&self) -> DirectoryId {
        self.id
    }
}

/// The directories that a table's files are in: text and map may each be a symbolic link, and then both the directory of the
/// link and that of the file count, since what Postfix opens can be changed in either.
pub(super) fn directories(files: &[PathBuf]) -> Result<Vec<Directory>, HostError> {
    let mut directories: Vec<Directory> = Vec::new();
    for file in files {
        let beside = file.parent().map(Directory::open).transpose()?;
        for directory in std::iter::once(Directory::of(file)?.0).chain(beside) {
            if !directories.iter().any(|have| have.path() == directory.path()) {
                directories.push(directory);
            }
        }
    }
    Ok(directories)
}

/// The directories that a target has locked.
pub(super) fn ids(locks: &Locks) -> Vec<DirectoryId> {
    locks.values().map(|held| held.id()).collect()
}

/// The directories of files; none where they cannot be had.
pub(super) fn ids_around(files: &[PathBuf]) -> Vec<DirectoryId> {
    let directories = directories(files).unwrap_or_default();
    directories.iter().filter_map(|directory| directory.id().ok()).collect()
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    /// A look that others rename in, as long as `disturbed` says of its number.
    fn look_at(disturbed: impl Fn(u32) -> bool, wait: Duration) -> Result<u32, Fault> {
        let (dir, all) = (tempfile::tempdir().expect("a directory"), Directories::default());
        let held = all.lock(&Directory::open(dir.path()).expect("opened"), Duration::ZERO).expect("locked");
        let looks = Cell::new(0);
        let look = || {
            looks.set(looks.get() + 1);
            if disturbed(looks.get()) {
                drop(all.turn(std::iter::once(&held), Duration::ZERO)?);
            }
            Ok(looks.get())
        };
        all.undisturbed(wait, |_| vec![held.id()], look).map(|(seen, _)| seen)
    }

    #[test]
    fn what_was_seen_while_others_renamed_is_never_taken_for_what_is_there() {
        assert_eq!(look_at(|_| false, Duration::from_secs(30)), Ok(1));
        // Ten credentials in one table may disturb more looks than any count allows for.
        assert_eq!(look_at(|look| look < 40, Duration::from_secs(30)), Ok(40));
        let given_up = look_at(|_| true, Duration::from_millis(20)).expect_err("never undisturbed");
        assert_eq!((given_up.class, given_up.temporary), (Class::ChangedUnderneath, true), "{given_up:?}");
    }
}
