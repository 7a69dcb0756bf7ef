//! The commands of the real program: exit codes, texts, JSON, and that what only looks changes nothing.

use crate::lab::moto;
use crate::lab::postfix;
use crate::lab::relaykey as lab;
use crate::lab::scratch::{self, Files as _};

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant, SystemTime};

use lab::{Host, Key, Program, RUN, Ran, Setup, Snapshot, keep_secret};
use serde_json::{Value, json};

const SECRET_KEY: &str = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY";
/// What the SES developer guide publishes for it.
const DERIVED: &str = "BMPPgbAHoFVbze1Ud0oA5uNdXRwUXUZ+qOwphGJbl/cS";

fn relaykey(arguments: &[&str], env: &[(&str, &str)], stdin: &[u8]) -> Ran {
    Program::start(arguments, env, stdin).wait(RUN)
}

// ---------------------------------------------------------------- derive

#[test]
fn derive_gives_the_published_vectors() {
    keep_secret(SECRET_KEY);
    let table: [(&str, Vec<u8>, &str); 4] = [
        ("us-east-2", SECRET_KEY.into(), DERIVED),
        ("us-east-2", format!("{SECRET_KEY}\n").into(), DERIVED),
        ("us-east-2", format!("  {SECRET_KEY} \r\n\n").into(), DERIVED),
        ("eu-central-1", "some+secret+key\n".into(), "BMXhUYlu5Z3gSXVQORxlVa7XPaz91aGWdfHxvkOZdWZ2"),
    ];
    for (region, stdin, expected) in table {
        // An example of AWS's documentation that is shorter than any key.
        let shorter: &[&str] = if stdin.starts_with(b"some") { &["--any-length"] } else { &[] };
        let ran = relaykey(&[&["derive", "--region", region], shorter].concat(), &[], &stdin);
        ran.expect(0);
        assert_eq!((ran.out.as_str(), ran.err.as_str()), (format!("{expected}\n").as_str(), ""), "{region}");
    }
}

/// The password of a misspelt region is good nowhere, and the endpoint says only that it is wrong.
#[test]
fn derive_warns_of_a_region_that_is_probably_misspelt() {
    keep_secret(SECRET_KEY);
    for (region, instead) in [("eu-wst-1", "eu-west-1"), ("us-gov-esat-1", ""), ("ap-sotheast-2", "ap-southeast-2")] {
        let ran = relaykey(&["derive", "--region", region], &[], SECRET_KEY.as_bytes());
        ran.expect(0);
        assert_eq!((ran.out.trim_end().len(), ran.err.lines().count()), (44, 2), "{}", ran.err);
        assert!(ran.err.contains(&format!("region {region:?} is none that AWS has")), "{}", ran.err);
        assert!(ran.err.contains(&format!("did you mean {instead:?}")) || instead.is_empty(), "{}", ran.err);
    }
}

#[test]
fn derive_refuses_what_is_no_secret_access_key() {
    keep_secret(SECRET_KEY);
    let two = format!("{SECRET_KEY}\n{SECRET_KEY}\n");
    let huge = vec![b'x'; 1_000_000];
    let (quoted, pair) = (format!("\"{SECRET_KEY}\""), format!("AKIAIOSFODNN7EXAMPLE:{SECRET_KEY}"));
    let (token, umlaut) = ("FwoGZXIvYXdz".repeat(20), SECRET_KEY.replace('/', "_"));
    let json = format!("{{\"SecretAccessKey\": \"{SECRET_KEY}\"}}");
    let table: [(&str, &[u8], &str); 16] = [
        ("us-east-1", b"hunter2\n", "another length than 40"),
        ("us-east-1", &SECRET_KEY.as_bytes()[1..], "another length than 40"),
        ("us-east-1", quoted.as_bytes(), "quotation marks"),
        ("us-east-1", pair.as_bytes(), "a pair of user name and secret"),
        ("us-east-1", token.as_bytes(), "a session token"),
        ("us-east-1", umlaut.as_bytes(), "a character that no key has"),
        ("us-east-1", DERIVED.as_bytes(), "an SES SMTP password already"),
        ("us-east-1", json.as_bytes(), "it is JSON"),
        ("us-east-1", b"", "standard input is empty"),
        ("us-east-1", b"  \n", "standard input is empty"),
        ("us-east-1", &huge, "not a secret access key"),
        ("us-east-1", two.as_bytes(), "several lines"),
        ("us-east-1", b"\xff\xfe\x00", "not text"),
        ("us-east-1", b"AKIAIOSFODNN7EXAMPLE\n", "no secret access key: it is an access key id"),
        ("us-east-1", b"ASIAIOSFODNN7EXAMPLE\n", "no secret access key: it is an access key id"),
        ("Ireland", SECRET_KEY.as_bytes(), "\"Ireland\" is not a region"),
    ];
    for (region, stdin, words) in table {
        let ran = relaykey(&["derive", "--region", region], &[], stdin);
        ran.expect(2).says(&[words, "fix: "]);
        assert_eq!(ran.out, "", "{words}");
    }
    for region in ["", "eu-west", "EU-WEST-1", "eu-west-1a", "eu west 1", "-1", "../../etc"] {
        relaykey(&["derive", &format!("--region={region}")], &[], SECRET_KEY.as_bytes()).expect(2).says_not(DERIVED);
    }
    relaykey(&["derive"], &[], SECRET_KEY.as_bytes()).expect(2).says(&["--region"]);
    // A secret has no business on a command line.
    let ran = relaykey(&["derive", "--region", "us-east-1", "not-even-a-secret"], &[], b"");
    ran.expect(2).says(&["unexpected argument"]);
}

/// On a terminal it asks, and what is typed is not shown.
#[test]
fn derive_on_a_terminal_does_not_echo() {
    let mut child = Command::new("/usr/bin/script")
        .args(["-qec", &format!("{} derive --region us-east-2", env!("CARGO_BIN_EXE_relaykey")), "/dev/null"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("script(1)");
    let (mut input, mut output) = (child.stdin.take().expect("piped"), child.stdout.take().expect("piped"));
    let (tell, told) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok(n @ 1..) = output.read(&mut buffer) {
            let _ = tell.send(String::from_utf8_lossy(&buffer[..n]).into_owned());
        }
    });
    let mut shown = String::new();
    let mut until = |words: &str| {
        let deadline = Instant::now() + Duration::from_secs(20);
        while !shown.contains(words) {
            let left = deadline.saturating_duration_since(Instant::now());
            shown += &told.recv_timeout(left).unwrap_or_else(|e| panic!("waited for {words:?} ({e}): {shown:?}"));
        }
        shown.clone()
    };
    until("IAM secret access key: ");
    input.write_all(format!("{SECRET_KEY}\n").as_bytes()).expect("typed");
    let shown = until(DERIVED);
    assert!(!shown.contains(&SECRET_KEY[..8]), "the secret was shown: {shown:?}");
    drop(input);
    let deadline = Instant::now() + Duration::from_secs(20);
    while child.try_wait().expect("a child").is_none() {
        assert!(Instant::now() < deadline, "script(1) does not end");
        std::thread::sleep(Duration::from_millis(10));
    }
}

// ---------------------------------------------------------------- usage and configuration

#[test]
fn help_lists_commands_and_exit_codes() {
    let ran = relaykey(&["--help"], &[], b"");
    ran.expect(0).says(&[
        "sync",
        "status",
        "verify-proof",
        "check",
        "derive",
        "demo",
        "--config",
        "--json",
        "RELAYKEY_CONFIG",
    ]);
    for line in ["0  done", "1  failed for good", "2  usage or config", "3  waits for a person", "75  failed for now"] {
        assert!(ran.out.lines().any(|l| l.trim_start().starts_with(line)), "{line}: {}", ran.out);
    }
    assert_eq!(ran.err, "");
    for command in ["sync", "status", "verify-proof", "check", "derive", "demo"] {
        let ran = relaykey(&[command, "--help"], &[], b"");
        ran.expect(0).says(&["Usage: relaykey", command]);
    }
    relaykey(&["--version"], &[], b"").expect(0).says(&[concat!("relaykey ", env!("CARGO_PKG_VERSION"))]);
    for wrong in [
        &[][..],
        &["rotate"],
        &["sync", "--wiat", "1s"],
        &["derive", "ses"],
        &["--config"],
        &["derive", "--region", "eu-west-1", "--json"],
    ] {
        let ran = relaykey(wrong, &[], b"");
        ran.expect(2);
        assert!(ran.out.is_empty() && !ran.err.is_empty(), "{wrong:?}: {ran:?}");
    }
}

