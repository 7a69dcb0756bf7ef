//! What others could have written is neither run nor obeyed: every kind of program and file, written by a real other user.

use crate::lab::acl;
use crate::lab::daemon as running;
use crate::lab::postfix;
use crate::lab::relaykey as lab;
use crate::lab::scratch;

use std::ffi::OsStr;
use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt as _, chown, symlink};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use lab::{Host, Key, Program, RUN, Ran, Setup};
use relaykey::host::{self, HostError, trust};
use running::{NEVER, SOON};
use rustix::process::Signal;
use serde_json::json;
use tempfile::TempDir;

const NOBODY: u32 = 65534;

/// A host whose Postfix runs with a key, and another key that is to take its place.
fn with_a_new_key() -> (Host, Key, Key) {
    let (old, new) = (Key::new(), Key::new());
    let host = Host::new("hash", &old);
    host.start_postfix();
    host.standin.set_key(&new.id, &new.login.password);
    (host, old, new)
}

/// Locks whatever it can open below these directories, again and again, and says how many inodes it has.
const LOCKER: &str = r#"
import fcntl, os, sys, time
held, said = {}, 0
while True:
    for root in sys.argv[1:]:
        for at, names, files in os.walk(root):
            for path in [at] + [os.path.join(at, name) for name in files]:
                try:
                    st = os.lstat(path)
                    if (st.st_dev, st.st_ino) in held:
                        continue
                    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW)
                    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    held[(st.st_dev, st.st_ino)] = fd
                    print(path, flush=True)
                except OSError:
                    pass
    if not said:
        said = print("all", flush=True) or 1
    time.sleep(0.002)
"#;

/// A place that every user can walk to.
struct Open(TempDir);

impl Open {
    fn new() -> Self {
        Self(scratch::directory("trust", 0o755))
    }

    fn at(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn file(&self, name: &str, content: &str, mode: u32) -> PathBuf {
        let path = self.at(name);
        fs::write(&path, content).expect("written");
        set(&path, mode);
        path
    }

    fn dir(&self, name: &str, mode: u32) -> PathBuf {
        let path = self.at(name);
        fs::create_dir(&path).expect("mkdir");
        set(&path, mode);
        path
    }
}

fn set(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).expect("chmod");
}

/// Does this as another user of the host; whether it worked.
fn nobody(script: &str) -> bool {
    Command::new("/bin/sh").args(["-c", script]).uid(NOBODY).gid(NOBODY).status().expect("a shell").success()
}

fn program(path: &Path) -> host::Result<trust::Program> {
    trust::program(path.as_os_str())
}

/// Runs the fix that an error prints.
fn paste(fix: &str) {
    assert!(Command::new("/bin/sh").args(["-c", fix]).status().expect("a shell").success(), "{fix}");
}

