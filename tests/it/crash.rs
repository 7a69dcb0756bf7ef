//! What a kill, a power cut, a meddler and a full disk leave behind.
//!
//! With the feature `crash-at` the real program aborts just before its n-th mutating call. Here it does so at every n
//! there is, on a private Postfix that runs, and the next run has to find its way: promises 1, 4 and 10 by exhaustion.
//!
//! - [`Series`]: each point of a rollover, a first table and an adoption; what lies there afterwards is wholly old or
//!   wholly new, and the next run completes it.
//! - [`power`]: from the record of those runs, what a power cut may leave at every prefix of the calls, with what was
//!   not yet synced lost or kept.
//! - What undoes, and what happens where nothing can be written.
//!
//! Everything needs root, as Postfix does. `cargo test --features crash-at --test it crash::`
#![cfg(feature = "crash-at")]

use crate::lab::points;
use crate::lab::postfix;
use crate::lab::scratch;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use relaykey::credential::{Login, Secret, ses_smtp_password};
use relaykey::standin::{Options, Standin};
use serde_json::Value;
use tempfile::TempDir;

const REGION: &str = "us-east-1";
const SIGABRT: i32 = 6;
/// What one message may take to arrive, and one line to appear in the mail log.
const DELIVERY: Duration = Duration::from_secs(20);

// ---------------------------------------------------------------------------------------------------------------
// The lab

/// Where one host stands before the runs that are crashed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Start {
    /// The old login is applied, the source holds the new one.
    Rollover,
    /// No table, no state: the first run makes both.
    FirstTable,
    /// The new login is in use already, and there is no state.
    Adoption,
}

/// A private Postfix that runs, its relay, and a source that is a file.
struct Lab {
    postfix: postfix::Instance,
    standin: Standin,
    dir: TempDir,
    old: Login,
    new: Login,
    start: Start,
    before: Snapshot,
    /// The text of the table before and after the rollover; `None`: there is none.
    old_text: Option<Vec<u8>>,
    new_text: Vec<u8>,
}

/// As `reload`: a command that first does what a test has put into [`Lab::meddler`].
const HOOK: &str = "hook";

/// How a sync ended.
struct Synced {
    code: Option<i32>,
    signal: Option<i32>,
    document: Value,
    stderr: String,
}

impl Synced {
    fn outcome(&self) -> &str {
        self.document["credentials"][0]["outcome"].as_str().unwrap_or("none")
    }

    fn what(&self) -> String {
        format!(
            "exit {:?}, signal {:?}, {}\n{:#}\n{}",
            self.code,
            self.signal,
            self.outcome(),
            self.document,
            self.stderr
        )
    }
}

/// A run of relaykey: which configuration, where it stops, what it records.
#[derive(Clone, Copy, Default)]
struct Run<'a> {
    crash_at: Option<usize>,
    log: Option<&'a Path>,
}

fn script(path: &Path, body: &str) {
    fs::write(path, format!("#!/bin/sh\nset -e\n{body}")).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o700)).unwrap();
}

fn login(number: u32) -> Login {
    let password = ses_smtp_password(&Secret::new(format!("crash/test/secret/key/{number:018}")), REGION);
    Login::new(format!("AKIACRASHTEST{number:07}"), password).expect("a login")
}

fn pair(login: &Login) -> String {
    format!("{}:{}", login.username, login.password.expose())
}

/// Whose entries are not ours: what they give must never change.
const OTHERS: [&str; 4] = ["[other.example.net]:587", "old.example.org:25", "@dependent.example", "localhost.example"];

/// A table of several relays, with everything in it that must stay as it is.
fn table(port: u16, ours: &Login) -> String {
    format!(
        "# relays of this host\n\n[other.example.net]:587\tother:secret1\nold.example.org:25   older:secret2\n\
         @dependent.example sender:secret3\n[localhost]:{port}\t \t{}\n  \n# the last line ends without a newline\n\
         localhost.example near:secret4",
        pair(ours)
    )
}

impl Lab {
    fn new(kind: &str, start: Start, reload: &str) -> Self {
        let dir = scratch::private("crash");
        let standin = Standin::start(Options::default()).expect("stand-in");
        let (old, new) = (login(1), login(2));
        for login in [&old, &new] {
            standin.set_key(&login.username, &login.password);
        }
        let ca_file = dir.path().join("ca.pem");
        fs::write(&ca_file, standin.ca_pem()).unwrap();
        let port = standin.starttls_port();
        let text = match start {
            Start::Rollover => Some(table(port, &old)),
            Start::FirstTable => None,
            Start::Adoption => Some(table(port, &new)),
        };
        let postfix = postfix::Instance::new(&postfix::Options {
            map_type: kind,
            relayhost: &format!("[localhost]:{port}"),
            ca_pem: Some(&ca_file),
            table: text.as_deref(),
            settings: &[],
        });
        let new_text = match start {
            Start::FirstTable => format!("[localhost]:{port} {}\n", pair(&new)),
            _ => table(port, &new),
        };
        let (old_text, new_text) = (text.map(String::into_bytes), new_text.into_bytes());
        let mut lab = Self { postfix, standin, dir, old, new, start, before: Snapshot::default(), old_text, new_text };
        lab.make_hook();
        let hook = format!("[\"{}\"]", lab.hook().display());
        fs::write(lab.config(), lab.configuration(if reload == HOOK { &hook } else { reload })).unwrap();
        lab.postfix.start();
        if start == Start::Rollover {
            lab.publish(&lab.old);
            let adopted = lab.sync(Run::default());
            assert_eq!((adopted.code, adopted.outcome()), (Some(0), "adopted"), "{}", adopted.what());
        }
        lab.publish(&lab.new);
        lab.before = lab.snapshot();
        lab
    }

    fn configuration(&self, reload: &str) -> String {
        format!(
            "config_version = 1\n\
             [host]\ninstances = \"named\"\nname = \"mx.lab.invalid\"\nstate_dir = \"{state}\"\nrun_dir = \"{dir}/run\"\n\
             [[credential]]\nname = \"ses\"\n\
             [credential.source]\ntype = \"file\"\npath = \"{source}\"\n\
             [credential.smtp]\nendpoint = \"localhost\"\nport = {port}\nregion = \"{REGION}\"\nca_file = \"{dir}/ca.pem\"\n\
             [[credential.target]]\ntype = \"postfix\"\nconfig_dir = \"{etc}\"\nreload = {reload}\n",
            state = self.state_dir().display(),
            dir = self.dir.path().display(),
            source = self.source().display(),
            port = self.standin.starttls_port(),
            etc = self.postfix.config_dir.display(),
        )
    }

    fn config(&self) -> PathBuf {
        self.dir.path().join("config.toml")
    }

    fn state_dir(&self) -> PathBuf {
        self.dir.path().join("state")
    }

    fn source(&self) -> PathBuf {
        self.dir.path().join("credential")
    }

    fn log_file(&self) -> PathBuf {
        self.dir.path().join("calls")
    }

    fn hook(&self) -> PathBuf {
        self.dir.path().join("reload")
    }

    /// A script that, where there is one, runs between the swap and the read-back.
    fn meddler(&self) -> PathBuf {
        self.dir.path().join("meddle")
    }

    fn make_hook(&self) {
        let (meddler, etc) = (self.meddler(), &self.postfix.config_dir);
        let meddler = meddler.display();
        let etc = etc.display();
        script(
            &self.hook(),
            &format!("if [ -x {meddler} ]; then {meddler}; fi\nexec /usr/sbin/postfix -c {etc} reload\n"),
        );
    }

    /// Puts a login where the source looks for it.
    fn publish(&self, login: &Login) {
        fs::write(self.source(), pair(login)).unwrap();
        fs::set_permissions(self.source(), fs::Permissions::from_mode(0o600)).unwrap();
    }

    fn sync(&self, run: Run<'_>) -> Synced {
        let mut command = Command::new(env!("CARGO_BIN_EXE_relaykey"));
        command.arg("--config").arg(self.config()).args(["sync", "--json", "--wait", "0s"]).stdin(Stdio::null());
        command.envs(run.crash_at.map(|n| ("CRASH_AT", n.to_string())));
        command.envs(run.log.map(|path| ("CRASH_LOG", path)));
        let output = command.output().expect("relaykey");
        let document = serde_json::from_slice(&output.stdout).unwrap_or(Value::Null);
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        Synced { code: output.status.code(), signal: output.status.signal(), document, stderr }
    }
}