/// Line, what is said of it, and how it is mended.
const MISTAKES: [(u64, &str, &str); 4] = [
    (3, "\"Ses\" cannot be a name", "lower case letters"),
    (6, "\"etc/x\" is not an absolute path", "from / on"),
    (8, "host name with a port and brackets", "port = 587"),
    (10, "unknown key \"typ\"", "did you mean \"type\""),
];

#[test]
fn four_mistakes_are_four_findings() {
    let dir = scratch::private("mistakes");
    let text = "config_version = 1\n[[credential]]\nname = \"Ses\"\n[credential.source]\ntype = \"file\"\npath = \"etc/x\"\n\
                [credential.smtp]\nendpoint = \"[smtp.example.com]:587\"\n[[credential.target]]\ntyp = \"postfix\"\n";
    let path = dir.file("config.toml", text);
    let before = Snapshot::of(dir.path());
    let path = path.to_str().expect("UTF-8");
    for command in [&["sync"][..], &["sync", "--dry-run"], &["status"], &["check"], &["check", "--offline"], &["run"]] {
        let ran = relaykey(&[&["--config", path], command].concat(), &[], b"");
        ran.expect(2);
        assert_eq!(ran.out, "", "{command:?}");
        assert_eq!((ran.err.matches("error: ").count(), ran.err.matches("fix: ").count()), (4, 4), "{}", ran.err);
        for (line, what, fix) in MISTAKES {
            let head = format!("{path}:{line}: error: ");
            let found = ran.err.lines().skip_while(|l| !l.starts_with(&head)).take(3).collect::<Vec<_>>().join("\n");
            assert!(found.contains(what) && found.contains(fix), "line {line}: {}", ran.err);
        }
        let ran = relaykey(&[&["--json", "--config", path], command].concat(), &[], b"");
        let document = ran.expect(2).json();
        assert_eq!((&document["schema"], &document["exit"]), (&json!("relaykey/config-errors/v1"), &json!(2)));
        let findings = document["findings"].as_array().expect("a list");
        assert_eq!(findings.len(), 4, "{document:#}");
        for ((line, what, fix), finding) in MISTAKES.iter().zip(findings) {
            let text = |field: &str| finding[field].as_str().unwrap_or_default().to_owned();
            assert_eq!((finding["line"].as_u64(), text("severity").as_str()), (Some(*line), "error"));
            assert!(text("what").contains(what) && text("fix").contains(fix), "{finding:#}");
        }
    }
    before.same_as(&Snapshot::of(dir.path()));
}

#[test]
fn the_configuration_is_found_where_it_is_said_to_be() {
    let key = Key::new();
    let host = Host::new("hash", &key);
    let source = host.publish(key.pair());
    host.configure(&Setup { source: &source, ..Setup::default() });
    let config = host.path("config.toml");
    let config = config.to_str().expect("UTF-8");
    relaykey(&["status"], &[("RELAYKEY_CONFIG", config)], b"").expect(0).says(&["ses: never-applied"]);
    // The argument wins, before or behind the command.
    let elsewhere = [("RELAYKEY_CONFIG", "/nonexistent/relaykey.toml")];
    relaykey(&["--config", config, "status"], &elsewhere, b"").expect(0);
    relaykey(&["status", "--config", config], &elsewhere, b"").expect(0);
    relaykey(&["status"], &elsewhere, b"").expect(2).says(&["/nonexistent/relaykey.toml", "does not exist", "fix: "]);
    relaykey(&["sync", "--config", "/tmp"], &[], b"").expect(2).says(&["is a directory"]);
}

/// What is wrong with the arguments is said in words for people, and what is right is not named as if it were needed.
#[test]
fn an_argument_that_is_no_number_is_told_what_is_expected() {
    for env in [&[][..], &[("RELAYKEY_CONFIG", "/etc/relaykey/config.toml")]] {
        let ran = relaykey(&["history", "--limit", "x"], env, b"");
        ran.expect(2).says(&["'--limit <N>': expected a whole number, as in --limit 20"]);
        ran.says_not("invalid digit");
        relaykey(&["history", "--nonsense"], env, b"").expect(2).says_not("--config");
    }
}

/// What this host makes anew with each process, as long as it may not keep it, is not printed as if it stayed.
#[test]
fn a_fresh_host_is_told_no_version_that_the_next_run_calls_otherwise() {
    let key = Key::new();
    let host = Host::new("hash", &key);
    let source = host.publish(key.pair());
    host.configure(&Setup { source: &source, ..Setup::default() });
    host.postfix.start();
    let told = || {
        let ran = host.relaykey(&["check"]);
        ran.expect(0).says(&["gives version not-named-yet: a ready SMTP credential"]);
        host.sync(&["--dry-run"], 0).says(&["version not-named-yet ("]);
        ran.out.clone()
    };
    assert_eq!(told(), told());
    // The first run that may keep something names it for good.
    host.sync(&[], 0).says(&["ses: adopted"]).says_not("not-named-yet");
    let version = host.state("ses")["applied"]["version"].as_str().expect("a version").to_owned();
    host.relaykey(&["check"]).expect(0).says(&[&format!("gives version {version}: ")]);
}

// ---------------------------------------------------------------- check

/// The findings of `check --json` that are about this and say this.
fn findings<'a>(document: &'a Value, about: &str, words: &str) -> Vec<&'a Value> {
    let all = document["findings"].as_array().expect("a list").iter();
    all.filter(|f| f["about"] == about && f["what"].as_str().is_some_and(|what| what.contains(words))).collect()
}

#[test]
fn a_good_host_passes_the_check_and_nothing_is_changed() {
    let key = Key::new();
    let host = Host::new("hash", &key);
    let name = lab::fresh("checked");
    let (_, version) = moto::shared().secret(&name, &key.json());
    let source = host.secret(&name);
    host.configure(&Setup { source: &source, ..Setup::default() });
    host.postfix.start();
    let before = (host.snapshot(), Snapshot::of(host.dir.path()));

    let ran = host.relaykey(&["check", "--offline"]);
    ran.expect(0).says(&["config.toml is valid", &format!("{} in hash:", host.hop()), &key.id, "0 errors, 1 warning"]);
    let aws = format!("warning  aws: endpoint_url {} is a port that any user of this host", moto::shared().endpoint());
    ran.says(&[&aws, "fix: use an https:// URL"]);
    ran.says(&["note     reports: there is no [[report]]: nobody is told", "fix: add a [[report]]"]);
    assert_eq!((host.standin.logins().len(), moto::shared().calls(&host.aws_key).len()), (0, 0), "offline");

    let ran = host.relaykey(&["check"]);
    ran.expect(0).says(&[
        &format!("version {version}: a ready SMTP credential, JSON with user name and password ({})", key.id),
        "accepted: 235 Authentication successful.",
        "0 errors, 1 warning",
    ]);
    assert_eq!(host.standin.logins().len(), 1);
    let calls = moto::shared().calls(&host.aws_key);
    // The version, and on a host without state the key ids of AWSCURRENT and AWSPREVIOUS.
    assert!(calls.iter().all(|c| c["action"] == "GetSecretValue") && calls.len() == 3, "{calls:?}");

    let document = host.relaykey(&["check", "--json"]).expect(0).json();
    assert_eq!((&document["schema"], &document["exit"]), (&json!("relaykey/check/v1"), &json!(0)));
    let about: BTreeSet<&str> =
        document["findings"].as_array().expect("a list").iter().filter_map(|f| f["about"].as_str()).collect();
    assert_eq!(about, ["config", "target main", "source", "login", "reports", "aws"].into());
    for finding in document["findings"].as_array().expect("a list") {
        let severity = if finding["about"] == "aws" { "warning" } else { "note" };
        assert_eq!(finding["severity"], severity, "{finding:#}");
        let fields: BTreeSet<&str> = finding.as_object().expect("an object").keys().map(String::as_str).collect();
        assert_eq!(fields, ["credential", "about", "severity", "line", "file", "what", "fix"].into());
    }
    before.0.same_as(&host.snapshot());
    before.1.same_as(&Snapshot::of(host.dir.path()));
    assert!(host.standin.messages().is_empty(), "a check sends no mail");
}

