//! What apply remembers between runs: per target which version was swapped in and whether a reload is owed, and the
//! key under which live ids are made. No secret but that key, which opens nothing.
//!
//! Both live in `<state_dir>/apply/`: `journal.json`, replaced whole, and `key`, 32 random bytes, made on first use. Beside
//! them `seen.json`: which files the mail server is known to have read. Without it there is one more reload. And `ids.json`
//! ([`super::own_ids`]).

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use relaykey_core::target::ReloadOwed;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::change::Over;
use super::{JournalVersion, TargetId};
use crate::credential::{LocalKey, Login};
use crate::fault::{Class, Fault};
use crate::host::way::Way;
use crate::host::{self, Directory, FileId, HostError};
use crate::mta::{RegionalLogin, Running, TableId};

/// The largest journal that is written and read. One record has some 300 bytes.
const MAX_JOURNAL: usize = 4 * 1024 * 1024;
/// How long another process may hold the journal: it does so for two fsyncs.
const WAIT: Duration = Duration::from_secs(30);
/// At most this many seconds pass between the time that a record gives for a swap and its last rename; a swap that
/// took longer gets a new time.
pub(super) const SWAP_SECONDS: u64 = 2;

/// A point in time by two clocks: wall time for people, time since boot for comparing with process start times.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct HostMoment {
    pub(super) wall: jiff::Timestamp,
    pub(super) boot_seconds: u64,
    pub(super) boot_id: String,
    /// What `boot_seconds` are counted by; `None`: not known, as in what relaykey 0.1.0 wrote, or there is one count only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) time_namespace: Option<String>,
}

impl HostMoment {
    pub(super) fn now() -> Result<Self, HostError> {
        Ok(Self {
            wall: jiff::Timestamp::now(),
            boot_seconds: host::boot_seconds(),
            boot_id: host::boot_id()?,
            time_namespace: host::time_namespace(),
        })
    }

    /// Was the mail server started after this, seen from `now`? Then it has read what was swapped in. Not when in doubt.
    pub(super) fn is_before_start(&self, running: Running, now: &Self) -> bool {
        let other_count =
            self.time_namespace.as_ref().zip(now.time_namespace.as_ref()).is_some_and(|(then, now)| then != now);
        match running {
            Running::Yes { .. } if self.boot_id != now.boot_id => true,
            Running::Yes { since_boot } => !other_count && since_boot > self.boot_seconds.saturating_add(SWAP_SECONDS),
            Running::No | Running::NotApplicable => false,
        }
    }
}

/// How far a version is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum SwapPhase {
    /// The renames have begun, and nobody has said `Commit`.
    Swapped,
    /// Closed; the record stays only as long as a reload is owed.
    Committed,
    /// The old bytes were put back; the record stays only as long as a reload is owed.
    Undone,
}

/// What is remembered of one target.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct TargetRecord {
    /// Its name, as relaykey 0.1.0 wrote and reads it, and beside it what tells it from others of that name.
    #[serde(flatten)]
    pub(super) version: JournalVersion,
    /// Its user name, and those of versions that were swapped in before it and not committed either: an entry that holds
    /// one of them is ours, whatever the source gives by then. Empty once committed.
    pub(super) usernames: Vec<String>,
    /// Live id of that version's login: whether any of it is in place shows by it.
    pub(super) live_id: String,
    /// Where the version has a login for each of several regions: these. Empty where it has one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) logins: Vec<RegionalLogin>,
    pub(super) phase: SwapPhase,
    pub(super) swapped: HostMoment,
    pub(super) reload_owed: Option<ReloadOwed>,
    /// What tells that the run which wrote this was killed before the first rename.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) ahead: Option<Ahead>,
    /// The tables that it is about, in the order in which they are renamed in: those of versions that were swapped in before
    /// and not committed among them. Empty in what relaykey 0.1.0 wrote, which knew one table.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) tables: Vec<TableRecord>,
}

/// A table, and the files that were, or were about to be, renamed in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct TableRecord {
    pub(super) table: TableId,
    pub(super) files: Vec<PathBuf>,
}

