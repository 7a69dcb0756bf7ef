//! `[[credential.target]]`: one mail-server configuration on this host.

use std::path::PathBuf;

use super::smtp::{Door, Smtp, door, overridden};
use super::value::{self, Judged, choice, expected, mistake, trimmed};
use super::{AtSign, DeValue, Reader, Reload, Section, SectionView, TargetKind, key};
use crate::mta::alias::Alias;

pub(super) static TARGET: Section = Section {
    header: "[[credential.target]]",
    keys: &[
        key("name").default("\"postfix\""),
        key("type").few(),
        key("config_dir").default("\"/etc/postfix\""),
        key("reload").few().default("\"always\""),
        key("drift").few().default("\"heal\""),
        key("write").few().default("true"),
        key("keys").at(AtSign::BelongsInLine),
        key("unlisted_ok").default("[]"),
        key("log"),
        key("endpoint"),
        key("port").few(),
        key("tls").few(),
        key("region"),
        key("maps").later("remove it for now; the table is the one that smtp_sasl_password_maps names"),
    ],
};

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
    /// Login tables that cannot be listed, and for which the administrator answers.
    pub unlisted_ok: Vec<String>,
    /// The mail log, whose refusals wake the daemon.
    pub log: MailLog,
    /// `[credential.smtp]` with this target's overrides.
    pub smtp: Smtp,
}

/// Where the mail server logs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MailLog {
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

/// What one target holds on to, to see that no two meet.
pub(super) struct ClaimedEntries {
    who: String,
    line: usize,
    config_dir: PathBuf,
    /// The endpoints and their aliases.
    hosts: Vec<Alias>,
    /// Case folded, as Postfix looks keys up.
    keys: Option<Vec<String>>,
}

pub(super) fn read(
    reader: &mut Reader,
    claimed: &mut Vec<ClaimedEntries>,
    view: &SectionView,
    credential: &str,
    name: String,
    smtp: &Smtp,
    base: &Door,
) -> Target {
    reader.keys(view, None);
    let soon = "remove this target for now; postfix is the one that works";
    let later = ["exim", "sendmail", "opensmtpd", "msmtp", "iis"].map(|kind| (kind, soon));
    let kind = reader
        .require(view, "type", "add type = \"postfix\"", |v| value::choice(v, &[(TargetKind::POSTFIX, ())], &later));
    let config_dir = reader.read(view, "config_dir", value::absolute).map(|at| at.value);
    let sure = kind.is_some() && config_dir.is_some() == view.has("config_dir");
    let config_dir = config_dir.unwrap_or_else(|| PathBuf::from(TargetKind::POSTFIX_CONFIG_DIR));
    let reload = reader.read(view, "reload", reload).map_or(Reload::Always, |at| at.value);
    let drift = [("heal", Drift::Heal), ("report", Drift::Report)];
    let drift = reader.read(view, "drift", |v| value::choice(v, &drift, &[])).map_or(Drift::Heal, |at| at.value);
    let write = reader.read(view, "write", value::boolean).is_none_or(|at| at.value);
    let empty = "name a lookup key, or leave `keys` out: they are found then";
    let keys = reader.list(view, "keys", empty, lookup_key, |key| key.to_lowercase());
    let unlisted_ok = reader.list(view, "unlisted_ok", "", table_name, String::clone).unwrap_or_default();

    let log = reader.read(view, "log", log).map_or(MailLog::Found, |at| at.value);

    let door = door(reader, view);
    let smtp = overridden(reader, smtp, base, &door, view.line);
    // With a mistake in what they hold on to, whether two meet is not known.
    if sure
        && keys.is_some() == view.has("keys")
        && door.endpoint.is_some() == view.has("endpoint")
        && !smtp.endpoint.is_empty()
    {
        let fold = |list: &[String]| list.iter().map(|s| s.to_lowercase()).collect::<Vec<_>>();
        let hosts = smtp.endpoints().flat_map(Smtp::names).collect();
        claimed.push(ClaimedEntries {
            who: format!("{credential}/{name}"),
            line: view.line,
            config_dir: config_dir.clone(),
            hosts,
            keys: keys.as_deref().map(fold),
        });
    }
    Target { name, kind: TargetKind::Postfix { config_dir }, reload, drift, write, keys, unlisted_ok, log, smtp }
}

/// No two targets may hold the same entries of one Postfix instance: each would put its own login there.
pub(super) fn meetings(reader: &mut Reader, claimed: &[ClaimedEntries]) {
    for (i, second) in claimed.iter().enumerate() {
        let meet = |first: &&ClaimedEntries| {
            first.config_dir == second.config_dir
                && match (&first.keys, &second.keys) {
                    (Some(a), Some(b)) => a.iter().any(|key| b.contains(key)),
                    _ => first.hosts.iter().any(|host| second.hosts.iter().any(|other| host.meets(other))),
                }
        };
        if let Some(first) = claimed[..i].iter().find(meet) {
            reader.error(
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

/// How the mail server is told.
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
        DeValue::Array(_) => value::argv(value, usage).map(Reload::Command),
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

/// A table as `smtp_sasl_password_maps` has it. Not repeated: where its entries are its name, that is a login.
fn table_name(value: &DeValue) -> Judged<String> {
    let text = trimmed(value)?;
    let kind = text.split_once(':').map_or("", |(kind, _)| kind);
    let is_kind = !kind.is_empty() && kind.bytes().all(|b| b.is_ascii_lowercase());
    if !is_kind || text.contains("static:") || text.contains("inline:") {
        return mistake(
            "there is no name of a login table that cannot be listed",
            "write it as smtp_sasl_password_maps has it: \"proxy:mysql:/etc/postfix/sasl.cf\"",
        );
    }
    Ok(text.to_owned())
}

/// Where the mail server logs.
fn log(value: &DeValue) -> Judged<MailLog> {
    let usage = "write the log's path, \"/var/log/mail.log\", or \"journal\"; without the line it is found";
    match trimmed(value)? {
        "journal" => Ok(MailLog::Journal),
        // The journal's own files are no text.
        text if text.starts_with("/var/log/journal") || text.starts_with("/run/log/journal") => {
            mistake(format!("{text:?} is where the systemd journal keeps its files"), "write log = \"journal\"")
        }
        text if text.starts_with(['/', '~', '.']) => value::absolute(value).map(MailLog::File),
        text => mistake(format!("{text:?} is neither a path nor \"journal\""), usage),
    }
}