/// The rule with real files: owner, mode, a directory above, sticky, a link. What is refused is named, and its fix works.
#[test]
fn the_rule_on_real_files() {
    let place = Open::new();
    let good = place.file("good", "x", 0o644);
    assert!(trust::open(&good, None).expect("trusted").doubts.is_empty());
    assert!(trust::open(Path::new("/etc/passwd"), None).expect("trusted").doubts.is_empty());

    // The file.
    let writable = place.file("writable", "x", 0o666);
    assert!(nobody(&format!("echo evil > {}", writable.display())));
    let theirs = place.file("theirs", "x", 0o600);
    chown(&theirs, Some(NOBODY), None).expect("chown");
    // A directory above it, two steps up.
    let above = place.dir("above", 0o777);
    let inside = place.dir("above/inside", 0o755);
    let below = place.file("above/inside/file", "x", 0o600);
    assert!(nobody(&format!("mv {0} {0}.away && mv {0}.away {0}", inside.display())), "it can be replaced");
    let owned = place.dir("owned", 0o755);
    let in_owned = place.file("owned/file", "x", 0o600);
    chown(&owned, Some(NOBODY), None).expect("chown");
    // A link to it, from a good place and from a bad one.
    let link = place.at("link");
    symlink(&below, &link).expect("link");
    let bad_dir = place.dir("links", 0o777);
    let bad_link = place.at("links/link");
    symlink(&good, &bad_link).expect("link");
    for (path, at, what) in [
        (&writable, &writable, "may be changed by every user of this host (mode 0666)"),
        (&theirs, &theirs, "belongs to user id 65534 (nobody)"),
        (&below, &above, "may be changed by every user of this host (mode 0777)"),
        (&in_owned, &owned, "belongs to user id 65534 (nobody)"),
        (&link, &above, "mode 0777"),
        (&bad_link, &bad_dir, "mode 0777"),
    ] {
        let Err(e) = trust::open(path, None) else { panic!("{} is taken", path.display()) };
        let HostError::Untrusted { found, .. } = &e else { panic!("{e}") };
        assert_eq!((&found.at, e.class().word(), e.is_temporary()), (at, "permissions", false), "{e}");
        assert!(e.to_string().contains(what) && e.to_string().contains(&at.display().to_string()), "{e}");
        assert!(matches!(trust::look(path), Err(HostError::Untrusted { .. })), "{}", path.display());
        assert!(matches!(program(path), Err(HostError::Untrusted { .. })), "{}", path.display());
        let before = fs::metadata(at).expect("there").permissions();
        let owner = std::os::unix::fs::MetadataExt::uid(&fs::metadata(at).expect("there"));
        paste(&e.fix());
        trust::open(path, None).unwrap_or_else(|e| panic!("after its fix: {e}"));
        fs::set_permissions(at, before).expect("chmod");
        chown(at, Some(owner), None).expect("chown");
    }

    // Sticky: what is root's there cannot be replaced; what another user made is refused, be it a link to a good file.
    let sticky = place.dir("sticky", 0o1777);
    let ours = place.file("sticky/ours", "x", 0o644);
    trust::open(&ours, None).expect("ours");
    assert!(!nobody(&format!("mv {0} {0}.away", ours.display())));
    assert!(nobody(&format!("cd {} && echo x > made && ln -s {} made-link", sticky.display(), good.display())));
    for name in ["made", "made-link"] {
        let e = trust::open(&sticky.join(name), None).expect_err("made by another user");
        assert!(e.to_string().contains("belongs to user id 65534"), "{e}");
    }
    // As /nix/store is: a group may add to it.
    let store = place.dir("store", 0o1775);
    chown(&store, None, Some(NOBODY)).expect("chown");
    let stored = place.file("store/file", "x", 0o444);
    assert!(trust::open(&stored, None).expect("trusted").doubts.is_empty());

    // A user who is named may own the file and directories above; others still may not write.
    trust::open(&theirs, Some(NOBODY)).expect("named");
    chown(&in_owned, Some(NOBODY), None).expect("chown");
    trust::open(&in_owned, Some(NOBODY)).expect("named");
    set(&theirs, 0o606);
    trust::open(&theirs, Some(NOBODY)).expect_err("anybody can write it");
    trust::open(&theirs, Some(1)).expect_err("another user");

    // A group that may write is told, for now.
    let group = place.file("group", "x", 0o664);
    chown(&group, None, Some(NOBODY)).expect("chown");
    let doubts = trust::open(&group, None).expect("taken").doubts;
    assert_eq!(doubts.len(), 1);
    assert!(doubts[0].to_string().contains("group id 65534, mode 0664"), "{}", doubts[0]);
    paste(&doubts[0].fix());
    assert!(trust::open(&group, None).expect("taken").doubts.is_empty());
    // Root's group is root.
    assert!(trust::open(&place.file("of-root", "x", 0o664), None).expect("taken").doubts.is_empty());
}

/// An access control list that lets one user, or one group, read and write; the file's own group may read.
fn list(path: &Path, tag: u16, id: u32, rights: u16) {
    let mut entries =
        [(1, 7, u32::MAX), (tag, rights, id), (4, 5, u32::MAX), (0x10, rights, u32::MAX), (0x20, 5, u32::MAX)];
    entries.sort_unstable();
    rustix::fs::setxattr(path, "system.posix_acl_access", &acl::acl(&entries), rustix::fs::XattrFlags::empty())
        .expect("the file system has access control lists");
}

const USER: u16 = 2;
const GROUP: u16 = 8;

