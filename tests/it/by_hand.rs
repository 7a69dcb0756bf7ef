//! Targets that a person changes (`write = false`), against real Postfix and real `postmap`: nothing is ever written there,
//! what is to be done is said so that it can be done, and what was done wrong is explained.

use crate::lab::postfix;
use crate::lab::relaykey as lab;
use crate::lab::scratch;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use lab::{Host, Key, Setup, Snapshot, let_a_start_be_later};
use postfix::{Instance, Options, cool_down, wait_for};
use relaykey::apply::{
    Activated, Client, Inspected, Prepared, Previewed, ReadBack, Reply, Request, Server, TargetId, WhyReload,
};
use relaykey::config;
use relaykey::credential::{Login, Secret, ses_smtp_password};
use relaykey::fault::{Class, Fault};
use relaykey::instruction::Instruction;
use relaykey::mta::{Ours, Running};
use serde_json::json;
use tempfile::TempDir;

const BARE: &str = "email-smtp.eu-west-1.amazonaws.com";
const HOP: &str = "[email-smtp.eu-west-1.amazonaws.com]:587";
/// A map beside its text, a map of the other kind, and a text that is read itself.
const KINDS: [&str; 3] = ["hash", "lmdb", "texthash"];

// ---------------------------------------------------------------- a host with such a target

struct Hand {
    postfix: Instance,
    dir: TempDir,
    client: Client,
    id: TargetId,
}

/// The logins before and after, as the source has them, and as they stand in a table.
fn old() -> Login {
    login("AKIAOLD")
}

fn new() -> Login {
    login("AKIANEW")
}

fn login(user: &str) -> Login {
    Login::new(user.into(), ses_smtp_password(&Secret::new(format!("secret of {user}")), "eu-west-1")).unwrap()
}

fn pair(login: &Login) -> String {
    format!("{}:{}", login.username, login.password.expose())
}

fn line(key: &str, login: &Login) -> String {
    format!("{key} {}\n", pair(login))
}

impl Hand {
    fn new(kind: &str, reload: &str, table: Option<&str>) -> Self {
        let postfix = Instance::new(&Options { map_type: kind, relayhost: HOP, ca_pem: None, table, settings: &[] });
        let dir = scratch::private("by-hand");
        let config = Self::config(&postfix, dir.path(), reload);
        let client = Client::in_process(Server::new(&config.mail()));
        Self { postfix, dir, client, id: TargetId { credential: "ses".into(), target: "main".into() } }
    }

    fn config(postfix: &Instance, dir: &Path, reload: &str) -> config::Config {
        let text = format!(
            "config_version = 1\n[host]\ninstances = \"named\"\nstate_dir = {:?}\n[[credential]]\nname = \"ses\"\n[credential.source]\n\
             type = \"file\"\npath = \"/none\"\n[credential.smtp]\nendpoint = {BARE:?}\n[[credential.target]]\n\
             name = \"main\"\ntype = \"postfix\"\nconfig_dir = {:?}\nwrite = false\nreload = {reload:?}\n",
            dir.join("state"),
            postfix.config_dir,
        );
        config::parse(&text).unwrap_or_else(|e| panic!("{e:?}")).0
    }

    fn ours(&self) -> Ours {
        Ours { applied: Some("AKIAOLD".into()), previous: None, known: vec!["AKIANEW".into()], ..Ours::default() }
    }

    fn call(&self, request: Request) -> Result<Reply, Fault> {
        self.client.call(request)
    }

    fn inspect(&self) -> Inspected {
        match self.call(Request::Inspect { target: self.id.clone(), ours: self.ours() }).unwrap() {
            Reply::Inspected(inspected) => *inspected,
            other => panic!("{other:?}"),
        }
    }

    fn preview(&self) -> Previewed {
        match self.call(Request::Preview { target: self.id.clone(), ours: self.ours(), logins: new().into() }).unwrap()
        {
            Reply::Previewed(previewed) => previewed,
            other => panic!("{other:?}"),
        }
    }

    /// What is staged, or what a person is to change.
    fn prepare(&self) -> Result<Prepared, Previewed> {
        let expect = self.inspect().expect();
        let (target, ours, version) = (self.id.clone(), self.ours(), "v2".into());
        match self.call(Request::Prepare { target, ours, expect, logins: new().into(), version }).unwrap() {
            Reply::Prepared(prepared) => Ok(prepared),
            Reply::ByHand(change) => Err(change),
            other => panic!("{other:?}"),
        }
    }

    /// From what is to be found in place, to its confirmation.
    #[track_caller]
    fn confirm(&self) -> Activated {
        let prepared = self.prepare().unwrap();
        assert!(prepared.nothing_to_write && !prepared.swapped_before && prepared.diff.is_empty(), "{prepared:?}");
        let before = Snapshot::of(&self.postfix.config_dir);
        assert!(matches!(self.call(Request::Swap { target: self.id.clone() }), Ok(Reply::Swapped { .. })));
        let activated = self.activate();
        let read = self.read_back();
        assert!(read.matches && read.remaining_old.is_empty(), "{read:?}");
        self.call(Request::Commit { target: self.id.clone() }).unwrap();
        before.same_as(&Snapshot::of(&self.postfix.config_dir));
        activated
    }

