//! `[[report]]`: the places that reports go to.

use std::collections::HashMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::aws::{self, Aws};
use super::value::{self, Judged, expected, mistake, trimmed};
use super::{AtSign, Credential, DeValue, Reader, Section, SectionView, key};
use relaykey_core::config::url::{ClearText, UrlRule, url};
use relaykey_core::report::place::TableLayout;

const PARAMETER_STORE: &str = "parameter-store";
const DYNAMODB: &str = "dynamodb";
const WEBHOOK: &str = "webhook";
const EMAIL: &str = "email";
const EXEC: &str = "exec";
/// Receivers of reports that are reached by AWS's interface; e-mail goes through SES's own where its server is "ses".
const REPORT_AWS_TYPES: &[&str] = &[PARAMETER_STORE, DYNAMODB, EMAIL];

pub(super) static REPORT: Section = Section {
    header: "[[report]]",
    keys: &[
        key("name"),
        key("type").few(),
        key("credentials").hidden(),
        key("spread"),
        key("path").only(&[PARAMETER_STORE]),
        key("table").only(&[DYNAMODB]),
        key("layout").few().only(&[DYNAMODB]).default("1"),
        key("source_identity").only(&[DYNAMODB]),
        key("url").only(&[WEBHOOK]).hidden(),
        key("secret_file").only(&[WEBHOOK]),
        key("ca_file").only(&[WEBHOOK]),
        key("from").only(&[EMAIL]).hidden().at(AtSign::Belongs),
        key("to").only(&[EMAIL]).hidden().at(AtSign::Belongs),
        key("server").only(&[EMAIL]).default("\"localhost:25\"").hidden(),
        key("command").only(&[EXEC]).hidden(),
        key("user").only(&[EXEC]).default("\"nobody\""),
        key("timeout").few().only(&[EXEC]).default("\"30s\""),
        key("region").only(REPORT_AWS_TYPES),
        key("profile").only(REPORT_AWS_TYPES),
        key("role_arn").only(REPORT_AWS_TYPES),
        key("external_id").only(REPORT_AWS_TYPES).hidden(),
        key("endpoint_url").only(REPORT_AWS_TYPES).hidden(),
    ],
};

/// The longest that a report may wait so that a fleet does not come together: a rotation waits for the last one.
const LONGEST_SPREAD: Duration = Duration::from_secs(15 * 60);

/// Where a webhook is.
const URL: UrlRule = UrlRule {
    usage: "write it like https://HOST/PATH",
    no_login: "remove the user name and the password: no secret stands in this file; the receiver knows this host by the \
               signature that is made with `secret_file`",
    takes_query: true,
    clear: ClearText::Never("the reports would cross the network without encryption", "use https"),
};

/// `[[report]]`: one place that reports go to.
#[derive(Debug, Clone, PartialEq)]
pub struct ReceiverConfig {
    /// Unique; the outbox keys on it.
    pub name: String,
    /// How it is reached.
    pub kind: ReceiverKind,
    /// The credentials whose reports it gets; `None`: all.
    pub credentials: Option<Vec<String>>,
    /// Over how long first attempts of a fleet are spread; `None`: as its kind has it.
    pub spread: Option<Duration>,
}

impl ReceiverConfig {
    /// Does it get the reports of this credential?
    pub fn takes(&self, credential: &str) -> bool {
        self.credentials.as_ref().is_none_or(|names| names.iter().any(|name| name == credential))
    }
}

/// The kind of place that reports go to.
#[derive(Debug, Clone, PartialEq)]
pub enum ReceiverKind {
    /// One parameter per credential and host: `PATH/CREDENTIAL/HOST`. Holds the latest report.
    ParameterStore {
        /// Begins with `/`, does not end with it. Fits into a parameter's name with credential and host behind it.
        path: String,
        /// `[aws]` with what the receiver overrides.
        aws: Aws,
    },
    /// One item per credential and host. Holds the latest report.
    DynamoDb {
        /// Name of the table.
        table: String,
        /// Its keys.
        keys: TableKeys,
        /// `[aws]` with what the receiver overrides.
        aws: Aws,
    },
    /// An HTTPS POST for every report, signed as Standard Webhooks does.
    Webhook {
        /// `https`, without user name and password.
        url: String,
        /// Holds the signing secret, `whsec_…`. Absolute.
        secret_file: PathBuf,
        /// PEM bundle to trust instead of the system's. Absolute.
        ca_file: Option<PathBuf>,
    },
    /// A message for every report but `alive`.
    Email {
        /// Mail address of the sender.
        from: String,
        /// Mail addresses; at least one.
        to: Vec<String>,
        /// Who takes the messages.
        via: MailVia,
    },
    /// A program that is started for every report, which it gets on its standard input.
    Exec {
        /// An argv array. Not empty; the program's path is absolute.
        command: Vec<String>,
        /// The user it runs as; not root.
        user: String,
        /// It is ended after so long, with all that it started.
        timeout: Duration,
    },
}

