//! How an instance gets a login table that we can write: what is missing, and the command, for this very instance.

use std::path::{Path, PathBuf};

use super::review::Problem;
use super::services::Service;
use super::settings::Settings;
use super::tables::{Kind, with_extension};
use crate::fault::{Class, Fault};
use crate::mta::TableId;

/// The parameter that names login tables.
pub(super) const PASSWORD_MAPS: &str = "smtp_sasl_password_maps";

/// Where a login table is named: in main.cf, or by an option of a service's own in master.cf.
#[derive(Clone, Copy)]
pub(super) struct NamedIn<'a> {
    pub(super) settings: &'a Settings,
    pub(super) service: Option<&'a str>,
}

impl<'a> NamedIn<'a> {
    pub(super) fn main_cf(settings: &'a Settings) -> Self {
        Self { settings, service: None }
    }

    pub(super) fn service(service: &'a Service) -> Self {
        let has_its_own = service.overridden.contains(PASSWORD_MAPS);
        Self { settings: &service.settings, service: has_its_own.then_some(service.name.as_str()) }
    }

    fn config_dir(self) -> &'a Path {
        Path::new(self.settings.get("config_directory"))
    }

    pub(super) fn file(self) -> PathBuf {
        self.config_dir().join(if self.service.is_some() { "master.cf" } else { "main.cf" })
    }

    /// Beside a table that we cannot write: one that we can, asked before it, so that one which has an answer for everything
    /// leaves it its turn. It is new and empty: nothing that an old file holds goes into use. Then a person moves the login into it.
    pub(super) fn own_table_in_front(self) -> String {
        self.new_table_in_front(
            "then move the relay's login into it, with its key",
            "move the relay's login into it, with its key",
        )
    }

    /// The same, where there is no login yet: relaykey adds it.
    pub(super) fn empty_table_in_front(self) -> String {
        self.new_table_in_front("relaykey adds the login", "relaykey adds the login")
    }

    fn new_table_in_front(self, then: &str, and: &str) -> String {
        let dir = self.config_dir();
        let file = ["sasl_passwd", "sasl_passwd_relay", "sasl_passwd_relaykey"].map(|name| dir.join(name));
        let is_new = |file: &&PathBuf| {
            let map = database(self.settings).extension().map(|extension| with_extension(file, extension));
            !file.exists() && !map.is_some_and(|map| map.exists())
        };
        let file = file.iter().find(is_new).unwrap_or(&file[2]);
        let (make, table) = new_table(self.settings, file);
        let dir = dir.display();
        match self.service {
            None => format!(
                "{make} && postconf -c {dir} -e \"{PASSWORD_MAPS} = {table} $(postconf -c {dir} -h {PASSWORD_MAPS})\" # {then}"
            ),
            // `postconf -P` takes no white space.
            Some(name) if self.settings.get(PASSWORD_MAPS).contains(char::is_whitespace) => format!(
                "{make} # then name {table} in {}, in front of what -o {PASSWORD_MAPS} of the service {name} names; {and}",
                self.file().display()
            ),
            Some(name) => format!(
                "{make} && postconf -c {dir} -P \"{name}/unix/{PASSWORD_MAPS}={table},$(postconf -c {dir} -P -h \
                 {name}/unix/{PASSWORD_MAPS})\" # {then}"
            ),
        }
    }
}

/// Where a login gets that is to be changed by us.
#[derive(Clone)]
pub(super) enum WritableTable {
    /// The same service names it.
    Named(TableId),
    /// By this command.
    Made(String),
}

impl WritableTable {
    /// What a person does with the login of the relay.
    pub(super) fn fix(&self) -> String {
        match self {
            Self::Named(id) => format!("move the relay's login, with its key, into {id}, which relaykey can write"),
            Self::Made(command) => command.clone(),
        }
    }

    /// The same after something else that they do.
    pub(super) fn and_fix(&self) -> String {
        match self {
            Self::Named(_) => format!("and {}", self.fix()),
            Self::Made(command) => format!("and give it a table that relaykey can write: {command}"),
        }
    }
}

pub(super) fn no_table(settings: &Settings) -> Fault {
    let main_cf = NamedIn::main_cf(settings);
    let what = "smtp_sasl_password_maps names no table that relaykey can write";
    Fault::new(Class::Config, what, main_cf.own_table_in_front()).in_file(main_cf.file())
}

/// No client service names a login table.
pub(super) fn no_map(settings: &Settings) -> Problem {
    let config_dir = Path::new(settings.get("config_directory"));
    Problem::error(
        Class::Config,
        Some(config_dir.join("main.cf")),
        "smtp_sasl_password_maps is empty: there is no table for the login".into(),
        password_maps(settings, config_dir),
    )
}

/// How an instance gets a login table of its own. One that is named and not there keeps all mail back.
fn password_maps(settings: &Settings, config_dir: &Path) -> String {
    let (make, table) = new_table(settings, &config_dir.join("sasl_passwd"));
    format!("{make} && postconf -c {} -e '{PASSWORD_MAPS} = {table}' # relaykey adds the login", config_dir.display())
}

/// The kind of table that this Postfix makes.
fn database(settings: &Settings) -> Kind {
    Kind::new(settings.get("default_database_type")).unwrap_or(Kind::Hash)
}

/// The command that makes a table, and what the table is called.
fn new_table(settings: &Settings, file: &Path) -> (String, String) {
    let (kind, file) = (database(settings), file.display());
    let table = format!("{}:{file}", kind.name());
    let dir = settings.get("config_directory");
    let compiled = kind.extension().map(|_| format!(" && postmap -c {dir} {table}")).unwrap_or_default();
    (format!("touch {file} && chmod 0600 {file}{compiled}"), table)
}