/// The mode shows a group that may write, and it is another user who may.
#[test]
fn what_a_list_lets_another_user_change_is_refused() {
    let place = Open::new();
    let file = place.file("file", "x", 0o644);
    list(&file, USER, NOBODY, 6);
    assert!(nobody(&format!("echo evil > {}", file.display())), "the list lets nobody write");
    let program_ = place.file("program", "#!/bin/sh\n", 0o755);
    list(&program_, USER, NOBODY, 7);
    let above = place.dir("above", 0o755);
    let below = place.file("above/below", "x", 0o644);
    list(&above, USER, NOBODY, 7);
    for (path, at) in [(&file, &file), (&program_, &program_), (&below, &above)] {
        let Err(e @ HostError::Untrusted { .. }) = trust::open(path, None) else {
            panic!("{} is taken", path.display())
        };
        let says = format!("{} may be changed by user id 65534 (nobody), by its access control list", at.display());
        assert!(e.to_string().contains(&says), "{e}");
        assert!(matches!(trust::look(path), Err(HostError::Untrusted { .. })), "{}", path.display());
        assert!(matches!(program(path), Err(HostError::Untrusted { .. })), "{}", path.display());
        assert!(e.fix().contains("setfacl -x u:65534"), "{}", e.fix());
        // Who may own it may be in its list.
        trust::open(path, Some(NOBODY)).expect("named");
        paste(&e.fix());
        trust::open(path, None).unwrap_or_else(|e| panic!("after its fix: {e}"));
    }
    // What is ours alone is asked the same.
    let own = place.file("own", "x", 0o600);
    host::read_own(&own, 10).expect("ours");
    list(&own, USER, NOBODY, 6);
    assert!(matches!(host::read_own(&own, 10), Err(HostError::Untrusted { .. })), "another user's word is believed");

    // A group is a doubt still, and it is the right group that is named.
    let group = place.file("group", "x", 0o644);
    list(&group, GROUP, 4, 6);
    let doubts = trust::open(&group, None).expect("taken").doubts;
    assert!(doubts[0].to_string().contains("may be changed by group id 4, by its access control list"), "{doubts:?}");
    paste(&doubts[0].fix());
    assert!(trust::open(&group, None).expect("taken").doubts.is_empty());
}

/// Who may own the file must not lead us to what they may not read themselves.
#[test]
fn what_another_user_leads_to_has_to_be_theirs() {
    let place = Open::new();
    let secret = place.file("secret", "root's:own", 0o600);
    let theirs = place.dir("theirs", 0o755);
    chown(&theirs, Some(NOBODY), Some(NOBODY)).expect("chown");
    place.dir("sticky", 0o1777);
    let good = place.at("theirs/good");
    assert!(nobody(&format!("echo nobodys:own > {}", good.display())));
    assert!(nobody(&format!("ln -s {} {}", secret.display(), place.at("theirs/link").display())));
    assert!(nobody(&format!("ln -s {} {}", place.0.path().display(), place.at("theirs/dir").display())));
    assert!(nobody(&format!("ln -s {} {}", secret.display(), place.at("sticky/link").display())));
    assert!(nobody(&format!("ln -s {} {}", good.display(), place.at("sticky/good").display())));
    let moved = place.file("theirs/moved", "root's:own", 0o600);
    for path in [place.at("theirs/link"), place.at("theirs/dir/secret"), place.at("sticky/link"), moved] {
        let Err(e @ HostError::Untrusted { .. }) = trust::open(&path, Some(NOBODY)) else {
            panic!("{} is taken", path.display())
        };
        assert!(e.to_string().contains("belongs to user id 0 (root)"), "{e}");
        // Pasted, it changes nothing: the file may be any.
        assert!(e.fix().starts_with("namei -l "), "{}", e.fix());
    }
    for path in [good, place.at("sticky/good")] {
        trust::open(&path, Some(NOBODY)).expect("their own");
    }
    // Where only root leads, root's own are taken as ever.
    trust::open(&secret, Some(NOBODY)).expect("root's");

    // The whole way: no first half of it is shown as a user name, nor sent anywhere.
    let (host, old, _) = with_a_new_key();
    let path = place.at("theirs/link");
    let ran = rolled(&host, &format!("type = \"file\"\npath = {path:?}\nowner = \"nobody\"\n"), "");
    refused(&host, &old, &ran, 1, &["belongs to user id 0 (root)", "namei -l"]);
    ran.says_not("root's");
}

