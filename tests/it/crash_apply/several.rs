//! The same with two and three tables in one change: stopped anywhere, also between two tables, every file is wholly the old or
//! the new one, what is told of the other key ids is true, and the next run finishes.

use super::super::apply::config_of;
use crate::lab::points;
use crate::lab::scratch;
use crate::lab::several::{LoginTable, Service, Several};

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};

use relaykey::apply::{Client, Inspected, Reply, Request, Server, TargetId};
use relaykey::config::{Reload, TargetKind};
use relaykey::credential::{Login, Secret};
use relaykey::mta::Ours;
use tempfile::TempDir;

use super::{ABORTED, Call, KEY, MOST, NEW, OLD, OTHER, OTHERS, calls_of, cut_everywhere_in, drive};

/// Another live key, in a table that does not hold the first.
const SECOND: &str = "[email-smtp.eu-west-1.amazonaws.com]:2587";
const SENDER: &str = "me@example.com";
/// An earlier login of ours, which is left.
const EARLIER: &str = "[relay.internal]:2525 AKIAEARLIER:pw";
/// Another account's.
const FOREIGN: &str = "[email-smtp.us-east-1.amazonaws.com]:587 AKIAFOREIGN:pw";

fn ours() -> Ours {
    Ours { applied: Some("AKIAOLD".into()), earlier: vec!["AKIAEARLIER".into()], ..Ours::default() }
}

fn target() -> TargetId {
    TargetId { credential: "ses".into(), target: "main".into() }
}

fn setup(state_dir: &Path) -> relaykey::apply::Setup {
    config_of(state_dir, TargetKind::Text { path: "/none".into() }, Reload::Always).mail()
}

fn client(state_dir: &Path, several: &Several, looks: bool) -> Client {
    let make = |_: &relaykey::apply::TargetSetup| -> Box<dyn relaykey::mta::Mta> { Box::new(several.clone()) };
    let setup = setup(state_dir);
    Client::in_process(match looks {
        true => Server::looking_with_mtas(&setup, &make),
        false => Server::with_mtas(&setup, &make),
    })
}

/// As `super::driver`, over what the file that `RELAYKEY_CRASH_TABLES` names describes.
#[test]
fn driver() {
    let Some(spec) = std::env::var_os("RELAYKEY_CRASH_TABLES") else { return };
    let spec = PathBuf::from(spec);
    let several: Several = serde_json::from_slice(&fs::read(&spec).unwrap()).unwrap();
    let client = client(&spec.with_file_name("state"), &several, false);
    let call = |request| client.call(request).unwrap_or_else(|e| panic!("{e:?}"));
    let Reply::Inspected(seen) = call(Request::Inspect { target: target(), ours: ours() }) else { panic!() };
    let (user, password) = NEW.split_once(':').unwrap();
    let login = Login::new(user.into(), Secret::new(password.into())).unwrap();
    let (expect, version) = (seen.expect(), "v2".into());
    call(Request::Prepare { target: target(), ours: ours(), expect, logins: login.into(), version });
    call(Request::Swap { target: target() });
    call(Request::Activate { target: target() });
    let Reply::ReadBack(read) = call(Request::ReadBack { target: target(), prove: None, nonce: None }) else {
        panic!()
    };
    assert!(read.matches, "{read:?}");
    let others: Vec<&str> = read.others.named.iter().map(|other| other.id.as_str()).collect();
    assert_eq!(others, ["AKIAEARLIER", "AKIAFOREIGN"]);
    assert_eq!(read.remaining_old, ["[relay.internal]:2525"]);
    if std::env::var_os("RELAYKEY_CRASH_UNDO").is_some() {
        call(Request::Undo { target: target() });
    } else {
        call(Request::Commit { target: target() });
    }
}

/// What the program is let loose on.
struct Tables {
    dir: TempDir,
    several: Several,
    /// With the old login.
    texts: Vec<String>,
}

