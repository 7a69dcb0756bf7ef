//! The configuration file: its schema, version 1, and what the program makes of it.
//!
//! [`parse`] reads the text into a [`Config`] with every default filled in, or says everything that is wrong with it,
//! each mistake with its line and its fix. [`SCHEMA`] lists the keys; `config.example.toml` ([`EXAMPLE`]) explains them
//! to people, and tests keep the two and the reader together. Apart from [`load`] and [`render`], which read the file,
//! nothing here does I/O: whether a path exists is for those to say who use it.
//!
//! A configuration holds no secrets, but people put them there by mistake. So a finding names an unknown key without
//! its value, and a quoted line shows the value only of keys whose values are harmless.

mod reader;
mod schema;
mod syntax;
mod value;
mod window;

use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::Duration;

use toml::de::DeTable;

use self::reader::Reader;
pub use self::schema::{Key, SCHEMA, Section};
use self::syntax::{Lines, Syntax, key_of};
pub use self::window::{Opening, Window};
use crate::apply;
pub use crate::apply::TargetKind;
use crate::credential::JsonKeys;
pub use crate::finding::{Finding, Severity, located};
use crate::host::{HostError, trust};
use crate::mta::Relay;
pub use crate::mta::Reload;
use crate::text;

/// The version of the schema that this program reads, as in `config_version`.
pub const VERSION: i64 = 1;

/// The default of `poll`.
pub const DEFAULT_POLL: Duration = Duration::from_secs(300);

/// `run_dir` where none is configured.
const RUN_DIR: &str = "/run/relaykey";

/// The largest configuration file, in bytes. A file above it is something else.
pub const MAX_FILE: u64 = 1 << 20;

/// The commented example that is installed beside the program; it parses as it stands.
pub const EXAMPLE: &str = include_str!("../config.example.toml");

/// Everything the program knows from its configuration; every default is filled in.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// `[host]`.
    pub host: Host,
    /// `[aws]`, before any source overrides it.
    pub aws: Aws,
    /// `[[credential]]`, in the order of the file; at least one.
    pub credentials: Vec<Credential>,
    /// `[[report]]`, in the order of the file. Without any, nothing is owed.
    pub reports: Vec<Receiver>,
    /// `[health]`; absent: no HTTP.
    pub health: Option<Health>,
}

impl Config {
    /// What the mail server's side goes by: its targets, and where it keeps what it remembers.
    pub fn mail(&self) -> apply::Setup {
        let spec = |credential: &Credential, target: &Target| apply::TargetSetup {
            id: apply::TargetId { credential: credential.name.clone(), target: target.name.clone() },
            kind: target.kind.clone(),
            relay: target.smtp.relay(),
            keys: target.keys.clone(),
            reload: target.reload.clone(),
            write: target.write,
        };
        let targets = self.credentials.iter().flat_map(|c| c.targets.iter().map(move |t| spec(c, t))).collect();
        apply::Setup { state_dir: self.host.state_dir.clone(), targets }
    }
}

/// `[[report]]`: one place that reports go to.
#[derive(Debug, Clone, PartialEq)]
pub struct Receiver {
    /// Unique; the outbox keys on it.
    pub name: String,
    /// How it is reached.
    pub kind: ReceiverKind,
    /// The credentials whose reports it gets; `None`: all.
    pub credentials: Option<Vec<String>>,
}

impl Receiver {
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
            ReceiverKind::ParameterStore { .. } => schema::PARAMETER_STORE,
            ReceiverKind::DynamoDb { .. } => schema::DYNAMODB,
            ReceiverKind::Webhook { .. } => schema::WEBHOOK,
            ReceiverKind::Email { .. } => schema::EMAIL,
            ReceiverKind::Exec { .. } => schema::EXEC,
        }
    }

    /// Is it reached with the AWS SDK?
    pub fn is_aws(&self) -> bool {
        match self {
            ReceiverKind::ParameterStore { .. } | ReceiverKind::DynamoDb { .. } => true,
            ReceiverKind::Email { via, .. } => matches!(via, MailVia::Ses(_)),
            ReceiverKind::Webhook { .. } | ReceiverKind::Exec { .. } => false,
        }
    }
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