/// A shell obeys the script that it is given.
#[test]
fn no_script_of_others_is_run_by_an_interpreter_of_ours() {
    let place = Open::new();
    let marker = place.at("marker");
    let words = format!("echo run > {}\n", marker.display());
    let good = place.file("good", &words, 0o644);
    let run = |arguments: &[&str]| {
        let argv: Vec<&str> = std::iter::once("/bin/sh").chain(arguments.iter().copied()).collect();
        host::run(&argv, None, RUN)
    };
    let name = |path: &Path| path.to_str().expect("UTF-8").to_owned();
    run(&[&name(&good)]).expect("it is run");
    fs::remove_file(&marker).expect("it was run");
    run(&["-c", "true", &name(&place.at("none")), "/dev/null", ":"]).expect("no script");

    let writable = place.file("writable", "", 0o666);
    assert!(nobody(&format!("cat {} > {}", good.display(), writable.display())), "another user writes it");
    let theirs = place.file("theirs", &words, 0o644);
    chown(&theirs, Some(NOBODY), None).expect("chown");
    place.dir("open", 0o777);
    let in_open = place.file("open/script", &words, 0o644);
    let link = place.at("link");
    symlink(&theirs, &link).expect("link");
    let listed = place.file("listed", &words, 0o644);
    list(&listed, USER, NOBODY, 7);
    let relative = PathBuf::from(name(&theirs).trim_start_matches('/'));
    // What is not there now, and could be by the time it is read.
    let later = place.at("open/later");
    for script in [&writable, &theirs, &in_open, &link, &listed, &relative, &later] {
        for arguments in [&[&name(script)[..]][..], &["-e", &name(script)], &["-c", ". \"$0\"", &name(script)]] {
            let Err(e @ HostError::Untrusted { .. }) = run(arguments) else { panic!("{arguments:?} was run") };
            assert_eq!((e.class().word(), e.is_temporary()), ("permissions", false), "{e}");
            assert!(!marker.exists(), "{arguments:?} was run");
        }
    }
    // By the first line of a script of ours.
    let first = format!("#!/bin/sh {}\n", theirs.display());
    let by_line = place.file("by-line", &first, 0o755);
    assert!(matches!(host::run(&[by_line.as_os_str()], None, RUN), Err(HostError::Untrusted { .. })), "it was run");
    assert!(!marker.exists());

    // The reload, which root runs: refused before anything is changed.
    let (host, old, new) = with_a_new_key();
    let source = host.publish(new.pair());
    let target = format!("reload = [\"/bin/sh\", {:?}]\n", writable);
    let ran = rolled(&host, &source, &target);
    assert!(!marker.exists(), "it was run as root");
    refused(&host, &old, &ran, 1, &["is not trusted", &name(&writable), "chmod go-w"]);
    host.relaykey(&["check"]).expect(1).says(&[&name(&writable), "may be changed by every user"]);
    set(&writable, 0o644);
    let reload = format!("id > {}\nexec postfix -c {} reload\n", marker.display(), host.postfix.config_dir.display());
    fs::write(&writable, reload).expect("written");
    rolled(&host, &source, &target).expect(0);
    assert!(marker.exists(), "and now it is run");
}

/// The choke point of all programs: neither one of others is run, nor a script with an interpreter of theirs.
#[test]
fn no_program_of_others_is_run() {
    let place = Open::new();
    let marker = place.at("marker");
    let script = format!("#!/bin/sh\necho run > {}\n", marker.display());
    let run = |program: &Path| host::run(&[program.as_os_str()], None, RUN);
    let good = place.file("good", &script, 0o755);
    run(&good).expect("it is run");
    fs::remove_file(&marker).expect("it was run");

    let writable = place.file("writable", "#!/bin/sh\n", 0o777);
    assert!(nobody(&format!("cat {} > {}", good.display(), writable.display())), "another user writes it");
    let theirs = place.file("theirs", &script, 0o755);
    chown(&theirs, Some(NOBODY), None).expect("chown");
    let interpreter = place.at("interpreter");
    fs::copy("/bin/sh", &interpreter).expect("copied");
    set(&interpreter, 0o777);
    let interpreted = script.replace("/bin/sh", interpreter.to_str().expect("UTF-8"));
    let interpreted = place.file("interpreted", &interpreted, 0o755);
    let env = script.replace("/bin/sh", &format!("/usr/bin/env -S A=b {}", interpreter.display()));
    let by_env = place.file("by-env", &env, 0o755);
    place.dir("open", 0o777);
    let in_open = place.file("open/program", &script, 0o755);
    for program in [&writable, &theirs, &interpreted, &by_env, &in_open] {
        let Err(e @ HostError::Untrusted { .. }) = run(program) else { panic!("{} was run", program.display()) };
        assert_eq!((e.class().word(), e.is_temporary()), ("permissions", false), "{e}");
        assert!(!marker.exists(), "{} was run", program.display());
    }
    // What is called by another name keeps it; what is not there is said as before.
    symlink(&good, place.at("called")).expect("link");
    run(&place.at("called")).expect("it is run");
    assert!(run(&place.at("none")).expect_err("none").is_not_found());
    assert!(host::run(&["no-such-program"], None, RUN).expect_err("none").is_not_found());
    host::run(&["true"], None, RUN).expect("found in the search path");
}

