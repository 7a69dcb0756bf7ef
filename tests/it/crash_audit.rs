//! What was done and its line in the audit log go together: the program is stopped before each of its mutating calls,
//! and the power is cut after each, while lines are added, a file is followed by the next and the oldest is dropped; each
//! time the log has to hold, and to say exactly what the state says. Built with the feature `crash-at` only:
//! `cargo test --features crash-at --test it crash_audit::`.
#![cfg(feature = "crash-at")]

use crate::lab::scratch;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use relaykey::audit::{self, By, FILES, Log, Record, Verified};
use relaykey::rollover::State;
use relaykey::state::{Access, Store};
use tempfile::TempDir;

/// Room for five or six lines.
const SIZE: u64 = 2_000;
/// More calls than any run here makes.
const MOST: usize = 300;
/// SIGABRT.
const ABORTED: i32 = 6;

fn record(n: u64) -> Record {
    Record {
        at: jiff::Timestamp::from_second(1_790_000_000 + n as i64).unwrap(),
        credential: "ses".into(),
        by: By { cause: "timer".into(), user: None, uid: None, claimed: None, detail: None },
        what: "rollover".into(),
        version: Some(format!("v{n}")),
        username: None,
        previous_username: None,
        steps: Vec::new(),
        outcome: "confirmed".into(),
        error: None,
        approved_by: None,
    }
}

/// As the agent does it: settles at its start, then so many acts, each with one or two records in the commit. `seq` of
/// the state counts the records.
fn acts(dir: &Path, count: usize) {
    let store = Store::open(dir, Access::Write, Duration::ZERO).unwrap();
    let mut state = store.load("ses").unwrap().unwrap_or_else(|| State::new("ses"));
    let mut log = Log::with_file_size(dir, "ses", SIZE);
    log.settle(&state.audit).unwrap();
    for act in 0..count {
        for _ in 0..=act % 2 {
            state.seq += 1;
            state.audit = log.append(&state.audit, &record(state.seq));
        }
        store.save(&state).unwrap();
        log.settle(&state.audit).unwrap();
    }
}

/// The test program runs itself for this.
#[test]
fn driver() {
    let Some(dir) = std::env::var_os("RELAYKEY_AUDIT_DRIVER") else { return };
    acts(Path::new(&dir), 3);
}

/// What the state says, and whether the log holds by it.
fn look(dir: &Path, when: &str) -> (u64, Verified) {
    let store = Store::open(dir, Access::Read, Duration::ZERO).unwrap();
    let state = store.load("ses").unwrap_or_else(|e| panic!("{when}: {e}")).unwrap_or_else(|| State::new("ses"));
    assert_eq!(state.audit.number, state.seq, "{when}: what was done and what was recorded differ");
    let verified = audit::verify(dir, "ses", &state.audit).unwrap_or_else(|e| panic!("{when}: {e:#?}"));
    let told = audit::recent(dir, "ses", &state.audit, usize::MAX);
    let kept = (verified.first.max(1)..=state.seq).rev().map(record).collect::<Vec<_>>();
    assert_eq!(told, kept, "{when}: the records");
    (state.seq, verified)
}

/// A state directory, as it is before each run.
struct Subject {
    dir: TempDir,
    before: BTreeMap<PathBuf, Vec<u8>>,
}

impl Subject {
    /// After so many acts; none: there is nothing yet.
    fn new(done: usize) -> Self {
        let dir = scratch::private("crash-audit");
        let mut subject = Self { dir, before: BTreeMap::new() };
        if done > 0 {
            acts(&subject.state(), done);
            subject.before = subject.files();
        }
        subject
    }

    fn state(&self) -> PathBuf {
        self.dir.path().join("state")
    }

    fn files(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        let mut found = BTreeMap::new();
        for below in ["audit", "credentials"] {
            let Ok(entries) = fs::read_dir(self.state().join(below)) else { continue };
            for path in entries.map(|entry| entry.unwrap().path()) {
                let bytes = fs::read(&path).unwrap();
                found.insert(path, bytes);
            }
        }
        found
    }