// ---------------------------------------------------------------------------------------------------------------
// What lies on disk

/// A file or directory, as far as it matters here.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Node {
    Directory,
    File { bytes: Vec<u8>, mode: u32 },
}

/// Everything that a run may change: the files of the table and what is staged beside them, and the state directory.
#[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Snapshot(BTreeMap<PathBuf, Node>);

impl Snapshot {
    fn bytes(&self, path: &Path) -> Option<&Vec<u8>> {
        match self.0.get(path) {
            Some(Node::File { bytes, .. }) => Some(bytes),
            _ => None,
        }
    }
}

fn names(directory: &Path) -> Vec<PathBuf> {
    let mut all: Vec<PathBuf> =
        fs::read_dir(directory).map(|list| list.map(|entry| entry.unwrap().path()).collect()).unwrap_or_default();
    all.sort();
    all
}

/// A staged file, or what `postmap` makes on the way.
fn hidden(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().as_encoded_bytes();
    name.starts_with(b".") || name.starts_with(b"__db.")
}

/// Replaces a file by rename, as everything that Postfix reads has to be, with a time at which it is not new.
fn put(path: &Path, bytes: &[u8], mode: u32) {
    let beside = path.with_file_name("restored");
    fs::write(&beside, bytes).unwrap();
    fs::set_permissions(&beside, fs::Permissions::from_mode(mode)).unwrap();
    let past = std::time::SystemTime::now() - Duration::from_secs(60);
    fs::File::options().write(true).open(&beside).unwrap().set_modified(past).unwrap();
    fs::rename(&beside, path).unwrap();
}

impl Lab {
    fn table_files(&self) -> Vec<PathBuf> {
        let ours = |path: &PathBuf| {
            hidden(path) || path.file_name().is_some_and(|n| n.as_encoded_bytes().starts_with(b"sasl_"))
        };
        names(&self.postfix.config_dir).into_iter().filter(ours).collect()
    }

    fn snapshot(&self) -> Snapshot {
        let mut all = BTreeMap::new();
        let mut ahead = self.table_files();
        ahead.extend(self.state_dir().exists().then(|| self.state_dir()));
        while let Some(path) = ahead.pop() {
            let found = fs::symlink_metadata(&path).unwrap();
            let node = if found.is_dir() {
                ahead.extend(names(&path));
                Node::Directory
            } else {
                Node::File { bytes: fs::read(&path).unwrap(), mode: found.mode() & 0o7777 }
            };
            all.insert(path, node);
        }
        Snapshot(all)
    }

    fn restore(&self, to: &Snapshot) {
        match fs::remove_dir_all(self.state_dir()) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => panic!("the state directory stays: {e}"),
            _ => {}
        }
        for path in self.table_files() {
            if !to.0.contains_key(&path) {
                fs::remove_file(path).unwrap();
            }
        }
        let now = self.snapshot();
        for (path, node) in &to.0 {
            match node {
                Node::Directory => fs::DirBuilder::new().mode(0o700).create(path).unwrap(),
                Node::File { .. } if now.0.get(path) == Some(node) => {}
                Node::File { bytes, mode } => put(path, bytes, *mode),
            }
        }
        self.publish(&self.new);
    }

    fn indexed(&self) -> bool {
        self.postfix.map() != self.postfix.table()
    }

    /// What Postfix finds under our key and everybody else's, by `postmap -q`.
    fn answers(&self) -> String {
        let mut table = self.postfix.table();
        if !self.postfix.map().exists() {
            // `postmap` would say so too, after a second.
            return String::new();
        }
        if !self.indexed() {
            // A copy with an older time: Postfix waits up to two seconds for a text that was only just written.
            let text = fs::read(&table).expect("the table");
            table = self.dir.path().join("probe");
            put(&table, &text, 0o600);
        }
        let mut child = Command::new("/usr/sbin/postmap")
            .arg("-c")
            .arg(&self.postfix.config_dir)
            .args(["-q", "-"])
            .arg(format!("{}:{}", self.postfix.map_type, table.display()))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("postmap");
        let keys: String = OTHERS.iter().map(|key| format!("{key}\n")).collect();
        let keys = format!("{}\nlocalhost\n{keys}", self.key());
        std::io::Write::write_all(child.stdin.as_mut().expect("piped"), keys.as_bytes()).expect("postmap reads");
        let output = child.wait_with_output().expect("postmap ends");
        String::from_utf8(output.stdout).expect("text")
    }

    /// The one live key.
    fn key(&self) -> String {
        format!("[localhost]:{}", self.standin.starttls_port())
    }

    /// What [`Lab::answers`] has to be with this login in use; `None`: with no table at all.
    fn expected(&self, login: Option<&Login>) -> String {
        let ours = login.map(|l| format!("{}\t{}\n", self.key(), pair(l))).unwrap_or_default();
        let values = ["other:secret1", "older:secret2", "sender:secret3", "near:secret4"];
        let others = OTHERS.iter().zip(values).map(|(key, value)| format!("{key}\t{value}\n")).collect::<String>();
        if self.start == Start::FirstTable { ours } else { ours + &others }
    }

    /// Each file that the mail server reads is wholly the old or wholly the new one, and gives exactly that login; the
    /// others' entries give what they gave. Says whether it is the new one that is in use.
    fn whole(&self, when: &str) -> bool {
        let text = fs::read(self.postfix.table()).ok();
        let is_new = text.as_ref() == Some(&self.new_text);
        assert!(is_new || text == self.old_text, "{when}: the text is neither the old nor the new one");
        let answers = self.answers();
        let new = answers == self.expected(Some(&self.new));
        if self.indexed() {
            let map = fs::read(self.postfix.map()).ok();
            let old = map.as_ref() == self.before.bytes(&self.postfix.map());
            assert!(new || old, "{when}: the map is not the old one, and gives {answers}");
        } else {
            assert_eq!(new, is_new, "{when}: {answers}");
        }
        if !new {
            let old = (self.start == Start::Rollover).then_some(&self.old);
            assert_eq!(answers, self.expected(old), "{when}: the old table gives something else");
        }
        for file in [self.postfix.table(), self.postfix.map()] {
            if let Ok(found) = fs::metadata(&file) {
                let got = (found.mode() & 0o7777, found.uid(), found.gid());
                assert_eq!(got, (0o600, 0, 0), "{when}: mode and owner of {}", file.display());
            }
        }
        new
    }

    /// No staged file is left anywhere.
    fn tidy(&self, when: &str) {
        let left: Vec<PathBuf> =
            self.table_files().into_iter().chain(self.snapshot().0.into_keys()).filter(|p| hidden(p)).collect();
        assert!(left.is_empty(), "{when}: left behind: {left:?}");
    }

    fn json(&self, below: &str) -> Option<Value> {
        let bytes = fs::read(self.state_dir().join(below)).ok()?;
        Some(serde_json::from_slice(&bytes).unwrap_or_else(|e| panic!("{below} is half: {e}")))
    }

    /// The user name of the applied version, as the state has it.
    fn applied(&self) -> Option<String> {
        Some(self.json("credentials/ses.json")?["applied"]["username"].as_str()?.to_owned())
    }

    /// The rollover is complete in every respect.
    fn complete(&self, when: &str) {
        assert!(self.whole(when), "{when}: the old login is still in use");
        assert_eq!(
            fs::read(self.postfix.table()).ok().as_ref(),
            Some(&self.new_text),
            "{when}: the text is the old one"
        );
        self.tidy(when);
        let state = self.json("credentials/ses.json").expect("a state file");
        assert_eq!(self.applied().as_ref(), Some(&self.new.username), "{when}: {state:#}");
        assert!(state["candidate"].is_null(), "{when}: {state:#}");
        assert!(state["targets"]["postfix"]["reload_owed"].is_null(), "{when}: {state:#}");
        let target = &state["report"]["targets"][0];
        assert!(target["proof"].is_string(), "{when}: no proof in {state:#}");
        assert_eq!(target["keys"][0], self.key(), "{when}: {state:#}");
        if let Some(journal) = self.json("apply/journal.json") {
            assert_eq!(journal["targets"], serde_json::json!({}), "{when}: the journal is open");
        }
    }

    /// Hands the mail server a message and says who was logged in when it arrived at the relay.
    fn message(&self, when: &str) -> String {
        let before = self.standin.messages().len();
        self.postfix.inject(1);
        match self.standin.wait_for(DELIVERY, when, |seen| seen.messages.get(before).map(|m| m.username.clone())) {
            Ok(username) => username,
            Err(e) => panic!("{when}: the message did not arrive: {e}\n{}", self.postfix.log()),
        }
    }

    fn reloads(&self) -> usize {
        self.postfix.log().lines().filter(|line| line.contains("reload -- version")).count()
    }
}

