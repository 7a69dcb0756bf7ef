//! The configuration file: its schema, version 1, and what the program makes of it.
//!
//! [`parse`] reads the text into a [`Config`] with every default filled in, or says everything that is wrong with it,
//! each mistake with its line and its fix; the reader is `relaykey_core::config`, and each section is read in a file of its
//! own. [`SCHEMA`] lists the keys; `config.example.toml` ([`EXAMPLE`]) explains them
//! to people, and tests keep the two and the reader together. Apart from [`load`] and [`render`], which read the file,
//! nothing here does I/O: whether a path exists is for those to say who use it.
//!
//! A configuration holds no secrets, but people put them there by mistake. So a finding names an unknown key without
//! its value, and a quoted line shows the value only of keys whose values are harmless.

mod credential;
mod health;
mod host;
mod load;
mod report;
mod smtp;
mod source;
mod target;
mod value;

use std::time::Duration;

pub use relaykey_core::config::aws::Arn;
use relaykey_core::config::schema::{AtSign, key, table};
use relaykey_core::config::{AWS, At, DeValue, Reader, SectionView, aws};
pub use relaykey_core::config::{Aws, MAX_FILE, Opening, Schema, SchemaKey, Section, Window};

pub use self::credential::{Credential, IfAppliedDies, Mode, Probe};
pub use self::health::{Health, Listen};
pub use self::host::{Host, Instances};
pub use self::load::{LoadError, load, read_text, render, render_text, run_dir};
pub use self::report::{Keeps, MailVia, ReceiverConfig, ReceiverKind, TableKeys};
pub use self::smtp::{Smtp, Tls};
pub use self::source::SourceConfig;
pub use self::target::{Drift, MailLog, Target};
use crate::apply;
pub use crate::apply::TargetKind;
pub use crate::finding::{Finding, Severity, located};
pub use crate::mta::Reload;

/// What the file of the control side has in common with this one.
pub mod shared {
    pub use super::report::{parameter_path, table_name};
    pub use super::smtp::{ALSO, SMTP, read as smtp};
    pub use super::source::{parameter_id, pinned, secret_id, stage};
}

/// The version of the schema that this program reads, as in `config_version`.
pub const VERSION: i64 = 1;

/// The default of `poll`.
pub const DEFAULT_POLL: Duration = Duration::from_secs(300);

/// The commented example that is installed beside the program; it parses as it stands.
pub const EXAMPLE: &str = include_str!("../config.example.toml");

static TOP: Section = Section {
    header: "",
    keys: &[
        key("config_version").few(),
        table("host"),
        table("aws"),
        table("credential"),
        table("health"),
        table("report"),
    ],
};

/// Every section of the file, in its order. The reader, the example and the manual page are held to it.
pub static SCHEMA: Schema = Schema {
    program: "relaykey",
    version: VERSION,
    explained_in: "config.example.toml",
    no_login: "No login stands in this file: the source holds it",
    instead_of_login: "remove it: no login stands in this file, the source holds it (to name the keys of a JSON secret \
                       there are username_key and password_key)",
    tables: "[host] or [credential.smtp]",
    lists: "[[credential]] or [[credential.target]]",
    twice,
    top: &TOP,
    sections: &[
        &TOP,
        &host::HOST,
        &AWS,
        &credential::CREDENTIAL,
        &source::SOURCE,
        &smtp::SMTP,
        &smtp::ALSO,
        &credential::PROBE,
        &target::TARGET,
        &health::HEALTH,
        &report::REPORT,
    ],
};

/// What is said of a header that stands twice.
fn twice(name: &str, in_double_brackets: bool) -> (&'static str, &'static str) {
    match name {
        "credential" if in_double_brackets => (
            "a part of [[credential]] stands before its header",
            "put [[credential]] first, and its [credential.source] and the others below it",
        ),
        "credential" => ("[credential] stands twice", "begin each credential with [[credential]]"),
        "credential.target" => ("[credential.target] stands twice", "begin each target with [[credential.target]]"),
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
    /// `[host]`.
    pub host: Host,
    /// `[aws]`, before any source overrides it.
    pub aws: Aws,
    /// `[[credential]]`, in the order of the file; at least one.
    pub credentials: Vec<Credential>,
    /// `[[report]]`, in the order of the file. Without any, nothing is owed.
    pub reports: Vec<ReceiverConfig>,
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
            unlisted_ok: target.unlisted_ok.clone(),
            reload: target.reload.clone(),
            write: target.write,
        };
        let targets = self.credentials.iter().flat_map(|c| c.targets.iter().map(move |t| spec(c, t))).collect();
        let beside_running = self.host.instances == Instances::Running;
        apply::Setup { state_dir: self.host.state_dir.clone(), targets, beside_running }
    }
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
    relaykey_core::config::read(text, &SCHEMA, |reader, top| {
        let host = host::read(reader, top);
        let aws = match reader.table(top, "aws", &AWS) {
            Some(view) => {
                reader.keys(&view, None);
                aws::read(reader, &view, &Aws::default())
            }
            None => Aws::default(),
        };
        let credentials = credential::read_all(reader, top, &aws, is_user);
        let health = reader.table(top, "health", &health::HEALTH).and_then(|view| health::read(reader, &view));
        // Where a name is wrong or missing, it is not known which there are.
        let known = credentials.iter().all(|c| !c.name.is_empty()) && !credentials.is_empty();
        let reports = report::read_all(reader, top, &aws, &credentials, known);
        Config { host, aws, credentials, reports, health }
    })
}

#[cfg(test)]
mod tests;
