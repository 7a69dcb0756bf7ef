//! The configuration file of the control side, `/etc/relaykey/rotate.toml`: what may stand in it, and what the program makes of
//! it.
//!
//! The reader is `relaykey_core::config`; `[aws]`, `[credential.smtp]` and the judges of names in AWS are those of the host
//! agent's file. [`SCHEMA`] lists the keys; `rotate.example.toml` ([`EXAMPLE`]) explains them to people, and tests keep the
//! two and the reader together. A number that is too short to protect anything is a mistake, except in a lab on this machine.

use std::collections::HashMap;
use std::fmt;
use std::path::Path;
use std::time::Duration;

use jiff::SignedDuration;
use relaykey::config::shared::{ALSO, SMTP, parameter_id, parameter_path, pinned, secret_id, smtp, stage, table_name};
use relaykey::config::{LoadError, Smtp, read_text};
use relaykey::finding::Finding;
use relaykey_core::config::schema::{key, table};
use relaykey_core::config::value::{self, Judged, mistake, trimmed};
use relaykey_core::config::{AWS, At, Aws, DeValue, Reader, Schema, Section, SectionView, aws};

use crate::facts::{KeyPlace, StoreKind};
use crate::policy::{DeleteOld, Policy};

/// The usual place of the file.
pub const PATH: &str = "/etc/relaykey/rotate.toml";

/// The version of the file that this program reads.
pub const VERSION: i64 = 1;

/// The commented example; it parses as it stands.
pub const EXAMPLE: &str = include_str!("../rotate.example.toml");

const SECRETS_MANAGER: &str = "secrets-manager";
const PARAMETER_STORE: &str = "parameter-store";
const DYNAMODB: &str = "dynamodb";

static TOP: Section =
    Section { header: "", keys: &[key("config_version").few(), table("aws"), table("credential"), table("lab")] };

static CREDENTIAL: Section = Section {
    header: "[[credential]]",
    keys: &[key("name"), key("iam_user"), table("smtp"), table("publish"), table("evidence"), table("rotation")],
};

static PUBLISH: Section = Section {
    header: "[[credential.publish]]",
    keys: &[
        key("type").few(),
        key("secret").only(&[SECRETS_MANAGER]).hidden(),
        key("parameter").only(&[PARAMETER_STORE]).hidden(),
        key("form").few().default("\"keep\""),
        key("canary").only(&[SECRETS_MANAGER]),
        key("region"),
        key("profile"),
        key("role_arn"),
        key("external_id").hidden(),
        key("endpoint_url").hidden(),
    ],
};

static EVIDENCE: Section = Section {
    header: "[credential.evidence]",
    keys: &[
        key("type").few(),
        key("table").only(&[DYNAMODB]),
        key("principal").few().only(&[DYNAMODB]).default("\"userid\""),
        key("path").only(&[PARAMETER_STORE]),
        key("region"),
        key("profile"),
        key("role_arn"),
        key("external_id").hidden(),
        key("endpoint_url").hidden(),
    ],
};

static ROTATION: Section = Section {
    header: "[credential.rotation]",
    keys: &[
        key("every").few().default("\"90d\""),
        key("propagation").few().default("\"10m\""),
        key("canary_soak").few().default("\"10m\""),
        key("grace").few().default("\"10m\""),
        key("last_use_lag").few().default("\"24h\""),
        key("observe").few().default("\"3d\""),
        key("delete").few().default("\"after-observe\""),
        key("expected_hosts").few().default("0"),
    ],
};

static LAB: Section = Section { header: "[lab]", keys: &[key("allow_short").few().default("false")] };

/// Every section of the file, in its order.
pub static SCHEMA: Schema = Schema {
    program: "relaykey-rotate",
    version: VERSION,
    explained_in: "rotate.example.toml",
    no_login: "No login stands in this file: relaykey-rotate makes keys, and the secret holds them",
    instead_of_login: "remove it: no login stands in this file; relaykey-rotate makes the keys, and the secret holds them",
    tables: "[aws] or [credential.smtp]",
    lists: "[[credential]] or [[credential.publish]]",
    twice,
    top: &TOP,
    sections: &[&TOP, &AWS, &CREDENTIAL, &SMTP, &ALSO, &PUBLISH, &EVIDENCE, &ROTATION, &LAB],
};