    fn activate(&self) -> Activated {
        match self.call(Request::Activate { target: self.id.clone() }).unwrap() {
            Reply::Activated(activated) => activated,
            other => panic!("{other:?}"),
        }
    }

    fn read_back(&self) -> ReadBack {
        match self.call(Request::ReadBack { target: self.id.clone(), prove: None, nonce: None }).unwrap() {
            Reply::ReadBack(read) => *read,
            other => panic!("{other:?}"),
        }
    }

    fn table(&self) -> String {
        fs::read_to_string(self.postfix.table()).unwrap()
    }

    /// As most editors and `sed -i` do it.
    fn replace(&self, text: &str) {
        let fresh = self.postfix.config_dir.join("sasl_passwd.new");
        fs::write(&fresh, text).unwrap();
        fs::set_permissions(&fresh, fs::Permissions::from_mode(0o600)).unwrap();
        fs::rename(fresh, self.postfix.table()).unwrap();
        cool_down(&self.postfix.table());
    }

    /// As a shell's `>` does it.
    fn write_in_place(&self, text: &str) {
        self.postfix.write_table(text);
    }

    /// Does what the steps say, and nothing else.
    fn do_as_told(&self, steps: &[Instruction]) {
        for step in steps {
            let command = matches!(step, Instruction::Command(_));
            let step = step.as_str().replace("AKIANEW:***", &pair(&new()));
            if command {
                let ran = Command::new("sh").args(["-c", &step]).output().unwrap();
                assert!(ran.status.success(), "{step}: {}", String::from_utf8_lossy(&ran.stderr));
                continue;
            }
            let file = self.postfix.table().display().to_string();
            let edit = |words: &str| {
                let (number, what) = words.split_once(", ").unwrap_or_else(|| panic!("{words}"));
                let number: usize = number.parse().unwrap();
                let mut lines: Vec<String> = self.table().lines().map(str::to_owned).collect();
                let there = lines[number - 1].clone();
                if let Some(rest) = what.strip_prefix("replace what stands after ") {
                    let (key, value) = rest.split_once(" by ").unwrap();
                    assert!(there.starts_with(key), "line {number} has another key than {key}");
                    lines[number - 1] = format!("{key} {value}");
                } else {
                    let (to, from) = what.strip_prefix("write ").unwrap().split_once(" in place of ").unwrap();
                    let rest = there.strip_prefix(from).unwrap_or_else(|| panic!("line {number} is not {from}"));
                    lines[number - 1] = format!("{to}{rest}");
                }
                self.write_in_place(&(lines.join("\n") + "\n"));
            };
            if let Some(rest) = step.strip_prefix(&format!("in {file}, line ")) {
                edit(rest);
            } else if let Some(line) = step.strip_prefix(&format!("in {file}, append the line: ")) {
                self.write_in_place(&format!("{}{line}\n", self.table()));
            } else if let Some(line) =
                step.strip_prefix(&format!("make the file {file}, root's and mode 600, with the line: "))
            {
                assert!(!self.postfix.table().exists());
                self.write_in_place(&format!("{line}\n"));
            } else {
                panic!("{step} is no edit that a person would know how to make");
            }
        }
    }
}

fn reloads(postfix: &Instance) -> usize {
    postfix.log().matches("reload -- version").count()
}

/// All that a person is told.
fn said(told: Previewed) -> Vec<String> {
    [told.diff, Instruction::plain(&told.steps), told.differences].concat()
}

/// Nothing that is said has a password in it, whole or in part.
#[track_caller]
fn gives_nothing_away(said: &[String]) {
    for text in said {
        for secret in [new(), old(), login("AKIASTRANGER")] {
            let password = secret.password.expose();
            // The first byte of every SES password is the same, and so are two characters of base64.
            let parts = (2..password.len() - 6).map(|at| &password[at..at + 6]);
            parts.for_each(|part| assert!(!text.contains(part), "a part of a password is in what is said"));
        }
        for number in ["43", "44", "45"] {
            assert!(!text.contains(&format!("{number} char")), "{text}");
        }
    }
}

// ---------------------------------------------------------------- what is not written