// ---------------------------------------------------------------------------------------------------------------
// Crashes

/// What the mail server is asked at each point, besides its files.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Notice {
    /// It noticed by itself: the next message goes out under the new login, and none was lost before.
    ByItself,
    /// A reload was done, in one of the two runs, after the swap.
    Reload,
    /// Nothing was changed, so nothing is to be noticed.
    Nothing,
}

impl Lab {
    /// A run that is not stopped, from the start: how many mutating calls there are.
    fn count(&self) -> usize {
        let done = self.recorded(None);
        assert_eq!(done.code, Some(0), "{}", done.what());
        self.complete("not stopped");
        let calls = power::read(&self.log_file()).len();
        self.restore(&self.before);
        calls
    }

    fn recorded(&self, crash_at: Option<usize>) -> Synced {
        self.sync(Run { crash_at, log: Some(&self.log_file()) })
    }

    fn crash(&self, at: usize, when: &str) {
        let crashed = self.recorded(Some(at));
        assert_eq!(crashed.signal, Some(SIGABRT), "{when}: {}", crashed.what());
    }

    /// The same of a run that may make fewer calls than the one before it: what it finds hangs on how long things took, too. Gives
    /// whether it was stopped.
    fn crash_if_it_comes_so_far(&self, at: usize, when: &str) -> bool {
        let before = power::read(&self.log_file()).len();
        let run = self.recorded(Some(at));
        if run.signal == Some(SIGABRT) {
            return true;
        }
        let made = power::read(&self.log_file()).len() - before;
        assert!(run.code == Some(0) && made < at, "{when}, after {made} calls: {}", run.what());
        false
    }

    /// Brings a host that was stopped to the end, and holds it to what the run says.
    fn recover(&self, when: &str) {
        let committed = self.applied().as_ref() == Some(&self.new.username);
        if committed {
            // What was done has its line of the audit log in the same state.
            let state = self.json("credentials/ses.json").expect("a state file");
            let last = state["audit"]["lines"].as_array().and_then(|lines| lines.last()?.as_str());
            assert!(last.is_some_and(|line| line.contains(&self.new.username)), "{when}: no line in {state:#}");
        }
        let again = self.recorded(None);
        assert_eq!(again.code, Some(0), "{when}: {}", again.what());
        let whole = if self.start == Start::Adoption { "adopted" } else { "confirmed" };
        let fine = again.outcome() == whole || committed && again.outcome() == "up-to-date";
        assert!(fine, "{when}: {}", again.what());
        self.complete(when);
    }

    /// Stops the program before its `n`-th mutating call, looks, lets the next run finish, and looks again. Then judges
    /// what a power cut in either run may leave; says how many states that are.
    fn point(&self, n: usize, notice: Notice) -> usize {
        let when = format!("{} {:?}, stopped before call {n}", self.postfix.map_type, self.start);
        self.restore(&self.before);
        let _ = fs::remove_file(self.log_file());
        let (untouched, reloads) = (self.identities(), self.reloads());
        self.crash(n, &when);
        let new = self.whole(&when);
        if notice == Notice::ByItself && self.start == Start::Rollover {
            let used = self.message(&when);
            let expected = if new { &self.new } else { &self.old };
            assert_eq!(used, expected.username, "{when}: the message went out under another login than the map's");
        }
        self.recover(&when);
        match notice {
            Notice::ByItself => assert_eq!(self.message(&when), self.new.username, "{when}: after the second run"),
            Notice::Reload => {
                postfix::wait_for(&format!("{when}: a reload"), DELIVERY, || (self.reloads() > reloads).then_some(()))
            }
            Notice::Nothing => assert_eq!(self.identities(), untouched, "{when}: an adoption wrote to a table"),
        }
        power::judge(self, &power::read(&self.log_file()), &when)
    }

    /// What tells a file that was written to, or replaced, from one that was not.
    fn identities(&self) -> Vec<(PathBuf, u64, i64, i64)> {
        let of = |path: PathBuf| {
            let found = fs::metadata(&path).unwrap();
            (path, found.ino(), found.mtime(), found.mtime_nsec())
        };
        self.table_files().into_iter().map(of).collect()
    }
}