/// What is said of a header that stands twice.
fn twice(name: &str, in_double_brackets: bool) -> (&'static str, &'static str) {
    match name {
        "credential" if in_double_brackets => (
            "a part of [[credential]] stands before its header",
            "put [[credential]] first, and its [credential.smtp] and the others below it",
        ),
        "credential" => ("[credential] stands twice", "begin each credential with [[credential]]"),
        "credential.publish" => ("[credential.publish] stands twice", "begin each place with [[credential.publish]]"),
        "credential.smtp.also" => {
            ("[credential.smtp.also] stands twice", "begin each further region with [[credential.smtp.also]]")
        }
        _ => (
            "the table stands twice",
            "keep one, with the keys of both; or is a [[credential]] header missing above it?",
        ),
    }
}

/// Everything the program knows from its configuration; every default is filled in.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// `[aws]`: IAM and STS are asked there.
    pub aws: Aws,
    /// `[[credential]]`, in the order of the file; at least one.
    pub credentials: Vec<Credential>,
    /// `[lab] allow_short`: everything happens on this machine, and no number protects anything.
    pub lab: bool,
}

/// `[[credential]]`: the keys of one IAM user, as one SMTP login that hosts share.
#[derive(Debug, Clone, PartialEq)]
pub struct Credential {
    /// The agents' name for it.
    pub name: String,
    /// Whose keys are made and retired.
    pub iam_user: String,
    /// Where a login is tried, its further regions included.
    pub smtp: Smtp,
    /// Where the key is published; at least one.
    pub publish: Vec<Publish>,
    /// Where the hosts' reports and the control record are.
    pub evidence: EvidenceConfig,
    /// The numbers of `[credential.rotation]`, the canary label, and the endpoints.
    pub policy: Policy,
}

/// `[[credential.publish]]`: one place where hosts find the key.
#[derive(Debug, Clone, PartialEq)]
pub struct Publish {
    pub place: PublishPlace,
    pub form: Form,
    /// `[aws]` with what this place overrides; an ARN's region wins.
    pub aws: Aws,
}

impl Publish {
    /// The place, by the facts that tell it from any other.
    pub fn at(&self) -> KeyPlace {
        let (kind, name) = match &self.place {
            PublishPlace::SecretsManager { secret } => (StoreKind::SecretsManager, secret),
            PublishPlace::ParameterStore { parameter } => (StoreKind::ParameterStore, parameter),
        };
        // arn:PARTITION:SERVICE:REGION:ACCOUNT:RESOURCE
        let arn: Vec<&str> = name.splitn(6, ':').collect();
        let role = self.aws.role_arn.as_ref().and_then(|role| role.split(':').nth(4));
        let (account, name) = match arn[..] {
            ["arn", _, _, _, account, resource] => (Some(account), named_by_arn(kind, resource)),
            _ => (role.or(self.aws.profile.as_deref()), name.as_str()),
        };
        let name = name.to_owned();
        KeyPlace { kind, region: self.aws.region.clone(), account: account.map(str::to_owned), name }
    }
}

/// The name in the last part of an ARN: Secrets Manager adds a hyphen and six characters, and Parameter Store leaves out the slash
/// before `parameter`.
fn named_by_arn(kind: StoreKind, resource: &str) -> &str {
    match kind {
        StoreKind::ParameterStore => {
            let name = resource.strip_prefix("parameter").unwrap_or(resource);
            // `parameter/a` is the parameter `a`, or `/a`: with more than one part it begins with a slash.
            if name.matches('/').count() > 1 { name } else { name.trim_start_matches('/') }
        }
        StoreKind::SecretsManager => {
            let name = resource.strip_prefix("secret:").unwrap_or(resource);
            let suffix = |(_, suffix): &(&str, &str)| {
                suffix.len() == 6 && suffix.bytes().all(|byte| byte.is_ascii_alphanumeric())
            };
            name.rsplit_once('-').filter(suffix).map_or(name, |(name, _)| name)
        }
    }
}

/// As people find it: what it is, its name, and where.
impl fmt::Display for Publish {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.place.fmt(f)?;
        self.aws.region.as_ref().map_or(Ok(()), |region| write!(f, " in {region}"))
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PublishPlace {
    /// Name or ARN.
    SecretsManager { secret: String },
    /// Name or ARN.
    ParameterStore { parameter: String },
}

impl fmt::Display for PublishPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PublishPlace::SecretsManager { secret } => write!(f, "secret {secret:?}"),
            PublishPlace::ParameterStore { parameter } => write!(f, "parameter {parameter:?}"),
        }
    }
}

