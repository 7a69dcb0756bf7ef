//! The configuration file: its schema, version 1, and what the program makes of it.
//!
//! [`parse`] reads the text into a [`Config`] with every default filled in, or says everything that is wrong with it,
//! each mistake with its line and its fix. [`SCHEMA`] lists the keys; `config.example.toml` ([`EXAMPLE`]) explains them
//! to people, and tests keep the two and the reader together. Apart from [`load`] and [`render`], which read the file,
//! nothing here does I/O: whether a path exists is for those to say who use it.
//!
//! A configuration holds no secrets, but people put them there by mistake. So a finding names an unknown key without
//! its value, and a quoted line shows the value only of keys whose values are harmless.

use std::fmt;
use std::fs;
use std::io::{self, Read};
use std::ops::Range;
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use jiff::SignedDuration;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::credential::{JsonKeys, region_shaped, ses_region};

/// The version of the schema that this program reads, as in `config_version`.
pub const VERSION: i64 = 1;

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
    /// The mail-server configurations on this host that use it; at least one.
    pub targets: Vec<Target>,
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
    },
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
    /// Exactly these lookup keys are ours, where given.
    pub keys: Option<Vec<String>>,
    /// `[credential.smtp]` with this target's overrides.
    pub smtp: Smtp,
}

/// The kind of mail server a target is.
#[derive(Debug, Clone, PartialEq)]
pub enum TargetKind {
    /// One Postfix instance.
    Postfix {
        /// What `postconf -c` takes. Absolute.
        config_dir: PathBuf,
    },
    /// A key-value text read directly, with no mail server behind it: what `relaykey demo` rolls over where no Postfix
    /// is installed. Not offered in the configuration file.
    Text {
        /// The text. Absolute.
        path: PathBuf,
    },
}

/// When the mail server is reloaded after a swap.
#[derive(Debug, Clone, PartialEq)]
pub enum Reload {
    /// After every swap.
    Always,
    /// Only where the table's kind makes it necessary (`texthash:`).
    IfNeeded,
    /// Not by us: a reload that is needed stays owed and is shown.
    Never,
    /// An argv array, run instead of `postfix reload`. Not empty; the program's path is absolute.
    Command(Vec<String>),
}

/// What happens when somebody else changes our entries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Drift {
    /// The applied login is put back.
    Heal,
    /// It is only said.
    Report,
}

/// One mistake in a configuration file, or a remark about it.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// 1-based line of the configuration file (or of the file named in `file`), where there is one.
    pub line: Option<usize>,
    /// The file the finding is about, where it is not the configuration itself.
    pub file: Option<PathBuf>,
    /// What is wrong.
    pub what: String,
    /// What to do.
    pub fix: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    /// It cannot work like this.
    Error,
    /// It works, and is probably not what was meant.
    Warning,
    /// Worth knowing.
    Note,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Severity::Error => "error",
            Severity::Warning => "warning",
            Severity::Note => "note",
        })
    }
}

/// One table of the file and the keys that may stand in it.
#[derive(Debug)]
pub struct Section {
    /// As it is written in the file: `[credential.smtp]`. Empty for the top of the file.
    pub header: &'static str,
    /// Every key of the schema, accepted or to come.
    pub keys: &'static [Key],
}

/// One key of the schema.
#[derive(Debug)]
pub struct Key {
    /// As it is spelt.
    pub name: &'static str,
    /// The default, as TOML; `None` where the key is required, or is not in effect unless it is set.
    pub default: Option<&'static str>,
    /// In a source: the types that take this key; empty for all.
    pub types: &'static [&'static str],
    /// For a key that is planned and not accepted yet: what to do instead.
    pub later: Option<&'static str>,
    /// May its value be shown? Not where people tend to put what should stay secret.
    shown: bool,
}

const fn key(name: &'static str) -> Key {
    Key { name, default: None, types: &[], later: None, shown: true }
}

impl Key {
    const fn default(self, toml: &'static str) -> Self {
        Self { default: Some(toml), ..self }
    }

    const fn only(self, types: &'static [&'static str]) -> Self {
        Self { types, ..self }
    }

    const fn later(self, fix: &'static str) -> Self {
        Self { later: Some(fix), ..self }
    }

    const fn hidden(self) -> Self {
        Self { shown: false, ..self }
    }
}

const SECRETS_MANAGER: &str = "secrets-manager";
const PARAMETER_STORE: &str = "parameter-store";
const FILE: &str = "file";
const AWS_TYPES: &[&str] = &[SECRETS_MANAGER, PARAMETER_STORE];

static TOP: Section = Section {
    header: "",
    keys: &[
        key("config_version"),
        key("host").hidden(),
        key("aws").hidden(),
        key("credential").hidden(),
        key("report").later("remove the [[report]] tables for now; the report document is kept in the state directory"),
        key("health").later("remove the [health] table for now; `relaykey status --json` gives the same facts"),
    ],
};

static HOST: Section = Section {
    header: "[host]",
    keys: &[
        key("name"),
        key("state_dir").default("\"/var/lib/relaykey\""),
        key("run_dir").default("\"/run/relaykey\""),
    ],
};

static AWS: Section = Section {
    header: "[aws]",
    keys: &[
        key("region"),
        key("profile"),
        key("role_arn"),
        key("external_id").hidden(),
        key("endpoint_url").hidden(),
        key("proxy").hidden(),
        key("use_fips").default("false"),
        key("use_dualstack").default("false"),
    ],
};

static CREDENTIAL: Section = Section {
    header: "[[credential]]",
    keys: &[
        key("name"),
        key("mode").default("\"automatic\""),
        key("source").hidden(),
        key("smtp").hidden(),
        key("target").hidden(),
        key("apply").later("remove it for now; it belongs to manual mode, which is not there yet"),
        key("if_applied_dies").later("remove it for now; it belongs to manual mode, which is not there yet"),
        key("probe").later("remove it for now; a candidate is proved by its login alone"),
    ],
};

static SOURCE: Section = Section {
    header: "[credential.source]",
    keys: &[
        key("type"),
        key("secret").only(&[SECRETS_MANAGER]).hidden(),
        key("stage").only(&[SECRETS_MANAGER]).default("\"AWSCURRENT\""),
        key("parameter").only(&[PARAMETER_STORE]).hidden(),
        key("label").only(&[PARAMETER_STORE]),
        key("path").only(&[FILE]),
        key("username_key").hidden(),
        key("password_key").hidden(),
        key("region").only(AWS_TYPES),
        key("profile").only(AWS_TYPES),
        key("role_arn").only(AWS_TYPES),
        key("external_id").only(AWS_TYPES).hidden(),
        key("endpoint_url").only(AWS_TYPES).hidden(),
        key("poll").later("remove it for now, and run `relaykey sync` from a timer"),
    ],
};

static SMTP: Section = Section {
    header: "[credential.smtp]",
    keys: &[
        key("endpoint"),
        key("port").default("587"),
        key("tls").default("\"starttls\""),
        key("region"),
        key("ca_file"),
        key("timeout").default("\"10s\""),
        key("propagation").default("\"5m\""),
        key("retry").default("\"10s\""),
        key("endpoint_aliases").default("[]"),
    ],
};

static TARGET: Section = Section {
    header: "[[credential.target]]",
    keys: &[
        key("name").default("\"postfix\""),
        key("type"),
        key("config_dir").default("\"/etc/postfix\""),
        key("reload").default("\"always\""),
        key("drift").default("\"heal\""),
        key("write").default("true"),
        key("keys"),
        key("endpoint"),
        key("port"),
        key("tls"),
        key("region"),
        key("log").later("remove it for now; nothing is read from the mail log yet"),
        key("maps").later("remove it for now; the table is the one that smtp_sasl_password_maps names"),
    ],
};

/// Every section of the file, in its order. The reader, the example and the manual page are held to it.
pub static SCHEMA: [&Section; 7] = [&TOP, &HOST, &AWS, &CREDENTIAL, &SOURCE, &SMTP, &TARGET];

/// Keys under which people look for a place to put the login itself.
const LOGIN_WORDS: [&str; 8] =
    ["password", "passwd", "username", "user", "access_key_id", "secret_access_key", "secret_key", "accesskeyid"];

/// What is wrong with one value, and what to write instead.
struct Mistake {
    what: String,
    fix: String,
}

