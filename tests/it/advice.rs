//! What is printed as a fix does no harm: run here, on the set-ups that print it. `field` does the same, judged by mail.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown, symlink};
use std::process::Command;

use relaykey::config::{Finding, Reload, Severity};
use relaykey::credential::{Secret, ses_smtp_password};
use relaykey::mta::postfix::{Postfix, TargetDirectories};
use relaykey::mta::{Mta as _, Ours, Relay};

use crate::lab::postfix::{Instance, Options};
use crate::lab::relaykey::{Host, Key, Setup, keep_secret};

const HOST: &str = "email-smtp.eu-west-1.amazonaws.com";
const HOP: &str = "[email-smtp.eu-west-1.amazonaws.com]:587";
const OLD: &str = "AKIAOLD:oldpassword";
const PATH: &str = "/usr/sbin:/usr/bin:/sbin:/bin";

fn instance(relayhost: &str) -> Instance {
    let table = format!("{HOP} {OLD}\n");
    Instance::new(&Options { map_type: "hash", relayhost, ca_pem: None, table: Some(&table), settings: &[] })
}

fn postfix(instance: &Instance) -> Postfix {
    let relay = Relay {
        endpoint: HOST.into(),
        port: 587,
        region: None,
        endpoint_aliases: vec!["127.0.0.1:2525".into(), "smtp-gateway.internal".into()],
        also: Vec::new(),
    };
    Postfix::new(&instance.config_dir, &relay, None, &Reload::Always)
}

fn findings(instance: &Instance) -> Vec<Finding> {
    postfix(instance).inspect(&Ours::default()).unwrap().findings
}

fn about<'f>(findings: &'f [Finding], what: &str) -> Vec<&'f Finding> {
    findings.iter().filter(|finding| finding.what.contains(what)).collect()
}

/// Into a shell, without the reload of what does not run.
fn paste(fix: &str) {
    let command = fix.split(" && postfix -c").next().unwrap();
    let ran = Command::new("sh").args(["-euc", command]).env("PATH", PATH).status().unwrap();
    assert!(ran.success(), "{command}");
}

fn said_by(program: &str, arguments: &[&str]) -> String {
    let ran = Command::new(program).args(arguments).env("PATH", PATH).output().unwrap();
    String::from_utf8(ran.stdout).unwrap().trim().to_owned()
}

const OPEN: &str = "may go out without TLS";

/// TLS for all mail would keep mail from servers that have none.
#[test]
fn tls_is_asked_for_of_the_one_next_hop() {
    for level in ["may", "none", ""] {
        let instance = instance(HOP);
        let dir = instance.config_dir.display().to_string();
        // What is there stays as it is written.
        fs::write(instance.config_dir.join("policy"), "other.example secure\n").unwrap();
        let there = "texthash:$config_directory/policy";
        instance.set("smtp_tls_policy_maps", there);
        instance.set("smtp_tls_security_level", level);
        let before = findings(&instance);
        let [open] = about(&before, OPEN)[..] else { panic!("{before:?}") };
        assert_eq!(open.severity, Severity::Warning);
        paste(&open.fix);
        assert!(about(&findings(&instance), OPEN).is_empty(), "{:?}", findings(&instance));
        assert_eq!(said_by("postconf", &["-c", &dir, "-h", "smtp_tls_security_level"]), level);
        let policies = said_by("postconf", &["-c", &dir, "-h", "smtp_tls_policy_maps"]);
        assert!(policies.starts_with(there), "{policies}");
        let asked = |key: &str| {
            let inline = policies.split_once(' ').unwrap().1;
            said_by("postmap", &["-c", &dir, "-q", key, inline])
        };
        assert_eq!((asked(HOP).as_str(), asked("other.example").as_str()), ("encrypt", ""));
    }
}

/// Without a level it is what older parameters make it.
#[test]
fn tls_that_older_parameters_ask_for_counts() {
    for (parameter, what) in [("smtp_enforce_tls", None), ("smtp_use_tls", Some("smtp_tls_security_level is may"))] {
        let instance = instance(HOP);
        instance.set("smtp_tls_security_level", "");
        instance.set(parameter, "yes");
        let found = findings(&instance);
        let open = about(&found, OPEN);
        assert_eq!(open.len(), usize::from(what.is_some()), "{found:?}");
        assert!(open.iter().all(|open| open.what.starts_with(what.unwrap_or_default())), "{found:?}");
    }
}