impl Tables {
    /// Tables of these kinds: the second in a directory of its own, the third beside the first.
    fn new(kinds: &[&str]) -> Self {
        let scratch = scratch::private("crash-tables");
        let dir = scratch.path();
        for name in ["one", "two"] {
            fs::create_dir(dir.join(name)).unwrap();
        }
        fs::write(dir.join("main.cf"), "compatibility_level = 3.6\n").unwrap();
        let places = ["one/sasl_passwd", "two/sasl_passwd", "one/logins"];
        let tables: Vec<LoginTable> = (kinds.iter().zip(places))
            .map(|(kind, place)| LoginTable { kind: (*kind).into(), path: dir.join(place) })
            .collect();
        // One service asks both of the first two; the second is in the way of nothing there, and all that another one has.
        let service = |name: &str, tables: Vec<usize>, keys: &[&str]| Service {
            name: name.into(),
            tables,
            keys: keys.iter().map(|key| (*key).to_owned()).collect(),
        };
        let mut services = vec![service("smtp", vec![0, 1], &[KEY]), service("relay", vec![1], &[KEY])];
        let mut texts = vec![
            format!("# relays\n{OTHER} {OTHERS}\n{KEY}\t{OLD}\n"),
            format!("{SENDER} {OLD}\n{FOREIGN}\n{KEY} {OLD}\n{EARLIER}\n{OTHER} {OTHERS}\n"),
        ];
        if kinds.len() > 2 {
            services.push(service("bulk", vec![2, 0], &[SECOND, KEY]));
            texts.push(format!("{SECOND} {OLD}\n{OTHER} {OTHERS}\n"));
        }
        let several = Several { config_dir: dir.to_owned(), tables, services, further: Vec::new() };
        fs::write(dir.join("tables.json"), serde_json::to_vec(&several).unwrap()).unwrap();
        let tables = Self { dir: scratch, several, texts };
        tables.reset();
        tables
    }

    fn reset(&self) {
        for (n, text) in self.texts.iter().enumerate() {
            self.several.write(n, text);
        }
        let _ = fs::remove_dir_all(self.state_dir());
    }

    fn state_dir(&self) -> PathBuf {
        self.dir.path().join("state")
    }

    fn new_text(&self, table: usize) -> String {
        self.texts[table].replace(OLD, NEW)
    }

    fn run(&self, environment: &[(&str, &str)]) -> std::process::Output {
        let tables = self.dir.path().join("tables.json");
        drive("crash_apply::several::driver", ("RELAYKEY_CRASH_TABLES", tables.as_os_str()), environment)
    }

    /// What a run that is not stopped does.
    fn calls(&self, environment: &[(&str, &str)]) -> Vec<Call> {
        self.reset();
        calls_of(&self.dir.path().join("all-calls"), environment, |environment| self.run(environment))
    }

    fn puts_in_place(&self, call: &Call) -> bool {
        let name = |path: &Path| path.file_name().map(std::ffi::OsStr::to_owned);
        let live: Vec<_> = self.several.tables.iter().flat_map(LoginTable::files).map(|file| name(&file)).collect();
        call.op == "rename" && call.to.as_ref().is_some_and(|to| live.contains(&name(to)))
    }

    /// As a caller sees it. What is in place everywhere may be what it has made durable before it said `Commit`.
    fn inspect(&self, all_is_new: bool) -> Box<Inspected> {
        let client = client(&self.state_dir(), &self.several, true);
        let known = if all_is_new { vec!["AKIANEW".into()] } else { Vec::new() };
        let ours = Ours { known, ..ours() };
        let Reply::Inspected(seen) = client.call(Request::Inspect { target: target(), ours }).unwrap() else {
            panic!()
        };
        seen
    }

    fn staged(&self) -> Vec<PathBuf> {
        let directories = ["one", "two", "state", "state/apply"].map(|name| self.dir.path().join(name));
        let entries = directories.iter().filter_map(|dir| fs::read_dir(dir).ok()).flatten();
        let names = entries.map(|entry| entry.unwrap().path());
        names.filter(|path| path.file_name().unwrap().to_str().unwrap().starts_with('.')).collect()
    }