/// By which keys a table of reports holds its items: `layout`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TableKeys {
    /// Layout 1: `credential` and `host`.
    ByHost,
    /// Layout 2: `principal`, which is the UserId that STS names, and `credential#host_id`. IAM can hold each host to its own.
    ByUserId,
    /// Layout 2, where `principal` is the source identity of the session: this one.
    BySourceIdentity(String),
}

impl TableKeys {
    /// The layout of such a table.
    pub fn layout(&self) -> TableLayout {
        match self {
            TableKeys::ByHost => TableLayout::ByHost,
            TableKeys::ByUserId | TableKeys::BySourceIdentity(_) => TableLayout::ByPrincipal,
        }
    }
}

impl ReceiverKind {
    /// How AWS is reached for it; `None`: it is not.
    pub fn aws(&self) -> Option<&Aws> {
        match self {
            ReceiverKind::ParameterStore { aws, .. }
            | ReceiverKind::DynamoDb { aws, .. }
            | ReceiverKind::Email { via: MailVia::Ses(aws), .. } => Some(aws),
            ReceiverKind::Webhook { .. } | ReceiverKind::Email { .. } | ReceiverKind::Exec { .. } => None,
        }
    }

    /// Its `type` in the file.
    pub fn word(&self) -> &'static str {
        match self {
            ReceiverKind::ParameterStore { .. } => PARAMETER_STORE,
            ReceiverKind::DynamoDb { .. } => DYNAMODB,
            ReceiverKind::Webhook { .. } => WEBHOOK,
            ReceiverKind::Email { .. } => EMAIL,
            ReceiverKind::Exec { .. } => EXEC,
        }
    }

    /// What it keeps of the reports that it gets.
    pub fn keeps(&self) -> Keeps {
        match self {
            ReceiverKind::ParameterStore { .. } | ReceiverKind::DynamoDb { .. } => Keeps::Latest,
            ReceiverKind::Webhook { .. } | ReceiverKind::Email { .. } | ReceiverKind::Exec { .. } => Keeps::Every,
        }
    }

    /// Is it a person who reads what it gets, and not a program?
    pub fn is_for_people(&self) -> bool {
        match self {
            ReceiverKind::Email { .. } => true,
            ReceiverKind::ParameterStore { .. }
            | ReceiverKind::DynamoDb { .. }
            | ReceiverKind::Webhook { .. }
            | ReceiverKind::Exec { .. } => false,
        }
    }

    /// Does it need this host's mail server to get out? Which way that would send the message is not looked at: it may change
    /// any day, and nobody would think of this then.
    pub fn rides_on_this_host(&self) -> bool {
        match self {
            ReceiverKind::Email { via, .. } => matches!(via, MailVia::Server { .. }),
            ReceiverKind::ParameterStore { .. }
            | ReceiverKind::DynamoDb { .. }
            | ReceiverKind::Webhook { .. }
            | ReceiverKind::Exec { .. } => false,
        }
    }
}

/// What a receiver keeps of the reports about one credential on one host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keeps {
    /// One document, so that only the latest is owed.
    Latest,
    /// All of them.
    Every,
}

/// Who takes messages of an `email` receiver.
#[derive(Debug, Clone, PartialEq)]
pub enum MailVia {
    /// A mail server, without login and without TLS: the one on this machine.
    Server {
        /// `localhost`, or a loopback address.
        host: String,
        /// TCP port.
        port: u16,
    },
    /// SES, by its API: with the host's own rights in AWS, not with the credential that is reported about.
    Ses(Aws),
}