/// A policy that is there counts, whatever kind of table it stands in, and is not overruled.
#[test]
fn a_policy_for_the_next_hop_is_looked_up() {
    let instance = instance(HOP);
    instance.set("smtp_tls_security_level", "may");
    let policy = instance.config_dir.join("policy");
    for (text, open) in
        [(format!("{HOP} secure\n"), 0), (format!("{HOP} may\n"), 1), ("[other]:587 encrypt\n".into(), 1)]
    {
        fs::write(&policy, &text).unwrap();
        for maps in [
            format!("texthash:{}", policy.display()),
            format!("inline:{{ {{{}}} }}", text.trim().replacen(' ', "=", 1)),
        ] {
            instance.set("smtp_tls_policy_maps", &maps);
            let found = findings(&instance);
            assert_eq!(about(&found, OPEN).len(), open, "{maps} {text} {found:?}");
            // Where somebody has decided, it is not decided anew.
            let decided = text.contains("may");
            assert_eq!(about(&found, "smtp_tls_policy_maps says may").len(), usize::from(decided), "{found:?}");
            assert!(!decided || !about(&found, OPEN)[0].fix.contains("postconf"), "{found:?}");
        }
    }
    instance.set("smtp_tls_policy_maps", "texthash:/nonexistent/policy");
    let found = findings(&instance);
    assert_eq!((about(&found, OPEN).len(), about(&found, "cannot be read").len()), (0, 1), "{found:?}");
    assert!(found.iter().all(|finding| finding.severity != Severity::Error), "{found:?}");
}

/// Another service checks the server's certificate: a policy for both would end that.
#[test]
fn no_safeguard_of_another_service_is_loosened() {
    let instance = instance(HOP);
    let dir = instance.config_dir.display().to_string();
    instance.set("smtp_tls_security_level", "may");
    instance.set("relay_transport", &format!("checked:{HOP}"));
    let mut master = fs::read_to_string(instance.config_dir.join("master.cf")).unwrap();
    master += "checked unix - - n - - smtp -o smtp_tls_security_level=secure\n";
    fs::write(instance.config_dir.join("master.cf"), master).unwrap();
    let found = findings(&instance);
    let [open] = about(&found, OPEN)[..] else { panic!("{found:?}") };
    assert!(!open.fix.starts_with("postconf") && open.fix.contains(&format!("{dir}/master.cf")), "{open:?}");
    // Of DANE nothing is taken away either.
    instance.set("smtp_tls_security_level", "dane");
    let found = findings(&instance);
    assert!(!about(&found, OPEN)[0].fix.contains("postconf"), "{found:?}");
}

/// A tunnel on this host does TLS itself, and answers no STARTTLS.
#[test]
fn of_a_tunnel_no_tls_is_asked() {
    let instance = instance("[127.0.0.1]:2525");
    instance.write_table(&format!("[127.0.0.1]:2525 {OLD}\n"));
    instance.postmap();
    instance.set("smtp_tls_security_level", "none");
    instance.set("smtp_sasl_security_options", "noplaintext, noanonymous");
    let found = findings(&instance);
    let [open] = about(&found, OPEN)[..] else { panic!("{found:?}") };
    assert_eq!(open.severity, Severity::Note);
    // Nor are other relays' logins let out in clear by a command.
    let [plain] = about(&found, "contains noplaintext")[..] else { panic!("{found:?}") };
    assert!(!plain.fix.starts_with("postconf"), "{plain:?}");
    assert!(!found.iter().any(|finding| finding.fix.contains("encrypt")), "{found:?}");
}

