//! `relaykey-rotate policy`: the least IAM policy for this configuration, for the controller or for a host.

use clap::{Args, ValueEnum};
use relaykey::aws::partition;
use relaykey::config::Arn;
use relaykey_core::config::Aws;
use serde_json::{Value, json};

use super::{Common, Exit, choose, load, print_json, tell};
use crate::config::{Config, Credential, EvidenceConfig, PrincipalBy, PublishPlace};

#[derive(Debug, Args)]
pub struct PolicyArgs {
    /// Whose policy.
    #[arg(long = "for", value_name = "WHO")]
    who: Who,
    /// The ARN of the KMS key that encrypts secret or parameters, where that is one of your own; once for each.
    #[arg(long = "kms-key", value_name = "ARN", value_parser = kms_key)]
    kms_keys: Vec<String>,
    /// Of a host: its name. Where hosts report to Parameter Store, each can be held to its own report.
    #[arg(long, value_name = "NAME", value_parser = super::hosts::a_host_name)]
    host: Option<String>,
    /// Of a host: which keys the table has. 2: `principal` and `credential#host_id`; 1: `credential` and `host`, as 0.1.0 made it.
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = one_or_two)]
    layout: u8,
    /// In what form.
    #[arg(long, value_name = "FORM", default_value = "json")]
    format: PolicyFormat,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Who {
    /// relaykey-rotate itself.
    Controller,
    /// Each mail server.
    Host,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum PolicyFormat {
    Json,
}

pub fn run(common: &Common, args: &PolicyArgs) -> Exit {
    let config = match load(common) {
        Ok(config) => config,
        Err(exit) => return exit,
    };
    let credential = match choose(&config, common.credential.as_deref()) {
        Ok(credential) => credential,
        Err(exit) => return exit,
    };
    let PolicyFormat::Json = args.format;
    let mut policy = match args.who {
        Who::Controller => controller(&config, credential),
        Who::Host => host(credential, args.layout, args.host.as_deref()),
    };
    if !args.kms_keys.is_empty() {
        let statements = policy["Statement"].as_array_mut().expect("it has statements");
        statements.push(kms(credential, args.who, &args.kms_keys));
    }
    print_json(&policy);
    for left in left_open(credential, args) {
        tell(&format!("relaykey-rotate: {left}"));
    }
    Exit::Done
}

/// What a flag would hold it to, or add, that was not given.
fn left_open(credential: &Credential, args: &PolicyArgs) -> Vec<&'static str> {
    let mut left = Vec::new();
    if args.kms_keys.is_empty() {
        left.push("it has no right to use a KMS key: where one of your own encrypts the secret, say --kms-key ARN");
    }
    match (&credential.evidence, args.who) {
        (EvidenceConfig::ParameterStore { .. }, Who::Host) if args.host.is_none() => {
            left.push("it lets each host write the reports of all: --host NAME holds one to its own");
        }
        (EvidenceConfig::DynamoDb { .. }, Who::Host) if args.layout == 2 => {
            left.push("it is for a table with the keys `principal` and `credential#host_id`; for `credential` and `host`: --layout 1");
        }
        (EvidenceConfig::DynamoDb { .. }, Who::Host) => {
            left.push("in a table of layout 1 each host can write the reports of all: layout 2 holds it to its own");
        }
        _ => {}
    }
    left
}

/// The words of the standard library's own errors are a programmer's.
fn one_or_two(text: &str) -> Result<u8, String> {
    match text {
        "1" => Ok(1),
        "2" => Ok(2),
        _ => Err("write 1 or 2".into()),
    }
}

fn kms_key(text: &str) -> Result<String, String> {
    match Arn::parse(text).is_some() && text.contains(":kms:") {
        true => Ok(text.to_owned()),
        false => Err("write the key's ARN, arn:aws:kms:REGION:ACCOUNT:key/ID".into()),
    }
}

/// The use of these keys, by way of the services that the values are kept in alone.
fn kms(credential: &Credential, who: Who, keys: &[String]) -> Value {
    let mut services: Vec<String> = credential
        .publish
        .iter()
        .map(|publish| {
            let service = match publish.place {
                PublishPlace::SecretsManager { .. } => "secretsmanager",
                PublishPlace::ParameterStore { .. } => "ssm",
            };
            // In China it ends with .cn.
            format!("{service}.{}.amazonaws.com*", region(&publish.aws))
        })
        .collect();
    services.dedup();
    let stores = |wanted: fn(&PublishPlace) -> bool| credential.publish.iter().any(|publish| wanted(&publish.place));
    let mut actions = vec!["kms:Decrypt"];
    if who == Who::Controller {
        actions.push("kms:GenerateDataKey");
        // A parameter of the standard tier is encrypted with the key itself.
        if stores(|place| matches!(place, PublishPlace::ParameterStore { .. })) {
            actions.push("kms:Encrypt");
        }
    }
    let mut used = statement("KeyOfTheSecret", &actions, json!(keys));
    used["Condition"] = json!({"StringLike": {"kms:ViaService": services}});
    used
}

