//! Mistakes and what is said about each: one line of a good configuration is replaced, and the finding must stand on
//! exactly that line and say what is wrong and what to do.

use std::path::Path;

use proptest::test_runner::{Config as ProptestConfig, RngSeed};

use super::*;
use crate::credential::{JsonKey, JsonKeys};

/// The good configuration that the tables below change. One key to a line.
const GOOD: &str = r#"config_version = 1
[host]
name = "mx1.example.com"
state_dir = "/var/lib/relaykey"
run_dir = "/run/relaykey"
[aws]
region = "eu-west-1"
use_fips = false
[[credential]]
name = "ses"
mode = "automatic"
[credential.source]
type = "secrets-manager"
secret = "SESSendSecret"
stage = "AWSCURRENT"
[credential.smtp]
endpoint = "email-smtp.eu-west-1.amazonaws.com"
port = 587
tls = "starttls"
timeout = "10s"
[[credential.target]]
type = "postfix"
config_dir = "/etc/postfix"
reload = "always"
"#;

fn good() -> Config {
    let (config, findings) = parse(GOOD).expect("the good configuration");
    assert_eq!(findings, []);
    config
}

/// The good configuration with the line that is `old` replaced, and that line's number.
fn changed(old: &str, new: &str) -> (String, usize) {
    let line = GOOD.lines().position(|l| l == old).unwrap_or_else(|| panic!("no line {old:?}")) + 1;
    let text = GOOD.lines().map(|l| if l == old { new } else { l }).collect::<Vec<_>>().join("\n");
    (text + "\n", line)
}

fn findings(text: &str) -> Vec<Finding> {
    match parse(text) {
        Ok((_, findings)) => {
            assert!(findings.iter().all(|f| f.severity != Severity::Error), "{findings:?}");
            findings
        }
        Err(findings) => {
            assert!(findings.iter().any(|f| f.severity == Severity::Error), "{findings:?}");
            findings
        }
    }
}

/// Replaces `old` by `new` and wants one finding, `below` lines further down, of this severity.
#[track_caller]
fn one(severity: Severity, old: &str, new: &str, below: usize, what: &str, fix: &str) {
    let (text, line) = changed(old, new);
    let findings = findings(&text);
    let [finding] = findings.as_slice() else { panic!("{new:?}: {findings:#?}") };
    assert_eq!(finding.severity, severity, "{new:?}: {finding:?}");
    assert_eq!(finding.line, Some(line + below), "{new:?}: {finding:?}");
    assert!(finding.what.contains(what), "{new:?}: {:?} does not say {what:?}", finding.what);
    assert!(finding.fix.contains(fix), "{new:?}: {:?} does not say {fix:?}", finding.fix);
}

/// (line replaced, its replacement, what, fix)
type Case = (&'static str, &'static str, &'static str, &'static str);

#[track_caller]
fn errors(cases: &[Case]) {
    for (old, new, what, fix) in cases {
        one(Severity::Error, old, new, 0, what, fix);
    }
}

const ENDPOINT: &str = "endpoint = \"email-smtp.eu-west-1.amazonaws.com\"";
const SECRET: &str = "secret = \"SESSendSecret\"";
const KIND: &str = "type = \"secrets-manager\"";
const STAGE: &str = "stage = \"AWSCURRENT\"";
const RELOAD: &str = "reload = \"always\"";
const TIMEOUT: &str = "timeout = \"10s\"";
const TARGET_DIR: &str = "config_dir = \"/etc/postfix\"";
const AWS_REGION: &str = "region = \"eu-west-1\"";

#[test]
fn a_minimal_file_gets_every_default() {
    let text = r#"
config_version = 1
[[credential]]
name = "a"
source = { type = "file", path = "/etc/relaykey/a" }
smtp.endpoint = "smtp.example.com"
[[credential.target]]
type = "postfix"
"#;
    let (config, findings) = parse(text).expect("a minimal file");
    assert_eq!(findings, []);
    let smtp = Smtp {
        endpoint: "smtp.example.com".into(),
        port: 587,
        tls: Tls::Starttls,
        region: None,
        ca_file: None,
        timeout: Duration::from_secs(10),
        propagation: Duration::from_secs(300),
        retry: Duration::from_secs(10),
        endpoint_aliases: vec![],
        also: Vec::new(),
    };
    let target = Target {
        name: "postfix".into(),
        kind: TargetKind::Postfix { config_dir: "/etc/postfix".into() },
        reload: Reload::Always,
        drift: Drift::Heal,
        write: true,
        keys: None,
        unlisted_ok: vec![],
        log: MailLog::Found,
        smtp,
    };
    let credential = Credential {
        name: "a".into(),
        source: SourceConfig::File { path: "/etc/relaykey/a".into(), owner: None },
        keys: JsonKeys::default(),
        poll: DEFAULT_POLL,
        mode: Mode::Automatic,
        probe: None,
        targets: vec![target],
    };
    let host = Host {
        name: None,
        state_dir: "/var/lib/relaykey".into(),
        run_dir: "/run/relaykey".into(),
        lease: None,
        instances: Instances::Running,
    };
    assert_eq!(
        config,
        Config { host, aws: Aws::default(), credentials: vec![credential], reports: Vec::new(), health: None }
    );
}

#[test]
fn everything_set_arrives() {
    let text = r#"config_version = 1
[host]
name = "mx1"
state_dir = "/s"
run_dir = "/r"
lease = "1h"
instances = "named"
[aws]
region = "eu-west-1"
profile = "p"
role_arn = "arn:aws:iam::111122223333:role/path/r"
external_id = "e1"
proxy = "http://proxy.example.com:3128"
use_fips = true
use_dualstack = true
[[credential]]
name = "sm"
[credential.source]
type = "secrets-manager"
secret = "ses/prod"
stage = ["CANARY", "AWSCURRENT"]
username_key = "u"
password_key = "p"
poll = "1h"
[credential.smtp]
endpoint = "smtp-relay.example.com"
port = 2465
tls = "implicit"
region = "us-east-1"
ca_file = "/etc/ca.pem"
timeout = "1m 30s"
propagation = "0s"
retry = "10ms"
endpoint_aliases = ["a.example.com", "b.example.com"]
[[credential.target]]
name = "main"
type = "postfix"
config_dir = "/etc/postfix-a/"
reload = ["/usr/bin/systemctl", "reload", "postfix@a"]
drift = "report"
write = true
keys = ["[smtp-relay.example.com]:2465", "@example.org"]
unlisted_ok = ["proxy:mysql:/etc/postfix/sasl.cf"]
log = "/var/log/mail.log"
[[credential]]
name = "ps"
mode = "manual"
apply = "Sat,Sun 23:00-01:00"
if_applied_dies = "apply"
[credential.probe]
from = "probe+relaykey@mail.example.com"
to = "bounces@example.com"
[credential.source]
type = "parameter-store"
parameter = "/ses/smtp"
label = "prod"
region = "us-east-1"
profile = "q"
role_arn = "arn:aws:iam::111122223333:role/s"
[credential.smtp]
endpoint = "email-smtp.us-east-1.amazonaws.com"
tls = "implicit"
[[credential.target]]
type = "postfix"
reload = "never"
write = false
log = "journal"
[[credential.target]]
name = "postfix-2"
type = "postfix"
config_dir = "/etc/postfix-2"
reload = "if-needed"
[[credential.target]]
type = "postfix"
config_dir = "/etc/postfix-3"
[health]
listen = ["127.0.0.1:9465", "/run/relaykey/health.sock", "[2001:db8::1]:80"]
public = true
hosts = ["Mail.example.com", "2001:db8::2"]
[[report]]
name = "fleet"
type = "parameter-store"
path = "/relaykey/mail"
credentials = ["ps"]
region = "eu-central-1"
[[report]]
name = "all"
type = "parameter-store"
path = "/relaykey"
role_arn = "arn:aws:iam::111122223333:role/report"
[[report]]
name = "table"
type = "dynamodb"
table = "relaykey.Reports-1"
region = "eu-central-1"
[[report]]
name = "hook"
type = "webhook"
url = "https://hooks.example.com:8443/@team/relaykey?v=1"
secret_file = "/etc/relaykey/hook.secret"
ca_file = "/etc/relaykey/hook-ca.pem"
[[report]]
name = "mail"
type = "email"
from = "relaykey@mx1.example.com"
to = ["a@example.com", "b@example.com"]
server = "[::1]:2525"
[[report]]
name = "mail-ses"
type = "email"
from = "relaykey@example.com"
to = "a@example.com"
server = "ses"
region = "eu-central-1"
[[report]]
name = "script"
type = "exec"
command = ["/usr/local/lib/report", "--fleet", ""]
user = "relaykey_report"
timeout = "5s"
credentials = ["sm"]
"#;
    let (config, found) = parse(text).expect("a full file");
    assert_eq!(found, []);
    assert_eq!(config.host.lease, Some(Duration::from_secs(3600)));
    assert_eq!((config.host.instances, config.mail().beside_running), (Instances::Named, false));
    let [sm, ps] = config.credentials.as_slice() else { panic!("{config:?}") };
    let aws = Aws {
        region: Some("eu-west-1".into()),
        profile: Some("p".into()),
        role_arn: Some("arn:aws:iam::111122223333:role/path/r".into()),
        external_id: Some("e1".into()),
        endpoint_url: None,
        proxy: Some("http://proxy.example.com:3128".into()),
        use_fips: true,
        use_dualstack: true,
    };
    let stages = vec!["CANARY".into(), "AWSCURRENT".into()];
    assert_eq!(sm.source, SourceConfig::SecretsManager { secret: "ses/prod".into(), stages, aws: aws.clone() });
    let named = |name: &str, line| Some(JsonKey { name: name.into(), line });
    assert_eq!(sm.keys, JsonKeys { username: named("u", 22), password: named("p", 23), of_ses: false });
    let [main] = sm.targets.as_slice() else { panic!("{sm:?}") };
    assert_eq!(main.name, "main");
    assert_eq!(main.kind, TargetKind::Postfix { config_dir: "/etc/postfix-a".into() });
    let argv = ["/usr/bin/systemctl", "reload", "postfix@a"].map(str::to_owned).to_vec();
    assert_eq!((&main.reload, main.drift), (&Reload::Command(argv), Drift::Report));
    assert_eq!(main.keys, Some(vec!["[smtp-relay.example.com]:2465".into(), "@example.org".into()]));
    assert_eq!(main.unlisted_ok, ["proxy:mysql:/etc/postfix/sasl.cf"]);
    assert_eq!((main.smtp.port, main.smtp.tls, main.smtp.region.as_deref()), (2465, Tls::Implicit, Some("us-east-1")));
    assert_eq!(main.smtp.ca_file, Some("/etc/ca.pem".into()));
    let times = (main.smtp.timeout, main.smtp.propagation, main.smtp.retry);
    assert_eq!(times, (Duration::from_secs(90), Duration::ZERO, Duration::from_millis(10)));
    assert_eq!(main.smtp.endpoint_aliases, ["a.example.com", "b.example.com"]);

    assert_eq!((sm.poll, ps.poll), (Duration::from_secs(3600), DEFAULT_POLL));
    let logs: Vec<&MailLog> = [sm, ps].iter().flat_map(|c| &c.targets).map(|t| &t.log).collect();
    let file = MailLog::File("/var/log/mail.log".into());
    assert_eq!(logs, [&file, &MailLog::Journal, &MailLog::Found, &MailLog::Found]);
    let listen = vec![
        Listen::Tcp("127.0.0.1:9465".parse().unwrap()),
        Listen::Unix("/run/relaykey/health.sock".into()),
        Listen::Tcp("[2001:db8::1]:80".parse().unwrap()),
    ];
    let hosts = vec!["mail.example.com".into(), "[2001:db8::2]".into()];
    assert_eq!(config.health, Some(Health { listen, hosts }));
    let [fleet, all, table, hook, mail, mail_ses, script] = config.reports.as_slice() else {
        panic!("{:?}", config.reports)
    };
    let elsewhere = Aws { region: Some("eu-central-1".into()), ..aws.clone() };
    let at = |path: &str, aws| ReceiverKind::ParameterStore { path: path.into(), aws };
    assert_eq!((fleet.name.as_str(), &fleet.kind), ("fleet", &at("/relaykey/mail", elsewhere.clone())));
    assert_eq!([fleet.takes("ps"), fleet.takes("sm"), all.takes("ps"), all.takes("sm")], [true, false, true, true]);
    let role = Some("arn:aws:iam::111122223333:role/report".into());
    assert_eq!(all.kind, at("/relaykey", Aws { role_arn: role, external_id: None, ..aws.clone() }));
    let (table_name, keys) = ("relaykey.Reports-1".into(), TableKeys::ByHost);
    assert_eq!(table.kind, ReceiverKind::DynamoDb { table: table_name, keys, aws: elsewhere.clone() });
    assert_eq!(
        hook.kind,
        ReceiverKind::Webhook {
            url: "https://hooks.example.com:8443/@team/relaykey?v=1".into(),
            secret_file: "/etc/relaykey/hook.secret".into(),
            ca_file: Some("/etc/relaykey/hook-ca.pem".into()),
        }
    );
    let email = |from: &str, to: &[&str], via| ReceiverKind::Email {
        from: from.into(),
        to: to.iter().map(|to| (*to).to_owned()).collect(),
        via,
    };
    let local = MailVia::Server { host: "::1".into(), port: 2525 };
    assert_eq!(mail.kind, email("relaykey@mx1.example.com", &["a@example.com", "b@example.com"], local));
    assert_eq!(mail_ses.kind, email("relaykey@example.com", &["a@example.com"], MailVia::Ses(elsewhere)));
    let command = ["/usr/local/lib/report", "--fleet", ""].map(str::to_owned).to_vec();
    let (user, timeout) = ("relaykey_report".to_owned(), Duration::from_secs(5));
    assert_eq!(script.kind, ReceiverKind::Exec { command, user, timeout });
    assert_eq!((script.takes("sm"), script.takes("ps")), (true, false));
    let words: Vec<&str> = config.reports.iter().map(|r| r.kind.word()).collect();
    let want = ["parameter-store", "parameter-store", "dynamodb", "webhook", "email", "email", "exec"];
    assert_eq!(words, want);
    let by_aws: Vec<bool> = config.reports.iter().map(|r| r.kind.aws().is_some()).collect();
    assert_eq!(by_aws, [true, true, true, false, false, true, false]);

    assert_eq!((sm.mode.word(), &sm.mode, &sm.probe), ("automatic", &Mode::Automatic, &None));
    let Mode::Manual { window: Some(window), if_applied_dies: IfAppliedDies::Apply } = &ps.mode else {
        panic!("{:?}", ps.mode)
    };
    assert_eq!((ps.mode.word(), window.to_string().as_str()), ("manual", "Sat,Sun 23:00-01:00"));
    let probe = Probe { from: "probe+relaykey@mail.example.com".into(), to: "bounces@example.com".into() };
    assert_eq!(ps.probe, Some(probe));
    let writes: Vec<bool> = [sm, ps].iter().flat_map(|c| &c.targets).map(|t| t.write).collect();
    assert_eq!(writes, [true, false, true, true]);

    // The source's own role does without the external id that belongs to another.
    let own = Aws {
        region: Some("us-east-1".into()),
        profile: Some("q".into()),
        role_arn: Some("arn:aws:iam::111122223333:role/s".into()),
        external_id: None,
        ..aws
    };
    assert_eq!(
        ps.source,
        SourceConfig::ParameterStore { parameter: "/ses/smtp".into(), label: Some("prod".into()), aws: own }
    );
    let names: Vec<&str> = ps.targets.iter().map(|t| t.name.as_str()).collect();
    assert_eq!(names, ["postfix", "postfix-2", "postfix-3"], "names that are given come first");
    assert_eq!(ps.targets[0].smtp.port, 465, "the default port of implicit TLS");
    assert_eq!((&ps.targets[0].reload, &ps.targets[1].reload), (&Reload::Never, &Reload::IfNeeded));
}

