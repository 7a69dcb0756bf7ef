//! Searches that end in a table which Postfix cannot open, or which gives another login; and programs of master.cf by other names.

use super::*;

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// A table with our line, as a service finds it, and a service of another table.
fn with_maps(maps: impl FnOnce(&Path) -> String) -> (Instance, Postfix) {
    let instance = instance("hash", HOP, Some(&format!("{HOP} {OLD}\n")));
    let maps = maps(&instance.config_dir);
    instance.set("smtp_sasl_password_maps", &maps.replace("OURS", &format!("hash:{}", instance.table().display())));
    let postfix = target(&instance);
    (instance, postfix)
}

fn master_cf(instance: &Instance, edit: impl FnOnce(String) -> String) {
    let file = instance.config_dir.join("master.cf");
    let text = edit(fs::read_to_string(&file).unwrap());
    fs::write(&file, text).unwrap();
    lab::cool_down(&file);
}

/// The errors, that they stop a plan, and that they are what a look tells of tables that cannot be read.
fn unreadable(postfix: &Postfix) -> Vec<Finding> {
    let view = postfix.inspect(&applied("AKIAOLD")).unwrap();
    let errors: Vec<Finding> = errors(&view).into_iter().cloned().collect();
    assert_eq!(view.unreadable, errors);
    let planned = postfix.plan(&applied("AKIAOLD"), &logins(NEW));
    match errors.first() {
        None => drop(planned.unwrap()),
        Some(error) => {
            let e = planned.unwrap_err();
            assert_eq!((&e.what, e.temporary), (&error.what, false));
            complete(&e);
        }
    }
    errors
}

#[test]
fn a_table_that_postfix_cannot_open_is_an_error_that_names_it() {
    for maps in [
        "OURS, lmdb:DIR/none",
        "hash:DIR/none OURS",
        "OURS texthash:DIR/none",
        "proxy:cdb:DIR/none, OURS",
        "OURS, regexp:DIR/none",
        "cidr:DIR/none, OURS",
        "OURS unionmap:{lmdb:DIR/none}",
        "debug:DIR/none OURS",
    ] {
        let (instance, postfix) = with_maps(|dir| maps.replace("DIR", &dir.display().to_string()));
        if maps.contains("proxy:") {
            instance.set("proxy_read_maps", &format!("proxy:cdb:{}/none", instance.config_dir.display()));
        }
        let [error] = &unreadable(&postfix)[..] else { panic!("{maps}") };
        // One that is written out in main.cf is not shown, and what Postfix says is.
        let named = format!("{:?} {} {}", error.file, error.fix, error.what);
        assert!(named.contains("none") && error.what.contains("waits in the queue"), "{maps}: {error:?}");
    }
}

/// What its file holds is none, or its text was never compiled: the fix makes it, and then nothing is wrong.
#[test]
fn what_is_no_table_is_made_anew_by_the_fix() {
    for (kind, damage) in [
        ("hash", Some(Vec::new())),
        ("hash", Some(vec![7; 20_000])),
        ("lmdb", Some(vec![7; 20_000])),
        ("cdb", Some(Vec::new())),
        ("hash", None),
    ] {
        let (instance, postfix) = with_maps(|dir| format!("OURS, {kind}:{}/second", dir.display()));
        let second = instance.config_dir.join("second");
        fs::write(&second, "[other.example]:587 other:otherpassword\n").unwrap();
        let extension = if kind == "hash" { "db" } else { kind };
        if let Some(damage) = damage {
            fs::write(second.with_extension(extension), damage).unwrap();
        }
        let [error] = &unreadable(&postfix)[..] else { panic!("{kind}") };
        let (_, fix) = error.fix.split_once(": ").unwrap();
        assert!(std::process::Command::new("sh").args(["-c", fix]).status().unwrap().success(), "{fix}");
        assert_eq!(unreadable(&postfix), [], "{kind}");
    }
}

