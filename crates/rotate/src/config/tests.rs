use super::*;
use relaykey::finding::Severity;

/// The good configuration that the tables below change.
const GOOD: &str = r#"config_version = 1
[aws]
region = "eu-west-1"
[[credential]]
name = "ses"
iam_user = "ses-smtp"
[credential.smtp]
endpoint = "email-smtp.eu-west-1.amazonaws.com"
[[credential.publish]]
type = "secrets-manager"
secret = "SESSendSecret"
[credential.evidence]
type = "dynamodb"
table = "relaykey"
[credential.rotation]
expected_hosts = 0
"#;

fn good() -> Config {
    let (config, findings) = parse(GOOD).expect("the good configuration");
    assert_eq!(findings, []);
    config
}

/// The good configuration with the line that is `old` replaced, and that line's number.
fn changed(old: &str, new: &str) -> (String, usize) {
    let line = GOOD.lines().position(|line| line == old).unwrap_or_else(|| panic!("no line {old:?}")) + 1;
    (GOOD.replacen(&format!("{old}\n"), &format!("{new}\n"), 1), line)
}

/// Of the good configuration with `new` instead of `old`: one error, on the line so much below it, that says this.
fn one(old: &str, new: &str, below: usize, what: &str, fix: &str) {
    let (text, line) = changed(old, new);
    let found = parse(&text).expect_err(new);
    let errors: Vec<_> = found.iter().filter(|finding| finding.severity == Severity::Error).collect();
    assert_eq!(errors.len(), 1, "{new}: {found:?}");
    assert_eq!(errors[0].line, Some(line + below), "{new}: {found:?}");
    assert!(errors[0].what.contains(what) && errors[0].fix.contains(fix), "{new}: {found:?}");
}

#[test]
fn the_example_is_what_the_defaults_are() {
    let (config, findings) = parse(EXAMPLE).expect("the example");
    assert_eq!(findings, []);
    assert_eq!(config, good(), "what is not set in it is the default");
}

/// Every key that may stand in the file is in the example, live or as a comment, and with its default where it has one.
#[test]
fn the_example_names_every_key_with_its_default() {
    for section in SCHEMA.sections {
        for key in section.keys.iter().filter(|key| !key.table) {
            // What the agents' section has, and this file has no use for.
            if section.header == "[credential.smtp]" && ["propagation", "endpoint_aliases"].contains(&key.name) {
                continue;
            }
            if section.header == "[[credential.smtp.also]]" && key.name != "endpoint" {
                continue;
            }
            let lines: Vec<&str> = EXAMPLE.lines().map(|line| line.trim_start_matches('#')).collect();
            let default = key.default.map(|default| format!("{} = {default}", key.name));
            let named = lines.iter().any(|line| match &default {
                Some(default) => line == default,
                None => line.strip_prefix(key.name).is_some_and(|rest| rest.starts_with(" = ")),
            });
            assert!(named, "{} {}", section.header, key.name);
        }
    }
}

#[test]
fn everything_set_arrives() {
    let text = r#"config_version = 1
[aws]
region = "eu-west-1"
[[credential]]
name = "ses"
iam_user = "ses-smtp"
[credential.smtp]
endpoint = "smtp.example.com"
port = 2465
tls = "implicit"
region = "eu-west-1"
[[credential.smtp.also]]
endpoint = "email-smtp.us-east-1.amazonaws.com"
port = 465
[[credential.publish]]
type = "secrets-manager"
secret = "arn:aws:secretsmanager:us-east-1:111122223333:secret:ses-AbCdEf"
form = "iam-key"
canary = "relaykey-canary"
[credential.evidence]
type = "parameter-store"
path = "/relaykey"
region = "eu-central-1"
[credential.rotation]
every = "30d"
propagation = "5m"
canary_soak = "1h"
grace = "1h"
last_use_lag = "48h"
observe = "7d"
delete = "never"
expected_hosts = 12
"#;
    let (config, findings) = parse(text).expect("all of it");
    assert!(findings.iter().all(|finding| finding.severity != Severity::Error), "{findings:?}");
    let credential = &config.credentials[0];
    assert_eq!(credential.smtp.propagation, Duration::from_secs(300));
    assert_eq!(credential.publish[0].aws.region.as_deref(), Some("us-east-1"), "the ARN's region");
    assert_eq!(credential.publish[0].form, Form::IamKey);
    assert_eq!(credential.evidence.aws().region.as_deref(), Some("eu-central-1"));
    let hours = SignedDuration::from_hours;
    let policy = &credential.policy;
    assert_eq!(
        (policy.every, policy.canary_soak, policy.grace, policy.last_use_lag, policy.observe),
        (hours(720), hours(1), hours(1), hours(48), hours(168))
    );
    assert_eq!((policy.delete, policy.expected_hosts), (DeleteOld::Never, 12));
    assert_eq!(policy.canary.as_deref(), Some("relaykey-canary"));
    assert_eq!(policy.endpoints, ["smtp.example.com:2465", "email-smtp.us-east-1.amazonaws.com:465"]);
}