impl TableRecord {
    /// Takes in another one, of the same table or not.
    pub(super) fn merge(all: &mut Vec<Self>, other: Self) {
        match all.iter_mut().find(|have| have.table == other.table) {
            Some(have) => {
                let new: Vec<PathBuf> = other.files.into_iter().filter(|file| !have.files.contains(file)).collect();
                have.files.extend(new);
            }
            None => all.push(other),
        }
    }
}

/// The record is written ahead of the first rename: what holds as long as that was not done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Ahead {
    pub(super) first: First,
    /// The reload that was owed before.
    pub(super) reload_owed: Option<ReloadOwed>,
}

/// The file that is replaced first, as it was before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct First {
    pub(super) path: PathBuf,
    /// `None`: it was not there.
    pub(super) seen: Option<FileId>,
}

impl First {
    /// Is it still that very file, or still not there? Not when in doubt.
    pub(super) fn is_as_it_was(&self) -> bool {
        look_at(&self.path).is_ok_and(|now| now == self.seen)
    }
}

#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct JournalDocument {
    format: u32,
    /// By `credential/target`.
    targets: BTreeMap<String, TargetRecord>,
    /// By `credential/target`, configured or not any more: every directory in which files were ever staged, so that a
    /// start finds what a killed run left there whatever the mail server's configuration says by then.
    staged_in: BTreeMap<String, BTreeSet<PathBuf>>,
}

/// Of both documents, as relaykey 0.1.0 reads them.
const FORMAT: u32 = 1;
/// Of a journal with a change of several tables, half of which may be in place: relaykey 0.1.0 knows one table, and refuses
/// this by the number.
const SEVERAL_TABLES: u32 = 2;

/// Which mail server it is, and how its configuration was.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Instance {
    pub(super) directories: Vec<PathBuf>,
    /// Of its configuration.
    pub(super) files: FileMarks,
}

/// Files as they were at a look; `None`: there was none.
pub(super) type FileMarks = Vec<(PathBuf, Option<FileId>)>;

/// Which file lies there now; `None`: none does.
pub(super) fn look_at(path: &Path) -> Result<Option<FileId>, HostError> {
    let (directory, name) = Directory::of(path)?;
    directory.look(&name)
}

fn look_at_all(files: &[PathBuf]) -> Result<FileMarks, HostError> {
    files.iter().map(|file| Ok((file.clone(), look_at(file)?))).collect()
}

impl Instance {
    /// As it is now: its directories, and the files of its configuration.
    pub(super) fn now((directories, files): (Vec<PathBuf>, Vec<PathBuf>)) -> Result<Self, HostError> {
        Ok(Self { directories, files: look_at_all(&files)? })
    }
}

/// How the files of a table were at a look, and whether the running mail server is known to have read them so. Files that
/// are still the same need no second reload, of the same mail server with the same configuration. By the boot clock alone: the
/// time stamps of a file are compared with each other, and with no clock, which may have been set since.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct SeenFiles {
    pub(super) files: FileMarks,
    /// `None`: not known, as in what relaykey 0.1.0 wrote; then nothing is known of what was read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) instance: Option<Instance>,
    /// What their paths lead through, and those of the mail server's configuration.
    #[serde(default)]
    pub(super) way: Way,
    /// When they were first seen so.
    pub(super) at: HostMoment,
    /// The mail server was reloaded when they were so, or noticed a rename of ours over files that it had read.
    pub(super) read: bool,
    /// The mail server did not run after they were seen so: whatever runs later was started after that.
    #[serde(default)]
    pub(super) stopped: bool,
    /// The mail server had read what was there before, and somebody else changed that: it may go on with what it has, or with
    /// what it was made to read meanwhile.
    #[serde(default)]
    pub(super) overtaken: bool,
}

impl SeenFiles {
    /// Was this mail server started after they were seen so? Then it has read them so.
    pub(super) fn is_before_start(&self, running: Running, now: &HostMoment) -> bool {
        self.stopped && matches!(running, Running::Yes { .. }) || self.at.is_before_start(running, now)
    }

