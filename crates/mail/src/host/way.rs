//! What a path leads through, for those who have to know whether a file was the one in use all the time: a file that did not
//! change may have been elsewhere for a while, together with its directory, or behind a link that led to another one.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use super::{HostError, MAX_LINKS, Result};

/// Which file, directory or link it is, and when its name, rights or content last changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlaceId {
    /// Device number of the file system.
    pub dev: u64,
    /// Inode number.
    pub ino: u64,
    /// Nanoseconds since 1970.
    pub ctime_ns: i128,
}

impl PlaceId {
    fn of(m: &Metadata) -> Self {
        Self {
            dev: m.dev(),
            ino: m.ino(),
            ctime_ns: i128::from(m.ctime()) * 1_000_000_000 + i128::from(m.ctime_nsec()),
        }
    }

    /// Is it the same one, whatever happened to it?
    pub fn is_same(&self, other: &Self) -> bool {
        (self.dev, self.ino) == (other.dev, other.ino)
    }
}

/// The directories and symbolic links that paths lead through, by where they are, links resolved.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Way {
    links: BTreeMap<String, PlaceId>,
    directories: BTreeMap<String, PlaceId>,
}

impl Way {
    /// Follows a path as a process with this root directory does. Also says what is at its end; `None`: nothing is.
    ///
    /// # Errors
    /// A part of it cannot be looked at.
    pub fn of(root: &Path, path: &Path) -> Result<(Self, Option<PlaceId>)> {
        follow(root, path).map_err(|e| HostError::io("follow the path", path, e))
    }

    /// This way and that one.
    pub fn extend(&mut self, other: Self) {
        self.links.extend(other.links);
        self.directories.extend(other.directories);
    }

    /// Do both lead through the same places?
    pub fn has_the_places_of(&self, other: &Self) -> bool {
        self.links.keys().eq(other.links.keys()) && self.directories.keys().eq(other.directories.keys())
    }

    /// As far as both lead through the same places: can nothing there have been moved away, exchanged and put back since
    /// `before`?
    ///
    /// A link that was has changed, or is another one. A directory that was has changed, and so has the one that it is in; each
    /// alone happens whenever files come and go.
    pub fn is_still(&self, before: &Self) -> bool {
        let changed = |path: &str| {
            let both = self.directories.get(path).zip(before.directories.get(path));
            both.is_some_and(|(now, then)| now != then)
        };
        let moved = |path: &str| {
            let parent = Path::new(path).parent().and_then(Path::to_str);
            changed(path) && parent.is_some_and(changed)
        };
        let link = |(path, now): (&String, &PlaceId)| match before.links.get(path) {
            Some(then) => now == then,
            None => !before.directories.contains_key(path),
        };
        let directory = |(path, now): (&String, &PlaceId)| match before.directories.get(path) {
            Some(then) => now.is_same(then) && !moved(path),
            None => !before.links.contains_key(path),
        };
        self.links.iter().all(link) && self.directories.iter().all(directory)
    }
}

fn follow(root: &Path, path: &Path) -> io::Result<(Way, Option<PlaceId>)> {
    let mut way = Way::default();
    let mut at = PathBuf::from("/");
    let mut place = PlaceId::of(&fs::metadata(root)?);
    way.directories.insert(name(&at), place);
    let mut ahead: Vec<OsString> = Vec::new();
    go_on(&mut ahead, path);
    let mut followed = 0;
    while let Some(part) = ahead.pop() {
        if part == ".." {
            at.pop();
            place = way.directories[&name(&at)];
            continue;
        }
        let next = at.join(&part);
        let here = root.join(next.strip_prefix("/").unwrap_or(&next));
        let found = match fs::symlink_metadata(&here) {
            Ok(found) => found,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok((way, None)),
            Err(e) => return Err(e),
        };
        place = PlaceId::of(&found);
        if found.is_symlink() {
            followed += 1;
            if followed > MAX_LINKS {
                return Err(Errno::LOOP.into());
            }
            way.links.insert(name(&next), place);
            let target = fs::read_link(&here)?;
            if target.is_absolute() {
                at = PathBuf::from("/");
            }
            place = way.directories[&name(&at)];
            go_on(&mut ahead, &target);
        } else if found.is_dir() {
            at = next;
            way.directories.insert(name(&at), place);
        } else if ahead.is_empty() {
            break;
        } else {
            return Err(Errno::NOTDIR.into());
        }
    }
    Ok((way, Some(place)))
}

