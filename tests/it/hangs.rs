//! What hangs outside holds up nothing else: one row for each outside party that hangs, one column for each other thing that
//! is to go on. `cargo test --test it hangs:: -- --nocapture` shows how long each took, without a hang in the first line.

use crate::lab::daemon as running;
use crate::lab::postfix;
use crate::lab::relaykey as lab;

use std::fmt::Write as _;
use std::fs;
use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use lab::{DELIVERY, Host, Key, Program, Setup};
use postfix::{free_port, wait_for};
use relaykey::host::Directory;
use running::{Daemon, NEVER, health};
use serde_json::{Value, json};

/// What is not held up takes less; every hang lasts longer.
const LIMIT: Duration = Duration::from_secs(30);
/// What is seen of a daemon that has nothing to finish.
const END: Duration = Duration::from_secs(15);
/// So long a lock is waited for.
const LOCK_WAIT: Duration = Duration::from_secs(30);
/// Rows at the same time.
const AT_ONCE: usize = 3;

#[derive(Debug, Clone, Copy, PartialEq)]
enum Hangs {
    Nothing,
    Source,
    Endpoint,
    Dns,
    Postconf,
    Postmap,
    PostfixCheck,
    Reload,
    Lock,
    FileSystem,
    Receiver,
}

use Hangs::*;

impl Hangs {
    /// The step of one target that hangs, beside which the other one goes on.
    fn step(self) -> Option<&'static str> {
        match self {
            Endpoint | Dns => Some("verify"),
            Postconf | FileSystem => Some("inspect"),
            Postmap | Lock => Some("prepare"),
            PostfixCheck | Reload => Some("activate"),
            // Both wait for the source; and a receiver is nobody's step.
            Nothing | Source | Receiver => None,
        }
    }
}

/// A program that stays in the way until it is dropped.
struct Blocker(Child);

impl Drop for Blocker {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}

/// A file system that answers nothing.
fn dead_file_system(at: &Path) -> Blocker {
    let script = r#"
import ctypes, os, sys
fd = os.open("/dev/fuse", os.O_RDWR)
libc = ctypes.CDLL(None, use_errno=True)
at = sys.argv[1].encode()
options = f"fd={fd},rootmode=40000,user_id=0,group_id=0,allow_other".encode()
if libc.mount(b"hangs", at, b"fuse", 0, options):
    sys.exit(os.strerror(ctypes.get_errno()))
print("mounted", flush=True)
sys.stdin.read()
libc.umount2(at, 2)
"#;
    let mut child = Command::new("python3")
        .args(["-c", script])
        .arg(at)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("python3");
    let mut line = String::new();
    BufReader::new(child.stdout.as_mut().expect("piped")).read_line(&mut line).expect("a line");
    assert_eq!(line, "mounted\n", "no file system in user space (/dev/fuse)");
    Blocker(child)
}

/// Puts a wrapper in the place of one of Postfix's programs, for this daemon alone: it hangs for one instance, and only if
/// its arguments fit this pattern of `case`.
fn wrapper(dir: &Path, program: &str, instance: &Path, pattern: &str) -> PathBuf {
    let real = dir.join(format!("real-{program}"));
    fs::copy(format!("/usr/sbin/{program}"), &real).expect("a copy");
    let wrapper = dir.join(program);
    let script = format!(
        "#!/bin/sh\ncase \"$*\" in *{}*) case \"$*\" in\n{pattern}) : > {}; exec sleep 600;;\nesac;; esac\nexec {} \"$@\"\n",
        instance.display(),
        dir.join("hangs").display(),
        real.display(),
    );
    fs::write(&wrapper, script).expect("written");
    fs::set_permissions(&wrapper, fs::Permissions::from_mode(0o755)).expect("chmod");
    wrapper
}

struct Row {
    hangs: Hangs,
    other_credential: Duration,
    /// From the start on.
    other_target: Option<Duration>,
    status: Duration,
    livez: Duration,
    /// `None`: a step that must not be torn was under way.
    term: Option<Duration>,
}