#[test]
fn four_mistakes_are_four_findings() {
    let (text, _) = changed(ENDPOINT, "endpont = \"email-smtp.eu-west-1.amazonaws.com\"");
    let text = text.replace("port = 587", "port = \"587\"").replace(TARGET_DIR, "config_dir = \"etc/postfix\"");
    let text = text.replace("name = \"ses\"", "name = \"Ses\"");
    let found = findings(&text);
    let seen: Vec<_> = found.iter().map(|f| (f.line.unwrap_or(0), f.what.as_str(), f.fix.as_str())).collect();
    assert_eq!(
        seen,
        [
            (10, "name: \"Ses\" cannot be a name", "use 1 to 64 lower case letters, digits and -, the first one no -"),
            (
                17,
                "unknown key \"endpont\" in [credential.smtp]",
                "did you mean \"endpoint\"? Allowed here: endpoint, port, tls, region, ca_file, timeout, propagation, \
                 retry, endpoint_aliases, also"
            ),
            (18, "port: expected an integer, found a string", "remove the quotes: 587"),
            (23, "config_dir: \"etc/postfix\" is not an absolute path", "write the path from / on"),
        ]
    );
    assert!(found.iter().all(|f| f.severity == Severity::Error));
}

#[test]
fn what_is_missing() {
    // The finding stands on the header of the table that lacks the key, here this many lines above.
    for (old, above, what, fix) in [
        ("config_version = 1", 0, "config_version is missing in the file", "config_version = 1"),
        ("name = \"ses\"", 1, "name is missing in [[credential]]", "add name = \"ses\""),
        (KIND, 1, "type is missing in [credential.source]", "\"parameter-store\""),
        (SECRET, 2, "secret is missing in [credential.source]", "a name or an ARN"),
        (ENDPOINT, 1, "endpoint is missing in [credential.smtp]", "add endpoint ="),
        ("type = \"postfix\"", 1, "type is missing in [[credential.target]]", "add type = \"postfix\""),
    ] {
        let (text, line) = changed(old, "");
        let found = findings(&text);
        let [finding] = found.as_slice() else { panic!("{old:?}: {found:#?}") };
        assert_eq!(finding.line, Some(line - above), "{finding:?}");
        assert!(finding.what.contains(what) && finding.fix.contains(fix), "{finding:?}");
    }
}

#[test]
fn missing_tables() {
    let without = |from: &str, to: &str| {
        let start = GOOD.find(from).unwrap();
        let end = if to.is_empty() { GOOD.len() } else { GOOD.find(to).unwrap() };
        format!("{}{}", &GOOD[..start], &GOOD[end..])
    };
    for (text, line, what, fix) in [
        (String::new(), 1, "config_version is missing", "config_version = 1"),
        (without("[[credential]]", ""), 1, "there is no credential in the file", "add [[credential]]"),
        (without("[credential.source]", "[credential.smtp]"), 9, "source is missing", "add [credential.source]"),
        (without("[credential.smtp]", "[[credential.target]]"), 9, "smtp is missing", "add [credential.smtp]"),
        (without("[[credential.target]]", ""), 9, "the credential has no target", "add [[credential.target]]"),
    ] {
        let found = findings(&text);
        assert!(
            found.iter().any(|f| f.line == Some(line) && f.what.contains(what) && f.fix.contains(fix)),
            "{what}: {found:#?}"
        );
        assert_eq!(found.len(), if text.is_empty() { 2 } else { 1 }, "{found:#?}");
    }
    // A misspelt header is one mistake, and not that the table is missing too.
    for (old, new, line) in [
        ("[[credential.target]]", "[[credential.targets]]", 21),
        ("[credential.source]", "[credential.sauce]", 12),
        ("[credential.smtp]", "[credential.smpt]", 16),
    ] {
        let found = findings(&GOOD.replace(old, new));
        assert_eq!(found.iter().map(|f| f.line).collect::<Vec<_>>(), [Some(line)], "{new}: {found:#?}");
    }
    let found = findings("config_version = 1\n[[credentials]]\nname = \"a\"\n");
    assert_eq!((found.len(), found[0].line), (1, Some(2)), "{found:#?}");
    let found = findings("config_version = 1\ncredential = []\n");
    assert!(found[0].what.contains("there is no credential"), "{found:#?}");
}

#[test]
fn another_version_says_only_that() {
    let found = findings(&changed("config_version = 1", "config_version = 2\nnew_key = 1").0);
    let [finding] = found.as_slice() else { panic!("{found:#?}") };
    assert_eq!(finding.line, Some(1));
    assert!(finding.what.contains("reads version 1") && finding.fix.contains("update relaykey"), "{finding:?}");
    errors(&[
        ("config_version = 1", "config_version = 0", "no such version", "config_version = 1"),
        ("config_version = 1", "config_version = \"1\"", "expected an integer, found a string", "remove the quotes: 1"),
        ("config_version = 1", "config_version = 99999999999999999999", "too large", "smaller"),
    ]);
}

#[test]
fn unknown_keys_and_tables() {
    errors(&[
        (
            "name = \"mx1.example.com\"",
            "hostname = \"x\"",
            "unknown key \"hostname\" in [host]",
            "Allowed here: name, state_dir, run_dir, lease, instances",
        ),
        (
            "state_dir = \"/var/lib/relaykey\"",
            "state-dir = \"/x\"",
            "unknown key \"state-dir\"",
            "did you mean \"state_dir\"?",
        ),
        (TIMEOUT, "Timeout = \"10s\"", "unknown key \"Timeout\"", "did you mean \"timeout\"?"),
        (TIMEOUT, "proxy = \"http://p:1\"", "unknown key \"proxy\" in [credential.smtp]", "move it to [aws]."),
        (
            RELOAD,
            "timeout = \"10s\"",
            "unknown key \"timeout\" in [[credential.target]]",
            "move it to [credential.smtp] or [[report]].",
        ),
        (RELOAD, "ca_file = \"/x\"", "unknown key \"ca_file\"", "move it to [credential.smtp] or [[report]]."),
        (STAGE, "use_fips = true", "unknown key \"use_fips\" in [credential.source]", "move it to [aws]."),
        (STAGE, "password = \"hunter2\"", "unknown key \"password\"", "no login stands in this file"),
        (STAGE, "aws_thing = 1", "unknown key \"aws_thing\"", "remove it. Allowed here: type, secret, stage,"),
        (
            RELOAD,
            "[hosts]",
            "unknown key \"hosts\" in the file",
            "did you mean \"host\"? Allowed here: config_version, host, aws, credential",
        ),
        (RELOAD, "[credential.smpt]", "unknown key \"smpt\" in [[credential]]", "did you mean \"smtp\"?"),
        (RELOAD, "\"a\\nb\" = 1", "there is an unknown key in [[credential.target]] (it is not shown", "remove it"),
    ]);
}

#[test]
fn keys_of_other_source_types() {
    errors(&[
        (
            STAGE,
            "parameter = \"/x\"",
            "\"parameter\" does not go with type = \"secrets-manager\"",
            "or set type = \"parameter-store\"",
        ),
        (STAGE, "label = \"x\"", "\"label\" does not go with type", "\"parameter-store\""),
        (STAGE, "path = \"/x\"", "\"path\" does not go with type", "or set type = \"file\""),
    ]);
    let file = |rest: &str| {
        changed(KIND, &format!("type = \"file\"\npath = \"/x\"\n{rest}")).0.replace(SECRET, "").replace(STAGE, "")
    };
    for rest in ["region = \"eu-west-1\"", "role_arn = \"arn:aws:iam::111122223333:role/r\"", "stage = \"A\""] {
        let found = findings(&file(rest));
        assert_eq!(found.len(), 1, "{found:#?}");
        assert!(found[0].what.contains("does not go with type = \"file\""), "{found:?}");
        assert_eq!(found[0].line, Some(15));
    }
}

#[test]
fn what_comes_later() {
    errors(&[(
        RELOAD,
        "maps = [\"hash:/etc/postfix/sasl_passwd\"]",
        "\"maps\" is not yet supported",
        "smtp_sasl_password_maps",
    )]);
    for kind in ["exim", "sendmail", "opensmtpd", "msmtp", "iis"] {
        let new = format!("type = {kind:?}");
        one(
            Severity::Error,
            "type = \"postfix\"",
            &new,
            0,
            &format!("{kind:?} is not yet supported"),
            "remove this target",
        );
    }
}

