//! The apply boundary end to end, through its client: on a text that is read directly, and on real Postfix tables.

mod regions;
mod several;

use crate::lab::postfix;
use crate::lab::scratch;

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use relaykey::apply::{
    Activated, Client, Inspected, Prepared, Previewed, ReadBack, Reply, Request, Server, TargetId, WantedProof,
};
use relaykey::config::{self, Config, Reload, TargetKind};
use relaykey::credential::{self, CodeFields, JsonKeys, Login, ProofFields, Secret, SignedToo, ses_smtp_password};
use relaykey::fault::{Class, Fault};
use relaykey::host::Directory;
use relaykey::instruction::Instruction;
use relaykey::mta::{Ours, Running};
use tempfile::TempDir;

const ENDPOINT: &str = "email-smtp.eu-west-1.amazonaws.com";
const KEY: &str = "[email-smtp.eu-west-1.amazonaws.com]:587";

/// A directory of this test alone, and the words that every request needs.
struct Lab {
    dir: TempDir,
    client: Client,
    id: TargetId,
    config: Config,
}

/// One Postfix credential with these, for apply alone.
pub fn config_of(state_dir: &Path, kind: TargetKind, reload: Reload) -> Config {
    let smtp = config::Smtp {
        endpoint: ENDPOINT.into(),
        port: 587,
        tls: config::Tls::Starttls,
        // The passwords here are no SES passwords, and apply does not ask.
        region: None,
        ca_file: None,
        timeout: Duration::from_secs(10),
        propagation: Duration::from_secs(300),
        retry: Duration::from_secs(10),
        endpoint_aliases: Vec::new(),
        also: Vec::new(),
    };
    let target = config::Target {
        name: "main".into(),
        kind,
        reload,
        drift: config::Drift::Heal,
        write: true,
        keys: None,
        unlisted_ok: Vec::new(),
        log: config::MailLog::Found,
        smtp,
    };
    Config {
        host: config::Host {
            name: None,
            state_dir: state_dir.into(),
            run_dir: state_dir.into(),
            lease: None,
            instances: config::Instances::Named,
        },
        aws: config::Aws::default(),
        credentials: vec![config::Credential {
            name: "ses".into(),
            source: config::SourceConfig::File { path: "/none".into(), owner: None },
            keys: JsonKeys::default(),
            poll: config::DEFAULT_POLL,
            mode: config::Mode::Automatic,
            probe: None,
            targets: vec![target],
        }],
        reports: Vec::new(),
        health: None,
    }
}

impl Lab {
    fn new(kind: impl FnOnce(&Path) -> TargetKind, reload: Reload) -> Self {
        let dir = scratch::private("apply");
        let config = config_of(&dir.path().join("state"), kind(dir.path()), reload);
        let client = Client::in_process(Server::new(&config.mail()));
        Self { dir, client, id: TargetId { credential: "ses".into(), target: "main".into() }, config }
    }

    /// On a text at `etc/sasl_passwd`, with this content.
    fn text(content: &str) -> Self {
        let lab = Self::new(|dir| TargetKind::Text { path: dir.join("etc/sasl_passwd") }, Reload::Always);
        fs::create_dir(lab.dir.path().join("etc")).unwrap();
        fs::write(lab.table(), content).unwrap();
        fs::set_permissions(lab.table(), fs::Permissions::from_mode(0o640)).unwrap();
        lab
    }

    fn on(instance: &postfix::Instance, reload: Reload) -> Self {
        Self::new(|_| TargetKind::Postfix { config_dir: instance.config_dir.clone() }, reload)
    }

    /// As a new process would: nothing in memory.
    fn restart(&mut self) {
        self.client = Client::in_process(Server::new(&self.config.mail()));
    }

    fn table(&self) -> PathBuf {
        self.dir.path().join("etc/sasl_passwd")
    }

    fn call(&self, request: Request) -> Result<Reply, Fault> {
        self.client.call(request)
    }

    fn inspect(&self) -> Inspected {
        match self.call(Request::Inspect { target: self.id.clone(), ours: Ours::default() }).unwrap() {
            Reply::Inspected(inspected) => *inspected,
            other => panic!("{other:?}"),
        }
    }

    fn prepare_expecting(&self, expect: Option<String>, login: &Login) -> Result<Prepared, Fault> {
        let (target, login) = (self.id.clone(), login.clone());
        let version = format!("v-{}", login.username).as_str().into();
        match self.call(Request::Prepare { target, ours: Ours::default(), expect, logins: login.into(), version })? {
            Reply::Prepared(prepared) => Ok(prepared),
            other => panic!("{other:?}"),
        }
    }

    fn prepare(&self, login: &Login) -> Result<Prepared, Fault> {
        self.prepare_expecting(self.inspect().expect(), login)
    }

    fn swap(&self) -> Result<u64, Fault> {
        match self.call(Request::Swap { target: self.id.clone() })? {
            Reply::Swapped { at_boot } => Ok(at_boot),
            other => panic!("{other:?}"),
        }
    }

    fn activate(&self) -> Activated {
        match self.call(Request::Activate { target: self.id.clone() }).unwrap() {
            Reply::Activated(activated) => activated,
            other => panic!("{other:?}"),
        }
    }

    fn read_back(&self) -> ReadBack {
        self.read_back_with(None)
    }

    fn read_back_with(&self, nonce: Option<&str>) -> ReadBack {
        let prove = Some(WantedProof { fields: proof_fields(), room: 1000 });
        let nonce = nonce.map(str::to_owned);
        match self.call(Request::ReadBack { target: self.id.clone(), prove, nonce }).unwrap() {
            Reply::ReadBack(read) => *read,
            other => panic!("{other:?}"),
        }
    }

    fn undo(&self) -> Result<Reply, Fault> {
        self.call(Request::Undo { target: self.id.clone() })
    }

    fn commit(&self) {
        assert!(matches!(self.call(Request::Commit { target: self.id.clone() }), Ok(Reply::Done)));
    }

    fn journal(&self) -> String {
        fs::read_to_string(self.dir.path().join("state/apply/journal.json")).unwrap_or_default()
    }
}

fn login(user: &str) -> Login {
    Login::new(user.into(), ses_smtp_password(&Secret::new(format!("secret of {user}")), "eu-west-1")).unwrap()
}

fn line(key: &str, login: &Login) -> String {
    format!("{key} {}:{}\n", login.username, login.password.expose())
}

fn proof_fields() -> ProofFields {
    let text = |s: &str| s.to_owned();
    ProofFields {
        host_id: text("h"),
        host: text("mx1"),
        credential: text("ses"),
        version: text("v"),
        username: text("u"),
        target: text("main"),
        region: text("eu-west-1"),
        outcome: text("confirmed"),
        seq: 1,
        at: text("2026-01-01T00:00:00Z"),
        v2: Some(SignedToo { source: text("arn"), evidence_at: text("2026-01-01T00:00:00Z"), lists: Vec::new() }),
    }
}

/// Everything below a directory: its name, what stat says of it, its content.
fn snapshot(dir: &Path) -> Vec<(PathBuf, String, Vec<u8>)> {
    let mut all = Vec::new();
    let mut ahead = vec![dir.to_owned()];
    while let Some(path) = ahead.pop() {
        let m = fs::symlink_metadata(&path).unwrap();
        if m.is_dir() {
            ahead.extend(fs::read_dir(&path).unwrap().map(|e| e.unwrap().path()));
        }
        let content = if m.is_file() { fs::read(&path).unwrap() } else { Vec::new() };
        let stat = format!("{} {:o} {} {} {}.{}", m.ino(), m.mode(), m.uid(), m.gid(), m.mtime(), m.mtime_nsec());
        all.push((path, stat, content));
    }
    all.sort();
    all
}

fn staged_in(dir: &Path) -> Vec<String> {
    let names = fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap());
    names.filter(|name| name.starts_with(".relaykey")).collect()
}

// -- a text -----------------------------------------------------------------------------------------------------------

#[test]
fn a_rollover_changes_the_one_entry_and_proves_it() {
    let (old, new) = (login("AKIAOLD"), login("AKIANEW"));
    let before = format!("# relays\n\n[other.example]:25\tjoe:pw\n{}# end", line(KEY, &old));
    let lab = Lab::text(&before);
    chown(lab.table(), Some(1234), Some(4321)).unwrap();

    let seen = lab.inspect();
    assert_eq!((seen.username.as_deref(), seen.swapped, seen.reload_owed), (Some("AKIAOLD"), None, None));
    assert_eq!(seen.running, Running::NotApplicable);
    let prepared = lab.prepare(&new).unwrap();
    assert!(!prepared.nothing_to_write && !prepared.swapped_before);
    assert!(prepared.diff.iter().all(|line| !line.contains(new.password.expose())), "{:?}", prepared.diff);
    assert_eq!(fs::read_to_string(lab.table()).unwrap(), before, "nothing changed yet");
    assert_eq!(staged_in(&lab.dir.path().join("etc")), [".relaykey.ses.main.0"]);
    lab.swap().unwrap();
    assert_eq!(lab.activate(), Activated::Yes { how: "no-process" });
    let read = lab.read_back();
    assert!(read.matches && read.mismatches.is_empty() && read.remaining_old.is_empty());
    assert_eq!((read.keys.as_slice(), read.how), (&[KEY.to_owned()][..], "text"));
    assert_eq!(read.live_id, Some(prepared.live_id));
    // Over what the tables hold, which the reader put in.
    let mut fields = proof_fields();
    fields.v2.as_mut().unwrap().lists = read.held.signed();
    assert_eq!((read.proof, read.code), (Some(credential::proof(&new.password, &fields)), None));
    for nonce in ["", "n-42"] {
        let code = credential::code(&new.password, &CodeFields::of(&proof_fields(), nonce.into())).unwrap();
        assert_eq!(lab.read_back_with(Some(nonce)).code, Some(Ok(code.to_string())), "{nonce:?}");
    }
    lab.commit();

    assert_eq!(fs::read_to_string(lab.table()).unwrap(), before.replace(&line(KEY, &old), &line(KEY, &new)));
    let m = fs::metadata(lab.table()).unwrap();
    assert_eq!((m.uid(), m.gid(), m.mode() & 0o7777), (1234, 4321, 0o640));
    assert!(staged_in(&lab.dir.path().join("etc")).is_empty());
    for (file, mode) in [("state", 0o700), ("state/apply", 0o700), ("state/apply/key", 0o600)] {
        assert_eq!(fs::metadata(lab.dir.path().join(file)).unwrap().mode() & 0o7777, mode, "{file}");
    }
    assert!(!lab.journal().contains("AKIANEW"), "closed: {}", lab.journal());
}

#[test]
fn looking_changes_nothing_on_disk() {
    let lab = Lab::text(&line(KEY, &login("AKIAOLD")));
    let before = snapshot(lab.dir.path());
    let seen = lab.inspect();
    assert_eq!(seen.live_id, lab.inspect().live_id, "live ids hold within the process");
    let request = Request::Preview { target: lab.id.clone(), ours: Ours::default(), logins: login("AKIANEW").into() };
    let Reply::Previewed(Previewed { diff, .. }) = lab.call(request).unwrap() else { panic!() };
    assert!(diff.len() == 1 && diff[0].contains("AKIAOLD:*** -> AKIANEW:***"), "{diff:?}");
    assert_eq!(snapshot(lab.dir.path()), before);
}

#[test]
fn live_ids_survive_a_restart_and_differ_between_installations() {
    let mut lab = Lab::text(&line(KEY, &login("AKIAOLD")));
    let other = Lab::text(&line(KEY, &login("AKIAOLD")));
    let first = lab.inspect().live_id;
    lab.prepare(&login("AKIANEW")).unwrap();
    lab.restart();
    assert_eq!(lab.inspect().live_id, first);
    assert_ne!(other.inspect().live_id, first);
}

#[test]
fn a_candidate_that_is_there_already_is_adopted_with_nothing_written() {
    let lab = Lab::text(&line(KEY, &login("AKIANEW")));
    let before = snapshot(&lab.dir.path().join("etc"));
    let prepared = lab.prepare(&login("AKIANEW")).unwrap();
    assert!(prepared.nothing_to_write && !prepared.swapped_before && prepared.diff.is_empty());
    lab.swap().unwrap();
    assert_eq!(lab.activate(), Activated::Yes { how: "no-process" });
    let read = lab.read_back();
    assert!(read.matches && read.proof.unwrap().is_ok());
    lab.commit();
    assert_eq!(snapshot(&lab.dir.path().join("etc")), before);
    assert_eq!(lab.journal(), "");
}