/// `[health]`: where the daemon answers over HTTP.
#[derive(Debug, Clone, PartialEq)]
pub struct Health {
    /// In the order of the file. Empty only where `hosts` is set: for sockets that the service manager passes.
    pub listen: Vec<Listen>,
    /// Names under which it may be asked for in a `Host` header, besides the addresses it listens at, `localhost` and the
    /// host's own name. Lower case, without port; an IPv6 address stands in brackets.
    pub hosts: Vec<String>,
}

/// One place to listen at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Listen {
    /// Beyond loopback only where `public = true` was set. The port is not 0, and an IPv4 address stands as one.
    Tcp(std::net::SocketAddr),
    /// A Unix socket. Absolute.
    Unix(PathBuf),
}

impl std::fmt::Display for Listen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Listen::Tcp(address) => address.fmt(f),
            Listen::Unix(path) => path.display().fmt(f),
        }
    }
}

/// `[host]`: this machine.
#[derive(Debug, Clone, PartialEq)]
pub struct Host {
    /// As configured; the agent falls back to the fully qualified host name at first start.
    pub name: Option<String>,
    /// Where state lives that must survive a boot. Absolute.
    pub state_dir: PathBuf,
    /// Where sockets and locks live that need not. Absolute.
    pub run_dir: PathBuf,
}

/// How AWS is reached. A `secrets-manager` or `parameter-store` source carries its own, with `[aws]` filled in.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Aws {
    /// In a source: the ARN's region where the source is named by an ARN, else the configured one. `None`: the SDK's
    /// default chain decides.
    pub region: Option<String>,
    /// A profile of the AWS configuration files.
    pub profile: Option<String>,
    /// The role to assume.
    pub role_arn: Option<String>,
    /// What the role's trust policy asks for; only beside `role_arn`.
    pub external_id: Option<String>,
    /// Replaces the service's own address. `https`, or `http` to this machine itself.
    pub endpoint_url: Option<String>,
    /// HTTP proxy, without user name and password. `None`: HTTPS_PROXY and NO_PROXY decide.
    pub proxy: Option<String>,
    /// Use FIPS endpoints.
    pub use_fips: bool,
    /// Use endpoints that answer over IPv6 too.
    pub use_dualstack: bool,
}

/// `[[credential]]`: one SMTP login that hosts share.
#[derive(Debug, Clone, PartialEq)]
pub struct Credential {
    /// Unique; lower case letters, digits and `-`.
    pub name: String,
    /// Where its versions come from.
    pub source: Source,
    /// How to read the JSON of the source (`username_key`, `password_key`).
    pub keys: JsonKeys,
    /// How often the daemon asks the source, 5 seconds to a day; spread by host and jittered.
    pub poll: Duration,
    /// Who decides when a new version goes into use.
    pub mode: Mode,
    /// A message that a candidate must be able to send.
    pub probe: Option<Probe>,
    /// The mail-server configurations on this host that use it; at least one.
    pub targets: Vec<Target>,
}

/// Who decides when a new version goes into use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mode {
    /// It goes into use once it is verified.
    Automatic,
    /// It is verified and held until somebody approves it.
    Manual {
        /// Goes by itself within these hours.
        window: Option<Window>,
        /// What happens to a held version when the mail server's present login is refused.
        if_applied_dies: IfAppliedDies,
    },
}

impl Mode {
    /// As the configuration and reports spell it.
    pub fn word(&self) -> &'static str {
        match self {
            Mode::Automatic => "automatic",
            Mode::Manual { .. } => "manual",
        }
    }
}

/// `if_applied_dies`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IfAppliedDies {
    /// It stays held.
    Wait,
    /// It goes into use: held mail is worse than an unapproved key.
    Apply,
}