    fn put(&self, files: &BTreeMap<PathBuf, Vec<u8>>) {
        let _ = fs::remove_dir_all(self.state());
        if files.is_empty() {
            return;
        }
        let mut builder = fs::DirBuilder::new();
        builder.mode(0o700).recursive(true);
        for below in ["audit", "credentials"] {
            builder.create(self.state().join(below)).unwrap();
        }
        for (path, bytes) in files {
            fs::write(path, bytes).unwrap();
        }
    }

    fn run(&self, environment: &[(&str, &str)]) -> Output {
        Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "crash_audit::driver", "--nocapture"])
            .env("RELAYKEY_AUDIT_DRIVER", self.state())
            .env_remove("CRASH_AT")
            .env_remove("CRASH_LOG")
            .envs(environment.iter().copied())
            .output()
            .unwrap()
    }
}

/// Acts done before the run: none; into a file that has room; with a new file and a dropped one in the run.
const STARTS: [usize; 4] = [0, 2, 20, 21];

#[test]
fn stopped_anywhere_the_log_says_what_the_state_says() {
    let mut dropped = false;
    for done in STARTS {
        let subject = Subject::new(done);
        let oldest =
            |subject: &Subject| subject.files().keys().find(|p| p.to_string_lossy().ends_with(".jsonl")).cloned();
        let was = oldest(&subject);
        let mut points = 0;
        for n in 1..=MOST {
            subject.put(&subject.before);
            let stopped = subject.run(&[("CRASH_AT", &n.to_string())]);
            let when = format!("after {done} acts, stopped before call {n}");
            if stopped.status.success() {
                dropped |= was.is_some() && oldest(&subject) != was;
                break;
            }
            assert_eq!(stopped.status.signal(), Some(ABORTED), "{when}: {}", String::from_utf8_lossy(&stopped.stderr));
            points = n;
            if !subject.state().exists() {
                continue;
            }
            let (seq, _) = look(&subject.state(), &when);
            let again = subject.run(&[]);
            assert!(again.status.success(), "{when}: {}", String::from_utf8_lossy(&again.stderr));
            let (later, verified) = look(&subject.state(), &format!("{when}, then once more"));
            assert_eq!((later, verified.owed), (seq + 4, 0), "{when}");
            let kept = subject.files().keys().filter(|path| path.to_string_lossy().ends_with(".jsonl")).count();
            assert!(kept == verified.files && kept <= FILES, "{when}: {kept} files");
        }
        assert!(points > 15 && points < MOST, "{points}");
        println!("after {done} acts: stopped at {points} points");
    }
    assert!(dropped, "no run dropped a file");
}

// -- power cuts -----------------------------------------------------------------------------------------------------

#[derive(Clone)]
struct Content {
    /// What an fsync made safe.
    safe: Vec<u8>,
    now: Vec<u8>,
}

impl Content {
    /// What a power cut may leave of it: what was added may be there in part, also without its bytes.
    fn left(&self, variant: usize) -> Vec<u8> {
        let added = self.now.strip_prefix(self.safe.as_slice());
        let (kept, added) = added.map_or((&[][..], self.now.as_slice()), |added| (self.safe.as_slice(), added));
        let part = match variant {
            0 => added.to_vec(),
            1 => Vec::new(),
            2 => added[..added.len() / 2].to_vec(),
            _ => [&added[..added.len() / 3], &vec![0; added.len() - added.len() / 3]].concat(),
        };
        [kept, &part].concat()
    }
}

/// From, to: a new name has no from, a removed one no to.
type Change = (Option<PathBuf>, Option<(PathBuf, usize)>);
type Names = BTreeMap<PathBuf, usize>;

#[derive(Default)]
struct Disk {
    contents: Vec<Content>,
    now: Names,
    durable: Names,
    pending: Vec<Change>,
}

fn apply((gone, there): &Change, names: &mut Names) {
    gone.iter().for_each(|path| _ = names.remove(path));
    there.iter().for_each(|(path, content)| _ = names.insert(path.clone(), *content));
}