    /// As they are now, with nothing known of them.
    pub(super) fn now(files: &[PathBuf], instance: Instance) -> Result<Self, HostError> {
        let mut way = Way::default();
        for path in files.iter().chain(instance.files.iter().map(|(path, _)| path)) {
            way.extend(Way::of(Path::new("/"), path)?.0);
        }
        let (files, instance) = (look_at_all(files)?, Some(instance));
        Ok(Self { files, instance, way, at: HostMoment::now()?, read: false, stopped: false, overtaken: false })
    }

    /// Is nothing of it different from what was known, and has been nothing in between?
    fn is_as(&self, known: &Self) -> bool {
        self.files == known.files
            && self.instance == known.instance
            && self.way.has_the_places_of(&known.way)
            && self.way.is_still(&known.way)
    }

    /// Does what is there now show that what was known does not hold any more? Also what was known of another mail server
    /// that reads one of these files.
    fn contradicts(&self, known: &Self) -> bool {
        self.changes(known) || self.is_of_the_server_of(known) && !self.is_as(known)
    }

    /// Is anything that both know of different now, or can have been meanwhile?
    fn changes(&self, known: &Self) -> bool {
        let ids: BTreeMap<_, _> = known.files.iter().map(|(path, id)| (path, id)).collect();
        let is_other = |(path, id): &(PathBuf, Option<FileId>)| ids.get(path).is_some_and(|known| *known != id);
        self.files.iter().any(is_other)
            || !self.way.is_still(&known.way)
            || self.is_of_the_server_of(known) && self.instance != known.instance
    }

    fn is_of_the_server_of(&self, known: &Self) -> bool {
        let of = |seen: &Self| seen.instance.as_ref().map(|instance| instance.directories.clone());
        of(self) == of(known)
    }

    /// Does what is there now differ from what this mail server is known to have read, now or at an earlier look? Where nothing
    /// was ever known as read, nothing does; nor by what relaykey 0.1.0 wrote, which does not say of which mail server.
    fn overtakes(&self, known: &Self) -> bool {
        let is_known = known.instance.is_some() && self.is_of_the_server_of(known);
        is_known && (known.overtaken || known.read && self.changes(known))
    }

    /// As they are once these were renamed over, where a mail server that notices a rename has read them then. One goes by
    /// whether the file that it has open still has a name: of any other file than that it notices nothing.
    pub(super) fn renamed_over(&self, renamed: &[Over]) -> Option<Self> {
        if renamed.is_empty() || renamed.iter().any(|over| over.now.is_none()) {
            return None;
        }
        let places = self.places(renamed.iter().map(|over| (&*over.path, over.before)))?;
        let mut after = self.clone();
        for (places, over) in places.into_iter().zip(renamed) {
            places.into_iter().for_each(|place| after.files[place].1 = over.now);
        }
        for (path, _) in after.files.iter().chain(after.instance.iter().flat_map(|instance| &instance.files)) {
            after.way.extend(Way::of(Path::new("/"), path).ok()?.0);
        }
        (after.at, after.stopped, after.overtaken) = (HostMoment::now().ok()?, false, false);
        // Who looks next finds the directory changed, by our own renames.
        Some(after).filter(|after| after.way.is_still(&self.way))
    }

    /// Would it be so, once something is renamed over these, which are now such?
    pub(super) fn would_notice<'a>(&self, over: impl Iterator<Item = (&'a Path, Option<FileId>)>) -> bool {
        self.places(over).is_some()
    }

    /// Which of the files that the mail server has read each of these is; `None`: it has not read them, or not all.
    fn places<'a>(&self, files: impl Iterator<Item = (&'a Path, Option<FileId>)>) -> Option<Vec<Vec<usize>>> {
        if !self.read {
            return None;
        }
        let resolved = |(path, _): &(PathBuf, Option<FileId>)| {
            let (directory, name) = Directory::of(path).ok()?;
            Some(directory.path().join(name))
        };
        let known = self.files.iter().map(resolved).collect::<Option<Vec<PathBuf>>>()?;
        let places = |(path, before): (&Path, Option<FileId>)| {
            let places: Vec<usize> = (0..known.len()).filter(|&place| known[place] == path).collect();
            let as_read = |place: &usize| before.is_some() && self.files[*place].1 == before;
            (!places.is_empty() && places.iter().all(as_read)).then_some(places)
        };
        files.map(places).collect()
    }
}