/// A credential `a` that meets the hang, with two targets, and `b`, which has nothing to do with it.
fn row(hangs: Hangs) -> Row {
    let (old, new, other_old, other_new) = (Key::new(), Key::new(), Key::new(), Key::new());
    let host = Host::new("hash", &old);
    let line = |key: &Key| format!("{} {}\n", host.hop(), key.pair());
    let (second, b) = (host.another("hash", &line(&old)), host.another("hash", &line(&other_old)));
    for key in [&new, &other_old, &other_new] {
        host.standin.set_key(&key.id, &key.login.password);
    }
    b.start();
    second.start();
    if matches!(hangs, Nothing | Receiver | PostfixCheck | Reload) {
        host.postfix.start();
    }
    let file = |name: &str, key: &Key| {
        let (path, fresh) = (host.path(name), host.path("fresh"));
        fs::write(&fresh, key.pair()).expect("written");
        fs::set_permissions(&fresh, fs::Permissions::from_mode(0o600)).expect("chmod");
        fs::rename(&fresh, &path).expect("renamed");
        format!("type = \"file\"\npath = {path:?}\n{NEVER}")
    };
    let silent = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let silent_port = silent.local_addr().expect("bound").port();
    let dir = host.path("hang");
    fs::create_dir(&dir).expect("made");
    fs::set_permissions(&dir, fs::Permissions::from_mode(0o755)).expect("chmod");

    let mut source = file("a", if hangs == Receiver { &old } else { &new });
    let (mut mounts, mut more, mut target) = (Vec::new(), String::new(), String::new());
    let (mut blocker, mut lock, mut dns) = (None, None, None);
    let etc = &host.postfix.config_dir;
    match hangs {
        Nothing => {}
        Endpoint => target = format!("port = {silent_port}\n"),
        Source => {
            source = format!(
                "type = \"parameter-store\"\nparameter = \"/ses\"\nregion = \"eu-west-1\"\n\
                 endpoint_url = \"http://127.0.0.1:{silent_port}\"\n{NEVER}"
            );
        }
        Dns => {
            let resolver = UdpSocket::bind((Ipv4Addr::new(127, 9, 9, 9), 53)).expect("port 53");
            dns = Some(resolver);
            let resolv = dir.join("resolv.conf");
            fs::write(&resolv, "nameserver 127.9.9.9\noptions timeout:30 attempts:5\n").expect("written");
            mounts.push((resolv, PathBuf::from("/etc/resolv.conf")));
        }
        Postconf => mounts.push((wrapper(&dir, "postconf", etc, "*"), "/usr/sbin/postconf".into())),
        Postmap => {
            // Not for look-ups and listings.
            let wrapper = wrapper(&dir, "postmap", etc, "*\\ -q\\ *|*\\ -s\\ *) ;;\n*");
            mounts.push((wrapper, "/usr/sbin/postmap".into()));
        }
        PostfixCheck => mounts.push((wrapper(&dir, "postfix", etc, "*check*"), "/usr/sbin/postfix".into())),
        Reload => {
            target =
                format!("reload = [\"/bin/sh\", \"-c\", \": > {}; exec sleep 600\"]\n", dir.join("hangs").display())
        }
        Lock => lock = Some(Directory::open(etc).and_then(|d| d.lock(Duration::ZERO)).expect("locked")),
        FileSystem => {
            let at = dir.join("mnt");
            fs::create_dir(&at).expect("made");
            blocker = Some(dead_file_system(&at));
            host.postfix.set("smtp_sasl_password_maps", &format!("hash:{}", at.join("sasl_passwd").display()));
        }
        Receiver => {
            more = "[[report]]\nname = \"hangs\"\ntype = \"exec\"\ncommand = [\"/bin/sleep\", \"600\"]\ntimeout = \"5m\"\n\
                    credentials = [\"a\"]\n"
                .into();
        }
    }
    let port = free_port();
    let setup = Setup { source: &source, ..Setup::default() };
    let reloaded = dir.join("reloaded");
    let main = format!("name = \"main\"\n{target}");
    let mut other = format!(
        "name = \"second\"\nreload = [\"/bin/sh\", \"-c\", \": > {}; postfix -c {} reload\"]\n",
        reloaded.display(),
        second.config_dir.display()
    );
    if hangs == Dns {
        other += "endpoint = \"localhost\"\n";
    }
    let mut a = host.credential("a", &setup, &[(&host.postfix, &main), (&second, &other)]);
    if hangs == Dns {
        let aliases = "endpoint = \"smtp.example.com\"\nendpoint_aliases = [\"localhost\"]";
        a = a.replacen("endpoint = \"localhost\"", aliases, 1);
    }
    let of_b = file("b", &other_old);
    let b_lines = host.credential("b", &Setup { source: &of_b, ..Setup::default() }, &[(&b, "name = \"main\"")]);
    host.write_config(&(a + &b_lines + &health(port) + &more));

    let binds: String =
        (mounts.iter()).map(|(from, to)| format!("mount --bind {} {} && ", from.display(), to.display())).collect();
    let line = format!("exec unshare --mount --propagation private sh -c '{binds}exec \"$@\"' \"$0\" \"$@\"");
    let config = host.path("config.toml");
    let arguments = ["--config", config.to_str().expect("UTF-8"), "run"];
    let env = [("AWS_ACCESS_KEY_ID", "AKIA"), ("AWS_SECRET_ACCESS_KEY", "of-no-importance")];
    let started = Instant::now();
    let program = Program::start_in_shell(&line, &dir, &arguments, &env, b"");
    let daemon = Daemon { host: &host, program, port };
    let applied = |name: &'static str, key: &Key| {
        let began = Instant::now();
        daemon.shows(&format!("{hangs:?}: {name} to be applied"), LIMIT, |status| {
            let all = status["credentials"].as_array()?;
            let one = all.iter().find(|c| c["name"] == name)?;
            (one["applied"]["username"] == key.id.as_str()).then_some(())
        });
        began.elapsed()
    };
    applied("b", &other_old);
    // It has begun to hang.
    let step = |word: &'static str| {
        daemon.shows(&format!("{hangs:?}: {word}"), LIMIT, |status| {
            (status["credentials"][0]["live"]["step"] == word).then_some(())
        });
    };
    match hangs {
        Nothing => _ = applied("a", &new),
        Source => step("fetch"),
        Endpoint | Dns | Lock | FileSystem => step(hangs.step().expect("of one target")),
        Receiver => _ = applied("a", &old),
        _ => wait_for("the hang", LIMIT, || dir.join("hangs").exists().then_some(())),
    }

    // The other target of the same credential is read back while the step hangs, and nothing is confirmed.
    let other_target = (hangs == Nothing || hangs.step().is_some()).then(|| {
        let a = daemon.shows(&format!("{hangs:?}: the other target to be read back"), LIMIT, |status| {
            let a = &status["credentials"][0];
            let found = a["in_use"].as_array()?.iter().find(|found| found["target"] == "second")?;
            (found["usernames"] == json!([new.id])).then(|| a.clone())
        });
        if let Some(step) = hangs.step() {
            assert_eq!(a["live"]["step"], step, "{hangs:?}: {a:#}");
            assert_eq!(a["applied"], Value::Null, "{hangs:?}: confirmed without the target that hangs");
        }
        assert!(running::holds(&second, &new) && reloaded.exists(), "{hangs:?}: {a:#}");
        started.elapsed()
    });

    file("b", &other_new);
    let other_credential = applied("b", &other_new);
    let took = |work: &dyn Fn()| {
        let began = Instant::now();
        work();
        began.elapsed()
    };
    let livez = took(&|| assert_eq!(daemon.get("/livez").0, 200, "{hangs:?}"));
    let status = took(&|| _ = host.relaykey(&["status"]).says(&["b: "]));
    // A configuration with another poll: the others do not wait for the one that hangs.
    let text = fs::read_to_string(&config).expect("read").replace("24h", "23h");
    fs::write(&config, text).expect("written");
    daemon.program.signal(rustix::process::Signal::HUP);
    file("b", &other_old);
    applied("b", &other_old);

    let torn = matches!(hangs, PostfixCheck | Reload);
    let term = if torn {
        None
    } else {
        let told = Instant::now();
        daemon.ends(END);
        Some(told.elapsed())
    };
    drop((lock, blocker, dns, silent));
    Row { hangs, other_credential, other_target, status, livez, term }
}

