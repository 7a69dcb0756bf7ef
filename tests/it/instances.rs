//! Other Postfix instances of a host: what their login tables hold is told, whoever changes them.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use relaykey::config::{Reload, Severity};
use relaykey::credential::Login;
use relaykey::mta::postfix::{Postfix, TargetDirectories};
use relaykey::mta::{Logins, Mta as _, Ours, Relay, View};

use crate::lab::postfix::{Instance, Options, wait_for};

const HOST: &str = "email-smtp.eu-west-1.amazonaws.com";
const HOP: &str = "[email-smtp.eu-west-1.amazonaws.com]:587";
const OLD: &str = "AKIAOLD:oldpassword";

fn relay() -> Relay {
    Relay { endpoint: HOST.into(), port: 587, region: None, endpoint_aliases: Vec::new(), also: Vec::new() }
}

fn instance(kind: &str, table: &str) -> Instance {
    Instance::new(&Options { map_type: kind, relayhost: HOP, ca_pem: None, table: Some(table), settings: &[] })
}

/// A first instance, whose main.cf names the others.
fn first(others: &[&Path]) -> Instance {
    let first = instance("hash", &format!("{HOP} {OLD}\n"));
    let others: Vec<String> = others.iter().map(|dir| dir.display().to_string()).collect();
    first.set("multi_instance_directories", &others.join(" "));
    first
}

fn look(first: &Instance, of_credential: &[&Path], of_all: &[&Path]) -> View {
    let paths = |dirs: &[&Path]| dirs.iter().map(|dir| PathBuf::from(*dir)).collect();
    let targets =
        TargetDirectories { of_credential: paths(of_credential), of_all: paths(of_all), beside_running: false };
    let postfix = Postfix::new(&first.config_dir, &relay(), None, &Reload::Always).beside(targets);
    let ours = Ours { applied: Some("AKIAOLD".into()), ..Ours::default() };
    let view = postfix.inspect(&ours).unwrap();
    // Nothing of another instance stands in the way here.
    assert!(view.findings.iter().all(|finding| finding.severity != Severity::Error), "{:?}", view.findings);
    postfix.plan(&ours, &Logins::from(Login::from_pair("AKIANEW:newpassword").unwrap())).unwrap();
    // Seen again, with what is kept from before.
    let again = postfix.inspect(&ours).unwrap();
    let told = |view: &View| (view.beside.clone(), view.key_ids.clone(), view.incomplete.clone());
    assert_eq!(told(&again), told(&view));
    view
}

/// The others' key ids, by name.
fn held(view: &View, in_use: &str) -> Vec<String> {
    view.key_ids.others(Some(in_use)).named.into_iter().map(|held| held.id).collect()
}

#[test]
fn an_instance_that_is_no_target_is_an_error_and_its_keys_are_named() {
    let second = instance("hash", &format!("{HOP} AKIASECOND:oldpassword\n"));
    let dir = second.config_dir.as_path();
    let first = first(&[dir]);
    let view = look(&first, &[], &[]);
    assert_eq!(held(&view, "AKIAOLD"), ["AKIASECOND"]);
    let [error] = view.beside.as_slice() else { panic!("{:?}", view.beside) };
    assert_eq!((error.severity, error.file.clone()), (Severity::Error, Some(second.main_cf())));
    let names = [&*dir.display().to_string(), "which does not run now", "is no target", &second.table_id().to_string()];
    assert!(names.iter().all(|name| error.what.contains(name)), "{error:?}");
    assert!(error.fix.contains(&format!("config_dir = \"{}\"", dir.display())), "{error:?}");
    assert!(view.incomplete.is_empty(), "{:?}", view.incomplete);

    // A target of another credential tells no reports of this one's key.
    let of_another = look(&first, &[], &[dir]);
    assert_eq!((held(&of_another, "AKIAOLD"), of_another.beside.len()), (vec!["AKIASECOND".to_owned()], 0));
    // One of this credential does, also under another name of the directory.
    let link = first.base.join("second");
    symlink(dir, &link).unwrap();
    let of_this = look(&first, &[&link], &[&link]);
    assert_eq!((held(&of_this, "AKIAOLD"), of_this.beside.len()), (Vec::new(), 0));

    // Where the mail goes elsewhere, the keys count all the same.
    second.set("relayhost", "[smtp.other.example]:587");
    second.write_table("[smtp.other.example]:587 AKIATHIRD:oldpassword\n");
    second.postmap();
    let elsewhere = look(&first, &[], &[]);
    assert_eq!((held(&elsewhere, "AKIAOLD"), elsewhere.beside.len()), (vec!["AKIATHIRD".to_owned()], 0));
}

