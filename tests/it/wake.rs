//! What wakes the daemon: real files in real directories, the kernel's inotify, and the log of a real Postfix.

use crate::lab::postfix;
use crate::lab::scratch;

use std::fs::{self, File, Permissions};
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Condvar, Mutex, mpsc};
use std::time::{Duration, Instant};

use relaykey::credential::Secret;
use relaykey::standin::{self, Misbehavior, Standin};
use relaykey::wake::alarm::{AlarmKind, Brake};
use relaykey::wake::log::{AlarmListener, LogPlace, listen};
use relaykey::wake::{Cause, Mailbox, Watch, WatchError, wait};
use tempfile::TempDir;

/// So long is waited for what must come.
const LIMIT: Duration = Duration::from_secs(20);

/// A scratch directory of its own, removed at the end.
struct Scratch(TempDir);

impl Scratch {
    fn new() -> Self {
        Self(scratch::private("wake"))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, name).unwrap();
    }

    /// As a careful writer replaces a file.
    fn replace(&self, name: &str) {
        fs::write(self.path("successor"), name).unwrap();
        fs::rename(self.path("successor"), self.path(name)).unwrap();
    }
}

/// A watch on files below a scratch directory, one of which only shows that everything before it has been told.
struct Watched {
    dir: Scratch,
    watch: Watch,
    told: mpsc::Receiver<PathBuf>,
    runtime: tokio::runtime::Runtime,
}

/// Written to when all is told.
const LAST: &str = "last/sentinel";

impl Watched {
    fn new(dir: Scratch, names: &[&str]) -> Self {
        dir.write(LAST);
        let runtime = run_time();
        let (sender, told) = mpsc::channel();
        let files = Self::files(&dir, names);
        let _inside = runtime.enter();
        let watch = Watch::new(&files, move |path| drop(sender.send(path.to_owned()))).expect("inotify");
        drop(_inside);
        let watched = Self { dir, watch, told, runtime };
        assert!(watched.watch.troubles().is_empty());
        watched
    }

    fn files(dir: &Scratch, names: &[&str]) -> Vec<PathBuf> {
        names.iter().chain(&[LAST]).map(|name| dir.path(name)).collect()
    }

    fn update(&self, names: &[&str]) {
        self.watch.update(&Self::files(&self.dir, names));
    }

    /// Lets the task that follows the paths anew run, until `name` was told.
    fn tells(&self, what: &str, name: &str) {
        let begun = Instant::now();
        while !self.now().contains(&self.dir.path(name)) {
            assert!(begun.elapsed() < LIMIT, "waited {LIMIT:?} in vain for {name} to be told after it was {what}");
            self.let_run();
        }
        // What belongs to the same change may come a moment later.
        self.settle();
    }

    /// Nothing but the sentinel is told of what happened until now.
    fn tells_nothing(&self, what: &str) {
        let others: Vec<PathBuf> = self.settle();
        assert!(others.is_empty(), "after something was {what}: {others:?}");
    }

    /// What is told until a change of the sentinel, made now, is told.
    fn settle(&self) -> Vec<PathBuf> {
        let last = self.dir.path(LAST);
        let (mut all, begun) = (Vec::new(), Instant::now());
        fs::set_permissions(&last, Permissions::from_mode(0o600)).unwrap();
        loop {
            let now = self.now();
            let done = now.contains(&last);
            all.extend(now.into_iter().filter(|path| *path != last));
            if done {
                return all;
            }
            assert!(begun.elapsed() < LIMIT, "waited {LIMIT:?} in vain for the sentinel");
            self.let_run();
        }
    }

    fn now(&self) -> Vec<PathBuf> {
        self.told.try_iter().collect()
    }

    fn let_run(&self) {
        self.runtime.block_on(async { tokio::time::sleep(Duration::from_millis(5)).await });
    }
}

fn run_time() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