/// Between the look and the use the name leads elsewhere: it is what was looked at that is read and run.
#[test]
fn what_is_exchanged_between_look_and_use_is_not_taken() {
    let place = Open::new();
    let marker = place.at("marker");
    let good = place.file("good", "#!/bin/sh\nexit 0\n", 0o755);
    let bad = place.file("bad", &format!("#!/bin/sh\necho run > {}\n", marker.display()), 0o755);
    chown(&bad, Some(NOBODY), None).expect("chown");
    let name = place.at("name");
    symlink(&good, &name).expect("link");
    let over = AtomicBool::new(false);
    let (mut taken, mut refused) = (0, 0);
    // Judged at the end: a panic would wait for the other thread for ever.
    let (mut read, mut run) = (false, false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut to = [&bad, &good].into_iter().cycle();
            while !over.load(Ordering::Relaxed) {
                let fresh = place.at("fresh");
                symlink(to.next().expect("endless"), &fresh).expect("link");
                fs::rename(&fresh, &name).expect("renamed");
            }
        });
        for n in 0..2000 {
            match trust::read(&name, 4096) {
                Ok(text) => {
                    taken += 1;
                    read |= text.windows(4).any(|w| w == b"echo");
                }
                Err(_) => refused += 1,
            }
            if n % 10 == 0 {
                let _ = host::run(&[name.as_os_str()], None, RUN);
                run |= marker.exists();
            }
        }
        over.store(true, Ordering::Relaxed);
    });
    assert!(!read, "the other user's file was read");
    assert!(!run, "the other user's program was run");
    assert!(taken > 0 && refused > 0, "{taken} taken, {refused} refused: nothing was tried");
}

// ---------------------------------------------------------------- the whole program

/// A host with a new version to be taken; what is refused must leave the old one in use.
fn rolled(host: &Host, source: &str, target: &str) -> Ran {
    host.configure(&Setup { source, target, ..Setup::default() });
    host.relaykey(&["sync"])
}

#[track_caller]
fn refused(host: &Host, old: &Key, ran: &Ran, code: i32, says: &[&str]) {
    ran.expect(code).says(says);
    let table = fs::read_to_string(host.postfix.table()).expect("the table");
    assert!(table.contains(&old.id), "the old login stays: {table}");
}

#[test]
fn a_reload_program_of_others_is_not_run() {
    let (host, old, new) = with_a_new_key();
    let place = Open::new();
    let marker = place.at("marker");
    let program = place.file("reload", "#!/bin/sh\n", 0o777);
    assert!(nobody(&format!("echo 'id > {}' >> {}", marker.display(), program.display())), "another user writes it");
    let source = host.publish(new.pair());
    let ran = rolled(&host, &source, &format!("reload = [{program:?}]\n"));
    assert!(!marker.exists(), "it was run as root");
    refused(
        &host,
        &old,
        &ran,
        1,
        &["is not trusted", "may be changed by every user", &format!("chmod go-w {}", program.display())],
    );
    let failure = &host.state("ses")["targets"]["main"]["retry"]["failure"];
    assert_eq!((&failure["class"], &failure["temporary"]), (&json!("permissions"), &json!(false)));
    set(&program, 0o755);
    fs::write(
        &program,
        format!("#!/bin/sh\nid > {}\nexec postfix -c {} reload\n", marker.display(), host.postfix.config_dir.display()),
    )
    .expect("written");
    rolled(&host, &source, &format!("reload = [{program:?}]\n")).expect(0);
    assert!(marker.exists(), "and now it is run");
}

#[test]
fn a_configuration_of_others_is_not_obeyed() {
    let (host, old, new) = with_a_new_key();
    let source = host.publish(new.pair());
    host.configure(&Setup { source: &source, ..Setup::default() });
    let config = host.path("config.toml");
    for (mode, uid, what) in [(0o666, 0, "may be changed by every user"), (0o644, NOBODY, "belongs to user id 65534")] {
        set(&config, mode);
        chown(&config, Some(uid), None).expect("chown");
        for command in ["sync", "status", "check", "run", "history"] {
            refused(
                &host,
                &old,
                &host.relaykey(&[command]),
                2,
                &["the configuration is not obeyed", what, "chmod go-w"],
            );
        }
    }
    chown(&config, Some(0), None).expect("chown");
    let above = host.dir.path().to_owned();
    set(&above, 0o777);
    refused(&host, &old, &host.relaykey(&["sync"]), 2, &["is not obeyed", "mode 0777"]);
    set(&above, 0o700);

    // A daemon goes on with the configuration that it has, and says what it refused.
    let daemon = host.run(&Setup { source: &(source.clone() + NEVER), ..Setup::default() });
    daemon.applied(&new);
    set(&config, 0o666);
    daemon.program.signal(Signal::HUP);
    daemon.shows("the refusal", SOON, |status| {
        let refused = &status["daemon"]["config_refused"]["mistakes"][0];
        let what = refused["what"].as_str()?;
        (what.contains("is not obeyed") && refused["fix"].as_str()?.contains("chmod go-w")).then_some(())
    });
    set(&config, 0o644);
    daemon.program.signal(Signal::HUP);
    daemon.shows("the configuration again", SOON, |s| s["daemon"]["config_refused"].is_null().then_some(()));
    daemon.ends(SOON);
}

