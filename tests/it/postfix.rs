//! The Postfix target against real Postfix: private configurations for what only reads, a private instance for what
//! runs.

mod searches;
mod spelling;

use crate::lab::postfix as lab;

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use lab::{Instance, Options};
use relaykey::config::{Finding, Reload, Severity};
use relaykey::credential::{LocalKey, Login, NOT_SHOWN};
use relaykey::fault::{Class, Fault};
use relaykey::mta::postfix::Postfix;
use relaykey::mta::{Answer, ByHand, Content, Logins, Mta, Ours, Plan, Relay, Running, View};

const HOST: &str = "email-smtp.eu-west-1.amazonaws.com";
const HOP: &str = "[email-smtp.eu-west-1.amazonaws.com]:587";
const OLD: &str = "AKIAOLD:oldpassword";
const NEW: &str = "AKIANEW:newpassword";
const KINDS: [&str; 5] = ["hash", "btree", "lmdb", "cdb", "texthash"];

fn logins(pair: &str) -> Logins {
    login(pair).into()
}

fn login(pair: &str) -> Login {
    Login::from_pair(pair).unwrap()
}

fn instance(map_type: &str, relayhost: &str, table: Option<&str>) -> Instance {
    Instance::new(&Options { map_type, relayhost, ca_pem: None, table, settings: &[] })
}

fn relay() -> Relay {
    Relay {
        endpoint: HOST.into(),
        port: 587,
        region: None,
        endpoint_aliases: vec!["relay.internal".into()],
        also: Vec::new(),
    }
}

fn target(instance: &Instance) -> Postfix {
    Postfix::new(&instance.config_dir, &relay(), None, &Reload::Always)
}

fn with_keys(instance: &Instance, keys: &[&str]) -> Postfix {
    let keys = keys.iter().map(|key| (*key).to_owned()).collect();
    Postfix::new(&instance.config_dir, &relay(), Some(keys), &Reload::Always)
}

fn applied(user: &str) -> Ours {
    Ours { applied: Some(user.into()), previous: None, ..Ours::default() }
}

/// What `apply` does with a plan, without its care: stage, compile, look up, rename.
fn put(postfix: &Postfix, instance: &Instance, plan: &Plan, candidate: &Login) {
    let staged = instance.config_dir.join(".staged");
    let _ = fs::remove_file(&staged);
    let text = plan.files().find_map(|file| match &file.content {
        Content::Bytes(bytes) | Content::CompiledOf(bytes) => Some(bytes.to_vec()),
        Content::Compiled { .. } => None,
    });
    fs::write(&staged, text.unwrap_or_else(|| fs::read(instance.table()).unwrap())).unwrap();
    fs::set_permissions(&staged, fs::Permissions::from_mode(0o600)).unwrap();
    lab::cool_down(&staged);
    let compiled = plan.files().any(|file| !matches!(file.content, Content::Bytes(_)));
    let [table] = plan.tables.as_slice() else { panic!("{plan:?}") };
    let map = compiled.then(|| postfix.compile(&table.id, &staged).unwrap());
    let keys = lookups(plan);
    for (key, found) in keys.iter().zip(postfix.lookup(&table.id, Some(&staged), &keys).unwrap()) {
        assert_eq!(found.login(), Some(candidate), "{key} in the staged table");
    }
    for file in plan.files() {
        match file.content {
            Content::Bytes(_) => fs::rename(&staged, &file.path).unwrap(),
            Content::Compiled { .. } | Content::CompiledOf(_) => fs::rename(map.as_ref().unwrap(), &file.path).unwrap(),
        }
    }
    let _ = fs::remove_file(&staged);
    for file in [instance.table(), instance.map()].iter().filter(|file| file.exists()) {
        lab::cool_down(file);
    }
}

/// Key, line, and the logins in the text and in the map.
type Seen = (String, Option<usize>, Option<String>, Option<String>);

fn live(view: &View) -> Vec<Seen> {
    let pair = |login: &Option<Login>| login.as_ref().map(|l| format!("{}:{}", l.username, l.password.expose()));
    view.entries.iter().map(|e| (e.key.clone(), e.line, pair(&e.text), pair(&e.live))).collect()
}

fn errors(view: &View) -> Vec<&Finding> {
    view.findings.iter().filter(|f| f.severity == Severity::Error).collect()
}

fn text_of(plan: &Plan) -> String {
    plan.files()
        .find_map(|file| match &file.content {
            Content::Bytes(bytes) | Content::CompiledOf(bytes) => Some(String::from_utf8(bytes.to_vec()).unwrap()),
            Content::Compiled { .. } => None,
        })
        .expect("the plan changes the text")
}

fn lookups(plan: &Plan) -> Vec<String> {
    plan.tables[0].lookups.iter().map(|wanted| wanted.key.clone()).collect()
}

fn paths(plan: &Plan) -> Vec<PathBuf> {
    plan.files().map(|file| file.path.clone()).collect()
}

/// An error tells file, reason and fix, and no password.
fn complete(e: &Fault) {
    assert!(!e.what.is_empty() && !e.fix.is_empty(), "{e:?}");
    assert!(!format!("{e:?}").contains("password "), "{e:?}");
    for secret in ["oldpassword", "newpassword", "otherpassword"] {
        assert!(!format!("{e:?}").contains(secret), "a password in {e:?}");
    }
}

#[test]
fn every_kind_from_old_to_new() {
    for kind in KINDS {
        let text = format!("# relays\n[smtp.other.example]:587\tother:otherpassword\n{HOP}\t{OLD}\n");
        let instance = instance(kind, HOP, Some(&text));
        let postfix = target(&instance);
        let view = postfix.inspect(&Ours::default()).unwrap();
        assert_eq!(live(&view), [(HOP.into(), Some(3), Some(OLD.into()), Some(OLD.into()))], "{kind}");
        assert_eq!(view.entries[0].table.as_str(), format!("{kind}:{}", instance.table().display()));
        assert_eq!((view.running, view.missing.len()), (Running::No, 0), "{kind}");
        assert!(errors(&view).is_empty() && view.entries[0].is_live_key, "{kind}: {:?}", view.findings);

        let candidate = login(NEW);
        let plan = postfix.plan(&Ours::default(), &candidate.clone().into()).unwrap();
        let indexed = kind != "texthash";
        let expected = if indexed { vec![instance.table(), instance.map()] } else { vec![instance.table()] };
        assert_eq!(paths(&plan), expected, "{kind}");
        assert_eq!((lookups(&plan), plan.reload_needed), (vec![HOP.to_owned()], !indexed), "{kind}");
        assert_eq!(text_of(&plan), text.replace(OLD, NEW), "{kind}");
        for file in plan.files() {
            let seen = file.seen.expect("it exists");
            let now = fs::metadata(&file.path).unwrap();
            assert_eq!((seen.dev, seen.ino, seen.size), (now.dev(), now.ino(), now.size()), "{kind}");
        }
        assert!(plan.diff[0].contains("AKIAOLD:*** -> AKIANEW:***"), "{:?}", plan.diff);
        assert!(!format!("{plan:?}").contains("newpassword") && !format!("{plan:?}").contains("oldpassword"));

        put(&postfix, &instance, &plan, &candidate);
        let view = postfix.inspect(&applied("AKIANEW")).unwrap();
        assert_eq!(live(&view), [(HOP.into(), Some(3), Some(NEW.into()), Some(NEW.into()))], "{kind}");
        let found = postfix.lookup(
            &plan.tables[0].id,
            None,
            &[HOP.into(), "nothing".into(), "[SMTP.other.example]:587".into()],
        );
        let found: Vec<_> = found.unwrap().iter().map(|answer| answer.login().map(|l| l.username.clone())).collect();
        assert_eq!(found, [Some("AKIANEW".into()), None, Some("other".into())], "{kind}");
        let again = postfix.plan(&applied("AKIANEW"), &candidate.clone().into()).unwrap();
        assert!(again.is_empty() && again.diff.is_empty(), "{kind}: {again:?}");
        assert_eq!(lookups(&again), [HOP], "{kind}");
    }
}

#[test]
fn a_new_text_with_an_old_map_needs_only_the_map() {
    for kind in ["hash", "btree", "lmdb", "cdb"] {
        let instance = instance(kind, HOP, Some(&format!("{HOP} {OLD}\n")));
        instance.write_table(&format!("{HOP} {NEW}\n"));
        let postfix = target(&instance);
        let view = postfix.inspect(&applied("AKIAOLD")).unwrap();
        assert_eq!(live(&view), [(HOP.into(), Some(1), Some(NEW.into()), Some(OLD.into()))], "{kind}");
        assert!(errors(&view).is_empty(), "{kind}: a killed run is no reason to stop: {:?}", view.findings);
        let plan = postfix.plan(&applied("AKIAOLD"), &logins(NEW)).unwrap();
        assert_eq!(paths(&plan), [instance.map()], "{kind}");
        assert!(matches!(plan.files().next().unwrap().content, Content::Compiled { .. }), "{kind}");
        put(&postfix, &instance, &plan, &login(NEW));
        assert!(postfix.plan(&applied("AKIAOLD"), &logins(NEW)).unwrap().is_empty(), "{kind}");
    }
}

#[test]
fn a_key_that_only_the_map_still_has_is_seen_and_compiled_away_if_it_holds_ours() {
    for (theirs, is_ours) in [(OLD, true), ("other:otherpassword", false)] {
        let instance = instance("hash", HOP, Some(&format!("{HOST} {theirs}\n{HOP} {NEW}\n")));
        instance.write_table(&format!("{HOP} {NEW}\n"));
        let postfix = target(&instance);
        let view = postfix.inspect(&applied("AKIAOLD")).unwrap();
        assert!(live(&view).contains(&(HOST.into(), None, None, Some(theirs.into()))), "{:?}", live(&view));
        assert_eq!(errors(&view).is_empty(), is_ours, "{:?}", view.findings);
        // Even where our own key is right already: Postfix would find the other one first.
        match postfix.plan(&applied("AKIAOLD"), &logins(NEW)) {
            Ok(plan) => assert!(is_ours && paths(&plan) == [instance.map()]),
            Err(e) => assert!(!is_ours && e.class == Class::Ambiguous && e.what.contains(NOT_SHOWN), "{e:?}"),
        }
    }
}