#[test]
fn every_way_to_change_a_file_is_told_and_reading_is_not() {
    let dir = Scratch::new();
    dir.write("etc/table");
    dir.write("etc/other");
    let w = Watched::new(dir, &["etc/table", "etc/new"]);
    let table = w.dir.path("etc/table");

    fs::read(&table).unwrap();
    fs::read_dir(w.dir.path("etc")).unwrap().for_each(drop);
    fs::write(w.dir.path("etc/other"), "changed").unwrap();
    fs::write(w.dir.path("etc/table.db"), "changed").unwrap();
    w.tells_nothing("read, or another file changed");

    w.dir.write("etc/table");
    w.tells("written in place", "etc/table");
    w.dir.replace("etc/table");
    w.tells("replaced by rename", "etc/table");
    fs::set_permissions(&table, Permissions::from_mode(0o640)).unwrap();
    w.tells("given another mode", "etc/table");
    std::os::unix::fs::lchown(&table, Some(0), Some(1))
        .or_else(|_| fs::set_permissions(&table, Permissions::from_mode(0o600)))
        .unwrap();
    w.tells("given another group", "etc/table");
    fs::rename(&table, w.dir.path("etc/aside")).unwrap();
    w.tells("moved away", "etc/table");
    fs::rename(w.dir.path("etc/aside"), &table).unwrap();
    w.tells("moved back", "etc/table");
    fs::remove_file(&table).unwrap();
    w.tells("removed", "etc/table");
    w.dir.write("etc/table");
    w.tells("created again", "etc/table");
    w.dir.write("etc/new");
    w.tells("created", "etc/new");

    // Open for a while: told when it is complete.
    let mut open = File::create(w.dir.path("etc/new")).unwrap();
    w.settle();
    open.write_all(b"half").unwrap();
    w.tells_nothing("written to half");
    drop(open);
    w.tells("closed", "etc/new");
}

#[test]
fn links_are_followed_and_their_exchange_is_told() {
    let dir = Scratch::new();
    dir.write("shared/sasl_passwd");
    fs::create_dir(dir.path("etc")).unwrap();
    symlink("../shared/sasl_passwd", dir.path("etc/sasl_passwd")).unwrap();
    // As Kubernetes mounts a secret.
    dir.write("secret/..2026_a/password");
    symlink("..2026_a", dir.path("secret/..data")).unwrap();
    symlink("..data/password", dir.path("secret/password")).unwrap();
    let w = Watched::new(dir, &["etc/sasl_passwd", "secret/password"]);

    w.dir.replace("shared/sasl_passwd");
    w.tells("replaced where the link points", "etc/sasl_passwd");
    w.dir.write("other/sasl_passwd");
    fs::remove_file(w.dir.path("etc/sasl_passwd")).unwrap();
    symlink("../other/sasl_passwd", w.dir.path("etc/sasl_passwd")).unwrap();
    w.tells("linked elsewhere", "etc/sasl_passwd");
    w.dir.replace("other/sasl_passwd");
    w.tells("replaced there", "etc/sasl_passwd");
    w.dir.replace("shared/sasl_passwd");
    w.tells_nothing("changed where the link pointed before");

    for name in ["..2026_b", "..2026_c"] {
        w.dir.write(&format!("secret/{name}/password"));
        symlink(name, w.dir.path("secret/..tmp")).unwrap();
        fs::rename(w.dir.path("secret/..tmp"), w.dir.path("secret/..data")).unwrap();
        w.tells("exchanged as a whole", "secret/password");
        fs::write(w.dir.path(&format!("secret/{name}/password")), "x").unwrap();
        w.tells("written there", "secret/password");
    }
    fs::remove_dir_all(w.dir.path("secret/..2026_a")).unwrap();
    w.tells_nothing("removed that was left behind");
}

#[test]
fn directories_may_come_go_and_be_exchanged() {
    let dir = Scratch::new();
    dir.write("there/deep/table");
    let w = Watched::new(dir, &["not/yet/table", "there/deep/table"]);
    w.dir.write("not/yet/table");
    w.tells("created with its directories", "not/yet/table");
    w.dir.replace("not/yet/table");
    w.tells("replaced", "not/yet/table");

    for round in 0..3 {
        fs::rename(w.dir.path("there/deep"), w.dir.path(&format!("aside-{round}"))).unwrap();
        w.tells("moved away with its directory", "there/deep/table");
        w.dir.write("there/deep/table");
        w.tells("made anew with its directory", "there/deep/table");
        w.dir.replace("there/deep/table");
        w.tells("replaced in the new directory", "there/deep/table");
        fs::write(w.dir.path(&format!("aside-{round}/table")), "x").unwrap();
        w.tells_nothing("changed in the directory that was moved away");
        fs::remove_dir_all(w.dir.path("there/deep")).unwrap();
        w.tells("removed with its directory", "there/deep/table");
        w.dir.write("there/deep/table");
        w.tells("made anew with its directory", "there/deep/table");
    }

    // Further up than inotify tells: found by the check that comes with each poll.
    fs::rename(w.dir.path("there"), w.dir.path("gone")).unwrap();
    w.dir.write("there/deep/table");
    w.settle();
    w.watch.check();
    w.tells("exchanged two directories up", "there/deep/table");
    w.dir.replace("there/deep/table");
    w.tells("replaced after that", "there/deep/table");
}