/// Told to end after the renames, it waits for no look that hangs: nothing is torn, and the next start completes it.
#[test]
fn told_to_end_after_a_swap_it_gives_up_looks_that_hang() {
    for (program, pattern, reload) in [
        ("postconf", "*", "\"always\""),
        ("postmap", "*\\ -q\\ *", "\"if-needed\""),
        ("postfix", "*check*", "\"always\""),
    ] {
        let (old, new) = (Key::new(), Key::new());
        let host = Host::new("hash", &old);
        host.standin.set_key(&new.id, &new.login.password);
        host.postfix.start();
        let dir = host.path("hang");
        fs::create_dir(&dir).expect("made");
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o755)).expect("chmod");
        // Hangs as soon as the table holds the new key.
        let wrapper = wrapper(&dir, program, &host.postfix.config_dir, pattern);
        let script = fs::read_to_string(&wrapper).expect("read");
        let real = dir.join(format!("real-{program}"));
        let armed =
            format!("grep -q {} {} || exec {} \"$@\"\n", new.id, host.postfix.table().display(), real.display());
        let script = script.replacen("\n", &format!("\n{armed}"), 1);
        fs::write(&wrapper, script).expect("written");
        let source = host.publish(old.pair());
        let target = format!("reload = {reload}");
        let port = free_port();
        let source = format!("{source}{NEVER}");
        host.configure(&Setup { source: &source, target: &target, more: &health(port), ..Setup::default() });
        host.sync(&[], 0).says(&["ses: adopted"]);
        host.publish(new.pair());

        let bind = format!("mount --bind {} /usr/sbin/{program}", wrapper.display());
        let line = format!("exec unshare --mount --propagation private sh -c '{bind} && exec \"$@\"' \"$0\" \"$@\"");
        let config = host.path("config.toml");
        let arguments = ["--config", config.to_str().expect("UTF-8"), "run"];
        let daemon = Daemon { host: &host, program: Program::start_in_shell(&line, &dir, &arguments, &[], b""), port };
        let of = format!("{program} {pattern}");
        wait_for(&format!("{of} to hang"), LIMIT, || dir.join("hangs").exists().then_some(()));
        assert!(running::holds(&host.postfix, &new), "{of}: after the swap");
        let told = Instant::now();
        daemon.ends(LIMIT - Duration::from_secs(10));
        println!("{of}: {:.2} s", told.elapsed().as_secs_f64());

        assert!(running::holds(&host.postfix, &new), "{of}");
        assert_eq!(host.state("ses")["applied"]["username"], old.id.as_str(), "{of}: nothing was confirmed");
        host.sync(&[], 0);
        assert_eq!(host.state("ses")["applied"]["username"], new.id.as_str(), "{of}");
    }
}

