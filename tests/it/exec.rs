//! Reports to a program: what it is given, as whom it runs, and that nothing of it outlives the attempt. As root.
//!
//! Most programs here are `/bin/sh -c SCRIPT`: a file that a test has just written can be busy, because another thread
//! that starts a program at that moment holds it open for writing.

use crate::lab::scratch;

use std::collections::BTreeSet;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use relaykey::fault::{Class, Fault};
use relaykey::report::exec::Exec;
use relaykey::report::{Receiver, Whose};
use relaykey::rollover::Report;
use serde_json::json;
use tempfile::TempDir;

/// For programs that are not meant to run into it, on a busy machine.
const PLENTY: Duration = Duration::from_secs(20);
/// For those that are.
const SHORT: Duration = Duration::from_secs(1);
/// How much later than its limit an attempt may be seen to end, on a busy machine.
const LATE: Duration = Duration::from_secs(4);
const NOBODY: &str = "nobody";

/// A directory that the unprivileged user may write to, below one that is root's; gone at the end.
struct Scratch(TempDir);

impl Scratch {
    fn new() -> Self {
        let dir = scratch::directory("program", 0o755);
        std::fs::create_dir(dir.path().join("out")).expect("a directory");
        mode(&dir.path().join("out"), 0o777);
        Self(dir)
    }

    fn out(&self, name: &str) -> PathBuf {
        self.0.path().join("out").join(name)
    }

    fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.out(name)).unwrap_or_else(|e| panic!("{name}: {e}"))
    }
}

fn mode(path: &Path, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).expect("chmod");
}

/// `/bin/sh -c SCRIPT`, with `$1` for the directory that it may write to.
fn shell(scratch: &Scratch, script: &str, timeout: Duration) -> Exec {
    let out = scratch.0.path().join("out").to_str().expect("UTF-8").to_owned();
    let command = ["/bin/sh".to_owned(), "-c".into(), script.into(), "report".into(), out];
    Exec::new(&command, NOBODY, timeout)
}

/// A program that can be started at once: no process that a thread of this one starts ever held it open.
fn written_by_another(path: &Path, text: &str) {
    let write = r#"printf %s "$1" > "$0" && chmod 755 "$0""#;
    let status = std::process::Command::new("/bin/sh").args(["-c", write]).arg(path).arg(text).status();
    assert!(status.expect("a shell").success());
}

fn run<T>(act: impl Future<Output = T>) -> T {
    let run_time = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a run time");
    run_time.block_on(act)
}

fn deliver(exec: &Exec, report: &Report) -> Result<(), Fault> {
    run(async { tokio::time::timeout(exec.limit(), exec.deliver(report)).await.expect("it ends by itself") })
}

#[track_caller]
fn refused(exec: &Exec, class: &str, temporary: bool, words: &str) -> Fault {
    let e = deliver(exec, &report(1)).expect_err("not delivered");
    assert_eq!((e.class.word(), e.temporary), (class, temporary), "{e:?}");
    assert!(e.what.contains(words) && !e.fix.is_empty(), "{e:?}");
    e
}

fn report(seq: u64) -> Report {
    serde_json::from_value(json!({
        "schema": "relaykey/report/v1", "id": format!("host-ses-{seq}"), "seq": seq, "host_id": "host", "host": "mx1.example.com",
        "credential": "ses", "source": "arn:x", "version": "v2", "username": "AKIAIOSFODNN7EXAMPLE",
        "previous_username": null, "at": "2026-01-01T00:00:00Z", "mode": "automatic", "agent": "relaykey/0", "outcome": "confirmed",
        "targets": [], "error": null, "approved_by": null,
    }))
    .expect("a report")
}

fn whose() -> Whose {
    Whose { credential: "ses".into(), host: "mx1.example.com".into(), host_id: "host".into(), is_passing: false }
}

/// The process whose number a program wrote there.
fn pid(scratch: &Scratch, name: &str) -> u32 {
    scratch.read(name).trim().parse().expect("a process number")
}