/// A search that gets to no such table, or to one that the next rollover makes.
#[test]
fn a_table_that_no_search_gets_to_does_no_harm() {
    // That of another service, and one that is behind the name of the host itself.
    let (instance, postfix) = with_maps(|_| "OURS".into());
    master_cf(&instance, |text| text + "bulk unix - - n - - smtp\n  -o smtp_sasl_password_maps=hash:/etc/none-such\n");
    assert_eq!(unreadable(&postfix), []);
    let (instance, postfix) = with_maps(|dir| format!("OURS, lmdb:{}/none", dir.display()));
    assert_eq!(unreadable(&postfix).len(), 1);
    instance.write_table(&format!("{HOST} {OLD}\n"));
    instance.postmap();
    assert_eq!(unreadable(&postfix), []);
    // With logins by the sender, every table is asked for the sender first.
    instance.set("smtp_sender_dependent_authentication", "yes");
    assert_eq!(unreadable(&postfix).len(), 1);
    // Ours was never compiled, or is not there yet.
    let (instance, postfix) = with_maps(|_| "OURS".into());
    fs::remove_file(instance.map()).unwrap();
    assert_eq!(unreadable(&postfix), []);
    fs::remove_file(instance.table()).unwrap();
    assert_eq!(unreadable(&postfix), []);
    // proxymap(8) does not run, as Postfix does not.
    let (instance, postfix) = with_maps(|dir| format!("OURS, proxy:regexp:{}/none", dir.display()));
    instance.set("proxy_read_maps", &format!("proxy:regexp:{}/none", instance.config_dir.display()));
    assert_eq!(unreadable(&postfix), []);
}

#[test]
fn a_server_that_is_down_is_an_error_of_the_moment() {
    let port = lab::free_port();
    let (_instance, postfix) = with_maps(|_| format!("socketmap:inet:127.0.0.1:{port}:logins, OURS"));
    for e in [
        postfix.inspect(&applied("AKIAOLD")).unwrap_err(),
        postfix.plan(&applied("AKIAOLD"), &logins(NEW)).unwrap_err(),
    ] {
        assert!(e.temporary && e.what.contains("socketmap:inet:127.0.0.1"), "{e:?}");
        assert!(e.fix.contains("unlisted_ok"), "{e:?}");
        complete(&e);
    }
}

/// Root may not be let in where Postfix is: who knows what is in such a table says so, and a search goes on behind it.
#[test]
fn a_server_that_somebody_answers_for_stops_nothing() {
    let server = strict_server();
    for first in [format!("unionmap:{{{server}}}"), server] {
        let (instance, postfix) = with_maps(|_| format!("{first}, OURS"));
        let e = postfix.inspect(&applied("AKIAOLD")).unwrap_err();
        assert!(e.temporary && e.fix.contains("unlisted_ok"), "{e:?}");
        let postfix = postfix.vouched_for(vec![first.clone()]);
        if first.starts_with("unionmap") {
            drop(postfix.inspect(&applied("AKIAOLD")).unwrap());
            continue;
        }
        assert_eq!(unreadable(&postfix), []);
        // What is known to be missing is told all the same, behind it and of another that somebody answers for.
        for missing in ["hash", "regexp"].map(|kind| format!("{kind}:{}/none", instance.config_dir.display())) {
            let down = format!("socketmap:inet:127.0.0.1:{}:logins", lab::free_port());
            let maps = format!("{down}, {missing}, hash:{}", instance.table().display());
            instance.set("smtp_sasl_password_maps", &maps);
            let postfix = target(&instance).vouched_for(vec![down, missing]);
            let view = postfix.inspect(&applied("AKIAOLD")).unwrap();
            let [error] = &view.unreadable[..] else { panic!("{maps}") };
            assert!(format!("{:?}", error.file).contains("/none"), "{error:?}");
        }
    }
}

/// What smtp(8) never asks does not count, however a server answers it.
#[test]
fn a_server_is_judged_by_the_keys_that_postfix_asks() {
    let server = strict_server();
    let (instance, postfix) = with_maps(|_| format!("{server}, OURS"));
    // It comes to the next hop in its brackets.
    let e = postfix.inspect(&applied("AKIAOLD")).unwrap_err();
    assert!(e.temporary && e.what.contains("socketmap"), "{e:?}");
    // It finds the name of the host before.
    instance.write_table(&format!("{HOST} {OLD}\n"));
    instance.postmap();
    assert_eq!(unreadable(&postfix), []);
    instance.set("smtp_sender_dependent_authentication", "yes");
    assert_eq!(unreadable(&postfix), []);
}