/// What changes routes, or what other relays need, is said in words.
#[test]
fn what_is_a_decision_is_no_command() {
    let instance = instance(HOP);
    let original = fs::read_to_string(instance.main_cf()).unwrap();
    for (name, value, what) in [
        ("relayhost", "email-smtp.eu-west-1.amazonaws.com:587", "without brackets"),
        ("relayhost", "[email-smtp.eu-west-1.amazonaws.com]:465", "smtp_tls_wrappermode is no"),
        ("relayhost", "", "relayhost is empty"),
        ("smtp_sasl_mechanism_filter", "xoauth2", "neither PLAIN nor LOGIN"),
        ("smtp_cname_overrides_servername", "yes", "CNAME"),
    ] {
        instance.set(name, value);
        let found = findings(&instance);
        let [finding] = about(&found, what)[..] else { panic!("{name} = {value}: {found:?}") };
        assert!(!finding.fix.starts_with("postconf"), "{finding:?}");
        assert!(!finding.fix.contains("postconf") || finding.fix.contains("yours to decide"), "{finding:?}");
        instance.write_main_cf(&original);
    }
    // What lets the logins of all relays go out otherwise is said in words; what else the options exclude stays excluded.
    instance.set("smtp_sasl_tls_security_options", "nodictionary, noplaintext, noanonymous");
    let found = findings(&instance);
    let [plain] = about(&found, "contains noplaintext")[..] else { panic!("{found:?}") };
    assert!(!plain.fix.contains("postconf") && plain.fix.contains("yours to decide"), "{plain:?}");
    assert!(plain.fix.contains("smtp_sasl_tls_security_options = nodictionary, noanonymous"), "{plain:?}");
}

/// Behind a name that somebody gave the endpoint may be a tunnel, which answers no STARTTLS; and what an old `smtp_tls_per_site` says has
/// no effect beside `smtp_tls_policy_maps`.
#[test]
fn a_policy_that_may_stop_mail_is_no_command() {
    for (hop, old, says) in [
        ("[smtp-gateway.internal]:2525", "", "where a tunnel listens there"),
        (HOP, "hash:/etc/postfix/per_site", "smtp_tls_per_site"),
    ] {
        let instance = instance(hop);
        instance.write_table(&format!("{hop} {OLD}\n"));
        instance.postmap();
        instance.set("smtp_tls_security_level", "may");
        instance.set("smtp_tls_per_site", old);
        let found = findings(&instance);
        let [open] = about(&found, OPEN)[..] else { panic!("{hop}: {found:?}") };
        assert!(open.fix.contains(says) && open.fix.contains("yours to decide"), "{open:?}");
        assert!(!open.fix.contains("postconf"), "{open:?}");
    }
}

/// proxymap(8) opens the table with no more rights than Postfix's user has.
#[test]
fn a_table_behind_proxy_is_closed_to_others_and_not_to_postfix() {
    let instance = instance(HOP);
    let (table, map) = (instance.table(), instance.map());
    for file in [&table, &map] {
        fs::set_permissions(file, fs::Permissions::from_mode(0o644)).unwrap();
    }
    instance.set("smtp_sasl_password_maps", &format!("proxy:hash:{}", table.display()));
    let found = findings(&instance);
    let open = about(&found, "every local user can read");
    assert_eq!(open.len(), 2, "{found:?}");
    open.iter().for_each(|finding| paste(&finding.fix));
    let group: u32 = said_by("id", &["-g", "postfix"]).parse().unwrap();
    for file in [&table, &map] {
        let meta = fs::metadata(file).unwrap();
        assert_eq!((meta.mode() & 0o777, meta.gid()), (0o640, group), "{}", file.display());
    }
}

/// Where the table may be another instance's too, that one's proxymap(8) may have to read it.
#[test]
fn a_table_that_another_instance_may_have_is_not_closed_to_its_proxymap() {
    let instance = instance(HOP);
    let (table, map) = (instance.table(), instance.map());
    let open_to_all = || {
        for file in [&table, &map] {
            fs::set_permissions(file, fs::Permissions::from_mode(0o644)).unwrap();
        }
    };
    open_to_all();
    let alone = findings(&instance);
    about(&alone, "every local user can read").iter().for_each(|finding| paste(&finding.fix));
    assert_eq!(fs::metadata(&table).unwrap().mode() & 0o007, 0);
    open_to_all();
    let all = vec![instance.config_dir.clone(), "/etc/postfix-second".into()];
    let beside = TargetDirectories { of_credential: all.clone(), of_all: all, ..TargetDirectories::default() };
    let found = postfix(&instance).beside(beside).inspect(&Ours::default()).unwrap().findings;
    let open = about(&found, "every local user can read");
    assert_eq!(open.len(), 2, "{found:?}");
    open.iter().for_each(|finding| paste(&finding.fix));
    let group: u32 = said_by("id", &["-g", "postfix"]).parse().unwrap();
    for file in [&table, &map] {
        let meta = fs::metadata(file).unwrap();
        assert_eq!((meta.mode() & 0o777, meta.gid()), (0o640, group), "{}", file.display());
    }
}

