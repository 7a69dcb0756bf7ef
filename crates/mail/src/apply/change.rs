//! One change of one target, from staged files to the renames and back (DESIGN.md, "The swap, exactly").
//!
//! Words: the *staged* file is complete and beside the live one before it is renamed over it; staged names all start
//! with a prefix that is the target's own, so that a start knows what a killed run left. What was replaced is kept as an
//! [`Old`] file until the change is forgotten: in memory, or, where that would take much of it, open. A file that was renamed
//! over has no name any more, which is what a running mail server goes by, and lasts as long as it is open.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use zeroize::Zeroizing;

use super::TargetId;
use super::journal::First;
use crate::fault::{Class, Fault};
use crate::host::{Directory, FileId, HostError};
use crate::mta::table::{MAX_TABLE, same_key};
use crate::mta::{Answer, Content, Logins, Mta, Plan, PlannedFile, ServicePlan, TableId, WantedKey, shown};

/// A file that is replaced is kept in memory up to this size, else open.
const IN_MEMORY: usize = 4 * 1024 * 1024;

/// What the names of a target's staged files start with: no other target's do, and nothing else does.
pub(super) fn prefix(target: &TargetId) -> OsString {
    // Names in the configuration have no dots; should one ever have other bytes, they are spelt out.
    let spell = |name: &str| -> String {
        let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
        name.bytes().map(|b| if plain(b) { char::from(b).to_string() } else { format!("%{b:02x}") }).collect()
    };
    format!(".relaykey.{}.{}.", spell(&target.credential), spell(&target.target)).into()
}

/// What lies there of a target's staged files. Berkeley DB makes a database under a name of its own, in front of which
/// it puts `__db.`, and renames it: a `postmap` that was killed, or found no room, leaves that, and every later one waits
/// for it to go.
pub(super) fn leftovers(directory: &Directory, prefix: &OsStr) -> Result<Vec<OsString>, HostError> {
    let mut left = directory.names_starting(prefix)?;
    let mut passing = OsString::from("__db.");
    passing.push(prefix);
    left.extend(directory.names_starting(&passing)?);
    Ok(left)
}

/// Removes [`leftovers`]; the caller holds the directory's lock. Says whether there were any.
pub(super) fn sweep(directory: &Directory, prefix: &OsStr) -> Result<bool, HostError> {
    let left = leftovers(directory, prefix)?;
    for name in &left {
        directory.remove(name)?;
    }
    if !left.is_empty() {
        directory.sync()?;
    }
    Ok(!left.is_empty())
}

/// A staged file, removed again when dropped unless it was renamed in.
struct Staged {
    directory: Arc<Directory>,
    name: OsString,
    /// Which file it is: a relaykey that does not see our lock may put its own there, or none.
    made: FileId,
    /// Where it goes; `None`: nowhere, it is a copy for the compiler.
    live: Option<OsString>,
    /// The live file as it was when the plan was made.
    seen: Option<FileId>,
    /// The file whose owner, mode and attributes it gets: the live one, else the text that it is compiled from.
    like: Option<(Arc<Directory>, OsString)>,
    /// Who reads it where it is like none.
    group: Option<u32>,
    /// Which table of the plan it is of, counted from 0.
    table: usize,
    present: bool,
}

impl Staged {
    fn path(&self) -> PathBuf {
        self.directory.path().join(&self.name)
    }

    /// Does it become this live file, symbolic links resolved?
    fn becomes(&self, path: &Path) -> bool {
        self.live.as_ref().is_some_and(|live| self.directory.path().join(live) == path)
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        if self.present {
            // Best effort: what cannot be removed now is removed at the next look, by its prefix.
            let _ = self.directory.remove(&self.name);
        }
    }
}

/// A live file that was replaced, as it was.
struct Old {
    directory: Arc<Directory>,
    live: OsString,
    /// `None`: there was no such file.
    content: Option<OldContent>,
    /// The file that ours went over; `None`: there was none, or it still has a name for who has it open, or what went over
    /// it was not all ours.
    over: Option<FileId>,
    /// Our file, in its place.
    ours: FileId,
    /// For the staged copy of `content`.
    staged: OsString,
}

