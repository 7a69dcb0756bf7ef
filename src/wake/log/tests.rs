use std::fs::{create_dir_all, rename, write};
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, symlink};

use super::*;

/// A directory of its own, removed at the end.
fn directory() -> tempfile::TempDir {
    tempfile::Builder::new().prefix("relaykey-log-").permissions(fs::Permissions::from_mode(0o700)).tempdir().unwrap()
}

fn append(path: &Path, text: &str) {
    let mut file = File::options().append(true).create(true).open(path).unwrap();
    file.write_all(text.as_bytes()).unwrap();
}

/// Everything that is new, in words.
fn read(tail: &mut Tail) -> Vec<String> {
    let mut all = Vec::new();
    let mut each = |said: LogOutput<'_>| {
        all.push(match said {
            LogOutput::Line(line) => line.to_owned(),
            LogOutput::PassedOver(n) => format!("passed over {n}"),
            LogOutput::Trouble(finding) => panic!("{}", finding.what),
        });
    };
    for _ in 0..10_000 {
        if !tail.read(&mut each).expect("a readable log") {
            return all;
        }
    }
    panic!("there is always more to read");
}

#[test]
fn the_end_of_a_file_is_followed_across_rotation() {
    let scratch = directory();
    let log = scratch.path().join("mail.log");
    append(&log, "old\nhalf of an old ");
    let mut tail = Tail::new(&log);
    assert_eq!(read(&mut tail), [""; 0]);
    append(&log, "line\none\ntw");
    assert_eq!(read(&mut tail), ["one"]);
    append(&log, "o\n");
    assert_eq!(read(&mut tail), ["two"]);

    // Moved aside, written to a little longer, then a new one.
    rename(&log, scratch.path().join("mail.log.1")).unwrap();
    append(&scratch.path().join("mail.log.1"), "three\n");
    assert_eq!(read(&mut tail), ["three"]);
    append(&scratch.path().join("mail.log.1"), "four\n");
    append(&log, "five\n");
    assert_eq!(read(&mut tail), ["four", "five"]);

    // Copied and cut short.
    File::options().write(true).open(&log).unwrap().set_len(0).unwrap();
    append(&log, "six\n");
    assert_eq!(read(&mut tail), ["six"]);
    File::options().write(true).open(&log).unwrap().set_len(0).unwrap();
    assert_eq!(read(&mut tail), [""; 0]);
    append(&log, "eight\n");
    assert_eq!(read(&mut tail), ["eight"]);

    // Removed, then there again.
    fs::remove_file(&log).unwrap();
    assert_eq!(read(&mut tail), [""; 0]);
    append(&log, "nine\n");
    assert_eq!(read(&mut tail), ["nine"]);
}

#[test]
fn a_log_that_comes_later_is_read_from_its_beginning() {
    let scratch = directory();
    let log = scratch.path().join("mail.log");
    let mut tail = Tail::new(&log);
    assert_eq!(read(&mut tail), [""; 0]);
    append(&log, "first\n");
    assert_eq!(read(&mut tail), ["first"]);
}

#[test]
fn what_is_too_much_is_passed_over_and_said() {
    let scratch = directory();
    let log = scratch.path().join("mail.log");
    append(&log, "");
    let mut tail = Tail::new(&log);
    append(&log, &format!("{}\nafter\n{}\n", "x".repeat(MAX_LINE + 1), "y".repeat(MAX_LINE)));
    let said = read(&mut tail);
    assert_eq!(said[..2], [format!("passed over {}", MAX_LINE + 2), "after".into()]);
    assert_eq!(said[2].len(), MAX_LINE, "a line of exactly the limit");

    let line = format!("{}\n", "z".repeat(99));
    append(&log, &line.repeat(30_000));
    let said = read(&mut tail);
    assert_eq!(said[0], format!("passed over {}", 3_000_000 - MAX_BEHIND));
    let lines = (MAX_BEHIND / 100) as usize;
    assert_eq!(said.len() - 1, lines, "whole lines only");
    assert!(said[1..].iter().all(|l| l.len() == 99));
}

#[test]
fn bytes_that_are_no_text_do_no_harm() {
    let scratch = directory();
    let log = scratch.path().join("mail.log");
    write(&log, "").unwrap();
    let mut tail = Tail::new(&log);
    File::options().append(true).open(&log).unwrap().write_all(b"caf\xe9 \xff\0\nnext\n").unwrap();
    assert_eq!(read(&mut tail), ["caf\u{fffd} \u{fffd}\0", "next"]);
}