#[test]
fn a_source_that_others_can_write_is_not_taken() {
    let (host, old, new) = with_a_new_key();
    let place = Open::new();
    let file = place.file("login", "", 0o666);
    assert!(nobody(&format!("echo '{}' > {}", new.pair(), file.display())), "another user writes it");
    let source = format!("type = \"file\"\npath = {file:?}\n");
    let ran = rolled(&host, &source, "");
    let fix = format!("chmod go-w {}", file.display());
    refused(&host, &old, &ran, 1, &["may be changed by every user of this host (mode 0666)", &fix]);
    assert_eq!(host.state("ses")["source_retry"]["failure"]["class"], json!("permissions"));

    // Let in by a list: the user who is, and not every one, nor a group.
    set(&file, 0o600);
    list(&file, USER, NOBODY, 6);
    assert!(nobody(&format!("echo '{}' > {}", new.pair(), file.display())), "another user writes it");
    let says = ["may be changed by user id 65534 (nobody), by its access control list", "setfacl -x u:65534"];
    refused(&host, &old, &rolled(&host, &source, ""), 1, &says);

    // Of another user: refused with the line that would name him; with that line it is taken.
    rustix::fs::removexattr(&file, "system.posix_acl_access").expect("removed");
    set(&file, 0o600);
    chown(&file, Some(NOBODY), None).expect("chown");
    let ran = rolled(&host, &source, "");
    refused(
        &host,
        &old,
        &ran,
        1,
        &["belongs to user id 65534 (nobody)", "add the line `owner = \"nobody\"` below [credential.source]"],
    );
    let named = rolled(&host, &format!("{source}owner = \"no-such-user\"\n"), "");
    refused(&host, &old, &named, 2, &["config.toml:", "owner: this host has no user \"no-such-user\""]);
    let elsewhere = rolled(&host, "type = \"secrets-manager\"\nsecret = \"a\"\nowner = \"nobody\"\n", "");
    refused(&host, &old, &elsewhere, 2, &["owner"]);
    rolled(&host, &format!("{source}owner = \"nobody\"\n"), "").expect(0);
    let table = fs::read_to_string(host.postfix.table()).expect("the table");
    assert!(table.contains(&new.id), "{table}");
}

/// As Kubernetes mounts a secret: a sticky directory for everybody, links within, all root's.
#[test]
fn a_mounted_secret_is_taken() {
    let place = Open::new();
    let mount = place.dir("mount", 0o3777);
    place.dir("mount/..2026", 0o755);
    place.file("mount/..2026/login", "x", 0o644);
    symlink("..2026", mount.join("..data")).expect("link");
    symlink("..data/login", mount.join("login")).expect("link");
    assert!(trust::open(&mount.join("login"), None).expect("trusted").doubts.is_empty());
}

#[test]
fn certificates_of_others_are_not_trusted() {
    let (host, old, new) = with_a_new_key();
    let source = host.publish(new.pair());
    let place = Open::new();
    let ca = place.file("ca.pem", &fs::read_to_string(host.path("ca.pem")).expect("PEM"), 0o666);
    host.configure(&Setup { source: &source, smtp: &format!("ca_file = {ca:?}\n"), ..Setup::default() });
    let ran = host.relaykey(&["sync"]);
    refused(&host, &old, &ran, 1, &["the CA certificates are not taken", "mode 0666", "chmod go-w"]);
}