/// Each setting of Postfix that makes a rotation lose mail is a finding with a fix.
#[test]
fn settings_of_postfix_that_lose_mail_are_found() {
    let key = Key::new();
    let host = Host::new("hash", &key);
    let source = host.publish(key.pair());
    host.configure(&Setup { source: &source, ..Setup::default() });
    host.postfix.start();
    let hop = host.hop();
    let (port, other_port) = (host.standin.starttls_port(), host.standin.starttls_port() ^ 1);
    let (other_hop, not_the_port) =
        (format!("[localhost]:{other_port}"), format!("its port is {other_port}, and `port` is {port}"));
    let set_the_port = format!("set port = {other_port}, where endpoint = \"localhost\" is set");
    let good = fs::read_to_string(host.postfix.main_cf()).expect("readable");
    // Settings; how bad; what is said of it; how it is mended.
    type Row<'a> = (&'a [(&'a str, &'a str)], &'a str, &'a str, &'a str);
    let table: [Row<'_>; 18] = [
        (&[("smtp_sasl_auth_enable", "no")], "error", "smtp_sasl_auth_enable = no", "smtp_sasl_auth_enable = yes"),
        (&[("smtp_sasl_auth_soft_bounce", "no")], "warning", "mail bounces", "smtp_sasl_auth_soft_bounce = yes"),
        (
            &[("smtp_sasl_auth_cache_name", "proxy:btree:$data_directory/cache")],
            "warning",
            "for 90d",
            "smtp_sasl_auth_cache_name =",
        ),
        // The endpoint is an address of this host, where a tunnel may listen.
        (
            &[("smtp_tls_security_level", "may")],
            "note",
            "may go out without TLS",
            "nothing, where a tunnel listens there",
        ),
        (
            &[("smtp_tls_security_level", "none")],
            "note",
            "may go out without TLS",
            "nothing, where a tunnel listens there",
        ),
        (&[("smtp_tls_security_level", "")], "note", "may go out without TLS", "nothing, where a tunnel listens there"),
        (
            &[("smtp_sasl_tls_security_options", "noanonymous, noplaintext")],
            "error",
            "smtp_sasl_tls_verified_security_options contains noplaintext (where it is unset, it follows smtp_sasl_tls_security_options)",
            "smtp_sasl_tls_verified_security_options = noanonymous",
        ),
        (&[("smtp_sasl_mechanism_filter", "cram-md5")], "error", "neither PLAIN nor LOGIN", "plain, login"),
        (&[("relayhost", "")], "error", "relayhost is empty", "set relayhost to [localhost]:"),
        (&[("relayhost", "[smtp.example.com]:587")], "error", "does not lead to the endpoint", "endpoint_aliases"),
        (&[("relayhost", &other_hop)], "error", &not_the_port, &set_the_port),
        (&[("relayhost", &hop.replace(['[', ']'], ""))], "warning", "is without brackets", "As [localhost]:"),
        (&[("smtp_sasl_password_maps", "")], "error", "smtp_sasl_password_maps is empty", "smtp_sasl_password_maps ="),
        (
            &[("smtp_sasl_password_maps", "ldap:/etc/postfix/ldap.cf")],
            "error",
            "of kind ldap:, which relaykey cannot write",
            "then move the relay's login into it",
        ),
        (&[("smtp_sasl_password_maps", "inline:{a=b:c}")], "error", "of kind inline:", "then move the relay's login"),
        (&[("smtp_sasl_password_maps", "/etc/postfix/sasl_passwd")], "error", "without a type", "write the type"),
        (
            &[("transport_maps", "hash:/etc/postfix/no-such-file")],
            "note",
            "transport_maps = hash:/etc/postfix/no-such-file cannot be read",
            "a line for each next hop",
        ),
        (&[("smtp_cname_overrides_servername", "yes")], "warning", "CNAME", "smtp_cname_overrides_servername = no"),
    ];
    for (settings, severity, what, fix) in table {
        for (name, value) in settings {
            host.postfix.set(name, value);
        }
        // Postfix's programs wait for a main.cf that was only just written.
        let past = SystemTime::now() - Duration::from_secs(60);
        fs::File::options().write(true).open(host.postfix.main_cf()).and_then(|f| f.set_modified(past)).expect("dated");
        let before = host.snapshot();
        let code = if severity == "error" { 1 } else { 0 };
        let document = host.relaykey(&["check", "--offline", "--json"]).expect(code).json();
        let found = findings(&document, "target main", what);
        assert_eq!(found.len(), 1, "{settings:?}: {document:#}");
        assert_eq!(found[0]["severity"], severity, "{settings:?}");
        assert!(found[0]["fix"].as_str().is_some_and(|f| f.contains(fix)), "{settings:?}: {:#}", found[0]);
        let text = host.relaykey(&["check", "--offline"]);
        text.expect(code).says(&[what, fix]);
        before.same_as(&host.snapshot());
        if severity == "error" {
            // What would make a rotation lose mail also stops one.
            host.sync(&["--wait", "0s"], 1).says(&[what, "fix: "]);
            before.same_as(&host.snapshot());
        }
        fs::write(host.postfix.main_cf(), &good).expect("written");
    }
}

/// What `check` says that `sync` does, `sync` does: where something stands in its way, that is said, and once.
#[test]
fn no_fix_says_sync_where_that_is_refused() {
    let (key, stranger) = (Key::new(), Key::new());
    let host = Host::new("hash", &key);
    let source = host.publish(key.pair());
    host.configure(&Setup { source: &source, ..Setup::default() });
    host.start_postfix();
    let good = fs::read_to_string(host.postfix.table()).expect("readable");
    // A blank for the colon, on a host without state.
    host.postfix.write_table(&good.replace(&key.pair(), &key.pair().replace(':', " ")));
    host.postfix.postmap();
    let document = host.relaykey(&["check", "--json"]).expect(1).json();
    let [unusable] = findings(&document, "target main", "gives no usable login")[..] else { panic!("{document:#}") };
    assert!(unusable["fix"].as_str().is_some_and(|fix| fix.contains("mend first")), "{unusable:#}");
    let refused = findings(&document, "target main", "something that is not USER:PASSWORD");
    assert_eq!((refused.len(), &refused[0]["severity"]), (1, &json!("error")), "{document:#}");
    host.sync(&["--wait", "0s"], 1);

    // Quotation marks around the value.
    host.postfix.write_table(&good.replace(&key.pair(), &format!("\"{}\"", key.pair())));
    host.postfix.postmap();
    let quoted = format!("the login of {} in quotation marks", key.id);
    host.relaykey(&["check"]).expect(1).says(&[&quoted]);

    // With the login in use in the map, and another one in the text alone.
    host.postfix.write_table(&good);
    host.postfix.postmap();
    host.sync(&[], 0);
    std::thread::sleep(Duration::from_millis(2100));
    host.postfix.write_table(&good.replace(&key.pair(), &stranger.pair()));
    fs::File::options()
        .write(true)
        .open(host.postfix.table())
        .and_then(|f| f.set_modified(SystemTime::now()))
        .expect("dated");
    let document = host.relaykey(&["check", "--json"]).expect(1).json();
    let found = findings(&document, "target main", &format!("the login of {}, not of", stranger.id));
    assert_eq!((found.len(), &found[0]["severity"]), (1, &json!("error")), "{document:#}");
    let [newer] = findings(&document, "target main", "newer than its compiled map")[..] else { panic!("{document:#}") };
    let fix = newer["fix"].as_str().expect("a text");
    assert!(fix.contains("Once no error is left, `relaykey"), "{fix}");
    host.sync(&["--wait", "0s"], 1);
}

/// On a host that has confirmed nothing, nothing is said of what its text holds.
#[test]
fn a_text_without_a_map_on_a_fresh_host_is_not_called_wrong() {
    let key = Key::new();
    let host = Host::new("hash", &key);
    let source = host.publish(key.pair());
    host.configure(&Setup { source: &source, ..Setup::default() });
    host.start_postfix();
    let map = host.postfix.map();
    fs::remove_file(&map).expect("removed");
    let document = host.relaykey(&["check", "--json"]).json();
    let [missing] = findings(&document, "target main", "has no compiled map")[..] else { panic!("{document:#}") };
    let fix = missing["fix"].as_str().expect("a text");
    assert!(fix.contains("not known here") && !fix.contains("does not hold"), "{fix}");
    let (_, command) = fix.split_once("compile it now: ").expect("a command");
    assert!(
        Command::new("sh").args(["-euc", command]).status().expect("it starts").success() && map.exists(),
        "{command}"
    );
    host.relaykey(&["check"]).expect(0).says(&["0 errors, 0 warnings"]);
}