/// What changes something is finished, although it takes longer than a look may.
#[test]
fn told_to_end_it_finishes_a_reload() {
    let (old, new) = (Key::new(), Key::new());
    let host = Host::new("hash", &old);
    host.standin.set_key(&new.id, &new.login.password);
    host.postfix.start();
    let (armed, begun, done) = (host.path("armed"), host.path("begun"), host.path("done"));
    // That of the adoption is over at once.
    let command =
        format!("if test -e {}; then : > {}; sleep 8; : > {}; fi; ", armed.display(), begun.display(), done.display())
            + &format!("postfix -c {} reload", host.postfix.config_dir.display());
    let target = format!("reload = [\"/bin/sh\", \"-c\", \"{command}\"]");
    let source = host.publish(old.pair());
    let source = format!("{source}{NEVER}");
    let daemon = host.run(&Setup { source: &source, target: &target, ..Setup::default() });
    daemon.applied(&old);
    fs::write(&armed, "").expect("written");
    host.publish(new.pair());
    wait_for("the reload", LIMIT, || begun.exists().then_some(()));
    assert!(!done.exists());
    daemon.ends(LIMIT);
    assert!(done.exists(), "it was not waited for");
    assert_eq!(host.state("ses")["targets"]["main"]["reload_owed"], serde_json::Value::Null);
}

