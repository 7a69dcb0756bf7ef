//! `[[credential]]`: one SMTP login that hosts share.

use std::collections::HashMap;
use std::path::PathBuf;
use std::time::Duration;

use super::source::{self, SourceConfig};
use super::target::{self, ClaimedEntries, Target};
use super::value::{self, mistake};
use super::{At, AtSign, Aws, DEFAULT_POLL, Reader, Section, SectionView, Window, key, smtp, table};
use crate::credential::JsonKeys;

pub(super) static CREDENTIAL: Section = Section {
    header: "[[credential]]",
    keys: &[
        key("name"),
        key("mode").few().default("\"automatic\""),
        table("source"),
        table("smtp"),
        table("target"),
        key("apply"),
        key("if_applied_dies").few().default("\"wait\""),
        table("probe"),
    ],
};

pub(super) static PROBE: Section = Section {
    header: "[credential.probe]",
    keys: &[
        key("from").hidden().at(AtSign::Belongs),
        key("to").default("\"success@simulator.amazonses.com\"").hidden().at(AtSign::Belongs),
    ],
};

/// `[[credential]]`: one SMTP login that hosts share.
#[derive(Debug, Clone, PartialEq)]
pub struct Credential {
    /// Unique; lower case letters, digits and `-`.
    pub name: String,
    /// Where its versions come from.
    pub source: SourceConfig,
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

/// All of them, and that no two targets meet. `is_user`: is there a user of this name or number on this host?
pub(super) fn read_all(
    reader: &mut Reader,
    top: &SectionView,
    aws: &Aws,
    is_user: &dyn Fn(&str) -> bool,
) -> Vec<Credential> {
    let views = reader.tables(top, "credential", &CREDENTIAL);
    if !reader.is_there(top, "credential") || top.has_empty("credential") {
        let fix = "add [[credential]] with [credential.source], [credential.smtp] and [[credential.target]]";
        reader.error(1, "there is no credential in the file", fix);
    }
    let mut claimed = Vec::new();
    let mut names = HashMap::new();
    let mut credentials = Vec::new();
    for view in views.into_iter().flatten() {
        credentials.push(read(reader, &view, aws, &mut names, &mut claimed, is_user));
    }
    target::meetings(reader, &claimed);
    credentials
}

fn read(
    reader: &mut Reader,
    view: &SectionView,
    aws: &Aws,
    names: &mut HashMap<String, usize>,
    claimed: &mut Vec<ClaimedEntries>,
    is_user: &dyn Fn(&str) -> bool,
) -> Credential {
    reader.keys(view, None);
    let name = reader.require(view, "name", "add name = \"ses\" below [[credential]]", value::name);
    if let Some(name) = &name {
        reader.unique(name, names, "credential");
    }
    let name = name.map(|at| at.value).unwrap_or_default();
    let mode = mode(reader, view);
    let probe = reader.table(view, "probe", &PROBE).map(|view| probe(reader, &view));

    let source = "add [credential.source] with type = \"secrets-manager\" and secret = \"…\"";
    let (source, keys, poll) = match reader.part(view, "source", &source::SOURCE, source) {
        Some(view) => {
            let (source, keys) = source::read(reader, &view, aws, is_user);
            let poll = source::poll(reader, &view, &source);
            (source, keys, poll)
        }
        None => (SourceConfig::File { path: PathBuf::new(), owner: None }, JsonKeys::default(), DEFAULT_POLL),
    };
    let smtp = "add [credential.smtp] with endpoint = \"email-smtp.REGION.amazonaws.com\"";
    let smtp = reader.part(view, "smtp", &smtp::SMTP, smtp);
    let (smtp, door) = smtp::read(reader, smtp.as_ref());

    let views = reader.tables(view, "target", &target::TARGET).unwrap_or_default();
    if !reader.is_there(view, "target") || view.has_empty("target") {
        let fix = "add [[credential.target]] with type = \"postfix\" below it";
        reader.error(view.line, "the credential has no target", fix);
    }
    let own: Vec<Option<At<String>>> = views.iter().map(|view| reader.read(view, "name", value::name)).collect();
    // Names that are given come first, wherever they stand; the others take what is left.
    let mut taken = HashMap::new();
    for own in own.iter().flatten() {
        reader.unique(own, &mut taken, "target");
    }
    let mut left = (1..)
        .map(|n: u64| if n == 1 { "postfix".to_owned() } else { format!("postfix-{n}") })
        .filter(|name| !taken.contains_key(name));
    let mut targets = Vec::new();
    for (view, own) in views.iter().zip(own) {
        let target_name = own.map(|at| at.value).or_else(|| left.next()).unwrap_or_default();
        targets.push(target::read(reader, claimed, view, &name, target_name, &smtp, &door));
    }
    Credential { name, source, keys, poll, mode, probe, targets }
}

/// `mode` and what belongs to it.
fn mode(reader: &mut Reader, view: &SectionView) -> Mode {
    let modes = [("automatic", false), ("manual", true)];
    let manual = reader.read(view, "mode", |v| value::choice(v, &modes, &[]));
    // With a mistake in `mode`, what was meant by it is not known.
    let is_manual = manual.map_or(view.has("mode"), |at| at.value);
    let window = reader.read(view, "apply", |v| {
        let text = value::word(v)?;
        let usage =
            "write days and hours in local time: \"Sat 02:00-04:00\", \"Mon-Fri 22:00-23:30\", \"daily 03:00-04:00\"";
        Window::parse(&text).or_else(|why| mistake(format!("{text:?} is no window: {why}"), usage))
    });
    let choices = [("wait", IfAppliedDies::Wait), ("apply", IfAppliedDies::Apply)];
    let dies = reader.read(view, "if_applied_dies", |v| value::choice(v, &choices, &[]));
    if is_manual {
        return Mode::Manual {
            window: window.map(|at| at.value),
            if_applied_dies: dies.map_or(IfAppliedDies::Wait, |at| at.value),
        };
    }
    for (key, line) in [("apply", window.map(|at| at.line)), ("if_applied_dies", dies.map(|at| at.line))] {
        if let Some(line) = line {
            reader.error(
                line,
                format!("{key} has no effect with mode = \"automatic\""),
                format!("add mode = \"manual\", or remove {key}"),
            );
        }
    }
    Mode::Automatic
}

/// `[credential.probe]`.
fn probe(reader: &mut Reader, view: &SectionView) -> Probe {
    reader.keys(view, None);
    let add = "add from = \"postmaster@example.com\", an address that SES lets this credential send from";
    let from = reader.require(view, "from", add, value::mail_address);
    let to = reader.read(view, "to", value::mail_address);
    Probe {
        from: from.map(|at| at.value).unwrap_or_default(),
        to: to.map_or_else(|| "success@simulator.amazonses.com".to_owned(), |at| at.value),
    }
}