/// As hosts have it that were set up before there was postmulti(1).
#[test]
fn an_instance_of_the_old_style_is_looked_at_too() {
    let second = instance("hash", &format!("{HOP} AKIASECOND:oldpassword\n"));
    let first = first(&[]);
    first.set("alternate_config_directories", second.config_dir.to_str().unwrap());
    let view = look(&first, &[], &[]);
    assert_eq!((held(&view, "AKIAOLD"), view.beside.len()), (vec!["AKIASECOND".to_owned()], 1), "{:?}", view.beside);
}

/// A key that only the compiled map has is in use like any other.
#[test]
fn a_map_that_is_older_than_its_text_counts_too() {
    let second = instance("hash", &format!("{HOP} AKIASECOND:oldpassword\n"));
    second.write_table(&format!("{HOP} AKIALATER:oldpassword\n"));
    let view = look(&first(&[&second.config_dir]), &[], &[]);
    assert_eq!(held(&view, "AKIAOLD"), ["AKIALATER", "AKIASECOND"]);
    fs::remove_file(second.table()).unwrap();
    let view = look(&first(&[&second.config_dir]), &[], &[]);
    assert_eq!((held(&view, "AKIAOLD"), view.beside.len()), (vec!["AKIASECOND".to_owned()], 1), "{:?}", view.beside);
}

#[test]
fn an_instance_that_cannot_be_read_makes_the_confirmation_incomplete() {
    let second = instance("hash", &format!("{HOP} {OLD}\n"));
    let gone = second.base.join("gone");
    let first = first(&[&second.config_dir, &gone]);
    // Everybody may write it: nothing of it is obeyed.
    fs::set_permissions(second.main_cf(), fs::Permissions::from_mode(0o666)).unwrap();
    let view = look(&first, &[], &[]);
    assert_eq!(view.incomplete, [second.main_cf().display().to_string()]);
    let told: Vec<_> = view.beside.iter().map(|finding| finding.severity).collect();
    assert_eq!(told, [Severity::Warning, Severity::Note], "{:?}", view.beside);
    assert!(view.beside[0].what.contains("could not be read"), "{:?}", view.beside);
    assert!(view.beside[1].what.contains(&gone.display().to_string()), "{:?}", view.beside);
    // So does a table that is none, or whose map cannot be opened.
    fs::set_permissions(second.main_cf(), fs::Permissions::from_mode(0o644)).unwrap();
    fs::write(second.map(), "no map").unwrap();
    assert_eq!(look(&first, &[], &[]).incomplete, [second.table_id().to_string()]);
    second.write_table("\0\n");
    assert_eq!(look(&first, &[], &[]).incomplete, [second.table_id().to_string()]);
    // And one that it may not have read since.
    second.set("smtp_sasl_password_maps", &format!("texthash:{}", second.table().display()));
    second.write_table(&format!("{HOP} {OLD}\n"));
    let view = look(&first, &[], &[]);
    assert_eq!(view.incomplete, [format!("texthash:{}", second.table().display())]);
}