#[test]
fn a_missing_or_broken_map_is_a_finding_and_mended() {
    for damage in ["missing", "empty", "cut"] {
        let instance = instance("hash", HOP, Some(&format!("{HOP} {NEW}\n")));
        match damage {
            "missing" => fs::remove_file(instance.map()).unwrap(),
            "empty" => fs::write(instance.map(), "").unwrap(),
            _ => fs::write(instance.map(), "these are no Berkeley DB pages").unwrap(),
        }
        let postfix = target(&instance);
        let view = postfix.inspect(&Ours::default()).unwrap();
        assert_eq!(live(&view), [(HOP.into(), Some(1), Some(NEW.into()), None)], "{damage}");
        let named = view.findings.iter().any(|f| f.severity == Severity::Warning && f.what.contains("mail waits"));
        assert!(named, "{damage}: {:?}", view.findings);
        let plan = postfix.plan(&Ours::default(), &logins(NEW)).unwrap();
        assert_eq!(paths(&plan), [instance.map()], "{damage}");
        assert_eq!(plan.files().next().unwrap().seen.is_none(), damage == "missing");
        put(&postfix, &instance, &plan, &login(NEW));
        assert!(postfix.plan(&Ours::default(), &logins(NEW)).unwrap().is_empty(), "{damage}");
    }
}

#[test]
fn kinds_that_cannot_be_written_are_refused_by_name() {
    let instance = instance("hash", HOP, Some(&format!("{HOP} {OLD}\n")));
    let path = instance.base.join("client.cf").display().to_string();
    fs::write(&path, "user = nobody\n").unwrap();
    let postfix = target(&instance);
    let plain = [
        "ldap",
        "mysql",
        "pgsql",
        "sqlite",
        "mongodb",
        "pcre",
        "regexp",
        "cidr",
        "tcp",
        "socketmap",
        "memcache",
        "nis",
        "unix",
        "environ",
        "internal",
        "dbm",
        "sdbm",
        "brandnew",
    ];
    let mut cases: Vec<(String, String)> =
        plain.iter().map(|kind| (format!("{kind}:{path}"), format!("kind {kind}:"))).collect();
    cases.extend(
        [
            ("inline:{ {[a]:1 = u:p}, {[b]:2 = u:p} }", "kind inline:"),
            ("static:{u:p q}", "kind static:"),
            ("unionmap:{hash:/a, hash:/b}", "kind unionmap:"),
            ("proxy:mysql:/etc/postfix/m.cf", "kind proxy:"),
            ("/etc/postfix/sasl_passwd", "without a type"),
            ("", "is empty"),
        ]
        .map(|(maps, needle)| (maps.to_owned(), needle.to_owned())),
    );
    for (maps, needle) in cases {
        instance.set("smtp_sasl_password_maps", &maps);
        let view = postfix.inspect(&Ours::default()).unwrap();
        let [finding] = errors(&view)[..] else { panic!("{maps}: {:?}", view.findings) };
        assert!(finding.what.contains(&needle) && !finding.fix.is_empty(), "{maps}: {finding:?}");
        assert_eq!(finding.file, Some(instance.main_cf()), "{maps}");
        let e = postfix.plan(&Ours::default(), &logins(NEW)).unwrap_err();
        assert!(e.what.contains(&needle) && !e.temporary, "{maps}: {e:?}");
        complete(&e);
    }
    // For some kinds postconf reads the file as settings, and quotes the line it stumbles over.
    instance.set("smtp_sasl_password_maps", &format!("ldap:{}", instance.table().display()));
    let e = postfix.inspect(&Ours::default()).unwrap_err();
    assert!(e.class == Class::Config && e.what.contains("line 1"), "{e:?}");
    complete(&e);
}

/// proxymap(8) runs as Postfix's own user: what is new is for its group to read, and what is there stays as it is.
#[test]
fn a_new_file_behind_proxy_is_for_the_group_of_postfix() {
    let passwd = fs::read_to_string("/etc/passwd").unwrap();
    let group = passwd.lines().find_map(|line| line.strip_prefix("postfix:")?.split(':').nth(2)?.parse().ok()).unwrap();
    let instance = instance("hash", HOP, Some(&format!("{HOP} {OLD}\n")));
    let postfix = target(&instance);
    let group_of = |maps: &str| {
        instance.set("smtp_sasl_password_maps", maps);
        postfix.inspect(&applied("AKIAOLD")).unwrap();
        postfix.plan(&applied("AKIAOLD"), &logins(NEW)).unwrap().tables[0].group
    };
    let path = instance.table().display().to_string();
    assert_eq!(group_of(&format!("hash:{path}")), None);
    assert_eq!(group_of(&format!("proxy:hash:{path}")), Some(group));
    // The map is for root alone, and proxymap(8) does not get at it.
    fs::set_permissions(instance.map(), fs::Permissions::from_mode(0o600)).unwrap();
    let told = |view: &View| view.findings.iter().any(|f| f.what.contains("which runs as postfix, cannot read it"));
    assert!(told(&postfix.inspect(&applied("AKIAOLD")).unwrap()));
    std::os::unix::fs::chown(instance.map(), None, Some(group)).unwrap();
    fs::set_permissions(instance.map(), fs::Permissions::from_mode(0o640)).unwrap();
    assert!(!told(&postfix.inspect(&applied("AKIAOLD")).unwrap()));
}

#[test]
fn what_somebody_answers_for_is_not_incomplete() {
    let instance = instance("hash", HOP, Some(&format!("{HOP} {OLD}\n")));
    let senders = instance.config_dir.join("senders");
    fs::write(&senders, "/@c/ other:login\n").unwrap();
    let unlisted = format!("regexp:{}", senders.display());
    instance.set("smtp_sasl_password_maps", &format!("hash:{} {unlisted}", instance.table().display()));
    let view = |unlisted_ok: &[&str]| {
        let unlisted_ok = unlisted_ok.iter().map(|name| (*name).to_owned()).collect();
        target(&instance).vouched_for(unlisted_ok).inspect(&applied("AKIAOLD")).unwrap()
    };
    let is_of_no_use = |view: &View| view.findings.iter().any(|f| f.what.contains("unlisted_ok names"));
    let plain = view(&[]);
    assert_eq!(
        (plain.incomplete, plain.findings.iter().any(|f| f.what.contains("unlisted_ok"))),
        (vec![unlisted.clone()], false)
    );
    let vouched = view(&[&unlisted]);
    assert!(vouched.incomplete.is_empty() && !is_of_no_use(&vouched), "{:?}", vouched.findings);
    let misspelt = view(&["regexp:/etc/postfix/sender"]);
    assert!(misspelt.incomplete == [unlisted] && is_of_no_use(&misspelt), "{:?}", misspelt.findings);
}

#[test]
fn a_kind_this_host_lacks_names_its_package() {
    let instance = instance("hash", HOP, Some(&format!("{HOP} {OLD}\n")));
    let none = instance.base.join("no-dynamic-maps");
    fs::create_dir(&none).unwrap();
    instance.set("meta_directory", &none.display().to_string());
    instance.set("smtp_sasl_password_maps", &format!("lmdb:{}", instance.table().display()));
    let postfix = target(&instance);
    let view = postfix.inspect(&Ours::default()).unwrap();
    let [finding] = errors(&view)[..] else { panic!("{:?}", view.findings) };
    assert!(finding.what.contains("lmdb:") && finding.fix.contains("postfix-lmdb"), "{finding:?}");
    let e = postfix.plan(&Ours::default(), &logins(NEW)).unwrap_err();
    assert_eq!(e.class, Class::Unsupported);
    let e = postfix.compile(&instance.table_id(), &instance.table()).unwrap_err();
    assert_eq!((e.class.word(), e.temporary), ("unsupported", false));
    complete(&e);
}

/// `postconf -m` lists what dynamicmaps.cf names, whether or not the library is there. Nobody but a person mends that.
#[test]
fn a_plug_in_that_is_not_there_names_its_package() {
    let instance = instance("hash", HOP, Some(&format!("{HOP} {OLD}\n")));
    let meta = instance.base.join("meta");
    fs::create_dir(&meta).unwrap();
    let library = instance.base.join("postfix-lmdb.so");
    let line = format!("lmdb {} dict_lmdb_open mkmap_lmdb_open\n", library.display());
    fs::write(meta.join("dynamicmaps.cf"), line).unwrap();
    instance.set("meta_directory", &meta.display().to_string());
    instance.set("smtp_sasl_password_maps", &format!("lmdb:{}", instance.table().display()));
    let postfix = target(&instance);
    // With a map from before the library went, too.
    for map in [false, true] {
        if map {
            fs::write(instance.table().with_extension("lmdb"), "a map").unwrap();
        }
        let view = postfix.inspect(&Ours::default()).unwrap();
        let [finding] = errors(&view)[..] else { panic!("{:?}", view.findings) };
        assert!(finding.what.contains(&library.display().to_string()), "{finding:?}");
        assert!(finding.fix.contains("install the package postfix-lmdb"), "{finding:?}");
        assert_eq!(finding.file.as_deref(), Some(&*meta.join("dynamicmaps.cf")));
        let told: Vec<&str> = view.findings.iter().map(|finding| finding.fix.as_str()).collect();
        assert!(!told.iter().any(|fix| fix.contains("postmap lmdb:") || fix.contains("the next rollover")), "{told:?}");
        let e = postfix.compile(&instance.table_id(), &instance.table()).unwrap_err();
        assert_eq!((e.class, e.temporary), (Class::Unsupported, false));
        assert!(e.fix.contains("install the package postfix-lmdb"), "{e:?}");
    }
}