/// proxymap(8) has to get through every directory on the way.
#[test]
fn a_directory_that_proxymap_does_not_get_through_is_told() {
    let instance = instance(HOP);
    let closed = instance.config_dir.join("closed");
    fs::create_dir(&closed).unwrap();
    let group: u32 = said_by("id", &["-g", "postfix"]).parse().unwrap();
    for (file, name) in [(instance.table(), "sasl_passwd"), (instance.map(), "sasl_passwd.db")] {
        fs::copy(file, closed.join(name)).unwrap();
        fs::set_permissions(closed.join(name), fs::Permissions::from_mode(0o640)).unwrap();
        chown(closed.join(name), None, Some(group)).unwrap();
    }
    instance.set("smtp_sasl_password_maps", &format!("proxy:hash:{}", closed.join("sasl_passwd").display()));
    for (mode, told) in [(0o700, 1), (0o755, 0)] {
        fs::set_permissions(&closed, fs::Permissions::from_mode(mode)).unwrap();
        let found = findings(&instance);
        let through = about(&found, "does not get through this directory");
        assert_eq!(through.len(), told, "{mode:o}: {found:?}");
        assert!(through.iter().all(|told| told.file.as_ref() == Some(&closed)), "{through:?}");
    }
}

/// Where TLS begins with the first byte smtp(8) wants a level that has TLS always.
#[test]
fn a_wrapped_connection_without_a_level_is_an_error() {
    let hop = "[email-smtp.eu-west-1.amazonaws.com]:465";
    for (level, told) in [("may", 1), ("none", 1), ("encrypt", 0), ("secure", 0)] {
        let instance = instance(hop);
        instance.write_table(&format!("{hop} {OLD}\n"));
        instance.postmap();
        instance.set("smtp_tls_wrappermode", "yes");
        instance.set("smtp_tls_security_level", level);
        let found = findings(&instance);
        let waits = about(&found, "smtp_tls_wrappermode = yes, and the level");
        assert_eq!(waits.len(), told, "{level}: {found:?}");
        for finding in waits {
            assert_eq!(finding.severity, Severity::Error);
            paste(&finding.fix);
            assert!(about(&findings(&instance), "smtp_tls_wrappermode = yes, and the level").is_empty());
        }
    }
}

/// Daemons open no texthash: with a key twice, from our own reload on.
#[test]
fn a_routing_text_with_a_key_twice_is_an_error() {
    let instance = instance(HOP);
    let routes = instance.config_dir.join("transport");
    let line = "a.example smtp:[direct.example]\n";
    for (kind, text, told) in [
        ("texthash", format!("{line}{line}"), 1),
        ("proxy:texthash", format!("{line}# b\nA.example smtp:[b]\n"), 1),
        ("texthash", line.to_owned(), 0),
        // Of patterns each may be there as often as somebody likes.
        ("cidr", "10.0.0.1 smtp:[b]\n10.0.0.1 smtp:[b]\n".to_owned(), 0),
    ] {
        fs::write(&routes, &text).unwrap();
        instance.set("transport_maps", &format!("{kind}:{}", routes.display()));
        let found = findings(&instance);
        let twice = about(&found, "have the same key");
        assert_eq!(twice.len(), told, "{kind} {text}: {found:?}");
        for finding in twice {
            assert_eq!(finding.severity, Severity::Error);
            assert!(finding.file.as_ref() == Some(&routes) && finding.line.is_some_and(|line| line > 1), "{finding:?}");
        }
    }
}

/// A text that comes back from its map is what the map was: owner, mode, and nobody else can read it meanwhile.
#[test]
fn a_text_comes_back_with_owner_and_mode() {
    for mode in [0o600, 0o640, 0o644] {
        let instance = instance(HOP);
        let (table, map) = (instance.table(), instance.map());
        let group: u32 = said_by("id", &["-g", "postfix"]).parse().unwrap();
        std::os::unix::fs::chown(&map, Some(0), Some(group)).unwrap();
        fs::set_permissions(&map, fs::Permissions::from_mode(mode)).unwrap();
        fs::remove_file(&table).unwrap();
        let found = findings(&instance);
        let fix = &about(&found, "the text is gone")[0].fix;
        let command = fix.split_once(" with: ").unwrap().1.rsplit_once("; sync does without it").unwrap().0;
        paste(command);
        let meta = fs::metadata(&table).unwrap();
        assert_eq!((meta.mode() & 0o777, meta.uid(), meta.gid()), (mode & 0o640, 0, group));
        assert_eq!(fs::read_to_string(&table).unwrap(), format!("{HOP}\t{OLD}\n"));
        assert!(about(&findings(&instance), "the text is gone").is_empty());
    }
}