/// One cause is said once.
#[test]
fn one_cause_is_one_finding() {
    let (key, new) = (Key::new(), Key::new());
    let host = Host::new("hash", &key);
    let source = host.publish(key.pair());
    host.configure(&Setup { source: &source, ..Setup::default() });
    host.start_postfix();
    host.adopts("");
    let state = host.path("state");
    fs::set_permissions(&state, fs::Permissions::from_mode(0o777)).expect("chmod");
    let ran = host.relaykey(&["check"]);
    ran.expect(1).says(&["is not safe to work in", "1 error,"]).says_not("the file to a directory");
    host.sync(&["--wait", "0s"], 1).says(&["is not safe to work in"]);
    fs::set_permissions(&state, fs::Permissions::from_mode(0o700)).expect("chmod");

    host.postfix.stop();
    let stopped = |document: &Value| {
        let all = document["findings"].as_array().expect("a list").clone();
        let says = |f: &Value| f["what"].as_str().is_some_and(|what| what.contains("not run"));
        all.into_iter().filter(says).map(|f| f["severity"].clone()).collect::<Vec<_>>()
    };
    let document = host.relaykey(&["check", "--json"]).json();
    assert_eq!(stopped(&document), [json!("warning")], "{document:#}");
    host.standin.set_key(&new.id, &new.login.password);
    host.publish(new.pair());
    let document = host.relaykey(&["check", "--json"]).expect(75).json();
    assert_eq!(stopped(&document), [json!("error")], "{document:#}");
}

/// Who can read and write what.
#[test]
fn files_that_are_too_open_or_incomplete_are_found() {
    let key = Key::new();
    let host = Host::new("hash", &key);
    let source = host.publish(key.pair());
    host.configure(&Setup { source: &source, ..Setup::default() });
    host.postfix.start();
    let (table, map, file) = (host.postfix.table(), host.postfix.map(), host.path("credential"));
    let table_cases = [
        (
            &table,
            0o644,
            "target main",
            "warning",
            "every local user can read",
            format!("chmod o-r {}", table.display()),
        ),
        (&map, 0o644, "target main", "warning", "every local user can read", format!("chmod o-r {}", map.display())),
        (
            &file,
            0o644,
            "source",
            "warning",
            "every user of this host can read it",
            format!("chmod o-r {}", file.display()),
        ),
        (
            &file,
            0o622,
            "source",
            "error",
            "may be changed by every user of this host",
            format!("chmod go-w {}", file.display()),
        ),
    ];
    for (path, mode, about, severity, what, fix) in table_cases {
        let before = fs::metadata(path).expect("there").mode();
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("chmod");
        let code = if severity == "error" { 1 } else { 0 };
        let document = host.relaykey(&["check", "--json"]).expect(code).json();
        let found = findings(&document, about, what);
        assert_eq!(found.len(), 1, "{what}: {document:#}");
        assert_eq!((&found[0]["severity"], &found[0]["fix"]), (&json!(severity), &json!(fix)));
        fs::set_permissions(path, fs::Permissions::from_mode(before)).expect("chmod");
    }
    host.relaykey(&["check"]).expect(0).says(&["0 errors, 0 warnings"]);

    // Content: no entry for the relay, the key twice, a login over two lines, a key alone, a login without password, no table, no map.
    let text = fs::read_to_string(&table).expect("readable");
    let hop = host.hop();
    // Case; the text; is it compiled; exit code; what is said of it, and of which line.
    type Case<'a> = (&'a str, Option<String>, bool, i32, &'a str, Option<u64>);
    let cases: [Case<'_>; 7] = [
        ("no entry", Some("[smtp.example.com]:587 a:b\n".into()), true, 0, "the mail bounces with 530", None),
        ("twice", Some(format!("{text}{hop} another:login\n")), true, 0, "it has no effect", Some(3)),
        (
            "two lines",
            Some(text.replace(&format!("{}:", key.id), &format!("{}:\n ", key.id))),
            true,
            1,
            "goes on over several lines",
            Some(3),
        ),
        ("a key alone", Some(format!("{hop}\n")), false, 0, "the mail bounces with 530", None),
        ("no password", Some(format!("{hop} {}:\n", key.id)), true, 0, "gives no usable login", Some(1)),
        ("no table", None, false, 0, "the mail bounces with 530", None),
        ("no map", Some(text.clone()), false, 0, "has no compiled map", None),
    ];
    for (case, content, compile, code, what, line) in cases {
        let _ = (fs::remove_file(&table), fs::remove_file(&map));
        if let Some(content) = content {
            host.postfix.write_table(&content);
        }
        if compile {
            host.postfix.postmap();
        }
        let before = host.snapshot();
        let document = host.relaykey(&["check", "--offline", "--json"]).json();
        assert_eq!(document["exit"], code, "{case}: {document:#}");
        let [found] = findings(&document, "target main", what)[..] else { panic!("{case}: {document:#}") };
        let severity = if code == 1 { "error" } else { "warning" };
        assert_eq!((&found["severity"], found["line"].as_u64()), (&json!(severity), line), "{case}: {found:#}");
        assert!(found["fix"].as_str().is_some_and(|fix| !fix.is_empty()), "{case}: {found:#}");
        let good = findings(&document, "target main", " gives AKIA").len();
        assert!(good == 0 || matches!(case, "twice" | "no map"), "{case}: {document:#}");
        before.same_as(&host.snapshot());
    }
}

#[test]
fn sources_and_logins_that_do_not_work_are_found() {
    let (key, bad) = (Key::new(), Key::new());
    let host = Host::new("hash", &key);
    let source = host.publish(bad.pair());
    let setup = Setup { source: &source, smtp: "timeout = \"1s\"\n", ..Setup::default() };
    host.configure(&setup);
    host.postfix.start();
    let refused = host.relaykey(&["check"]);
    refused.expect(75).says(&[
        "refused the credential: 535 Authentication Credentials Invalid",
        "access key is active",
        "1 error,",
    ]);
    host.publish(key.pair());
    host.standin.fault(relaykey::standin::Misbehavior::Reply454, 1);
    host.relaykey(&["check"]).expect(75).says(&["454 Temporary authentication failure", "fix: "]);
    host.standin.fault(relaykey::standin::Misbehavior::HangAtBanner, 1);
    host.relaykey(&["check"]).expect(75).says(&["gave up after 1s"]);
    host.publish("ASIAIOSFODNN7EXAMPLE:whatever");
    host.relaykey(&["check"]).expect(1).says(&["temporary credentials"]);
    host.publish(format!("{}:{}", key.id, "x".repeat(40)));
    host.relaykey(&["check"]).expect(1).says(&["an AWS secret access key (40 characters)"]);
    fs::remove_file(host.path("credential")).expect("removed");
    host.relaykey(&["check"]).expect(1).says(&["credential: it does not exist", "fix: create it"]);
    // Where the mail server's side alone is asked, none of it counts.
    host.relaykey(&["check", "--offline"]).expect(0);
    host.publish(key.pair());
    host.relaykey(&["check"]).expect(0);

    host.postfix.stop();
    host.relaykey(&["check", "--offline"]).expect(0).says(&["not running", "start", "1 warning"]);
    host.configure(&Setup { target: "endpoint = \"smtp.example.com\"", ..setup });
    host.relaykey(&["check", "--offline"]).expect(1).says(&["does not lead to the endpoint \"smtp.example.com\""]);
    let elsewhere = host.postfix.config_dir.join("nothing");
    let text = fs::read_to_string(host.path("config.toml")).expect("readable");
    fs::write(
        host.path("config.toml"),
        text.replace(&format!("{:?}", host.postfix.config_dir), &format!("{elsewhere:?}")),
    )
    .expect("written");
    host.relaykey(&["check", "--offline"]).expect(1).says(&["there is no Postfix configuration", "config_directory"]);
}

/// A receiver of reports in the AWS API server.
fn parameters(name: &str, path: &str, more: &str) -> String {
    format!(
        "\n[[report]]\nname = {name:?}\ntype = \"parameter-store\"\npath = {path:?}\nregion = {:?}\nendpoint_url = {:?}\n{more}",
        moto::REGION,
        moto::shared().endpoint()
    )
}