#[test]
fn settings_that_lose_mail_are_findings() {
    use Severity::{Error, Note, Warning};
    let cases: &[(&str, &str, Option<Severity>, &str)] = &[
        ("smtp_sasl_auth_enable", "no", Some(Error), "smtp_sasl_auth_enable = no"),
        ("smtp_sasl_auth_soft_bounce", "no", Some(Warning), "mail bounces"),
        (
            "smtp_sasl_auth_cache_name",
            "proxy:btree:/var/lib/postfix/sasl_auth",
            Some(Warning),
            "does not try that login again",
        ),
        ("smtp_tls_security_level", "may", Some(Warning), "smtp_tls_security_level is may"),
        ("smtp_tls_security_level", "none", Some(Warning), "smtp_tls_security_level is none"),
        ("smtp_tls_security_level", "", Some(Warning), "smtp_tls_security_level is none"),
        ("smtp_tls_security_level", "dane", Some(Warning), "smtp_tls_security_level is dane"),
        ("smtp_tls_security_level", "secure", None, "smtp_tls_security_level"),
        ("smtp_tls_security_level", "dane-only", None, "smtp_tls_security_level"),
        ("smtp_sasl_tls_security_options", "noplaintext, noanonymous", Some(Error), "noplaintext"),
        ("smtp_sasl_tls_security_options", "$smtp_sasl_security_options", None, "noplaintext"),
        ("smtp_sasl_mechanism_filter", "cram-md5, digest-md5", Some(Error), "neither PLAIN nor LOGIN"),
        ("smtp_sasl_mechanism_filter", "!gssapi, !plain, static:all", None, "neither PLAIN nor LOGIN"),
        ("smtp_sasl_mechanism_filter", "plain, login", None, "neither PLAIN nor LOGIN"),
        ("smtp_cname_overrides_servername", "yes", Some(Warning), "CNAME"),
        ("relayhost", "email-smtp.eu-west-1.amazonaws.com:587", Some(Warning), "without brackets"),
        ("relayhost", "[email-smtp.eu-west-1.amazonaws.com]:465", Some(Warning), "smtp_tls_wrappermode"),
        ("relayhost", "", Some(Error), "relayhost is empty"),
        ("relayhost", "[smtp.sendgrid.net]:587", Some(Error), "does not lead to the endpoint"),
        ("relayhost", "[email-smtp.eu-west-1.amazonaws.com]:587, [smtp.other.example]:587", Some(Note), "left alone"),
        ("transport_maps", "hash:/etc/postfix/no-such-file", Some(Note), "cannot be read"),
        (
            "transport_maps",
            "inline:{ {a.example = smtp:[email-smtp.eu-west-1.amazonaws.com]:587} }",
            None,
            "transport_maps",
        ),
        ("transport_maps", "static:smtp:[email-smtp.eu-west-1.amazonaws.com]:2587", Some(Note), "hands mail to"),
        ("default_transport", "uucp", Some(Note), "default_transport"),
    ];
    let instance = instance("hash", HOP, Some(&format!("{HOP} {OLD}\n{HOST}:587 {OLD}\n")));
    let postfix = target(&instance);
    let ours = applied("AKIAOLD");
    let baseline = postfix.inspect(&ours).unwrap();
    assert_eq!(baseline.findings, [], "a sound configuration has nothing to say");
    let stopped = baseline.stopped.expect("it does not run");
    assert_eq!(stopped.what, "this Postfix instance is not running");
    let original = fs::read_to_string(instance.main_cf()).unwrap();
    for (name, value, severity, needle) in cases {
        instance.set(name, value);
        let view = postfix.inspect(&ours).unwrap();
        let found: Vec<&Finding> = view.findings.iter().filter(|f| f.what.contains(needle)).collect();
        assert_eq!(found.first().map(|f| f.severity), *severity, "{name} = {value}: {:?}", view.findings);
        assert!(found.iter().all(|f| !f.fix.is_empty() && f.file == Some(instance.main_cf())), "{found:?}");
        assert!(view.findings.is_sorted_by_key(|f| f.severity), "{:?}", view.findings);
        let planned = postfix.plan(&Ours::default(), &logins(NEW));
        assert_eq!(planned.is_err(), *severity == Some(Error), "{name} = {value}: {planned:?}");
        planned.err().iter().for_each(complete);
        instance.write_main_cf(&original);
    }
    // A relayhost that is another name of the endpoint.
    instance.set("relayhost", "[Relay.Internal]:587");
    assert!(errors(&postfix.inspect(&Ours::default()).unwrap()).is_empty());
}

#[test]
fn files_that_others_read_and_stale_maps_are_findings() {
    let instance = instance("hash", HOP, Some(&format!("{HOP} {OLD}\n")));
    let postfix = target(&instance);
    for file in [instance.table(), instance.map()] {
        fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
    }
    let view = postfix.inspect(&Ours::default()).unwrap();
    let files: Vec<_> =
        view.findings.iter().filter(|f| f.what.contains("every local user")).map(|f| f.file.clone()).collect();
    assert_eq!(files, [Some(instance.table()), Some(instance.map())]);
    // Who may read it may lock it. The printed commands end both.
    for finding in view.findings.iter().filter(|f| f.what.contains("every local user")) {
        assert!(finding.what.contains("lock"), "{finding:?}");
        let ran = std::process::Command::new("/bin/sh").args(["-c", &finding.fix]).status().unwrap();
        assert!(ran.success(), "{}", finding.fix);
    }
    for file in [instance.table(), instance.map()] {
        assert_eq!(fs::metadata(file).unwrap().mode() & 0o777, 0o640);
    }

    let later = SystemTime::now() + Duration::from_secs(30);
    fs::File::options().write(true).open(instance.table()).unwrap().set_modified(later).unwrap();
    let view = postfix.inspect(&Ours::default()).unwrap();
    assert!(view.findings.iter().any(|f| f.what.contains("newer than its compiled map")), "{:?}", view.findings);
}

#[test]
fn a_missing_entry_is_added_at_the_end_as_relayhost_spells_it() {
    for (table, relayhost, expected) in [
        (Some("# none yet\n"), HOP, format!("# none yet\n{HOP} {NEW}\n")),
        (
            Some("[smtp.other.example]:587 other:otherpassword"),
            HOP,
            format!("[smtp.other.example]:587 other:otherpassword\n{HOP} {NEW}\n"),
        ),
        (
            Some("# none\n"),
            "[Email-SMTP.eu-west-1.amazonaws.com]:587",
            format!("# none\n[Email-SMTP.eu-west-1.amazonaws.com]:587 {NEW}\n"),
        ),
        (None, HOP, format!("{HOP} {NEW}\n")),
        (
            None,
            "[email-smtp.eu-west-1.amazonaws.com]:587, [relay.internal]:587",
            format!("{HOP} {NEW}\n[relay.internal]:587 {NEW}\n"),
        ),
    ] {
        for kind in KINDS {
            let instance = instance(kind, relayhost, table);
            let postfix = target(&instance);
            let view = postfix.inspect(&Ours::default()).unwrap();
            let hops: Vec<&str> = relayhost.split(", ").collect();
            assert_eq!(view.missing, hops, "{kind}");
            assert_eq!(
                live(&view),
                hops.iter().map(|hop| ((*hop).to_owned(), None, None, None)).collect::<Vec<_>>(),
                "{kind}"
            );
            assert!(errors(&view).is_empty(), "{kind}: {:?}", view.findings);
            assert!(view.findings.iter().any(|f| f.what.contains("530")), "{kind}: {:?}", view.findings);
            let plan = postfix.plan(&Ours::default(), &logins(NEW)).unwrap();
            assert_eq!((text_of(&plan), lookups(&plan)), (expected.clone(), view.missing.clone()), "{kind}");
            assert_eq!(plan.files().next().unwrap().seen.is_none(), table.is_none(), "{kind}");
            put(&postfix, &instance, &plan, &login(NEW));
            let view = postfix.inspect(&Ours::default()).unwrap();
            assert!(view.entries.iter().all(|e| e.live == Some(login(NEW))) && view.missing.is_empty(), "{kind}");
        }
    }
}

/// A host without state takes another's login over only where nothing else can be meant, and says so before.
#[test]
fn whose_login_is_taken_for_the_key_before_is_said() {
    let instance = instance("hash", HOP, Some(&format!("{HOP} AKIAIOSFODNN7SOMEONE:password\n")));
    let postfix = target(&instance);
    let taken = |ours: &Ours| {
        let view = postfix.inspect(ours).unwrap();
        assert!(errors(&view).is_empty(), "{:?}", view.findings);
        let said = |finding: &&Finding| finding.what.contains("AKIAIOSFODNN7SOMEONE: that is taken for the key before");
        view.findings.iter().filter(said).map(|finding| (finding.severity, finding.line)).collect::<Vec<_>>()
    };
    assert_eq!(taken(&Ours::default()), [(Severity::Note, Some(1))]);
    assert_eq!(taken(&applied("AKIAIOSFODNN7SOMEONE")), []);
}

/// Some guides say to delete the text once it is compiled. Then the map is the only place for everybody's logins.
#[test]
fn a_map_without_its_text_is_made_anew_without_one() {
    const OTHER: &str = "[smtp.other.example]:587";
    for kind in ["hash", "btree", "lmdb", "cdb"] {
        let instance = instance(kind, HOP, Some(&format!("{OTHER} other:other pass word\n{HOP} {OLD}\n")));
        fs::remove_file(instance.table()).unwrap();
        let postfix = target(&instance);
        let view = postfix.inspect(&applied("AKIAOLD")).unwrap();
        assert!(errors(&view).is_empty(), "{kind}: {:?}", view.findings);
        assert_eq!(live(&view), [(HOP.into(), None, Some(OLD.into()), Some(OLD.into()))], "{kind}");
        let others = view.key_ids.others(Some("nobody"));
        assert_eq!(
            others.named.iter().map(|held| (held.id.as_str(), held.count)).collect::<Vec<_>>(),
            [("AKIAOLD", 1)]
        );
        let plan = postfix.plan(&applied("AKIAOLD"), &logins(NEW)).unwrap();
        let [map] = plan.files().collect::<Vec<_>>()[..] else { panic!("{kind}: {plan:?}") };
        assert_eq!(map.path, instance.map(), "{kind}");
        put(&postfix, &instance, &plan, &login(NEW));
        assert!(!instance.table().exists(), "{kind}");
        assert_eq!(instance.query(OTHER), "other:other pass word", "{kind}");
        // And at rest: the next look writes nothing.
        let plan = postfix.plan(&applied("AKIANEW"), &logins(NEW)).unwrap();
        assert!(plan.is_empty(), "{kind}: {plan:?}");
    }
}

/// A map made from its listing has to be the same map.
#[test]
fn a_map_that_no_text_gives_is_not_made_anew_without_one() {
    for odd in ["KEY other:pass", "\"a b\" other:pass", "k\u{fc}che other:pass"] {
        let instance = instance("hash", HOP, Some(&format!("{odd}\n{HOP} {OLD}\n")));
        let folds = ["postmap", "-f", "-c"].map(str::to_owned);
        let (dir, name) = (instance.config_dir.display().to_string(), instance.table_id().to_string());
        let made = std::process::Command::new(&folds[0]).args(&folds[1..]).args([&dir, &name]).status().unwrap();
        assert!(made.success());
        fs::remove_file(instance.table()).unwrap();
        let postfix = target(&instance);
        let e = postfix.plan(&applied("AKIAOLD"), &logins(NEW)).unwrap_err();
        assert_eq!((e.class.word(), e.file.clone()), ("ambiguous", Some(instance.table())), "{odd}: {e:?}");
        assert!(e.fix.contains("postmap -s -c") && e.fix.contains(" hash:"), "{e:?}");
        complete(&e);
        let view = postfix.inspect(&Ours::default()).unwrap();
        assert_eq!(errors(&view).len(), 1, "{:?}", view.findings);
        // What the mail server uses is seen all the same.
        assert_eq!(live(&view), [(HOP.into(), None, None, Some(OLD.into()))]);
    }
}