#[test]
fn mistakes_are_named_where_they_stand() {
    let rotation = "expected_hosts = 0";
    let secret = "secret = \"SESSendSecret\"";
    for (old, new, below, what, fix) in [
        ("iam_user = \"ses-smtp\"", "iam_usr = \"x\"", 0, "unknown key \"iam_usr\"", "did you mean \"iam_user\"?"),
        ("iam_user = \"ses-smtp\"", "iam_user = \"arn:aws:iam::1:user/x\"", 0, "this is an ARN", "name alone"),
        ("iam_user = \"ses-smtp\"", "iam_user = \"a b\"", 0, "no name of an IAM user", "64 letters"),
        ("name = \"ses\"", "name = \"SES\"", 0, "cannot be a name", "lower case"),
        (rotation, "grace = \"9m\"", 0, "`grace` is 9m, and less than 10m is no protection", "grace = \"10m\" or more"),
        (rotation, "last_use_lag = \"1h\"", 0, "less than 24h is no protection", "last_use_lag = \"24h\""),
        (rotation, "observe = \"59m\"", 0, "less than 1h", "observe = \"1h\""),
        (rotation, "every = \"1h\"", 0, "less than 24h", "every = \"24h\""),
        (rotation, "every = \"0d\"", 0, "out of bounds", "3650d"),
        (rotation, "every = \"1 day\"", 0, "not a length of time", "\"90d\", \"24h\""),
        (rotation, "expected_hosts = -1", 0, "not so many hosts", "hosts seal"),
        (rotation, "delete = \"soon\"", 0, "not known", "\"after-observe\", \"never\""),
        (rotation, "settle = \"1s\"", 0, "unknown key", "Allowed here: every"),
        (secret, "parameter = \"/ses\"\nsecret = \"x\"", 0, "does not go with type", "type = \"parameter-store\""),
        (secret, "secret = \"x\"\ncanary = [\"a\", \"b\"]", 1, "not yet supported", "one label"),
        (secret, "secret = \"x\"\ncanary = \"AWSCURRENT\"", 1, "Secrets Manager's own", "relaykey-canary"),
        (secret, "secret = \"x\"\nform = \"csv\"", 1, "not known", "\"keep\", \"pair\", \"json\", \"iam-key\""),
        (
            secret,
            "secret = \"x\"\n[[credential.publish]]\ntype = \"secrets-manager\"\nsecret = \"x\"",
            3,
            "the place on line 9 is the same",
            "remove one",
        ),
        (
            secret,
            "secret = \"x\"\ncanary = \"c\"\n[[credential.publish]]\ntype = \"secrets-manager\"\nsecret = \"y\"",
            1,
            "canary hosts are possible with one",
            "leave canary out",
        ),
        ("table = \"relaykey\"", "table = \"x\"", 0, "no name of a table", "3 to 255"),
        ("table = \"relaykey\"", "table = \"relaykey\"\nprincipal = \"arn\"", 1, "not known", "\"userid\""),
        (
            "endpoint = \"email-smtp.eu-west-1.amazonaws.com\"",
            "endpoint = \"smtp.example.com\"",
            0,
            "the region of \"smtp.example.com\" is not known",
            "add region",
        ),
        (
            "endpoint = \"email-smtp.eu-west-1.amazonaws.com\"",
            "endpoint = \"email-smtp.eu-west-1.amazonaws.com\"\npropagation = \"5m\"",
            1,
            "propagation has no place",
            "[credential.rotation]",
        ),
        ("region = \"eu-west-1\"", "password = \"hunter2\"", 0, "unknown key \"password\"", "makes the keys"),
    ] {
        one(old, new, below, what, fix);
    }
}

