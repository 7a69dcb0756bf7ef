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
use crate::credential::Login;
use crate::fault::{Class, Fault};
use crate::host::{Directory, FileId, HostError};
use crate::mta::table::MAX_TABLE;
use crate::mta::{Content, Mta, Plan};

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
    present: bool,
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
    content: Option<Kept>,
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
enum Kept {
    Bytes(Zeroizing<Vec<u8>>),
    Open(File),
}

impl Kept {
    /// Of the live file, which must be as it was `seen`.
    fn of(directory: &Directory, live: &OsStr, seen: FileId) -> Result<Self, HostError> {
        let (kept, now) = if seen.size <= IN_MEMORY as u64 {
            let (bytes, now) = directory.read(live, IN_MEMORY)?;
            (Kept::Bytes(bytes), now)
        } else {
            let (file, now) = directory.open_to_read(live)?;
            (Kept::Open(file), now)
        };
        if now == seen { Ok(kept) } else { Err(HostError::Changed { path: directory.path().join(live) }) }
    }
}

/// Staged files that are verified and complete, in the order in which they are renamed in.
#[derive(Default)]
pub(super) struct Change {
    staged: Vec<Staged>,
    old: Vec<Old>,
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

impl Change {
    /// Writes the staged files of a plan, compiles, and looks every key up in what will go live. The caller holds the
    /// locks of the plan's directories and has swept them; after an error it sweeps again, for what a compiler left.
    ///
    /// What an earlier attempt staged goes first; what it replaced stays known.
    pub(super) fn stage(&mut self, mta: &dyn Mta, plan: Plan, login: &Login, prefix: &OsStr) -> Result<(), Stopped> {
        self.staged.clear();
        let Plan { files, lookups, .. } = plan;
        let mut staged: Vec<Staged> = Vec::new();
        let mut verified = false;
        for (n, file) in files.into_iter().enumerate() {
            let (directory, live) = Directory::of(&file.path)?;
            let directory = Arc::new(directory);
            if directory.look_replaceable(&live)? != file.seen {
                return Err(HostError::Changed { path: file.path }.into());
            }
            let mut name = prefix.to_owned();
            name.push(n.to_string());
            let like = file.seen.map(|_| (Arc::clone(&directory), live.clone()));
            let put = |live: Option<&OsString>, bytes: &[u8]| -> Result<Staged, HostError> {
                let made = directory.stage(&name, bytes)?;
                let (directory, name, live) = (Arc::clone(&directory), name.clone(), live.cloned());
                Ok(Staged { directory, name, made, live, seen: file.seen, like: like.clone(), present: true })
            };
            match file.content {
                Content::Bytes(bytes) => staged.push(put(Some(&live), &bytes)?),
                Content::Compiled { text, seen } => {
                    // Its text must stand beside it for the compiler; where the staged one does not, a copy does.
                    let (copy, of_text) = match staged.last() {
                        Some(text) if text.directory.path() == directory.path() => (None, text.like.clone()),
                        Some(text) => {
                            let bytes = text.directory.read(&text.name, MAX_TABLE)?.0;
                            (Some(put(None, &bytes)?), text.like.clone())
                        }
                        None => {
                            let (directory, name) = Directory::of(&text)?;
                            let (bytes, now) = directory.read(&name, MAX_TABLE)?;
                            if Some(now) != seen {
                                return Err(HostError::Changed { path: text }.into());
                            }
                            (Some(put(None, &bytes)?), Some((Arc::new(directory), name)))
                        }
                    };
                    let text = copy.as_ref().or(staged.last()).expect("one of both was found above");
                    let (of, of_made) = (text.name.clone(), text.made);
                    let text = directory.path().join(&of);
                    let map = match mta.compile(&text) {
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
                    let goes_live_as = mta.live_map(&map)?;
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
                    let like = own.or(of_text);
                    let map = Staged { directory, name, made, live: Some(live), seen, like, present: true };
                    verify(mta, &text, &lookups, login)?;
                    mta.compare(&text)?;
                    verified = true;
                    staged.push(map);
                }
            }
        }
        if let (false, Some(text)) = (verified, staged.last()) {
            verify(mta, &text.directory.path().join(&text.name), &lookups, login)?;
        }
        // The final owner comes last: `postmap` run as root becomes the owner of the table that it reads.
        for file in &staged {
            file.directory.still(&file.name, &file.made)?;
            file.directory.dress(&file.name, file.like.as_ref().map(|(d, name)| (&**d, name.as_os_str())))?;
        }
        self.staged = staged;
        Ok(())
    }

    /// Is there anything to rename?
    pub(super) fn is_empty(&self) -> bool {
        self.staged.is_empty()
    }

    /// Renames what is staged over the live files, text first, and makes that durable. Each live file is kept before,
    /// for [`Change::undo`], and looked at again just before it is replaced.
    ///
    /// `first` is called once, when everything is kept and before the first rename.
    pub(super) fn rename(&mut self, first: impl FnOnce(Option<First>) -> Result<(), Fault>) -> Result<(), Stopped> {
        let mut before = Vec::new();
        for file in &self.staged {
            let Some(live) = &file.live else { continue };
            before.push(match file.seen {
                None => None,
                Some(seen) => Some(Kept::of(&file.directory, live, seen)?),
            });
        }
        // In the order of the renames below.
        let of_first = self.staged.iter().find_map(|file| Some((file.live.as_ref()?, file)));
        let of_first = of_first.filter(|_| self.old.is_empty());
        first(of_first.map(|(live, file)| First { path: file.directory.path().join(live), seen: file.seen }))?;
        let staged = self.staged.iter_mut().filter_map(|file| Some((file.live.clone()?, file)));
        for ((live, file), content) in staged.zip(before) {
            let is_gone = file.directory.rename(&file.name, &file.made, &live, file.seen)?;
            file.present = false;
            if file.seen.is_none() {
                // A new text is durable before its map is there: a map alone looks like a text that somebody lost.
                file.directory.sync()?;
            }
            let Some(ours) = file.directory.look(&live)? else {
                return Err(HostError::Changed { path: file.directory.path().join(&live) }.into());
            };
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
        let mut synced: Vec<&Path> = Vec::new();
        for file in &self.staged {
            if !synced.contains(&file.directory.path()) {
                file.directory.sync()?;
                synced.push(file.directory.path());
            }
        }
        self.staged.clear();
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
                        Kept::Bytes(bytes) => directory.stage(staged, bytes)?,
                        Kept::Open(file) => directory.stage_copy(staged, file)?,
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

/// Every key must give the login, in the table whose text is `text`.
fn verify(mta: &dyn Mta, text: &Path, keys: &[String], login: &Login) -> Result<(), Fault> {
    let found = mta.lookup(text, keys)?;
    let wrong = |(n, key): (usize, &String)| match found.get(n).and_then(Option::as_ref) {
        Some(is) if is == login => None,
        Some(_) => Some(format!("{key:?} gives another login")),
        None => Some(format!("{key:?} gives nothing")),
    };
    let mut wrong: Vec<String> = keys.iter().enumerate().filter_map(wrong).collect();
    if keys.is_empty() {
        wrong.push("no key was named to look up".into());
    }
    if wrong.is_empty() {
        return Ok(());
    }
    Err(Fault::new(
        Class::Mismatch,
        format!("the new table was not put in place, because in it {}", wrong.join("; ")),
        "this host's live table is as it was; look for lines that take precedence, with postmap -q KEY",
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