/// `[credential.probe]`: a message that goes out over the candidate's login before the swap.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Probe {
    /// Mail address of the sender.
    pub from: String,
    /// Mail address of the recipient.
    pub to: String,
}

/// `[credential.source]`: where versions come from.
#[derive(Debug, Clone, PartialEq)]
pub enum Source {
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

impl Source {
    /// Can it still give a version when it has a newer one? AWS keeps at least the one before; a file has one content.
    pub fn gives_older(&self) -> bool {
        !matches!(self, Source::File { .. })
    }

    /// How AWS is reached for it; `None`: it is not.
    pub fn aws(&self) -> Option<&Aws> {
        match self {
            Source::SecretsManager { aws, .. } | Source::ParameterStore { aws, .. } => Some(aws),
            Source::File { .. } => None,
        }
    }
}

/// Where and how to log in: `[credential.smtp]`, with a target's overrides applied.
#[derive(Debug, Clone, PartialEq)]
pub struct Smtp {
    /// Host name, as certificates name it.
    pub endpoint: String,
    /// TCP port.
    pub port: u16,
    /// How the connection becomes TLS.
    pub tls: Tls,
    /// The configured SES region; else it is read from the endpoint's name (`credential::ses_region`).
    pub region: Option<String>,
    /// PEM bundle to trust instead of the system's. Absolute.
    pub ca_file: Option<PathBuf>,
    /// Bounds the whole dialogue.
    pub timeout: Duration,
    /// How long, from the first refusal seen here, a 535 means "not yet".
    pub propagation: Duration,
    /// At the earliest this long after a 535 it is tried again.
    pub retry: Duration,
    /// Other host names under which the mail server may know the endpoint.
    pub endpoint_aliases: Vec<String>,
}

impl Smtp {
    /// What a mail server's tables know of it.
    pub fn relay(&self) -> Relay {
        let Self { endpoint, port, region, endpoint_aliases, .. } = self.clone();
        Relay { endpoint, port, region, endpoint_aliases }
    }
}

/// How a connection becomes TLS. There is no way without.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tls {
    /// In the clear first, then STARTTLS (RFC 3207).
    Starttls,
    /// From the first byte (RFC 8314).
    Implicit,
}

/// `[[credential.target]]`: one mail-server configuration on this host.
#[derive(Debug, Clone, PartialEq)]
pub struct Target {
    /// Unique within the credential.
    pub name: String,
    /// Which mail server, and where its configuration is.
    pub kind: TargetKind,
    /// How the mail server is told.
    pub reload: Reload,
    /// What happens when somebody else changes our entries.
    pub drift: Drift,
    /// False: a person changes it; relaykey shows how, watches and confirms.
    pub write: bool,
    /// Exactly these lookup keys are ours, where given.
    pub keys: Option<Vec<String>>,
    /// The mail log, whose refusals wake the daemon.
    pub log: Log,
    /// `[credential.smtp]` with this target's overrides.
    pub smtp: Smtp,
}

/// Where the mail server logs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Log {
    /// Where this host keeps it: found by the daemon.
    Found,
    /// The systemd journal.
    Journal,
    /// A file, followed across rotation. Absolute.
    File(PathBuf),
}

/// What happens when somebody else changes our entries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Drift {
    /// The applied login is put back.
    Heal,
    /// It is only said.
    Report,
}

/// Reads a configuration. With the configuration come warnings and notes.
///
/// # Errors
/// Every finding, by line, if at least one of them is an error; so four mistakes give four findings. After a syntax
/// error that leaves open which table the following lines belong to, only syntax errors are reported, since the rest
/// would be guesses.
pub fn parse(text: &str) -> Result<(Config, Vec<Finding>), Vec<Finding>> {
    parse_on(text, &|_| true)
}