type Judged<T> = Result<T, Mistake>;

fn mistake<T>(what: impl Into<String>, fix: impl Into<String>) -> Judged<T> {
    Err(Mistake { what: what.into(), fix: fix.into() })
}

/// A value and the line it stands on.
#[derive(Debug, Clone)]
struct At<T> {
    value: T,
    line: usize,
}

/// One table of the file, read under one section of the schema.
struct View<'d> {
    section: &'static Section,
    table: &'d DeTable<'d>,
    /// The line of its header.
    line: usize,
}

impl<'d> View<'d> {
    fn get(&self, key: &str) -> Option<(&'d Spanned<toml::de::DeString<'d>>, &'d Spanned<DeValue<'d>>)> {
        debug_assert!(self.section.keys.iter().any(|k| k.name == key), "{key} is not in the schema");
        self.table.iter().find(|(k, _)| k.get_ref() == key)
    }

    fn has(&self, key: &str) -> bool {
        self.get(key).is_some()
    }

    /// How people are told where they are.
    fn place(&self) -> &'static str {
        if self.section.header.is_empty() { "the file" } else { self.section.header }
    }
}

/// Reads a configuration. With the configuration come warnings and notes.
///
/// # Errors
/// Every finding, by line, if at least one of them is an error; so four mistakes give four findings. After a syntax
/// error that leaves open which table the following lines belong to, only syntax errors are reported, since the rest
/// would be guesses.
pub fn parse(text: &str) -> Result<(Config, Vec<Finding>), Vec<Finding>> {
    let (tree, errors) = DeTable::parse_recoverable(text);
    let lines = Lines::new(text);
    let syntax = Syntax::judge(&lines, tree.get_ref(), &errors);
    if !syntax.intact {
        return Err(syntax.findings);
    }
    let mut reader = Reader { lines: &lines, findings: Vec::new(), lost: syntax.lost, placed: Vec::new() };
    let config = reader.config(tree.get_ref());
    let mut findings = reader.findings;
    // What the parser made of a broken line is its guess, and not to be judged.
    findings.retain(|f| !syntax.findings.iter().any(|s| s.line == f.line));
    findings.extend(syntax.findings);
    findings.sort_by_key(|f| (f.line, f.severity));
    match config {
        Some(config) if findings.iter().all(|f| f.severity != Severity::Error) => Ok((config, findings)),
        _ => Err(findings),
    }
}

/// Where lines begin.
struct Lines<'t> {
    text: &'t str,
    starts: Vec<usize>,
}

impl<'t> Lines<'t> {
    fn new(text: &'t str) -> Self {
        let starts = std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect();
        Self { text, starts }
    }

    /// The 1-based line of a byte offset. The end of the file belongs to the last line that has text.
    fn at(&self, offset: usize) -> usize {
        let last = self.text.trim_end().len();
        self.starts.partition_point(|start| *start <= offset.min(last)).max(1)
    }

    fn get(&self, line: usize) -> &'t str {
        let Some(start) = line.checked_sub(1).and_then(|i| self.starts.get(i)) else { return "" };
        self.text[*start..].lines().next().unwrap_or("")
    }
}

/// What the TOML parser said, in our words.
struct Syntax {
    findings: Vec<Finding>,
    /// Every other line belongs to the table it seems to belong to.
    intact: bool,
    /// Keys of which the parser kept nothing: they are not missing.
    lost: Vec<String>,
}

/// One kind of syntax error: how the parser's message begins, what it means, what to do, and whether the lines around it
/// keep their places. A message that is not listed counts as one after which nothing is sure.
struct SyntaxRule(&'static str, &'static str, &'static str, bool);

const SYNTAX: [SyntaxRule; 14] = [
    SyntaxRule(
        "string values must be quoted",
        "a value that is a text does not stand in quotes",
        "put it in straight double quotes: key = \"value\"",
        true,
    ),
    SyntaxRule(
        "invalid boolean",
        "a value is neither true nor false, and a text does not stand in quotes",
        "write true or false in lower case, or put the text in straight double quotes",
        true,
    ),
    SyntaxRule(
        "invalid multi-line",
        "a text that begins with three quotes does not end",
        "end it with three quotes, or write it on one line between single ones",
        false,
    ),
    SyntaxRule(
        "invalid basic string",
        "a text in double quotes does not end on its line, or has a control character in it",
        "close the quotes on the same line",
        true,
    ),
    SyntaxRule(
        "invalid literal string",
        "a text in single quotes does not end on its line, or has a control character in it",
        "close the quotes on the same line",
        true,
    ),
    SyntaxRule(
        "missing escaped value",
        "a backslash between double quotes begins an escape that TOML does not have",
        "write \\\\ for a backslash, or put the text in single quotes, where a backslash is itself",
        true,
    ),
    SyntaxRule("key with no value", "there is no `=` on the line", "write key = value; a comment begins with #", true),
    SyntaxRule("extra `=`", "there is more than one `=` before the value", "write key = value, with one `=`", true),
    SyntaxRule(
        "unexpected key or value",
        "something follows the value on its line",
        "one key to a line; a comment begins with #; a text with blanks stands in quotes",
        true,
    ),
    SyntaxRule("duplicate key", "the key stands twice in its table", "keep one of the two", true),
    SyntaxRule(
        "unclosed table",
        "the table's header does not end",
        "end it with ], as in [host] or [credential.smtp]",
        false,
    ),
    SyntaxRule(
        "unclosed array table",
        "the table's header does not end with two brackets",
        "end it with ]], as in [[credential]] or [[credential.target]]",
        false,
    ),
    SyntaxRule(
        "missing comma between array elements",
        "a list does not end, or a comma is missing in it",
        "put commas between its elements, and ] after the last one",
        false,
    ),
    SyntaxRule("unclosed array", "a list does not end", "put ] after its last element", false),
];

impl Syntax {
    fn judge(lines: &Lines, tree: &DeTable, errors: &[toml::de::Error]) -> Self {
        let mut errors: Vec<(Range<usize>, &str)> =
            errors.iter().map(|e| (e.span().unwrap_or(0..0), e.message())).collect();
        errors.sort_by_key(|(span, _)| span.start);
        // A list or an inline table that does not end swallows the lines after it: only where that began is a mistake.
        if errors.iter().any(|(_, m)| m.starts_with("unclosed array,") || m.starts_with("unclosed inline")) {
            let first =
                errors.iter().position(|(_, m)| m.contains("array") || m.contains("inline") || m.contains("pair"));
            errors.truncate(first.map_or(errors.len(), |i| i + 1));
        }
        let mut syntax = Syntax { findings: Vec::new(), intact: true, lost: Vec::new() };
        for (span, message) in errors {
            // A text over several lines is wrong where it begins.
            let start = if message.starts_with("invalid multi-line") {
                opening(tree, span.start).unwrap_or(span.start)
            } else {
                span.start
            };
            let line = lines.at(start);
            let source = lines.get(line);
            let (what, fix, intact) = Self::words(message, source, span.is_empty());
            syntax.intact &= intact;
            syntax.lost.extend(key_of(source).map(str::to_owned));
            if syntax.findings.last().is_none_or(|f| f.line != Some(line)) {
                syntax.findings.push(Finding { severity: Severity::Error, line: Some(line), file: None, what, fix });
            }
        }
        syntax
    }

    fn words(message: &str, source: &str, nothing: bool) -> (String, String, bool) {
        let source = source.trim();
        if message == "duplicate key" && source.starts_with('[') {
            let (what, fix) = match source.trim_matches(['[', ']', ' ']) {
                "credential" if source.starts_with("[[") => (
                    "a part of [[credential]] stands before its header",
                    "put [[credential]] first, and its [credential.source] and the others below it",
                ),
                "credential" => ("[credential] stands twice", "begin each credential with [[credential]]"),
                "credential.target" => {
                    ("[credential.target] stands twice", "begin each target with [[credential.target]]")
                }
                _ => (
                    "the table stands twice",
                    "keep one, with the keys of both; or is a [[credential]] header missing above it?",
                ),
            };
            return (what.into(), fix.into(), false);
        }
        let Some(SyntaxRule(_, what, fix, intact)) = SYNTAX.iter().find(|rule| message.starts_with(rule.0)) else {
            return (
                format!("this is not TOML: {message}"),
                "correct the line; https://toml.io/en/v1.0.0 has the rules".into(),
                false,
            );
        };
        let (what, fix) = if message.starts_with("string values") && nothing {
            ("the key has no value", "write a value after the `=`, or remove the line; the default applies then")
        } else if source.contains(['“', '”', '„', '‘', '’']) {
            ("the quotes are typographic ones, which TOML does not know", "use straight quotes: key = \"value\"")
        } else {
            (*what, *fix)
        };
        (what.into(), fix.into(), *intact)
    }
}

/// The start of the value that reaches over this offset.
fn opening(table: &DeTable, offset: usize) -> Option<usize> {
    fn within(value: &Spanned<DeValue>, offset: usize) -> Option<usize> {
        match value.get_ref() {
            DeValue::Table(table) => opening(table, offset),
            DeValue::Array(items) => items.iter().find_map(|item| within(item, offset)),
            _ => (value.span().start <= offset && offset <= value.span().end).then(|| value.span().start),
        }
    }
    table.iter().find_map(|(_, value)| within(value, offset))
}

/// The key (its last part, where it is dotted) that a line begins with.
fn key_of(line: &str) -> Option<&str> {
    let name = line.split('=').next()?.trim();
    let name = name.rsplit('.').next()?.trim().trim_matches('"');
    let name = name.split_whitespace().next()?;
    name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-').then_some(name)
}

/// What one target holds on to, to see that no two meet.
struct Placed {
    who: String,
    line: usize,
    config_dir: PathBuf,
    /// The endpoint and its aliases, case folded.
    hosts: Vec<String>,
    /// Case folded, as Postfix looks keys up.
    keys: Option<Vec<String>>,
}

/// Where a login is tried: what a target may override, each with its line.
#[derive(Clone, Default)]
struct Door {
    endpoint: Option<At<String>>,
    port: Option<At<u16>>,
    tls: Option<At<Tls>>,
    region: Option<At<String>>,
}

/// Walks the tree and collects what is wrong instead of stopping at the first mistake. Where a value is wrong or missing,
/// the finding is recorded and a placeholder goes on, since with an error the whole result is dropped.
struct Reader<'t> {
    lines: &'t Lines<'t>,
    findings: Vec<Finding>,
    lost: Vec<String>,
    placed: Vec<Placed>,
}