#[test]
fn a_file_and_an_entry_that_are_missing_are_made() {
    let lab = Lab::text("");
    fs::remove_file(lab.table()).unwrap();
    let seen = lab.inspect();
    assert_eq!((seen.live_id.as_ref(), seen.missing.as_slice()), (None, &[KEY.to_owned()][..]));
    lab.prepare(&login("AKIANEW")).unwrap();
    lab.swap().unwrap();
    assert!(lab.read_back().matches);
    assert_eq!(fs::read_to_string(lab.table()).unwrap(), line(KEY, &login("AKIANEW")));
    assert_eq!(fs::metadata(lab.table()).unwrap().mode() & 0o7777, 0o600);
    lab.undo().unwrap();
    assert!(!lab.table().exists(), "undo takes the file away again");
}

#[test]
fn what_was_not_expected_is_not_overwritten() {
    let lab = Lab::text(&line(KEY, &login("AKIAOLD")));
    let expect = lab.inspect().expect();
    fs::write(lab.table(), line(KEY, &login("AKIAOTHER"))).unwrap();
    let before = snapshot(&lab.dir.path().join("etc"));
    let e = lab.prepare_expecting(expect, &login("AKIANEW")).unwrap_err();
    assert!(e.temporary && e.class == Class::ChangedUnderneath, "{e:?}");
    let e = lab.prepare_expecting(None, &login("AKIANEW")).unwrap_err();
    assert_eq!(e.class, Class::ChangedUnderneath);
    assert_eq!(snapshot(&lab.dir.path().join("etc")), before);
    // Nothing is held: the next attempt goes through.
    lab.prepare(&login("AKIANEW")).unwrap();
}

/// Waits until another change of main.cf or master.cf would show by its time: from then on what was read of them is kept.
fn let_settings_settle(instance: &postfix::Instance) {
    postfix::wait_for("the settings to be of some seconds ago", Duration::from_secs(15), || {
        let changed =
            ["main.cf", "master.cf"].map(|name| fs::metadata(instance.config_dir.join(name)).unwrap().ctime());
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
        changed.into_iter().all(|at| now.as_secs() > u64::try_from(at).unwrap() + 3).then_some(())
    });
}

/// What a change goes over is found in the one look that it is planned by.
#[test]
fn prepare_asks_a_live_table_once() {
    let instance = instance("hash", Some(&line(KEY, &login("AKIAOLD"))));
    let log = instance.base.join("asked");
    with_postmap(
        &instance,
        &format!(
            r#"case "$*" in *" -q "*) for last; do :; done; echo "$last" >>{};; esac
            exec $REAL "$@""#,
            log.display()
        ),
    );
    let lab = Lab::on(&instance, Reload::IfNeeded);
    let expect = lab.inspect().expect();
    fs::remove_file(&log).unwrap();
    lab.prepare_expecting(expect, &login("AKIANEW")).unwrap();
    let asked = fs::read_to_string(&log).unwrap();
    let live = format!("hash:{}", instance.table().display());
    assert_eq!(asked.lines().filter(|table| *table == live).count(), 1, "{asked}");
}

/// Settings that were read a moment ago are not believed where somebody has changed them since.
#[test]
fn main_cf_that_names_another_table_since_the_look_is_read_before_anything_is_planned() {
    let (old, new) = (login("AKIAOLD"), login("AKIANEW"));
    let instance = instance("hash", Some(&line(KEY, &old)));
    let lab = Lab::on(&instance, Reload::IfNeeded);
    let_settings_settle(&instance);
    let expect = lab.inspect().expect();
    let other = instance.config_dir.join("sasl_other");
    fs::write(&other, line(KEY, &old)).unwrap();
    fs::set_permissions(&other, fs::Permissions::from_mode(0o600)).unwrap();
    postfix::cool_down(&other);
    let named = format!("hash:{}", other.display());
    paste(&format!("/usr/sbin/postmap -c {} {named}", instance.config_dir.display()));
    instance.set("smtp_sasl_password_maps", &named);
    lab.prepare_expecting(expect, &new).unwrap();
    lab.swap().unwrap();
    assert_eq!(fs::read_to_string(&other).unwrap(), line(KEY, &new));
    assert_eq!(fs::read_to_string(instance.table()).unwrap(), line(KEY, &old));
}

/// Somebody else's login in the table of one service, and the new one, put there by hand, in that of another: which of them is
/// found first depends on whether a candidate is known. It is no change underneath, again and again.
#[test]
fn a_login_of_others_in_one_service_and_the_new_one_in_another_is_no_change_underneath() {
    let (new, other) = (login("AKIANEW"), login("AKIAOTHER"));
    let instance = instance("hash", Some(&line(KEY, &other)));
    let bulk = instance.config_dir.join("sasl_bulk");
    fs::write(&bulk, line(ENDPOINT, &other) + &line(KEY, &new)).unwrap();
    fs::set_permissions(&bulk, fs::Permissions::from_mode(0o600)).unwrap();
    postfix::cool_down(&bulk);
    let named = format!("hash:{}", bulk.display());
    paste(&format!("/usr/sbin/postmap -c {} {named}", instance.config_dir.display()));
    let master_cf = instance.config_dir.join("master.cf");
    let services = fs::read_to_string(&master_cf).unwrap();
    fs::write(&master_cf, services + &format!("bulk unix - - n - - smtp\n  -o smtp_sasl_password_maps={named}\n"))
        .unwrap();
    instance.set("transport_maps", &format!("inline:{{ {{bulk.example = bulk:{KEY}}} }}"));
    let lab = Lab::on(&instance, Reload::IfNeeded);
    let ours = || Ours { applied: Some("AKIAOLD".into()), ..Ours::default() };
    let Reply::Inspected(seen) = lab.call(Request::Inspect { target: lab.id.clone(), ours: ours() }).unwrap() else {
        panic!("it was looked at")
    };
    let (target, logins, version) = (lab.id.clone(), new.clone().into(), "v-new".into());
    let e = lab.call(Request::Prepare { target, ours: ours(), expect: seen.expect(), logins, version }).unwrap_err();
    assert_eq!(e.class, Class::Ambiguous, "{e:?}");
}

#[test]
fn an_edit_between_prepare_and_swap_is_kept() {
    let lab = Lab::text(&line(KEY, &login("AKIAOLD")));
    lab.prepare(&login("AKIANEW")).unwrap();
    fs::write(lab.table(), format!("# by hand\n{}other.example a:b\n", line(KEY, &login("AKIAOLD")))).unwrap();
    lab.swap().unwrap();
    let expected = format!("# by hand\n{}other.example a:b\n", line(KEY, &login("AKIANEW")));
    assert_eq!(fs::read_to_string(lab.table()).unwrap(), expected);
    assert!(lab.read_back().matches && staged_in(&lab.dir.path().join("etc")).is_empty());
}

/// Two relaykeys that share a table and see different lock files, as two containers with a `/run` each do.
#[test]
fn a_staged_file_exchanged_between_prepare_and_swap_never_goes_live() {
    let lab = Lab::text(&line(KEY, &login("AKIAOLD")));
    for exchanged in [Some(""), Some("half"), None] {
        let key = format!("AKIANEW{}", exchanged.map_or(0, |text| text.len() + 1));
        lab.prepare(&login(&key)).unwrap();
        let staged = lab.dir.path().join("etc").join(&staged_in(&lab.dir.path().join("etc"))[0]);
        fs::remove_file(&staged).unwrap();
        if let Some(text) = exchanged {
            fs::write(&staged, text).unwrap();
        }
        lab.swap().unwrap();
        assert_eq!(fs::read_to_string(lab.table()).unwrap(), line(KEY, &login(&key)), "{exchanged:?}");
        lab.activate();
        lab.commit();
    }
    assert!(staged_in(&lab.dir.path().join("etc")).is_empty());
}

#[test]
fn an_edit_that_would_have_to_be_guessed_at_stops_the_swap() {
    let lab = Lab::text(&line(KEY, &login("AKIAOLD")));
    lab.prepare(&login("AKIANEW")).unwrap();
    let split = line(KEY, &login("AKIAOLD")).replace("AKIAOLD:", "AKIAOLD:\n ");
    fs::write(lab.table(), &split).unwrap();
    let e = lab.swap().unwrap_err();
    assert!(!e.temporary && e.line.is_some() && e.file.is_some(), "{e:?}");
    assert_eq!(fs::read_to_string(lab.table()).unwrap(), split);
    assert!(staged_in(&lab.dir.path().join("etc")).is_empty());
    assert!(!lab.journal().contains("AKIANEW"), "{}", lab.journal());
    assert_eq!(lab.swap().unwrap_err().class, Class::OutOfOrder);
}

#[test]
fn undo_puts_every_byte_and_right_back() {
    let lab = Lab::text(&format!("# a\n{}", line(KEY, &login("AKIAOLD"))));
    chown(lab.table(), Some(1234), Some(4321)).unwrap();
    let before = fs::read(lab.table()).unwrap();
    lab.prepare(&login("AKIANEW")).unwrap();
    lab.swap().unwrap();
    lab.undo().unwrap();
    let m = fs::metadata(lab.table()).unwrap();
    assert_eq!(fs::read(lab.table()).unwrap(), before);
    assert_eq!((m.uid(), m.gid(), m.mode() & 0o7777), (1234, 4321, 0o640));
    assert!(staged_in(&lab.dir.path().join("etc")).is_empty() && !lab.journal().contains("AKIANEW"));
    assert!(!lab.read_back().matches);
    // And from there a rollover works again.
    lab.prepare(&login("AKIANEW")).unwrap();
    lab.swap().unwrap();
    assert!(lab.read_back().matches);
}

#[test]
fn a_read_back_that_differs_is_reported_and_somebody_elses_change_is_not_undone() {
    let lab = Lab::text(&line(KEY, &login("AKIAOLD")));
    lab.prepare(&login("AKIANEW")).unwrap();
    lab.swap().unwrap();
    fs::write(lab.table(), line(KEY, &login("AKIAOTHER"))).unwrap();
    let read = lab.read_back();
    assert!(!read.matches && read.proof.is_none());
    assert_eq!(lab.read_back_with(Some("")).code, None);
    assert!(read.mismatches.len() == 1 && read.mismatches[0].contains("gives the login of AKIAOTHER"), "{read:?}");
    assert!(!format!("{read:?}").contains(login("AKIAOTHER").password.expose()));
    assert_eq!(lab.undo().unwrap_err().class, Class::ChangedUnderneath);
    assert_eq!(fs::read_to_string(lab.table()).unwrap(), line(KEY, &login("AKIAOTHER")));
}

#[test]
fn an_entry_that_still_holds_the_previous_key_fails_the_read_back() {
    let lab = Lab::text(&line(KEY, &login("AKIAOLD")));
    lab.prepare(&login("AKIANEW")).unwrap();
    lab.swap().unwrap();
    fs::write(lab.table(), line(KEY, &login("AKIANEW")) + &line("a@b.example", &login("AKIAOLD"))).unwrap();
    let read = lab.read_back();
    assert!(!read.matches && read.mismatches[0].contains("a@b.example"), "{read:?}");
}

#[test]
fn a_caller_that_vanishes_leaves_nothing_staged_and_nothing_locked() {
    let mut lab = Lab::text(&line(KEY, &login("AKIAOLD")));
    lab.prepare(&login("AKIANEW")).unwrap();
    assert_eq!(staged_in(&lab.dir.path().join("etc")).len(), 1);
    lab.restart();
    assert!(staged_in(&lab.dir.path().join("etc")).is_empty());
    lab.prepare(&login("AKIANEW")).unwrap();
    lab.call(Request::Discard { target: lab.id.clone() }).unwrap();
    assert!(staged_in(&lab.dir.path().join("etc")).is_empty());
    Directory::open(&lab.dir.path().join("etc")).unwrap().lock(Duration::ZERO).unwrap();
}

#[test]
fn what_a_killed_run_left_goes_at_the_next_look_and_nothing_else_does() {
    let lab = Lab::text(&line(KEY, &login("AKIAOLD")));
    let etc = lab.dir.path().join("etc");
    for name in [".relaykey.ses.main.0", ".relaykey.ses.main.0.db", ".relaykey.ses.main-2.0", ".relaykey.notes"] {
        fs::write(etc.join(name), "left").unwrap();
    }
    // Another process is at work there: not now.
    let held = Directory::open(&etc).unwrap().lock(Duration::ZERO).unwrap();
    lab.inspect();
    assert_eq!(staged_in(&etc).len(), 4);
    // Prepare waits for it.
    let started = Instant::now();
    let release = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(300));
        drop(held);
    });
    lab.prepare(&login("AKIANEW")).unwrap();
    assert!(started.elapsed() >= Duration::from_millis(250));
    release.join().unwrap();
    lab.call(Request::Discard { target: lab.id.clone() }).unwrap();
    lab.inspect();
    let mut left = staged_in(&etc);
    left.sort();
    assert_eq!(left, [".relaykey.notes", ".relaykey.ses.main-2.0"]);
}