/// As [`parse`], for a host that has these users.
fn parse_on(text: &str, is_user: &dyn Fn(&str) -> bool) -> Result<(Config, Vec<Finding>), Vec<Finding>> {
    let lines = Lines::new(text);
    let mut syntax = Syntax::judge(text, &lines);
    let Some(rest) = syntax.rest else { return Err(syntax.findings) };
    let (tree, _) = DeTable::parse_recoverable(&rest);
    let mut reader = Reader::new(&lines, syntax.lost, is_user);
    let config = reader.config(tree.get_ref());
    let mut findings = reader.findings;
    findings.append(&mut syntax.findings);
    findings.sort_by_key(|f| (f.line, f.severity));
    match config {
        Some(config) if findings.iter().all(|f| f.severity != Severity::Error) => Ok((config, findings)),
        _ => Err(findings),
    }
}

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// There is no such file.
    #[error("{} does not exist", path.display())]
    Missing {
        /// The file asked for.
        path: PathBuf,
    },
    /// The path names a directory.
    #[error("{} is a directory", path.display())]
    Directory {
        /// The file asked for.
        path: PathBuf,
    },
    /// The path names a pipe, a socket or a device.
    #[error("{} is not a regular file", path.display())]
    NotAFile {
        /// The file asked for.
        path: PathBuf,
    },
    /// This user may not read it.
    #[error("{} may not be read by this user", path.display())]
    Denied {
        /// The file asked for.
        path: PathBuf,
    },
    /// Somebody else could have written it.
    #[error("{source}")]
    Untrusted {
        /// The file asked for.
        path: PathBuf,
        /// Who, and where.
        #[source]
        source: HostError,
    },
    /// Any other failure to read.
    #[error("{} cannot be read", path.display())]
    Io {
        /// The file asked for.
        path: PathBuf,
        /// What the operating system said.
        #[source]
        source: io::Error,
    },
    /// Larger than [`MAX_FILE`].
    #[error("{} is larger than 1 MiB: this is something else", path.display())]
    TooLarge {
        /// The file asked for.
        path: PathBuf,
    },
    /// Not UTF-8 text, or with a NUL byte in it.
    #[error("{} is not UTF-8 text: byte {offset}, on line {line}, is {byte:#04x}", path.display())]
    NotText {
        /// The file asked for.
        path: PathBuf,
        /// 1-based, of the first byte that is wrong.
        line: usize,
        /// 0-based offset of that byte in the file.
        offset: usize,
        /// The byte itself.
        byte: u8,
    },
    /// It was read, and has mistakes.
    #[error("{} has {}", path.display(), mistakes(findings))]
    Invalid {
        /// The file asked for.
        path: PathBuf,
        /// Everything there is to say about it, by line; at least one error.
        findings: Vec<Finding>,
    },
}

fn mistakes(findings: &[Finding]) -> String {
    match findings.iter().filter(|f| f.severity == Severity::Error).count() {
        1 => "1 mistake".to_owned(),
        n => format!("{n} mistakes"),
    }
}

