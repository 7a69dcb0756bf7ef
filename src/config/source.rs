//! `[credential.source]`: where versions come from.

use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::aws::{self, Aws, arn};
use super::value::{self, Judged, mistake, trimmed};
use super::{At, DEFAULT_POLL, DeValue, Reader, Section, SectionView, Severity, key};
use crate::credential::{JsonKey, JsonKeys, region_shaped};
use crate::instruction::relaykey;

const SECRETS_MANAGER: &str = "secrets-manager";
const PARAMETER_STORE: &str = "parameter-store";
const FILE: &str = "file";
const AWS_TYPES: &[&str] = &[SECRETS_MANAGER, PARAMETER_STORE];

pub(super) static SOURCE: Section = Section {
    header: "[credential.source]",
    keys: &[
        key("type").few(),
        key("secret").only(&[SECRETS_MANAGER]).hidden(),
        key("stage").only(&[SECRETS_MANAGER]).default("\"AWSCURRENT\""),
        key("parameter").only(&[PARAMETER_STORE]).hidden(),
        key("label").only(&[PARAMETER_STORE]),
        key("path").only(&[FILE]),
        key("owner").only(&[FILE]),
        key("username_key").hidden(),
        key("password_key").hidden(),
        key("region").only(AWS_TYPES),
        key("profile").only(AWS_TYPES),
        key("role_arn").only(AWS_TYPES),
        key("external_id").only(AWS_TYPES).hidden(),
        key("endpoint_url").only(AWS_TYPES).hidden(),
        key("poll").few().default("\"5m\""),
    ],
};

/// How often a source may be asked. More often would use up the rate that Parameter Store gives a whole account (40 a
/// second) with some 200 hosts; more seldom, and a new key waits for longer than a day unless something else wakes the
/// daemon.
const POLLS: RangeInclusive<Duration> = Duration::from_secs(5)..=Duration::from_secs(24 * 3600);

/// Below this a source in AWS costs more than anybody expects of a poll.
const EAGER_POLL: Duration = Duration::from_secs(30);

/// `[credential.source]`: where versions come from.
#[derive(Debug, Clone, PartialEq)]
pub enum SourceConfig {
    /// AWS Secrets Manager.
    SecretsManager {
        /// Name or ARN.
        secret: String,
        /// At least one; the newest version that carries one of them.
        stages: Vec<String>,
        /// `[aws]` with what the source overrides.
        aws: Aws,
    },
    /// AWS Systems Manager Parameter Store.
    ParameterStore {
        /// Name or ARN.
        parameter: String,
        /// The label whose version is taken; the latest version without one.
        label: Option<String>,
        /// `[aws]` with what the source overrides.
        aws: Aws,
    },
    /// A file on this host, authoritative as it is.
    File {
        /// Absolute.
        path: PathBuf,
        /// The user who may write it besides root and ourselves: a name, or a number.
        owner: Option<String>,
    },
}

impl SourceConfig {
    /// Labels of the versions that are taken; none: the latest version, whatever labels it has.
    pub fn labels(&self) -> &[String] {
        match self {
            SourceConfig::SecretsManager { stages, .. } => stages,
            SourceConfig::ParameterStore { label, .. } => label.as_slice(),
            SourceConfig::File { .. } => &[],
        }
    }

    /// Have its versions an order? A file is authoritative as it is.
    pub fn is_ordered(&self) -> bool {
        self.file().is_none()
    }

    /// The path of it, where it is a file on this host.
    pub fn file(&self) -> Option<&Path> {
        match self {
            SourceConfig::File { path, .. } => Some(path),
            SourceConfig::SecretsManager { .. } | SourceConfig::ParameterStore { .. } => None,
        }
    }

    /// Can it still give a version when it has a newer one? AWS keeps at least the one before; a file has one content.
    pub fn gives_older(&self) -> bool {
        self.file().is_none()
    }

    /// How AWS is reached for it; `None`: it is not.
    pub fn aws(&self) -> Option<&Aws> {
        match self {
            SourceConfig::SecretsManager { aws, .. } | SourceConfig::ParameterStore { aws, .. } => Some(aws),
            SourceConfig::File { .. } => None,
        }
    }

    /// What it is, in a few words: `secrets-manager mail/ses (AWSCURRENT)`.
    pub fn words(&self) -> String {
        self.called(SECRETS_MANAGER, PARAMETER_STORE)
    }

    /// What it is, as its owner calls it: `AWS Secrets Manager mail/ses (AWSCURRENT)`.
    pub fn words_in_full(&self) -> String {
        self.called("AWS Secrets Manager", "AWS Parameter Store")
    }

    fn called(&self, secrets_manager: &str, parameter_store: &str) -> String {
        match self {
            SourceConfig::SecretsManager { secret, stages, .. } => {
                format!("{secrets_manager} {secret} ({})", stages.join(", "))
            }
            SourceConfig::ParameterStore { parameter, label: None, .. } => format!("{parameter_store} {parameter}"),
            SourceConfig::ParameterStore { parameter, label: Some(label), .. } => {
                format!("{parameter_store} {parameter} ({label})")
            }
            SourceConfig::File { path, .. } => format!("{FILE} {}", path.display()),
        }
    }
}

