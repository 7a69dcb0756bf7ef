//! What Postfix is set to, as `postconf` says it, and who could have written the files that say so.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::commands::CommandService;
use super::origin::RouteSettings;
use super::proxymap;
use super::services::Service;
use super::tables::{Kind, identify};
use super::{DEFAULT_CONFIG_DIR, Postfix};
use crate::fault::{Class, Fault};
use crate::host;
use crate::host::trust;
use crate::mta::table::Delimiter;

/// What is asked of `postconf`, in one call. Names that this Postfix does not know are left out of its answer.
pub(super) const PARAMETERS: &[&str] = &[
    "alternate_config_directories",
    "body_checks",
    "command_directory",
    "compatibility_level",
    "config_directory",
    "content_filter",
    "daemon_directory",
    "default_cache_db_type",
    "default_database_type",
    "default_filter_nexthop",
    "default_transport",
    "fallback_transport",
    "fallback_transport_maps",
    "header_checks",
    "local_transport",
    "mail_owner",
    "mailbox_command",
    "mailbox_command_maps",
    "mailbox_transport",
    "mailbox_transport_maps",
    "maillog_file",
    "meta_directory",
    "milter_header_checks",
    "mime_header_checks",
    "multi_instance_directories",
    "nested_header_checks",
    "non_bdb_migration_level",
    "process_id_directory",
    "proxy_read_maps",
    "proxymap_service_name",
    "queue_directory",
    "relay_transport",
    "relayhost",
    "sender_dependent_default_transport_maps",
    "sender_dependent_relayhost_maps",
    "sendmail_path",
    "shlib_directory",
    "smtp_cname_overrides_servername",
    "smtp_enforce_tls",
    "smtp_fallback_relay",
    "smtp_sasl_auth_cache_name",
    "smtp_sasl_auth_cache_time",
    "smtp_sasl_auth_enable",
    "smtp_sasl_auth_soft_bounce",
    "smtp_sasl_mechanism_filter",
    "smtp_sasl_password_maps",
    "smtp_sasl_password_result_delimiter",
    "smtp_sasl_security_options",
    "smtp_sasl_tls_security_options",
    "smtp_sasl_tls_verified_security_options",
    "smtp_sasl_type",
    "smtp_sender_dependent_authentication",
    "smtp_tcp_port",
    "smtp_tls_CAfile",
    "smtp_tls_enforce_peername",
    "smtp_tls_per_site",
    "smtp_tls_policy_maps",
    "smtp_tls_security_level",
    "smtp_tls_wrappermode",
    "smtp_use_tls",
    "smtpd_client_restrictions",
    "smtpd_data_restrictions",
    "smtpd_end_of_data_restrictions",
    "smtpd_etrn_restrictions",
    "smtpd_helo_restrictions",
    "smtpd_proxy_filter",
    "smtpd_recipient_restrictions",
    "smtpd_relay_restrictions",
    "smtpd_restriction_classes",
    "smtpd_sender_restrictions",
    "transport_maps",
    "virtual_transport",
];

impl Postfix {
    /// As they are now. Asked of `postconf` again where main.cf or master.cf is another one than it has read.
    pub(super) fn setup(&self) -> Result<Setup, Fault> {
        if self.config_dir.is_file() {
            let directory = self.config_dir.parent().filter(|directory| directory.join("main.cf").is_file());
            return Err(Fault::new(
                Class::Config,
                "config_dir of the target is a file, and not the directory with the files of this instance",
                match directory {
                    Some(directory) => format!("name the directory: config_dir = {directory:?}"),
                    None => "name the directory, which has main.cf in it".into(),
                },
            )
            .in_file(self.config_dir.clone()));
        }
        for path in self.own_files() {
            trust::look(&path)?;
        }
        let id = ConfigId::of(&self.config_dir);
        if let (Some(id), Some((known, setup))) = (&id, &*self.kept.borrow())
            && id == known
        {
            return Ok(setup.clone());
        }
        self.said.borrow_mut().clear();
        let mut main = self.read_settings()?;
        let by_service = self.by_service()?;
        if !by_service.is_empty() {
            main = self.main_as_read_by_smtp(&by_service)?;
        }
        let listed = self.postconf(&["-M".into()])?;
        let (services, proxymap) = self.read_services(&main, &by_service, &listed)?;
        let proxymap_in_jail = proxymap::is_in_jail(&main, &listed);
        let routing = self.read_routing(&main, &by_service, &listed)?;
        let mut commands = CommandService::all(&listed, &main);
        commands.extend(self.mailbox_commands(&main, &by_service, &listed)?);
        self.said.borrow_mut().clear();
        let setup = Setup { services, proxymap, proxymap_in_jail, routing, commands, main };
        // Looked at before they were read, so that what was written meanwhile is not taken for what was read.
        *self.kept.borrow_mut() = id.filter(|id| id.settled(SystemTime::now())).map(|id| (id, setup.clone()));
        Ok(setup)
    }