#[test]
fn what_hangs_holds_up_nothing_else() {
    let waiting = Mutex::new(vec![
        Receiver,
        Lock,
        Reload,
        PostfixCheck,
        Postmap,
        Postconf,
        Dns,
        Endpoint,
        Source,
        FileSystem,
        Nothing,
    ]);
    let rows = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                loop {
                    let Some(hangs) = waiting.lock().expect("not poisoned").pop() else { return };
                    let row = row(hangs);
                    rows.lock().expect("not poisoned").push(row);
                }
            });
        }
    });
    let mut table = format!(
        "\n{:<13} {:>16} {:>12} {:>9} {:>9} {:>9}\n",
        "hangs", "other credential", "other target", "status", "/livez", "SIGTERM"
    );
    let seconds = |d: Duration| format!("{:.2} s", d.as_secs_f64());
    for row in rows.lock().expect("not poisoned").iter() {
        let _ = writeln!(
            table,
            "{:<13} {:>16} {:>12} {:>9} {:>9} {:>9}",
            format!("{:?}", row.hangs),
            seconds(row.other_credential),
            row.other_target.map_or("-".into(), seconds),
            seconds(row.status),
            seconds(row.livez),
            row.term.map_or("finishes".into(), seconds)
        );
    }
    println!("{table}");
}

/// Two credentials with their tables in one directory: the reload of one hangs, the configuration changes, and the other one goes on as it
/// did before. HTTP is answered all the time, also while the daemon ends.
#[test]
fn after_a_change_of_the_configuration_what_hangs_holds_up_nothing_either() {
    let (old, new, other_old, other_new) = (Key::new(), Key::new(), Key::new(), Key::new());
    let host = Host::new("hash", &old);
    let b = host.another("hash", &format!("{} {}\n", host.hop(), other_old.pair()));
    for key in [&new, &other_old, &other_new] {
        host.standin.set_key(&key.id, &key.login.password);
    }
    let etc = &host.postfix.config_dir;
    let beside = etc.join("other");
    fs::rename(b.table(), &beside).expect("renamed");
    fs::rename(b.map(), etc.join("other.db")).expect("renamed");
    b.set("smtp_sasl_password_maps", &format!("hash:{}", beside.display()));
    host.start_postfix();
    b.start();
    let file = |name: &str, key: &Key| {
        let (path, fresh) = (host.path(name), host.path("fresh"));
        fs::write(&fresh, key.pair()).expect("written");
        fs::set_permissions(&fresh, fs::Permissions::from_mode(0o600)).expect("chmod");
        fs::rename(&fresh, &path).expect("renamed");
        format!("type = \"file\"\npath = {path:?}\n{NEVER}")
    };
    let (armed, begun, released) = (host.path("armed"), host.path("begun"), host.path("released"));
    let wait = format!("while ! test -e {}; do sleep 0.1; done", released.display());
    let command = format!("if test -e {}; then : > {}; {wait}; fi; ", armed.display(), begun.display())
        + &format!("postfix -c {} reload", etc.display());
    let target = format!("reload = [\"/bin/sh\", \"-c\", \"{command}\"]");
    let port = free_port();
    let (of_a, of_b) = (file("a", &old), file("b", &other_old));
    let lines = host.credential("a", &Setup { source: &of_a, ..Setup::default() }, &[(&host.postfix, &target)])
        + &host.credential("b", &Setup { source: &of_b, ..Setup::default() }, &[(&b, "")])
        + &health(port);
    host.write_config(&lines);
    let daemon = host.run_configured(port);
    let answers_for = |time: Duration| {
        let began = Instant::now();
        while began.elapsed() < time {
            let asked = Instant::now();
            assert_eq!(daemon.get("/livez").0, 200);
            let took = asked.elapsed();
            assert!(took < Duration::from_secs(2), "/livez had no answer for {took:?}");
            std::thread::sleep(Duration::from_millis(50));
        }
    };
    fs::write(&armed, "").expect("written");
    file("a", &new);
    wait_for("the hang", LIMIT, || begun.exists().then_some(()));

    let since = daemon.status()["daemon"]["config_since"].clone();
    std::thread::sleep(Duration::from_secs(1));
    host.write_config(&lines.replace("24h", "23h"));
    daemon.program.signal(rustix::process::Signal::HUP);
    // Tasks that hang are waited for so long.
    answers_for(Duration::from_secs(6));
    daemon.shows("the new configuration", END, |s| (s["daemon"]["config_since"] != since).then_some(()));
    file("b", &other_new);
    daemon.shows("b to be applied", LOCK_WAIT / 2, |status| {
        let all = status["credentials"].as_array()?;
        let one = all.iter().find(|c| c["name"] == "b")?;
        (one["applied"]["username"] == other_new.id.as_str()).then_some(())
    });

    daemon.program.terminate();
    answers_for(Duration::from_secs(2));
    fs::write(&released, "").expect("written");
    let ran = daemon.program.wait(LIMIT);
    assert_eq!(ran.code, 0, "{}", ran.err);
    assert!(running::holds(&host.postfix, &new), "{}", ran.err);
}