#[test]
fn what_is_no_file_is_an_error_and_does_not_hold_up() {
    let scratch = directory();
    let pipe = scratch.path().join("mail.log");
    rustix::fs::mkfifoat(rustix::fs::CWD, &pipe, rustix::fs::Mode::RUSR).unwrap();
    let mut tail = Tail::new(&pipe);
    assert_eq!(tail.read(&mut |_| ()).unwrap_err().to_string(), "it is not a regular file");
    let finding = unreadable(&pipe, &tail.read(&mut |_| ()).unwrap_err());
    assert!(finding.what.contains("not a regular file") && finding.fix.contains("`log`"), "{finding:?}");
}

/// Opening a device can do something: what is no file is not opened, wherever a link leads.
#[test]
fn what_is_no_file_is_not_opened() {
    let dir = directory();
    let (pipe, link) = (dir.path().join("pipe"), dir.path().join("mail.log"));
    rustix::fs::mkfifoat(rustix::fs::CWD, &pipe, rustix::fs::Mode::RUSR).unwrap();
    std::os::unix::fs::symlink(&pipe, &link).unwrap();
    let (tell, told) = std::sync::mpsc::channel();
    let mut watcher = notify::recommended_watcher(move |event| _ = tell.send(event)).unwrap();
    notify::Watcher::watch(&mut watcher, dir.path(), notify::RecursiveMode::NonRecursive).unwrap();
    let mut tail = Tail::new(&link);
    assert_eq!(tail.read(&mut |_| ()).unwrap_err().to_string(), "it is not a regular file");
    // What is opened after it is told after it.
    let last = dir.path().join("last");
    fs::write(&last, "").unwrap();
    let opened =
        |event: &notify::Event| matches!(event.kind, notify::EventKind::Access(notify::event::AccessKind::Open(_)));
    for event in told.iter().map(Result::unwrap) {
        assert!(!(opened(&event) && event.paths.contains(&pipe)), "{event:?}");
        if event.paths.contains(&last) {
            break;
        }
    }
}

#[test]
fn the_log_is_found_where_the_host_keeps_it() {
    let now = SystemTime::now();
    let old = now - FRESH * 2;
    let file = |path: &str| LogPlace::File(path.into());
    // Configured, maillog_file, files that exist (old ones with a minus), what is found below the root.
    let cases: [(config::MailLog, Option<&str>, &[&str], Option<LogPlace>); 12] = [
        (config::MailLog::File("/x.log".into()), Some("/y.log"), &["var/log/mail.log"], Some(file("/x.log"))),
        (config::MailLog::Journal, Some("/y.log"), &["var/log/mail.log"], Some(LogPlace::Journal)),
        (config::MailLog::Found, Some("/y.log"), &["var/log/mail.log"], Some(file("/y.log"))),
        (config::MailLog::Found, Some("/dev/stdout"), &["var/log/maillog"], Some(file("var/log/maillog"))),
        (config::MailLog::Found, Some(""), &["var/log/syslog", "var/log/mail.log"], Some(file("var/log/mail.log"))),
        (config::MailLog::Found, None, &["-var/log/mail.log", "var/log/messages"], Some(file("var/log/messages"))),
        (config::MailLog::Found, None, &["-var/log/mail.log", "run/systemd/journal/x"], Some(LogPlace::Journal)),
        (config::MailLog::Found, None, &["-var/log/mail.log", "-var/log/syslog"], Some(file("var/log/mail.log"))),
        (config::MailLog::Found, None, &["var/log/mail/inside"], None),
        (config::MailLog::Found, None, &["-var/log/syslog"], None),
        (config::MailLog::Found, None, &["run/systemd/journal/x"], Some(LogPlace::Journal)),
        (config::MailLog::Found, None, &[], None),
    ];
    for (n, (configured, maillog_file, files, expected)) in cases.into_iter().enumerate() {
        let root = directory();
        for name in files {
            let path = root.path().join(name.trim_start_matches('-'));
            create_dir_all(path.parent().unwrap()).unwrap();
            write(&path, "").unwrap();
            if name.starts_with('-') {
                File::options().write(true).open(&path).unwrap().set_modified(old).unwrap();
            }
        }
        let found = find_below(root.path(), &configured, maillog_file.map(Path::new), now);
        let expected = expected.map(|place| match place {
            LogPlace::File(path) if path.is_relative() => LogPlace::File(root.path().join(path)),
            other => other,
        });
        assert_eq!(found.as_ref().ok(), expected.as_ref(), "case {n}: {found:?}");
    }
}

