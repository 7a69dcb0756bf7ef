//! Never half a credential: the program is stopped just before each of its mutating calls, and the power is cut after
//! each of them, and what the mail server reads is looked at. Built with the feature `crash-at` only:
//! `cargo test --features crash-at --test it crash::`.
#![cfg(feature = "crash-at")]

mod several;

use super::apply::config_of;
use crate::lab::points;
use crate::lab::postfix;
use crate::lab::scratch;

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use relaykey::apply::{Client, Reply, Request, Server, TargetId};
use relaykey::config::{Reload, TargetKind};
use relaykey::credential::{Login, Secret};
use relaykey::mta::Ours;
use tempfile::TempDir;

const KEY: &str = "[email-smtp.eu-west-1.amazonaws.com]:587";
const OLD: &str = "AKIAOLD:old-password";
const NEW: &str = "AKIANEW:new-password";
const OTHER: &str = "[other.example]:25";
const OTHERS: &str = "joe:pw";
/// More calls than any rollover makes: a run that is still stopped there is not getting on.
const MOST: usize = 200;
/// SIGABRT.
const ABORTED: i32 = 6;

fn text(login: &str) -> String {
    format!("# relays\n{OTHER} {OTHERS}\n{KEY}\t{login}\n")
}

// -- the program that is stopped ------------------------------------------------------------------------------------

/// One rollover, as the agent drives it. The test program runs itself for this: `cargo test` finds it as a test, which
/// does nothing unless `RELAYKEY_CRASH_DRIVER` names what to work on.
#[test]
fn driver() {
    let Some(what) = std::env::var_os("RELAYKEY_CRASH_DRIVER") else { return };
    let what = what.into_string().unwrap();
    let (state_dir, rest) = what.split_once('|').unwrap();
    let kind = match rest.split_once('|').unwrap() {
        ("text", path) => TargetKind::Text { path: path.into() },
        (_, config_dir) => TargetKind::Postfix { config_dir: config_dir.into() },
    };
    let client = Client::in_process(Server::new(&config_of(Path::new(state_dir), kind, Reload::Always).mail()));
    let target = TargetId { credential: "ses".into(), target: "main".into() };
    let ours = Ours { applied: Some("AKIAOLD".into()), previous: None, ..Ours::default() };
    let call = |request| client.call(request).unwrap_or_else(|e| panic!("{e:?}"));

    let Reply::Inspected(seen) = call(Request::Inspect { target: target.clone(), ours: ours.clone() }) else {
        panic!()
    };
    let (user, password) = NEW.split_once(':').unwrap();
    let login = Login::new(user.into(), Secret::new(password.into())).unwrap();
    let expect = seen.expect();
    call(Request::Prepare { target: target.clone(), ours, expect, logins: login.into(), version: "v2".into() });
    call(Request::Swap { target: target.clone() });
    call(Request::Activate { target: target.clone() });
    let Reply::ReadBack(read) = call(Request::ReadBack { target: target.clone(), prove: None, nonce: None }) else {
        panic!()
    };
    assert!(read.matches, "{read:?}");
    if std::env::var_os("RELAYKEY_CRASH_UNDO").is_some() {
        call(Request::Undo { target });
    } else {
        call(Request::Commit { target });
    }
}

/// Which of a table's names are symbolic links into other directories.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Links {
    None,
    Map,
    Text,
    Both,
    Directory,
}

/// What the program is let loose on, made anew for each run.
struct Subject {
    dir: TempDir,
    /// Where files may be staged.
    directories: Vec<PathBuf>,
    /// The text, and the compiled map where there is one.
    table: PathBuf,
    map: Option<PathBuf>,
    kind: String,
    /// What the driver's target is: `text|PATH` or `postfix|CONFIG_DIR`.
    target: String,
    instance: Option<postfix::Instance>,
}

impl Subject {
    fn new(kind: &str) -> Self {
        Self::with_links(kind, Links::None)
    }