#[test]
fn what_a_person_is_to_change_is_told_and_never_written() {
    for kind in KINDS {
        let hand = Hand::new(kind, "always", Some(&format!("# relays\n{}other.example joe:pw\n", line(HOP, &old()))));
        hand.postfix.start();
        let before = Snapshot::of(&hand.postfix.config_dir);
        let (dir, table) = (hand.postfix.config_dir.display(), hand.postfix.table());
        let table = table.display();
        let told = hand.preview();
        assert_eq!(told.diff, [format!("{table}:2: {HOP} AKIAOLD:*** -> AKIANEW:***")], "{kind}");
        assert_eq!(
            told.differences,
            [format!("{table}:2: {HOP} holds the login of AKIAOLD, not of AKIANEW")],
            "{kind}"
        );
        // The reload is not among it: that is ours.
        let command = (kind != "texthash").then(|| format!("postmap -c {dir} {kind}:{table}"));
        let edit = format!("in {table}, line 2, replace what stands after {HOP} by AKIANEW:***");
        let steps: Vec<Instruction> =
            std::iter::once(Instruction::Text(edit)).chain(command.map(Instruction::Command)).collect();
        assert_eq!((&told.steps, told.reload), (&steps, Some(WhyReload::Always)), "{kind}");
        assert_eq!(hand.prepare().unwrap_err(), told, "{kind}");
        // Nothing is open, and nothing is locked for whoever edits it now.
        let swap = hand.call(Request::Swap { target: hand.id.clone() }).unwrap_err();
        assert_eq!(swap.class, Class::OutOfOrder);
        let directory = relaykey::host::Directory::open(&hand.postfix.config_dir).unwrap();
        directory.lock(Duration::ZERO).unwrap();
        before.same_as(&Snapshot::of(&hand.postfix.config_dir));
        assert_eq!(reloads(&hand.postfix), 0);
        gives_nothing_away(&said(told));
        // A table that could not be replaced is no trouble here.
        fs::hard_link(hand.postfix.table(), hand.postfix.base.join("kept")).unwrap();
        let seen = hand.inspect();
        assert!(!seen.findings.iter().any(|f| f.what.contains("hard links")), "{:?}", seen.findings);
        assert!(hand.prepare().is_err());
    }
}

#[test]
fn what_only_looks_tells_it_too_and_makes_nothing() {
    let mut hand = Hand::new("hash", "always", Some(&line(HOP, &old())));
    hand.client = Client::in_process(Server::looking(&Hand::config(&hand.postfix, hand.dir.path(), "always").mail()));
    let before = (Snapshot::of(&hand.postfix.base), Snapshot::of(hand.dir.path()));
    let told = hand.preview();
    assert!(told.diff.len() == 1 && told.steps.len() == 2 && told.differences.len() == 1, "{told:?}");
    before.0.same_as(&Snapshot::of(&hand.postfix.base));
    before.1.same_as(&Snapshot::of(hand.dir.path()));
}

/// From one look to the next somebody writes; and between `Prepare` and `Swap` as well.
#[test]
fn an_edit_behind_our_back_is_not_completed_by_us() {
    let hand = Hand::new("hash", "if-needed", Some(&line(HOP, &new())));
    hand.prepare().unwrap();
    hand.replace(&line(HOP, &old()));
    hand.postfix.postmap();
    let before = Snapshot::of(&hand.postfix.config_dir);
    hand.call(Request::Swap { target: hand.id.clone() }).unwrap();
    let read = hand.read_back();
    assert!(!read.matches && read.mismatches[0].contains("gives the login of AKIAOLD"), "{read:?}");
    hand.call(Request::Undo { target: hand.id.clone() }).unwrap();
    hand.call(Request::Discard { target: hand.id.clone() }).unwrap();
    assert!(hand.prepare().is_err());
    before.same_as(&Snapshot::of(&hand.postfix.config_dir));
}

// ---------------------------------------------------------------- what a person did

#[test]
fn the_steps_carried_out_leave_nothing_to_do() {
    let (old, new) = (old(), new());
    let upper = HOP.to_uppercase();
    let stranger = login("AKIASTRANGER");
    for kind in KINDS {
        for (what, table) in [
            ("the old login", Some(format!("# relays\n\nother.example joe:pw\n{}", line(HOP, &old)))),
            ("both keys", Some(line(HOP, &old) + &line(BARE, &old))),
            ("the bare host alone", Some(line(BARE, &old))),
            (
                "another port, and a sender",
                Some(line(HOP, &old) + &line("[h.example]:25", &old) + &line("a@b.c", &old)),
            ),
            ("upper case", Some(line(&upper, &old))),
            ("no entry", Some("other.example joe:pw\n".into())),
            ("no final newline", Some(line(HOP, &old).trim_end().into())),
            ("no table", None),
            ("another key", Some(line(&BARE.replace("eu", "us"), &stranger))),
            ("a repeated key", Some(line(HOP, &old) + "# again\n" + &line(HOP, &new) + &line(&upper, &old))),
            ("a repeated key, the first one right", Some(line(HOP, &new) + &line(HOP, &old) + &line(BARE, &old))),
            ("no brackets", Some(line(&format!("{BARE}:587"), &new) + "other.example joe:pw\n")),
            ("no port", Some(line(&format!("[{BARE}]"), &new))),
            ("a misspelt host", Some(line("[email-smpt.eu-west-1.amazonaws.com]:587", &new))),
            ("a mistyped user name", Some(line(HOP, &login("AKIANEWW")))),
            ("no colon", Some(format!("{HOP} AKIANEW {}\n", new.password.expose()))),
        ] {
            // Postfix does not open such a table: that is an error, whoever changes it.
            if kind == "texthash" && what.starts_with("a repeated key") {
                continue;
            }
            let hand = Hand::new(kind, "if-needed", table.as_deref());
            let told = hand.preview();
            assert!(!told.diff.is_empty() && !told.differences.is_empty(), "{kind}, {what}: {told:?}");
            hand.do_as_told(&told.steps);
            let Previewed { diff, reload, steps, differences, live_id } = hand.preview();
            let left = (diff.as_slice(), reload, steps.as_slice(), differences.as_slice());
            assert_eq!(live_id, told.live_id, "of the same login");
            assert_eq!(
                left,
                ([].as_slice(), None, [].as_slice(), [].as_slice()),
                "{kind}, {what}, after {:?}",
                told.steps
            );
            assert!(hand.prepare().unwrap().nothing_to_write, "{kind}, {what}");
            if let Some(table) = table.filter(|table| table.contains("joe:pw")) {
                assert!(hand.table().contains("other.example joe:pw"), "{kind}, {what}: {table}");
            }
        }
    }
}