#[derive(Default, Serialize, Deserialize)]
struct SeenDocument {
    format: u32,
    /// By `credential/target`.
    targets: BTreeMap<String, SeenFiles>,
}

impl SeenDocument {
    /// What is known of a target's files that are so `now`.
    fn known(
        &self,
        target: &TargetId,
        now: SeenFiles,
        memory: Option<&SeenFiles>,
        configured: &BTreeSet<TargetId>,
    ) -> SeenFiles {
        let is_configured = |name: &String| id(name).is_some_and(|id| configured.contains(&id));
        let mut known = self.targets.iter().filter(|(name, _)| is_configured(name));
        // Another target of the same mail server may have seen to it.
        let read = known.any(|(_, known)| known.read && now.is_as(known));
        let own = self.targets.get(&name(target));
        let overtaken = !read && own.is_some_and(|own| now.overtakes(own));
        match own.or(memory).filter(|known| now.is_as(known)) {
            Some(SeenFiles { at, stopped, .. }) => {
                SeenFiles { at: at.clone(), stopped: *stopped, read, overtaken, ..now }
            }
            None => SeenFiles { read, overtaken, ..now },
        }
    }

    /// Takes in a look: what it contradicts goes, and in its place, or that of what was known of this target, stands what it
    /// saw. What another target's mail server had read before somebody else changed it stays, as not read any more, unless what
    /// is there now was read. Says whether anything is different then.
    fn learn(&mut self, target: &TargetId, seen: &SeenFiles, configured: &BTreeSet<TargetId>) -> bool {
        self.format = FORMAT;
        let own = self.targets.remove(&name(target));
        let mut is_other = own.as_ref().is_some_and(|own| seen.contradicts(own));
        self.targets.retain(|name, known| {
            let is_configured = id(name).is_some_and(|id| configured.contains(&id));
            if is_configured && !seen.contradicts(known) {
                return true;
            }
            let is_read = seen.read && (seen.is_of_the_server_of(known) || !known.overtaken);
            let stays = is_configured && !is_read && known.instance.is_some() && seen.changes(known);
            if !stays || !(known.read || known.overtaken) {
                is_other = true;
                return false;
            }
            if !known.overtaken {
                is_other = true;
                (known.at, known.stopped, known.read, known.overtaken) = (seen.at.clone(), false, false, true);
            }
            true
        });
        if !is_other && own.is_none() {
            return false;
        }
        self.targets.insert(name(target), seen.clone());
        is_other || own.as_ref() != Some(seen)
    }
}

/// The directory that holds both.
pub(super) struct ApplyJournal {
    state_dir: PathBuf,
    /// Held by the targets of this process in turn, in front of the lock that other processes see. What a killed run left
    /// half-written was removed?
    turn: Mutex<bool>,
}

impl ApplyJournal {
    pub(super) fn new(state_dir: &Path) -> Self {
        Self { state_dir: state_dir.to_owned(), turn: Mutex::new(false) }
    }

    pub(super) fn dir(&self) -> PathBuf {
        self.state_dir.join("apply")
    }

    fn journal(&self) -> PathBuf {
        self.dir().join("journal.json")
    }

    /// Keeps everybody else from changing anything here, this process first.
    pub(super) fn lock(&self) -> Result<(MutexGuard<'_, bool>, host::Lock), HostError> {
        // What a panic leaves is whole: files are replaced.
        let turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        host::create_dir(&self.state_dir, 0o700)?;
        let lock = host::create_dir(&self.dir(), 0o700)?.lock_own(WAIT)?;
        Ok((turn, lock))
    }

