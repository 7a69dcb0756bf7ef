//! A reload counts once Postfix has taken it: a signal that was sent is none that was obeyed.

use crate::lab::postfix::{Instance, free_port, wait_for};
use crate::lab::relaykey::{Host, Key, Ran, Setup};

use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::process::Command;
use std::time::{Duration, Instant, SystemTime};

use rustix::process::{Pid, Signal, kill_process};

const LIMIT: Duration = Duration::from_secs(30);

/// A host that has adopted a key, with Postfix up.
fn adopted(map_type: &str, key: &Key) -> Host {
    let host = Host::new(map_type, key);
    host.start_postfix();
    let source = host.publish(key.pair());
    host.configure(&Setup { source: &source, ..Setup::default() });
    host.sync(&[], 0).says(&["ses: adopted"]);
    host
}

/// Somebody writes to master.cf, a while after Postfix has read it.
fn edit_master_cf(postfix: &Instance, text: &str) {
    let path = postfix.config_dir.join("master.cf");
    fs::write(&path, text).expect("written");
    let later = SystemTime::now() + Duration::from_secs(10);
    fs::File::options().write(true).open(&path).and_then(|file| file.set_modified(later)).expect("dated");
}

fn paste(command: &str) -> String {
    let done = Command::new("sh").args(["-c", &format!("PATH=/usr/sbin:/usr/bin:/sbin:/bin; {command}")]).output();
    let done = done.expect("a shell");
    assert!(done.status.success(), "{command}: {}", String::from_utf8_lossy(&done.stderr));
    String::from_utf8_lossy(&done.stdout).into_owned()
}

/// The reload killed it, and that is said; what the fix says starts it again.
fn ended(host: &Host, ran: &Ran, good: &str) {
    ran.says(&["what somebody had changed in master.cf", "and Postfix ended"]).says_not("confirmed");
    assert!(host.postfix.master().is_none());
    let said = format!("{}{}", ran.out, ran.err);
    let fix = said.lines().find_map(|line| line.split_once("fix: take the last change back"));
    let (_, fix) = fix.unwrap_or_else(|| panic!("{said}"));
    let (look, start) = fix.split_once("; then: ").unwrap_or_else(|| panic!("{fix}"));
    assert!(look.contains("ss -ltnp"), "{look}");
    edit_master_cf(&host.postfix, good);
    paste(start);
    wait_for("Postfix", LIMIT, || host.postfix.master());
}

/// Where the port of a new service is taken, `postfix check` finds nothing, and the master process ends at the reload, a second
/// or two after the command of the reload has ended well.
#[test]
fn postfix_that_ends_at_the_reload_confirms_nothing() {
    let (old, new) = (Key::new(), Key::new());
    let host = adopted("hash", &old);
    let good = fs::read_to_string(host.postfix.config_dir.join("master.cf")).expect("readable");
    let port = free_port();
    let _taken = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).expect("bound");
    let bad = format!("{good}127.0.0.1:{port} inet n - n - - smtpd\n");

    // With no new version: it is reloaded as somebody changed its configuration.
    edit_master_cf(&host.postfix, &bad);
    ended(&host, &host.sync(&["--wait", "0s"], 75), &good);
    host.sync(&[], 0);

    // In a rollover.
    edit_master_cf(&host.postfix, &bad);
    host.standin.set_key(&new.id, &new.login.password);
    host.publish(new.pair());
    ended(&host, &host.sync(&["--wait", "0s"], 75), &good);
    host.sync(&[], 0).says(&["ses: confirmed", &new.id]);
    assert_eq!(host.send(), new.id);
}

/// A master process that hangs obeys no signal, and its clients go on with the login from before.
#[test]
fn a_frozen_postfix_confirms_nothing() {
    let (old, new) = (Key::new(), Key::new());
    let host = adopted("texthash", &old);
    assert_eq!(host.send(), old.id);
    let master = host.postfix.master().and_then(|pid| Pid::from_raw(pid.cast_signed())).expect("it runs");
    kill_process(master, Signal::STOP).expect("stopped");
    host.standin.set_key(&new.id, &new.login.password);
    host.publish(new.pair());
    let ran = host.sync(&["--wait", "0s"], 75);
    let fix = format!("kill -CONT {}", master.as_raw_nonzero());
    ran.says(&["Postfix was told to reload, but it has not read", "is stopped (SIGSTOP)", &fix]).says_not("confirmed");
    host.relaykey(&["status"]).expect(0).says(&["ses: reload-owed"]);
    paste(&fix);
    host.sync(&[], 0).says(&["ses: confirmed", &new.id]);
    assert_eq!(host.send(), new.id);
}

/// What a reload command does not do, it does not do by ending well.
#[test]
fn a_command_that_reloads_nothing_is_found_out() {
    let (old, new) = (Key::new(), Key::new());
    let host = adopted("texthash", &old);
    host.standin.set_key(&new.id, &new.login.password);
    let source = host.publish(new.pair());
    host.configure(&Setup { source: &source, target: "reload = [\"/bin/true\"]", ..Setup::default() });
    host.sync(&["--wait", "0s"], 75).says(&[
        "the command of `reload` ended without an error, but Postfix has not read",
        "its queue manager is still that from before",
        "let `reload` in the configuration reload this Postfix",
    ]);
    host.configure(&Setup { source: &source, ..Setup::default() });
    host.sync(&[], 0).says(&["ses: confirmed", &new.id]);
}

/// Without a queue manager nothing shows it: that is told, and not refused.
#[test]
fn a_reload_that_nothing_shows_is_a_doubt() {
    let (old, new) = (Key::new(), Key::new());
    let host = Host::new("hash", &old);
    let master_cf = host.postfix.config_dir.join("master.cf");
    let text = fs::read_to_string(&master_cf).expect("readable");
    let without: String =
        text.lines().filter(|line| !line.starts_with("qmgr")).map(|line| format!("{line}\n")).collect();
    assert_ne!(text, without);
    fs::write(&master_cf, &without).expect("written");
    host.postfix.start();
    host.standin.set_key(&new.id, &new.login.password);
    let source = host.publish(new.pair());
    host.configure(&Setup { source: &source, ..Setup::default() });
    host.sync(&[], 0).says(&["ses: confirmed", &new.id]);
    host.relaykey(&["check", "ses"]).says(&["no queue manager (qmgr) of this Postfix is seen", "postconf -c"]);
}

/// Nothing starts a queue manager after the reload, as after two reloads that follow each other closely: it is woken, and then it
/// shows that the reload was taken.
#[test]
fn a_queue_manager_that_nothing_starts_is_woken() {
    let (old, new) = (Key::new(), Key::new());
    let host = adopted("texthash", &old);
    let master_cf = host.postfix.config_dir.join("master.cf");
    let with = fs::read_to_string(&master_cf).expect("readable");
    let of_qmgr = |line: &str| line.split_whitespace().last().is_some_and(|program| program == "qmgr");
    let lines = with.lines().map(|line| match of_qmgr(line) {
        true => "qmgr unix n - n 0 1 qmgr",
        false => line,
    });
    edit_master_cf(&host.postfix, &(lines.collect::<Vec<_>>().join("\n") + "\n"));
    host.standin.set_key(&new.id, &new.login.password);
    host.publish(new.pair());
    let began = Instant::now();
    host.sync(&["--wait", "0s"], 0).says(&["ses: confirmed", &new.id]).says_not("queue manager");
    // Less than what is waited for where none is seen at all: one that was woken has shown it.
    println!("confirmed after {:.1} s", began.elapsed().as_secs_f64());
    assert_eq!(host.send(), new.id);
}