#[test]
fn a_table_whose_directory_is_missing_or_whose_link_leads_nowhere() {
    let instance = instance("hash", HOP, None);
    let postfix = target(&instance);
    symlink(instance.base.join("nowhere"), instance.table()).unwrap();
    let e = postfix.plan(&Ours::default(), &logins(NEW)).unwrap_err();
    assert!(e.what.contains("symbolic link") && e.file == Some(instance.table()), "{e:?}");
    instance.set("smtp_sasl_password_maps", "hash:/nonexistent/directory/sasl_passwd");
    let e = postfix.plan(&Ours::default(), &logins(NEW)).unwrap_err();
    assert!(e.what.contains("directory"), "{e:?}");
    complete(&e);
}

#[test]
fn a_text_behind_a_link_keeps_its_map_beside_the_link() {
    let instance = instance("hash", HOP, None);
    let elsewhere = instance.base.join("secrets");
    fs::create_dir(&elsewhere).unwrap();
    fs::write(elsewhere.join("logins"), format!("{HOP} {OLD}\n")).unwrap();
    symlink(elsewhere.join("logins"), instance.table()).unwrap();
    instance.postmap();
    let postfix = target(&instance);
    assert_eq!(postfix.inspect(&Ours::default()).unwrap().entries[0].live, Some(login(OLD)));
    let plan = postfix.plan(&Ours::default(), &logins(NEW)).unwrap();
    assert_eq!(paths(&plan), [elsewhere.join("logins"), instance.map()]);
    assert_eq!(postfix.lookup(&instance.table_id(), None, &[HOP.into()]).unwrap(), [Answer::Login(login(OLD))]);
}

#[test]
fn sender_lines_and_other_ports_with_our_user_change_too_and_others_do_not() {
    let text = format!(
        "# c\nalice@example.com {OLD}\nbob@example.com bob:otherpassword\n{HOP} {OLD}\n@example.org\t{OLD}\n\
         [smtp.other.example]:587 other:otherpassword\n[relay.internal]:2525 AKIAOLDER:olderpassword\n\
         [c.example]:25 {OLD}\n"
    );
    let instance = instance("lmdb", HOP, Some(&text));
    let postfix = target(&instance);
    for ours in [Ours::default(), applied("AKIAOLD")] {
        let view = postfix.inspect(&ours).unwrap();
        let keys: Vec<(&str, bool)> = view.entries.iter().map(|e| (e.key.as_str(), e.is_live_key)).collect();
        let expected = [(HOP, true), ("alice@example.com", false), ("@example.org", false), ("[c.example]:25", false)];
        assert_eq!(keys, expected);
        let plan = postfix.plan(&ours, &logins(NEW)).unwrap();
        assert_eq!(text_of(&plan), text.replace(OLD, NEW));
        assert_eq!(lookups(&plan), expected.map(|(key, _)| key));
    }
    // The version before is ours as well: that is what a restored backup holds.
    let ours = Ours { applied: Some("AKIAOLD".into()), previous: Some("AKIAOLDER".into()), ..Ours::default() };
    assert!(text_of(&postfix.plan(&ours, &logins(NEW)).unwrap()).contains(&format!("[relay.internal]:2525 {NEW}\n")));
    // Another password of the same access key id is another region's.
    instance.write_table(&format!("{text}[d.example]:25 {OLD}x\n"));
    // No route leads from it, so that nobody guesses later either: it is left, and named.
    let plan = postfix.plan(&ours, &logins(NEW)).unwrap();
    assert!(text_of(&plan).ends_with(&format!("[d.example]:25 {OLD}x\n")), "{plan:?}");
    let view = postfix.inspect(&ours).unwrap();
    let said: Vec<&Finding> = view.findings.iter().filter(|f| f.what.contains("another password")).collect();
    assert!(matches!(said[..], [f] if f.what.contains("d.example") && f.line == Some(9)), "{:?}", view.findings);
}

/// What an editor of another system puts before the first line.
#[test]
fn a_mark_before_our_line_is_told_and_the_fix_leaves_the_login_in_use() {
    let sed = |fix: &str| {
        let command = fix.split_once(": ").and_then(|(_, rest)| rest.split_once("; then: ")).expect("a command").0;
        assert!(std::process::Command::new("/bin/sh").args(["-c", command]).status().unwrap().success(), "{command}");
    };
    for (more, left) in [("", format!("{HOP} {OLD}\n")), ("again", format!("{HOP} {NEW}\n"))] {
        let more = if more.is_empty() { String::new() } else { format!("{HOP} {NEW}\n") };
        let instance = instance("hash", HOP, Some(&format!("\u{feff}{HOP} {OLD}\n{more}")));
        let view = target(&instance).inspect(&Ours::default()).unwrap();
        let told = view.findings.iter().find(|f| f.what.contains("byte order mark")).expect("it is told");
        assert_eq!((told.severity, told.line), (Severity::Warning, Some(1)), "{told:?}");
        sed(&told.fix);
        assert_eq!(fs::read_to_string(instance.table()).unwrap(), left);
    }
    // Of others' lines it is nothing.
    let instance = instance("hash", HOP, Some(&format!("\u{feff}[o]:1 u:p\n{HOP} {OLD}\n")));
    let view = target(&instance).inspect(&Ours::default()).unwrap();
    assert!(view.findings.iter().all(|f| !f.what.contains("mark")), "{:?}", view.findings);
}

/// Where a NUL byte stands, Postfix cuts the line; the printed command leaves it what it reads today.
#[test]
fn the_fix_of_a_nul_byte_changes_no_value() {
    let text = format!("{HOP} {OLD}\n[o]:1 u:other\0password\n[p]:1 u:p\n");
    let instance = instance("hash", HOP, Some(&text));
    let keys = [HOP, "[o]:1", "[p]:1"].map(str::to_owned);
    let found = || target(&instance).lookup(&instance.table_id(), None, &keys).unwrap();
    let before = found();
    assert!(before.iter().all(|answer| answer.login().is_some()), "{before:?}");
    let e = target(&instance).plan(&Ours::default(), &logins(NEW)).unwrap_err();
    let (_, command) = e.fix.split_once("as Postfix does: ").expect("a command");
    assert!(std::process::Command::new("/bin/sh").args(["-c", command]).status().unwrap().success(), "{command}");
    assert!(!fs::read(instance.table()).unwrap().contains(&0));
    instance.postmap();
    assert_eq!(found(), before);
}

#[test]
fn no_routing_is_advised_where_relayhost_leads_elsewhere() {
    let instance = instance("hash", "[smtp.other.example]:587", Some(&format!("{HOP} {OLD}\n")));
    let view = target(&instance).inspect(&Ours::default()).unwrap();
    let told = errors(&view).into_iter().find(|f| f.what.contains("does not lead")).expect("an error");
    assert!(told.fix.contains("endpoint = \"smtp.other.example\"") && !told.fix.contains("relayhost"), "{told:?}");
}

/// `apikey` is everybody's user name at a relay that is not SES; an access key id is of one account.
#[test]
fn a_user_name_that_others_have_too_is_ours_only_with_our_password() {
    let hop = "[smtp.relay.example]:587";
    let relay = Relay { endpoint: "smtp.relay.example".into(), ..relay() };
    let case = |user: &str| {
        let text = format!(
            "{hop} {user}:oldpassword\nalice@example.com {user}:oldpassword\n[smtp.other.example]:587 {user}:otherpassword\n"
        );
        let instance = instance("hash", hop, Some(&text));
        let postfix = Postfix::new(&instance.config_dir, &relay, None, &Reload::Always);
        (
            postfix.inspect(&applied(user)).unwrap(),
            postfix.plan(&applied(user), &logins(&format!("{user}:newpassword"))).unwrap(),
        )
    };
    let (view, plan) = case("apikey");
    let expected = "[smtp.relay.example]:587 apikey:newpassword\nalice@example.com apikey:newpassword\n\
                    [smtp.other.example]:587 apikey:otherpassword\n";
    assert_eq!(text_of(&plan), expected);
    assert!(errors(&view).is_empty(), "{:?}", view.findings);
    let told = view.findings.iter().find(|f| f.line == Some(3)).expect("what is left is told");
    assert!(told.severity == Severity::Note && told.what.contains("[smtp.other.example]:587"), "{told:?}");
    assert_eq!(left_out(&view), Vec::<&str>::new(), "another relay's login is no key that is left behind");
    let (_, plan) = case("AKIAOLD");
    assert_eq!(text_of(&plan).matches("AKIAOLD:newpassword").count(), 3);
}

/// As after a backup of the table was put back: the live key holds another password than the state knows.
#[test]
fn an_entry_that_is_written_is_not_told_as_left_for_its_user_name() {
    let hop = "[smtp.relay.example]:587";
    let relay = Relay { endpoint: "smtp.relay.example".into(), ..relay() };
    let text = format!("{hop} apikey:unknownpassword\n[smtp.other.example]:587 apikey:otherpassword\n");
    let instance = instance("hash", hop, Some(&text));
    let postfix = Postfix::new(&instance.config_dir, &relay, None, &Reload::Always);
    let mut ours = applied("apikey");
    ours.logins.key = Some(LocalKey::new([7; 32]));
    ours.logins.applied = vec!["of-the-applied-login".into()];
    let view = postfix.inspect(&ours).unwrap();
    let told = view.findings.iter().find(|f| f.what.contains("with another password")).expect("what is left is told");
    assert!(told.line == Some(2) && told.what.starts_with("1 entry has"), "{told:?}");
    assert_eq!(text_of(&postfix.plan(&ours, &logins("apikey:new")).unwrap()), text.replace("unknownpassword", "new"));
}

#[test]
fn keys_fold_case() {
    let upper = HOP.to_uppercase();
    let instance = instance("hash", "[Email-Smtp.EU-west-1.AmazonAWS.com]:587", Some(&format!("{upper} {OLD}\n")));
    let postfix = target(&instance);
    let view = postfix.inspect(&Ours::default()).unwrap();
    assert_eq!(live(&view), [(upper.clone(), Some(1), Some(OLD.into()), Some(OLD.into()))]);
    let plan = postfix.plan(&Ours::default(), &logins(NEW)).unwrap();
    assert_eq!(text_of(&plan), format!("{upper} {NEW}\n"));
}