    fn with_links(kind: &str, links: Links) -> Self {
        let dir = scratch::private("crash");
        let instance = (kind != "text").then(|| {
            let table = text(OLD);
            let options =
                postfix::Options { map_type: kind, relayhost: KEY, ca_pem: None, table: Some(&table), settings: &[] };
            postfix::Instance::new(&options)
        });
        let mut table = match &instance {
            Some(instance) => instance.table(),
            None => dir.path().join("sasl_passwd"),
        };
        let mut map = instance.as_ref().filter(|_| kind != "texthash").map(postfix::Instance::map);
        let mut directories = vec![table.parent().unwrap().to_owned()];
        // Where the link leads, the file has another name than it should have there, and a decoy has that one.
        let mut elsewhere = |file: &Path, name: &str| {
            let directory = directories[0].parent().unwrap().join(format!("{name}s"));
            fs::create_dir(&directory).unwrap();
            fs::rename(file, directory.join(name)).unwrap();
            symlink(directory.join(name), file).unwrap();
            fs::write(directory.join("sasl_passwd"), format!("{KEY} {OLD}\n")).unwrap();
            directories.push(directory);
        };
        if matches!(links, Links::Map | Links::Both) {
            elsewhere(
                map.as_ref().unwrap(),
                &format!("sasl_passwd.{}", map.as_ref().unwrap().extension().unwrap().display()),
            );
        }
        if matches!(links, Links::Text | Links::Both) {
            elsewhere(&table, "logins");
        }
        if let (Links::Directory, Some(instance)) = (links, &instance) {
            let (real, link) = (instance.base.join("tables"), instance.base.join("link"));
            fs::create_dir(&real).unwrap();
            symlink(&real, &link).unwrap();
            for file in [&mut table, map.as_mut().unwrap()] {
                let moved = link.join(file.file_name().unwrap());
                fs::rename(&*file, &moved).unwrap();
                *file = moved;
            }
            instance.set("smtp_sasl_password_maps", &format!("{kind}:{}", table.display()));
            directories.push(real);
        }
        let target = match &instance {
            Some(instance) => format!("postfix|{}", instance.config_dir.display()),
            None => format!("text|{}", table.display()),
        };
        let subject = Self { dir, directories, table, map, kind: kind.into(), target, instance };
        subject.reset();
        subject
    }

    /// As before the first run.
    fn reset(&self) {
        fs::write(&self.table, text(OLD)).unwrap();
        fs::set_permissions(&self.table, fs::Permissions::from_mode(0o640)).unwrap();
        if let Some(instance) = &self.instance {
            postfix::cool_down(&self.table);
            if self.map.is_some() {
                let table = format!("{}:{}", self.kind, self.table.display());
                let done = Command::new("/usr/sbin/postmap").arg("-c").arg(&instance.config_dir).arg(&table).status();
                assert!(done.unwrap().success());
            }
        }
        let _ = fs::remove_dir_all(self.state_dir());
    }

    fn state_dir(&self) -> PathBuf {
        self.dir.path().join("state")
    }

    fn run(&self, environment: &[(&str, &str)]) -> Output {
        let driver = format!("{}|{}", self.state_dir().display(), self.target);
        drive("crash_apply::driver", ("RELAYKEY_CRASH_DRIVER", driver.as_ref()), environment)
    }

    /// What a run that is not stopped does.
    fn calls(&self, environment: &[(&str, &str)]) -> Vec<Call> {
        self.reset();
        calls_of(&self.dir.path().join("all-calls"), environment, |environment| self.run(environment))
    }

    fn puts_in_place(&self, call: &Call) -> bool {
        let name = |path: &Path| path.file_name().map(std::ffi::OsStr::to_owned);
        let live = [Some(&self.table), self.map.as_ref()];
        call.to.as_ref().is_some_and(|to| live.into_iter().flatten().any(|live| name(to) == name(live)))
    }

    /// As `relaykey check` and the next start see it.
    fn owes_a_reload(&self) -> bool {
        let kind = match self.target.split_once('|').unwrap() {
            ("text", path) => TargetKind::Text { path: path.into() },
            (_, config_dir) => TargetKind::Postfix { config_dir: config_dir.into() },
        };
        let server = Server::looking(&config_of(&self.state_dir(), kind, Reload::Always).mail());
        let target = TargetId { credential: "ses".into(), target: "main".into() };
        let ours = Ours { applied: Some("AKIAOLD".into()), ..Ours::default() };
        let Reply::Inspected(seen) = server.serve(Request::Inspect { target, ours }).unwrap() else { panic!() };
        seen.reload_owed.is_some()
    }