fn statement(sid: &str, actions: &[&str], resource: impl Into<Value>) -> Value {
    json!({"Sid": sid, "Effect": "Allow", "Action": actions, "Resource": resource.into()})
}

fn document(statements: Vec<Value>) -> Value {
    json!({"Version": "2012-10-17", "Statement": statements})
}

/// What every call of this program needs, and nothing else.
pub(super) fn controller(config: &Config, credential: &Credential) -> Value {
    let region = config.aws.region.as_deref().unwrap_or("*");
    let user = format!("arn:{}:iam::*:user/{}", partition(region), credential.iam_user);
    let keys = ["iam:ListAccessKeys", "iam:CreateAccessKey", "iam:UpdateAccessKey", "iam:DeleteAccessKey"];
    let mut statements = vec![
        statement("KeysOfTheUser", &keys, user.clone()),
        statement("LastUse", &["iam:GetAccessKeyLastUsed"], user),
    ];
    let secrets = places(credential, |place, aws| match place {
        PublishPlace::SecretsManager { secret } => Some(secret_arn(secret, aws)),
        PublishPlace::ParameterStore { .. } => None,
    });
    if !secrets.is_empty() {
        let actions = [
            "secretsmanager:DescribeSecret",
            "secretsmanager:ListSecretVersionIds",
            "secretsmanager:GetSecretValue",
            "secretsmanager:PutSecretValue",
            "secretsmanager:UpdateSecretVersionStage",
        ];
        statements.push(statement("Publish", &actions, secrets));
    }
    let parameters = places(credential, |place, aws| match place {
        PublishPlace::ParameterStore { parameter } => Some(parameter_arn(parameter, aws)),
        PublishPlace::SecretsManager { .. } => None,
    });
    if !parameters.is_empty() {
        let actions = ["ssm:GetParameterHistory", "ssm:PutParameter"];
        statements.push(statement("PublishParameter", &actions, parameters));
        // It takes no resource.
        statements.push(statement("PublishAsBefore", &["ssm:DescribeParameters"], "*"));
    }
    match &credential.evidence {
        EvidenceConfig::DynamoDb { table, aws, .. } => {
            // TransactWriteItems asks for the rights of what is in it.
            let actions = [
                "dynamodb:DescribeTable",
                "dynamodb:Scan",
                "dynamodb:Query",
                "dynamodb:GetItem",
                "dynamodb:PutItem",
                "dynamodb:BatchWriteItem",
            ];
            statements.push(statement("Evidence", &actions, table_arn(table, aws)));
        }
        EvidenceConfig::ParameterStore { path, aws } => {
            let read = ["ssm:GetParametersByPath", "ssm:GetParameter", "ssm:GetParameterHistory"];
            let below = |name: &str| parameter_arn(&format!("{path}{name}"), aws);
            statements.push(statement("Evidence", &read, json!([below(""), below("/*")])));
            let own = ["/.control/*", "/.registry/*", "/.audit/*"].map(below);
            statements.push(statement("ControlRecord", &["ssm:PutParameter"], json!(own)));
        }
    }
    document(statements)
}

/// What a host needs: to read the key, and to report under its own name.
fn host(credential: &Credential, layout: u8, name: Option<&str>) -> Value {
    let mut statements = Vec::new();
    let secrets = places(credential, |place, aws| match place {
        PublishPlace::SecretsManager { secret } => Some(secret_arn(secret, aws)),
        PublishPlace::ParameterStore { .. } => None,
    });
    if !secrets.is_empty() {
        let actions = ["secretsmanager:DescribeSecret", "secretsmanager:GetSecretValue"];
        statements.push(statement("Key", &actions, secrets));
    }
    let parameters = places(credential, |place, aws| match place {
        PublishPlace::ParameterStore { parameter } => Some(parameter_arn(parameter, aws)),
        PublishPlace::SecretsManager { .. } => None,
    });
    if !parameters.is_empty() {
        statements.push(statement("KeyInParameter", &["ssm:GetParameter"], parameters));
    }
    match &credential.evidence {
        EvidenceConfig::DynamoDb { table, principal, aws } => {
            // AWS itself vouches for who wrote an item: it lets each write under its own identity alone. In layout 1 the
            // partition is the credential's, which all hosts share.
            let own = match principal {
                _ if layout == 1 => &credential.name,
                PrincipalBy::UserId => "${aws:userid}",
                PrincipalBy::SourceIdentity => "${aws:SourceIdentity}",
            };
            let mut report = statement("Report", &["dynamodb:UpdateItem", "dynamodb:GetItem"], table_arn(table, aws));
            report["Condition"] = json!({"ForAllValues:StringEquals": {"dynamodb:LeadingKeys": [own]}});
            statements.push(report);
        }
        EvidenceConfig::ParameterStore { path, aws } => {
            let reports = parameter_arn(&format!("{path}/{}/{}", credential.name, name.unwrap_or("*")), aws);
            statements.push(statement("Report", &["ssm:PutParameter", "ssm:GetParameter"], reports));
        }
    }
    document(statements)
}