impl PublishPlace {
    /// As people name it.
    pub fn name(&self) -> &str {
        match self {
            PublishPlace::SecretsManager { secret } => secret,
            PublishPlace::ParameterStore { parameter } => parameter,
        }
    }
}

/// In what form the key is published.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// That of the version before; `iam-key` where there is none.
    Keep,
    /// `USER:PASSWORD`.
    Pair,
    /// JSON with `username` and `password`.
    Json,
    /// JSON with `accessKeyId` and `secretAccessKey`: hosts derive the password of their region.
    IamKey,
}

/// `[credential.evidence]`: where the hosts' reports are, and the control record and the audit log beside them.
#[derive(Debug, Clone, PartialEq)]
pub enum EvidenceConfig {
    DynamoDb {
        table: String,
        principal: PrincipalBy,
        aws: Aws,
    },
    /// Begins with `/`, does not end with it.
    ParameterStore {
        path: String,
        aws: Aws,
    },
}

impl EvidenceConfig {
    /// As people name it.
    pub fn name(&self) -> String {
        match self {
            EvidenceConfig::DynamoDb { table, .. } => format!("table {table:?}"),
            EvidenceConfig::ParameterStore { path, .. } => format!("parameters below {path:?}"),
        }
    }

    /// How AWS is reached for it.
    pub fn aws(&self) -> &Aws {
        match self {
            EvidenceConfig::DynamoDb { aws, .. } | EvidenceConfig::ParameterStore { aws, .. } => aws,
        }
    }
}

/// What tells the writers of reports apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PrincipalBy {
    /// `aws:userid`.
    UserId,
    /// `sts:SourceIdentity`.
    SourceIdentity,
}

/// Reads and parses the file at this path. With the configuration come warnings and notes.
///
/// # Errors
/// Somebody else could have written it; it cannot be read, is no text, or has mistakes.
pub fn load(path: &Path) -> Result<(Config, Vec<Finding>), LoadError> {
    let (text, doubts) = read_text(path)?;
    let (config, mut findings) =
        parse(&text).map_err(|findings| LoadError::Invalid { path: path.to_owned(), findings })?;
    findings.extend(doubts.iter().map(Finding::from));
    Ok((config, findings))
}

/// Everything there is to say of a file that cannot be used.
pub fn findings(error: &LoadError) -> Vec<Finding> {
    let mut findings = error.findings();
    let fix = match error {
        LoadError::Missing { .. } => {
            "`relaykey-rotate example` prints one that explains every key; or name another file with --config PATH"
        }
        LoadError::Directory { .. } => "name the file in it: --config PATH/rotate.toml",
        _ => return findings,
    };
    for finding in &mut findings {
        finding.fix = fix.into();
    }
    findings
}

/// The findings for people, each with the line it is about, which is read from the file at `path` again.
pub fn render(findings: &[Finding], path: &Path) -> String {
    let text = read_text(path).ok().map(|(text, _)| text);
    relaykey_core::config::render_text(findings, path, text.as_deref(), &SCHEMA)
}

/// Reads a configuration.
///
/// # Errors
/// Every finding, by line, if at least one of them is an error.
pub fn parse(text: &str) -> Result<(Config, Vec<Finding>), Vec<Finding>> {
    relaykey_core::config::read(text, &SCHEMA, |reader, top| {
        let aws = match reader.table(top, "aws", &AWS) {
            Some(view) => {
                reader.keys(&view, None);
                aws::read(reader, &view, &Aws::default())
            }
            None => Aws::default(),
        };
        let lab = lab(reader, top);
        let credentials = credentials(reader, top, &aws, lab.is_some());
        if let Some(line) = lab {
            stays_here(reader, line, &aws, &credentials);
        }
        Config { aws, credentials, lab: lab.is_some() }
    })
}

/// The line of `allow_short`, where that is set.
fn lab(reader: &mut Reader, top: &SectionView) -> Option<usize> {
    let view = reader.table(top, "lab", &LAB)?;
    reader.keys(&view, None);
    reader.read(&view, "allow_short", value::boolean).filter(|at| at.value).map(|at| at.line)
}

