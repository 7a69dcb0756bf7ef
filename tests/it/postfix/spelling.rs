//! Names in main.cf and master.cf with a byte that is not UTF-8.

use super::*;

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

/// The text of a file, and one byte that is not UTF-8 in the place of each `ä`.
fn put(file: &Path, text: &str) {
    let parts: Vec<&[u8]> = text.split('ä').map(str::as_bytes).collect();
    fs::write(file, parts.join(&b"\xe4"[..])).unwrap();
    lab::cool_down(file);
}

fn in_directory(instance: &Instance) -> Vec<PathBuf> {
    let entries = fs::read_dir(&instance.config_dir).unwrap();
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

/// Postfix opens a file by its bytes, and we would look at, or make, another one.
#[test]
fn a_name_that_is_not_utf_8_is_refused_where_it_leads_to_a_file() {
    for (of_main, of_master, about, file, told_line) in [
        ("smtp_sasl_password_maps = hash:DIR/pässwd", "", "smtp_sasl_password_maps", "main.cf", true),
        (
            "smtp_sasl_password_maps = hash:DIR/sasl_passwd,\n   hash:DIR/pässwd",
            "",
            "smtp_sasl_password_maps",
            "main.cf",
            true,
        ),
        ("mine = DIR/pässwd\nsmtp_sasl_password_maps = hash:$mine", "", "smtp_sasl_password_maps", "main.cf", true),
        ("multi_instance_directories = /etc/pöst /etc/päst", "", "multi_instance_directories", "main.cf", true),
        ("queue_directory = DIR/späol", "", "queue_directory", "main.cf", true),
        ("transport_maps = hash:DIR/ränsport", "", "transport_maps", "main.cf", true),
        (
            "",
            "bulk unix - - n - - smtp\n  -o smtp_sasl_password_maps=hash:DIR/pässwd",
            "smtp_sasl_password_maps of the service bulk",
            "master.cf",
            true,
        ),
        (
            "mine = DIR/pässwd",
            "bulk unix - - n - - smtp\n  -o smtp_sasl_password_maps=hash:$mine",
            "smtp_sasl_password_maps of the service bulk",
            "master.cf",
            false,
        ),
        (
            "",
            "scan inet n - n - - smtpd\n  -o content_filter=scän:",
            "content_filter of the service scan",
            "master.cf",
            false,
        ),
        ("", "bülk unix - - n - - smtp\nbälk unix - - n - - smtp", "its name of the service b", "master.cf", false),
    ] {
        let instance = instance("hash", HOP, Some(&format!("{HOP} {OLD}\n")));
        let dir = instance.config_dir.display().to_string();
        let second = instance.config_dir.join(OsStr::from_bytes(b"p\xe4sswd"));
        fs::write(&second, format!("{HOP} {OLD}\n")).unwrap();
        for (name, more) in [("main.cf", of_main), ("master.cf", of_master)] {
            let path = instance.config_dir.join(name);
            let text = fs::read_to_string(&path).unwrap() + &more.replace("DIR", &dir) + "\n";
            put(&path, &text);
        }
        let before = in_directory(&instance);
        let told = target(&instance).inspect(&applied("AKIAOLD")).unwrap_err();
        complete(&told);
        assert!(told.what.starts_with(about) && told.what.contains("not UTF-8"), "{about}: {told:?}");
        assert!(told.fix.contains("a name in UTF-8"), "{told:?}");
        assert_eq!(
            (told.file.clone(), told.line.is_some()),
            (Some(instance.config_dir.join(file)), told_line),
            "{told:?}"
        );
        if let Some(line) = told.line {
            let bytes = fs::read(instance.config_dir.join(file)).unwrap();
            let line = bytes.split(|b| *b == b'\n').nth(line - 1).unwrap();
            assert!(line.contains(&0xe4), "{told:?}");
        }
        assert_eq!(target(&instance).plan(&applied("AKIAOLD"), &logins(NEW)).unwrap_err().what, told.what);
        assert_eq!(in_directory(&instance), before);
    }
}

/// What is no name of a file of ours may be written in any encoding.
#[test]
fn a_banner_or_a_comment_that_is_not_utf_8_refuses_nothing() {
    let instance = instance("hash", HOP, Some(&format!("{HOP} {OLD}\n")));
    for (name, more) in [
        (
            "main.cf",
            "# für ä\nsmtpd_banner = Grüße, ä\nmine = ä\nsmtpd_client_restrictions = check_client_access inline:{ {x = 550 ä} }\n",
        ),
        ("master.cf", "# ä\nsubmission inet n - n - - smtpd\n  -o smtpd_banner=ä -o syslog_name=ä\n"),
    ] {
        let path = instance.config_dir.join(name);
        put(&path, &(fs::read_to_string(&path).unwrap() + more));
    }
    let view = target(&instance).inspect(&applied("AKIAOLD")).unwrap();
    assert_eq!((errors(&view).len(), view.incomplete), (0, Vec::new()), "{:?}", view.findings);
    target(&instance).plan(&applied("AKIAOLD"), &logins(NEW)).unwrap();
}

/// A program by such a name does not count as one that is not installed.
#[test]
fn a_program_by_a_name_that_is_not_utf_8_is_not_known() {
    for (service, id) in [
        ("out unix - n n - - pipe user=nobody argv=/usr/local/bin/sänd.py", "pipe:out"),
        ("out unix - n n - - pipe user=nobody directory=/ä argv=cat", "pipe:out"),
        ("out unix - n n - - spawn user=nobody argv=/usr/local/bin/sänd.py", "pipe:out"),
        ("local unix - n n - - local -o mailbox_command=/usr/local/bin/sänd", "mailbox_command"),
    ] {
        let instance = instance("hash", HOP, Some(&format!("{HOP} {OLD}\n")));
        let path = instance.config_dir.join("master.cf");
        put(&path, &format!("{}{service}\n", fs::read_to_string(&path).unwrap()));
        let view = target(&instance).inspect(&applied("AKIAOLD")).unwrap();
        assert_eq!(view.incomplete, [id], "{service}");
        let told = view.findings.iter().find(|finding| finding.what.contains("not UTF-8")).expect(service);
        assert_eq!(told.file, Some(path), "{told:?}");
    }
}