#[test]
fn wrong_types() {
    errors(&[
        (TIMEOUT, "timeout = 10", "timeout: expected a string, found an integer", "\"10s\""),
        ("name = \"ses\"", "name = 5", "name: expected a string, found an integer", "put it in quotes: \"5\""),
        ("name = \"ses\"", "name = true", "expected a string, found a boolean", "in quotes"),
        ("name = \"ses\"", "name = 1.5", "expected a string, found a float", "in quotes"),
        ("name = \"ses\"", "name = 2026-01-01", "expected a string, found a date", "in quotes"),
        ("name = \"ses\"", "name = [\"ses\"]", "expected a string, found a list", "give one value"),
        ("name = \"ses\"", "name = { a = 1 }", "expected a string, found a table", "give one value"),
        ("port = 587", "port = 58.7", "expected an integer, found a float", "whole number"),
        ("port = 587", "port = 0x", "too large, or has no digits", "number"),
        ("use_fips = false", "use_fips = \"no\"", "expected a boolean, found a string", "true or false"),
        (RELOAD, "keys = \"a\"", "keys: expected a list, found a string", "brackets"),
        (RELOAD, "keys = [1]", "keys: expected a string, found an integer", "in quotes"),
        (RELOAD, "reload = 1", "expected a string or a list of strings, found an integer", "full path"),
        (RELOAD, "reload = [1]", "reload: expected a string, found an integer", "in quotes"),
        (STAGE, "stage = 1", "stage: expected a string, found an integer", "in quotes"),
        (STAGE, "stage = { a = 1 }", "stage: expected a string, found a table", "give one value"),
        ("name = \"ses\"", "name = \"a\\u0000b\"", "character 2 is a control character", "remove it"),
        ("name = \"ses\"", "name = \"\"", "the value is empty", "give a value"),
        ("name = \"ses\"", "name = \" ses\"", "blanks around", "remove them"),
    ]);
    // Tables and lists of tables.
    for (text, line, what, fix) in [
        (
            "config_version = 1\nhost = 5\n",
            2,
            "host: expected a table, found an integer",
            "write [host] on a line of its own",
        ),
        ("config_version = 1\n[[aws]]\n", 2, "aws: expected one table, found a list of tables", "write [aws], once"),
        (
            "config_version = 1\n[credential]\nname = \"a\"\n",
            2,
            "credential: expected a list of tables, found one table",
            "write [[credential]] in double brackets",
        ),
        (
            "config_version = 1\n[[credential]]\nname = \"a\"\n[credential.target]\n",
            4,
            "target: expected a list of tables",
            "write [[credential.target]] in double brackets",
        ),
        (
            "config_version = 1\n[[credential]]\nname = \"a\"\n[[credential.smtp]]\n",
            4,
            "smtp: expected one table",
            "write [credential.smtp], once",
        ),
        (
            "config_version = 1\ncredential = \"ses\"\n",
            2,
            "credential: expected a list of tables, found a string",
            "[[credential]]",
        ),
        (
            "config_version = 1\ncredential = [1]\n",
            2,
            "credential: expected a table, found an integer",
            "[[credential]]",
        ),
    ] {
        let found = findings(text);
        assert!(
            found.iter().any(|f| f.line == Some(line) && f.what.contains(what) && f.fix.contains(fix)),
            "{text:?}: {found:#?}"
        );
    }
    // The elements of a list over several lines are judged where they stand.
    let (text, line) = changed(RELOAD, "keys = [\n  \"a b\",\n  \"c\",\n  \"C\",\n]");
    let found = findings(&text);
    let seen: Vec<_> = found.iter().map(|f| (f.line, f.what.as_str())).collect();
    let want =
        [(Some(line + 1), "keys: \"a b\" cannot be a lookup key"), (Some(line + 3), "keys: an element stands twice")];
    assert_eq!(seen, want);
}

#[test]
fn hosts() {
    errors(&[
        (
            ENDPOINT,
            "endpoint = \"smtp://smtp.example.com\"",
            "with a scheme",
            "write the name alone, \"smtp.example.com\"",
        ),
        (
            ENDPOINT,
            "endpoint = \"smtps://smtp.example.com:465/\"",
            "with a scheme and a slash and a port",
            "\"smtp.example.com\" and port = 465 (tls = \"implicit\")",
        ),
        (ENDPOINT, "endpoint = \"smtp.example.com:587\"", "with a port", "\"smtp.example.com\" and port = 587"),
        (
            ENDPOINT,
            "endpoint = \"[smtp.example.com]\"",
            "with brackets",
            "\"smtp.example.com\" (brackets are Postfix's way",
        ),
        (
            ENDPOINT,
            "endpoint = \"[smtp.example.com]:587\"",
            "with a port and brackets",
            "\"smtp.example.com\" and port = 587",
        ),
        (ENDPOINT, "endpoint = \"smtp.example.com.\"", "a dot at its end", "\"smtp.example.com\""),
        (
            ENDPOINT,
            "endpoint = \"2001:db8::1\"",
            "is an IPv6 address",
            "host name that the server's certificate carries",
        ),
        (ENDPOINT, "endpoint = \"[2001:db8::1]:25\"", "is an IPv6 address", "certificate"),
        (ENDPOINT, "endpoint = \"smtp example com\"", "is not a host name", "letters, digits, - and dots"),
        (ENDPOINT, "endpoint = \"smtp..example.com\"", "is not a host name", "write a name like"),
        (ENDPOINT, "endpoint = \"-x.example.com\"", "is not a host name", "write a name like"),
        (
            TIMEOUT,
            "endpoint_aliases = [\"a.example.com:587\"]",
            "endpoint_aliases: \"a.example.com:587\" is a host name with a port",
            "\"a.example.com\"",
        ),
        (TIMEOUT, "endpoint_aliases = [\"a.example.com\", \"A.example.com\"]", "stands twice", "remove one"),
        (TIMEOUT, "endpoint_aliases = [\"[::1]:25\", \"[ipv6:0:0:0:0:0:0:0:1]:25\"]", "stands twice", "remove one"),
        (
            TIMEOUT,
            "endpoint_aliases = [\"127.0.0.1:0\"]",
            "endpoint_aliases: \"127.0.0.1:0\" is",
            "write the name alone",
        ),
        ("name = \"mx1.example.com\"", "name = \"mx 1\"", "name: \"mx 1\" is not a host name", "write a name like"),
    ]);
    for name in ["localhost", "127.0.0.1", "a_b.internal", "vpce-1.email-smtp.eu-west-1.vpce.amazonaws.com"] {
        let (text, _) = changed(ENDPOINT, &format!("endpoint = {name:?}"));
        assert_eq!(findings(&text), [], "{name}");
    }
    let (text, _) = changed(ENDPOINT, "endpoint = \"smtp://AKIAEXAMPLE:hunter2@smtp.example.com\"");
    let found = findings(&text);
    assert!(found[0].what.contains("an @ in the host name"), "{found:?}");
    assert!(!format!("{found:?}{}", render_text(&found, Path::new("c"), Some(&text))).contains("hunter2"));
}

#[test]
fn ports_tls_and_regions_go_together() {
    errors(&[
        ("port = 587", "port = 0", "no such port", "1 to 65535"),
        ("port = 587", "port = 65536", "no such port", "1 to 65535"),
        ("tls = \"starttls\"", "tls = \"none\"", "\"none\" is not known", "Allowed here: \"starttls\", \"implicit\""),
        ("tls = \"starttls\"", "tls = \"startls\"", "not known", "did you mean \"starttls\"?"),
        // SES's own listeners: a sure mismatch.
        (
            "tls = \"starttls\"",
            "tls = \"implicit\"",
            "port 587 is one for STARTTLS",
            "tls = \"starttls\", or port = 465",
        ),
        (
            TIMEOUT,
            "region = \"us-east-1\"",
            "region is \"us-east-1\", but the endpoint's name says \"eu-west-1\"",
            "remove `region`",
        ),
        (AWS_REGION, "region = \"EU-WEST-1\"", "\"EU-WEST-1\" is not a region", "write \"eu-west-1\""),
        (AWS_REGION, "region = \"eu-west-1a\"", "is not a region", "write \"eu-west-1\": with a letter"),
        (AWS_REGION, "region = \"Ireland\"", "is not a region", "as AWS does"),
    ]);
    // The finding stands on the line of tls where there is one, else on that of port.
    one(
        Severity::Error,
        "port = 587",
        "port = 465",
        1,
        "port 465 is one for implicit TLS",
        "tls = \"implicit\", or port = 587",
    );
    errors(&[(
        "reload = \"always\"",
        "unlisted_ok = [\"static:AKIAIOSFODNN7EXAMPLE:secret\"]",
        "unlisted_ok: there is no name of a login table",
        "\"proxy:mysql:/etc/postfix/sasl.cf\"",
    )]);
    one(Severity::Warning, "port = 587", "port = 2525", 0, "SES does not listen on port 2525", "use 587");
    let alias = "timeout = \"10s\"\nendpoint_aliases = [\"a.example.com\", \"127.0.0.1:2525\", \"::1\"]";
    one(Severity::Warning, TIMEOUT, alias, 1, "endpoint_aliases: \"::1\" stands for every port", "\"[::1]:2525\"");
    let elsewhere = |port: &str, tls: &str| {
        let (text, _) = changed(ENDPOINT, "endpoint = \"smtp.example.com\"");
        let text = text.replace("port = 587", port).replace("tls = \"starttls\"", tls);
        findings(&text).iter().map(|f| (f.severity, f.line)).collect::<Vec<_>>()
    };
    assert_eq!(elsewhere("port = 465", ""), [(Severity::Warning, Some(18))]);
    assert_eq!(elsewhere("port = 587", "tls = \"implicit\""), [(Severity::Warning, Some(19))]);
    assert_eq!(elsewhere("port = 2465", "tls = \"implicit\""), []);
    assert_eq!(elsewhere("port = 4650", "tls = \"implicit\""), []);
    assert_eq!(elsewhere("", "tls = \"implicit\""), []);
    let (text, _) = changed(TIMEOUT, AWS_REGION);
    assert_eq!(findings(&text), [], "the region that the name says anyway");
}

#[test]
fn lengths_of_time() {
    errors(&[
        (TIMEOUT, "timeout = \"10\"", "\"10\" is not a length of time", "\"10s\""),
        (TIMEOUT, "timeout = \"PT10S\"", "is not a length of time", "\"10s\""),
        (TIMEOUT, "timeout = \"-10s\"", "is not a length of time", "\"10s\""),
        (TIMEOUT, "timeout = \"10s ago\"", "is not a length of time", "\"10s\""),
        (TIMEOUT, "timeout = \"5x\"", "is not a length of time", "\"10s\""),
        (TIMEOUT, "timeout = \"1 month\"", "is not a length of time", "\"10s\""),
        (TIMEOUT, "timeout = \"0s\"", "\"0s\" is out of bounds", "from 1s to 5m"),
        (TIMEOUT, "timeout = \"6m\"", "is out of bounds", "from 1s to 5m"),
        (TIMEOUT, "propagation = \"61m\"", "propagation: \"61m\" is out of bounds", "from 0s to 1h"),
        (TIMEOUT, "retry = \"1ms\"", "retry: \"1ms\" is out of bounds", "from 10ms to 15m"),
        (TIMEOUT, "retry = \"16m\"", "is out of bounds", "from 10ms to 15m"),
    ]);
    for (text, millis) in
        [("1s", 1000), ("1500ms", 1500), ("5m", 300_000), ("1m30s", 90_000), ("1.5s", 1500), ("10 seconds", 10_000)]
    {
        let (config, _) = parse(&changed(TIMEOUT, &format!("timeout = {text:?}")).0).expect(text);
        assert_eq!(config.credentials[0].targets[0].smtp.timeout, Duration::from_millis(millis), "{text}");
    }
}

#[test]
fn polls() {
    errors(&[
        (STAGE, "poll = 300", "poll: expected a string, found an integer", "\"5m\""),
        (STAGE, "poll = \"4s\"", "poll: \"4s\" is out of bounds", "from 5s to 24h"),
        (STAGE, "poll = \"25h\"", "poll: \"25h\" is out of bounds", "from 5s to 24h"),
        ("mode = \"automatic\"", "poll = \"5m\"", "unknown key \"poll\" in [[credential]]", "to [credential.source]."),
    ]);
    one(Severity::Warning, STAGE, "poll = \"10s\"", 0, "asks AWS 8640 times a day", "use \"5m\"");
    one(Severity::Warning, STAGE, "poll = \"29s\"", 0, "asks AWS 2979 times a day", "SIGHUP");
    for (text, seconds) in [("30s", 30), ("1h", 3600), ("24h", 86_400)] {
        let text = changed(STAGE, &format!("poll = {text:?}")).0;
        let (config, found) = parse(&text).expect("a good configuration");
        assert_eq!((config.credentials[0].poll, found), (Duration::from_secs(seconds), vec![]));
    }
    // A file costs nothing.
    let file = changed(KIND, "type = \"file\"\npath = \"/x\"\npoll = \"5s\"").0.replace(SECRET, "").replace(STAGE, "");
    assert_eq!(findings(&file), []);
}

#[test]
fn logs() {
    errors(&[
        (RELOAD, "log = \"syslog\"", "log: \"syslog\" is neither a path nor \"journal\"", "\"/var/log/mail.log\""),
        (RELOAD, "log = \"mail.log\"", "neither a path", "or \"journal\""),
        (RELOAD, "log = \"./mail.log\"", "\"./mail.log\" is not an absolute path", "from / on"),
        (RELOAD, "log = \"/var/log/journal/\"", "where the systemd journal keeps its files", "log = \"journal\""),
        (RELOAD, "log = [\"/var/log/mail.log\"]", "log: expected a string, found a list", "one value"),
        (TIMEOUT, "log = \"journal\"", "unknown key \"log\" in [credential.smtp]", "move it to [[credential.target]]."),
    ]);
}

/// One finding on a line of a table at the end of the good configuration.
#[track_caller]
fn in_table(header: &str, good: &str, cases: &[(&str, &str, &str)]) {
    for (new, what, fix) in cases {
        let below = 1 + good.lines().count();
        let text = format!("{header}\n{good}{new}");
        one(Severity::Error, RELOAD, &text, below, what, fix);
    }
}