#[test]
fn edits_of_every_kind_are_found_and_noticed() {
    for kind in KINDS {
        for in_place in [false, true] {
            let hand = Hand::new(kind, "always", Some(&line(HOP, &old())));
            hand.postfix.start();
            let edit = |login: &Login| {
                if in_place {
                    hand.write_in_place(&line(HOP, login));
                } else {
                    hand.replace(&line(HOP, login));
                }
                hand.postfix.postmap();
            };
            // Twice in a second, as a running smtp(8) may miss it.
            edit(&login("AKIASTRANGER"));
            edit(&new());
            assert_eq!(hand.confirm(), Activated::Yes { how: "reload" }, "{kind}, in place: {in_place}");
            wait_for("the reload in the log", Duration::from_secs(10), || (reloads(&hand.postfix) > 0).then_some(()));
            assert_eq!(reloads(&hand.postfix), 1);
            // Asked again, it is not reloaded again: nothing has changed since.
            let again = hand.confirm();
            assert!(matches!(again, Activated::Yes { .. }) && reloads(&hand.postfix) == 1, "{again:?}");
            // Touched by anybody, it is.
            hand.postfix.postmap();
            hand.write_in_place(&line(HOP, &new()));
            hand.postfix.postmap();
            assert_eq!(hand.confirm(), Activated::Yes { how: "reload" });
            assert_eq!(hand.inspect().reload_owed, None);
        }
    }
}

#[test]
fn a_reload_is_done_as_the_target_says() {
    for (kind, reload, how) in [
        ("hash", "if-needed", Some("reload")),
        ("btree", "if-needed", Some("reload")),
        ("lmdb", "if-needed", Some("reload")),
        ("lmdb", "never", None),
        ("texthash", "if-needed", Some("reload")),
        ("hash", "never", None),
        ("texthash", "never", None),
    ] {
        let hand = Hand::new(kind, reload, Some(&line(HOP, &old())));
        hand.postfix.start();
        hand.replace(&line(HOP, &new()));
        hand.postfix.postmap();
        let activated = hand.confirm();
        match how {
            Some(how) => assert_eq!(activated, Activated::Yes { how }, "{kind}, {reload}"),
            None => assert!(matches!(activated, Activated::Owed { temporary: false, .. }), "{activated:?}"),
        }
    }
    // One command, and it alone.
    let hand = Hand::new("hash", "always", Some(&line(HOP, &old())));
    let marker = hand.postfix.base.join("reloaded");
    let reload = format!("touch {}; postfix -c {} reload", marker.display(), hand.postfix.config_dir.display());
    let command = format!("[\"/bin/sh\", \"-c\", {reload:?}]");
    let mut config = Hand::config(&hand.postfix, hand.dir.path(), "always");
    let argv: Vec<String> = serde_json::from_str(&command).unwrap();
    config.credentials[0].targets[0].reload = config::Reload::Command(argv);
    let hand = Hand { client: Client::in_process(Server::new(&config.mail())), ..hand };
    hand.postfix.start();
    hand.replace(&line(HOP, &new()));
    hand.postfix.postmap();
    assert_eq!(hand.confirm(), Activated::Yes { how: "command" });
    assert!(marker.exists());
    assert_eq!(reloads(&hand.postfix), 1);
}

/// What a person changes is owed a reload where we must not do one, whatever the kind of the table: what they are to do says so,
/// and once it is done nothing is owed.
#[test]
fn what_a_person_is_to_do_holds_the_restart_that_would_be_owed() {
    for kind in KINDS {
        for (reload, is_ours) in [("if-needed", true), ("never", false)] {
            let hand = Hand::new(kind, reload, Some(&line(HOP, &old())));
            hand.postfix.start();
            let dir = hand.postfix.config_dir.display();
            let restart = format!("postfix -c {dir} stop; relaykey sync --wait 0s; postfix -c {dir} start");
            let told = hand.preview();
            let restarts = told.steps.last() == Some(&Instruction::Command(restart));
            assert_eq!(
                (restarts, told.reload),
                (!is_ours, Some(WhyReload::Unread)),
                "{kind}, {reload}: {:?}",
                told.steps
            );
            assert!(!told.steps.iter().any(|step| step.to_string().contains(" reload")), "{:?}", told.steps);
            hand.replace(&line(HOP, &new()));
            hand.postfix.postmap();
            let owed = matches!(hand.confirm(), Activated::Owed { .. });
            assert_eq!(owed, restarts, "{kind}, {reload}");
        }
        // It reads what is there when it is started.
        let hand = Hand::new(kind, "never", Some(&line(HOP, &old())));
        let said = Instruction::on_one_line(&hand.preview().steps);
        assert!(!said.contains("start"), "{kind}: {said}");
    }
}