impl LoadError {
    /// The error as findings, so that there is one way to show it: those of the content, or a single one for a file
    /// that could not be read.
    pub fn findings(&self) -> Vec<Finding> {
        let (path, line, what, fix) = match self {
            LoadError::Invalid { findings, .. } => return findings.clone(),
            LoadError::Missing { path } => {
                let fix = "create it (config.example.toml explains every key), or name another one with --config PATH";
                (path, None, "the configuration does not exist".to_owned(), fix)
            }
            LoadError::Directory { path } => {
                let fix = "name the file in it: --config PATH/config.toml";
                (path, None, "the configuration is a directory".to_owned(), fix)
            }
            LoadError::NotAFile { path } => {
                let fix = "name a regular file with --config PATH; pipes and devices are not read";
                (path, None, "the configuration is not a regular file".to_owned(), fix)
            }
            LoadError::Denied { path } => {
                let fix = "run as root, or let this user read the file and enter each directory above it";
                (path, None, "the configuration may not be read by this user".to_owned(), fix)
            }
            LoadError::Untrusted { path, source } => {
                let what = format!("the configuration is not obeyed: {source}");
                let fix = source.fix();
                return vec![Finding { severity: Severity::Error, line: None, file: Some(path.clone()), what, fix }];
            }
            LoadError::Io { path, source } => {
                let fix = "see to the file system, then try again";
                (path, None, format!("the configuration cannot be read: {source}"), fix)
            }
            LoadError::TooLarge { path } => {
                let fix = "name the right file with --config PATH";
                (path, None, "the configuration is larger than 1 MiB: this is something else".to_owned(), fix)
            }
            LoadError::NotText { path, line, offset, byte } => {
                let what = format!("the configuration is not UTF-8 text: the byte at offset {offset} is {byte:#04x}");
                (path, Some(*line), what, "save the file as UTF-8, without NUL bytes")
            }
        };
        vec![Finding { severity: Severity::Error, line, file: Some(path.clone()), what, fix: fix.to_owned() }]
    }
}

/// Reads and parses a configuration file. With the configuration come warnings and notes.
///
/// # Errors
/// Somebody else could have written it; it cannot be read, is no text, or has mistakes; [`LoadError::findings`] and
/// [`render`] say which, and what to do.
pub fn load(path: &Path) -> Result<(Config, Vec<Finding>), LoadError> {
    let (text, doubts) = read_text(path)?;
    let invalid = |findings| LoadError::Invalid { path: path.to_owned(), findings };
    let (config, mut findings) = parse_on(&text, &is_user).map_err(invalid)?;
    findings.extend(doubts.iter().map(Finding::from));
    Ok((config, findings))
}

/// Is there a user of this name or number on this host? Where that cannot be told, who uses it will see.
fn is_user(name: &str) -> bool {
    trust::user_id(name).map_or(true, |found| found.is_some())
}

/// Where the daemon of this configuration is reached: also with mistakes in the file, which a daemon that started before
/// they were made does not go by.
pub fn run_dir(path: &Path) -> PathBuf {
    let named = || {
        let (text, _) = read_text(path).ok()?;
        let (tree, _) = DeTable::parse_recoverable(&text);
        let run_dir = tree.get_ref().get("host")?.get_ref().get("run_dir")?.get_ref().as_str()?;
        Some(PathBuf::from(run_dir)).filter(|dir| dir.is_absolute())
    };
    named().unwrap_or_else(|| RUN_DIR.into())
}

fn read_text(path: &Path) -> Result<(String, Vec<trust::Doubt>), LoadError> {
    let path_buf = || path.to_owned();
    let failed = |source: io::Error| match source.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => LoadError::Missing { path: path_buf() },
        io::ErrorKind::PermissionDenied => LoadError::Denied { path: path_buf() },
        _ => LoadError::Io { path: path_buf(), source },
    };
    // Looked at before it is opened: opening a pipe waits for its other end.
    let kind = fs::metadata(path).map_err(failed)?;
    if kind.is_dir() {
        return Err(LoadError::Directory { path: path_buf() });
    }
    if !kind.is_file() {
        return Err(LoadError::NotAFile { path: path_buf() });
    }
    let opened = trust::open(path, None).map_err(|e| match e {
        HostError::Io { source, .. } => failed(source),
        HostError::NotRegular { .. } => LoadError::NotAFile { path: path_buf() },
        untrusted => LoadError::Untrusted { path: path_buf(), source: untrusted },
    })?;
    let mut bytes = Vec::new();
    opened.file.take(MAX_FILE + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > MAX_FILE {
        return Err(LoadError::TooLarge { path: path_buf() });
    }
    let nul = bytes.iter().position(|b| *b == 0);
    let broken = std::str::from_utf8(&bytes).err().map(|e| e.valid_up_to());
    if let Some(offset) = [nul, broken].into_iter().flatten().min() {
        let line = bytes[..offset].iter().filter(|b| **b == b'\n').count() + 1;
        return Err(LoadError::NotText { path: path_buf(), line, offset, byte: bytes[offset] });
    }
    let text = String::from_utf8(bytes).map_err(|e| failed(io::Error::other(e)))?;
    Ok((text, opened.doubts))
}