#[test]
fn the_bare_host_comes_before_the_destination() {
    let instance = instance("hash", HOP, Some(&format!("{HOP} {OLD}\n{HOST} {OLD}\n")));
    let postfix = target(&instance);
    let view = postfix.inspect(&Ours::default()).unwrap();
    let keys: Vec<&str> = view.entries.iter().map(|e| e.key.as_str()).collect();
    assert_eq!(keys, [HOST, HOP]);
    assert_eq!(text_of(&postfix.plan(&Ours::default(), &logins(NEW)).unwrap()), format!("{HOP} {NEW}\n{HOST} {NEW}\n"));

    // Only the bare host is there: it serves, and nothing is added.
    instance.write_table(&format!("{HOST} {OLD}\n"));
    let plan = postfix.plan(&Ours::default(), &logins(NEW)).unwrap();
    assert_eq!(text_of(&plan), format!("{HOST} {NEW}\n"));
}

#[test]
fn another_login_under_a_live_key() {
    let text = format!("{HOST} other:otherpassword\n{HOP} {OLD}\n");
    let instance = instance("hash", HOP, Some(&text));
    let postfix = target(&instance);
    let refused = |postfix: &Postfix, ours: &Ours, line: usize| {
        let e = postfix.plan(ours, &logins(NEW)).unwrap_err();
        assert_eq!(
            (e.class.word(), e.file.clone(), e.line),
            ("ambiguous", Some(instance.table()), Some(line)),
            "{e:?}"
        );
        assert!(e.fix.contains("keys"), "{e:?}");
        complete(&e);
    };
    refused(&postfix, &applied("AKIAOLD"), 1);
    // Without state nothing says which of the two is ours: each is named, and no error before there is a candidate.
    refused(&postfix, &Ours::default(), 1);
    let view = postfix.inspect(&Ours::default()).unwrap();
    let named = |line: usize| view.findings.iter().any(|f| f.line == Some(line));
    assert!(errors(&view).is_empty() && named(1) && named(2), "{:?}", view.findings);
    // With state, it may be what a killed run or a hand put there: worth saying, no reason to stop.
    let view = postfix.inspect(&applied("AKIAOLD")).unwrap();
    assert!(errors(&view).is_empty() && view.findings.iter().any(|f| f.line == Some(1)), "{:?}", view.findings);

    // Listed, it is ours to change; what `keys` does not name stays.
    let both = with_keys(&instance, &[HOST, HOP]);
    assert_eq!(text_of(&both.plan(&applied("AKIAOLD"), &logins(NEW)).unwrap()), format!("{HOST} {NEW}\n{HOP} {NEW}\n"));
    // The candidate's and the previous version's are no others.
    instance.write_table(&format!("{HOST} AKIANEW:otherpassword\n{HOP} AKIAPREV:otherpassword\n"));
    let ours = Ours { applied: Some("AKIAOLD".into()), previous: Some("AKIAPREV".into()), ..Ours::default() };
    assert_eq!(text_of(&postfix.plan(&ours, &logins(NEW)).unwrap()), format!("{HOST} {NEW}\n{HOP} {NEW}\n"));
    // Something that is no login at all is not shown.
    instance.write_table(&format!("{HOP} oldpassword\n"));
    refused(&postfix, &Ours::default(), 1);
}

fn left_out(view: &View) -> Vec<&str> {
    view.left_out.iter().map(|left| left.key.as_str()).collect()
}

/// Entries with a login of some rotations ago: named, and not written.
#[test]
fn what_still_holds_an_earlier_login_is_named() {
    let text = format!(
        "{HOP} {OLD}\nalice@example.com AKIAOLDEST:x\nbob@example.com AKIAOLDER:y\ncarol@example.com carol:z\n"
    );
    let instance = instance("hash", HOP, Some(&text));
    let ours = Ours { earlier: vec!["AKIAOLDEST".into(), "AKIAOLDER".into(), "AKIAOLD".into()], ..applied("AKIAOLD") };
    for postfix in [target(&instance), with_keys(&instance, &[HOP])] {
        let view = postfix.inspect(&ours).unwrap();
        assert_eq!(left_out(&view), ["alice@example.com", "bob@example.com"]);
        assert_eq!(text_of(&postfix.plan(&ours, &logins(NEW)).unwrap()), text.replacen(OLD, NEW, 1));
    }
}

#[test]
fn keys_say_exactly_which_entries_are_ours() {
    let text = format!("{HOP} {OLD}\nalice@example.com {OLD}\n[smtp.other.example]:587 other:otherpassword\n");
    let instance = instance("hash", HOP, Some(&text));
    let postfix = with_keys(&instance, &[HOP, "carol@example.com"]);
    let view = postfix.inspect(&applied("AKIAOLD")).unwrap();
    assert_eq!(
        (left_out(&view), view.missing.as_slice()),
        (vec!["alice@example.com"], ["carol@example.com".to_owned()].as_slice())
    );
    let plan = postfix.plan(&applied("AKIAOLD"), &logins(NEW)).unwrap();
    assert_eq!(text_of(&plan), text.replacen(OLD, NEW, 1) + &format!("carol@example.com {NEW}\n"));
    assert_eq!(lookups(&plan), [HOP, "carol@example.com"]);

    // A listed key that has no effect, because another is found first.
    instance.write_table(&format!("{HOST} {OLD}\n{HOP} {OLD}\n"));
    let e = with_keys(&instance, &[HOP]).plan(&applied("AKIAOLD"), &logins(NEW)).unwrap_err();
    assert!(e.what.contains("finds first") && e.line == Some(1), "{e:?}");
    // None of the keys of the next hop: a finding.
    instance.write_table(&text);
    let view = with_keys(&instance, &["alice@example.com"]).inspect(&applied("AKIAOLD")).unwrap();
    assert_eq!(left_out(&view), [HOP]);
    assert!(view.findings.iter().any(|f| f.what.contains("none of the keys")), "{:?}", view.findings);
}

#[test]
fn an_entry_for_another_region_does_not_get_this_regions_password() {
    let other = "[email-smtp.us-east-1.amazonaws.com]:587";
    let text = format!("{HOP} {OLD}\n# backup region\n{other} {OLD}\n");
    let instance = instance("hash", HOP, Some(&text));
    let postfix = target(&instance);
    // No mail goes there: it is left, and told.
    assert_eq!(text_of(&postfix.plan(&Ours::default(), &logins(NEW)).unwrap()), text.replacen(OLD, NEW, 1));
    let view = postfix.inspect(&Ours::default()).unwrap();
    let told = view.findings.iter().find(|f| f.line == Some(3)).unwrap();
    assert!(told.what.contains("us-east-1") && told.file == Some(instance.table()), "{told:?}");
    assert!(errors(&view).is_empty() && left_out(&view) == [other], "{:?}", view.findings);

    instance.set("smtp_fallback_relay", other);
    let e = postfix.plan(&Ours::default(), &logins(NEW)).unwrap_err();
    assert_eq!((e.class.word(), e.file.clone(), e.line), ("ambiguous", Some(instance.table()), Some(3)), "{e:?}");
    assert!(e.what.contains("us-east-1") && e.what.contains("eu-west-1") && e.fix.contains("keys"), "{e:?}");
    assert_eq!(errors(&postfix.inspect(&Ours::default()).unwrap()).len(), 1);

    let listed = with_keys(&instance, &[HOP]);
    let view = listed.inspect(&Ours::default()).unwrap();
    assert!(errors(&view).is_empty() && left_out(&view) == [other], "{:?}", view.findings);
    assert_eq!(text_of(&listed.plan(&Ours::default(), &logins(NEW)).unwrap()), text.replacen(OLD, NEW, 1));
    let e = with_keys(&instance, &[HOP, other]).plan(&Ours::default(), &logins(NEW)).unwrap_err();
    assert!(e.fix.contains("out of keys"), "{e:?}");
}

#[test]
fn two_hosts_in_relayhost() {
    let relayhost = "[email-smtp.eu-west-1.amazonaws.com]:587 [relay.internal]:587, [smtp.other.example]:25";
    let text = format!("[relay.internal]:587 {OLD}\n[smtp.other.example]:25 other:otherpassword\n{HOP} {OLD}\n");
    let instance = instance("cdb", relayhost, Some(&text));
    let postfix = target(&instance);
    let plan = postfix.plan(&applied("AKIAOLD"), &logins(NEW)).unwrap();
    assert_eq!(text_of(&plan), text.replace(OLD, NEW));
    assert_eq!(lookups(&plan), [HOP, "[relay.internal]:587"]);
}

#[test]
fn tables_that_would_have_to_be_guessed_at_are_errors_with_their_line() {
    for (text, line, needle) in [
        (format!("# c\n{HOP} AKIAOLD:\n  oldpassword\n"), 3, "several lines"),
        (format!("{HOP} {OLD}\n\0\n"), 2, "NUL"),
    ] {
        let instance = instance("hash", HOP, None);
        instance.write_table(&text);
        let postfix = target(&instance);
        let e = postfix.plan(&Ours::default(), &logins(NEW)).unwrap_err();
        assert_eq!((e.file.clone(), e.line), (Some(instance.table()), Some(line)), "{e:?}");
        assert!(e.what.contains(needle), "{e:?}");
        complete(&e);
        let view = postfix.inspect(&Ours::default()).unwrap();
        assert!(errors(&view).iter().any(|f| f.line == Some(line) && f.what.contains(needle)), "{:?}", view.findings);
    }
}

/// The first of equal keys wins, and `postmap` only warns: a later one with a user name of ours gets the login too, so that the old one
/// stands nowhere, and any other is left.
#[test]
fn a_key_that_stands_there_twice_is_no_error() {
    let loud = HOP.to_uppercase();
    for (text, shadowed) in [
        (format!("[b]:1 u:p\n{HOP} {OLD}\n[B]:1 u:q\n"), None),
        (format!("{HOP} {OLD}\n\n{loud} {OLD}\n{HOP} {OLD}\n"), None),
        (format!("{HOP} {OLD}\na@example.com {OLD}\na@example.com {OLD}\n"), None),
        (format!("{HOP} {OLD}\r\n[b]:1 u:p\r\n{loud} {OLD}\r\n"), None),
        (format!("{HOP} {OLD}\n{HOP} AKIAELSE:otherpassword\n{HOP} {OLD}\n"), Some(2)),
    ] {
        for kind in ["hash", "lmdb", "cdb"] {
            let instance = instance(kind, HOP, Some(&text));
            let postfix = target(&instance);
            let ours = applied("AKIAOLD");
            let plan = postfix.plan(&ours, &logins(NEW)).unwrap();
            assert_eq!(text_of(&plan), text.replace(OLD, NEW), "{kind}");
            let view = postfix.inspect(&ours).unwrap();
            assert!(errors(&view).is_empty(), "{:?}", view.findings);
            let told = view.findings.iter().find(|f| f.what.contains("it has no effect"));
            assert_eq!(told.and_then(|f| f.line), shadowed, "{kind}: {:?}", view.findings);
            // The same change by hand, and nothing is left to be done then.
            let by_hand = postfix.by_hand(&ours, &logins(NEW)).unwrap();
            assert_eq!(by_hand.diff.len(), text.matches(OLD).count(), "{:?}", by_hand.diff);
            instance.write_table(&text.replace(OLD, NEW));
            instance.postmap();
            assert_eq!(postfix.by_hand(&ours, &logins(NEW)).unwrap(), ByHand::default(), "{kind}");
            assert!(postfix.plan(&ours, &logins(NEW)).unwrap().is_empty(), "{kind}");
        }
    }
}