    fn load(&self) -> Result<JournalDocument, Fault> {
        let path = self.journal();
        let bytes = match host::read_own(&path, MAX_JOURNAL) {
            Ok(bytes) => bytes,
            Err(e) if e.is_not_found() => return Ok(JournalDocument { format: FORMAT, ..JournalDocument::default() }),
            Err(e) => return Err(e.into()),
        };
        let broken = |line, what: String| {
            Fault::new(
                Class::Config,
                what,
                format!(
                    "remove {}: what is in place is looked at anew, only a reload that is owed is forgotten",
                    path.display()
                ),
            )
            .in_file(path.clone())
            .at_line(line)
        };
        let document: JournalDocument = serde_json::from_slice(&bytes)
            .map_err(|e| broken(Some(e.line()), format!("the journal cannot be read: {e}")))?;
        if !matches!(document.format, FORMAT | SEVERAL_TABLES) {
            return Err(broken(
                None,
                format!(
                    "the journal has format {}, and this relaykey reads {FORMAT} and {SEVERAL_TABLES}",
                    document.format
                ),
            ));
        }
        Ok(document)
    }

    /// Once: removes the half-written successor of a file that a killed run left.
    pub(super) fn tidy(&self) -> Result<(), Fault> {
        if self.dir().is_dir() {
            let (mut tidied, _lock) = self.lock()?;
            if !*tidied {
                host::remove_successor(&self.journal())?;
                host::remove_successor(&self.dir().join("key"))?;
                host::remove_successor(&self.dir().join("seen.json"))?;
                host::remove_successor(&self.dir().join("ids.json"))?;
                *tidied = true;
            }
        }
        Ok(())
    }

    /// What is remembered of a target. Changes nothing.
    pub(super) fn get(&self, target: &TargetId) -> Result<Option<TargetRecord>, Fault> {
        Ok(self.load()?.targets.remove(&name(target)))
    }

    /// What was swapped in and not committed for targets of a credential that are not among these any more.
    pub(super) fn orphans(
        &self,
        credential: &str,
        configured: &BTreeSet<TargetId>,
    ) -> Result<Vec<(TargetId, TargetRecord)>, Fault> {
        let orphan = |(name, record): (String, TargetRecord)| {
            let id = id(&name).filter(|id| id.credential == credential && !configured.contains(id))?;
            (record.phase == SwapPhase::Swapped).then_some((id, record))
        };
        Ok(self.load()?.targets.into_iter().filter_map(orphan).collect())
    }

    /// What is remembered of the one is the other's from now on, durably.
    pub(super) fn hand_over(&self, from: &TargetId, to: &TargetId) -> Result<(), Fault> {
        let _lock = self.lock()?;
        let mut document = self.load()?;
        // Another process may have been first.
        match document.targets.remove(&name(from)) {
            Some(record) if !document.targets.contains_key(&name(to)) => {
                document.targets.insert(name(to), record);
                self.write(&mut document)
            }
            _ => Ok(()),
        }
    }

    /// Remembers something else of a target (`None`: nothing), durably. Other processes wait meanwhile.
    pub(super) fn set(&self, target: &TargetId, record: Option<TargetRecord>) -> Result<(), Fault> {
        let _lock = self.lock()?;
        let mut document = self.load()?;
        let before = match &record {
            Some(record) => document.targets.insert(name(target), record.clone()),
            None => document.targets.remove(&name(target)),
        };
        if before == record {
            return Ok(());
        }
        self.write(&mut document)
    }
}

impl ApplyJournal {
    fn seen_document(&self) -> SeenDocument {
        // One that cannot be read is forgotten, which costs a reload.
        let bytes = host::read_own(&self.dir().join("seen.json"), MAX_JOURNAL).ok();
        let document = bytes.and_then(|bytes| serde_json::from_slice::<SeenDocument>(&bytes).ok());
        document.filter(|document| document.format == FORMAT).unwrap_or_default()
    }

    /// How a target's files are `now`, with what is known of them: from this document alone, where it says anything of this
    /// target, as another process may have looked meanwhile; else from `memory`, and never from there that they were read.
    ///
    /// What this look contradicts is forgotten, of every target, durably where it `may_change` something: files that were once
    /// read, and were then exchanged, may have been left behind by a reload in between. So is what is known of targets that are
    /// not configured.
    pub(super) fn look(
        &self,
        target: &TargetId,
        now: SeenFiles,
        memory: Option<&SeenFiles>,
        configured: &BTreeSet<TargetId>,
        may_change: bool,
    ) -> Result<SeenFiles, Fault> {
        let look = |document: &mut SeenDocument| {
            let seen = document.known(target, now.clone(), memory, configured);
            let learnt = document.learn(target, &seen, configured);
            (seen, learnt)
        };
        let (seen, learnt) = look(&mut self.seen_document());
        if !learnt || !may_change {
            return Ok(seen);
        }
        let _lock = self.lock()?;
        let mut document = self.seen_document();
        let (seen, _) = look(&mut document);
        self.write_seen(&document)?;
        Ok(seen)
    }