    /// Of each table: is its text the new one, and what is compiled from it?
    fn state(&self, at: &str) -> Vec<(bool, bool)> {
        let state = |n: usize| {
            let table = &self.several.tables[n];
            let text = fs::read_to_string(&table.path).unwrap();
            assert!(text == self.texts[n] || text == self.new_text(n), "{at}: table {n} is neither: {text}");
            let keys = [OTHER, KEY, SECOND, SENDER].into_iter().filter(|key| text.contains(key)).map(str::to_owned);
            let mut found = self.several.find_all(n, &keys.collect::<Vec<_>>());
            assert_eq!(found.remove(0).as_deref(), Some(OTHERS), "{at}: table {n}");
            let found: BTreeSet<String> = found.into_iter().flatten().collect();
            let found = found.into_iter().collect::<Vec<_>>();
            assert!(found == [OLD] || found == [NEW], "{at}: in table {n} the mail server finds {found:?}");
            let (text, map) = (text == self.new_text(n), found == [NEW]);
            assert!(text || !map, "{at}: the map of table {n} is newer than its text");
            let m = fs::metadata(&table.path).unwrap();
            assert_eq!((m.mode() & 0o7777, m.uid()), (0o640, 0), "{at}: table {n}");
            (text, map)
        };
        (0..self.texts.len()).map(state).collect()
    }
}

/// Stopped before each mutating call; gives the number of points that were tried. Those around the renames always are, and
/// between them.
fn stop_everywhere(kinds: &[&str], environment: &[(&str, &str)]) -> usize {
    let tables = Tables::new(kinds);
    let undoes = environment.iter().any(|(name, _)| *name == "RELAYKEY_CRASH_UNDO");
    let (mut seen, mut known) = (BTreeSet::new(), 0);
    let calls = tables.calls(environment);
    let puts = |call: &Call| tables.puts_in_place(call);
    let first = calls.iter().position(puts).expect("a file is put in place");
    let last = calls.iter().rposition(puts).expect("a file is put in place");
    let always: Vec<usize> = (first.saturating_sub(2)..=last + 3).chain([calls.len() + 1]).collect();
    for (tried, n) in (1..=MOST).filter(|n| points::is_tried(*n, &always)).enumerate() {
        tables.reset();
        let at = n.to_string();
        let environment: Vec<(&str, &str)> = environment.iter().copied().chain([("CRASH_AT", at.as_str())]).collect();
        let stopped = tables.run(&environment);
        let at = format!("{kinds:?} {n}");
        let aborted = stopped.status.signal() == Some(ABORTED);
        let said = |output: &std::process::Output| {
            format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
        };
        assert!(aborted || stopped.status.success(), "{at}: {:?}\n{}", stopped.status, said(&stopped));

        let state = tables.state(&at);
        // One table after the other: what is not begun stands behind what is done.
        for (n, pair) in state.windows(2).enumerate() {
            assert!(pair[1] == (false, false) || pair[0] == (true, true), "{at}: {n}: {state:?}");
        }
        for staged in tables.staged() {
            let mode = fs::metadata(&staged).unwrap().mode() & 0o7777;
            assert!(mode & !0o640 == 0, "{at}: {} has mode {mode:o}", staged.display());
        }
        // What is told is what is there, at every step.
        let inspected = tables.inspect(state.iter().all(|table| *table == (true, true)));
        let in_use = if state[0].1 { "AKIANEW" } else { "AKIAOLD" };
        assert_eq!(inspected.username.as_deref(), Some(in_use), "{at}");
        let ids = tables.several.usernames().into_iter().filter(|user| user.starts_with("AKIA") && user != in_use);
        let told: Vec<String> = inspected.others.named.iter().map(|other| other.id.clone()).collect();
        assert_eq!(told, ids.collect::<Vec<String>>(), "{at}: {state:?}");
        assert_eq!(inspected.others.count, told.len(), "{at}");
        assert_eq!(inspected.remaining_old, ["[relay.internal]:2525"], "{at}");
        assert_eq!(inspected.incomplete, ["proxy:mysql:/elsewhere.cf"], "{at}");
        let is_one = state.iter().all(|table| table.1 == state[0].1);
        assert_eq!(inspected.live_id.is_some(), is_one, "{at}: {state:?}");
        // Half of it in place: the journal knows whose that is, and of which tables.
        let journal = fs::read_to_string(tables.state_dir().join("apply/journal.json")).unwrap_or_default();
        if !undoes && state.iter().any(|table| table.0) && aborted && journal.contains("\"swapped\"") {
            let journal: serde_json::Value = serde_json::from_str(&journal).unwrap();
            if let Some(record) = journal["targets"].get("ses/main").filter(|record| record["phase"] == "swapped") {
                assert_eq!(journal["format"], 2, "{at}");
                let named = record["tables"].as_array().unwrap().iter().map(|table| table["table"].as_str().unwrap());
                let all = tables.several.tables.iter().map(|table| table.id().to_string());
                assert_eq!(named.map(str::to_owned).collect::<Vec<_>>(), all.collect::<Vec<_>>(), "{at}");
                assert_eq!(inspected.swapped.as_ref().and_then(|s| s.username.as_deref()), Some("AKIANEW"), "{at}");
                known += 1;
            }
        }
        seen.insert(state.clone());
        if !aborted {
            assert!(n > 10, "{kinds:?}: only {n} points");
            // Also between the tables, and between each text and its map.
            let all = kinds.len();
            for done in 0..=all {
                let state: Vec<(bool, bool)> = (0..all).map(|table| (table < done, table < done)).collect();
                assert!(seen.contains(&state), "{kinds:?}: never {state:?}, only {seen:?}");
                if done < all && tables.several.tables[done].map().is_some() {
                    let mut half = state.clone();
                    half[done].0 = true;
                    assert!(seen.contains(&half), "{kinds:?}: never {half:?}, only {seen:?}");
                }
            }
            assert!(undoes || known > all, "{kinds:?}: the journal knew only {known} of them");
            return tried;
        }

        let again = tables.run(&[]);
        assert!(again.status.success(), "{at}: the run after it failed\n{}", said(&again));
        assert!(tables.state(&at).iter().all(|table| *table == (true, true)), "{at}: not finished");
        assert!(tables.staged().is_empty(), "{at}: left behind: {:?}", tables.staged());
    }
    panic!("{kinds:?}: still stopped after {MOST} calls");
}

