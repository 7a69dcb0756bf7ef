//! `host` against the real operating system, in scratch directories. Everything here runs as root, as the product does.

use crate::lab::acl;
use crate::lab::scratch;

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::Write;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use acl::acl;
use relaykey::fault::Class;
use relaykey::host::{self, Directory, HostError};
use rustix::fs::XattrFlags;
use tempfile::TempDir;

/// A directory of this test alone, gone at its end together with what was mounted in it.
struct Scratch(TempDir);

impl Scratch {
    fn new() -> Self {
        assert!(rustix::process::geteuid().is_root(), "these tests change owners and mount: run them as root");
        Self(scratch::private("host"))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn file(&self, name: &str, content: &str, mode: u32) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        path
    }

    fn dir(&self, name: &str, mode: u32) -> PathBuf {
        let path = self.path(name);
        fs::create_dir(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        for at in mounts.lines().rev().filter_map(|line| line.split(' ').nth(4)) {
            if Path::new(at).starts_with(self.0.path()) {
                let _ = Command::new("umount").arg(at).status();
            }
        }
    }
}

fn mount(arguments: &[&OsStr]) {
    let status = Command::new("mount").args(arguments).status().unwrap();
    assert!(status.success(), "mount {arguments:?}: these tests need the right to mount");
}

const STAGED: &str = ".relaykey.test";

fn staged() -> OsString {
    OsString::from(STAGED)
}

/// Replaces a live file by the staged path that `apply` takes.
fn swap(live: &Path, bytes: &[u8]) -> Result<(), HostError> {
    let (directory, name) = Directory::of(live)?;
    let seen = directory.look_replaceable(&name)?;
    directory.remove(&staged())?;
    let made = directory.stage(&staged(), bytes)?;
    directory.dress(&staged(), seen.map(|_| (&directory, name.as_os_str())))?;
    directory.rename(&staged(), &made, &name, seen)?;
    directory.sync()
}

fn listing(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn xattr(path: &Path, name: &str) -> Option<Vec<u8>> {
    let mut value = Vec::with_capacity(4096);
    match rustix::fs::getxattr(path, name, rustix::buffer::spare_capacity(&mut value)) {
        Ok(_) => Some(value),
        Err(_) => None,
    }
}

fn set_xattr(path: &Path, name: &str, value: &[u8]) {
    rustix::fs::setxattr(path, name, value, XattrFlags::empty()).unwrap_or_else(|e| panic!("{name}: {e}"));
}

const ACL: &str = "system.posix_acl_access";
const DEFAULT_ACL: &str = "system.posix_acl_default";
const NO_ID: u32 = u32::MAX;

/// The owner reads and writes, user 1234 reads, the group and others nothing.
fn acl_for_1234() -> Vec<u8> {
    acl(&[(1, 6, NO_ID), (2, 4, 1234), (4, 0, NO_ID), (0x10, 4, NO_ID), (0x20, 0, NO_ID)])
}

// -- replacing ------------------------------------------------------------------------------------------------------

#[test]
fn owner_mode_acl_and_attributes_follow_the_live_file() {
    let s = Scratch::new();
    let live = s.file("sasl_passwd", "old\n", 0o640);
    chown(&live, Some(1234), Some(4321)).unwrap();
    set_xattr(&live, ACL, &acl_for_1234());
    set_xattr(&live, "user.note", b"kept");
    set_xattr(&live, "security.test", b"label");
    let before = fs::metadata(&live).unwrap();

    swap(&live, b"new\n").unwrap();

    let after = fs::metadata(&live).unwrap();
    assert_eq!(fs::read_to_string(&live).unwrap(), "new\n");
    assert_eq!((after.uid(), after.gid(), after.mode()), (1234, 4321, before.mode()));
    assert_ne!(after.ino(), before.ino(), "replaced, not written in place");
    assert_eq!(xattr(&live, ACL), Some(acl_for_1234()));
    assert_eq!(xattr(&live, "user.note").as_deref(), Some(&b"kept"[..]));
    assert_eq!(xattr(&live, "security.test").as_deref(), Some(&b"label"[..]));
    assert_eq!(listing(s.0.path()), ["sasl_passwd"]);
}

#[test]
fn modes_are_copied_whatever_the_umask_gives() {
    let s = Scratch::new();
    for mode in [0o400, 0o600, 0o640, 0o644, 0o660] {
        let live = s.file(&format!("m{mode:o}"), "old", mode);
        swap(&live, b"new").unwrap();
        assert_eq!(fs::metadata(&live).unwrap().mode() & 0o7777, mode, "{mode:o}");
    }
}

/// Without this, the ACL that the directory gives to new files would open the successor to user 1234.
#[test]
fn a_default_acl_of_the_directory_does_not_open_the_successor() {
    let s = Scratch::new();
    set_xattr(s.0.path(), DEFAULT_ACL, &acl_for_1234());
    let live = s.file("sasl_passwd", "old", 0o640);
    rustix::fs::removexattr(&live, ACL).unwrap();
    fs::set_permissions(&live, fs::Permissions::from_mode(0o640)).unwrap();

    swap(&live, b"new").unwrap();
    assert_eq!((xattr(&live, ACL), fs::metadata(&live).unwrap().mode() & 0o7777), (None, 0o640));

    let fresh = s.path("fresh");
    swap(&fresh, b"new").unwrap();
    assert_eq!((xattr(&fresh, ACL), fs::metadata(&fresh).unwrap().mode() & 0o7777), (None, 0o600));
}

#[test]
fn a_new_file_is_0600_and_ours() {
    let s = Scratch::new();
    let live = s.path("sasl_passwd");
    swap(&live, b"new").unwrap();
    let m = fs::metadata(&live).unwrap();
    assert_eq!((m.uid(), m.gid(), m.mode() & 0o7777), (0, 0, 0o600));
}

#[test]
fn a_staged_file_is_0600_and_ours_until_it_is_dressed() {
    let s = Scratch::new();
    let live = s.file("sasl_passwd", "old", 0o644);
    chown(&live, Some(1234), Some(4321)).unwrap();
    let (directory, _) = Directory::of(&live).unwrap();
    directory.stage(&staged(), b"secret").unwrap();
    let m = fs::metadata(s.path(STAGED)).unwrap();
    assert_eq!((m.uid(), m.gid(), m.mode() & 0o7777), (0, 0, 0o600));
}

#[test]
fn symbolic_links_stay_and_what_they_lead_to_is_replaced() {
    let s = Scratch::new();
    s.dir("real", 0o755);
    s.file("real/sasl_passwd", "old", 0o600);
    symlink("real", s.path("link-dir")).unwrap();
    symlink("../link-dir/sasl_passwd", s.path("real/relative")).unwrap();
    symlink(s.path("real/relative"), s.path("absolute")).unwrap();

    swap(&s.path("absolute"), b"new").unwrap();

    assert_eq!(fs::read_to_string(s.path("real/sasl_passwd")).unwrap(), "new");
    for link in ["link-dir", "real/relative", "absolute"] {
        assert!(fs::symlink_metadata(s.path(link)).unwrap().is_symlink(), "{link}");
    }
    let (directory, name) = Directory::of(&s.path("absolute")).unwrap();
    assert_eq!((directory.path(), name.as_os_str()), (s.path("real").as_path(), OsStr::new("sasl_passwd")));
}

#[test]
fn a_link_that_leads_nowhere_names_the_file_to_be_made() {
    let s = Scratch::new();
    symlink("later", s.path("sasl_passwd")).unwrap();
    swap(&s.path("sasl_passwd"), b"new").unwrap();
    assert_eq!(fs::read_to_string(s.path("later")).unwrap(), "new");
}

#[test]
fn links_in_a_circle_are_an_error() {
    let s = Scratch::new();
    symlink("b", s.path("a")).unwrap();
    symlink("a", s.path("b")).unwrap();
    let e = Directory::of(&s.path("a")).unwrap_err();
    assert!(e.fix().contains("namei"), "{e}: {}", e.fix());
}

#[test]
fn what_was_changed_since_is_not_replaced() {
    let s = Scratch::new();
    type Change = fn(&Path);
    let changes: [(&str, Change); 5] = [
        ("written", |p| fs::write(p, "oLd").unwrap()),
        ("mode", |p| fs::set_permissions(p, fs::Permissions::from_mode(0o640)).unwrap()),
        ("linked", |p| fs::hard_link(p, p.with_extension("hard")).unwrap()),
        ("gone", |p| fs::remove_file(p).unwrap()),
        ("replaced", |p| {
            fs::write(p.with_extension("n"), "old").unwrap();
            fs::rename(p.with_extension("n"), p).unwrap();
        }),
    ];
    for (name, change) in changes {
        let live = s.file(name, "old", 0o600);
        let (directory, file) = Directory::of(&live).unwrap();
        let (_, seen) = directory.read(&file, 100).unwrap();
        let made = directory.stage(&staged(), b"new").unwrap();
        change(&live);
        let e = directory.rename(&staged(), &made, &file, Some(seen)).unwrap_err();
        assert!(matches!(e, HostError::Changed { .. }) && e.is_temporary(), "{name}: {e}");
        assert!(fs::read(&live).unwrap_or_default() != b"new", "{name}");
        directory.remove(&staged()).unwrap();
    }
    // One that was not there when it was looked for is not replaced either.
    let (directory, file) = Directory::of(&s.path("new")).unwrap();
    let made = directory.stage(&staged(), b"new").unwrap();
    s.file("new", "somebody's", 0o600);
    assert!(matches!(directory.rename(&staged(), &made, &file, None), Err(HostError::Changed { .. })));
    assert_eq!(fs::read_to_string(s.path("new")).unwrap(), "somebody's");
}

/// Two relaykeys that do not see each other's lock have the same staged names.
#[test]
fn a_staged_file_that_was_exchanged_goes_nowhere() {
    let s = Scratch::new();
    let live = s.file("live", "old", 0o600);
    let (directory, file) = Directory::of(&live).unwrap();
    let at = s.path(STAGED);
    type Exchange = fn(&Path);
    let exchanges: [(&str, Exchange); 4] = [
        ("empty", |p| {
            fs::remove_file(p).unwrap();
            fs::write(p, "").unwrap();
        }),
        ("another of the same size", |p| {
            fs::write(p.with_extension("n"), "xyz").unwrap();
            fs::rename(p.with_extension("n"), p).unwrap();
        }),
        ("cut", |p| fs::write(p, "").unwrap()),
        ("gone", |p| fs::remove_file(p).unwrap()),
    ];
    for (name, exchange) in exchanges {
        for seen in [directory.look(&file).unwrap(), None] {
            let to = if seen.is_some() { file.clone() } else { OsString::from("another") };
            let made = directory.stage(&staged(), b"new").unwrap();
            directory.dress(&staged(), None).unwrap();
            exchange(&at);
            let e = directory.rename(&staged(), &made, &to, seen).unwrap_err();
            assert!(matches!(e, HostError::Changed { .. }) && e.is_temporary(), "{name}: {e}");
            assert!(!e.fix().contains("create"), "{name}: {}", e.fix());
            assert_eq!(
                (fs::read_to_string(&live).unwrap().as_str(), s.path("another").exists()),
                ("old", false),
                "{name}"
            );
            directory.remove(&staged()).unwrap();
        }
    }
    // What its own dressing did to it makes it no other one; a name that is taken is for a moment.
    directory.stage(&staged(), b"new").unwrap();
    let e = directory.stage(&staged(), b"new").unwrap_err();
    assert!(matches!(e, HostError::Changed { .. }) && e.is_temporary(), "{e}");
    swap(&live, b"new").unwrap();
}

#[test]
fn a_file_with_a_second_name_is_refused_by_name() {
    let s = Scratch::new();
    let live = s.file("sasl_passwd", "old", 0o600);
    fs::hard_link(&live, s.path("other")).unwrap();
    let e = swap(&live, b"new").unwrap_err();
    assert!(matches!(e, HostError::Linked { links: 2, .. }) && e.to_string().contains("2 hard links"), "{e}");
    assert!(e.fix().contains("-samefile") && !e.is_temporary());
    assert_eq!((fs::read_to_string(&live).unwrap(), listing(s.0.path()).len()), ("old".into(), 2));
}

#[test]
fn a_single_file_bind_mount_is_refused_by_name() {
    let s = Scratch::new();
    let (source, live) = (s.file("source", "old", 0o600), s.file("sasl_passwd", "", 0o600));
    mount(&["--bind".as_ref(), source.as_ref(), live.as_ref()]);
    let e = swap(&live, b"new").unwrap_err();
    assert!(matches!(e, HostError::BindMount { .. }) && e.to_string().contains("bind mount"), "{e}");
    assert!(e.fix().contains("mount the directory"));
    // And where the kernel does not tell beforehand, the rename does.
    let (directory, name) = Directory::of(&live).unwrap();
    let seen = directory.look(&name).unwrap();
    let made = directory.stage(&staged(), b"new").unwrap();
    assert!(matches!(directory.rename(&staged(), &made, &name, seen), Err(HostError::BindMount { .. })));
    assert_eq!(fs::read_to_string(&live).unwrap(), "old");
}

#[test]
fn only_regular_files_are_read_and_nothing_blocks() {
    let s = Scratch::new();
    let fifo = s.path("fifo");
    rustix::fs::mkfifoat(rustix::fs::CWD, &fifo, rustix::fs::Mode::from_raw_mode(0o600)).unwrap();
    s.dir("dir", 0o700);
    let _socket = std::os::unix::net::UnixListener::bind(s.path("socket")).unwrap();
    for (path, what) in [(fifo, "a FIFO"), (s.path("dir"), "a directory"), (s.path("socket"), "a socket")] {
        let e = host::read(&path, 100).unwrap_err();
        assert!(e.to_string().contains(what), "{e}");
    }
}

#[test]
fn reading_is_bounded_and_a_missing_file_is_told_apart() {
    let s = Scratch::new();
    let file = s.file("f", "12345", 0o600);
    assert_eq!(&*host::read(&file, 5).unwrap().0, b"12345");
    assert!(matches!(host::read(&file, 4), Err(HostError::TooLarge { size: 5, max: 4, .. })));
    let e = host::read(&s.path("none"), 5).unwrap_err();
    assert!(e.is_not_found() && e.path() == Some(s.path("none").as_path()), "{e}");
    // A file of /proc says size 0 and has content: not mistaken for an empty one.
    assert!(matches!(host::read(Path::new("/proc/version"), 4096), Err(HostError::Changed { .. })));
}

// -- directories ----------------------------------------------------------------------------------------------------

#[test]
fn directories_that_others_may_change_are_refused() {
    let s = Scratch::new();
    for (name, mode, uid, said) in [
        ("group", 0o775, 0, "may be changed by others (mode 0775)"),
        ("world", 0o777, 0, "may be changed by others (mode 0777)"),
        ("foreign", 0o755, 1234, "belongs to user id 1234"),
        ("sticky", 0o1777, 0, "lets others make files (mode 1777)"),
    ] {
        let dir = s.dir(name, mode);
        chown(&dir, Some(uid), None).unwrap();
        let file = s.file(&format!("{name}/sasl_passwd"), "old", 0o600);
        let e = swap(&file, b"new").unwrap_err();
        assert!(matches!(&e, HostError::UnsafeDirectory { directory, .. } if *directory == dir), "{e}");
        assert!(e.to_string().contains(said), "{e}");
        assert_eq!((listing(&dir), e.is_temporary()), (vec!["sasl_passwd".to_owned()], false));
        assert_eq!(
            e.fix().contains("chmod"),
            mode != 0o1777,
            "no advice takes a sticky directory from others: {}",
            e.fix()
        );
        assert!(e.fix().contains(" # "), "{}", e.fix());
    }
}

#[test]
fn a_sticky_directory_above_is_fine_where_the_next_step_is_ours() {
    let s = Scratch::new();
    s.dir("tmp", 0o1777);
    s.dir("tmp/ours", 0o700);
    s.file("tmp/ours/f", "old", 0o600);
    swap(&s.path("tmp/ours/f"), b"new").unwrap();

    let theirs = s.dir("tmp/theirs", 0o700);
    s.file("tmp/theirs/f", "old", 0o600);
    chown(&theirs, Some(1234), None).unwrap();
    assert!(matches!(swap(&s.path("tmp/theirs/f"), b"new"), Err(HostError::UnsafeDirectory { .. })));

    // A link that another user put there leads where they please.
    let link = s.path("tmp/link");
    symlink("ours", &link).unwrap();
    std::os::unix::fs::lchown(&link, Some(1234), None).unwrap();
    assert!(matches!(swap(&s.path("tmp/link/f"), b"x"), Err(HostError::UnsafeDirectory { .. })));
    std::os::unix::fs::lchown(&link, Some(0), None).unwrap();
    swap(&s.path("tmp/link/f"), b"newer").unwrap();
}

#[test]
fn in_a_sticky_directory_a_directory_of_ours_is_made_and_nothing_else() {
    let s = Scratch::new();
    s.dir("run", 0o1777);
    for _ in 0..2 {
        let made = host::create_dir(&s.path("run/ours"), 0o700).unwrap();
        assert_eq!(made.path(), s.path("run/ours"));
        let m = fs::metadata(made.path()).unwrap();
        assert_eq!((m.uid(), m.mode() & 0o7777), (0, 0o700));
    }
    swap(&s.path("run/ours/f"), b"new").unwrap();
    host::create_dir(&s.path("run/ours/below"), 0o700).unwrap();
    // Somebody else was first: with a directory, open or closed, or with a link to where they please.
    for mode in [0o700, 0o777] {
        let theirs = s.dir("run/theirs", mode);
        chown(&theirs, Some(1), None).unwrap();
        let e = host::create_dir(&theirs, 0o700).unwrap_err();
        let said = format!("let user id 1 (daemon) make {} (mode 1777)", theirs.display());
        assert!(matches!(&e, HostError::UnsafeDirectory { .. }) && e.to_string().contains(&said), "{e}");
        // What others have in a sticky directory is not to be taken from them.
        assert!(e.fix().starts_with("ls -ld ") && !e.fix().contains("chmod"), "{}", e.fix());
        assert_eq!((fs::metadata(&theirs).unwrap().mode() & 0o7777, e.is_temporary()), (mode, false));
        fs::remove_dir(&theirs).unwrap();
    }
    let link = s.path("run/link");
    symlink(s.path("elsewhere"), &link).unwrap();
    std::os::unix::fs::lchown(&link, Some(1), None).unwrap();
    assert!(matches!(host::create_dir(&link, 0o700), Err(HostError::UnsafeDirectory { .. })));
    assert!(!s.path("elsewhere").exists());
    // Of ours, but everybody may write to it.
    let open = s.dir("run/open", 0o777);
    assert!(matches!(host::create_dir(&open, 0o700), Err(HostError::UnsafeDirectory { .. })));
    // Where everybody may also take it away again, nothing is made; nor are files of ours in a sticky one.
    s.dir("world", 0o777);
    assert!(matches!(host::create_dir(&s.path("world/ours"), 0o700), Err(HostError::UnsafeDirectory { .. })));
    assert!(matches!(host::create_dir(&s.path("run"), 0o700), Err(HostError::UnsafeDirectory { .. })));
    assert!(matches!(host::replace(&s.path("run/f"), b"x", 0o600), Err(HostError::UnsafeDirectory { .. })));
    assert_eq!(listing(&s.path("run")), ["link", "open", "ours"]);
}

#[test]
fn a_link_over_a_hostile_directory_is_seen_through() {
    let s = Scratch::new();
    s.dir("world", 0o777);
    s.dir("world/inner", 0o700);
    s.file("world/inner/f", "old", 0o600);
    symlink("world/inner", s.path("nice")).unwrap();
    let e = swap(&s.path("nice/f"), b"new").unwrap_err();
    assert!(matches!(&e, HostError::UnsafeDirectory { directory, .. } if *directory == s.path("world")), "{e}");
    assert!(e.fix().contains("chmod go-w") && e.fix().contains(&s.path("world").display().to_string()), "{}", e.fix());
    // Going up again does not make it better.
    assert!(Directory::open(&s.path("world/inner/../../world")).is_err());
    assert_eq!(Directory::open(&s.path("world/..")).map(|_| ()).unwrap_err().class(), Class::Permissions);
}

#[test]
fn work_goes_on_in_the_directory_that_was_checked() {
    let s = Scratch::new();
    let dir = s.dir("dir", 0o700);
    let live = s.file("dir/f", "old", 0o600);
    let (directory, name) = Directory::of(&live).unwrap();
    let seen = directory.look(&name).unwrap();
    let made = directory.stage(&staged(), b"new").unwrap();
    fs::rename(&dir, s.path("moved")).unwrap();
    s.dir("dir", 0o700);
    s.file("dir/f", "decoy", 0o600);
    directory.rename(&staged(), &made, &name, seen).unwrap();
    assert_eq!(fs::read_to_string(s.path("moved/f")).unwrap(), "new");
    assert_eq!(fs::read_to_string(s.path("dir/f")).unwrap(), "decoy");
}

#[test]
fn a_staged_name_that_is_taken_is_never_followed() {
    let s = Scratch::new();
    let victim = s.file("victim", "precious", 0o600);
    symlink(&victim, s.path(STAGED)).unwrap();
    let directory = Directory::open(s.0.path()).unwrap();
    assert!(directory.stage(&staged(), b"new").is_err());
    assert_eq!(fs::read_to_string(&victim).unwrap(), "precious");
    assert_eq!(directory.names_starting(OsStr::new(".relaykey.")).unwrap(), [staged()]);
    assert!(directory.names_starting(OsStr::new(".relaykey.other.")).unwrap().is_empty());
    assert!(directory.remove(&staged()).unwrap(), "the link itself is removed");
    assert!(!directory.remove(&staged()).unwrap());
    assert!(victim.exists());
}

#[test]
fn state_files_and_directories_get_exactly_their_mode() {
    let s = Scratch::new();
    let made = host::create_dir(&s.path("state"), 0o710).unwrap();
    assert_eq!(made.path(), s.path("state"));
    assert_eq!(fs::metadata(s.path("state")).unwrap().mode() & 0o7777, 0o710);
    host::create_dir(&s.path("state"), 0o700).unwrap();
    assert_eq!(fs::metadata(s.path("state")).unwrap().mode() & 0o7777, 0o710, "one that exists stays as it is");
    for (content, mode) in [("one", 0o600), ("two", 0o644), ("three", 0o600)] {
        host::replace(&s.path("state/s.json"), content.as_bytes(), mode).unwrap();
        assert_eq!(fs::read_to_string(s.path("state/s.json")).unwrap(), content);
        assert_eq!(fs::metadata(s.path("state/s.json")).unwrap().mode() & 0o7777, mode);
    }
    assert_eq!(listing(&s.path("state")), ["s.json"]);
    // What a killed run left under the staged name is in nobody's way.
    s.file("state/.s.json.new", "half", 0o600);
    host::replace(&s.path("state/s.json"), b"four", 0o600).unwrap();
    assert_eq!(listing(&s.path("state")), ["s.json"]);
    assert!(host::create_dir(&s.path("no/such"), 0o700).unwrap_err().is_not_found());
    assert!(host::create_dir(&s.path("state/s.json"), 0o700).is_err());
}

#[test]
fn what_is_added_to_a_file_stands_at_its_end_and_once() {
    let s = Scratch::new();
    let (directory, name) = (Directory::open(s.0.path()).unwrap(), OsStr::new("log"));
    let content = || fs::read_to_string(s.path("log")).unwrap();
    directory.append(name, 0, b"one\n").unwrap();
    assert_eq!(fs::metadata(s.path("log")).unwrap().mode() & 0o7777, 0o600);
    let id = directory.append(name, 4, b"two\n").unwrap();
    assert_eq!((content().as_str(), directory.look(name).unwrap()), ("one\ntwo\n", Some(id)));
    // What an earlier try left of the same bytes is written over.
    fs::write(s.path("log"), "one\ntwo\nth\0\0").unwrap();
    directory.append(name, 8, b"three\n").unwrap();
    assert_eq!(content(), "one\ntwo\nthree\n");
    assert_eq!(directory.append(name, 14, b"").unwrap().size, 14);
    assert!(matches!(directory.append(name, 15, b"four\n"), Err(HostError::Changed { .. })));
    assert!(matches!(directory.append(OsStr::new("none"), 1, b"x"), Err(HostError::Changed { .. })));
    assert!(!s.path("none").exists());
    let victim = s.file("victim", "precious", 0o600);
    symlink(&victim, s.path("link")).unwrap();
    assert!(matches!(directory.append(OsStr::new("link"), 8, b"x"), Err(HostError::NotRegular { .. })));
    assert_eq!(fs::read_to_string(&victim).unwrap(), "precious");
    for (max, expected) in
        [(0, ("", 14)), (6, ("three\n", 8)), (14, ("one\ntwo\nthree\n", 0)), (99, ("one\ntwo\nthree\n", 0))]
    {
        let (bytes, before) = directory.read_end(name, max).unwrap();
        assert_eq!((String::from_utf8(bytes).unwrap().as_str(), before), expected);
    }
}

/// A full file system leaves a part of what was to be added; the next try, with room, completes it.
#[test]
fn what_a_full_file_system_cut_off_is_completed_later() {
    let s = Scratch::new();
    let dir = s.dir("small", 0o700);
    mount(&["-t".as_ref(), "tmpfs".as_ref(), "-o".as_ref(), "size=64k,mode=0700".as_ref(), "t".as_ref(), dir.as_ref()]);
    let ballast = s.file("small/ballast", &"x".repeat(56 * 1024), 0o600);
    let (directory, name, line) = (Directory::open(&dir).unwrap(), OsStr::new("log"), vec![b'y'; 20 * 1024]);
    let e = directory.append(name, 0, &line).unwrap_err();
    assert!(e.is_temporary() && e.class() == Class::NoSpace && e.to_string().starts_with("cannot append to "), "{e}");
    assert!((1..line.len() as u64).contains(&fs::metadata(s.path("small/log")).unwrap().len()), "a part is there");
    fs::remove_file(ballast).unwrap();
    directory.append(name, 0, &line).unwrap();
    assert_eq!(fs::read(s.path("small/log")).unwrap(), line);
}

// -- what stands in the way -----------------------------------------------------------------------------------------

#[test]
fn a_full_file_system_is_temporary_and_leaves_the_old_file_and_nothing_else() {
    let s = Scratch::new();
    let dir = s.dir("small", 0o700);
    mount(&["-t".as_ref(), "tmpfs".as_ref(), "-o".as_ref(), "size=64k,mode=0700".as_ref(), "t".as_ref(), dir.as_ref()]);
    let live = s.file("small/sasl_passwd", "old", 0o600);
    let big = vec![b'x'; 200 * 1024];
    for e in [swap(&live, &big).unwrap_err(), host::replace(&live, &big, 0o600).unwrap_err()] {
        assert!(e.is_temporary() && e.class() == Class::NoSpace && e.fix().contains("free space"), "{e}");
    }
    assert_eq!((fs::read_to_string(&live).unwrap(), listing(&dir)), ("old".into(), vec!["sasl_passwd".into()]));
    swap(&live, b"new").unwrap();
}

#[test]
fn read_only_and_immutable_are_for_people_to_mend() {
    let s = Scratch::new();
    let dir = s.dir("ro", 0o700);
    let live = s.file("ro/f", "old", 0o600);
    mount(&["--bind".as_ref(), dir.as_ref(), dir.as_ref()]);
    mount(&["-o".as_ref(), "remount,bind,ro".as_ref(), dir.as_ref()]);
    let e = swap(&live, b"new").unwrap_err();
    assert!(!e.is_temporary() && e.class() == Class::Permissions && e.fix().contains("ReadWritePaths"), "{e}");

    let fixed = s.file("fixed", "old", 0o600);
    let chattr = |flag: &str| Command::new("chattr").arg(flag).arg(&fixed).status().unwrap().success();
    assert!(chattr("+i"), "chattr +i: this test needs a file system with the immutable flag");
    let e = swap(&fixed, b"new").unwrap_err();
    assert!(chattr("-i"));
    assert!(!e.is_temporary() && e.class() == Class::Permissions && e.fix().contains("chattr -i"), "{e}");
    assert_eq!(fs::read_to_string(&fixed).unwrap(), "old");

    // A directory's flag is the directory's to lose, whichever name could not be made in it.
    let dir = s.dir("fixed dir", 0o700);
    let chattr = |flag: &str| Command::new("chattr").arg(flag).arg(&dir).status().unwrap().success();
    assert!(chattr("+i"));
    let made = swap(&dir.join("f"), b"new").unwrap_err();
    assert!(chattr("-i"));
    let fix = format!("lsattr -d {}`", dir.display());
    assert!(made.fix().contains(&fix), "{}", made.fix());
}

#[test]
fn what_helps_against_a_missing_place_for_locks_goes_by_what_is_wrong() {
    let fix = |e: rustix::io::Errno| {
        HostError::NoLockPlace { doing: "make the directory", path: host::LOCK_PLACE.into(), source: e.into() }.fix()
    };
    use rustix::io::Errno;
    assert_eq!(fix(Errno::NOENT), "mkdir -p -m 0700 /run/relaykey-lock # then restart relaykey");
    assert!(fix(Errno::ROFS).contains("ReadWritePaths=-/run/relaykey-lock"));
    assert!(fix(Errno::NOSPC).starts_with("free space"));
    assert!(fix(Errno::NOTDIR).starts_with("ls -ld /run/relaykey-lock #"));
    assert!(fix(Errno::LOOP).starts_with("ls -ld /run/relaykey-lock #"));
    assert!(fix(Errno::PERM).contains("lsattr -d /run`"));
}

/// Whether it is the file system or a quota that has no room, only the words of the operating system differ.
#[test]
fn a_used_up_quota_is_told_as_a_full_file_system_is() {
    use rustix::io::Errno;
    let of = |e: Errno| HostError::Io { doing: "write to", path: "/etc/postfix/sasl_passwd".into(), source: e.into() };
    let (full, quota) = (of(Errno::NOSPC), of(Errno::DQUOT));
    let told = |e: &HostError| (e.class(), e.is_temporary(), e.fix());
    assert_eq!(told(&full), told(&quota));
    assert_eq!((full.class(), full.is_temporary()), (relaykey::fault::Class::NoSpace, true));
    assert!(full.fix().contains("quota"), "{}", full.fix());
    assert!(quota.to_string().contains("quota"), "{quota}");
}

#[test]
fn a_lock_that_is_held_names_its_holder_and_ends_with_it() {
    let s = Scratch::new();
    let lock_it = |wait| Directory::open(s.0.path()).and_then(|directory| directory.lock(wait));
    let lock = lock_it(Duration::ZERO).unwrap();
    let started = Instant::now();
    let e = lock_it(Duration::from_millis(120)).unwrap_err();
    assert!(started.elapsed() >= Duration::from_millis(120), "it waited");
    assert!(e.is_temporary() && e.class() == Class::LockHeld, "{e}");
    assert!(e.to_string().contains(&format!("process {} (", std::process::id())), "{e}");
    drop(lock);
    let again = lock_it(Duration::ZERO).unwrap();

    // It becomes free while somebody waits.
    let path = s.0.path().to_owned();
    let waiter =
        std::thread::spawn(move || Directory::open(&path).and_then(|d| d.lock(Duration::from_secs(20))).map(drop));
    std::thread::sleep(Duration::from_millis(60));
    drop(again);
    waiter.join().unwrap().unwrap();

    // Another process holds it.
    let mut other =
        with_pipes(Command::new("flock").arg(lock_file(s.0.path())).args(["sh", "-c", "echo held; read end"]));
    wait_for_line(&mut other);
    let e = lock_it(Duration::ZERO).unwrap_err();
    assert!(e.to_string().contains("(flock)") || e.to_string().contains("(sh)"), "{e}");
    drop(other.stdin.take());
    other.wait().unwrap();
    lock_it(Duration::from_secs(10)).unwrap();
}

/// A child has what its parent holds open until it runs its program, and another thread may start one at any moment.
#[test]
fn a_lock_that_was_let_go_is_free_whatever_is_being_started() {
    let s = Scratch::new();
    fs::set_permissions(s.0.path(), fs::Permissions::from_mode(0o700)).unwrap();
    let (directory, ended) = (Directory::open(s.0.path()).unwrap(), std::sync::atomic::AtomicBool::new(false));
    let order = std::sync::atomic::Ordering::SeqCst;
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while !ended.load(order) {
                    assert!(Command::new("true").status().unwrap().success());
                }
            });
        }
        let still_held = (0..3000).find_map(|n| {
            let again = [directory.lock(Duration::ZERO).map(drop), directory.lock_own(Duration::ZERO).map(drop)];
            again.into_iter().find_map(Result::err).map(|e| (n, e.to_string()))
        });
        ended.store(true, order);
        assert_eq!(still_held, None);
    });
}