pub(super) fn read(
    reader: &mut Reader,
    view: &SectionView,
    aws: &Aws,
    is_user: &dyn Fn(&str) -> bool,
) -> (SourceConfig, JsonKeys) {
    let add = "add type = \"secrets-manager\", \"parameter-store\" or \"file\"";
    let kinds = [(SECRETS_MANAGER, SECRETS_MANAGER), (PARAMETER_STORE, PARAMETER_STORE), (FILE, FILE)];
    let kind = reader.require(view, "type", add, |v| value::choice(v, &kinds, &[])).map(|at| at.value);
    reader.keys(view, kind);

    let username = reader.read(view, "username_key", value::word);
    let password = reader.read(view, "password_key", value::word);
    if let (Some(username), Some(password)) = (&username, &password)
        && username.value == password.value
    {
        let what = "username_key and password_key name the same key";
        reader.error(password.line, what, "name the key of the user name and the key of the password");
    }
    let key = |at: At<String>| JsonKey { name: at.value, line: at.line };
    let keys = JsonKeys { username: username.map(key), password: password.map(key), of_ses: false };

    let source = match kind {
        Some(SECRETS_MANAGER) => {
            let mut aws = aws::read(reader, view, aws);
            let secret = reader.require(view, "secret", "add secret = \"NAME\", a name or an ARN", secret_id);
            let secret = pinned(reader, view, secret, &mut aws);
            let empty = "name a label, or leave `stage` out: AWSCURRENT";
            let stages = reader.one_or_more(view, "stage", empty, stage, String::clone);
            SourceConfig::SecretsManager {
                secret,
                stages: stages.unwrap_or_else(|| vec!["AWSCURRENT".to_owned()]),
                aws,
            }
        }
        Some(PARAMETER_STORE) => {
            let mut aws = aws::read(reader, view, aws);
            let add = "add parameter = \"/ses/smtp\", a name or an ARN";
            let parameter = reader.require(view, "parameter", add, parameter_id);
            let parameter = pinned(reader, view, parameter, &mut aws);
            let label = reader.read(view, "label", label).map(|at| at.value);
            SourceConfig::ParameterStore { parameter, label, aws }
        }
        Some(_) => {
            let path = reader.require(view, "path", "add path = \"/etc/relaykey/NAME\"", value::absolute);
            let owner = reader.read(view, "owner", owner);
            if let Some(At { value: owner, line }) = &owner
                && !is_user(owner)
            {
                let no_user = value::WrongValue {
                    what: format!("this host has no user {owner:?} (directory services are not asked)"),
                    fix: "name the user who writes the file, as `stat -c %U` shows it; or its number, as `stat -c %u` does"
                        .into(),
                };
                reader.wrong(view, "owner", *line, &DeValue::String(owner.as_str().into()), no_user);
            }
            SourceConfig::File { path: path.map(|at| at.value).unwrap_or_default(), owner: owner.map(|at| at.value) }
        }
        None => SourceConfig::File { path: PathBuf::new(), owner: None },
    };
    (source, keys)
}

pub(super) fn poll(reader: &mut Reader, view: &SectionView, source: &SourceConfig) -> Duration {
    let Some(At { value: poll, line }) = reader.read(view, "poll", |v| value::duration(v, POLLS)) else {
        return DEFAULT_POLL;
    };
    if poll < EAGER_POLL && source.aws().is_some() {
        let a_day = 86_400 / poll.as_secs().max(1);
        reader.find(
            Severity::Warning,
            line,
            format!("poll: every host asks AWS {a_day} times a day, and shares one rate with the whole account"),
            format!(
                "use \"5m\": SIGHUP, `{}` and a refused login make the daemon look at once anyway",
                relaykey("sync")
            ),
        );
    }
    poll
}

/// The id; where it is an ARN, its region wins over a configured one.
pub fn pinned(reader: &mut Reader, view: &SectionView, id: Option<At<NameOrArn>>, aws: &mut Aws) -> String {
    let Some(At { value: NameOrArn { text, region }, line }) = id else { return String::new() };
    if let Some(arn) = region {
        if let Some(configured) = aws.region.as_ref().filter(|r| **r != arn) {
            let own = reader.line_of(view, "region");
            let (severity, line, whose, fix) = match own {
                Some(line) => (Severity::Warning, line, "region", "remove `region` here".to_owned()),
                None => (Severity::Note, line, "[aws] region", "nothing, if the ARN is right".to_owned()),
            };
            let what = format!("{whose} is {configured:?}, but the ARN names {arn:?}, which is used");
            reader.find(severity, line, what, fix);
        }
        aws.region = Some(arn);
    }
    text
}

/// A name or an ARN, with the ARN's region.
pub struct NameOrArn {
    text: String,
    region: Option<String>,
}