/// Short numbers are for a lab: nothing of AWS itself may be reached with them. http is taken to this machine alone.
fn stays_here(reader: &mut Reader, line: usize, aws: &Aws, credentials: &[Credential]) {
    let places = credentials.iter().flat_map(|credential| {
        let publish = credential.publish.iter().map(|publish| &publish.aws);
        publish.chain([credential.evidence.aws()])
    });
    let here = |aws: &Aws| aws.endpoint_url.as_ref().is_some_and(|url| url.starts_with("http://"));
    if !std::iter::once(aws).chain(places).all(here) {
        reader.error(
            line,
            "allow_short is for a lab on this machine, and this file reaches AWS",
            "remove [lab]; or, for a lab, set endpoint_url = \"http://127.0.0.1:PORT\" in [aws]",
        );
    }
}

fn credentials(reader: &mut Reader, top: &SectionView, aws: &Aws, lab: bool) -> Vec<Credential> {
    let views = reader.tables(top, "credential", &CREDENTIAL);
    if !reader.is_there(top, "credential") || top.has_empty("credential") {
        let fix = "add [[credential]] with [credential.smtp], [[credential.publish]] and [credential.evidence]";
        reader.error(1, "there is no credential in the file", fix);
    }
    let (mut names, mut users, mut places) = (HashMap::new(), HashMap::new(), Vec::new());
    let views = views.into_iter().flatten();
    views.map(|view| credential(reader, &view, aws, lab, &mut names, &mut users, &mut places)).collect()
}

fn credential(
    reader: &mut Reader,
    view: &SectionView,
    aws: &Aws,
    lab: bool,
    names: &mut HashMap<String, usize>,
    users: &mut HashMap<String, usize>,
    places: &mut Vec<(KeyPlace, usize)>,
) -> Credential {
    reader.keys(view, None);
    let name = reader.require(view, "name", "add name = \"ses\", the agents' name for it", value::name);
    if let Some(name) = &name {
        reader.unique(name, names, "credential");
    }
    let user =
        reader.require(view, "iam_user", "add iam_user = \"ses-smtp\": the user whose keys are rotated", iam_user);
    if let Some(user) = &user
        && let Some(first) = users.insert(user.value.clone(), user.line)
    {
        let what = format!("iam_user: the credential with the user on line {first} has the same one");
        reader.error(user.line, what, "give each credential an IAM user of its own: a user has two keys at most");
    }
    let smtp = endpoint(reader, view);
    let publish = publishes(reader, view, aws, places);
    let canary = one_canary(reader, &publish);
    let publish = publish.into_iter().map(|read| read.publish).collect();
    let evidence = evidence(reader, view, aws);
    let endpoints = smtp.endpoints().map(Smtp::place).collect();
    let policy = Policy { canary, ..policy(reader, view, Policy::new(endpoints), lab) };
    let propagation = Duration::try_from(policy.propagation).unwrap_or(smtp.propagation);
    Credential {
        name: name.map(|at| at.value).unwrap_or_default(),
        iam_user: user.map(|at| at.value).unwrap_or_default(),
        smtp: Smtp { propagation, ..smtp },
        publish,
        evidence,
        policy,
    }
}

/// `[credential.smtp]`, as in the agents' file, less what only a mail server's tables need.
fn endpoint(reader: &mut Reader, view: &SectionView) -> Smtp {
    let fix = "add [credential.smtp] with endpoint = \"email-smtp.REGION.amazonaws.com\"";
    let view = reader.part(view, "smtp", &SMTP, fix);
    let (read, _) = smtp(reader, view.as_ref());
    let Some(view) = view else { return read };
    if let Some(line) = reader.line_of(&view, "propagation") {
        let fix = "move it to [credential.rotation]: it is the time that SES may take to know a new key";
        reader.error(line, "propagation has no place in [credential.smtp] of this file", fix);
    }
    if let Some(line) = reader.line_of(&view, "endpoint_aliases") {
        let what = "endpoint_aliases has no effect here: this program reads no mail server's tables";
        reader.error(line, what, "remove it");
    }
    if read.ses_region().is_none() && !read.endpoint.is_empty() {
        reader.error(
            reader.line_of(&view, "endpoint").unwrap_or(view.line),
            format!("the region of {:?} is not known, and the password of a new key is made for one", read.endpoint),
            "add region = \"REGION\", that of the SES endpoint behind it",
        );
    }
    read
}

/// One place, with the canary label and its line.
struct PublishRead {
    publish: Publish,
    canary: Option<At<String>>,
}