/// A second table beside the first, compiled.
fn second_table(instance: &Instance, name: &str, text: &str) -> PathBuf {
    let path = instance.config_dir.join(name);
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    lab::cool_down(&path);
    let mut postmap = std::process::Command::new("/usr/sbin/postmap");
    postmap.arg("-c").arg(&instance.config_dir).arg(format!("hash:{}", path.display()));
    assert!(postmap.status().unwrap().success(), "postmap");
    path
}

/// More services in master.cf.
fn add_services(instance: &Instance, services: &str) {
    let master_cf = instance.config_dir.join("master.cf");
    let text = fs::read_to_string(&master_cf).unwrap();
    fs::write(&master_cf, text + services).unwrap();
    lab::cool_down(&master_cf);
}

/// What becomes of each table, by its file's name: the text that a plan writes.
fn written(plan: &Plan) -> Vec<(String, String)> {
    let text = |file: &relaykey::mta::PlannedFile| match &file.content {
        Content::Bytes(bytes) => {
            let name = file.path.file_name().unwrap().to_string_lossy().into_owned();
            Some((name, String::from_utf8(bytes.to_vec()).unwrap()))
        }
        Content::Compiled { .. } | Content::CompiledOf(_) => None,
    };
    plan.files().filter_map(text).collect()
}

/// The live keys of each service.
fn services(plan: &Plan) -> Vec<(String, usize, Vec<String>)> {
    plan.services
        .iter()
        .map(|s| (s.service.clone(), s.tables.len(), s.keys.iter().map(|wanted| wanted.key.clone()).collect()))
        .collect()
}

#[test]
fn a_service_of_its_own_table_in_master_cf_gets_the_login_too() {
    let instance = instance("hash", HOP, Some(&format!("{HOP} {OLD}\n")));
    second_table(&instance, "sasl_bulk", &format!("{HOP} {OLD}\n"));
    add_services(
        &instance,
        "bulk unix - - n - - smtp\n  -o syslog_name=postfix-bulk\n  -o smtp_sasl_password_maps=hash:$config_directory/sasl_bulk\n",
    );
    instance.set("transport_maps", &format!("inline:{{ {{bulk.example = bulk:{HOP}}} }}"));
    let plan = target(&instance).plan(&applied("AKIAOLD"), &logins(NEW)).unwrap();
    let new = format!("{HOP} {NEW}\n");
    assert_eq!(written(&plan), [("sasl_passwd".into(), new.clone()), ("sasl_bulk".into(), new)]);
    let each = |name: &str| (name.to_owned(), 1, vec![HOP.to_owned()]);
    assert_eq!(services(&plan), ["smtp", "relay", "bulk"].map(each));
}

/// What local(8) runs for a mailbox is looked through as what pipe(8) runs is: as main.cf has it, as local's own entry has it, and as
/// tables of commands do.
#[test]
fn a_program_for_mailboxes_is_looked_through() {
    let scratch = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = scratch.path().join(name);
        fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let send = file("send", "#!/bin/sh\nuser=AKIAIOSFODNN7EXAMPLE\nnc email-smtp.eu-west-1.amazonaws.com 587\n");
    let table = file("commands", &format!("tickets {send} -t\n"));
    let (tables, by_parameter) = (format!("texthash:{table}"), "texthash:$programs/commands");
    let local = "local unix - n n - - local";
    for (name, value, in_main) in [
        ("mailbox_command", send.as_str(), true),
        ("mailbox_command", &send, false),
        ("mailbox_command_maps", &tables, true),
        ("mailbox_command_maps", by_parameter, false),
    ] {
        let instance = instance("hash", HOP, Some(&format!("{HOP} {OLD}\n")));
        let unused = target(&instance).inspect(&applied("AKIAOLD")).unwrap();
        assert_eq!(unused.incomplete, [] as [String; 0]);
        instance.set("programs", scratch.path().to_str().unwrap());
        if in_main {
            instance.set(name, value);
        }
        let option = if in_main { String::new() } else { format!("  -o {name}={value}\n") };
        add_services(&instance, &format!("{local}\n{option}"));
        let view = target(&instance).inspect(&applied("AKIAOLD")).unwrap();
        let [other] = &view.key_ids.others(Some("AKIAOLD")).named[..] else { panic!("{name}: {:?}", view.key_ids) };
        assert_eq!((other.id.as_str(), other.places[0].key.as_str()), ("AKIAIOSFODNN7EXAMPLE", "local"));
        assert_eq!(view.incomplete, [name]);
        let told = view.findings.iter().find(|f| f.what.starts_with(&format!("{name} runs a program"))).unwrap();
        let file = if in_main { "main.cf" } else { "master.cf" };
        assert_eq!(told.file, Some(instance.config_dir.join(file)), "{told:?}");
        assert!(told.fix.contains(&format!("unlisted_ok = [{name:?}]")), "{told:?}");
    }
}

/// `$service_name` in master.cf and in main.cf, there by another parameter: no table of another name is made.
#[test]
fn a_table_named_by_the_service_is_the_one_of_that_service() {
    for in_main in [false, true] {
        let instance = instance("hash", HOP, Some(&format!("{HOP} {OLD}\n")));
        second_table(&instance, "sasl_bulk", &format!("{HOP} {OLD}\n"));
        let mut tables = vec!["sasl_bulk".to_owned()];
        let by_name = "hash:$config_directory/sasl_$service_name";
        let option = match in_main {
            false => format!("  -o smtp_sasl_password_maps={by_name}\n"),
            true => String::new(),
        };
        add_services(&instance, &format!("bulk unix - - n - - smtp\n{option}"));
        instance.set("transport_maps", &format!("inline:{{ {{bulk.example = bulk:{HOP}}} }}"));
        if in_main {
            second_table(&instance, "sasl_smtp", &format!("{HOP} {OLD}\n"));
            instance.set("my_logins", by_name);
            instance.set("smtp_sasl_password_maps", "$my_logins");
            tables.push("sasl_smtp".into());
        } else {
            tables.push("sasl_passwd".into());
        }
        let plan = target(&instance).plan(&applied("AKIAOLD"), &logins(NEW)).unwrap();
        let mut found: Vec<String> = written(&plan)
            .into_iter()
            .map(|(name, text)| {
                assert_eq!(text, format!("{HOP} {NEW}\n"), "{name}");
                name
            })
            .collect();
        found.sort();
        assert_eq!(found, tables);
    }
}

/// main.cf names the table by something that a service has an option for, or `-n`.
#[test]
fn a_table_named_by_an_option_of_the_service_is_the_one_of_that_service() {
    let by_account = "hash:$config_directory/${{$account} == {team:bulk} ? {sasl_bulk} : {sasl_passwd}}";
    for (main, service) in [
        (&[("syslog_name", "passwd"), ("smtp_sasl_password_maps", "hash:$config_directory/sasl_$syslog_name")][..], {
            "smtp\n  -o syslog_name=bulk\n"
        }),
        (&[("account", "team:main"), ("smtp_sasl_password_maps", by_account)], "smtp\n  -o account=team:bulk\n"),
        (&[("account", "main"), ("smtp_sasl_password_maps", by_account)], "smtp -vo account=team:bulk\n"),
        (
            &[(
                "smtp_sasl_password_maps",
                "hash:$config_directory/sasl_${{$service_name} == {bulk} ? {bulk} : {passwd}}",
            )],
            "smtp -n bulk\n",
        ),
    ] {
        let instance = instance("hash", HOP, Some(&format!("{HOP} {OLD}\n")));
        second_table(&instance, "sasl_bulk", &format!("{HOP} {OLD}\n"));
        add_services(&instance, &format!("news unix - - n - - {service}"));
        instance.set("transport_maps", &format!("inline:{{ {{bulk.example = news:{HOP}}} }}"));
        main.iter().for_each(|(name, value)| instance.set(name, value));
        let plan = target(&instance).plan(&applied("AKIAOLD"), &logins(NEW)).unwrap();
        let mut found: Vec<String> = written(&plan).into_iter().map(|(name, _)| name).collect();
        found.sort();
        assert_eq!(found, ["sasl_bulk", "sasl_passwd"], "{service}");
    }
}

/// trivial-rewrite(8) has an option that main.cf names its table by: then the next hops are others.
#[test]
fn a_route_named_by_an_option_of_the_service_that_decides_counts() {
    let instance = instance("hash", HOP, Some(&format!("{HOP} {OLD}\n")));
    second_table(&instance, "transport_b", "bulk.example smtp:[email-smtp.eu-west-1.amazonaws.com]:2587\n");
    instance.set("site", "a");
    instance.set("transport_maps", "hash:$config_directory/transport_$site");
    add_services(&instance, "rewrite unix - - n - - trivial-rewrite\n  -o site=b\n");
    let plan = target(&instance).plan(&applied("AKIAOLD"), &logins(NEW)).unwrap();
    let expected = format!("{HOP} {NEW}\n[email-smtp.eu-west-1.amazonaws.com]:2587 {NEW}\n");
    assert_eq!(written(&plan), [("sasl_passwd".to_owned(), expected)]);
}