/// The findings for people, each with the line it is about, which is read from the file at `path` again; see
/// [`render_text`] for the form.
pub fn render(findings: &[Finding], path: &Path) -> String {
    render_text(findings, path, read_text(path).ok().map(|(text, _)| text).as_deref())
}

/// The findings for people:
///
/// ```text
/// /etc/relaykey/config.toml:12: error: unknown key "endpont" in [credential.smtp]
///     endpont = …
///   fix: did you mean "endpoint"? Allowed here: …
/// ```
///
/// `text` is the configuration's; without it, and for findings about other files, no line is quoted. The value of a
/// quoted line is left out unless it belongs to a key whose values are harmless, and looks like no secret.
pub fn render_text(findings: &[Finding], path: &Path, text: Option<&str>) -> String {
    let lines = text.map(Lines::new);
    let mut out = String::new();
    for finding in findings {
        let file = finding.file.as_deref().unwrap_or(path).display();
        let line = finding.line.map(|line| format!("{line}: ")).unwrap_or_else(|| " ".to_owned());
        out.push_str(&format!("{file}:{line}{}: {}\n", finding.severity, finding.what));
        let quoted = match (&lines, finding.line, &finding.file) {
            (Some(lines), Some(line), None) => quotable(lines.get(line)),
            _ => None,
        };
        if let Some(quoted) = quoted {
            out.push_str(&format!("    {quoted}\n"));
        }
        out.push_str(&format!("  fix: {}\n", finding.fix));
    }
    out
}

/// What of a line may be shown: no comment, no value of a key that people put secrets into or that nobody knows, and none that
/// may hold a secret, whatever its key.
fn quotable(line: &str) -> Option<String> {
    let line = without_comment(line).trim();
    if line.starts_with('[') && !line.contains('=') {
        let mut parts = line.trim_matches(['[', ']', ' ']).split('.').map(|part| part.trim().trim_matches('"'));
        return parts.all(value::is_short_word).then(|| excerpt(line));
    }
    let key = key_of(line)?;
    let known = || SCHEMA.iter().flat_map(|s| s.keys).filter(|k| k.name == key);
    let value = line.split_once('=').map_or(line, |(_, value)| value);
    let harmless = known().next().is_some()
        && known().all(|k| k.shown)
        && !value::may_hold_a_secret(value, key == "keys")
        && (!known().any(|k| k.one_of_a_few) || value.split(is_between).all(value::is_short_word));
    match line.split_once('=') {
        Some((name, _)) if !name.split('.').all(|part| value::is_short_word(part.trim().trim_matches('"'))) => None,
        _ if harmless => Some(excerpt(line)),
        Some((name, _)) => Some(excerpt(&format!("{}= …", name))),
        None => None,
    }
}

/// Does it stand between words of a value?
fn is_between(c: char) -> bool {
    c.is_whitespace() || matches!(c, '"' | '\'' | ',' | '[' | ']')
}

/// The line up to the `#` that stands in no quotes.
fn without_comment(line: &str) -> &str {
    let mut quote = None;
    let begins = |(_, c): &(usize, char)| match (quote, c) {
        (None, '#') => true,
        (None, '"' | '\'') => {
            quote = Some(*c);
            false
        }
        (Some(open), c) if open == *c => {
            quote = None;
            false
        }
        _ => false,
    };
    line.char_indices().find(begins).map_or(line, |(at, _)| &line[..at])
}

/// A line of the file as people are shown it.
fn excerpt(line: &str) -> String {
    text::line_of(&line.replace('\t', " "), 200).into_owned()
}

#[cfg(test)]
mod tests;