    /// What main.cf says.
    pub(super) fn settings(&self) -> Result<Settings, Fault> {
        Ok(self.setup()?.main)
    }

    /// What says which programs are Postfix's. Who can write it has them run as root.
    pub(super) fn own_files(&self) -> [PathBuf; 2] {
        ["main.cf", "master.cf"].map(|name| self.config_dir.join(name))
    }

    /// What `postfix` and `postmap` start and load besides: scripts, daemons, and the libraries of table types.
    pub(super) fn parts(&self, settings: &Settings) -> Vec<PathBuf> {
        let in_directory = |parameter: &str, name: &str| {
            let directory = Some(settings.get(parameter)).filter(|at| at.starts_with('/'))?;
            Some(Path::new(directory).join(name))
        };
        let meta = ["dynamicmaps.cf", "dynamicmaps.cf.d", "postfix-files"];
        let parts = meta.iter().map(|name| in_directory("meta_directory", name)).chain([
            in_directory("daemon_directory", "postfix-script"),
            in_directory("daemon_directory", "master"),
            in_directory("shlib_directory", ""),
        ]);
        parts.flatten().collect()
    }

    /// Refuses Postfix's programs where somebody else could have changed what they run.
    pub(super) fn trusted_parts(&self, settings: &Settings) -> Result<(), Fault> {
        self.parts(settings).iter().try_for_each(|part| Ok(trust::look(part).map(drop)?))
    }

    pub(super) fn read_settings(&self) -> Result<Settings, Fault> {
        let main_cf = self.config_dir.join("main.cf");
        if !main_cf.is_file() {
            return Err(Fault::new(
                Class::Config,
                format!("there is no Postfix configuration: {} is not a file", main_cf.display()),
                "set config_dir of the target to what `postconf -h config_directory` says",
            )
            .in_file(main_cf));
        }
        let words: Vec<OsString> =
            std::iter::once("-x").chain(PARAMETERS.iter().copied()).map(OsString::from).collect();
        self.spelt_out(Settings::parse(&self.postconf(&words)?), None)
    }

    /// `-c DIR`, for people, where they need it.
    pub(super) fn config_option(&self) -> String {
        match self.config_dir == Path::new(DEFAULT_CONFIG_DIR) {
            true => String::new(),
            false => format!(" -c {}", self.config_dir.display()),
        }
    }
}

/// main.cf and master.cf.
#[derive(Debug, Default, Clone, PartialEq)]
pub(super) struct Setup {
    pub(super) main: Settings,
    /// In the order of master.cf.
    pub(super) services: Vec<Service>,
    /// What proxymap(8) goes by; `None`: master.cf has no such service.
    pub(super) proxymap: Option<Settings>,
    /// Does it see nothing but what is below the queue directory?
    pub(super) proxymap_in_jail: bool,
    pub(super) routing: RouteSettings,
    pub(super) commands: Vec<CommandService>,
}

impl Setup {
    /// What may stand between user names and passwords.
    pub(super) fn delimiters(&self) -> Vec<Delimiter> {
        let all = self.services.iter().map(|service| &service.settings).chain([&self.main]);
        let mut found: Vec<Delimiter> = Vec::new();
        for delimiter in all.filter_map(Settings::delimiter) {
            if !found.contains(&delimiter) {
                found.push(delimiter);
            }
        }
        found
    }
}

/// The states of the files that Postfix's settings are in.
#[derive(PartialEq)]
pub(super) struct ConfigId(pub(super) [host::FileId; 2]);

impl ConfigId {
    /// `None` where one of them cannot be looked at: then nothing is kept.
    pub(super) fn of(config_dir: &Path) -> Option<Self> {
        let of = |name| identify(&config_dir.join(name)).ok().flatten();
        Some(Self([of("main.cf")?, of("master.cf")?]))
    }

    /// Would another change be seen by it? File systems date changes in ticks: two within one look like one.
    pub(super) fn settled(&self, now: SystemTime) -> bool {
        self.0.iter().all(|file| settled(file, now))
    }
}

/// Is a file's last change so long ago that another one would show?
pub(super) fn settled(file: &host::FileId, now: SystemTime) -> bool {
    const SETTLED: i128 = 2_000_000_000;
    let now = now.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_nanos());
    i128::try_from(now).is_ok_and(|now| now - file.ctime_ns > SETTLED)
}

/// What `postconf -x` says, by parameter.
#[derive(Debug, Default, Clone, PartialEq)]
pub(super) struct Settings(pub(super) BTreeMap<String, String>);