/// Every point there is, shared out over so many labs at once: some tables make Postfix wait rather than work.
fn series(kind: &str, start: Start, reload: &str, notice: Notice, labs: usize) {
    let (stopped, states) = (AtomicUsize::new(0), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for share in 0..labs {
            let (stopped, states) = (&stopped, &states);
            scope.spawn(move || {
                let lab = Lab::new(kind, start, reload);
                let calls = lab.count();
                assert!(calls > 20, "a rollover is more than {calls} calls");
                // An adoption swaps nothing.
                let always = turning_points(&power::read(&lab.log_file()));
                let tried: Vec<usize> = (1..=calls).filter(|n| points::is_tried(*n, &always)).collect();
                for n in tried.into_iter().skip(share).step_by(labs) {
                    states.fetch_add(lab.point(n, notice), Ordering::Relaxed);
                    stopped.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
    });
    println!(
        "{kind}, {start:?}, reload {reload}: stopped at each of {} calls{}; {} states that a power cut may leave during these \
         runs and the ones after them were judged",
        stopped.into_inner(),
        points::told(),
        states.into_inner()
    );
}

#[test]
fn a_rollover_survives_a_kill_at_every_call_with_hash() {
    series("hash", Start::Rollover, "\"if-needed\"", Notice::ByItself, 1);
}

#[test]
fn a_rollover_survives_a_kill_at_every_call_with_lmdb() {
    series("lmdb", Start::Rollover, "\"always\"", Notice::Reload, 1);
}

#[test]
fn a_rollover_survives_a_kill_at_every_call_with_texthash() {
    series("texthash", Start::Rollover, "\"if-needed\"", Notice::Reload, 4);
}

#[test]
fn a_first_table_survives_a_kill_at_every_call() {
    series("hash", Start::FirstTable, "\"if-needed\"", Notice::ByItself, 1);
}

#[test]
fn an_adoption_survives_a_kill_at_every_call_and_writes_to_no_table() {
    series("hash", Start::Adoption, "\"always\"", Notice::Nothing, 1);
}

/// The calls around the swap of a rollover, by what they do: where a host may stand when its next run is killed too.
/// There are none in a run that puts no text in place.
fn turning_points(calls: &[power::Call]) -> Vec<usize> {
    let swaps = |c: &power::Call| c.to.as_ref().is_some_and(|to| to.ends_with("sasl_passwd"));
    let Some(first) = calls.iter().position(swaps).map(|at| at + 1) else { return Vec::new() };
    let staged = 1 + calls.iter().position(|c| c.op == "run").expect("a program runs");
    // Before postmap; before the text, the map and the fsync of their directory; with the files in place and the
    // reload owed; and before the journal is closed, with the commit done.
    let closing =
        1 + calls.iter().rposition(|c| c.path.ends_with(".journal.json.new") && c.op == "create").expect("a journal");
    vec![staged, first, first + 1, first + 2, first + 3, closing]
}

#[test]
fn a_recovery_survives_a_kill_at_every_call() {
    let pairs = std::sync::Mutex::new(0);
    std::thread::scope(|scope| {
        for share in 0..2 {
            let pairs = &pairs;
            scope.spawn(move || {
                let lab = Lab::new("hash", Start::Rollover, "\"if-needed\"");
                lab.recorded(None);
                for n in turning_points(&power::read(&lab.log_file())).into_iter().skip(share).step_by(2) {
                    let when = format!("stopped before call {n}");
                    lab.restore(&lab.before);
                    fs::remove_file(lab.log_file()).unwrap();
                    lab.crash(n, &when);
                    let (crashed, calls) = (lab.snapshot(), power::read(&lab.log_file()).len());
                    lab.recover(&when);
                    let second = power::read(&lab.log_file()).len() - calls;
                    for m in (1..=second).filter(|m| points::is_tried(n + m, &[])) {
                        let when = format!("{when}, and the next run before call {m}");
                        lab.restore(&crashed);
                        let stopped = lab.crash_if_it_comes_so_far(m, &when);
                        // Of the last calls alone.
                        assert!(stopped || m + 3 > second, "{when}: it made {second} calls before");
                        lab.whole(&when);
                        lab.recover(&when);
                        *pairs.lock().unwrap() += usize::from(stopped);
                    }
                }
            });
        }
    });
    println!("hash: killed twice, at {} pairs of calls", pairs.into_inner().unwrap());
}

impl Lab {
    /// One run, and then it is this login that is used, wholly, and that the state has.
    fn settle(&self, login: &Login, when: &str) {
        self.publish(login);
        let done = self.recorded(None);
        assert_eq!(done.code, Some(0), "{when}: {}", done.what());
        let text = String::from_utf8(fs::read(self.postfix.table()).unwrap()).unwrap();
        assert_eq!(text, table(self.standin.starttls_port(), login), "{when}: the text");
        assert_eq!(self.answers(), self.expected(Some(login)), "{when}");
        assert_eq!(self.applied().as_ref(), Some(&login.username), "{when}");
        self.tidy(when);
    }
}

#[test]
fn a_kill_is_survived_wherever_the_source_goes_from_there() {
    let lab = Lab::new("hash", Start::Rollover, "\"if-needed\"");
    let third = login(3);
    lab.standin.set_key(&third.username, &third.password);
    let calls = lab.count();
    // Which way the source goes from there: each way comes about whichever share of the calls is tried.
    for (way, n) in (1..=calls).filter(|n| points::is_tried(*n, &[])).enumerate() {
        let when = format!("stopped before call {n}");
        lab.restore(&lab.before);
        let _ = fs::remove_file(lab.log_file());
        lab.crash(n, &when);
        let used = lab.whole(&when);
        let applied = lab.applied();
        // Gone: nothing changes, what is staged goes, and the run says that it failed.
        if way % 2 == 0 {
            fs::remove_file(lab.source()).unwrap();
            let blind = lab.recorded(None);
            assert!(matches!(blind.code, Some(1 | 75)), "{when}, no source: {}", blind.what());
            let when = format!("{when}, then without a source");
            assert_eq!(lab.whole(&when), used, "{when}: another login is in use");
            assert_eq!(lab.applied(), applied, "{when}: the state has changed");
        }
        match way % 3 {
            0 => lab.settle(&third, &format!("{when}, then a third login")),
            1 => lab.settle(&lab.old, &format!("{when}, then back at the old login")),
            _ => {}
        }
        lab.publish(&lab.new);
        lab.recover(&when);
    }
    println!("hash: the source gone, back or ahead after a kill at each of {calls} calls{}", points::told());

    // Killed with one login, killed again with the next, and then back at the one before both.
    lab.restore(&lab.before);
    let _ = fs::remove_file(lab.log_file());
    lab.recorded(None);
    let turns = turning_points(&power::read(&lab.log_file()));
    let pairs = turns.iter().flat_map(|n| turns.iter().map(move |m| (*n, *m)));
    let pairs: Vec<(usize, usize)> =
        pairs.enumerate().filter(|(nth, _)| points::is_tried(*nth, &[])).map(|p| p.1).collect();
    for (n, m) in &pairs {
        let (n, m) = (*n, *m);
        let when = format!("stopped before call {n}, then with a third login before call {m}");
        lab.restore(&lab.before);
        lab.crash(n, &when);
        lab.publish(&third);
        let second = lab.recorded(Some(m));
        // It may have had fewer calls to make.
        assert!(second.signal == Some(SIGABRT) || second.code == Some(0), "{when}: {}", second.what());
        lab.settle(&lab.old, &format!("{when}, then back at the old login"));
    }
    println!("hash: killed with two logins in turn, at {} pairs of calls", pairs.len());
}

/// A `postmap` that is killed with the program, or by it, leaves what it makes on the way; the one after it would take
/// that for another one at work, and wait.
#[test]
fn what_a_killed_postmap_left_goes() {
    let lab = Lab::new("hash", Start::Rollover, "\"if-needed\"");
    for name in
        ["__db..relaykey.ses.postfix.0.db", ".relaykey.ses.postfix.0.cdb.tmp", ".relaykey.ses.postfix.0.lmdb-lock"]
    {
        lab.restore(&lab.before);
        fs::write(lab.postfix.config_dir.join(name), "").unwrap();
        let begun = std::time::Instant::now();
        lab.recover(name);
        assert!(begun.elapsed() < Duration::from_secs(30), "{name}: {:?}", begun.elapsed());
    }
}

/// Every mutating call that the program makes is one that the tests can stop: what strace sees is what the log tells.
#[test]
fn every_mutating_system_call_passes_the_choke_point() {
    for start in [Start::Rollover, Start::FirstTable] {
        let lab = Lab::new("hash", start, "\"always\"");
        let trace = lab.dir.path().join("trace");
        // Those that this machine does not know are left out.
        let calls = [
            "open",
            "openat",
            "openat2",
            "creat",
            "rename",
            "renameat",
            "renameat2",
            "unlink",
            "unlinkat",
            "rmdir",
            "mkdir",
            "mkdirat",
            "link",
            "linkat",
            "symlink",
            "symlinkat",
            "mknod",
            "mknodat",
            "chmod",
            "fchmod",
            "fchmodat",
            "fchmodat2",
            "chown",
            "fchown",
            "lchown",
            "fchownat",
            "setxattr",
            "fsetxattr",
            "lsetxattr",
            "removexattr",
            "fremovexattr",
            "lremovexattr",
            "truncate",
            "ftruncate",
            "fallocate",
            "utimensat",
            "fsync",
            "fdatasync",
            "sync_file_range",
            "clone",
            "clone3",
            "fork",
            "vfork",
            "execve",
            "sendfile",
            "copy_file_range",
        ]
        .map(|call| format!("?{call}"))
        .join(",");
        let output = Command::new("strace")
            .args(["-f", "-qq", "-y", "-s", "0", "-o"])
            .arg(&trace)
            .arg("-e")
            .arg(format!("trace={calls}"))
            .arg(env!("CARGO_BIN_EXE_relaykey"))
            .arg("--config")
            .arg(lab.config())
            .args(["sync", "--json"])
            .env("CRASH_LOG", lab.log_file())
            .output()
            .expect("strace is installed");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        lab.complete("under strace");
        let mut seen = strace::own_changes(&fs::read_to_string(&trace).unwrap(), &lab.log_file());
        // But for lock files: they hold nothing, and may be there or not.
        seen.retain(|(_, line)| !line.contains("\"lock\", O_RDWR|O_CREAT") && !line.contains("</run/relaykey-lock>"));
        let log = power::read(&lab.log_file());
        // A write needs a file that was opened for it, which is seen; a command is another program.
        let told: Vec<String> = log
            .iter()
            .enumerate()
            .filter(|(n, c)| match c.op.as_str() {
                "write" | "run" => false,
                "append to" => *n == 0 || log[n - 1].op != "create" || log[n - 1].path != c.path,
                _ => true,
            })
            .map(|(_, c)| strace::verb(&c.op).to_owned())
            .collect();
        assert_eq!(seen.iter().map(|line| line.0).collect::<Vec<_>>(), told, "{seen:#?}");
        println!("{start:?}: {} mutating system calls, all of them counted", seen.len());
    }
}

/// What strace(1) writes with `-f -y`.
mod strace {
    use std::collections::{BTreeMap, BTreeSet};
    use std::path::Path;

    /// What a verb of the choke point is for the kernel.
    pub fn verb(op: &str) -> &'static str {
        match op {
            "create" => "create",
            // Of a file that was there before.
            "append to" => "open",
            "rename" => "rename",
            "remove" => "unlink",
            "make the directory" => "mkdir",
            "change the mode of" => "chmod",
            "change the owner of" => "chown",
            "set an attribute of" => "setxattr",
            "take the ACL off" => "removexattr",
            "fsync" | "fsync the directory" => "fsync",
            other => panic!("{other:?} is no verb of the choke point"),
        }
    }

    /// The calls of the first process and its threads, not of its children, that changed something: what kind, and the
    /// line. The record of the calls itself does not count.
    pub fn own_changes(trace: &str, log: &Path) -> Vec<(&'static str, String)> {
        let mut own: BTreeSet<&str> = BTreeSet::new();
        let mut unfinished: BTreeMap<&str, String> = BTreeMap::new();
        let mut lines: Vec<(&str, String)> = Vec::new();
        for line in trace.lines() {
            let (pid, call) = line.split_once(' ').expect("a process id first");
            let call = call.trim_start();
            if own.is_empty() {
                own.insert(pid);
            }
            if let Some(begun) = call.strip_suffix("<unfinished ...>") {
                unfinished.insert(pid, begun.to_owned());
                continue;
            }
            let whole = match call.split_once("resumed>").filter(|_| call.starts_with("<... ")) {
                Some((_, rest)) => unfinished.remove(pid).unwrap_or_default() + rest,
                None => call.to_owned(),
            };
            lines.push((pid, whole));
        }
        // Threads of threads, whichever line came first.
        loop {
            let before = own.len();
            for (pid, call) in &lines {
                if call.starts_with("clone") && call.contains("CLONE_THREAD") && own.contains(pid) {
                    own.insert(call.rsplit("= ").next().expect("a result").trim());
                }
            }
            if own.len() == before {
                break;
            }
        }
        let log = format!("\"{}\"", log.display());
        let changes = lines.iter().filter(|(pid, call)| {
            own.contains(pid) && !call.contains(" = -1 ") && !call.contains(&log) && !call.starts_with("---")
        });
        changes.filter_map(|(_, call)| Some((kind(call)?, call.clone()))).collect()
    }

    fn kind(call: &str) -> Option<&'static str> {
        let name = call.split('(').next()?;
        let stem = |names: &[&str]| names.contains(&name);
        Some(match name {
            "open" | "openat" | "openat2" | "creat" => {
                let writes = ["O_WRONLY", "O_RDWR", "O_CREAT", "O_TRUNC"].iter().any(|flag| call.contains(flag));
                // Where children find their standard input.
                if !writes || call.contains("\"/dev/null\"") {
                    return None;
                }
                if call.contains("O_CREAT") || name == "creat" { "create" } else { "open" }
            }
            _ if stem(&["rename", "renameat", "renameat2"]) => "rename",
            _ if stem(&["unlink", "unlinkat", "rmdir"]) => "unlink",
            _ if stem(&["mkdir", "mkdirat"]) => "mkdir",
            _ if name.contains("chmod") => "chmod",
            _ if name.contains("chown") => "chown",
            _ if name.contains("setxattr") => "setxattr",
            _ if name.contains("removexattr") => "removexattr",
            _ if stem(&["fsync", "fdatasync"]) => "fsync",
            _ if name.starts_with("clone") || stem(&["fork", "vfork", "execve"]) => return None,
            _ => "else",
        })
    }
}

// ---------------------------------------------------------------------------------------------------------------
// Power cuts

/// From every state that a power cut may leave, the next run completes the rollover.
fn power_cuts(kind: &str, start: Start) {
    /// Of the states that no file system with a journal leaves, this many at most, spread evenly.
    const UNORDERED: usize = 60;
    let lab = Lab::new(kind, start, "\"if-needed\"");
    lab.recorded(None);
    let calls = power::read(&lab.log_file());
    let judged = power::judge(&lab, &calls, "not stopped");
    let [ordered, unordered] = power::snapshots(&lab, &calls);
    let every = unordered.len().div_ceil(UNORDERED).max(1);
    let tried: Vec<&Snapshot> = ordered.iter().chain(unordered.iter().step_by(every)).collect();
    for (at, state) in tried.iter().enumerate().filter(|(at, _)| points::is_tried(*at, &[])) {
        let when = format!("{kind}, {start:?}, power cut, state {at}");
        lab.restore(state);
        lab.whole(&when);
        lab.recover(&when);
    }
    println!(
        "{kind}, {start:?}: {judged} states that a power cut may leave were judged; recovered from all {} that keep the \
         order and {} of the {} that do not{}",
        ordered.len(),
        tried.len() - ordered.len(),
        unordered.len(),
        points::told()
    );
}

#[test]
fn a_rollover_survives_a_power_cut_at_every_call() {
    power_cuts("hash", Start::Rollover);
}

#[test]
fn a_first_table_survives_a_power_cut_at_every_call() {
    power_cuts("lmdb", Start::FirstTable);
}

/// The model has teeth: with one of these calls left out of the record, it objects.
#[test]
fn a_missing_fsync_does_not_pass_for_a_safe_one() {
    let needed = |start: Start, lab: &Lab| {
        let (etc, state) = (&lab.postfix.config_dir, lab.state_dir());
        let staged = [etc.join(".relaykey.ses.postfix.0"), etc.join(".relaykey.ses.postfix.0.db")];
        let documents =
            ["apply/.journal.json.new", "apply", "credentials/.ses.json.new", "credentials"].map(|n| state.join(n));
        let both = staged.into_iter().chain(documents);
        match start {
            // With a new table each of its names is synced by itself, and the directory once more at the end.
            Start::FirstTable => {
                both.chain(["apply/.key.new", ".key.new", ".host.json.new"].map(|n| state.join(n))).collect()
            }
            _ => both.chain([etc.clone()]).collect::<Vec<PathBuf>>(),
        }
    };
    for start in [Start::Rollover, Start::FirstTable] {
        let lab = Lab::new("hash", start, "\"if-needed\"");
        lab.recorded(None);
        let calls = power::read(&lab.log_file());
        let mut noticed = Vec::new();
        for (left_out, call) in calls.iter().enumerate().filter(|(_, call)| call.op.starts_with("fsync")) {
            let mut rest = calls.clone();
            rest.remove(left_out);
            let judge = std::panic::AssertUnwindSafe(|| power::judge(&lab, &rest, "an fsync left out on purpose"));
            if std::panic::catch_unwind(judge).is_err() {
                noticed.push(call.path.clone());
            }
        }
        for path in needed(start, &lab) {
            assert!(noticed.contains(&path), "the model does not miss an fsync of {}: {noticed:#?}", path.display());
        }
        println!("{start:?}: {} fsyncs, each left out, are missed", noticed.len());
    }
}

/// What a file system may hold after a power cut, from the record of the calls.
///
/// The model is POSIX's, harsher than any journalling file system: a file's content is there whole only after an fsync
/// of the file, before it is empty, half or whole; a name that was made, replaced or removed is durable only after an
/// fsync of its directory, before it is there or not. Names not yet durable are lost in every order-respecting way
/// (some prefix of them, over all directories together, made it), and each by itself (every subset; beyond ten of them
/// only those with one lost or one kept). A rename is atomic.
mod power {
    use std::collections::{BTreeMap, BTreeSet};
    use std::path::{Path, PathBuf};

    use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
    use serde_json::Value;

    use super::{Lab, Node, Snapshot, Start};

    /// One call that was made.
    #[derive(Clone)]
    pub struct Call {
        pub op: String,
        pub path: PathBuf,
        pub to: Option<PathBuf>,
        pub bytes: Vec<u8>,
    }

    /// The record of one run, or of several after one another.
    pub fn read(log: &Path) -> Vec<Call> {
        let text = std::fs::read_to_string(log).expect("a record of the calls");
        let call = |line: &str| {
            let line: Value = serde_json::from_str(line).expect("one JSON object per line");
            Call {
                op: line["op"].as_str().expect("a verb").to_owned(),
                path: line["path"].as_str().expect("a path").into(),
                to: line["to"].as_str().map(PathBuf::from),
                bytes: BASE64.decode(line["bytes"].as_str().expect("bytes")).expect("base64"),
            }
        };
        text.lines().map(call).collect()
    }

    struct Inode {
        content: Vec<u8>,
        directory: bool,
        /// What of the content stays whatever happens, because it was only added to.
        kept: usize,
        /// Is the content durable?
        synced: bool,
        /// Are owner, mode and attributes?
        dressed: bool,
    }

    /// A change of a name that is not durable yet.
    #[derive(Clone)]
    struct Change {
        directory: PathBuf,
        /// This name goes …
        gone: Option<PathBuf>,
        /// … and this one is there, for that inode.
        there: Option<(PathBuf, usize)>,
    }

    type Names = BTreeMap<PathBuf, usize>;

    fn apply(change: &Change, names: &mut Names) {
        if let Some(gone) = &change.gone {
            names.remove(gone);
        }
        if let Some((path, inode)) = &change.there {
            names.insert(path.clone(), *inode);
        }
    }

    /// A file system with what is durable and what is not.
    pub struct Disk {
        inodes: Vec<Inode>,
        /// As running programs see it.
        now: Names,
        durable: Names,
        pending: Vec<Change>,
        /// Directories that may be lost with all that is in them.
        made: BTreeSet<PathBuf>,
    }

    /// One file that a power cut may leave.
    pub struct Left {
        /// Every content that it may have.
        pub contents: Vec<Vec<u8>>,
        pub dressed: bool,
    }

    pub type Image = BTreeMap<PathBuf, Left>;

    impl Disk {
        pub fn new(start: &Snapshot) -> Self {
            let mut disk = Self {
                inodes: Vec::new(),
                now: Names::new(),
                durable: Names::new(),
                pending: Vec::new(),
                made: BTreeSet::new(),
            };
            for (path, node) in &start.0 {
                let (content, directory) = match node {
                    Node::Directory => (Vec::new(), true),
                    Node::File { bytes, .. } => (bytes.clone(), false),
                };
                disk.inodes.push(Inode { content, directory, kept: 0, synced: true, dressed: true });
                disk.durable.insert(path.clone(), disk.inodes.len() - 1);
            }
            disk.now = disk.durable.clone();
            disk
        }

        fn change(&mut self, of: &Path, gone: Option<&Path>, there: Option<(&Path, usize)>) {
            let change = Change {
                directory: of.parent().expect("a directory").to_owned(),
                gone: gone.map(Path::to_owned),
                there: there.map(|(path, inode)| (path.to_owned(), inode)),
            };
            apply(&change, &mut self.now);
            self.pending.push(change);
        }

        fn make(&mut self, path: &Path, directory: bool) -> usize {
            self.inodes.push(Inode { content: Vec::new(), directory, kept: 0, synced: directory, dressed: true });
            let inode = self.inodes.len() - 1;
            self.change(path, None, Some((path, inode)));
            inode
        }

        /// The file of that name; one that is told of for the first time was made by a command before.
        fn file(&mut self, path: &Path) -> &mut Inode {
            let known = self.now.get(path).copied();
            let inode = known.unwrap_or_else(|| self.make(path, false));
            &mut self.inodes[inode]
        }

        pub fn call(&mut self, call: &Call) {
            let path = &call.path;
            match call.op.as_str() {
                "create" => {
                    self.make(path, false);
                }
                "make the directory" => {
                    self.make(path, true);
                    self.made.insert(path.clone());
                }
                "write" => {
                    let file = self.file(path);
                    (file.content, file.kept, file.synced) = (call.bytes.clone(), 0, false);
                }
                "append to" => {
                    let file = self.file(path);
                    if file.synced {
                        // A line that a kill cut off is written over with the same bytes.
                        file.kept = file.content.iter().zip(&call.bytes).take_while(|(a, b)| a == b).count();
                    }
                    (file.content, file.synced) = (call.bytes.clone(), false);
                }
                "fsync" => {
                    let file = self.file(path);
                    (file.content, file.synced, file.dressed) = (call.bytes.clone(), true, true);
                }
                "rename" => {
                    let to = call.to.as_ref().expect("a rename goes somewhere");
                    if !self.file(path).synced {
                        self.file(path).content.clone_from(&call.bytes);
                    }
                    let inode = self.now[path];
                    assert_eq!(
                        self.inodes[inode].content,
                        call.bytes,
                        "{} was written to by somebody else",
                        path.display()
                    );
                    self.change(path, Some(path), Some((to, inode)));
                }
                "remove" => self.change(path, Some(path), None),
                "fsync the directory" => {
                    let (safe, pending) =
                        std::mem::take(&mut self.pending).into_iter().partition(|c| c.directory == *path);
                    let safe: Vec<Change> = safe;
                    safe.iter().for_each(|change| apply(change, &mut self.durable));
                    self.pending = pending;
                }
                "run" => {}
                "change the owner of" | "change the mode of" | "set an attribute of" | "take the ACL off" => {
                    self.file(path).dressed = false;
                }
                other => panic!("the model knows no {other:?}"),
            }
        }

        /// Which of the pending changes made it: one choice per image.
        fn choices(&self) -> Vec<u64> {
            let count = self.pending.len();
            assert!(count < 64, "{count} changes of names are not durable: what for?");
            let all = (1_u64 << count) - 1;
            if count <= 10 {
                return (0..=all).collect();
            }
            let ordered = (0..=count).map(|kept| (1_u64 << kept) - 1);
            let each = (0..count).flat_map(|one| [1 << one, all & !(1 << one)]);
            ordered.chain(each).collect()
        }

        /// In these choices nothing later made it where something earlier did not.
        fn is_ordered(choice: u64) -> bool {
            choice & (choice + 1) == 0
        }

        /// The names that a power cut leaves, of files and directories.
        fn names(&self, choice: u64) -> Names {
            let mut names = self.durable.clone();
            let kept = self.pending.iter().enumerate().filter(|(at, _)| choice >> at & 1 == 1);
            kept.for_each(|(_, change)| apply(change, &mut names));
            let lost: Vec<&PathBuf> = self.made.iter().filter(|made| !names.contains_key(*made)).collect();
            let mut reached = names.clone();
            reached.retain(|path, _| !lost.iter().any(|lost| path.starts_with(lost)));
            reached
        }

        fn directories(&self, choice: u64) -> impl Iterator<Item = PathBuf> {
            self.names(choice).into_iter().filter(|(_, inode)| self.inodes[*inode].directory).map(|(path, _)| path)
        }

        pub fn image(&self, choice: u64) -> Image {
            let mut image = Image::new();
            for (path, inode) in self.names(choice) {
                let Inode { content, directory, kept, synced, dressed } = &self.inodes[inode];
                if *directory {
                    continue;
                }
                let mut contents = vec![content.clone()];
                if !synced {
                    contents.extend([*kept, kept + (content.len() - kept) / 2].map(|end| content[..end].to_vec()));
                }
                image.insert(path, Left { contents, dressed: *dressed });
            }
            image
        }
    }

    /// Every state that a power cut may leave over the run, each once, with what was not synced whole, half or empty:
    /// those that keep the order, and those that do not.
    pub fn snapshots(lab: &Lab, calls: &[Call]) -> [BTreeSet<Snapshot>; 2] {
        let mut disk = Disk::new(&lab.before);
        let mut all = [BTreeSet::new(), BTreeSet::new()];
        for call in std::iter::once(None).chain(calls.iter().map(Some)) {
            call.into_iter().for_each(|call| disk.call(call));
            for choice in disk.choices() {
                let image = disk.image(choice);
                for variant in 0..3 {
                    let file = |(path, left): (&PathBuf, &Left)| {
                        let bytes = left.contents[variant % left.contents.len()].clone();
                        (path.clone(), Node::File { bytes, mode: 0o600 })
                    };
                    let mut nodes: BTreeMap<PathBuf, Node> = image.iter().map(file).collect();
                    nodes.extend(disk.directories(choice).map(|path| (path, Node::Directory)));
                    all[usize::from(!Disk::is_ordered(choice))].insert(Snapshot(nodes));
                }
            }
        }
        let [ordered, mut others] = all;
        others.retain(|snapshot| !ordered.contains(snapshot));
        [ordered, others]
    }

    /// Holds every state that a power cut may leave, after each prefix of the calls, to the promises.
    pub fn judge(lab: &Lab, calls: &[Call], when: &str) -> usize {
        let mut disk = Disk::new(&lab.before);
        let law = Law::new(lab, calls);
        let mut states = 0;
        for (done, call) in std::iter::once(None).chain(calls.iter().map(Some)).enumerate() {
            call.into_iter().for_each(|call| disk.call(call));
            for choice in disk.choices() {
                let image = disk.image(choice);
                law.hold(
                    &image,
                    done == calls.len(),
                    &format!("{when}; power cut after {done} of {} calls", calls.len()),
                );
                states += 1;
            }
        }
        states
    }

    /// What may lie there.
    struct Law<'a> {
        lab: &'a Lab,
        text: PathBuf,
        map: PathBuf,
        /// Whole maps with the new login, as they were put in place.
        new_maps: BTreeSet<Vec<u8>>,
    }

    impl<'a> Law<'a> {
        fn new(lab: &'a Lab, calls: &[Call]) -> Self {
            let (text, map) = (lab.postfix.table(), lab.postfix.map());
            let mut new_maps: BTreeSet<Vec<u8>> =
                calls.iter().filter(|c| c.to.as_ref() == Some(&map)).map(|c| c.bytes.clone()).collect();
            if lab.start == Start::Adoption {
                new_maps.extend(lab.before.bytes(&map).cloned());
            }
            Self { lab, text, map, new_maps }
        }

        fn hold(&self, image: &Image, at_the_end: bool, when: &str) {
            let none = Vec::new();
            let contents = |path: &Path| image.get(path).map_or(&none, |left| &left.contents);
            let old = |path: &Path| self.lab.before.bytes(path);
            // Each file that the mail server reads is wholly old or wholly new.
            let is_new = |path: &Path| {
                let found = contents(path);
                let new =
                    |c: &Vec<u8>| if *path == self.text { *c == self.lab.new_text } else { self.new_maps.contains(c) };
                if found.is_empty() {
                    assert!(old(path).is_none(), "{when}: {} is gone", path.display());
                }
                for content in found {
                    let whole = new(content) || Some(content) == old(path);
                    assert!(
                        whole,
                        "{when}: {} is neither the old nor the new one, {} bytes",
                        path.display(),
                        content.len()
                    );
                }
                assert!(
                    image.get(path).is_none_or(|left| left.dressed),
                    "{when}: {} has a passing owner or mode",
                    path.display()
                );
                !found.is_empty() && found.iter().all(new)
            };
            let (new_text, new_map) = (is_new(&self.text), is_new(&self.map));
            // Files of ours are whole, and those that were there stay.
            let below = self.lab.state_dir();
            let documents = ["host.json", "credentials/ses.json", "apply/journal.json"].map(|name| below.join(name));
            let keys = ["key", "apply/key"].map(|name| below.join(name));
            for path in documents.iter().chain(&keys) {
                let found = contents(path);
                assert!(!found.is_empty() || old(path).is_none(), "{when}: {} is gone", path.display());
                for content in found {
                    let whole = if keys.contains(path) { content.len() == 32 } else { parse(content).is_some() };
                    assert!(whole, "{when}: {} is half, {} bytes", path.display(), content.len());
                }
            }
            // What the state says is true, and what lies there the journal knows of.
            let first = |path: &Path| contents(path).first().and_then(|bytes| parse(bytes));
            let username = |state: Value| state["applied"]["username"].as_str().map(str::to_owned);
            let committed = first(&documents[1]).and_then(username).as_ref() == Some(&self.lab.new.username);
            if committed || at_the_end {
                assert!(new_text && new_map, "{when}: committed, and the old login is back in use");
            }
            if (new_text || new_map) && self.lab.start != Start::Adoption && !committed {
                let journal = first(&documents[2]).unwrap_or_default();
                assert!(
                    journal["targets"]["ses/postfix"].is_object(),
                    "{when}: swapped in, and the journal knows nothing"
                );
            }
            if at_the_end {
                assert!(committed, "{when}: the end was told, and is forgotten");
                for key in &keys {
                    assert!(!contents(key).is_empty(), "{when}: {} is forgotten", key.display());
                }
            }
        }
    }

    fn parse(bytes: &[u8]) -> Option<Value> {
        serde_json::from_slice::<Value>(bytes).ok().filter(Value::is_object)
    }
}