/// A file that was renamed over.
pub(super) struct Over {
    /// Symbolic links resolved.
    pub(super) path: PathBuf,
    /// `None`: there was none, or who has it open does not notice that there is another one.
    pub(super) before: Option<FileId>,
    pub(super) now: Option<FileId>,
}

/// The content of a file that was replaced.
enum OldContent {
    Bytes(Zeroizing<Vec<u8>>),
    Open(File),
}

impl OldContent {
    /// Of the live file, which must be as it was `seen`.
    fn of(directory: &Directory, live: &OsStr, seen: FileId) -> Result<Self, HostError> {
        let (kept, now) = if seen.size <= IN_MEMORY as u64 {
            let (bytes, now) = directory.read(live, IN_MEMORY)?;
            (OldContent::Bytes(bytes), now)
        } else {
            let (file, now) = directory.open_to_read(live)?;
            (OldContent::Open(file), now)
        };
        if now == seen { Ok(kept) } else { Err(HostError::Changed { path: directory.path().join(live) }) }
    }
}

/// Staged files that are verified and complete, in the order in which they are renamed in.
#[derive(Default)]
pub(super) struct StagedChange {
    staged: Vec<Staged>,
    old: Vec<Old>,
}

/// The staged files of one plan, as they are made.
struct Staging<'a> {
    mta: &'a dyn Mta,
    prefix: &'a OsStr,
    /// How many names were taken.
    made: usize,
    staged: Vec<Staged>,
}

