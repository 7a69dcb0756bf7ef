//! What a target really holds, and what is remembered of it.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use relaykey_core::target::{ReloadOwed, Swapped};

use super::activate::has_read;
use super::journal::{HostMoment, LiveIdKey, SeenFiles, SwapPhase, TargetRecord};
use super::left_behind::{LoginInUse, tables_in_use};
use super::own_ids::CallerPurpose;
use super::registry::{directories, ids_around};
use super::version_id::VersionIds;
use super::{Hindrances, Inspected, LOCK_WAIT, LiveEntry, MayChange, Target};
use crate::credential::{self, Login, Secret};
use crate::fault::{Class, Fault};
use crate::finding::{Finding, Severity};
use crate::host::{self, Directory, HostError};
use crate::mta::{KnownPassword, Ours, OwnEntry, Running, ServiceView, View, shown};

impl Target {
    pub(super) fn inspect(&mut self, ours: &Ours) -> Result<Inspected, Fault> {
        if self.shared.access == MayChange::Change && !self.swept {
            self.sweep()?;
            self.swept = true;
        }
        let ours = &self.believed(ours, CallerPurpose::Look)?;
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
            .filter(|record| record.phase == SwapPhase::Swapped && is_in_place(record, &entries))
            .map(|record| Swapped {
                id: record.version.id(),
                source: record.version.source.clone(),
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
        let (live_id, holds) = (self.one_live_id(&view)?, self.holds(&view)?);
        let username = first_live(&view.services, &view.entries).map(|login| login.username.clone());
        let mut usernames: Vec<String> = Vec::new();
        for login in in_use(&view.services, &view.entries) {
            if !usernames.contains(&login.username) {
                usernames.push(login.username.clone());
            }
        }
        let first = first_live(&view.services, &view.entries)
            .map(|login| self.shared.with_key(|key| key.live_id(login)))
            .transpose()?;
        let in_use = username.as_deref().or(ours.applied.as_deref());
        let remaining_old = in_use.map_or(Vec::new(), |username| {
            LoginInUse::among(ours, username, live_id.as_deref()).remaining_old(&view.left_out)
        });
        Ok(Inspected {
            kind: self.kind.word(),
            tables: tables_in_use(&view.services),
            remaining_old,
            others: view.key_ids.others(in_use),
            incomplete: view.incomplete,
            live_id,
            holds,
            endpoints: view.endpoints,
            username,
            usernames,
            first_live_id: first,
            entries,
            swapped,
            missing: view.missing,
            doubts: view.doubts,
            beside: view.beside,
            hindrances,
            asks_for_proof: view.asks_for_proof,
            files: view.files,
            log: view.log,
            running: view.running,
            reload_owed,
            unread,
            findings,
            stopped: view.stopped,
        })
    }

    /// The live id under every live key, of every table and as every client service finds it, where it is one.
    pub(super) fn one_live_id(&self, view: &View) -> Result<Option<String>, Fault> {
        let live = view.entries.iter().filter(|entry| entry.is_live_key);
        let of_services = view.services.iter().flat_map(|service| &service.keys);
        let found = (live.map(|entry| (entry.endpoint, entry.live.as_ref())))
            .chain(of_services.map(|live| (live.endpoint, live.answer.login())));
        self.shared.with_key(|key| VersionIds { key, regions: &self.regions }.of(found, &endpoints_of_live_keys(view)))
    }

    /// The live id under every key of ours, in text and compiled map, and as every client service finds it, where it is one.
    pub(super) fn holds(&self, view: &View) -> Result<Option<String>, Fault> {
        if !view.missing.is_empty() {
            return Ok(None);
        }
        let both = |entry: &OwnEntry| [entry.live.clone(), entry.text.clone()].map(|login| (entry.endpoint, login));
        // Another table may answer in the place of ours.
        let of_services = view.services.iter().flat_map(|service| &service.keys);
        let of_services = of_services.map(|live| (live.endpoint, live.answer.login().cloned()));
        let found: Vec<(usize, Option<Login>)> = view.entries.iter().flat_map(both).chain(of_services).collect();
        let found = found.iter().map(|(endpoint, login)| (*endpoint, login.as_ref()));
        self.shared.with_key(|key| VersionIds { key, regions: &self.regions }.of(found, &endpoints_of_live_keys(view)))
    }

    /// Does the mail server, as far as is known, not go by what somebody else has put there? Not asked while a target of this
    /// process has its change open there, which sees to that.
    pub(super) fn is_unread(&self, seen: &SeenFiles, running: Running) -> bool {
        matches!(running, Running::Yes { .. })
            && seen.overtaken
            && self.open.is_none()
            && !self.shared.directories.is_any_held(&ids_around(&self.files))
            && has_read(Some(seen), running).is_ok_and(|has_read| has_read.is_none())
    }

    /// What is there now, and not half of what another target of this process renames there meanwhile.
    pub(super) fn look(&self, ours: &Ours) -> Result<View, Fault> {
        let around = |view: Option<&View>| ids_around(view.map_or(&self.files, |view| &view.files));
        self.shared.directories.undisturbed(LOCK_WAIT, around, || self.mta.inspect(ours)).map(|(view, _)| view)
    }

    pub(super) fn in_order(&self, ours: &Ours, login: &Login) -> Result<(), Fault> {
        let view = self.look(&self.believed(ours, CallerPurpose::Look)?)?;
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

    pub(super) fn name_earlier(&self, id: String) -> Result<(), Fault> {
        if !credential::is_whole_access_key_id(&id) {
            return Err(Fault::new(
                Class::Config,
                "what is named as an earlier key of this credential has not the form of an access key id",
                "name one as it stands in the table, in capitals: AKIA and 16 more letters and digits",
            ));
        }
        self.shared.store.root_names(&self.id.credential, id)
    }

    pub(super) fn is_applied(&self, ours: &Ours, login: &Login) -> Result<(), Fault> {
        // Of an access key id there is one password for each region: the name says it.
        let tells = credential::is_access_key_id(&login.username) || ours.logins.applied.is_empty();
        let live_id = self.shared.with_key(|key| key.live_id(login))?;
        let is_it = match &ours.applied {
            Some(applied) if *applied != login.username => false,
            _ if tells || ours.logins.applied.contains(&live_id) => true,
            // Where the key for live ids was made anew, they tell nothing, and the mail server does.
            _ => {
                let view = self.look(&self.believed(ours, CallerPurpose::Look)?)?;
                first_live(&view.services, &view.entries) == Some(login)
            }
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

    /// Which of these logins does the mail server find under the first live key?
    pub(super) fn which_stands(&self, ours: &Ours, logins: &[Login]) -> Result<Option<usize>, Fault> {
        let view = self.look(&self.believed(ours, CallerPurpose::Look)?)?;
        let in_use = first_live(&view.services, &view.entries);
        Ok(logins.iter().position(|login| Some(login) == in_use))
    }

    /// Once, at the first look: removes what killed runs left of this target, also beside tables that it no longer uses.
    pub(super) fn sweep(&self) -> Result<(), Fault> {
        self.shared.store.tidy()?;
        for (id, path) in self.shared.store.staged_in()? {
            // A directory that is gone holds nothing any more.
            if let (true, Ok(directory)) = (id == self.id, Directory::open(&path)) {
                self.shared.sweep(&id, &directory)?;
            }
        }
        Ok(())
    }

    /// What the caller says is ours, as far as it is believed. What was swapped in and not committed is ours too, whatever the
    /// caller knows of it.
    pub(super) fn believed(&self, ours: &Ours, purpose: CallerPurpose) -> Result<Ours, Fault> {
        let mut ours = self.shared.store.own_ids(&self.id.credential)?.believed(ours, purpose);
        for named in std::mem::take(&mut ours.named_logins) {
            let at = self.regional_login(named.endpoint, &named.login)?;
            ours.logins.passwords.extend(KnownPassword::of(&named.login, at, named.is_certain));
        }
        let uncommitted = self.shared.store.get(&self.id)?;
        // So is what was swapped in under a name that the configuration has no more: it may have been this target's.
        let elsewhere = self.shared.store.orphans(&self.id.credential, &self.shared.configured)?;
        let elsewhere = elsewhere.into_iter().map(|(_, record)| record);
        for record in uncommitted.into_iter().chain(elsewhere) {
            ours.known.extend(record.usernames);
            ours.logins.others.push(record.live_id);
            ours.logins.know_regional(record.logins);
        }
        ours.logins.key = Some(self.shared.with_key(LiveIdKey::local)?);
        Ok(ours)
    }

    /// The record of a target that the configuration has no more, where what it swapped in is found here: this one was called
    /// so. From now on it is this one's.
    pub(super) fn inherit(&self, entries: &[LiveEntry]) -> Result<Option<TargetRecord>, Fault> {
        let orphans = self.shared.store.orphans(&self.id.credential, &self.shared.configured)?;
        let Some((id, record)) = orphans.into_iter().find(|(_, record)| is_in_place(record, entries)) else {
            return Ok(None);
        };
        if self.shared.access == MayChange::Change {
            self.shared.store.hand_over(&id, &self.id)?;
        }
        Ok(Some(record))
    }

    /// Are these files, text and map, such as can be replaced? Gives those that are not, and why. Also removes staged files
    /// that a killed run left beside them, unless another process is at work there.
    pub(super) fn tidy(&self, files: &[PathBuf]) -> Vec<(PathBuf, HostError)> {
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

    pub(super) fn tidy_directories(&self, files: &[PathBuf]) -> Result<(), HostError> {
        if self.open.is_some() || self.shared.access == MayChange::Look {
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
    pub(super) fn hindrances(&self, view: &View) -> Result<Option<Hindrances>, Fault> {
        match self.shared.access {
            MayChange::Change => Ok(None),
            MayChange::Look => Ok(Some(Hindrances {
                not_lockable: self.not_lockable(&view.files),
                reload_refused: self.reload_refused(view.running)?,
            })),
        }
    }

    /// Why a rollover could not lock the tables' directories, or not write to them.
    pub(super) fn not_lockable(&self, files: &[PathBuf]) -> Option<(Finding, bool)> {
        if !self.write {
            return None;
        }
        // What cannot be opened is a finding of its own.
        let directories = directories(files).ok()?;
        // Text and map have their successors beside them before they go.
        let size = |file: &PathBuf| std::fs::metadata(file).map_or(0, |found| found.len());
        let all: u64 = files.iter().map(size).sum();
        let look = |directory: &Directory| {
            directory
                .look_lockable()
                .and_then(|()| directory.look_room(all))
                .and_then(|()| directory.look_marked())
                .err()
        };
        let marked = |file: &PathBuf| host::look_marks(file).err().filter(|e| !e.is_not_found());
        let e = directories.iter().find_map(look).or_else(|| files.iter().find_map(marked))?;
        let (what, fix) =
            (format!("the tables cannot be locked and written, so that nothing would be changed: {e}"), e.fix());
        let file = e.path().map(Path::to_owned);
        Some((Finding { severity: Severity::Error, line: None, file, what, fix }, e.is_temporary()))
    }

    /// Why the mail server, which runs, would refuse a reload.
    pub(super) fn reload_refused(&self, running: Running) -> Result<Option<Finding>, Fault> {
        match running {
            Running::Yes { .. } if self.reload.is_ours() => self.mta.reload_refused(),
            Running::Yes { .. } | Running::No | Running::NotApplicable => Ok(None),
        }
    }

    /// The journal's record, its owed reload taken off where the mail server was started after the swap.
    pub(super) fn settle(&self, running: Running) -> Result<Option<TargetRecord>, Fault> {
        self.settled(running, self.shared.access == MayChange::Change)
    }

    /// The same, written down where it `may_change` something.
    pub(super) fn settled(&self, running: Running, may_change: bool) -> Result<Option<TargetRecord>, Fault> {
        let Some(mut record) = self.shared.store.get(&self.id)? else { return Ok(None) };
        if record.reload_owed.is_some() && record.ahead.as_ref().is_some_and(|ahead| ahead.first.is_as_it_was()) {
            // Killed before the first rename: no reload is owed for what was not put in place.
            record.reload_owed = record.ahead.take().and_then(|ahead| ahead.reload_owed);
            if may_change && self.open.is_none() {
                self.shared.store.set(&self.id, Some(record.clone()))?;
            }
        }
        if record.reload_owed.is_some() && record.swapped.is_before_start(running, &HostMoment::now()?) {
            match may_change {
                true => self.reload_is_settled(&mut record)?,
                false => record.reload_owed = None,
            }
        }
        Ok(Some(record))
    }

    pub(super) fn reload_is_settled(&self, record: &mut TargetRecord) -> Result<(), Fault> {
        record.reload_owed = None;
        // A closed record is kept for the reload alone.
        self.shared.store.set(&self.id, (record.phase == SwapPhase::Swapped).then(|| record.clone()))
    }
}

/// The numbers of the endpoints that live keys are for.
pub(super) fn endpoints_of_live_keys(view: &View) -> BTreeSet<usize> {
    let of_services = view.services.iter().flat_map(|service| &service.keys).map(|live| live.endpoint);
    let live = view.entries.iter().filter(|entry| entry.is_live_key).map(|entry| entry.endpoint);
    live.chain(of_services).collect()
}

/// The logins that the mail server uses: what its client services find under their live keys, whichever table gives it. Where none
/// finds anything, what the tables hold there.
pub(super) fn in_use<'a>(services: &'a [ServiceView], entries: &'a [OwnEntry]) -> impl Iterator<Item = &'a Login> {
    let answers = || services.iter().flat_map(|service| &service.keys).filter_map(|live| live.answer.login());
    let is_found = answers().next().is_some();
    let of_tables = entries.iter().filter(|entry| entry.is_live_key).filter_map(|entry| entry.live.as_ref());
    answers().chain(of_tables.filter(move |_| !is_found))
}

/// The first of them.
pub(super) fn first_live<'a>(services: &'a [ServiceView], entries: &'a [OwnEntry]) -> Option<&'a Login> {
    in_use(services, entries).next()
}

pub(super) fn live_entries(view: &View, key: &LiveIdKey) -> Vec<LiveEntry> {
    let entry = |entry: &OwnEntry| LiveEntry {
        key: shown::key(&entry.key).into_owned(),
        map: entry.table.to_string(),
        file: entry.file.clone(),
        line: entry.line,
        username: entry.live.as_ref().map(|login| login.username.clone()),
        live_id: entry.live.as_ref().map(|login| key.live_id(login)),
        text_id: entry.text.as_ref().map(|login| key.live_id(login)),
        is_live_key: entry.is_live_key,
        endpoint: entry.endpoint,
    };
    view.entries.iter().map(entry).collect()
}

/// Is any of what was swapped in there?
pub(super) fn is_in_place(record: &TargetRecord, entries: &[LiveEntry]) -> bool {
    let is_one = |id: &String| *id == record.live_id || record.logins.iter().any(|login| login.live_id == *id);
    let holds = |id: &Option<String>| id.as_ref().is_some_and(is_one);
    entries.iter().any(|entry| holds(&entry.live_id) || holds(&entry.text_id))
}