/// As a person starts it with `postfix -c`: no main.cf says that it is there.
#[test]
fn an_instance_that_nothing_names_counts_as_long_as_it_runs() {
    let second = instance("hash", &format!("{HOP} AKIASECOND:oldpassword\n"));
    let first = first(&[]);
    let look = |beside_running: bool, of_credential: &[&Path]| {
        let paths: Vec<PathBuf> = of_credential.iter().map(|dir| dir.to_path_buf()).collect();
        let targets = TargetDirectories { of_credential: paths.clone(), of_all: paths, beside_running };
        let postfix = Postfix::new(&first.config_dir, &relay(), None, &Reload::Always).beside(targets);
        let view = postfix.inspect(&Ours { applied: Some("AKIAOLD".into()), ..Ours::default() }).unwrap();
        // Other tests have instances of their own.
        let dir = second.config_dir.display().to_string();
        let told: Vec<_> = view.beside.iter().filter(|finding| finding.what.contains(&dir)).cloned().collect();
        (held(&view, "AKIAOLD").contains(&"AKIASECOND".to_owned()), told)
    };
    let nothing = (false, Vec::new());
    assert_eq!(look(true, &[]), nothing, "it does not run");
    first.start();
    assert_eq!(look(true, &[]), nothing, "its own master is none beside it");
    second.start();
    assert_eq!(look(false, &[]), nothing, "the configuration says that it does not count");
    let (is_held, told) = look(true, &[]);
    let [error] = told.as_slice() else { panic!("{told:?}") };
    assert!(is_held && error.severity == Severity::Error, "{error:?}");
    assert!(error.what.contains("which runs (process ") && error.what.contains("no main.cf names"), "{error:?}");
    assert_eq!(look(true, &[&second.config_dir]), nothing, "a target tells for itself");
    // What it has cannot be read.
    fs::set_permissions(second.main_cf(), fs::Permissions::from_mode(0o666)).unwrap();
    let (is_held, told) = look(true, &[]);
    assert!(!is_held && told[0].what.contains("could not be read"), "{told:?}");
    fs::set_permissions(second.main_cf(), fs::Permissions::from_mode(0o644)).unwrap();
    second.stop();
    assert_eq!(look(true, &[]), nothing, "it was stopped");
}

/// What the first instance's look says, with those that run.
fn look_at_running(first: &Path) -> View {
    let targets =
        TargetDirectories { of_credential: vec![first.into()], of_all: vec![first.into()], beside_running: true };
    let postfix = Postfix::new(first, &relay(), None, &Reload::Always).beside(targets);
    postfix.inspect(&Ours { applied: Some("AKIAOLD".into()), ..Ours::default() }).unwrap()
}

const UP: Duration = Duration::from_secs(30);

/// Its files are hidden from us, or it is in a container, which is another host.
#[test]
fn one_that_runs_out_of_sight_is_told_and_one_in_a_container_is_not_of_this_host() {
    let (first, second) = (instance("hash", &format!("{HOP} {OLD}\n")), instance("hash", &format!("{HOP} {OLD}\n")));
    let base = second.base.display().to_string();
    let moved = PathBuf::from(format!("{base}-moved"));
    fs::rename(&second.base, &moved).unwrap();
    fs::create_dir(&second.base).unwrap();
    let main_cf = second.main_cf().display().to_string();
    let told = || {
        let view = look_at_running(&first.config_dir);
        let why: Vec<_> = view.beside.iter().filter(|f| f.what.contains(&base)).map(|f| f.what.clone()).collect();
        (view.incomplete.contains(&main_cf), why)
    };
    let start = |namespaces: &[&str]| {
        let then = "exec sleep 120";
        let script = format!("mount --bind {base}-moved {base} && /usr/sbin/postfix -c {base}/etc start && {then}");
        let child = Command::new("unshare")
            .args(namespaces)
            .args(["--mount", "--propagation", "private", "sh", "-c", &script])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let port = second.smtpd_port;
        wait_for("its SMTP server", UP, || std::net::TcpStream::connect(("127.0.0.1", port)).ok());
        child
    };
    let pid = || fs::read_to_string(moved.join("spool/pid/master.pid")).unwrap().trim().to_owned();

    let mut hidden = start(&[]);
    let (is_incomplete, why) = told();
    let ended = Command::new("kill").arg(pid()).status().unwrap().success();
    hidden.kill().unwrap();
    hidden.wait().unwrap();
    assert!(is_incomplete && ended, "{why:?}");
    assert!(why.len() == 1 && why[0].contains("not to be seen from here"), "{why:?}");
    let gone = PathBuf::from(format!("/proc/{}", pid()));
    wait_for("the master process to end", UP, || (!gone.exists()).then_some(()));

    let mut container = start(&["--pid", "--fork", "--kill-child", "--mount-proc"]);
    let seen = told();
    container.kill().unwrap();
    container.wait().unwrap();
    fs::remove_file(moved.join("spool/pid/master.pid")).unwrap();
    fs::remove_dir(&second.base).unwrap();
    fs::rename(&moved, &second.base).unwrap();
    assert_eq!(seen, (false, Vec::new()));
}