impl Reader<'_> {
    fn find(&mut self, severity: Severity, line: usize, what: impl Into<String>, fix: impl Into<String>) {
        self.findings.push(Finding { severity, line: Some(line), file: None, what: what.into(), fix: fix.into() });
    }

    fn error(&mut self, line: usize, what: impl Into<String>, fix: impl Into<String>) {
        self.find(Severity::Error, line, what, fix);
    }

    /// The value of a key, if it is there and right.
    fn read<'d, T>(
        &mut self,
        view: &View<'d>,
        key: &str,
        judge: impl FnOnce(&'d DeValue<'d>) -> Judged<T>,
    ) -> Option<At<T>> {
        let (name, value) = view.get(key)?;
        let line = self.lines.at(name.span().start);
        match judge(value.get_ref()) {
            Ok(value) => Some(At { value, line }),
            Err(Mistake { what, fix }) => {
                self.error(line, format!("{key}: {what}"), fix);
                None
            }
        }
    }

    /// Like [`Self::read`], for a key that must be there. `fix` says what to add.
    fn require<'d, T>(
        &mut self,
        view: &View<'d>,
        key: &str,
        fix: &str,
        judge: impl FnOnce(&'d DeValue<'d>) -> Judged<T>,
    ) -> Option<At<T>> {
        if !view.has(key) && !self.lost.iter().any(|k| k == key) {
            self.error(view.line, format!("{key} is missing in {}", view.place()), fix);
        }
        self.read(view, key, judge)
    }

    /// A list, each element judged on its own line; none may stand twice by `same`.
    fn list<'d, T>(
        &mut self,
        view: &View<'d>,
        key: &str,
        judge: impl Fn(&'d DeValue<'d>) -> Judged<T>,
        same: impl Fn(&T, &T) -> bool,
    ) -> Option<At<Vec<T>>> {
        let At { value: items, line } = self.read(view, key, |v| match v {
            DeValue::Array(items) => Ok(items),
            other => mistake(expected("a list", other), "write it between brackets: [\"…\"]"),
        })?;
        let mut list = Vec::new();
        for item in items {
            let at = self.lines.at(item.span().start);
            match judge(item.get_ref()) {
                Ok(new) if list.iter().any(|old| same(old, &new)) => {
                    self.error(at, format!("{key}: an element stands twice"), "remove one of the two");
                }
                Ok(new) => list.push(new),
                Err(Mistake { what, fix }) => self.error(at, format!("{key}: {what}"), fix),
            }
        }
        Some(At { value: list, line })
    }

    /// A table below this one.
    fn table<'d>(&mut self, view: &View<'d>, key: &str, section: &'static Section) -> Option<View<'d>> {
        let (name, value) = view.get(key)?;
        let line = self.lines.at(name.span().start);
        let (table, line) = match value.get_ref() {
            DeValue::Table(table) => (table, self.lines.at(value.span().start)),
            DeValue::Array(items) if items.iter().all(|i| i.get_ref().is_table()) && !items.is_empty() => {
                let fix = format!("write {}, once, in single brackets", section.header);
                self.error(line, format!("{key}: expected one table, found a list of tables"), fix);
                return None;
            }
            other => {
                self.error(
                    line,
                    format!("{key}: {}", expected("a table", other)),
                    format!("write {} on a line of its own, and its keys below it", section.header),
                );
                return None;
            }
        };
        Some(View { section, table, line })
    }

    /// The tables of a list below this one. `None`: the key is not there.
    fn tables<'d>(&mut self, view: &View<'d>, key: &str, section: &'static Section) -> Option<Vec<View<'d>>> {
        let (name, value) = view.get(key)?;
        let line = self.lines.at(name.span().start);
        let mut views = Vec::new();
        match value.get_ref() {
            DeValue::Array(items) => {
                for item in items {
                    let line = self.lines.at(item.span().start);
                    match item.get_ref() {
                        DeValue::Table(table) => views.push(View { section, table, line }),
                        other => self.error(
                            line,
                            format!("{key}: {}", expected("a table", other)),
                            format!("begin each one with {} on a line of its own", section.header),
                        ),
                    }
                }
            }
            DeValue::Table(table) => {
                self.error(
                    line,
                    format!("{key}: expected a list of tables, found one table"),
                    format!("write {} in double brackets: there may be several", section.header),
                );
                views.push(View { section, table, line: self.lines.at(value.span().start) });
            }
            other => self.error(
                line,
                format!("{key}: {}", expected("a list of tables", other)),
                format!("begin each one with {} on a line of its own", section.header),
            ),
        }
        Some(views)
    }

    /// Reports keys that do not belong into this table. `kind` is the source's type, where the table is one.
    fn keys(&mut self, view: &View, kind: Option<&str>) {
        let fits = |key: &Key| kind.is_none_or(|kind| key.types.is_empty() || key.types.contains(&kind));
        let allowed: Vec<&str> =
            view.section.keys.iter().filter(|k| k.later.is_none() && fits(k)).map(|k| k.name).collect();
        for (name, _) in view.table {
            let (line, name) = (self.lines.at(name.span().start), name.get_ref().as_ref());
            let known = view.section.keys.iter().find(|k| k.name == name);
            if known.is_some_and(|k| k.later.is_none() && fits(k)) {
                continue;
            }
            let elsewhere: Vec<&Key> =
                SCHEMA.iter().flat_map(|s| s.keys).filter(|k| k.name == name && known.is_none()).collect();
            let later = known.into_iter().chain(elsewhere.iter().copied()).find_map(|k| k.later);
            let place = view.place();
            let (what, fix) = if let Some(fix) = later {
                (format!("{name:?} is not yet supported"), fix.to_owned())
            } else if let (Some(known), Some(kind)) = (known, kind) {
                (
                    format!("{name:?} does not go with type = {kind:?}"),
                    format!("remove it, or set type = {}", quoted_list(known.types, " or ")),
                )
            } else if !elsewhere.is_empty() {
                let sections: Vec<&str> = SCHEMA
                    .iter()
                    .filter(|s| s.keys.iter().any(|k| k.name == name))
                    .map(|s| if s.header.is_empty() { "the top of the file" } else { s.header })
                    .collect();
                (
                    format!("unknown key {name:?} in {place}"),
                    format!("move it to {}. Allowed here: {}", sections.join(" or "), allowed.join(", ")),
                )
            } else if LOGIN_WORDS.contains(&name.to_ascii_lowercase().replace('-', "_").as_str()) {
                (
                    format!("unknown key {name:?} in {place}"),
                    "remove it: no login stands in this file, the source holds it (to name the keys of a JSON secret \
                     there are username_key and password_key)"
                        .to_owned(),
                )
            } else {
                let guess = similar(name, &allowed).map(|s| format!("did you mean {s:?}? ")).unwrap_or_default();
                (
                    format!("unknown key {name:?} in {place}"),
                    format!(
                        "{}Allowed here: {}",
                        if guess.is_empty() { "remove it. " } else { &guess },
                        allowed.join(", ")
                    ),
                )
            };
            self.error(line, what, fix);
        }
    }

    /// `None`: the file is of another version, and nothing else is to be said about it.
    fn config(&mut self, root: &DeTable) -> Option<Config> {
        let top = View { section: &TOP, table: root, line: 1 };
        let add = "put config_version = 1 on the first line";
        let version = self.require(&top, "config_version", add, |v| match integer(v)? {
            n if n == VERSION => Ok(true),
            n if n > VERSION => Ok(false),
            _ => mistake("there is no such version of this file", "write config_version = 1"),
        });
        if let Some(At { value: false, line }) = version {
            let what = format!("config_version: this relaykey reads version {VERSION}, and the file is of a later one");
            self.error(line, what, "update relaykey, or write the file anew for config_version = 1");
            return None;
        }
        self.keys(&top, None);
        let host = self.host(&top);
        let aws = match self.table(&top, "aws", &AWS) {
            Some(view) => {
                self.keys(&view, None);
                self.aws(&view, &Aws::default())
            }
            None => Aws::default(),
        };
        let views = self.tables(&top, "credential", &CREDENTIAL);
        if views
            .as_ref()
            .is_none_or(|v| v.is_empty() && top.get("credential").is_some_and(|(_, v)| v.as_ref().is_array()))
        {
            let fix = "add [[credential]] with [credential.source], [credential.smtp] and [[credential.target]]";
            self.error(1, "there is no credential in the file", fix);
        }
        let mut credentials = Vec::new();
        let mut names = Vec::new();
        for view in views.into_iter().flatten() {
            credentials.push(self.credential(&view, &aws, &mut names));
        }
        self.meetings();
        Some(Config { host, aws, credentials })
    }

    fn host(&mut self, top: &View) -> Host {
        let view = self.table(top, "host", &HOST);
        let mut host =
            Host { name: None, state_dir: PathBuf::from("/var/lib/relaykey"), run_dir: PathBuf::from("/run/relaykey") };
        let Some(view) = view else { return host };
        self.keys(&view, None);
        host.name = self.read(&view, "name", host_name).map(|at| at.value);
        let state = self.read(&view, "state_dir", absolute);
        if let Some(At { value, line }) = &state
            && ["/run", "/var/run", "/dev/shm"].iter().any(|volatile| value.starts_with(volatile))
        {
            let what = format!("state_dir: {} is empty after a boot, and the state must outlive that", value.display());
            self.find(Severity::Warning, *line, what, "use a directory on disk, such as /var/lib/relaykey");
        }
        let run = self.read(&view, "run_dir", absolute);
        let line = run.as_ref().or(state.as_ref()).map(|at| at.line);
        host.state_dir = state.map_or(host.state_dir, |at| at.value);
        host.run_dir = run.map_or(host.run_dir, |at| at.value);
        if let Some(line) = line
            && host.state_dir == host.run_dir
        {
            self.error(
                line,
                "state_dir and run_dir are the same directory",
                "give each its own: one outlives a boot, the other is made anew",
            );
        }
        host
    }

    /// `[aws]`, or what a source says over it.
    fn aws(&mut self, view: &View, base: &Aws) -> Aws {
        let mut aws = base.clone();
        let set = |slot: &mut Option<String>, at: Option<At<String>>| {
            if let Some(at) = at {
                *slot = Some(at.value);
            }
        };
        set(&mut aws.region, self.read(view, "region", region));
        set(&mut aws.profile, self.read(view, "profile", word));
        let role = self.read(view, "role_arn", role_arn);
        if role.is_some() {
            // An external id belongs to a role's trust policy: one for another role is of no use.
            aws.external_id = None;
        }
        set(&mut aws.role_arn, role);
        let id = self.read(view, "external_id", external_id);
        if let Some(At { line, .. }) = id
            && !view.has("role_arn")
            && aws.role_arn.is_none()
        {
            self.error(line, "external_id has no effect without role_arn", "add role_arn, or remove external_id");
        }
        set(&mut aws.external_id, id);
        let endpoint = self.read(view, "endpoint_url", |v| url(v, Scheme::HttpsOrLoopback));
        let line = endpoint.as_ref().map(|at| at.line);
        set(&mut aws.endpoint_url, endpoint);
        if view.section.header == AWS.header {
            set(&mut aws.proxy, self.read(view, "proxy", |v| url(v, Scheme::Any)));
            aws.use_fips = self.read(view, "use_fips", boolean).is_some_and(|at| at.value);
            aws.use_dualstack = self.read(view, "use_dualstack", boolean).is_some_and(|at| at.value);
        }
        if let Some(line) = line
            && (aws.use_fips || aws.use_dualstack)
        {
            self.error(
                line,
                "endpoint_url cannot go with use_fips or use_dualstack: they choose the address, and it replaces it",
                "remove endpoint_url, or set use_fips and use_dualstack to false",
            );
        }
        aws
    }

    fn credential(&mut self, view: &View, aws: &Aws, names: &mut Vec<At<String>>) -> Credential {
        self.keys(view, None);
        let name = self.require(view, "name", "add name = \"ses\" below [[credential]]", name);
        if let Some(name) = &name {
            self.unique(name, names, "credential");
            names.push(name.clone());
        }
        let name = name.map(|at| at.value).unwrap_or_default();
        self.read(view, "mode", |v| {
            let later = [("manual", "set mode = \"automatic\" for now, or leave it out")];
            choice(v, &[("automatic", ())], &later)
        });

        let source = "add [credential.source] with type = \"secrets-manager\" and secret = \"…\"";
        let (source, keys) = match self.part(view, "source", &SOURCE, source) {
            Some(view) => self.source(&view, aws),
            None => (Source::File { path: PathBuf::new() }, JsonKeys::default()),
        };
        let smtp = "add [credential.smtp] with endpoint = \"email-smtp.REGION.amazonaws.com\"";
        let smtp = self.part(view, "smtp", &SMTP, smtp);
        let (smtp, door) = self.smtp(smtp.as_ref());

        let views = self.tables(view, "target", &TARGET).unwrap_or_default();
        if views.is_empty() {
            let has_list = view.get("target").is_none_or(|(_, v)| v.get_ref().is_array());
            if has_list {
                let fix = "add [[credential.target]] with type = \"postfix\" below it";
                self.error(view.line, "the credential has no target", fix);
            }
        }
        let own: Vec<Option<At<String>>> = views.iter().map(|view| self.read(view, "name", self::name)).collect();
        let mut taken: Vec<At<String>> = Vec::new();
        for own in own.iter().flatten() {
            self.unique(own, &taken, "target");
            taken.push(own.clone());
        }
        let mut targets = Vec::new();
        for (view, own) in views.iter().zip(own) {
            let target_name = own.map(|at| at.value).unwrap_or_else(|| {
                let free = (1..).map(|n| if n == 1 { "postfix".to_owned() } else { format!("postfix-{n}") });
                let free = free.into_iter().find(|name| taken.iter().all(|t| t.value != *name)).unwrap_or_default();
                taken.push(At { value: free.clone(), line: view.line });
                free
            });
            targets.push(self.target(view, &name, target_name, &smtp, &door));
        }
        Credential { name, source, keys, targets }
    }

    /// A table that a credential must have.
    fn part<'d>(&mut self, view: &View<'d>, key: &str, section: &'static Section, fix: &str) -> Option<View<'d>> {
        if !view.has(key) && !self.lost.iter().any(|k| k == key) {
            self.error(view.line, format!("{} is missing in the credential", section.header), fix);
        }
        self.table(view, key, section)
    }

    fn unique(&mut self, name: &At<String>, others: &[At<String>], what: &str) {
        if let Some(first) = others.iter().find(|other| other.value == name.value) {
            self.error(
                name.line,
                format!("name: the {what} on line {} is called {:?} too", first.line, name.value),
                format!("give each {what} a name of its own"),
            );
        }
    }

    fn source(&mut self, view: &View, aws: &Aws) -> (Source, JsonKeys) {
        let add = "add type = \"secrets-manager\", \"parameter-store\" or \"file\"";
        let kinds = [(SECRETS_MANAGER, SECRETS_MANAGER), (PARAMETER_STORE, PARAMETER_STORE), (FILE, FILE)];
        let kind = self.require(view, "type", add, |v| choice(v, &kinds, &[])).map(|at| at.value);
        self.keys(view, kind);

        let username = self.read(view, "username_key", word);
        let password = self.read(view, "password_key", word);
        if let (Some(username), Some(password)) = (&username, &password)
            && username.value == password.value
        {
            let what = "username_key and password_key name the same key";
            self.error(password.line, what, "name the key of the user name and the key of the password");
        }
        let keys = JsonKeys { username: username.map(|at| at.value), password: password.map(|at| at.value) };

        let source = match kind {
            Some(SECRETS_MANAGER) => {
                let mut aws = self.aws(view, aws);
                let secret = self.require(view, "secret", "add secret = \"NAME\", a name or an ARN", secret_id);
                let secret = self.pinned(view, secret, &mut aws);
                let stages = match view.get("stage") {
                    Some((_, v)) if v.get_ref().is_array() => {
                        self.list(view, "stage", stage, |a, b| a == b).map(|at| {
                            if at.value.is_empty() && view.get("stage").is_some_and(|(_, v)| is_empty_list(v.get_ref()))
                            {
                                self.error(
                                    at.line,
                                    "stage: the list is empty",
                                    "name a label, or leave `stage` out: AWSCURRENT",
                                );
                            }
                            at.value
                        })
                    }
                    _ => self.read(view, "stage", stage).map(|at| vec![at.value]),
                };
                Source::SecretsManager { secret, stages: stages.unwrap_or_else(|| vec!["AWSCURRENT".to_owned()]), aws }
            }
            Some(PARAMETER_STORE) => {
                let mut aws = self.aws(view, aws);
                let add = "add parameter = \"/ses/smtp\", a name or an ARN";
                let parameter = self.require(view, "parameter", add, parameter_id);
                let parameter = self.pinned(view, parameter, &mut aws);
                let label = self.read(view, "label", label).map(|at| at.value);
                Source::ParameterStore { parameter, label, aws }
            }
            Some(_) => {
                let path = self.require(view, "path", "add path = \"/etc/relaykey/NAME\"", absolute);
                Source::File { path: path.map(|at| at.value).unwrap_or_default() }
            }
            None => Source::File { path: PathBuf::new() },
        };
        (source, keys)
    }

    /// The id; where it is an ARN, its region wins over a configured one.
    fn pinned(&mut self, view: &View, id: Option<At<Id>>, aws: &mut Aws) -> String {
        let Some(At { value: Id { text, region }, line }) = id else { return String::new() };
        if let Some(arn) = region {
            if let Some(configured) = aws.region.as_ref().filter(|r| **r != arn) {
                let own = view.get("region").map(|(name, _)| self.lines.at(name.span().start));
                let (severity, line, whose, fix) = match own {
                    Some(line) => (Severity::Warning, line, "region", "remove `region` here".to_owned()),
                    None => (Severity::Note, line, "[aws] region", "nothing, if the ARN is right".to_owned()),
                };
                let what = format!("{whose} is {configured:?}, but the ARN names {arn:?}, which is used");
                self.find(severity, line, what, fix);
            }
            aws.region = Some(arn);
        }
        text
    }

    fn door(&mut self, view: &View) -> Door {
        let tls = [("starttls", Tls::Starttls), ("implicit", Tls::Implicit)];
        Door {
            endpoint: self.read(view, "endpoint", host_name),
            port: self.read(view, "port", port),
            tls: self.read(view, "tls", |v| choice(v, &tls, &[])),
            region: self.read(view, "region", region),
        }
    }

    /// `[credential.smtp]`. Without one (that is recorded) the result is a placeholder.
    fn smtp(&mut self, view: Option<&View>) -> (Smtp, Door) {
        let mut smtp = Smtp {
            endpoint: String::new(),
            port: default_port(Tls::Starttls),
            tls: Tls::Starttls,
            region: None,
            ca_file: None,
            timeout: Duration::from_secs(10),
            propagation: Duration::from_secs(300),
            retry: Duration::from_secs(10),
            endpoint_aliases: Vec::new(),
        };
        let Some(view) = view else { return (smtp, Door::default()) };
        self.keys(view, None);
        if !view.has("endpoint") && !self.lost.iter().any(|k| k == "endpoint") {
            self.error(
                view.line,
                format!("endpoint is missing in {}", view.place()),
                "add endpoint = \"email-smtp.REGION.amazonaws.com\"",
            );
        }
        let door = self.door(view);
        smtp.tls = door.tls.as_ref().map_or(Tls::Starttls, |at| at.value);
        smtp.port = door.port.as_ref().map_or(default_port(smtp.tls), |at| at.value);
        smtp.endpoint = door.endpoint.as_ref().map(|at| at.value.clone()).unwrap_or_default();
        smtp.region = door.region.as_ref().map(|at| at.value.clone());
        self.fits(&smtp, &door, view.line);

        smtp.ca_file = self.read(view, "ca_file", absolute).map(|at| at.value);
        let (second, minute) = (Duration::from_secs(1), Duration::from_secs(60));
        for (key, slot, range) in [
            ("timeout", &mut smtp.timeout, second..=5 * minute),
            ("propagation", &mut smtp.propagation, Duration::ZERO..=60 * minute),
            ("retry", &mut smtp.retry, Duration::from_millis(10)..=15 * minute),
        ] {
            if let Some(at) = self.read(view, key, |v| duration(v, range)) {
                *slot = at.value;
            }
        }
        let aliases = self.list(view, "endpoint_aliases", host_name, |a, b| a.eq_ignore_ascii_case(b));
        smtp.endpoint_aliases = aliases.map(|at| at.value).unwrap_or_default();
        (smtp, door)
    }

    /// Do endpoint, port, TLS and region go together? The finding stands on the most telling line of `door`.
    fn fits(&mut self, smtp: &Smtp, door: &Door, header: usize) {
        let named = ses_region(&smtp.endpoint);
        let line = |at: &[Option<usize>]| at.iter().find_map(|line| *line).unwrap_or(header);
        let (endpoint, port, tls, region) = (
            door.endpoint.as_ref().map(|at| at.line),
            door.port.as_ref().map(|at| at.line),
            door.tls.as_ref().map(|at| at.line),
            door.region.as_ref().map(|at| at.line),
        );
        if let (Some(named), Some(configured)) = (&named, &smtp.region)
            && named != configured
        {
            self.error(
                line(&[region, endpoint]),
                format!("region is {configured:?}, but the endpoint's name says {named:?}"),
                "remove `region`: it is read from the endpoint's name; or correct the endpoint",
            );
        }
        let wanted = match smtp.port {
            465 | 2465 => Some(Tls::Implicit),
            25 | 587 | 2587 => Some(Tls::Starttls),
            _ => None,
        };
        match wanted {
            Some(wanted) if wanted != smtp.tls => {
                // SES's listeners are known; elsewhere somebody may have chosen otherwise.
                let severity = if named.is_some() { Severity::Error } else { Severity::Warning };
                let (is, should) = match wanted {
                    Tls::Implicit => ("implicit TLS", "set tls = \"implicit\", or port = 587"),
                    Tls::Starttls => ("STARTTLS", "set tls = \"starttls\", or port = 465"),
                };
                let what = format!("port {} is one for {is}, and tls says otherwise", smtp.port);
                self.find(severity, line(&[tls, port]), what, should);
            }
            None if named.is_some() => {
                self.find(
                    Severity::Warning,
                    line(&[port]),
                    format!("SES does not listen on port {}", smtp.port),
                    "use 587, 2587 or 25 with tls = \"starttls\", or 465 or 2465 with tls = \"implicit\"",
                );
            }
            _ => {}
        }
    }

    fn target(&mut self, view: &View, credential: &str, name: String, smtp: &Smtp, base: &Door) -> Target {
        self.keys(view, None);
        let soon = "remove this target for now; postfix is the one that works";
        let later = ["exim", "sendmail", "opensmtpd", "msmtp", "iis"].map(|kind| (kind, soon));
        let kind = self.require(view, "type", "add type = \"postfix\"", |v| choice(v, &[("postfix", ())], &later));
        let config_dir = self.read(view, "config_dir", absolute);
        let config_dir = config_dir.map_or_else(|| PathBuf::from("/etc/postfix"), |at| at.value);
        let reload = self.read(view, "reload", reload).map_or(Reload::Always, |at| at.value);
        let drift = [("heal", Drift::Heal), ("report", Drift::Report)];
        let drift = self.read(view, "drift", |v| choice(v, &drift, &[])).map_or(Drift::Heal, |at| at.value);
        self.read(view, "write", |v| match boolean(v)? {
            true => Ok(()),
            false => mistake(
                "\"write = false\" is not yet supported",
                "remove the line for now; `relaykey sync --dry-run` shows the change and writes nothing",
            ),
        });
        let keys = self.list(view, "keys", lookup_key, |a, b| a.to_lowercase() == b.to_lowercase());
        if let Some(at) = &keys
            && at.value.is_empty()
            && view.get("keys").is_some_and(|(_, v)| is_empty_list(v.get_ref()))
        {
            self.error(
                at.line,
                "keys: the list is empty",
                "name a lookup key, or leave `keys` out: they are found then",
            );
        }
        let keys = keys.map(|at| at.value);

        let door = self.door(view);
        let smtp = self.overridden(smtp, base, &door, view.line);
        if kind.is_some() && !smtp.endpoint.is_empty() {
            let fold = |list: &[String]| list.iter().map(|s| s.to_lowercase()).collect::<Vec<_>>();
            let mut hosts = fold(&smtp.endpoint_aliases);
            hosts.push(smtp.endpoint.to_lowercase());
            self.placed.push(Placed {
                who: format!("{credential}/{name}"),
                line: view.line,
                config_dir: config_dir.clone(),
                hosts,
                keys: keys.as_deref().map(fold),
            });
        }
        Target { name, kind: TargetKind::Postfix { config_dir }, reload, drift, keys, smtp }
    }

    /// `[credential.smtp]` with a target's own endpoint, port, TLS and region over it.
    fn overridden(&mut self, smtp: &Smtp, base: &Door, door: &Door, header: usize) -> Smtp {
        let mut own = smtp.clone();
        if let Some(endpoint) = &door.endpoint {
            // Aliases lead to the endpoint beside which they stand, not to this one.
            if !endpoint.value.eq_ignore_ascii_case(&smtp.endpoint) {
                own.endpoint_aliases.clear();
            }
            own.endpoint = endpoint.value.clone();
            // The region that was meant for the other endpoint gives way to the one that this endpoint's name says.
            if ses_region(&own.endpoint).is_some() {
                own.region = None;
            }
        }
        if let Some(tls) = &door.tls {
            own.tls = tls.value;
            // A port that was chosen for the other kind of TLS is not taken over.
            if own.tls != smtp.tls || base.port.is_none() {
                own.port = default_port(own.tls);
            }
        }
        if let Some(port) = &door.port {
            own.port = port.value;
        }
        if let Some(region) = &door.region {
            own.region = Some(region.value.clone());
        }
        // What is inherited was judged where it stands.
        let Door { endpoint, port, tls, region } = door;
        if (endpoint.is_some() || port.is_some() || tls.is_some() || region.is_some()) && !own.endpoint.is_empty() {
            self.fits(&own, door, header);
        }
        own
    }

    /// No two targets may hold the same entries of one Postfix instance: each would put its own login there.
    fn meetings(&mut self) {
        let placed = std::mem::take(&mut self.placed);
        for (i, second) in placed.iter().enumerate() {
            let meet = |first: &&Placed| {
                first.config_dir == second.config_dir
                    && match (&first.keys, &second.keys) {
                        (Some(a), Some(b)) => a.iter().any(|key| b.contains(key)),
                        _ => first.hosts.iter().any(|host| second.hosts.contains(host)),
                    }
            };
            if let Some(first) = placed[..i].iter().find(meet) {
                self.error(
                    second.line,
                    format!(
                        "target {} would write the same entries of {} as target {} on line {}",
                        second.who,
                        second.config_dir.display(),
                        first.who,
                        first.line
                    ),
                    "remove one of the two, or give them different config_dir or endpoint, or each its own `keys`",
                );
            }
        }
    }
}

