//! The apply boundary: everything that touches a mail server goes through here, as requests and replies.
//!
//! Today [`Client::InProcess`] calls [`Server`] directly; later the server is a root process of its own behind a
//! socket, without network, and everything else runs unprivileged. So a secret goes in once (`Prepare`) and never
//! comes back, replies carry live ids and key ids, and the server reads its targets from its own configuration, keeps
//! its own journal and its own key for live ids, and knows neither network nor AWS nor run time.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::config::{Config, Finding, Reload, TargetKind};
use crate::credential::{LocalKey, Login, ProofFields, proof};
use crate::host::{self, Directory, FileId};
use crate::mta::{Content, Entry, Mta, Plan, postfix::Postfix, text::Text};
pub use crate::mta::{MtaError, Ours, Running};

/// How long to wait for another program that holds a table's directory.
const LOCK_WAIT: Duration = Duration::from_secs(30);
/// Somebody else changes the table while we plan: so often it is planned anew.
const PLANS: usize = 3;
/// The largest file whose old bytes are kept for `Undo`.
const MAX_OLD: usize = 512 << 20;

/// Names one target: credential and target name of the configuration.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct TargetId {
    pub credential: String,
    pub target: String,
}

#[derive(Debug, Clone)]
pub enum Request {
    /// What is there now. With [`Access::Write`] it also removes staged files that a killed run left, and settles a
    /// reload that is owed when the mail server was started after the swap; it changes nothing else.
    Inspect { target: TargetId, ours: Ours },
    /// Plans and stages the change: writes staged copies, compiles, looks every key up in the staged map.
    /// `expect` is the live id under the first live key that the caller saw (`None`: no entry); if another one is
    /// there now, nothing is staged. The login is checked again (printable ASCII without blanks).
    Prepare { target: TargetId, ours: Ours, expect: Option<String>, login: Login, version: String },
    /// The change as people read it, with nothing staged: for `--dry-run`.
    Preview { target: TargetId, ours: Ours, login: Login },
    /// Removes staged files and forgets the login.
    Discard { target: TargetId },
    /// Renames the staged files in. Old bytes stay in memory until `Commit`.
    Swap { target: TargetId },
    /// Puts the old bytes back; possible until `Commit`, in the process that swapped.
    Undo { target: TargetId },
    /// Reloads, as `reload` of the target says.
    Activate { target: TargetId },
    /// Looks every live key up in the running configuration and compares with the login of `Prepare`.
    ReadBack { target: TargetId, prove: Option<ProofFields> },
    /// The caller has made it durable: forget old bytes and login, close the journal entry.
    Commit { target: TargetId },
}

#[derive(Debug, Clone)]
pub enum Reply {
    Inspected(Inspected),
    Prepared(Prepared),
    Preview {
        diff: Vec<String>,
        reload: bool,
    },
    Swapped {
        at_boot: u64,
    },
    Activated(Activated),
    ReadBack(ReadBack),
    /// `Discard`, `Undo`, `Commit`.
    Done,
}