/// Where root's lock for a directory is.
fn lock_file(directory: &Path) -> PathBuf {
    let at = fs::metadata(directory).unwrap();
    let (major, minor) = (rustix::fs::major(at.dev()), rustix::fs::minor(at.dev()));
    Path::new(host::LOCK_PLACE).join(format!("{major}:{minor}-{}", at.ino()))
}

/// Whoever can read a directory can lock it; that is not our lock.
#[test]
fn no_other_user_can_hold_a_lock() {
    let s = Scratch::new();
    fs::set_permissions(s.0.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let run = |wait| {
        let directory = Directory::open(s.0.path()).unwrap();
        (directory.lock(wait).map(drop), directory.lock_own(wait).map(drop))
    };
    let mut other = with_pipes(
        Command::new("setpriv")
            .args(["--reuid=65534", "--regid=65534", "--clear-groups", "flock"])
            .arg(s.0.path())
            .args(["sh", "-c", "echo held; read end"]),
    );
    wait_for_line(&mut other);
    let (foreign, own) = run(Duration::ZERO);
    foreign.unwrap();
    own.unwrap();
    // Nor by the files that are locked instead.
    for file in [lock_file(s.0.path()), s.0.path().join("lock")] {
        assert_eq!(fs::metadata(&file).unwrap().mode() & 0o7777, 0o600, "{}", file.display());
    }
    assert_eq!(fs::metadata(host::LOCK_PLACE).unwrap().mode() & 0o7777, 0o700);
    drop(other.stdin.take());
    other.wait().unwrap();

    // One that was removed while it was held is no lock of those who come later, and theirs is good.
    let directory = Directory::open(s.0.path()).unwrap();
    let _removed = directory.lock(Duration::ZERO).unwrap();
    fs::remove_file(lock_file(s.0.path())).unwrap();
    let _new = directory.lock(Duration::ZERO).unwrap();
    directory.lock(Duration::ZERO).unwrap_err();
}

/// relaykey 0.1.0 locks the state directory itself.
#[test]
fn a_directory_that_is_ours_alone_is_locked_itself_too() {
    let s = Scratch::new();
    fs::set_permissions(s.0.path(), fs::Permissions::from_mode(0o700)).unwrap();
    let mut old = with_pipes(Command::new("flock").arg(s.0.path()).args(["sh", "-c", "echo held; read end"]));
    wait_for_line(&mut old);
    let directory = Directory::open(s.0.path()).unwrap();
    let e = directory.lock_own(Duration::ZERO).unwrap_err();
    assert!(e.to_string().contains("(flock)") || e.to_string().contains("(sh)"), "{e}");
    drop(old.stdin.take());
    old.wait().unwrap();
    let _lock = directory.lock_own(Duration::from_secs(10)).unwrap();
    assert!(!Command::new("flock").arg("-n").arg(s.0.path()).arg("true").status().unwrap().success());
}

fn with_pipes(command: &mut Command) -> std::process::Child {
    command.stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped()).spawn().unwrap()
}