#[test]
fn an_entry_of_the_journal_that_smtp_wrote_becomes_a_line() {
    let entry = |uid: &str, comm: &str, identifier: &str, message: &str| {
        let json = format!(
            r#"{{"__CURSOR":"s=1","SYSLOG_IDENTIFIER":{identifier},"SYSLOG_PID":"77","MESSAGE":{message},"_UID":{uid},"_COMM":{comm}}}"#
        );
        of_journal(&json, &[0, 102])
    };
    let (postfix, smtp) = (r#""102""#, r#""smtp""#);
    let said = |identifier: &str, message: &str| entry(postfix, smtp, identifier, message);
    assert_eq!(said(r#""postfix/smtp""#, r#""4A: x""#).as_deref(), Some("postfix/smtp[77]: 4A: x"));
    assert_eq!(said(r#""postfix/smtp""#, r#""4A: x\nb""#).as_deref(), Some("postfix/smtp[77]: 4A: x\\nb"));
    assert_eq!(said(r#""postfix/smtp[1]: x""#, r#""4A: x""#), None);
    assert_eq!(said("null", r#""4A: x""#), None);
    assert_eq!(said(r#""postfix/smtp""#, "[1,2]"), None);
    assert_eq!(of_journal("not JSON", &[0, 102]), None);
    // Whoever sends with the name of smtp(8) is not it: the journal knows who sent.
    for (uid, comm) in
        [(r#""1000""#, smtp), (postfix, r#""logger""#), ("null", smtp), (r#""0""#, "null"), (r#""x""#, smtp)]
    {
        assert_eq!(entry(uid, comm, r#""postfix/smtp""#, r#""4A: x""#), None, "{uid} {comm}");
    }
    assert!(entry(r#""0""#, smtp, r#""postfix/smtp""#, r#""4A: x""#).is_some());
    let passwd =
        "root:x:0:0:root:/root:/bin/bash\npostfix:x:102:104::/var/spool/postfix:/usr/sbin/nologin\nuser:x:1000::::\n";
    assert_eq!((senders(passwd), senders("")), (vec![0, 102], vec![0]));
}

/// A program in journalctl's place that says what it was called with, then two entries, and ends.
#[test]
fn the_journal_is_followed_with_a_clean_environment_and_started_again_when_it_ends() {
    let scratch = directory();
    let program = scratch.path().join("journalctl");
    let script = "#!/bin/sh\n\
         echo '{\"SYSLOG_IDENTIFIER\":\"arguments\",\"SYSLOG_PID\":\"1\",\"_UID\":\"0\",\"_COMM\":\"smtp\",\"MESSAGE\":\"'\"$*\"'\"}'\n\
         echo '{\"SYSLOG_IDENTIFIER\":\"environment\",\"SYSLOG_PID\":\"1\",\"_UID\":\"0\",\"_COMM\":\"smtp\",\"MESSAGE\":\"'$(env | cut -d= -f1 | sort | xargs)'\"}'\n\
         echo garbage\n";
    write(&program, script).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o700)).unwrap();
    let link = scratch.path().join("link");
    symlink(&program, &link).unwrap();

    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let mut said = Vec::new();
    runtime.block_on(async {
        let programs = [scratch.path().join("missing"), link];
        let (done, mut is_done) = tokio::sync::mpsc::unbounded_channel();
        let mut each = |what: LogOutput<'_>| {
            said.push(match what {
                LogOutput::Line(line) => line.to_owned(),
                LogOutput::Trouble(finding) => finding.what,
                LogOutput::PassedOver(n) => n.to_string(),
            });
            if said.len() == 4 {
                done.send(()).unwrap();
            }
        };
        tokio::select! {
            () = follow_journal(&programs, &mut each) => unreachable!("it is followed for ever"),
            _ = is_done.recv() => {}
            () = tokio::time::sleep(Duration::from_secs(20)) => panic!("journalctl was not started a second time"),
        }
    });
    assert!(said[0].starts_with("arguments[1]: --follow --lines=0"), "{said:?}");
    assert!(said[0].contains(" _COMM=smtp _UID=0") && !said[0].contains("FACILITY"), "{said:?}");
    // The shell adds some of its own.
    let names: Vec<&str> = said[1].split(' ').skip(1).collect();
    assert!(names.iter().all(|n| ["LANG", "PATH", "PWD", "OLDPWD", "SHLVL", "_"].contains(n)), "{said:?}");
    assert!(said[2].contains("journalctl ended; tried again in 1 s"), "{said:?}");
    assert_eq!(said[3], said[0]);
}
