//! What a program may read that Postfix starts for a user. Root looks for its login, and root may read everything: what that user
//! may not read is not looked into, however a link of theirs leads there. What only root could have put in its place is looked into
//! all the same: a client that is set-group-id, sudo(8) or an access list may let the program in.

use std::fs::{self, Metadata, OpenOptions};
use std::io::Read as _;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;

use rustix::fs::OFlags;
use zeroize::Zeroizing;

/// A larger file is no script, and no settings of a client.
const MOST_BYTES: u64 = 1 << 20;

/// With whose rights a program reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ReadingUser {
    /// With root's, as master(8) starts what stands in master.cf.
    Root,
    /// A user of this host, with one group alone, as pipe(8) and spawn(8) have it.
    User { uid: u32, gid: u32 },
    /// Whoever the mail is for: what everybody may read.
    Anyone,
}

/// What a file is to a reader.
#[derive(Debug, PartialEq)]
pub(super) enum FileText {
    Read(Zeroizing<String>),
    /// There is one, and they may not read it.
    Closed,
    /// There is none, or it is not a text, or too large.
    Absent,
}

impl ReadingUser {
    /// By passwd(5) and group(5). `user`: as the option of pipe(8) names it, `USER` or `USER:GROUP`. One that this host does not have
    /// starts nothing.
    pub(super) fn of_user(user: &str, passwd: &str, groups: &str) -> Self {
        let (name, group) = user.split_once(':').map_or((user, None), |(name, group)| (name, Some(group)));
        let field = |text: &str, name: &str, number: usize| {
            let line = text.lines().find(|line| line.split(':').next() == Some(name))?;
            line.split(':').nth(number)?.parse::<u32>().ok()
        };
        let uid = field(passwd, name, 2);
        let gid = match group.filter(|group| !group.is_empty()) {
            Some(group) => field(groups, group, 2),
            None => field(passwd, name, 3),
        };
        match (uid, gid) {
            (Some(uid), Some(gid)) => Self::User { uid, gid },
            _ => Self::Anyone,
        }
    }

    /// Has this reader the right (4: to read, 1: to go through a directory)? A list of others that are let in is not gone by.
    fn may(self, bit: u32, m: &Metadata) -> bool {
        let of_mode = |shift: u32| m.mode() & (bit << shift) != 0;
        match self {
            Self::Root => true,
            Self::User { uid, .. } if m.uid() == uid => of_mode(6),
            Self::User { gid, .. } if m.gid() == gid => of_mode(3),
            Self::User { .. } | Self::Anyone => of_mode(0),
        }
    }

    /// A regular file that is a text and not too large, as far as this reader may read it.
    pub(super) fn read(self, path: &Path) -> FileText {
        self.try_read(path).unwrap_or(FileText::Absent)
    }

    fn try_read(self, path: &Path) -> Option<FileText> {
        let is_small = |m: &Metadata| m.is_file() && m.len() <= MOST_BYTES;
        fs::metadata(path).ok().filter(is_small)?;
        // What took its place meanwhile may be a pipe that nobody writes to.
        let flags = (OFlags::NONBLOCK | OFlags::NOCTTY).bits().cast_signed();
        let file = OpenOptions::new().read(true).custom_flags(flags).open(path).ok()?;
        // From here on it is about the file that is open, wherever a link leads by now.
        let found = file.metadata().ok().filter(is_small)?;
        let place = fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd())).ok()?;
        let goes_through = |directory: &Path| fs::metadata(directory).is_ok_and(|m| self.may(1, &m));
        let lets_in = self.may(4, &found) && place.ancestors().skip(1).all(goes_through);
        let is_roots = found.uid() == 0 && is_placed_by_root(path) && is_placed_by_root(&place);
        if !lets_in && !is_roots {
            return Some(FileText::Closed);
        }
        let size = found.len();
        let mut bytes = Zeroizing::new(Vec::with_capacity(usize::try_from(size).ok()? + 1));
        file.take(size).read_to_end(&mut bytes).ok()?;
        // Of whatever encoding: what is looked for is ASCII.
        let is_text = !bytes.contains(&0);
        is_text.then(|| FileText::Read(Zeroizing::new(String::from_utf8_lossy(&bytes).into_owned())))
    }
}