#[test]
fn manual_mode() {
    const MODE: &str = "mode = \"automatic\"";
    let mode = |keys: &str| parse(&changed(MODE, keys).0).expect(keys).0.credentials.remove(0).mode;
    let manual = |window: Option<&str>, if_applied_dies| Mode::Manual {
        window: window.map(|w| Window::parse(w).expect(w)),
        if_applied_dies,
    };
    assert_eq!(mode(""), Mode::Automatic);
    assert_eq!(mode("mode = \"manual\""), manual(None, IfAppliedDies::Wait));
    let (apply, dies) = ("apply = \"Mon-Fri 22:00-23:30\"", "if_applied_dies = \"apply\"");
    let both = manual(Some("Mon-Fri 22:00-23:30"), IfAppliedDies::Apply);
    // In any order.
    assert_eq!(mode(&format!("{apply}\n{dies}\nmode = \"manual\"")), both);
    assert_eq!(mode(&format!("mode = \"manual\"\n{dies}\n{apply}")), both);

    let usage = "write days and hours in local time: \"Sat 02:00-04:00\"";
    for (window, what) in [
        ("02:00-04:00", "it has no days, or no hours"),
        ("Sat", "it has no days, or no hours"),
        ("Sat 02:00", "its hours have no beginning or no end"),
        ("Sat 02:00-02:00", "it begins and ends at the same time"),
        ("Saturday 02:00-04:00", "\"Saturday\" is no day: they are Mon, Tue, Wed, Thu, Fri, Sat, Sun, and daily"),
        ("weekdays 02:00-04:00", "\"weekdays\" is no day"),
        ("Sat,Sunday 02:00-04:00", "\"Sunday\" is no day"),
        ("Sat,, Sun 02:00-04:00", "\"\" is no day"),
        ("Sat 2am-4am", "\"2am\" is no time of day: write it like 02:00"),
        ("Sat 02:00-25:00", "\"25:00\" is no time of day"),
        ("Sat 02:00-04:00 UTC", "\"04:00 UTC\" is no time of day"),
        ("Sat 02:00:00-04:00:00", "\"02:00:00\" is no time of day"),
    ] {
        let what = format!("apply: {window:?} is no window: {what}");
        one(Severity::Error, MODE, &format!("mode = \"manual\"\napply = {window:?}"), 1, what.trim_end(), usage);
    }
    for (new, below, what, fix) in [
        ("mode = \"manual\"\napply = 2", 1, "apply: expected a string, found an integer", "in quotes"),
        ("mode = \"manual\"\napply = [\"Sat 02:00-04:00\"]", 1, "apply: expected a string, found a list", "one value"),
        ("mode = \"manual\"\napply = \"\"", 1, "apply: the value is empty", "or remove the line"),
        (
            "mode = \"manual\"\nif_applied_dies = \"aply\"",
            1,
            "if_applied_dies: \"aply\" is not known",
            "did you mean \"apply\"? Allowed here: \"wait\", \"apply\"",
        ),
        ("mode = \"manual\"\nif_applied_dies = true", 1, "if_applied_dies: expected a string", "in quotes"),
        ("mode = true", 0, "mode: expected a string, found a boolean", "in quotes"),
        (apply, 0, "apply has no effect with mode = \"automatic\"", "add mode = \"manual\", or remove apply"),
        (dies, 0, "if_applied_dies has no effect with mode", "add mode = \"manual\", or remove if_applied_dies"),
        ("aply = \"Sat 02:00-04:00\"", 0, "unknown key \"aply\" in [[credential]]", "did you mean \"apply\"?"),
    ] {
        one(Severity::Error, MODE, new, below, what, fix);
    }
    // With a mistake in `mode` it is not known what was meant by the others.
    let (text, line) = changed(MODE, &format!("mode = \"manuel\"\n{apply}\n{dies}"));
    assert_eq!(findings(&text).iter().map(|f| f.line).collect::<Vec<_>>(), [Some(line)]);
    // Each of the two on its own line.
    let (text, line) = changed(MODE, &format!("{apply}\n{dies}"));
    assert_eq!(findings(&text).iter().map(|f| f.line).collect::<Vec<_>>(), [Some(line), Some(line + 1)]);
    errors(&[
        (
            STAGE,
            "apply = \"Sat 02:00-04:00\"",
            "unknown key \"apply\" in [credential.source]",
            "move it to [[credential]].",
        ),
        (RELOAD, "mode = \"manual\"", "unknown key \"mode\" in [[credential.target]]", "move it to [[credential]]."),
    ]);
}

#[test]
fn probes() {
    let probe = |keys: &str| parse(&changed(RELOAD, keys).0).expect(keys).0.credentials.remove(0).probe;
    let to = |to: &str| Some(Probe { from: "a@example.com".into(), to: to.into() });
    let header = "[credential.probe]";
    assert_eq!(probe(&format!("{header}\nfrom = \"a@example.com\"")), to("success@simulator.amazonses.com"));
    assert_eq!(probe(&format!("{header}\nfrom = \"a@example.com\"\nto = \"b@example.com\"")), to("b@example.com"));
    let text = changed("mode = \"automatic\"", "probe = { from = \"a@example.com\" }").0;
    assert_eq!(
        parse(&text).expect("a good configuration").0.credentials.remove(0).probe,
        to("success@simulator.amazonses.com")
    );

    let alone = "write the address alone: \"postmaster@example.com\"";
    for key in ["from", "to"] {
        let good = if key == "to" { "from = \"a@example.com\"\n" } else { "" };
        let long = format!("{}@example.com", "x".repeat(65));
        for (address, what, fix) in [
            ("Postmaster <postmaster@example.com>", "there is more than a mail address", alone),
            ("\\\"a b\\\"@example.com", "there is more than a mail address", alone),
            ("a@example.com,b@example.com", "more than one mail address", "one address"),
            ("a@example.com b@example.com", "more than one mail address", "one address"),
            ("postmaster", "no mail address", alone),
            ("@example.com", "no mail address", alone),
            ("postmaster@", "no mail address", alone),
            ("a@b@example.com", "no mail address", alone),
            (".a@example.com", "no mail address", alone),
            ("a..b@example.com", "no mail address", alone),
            ("a@exa_mple.com", "no mail address", alone),
            ("a@[192.0.2.1]", "no mail address", alone),
            ("ä@example.com", "no mail address", alone),
            ("a@example.com\\r\\nBcc: b@example.com", "control character", "remove it"),
            (&long, "no mail address", alone),
            ("", "the value is empty", "give a value"),
        ] {
            in_table(header, good, &[(&format!("{key} = \"{address}\""), what, fix)]);
        }
        in_table(
            header,
            good,
            &[(&format!("{key} = [\"a@example.com\"]"), "expected a string, found a list", "one value")],
        );
    }
    in_table(
        header,
        "from = \"a@example.com\"\n",
        &[
            ("subject = \"x\"", "unknown key \"subject\" in [credential.probe]", "Allowed here: from, to"),
            ("too = \"b@example.com\"", "unknown key \"too\"", "did you mean \"to\"?"),
            ("endpoint = \"x\"", "unknown key \"endpoint\" in [credential.probe]", "move it to [credential.smtp]"),
        ],
    );
    let add = "add from = \"postmaster@example.com\", an address that SES lets this credential send from";
    one(Severity::Error, RELOAD, header, 0, "from is missing in [credential.probe]", add);
    one(
        Severity::Error,
        RELOAD,
        "[[credential.probe]]\nfrom = \"a@b\"",
        0,
        "expected one table",
        "[credential.probe], once",
    );
    one(
        Severity::Error,
        "mode = \"automatic\"",
        "probe = true",
        0,
        "probe: expected a table, found a boolean",
        "[credential.probe]",
    );
    // A mail address is nobody's business but theirs who may read the file.
    let (text, _) = changed(RELOAD, "[credential.probe]\nfrom = \"someone <hunter2@example.com>\"");
    let found = findings(&text);
    assert!(!format!("{found:?}{}", render_text(&found, Path::new("c"), Some(&text))).contains("hunter2"));
}

#[test]
fn targets_changed_by_hand() {
    let write = |value: &str| {
        let text = changed(RELOAD, &format!("{RELOAD}\nwrite = {value}")).0;
        parse(&text).map(|(mut config, _)| config.credentials.remove(0).targets.remove(0).write)
    };
    assert_eq!((write("true"), write("false")), (Ok(true), Ok(false)));
    errors(&[
        (RELOAD, "write = \"no\"", "write: expected a boolean, found a string", "true or false, without quotes"),
        (RELOAD, "write = 0", "write: expected a boolean, found an integer", "true or false"),
        (TIMEOUT, "write = false", "unknown key \"write\" in [credential.smtp]", "move it to [[credential.target]]."),
    ]);
}

#[test]
fn health() {
    let health = |keys: &str| parse(&changed(RELOAD, &format!("[health]\n{keys}")).0).expect(keys).0.health;
    for off in ["", "public = true", "hosts = []"] {
        assert_eq!(health(off), None, "{off}");
    }
    // For sockets that the service manager passes.
    assert_eq!(health("hosts = [\"MX1\"]"), Some(Health { listen: vec![], hosts: vec!["mx1".into()] }));
    let listen = health("listen = [\"[::ffff:127.0.0.1]:80\", \"[::1]:80\", \"127.0.0.2:80\"]").expect("on").listen;
    let want = ["127.0.0.1:80", "[::1]:80", "127.0.0.2:80"].map(|a| Listen::Tcp(a.parse().unwrap()));
    assert_eq!(listen, want);
    let open = health("public = true\nlisten = [\"0.0.0.0:80\", \"192.0.2.1:81\"]").expect("on");
    assert_eq!(open.listen.len(), 2);

    let long = format!("listen = [\"/run/{}\"]", "x".repeat(103));
    in_table(
        "[health]",
        "",
        &[
            ("listen = []", "listen: the list is empty", "leave `listen` out"),
            ("listen = \"127.0.0.1:9465\"", "listen: expected a list, found a string", "between brackets"),
            ("listen = [9465]", "listen: expected a string, found an integer", "\"127.0.0.1:9465\""),
            ("listen = [\"9465\"]", "\"9465\" names no address", "write \"127.0.0.1:9465\""),
            ("listen = [\":9465\"]", "\":9465\" names no address", "write \"127.0.0.1:9465\""),
            ("listen = [\"*:9465\"]", "names no address", "write \"0.0.0.0:9465\""),
            ("listen = [\"localhost:9465\"]", "names no address", "write \"127.0.0.1:9465\""),
            ("listen = [\"mx1.example.com:80\"]", "is a name", "write the address itself"),
            ("listen = [\"127.0.0.1\"]", "\"127.0.0.1\" has no port", "add one: \"127.0.0.1:9465\""),
            ("listen = [\"::1\"]", "\"::1\" has no port", "add one: \"[::1]:9465\""),
            ("listen = [\"127.0.0.1:0\"]", "port 0 is another port at every start", "9465"),
            ("listen = [\"127.0.0.1:70000\"]", "neither an address with a port nor a path", "\"127.0.0.1:9465\""),
            ("listen = [\"http://127.0.0.1:9465/\"]", "a scheme", "write it without: \"127.0.0.1:9465\""),
            ("listen = [\"unix:/run/h.sock\"]", "a scheme", "write it without: \"/run/h.sock\""),
            ("listen = [\"unix:///run/h.sock\"]", "a scheme", "write it without: \"/run/h.sock\""),
            ("listen = [\"run/h.sock\"]", "neither an address with a port nor a path", "Unix socket"),
            ("listen = [\"/run/../h.sock\"]", "has \"..\" in it", "without"),
            ("listen = [\"/run/relaykey/\"]", "is a directory", "the socket itself"),
            (&long, "longer than the 107 bytes", "a shorter one"),
            (
                "listen = [\"0.0.0.0:80\"]",
                "0.0.0.0:80 can be reached from other hosts",
                "\"127.0.0.1:80\"; or set public = true",
            ),
            ("listen = [\"[::]:80\"]", "can be reached from other hosts", "public = true"),
            ("listen = [\"10.0.0.1:80\"]", "can be reached from other hosts", "public = true"),
            ("listen = [\"127.0.0.1:80\", \"[::ffff:127.0.0.1]:80\"]", "stands twice", "remove one"),
            ("listen = [\"/run/a\", \"/run//a\"]", "stands twice", "remove one"),
            ("public = \"yes\"", "public: expected a boolean", "true or false"),
            (
                "hosts = [\"a.example.com:80\"]",
                "hosts: \"a.example.com:80\" is not a host name",
                "without scheme and port",
            ),
            ("hosts = [\"*.example.com\"]", "hosts: there is no pattern", "each name"),
            ("hosts = [\"a\", \"A\"]", "hosts: an element stands twice", "remove one"),
            ("hosts = [\"AKIAEXAMPLE:hunter2@h\"]", "hosts: there is an @", "without scheme"),
            (
                "listn = []",
                "unknown key \"listn\" in [health]",
                "did you mean \"listen\"? Allowed here: listen, public, hosts",
            ),
            ("port = 80", "unknown key \"port\" in [health]", "move it to"),
        ],
    );
    in_table(
        "[health]",
        "public = true\n",
        &[
            (
                "listen = [\"0.0.0.0:80\", \"127.0.0.1:80\"]",
                "127.0.0.1:80 is the same port as on line 26",
                "remove one",
            ),
            ("listen = [\"127.0.0.1:80\", \"[::]:80\"]", "[::]:80 is the same port as on line 26", "remove one"),
        ],
    );
    assert_eq!(health("public = true\nlisten = [\"0.0.0.0:80\", \"[::1]:80\"]").map(|h| h.listen.len()), Some(2));
    // With a mistake in `public` it is not known what was meant.
    let (text, _) = changed(RELOAD, "[health]\npublic = 1\nlisten = [\"0.0.0.0:80\"]");
    assert_eq!(findings(&text).len(), 1);
    // Elements are judged where they stand.
    let (text, line) = changed(RELOAD, "[health]\nlisten = [\n  \"127.0.0.1:80\",\n  \"0.0.0.0:81\",\n]");
    assert_eq!(findings(&text).iter().map(|f| f.line).collect::<Vec<_>>(), [Some(line + 3)]);
    let found = findings(&changed(RELOAD, "[[health]]").0);
    assert!(found[0].what.contains("health: expected one table"), "{found:?}");
}