#[test]
fn a_killed_swap_is_found_and_finished() {
    let mut lab = Lab::text(&line(KEY, &login("AKIAOLD")));
    lab.prepare(&login("AKIANEW")).unwrap();
    let at = lab.swap().unwrap();
    lab.restart();
    let seen = lab.inspect();
    assert_eq!(
        (seen.swapped.map(|s| s.id.version), seen.username.as_deref()),
        (Some("v-AKIANEW".into()), Some("AKIANEW"))
    );
    let prepared = lab.prepare(&login("AKIANEW")).unwrap();
    assert!(prepared.nothing_to_write && prepared.swapped_before);
    assert_eq!(lab.swap().unwrap(), at);
    assert!(lab.read_back().matches);
    lab.commit();
    assert_eq!(lab.inspect().swapped, None);
}

#[test]
fn requests_that_do_not_fit_are_errors_that_say_so() {
    let lab = Lab::text(&line(KEY, &login("AKIAOLD")));
    let other = TargetId { credential: "ses".into(), target: "second".into() };
    let e = lab.call(Request::Inspect { target: other, ours: Ours::default() }).unwrap_err();
    assert!(e.class == Class::Config && e.what.contains("\"second\""), "{e:?}");
    for request in [
        Request::Swap { target: lab.id.clone() },
        Request::Undo { target: lab.id.clone() },
        Request::ReadBack { target: lab.id.clone(), prove: None, nonce: None },
    ] {
        assert_eq!(lab.call(request).unwrap_err().class, Class::OutOfOrder);
    }
    // Made without the checks of `Login::new`, as another process could send it.
    for (user, password) in [("a:b", "c"), ("a", "b c"), ("a", ""), ("ü", "x")] {
        let login = Login { username: user.into(), password: Secret::new(password.into()) };
        let e = lab.prepare_expecting(lab.inspect().expect(), &login).unwrap_err();
        assert!(!e.temporary && staged_in(&lab.dir.path().join("etc")).is_empty(), "{e:?}");
    }
}

#[test]
fn a_table_that_cannot_be_replaced_is_a_finding_and_an_error() {
    let lab = Lab::text(&line(KEY, &login("AKIAOLD")));
    fs::hard_link(lab.table(), lab.dir.path().join("etc/other")).unwrap();
    let seen = lab.inspect();
    assert!(seen.findings.iter().any(|f| f.what.contains("2 hard links")), "{:?}", seen.findings);
    let e = lab.prepare(&login("AKIANEW")).unwrap_err();
    assert!(
        e.class == Class::Unsupported && !e.temporary && staged_in(&lab.dir.path().join("etc")).is_empty(),
        "{e:?}"
    );
    fs::remove_file(lab.dir.path().join("etc/other")).unwrap();

    fs::set_permissions(lab.dir.path().join("etc"), fs::Permissions::from_mode(0o775)).unwrap();
    let e = lab.prepare_expecting(None, &login("AKIANEW")).unwrap_err();
    assert!(e.class == Class::Permissions && e.what.contains("0775"), "{e:?}");
}

#[test]
fn a_full_disk_is_temporary_and_changes_nothing() {
    let lab = Lab::text("");
    let etc = lab.dir.path().join("etc");
    let mount =
        Command::new("mount").args(["-t", "tmpfs", "-o", "size=64k,mode=0700", "t"]).arg(&etc).status().unwrap();
    assert!(mount.success(), "this test needs the right to mount");
    let text = format!("{}{}", line(KEY, &login("AKIAOLD")), "# filler\n".repeat(4500));
    fs::write(lab.table(), &text).unwrap();
    let result = lab.prepare(&login("AKIANEW"));
    let after = (fs::read_to_string(lab.table()).unwrap(), staged_in(&etc));
    Command::new("umount").arg(&etc).status().unwrap();
    let e = result.unwrap_err();
    assert!(e.temporary && e.class == Class::NoSpace, "{e:?}");
    assert_eq!(after, (text, vec![]));
}

#[test]
fn two_targets_in_one_directory_do_not_lock_each_other_out() {
    let mut lab = Lab::text(&line(KEY, &login("AKIAOLD")));
    let second = lab.dir.path().join("etc/second");
    fs::write(&second, line(KEY, &login("AKIAOLD"))).unwrap();
    let mut target = lab.config.credentials[0].targets[0].clone();
    (target.name, target.kind) = ("second".into(), TargetKind::Text { path: second.clone() });
    lab.config.credentials[0].targets.push(target);
    lab.restart();
    let started = Instant::now();
    for target in ["main", "second"] {
        lab.id.target = target.into();
        lab.prepare(&login("AKIANEW")).unwrap();
    }
    for target in ["second", "main"] {
        lab.id.target = target.into();
        lab.swap().unwrap();
        assert!(lab.read_back().matches);
        lab.commit();
    }
    assert!(started.elapsed() < Duration::from_secs(10));
    assert_eq!(fs::read(&second).unwrap(), fs::read(lab.table()).unwrap());
}

#[test]
fn what_another_target_of_one_table_has_just_put_there_is_expected() {
    let mut lab = Lab::text(&line(KEY, &login("AKIAOLD")));
    let mut target = lab.config.credentials[0].targets[0].clone();
    target.name = "second".into();
    lab.config.credentials[0].targets.push(target);
    lab.restart();
    let new = login("AKIANEW");
    let expect = lab.inspect().expect();
    lab.prepare(&new).unwrap();
    lab.swap().unwrap();
    lab.id.target = "second".into();
    // It was looked at before the first one renamed.
    let prepared = lab.prepare_expecting(expect, &new).unwrap();
    assert!(prepared.nothing_to_write, "{prepared:?}");
    lab.swap().unwrap();
    assert!(lab.read_back().matches);
    lab.commit();
}

/// A mail server that does not run reads what is there when it is started: nothing is owed to it where nothing was swapped.
#[test]
fn where_nothing_was_swapped_no_reload_is_owed_to_a_mail_server_that_does_not_run() {
    for (kind, write) in [("texthash", true), ("texthash", false), ("hash", true), ("hash", false)] {
        for reload in [Reload::Always, Reload::IfNeeded, Reload::Never] {
            let there = login("AKIATHERE");
            let instance = instance(kind, Some(&line(KEY, &there)));
            let mut lab = Lab::on(&instance, reload.clone());
            lab.config.credentials[0].targets[0].write = write;
            lab.restart();
            assert!(lab.prepare(&there).unwrap().nothing_to_write);
            lab.swap().unwrap();
            let activated = lab.activate();
            assert!(matches!(activated, Activated::Yes { .. }), "{kind}, {write}, {reload:?}: {activated:?}");
            assert_eq!(lab.read_back().running, Running::No);
            assert_eq!(lab.inspect().reload_owed, None, "{kind}, {write}, {reload:?}");
        }
    }
}

// -- Postfix ----------------------------------------------------------------------------------------------------------

fn instance(map_type: &str, table: Option<&str>) -> postfix::Instance {
    postfix::Instance::new(&postfix::Options { map_type, relayhost: KEY, ca_pem: None, table, settings: &[] })
}

/// What `postmap -q` finds, as Postfix would.
fn query(instance: &postfix::Instance, key: &str) -> String {
    let table = format!("{}:{}", instance.map_type, instance.table().display());
    let out = Command::new("postmap").arg("-c").arg(&instance.config_dir).args(["-q", key, &table]).output().unwrap();
    String::from_utf8(out.stdout).unwrap().trim().to_owned()
}

fn value(login: &Login) -> String {
    format!("{}:{}", login.username, login.password.expose())
}

#[test]
fn text_and_map_are_swapped_and_put_back_for_every_kind() {
    for kind in ["hash", "btree", "lmdb", "cdb"] {
        let (old, new) = (login("AKIAOLD"), login("AKIANEW"));
        let instance = instance(kind, Some(&(line(KEY, &old) + "[other.example]:25 joe:pw\n")));
        let lab = Lab::on(&instance, Reload::IfNeeded);
        // The map's owner and mode are its own.
        chown(instance.map(), Some(1234), Some(4321)).unwrap();
        fs::set_permissions(instance.map(), fs::Permissions::from_mode(0o640)).unwrap();
        let rights = |path: &Path| {
            let m = fs::metadata(path).unwrap();
            (m.uid(), m.gid(), m.mode() & 0o7777)
        };
        let before = (fs::read(instance.table()).unwrap(), fs::read(instance.map()).unwrap());
        lab.prepare(&new).unwrap();
        assert_eq!(query(&instance, KEY), value(&old), "{kind}");
        lab.swap().unwrap();
        assert_eq!((query(&instance, KEY), query(&instance, "[other.example]:25")), (value(&new), "joe:pw".into()));
        assert_eq!(rights(&instance.map()), (1234, 4321, 0o640), "{kind}");
        assert_eq!(rights(&instance.table()), (0, 0, 0o600), "{kind}");
        assert_eq!(lab.activate(), Activated::Yes { how: "not-running" });
        let read = lab.read_back();
        assert!(read.matches && read.how == "postmap -q" && read.running == Running::No, "{read:?}");
        lab.undo().unwrap();
        assert_eq!((fs::read(instance.table()).unwrap(), fs::read(instance.map()).unwrap()), before, "{kind}");
        assert_eq!(rights(&instance.map()), (1234, 4321, 0o640), "{kind}");
        assert!(staged_in(&instance.config_dir).is_empty(), "{kind}");
    }
}

#[test]
fn a_new_map_gets_the_rights_of_its_text() {
    let instance = instance("hash", Some(&line(KEY, &login("AKIAOLD"))));
    fs::remove_file(instance.map()).unwrap();
    chown(instance.table(), Some(0), Some(4321)).unwrap();
    fs::set_permissions(instance.table(), fs::Permissions::from_mode(0o640)).unwrap();
    let lab = Lab::on(&instance, Reload::IfNeeded);
    lab.prepare(&login("AKIANEW")).unwrap();
    lab.swap().unwrap();
    let m = fs::metadata(instance.map()).unwrap();
    assert_eq!((m.uid(), m.gid(), m.mode() & 0o7777), (0, 4321, 0o640));
    assert!(lab.read_back().matches);
}

#[test]
fn a_table_that_is_missing_is_made_closed() {
    let instance = instance("hash", None);
    let lab = Lab::on(&instance, Reload::IfNeeded);
    lab.prepare(&login("AKIANEW")).unwrap();
    lab.swap().unwrap();
    for file in [instance.table(), instance.map()] {
        let m = fs::metadata(&file).unwrap();
        assert_eq!((m.uid(), m.gid(), m.mode() & 0o7777), (0, 0, 0o600), "{}", file.display());
    }
    assert!(lab.read_back().matches);
    lab.undo().unwrap();
    assert!(!instance.table().exists() && !instance.map().exists());
}

#[test]
fn a_new_text_with_an_old_map_is_finished_without_touching_the_text() {
    let (old, new) = (login("AKIAOLD"), login("AKIANEW"));
    let instance = instance("hash", Some(&line(KEY, &old)));
    instance.write_table(&line(KEY, &new));
    let lab = Lab::on(&instance, Reload::IfNeeded);
    let before = fs::metadata(instance.table()).unwrap();
    assert_eq!(lab.inspect().username.as_deref(), Some("AKIAOLD"), "the map counts");
    let prepared = lab.prepare(&new).unwrap();
    assert!(!prepared.nothing_to_write);
    assert_eq!(staged_in(&instance.config_dir), [".relaykey.ses.main.0.db"], "the copy for the compiler is gone");
    lab.swap().unwrap();
    assert!(lab.read_back().matches);
    let after = fs::metadata(instance.table()).unwrap();
    assert_eq!((after.ino(), after.mtime_nsec()), (before.ino(), before.mtime_nsec()));
}

#[test]
fn a_text_behind_a_symbolic_link_has_its_map_beside_the_link() {
    let (old, new) = (login("AKIAOLD"), login("AKIANEW"));
    let instance = instance("hash", Some(&line(KEY, &old)));
    let secrets = instance.base.join("secrets");
    fs::create_dir(&secrets).unwrap();
    fs::set_permissions(&secrets, fs::Permissions::from_mode(0o700)).unwrap();
    fs::rename(instance.table(), secrets.join("passwords")).unwrap();
    symlink(secrets.join("passwords"), instance.table()).unwrap();
    let lab = Lab::on(&instance, Reload::IfNeeded);
    lab.prepare(&new).unwrap();
    lab.swap().unwrap();
    assert_eq!(query(&instance, KEY), value(&new));
    assert!(fs::symlink_metadata(instance.table()).unwrap().is_symlink() && lab.read_back().matches);
    assert_eq!(fs::read_to_string(secrets.join("passwords")).unwrap(), line(KEY, &new));
    assert!(staged_in(&instance.config_dir).is_empty() && staged_in(&secrets).is_empty());
    assert!(!secrets.join("passwords.db").exists());
    lab.undo().unwrap();
    assert_eq!(query(&instance, KEY), value(&old));
}