#[test]
fn a_start_after_the_edit_needs_no_reload_and_a_mail_server_that_is_down_gets_none() {
    let hand = Hand::new("hash", "always", Some(&line(HOP, &old())));
    hand.replace(&line(HOP, &new()));
    hand.postfix.postmap();
    hand.prepare().unwrap();
    hand.call(Request::Swap { target: hand.id.clone() }).unwrap();
    // It reads what is there when it is started.
    assert_eq!(hand.activate(), Activated::Yes { how: "not-running" });
    assert_eq!(hand.read_back().running, Running::No);
    assert_eq!(hand.inspect().reload_owed, None);
    let_a_start_be_later();
    hand.postfix.start();
    assert_eq!(hand.confirm(), Activated::Yes { how: "started-after" });
    assert_eq!(reloads(&hand.postfix), 0);
}

// ---------------------------------------------------------------- what a person did wrong

#[test]
fn wrong_edits_are_explained() {
    let (old, new) = (old(), new());
    let value = |text: &str| format!("# relays\n{HOP} {text}\n");
    let password = new.password.expose();
    let base64 = |text: &str| {
        use base64::Engine as _;
        base64::engine::general_purpose::STANDARD.encode(text)
    };
    let again = |name: &str, first: &Login, second: &Login| (name.to_owned(), line(HOP, first) + &line(HOP, second));
    let cases: Vec<((String, String), &[&str])> = vec![
        (("old".into(), value(&pair(&old))), &[":2: ", "holds the login of AKIAOLD, not of AKIANEW"]),
        (
            ("stranger".into(), value(&pair(&login("AKIASTRANGER")))),
            &[":2: ", "holds the login of AKIASTRANGER, not of AKIANEW"],
        ),
        (
            ("old password".into(), value(&format!("AKIANEW:{}", old.password.expose()))),
            &[":2: ", "has the right user name AKIANEW and another password"],
        ),
        (("quoted".into(), value(&format!("\"{}\"", pair(&new)))), &[":2: ", "the right login in quotation marks"]),
        (("quoted password".into(), value(&format!("AKIANEW:'{password}'"))), &["the right one in quotation marks"]),
        (("followed".into(), value(&format!("{};", pair(&new)))), &["and then something that does not belong there"]),
        (("unseen".into(), value(&format!("{}\u{a0}", pair(&new)))), &["followed by a character that is not seen"]),
        (("blank".into(), value(&format!("AKIANEW: {password}"))), &["after a blank or another character"]),
        (("colons".into(), value(&format!("AKIANEW::{password}"))), &["one colon too many"]),
        (("no colon".into(), value(&format!("AKIANEW {password}"))), &["a blank where the colon belongs"]),
        (("another mark".into(), value(&format!("AKIANEW/{password}"))), &["it has no colon"]),
        (("user alone".into(), value("AKIANEW")), &["holds the user name alone"]),
        (("password alone".into(), value(password)), &["holds the password alone"]),
        (("wrong order".into(), value(&format!("{password}:AKIANEW"))), &["in the wrong order"]),
        (("encoded".into(), value(&format!("AKIANEW:{}", base64(password)))), &["encoded in base64 once more"]),
        (("pair encoded".into(), value(&base64(&pair(&new)))), &["encoded in base64"]),
        (("lowered".into(), value(&pair(&new).to_lowercase())), &["AKIANEW in other upper and lower case"]),
        (("masked".into(), value("AKIANEW:***")), &["the asterisks only stand for it", "--reveal"]),
        // The CR of a line's end is white space to Postfix.
        (("crlf".into(), value(&format!("{}\r", pair(&old)))), &[":2: ", "holds the login of AKIAOLD, not of AKIANEW"]),
        (("two lines".into(), value(&format!("AKIANEW:\n  {password}"))), &["goes on over several lines"]),
        (
            ("no brackets".into(), line(HOP, &old) + &line(&format!("{BARE}:587"), &new)),
            &[
                ":2: the login of AKIANEW stands under email-smtp.eu-west-1.amazonaws.com:587, but the mail server looks for \
               [email-smtp.eu-west-1.amazonaws.com]:587",
            ],
        ),
        (
            ("no port".into(), line(&format!("[{BARE}]"), &new)),
            &[
                ":1: the login of AKIANEW stands under [email-smtp.eu-west-1.amazonaws.com], but",
                "there is no entry for",
            ],
        ),
        (
            ("bare first".into(), line(HOP, &new) + &line(BARE, &old)),
            &[
                ":2: email-smtp.eu-west-1.amazonaws.com holds the login of AKIAOLD",
                "looks there before it looks under [email-smtp.eu-west-1.amazonaws.com]:587, which holds the right login on \
                 line 1",
            ],
        ),
        (again("again, old first", &old, &new), &[":1: ", "holds the login of AKIAOLD, not of AKIANEW"]),
        (
            again("again, new first", &new, &old),
            &[
                ":2: ",
                "holds the login of AKIAOLD, not of AKIANEW; it has no effect: the same key stands on line 1, which counts",
            ],
        ),
        (("gone".into(), "other.example joe:pw\n".into()), &["there is no entry for [email-smtp"]),
    ];
    for kind in KINDS {
        let hand = Hand::new(kind, "if-needed", Some(&line(HOP, &old)));
        for ((name, text), expected) in &cases {
            hand.write_in_place(text);
            hand.postfix.postmap();
            let before = Snapshot::of(&hand.postfix.base);
            let told = hand.preview();
            let said = told.differences.join("\n");
            // Postfix does not open such a table: that comes before which of the two counts.
            let twice = kind == "texthash" && name.starts_with("again");
            let expected = if twice { &["lines 1 and 2 have the same key"][..] } else { *expected };
            for words in expected {
                assert!(said.contains(words), "{kind}, {name}: {words:?} is not in {said:?}");
            }
            assert!(!told.diff.is_empty() && !told.steps.is_empty(), "{kind}, {name}: {told:?}");
            assert_eq!(hand.prepare().unwrap_err(), told, "{kind}, {name}");
            gives_nothing_away(&self::said(told));
            gives_nothing_away(&[format!("{:?}", hand.inspect())]);
            before.same_as(&Snapshot::of(&hand.postfix.base));
        }
        // Keys fold case: this one is right.
        hand.write_in_place(&line(&HOP.to_uppercase(), &new));
        hand.postfix.postmap();
        assert!(hand.preview().diff.is_empty() && hand.prepare().unwrap().nothing_to_write, "{kind}");
    }
}