fn is_empty_list(value: &DeValue) -> bool {
    value.as_array().is_some_and(|items| items.is_empty())
}

fn default_port(tls: Tls) -> u16 {
    match tls {
        Tls::Starttls => 587,
        Tls::Implicit => 465,
    }
}

fn quoted_list(words: &[&str], or: &str) -> String {
    words.iter().map(|w| format!("{w:?}")).collect::<Vec<_>>().join(or)
}

/// The one of `known` that was probably meant.
fn similar<'k>(word: &str, known: &[&'k str]) -> Option<&'k str> {
    let word = word.to_lowercase().replace('-', "_");
    known
        .iter()
        .map(|k| (strsim::normalized_damerau_levenshtein(&word, &k.replace('-', "_")), *k))
        .filter(|(likeness, _)| *likeness >= 0.6)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, k)| k)
}

fn expected(what: &str, found: &DeValue) -> String {
    let found = match found {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "an integer",
        DeValue::Float(_) => "a float",
        DeValue::Boolean(_) => "a boolean",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    };
    format!("expected {what}, found {found}")
}

/// Any text without control characters: the mail server's files, argv and logs have no place for those.
fn string<'d>(value: &'d DeValue<'d>) -> Judged<&'d str> {
    let text = match value {
        DeValue::String(text) => text.as_ref(),
        DeValue::Integer(n) => {
            return mistake(expected("a string", value), format!("put it in quotes: \"{}\"", n.as_str()));
        }
        DeValue::Array(_) | DeValue::Table(_) => {
            return mistake(expected("a string", value), "give one value in quotes");
        }
        _ => return mistake(expected("a string", value), "put the value in quotes"),
    };
    match text.chars().position(char::is_control) {
        Some(at) => mistake(
            format!("character {} is a control character (NUL, tab, line end or the like)", at + 1),
            "remove it; in double quotes a backslash begins an escape, in single quotes it does not",
        ),
        None => Ok(text),
    }
}

