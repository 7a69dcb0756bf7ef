//! The client services of master.cf: each entry that runs smtp(8), with the settings that it goes by.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fs;

use super::master::MasterEntry;
use super::proxymap;
use super::settings::{PARAMETERS, Settings, postconf, words};
use super::tables::gave_up;
use super::{COMMAND, Postfix, from_io, or_none};
use crate::credential::has_secret_shape;
use crate::fault::{Class, Fault};
use crate::host;

/// One entry of master.cf that runs smtp(8).
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Service {
    /// As transports name it.
    pub(super) name: String,
    /// What it goes by: its own `-o` options over main.cf.
    pub(super) settings: Settings,
    /// The parameters that it has `-o` options for.
    pub(super) overridden: BTreeSet<String>,
}

impl Service {
    /// Does it log in?
    pub(super) fn logs_in(&self) -> bool {
        self.settings.yes("smtp_sasl_auth_enable")
    }

    /// Its login tables, in their order.
    pub(super) fn tables(&self) -> Vec<&str> {
        self.settings.list("smtp_sasl_password_maps")
    }

    /// Does it look a login up under the sender first?
    pub(super) fn by_sender(&self) -> bool {
        self.settings.yes("smtp_sender_dependent_authentication")
    }
}

impl Postfix {
    /// The client services, in the order of master.cf, and what proxymap(8) goes by. `main`: what main.cf says, and `by_service`
    /// what of it names the service; `listed`: what master.cf says.
    pub(super) fn read_services(
        &self,
        main: &Settings,
        by_service: &BTreeMap<String, String>,
        listed: &str,
    ) -> Result<(Vec<Service>, Option<Settings>), Fault> {
        let entries = || listed.lines().filter_map(MasterEntry::parse);
        let of = |program: &'static str| entries().filter(move |entry| entry.is_local() && entry.program == program);
        let clients: Vec<MasterEntry> = of("smtp").collect();
        let proxymap = proxymap::entry(main, listed);
        let options = clients.iter().chain(&proxymap).flat_map(|entry| entry.options.values());
        let expanded = self.expanded_logins(options.map(String::as_str))?;
        let read = |entry| self.service(entry, main, by_service, &expanded);
        let services = clients.into_iter().map(read).collect::<Result<_, _>>()?;
        let proxymap = proxymap.map(read).transpose()?;
        Ok((services, proxymap.map(|service| service.settings)))
    }

    /// The lines of main.cf that say something else to each service, by their parameters, as written.
    pub(super) fn by_service(&self) -> Result<BTreeMap<String, String>, Fault> {
        let main_cf = self.config_dir.join("main.cf");
        let text = fs::read(&main_cf).map_err(|e| from_io(&e, &main_cf))?;
        if !names_its_service(&String::from_utf8_lossy(&text)) {
            return Ok(BTreeMap::new());
        }
        let mut set = Settings::parse(&self.postconf(&["-n".into()])?).0;
        set.retain(|name, value| name != "syslog_name" && names_its_service(value));
        Ok(set)
    }