/// `places`: those of the credentials before it, each with its line.
fn publishes(
    reader: &mut Reader,
    view: &SectionView,
    aws: &Aws,
    places: &mut Vec<(KeyPlace, usize)>,
) -> Vec<PublishRead> {
    let views = reader.tables(view, "publish", &PUBLISH);
    if !reader.is_there(view, "publish") || view.has_empty("publish") {
        let fix = "add [[credential.publish]] with type = \"secrets-manager\" and secret = \"NAME\"";
        reader.error(view.line, "publish is missing in [[credential]]", fix);
    }
    let mut all: Vec<(PublishRead, usize)> = Vec::new();
    for view in views.into_iter().flatten() {
        let kinds = [SECRETS_MANAGER, PARAMETER_STORE].map(|kind| (kind, kind));
        let add = "add type = \"secrets-manager\" or \"parameter-store\"";
        let kind = reader.require(&view, "type", add, |v| value::choice(v, &kinds, &[])).map(|at| at.value);
        let Some(kind) = kind else { continue };
        reader.keys(&view, Some(kind));
        let mut aws = aws::read(reader, &view, aws);
        let (place, key) = match kind {
            SECRETS_MANAGER => {
                let secret = reader.require(&view, "secret", "add secret = \"NAME\", a name or an ARN", secret_id);
                (PublishPlace::SecretsManager { secret: pinned(reader, &view, secret, &mut aws) }, "secret")
            }
            _ => {
                let add = "add parameter = \"/ses/smtp\", a name or an ARN";
                let parameter = reader.require(&view, "parameter", add, parameter_id);
                (PublishPlace::ParameterStore { parameter: pinned(reader, &view, parameter, &mut aws) }, "parameter")
            }
        };
        let forms = [("keep", Form::Keep), ("pair", Form::Pair), ("json", Form::Json), ("iam-key", Form::IamKey)];
        let form = reader.read(&view, "form", |v| value::choice(v, &forms, &[])).map_or(Form::Keep, |at| at.value);
        let canary = match kind {
            SECRETS_MANAGER => reader.read(&view, "canary", canary),
            _ => None,
        };
        let publish = Publish { place, form, aws };
        if let Some((_, first)) =
            all.iter().find(|(other, _)| other.publish.at() == publish.at() && !publish.place.name().is_empty())
        {
            let line = reader.line_of(&view, key).unwrap_or(view.line);
            let what = format!("{key}: the place on line {first} is the same");
            reader.error(line, what, "remove one of the two, or give them different regions");
        } else if let Some((_, first)) =
            places.iter().find(|(place, _)| *place == publish.at() && !place.name.is_empty())
        {
            let line = reader.line_of(&view, key).unwrap_or(view.line);
            let what = format!("{key}: another credential publishes in the same place, on line {first}");
            reader.error(
                line,
                what,
                "give each credential a place of its own: one of the two would write over the other",
            );
        }
        all.push((PublishRead { publish, canary }, view.line));
    }
    places.extend(all.iter().map(|(read, line)| (read.publish.at(), *line)));
    all.into_iter().map(|(read, _)| read).collect()
}

/// A label that canary hosts watch. It is none of those that mean something to the store itself.
fn canary(value: &DeValue) -> Judged<String> {
    if value.is_array() {
        return mistake("several labels, one after the other, are not yet supported", "write one label, in quotes");
    }
    let label = stage(value)?;
    if label.starts_with("AWS") {
        return mistake(
            format!("{label:?} is one of Secrets Manager's own labels"),
            "write another one, such as \"relaykey-canary\"",
        );
    }
    Ok(label)
}

/// Canary hosts come before the others where the key is published in one place.
fn one_canary(reader: &mut Reader, publish: &[PublishRead]) -> Option<String> {
    let first = publish.iter().find_map(|read| read.canary.as_ref())?;
    if publish.len() > 1 {
        let what = "canary: this credential has several [[credential.publish]], and canary hosts are possible with one";
        reader.error(first.line, what, "leave canary out, or keep one [[credential.publish]]");
    }
    Some(first.value.clone())
}