/// What is written out in main.cf or master.cf is named by its line there, also where the setting goes on over several.
#[test]
fn an_entry_that_is_written_out_is_named_by_its_line_in_the_settings() {
    let (instance, postfix) = with_maps(|_| "OURS".into());
    let main_cf = instance.main_cf();
    let text = fs::read_to_string(&main_cf).unwrap();
    let table = format!("hash:{}", instance.table().display());
    let value = format!(
        "smtp_sasl_password_maps =\n# by hand\n  inline:{{ {{other.example = a:b}},\n    {{{HOP} = nothing}} }}\n  {table}\n"
    );
    fs::write(&main_cf, format!("{text}{value}")).unwrap();
    lab::cool_down(&main_cf);
    let view = postfix.inspect(&applied("AKIAOLD")).unwrap();
    let place = |view: &View| {
        let of_it = view.findings.iter().find(|finding| finding.what.contains("something that is not USER:PASSWORD"));
        let Finding { file, line, .. } = of_it.unwrap_or_else(|| panic!("{:?}", view.findings));
        (file.clone().unwrap(), line.unwrap())
    };
    assert_eq!(place(&view), (main_cf.clone(), text.lines().count() + 4));
    // As a service's own option.
    fs::write(&main_cf, &text).unwrap();
    lab::cool_down(&main_cf);
    let mut line = 0;
    master_cf(&instance, |text| {
        line = text.lines().count() + 3;
        text + &format!(
            "bulk unix - - n - - smtp\n  -o smtp_helo_timeout=9s\n  -o {{ smtp_sasl_password_maps = {table}, inline:{{{{{HOP}=nothing}}}} }}\n"
        )
    });
    instance.set("transport_maps", &format!("inline:{{ {{b.example = bulk:{HOP}}} }}"));
    instance.write_table("other.example other:password\n");
    instance.postmap();
    let view = postfix.inspect(&Ours::default()).unwrap();
    assert_eq!(place(&view), (instance.config_dir.join("master.cf"), line));
}

/// However many services ask one table, and have one rule, a look asks it once: for their logins, and for their TLS policy.
#[test]
fn a_look_asks_each_table_once_however_many_services_ask_it() {
    let asked = |services: usize| {
        let (server, children) = counted_server(|_| Some("NOTFOUND "));
        let (instance, postfix) = with_maps(|_| format!("OURS, {server}"));
        let names = || (0..services).map(|number| format!("s{number}"));
        let routes: Vec<String> = names().map(|name| format!("{{{name}.example = {name}:{HOP}}}")).collect();
        instance.set("transport_maps", &format!("inline:{{ {} }}", routes.join(", ")));
        let policy = instance.config_dir.join("policy");
        fs::write(&policy, "").unwrap();
        instance.set("smtp_tls_policy_maps", &format!("texthash:{}", policy.display()));
        let entries: String =
            names().map(|name| format!("{name} unix - - n - - smtp -o smtp_helo_timeout=9s\n")).collect();
        master_cf(&instance, |text| text + &entries);
        // What starts them counts them.
        let programs = instance.config_dir.join("programs");
        fs::create_dir(&programs).unwrap();
        let script = programs.join("postmap");
        let log = instance.config_dir.join("started");
        fs::write(&script, format!("#!/bin/sh\necho >> {}\nexec /usr/sbin/postmap \"$@\"\n", log.display())).unwrap();
        fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
        instance.set("command_directory", programs.to_str().unwrap());
        let view = postfix.inspect(&applied("AKIAOLD")).unwrap();
        assert_eq!(view.services.len(), services + 2, "each of them looks a login up, as smtp and relay do");
        (children.load(Ordering::Relaxed), fs::read_to_string(&log).unwrap().lines().count())
    };
    let few = asked(1);
    assert_eq!(asked(40), few);
}