/// `[[report]]`. `known`: the credentials' names are all there, so that one that is not among them is a mistake.
pub(super) fn read_all(
    reader: &mut Reader,
    top: &SectionView,
    aws: &Aws,
    credentials: &[Credential],
    known: bool,
) -> Vec<ReceiverConfig> {
    let views = reader.tables(top, "report", &REPORT).unwrap_or_default();
    let mut names = HashMap::new();
    let mut receivers: Vec<(usize, ReceiverConfig)> = Vec::new();
    for view in views {
        let name = reader.require(&view, "name", "add name = \"fleet\" below [[report]]", value::name);
        if let Some(name) = &name {
            reader.unique(name, &mut names, "receiver of reports");
        }
        let kinds = [PARAMETER_STORE, DYNAMODB, WEBHOOK, EMAIL, EXEC].map(|kind| (kind, kind));
        let add = "add type = \"parameter-store\", \"dynamodb\", \"webhook\", \"email\" or \"exec\"";
        let kind = reader.require(&view, "type", add, |v| value::choice(v, &kinds, &[])).map(|at| at.value);
        let chosen = chosen(reader, &view, credentials, known);
        let spread = reader.read(&view, "spread", |v| value::duration(v, Duration::ZERO..=LONGEST_SPREAD));
        // Which keys belong to a type that is not known, is not known either.
        let Some(kind) = kind else { continue };
        reader.keys(&view, Some(kind));
        let place = receiver(reader, &view, kind, aws);
        let (Some(name), Some(kind)) = (name, place) else { continue };
        let receiver =
            ReceiverConfig { name: name.value, kind, credentials: chosen, spread: spread.map(|at| at.value) };
        // Both would write one document, and the older report could come last.
        let same = |(_, first): &&(usize, ReceiverConfig)| {
            receiver.kind.keeps() == Keeps::Latest
                && first.kind == receiver.kind
                && credentials.iter().any(|c| first.takes(&c.name) && receiver.takes(&c.name))
        };
        if let Some((first, _)) = receivers.iter().find(same) {
            let (key, what) = match receiver.kind {
                ReceiverKind::ParameterStore { .. } => ("path", "parameters"),
                _ => ("table", "items"),
            };
            let line = reader.line_of(&view, key).unwrap_or(view.line);
            let what = format!("{key}: the receiver on line {first} writes the same {what}");
            reader.error(line, what, format!("remove one of the two, or give them different `{key}` or `credentials`"));
        }
        receivers.push((view.line, receiver));
    }
    receivers.into_iter().map(|(_, receiver)| receiver).collect()
}

/// Where a receiver of this type is. `None`: something that it needs is wrong or missing, which is recorded.
fn receiver(reader: &mut Reader, view: &SectionView, kind: &str, aws: &Aws) -> Option<ReceiverKind> {
    match kind {
        PARAMETER_STORE => {
            let aws = aws::read(reader, view, aws);
            let path = reader.require(view, "path", "add path = \"/relaykey\"", parameter_path);
            Some(ReceiverKind::ParameterStore { path: path?.value, aws })
        }
        DYNAMODB => {
            let aws = aws::read(reader, view, aws);
            let table = reader.require(view, "table", "add table = \"relaykey\"", table_name);
            let keys = table_keys(reader, view);
            Some(ReceiverKind::DynamoDb { table: table?.value, keys, aws })
        }
        WEBHOOK => {
            let add = "add url = \"https://hooks.example.com/relaykey\"";
            let url = reader.require(view, "url", add, |v| url(v, &URL));
            let add = "add secret_file = \"/etc/relaykey/webhook.secret\": a file with the signing secret, whsec_…";
            let secret_file = reader.require(view, "secret_file", add, value::absolute);
            let ca_file = reader.read(view, "ca_file", value::absolute).map(|at| at.value);
            Some(ReceiverKind::Webhook { url: url?.value, secret_file: secret_file?.value, ca_file })
        }
        EMAIL => {
            let from = reader.require(view, "from", "add from = \"relaykey@example.com\"", value::mail_address);
            let empty = "name at least one address";
            reader.must(view, "to", "add to = [\"postmaster@example.com\"]");
            let to = reader.one_or_more(view, "to", empty, value::mail_address, |to| to.to_lowercase());
            let server = reader.read(view, "server", mail_server);
            // With a mistake in `server`, what was meant by it is not known.
            let ses = server.as_ref().map_or(view.has("server"), |at| at.value.is_none());
            let via = if ses {
                MailVia::Ses(aws::read(reader, view, aws))
            } else {
                for key in ["region", "profile", "role_arn", "external_id", "endpoint_url"] {
                    let Some(line) = reader.line_of(view, key) else { continue };
                    reader.error(
                        line,
                        format!("{key} has no effect: the messages go to a mail server, not to AWS"),
                        format!("remove {key}, or set server = \"ses\""),
                    );
                }
                let (host, port) = server.and_then(|at| at.value).unwrap_or_else(|| ("localhost".to_owned(), 25));
                MailVia::Server { host, port }
            };
            Some(ReceiverKind::Email { from: from?.value, to: to?, via })
        }
        EXEC => {
            let add = "add command = [\"/usr/local/lib/relaykey/report\"]";
            let command = reader.require(view, "command", add, command);
            let user = reader.read(view, "user", user_name);
            let range = Duration::from_secs(1)..=Duration::from_secs(300);
            let timeout = reader.read(view, "timeout", |v| value::duration(v, range));
            Some(ReceiverKind::Exec {
                command: command?.value,
                user: user.map_or_else(|| "nobody".to_owned(), |at| at.value),
                timeout: timeout.map_or(Duration::from_secs(30), |at| at.value),
            })
        }
        other => unreachable!("{other} is no type of receiver"),
    }
}