impl Staging<'_> {
    /// The next of the target's names: the same for the same plan, and in every directory.
    fn name(&mut self) -> OsString {
        let mut name = self.prefix.to_owned();
        name.push(self.made.to_string());
        self.made += 1;
        name
    }

    /// Where a planned file goes, if that is as it was when it was planned.
    fn place(file: &PlannedFile) -> Result<(Arc<Directory>, OsString), Stopped> {
        let (directory, live) = Directory::of(&file.path)?;
        if directory.look_replaceable(&live)? != file.seen {
            return Err(HostError::Changed { path: file.path.clone() }.into());
        }
        Ok((Arc::new(directory), live))
    }

    /// Stages the text of the table with this number. Gives its staged name.
    fn text(&mut self, table: usize, group: Option<u32>, file: PlannedFile) -> Result<PathBuf, Stopped> {
        let (directory, live) = Self::place(&file)?;
        let Content::Bytes(bytes) = file.content else { return Err(no_text(&file.path).into()) };
        let name = self.name();
        let like = file.seen.map(|_| (Arc::clone(&directory), live.clone()));
        let made = directory.stage(&name, &bytes)?;
        let (live, seen) = (Some(live), file.seen);
        let text = Staged { directory, name, made, live, seen, like, group, table, present: true };
        let path = text.path();
        self.staged.push(text);
        Ok(path)
    }

    /// Stages a text beside a map that is compiled from it; it goes nowhere. Gives its name.
    fn for_the_compiler(
        &mut self,
        table: usize,
        directory: &Arc<Directory>,
        map: &OsStr,
        map_seen: Option<FileId>,
        bytes: &[u8],
    ) -> Result<(OsString, FileId), Stopped> {
        let (name, directory) = (self.name(), Arc::clone(directory));
        let made = directory.stage(&name, bytes)?;
        let like = map_seen.map(|_| (Arc::clone(&directory), map.to_owned()));
        let (live, seen) = (None, None);
        self.staged.push(Staged {
            directory,
            name: name.clone(),
            made,
            live,
            seen,
            like,
            group: None,
            table,
            present: true,
        });
        Ok((name, made))
    }

    /// Has the map of the table with this number compiled from its text: the staged one, else a copy of the live one. Gives the
    /// name of the text that it was compiled from.
    fn map(&mut self, table: usize, id: &TableId, group: Option<u32>, file: PlannedFile) -> Result<PathBuf, Stopped> {
        let (directory, live) = Self::place(&file)?;
        let (of, of_made, of_text) = match file.content {
            Content::Bytes(_) => return Err(no_text(&file.path).into()),
            Content::CompiledOf(bytes) => {
                let (name, made) = self.for_the_compiler(table, &directory, &live, file.seen, &bytes)?;
                (name, made, None)
            }
            Content::Compiled { text, seen } => {
                // Its text must stand beside it for the compiler; where the staged one does not, a copy does.
                let staged_text = self.staged.iter().position(|staged| staged.becomes(&text));
                match staged_text.map(|at| &self.staged[at]) {
                    Some(text) if text.directory.path() == directory.path() => {
                        (text.name.clone(), text.made, text.like.clone())
                    }
                    staged => {
                        let (bytes, of_text) = match staged {
                            Some(text) => (text.directory.read(&text.name, MAX_TABLE)?.0, text.like.clone()),
                            None => {
                                let (directory, name) = Directory::of(&text)?;
                                let (bytes, now) = directory.read(&name, MAX_TABLE)?;
                                if Some(now) != seen {
                                    return Err(HostError::Changed { path: text }.into());
                                }
                                (bytes, Some((Arc::new(directory), name)))
                            }
                        };
                        let (name, made) = self.for_the_compiler(table, &directory, &live, file.seen, &bytes)?;
                        (name, made, of_text)
                    }
                }
            }
        };
        let text = directory.path().join(&of);
        let map = match self.mta.compile(id, &text) {
            Ok(map) => map,
            Err(e) => {
                directory.still(&of, &of_made)?;
                return Err(e.into());
            }
        };
        let name = match (map.parent(), map.file_name()) {
            (Some(at), Some(name)) if at == directory.path() => name.to_owned(),
            _ => return Err(elsewhere(&map, directory.path()).into()),
        };
        let Some(made) = directory.look(&name)? else {
            return Err(HostError::Changed { path: map }.into());
        };
        // Where `hash:` is redirected to another kind (Postfix 3.11), another map goes live than was there.
        let goes_live_as = self.mta.live_map(id, &map)?;
        let (live, seen) = if goes_live_as == file.path {
            (live, file.seen)
        } else {
            let (at, live) = Directory::of(&goes_live_as)?;
            if at.path() != directory.path() {
                return Err(elsewhere(&goes_live_as, directory.path()).into());
            }
            let seen = directory.look_replaceable(&live)?;
            (live, seen)
        };
        let own = seen.map(|_| (Arc::clone(&directory), live.clone()));
        // What a group is to read is not closed to it because its text is.
        let like = own.or(of_text.filter(|_| group.is_none()));
        self.staged.push(Staged { directory, name, made, live: Some(live), seen, like, group, table, present: true });
        Ok(text)
    }
}

/// Why staging or renaming stopped. What was renamed before stays, and can be undone.
pub(super) enum Stopped {
    /// A live file is not the one that the plan saw: plan anew.
    Changed(Fault),
    Failed(Fault),
}

impl From<HostError> for Stopped {
    fn from(e: HostError) -> Self {
        match e {
            HostError::Changed { .. } => Stopped::Changed(e.into()),
            _ => Stopped::Failed(e.into()),
        }
    }
}

impl From<Fault> for Stopped {
    fn from(e: Fault) -> Self {
        Stopped::Failed(e)
    }
}