fn evidence(reader: &mut Reader, view: &SectionView, aws: &Aws) -> EvidenceConfig {
    let nothing = || EvidenceConfig::ParameterStore { path: String::new(), aws: aws.clone() };
    let fix = "add [credential.evidence] with type = \"dynamodb\" and table = \"relaykey\": where the hosts report to";
    let Some(view) = reader.part(view, "evidence", &EVIDENCE, fix) else { return nothing() };
    let kinds = [DYNAMODB, PARAMETER_STORE].map(|kind| (kind, kind));
    let add = "add type = \"dynamodb\" or \"parameter-store\", as in the hosts' [[report]]";
    let kind = reader.require(&view, "type", add, |v| value::choice(v, &kinds, &[])).map(|at| at.value);
    let Some(kind) = kind else { return nothing() };
    reader.keys(&view, Some(kind));
    let aws = aws::read(reader, &view, aws);
    match kind {
        DYNAMODB => {
            let table = reader.require(&view, "table", "add table = \"relaykey\"", table_name);
            let kinds = [("userid", PrincipalBy::UserId), ("source-identity", PrincipalBy::SourceIdentity)];
            let principal = reader.read(&view, "principal", |v| value::choice(v, &kinds, &[]));
            EvidenceConfig::DynamoDb {
                table: table.map(|at| at.value).unwrap_or_default(),
                principal: principal.map_or(PrincipalBy::UserId, |at| at.value),
                aws,
            }
        }
        _ => {
            let path = reader.require(&view, "path", "add path = \"/relaykey\"", parameter_path);
            EvidenceConfig::ParameterStore { path: path.map(|at| at.value).unwrap_or_default(), aws }
        }
    }
}

/// `[credential.rotation]` over the defaults.
fn policy(reader: &mut Reader, view: &SectionView, mut policy: Policy, lab: bool) -> Policy {
    let section = reader.table(view, "rotation", &ROTATION);
    let Some(view) = section else { return policy };
    reader.keys(&view, None);
    for (key, slot) in [
        ("every", &mut policy.every),
        ("propagation", &mut policy.propagation),
        ("canary_soak", &mut policy.canary_soak),
        ("grace", &mut policy.grace),
        ("last_use_lag", &mut policy.last_use_lag),
        ("observe", &mut policy.observe),
    ] {
        if let Some(at) = reader.read(&view, key, length) {
            *slot = at.value;
        }
    }
    let ends = [("after-observe", DeleteOld::AfterObserve), ("never", DeleteOld::Never)];
    if let Some(at) = reader.read(&view, "delete", |v| value::choice(v, &ends, &[])) {
        policy.delete = at.value;
    }
    if let Some(at) = reader.read(&view, "expected_hosts", hosts) {
        policy.expected_hosts = at.value;
    }
    if lab {
        return policy.in_a_lab();
    }
    for short in policy.too_short() {
        let line = reader.line_of(&view, short.setting).unwrap_or(view.line);
        reader.error(
            line,
            short.to_string(),
            format!("set {} = \"{:#}\" or more, or leave it out", short.setting, short.least),
        );
    }
    policy
}

/// Between a tenth of a second and ten years; days too, which have 24 hours here.
fn length(value: &DeValue) -> Judged<SignedDuration> {
    let range = Duration::from_millis(100)..=Duration::from_secs(3650 * 86_400);
    let text = value.as_str().unwrap_or_default();
    let days = text.strip_suffix('d').filter(|days| days.len() <= 4).and_then(|days| days.parse::<u32>().ok());
    let length = match days.map(|days| Duration::from_secs(u64::from(days) * 86_400)) {
        Some(length) if range.contains(&length) => length,
        Some(_) => return mistake(format!("{text:?} is out of bounds"), "choose from \"100ms\" to \"3650d\""),
        None => {
            let usage = "write a number with its unit, in quotes: \"90d\", \"24h\", \"10m\", \"30s\"";
            value::duration_written(value, range, usage)?
        }
    };
    Ok(SignedDuration::try_from(length).expect("ten years at most"))
}

fn hosts(value: &DeValue) -> Judged<usize> {
    match usize::try_from(value::integer(value)?) {
        Ok(hosts) if hosts <= 1_000_000 => Ok(hosts),
        _ => mistake(
            "there are not so many hosts",
            "write how many mail servers there are; 0: `relaykey-rotate hosts seal` says it",
        ),
    }
}

/// A user's name (IAM, CreateUser).
fn iam_user(value: &DeValue) -> Judged<String> {
    let text = trimmed(value)?;
    let fits = |b: u8| b.is_ascii_alphanumeric() || b"_+=,.@-".contains(&b);
    match text {
        _ if text.starts_with("arn:") => mistake("this is an ARN", "write the user's name alone"),
        _ if text.len() <= 64 && text.bytes().all(fits) => Ok(text.to_owned()),
        _ => mistake("this is no name of an IAM user", "write the user's name: at most 64 letters, digits and _+=,.@-"),
    }
}

#[cfg(test)]
mod tests;