// ---------------------------------------------------------------------------------------------------------------
// Undo

/// Class, words and fix of what stood in the way.
fn failure(synced: &Synced) -> (String, String) {
    let failure = &synced.document["credentials"][0]["failures"][0];
    let text = |name: &str| failure[name].as_str().unwrap_or_default().to_owned();
    (text("class"), format!("{}; fix: {}", text("what"), text("fix")))
}

impl Lab {
    /// The table is as before the run, to the byte, and so is what this host believes.
    fn undone(&self, when: &str) {
        for file in [self.postfix.table(), self.postfix.map()] {
            let now = fs::read(&file).ok();
            assert!(now.as_ref() == self.before.bytes(&file), "{when}: {} is not as it was", file.display());
        }
        assert!(!self.whole(when), "{when}: the new login is in use");
        let expected = (self.start == Start::Rollover).then(|| self.old.username.clone());
        assert_eq!(self.applied(), expected, "{when}");
        self.tidy(when);
    }
}

/// While the mail server is reloaded somebody points it elsewhere: the new login does not read back.
#[test]
fn what_does_not_read_back_is_put_back_and_a_kill_meanwhile_is_survived() {
    for start in [Start::Rollover, Start::FirstTable] {
        let lab = Lab::new("hash", start, HOOK);
        let (main_cf, etc) = (fs::read(lab.postfix.main_cf()).unwrap(), lab.postfix.config_dir.display());
        let meddle = || {
            let edit = format!("/usr/sbin/postconf -c {etc} -e 'relayhost = [elsewhere.invalid]:587'\n");
            // Postfix waits for a file that was only just written.
            script(&lab.meddler(), &format!("{edit}touch -d '1 minute ago' {etc}/main.cf\n"));
        };
        let mend = || {
            fs::remove_file(lab.meddler()).unwrap();
            put(&lab.postfix.main_cf(), &main_cf, 0o644);
        };
        meddle();
        let when = format!("{start:?}, meddled with");
        let failed = lab.recorded(None);
        let (class, what) = failure(&failed);
        assert_eq!((failed.code, class.as_str()), (Some(75), "mismatch"), "{when}: {}", failed.what());
        for words in ["does not read back as the right login", "the old files were put back"] {
            assert!(what.contains(words), "{when}: {what}");
        }
        for login in [&lab.old, &lab.new] {
            assert!(!failed.what().contains(login.password.expose()), "{when}: a password is told");
        }
        lab.undone(&when);
        mend();
        lab.recover(&format!("{when}, then no more"));

        let calls = power::read(&lab.log_file());
        let after =
            calls.iter().position(|call| call.op == "run" && call.path == lab.hook()).expect("the hook ran") + 2;
        lab.restore(&lab.before);
        meddle();
        fs::remove_file(lab.log_file()).unwrap();
        lab.recorded(None);
        let last = power::read(&lab.log_file()).len();
        mend();
        // The first are those around the renames that put the old files back.
        let always: Vec<usize> = (after..after + 6).collect();
        let tried: Vec<usize> = (after..=last).filter(|n| points::is_tried(*n, &always)).collect();
        for (nth, &n) in tried.iter().enumerate() {
            let when = format!("{start:?}, meddled with, stopped before call {n}");
            lab.restore(&lab.before);
            meddle();
            lab.crash(n, &when);
            mend();
            lab.whole(&when);
            if nth % 3 == 0 {
                // The next run meets the same meddler, where it has to reload once more.
                meddle();
                let again = lab.recorded(None);
                let fine = if fs::read(lab.postfix.main_cf()).unwrap() == main_cf { Some(0) } else { Some(75) };
                assert_eq!(again.code, fine, "{when}, twice: {}", again.what());
                mend();
                lab.whole(&format!("{when}, twice"));
            }
            lab.recover(&when);
        }
        println!(
            "{start:?}: stopped at {} of the {} calls after the swap was seen to be in vain{}",
            tried.len(),
            last + 1 - after,
            points::told()
        );
    }
}