/// `layout`, and what belongs to it.
fn table_keys(reader: &mut Reader, view: &SectionView) -> TableKeys {
    let layout = reader.read(view, "layout", |v| match value::integer(v)? {
        n @ (1 | 2) => Ok(n),
        other => mistake(
            format!("there is no layout {other}"),
            "write 2 for a table with the keys `principal` and `credential#host_id`, 1 for one with `credential` and `host`",
        ),
    });
    let identity = reader.read(view, "source_identity", source_identity);
    match (layout.map(|at| at.value), identity) {
        (Some(2), Some(identity)) => TableKeys::BySourceIdentity(identity.value),
        (Some(2), None) => TableKeys::ByUserId,
        // With a mistake in `layout`, what was meant by it is not known.
        (None, _) if view.has("layout") => TableKeys::ByHost,
        (_, None) => TableKeys::ByHost,
        (_, Some(identity)) => {
            reader.error(
                identity.line,
                "source_identity has no effect: a table of layout 1 has no place for it",
                "set layout = 2, if the table has the keys `principal` and `credential#host_id`; else remove source_identity",
            );
            TableKeys::ByHost
        }
    }
}

/// A source identity as STS takes it (AssumeRole, `SourceIdentity`). Partitions that begin with `!` are the control side's.
fn source_identity(value: &DeValue) -> Judged<String> {
    let text = trimmed(value)?;
    let fits = |b: u8| b.is_ascii_alphanumeric() || b"_=,.@-".contains(&b);
    match (2..=64).contains(&text.len()) && text.bytes().all(fits) {
        true => Ok(text.to_owned()),
        false => mistake(
            format!("{text:?} cannot be a source identity"),
            "write it as the session has it: 2 to 64 letters, digits and _=,.@-",
        ),
    }
}

/// The credentials whose reports a receiver gets; `None`: all.
fn chosen(reader: &mut Reader, view: &SectionView, credentials: &[Credential], known: bool) -> Option<Vec<String>> {
    let empty = "name a credential, or leave `credentials` out: all of them";
    let judge = |v: &DeValue| {
        let name = value::name(v)?;
        if !known || credentials.iter().any(|c| c.name == name) {
            return Ok(name);
        }
        let names: Vec<&str> = credentials.iter().map(|c| c.name.as_str()).collect();
        let guess = value::similar(&name, &names).map(|s| format!("did you mean {s:?}? ")).unwrap_or_default();
        let fix = format!("{guess}There are: {}", value::quoted_list(&names, ", "));
        mistake(format!("there is no credential {name:?} in the file"), fix)
    };
    reader.list(view, "credentials", empty, judge, String::clone)
}

/// A program with its arguments.
fn command(value: &DeValue) -> Judged<Vec<String>> {
    let usage = "write a list, the program's full path first: [\"/usr/local/lib/relaykey/report\", \"--fleet\"]";
    match value {
        DeValue::Array(_) => value::argv(value, usage),
        DeValue::String(_) => mistake("a command is no string: nothing here splits it", usage),
        other => mistake(expected("a list of strings", other), usage),
    }
}

