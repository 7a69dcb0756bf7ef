//! `relaykey-rotate policy`: the least IAM policy for this configuration, for the controller or for a host.

use clap::{Args, ValueEnum};
use relaykey::aws::partition;
use relaykey::config::Arn;
use relaykey_core::config::Aws;
use serde_json::{Value, json};

use super::{Common, Exit, choose, load, print_json};
use crate::config::{Config, Credential, Evidence, Place, PrincipalBy};

#[derive(Debug, Args)]
pub struct PolicyArgs {
    /// Whose policy.
    #[arg(long = "for", value_name = "WHO")]
    who: Who,
    /// In what form.
    #[arg(long, value_name = "FORM", default_value = "json")]
    format: Format,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Who {
    /// relaykey-rotate itself.
    Controller,
    /// Each mail server.
    Host,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
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
    let Format::Json = args.format;
    print_json(&match args.who {
        Who::Controller => controller(&config, credential),
        Who::Host => host(credential),
    });
    Exit::Done
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
        Place::SecretsManager { secret } => Some(secret_arn(secret, aws)),
        Place::ParameterStore { .. } => None,
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
        Place::ParameterStore { parameter } => Some(parameter_arn(parameter, aws)),
        Place::SecretsManager { .. } => None,
    });
    if !parameters.is_empty() {
        let actions = ["ssm:GetParameterHistory", "ssm:GetParameter", "ssm:PutParameter"];
        statements.push(statement("Publish", &actions, parameters));
        // It takes no resource.
        statements.push(statement("PublishAsBefore", &["ssm:DescribeParameters"], "*"));
    }
    match &credential.evidence {
        Evidence::DynamoDb { table, aws, .. } => {
            let actions = [
                "dynamodb:Scan",
                "dynamodb:Query",
                "dynamodb:GetItem",
                "dynamodb:PutItem",
                "dynamodb:UpdateItem",
                "dynamodb:DeleteItem",
            ];
            statements.push(statement("Evidence", &actions, table_arn(table, aws)));
        }
        Evidence::ParameterStore { path, aws } => {
            let read = ["ssm:GetParametersByPath", "ssm:GetParameter", "ssm:GetParameterHistory"];
            let below = |name: &str| parameter_arn(&format!("{path}{name}"), aws);
            statements.push(statement("Evidence", &read, json!([below(""), below("/*")])));
            let own = ["/.control/*", "/.registry/*", "/.audit/*"].map(|name| below(name));
            statements.push(statement("ControlRecord", &["ssm:PutParameter", "ssm:DeleteParameter"], json!(own)));
        }
    }
    document(statements)
}

/// What a host needs: to read the key, and to report under its own name.
pub(super) fn host(credential: &Credential) -> Value {
    let mut statements = Vec::new();
    let secrets = places(credential, |place, aws| match place {
        Place::SecretsManager { secret } => Some(secret_arn(secret, aws)),
        Place::ParameterStore { .. } => None,
    });
    if !secrets.is_empty() {
        let actions =
            ["secretsmanager:DescribeSecret", "secretsmanager:ListSecretVersionIds", "secretsmanager:GetSecretValue"];
        statements.push(statement("Key", &actions, secrets));
    }
    let parameters = places(credential, |place, aws| match place {
        Place::ParameterStore { parameter } => Some(parameter_arn(parameter, aws)),
        Place::SecretsManager { .. } => None,
    });
    if !parameters.is_empty() {
        statements.push(statement("Key", &["ssm:GetParameter", "ssm:GetParameterHistory"], parameters));
    }
    match &credential.evidence {
        Evidence::DynamoDb { table, principal, aws } => {
            // AWS itself vouches for who wrote an item: it lets each write under its own identity alone.
            let own = match principal {
                PrincipalBy::UserId => "${aws:userid}",
                PrincipalBy::SourceIdentity => "${aws:SourceIdentity}",
            };
            let mut report = statement("Report", &["dynamodb:UpdateItem", "dynamodb:GetItem"], table_arn(table, aws));
            report["Condition"] = json!({"ForAllValues:StringEquals": {"dynamodb:LeadingKeys": [own]}});
            statements.push(report);
        }
        Evidence::ParameterStore { path, aws } => {
            let reports = parameter_arn(&format!("{path}/{}/*", credential.name), aws);
            statements.push(statement("Report", &["ssm:PutParameter", "ssm:GetParameter"], reports));
        }
    }
    document(statements)
}

/// The ARNs of the places that `arn` knows, each once.
fn places(credential: &Credential, arn: impl Fn(&Place, &Aws) -> Option<String>) -> Vec<String> {
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
        let policy = host(&config.credentials[0]);
        let text = policy.to_string();
        assert!(text.contains("arn:aws:secretsmanager:eu-west-1:*:secret:SESSendSecret-??????"), "{text}");
        assert!(text.contains(r#""dynamodb:LeadingKeys":["${aws:userid}"]"#), "{text}");
        assert!(!text.contains("iam:") && !text.contains("PutSecretValue"), "{text}");
    }

    #[test]
    fn the_controller_touches_one_users_keys() {
        let config = example();
        let text = controller(&config, &config.credentials[0]).to_string();
        assert!(text.contains("arn:aws:iam::*:user/ses-smtp"), "{text}");
        assert!(!text.contains(r#""Resource":"*""#), "{text}");
    }
}