#[test]
fn reports() {
    let good = "name = \"fleet\"\ntype = \"parameter-store\"\n";
    in_table(
        "[[report]]",
        good,
        &[
            ("path = \"relaykey\"", "path: \"relaykey\" does not begin with a slash", "write \"/relaykey\""),
            ("path = \"/relaykey/\"", "ends with a slash", "write \"/relaykey\""),
            ("path = \"/\"", "has no name in it", "\"/relaykey\""),
            ("path = \"/a//b\"", "cannot begin the name of a parameter", "one / between"),
            ("path = \"/a b\"", "cannot begin the name of a parameter", "letters, digits"),
            ("path = \"/aws/mail\"", "reserved in Parameter Store", "begin the path otherwise"),
            ("path = \"/SSMail\"", "reserved in Parameter Store", "begin the path otherwise"),
            ("path = \"/1/2/3/4/5/6/7/8/9/10/11/12/13/14\"", "too long for Parameter Store", "at most 13 parts"),
            ("path = \"arn:aws:ssm:eu-west-1:111122223333:parameter/x\"", "this is an ARN", "path alone"),
        ],
    );
    let good = "name = \"fleet\"\ntype = \"parameter-store\"\npath = \"/relaykey\"\n";
    assert_eq!(findings(&changed(RELOAD, &format!("[[report]]\n{good}")).0), []);
    in_table(
        "[[report]]",
        good,
        &[
            ("credentials = []", "credentials: the list is empty", "leave `credentials` out: all"),
            (
                "credentials = [\"sse\"]",
                "there is no credential \"sse\" in the file",
                "did you mean \"ses\"? There are: \"ses\"",
            ),
            ("credentials = [\"ses\", \"ses\"]", "stands twice", "remove one"),
            ("credentials = [\"Ses\"]", "cannot be a name", "lower case"),
            ("credential = [\"ses\"]", "unknown key \"credential\" in [[report]]", "did you mean \"credentials\"?"),
            ("secret = \"x\"", "unknown key \"secret\" in [[report]]", "move it to [credential.source]."),
            ("proxy = \"http://p:1\"", "unknown key \"proxy\" in [[report]]", "move it to [aws]."),
            ("region = \"Ireland\"", "region: \"Ireland\" is not a region", "as AWS does"),
            ("external_id = \"abc\"", "external_id has no effect without role_arn", "add role_arn"),
            ("endpoint_url = \"http://vpce.example.com\"", "without encryption", "use https"),
        ],
    );
    // What is missing is said on the header's line.
    for (left_out, what) in
        [("name", "name is missing in [[report]]"), ("type", "type is"), ("path", "path is missing")]
    {
        let kept: String = good.lines().filter(|l| !l.starts_with(left_out)).map(|l| format!("{l}\n")).collect();
        one(Severity::Error, RELOAD, &format!("[[report]]\n{kept}"), 0, what, &format!("add {left_out} = "));
    }
    let two = |second: &str| format!("[[report]]\n{good}[[report]]\n{second}");
    let same = good.replace("fleet", "two");
    one(
        Severity::Error,
        RELOAD,
        &two(&same),
        7,
        "the receiver on line 24 writes the same parameters",
        "different `path`",
    );
    let other = good.replace("/relaykey", "/other");
    one(
        Severity::Error,
        RELOAD,
        &two(&other),
        5,
        "the receiver of reports on line 25 is called \"fleet\" too",
        "its own",
    );
    for differs in [same.replace("/relaykey", "/other"), same.clone() + "region = \"us-east-1\""] {
        assert_eq!(findings(&changed(RELOAD, &two(&differs)).0), [], "{differs}");
    }
    one(
        Severity::Error,
        RELOAD,
        &format!("[report]\n{good}"),
        0,
        "expected a list of tables, found one table",
        "[[report]]",
    );
    // With a mistake in a credential's name it is not known which there are.
    let text = changed(RELOAD, &format!("[[report]]\n{good}credentials = [\"ses\"]")).0;
    assert_eq!(findings(&text.replace("name = \"ses\"", "name = \"Ses\"")).len(), 1);
}

#[test]
fn kinds_of_receivers() {
    let kind = |keys: &str| {
        let text = changed(RELOAD, &format!("[[report]]\nname = \"r\"\n{keys}")).0;
        let (mut config, found) = parse(&text).expect(keys);
        assert_eq!(found, [], "{keys}");
        config.reports.remove(0).kind
    };
    // What each needs, and the defaults of the rest.
    let aws = || Aws { region: Some("eu-west-1".into()), ..Aws::default() };
    for (lines, keys) in [
        ("", TableKeys::ByHost),
        ("\nlayout = 1", TableKeys::ByHost),
        ("\nlayout = 2", TableKeys::ByUserId),
        ("\nlayout = 2\nsource_identity = \"mx1\"", TableKeys::BySourceIdentity("mx1".into())),
    ] {
        let table = ReceiverKind::DynamoDb { table: "abc".into(), keys, aws: aws() };
        assert_eq!(kind(&format!("type = \"dynamodb\"\ntable = \"abc\"{lines}")), table);
    }
    let hook = "type = \"webhook\"\nurl = \"https://[2001:db8::1]/\"\nsecret_file = \"/s\"";
    let url = "https://[2001:db8::1]/".into();
    assert_eq!(kind(hook), ReceiverKind::Webhook { url, secret_file: "/s".into(), ca_file: None });
    let mail = "type = \"email\"\nfrom = \"a@example.com\"\nto = \"b@example.com\"";
    let via = |server: &str| match kind(&format!("{mail}\n{server}")) {
        ReceiverKind::Email { from, to, via } if from == "a@example.com" && to == ["b@example.com"] => via,
        other => panic!("{server}: {other:?}"),
    };
    let at = |host: &str, port| MailVia::Server { host: host.into(), port };
    for (server, want) in [
        ("", at("localhost", 25)),
        ("server = \"localhost\"", at("localhost", 25)),
        ("server = \"LocalHost:2525\"", at("localhost", 2525)),
        ("server = \"127.0.0.2\"", at("127.0.0.2", 25)),
        ("server = \"::1\"", at("::1", 25)),
        ("server = \"[::1]\"", at("::1", 25)),
        ("server = \"[::1]:587\"", at("::1", 587)),
        ("server = \"ses\"", MailVia::Ses(aws())),
    ] {
        assert_eq!(via(server), want, "{server}");
    }
    let script = "type = \"exec\"\ncommand = [\"/bin/report\"]";
    let (command, user, timeout) = (vec!["/bin/report".into()], "nobody".into(), Duration::from_secs(30));
    assert_eq!(kind(script), ReceiverKind::Exec { command, user, timeout });

    let table = |keys: &str| format!("name = \"r\"\n{keys}\n");
    let cases = |keys: &str, cases: &[(&str, &str, &str)]| in_table("[[report]]", &table(keys), cases);
    cases(
        "type = \"dynamodb\"",
        &[
            ("table = \"ab\"", "table: \"ab\" is no name of a table", "3 to 255 letters, digits and _.-"),
            ("table = \"re lay\"", "is no name of a table", "3 to 255"),
            ("table = \"relay/key\"", "is no name of a table", "3 to 255"),
            (
                "table = \"arn:aws:dynamodb:eu-west-1:111122223333:table/x\"",
                "table: this is an ARN",
                "the table's name",
            ),
            ("table = 5", "table: expected a string, found an integer", "in quotes"),
        ],
    );
    cases(
        "type = \"dynamodb\"\ntable = \"abc\"",
        &[
            ("layout = 3", "layout: there is no layout 3", "`principal` and `credential#host_id`"),
            ("source_identity = \"mx1\"", "source_identity has no effect", "set layout = 2"),
        ],
    );
    cases(
        "type = \"dynamodb\"\ntable = \"abc\"\nlayout = 2",
        &[("source_identity = \"!registry/ses\"", "cannot be a source identity", "2 to 64 letters")],
    );
    cases(
        "type = \"webhook\"\nsecret_file = \"/s\"",
        &[
            ("url = \"hooks.example.com\"", "url: this is no http or https URL", "https://HOST/PATH"),
            ("url = \"ftp://hooks.example.com\"", "no http or https URL", "https://HOST/PATH"),
            (
                "url = \"http://hooks.example.com/x\"",
                "the reports would cross the network without encryption",
                "use https",
            ),
            ("url = \"http://127.0.0.1/x\"", "without encryption", "use https"),
            ("url = \"https://me:hunter2@hooks.example.com/x\"", "a user name in the URL", "by the signature"),
            ("url = \"https:///x\"", "host or port of the URL", "https://HOST/PATH"),
            ("url = \"https://hooks.example.com:0/x\"", "host or port of the URL", "https://HOST/PATH"),
            ("url = \"https://hooks.example.com/x#part\"", "cannot be right", "https://HOST/PATH"),
            ("url = \"https://hooks.example.com/a b\"", "cannot be right", "https://HOST/PATH"),
            ("url = [\"https://hooks.example.com\"]", "url: expected a string, found a list", "one value"),
        ],
    );
    cases(
        "type = \"webhook\"\nurl = \"https://hooks.example.com\"",
        &[
            ("secret_file = \"hook.secret\"", "secret_file: \"hook.secret\" is not an absolute path", "from / on"),
            ("secret_file = \"/etc/../s\"", "has \"..\" in it", "without"),
        ],
    );
    cases(
        hook,
        &[
            ("ca_file = \"ca.pem\"", "ca_file: \"ca.pem\" is not an absolute path", "from / on"),
            // The secret itself has no place here.
            ("secret = \"whsec_hunter2\"", "unknown key \"secret\" in [[report]]", "move it to [credential.source]."),
            (
                "region = \"eu-west-1\"",
                "\"region\" does not go with type = \"webhook\"",
                "\"parameter-store\" or \"dynamodb\" or \"email\"",
            ),
            ("timeout = \"5s\"", "\"timeout\" does not go with type = \"webhook\"", "or set type = \"exec\""),
        ],
    );
    cases(
        "type = \"email\"\nfrom = \"a@example.com\"",
        &[
            ("to = []", "to: the list is empty", "name at least one address"),
            ("to = [\"b@example.com\", \"B@example.com\"]", "to: an element stands twice", "remove one"),
            ("to = [\"b\"]", "to: this is no mail address", "\"postmaster@example.com\""),
            ("to = [1]", "to: expected a string, found an integer", "in quotes"),
            ("to = \"b\"", "to: this is no mail address", "\"postmaster@example.com\""),
            ("to = \"b@example.com, c@example.com\"", "to: this is more than one mail address", "one address"),
        ],
    );
    let usage = "write \"localhost:25\", the mail server on this machine, or \"ses\"";
    cases(
        mail,
        &[
            ("server = \"smtp.example.com:25\"", "server: \"smtp.example.com:25\" is not on this machine", usage),
            ("server = \"192.0.2.1\"", "is not on this machine, and messages go there without TLS", usage),
            ("server = \"localhost:0\"", "there is no port \"0\"", usage),
            ("server = \"localhost:\"", "there is no port \"\"", usage),
            ("server = \"localhost:smtp\"", "there is no port \"smtp\"", usage),
            ("server = \"SES\"", "\"SES\" is not on this machine", usage),
            ("server = 25", "server: expected a string, found an integer", "in quotes"),
            (
                "region = \"eu-west-1\"",
                "region has no effect: the messages go to a mail server",
                "or set server = \"ses\"",
            ),
            ("role_arn = \"arn:aws:iam::111122223333:role/r\"", "role_arn has no effect", "remove role_arn"),
            ("path = \"/relaykey\"", "\"path\" does not go with type = \"email\"", "or set type = \"parameter-store\""),
            ("password = \"hunter2\"", "unknown key \"password\"", "no login stands in this file"),
        ],
    );
    // With a mistake in `server`, it is not known whether the others have an effect.
    let text = format!("[[report]]\n{}server = \"sess\"\nregion = \"eu-west-1\"", table(mail));
    assert_eq!(findings(&changed(RELOAD, &text).0).len(), 1);
    let usage = "write a list, the program's full path first";
    cases(
        "type = \"exec\"",
        &[
            ("command = \"/bin/report --fleet\"", "command: a command is no string: nothing here splits it", usage),
            ("command = []", "command: the list is empty", usage),
            ("command = [\"report\"]", "the program \"report\" is not an absolute path", usage),
            ("command = [\"~/report\"]", "is not an absolute path", usage),
            ("command = [1]", "command: expected a string, found an integer", "in quotes"),
            ("command = true", "command: expected a list of strings, found a boolean", usage),
            ("command = [\"/bin/report\", \"a\\u0000\"]", "control character", "remove it"),
        ],
    );
    cases(
        script,
        &[
            ("user = \"root\"", "user: \"root\" cannot be the user that a report is handed to", "\"nobody\""),
            ("user = \"0\"", "\"0\" cannot be the user", "a user without rights"),
            ("user = \"1000\"", "\"1000\" cannot be the user", "a user without rights"),
            ("user = \"no body\"", "\"no body\" is no user name", "a user of this host"),
            ("user = \"-x\"", "is no user name", "a user of this host"),
            ("user = 0", "user: expected a string, found an integer", "in quotes"),
            ("timeout = \"0s\"", "timeout: \"0s\" is out of bounds", "from 1s to 5m"),
            ("timeout = \"6m\"", "timeout: \"6m\" is out of bounds", "from 1s to 5m"),
            ("timeout = 30", "timeout: expected a string, found an integer", "\"10s\""),
            (
                "endpoint_url = \"https://x\"",
                "\"endpoint_url\" does not go with type = \"exec\"",
                "\"parameter-store\"",
            ),
        ],
    );
    cases(
        "",
        &[(
            "type = \"sns\"",
            "type: \"sns\" is not known",
            "Allowed here: \"parameter-store\", \"dynamodb\", \"webhook\", \"email\", \"exec\"",
        )],
    );
    cases("", &[("type = \"web-hook\"", "\"web-hook\" is not known", "did you mean \"webhook\"?")]);

    // What is missing is said on the header's line.
    for (keys, key) in [
        ("type = \"dynamodb\"", "table"),
        ("type = \"webhook\"\nsecret_file = \"/s\"", "url"),
        ("type = \"webhook\"\nurl = \"https://hooks.example.com\"", "secret_file"),
        ("type = \"email\"\nto = \"b@example.com\"", "from"),
        ("type = \"email\"\nfrom = \"a@example.com\"", "to"),
        ("type = \"exec\"", "command"),
    ] {
        let (what, fix) = (format!("{key} is missing in [[report]]"), format!("add {key} = "));
        one(Severity::Error, RELOAD, &format!("[[report]]\n{}", table(keys)), 0, &what, &fix);
    }

    // Two that hold one document per host must not hold the same; others may be there twice.
    let two = |a: &str, b: &str| {
        findings(&changed(RELOAD, &format!("[[report]]\nname = \"a\"\n{a}\n[[report]]\nname = \"b\"\n{b}")).0)
    };
    let dynamo = "type = \"dynamodb\"\ntable = \"relaykey\"";
    let found = two(dynamo, dynamo);
    let [same] = found.as_slice() else { panic!("{found:#?}") };
    assert_eq!((same.line, same.what.as_str()), (Some(31), "table: the receiver on line 24 writes the same items"));
    assert!(same.fix.contains("different `table` or `credentials`"), "{same:?}");
    assert_eq!(two(dynamo, &dynamo.replace("relaykey", "other")), []);
    assert_eq!(two(dynamo, &format!("{dynamo}\nregion = \"us-east-1\"")), []);
    for twice in [hook, mail, script] {
        assert_eq!(two(twice, twice), [], "{twice}");
    }

    // What may be a secret, or names a person, is not repeated.
    for keys in [
        "type = \"webhook\"\nsecret_file = \"/s\"\nurl = \"https://me:hunter2@x\"",
        "type = \"webhook\"\nsecret_file = \"/s\"\nurl = \"http://x/hunter2\"",
        "type = \"email\"\nfrom = \"hunter2\"\nto = [\"hunter2 <b@example.com>\"]",
        "type = \"exec\"\ncommand = \"/bin/report --token hunter2\"",
    ] {
        let (text, _) = changed(RELOAD, &format!("[[report]]\nname = \"r\"\n{keys}"));
        let found = findings(&text);
        let said = format!("{found:?}{}", render_text(&found, Path::new("c"), Some(&text)));
        assert!(!said.contains("hunter2"), "{said}");
    }
}