/// The table holds what the password is derived from, or what SES took once.
#[test]
fn a_secret_access_key_for_a_password_is_named_and_not_shown() {
    let secret = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY";
    let instance = instance(HOP);
    for (password, what) in [(secret, Some("an AWS secret access key (40 characters)")), ("somepassword", None)] {
        instance.write_table(&format!("# a comment\n{HOP} AKIAIOSFODNN7EXAMPLE:{password}\n"));
        instance.postmap();
        let found = findings(&instance);
        let named = about(&found, "SES refuses it with 535");
        assert_eq!(named.len(), usize::from(what.is_some()), "{found:?}");
        for finding in named {
            assert!(finding.what.contains(what.unwrap()) && finding.line == Some(2), "{finding:?}");
            assert_eq!(finding.severity, Severity::Warning);
        }
        assert!(!format!("{found:?}").contains(password), "{found:?}");
    }
}

/// What something else makes anew is told apart from what cannot be written.
#[test]
fn a_table_of_a_generation_is_named() {
    for (link, target, what) in [
        ("secrets", "secrets.d/1", "next activation"),
        ("..data", "..2026_11_29_10_00_00.123", "as Kubernetes mounts a Secret"),
        ("plain", "elsewhere", ""),
    ] {
        let instance = instance(HOP);
        let base = instance.base.join("run");
        fs::create_dir_all(base.join(target)).unwrap();
        symlink(target, base.join(link)).unwrap();
        let text = base.join(target).join("sasl_passwd");
        fs::write(&text, format!("{HOP} {OLD}\n")).unwrap();
        fs::set_permissions(&text, fs::Permissions::from_mode(0o600)).unwrap();
        instance.set("smtp_sasl_password_maps", &format!("texthash:{}/sasl_passwd", base.join(link).display()));
        let found = findings(&instance);
        let named = about(&found, "it lies behind");
        assert_eq!(named.len(), usize::from(!what.is_empty()), "{found:?}");
        assert!(named.iter().all(|finding| finding.what.contains(what)), "{found:?}");
        assert!(found.iter().all(|finding| finding.severity != Severity::Error), "{found:?}");
    }
}