/// Whether reports would arrive is known before the first one is owed: each place is asked for each credential that
/// reports there, and nothing is left at any.
#[test]
fn places_that_reports_go_to_are_asked() {
    let key = Key::new();
    let host = Host::new("hash", &key);
    let source = host.publish(key.pair());
    let path = format!("/{}", lab::fresh("reports"));
    let parameter = format!("{path}/ses/mx1.example.com");
    let fleet = parameters("fleet", &path, "");
    let configure = |more: &str| host.configure(&Setup { source: &source, more, ..Setup::default() });
    host.postfix.start();
    configure(&fleet);
    let before = (host.snapshot(), Snapshot::of(host.dir.path()));
    let found = |document: &Value, receiver: &str| {
        let about = format!("report {receiver}");
        let [one] = findings(document, &about, "")[..] else { panic!("{document:#}") };
        assert_eq!(one["credential"], "ses");
        ["severity", "what", "fix"].map(|field| one[field].as_str().unwrap_or_default().to_owned())
    };
    let check = |code: i32| host.relaykey(&["check", "--json"]).expect(code).json();

    let [severity, what, fix] = found(&check(0), "fleet");
    assert_eq!((severity.as_str(), fix.as_str()), ("note", ""));
    assert!(what.starts_with(&format!("parameter {parameter:?} is not there yet and will be made")), "{what}");
    host.relaykey(&["check"]).expect(0).says(&[&format!("ok       ses: report fleet: {what}"), "0 errors, 1 warning"]);
    let called = moto::shared().calls(&host.aws_key).iter().map(|c| c["action"].clone()).collect::<Vec<_>>();
    assert_eq!(called, [json!("GetParameter"), json!("GetParameter")], "it only looks");
    host.relaykey(&["check", "--offline"]).expect(0).says_not("report fleet");
    assert_eq!(moto::shared().calls(&host.aws_key).len(), 2, "offline");
    before.0.same_as(&host.snapshot());
    before.1.same_as(&Snapshot::of(host.dir.path()));

    // What is there already is looked at.
    let put = |value: &str, kind: &str| {
        let input = json!({"Name": parameter, "Value": value, "Type": kind, "Overwrite": true});
        moto::shared().call("AmazonSSM.PutParameter", input);
    };
    put("{\"schema\": \"relaykey/report/v1\", \"host_id\": \"0\", \"seq\": 17}", "String");
    assert!(found(&check(0), "fleet")[1].contains("holds report number 17"));
    put("something of somebody's", "String");
    let [severity, what, fix] = found(&check(1), "fleet");
    assert_eq!(severity, "error");
    assert!(what.contains("no report of relaykey") && fix.contains("another `path`"), "{what} {fix}");

    // Refused: for good.
    let denied = json!({"kind": "error", "status": 400, "code": "AccessDeniedException", "count": -1, "message": format!(
        "User: arn:aws:iam::123456789012:user/mx1 is not authorized to perform: ssm:GetParameter on resource: \
         arn:aws:ssm:eu-west-1:123456789012:parameter{parameter} because no identity-based policy allows the action")});
    moto::shared().fault(&host.aws_key, "GetParameter", denied);
    let [severity, what, fix] = found(&check(1), "fleet");
    assert_eq!(severity, "error");
    assert!(what.contains("ssm:GetParameter") && what.contains(&parameter), "{what}");
    assert!(fix.contains("ssm:GetParameter"), "{fix}");
    moto::shared().heal(&host.aws_key);

    // Nobody there: for now. The others are asked all the same, in the order of the file.
    let port = std::net::TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a port").port();
    let gone =
        parameters("gone", "/elsewhere", "").replace(&moto::shared().endpoint(), &format!("http://127.0.0.1:{port}"));
    configure(&format!(
        "{gone}{}{}",
        parameters("fresh", &format!("{path}/fresh"), ""),
        parameters("more", &format!("{path}/more"), "")
    ));
    let document = check(75);
    let [severity, what, fix] = found(&document, "gone");
    assert_eq!(severity, "error");
    assert!(what.contains("ssm:GetParameter") && !fix.is_empty(), "{what} {fix}");
    assert_eq!((found(&document, "fresh")[0].as_str(), found(&document, "more")[0].as_str()), ("note", "note"));
    let order: Vec<&str> =
        document["findings"].as_array().expect("a list").iter().filter_map(|f| f["about"].as_str()).collect();
    assert!(order.ends_with(&["report gone", "report fresh", "report more"]), "{order:?}");
    before.0.same_as(&host.snapshot());
}

/// A report that needs the very relay that it reports about is none when it counts.
#[test]
fn reports_that_ride_on_the_relay_are_warned_of() {
    let key = Key::new();
    let host = Host::new("hash", &key);
    let source = host.publish(key.pair());
    host.postfix.start();
    let mail = |name: &str, more: &str| {
        let (from, to) = ("relaykey@mx1.example.com", "postmaster@example.com");
        format!("\n[[report]]\nname = {name:?}\ntype = \"email\"\nfrom = {from:?}\nto = {to:?}\n{more}")
    };
    let check = |more: &str| {
        host.configure(&Setup { source: &source, more, ..Setup::default() });
        host.relaykey(&["check", "--offline", "--json"]).expect(0).json()
    };
    let one = "the only report rides on the relay that it reports about: when that fails, nobody hears of it";
    let two = "all reports ride on the relay that it reports about: when that fails, nobody hears of it";
    for (more, what) in
        [(mail("a", ""), one), (mail("a", "server = \"127.0.0.1:2525\"\n"), one), (mail("a", "") + &mail("b", ""), two)]
    {
        let document = check(&more);
        let [found] = findings(&document, "reports", "")[..] else { panic!("{document:#}") };
        assert_eq!(
            (&found["severity"], &found["credential"], &found["what"]),
            (&json!("warning"), &json!("ses"), &json!(what))
        );
        assert!(found["fix"].as_str().is_some_and(|fix| fix.contains("of another type")), "{found:#}");
    }
    host.relaykey(&["check", "--offline"]).expect(0).says(&["0 errors, 1 warning"]);
    // By SES's own interface a message gets out without the relay; another type beside it is enough.
    let by_ses = "server = \"ses\"\nregion = \"eu-west-1\"\n";
    for more in [mail("a", by_ses), mail("a", "") + &mail("b", by_ses), mail("a", "") + &parameters("fleet", "/x", "")]
    {
        let document = check(&more);
        assert_eq!(findings(&document, "reports", ""), Vec::<&Value>::new(), "{more}");
    }
    // Which receivers count is a matter of each credential.
    let second = host.another("hash", "").config_dir.clone();
    let other = format!(
        "[[credential]]\nname = \"other\"\nsource = {{ type = \"file\", path = {:?} }}\nsmtp = {{ endpoint = \"smtp.example.com\" }}\n\
         [[credential.target]]\ntype = \"postfix\"\nconfig_dir = {second:?}\n",
        host.path("credential")
    );
    for (more, about, words) in [
        (mail("a", "") + &parameters("fleet", "/x", "credentials = [\"ses\"]\n"), "other", one),
        (
            parameters("fleet", "/x", "credentials = [\"ses\"]\n"),
            "other",
            "no [[report]] takes reports of this credential",
        ),
        (
            parameters("fleet", "/x", "credentials = [\"other\"]\n"),
            "ses",
            "no [[report]] takes reports of this credential",
        ),
    ] {
        host.configure(&Setup { source: &source, more: &(other.clone() + &more), ..Setup::default() });
        let document = host.relaykey(&["check", "--offline", "--json"]).json();
        let [found] = findings(&document, "reports", "")[..] else { panic!("{document:#}") };
        assert_eq!(found["credential"], about, "{found:#}");
        assert!(found["what"].as_str().is_some_and(|what| what.starts_with(words)), "{found:#}");
    }
}