    /// Remembers how a target's files are where anything is remembered of it, and what that contradicts.
    pub(super) fn note(
        &self,
        target: &TargetId,
        seen: &SeenFiles,
        configured: &BTreeSet<TargetId>,
    ) -> Result<(), Fault> {
        match self.seen_document().learn(target, seen, configured) {
            true => self.learn(target, seen, configured, false),
            false => Ok(()),
        }
    }

    /// Remembers how a target's files are, durably.
    pub(super) fn set_seen(
        &self,
        target: &TargetId,
        seen: &SeenFiles,
        configured: &BTreeSet<TargetId>,
    ) -> Result<(), Fault> {
        self.learn(target, seen, configured, true)
    }

    fn learn(
        &self,
        target: &TargetId,
        seen: &SeenFiles,
        configured: &BTreeSet<TargetId>,
        keep: bool,
    ) -> Result<(), Fault> {
        let _lock = self.lock()?;
        let mut document = self.seen_document();
        let learnt = document.learn(target, seen, configured);
        let kept = keep && document.targets.insert(name(target), seen.clone()).as_ref() != Some(seen);
        if learnt || kept { self.write_seen(&document) } else { Ok(()) }
    }

    fn write_seen(&self, document: &SeenDocument) -> Result<(), Fault> {
        let text = serde_json::to_vec_pretty(document).expect("texts and numbers have a JSON form");
        Ok(host::replace(&self.dir().join("seen.json"), &text, 0o600)?)
    }

    /// Remembers, ahead of the first file, that files of a target are staged in these directories.
    pub(super) fn will_stage_in<'a>(
        &self,
        target: &TargetId,
        directories: impl Iterator<Item = &'a PathBuf>,
    ) -> Result<(), Fault> {
        let directories: BTreeSet<PathBuf> = directories.cloned().collect();
        if self.load()?.staged_in.get(&name(target)).is_some_and(|known| known.is_superset(&directories)) {
            return Ok(());
        }
        let _lock = self.lock()?;
        let mut document = self.load()?;
        document.staged_in.entry(name(target)).or_default().extend(directories);
        self.write(&mut document)
    }

    /// Every directory in which files were ever staged, and for which target.
    pub(super) fn staged_in(&self) -> Result<Vec<(TargetId, PathBuf)>, Fault> {
        let all = self.load()?.staged_in.into_iter().filter_map(|(name, dirs)| Some((id(&name)?, dirs)));
        Ok(all.flat_map(|(id, dirs)| dirs.into_iter().map(move |dir| (id.clone(), dir))).collect())
    }

    fn write(&self, document: &mut JournalDocument) -> Result<(), Fault> {
        let has_several = document.targets.values().any(|record| record.tables.len() > 1);
        document.format = if has_several { SEVERAL_TABLES } else { FORMAT };
        let text = serde_json::to_vec_pretty(document).expect("texts and numbers have a JSON form");
        if text.len() > MAX_JOURNAL {
            // Nothing was changed yet that it would be needed for; one that cannot be read would stop every target.
            return Err(Fault::new(
                Class::Config,
                format!("the journal would have {} bytes, and at most {MAX_JOURNAL} are read", text.len()),
                format!(
                    "remove {}: what is in place is looked at anew, only a reload that is owed is forgotten",
                    self.journal().display()
                ),
            )
            .in_file(self.journal()));
        }
        Ok(host::replace(&self.journal(), &text, 0o600)?)
    }
}

fn id(name: &str) -> Option<TargetId> {
    let (credential, target) = name.split_once('/')?;
    Some(TargetId { credential: credential.into(), target: target.into() })
}

fn name(target: &TargetId) -> String {
    format!("{}/{}", target.credential, target.target)
}