/// What cannot be written is said before there is anything to write, on a host without state: at the first rotation it is too late.
#[test]
fn what_cannot_be_written_is_said_on_the_first_day() {
    let key = Key::new();
    let host = Host::new("hash", &key);
    let source = host.publish(key.pair());
    host.configure(&Setup { source: &source, ..Setup::default() });
    // It does not run: else it would be seen that it has other files than a shell with mounts of its own.
    host.relaykey(&["check", "--offline"]).expect(0);
    let program = env!("CARGO_BIN_EXE_relaykey");
    let dir = host.postfix.config_dir.clone();
    let mount = |name: &str| format!("cp -p \"$2/{name}\" \"$2/kept\" && mount --bind \"$2/kept\" \"$2/{name}\"");
    let maps = |value: &str| format!("postconf -c \"$2\" -e 'smtp_sasl_password_maps = {value}'");
    for (what, prepare, named, fix) in [
        (
            "read only",
            "mount --bind \"$2\" \"$2\" && mount -o remount,ro,bind \"$2\"".into(),
            "Read-only",
            "ReadWritePaths=",
        ),
        ("an immutable text", "chattr +i \"$2/sasl_passwd\"".into(), "sasl_passwd", "chattr -i"),
        ("an immutable map", "chattr +i \"$2/sasl_passwd.db\"".into(), "sasl_passwd.db", "chattr -i"),
        ("a directory for more files alone", "chattr +a \"$2\"".into(), "replace a file in", "chattr -a"),
        ("a text mounted alone", mount("sasl_passwd"), "mount", "directory"),
        ("a map mounted alone", mount("sasl_passwd.db"), "mount", "directory"),
        ("of another user", "chown nobody \"$2\"".into(), "belongs to", "chown -h root"),
        ("in main.cf", maps("static:AKIASTATIC:pw"), "main.cf itself", "move the relay"),
        ("in main.cf, by keys", maps("inline:{ { a.example = AKIASTATIC:pw } }"), "main.cf itself", "move the relay"),
        ("in a directory service", maps("ldap:/etc/ldap.cf"), "in a database", "move the relay"),
        ("in a database", maps("proxy:mysql:/etc/sql.cf"), "proxymap(8) opens it", "move the relay"),
        ("by patterns", maps("pcre:/etc/patterns"), "matches patterns", "move the relay"),
    ] {
        let main_cf = fs::read(host.postfix.main_cf()).unwrap();
        let script = format!("{prepare} && exec \"$0\" --config \"$1\" check --offline");
        let output = Command::new("unshare")
            .args(["--mount", "--propagation", "private", "sh", "-c", &script, program])
            .args([&host.path("config.toml"), &dir])
            .env("PATH", PATH)
            .output()
            .unwrap();
        let said = String::from_utf8(output.stdout).unwrap();
        for marked in ["", "sasl_passwd", "sasl_passwd.db"] {
            let _ = Command::new("chattr").arg("-ia").arg(dir.join(marked)).env("PATH", PATH).status();
        }
        std::os::unix::fs::chown(&dir, Some(0), None).unwrap();
        let _ = fs::remove_file(dir.join("kept"));
        fs::write(host.postfix.main_cf(), main_cf).unwrap();
        crate::lab::postfix::cool_down(&host.postfix.main_cf());
        assert_eq!(output.status.code(), Some(1), "{what}: {said}");
        let lines: Vec<&str> = said.lines().collect();
        let is_it = |pair: &&[&str]| pair[0].starts_with("error") && pair[0].contains(named) && pair[1].contains(fix);
        assert!(lines.windows(2).any(|pair| is_it(&pair)), "{what}: {said}");
    }
    host.relaykey(&["check", "--offline"]).expect(0);
}

/// One key has one password for each region: what stands in the table is compared with what the source gives.
#[test]
fn another_password_of_the_key_is_named_for_what_it_is() {
    let key = Key::new();
    let host = Host::new("hash", &key);
    let source = host.publish(key.iam_json());
    host.configure(&Setup { source: &source, ..Setup::default() });
    host.postfix.start();
    let elsewhere = ses_smtp_password(&Secret::new(key.secret.clone()), "ap-south-1");
    keep_secret(elsewhere.expose());
    let check = |password: &str| {
        host.postfix.write_table(&format!("{} {}:{password}\n", host.hop(), key.id));
        host.postfix.postmap();
        host.relaykey(&["check"])
    };
    let (regional, other) = ("has the password for ap-south-1", "has another password than the source's");
    check(key.password()).expect(0).says_not("SES refuses it with 535");
    check(elsewhere.expose()).expect(0).says(&[regional]).says_not(other);
    check(&key.secret).expect(0).says(&[other, "an AWS secret access key (40 characters)"]);
    // From a ready one no other is derived.
    host.publish(key.pair());
    check(elsewhere.expose()).expect(0).says(&[other]).says_not(regional);
    host.sync(&[], 0);
    host.relaykey(&["check"]).expect(0).says_not("SES refuses it with 535");
}

/// A table that is named and is not there would keep all mail back, wherever it goes.
#[test]
fn a_login_table_is_made_before_it_is_named() {
    let instance = instance(HOP);
    let dir = instance.config_dir.display().to_string();
    fs::remove_file(instance.table()).unwrap();
    fs::remove_file(instance.map()).unwrap();
    instance.set("smtp_sasl_password_maps", "");
    let found = findings(&instance);
    paste(&about(&found, "smtp_sasl_password_maps is empty")[0].fix);
    let named = said_by("postconf", &["-c", &dir, "-h", "smtp_sasl_password_maps"]);
    assert!(named.ends_with("/sasl_passwd"), "{named}");
    let asked = Command::new("postmap").args(["-c", &dir, "-q", "nobody", &named]).env("PATH", PATH).output().unwrap();
    assert_eq!((asked.status.code(), asked.stderr.len()), (Some(1), 0), "{named}: {asked:?}");
    assert_eq!(fs::metadata(instance.table()).unwrap().mode() & 0o777, 0o600);
    assert!(about(&findings(&instance), "smtp_sasl_password_maps").is_empty(), "{:?}", findings(&instance));
}