/// A user of this host, by name. Whether there is one of that name is for those to say who use it.
fn user_name(value: &DeValue) -> Judged<String> {
    let text = trimmed(value)?;
    let fits = |b: u8| b.is_ascii_alphanumeric() || b"_.-".contains(&b);
    if text == "root" || text.bytes().all(|b| b.is_ascii_digit()) {
        return mistake(
            format!("{text:?} cannot be the user that a report is handed to"),
            "name a user without rights, such as \"nobody\"",
        );
    }
    if text.len() > 32 || text.starts_with('-') || !text.bytes().all(fits) {
        return mistake(format!("{text:?} is no user name"), "name a user of this host, such as \"nobody\"");
    }
    Ok(text.to_owned())
}

/// A mail server on this machine, or `ses`, which is `None`.
fn mail_server(value: &DeValue) -> Judged<Option<(String, u16)>> {
    let text = trimmed(value)?;
    let usage = "write \"localhost:25\", the mail server on this machine, or \"ses\"";
    if text == "ses" {
        return Ok(None);
    }
    let (host, port) = match text.rsplit_once(':') {
        Some((host, digits)) if !host.contains(':') || host.ends_with(']') => match digits.parse::<u16>() {
            Ok(port) if port > 0 => (host, port),
            _ => return mistake(format!("there is no port {digits:?}"), usage),
        },
        _ => (text, 25),
    };
    let host = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host);
    if host.eq_ignore_ascii_case("localhost") || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback()) {
        return Ok(Some((host.to_ascii_lowercase(), port)));
    }
    mistake(format!("{text:?} is not on this machine, and messages go there without TLS and without a login"), usage)
}

/// Name of a table (DynamoDB, "Naming rules").
pub fn table_name(value: &DeValue) -> Judged<String> {
    let text = trimmed(value)?;
    let fits = |b: u8| b.is_ascii_alphanumeric() || b"_.-".contains(&b);
    if (3..=255).contains(&text.len()) && text.bytes().all(fits) {
        return Ok(text.to_owned());
    }
    let what =
        if text.starts_with("arn:") { "this is an ARN".to_owned() } else { format!("{text:?} is no name of a table") };
    mistake(what, "write the table's name: 3 to 255 letters, digits and _.-")
}

/// Levels that a parameter's name may have (Systems Manager, "Requirements and constraints for parameter names"), less the
/// two that are appended: credential and host.
const MAX_LEVELS: usize = 13;

/// A name may have 1011 characters, the ARN in front of it and what is appended included; a credential has up to 64, a
/// host up to 253.
const MAX_PATH: usize = 512;

/// The path below which reports are stored as parameters.
pub fn parameter_path(value: &DeValue) -> Judged<String> {
    let text = trimmed(value)?;
    let example = "write it like \"/relaykey\"";
    if text.starts_with("arn:") {
        return mistake("this is an ARN", "write the path alone, like \"/relaykey\"; the region is said by `region`");
    }
    if !text.starts_with('/') {
        return mistake(format!("{text:?} does not begin with a slash"), format!("write \"/{text}\""));
    }
    let path = text.trim_end_matches('/');
    if path.is_empty() {
        return mistake("the path has no name in it", example);
    }
    if path != text {
        return mistake(format!("{text:?} ends with a slash"), format!("write {path:?}"));
    }
    let fits = |b: u8| b.is_ascii_alphanumeric() || b"_.-".contains(&b);
    let parts: Vec<&str> = path.split('/').skip(1).collect();
    if parts.iter().any(|part| part.is_empty() || !part.bytes().all(fits)) {
        let what = format!("{text:?} cannot begin the name of a parameter");
        return mistake(what, "use letters, digits and _.-, with one / between the parts");
    }
    let lower = parts[0].to_ascii_lowercase();
    if lower.starts_with("aws") || lower.starts_with("ssm") {
        let what = "names that begin with aws or ssm are reserved in Parameter Store";
        return mistake(what, "begin the path otherwise: \"/relaykey\"");
    }
    if parts.len() > MAX_LEVELS || path.len() > MAX_PATH {
        let what = "the path is too long for Parameter Store: /CREDENTIAL/HOST is appended to it";
        return mistake(what, format!("use at most {MAX_LEVELS} parts and {MAX_PATH} characters"));
    }
    Ok(path.to_owned())
}