/// Of a window people learn when it opens, by the clock on their wall.
#[test]
fn the_next_window_is_said_in_local_time() {
    let key = Key::new();
    let host = Host::new("hash", &key);
    let source = host.publish(key.pair());
    host.postfix.start();
    let config = host.path("config.toml");
    let config = config.to_str().expect("UTF-8");
    let zone = "CET-1CEST,M3.5.0,M10.5.0/3";
    let check = |lines: &str| {
        host.configure(&Setup { source: &source, ..Setup::default() });
        let text = fs::read_to_string(config).expect("readable");
        fs::write(config, text.replace("name = \"ses\"", &format!("name = \"ses\"\n{lines}"))).expect("written");
        let document =
            relaykey(&["--config", config, "check", "--offline", "--json"], &[("TZ", zone)], b"").expect(0).json();
        findings(&document, "mode", "")
            .iter()
            .map(|f| f["what"].as_str().unwrap_or_default().to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(check(""), [""; 0]);
    let approve = format!("`relaykey approve ses --config {}`", host.path("config.toml").display());
    assert_eq!(check("mode = \"manual\""), [format!("manual: a new version waits for {approve}")]);
    // One that is a day long is open or shut all of today; the other way round for the other days.
    let zone = jiff::tz::TimeZone::posix(zone).expect("a zone");
    let today = || jiff::Timestamp::now().to_zoned(zone.clone()).date();
    let deadline = Instant::now() + RUN;
    loop {
        let date = today();
        let days = |days: i64| date.checked_add(jiff::Span::new().days(days)).expect("a day");
        let (now, next) = (date.strftime("%a"), days(1));
        let open = check(&format!("mode = \"manual\"\napply = \"{now} 00:00-24:00\""));
        let shut = check(&format!("mode = \"manual\"\napply = \"{} 02:30-04:00\"", days(2).strftime("%a")));
        // At midnight what was said may be of either day.
        if today() != date {
            assert!(Instant::now() < deadline, "a day that lasts for a check");
            continue;
        }
        let at = |date: jiff::civil::Date, hour, minute| {
            let time = date.at(hour, minute, 0, 0).to_zoned(zone.clone()).expect("a time");
            time.strftime("%a %Y-%m-%d %H:%M %Z").to_string()
        };
        let manual = format!("manual: a new version waits for {approve}, or for the window");
        assert_eq!(open, [format!("{manual} \"{now} 00:00-24:00\", which is open until {}", at(next, 0, 0))]);
        let later = days(2).strftime("%a").to_string();
        assert_eq!(shut, [format!("{manual} \"{later} 02:30-04:00\", which opens next on {}", at(days(2), 2, 30))]);
        break;
    }
}

// ---------------------------------------------------------------- status

/// Every field of the status document, and no other; the one credential of it.
#[track_caller]
fn status(host: &Host) -> Value {
    let document = host.relaykey(&["status", "--json"]).expect(0).json();
    assert_eq!(document["schema"], "relaykey/status/v1");
    assert!(document["at"].as_str().is_some_and(|at| at.parse::<jiff::Timestamp>().is_ok()));
    let one = document["credentials"][0].clone();
    let fields: BTreeSet<&str> = one.as_object().expect("an object").keys().map(String::as_str).collect();
    let expected = [
        "name",
        "source",
        "source_in_full",
        "state",
        "not_ready",
        "applied",
        "pending",
        "failures",
        "owed",
        "withdrawn",
        "left",
        "mode",
        "in_use",
        "applied_refused",
        "own_login",
        "mail_server_stopped",
        "mail_server_unseen",
        "by_hand",
        "reports_owed",
        "notices",
        "next",
        "live",
        "cost",
        "report",
        "history",
    ];
    assert_eq!(fields, expected.into(), "{one:#}");
    one
}

#[test]
fn status_tells_what_is_what() {
    let (old, new) = (Key::new(), Key::new());
    let host = Host::new("hash", &old);
    let source = host.publish(old.pair());
    host.configure(&Setup { source: &source, smtp: "propagation = \"10m\"\n", ..Setup::default() });
    host.postfix.start();

    // Before anything.
    let before = Snapshot::of(host.dir.path());
    host.relaykey(&["status"]).expect(0).says(&[
        "ses: never-applied",
        "run `relaykey sync --config /",
        "source    file ",
    ]);
    let one = status(&host);
    assert_eq!((&one["state"], &one["applied"], &one["report"]), (&json!("never-applied"), &Value::Null, &Value::Null));
    assert_eq!((&one["failures"], &one["owed"], &one["next"]), (&json!([]), &json!([]), &Value::Null));
    before.same_as(&Snapshot::of(host.dir.path()));

    // Adopted.
    host.sync(&[], 0);
    let before = Snapshot::of(host.dir.path());
    host.relaykey(&["status"]).expect(0).says(&["ses: up-to-date", &old.id, "adopted", "ago", "key age"]);
    let one = status(&host);
    assert_eq!((&one["state"], &one["applied"]["username"]), (&json!("up-to-date"), &json!(old.id)));
    assert_eq!((&one["applied"]["outcome"], &one["report"]), (&json!("adopted"), &host.state("ses")["report"]));
    assert!(one["applied"]["key_age_seconds"].as_i64().is_some_and(|age| (0..60).contains(&age)));
    before.same_as(&Snapshot::of(host.dir.path()));

    // A new key that is not known yet.
    host.publish(new.pair());
    host.sync(&["--wait", "0s"], 75);
    host.relaykey(&["status"]).expect(0).says(&["ses: pending", &new.id, "first refused", "535", "fix", "not before"]);
    let one = status(&host);
    assert_eq!((&one["state"], &one["pending"]["username"]), (&json!("pending"), &json!(new.id)));
    assert!(one["next"].is_string() && one["pending"]["first_refused"].is_string(), "{one:#}");
    let failure = &one["failures"][0];
    assert_eq!(
        (&failure["class"], &failure["temporary"], &failure["attempts"]),
        (&json!("not-yet"), &json!(true), &json!(1))
    );
    host.sync(&["--wait", "0s"], 75);
    assert_eq!(status(&host)["failures"][0]["attempts"], 2);

    // When it was looked up is told, also where nothing has changed since; in seconds, as every time that programs get.
    let looked_up = || {
        let at = status(&host)["in_use"][0]["at"].as_str().expect("a time").to_owned();
        assert_eq!(at.len(), "2026-09-21T14:13:50Z".len(), "{at}");
        at.parse::<jiff::Timestamp>().expect("RFC 3339")
    };
    let before = looked_up();
    lab::next_second();
    host.sync(&["--wait", "0s"], 75);
    assert!(looked_up() > before);

    // It is known now.
    host.standin.set_key(&new.id, &new.login.password);
    host.sync(&[], 0);
    let one = status(&host);
    assert_eq!((&one["state"], &one["pending"], &one["failures"]), (&json!("up-to-date"), &Value::Null, &json!([])));
    assert_eq!(
        (&one["applied"]["outcome"], &one["applied"]["previous_username"]),
        (&json!("confirmed"), &json!(old.id))
    );

    // State that cannot be read stops every command that would go by it, and is never overwritten.
    let path = host.path("state/credentials/ses.json");
    let good = fs::read_to_string(&path).expect("readable");
    for (content, words) in [
        (good[..good.len() / 2].to_owned(), "ses.json:"),
        (String::new(), "ses.json:1"),
        (good.replacen("\"schema\": 1", "\"schema\": 2", 1), "written by a newer relaykey"),
    ] {
        fs::write(&path, &content).expect("written");
        host.relaykey(&["status"]).expect(1).says(&[words]);
        host.sync(&[], 1).says(&[words, "fix: "]);
        host.relaykey(&["check", "--offline"]).expect(1).says(&[words]);
        assert_eq!(fs::read_to_string(&path).expect("readable"), content);
    }
    fs::write(&path, &good).expect("written");
    host.sync(&[], 0).says(&["ses: up-to-date"]);
}

/// A reader that goes away, as `head` does, is no crash.
#[test]
fn a_closed_pipe_is_no_crash() {
    let mut child = Command::new(env!("CARGO_BIN_EXE_relaykey"))
        .arg("--help")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("relaykey starts");
    drop(child.stdout.take());
    let output = child.wait_with_output().expect("it ends");
    assert!(!String::from_utf8_lossy(&output.stderr).contains("panicked"), "{output:?}");
}

/// A host of this credential, up to date. `target`: further lines of its target.
fn up_to_date(key: &Key, target: &str) -> Host {
    let host = Host::new("hash", key);
    let source = host.publish(key.pair());
    host.configure(&Setup { source: &source, target, ..Setup::default() });
    host.postfix.start();
    host.sync(&[], 0);
    host
}

/// Somebody writes this login under the key that Postfix looks up.
fn put(host: &Host, pair: &str) {
    host.postfix.write_table(&format!("{} {pair}\n", host.hop()));
    host.postfix.postmap();
}

/// What is in the way of a rollover is in the way whoever looks: `check` has it as an error, and ends as `sync` does.
#[test]
fn check_ends_as_sync_does() {
    let first = Key::new();
    let published = |host: &Host| {
        let second = Key::new();
        host.standin.set_key(&second.id, &second.login.password);
        host.publish(second.pair());
        second
    };
    let foreign = |host: &Host| put(host, &Key::new().pair());
    type Spoil<'a> = &'a dyn Fn(&Host);
    let cases: [(&str, &str, Spoil<'_>, i32, &[&str]); 8] = [
        ("nothing", "", &|_| {}, 0, &[]),
        ("a login that nobody here knows", "", &foreign, 1, &["holds the login of", "target's keys"]),
        ("the same, and a new version", "", &|h| (foreign(h), drop(published(h))).1, 1, &["holds the login of"]),
        ("the new version, by hand", "", &|h| put(h, &published(h).pair()), 0, &[]),
        ("another password", "", &|h| put(h, &format!("{}:{}", first.id, Key::new().password())), 0, &[]),
        (
            "the same, with drift = \"report\"",
            "drift = \"report\"\n",
            &|h| put(h, &format!("{}:{}", first.id, Key::new().password())),
            1,
            &["no longer holds the login that relaykey put there", "drift = \"report\""],
        ),
        (
            "the same, once too often",
            "",
            &|h| {
                for _ in 0..3 {
                    put(h, &format!("{}:{}", first.id, Key::new().password()));
                    h.sync(&[], 0);
                }
                put(h, &format!("{}:{}", first.id, Key::new().password()));
            },
            // Who asks has it put back again.
            0,
            &[],
        ),
        (
            "the same, where a person makes the changes",
            "write = false\n",
            &|h| put(h, &format!("{}:{}", first.id, Key::new().password())),
            3,
            &["no longer holds the login that this host had confirmed", "write = false"],
        ),
    ];
    for (what, target, spoil, code, words) in cases {
        println!("{what}");
        let host = up_to_date(&first, target);
        spoil(&host);
        let before = (host.snapshot(), Snapshot::of(host.dir.path()));
        let ran = host.relaykey(&["check"]);
        ran.expect(code).says(words);
        assert_eq!(ran.out.lines().any(|l| l.starts_with("error ")), code != 0, "{what}: {ran:?}");
        let document = host.relaykey(&["check", "--json", "ses"]).expect(code).json();
        assert_eq!(document["exit"], code, "{what}");
        // Without the source: what it has is not known, and what stands there is as wrong.
        let offline = if what == "the new version, by hand" { 1 } else { code };
        host.relaykey(&["check", "--offline"]).expect(offline);
        before.0.same_as(&host.snapshot());
        before.1.same_as(&Snapshot::of(host.dir.path()));
        host.sync(&["--wait", "0s"], code);
    }
}

/// The daemon makes its own directory at its start, and nobody has to do so before it.
#[test]
fn the_directory_of_the_daemon_is_not_missed_before_its_start() {
    let key = Key::new();
    let host = Host::new("hash", &key);
    let source = host.publish(key.pair());
    let listen = |dir: &str| {
        let more = format!("[health]\nlisten = [{:?}]\n", host.path(dir).join("health.sock"));
        host.configure(&Setup { source: &source, more: &more, ..Setup::default() });
        host.relaykey(&["check", "--offline"])
    };
    assert!(!host.path("run").exists());
    listen("run").says_not("health.sock");
    listen("elsewhere").says(&["warning", "health.sock"]);
}

/// What is printed about a state that cannot be read can be pasted, and leaves an audit log that is as it was written.
#[test]
fn the_way_out_of_an_unreadable_state_leaves_a_whole_audit_log() {
    let key = Key::new();
    let host = up_to_date(&key, "");
    host.relaykey(&["history", "--verify"]).expect(0);
    let state = host.path("state");
    fs::write(state.join("credentials/ses.json"), "{").expect("written");
    let ran = host.relaykey(&["sync"]);
    assert_ne!(ran.code, 0);
    let said = ran.out.clone() + &ran.err;
    let (_, command) = said.split_once("begins anew: ").expect("a command");
    let (command, _) = command.split_once("; the next").expect("its end");
    assert!(Command::new("sh").args(["-c", command]).status().expect("sh").success(), "{command}");
    host.sync(&[], 0).says(&["ses: adopted"]);
    host.relaykey(&["history", "--verify"]).expect(0);
    let kept: Vec<_> = fs::read_dir(state.join("ses.broken")).expect("kept").collect();
    assert_eq!(kept.len(), 2, "{kept:?}");
}

/// A key that the endpoint may not know yet is tried again by `sync`; in `check` it is no failure for good either.
#[test]
fn a_key_that_is_not_known_yet_ends_the_check_as_it_ends_sync() {
    let first = Key::new();
    let host = up_to_date(&first, "");
    let new = Key::new();
    let source = host.publish(new.pair());
    let propagation = |within: &str| {
        let smtp = format!("propagation = {within:?}\n");
        host.configure(&Setup { source: &source, smtp: &smtp, ..Setup::default() });
    };
    propagation("1h");
    for _ in 0..2 {
        host.relaykey(&["check"]).expect(75).says(&["error ", "refused the credential"]);
        host.sync(&["--wait", "0s"], 75).says(&["not know a new key for some minutes"]);
    }
    // First refused a while ago.
    propagation("1s");
    std::thread::sleep(std::time::Duration::from_secs(1));
    host.relaykey(&["check"]).expect(1).says(&["error ", "refused the credential"]);
    host.sync(&["--wait", "0s"], 1);
}

/// A parameter that is deleted and made again counts from 1 again: its version 1 is a new key, as `sync` has it.
#[test]
fn a_recreated_parameter_holds_a_new_key_for_the_check_too() {
    let name = format!("/commands/recreated-{}", std::process::id());
    let first = Key::new();
    let host = up_to_date(&first, "");
    moto::shared().parameter(&name, &first.pair());
    host.configure(&Setup { source: &host.parameter(&name), ..Setup::default() });
    host.sync(&["--wait", "0s"], 0);
    assert_eq!(host.state("ses")["applied"]["version"], "1");
    moto::shared().call("AmazonSSM.DeleteParameter", json!({"Name": name}));
    // Its time of change is told in whole seconds.
    std::thread::sleep(std::time::Duration::from_millis(1_100));
    moto::shared().parameter(&name, &Key::new().pair());
    host.relaykey(&["check"]).expect(75).says(&["gives version 1", "refused the credential"]);
}

/// What is printed about a login that nobody knows can be followed: no word of it makes mail bounce.
#[test]
fn the_way_out_of_an_unknown_login_is_safe() {
    let first = Key::new();
    let host = up_to_date(&first, "");
    put(&host, &Key::new().pair());
    for command in ["check", "sync"] {
        let ran = host.relaykey(&[command]);
        ran.expect(1).says(&["leave the line", "Do not take the line out"]).says_not("remove the line");
    }
    // The first of the choices.
    let source = host.publish(first.pair());
    let target = format!("keys = [{:?}]\n", host.hop());
    host.configure(&Setup { source: &source, target: &target, ..Setup::default() });
    host.relaykey(&["check"]).expect(0);
    host.sync(&[], 0);
    assert_eq!(host.send(), first.id);
}

/// No lock, no rollover: that is found out before there is one.
#[test]
fn where_nothing_can_be_locked_the_check_says_so() {
    let key = Key::new();
    let host = up_to_date(&key, "");
    host.relaykey(&["check", "--offline"]).expect(0);
    // As in a container with a read-only root and no tmpfs at /run.
    let program = env!("CARGO_BIN_EXE_relaykey");
    let config = host.path("config.toml");
    let script = "mount -t tmpfs -o ro none /run && exec \"$0\" --config \"$1\" check --offline --json";
    let output = Command::new("unshare")
        .args(["--mount", "--propagation", "private", "sh", "-c", script, program])
        .arg(config)
        .output()
        .expect("unshare");
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{text}{}", String::from_utf8_lossy(&output.stderr));
    let document: Value = serde_json::from_str(&text).expect("JSON");
    let found = findings(&document, "target main", "cannot be locked");
    assert_eq!(found.len(), 1, "{document:#}");
    assert_eq!(found[0]["severity"], "error");
    assert!(found[0]["fix"].as_str().is_some_and(|fix| fix.contains("/run/relaykey-lock")), "{document:#}");
    // What a person changes is not locked.
    let source = host.publish(key.pair());
    host.configure(&Setup { source: &source, target: "write = false\n", ..Setup::default() });
    let script = script.replace(" --json", "");
    let status = Command::new("unshare")
        .args(["--mount", "--propagation", "private", "sh", "-c", &script, program])
        .arg(host.path("config.toml"))
        .stdout(Stdio::null())
        .status()
        .expect("unshare");
    assert_eq!(status.code(), Some(0));
}

/// What cannot be written stops `sync`: that is found out before, and ends alike.
#[test]
fn where_nothing_can_be_written_the_check_ends_as_sync_does() {
    let key = Key::new();
    let host = up_to_date(&key, "");
    let second = Key::new();
    host.standin.set_key(&second.id, &second.login.password);
    host.publish(second.pair());
    let program = env!("CARGO_BIN_EXE_relaykey");
    let (tables, state) = (host.postfix.config_dir.clone(), host.path("state"));
    let read_only = "mount --bind \"$2\" \"$2\" && mount -o remount,ro,bind \"$2\"";
    let full = "cp -a \"$2\" \"$2.kept\" && mount -t tmpfs -o size=128k,mode=700 none \"$2\" && cp -a \"$2.kept\"/. \"$2\" && \
                (dd if=/dev/zero of=\"$2/full\" bs=4k 2>/dev/null; true)";
    let (text, map) = ("chattr +i \"$2/sasl_passwd\"", "chattr +i \"$2/sasl_passwd.db\"");
    for (what, prepare, place, code) in [
        ("tables that are read only", read_only, &tables, 1),
        ("a text that is immutable", text, &tables, 1),
        ("a map that is immutable", map, &tables, 1),
        ("a state directory that is read only", read_only, &state, 1),
        ("a state directory that is full", full, &state, 75),
    ] {
        for command in ["check", "sync --wait 0s"] {
            let script = format!("{prepare} && exec \"$0\" --config \"$1\" {command}");
            let output = Command::new("unshare")
                .args(["--mount", "--propagation", "private", "sh", "-c", &script, program])
                .args([&host.path("config.toml"), place])
                .output()
                .expect("unshare");
            let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
            let _ = fs::remove_dir_all(host.path("state.kept"));
            for file in ["sasl_passwd", "sasl_passwd.db"] {
                let _ = Command::new("chattr").arg("-i").arg(tables.join(file)).status();
            }
            assert_eq!(output.status.code(), Some(code), "{what}: {command}: {said}");
        }
    }
    assert_eq!(host.relaykey(&["check"]).expect(0).out.matches("error ").count(), 0);
}

/// `status` and `check` of some credentials: what is shown, what it comes to, and what a name is that nobody knows.
#[test]
fn names_select_what_is_shown_and_checked() {
    let key = Key::new();
    let host = Host::new("hash", &key);
    let other = host.another("hash", &format!("{} {}\n", host.hop(), key.pair()));
    let good = Setup { source: &host.publish(key.pair()), ..Setup::default() };
    let bad = Setup { source: "type = \"file\"\npath = \"/nowhere/at/all\"\n", ..Setup::default() };
    host.write_config(
        &(host.credential("good", &good, &[(&host.postfix, "")]) + &host.credential("bad", &bad, &[(&other, "")])),
    );
    host.postfix.start();
    other.start();
    host.sync(&["good"], 0);
    let selected = |arguments: &[&str]| {
        let document = host.relaykey(&[&["status", "--json"], arguments].concat()).expect(0).json();
        let all = document["credentials"].as_array().expect("a list").iter();
        all.map(|c| c["name"].as_str().expect("a name").to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(selected(&[]), ["good", "bad"]);
    assert_eq!(selected(&["bad"]), ["bad"]);
    assert_eq!(selected(&["bad", "good"]), ["bad", "good"]);
    host.relaykey(&["status", "good"]).expect(0).says(&["good: up-to-date"]).says_not("bad");
    // Through the daemon too.
    let daemon = host.start(&["run"]);
    let socket = host.path("run/control.sock");
    postfix::wait_for("the daemon", Duration::from_secs(20), || socket.exists().then_some(()));
    assert_eq!(selected(&["good"]), ["good"]);
    host.relaykey(&["status", "none"]).expect(2).says(&["no credential \"none\"", "one of: good, bad"]);
    drop(daemon);

    host.relaykey(&["check", "good"]).expect(0).says_not("bad");
    host.relaykey(&["check"]).expect(1).says(&["bad: source", "good: source"]);
    let document = host.relaykey(&["check", "--json", "bad"]).expect(1).json();
    let of = document["findings"].as_array().expect("a list").iter().filter_map(|f| f["credential"].as_str());
    assert_eq!(of.collect::<BTreeSet<_>>(), ["bad"].into());
    for command in ["status", "check"] {
        host.relaykey(&[command, "none"]).expect(2).says(&["no credential \"none\"", "one of: good, bad"]);
    }
}

// ---------------------------------------------------------------- demo

/// Runs the demo with a scratch directory of its own; gives what it printed. Nothing may be left there.
fn demo(arguments: &[&str]) -> Ran {
    let scratch = scratch::private("demo");
    // Postfix's own users walk through it.
    fs::set_permissions(scratch.path(), fs::Permissions::from_mode(0o755)).expect("chmod");
    let tmpdir = scratch.path().to_str().expect("UTF-8").to_owned();
    let ran = relaykey(&[&["demo"], arguments].concat(), &[("TMPDIR", &tmpdir)], b"");
    ran.expect(0);
    let left: Vec<_> = fs::read_dir(scratch.path()).expect("readable").map(|e| e.expect("an entry").path()).collect();
    assert!(left.is_empty(), "left behind: {left:?}");
    assert!(ran.took < Duration::from_secs(60), "{:?}", ran.took);
    ran
}

#[test]
fn the_demo_tells_its_story_without_postfix() {
    let ran = demo(&["--no-postfix", "--json"]);
    let document = ran.json();
    assert_eq!(
        (&document["target"], &document["failure"], &document["exit"]),
        (&json!("text"), &Value::Null, &json!(0))
    );
    let steps = document["steps"].as_array().expect("a list");
    let told: String = steps.iter().filter_map(|s| s["what"].as_str()).map(|what| format!("{what}\n")).collect();
    for words in ["535", "235", "refused for good", "to the byte", "deactivated", "none lost"] {
        assert!(told.contains(words), "{words}: {told}");
    }
    let times: Vec<f64> = steps.iter().filter_map(|s| s["seconds"].as_f64()).collect();
    assert!(times.len() == steps.len() && times.is_sorted(), "{times:?}");
    demo(&["--no-postfix"]).says(&["3 rollovers, 5 messages, none lost"]);
}

#[test]
fn the_demo_tells_its_story_with_postfix() {
    demo(&[]).says(&["a private Postfix relays to it", "3 rollovers, 5 messages, none lost"]);
    assert_eq!(demo(&["--json"]).json()["target"], "postfix");
}

// ---------------------------------------------------------------- what reaches the terminal

/// Names and texts of others turn no direction, hide nothing, and obey no terminal: on either output, as text and as JSON.
#[test]
fn nothing_that_is_not_seen_reaches_the_terminal() {
    let hostile = "\u{202e}\u{2028}\u{2029}\u{85}\u{9b}31m\u{1b}[2J\u{7f}\u{200b}\u{2066}\u{feff}\u{e0041}\u{ad}";
    let key = Key::new();
    let host = Host::with("texthash", |hop| Some(format!("{hop}{hostile} {0}\n{hop} AKIA{hostile}:x\n", key.pair())));
    let source = host.publish(key.pair());
    host.configure(&Setup { source: &source, ..Setup::default() });
    let config = fs::read_to_string(host.path("config.toml")).expect("readable");
    let wrong = host.dir.file(
        &format!("wrong{hostile}.toml").replace('/', ""),
        config.replace("[[credential]]", &format!("[\"unknown{}\"]\nx = 1\n[[credential]]", "\u{202e}\u{2028}\u{9b}")),
    );
    let missing = host.path(&format!("missing{hostile}.toml"));
    let config = host.path("config.toml");
    for config in [&config, &wrong, &missing] {
        let config = config.to_str().expect("UTF-8");
        for arguments in [
            &["check"][..],
            &["check", "--json"],
            &["sync", "--wait", "0s"],
            &["status"],
            &["status", "--json"],
            &["history"],
        ] {
            let ran = relaykey(&[&["--config", config], arguments].concat(), &[], b"");
            for out in [&ran.out, &ran.err] {
                let seen = |c: char| {
                    c == '\n'
                        || !c.is_control() && !hostile.contains(c)
                        || matches!(c, '[' | '2' | 'J' | '3' | '1' | 'm')
                };
                let bad: String = out.chars().filter(|c| !seen(*c)).collect();
                assert!(bad.is_empty(), "{arguments:?} {config:?}: {}: {}", bad.escape_unicode(), out.escape_debug());
            }
        }
    }
}