/// Who writes main.cf names the directory of the programs that are run.
#[test]
fn a_postfix_configuration_of_others_is_not_obeyed() {
    let (host, old, new) = with_a_new_key();
    let place = Open::new();
    let marker = place.at("marker");
    for program in ["postmap", "postfix"] {
        place.file(program, &format!("#!/bin/sh\nid > {}\nexec /usr/sbin/{program} \"$@\"\n", marker.display()), 0o755);
    }
    let source = host.publish(new.pair());
    let main_cf = host.postfix.config_dir.join("main.cf");
    fs::OpenOptions::new()
        .append(true)
        .open(&main_cf)
        .and_then(|mut file| {
            std::io::Write::write_all(
                &mut file,
                format!("command_directory = {}\n", place.0.path().display()).as_bytes(),
            )
        })
        .expect("written");
    for name in ["main.cf", "master.cf"] {
        let file = host.postfix.config_dir.join(name);
        set(&file, 0o666);
        let ran = rolled(&host, &source, "");
        assert!(!marker.exists(), "what it names was run as root");
        refused(&host, &old, &ran, 1, &[name, "may be changed by every user", "chmod go-w"]);
        set(&file, 0o644);
    }
    // The directory that it names, and a program in it.
    set(place.0.path(), 0o777);
    refused(&host, &old, &rolled(&host, &source, ""), 1, &["is not trusted", "mode 0777"]);
    set(place.0.path(), 0o755);
    set(&place.at("postmap"), 0o777);
    refused(&host, &old, &rolled(&host, &source, ""), 1, &["is not trusted", "mode 0777"]);
    assert!(!marker.exists(), "a program of others was run as root");
    set(&place.at("postmap"), 0o755);
    // `postfix check` finds fault with such a directory; its programs are run all the same.
    rolled(&host, &source, "");
    assert!(marker.exists(), "and now it is run");
}

/// Who writes the AWS files names the account that is asked, and a program.
#[test]
fn aws_files_of_others_are_not_obeyed() {
    let key = Key::new();
    let host = Host::new("hash", &key);
    host.start_postfix();
    let place = Open::new();
    let marker = place.at("marker");
    host.configure(&Setup {
        source: "type = \"secrets-manager\"\nsecret = \"a\"\nregion = \"eu-west-1\"\nendpoint_url = \"http://127.0.0.1:9\"\n",
        ..Setup::default()
    });
    let config = host.path("config.toml");
    let sync = |variable: &str, path: &Path| {
        let arguments = ["--config", config.to_str().expect("UTF-8"), "sync"];
        let env = [(variable, path.to_str().expect("UTF-8"))];
        Program::start(&arguments, &env, b"").wait(RUN)
    };
    let process = |program: &Path| format!("[default]\ncredential_process = {}\n", program.display());
    let words = format!("#!/bin/sh\nid > {}\nexit 1\n", marker.display());
    let good = place.file("process", &words, 0o755);
    let writable = place.file("writable", &words, 0o777);
    let by_shell = format!("[default]\ncredential_process = /bin/sh '{}' x\n", writable.display());
    for (variable, file) in [
        ("AWS_CONFIG_FILE", place.file("config", &process(&good), 0o666)),
        ("AWS_SHARED_CREDENTIALS_FILE", place.file("credentials", "[default]\naws_access_key_id = a\n", 0o666)),
        ("AWS_CONFIG_FILE", place.file("config-2", &process(&writable), 0o600)),
        ("AWS_CONFIG_FILE", place.file("config-4", &by_shell, 0o600)),
        ("AWS_WEB_IDENTITY_TOKEN_FILE", place.file("token", "t", 0o666)),
    ] {
        let ran = sync(variable, &file);
        assert!(!marker.exists(), "a program was run as root: {variable}");
        refused(&host, &key, &ran, 1, &["AWS is not asked", "may be changed by every user", "chmod go-w"]);
        assert_eq!(host.state("ses")["source_retry"]["failure"]["class"], json!("permissions"));
    }
    // One that is ours is obeyed.
    let file = place.file("config-3", &process(&good), 0o600);
    sync("AWS_CONFIG_FILE", &file);
    assert!(marker.exists(), "the program of a profile is run");
}

