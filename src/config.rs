//! The configuration file: its schema, version 1, and what the program makes of it.

use std::path::PathBuf;
use std::time::Duration;

use crate::credential::JsonKeys;

/// Everything the program knows from its configuration; every default is filled in.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    pub host: Host,
    pub aws: Aws,
    pub credentials: Vec<Credential>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Host {
    /// As configured; the agent falls back to the fully qualified host name at first start.
    pub name: Option<String>,
    pub state_dir: PathBuf,
    pub run_dir: PathBuf,
}

/// How AWS is reached. A `secrets-manager` or `parameter-store` source carries its own, with `[aws]` filled in.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Aws {
    pub region: Option<String>,
    pub profile: Option<String>,
    pub role_arn: Option<String>,
    pub external_id: Option<String>,
    pub endpoint_url: Option<String>,
    pub proxy: Option<String>,
    pub use_fips: bool,
    pub use_dualstack: bool,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Credential {
    pub name: String,
    pub source: Source,
    /// How to read the JSON of the source (`username_key`, `password_key`).
    pub keys: JsonKeys,
    pub targets: Vec<Target>,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Source {
    SecretsManager {
        /// Name or ARN.
        secret: String,
        /// At least one; the newest version that carries one of them.
        stages: Vec<String>,
        aws: Aws,
    },
    ParameterStore {
        /// Name or ARN.
        parameter: String,
        label: Option<String>,
        aws: Aws,
    },
    File {
        path: PathBuf,
    },
}

/// Where and how to log in: `[credential.smtp]`, with a target's overrides applied.
#[derive(Debug, Clone, PartialEq)]
pub struct Smtp {
    /// Host name, as certificates name it.
    pub endpoint: String,
    pub port: u16,
    pub tls: Tls,
    /// The configured SES region; else it is read from the endpoint's name (`credential::ses_region`).
    pub region: Option<String>,
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

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tls {
    Starttls,
    Implicit,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Target {
    /// Unique within the credential.
    pub name: String,
    pub kind: TargetKind,
    pub reload: Reload,
    pub drift: Drift,
    /// Exactly these lookup keys are ours, where given.
    pub keys: Option<Vec<String>>,
    pub smtp: Smtp,
}

#[derive(Debug, Clone, PartialEq)]
pub enum TargetKind {
    /// One Postfix instance.
    Postfix { config_dir: PathBuf },
    /// A key-value text read directly, with no mail server behind it: what `relaykey demo` rolls over where no Postfix
    /// is installed. Not offered in the configuration file.
    Text { path: PathBuf },
}

#[derive(Debug, Clone, PartialEq)]
pub enum Reload {
    Always,
    IfNeeded,
    Never,
    /// An argv array, run instead of `postfix reload`.
    Command(Vec<String>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Drift {
    Heal,
    Report,
}

/// One mistake in a configuration file, or a remark about it.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Finding {
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
    Error,
    Warning,
    Note,
}