#[test]
fn a_map_that_was_not_rebuilt_is_told() {
    for kind in ["hash", "lmdb"] {
        let hand = Hand::new(kind, "always", Some(&line(HOP, &old())));
        hand.replace(&("# by hand\n".to_owned() + &line(HOP, &new())));
        let (table, map, dir) = (hand.postfix.table(), hand.postfix.map(), hand.postfix.config_dir.display());
        let command = format!("postmap -c {dir} {kind}:{}", table.display());
        let told = hand.preview();
        assert_eq!(
            told.differences,
            [format!(
                "{}:2: {HOP} holds the right login, but the compiled map {} was not rebuilt and gives the login of \
                 AKIAOLD: run {command}",
                table.display(),
                map.display()
            )]
        );
        assert_eq!(told.steps, [Instruction::Command(command)]);
        assert!(hand.prepare().is_err());
        // Taken out of the text, and still in the map.
        hand.replace(&line(HOP, &new()));
        hand.postfix.postmap();
        hand.write_in_place(&(line(HOP, &new()) + &line(BARE, &old())));
        hand.postfix.postmap();
        hand.write_in_place(&line(HOP, &new()));
        let said = hand.preview().differences.join("\n");
        assert!(said.contains(&format!("still has {BARE}")), "{said}");
        hand.do_as_told(&hand.preview().steps);
        // And no map at all.
        fs::remove_file(&map).unwrap();
        let said = hand.preview().differences.join("\n");
        assert!(said.contains("gives nothing: run postmap"), "{said}");
        hand.do_as_told(&hand.preview().steps);
        assert!(hand.prepare().unwrap().nothing_to_write);
    }
}

#[test]
fn what_is_wrong_with_the_settings_is_still_an_error() {
    let hand = Hand::new("hash", "always", Some(&line(HOP, &old())));
    hand.postfix.set("smtp_sasl_auth_enable", "no");
    let request = Request::Preview { target: hand.id.clone(), ours: hand.ours(), logins: new().into() };
    let e = hand.call(request).unwrap_err();
    assert!(e.class == Class::Config && e.what.contains("smtp_sasl_auth_enable"), "{e:?}");
}

// ---------------------------------------------------------------- on screen

/// Runs a command on a terminal of its own, and gives what it showed and its exit code.
fn on_a_terminal(command: &str) -> (String, i32) {
    let ran = Command::new("script").args(["-qec", command, "/dev/null"]).stdin(Stdio::null()).output().unwrap();
    (String::from_utf8_lossy(&ran.stdout).replace('\r', ""), ran.status.code().unwrap_or(-1))
}