/// Puts a program of ours before `postmap`, which does what `script` says; `$REAL` is the real one.
fn with_postmap(instance: &postfix::Instance, script: &str) {
    let bin = instance.base.join("bin");
    fs::create_dir(&bin).unwrap();
    for entry in fs::read_dir("/usr/sbin").unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        if name.starts_with("post") && name != "postmap" {
            symlink(&path, bin.join(name)).unwrap();
        }
    }
    fs::write(bin.join("postmap"), format!("#!/bin/sh\nREAL=/usr/sbin/postmap\n{script}\n")).unwrap();
    fs::set_permissions(bin.join("postmap"), fs::Permissions::from_mode(0o755)).unwrap();
    instance.set("command_directory", bin.to_str().unwrap());
}

#[test]
fn a_map_without_the_key_never_goes_live() {
    let instance = instance("hash", Some(&line(KEY, &login("AKIAOLD"))));
    // As if the compiler lost every entry: nobody gets an error until mail bounces.
    with_postmap(
        &instance,
        r#"case "$*" in *" -q "*|*" -s "*) exec $REAL "$@";; esac
        for last; do :; done
keep=${0%/*}/keep
        cp "${last#hash:}" "$keep" && : >"${last#hash:}" && $REAL "$@"
        cat "$keep" >"${last#hash:}""#,
    );
    let lab = Lab::on(&instance, Reload::IfNeeded);
    let before = snapshot(&instance.config_dir);
    let e = lab.prepare(&login("AKIANEW")).unwrap_err();
    assert!(e.class == Class::Mismatch && !e.temporary && e.what.contains("gives nothing"), "{e:?}");
    let after = snapshot(&instance.config_dir);
    // The directory itself has seen names come and go.
    assert_eq!(after[1..], before[1..]);
    assert!(staged_in(&instance.config_dir).is_empty());
}

/// `postmap` run as root becomes the owner of the table that it reads: were that not us, the table's owner could meddle.
#[test]
fn staged_files_are_ours_and_closed_until_they_are_compiled() {
    let instance = instance("hash", Some(&line(KEY, &login("AKIAOLD"))));
    for file in [instance.table(), instance.map()] {
        chown(&file, Some(1234), Some(4321)).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
    }
    let log = instance.base.join("rights");
    with_postmap(
        &instance,
        &format!(
            r#"case "$*" in *relaykey.*) for last; do :; done; stat -c %u:%g:%a "${{last#hash:}}"* >>{};; esac
            exec $REAL "$@""#,
            log.display()
        ),
    );
    let lab = Lab::on(&instance, Reload::IfNeeded);
    lab.prepare(&login("AKIANEW")).unwrap();
    // The compiler saw the text, the look-up text and map, and so did the listing.
    assert_eq!(fs::read_to_string(&log).unwrap(), "0:0:600\n".repeat(5));
    lab.swap().unwrap();
    for file in [instance.table(), instance.map()] {
        let m = fs::metadata(&file).unwrap();
        assert_eq!((m.uid(), m.gid(), m.mode() & 0o7777), (1234, 4321, 0o644));
    }
}

#[test]
fn a_compiler_that_fails_half_way_leaves_nothing() {
    let instance = instance("hash", Some(&line(KEY, &login("AKIAOLD"))));
    with_postmap(
        &instance,
        r#"case "$*" in *" -q "*|*" -s "*) exec $REAL "$@";; esac
        for last; do :; done
        echo half >"${last#hash:}.db"; echo tmp >"${last#hash:}.db.tmp"
        echo "postmap: fatal: write error: No space left on device" >&2; exit 1"#,
    );
    let lab = Lab::on(&instance, Reload::IfNeeded);
    let before = snapshot(&instance.config_dir);
    let e = lab.prepare(&login("AKIANEW")).unwrap_err();
    assert_eq!(e.class, Class::Command, "{e:?}");
    assert_eq!(snapshot(&instance.config_dir)[1..], before[1..]);
}

#[test]
fn a_reload_that_cannot_be_done_is_owed_and_shown_until_it_is() {
    let instance = instance("hash", Some(&line(KEY, &login("AKIAOLD"))));
    let mut lab = Lab::on(&instance, Reload::Always);
    lab.prepare(&login("AKIANEW")).unwrap();
    lab.swap().unwrap();
    // Killed before it was tried: owed all the same.
    lab.restart();
    assert!(lab.inspect().reload_owed.is_some());
    let Activated::Owed { why, temporary: true, .. } = lab.activate() else { panic!() };
    assert!(why.contains("not running"), "{why}");
    lab.prepare(&login("AKIANEW")).unwrap();
    lab.swap().unwrap();
    assert!(lab.read_back().matches);
    lab.commit();
    let owed = lab.inspect().reload_owed.expect("still owed after the commit");
    assert!(owed.why.contains("not running"));
    assert_eq!(lab.inspect().swapped, None);

    instance.start();
    assert!(matches!(lab.inspect().running, Running::Yes { .. }));
    assert!(matches!(lab.activate(), Activated::Yes { .. }));
    assert_eq!(lab.inspect().reload_owed, None);
    assert!(!lab.journal().contains("AKIANEW"));
}

#[test]
fn a_start_after_the_swap_settles_the_reload() {
    let instance = instance("texthash", Some(&line(KEY, &login("AKIAOLD"))));
    instance.start();
    let lab = Lab::on(&instance, Reload::Never);
    let prepared = lab.prepare(&login("AKIANEW")).unwrap();
    assert!(prepared.reload_needed);
    let at = lab.swap().unwrap();
    let Activated::Owed { why, temporary: false, .. } = lab.activate() else { panic!() };
    assert!(why.contains("never"), "{why}");
    lab.read_back();
    lab.commit();
    assert!(lab.inspect().reload_owed.is_some());
    instance.stop();
    assert!(lab.inspect().reload_owed.is_some());
    // Start times are whole seconds, and doubt counts as before.
    postfix::wait_for("a start that is surely later", Duration::from_secs(10), || {
        (relaykey::host::boot_seconds() > at + 3).then_some(())
    });
    instance.start();
    assert_eq!(lab.inspect().reload_owed, None);
    assert!(!lab.journal().contains("AKIANEW"));
}

#[test]
fn a_running_instance_is_reloaded_as_configured() {
    let reloads = |instance: &postfix::Instance| instance.log().matches("reload -- version").count();
    let instance = instance("hash", Some(&line(KEY, &login("AKIAOLD"))));
    instance.start();
    let marker = instance.base.join("reloaded");
    let line = format!("touch {}; postfix -c {} reload", marker.display(), instance.config_dir.display());
    let command = Reload::Command(vec!["/bin/sh".into(), "-c".into(), line]);
    let mut lab = Lab::on(&instance, Reload::Always);
    for (n, (reload, how, expected)) in
        [(Reload::Always, "reload", 1), (Reload::IfNeeded, "indexed-map", 1), (command, "command", 2)]
            .into_iter()
            .enumerate()
    {
        lab.config.credentials[0].targets[0].reload = reload;
        lab.restart();
        lab.prepare(&login(&format!("AKIANEW{n}"))).unwrap();
        lab.swap().unwrap();
        assert_eq!(lab.activate(), Activated::Yes { how });
        assert!(lab.read_back().matches);
        lab.commit();
        postfix::wait_for("the reload in the log", Duration::from_secs(10), || {
            (reloads(&instance) == expected).then_some(())
        });
    }
    assert!(marker.exists());
}

/// Without that, a host that was changed by hand would be confirmed while it still runs on the old login.
#[test]
fn an_adopted_text_that_postfix_has_not_read_since_is_reloaded() {
    let instance = instance("texthash", Some(&line(KEY, &login("AKIAOLD"))));
    instance.start();
    instance.write_table(&line(KEY, &login("AKIANEW")));
    let mut lab = Lab::on(&instance, Reload::IfNeeded);
    let prepared = lab.prepare(&login("AKIANEW")).unwrap();
    assert!(prepared.nothing_to_write);
    lab.swap().unwrap();
    assert_eq!(lab.activate(), Activated::Yes { how: "reload" });
    assert_eq!(lab.activate(), Activated::Yes { how: "reload" }, "once is enough");
    lab.commit();
    // Nor is it needed in another run, as long as nothing changes.
    lab.restart();
    lab.prepare(&login("AKIANEW")).unwrap();
    lab.swap().unwrap();
    assert_eq!(lab.activate(), Activated::Yes { how: "read-before" });
    let reloads = || instance.log().matches("reload -- version").count();
    postfix::wait_for("the reload in the log", Duration::from_secs(10), || (reloads() > 0).then_some(()));
    assert_eq!(reloads(), 1);
}

/// Waits until a start is beyond doubt later than what was seen so far: start times are known in whole seconds.
fn let_a_start_be_later() {
    let second = relaykey::host::boot_seconds;
    let before = second();
    postfix::wait_for("a later start", Duration::from_secs(10), || (second() > before + 3).then_some(()));
}

/// The wall clock may have been set since the file was changed, or be another one now: that the mail server was started after
/// a change is known of what was seen before that start, and of nothing else.
#[test]
fn what_time_stamps_say_of_a_start_is_not_believed() {
    for kind in ["hash", "texthash"] {
        let new = login("AKIANEW");
        let instance = instance(kind, Some(&line(KEY, &new)));
        let_a_start_be_later();
        instance.start();
        let mut lab = Lab::on(&instance, Reload::Never);
        let confirm = |lab: &Lab| {
            lab.prepare(&new).unwrap();
            lab.swap().unwrap();
            let activated = lab.activate();
            lab.commit();
            activated
        };
        for _ in 0..2 {
            let activated = confirm(&lab);
            assert!(matches!(activated, Activated::Owed { temporary: false, .. }), "{kind}: {activated:?}");
            lab.restart();
        }
        instance.stop();
        let_a_start_be_later();
        instance.start();
        assert_eq!(confirm(&lab), Activated::Yes { how: "started-after" }, "{kind}");
        lab.restart();
        assert_eq!(confirm(&lab), Activated::Yes { how: "read-before" }, "{kind}");
        // Written anew with the same content, it is not what was seen.
        instance.write_table(&line(KEY, &new));
        assert!(matches!(confirm(&lab), Activated::Owed { .. }), "{kind}");
    }
}

/// One confirmation of a login: what was staged, and how the mail server noticed.
fn confirmed(lab: &Lab, login: &Login) -> (Prepared, Activated) {
    let prepared = lab.prepare(login).unwrap_or_else(|e| panic!("{e:?}"));
    lab.swap().unwrap();
    let activated = lab.activate();
    assert!(lab.read_back().matches);
    lab.commit();
    (prepared, activated)
}

/// A running smtp(8) goes on with the file that it has open for as long as that has a name.
fn move_aside(instance: &postfix::Instance) -> PathBuf {
    let aside = instance.map().with_extension("bak");
    fs::rename(instance.map(), &aside).unwrap();
    aside
}

#[test]
fn a_map_put_in_place_of_one_that_was_moved_aside_is_reloaded() {
    for (kind, reload) in [
        ("hash", Reload::IfNeeded),
        ("btree", Reload::Always),
        ("lmdb", Reload::Always),
        ("lmdb", Reload::Never),
        ("cdb", Reload::IfNeeded),
        ("cdb", Reload::Never),
    ] {
        let (old, new) = (login("AKIAOLD"), login("AKIANEW"));
        let instance = instance(kind, Some(&line(KEY, &old)));
        instance.start();
        let lab = Lab::on(&instance, reload.clone());
        confirmed(&lab, &old);
        move_aside(&instance);
        instance.write_table(&line(KEY, &new));
        instance.postmap();
        let (prepared, activated) = confirmed(&lab, &new);
        assert!(prepared.nothing_to_write, "{kind}");
        if reload == Reload::Never {
            assert!(matches!(activated, Activated::Owed { temporary: false, .. }), "{kind}: {activated:?}");
        } else {
            assert_eq!(activated, Activated::Yes { how: "reload" }, "{kind}, {reload:?}");
            assert_eq!(confirmed(&lab, &new).1, Activated::Yes { how: "read-before" }, "{kind}, {reload:?}");
        }
    }
}

/// Our rename is noticed by whoever has the file open that it went over, and by nobody else.
#[test]
fn a_rename_counts_over_a_file_that_is_known_as_read_alone() {
    let logins: Vec<Login> = (0..5).map(|n| login(&format!("AKIA{n}"))).collect();
    for kind in ["hash", "btree", "lmdb", "cdb"] {
        let instance = instance(kind, Some(&line(KEY, &logins[0])));
        instance.start();
        let mut lab = Lab::on(&instance, Reload::IfNeeded);
        // Of what was there before anything was seen, nothing is known.
        assert_eq!(confirmed(&lab, &logins[1]).1, Activated::Yes { how: "reload" }, "{kind}");
        for login in &logins[2..4] {
            lab.restart();
            assert_eq!(confirmed(&lab, login).1, Activated::Yes { how: "indexed-map" }, "{kind}");
        }
        // What is put back goes over what went over that.
        lab.prepare(&logins[4]).unwrap();
        lab.swap().unwrap();
        assert_eq!(lab.activate(), Activated::Yes { how: "indexed-map" }, "{kind}");
        lab.undo().unwrap();
        assert_eq!(confirmed(&lab, &logins[2]).1, Activated::Yes { how: "indexed-map" }, "{kind}");
        let aside = move_aside(&instance);
        paste(&format!("cp -p {} {}", aside.display(), instance.map().display()));
        assert_eq!(confirmed(&lab, &logins[3]).1, Activated::Yes { how: "reload" }, "{kind}");
        fs::remove_file(&aside).unwrap();
        // Which a target that is never reloaded owes.
        lab.config.credentials[0].targets[0].reload = Reload::Never;
        lab.restart();
        assert_eq!(confirmed(&lab, &logins[4]).1, Activated::Yes { how: "indexed-map" }, "{kind}");
        let aside = move_aside(&instance);
        paste(&format!("cp -p {} {}", aside.display(), instance.map().display()));
        let activated = confirmed(&lab, &logins[0]).1;
        assert!(matches!(activated, Activated::Owed { temporary: false, .. }), "{kind}: {activated:?}");
    }
}

/// What was read is known of one mail server and its configuration: not of another one that has the same table, and not
/// after a change that leads to another table, or to another service.
#[test]
fn what_was_read_is_known_of_one_mail_server_as_it_was_configured() {
    for kind in ["texthash", "hash", "lmdb"] {
        let new = login("AKIANEW");
        let [one, other] = [(); 2].map(|()| instance(kind, Some(&line(KEY, &new))));
        other.set("smtp_sasl_password_maps", &format!("{kind}:{}", one.table().display()));
        one.start();
        other.start();
        let mut lab = Lab::on(&one, Reload::IfNeeded);
        let read_before = Activated::Yes { how: "read-before" };
        let reload = Activated::Yes { how: "reload" };
        assert_eq!(confirmed(&lab, &new).1, reload, "{kind}");
        assert_eq!(confirmed(&lab, &new).1, read_before, "{kind}");
        lab.config.credentials[0].targets[0].kind = TargetKind::Postfix { config_dir: other.config_dir.clone() };
        lab.restart();
        assert_eq!(confirmed(&lab, &new).1, reload, "{kind}: another mail server");
        assert_eq!(confirmed(&lab, &new).1, read_before, "{kind}");
        other.set("smtp_helo_timeout", "100s");
        assert_eq!(confirmed(&lab, &new).1, reload, "{kind}: main.cf");
        let master_cf = other.config_dir.join("master.cf");
        let text = fs::read_to_string(&master_cf).unwrap();
        fs::write(&master_cf, text + "# end\n").unwrap();
        assert_eq!(confirmed(&lab, &new).1, reload, "{kind}: master.cf");
        assert_eq!(confirmed(&lab, &new).1, read_before, "{kind}");
    }
}

#[test]
fn two_targets_of_one_mail_server_need_one_reload() {
    let logins: Vec<Login> = (0..3).map(|n| login(&format!("AKIA{n}"))).collect();
    let instance = instance("hash", Some(&line(KEY, &logins[0])));
    instance.start();
    let mut lab = Lab::on(&instance, Reload::IfNeeded);
    let second = config::Target { name: "second".into(), ..lab.config.credentials[0].targets[0].clone() };
    lab.config.credentials[0].targets.push(second);
    lab.restart();
    for (target, login, how) in [
        ("main", 0, "reload"),
        ("second", 0, "read-before"),
        ("second", 1, "indexed-map"),
        ("main", 1, "read-before"),
        ("main", 2, "indexed-map"),
    ] {
        lab.id.target = target.into();
        assert_eq!(confirmed(&lab, &logins[login]).1, Activated::Yes { how }, "{target}, {login}");
    }
}

/// As relaykey 0.1.0 remembered it: it does not say of which mail server.
#[test]
fn what_was_seen_before_an_upgrade_costs_one_more_reload() {
    let new = login("AKIANEW");
    let instance = instance("hash", Some(&line(KEY, &new)));
    instance.start();
    let mut lab = Lab::on(&instance, Reload::IfNeeded);
    assert_eq!(confirmed(&lab, &new).1, Activated::Yes { how: "reload" });
    let path = lab.dir.path().join("state/apply/seen.json");
    let mut seen: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    let target = seen["targets"]["ses/main"].as_object_mut().unwrap();
    assert_eq!(target["read"], true);
    target.remove("instance");
    target["at"].as_object_mut().unwrap().remove("time_namespace");
    fs::write(&path, seen.to_string()).unwrap();
    lab.restart();
    for how in ["reload", "read-before"] {
        assert_eq!(confirmed(&lab, &new).1, Activated::Yes { how });
    }
}

/// What is mounted somewhere, until it is dropped.
struct Mounted(PathBuf);

impl Mounted {
    fn new(options: &str, at: &Path) -> Self {
        paste(&format!("mount {options} {}", at.display()));
        Self(at.to_owned())
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

/// On overlayfs, over a file of the lower layer (a container's image), whoever has the old file open sees that it still has a
/// name: smtp(8) goes on with it.
#[test]
fn a_rename_after_which_the_old_file_keeps_its_name_for_others_is_not_taken_for_noticed() {
    let logins: Vec<Login> = (0..3).map(|n| login(&format!("AKIA{n}"))).collect();
    for last in [Reload::IfNeeded, Reload::Never] {
        let instance = instance("hash", Some(&line(KEY, &logins[0])));
        let [lower, upper, work] = ["lower", "upper", "work"].map(|name| instance.base.join(name));
        fs::rename(&instance.config_dir, &lower).unwrap();
        for directory in [&upper, &work, &instance.config_dir] {
            fs::create_dir(directory).unwrap();
            fs::set_permissions(directory, fs::Permissions::from_mode(0o755)).unwrap();
        }
        let layers = format!("lowerdir={},upperdir={},workdir={}", lower.display(), upper.display(), work.display());
        let _mounted = Mounted::new(&format!("-t overlay overlay -o {layers}"), &instance.config_dir);
        instance.start();
        let mut lab = Lab::on(&instance, Reload::IfNeeded);
        assert_eq!(confirmed(&lab, &logins[0]).1, Activated::Yes { how: "reload" });
        assert_eq!(confirmed(&lab, &logins[0]).1, Activated::Yes { how: "read-before" });
        lab.config.credentials[0].targets[0].reload = last.clone();
        lab.restart();
        let activated = confirmed(&lab, &logins[1]).1;
        if last == Reload::Never {
            assert!(matches!(activated, Activated::Owed { temporary: false, .. }), "{activated:?}");
        } else {
            assert_eq!(activated, Activated::Yes { how: "reload" });
            // What lies in the upper layer is gone when it is renamed over.
            assert_eq!(confirmed(&lab, &logins[2]).1, Activated::Yes { how: "indexed-map" });
            lab.prepare(&logins[1]).unwrap();
            lab.swap().unwrap();
            lab.undo().unwrap();
            assert_eq!(confirmed(&lab, &logins[2]).1, Activated::Yes { how: "read-before" });
        }
        instance.stop();
    }
}

/// An instance whose table is `base/sasl/sasl_passwd`, with `sasl` a link to `sasl.a`; in `sasl.b` lies another login.
fn behind_a_link(kind: &str, new: &Login, old: &Login) -> (postfix::Instance, PathBuf) {
    let instance = instance(kind, Some(&line(KEY, new)));
    let [link, a, b] = ["sasl", "sasl.a", "sasl.b"].map(|name| instance.base.join(name));
    for (directory, login) in [(&a, new), (&b, old)] {
        instance.write_table(&line(KEY, login));
        instance.postmap();
        fs::create_dir(directory).unwrap();
        fs::set_permissions(directory, fs::Permissions::from_mode(0o755)).unwrap();
        for file in [instance.table(), instance.map()] {
            let _ = fs::rename(&file, directory.join(file.file_name().unwrap()));
        }
    }
    symlink(&a, &link).unwrap();
    instance.set("smtp_sasl_password_maps", &format!("{kind}:{}", link.join("sasl_passwd").display()));
    (instance, link)
}

fn lead_to(link: &Path, directory: &str) {
    fs::remove_file(link).unwrap();
    symlink(link.with_file_name(directory), link).unwrap();
}

/// A look that saw other files: those from before may be back, and the mail server may have read what was there meanwhile. It
/// is remembered whoever looked, and of whichever target, also where nothing on the way to the files tells of it.
#[test]
fn a_look_at_other_files_forgets_what_was_read() {
    let (old, new) = (login("AKIAOLD"), login("AKIANEW"));
    for kind in ["hash", "texthash", "lmdb"] {
        let (instance, link) = behind_a_link(kind, &new, &old);
        let [a, b] = ["sasl.a", "sasl.b"].map(|name| link.with_file_name(name));
        instance.start();
        let mut lab = Lab::on(&instance, Reload::IfNeeded);
        let second = config::Target { name: "second".into(), ..lab.config.credentials[0].targets[0].clone() };
        lab.config.credentials[0].targets.push(second);
        lab.restart();
        let [reload, read_before] = ["reload", "read-before"].map(|how| Activated::Yes { how });
        assert_eq!(confirmed(&lab, &new).1, reload, "{kind}");
        for (looks_as, elsewhere) in [("main", false), ("second", false), ("main", true), ("second", true)] {
            assert_eq!(confirmed(&lab, &new).1, read_before, "{kind}");
            lab.id.target = "second".into();
            assert_eq!(confirmed(&lab, &new).1, read_before, "{kind}");
            {
                let _mounted = Mounted::new(&format!("--bind {}", b.display()), &a);
                // Another process, or this one.
                let client = lab.client.clone();
                if elsewhere {
                    lab.restart();
                }
                lab.id.target = looks_as.into();
                assert!(!lab.inspect().entries.is_empty());
                lab.client = client;
            }
            lab.id.target = "main".into();
            assert_eq!(confirmed(&lab, &new).1, reload, "{kind}: {looks_as} looked, elsewhere: {elsewhere}");
        }
    }
}

/// What no look saw shows by the way to the files.
#[test]
fn what_was_elsewhere_between_two_looks_counts_as_unread() {
    let (old, new) = (login("AKIAOLD"), login("AKIANEW"));
    for (kind, reload) in [("hash", Reload::IfNeeded), ("lmdb", Reload::Never)] {
        let (instance, link) = behind_a_link(kind, &new, &old);
        instance.start();
        let mut lab = Lab::on(&instance, Reload::IfNeeded);
        let [a, b] = ["sasl.a", "sasl.b"].map(|name| link.with_file_name(name));
        let config_dir = instance.config_dir.clone();
        let move_and_back = |directory: &Path, more: bool| {
            let aside = directory.with_extension("aside");
            fs::rename(directory, &aside).unwrap();
            fs::rename(&aside, directory).unwrap();
            if more {
                fs::write(directory.join("more"), "x").unwrap();
            }
        };
        assert_eq!(confirmed(&lab, &new).1, Activated::Yes { how: "reload" }, "{kind}");
        // What comes and goes beside the files tells nothing of them.
        fs::write(a.join("other"), "x").unwrap();
        fs::write(config_dir.join("transport"), "x").unwrap();
        assert_eq!(confirmed(&lab, &new).1, Activated::Yes { how: "read-before" }, "{kind}");
        let flips: [(&str, &dyn Fn()); 5] = [
            ("the link", &|| ["sasl.b", "sasl.a"].iter().for_each(|directory| lead_to(&link, directory))),
            ("the table's directory", &|| move_and_back(&a, false)),
            ("the table's directory, and a file in it", &|| move_and_back(&a, true)),
            ("the configuration", &|| move_and_back(&config_dir, false)),
            ("the configuration, and a file in it", &|| move_and_back(&config_dir, true)),
        ];
        for (what, flip) in flips {
            flip();
            lab.config.credentials[0].targets[0].reload = reload.clone();
            lab.restart();
            let activated = confirmed(&lab, &new).1;
            if reload == Reload::Never {
                assert!(matches!(activated, Activated::Owed { temporary: false, .. }), "{kind}, {what}: {activated:?}");
                lab.config.credentials[0].targets[0].reload = Reload::Always;
                lab.restart();
                assert_eq!(confirmed(&lab, &new).1, Activated::Yes { how: "reload" }, "{kind}, {what}");
            } else {
                assert_eq!(activated, Activated::Yes { how: "reload" }, "{kind}, {what}");
            }
            assert_eq!(confirmed(&lab, &new).1, Activated::Yes { how: "read-before" }, "{kind}, {what}");
        }
        assert!(b.exists());
    }
}

#[test]
fn what_was_read_is_forgotten_with_its_target() {
    let new = login("AKIANEW");
    let instance = instance("hash", Some(&line(KEY, &new)));
    instance.start();
    let mut lab = Lab::on(&instance, Reload::IfNeeded);
    assert_eq!(confirmed(&lab, &new).1, Activated::Yes { how: "reload" });
    for (name, seen) in [("other", "reload"), ("main", "reload")] {
        lab.config.credentials[0].targets[0].name = name.into();
        lab.id.target = name.into();
        lab.restart();
        lab.inspect();
        assert_eq!(confirmed(&lab, &new).1, Activated::Yes { how: seen }, "{name}");
        let remembered: serde_json::Value =
            serde_json::from_slice(&fs::read(lab.dir.path().join("state/apply/seen.json")).unwrap()).unwrap();
        let names: Vec<_> = remembered["targets"].as_object().unwrap().keys().cloned().collect();
        assert_eq!(names, [format!("ses/{name}")]);
    }
}

/// A master process may have our queue and not our files: then what stands in ours is not what it uses.
#[test]
fn a_mail_server_that_does_not_use_our_files_is_never_taken_for_ours() {
    let (old, new) = (login("AKIAOLD"), login("AKIANEW"));
    let refused = |lab: &Lab| {
        let planned = lab.prepare_expecting(None, &new).unwrap_err();
        let e = lab.call(Request::Inspect { target: lab.id.clone(), ours: Ours::default() }).unwrap_err();
        assert!(!e.temporary && e.class == Class::Config, "{e:?}");
        assert_eq!(planned, e);
        e
    };
    // Started with a copy of the configuration directory.
    let instance = instance("hash", Some(&line(KEY, &old)));
    let copy = instance.base.join("etc2");
    paste(&format!("cp -a {} {}", instance.config_dir.display(), copy.display()));
    paste(&format!("/usr/sbin/postfix -c {} start", copy.display()));
    postfix::wait_for("the master process", Duration::from_secs(15), || instance.master());
    let lab = Lab::on(&instance, Reload::Always);
    let e = refused(&lab);
    for directory in [&copy, &instance.config_dir] {
        assert!(e.what.contains(&format!(" {}", directory.display())), "{e:?}");
    }
    assert!(e.what.contains("was not started with"), "{e:?}");
    // As the fix says.
    let commands = e.fix.split_once(": ").unwrap().1;
    paste(commands);
    postfix::wait_for("the master process", Duration::from_secs(15), || instance.master());
    assert_eq!(confirmed(&lab, &new).1, Activated::Yes { how: "reload" });
    instance.stop();

    // With other files in that place: of the configuration, or of a table that lies elsewhere.
    let (instance, link) = behind_a_link("hash", &new, &old);
    let [a, b] = ["sasl.a", "sasl.b"].map(|name| link.with_file_name(name));
    let copy = instance.base.join("etc2");
    paste(&format!("cp -a {} {}", instance.config_dir.display(), copy.display()));
    for (from, to) in [(&copy, &instance.config_dir), (&b, &a)] {
        paste(&format!(
            "unshare -m sh -ec 'mount --make-rprivate /; mount --bind {} {}; postfix -c {} start'",
            from.display(),
            to.display(),
            instance.config_dir.display()
        ));
        postfix::wait_for("the master process", Duration::from_secs(15), || instance.master());
        let lab = Lab::on(&instance, Reload::Always);
        let e = refused(&lab);
        let file = e.file.clone().unwrap();
        assert!(e.what.contains(&format!(" {}", instance.config_dir.display())), "{e:?}");
        assert!(e.what.contains("in a container, or behind a mount") && e.fix.contains("ls -lid"), "{e:?}");
        assert!(file.starts_with(to) || file.starts_with(&link), "{e:?}");
        paste(e.fix.split_once(": ").unwrap().1);
        instance.stop();
    }
    instance.start();
    let lab = Lab::on(&instance, Reload::Always);
    assert_eq!(confirmed(&lab, &new).1, Activated::Yes { how: "reload" });
}

/// In a container of its own, or with fewer rights than the mail server has, relaykey cannot look at that: so it says.
#[test]
fn a_mail_server_that_cannot_be_looked_at_is_a_warning_that_says_so() {
    const NAME: &str = "apply::a_mail_server_that_cannot_be_looked_at_is_a_warning_that_says_so";
    let on = |config_dir: PathBuf| Lab::new(|_| TargetKind::Postfix { config_dir }, Reload::Always);
    if let Some(config_dir) = std::env::var_os("RELAYKEY_TEST_LOOKS_AT") {
        let lab = on(config_dir.into());
        let seen = lab.inspect();
        assert!(matches!(seen.running, Running::Yes { .. }), "{:?}", seen.running);
        let doubt = seen.findings.iter().find(|f| f.what.contains("cannot be seen: /proc/")).expect("told");
        assert!(doubt.severity == relaykey::config::Severity::Warning, "{doubt:?}");
        assert!(doubt.what.contains("/root") && doubt.fix.contains("CAP_SYS_PTRACE"), "{doubt:?}");
        return;
    }
    let instance = instance("hash", Some(&line(KEY, &login("AKIAOLD"))));
    instance.start();
    on(instance.config_dir.clone()).inspect();
    let looked = Command::new("setpriv")
        .args(["--bounding-set=-sys_ptrace", "--inh-caps=-all"])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", NAME])
        .env("RELAYKEY_TEST_LOOKS_AT", &instance.config_dir)
        .output()
        .unwrap();
    assert!(looked.status.success(), "{}", String::from_utf8_lossy(&looked.stdout));
    assert!(String::from_utf8_lossy(&looked.stdout).contains("1 passed"));
}

/// However it was started: by `master -c`, by another name of the directory, as one of several instances.
#[test]
fn a_mail_server_that_uses_our_files_is_ours_however_it_was_started() {
    let new = login("AKIANEW");
    let instance = instance("hash", Some(&line(KEY, &new)));
    let link = instance.base.join("by-another-name");
    symlink(&instance.config_dir, &link).unwrap();
    let (directory, link) = (instance.config_dir.display(), link.display());
    for start in [
        // The first one makes the directories of the queue.
        format!("/usr/sbin/postfix -c {link} start"),
        format!("env -i $(postconf -h daemon_directory)/master -w -c {directory}"),
        format!("env -i MAIL_CONFIG={directory} $(postconf -h daemon_directory)/master -w"),
        format!("env -i PATH=/usr/sbin:/usr/bin:/bin MAIL_CONFIG={directory} /usr/sbin/postfix start"),
    ] {
        paste(&start);
        postfix::wait_for("the master process", Duration::from_secs(15), || instance.master());
        let lab = Lab::on(&instance, Reload::Always);
        assert!(matches!(lab.inspect().running, Running::Yes { .. }), "{start}");
        assert_eq!(confirmed(&lab, &new).1, Activated::Yes { how: "reload" }, "{start}");
        instance.stop();
    }
}

// -- a map that is not what its text says ---------------------------------------------------------------------------

const OTHER: &str = "[other.example]:25";

/// `postmap -i`: an entry that no text has.
fn insert(instance: &postfix::Instance, entry: &str) {
    use std::io::Write as _;
    let table = format!("{}:{}", instance.map_type, instance.table().display());
    let mut child = Command::new("/usr/sbin/postmap")
        .args(["-c", instance.config_dir.to_str().unwrap(), "-i", &table])
        .stdin(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(entry.as_bytes()).unwrap();
    assert!(child.wait().unwrap().success());
}

/// The commands that a fix shows.
fn commands(fix: &str) -> Vec<String> {
    fix.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

/// As pasted into the shell of an administrator, whose umask is what it is.
fn paste(command: &str) {
    let pasted = format!("umask 022; cd /; PATH=/usr/sbin:/usr/bin:/sbin:/bin; {command}");
    let done = Command::new("sh").args(["-c", &pasted]).output().unwrap();
    assert!(done.status.success(), "{command}: {}", String::from_utf8_lossy(&done.stderr));
}

fn roll_over(lab: &Lab, login: &Login) {
    lab.prepare(login).unwrap_or_else(|e| panic!("{e:?}"));
    lab.swap().unwrap();
    lab.activate();
    assert!(lab.read_back().matches);
    lab.commit();
}

/// Some relays' logins were added with `postmap -i`, or their lines cut from the text after `postmap`. A map made from that
/// text has lost them, and their mail bounces.
#[test]
fn what_only_the_map_holds_is_named_before_anything_and_kept_by_the_commands_of_the_fix() {
    for kind in ["hash", "btree", "lmdb", "cdb"] {
        for (many, newline) in [(false, "\n"), (false, ""), (true, "\n")] {
            let (old, new) = (login("AKIAOLD"), login("AKIANEW"));
            let mut lines: Vec<String> = vec![format!("{OTHER} joe:other-password\n")];
            lines.push("it's@odd.example jim:third-password\n".into());
            if many {
                lines.extend((0..20).map(|n| format!("[r{n}.example]:25 u{n}:fourth-password\n")));
            }
            let whole = format!("# relays\n{}stays.example a:b\n{}", lines.concat(), line(KEY, &old));
            let instance = instance(kind, Some(&whole));
            // Cut from the text after it was compiled.
            let text = format!("# relays\nstays.example a:b\n{}", line(KEY, &old).trim_end()) + newline;
            fs::write(instance.table(), &text).unwrap();
            chown(instance.table(), Some(1234), Some(4321)).unwrap();
            let lab = Lab::on(&instance, Reload::IfNeeded);
            let before = snapshot(&instance.config_dir);

            let seen = lab.inspect();
            let named = |what: &str| if many { what.contains("and 12 more") } else { what.contains(OTHER) };
            let says = |what: &str| what.contains("only in the compiled map") && named(what);
            assert!(seen.findings.iter().any(|f| f.severity == config::Severity::Error && says(&f.what)), "{kind}");
            let e = lab.prepare(&new).unwrap_err();
            assert!(says(&e.what) && e.class == Class::Ambiguous && !e.temporary, "{kind}: {e:?}");
            assert!(!format!("{e:?}").contains("-password") && !format!("{e:?}").contains("joe"), "{kind}: {e:?}");
            assert_eq!(snapshot(&instance.config_dir), before, "{kind}: nothing was written");

            let [merge, compile] = &commands(&e.fix)[..] else { panic!("{}", e.fix) };
            assert!(compile.contains("postmap -c "), "{compile}");
            paste(merge);
            let m = fs::metadata(instance.table()).unwrap();
            assert_eq!((m.uid(), m.gid(), m.mode() & 0o7777), (1234, 4321, 0o600), "{kind}");
            assert!(fs::read_to_string(instance.table()).unwrap().starts_with(&text), "{kind}");
            roll_over(&lab, &new);
            assert_eq!(query(&instance, KEY), value(&new), "{kind}");
            for line in &lines {
                let (key, value) = line.trim_end().split_once(' ').unwrap();
                assert_eq!(query(&instance, key), value, "{kind}: {key}");
            }
        }
    }
}

/// The same of one that was meant to go: compiling the text says so.
#[test]
fn what_is_to_go_goes_by_the_other_command_of_the_fix() {
    let instance = instance("hash", Some(&line(KEY, &login("AKIAOLD"))));
    insert(&instance, &format!("{OTHER} joe:pw\n"));
    let lab = Lab::on(&instance, Reload::IfNeeded);
    let e = lab.prepare(&login("AKIANEW")).unwrap_err();
    assert!(e.what.contains("only in the compiled map"), "{e:?}");
    // Where nothing is to be written, nothing is lost, and nothing stands in the way.
    assert!(lab.prepare(&login("AKIAOLD")).unwrap().nothing_to_write);
    paste(&commands(&e.fix)[1]);
    roll_over(&lab, &login("AKIANEW"));
    assert_eq!(query(&instance, OTHER), "");
}

fn compile(instance: &postfix::Instance) {
    paste(&format!(
        "postmap -c {} {}:{}",
        instance.config_dir.display(),
        instance.map_type,
        instance.table().display()
    ));
}

/// Does a fix show the command that makes the map from the text?
fn offers_to_compile(fix: &str, instance: &postfix::Instance) -> bool {
    fix.contains(&format!("postmap -c {} {}:", instance.config_dir.display(), instance.map_type))
}

/// A caller that somebody has taken over must not be able to name other relays' keys as ours.
#[test]
fn a_caller_is_believed_about_earlier_keys_only_until_something_was_prepared() {
    let (old, new, newer) = (login("AKIAOLD"), login("AKIANEW"), login("AKIANEWER"));
    let team = line("@team.example", &login("AKIATEAM000000000001"));
    let text = |ours: &Login, sender: &Login| format!("{}{team}{}", line(KEY, ours), line("@b.example", sender));
    let instance = instance("hash", Some(&text(&old, &login("AKIAEARLIER"))));
    let mut lab = Lab::on(&instance, Reload::IfNeeded);
    let held = |lab: &Lab, ours: &Ours| match lab
        .call(Request::Inspect { target: lab.id.clone(), ours: ours.clone() })
        .unwrap()
    {
        Reply::Inspected(seen) => (seen.expect(), seen.entries.iter().map(|e| e.key.clone()).collect::<Vec<_>>()),
        other => panic!("{other:?}"),
    };
    let change = |lab: &Lab, ours: Ours, login: &Login| {
        let (target, expect) = (lab.id.clone(), held(lab, &ours).0);
        let version = login.username.as_str().into();
        lab.call(Request::Prepare { target, ours, expect, logins: login.clone().into(), version }).unwrap();
        lab.swap().unwrap();
        lab.commit();
        fs::read_to_string(instance.table()).unwrap()
    };
    // Nothing is remembered: what the source has named is taken.
    let first = Ours { named: vec!["AKIAOLD".into(), "AKIAEARLIER".into()], ..Ours::default() };
    assert_eq!(held(&lab, &Ours::default()).1, [KEY]);
    assert_eq!(held(&lab, &first).1, [KEY, "@b.example"]);
    assert_eq!(change(&lab, first, &new), text(&new, &new));

    // Now another relay's key is named in every way there is, also to a server that was started since.
    let ids = || vec!["AKIATEAM000000000001".to_owned()];
    let all = |applied: &str| Ours {
        applied: Some(applied.into()),
        previous: Some("AKIATEAM000000000001".into()),
        known: ids(),
        earlier: ids(),
        named: ids(),
        ..Ours::default()
    };
    lab.restart();
    assert_eq!(change(&lab, all("AKIANEW"), &newer), text(&newer, &newer));
    assert_eq!(change(&lab, all("AKIATEAM000000000001"), &new), text(&new, &new));
    assert_eq!(change(&lab, Ours { named: ids(), ..Ours::default() }, &newer), text(&newer, &newer));

    // What was confirmed before is remembered, though no caller says so.
    fs::write(instance.table(), text(&newer, &old)).unwrap();
    compile(&instance);
    let forgot = Ours { previous: Some("AKIAOLD".into()), ..Ours::default() };
    assert_eq!(change(&lab, forgot, &new), text(&new, &new));

    // Root's word counts, and only for what is an access key id.
    let name = |id: &str| lab.call(Request::NameEarlier { target: lab.id.clone(), id: id.into() });
    for odd in ["", "joe", "akiateam", "AKIATEAM", "AKIATEAM000000000001 ", "AKIATEAM000000000001:password"] {
        let fault = name(odd).expect_err(odd);
        assert!(fault.class == Class::Config && !fault.what.contains("password"), "{fault:?}");
    }
    name("AKIATEAM000000000001").unwrap();
    // What root names counts where it is known which way the line's mail goes.
    instance.set("smtp_sender_dependent_authentication", "yes");
    let team_is_ours = text(&newer, &newer).replace(&team, &line("@team.example", &newer));
    assert_eq!(change(&lab, Ours::default(), &newer), team_is_ours);
    let looks = Client::in_process(Server::looking(&lab.config.mail()));
    let asked = Request::NameEarlier { target: lab.id.clone(), id: "AKIAOTHER00000000001".into() };
    looks.call(asked).expect_err("it only looks");
}

/// Compiling the text by hand puts whatever stands there into use, and no login was tried with it: that is advised only where
/// the text says of our keys what the map says.
#[test]
fn a_text_that_would_change_our_login_is_not_advised_to_be_compiled() {
    let (old, two) = (login("AKIAOLD"), login("AKIATWO"));
    let ours = |applied: &str| Ours { applied: Some(applied.into()), ..Ours::default() };
    let rest = format!("{OTHER} joe:pw\nstays.example a:b\n");
    let half = line(KEY, &two);
    // The text as it was left or edited after it was compiled, and what is said of it.
    let cases = [
        (String::new(), "2 entries that relaykey does not write stand only in the compiled map"),
        ("stays.example a:b\n".to_owned(), "1 entry that relaykey does not write stands only in the compiled map"),
        (half.clone(), "2 entries that relaykey does not write stand only in the compiled map"),
        (format!("{rest}{half}"), "newer than its compiled map"),
        (format!("{rest}{KEY} not-a-login\n"), "newer than its compiled map"),
        (
            rest.replace("joe:pw", "joe:px") + &half,
            "1 entry that relaykey does not write has another value in the compiled map",
        ),
        (format!("added.example c:d\n{rest}{half}"), "1 entry that relaykey does not write stands only in the text"),
        (format!("{rest}{ENDPOINT} {}\n{}", value(&two), line(KEY, &old)), "newer than its compiled map"),
    ];
    for kind in ["hash", "cdb"] {
        for (text, what) in &cases {
            let instance = instance(kind, Some(&format!("{rest}{}", line(KEY, &old))));
            fs::write(instance.table(), text).unwrap();
            let later = std::time::SystemTime::now() + Duration::from_secs(30);
            fs::File::options().write(true).open(instance.table()).unwrap().set_modified(later).unwrap();
            let lab = Lab::on(&instance, Reload::IfNeeded);
            let seen = |ours: Ours| match lab.call(Request::Inspect { target: lab.id.clone(), ours }).unwrap() {
                Reply::Inspected(seen) => seen.findings,
                other => panic!("{other:?}"),
            };
            // Twice: what is known from before says the same.
            for findings in [seen(ours("AKIAOLD")), seen(ours("AKIAOLD")), seen(ours("AKIATWO"))] {
                assert!(findings.iter().any(|f| f.what.contains(what)), "{kind} {text}: {findings:?}");
                for finding in findings {
                    let fix = &finding.fix;
                    assert!(!offers_to_compile(fix, &instance), "{kind} {text}: {fix}");
                    commands(fix)
                        .iter()
                        .filter(|command| command.contains("postmap"))
                        .for_each(|command| paste(command));
                }
                fs::write(instance.table(), text).unwrap();
                fs::File::options().write(true).open(instance.table()).unwrap().set_modified(later).unwrap();
            }
            assert_eq!(query(&instance, KEY), value(&old), "{kind} {text}");
            // No map: nothing tells what was in use but the applied version.
            fs::remove_file(instance.map()).unwrap();
            let offers = seen(ours("AKIAOLD")).iter().any(|f| offers_to_compile(&f.fix, &instance));
            assert!(!offers, "{kind} {text}");
        }
        let instance = instance(kind, Some(&format!("{rest}{}", line(KEY, &old))));
        fs::remove_file(instance.map()).unwrap();
        let lab = Lab::on(&instance, Reload::IfNeeded);
        // On a host without state nobody here knows the login in the text, and the person may.
        let known = "if you know that it does";
        for (applied, is_offered, is_for_who_knows) in
            [(Some("AKIAOLD"), true, false), (Some("AKIATWO"), false, false), (None, true, true)]
        {
            let ours = applied.map_or_else(Ours::default, ours);
            let Ok(Reply::Inspected(seen)) = lab.call(Request::Inspect { target: lab.id.clone(), ours }) else {
                panic!()
            };
            let offer = seen.findings.iter().find(|f| offers_to_compile(&f.fix, &instance));
            assert_eq!(offer.is_some(), is_offered, "{kind} {applied:?}: {:?}", seen.findings);
            assert!(offer.is_none_or(|f| f.fix.contains(known) == is_for_who_knows), "{kind} {applied:?}: {offer:?}");
        }
    }
}

#[test]
fn another_value_in_the_map_is_named_and_a_line_that_was_never_compiled_goes_live() {
    for kind in ["hash", "cdb"] {
        let rest = line(KEY, &login("AKIAOLD"));
        let instance = instance(kind, Some(&format!("{OTHER} joe:old-password\n{rest}")));
        fs::write(instance.table(), format!("{OTHER} joe:new-password\nadded.example a:b\n{rest}")).unwrap();
        let lab = Lab::on(&instance, Reload::IfNeeded);
        let added = |seen: &Inspected| {
            seen.findings
                .iter()
                .any(|f| f.severity == config::Severity::Warning && f.what.contains("\"added.example\""))
        };
        assert!(added(&lab.inspect()), "{kind}");
        let e = lab.prepare(&login("AKIANEW")).unwrap_err();
        assert!(e.what.contains("another value") && e.what.contains("(line 1)") && e.what.contains(OTHER), "{e:?}");
        assert!(!format!("{e:?}").contains("-password"), "{e:?}");
        let [show, compile] = &commands(&e.fix)[..] else { panic!("{}", e.fix) };
        paste(show);
        match kind {
            "hash" => paste(compile),
            _ => fs::write(instance.table(), format!("{OTHER} joe:old-password\nadded.example a:b\n{rest}")).unwrap(),
        }
        let wanted = if kind == "hash" { "joe:new-password" } else { "joe:old-password" };
        assert_eq!(added(&lab.inspect()), kind == "cdb");
        roll_over(&lab, &login("AKIANEW"));
        assert_eq!(
            (query(&instance, OTHER), query(&instance, "added.example")),
            (wanted.into(), "a:b".into()),
            "{kind}"
        );
    }
}

/// Where there is no map, nothing is compared: all that stands in the text goes live, whenever it was written there.
#[test]
fn what_goes_live_with_ours_where_there_is_no_map_is_named() {
    for kind in ["hash", "cdb"] {
        let rest = line(KEY, &login("AKIAOLD"));
        let instance = instance(kind, Some(&format!("{OTHER} joe:old-password\n{rest}")));
        fs::remove_file(instance.map()).unwrap();
        instance.write_table(&format!("{OTHER} joe:new-password\nadded.example a:b\n{rest}"));
        let lab = Lab::on(&instance, Reload::IfNeeded);
        for _ in 0..2 {
            let findings = lab.inspect().findings;
            let named = |f: &&config::Finding| f.what.contains("\"added.example\" (line 2)") && f.what.contains(OTHER);
            let named: Vec<_> = findings.iter().filter(named).collect();
            assert!(named.len() == 1 && named[0].severity == config::Severity::Warning, "{kind}: {findings:?}");
            assert!(!format!("{findings:?}").contains("-password"), "{findings:?}");
        }
        let (target, ours, login) = (lab.id.clone(), Ours::default(), login("AKIANEW"));
        let Reply::Previewed(Previewed { diff, .. }) =
            lab.call(Request::Preview { target, ours, logins: login.clone().into() }).unwrap()
        else {
            panic!()
        };
        let prepared = lab.prepare(&login).unwrap();
        let goes_live = prepared.goes_live.unwrap();
        assert!(goes_live.contains("added.example") && goes_live.contains(OTHER), "{kind}: {goes_live}");
        for diff in [diff, prepared.diff] {
            let named = diff.iter().any(|line| line.contains("added.example") && line.contains(OTHER));
            assert!(named && !diff.concat().contains("-password"), "{kind}: {diff:?}");
        }
        roll_over(&lab, &login);
        assert_eq!(query(&instance, "added.example"), "a:b", "{kind}");
        assert!(!lab.inspect().findings.iter().any(|f| f.what.contains("added.example")), "{kind}");
    }
}

/// What the compiler made is compared as a whole: a lost or changed line of another relay is nobody's error until mail bounces.
#[test]
fn a_map_that_lacks_or_changes_a_line_of_others_never_goes_live() {
    for (edit, words) in [("/^.other/d", "it lacks"), ("s/joe:pw/joe:px/", "another value"), ("$a more a:b", "has not")]
    {
        let instance = instance("hash", Some(&format!("{OTHER} joe:pw\n{}", line(KEY, &login("AKIAOLD")))));
        with_postmap(
            &instance,
            &format!(
                r#"case "$*" in *" -q "*|*" -s "*) exec $REAL "$@";; esac
                for last; do :; done
                keep=${{0%/*}}/keep
                cp "${{last#hash:}}" "$keep" && sed -i '{edit}' "${{last#hash:}}" && $REAL "$@"
                cat "$keep" >"${{last#hash:}}""#
            ),
        );
        let lab = Lab::on(&instance, Reload::IfNeeded);
        let before = snapshot(&instance.config_dir);
        let e = lab.prepare(&login("AKIANEW")).unwrap_err();
        assert!(e.class == Class::Mismatch && e.what.contains(words) && !e.temporary, "{edit}: {e:?}");
        assert!(!e.what.contains("joe"), "{e:?}");
        assert_eq!(snapshot(&instance.config_dir)[1..], before[1..], "{edit}");
        assert!(staged_in(&instance.config_dir).is_empty());
    }
}

/// A person who changes the table runs `postmap` too.
#[test]
fn who_changes_a_table_by_hand_is_told_what_postmap_would_erase() {
    let instance = instance("hash", Some(&line(KEY, &login("AKIAOLD"))));
    insert(&instance, &format!("{OTHER} joe:pw\n"));
    let mut lab = Lab::on(&instance, Reload::IfNeeded);
    lab.config.credentials[0].targets[0].write = false;
    lab.restart();
    assert!(lab.inspect().findings.iter().any(|f| f.what.contains("only in the compiled map")));
    let request = Request::Preview { target: lab.id.clone(), ours: Ours::default(), logins: login("AKIANEW").into() };
    let Reply::Previewed(Previewed { steps, .. }) = lab.call(request.clone()).unwrap() else { panic!() };
    let [_, Instruction::Command(merge)] = &steps[..] else { panic!("{steps:?}") };
    paste(merge);
    let Reply::Previewed(Previewed { steps, .. }) = lab.call(request).unwrap() else { panic!() };
    assert!(steps.len() == 2 && steps[0].as_str().contains("AKIANEW:***"), "{steps:?}");
}

/// A key of ours that the text has not, and the map has with the login of somebody else: nobody may lose it without a word.
#[test]
fn another_login_under_a_key_of_ours_in_the_map_alone_is_named_and_kept() {
    const BARE: &str = ENDPOINT;
    let old = login("AKIAOLD");
    // The text, and what only the map has.
    let cases = [(line(KEY, &old), BARE), (line(BARE, &old), KEY), ("# none yet\n".to_owned(), KEY)];
    for kind in ["hash", "cdb"] {
        for (text, key) in &cases {
            for theirs in ["another:their-password", "their-password-alone"] {
                let instance = instance(kind, Some(&format!("{text}{key} {theirs}\n")));
                fs::write(instance.table(), text).unwrap();
                let mut lab = Lab::on(&instance, Reload::IfNeeded);
                let before = snapshot(&instance.config_dir);
                let found = if theirs.contains(':') {
                    "the login of another user name (not shown)"
                } else {
                    "not USER:PASSWORD"
                };
                let says = |what: &str| what.contains(&format!("{key:?}")) && what.contains(found);
                let seen = lab.inspect();
                let error = seen.findings.iter().find(|f| f.severity == config::Severity::Error && says(&f.what));
                assert_eq!(error.and_then(|f| f.file.clone()), Some(instance.map()), "{kind} {text}: {seen:?}");
                // Also where the text holds the new login already.
                for new in [&login("AKIANEW"), &old] {
                    let e = lab.prepare(new).unwrap_err();
                    assert!(says(&e.what) && e.class == Class::Ambiguous && !e.temporary, "{kind} {text}: {e:?}");
                    assert_eq!(e.file, Some(instance.map()));
                    assert!(!format!("{e:?} {seen:?}").contains("their-password"), "{e:?}");
                }
                let preview = |lab: &Lab| {
                    let login = login("AKIANEW");
                    lab.call(Request::Preview { target: lab.id.clone(), ours: Ours::default(), logins: login.into() })
                };
                assert!(says(&preview(&lab).unwrap_err().what), "{kind} {text}");
                lab.config.credentials[0].targets[0].write = false;
                lab.restart();
                let Reply::Previewed(Previewed { steps, .. }) = preview(&lab).unwrap() else { panic!() };
                assert!(says(steps[0].as_str()), "{kind} {text}: {steps:?}");
                assert_eq!(snapshot(&instance.config_dir), before, "{kind}: nothing was written");

                // It goes where somebody says so: by the command of the fix, or by the target's keys.
                lab.config.credentials[0].targets[0].write = true;
                lab.restart();
                let fix = lab.prepare(&old).unwrap_err().fix;
                if text.starts_with('#') {
                    // A map made from that text has no login for the endpoint at all.
                    assert!(!offers_to_compile(&fix, &instance) && fix.contains("mail would bounce"), "{fix}");
                    fs::write(instance.table(), line(KEY, &old)).unwrap();
                    compile(&instance);
                } else {
                    paste(&commands(&fix)[0]);
                }
                roll_over(&lab, &login("AKIANEW"));
                assert_eq!(query(&instance, key).is_empty(), !instance_has(&instance, key), "{kind} {text}");
            }
        }
    }
}

fn instance_has(instance: &postfix::Instance, key: &str) -> bool {
    fs::read_to_string(instance.table()).unwrap().lines().any(|line| line.split(' ').next() == Some(key))
}

/// What the map holds of ours under such a key is ours to change.
#[test]
fn our_own_login_under_a_key_that_only_the_map_has_is_compiled_away() {
    for kind in ["hash", "cdb"] {
        let old = login("AKIAOLD");
        let instance = instance(kind, Some(&(line(KEY, &old) + &line(ENDPOINT, &old))));
        fs::write(instance.table(), line(KEY, &old)).unwrap();
        let lab = Lab::on(&instance, Reload::IfNeeded);
        roll_over(&lab, &login("AKIANEW"));
        assert_eq!((query(&instance, ENDPOINT), query(&instance, KEY)), (String::new(), value(&login("AKIANEW"))));
    }
}

/// Root compiles the text, so who may write it decides what mail goes where.
#[test]
fn a_table_that_everybody_may_write_stops_a_rollover_and_an_odd_owner_is_told() {
    for compiled in [false, true] {
        let instance = instance("hash", Some(&line(KEY, &login("AKIAOLD"))));
        let file = if compiled { instance.map() } else { instance.table() };
        let lab = Lab::on(&instance, Reload::IfNeeded);
        let of = |severity, seen: &Inspected| {
            let findings = seen.findings.iter().filter(|f| f.severity == severity && f.file.as_ref() == Some(&file));
            findings.map(|f| f.what.clone()).collect::<Vec<_>>().join("; ")
        };
        let mode = |mode| fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
        mode(0o666);
        assert!(of(config::Severity::Error, &lab.inspect()).contains("every user of this host (mode 0666)"));
        let e = lab.prepare(&login("AKIANEW")).unwrap_err();
        assert!(e.class == Class::Permissions && !e.temporary && e.file.as_ref() == Some(&file), "{e:?}");
        let [fix] = &commands(&e.fix)[..] else { panic!("{}", e.fix) };
        paste(fix);
        mode(0o660);
        assert_eq!(of(config::Severity::Error, &lab.inspect()), "");
        chown(&file, Some(4321), Some(4321)).unwrap();
        assert!(of(config::Severity::Warning, &lab.inspect()).contains("4321"));
        mode(0o640);
        let postfix = fs::read_to_string("/etc/passwd").unwrap();
        let postfix = postfix.lines().find_map(|l| l.strip_prefix("postfix:x:")?.split(':').next()?.parse().ok());
        chown(&file, postfix, Some(4321)).unwrap();
        assert_eq!(of(config::Severity::Warning, &lab.inspect()), "");
        roll_over(&lab, &login("AKIANEW"));
    }
}

/// `postmap -f` stores a key as it is spelt, and Postfix never finds it.
#[test]
fn a_key_of_the_map_that_postfix_cannot_find_is_a_note() {
    for kind in ["hash", "cdb"] {
        let text = line(KEY, &login("AKIAOLD"));
        let instance = instance(kind, Some(&text));
        fs::write(instance.table(), format!("{text}Other.Example joe:pw\n")).unwrap();
        let table = format!("{kind}:{}", instance.table().display());
        paste(&format!("postmap -c {} -f {table}", instance.config_dir.display()));
        fs::write(instance.table(), &text).unwrap();
        let lab = Lab::on(&instance, Reload::IfNeeded);
        let seen = lab.inspect();
        let note = |f: &&config::Finding| f.what.contains("\"Other.Example\"");
        assert_eq!(seen.findings.iter().find(note).map(|f| f.severity), Some(config::Severity::Note), "{seen:?}");
        roll_over(&lab, &login("AKIANEW"));
    }
}

// -- text and map as links ------------------------------------------------------------------------------------------

/// What stands beside the target of the map's link under the name that the text would have there is somebody else's.
#[test]
fn a_map_that_is_a_link_is_made_from_the_text_of_the_table_and_from_nothing_else() {
    for kind in ["hash", "lmdb", "cdb"] {
        for name in ["sasl_passwd", "logins-7.bin"] {
            let (old, new) = (login("AKIAOLD"), login("AKIANEW"));
            let instance = instance(kind, Some(&format!("{OTHER} joe:pw\n{}", line(KEY, &old))));
            let maps = instance.base.join("maps");
            fs::create_dir(&maps).unwrap();
            let extension = instance.map().extension().unwrap().to_str().unwrap().to_owned();
            let target =
                if name.ends_with(".bin") { maps.join(name) } else { maps.join(format!("{name}.{extension}")) };
            fs::rename(instance.map(), &target).unwrap();
            symlink(&target, instance.map()).unwrap();
            for beside in ["sasl_passwd", "logins-7"] {
                fs::write(maps.join(beside), format!("# a copy of last year\n{}", line(KEY, &old))).unwrap();
            }
            // The run was killed between the two renames: the text is new already.
            fs::write(instance.table(), format!("{OTHER} joe:pw\n{}", line(KEY, &new))).unwrap();
            let lab = Lab::on(&instance, Reload::IfNeeded);
            roll_over(&lab, &new);
            assert_eq!(
                (query(&instance, KEY), query(&instance, OTHER)),
                (value(&new), "joe:pw".into()),
                "{kind} {name}"
            );
            assert_eq!(fs::read_link(instance.map()).unwrap(), target, "{kind}");
            // And all of it, with an undo.
            let next = login("AKIANEXT");
            lab.prepare(&next).unwrap();
            lab.swap().unwrap();
            assert_eq!(
                (query(&instance, KEY), query(&instance, OTHER)),
                (value(&next), "joe:pw".into()),
                "{kind} {name}"
            );
            lab.undo().unwrap();
            assert_eq!(query(&instance, KEY), value(&new), "{kind} {name}");
            assert!(staged_in(&maps).is_empty() && staged_in(&instance.config_dir).is_empty());
        }
    }
}

// -- large tables ---------------------------------------------------------------------------------------------------

/// A table of so many entries with ours in the midst of it, 75 bytes each.
fn large(entries: usize, ours: &Login) -> String {
    use std::fmt::Write as _;
    let mut text = String::with_capacity(entries * 80);
    for n in 0..entries {
        if n == entries / 2 {
            text += &line(KEY, ours);
        }
        writeln!(text, "[relay{n:07}.customers.example.net]:587 user{n:07}:password-of-a-customer-{n:07}").unwrap();
    }
    text
}

/// What this process and its children have read so far (proc(5)).
fn bytes_read() -> usize {
    let io = fs::read_to_string("/proc/self/io").unwrap();
    io.lines().find_map(|line| line.strip_prefix("rchar: ")).unwrap().parse().unwrap()
}

#[test]
fn a_table_that_has_not_changed_is_not_read_again() {
    let instance = instance("hash", Some(&large(200_000, &login("AKIAOLD"))));
    let size = usize::try_from(fs::metadata(instance.table()).unwrap().len()).unwrap();
    let lab = Lab::on(&instance, Reload::IfNeeded);
    let looked = || {
        let before = bytes_read();
        let seen = lab.inspect();
        assert_eq!(seen.username.as_deref(), Some("AKIAOLD"));
        (bytes_read() - before, seen.live_id)
    };
    // Once the files have not been written to for a while, a change would show by their times.
    let first = looked();
    postfix::wait_for("a look without reading", Duration::from_secs(30), || (looked().0 < size / 4).then_some(()));
    for _ in 0..5 {
        let (read, live_id) = looked();
        assert!(read < size / 4, "{read} bytes were read of a table of {size} that had not changed");
        assert_eq!(live_id, first.1);
    }
    // A change is seen, whatever was kept: also one of the same size, made in place.
    let text = fs::read_to_string(instance.table()).unwrap();
    fs::write(instance.table(), text.replace(&value(&login("AKIAOLD")), &value(&login("AKIANEW")))).unwrap();
    let text_id = |seen: &Inspected| seen.entries[0].text_id.clone();
    assert_ne!(text_id(&lab.inspect()), first.1);
}

/// Beyond some megabytes what was replaced is kept open, not in memory.
#[test]
fn undo_puts_a_large_table_back_too() {
    let (old, new) = (login("AKIAOLD"), login("AKIANEW"));
    let instance = instance("hash", Some(&large(100_000, &old)));
    let files = [instance.table(), instance.map()];
    chown(&files[0], Some(1234), Some(4321)).unwrap();
    let before = files.clone().map(|file| fs::read(file).unwrap());
    assert!(before.iter().all(|bytes| bytes.len() > 5_000_000));
    let lab = Lab::on(&instance, Reload::IfNeeded);
    lab.prepare(&new).unwrap();
    let open = fs::File::open(instance.map()).unwrap();
    lab.swap().unwrap();
    assert_eq!(query(&instance, KEY), value(&new));
    // What a running smtp(8) goes by: the map that it has open has no name any more.
    assert_eq!(open.metadata().unwrap().nlink(), 0);
    lab.undo().unwrap();
    for (file, before) in files.iter().zip(&before) {
        assert!(fs::read(file).unwrap() == *before, "{}", file.display());
    }
    let m = fs::metadata(&files[0]).unwrap();
    assert_eq!((m.uid(), m.gid(), m.mode() & 0o7777), (1234, 4321, 0o600));
    assert!(staged_in(&instance.config_dir).is_empty());
}