#[test]
fn other_files_can_be_watched_later() {
    let dir = Scratch::new();
    dir.write("a/one");
    dir.write("b/two");
    let w = Watched::new(dir, &["a/one"]);
    w.update(&["a/one", "b/two", "b/two"]);
    w.tells_nothing("asked for");
    w.dir.replace("b/two");
    w.tells("replaced", "b/two");
    w.dir.replace("a/one");
    w.tells("replaced", "a/one");
    w.update(&["b/two"]);
    w.dir.replace("a/one");
    w.tells_nothing("changed that is no longer asked for");
}

#[test]
fn when_events_are_lost_everything_counts_as_changed() {
    let dir = Scratch::new();
    for name in ["a/one", "b/two", "noise/x"] {
        dir.write(name);
    }
    let runtime = run_time();
    let _inside = runtime.enter();
    // The first change is taken in only when the gate opens; until then the kernel's queue fills.
    let gate = Arc::new((Mutex::new(false), Condvar::new()));
    let (sender, told) = mpsc::channel();
    let files = [dir.path("a/one"), dir.path("b/two"), dir.path("noise/x")];
    let at_gate = Arc::clone(&gate);
    let _watch = Watch::new(&files, move |path| {
        sender.send(path.to_owned()).unwrap();
        let (open, changed) = &*at_gate;
        let mut open = open.lock().unwrap();
        while !*open {
            open = changed.wait(open).unwrap();
        }
    })
    .expect("inotify");
    dir.replace("b/two");
    assert_eq!(told.recv_timeout(LIMIT).expect("the first change"), dir.path("b/two"));
    let queue: usize = fs::read_to_string("/proc/sys/fs/inotify/max_queued_events").unwrap().trim().parse().unwrap();
    for n in 0..queue {
        // Two names in turn: the kernel makes one of events that are alike.
        drop(File::create(dir.path(["noise/p", "noise/q"][n % 2])).unwrap());
    }
    dir.replace("a/one");
    *gate.0.lock().unwrap() = true;
    gate.1.notify_all();
    let (begun, mut all) = (Instant::now(), Vec::new());
    while !files.iter().all(|file| all.contains(file)) {
        assert!(begun.elapsed() < LIMIT, "waited {LIMIT:?} in vain for everything to be told: {all:?}");
        runtime.block_on(async { tokio::time::sleep(Duration::from_millis(5)).await });
        all.extend(told.try_iter());
    }
}

// ---------------------------------------------------------------- in a process of its own

/// Runs this one test again in a process of its own, behind `prefix`. `true`: this is that process.
fn alone(test: &str, prefix: &[&str]) -> bool {
    const INSIDE: &str = "RELAYKEY_TEST_ALONE";
    if std::env::var_os(INSIDE).is_some() {
        return true;
    }
    let me = std::env::current_exe().unwrap();
    let mut argv: Vec<&std::ffi::OsStr> = prefix.iter().map(std::ffi::OsStr::new).collect();
    argv.push(me.as_os_str());
    let mut command = Command::new(argv[0]);
    command.args(&argv[1..]).args(["--exact", test, "--nocapture", "--test-threads=1"]).env(INSIDE, "1");
    let output = command.output().expect("this test program");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("1 passed"), "{text}{}", String::from_utf8_lossy(&output.stderr));
    false
}