/// The key for live ids: the one on disk, or one that is not on disk yet.
#[derive(Clone)]
pub(super) struct LiveIdKey {
    bytes: Zeroizing<[u8; 32]>,
    on_disk: bool,
}

impl LiveIdKey {
    #[cfg(test)]
    pub(super) fn made() -> Self {
        Self { bytes: Zeroizing::new([7; 32]), on_disk: false }
    }

    /// Reads the key; where there is none, makes one and keeps it in memory. Changes nothing on disk.
    pub(super) fn load(store: &ApplyJournal) -> Result<Self, Fault> {
        let path = store.dir().join("key");
        match host::read_own(&path, 32) {
            Ok(bytes) if bytes.len() == 32 => {
                let mut key = Zeroizing::new([0; 32]);
                key.copy_from_slice(&bytes);
                Ok(Self { bytes: key, on_disk: true })
            }
            Err(e) if e.is_not_found() => {
                let mut key = Zeroizing::new([0; 32]);
                getrandom::fill(&mut *key).map_err(|e| {
                    Fault::new(
                        Class::Io,
                        format!("the operating system gives no random numbers: {e}"),
                        "it is tried again",
                    )
                    .temporary()
                })?;
                Ok(Self { bytes: key, on_disk: false })
            }
            Ok(_) | Err(HostError::TooLarge { .. }) => Err(Fault::new(
                Class::Config,
                "the key for live ids does not have 32 bytes",
                format!("remove {}: a new one is made, and what is in place is looked at anew", path.display()),
            )
            .in_file(path)),
            Err(e) => Err(e.into()),
        }
    }

    /// Makes the key durable where it is not; one that another process made meanwhile is taken instead.
    pub(super) fn keep(&mut self, store: &ApplyJournal) -> Result<(), Fault> {
        if self.on_disk {
            return Ok(());
        }
        let _lock = store.lock()?;
        let there = Self::load(store)?;
        if there.on_disk {
            *self = there;
            return Ok(());
        }
        host::replace(&store.dir().join("key"), &self.bytes[..], 0o600)?;
        self.on_disk = true;
        Ok(())
    }

    pub(super) fn live_id(&self, login: &Login) -> String {
        self.local().live_id(login)
    }