/// As by `RootDirectory=` of a unit: it has mounts of its own besides, and is on this host all the same.
#[test]
fn one_with_another_root_directory_is_told() {
    let (first, second) = (instance("hash", &format!("{HOP} {OLD}\n")), instance("hash", &format!("{HOP} {OLD}\n")));
    let scratch = tempfile::tempdir().unwrap();
    let (root, config_dir) = (scratch.path().display(), second.config_dir.display());
    let script = format!(
        "mount -t tmpfs tmpfs {root} && for d in usr etc dev proc tmp var run; do mkdir {root}/$d && mount --rbind /$d {root}/$d; done \
         && for d in bin sbin lib lib32 lib64; do [ ! -L /$d ] || cp -P /$d {root}/; done \
         && exec chroot {root} /usr/sbin/postfix -c {config_dir} start"
    );
    let started = Command::new("unshare")
        .args(["--mount", "--propagation", "private", "sh", "-c", &script])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .unwrap();
    assert!(started.success());
    let port = second.smtpd_port;
    wait_for("its SMTP server", UP, || std::net::TcpStream::connect(("127.0.0.1", port)).ok());
    let pid = fs::read_to_string(second.base.join("spool/pid/master.pid")).unwrap().trim().to_owned();
    let view = look_at_running(&first.config_dir);
    second.stop();
    let told: Vec<_> = view.beside.iter().map(|finding| finding.what.as_str()).collect();
    let named = format!("(process {pid}) with ");
    assert!(told.iter().any(|what| what.contains(&named) && what.contains("for its root directory")), "{told:?}");
    assert!(view.incomplete.contains(&"another Postfix that runs".to_owned()), "{:?}", view.incomplete);
}

/// With fewer rights than the mail server has: of one that is no target it is not known which it is.
#[test]
fn one_that_may_not_be_looked_at_is_told_by_its_process() {
    const NAME: &str = "instances::one_that_may_not_be_looked_at_is_told_by_its_process";
    if let Some(dir) = std::env::var_os("RELAYKEY_TEST_LOOKS_AT") {
        let view = look_at_running(Path::new(&dir));
        let told = |pid: &str| {
            let process = format!("another Postfix runs on this host (process {})", std::env::var(pid).unwrap());
            view.beside.iter().find(|finding| finding.what.contains(&process)).cloned()
        };
        assert_eq!(told("RELAYKEY_TEST_FIRST"), None, "its own is known by its lock");
        let second = told("RELAYKEY_TEST_SECOND").expect("told");
        assert!(second.severity == Severity::Warning && second.fix.contains("CAP_SYS_PTRACE"), "{second:?}");
        assert!(view.incomplete.contains(&"another Postfix that runs".to_owned()), "{:?}", view.incomplete);
        return;
    }
    let (first, second) = (instance("hash", &format!("{HOP} {OLD}\n")), instance("hash", &format!("{HOP} {OLD}\n")));
    first.start();
    second.start();
    let pid = |instance: &Instance| instance.master().unwrap().to_string();
    let looked = Command::new("setpriv")
        .args(["--bounding-set=-sys_ptrace", "--inh-caps=-all"])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", NAME])
        .env("RELAYKEY_TEST_LOOKS_AT", &first.config_dir)
        .env("RELAYKEY_TEST_FIRST", pid(&first))
        .env("RELAYKEY_TEST_SECOND", pid(&second))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&looked.stdout);
    assert!(looked.status.success() && said.contains("1 passed"), "{said}");
}