/// In a user namespace, whose limits are its own (namespaces(7), /proc/sys/user).
#[test]
fn without_watches_it_says_what_to_raise() {
    let set = |name: &str, value: &str| fs::write(format!("/proc/sys/user/{name}"), value).unwrap();
    if !alone("wake::without_watches_it_says_what_to_raise", &["unshare", "--user", "--map-root-user"]) {
        return;
    }
    let dir = Scratch::new();
    dir.write("a/one");
    dir.write("b/two");
    let files = [dir.path("a/one"), dir.path("b/two")];
    let runtime = run_time();
    let _inside = runtime.enter();
    set("max_inotify_watches", "1");
    let (sender, told) = mpsc::channel();
    let watch = Watch::new(&files, move |path| drop(sender.send(path.to_owned()))).expect("inotify");
    let troubles = watch.troubles();
    assert_eq!(troubles.len(), 1, "{troubles:?}");
    assert!(troubles[0].what.contains("/b cannot be watched"), "{troubles:?}");
    assert!(troubles[0].fix.contains("fs.inotify.max_user_watches"), "{troubles:?}");
    // The other directory is watched all the same, and this one as soon as there is room.
    dir.replace("a/one");
    assert_eq!(told.recv_timeout(LIMIT).unwrap(), files[0]);
    set("max_inotify_watches", "100");
    watch.check();
    let begun = Instant::now();
    while !watch.troubles().is_empty() {
        assert!(begun.elapsed() < LIMIT, "waited {LIMIT:?} in vain for the second directory to be watched");
        runtime.block_on(async { tokio::time::sleep(Duration::from_millis(5)).await });
    }
    drop(watch);

    set("max_inotify_instances", "0");
    let error = Watch::new(&files, |_| ()).unwrap_err();
    assert!(matches!(error, WatchError::NoInotify(_)), "{error:?}");
    assert!(error.fix().contains("fs.inotify.max_user_instances"), "{}", error.fix());
}

/// How often each thread of this process gave up the processor to wait, by its name.
fn switches() -> Vec<(String, u64)> {
    let field = |text: &str, name: &str| -> String {
        text.lines().find_map(|line| line.strip_prefix(name)).expect(name).trim().to_owned()
    };
    let mut all: Vec<(String, u64)> = fs::read_dir("/proc/self/task")
        .unwrap()
        .map(|task| {
            let status = fs::read_to_string(task.unwrap().path().join("status")).unwrap();
            let name = format!("{} {}", field(&status, "Name:"), field(&status, "Pid:"));
            (name, field(&status, "voluntary_ctxt_switches:").parse().unwrap())
        })
        .collect();
    all.sort();
    all
}

#[test]
fn what_only_waits_does_not_wake_up() {
    if !alone("wake::what_only_waits_does_not_wake_up", &[]) {
        return;
    }
    let dir = Scratch::new();
    dir.write("etc/table");
    dir.write("log/mail.log");
    let (table, log, mailbox) = (dir.path("etc/table"), dir.path("log/mail.log"), Mailbox::new());
    let (ready, is_ready) = mpsc::channel();
    let posting = mailbox.clone();
    let daemon = std::thread::Builder::new().name("daemon".into());
    let daemon = daemon.spawn(move || {
        run_time().block_on(async {
            let to = posting.clone();
            let watch = Watch::new(&[table], move |path| to.post(Cause::FileWatch(path.into()))).expect("inotify");
            let place = LogPlace::File(log);
            let LogPlace::File(path) = &place else { unreachable!() };
            let growth = watch.follow(path);
            ready.send(()).unwrap();
            tokio::select! {
                () = wait(Duration::from_secs(3600)) => panic!("an hour has passed"),
                () = listen(&place, Some(growth), &mut [], |finding| panic!("{finding:?}")) => {}
                causes = posting.recv() => assert_eq!(causes, [Cause::Signal]),
            }
        })
    });
    let daemon = daemon.unwrap();
    is_ready.recv_timeout(LIMIT).unwrap();
    let ours = || -> Vec<(String, u64)> {
        switches().into_iter().filter(|(t, _)| t.starts_with("daemon") || t.starts_with("notify-rs")).collect()
    };
    // Until the watches have settled.
    let (begun, mut before) = (Instant::now(), ours());
    loop {
        std::thread::sleep(Duration::from_millis(300));
        let now = ours();
        if now == before {
            break;
        }
        assert!(begun.elapsed() < LIMIT, "waited {LIMIT:?} in vain for {now:?} to come to rest");
        before = now;
    }
    assert_eq!(before.len(), 2, "one thread of the daemon's, one of notify's");
    // Longer than a wait would be cut into without a timer of the kernel's.
    std::thread::sleep(Duration::from_secs(6));
    assert_eq!(ours(), before, "threads, and how often they woke up");
    mailbox.post(Cause::Signal);
    daemon.join().unwrap();
}