/// A text that is not empty and has no blanks around it.
fn trimmed<'d>(value: &'d DeValue<'d>) -> Judged<&'d str> {
    match string(value)? {
        "" => mistake("the value is empty", "give a value, or remove the line"),
        text if text.trim() != text => mistake("there are blanks around the value", "remove them inside the quotes"),
        text => Ok(text),
    }
}

fn word(value: &DeValue) -> Judged<String> {
    trimmed(value).map(str::to_owned)
}

fn integer(value: &DeValue) -> Judged<i64> {
    match value {
        DeValue::Integer(n) => match i64::from_str_radix(n.as_str(), n.radix()) {
            Ok(n) => Ok(n),
            Err(_) => mistake("the number is too large, or has no digits", "write a smaller number"),
        },
        DeValue::String(text) if text.parse::<i64>().is_ok() => {
            mistake(expected("an integer", value), format!("remove the quotes: {text}"))
        }
        other => mistake(expected("an integer", other), "write a whole number, without quotes"),
    }
}

fn boolean(value: &DeValue) -> Judged<bool> {
    match value {
        DeValue::Boolean(b) => Ok(*b),
        other => mistake(expected("a boolean", other), "write true or false, without quotes"),
    }
}

fn port(value: &DeValue) -> Judged<u16> {
    match u16::try_from(integer(value)?) {
        Ok(port) if port > 0 => Ok(port),
        _ => mistake(
            "there is no such port",
            "write a number from 1 to 65535; SES has 587 (STARTTLS) and 465 (implicit)",
        ),
    }
}