/// What a group may change goes on working in this release, and is told.
#[test]
fn a_group_that_may_write_is_told() {
    let (host, _, new) = with_a_new_key();
    let source = host.publish(new.pair());
    let place = Open::new();
    let reload = format!("#!/bin/sh\nexec postfix -c {} reload\n", host.postfix.config_dir.display());
    let program = place.file("reload", &reload, 0o775);
    chown(&program, None, Some(NOBODY)).expect("chown");
    let files = [
        host.path("config.toml"),
        host.path("credential"),
        host.path("ca.pem"),
        host.postfix.config_dir.join("main.cf"),
    ];
    let target = format!("reload = [{program:?}]\n");
    host.configure(&Setup { source: &source, target: &target, ..Setup::default() });
    for file in &files {
        set(file, 0o664);
        chown(file, None, Some(NOBODY)).expect("chown");
    }
    let document = host.relaykey(&["check", "--json"]).expect(0).json();
    for file in files.iter().chain([&program]) {
        let told = document["findings"].as_array().expect("a list").iter().any(|finding| {
            finding["severity"] == "warning"
                && finding["what"]
                    .as_str()
                    .is_some_and(|what| what.contains(&format!("{} may be changed by its group", file.display())))
                && finding["fix"] == json!(format!("chmod g-w {}", file.display()))
        });
        assert!(told, "{}: {document:#}", file.display());
    }
    // Whoever never runs `check` hears of it as well: from `sync`, with the same words, and once from the daemon.
    let ran = host.relaykey(&["sync"]);
    ran.expect(0);
    assert!(fs::read_to_string(host.postfix.table()).expect("the table").contains(&new.id));
    let document = host.relaykey(&["sync", "--json"]).expect(0).json();
    let of = |list: &serde_json::Value| list.as_array().cloned().unwrap_or_default();
    let warnings = [of(&document["warnings"]), of(&document["credentials"][0]["warnings"])].concat();
    let port = postfix::free_port();
    let source = format!("{source}{NEVER}");
    host.configure(&Setup { source: &source, target: &target, more: &running::health(port), ..Setup::default() });
    set(&files[0], 0o664);
    chown(&files[0], None, Some(NOBODY)).expect("chown");
    let daemon = host.run_configured(port);
    daemon.looked();
    // By way of the daemon.
    let by_daemon = host.relaykey(&["sync"]);
    host.relaykey(&["sync"]).expect(0);
    let logged = daemon.ends(SOON);
    for file in files.iter().chain([&program]) {
        let (says, fix) =
            (format!("{} may be changed by its group", file.display()), format!("chmod g-w {}", file.display()));
        ran.says(&[&says, &fix]);
        by_daemon.says(&[&says, &fix]);
        let told =
            warnings.iter().any(|w| w["what"].as_str().is_some_and(|w| w.contains(&says)) && w["fix"] == json!(fix));
        assert!(told, "{}: {document:#}", file.display());
        let lines = logged.err.lines().filter(|line| line.contains(&says)).count();
        assert_eq!(lines, 1, "{says}: {}", logged.err);
    }
}

/// The name of a program, as the search path has it.
#[test]
fn the_fixed_search_path_has_no_open_directory() {
    let path = trust::command_path();
    let said = host::run(&["sh", "-c", "echo $PATH"], None, Duration::from_secs(10)).expect("a shell");
    assert_eq!(OsStr::new(String::from_utf8_lossy(&said.stdout).trim()), path);
}

/// Another local user holds a lock on everything that they can open, and on whatever comes there: no rollover waits for them.
#[test]
fn a_user_who_locks_all_that_they_can_open_holds_up_no_rollover() {
    let keys = [Key::new(), Key::new(), Key::new()];
    let host = Host::new("hash", &keys[0]);
    let source = host.publish(keys[0].pair());
    // As on a real host: the table's directory and the one of the sockets are everybody's to read.
    set(host.dir.path(), 0o755);
    let port = postfix::free_port();
    let source = format!("{source}{NEVER}");
    host.configure(&Setup { source: &source, more: &running::health(port), ..Setup::default() });
    host.start_postfix();
    host.sync(&[], 0).says(&["ses: adopted"]);
    fs::create_dir_all(host.path("run")).expect("made");
    set(&host.path("run"), 0o755);

    let etc = fs::canonicalize(&host.postfix.config_dir).expect("there");
    let mut other = Command::new("setpriv")
        .args(["--reuid=65534", "--regid=65534", "--clear-groups", "/usr/bin/python3", "-c", LOCKER])
        .args([etc.as_path(), host.dir.path(), Path::new(host::LOCK_PLACE)])
        .stdout(std::process::Stdio::piped())
        .spawn()
        .expect("setpriv");
    let lines = std::io::BufRead::lines(std::io::BufReader::new(other.stdout.take().expect("piped")));
    let held: Vec<String> = lines.map_while(Result::ok).take_while(|line| line != "all").collect();
    let has = |path: &Path| held.iter().any(|line| Path::new(line) == path);
    assert!(has(&etc) && has(&etc.join("main.cf")) && has(&host.path("run")), "{held:?}");
    assert!(!held.iter().any(|line| line.starts_with(host::LOCK_PLACE)), "{held:?}");

    // By the command, and by the daemon, which has its lock in the directory of its sockets.
    let publish = |key: &Key| {
        host.standin.set_key(&key.id, &key.login.password);
        host.publish(key.pair());
    };
    publish(&keys[1]);
    host.sync(&["--wait", "0s"], 0).says(&["ses: confirmed", &keys[1].id]);
    let daemon = host.run_configured(port);
    publish(&keys[2]);
    daemon.applied(&keys[2]);
    assert!(running::holds(&host.postfix, &keys[2]));
    daemon.ends(SOON);
    assert!(other.try_wait().expect("asked").is_none(), "it held its locks all the time");
    other.kill().expect("ended");
    other.wait().expect("ended");
}