impl Settings {
    pub(super) fn parse(text: &str) -> Self {
        let pair =
            |line: &str| line.split_once('=').map(|(name, value)| (name.trim().to_owned(), value.trim().to_owned()));
        Self(text.lines().filter_map(pair).collect())
    }

    /// Empty where Postfix does not know the parameter.
    pub(super) fn get(&self, name: &str) -> &str {
        self.0.get(name).map_or("", String::as_str)
    }

    pub(super) fn yes(&self, name: &str) -> bool {
        self.get(name).eq_ignore_ascii_case("yes")
    }

    pub(super) fn list(&self, name: &str) -> Vec<&str> {
        words(self.get(name))
    }

    /// Between user name and password. `None`: Postfix knows the setting, and has no usable value for it.
    pub(super) fn delimiter(&self) -> Option<Delimiter> {
        let set = self.0.get("smtp_sasl_password_result_delimiter");
        set.map_or_else(|| Some(Delimiter::default()), |text| Delimiter::new(text))
    }

    pub(super) fn program(&self, name: &str) -> OsString {
        Path::new(self.get("command_directory")).join(name).into_os_string()
    }

    /// What Postfix really opens for a kind: 3.11 and later may answer `hash:` and `btree:` with another kind
    /// (NON_BERKELEYDB_README, "enable-redirect").
    pub(super) fn redirected(&self, kind: Kind) -> Kind {
        let to = match kind {
            Kind::Hash => "default_database_type",
            Kind::Btree => "default_cache_db_type",
            _ => return kind,
        };
        let enabled = self.get("non_bdb_migration_level").starts_with("enable");
        Kind::new(self.get(to)).filter(|_| enabled).unwrap_or(kind)
    }
}

/// Splits a list as Postfix does: at commas and white space, but not inside braces.
pub(super) fn words(list: &str) -> Vec<&str> {
    outside_braces(list, |c| c == ',' || c.is_ascii_whitespace())
}

/// What stands between separators that are not inside braces.
pub(super) fn outside_braces(text: &str, is_separator: impl Fn(char) -> bool) -> Vec<&str> {
    let mut depth = 0_usize;
    let separator = move |c: char| {
        match c {
            '{' => depth += 1,
            '}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        depth == 0 && is_separator(c)
    };
    text.split(separator).filter(|word| !word.is_empty()).collect()
}

/// Where the distributions, and Zimbra, put it; the other programs are where Postfix says.
pub(super) fn postconf() -> Result<&'static str, Fault> {
    let places = [
        "/usr/sbin/postconf",
        "/usr/local/sbin/postconf",
        "/usr/bin/postconf",
        "/opt/postfix/sbin/postconf",
        "/opt/zimbra/common/sbin/postconf",
    ];
    places.into_iter().find(|place| Path::new(place).exists()).ok_or_else(|| {
        Fault::new(
            Class::Config,
            format!("Postfix is not installed: there is no {}", places.join(", no ")),
            "install Postfix, or remove the target",
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_split_outside_braces() {
        for (list, expected) in [
            ("", &[][..]),
            ("hash:/a", &["hash:/a"]),
            ("hash:/a, hash:/b\thash:/c", &["hash:/a", "hash:/b", "hash:/c"]),
            ("inline:{ {a=b}, {c=d} } hash:/b", &["inline:{ {a=b}, {c=d} }", "hash:/b"]),
            ("odd } hash:/b", &["odd", "}", "hash:/b"]),
        ] {
            assert_eq!(words(list), expected, "{list:?}");
        }
    }

    #[test]
    fn settings_and_redirected_kinds() {
        let of = |level: &str| {
            Settings::parse(&format!(
                "default_database_type = lmdb\ndefault_cache_db_type = cdb\nnon_bdb_migration_level = {level}\n\
                 relayhost = a = b\nempty =\nsmtp_sasl_auth_enable = yes\n"
            ))
        };
        let settings = of("disable");
        assert_eq!((settings.get("relayhost"), settings.get("empty"), settings.get("absent")), ("a = b", "", ""));
        assert!(settings.yes("smtp_sasl_auth_enable") && !settings.yes("absent"));
        for (level, hash, btree) in [
            ("disable", Kind::Hash, Kind::Btree),
            ("", Kind::Hash, Kind::Btree),
            ("enable-redirect", Kind::Lmdb, Kind::Cdb),
            ("enable-reindex", Kind::Lmdb, Kind::Cdb),
        ] {
            let settings = of(level);
            let kinds = [Kind::Hash, Kind::Btree, Kind::Texthash].map(|kind| settings.redirected(kind));
            assert_eq!(kinds, [hash, btree, Kind::Texthash], "{level:?}");
        }
    }
}