fn choice<T: Copy>(value: &DeValue, choices: &[(&'static str, T)], later: &[(&str, &str)]) -> Judged<T> {
    let text = trimmed(value)?;
    if let Some((_, chosen)) = choices.iter().find(|(name, _)| *name == text) {
        return Ok(*chosen);
    }
    if let Some((name, fix)) = later.iter().find(|(name, _)| *name == text) {
        return mistake(format!("{name:?} is not yet supported"), *fix);
    }
    let names: Vec<&str> = choices.iter().map(|(name, _)| *name).collect();
    let guess = similar(text, &names).map(|s| format!("did you mean {s:?}? ")).unwrap_or_default();
    mistake(format!("{text:?} is not known"), format!("{guess}Allowed here: {}", quoted_list(&names, ", ")))
}

/// A path from the root, without `..`: every directory on the way is checked before anything is written.
fn absolute(value: &DeValue) -> Judged<PathBuf> {
    let text = trimmed(value)?;
    let path = Path::new(text);
    if text.starts_with('~') {
        return mistake(format!("{text:?} begins with ~, which only a shell replaces"), "write the path from / on");
    }
    if !path.is_absolute() {
        return mistake(format!("{text:?} is not an absolute path"), "write the path from / on");
    }
    if path.components().any(|part| part == Component::ParentDir) {
        return mistake(format!("{text:?} has \"..\" in it"), "write the path without \"..\"");
    }
    Ok(path.to_owned())
}

/// A length of time within bounds: `500ms`, `10s`, `5m`, `1h`, also `1m 30s`.
fn duration(value: &DeValue, range: std::ops::RangeInclusive<Duration>) -> Judged<Duration> {
    let usage = "write a number with its unit, in quotes: \"500ms\", \"10s\", \"5m\", \"1h\"";
    let DeValue::String(_) = value else { return mistake(expected("a string", value), usage) };
    let text = trimmed(value)?;
    // jiff reads ISO 8601 (`PT5M`), clock times and `ago` too; one way to write it is enough.
    let plain = text.starts_with(|c: char| c.is_ascii_digit())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b' ' || b == b'.')
        && !text.ends_with("ago");
    let parsed = if plain { text.parse::<SignedDuration>().ok() } else { None };
    match parsed.and_then(|d| Duration::try_from(d).ok()) {
        None => mistake(format!("{text:?} is not a length of time"), usage),
        Some(d) if range.contains(&d) => Ok(d),
        Some(_) => mistake(
            format!("{text:?} is out of bounds"),
            format!("choose from {:#} to {:#}", shown(*range.start()), shown(*range.end())),
        ),
    }
}

fn shown(d: Duration) -> SignedDuration {
    SignedDuration::try_from(d).unwrap_or(SignedDuration::MAX)
}

fn name(value: &DeValue) -> Judged<String> {
    let text = trimmed(value)?;
    let fits = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    let rule = "use 1 to 64 lower case letters, digits and -, the first one no -";
    if text.len() > 64 || text.starts_with('-') || !text.bytes().all(fits) {
        return mistake(format!("{text:?} cannot be a name"), rule);
    }
    Ok(text.to_owned())
}

fn region(value: &DeValue) -> Judged<String> {
    let text = trimmed(value)?;
    if region_shaped(text) {
        return Ok(text.to_owned());
    }
    let mut lower = text.to_ascii_lowercase();
    let fix = if region_shaped(&lower) {
        format!("write {lower:?}")
    } else if lower.pop().is_some_and(|c| c.is_ascii_lowercase()) && region_shaped(&lower) {
        format!("write {lower:?}: with a letter at its end it is an availability zone")
    } else {
        "write it as AWS does: \"eu-west-1\"".to_owned()
    };
    mistake(format!("{text:?} is not a region"), fix)
}

fn is_host_name(text: &str) -> bool {
    // RFC 1123, section 2.1; underscores occur in private names.
    let label = |l: &str| {
        (1..=63).contains(&l.len())
            && l.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
            && !l.starts_with('-')
            && !l.ends_with('-')
    };
    text.len() <= 253 && text.split('.').all(label)
}

/// A host name and nothing around it; says what is around it.
fn host_name(value: &DeValue) -> Judged<String> {
    let text = trimmed(value)?;
    if is_host_name(text) {
        return Ok(text.to_owned());
    }
    if text.contains('@') {
        // Not repeated: what stands before an @ may be a login.
        return mistake("there is an @ in the host name", "write the host name alone; the login comes from the source");
    }
    let mut around = Vec::new();
    let mut also = Vec::new();
    let mut rest = text;
    if let Some((scheme, after)) = rest.split_once("://") {
        rest = after;
        around.push("a scheme");
        also.push(match scheme {
            "smtps" => "tls = \"implicit\"",
            _ => "how it becomes TLS is said by `tls`",
        });
    }
    if let Some((before, _)) = rest.split_once('/') {
        rest = before;
        around.push("a slash");
    }
    let mut port = None;
    if let Some((before, digits)) = rest.rsplit_once(':')
        && digits.parse::<u16>().is_ok()
        && (!before.contains(':') || before.ends_with(']'))
    {
        rest = before;
        port = Some(format!("port = {digits}"));
        around.push("a port");
    }
    if let Some(inner) = rest.strip_prefix('[').and_then(|r| r.strip_suffix(']')) {
        rest = inner;
        around.push("brackets");
        also.push(
            "brackets are Postfix's way to say that MX records are not looked up; it finds them in main.cf itself",
        );
    }
    if let Some(before) = rest.strip_suffix('.') {
        rest = before;
        around.push("a dot at its end");
    }
    if rest.contains(':') {
        return mistake(
            format!("{text:?} is an IPv6 address"),
            "write the host name that the server's certificate carries",
        );
    }
    if around.is_empty() || !is_host_name(rest) {
        return mistake(
            format!("{text:?} is not a host name"),
            "write a name like \"email-smtp.eu-west-1.amazonaws.com\": letters, digits, - and dots",
        );
    }
    let port = port.map(|p| format!(" and {p}")).unwrap_or_default();
    let also = if also.is_empty() { String::new() } else { format!(" ({})", also.join("; ")) };
    mistake(
        format!("{text:?} is a host name with {}", around.join(" and ")),
        format!("write the name alone, {rest:?}{port}{also}"),
    )
}

/// The parts of `arn:partition:service:region:account:resource` that matter here.
struct Arn<'a> {
    service: &'a str,
    region: &'a str,
    account: &'a str,
    resource: &'a str,
}