/// The names of a path, the next one last.
fn go_on(ahead: &mut Vec<OsString>, path: &Path) {
    let parts = path.components().filter_map(|part| match part {
        std::path::Component::Normal(name) => Some(name.to_owned()),
        std::path::Component::ParentDir => Some("..".into()),
        _ => None,
    });
    let parts: Vec<OsString> = parts.collect();
    ahead.extend(parts.into_iter().rev());
}

fn name(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn lab() -> tempfile::TempDir {
        let place = fs::canonicalize(std::env::temp_dir()).unwrap();
        let scratch = tempfile::Builder::new().prefix("relaykey-way-").tempdir_in(place).unwrap();
        let dir = scratch.path();
        fs::create_dir_all(dir.join("etc/a")).unwrap();
        fs::create_dir_all(dir.join("etc/b")).unwrap();
        for file in ["a/file", "b/file"] {
            fs::write(dir.join("etc").join(file), "x").unwrap();
        }
        symlink("a", dir.join("etc/link")).unwrap();
        scratch
    }

    #[test]
    fn what_was_elsewhere_for_a_while_shows() {
        let scratch = lab();
        let dir = scratch.path();
        let file = dir.join("etc/link/file");
        let look = || Way::of(Path::new("/"), &file).unwrap().0;
        let before = look();
        assert!(look().is_still(&before) && look().has_the_places_of(&before));
        // What comes and goes beside the file, or beside its directory.
        for beside in ["etc/a/other", "etc/other"] {
            let before = look();
            fs::write(dir.join(beside), "x").unwrap();
            assert_ne!(look(), before);
            assert!(look().is_still(&before), "{beside}");
        }
        for (from, aside, and_then) in [
            ("etc/a", "etc/a.old", ""),
            ("etc", "etc.old", ""),
            ("etc/a", "etc/a.old", "etc/a/more"),
            ("etc/link", "etc/l", ""),
        ] {
            let before = look();
            fs::rename(dir.join(from), dir.join(aside)).unwrap();
            fs::rename(dir.join(aside), dir.join(from)).unwrap();
            if !and_then.is_empty() {
                fs::write(dir.join(and_then), "x").unwrap();
            }
            assert!(!look().is_still(&before), "{from} {and_then}");
        }
        let before = look();
        for target in ["b", "a"] {
            fs::remove_file(dir.join("etc/link")).unwrap();
            symlink(target, dir.join("etc/link")).unwrap();
        }
        assert!(!look().is_still(&before));
    }

    /// A link that names a place from `/` on means the `/` of who follows it.
    #[test]
    fn links_lead_where_they_lead_from_that_root() {
        let scratch = lab();
        let dir = scratch.path();
        symlink("/etc/b/file", dir.join("etc/absolute")).unwrap();
        let end = |root: &Path, path: &Path| Way::of(root, path).unwrap().1.map(|place| place.ino);
        let b = fs::metadata(dir.join("etc/b/file")).unwrap().ino();
        assert_eq!(end(dir, Path::new("/etc/absolute")), Some(b));
        assert_eq!(end(dir, Path::new("/etc/link/../../../etc/b/file")), Some(b), "not above it");
        assert_eq!(end(dir, Path::new("/etc/none/file")), None);
        assert_eq!(end(dir, Path::new("/etc/b")), Some(fs::metadata(dir.join("etc/b")).unwrap().ino()));
        symlink("round", dir.join("etc/round")).unwrap();
        assert!(Way::of(dir, Path::new("/etc/round")).is_err());
        assert!(Way::of(dir, Path::new("/etc/a/file/x")).is_err());
    }
}