impl StagedChange {
    /// Writes the staged files of every table of a plan, compiles, and looks every key up in what will go live: in each table
    /// for itself, and as each client service will, through its tables in their order. The caller holds the
    /// locks of the plan's directories and has swept them; after an error it sweeps again, for what a compiler left.
    ///
    /// What an earlier attempt staged goes first; what it replaced stays known.
    pub(super) fn stage(&mut self, mta: &dyn Mta, plan: Plan, logins: &Logins, prefix: &OsStr) -> Result<(), Stopped> {
        self.staged.clear();
        if plan.is_empty() {
            return Ok(());
        }
        let Plan { tables, services, .. } = plan;
        let mut staging = Staging { mta, prefix, made: 0, staged: Vec::new() };
        // Those that are not here are answered by what is live.
        let mut verified: Vec<VerifiedTable> = Vec::new();
        for (n, table) in tables.into_iter().enumerate() {
            let mut text = None;
            if let Some(file) = table.text {
                text = Some(staging.text(n, table.group, file)?);
            }
            if let Some(file) = table.map {
                let compiled = staging.map(n, &table.id, table.group, file)?;
                verify(mta, &table.id, &compiled, &table.lookups, logins)?;
                mta.compare(&table.id, &compiled)?;
                verified.push(VerifiedTable { id: table.id, text: compiled, keys: table.lookups });
            } else if let Some(text) = text {
                verify(mta, &table.id, &text, &table.lookups, logins)?;
                verified.push(VerifiedTable { id: table.id, text, keys: table.lookups });
            }
        }
        for service in &services {
            verify_service(mta, service, &verified, logins)?;
        }
        // What was there for the compiler alone goes.
        staging.staged.retain(|file| file.live.is_some());
        // The final owner comes last: `postmap` run as root becomes the owner of the table that it reads.
        for file in &staging.staged {
            file.directory.still(&file.name, &file.made)?;
            match (&file.like, file.group) {
                (None, Some(group)) => file.directory.dress_for(&file.name, group)?,
                (like, _) => {
                    file.directory.dress(&file.name, like.as_ref().map(|(d, name)| (&**d, name.as_os_str())))?;
                }
            }
        }
        self.staged = staging.staged;
        Ok(())
    }

    /// Is there anything to rename?
    pub(super) fn is_empty(&self) -> bool {
        self.staged.is_empty()
    }

    /// Renames what is staged over the live files, one table after the other, text first, and makes each durable before the
    /// next. Each live file is kept before,
    /// for [`StagedChange::undo`], and looked at again just before it is replaced.
    ///
    /// `first` is called once, when everything is kept and before the first rename.
    pub(super) fn rename(&mut self, first: impl FnOnce(Option<First>) -> Result<(), Fault>) -> Result<(), Stopped> {
        let mut before = Vec::new();
        for file in &self.staged {
            let Some(live) = &file.live else { continue };
            before.push(match file.seen {
                None => None,
                Some(seen) => Some(OldContent::of(&file.directory, live, seen)?),
            });
        }
        // In the order of the renames below.
        let of_first = self.staged.iter().find_map(|file| Some((file.live.as_ref()?, file)));
        let of_first = of_first.filter(|_| self.old.is_empty());
        first(of_first.map(|(live, file)| First { path: file.directory.path().join(live), seen: file.seen }))?;
        let mut before = before.into_iter();
        for n in 0..self.staged.len() {
            let file = &mut self.staged[n];
            if let Some(live) = file.live.clone() {
                let is_gone = file.directory.rename(&file.name, &file.made, &live, file.seen)?;
                file.present = false;
                if file.seen.is_none() {
                    // A new text is durable before its map is there: a map alone looks like a text that somebody lost.
                    file.directory.sync()?;
                }
                let Some(ours) = file.directory.look(&live)? else {
                    return Err(HostError::Changed { path: file.directory.path().join(&live) }.into());
                };
                let content = before.next().flatten();
                // Replaced once more after a change by somebody else: what was there first is what goes back.
                match self.old.iter_mut().find(|o| o.live == live && o.directory.path() == file.directory.path()) {
                    Some(old) => {
                        old.over = old.over.filter(|_| is_gone && file.seen == Some(old.ours));
                        old.ours = ours;
                    }
                    None => {
                        let (directory, staged) = (Arc::clone(&file.directory), file.name.clone());
                        let over = file.seen.filter(|_| is_gone);
                        self.old.push(Old { directory, live, content, over, ours, staged });
                    }
                }
            }
            let table = self.staged[n].table;
            if self.staged.get(n + 1).is_none_or(|next| next.table != table) {
                self.sync(table)?;
            }
        }
        self.staged.clear();
        Ok(())
    }