    /// What the mail server would find under a key: in the compiled map by `postmap`, else in the text.
    fn find(&self, key: &str) -> String {
        match &self.map {
            Some(_) => {
                let config_dir = &self.instance.as_ref().unwrap().config_dir;
                let table = format!("{}:{}", self.kind, self.table.display());
                let out =
                    Command::new("/usr/sbin/postmap").arg("-c").arg(config_dir).args(["-q", key, &table]).output();
                String::from_utf8(out.unwrap().stdout).unwrap().trim().to_owned()
            }
            None => {
                let text = fs::read_to_string(&self.table).unwrap();
                let line = text.lines().find_map(|line| line.strip_prefix(key)).unwrap_or_default();
                line.trim().to_owned()
            }
        }
    }

    fn staged(&self) -> Vec<PathBuf> {
        let mut found = Vec::new();
        let ours = [self.state_dir(), self.state_dir().join("apply")];
        for dir in self.directories.iter().chain(&ours) {
            let Ok(entries) = fs::read_dir(dir) else { continue };
            let names = entries.map(|entry| entry.unwrap().path());
            found.extend(names.filter(|path| path.file_name().unwrap().to_str().unwrap().starts_with('.')));
        }
        found
    }
}

/// Runs to the end once per mutating call, stopped just before it; looks; runs again, unstopped. Gives the number of
/// points that were tried.
fn stop_everywhere(kind: &str, environment: &[(&str, &str)]) -> usize {
    stop_everywhere_on(&Subject::new(kind), environment)
}

fn stop_everywhere_on(subject: &Subject, environment: &[(&str, &str)]) -> usize {
    let kind = subject.kind.as_str();
    let undoes = environment.iter().any(|(name, _)| *name == "RELAYKEY_CRASH_UNDO");
    let (mut seen, mut ahead, mut tried) = (BTreeSet::new(), 0, 0);
    // Where the files are put in place, or put back; and how many points there are.
    let calls = subject.calls(environment);
    let puts = |call: &Call| call.op == "rename" && subject.puts_in_place(call);
    let last = calls.iter().rposition(puts).expect("a file is put in place");
    let first = calls.iter().position(puts).expect("a file is put in place");
    let always: Vec<usize> = (first.saturating_sub(2)..=last + 3).chain([calls.len() + 1]).collect();
    for n in (1..=MOST).filter(|n| points::is_tried(*n, &always)) {
        subject.reset();
        let at = n.to_string();
        let environment: Vec<(&str, &str)> = environment.iter().copied().chain([("CRASH_AT", at.as_str())]).collect();
        let stopped = subject.run(&environment);
        let aborted = stopped.status.signal() == Some(ABORTED);
        assert!(
            aborted || stopped.status.success(),
            "{kind} {n}: {:?}\n{}{}",
            stopped.status,
            String::from_utf8_lossy(&stopped.stdout),
            String::from_utf8_lossy(&stopped.stderr)
        );

        let now = fs::read_to_string(&subject.table).unwrap();
        let found = subject.find(KEY);
        assert!(now == text(OLD) || now == text(NEW), "{kind} {n}: the text is neither: {now}");
        assert!(found == OLD || found == NEW, "{kind} {n}: the mail server finds {found:?}");
        assert_eq!(subject.find(OTHER), OTHERS, "{kind} {n}");
        assert!(found == OLD || now == text(NEW), "{kind} {n}: the map is newer than its text");
        let m = fs::metadata(&subject.table).unwrap();
        assert_eq!((m.mode() & 0o7777, m.uid()), (0o640, 0), "{kind} {n}");
        for staged in subject.staged() {
            let mode = fs::metadata(&staged).unwrap().mode() & 0o7777;
            assert!(mode & !0o640 == 0, "{kind} {n}: {} has mode {mode:o}", staged.display());
        }
        if !undoes && now == text(OLD) {
            // The journal may be ahead of the first rename, but no reload is owed for what was not put in place.
            assert!(!subject.owes_a_reload(), "{kind} {n}: a reload for nothing");
            let journal = fs::read_to_string(subject.state_dir().join("apply/journal.json")).unwrap_or_default();
            ahead += usize::from(journal.contains("swapped"));
        }
        seen.insert((now == text(NEW), found == NEW));
        if !aborted {
            assert!(undoes || ahead > 0, "{kind}: never stopped between the journal and the first rename");
            // Only what was meant has changed, and the last run was not stopped: all points were tried.
            assert!(n > 10, "{kind}: only {n} points");
            let states: &[(bool, bool)] = match &subject.map {
                Some(_) => &[(false, false), (true, false), (true, true)],
                None => &[(false, false), (true, true)],
            };
            assert!(states.iter().all(|state| seen.contains(state)), "{kind}: saw only {seen:?}");
            return tried;
        }

        tried += 1;
        let again = subject.run(&[]);
        assert!(
            again.status.success(),
            "{kind} {n}: the run after it failed\n{}{}",
            String::from_utf8_lossy(&again.stdout),
            String::from_utf8_lossy(&again.stderr)
        );
        assert_eq!((fs::read_to_string(&subject.table).unwrap(), subject.find(KEY)), (text(NEW), NEW.into()), "{n}");
        assert!(subject.staged().is_empty(), "{kind} {n}: left behind: {:?}", subject.staged());
    }
    panic!("{kind}: still stopped after {MOST} calls");
}