#[test]
fn the_password_is_shown_to_root_on_a_terminal_and_nowhere_else() {
    let (old, new) = (Key::new(), Key::new());
    let host = Host::new("hash", &old);
    host.standin.set_key(&new.id, &new.login.password);
    let source = host.publish(new.pair());
    host.configure(&Setup { source: &source, target: "write = false\n", ..Setup::default() });
    host.start_postfix();
    let before = (host.snapshot(), Snapshot::of(host.dir.path()));

    // Masked; `lab` looks for passwords in all that it runs.
    let table = host.postfix.table();
    let step = format!("1. in {}, line 2, replace what stands after {} by {}:***", table.display(), host.hop(), new.id);
    let masked = host.sync(&["--dry-run"], 0);
    masked.says(&[&step, "2. postmap -c ", &format!("holds the login of {}, not of {}", old.id, new.id)]);
    let document = host.sync(&["--dry-run", "--json"], 0).json();
    let preview = &document["credentials"][0]["preview"][0];
    assert_eq!(preview["by_hand"], json!(true), "{document:#}");
    assert_eq!((preview["steps"].as_array().unwrap().len(), preview["differences"].as_array().unwrap().len()), (2, 1));

    // Refused where anything but a terminal would get it.
    host.sync(&["--dry-run", "--reveal"], 2).says(&["standard output is not a terminal", "fix: run it on a terminal"]);
    host.sync(&["--dry-run", "--reveal", "--json"], 2).says(&["--json is for programs"]);
    host.sync(&["--reveal"], 2).says(&["--dry-run"]);

    let config = host.path("config.toml");
    let program = env!("CARGO_BIN_EXE_relaykey");
    let sync = format!("AWS_EC2_METADATA_DISABLED=true {program} --config {} sync --dry-run", config.display());
    let (shown, code) = on_a_terminal(&sync);
    assert!(code == 0 && shown.contains(&step) && !shown.contains(new.password()), "masked on a terminal too");
    let (shown, code) = on_a_terminal(&format!("{sync} --reveal --json"));
    assert!(code == 2 && !shown.contains(new.password()));
    let (shown, code) = on_a_terminal(&format!("{sync} --reveal | cat"));
    assert!(shown.contains("standard output is not a terminal") && !shown.contains(new.password()), "{code}");
    let (shown, code) = on_a_terminal(&format!("{sync} --reveal"));
    assert_eq!(code, 0);
    let wanted = step.replace(&format!("{}:***", new.id), &new.pair());
    assert_eq!(shown.matches(new.password()).count(), 1, "once, in the step");
    assert!(shown.lines().any(|line| line.trim() == wanted) && !shown.contains(old.password()));
    assert!(!shown.contains(&step), "the masked one would only be in the way");

    before.0.same_as(&host.snapshot());
    before.1.same_as(&Snapshot::of(host.dir.path()));

    // Somebody else at this terminal: the program is asked for before the configuration is.
    let copy = host.postfix.base.join("relaykey");
    // By another process: what a thread of this one starts meanwhile would inherit a file that is being written.
    assert!(Command::new("cp").arg(program).arg(&copy).status().unwrap().success());
    let nobody =
        format!("setpriv --reuid 65534 --regid 65534 --clear-groups {} sync --dry-run --reveal", copy.display());
    let (shown, code) = on_a_terminal(&nobody);
    assert!(code == 2 && shown.contains("only to root"), "{code}: {shown}");
}

// ---------------------------------------------------------------- what is pasted

/// The text of a message, as Python's MIME parser finds it.
fn body(message: &[u8]) -> String {
    use std::io::Write as _;
    let script = "import email, email.policy, sys\n\
                  m = email.message_from_bytes(sys.stdin.buffer.read(), policy=email.policy.default)\n\
                  sys.stdout.write(m.get_body(('plain',)).get_content())";
    let python = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/.venv/bin/python");
    let mut child =
        Command::new(python).args(["-c", script]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(message).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(message));
    String::from_utf8(output.stdout).unwrap().replace("\r\n", "\n")
}

/// A host that mails its reports through its own Postfix; its target has these lines.
fn host_that_mails(map_type: &str, first: &Key, target: &str) -> Host {
    let host = Host::new(map_type, first);
    host.start_postfix();
    let mail = format!(
        "[[report]]\nname = \"mail\"\ntype = \"email\"\nfrom = \"relaykey@example.com\"\nto = \"postmaster@example.com\"\n\
         server = \"127.0.0.1:{}\"\n",
        host.postfix.smtpd_port
    );
    let source = host.publish(first.pair());
    host.configure(&Setup { source: &source, target, more: &mail, ..Setup::default() });
    host.adopts(target);
    host
}

/// The message about this outcome, once it has arrived.
fn mail_about(host: &Host, outcome: &str) -> String {
    let header = format!("X-Relaykey-Outcome: {outcome}");
    let found = |seen: &relaykey::standin::StandinRecord| {
        seen.messages.iter().find(|m| String::from_utf8_lossy(&m.text).contains(&header)).map(|m| m.text.clone())
    };
    body(&host.standin.wait_for(lab::DELIVERY, "the message", found).unwrap())
}

/// Pastes it into root's shell, which has the umask that shells have.
fn paste(command: &str) {
    let programs = Path::new(env!("CARGO_BIN_EXE_relaykey")).parent().unwrap();
    let path = format!("{}:{}", programs.display(), std::env::var("PATH").unwrap_or_default());
    let ran = Command::new("sh").args(["-c", &format!("umask 022\n{command}\n")]).env("PATH", path).output().unwrap();
    assert!(ran.status.success(), "{command}: {}", String::from_utf8_lossy(&ran.stderr));
}