impl Disk {
    fn change(&mut self, change: Change) {
        apply(&change, &mut self.now);
        self.pending.push(change);
    }

    fn does(&mut self, op: &str, path: &Path, to: Option<PathBuf>, bytes: Vec<u8>) {
        match op {
            "create" => {
                self.contents.push(Content { safe: Vec::new(), now: Vec::new() });
                self.change((None, Some((path.to_owned(), self.contents.len() - 1))));
            }
            "write" | "append to" => self.contents[self.now[path]].now = bytes,
            "fsync" => self.contents[self.now[path]] = Content { safe: bytes.clone(), now: bytes },
            "rename" => {
                let content = self.now[path];
                self.change((Some(path.to_owned()), Some((to.unwrap(), content))));
            }
            "remove" => self.change((Some(path.to_owned()), None)),
            "fsync the directory" => {
                let here = |(gone, there): &Change| {
                    gone.as_ref().or(there.as_ref().map(|(path, _)| path)).and_then(|p| p.parent()) == Some(path)
                };
                let (safe, pending) = std::mem::take(&mut self.pending).into_iter().partition(here);
                let safe: Vec<Change> = safe;
                safe.iter().for_each(|change| apply(change, &mut self.durable));
                self.pending = pending;
            }
            "make the directory" | "change the mode of" => {}
            other => panic!("the model does not know {other:?}"),
        }
    }

    /// Everything that a power cut may leave now.
    fn left(&self) -> BTreeSet<BTreeMap<PathBuf, Vec<u8>>> {
        assert!(self.pending.len() < 10, "too many changes of names without an fsync");
        let mut all = BTreeSet::new();
        for chosen in 0..1_u32 << self.pending.len() {
            let mut names = self.durable.clone();
            let kept = self.pending.iter().enumerate().filter(|(n, _)| chosen & 1 << n != 0);
            kept.for_each(|(_, change)| apply(change, &mut names));
            for variant in 0..4 {
                let file = |(path, content): (&PathBuf, &usize)| (path.clone(), self.contents[*content].left(variant));
                all.insert(names.iter().map(file).collect());
            }
        }
        all
    }
}

#[test]
fn a_power_cut_leaves_a_log_that_holds_and_is_completed() {
    for done in STARTS {
        let subject = Subject::new(done);
        subject.put(&subject.before);
        let record_of_calls = subject.dir.path().join("calls");
        let run = subject.run(&[("CRASH_LOG", record_of_calls.to_str().unwrap())]);
        assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
        let mut disk = Disk::default();
        for (path, bytes) in &subject.before {
            disk.contents.push(Content { safe: bytes.clone(), now: bytes.clone() });
            disk.durable.insert(path.clone(), disk.contents.len() - 1);
        }
        disk.now = disk.durable.clone();
        let calls = fs::read_to_string(&record_of_calls).unwrap();
        let mut seen = BTreeSet::new();
        for (n, line) in calls.lines().enumerate() {
            let call: serde_json::Value = serde_json::from_str(line).unwrap();
            let text = |field: &str| call[field].as_str().map(str::to_owned);
            let op = text("op").unwrap();
            let bytes = BASE64.decode(text("bytes").unwrap()).unwrap();
            disk.does(&op, Path::new(&text("path").unwrap()), text("to").map(PathBuf::from), bytes);
            let when = format!("after {done} acts; power cut after call {} ({op})", n + 1);
            for left in disk.left() {
                if left.is_empty() || !seen.insert(left.clone()) {
                    continue;
                }
                subject.put(&left);
                let (seq, _) = look(&subject.state(), &when);
                acts(&subject.state(), 0);
                let (later, verified) = look(&subject.state(), &format!("{when}, then settled"));
                assert_eq!((later, verified.owed), (seq, 0), "{when}");
                acts(&subject.state(), 1);
                look(&subject.state(), &format!("{when}, then one more"));
            }
        }
        assert!(seen.len() > 20, "{}", seen.len());
        println!("after {done} acts: {} calls, {} states", calls.lines().count(), seen.len());
    }
}