/// A gateway that takes mail by the client's address at one port and with a login at another.
#[test]
fn a_hop_without_a_login_is_left_and_named() {
    let text = format!("[relay.internal]:587 {OLD}\n");
    let instance = instance("hash", "[relay.internal]:587", Some(&text));
    instance.set("transport_maps", "inline:{ {archive.example = smtp:[relay.internal]:25} }");
    instance.set("smtp_tls_security_level", "may");
    let view = target(&instance).inspect(&applied("AKIAOLD")).unwrap();
    assert!(errors(&view).is_empty() && view.missing.is_empty(), "{:?}", view.findings);
    let of_it: Vec<&Finding> = view.findings.iter().filter(|f| f.what.contains("[relay.internal]:25")).collect();
    assert!(of_it.len() == 1 && of_it[0].severity == Severity::Note, "{of_it:?}");
    assert!(of_it[0].what.contains("goes without a login, and is left so"), "{of_it:?}");
    let without_tls = "the login for \"[relay.internal]:587\" may go out without TLS";
    assert!(view.findings.iter().any(|f| f.what.contains(without_tls)), "{:?}", view.findings);
    let plan = target(&instance).plan(&applied("AKIAOLD"), &logins(NEW)).unwrap();
    assert_eq!(text_of(&plan), text.replace(OLD, NEW));
    // With no other route it is no use to this instance, and that is an error.
    instance.set("relayhost", "[relay.internal]:25");
    let view = target(&instance).inspect(&applied("AKIAOLD")).unwrap();
    assert!(errors(&view).iter().any(|f| f.what.contains("goes without a login; no other route")), "{view:?}");
}

/// smtp(8) does not open it, and `postmap -q` only warns.
#[test]
fn a_texthash_with_a_key_twice_is_refused_and_its_fix_mends_it() {
    let other = "[smtp.other.example]:587 joe:elsepassword";
    let (line, folded) = (format!("{HOP} {OLD}"), format!("{} {OLD}", HOP.to_uppercase()));
    for (text, lines, mended) in [
        (format!("{line}\n# c\n{other}\n{other}\n"), "lines 3 and 4", Some(format!("{line}\n# c\n{other}\n"))),
        (format!("{line}\n{folded}\n{line}\n"), "lines 1 and 2", Some(format!("{line}\n"))),
        (format!("{line}\n{HOP} AKIAPREV:prevpassword\n"), "lines 1 and 2", None),
    ] {
        let instance = instance("texthash", HOP, Some(&text));
        let fault = target(&instance).plan(&applied("AKIAOLD"), &logins(NEW)).unwrap_err();
        assert!(fault.what.starts_with(lines) && fault.what.contains("texthash"), "{}", fault.what);
        assert!(!fault.what.contains("elsep") && !fault.fix.contains("elsep"));
        match mended {
            None => assert!(!fault.fix.contains("sed "), "{}", fault.fix),
            Some(mended) => {
                let command = fault.fix.split(" && ").next().unwrap();
                assert!(
                    std::process::Command::new("sh").args(["-c", command]).status().unwrap().success(),
                    "{command}"
                );
                assert_eq!(fs::read_to_string(instance.config_dir.join("sasl_passwd")).unwrap(), mended);
                target(&instance).plan(&applied("AKIAOLD"), &logins(NEW)).unwrap();
            }
        }
    }
}

/// A login that a service sets for another parameter, and one that its table names by a parameter of main.cf.
#[test]
fn a_login_behind_a_parameter_is_one_of_the_service() {
    for (main, option) in [
        (("relay_logins", "hash:$config_directory/sasl_passwd".to_owned()), format!("relay_logins=static:{OLD}")),
        (("bulk_login", OLD.to_owned()), "smtp_sasl_password_maps=static:$bulk_login".to_owned()),
    ] {
        let instance = instance("hash", HOP, Some(&format!("{HOP} {OLD}\n")));
        add_services(&instance, &format!("bulk unix - - n - - smtp\n  -o {option}\n"));
        instance.set("transport_maps", &format!("inline:{{ {{bulk.example = bulk:{HOP}}} }}"));
        instance.set(main.0, &main.1);
        if main.0 == "relay_logins" {
            instance.set("smtp_sasl_password_maps", "$relay_logins");
        }
        let e = target(&instance).plan(&applied("AKIAOLD"), &logins(NEW)).unwrap_err();
        assert!(
            e.what
                .starts_with("static:(not shown): it holds a login of this credential in a table that relaykey cannot"),
            "{e:?}"
        );
        assert!(e.line.is_some() && !e.what.contains("oldpassword"), "{e:?}");
    }
}

/// A list of patterns, which says what it has for a key, and not for which keys it has something.
#[test]
fn no_entry_takes_the_place_of_a_login_of_a_table_of_patterns() {
    let other_port = format!("[{HOST}]:2587 {OLD}\n");
    let instance = instance("hash", HOP, Some(&other_port));
    let patterns = instance.table().with_file_name("patterns");
    std::fs::write(&patterns, "/:587$/ AKIAIOSFODNN7EXAMPLE:otherpassword\n").unwrap();
    let maps = format!("hash:{}, regexp:{}", instance.table().display(), patterns.display());
    instance.set("smtp_sasl_password_maps", &maps);
    let postfix = target(&instance);
    let e = postfix.plan(&applied("AKIAOLD"), &logins(NEW)).unwrap_err();
    assert!(e.what.contains("has another login for") && e.what.contains("patterns"), "{e:?}");
    let view = postfix.inspect(&applied("AKIAOLD")).unwrap();
    assert!(view.missing.is_empty(), "{:?}", view.missing);
    let others: Vec<String> = view.key_ids.others(Some("AKIAOLD")).named.into_iter().map(|held| held.id).collect();
    assert_eq!(others, ["AKIAIOSFODNN7EXAMPLE"]);
    // Another one's key of another next hop, and there is nothing in the way.
    std::fs::write(&patterns, "/other/ AKIAIOSFODNN7EXAMPLE:otherpassword\n").unwrap();
    let plan = postfix.plan(&applied("AKIAOLD"), &logins(NEW)).unwrap();
    assert_eq!(text_of(&plan), format!("[{HOST}]:2587 {NEW}\n{HOP} {NEW}\n"));
}

#[test]
fn two_tables_of_one_service_are_changed_together() {
    let instance = instance("hash", HOP, Some(&format!("{HOP} {OLD}\n")));
    let senders = second_table(&instance, "senders", &format!("@b.example {OLD}\n@c.example AKIAELSE:otherpassword\n"));
    let maps = format!("hash:{}, hash:{}", instance.table().display(), senders.display());
    instance.set("smtp_sasl_password_maps", &maps);
    instance.set("smtp_sender_dependent_authentication", "yes");
    let postfix = target(&instance);
    let plan = postfix.plan(&applied("AKIAOLD"), &logins(NEW)).unwrap();
    assert_eq!(
        written(&plan),
        [
            ("sasl_passwd".into(), format!("{HOP} {NEW}\n")),
            ("senders".into(), format!("@b.example {NEW}\n@c.example AKIAELSE:otherpassword\n")),
        ]
    );
    assert_eq!(services(&plan)[0], ("smtp".into(), 2, vec!["@b.example".into(), HOP.into()]));
    let view = postfix.inspect(&applied("AKIAOLD")).unwrap();
    let others: Vec<String> = view.key_ids.others(Some("AKIAOLD")).named.into_iter().map(|held| held.id).collect();
    assert_eq!((others, view.incomplete), (vec!["AKIAELSE".to_owned()], Vec::<String>::new()));
}

#[test]
fn routes_without_relayhost_lead_to_live_keys() {
    let direct = format!("{HOST}:25");
    let second = format!("[{HOST}]:2587");
    for (name, value, line, service) in [
        ("default_transport", format!("smtp:{HOP}"), HOP, "smtp"),
        ("transport_maps", format!("inline:{{ {{yahoo.example = smtp:{HOP}}} }}"), HOP, "smtp"),
        ("sender_dependent_relayhost_maps", format!("inline:{{ {{@a.example = {direct}}} }}"), &direct, "smtp"),
        ("sender_dependent_default_transport_maps", format!("inline:{{ {{@a.example = relay:{HOP}}} }}"), HOP, "relay"),
        ("smtp_fallback_relay", second.clone(), &second, "smtp"),
        ("content_filter", format!("smtp:{second}"), &second, "smtp"),
    ] {
        let instance = instance("hash", "", Some(&format!("{line} {OLD}\n")));
        instance.set(name, &value);
        let postfix = target(&instance);
        let plan = postfix.plan(&applied("AKIAOLD"), &logins(NEW)).unwrap();
        assert_eq!(text_of(&plan), format!("{line} {NEW}\n"), "{name}");
        assert_eq!(services(&plan)[0], (service.to_owned(), 1, vec![line.to_owned()]), "{name}");
        let view = postfix.inspect(&applied("AKIAOLD")).unwrap();
        assert!(view.findings.iter().any(|f| f.severity == Severity::Note && f.what.contains(name)), "{name}");
        // Its entry is made where it is not there.
        instance.write_table("# none\n");
        instance.postmap();
        let plan = postfix.plan(&applied("AKIAOLD"), &logins(NEW)).unwrap();
        assert_eq!(text_of(&plan), format!("# none\n{line} {NEW}\n"), "{name}");
    }
}

#[test]
fn a_service_that_does_not_log_in_is_told_and_another_ones_login_is_left() {
    let instance = instance("hash", HOP, Some(&format!("{HOP} {OLD}\n")));
    second_table(&instance, "sasl_team", &format!("{HOP} AKIAELSE:otherpassword\n"));
    add_services(
        &instance,
        "plain unix - - n - - smtp -o smtp_sasl_auth_enable=no\nteam unix - - n - - smtp -o \
         smtp_sasl_password_maps=hash:$config_directory/sasl_team -o relayhost=[x.example]:25\n",
    );
    let routes = format!("inline:{{ {{a.example = plain:{HOP}}}, {{b.example = team:{HOP}}} }}");
    instance.set("transport_maps", &routes);
    let postfix = target(&instance);
    let plan = postfix.plan(&applied("AKIAOLD"), &logins(NEW)).unwrap();
    assert_eq!(written(&plan), [("sasl_passwd".into(), format!("{HOP} {NEW}\n"))]);
    let view = postfix.inspect(&applied("AKIAOLD")).unwrap();
    let told = |needle: &str| view.findings.iter().find(|f| f.what.contains(needle)).map(|f| f.severity);
    assert_eq!(
        told("the service plain has -o smtp_sasl_auth_enable=no"),
        Some(Severity::Warning),
        "{:?}",
        view.findings
    );
    assert_eq!(told("the service team hands mail"), Some(Severity::Note), "{:?}", view.findings);
    assert_eq!(told("-o relayhost of the service team has no effect"), Some(Severity::Warning), "{:?}", view.findings);
    let others: Vec<String> = view.key_ids.others(Some("AKIAOLD")).named.into_iter().map(|held| held.id).collect();
    assert_eq!(others, ["AKIAELSE"], "what is left is never left silently");
}