/// Side by side: each run waits for its programs most of the time.
fn stop_everywhere_each(all: &[&[&'static str]], environment: &[(&str, &str)]) {
    let points: Vec<(&[&str], usize)> = std::thread::scope(|scope| {
        let run = |kinds| scope.spawn(move || (kinds, stop_everywhere(kinds, environment)));
        let running: Vec<_> = all.iter().copied().map(run).collect();
        running.into_iter().map(|run| run.join().expect("every point was recovered from")).collect()
    });
    let sum: usize = points.iter().map(|(_, n)| n).sum();
    println!("tables: {points:?}: stopped at {sum} points{}, 0 not recovered", points::told());
}

#[test]
fn stopped_anywhere_two_tables_are_each_wholly_old_or_new() {
    stop_everywhere_each(&[&["hash", "lmdb"], &["lmdb", "hash"]], &[]);
}

#[test]
fn stopped_anywhere_three_tables_are_each_wholly_old_or_new() {
    stop_everywhere_each(&[&["hash", "lmdb", "hash"], &["lmdb", "texthash", "cdb"]], &[]);
}

#[test]
fn stopped_anywhere_in_an_undo_of_two_tables_each_is_wholly_old_or_new() {
    stop_everywhere_each(&[&["hash", "lmdb"]], &[("RELAYKEY_CRASH_UNDO", "1")]);
}

#[test]
fn a_power_cut_leaves_every_file_of_three_tables_wholly_old_or_new() {
    for kinds in [&["hash", "lmdb"][..], &["hash", "lmdb", "hash"], &["texthash", "cdb", "lmdb"]] {
        let tables = Tables::new(kinds);
        let live: Vec<PathBuf> = tables.several.tables.iter().flat_map(LoginTable::files).collect();
        let name = format!("{kinds:?}");
        let (calls, states) = cut_everywhere_in(&name, tables.dir.path(), &live, |environment| tables.run(environment));
        println!("{kinds:?}: power cut after each of {calls} calls, {states} states");
    }
}