#[test]
fn stopped_anywhere_a_text_is_wholly_old_or_new() {
    println!("text: stopped at {} points", stop_everywhere("text", &[]));
}

#[test]
fn stopped_anywhere_a_hash_table_is_wholly_old_or_new() {
    println!("hash: stopped at {} points", stop_everywhere("hash", &[]));
}

#[test]
fn stopped_anywhere_an_lmdb_table_is_wholly_old_or_new() {
    println!("lmdb: stopped at {} points", stop_everywhere("lmdb", &[]));
}

#[test]
fn stopped_anywhere_in_an_undo_a_table_is_wholly_old_or_new() {
    for kind in ["text", "hash"] {
        println!("{kind} with undo: stopped at {} points", stop_everywhere(kind, &[("RELAYKEY_CRASH_UNDO", "1")]));
    }
}

/// The kinds side by side: each run waits for its programs most of the time.
fn stop_everywhere_with_links(links: Links) {
    let points: Vec<(&str, usize)> = std::thread::scope(|scope| {
        let run = |kind| scope.spawn(move || (kind, stop_everywhere_on(&Subject::with_links(kind, links), &[])));
        let running = ["hash", "lmdb", "cdb"].map(run);
        running.into_iter().map(|run| run.join().expect("every point was recovered from")).collect()
    });
    let all: usize = points.iter().map(|(_, n)| n).sum();
    println!("links: {links:?}: {points:?}: stopped at {all} points, 0 not recovered");
}

#[test]
fn stopped_anywhere_a_map_that_is_a_link_is_wholly_old_or_new() {
    stop_everywhere_with_links(Links::Map);
}

#[test]
fn stopped_anywhere_a_text_that_is_a_link_is_wholly_old_or_new() {
    stop_everywhere_with_links(Links::Text);
}

#[test]
fn stopped_anywhere_text_and_map_that_are_links_are_wholly_old_or_new() {
    stop_everywhere_with_links(Links::Both);
}

#[test]
fn stopped_anywhere_in_a_directory_that_is_a_link_a_table_is_wholly_old_or_new() {
    stop_everywhere_with_links(Links::Directory);
}

// -- power cuts -----------------------------------------------------------------------------------------------------

/// One line of `CRASH_LOG`.
struct Call {
    op: String,
    path: PathBuf,
    to: Option<PathBuf>,
    bytes: Vec<u8>,
}

/// Runs the driver of a test in a process of its own, which may be stopped.
fn drive(test: &str, (name, value): (&str, &OsStr), environment: &[(&str, &str)]) -> Output {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env(name, value)
        .env_remove("CRASH_AT")
        .env_remove("CRASH_LOG")
        .envs(environment.iter().copied())
        .output()
        .unwrap()
}

/// What a run that is not stopped does; it is logged there.
fn calls_of(log: &Path, environment: &[(&str, &str)], run: impl FnOnce(&[(&str, &str)]) -> Output) -> Vec<Call> {
    let log_to = [("CRASH_LOG", log.to_str().unwrap())];
    let run = run(&environment.iter().copied().chain(log_to).collect::<Vec<_>>());
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stdout));
    let calls = read_log(log);
    fs::remove_file(log).unwrap();
    calls
}

fn read_log(path: &Path) -> Vec<Call> {
    let text = fs::read_to_string(path).unwrap();
    let call = |line: &str| {
        let v: serde_json::Value = serde_json::from_str(line).unwrap();
        Call {
            op: v["op"].as_str().unwrap().into(),
            path: v["path"].as_str().unwrap().into(),
            to: v["to"].as_str().map(PathBuf::from),
            bytes: BASE64.decode(v["bytes"].as_str().unwrap()).unwrap(),
        }
    };
    text.lines().map(call).collect()
}