#[test]
fn paths_and_names() {
    errors(&[
        (TARGET_DIR, "config_dir = \"postfix\"", "\"postfix\" is not an absolute path", "from / on"),
        (TARGET_DIR, "config_dir = \"~/postfix\"", "only a shell replaces", "from / on"),
        (TARGET_DIR, "config_dir = \"/etc/../postfix\"", "has \"..\" in it", "without"),
        (TIMEOUT, "ca_file = \"ca.pem\"", "ca_file: \"ca.pem\" is not an absolute path", "from / on"),
        ("state_dir = \"/var/lib/relaykey\"", "state_dir = \"lib\"", "state_dir: \"lib\" is not", "from / on"),
        ("run_dir = \"/run/relaykey\"", "run_dir = \"/var/lib/relaykey\"", "the same directory", "each its own"),
        ("name = \"ses\"", "name = \"SES\"", "\"SES\" cannot be a name", "lower case"),
        ("name = \"ses\"", "name = \"-a\"", "cannot be a name", "first one no -"),
        ("name = \"ses\"", "name = \"a/b\"", "cannot be a name", "lower case"),
        (TARGET_DIR, "name = \"Main\"", "\"Main\" cannot be a name", "lower case"),
    ]);
    let (old, new) = ("state_dir = \"/var/lib/relaykey\"", "state_dir = \"/run/state\"");
    one(Severity::Warning, old, new, 0, "/run/state is empty after a boot", "on disk");
    let volatile = changed(old, "state_dir = \"/running\"").0;
    assert_eq!(findings(&volatile), [], "a directory whose name only begins like /run");
}

#[test]
fn reloads_keys_and_choices() {
    errors(&[
        (RELOAD, "reload = \"allways\"", "\"allways\" is not known", "did you mean \"always\"?"),
        (RELOAD, "reload = \"systemctl reload postfix\"", "a command is no string", "write a list"),
        (RELOAD, "reload = []", "the list is empty", "full path first"),
        (
            RELOAD,
            "reload = [\"systemctl\", \"reload\"]",
            "the program \"systemctl\" is not an absolute path",
            "full path first",
        ),
        (RELOAD, "reload = [\"/bin/x\", \"a\\u0000\"]", "control character", "remove it"),
        (RELOAD, "drift = \"fix\"", "\"fix\" is not known", "\"heal\", \"report\""),
        (RELOAD, "keys = []", "keys: the list is empty", "leave `keys` out"),
        (RELOAD, "keys = [\"#a\"]", "\"#a\" cannot be a lookup key", "as it stands in the table"),
        (RELOAD, "write = \"yes\"", "expected a boolean", "true or false"),
        ("type = \"postfix\"", "type = \"postfx\"", "\"postfx\" is not known", "did you mean \"postfix\"?"),
        (KIND, "type = \"secretsmanager\"", "\"secretsmanager\" is not known", "did you mean \"secrets-manager\"?"),
        (
            "mode = \"automatic\"",
            "mode = \"auto\"",
            "mode: \"auto\" is not known",
            "Allowed here: \"automatic\", \"manual\"",
        ),
        ("mode = \"automatic\"", "mode = \"manuel\"", "not known", "did you mean \"manual\"?"),
        (STAGE, "stage = []", "stage: the list is empty", "leave `stage` out"),
        (STAGE, "stage = [\"A\", \"A\"]", "stands twice", "remove one"),
        (STAGE, "stage = \"A B\"", "no staging label", "AWSCURRENT"),
    ]);
    one(
        Severity::Error,
        STAGE,
        "username_key = \"k\"\npassword_key = \"k\"",
        1,
        "name the same key",
        "name the key of",
    );
}

#[test]
fn arns_and_names_at_aws() {
    errors(&[
        (
            SECRET,
            "secret = \"arn:aws:secretsmanager:eu-west-1:secret:x\"",
            "the ARN is not complete",
            "arn:aws:secretsmanager:eu-west-1:111122223333:secret:",
        ),
        (
            SECRET,
            "secret = \"arn:aws:ssm:eu-west-1:111122223333:parameter/x\"",
            "an ARN of \"ssm\", not of \"secretsmanager\"",
            "type = \"parameter-store\"",
        ),
        (SECRET, "secret = \"arn:aws:s3:eu-west-1:111122223333:x\"", "an ARN of \"s3\"", "write one like"),
        (SECRET, "secret = \"arn:aws:secretsmanager::111122223333:secret:x\"", "names no region", "write it like"),
        (
            SECRET,
            "secret = \"arn:aws:secretsmanager:eu-west-1:111122223333:other:x\"",
            "something else",
            "write one like",
        ),
        (SECRET, "secret = \"AKIAEXAMPLE:hunter2\"", "no name of a secret", "not what it holds"),
        (
            "use_fips = false",
            "role_arn = \"relaykey\"",
            "\"relaykey\" is not an ARN",
            "arn:aws:iam::111122223333:role/",
        ),
        (
            "use_fips = false",
            "role_arn = \"arn:aws:iam::111122223333:user/x\"",
            "not the ARN of an IAM role",
            "role/relaykey",
        ),
        ("use_fips = false", "external_id = \"abc\"", "external_id has no effect without role_arn", "add role_arn"),
        ("use_fips = false", "endpoint_url = \"http://vpce.example.com\"", "without encryption", "use https"),
        ("use_fips = false", "endpoint_url = \"vpce.example.com\"", "no http or https URL", "https://HOST"),
        ("use_fips = false", "endpoint_url = \"https://\"", "host or port", "https://HOST"),
        ("use_fips = false", "proxy = \"proxy:3128\"", "no http or https URL", "http://HOST:PORT"),
        (
            "use_fips = false",
            "proxy = \"http://me:hunter2@proxy:3128\"",
            "a user name in the URL",
            "no secret stands in this file",
        ),
        ("use_fips = false", "proxy = \"http://proxy:99999\"", "host or port", "http://HOST:PORT"),
    ]);
    let role = "role_arn = \"arn:aws:iam::111122223333:role/r\"\nexternal_id = \"a b\"";
    one(Severity::Error, "use_fips = false", role, 1, "no external id", "letters, digits");
    let fips = "use_fips = true\nendpoint_url = \"https://x\"";
    one(Severity::Error, "use_fips = false", fips, 1, "cannot go with use_fips", "remove endpoint_url");
    for url in ["http://127.0.0.1:5000", "http://localhost:5000/", "http://[::1]:5000", "https://vpce.example.com"] {
        assert_eq!(findings(&changed("use_fips = false", &format!("endpoint_url = {url:?}")).0), [], "{url}");
    }

    let parameter = |value: &str| {
        let (text, line) = changed(SECRET, &format!("parameter = {value:?}"));
        (findings(&text.replace(KIND, "type = \"parameter-store\"").replace(STAGE, "")), line)
    };
    for value in ["/ses/smtp", "ses-smtp", "arn:aws:ssm:eu-west-1:111122223333:parameter/ses/smtp"] {
        assert_eq!(parameter(value).0, [], "{value}");
    }
    for (value, what, fix) in [
        ("ses/smtp", "begins with one", "write \"/ses/smtp\""),
        ("/ses/smtp:3", "a version or label follows", "goes into `label`"),
        ("arn:aws:ssm:eu-west-1:111122223333:parameter/ses:prod", "a version or label follows", "`label`"),
        (
            "arn:aws:secretsmanager:eu-west-1:111122223333:secret:x",
            "an ARN of \"secretsmanager\"",
            "type = \"secrets-manager\"",
        ),
        ("AKIAEXAMPLE:hunter2", "no name of a parameter", "not what it holds"),
        ("/ses/", "no name of a parameter", "name"),
    ] {
        let (found, line) = parameter(value);
        let [finding] = found.as_slice() else { panic!("{value}: {found:#?}") };
        assert_eq!(finding.line, Some(line));
        assert!(finding.what.contains(what) && finding.fix.contains(fix), "{value}: {finding:?}");
        assert!(!format!("{finding:?}").contains("hunter2"));
    }
    for label in ["3", "awsx", "SSM-x", "a b"] {
        let (text, _) = changed(SECRET, &format!("parameter = \"p\"\nlabel = {label:?}"));
        let found = findings(&text.replace(KIND, "type = \"parameter-store\"").replace(STAGE, ""));
        assert!(found[0].what.contains("cannot be a label"), "{label}: {found:?}");
    }
}