    pub(super) fn local(&self) -> LocalKey {
        LocalKey::new(*self.bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::credential::{SourceIdentity, VersionOrder};

    #[test]
    fn a_record_of_0_1_0_is_read_and_it_reads_ours() {
        let old = r#"{"version": "1", "usernames": ["AKIANEW"], "live_id": "ab", "phase": "swapped", "reload_owed": null,
            "swapped": {"wall": "2026-11-28T12:00:00Z", "boot_seconds": 1000, "boot_id": "b1"}}"#;
        let mut record: TargetRecord = serde_json::from_str(old).unwrap();
        assert_eq!(record.version, "1".into(), "of which source it was is not known");
        let fields = |record: &TargetRecord| serde_json::to_value(record).unwrap();
        assert_eq!(fields(&record), serde_json::from_str::<serde_json::Value>(old).unwrap());
        let created = Some(jiff::Timestamp::UNIX_EPOCH);
        record.version.source = Some(SourceIdentity { arn: "arn:aws:ssm:::parameter/ses".into(), created });
        record.version.order = Some(VersionOrder { at: jiff::Timestamp::UNIX_EPOCH, number: 1 });
        let written = fields(&record);
        // Beside what 0.1.0 looks for stand fields that it does not know, and passes over.
        for (name, value) in serde_json::from_str::<serde_json::Map<_, _>>(old).unwrap() {
            assert_eq!(written[&name], value, "{name}");
        }
        assert_eq!(serde_json::from_value::<TargetRecord>(written).unwrap(), record);
    }

    fn swapped(tables: &[&str]) -> TargetRecord {
        let record = |table: &&str| TableRecord { table: TableId::new(*table), files: vec!["/t".into()] };
        TargetRecord {
            version: "1".into(),
            usernames: vec!["AKIANEW".into()],
            live_id: "ab".into(),
            logins: Vec::new(),
            phase: SwapPhase::Swapped,
            swapped: HostMoment {
                wall: jiff::Timestamp::UNIX_EPOCH,
                boot_seconds: 1,
                boot_id: "b1".into(),
                time_namespace: None,
            },
            reload_owed: None,
            ahead: None,
            tables: tables.iter().map(record).collect(),
        }
    }

    /// What 0.1.0 reads: unknown fields of a record are passed over, any other format than 1 is refused in words.
    #[test]
    fn a_change_of_several_tables_has_a_format_that_0_1_0_refuses_and_nothing_else_has() {
        let scratch = tempfile::Builder::new().prefix("relaykey-journal-").tempdir().unwrap();
        let dir = scratch.path();
        let store = ApplyJournal::new(dir);
        let target = |name: &str| TargetId { credential: "ses".into(), target: name.into() };
        let format = || -> u64 {
            let text = std::fs::read_to_string(dir.join("apply/journal.json")).unwrap();
            serde_json::from_str::<serde_json::Value>(&text).unwrap()["format"].as_u64().unwrap()
        };
        for (record, expected) in [
            (swapped(&[]), 1),
            (swapped(&["hash:/a"]), 1),
            (swapped(&["hash:/a", "lmdb:/b"]), 2),
            (TargetRecord { phase: SwapPhase::Committed, ..swapped(&["hash:/a", "lmdb:/b", "cdb:/c"]) }, 2),
        ] {
            store.set(&target("main"), Some(record.clone())).unwrap();
            assert_eq!(format(), expected, "{record:?}");
            assert_eq!(store.get(&target("main")).unwrap(), Some(record));
        }
        // One of them is enough, and once it is closed the journal is what it was.
        store.set(&target("other"), Some(swapped(&["hash:/a"]))).unwrap();
        assert_eq!(format(), 2);
        store.set(&target("main"), None).unwrap();
        assert_eq!(format(), 1);
    }

    #[test]
    fn tables_are_remembered_once_each() {
        let table = |id: &str, files: &[&str]| TableRecord {
            table: TableId::new(id),
            files: files.iter().map(PathBuf::from).collect(),
        };
        let mut all = vec![table("hash:/a", &["/a", "/a.db"])];
        TableRecord::merge(&mut all, table("lmdb:/b", &["/b.lmdb"]));
        TableRecord::merge(&mut all, table("hash:/a", &["/a.db", "/x"]));
        assert_eq!(all, [table("hash:/a", &["/a", "/a.db", "/x"]), table("lmdb:/b", &["/b.lmdb"])]);
    }

    #[test]
    fn a_start_counts_only_when_it_was_surely_after_the_swap() {
        let at = |boot_id: &str, time_namespace: Option<&str>| HostMoment {
            wall: jiff::Timestamp::UNIX_EPOCH,
            boot_seconds: 1000,
            boot_id: boot_id.into(),
            time_namespace: time_namespace.map(str::to_owned),
        };
        let now = at("b1", Some("time:[1]"));
        for (boot_id, namespace, running, after) in [
            ("b1", Some("time:[1]"), Running::Yes { since_boot: 900 }, false),
            ("b1", Some("time:[1]"), Running::Yes { since_boot: 1000 }, false),
            ("b1", Some("time:[1]"), Running::Yes { since_boot: 1002 }, false),
            ("b1", Some("time:[1]"), Running::Yes { since_boot: 1003 }, true),
            // As 0.1.0 wrote it.
            ("b1", None, Running::Yes { since_boot: 1002 }, false),
            ("b1", None, Running::Yes { since_boot: 1003 }, true),
            // Counted from elsewhere, the two cannot be compared.
            ("b1", Some("time:[2]"), Running::Yes { since_boot: 900_000 }, false),
            ("b0", Some("time:[2]"), Running::Yes { since_boot: 3 }, true),
            ("b0", None, Running::Yes { since_boot: 3 }, true),
            ("b0", None, Running::No, false),
            ("b1", None, Running::NotApplicable, false),
        ] {
            let swap = at(boot_id, namespace);
            assert_eq!(swap.is_before_start(running, &now), after, "{boot_id} {namespace:?} {running:?}");
        }
    }
}