fn wait_for_line(child: &mut std::process::Child) {
    use std::io::BufRead;
    let mut line = String::new();
    std::io::BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
}

// -- commands -------------------------------------------------------------------------------------------------------

const LONG: Duration = Duration::from_secs(20);

#[test]
fn commands_get_their_arguments_as_they_are_and_a_clean_environment() {
    let odd = ["/usr/bin/printf", "%s|", "a b", "$HOME", "`id`", "*", ";", "ü\n"];
    assert_eq!(&*host::run(&odd, None, LONG).unwrap().stdout, "a b|$HOME|`id`|*|;|ü\n|".as_bytes());

    let out = host::run(&["env"], None, LONG).unwrap();
    let text = String::from_utf8(out.stdout.to_vec()).unwrap();
    let mut lines: Vec<&str> = text.lines().filter(|l| !l.starts_with("PWD=")).collect();
    lines.sort_unstable();
    assert_eq!(lines.len(), 3, "{text}");
    assert!(lines[0] == "LANG=C" && lines[1] == "LC_ALL=C" && lines[2].starts_with("PATH="), "{text}");

    let out = host::run(&["pwd"], None, LONG).unwrap();
    assert_eq!(&*out.stdout, b"/\n");
    let out = host::run(&["sh", "-c", "wc -c; echo words >&2; exit 3"], None, LONG).unwrap();
    assert_eq!((out.status.code(), out.stderr.as_str(), &out.stdout[..]), (Some(3), "words\n", &b"0\n"[..]));

    // What we hold open is not handed on, or a child would hold our locks.
    let s = Scratch::new();
    let directory = Directory::open(s.0.path()).unwrap();
    let _lock = directory.lock(Duration::ZERO).unwrap();
    let out = host::run(&["sh", "-c", "readlink /proc/$$/fd/*"], None, LONG).unwrap();
    let open = String::from_utf8(out.stdout.to_vec()).unwrap();
    assert!(open.contains("pipe:") && !open.contains(s.0.path().to_str().unwrap()), "{open}");
}