/// `sync` without a daemon: somebody holds the lock of the first credential's tables, and the second one is done meanwhile.
#[test]
fn a_credential_that_hangs_holds_up_no_other_without_a_daemon() {
    let (old, new) = (Key::new(), Key::new());
    let host = Host::new("hash", &old);
    let other = host.another("hash", &format!("{} {}\n", host.hop(), old.pair()));
    host.standin.set_key(&new.id, &new.login.password);
    host.start_postfix();
    other.start();
    let source = host.publish(new.pair());
    let setup = Setup { source: &source, ..Setup::default() };
    let lines = host.credential("a", &setup, &[(&host.postfix, "name = \"main\"")])
        + &host.credential("b", &setup, &[(&other, "name = \"main\"")]);
    host.write_config(&lines);
    let lock = Directory::open(&host.postfix.config_dir).and_then(|d| d.lock(Duration::ZERO)).expect("locked");

    let program = host.start(&["sync", "a", "b", "a", "--json"]);
    let state = host.path("state").join("credentials/b.json");
    // Less than a lock is waited for.
    wait_for("the other credential to be applied", LOCK_WAIT / 2, || {
        let state: Value = serde_json::from_str(&fs::read_to_string(&state).ok()?).ok()?;
        (state["applied"]["username"] == json!(new.id)).then_some(())
    });
    assert!(running::holds(&other, &new) && running::holds(&host.postfix, &old));
    drop(lock);
    let ran = program.wait(DELIVERY);
    let document = ran.expect(0).json();
    let told = |field: &str| -> Vec<Value> {
        document["credentials"].as_array().expect("a list").iter().map(|c| c[field].clone()).collect()
    };
    assert_eq!(told("name"), ["a", "b"], "each once, in the order of the command");
    assert_eq!(told("outcome"), ["confirmed", "confirmed"]);
    assert!(running::holds(&host.postfix, &new));
}

/// Another instance of the host, nobody's target, whose configuration lies on a file system that answers nothing.
#[test]
fn an_instance_that_is_no_target_and_hangs_holds_up_nothing() {
    let (old, new) = (Key::new(), Key::new());
    let host = Host::new("hash", &old);
    host.standin.set_key(&new.id, &new.login.password);
    let at = host.path("dead");
    fs::create_dir(&at).expect("a directory");
    host.postfix.set("multi_instance_directories", at.to_str().expect("UTF-8"));
    host.configure(&Setup { source: &host.publish(old.pair()), ..Setup::default() });
    host.start_postfix();
    let _dead = dead_file_system(&at);
    host.sync(&[], 0).says(&["ses: adopted"]);
    host.publish(new.pair());
    let ran = host.sync(&[], 0);
    ran.says(&["ses: confirmed", &new.id]);
    assert!(ran.took < LIMIT, "{:?}", ran.took);
    // What that one uses is not known, and that is told.
    let incomplete = &host.state("ses")["report"]["targets"][0]["incomplete"];
    assert_eq!(*incomplete, json!([at.join("main.cf")]));
    host.relaykey(&["check"]).expect(0).says(&["could not be read: its file system", "gives no answer"]);
}