/// A service of its own whose tables cannot be written gets one that can: by the command of the fix, and for itself alone.
#[test]
fn a_service_whose_tables_cannot_be_written_gets_one_by_the_command_of_each_error() {
    for (map, text, what) in [
        // It has our login, or none for the endpoint while nothing is ours yet.
        (
            format!("static:{OLD}"),
            format!("{HOP} {OLD}\n"),
            "it holds a login of this credential in a table that relaykey cannot write",
        ),
        ("cidr:DIR/patterns".into(), "other.example other:password\n".into(), "relaykey can write none of them"),
    ] {
        let instance = instance(HOP);
        let dir = instance.config_dir.display().to_string();
        fs::write(instance.config_dir.join("patterns"), "192.0.2.0/24 other:password\n").unwrap();
        instance.write_table(&text);
        instance.postmap();
        instance.set("transport_maps", &format!("inline:{{ {{bulk.example = bulk:{HOP}}} }}"));
        let map = map.replace("DIR", &dir);
        let master_cf = instance.config_dir.join("master.cf");
        let entry = format!("bulk unix - - n - - smtp\n  -o smtp_sasl_password_maps={map}\n");
        fs::write(&master_cf, fs::read_to_string(&master_cf).unwrap() + &entry).unwrap();
        crate::lab::postfix::cool_down(&master_cf);
        let of_main = said_by("postconf", &["-c", &dir, "-h", "smtp_sasl_password_maps"]);
        let found = findings(&instance);
        let [error] = about(&found, what)[..] else { panic!("{map}: {found:?}") };
        assert_eq!(error.severity, Severity::Error, "{error:?}");
        paste(&error.fix);
        crate::lab::postfix::cool_down(&master_cf);
        let first = format!("hash:{dir}/sasl_passwd_relay");
        let named = said_by("postconf", &["-c", &dir, "-P", "-h", "bulk/unix/smtp_sasl_password_maps"]);
        assert_eq!(named, format!("{first},{map}"));
        assert_eq!(said_by("postconf", &["-c", &dir, "-h", "smtp_sasl_password_maps"]), of_main);
        // One is enough: the rest is said in words, or done by relaykey.
        let found = findings(&instance);
        let into = format!("move the relay's login, with its key, into {first}, which relaykey can write");
        assert!(about(&found, what).iter().all(|error| error.fix == into), "{found:?}");
        assert!(
            about(&found, "it has no entry for").iter().all(|missing| !missing.fix.contains("postconf")),
            "{found:?}"
        );
    }
}

/// Where one service logs in and another does not, no command has all of them log in: one without a table would end.
#[test]
fn no_command_has_services_log_in_that_have_no_table() {
    let instance = instance(HOP);
    let table = format!("hash:{}", instance.table().display());
    instance.set("smtp_sasl_auth_enable", "no");
    instance.set("smtp_sasl_password_maps", "");
    instance.set("transport_maps", &format!("inline:{{ {{ses.example = ses:{HOP}}} }}"));
    let master_cf = instance.config_dir.join("master.cf");
    let entry =
        format!("ses unix - - n - - smtp\n  -o smtp_sasl_auth_enable=yes\n  -o smtp_sasl_password_maps={table}\n");
    fs::write(&master_cf, fs::read_to_string(&master_cf).unwrap() + &entry).unwrap();
    crate::lab::postfix::cool_down(&master_cf);
    let found = findings(&instance);
    let about = about(&found, "smtp_sasl_auth_enable");
    assert!(!about.is_empty(), "{found:?}");
    for finding in about {
        assert!(!finding.fix.contains("postconf") && finding.fix.contains("ses"), "{finding:?}");
        assert!(!finding.what.contains("whatever the table holds"), "{finding:?}");
    }
}