/// What somebody else wrote meanwhile is theirs: it is neither overwritten nor believed.
#[test]
fn what_somebody_else_wrote_over_the_swap_is_not_undone() {
    let lab = Lab::new("hash", Start::Rollover, HOOK);
    let stale = lab.dir.path().join("stale");
    let theirs = format!("# written by configuration management\n{}", table(lab.standin.starttls_port(), &lab.old));
    fs::write(&stale, &theirs).unwrap();
    let (table, etc) = (lab.postfix.table(), lab.postfix.config_dir.display());
    let write = format!(
        "cat {} > {table}\n/usr/sbin/postmap -c {etc} hash:{table}\n",
        stale.display(),
        table = table.display()
    );
    script(&lab.meddler(), &write);
    let failed = lab.recorded(None);
    assert!(matches!(failed.code, Some(1 | 75)), "{}", failed.what());
    let (class, what) = failure(&failed);
    assert_eq!(class, "mismatch", "{}", failed.what());
    assert!(what.contains("somebody else wrote to it in between"), "{what}");
    assert_eq!(fs::read_to_string(&table).unwrap(), theirs, "what they wrote");
    assert_eq!(lab.answers(), lab.expected(Some(&lab.old)));
    lab.tidy("meddled with");
    fs::remove_file(lab.meddler()).unwrap();
    let again = lab.recorded(None);
    assert_eq!((again.code, again.outcome()), (Some(0), "confirmed"), "{}", again.what());
    let ours = format!("# written by configuration management\n{}", String::from_utf8(lab.new_text.clone()).unwrap());
    assert_eq!(fs::read_to_string(&table).unwrap(), ours);
    assert_eq!(lab.answers(), lab.expected(Some(&lab.new)));
}