/// A zombie that nobody has reaped yet does not run.
fn runs(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(") ").next().is_some_and(|rest| !rest.is_empty() && !rest.starts_with(['Z', 'X']))
}

#[track_caller]
fn ends(pid: u32, what: &str) {
    let deadline = Instant::now() + PLENTY;
    while runs(pid) {
        assert!(Instant::now() < deadline, "{what} (process {pid}) lives on");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A shell obeys the script that it is given; the user whom it runs as may have written it, and nobody else.
#[test]
fn a_script_of_others_is_not_run_for_a_report() {
    use std::os::unix::fs::chown;
    let scratch = Scratch::new();
    let script = scratch.0.path().join("script");
    std::fs::write(&script, "cat > /dev/null\n").expect("written");
    let command = ["/bin/sh".to_owned(), script.to_str().expect("UTF-8").to_owned()];
    let exec = Exec::new(&command, NOBODY, Duration::from_secs(20));
    for (uid, bits, taken) in [(0, 0o644, true), (65534, 0o644, true), (1, 0o644, false), (0, 0o666, false)] {
        chown(&script, Some(uid), None).expect("chown");
        mode(&script, bits);
        match taken {
            true => deliver(&exec, &report(1)).unwrap_or_else(|e| panic!("{uid} {bits:o}: {e:?}")),
            false => drop(refused(&exec, "permissions", false, "script")),
        }
    }
}

#[test]
fn a_report_arrives_as_one_line_whole() {
    let scratch = Scratch::new();
    let exec = shell(&scratch, "cat > $1/report", PLENTY);
    deliver(&exec, &report(7)).expect("delivered");
    let line = scratch.read("report");
    assert_eq!(line.matches('\n').count(), 1);
    assert_eq!(serde_json::from_str::<Report>(line.strip_suffix('\n').expect("LF")).expect("a report"), report(7));
    // More than a pipe holds, to one that takes its time.
    let mut long = report(8);
    long.source = "ä".repeat(500_000);
    let exec = shell(&scratch, "sleep 0.2; cat > $1/report; echo talks without end; yes | head -c 1000000", PLENTY);
    deliver(&exec, &long).expect("delivered");
    assert_eq!(serde_json::from_str::<Report>(&scratch.read("report")).expect("a report"), long);
}

#[test]
fn a_program_gets_nothing_but_what_is_documented() {
    let scratch = Scratch::new();
    let secret = scratch.0.path().join("secret");
    std::fs::write(&secret, "x").expect("write");
    let _open = std::fs::File::open(&secret).expect("a descriptor that is ours");
    let script = "exec 2> $1/errors
        tr '\\0' '\\n' < /proc/$$/environ > $1/environment
        pwd > $1/directory
        id -u > $1/uid; id -g > $1/gid; id -G > $1/groups
        cat /proc/$$/status > $1/status
        cut -d' ' -f5 /proc/$$/stat > $1/group; echo $$ > $1/pid
        tr '\\0' '\\n' < /proc/$$/cmdline | head -1 > $1/name";
    deliver(&shell(&scratch, script, PLENTY), &report(1)).expect("delivered");
    assert_eq!(scratch.read("errors"), "");
    let environment = scratch.read("environment");
    let environment: BTreeSet<&str> = environment.lines().collect();
    assert_eq!(environment, BTreeSet::from(["PATH=/usr/bin:/bin", "LANG=C.UTF-8", "HOME=/"]));
    assert_eq!(scratch.read("directory"), "/\n");
    let passwd = std::fs::read_to_string("/etc/passwd").expect("/etc/passwd");
    let nobody: Vec<&str> = passwd.lines().find(|l| l.starts_with("nobody:")).expect("nobody").split(':').collect();
    assert_eq!((scratch.read("uid").trim(), scratch.read("gid").trim()), (nobody[2], nobody[3]));
    assert_eq!(scratch.read("groups").trim(), nobody[3]);
    let status = scratch.read("status");
    let ids = |name: &str| status.lines().find_map(|l| l.strip_prefix(name)).expect("a line").trim().replace('\t', " ");
    assert_eq!(ids("Uid:"), [nobody[2]; 4].join(" "), "real, effective, saved and file system's");
    assert_eq!(ids("Gid:"), [nobody[3]; 4].join(" "));
    assert_eq!((ids("Groups:").as_str(), ids("CapEff:").as_str()), ("", "0000000000000000"));
    assert_eq!(scratch.read("group"), scratch.read("pid"), "a process group of its own");
    assert_eq!(scratch.read("name"), "/bin/sh\n");
    // The shell keeps descriptors of its own, so it makes way for `ls`, which has one for the directory it lists.
    deliver(&shell(&scratch, "exec ls -l /proc/self/fd > $1/descriptors", PLENTY), &report(1)).expect("delivered");
    let descriptors = scratch.read("descriptors");
    assert!(!descriptors.contains("secret"), "{descriptors}");
    // Beyond the first three there is only what this test was itself given and passes on to every child.
    let inherited = |fd: &str| {
        let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{fd}")).unwrap_or_default();
        let flags = info.lines().find_map(|l| l.strip_prefix("flags:")).unwrap_or("02000000").trim();
        u32::from_str_radix(flags, 8).expect("flags") & 0o2_000_000 == 0
    };
    let open: Vec<&str> = descriptors.lines().filter(|l| l.contains(" -> ") && !l.contains(" -> /proc/")).collect();
    assert!(open.len() >= 3, "{descriptors}");
    for line in open {
        let fd = line.split(" -> ").next().and_then(|l| l.rsplit(' ').next()).expect("a number");
        assert!(["0", "1", "2"].contains(&fd) || inherited(fd), "{line}");
    }
}

#[test]
fn how_it_ends_says_what_became_of_the_report() {
    let scratch = Scratch::new();
    let sh = |script: &str| shell(&scratch, script, PLENTY);
    // Neither reading the report nor not reading it says anything.
    for script in ["exit 0", "head -c 10 > /dev/null; exit 0", "exec 0<&-; sleep 0.2; exit 0", "cat > /dev/null"] {
        deliver(&sh(script), &report(1)).unwrap_or_else(|e| panic!("{script}: {e:?}"));
    }
    let mut long = report(2);
    long.source = "x".repeat(1_000_000);
    for script in ["exit 0", "head -c 10 > /dev/null; exit 0", "exec 0<&-; sleep 0.2; exit 0"] {
        deliver(&sh(script), &long).unwrap_or_else(|e| panic!("{script}, with more than a pipe holds: {e:?}"));
    }
    refused(&sh("echo the queue is full >&2; exit 75"), "program", true, "status 75): \"the queue is full\"");
    refused(&sh("exit 1"), "program", false, "program /bin/sh: it failed with status 1");
    refused(&sh("exit 255"), "program", false, "status 255");
    refused(&sh("kill -9 $$"), "program", true, "signal 9");
    refused(&sh("kill -TERM $$"), "program", true, "signal 15");
}

#[test]
fn of_standard_error_the_end_is_shown_without_control_characters() {
    let scratch = Scratch::new();
    let sh = |script: &str| shell(&scratch, script, PLENTY);
    let e = refused(
        &sh(r"printf 'a\033[31m\007b\r\n\0c \342\200\256 d \377\n' >&2; exit 1"),
        "program",
        false,
        "\"a [31m b c d \u{fffd}\"",
    );
    assert!(e.what.chars().all(|c| !c.is_control() && c != '\u{202e}'), "{e:?}");
    let e =
        refused(&sh("yes wrong | head -c 3000000 >&2; echo at last >&2; exit 1"), "program", false, "wrong at last\"");
    let count = e.what.chars().count();
    assert!(count < 600 && e.what.contains("\"…"), "{count} characters: {}", e.what);
}

#[test]
fn the_time_out_ends_it_and_all_that_it_started() {
    let scratch = Scratch::new();
    let script = "echo hangs >&2
        sh -c 'echo $$ > '$1'/grandchild; exec sleep 60' &
        trap '' TERM HUP INT
        while ! [ -s $1/grandchild ]; do sleep 0.01; done
        echo $$ > $1/pid
        sleep 60";
    let exec = shell(&scratch, script, SHORT * 2);
    let began = Instant::now();
    refused(&exec, "timeout", true, "did not end within 2s and was killed with all that it had started: \"hangs\"");
    assert!(began.elapsed() < SHORT * 2 + LATE, "{:?}", began.elapsed());
    ends(pid(&scratch, "pid"), "the program");
    ends(pid(&scratch, "grandchild"), "what it started");
}

#[test]
fn an_attempt_that_is_dropped_ends_it_too() {
    let scratch = Scratch::new();
    let script = "sh -c 'echo $$ > '$1'/grandchild; exec sleep 60' &
        echo $$ > $1/pid
        while ! [ -s $1/grandchild ]; do sleep 0.01; done
        touch $1/ready
        sleep 60";
    let (exec, report) = (shell(&scratch, script, PLENTY), report(1));
    run(async {
        let attempt = exec.deliver(&report);
        let ready = async {
            let deadline = Instant::now() + PLENTY;
            while !scratch.out("ready").exists() {
                assert!(Instant::now() < deadline, "the program did not start");
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::select! {
            outcome = attempt => panic!("it ended: {outcome:?}"),
            () = ready => {}
        }
    });
    ends(pid(&scratch, "pid"), "the program");
    ends(pid(&scratch, "grandchild"), "what it started");
}

#[test]
fn what_it_leaves_behind_is_neither_waited_for_nor_left() {
    let scratch = Scratch::new();
    // In its process group, with its standard error open.
    let began = Instant::now();
    let script = "sh -c 'echo $$ > '$1'/left; exec sleep 60' & while ! [ -s $1/left ]; do sleep 0.01; done; exit 0";
    deliver(&shell(&scratch, script, PLENTY), &report(1)).expect("delivered");
    ends(pid(&scratch, "left"), "what it left behind");
    // Out of it: not ours to end, and not waited for either.
    let script = "setsid sh -c 'echo $$ > '$1'/away; exec sleep 60' & while ! [ -s $1/away ]; do sleep 0.01; done
        echo sent off >&2; exit 3";
    refused(&shell(&scratch, script, PLENTY), "program", false, "status 3: \"sent off\"");
    assert!(began.elapsed() < PLENTY, "{:?}", began.elapsed());
    let away = pid(&scratch, "away");
    assert!(runs(away));
    let away = i32::try_from(away).ok().and_then(rustix::process::Pid::from_raw).expect("a process number");
    rustix::process::kill_process(away, rustix::process::Signal::KILL).expect("killed");
}

#[test]
fn a_program_that_others_could_change_is_not_started() {
    let scratch = Scratch::new();
    let ran = scratch.out("ran");
    let program = |name: &str, bits: u32| {
        let path = scratch.0.path().join(name);
        std::fs::write(&path, format!("#!/bin/sh\ntouch {}\n", ran.display())).expect("write");
        mode(&path, bits);
        path
    };
    let exec = |path: &Path| Exec::new(&[path.to_str().expect("UTF-8").to_owned()], NOBODY, PLENTY);
    for (path, words) in [
        (program("out/in-an-open-directory", 0o755), "may be changed by others"),
        (program("others", 0o757), "others than its owner may change it (mode 0757)"),
        (program("group", 0o775), "others than its owner may change it (mode 0775)"),
        (program("setuid", 0o4755), "runs with the rights of its owner"),
        (program("setgid", 0o2755), "runs with the rights of its owner"),
        (program("data", 0o644), "is not executable"),
        (
            {
                let path = program("strangers", 0o755);
                std::os::unix::fs::chown(&path, Some(65534), None).expect("chown");
                path
            },
            "belongs to user id 65534",
        ),
        (
            {
                let path = scratch.0.path().join("link");
                std::os::unix::fs::symlink(scratch.out("in-an-open-directory"), &path).expect("a link");
                path
            },
            "may be changed by others",
        ),
    ] {
        let exec = exec(&path);
        let e = refused(&exec, "permissions", false, words);
        assert_eq!(run(exec.check(&whose())).expect_err("a check says the same"), e);
    }
    refused(&exec(&scratch.0.path().join("none")), "not-found", false, "does not exist");
    refused(&exec(scratch.0.path()), "unsupported", false, "a directory");
    assert!(!ran.exists(), "one of them was started");
}

#[test]
fn a_check_starts_nothing_and_says_what_it_saw() {
    let scratch = Scratch::new();
    let words = run(shell(&scratch, "touch $1/ran", PLENTY).check(&whose())).expect("it would work");
    assert!(words.contains("run as nobody (user id 65534") && words.contains("not started"), "{words}");
    assert!(!scratch.out("ran").exists());
    // The user cannot search a directory above it.
    let path = scratch.0.path().join("closed");
    std::fs::create_dir(&path).expect("a directory");
    written_by_another(&path.join("report"), "#!/bin/sh\n");
    mode(&path, 0o700);
    let exec = Exec::new(&[path.join("report").to_str().expect("UTF-8").to_owned()], NOBODY, PLENTY);
    let e = run(exec.check(&whose())).expect_err("closed");
    assert!(e.class == Class::Permissions && e.fix == format!("chmod o+x {}", path.display()), "{e:?}");
    refused(&exec, "command", false, "Permission denied");
    // What its first line names is not there.
    mode(&path, 0o755);
    written_by_another(&path.join("report"), "#!/nonexistent/sh\n");
    let e = refused(&exec, "command", false, "No such file");
    assert!(e.fix.contains("#!"), "{e:?}");
}

#[test]
fn an_unknown_user_and_root_are_refused() {
    let sh = |user: &str| Exec::new(&["/bin/sh".to_owned(), "-c".into(), "exit 0".into()], user, PLENTY);
    let e = refused(&sh("nobody-of-that-name"), "user", false, "/etc/passwd has no such user");
    assert!(e.fix.contains("useradd"), "{e:?}");
    refused(&sh("root"), "user", false, "user id 0");
    assert_eq!(run(sh("root").check(&whose())).expect_err("root").class, Class::User);
}

/// Not root: only as oneself. Run again as nobody, from a copy that nobody may read.
#[test]
fn without_root_it_runs_as_oneself_or_not_at_all() {
    const INSIDE: &str = "RELAYKEY_TEST_EXEC_NOBODY";
    let sh = |user: &str, script: &str| Exec::new(&["/bin/sh".to_owned(), "-c".into(), script.into()], user, PLENTY);
    if std::env::var_os(INSIDE).is_some() {
        deliver(&sh(NOBODY, "[ $(id -u) = 65534 ]"), &report(1)).expect("as oneself");
        refused(&sh("daemon", "exit 0"), "user", false, "only root can start a program as another user");
        println!("both were seen");
        return;
    }
    let scratch = Scratch::new();
    let copy = scratch.0.path().join("test");
    std::fs::copy(std::env::current_exe().expect("this program"), &copy).expect("a copy");
    mode(&copy, 0o755);
    // `setpriv` starts it: a copy that was just written may be busy for a moment, for which it is tried again.
    let deadline = Instant::now() + PLENTY;
    let said = loop {
        let mut child = std::process::Command::new("setpriv")
            .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
            .arg(&copy)
            .args(["--exact", "exec::without_root_it_runs_as_oneself_or_not_at_all", "--nocapture", "--test-threads=1"])
            .env(INSIDE, "1")
            .current_dir("/")
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::inherit())
            .spawn()
            .expect("setpriv starts");
        let mut said = String::new();
        child.stdout.take().expect("piped").read_to_string(&mut said).expect("text");
        let status = child.wait().expect("it ends");
        if status.success() || Instant::now() > deadline {
            break said;
        }
        std::thread::sleep(Duration::from_millis(50));
    };
    assert!(said.contains("both were seen"), "{said}");
}