/// Where a login that is not ours answers, it is for a person to say what is to be; and where to.
#[test]
fn a_login_in_the_way_moves_into_the_table_beside() {
    let instance = instance(HOP);
    instance.write_table("other.example other:password\n");
    instance.postmap();
    let table = format!("hash:{}", instance.table().display());
    instance.set("smtp_sasl_password_maps", &format!("{table} static:else:password"));
    let found = findings(&instance);
    let [found] = about(&found, "has another login for")[..] else { panic!("{found:?}") };
    assert!(found.fix.contains("correct endpoint") && found.fix.contains(&format!("into {table}")), "{found:?}");
}

/// Beside a table that cannot be written this very instance gets one of its own: new, asked first, and with nothing in it.
#[test]
fn a_table_that_cannot_be_written_gets_one_of_this_instance_in_front() {
    for (map, in_service) in [
        ("ldap:/etc/ldap.cf", false),
        ("static:AKIASTATIC:pw", false),
        ("inline:{ { a.example = AKIASTATIC:pw } }", false),
        ("ldap:/etc/ldap.cf", true),
    ] {
        let instance = instance(HOP);
        let dir = instance.config_dir.display().to_string();
        let old = fs::read_to_string(instance.table()).unwrap();
        let (named, file) = match in_service {
            false => (vec!["-c", &dir, "-h", "smtp_sasl_password_maps"], "main.cf"),
            true => (vec!["-c", &dir, "-P", "-h", "smtp/unix/smtp_sasl_password_maps"], "master.cf"),
        };
        match in_service {
            false => instance.set("smtp_sasl_password_maps", map),
            true => {
                let set = format!("smtp/unix/smtp_sasl_password_maps={map}");
                let main = ["-c", &dir, "-e", "smtp_sasl_password_maps ="];
                for arguments in [&main[..], &["-c", &dir, "-P", &set]] {
                    assert!(Command::new("postconf").args(arguments).env("PATH", PATH).status().unwrap().success());
                }
                crate::lab::postfix::cool_down(&instance.config_dir.join("main.cf"));
                crate::lab::postfix::cool_down(&instance.config_dir.join("master.cf"));
            }
        }
        let found = findings(&instance);
        let [cannot] = about(&found, "which relaykey cannot write")[..] else { panic!("{map}: {found:?}") };
        assert_eq!(cannot.file, Some(instance.config_dir.join(file)), "{cannot:?}");
        assert!(cannot.fix.contains(&dir) && !cannot.fix.contains("/etc/postfix"), "{cannot:?}");
        paste(&cannot.fix);
        crate::lab::postfix::cool_down(&instance.config_dir.join(file));
        let (new, id) = (instance.config_dir.join("sasl_passwd_relay"), said_by("postconf", &named));
        let (first, rest) = id.split_once([' ', ',']).unwrap();
        assert_eq!((first, rest), (format!("hash:{}", new.display()).as_str(), map));
        // The file that was there holds old logins: it does not come into use, and is not touched.
        assert_eq!(fs::read_to_string(instance.table()).unwrap(), old);
        assert_eq!((fs::metadata(&new).unwrap().len(), fs::metadata(&new).unwrap().mode() & 0o777), (0, 0o600));
        let asked = Command::new("postmap").args(["-c", &dir, "-q", HOP, first]).env("PATH", PATH).output().unwrap();
        assert_eq!((asked.status.code(), asked.stderr.len()), (Some(1), 0), "{asked:?}");
        // One is enough.
        let found = findings(&instance);
        let [note] = about(&found, "which relaykey cannot write")[..] else { panic!("{map}: {found:?}") };
        assert_eq!(note.severity, Severity::Note);
        assert!(note.fix.contains(&format!("into {first}")) && !note.fix.contains("postconf"), "{note:?}");
    }
}

/// The file is what people have at hand.
#[test]
fn a_configuration_file_for_its_directory_is_named() {
    let instance = instance(HOP);
    let relay =
        Relay { endpoint: HOST.into(), port: 587, region: None, endpoint_aliases: Vec::new(), also: Vec::new() };
    for (name, fix) in
        [("main.cf", format!("config_dir = {:?}", instance.config_dir)), ("sasl_passwd/x", "namei -l".to_owned())]
    {
        let at = instance.config_dir.join(name);
        let fault = Postfix::new(&at, &relay, None, &Reload::Always).inspect(&Ours::default()).unwrap_err();
        assert!(fault.fix.contains(&fix), "{name}: {fault:?}");
        assert!(!fault.fix.contains("dmesg"), "{name}: {fault:?}");
    }
}