#[derive(Clone, Debug)]
enum NameChange {
    Made(PathBuf, usize),
    Renamed(PathBuf, PathBuf),
    Removed(PathBuf),
}

/// A file system as a power cut sees it: what is safe, and what may or may not be.
#[derive(Clone, Default)]
struct Disk {
    /// Content of each file: what an fsync made safe, and what was written since.
    files: Vec<(Option<Vec<u8>>, Vec<u8>)>,
    /// Names that are safe.
    names: BTreeMap<PathBuf, usize>,
    /// Changes of names since the last fsync of their directory, in order.
    pending: BTreeMap<PathBuf, Vec<NameChange>>,
    /// Names as the running system sees them.
    current: BTreeMap<PathBuf, usize>,
}

impl Disk {
    fn has(&mut self, path: &Path, content: Vec<u8>) {
        self.files.push((Some(content.clone()), content));
        self.names.insert(path.into(), self.files.len() - 1);
        self.current.insert(path.into(), self.files.len() - 1);
    }

    fn change(&mut self, change: NameChange) {
        let path = match &change {
            NameChange::Made(path, _) | NameChange::Renamed(path, _) | NameChange::Removed(path) => path,
        };
        self.pending.entry(path.parent().unwrap().into()).or_default().push(change.clone());
        apply(&mut self.current, &change);
    }

    /// The file of that name; one that a child made appears when it is first heard of.
    fn file(&mut self, path: &Path) -> usize {
        if let Some(file) = self.current.get(path) {
            return *file;
        }
        self.files.push((None, Vec::new()));
        let file = self.files.len() - 1;
        self.change(NameChange::Made(path.into(), file));
        file
    }

    fn does(&mut self, call: &Call) {
        match call.op.as_str() {
            "create" => _ = self.file(&call.path),
            "write" | "append to" => {
                let file = self.file(&call.path);
                self.files[file].1 = call.bytes.clone();
            }
            "fsync" => {
                let file = self.file(&call.path);
                self.files[file] = (Some(call.bytes.clone()), call.bytes.clone());
            }
            "rename" => {
                let to = call.to.clone().unwrap();
                self.change(NameChange::Renamed(call.path.clone(), to));
            }
            "remove" => self.change(NameChange::Removed(call.path.clone())),
            "fsync the directory" => {
                for change in self.pending.remove(&call.path).unwrap_or_default() {
                    apply(&mut self.names, &change);
                }
            }
            "run" | "make the directory" => {}
            op if op.starts_with("change the") || op.contains("attribute") || op.contains("ACL") => {}
            other => panic!("the model does not know {other:?}"),
        }
    }

    /// Every content with which a name may be found after a power cut now; `None`: no such name. Each change of a name
    /// that is not safe may have happened or not, whatever became of the others, and content that is not safe may be
    /// there, be gone, or be cut.
    fn after_power_cut(&self, path: &Path) -> BTreeSet<Option<Vec<u8>>> {
        let pending = self.pending.get(path.parent().unwrap()).cloned().unwrap_or_default();
        assert!(pending.len() < 16, "too many changes of names without an fsync: {pending:?}");
        let mut found = BTreeSet::new();
        for chosen in 0..1u32 << pending.len() {
            let mut names = self.names.clone();
            for (n, change) in pending.iter().enumerate() {
                if chosen & 1 << n != 0 {
                    apply(&mut names, change);
                }
            }
            match names.get(path) {
                None => _ = found.insert(None),
                Some(file) => {
                    let (safe, written) = &self.files[*file];
                    if safe.as_ref() != Some(written) {
                        found.insert(Some(safe.clone().unwrap_or_default()));
                        found.insert(Some(written[..written.len() / 2].to_vec()));
                    }
                    found.insert(Some(written.clone()));
                }
            }
        }
        found
    }
}

fn apply(names: &mut BTreeMap<PathBuf, usize>, change: &NameChange) {
    match change {
        NameChange::Made(path, file) => _ = names.insert(path.clone(), *file),
        NameChange::Renamed(from, to) => {
            if let Some(file) = names.remove(from) {
                names.insert(to.clone(), file);
            }
        }
        NameChange::Removed(path) => _ = names.remove(path),
    }
}

/// Records one run, and cuts the power after each of its calls. Gives the number of calls and of different states.
fn cut_everywhere(kind: &str) -> (usize, usize) {
    let subject = Subject::new(kind);
    let live: Vec<PathBuf> = [Some(subject.table.clone()), subject.map.clone()].into_iter().flatten().collect();
    cut_everywhere_in(kind, subject.dir.path(), &live, |environment| subject.run(environment))
}