// ---------------------------------------------------------------- the mail log

type Heard = Arc<Mutex<Vec<(AlarmKind, String, String)>>>;

/// A listener for these endpoints, and what it hears.
fn listener(endpoints: &[(&str, u16)]) -> (AlarmListener, Mailbox, Heard) {
    let (mailbox, heard) = (Mailbox::new(), Heard::default());
    let hearing = Arc::clone(&heard);
    let listener = AlarmListener {
        endpoints: endpoints.iter().map(|(host, port)| ((*host).to_owned(), *port)).collect(),
        mailbox: mailbox.clone(),
        brake: Arc::new(Mutex::new(Brake::default())),
        heard: Box::new(move |alarm| {
            hearing.lock().unwrap().push((alarm.kind, alarm.endpoint.clone(), alarm.words.clone()));
        }),
    };
    (listener, mailbox, heard)
}

/// Waits until so many alarms were heard, while `run` runs.
async fn hears(heard: &Heard, count: usize) {
    let begun = Instant::now();
    while heard.lock().unwrap().len() < count {
        assert!(begun.elapsed() < LIMIT, "waited {LIMIT:?} in vain for alarm {count}: {heard:?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

fn append(path: &Path, lines: &str) {
    File::options().append(true).create(true).open(path).unwrap().write_all(lines.as_bytes()).unwrap();
}

fn refused(n: u32) -> String {
    format!(
        "Nov 20 22:38:20 mx1 postfix/smtp[{n}]: 4A{n}: SASL authentication failed; server ses.test[192.0.2.1] said: 535 no\n"
    )
}

#[test]
fn a_log_is_listened_to_across_rotation_and_looks_stay_rare() {
    let dir = Scratch::new();
    fs::create_dir(dir.path("log")).unwrap();
    let log = dir.path("log/mail.log");
    append(&log, &refused(1));
    let (ours, mailbox, heard) = listener(&[("ses.test", 587)]);
    let (theirs, their_mailbox, _) = listener(&[("other.test", 587)]);
    run_time().block_on(async {
        let watch = Watch::new(&[], |_| ()).expect("inotify");
        let (place, growth) = (LogPlace::File(log.clone()), watch.follow(&log));
        let mut listeners = [ours, theirs];
        let brake = Arc::clone(&listeners[0].brake);
        let steps = async {
            // What is old raises no alarm. Whether it has been opened is seen by the first line that does.
            let begun = Instant::now();
            while heard.lock().unwrap().is_empty() {
                assert!(begun.elapsed() < LIMIT, "waited {LIMIT:?} in vain for the first alarm");
                append(&log, &refused(2));
                tokio::time::sleep(Duration::from_millis(300)).await;
            }
            let first = tokio::time::timeout(LIMIT, mailbox.recv()).await.expect("a look at once");
            assert!(matches!(&first[..], [Cause::LogAlarm(alarm)] if alarm.kind == AlarmKind::Refused), "{first:?}");
            let before = heard.lock().unwrap().len();
            fs::rename(&log, dir.path("log/mail.log.1")).unwrap();
            append(&dir.path("log/mail.log.1"), &refused(3));
            append(&log, &refused(4));
            hears(&heard, before + 2).await;
            File::options().write(true).open(&log).unwrap().set_len(0).unwrap();
            tokio::time::sleep(Duration::from_millis(300)).await;
            append(&log, &refused(5));
            hears(&heard, before + 3).await;
            assert!(mailbox.take().is_empty(), "a second look within ten seconds");
            brake.lock().unwrap().settle();
            append(&log, &refused(6));
            tokio::time::timeout(LIMIT, mailbox.recv()).await.expect("a look at once when it is a new matter");
            assert!(their_mailbox.take().is_empty());
        };
        tokio::select! {
            () = steps => {}
            () = listen(&place, Some(growth), &mut listeners, |finding| panic!("{finding:?}")) => {}
        }
    });
}

#[test]
fn a_real_postfix_raises_each_alarm() {
    let standin = Standin::start(standin::Options::default()).expect("a stand-in");
    let password = Secret::new("a-password-of-the-lab".into());
    for key in ["AKIAGOOD", "AKIADENIED"] {
        standin.set_key(key, &password);
    }
    standin.deny_sending("AKIADENIED");
    let dir = Scratch::new();
    let ca = dir.path("ca.pem");
    fs::write(&ca, standin.ca_pem()).unwrap();
    fs::set_permissions(dir.0.path(), Permissions::from_mode(0o755)).unwrap();
    let port = standin.starttls_port();
    let hop = format!("[localhost]:{port}");
    let login = |user: &str, password: &str| format!("{hop} {user}:{password}\n");
    let good = "a-password-of-the-lab";
    let postfix = postfix::Instance::new(&postfix::Options {
        map_type: "hash",
        relayhost: &hop,
        ca_pem: Some(&ca),
        table: Some(&login("AKIAGOOD", "wrong")),
        settings: &[],
    });
    let log = postfix.base.join("log/mail.log");
    let (ours, mailbox, heard) = listener(&[("email-smtp.eu-west-1.amazonaws.com", 587), ("localhost", port)]);
    let (theirs, _, others) = listener(&[("localhost", port + 1), ("127.0.0.1", port)]);
    run_time().block_on(async {
        let watch = Watch::new(&[], |_| ()).expect("inotify");
        let (place, growth) = (LogPlace::File(log.clone()), watch.follow(&log));
        let mut listeners = [ours, theirs];
        let listening = listen(&place, Some(growth), &mut listeners, |finding| panic!("{finding:?}"));
        // Before there is a log: what is written first is new.
        let steps = async {
            let change = |table: String, settings: &[(&str, &str)]| {
                postfix.write_table(&table);
                postfix.postmap();
                settings.iter().for_each(|(name, value)| postfix.set(name, value));
                postfix.reload();
            };
            postfix.start();
            // With what a stranger may choose.
            postfix.inject_from("\"x>, relay=localhost[127.0.0.1]:1, status=deferred (535\"@lab.invalid", 1);
            hears(&heard, 1).await;
            let first = tokio::time::timeout(LIMIT, mailbox.recv()).await.expect("a look at once");
            assert_eq!(first[0].detail().as_deref(), Some("localhost: 535 Authentication Credentials Invalid"));
            standin.fault(Misbehavior::EchoAuth, 1);
            postfix.inject(1);
            hears(&heard, 2).await;
            standin.fault(Misbehavior::Reply454, 1);
            postfix.inject(1);
            hears(&heard, 3).await;
            change(login("AKIADENIED", good), &[]);
            // Without a sender there is no bounce, which would be refused too.
            postfix.inject_from("", 1);
            hears(&heard, 4).await;
            change(format!("[elsewhere]:{port} AKIAGOOD:{good}\n"), &[]);
            postfix.inject_from("", 1);
            hears(&heard, 5).await;
            change(login("AKIAGOOD", good), &[("smtp_sasl_mechanism_filter", "external")]);
            postfix.inject(1);
            hears(&heard, 6).await;
            let soft = [("smtp_sasl_mechanism_filter", "plain"), ("smtp_sasl_auth_soft_bounce", "no")];
            change(login("AKIAGOOD", "wrong"), &soft);
            postfix.inject_from("", 1);
            hears(&heard, 7).await;
            change(login("AKIAGOOD", good), &[]);
            postfix.inject(1);
            postfix.wait_for_log(&["status=sent"], LIMIT);
        };
        tokio::select! {
            () = steps => {}
            () = listening => {}
        }
    });
    let heard = heard.lock().unwrap();
    let kinds: Vec<AlarmKind> = heard.iter().map(|(kind, ..)| *kind).collect();
    let expected = [
        AlarmKind::Refused,
        AlarmKind::Refused,
        AlarmKind::Temporary,
        AlarmKind::Policy,
        AlarmKind::NoLogin,
        AlarmKind::NoMechanism,
        AlarmKind::Refused,
    ];
    assert_eq!(kinds, expected, "{heard:#?}");
    assert!(heard[1].2.starts_with("535-AUTH PLAIN ***"), "{heard:#?}");
    assert!(heard[3].2.starts_with("554 Access denied"), "{heard:#?}");
    assert!(heard.iter().all(|(_, endpoint, words)| endpoint == "localhost" && !words.contains('@')), "{heard:#?}");
    assert!(others.lock().unwrap().is_empty(), "another relay's listener heard {others:?}");
}