/// `None`: not of an ARN's shape.
fn arn(text: &str) -> Option<Arn<'_>> {
    let parts: Vec<&str> = text.splitn(6, ':').collect();
    let ["arn", partition, service, region, account, resource] = parts[..] else { return None };
    let account_fits = account.len() == 12 && account.bytes().all(|b| b.is_ascii_digit());
    let plain = |s: &str| s.bytes().all(|b| b.is_ascii_graphic());
    (partition.starts_with("aws") && account_fits && plain(text) && !resource.is_empty()).then_some(Arn {
        service,
        region,
        account,
        resource,
    })
}

/// A name or an ARN, with the ARN's region.
struct Id {
    text: String,
    region: Option<String>,
}

/// Judges an id that begins with `arn:`. Values are not repeated: somebody may have put the secret itself here.
fn id_from_arn(text: &str, service: &str, prefix: &str, example: &str) -> Judged<Id> {
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
        Some(name) if !name.is_empty() => Ok(Id { text: text.to_owned(), region: Some(arn.region.to_owned()) }),
        _ => mistake(
            format!("it is the ARN of something else in {service:?} of account {}", arn.account),
            format!("write one like {example}"),
        ),
    }
}

/// A name or ARN in Secrets Manager (CreateSecret, `Name`).
fn secret_id(value: &DeValue) -> Judged<Id> {
    let text = trimmed(value)?;
    let example = "arn:aws:secretsmanager:eu-west-1:111122223333:secret:NAME-AbCdEf";
    if text.starts_with("arn:") {
        return id_from_arn(text, "secretsmanager", "secret:", example);
    }
    let fits = |b: u8| b.is_ascii_alphanumeric() || b"/_+=.@-".contains(&b);
    if text.len() <= 512 && text.bytes().all(fits) {
        return Ok(Id { text: text.to_owned(), region: None });
    }
    mistake(
        "this is no name of a secret: it has at most 512 letters, digits and /_+=.@-",
        format!("write the secret's name, or its ARN like {example}; not what it holds"),
    )
}