/// The ARNs of the places that `arn` knows, each once.
fn places(credential: &Credential, arn: impl Fn(&PublishPlace, &Aws) -> Option<String>) -> Vec<String> {
    let mut arns: Vec<String> =
        credential.publish.iter().filter_map(|publish| arn(&publish.place, &publish.aws)).collect();
    arns.dedup();
    arns
}

fn region(aws: &Aws) -> &str {
    aws.region.as_deref().unwrap_or("*")
}

fn secret_arn(secret: &str, aws: &Aws) -> String {
    match Arn::parse(secret) {
        Some(_) => secret.to_owned(),
        // Secrets Manager appends a hyphen and six characters.
        None => format!("arn:{}:secretsmanager:{}:*:secret:{secret}-??????", partition(region(aws)), region(aws)),
    }
}

fn parameter_arn(parameter: &str, aws: &Aws) -> String {
    match Arn::parse(parameter) {
        Some(_) => parameter.to_owned(),
        None => {
            let name = parameter.trim_start_matches('/');
            format!("arn:{}:ssm:{}:*:parameter/{name}", partition(region(aws)), region(aws))
        }
    }
}

fn table_arn(table: &str, aws: &Aws) -> String {
    format!("arn:{}:dynamodb:{}:*:table/{table}", partition(region(aws)), region(aws))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{EXAMPLE, parse};

    fn example() -> Config {
        parse(EXAMPLE).expect("the example").0
    }

    #[test]
    fn a_host_reads_the_key_and_writes_under_its_own_name_alone() {
        let config = example();
        let policy = host(&config.credentials[0], 2, None);
        let text = policy.to_string();
        assert!(text.contains("arn:aws:secretsmanager:eu-west-1:*:secret:SESSendSecret-??????"), "{text}");
        assert!(text.contains(r#""dynamodb:LeadingKeys":["${aws:userid}"]"#), "{text}");
        assert!(!text.contains("iam:") && !text.contains("PutSecretValue"), "{text}");
    }

    #[test]
    fn a_host_is_held_to_its_partition_and_to_its_own_report() {
        let mut config = example();
        let credential = &mut config.credentials[0];
        // Layout 1 has the credential's name in front: with the identity no report could be written.
        let text = host(credential, 1, None).to_string();
        assert!(text.contains(r#""dynamodb:LeadingKeys":["ses"]"#) && !text.contains("userid"), "{text}");
        credential.evidence = EvidenceConfig::ParameterStore { path: "/relaykey".into(), aws: config.aws.clone() };
        let text = host(credential, 2, Some("mx1.example.com")).to_string();
        assert!(text.contains(r#"parameter/relaykey/ses/mx1.example.com""#) && !text.contains("ses/*"), "{text}");
    }

    #[test]
    fn a_key_of_ones_own_is_used_by_way_of_the_service_alone() {
        let config = example();
        let keys = ["arn:aws:kms:eu-west-1:111122223333:key/1".to_owned()];
        let of = |who| kms(&config.credentials[0], who, &keys).to_string();
        for (who, may, may_not) in
            [(Who::Host, "kms:Decrypt", "GenerateDataKey"), (Who::Controller, "kms:GenerateDataKey", "kms:Encrypt")]
        {
            let text = of(who);
            assert!(text.contains(may) && !text.contains(may_not), "{text}");
            assert!(text.contains(r#""kms:ViaService":["secretsmanager.eu-west-1.amazonaws.com*"]"#), "{text}");
            assert!(text.contains(r#""Resource":["arn:aws:kms:eu-west-1:111122223333:key/1"]"#), "{text}");
        }
        assert!(kms_key("alias/x").is_err() && kms_key(&keys[0]).is_ok());
    }

    #[test]
    fn the_controller_touches_one_users_keys() {
        let config = example();
        let text = controller(&config, &config.credentials[0]).to_string();
        assert!(text.contains("arn:aws:iam::*:user/ses-smtp"), "{text}");
        assert!(!text.contains(r#""Resource":"*""#), "{text}");
    }
    /// Every call in the source by the name of its action, against what the policies of all kinds of places allow.
    #[test]
    fn what_is_called_is_allowed_and_nothing_else() {
        let src = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
        let mut calls = std::collections::BTreeSet::new();
        for folder in ["aws", "hosts", "run", "."] {
            for file in std::fs::read_dir(src.join(folder)).expect("a folder") {
                let path = file.expect("a file").path();
                let is_ours = ["aws", "hosts", "run"].iter().any(|name| path.ends_with(format!("{name}.rs")));
                if !path.is_file() || folder == "." && !is_ours {
                    continue;
                }
                let text = std::fs::read_to_string(path).expect("text");
                let quoted = text.split('"').skip(1).step_by(2);
                let is_action = |text: &&str| {
                    let services = ["iam:", "secretsmanager:", "ssm:", "dynamodb:"];
                    services.iter().any(|service| {
                        let action = text.strip_prefix(service).unwrap_or_default();
                        action.starts_with(char::is_uppercase) && action.chars().all(char::is_alphanumeric)
                    })
                };
                calls.extend(quoted.filter(is_action).map(str::to_owned));
            }
        }
        // It has no right of its own.
        assert!(calls.remove("dynamodb:TransactWriteItems"), "{calls:?}");
        calls.insert("dynamodb:PutItem".into());
        let config = example();
        let table = config.credentials[0].clone();
        let parameters = Credential {
            publish: vec![crate::config::Publish {
                place: PublishPlace::ParameterStore { parameter: "/ses".into() },
                ..table.publish[0].clone()
            }],
            evidence: EvidenceConfig::ParameterStore { path: "/relaykey".into(), aws: config.aws.clone() },
            ..table.clone()
        };
        assert_eq!(calls, allowed([&table, &parameters].map(|credential| controller(&config, credential))));
        // And what the agent calls, which names its calls by the SDK's own methods.
        let agent = src.join("../../../src");
        let mut calls = std::collections::BTreeSet::new();
        for (file, service) in [
            ("source/secrets_manager.rs", "secretsmanager"),
            ("source/parameter_store.rs", "ssm"),
            ("report/dynamodb.rs", "dynamodb"),
            ("report/parameter_store.rs", "ssm"),
        ] {
            let text = std::fs::read_to_string(agent.join(file)).expect("text");
            let verbs = ["get_", "describe_", "list_", "put_", "update_", "delete_", "batch_", "query", "scan"];
            let methods = text.split('.').filter_map(|call| call.split_once("()").map(|(name, _)| name));
            let methods = methods.filter(|name| verbs.iter().any(|verb| name.starts_with(verb)));
            calls.extend(methods.map(|name| format!("{service}:{}", in_camel_case(name))));
        }
        // Anybody may ask STS who they are.
        calls.remove("dynamodb:GetCallerIdentity");
        assert_eq!(calls, allowed([&table, &parameters].map(|credential| host(credential, 2, None))));
    }

    /// The actions of all of these.
    fn allowed(policies: [Value; 2]) -> std::collections::BTreeSet<String> {
        let statements = policies.iter().flat_map(|policy| policy["Statement"].as_array().expect("statements"));
        let actions = statements.flat_map(|statement| statement["Action"].as_array().expect("actions"));
        actions.map(|action| action.as_str().expect("an action").to_owned()).collect()
    }

    fn in_camel_case(name: &str) -> String {
        let capital = |word: &str| word[..1].to_uppercase() + &word[1..];
        name.split('_').map(capital).collect()
    }

    /// IAM refuses a policy with two statements of one name: a key may be published in a secret and in a parameter.
    #[test]
    fn each_statement_has_a_name_of_its_own() {
        let config = example();
        let mut credential = config.credentials[0].clone();
        let place = PublishPlace::ParameterStore { parameter: "/ses".into() };
        credential.publish.push(crate::config::Publish { place, ..credential.publish[0].clone() });
        let keys = ["arn:aws:kms:eu-west-1:123456789012:key/k".to_owned()];
        for mut policy in [controller(&config, &credential), host(&credential, 2, None)] {
            policy["Statement"].as_array_mut().expect("statements").push(kms(&credential, Who::Host, &keys));
            let statements = policy["Statement"].as_array().expect("statements");
            let names: std::collections::BTreeSet<_> = statements.iter().map(|one| one["Sid"].to_string()).collect();
            assert_eq!(names.len(), statements.len(), "{policy:#}");
        }
    }
}