/// Can nobody but root say what is at this path: no directory or link on the way that somebody else owns or may change?
pub(super) fn is_placed_by_root(path: &Path) -> bool {
    path.ancestors().all(|part| {
        let of_root = |m: &Metadata| m.uid() == 0 && (m.is_symlink() || m.mode() & 0o022 == 0);
        fs::symlink_metadata(part).is_ok_and(|m| of_root(&m))
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    #[test]
    fn users_by_passwd_and_group() {
        let (passwd, groups) = ("mail:x:8:9::/var/mail:/bin/sh\nodd:x\n", "relay:x:77:\n");
        for (user, expected) in [
            ("mail", ReadingUser::User { uid: 8, gid: 9 }),
            ("mail:", ReadingUser::User { uid: 8, gid: 9 }),
            ("mail:relay", ReadingUser::User { uid: 8, gid: 77 }),
            ("mail:none", ReadingUser::Anyone),
            ("odd", ReadingUser::Anyone),
            ("none", ReadingUser::Anyone),
        ] {
            assert_eq!(ReadingUser::of_user(user, passwd, groups), expected, "{user}");
        }
    }

    /// A set-group-id client of root's reads what root keeps from everybody, and somebody's link to the same leads nowhere.
    #[test]
    fn what_root_alone_could_have_put_there_is_read() {
        let closed = Path::new("/etc/shadow");
        assert_eq!(fs::metadata(closed).unwrap().mode() & 0o004, 0, "everybody may read it");
        assert!(matches!(ReadingUser::Anyone.read(closed), FileText::Read(_)));
        let dir = tempfile::Builder::new().tempdir_in("/tmp").unwrap();
        let link = dir.path().join("link");
        symlink(closed, &link).unwrap();
        assert_eq!(ReadingUser::Anyone.read(&link), FileText::Closed);
        assert!(matches!(ReadingUser::Root.read(&link), FileText::Read(_)));
    }

    #[test]
    fn nobody_reads_more_than_they_may() {
        // Below a place that everybody gets to.
        let dir = tempfile::Builder::new().tempdir_in("/tmp").unwrap();
        let at = |name: &str| dir.path().join(name);
        let mode = |name: &str, mode| fs::set_permissions(at(name), fs::Permissions::from_mode(mode)).unwrap();
        mode("", 0o755);
        fs::create_dir(at("closed")).unwrap();
        for name in ["file", "closed/file"] {
            fs::write(at(name), "x").unwrap();
        }
        symlink(at("file"), at("link")).unwrap();
        let m = fs::metadata(at("file")).unwrap();
        let (owner, group) =
            (ReadingUser::User { uid: m.uid(), gid: 4_000_000 }, ReadingUser::User { uid: 4_000_000, gid: m.gid() });
        let other = ReadingUser::User { uid: 4_000_000, gid: 4_000_000 };
        let reads = |reader: ReadingUser, name: &str| match reader.read(&at(name)) {
            FileText::Read(text) => text.as_str() == "x",
            FileText::Closed => false,
            FileText::Absent => panic!("{name} is there"),
        };
        let all = |name: &str| {
            [ReadingUser::Root, owner, group, other, ReadingUser::Anyone].map(|reader| reads(reader, name))
        };
        for (bits, expected) in [
            (0o600, [true, true, false, false, false]),
            (0o640, [true, true, true, false, false]),
            (0o644, [true, true, true, true, true]),
            // Who is let in by nothing but the rights of others is not let in as the owner.
            (0o004, [true, false, false, true, true]),
        ] {
            mode("file", bits);
            assert_eq!(all("file"), expected, "{bits:o}");
            assert_eq!(all("link"), expected, "{bits:o} behind a link");
        }
        mode("closed", 0o700);
        mode("closed/file", 0o644);
        assert_eq!(all("closed/file"), [true, true, false, false, false]);
        assert_eq!(ReadingUser::Root.read(&at("none")), FileText::Absent);
        assert_eq!(ReadingUser::Root.read(dir.path()), FileText::Absent);
    }
}