    /// Makes the renames of one table durable.
    fn sync(&self, table: usize) -> Result<(), HostError> {
        let mut synced: Vec<&Path> = Vec::new();
        for file in self.staged.iter().filter(|file| file.table == table) {
            if !synced.contains(&file.directory.path()) {
                file.directory.sync()?;
                synced.push(file.directory.path());
            }
        }
        Ok(())
    }

    /// Has anything been replaced that could be put back?
    pub(super) fn replaced_any(&self) -> bool {
        !self.old.is_empty()
    }

    /// The files that were replaced, in that order, as they were right after it.
    pub(super) fn in_place(&self) -> Vec<(PathBuf, FileId)> {
        self.old.iter().map(|old| (old.directory.path().join(&old.live), old.ours)).collect()
    }

    /// What our files went over.
    pub(super) fn went_over(&self) -> Vec<Over> {
        let over =
            |old: &Old| Over { path: old.directory.path().join(&old.live), before: old.over, now: Some(old.ours) };
        self.old.iter().map(over).collect()
    }

    /// Puts the old bytes back, the same way, the compiled map before its text: in between the text is new and the map
    /// old, which the next run understands. What is back is forgotten; after an error the rest can be tried again. Gives what
    /// the old bytes went over.
    pub(super) fn undo(&mut self) -> Result<Vec<Over>, HostError> {
        self.staged.clear();
        let mut renamed = Vec::new();
        while let Some(old) = self.old.last() {
            let Old { directory, live, content, over: _, ours, staged } = old;
            if directory.look(live)? != Some(*ours) {
                // Somebody else's change; putting ours back would undo theirs.
                return Err(HostError::Changed { path: directory.path().join(live) });
            }
            let is_gone = match content {
                None => {
                    directory.remove(live)?;
                    false
                }
                Some(content) => {
                    directory.remove(staged)?;
                    let made = match content {
                        OldContent::Bytes(bytes) => directory.stage(staged, bytes)?,
                        OldContent::Open(file) => directory.stage_copy(staged, file)?,
                    };
                    let back = directory
                        .dress(staged, Some((directory, live)))
                        .and_then(|()| directory.rename(staged, &made, live, Some(*ours)));
                    back.inspect_err(|_| {
                        let _ = directory.remove(staged);
                    })?
                }
            };
            let before = Some(*ours).filter(|_| is_gone);
            renamed.push(Over { path: directory.path().join(live), before, now: directory.look(live)? });
            directory.sync()?;
            self.old.pop();
        }
        Ok(renamed)
    }
}

fn elsewhere(map: &Path, directory: &Path) -> Fault {
    Fault::new(
        Class::Unsupported,
        format!("the compiled map did not appear in {}", directory.display()),
        "use a table type that is compiled into a file beside its text",
    )
    .in_file(map.to_owned())
}

fn no_text(file: &Path) -> Fault {
    let fix = "this is a mistake in relaykey: please report it";
    Fault::new(Class::Unsupported, "what is planned for a file is not what that file holds", fix)
        .in_file(file.to_owned())
}

/// Every key must give its login, in what was compiled from this staged text of the table.
fn verify(mta: &dyn Mta, table: &TableId, text: &Path, wanted: &[WantedKey], logins: &Logins) -> Result<(), Fault> {
    let found = mta.lookup(table, Some(text), &keys_of(wanted))?;
    let mut wrong: Vec<String> =
        wanted.iter().enumerate().filter_map(|(n, wanted)| is_wrong(wanted, found.get(n), logins)).collect();
    if wanted.is_empty() {
        wrong.push("no key was named to look up".into());
    }
    refuse(&wrong, &format!("in {table}"))
}

/// A staged table whose look-ups give the login.
struct VerifiedTable {
    id: TableId,
    /// The staged text, by whose name what was compiled from it is asked for.
    text: PathBuf,
    keys: Vec<WantedKey>,
}

fn keys_of(wanted: &[WantedKey]) -> Vec<String> {
    wanted.iter().map(|wanted| wanted.key.clone()).collect()
}