#[test]
fn four_mistakes_give_four_findings() {
    let text = GOOD.replace("iam_user", "iam_usr").replace("\"relaykey\"", "\"\"").replace("= 0", "= -1");
    let found = parse(&text.replace("SESSendSecret", "")).expect_err("mistakes");
    assert_eq!(found.len(), 4, "{found:?}");
}

/// Short numbers are taken in a lab alone, and a lab is on this machine alone.
#[test]
fn short_numbers_are_for_a_lab_on_this_machine() {
    let short = GOOD.replace("expected_hosts = 0", "grace = \"2s\"\nlast_use_lag = \"1s\"\nobserve = \"3s\"");
    assert_eq!(parse(&short).expect_err("short").len(), 3);
    let lab = |url: &str| format!("{}[lab]\nallow_short = true\n", short.replace("region = \"eu-west-1\"", url));
    for away in ["region = \"eu-west-1\"", "endpoint_url = \"https://vpce.example.com\""] {
        let found = parse(&lab(away)).expect_err("a lab that reaches AWS");
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].what.contains("this file reaches AWS"), "{found:?}");
    }
    let (config, _) = parse(&lab("endpoint_url = \"http://127.0.0.1:5000\"")).expect("a lab");
    let policy = &config.credentials[0].policy;
    let second = SignedDuration::from_secs(1);
    assert!(config.lab);
    assert_eq!((policy.settle, policy.poll_slack, policy.reconcile), (second, second, second));
    // A place that is reached otherwise counts too.
    let away = lab("endpoint_url = \"http://127.0.0.1:5000\"")
        .replace("table = \"relaykey\"", "table = \"relaykey\"\nendpoint_url = \"https://vpce.example.com\"");
    assert_eq!(parse(&away).expect_err("a table elsewhere").len(), 1);
    let off = lab("region = \"eu-west-1\"").replace("allow_short = true", "allow_short = false");
    assert_eq!(parse(&off).expect_err("no lab").len(), 3);
}

/// What the documents show is a configuration.
#[test]
fn the_configuration_in_the_documents_is_one() {
    let text = include_str!("../../../../docs/rotation.md");
    let (_, rest) = text.split_once("```toml\n").expect("an example");
    let (example, _) = rest.split_once("```").expect("its end");
    let (config, findings) = parse(example).expect("the documents' example");
    assert_eq!((config, findings), (good(), Vec::new()));
}

#[test]
fn a_place_is_the_same_however_it_is_spelt() {
    let at = |of: &str| {
        let text = GOOD.replace("type = \"secrets-manager\"\nsecret = \"SESSendSecret\"", of);
        parse(&text).unwrap_or_else(|found| panic!("{of}: {found:?}")).0.credentials[0].publish[0].at()
    };
    let secret = |name: &str| at(&format!("type = \"secrets-manager\"\nsecret = {name:?}"));
    let parameter = |name: &str| at(&format!("type = \"parameter-store\"\nparameter = {name:?}"));
    let plain = secret("mail/SESSendSecret");
    assert_eq!(plain.to_string(), "secret \"mail/SESSendSecret\" in eu-west-1");
    let by_arn = secret("arn:aws:secretsmanager:eu-west-1:123456789012:secret:mail/SESSendSecret-AbC123");
    assert_eq!(by_arn.to_string(), "secret \"mail/SESSendSecret\" in eu-west-1 of 123456789012");
    assert_eq!((&by_arn.name, &by_arn.region), (&plain.name, &plain.region));
    let role =
        "type = \"secrets-manager\"\nsecret = \"mail/SESSendSecret\"\nrole_arn = \"arn:aws:iam::123456789012:role/r\"";
    assert_eq!(at(role), by_arn, "the account of the role that reads it");
    for (arn, name) in [("parameter/ses/credential", "/ses/credential"), ("parameter/ses", "ses")] {
        let by_arn = parameter(&format!("arn:aws:ssm:us-east-1:123456789012:{arn}"));
        assert_eq!((by_arn.name.as_str(), by_arn.region.as_deref()), (name, Some("us-east-1")));
    }
    assert_ne!(parameter("SESSendSecret"), secret("SESSendSecret"));
}