#[test]
fn large_input_and_output_do_not_block_each_other() {
    let input: Vec<u8> = (0..3_000_000u32).map(|n| (n % 251) as u8).collect();
    let out = host::run(&["cat"], Some(&input), LONG).unwrap();
    assert!(*out.stdout == input);
    // One that does not read its input, and one that reads only some.
    assert!(host::run(&["true"], Some(&input), LONG).unwrap().status.success());
    assert_eq!(&*host::run(&["head", "-c", "3"], Some(b"abcdef"), LONG).unwrap().stdout, b"abc");
    // Much on standard error is read and forgotten.
    let noisy = ["sh", "-c", "head -c 1000000 /dev/zero | tr '\\0' e >&2; echo done"];
    let out = host::run(&noisy, None, LONG).unwrap();
    assert_eq!((out.stderr.len(), &out.stdout[..]), (64 * 1024, &b"done\n"[..]));
}

#[test]
fn too_much_output_ends_a_command() {
    let started = Instant::now();
    let e = host::run(&["cat", "/dev/zero"], None, LONG).unwrap_err();
    assert!(matches!(e, HostError::TooMuchOutput { .. }) && started.elapsed() < LONG, "{e}");
}

#[test]
fn a_time_out_kills_the_whole_group() {
    let s = Scratch::new();
    let pids = s.path("pids");
    let script = format!("sleep 1000 & echo $! > {0}; sleep 1001 & echo $! >> {0}; wait", pids.display());
    let started = Instant::now();
    let e = host::run(&["sh", "-c", &script], None, Duration::from_millis(700)).unwrap_err();
    assert!(matches!(&e, HostError::TimedOut { program, .. } if program == "sh"), "{e}");
    assert!(e.is_temporary() && started.elapsed() < Duration::from_secs(10));
    let pids: Vec<String> = fs::read_to_string(&pids).unwrap().lines().map(str::to_owned).collect();
    assert_eq!(pids.len(), 2);
    let alive = |pid: &String| {
        let state = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        state.rsplit(')').next().and_then(|rest| rest.trim().chars().next()).is_some_and(|state| state != 'Z')
    };
    let deadline = Instant::now() + Duration::from_secs(10);
    while pids.iter().any(alive) {
        assert!(Instant::now() < deadline, "still alive after 10 s: {pids:?}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// As `postfix start` does: the command ends, and its daemon keeps the output open.
#[test]
fn a_daemon_that_keeps_the_output_open_does_not_hold_us() {
    let started = Instant::now();
    let out = host::run(&["sh", "-c", "echo before; sleep 15 & echo $!"], None, LONG).unwrap();
    assert!(started.elapsed() < Duration::from_secs(8), "{:?}", started.elapsed());
    let text = String::from_utf8(out.stdout.to_vec()).unwrap();
    let pid: i32 = text.strip_prefix("before\n").unwrap().trim().parse().unwrap();
    rustix::process::kill_process(rustix::process::Pid::from_raw(pid).unwrap(), rustix::process::Signal::KILL).unwrap();
}

#[test]
fn a_command_that_is_not_there_says_so() {
    let e = host::run(&["/no/such/postconf"], None, LONG).unwrap_err();
    assert!(matches!(e, HostError::NotStarted { .. }) && e.fix().contains("install"), "{e}: {}", e.fix());
    assert!(host::run(&[] as &[&str], None, LONG).is_err());
}

// -- the process ----------------------------------------------------------------------------------------------------

#[test]
fn time_since_boot_is_that_of_process_start_times() {
    let uptime = fs::read_to_string("/proc/uptime").unwrap();
    let uptime: u64 = uptime.split('.').next().unwrap().parse().unwrap();
    assert!(host::boot_seconds().abs_diff(uptime) <= 1);
    assert_eq!(host::boot_id().unwrap().len(), 36);
}

/// In a process of its own: it cannot be taken back.
#[test]
fn a_hardened_process_dumps_no_core_and_makes_closed_files() {
    if std::env::var_os("RELAYKEY_TEST_HARDENED").is_some() {
        host::process_hardening().unwrap();
        let limit = rustix::process::getrlimit(rustix::process::Resource::Core);
        assert_eq!((limit.current, limit.maximum), (Some(0), Some(0)));
        let dumpable = rustix::process::dumpable_behavior().unwrap();
        assert_eq!(dumpable, rustix::process::DumpableBehavior::NotDumpable);
        let s = Scratch::new();
        let mut file = fs::File::create(s.path("f")).unwrap();
        file.write_all(b"x").unwrap();
        let mode = rustix::fs::fstat(file.as_fd()).unwrap().st_mode & 0o777;
        assert_eq!(mode, 0o600);
        return;
    }
    let status = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "host::a_hardened_process_dumps_no_core_and_makes_closed_files"])
        .env("RELAYKEY_TEST_HARDENED", "1")
        .output()
        .unwrap();
    assert!(status.status.success(), "{}", String::from_utf8_lossy(&status.stdout));
}

/// Names are bytes, not text.
#[test]
fn names_need_not_be_utf8() {
    let s = Scratch::new();
    let live = s.0.path().join(OsStr::from_bytes(b"sasl\xff"));
    fs::write(&live, "old").unwrap();
    swap(&live, b"new").unwrap();
    assert_eq!(fs::read(&live).unwrap(), b"new");
}

/// The lock directory is every relaykey's of the host: a package that goes leaves it, with the locks of those that stay. All
/// directories that the script may touch are of this test alone.
#[test]
fn a_package_that_goes_leaves_the_locks_of_others() {
    let scripts = Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging");
    let deb = fs::read_to_string(scripts.join("deb/postrm")).expect("readable");
    let rpm = fs::read_to_string(scripts.join("rpm/postun")).expect("readable");
    for (name, script, argument) in [("deb", deb, "purge"), ("rpm", rpm, "0")] {
        let around = "set -e
for dir in /run /var/lib /etc /usr/share/doc; do mount -t tmpfs none $dir; done
mkdir -p /run/relaykey /run/relaykey-lock /etc/relaykey /var/lib/relaykey /usr/share/doc/relaykey
touch /run/relaykey-lock/0:0-1
sh -c \"$1\" \"$0\" \"$2\" > /dev/null 2>&1
test -e /run/relaykey-lock/0:0-1
test \"$0\" = rpm || test ! -e /var/lib/relaykey";
        let status = std::process::Command::new("unshare")
            .args(["--mount", "--propagation", "private", "sh", "-c", around, name, &script, argument])
            .status()
            .expect("unshare");
        assert!(status.success(), "{name}: {status}");
    }
}

/// What the unit of machines that are thrown away asks systemd before it leaves the fleet. Under systemd itself: the tests of
/// `systemd`.
#[test]
fn only_a_machine_that_is_switched_off_leaves_the_fleet() {
    let unit = Path::new(env!("CARGO_MANIFEST_DIR")).join("systemd/relaykey-deregister.service");
    let unit = fs::read_to_string(unit).expect("readable");
    let line = unit.lines().find_map(|line| line.strip_prefix("ExecStop=/bin/sh -c '")?.strip_suffix('\''));
    let programs = Scratch::new();
    let program = |name: &str, script: &str| {
        let path = programs.0.path().join(name);
        fs::write(&path, format!("#!/bin/sh\n{script}\n")).expect("written");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("chmod");
        path
    };
    let relaykey = program("relaykey", "echo \"$1\"");
    let line = line.expect("one line of shell").replace("/usr/bin/relaykey", relaykey.to_str().expect("UTF-8"));
    // As `systemctl list-jobs PATTERN…` prints those of these names.
    let reports = |jobs: &[&str]| {
        let jobs = jobs.iter().map(|job| format!(" 312 {job} waiting\n")).collect::<String>();
        program("systemctl", &format!("for unit; do echo '{jobs}' | grep \" $unit \"; done; exit 0"));
        let path = format!("{}:/usr/bin:/bin", programs.0.path().display());
        let ran = Command::new("/bin/sh").args(["-c", &line]).env("PATH", path).output().expect("a shell");
        assert!(ran.status.success(), "{ran:?}");
        String::from_utf8(ran.stdout).expect("text") == "deregister\n"
    };
    let stops = "relaykey.service stop";
    assert!(reports(&[stops, "poweroff.target start"]) && reports(&[stops, "halt.target start"]));
    for jobs in [&[stops, "reboot.target start"][..], &[stops, "kexec.target start"], &[stops], &[]] {
        assert!(!reports(jobs), "{jobs:?}");
    }
}