#[test]
fn only_senders_lines_on_a_host_without_state_are_not_passed_over() {
    let instance = instance("hash", HOP, Some(&format!("@a.example {OLD}\n@b.example {OLD}\n")));
    instance.set("smtp_sender_dependent_authentication", "yes");
    let postfix = target(&instance);
    let e = postfix.plan(&Ours::default(), &logins(NEW)).unwrap_err();
    assert_eq!((e.class.word(), e.file.clone(), e.line), ("ambiguous", Some(instance.table()), Some(1)), "{e:?}");
    complete(&e);
    // Once the name is known, the lines are ours.
    let ours = Ours { known: vec!["AKIAOLD".into()], ..Ours::default() };
    let plan = postfix.plan(&ours, &logins(NEW)).unwrap();
    assert_eq!(text_of(&plan), format!("@a.example {NEW}\n@b.example {NEW}\n"));
    assert_eq!(services(&plan)[0].2, ["@a.example", "@b.example"]);
}

#[test]
fn a_table_behind_proxymap_is_changed_and_needs_a_reload() {
    let instance = instance("hash", HOP, Some(&format!("{HOP} {OLD}\n")));
    instance.set("smtp_sasl_password_maps", &format!("proxy:hash:{}", instance.table().display()));
    let plan = target(&instance).plan(&applied("AKIAOLD"), &logins(NEW)).unwrap();
    assert_eq!((text_of(&plan), plan.reload_needed), (format!("{HOP} {NEW}\n"), true));
    assert_eq!(paths(&plan), [instance.table(), instance.map()]);
}

#[test]
fn what_cannot_be_read_at_all_is_an_error() {
    let nowhere = Postfix::new(Path::new("/nonexistent"), &relay(), None, &Reload::Always);
    let e = nowhere.inspect(&Ours::default()).unwrap_err();
    assert!(e.class == Class::Config && e.what.contains("/nonexistent/main.cf"), "{e:?}");
    complete(&e);
    // postmap quotes the lines of a table that it warns about; we do not.
    let instance = instance("hash", HOP, Some(&format!("{HOP} {OLD}\n")));
    let staged = instance.config_dir.join("missing/.staged");
    let e = target(&instance).compile(&instance.table_id(), &staged).unwrap_err();
    assert!(e.class == Class::Command && e.what.contains("No such file"), "{e:?}");
    instance.write_table(&format!("{HOP} {OLD}\n\"unbalanced oldpassword\n"));
    fs::create_dir(instance.config_dir.join("sasl_passwd.lock")).unwrap();
    fs::remove_file(instance.map()).unwrap();
    fs::create_dir(instance.map()).unwrap();
    let e = target(&instance).compile(&instance.table_id(), &instance.table()).unwrap_err();
    complete(&e);
    let e = target(&instance).lookup(&instance.table_id(), None, &[HOP.into()]).unwrap_err();
    complete(&e);
}

/// A map that others may read is theirs to lock, and Postfix's programs wait for that lock.
#[test]
fn who_locks_a_map_that_postmap_waits_for_is_named() {
    let instance = instance("hash", HOP, Some(&format!("{HOP} {OLD}\n")));
    let postfix = target(&instance);
    let map = fs::File::open(instance.map()).unwrap();
    rustix::fs::flock(&map, rustix::fs::FlockOperation::LockExclusive).unwrap();
    let e = postfix.lookup(&instance.table_id(), None, &[HOP.into()]).unwrap_err();
    complete(&e);
    assert!(e.temporary && e.class == Class::LockHeld, "{e:?}");
    let (pid, map_name) = (std::process::id(), instance.map().display().to_string());
    assert!(e.what.contains(&format!("process {pid} (")) && e.what.contains(&map_name), "{e:?}");
    assert!(e.fix.contains(&format!("ps -o pid,user,args -p {pid}")), "{e:?}");
    assert!(e.fix.contains(&format!("chmod o-r {map_name}")), "{e:?}");
    drop(map);
    postfix.lookup(&instance.table_id(), None, &[HOP.into()]).unwrap();
}

/// A directory in which nothing may be replaced (`chattr +a`) has room enough.
#[test]
fn what_is_not_permitted_is_not_called_a_lack_of_room() {
    let instance = instance("hash", HOP, Some(&format!("{HOP} {OLD}\n")));
    let fails = |says: &str| {
        let wrapper = instance.config_dir.join("postmap");
        fs::write(&wrapper, format!("#!/bin/sh\necho 'postmap: fatal: open database x.db: {says}' >&2\nexit 1\n"))
            .unwrap();
        fs::set_permissions(&wrapper, fs::Permissions::from_mode(0o755)).unwrap();
        for program in ["postconf", "postalias", "postfix"] {
            let _ = std::os::unix::fs::symlink(format!("/usr/sbin/{program}"), instance.config_dir.join(program));
        }
        instance.set("command_directory", instance.config_dir.to_str().unwrap());
        let e = target(&instance).compile(&instance.table_id(), &instance.table()).unwrap_err();
        complete(&e);
        assert!(e.what.contains(says), "{e:?}");
        e.fix
    };
    let fix = fails("Operation not permitted");
    assert!(fix.contains("lsattr -d") && fix.contains("chattr -a") && !fix.contains("room"), "{fix}");
    let fix = fails("Read-only file system");
    assert!(fix.contains("ReadWritePaths=") && !fix.contains("room"), "{fix}");
    for words in ["No space left on device", "Disk quota exceeded"] {
        assert!(fails(words).contains("free space on the file system that holds"), "{words}");
    }
    assert!(fails("File too large").contains("ulimit -f"));
}

#[test]
fn a_running_instance() {
    let instance = instance("hash", HOP, Some(&format!("{HOP} {OLD}\n")));
    instance.set("default_transport", "discard");
    let postfix = target(&instance);
    assert_eq!(postfix.running().unwrap(), Running::No);
    let e = postfix.activate().unwrap_err();
    assert_eq!((e.class.word(), e.temporary), ("not-running", true), "{e:?}");

    let boot_seconds =
        || fs::read_to_string("/proc/uptime").unwrap().split('.').next().unwrap().parse::<u64>().unwrap();
    let before = boot_seconds();
    instance.start();
    let after = boot_seconds();
    let Running::Yes { since_boot } = postfix.running().unwrap() else { panic!("it runs") };
    // /proc/uptime counts suspended time, as the start time does; one second for rounding.
    assert!((before.saturating_sub(1)..=after + 1).contains(&since_boot), "{before} <= {since_boot} <= {after}");
    let view = postfix.inspect(&Ours::default()).unwrap();
    assert_eq!(view.running, Running::Yes { since_boot });
    assert_eq!(view.stopped, None);
    assert!(!view.findings.iter().any(|f| f.what.contains("newer than the last")), "{:?}", view.findings);

    instance.inject(3);
    instance.queue_empty(Duration::from_secs(20));
    postfix.activate().unwrap();
    instance.wait_for_log(&["reload"], Duration::from_secs(10));
    assert_eq!(postfix.running().unwrap(), Running::Yes { since_boot }, "a reload is no start");

    // A newer main.cf is named until a reload has read it.
    let edited = |when: SystemTime| {
        fs::File::options().write(true).open(instance.main_cf()).unwrap().set_modified(when).unwrap();
        let view = postfix.inspect(&Ours::default()).unwrap();
        view.findings.iter().any(|f| f.what.contains("newer than the last start or reload"))
    };
    assert!(edited(SystemTime::now() + Duration::from_secs(10)));
    assert!(!edited(SystemTime::now() - Duration::from_secs(3600)));

    // The boot time is known to the second, so the edit has to be a little younger than the start.
    lab::wait_for("the instance to be three seconds old", Duration::from_secs(10), || {
        (boot_seconds() > since_boot + 3).then_some(())
    });
    // So may the reload's, which is as late as the machine is busy.
    lab::wait_for("an edit to be newer than the reload", Duration::from_secs(30), || {
        edited(SystemTime::now()).then_some(())
    });
    postfix.activate().unwrap();
    lab::wait_for("the reload to have read main.cf", Duration::from_secs(30), || {
        // The queue manager, whose start tells of the reload, comes back when there is something to do.
        instance.inject(1);
        let findings = postfix.inspect(&Ours::default()).unwrap().findings;
        (!findings.iter().any(|f| f.what.contains("newer than the last start or reload"))).then_some(())
    });

    // A configuration that does not pass the check is not reloaded.
    let sound = fs::read_to_string(instance.main_cf()).unwrap();
    fs::write(instance.main_cf(), sound.clone() + "default_process_limit = many\n").unwrap();
    fs::File::options()
        .write(true)
        .open(instance.main_cf())
        .unwrap()
        .set_modified(SystemTime::now() + Duration::from_secs(10))
        .unwrap();
    let reloads = || instance.log().matches("reload").count();
    let had = reloads();
    let e = postfix.activate().unwrap_err();
    assert_eq!((e.class.word(), e.temporary, e.file.clone()), ("config", false, Some(instance.main_cf())), "{e:?}");
    assert!(e.what.contains("default_process_limit") && e.what.contains("newer than"), "{e:?}");
    complete(&e);
    assert_eq!(reloads(), had);
    instance.write_main_cf(&sound);

    // A command of one's own instead of the reload.
    let argv = |argv: &[&str]| Reload::Command(argv.iter().map(|word| (*word).to_owned()).collect());
    let line = format!("exec postfix -c {} reload", instance.config_dir.display());
    let own = Postfix::new(&instance.config_dir, &relay(), None, &argv(&["/bin/sh", "-c", &line]));
    own.activate().unwrap();
    let failing =
        Postfix::new(&instance.config_dir, &relay(), None, &argv(&["/bin/sh", "-c", "echo no reload >&2; exit 3"]));
    let e = failing.activate().unwrap_err();
    assert!(e.class == Class::Command && e.temporary && e.what.contains("no reload"), "{e:?}");

    let master = instance.master().unwrap();
    instance.stop();
    assert_eq!(postfix.running().unwrap(), Running::No);
    // A pid file that outlived its process names somebody else's by now, even one called master.
    assert!(fs::read_to_string(instance.base.join("spool/pid/master.pid")).unwrap().contains(&master.to_string()));
    let stranger = instance.base.join("master");
    fs::copy("/bin/sleep", &stranger).unwrap();
    let mut child = std::process::Command::new(&stranger).arg("60").spawn().unwrap();
    fs::write(instance.base.join("spool/pid/master.pid"), format!("{:>15}\n", child.id())).unwrap();
    let running = postfix.running();
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(running.unwrap(), Running::No);
}