#[test]
fn an_arns_region_wins() {
    let arn = "secret = \"arn:aws:secretsmanager:us-east-1:111122223333:secret:x-AbCdEf\"";
    one(Severity::Note, SECRET, arn, 0, "[aws] region is \"eu-west-1\", but the ARN names \"us-east-1\"", "nothing");
    let own = format!("{arn}\nregion = \"eu-central-1\"");
    one(Severity::Warning, SECRET, &own, 1, "region is \"eu-central-1\", but the ARN names", "remove `region`");
    for text in [changed(SECRET, arn).0, changed(SECRET, &own).0, changed(SECRET, arn).0.replace(AWS_REGION, "")] {
        let (config, _) = parse(&text).expect("a good configuration");
        let SourceConfig::SecretsManager { aws, .. } = &config.credentials[0].source else { panic!("{config:?}") };
        assert_eq!(aws.region.as_deref(), Some("us-east-1"));
    }
}

#[test]
fn a_targets_overrides() {
    let smtp = |override_: &str| {
        let text = changed(RELOAD, override_).0;
        parse(&text).map(|(mut config, _)| config.credentials.remove(0).targets.remove(0).smtp).map_err(|f| (f, text))
    };
    let base = good().credentials.remove(0).targets.remove(0).smtp;
    let own = smtp("endpoint = \"email-smtp.us-east-1.amazonaws.com\"\nport = 2587").unwrap();
    assert_eq!(own, Smtp { endpoint: "email-smtp.us-east-1.amazonaws.com".into(), port: 2587, ..base.clone() });
    let own = smtp("tls = \"implicit\"").unwrap();
    assert_eq!(
        own,
        Smtp { port: 465, tls: Tls::Implicit, ..base.clone() },
        "a port of the other kind is not taken over"
    );
    let (found, _) = smtp("region = \"us-east-1\"").unwrap_err();
    assert_eq!((found.len(), found[0].line), (1, Some(24)), "{found:?}");
    let (found, _) = smtp("port = 465").unwrap_err();
    assert_eq!((found.len(), found[0].line), (1, Some(24)), "{found:?}");

    // Aliases, and a region that the new endpoint's name replaces, belong to the other endpoint.
    let text =
        changed(ENDPOINT, "endpoint = \"relay.example.com\"\nregion = \"eu-west-1\"\nendpoint_aliases = [\"r\"]").0;
    let text = text.replace(RELOAD, "endpoint = \"email-smtp.us-east-1.amazonaws.com\"");
    let (config, findings) = parse(&text).expect("a good configuration");
    assert_eq!(findings, []);
    let own = &config.credentials[0].targets[0].smtp;
    assert_eq!((own.region.as_deref(), own.endpoint_aliases.len()), (None, 0));
}

#[test]
fn further_regions() {
    let also = |lines: &str| format!("{TIMEOUT}\n[[credential.smtp.also]]\n{lines}");
    let of = |lines: &str, target: &str| {
        let text = changed(TIMEOUT, &also(lines)).0.replace(RELOAD, target);
        let (mut config, findings) = parse(&text).unwrap_or_else(|found| panic!("{found:#?}"));
        assert_eq!(findings, []);
        config.credentials.remove(0).targets.remove(0).smtp
    };
    const EAST: &str = "endpoint = \"email-smtp.us-east-1.amazonaws.com\"";
    let base = good().credentials.remove(0).targets.remove(0).smtp;
    let own = of(&format!("{EAST}\nport = 2587\nendpoint_aliases = [\"r\"]"), RELOAD);
    let east = Smtp {
        endpoint: "email-smtp.us-east-1.amazonaws.com".into(),
        port: 2587,
        endpoint_aliases: vec!["r".into()],
        ..base.clone()
    };
    assert_eq!(own, Smtp { also: vec![east.clone()], ..base.clone() }, "the rest is as in [credential.smtp]");
    // A name of one's own needs its region.
    let own = of("endpoint = \"relay.example.com\"\nregion = \"us-east-1\"", RELOAD);
    assert_eq!(own.also[0].ses_region().as_deref(), Some("us-east-1"));
    // A target's own endpoint is the default one there, and the other a further one.
    let own = of(EAST, EAST);
    let regions: Vec<Option<String>> = own.endpoints().map(Smtp::ses_region).collect();
    assert_eq!(regions, [Some("us-east-1".into()), Some("eu-west-1".into())]);

    for (lines, below, what, fix) in [
        ("region = \"us-east-1\"", 1, "endpoint is missing in [[credential.smtp.also]]", "add endpoint = "),
        (
            &*format!("{EAST}\ntimeout = \"5s\""),
            3,
            "unknown key \"timeout\" in [[credential.smtp.also]]",
            "endpoint, port",
        ),
        (ENDPOINT, 2, "each region stands once", "remove this one"),
        (
            "endpoint = \"email-smtp-fips.eu-west-1.amazonaws.com\"",
            2,
            "each region stands once",
            "add \"email-smtp-fips.",
        ),
        (
            &format!("{EAST}\n[[credential.smtp.also]]\n{EAST}"),
            4,
            "on line 22: each region stands once",
            "remove this one",
        ),
        ("endpoint = \"relay.example.com\"", 2, "the region of \"relay.example.com\" is not known", "add region = "),
        (
            &format!("{EAST}\nendpoint_aliases = [\"email-smtp.ap-south-1.amazonaws.com\"]"),
            3,
            "is SES in ap-south-1, and the endpoint is SES in us-east-1",
            "[[credential.smtp.also]] with endpoint = \"email-smtp.ap-south-1.amazonaws.com\"",
        ),
        (
            &format!(
                "{EAST}\nendpoint_aliases = [\"r\"]\n[[credential.smtp.also]]\nendpoint = \"r\"\nregion = \"ap-south-1\""
            ),
            5,
            "\"r\" is a name of this endpoint and of the one on line 22",
            "keep it at one",
        ),
    ] {
        one(Severity::Error, TIMEOUT, &also(lines), below, what, fix);
    }
    errors(&[(
        TIMEOUT,
        "endpoint_aliases = [\"email-smtp.us-east-1.amazonaws.com\"]",
        "each region has a password of its own",
        "add [[credential.smtp.also]] with endpoint = \"email-smtp.us-east-1.amazonaws.com\"",
    )]);
    // Of the endpoint itself the region must be known then, too.
    let text = changed(ENDPOINT, "endpoint = \"relay.example.com\"").0.replace(TIMEOUT, &also(EAST));
    let found = findings(&text);
    assert_eq!((found.len(), found[0].line), (1, Some(17)), "{found:#?}");
    assert!(found[0].fix.contains("add region = ") && found[0].fix.contains("[credential.smtp]"), "{found:#?}");
    // Two targets of one instance meet there as well.
    let text = changed(TIMEOUT, &also(EAST)).0 + "[[credential.target]]\ntype = \"postfix\"\n" + EAST + "\n";
    assert!(findings(&text)[0].what.contains("would write the same entries"));
}

#[test]
fn names_stand_once() {
    let text =
        GOOD.to_owned() + &GOOD[GOOD.find("[[credential]]").unwrap()..].replace("/etc/postfix", "/etc/postfix-2");
    let found = findings(&text);
    let [finding] = found.as_slice() else { panic!("{found:#?}") };
    assert_eq!(finding.line, Some(26));
    assert!(finding.what.contains("the credential on line 10 is called \"ses\" too"), "{finding:?}");

    let line = "config_version = 1\n[[credential]]\nname = \"a\"\nsource = { type = \"file\", path = \"/x\" }\n\
                smtp = { endpoint = \"e\" }\ntarget = [{ type = \"postfix\", name = \"t\" }, \
                { type = \"postfix\", name = \"t\", config_dir = \"/b\" }]\n";
    let found = findings(line);
    assert_eq!((found.len(), found[0].line), (1, Some(6)), "{found:#?}");
    let more = "name = \"main\"\n[[credential.target]]\ntype = \"postfix\"\nconfig_dir = \"/x\"\nname = \"main\"";
    one(Severity::Error, RELOAD, more, 4, "the target on line 24 is called \"main\" too", "a name of its own");
}

#[test]
fn two_targets_do_not_share_entries() {
    let two = |first: &str, second: &str| {
        let more = format!("{first}\n[[credential.target]]\ntype = \"postfix\"\n{second}");
        findings(&changed(RELOAD, &more).0)
    };
    for (first, second) in [
        ("", "config_dir = \"/etc/postfix/\""),
        ("keys = [\"a\"]", ""),
        ("keys = [\"a\"]", "keys = [\"b\", \"A\"]"),
        ("keys = [\"a\"]", "keys = [\"a\"]\nendpoint = \"other.example.com\""),
        ("", "endpoint = \"EMAIL-SMTP.eu-west-1.amazonaws.com\""),
    ] {
        let found = two(first, second);
        let [finding] = found.as_slice() else { panic!("{first:?} {second:?}: {found:#?}") };
        assert_eq!(finding.line, Some(25), "{finding:?}");
        assert!(
            finding.what.contains("target ses/postfix-2 would write the same entries of /etc/postfix"),
            "{finding:?}"
        );
        assert!(finding.what.contains("as target ses/postfix on line 21"), "{finding:?}");
        assert!(finding.fix.contains("different config_dir or endpoint"), "{finding:?}");
    }
    for (first, second) in [
        ("", "config_dir = \"/etc/postfix-2\""),
        ("", "endpoint = \"other.example.com\""),
        ("keys = [\"a\"]", "keys = [\"b\"]"),
    ] {
        assert_eq!(two(first, second), [], "{first:?} {second:?}");
    }
    // In two credentials.
    let second = GOOD[GOOD.find("[[credential]]").unwrap()..].replace("\"ses\"", "\"two\"");
    let found = findings(&(GOOD.to_owned() + &second));
    assert_eq!(found.len(), 1, "{found:#?}");
    assert!(found[0].what.contains("target two/postfix would") && found[0].what.contains("ses/postfix on line 21"));
    assert_eq!(found[0].line, Some(37));
}

#[test]
fn syntax_errors() {
    errors(&[
        ("name = \"ses\"", "name = ses", "does not stand in quotes", "straight double quotes"),
        ("name = \"ses\"", "name = false_name", "does not stand in quotes", "straight double quotes"),
        ("name = \"ses\"", "name = “ses”", "typographic", "straight quotes"),
        ("name = \"ses\"", "name =", "the key has no value", "write a value"),
        ("name = \"ses\"", "name = \"ses", "does not end on its line", "close the quotes"),
        ("name = \"ses\"", "name = 'ses", "does not end on its line", "close the quotes"),
        ("name = \"ses\"", "name \"ses\"", "no `=` on the line", "write key = value"),
        ("name = \"ses\"", "name == \"ses\"", "more than one `=`", "one `=`"),
        ("name = \"ses\"", "name = \"ses\" \"x\"", "something follows the value", "one key to a line"),
        ("name = \"ses\"", "name = \"a\\qb\"", "a backslash", "write \\\\"),
        ("use_fips = false", "use_fips = False", "neither true nor false", "in lower case"),
        ("mode = \"automatic\"", "name = \"x\"", "stands twice", "keep one"),
        (TARGET_DIR, "config_dir = /etc/postfix", "does not stand in quotes", "straight double quotes"),
        ("[host]", "[host", "header does not end", "end it with ]"),
        ("[[credential]]", "[[credential]", "two brackets", "end it with ]]"),
        (RELOAD, "[aws]", "the table stands twice", "keep one"),
        (RELOAD, "keys = [\"a\"", "a list does not end", "put ] after"),
        (RELOAD, "a = {b = 1", "this is not TOML", "toml.io"),
        (RELOAD, "keys = \"\"\"[a", "three quotes does not end", "three quotes"),
        (RELOAD, "on two words = 1", "no `=` on the line", "write key = value"),
    ]);
    let unclosed = "stage = [\"a\"\nregion = \"eu-west-1\"";
    one(Severity::Error, STAGE, unclosed, 1, "a list does not end, or a comma is missing", "commas between");
    let (text, line) = changed("[credential.smtp]", "[credential]\nname = \"b\"\n[credential.smtp]");
    let found = findings(&text);
    assert_eq!((found[0].line, found[0].what.contains("stands twice")), (Some(line), true), "{found:#?}");
    let found = findings("config_version = 1\n[credential.source]\ntype = \"file\"\n[[credential]]\nname = \"x\"\n");
    assert_eq!(found.len(), 1, "{found:#?}");
    assert!(found[0].line == Some(4) && found[0].fix.contains("put [[credential]] first"), "{found:?}");
    let found = findings("config_version = 1\n[credential]\nname = \"x\"\n[credential]\nname = \"y\"\n");
    assert!(found[0].line == Some(4) && found[0].fix.contains("[[credential]]"), "{found:?}");
}