/// A name or ARN in Parameter Store (PutParameter, `Name`).
fn parameter_id(value: &DeValue) -> Judged<Id> {
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
            Ok(Id { text: text.to_owned(), region: None })
        }
        _ => mistake(
            "this is no name of a parameter: it has letters, digits and _.-, with / between its parts",
            format!("write the parameter's name, or its ARN like {example}; not what it holds"),
        ),
    }
}

/// A staging label (Secrets Manager, `VersionStage`).
fn stage(value: &DeValue) -> Judged<String> {
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

fn role_arn(value: &DeValue) -> Judged<String> {
    let text = trimmed(value)?;
    let example = "write it like arn:aws:iam::111122223333:role/relaykey";
    match arn(text) {
        None => mistake(format!("{text:?} is not an ARN"), example),
        Some(Arn { service: "iam", region: "", resource, .. })
            if resource.strip_prefix("role/").is_some_and(|r| !r.is_empty()) =>
        {
            Ok(text.to_owned())
        }
        Some(_) => mistake(format!("{text:?} is not the ARN of an IAM role"), example),
    }
}

/// What AssumeRole takes as `ExternalId`.
fn external_id(value: &DeValue) -> Judged<String> {
    let text = trimmed(value)?;
    let fits = |b: u8| b.is_ascii_alphanumeric() || b"_+=,.@:/-".contains(&b);
    if !(2..=1224).contains(&text.len()) || !text.bytes().all(fits) {
        return mistake("this is no external id", "use 2 to 1224 letters, digits and _+=,.@:/-");
    }
    Ok(text.to_owned())
}

/// Which schemes a URL may have.
enum Scheme {
    /// A secret comes back from there, so without TLS it must not leave the machine.
    HttpsOrLoopback,
    /// TLS runs through it, from end to end.
    Any,
}

/// `http://HOST[:PORT]` or `https://…`; values are not repeated, since a URL may carry a password.
fn url(value: &DeValue, schemes: Scheme) -> Judged<String> {
    let text = trimmed(value)?;
    let usage = match schemes {
        Scheme::HttpsOrLoopback => "write it like https://HOST or https://HOST:PORT",
        Scheme::Any => "write it like http://HOST:PORT",
    };
    let Some((scheme @ ("http" | "https"), rest)) = text.split_once("://") else {
        return mistake("this is no http or https URL", usage);
    };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or("");
    if rest.contains('@') {
        let fix = "remove the user name and the password: no secret stands in this file; let the proxy admit this host by its address";
        return mistake("there is a user name in the URL", fix);
    }
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, Some(port)),
        _ => (authority, None),
    };
    let v6 = host.strip_prefix('[').and_then(|h| h.strip_suffix(']'));
    let host_fits = v6.map_or_else(|| is_host_name(host), |v6| v6.parse::<std::net::Ipv6Addr>().is_ok());
    let port_fits = port.is_none_or(|p| p.parse::<u16>().is_ok_and(|p| p > 0));
    if !host_fits || !port_fits || text.contains(char::is_whitespace) || rest.contains(['?', '#']) {
        return mistake("host or port of the URL cannot be right", usage);
    }
    let loopback = match v6 {
        Some(v6) => v6.parse::<std::net::Ipv6Addr>().is_ok_and(|ip| ip.is_loopback()),
        None => {
            host.eq_ignore_ascii_case("localhost")
                || host.parse::<std::net::Ipv4Addr>().is_ok_and(|ip| ip.is_loopback())
        }
    };
    match schemes {
        Scheme::HttpsOrLoopback if scheme == "http" && !loopback => mistake(
            "the secret would cross the network without encryption",
            "use https; http is for this machine itself (127.0.0.1)",
        ),
        _ => Ok(text.to_owned()),
    }
}

fn reload(value: &DeValue) -> Judged<Reload> {
    let usage =
        "for a command write a list, the program's full path first: [\"/usr/bin/systemctl\", \"reload\", \"postfix\"]";
    let words = || [("always", ()), ("if-needed", ()), ("never", ())];
    match value {
        DeValue::String(_) => match trimmed(value)? {
            "always" => Ok(Reload::Always),
            "if-needed" => Ok(Reload::IfNeeded),
            "never" => Ok(Reload::Never),
            text if text.contains([' ', '/']) => mistake("a command is no string: nothing here splits it", usage),
            _ => choice(value, &words(), &[]).map(|()| Reload::Always),
        },
        DeValue::Array(items) => {
            let argv =
                items.iter().map(|item| string(item.get_ref()).map(str::to_owned)).collect::<Judged<Vec<_>>>()?;
            match argv.first() {
                None => mistake("the list is empty", usage),
                Some(program) if !program.starts_with('/') => {
                    mistake(format!("the program {program:?} is not an absolute path"), usage)
                }
                Some(_) => Ok(Reload::Command(argv)),
            }
        }
        other => mistake(expected("a string or a list of strings", other), usage),
    }
}

/// A key as it stands in a table.
fn lookup_key(value: &DeValue) -> Judged<String> {
    let text = trimmed(value)?;
    if text.contains(char::is_whitespace) || text.starts_with(['#', '"']) {
        return mistake(
            format!("{text:?} cannot be a lookup key"),
            "write it as it stands in the table, without blanks: \"[email-smtp.eu-west-1.amazonaws.com]:587\"",
        );
    }
    Ok(text.to_owned())
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
    #[error("{} has {} mistake(s)", path.display(), findings.iter().filter(|f| f.severity == Severity::Error).count())]
    Invalid {
        /// The file asked for.
        path: PathBuf,
        /// Everything there is to say about it, by line; at least one error.
        findings: Vec<Finding>,
    },
}

impl LoadError {
    /// The error as findings, so that there is one way to show it: those of the content, or a single one for a file that
    /// could not be read.
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
/// The file cannot be read, is no text, or has mistakes; [`LoadError::findings`] and [`render`] say which, and what to do.
pub fn load(path: &Path) -> Result<(Config, Vec<Finding>), LoadError> {
    let text = read_text(path)?;
    parse(&text).map_err(|findings| LoadError::Invalid { path: path.to_owned(), findings })
}

fn read_text(path: &Path) -> Result<String, LoadError> {
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
    let mut bytes = Vec::new();
    fs::File::open(path).and_then(|f| f.take(MAX_FILE + 1).read_to_end(&mut bytes)).map_err(failed)?;
    if bytes.len() as u64 > MAX_FILE {
        return Err(LoadError::TooLarge { path: path_buf() });
    }
    let nul = bytes.iter().position(|b| *b == 0);
    let broken = std::str::from_utf8(&bytes).err().map(|e| e.valid_up_to());
    if let Some(offset) = [nul, broken].into_iter().flatten().min() {
        let line = bytes[..offset].iter().filter(|b| **b == b'\n').count() + 1;
        return Err(LoadError::NotText { path: path_buf(), line, offset, byte: bytes[offset] });
    }
    String::from_utf8(bytes).map_err(|e| failed(io::Error::other(e)))
}

/// The findings for people, each with the line it is about, which is read from the file at `path` again; see
/// [`render_text`] for the form.
pub fn render(findings: &[Finding], path: &Path) -> String {
    render_text(findings, path, read_text(path).ok().as_deref())
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
/// quoted line is left out unless it belongs to a key whose values are harmless.
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

/// What of a line may be shown.
fn quotable(line: &str) -> Option<String> {
    let line = line.trim();
    if line.starts_with('[') && !line.contains('=') {
        return Some(printable(line.split('#').next().unwrap_or("").trim()));
    }
    let key = key_of(line)?;
    let known = || SCHEMA.iter().flat_map(|s| s.keys).filter(|k| k.name == key);
    let harmless = known().next().is_some() && known().all(|k| k.shown) && (!line.contains('@') || key == "keys");
    match line.split_once('=') {
        _ if harmless => Some(printable(line)),
        Some((name, _)) => Some(printable(&format!("{}= …", name))),
        None => None,
    }
}

/// Without anything that a terminal would obey, and not longer than a line.
fn printable(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars().take(200) {
        match c {
            '\t' => out.push(' '),
            c if c.is_control() => out.extend(c.escape_default()),
            c => out.push(c),
        }
    }
    out
}