/// A server that does not answer one key: a look ends, waits once, and says which table it is.
#[test]
fn a_server_that_hangs_on_one_key_is_named_and_waited_for_once() {
    let (server, children) = counted_server(|key| (!key.contains("second")).then_some("NOTFOUND "));
    let (instance, postfix) = with_maps(|_| format!("{server}, OURS"));
    // A next hop without an entry: its keys are asked for together, with those of the other.
    instance.set(
        "transport_maps",
        "inline:{ {b.example = smtp:[relay.internal]:587}, {c.example = smtp:second.relay.internal:587} }",
    );
    let relay = Relay { endpoint_aliases: vec!["relay.internal".into(), "second.relay.internal".into()], ..relay() };
    let postfix_of_both = Postfix::new(&instance.config_dir, &relay, None, &Reload::Always);
    drop(postfix);
    let e = postfix_of_both.inspect(&applied("AKIAOLD")).unwrap_err();
    assert!(e.temporary && e.what.contains("socketmap:") && e.what.contains("did not end within"), "{e:?}");
    assert!(e.fix.contains("postmap") && e.fix.contains("unlisted_ok"), "{e:?}");
    complete(&e);
    assert_eq!(children.load(Ordering::Relaxed), 1);
}

/// What it refuses of one next hop makes nothing of another one unknown, and what smtp(8) does not get to does not count.
#[test]
fn a_server_that_refuses_one_key_answers_for_the_others() {
    let gives = |key: &str| match key {
        "relay.internal" => Some("OK AKIAELSE:password"),
        "[relay.internal]:587" => Some("PERM no such key"),
        _ => Some("NOTFOUND "),
    };
    let (server, _) = counted_server(gives);
    let (instance, postfix) = with_maps(|_| format!("OURS, {server}"));
    instance.set("transport_maps", "inline:{ {b.example = smtp:[relay.internal]:587} }");
    let view = postfix.inspect(&applied("AKIAOLD")).unwrap();
    assert!(view.missing.is_empty(), "a login is in use for it: {:?}", view.missing);
    let e = postfix.plan(&applied("AKIAOLD"), &logins(NEW)).unwrap_err();
    assert!(e.class == Class::Ambiguous && e.what.contains("has another login for"), "{e:?}");
}

/// A socketmap that gives for a key what that gives, or nothing at all, and how many have asked it: each child of a look is one.
fn counted_server(gives: impl Fn(&str) -> Option<&'static str> + Send + Sync + 'static) -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let (clients, gives) = (Arc::new(AtomicUsize::new(0)), Arc::new(gives));
    let count = clients.clone();
    std::thread::spawn(move || {
        for mut client in listener.incoming().flatten() {
            count.fetch_add(1, Ordering::Relaxed);
            let gives = gives.clone();
            std::thread::spawn(move || {
                while let Some(request) = netstring(&mut client) {
                    let key = request.split_once(' ').map_or("", |(_, key)| key);
                    let Some(answer) = gives(key) else { continue };
                    if client.write_all(format!("{}:{answer},", answer.len()).as_bytes()).is_err() {
                        break;
                    }
                }
            });
        }
    });
    (format!("socketmap:inet:127.0.0.1:{port}:logins"), clients)
}

/// A socketmap that has nothing, and refuses what is neither the name of a host nor an address.
fn strict_server() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for mut client in listener.incoming().flatten() {
            while let Some(request) = netstring(&mut client) {
                let key = request.split_once(' ').map_or("", |(_, key)| key);
                let is_name =
                    key.contains('.') && key.bytes().all(|b| b.is_ascii_alphanumeric() || b".-@".contains(&b));
                let answer = if is_name { "NOTFOUND " } else { "PERM no such key" };
                if client.write_all(format!("{}:{answer},", answer.len()).as_bytes()).is_err() {
                    break;
                }
            }
        }
    });
    format!("socketmap:inet:127.0.0.1:{port}:logins")
}

