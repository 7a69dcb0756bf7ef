//! One change of a target, from `Prepare` to `Commit` or back.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::path::PathBuf;
use std::time::Instant;

use relaykey_core::target::ReloadOwed;

use super::activate::wants_reload;
use super::change::{self, Over, StagedChange, Stopped};
use super::inspect::first_live;
use super::journal::{self, Ahead, HostMoment, SeenFiles, SwapPhase, TableRecord, TargetRecord};
use super::own_ids::CallerPurpose;
use super::registry::{directories, ids};
use super::version_id::VersionIds;
use super::{ATTEMPTS, JournalVersion, LOCK_WAIT, Locks, OpenChange, Prepared, Swap, Target, out_of_order};
use crate::credential::Login;
use crate::fault::{Class, Fault};
use crate::host::{self, Directory, HostError};
use crate::mta::{Beneath, KnownPassword, Logins, Ours, Plan, RegionalLogin};

impl Target {
    pub(super) fn prepare(
        &mut self,
        ours: Ours,
        expect: Option<&str>,
        logins: Logins,
        version: JournalVersion,
    ) -> Result<Prepared, Fault> {
        let logins = logins.checked(printable)?;
        self.shared.keep_key()?;
        let (ours, mut regional) = self.about_to_be(&ours, &logins)?;
        // What an earlier `Prepare` staged goes. A swap that was not committed stays, as if this process had been killed.
        self.open = None;

        let prefix = change::prefix(&self.id);
        let mut locks = Locks::new();
        if self.write {
            self.lock_around(&self.files, &mut locks, &prefix)?;
        }
        let (mut plan, since) = self.plan_under_lock(&ours, &logins, &mut locks, &prefix)?;
        // The logins of before stand in it: gone when this ends, while the plan's own files go on.
        let Beneath { services, entries, files } = std::mem::take(&mut plan.beneath);
        let found = first_live(&services, &entries);
        let previous = ours.applied.clone().or_else(|| found.map(|login| login.username.clone()));
        let found = match found {
            Some(login) => Some(self.shared.with_key(|key| key.live_id(login))?),
            None => None,
        };
        // Another target of this credential, which shares the table, may have put it there since.
        let is_there_already = regional.iter().any(|login| Some(&login.live_id) == found.as_ref());
        if found.as_deref() != expect && !is_there_already {
            return Err(Fault::new(
                Class::ChangedUnderneath,
                "the login in use is no longer the one that was there before: somebody else changed it",
                "what is there now is looked at, and decided about, anew",
            )
            .temporary());
        }
        let before = self.shared.store.get(&self.id)?;
        let live_id = self.planned_live_id(&plan, &logins)?;
        if regional.len() == 1 {
            regional.clear();
        }
        let mut open = OpenChange {
            ours,
            logins,
            version,
            live_id,
            regional,
            previous,
            files,
            lookups: Vec::new(),
            written: Vec::new(),
            services: Vec::new(),
            reload_needed: false,
            planned: since,
            change: StagedChange::default(),
            swap: Swap::NotYet,
            before,
            locks,
        };
        let (diff, goes_live) = (plan.diff.clone(), plan.goes_live.clone());
        self.stage(&mut open, plan, since)?;
        // Every entry is understood: from now on nobody else says which ids are ours.
        let mut believed = open.ours.clone();
        believed.known.extend(open.previous.clone());
        let held = entries.iter().flat_map(|entry| entry.live.iter().chain(&entry.text));
        believed.known.extend(held.map(|login| login.username.clone()));
        self.shared.store.prepares(&self.id.credential, &believed, open.logins.username())?;
        let nothing_to_write = open.change.is_empty();
        let swapped_by_us = |record: &TargetRecord| {
            record.phase == SwapPhase::Swapped && record.version.may_be(&open.version) && record.live_id == open.live_id
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

    /// What is ours once these logins are put in place; and each of them with its region.
    pub(super) fn about_to_be(&self, ours: &Ours, logins: &Logins) -> Result<(Ours, Vec<RegionalLogin>), Fault> {
        let mut ours = self.believed(ours, CallerPurpose::Change)?;
        ours.one_region = logins.is_for_one_region();
        let regional = logins.each().map(|(endpoint, login)| self.regional_login(endpoint, login));
        let regional = regional.collect::<Result<Vec<_>, _>>()?;
        let known =
            logins.each().zip(&regional).filter_map(|((_, login), at)| KnownPassword::of(login, at.clone(), true));
        ours.logins.passwords.extend(known);
        ours.logins.know_regional(regional.clone());
        Ok((ours, regional))
    }

    /// The login at an endpoint by its live id, with that endpoint's region.
    pub(super) fn regional_login(&self, endpoint: usize, login: &Login) -> Result<RegionalLogin, Fault> {
        let live_id = self.shared.with_key(|key| key.live_id(login))?;
        Ok(RegionalLogin { region: self.regions.get(endpoint).cloned().unwrap_or_default(), live_id })
    }

    /// The live id of what a plan puts under the live keys.
    pub(super) fn planned_live_id(&self, plan: &Plan, logins: &Logins) -> Result<String, Fault> {
        let of_services = plan.services.iter().flat_map(|service| &service.keys).map(|wanted| wanted.endpoint);
        let mut live: BTreeSet<usize> = of_services.collect();
        if live.is_empty() {
            live = plan.endpoints();
        }
        self.live_id_at(&live, logins)
    }

    /// The live id of the logins at these endpoints; none: at the default one.
    pub(super) fn live_id_at(&self, endpoints: &BTreeSet<usize>, logins: &Logins) -> Result<String, Fault> {
        let all = endpoints.iter().map(|endpoint| (*endpoint, logins.at(*endpoint)));
        self.shared.with_key(|key| {
            let planned = VersionIds { key, regions: &self.regions }.of(all, endpoints);
            planned.unwrap_or_else(|| key.live_id(logins.default_login()))
        })
    }

    /// Locks the directories of tables' files, and removes what a killed run staged there. In one order, whoever asks and by
    /// whatever name, so that two processes that need several do not wait for each other: what comes before one that is
    /// held is not waited for while that is held. Whoever called looks anew where this locked anything.
    pub(super) fn lock_around(&self, files: &[PathBuf], locks: &mut Locks, prefix: &OsStr) -> Result<(), Fault> {
        let mut wanted = Vec::new();
        for directory in directories(files)? {
            if !locks.contains_key(directory.path()) {
                wanted.push((directory.id()?, directory));
            }
        }
        let last = locks.values().map(|held| held.id()).max();
        if wanted.iter().any(|(id, _)| Some(*id) < last) {
            for path in std::mem::take(locks).into_keys() {
                let directory = Directory::open(&path)?;
                wanted.push((directory.id()?, directory));
            }
        }
        wanted.sort_by_key(|(id, _)| *id);
        for (_, directory) in wanted {
            let held = self.shared.directories.lock(&directory, LOCK_WAIT)?;
            change::sweep(&directory, prefix)?;
            locks.insert(directory.path().to_owned(), held);
        }
        Ok(())
    }

    /// The plan, and with it what is there, both of one look while every directory that the plan writes to was locked. Which
    /// directories these are is known from the last look; where that was wrong, it is looked at again. Also says when
    /// that look began.
    pub(super) fn plan_under_lock(
        &mut self,
        ours: &Ours,
        logins: &Logins,
        locks: &mut Locks,
        prefix: &OsStr,
    ) -> Result<(Plan, Instant), Fault> {
        for _ in 0..ATTEMPTS {
            let look = || {
                // A mail server that runs with other files than ours is an error; a plan says nothing of what runs.
                self.mta.running()?;
                self.mta.plan(ours, logins)
            };
            let (plan, since) = self.shared.directories.undisturbed(LOCK_WAIT, |_| ids(locks), look)?;
            let held = locks.len();
            let used = &plan.beneath.files;
            let files: Vec<PathBuf> = used.iter().chain(plan.files().map(|file| &file.path)).cloned().collect();
            if self.write {
                self.lock_around(&files, locks, prefix)?;
            }
            self.files.clone_from(used);
            if locks.len() == held {
                return Ok((plan, since));
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
    pub(super) fn stage(&self, open: &mut OpenChange, mut plan: Plan, mut since: Instant) -> Result<(), Fault> {
        let Target { mta, write, .. } = self;
        let mta = &**mta;
        if !write && !plan.is_empty() {
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
            if plan.endpoints().into_iter().any(|endpoint| !open.logins.is_proved_at(endpoint)) {
                return Err(Fault::new(
                    Class::ChangedUnderneath,
                    "there is an entry for an endpoint that nobody has logged in to yet: somebody else has just changed the tables or \
                     the routes",
                    "what is there now is looked at, and decided about, anew",
                )
                .temporary());
            }
            open.live_id = self.planned_live_id(&plan, &open.logins)?;
            open.lookups = plan.tables.iter().map(|table| (table.id.clone(), table.lookups.clone())).collect();
            open.services = plan.services.clone();
            for table in plan.tables.iter().filter(|table| table.files().next().is_some()) {
                let files = table.files().map(|file| file.path.clone()).collect();
                TableRecord::merge(&mut open.written, TableRecord { table: table.id.clone(), files });
            }
            open.reload_needed = plan.reload_needed;
            open.planned = since;
            if !plan.is_empty() {
                self.shared.store.will_stage_in(&self.id, open.locks.keys())?;
            }
            if let Some(elsewhere) = unlocked(&plan, &open.locks)? {
                return Err(HostError::Changed { path: elsewhere }.into());
            }
            let Err(stopped) = open.change.stage(mta, plan, &open.logins, &prefix) else { return Ok(()) };
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
    pub(super) fn is_overtaken(&self, open: &OpenChange, since: Instant) -> bool {
        !self.shared.directories.quiet_since(&ids(&open.locks), since, LOCK_WAIT)
    }

    pub(super) fn plan_anew(&self, open: &OpenChange) -> Result<(Plan, Instant), Fault> {
        self.shared.directories.undisturbed(LOCK_WAIT, |_| ids(&open.locks), || self.mta.plan(&open.ours, &open.logins))
    }

    pub(super) fn swap(&mut self) -> Result<u64, Fault> {
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
    pub(super) fn rename(&self, open: &mut OpenChange) -> Result<u64, Fault> {
        let mut attempt = 1;
        loop {
            let owed_before = open.before.as_ref().and_then(|record| record.reload_owed.clone());
            let wants_reload = wants_reload(&self.reload, open.reload_needed);
            let (version, live_id, regional) = (open.version.clone(), open.live_id.clone(), open.regional.clone());
            let mut usernames = open.before.as_ref().map(|record| record.usernames.clone()).unwrap_or_default();
            // The last is that of the version which the record is of.
            usernames.retain(|username| *username != open.logins.username());
            usernames.push(open.logins.username().to_owned());
            // So are the tables of versions that are not committed.
            let uncommitted = open.before.as_ref().filter(|record| record.phase == SwapPhase::Swapped);
            let mut tables = uncommitted.map(|record| record.tables.clone()).unwrap_or_default();
            open.written.iter().for_each(|table| TableRecord::merge(&mut tables, table.clone()));
            let record = |swapped: HostMoment| {
                let new = || ReloadOwed { since: swapped.wall, why: "it is not done yet".into() };
                let reload_owed = if wants_reload { Some(new()) } else { owed_before.clone() };
                let (version, live_id, logins) = (version.clone(), live_id.clone(), regional.clone());
                let (usernames, phase, ahead) = (usernames.clone(), SwapPhase::Swapped, None);
                TargetRecord {
                    version,
                    usernames,
                    live_id,
                    logins,
                    phase,
                    swapped,
                    reload_owed,
                    ahead,
                    tables: tables.clone(),
                }
            };
            let mut at = 0;
            let turn = match self.shared.directories.turn(open.locks.values(), LOCK_WAIT) {
                Ok(turn) => turn,
                Err(e) => return Err(self.put_back(open, e.into())),
            };
            let overtaken = turn.is_overtaken(open.planned);
            let renamed = open.change.rename(|first| {
                let moment = HostMoment::now()?;
                at = moment.boot_seconds;
                // Where something of this change is in place already, none of it is ahead of the renames.
                let ahead = first.map(|first| Ahead { first, reload_owed: owed_before.clone() });
                self.shared.store.set(&self.id, Some(TargetRecord { ahead, ..record(moment) }))
            });
            drop(turn);
            if renamed.is_ok() {
                self.mta.left(&open.change.in_place());
            }
            match renamed {
                // Seldom: the disk was so slow that a start in between would pass for one after the swap.
                Ok(()) if host::boot_seconds() >= at + journal::SWAP_SECONDS => {
                    let moment = HostMoment::now()?;
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
    pub(super) fn went_over(&mut self, before: Option<SeenFiles>, reload_needed: bool, renamed: &[Over]) {
        let after = before.filter(|_| !reload_needed).and_then(|before| before.renamed_over(renamed));
        // Not remembered, they are looked at anew, which costs a reload.
        self.seen = after.filter(|after| self.set_seen(after).is_ok());
    }

    /// After renames that stopped: puts back what was replaced, and the journal. Gives the error to report.
    pub(super) fn put_back(&self, open: &mut OpenChange, e: Fault) -> Fault {
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

    pub(super) fn undo_renames(&self, open: &mut OpenChange) -> Result<Vec<Over>, Fault> {
        if !open.change.replaced_any() {
            // Nothing is renamed, and nobody waited for.
            return Ok(open.change.undo()?);
        }
        let _turn = self.shared.directories.turn(open.locks.values(), LOCK_WAIT)?;
        Ok(open.change.undo()?)
    }

    pub(super) fn discard(&mut self) -> Result<(), Fault> {
        // What a swap that failed could not put back is put back now, if it can be.
        if self.open.as_ref().is_some_and(|open| open.change.replaced_any()) {
            self.undo()?;
        }
        self.open = None;
        Ok(())
    }

    pub(super) fn undo(&mut self) -> Result<(), Fault> {
        let Some(mut open) = self.open.take() else { return Err(out_of_order("undo", "nothing is open")) };
        let before = self.see().ok().flatten();
        let undone = self.undo_open(&mut open);
        if let Ok(renamed) = &undone {
            self.went_over(before, open.reload_needed, renamed);
        }
        self.open = Some(open);
        undone.map(drop)
    }

    pub(super) fn undo_open(&self, open: &mut OpenChange) -> Result<Vec<Over>, Fault> {
        let Swap::Done { reloaded, .. } = open.swap else { return Ok(Vec::new()) };
        let renamed = self.undo_renames(open)?;
        let mut record = open.before.clone();
        if reloaded && open.reload_needed {
            // The mail server has read what is no longer there.
            let swapped = HostMoment::now()?;
            let why = "the login was put back after a reload".to_owned();
            record = Some(TargetRecord {
                version: open.version.clone(),
                usernames: open.before.as_ref().map(|record| record.usernames.clone()).unwrap_or_default(),
                live_id: open.live_id.clone(),
                logins: open.regional.clone(),
                phase: SwapPhase::Undone,
                ahead: None,
                tables: open.written.clone(),
                reload_owed: Some(ReloadOwed { since: swapped.wall, why }),
                swapped,
            });
        }
        open.swap = Swap::NotYet;
        self.shared.store.set(&self.id, record)?;
        Ok(renamed)
    }

    pub(super) fn commit(&mut self) -> Result<(), Fault> {
        if let Some(record) = self.shared.store.get(&self.id)? {
            let owed = record.reload_owed.is_some();
            self.shared.store.set(
                &self.id,
                owed.then_some(TargetRecord {
                    phase: SwapPhase::Committed,
                    usernames: Vec::new(),
                    ahead: None,
                    ..record
                }),
            )?;
        }
        self.open = None;
        Ok(())
    }
}

/// A file of the plan in a directory that is not locked.
pub(super) fn unlocked(plan: &Plan, locks: &Locks) -> Result<Option<PathBuf>, HostError> {
    for file in plan.files() {
        if !locks.contains_key(Directory::of(&file.path)?.0.path()) {
            return Ok(Some(file.path.clone()));
        }
    }
    Ok(None)
}

/// Checks a login once more: what comes over the boundary is not believed.
pub(super) fn printable(login: Login) -> Result<Login, Fault> {
    Login::new(login.username, login.password).map_err(|e| {
        Fault::new(
            Class::Unsupported,
            format!("the login cannot be written into a mail server's table: {e}"),
            "store a user name and password of printable ASCII characters without blanks",
        )
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::registry::Directories;
    use super::super::{Server, Setup, TargetId, TargetKind, TargetSetup};
    use super::*;
    use crate::mta::{Relay, Reload};

    /// Another process holds what comes first and wants what we hold: we let go of that before we wait.
    #[test]
    fn two_that_want_the_same_directories_do_not_wait_for_each_other() {
        let scratch = tempfile::Builder::new().prefix("relaykey-locks-").tempdir().unwrap();
        let base = scratch.path();
        let mut directories: Vec<(Directory, PathBuf)> = (["one", "two"].iter())
            .map(|name| {
                let path = base.join(name);
                std::fs::create_dir_all(&path).unwrap();
                (Directory::open(&path).unwrap(), path.join("sasl_passwd"))
            })
            .collect();
        directories.sort_by_key(|(directory, _)| directory.id().unwrap());
        let (second, in_second) = directories.pop().expect("two");
        let (first, in_first) = directories.pop().expect("two");
        let id = TargetId { credential: "ses".into(), target: "main".into() };
        let relay = Relay {
            endpoint: "relay.example.com".into(),
            port: 587,
            region: None,
            endpoint_aliases: Vec::new(),
            also: Vec::new(),
        };
        let kind = TargetKind::Text { path: in_first.clone() };
        let (keys, unlisted_ok, reload) = (None, Vec::new(), Reload::Never);
        let target = TargetSetup { id: id.clone(), kind, relay, keys, unlisted_ok, reload, write: true };
        let server =
            Server::new(&Setup { state_dir: base.join("state"), targets: vec![target], beside_running: false });
        let target = server.target(&id).unwrap();
        let (prefix, mut locks) = (change::prefix(&id), Locks::new());

        let other = Directories::default();
        target.lock_around(std::slice::from_ref(&in_second), &mut locks, &prefix).unwrap();
        let holds_first = other.lock(&first, Duration::ZERO).unwrap();
        std::thread::scope(|scope| {
            let (ends, ended) = std::sync::mpsc::channel();
            let other = &other;
            scope.spawn(move || {
                // As long as the other waits at most, so that it does not end for want of this one.
                let holds_second = other.lock(&second, LOCK_WAIT);
                ends.send(holds_second.is_ok()).unwrap();
                drop((holds_first, holds_second));
            });
            target.lock_around(std::slice::from_ref(&in_first), &mut locks, &prefix).unwrap();
            assert!(ended.recv().unwrap(), "the other one got what it waited for");
        });
        assert_eq!(locks.len(), 2, "and both are held again");
        assert!(other.lock(&first, Duration::ZERO).is_err());
    }
}