/// Of a run that keeps its state in `dir/state` and replaces the live files, all of them.
fn cut_everywhere_in(
    kind: &str,
    dir: &Path,
    live: &[PathBuf],
    run: impl Fn(&[(&str, &str)]) -> std::process::Output,
) -> (usize, usize) {
    let log = dir.join("calls");
    let mut disk = Disk::default();
    let old: Vec<Vec<u8>> = live.iter().map(|path| fs::read(path).unwrap()).collect();
    for (path, content) in live.iter().zip(&old) {
        disk.has(path, content.clone());
    }
    let run = run(&[("CRASH_LOG", log.to_str().unwrap())]);
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stdout));
    let new: Vec<Vec<u8>> = live.iter().map(|path| fs::read(path).unwrap()).collect();
    assert!(old.iter().zip(&new).all(|(old, new)| old != new));
    let calls = read_log(&log);
    let journal = dir.join("state/apply/journal.json");

    let mut states = 0;
    let mut committed = false;
    for (n, call) in calls.iter().enumerate() {
        // The last journal is the one of `Commit`.
        let is_journal = |call: &Call| call.path == journal.with_file_name(".journal.json.new");
        committed |= is_journal(call)
            && call.op == "create"
            && !calls[n + 1..].iter().any(|c| is_journal(c) && c.op == "create");
        disk.does(call);
        let at = format!("{kind}: after call {} ({} {})", n + 1, call.op, call.path.display());
        let mut may_be_new = false;
        for ((path, old), new) in live.iter().zip(&old).zip(&new) {
            for content in disk.after_power_cut(path) {
                states += 1;
                let content = content.unwrap_or_else(|| panic!("{at}: {} is gone", path.display()));
                assert!(
                    content == *old || content == *new,
                    "{at}: {} is neither the old nor the new one: {} bytes",
                    path.display(),
                    content.len()
                );
                may_be_new |= content == *new;
            }
        }
        for content in disk.after_power_cut(&journal) {
            states += 1;
            let text = String::from_utf8(content.clone().unwrap_or_default()).unwrap();
            let whole = content.is_none() || serde_json::from_str::<serde_json::Value>(&text).is_ok();
            assert!(whole, "{at}: the journal is cut: {text:?}");
            assert!(
                !may_be_new || committed || text.contains("\"v2\""),
                "{at}: swapped, and the journal knows nothing"
            );
        }
    }
    // At the end nothing is left to chance.
    for (path, new) in live.iter().zip(&new) {
        assert_eq!(disk.after_power_cut(path), BTreeSet::from([Some(new.clone())]), "{kind}: {}", path.display());
    }
    (calls.len(), states)
}

#[test]
fn a_power_cut_leaves_every_live_file_wholly_old_or_new() {
    for kind in ["text", "hash", "lmdb", "cdb", "texthash"] {
        let (calls, states) = cut_everywhere(kind);
        println!("{kind}: power cut after each of {calls} calls, {states} states");
    }
}

/// The model can see what it is there for: without the fsync of a file, or of the directory before the end, it finds it.
#[test]
fn the_model_sees_a_missing_fsync() {
    let call = |op: &str, path: &str, to: Option<&str>, bytes: &str| Call {
        op: op.into(),
        path: path.into(),
        to: to.map(PathBuf::from),
        bytes: bytes.into(),
    };
    let live = Path::new("/d/live");
    let calls = [
        call("create", "/d/staged", None, ""),
        call("write", "/d/staged", None, "new!"),
        call("fsync", "/d/staged", None, "new!"),
        call("rename", "/d/staged", Some("/d/live"), ""),
        call("fsync the directory", "/d", None, ""),
    ];
    let after = |left_out: Option<usize>| {
        let mut disk = Disk::default();
        disk.has(live, b"old".to_vec());
        let all = calls.iter().enumerate().filter(|(n, _)| Some(*n) != left_out);
        all.for_each(|(_, call)| disk.does(call));
        let found = disk.after_power_cut(live);
        found.into_iter().map(|c| String::from_utf8(c.unwrap_or_default()).unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(after(None), ["new!"]);
    assert_eq!(after(Some(2)), ["", "ne", "new!"]);
    assert_eq!(after(Some(4)), ["new!", "old"]);
}