// ---------------------------------------------------------------------------------------------------------------
// Where nothing can be written

fn done(command: &mut Command) {
    let output = command.output().unwrap_or_else(|e| panic!("{command:?}: {e}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Something is mounted there until this is dropped.
struct Mount(PathBuf);

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

/// Puts a directory, with what is in it, on a file system of its own of so many KiB.
fn move_to_small_disk(directory: &Path, image: &Path, kib: u64) -> Mount {
    fs::File::create(image).and_then(|file| file.set_len(kib * 1024)).unwrap();
    done(Command::new("mkfs.ext4").args(["-q", "-F", "-b", "1024", "-m", "0", "-O", "^has_journal"]).arg(image));
    let beside = image.with_extension("mnt");
    fs::create_dir(&beside).unwrap();
    let mount = |at: &Path| {
        done(Command::new("mount").args(["-o", "loop"]).arg(image).arg(at));
        Mount(at.to_owned())
    };
    {
        let _mounted = mount(&beside);
        let mode = fs::metadata(directory).unwrap().permissions();
        fs::remove_dir(beside.join("lost+found")).unwrap();
        done(Command::new("cp").arg("-a").arg(directory.join(".")).arg(&beside));
        fs::set_permissions(&beside, mode).unwrap();
    }
    mount(directory)
}

/// Leaves so many KiB free there.
fn fill(directory: &Path, leave: u64) {
    let ballast = directory.join("ballast");
    let _ = fs::remove_file(&ballast);
    let mut file = fs::File::create(&ballast).unwrap();
    let mut written = 0_u64;
    while std::io::Write::write_all(&mut file, &[0; 1024]).is_ok() {
        written += 1024;
    }
    file.set_len(written.saturating_sub(leave * 1024)).unwrap();
    file.sync_all().unwrap();
}

#[test]
fn a_full_disk_under_the_table_changes_nothing() {
    let lab = Lab::new("hash", Start::Rollover, "\"if-needed\"");
    let etc = lab.postfix.config_dir.clone();
    let _mount = move_to_small_disk(&etc, &lab.dir.path().join("disk"), 2048);
    let untouched = lab.identities();
    let mut tried = 0;
    for room in 0.. {
        let when = format!("{room} KiB free");
        assert!(room < 200, "{when}, and still too little");
        fill(&etc, room);
        let full = lab.sync(Run::default());
        if full.code == Some(0) {
            break;
        }
        tried += 1;
        let (class, what) = failure(&full);
        assert_eq!(full.code, Some(75), "{when}: {}", full.what());
        assert!(matches!(class.as_str(), "no-space" | "command" | "mismatch"), "{when}: {}", full.what());
        assert!(what.contains(etc.to_str().unwrap()) || what.contains("space"), "{when}: {what}");
        assert_eq!(lab.identities(), untouched, "{when}: something was changed, or left");
        lab.undone(&when);
    }
    assert!(tried > 2, "only {tried} sizes were too small");
    fs::remove_file(etc.join("ballast")).unwrap();
    lab.complete("with room enough");
    println!("the table's disk was too full with each of {tried} sizes, and then was not");
}

#[test]
fn a_full_disk_under_the_state_leaves_whole_files() {
    let lab = Lab::new("hash", Start::Rollover, "\"always\"");
    let _mount = move_to_small_disk(&lab.state_dir(), &lab.dir.path().join("disk"), 1024);
    let mut tried = 0;
    for room in 0.. {
        let when = format!("{room} KiB free");
        assert!(room < 100, "{when}, and still too little");
        fill(&lab.state_dir(), room);
        let full = lab.sync(Run::default());
        lab.whole(&when);
        if full.code == Some(0) {
            break;
        }
        tried += 1;
        assert_eq!(full.code, Some(75), "{when}: {}", full.what());
        assert!(full.what().contains("No space left"), "{when}: {}", full.what());
        lab.tidy(&when);
    }
    assert!(tried > 0, "no size was too small");
    fs::remove_file(lab.state_dir().join("ballast")).unwrap();
    lab.complete("with room enough");
    println!("the state's disk was too full with each of {tried} sizes, and then was not");
}

#[test]
fn what_must_not_be_replaced_is_named_and_left() {
    let lab = Lab::new("hash", Start::Rollover, "\"if-needed\"");
    let (etc, text, map) = (lab.postfix.config_dir.clone(), lab.postfix.table(), lab.postfix.map());
    let immutable = |path: &Path| {
        done(Command::new("chattr").arg("+i").arg(path));
        Undone("chattr", vec!["-i".into(), path.into()])
    };
    let bind = |path: &Path, options: &str| {
        done(Command::new("mount").arg("--bind").arg(path).arg(path));
        let mounted = Undone("umount", vec!["--lazy".into(), path.into()]);
        done(Command::new("mount").args(["-o", options]).arg(path));
        mounted
    };
    let cases: [(&str, &Path, &dyn Fn() -> Undone, &str); 6] = [
        ("an immutable text", &text, &|| immutable(&text), "chattr -i"),
        ("an immutable map", &map, &|| immutable(&map), "chattr -i"),
        ("an immutable directory", &etc, &|| immutable(&etc), "chattr -i"),
        ("a directory that is mounted read-only", &etc, &|| bind(&etc, "remount,bind,ro"), "mount it writable"),
        ("a text that is a mount of its own", &text, &|| bind(&text, "remount,bind,rw"), "mount the directory"),
        ("a map that is a mount of its own", &map, &|| bind(&map, "remount,bind,rw"), "mount the directory"),
    ];
    for (case, named, make, fix) in cases {
        lab.restore(&lab.before);
        let untouched = lab.identities();
        let until = make();
        let refused = lab.sync(Run::default());
        let (class, what) = failure(&refused);
        assert_eq!(refused.code, Some(1), "{case}: {}", refused.what());
        assert!(what.contains(named.to_str().unwrap()) && what.contains(fix), "{case} ({class}): {what}");
        lab.undone(case);
        drop(until);
        // A text that was put back is another file with the same content.
        let same = lab.identities() == untouched;
        assert!(same || case == "an immutable map", "{case}: a file was written to, and not changed");
        lab.recover(&format!("{case}, no more"));
    }
}

/// Does a command with these arguments when dropped.
struct Undone(&'static str, Vec<std::ffi::OsString>);

impl Drop for Undone {
    fn drop(&mut self) {
        let _ = Command::new(self.0).args(&self.1).status();
    }
}