#[test]
fn the_commands_of_a_message_and_of_status_are_whole() {
    let (first, second) = (Key::new(), Key::new());
    let host = host_that_mails("texthash", &first, "write = false\nreload = \"never\"\n");
    host.standin.set_key(&second.id, &second.login.password);
    host.publish(second.pair());
    host.sync(&[], 3).says(&["write = false", "1. in "]);
    let mail = mail_about(&host, "pending-approval");
    let dir = host.postfix.config_dir.display();
    // One command, with a `;` in it.
    let config = host.path("config.toml");
    let look = format!("relaykey sync --wait 0s --config {}", config.display());
    let command = format!("postfix -c {dir} stop; {look}; postfix -c {dir} start");
    let mut lines = mail.lines().skip_while(|line| !line.ends_with("Run this command:"));
    assert_eq!(lines.nth(1), Some(format!("    {command}").as_str()), "{mail}");
    let status = host.relaykey(&["status"]);
    status.expect(0).says(&[&format!("2. {command}\n")]);
    let change = &host.relaykey(&["status", "--json"]).json()["credentials"][0]["pending"]["changes"][0];
    assert_eq!(change["todo"][1], json!({"command": command}), "{change}");
    // As 0.1.0 had it.
    assert_eq!(change["steps"][1], json!(command), "{change}");
    let told = &host.state("ses")["told"];
    assert_eq!(told["waiting"]["steps"], change["todo"], "{told}");

    let table = fs::read_to_string(host.postfix.table()).unwrap();
    host.postfix.write_table(&table.replace(&first.pair(), &second.pair()));
    // At once: whatever runs after it was seen not to run, was started after that.
    paste(&command);
    host.sync(&[], 0).says(&["ses: confirmed", &second.id]);
}

/// The text was deleted after `postmap`, as happens in the field. Who changes it by hand needs one: what brings it back has a `;` in
/// it, and must not leave the logins for everybody to read.
#[test]
fn the_command_that_brings_a_text_back_is_whole_wherever_it_is_told() {
    use std::os::unix::fs::MetadataExt as _;
    let (first, second) = (Key::new(), Key::new());
    let host = host_that_mails("hash", &first, "write = false\n");
    host.standin.set_key(&second.id, &second.login.password);
    host.publish(second.pair());
    let (table, map) = (host.postfix.table(), host.postfix.map());
    fs::remove_file(&table).unwrap();
    host.sync(&["--wait", "1s"], 3).says(&["the text is gone"]);
    let command = format!(
        "(umask 077; postmap -s -c {0} hash:{1} > {1}.new && chown {2}:{3} {1}.new && chmod 0600 {1}.new && mv {1}.new {1})",
        host.postfix.config_dir.display(),
        table.display(),
        fs::metadata(&map).unwrap().uid(),
        fs::metadata(&map).unwrap().gid()
    );
    let status = host.relaykey(&["status"]);
    status.expect(0);
    for told in [mail_about(&host, "pending-approval"), status.out.clone()] {
        assert!(told.lines().any(|line| line.contains(&command)), "{command}\nis not whole in\n{told}");
        paste(&command);
        let (text, map) = (fs::metadata(&table).unwrap(), fs::metadata(&map).unwrap());
        assert_eq!((text.mode() & 0o7777, text.uid(), text.gid()), (0o600, map.uid(), map.gid()));
        assert!(fs::read_to_string(&table).unwrap().contains(&first.pair()));
        if told != status.out {
            fs::remove_file(&table).unwrap();
        }
    }
    // And it is seen that it is there again.
    host.sync(&[], 3).says(&["1. in ", &second.id]);
}

/// Where relaykey changes it, none is needed, and none is left.
#[test]
fn a_table_without_a_text_is_moved_without_one() {
    use std::os::unix::fs::MetadataExt as _;
    for kind in ["hash", "lmdb"] {
        let (first, second) = (Key::new(), Key::new());
        let host = Host::with(kind, |hop| Some(format!("[other.example]:587 other:pass\n{hop} {}\n", first.pair())));
        host.standin.set_key(&first.id, &first.login.password);
        host.standin.set_key(&second.id, &second.login.password);
        host.configure(&Setup { source: &host.publish(first.pair()), ..Setup::default() });
        host.start_postfix();
        fs::set_permissions(host.postfix.map(), fs::Permissions::from_mode(0o640)).unwrap();
        fs::remove_file(host.postfix.table()).unwrap();
        host.relaykey(&["check"]).expect(0).says(&["the text is gone", "sync does without it"]);
        host.adopts("");
        host.publish(second.pair());
        host.sync(&["--dry-run"], 0).says(&[&format!("{}: {} ", host.postfix.map().display(), host.hop())]);
        let files = || {
            let names = fs::read_dir(&host.postfix.config_dir).unwrap().map(|entry| entry.unwrap().file_name());
            names.collect::<std::collections::BTreeSet<_>>()
        };
        let before = files();
        host.sync(&[], 0).says(&["ses: confirmed", &second.id]);
        assert_eq!(files(), before, "no text, and nothing staged");
        assert_eq!(fs::metadata(host.postfix.map()).unwrap().mode() & 0o7777, 0o640);
        assert_eq!(host.postfix.query("[other.example]:587"), "other:pass");
        host.standin.deactivate(&first.id);
        assert_eq!(host.send(), second.id);
        host.sync(&[], 0).says(&["ses: up-to-date"]);
    }
}