    /// The options of master.cf with what parameters stand for in them, where one of these values may hold a login: that is not asked
    /// for on a command line. Else nothing.
    pub(super) fn expanded_logins<'a>(&self, mut values: impl Iterator<Item = &'a str>) -> Result<Settings, Fault> {
        match values.any(may_be_a_part_of_a_login) {
            true => Ok(Settings::parse(&self.postconf(&["-P".into(), "-x".into()])?)),
            false => Ok(Settings::default()),
        }
    }

    fn service(
        &self,
        entry: MasterEntry,
        main: &Settings,
        by_service: &BTreeMap<String, String>,
        expanded: &Settings,
    ) -> Result<Service, Fault> {
        let overridden: BTreeSet<String> = entry.options.keys().cloned().collect();
        // Where a message is logged under another name nothing else follows from it.
        let counts = overridden.iter().any(|name| name != "syslog_name") || !by_service.is_empty();
        let settings = if counts { self.as_read_by(&entry, by_service, expanded)? } else { main.clone() };
        Ok(Service { name: entry.name, settings, overridden })
    }

    /// What main.cf says to the service that master.cf calls smtp.
    pub(super) fn main_as_read_by_smtp(&self, by_service: &BTreeMap<String, String>) -> Result<Settings, Fault> {
        let smtp = MasterEntry::parse("smtp unix - - - - - smtp").expect("it is one");
        self.as_read_by(&smtp, by_service, &Settings::default())
    }

    /// What Postfix makes of main.cf with the options of a service: one may stand in the value of another parameter. A value that
    /// may hold a login does not go onto the command line: a word stands in for it there, and gives way to it in what comes back.
    pub(super) fn as_read_by(
        &self,
        entry: &MasterEntry,
        by_service: &BTreeMap<String, String>,
        expanded: &Settings,
    ) -> Result<Settings, Fault> {
        let mut withheld: Vec<(String, String)> = Vec::new();
        let mut words: Vec<OsString> = Vec::new();
        let of_main = by_service.iter().filter(|(name, _)| !entry.options.contains_key(*name));
        for (name, written) in of_main.chain(&entry.options) {
            let mut value = as_named(written, entry);
            if may_be_a_part_of_a_login(&value) {
                let stand_in = format!("withheld-by-relaykey-{}-", withheld.len());
                // `postconf` takes itself for the process.
                let known = expanded.0.get(&format!("{}/{}/{name}", entry.name, entry.kind));
                let known = known.filter(|_| entry.options.contains_key(name) && !mentions(written, "process_name"));
                withheld.push((stand_in.clone(), known.cloned().unwrap_or(value)));
                value = stand_in;
            }
            words.extend(["-o".into(), format!("{name}={value}").into()]);
        }
        words.push("-x".into());
        words.extend(PARAMETERS.iter().map(OsString::from));
        // Services with the same options go by the same.
        let known = self.said.borrow().get(&words).cloned();
        let mut settings = match known {
            Some(known) => known,
            None => {
                let said = Settings::parse(&self.postconf(&words)?);
                self.said.borrow_mut().insert(words, said.clone());
                said
            }
        };
        for value in settings.0.values_mut() {
            for (stand_in, login) in &withheld {
                if value.contains(stand_in) {
                    *value = value.replace(stand_in, login);
                }
            }
        }
        Ok(settings)
    }

    /// What `postconf` says to these words.
    pub(super) fn postconf(&self, words: &[OsString]) -> Result<String, Fault> {
        let mut argv = vec![postconf()?.into(), "-c".into(), self.config_dir.clone().into_os_string()];
        argv.extend_from_slice(words);
        let output = host::run(&argv, None, COMMAND)?;
        if !output.status.success() {
            return Err(Fault::new(
                Class::Config,
                format!("postconf cannot read the configuration: {}", or_none(gave_up(&output.stderr))),
                format!(
                    "correct what it names, which may be half-written; to see it: postconf -c {} -M; it is tried again",
                    self.config_dir.display()
                ),
            )
            // Which of main.cf and master.cf it is, only its words say; and who writes there ends some time.
            .temporary()
            .in_file(self.config_dir.clone()));
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}

/// Such a value does not go onto a command line.
pub(super) fn may_hold_a_login(value: &str) -> bool {
    value.contains("static:") || value.contains("inline:") || has_secret_shape(value)
}

/// Nor does such a value of an option, which may be a part of one: `USER:PASSWORD`, however short.
fn may_be_a_part_of_a_login(value: &str) -> bool {
    // A table, a port and what another parameter says are none.
    let is_plain =
        |rest: &str| rest.is_empty() || rest.starts_with(['/', '$']) || rest.bytes().all(|b| b.is_ascii_digit());
    // In brackets stands an address.
    let pair =
        |word: &str| word.rsplit(']').next().unwrap_or(word).rsplit_once(':').is_some_and(|(_, rest)| !is_plain(rest));
    may_hold_a_login(value) || words(value).into_iter().any(pair)
}

/// The parameters that each service has a value of its own of, whatever main.cf says (postconf(5)).
const OF_THE_SERVICE: [&str; 2] = ["service_name", "process_name"];

/// Is it another value for each service?
fn names_its_service(value: &str) -> bool {
    OF_THE_SERVICE.iter().any(|name| mentions(value, name))
}

/// Does it name a parameter?
fn mentions(value: &str, name: &str) -> bool {
    is_named_at(value, name).next().is_some()
}

/// Where it names a parameter.
fn is_named_at<'a>(value: &'a str, name: &'a str) -> impl Iterator<Item = usize> + 'a {
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_';
    value.match_indices(name).map(|(at, _)| at).filter(move |at| {
        let (before, after) = (&value[..*at], &value[at + name.len()..]);
        ["$", "${", "$("].iter().any(|open| before.ends_with(open)) && !after.starts_with(is_part)
    })
}

/// A value with the names of the service and of its program in it. What asks only whether there is such a name asks for one that is
/// always there.
fn as_named(value: &str, entry: &MasterEntry) -> String {
    let mut value = value.to_owned();
    for (name, is) in OF_THE_SERVICE.into_iter().zip([entry.name.as_str(), entry.program.as_str()]) {
        for (open, close) in [("$", ""), ("${", "}"), ("$(", ")")] {
            let spelt = format!("{open}{name}{close}");
            let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_';
            let mut parts = value.split(spelt.as_str());
            let mut filled = parts.next().unwrap_or_default().to_owned();
            for part in parts {
                // `$service_name_of_mine` is another parameter.
                let is_longer = close.is_empty() && part.starts_with(is_part);
                filled += if is_longer { &spelt } else { is };
                filled += part;
            }
            value = filled;
        }
        let left: Vec<usize> = is_named_at(&value, name).collect();
        left.into_iter().rev().for_each(|at| value.replace_range(at..at + name.len(), "config_directory"));
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_names_that_a_service_has_itself() {
        let bulk = MasterEntry::parse("bulk unix - - n - - smtp").unwrap();
        for (value, expected) in [
            ("hash:/a/$service_name", "hash:/a/bulk"),
            ("hash:/a/${service_name}x, hash:/b/$(process_name)", "hash:/a/bulkx, hash:/b/smtp"),
            ("hash:/a/${service_name?{x}}", "hash:/a/${config_directory?{x}}"),
            ("${{$service_name} == {bulk} ? {hash:/a} : {hash:/b}}", "${{bulk} == {bulk} ? {hash:/a} : {hash:/b}}"),
        ] {
            assert!(names_its_service(value), "{value}");
            assert_eq!(as_named(value, &bulk), expected, "{value}");
        }
        for value in
            ["hash:/a/service_name", "$smtpd_service_name", "$service_names", "${process_names}", "$my", "service_name"]
        {
            assert!(!names_its_service(value), "{value}");
            assert_eq!(as_named(value, &bulk), value);
        }
    }

    #[test]
    fn no_login_goes_onto_a_command_line() {
        for (value, may) in [
            ("hash:/etc/postfix/sasl_passwd", false),
            ("static:user:pw", true),
            ("hash:/a, inline:{ {a=b c} }", true),
            ("encrypt", false),
            ("$relayhost", false),
        ] {
            assert_eq!(may_hold_a_login(value), may, "{value}");
            assert_eq!(may_be_a_part_of_a_login(value), may, "{value}");
        }
        for (value, may) in [
            ("relay:pw", true),
            ("hash:/a, relay:pw", true),
            ("proxy:hash:/a,$b", false),
            ("[relay.example]:587, relay.example:25", false),
            ("[2001:db8::1]:587", false),
            ("hash:$config_directory/a", false),
        ] {
            assert_eq!(may_be_a_part_of_a_login(value), may, "{value}");
        }
    }
}