#[derive(Debug, Clone, Serialize)]
pub struct Inspected {
    pub kind: &'static str,
    /// Live keys and our other entries.
    pub entries: Vec<LiveEntry>,
    pub missing: Vec<String>,
    /// The user name under the first live key.
    pub username: Option<String>,
    pub running: Running,
    pub reload_owed: Option<ReloadOwed>,
    /// A version that was swapped in here and not committed yet: a killed run; `Prepare` finds what is left to do.
    pub swapped: Option<String>,
    pub findings: Vec<Finding>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LiveEntry {
    pub key: String,
    pub map: String,
    pub line: Option<usize>,
    pub username: Option<String>,
    /// HMAC of what the mail server finds, under apply's own key.
    pub live_id: Option<String>,
    /// The same of what stands in the text; differs while the map is not compiled.
    pub text_id: Option<String>,
    pub is_live_key: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReloadOwed {
    /// Wall time of the swap, for people.
    pub since: jiff::Timestamp,
    pub why: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prepared {
    /// Nothing is staged: the live files hold the candidate already.
    pub nothing_to_write: bool,
    /// This version was swapped in by us, in a run that was killed before `Commit`.
    pub swapped_before: bool,
    /// Live id of the candidate.
    pub live_id: String,
    pub diff: Vec<String>,
    pub reload_needed: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Activated {
    /// Reloaded, or the mail server needs no reload (an indexed map replaced by rename, `if-needed`), or was started
    /// after the swap.
    Yes { how: &'static str },
    /// Not done, and remembered: mail server down, reload failed, `reload = "never"` where one is needed.
    Owed { why: String, fix: String, temporary: bool },
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReadBack {
    /// Every live key gives the candidate, in the running configuration, and so does the text.
    pub matches: bool,
    pub kind: &'static str,
    /// Where it does not: key, and what was found in words (never the value).
    pub mismatches: Vec<String>,
    pub keys: Vec<String>,
    pub map: String,
    /// `postmap -q`, `text`.
    pub how: &'static str,
    /// Entries with the previous key id that are still there under keys that we may not write.
    pub remaining_old: Vec<String>,
    pub live_id: Option<String>,
    pub running: Running,
    /// Computed with the read-back password, or why there is none.
    pub proof: Option<Result<String, &'static str>>,
}

/// May the server change anything?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// For `check` and `--dry-run`: requests that change something are refused, and nothing is written on the side.
    Read,
    Write,
}

/// The caller's end. Calls block; the agent runs them off its event loop.
#[derive(Clone)]
pub enum Client {
    InProcess(Arc<Mutex<Server>>),
}

impl Client {
    /// A server in this process.
    ///
    /// # Errors
    /// Its journal or its key cannot be read.
    pub fn in_process(config: &Config, access: Access) -> Result<Self, MtaError> {
        Ok(Self::InProcess(Arc::new(Mutex::new(Server::new(config, access)?))))
    }

    /// Sends one request and waits for its reply.
    ///
    /// # Errors
    /// What stood in the way; no secret in it. The request has then changed nothing, or says so.
    pub fn call(&self, request: Request) -> Result<Reply, MtaError> {
        let Self::InProcess(server) = self;
        let mut server = server.lock().map_err(|_| MtaError {
            temporary: true,
            class: "io",
            file: None,
            line: None,
            what: "the apply side broke off in the middle of an earlier request".into(),
            fix: "restart relaykey: the next run looks at what is there and goes forward".into(),
        })?;
        server.handle(request)
    }
}

// ---------------------------------------------------------------- the server

/// Holds the targets, what is staged and swapped, the journal, and the key for live ids.
pub struct Server {
    access: Access,
    slots: BTreeMap<TargetId, Slot>,
    journal: Journal,
    key: LocalKey,
}

struct Slot {
    mta: Box<dyn Mta>,
    reload: Reload,
    open: Option<Open>,
}

/// A rollover of one target, from `Prepare` to `Commit` or `Discard`. Dropping it zeroises what it holds.
struct Open {
    ours: Ours,
    login: Login,
    version: String,
    reload_needed: bool,
    files: Vec<StagedFile>,
    /// Staged names that are never renamed: a copy of the text that a map was compiled from.
    scaffold: Vec<(Arc<Directory>, OsString)>,
    /// What was there before the swap, in the order of the renames.
    old: Vec<OldFile>,
    swapped: bool,
    _locks: Vec<host::Lock>,
}

struct StagedFile {
    dir: Arc<Directory>,
    live: OsString,
    staged: OsString,
    seen: Option<FileId>,
}

struct OldFile {
    dir: Arc<Directory>,
    live: OsString,
    staged: OsString,
    /// `None`: there was no such file.
    bytes: Option<Zeroizing<Vec<u8>>>,
}

impl Server {
    /// Reads the targets from the configuration, and the journal and key from `STATE_DIR/apply`.
    ///
    /// # Errors
    /// The journal or the key cannot be read, or (with [`Access::Write`]) not be made.
    pub fn new(config: &Config, access: Access) -> Result<Self, MtaError> {
        let dir = config.host.state_dir.join("apply");
        if access == Access::Write {
            host::create_dir(&config.host.state_dir, 0o700)?;
            host::create_dir(&dir, 0o700)?;
            // A run that was killed while it wrote the journal may have left half a successor.
            host::remove_successor(&dir.join(Journal::NAME))?;
        }
        let mut slots = BTreeMap::new();
        for credential in &config.credentials {
            for target in &credential.targets {
                let mta: Box<dyn Mta> = match &target.kind {
                    TargetKind::Postfix { config_dir } => {
                        Box::new(Postfix::new(config_dir, &target.smtp, target.keys.clone(), &target.reload))
                    }
                    TargetKind::Text { path } => Box::new(Text::new(path, &target.smtp)),
                };
                let id = TargetId { credential: credential.name.clone(), target: target.name.clone() };
                slots.insert(id, Slot { mta, reload: target.reload.clone(), open: None });
            }
        }
        Ok(Self { access, slots, journal: Journal::load(&dir)?, key: local_key(&dir, access)? })
    }

    fn handle(&mut self, request: Request) -> Result<Reply, MtaError> {
        let target = request.target().clone();
        let reads = matches!(request, Request::Inspect { .. } | Request::Preview { .. });
        if self.access == Access::Read && !reads {
            return Err(refuse("this run only looks; it changes nothing", "run it without --dry-run"));
        }
        let Some(slot) = self.slots.get_mut(&target) else {
            return Err(refuse(
                &format!("target {} of credential {} is not configured here", target.target, target.credential),
                "see [[credential.target]] in the configuration",
            ));
        };
        let mut work = Work { id: &target, slot, journal: &mut self.journal, key: &self.key };
        match request {
            Request::Inspect { ours, .. } => work.inspect(ours, self.access).map(Reply::Inspected),
            Request::Preview { ours, login, .. } => {
                let plan = work.slot.mta.plan(&work.known(ours), &checked(login)?)?;
                Ok(Reply::Preview { diff: plan.diff, reload: !plan.files.is_empty() })
            }
            Request::Prepare { ours, expect, login, version, .. } => {
                work.prepare(ours, expect.as_deref(), checked(login)?, version).map(Reply::Prepared)
            }
            Request::Discard { .. } => work.discard().map(|()| Reply::Done),
            Request::Swap { .. } => work.swap(),
            Request::Undo { .. } => work.undo().map(|()| Reply::Done),
            Request::Activate { .. } => work.activate().map(Reply::Activated),
            Request::ReadBack { prove, .. } => work.read_back(prove.as_ref()).map(Reply::ReadBack),
            Request::Commit { .. } => work.commit().map(|()| Reply::Done),
        }
    }
}

impl Drop for Server {
    /// The caller has gone: what is staged goes too. What was swapped in stays, and the journal knows of it.
    fn drop(&mut self) {
        for slot in self.slots.values_mut() {
            if let Some(open) = slot.open.take() {
                // What cannot be removed now is removed by name at the next start.
                let _ = open.remove_staged();
            }
        }
    }
}

impl Request {
    fn target(&self) -> &TargetId {
        match self {
            Request::Inspect { target, .. }
            | Request::Prepare { target, .. }
            | Request::Preview { target, .. }
            | Request::Discard { target }
            | Request::Swap { target }
            | Request::Undo { target }
            | Request::Activate { target }
            | Request::ReadBack { target, .. }
            | Request::Commit { target } => target,
        }
    }
}

fn refuse(what: &str, fix: &str) -> MtaError {
    MtaError { temporary: false, class: "config", file: None, line: None, what: what.into(), fix: fix.into() }
}

/// The agent has checked this too; but apply may be another process one day, and believes nobody.
fn checked(login: Login) -> Result<Login, MtaError> {
    Login::new(login.username, login.password)
        .map_err(|e| refuse(&format!("not a login that a mail server can use: {e}"), "publish a corrected version"))
}

/// One request's view of its target.
struct Work<'a> {
    id: &'a TargetId,
    slot: &'a mut Slot,
    journal: &'a mut Journal,
    key: &'a LocalKey,
}

impl Work<'_> {
    /// What is ours, with what only the journal remembers.
    fn known(&self, ours: Ours) -> Ours {
        Ours { swapped: self.journal.get(self.id).map(|e| e.usernames.clone()).unwrap_or_default(), ..ours }
    }

    fn inspect(&mut self, ours: Ours, access: Access) -> Result<Inspected, MtaError> {
        let view = self.slot.mta.inspect(&self.known(ours))?;
        if access == Access::Write {
            if self.slot.open.is_none() {
                self.tidy(&view.entries)?;
            }
            self.settle(view.running)?;
        }
        let id = |login: &Option<Login>| login.as_ref().map(|l| self.key.live_id(l));
        let entries: Vec<LiveEntry> = view
            .entries
            .iter()
            .map(|e| LiveEntry {
                key: e.key.clone(),
                map: e.map.clone(),
                line: e.line,
                username: e.live.as_ref().or(e.text.as_ref()).map(|l| l.username.clone()),
                live_id: id(&e.live),
                text_id: id(&e.text),
                is_live_key: e.is_live_key,
            })
            .collect();
        let entry = self.journal.get(self.id);
        Ok(Inspected {
            kind: view.kind,
            username: entries.iter().find(|e| e.is_live_key).and_then(|e| e.username.clone()),
            entries,
            missing: view.missing,
            running: view.running,
            reload_owed: entry.and_then(|e| e.reload_owed.clone()),
            swapped: entry.and_then(|e| e.version.clone()),
            findings: view.findings,
        })
    }

    /// Removes, by their exact names, staged files that a killed run left; another program that is at it holds the
    /// lock. What that run swapped in is made durable before anything is built on it, above all a confirmation: it may
    /// have been killed between its renames and their fsync.
    fn tidy(&self, entries: &[Entry]) -> Result<(), MtaError> {
        let paths = entries.iter().filter_map(|e| Some(PathBuf::from(e.map.split_once(':')?.1)));
        let mut seen: Vec<(u64, u64)> = Vec::new();
        for path in paths.collect::<std::collections::BTreeSet<_>>() {
            let beside = path.parent().map(Path::to_owned);
            let resolved = Directory::of(&path).ok().map(|(dir, _)| dir);
            for dir in beside.and_then(|d| Directory::open(&d).ok()).into_iter().chain(resolved) {
                let id = dir.id()?;
                if seen.contains(&id) {
                    continue;
                }
                seen.push(id);
                if let Ok(_lock) = dir.lock(Duration::ZERO) {
                    // What cannot be removed now is tried again at the next start.
                    let _ = remove_leftovers(self.id, &dir);
                }
                if self.journal.get(self.id).is_some() {
                    dir.sync()?;
                }
            }
        }
        Ok(())
    }

    /// A mail server that was started after the swap has read the new files: nothing is owed to it.
    fn settle(&mut self, running: Running) -> Result<(), MtaError> {
        let (Running::Yes { since_boot }, Some(entry)) = (running, self.journal.get(self.id)) else { return Ok(()) };
        let started_after = entry.boot_id != host::boot_id()? || since_boot > entry.at_boot;
        if entry.reload_owed.is_some() && started_after {
            let mut settled = entry.clone();
            settled.reload_owed = None;
            self.journal.set(self.id, Some(settled))?;
        }
        Ok(())
    }

    fn prepare(
        &mut self,
        ours: Ours,
        expect: Option<&str>,
        login: Login,
        version: String,
    ) -> Result<Prepared, MtaError> {
        self.discard()?;
        let ours = self.known(ours);
        let mut locks: Vec<host::Lock> = Vec::new();
        let mut locked: Vec<(u64, u64)> = Vec::new();
        for attempt in 1.. {
            let plan = self.slot.mta.plan(&ours, &login)?;
            let found = plan.live.as_ref().map(|l| self.key.live_id(l));
            let live_id = self.key.live_id(&login);
            if found.as_deref() != expect && found.as_ref() != Some(&live_id) {
                return Err(MtaError {
                    temporary: true,
                    class: "changed-underneath",
                    file: None,
                    line: None,
                    what: "the login in use was changed by somebody else meanwhile".into(),
                    fix: "nothing: it is looked at anew".into(),
                });
            }
            let dirs = directories(&plan)?;
            for (dir, _) in &dirs {
                let id = dir.id()?;
                if !locked.contains(&id) {
                    locks.push(dir.lock(LOCK_WAIT)?);
                    locked.push(id);
                }
            }
            let swapped_before = self.journal.get(self.id).is_some_and(|e| e.version.as_ref() == Some(&version));
            let prepared = Prepared {
                nothing_to_write: plan.files.is_empty(),
                swapped_before,
                live_id,
                diff: plan.diff.clone(),
                reload_needed: plan.reload_needed,
            };
            let mut open = Open {
                ours: ours.clone(),
                login: login.clone(),
                version: version.clone(),
                reload_needed: plan.reload_needed,
                files: Vec::new(),
                scaffold: Vec::new(),
                old: Vec::new(),
                swapped: false,
                _locks: Vec::new(),
            };
            let staged = stage(self.id, self.slot.mta.as_ref(), plan, dirs, &mut open);
            match staged {
                Ok(()) => {
                    if !open.files.is_empty() {
                        open._locks = locks;
                    }
                    self.slot.open = Some(open);
                    return Ok(prepared);
                }
                Err(e) => {
                    let _ = open.remove_staged();
                    if e.class != "changed-underneath" || attempt >= PLANS {
                        return Err(e);
                    }
                }
            }
        }
        unreachable!("the loop returns")
    }

    fn open(&mut self, before: &str) -> Result<&mut Open, MtaError> {
        self.slot
            .open
            .as_mut()
            .ok_or_else(|| refuse(&format!("nothing is prepared that could be {before}"), "prepare first"))
    }

    fn discard(&mut self) -> Result<(), MtaError> {
        match self.slot.open.take() {
            Some(open) => open.remove_staged(),
            None => Ok(()),
        }
    }

    fn swap(&mut self) -> Result<Reply, MtaError> {
        let at_boot = host::boot_seconds();
        let entry = JournalEntry {
            version: None,
            at: Timestamp::now(),
            at_boot,
            boot_id: host::boot_id()?,
            reload_owed: None,
            reload_needed: false,
            usernames: self.journal.get(self.id).map(|e| e.usernames.clone()).unwrap_or_default(),
        };
        let open = self.open("swapped in")?;
        // Looked at once more, all of them, before the first rename.
        for file in &open.files {
            if file.dir.look_replaceable(&file.live)? != file.seen {
                return Err(host::HostError::Changed { path: file.dir.path().join(&file.live) }.into());
            }
        }
        let mut old = Vec::new();
        for file in &open.files {
            let bytes = match file.seen {
                None => None,
                Some(_) => Some(file.dir.read(&file.live, MAX_OLD)?.0),
            };
            old.push(OldFile { dir: file.dir.clone(), live: file.live.clone(), staged: file.staged.clone(), bytes });
        }
        // Ahead of the first rename: whatever stops us from here on, the next run knows what may be owed.
        let why = "the files were swapped in, and the mail server was not told yet".to_owned();
        let mut entry = JournalEntry {
            version: Some(open.version.clone()),
            reload_owed: Some(ReloadOwed { since: entry.at, why }),
            reload_needed: open.reload_needed,
            ..entry
        };
        if !entry.usernames.contains(&open.login.username) {
            entry.usernames.push(open.login.username.clone());
        }
        let before = self.journal.get(self.id).cloned();
        self.journal.set(self.id, Some(entry))?;
        let open = self.open("swapped in")?;
        let mut done = 0;
        let renamed = open.files.iter().try_for_each(|file| {
            file.dir.rename(&file.staged, &file.live, file.seen)?;
            done += 1;
            Ok::<(), MtaError>(())
        });
        let synced = renamed.and_then(|()| open.sync());
        if let Err(e) = synced {
            old.truncate(done);
            let undone = put_back(&old);
            let _ = open.remove_staged_files();
            let what = match undone {
                Ok(()) => {
                    self.slot.open = None;
                    let _ = self.journal.set(self.id, before);
                    format!("{}; nothing has changed", e.what)
                }
                Err(undo) => format!("{}; and what was swapped in could not be put back: {}", e.what, undo.what),
            };
            return Err(MtaError { what, ..e });
        }
        open.old = old;
        open.swapped = true;
        for (dir, name) in open.scaffold.drain(..) {
            let _ = dir.remove(&name);
        }
        Ok(Reply::Swapped { at_boot })
    }

    fn undo(&mut self) -> Result<(), MtaError> {
        let open = self.open("undone")?;
        if !open.swapped {
            return self.discard();
        }
        put_back(&open.old)?;
        self.slot.open = None;
        // What the mail server noticed in between it has to forget again.
        if let Some(mut entry) = self.journal.get(self.id).cloned() {
            entry.version = None;
            (entry.at, entry.at_boot) = (Timestamp::now(), host::boot_seconds());
            let why = "the old files were put back, and the mail server was not told yet".to_owned();
            entry.reload_owed = Some(ReloadOwed { since: entry.at, why });
            self.journal.set(self.id, Some(entry))?;
        }
        Ok(())
    }

    fn activate(&mut self) -> Result<Activated, MtaError> {
        let entry = self.journal.get(self.id).cloned();
        let needed =
            self.slot.open.as_ref().map_or(entry.as_ref().is_some_and(|e| e.reload_needed), |o| o.reload_needed);
        let how = match (&self.slot.reload, needed) {
            (Reload::IfNeeded | Reload::Never, false) => "an indexed map, replaced by rename, is noticed by itself",
            (Reload::Never, true) => {
                let why = "the mail server notices this change only by a reload, and reload = \"never\"".to_owned();
                let fix = "reload it by hand, or set reload = \"if-needed\"; restarting it settles this too".to_owned();
                return self.owe(entry, why, fix, false);
            }
            (Reload::Always | Reload::IfNeeded | Reload::Command(_), _) => match self.slot.mta.activate() {
                Ok(()) => "reloaded",
                Err(e) => return self.owe(entry, e.what, e.fix, e.temporary),
            },
        };
        if let Some(mut entry) = entry {
            entry.reload_owed = None;
            self.journal.set(self.id, Some(entry))?;
        }
        Ok(Activated::Yes { how })
    }

    fn owe(
        &mut self,
        entry: Option<JournalEntry>,
        why: String,
        fix: String,
        temporary: bool,
    ) -> Result<Activated, MtaError> {
        if let Some(mut entry) = entry {
            let since = entry.reload_owed.as_ref().map_or(entry.at, |o| o.since);
            entry.reload_owed = Some(ReloadOwed { since, why: why.clone() });
            self.journal.set(self.id, Some(entry))?;
        }
        Ok(Activated::Owed { why, fix, temporary })
    }

    fn read_back(&mut self, prove: Option<&ProofFields>) -> Result<ReadBack, MtaError> {
        let Some(open) = &self.slot.open else {
            return Err(refuse("nothing is prepared that could be read back", "prepare first"));
        };
        let view = self.slot.mta.inspect(&open.ours)?;
        let mut mismatches: Vec<String> = view.missing.iter().map(|key| format!("{key} has no entry")).collect();
        for entry in &view.entries {
            for (place, found) in [("lookup", &entry.live), ("text", &entry.text)] {
                match found {
                    Some(login) if *login == open.login => {}
                    Some(login) if login.username == open.login.username => {
                        mismatches
                            .push(format!("{} gives another password of {} ({place})", entry.key, login.username));
                    }
                    Some(login) => mismatches.push(format!("{} gives {} ({place})", entry.key, login.username)),
                    None => mismatches.push(format!("{} gives no login ({place})", entry.key)),
                }
            }
        }
        mismatches.extend(
            view.findings.iter().filter(|f| f.severity == crate::config::Severity::Error).map(Finding::located),
        );
        let live: Vec<&Entry> = view.entries.iter().filter(|e| e.is_live_key).collect();
        if live.is_empty() {
            mismatches.push("no key gives a login for a next hop that leads to the endpoint".into());
        }
        let read = live.first().and_then(|e| e.live.as_ref());
        Ok(ReadBack {
            matches: mismatches.is_empty(),
            mismatches,
            kind: view.kind,
            keys: live.iter().map(|e| e.key.clone()).collect(),
            map: live.first().map(|e| e.map.clone()).unwrap_or_default(),
            how: view.how,
            remaining_old: view.left_out,
            live_id: read.map(|l| self.key.live_id(l)),
            running: view.running,
            // With the password that was read back, not with the one that came in.
            proof: prove.zip(read).map(|(fields, login)| proof(&login.password, fields)),
        })
    }

    fn commit(&mut self) -> Result<(), MtaError> {
        self.discard()?;
        self.journal.set(self.id, None)
    }
}

impl Open {
    /// Staged files that were not swapped in.
    fn remove_staged(&self) -> Result<(), MtaError> {
        if self.swapped { Ok(()) } else { self.remove_staged_files() }
    }

    fn remove_staged_files(&self) -> Result<(), MtaError> {
        let staged = self.files.iter().map(|f| (&f.dir, &f.staged));
        let all = staged.chain(self.scaffold.iter().map(|(dir, name)| (dir, name)));
        let mut result = Ok(());
        for (dir, name) in all {
            if let Err(e) = dir.remove(name) {
                result = Err(e.into());
            }
        }
        result
    }

    /// Makes the renames durable.
    fn sync(&self) -> Result<(), MtaError> {
        let mut synced: Vec<&Path> = Vec::new();
        for file in &self.files {
            if !synced.contains(&file.dir.path()) {
                file.dir.sync()?;
                synced.push(file.dir.path());
            }
        }
        Ok(())
    }
}

// ---------------------------------------------------------------- staging

/// The staged name of a target's text; a map compiled from it has an ending more. Fixed, so that a start removes exactly these.
fn staged_name(id: &TargetId) -> OsString {
    format!(".relaykey.{}.{}", id.credential, id.target).into()
}

fn remove_leftovers(id: &TargetId, dir: &Directory) -> Result<(), MtaError> {
    let base = staged_name(id);
    for ending in ["", ".db", ".lmdb", ".lmdb-lock", ".cdb", ".cdb.tmp", ".undo"] {
        let mut name = base.clone();
        name.push(ending);
        dir.remove(&name)?;
    }
    Ok(())
}

/// The directory and name of each planned file; files of one directory share it.
fn directories(plan: &Plan) -> Result<Vec<(Arc<Directory>, OsString)>, MtaError> {
    let mut known: Vec<Arc<Directory>> = Vec::new();
    let mut all = Vec::new();
    for file in &plan.files {
        let (dir, name) = Directory::of(&file.path)?;
        let id = dir.id()?;
        let same = known.iter().find(|k| k.id().is_ok_and(|other| other == id)).cloned();
        let dir = same.unwrap_or_else(|| {
            let dir = Arc::new(dir);
            known.push(dir.clone());
            dir
        });
        all.push((dir, name));
    }
    Ok(all)
}

/// Writes the staged copies, compiles, looks every key up in what will go live, and only then gives the files their
/// final owner and mode: `postmap` run as root becomes the owner of the text that it compiles.
fn stage(
    id: &TargetId,
    mta: &dyn Mta,
    plan: Plan,
    dirs: Vec<(Arc<Directory>, OsString)>,
    open: &mut Open,
) -> Result<(), MtaError> {
    if plan.files.is_empty() {
        return Ok(());
    }
    let base = staged_name(id);
    for (dir, _) in &dirs {
        remove_leftovers(id, dir)?;
    }
    let mut source: Option<PathBuf> = None;
    for (file, (dir, live)) in plan.files.iter().zip(dirs) {
        dir.look_replaceable(&live)?;
        let staged = match &file.content {
            Content::Bytes(bytes) => {
                dir.stage(&base, bytes)?;
                open.files.push(StagedFile {
                    dir: dir.clone(),
                    live: live.clone(),
                    staged: base.clone(),
                    seen: file.seen,
                });
                source = Some(dir.path().join(&base));
                continue;
            }
            Content::Compiled => {
                let here = dir.path().join(&base);
                if source.as_ref() != Some(&here) {
                    // The text stays as it is, or stands in another directory: the map is made from a copy beside it.
                    let copy = match open.files.first() {
                        Some(text) => text.dir.read(&text.staged, MAX_OLD)?.0,
                        None => host::read(&plan.text, MAX_OLD)?.0,
                    };
                    dir.stage(&base, &copy)?;
                    open.scaffold.push((dir.clone(), base.clone()));
                }
                let map = mta.compile(&here)?;
                source = Some(here);
                map.file_name()
                    .map(OsStr::to_owned)
                    .ok_or_else(|| refuse("the compiled map has no name", "see postmap"))?
            }
        };
        open.files.push(StagedFile { dir, live, staged, seen: file.seen });
    }
    let Some(source) = source else { return Ok(()) };
    for (key, found) in plan.lookups.iter().zip(mta.lookup(&source, &plan.lookups)?) {
        if found.as_ref() != Some(&open.login) {
            return Err(MtaError {
                temporary: true,
                class: "mismatch",
                file: Some(source),
                line: None,
                what: format!("{key} does not give the candidate in the staged table; it was not put in place"),
                fix: "see that the mail server's table tools work: postmap -q KEY TYPE:FILE".into(),
            });
        }
    }
    for file in &open.files {
        // A new map beside an old text is as closed as the text.
        let like = match file.seen {
            Some(_) => Some(file.live.clone()),
            None => {
                open.files.iter().find(|f| f.seen.is_some() && f.dir.path() == file.dir.path()).map(|f| f.live.clone())
            }
        };
        file.dir.dress(&file.staged, like.as_deref())?;
        if file.dir.look(&file.live)? != file.seen {
            return Err(host::HostError::Changed { path: file.dir.path().join(&file.live) }.into());
        }
    }
    Ok(())
}

/// Puts old bytes back the way new ones went in: staged, dressed, renamed over; a file that was not there goes.
fn put_back(old: &[OldFile]) -> Result<(), MtaError> {
    for file in old {
        match &file.bytes {
            None => {
                file.dir.remove(&file.live)?;
            }
            Some(bytes) => {
                let mut staged = file.staged.clone();
                staged.push(".undo");
                file.dir.remove(&staged)?;
                file.dir.stage(&staged, bytes)?;
                file.dir.dress(&staged, Some(&file.live))?;
                let seen = file.dir.look(&file.live)?;
                file.dir.rename(&staged, &file.live, seen)?;
            }
        }
        file.dir.sync()?;
    }
    Ok(())
}

// ---------------------------------------------------------------- journal and key

/// What apply remembers of each target between `Swap` and `Commit`. No secret.
struct Journal {
    path: PathBuf,
    file: JournalFile,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct JournalFile {
    schema: u32,
    /// By `CREDENTIAL/TARGET`.
    targets: BTreeMap<String, JournalEntry>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct JournalEntry {
    /// The version that was swapped in; `None` once it was undone.
    version: Option<String>,
    /// When: for people, and to compare with the start of the mail server.
    at: Timestamp,
    at_boot: u64,
    boot_id: String,
    reload_owed: Option<ReloadOwed>,
    /// Does the mail server notice only by a reload?
    reload_needed: bool,
    /// User names swapped in since the last commit. A killed run may have left any of them under our keys, and by the
    /// next one the source may give another version.
    #[serde(default)]
    usernames: Vec<String>,
}

impl Journal {
    const NAME: &str = "journal.json";
    const SCHEMA: u32 = 1;
    const MAX: usize = 4 << 20;

    fn load(dir: &Path) -> Result<Self, MtaError> {
        let path = dir.join(Self::NAME);
        let empty = JournalFile { schema: Self::SCHEMA, targets: BTreeMap::new() };
        let file = match std::fs::symlink_metadata(&path) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => empty,
            _ => {
                let (bytes, _) = host::read(&path, Self::MAX)?;
                let broken = |line: Option<usize>, what: String| MtaError {
                    temporary: false,
                    class: "config",
                    file: Some(path.clone()),
                    line,
                    what,
                    fix: "move the file aside: what a killed run had swapped in is then found by looking".into(),
                };
                let file: JournalFile =
                    serde_json::from_slice(&bytes).map_err(|e| broken(Some(e.line()), e.to_string()))?;
                if file.schema > Self::SCHEMA {
                    return Err(broken(None, format!("written by a newer relaykey (schema {})", file.schema)));
                }
                file
            }
        };
        Ok(Self { path, file })
    }

    fn get(&self, id: &TargetId) -> Option<&JournalEntry> {
        self.file.targets.get(&Self::name(id))
    }

    /// Durable when it returns; `None` closes the entry.
    fn set(&mut self, id: &TargetId, entry: Option<JournalEntry>) -> Result<(), MtaError> {
        let mut next = self.file.clone();
        match entry {
            Some(entry) => next.targets.insert(Self::name(id), entry),
            None => next.targets.remove(&Self::name(id)),
        };
        if next != self.file {
            let text = serde_json::to_vec_pretty(&next).expect("a journal has only text keys");
            host::replace(&self.path, &text, 0o600)?;
            self.file = next;
        }
        Ok(())
    }

    fn name(id: &TargetId) -> String {
        format!("{}/{}", id.credential, id.target)
    }
}

/// The key for live ids. Without one, a server that only looks uses a passing one.
fn local_key(dir: &Path, access: Access) -> Result<LocalKey, MtaError> {
    let path = dir.join("key");
    if std::fs::symlink_metadata(&path).is_ok() {
        let (bytes, _) = host::read(&path, 4096)?;
        let key: [u8; 32] = bytes.as_slice().try_into().map_err(|_| MtaError {
            file: Some(path.clone()),
            ..refuse(
                &format!("{} bytes instead of 32", bytes.len()),
                "remove the file: live ids are then made anew, and every target is looked at as drifted once",
            )
        })?;
        return Ok(LocalKey::new(key));
    }
    let mut key = Zeroizing::new([0u8; 32]);
    getrandom::fill(&mut *key)
        .map_err(|e| refuse(&format!("no random numbers: {e}"), "see that the kernel gives random numbers"))?;
    if access == Access::Write {
        host::replace(&path, &*key, 0o600)?;
    }
    Ok(LocalKey::new(*key))
}