/// Every live key of a service must give the login, from whichever of its tables answers first: a table that is not changed may
/// stand in front of one that is.
fn verify_service(
    mta: &dyn Mta,
    service: &ServicePlan,
    verified: &[VerifiedTable],
    logins: &Logins,
) -> Result<(), Fault> {
    let staged = |table: &TableId| verified.iter().find(|staged| staged.id == *table);
    // What the table that is asked first gives is known.
    let first = service.tables.first().and_then(staged).map_or(&[][..], |first| &first.keys);
    let is_known = |wanted: &WantedKey| {
        first.iter().any(|known| known.endpoint == wanted.endpoint && same_key(&known.key, &wanted.key))
    };
    let keys: Vec<WantedKey> = service.keys.iter().filter(|key| !is_known(key)).cloned().collect();
    let text = |table: &TableId| staged(table).map(|staged| staged.text.as_path());
    let found = look_up(mta, &service.tables, text, &keys_of(&keys))?;
    let wrong: Vec<String> = (keys.iter().zip(&found))
        .filter_map(|(wanted, (answer, table))| {
            let words = is_wrong(wanted, Some(answer), logins)?;
            Some(match table {
                Some(table) => format!("{words} (from {table})"),
                None => words,
            })
        })
        .collect();
    refuse(&wrong, &format!("with it {}", service.service))
}

/// What a client service finds under each of these keys, and in which of its tables: the first that has the key answers, whatever
/// it holds there. `staged`: the staged text of a table that is to be answered from there.
pub(super) fn look_up<'a>(
    mta: &dyn Mta,
    tables: &'a [TableId],
    staged: impl Fn(&TableId) -> Option<&'a Path>,
    keys: &[String],
) -> Result<Vec<(Answer, Option<&'a TableId>)>, Fault> {
    let mut found: Vec<(Answer, Option<&TableId>)> = vec![(Answer::Nothing, None); keys.len()];
    for table in tables {
        let open: Vec<usize> = (0..keys.len()).filter(|at| found[*at].0 == Answer::Nothing).collect();
        if open.is_empty() {
            break;
        }
        let asked: Vec<String> = open.iter().map(|at| keys[*at].clone()).collect();
        let answers = mta.lookup(table, staged(table), &asked)?;
        for (at, answer) in open.into_iter().zip(answers) {
            if answer != Answer::Nothing {
                found[at] = (answer, Some(table));
            }
        }
    }
    Ok(found)
}

/// What is wrong with an answer, in words that show no value.
fn is_wrong(wanted: &WantedKey, answer: Option<&Answer>, logins: &Logins) -> Option<String> {
    let key = shown::quoted_key(&wanted.key, None);
    match answer {
        Some(Answer::Login(is)) if Some(is) == logins.at(wanted.endpoint) => None,
        Some(Answer::Login(_) | Answer::NoLogin) => Some(format!("{key} gives another login")),
        Some(Answer::Nothing) | None => Some(format!("{key} gives nothing")),
    }
}

fn refuse(wrong: &[String], whose: &str) -> Result<(), Fault> {
    if wrong.is_empty() {
        return Ok(());
    }
    Err(Fault::new(
        Class::Mismatch,
        format!("the new table was not put in place, because {whose} {}", wrong.join("; ")),
        "this host's live table is as it was; look in it for lines that take precedence",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn staged_names_are_each_targets_own() {
        let prefix =
            |c: &str, t: &str| prefix(&TargetId { credential: c.into(), target: t.into() }).into_string().unwrap();
        assert_eq!(prefix("ses", "main"), ".relaykey.ses.main.");
        // No prefix is the beginning of another one, whatever the names.
        let names = ["a", "a-b", "a.b", "b", "a.", "%", "a/b", "ü", "main", "main-2"];
        let all: Vec<String> = names.iter().flat_map(|c| names.iter().map(|t| prefix(c, t))).collect();
        for (n, one) in all.iter().enumerate() {
            assert!(!one.contains('/'));
            for (m, other) in all.iter().enumerate() {
                assert!(n == m || !other.starts_with(one.as_str()), "{one} {other}");
            }
        }
    }
}