/// Judges an id that begins with `arn:`. Values are not repeated: somebody may have put the secret itself here.
fn id_from_arn(text: &str, service: &str, prefix: &str, example: &str) -> Judged<NameOrArn> {
    let Some(arn) = arn(text) else { return mistake("the ARN is not complete", format!("write it like {example}")) };
    if arn.service != service {
        let fix = match arn.service {
            "ssm" => "set type = \"parameter-store\" and parameter = to this ARN".to_owned(),
            "secretsmanager" => "set type = \"secrets-manager\" and secret = to this ARN".to_owned(),
            _ => format!("write one like {example}"),
        };
        return mistake(format!("it is an ARN of {:?}, not of {service:?}", arn.service), fix);
    }
    if !region_shaped(arn.region) {
        return mistake("the ARN names no region", format!("write it like {example}"));
    }
    match arn.resource.strip_prefix(prefix) {
        Some(name) if !name.is_empty() => Ok(NameOrArn { text: text.to_owned(), region: Some(arn.region.to_owned()) }),
        _ => mistake(
            format!("it is the ARN of something else in {service:?} of account {}", arn.account),
            format!("write one like {example}"),
        ),
    }
}

/// A name or ARN in Secrets Manager (CreateSecret, `Name`).
pub fn secret_id(value: &DeValue) -> Judged<NameOrArn> {
    let text = trimmed(value)?;
    let example = "arn:aws:secretsmanager:eu-west-1:111122223333:secret:NAME-AbCdEf";
    if text.starts_with("arn:") {
        return id_from_arn(text, "secretsmanager", "secret:", example);
    }
    let fits = |b: u8| b.is_ascii_alphanumeric() || b"/_+=.@-".contains(&b);
    if text.len() <= 512 && text.bytes().all(fits) {
        return Ok(NameOrArn { text: text.to_owned(), region: None });
    }
    mistake(
        "this is no name of a secret: it has at most 512 letters, digits and /_+=.@-",
        format!("write the secret's name, or its ARN like {example}; not what it holds"),
    )
}

/// A name or ARN in Parameter Store (PutParameter, `Name`).
pub fn parameter_id(value: &DeValue) -> Judged<NameOrArn> {
    let text = trimmed(value)?;
    let example = "arn:aws:ssm:eu-west-1:111122223333:parameter/ses/smtp";
    let selector = || mistake("a version or label follows the name", "write the name alone; a label goes into `label`");
    if text.starts_with("arn:") {
        let id = id_from_arn(text, "ssm", "parameter/", example)?;
        return if arn(text).is_some_and(|arn| arn.resource.contains(':')) { selector() } else { Ok(id) };
    }
    let fits = |b: u8| b.is_ascii_alphanumeric() || b"/_.-".contains(&b);
    match text.split_once(':') {
        Some((name, _)) if name.bytes().all(fits) && name.starts_with('/') => selector(),
        None if text.contains('/') && !text.starts_with('/') && text.bytes().all(fits) => {
            mistake("a parameter name with a slash in it begins with one", format!("write \"/{text}\""))
        }
        None if text.len() <= 2048 && !text.ends_with('/') && text.bytes().all(fits) => {
            Ok(NameOrArn { text: text.to_owned(), region: None })
        }
        _ => mistake(
            "this is no name of a parameter: it has letters, digits and _.-, with / between its parts",
            format!("write the parameter's name, or its ARN like {example}; not what it holds"),
        ),
    }
}

/// A staging label (Secrets Manager, `VersionStage`).
pub fn stage(value: &DeValue) -> Judged<String> {
    let text = trimmed(value)?;
    if text.len() > 256 || text.contains(char::is_whitespace) {
        return mistake("this is no staging label", "use up to 256 characters without blanks, such as AWSCURRENT");
    }
    Ok(text.to_owned())
}

/// A parameter label (LabelParameterVersion, `Labels`).
fn label(value: &DeValue) -> Judged<String> {
    let text = trimmed(value)?;
    let fits = |b: u8| b.is_ascii_alphanumeric() || b"_.-".contains(&b);
    let lower = text.to_ascii_lowercase();
    let reserved =
        lower.starts_with("aws") || lower.starts_with("ssm") || lower.starts_with(|c: char| c.is_ascii_digit());
    if text.len() > 100 || !text.bytes().all(fits) || reserved {
        let fix = "use up to 100 letters, digits and _.-, beginning with neither a digit nor aws nor ssm; versions have no place here";
        return mistake(format!("{text:?} cannot be a label in Parameter Store"), fix);
    }
    Ok(text.to_owned())
}

/// The user who writes a file: a name, or a number where this host need not know the name.
fn owner(value: &DeValue) -> Judged<String> {
    let text = trimmed(value)?;
    let usage = "name the user who writes the file, such as \"vault\", or its number";
    let is_number = text.bytes().all(|b| b.is_ascii_digit());
    let fits = |b: u8| b.is_ascii_alphanumeric() || b"_.-$".contains(&b);
    if is_number && text.parse::<u32>().is_err() || text.len() > 32 || text.starts_with('-') || !text.bytes().all(fits)
    {
        return mistake(format!("{text:?} is no user"), usage);
    }
    Ok(text.to_owned())
}