fn netstring(client: &mut TcpStream) -> Option<String> {
    let mut length = String::new();
    let mut byte = [0];
    loop {
        client.read_exact(&mut byte).ok()?;
        match byte[0] {
            b':' => break,
            digit => length.push(digit.into()),
        }
    }
    // And the comma behind it.
    let mut bytes = vec![0; length.parse::<usize>().ok()? + 1];
    client.read_exact(&mut bytes).ok()?;
    bytes.pop();
    String::from_utf8(bytes).ok()
}

/// smtp(8) goes by the name of its file alone; another program does whatever it does.
#[test]
fn a_program_is_known_by_its_base_name() {
    let (instance, postfix) = with_maps(|_| "OURS".into());
    let other = instance.config_dir.join("other");
    fs::write(&other, format!("{HOP} AKIAPREVIOUSKEY77777:otherpassword\n")).unwrap();
    lab::cool_down(&other);
    let own = format!("-o smtp_sasl_password_maps=texthash:{}", other.display());
    let smtp = |text: String, program: &str, own: &str| {
        let is_smtp = |line: &&str| line.split_whitespace().next() == Some("smtp") && line.contains(" unix ");
        let line = text.lines().find(is_smtp).expect("a client").to_owned();
        text.replace(&line, &format!("smtp unix - - n - - {program} {own}"))
    };
    let as_it_was = fs::read_to_string(instance.config_dir.join("master.cf")).unwrap();
    for program in ["./smtp", ".//./smtp", "/smtp"] {
        master_cf(&instance, |_| smtp(as_it_was.clone(), program, &own));
        let previous = Ours { previous: Some("AKIAPREVIOUSKEY77777".into()), ..applied("AKIAOLD") };
        let view = postfix.inspect(&previous).unwrap();
        let service = view.services.iter().find(|service| service.service == "smtp").expect("it is a client");
        assert!(service.tables[0].as_str().starts_with("texthash:"), "{program}");
        assert_eq!(view.incomplete, [""; 0], "{program}");
    }
    // One that nobody knows is named, with what it names; and may be vouched for.
    for program in ["smtp-wrapper", "../bin/smtp"] {
        master_cf(&instance, |_| smtp(as_it_was.clone(), program, &own));
        let view = postfix.inspect(&applied("AKIAOLD")).unwrap();
        assert_eq!(view.incomplete, ["pipe:smtp"], "{program}");
        let others = view.key_ids.others(Some("AKIAOLD"));
        assert!(format!("{others:?}").contains("AKIAPREVIOUSKEY77777"), "{program}: {others:?}");
        let vouched = target(&instance).vouched_for(vec!["pipe:smtp".into()]);
        assert_eq!(vouched.inspect(&applied("AKIAOLD")).unwrap().incomplete, [""; 0], "{program}");
    }
}

/// Root looks for logins that a program of another user has; what that user may not read is not looked into.
#[test]
fn root_reads_nothing_for_a_service_that_its_user_may_not_read() {
    let (instance, postfix) = with_maps(|_| "OURS".into());
    let dir = tempfile::Builder::new().prefix("relaykey-readers").tempdir_in("/tmp").unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let (secret, settings) = (dir.path().join("secret"), dir.path().join("settings"));
    fs::write(&secret, "host email-smtp.eu-west-1.amazonaws.com\nuser AKIAROOTSECRET000077\n").unwrap();
    symlink(&secret, &settings).unwrap();
    master_cf(&instance, |text| {
        format!("{text}out unix - n n - - pipe user=nobody argv=/usr/bin/msmtp -C {}\n", settings.display())
    });
    for (mode, is_seen) in [(0o600, false), (0o640, false), (0o644, true)] {
        fs::set_permissions(&secret, fs::Permissions::from_mode(mode)).unwrap();
        let view = postfix.inspect(&applied("AKIAOLD")).unwrap();
        let others = format!("{:?}", view.key_ids.others(Some("AKIAOLD")));
        assert_eq!(others.contains("AKIAROOTSECRET000077"), is_seen, "{mode:o}");
        // What it logs in with is not known either way.
        assert_eq!(view.incomplete, ["pipe:out"], "{mode:o}");
    }
}