#[test]
fn syntax_errors_do_not_hide_other_mistakes() {
    let (text, _) = changed("name = \"ses\"", "name = ses");
    let text =
        text.replace("port = 587", "port = \"x\"").replace("reload = ", "reoad = ").replace(TIMEOUT, "timeout \"1s\"");
    let found = findings(&text);
    let lines: Vec<_> = found.iter().filter_map(|f| f.line).collect();
    assert_eq!(lines, [10, 18, 20, 24], "{found:#?}");
    // A key whose line could not be read is not reported as missing.
    let found = findings(&changed(ENDPOINT, "endpoint email-smtp.eu-west-1.amazonaws.com").0);
    assert_eq!(found.iter().filter_map(|f| f.line).collect::<Vec<_>>(), [17], "{found:#?}");
}

#[test]
fn nothing_panics() {
    let mut tried = 0;
    for end in (0..=EXAMPLE.len()).filter(|end| EXAMPLE.is_char_boundary(*end)) {
        tried += 1;
        match parse(&EXAMPLE[..end]) {
            Ok((config, _)) => assert!(!config.credentials.is_empty()),
            Err(found) => whole(&found, &EXAMPLE[..end]),
        }
    }
    assert!(tried > 1000);
    for source in [GOOD, EXAMPLE] {
        let lines: Vec<&str> = source.lines().collect();
        for left_out in 0..lines.len() {
            let text: Vec<&str> = lines.iter().enumerate().filter(|(i, _)| *i != left_out).map(|(_, l)| *l).collect();
            if let Err(found) = parse(&text.join("\r\n")) {
                whole(&found, &text.join("\r\n"));
            }
        }
    }
}

#[test]
fn large_nonsense_is_refused_in_reasonable_time() {
    let names: String = (0..40_000).map(|n| format!("\"key {n}\",\n")).collect();
    let credentials: String = (0..20_000).map(|n| format!("[[credential]]\nname = \"c{n}\"\n")).collect();
    for text in [
        "a\n".repeat(200_000),
        "a = b\n".repeat(100_000),
        "[".repeat(MAX_FILE as usize),
        changed(RELOAD, &format!("keys = [\n{names}]")).0,
        format!("config_version = 1\n{credentials}"),
        format!("{GOOD}{}", "[[credential.target]]\n".repeat(20_000)),
    ] {
        let start = std::time::Instant::now();
        whole(&findings(&text), &text);
        assert!(start.elapsed() < Duration::from_secs(20), "{:?}: {:?}", &text[..20], start.elapsed());
    }
}

/// Every finding of a refused file has its line, its words and its fix, and one of them is an error.
fn whole(found: &[Finding], text: &str) {
    assert!(found.iter().any(|f| f.severity == Severity::Error), "{text:?}");
    let lines = text.lines().count().max(1);
    for f in found {
        assert!(f.line.is_some_and(|line| (1..=lines).contains(&line)), "{f:?} of {lines} lines");
        assert!(!f.what.is_empty() && !f.fix.is_empty(), "{f:?}");
    }
    render_text(found, Path::new("config.toml"), Some(text));
}

proptest::proptest! {
    // The same texts every time, so that a red test stays red.
    #![proptest_config(ProptestConfig {
        rng_seed: RngSeed::Fixed(1),
        failure_persistence: None,
        cases: 512,
        ..Default::default()
    })]

    /// Lines of a good file in any order, some of them damaged: refused or accepted, never a panic.
    #[test]
    fn shuffled_and_damaged_files_do_not_panic(
        picks in proptest::collection::vec((0..24usize, 0..12usize, proptest::char::any()), 1..30)
    ) {
        let lines: Vec<&str> = GOOD.lines().collect();
        let mut text = String::new();
        for (line, damage, c) in picks {
            let mut line = lines[line].to_owned();
            if damage == 0 {
                line.pop();
            } else if damage == 1 {
                line.insert(line.len() / 2, c);
            }
            text.push_str(&line);
            text.push('\n');
        }
        if let Err(found) = parse(&text) {
            whole(&found, &text);
        }
    }

    #[test]
    fn any_text_does_not_panic(text in proptest::string::string_regex("[\\[\\]{}=\"'#,.a-c0-9\\n \\\\]{0,60}").unwrap()) {
        if let Err(found) = parse(&text) {
            whole(&found, &text);
        }
    }
}

#[test]
fn findings_for_people() {
    let (text, _) = changed(STAGE, "password = \"hunter2\"");
    let text = text.replace(ENDPOINT, "endpoint = \"[smtp.example.com]\"  # see \u{1b}[31mticket");
    let text = text.replace("[credential.smtp]", "[credential.smtp] # here");
    let text = text.replace(SECRET, "secret = \"AKIAEXAMPLE:hunter2\"");
    let found = findings(&text);
    let out = render_text(&found, Path::new("/etc/relaykey/config.toml"), Some(&text));
    let want = "\
/etc/relaykey/config.toml:14: error: secret: this is no name of a secret: it has at most 512 letters, digits and /_+=.@-
    secret = …
  fix: write the secret's name, or its ARN like arn:aws:secretsmanager:eu-west-1:111122223333:secret:NAME-AbCdEf; not what it holds
/etc/relaykey/config.toml:15: error: unknown key \"password\" in [credential.source]
    password = …
  fix: remove it: no login stands in this file, the source holds it (to name the keys of a JSON secret there are username_key and password_key)
";
    assert!(out.starts_with(want), "{out}");
    assert!(!out.contains("hunter2"));
    assert!(!out.contains('\u{1b}'));
}

#[test]
fn what_of_a_line_is_quoted() {
    for (line, want) in [
        ("  port = \"587\" # why", Some("port = \"587\"")),
        ("name = \"a#b\" # password is hunter2", Some("name = \"a#b\"")),
        ("[credential.smtp] # secret", Some("[credential.smtp]")),
        ("smtp.port = 5", Some("smtp.port = 5")),
        ("\"port\" = 5", Some("\"port\" = 5")),
        ("password = \"hunter2\"", Some("password = …")),
        ("secret = \"hunter2\"", Some("secret = …")),
        ("source = { secret = \"hunter2\" }", Some("source = …")),
        ("proxy = \"http://a:hunter2@p\"", Some("proxy = …")),
        ("endpoint = \"a:hunter2@p\"", Some("endpoint = …")),
        ("keys = [\"@example.com\"]", Some("keys = [\"@example.com\"]")),
        ("endpoint \"x\"", Some("endpoint \"x\"")),
        ("hunter2", None),
        ("password hunter2", None),
        ("", None),
        ("name =\t5\u{7}", Some("name = 5\\u{7}")),
        ("port = \"hunter2\"", Some("port = …")),
    ] {
        assert_eq!(relaykey_core::config::quotable(line, &SCHEMA).as_deref(), want, "{line:?}");
    }
}

/// People put what they have at hand into the wrong key.
#[test]
fn what_may_be_a_secret_is_not_quoted() {
    const SECRET: &str = "ZqSecretPw77";
    let pair = format!("AKIAIOSFODNN7EXAMPLE:{SECRET}");
    let with = |more: &str, in_source: &str| {
        format!(
            "config_version = 1\n{more}[[credential]]\nname = \"ses\"\n[credential.source]\ntype = \"file\"\n{in_source}\n\
             [credential.smtp]\nendpoint = \"localhost\"\n[[credential.target]]\ntype = \"postfix\"\n"
        )
    };
    let path = "path = \"/x\"";
    let texts = [
        with("", &format!("path = {pair:?}")),
        with("", &format!("{path}\nowner = {pair:?}")),
        with("", &format!("{path}\npoll = {pair:?}")),
        with("", &format!("{path}\n{pair:?} = 1")),
        with(&format!("{pair:?} = 1\n"), path),
        with(&format!("[health]\nlisten = [\"u:{SECRET}@127.0.0.1:9\"]\n"), path),
        with("", path).replace("\"ses\"", &format!("{pair:?}")),
        with("", path).replace("name = \"ses\"", &format!("name = \"ses\"\nmode = {pair:?}")),
        with("", path).replace("\"localhost\"", &format!("\"localhost\"\nendpoint_aliases = [{pair:?}]")),
        with("", path).replace("\"localhost\"", &format!("\"{pair}@localhost\"")),
        with("", path) + &format!("keys = [\"[localhost]:587 {pair}\"]\n"),
        with(
            &format!(
                "[[report]]\nname = \"w\"\ntype = \"email\"\nfrom = \"a@b.c\"\nto = [\"a@b.c\"]\nserver = \"u:{SECRET}@localhost:25\"\n"
            ),
            path,
        ),
        with(
            &format!(
                "[[report]]\nname = \"w\"\ntype = \"webhook\"\nurl = \"https://x.example/\"\nsecret_file = {pair:?}\n"
            ),
            path,
        ),
    ];
    for text in texts {
        let found = findings(&text);
        assert!(!found.is_empty(), "{text}");
        assert!(!format!("{found:?}").contains(SECRET), "{text}: {found:?}");
    }
}

/// Nor does the line that is shown below a finding, or what is said of a value that is one of a few words.
#[test]
fn a_secret_in_the_wrong_key_is_not_shown_below_the_finding() {
    let secrets = [
        "ZqSecretPw77xQ",
        "SG.ZqAbCd12efGH34ijKL56.mnOP78qrST90uvWX12yzAB34",
        "0a1b2c3d4e5f60718293a4b5c6d7e8f9",
        "0a1b2c3d4e5f60718293a4b5c6d7e8f9-12345678-9abcdef0",
        "Zq$kretzq!Pw77",
        "20260131202601",
    ];
    let no_login = |line: &str| format!("{line} # of the relay: apikey:ZqSecretPw77xQ");
    for secret in secrets {
        let pair = format!("apikey:{secret}");
        let mut cases = vec![
            (ENDPOINT, format!("endpoint = {pair:?}")),
            (ENDPOINT, format!("endpoint = '{pair}'")),
            (ENDPOINT, format!("{ENDPOINT}\nendpoint_aliases = [{pair:?}]")),
            (ENDPOINT, format!("{ENDPOINT}\nendpoint_aliases = [\n  {pair:?},\n  [{pair:?}],\n]")),
            ("mode = \"automatic\"", format!("mode = \"automatic\"\nmode = {pair:?}")),
            ("mode = \"automatic\"", format!("mode = {pair}")),
            ("mode = \"automatic\"", format!("mode = automatic {secret}")),
            ("mode = \"automatic\"", format!("mode = {secret:?}")),
            ("mode = \"automatic\"", format!("{pair:?}.mode = 5")),
            (RELOAD, format!("reload = {secret:?}")),
            (RELOAD, format!("[{pair:?}]")),
            (RELOAD, format!("keys = [\"[localhost]:587:{secret}\", 5]")),
            (RELOAD, no_login("reload = \"allways\"")),
            ("type = \"postfix\"", format!("type = {secret:?}")),
            ("type = \"secrets-manager\"", format!("type = {secret:?}")),
            ("port = 587", format!("port = {secret:?}")),
            ("port = 587", format!("port = {pair:?}")),
            (TIMEOUT, format!("timeout = {secret:?}")),
            (TIMEOUT, format!("{secret:?} = 1")),
            ("name = \"ses\"", format!("name = {pair:?}")),
            (STAGE, format!("{STAGE}\nowner = {pair:?}")),
        ];
        if !secret.bytes().all(|b| b.is_ascii_digit()) {
            // What has the form of a number is one.
            cases.push((TIMEOUT, format!("{TIMEOUT}\nca_file = {secret:?}")));
            cases.push(("port = 587", format!("port = {secret}")));
            cases.push(("name = \"mx1.example.com\"", format!("name = \"{secret}:25\"")));
        }
        for (old, new) in cases {
            let (text, _) = changed(old, &new);
            let found = findings(&text);
            let out = render_text(&found, Path::new("/c"), Some(&text));
            assert!(!found.is_empty(), "{new}");
            for part in secret.split(['.', '-', '$', '!']).filter(|part| part.len() >= 4) {
                assert!(!out.contains(part), "{new}: {out}");
            }
        }
    }
    // One word in lower case, with digits: where one of a few words is expected it is none of them.
    let word = "zqsecretword77";
    for (old, new) in [
        ("mode = \"automatic\"", format!("mode = {word:?}")),
        ("mode = \"automatic\"", format!("mode = automatic {word}")),
        (RELOAD, format!("reload = {word:?}")),
        ("type = \"postfix\"", format!("type = {word:?}")),
        ("port = 587", format!("port = {word:?}")),
        (TIMEOUT, format!("timeout = {word:?}")),
        (TIMEOUT, format!("{word} = 1")),
        (TIMEOUT, format!("[{word}]")),
    ] {
        let (text, _) = changed(old, &new);
        let out = render_text(&findings(&text), Path::new("/c"), Some(&text));
        assert!(out.contains("error") && !out.contains(word), "{new}: {out}");
    }
    // A slip of the pen is shown as it stands.
    for (old, new) in
        [(RELOAD, "reload = \"allways\""), ("port = 587", "port = 70000"), ("name = \"ses\"", "name = \"Ses\"")]
    {
        let (text, line) = changed(old, new);
        let out = render_text(&findings(&text), Path::new("/c"), Some(&text));
        assert!(out.contains(&format!("    {new}\n")), "{line}: {out}");
    }
}
